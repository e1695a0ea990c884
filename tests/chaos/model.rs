//! What an edge may have come to: every state that the promises allow, whenever the operator did what, was killed, or looked.
//! Pure; written from the promises, not from the operator's code.
//!
//! An act of a user is certain; when the operator acts in between is not. So the model keeps the *set* of states that the
//! edge can be in: each act moves all of them, and each step that the operator may take adds one. A comparison must find one
//! of them, and goes on from it alone. What only an error could bring about is in no set.

use std::collections::HashSet;

use security_group_operator::api::membership::{
    AdoptionPolicy, DeletionPolicy, DriftPolicy, Origin,
};

/// Objects that may name one edge.
pub const SHARERS: usize = 2;

/// An edge in one of its possible states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub member: bool,
    /// Whether the operator joined it and somebody must therefore leave it.
    owed: bool,
    /// Whether a read of the cloud since the last comparison may have shown a member, and whether one may have shown none.
    shown: Shown,
    /// Whether a Leave was sent since the last comparison that may take effect once more, and late.
    left: bool,
    pub objects: [Object; SHARERS],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shown {
    member: bool,
    missing: bool,
}

/// An object that may name the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Object {
    Absent,
    Live(Option<Origin>),
    /// Being deleted; with its claim, and whether Leave was accepted for it.
    Going(Origin, bool),
}

/// What users have asked of an object. Passes that run may go by what was asked before, so what was asked since the last
/// comparison (of a deletion: since the object is deleted) all counts.
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
#[derive(Clone, Debug)]
pub struct DesiredObject {
    adoption: Vec<AdoptionPolicy>,
    deletion: Vec<DeletionPolicy>,
    drift: Vec<DriftPolicy>,
    pub suspended: bool,
    /// Suspended for so long that no pass runs any more.
    frozen: bool,
    /// Whether it had a claim at the last comparison: its next Join is not its first.
    claimed: bool,
    /// Whether it has a record, or its status says that it drifted, by the last comparison: a missing edge is then drift.
    was_ready: bool,
    /// Whether its finalizer may be off: `kubectl replace` took it.
    stripped: bool,
    /// Whether it may have the finalizer of the object that it was copied from, and no claim.
    copied: bool,
    born: u32,
    deleted: Option<u32>,
}

/// The policies of an object.
#[derive(Clone, Copy, Debug)]
pub struct Policies {
    pub adoption: AdoptionPolicy,
    pub deletion: DeletionPolicy,
    pub drift: DriftPolicy,
}

/// One edge, its possible states, and what is asked of its objects.
#[derive(Debug)]
pub struct Edge {
    pub states: HashSet<State>,
    desired: [Option<DesiredObject>; SHARERS],
    /// Whether calls without an answer may take effect late, since the last comparison.
    late: bool,
    now: u32,
}

impl Edge {
    pub fn new(member: bool) -> Self {
        let state = State {
            member,
            owed: false,
            shown: Shown {
                member,
                missing: !member,
            },
            left: false,
            objects: [Object::Absent; SHARERS],
        };
        Self {
            states: HashSet::from([state]),
            desired: [None, None],
            late: false,
            now: 0,
        }
    }

    /// A new object is there: whatever had its name has gone. A copy has the finalizer of another object.
    pub fn created(&mut self, slot: usize, policies: Policies, copied: bool) {
        self.now += 1;
        let absent = |state: &State| state.objects[slot] == Object::Absent;
        self.states.retain(absent);
        self.desired[slot] = Some(DesiredObject {
            adoption: vec![policies.adoption],
            deletion: vec![policies.deletion],
            drift: vec![policies.drift],
            suspended: false,
            frozen: false,
            claimed: false,
            was_ready: false,
            stripped: false,
            copied,
            born: self.now,
            deleted: None,
        });
        self.happens(|state| state.objects[slot] = Object::Live(None));
    }

