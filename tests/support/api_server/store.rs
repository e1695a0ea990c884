//! Objects, their revisions and the log of changes. Knows nothing of HTTP.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::fields::Owners;

/// A served kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    /// A custom resource: generation, status subresource, defaults.
    pub custom: bool,
}

const fn custom(plural: &'static str, kind: &'static str, namespaced: bool) -> Kind {
    Kind {
        group: "security-group-operator.io",
        version: "v1alpha1",
        plural,
        kind,
        namespaced,
        custom: true,
    }
}

pub const KINDS: [Kind; 9] = [
    custom("securitygroupmemberships", "SecurityGroupMembership", true),
    custom(
        "securitygroupmembershipsets",
        "SecurityGroupMembershipSet",
        true,
    ),
    Kind {
        group: "",
        version: "v1",
        plural: "nodes",
        kind: "Node",
        namespaced: false,
        custom: false,
    },
    custom("cloudaccounts", "CloudAccount", true),
    custom("clustercloudaccounts", "ClusterCloudAccount", false),
    Kind {
        group: "",
        version: "v1",
        plural: "secrets",
        kind: "Secret",
        namespaced: true,
        custom: false,
    },
    Kind {
        group: "",
        version: "v1",
        plural: "namespaces",
        kind: "Namespace",
        namespaced: false,
        custom: false,
    },
    Kind {
        group: "events.k8s.io",
        version: "v1",
        plural: "events",
        kind: "Event",
        namespaced: true,
        custom: false,
    },
    Kind {
        group: "coordination.k8s.io",
        version: "v1",
        plural: "leases",
        kind: "Lease",
        namespaced: true,
        custom: false,
    },
];

impl Kind {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    pub fn by_plural(plural: &str) -> Kind {
        *KINDS.iter().find(|kind| kind.plural == plural).unwrap()
    }
}

/// Plural, namespace, name.
pub type Key = (&'static str, String, String);

/// An object with its owners. `managedFields` are not written out, because nothing of ours reads them.
#[derive(Clone, Debug, PartialEq)]
pub struct Stored {
    pub object: Arc<Value>,
    pub owners: Arc<Owners>,
}

/// Kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Added,
    Modified,
    Deleted,
}

impl Change {
    pub const fn word(self) -> &'static str {
        match self {
            Self::Added => "ADDED",
            Self::Modified => "MODIFIED",
            Self::Deleted => "DELETED",
        }
    }
}

/// One entry of the log.
#[derive(Clone, Debug)]
pub struct Entry {
    pub revision: u64,
    pub key: Key,
    pub change: Change,
    pub object: Arc<Value>,
    pub owners: Arc<Owners>,
}

/// The API server: objects and the log of changes.
pub struct ApiServer {
    state: Mutex<State>,
    /// Wakes every watch of a kind, the oldest first; a tokio `watch` channel would wake them in random order.
    news: BTreeMap<&'static str, Notify>,
    schemas: Mutex<&'static BTreeMap<String, Value>>,
    /// Most rows of a page, whatever limit was asked for.
    pub(super) page: AtomicUsize,
    started: Instant,
    epoch: Timestamp,
}

/// The content of etcd.
#[derive(Clone)]
pub struct State {
    pub objects: BTreeMap<Key, Stored>,
    pub log: Vec<Entry>,
    pub revision: u64,
    /// The revision at which the store was last put back: no watch goes on from before it.
    pub(super) compacted: u64,
    /// The revisions at which the store was put back, and what it held then.
    restored: Vec<(u64, BTreeMap<Key, Stored>)>,
    uids: u64,
}

