//! A faithful local ECS (and STS), as a process or inside a test without sockets. Pure, except for `server`.
//!
//! ```text
//!  request ─▶ rpc: read, verify ─▶ throttle ─▶ faults ─▶ dispatch: cloud ─▶ body: JSON or XML ─▶ SimulatedResponse
//!             (pure)               (pure)      (seeded)  (pure state)       (pure)
//! ```
//! [`Simulator::answer`] is the whole interface: it takes a request and the time, and returns a [`SimulatedResponse`], which
//! has the response, its delay and its delivery. `server` puts it on a port and is the only module with sockets and a clock;
//! `admin` is the admin port. The operator never depends on this module. `docs/simulator.md` is the manual: inventory, admin
//! port, how to produce each code.

pub mod account;
pub mod action;
pub mod admin;
mod apply;
mod attributes;
mod body;
pub mod change;
pub mod cloud;
mod describe;
mod dispatch;
pub mod error;
pub mod faults;
mod filter;
pub mod generated;
pub mod inventory;
pub mod membership;
mod membership_call;
pub mod metadata;
mod metadata_service;
mod modify;
mod notices;
mod page;
mod parameters;
mod pattern;
pub mod policy;
mod power;
pub mod ram;
mod response;
mod rows;
mod rpc;
pub mod server;
pub mod settings;
mod snapshot;
pub mod spec;
mod state;
mod status;
pub mod sts;
#[cfg(test)]
mod test_issuer;
pub mod throttle;
pub mod timeline;
pub mod token;

use std::sync::{Mutex, MutexGuard, PoisonError};

use account::AccessKey;
use bytes::Bytes;
use change::{Change, ChangeError};
use cloud::Cloud;
use faults::Fault;
use http::Request;
use k8s_openapi::jiff::Timestamp;
use rpc::Wire;
use serde_json::{Value, json};
use snapshot::snapshot;
use state::State;

pub use response::{Delivery, SimulatedResponse};

/// The access key of a simulator without any other key. Valid for a simulator only.
pub const DEFAULT_ACCESS_KEY: (&str, &str) =
    ("LTAI5tSimulatorDefaultKey", "simulator-default-secret");

/// Who made a change without a call, in the journal.
const BY_ADMIN: &str = "admin";

/// The simulated cloud behind its wire protocol.
#[derive(Debug)]
pub struct Simulator(Mutex<State>);

impl Simulator {
    /// A simulator over a cloud. The seed determines request IDs and faults with a probability. A cloud without keys gets
    /// [`DEFAULT_ACCESS_KEY`].
    #[must_use]
    pub fn new(mut cloud: Cloud, seed: u64) -> Self {
        if cloud.keys.is_empty() {
            let (id, secret) = DEFAULT_ACCESS_KEY;
            cloud.keys.insert(AccessKey::new(id, secret));
        }
        Self(Mutex::new(State::new(cloud, seed)))
    }

    /// Answers one request. No I/O, no clock.
    #[must_use]
    pub fn answer(&self, request: &Request<Bytes>, now: Timestamp) -> SimulatedResponse {
        let wire = Wire::read(request);
        let mut state = self.state();
        state.advance(now);
        state.answer(&wire, now)
    }

    /// Lets every call take effect that is due. Each request and each change does this first.
    pub fn advance(&self, now: Timestamp) {
        self.state().advance(now);
    }

    /// Makes a change without an API call.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn change(&self, change: Change, now: Timestamp) -> Result<(), ChangeError> {
        let mut state = self.state();
        state.advance(now);
        let target = change.edge().map(|edge| edge.target);
        let before = target.as_ref().map(|target| state.groups_of(target, now));
        state.cloud.change(change, now)?;
        if let (Some(target), Some(before)) = (target, before) {
            state.note(BY_ADMIN, &target, &before, now);
        }
        Ok(())
    }

    /// Replaces all faults.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.state().faults.set(faults);
    }

    /// Adds one fault.
    pub fn add_fault(&self, fault: Fault) {
        self.state().faults.add(fault);
    }

    /// The faults that are left: `[{"action", "region", "target", "securityGroupId", "tag", "accessKey", "skip", "count",
    /// "probability", "fault"}]`. What a fault does not say is `null`; `fault` is the name of its effect.
    #[must_use]
    pub fn faults(&self) -> Value {
        snapshot::faults(self.state().faults.list())
    }

    /// Reads the cloud itself, without lag.
    pub fn inspect<T>(&self, read: impl FnOnce(&Cloud) -> T) -> T {
        read(&self.state().cloud)
    }

    /// `{"instances": {ID: {"status", "securityGroupIds"}}, "networkInterfaces": {…}, "securityGroups": {…}}`, without lag.
    /// Interfaces are the secondary ones. A locked instance has `"locks"` too.
    #[must_use]
    pub fn snapshot(&self, now: Timestamp) -> Value {
        snapshot(&self.state().cloud, now)
    }

    /// `{"calls": {ACTION: {"OK"|CODE: n}}, "effects": {ACTION: n}, "faults": n}`: answers, changes that took effect, and
    /// faults that are left.
    #[must_use]
    pub fn stats(&self) -> Value {
        let state = self.state();
        json!({"calls": state.calls, "effects": state.effects, "faults": state.faults.left()})
    }

    /// The last 10,000 Joins and Leaves that changed a membership since the statistics were reset, oldest first: `[{"at",
    /// "action", "target", "securityGroupId", "by"}]`. `by` is the access key ID of a call, and `admin` for a change without a
    /// call. Includes calls whose answer was lost.
    #[must_use]
    pub fn journal(&self) -> Value {
        self.state().journal.iter().cloned().collect()
    }

    /// The journal entries from number `from` (0-based) on.
    #[must_use]
    pub fn journal_from(&self, from: usize) -> Vec<Value> {
        self.state().journal.iter().skip(from).cloned().collect()
    }

    /// Resets the statistics and the journal.
    pub fn reset_stats(&self) {
        let mut state = self.state();
        state.calls.clear();
        state.effects.clear();
        state.journal.clear();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
