//! Who made each edge: from the journal of the cloud, never from what is written on an object. And what follows from it:
//!
//! - **Leave**: the operator removes an edge only if its own Join made it and nobody has removed it since, or under `Remove`.
//! - **Left behind**: no such edge stays when its last object has gone.
//! - **Ready**: no object is Ready beside an edge that three reads, a scan apart, have shown to be missing.
//!
//! The exceptions are [`Exception`]; each is counted, and printed with every run.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION};
use serde_json::Value;
use tokio::time::Instant;

use crate::topology::KEYS;

use super::{Monitor, PASS, condition, edge_of, is_deleting, text};

pub type Edge = (String, String);

/// Longest time from sending a call of unknown outcome to a read that tells what became of it: the deadline of a Join (66 s) and
/// the longest read lag (10 s).
const OPEN: Duration = Duration::from_secs(76);

/// A membership that the rules would forbid, and that is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exception {
    /// An object of it went with `Retain` or `Observe`.
    Retained,
    /// Its finalizer was taken off by hand.
    FinalizerTakenOff,
    /// It was adopted, others removed it, and the operator repaired it.
    AdoptedAndRepaired,
    /// Others made it while a claim was open and the outcome of its Join unknown.
    MadeWhileOpen,
}

impl Exception {
    pub const ALL: [Self; 4] = [
        Self::Retained,
        Self::FinalizerTakenOff,
        Self::AdoptedAndRepaired,
        Self::MadeWhileOpen,
    ];
}

/// How often each exception was made use of, in all worlds of the process.
static EXCEPTIONS: Mutex<BTreeMap<Exception, u64>> = Mutex::new(BTreeMap::new());

/// One line for each exception since the last call.
pub fn exceptions() -> String {
    let counts = std::mem::take(&mut *EXCEPTIONS.lock().unwrap());
    let line = |exception: Exception| {
        format!(
            "exception {exception:?}: {}\n",
            counts.get(&exception).copied().unwrap_or_default()
        )
    };
    Exception::ALL.map(line).concat()
}

#[derive(Default)]
pub struct Ledger {
    read: usize,
    /// Number of Joins sent.
    joins: usize,
    edges: HashMap<Edge, Made>,
    /// Joins whose outcome no operator knows.
    open: HashMap<Edge, Open>,
    /// Objects whose claim the operator wrote, and whose Join was never answered since.
    intents: HashSet<String>,
    /// Objects whose finalizer a user took off.
    stripped: HashSet<String>,
    /// How often an operator was told that an edge is missing, scans apart; and when it was last counted.
    told_missing: HashMap<Edge, (u32, Instant)>,
}

#[derive(Default)]
struct Open {
    /// When each call in flight was sent.
    in_flight: HashMap<usize, Instant>,
    /// When the last one that was never answered was sent.
    unanswered: Option<Instant>,
}

/// What is known of one edge.
struct Made {
    by: Maker,
    since: Instant,
    /// Why it may stay when no object names it.
    may_stay: Option<Exception>,
    /// Others removed it while the operator had made it, and an object named it all the time since.
    ours_removed: bool,
    /// Others removed it while others had made it, and an object named it all the time since.
    theirs_removed: bool,
    /// When the operator last removed it.
    left: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Nobody,
    Operator,
    Others { while_open: bool },
}

impl Ledger {
    fn made(&mut self, edge: &Edge) -> &mut Made {
        self.edges.entry(edge.clone()).or_insert_with(Made::nothing)
    }
}

impl Made {
    fn nothing() -> Self {
        Self {
            by: Maker::Nobody,
            since: Instant::now(),
            may_stay: None,
            ours_removed: false,
            theirs_removed: false,
            left: None,
        }
    }
}

impl Monitor {
    /// Reads what has changed in the cloud since the last look.
    pub fn read_journal(&self) {
        self.simulator.advance(self.server.now());
        let new = {
            let mut state = self.state.lock().unwrap();
            let new = self.simulator.journal_from(state.ledger.read);
            state.ledger.read += new.len();
            new
        };
        for entry in new {
            let edge = (text(&entry, "/target"), text(&entry, "/securityGroupId"));
            let by_operator = KEYS.iter().any(|(id, _, _)| entry["by"] == *id);
            self.state.lock().unwrap().ledger.told_missing.remove(&edge);
            match (entry["action"] == "JoinSecurityGroup", by_operator) {
                (true, true) => self.operator_joined(&edge),
                (true, false) => self.others_joined(&edge),
                (false, true) => self.operator_left(&edge),
                (false, false) => self.others_left(&edge),
            }
        }
    }

