//! Which sets there are, and which of them are due. Enqueues only.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use kube::{Resource as _, ResourceExt as _};
use tokio::sync::{Notify, watch};

use crate::api::SecurityGroupMembershipSet;
use crate::kubernetes::{ObjectUid, WatchScope};
use crate::watched::Watched;

use super::node_set::NodeSet;

/// What is watched.
pub type SetObject = Watched<SecurityGroupMembershipSet>;

/// How long changes of memberships are gathered before their set looks at them (500 ms): ten thousand memberships that become Ready
/// one by one must not mean ten thousand passes over ten thousand memberships.
const GATHER: Duration = Duration::from_millis(500);

/// Namespace and name of a set.
type Key = (String, String);

/// One set.
#[derive(Debug)]
struct Known {
    uid: Option<ObjectUid>,
    generation: Option<i64>,
    deleting: bool,
    /// What it selects, if that is Nodes.
    selects: Option<Arc<NodeSet>>,
}

impl Known {
    fn of(set: &SetObject) -> Self {
        let readable = set.0.as_ref();
        Self {
            uid: ObjectUid::of(set),
            generation: set.meta().generation,
            deleting: set.meta().deletion_timestamp.is_some(),
            selects: readable.ok().and_then(NodeSet::of).map(Arc::new),
        }
    }
}

/// All sets, and the queue of those that are due.
#[derive(Debug)]
pub struct Sets {
    queues: Vec<(WatchScope, UnboundedSender<ObjectRef<SetObject>>)>,
    known: Mutex<HashMap<Key, Known>>,
    /// Scopes whose sets have not been listed yet.
    unlisted: Mutex<Vec<WatchScope>>,
    gathered: Mutex<HashSet<Key>>,
    wake: Notify,
    select_nodes: watch::Sender<bool>,
    /// Nodes are watched although no set selects any.
    keep_nodes: AtomicBool,
    conditions: Notify,
}

impl Sets {
    /// None yet; and what is due in each scope.
    #[must_use]
    pub fn new(scopes: &[WatchScope]) -> (Arc<Self>, Vec<UnboundedReceiver<ObjectRef<SetObject>>>) {
        let (queues, due) = scopes
            .iter()
            .map(|scope| {
                let (sender, receiver) = unbounded();
                ((scope.clone(), sender), receiver)
            })
            .unzip();
        let sets = Self {
            queues,
            known: Mutex::default(),
            unlisted: Mutex::new(scopes.to_vec()),
            gathered: Mutex::default(),
            wake: Notify::new(),
            select_nodes: watch::Sender::new(false),
            keep_nodes: AtomicBool::new(false),
            conditions: Notify::new(),
        };
        (Arc::new(sets), due)
    }

    /// Whether Nodes are to be watched: some set selects them, or [`Self::keep_nodes`] asks for it.
    #[must_use]
    pub fn select_nodes(&self) -> watch::Receiver<bool> {
        self.select_nodes.subscribe()
    }

    /// Has Nodes watched also while no set selects any, or not any more.
    pub(super) fn keep_nodes(&self, keep: bool) {
        self.keep_nodes.store(keep, Ordering::SeqCst);
        self.update_select_nodes();
    }

    /// The sets that select Nodes, by namespace and name; `None` before all have been listed.
    pub(super) fn node_sets(&self) -> Option<Vec<Arc<NodeSet>>> {
        if !lock(&self.unlisted).is_empty() {
            return None;
        }
        let known = lock(&self.known);
        let sets = known.values().filter_map(|set| set.selects.clone());
        let mut sets: Vec<_> = sets.collect();
        sets.sort_unstable_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
        Some(sets)
    }

    /// The conditions of Nodes are due: a set, a membership or a Node has changed.
    pub fn conditions_soon(&self) {
        self.conditions.notify_one();
    }

    /// Resolves when the conditions of Nodes are due.
    pub(super) async fn conditions_due(&self) {
        self.conditions.notified().await;
    }

    /// A set is due within [`GATHER`].
    pub(super) fn soon(&self, namespace: &str, name: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        lock(&self.gathered).insert(key);
        self.wake.notify_one();
    }

    /// Every set of a namespace is due within [`GATHER`].
    pub(super) fn soon_in(&self, namespace: &str) {
        let known = lock(&self.known);
        let keys = known.keys().filter(|(of, _)| of == namespace);
        lock(&self.gathered).extend(keys.cloned());
        drop(known);
        self.wake.notify_one();
    }

