//! Chooses the next step of a pass. Pure, and long because it holds every decision of the loop, to be read as one.
//!
//! From the desired and the observed state alone: no I/O, no clock, no randomness. At most one effect per step.
//!
//! A pass calls [`decide`], does the step, adds the result to [`Observed`], and calls [`decide`] again until it returns
//! [`Step::Finish`]. This file keeps the promises of the project: Leave only what the operator joined, never evict another
//! object's edge, claim before the call, no call while the target is between states.

use crate::api::membership::{
    AdoptionPolicy, DeletionPolicy, DriftPolicy, KarpenterPolicy, ManagementPolicy, Origin,
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
    /// What to do with a missing edge of an instance of Karpenter.
    pub karpenter: KarpenterPolicy,
}

/// What a pass knows from memory, from the object, and from its own reads and calls.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Observed {
    /// Whether this object can use the account.
    pub account: AccessView,
    /// What the operator owns of the edge through this object.
    pub claim: ClaimView,
    /// Whether our finalizer is on the object.
    pub finalizer: bool,
    /// Whether the API server has answered this pass that the object is stored with the finalizer and the intent of its claim.
    pub confirmed: bool,
    /// The target, as far as this pass has read it.
    pub target: TargetView,
    /// Whether the target is an instance that Karpenter has launched, as far as this pass has read it.
    pub karpenter: bool,
    /// Whether the read may be older than a change of our own.
    pub trust: ReadTrust,
    /// Whether a Join of ours on the edge, whose outcome is unknown, may still take effect. After a Leave it may until a read counts.
    pub join_is_open: bool,
    /// Whether another object holds the edge, and can own it.
    pub holder: Holder,
    /// What the records of other objects on this edge say.
    pub elsewhere: Elsewhere,
    /// Whether the rate limit has admitted the Join or Leave that comes next.
    pub admitted: bool,
    /// Whether this process knows of every object that holds the edge now.
    pub view: EdgeView,
    /// The call that this pass has made, if any.
    pub attempt: Attempt,
    /// Whether the status says that drift stands, or this pass has read that the edge of a record is missing.
    pub drifted: bool,
    /// Repairs of this edge in the last [`REPAIR_WINDOW_MINUTES`], this pass's own not counted.
    pub repairs: usize,
    /// Whether every membership and account has been listed since the start, and the account of each object on the edge was checked
    /// once: no Leave before.
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
    /// Not granted to this namespace and group, and this object needs a grant.
    NotGranted,
    /// Usable.
    Usable,
}

/// What the operator owns of the edge through this object. A claim is void while this process knows that nothing of ours is
/// there. Another actor made the membership that is found under a void claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ClaimView {
    /// No claim.
    None,
    /// The intent to join, without a record: a Join of ours may have had an effect.
    Intent {
        /// Whether none had.
        void: bool,
    },
    /// The record `Joined`, or a Join of this process that was accepted and is not recorded yet.
    Joined {
        /// Whether the edge has been seen missing since.
        void: bool,
    },
    /// The record `Adopted`.
    Adopted,
}

impl ClaimView {
    /// Whether the edge, if it is there, was joined by the operator.
    #[must_use]
    pub const fn is_ours(self) -> bool {
        matches!(
            self,
            Self::Intent { void: false } | Self::Joined { void: false }
        )
    }

    /// Whether this process knows that nothing of ours is there under the claim.
    #[must_use]
    pub const fn is_void(self) -> bool {
        matches!(
            self,
            Self::Intent { void: true } | Self::Joined { void: true }
        )
    }

    /// The record that the status shows.
    #[must_use]
    pub const fn record(self) -> Option<Origin> {
        match self {
            Self::None | Self::Intent { .. } => None,
            Self::Joined { .. } => Some(Origin::Joined),
            Self::Adopted => Some(Origin::Adopted),
        }
    }
}

/// Whether a read of the edge may be older than a change of our own. What the cloud answers may lag 10 s behind a change, and a
/// call of unknown outcome may take effect up to 66 s after it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadTrust {
    /// It is not: the read counts.
    Settled,
    /// This process has just begun to act. It does not know what the process before it called.
    AfterStart,
    /// A Join of ours may be younger.
    AfterJoin,
    /// A Leave of ours may be younger.
    AfterLeave,
}

/// Another live, managing object on the same edge of the same cloud account, that has a grant now, or the record `Joined`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Holder {
    /// There is none.
    #[default]
    None,
    /// The oldest one can own the edge.
    Successor,
    /// The only one left cannot be read or written now.
    OutOfReach,
}

