//! Notices that another operator acts on the same objects: there is an intent that this process has not written.

use kube::ResourceExt as _;
use tracing::warn;

use crate::api::SecurityGroupMembership;
use crate::kubernetes::ObjectUid;

use super::context::Context;
use super::object::Object;

/// Warns if the object has just got the intent of another operator.
pub(super) fn notice(object: &Object, context: &Context) {
    if let Ok(object) = &object.0
        && context.shutdown.has_led()
        && context.table.shows_foreign_intent(object)
    {
        warn_once(object, context);
    }
}

/// The API server did not take the first intent of this process. Warns if another operator's was there before.
pub(super) fn notice_conflict(
    object: &SecurityGroupMembership,
    uid: &ObjectUid,
    context: &Context,
) {
    if context.table.first_intent_was_late(uid) {
        warn_once(object, context);
    }
}

/// Warns once, until it has not occurred for 6 minutes.
fn warn_once(object: &SecurityGroupMembership, context: &Context) {
    if context.logged.is_first("another operator") {
        warn!(
            namespace = object.namespace(),
            name = object.name_any(),
            "another operator joins targets for the same memberships: each takes the other's joins for somebody else's. Run \
             one operator per namespace: with --leader-elect and one --operator-namespace for all replicas, or with --namespace \
             for each of several"
        );
    }
}
