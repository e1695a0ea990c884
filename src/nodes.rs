//! The Nodes of the cluster, as far as a set looks at them: which ECS instance each is, its labels and its age; and our condition on
//! them. Reads only, and only while a set selects Nodes or a condition of ours may be left on one.

mod condition;
mod node;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::runtime::watcher;

use crate::ecs::{InstanceId, Region};
use crate::kubernetes::version_of;

pub use self::condition::StoredCondition;
pub use self::node::Node;
pub use self::watch::{TROUBLE_AFTER, watch};

/// A Node as sets look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownNode {
    /// Its UID.
    pub uid: Box<str>,
    /// The ECS instance that it is; `None` for a hybrid, virtual or Lingjun node, and before its `providerID` is set.
    pub instance: Option<(Region, InstanceId)>,
    /// When it was created, in seconds since 1970.
    pub created: i64,
    /// Its labels, by key. Nodes with the same label share it.
    labels: Box<[Arc<Label>]>,
    /// The number of the list that has shown it, or of the list before the event that has.
    list: u32,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Label {
    key: Arc<str>,
    value: Box<str>,
}

impl KnownNode {
    /// Its labels, by key.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        let labels = self.labels.iter();
        labels.map(|label| (&*label.key, &*label.value))
    }

    /// The value of a label.
    #[must_use]
    pub fn label(&self, key: &str) -> Option<&str> {
        let at = self.labels.binary_search_by(|label| (*label.key).cmp(key));
        let label = self.labels.get(at.ok()?)?;
        Some(&label.value)
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
    /// They could not be listed for [`TROUBLE_AFTER`] or longer; with what kept them from being listed.
    Failed(String),
    /// They are all known.
    All,
    /// They were all known, and the watch has failed since; with what keeps it from going on, if that has been so for
    /// [`TROUBLE_AFTER`] or longer.
    Interrupted(Option<String>),
    /// The operator may not list them; with what the API server answered.
    Forbidden(String),
}

impl Listed {
    /// What has kept the watch of Nodes that were all known from going on, for [`TROUBLE_AFTER`] or longer.
    #[must_use]
    pub const fn trouble(&self) -> Option<&String> {
        match self {
            Self::Interrupted(trouble) => trouble.as_ref(),
            Self::Not | Self::Failed(_) | Self::All | Self::Forbidden(_) => None,
        }
    }
}

/// All Nodes, by name.
#[derive(Debug, Default)]
pub struct Nodes {
    inner: Mutex<Inner>,
}

/// What an event of the watch has changed. A heartbeat changes nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Something that a set looks at.
    pub selection: bool,
    /// Our condition on a Node.
    pub condition: bool,
}

/// Our condition on a Node.
#[derive(Debug)]
struct Noted {
    /// The version of the Node that shows it.
    version: u64,
    /// `None` after the operator has removed it, until the watch shows that.
    condition: Option<StoredCondition>,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: HashMap<String, KnownNode>,
    /// Only Nodes that have our condition, or had it until the operator removed it.
    noted: HashMap<String, Noted>,
    labels: HashSet<Arc<Label>>,
    keys: HashSet<Arc<str>>,
    regions: HashSet<Region>,
    /// The number of the last list that has begun.
    list: u32,
    listed: Listed,
}

impl Nodes {
    /// Calls `look` with all Nodes, and whether they are all.
    pub fn look<T>(&self, look: impl FnOnce(&HashMap<String, KnownNode>, &Listed) -> T) -> T {
        let inner = self.lock();
        look(&inner.by_name, &inner.listed)
    }

    /// Calls `look` for each Node with its name and our condition on it, if all Nodes are known. Returns whether they are.
    pub fn each_condition(
        &self,
        mut look: impl FnMut(&str, &KnownNode, Option<&StoredCondition>),
    ) -> bool {
        let inner = self.lock();
        if inner.listed != Listed::All {
            return false;
        }
        for (name, node) in &inner.by_name {
            let noted = inner.noted.get(name);
            look(name, node, noted.and_then(|noted| noted.condition.as_ref()));
        }
        true
    }

    /// Takes the answer to a write of our condition.
    pub fn written(&self, node: Node) {
        let version = version_of(&node.metadata);
        let name = node.metadata.name.unwrap_or_default();
        let mut inner = self.lock();
        let known = inner.noted.get(&name);
        if known.is_none_or(|known| known.version < version) && inner.by_name.contains_key(&name) {
            let condition = node.condition;
            inner.noted.insert(name, Noted { version, condition });
        }
    }

