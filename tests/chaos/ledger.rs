//! Who made each edge: by the journal of the simulated cloud, never by what is written on an object. And what follows from it:
//!
//! - **Leave**: the operator removes an edge only if its own Join made it and it was not removed since, or under `Remove`.
//! - **Left behind**: no such edge stays when its last object has gone.
//!
//! At a comparison everything has settled: no claim is open, and no call is on its way. What the processes between two
//! comparisons knew, and when, is not known. So an exception is allowed where it may have happened since the last comparison,
//! and nowhere else. Each is counted, and printed with every run. Pure.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::jiff::Timestamp;
use security_group_operator::api::membership::{DeletionPolicy, DriftPolicy};

use crate::act::{EDGES, was_there};
use crate::model::{Policies, SHARERS};

/// What the rules would forbid, and the design allows: it names each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Exception {
    /// An object of it went with `Retain`.
    Retained,
    /// Its finalizer was taken off by `kubectl replace`.
    FinalizerTakenOff,
    /// It was others', they removed it, and the operator repaired it for an object that had adopted it.
    AdoptedAndRepaired,
    /// Others made it while a claim was open and the outcome of its Join unknown.
    MadeWhileOpen,
    /// Others removed it, the operator repaired it, was killed, and the object was deleted: a Join of unknown outcome.
    JoinOfAKilledProcess,
    /// Others removed it, and the operator repaired it for one of two objects with different drift policies.
    MixedDriftPolicies,
    /// Others removed it, and the operator repaired it while two objects named it: for one that had adopted it, perhaps.
    RepairedForAnAdopter,
    /// Others removed and made again what the operator had joined, perhaps before a read of it.
    RemadeUnseen,
    /// Others made again what the operator had left, perhaps before the answer to its Leave.
    LeaveUnanswered,
    /// The API server removed an object in the moment of its claim, and a kill hid that.
    RaceUnseen,
}

impl Exception {
    pub const ALL: [Self; 10] = [
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
    ];
}

/// One change in the journal.
#[derive(Clone, Copy, Debug)]
pub struct Change {
    pub at: Timestamp,
    pub by_operator: bool,
    pub joins: bool,
}

/// All edges, and how often each exception happened.
#[derive(Debug)]
pub struct Ledger {
    edges: Vec<Made>,
    exceptions: BTreeMap<Exception, usize>,
    /// Leaves of what the operator had made, and of what others had made under `Remove`.
    own: usize,
    under_remove: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Maker {
    Nobody,
    Operator,
    /// With whether that was since the last comparison.
    Others {
        lately: bool,
    },
}

#[derive(Clone, Debug)]
struct Made {
    by: Maker,
    /// Why it may stay when no object names it.
    may_stay: Option<Exception>,
    /// Why the operator may take for its own what others have made.
    mistaken: Option<Exception>,
    /// Others removed what others had made, and an object has named it since.
    theirs_removed: bool,
    objects: [Option<Named>; SHARERS],
    /// When the objects were made that have named it since the last comparison.
    births: Vec<Timestamp>,
    lately: Lately,
}

/// What has happened to an edge since the last comparison.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Copy, Debug, Default)]
struct Lately {
    /// Others removed it; and it was the operator's then.
    removed: bool,
    ours_removed: bool,
    /// The operator left it.
    left: bool,
    /// An object of it was deleted; one with `Retain`; one with `Remove`.
    deleted: bool,
    retained: bool,
    under_remove: bool,
    /// `kubectl replace` took a finalizer off, and the object had no record by the last comparison, or was deleted before the
    /// finalizer was back.
    claim_taken_off: bool,
    /// An object of it was removed in the moment of its claim.
    raced: bool,
    /// An object without a claim named it that may join.
    open: bool,
    /// Two objects named it at a time, or one after the other.
    shared: bool,
    /// They asked for a repair, and for none.
    repair: bool,
    report: bool,
}

/// An object that names an edge.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug)]
struct Named {
    policies: Policies,
    claimed: bool,
    /// Whether a missing edge is drift: it has a record, or says that it drifted.
    was_ready: bool,
    /// Whether its finalizer may be off.
    stripped: bool,
    deleted: bool,
}

/// What an object has when all has settled.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Copy, Debug)]
pub struct Settled {
    pub claimed: bool,
    /// Whether it says that the operator joined. That alone excuses nothing.
    pub joined: bool,
    pub was_ready: bool,
    pub finalizer: bool,
}

impl Ledger {
    pub fn new() -> Self {
        let made = |edge| Made {
            by: if was_there(edge) {
                Maker::Others { lately: false }
            } else {
                Maker::Nobody
            },
            may_stay: None,
            mistaken: None,
            theirs_removed: false,
            objects: [None, None],
            births: Vec::new(),
            lately: Lately::default(),
        };
        Self {
            edges: (0..EDGES).map(made).collect(),
            exceptions: BTreeMap::new(),
            own: 0,
            under_remove: 0,
        }
    }

