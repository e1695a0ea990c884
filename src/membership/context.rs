//! What the passes and tasks over all memberships share. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Semaphore;

use crate::account::directory::Directory;
use crate::args::Settings;
use crate::clock::Clock;
use crate::kubernetes::events::EventRecorder;
use crate::kubernetes::{LogDeduper, ObjectUid};
use crate::telemetry::Telemetry;

use super::history::History;
use super::index::Edges;
use super::locks::Locks;
use super::queue::ReconcileQueue;
use super::turn::Turns;

/// What every pass shares.
pub struct Context {
    /// The cluster.
    pub client: kube::Client,
    /// Who names which edge.
    pub edges: Arc<Edges>,
    /// Who may call as whom.
    pub directory: Arc<Directory>,
    /// How passes ask for passes.
    pub queue: ReconcileQueue,
    /// Where transitions are recorded as events.
    pub events: EventRecorder,
    /// Where passes are counted.
    pub telemetry: Arc<Telemetry>,
    /// What time it is.
    pub clock: Clock,
    /// Whose turn it is.
    pub turns: Arc<Turns>,
    pub(super) writes: Semaphore,
    pub(super) refusals: LogDeduper,
    pub(super) locks: Locks,
    pub(super) history: History,
    unlisted_scopes: AtomicUsize,
}

impl Context {
    /// The context for controllers of these scopes.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another thing, named by its type"
    )]
    pub fn new(
        client: kube::Client,
        edges: Arc<Edges>,
        directory: Arc<Directory>,
        queue: ReconcileQueue,
        events: EventRecorder,
        telemetry: Arc<Telemetry>,
        clock: Clock,
        settings: &Settings,
    ) -> Self {
        Self {
            client,
            edges,
            directory,
            turns: Arc::new(Turns::new(queue.clone())),
            queue,
            events,
            telemetry,
            refusals: LogDeduper::default(),
            writes: Semaphore::new(usize::from(settings.max_writes_in_flight)),
            locks: Locks::default(),
            history: History::new(clock.clone()),
            clock,
            unlisted_scopes: AtomicUsize::new(settings.scopes.len()),
        }
    }

    /// Whether every object has been listed once: before that the siblings of an edge are unknown.
    #[must_use]
    pub fn is_synced(&self) -> bool {
        self.unlisted_scopes.load(Ordering::SeqCst) == 0
    }

    /// An object is gone.
    pub(super) fn forget(&self, uid: &ObjectUid) {
        for concerned in self.edges.remove(uid) {
            self.queue.enqueue(&concerned);
        }
        self.history.forget(uid);
    }

    /// A scope has been listed for the first time.
    pub(super) fn scope_listed(&self) {
        if self.unlisted_scopes.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.telemetry.set_ready();
            for object in self.edges.deleting() {
                self.queue.enqueue(&object);
            }
        }
    }
}
