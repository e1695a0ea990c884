//! The Nodes of the cluster, as far as a set looks at them: which ECS instance each is, its labels and its age. Reads only, and only
//! while a set selects Nodes.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::core::ClusterResourceScope;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Resource};
use serde::{Deserialize, Deserializer};
use tokio::sync::watch;

use crate::ecs::{InstanceId, Region};
use crate::kubernetes::{WatchLog, error_chain, watch_config};

/// What kube's watch reads of a Node. Images, conditions and all that else makes up most of a Node are passed over unread.
#[derive(Clone, Debug, Default)]
pub struct Node {
    metadata: ObjectMeta,
    provider_id: Option<String>,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Metadata {
            name: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
            creation_timestamp: Option<Time>,
            labels: Option<BTreeMap<String, String>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Spec {
            #[serde(rename = "providerID")]
            provider_id: Option<String>,
        }
        #[derive(Deserialize)]
        struct Parts {
            #[serde(default)]
            metadata: Metadata,
            #[serde(default)]
            spec: Spec,
        }
        let Parts { metadata, spec } = Parts::deserialize(deserializer)?;
        Ok(Self {
            metadata: ObjectMeta {
                name: metadata.name,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                creation_timestamp: metadata.creation_timestamp,
                labels: metadata.labels,
                ..ObjectMeta::default()
            },
            provider_id: spec.provider_id,
        })
    }
}

impl Resource for Node {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

/// A Node as sets look at it. The texts are shared between Nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownNode {
    /// The ECS instance that it is; `None` for a hybrid, virtual or Lingjun node, and before its `providerID` is set.
    pub instance: Option<(Region, InstanceId)>,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Its labels, by key.
    labels: Box<[(Arc<str>, Arc<str>)]>,
}

impl KnownNode {
    /// Its labels, by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.labels.iter();
        labels.map(|(key, value)| (&**key, &**value))
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self
            .labels
            .binary_search_by(|(known, _)| (**known).cmp(key));
        let (_, value) = self.labels.get(at.ok()?)?;
        Some(value)
    }
}

/// The ECS instance that a Node is, by its `providerID` `<region>.<instance>` or, in older clusters, `alicloud://<region>.<instance>`.
/// `None` for hybrid nodes (`ack-hybrid://…`), for Lingjun nodes (`e01-…`), and for virtual nodes, whose `providerID` some people
/// write by hand.
#[must_use]
pub fn instance_of(
    provider_id: &str,
    labels: &BTreeMap<String, String>,
) -> Option<(Region, InstanceId)> {
    let has = |key: &str, value: &str| labels.get(key).is_some_and(|label| label == value);
    if has("type", "virtual-kubelet") || has("alibabacloud.com/lingjun-worker", "true") {
        return None;
    }
    let id = provider_id.strip_prefix("alicloud://");
    let (region, instance) = id.unwrap_or(provider_id).split_once('.')?;
    Some((region.parse().ok()?, instance.parse().ok()?))
}

/// Whether what is known of the Nodes is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Listed {
    /// They have not been listed yet, or no set selects Nodes.
    #[default]
    Not,
    /// They are all known.
    All,
    /// They were all known, and the watch has failed since.
    Interrupted,
    /// The operator may not list them; with what the API server answered.
    Forbidden(String),
}

/// All Nodes, by name.
#[derive(Debug, Default)]
pub struct Nodes {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: HashMap<String, KnownNode>,
    texts: HashSet<Arc<str>>,
    listing: HashSet<String>,
    listed: Listed,
}

impl Nodes {
    /// Calls `look` with all Nodes, and whether they are all.
    pub fn look<T>(&self, look: impl FnOnce(&HashMap<String, KnownNode>, &Listed) -> T) -> T {
        let inner = self.lock();
        look(&inner.by_name, &inner.listed)
    }

    /// Takes an event of the watch. Returns whether anything changed that a set looks at: a heartbeat does not count.
    pub fn take(&self, event: watcher::Event<Node>) -> bool {
        let mut inner = self.lock();
        match event {
            watcher::Event::Init => {
                inner.listing.clear();
                false
            }
            watcher::Event::InitApply(node) => {
                let name = node.metadata.name.clone().unwrap_or_default();
                inner.listing.insert(name);
                inner.insert(node);
                false
            }
            watcher::Event::InitDone => {
                let listing = std::mem::take(&mut inner.listing);
                inner.by_name.retain(|name, _| listing.contains(name));
                inner.texts.retain(|text| Arc::strong_count(text) > 1);
                inner.listed = Listed::All;
                true
            }
            watcher::Event::Apply(node) => inner.goes_on() | inner.insert(node),
            watcher::Event::Delete(node) => {
                let name = node.metadata.name.unwrap_or_default();
                inner.goes_on() | inner.by_name.remove(&name).is_some()
            }
        }
    }

    /// The watch has failed. Returns whether that is new.
    fn fail(&self, error: &watcher::Error) -> bool {
        let mut inner = self.lock();
        let next = match (refusal(error), &inner.listed) {
            (Some(answer), _) => Listed::Forbidden(answer),
            (None, Listed::All | Listed::Interrupted) => Listed::Interrupted,
            (None, Listed::Not | Listed::Forbidden(_)) => return false,
        };
        let is_new = inner.listed != next;
        inner.listed = next;
        is_new
    }

