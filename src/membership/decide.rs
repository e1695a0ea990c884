//! Chooses the next step from the desired and the observed state. Pure: no I/O, no clock, no randomness. At most one effect per
//! step.
//!
//! A pass calls [`decide`], does the step, adds the result to [`Observed`], and calls [`decide`] again until it returns
//! [`Step::Finish`]. This file keeps the promises of the project: Leave only what the operator joined, never evict another
//! object's edge, claim before the call, no call while the target is between states.

use crate::api::membership::{
    AdoptionPolicy, DeletionPolicy, DriftPolicy, ManagementPolicy, Origin,
};
use crate::ecs::Class;

/// Repairs of one edge within [`REPAIR_WINDOW_MINUTES`] that make a repair loop.
pub const REPAIR_LIMIT: usize = 3;
/// Minutes over which repairs are counted.
pub const REPAIR_WINDOW_MINUTES: u64 = 30;

/// What the spec asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Desired {
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// Whether `spec.suspend` is set.
    pub suspended: bool,
    /// Whether the operator may write to the cloud.
    pub management: ManagementPolicy,
    /// What to do with a membership that existed before the object.
    pub adoption: AdoptionPolicy,
    /// What to do with the edge on deletion.
    pub deletion: DeletionPolicy,
    /// What to do when another actor removes the edge.
    pub drift: DriftPolicy,
}

/// What a pass knows from memory, from the object, and from its own reads and calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Whether this object can use the account.
    pub account: AccessView,
    /// The object's claim, if it carries one.
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
pub enum AccessView {
    /// The credential check has not ended yet. Its end enqueues the object.
    Checking,
    /// There is no account of that name.
    Missing,
    /// Not usable.
    NotReady {
        /// Whether a person must act.
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
    /// Whether no call under the claim can have had an effect yet: this pass wrote it, or the cloud rejected every call since.
    pub untested: bool,
}

/// The target as this pass has read it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetView {
    /// This pass has not read it, or must read it again after a Leave that was answered with 403.
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
    /// Join was answered that the target is a member already.
    AlreadyMember,
    /// Leave was accepted, or answered that there is no membership to remove.
    Left,
    /// The call was rejected or failed; `forbidden` for HTTP 403, which may hide that the edge was removed.
    Failed {
        /// Class of the error.
        class: Class,
        /// Whether it was HTTP 403 on Leave.
        forbidden: bool,
    },
    /// The claim `Joined` was written to another object.
    OwnershipTransferred,
    /// The claim and the finalizer were removed.
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
    /// Remove finalizer and claim.
    Release(Release),
    /// End the pass.
    Finish(ReconcileOutcome),
}

/// Why finalizer and claim are removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// The membership was removed, or there was none.
    Left,
    /// A policy, or the origin `Adopted`, keeps the membership.
    Retained,
    /// No Join under the claim had an effect: there is nothing to remove.
    NeverJoined,
    /// Another live object manages the membership.
    Shared,
    /// Another actor joined the target first, and `adoptionPolicy` is `Refuse`.
    Refused,
}

/// How a pass ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReconcileOutcome {
    /// An account is still being checked, or not every object has been listed. The end of that enqueues the object.
    Undecided,
    /// The object is deleted and carries no finalizer of ours.
    Gone,
    /// The edge is as desired.
    Ready {
        /// Origin of the claim; `None` with `managementPolicy: Observe`.
        origin: Option<Origin>,
        /// Whether another object carries the claim `Joined`.
        shared: bool,
        /// Whether this pass joined the target again after drift.
        repaired: bool,
    },
    /// Suspended by `spec.suspend`.
    Suspended,
    /// The target is between states.
    Waiting,
    /// The edge is missing, and `managementPolicy` is `Observe`.
    WouldJoin,
    /// The membership existed before the object, and `adoptionPolicy` is `Refuse`.
    AdoptionRefused,
    /// Another actor removed the edge, and `driftPolicy` is `Report`.
    DriftReported,
    /// Another actor undid [`REPAIR_LIMIT`] repairs, and the next one is not due yet.
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

/// The target is a member.
fn decide_member(desired: &Desired, observed: &Observed) -> Step {
    match desired.management {
        ManagementPolicy::Observe => Step::Finish(ready(desired, observed)),
        // The cloud rejected every Join under the claim: another actor has joined the target since.
        ManagementPolicy::Manage if observed.claim.is_none() || is_untested(observed) => {
            adopt(desired, observed)
        }
        ManagementPolicy::Manage => Step::Finish(ready(desired, observed)),
    }
}

/// The target is a member, and this object did not join it.
fn adopt(desired: &Desired, observed: &Observed) -> Step {
    // `Refuse` is about memberships from outside. One that another object claims is shared.
    match (desired.adoption, observed.sharing.claimed_elsewhere) {
        (AdoptionPolicy::Refuse, false) => match observed.claim {
            Some(_) => Step::Release(Release::Refused),
            None => Step::Finish(ReconcileOutcome::AdoptionRefused),
        },
        (AdoptionPolicy::Refuse, true) | (AdoptionPolicy::Adopt, _) => Step::Claim(Origin::Adopted),
    }
}

/// The target is not a member.
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

/// Join was answered that the target is a member already.
fn decide_already_member(desired: &Desired, observed: &Observed) -> Step {
    if is_untested(observed) {
        // The first Join under the claim that the cloud did not reject: another actor was faster, or the read lagged.
        adopt(desired, observed)
    } else {
        // An earlier Join of ours, whose answer was lost, had its effect.
        Step::Finish(ready(desired, observed))
    }
}

/// Whether the object carries the claim `Joined`, and no Join under it can have had an effect.
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
    // The siblings of an edge are known only after every object has been listed once. `Retain` does not need them: it is the
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

/// Whether the deletion of this object calls Leave.
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
        // A 403 may hide that the edge was removed: read once more. A read that may lag behind our own Join proves nothing.
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
        // Also if the target is not listed or not a member: a read may lag behind our own Join, and only the answer of Leave
        // confirms that there is no membership.
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

const fn account_outcome(account: AccessView) -> Option<ReconcileOutcome> {
    match account {
        AccessView::Checking => Some(ReconcileOutcome::Undecided),
        AccessView::Missing
        | AccessView::NotReady { .. }
        | AccessView::Changed
        | AccessView::NotGranted => Some(ReconcileOutcome::AccountUnusable),
        AccessView::Usable => None,
    }
}
