//! Reports transitions as `events.k8s.io` events, after the passes' own writes. A failed event write fails nothing else.
//!
//! Not kube's `Recorder`: it keeps every event for six minutes to count repeats, and walks all of them at each publish. That
//! is too slow for a thousand new objects per minute. We publish on transitions only, so there are no repeats to count.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::ObjectMeta;
use kube::core::Status;
use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::condition::truncate;
use crate::shutdown::TIME_FOR_EVENTS;
use crate::telemetry::Telemetry;

use super::writer::ApiWriter;
use super::{Error, LogDeduper};

/// Controller name in every event.
const CONTROLLER: &str = "security-group-operator";
/// Deadline of one event write; an event is not worth a longer wait.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest note in bytes that the API server accepts.
const NOTE_LIMIT: usize = 1024;
/// The API server refuses longer reasons, in bytes.
const REASON_LIMIT: usize = 128;
/// The API server refuses longer reporting instances, in bytes.
const INSTANCE_LIMIT: usize = 128;
/// Letters of an object's name in the names of its events. With a dot and 32 letters, fewer than the 253 of a DNS name.
const NAME_LIMIT: usize = 200;

/// Length of the event queue. Further events are dropped and counted.
const WAITING: usize = 16_384;

/// Queues events for a task that writes them one by one: a thousand new objects become Ready first, their events follow.
#[derive(Clone)]
pub struct EventRecorder {
    queue: mpsc::Sender<QueuedEvent>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
}

/// An event about an object, and its line in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EventRecord {
    /// Event reason.
    pub reason: String,
    /// Whether it is a warning.
    pub warning: bool,
    /// Message for users.
    pub text: String,
    /// The cloud's error code, if a refusal of the cloud is the cause. Only in the log: the text names it for users.
    pub code: Option<String>,
    /// The cloud's ID of the refused call. Only in the log.
    pub request_id: Option<String>,
}

/// A queued event, with only the fields that the written event needs.
struct QueuedEvent {
    regarding: ObjectReference,
    reason: String,
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
        writer: ApiWriter,
        instance: Option<String>,
        telemetry: Arc<Telemetry>,
        clock: Clock,
    ) -> (Self, Writer) {
        let (queue, mut waiting) = mpsc::channel::<QueuedEvent>(WAITING);
        let instance = truncate(instance.as_deref().unwrap_or(CONTROLLER), INSTANCE_LIMIT);
        let names = clock.clone();
        let counter = Arc::clone(&telemetry);
        let writer = writer.for_records();
        let task = tokio::spawn(async move {
            let refusals = LogDeduper::default();
            while let Some(queued) = waiting.recv().await {
                let event = queued.event(&instance, &names);
                if !write(&client, &writer, event, &refusals).await {
                    counter.count_dropped_event();
                }
            }
        });
        let events = Self {
            queue,
            telemetry,
            clock,
        };
        (events, Writer(task))
    }

    /// Logs and queues an event about `object`.
    pub fn publish<K: Resource<DynamicType = ()>>(&self, object: &K, event: EventRecord) {
        log(&ObjectReference::from(ObjectRef::from_obj(object)), &event);
        self.queue(object, event);
    }

    /// Queues an event about `object` whose sentence is in the log already.
    pub fn queue<K: Resource<DynamicType = ()>>(&self, object: &K, event: EventRecord) {
        let queued = QueuedEvent {
            regarding: ObjectRef::from_obj(object).into(),
            reason: event.reason,
            warning: event.warning,
            text: event.text,
            at: self.clock.now(),
        };
        if self.queue.try_send(queued).is_err() {
            self.telemetry.count_dropped_event();
        }
    }
}

/// Logs the sentence of an event, a warning at WARN.
pub fn log(regarding: &ObjectReference, event: &EventRecord) {
    let (kind, namespace, name) = (
        regarding.kind.as_deref(),
        regarding.namespace.as_deref(),
        regarding.name.as_deref(),
    );
    let EventRecord {
        reason,
        warning,
        text,
        code,
        request_id,
    } = event;
    let (code, request_id) = (code.as_deref(), request_id.as_deref());
    if *warning {
        warn!(kind, namespace, name, reason, code, request_id, "{text}");
    } else {
        info!(kind, namespace, name, reason, code, request_id, "{text}");
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
                    name_start(regarding.name.as_deref().unwrap_or_default()),
                    clock.uuid().simple()
                )),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(at)),
            note: Some(truncate(&text, NOTE_LIMIT)),
            reason: Some(truncate(&reason, REASON_LIMIT)),
            regarding: Some(regarding),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(instance.to_owned()),
            type_: Some(if warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        }
    }
}

impl Writer {
    /// Waits up to [`TIME_FOR_EVENTS`] (3 s) for the queued events.
    pub async fn flush(self) {
        if tokio::time::timeout(TIME_FOR_EVENTS, self.0).await.is_err() {
            debug!("some events were not written any more");
        }
    }
}