    fn forget(&self) {
        *self.lock() = Inner::default();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics while it holds this lock.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// An event tells that the watch goes on. Returns whether it had failed.
    fn goes_on(&mut self) -> bool {
        let was_interrupted = self.listed == Listed::Interrupted;
        if was_interrupted {
            self.listed = Listed::All;
        }
        was_interrupted
    }

    fn insert(&mut self, node: Node) -> bool {
        let Node {
            metadata,
            provider_id,
        } = node;
        let labels = metadata.labels.unwrap_or_default();
        let instance = instance_of(provider_id.as_deref().unwrap_or_default(), &labels);
        let created = metadata.creation_timestamp;
        let labels = labels
            .iter()
            .map(|(key, value)| (self.text(key), self.text(value)));
        let known = KnownNode {
            labels: labels.collect(),
            instance,
            created: created.map_or(0, |created| created.0.as_second()),
        };
        let name = metadata.name.unwrap_or_default();
        if self.by_name.get(&name) == Some(&known) {
            return false;
        }
        self.by_name.insert(name, known);
        true
    }

    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(known) = self.texts.get(text) {
            return Arc::clone(known);
        }
        let new: Arc<str> = text.into();
        self.texts.insert(Arc::clone(&new));
        new
    }
}

/// What the API server said, if it does not let the operator list or watch.
fn refusal(error: &watcher::Error) -> Option<String> {
    let status = match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => status,
        other => {
            tracing::debug!("the watch of Nodes: {}", error_chain(other));
            return None;
        }
    };
    (status.code == 403).then(|| status.message.clone())
}

/// Watches Nodes while `wanted` is true, and calls `changed` when a set must look at them again. Never ends.
pub async fn watch(
    client: kube::Client,
    nodes: Arc<Nodes>,
    mut wanted: watch::Receiver<bool>,
    changed: impl Fn(),
) {
    let log = WatchLog::new("Node");
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            // Only while the process shuts down.
            return std::future::pending().await;
        }
        let api: Api<Node> = Api::all(client.clone());
        let config = watch_config().page_size(PAGE);
        let mut events = std::pin::pin!(watcher(api, config).default_backoff());
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = wanted.wait_for(|wanted| !*wanted) => break,
            };
            let news = match event {
                Some(Ok(event)) => nodes.take(event),
                Some(Err(error)) => {
                    log.error(&error);
                    nodes.fail(&error)
                }
                None => break,
            };
            if news {
                changed();
            }
        }
        nodes.forget();
    }
}

/// Nodes in one answer to a list. A Node has some 20 KiB.
const PAGE: u32 = 100;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, provider_id: &str, labels: &serde_json::Value) -> Node {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "Node",
            "metadata": {"name": name, "labels": labels, "creationTimestamp": "2026-01-02T03:04:05Z",
                "annotations": {"a": "b"}, "managedFields": [{"manager": "kubelet"}]},
            "spec": {"providerID": provider_id, "taints": [{"key": "a"}]},
            "status": {"images": [{"names": ["x"]}]},
        }))
        .unwrap()
    }

    #[test]
    fn only_a_node_that_is_an_instance_is_a_target() {
        let none = BTreeMap::new();
        let virtual_node = BTreeMap::from([("type".to_owned(), "virtual-kubelet".to_owned())]);
        let lingjun = BTreeMap::from([(
            "alibabacloud.com/lingjun-worker".to_owned(),
            "true".to_owned(),
        )]);
        for (provider_id, labels, instance) in [
            ("cn-hangzhou.i-bp1a", &none, Some("cn-hangzhou i-bp1a")),
            (
                "alicloud://cn-hangzhou.i-bp1a",
                &none,
                Some("cn-hangzhou i-bp1a"),
            ),
            ("", &none, None),
            ("e01-cn-abc", &none, None),
            ("cn-hangzhou.e01-abc", &none, None),
            ("ack-hybrid://cluster.node-1", &none, None),
            ("us-east-1.virtual-node-eci-0", &none, None),
            ("cn-hangzhou.i-bp1a", &virtual_node, None),
            ("cn-hangzhou.i-bp1a", &lingjun, None),
            ("aws:///us-east-1a/i-0abc", &none, None),
        ] {
            let found = instance_of(provider_id, labels);
            let found = found.map(|(region, id)| format!("{region} {id}"));
            assert_eq!(found.as_deref(), instance, "{provider_id}");
        }
    }

    #[test]
    fn a_heartbeat_is_no_news() {
        let nodes = Nodes::default();
        let labels = json!({"pool": "a", "zone": "b"});
        let apply = |labels| watcher::Event::Apply(node("n", "cn-hangzhou.i-1", labels));
        assert!(!nodes.take(watcher::Event::Init));
        assert!(!nodes.take(watcher::Event::InitApply(node(
            "n",
            "cn-hangzhou.i-1",
            &labels
        ))));
        assert!(nodes.take(watcher::Event::InitDone));
        assert!(!nodes.take(apply(&labels)));
        nodes.look(|nodes, listed| {
            assert_eq!(*listed, Listed::All);
            assert_eq!(nodes["n"].label("pool"), Some("a"));
            assert_eq!(nodes["n"].label("pools"), None);
        });
        assert!(nodes.take(apply(&json!({"pool": "a"}))));
        let gone = watcher::Event::Delete(node("n", "cn-hangzhou.i-1", &labels));
        assert!(nodes.take(gone));
        nodes.look(|nodes, _| assert!(nodes.is_empty()));
    }

    #[test]
    fn what_a_new_list_does_not_show_goes() {
        let nodes = Nodes::default();
        for round in [&["a", "b"][..], &["b"][..]] {
            nodes.take(watcher::Event::Init);
            for name in round {
                let node = node(name, "cn-hangzhou.i-1", &json!({}));
                nodes.take(watcher::Event::InitApply(node));
            }
            nodes.take(watcher::Event::InitDone);
        }
        nodes.look(|nodes, _| assert_eq!(nodes.keys().collect::<Vec<_>>(), ["b"]));
    }
}