/// Whether this process knows of every object that holds the edge now: a watch may be silent, and a pass may have waited for long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EdgeView {
    /// What memory shows is at most 2 s old, or this pass has listed the objects on the edge.
    Fresh,
    /// It may be older.
    Stale,
    /// It may be older, and the API server has not listed the objects on the edge.
    Unlisted,
}

/// What the records of other objects on this edge say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Whether one of them has the record `Joined`.
    pub joined: bool,
    /// Whether one of them has any record.
    pub recorded: bool,
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
    /// Listed as an interface whose groups the account cannot change: a primary one, or one of another cloud service. Only for an
    /// object that lives and may write to the cloud.
    Unsuitable,
    /// Listed.
    Present {
        /// Whether it is a member of the group.
        member: bool,
        /// Whether it is between states.
        transitional: bool,
    },
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
    /// The call was rejected or failed.
    Failed {
        /// Class of the error.
        class: Class,
        /// Whether it was HTTP 403 on Leave, which may hide that the edge was removed.
        forbidden: bool,
        /// Whether it may have had an effect all the same: no answer came.
        unknown: bool,
    },
    /// The record `Joined` was written to another object.
    HandedOver,
    /// The finalizer of a deleted object was removed.
    Released,
}

/// The next thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Describe the target.
    Read,
    /// Ask the rate limit for the next Join or Leave. The object waits for it if it admits none: an intent is written only when the
    /// turn of its Join has come.
    AwaitTurn,
    /// Write finalizer and intent: from now on a Join may have an effect.
    Intend,
    /// Write the finalizer and the intent of the claim again, under the version that this pass has seen, or a newer one that says the same. It changes nothing,
    /// unless another actor has removed the finalizer. It proves that the object is stored as observed: the watch may lag, and
    /// another operator may have called Leave and released the object.
    Confirm,
    /// Write the finalizer alone: the edge was there before.
    Adopt,
    /// Remove finalizer and intent from a live object: nothing of ours is there. The status removes the record after that.
    DropClaim,
    /// Call `JoinSecurityGroup`.
    Join,
    /// List the objects on the edge: the view is too old for a Leave.
    ListEdge,
    /// Call `LeaveSecurityGroup`.
    Leave,
    /// Write the record `Joined` to the object's own status, before it is handed over.
    Record,
    /// Write the record `Joined` to the oldest other holder.
    HandOver,
    /// Remove finalizer and intent from a deleted object.
    Release(Release),
    /// End the pass.
    Finish(ReconcileOutcome),
}

/// Why the finalizer of a deleted object is removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Release {
    /// The membership was removed, or there was none.
    Left,
    /// A policy, or the origin `Adopted`, keeps the membership.
    Retained,
    /// Nothing that the operator joined is there.
    NeverJoined,
    /// Another live object manages the membership.
    Shared,
}

/// How a pass ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReconcileOutcome {
    /// An account is still being checked, or not every object has been listed. The end of that enqueues the object.
    Undecided,
    /// What the cloud shows may be older than a change of our own: the next pass waits until it is not.
    Unsettled,
    /// The only other object that could own the edge cannot be read or written.
    SuccessorOutOfReach,
    /// The API server refuses a write of finalizer, intent or record.
    WriteRefused,
    /// The objects on the edge could not be listed: one that this process does not know of may hold it.
    Unlisted,
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
    /// The edge is missing, the instance is Karpenter's, and `karpenterPolicy` is `Refuse`.
    KarpenterNode,
    /// Another actor undid [`REPAIR_LIMIT`] repairs, and the next one is not due yet.
    RepairLoop,
    /// The cloud does not list the target.
    Absent,
    /// The groups of the target cannot be changed by themselves.
    Unsuitable,
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
        Attempt::None | Attempt::HandedOver => decide_by_target(desired, observed),
        Attempt::Joined => Step::Finish(ready(desired, observed)),
        Attempt::AlreadyMember if desired.management == ManagementPolicy::Observe => {
            Step::Finish(ready(desired, observed))
        }
        Attempt::AlreadyMember => match observed.claim {
            // Another actor was faster.
            ClaimView::None
            | ClaimView::Intent { void: true }
            | ClaimView::Joined { void: true } => adopt(desired, observed),
            // An earlier Join of ours, whose answer was lost, had its effect.
            ClaimView::Intent { void: false }
            | ClaimView::Joined { void: false }
            | ClaimView::Adopted => Step::Finish(ready(desired, observed)),
        },
        Attempt::Failed { class, unknown, .. } => decide_failed(observed, class, unknown),
        // Only a deletion leaves; the deletion of a live object is observed by its next pass.
        Attempt::Left | Attempt::Released => Step::Finish(ReconcileOutcome::Undecided),
    }
}

