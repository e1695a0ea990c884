//! Notices that another operator acts on the same objects: the watch shows an intent that this process has not written.

use kube::ResourceExt as _;
use tracing::warn;

use super::context::Context;
use super::object::Object;

/// Warns, once until it has not occurred for 6 minutes, if the object has just got the intent of another operator.
pub(super) fn notice(object: &Object, context: &Context) {
    let Ok(object) = &object.0 else {
        return;
    };
    if !context.shutdown.has_led() || !context.table.shows_foreign_intent(object) {
        return;
    }
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
