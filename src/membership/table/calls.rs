//! What calls and reads of an edge tell of the claims on it.

use tokio::time::Instant;

use crate::ecs::{AccountUid, Edge};
use crate::kubernetes::ObjectUid;

use super::super::decide::ReadTrust;
use super::super::history::{ClaimEvent, Standing};
use super::super::ledger::{EdgeCall, Effect, LastCall};
use super::super::object::Claim;
use super::ObjectTable;
use super::object_view::ObjectView;
use super::rows::{Row, Rows};

/// A call that has begun, and what was known before it.
#[derive(Clone, Copy, Debug)]
pub struct BegunCall {
    call: EdgeCall,
    last: Option<LastCall>,
    standing: Standing,
}

impl ObjectTable {
    /// Records that a call on the edge of an object begins: from now on it may have had its effect.
    #[must_use]
    pub fn call_began(
        &self,
        uid: &ObjectUid,
        account: &AccountUid,
        edge: &Edge,
        call: EdgeCall,
    ) -> BegunCall {
        let mut inner = self.lock();
        let last = inner.ledger.began(account, edge, call);
        inner.forget_pending(edge);
        let history = inner.by_uid.get_mut(uid).map(|row| &mut row.history);
        let standing = history.map_or(Standing::Unknown, |history| {
            let standing = history.standing();
            if call == EdgeCall::Join {
                history.learns(ClaimEvent::JoinBegins);
                history.joins_with(account);
            }
            standing
        });
        BegunCall {
            call,
            last,
            standing,
        }
    }

    /// Records what the answer of a call tells. A Join that was accepted counts for every claim on the edge, and so does a Leave
    /// that was answered for good. A call of unknown outcome speaks only for the claim that it was sent under.
    pub fn call_ended(
        &self,
        uid: &ObjectUid,
        account: &AccountUid,
        edge: &Edge,
        begun: BegunCall,
        effect: Effect,
    ) {
        let mut inner = self.lock();
        inner.ledger.ended(account, edge, begun.last, effect);
        let is_open = inner.ledger.join_is_open(account, edge);
        match (begun.call, effect) {
            (EdgeCall::Join, Effect::Done) => {
                inner.each_claim(account, edge, ClaimEvent::JoinedForAnother);
                inner.learns(uid, ClaimEvent::Joined);
            }
            (EdgeCall::Join, Effect::None) => {
                inner.learns(uid, ClaimEvent::JoinRefused(begun.standing));
                if let Some(row) = inner.by_uid.get_mut(uid).filter(|_| !is_open) {
                    row.history.no_join_is_open();
                }
            }
            (EdgeCall::Leave, Effect::Done) if !is_open => inner.void(account, edge),
            (EdgeCall::Leave, Effect::Done | Effect::None)
            | (EdgeCall::Join | EdgeCall::Leave, Effect::Unknown) => {}
        }
    }

    /// Whether no process before this one can have written what appears now.
    #[must_use]
    pub fn acts_alone(&self) -> bool {
        self.lock().ledger.acts_alone()
    }

    /// Records that an object has gone and left the membership there. It is others' from now on, unless another object holds it.
    pub fn retained(&self, uid: &ObjectUid, account: &AccountUid, edge: &Edge) {
        let mut inner = self.lock();
        let on_edge = inner.by_edge.get(edge).into_iter().flatten();
        if !on_edge.into_iter().any(|other| other != uid) {
            inner.ledger.retained(account, edge);
        }
    }

    /// Records a read of the edge that began at `began`. Returns whether it counts. A read that counts and lists the target
    /// without the group makes every claim on the edge void.
    pub fn read_edge(
        &self,
        account: &AccountUid,
        edge: &Edge,
        began: Instant,
        member: bool,
    ) -> ReadTrust {
        let mut inner = self.lock();
        let trust = inner.ledger.trust(account, edge, began, member);
        if trust == ReadTrust::Settled && !member {
            inner.void(account, edge);
        }
        trust
    }

    /// Counts the intents of other processes on the edge as open Joins, if `is_granted` is true for their objects: anybody can
    /// write an intent.
    pub fn count_found_intents(
        &self,
        account: &AccountUid,
        edge: &Edge,
        is_granted: impl Fn(&ObjectView) -> bool,
    ) {
        let mut inner = self.lock();
        let Rows {
            by_uid,
            by_edge,
            ledger,
            ..
        } = &mut *inner;
        for uid in by_edge.get(edge).into_iter().flatten() {
            if let Some(Row { says, history }) = by_uid.get(uid)
                && let Some(found_at) = history.found_intent_at()
                && says.claimed_account() == Some(account)
                && is_granted(says)
            {
                ledger.found_intent(account, edge, found_at);
            }
        }
    }

    /// Records that the process begins to act now: an intent without a record is a Join that a process before it may have sent. With
    /// `others_may_call`, calls of that process may still be under way.
    pub fn begins_to_act(&self, others_may_call: bool) {
        let mut inner = self.lock();
        inner.ledger.begins_to_act(others_may_call);
        for Row { says, history } in inner.by_uid.values_mut() {
            if matches!(says.claim, Some(Claim::Intent { .. })) {
                history.found_intent();
            }
        }
    }

    /// Records that the calls of the process before this one have ended by now.
    pub fn others_have_ended(&self) {
        self.lock().ledger.others_have_ended();
    }

    /// Whether a call of a process before this one may still have its effect.
    #[must_use]
    pub fn others_may_be_calling(&self) -> bool {
        self.lock().ledger.others_may_be_calling()
    }

    /// Whether any call, of this process or one before it, may still have an effect.
    #[must_use]
    pub fn has_open_calls(&self) -> bool {
        self.lock().ledger.has_open_calls()
    }

    /// Whether a Join on the edge, whose outcome is unknown, may still take effect.
    #[must_use]
    pub fn join_is_open(&self, account: &AccountUid, edge: &Edge) -> bool {
        self.lock().ledger.join_is_open(account, edge)
    }

    /// When a read of the edge will count, if no other call is made.
    #[must_use]
    pub fn settles_at(&self, account: &AccountUid, edge: &Edge) -> Instant {
        self.lock().ledger.settles_at(account, edge)
    }
}

impl Rows {
    fn learns(&mut self, uid: &ObjectUid, event: ClaimEvent) {
        if let Some(row) = self.by_uid.get_mut(uid) {
            row.history.learns(event);
        }
    }

    /// Nothing of ours is on the edge any more.
    pub(super) fn void(&mut self, account: &AccountUid, edge: &Edge) {
        self.each_claim(account, edge, ClaimEvent::NothingOurs);
    }

    /// Records an event for each object on the edge that has, or may get, a claim of this cloud account.
    fn each_claim(&mut self, account: &AccountUid, edge: &Edge, event: ClaimEvent) {
        for uid in self.by_edge.get(edge).into_iter().flatten() {
            if let Some(Row { says, history }) = self.by_uid.get_mut(uid)
                && says.claimed_account().is_none_or(|uid| uid == account)
            {
                history.learns(event);
            }
        }
    }
}
