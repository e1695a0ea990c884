//! What to do next, from what is desired and what was observed. Pure: no I/O, no clock, no randomness, at most one effect a step.
//!
//! A pass calls [`decide`], does the step, adds what it learned to [`Observed`], and asks again, until the answer is
//! [`Step::Finish`]. Everything that keeps the promises of the project is in this file: never leave what was not joined, never
//! evict another object's edge, claim before the call, no call while the target is between states.

use crate::api::membership::{
    AdoptionPolicy, DeletionPolicy, DriftPolicy, ManagementPolicy, Origin,
};
use crate::ecs::Class;

/// Repairs of one edge in [`REPAIR_WINDOW_MINUTES`] after which it counts as undone again and again.
pub const REPAIR_LIMIT: usize = 3;
/// Minutes over which repairs are counted.
pub const REPAIR_WINDOW_MINUTES: u64 = 30;

/// What the object asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// Whether `spec.suspend` is set.
    pub suspended: bool,
    /// Whether the operator may write to the cloud.
    pub management: ManagementPolicy,
    /// What to do with an edge that was there before.
    pub adoption: AdoptionPolicy,
    /// What to do with the edge on deletion.
    pub deletion: DeletionPolicy,
    /// What to do when somebody else removes the edge.
    pub drift: DriftPolicy,
}

/// What is known, from memory, from the object, and from this pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// The account, as far as this object may use it.
    pub account: Access,
    /// Who made the edge, if the object carries a claim.
    pub claim: Option<ClaimView>,
    /// The target, as far as this pass has read it.
    pub target: TargetView,
    /// The other live objects that name this edge.
    pub sharing: Sharing,
    /// The call that this pass has made, if any.
    pub attempt: Attempt,
    /// Whether the object was Ready before: a missing edge is then drift.
    pub was_ready: bool,
    /// Whether Leave has been answered with 403 for at least `CLOUD_READ_LAG` (10 s), so that a read of this pass shows the
    /// effect of our own Join. Set by `Pass::leave` after each 403; false before the first one.
    pub leave_forbidden_past_lag: bool,
    /// Repairs of this edge in the last [`REPAIR_WINDOW_MINUTES`], this pass's own not counted.
    pub repairs: usize,
    /// Whether every membership and account has been observed since the start: no Leave before.
    pub synced: bool,
}

/// The account from this object's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Not looked at yet (the object is enqueued when that changes).
    Checking,
    /// No object of that name.
    Missing,
    /// Not usable; `stalled` when somebody must act.
    NotReady {
        /// Whether somebody must act.
        stalled: bool,
    },
    /// Usable, but it is another cloud account than the one that the claim was made with.
    Changed,
    /// Usable, but not granted to this namespace and group.
    NotGranted,
    /// Usable.
    Usable,
}

/// A claim on the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClaimView {
    /// Who made the edge.
    pub origin: Origin,
    /// Whether no call under it can have had an effect yet: this very pass wrote it, or whatever was called since was refused.
    pub untested: bool,
}

/// The target as this pass has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetView {
    /// Not read in this pass, or read before something changed.
    Unread,
    /// The read failed.
    Unreadable(Class),
    /// A complete answer does not list it.
    Absent,
    /// Listed.
    Present {
        /// Whether it is a member of the group.
        member: bool,
        /// Whether it is between states.
        transitional: bool,
    },
}

/// Other live, managing objects on the same edge of the same cloud account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sharing {
    /// Whether there is one at all.
    pub others: bool,
    /// Whether one of them carries the claim `Joined`.
    pub joined_elsewhere: bool,
    /// Whether one of them carries any claim.
    pub claimed_elsewhere: bool,
}

/// The call of this pass and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// No call yet.
    None,
    /// Join was accepted.
    Joined,
    /// Join found the edge there already.
    AlreadyMember,
    /// Leave was accepted, or there is nothing left to leave.
    Left,
    /// The call was refused or failed; `forbidden` for HTTP 403, which may hide that the edge is gone.
    Failed {
        /// Class of the error.
        class: Class,
        /// Whether it was HTTP 403 on Leave.
        forbidden: bool,
    },
    /// The claim was given to another object.
    OwnershipTransferred,
    /// The claim and the finalizer are gone.
    Released,
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Describe the target.
    Read,
    /// Write finalizer and claim.
    Claim(Origin),
    /// Call `JoinSecurityGroup`.
    Join,
    /// Call `LeaveSecurityGroup`.
    Leave,
    /// Write the claim `Joined` to the oldest other object.
    TransferOwnership,
    /// Take finalizer and claim away.
    Release(Release),
    /// Nothing more in this pass.
    Finish(ReconcileOutcome),
}

