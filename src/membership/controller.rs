//! Wires watch, pass and requeue together. Decides nothing itself.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use tokio::time::Instant;
use tracing::warn;

use crate::api::membership::{DeletionPolicy, ErrorClass};
use crate::api::{SecurityGroupMembership, reason};
use crate::condition;
use crate::kubernetes::changed::{applied, stored};
use crate::kubernetes::{self, ObjectUid, WatchLog, WatchScope};

use super::act::ActError;
use super::admission::Urgency;
use super::conclusion;
use super::context::Context;
use super::history::{History, WATCH_LAG};
use super::invalid_spec;
use super::object::{Object, forget_recorded_intent, is_unanswered, version_of};
use super::other_operator;
use super::packed::Packed;
use super::pass;
use super::refusal::log_failure;
use super::table::Known;
use super::unreleased;
use super::view::Made;

/// When a pass begins again over an object that was gone for the last one, and not for the watch (1 minute).
const AFTER_GONE: Duration = Duration::from_secs(60);

/// Runs the controller of one scope (one namespace, or all) until shutdown has begun and its passes have ended. `observe` gets every
/// event of its watch.
pub async fn run(
    context: Arc<Context>,
    scope: WatchScope,
    queue: impl Stream<Item = ObjectRef<SecurityGroupMembership>> + Send + 'static,
    mut observe: impl FnMut(&watcher::Event<Object>) + Send + 'static,
) {
    let api: Api<Object> = scope.api(&context.client);
    let (reader, mut store) = reflector::store();
    let table_context = Arc::clone(&context);
    let filter_context = Arc::clone(&context);
    let mut scope = Scope {
        watched: scope,
        unlisted: HashMap::new(),
        list_began: Instant::now(),
        listed: false,
    };
    let objects = watcher(api, kubernetes::watch_config())
        .modify(forget_recorded_intent)
        .inspect_ok(move |event| {
            scope.keep_table(&table_context, event);
            observe(event);
            // Before the filter: the store must also have the versions that start no pass.
            store.apply_watcher_event(&Packed::event(event));
        });
    let objects = stored(objects, move |event| {
        let object = applied(event)?;
        mark_triggered(&object, &filter_context).then(|| Packed::name(&object))
    });
    let queue = queue.map(|object| {
        let mut reference = ObjectRef::new(&object.name);
        reference.namespace = object.namespace;
        reference
    });
    let log = WatchLog::new("SecurityGroupMembership");
    let ends_unlisted = kubernetes::ends_unlisted(reader.clone(), context.shutdown.clone());
    let controller = Controller::for_stream(objects, reader)
        .reconcile_on(queue)
        .reconcile_all_on(kubernetes::once(context.shutdown.begins_to_lead()))
        .graceful_shutdown_on(context.shutdown.begun())
        .run(reconcile, on_error, context)
        .for_each(|result| {
            log.result(result);
            std::future::ready(())
        });
    tokio::select! {
        biased;
        () = controller => {}
        () = ends_unlisted => {}
    }
}

/// Whether a user has changed the object since it last started a pass. Our own writes start none.
fn mark_triggered(object: &Object, context: &Context) -> bool {
    let version = version_of(object.meta());
    ObjectUid::of(object).is_none_or(|uid| {
        context
            .table
            .mark_triggered(&uid, kubernetes::trigger_hash(object), version)
    })
}

/// Keeps the rows of one scope in step with its watch.
struct Scope {
    watched: WatchScope,
    /// The objects that were known when the list began and that it has not shown yet.
    unlisted: HashMap<ObjectUid, Known>,
    list_began: Instant,
    listed: bool,
}

impl Scope {
    fn keep_table(&mut self, context: &Context, event: &watcher::Event<Object>) {
        match event {
            watcher::Event::Init => {
                self.unlisted = context.table.known_in(&self.watched);
                self.list_began = Instant::now();
            }
            watcher::Event::InitApply(object) => {
                self.forget_if_put_back(context, object);
                insert(context, object);
            }
            watcher::Event::Apply(object) => {
                other_operator::notice(object, context);
                insert(context, object);
                self.shown(context, object, Made::Version(version_of(object.meta())));
            }
            watcher::Event::Delete(object) => {
                unreleased::deleted(context, object);
                self.shown(context, object, Made::Deletion);
            }
            watcher::Event::InitDone => {
                let unlisted = std::mem::take(&mut self.unlisted);
                let gone = context
                    .table
                    .all_but(|view| !unlisted.contains_key(&view.uid));
                for view in gone {
                    if view.finalizer && !view.deleting {
                        unreleased::warn_of_missed_deletion(context, &view.reference());
                    }
                    context.forget(&view.uid);
                }
                context.view.listed(&self.watched, self.list_began);
                if !self.listed {
                    self.listed = true;
                    context.scope_listed();
                }
            }
        }
    }
}

