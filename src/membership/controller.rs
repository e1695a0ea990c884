//! Wires watch, pass and requeue together. Decides nothing itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt as _, TryStreamExt as _};
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use tracing::{debug, warn};

use crate::account::key::AccountRegion;
use crate::api::{SecurityGroupMembership, reason};
use crate::condition;
use crate::ecs::Edge;
use crate::kubernetes::{self, LogDeduper, ObjectUid, WatchLog, WatchScope};

use super::act::ActError;
use super::context::Context;
use super::object::{Object, account_key, resource_version};
use super::observe::Pass;
use super::pass;
use super::status;

/// Runs the controller of one scope (one namespace, or all) until `shutdown` resolves.
pub async fn run(
    context: Arc<Context>,
    scope: WatchScope,
    queue: impl Stream<Item = ObjectRef<Object>> + Send + 'static,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
) {
    let api: Api<Object> = scope.api(&context.client);
    let (reader, writer) = reflector::store();
    let index_context = Arc::clone(&context);
    let filter_context = Arc::clone(&context);
    let mut scope = Scope {
        watched: scope,
        listing: HashSet::new(),
        listed: false,
    };
    let objects = watcher(api, kubernetes::watch_config())
        .inspect_ok(move |event| scope.keep_index(&index_context, event))
        // Before the filter, so that the store also has what starts no pass.
        .reflect(writer)
        .applied_objects()
        .try_filter(move |object| std::future::ready(mark_triggered(object, &filter_context)));
    let log = WatchLog::new("SecurityGroupMembership");
    Controller::for_stream(objects, reader)
        .reconcile_on(queue)
        .graceful_shutdown_on(shutdown)
        .run(reconcile, on_error, context)
        .for_each(|result| {
            log.result(result);
            std::future::ready(())
        })
        .await;
}

/// Whether a user has changed the object since it last started a pass. Our own writes start none.
fn mark_triggered(object: &Object, context: &Context) -> bool {
    ObjectUid::of(object).is_none_or(|uid| {
        context
            .edges
            .mark_triggered(&uid, kubernetes::trigger_hash(object))
    })
}

/// Keeps the index of one scope in step with its watch.
struct Scope {
    watched: WatchScope,
    listing: HashSet<ObjectUid>,
    listed: bool,
}

impl Scope {
    fn keep_index(&mut self, context: &Context, event: &watcher::Event<Object>) {
        match event {
            watcher::Event::Init => self.listing.clear(),
            watcher::Event::InitApply(object) => {
                self.listing.extend(ObjectUid::of(object));
                insert(context, object);
            }
            watcher::Event::Apply(object) => insert(context, object),
            watcher::Event::Delete(object) => {
                if let Some(uid) = ObjectUid::of(object) {
                    context.forget(&uid);
                }
            }
            watcher::Event::InitDone => {
                let gone = context.edges.all_but(|record| {
                    let in_scope = self.watched.contains(&record.namespace);
                    !in_scope || self.listing.contains(&record.uid)
                });
                for uid in gone {
                    context.forget(&uid);
                }
                self.listing.clear();
                if !self.listed {
                    self.listed = true;
                    context.scope_listed();
                }
            }
        }
    }
}

/// Takes in an object as the watch shows it, after a new list too: what was missed meanwhile is in that.
fn insert(context: &Context, object: &Object) {
    let Ok(object) = &object.0 else {
        return;
    };
    for concerned in context.edges.insert(object) {
        context.queue.enqueue(&concerned);
    }
    if let Some(uid) = ObjectUid::of(object) {
        let watched = || pass::status_hash(object.status.as_ref());
        context.edges.compare_watched_status(&uid, watched);
    }
}

async fn reconcile(object: Arc<Object>, context: Arc<Context>) -> Result<Action, ActError> {
    let readable = match &object.0 {
        Ok(readable) => readable,
        Err(invalid) => {
            let message = format!(
                "this version of the operator cannot read the object: {}",
                invalid.error
            );
            // What it said before must be known, or it would be said anew each time.
            let previous = status::parse_lenient(&invalid.status);
            return pass::invalid_spec(&invalid.metadata, Some(&previous), message, &context).await;
        }
    };
    let edge = match Edge::try_from(&readable.spec) {
        Ok(edge) => edge,
        Err(error) => {
            return pass::invalid_spec(
                &readable.metadata,
                readable.status.as_ref(),
                error.to_string(),
                &context,
            )
            .await;
        }
    };
    let namespace = readable.namespace().unwrap_or_default();
    let account_region = AccountRegion {
        account: account_key(&readable.spec, &namespace),
        region: edge.region.clone(),
    };
    let reference = ObjectRef::new(&readable.name_any()).within(&namespace);
    let Some(_turn) = context.turns.enter(
        account_region,
        &reference,
        !is_ready_at_generation(readable),
    ) else {
        return Ok(Action::await_change());
    };
    let account = || Pass::account_uid(readable, &namespace, &context);
    let mut account_uid = account();
    let _one_pass_a_target = loop {
        let lock = context.locks.of(account_uid.clone(), &edge);
        let held = lock.lock_owned().await;
        // It may have become known meanwhile.
        let now = account();
        if now == account_uid {
            break held;
        }
        account_uid = now;
    };
    let uid = ObjectUid::of(readable).unwrap_or_default();
    // The watch may lag behind our own writes; what they said is not to be decided again from an older view. After a while it
    // is: then the watch, when it has caught up, shows another status than what this pass takes for said (`Edges::stale_statuses`).
    let old_view = resource_version(readable) < context.edges.known_version(&uid);
    if old_view && context.history.within_watch_lag(&uid) {
        return Ok(Action::requeue(Duration::from_millis(100)));
    }
    let result = pass::run(Arc::clone(&object), edge, &context).await;
    // The watch may have shown during the pass that the object has gone.
    if context.edges.known_version(&uid) == 0 {
        context.history.forget(&uid);
        return Ok(Action::await_change());
    }
    match result {
        Ok(action) => Ok(action),
        Err(ActError::ObjectGone) => Ok(Action::await_change()),
        // Not every change starts a pass by itself.
        Err(ActError::Changed) => Ok(Action::requeue(context.history.after_error(&uid))),
        Err(error) => Err(error),
    }
}