    /// A new object is there that was asked for at this time.
    pub fn created(&mut self, edge: usize, slot: usize, policies: Policies, born: Timestamp) {
        let made = &mut self.edges[edge];
        made.births.push(born);
        made.objects[slot] = Some(Named {
            policies,
            claimed: false,
            was_ready: false,
            stripped: false,
            deleted: false,
        });
        made.note();
    }

    pub fn respecified(&mut self, edge: usize, slot: usize, policies: Policies) {
        let made = &mut self.edges[edge];
        if let Some(object) = &mut made.objects[slot] {
            object.policies = policies;
        }
        made.note();
    }

    pub fn deleted(&mut self, edge: usize, slot: usize) {
        let made = &mut self.edges[edge];
        if let Some(object) = &mut made.objects[slot] {
            object.deleted = true;
            made.lately.claim_taken_off |= object.stripped;
        }
        made.note();
    }

    /// `kubectl replace` has taken finalizer and intent off.
    pub fn replaced(&mut self, edge: usize, slot: usize) {
        let made = &mut self.edges[edge];
        if let Some(object) = &mut made.objects[slot] {
            object.stripped = true;
            made.lately.claim_taken_off |= object.deleted || !object.claimed;
        }
    }

    /// The API server has removed an object in the moment of its claim.
    pub fn raced(&mut self, edge: usize) {
        self.edges[edge].lately.raced = true;
    }

    /// What the journal says next of an edge; a sentence if the rule forbids it.
    pub fn changed(&mut self, edge: usize, change: Change) -> Option<String> {
        let made = &mut self.edges[edge];
        match (change.joins, change.by_operator) {
            (true, true) => {
                made.may_stay = made.repaired_for();
                made.mistaken = None;
                made.by = Maker::Operator;
            }
            (true, false) => {
                (made.may_stay, made.mistaken) = (None, None);
                made.by = Maker::Others { lately: true };
            }
            (false, false) => {
                let taken = made.by == Maker::Operator || made.mistaken.take().is_some();
                let is_ours = made.by == Maker::Operator && made.may_stay.is_none();
                made.lately.removed = true;
                made.lately.ours_removed |= taken;
                let is_named = made.births.iter().any(|born| *born <= change.at);
                made.theirs_removed |= !is_ours && is_named;
                made.by = Maker::Nobody;
            }
            (false, true) => return self.left(edge),
        }
        None
    }

    fn left(&mut self, edge: usize) -> Option<String> {
        let made = &mut self.edges[edge];
        let lately = made.lately;
        let mistaken = made.mistaken_for_its_own();
        made.mistaken = None;
        let by = std::mem::replace(&mut made.by, Maker::Nobody);
        made.lately.left = true;
        let Maker::Others { .. } = by else {
            self.own += 1;
            return None;
        };
        if lately.under_remove {
            self.under_remove += 1;
            return None;
        }
        if let Some(why) = mistaken {
            self.excepted(why);
            return None;
        }
        Some(format!(
            "Leave: the operator removed what others had made: {lately:?}"
        ))
    }

    fn excepted(&mut self, why: Exception) {
        *self.exceptions.entry(why).or_default() += 1;
    }

    /// All has settled, and an edge is as the cloud says. A sentence if the operator has left something behind, or if the journal
    /// tells otherwise.
    pub fn settled(
        &mut self,
        edge: usize,
        member: bool,
        objects: [Option<Settled>; SHARERS],
    ) -> Option<String> {
        let made = &mut self.edges[edge];
        let lately = made.lately;
        if member != (made.by != Maker::Nobody) {
            return Some(format!(
                "the journal says that the edge was made by {:?} last",
                made.by
            ));
        }
        if made.by == Maker::Operator {
            made.may_stay = made.may_stay.or(lately.let_go());
        } else if made.by != Maker::Nobody && objects.iter().flatten().any(|one| one.joined) {
            made.mistaken = made.mistaken_for_its_own();
            if made.mistaken.is_none() {
                return Some(format!(
                    "an object says that the operator joined what others have made: {lately:?}"
                ));
            }
        } else {
            made.mistaken = None;
        }
        let is_last = objects.iter().all(Option::is_none);
        let by = made.by;
        let may_stay = made.may_stay;
        made.rest(objects);
        if !is_last || by != Maker::Operator {
            return None;
        }
        // Told once: from here on it is as if others had made it.
        made.by = Maker::Others { lately: false };
        made.may_stay = None;
        let Some(why) = may_stay else {
            return Some(format!(
                "left behind: the operator joined it, and no object is left: {lately:?}"
            ));
        };
        self.excepted(why);
        None
    }
}

impl Made {
    /// Takes down what its objects ask for now.
    fn note(&mut self) {
        let lately = &mut self.lately;
        for object in self.objects.iter().flatten() {
            let policies = object.policies;
            let repairs = policies.drift == DriftPolicy::Repair;
            lately.repair |= repairs;
            lately.report |= !repairs;
            lately.open |= !object.claimed && (repairs || !object.was_ready);
            if object.deleted {
                lately.deleted = true;
                lately.retained |= policies.deletion == DeletionPolicy::Retain;
                lately.under_remove |= policies.deletion == DeletionPolicy::Remove;
            }
        }
        lately.shared |= self.objects.iter().all(Option::is_some);
    }

