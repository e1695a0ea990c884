//! Watches the whole time that the invariants hold: what the cloud and the API server hold is compared with what the
//! operator does to them, at each effect. Keeps the trace of the schedule.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use security_group_operator::api::{FINALIZER, ORIGIN_ANNOTATION};
use security_group_operator::simulator::{Answer, Simulator};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api_server::request::Reply;
use crate::api_server::store::{Change, Entry};
use crate::api_server::{ApiServer, Call};
use crate::scene::{self, MISPLACED, OWNER, TARGETS, home};

/// A pass that began before an object was shown does not know it. No call and no wait of a pass is longer.
pub const PASS: Duration = Duration::from_secs(40);

pub struct Monitor {
    server: Arc<ApiServer>,
    simulator: Arc<Simulator>,
    started: Instant,
    state: Mutex<State>,
    /// Whether several operators run: what one does, another may not know yet.
    pub several: bool,
    /// Whether lists may be old: then nobody can know of an object that the list does not show.
    pub old_lists: bool,
    /// How old a Describe may be.
    pub lag: Duration,
    pub secrets: Vec<String>,
}

#[derive(Default)]
struct State {
    trace: Option<Vec<String>>,
    violations: Vec<String>,
    edges: HashMap<(String, String), EdgeFacts>,
    /// When an object of this UID first had this generation.
    births: HashMap<(String, i64), Instant>,
    /// When each object was last shown to each life.
    shown: HashMap<(usize, String), Instant>,
    /// When anything about each object was last changed by its user.
    touched: HashMap<String, Instant>,
    /// When the spec of each object was last changed.
    respecified: HashMap<String, Instant>,
    /// When grants, accounts or credentials last changed.
    upheaval: Option<Instant>,
    /// When each target was last described to be there, or joined, by the start of the call.
    answers: HashMap<String, Instant>,
    read: usize,
    gone: HashMap<(String, String), Instant>,
    writes: usize,
    cloud_changes: usize,
}

#[derive(Clone, Copy, Debug)]
struct EdgeFacts {
    by_operator: bool,
    since: Instant,
    /// Whether an object named it at that time.
    named: bool,
}

impl Monitor {
    pub fn new(server: Arc<ApiServer>, simulator: Arc<Simulator>) -> Self {
        Self {
            server,
            simulator,
            started: Instant::now(),
            state: Mutex::default(),
            several: false,
            old_lists: false,
            lag: Duration::ZERO,
            secrets: Vec::new(),
        }
    }

    /// Whether what happens is written down: that takes longer than to make it happen.
    pub fn keep_trace(&self, kept: bool) {
        self.state.lock().unwrap().trace = kept.then(Vec::new);
    }

    pub fn trace(&self, line: impl FnOnce() -> String) {
        if self.state.lock().unwrap().trace.is_none() {
            return;
        }
        let at = self.started.elapsed().as_secs_f64();
        let line = format!("{at:9.3}  {}", line());
        self.state
            .lock()
            .unwrap()
            .trace
            .get_or_insert_default()
            .push(line);
    }

    pub fn take_trace(&self) -> Vec<String> {
        self.state.lock().unwrap().trace.take().unwrap_or_default()
    }

    pub fn violations(&self) -> Vec<String> {
        self.state.lock().unwrap().violations.clone()
    }

    /// Writes of operators to the API server and changes in the cloud, so far.
    pub fn effects(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.writes + state.cloud_changes
    }

    pub fn violated(&self, what: String) {
        self.trace(|| format!("VIOLATION: {what}"));
        self.state.lock().unwrap().violations.push(what);
    }

    pub fn membership(&self, target: Option<&str>, group: Option<&str>, now: Timestamp) -> bool {
        let (Some(target), Some(group)) = (target, group) else {
            return false;
        };
        self.simulator.inspect(|cloud| {
            cloud.member(target, now).is_some_and(|member| {
                cloud
                    .groups_of(&member, now)
                    .iter()
                    .any(|id| **id == *group)
            })
        })
    }

    /// Somebody else has changed an edge.
    pub fn foreign(&self, target: &str, group: &str, joined: bool) {
        let facts = EdgeFacts {
            by_operator: false,
            since: Instant::now(),
            named: !self.naming(target, group).is_empty(),
        };
        let mut state = self.state.lock().unwrap();
        let key = (target.to_owned(), group.to_owned());
        if joined {
            state.edges.entry(key).or_insert(facts);
        } else {
            state.edges.remove(&key);
        }
    }

    /// A user has done something to an object.
    pub fn touched(&self, uid: &str) {
        self.read_log();
        self.state
            .lock()
            .unwrap()
            .touched
            .insert(uid.to_owned(), Instant::now());
    }

