//! Which sets there are, and which of them are due. Enqueues only.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::watcher;
use tokio::sync::{Notify, watch};

use crate::api::SecurityGroupMembershipSet;
use crate::kubernetes::WatchScope;
use crate::watched::Watched;

use super::node_set::NodeSet;

/// What is watched.
pub type SetObject = Watched<SecurityGroupMembershipSet>;

/// How long changes of memberships are gathered before their set looks at them (500 ms): ten thousand memberships that become Ready
/// one by one must not mean ten thousand passes over ten thousand memberships.
const GATHER: Duration = Duration::from_millis(500);

/// Namespace and name of a set.
type Key = (String, String);

/// All sets, and the queue of those that are due.
#[derive(Debug)]
pub struct Sets {
    queues: Vec<(WatchScope, UnboundedSender<ObjectRef<SetObject>>)>,
    /// Each, with what it selects if that is Nodes.
    known: Mutex<HashMap<Key, Option<Arc<NodeSet>>>>,
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
        let mut sets: Vec<_> = known.values().flatten().cloned().collect();
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
        for (key, selects) in &*known {
            if concerns(selects.is_some()) {
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

    /// Takes an event of the watch of sets in one scope; `listing` holds what a list has shown so far.
    pub(super) fn take(
        &self,
        scope: &WatchScope,
        listing: &mut HashSet<Key>,
        event: &watcher::Event<SetObject>,
    ) {
        let key = |set: &SetObject| (set.namespace().unwrap_or_default(), set.name_any());
        let selects = |set: &SetObject| {
            let set = set.0.as_ref();
            set.ok().and_then(NodeSet::of).map(Arc::new)
        };
        match event {
            watcher::Event::Init => listing.clear(),
            watcher::Event::InitApply(set) => {
                listing.insert(key(set));
                lock(&self.known).insert(key(set), selects(set));
            }
            watcher::Event::Apply(set) => {
                lock(&self.known).insert(key(set), selects(set));
            }
            watcher::Event::Delete(set) => {
                lock(&self.known).remove(&key(set));
            }
            watcher::Event::InitDone => {
                let is_there = |key: &Key| !scope.contains(&key.0) || listing.contains(key);
                lock(&self.known).retain(|key, _| is_there(key));
                lock(&self.unlisted).retain(|unlisted| unlisted != scope);
            }
        }
        self.update_select_nodes();
        self.conditions_soon();
    }

    fn update_select_nodes(&self) {
        // Read within the lock of the channel: of two changes at a time, the later one must not send what was before the other.
        self.select_nodes.send_if_modified(|known| {
            let any = lock(&self.known).values().any(Option::is_some);
            let any = any || self.keep_nodes.load(Ordering::SeqCst);
            std::mem::replace(known, any) != any
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