    fn operator_joined(&self, edge: &Edge) {
        // No object says that the operator owns it: an object that has adopted the edge repairs it.
        let objects = self.naming(&edge.0, &edge.1);
        let claims = |object: &Arc<Value>| {
            object["status"]["origin"] == "Joined"
                || object["metadata"]["annotations"][INTENT_ANNOTATION].is_string()
                    && object["status"]["origin"].is_null()
        };
        let adopted_only = !objects.iter().any(claims)
            && objects
                .iter()
                .any(|object| object["status"]["origin"] == "Adopted");
        let mut state = self.state.lock().unwrap();
        let made = state.ledger.made(edge);
        made.by = Maker::Operator;
        made.since = Instant::now();
        let repaired = made.theirs_removed || adopted_only;
        made.may_stay = repaired.then_some(Exception::AdoptedAndRepaired);
    }

    fn others_joined(&self, edge: &Edge) {
        let while_open = self.is_open(edge);
        let mut state = self.state.lock().unwrap();
        let made = state.ledger.made(edge);
        made.by = Maker::Others { while_open };
        made.since = Instant::now();
        made.may_stay = None;
    }

    fn others_left(&self, edge: &Edge) {
        let mut state = self.state.lock().unwrap();
        let made = state.ledger.made(edge);
        match made.by {
            // What may stay is nobody's: who holds it has adopted it.
            Maker::Operator if made.may_stay.is_some() => made.theirs_removed = true,
            Maker::Operator => made.ours_removed = true,
            Maker::Others { .. } => made.theirs_removed = true,
            Maker::Nobody => {}
        }
        made.by = Maker::Nobody;
        made.since = Instant::now();
    }

    fn operator_left(&self, edge: &Edge) {
        let (by, ours_removed) = {
            let mut state = self.state.lock().unwrap();
            let made = state.ledger.made(edge);
            let was = (made.by, made.ours_removed);
            made.by = Maker::Nobody;
            made.since = Instant::now();
            made.left = Some(made.since);
            was
        };
        let while_open = match by {
            Maker::Operator => return,
            Maker::Nobody => false,
            Maker::Others { while_open } => while_open,
        };
        let (target, group) = edge;
        let removes = self.naming(target, group).iter().any(|object| {
            is_deleting(object)
                && (object["spec"]["deletionPolicy"] == "Remove"
                    || self.is_just_respecified(&text(object, "/metadata/uid")))
        });
        if removes {
            return;
        }
        if while_open {
            self.excepted(Exception::MadeWhileOpen);
            return;
        }
        let why = if ours_removed {
            "after they had removed the operator's own"
        } else {
            "before any Join of the operator"
        };
        self.violated(format!(
            "Leave: the operator removed {target} from {group}, which others had made {why}"
        ));
    }

    fn excepted(&self, exception: Exception) {
        self.trace(|| format!("exception: {exception:?}"));
        *EXCEPTIONS.lock().unwrap().entry(exception).or_default() += 1;
    }

    /// An operator sends a Join.
    pub fn join_sent(&self, edge: &Edge) -> usize {
        let mut state = self.state.lock().unwrap();
        state.ledger.joins += 1;
        let number = state.ledger.joins;
        let open = state.ledger.open.entry(edge.clone()).or_default();
        open.in_flight.insert(number, Instant::now());
        number
    }

    /// Its answer has come to the operator, and tells what became of it; or it was never sent.
    pub fn join_answered(&self, edge: &Edge, number: usize) {
        let objects = self.naming(&edge.0, &edge.1);
        let mut state = self.state.lock().unwrap();
        if let Some(open) = state.ledger.open.get_mut(edge) {
            open.in_flight.remove(&number);
        }
        for object in objects {
            state.ledger.intents.remove(&text(&object, "/metadata/uid"));
        }
    }

    /// It was sent, and no answer tells what became of it.
    pub fn join_unanswered(&self, edge: &Edge, number: usize) {
        let mut state = self.state.lock().unwrap();
        let open = state.ledger.open.entry(edge.clone()).or_default();
        let Some(sent) = open.in_flight.remove(&number) else {
            return;
        };
        open.unanswered = open.unanswered.max(Some(sent));
        // What others made just before could not be seen yet.
        let lag = self.lag + Duration::from_secs(1);
        if let Some(made) = state.ledger.edges.get_mut(edge)
            && let Maker::Others { while_open } = &mut made.by
            && made.since + lag >= sent
        {
            *while_open = true;
        }
    }