/// Why finalizer and claim go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// The group was left, or there was nothing left to leave.
    Left,
    /// The policy, or the origin of the edge, keeps it.
    Retained,
    /// Nothing was ever made under the claim, so that there is nothing to leave.
    NeverJoined,
    /// Another live object keeps it.
    Shared,
    /// The claim was wrong: somebody else was faster, and adoption is refused.
    Refused,
}

/// Where a pass ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReconcileOutcome {
    /// Nothing can be said yet (the object is enqueued when that changes).
    Undecided,
    /// Nothing of ours is left on a deleted object.
    Gone,
    /// The edge is as desired.
    Ready {
        /// Who made it; none for an observed one.
        origin: Option<Origin>,
        /// Whether another object joined it.
        shared: bool,
        /// Whether this pass put it back.
        repaired: bool,
    },
    /// Suspended by `spec.suspend`.
    Suspended,
    /// The target is between states.
    Waiting,
    /// Observe: the edge is missing, and would be joined.
    WouldJoin,
    /// The edge was there before, and adoption is refused.
    AdoptionRefused,
    /// The edge was removed by somebody else, and is only reported.
    DriftReported,
    /// The edge was removed again and again.
    RepairLoop,
    /// The cloud does not list the target.
    Absent,
    /// The account cannot be used; see [`Observed::account`].
    AccountUnusable,
    /// A read or a call ended with this class.
    Failed(Class),
}

/// The next step.
#[must_use]
pub fn decide(desired: &Desired, observed: &Observed) -> Step {
    if desired.deleting {
        decide_deletion(desired, observed)
    } else {
        decide_life(desired, observed)
    }
}

fn decide_life(desired: &Desired, observed: &Observed) -> Step {
    if desired.suspended {
        return Step::Finish(ReconcileOutcome::Suspended);
    }
    if let Some(outcome) = account_outcome(observed.account) {
        return Step::Finish(outcome);
    }
    match observed.attempt {
        Attempt::None | Attempt::OwnershipTransferred => decide_by_target(desired, observed),
        Attempt::Joined => Step::Finish(ready(desired, observed)),
        Attempt::AlreadyMember => decide_already_member(desired, observed),
        Attempt::Failed { class, .. } => Step::Finish(ReconcileOutcome::Failed(class)),
        Attempt::Released => Step::Finish(ReconcileOutcome::AdoptionRefused),
        // Only a deletion leaves; the deletion of a live object is observed by its next pass.
        Attempt::Left => Step::Finish(ReconcileOutcome::Undecided),
    }
}

fn decide_by_target(desired: &Desired, observed: &Observed) -> Step {
    match observed.target {
        TargetView::Unread => Step::Read,
        TargetView::Unreadable(class) => Step::Finish(ReconcileOutcome::Failed(class)),
        TargetView::Absent => Step::Finish(ReconcileOutcome::Absent),
        TargetView::Present { member: true, .. } => decide_member(desired, observed),
        TargetView::Present {
            member: false,
            transitional,
        } => decide_missing(desired, observed, transitional),
    }
}

/// The edge is there.
fn decide_member(desired: &Desired, observed: &Observed) -> Step {
    match desired.management {
        ManagementPolicy::Observe => Step::Finish(ready(desired, observed)),
        // Every Join under the claim was refused: somebody else has made the edge since.
        ManagementPolicy::Manage if observed.claim.is_none() || is_untested(observed) => {
            adopt(desired, observed)
        }
        ManagementPolicy::Manage => Step::Finish(ready(desired, observed)),
    }
}

/// The edge is there, and this object did not make it.
fn adopt(desired: &Desired, observed: &Observed) -> Step {
    // An edge that another object holds is shared, not foreign: `Refuse` speaks of edges from outside.
    match (desired.adoption, observed.sharing.claimed_elsewhere) {
        (AdoptionPolicy::Refuse, false) => match observed.claim {
            Some(_) => Step::Release(Release::Refused),
            None => Step::Finish(ReconcileOutcome::AdoptionRefused),
        },
        (AdoptionPolicy::Refuse, true) | (AdoptionPolicy::Adopt, _) => Step::Claim(Origin::Adopted),
    }
}

/// The edge is not there.
fn decide_missing(desired: &Desired, observed: &Observed, transitional: bool) -> Step {
    if desired.management == ManagementPolicy::Observe {
        return Step::Finish(ReconcileOutcome::WouldJoin);
    }
    if observed.was_ready {
        match desired.drift {
            DriftPolicy::Report => return Step::Finish(ReconcileOutcome::DriftReported),
            DriftPolicy::Repair if observed.repairs >= REPAIR_LIMIT => {
                return Step::Finish(ReconcileOutcome::RepairLoop);
            }
            DriftPolicy::Repair => {}
        }
    }
    if transitional {
        return Step::Finish(ReconcileOutcome::Waiting);
    }
    match observed.claim {
        None => Step::Claim(Origin::Joined),
        Some(_) => Step::Join,
    }
}