    /// Every set is due now.
    pub fn all_now(&self) {
        self.enqueue_if(|_| true);
    }

    /// Every set that selects Nodes is due now.
    pub fn of_nodes_now(&self) {
        self.enqueue_if(|selects_nodes| selects_nodes);
    }

    fn enqueue_if(&self, concerns: impl Fn(bool) -> bool) {
        let known = lock(&self.known);
        for (key, set) in &*known {
            if concerns(set.selects.is_some()) {
                self.enqueue(key);
            }
        }
    }

    /// This set is due now.
    pub(super) fn enqueue(&self, (namespace, name): &Key) {
        for (scope, queue) in &self.queues {
            if scope.contains(namespace) {
                // Closed only while the process shuts down.
                let _ = queue.unbounded_send(ObjectRef::new(name).within(namespace));
            }
        }
    }

    /// Hands on what was gathered. Never ends.
    pub async fn run(&self) {
        loop {
            self.wake.notified().await;
            tokio::time::sleep(GATHER).await;
            let gathered = std::mem::take(&mut *lock(&self.gathered));
            let known = lock(&self.known);
            for key in gathered.iter().filter(|key| known.contains_key(*key)) {
                self.enqueue(key);
            }
            // A set whose pass goes on is not due before it ends.
            self.conditions_soon();
        }
    }

    /// Whether this set is still there, as far as the watch has shown, and no other one of its name.
    pub(super) fn is_there(&self, set: &SetObject) -> bool {
        let known = lock(&self.known);
        known
            .get(&key_of(set))
            .is_some_and(|known| known.uid == ObjectUid::of(set))
    }

    /// Whether the watch has shown no other spec of this set, and neither its deletion nor its end.
    pub(super) fn is_as_shown(&self, set: &SecurityGroupMembershipSet, uid: &ObjectUid) -> bool {
        let key = (set.namespace().unwrap_or_default(), set.name_any());
        lock(&self.known).get(&key).is_some_and(|known| {
            known.uid.as_ref() == Some(uid)
                && known.generation == set.metadata.generation
                && !known.deleting
        })
    }

    /// Takes an event of the watch of sets in one scope; `listing` holds what a list has shown so far. Returns the sets that are gone:
    /// the watch shows the end of some, and a list does not show those whose end was missed.
    pub(super) fn take(
        &self,
        scope: &WatchScope,
        listing: &mut HashSet<Key>,
        event: &watcher::Event<SetObject>,
    ) -> Vec<ObjectUid> {
        let mut known = lock(&self.known);
        let gone: Vec<Known> = match event {
            watcher::Event::Init => {
                listing.clear();
                Vec::new()
            }
            watcher::Event::InitApply(set) => {
                listing.insert(key_of(set));
                replaced(&mut known, set)
            }
            watcher::Event::Apply(set) => replaced(&mut known, set),
            watcher::Event::Delete(set) => known.remove(&key_of(set)).into_iter().collect(),
            watcher::Event::InitDone => {
                lock(&self.unlisted).retain(|unlisted| unlisted != scope);
                let is_gone = |key: &Key| scope.contains(&key.0) && !listing.contains(key);
                let gone = known.extract_if(|key, _| is_gone(key));
                gone.map(|(_, set)| set).collect()
            }
        };
        let gone = gone.into_iter().filter_map(|set| set.uid).collect();
        drop(known);
        self.update_select_nodes();
        self.conditions_soon();
        gone
    }

    fn update_select_nodes(&self) {
        // Read within the lock of the channel: of two changes at a time, the later one must not send what was before the other.
        self.select_nodes.send_if_modified(|known| {
            let any = lock(&self.known).values().any(|set| set.selects.is_some());
            let any = any || self.keep_nodes.load(Ordering::SeqCst);
            std::mem::replace(known, any) != any
        });
    }
}

/// Takes in a set; returns the one of its name that it replaces.
fn replaced(known: &mut HashMap<Key, Known>, set: &SetObject) -> Vec<Known> {
    let uid = ObjectUid::of(set);
    let former = known.insert(key_of(set), Known::of(set));
    former.into_iter().filter(|set| set.uid != uid).collect()
}

fn key_of(set: &SetObject) -> Key {
    (set.namespace().unwrap_or_default(), set.name_any())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
