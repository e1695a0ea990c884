//! Who made each edge: from the journal of the cloud, never from what is written on an object. And what follows from it:
//!
//! - **Leave**: the operator removes an edge only if its own Join made it and nobody has removed it since, or under `Remove`.
//! - **Left behind**: no such edge stays when its last object has gone.
//! - **Ready**: no object is Ready beside an edge that three reads, a scan apart, have shown to be missing; nor for long after one read
//!   that counts has shown it (`ready`).
//!
//! The exceptions are [`Exception`]; each is counted, and printed with every run.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION};
use security_group_operator::kubernetes::WatchScope;
use serde_json::Value;
use tokio::time::Instant;

use crate::scenario::claimed;
use crate::topology::{self, KEYS};

use super::{Monitor, PASS, Tolerance, condition, edge_of, is_deleting, text};

pub type Edge = (String, String);

/// Longest time from sending a call of unknown outcome to a read that tells what became of it: the deadline of a Join (66 s) and
/// the longest read lag (10 s).
const OPEN: Duration = Duration::from_secs(76);

/// How long after its start a process takes an intent that it finds for one of a process before it.
const ALONE: Duration = Duration::from_secs(61);

/// How long the operator takes a read for one that may be older than its own call.
const LAG: Duration = Duration::from_secs(10);

/// A membership that the rules would forbid, and that is allowed: the design names each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exception {
    /// An object of it went with `Retain` or `Observe`.
    Retained,
    /// Its finalizer was taken off by hand.
    FinalizerTakenOff,
    /// It was adopted, others removed it, and the operator repaired it.
    AdoptedAndRepaired,
    /// Others made it while a claim was open and the outcome of its Join unknown, or so shortly before that no read that counts had shown it.
    MadeWhileOpen,
    /// A Join of a killed process took effect late, beside a record, after a later process had taken that record off, or after the
    /// deletion of an object with one.
    JoinOfAKilledProcess,
    /// Others removed it, and the operator repaired it for one of several objects with different drift policies.
    MixedDriftPolicies,
    /// Others or a late Leave of the operator removed it, and the operator's repair for an object that had adopted it, and may have gone
    /// since, got no answer: an unknown outcome speaks for the claim that it was sent under, and not for the object that had joined.
    RepairedForAnAdopter,
    /// Others removed and made again what the operator had joined, and no read that counts came between.
    RemadeUnseen,
    /// The operator's Leave got no answer, or one while a Join was open, or one that its process did not survive. It took effect after
    /// others had made it, or they made it again before a read that counts.
    LeaveUnanswered,
    /// The API server removed an object in the moment of its claim, and no process saw the event, or the one that saw it was killed.
    RaceUnseen,
    /// Two operators without an election took each other's Join for that of another actor.
    TwoOperators,
    /// A Join without an answer of a process that has ended, and the key was one of another cloud account when its object was deleted: an
    /// intent that names another cloud account is none.
    AccountChangedWhileOpen,
    /// The write of an intent got no answer soon after the start of a process: a process before it may have written the intent that
    /// appears, and have sent a Join.
    IntentUnanswered,
    /// etcd was put back to a day on which its objects were others.
    StorePutBack,
    /// An object of it went, and a pass that had begun before a change of its spec may have gone by the policies of before.
    Respecified,
}

impl Exception {
    pub const ALL: [Self; 15] = [
        Self::Retained,
        Self::FinalizerTakenOff,
        Self::AdoptedAndRepaired,
        Self::MadeWhileOpen,
        Self::JoinOfAKilledProcess,
        Self::MixedDriftPolicies,
        Self::RepairedForAnAdopter,
        Self::RemadeUnseen,
        Self::LeaveUnanswered,
        Self::RaceUnseen,
        Self::TwoOperators,
        Self::AccountChangedWhileOpen,
        Self::IntentUnanswered,
        Self::StorePutBack,
        Self::Respecified,
    ];

