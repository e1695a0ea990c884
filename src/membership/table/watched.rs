//! What the watch and our own writes show of objects: rows that come, change and go.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::ObjectRef;

use crate::api::SecurityGroupMembership;
use crate::kubernetes::ObjectUid;
use crate::watched::Unreadable;

use super::super::history::{History, Standing};
use super::super::object::Claim;
use super::ObjectTable;
use super::object_view::ObjectView;
use super::rows::{Row, Rows};

impl ObjectTable {
    /// Inserts or updates an object from the watch. Returns the objects to requeue. A view older than the stored one
    /// is ignored.
    pub fn insert(
        &self,
        object: &SecurityGroupMembership,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        if let Some(view) = ObjectView::of(object) {
            self.insert_view(view)
        } else {
            self.insert_metadata(&object.metadata);
            Vec::new()
        }
    }

    /// Inserts or updates an object from the watch that this version cannot read. Returns the objects to requeue.
    pub fn insert_unreadable(
        &self,
        unreadable: &Unreadable,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        match ObjectView::of_unreadable(unreadable) {
            Some(view) if view.names.is_some() => self.insert_view(view),
            Some(_) | None => {
                self.insert_metadata(&unreadable.metadata);
                Vec::new()
            }
        }
    }

    /// Whether the object gets an intent now that neither this process nor one before it wrote. False for the first minute after
    /// the calls of that one have ended: what it wrote may appear late.
    #[must_use]
    pub fn shows_foreign_intent(&self, object: &SecurityGroupMembership) -> bool {
        let Some(Claim::Intent { .. }) = Claim::of(object) else {
            return false;
        };
        let inner = self.lock();
        let row = ObjectUid::of(object).and_then(|uid| inner.by_uid.get(&uid));
        row.is_some_and(|row| row.says.claim.is_none() && !row.history.has_intended())
            && inner.ledger.acts_alone()
    }

    /// The API server did not take the first intent of this process, because the object had changed. Returns whether another
    /// operator's intent was there before.
    #[must_use]
    pub fn first_intent_was_late(&self, uid: &ObjectUid) -> bool {
        let mut inner = self.lock();
        let acts_alone = inner.ledger.acts_alone();
        let Some(row) = inner.by_uid.get_mut(uid) else {
            return false;
        };
        row.history.intends_nothing();
        acts_alone && matches!(row.says.claim, Some(Claim::Intent { .. }))
    }

    fn insert_view(&self, view: ObjectView) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let uid = view.uid.clone();
        let mut inner = self.lock();
        // It was gone without a release, and is there: the store was put back. It is met like one of an earlier process.
        if inner.unreleased.contains_key(&uid) {
            inner.remove(&uid);
        }
        let before = inner.by_uid.get(&uid).map(|row| row.says.hold());
        inner.note_late_intent(&view);
        if let Some(new) = inner.renew(view) {
            let mut history = History::default();
            if matches!(new.claim, Some(Claim::Intent { .. })) {
                history.found_intent();
            }
            inner.add(new, history);
        }
        let Some(Row { says, history }) = inner.by_uid.get(&uid) else {
            return Vec::new();
        };
        let Some(before) = before else {
            // A sibling that is being deleted may have been waiting for a successor.
            return inner.siblings(&uid, |other| other.deleting);
        };
        let owns = says.record().is_some() && history.standing() != Standing::Void;
        let lost = !says.deleting && before.finalizer && !says.finalizer && owns;
        if !lost && (before.managed, before.readable) == (says.managed, says.readable) {
            return Vec::new();
        }
        // A user removed the finalizer of an owner by hand or with `kubectl replace`: it is requeued to write it again.
        let own = lost.then(|| says.reference());
        let mut concerned = inner.siblings(&uid, |_| true);
        concerned.extend(own);
        concerned
    }

    /// Inserts an object from the watch of which this version can read only the metadata. A row that named an edge before keeps its
    /// view, as long as the object is not deleted.
    fn insert_metadata(&self, metadata: &ObjectMeta) {
        let Some(view) = ObjectView::of_metadata(metadata) else {
            return;
        };
        let mut inner = self.lock();
        match inner.by_uid.get_mut(&view.uid) {
            Some(row) => row.says.deleting |= view.deleting,
            None => inner.add(view, History::default()),
        }
    }

    /// Updates an object from the API server's answer to our own write. An object that the watch has already reported
    /// deleted is not inserted again.
    pub fn written(&self, object: &SecurityGroupMembership) {
        if let Some(view) = ObjectView::of(object) {
            let _unknown = self.lock().renew(view);
        }
    }

    /// Removes a deleted object. Returns the objects to requeue: the siblings of an object that was deleted while it still
    /// carried a claim.
    pub fn remove(&self, uid: &ObjectUid) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let mut inner = self.lock();
        let held = inner
            .by_uid
            .get(uid)
            .is_some_and(|row| row.says.claim.is_some());
        let concerned = if held {
            inner.siblings(uid, |_| true)
        } else {
            Vec::new()
        };
        inner.remove(uid);
        concerned
    }

    /// Records that `trigger_hash` triggers a pass. Returns whether it differs from the hash of the last triggered pass, or a
    /// pass waits for a view of this version. Always `true` for an object that names no edge.
    #[must_use]
    pub fn mark_triggered(&self, uid: &ObjectUid, trigger_hash: u64, version: u64) -> bool {
        let mut inner = self.lock();
        let row = inner.by_uid.get_mut(uid);
        row.filter(|row| row.says.names.is_some())
            .is_none_or(|Row { says, history }| {
                history.mark_triggered(trigger_hash, version >= says.resource_version)
            })
    }

    /// The objects for which `keep` is false. Used after a complete relist, to find deleted objects.
    #[must_use]
    pub fn all_but(&self, keep: impl Fn(&ObjectView) -> bool) -> Vec<ObjectView> {
        let inner = self.lock();
        let gone = inner.by_uid.values().map(|row| &*row.says);
        let gone = gone.filter(|says| !keep(says) && !inner.unreleased.contains_key(&says.uid));
        gone.cloned().collect()
    }

    /// Compares the watched status with the one last written. A difference means watch lag or a foreign write.
    pub fn compare_watched_status(&self, uid: &ObjectUid, status_hash: impl FnOnce() -> u64) {
        let mut inner = self.lock();
        let Some(row) = inner.by_uid.get_mut(uid) else {
            return;
        };
        let differs = row.history.compare_watched_status(status_hash);
        inner.has_foreign_status |= differs;
    }

    /// The objects whose watched status has differed from the written one for `STATUS_WATCH_LAG` (10 s). Returns each
    /// difference once.
    #[must_use]
    pub fn foreign_statuses(&self) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let mut inner = self.lock();
        let mut foreign = Vec::new();
        if !inner.has_foreign_status {
            return foreign;
        }
        let mut any_left = false;
        for Row { says, history } in inner.by_uid.values_mut() {
            if history.take_foreign_status() {
                foreign.push(says.reference());
            }
            any_left |= history.has_foreign_status();
        }
        inner.has_foreign_status = any_left;
        foreign
    }
}

impl Rows {
    /// The watch may lag: an intent that appears while calls of the process before this one may be under way may be its own.
    fn note_late_intent(&mut self, view: &ObjectView) {
        let is_intent = |claim: &Option<Claim>| matches!(claim, Some(Claim::Intent { .. }));
        if is_intent(&view.claim)
            && self.ledger.others_may_be_calling()
            && let Some(Row { says, history }) = self.by_uid.get_mut(&view.uid)
            && !is_intent(&says.claim)
        {
            history.found_intent();
        }
    }
}
