//! Reports transitions as `events.k8s.io` events, after the passes' own writes. A failed event write fails nothing else.
//!
//! Not kube's `Recorder`: it keeps every event for six minutes to count repeats, and walks all of them at each publish. That
//! is too slow for a thousand new objects per minute. We publish on transitions only, so there are no repeats to count.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::api::SecurityGroupMembership;
use crate::clock::Clock;
use crate::kubernetes::LogDeduper;
use crate::telemetry::Telemetry;

use super::status::EventRecord;

/// Controller name in every event.
const CONTROLLER: &str = "security-group-operator";
/// Deadline of one event write; an event is not worth a longer wait.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest note in bytes that the API server accepts.
const NOTE_LIMIT: usize = 1024;
/// The API server refuses longer reasons, in bytes.
const REASON_LIMIT: usize = 128;

/// Length of the event queue. Further events are dropped and counted.
const WAITING: usize = 16_384;
/// How long [`Writer::flush`] waits for queued events when the process ends.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);

/// Queues events for a task that writes them one by one: a thousand new objects become Ready first, their events follow.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<QueuedEvent>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
}

/// A queued event, with only the fields that the written event needs.
struct QueuedEvent {
    regarding: ObjectReference,
    reason: Cow<'static, str>,
    warning: bool,
    text: String,
    at: Timestamp,
}

/// The writing task. It ends when every [`EventRecorder`] is dropped and the queue is written.
pub struct Writer(JoinHandle<()>);

impl EventRecorder {
    /// The recorder of this process and its writing task. `instance` is the reporting instance (the pod name, if there is
    /// one).
    #[must_use]
    pub fn new(
        client: kube::Client,
        instance: Option<String>,
        telemetry: Arc<Telemetry>,
        clock: Clock,
    ) -> (Self, Writer) {
        let (queue, mut waiting) = mpsc::channel::<QueuedEvent>(WAITING);
        let instance = start(instance.unwrap_or_else(|| CONTROLLER.to_owned()), 128);
        let names = clock.clone();
        let counter = Arc::clone(&telemetry);
        let writer = tokio::spawn(async move {
            let refusals = LogDeduper::default();
            while let Some(queued) = waiting.recv().await {
                let event = queued.event(&instance, &names);
                if !write(&client, event, &refusals).await {
                    counter.count_dropped_event();
                }
            }
        });
        let events = Self {
            queue,
            telemetry,
            clock,
        };
        (events, Writer(writer))
    }

    /// Logs and queues an event about a transition of `object`.
    pub fn publish(&self, object: &SecurityGroupMembership, note: EventRecord) {
        self.record(object, note.reason.into(), note.warning, note.text);
    }

    /// Writes an event about any object.
    pub fn record<K: Resource<DynamicType = ()>>(
        &self,
        object: &K,
        reason: Cow<'static, str>,
        warning: bool,
        text: String,
    ) {
        let regarding = ObjectReference::from(ObjectRef::from_obj(object));
        let (kind, namespace, name) = (
            regarding.kind.as_deref(),
            regarding.namespace.as_deref(),
            regarding.name.as_deref(),
        );
        if warning {
            warn!(kind, namespace, name, reason = &*reason, "{text}");
        } else {
            info!(kind, namespace, name, reason = &*reason, "{text}");
        }
        let queued = QueuedEvent {
            regarding,
            reason,
            warning,
            text,
            at: self.clock.now(),
        };
        if self.queue.try_send(queued).is_err() {
            self.telemetry.count_dropped_event();
        }
    }
}

impl QueuedEvent {
    fn event(self, instance: &str, clock: &Clock) -> Event {
        let Self {
            regarding,
            reason,
            warning,
            text,
            at,
        } = self;
        // Events of cluster-scoped objects live in `default`; the API server takes them nowhere else.
        let namespace = regarding
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        Event {
            metadata: ObjectMeta {
                namespace: Some(namespace),
                name: Some(format!(
                    "{}.{}",
                    name_start(regarding.name.clone().unwrap_or_default()),
                    clock.uuid().simple()
                )),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(at)),
            note: Some(start(text, NOTE_LIMIT)),
            reason: Some(start(reason.into_owned(), REASON_LIMIT)),
            regarding: Some(regarding),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(instance.to_owned()),
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        }
    }
}

impl Writer {
    /// Waits up to `FLUSH_TIMEOUT` (5 s) for the queued events.
    pub async fn flush(self) {
        if tokio::time::timeout(FLUSH_TIMEOUT, self.0).await.is_err() {
            debug!("some events were not written any more");
        }
    }
}