/// Whether the event is written. Why it is not is logged once per cause.
async fn write(
    client: &kube::Client,
    writer: &ApiWriter,
    event: Event,
    refusals: &LogDeduper,
) -> bool {
    let namespace = event.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
    match writer.create(&api, &event, DEADLINE).await {
        Ok(_) => true,
        Err(Error::Api(kube::Error::Api(status))) if (400..500).contains(&status.code) => {
            if refusals.is_first(&cause_of(&status, &event)) {
                warn!(
                    namespace,
                    error = status.message,
                    "the API server refuses an event"
                );
            }
            false
        }
        Err(error) => {
            debug!(%error, namespace, "event not written");
            false
        }
    }
}

/// The same text for events that are refused for the same cause. A message names the event, whose name is never the same
/// twice, and its namespace.
fn cause_of(refusal: &Status, event: &Event) -> String {
    let causes = refusal.details.iter().flat_map(|details| &details.causes);
    let mut causes = causes.peekable();
    if causes.peek().is_some() {
        let causes = causes.map(|cause| format!(" {} {}", cause.field, cause.reason));
        return format!("{}{}", refusal.reason, causes.collect::<String>());
    }
    let name = event.metadata.name.as_deref().unwrap_or_default();
    let namespace = event.metadata.namespace.as_deref().unwrap_or_default();
    refusal
        .message
        .replace(name, "")
        .replace(&format!("\"{namespace}\""), "")
}