    /// The operator has written a claim, or taken one off.
    pub fn claim_written(&self, object: &Value) {
        let uid = text(object, "/metadata/uid");
        let intent = object["metadata"]["annotations"][INTENT_ANNOTATION].is_string()
            && object["status"]["origin"].is_null();
        let finalizers = object["metadata"]["finalizers"].as_array();
        let has_ours = finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER));
        let mut state = self.state.lock().unwrap();
        if has_ours {
            state.ledger.stripped.remove(&uid);
        }
        if intent {
            state.ledger.intents.insert(uid);
        } else {
            state.ledger.intents.remove(&uid);
        }
    }

    /// A user has taken the finalizer off.
    pub fn finalizer_taken_off(&self, uid: &str) {
        let mut state = self.state.lock().unwrap();
        state.ledger.stripped.insert(uid.to_owned());
    }

    /// Whether a claim on the edge is open and the outcome of its Join unknown.
    fn is_open(&self, edge: &Edge) -> bool {
        let objects = self.naming(&edge.0, &edge.1);
        let state = self.state.lock().unwrap();
        let ledger = &state.ledger;
        let call = ledger.open.get(edge).is_some_and(|open| {
            let unanswered = open.unanswered.is_some_and(|sent| sent.elapsed() < OPEN);
            unanswered || !open.in_flight.is_empty()
        });
        call || objects
            .iter()
            .any(|object| ledger.intents.contains(&text(object, "/metadata/uid")))
    }

    /// An object has gone. What was joined for one that nobody had released may be removed later: at the end it must have been.
    pub fn object_gone(&self, object: &Value, edge: &Edge, is_unreleased: bool) {
        self.read_journal();
        let spec = &object["spec"];
        let uid = text(object, "/metadata/uid");
        let retained = spec["deletionPolicy"] == "Retain"
            || spec["managementPolicy"] == "Observe"
            || self.is_just_respecified(&uid);
        let last = self.naming(&edge.0, &edge.1).is_empty();
        {
            let mut state = self.state.lock().unwrap();
            let stripped = state.ledger.stripped.remove(&uid);
            state.ledger.intents.remove(&uid);
            let Some(made) = state.ledger.edges.get_mut(edge) else {
                return;
            };
            if retained {
                made.may_stay = made.may_stay.or(Some(Exception::Retained));
            }
            if stripped {
                made.may_stay = made.may_stay.or(Some(Exception::FinalizerTakenOff));
            }
        }
        if last && !is_unreleased {
            self.check_left_behind(edge);
            let mut state = self.state.lock().unwrap();
            if let Some(made) = state.ledger.edges.get_mut(edge) {
                made.ours_removed = false;
                made.theirs_removed = false;
            }
        }
    }

    /// At the end: every edge without an object.
    pub fn check_all_left_behind(&self) {
        self.read_journal();
        let edges: Vec<Edge> = self
            .state
            .lock()
            .unwrap()
            .ledger
            .edges
            .keys()
            .cloned()
            .collect();
        for edge in edges {
            if self.naming(&edge.0, &edge.1).is_empty() {
                self.check_left_behind(&edge);
            }
        }
    }

    fn check_left_behind(&self, edge: &Edge) {
        let (target, group) = edge;
        if !self.membership(Some(target), Some(group), self.server.now()) {
            return;
        }
        let Some((may_stay, soon)) = ({
            let mut state = self.state.lock().unwrap();
            state
                .ledger
                .edges
                .get_mut(edge)
                .filter(|made| made.by == Maker::Operator)
                .map(|made| {
                    let soon = made.left.is_some_and(|left| made.since < left + OPEN);
                    // Told once.
                    made.by = Maker::Others { while_open: false };
                    (made.may_stay, soon)
                })
        }) else {
            return;
        };
        if let Some(exception) = may_stay {
            self.excepted(exception);
            return;
        }
        let what = if soon {
            " soon after its own Leave"
        } else {
            ""
        };
        self.violated(format!(
            "Left behind: {target} is in {group}, the operator joined it{what}, and no object is left"
        ));
    }

    /// A new process knows nothing of what another one was told.
    pub fn process_started(&self) {
        self.state.lock().unwrap().ledger.told_missing.clear();
    }

    /// An operator has been told about a target by a read that began at `started`.
    pub fn told_about(&self, target: &str, started: Instant) {
        let mut missing = Vec::new();
        for object in self.server.objects(super::MEMBERSHIPS) {
            let Some(edge) = edge_of(&object).filter(|edge| edge.0 == target) else {
                continue;
            };
            if self.membership(Some(target), Some(&edge.1), self.server.now()) {
                continue;
            }
            let times = {
                let mut state = self.state.lock().unwrap();
                let since = state.ledger.edges.get(&edge).map(|made| made.since);
                if since.is_some_and(|since| started < since + self.lag) {
                    continue;
                }
                let told = state.ledger.told_missing.entry(edge.clone());
                let (times, at) = told.or_insert((0, started));
                if *times == 0 || started > *at + PASS {
                    (*times, *at) = (*times + 1, started);
                }
                *times
            };
            let ready = condition(&object, "Ready").is_some_and(|ready| ready["status"] == "True");
            let suspended = object["spec"]["suspend"] == true;
            if times > 2 && ready && !suspended && !is_deleting(&object) {
                missing.push((text(&object, "/metadata/name"), edge));
            }
        }
        for (name, (target, group)) in missing {
            self.violated(format!(
                "Ready: {name} is Ready, and three scans have shown that {target} is not in {group}"
            ));
        }
    }
}