impl Scope {
    /// A list shows an object at least as it was stored when the list began. If it shows an older one than was known by then, the
    /// store was put back to an earlier state, for example from a backup. What this process knows of the object is no longer true then:
    /// it is met like one of an earlier process.
    fn forget_if_put_back(&mut self, context: &Context, object: &Object) {
        let Some(uid) = ObjectUid::of(object) else {
            return;
        };
        let known = self.unlisted.remove(&uid);
        if known.is_some_and(|known| known.is_newer_than(object.meta())) {
            if context.logged.is_first("store put back") {
                warn!(
                    namespace = object.namespace(),
                    name = object.name_any(),
                    "the API server shows an older version of the object than before: its store was put back to an earlier state. \
                     The operator goes by what it shows now; docs/user/ownership.md says what that means for memberships made since then"
                );
            }
            context.forget(&uid);
        }
    }

    fn shown(&self, context: &Context, object: &Object, made: Made) {
        let now = context.clock.now();
        context.view.shown(&self.watched, object.meta(), made, now);
    }
}

/// Inserts or updates an object from the watch. A new list also contains the changes that the watch missed.
fn insert(context: &Context, object: &Object) {
    let concerned = match &object.0 {
        Ok(object) => context.table.insert(object),
        Err(unreadable) => context.table.insert_unreadable(unreadable),
    };
    let Some(uid) = ObjectUid::of(object) else {
        return;
    };
    context.enqueue_concerned(&uid, &concerned);
    if let Ok(object) = &object.0 {
        let watched = || conclusion::status_hash(object.status.as_ref());
        context.table.compare_watched_status(&uid, watched);
    }
}

/// Its future is small: kube holds one for each object that is due, and few of them are admitted at a time. What an admitted pass
/// needs is boxed.
async fn reconcile(packed: Arc<Packed>, context: Arc<Context>) -> Result<Action, ActError> {
    // A standby only watches. All objects are enqueued when it begins to act.
    if !context.shutdown.has_led() {
        return Ok(Action::await_change());
    }
    let object = Arc::new(packed.unpack());
    let uid = ObjectUid::of(&*object).unwrap_or_default();
    // The watch has reported its end since kube took it from the store. What enters admission now would stay there.
    if context.table.known_version(&uid).is_none() {
        return Ok(Action::await_change());
    }
    let (readable, edge) = match invalid_spec::usable(&object) {
        Ok(usable) => usable,
        Err(unusable) => {
            // It may have been admitted as it was before.
            context.admission.forget(&uid);
            let result = Box::pin(unusable.report(&object, &context)).await;
            return ended(result, &object, &context);
        }
    };
    if let Some(wait) = distance(readable, &uid, &context) {
        context.admission.give_back(&uid);
        return Ok(Action::requeue(wait));
    }
    let urgency = urgency(readable, &uid, &context);
    let applicant = pass::applicant(readable, &edge, urgency, &context);
    let Some(slot) = context.admission.enter(applicant) else {
        return Ok(Action::await_change());
    };
    // The watch may lag behind our own writes: wait for it up to `WATCH_LAG`, then go by the older view. The view that is as new
    // as our last write starts another pass, whenever it comes.
    let known_version = context.table.known_version(&uid);
    if known_version.is_some_and(|known| version_of(&readable.metadata) < known)
        && context.table.history(&uid, History::await_watch) == Some(true)
    {
        return Ok(Action::requeue(WATCH_LAG));
    }
    let result = pass::run(Arc::clone(&object), edge, slot, &context);
    ended(Box::pin(result).await, &object, &context)
}