    /// A user has changed the spec of an object: a pass that runs may still go by the old one.
    pub fn respecified(&self, uid: &str) {
        self.state
            .lock()
            .unwrap()
            .respecified
            .insert(uid.to_owned(), Instant::now());
    }

    fn is_just_respecified(&self, uid: &str) -> bool {
        self.state
            .lock()
            .unwrap()
            .respecified
            .get(uid)
            .is_some_and(|at| at.elapsed() < PASS)
    }

    pub fn upheaval(&self) {
        self.state.lock().unwrap().upheaval = Some(Instant::now());
    }

    pub fn shown(&self, life: usize, watch: &Call, event: &Entry) {
        if watch.kind.plural == MEMBERSHIPS {
            self.state
                .lock()
                .unwrap()
                .shown
                .entry((life, text(&event.object, "/metadata/uid")))
                .or_insert_with(Instant::now);
        }
    }

    /// An operator's call of the API server was done.
    pub fn written(&self, life: usize, call: &Call, reply: &Reply) {
        self.read_log();
        for item in reply.body["items"].as_array().into_iter().flatten() {
            if call.kind.plural == MEMBERSHIPS {
                self.state
                    .lock()
                    .unwrap()
                    .shown
                    .entry((life, text(item, "/metadata/uid")))
                    .or_insert_with(Instant::now);
            }
        }
        if !call.verb.writes() {
            return;
        }
        self.state.lock().unwrap().writes += 1;
        let body = serde_json::to_string(&call.body).unwrap();
        self.trace(|| format!("  -> {} {}", reply.code, body));
        if self.secrets.iter().any(|secret| body.contains(secret)) {
            self.violated(format!("I5: a secret in a write to {}", call.kind.plural));
        }
        if call.kind.plural == MEMBERSHIPS && call.status && reply.code == 200 {
            self.check_ready(&reply.body);
        }
    }

    /// I4.
    fn check_ready(&self, object: &Value) {
        let Some(ready) = condition(object, "Ready").filter(|ready| ready["status"] == "True")
        else {
            return;
        };
        let generation = ready["observedGeneration"].as_i64().unwrap_or_default();
        let (uid, target) = (text(object, "/metadata/uid"), target_of(object));
        let fine = edge_of(object).is_some() && {
            let state = self.state.lock().unwrap();
            let born = state.births.get(&(uid.clone(), generation));
            born.is_some_and(|born| {
                state
                    .answers
                    .get(target)
                    .is_some_and(|answered| answered >= born)
            })
        };
        if !fine {
            self.violated(format!("I4: {} ({uid}) is Ready for generation {generation} without an answer of the cloud about {target} since", text(object, "/metadata/name")));
        }
    }

    /// An operator's call has been answered by the cloud (if perhaps not to the operator).
    /// Whether a target was listed by an answer to a call that began within `age`.
    pub fn was_described(&self, target: &str, age: Duration) -> bool {
        let state = self.state.lock().unwrap();
        let at = state.answers.get(target);
        at.is_some_and(|at| at.elapsed() < age)
    }

    pub fn called(
        &self,
        life: usize,
        parameters: &BTreeMap<String, String>,
        answer: &Answer,
        before: bool,
        started: Instant,
    ) {
        self.read_log();
        let action = parameters
            .get("Action")
            .map(String::as_str)
            .unwrap_or_default();
        let target = parameters
            .get("InstanceId")
            .or_else(|| parameters.get("NetworkInterfaceId"));
        let group = parameters.get("SecurityGroupId");
        if action.starts_with("Describe") && answer.outcome == "OK" {
            let body = String::from_utf8_lossy(answer.response.body());
            let interfaces = action == "DescribeNetworkInterfaces";
            let field = if interfaces {
                "NetworkInterfaceId"
            } else {
                "InstanceId"
            };
            let mut state = self.state.lock().unwrap();
            for target in &TARGETS[..MISPLACED] {
                // An interface's row names its instance as well, and an instance's its interfaces.
                if target.is_interface() == interfaces
                    && body.contains(&format!("\"{field}\":\"{}\"", target.id))
                {
                    // Answers may come in another order than their calls began.
                    let latest = state.answers.entry(target.id.to_owned()).or_insert(started);
                    *latest = (*latest).max(started);
                }
            }
        }
        let (Some(target), Some(group)) = (target, group) else {
            return;
        };
        if action == "JoinSecurityGroup"
            && (answer.outcome == "OK" || answer.outcome == "InvalidInstanceId.AlreadyExists")
        {
            self.state
                .lock()
                .unwrap()
                .answers
                .insert(target.clone(), started);
        }
        let after = self.membership(Some(target), Some(group), self.server.now());
        if before != after {
            self.state.lock().unwrap().cloud_changes += 1;
        }
        match (before, after) {
            (false, true) => {
                let facts = EdgeFacts {
                    by_operator: true,
                    since: Instant::now(),
                    named: true,
                };
                self.state
                    .lock()
                    .unwrap()
                    .edges
                    .insert((target.clone(), group.clone()), facts);
                self.check_join(target, group);
            }
            (true, false) => self.check_leave(life, target, group),
            (true, true) | (false, false) => {}
        }
    }

