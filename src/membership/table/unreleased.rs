//! Objects that are gone with our finalizer on them, and something of ours may be on their edge: their rows stay.

use std::sync::Arc;

use crate::api::SecurityGroupMembership;
use crate::api::membership::{DeletionPolicy, ManagementPolicy, Origin};
use crate::kubernetes::ObjectUid;
use crate::watched::Watched;

use super::super::history::Standing;
use super::super::object::Object;
use super::ObjectTable;
use super::object_view::ObjectView;
use super::rows::Row;

impl ObjectTable {
    /// Keeps the row of an object that the API server has removed with our finalizer on it and without a `deletionTimestamp`, as if
    /// it were being deleted, if something of ours may be on its edge that its policies do not keep. `object` is as it was stored
    /// last. Returns whether the row is kept.
    pub fn keep_unreleased(&self, object: &SecurityGroupMembership) -> bool {
        let Some(view) = ObjectView::of(object) else {
            return false;
        };
        let uid = view.uid.clone();
        let mut inner = self.lock();
        let _unknown = inner.renew(view);
        let Some(Row { says, history }) = inner.by_uid.get_mut(&uid) else {
            return false;
        };
        let is_ours = match (&says.claim, history.standing()) {
            (_, Standing::Void) => false,
            (Some(claim), _) if claim.record() == Some(Origin::Adopted) => false,
            (Some(_), Standing::Joined | Standing::Unknown) | (None, Standing::Joined) => true,
            (None, Standing::Unknown) => false,
        };
        let Some(desired) = says.desired.as_mut().filter(|desired| {
            is_ours
                && desired.management == ManagementPolicy::Manage
                && desired.deletion != DeletionPolicy::Retain
                && !desired.suspended
        }) else {
            return false;
        };
        desired.deleting = true;
        says.deleting = true;
        let mut kept = object.clone();
        kept.metadata.deletion_timestamp = kept.metadata.creation_timestamp.clone();
        inner.unreleased.insert(uid, Arc::new(Watched(Ok(kept))));
        true
    }

    /// The objects whose rows [`Self::keep_unreleased`] keeps.
    #[must_use]
    pub fn unreleased(&self) -> Vec<Arc<Object>> {
        self.lock().unreleased.values().cloned().collect()
    }

    /// Whether [`Self::keep_unreleased`] keeps the row of the object; `None` for an unknown object.
    #[must_use]
    pub fn is_unreleased(&self, uid: &ObjectUid) -> Option<bool> {
        let inner = self.lock();
        let is_known = inner.by_uid.contains_key(uid);
        is_known.then(|| inner.unreleased.contains_key(uid))
    }
}
