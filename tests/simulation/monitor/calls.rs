//! Checks what the operator asks of the cloud: no Join that no object asks for, and I1.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use security_group_operator::simulator::SimulatedResponse;
use security_group_operator::simulator::cloud::Cloud;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::topology::{self, OWNER};

use super::{Monitor, PASS, Tolerance, condition, is_deleting, text};

impl Monitor {
    /// Whether an object of the edge went with the operator's finalizer on it and without a deletion timestamp.
    pub fn is_unreleased(&self, target: &str, group: &str) -> bool {
        self.read_log();
        let edge = (target.to_owned(), group.to_owned());
        self.state.lock().unwrap().unreleased.contains(&edge)
    }

    /// Whether a target was listed by an answer to a call that began within `age`.
    pub fn was_described(&self, target: &str, age: Duration) -> bool {
        let state = self.state.lock().unwrap();
        let at = state.answers.get(target);
        at.is_some_and(|at| at.elapsed() < age)
    }

    /// An operator's call has been answered by the cloud (if perhaps not to the operator).
    pub fn called(
        &self,
        (incarnation, host): (usize, &str),
        parameters: &BTreeMap<String, String>,
        answer: &SimulatedResponse,
        before: bool,
        started: Instant,
    ) {
        self.read_log();
        self.read_journal();
        *self
            .state
            .lock()
            .unwrap()
            .effects_of
            .entry(incarnation)
            .or_default() += 1;
        let action = parameters
            .get("Action")
            .map(String::as_str)
            .unwrap_or_default();
        let target = parameters
            .get("InstanceId")
            .or_else(|| parameters.get("NetworkInterfaceId"));
        let group = parameters.get("SecurityGroupId");
        if answer.outcome.starts_with("Throttling") {
            let region = parameters.get("RegionId").cloned().unwrap_or_default();
            self.throttled((host.to_owned(), region, action.to_owned()), answer);
        }
        if answer.outcome == "Forbidden.RAM" {
            self.count("call refused for want of a right");
        }
        // A set lists all instances of the region to learn whether the key sees one. That looks at none of them.
        let is_of_some = names_targets(parameters) || parameters.contains_key("Tag.1.Key");
        if action.starts_with("Describe") && is_of_some && answer.outcome == "OK" {
            let found = listed(action, answer.response.body());
            if found.is_empty() && self.is_any_there(parameters) {
                self.count("read that lists nothing of what is there");
            }
            let mut state = self.state.lock().unwrap();
            for target in found {
                state.answered(&target, started);
            }
        }
        let (Some(target), Some(group)) = (target, group) else {
            return;
        };
        self.state
            .lock()
            .unwrap()
            .sent
            .push((incarnation, Instant::now()));
        if action == "JoinSecurityGroup" {
            self.set_joins(incarnation, target, group);
        }
        if action == "JoinSecurityGroup"
            && (answer.outcome == "OK" || answer.outcome == "InvalidInstanceId.AlreadyExists")
        {
            self.state.lock().unwrap().answered(target, started);
        }
        let after = self.membership(Some(target), Some(group), self.server.now());
        if before != after {
            self.state.lock().unwrap().cloud_changes += 1;
        }
        match (before, after) {
            (false, true) => self.check_join(target, group),
            (true, false) => self.check_leave(incarnation, target, group),
            (true, true) | (false, false) => {}
        }
    }

    /// The operator has the answer of this host to a Describe.
    pub fn told(&self, host: &str, action: &str, body: &[u8], started: Instant) {
        for target in listed(action, body) {
            self.told_about(&target, host, started);
        }
    }

    /// Whether one of the targets that a call reads by ID has been there for longer than a read lags.
    fn is_any_there(&self, parameters: &BTreeMap<String, String>) -> bool {
        let asked = named_targets(parameters);
        let region = parameters.get("RegionId").map(String::as_str);
        let now = self.server.now();
        let is_there = |target: &topology::SimTarget| {
            let is_asked = asked.iter().any(|id| id == target.id);
            let is_member = |cloud: &Cloud| cloud.member(target.id, now).is_some();
            is_asked && Some(target.region) == region && self.simulator.inspect(is_member)
        };
        topology::TARGETS
            .iter()
            .filter(|target| topology::home(target.id) == target.region)
            .any(is_there)
    }