/// Whether the event is written. Why it is not is logged once per cause.
async fn write(client: &kube::Client, event: Event, refusals: &LogDeduper) -> bool {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    let error =
        match tokio::time::timeout(DEADLINE, api.create(&PostParams::default(), &event)).await {
            Ok(Ok(_)) => return true,
            Ok(Err(kube::Error::Api(status))) => {
                // A missing right is missing in every namespace. Any other message names the event, so it cannot be the key.
                let cause = if status.message.contains("cannot create resource") {
                    status.reason.clone()
                } else {
                    format!("{} {namespace}", status.reason)
                };
                if refusals.is_first(&cause) {
                    warn!(
                        namespace,
                        error = status.message,
                        "the API server refuses an event"
                    );
                }
                return false;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
    debug!(error, namespace, "event not written");
    false
}

/// As much of an object's name as fits before the event's own part. Every part of a DNS name ends with a letter or digit.
fn name_start(name: String) -> String {
    let mut name = start(name, 200);
    while name.ends_with(['-', '.']) {
        name.pop();
    }
    name
}

/// The first `limit` bytes at most, cut between characters.
fn start(mut text: String, limit: usize) -> String {
    while text.len() > limit {
        text.pop();
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn note(text: &str) -> EventRecord {
        EventRecord {
            reason: "NotGranted".to_owned(),
            warning: true,
            text: text.to_owned(),
        }
    }

    fn object(name: &str) -> SecurityGroupMembership {
        let object = serde_json::json!({
            "apiVersion": "security-group-operator.io/v1alpha1",
            "kind": "SecurityGroupMembership",
            "metadata": {"name": name, "namespace": "team", "uid": "u-1"},
            "spec": {"region": "cn-hangzhou", "instanceID": "i-1", "securityGroupID": "sg-1"},
        });
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn event_names_object_reason_and_time() {
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        let queued = QueuedEvent {
            regarding: ObjectRef::from_obj(&object("web")).into(),
            reason: "NotGranted".into(),
            warning: true,
            text: "i-1 is gone".to_owned(),
            at,
        };
        let clock = Clock::simulated(at, 1);
        let event = serde_json::to_value(queued.event("pod-1", &clock)).unwrap();
        let name = event["metadata"]["name"].as_str().unwrap();
        assert!(name.starts_with("web.") && name.len() == "web.".len() + 32);
        let expected = serde_json::json!({
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": "team"},
            "action": "Reconcile",
            "eventTime": "2026-01-01T00:00:00.000000Z",
            "note": "i-1 is gone",
            "reason": "NotGranted",
            "regarding": {
                "apiVersion": "security-group-operator.io/v1alpha1",
                "kind": "SecurityGroupMembership",
                "name": "web",
                "namespace": "team",
                "uid": "u-1",
            },
            "reportingController": "security-group-operator",
            "reportingInstance": "pod-1",
            "type": "Warning",
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn event_of_a_cluster_scoped_object_is_in_the_default_namespace() {
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        let account: crate::api::ClusterCloudAccount = serde_json::from_value(serde_json::json!({
            "metadata": {"name": "main", "uid": "u-2"},
            "spec": {"credentials": {"environment": {}}},
        }))
        .unwrap();
        let queued = QueuedEvent {
            regarding: ObjectRef::from_obj(&account).into(),
            reason: "NoAnswer".into(),
            warning: true,
            text: String::new(),
            at,
        };
        let event = queued.event("pod-1", &Clock::simulated(at, 1));
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        let regarding = event.regarding.unwrap();
        assert_eq!(regarding.kind.as_deref(), Some("ClusterCloudAccount"));
        assert_eq!(regarding.namespace, None);
    }

    #[test]
    fn long_event_text_is_truncated_at_a_character() {
        assert_eq!(start("four".to_owned(), 4), "four");
        assert_eq!(start("four".to_owned(), 3), "fou");
        assert_eq!(start("節節".to_owned(), 5), "節");
    }

    /// An API server that takes one second per event and counts the events.
    fn slow_server(written: &Arc<AtomicUsize>) -> kube::Client {
        let written = Arc::clone(written);
        let answer = move |_: http::Request<kube::client::Body>| {
            let written = Arc::clone(&written);
            async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                written.fetch_add(1, Ordering::SeqCst);
                let body = r#"{"apiVersion":"events.k8s.io/v1","kind":"Event","metadata":{}}"#;
                let body = kube::client::Body::from(body.as_bytes().to_vec());
                Ok::<_, std::convert::Infallible>(http::Response::new(body))
            }
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    #[tokio::test(start_paused = true)]
    async fn queued_events_are_flushed_within_a_time_limit() {
        for (queued, expected) in [(3, 3), (60, 4)] {
            let written = Arc::new(AtomicUsize::new(0));
            let at = Timestamp::from_second(1_767_225_600).unwrap();
            let (events, writer) = EventRecorder::new(
                slow_server(&written),
                None,
                Arc::default(),
                Clock::simulated(at, 1),
            );
            for _ in 0..queued {
                events.publish(&object("web"), note(""));
            }
            drop(events);
            writer.flush().await;
            let written = written.load(Ordering::SeqCst);
            // The fifth event may be written at the moment the wait ends.
            assert!((expected..=expected + 1).contains(&written), "{written}");
        }
    }
}