/// A Join has failed. One that waits for the rate limit is called later under the same claim.
fn decide_failed(observed: &Observed, class: Class, unknown: bool) -> Step {
    if observed.claim.is_void() && !unknown && class != Class::Throttled {
        return Step::DropClaim;
    }
    Step::Finish(ReconcileOutcome::Failed(class))
}

fn decide_by_target(desired: &Desired, observed: &Observed) -> Step {
    match observed.target {
        TargetView::Unread => Step::Read,
        _ if lacks_finalizer(desired, observed) => Step::Confirm,
        TargetView::Unsuitable => Step::Finish(ReconcileOutcome::Unsuitable),
        TargetView::Unreadable(class) => Step::Finish(ReconcileOutcome::Failed(class)),
        TargetView::Absent => Step::Finish(ReconcileOutcome::Absent),
        TargetView::Present {
            member: true,
            transitional,
        } => decide_member(desired, observed, transitional),
        TargetView::Present {
            member: false,
            transitional,
        } => decide_missing(desired, observed, transitional),
    }
}

/// Whether a user has removed our finalizer from an object that owns its edge: it gets it again. So does one whose record is about
/// to be written: otherwise its deletion would not wait for the operator.
fn lacks_finalizer(desired: &Desired, observed: &Observed) -> bool {
    let is_missing = matches!(observed.target, TargetView::Present { member: false, .. });
    let is_member = matches!(observed.target, TargetView::Present { member: true, .. });
    let owns = match observed.claim {
        ClaimView::Joined { void: false } => !(is_missing && observed.trust == ReadTrust::Settled),
        ClaimView::Adopted => true,
        ClaimView::Intent { void: false } => is_member,
        ClaimView::None | ClaimView::Intent { void: true } | ClaimView::Joined { void: true } => {
            false
        }
    };
    desired.management == ManagementPolicy::Manage && !observed.finalizer && owns
}

/// The target is a member.
fn decide_member(desired: &Desired, observed: &Observed, transitional: bool) -> Step {
    if desired.management == ManagementPolicy::Observe {
        return Step::Finish(ready(desired, observed));
    }
    let unsettled = Step::Finish(ReconcileOutcome::Unsettled);
    match (observed.claim, observed.trust) {
        (
            ClaimView::None | ClaimView::Intent { void: true } | ClaimView::Joined { void: true },
            ReadTrust::Settled,
        ) => adopt(desired, observed),
        (ClaimView::None, ReadTrust::AfterStart)
        | (
            ClaimView::Joined { void: true },
            ReadTrust::AfterStart | ReadTrust::AfterJoin | ReadTrust::AfterLeave,
        ) => unsettled,
        // While drift stands no Join is called, and none on an instance of Karpenter.
        (ClaimView::None, ReadTrust::AfterJoin | ReadTrust::AfterLeave)
            if drift_outcome(desired, observed).is_some()
                || karpenter_outcome(desired, observed).is_some() =>
        {
            unsettled
        }
        // It may be the one that our own Leave has removed. The answer of Join tells.
        (ClaimView::None, ReadTrust::AfterJoin | ReadTrust::AfterLeave)
        | (
            ClaimView::Intent { void: true },
            ReadTrust::AfterStart | ReadTrust::AfterJoin | ReadTrust::AfterLeave,
        ) => decide_missing(desired, observed, transitional),
        (
            ClaimView::Intent { void: false }
            | ClaimView::Joined { void: false }
            | ClaimView::Adopted,
            _,
        ) => Step::Finish(ready(desired, observed)),
    }
}

/// The target is a member, and this object did not join it.
fn adopt(desired: &Desired, observed: &Observed) -> Step {
    // `Refuse` is about memberships from outside. One that another object has recorded is shared.
    match (desired.adoption, observed.elsewhere.recorded) {
        (AdoptionPolicy::Refuse, false)
            if observed.finalizer || observed.claim != ClaimView::None =>
        {
            Step::DropClaim
        }
        (AdoptionPolicy::Refuse, false) => Step::Finish(ReconcileOutcome::AdoptionRefused),
        (AdoptionPolicy::Refuse, true) | (AdoptionPolicy::Adopt, _) => Step::Adopt,
    }
}