    /// Takes an event of the watch. Returns what has changed.
    pub fn take(&self, event: watcher::Event<Node>) -> News {
        let mut inner = self.lock();
        match event {
            watcher::Event::Init => {
                inner.list = inner.list.wrapping_add(1);
                News::default()
            }
            watcher::Event::InitApply(node) => {
                inner.insert(node);
                News::default()
            }
            watcher::Event::InitDone => {
                let inner = &mut *inner;
                inner.by_name.retain(|_, node| node.list == inner.list);
                inner
                    .noted
                    .retain(|name, _| inner.by_name.contains_key(name));
                inner.labels.retain(|label| Arc::strong_count(label) > 1);
                inner.keys.retain(|key| Arc::strong_count(key) > 1);
                inner.listed = Listed::All;
                News {
                    selection: true,
                    condition: true,
                }
            }
            watcher::Event::Apply(node) => {
                let goes_on = inner.goes_on();
                let news = inner.insert(node);
                News {
                    selection: goes_on || news.selection,
                    ..news
                }
            }
            watcher::Event::Delete(node) => {
                let name = node.metadata.name.unwrap_or_default();
                inner.noted.remove(&name);
                let known = inner.by_name.remove(&name);
                let selection = inner.goes_on() | known.is_some();
                inner.release(known);
                News {
                    selection,
                    condition: false,
                }
            }
        }
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
    /// An event tells that the watch goes on. Returns whether it had failed, or was forbidden for a time: no such event comes before a
    /// whole list.
    fn goes_on(&mut self) -> bool {
        let was_interrupted = matches!(self.listed, Listed::Interrupted(_) | Listed::Forbidden(_));
        if was_interrupted {
            self.listed = Listed::All;
        }
        was_interrupted
    }

    fn insert(&mut self, node: Node) -> News {
        let Node {
            metadata,
            provider_id,
            condition,
        } = node;
        let version = version_of(&metadata);
        let labels = metadata.labels.unwrap_or_default();
        let instance = instance_of(provider_id.as_deref().unwrap_or_default(), &labels);
        let instance = instance.map(|(region, id)| (shared(&mut self.regions, region), id));
        let created = metadata.creation_timestamp;
        let labels = labels.into_iter().map(|(key, value)| {
            let (key, value) = (shared(&mut self.keys, key.into()), value.into());
            shared(&mut self.labels, Arc::new(Label { key, value }))
        });
        let known = KnownNode {
            uid: metadata.uid.unwrap_or_default().into(),
            labels: labels.collect(),
            instance,
            created: created.map_or(0, |created| created.0.as_second()),
            list: self.list,
        };
        let name = metadata.name.unwrap_or_default();
        let condition = self.note(&name, version, condition);
        let selection = self.by_name.get(&name) != Some(&known);
        if selection {
            let former = self.by_name.insert(name, known);
            self.release(former);
        }
        News {
            selection,
            condition,
        }
    }

    /// Takes our condition as the watch shows it. Returns whether it has changed. What is older than the operator's own write is
    /// passed over.
    fn note(&mut self, name: &str, version: u64, shown: Option<StoredCondition>) -> bool {
        let known = self.noted.get(name);
        if known.is_some_and(|known| known.version > version) {
            return false;
        }
        let has_changed = known.and_then(|known| known.condition.as_ref()) != shown.as_ref();
        match shown {
            Some(_) => {
                let condition = shown;
                let noted = Noted { version, condition };
                self.noted.insert(name.to_owned(), noted);
            }
            None => {
                self.noted.remove(name);
            }
        }
        has_changed
    }

    /// Forgets the labels that only this Node had.
    fn release(&mut self, node: Option<KnownNode>) {
        for label in node.iter().flat_map(|node| &node.labels) {
            if Arc::strong_count(label) == 2 {
                self.labels.remove(label);
            }
        }
    }
}

/// The one that is known and equal to `new`, so that equal ones share their memory.
fn shared<T: Clone + Eq + Hash>(known: &mut HashSet<T>, new: T) -> T {
    if let Some(known) = known.get(&new) {
        return known.clone();
    }
    known.insert(new.clone());
    new
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::NODE_CONDITION;

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
        assert!(!nodes.take(watcher::Event::Init).selection);
        let first = node("n", "cn-hangzhou.i-1", &labels);
        assert!(!nodes.take(watcher::Event::InitApply(first)).selection);
        assert!(nodes.take(watcher::Event::InitDone).selection);
        assert_eq!(nodes.take(apply(&labels)), News::default());
        nodes.look(|nodes, listed| {
            assert_eq!(*listed, Listed::All);
            assert_eq!(nodes["n"].label("pool"), Some("a"));
            assert_eq!(nodes["n"].label("pools"), None);
        });
        assert!(nodes.take(apply(&json!({"pool": "a"}))).selection);
        let gone = watcher::Event::Delete(node("n", "cn-hangzhou.i-1", &labels));
        assert!(nodes.take(gone).selection);
        nodes.look(|nodes, _| assert!(nodes.is_empty()));
    }