/// As much of an object's name as fits before the event's own part. Every part of a DNS name ends with a letter or digit.
fn name_start(name: &str) -> &str {
    name.get(..NAME_LIMIT)
        .unwrap_or(name)
        .trim_end_matches(['-', '.'])
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::api::SecurityGroupMembership;
    use crate::shutdown::Shutdown;
    use crate::telemetry::TestLog;

    fn note(text: &str) -> EventRecord {
        EventRecord {
            reason: "NotGranted".to_owned(),
            warning: true,
            text: text.to_owned(),
            ..EventRecord::default()
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
    fn name_of_an_event_is_a_dns_name_wherever_it_is_cut() {
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        for (name, kept) in [
            ("web".to_owned(), 3),
            (format!("{}-{}", "a".repeat(199), "b".repeat(10)), 199),
            (format!("{}.{}", "a".repeat(199), "b".repeat(10)), 199),
            (format!("{}--{}", "a".repeat(198), "b".repeat(10)), 198),
            (format!("{}.b-{}", "a".repeat(197), "b".repeat(10)), 199),
            ("a".repeat(253), 200),
        ] {
            let queued = QueuedEvent {
                regarding: ObjectRef::from_obj(&object(&name)).into(),
                reason: "r".repeat(200),
                warning: false,
                text: "節".repeat(1000),
                at,
            };
            let event = queued.event("pod-1", &Clock::simulated(at, 1));
            let full = event.metadata.name.unwrap();
            assert!(full.len() <= 253);
            let (start, own) = full.rsplit_once('.').unwrap();
            assert_eq!((start, own.len()), (&name[..kept], 32));
            let is_label =
                |label: &str| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-');
            assert!(full.split('.').all(is_label), "{full}");
            let (note, reason) = (event.note.unwrap(), event.reason.unwrap());
            assert!(note.len() <= NOTE_LIMIT && note.ends_with('…'));
            assert!(reason.len() <= REASON_LIMIT);
        }
    }

    /// An API server that answers every event with what is made of its name and namespace.
    fn refusing_server(
        refusal: impl Fn(&str, &str) -> serde_json::Value + Clone + Send + Sync + 'static,
    ) -> kube::Client {
        use http_body_util::BodyExt as _;

        let answer = move |request: http::Request<kube::client::Body>| {
            let refusal = refusal.clone();
            async move {
                let sent = request.into_body().collect().await.unwrap().to_bytes();
                let event: Event = serde_json::from_slice(&sent).unwrap();
                let (name, namespace) = (event.metadata.name, event.metadata.namespace);
                let mut body = refusal(&name.unwrap(), &namespace.unwrap());
                body["kind"] = "Status".into();
                body["apiVersion"] = "v1".into();
                body["status"] = "Failure".into();
                let code = u16::try_from(body["code"].as_u64().unwrap()).unwrap();
                let answer = http::Response::builder().status(code);
                let body = kube::client::Body::from(body.to_string().into_bytes());
                Ok::<_, std::convert::Infallible>(answer.body(body).unwrap())
            }
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    /// Events about five objects in two namespaces: how many were dropped, and the log's lines about that.
    async fn refused(
        refusal: impl Fn(&str, &str) -> serde_json::Value + Clone + Send + Sync + 'static,
    ) -> (u64, Vec<serde_json::Value>) {
        let (log, _guard) = TestLog::start();
        let telemetry = Arc::<Telemetry>::default();
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        let (events, writer) = EventRecorder::new(
            refusing_server(refusal),
            ApiWriter::new(1, Shutdown::default(), Arc::default()),
            None,
            Arc::clone(&telemetry),
            Clock::simulated(at, 1),
        );
        for (name, namespace) in [("a", "x"), ("b", "x"), ("c", "y"), ("d", "y"), ("a", "y")] {
            let mut object = object(name);
            object.metadata.namespace = Some(namespace.to_owned());
            events.publish(&object, note("text"));
        }
        drop(events);
        writer.flush().await;
        let mut lines = log.lines();
        lines.retain(|line| line["message"] != "text");
        (telemetry.dropped_events(), lines)
    }

    #[tokio::test]
    async fn refused_events_are_counted_and_logged_once_per_cause() {
        let missing_right = |_: &str, namespace: &str| serde_json::json!({"code": 403, "reason": "Forbidden", "message": format!("events.events.k8s.io is forbidden: User \"u\" cannot create resource \"events\" in API group \"events.k8s.io\" in the namespace \"{namespace}\"")});
        let invalid = |name: &str, _: &str| {
            serde_json::json!({
                "code": 422,
                "reason": "Invalid",
                "message": format!("Event.events.k8s.io \"{name}\" is invalid: metadata.name: Invalid value: \"{name}\""),
                "details": {"causes": [{"field": "metadata.name", "reason": "FieldValueInvalid", "message": format!("Invalid value: \"{name}\"")}]},
            })
        };
        for (dropped, lines) in [refused(missing_right).await, refused(invalid).await] {
            assert_eq!((dropped, lines.len()), (5, 1), "{lines:#?}");
            assert_eq!(lines[0]["level"], "WARN");
            assert_eq!(lines[0]["message"], "the API server refuses an event");
            assert!(lines[0]["error"].as_str().unwrap().contains("events"));
        }
        let both = move |name: &str, namespace: &str| {
            if namespace == "x" {
                invalid(name, namespace)
            } else {
                missing_right(name, namespace)
            }
        };
        let (dropped, lines) = refused(both).await;
        assert_eq!((dropped, lines.len()), (5, 2), "{lines:#?}");
    }

    #[tokio::test]
    async fn line_of_a_refused_call_has_its_code_and_request_id() {
        let (log, _guard) = TestLog::start();
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        let (events, _writer) = EventRecorder::new(
            slow_server(&Arc::default()),
            ApiWriter::new(1, Shutdown::default(), Arc::default()),
            None,
            Arc::default(),
            Clock::simulated(at, 1),
        );
        let refused = EventRecord {
            code: Some("Forbidden.RAM".to_owned()),
            request_id: Some("6A1B".to_owned()),
            ..note("Forbidden.RAM: no")
        };
        events.publish(&object("web"), refused);
        let lines = log.lines();
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert_eq!(lines[0]["code"], "Forbidden.RAM");
        assert_eq!(lines[0]["request_id"], "6A1B");
    }

    #[tokio::test]
    async fn an_event_is_logged_with_its_note_as_message_and_flat_fields() {
        let (log, _guard) = TestLog::start();
        let at = Timestamp::from_second(1_767_225_600).unwrap();
        let (events, _writer) = EventRecorder::new(
            slow_server(&Arc::default()),
            ApiWriter::new(1, Shutdown::default(), Arc::default()),
            None,
            Arc::default(),
            Clock::simulated(at, 1),
        );
        events.publish(&object("web"), note("i-1 is {gone}"));
        let mut joined = note("i-1 is a member");
        joined.warning = false;
        events.publish(&object("web"), joined);
        let lines = log.lines();
        let expected = [("WARN", "i-1 is {gone}"), ("INFO", "i-1 is a member")];
        assert_eq!(lines.len(), expected.len(), "{lines:#?}");
        for (mut line, (level, message)) in lines.into_iter().zip(expected) {
            line.as_object_mut().unwrap().remove("timestamp");
            let expected = serde_json::json!({
                "level": level,
                "message": message,
                "target": "security_group_operator::kubernetes::events",
                "kind": "SecurityGroupMembership",
                "namespace": "team",
                "name": "web",
                "reason": "NotGranted",
            });
            assert_eq!(line, expected);
        }
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
        for (queued, expected) in [(2, 2), (60, 2)] {
            let written = Arc::new(AtomicUsize::new(0));
            let at = Timestamp::from_second(1_767_225_600).unwrap();
            let (events, writer) = EventRecorder::new(
                slow_server(&written),
                ApiWriter::new(1, Shutdown::default(), Arc::default()),
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
            // The third event may be written at the moment the wait ends.
            assert!((expected..=expected + 1).contains(&written), "{written}");
        }
    }
}