    /// The deletion of an object was asked for. One without a claim has no finalizer, unless it is a copy.
    pub fn deleted(&mut self, slot: usize) {
        self.now += 1;
        let now = self.now;
        if let Some(desired) = &mut self.desired[slot]
            && desired.deleted.is_none()
        {
            desired.deleted = Some(now);
            desired.deletion.drain(..desired.deletion.len() - 1);
        }
        if self.desired[slot].as_ref().is_some_and(|one| one.stripped) {
            let gone = self
                .states
                .iter()
                .map(|state| with(*state, slot, Object::Absent));
            let gone: Vec<State> = gone.collect();
            self.states.extend(gone);
        }
        // What has a finalizer and no claim goes like one that has adopted: `Remove` removes whatever is there.
        if self.desired[slot].as_ref().is_some_and(|one| one.copied) {
            let held = self.states.iter().filter_map(|state| {
                let is_unclaimed = state.objects[slot] == Object::Live(None);
                is_unclaimed.then(|| with(*state, slot, Object::Going(Origin::Adopted, false)))
            });
            let held: Vec<State> = held.collect();
            self.states.extend(held);
        }
        self.happens(|state| {
            let object = &mut state.objects[slot];
            *object = match *object {
                Object::Live(None) | Object::Absent => Object::Absent,
                Object::Live(Some(origin)) => Object::Going(origin, false),
                Object::Going(origin, left) => Object::Going(origin, left),
            };
        });
    }

    pub fn respecified(&mut self, slot: usize, policies: Policies) {
        if let Some(desired) = &mut self.desired[slot] {
            desired.adoption.push(policies.adoption);
            desired.deletion.push(policies.deletion);
            desired.drift.push(policies.drift);
        }
        self.happens(|_| {});
    }

    /// `kubectl replace` took finalizer and intent off; an object that is being deleted goes with them.
    pub fn replaced(&mut self, slot: usize, policies: Policies) {
        let without_claim = |state: &State| {
            let object = match state.objects[slot] {
                Object::Live(_) => Object::Live(None),
                Object::Going(..) | Object::Absent => Object::Absent,
            };
            with(*state, slot, object)
        };
        let without: Vec<State> = self.states.iter().map(without_claim).collect();
        self.states
            .retain(|state| !matches!(state.objects[slot], Object::Going(..)));
        self.states.extend(without);
        if let Some(desired) = &mut self.desired[slot] {
            desired.stripped = true;
        }
        self.respecified(slot, policies);
    }

    pub fn suspended(&mut self, slot: usize, suspended: bool) {
        if let Some(desired) = &mut self.desired[slot] {
            desired.suspended = suspended;
            desired.frozen &= suspended;
        }
        self.happens(|_| {});
    }

    /// From here on calls without an answer may take effect late.
    pub fn expect_late_effects(&mut self) {
        self.late = true;
        self.happens(|_| {});
    }

    /// Somebody else joined or left.
    pub fn foreign_change(&mut self, member: bool) {
        self.happens(|state| {
            if state.member != member {
                state.owed = false;
            }
            state.member = member;
            state.shown.member |= member;
            state.shown.missing |= !member;
        });
    }

    /// Whether this is one of the states that may be; from here on it is the only one. `ready` says which objects have been
    /// Ready once.
    pub fn compare(
        &mut self,
        member: bool,
        objects: [Object; SHARERS],
        ready: [bool; SHARERS],
    ) -> bool {
        let same = |found: Object, known: Object| match (found, known) {
            (Object::Going(found, _), Object::Going(known, _)) => found == known,
            (found, known) => found == known,
        };
        self.states.retain(|state| {
            let mut pairs = objects.into_iter().zip(state.objects);
            state.member == member && pairs.all(|(found, known)| same(found, known))
        });
        self.states = self
            .states
            .drain()
            .map(|state| State {
                shown: Shown {
                    member,
                    missing: !member,
                },
                left: false,
                ..state
            })
            .collect();
        for slot in 0..SHARERS {
            match objects[slot] {
                Object::Absent => self.desired[slot] = None,
                Object::Live(claim) => self.settle(slot, claim.is_some(), ready[slot]),
                Object::Going(..) => self.settle(slot, true, ready[slot]),
            }
        }
        self.late = false;
        let allowed = !self.states.is_empty();
        // What has settled may still go on: one whose adoption was refused may find the edge shared at its next look.
        self.happens(|_| {});
        allowed
    }