/// The target is not a member.
fn decide_missing(desired: &Desired, observed: &Observed, transitional: bool) -> Step {
    let settled = observed.trust == ReadTrust::Settled;
    let void = observed.claim.is_void() || observed.claim.is_ours() && settled;
    let end = match (desired.management, observed.claim) {
        // What our own Leave removed is joined again. That is no drift.
        (ManagementPolicy::Manage, ClaimView::Joined { .. } | ClaimView::Adopted)
            if observed.trust == ReadTrust::AfterLeave =>
        {
            karpenter_outcome(desired, observed)
                .or_else(|| transitional.then_some(ReconcileOutcome::Waiting))
        }
        (_, ClaimView::Joined { void: false } | ClaimView::Adopted) if !settled => {
            Some(ReconcileOutcome::Unsettled)
        }
        (ManagementPolicy::Observe, _) => Some(ReconcileOutcome::WouldJoin),
        (ManagementPolicy::Manage, _) => drift_outcome(desired, observed)
            .or_else(|| karpenter_outcome(desired, observed))
            .or_else(|| transitional.then_some(ReconcileOutcome::Waiting)),
    };
    match (end, observed.claim) {
        // A void claim is removed before the status says that the edge is missing: it would count again after a restart.
        (Some(outcome), _) if void && outcome != ReconcileOutcome::Unsettled => Step::DropClaim,
        (Some(outcome), _) => Step::Finish(outcome),
        (None, _) if !observed.admitted => Step::AwaitTurn,
        (None, ClaimView::None) => Step::Intend,
        (None, _) if !observed.confirmed => Step::Confirm,
        (None, _) => Step::Join,
    }
}

/// How a pass over a missing edge ends because another actor removed it; `None` if the edge may be joined.
fn drift_outcome(desired: &Desired, observed: &Observed) -> Option<ReconcileOutcome> {
    match desired.drift {
        _ if !observed.drifted => None,
        DriftPolicy::Report => Some(ReconcileOutcome::DriftReported),
        DriftPolicy::Repair if observed.repairs >= REPAIR_LIMIT => {
            Some(ReconcileOutcome::RepairLoop)
        }
        DriftPolicy::Repair => None,
    }
}

/// How a pass over a missing edge ends because Karpenter would replace the instance for one more group; `None` if the edge may be
/// joined. A repair is a Join too.
fn karpenter_outcome(desired: &Desired, observed: &Observed) -> Option<ReconcileOutcome> {
    match desired.karpenter {
        KarpenterPolicy::Refuse if observed.karpenter => Some(ReconcileOutcome::KarpenterNode),
        KarpenterPolicy::Refuse | KarpenterPolicy::Join => None,
    }
}

fn ready(desired: &Desired, observed: &Observed) -> ReconcileOutcome {
    let origin = match (desired.management, observed.claim) {
        (ManagementPolicy::Observe, _) | (ManagementPolicy::Manage, ClaimView::None) => None,
        (ManagementPolicy::Manage, ClaimView::Adopted) => Some(Origin::Adopted),
        (ManagementPolicy::Manage, ClaimView::Intent { .. } | ClaimView::Joined { .. }) => {
            Some(Origin::Joined)
        }
    };
    ReconcileOutcome::Ready {
        origin,
        shared: origin == Some(Origin::Adopted) && observed.elsewhere.joined,
        repaired: observed.drifted && observed.attempt == Attempt::Joined,
    }
}

