//! The rows, and their indexes by edge and by account. Who changes a row keeps the indexes right through this file alone.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kube::runtime::reflector::ObjectRef;
use smallvec::SmallVec;

use crate::account::key::{AccountKey, AccountRegion};
use crate::api::SecurityGroupMembership;
use crate::api::membership::Origin;
use crate::ecs::{Edge, Region, SecurityGroupId, Target};
use crate::kubernetes::ObjectUid;

use super::super::history::History;
use super::super::ledger::Ledger;
use super::super::object::Object;
use super::super::observation::LastObservation;
use super::super::repairs::Repairs;
use super::object_view::{Names, ObjectView};

#[derive(Debug)]
pub(super) struct Row {
    /// Boxed, as most of the space of a map is empty after it has grown.
    pub(super) says: Box<ObjectView>,
    pub(super) history: History,
}

#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) by_uid: HashMap<ObjectUid, Row>,
    pub(super) by_edge: HashMap<Edge, Uids>,
    pub(super) by_account: HashMap<Arc<AccountKey>, HashMap<Region, BTreeMap<Target, Uids>>>,
    /// The last calls on each edge.
    pub(super) ledger: Ledger,
    /// The last repairs of each edge.
    pub(super) repairs: Repairs,
    /// Whether any row may have a status in the watch that is not ours.
    pub(super) has_foreign_status: bool,
    /// The objects that are gone and have not been released, as they were stored last. Their rows stay.
    pub(super) unreleased: HashMap<ObjectUid, Arc<Object>>,
}

/// Mostly one UID: few objects share an edge or a target.
pub(super) type Uids = SmallVec<[ObjectUid; 1]>;

impl Rows {
    /// What was read of the edge before a call tells nothing after it.
    pub(super) fn forget_pending(&mut self, edge: &Edge) {
        for uid in self.by_edge.get(edge).into_iter().flatten() {
            if let Some(Row { history, .. }) = self.by_uid.get_mut(uid) {
                history.keep_pending_description(None);
            }
        }
    }

    /// Updates a known object unless `view` is older. A release keeps the version of the object: of two views of that version, the one
    /// without our finalizer is the newer one. Returns the view of an unknown object.
    pub(super) fn renew(&mut self, view: ObjectView) -> Option<ObjectView> {
        let Some(Row { says, history }) = self.by_uid.get_mut(&view.uid) else {
            return Some(view);
        };
        let is_before_release = says.is_released() && view.finalizer;
        if says.resource_version > view.resource_version
            || says.resource_version == view.resource_version && is_before_release
        {
            return None;
        }
        if says.record() != Some(Origin::Joined) && view.record() == Some(Origin::Joined) {
            history.record_appears();
        }
        if says.names == view.names {
            // The names stay, shared with the index.
            says.claim = view.claim;
            says.readable = view.readable;
            says.finalizer = view.finalizer;
            says.managed = view.managed;
            says.refuses = view.refuses;
            says.deleting = view.deleting;
            says.desired = view.desired;
            says.told.renew(view.told);
            says.deleted = view.deleted;
            says.resource_version = view.resource_version;
        } else if let Some(Row { history, .. }) = self.remove(&view.uid) {
            self.add(view, history);
        }
        None
    }

    pub(super) fn add(&mut self, mut says: ObjectView, history: History) {
        let uid = says.uid.clone();
        if let Some(Names { edge, account }) = &mut says.names {
            let on_edge = self.by_edge.entry(edge.clone()).or_default();
            on_edge.push(uid.clone());
            // Share one copy of the account key.
            if let Some((shared, _)) = self.by_account.get_key_value(account) {
                *account = Arc::clone(shared);
            }
            let regions = self.by_account.entry(Arc::clone(account)).or_default();
            let targets = regions.entry(edge.region.clone()).or_default();
            let on_target = targets.entry(edge.target.clone()).or_default();
            on_target.push(uid.clone());
        }
        let says = Box::new(says);
        self.by_uid.insert(uid, Row { says, history });
    }

    pub(super) fn remove(&mut self, uid: &ObjectUid) -> Option<Row> {
        let row = self.by_uid.remove(uid)?;
        self.unreleased.remove(uid);
        if let Some(names) = &row.says.names {
            self.remove_names(uid, names);
        }
        Some(row)
    }

    fn remove_names(&mut self, uid: &ObjectUid, Names { edge, account }: &Names) {
        if let Some(uids) = self.by_edge.get_mut(edge) {
            uids.retain(|other| other != uid);
            if uids.is_empty() {
                self.by_edge.remove(edge);
            }
        }
        let Some(regions) = self.by_account.get_mut(account) else {
            return;
        };
        if let Some(targets) = regions.get_mut(&edge.region) {
            if let Some(uids) = targets.get_mut(&edge.target) {
                uids.retain(|other| other != uid);
                if uids.is_empty() {
                    targets.remove(&edge.target);
                }
            }
            if targets.is_empty() {
                regions.remove(&edge.region);
            }
        }
        if regions.is_empty() {
            self.by_account.remove(account);
        }
    }

    pub(super) fn targets(
        &self,
        AccountRegion { account, region }: &AccountRegion,
    ) -> Option<&BTreeMap<Target, Uids>> {
        self.by_account.get(account)?.get(region)
    }

    /// What the objects of an account say.
    pub(super) fn of_account(&self, account: &AccountKey) -> impl Iterator<Item = &ObjectView> {
        let regions = self.by_account.get(account).into_iter().flatten();
        let uids = regions.flat_map(|(_, targets)| targets.values()).flatten();
        uids.filter_map(|uid| Some(&*self.by_uid.get(uid)?.says))
    }

    /// Calls `look` with the last observation of each object of these targets, and with the object's UID, target and group.
    /// Returns the objects for which it is true.
    pub(super) fn pick(
        &mut self,
        AccountRegion { account, region }: &AccountRegion,
        batch: &[Target],
        mut look: impl FnMut(&ObjectUid, (&Target, &SecurityGroupId), &mut LastObservation) -> bool,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let regions = self.by_account.get(account);
        let Some(targets) = regions.and_then(|regions| regions.get(region)) else {
            return Vec::new();
        };
        let mut picked = Vec::new();
        for target in batch {
            for uid in targets.get(target).into_iter().flatten() {
                if let Some(Row { says, history }) = self.by_uid.get_mut(uid)
                    && let Some(names) = &says.names
                    && let Some(last) = history.observation()
                    && look(uid, (target, &names.edge.group), last)
                {
                    picked.push(says.reference());
                }
            }
        }
        picked
    }

    /// Other objects on the same edge that match `concerns`, limited to those known to use the same cloud account.
    pub(super) fn siblings(
        &self,
        uid: &ObjectUid,
        concerns: impl Fn(&ObjectView) -> bool,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let says = self.by_uid.get(uid).map(|row| &row.says);
        let Some((says, names)) = says.and_then(|says| Some((says, says.names.as_ref()?))) else {
            return Vec::new();
        };
        let account_uid = says.claimed_account();
        let uids = self.by_edge.get(&names.edge);
        uids.into_iter()
            .flatten()
            .filter(|other| **other != *uid)
            .filter_map(|other| Some(&*self.by_uid.get(other)?.says))
            .filter(|other| other.account() == says.account() || other.is_claimed_with(account_uid))
            .filter(|other| concerns(other))
            .map(ObjectView::reference)
            .collect()
    }
}