    #[test]
    fn labels_of_nodes_that_are_gone_are_forgotten() {
        let nodes = Nodes::default();
        let apply = |name: &str| {
            let labels = json!({"pool": "a", "host": name});
            node(name, "cn-hangzhou.i-1", &labels)
        };
        for name in ["a", "b", "c"] {
            nodes.take(watcher::Event::Apply(apply(name)));
        }
        assert_eq!(nodes.lock().labels.len(), 4);
        assert_eq!(nodes.lock().keys.len(), 2);
        nodes.take(watcher::Event::Delete(apply("a")));
        let moved = node("b", "cn-hangzhou.i-1", &json!({"pool": "a", "host": "d"}));
        nodes.take(watcher::Event::Apply(moved));
        let left = nodes.lock().labels.clone();
        let mut left: Vec<_> = left.iter().map(|label| label.value.to_string()).collect();
        left.sort();
        assert_eq!(left, ["a", "c", "d"]);
        nodes.look(|nodes, _| assert_eq!(nodes["c"].label("host"), Some("c")));
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

    fn with_condition(version: u64, status: Option<&str>) -> Node {
        let mut conditions =
            vec![json!({"type": "Ready", "status": "True", "lastHeartbeatTime": null})];
        conditions.extend(status.map(|status| {
            json!({"type": NODE_CONDITION, "status": status, "reason": "Joined", "message": "a \"b\"",
                "lastTransitionTime": "2026-01-02T03:04:05Z"})
        }));
        serde_json::from_value(json!({
            "metadata": {"name": "n", "uid": "u", "resourceVersion": version.to_string()},
            "status": {"conditions": conditions},
        }))
        .unwrap()
    }

    fn stored(nodes: &Nodes) -> Option<String> {
        let mut stored = None;
        nodes.each_condition(|_, _, condition| {
            stored = condition.map(|condition| condition.status.clone());
        });
        stored
    }

    #[test]
    fn of_all_conditions_only_ours_is_read() {
        let node = with_condition(1, Some("False"));
        let condition = node.condition.unwrap();
        assert_eq!(condition.status, "False");
        assert_eq!(condition.message, "a \"b\"");
        assert!(condition.since.is_some());
        assert_eq!(with_condition(1, None).condition, None);
    }

    #[test]
    fn a_watch_that_is_behind_our_own_write_changes_no_condition() {
        let nodes = Nodes::default();
        nodes.take(watcher::Event::Init);
        nodes.take(watcher::Event::InitApply(with_condition(1, None)));
        assert_eq!(stored(&nodes), None, "not listed yet");
        nodes.take(watcher::Event::InitDone);
        nodes.written(with_condition(5, Some("True")));
        assert_eq!(stored(&nodes).as_deref(), Some("True"));
        let apply =
            |version, status| nodes.take(watcher::Event::Apply(with_condition(version, status)));
        assert_eq!(apply(4, None), News::default());
        assert_eq!(apply(5, Some("True")), News::default());
        assert_eq!(stored(&nodes).as_deref(), Some("True"));
        // Another actor changes it.
        assert!(apply(6, Some("Unknown")).condition);
        // The operator removes it.
        nodes.written(with_condition(8, None));
        assert_eq!(apply(7, Some("Unknown")), News::default());
        assert_eq!(stored(&nodes), None);
        assert_eq!(apply(8, None), News::default());
        assert!(apply(9, Some("True")).condition);
        nodes.take(watcher::Event::Delete(with_condition(10, Some("True"))));
        assert!(nodes.lock().noted.is_empty());
    }
}
