//! One simulator: answers requests, lets late calls take effect, and keeps the journal. Pure.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use http::Response;
use k8s_openapi::jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};
use serde_json::{Value, json};

use super::account::Caller;
use super::action::{self, Action};
use super::body;
use super::cloud::{Cloud, Groups};
use super::error::{self, ErrorResponse};
use super::faults::{Body, Effect, Faults, Harm, Hit, Subject};
use super::notices::Notices;
use super::parameters::Parameters;
use super::response::{Delivery, SimulatedResponse};
use super::rpc::{Nonces, Wire};
use super::throttle::{Throttle, throttled};
use super::timeline::later;

#[derive(Debug)]
pub(super) struct State {
    pub(super) cloud: Cloud,
    throttle: Throttle,
    pub(super) faults: Faults,
    nonces: Nonces,
    random: StdRng,
    pub(super) calls: BTreeMap<String, BTreeMap<String, u64>>,
    pub(super) effects: BTreeMap<&'static str, u64>,
    pub(super) journal: VecDeque<Value>,
    late: Vec<LateCall>,
    notices: Notices,
}

/// A call whose answer was lost or replaced before it took effect.
#[derive(Debug)]
struct LateCall {
    due: Timestamp,
    action: Action,
    caller: Caller,
    parameters: Parameters,
}

/// Number of changes in the journal.
const JOURNAL: usize = 10_000;

impl State {
    /// Nothing has happened yet.
    pub(super) fn new(cloud: Cloud, seed: u64) -> Self {
        Self {
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
        }
    }

    pub(super) fn answer(&mut self, wire: &Wire, now: Timestamp) -> SimulatedResponse {
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
        self.count(&name, &outcome);
        SimulatedResponse {
            response,
            delay: latency.saturating_add(hit.latency),
            delivery,
            action: name,
            outcome,
            notices,
        }
    }

    pub(super) fn count(&mut self, action: &str, outcome: &str) {
        let outcomes = self.calls.entry(action.to_owned()).or_default();
        *outcomes.entry(outcome.to_owned()).or_default() += 1;
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
        let caller = self.caller(wire, action, now)?;
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
            targets: parameters.peek("InstanceIds"),
            groups: parameters.peek("SecurityGroupIds"),
            tag: parameters.peek("Tag.1.Key"),
            access_key: &caller.access_key,
        });
        Ok((action, caller, hit))
    }

    /// Who calls: by the signature, with the policies of the role; [`Caller::anonymous`] where the action is not signed.
    fn caller(
        &mut self,
        wire: &Wire,
        action: Action,
        now: Timestamp,
    ) -> Result<Caller, ErrorResponse> {
        if !action.is_signed() {
            return Ok(Caller::anonymous());
        }
        let mut caller = wire.authenticate(&self.cloud.keys, &mut self.nonces, now)?;
        if let Some(role) = &caller.role {
            caller.policies = self.cloud.ram.policies_of(&role.arn);
        }
        Ok(caller)
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

    pub(super) fn advance(&mut self, now: Timestamp) {
        while let Some(next) = (0..self.late.len())
            .filter(|at| self.late.get(*at).is_some_and(|call| call.due <= now))
            .min_by_key(|at| self.late.get(*at).map(|call| call.due))
        {
            let call = self.late.remove(next);
            let _ = self.run(call.action, &call.caller, &call.parameters, call.due);
        }
    }

    /// The groups of an instance or a secondary interface; none if there is no such target.
    pub(super) fn groups_of(&self, target: &str, now: Timestamp) -> Groups {
        self.cloud.member(target, now).map_or_else(
            || Groups::from([]),
            |member| self.cloud.groups_of(&member, now),
        )
    }

    /// Writes each change of a target's groups into the journal, joined ones first.
    pub(super) fn note(&mut self, by: &str, target: &str, before: &Groups, now: Timestamp) {
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
