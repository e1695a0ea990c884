//! Watches the whole time that the invariants hold: what the cloud and the API server hold is compared with what the
//! operator does to them, at each effect. Keeps the trace of the schedule.

mod calls;
mod ledger;
mod ready;
pub mod sets;
mod tolerance;
mod writes;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use security_group_operator::kubernetes::WatchScope;
use security_group_operator::simulator::Simulator;
use serde_json::Value;
use tokio::time::Instant;

use crate::api_server::store::Entry;
use crate::api_server::{ApiServer, Call};
use crate::topology::{home, member_of};
use crate::world::Scopes;

pub use calls::names_targets;
use ledger::Ledger;
pub use ledger::{Edge, Exception};
pub use tolerance::Tolerance;

/// A pass that began before an object was shown does not know it. No call and no wait of a pass is longer.
pub const PASS: Duration = Duration::from_secs(40);

pub struct Monitor {
    server: Arc<ApiServer>,
    simulator: Arc<Simulator>,
    started: Instant,
    state: Mutex<State>,
    sets: Mutex<sets::Judge>,
    /// Whether several operators run: what one does, another may not know yet.
    pub several: bool,
    /// Whether lists may be old: then nobody can know of an object that the list does not show.
    pub old_lists: bool,
    /// How old a Describe may be.
    pub lag: Duration,
    pub secrets: Vec<String>,
    /// What the operators watch.
    pub scopes: Scopes,
    /// Whether an account that names no ECS endpoint calls the same one as the account that names its own.
    pub ecs_by_default: bool,
}

#[derive(Default)]
struct State {
    trace: Option<Vec<String>>,
    /// The limits of calls of which the cloud has told.
    limits: HashMap<ready::Lane, ready::Limit>,
    /// The objects that are Ready beside a missing edge.
    stands: HashMap<String, ready::Stands>,
    /// When each host was asked last about each target.
    asked: HashMap<String, HashMap<String, Instant>>,
    /// Until when a watch of memberships may be silent.
    silent_until: Option<Instant>,
    /// The same, as a schedule has it.
    drawn_silent_until: Option<Instant>,
    /// Whether all operators are stopped.
    paused: bool,
    /// What each incarnation watches.
    scopes: Vec<Vec<WatchScope>>,
    violations: Vec<String>,
    ledger: Ledger,
    /// When an object of this UID first had this generation.
    births: HashMap<(String, i64), Instant>,
    /// Since when each object has been being deleted.
    deleted: HashMap<String, Instant>,
    /// When each object appeared.
    appeared: HashMap<String, Instant>,
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
    /// The edges of objects that went with the operator's finalizer on them and without a deletion timestamp.
    unreleased: HashSet<Edge>,
    /// How often each act happened, and each exception was made.
    counts: BTreeMap<&'static str, u64>,
    /// The object whose status nobody may write.
    status_refused: Option<&'static str>,
    writes: usize,
    cloud_changes: usize,
    /// Writes to the API server and calls of the cloud by each incarnation; of the Lease none.
    effects_of: HashMap<usize, usize>,
    /// Joins and Leaves that have reached the cloud: whose, and when.
    sent: Vec<(usize, Instant)>,
}

impl State {
    /// Answers may come in another order than their calls began.
    fn answered(&mut self, target: &str, started: Instant) {
        let latest = self.answers.entry(target.to_owned()).or_insert(started);
        *latest = (*latest).max(started);
    }
}

impl Monitor {
    pub fn new(server: Arc<ApiServer>, simulator: Arc<Simulator>) -> Self {
        Self {
            server,
            simulator,
            started: Instant::now(),
            state: Mutex::default(),
            sets: Mutex::default(),
            several: false,
            old_lists: false,
            lag: Duration::ZERO,
            secrets: Vec::new(),
            scopes: Scopes::All,
            ecs_by_default: true,
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
        self.judge_ready();
        self.state.lock().unwrap().violations.clone()
    }

    /// Counts something that has happened.
    pub fn count(&self, what: &'static str) {
        let mut state = self.state.lock().unwrap();
        *state.counts.entry(what).or_default() += 1;
    }

    /// How often each act happened, and each exception was made.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.state.lock().unwrap().counts.clone()
    }