impl ApiServer {
    pub(super) fn schemas(&self) -> &'static BTreeMap<String, Value> {
        *self.schemas.lock().unwrap()
    }

    /// From now on a list that asks for pages gets so many rows in each at most.
    pub fn cut_pages(&self, rows: usize) {
        self.page.store(rows, Ordering::SeqCst);
    }

    /// From now on the CRD of a kind is one without this field, for example `status.origin`; `None`: the one of today.
    pub fn undeclare(&self, plural: &str, field: Option<&str>) {
        let mut older = schemas().clone();
        if let Some((part, field)) = field.and_then(|field| field.split_once('.')) {
            let part = &mut older.get_mut(plural).unwrap()["properties"][part]["properties"];
            part.as_object_mut().unwrap().remove(field).unwrap();
        }
        *self.schemas.lock().unwrap() = Box::leak(Box::new(older));
    }

    /// An empty server. Its clock starts at `epoch` and advances with tokio's.
    pub fn new(epoch: Timestamp) -> Self {
        Self {
            state: Mutex::new(State {
                objects: BTreeMap::new(),
                log: Vec::new(),
                revision: 100,
                compacted: 0,
                restored: Vec::new(),
                uids: 0,
            }),
            news: KINDS
                .iter()
                .map(|kind| (kind.plural, Notify::new()))
                .collect(),
            schemas: Mutex::new(schemas()),
            page: AtomicUsize::new(usize::MAX),
            started: Instant::now(),
            epoch,
        }
    }

    /// Whether lists of a kind may select by this field.
    pub(super) fn is_selectable(kind: Kind, path: &str) -> bool {
        let fields = selectable_fields().get(kind.plural);
        fields.is_some_and(|fields| fields.iter().any(|field| field == path))
    }

    /// The current time, by tokio's clock.
    pub fn now(&self) -> Timestamp {
        self.epoch
            .checked_add(self.started.elapsed())
            .unwrap_or(Timestamp::MAX)
    }

    /// Time since the start.
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The stored object.
    pub fn object(&self, plural: &'static str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = (plural, namespace.to_owned(), name.to_owned());
        self.state()
            .objects
            .get(&key)
            .map(|stored| Arc::clone(&stored.object))
    }

    /// All objects of a kind.
    pub fn objects(&self, plural: &'static str) -> Vec<Arc<Value>> {
        self.state()
            .of_kind(plural)
            .map(|(_, stored)| Arc::clone(&stored.object))
            .collect()
    }

    pub(super) fn news(&self, plural: &str) -> &Notify {
        &self.news[plural]
    }

    /// Replaces an object under a new revision.
    pub(super) fn put(
        &self,
        state: &mut State,
        key: Key,
        mut stored: Stored,
        change: Change,
    ) -> Arc<Value> {
        let plural = key.0;
        state.revision += 1;
        Arc::make_mut(&mut stored.object)["metadata"]["resourceVersion"] =
            json!(state.revision.to_string());
        let object = Arc::clone(&stored.object);
        state.log.push(Entry {
            revision: state.revision,
            key: key.clone(),
            change,
            object: Arc::clone(&object),
            owners: Arc::clone(&stored.owners),
        });
        if change == Change::Deleted {
            state.objects.remove(&key);
        } else {
            state.objects.insert(key, stored);
        }
        self.news(plural).notify_waiters();
        object
    }
}

impl ApiServer {
    /// etcd is put back to an earlier revision from a backup, as `etcdutl snapshot restore --bump-revision --mark-compacted` does it:
    /// every object is as it was then, under its version of then; new revisions are higher than all before; and every watch ends with
    /// 410. Returns the objects of a kind that have gone, and those that are others than before, each as it was before or, if it was not
    /// there, as it is now.
    pub fn put_back(
        &self,
        revision: u64,
        plural: &'static str,
    ) -> (Vec<Arc<Value>>, Vec<Arc<Value>>) {
        let mut state = self.state();
        let objects = state.stored_at(revision);
        let version = |stored: &Stored| stored.object["metadata"]["resourceVersion"].clone();
        let uid = |stored: &Stored| stored.object["metadata"]["uid"].clone();
        let (mut gone, mut others) = (Vec::new(), Vec::new());
        for (key, before) in state.of_kind(plural) {
            let after: Option<&Stored> = objects.get(key);
            if after.is_none_or(|after| uid(after) != uid(before)) {
                gone.push(Arc::clone(&before.object));
                others.extend(after.map(|after| Arc::clone(&after.object)));
            } else if after.is_some_and(|after| version(after) != version(before)) {
                others.push(Arc::clone(&before.object));
            }
        }
        let appears = |key: &Key| !state.objects.contains_key(key);
        let appeared = objects
            .iter()
            .filter(|(key, _)| key.0 == plural && appears(key));
        others.extend(appeared.map(|(_, stored)| Arc::clone(&stored.object)));
        state.revision += 1_000_000;
        state.compacted = state.revision;
        let revision = state.revision;
        state.restored.push((revision, objects.clone()));
        state.objects = objects;
        drop(state);
        for news in self.news.values() {
            news.notify_waiters();
        }
        (gone, others)
    }
}