    fn check_join(&self, target: &str, group: &str) {
        let objects = self.naming(target, group);
        // One that is being deleted may have asked for it before.
        let is_live = objects.iter().any(|object| !is_deleting(object));
        let uid = |object: &Arc<Value>| text(object, "/metadata/uid");
        let tolerance = if is_live || self.old_lists {
            return;
        } else if objects.iter().any(|object| self.is_just_deleted(object)) {
            Tolerance::JustDeleted
        } else if objects.iter().any(|object| self.is_recent(&uid(object))) {
            Tolerance::JustTouched
        } else if self.recently_gone(target, group) {
            Tolerance::JustGone
        } else {
            self.violated(format!(
                "a Join of {target} to {group} that no object asks for"
            ));
            return;
        };
        self.tolerated(tolerance);
    }

    /// I1.
    fn check_leave(&self, incarnation: usize, target: &str, group: &str) {
        let objects = self.naming(target, group);
        let deleting: Vec<&Arc<Value>> = objects
            .iter()
            .filter(|object| is_deleting(object))
            .collect();
        let edge = (target.to_owned(), group.to_owned());
        let is_unreleased = self.state.lock().unwrap().unreleased.contains(&edge);
        if deleting.is_empty() && !is_unreleased {
            if self.recently_gone(target, group) {
                self.tolerated(Tolerance::JustGone);
            } else {
                self.violated(format!(
                    "I1: {target} left {group}, and no object of it is deleted"
                ));
            }
        }
        if !is_unreleased && !deleting.is_empty() {
            self.check_kept(&deleting, target, group);
        }
        let is_upheaval = {
            let state = self.state.lock().unwrap();
            state.upheaval.is_some_and(|at| at.elapsed() < PASS * 3)
        };
        for object in objects.iter().filter(|object| !is_deleting(object)) {
            let managed = object["spec"]["managementPolicy"] == "Manage";
            if !managed || self.old_lists || !self.may_hold(object, &deleting) {
                continue;
            }
            let uid = text(object, "/metadata/uid");
            let tolerance = if !self.may_see(incarnation, &text(object, "/metadata/namespace")) {
                Tolerance::OtherScope
            } else if self.has_just_appeared(&uid) {
                Tolerance::JustCreated
            } else if self.is_recent(&uid) {
                Tolerance::JustTouched
            } else if is_upheaval {
                Tolerance::Upheaval
            } else {
                self.violated(format!(
                    "I1: {target} left {group}, and {} still names it",
                    text(object, "/metadata/name")
                ));
                continue;
            };
            self.tolerated(tolerance);
        }
    }

    /// Whoever says of every deleted object that the membership is to be kept, keeps it.
    fn check_kept(&self, deleting: &[&Arc<Value>], target: &str, group: &str) {
        let keeps = |object: &&Arc<Value>| {
            let spec = &object["spec"];
            spec["deletionPolicy"] == "Retain"
                || spec["managementPolicy"] == "Observe"
                || spec["suspend"] == true
        };
        if !deleting.iter().all(keeps) {
            return;
        }
        let is_new =
            |object: &&Arc<Value>| self.is_just_respecified(&text(object, "/metadata/uid"));
        if deleting.iter().any(is_new) {
            self.tolerated(Tolerance::JustRespecified);
        } else if self.recently_gone(target, group) {
            self.tolerated(Tolerance::JustGone);
        } else {
            self.violated(format!(
                "Kept: {target} left {group}, and every deleted object of it keeps it"
            ));
        }
    }

    /// Whether a condition has stood for longer than a pass takes: one that runs may not know of it yet.
    fn is_old(&self, condition: &Value) -> bool {
        self.age(condition)
            .is_some_and(|age| age > PASS + Duration::from_secs(1))
    }