    fn check_join(&self, target: &str, group: &str) {
        let live = self
            .naming(target, group)
            .iter()
            .any(|object| !is_deleting(object));
        let touched = self
            .naming(target, group)
            .iter()
            .any(|object| self.is_recent(&text(object, "/metadata/uid")));
        let gone = self.recently_gone(target, group);
        if !live && !touched && !gone && !self.old_lists {
            self.violated(format!(
                "a Join of {target} to {group} that no object asks for"
            ));
        }
    }

    /// I1 and I2.
    fn check_leave(&self, life: usize, target: &str, group: &str) {
        let facts = self
            .state
            .lock()
            .unwrap()
            .edges
            .remove(&(target.to_owned(), group.to_owned()));
        let objects = self.naming(target, group);
        let deleting: Vec<&Arc<Value>> = objects
            .iter()
            .filter(|object| is_deleting(object))
            .collect();
        if deleting.is_empty() && !self.recently_gone(target, group) {
            self.violated(format!(
                "I1: {target} left {group}, and no object of it is deleted"
            ));
        }
        for object in objects.iter().filter(|object| !is_deleting(object)) {
            let uid = text(object, "/metadata/uid");
            let known = {
                let state = self.state.lock().unwrap();
                state
                    .shown
                    .get(&(life, uid.clone()))
                    .is_some_and(|at| at.elapsed() > PASS)
            };
            let upheaval = self
                .state
                .lock()
                .unwrap()
                .upheaval
                .is_some_and(|at| at.elapsed() < PASS * 3);
            let managed = object["spec"]["managementPolicy"] == "Manage";
            if managed
                && self.may_hold(object, &deleting)
                && known
                && !upheaval
                && !self.is_recent(&uid)
                && !self.old_lists
            {
                self.violated(format!(
                    "I1: {target} left {group}, and {} still names it",
                    text(object, "/metadata/name")
                ));
            }
        }
        let Some(facts) = facts else { return };
        let allowed = deleting.iter().any(|object| {
            object["spec"]["deletionPolicy"] == "Leave"
                || self.is_just_respecified(&text(object, "/metadata/uid"))
        });
        let all_later = objects.iter().all(|object| {
            let born = self
                .state
                .lock()
                .unwrap()
                .births
                .get(&(text(object, "/metadata/uid"), 1))
                .copied();
            born.is_some_and(|born| born > facts.since + self.lag + Duration::from_secs(1))
        });
        if !facts.by_operator && !facts.named && !allowed && all_later && !deleting.is_empty() {
            self.violated(format!(
                "I2: {target} left {group}, which was there before every object and was to be kept"
            ));
        }
    }

    /// Whether an object has a claim, or could make one: by the account of one of `deleting`, or by one that the operator has
    /// accepted for the targets' owner, and that is granted. The others do not count: anybody could keep any edge otherwise.
    fn may_hold(&self, object: &Value, deleting: &[&Arc<Value>]) -> bool {
        if object["metadata"]["annotations"][ORIGIN_ANNOTATION].is_string() {
            return true;
        }
        let Some(own) = scene::account_of(object) else {
            return true;
        };
        let of_own = |other: &&Arc<Value>| {
            scene::account_of(other).is_some_and(|account| std::ptr::eq(account, own))
        };
        deleting.iter().any(of_own)
            || self
                .server
                .object(own.plural, own.namespace, own.name)
                .is_some_and(|account| {
                    let ready = condition(&account, "Ready");
                    ready.is_some_and(|ready| ready["status"] == "True")
                        && account["status"]["accountUID"] == OWNER
                        && account["spec"]["grants"] != json!([])
                })
    }

    /// I3, for every object that went since the last look; and the births of generations.
    pub fn read_log(&self) {
        let entries: Vec<Entry> = {
            let read = self.state.lock().unwrap().read;
            let state = self.server.state();
            state.log[read..].to_vec()
        };
        for entry in &entries {
            if entry.key.0 != MEMBERSHIPS {
                continue;
            }
            let uid = text(&entry.object, "/metadata/uid");
            let generation = entry.object["metadata"]["generation"]
                .as_i64()
                .unwrap_or_default();
            self.state
                .lock()
                .unwrap()
                .births
                .entry((uid, generation))
                .or_insert_with(Instant::now);
            if entry.change == Change::Deleted
                && let Some(edge) = edge_of(&entry.object)
            {
                self.check_release(&entry.object, &edge);
                self.state.lock().unwrap().gone.insert(edge, Instant::now());
            }
        }
        self.state.lock().unwrap().read += entries.len();
    }

