//! All objects: one row per object, found by UID, by edge and by account. In memory only: no I/O, no decisions.
//!
//! A row has two parts. Its [`ObjectView`] is what the object says, and could be rebuilt from the API server at any time. Its
//! [`History`] is what this process did and observed, and is lost with the process. Both go with the object.

mod calls;
mod object_view;
mod rows;
mod scanned;
mod unreleased;
mod watched;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::runtime::reflector::ObjectRef;

use crate::account::key::{AccountKey, AccountRegion};
use crate::account::uses::AccountUse;
use crate::api::SecurityGroupMembership;
use crate::api::membership::ErrorClass;
use crate::ecs::{Edge, Region, SecurityGroupId};
use crate::kubernetes::{ObjectUid, WatchScope};

use self::rows::{Row, Rows};
use super::decide::Desired;
use super::history::History;
use super::object::{Claim, version_of};
use super::repairs::Repairs;

pub use self::calls::BegunCall;
pub use self::object_view::{Known, ObjectView, Told};
pub use self::scanned::Overdue;

/// The account that objects name, whether they are Ready, and the class of their last error.
pub type Alike<Account> = (Option<Account>, Option<bool>, Option<ErrorClass>);

/// What all objects are like, for the metrics.
#[derive(Debug, Default)]
pub struct Tally {
    /// How many objects name this account, have this Ready and this class of the last error.
    pub counts: Vec<(Alike<AccountKey>, usize)>,
    /// Since when the oldest object has not been Ready, by class of its last error: in seconds since 1970. Those that are suspended
    /// or being deleted do not count.
    pub unready_since: HashMap<Option<ErrorClass>, i64>,
    /// When the oldest object that is being deleted was deleted: in seconds since 1970.
    pub deleting_since: Option<i64>,
    /// Edges in a repair loop.
    pub repair_loops: usize,
}

/// All objects by UID, by edge and by account.
#[derive(Debug, Default)]
pub struct ObjectTable {
    inner: Mutex<Rows>,
}

impl ObjectTable {
    /// What an object says; `None` for an unknown or deleted one.
    #[must_use]
    pub fn view(&self, uid: &ObjectUid) -> Option<ObjectView> {
        Some(ObjectView::clone(&self.lock().by_uid.get(uid)?.says))
    }

    /// Calls `change` with the history of an object. `None` for an unknown or deleted object: nothing brings it back.
    pub fn history<T>(&self, uid: &ObjectUid, change: impl FnOnce(&mut History) -> T) -> Option<T> {
        let mut inner = self.lock();
        Some(change(&mut inner.by_uid.get_mut(uid)?.history))
    }

    /// Calls `change` with the repairs of all edges.
    pub fn repairs<T>(&self, change: impl FnOnce(&mut Repairs) -> T) -> T {
        change(&mut self.lock().repairs)
    }

    /// Drops the calls whose effect every read shows, and the repairs that count no more.
    pub fn drop_old(&self) {
        let mut inner = self.lock();
        inner.ledger.drop_settled();
        inner.repairs.drop_old();
    }

    /// The other objects on this edge, oldest first, for any account.
    #[must_use]
    pub fn others(&self, edge: &Edge, uid: &ObjectUid) -> Vec<ObjectView> {
        let inner = self.lock();
        let mut others: Vec<ObjectView> = inner
            .by_edge
            .get(edge)
            .into_iter()
            .flatten()
            .filter(|other| **other != *uid)
            .filter_map(|other| inner.by_uid.get(other))
            .map(|row| ObjectView::clone(&row.says))
            .collect();
        others.sort_by(|a, b| a.age().cmp(&b.age()));
        others
    }

