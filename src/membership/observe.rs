//! Collects the observed state of a pass: account, grants and siblings from memory, the target from the cloud. Reads only.

use std::sync::Arc;
use std::time::Duration;

use crate::account::directory::{Access, AccessRequest};
use crate::account::session::{AccountSession, CallError, CallPermit};
use crate::api::membership::{ManagementPolicy, Origin};
use crate::api::{SecurityGroupMembership, reason};
use crate::condition;
use crate::ecs::limit::Reservation;
use crate::ecs::{AccountUid, Action, Class, Edge, Error, TargetDescription};
use crate::kubernetes::{self, ObjectUid};

use super::admission::Slot;
use super::context::Context;
use super::decide::{
    self, AccessView, Attempt, ClaimView, Desired, EdgeView, Elsewhere, Holder, Observed, ReadTrust,
};
use super::history::Standing;
use super::object::{Claim, Object, account_key, desired, has_finalizer, is_unanswered};
use super::observation::Observation;
use super::status::Ending;
use super::table::ObjectView;
use super::view::EdgeList;

use kube::ResourceExt as _;
use tokio::time::Instant;

/// What one pass over one object knows so far.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Pass {
    object: Current,
    /// Generation of the spec that the pass reads. The answer to one of its own writes may show a later generation.
    pub generation: Option<i64>,
    /// Whether the object is gone, and has not been released: nothing is written to it.
    pub is_unreleased: bool,
    /// The edge that the spec names.
    pub edge: Edge,
    /// What the spec asks for.
    pub desired: Desired,
    /// The input of [`decide::decide`].
    pub observed: Observed,
    /// The session for calls; `None` if the object cannot use the account.
    pub account: Option<Arc<AccountSession>>,
    /// The problem with the account, for users; empty if there is none.
    pub account_problem: String,
    /// UID of the cloud account of the edge: of the claim, or else of the account; `None` if neither is known.
    pub account_uid: Option<AccountUid>,
    /// The other objects on this edge.
    pub others: Others,
    /// The objects on this edge as this pass has listed them.
    pub listed: Option<EdgeList>,
    /// Why they could not be listed.
    pub not_listed: Option<String>,
    /// The target as last described.
    pub description: Option<TargetDescription>,
    /// Value of the annotation `reconcile-requested-at` when the pass began.
    pub reconcile_requested_at: Option<String>,
    /// Whether the cloud has accepted a Leave of this pass.
    pub removed: bool,
    /// Whether the cloud has answered the last Join or Leave of this pass, or it failed on its way.
    pub answered: bool,
    /// The last failure, if the pass ended with one.
    pub failure: Option<Error>,
    /// The place of the pass among the passes in flight.
    pub slot: Slot,
    /// The Join or Leave that the rate limit has admitted.
    pub reservation: Option<Reservation>,
    /// Permission to send it now.
    pub permit: Option<CallPermit>,
    /// Whether the rate limit has admitted no call.
    pub held_back: bool,
}

/// The object from the watch (shared with the store), or from the answer to a write of this pass.
enum Current {
    Watched(Arc<Object>),
    Written(Box<SecurityGroupMembership>),
}

impl Pass {
    /// UID of the cloud account of the object's edge: from the record, or else from the account that the spec names. Anybody can
    /// write an intent.
    #[must_use]
    pub fn account_uid(
        object: &SecurityGroupMembership,
        namespace: &str,
        context: &Context,
    ) -> Option<AccountUid> {
        let claim = Claim::of(object).filter(|claim| claim.record().is_some());
        let recorded = claim.as_ref().and_then(Claim::account_uid).cloned();
        recorded.or_else(|| {
            let key = account_key(&object.spec, namespace);
            context.directory.uid(&key)
        })
    }

