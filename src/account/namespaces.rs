//! The labels of all namespaces, which grants may select. Reads only.

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{PredicateConfig, WatchStreamExt as _, predicates, watcher};
use kube::{Api, ResourceExt as _};
use tokio::sync::mpsc::UnboundedSender;

use crate::kubernetes::changed::{applied, stored};
use crate::kubernetes::{WatchLog, watch_config};

use super::change::Change;

/// Stores the labels of all namespaces, and reports each namespace whose labels change. Works while the future is polled; the
/// future never ends.
pub fn watch(
    client: &kube::Client,
    sender: UnboundedSender<Change>,
) -> (
    Store<PartialObjectMeta<Namespace>>,
    impl Future<Output = ()> + use<>,
) {
    let api: Api<PartialObjectMeta<Namespace>> = Api::all(client.clone());
    let (reader, writer) = reflector::store();
    let events = watcher(api, watch_config())
        .default_backoff()
        .modify(|namespace| {
            namespace.metadata.managed_fields = None;
            namespace.metadata.annotations = None;
        })
        .reflect(writer);
    let changes =
        stored(events, applied).predicate_filter(predicates::labels, PredicateConfig::default());
    let labels = async move {
        let mut changes = std::pin::pin!(changes);
        let log = WatchLog::new("Namespace");
        while let Some(change) = changes.next().await {
            match change {
                Ok(namespace) => {
                    // Closed only while the process shuts down.
                    let _ = sender.send(Change::NamespaceLabels(namespace.name_any()));
                }
                Err(error) => log.error(&error),
            }
        }
    };
    (reader, labels)
}