    fn age(&self, condition: &Value) -> Option<Duration> {
        let since = condition["lastTransitionTime"].as_str();
        let since: Timestamp = since?.parse().ok()?;
        self.server.now().duration_since(since).try_into().ok()
    }

    /// Whether the process that acts has never accepted an account: it was refused within a pass of its start, and is refused still.
    fn is_never_accepted(&self, account: &Value) -> bool {
        let acts_for = self.state.lock().unwrap().ledger.acts_for();
        let refused = condition(account, "Ready").filter(|ready| ready["status"] == "False");
        let refused_for = refused.and_then(|ready| self.age(ready));
        acts_for > PASS && refused_for.is_some_and(|time| time + PASS > acts_for)
    }

    /// Whether an object has the record `Joined`, or has or may get another claim with a grant: of an account that the operator has
    /// accepted for the targets' owner, or of that of all of `deleting`, or of one of them, unless the process has never accepted it:
    /// then it knows not whose it is, and has sent the Leave with another one. The others do not count: anybody could keep any edge
    /// otherwise.
    fn may_hold(&self, object: &Value, deleting: &[&Arc<Value>]) -> bool {
        if object["status"]["origin"] == "Joined" {
            return true;
        }
        // It takes over nothing that it has no record of.
        if object["spec"]["adoptionPolicy"] == "Refuse" && object["status"]["origin"].is_null() {
            return false;
        }
        let Some(own) = topology::account_of(object) else {
            return true;
        };
        let of_own = |other: &&Arc<Value>| {
            topology::account_of(other).is_some_and(|account| std::ptr::eq(account, own))
        };
        let account = self.server.object(own.plural, own.namespace, own.name);
        let accepted = |account: &Arc<Value>| {
            let ready = condition(account, "Ready");
            ready.is_some_and(|ready| ready["status"] == "True" && self.is_old(ready))
                && account["status"]["accountUID"] == OWNER
        };
        let granted = |account: &Arc<Value>| account["spec"]["grants"] != json!([]);
        let is_known = !account
            .as_ref()
            .is_some_and(|one| self.is_never_accepted(one));
        let is_of_deleting =
            deleting.iter().any(of_own) && (is_known || deleting.iter().all(of_own));
        (is_of_deleting || account.as_ref().is_some_and(accepted))
            && account.as_ref().is_none_or(granted)
    }
}

/// Whether a call reads targets by ID.
pub fn names_targets(parameters: &BTreeMap<String, String>) -> bool {
    let by_id = ["InstanceIds", "NetworkInterfaceId.1"];
    by_id.iter().any(|id| parameters.contains_key(*id))
}

/// The targets that a call reads by ID.
pub(super) fn named_targets(parameters: &BTreeMap<String, String>) -> Vec<String> {
    let instances = parameters.get("InstanceIds");
    let instances: Vec<String> = instances
        .and_then(|ids| serde_json::from_str(ids).ok())
        .unwrap_or_default();
    let interfaces = parameters.iter();
    let interfaces = interfaces.filter(|(name, _)| name.starts_with("NetworkInterfaceId."));
    let interfaces = interfaces.map(|(_, id)| id.clone());
    instances.into_iter().chain(interfaces).collect()
}

/// The targets that an answer to a Describe lists.
fn listed(action: &str, body: &[u8]) -> Vec<String> {
    // An interface's row names its instance as well, and an instance's its interfaces.
    let field = if action == "DescribeNetworkInterfaces" {
        "\"NetworkInterfaceId\":\""
    } else {
        "\"InstanceId\":\""
    };
    let body = String::from_utf8_lossy(body);
    let ids = body.split(field).skip(1);
    ids.filter_map(|rest| Some(rest.split_once('"')?.0.to_owned()))
        .filter(|id| id.starts_with("eni-") == (action == "DescribeNetworkInterfaces"))
        .collect()
}
