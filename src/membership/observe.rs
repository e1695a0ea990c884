//! Collects the observed state of a pass: account, grants and siblings from memory, the target from the cloud. Reads only.

use std::sync::Arc;

use kube::ResourceExt as _;

use crate::account::directory::TargetTags;
use crate::account::session::{AccountSession, CallError, CallPermit};
use crate::api::{SecurityGroupMembership, reason};
use crate::condition;
use crate::ecs::limit::Reservation;
use crate::ecs::{AccountUid, Action, Class, Edge, Error, TargetDescription};
use crate::kubernetes::{self, ObjectUid};

use super::access::{access, access_view, claim, claim_view};
use super::admission::Slot;
use super::context::Context;
use super::decide::{
    self, AccessView, Attempt, ClaimView, Desired, EdgeView, Elsewhere, Holder, Observed, ReadTrust,
};
use super::object::{
    Claim, Object, account_key, desired, has_finalizer, is_unanswered, own_status,
};
use super::others::Others;
use super::status::Ending;
use super::view::EdgeList;

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
    /// The tags of which the target must have some, where the grants ask for them.
    pub(super) target_tags: Option<TargetTags>,
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
        let target_tags = access.target_tags().cloned();
        let account = access.session();
        let claimed_account = claim.as_ref().and_then(Claim::account_uid).cloned();
        let account_uid = claimed_account.or_else(|| Some(account.as_ref()?.uid.clone()));
        let on_edge = context.table.others(&edge, &uid);
        let account_key = account_key(&object.spec, &object.namespace().unwrap_or_default());
        let others = Others::of(on_edge, &edge, account_uid.as_ref(), &account_key, context);
        let own = account_uid.as_ref();
        // Another pass may have done all but remove the finalizer.
        let ending = context.table.history(&uid, |history| history.ending());
        let ending = ending.flatten();
        let observed = Observed {
            account: account_view,
            claim: claim_view,
            join_is_open: own.is_some_and(|account| join_is_open(account, &edge, context)),
            holder: others.holder(),
            elsewhere: others.elsewhere(),
            synced: context.may_remove() && !others.is_being_checked,
            attempt: ending.map_or(Attempt::None, Ending::attempt),
            repairs: own.map_or(0, |account| repairs(object, account, &edge, context)),
            ..unread(object, context)
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
            target_tags,
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
        let object = self.object();
        let account_key = account_key(&object.spec, &object.namespace().unwrap_or_default());
        let own = self.account_uid.as_ref();
        let others = Others::of(on_edge, &self.edge, own, &account_key, context);
        self.others = Others {
            out_of_reach: others.out_of_reach || self.others.out_of_reach,
            dismissed,
            ..others
        };
        self.observed.holder = self.others.holder();
        self.observed.elsewhere = self.others.elsewhere();
        self.observed.synced = context.may_remove() && !self.others.is_being_checked;
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

/// What is observed of the object alone, before anything is read or tried.
fn unread(object: &SecurityGroupMembership, context: &Context) -> Observed {
    Observed {
        account: AccessView::Checking,
        claim: ClaimView::None,
        finalizer: has_finalizer(object),
        confirmed: false,
        target: decide::TargetView::Unread,
        karpenter: false,
        trust: ReadTrust::AfterStart,
        join_is_open: false,
        holder: Holder::None,
        elsewhere: Elsewhere::default(),
        admitted: false,
        view: EdgeView::Stale,
        attempt: Attempt::None,
        drifted: own_status(object)
            .is_some_and(|status| condition::is_true(&status.conditions, reason::DRIFTED)),
        repairs: 0,
        synced: context.may_remove(),
    }
}

/// Whether a Join on the edge may still take effect, of this process or of one that left a granted intent.
fn join_is_open(account: &AccountUid, edge: &Edge, context: &Context) -> bool {
    count_found_intents(account, edge, context);
    context.table.join_is_open(account, edge)
}

/// Counts the granted intents of other processes on the edge as open Joins.
pub(super) fn count_found_intents(account: &AccountUid, edge: &Edge, context: &Context) {
    context.table.count_found_intents(account, edge, |view| {
        context.granted_uid_if(view, edge, true).as_ref() == Some(account)
    });
}

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