    /// The objects that name this account.
    #[must_use]
    pub fn of_account(&self, account: &AccountKey) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.of_account_with(account, None, |_| true)
    }

    /// The objects that name this account, in this region or (`None`) in any, and whose target was not a member when it was last
    /// read, or was never read.
    #[must_use]
    pub fn unsettled_of_account(
        &self,
        account: &AccountKey,
        region: Option<&Region>,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.of_account_with(account, region, |history| !history.is_member())
    }

    fn of_account_with(
        &self,
        account: &AccountKey,
        region: Option<&Region>,
        concerns: impl Fn(&History) -> bool,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let inner = self.lock();
        let regions = inner.by_account.get(account).into_iter().flatten();
        regions
            .filter(|(of, _)| region.is_none_or(|region| region == *of))
            .flat_map(|(_, targets)| targets.values())
            .flatten()
            .filter_map(|uid| inner.by_uid.get(uid))
            .filter(|row| concerns(&row.history))
            .map(|row| row.says.reference())
            .collect()
    }

    /// The objects whose last pass waited until a read of their edge counts.
    #[must_use]
    pub fn unsettled(&self) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let inner = self.lock();
        let rows = inner.by_uid.values();
        let unsettled = rows.filter(|row| row.history.is_unsettled());
        unsettled.map(|row| row.says.reference()).collect()
    }

    /// The objects of an account and region that name one of these groups.
    #[must_use]
    pub fn of_groups(
        &self,
        place: &AccountRegion,
        groups: &HashSet<SecurityGroupId>,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let inner = self.lock();
        let objects = inner.of_account(&place.account);
        let concerned = objects.filter(|says| {
            let edge = says.edge();
            edge.is_some_and(|edge| edge.region == place.region && groups.contains(&edge.group))
        });
        concerned.map(ObjectView::reference).collect()
    }

    /// The groups that objects of an account name.
    #[must_use]
    pub fn groups_of(&self, account: &AccountKey) -> HashSet<(Region, SecurityGroupId)> {
        let inner = self.lock();
        let edges = inner.of_account(account).filter_map(ObjectView::edge);
        edges
            .map(|edge| (edge.region.clone(), edge.group.clone()))
            .collect()
    }

    /// Who uses each account.
    #[must_use]
    pub fn account_uses(&self) -> HashMap<AccountKey, AccountUse> {
        let mut counts: HashMap<AccountKey, AccountUse> = HashMap::new();
        for row in self.lock().by_uid.values() {
            let Some(names) = &row.says.names else {
                continue;
            };
            let of_account = match counts.get_mut(&*names.account) {
                Some(of_account) => of_account,
                None => counts.entry(AccountKey::clone(&names.account)).or_default(),
            };
            of_account.memberships += 1;
            of_account.joined += usize::from(row.says.needs_account());
        }
        counts
    }

    /// What the status of an object tells; `None` for an unknown object.
    #[must_use]
    pub fn told(&self, uid: &ObjectUid) -> Option<Told> {
        Some(self.lock().by_uid.get(uid)?.says.told)
    }

    /// How many objects there are of each account and condition, and since when the oldest ones wait.
    #[must_use]
    pub fn tally(&self) -> Tally {
        let inner = self.lock();
        let mut tally = Tally::default();
        let mut counts = HashMap::<Alike<&AccountKey>, usize>::new();
        for Row { says, .. } in inner.by_uid.values() {
            let Told {
                ready,
                class,
                since,
            } = says.told;
            *counts.entry((says.account(), ready, class)).or_default() += 1;
            let suspended = says.desired.is_some_and(|desired| desired.suspended);
            if says.deleting {
                let oldest = tally.deleting_since.get_or_insert(says.deleted);
                *oldest = says.deleted.min(*oldest);
            } else if ready != Some(true) && !suspended {
                let oldest = tally.unready_since.entry(class).or_insert(since);
                *oldest = since.min(*oldest);
            }
        }
        let counts = counts.into_iter();
        tally.counts = counts
            .map(|((account, ready, class), count)| ((account.cloned(), ready, class), count))
            .collect();
        tally.repair_loops = inner.repairs.loops();
        tally
    }

    /// The accounts and regions that objects name.
    #[must_use]
    pub fn account_regions(&self) -> Vec<AccountRegion> {
        let inner = self.lock();
        let mut named = Vec::new();
        for (account, regions) in &inner.by_account {
            named.extend(regions.keys().map(|region| AccountRegion {
                account: AccountKey::clone(account),
                region: region.clone(),
            }));
        }
        named
    }

    /// The objects in this namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.all_with(|says| *says.namespace == *namespace)
    }

    /// The objects that are being deleted.
    #[must_use]
    pub fn deleting(&self) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.all_with(|says| says.deleting)
    }

    fn all_with(
        &self,
        concerns: impl Fn(&ObjectView) -> bool,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let inner = self.lock();
        let views = inner.by_uid.values().map(|row| &*row.says);
        let concerned = views.filter(|says| says.names.is_some() && concerns(says));
        concerned.map(ObjectView::reference).collect()
    }

    /// The claim on an object: from `object`, or from our own newer write if the watch lags behind it.
    #[must_use]
    pub fn claim(&self, object: &SecurityGroupMembership) -> Option<Claim> {
        let uid = ObjectUid::of(object).unwrap_or_default();
        match self.lock().by_uid.get(&uid) {
            Some(Row { says, .. }) if says.resource_version > version_of(&object.metadata) => {
                says.claim.clone()
            }
            Some(_) | None => Claim::of(object),
        }
    }

    /// What the newest known spec of an object asks for; `None` for an unknown object.
    #[must_use]
    pub fn desired(&self, uid: &ObjectUid) -> Option<Desired> {
        self.lock().by_uid.get(uid)?.says.desired
    }

    /// Whether our finalizer is on an object, in its newest known version.
    #[must_use]
    pub fn has_finalizer(&self, uid: &ObjectUid) -> bool {
        let inner = self.lock();
        inner.by_uid.get(uid).is_some_and(|row| row.says.finalizer)
    }

    /// The newest known version of an object, from the watch or from our own writes; `None` for an unknown object.
    #[must_use]
    pub fn known_version(&self, uid: &ObjectUid) -> Option<u64> {
        let inner = self.lock();
        Some(inner.by_uid.get(uid)?.says.resource_version)
    }

    /// What is known of each object in this scope.
    #[must_use]
    pub fn known_in(&self, scope: &WatchScope) -> HashMap<ObjectUid, Known> {
        let inner = self.lock();
        let rows = inner.by_uid.iter();
        let in_scope = rows.filter(|(_, row)| scope.contains(&row.says.namespace));
        in_scope
            .map(|(uid, row)| (uid.clone(), row.says.known()))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Rows> {
        // No code panics while it holds this lock, so the table behind a poisoned lock is still consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