fn decide_deletion(desired: &Desired, observed: &Observed) -> Step {
    // Without our finalizer the object is none of ours: a user removed it, or we did.
    if observed.attempt == Attempt::Released || !observed.finalizer {
        return Step::Finish(ReconcileOutcome::Gone);
    }
    if desired.suspended {
        return Step::Finish(ReconcileOutcome::Suspended);
    }
    // The way out that always works: it needs neither account nor siblings.
    if desired.deletion == DeletionPolicy::Retain {
        return Step::Release(Release::Retained);
    }
    let may_leave = desired.management == ManagementPolicy::Manage;
    let removes_any = desired.deletion == DeletionPolicy::Remove && may_leave;
    match observed.attempt {
        Attempt::HandedOver => return Step::Release(Release::Shared),
        Attempt::Left if !observed.join_is_open => return Step::Release(Release::Left),
        Attempt::None
        | Attempt::Joined
        | Attempt::AlreadyMember
        | Attempt::Left
        | Attempt::Failed { .. }
        | Attempt::Released => {}
    }
    if !observed.claim.is_ours() && !removes_any {
        return Step::Release(match observed.claim {
            ClaimView::Adopted => Release::Retained,
            ClaimView::None | ClaimView::Intent { .. } | ClaimView::Joined { .. } => {
                Release::NeverJoined
            }
        });
    }
    // The siblings of an edge are known only after every object has been listed once, and the accounts of the siblings were checked.
    if !observed.synced {
        return Step::Finish(ReconcileOutcome::Undecided);
    }
    match observed.holder {
        Holder::None => {}
        Holder::Successor | Holder::OutOfReach if observed.claim.is_ours() => {
            return decide_hand_over(observed);
        }
        Holder::Successor | Holder::OutOfReach => return Step::Release(Release::Shared),
    }
    if !may_leave {
        return Step::Release(Release::Retained);
    }
    if let Some(outcome) = account_outcome(observed.account) {
        return Step::Finish(outcome);
    }
    decide_leave(observed)
}

/// Ownership belongs to the edge: the last object on it removes what was joined. Only a record is handed over, so an intent is
/// recorded first, if something is there.
fn decide_hand_over(observed: &Observed) -> Step {
    if observed.claim == (ClaimView::Joined { void: false }) {
        return match observed.holder {
            Holder::OutOfReach => Step::Finish(ReconcileOutcome::SuccessorOutOfReach),
            Holder::Successor | Holder::None => Step::HandOver,
        };
    }
    if let Some(outcome) = account_outcome(observed.account) {
        return Step::Finish(outcome);
    }
    match (observed.target, observed.trust) {
        (TargetView::Unread, _) => Step::Read,
        (TargetView::Unreadable(class), _) => Step::Finish(ReconcileOutcome::Failed(class)),
        (TargetView::Present { member: false, .. }, ReadTrust::Settled) => {
            Step::Release(Release::NeverJoined)
        }
        (TargetView::Present { member: false, .. }, _) => Step::Finish(ReconcileOutcome::Unsettled),
        (
            TargetView::Absent | TargetView::Unsuitable | TargetView::Present { member: true, .. },
            _,
        ) => Step::Record,
    }
}

fn decide_leave(observed: &Observed) -> Step {
    let settled = observed.trust == ReadTrust::Settled;
    match (observed.attempt, observed.target) {
        // While a Join of ours may still arrive, the answer of a Leave is not the last word.
        (Attempt::Left, _) => Step::Finish(ReconcileOutcome::Unsettled),
        // A 403 may hide that the edge was removed: read once more. A read that may lag behind our own Join proves nothing, and
        // a target that is not listed may only be hidden from a key without the right.
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
            TargetView::Present { member: false, .. },
        ) if settled => Step::Release(Release::Left),
        (
            Attempt::Failed {
                forbidden: true, ..
            },
            TargetView::Present { member: false, .. },
        ) => Step::Finish(ReconcileOutcome::Failed(Class::Transient)),
        (Attempt::Failed { class, .. }, _) => Step::Finish(ReconcileOutcome::Failed(class)),
        (_, TargetView::Unread) => Step::Read,
        (_, TargetView::Unreadable(class)) => Step::Finish(ReconcileOutcome::Failed(class)),
        (
            _,
            TargetView::Present {
                transitional: true, ..
            },
        ) => Step::Finish(ReconcileOutcome::Waiting),
        (Attempt::None, TargetView::Present { member: false, .. }) if settled => {
            Step::Release(Release::Left)
        }
        // An earlier Leave was answered while a Join was open: another actor may have joined since.
        _ if observed.join_is_open && observed.trust == ReadTrust::AfterLeave => {
            Step::Finish(ReconcileOutcome::Unsettled)
        }
        _ if !observed.admitted => Step::AwaitTurn,
        _ if observed.view == EdgeView::Stale => Step::ListEdge,
        _ if observed.view == EdgeView::Unlisted => Step::Finish(ReconcileOutcome::Unlisted),
        // Also if the target is not listed or not a member: a read may lag behind our own Join, and only the answer of Leave
        // confirms that there is no membership.
        (
            _,
            TargetView::Absent
            | TargetView::Unsuitable
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