    fn check_release(&self, object: &Value, (target, group): &(String, String)) {
        let held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one == FINALIZER));
        let claim = object["metadata"]["annotations"][ORIGIN_ANNOTATION]
            .as_str()
            .unwrap_or_default();
        let spec = &object["spec"];
        let leaves = spec["managementPolicy"] == "Manage"
            && (spec["deletionPolicy"] == "Leave"
                || spec["deletionPolicy"] == "LeaveIfJoined" && claim == "Joined");
        let there = self.membership(Some(target), Some(group), self.server.now());
        let ours = self
            .state
            .lock()
            .unwrap()
            .edges
            .get(&(target.clone(), group.clone()))
            .is_some_and(|facts| facts.by_operator);
        if self.is_just_respecified(&text(object, "/metadata/uid"))
            || !held
            || !leaves
            || !there
            || !ours
            || self.is_recent(&text(object, "/metadata/uid")) && self.several
        {
            return;
        }
        let others = self.naming(target, group);
        let name = text(object, "/metadata/name");
        if others.is_empty() {
            if !self.recently_gone(target, group) {
                self.violated(format!(
                    "I3: the finalizer of {name} went, and {target} is still in {group}"
                ));
            }
        } else if claim == "Joined" {
            let heir = others
                .iter()
                .any(|other| other["metadata"]["annotations"][ORIGIN_ANNOTATION] == "Joined");
            if !heir && !self.recently_gone(target, group) {
                self.violated(format!("I3: {name} went with the claim Joined on {target} in {group} and left it to nobody"));
            }
        }
    }

    /// At the end: an edge that an operator made and that no object has.
    pub fn check_orphans(&self) {
        if self.old_lists {
            // An object that has gone, with its finalizer and all, is in an old list, and nothing tells it from one that is there.
            return;
        }
        let edges: Vec<((String, String), EdgeFacts)> = self
            .state
            .lock()
            .unwrap()
            .edges
            .iter()
            .map(|(key, facts)| (key.clone(), *facts))
            .collect();
        for ((target, group), facts) in edges {
            let gone = self
                .state
                .lock()
                .unwrap()
                .gone
                .get(&(target.clone(), group.clone()))
                .copied();
            // What another operator had on its way when the object went is not called back.
            let on_its_way = if self.several { PASS } else { Duration::ZERO };
            let late = gone.is_some_and(|gone| facts.since > gone + on_its_way);
            if facts.by_operator
                && late
                && self.naming(&target, &group).is_empty()
                && self.membership(Some(&target), Some(&group), self.server.now())
            {
                self.violated(format!(
                    "an orphan: {target} was joined to {group} after its last object had gone"
                ));
            }
        }
    }

    fn recently_gone(&self, target: &str, group: &str) -> bool {
        let state = self.state.lock().unwrap();
        state
            .gone
            .get(&(target.to_owned(), group.to_owned()))
            .is_some_and(|at| at.elapsed() < PASS)
    }

    fn is_recent(&self, uid: &str) -> bool {
        self.state
            .lock()
            .unwrap()
            .touched
            .get(uid)
            .is_some_and(|at| at.elapsed() < PASS)
    }

    pub fn naming(&self, target: &str, group: &str) -> Vec<Arc<Value>> {
        let mut objects = self.server.objects(MEMBERSHIPS);
        let region = home(target);
        objects.retain(|object| {
            let spec = &object["spec"];
            target_of(object) == target
                && spec["securityGroupID"] == group
                && spec["region"] == region
        });
        objects
    }
}

pub const MEMBERSHIPS: &str = "securitygroupmemberships";

/// The text at `/name/name/…`, where no name has a slash in it; empty where there is none. Not `Value::pointer`, which makes two
/// strings of each name.
pub fn text(object: &Value, pointer: &str) -> String {
    let mut names = pointer.split('/').skip(1);
    names
        .try_fold(object, |value, name| value.get(name))
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

pub fn target_of(object: &Value) -> &str {
    let spec = &object["spec"];
    let target = spec["instanceID"].as_str();
    target
        .or_else(|| spec["networkInterfaceID"].as_str())
        .unwrap_or_default()
}

/// The edge that an object names; none where it looks for the target in another region than it is in.
pub fn edge_of(object: &Value) -> Option<(String, String)> {
    let target = target_of(object);
    (object["spec"]["region"] == home(target))
        .then(|| (target.to_owned(), text(object, "/spec/securityGroupID")))
}

pub fn is_deleting(object: &Value) -> bool {
    object["metadata"].get("deletionTimestamp").is_some()
}

pub fn condition<'a>(object: &'a Value, type_: &str) -> Option<&'a Value> {
    object["status"]["conditions"]
        .as_array()?
        .iter()
        .find(|condition| condition["type"] == type_)
}