    /// What it is called in the counts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Retained => "exception Retained",
            Self::FinalizerTakenOff => "exception FinalizerTakenOff",
            Self::AdoptedAndRepaired => "exception AdoptedAndRepaired",
            Self::MadeWhileOpen => "exception MadeWhileOpen",
            Self::JoinOfAKilledProcess => "exception JoinOfAKilledProcess",
            Self::MixedDriftPolicies => "exception MixedDriftPolicies",
            Self::RepairedForAnAdopter => "exception RepairedForAnAdopter",
            Self::RemadeUnseen => "exception RemadeUnseen",
            Self::LeaveUnanswered => "exception LeaveUnanswered",
            Self::RaceUnseen => "exception RaceUnseen",
            Self::TwoOperators => "exception TwoOperators",
            Self::AccountChangedWhileOpen => "exception AccountChangedWhileOpen",
            Self::IntentUnanswered => "exception IntentUnanswered",
            Self::StorePutBack => "exception StorePutBack",
            Self::Respecified => "exception Respecified",
        }
    }
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
    /// Objects whose Join was answered, and which have no record of it yet.
    unrecorded: HashSet<String>,
    /// Objects whose finalizer a user took off.
    stripped: HashSet<String>,
    /// Objects with an intent whose outcome the process that acts has never known.
    found_intents: HashSet<String>,
    /// Objects whose finalizer a user took off before any record, and when.
    claim_taken_off: HashMap<String, Instant>,
    /// The edge of the call that the cloud answers now.
    arriving: Option<Edge>,
    /// When the last process began.
    process_began: Option<Instant>,
    /// Whether a watch of memberships was broken off, and nothing has shown what happened since.
    misses_events: bool,
    /// How often an operator was told by a host that an edge is missing, scans apart; and when it was last counted.
    pub(super) told_missing: HashMap<Edge, HashMap<String, (u32, Instant)>>,
}

#[derive(Default)]
struct Open {
    /// When each call in flight was sent; and whether others had made the edge, and no read that counts had shown it.
    in_flight: HashMap<usize, (Instant, bool)>,
    /// When the last one that was never answered was sent.
    unanswered: Option<Instant>,
}

/// What is known of one edge.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
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
    /// Whether one of its objects was put back with etcd, or lost.
    put_back: bool,
    /// Why the operator may still take for its own what others make after they, or the operator, have removed it.
    unseen: Option<Exception>,
    /// Whether the process that acts has read since that it is missing.
    seen: bool,
    /// Whether the process that acts has read since that others have made it.
    shown: bool,
    /// When it was left behind for a reason that is an exception.
    told: Option<Instant>,
    /// Whether an intent for it was written without an answer, soon after the start of a process.
    intent_unanswered: bool,
    /// How its last object went, if it may stay or had a record, and when.
    last_gone: Option<(Option<Exception>, Instant)>,
    /// When a process began that found an intent without a record.
    found_intent: Option<Instant>,
    /// Whether an object of it was removed in the moment of its claim; and whether the event may have been missed.
    race: Option<bool>,
    /// Whether such an object had `deletionPolicy: Remove`, and no Leave of the operator has come since.
    removal: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Nobody,
    Operator,
    Others { while_open: bool },
}

/// Whether an object has an intent of its own, with a finalizer.
fn intends(object: &Value) -> bool {
    let metadata = &object["metadata"];
    let finalizers = metadata["finalizers"].as_array();
    let intent = metadata["annotations"][INTENT_ANNOTATION].as_str();
    intent.is_some_and(|intent| intent.contains(&text(object, "/metadata/uid")))
        && finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER))
}

/// Whether an object has a record or an intent.
fn holds(object: &Arc<Value>) -> bool {
    object["status"]["origin"].is_string() || intends(object)
}

impl Ledger {
    /// How long the last process has run.
    pub(super) fn acts_for(&self) -> Duration {
        self.process_began
            .map(|began| began.elapsed())
            .unwrap_or_default()
    }