    /// A pass with what memory knows of the object. Makes no call.
    pub fn begin(watched: Arc<Object>, edge: Edge, slot: Slot, context: &Context) -> Option<Self> {
        let object = watched.0.as_ref().ok()?;
        let uid = ObjectUid::of(object).unwrap_or_default();
        let desired = desired(object);
        let claim = claim(object, context);
        let standing = context.table.history(&uid, |history| history.standing());
        let claim_view = claim_view(claim.as_ref(), standing.unwrap_or_default());
        let (access, account_problem) = access(object, &edge, claim.as_ref(), claim_view, context);
        let account_view = access_view(&access);
        let account = access.session();
        let claimed_account = claim.as_ref().and_then(Claim::account_uid).cloned();
        let account_uid = claimed_account.or_else(|| Some(account.as_ref()?.uid.clone()));
        let on_edge = context.table.others(&edge, &uid);
        let others = Others::of(on_edge, &edge, account_uid.as_ref(), context);
        if let Some(own) = &account_uid {
            context.table.count_found_intents(own, &edge, |view| {
                context.granted_uid(view, &edge).as_ref() == Some(own)
            });
        }
        let join_is_open = account_uid
            .as_ref()
            .is_some_and(|account| context.table.join_is_open(account, &edge));
        let repairs = account_uid
            .as_ref()
            .map_or(0, |account| repairs(object, account, &edge, context));
        // Another pass may have done all but remove the finalizer.
        let ending = context.table.history(&uid, |history| history.ending());
        let ending = ending.flatten();
        let observed = Observed {
            account: account_view,
            claim: claim_view,
            finalizer: has_finalizer(object),
            confirmed: false,
            target: decide::TargetView::Unread,
            trust: ReadTrust::AfterStart,
            join_is_open,
            holder: others.holder(),
            elsewhere: others.elsewhere(),
            admitted: false,
            view: EdgeView::Stale,
            attempt: ending.map_or(Attempt::None, Ending::attempt),
            drifted: object
                .status
                .as_ref()
                .is_some_and(|status| condition::is_true(&status.conditions, reason::DRIFTED)),
            repairs,
            synced: context.may_remove(),
        };
        let is_unreleased = desired.deleting && context.table.is_unreleased(&uid) == Some(true);
        let mut pass = Self {
            is_unreleased,
            generation: object.metadata.generation,
            reconcile_requested_at: kubernetes::reconcile_requested_at(object),
            object: Current::Watched(watched),
            edge,
            desired,
            observed,
            account,
            account_uid,
            account_problem,
            others,
            listed: None,
            not_listed: None,
            description: None,
            removed: ending.is_some_and(|ending| ending.removed),
            answered: false,
            failure: None,
            slot,
            reservation: None,
            permit: None,
            held_back: false,
        };
        pass.renew_view(context);
        Some(pass)
    }

    /// Sees whether this process knows of every object that holds the edge now. The list after the Delete event must not show an
    /// unreleased object.
    pub fn renew_view(&mut self, context: &Context) {
        let is_listed = self.listed.as_ref().is_some_and(EdgeList::is_fresh);
        self.observed.view = match self.observed.view {
            EdgeView::Unlisted => EdgeView::Unlisted,
            EdgeView::Fresh | EdgeView::Stale if is_listed => EdgeView::Fresh,
            EdgeView::Fresh | EdgeView::Stale if self.is_unreleased => EdgeView::Stale,
            EdgeView::Fresh | EdgeView::Stale => context.edge_view(),
        };
    }

    /// The object as the watch showed it, or as this pass has written it since.
    #[must_use]
    pub fn object(&self) -> &SecurityGroupMembership {
        match &self.object {
            Current::Written(object) => object,
            Current::Watched(object) => match &object.0 {
                Ok(object) => object,
                Err(_) => unreachable!("`begin` takes readable objects only"),
            },
        }
    }

    /// UID of the object.
    #[must_use]
    pub fn uid(&self) -> ObjectUid {
        ObjectUid::of(self.object()).unwrap_or_default()
    }

    /// Continues with the object from the answer to a write.
    pub fn written(&mut self, object: SecurityGroupMembership) {
        self.object = Current::Written(Box::new(object));
    }