/// Join answered that the edge is there already.
fn decide_already_member(desired: &Desired, observed: &Observed) -> Step {
    if is_untested(observed) {
        // This was the first call under the claim that was not refused: somebody else was faster, or the read lagged.
        adopt(desired, observed)
    } else {
        // A call whose answer was lost was ours.
        Step::Finish(ready(desired, observed))
    }
}

/// Whether the object carries the claim `Joined`, and nothing can have been joined under it.
fn is_untested(observed: &Observed) -> bool {
    observed.claim
        == Some(ClaimView {
            origin: Origin::Joined,
            untested: true,
        })
}

fn ready(desired: &Desired, observed: &Observed) -> ReconcileOutcome {
    let origin = match desired.management {
        ManagementPolicy::Manage => observed.claim.map(|claim| claim.origin),
        ManagementPolicy::Observe => None,
    };
    ReconcileOutcome::Ready {
        origin,
        shared: origin == Some(Origin::Adopted) && observed.sharing.joined_elsewhere,
        repaired: observed.was_ready && observed.attempt == Attempt::Joined,
    }
}

fn decide_deletion(desired: &Desired, observed: &Observed) -> Step {
    if observed.attempt == Attempt::Released || observed.claim.is_none() {
        return Step::Finish(ReconcileOutcome::Gone);
    }
    if desired.suspended {
        return Step::Finish(ReconcileOutcome::Suspended);
    }
    if is_untested(observed) {
        return Step::Release(Release::NeverJoined);
    }
    let joined = observed
        .claim
        .is_some_and(|claim| claim.origin == Origin::Joined);
    // The siblings of an edge are known only when everything has been listed once. `Retain` does not need them: it is the
    // way out that always works.
    if !observed.synced && desired.deletion != DeletionPolicy::Retain {
        return Step::Finish(ReconcileOutcome::Undecided);
    }
    // Ownership belongs to the edge: the last object on it removes what was joined.
    if joined
        && observed.sharing.others
        && !observed.sharing.joined_elsewhere
        && observed.attempt != Attempt::OwnershipTransferred
    {
        return Step::TransferOwnership;
    }
    if observed.sharing.others {
        return Step::Release(Release::Shared);
    }
    if !leaves(desired, joined) {
        return Step::Release(Release::Retained);
    }
    if let Some(outcome) = account_outcome(observed.account) {
        return Step::Finish(outcome);
    }
    decide_leave(observed)
}

/// Whether the deletion of this object leaves the group.
const fn leaves(desired: &Desired, joined: bool) -> bool {
    match (desired.management, desired.deletion) {
        (ManagementPolicy::Observe, _) | (ManagementPolicy::Manage, DeletionPolicy::Retain) => {
            false
        }
        (ManagementPolicy::Manage, DeletionPolicy::Remove) => true,
        (ManagementPolicy::Manage, DeletionPolicy::RemoveIfJoined) => joined,
    }
}

fn decide_leave(observed: &Observed) -> Step {
    match (observed.attempt, observed.target) {
        (Attempt::Left, _) => Step::Release(Release::Left),
        // A 403 may hide that the edge is gone: look once more. A read that may lag behind our own Join proves nothing.
        (
            Attempt::Failed {
                forbidden: true, ..
            },
            TargetView::Unread,
        ) => Step::Read,
        (
            Attempt::Failed {
                forbidden: true, ..
            },
            TargetView::Absent | TargetView::Present { member: false, .. },
        ) => {
            if observed.leave_forbidden_past_lag {
                Step::Release(Release::Left)
            } else {
                Step::Finish(ReconcileOutcome::Failed(Class::Transient))
            }
        }
        (Attempt::Failed { class, .. }, _) => Step::Finish(ReconcileOutcome::Failed(class)),
        (_, TargetView::Unread) => Step::Read,
        (_, TargetView::Unreadable(class)) => Step::Finish(ReconcileOutcome::Failed(class)),
        (
            _,
            TargetView::Present {
                transitional: true, ..
            },
        ) => Step::Finish(ReconcileOutcome::Waiting),
        // Also where the target or the edge is not listed: a read may lag behind our own Join, and only the answer
        // of Leave confirms that nothing is left.
        (
            _,
            TargetView::Absent
            | TargetView::Present {
                transitional: false,
                ..
            },
        ) => Step::Leave,
    }
}

const fn account_outcome(account: Access) -> Option<ReconcileOutcome> {
    match account {
        Access::Checking => Some(ReconcileOutcome::Undecided),
        Access::Missing | Access::NotReady { .. } | Access::Changed | Access::NotGranted => {
            Some(ReconcileOutcome::AccountUnusable)
        }
        Access::Usable => None,
    }
}
