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
mod attributes;
mod body;
pub mod change;
pub mod cloud;
mod describe;
mod dispatch;
pub mod error;
pub mod faults;
pub mod inventory;
pub mod membership;
mod modify;
mod notices;
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

use std::borrow::Cow;
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
use cloud::{Cloud, Groups, InterfaceKind};
use error::ErrorResponse;
use faults::{Body, Effect, Fault, Faults, Harm, Hit, Subject};
use notices::Notices;
use parameters::Parameters;
use rpc::{Nonces, Wire};
use throttle::{Throttle, throttled};
use timeline::later;

/// The access key of a simulator without any other key. Valid for a simulator only.
pub const DEFAULT_ACCESS_KEY: (&str, &str) =
    ("LTAI5tSimulatorDefaultKey", "simulator-default-secret");

/// Who made a change without a call, in the journal.
const BY_ADMIN: &str = "admin";

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
    calls: BTreeMap<String, BTreeMap<String, u64>>,
    effects: BTreeMap<&'static str, u64>,
    journal: VecDeque<Value>,
    late: Vec<LateCall>,
    notices: Notices,
}

/// Number of changes in the journal.
const JOURNAL: usize = 10_000;

/// A call whose answer was lost or replaced before it took effect.
#[derive(Debug)]
struct LateCall {
    due: Timestamp,
    action: Action,
    caller: Caller,
    parameters: Parameters,
}

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
    pub action: Cow<'static, str>,
    /// Result: `OK`, a code, or the name of a fault, as in the statistics.
    pub outcome: String,
    /// What the simulator lacks for this call, for the log: each sentence once in the life of the simulator.
    pub notices: Vec<String>,
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
            late: Vec::new(),
            notices: Notices::default(),
        }))
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

impl State {
    fn answer(&mut self, wire: &Wire, now: Timestamp) -> SimulatedResponse {
        let request_id = self.request_id();
        let action = Action::parse(wire.version(), wire.action());
        let (name, unknown) = self.notices.action(wire.action(), &action);
        let mut notices = Vec::from_iter(unknown);
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
                body::success(wire.format(), &name, fields.clone(), &request_id),
                "OK".to_owned(),
            ),
            Err(error) => (failure(error), error.code.to_string()),
        };
        if hit.harm.is_none() && (result.is_ok() || outcome == error::DRY_RUN.code) {
            notices.extend(self.notices.ignored(&name, wire.parameters()));
        }
        let (response, delivery, outcome) = match hit.harm {
            None => (response, Delivery::Whole, outcome),
            Some((Harm::Throttle(left), _)) => {
                let limit = self.cloud.settings.limits.get(&*name).copied();
                let error = throttled(limit, left, now);
                (failure(&error), Delivery::Whole, error.code.to_string())
            }
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
            .entry(name.to_string())
            .or_default()
            .entry(outcome.clone())
            .or_default() += 1;
        SimulatedResponse {
            response,
            delay: latency.saturating_add(hit.latency),
            delivery,
            action: name,
            outcome,
            notices,
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
            target: parameters.target(),
            group: parameters.peek("SecurityGroupId"),
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
        let effect = match &hit.harm {
            None | Some((Harm::Malformed(Body::Truncated | Body::Drip), Effect::None)) => {
                Effect::Now
            }
            Some((
                Harm::Error(_)
                | Harm::Throttle(_)
                | Harm::Reset
                | Harm::Silence
                | Harm::Malformed(_),
                effect,
            )) => *effect,
        };
        match effect {
            Effect::Now => (self.run(action, caller, wire.parameters(), now), hit),
            Effect::None => (Ok(Value::Null), hit),
            Effect::After(after) => {
                self.late.push(LateCall {
                    due: later(now, after),
                    action,
                    caller: caller.clone(),
                    parameters: wire.parameters().clone(),
                });
                (Ok(Value::Null), hit)
            }
        }
    }

    fn run(
        &mut self,
        action: Action,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let target = parameters.target().unwrap_or_default();
        let before = self.groups_of(target, now);
        let result = action.run(&mut self.cloud, caller, parameters, now);
        if result.is_ok() {
            *self.effects.entry(action.as_str()).or_default() += 1;
            self.note(&caller.access_key, target, &before, now);
        }
        result
    }

    fn advance(&mut self, now: Timestamp) {
        while let Some(next) = (0..self.late.len())
            .filter(|at| self.late.get(*at).is_some_and(|call| call.due <= now))
            .min_by_key(|at| self.late.get(*at).map(|call| call.due))
        {
            let call = self.late.remove(next);
            let _ = self.run(call.action, &call.caller, &call.parameters, call.due);
        }
    }

    /// The groups of an instance or a secondary interface; none if there is no such target.
    fn groups_of(&self, target: &str, now: Timestamp) -> Groups {
        self.cloud.member(target, now).map_or_else(
            || Groups::from([]),
            |member| self.cloud.groups_of(&member, now),
        )
    }

    /// Writes each change of a target's groups into the journal, joined ones first.
    fn note(&mut self, by: &str, target: &str, before: &Groups, now: Timestamp) {
        let after = self.groups_of(target, now);
        let joined = after.iter().filter(|group| !before.contains(group));
        let left = before.iter().filter(|group| !after.contains(group));
        let changes = joined
            .map(|group| (Action::JoinSecurityGroup, group))
            .chain(left.map(|group| (Action::LeaveSecurityGroup, group)));
        for (action, group) in changes {
            if self.journal.len() == JOURNAL {
                self.journal.pop_front();
            }
            self.journal.push_back(json!({
                "at": now.to_string(), "action": action.as_str(), "target": target,
                "securityGroupId": **group, "by": by,
            }));
        }
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
