//! Which sets there are, and which of them are due. Enqueues only.

use std::collections::{HashMap, HashSet};
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
    /// Whether each selects Nodes.
    known: Mutex<HashMap<Key, bool>>,
    gathered: Mutex<HashSet<Key>>,
    wake: Notify,
    select_nodes: watch::Sender<bool>,
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
            gathered: Mutex::default(),
            wake: Notify::new(),
            select_nodes: watch::Sender::new(false),
        };
        (Arc::new(sets), due)
    }

    /// Whether some set selects Nodes.
    #[must_use]
    pub fn select_nodes(&self) -> watch::Receiver<bool> {
        self.select_nodes.subscribe()
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
        for (key, selects_nodes) in &*known {
            if concerns(*selects_nodes) {
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
            set.is_ok_and(|set| set.spec.node_selector.is_some())
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
            }
        }
        let any = lock(&self.known).values().any(|selects| *selects);
        self.select_nodes
            .send_if_modified(|known| std::mem::replace(known, any) != any);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // No code panics while it holds one of these locks.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