impl State {
    pub fn new_uid(&mut self) -> String {
        self.uids += 1;
        format!("00000000-0000-4000-8000-{:012}", self.uids)
    }

    /// What was stored at a revision.
    fn stored_at(&self, revision: u64) -> BTreeMap<Key, Stored> {
        let last = self.restored.iter().rfind(|(at, _)| *at <= revision);
        let (from, mut objects) = last.cloned().unwrap_or_default();
        let since = self.log.iter().filter(|entry| entry.revision > from);
        for entry in since.take_while(|entry| entry.revision <= revision) {
            match entry.change {
                Change::Added | Change::Modified => {
                    let stored = Stored {
                        object: Arc::clone(&entry.object),
                        owners: Arc::clone(&entry.owners),
                    };
                    objects.insert(entry.key.clone(), stored);
                }
                Change::Deleted => {
                    objects.remove(&entry.key);
                }
            }
        }
        objects
    }

    fn of_kind(&self, plural: &'static str) -> impl Iterator<Item = (&Key, &Stored)> {
        self.objects
            .range((plural, String::new(), String::new())..)
            .take_while(move |((of, ..), _)| *of == plural)
    }

    /// The objects of a kind as they were at a revision.
    pub fn at(&self, plural: &'static str, revision: u64) -> BTreeMap<Key, Arc<Value>> {
        if revision >= self.revision {
            return self
                .of_kind(plural)
                .map(|(key, stored)| (key.clone(), Arc::clone(&stored.object)))
                .collect();
        }
        let objects = self.stored_at(revision).into_iter();
        objects
            .filter(|(key, _)| key.0 == plural)
            .map(|(key, stored)| (key, stored.object))
            .collect()
    }
}

/// The schemas of our kinds by plural; built once, because tests start thousands of servers.
fn schemas() -> &'static BTreeMap<String, Value> {
    static SCHEMAS: std::sync::OnceLock<BTreeMap<String, Value>> = std::sync::OnceLock::new();
    SCHEMAS.get_or_init(|| {
        security_group_operator::api::crds()
            .into_iter()
            .map(|(_, crd)| {
                let schema = crd.spec.versions[0]
                    .schema
                    .as_ref()
                    .and_then(|schema| schema.open_api_v3_schema.clone());
                (
                    crd.spec.names.plural.clone(),
                    serde_json::to_value(schema).unwrap(),
                )
            })
            .collect()
    })
}

/// The fields of our kinds that lists may select by.
fn selectable_fields() -> &'static BTreeMap<String, Vec<String>> {
    static FIELDS: std::sync::OnceLock<BTreeMap<String, Vec<String>>> = std::sync::OnceLock::new();
    FIELDS.get_or_init(|| {
        let crds = security_group_operator::api::crds().into_iter();
        crds.map(|(_, crd)| {
            let fields = crd.spec.versions[0].selectable_fields.iter().flatten();
            let path = |json_path: &str| json_path.trim_start_matches('.').to_owned();
            let paths = fields.map(|field| path(&field.json_path)).collect();
            (crd.spec.names.plural.clone(), paths)
        })
        .collect()
    })
}