    /// Reads the target. A failed read makes it unreadable, never "not a member".
    pub async fn read(&mut self, context: &Context) {
        if self.observed.attempt == Attempt::None
            && let Some((description, trust)) = self.pending_description(context)
        {
            self.see(description, trust, context);
            return;
        }
        let Some(account) = &self.account else {
            self.observed.target = decide::TargetView::Unreadable(Class::Transient);
            return;
        };
        let began = Instant::now();
        self.observed.target = match account.describe(&self.edge.region, &self.edge.target).await {
            Ok(None) => {
                self.description = None;
                decide::TargetView::Absent
            }
            Ok(Some(description)) => {
                let trust = self.trust(&description, began, context);
                self.see(description, trust, context);
                return;
            }
            Err(error) => {
                let action = self.edge.target.describe_action();
                decide::TargetView::Unreadable(self.note(action, error))
            }
        };
    }

    /// Whether a read that began at `began` counts.
    fn trust(
        &self,
        description: &TargetDescription,
        began: Instant,
        context: &Context,
    ) -> ReadTrust {
        let member = description.security_group_ids.contains(&self.edge.group);
        self.account_uid
            .as_ref()
            .map_or(ReadTrust::AfterStart, |account| {
                context.table.read_edge(account, &self.edge, began, member)
            })
    }

    /// Adds a description to the observed state.
    fn see(&mut self, description: TargetDescription, trust: ReadTrust, context: &Context) {
        let writes = self.desired.management == ManagementPolicy::Manage && !self.desired.deleting;
        // Another service may have taken over an interface that the operator joined: the membership is there all the same.
        let is_managed = description.service_managed && self.observed.claim.record().is_none();
        if writes && (description.primary || is_managed) {
            self.observed.target = decide::TargetView::Unsuitable;
            self.description = Some(description);
            return;
        }
        let member = description.security_group_ids.contains(&self.edge.group);
        self.observed.target = decide::TargetView::Present {
            member,
            transitional: description.state.is_transitional(),
        };
        self.description = Some(description);
        self.observed.trust = trust;
        let is_recorded = self.observed.claim.record().is_some();
        self.renew_claim(context);
        let is_missing = !member && self.observed.trust != ReadTrust::AfterLeave;
        let counts = self.observed.trust == ReadTrust::Settled || self.observed.claim.is_void();
        self.observed.drifted |= is_recorded && is_missing && counts;
    }

    /// Sees what this process knows of the claim by now.
    pub fn renew_claim(&mut self, context: &Context) {
        let uid = self.uid();
        let claim = claim(self.object(), context);
        let standing = context.table.history(&uid, |history| history.standing());
        self.observed.claim = claim_view(claim.as_ref(), standing.unwrap_or_default());
        if let Some(account) = &self.account_uid {
            self.observed.join_is_open = context.table.join_is_open(account, &self.edge);
        }
    }

    /// Sees the other objects on the edge: those in the table, and those that this pass has listed.
    pub fn renew_others(&mut self, context: &Context) {
        let mut on_edge = context.table.others(&self.edge, &self.uid());
        if let Some(listed) = &self.listed {
            listed.add_to(&mut on_edge);
        }
        let dismissed = std::mem::take(&mut self.others.dismissed);
        on_edge.retain(|other| !dismissed.contains(&other.uid));
        let others = Others::of(on_edge, &self.edge, self.account_uid.as_ref(), context);
        self.others = Others {
            out_of_reach: others.out_of_reach || self.others.out_of_reach,
            dismissed,
            ..others
        };
        self.observed.holder = self.others.holder();
        self.observed.elsewhere = self.others.elsewhere();
    }

    /// Asks the rate limit for the next Join or Leave. If it admits none, the call counts as failed, and the object waits for it.
    pub fn await_turn(&mut self) {
        let action = if self.desired.deleting {
            Action::LeaveSecurityGroup
        } else {
            Action::JoinSecurityGroup
        };
        let Some(account) = &self.account else {
            return;
        };
        match self.slot.reserve(action, account.limiter()) {
            Ok(reservation) => {
                self.reservation = Some(reservation);
                self.observed.admitted = true;
            }
            Err(retry_at) => {
                self.observed.attempt = Attempt::Failed {
                    class: self.note(action, CallError::RateLimited { retry_at }),
                    forbidden: false,
                    unknown: false,
                };
            }
        }
    }