    fn settle(&mut self, slot: usize, claimed: bool, was_ready: bool) {
        let Some(desired) = &mut self.desired[slot] else {
            return;
        };
        desired.adoption.drain(..desired.adoption.len() - 1);
        desired.deletion.drain(..desired.deletion.len() - 1);
        desired.drift.drain(..desired.drift.len() - 1);
        desired.frozen = desired.suspended;
        desired.stripped &= desired.suspended;
        desired.claimed = claimed;
        desired.was_ready = was_ready;
    }

    /// An act moves every state, and the operator may then go on from each.
    fn happens(&mut self, act: impl Fn(&mut State)) {
        let mut open: Vec<State> = self.states.drain().collect();
        for state in &mut open {
            act(state);
        }
        while let Some(state) = open.pop() {
            if self.states.insert(state) {
                for slot in 0..SHARERS {
                    open.extend(self.steps(state, slot));
                }
                if self.late && state.left && state.member {
                    open.push(removed(state));
                }
            }
        }
    }

    /// What the operator may do next for one object.
    fn steps(&self, state: State, slot: usize) -> Vec<State> {
        let Some(desired) = self.desired[slot]
            .as_ref()
            .filter(|desired| !desired.frozen)
        else {
            return Vec::new();
        };
        match state.objects[slot] {
            Object::Absent => Vec::new(),
            Object::Live(None) => first_claims(state, slot, desired),
            Object::Live(Some(origin)) => calls(state, slot, desired, origin, Object::Live),
            Object::Going(origin, left) => {
                // A pass that began before the deletion goes on.
                let going = |claim: Option<Origin>| {
                    claim.map_or(Object::Absent, |claim| Object::Going(claim, false))
                };
                let mut next = Vec::new();
                if !left {
                    next = calls(state, slot, desired, origin, going);
                }
                next.extend(self.partings(state, slot, desired, origin, left));
                next
            }
        }
    }

    /// The ways in which an object that is deleted goes on.
    fn partings(
        &self,
        state: State,
        slot: usize,
        desired: &DesiredObject,
        origin: Origin,
        left: bool,
    ) -> Vec<State> {
        let mut next = Vec::new();
        let other = 1 - slot;
        let deleted = desired.deleted.unwrap_or_default();
        let other_desired = self.desired[other].as_ref();
        // Who was there before the deletion is known; who came later may be, and who went later may be thought to be there.
        let (surely, perhaps) = match state.objects[other] {
            Object::Absent => (false, false),
            // Who has no claim and refuses to adopt takes nothing over.
            Object::Live(claim) => (
                other_desired.is_some_and(|other| {
                    let refuses = other.adoption.contains(&AdoptionPolicy::Refuse);
                    other.born < deleted && (claim.is_some() || !refuses)
                }),
                true,
            ),
            Object::Going(..) => (
                false,
                other_desired.is_some_and(|other| other.deleted.is_some_and(|at| at > deleted)),
            ),
        };
        let joined_elsewhere = matches!(
            state.objects[other],
            Object::Live(Some(Origin::Joined)) | Object::Going(Origin::Joined, _)
        );
        let has = |policy| desired.deletion.contains(&policy);
        let by_origin = has(DeletionPolicy::RemoveIfJoined);
        if perhaps && origin == Origin::Joined && !joined_elsewhere {
            let successor = match state.objects[other] {
                Object::Going(_, left) => Object::Going(Origin::Joined, left),
                Object::Live(_) | Object::Absent => Object::Live(Some(Origin::Joined)),
            };
            next.push(with(state, other, successor));
        }
        if perhaps && (origin == Origin::Adopted || joined_elsewhere) {
            next.push(with(state, slot, Object::Absent));
        }
        if !surely && (has(DeletionPolicy::Remove) || by_origin && origin == Origin::Joined) {
            let mut gone = removed(with(state, slot, Object::Going(origin, true)));
            gone.left = true;
            next.push(gone);
        }
        // A read showed that nothing of ours is there.
        let nothing_ours = origin == Origin::Joined && state.shown.missing && !state.owed;
        if left || by_origin && nothing_ours {
            next.push(with(state, slot, Object::Absent));
        }
        let retained =
            has(DeletionPolicy::Retain) || !surely && by_origin && origin == Origin::Adopted;
        if retained {
            let mut kept = with(state, slot, Object::Absent);
            kept.owed &= joined_elsewhere;
            next.push(kept);
        }
        next
    }
}

