//! The controller of sets: wires watches, pass and requeue together.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, Resource as _, ResourceExt as _};
use tracing::warn;

use crate::api::{SecurityGroupMembershipSet, SecurityGroupMembershipSetStatus};
use crate::ecs::{Class, ParseIdError, Region, SecurityGroupId};
use crate::kubernetes::changed::changed;
use crate::kubernetes::{self, Error, ObjectUid, WatchLog, WatchScope};
use crate::watched::Unreadable;

use super::access::NotChecked;
use super::act::{Acted, Doer};
use super::context::{Context, Memory};
use super::known::SetObject;
use super::look::{AFTER_REFUSAL, Looked, earlier, look};
use super::refusal::Refusal;
use super::status::{self, Found};

/// When a set that has created or changed memberships looks again (5 s): an object that goes may have had the name of one, and the
/// watch of memberships does not tell the set what it has written itself.
const AFTER_WRITES: Duration = Duration::from_secs(5);
/// When a set looks again whose own status the watch has not shown yet (1 s).
const SOON: Duration = Duration::from_secs(1);

/// Runs the controller of one scope until shutdown has begun and its passes have ended.
pub async fn run(
    context: Arc<Context>,
    scope: WatchScope,
    due: impl Stream<Item = ObjectRef<SetObject>> + Send + 'static,
) {
    let api: Api<SetObject> = scope.api(&context.client);
    let (reader, writer) = reflector::store();
    let keeper = Arc::clone(&context);
    let mut listing = HashSet::new();
    let sets = watcher(api, kubernetes::watch_config())
        .inspect_ok(move |event| {
            for gone in keeper.sets.take(&scope, &mut listing, event) {
                keeper.forget(&gone);
            }
        })
        .reflect(writer);
    let log = WatchLog::new("SecurityGroupMembershipSet");
    let ends_unlisted = kubernetes::ends_unlisted(reader.clone(), context.shutdown.clone());
    let controller = Controller::for_stream(changed(sets), reader)
        .reconcile_on(due)
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

async fn reconcile(object: Arc<SetObject>, context: Arc<Context>) -> Result<Action, Error> {
    // A standby only watches. All sets are enqueued when it begins to act, and when all memberships are listed.
    if !context.shutdown.has_led() || !context.members.is_listed() {
        return Ok(Action::await_change());
    }
    let Some(uid) = ObjectUid::of(&*object) else {
        return Ok(Action::await_change());
    };
    // What is being deleted writes nothing: its memberships are for the garbage collector.
    if object.meta().deletion_timestamp.is_some() {
        context.forget(&uid);
        return Ok(Action::await_change());
    }
    let passed = Box::pin(pass(&object, &uid, &context)).await;
    context.sets.conditions_soon();
    match passed {
        Ok(wait) => {
            context.remember(&uid, |memory| memory.failures = 0);
            forget_if_gone(&object, &uid, &context);
            Ok(wait.map_or_else(Action::await_change, Action::requeue))
        }
        Err(Error::Stopping) => Ok(Action::await_change()),
        Err(error) => Err(error),
    }
}

/// A pass that ends after its set is gone leaves nothing of it behind.
fn forget_if_gone(object: &SetObject, uid: &ObjectUid, context: &Context) {
    if !context.sets.is_there(object) {
        context.forget(uid);
    }
}

/// One pass over a set. Returns when the next one is due if nothing else enqueues it.
async fn pass(
    object: &SetObject,
    uid: &ObjectUid,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let set = match &object.0 {
        Ok(set) => set,
        Err(unreadable) => return tell_unreadable(object, uid, unreadable, context).await,
    };
    let previous = set.status.clone().unwrap_or_default();
    let (region, group) = match parse(set) {
        Ok(parsed) => parsed,
        Err(message) => return write_invalid(object, uid, &previous, message, context).await,
    };
    let mut looked = match look(set, uid, (&region, &group), context) {
        Ok(Some(looked)) => looked,
        Ok(None) => return Ok(None),
        Err(NotChecked) => return Ok(Some(AFTER_REFUSAL)),
    };
    let doer = Doer {
        set,
        uid,
        region: &region,
        group: &group,
        stopped_passes: context.remember(uid, |memory| memory.stopped_passes),
        context,
    };
    let may_create = looked.refusal.as_ref().is_none_or(Refusal::lets_create);
    let acted = doer.carry_out(&looked.plan, may_create).await;
    let refused = acted.as_ref().ok().and_then(|acted| acted.refused.as_ref());
    let blamed = refused.or(looked.refusal.as_ref());
    let stopped = acted.is_err() || refused.is_some();
    context.remember(uid, |memory| memory.passed(blamed, stopped));
    let (acted, failure) = or_failure(acted)?;
    looked.plan.held += acted.held;
    let Looked {
        plan, selection, ..
    } = &looked;
    let failed = failure.as_ref().map(ToString::to_string);
    let wrote = may_create && !plan.create.is_empty() || !plan.change.is_empty();
    let wait = earlier(looked.wait, after_deeds(&acted, wrote && !set.spec.suspend));
    let refusal = acted.refused.as_ref().or(looked.refusal.as_ref());
    let requested = kubernetes::reconcile_requested_at(set);
    let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
    let found = Found {
        set: (&namespace, &name),
        plan,
        targets: selection.targets(),
        skipped: selection.skipped,
        objects: context.members.of(&namespace, uid).len(),
        refusal,
        failure: failed.as_deref(),
        suspended: set.spec.suspend,
        requested: requested.as_deref(),
    };
    let written = tell(object, uid, &previous, found, context).await?;
    failure.map_or(Ok(earlier(wait, written)), Err)
}

/// What was done, and the error of a write: the status tells it.
fn or_failure(acted: Result<Acted, Error>) -> Result<(Acted, Option<Error>), Error> {
    match acted {
        Ok(acted) => Ok((acted, None)),
        Err(Error::Stopping) => Err(Error::Stopping),
        Err(error) => Ok((Acted::default(), Some(error))),
    }
}

/// When a set looks again after what it did.
fn after_deeds(acted: &Acted, wrote: bool) -> Option<Duration> {
    match (acted.refused.is_some() || acted.over, wrote) {
        (true, _) => Some(AFTER_REFUSAL),
        (false, true) => Some(AFTER_WRITES),
        (false, false) => None,
    }
}

/// Region and group of a set. The CRD refuses what does not parse.
fn parse(set: &SecurityGroupMembershipSet) -> Result<(Region, SecurityGroupId), String> {
    let region = set.spec.region.parse();
    let region = region.map_err(|error: ParseIdError| format!("spec.region: {error}"))?;
    let group = set.spec.security_group_id.parse();
    let group = group.map_err(|error: ParseIdError| format!("spec.securityGroupID: {error}"))?;
    Ok((region, group))
}

async fn tell_unreadable(
    object: &SetObject,
    uid: &ObjectUid,
    unreadable: &Unreadable,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let previous = serde_json::from_value(unreadable.status.clone()).unwrap_or_default();
    let message = format!("this version of the operator cannot read the set: {unreadable}");
    write_invalid(object, uid, &previous, message, context).await
}

async fn tell(
    object: &SetObject,
    uid: &ObjectUid,
    previous: &SecurityGroupMembershipSetStatus,
    found: Found<'_>,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let generation = object.meta().generation;
    let next = status::status(previous, generation, found, context.clock.now());
    write(object, uid, previous, next, context).await
}

async fn write_invalid(
    object: &SetObject,
    uid: &ObjectUid,
    previous: &SecurityGroupMembershipSetStatus,
    message: String,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let generation = object.meta().generation;
    let next = status::invalid(previous, generation, message, context.clock.now());
    write(object, uid, previous, next, context).await
}

/// Writes the status if it says something else, at most once a second. Returns when the set must look again for that.
async fn write(
    object: &SetObject,
    uid: &ObjectUid,
    previous: &SecurityGroupMembershipSetStatus,
    next: SecurityGroupMembershipSetStatus,
    context: &Context,
) -> Result<Option<Duration>, Error> {
    let next = context
        .writer
        .storable::<SecurityGroupMembershipSet, _>(next);
    let version = kubernetes::version_of(object.meta());
    if context.remember(uid, |memory| memory.is_ahead_of(version)) {
        return Ok(Some(SOON));
    }
    if status::same_meaning(previous, &next) {
        return Ok(None);
    }
    if let Some(wait) = context.remember(uid, Memory::begin_status_write) {
        return Ok(Some(wait));
    }
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<SetObject> = Api::namespaced(context.client.clone(), &namespace);
    let answer = context
        .writer
        .apply_status(&api, object.meta(), &next)
        .await;
    match answer {
        Ok(stored) => {
            let version = kubernetes::version_of(stored.meta());
            context.remember(uid, |memory| memory.wrote_status(version));
            Ok(None)
        }
        // It is gone, or the watch is about to show another version.
        Err(error) if error.code() == Some(404) => Ok(None),
        Err(error) if error.code() == Some(409) => Ok(Some(SOON)),
        Err(error) => Err(error),
    }
}

fn on_error(object: Arc<SetObject>, error: &Error, context: Arc<Context>) -> Action {
    let uid = ObjectUid::of(&*object).unwrap_or_default();
    let failures = context.remember(&uid, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let wait = Class::Transient.retry().delay(failures).max(SOON);
    if context
        .logged
        .is_first(&format!("{namespace}/{name}: {error}"))
    {
        let retry_seconds = wait.as_secs();
        warn!(
            kind = "SecurityGroupMembershipSet",
            namespace, name, retry_seconds, "the set could not be brought about: {error}"
        );
    }
    forget_if_gone(&object, &uid, &context);
    Action::requeue(wait)
}