    /// The targets that are not in a group in which they were.
    pub(super) fn removed_targets(&self) -> HashSet<String> {
        let is_removed = |made: &Made| {
            let was_there = made.left.is_some() || made.ours_removed || made.theirs_removed;
            made.by == Maker::Nobody && was_there
        };
        let removed = self.edges.iter().filter(|(_, made)| is_removed(made));
        removed.map(|((target, _), _)| target.clone()).collect()
    }

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
            put_back: false,
            unseen: None,
            seen: false,
            shown: false,
            told: None,
            intent_unanswered: false,
            last_gone: None,
            found_intent: None,
            race: None,
            removal: false,
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
        let is_changed = !new.is_empty();
        for entry in new {
            let edge = (text(&entry, "/target"), text(&entry, "/securityGroupId"));
            let by_operator = KEYS.iter().any(|(id, _, _)| entry["by"] == *id);
            self.state.lock().unwrap().ledger.told_missing.remove(&edge);
            let joined = entry["action"] == "JoinSecurityGroup";
            match (joined, by_operator) {
                (true, true) => self.operator_joined(&edge),
                (true, false) => self.others_joined(&edge),
                (false, true) => self.operator_left(&edge),
                (false, false) => self.others_left(&edge),
            }
            self.set_edge_changed(&edge, joined, by_operator);
        }
        if is_changed {
            self.judge_ready();
        }
    }

    /// A call on this edge has arrived at the cloud, or (`None`) was answered. What takes effect otherwise was answered before.
    pub fn arrives(&self, edge: Option<Edge>) {
        self.read_journal();
        self.state.lock().unwrap().ledger.arriving = edge;
    }

    fn operator_joined(&self, edge: &Edge) {
        // No object says that the operator owns it: an object that has adopted the edge repairs it.
        let objects = self.naming(&edge.0, &edge.1);
        let claims = |object: &Arc<Value>| {
            object["status"]["origin"] == "Joined"
                || object["status"]["origin"].is_null() && intends(object)
        };
        let adopted_only = !objects.iter().any(claims)
            && objects
                .iter()
                .any(|object| object["status"]["origin"] == "Adopted");
        let is_adopted = objects
            .iter()
            .any(|object| object["status"]["origin"] == "Adopted");
        let policies: HashSet<String> = objects
            .iter()
            .filter(|object| !is_deleting(object))
            .map(|object| text(object, "/spec/driftPolicy"))
            .collect();
        let mut state = self.state.lock().unwrap();
        let process_began = state.ledger.process_began;
        let is_late = state.ledger.arriving.as_ref() != Some(edge);
        let unanswered = state.ledger.open.get(edge).and_then(|open| open.unanswered);
        // The Join was sent under the claim of an object that was there then.
        let was_there = |object: &Arc<Value>| {
            let appeared = state.appeared.get(&text(object, "/metadata/uid"));
            appeared.is_none_or(|at| !is_late || unanswered.is_none_or(|sent| *at <= sent))
        };
        let is_claimed = objects
            .iter()
            .any(|object| holds(object) && was_there(object));
        let made = state.ledger.made(edge);
        let last_gone = made.last_gone.filter(|(_, at)| at.elapsed() < OPEN);
        let adopter_gone = matches!(last_gone, Some((Some(Exception::AdoptedAndRepaired), _)));
        let left_late = made.unseen == Some(Exception::LeaveUnanswered);
        made.by = Maker::Operator;
        made.since = Instant::now();
        (made.unseen, made.seen) = (None, false);
        made.intent_unanswered = false;
        let was_removed = made.ours_removed || made.theirs_removed || left_late && is_late;
        made.may_stay = if made.theirs_removed || adopted_only {
            Some(Exception::AdoptedAndRepaired)
        } else if was_removed && policies.len() > 1 {
            Some(Exception::MixedDriftPolicies)
        } else if was_removed && (is_adopted || is_late && adopter_gone) {
            Some(Exception::RepairedForAnAdopter)
        } else {
            None
        };
        // A Join of a process that knew more than the one that acts now, which knows only of intents.
        let is_of_killed = unanswered.is_some() && unanswered < process_began;
        let has_record = objects
            .iter()
            .any(|object| object["status"]["origin"].is_string());
        // Only the process that found an intent waits for its Join.
        let found = made.found_intent.filter(|at| Some(*at) >= process_began);
        let is_found = found.is_some_and(|at| at.elapsed() < OPEN);
        let was_recorded = has_record || !objects.is_empty() && !is_found;
        if is_late && is_of_killed && was_recorded && made.may_stay.is_none() {
            made.may_stay = Some(Exception::JoinOfAKilledProcess);
        }
        // The Join takes effect after its object.
        if let Some((why, _)) = last_gone {
            let why = why.filter(|_| !is_claimed);
            let of_killed = (is_late && is_of_killed).then_some(Exception::JoinOfAKilledProcess);
            made.may_stay = made.may_stay.or(why).or(of_killed);
        }
    }

    fn others_joined(&self, edge: &Edge) {
        let while_open = self.is_open(edge);
        let mut state = self.state.lock().unwrap();
        let made = state.ledger.made(edge);
        made.by = Maker::Others { while_open };
        made.since = Instant::now();
        (made.shown, made.told) = (false, None);
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
        // What the operator has taken for its own is as its own to it.
        if matches!(
            made.by,
            Maker::Operator | Maker::Others { while_open: true }
        ) {
            (made.unseen, made.seen) = (Some(Exception::RemadeUnseen), false);
        }
        made.by = Maker::Nobody;
        made.since = Instant::now();
    }

    fn operator_left(&self, edge: &Edge) {
        let (by, ours_removed, put_back, unseen, told, removal) = {
            let mut state = self.state.lock().unwrap();
            let is_late = state.ledger.arriving.as_ref() != Some(edge);
            let made = state.ledger.made(edge);
            let late = is_late.then_some(Exception::LeaveUnanswered);
            let intent = made
                .intent_unanswered
                .then_some(Exception::IntentUnanswered);
            let unseen = late.or(intent).or(made.unseen.filter(|_| !made.seen));
            // A pass that had begun before.
            let told = made.told.take();
            let told = told.is_some_and(|at| at.elapsed() < PASS);
            let removal = std::mem::take(&mut made.removal);
            let was = (
                made.by,
                made.ours_removed,
                made.put_back,
                unseen,
                told,
                removal,
            );
            (made.unseen, made.seen) = (Some(Exception::LeaveUnanswered), false);
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
        let mut objects = self.naming(target, group);
        objects.retain(|object| is_deleting(object));
        let removes = |object: &Arc<Value>| object["spec"]["deletionPolicy"] == "Remove";
        if removal || objects.iter().any(removes) {
            return;
        }
        if told {
            self.tolerated(Tolerance::PassBegunBefore);
            return;
        }
        let exception = match (while_open, put_back) {
            (true, _) => Some(Exception::MadeWhileOpen),
            (false, true) => Some(Exception::StorePutBack),
            (false, false) => unseen.or(self.several.then_some(Exception::TwoOperators)),
        };
        if let Some(exception) = exception {
            self.excepted(exception);
            return;
        }
        let uid = |object: &Arc<Value>| text(object, "/metadata/uid");
        if objects
            .iter()
            .any(|object| self.is_just_respecified(&uid(object)))
        {
            self.tolerated(Tolerance::JustRespecified);
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
        self.count(exception.word());
    }

    /// The answer to a Leave has come to the operator: it knows that nothing of its own is there.
    pub fn leave_answered(&self, edge: &Edge) {
        // While a Join may still take effect it is not the last word; nor while an intent of the process before may be one.
        let is_open = self.is_open(edge);
        let mut state = self.state.lock().unwrap();
        let made = state.ledger.made(edge);
        let found = made.found_intent.is_some_and(|at| at.elapsed() < OPEN);
        if is_open || found {
            return;
        }
        made.unseen = made.unseen.filter(|why| *why != Exception::LeaveUnanswered);
        made.race = None;
    }

    /// The operator writes an intent for this object, and will get no answer.
    pub fn intent_unanswered(&self, object: &Value) {
        let Some(edge) = edge_of(object) else {
            return;
        };
        let mut state = self.state.lock().unwrap();
        let began = state.ledger.process_began;
        let is_early = began.is_none_or(|began| began.elapsed() < ALONE);
        let made = state.ledger.made(&edge);
        made.intent_unanswered |= is_early && made.by != Maker::Operator;
    }

    /// A watch of memberships was broken off: an event may have been missed.
    pub fn event_missed(&self) {
        let mut state = self.state.lock().unwrap();
        state.ledger.misses_events = true;
        for made in state.ledger.edges.values_mut() {
            made.race = made.race.map(|_| true);
        }
    }

    /// A watch of memberships shows an event, or a new list was answered.
    pub fn event_shown(&self) {
        self.state.lock().unwrap().ledger.misses_events = false;
    }

    /// The API server has removed an object with a finalizer of ours. If somebody had deleted it a second time by then, its event is that of
    /// an object which was let go.
    pub fn removed_in_the_moment_of_its_claim(&self, object: Option<&Value>) {
        let object = object.filter(|object| is_deleting(object));
        if let Some(edge) = object.and_then(edge_of) {
            self.state.lock().unwrap().ledger.made(&edge).race = Some(true);
        }
    }

    /// An operator sends a Join.
    pub fn join_sent(&self, edge: &Edge) -> usize {
        let mut state = self.state.lock().unwrap();
        state.ledger.joins += 1;
        let number = state.ledger.joins;
        let mut made = state.ledger.edges.get_mut(edge);
        let is_blind = made.as_ref().is_some_and(|made| !made.shown);
        // The other one may read it before the answer.
        if self.several
            && is_blind
            && let Some(Maker::Others { while_open }) = made.as_mut().map(|made| &mut made.by)
        {
            *while_open = true;
        }
        let open = state.ledger.open.entry(edge.clone()).or_default();
        open.in_flight.insert(number, (Instant::now(), is_blind));
        number
    }

    /// Its answer has come to the operator, and tells what became of it; or it was never sent.
    pub fn join_answered(&self, edge: &Edge, number: usize) {
        let objects = self.naming(&edge.0, &edge.1);
        let mut state = self.state.lock().unwrap();
        if let Some(open) = state.ledger.open.get_mut(edge) {
            open.in_flight.remove(&number);
        }
        let open = state.ledger.open.get(edge).and_then(|open| open.unanswered);
        let is_open = open.is_some_and(|sent| sent.elapsed() < OPEN);
        let made = state.ledger.made(edge);
        made.may_stay = made
            .may_stay
            .filter(|why| is_open || *why != Exception::RepairedForAnAdopter);
        for object in objects {
            let uid = text(&object, "/metadata/uid");
            if state.ledger.intents.remove(&uid) {
                state.ledger.unrecorded.insert(uid);
            }
        }
    }

    /// It was sent, and no answer tells what became of it.
    pub fn join_unanswered(&self, edge: &Edge, number: usize) {
        let mut state = self.state.lock().unwrap();
        let open = state.ledger.open.entry(edge.clone()).or_default();
        let Some((sent, is_blind)) = open.in_flight.remove(&number) else {
            return;
        };
        open.unanswered = open.unanswered.max(Some(sent));
        // What others made just before could not be seen yet.
        let lag = self.lag + Duration::from_secs(1);
        if let Some(made) = state.ledger.edges.get_mut(edge)
            && let Maker::Others { while_open } = &mut made.by
            && (is_blind || made.since + lag >= sent)
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
        let edge = edge_of(object);
        let is_told = edge.as_ref().is_some_and(|edge| {
            let objects = self.naming(&edge.0, &edge.1);
            !objects.iter().any(|object| claimed(object) == "Joined")
        });
        let mut state = self.state.lock().unwrap();
        if let Some(made) = edge
            .as_ref()
            .and_then(|edge| state.ledger.edges.get_mut(edge))
            && is_told
        {
            made.unseen = None;
        }
        if has_ours {
            state.ledger.stripped.remove(&uid);
        }
        let taken_off = state.ledger.claim_taken_off.get(&uid).copied();
        let is_found = state.ledger.found_intents.contains(&uid);
        let is_forgotten =
            taken_off.is_some_and(|at| is_found || Some(at) <= state.ledger.process_began);
        // Taken for what others have made: adopted, or let be.
        let is_theirs = object["status"]["origin"] == "Adopted"
            || is_told && object["spec"]["adoptionPolicy"] == "Refuse";
        if is_forgotten
            && is_theirs
            && let Some(made) = edge
                .as_ref()
                .and_then(|edge| state.ledger.edges.get_mut(edge))
        {
            made.may_stay = made.may_stay.or(Some(Exception::FinalizerTakenOff));
        }
        state.ledger.unrecorded.remove(&uid);
        if intent {
            state.ledger.intents.insert(uid);
        } else {
            state.ledger.intents.remove(&uid);
        }
    }

    /// etcd was put back: these objects are gone, and those are others, each as it was before.
    pub fn put_back(&self, lost: &[Arc<Value>], others: &[Arc<Value>]) {
        self.read_journal();
        self.upheaval();
        self.event_missed();
        self.read_anew(Tolerance::PutBack);
        let mut state = self.state.lock().unwrap();
        state.ledger.told_missing.clear();
        for object in lost.iter().chain(others) {
            let uid = text(object, "/metadata/uid");
            state.touched.insert(uid.clone(), Instant::now());
            state.respecified.insert(uid, Instant::now());
            if let Some(edge) = edge_of(object) {
                state.ledger.made(&edge).put_back = true;
                state.gone.insert(edge, Instant::now());
            }
        }
        drop(state);
        for _ in others {
            self.count("object that the store has put back");
        }
        for _ in lost {
            self.count("object that the store has lost");
        }
    }

    /// A user has taken the finalizer off.
    pub fn finalizer_taken_off(&self, object: &Value) {
        let uid = text(object, "/metadata/uid");
        let mut state = self.state.lock().unwrap();
        if object["status"]["origin"].is_null() {
            let taken_off = &mut state.ledger.claim_taken_off;
            taken_off.insert(uid.clone(), Instant::now());
        }
        state.ledger.stripped.insert(uid);
    }

    /// Whether the key of an object's account is one of another cloud account than the targets'.
    fn account_is_elsewhere(&self, object: &Value) -> bool {
        let account = topology::account_of(object);
        let secret = account.and_then(|account| {
            self.server
                .object("secrets", account.secret_namespace, "key")
        });
        let foreign = KEYS
            .iter()
            .position(|(_, _, account)| *account != topology::OWNER);
        let foreign = foreign.map(topology::secret_data);
        secret
            .zip(foreign)
            .is_some_and(|(secret, foreign)| secret["data"] == foreign)
    }

    /// The account that an object names, as it is stored.
    fn stored_account(&self, object: &Value) -> Option<Arc<Value>> {
        let account = topology::account_of(object)?;
        let server = &self.server;
        server.object(account.plural, account.namespace, account.name)
    }

    /// Whether the account of an object can be used.
    fn account_is_ready(&self, object: &Value) -> bool {
        self.stored_account(object).is_some_and(|account| {
            let ready = condition(&account, "Ready");
            ready.is_some_and(|ready| ready["status"] == "True")
                && account["status"]["accountUID"] == topology::OWNER
        })
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
        let made = ledger.edges.get(edge).and_then(|made| made.found_intent);
        let found = made.is_some_and(|at| at.elapsed() < OPEN);
        call || found
            || objects
                .iter()
                .any(|object| ledger.intents.contains(&text(object, "/metadata/uid")))
    }

    /// An object has gone. What was joined for one that nobody had released may be removed later: at the end it must have been.
    pub fn object_gone(&self, object: &Value, edge: &Edge, is_unreleased: bool) {
        self.read_journal();
        let spec = &object["spec"];
        let uid = text(object, "/metadata/uid");
        let retained = spec["deletionPolicy"] == "Retain" || spec["managementPolicy"] == "Observe";
        let respecified = self.is_just_respecified(&uid);
        let left = self.naming(&edge.0, &edge.1);
        let last = left.is_empty();
        let told = &object["status"]["accountUID"];
        let is_elsewhere =
            told.is_string() && *told != topology::OWNER || self.account_is_elsewhere(object);
        {
            let mut state = self.state.lock().unwrap();
            let misses_events = state.ledger.misses_events;
            let stripped = state.ledger.stripped.remove(&uid);
            let intends = state.ledger.intents.remove(&uid);
            let elsewhere = is_elsewhere && intends;
            // Whoever knows of its claim must take a Join of it for one that may be on its way.
            if is_unreleased && intends {
                let open = state.ledger.open.entry(edge.clone()).or_default();
                open.unanswered = Some(Instant::now());
            }
            let made = state.ledger.made(edge);
            let why = match (retained, stripped) {
                (true, _) => Some(Exception::Retained),
                (false, true) => Some(Exception::FinalizerTakenOff),
                (false, false) => elsewhere
                    .then_some(Exception::AccountChangedWhileOpen)
                    .or(respecified.then_some(Exception::Respecified)),
            };
            made.may_stay = made.may_stay.or(why);
            if why.is_some() || object["status"]["origin"].is_string() {
                let adopted = object["status"]["origin"] == "Adopted";
                let why = why.or(adopted.then_some(Exception::AdoptedAndRepaired));
                made.last_gone = Some((why, Instant::now()));
            }
            if is_unreleased {
                made.race = Some(misses_events);
                made.removal |= spec["deletionPolicy"] == "Remove" && !retained;
            }
        }
        let is_raced = {
            let state = self.state.lock().unwrap();
            let made = state.ledger.edges.get(edge);
            made.is_some_and(|made| made.race.is_some())
        };
        if last && !is_raced {
            self.check_left_behind(edge);
            let mut state = self.state.lock().unwrap();
            if let Some(made) = state.ledger.edges.get_mut(edge) {
                made.ours_removed = false;
                made.theirs_removed = false;
            }
        }
    }

    /// Whether what the operator joined for an object that nobody had released is still to be removed. A refused Leave is called again as
    /// late as that of an object.
    pub fn owes_a_leave(&self) -> bool {
        self.read_journal();
        let owed: Vec<Edge> = {
            let state = self.state.lock().unwrap();
            let is_owed = |made: &Made| {
                made.by == Maker::Operator && made.may_stay.is_none() && made.race == Some(false)
            };
            let edges = state.ledger.edges.iter();
            let edges = edges.filter(|(_, made)| is_owed(made));
            edges.map(|(edge, _)| edge.clone()).collect()
        };
        owed.iter()
            .any(|(target, group)| self.naming(target, group).is_empty())
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
                    let why = if made.put_back {
                        Some(Exception::StorePutBack)
                    } else if made.race == Some(true) {
                        Some(Exception::RaceUnseen)
                    } else {
                        self.several.then_some(Exception::TwoOperators)
                    };
                    let why = made.may_stay.or(why);
                    // Told once. The Leave of the other of two operators may still be on its way.
                    if why != Some(Exception::TwoOperators) {
                        made.by = Maker::Others { while_open: false };
                        made.told = Some(Instant::now());
                    }
                    (why, soon)
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
    pub fn process_started(&self, scopes: &[WatchScope]) {
        self.read_journal();
        self.read_anew(Tolerance::NewProcess);
        {
            let mut state = self.state.lock().unwrap();
            state.scopes.push(scopes.to_vec());
            if !self.several {
                state.limits.clear();
            }
        }
        let objects = self.server.objects(super::MEMBERSHIPS);
        let with_record: Vec<Edge> = objects
            .iter()
            .filter(|object| is_deleting(object) && object["status"]["origin"] == "Joined")
            .filter_map(|object| edge_of(object))
            .collect();
        let with_intent: Vec<Edge> = {
            let mut state = self.state.lock().unwrap();
            // To the process that begins, nothing has answered these Joins.
            let unrecorded = std::mem::take(&mut state.ledger.unrecorded);
            state.ledger.intents.extend(unrecorded);
            let ledger = &mut state.ledger;
            ledger.found_intents.clone_from(&ledger.intents);
            let intents = &state.ledger.intents;
            let has_intent =
                |object: &&Arc<Value>| intents.contains(&text(object, "/metadata/uid"));
            objects
                .iter()
                .filter(has_intent)
                .filter_map(|object| edge_of(object))
                .collect()
        };
        {
            let mut state = self.state.lock().unwrap();
            let ledger = &mut state.ledger;
            // An intent without a record counts for the process that begins, whoever made what is there.
            for edge in &with_intent {
                let made = ledger.made(edge);
                made.found_intent = Some(Instant::now());
                if let Maker::Others { while_open } = &mut made.by {
                    *while_open = true;
                }
            }
            // Whether the process before has removed what a record tells of, it cannot know.
            for edge in &with_record {
                let made = ledger.made(edge);
                if made.left.is_some() && made.by != Maker::Operator {
                    made.unseen = Some(Exception::LeaveUnanswered);
                }
            }
            ledger.told_missing.clear();
            ledger.process_began = Some(Instant::now());
            for made in ledger.edges.values_mut() {
                (made.seen, made.shown) = (false, false);
            }
        }
        self.event_missed();
    }

    /// An operator has read whether an edge is there. Whether that counts: the read began later than every effect of its calls, and
    /// than its start, may lag.
    fn seen(&self, edge: &Edge, started: Instant, member: bool) -> bool {
        let is_open = self.is_open(edge);
        let mut state = self.state.lock().unwrap();
        let process_began = state.ledger.process_began;
        let made = state.ledger.made(edge);
        let is_settled = started >= made.since + LAG + self.lag
            && process_began.is_none_or(|began| started >= began + LAG)
            && made.left.is_none_or(|left| started >= left + OPEN)
            && made.found_intent.is_none_or(|at| started >= at + OPEN);
        let counts = is_settled && !is_open && !self.several;
        made.seen |= counts && !member;
        made.shown |= counts && member;
        is_settled && !is_open
    }

    /// Whether the account of an object is read through this host. What another endpoint says tells the object nothing.
    pub(super) fn is_read_through(&self, object: &Value, host: &str) -> bool {
        self.stored_account(object).is_some_and(|account| {
            let is_elsewhere = host.ends_with(".aliyuncs.com");
            let names_one = account["spec"]["endpoints"]["ecs"].is_string();
            is_elsewhere != (names_one || self.ecs_by_default)
        })
    }

    /// An operator has been told about a target by a read through this host that began at `started`.
    pub fn told_about(&self, target: &str, host: &str, started: Instant) {
        let mut missing = Vec::new();
        let mut objects = self.server.objects(super::MEMBERSHIPS);
        objects.retain(|object| {
            super::target_of(object) == target && self.is_read_through(object, host)
        });
        let account = |object: &Arc<Value>| topology::account_of(object).map(std::ptr::from_ref);
        let of_several = objects
            .windows(2)
            .any(|pair| account(&pair[0]) != account(&pair[1]));
        for object in objects {
            let Some(edge) = edge_of(&object) else {
                continue;
            };
            let member = self.membership(Some(target), Some(&edge.1), self.server.now());
            // What a pass reads with the key of another account object tells it nothing; a scan does.
            let ready = self.account_is_ready(&object);
            if member {
                if ready && !of_several {
                    let _ = self.seen(&edge, started, true);
                }
                continue;
            }
            let times = {
                let mut state = self.state.lock().unwrap();
                let since = state.ledger.edges.get(&edge).map(|made| made.since);
                if since.is_some_and(|since| started < since + self.lag) {
                    continue;
                }
                let told = state.ledger.told_missing.entry(edge.clone()).or_default();
                let (times, at) = told.entry(host.to_owned()).or_insert((0, started));
                if *times == 0 || started > *at + PASS {
                    (*times, *at) = (*times + 1, started);
                }
                *times
            };
            if ready && (!of_several || times > 1) && self.seen(&edge, started, false) {
                self.missing_shown(&text(&object, "/metadata/uid"));
            }
            if times > 2 && self.is_ready_too_long(&object) {
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