    /// Writes of operators to the API server, but for accounts, and changes in the cloud, so far.
    pub fn effects(&self) -> usize {
        let state = self.state.lock().unwrap();
        state.writes + state.cloud_changes
    }

    /// Writes to the API server, but for the Lease, and calls of the cloud by one incarnation.
    pub fn effects_of(&self, incarnation: usize) -> usize {
        let state = self.state.lock().unwrap();
        state
            .effects_of
            .get(&incarnation)
            .copied()
            .unwrap_or_default()
    }

    /// Joins and Leaves that have reached the cloud: whose, and when.
    pub fn sent(&self) -> Vec<(usize, Instant)> {
        self.state.lock().unwrap().sent.clone()
    }

    pub fn violated(&self, what: String) {
        self.trace(|| format!("VIOLATION: {what}"));
        self.state.lock().unwrap().violations.push(what);
    }

    pub fn membership(&self, target: Option<&str>, group: Option<&str>, now: Timestamp) -> bool {
        let (Some(target), Some(group)) = (target, group) else {
            return false;
        };
        let target = member_of(target);
        self.simulator.inspect(|cloud| {
            cloud.member(target, now).is_some_and(|member| {
                cloud
                    .groups_of(&member, now)
                    .iter()
                    .any(|id| **id == *group)
            })
        })
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

    /// Whose status nobody may write from now on.
    pub fn status_refused(&self, name: Option<&'static str>) {
        self.read_anew(Tolerance::StatusRefused);
        let mut state = self.state.lock().unwrap();
        state.ledger.told_missing.clear();
        state.status_refused = name;
    }

    pub fn upheaval(&self) {
        self.upheaval_for(Duration::ZERO);
    }

    /// The operator may not see for so long what becomes of grants, accounts or credentials.
    pub fn upheaval_for(&self, period: Duration) {
        let mut state = self.state.lock().unwrap();
        state.upheaval = state.upheaval.max(Some(Instant::now() + period));
    }

    /// Whether an operator watches the namespace of an object. To whom nobody does it is nothing.
    pub fn serves(&self, object: &Value) -> bool {
        let namespace = object["metadata"]["namespace"].as_str();
        self.scopes.serve(namespace.unwrap_or_default())
    }

    pub fn shown(&self, incarnation: usize, watch: &Call, event: &Entry) {
        self.set_shown(incarnation, event);
        if watch.kind.plural == MEMBERSHIPS {
            self.event_shown();
        }
    }

    /// Whether an incarnation may see a namespace.
    fn may_see(&self, incarnation: usize, namespace: &str) -> bool {
        let state = self.state.lock().unwrap();
        let scopes = state.scopes.get(incarnation);
        scopes.is_none_or(|scopes| scopes.iter().any(|scope| scope.contains(namespace)))
    }

    fn has_just_appeared(&self, uid: &str) -> bool {
        let state = self.state.lock().unwrap();
        let at = state.appeared.get(uid);
        at.is_none_or(|at| at.elapsed() < PASS)
    }

    fn recently_gone(&self, target: &str, group: &str) -> bool {
        let state = self.state.lock().unwrap();
        state
            .gone
            .get(&(target.to_owned(), group.to_owned()))
            .is_some_and(|at| at.elapsed() < PASS)
    }

    fn is_just_deleted(&self, object: &Value) -> bool {
        let state = self.state.lock().unwrap();
        let at = state.deleted.get(&text(object, "/metadata/uid"));
        at.is_some_and(|at| at.elapsed() < PASS)
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
                && self.serves(object)
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