/// Whether the object was Ready for this generation: it can wait for those that were not.
fn is_ready_at_generation(object: &SecurityGroupMembership) -> bool {
    object.metadata.deletion_timestamp.is_none()
        && object.status.as_ref().is_some_and(|status| {
            status.observed_generation == object.metadata.generation
                && condition::is_true(&status.conditions, reason::READY)
        })
}

fn on_error(object: Arc<Object>, error: &ActError, context: Arc<Context>) -> Action {
    let uid = ObjectUid::of(&*object).unwrap_or_default();
    let wait = context.history.after_error(&uid);
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    log_failure(error, &namespace, &name, wait, &context.refusals);
    Action::requeue(wait)
}

/// Logs why a pass failed: at WARN once per cause, otherwise at DEBUG.
fn log_failure(error: &ActError, namespace: &str, name: &str, wait: Duration, logged: &LogDeduper) {
    let (what, code) = match error {
        ActError::Kubernetes { what, source } => (*what, source.code()),
        ActError::ObjectGone | ActError::Changed => ("", None),
    };
    let cause = match code {
        // A right that is missing, or too many requests: the same for every object.
        Some(403 | 429) => format!("{what} {code:?}"),
        Some(400..=499) => format!("{what} {code:?} {namespace}/{name}"),
        Some(_) | None => format!("{what} {code:?}"),
    };
    let retry_seconds = wait.as_secs();
    if logged.is_first(&cause) {
        warn!(namespace, name, code, retry_seconds, "{error}");
    } else {
        debug!(namespace, name, code, retry_seconds, "{error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn object(
        deleted: bool,
        generation: i64,
        observed: i64,
        ready: &str,
    ) -> SecurityGroupMembership {
        let deletion = deleted.then_some("2026-01-01T00:00:00Z");
        let object = serde_json::json!({
            "apiVersion": "security-group-operator.io/v1alpha1",
            "kind": "SecurityGroupMembership",
            "metadata": {"name": "m", "generation": generation, "deletionTimestamp": deletion},
            "spec": {"region": "cn-hangzhou", "instanceID": "i-1", "securityGroupID": "sg-1"},
            "status": {
                "observedGeneration": observed,
                "conditions": [{
                    "type": "Ready", "status": ready, "reason": "Joined", "message": "",
                    "lastTransitionTime": "2026-01-01T00:00:00Z",
                }],
            },
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn failed_pass_is_logged_once_per_cause() {
        let answered = |code| {
            let text = format!("answer {code}");
            kube::Error::Api(Box::new(
                kube::core::Status::failure(&text, "").with_code(code),
            ))
        };
        // Objects a, b, a, a fail for this cause.
        for (source, warned) in [
            (Some(403), ["a"].as_slice()),
            (Some(429), &["a"]),
            (Some(500), &["a"]),
            (None, &["a"]),
            // The object's own.
            (Some(422), &["a", "b"]),
        ] {
            let (log, _guard) = crate::telemetry::TestLog::start();
            let logged = LogDeduper::default();
            for (name, wait) in [("a", 1), ("b", 1), ("a", 2), ("a", 4)] {
                let error = ActError::Kubernetes {
                    what: "the status could not be written",
                    source: source.map_or(kubernetes::Error::Timeout, |code| answered(code).into()),
                };
                log_failure(&error, "team", name, Duration::from_secs(wait), &logged);
            }
            let mut lines = log.lines();
            assert_eq!(lines.len(), 4);
            lines.retain(|line| line["level"] == "WARN");
            let names: Vec<_> = lines
                .iter()
                .map(|line| line["name"].as_str().unwrap())
                .collect();
            assert_eq!(names, warned, "{source:?}");
            let line = &lines[0];
            let message = line["message"].as_str().unwrap();
            assert!(
                message.starts_with("the status could not be written: "),
                "{line}"
            );
            assert_eq!(line["code"].as_u64(), source.map(u64::from));
            assert_eq!(
                (&line["namespace"], &line["retry_seconds"]),
                (&"team".into(), &1.into())
            );
        }
    }

    #[test]
    fn only_objects_ready_at_their_generation_are_settled() {
        assert!(is_ready_at_generation(&object(false, 2, 2, "True")));
        assert!(!is_ready_at_generation(&object(true, 2, 2, "True")));
        assert!(!is_ready_at_generation(&object(false, 2, 1, "True")));
        assert!(!is_ready_at_generation(&object(false, 2, 2, "False")));
        let new = SecurityGroupMembership {
            status: None,
            ..object(false, 1, 1, "True")
        };
        assert!(!is_ready_at_generation(&new));
    }
}
