//! A faithful local ECS (and STS), as a process or inside a test without sockets. Pure, except for `server`.
//!
//! ```text
//!  request ─▶ rpc: read, verify ─▶ throttle ─▶ faults ─▶ action: cloud ─▶ body: JSON or XML ─▶ SimulatedResponse
//!             (pure)               (pure)      (seeded)  (pure state)     (pure)
//! ```
//! [`Simulator::answer`] is the whole interface: it takes a request and the time, and returns a [`SimulatedResponse`], which
//! has the response, its delay and its delivery. `server` puts it on a port and is the only module with sockets and a clock;
//! `admin` is the admin port. The operator never depends on this module. `docs/simulator.md` is the manual: inventory, admin
//! port, how to produce each code.

pub mod account;
pub mod action;
pub mod admin;
mod body;
pub mod change;
pub mod cloud;
mod describe;
pub mod error;
pub mod faults;
pub mod inventory;
pub mod membership;
mod page;
mod parameters;
mod power;
mod rows;
mod rpc;
pub mod server;
pub mod settings;
pub mod spec;
pub mod throttle;
pub mod timeline;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use k8s_openapi::jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use account::{AccessKey, Caller};
use action::Action;
use change::{Change, ChangeError};
use cloud::{Cloud, InterfaceKind};
use error::ErrorResponse;
use faults::{Body, Fault, Faults, Harm, Hit, Subject};
use parameters::Parameters;
use rpc::{Nonces, Wire};
use throttle::Throttle;

/// The access key of a simulator without any other key. Valid for a simulator only.
pub const DEFAULT_ACCESS_KEY: (&str, &str) =
    ("LTAI5tSimulatorDefaultKey", "simulator-default-secret");

/// The simulated cloud behind its wire protocol.
#[derive(Debug)]
pub struct Simulator(Mutex<State>);

#[derive(Debug)]
struct State {
    cloud: Cloud,
    throttle: Throttle,
    faults: Faults,
    nonces: Nonces,
    random: StdRng,
    calls: BTreeMap<&'static str, BTreeMap<String, u64>>,
    effects: BTreeMap<&'static str, u64>,
    journal: VecDeque<Value>,
}

/// Number of accepted Joins and Leaves in the journal.
const JOURNAL: usize = 10_000;

/// The response, its delay, and its delivery.
#[derive(Debug)]
pub struct SimulatedResponse {
    /// The response.
    pub response: Response<Bytes>,
    /// Duration of the call. The change is already made.
    pub delay: Duration,
    /// How the response reaches the client.
    pub delivery: Delivery,
    /// The action of the request, for the log.
    pub action: &'static str,
    /// Result: `OK`, a code, or the name of a fault, as in the statistics.
    pub outcome: String,
}

/// How a response reaches the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The whole response.
    Whole,
    /// The full length is announced, and the connection is closed half-way.
    Truncated,
    /// One byte per second.
    Drip,
    /// No response: the connection is reset.
    Reset,
    /// No response: the connection stays open.
    Silence,
}

impl Simulator {
    /// A simulator over a cloud. The seed determines request IDs and faults with a probability. A cloud without keys gets
    /// [`DEFAULT_ACCESS_KEY`].
    #[must_use]
    pub fn new(mut cloud: Cloud, seed: u64) -> Self {
        if cloud.keys.is_empty() {
            let (id, secret) = DEFAULT_ACCESS_KEY;
            cloud.keys.insert(AccessKey::new(id, secret));
        }
        Self(Mutex::new(State {
            cloud,
            throttle: Throttle::default(),
            faults: Faults::seeded(seed),
            nonces: Nonces::default(),
            random: StdRng::seed_from_u64(seed),
            calls: BTreeMap::new(),
            effects: BTreeMap::new(),
            journal: VecDeque::new(),
        }))
    }

    /// Answers one request. No I/O, no clock.
    #[must_use]
    pub fn answer(&self, request: &Request<Bytes>, now: Timestamp) -> SimulatedResponse {
        let wire = Wire::read(request);
        self.state().answer(&wire, now)
    }