    /// Why an edge that the operator joins now may stay when no object names it.
    const fn repaired_for(&self) -> Option<Exception> {
        let lately = self.lately;
        if self.theirs_removed {
            Some(Exception::AdoptedAndRepaired)
        } else if !lately.removed {
            None
        } else if lately.repair && lately.report && lately.shared {
            Some(Exception::MixedDriftPolicies)
        } else if lately.shared {
            Some(Exception::RepairedForAnAdopter)
        } else {
            None
        }
    }

    /// Why the operator may take for its own what others have made.
    const fn mistaken_for_its_own(&self) -> Option<Exception> {
        let lately = self.lately;
        match self.by {
            Maker::Others { lately: true } if lately.ours_removed => Some(Exception::RemadeUnseen),
            Maker::Others { lately: true } if lately.left => Some(Exception::LeaveUnanswered),
            Maker::Others { lately: true } if lately.open => Some(Exception::MadeWhileOpen),
            Maker::Others { .. } | Maker::Operator | Maker::Nobody => self.mistaken,
        }
    }

    /// From one comparison to the next.
    fn rest(&mut self, objects: [Option<Settled>; SHARERS]) {
        for (object, found) in self.objects.iter_mut().zip(objects) {
            let Some(found) = found else {
                *object = None;
                continue;
            };
            if let Some(object) = object {
                (object.claimed, object.was_ready) = (found.claimed, found.was_ready);
                object.stripped = !found.finalizer;
            }
        }
        let is_named = objects.iter().any(Option::is_some);
        self.births.clear();
        self.births.extend(is_named.then_some(Timestamp::MIN));
        self.theirs_removed &= is_named;
        if let Maker::Others { lately } = &mut self.by {
            *lately = false;
        }
        // The operator looks at no suspended object, and has not seen yet that its own is missing.
        let unseen = self.by == Maker::Nobody && objects.iter().flatten().any(|one| one.joined);
        self.lately = Lately {
            removed: unseen && self.lately.removed,
            ours_removed: unseen && self.lately.ours_removed,
            ..Lately::default()
        };
        self.note();
    }
}

impl Lately {
    /// Why what the operator made may have lost its claim since the last comparison.
    const fn let_go(self) -> Option<Exception> {
        if self.retained {
            Some(Exception::Retained)
        } else if self.claim_taken_off {
            Some(Exception::FinalizerTakenOff)
        } else if self.raced {
            Some(Exception::RaceUnseen)
        } else if self.removed && self.deleted {
            Some(Exception::JoinOfAKilledProcess)
        } else {
            None
        }
    }
}

impl fmt::Display for Ledger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let exceptions = Exception::ALL.map(|why| match self.exceptions.get(&why) {
            Some(times) => format!("{why:?} {times}"),
            None => format!("{why:?} never happened"),
        });
        write!(
            f,
            "Leaves of the operator's own {}, of others' under Remove {}; exceptions: {}",
            self.own,
            self.under_remove,
            exceptions.join(", ")
        )
    }
}

#[cfg(test)]
mod tests {
    use security_group_operator::api::membership::AdoptionPolicy;

    use super::*;

    const DEFAULTS: Policies = Policies {
        adoption: AdoptionPolicy::Adopt,
        deletion: DeletionPolicy::RemoveIfJoined,
        drift: DriftPolicy::Repair,
    };
    const CLAIMED: [Option<Settled>; SHARERS] = [
        Some(Settled {
            claimed: true,
            joined: false,
            was_ready: true,
            finalizer: true,
        }),
        None,
    ];
    const GONE: [Option<Settled>; SHARERS] = [None, None];
    /// An edge that nobody has made.
    const EDGE: usize = 1;