/// The claim goes by what was there before the first call.
fn first_claims(state: State, slot: usize, desired: &DesiredObject) -> Vec<State> {
    let mut next = Vec::new();
    let repairs = desired.drift.contains(&DriftPolicy::Repair) || !desired.was_ready;
    if state.shown.missing && repairs {
        next.push(with(state, slot, Object::Live(Some(Origin::Joined))));
    }
    if state.shown.member && may_adopt(state, slot, desired) {
        next.push(with(state, slot, Object::Live(Some(Origin::Adopted))));
    }
    next
}

/// Join, and the correction of a claim when somebody else was faster. `as_found` makes the object of a claim.
fn calls(
    state: State,
    slot: usize,
    desired: &DesiredObject,
    origin: Origin,
    as_found: impl Fn(Option<Origin>) -> Object,
) -> Vec<State> {
    let mut next = Vec::new();
    if !state.member && (desired.drift.contains(&DriftPolicy::Repair) || !desired.was_ready) {
        let mut joined = state;
        (joined.member, joined.owed, joined.shown.member) = (true, origin == Origin::Joined, true);
        next.push(joined);
    }
    // What is there after a read that showed none was made by another actor.
    let seen_anew = !desired.claimed || state.shown.missing;
    let mistaken = origin == Origin::Joined && state.member && !state.owed && seen_anew;
    if mistaken && may_adopt(state, slot, desired) {
        next.push(with(state, slot, as_found(Some(Origin::Adopted))));
    }
    if mistaken && desired.adoption.contains(&AdoptionPolicy::Refuse) {
        next.push(with(state, slot, as_found(None)));
    }
    // A claim on what is gone goes before the drift is told.
    let told = origin == Origin::Joined && desired.drift.contains(&DriftPolicy::Report);
    if told && state.shown.missing && !state.owed {
        next.push(with(state, slot, as_found(None)));
    }
    next
}

/// An edge that another object holds is shared, not foreign.
fn may_adopt(state: State, slot: usize, desired: &DesiredObject) -> bool {
    let claimed_elsewhere = matches!(
        state.objects[1 - slot],
        Object::Live(Some(_)) | Object::Going(..)
    );
    desired.adoption.contains(&AdoptionPolicy::Adopt) || claimed_elsewhere
}

const fn removed(mut state: State) -> State {
    (state.member, state.owed, state.shown.missing) = (false, false, true);
    state
}