    /// The description from the last pass and whether it counted then, if that pass ended in a rate-limit wait and no scan has found
    /// a change since. It says nothing of what other objects have joined meanwhile. Good enough for a Join under a claim: its answer
    /// tells whether the target is a member by now.
    fn pending_description(&self, context: &Context) -> Option<(TargetDescription, ReadTrust)> {
        let uid = self.uid();
        let ((description, trust), fresh) = context.table.history(&uid, |history| {
            let fresh = history.fresh_observation(OBSERVATION_AGE);
            Some((history.pending_description()?, fresh?))
        })??;
        let member = |seen: &TargetDescription| seen.security_group_ids.contains(&self.edge.group);
        (fresh == Observation::of(Some(&description), member) && !member(&description))
            .then_some((description, trust))
    }

    /// Stores a failed call for the status. Returns its class. A throttled object waits for its next call. A wrong clock is
    /// reported by the account, which is checked within a minute: the object waits for it.
    pub fn note(&mut self, action: Action, error: CallError) -> Class {
        let class = match error {
            CallError::RateLimited { .. } => {
                self.held_back = true;
                Class::Throttled
            }
            CallError::NotAnswering(failure) => {
                self.failure = Some(failure);
                Class::Transient
            }
            // Only until the next step, which does not begin.
            CallError::Stopping => Class::Transient,
            CallError::Failed(error) => {
                let class = if error.is_clock_error() {
                    Class::Transient
                } else {
                    error.class()
                };
                self.failure = Some(error);
                class
            }
        };
        if class == Class::Throttled
            && let Some(account) = &self.account
        {
            self.slot.wait_for(action, account.limiter());
        }
        class
    }
}

/// An observation older than this is not used.
const OBSERVATION_AGE: Duration = Duration::from_secs(150);

/// Repairs of the edge, for [`Observed::repairs`]. A user who changes the spec or asks for a pass ends a repair loop; a restart of
/// the operator does not.
fn repairs(
    object: &SecurityGroupMembership,
    account: &AccountUid,
    edge: &Edge,
    context: &Context,
) -> usize {
    let status = object.status.as_ref();
    let is_new = status.is_none_or(|status| status.observed_generation.is_none());
    let drifted = status.and_then(|status| condition::find(&status.conditions, reason::DRIFTED));
    let was_in_loop = drifted.is_some_and(|drifted| drifted.reason == reason::REPAIR_LOOP);
    context.table.repairs(|repairs| {
        if is_unanswered(object) && !is_new {
            repairs.end_loop(account, edge);
        } else if was_in_loop {
            repairs.resume_loop(account, edge);
        }
        repairs.count(account, edge)
    })
}

/// What `decide` needs to know of the access.
pub(super) fn access_view(access: &Access) -> AccessView {
    match access {
        Access::Usable(_) => AccessView::Usable,
        Access::Missing => AccessView::Missing,
        Access::NotReady { stalled, .. } => AccessView::NotReady { stalled: *stalled },
        Access::Changed { .. } => AccessView::Changed,
        Access::NotGranted => AccessView::NotGranted,
        Access::Checking => AccessView::Checking,
    }
}

/// The claim of an object. An intent that names another cloud account than the object's is none: nothing was recorded there.
pub(super) fn claim(object: &SecurityGroupMembership, context: &Context) -> Option<Claim> {
    let claim = context.table.claim(object)?;
    let account = named_account(object, context);
    let is_foreign = account.is_some() && claim.account_uid() != account.as_ref();
    (claim.record().is_some() || !is_foreign).then_some(claim)
}

/// UID of the cloud account that the spec names, if it is known.
pub fn named_account(object: &SecurityGroupMembership, context: &Context) -> Option<AccountUid> {
    let namespace = object.namespace().unwrap_or_default();
    context
        .directory
        .uid(&account_key(&object.spec, &namespace))
}