    fn change(ledger: &mut Ledger, by: &str, what: &str) -> Option<String> {
        let change = Change {
            at: Timestamp::MAX,
            by_operator: by == "operator",
            joins: what == "join",
        };
        ledger.changed(EDGE, change)
    }

    /// An edge that the operator has joined for one object, or that was others' before it.
    fn held(by: &str) -> Ledger {
        let mut ledger = Ledger::new();
        assert_eq!(change(&mut ledger, by, "join"), None);
        assert_eq!(ledger.settled(EDGE, true, GONE).is_some(), by == "operator");
        let mut ledger = Ledger::new();
        ledger.created(EDGE, 0, DEFAULTS, Timestamp::MIN);
        change(&mut ledger, by, "join");
        assert_eq!(ledger.settled(EDGE, true, CLAIMED), None);
        ledger
    }

    #[test]
    fn operator_may_leave_its_own_and_nothing_that_others_have_made() {
        let mut own = held("operator");
        own.deleted(EDGE, 0);
        assert_eq!(change(&mut own, "operator", "leave"), None);
        assert_eq!(own.settled(EDGE, false, GONE), None);
        let mut others = held("admin");
        others.deleted(EDGE, 0);
        assert!(change(&mut others, "operator", "leave").is_some());
    }

    #[test]
    fn remove_covers_what_others_have_made() {
        let mut ledger = held("admin");
        let policies = Policies {
            deletion: DeletionPolicy::Remove,
            ..DEFAULTS
        };
        ledger.respecified(EDGE, 0, policies);
        ledger.deleted(EDGE, 0);
        assert_eq!(change(&mut ledger, "operator", "leave"), None);
        assert!(ledger.exceptions.is_empty());
    }

    #[test]
    fn own_edge_that_stays_without_an_object_is_left_behind_but_under_retain() {
        let mut ledger = held("operator");
        ledger.deleted(EDGE, 0);
        assert!(ledger.settled(EDGE, true, GONE).is_some());
        let mut ledger = held("operator");
        let policies = Policies {
            deletion: DeletionPolicy::Retain,
            ..DEFAULTS
        };
        ledger.respecified(EDGE, 0, policies);
        ledger.deleted(EDGE, 0);
        assert_eq!(ledger.settled(EDGE, true, GONE), None);
        assert_eq!(ledger.exceptions.get(&Exception::Retained), Some(&1));
        assert!(change(&mut ledger, "operator", "leave").is_some());
    }

    #[test]
    fn what_others_made_again_is_theirs_once_everything_has_settled() {
        let mut ledger = held("operator");
        change(&mut ledger, "admin", "leave");
        change(&mut ledger, "admin", "join");
        let mut unseen = Ledger {
            edges: ledger.edges.clone(),
            ..Ledger::new()
        };
        assert_eq!(change(&mut unseen, "operator", "leave"), None);
        assert_eq!(unseen.exceptions.get(&Exception::RemadeUnseen), Some(&1));
        assert_eq!(ledger.settled(EDGE, true, CLAIMED), None);
        ledger.deleted(EDGE, 0);
        assert!(change(&mut ledger, "operator", "leave").is_some());
    }

    #[test]
    fn what_others_made_while_a_claim_was_open_may_be_taken_for_the_operators_own() {
        let mut joined = CLAIMED;
        joined[0].as_mut().unwrap().joined = true;
        let mut ledger = Ledger::new();
        ledger.created(EDGE, 0, DEFAULTS, Timestamp::MIN);
        change(&mut ledger, "admin", "join");
        assert_eq!(ledger.settled(EDGE, true, joined), None);
        assert_eq!(ledger.settled(EDGE, true, joined), None);
        ledger.deleted(EDGE, 0);
        assert_eq!(change(&mut ledger, "operator", "leave"), None);
        assert_eq!(ledger.exceptions.get(&Exception::MadeWhileOpen), Some(&1));
        // What was there before the claim is no such thing.
        let mut others = held("admin");
        assert!(others.settled(EDGE, true, joined).is_some());
    }

    #[test]
    fn adopted_edge_that_the_operator_repaired_may_stay() {
        let mut ledger = held("admin");
        change(&mut ledger, "admin", "leave");
        change(&mut ledger, "operator", "join");
        assert_eq!(ledger.settled(EDGE, true, CLAIMED), None);
        ledger.deleted(EDGE, 0);
        assert_eq!(ledger.settled(EDGE, true, GONE), None);
        assert_eq!(
            ledger.exceptions.get(&Exception::AdoptedAndRepaired),
            Some(&1)
        );
    }

    #[test]
    fn journal_and_cloud_must_say_the_same() {
        let mut ledger = held("operator");
        assert!(ledger.settled(EDGE, false, CLAIMED).is_some());
    }
}
