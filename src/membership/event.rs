//! Tells of transitions as `events.k8s.io` events. One that cannot be written fails nothing.
//!
//! Not kube's `Recorder`: it keeps every event for six minutes to count repeats and walks all of them at each publish, which
//! is what a thousand new objects a minute should not cost. We publish on transitions only, so there is nothing to count.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Resource as _, ResourceExt as _};
use tokio::sync::Semaphore;
use tracing::{debug, info};
use uuid::Uuid;

use crate::api::SecurityGroupMembership;

use super::status::Note;

/// Name under which events are reported.
const CONTROLLER: &str = "security-group-operator";
/// An event is not worth a longer wait.
const DEADLINE: Duration = Duration::from_secs(10);
/// The API server refuses longer notes, in bytes.
const NOTE_LIMIT: usize = 1024;

/// Writes events.
#[derive(Clone)]
pub struct Events {
    client: kube::Client,
    instance: String,
}

impl Events {
    /// Events of this process; `instance` is its name, the pod's where it runs in one.
    #[must_use]
    pub fn new(client: kube::Client, instance: Option<String>) -> Self {
        Self {
            client,
            instance: instance.unwrap_or_else(|| CONTROLLER.to_owned()),
        }
    }

    /// Tells of a transition of `object`, as one of the writes that `places` bounds.
    pub async fn publish(&self, object: &SecurityGroupMembership, note: Note, places: &Semaphore) {
        let namespace = object.namespace().unwrap_or_default();
        let name = object.name_any();
        info!(
            namespace,
            name,
            reason = note.reason,
            text = note.text,
            "event"
        );
        let event = self.event(object.object_ref(&()), note, Timestamp::now());
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let parameters = PostParams::default();
        let _place = places.acquire().await;
        match tokio::time::timeout(DEADLINE, Box::pin(api.create(&parameters, &event))).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%error, namespace, name, "event not written"),
            Err(_) => debug!(namespace, name, "event not written in time"),
        }
    }

    fn event(&self, regarding: ObjectReference, note: Note, now: Timestamp) -> Event {
        let name = regarding.name.clone().unwrap_or_default();
        Event {
            metadata: ObjectMeta {
                namespace: regarding.namespace.clone(),
                name: Some(format!("{}.{}", start(name, 200), Uuid::new_v4().simple())),
                ..ObjectMeta::default()
            },
            action: Some("Reconcile".to_owned()),
            event_time: Some(MicroTime(now)),
            note: Some(start(note.text, NOTE_LIMIT)),
            reason: Some(note.reason.to_owned()),
            regarding: Some(regarding),
            reporting_controller: Some(CONTROLLER.to_owned()),
            reporting_instance: Some(start(self.instance.clone(), 128)),
            type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        }
    }
}

/// At most the first `limit` bytes, cut between characters.
fn start(mut text: String, limit: usize) -> String {
    while text.len() > limit {
        text.pop();
    }
    text
}
