//! The other objects on an edge: who of them holds it, and who of them has a record. Reads memory only.

use crate::account::key::AccountKey;
use crate::api::membership::{AccountKind, Origin};
use crate::ecs::{AccountUid, Edge};
use crate::kubernetes::ObjectUid;

use super::context::Context;
use super::decide::{Elsewhere, Holder};
use super::object::Claim;
use super::table::ObjectView;

/// The other live, managing objects on an edge of the same cloud account, oldest first.
#[derive(Debug, Default)]
pub struct Others {
    /// Those that hold the edge and can own it: with a grant now, or with the record `Joined`.
    pub holders: Vec<ObjectView>,
    /// Those with any record.
    pub(super) recorded: Vec<ObjectView>,
    /// Whether another holder cannot be read or written now.
    pub out_of_reach: bool,
    /// Whether another object may turn out to be a holder when the first check of its account has ended.
    pub is_being_checked: bool,
    /// Those that this pass has found to be gone, or cannot read.
    pub dismissed: Vec<ObjectUid>,
}

impl Others {
    /// An object without a grant holds an edge only by a record `Joined`: otherwise any tenant could keep any edge. Nor does an
    /// object hold one that refuses to take over what it has no record of.
    pub(super) fn of(
        mut others: Vec<ObjectView>,
        edge: &Edge,
        own: Option<&AccountUid>,
        account: &AccountKey,
        context: &Context,
    ) -> Self {
        let Some(own) = own else {
            return Self::default();
        };
        let sts = |key: &AccountKey| Some(context.directory.cloud(key)?.endpoints.sts());
        let own_sts = sts(account);
        let is_being_checked = others.iter().any(|other| {
            let is_elsewhere = other.record().is_some() && !other.is_claimed_with(Some(own));
            other.may_own() && !is_elsewhere && is_being_checked(other, edge, context)
        });
        others.retain(|other| {
            // Whose account it is counts only as the STS says it that this object's account has asked: another endpoint may say
            // what it likes.
            let other_sts = other.account().and_then(sts);
            let is_same_sts = own_sts.is_none() || other_sts.is_none() || own_sts == other_sts;
            // Anybody can write an intent.
            let record = other
                .claim
                .as_ref()
                .filter(|claim| claim.record().is_some());
            let uid = record
                .and_then(Claim::account_uid)
                .cloned()
                .or_else(|| context.directory.uid(other.account()?));
            other.may_own() && is_same_sts && uid.as_ref() == Some(own)
        });
        let is_granted = |other: &ObjectView| context.granted_uid(other, edge).is_some();
        let recorded: Vec<_> = others
            .iter()
            .filter(|other| other.record().is_some())
            .cloned()
            .collect();
        others.retain(|other| other.record() == Some(Origin::Joined) || is_granted(other));
        let all = others.len();
        others.retain(|other| other.readable);
        Self {
            out_of_reach: others.len() < all,
            is_being_checked,
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

    pub(super) fn elsewhere(&self) -> Elsewhere {
        let joined = |other: &ObjectView| other.record() == Some(Origin::Joined);
        Elsewhere {
            joined: self.recorded.iter().any(joined),
            recorded: !self.recorded.is_empty(),
        }
    }
}

/// Whether an object may turn out to hold the edge when the first check of its account has ended. Without a record it must name an
/// account of the cluster: otherwise any tenant could hold up the deletions of others.
fn is_being_checked(other: &ObjectView, edge: &Edge, context: &Context) -> bool {
    let is_recorded = other.record().is_some();
    other.account().is_some_and(|account| {
        let is_of_cluster = account.kind == AccountKind::ClusterCloudAccount;
        let place = (&edge.region, &edge.group);
        (is_recorded || is_of_cluster)
            && context
                .directory
                .is_checking(account, &other.namespace, place, is_recorded)
    })
}
