//! Objects that are gone although the operator has not released them.
//!
//! The API server removes an object without finalizers at once. If it decides so just before our finalizer is written, the object
//! goes with the finalizer on it and without a `deletionTimestamp`, and what was joined meanwhile would be left. The table keeps the
//! row of such an object, and here are its passes: it is in no store any more from which kube could start them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::api::SecurityGroupMembership;
use crate::ecs::Edge;
use crate::kubernetes::ObjectUid;

use super::admission::Urgency;
use super::context::Context;
use super::object::{Object, has_finalizer};
use super::pass;

/// The watch has shown that an object is gone. One with a `deletionTimestamp` was released, by the operator or by hand.
pub(super) fn deleted(context: &Context, object: &Object) {
    let Some(uid) = ObjectUid::of(object) else {
        return;
    };
    let gone = object.0.as_ref().ok();
    // A standby leaves it to the process that acts.
    let is_released = object.meta().deletion_timestamp.is_some() || !context.shutdown.has_led();
    let gone = gone.filter(|_| !is_released);
    let Some(gone) = gone.filter(|gone| has_finalizer(gone)) else {
        context.forget(&uid);
        return;
    };
    let (namespace, name) = (gone.namespace(), gone.name_any());
    if context.table.keep_unreleased(gone) {
        info!(
            namespace,
            name, "deleted while it was being joined: the operator removes what it has joined"
        );
        return;
    }
    if gone.spec.suspend {
        warn!(
            namespace,
            name,
            "deleted while it was being joined, and suspended: what the operator has joined is left"
        );
    }
    context.forget(&uid);
}

/// A new list no longer shows an object with our finalizer, and its deletion was not seen. Another operator or a person may have
/// released it meanwhile, so that nothing is removed.
pub(super) fn warn_of_missed_deletion(
    context: &Context,
    object: &ObjectRef<SecurityGroupMembership>,
) {
    context.telemetry.count_missed_deletion();
    warn!(
        namespace = object.namespace,
        name = object.name,
        "gone, and its deletion was not seen: if it was deleted while it was being joined, what the operator has joined is left"
    );
}

/// Time between two looks for objects whose pass is due (1 s).
const PERIOD: Duration = Duration::from_secs(1);
/// When a pass over an object that waits for something else begins again (10 s): nothing enqueues it.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Runs the passes over these objects until dropped.
pub async fn run(context: Arc<Context>) {
    let mut due: HashMap<ObjectUid, Instant> = HashMap::new();
    loop {
        let objects = context.table.unreleased();
        due.retain(|uid, _| context.table.is_unreleased(uid) == Some(true));
        let now = Instant::now();
        let is_due = |object: &Arc<Object>| {
            let uid = ObjectUid::of(&**object).unwrap_or_default();
            due.get(&uid).is_none_or(|due| *due <= now)
        };
        let passes = objects.into_iter().filter(is_due);
        let ended = join_all(passes.map(|object| pass_over(object, &context))).await;
        due.extend(ended);
        tokio::time::sleep(PERIOD).await;
    }
}

/// Runs a pass. Returns when the next one is due.
async fn pass_over(object: Arc<Object>, context: &Context) -> (ObjectUid, Instant) {
    let uid = ObjectUid::of(&*object).unwrap_or_default();
    let soon = (uid.clone(), Instant::now() + PERIOD);
    let Ok(readable) = &object.0 else {
        return soon;
    };
    let Ok(edge) = Edge::try_from(&readable.spec) else {
        return soon;
    };
    let applicant = pass::applicant(readable, &edge, Urgency::User, context);
    let Some(slot) = context.admission.enter(applicant) else {
        return soon;
    };
    let wait = match pass::run(Arc::clone(&object), edge, slot, context).await {
        Ok(_) => context
            .table
            .history(&uid, |history| history.due())
            .flatten(),
        Err(error) => {
            debug!(uid = ?uid, "{error}");
            None
        }
    };
    (uid, wait.unwrap_or_else(|| Instant::now() + LOOK_AGAIN))
}