    /// Makes a change without an API call.
    ///
    /// # Errors
    /// A sentence that names the field.
    pub fn change(&self, change: Change, now: Timestamp) -> Result<(), ChangeError> {
        self.state().cloud.change(change, now)
    }

    /// Replaces all faults.
    pub fn set_faults(&self, faults: Vec<Fault>) {
        self.state().faults.set(faults);
    }

    /// Adds one fault.
    pub fn add_fault(&self, fault: Fault) {
        self.state().faults.add(fault);
    }

    /// Reads the cloud itself, without lag.
    pub fn inspect<T>(&self, read: impl FnOnce(&Cloud) -> T) -> T {
        read(&self.state().cloud)
    }

    /// `{"instances": {ID: {"status", "securityGroupIds"}}, "networkInterfaces": {…}, "securityGroups": {…}}`, without lag.
    /// Interfaces are the secondary ones.
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

    /// The last 10,000 accepted Joins and Leaves since the statistics were reset, oldest first: `[{"at", "action", "target",
    /// "securityGroupId"}]`. Includes those whose answer was lost, excludes changes by the admin port.
    #[must_use]
    pub fn journal(&self) -> Value {
        self.state().journal.iter().cloned().collect()
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

impl State {
    fn answer(&mut self, wire: &Wire, now: Timestamp) -> SimulatedResponse {
        let request_id = self.request_id();
        let action = Action::parse(wire.version(), wire.action());
        let name = action.as_ref().map_or("Unknown", |action| action.as_str());
        let latency = self.cloud.settings.latency;
        let (result, hit) = match self.admit(wire, action, now) {
            Ok((action, caller, hit)) => self.perform(wire, action, &caller, hit, now),
            Err(refused) => (Err(refused), Hit::default()),
        };
        let failure = |error: &ErrorResponse| {
            body::failure(
                wire.format(),
                action::product(wire.version()),
                wire.host(),
                error,
                &request_id,
            )
        };
        let (response, outcome) = match &result {
            Ok(fields) => (
                body::success(wire.format(), name, fields.clone(), &request_id),
                "OK".to_owned(),
            ),
            Err(error) => (failure(error), error.code.to_string()),
        };
        let (response, delivery, outcome) = match hit.harm {
            None => (response, Delivery::Whole, outcome),
            Some((Harm::Error(error), _)) => {
                (failure(&error), Delivery::Whole, error.code.to_string())
            }
            Some((Harm::Reset, _)) => (response, Delivery::Reset, "ConnectionReset".to_owned()),
            Some((Harm::Silence, _)) => (response, Delivery::Silence, "NoAnswer".to_owned()),
            Some((Harm::Malformed(broken), _)) => {
                let (response, delivery) = deform(broken, response);
                (response, delivery, "MalformedBody".to_owned())
            }
        };
        *self
            .calls
            .entry(name)
            .or_default()
            .entry(outcome.clone())
            .or_default() += 1;
        SimulatedResponse {
            response,
            delay: latency.saturating_add(hit.latency),
            delivery,
            action: name,
            outcome,
        }
    }

    /// The checks before the call, in the vendor's order: method, action, signature, throttle, faults.
    fn admit(
        &mut self,
        wire: &Wire,
        action: Result<Action, ErrorResponse>,
        now: Timestamp,
    ) -> Result<(Action, Caller, Hit), ErrorResponse> {
        wire.check_method()?;
        let action = action?;
        let caller = wire.authenticate(&self.cloud.keys, &mut self.nonces, now)?;
        let parameters = wire.parameters();
        let region = parameters.text("RegionId");
        self.throttle.admit(
            &self.cloud.settings.limits,
            &caller.account,
            action.as_str(),
            region.unwrap_or_default(),
            now,
        )?;
        let hit = self.faults.strike(Subject {
            action: action.as_str(),
            region,
            target: parameters
                .text("InstanceId")
                .or_else(|| parameters.text("NetworkInterfaceId")),
            group: parameters.text("SecurityGroupId"),
            access_key: &caller.access_key,
        });
        Ok((action, caller, hit))
    }

    /// The call itself, unless a fault replaces it.
    fn perform(
        &mut self,
        wire: &Wire,
        action: Action,
        caller: &Caller,
        hit: Hit,
        now: Timestamp,
    ) -> (Result<Value, ErrorResponse>, Hit) {
        let takes_effect = match &hit.harm {
            None | Some((_, true) | (Harm::Malformed(Body::Truncated | Body::Drip), _)) => true,
            Some((Harm::Error(_) | Harm::Reset | Harm::Silence | Harm::Malformed(_), false)) => {
                false
            }
        };
        if !takes_effect {
            return (Ok(Value::Null), hit);
        }
        let result = action.run(&mut self.cloud, caller, wire.parameters(), now);
        if result.is_ok() {
            *self.effects.entry(action.as_str()).or_default() += 1;
            self.note(action, wire.parameters(), now);
        }
        (result, hit)
    }

    fn note(&mut self, action: Action, parameters: &Parameters, now: Timestamp) {
        if !matches!(
            action,
            Action::JoinSecurityGroup | Action::LeaveSecurityGroup
        ) {
            return;
        }
        if self.journal.len() == JOURNAL {
            self.journal.pop_front();
        }
        let target = parameters
            .text("InstanceId")
            .or_else(|| parameters.text("NetworkInterfaceId"));
        self.journal.push_back(json!({
            "at": now.to_string(), "action": action.as_str(), "target": target,
            "securityGroupId": parameters.text("SecurityGroupId"),
        }));
    }

    fn request_id(&mut self) -> String {
        let mut bytes = [0; 16];
        self.random.fill_bytes(&mut bytes);
        let id = uuid::Builder::from_random_bytes(bytes).into_uuid();
        id.hyphenated().to_string().to_uppercase()
    }
}

fn deform(broken: Body, response: Response<Bytes>) -> (Response<Bytes>, Delivery) {
    match (broken.made_up(), broken) {
        (Some((status, content_type, bytes)), _) => {
            (body::raw(status, content_type, bytes), Delivery::Whole)
        }
        (None, Body::Drip) => (response, Delivery::Drip),
        (
            None,
            Body::Truncated
            | Body::Html
            | Body::BadGateway
            | Body::Empty
            | Body::WrongTypes
            | Body::Huge
            | Body::Garbage,
        ) => (response, Delivery::Truncated),
    }
}

fn snapshot(cloud: &Cloud, now: Timestamp) -> Value {
    let instances: BTreeMap<&str, Value> = cloud
        .instances
        .iter()
        .filter(|(_, instance)| instance.resource.exists(now))
        .map(|(id, instance)| {
            let groups: Vec<&str> = instance
                .membership
                .groups
                .at(now)
                .iter()
                .map(|id| &**id)
                .collect();
            (
                &**id,
                json!({"status": instance.status.at(now).as_str(), "securityGroupIds": groups}),
            )
        })
        .collect();
    let interfaces: BTreeMap<&str, Value> = cloud
        .interfaces
        .iter()
        .filter(|(_, interface)| {
            interface.resource.exists(now) && interface.kind == InterfaceKind::Secondary
        })
        .map(|(id, interface)| {
            let groups: Vec<&str> = interface
                .membership
                .groups
                .at(now)
                .iter()
                .map(|id| &**id)
                .collect();
            (
                &**id,
                json!({"status": interface.status.at(now).as_str(), "securityGroupIds": groups}),
            )
        })
        .collect();
    let groups: BTreeMap<&str, Value> = cloud
        .groups
        .iter()
        .filter(|(_, group)| group.resource.exists(now))
        .map(|(id, group)| {
            (
                &**id,
                json!({"type": group.kind.as_str(), "members": group.members.len()}),
            )
        })
        .collect();
    json!({"instances": instances, "networkInterfaces": interfaces, "securityGroups": groups})
}