/// What `decide` sees of a claim and of what this process knows of it.
fn claim_view(claim: Option<&Claim>, standing: Standing) -> ClaimView {
    let void = standing == Standing::Void;
    match (claim, standing) {
        (
            Some(Claim::Record {
                origin: Origin::Adopted,
                ..
            }),
            _,
        ) => ClaimView::Adopted,
        (
            Some(Claim::Record {
                origin: Origin::Joined,
                ..
            }),
            _,
        ) => ClaimView::Joined { void },
        // What this process has joined counts like a record until it is written, also if a user removes the intent.
        (Some(Claim::Intent { .. }) | None, Standing::Joined) => ClaimView::Joined { void: false },
        (Some(Claim::Intent { .. }), Standing::Void | Standing::Unknown) => {
            ClaimView::Intent { void }
        }
        (None, Standing::Void | Standing::Unknown) => ClaimView::None,
    }
}

/// The account that the object may use, and the problem with it.
pub(super) fn access(
    object: &SecurityGroupMembership,
    edge: &Edge,
    claim: Option<&Claim>,
    claim_view: ClaimView,
    context: &Context,
) -> (Access, String) {
    let namespace = object.namespace().unwrap_or_default();
    let deleting = object.metadata.deletion_timestamp.is_some();
    let request = AccessRequest {
        account: &account_key(&object.spec, &namespace),
        namespace: &namespace,
        group: &edge.group,
        claimed_uid: claim.and_then(Claim::account_uid),
        // Revoking a grant must not freeze what the operator joined.
        needs_grant: !(deleting && claim_view == ClaimView::Joined { void: false }),
        deleting,
    };
    let access = context.directory.resolve(request);
    let problem = access.problem(request);
    (access, problem)
}

/// The other live, managing objects on an edge of the same cloud account, oldest first.
#[derive(Debug, Default)]
pub struct Others {
    /// Those that hold the edge and can own it: with a grant now, or with the record `Joined`.
    pub holders: Vec<ObjectView>,
    /// Those with any record.
    recorded: Vec<ObjectView>,
    /// Whether another holder cannot be read or written now.
    pub out_of_reach: bool,
    /// Those that this pass has found to be gone, or cannot read.
    pub dismissed: Vec<ObjectUid>,
}

impl Others {
    /// An object without a grant holds an edge only by a record `Joined`: otherwise any tenant could keep any edge. Nor does an
    /// object hold one that refuses to take over what it has no record of.
    fn of(
        mut others: Vec<ObjectView>,
        edge: &Edge,
        own: Option<&AccountUid>,
        context: &Context,
    ) -> Self {
        let Some(own) = own else {
            return Self::default();
        };
        others.retain(|other| {
            // Anybody can write an intent.
            let record = other
                .claim
                .as_ref()
                .filter(|claim| claim.record().is_some());
            let uid = record
                .and_then(Claim::account_uid)
                .cloned()
                .or_else(|| context.directory.uid(other.account()?));
            other.managed && !other.deleting && uid.as_ref() == Some(own)
        });
        let is_granted = |other: &ObjectView| context.granted_uid(other, edge).is_some();
        let recorded: Vec<_> = others
            .iter()
            .filter(|other| other.record().is_some())
            .cloned()
            .collect();
        others.retain(|other| match other.record() {
            Some(Origin::Joined) => true,
            Some(Origin::Adopted) => is_granted(other),
            None => !other.refuses && is_granted(other),
        });
        let all = others.len();
        others.retain(|other| other.readable);
        Self {
            out_of_reach: others.len() < all,
            holders: others,
            recorded,
            ..Self::default()
        }
    }

    /// Whether there is a holder.
    #[must_use]
    pub fn holder(&self) -> Holder {
        match self.holders.first() {
            None if self.out_of_reach => Holder::OutOfReach,
            None => Holder::None,
            Some(_) => Holder::Successor,
        }
    }

    fn elsewhere(&self) -> Elsewhere {
        let joined = |other: &ObjectView| other.record() == Some(Origin::Joined);
        Elsewhere {
            joined: self.recorded.iter().any(joined),
            recorded: !self.recorded.is_empty(),
        }
    }
}