/// What follows from the end of a pass.
fn ended(
    result: Result<Action, ActError>,
    object: &Object,
    context: &Context,
) -> Result<Action, ActError> {
    let uid = ObjectUid::of(object).unwrap_or_default();
    // The watch may have reported the object deleted during the pass.
    if context.table.known_version(&uid).is_none() {
        return Ok(Action::await_change());
    }
    match result {
        Ok(action) => Ok(action),
        // The watch shows that it has gone, unless the API server's store was put back meanwhile.
        Err(ActError::ObjectGone) => Ok(Action::requeue(AFTER_GONE)),
        // The change that caused the conflict need not start a pass.
        Err(ActError::Changed) => {
            let wait = |history: &mut History| history.after_conflict(&context.clock);
            let wait = context.table.history(&uid, wait);
            Ok(wait.map_or_else(Action::await_change, Action::requeue))
        }
        Err(error) => Err(error),
    }
}

/// How long a pass that a user has triggered must still wait.
fn distance(
    object: &SecurityGroupMembership,
    uid: &ObjectUid,
    context: &Context,
) -> Option<Duration> {
    let deleting = object.metadata.deletion_timestamp.is_some();
    let retains = deleting && object.spec.deletion_policy == DeletionPolicy::Retain;
    let needs_no_call = object.spec.suspend || retains;
    let distance = |history: &mut History| history.distance(deleting, needs_no_call);
    context.table.history(uid, distance).flatten()
}

/// How urgent a pass over the object is: what a user has changed comes first, what the cloud has refused before comes last.
fn urgency(object: &SecurityGroupMembership, uid: &ObjectUid, context: &Context) -> Urgency {
    let Some(status) = &object.status else {
        return Urgency::User;
    };
    if object.metadata.deletion_timestamp.is_some() || is_unanswered(object) {
        return Urgency::User;
    }
    if condition::is_true(&status.conditions, reason::READY) {
        let is_stale = context.table.history(uid, |history| history.is_stale());
        return if is_stale == Some(true) {
            Urgency::Repair
        } else {
            Urgency::Settled
        };
    }
    let class = status.last_error.as_ref().map(|error| error.class);
    match class {
        Some(ErrorClass::Blocked | ErrorClass::Invalid | ErrorClass::Absent) => Urgency::Refused,
        Some(ErrorClass::Transitional | ErrorClass::Transient | ErrorClass::Throttled) | None => {
            Urgency::User
        }
    }
}

fn on_error(object: Arc<Packed>, error: &ActError, context: Arc<Context>) -> Action {
    if matches!(error, ActError::Stopping) {
        return Action::await_change();
    }
    let uid = ObjectUid::of(&object.unpack()).unwrap_or_default();
    let Some(wait) = after_error(&uid, &context) else {
        return Action::await_change();
    };
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let retry_seconds = Some(wait.as_secs());
    log_failure(error, &namespace, &name, retry_seconds, &context.logged);
    Action::requeue(wait)
}

/// The wait before the next pass; `None` if the watch has reported the object deleted.
fn after_error(uid: &ObjectUid, context: &Context) -> Option<Duration> {
    let wait = |history: &mut History| history.after_error(&context.clock);
    context.table.history(uid, wait)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::account::directory::Directory;

    /// kube takes an object from the store, and the watch reports its end before the pass begins.
    #[tokio::test]
    async fn object_that_has_gone_waits_for_nothing() {
        let directory = Directory::new(reflector::store().0);
        let context = Arc::new(Context::of_test(directory));
        let object = |name: &str| {
            let object = json!({
                "metadata": {"name": name, "namespace": "team", "uid": name, "resourceVersion": "1"},
                "spec": {"region": "cn-hangzhou", "instanceID": "i-1", "securityGroupID": "sg-1"},
            });
            serde_json::from_value::<Object>(object).unwrap()
        };
        let there = object("there");
        let (readable, edge) = invalid_spec::usable(&there).ok().unwrap();
        let applicant = pass::applicant(readable, &edge, Urgency::User, &context);
        let _holds_the_target = context.admission.enter(applicant).unwrap();
        let gone = Arc::new(Packed::of(&object("gone")));
        let action = reconcile(gone, Arc::clone(&context)).await.unwrap();
        assert_eq!(action, Action::await_change());
        assert_eq!(context.admission.waiting().for_target, 0);
    }
}