fn with(mut state: State, slot: usize, object: Object) -> State {
    state.objects[slot] = object;
    state
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULTS: Policies = Policies {
        adoption: AdoptionPolicy::Adopt,
        deletion: DeletionPolicy::RemoveIfJoined,
        drift: DriftPolicy::Repair,
    };
    const ABSENT: [Object; SHARERS] = [Object::Absent; SHARERS];
    const JOINED: Object = Object::Live(Some(Origin::Joined));
    const ADOPTED: Object = Object::Live(Some(Origin::Adopted));

    fn allows(edge: &Edge, member: bool, objects: [Object; SHARERS]) -> bool {
        let states = edge.states.clone();
        Edge {
            states,
            desired: edge.desired.clone(),
            late: edge.late,
            now: edge.now,
        }
        .compare(member, objects, [true; SHARERS])
    }

    #[test]
    fn joined_edge_must_be_left_with_its_object() {
        let mut edge = Edge::new(false);
        edge.created(0, DEFAULTS, false);
        assert!(allows(&edge, true, [JOINED, Object::Absent]));
        assert!(!allows(&edge, true, [ADOPTED, Object::Absent]));
        edge.deleted(0);
        assert!(allows(&edge, false, ABSENT));
        assert!(!allows(&edge, true, ABSENT));
    }

    #[test]
    fn adopted_edge_must_stay_unless_policy_removes_it() {
        let mut edge = Edge::new(true);
        edge.created(0, DEFAULTS, false);
        assert!(!allows(&edge, true, [JOINED, Object::Absent]));
        assert!(edge.compare(true, [ADOPTED, Object::Absent], [true, false]));
        edge.deleted(0);
        assert!(allows(&edge, true, ABSENT));
        assert!(!allows(&edge, false, ABSENT));
        edge.created(
            0,
            Policies {
                deletion: DeletionPolicy::Remove,
                ..DEFAULTS
            },
            false,
        );
        edge.deleted(0);
        assert!(allows(&edge, false, ABSENT));
    }

    #[test]
    fn shared_edge_is_left_with_its_last_object() {
        let mut edge = Edge::new(false);
        edge.created(0, DEFAULTS, false);
        assert!(edge.compare(true, [JOINED, Object::Absent], [true, false]));
        edge.created(1, DEFAULTS, false);
        assert!(edge.compare(true, [JOINED, ADOPTED], [true; SHARERS]));
        edge.deleted(0);
        assert!(!allows(&edge, true, [Object::Absent, ADOPTED]));
        assert!(edge.compare(true, [Object::Absent, JOINED], [true; SHARERS]));
        edge.deleted(1);
        assert!(allows(&edge, false, ABSENT));
        assert!(!allows(&edge, true, ABSENT));
    }

    #[test]
    fn refused_adoption_may_later_become_shared() {
        let mut edge = Edge::new(true);
        edge.created(0, DEFAULTS, false);
        edge.created(
            1,
            Policies {
                adoption: AdoptionPolicy::Refuse,
                ..DEFAULTS
            },
            false,
        );
        let refused = [ADOPTED, Object::Live(None)];
        assert!(edge.compare(true, refused, [true, false]));
        assert!(allows(&edge, true, refused));
        assert!(allows(&edge, true, [ADOPTED, ADOPTED]));
    }

    /// Others join after a copy with another object's finalizer was deleted, and before the operator lets it go.
    #[test]
    fn copy_that_goes_removes_others_only_if_it_says_so() {
        for (deletion, copied, may_be_removed) in [
            (DeletionPolicy::Remove, true, true),
            (DeletionPolicy::Remove, false, false),
            (DeletionPolicy::RemoveIfJoined, true, false),
        ] {
            let policies = Policies {
                adoption: AdoptionPolicy::Refuse,
                deletion,
                ..DEFAULTS
            };
            let mut edge = Edge::new(true);
            edge.created(0, policies, copied);
            edge.deleted(0);
            assert!(allows(&edge, true, ABSENT), "{deletion:?} {copied}");
            assert_eq!(
                allows(&edge, false, ABSENT),
                may_be_removed,
                "{deletion:?} {copied}"
            );
        }
    }

    #[test]
    fn edge_that_was_told_missing_is_anothers_when_it_is_back() {
        let mut edge = Edge::new(false);
        let report = Policies {
            drift: DriftPolicy::Report,
            ..DEFAULTS
        };
        edge.created(0, report, false);
        assert!(edge.compare(true, [JOINED, Object::Absent], [true, false]));
        edge.foreign_change(false);
        let told = [Object::Live(None), Object::Absent];
        assert!(edge.compare(false, told, [true, false]));
        assert!(!allows(&edge, false, [JOINED, Object::Absent]));
        assert!(!allows(&edge, true, [JOINED, Object::Absent]));
        edge.foreign_change(true);
        assert!(edge.compare(true, [ADOPTED, Object::Absent], [true, false]));
        edge.deleted(0);
        assert!(allows(&edge, true, ABSENT));
        assert!(!allows(&edge, false, ABSENT));
    }

    #[test]
    fn paused_or_reported_edge_is_not_changed() {
        let mut edge = Edge::new(false);
        edge.created(
            0,
            Policies {
                drift: DriftPolicy::Report,
                ..DEFAULTS
            },
            false,
        );
        assert!(edge.compare(true, [JOINED, Object::Absent], [true, false]));
        edge.foreign_change(false);
        assert!(!allows(&edge, true, [JOINED, Object::Absent]));
        assert!(allows(&edge, false, [Object::Live(None), Object::Absent]));
        edge.suspended(0, true);
        assert!(edge.compare(false, [JOINED, Object::Absent], [true, false]));
        edge.deleted(0);
        assert!(!allows(&edge, false, ABSENT));
        edge.suspended(0, false);
        assert!(allows(&edge, false, ABSENT));
    }
}
