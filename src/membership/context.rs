//! What the passes and tasks over all memberships share. Decides nothing.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::account::directory::Directory;
use crate::account::key::AccountKey;
use crate::api::{SecurityGroupMembership, SecurityGroupMembershipStatus};
use crate::clock::Clock;
use crate::ecs::{AccountUid, DocsUrl, Edge};
use crate::kubernetes::events::EventRecorder;
use crate::kubernetes::writer::ApiWriter;
use crate::kubernetes::{LogDeduper, ObjectUid, WatchScope};
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;

use super::admission::Admission;
use super::decide::EdgeView;
use super::progress::Progress;
use super::queue::ReconcileQueue;
use super::table::{ObjectTable, ObjectView};
use super::view::View;

/// How long a refused list of all memberships is not tried again (5 minutes): an API server that has just started refuses for a moment
/// what it allows.
const ASK_AGAIN: Duration = Duration::from_secs(5 * 60);

/// How long a target may stay unread.
#[derive(Clone, Copy, Debug)]
pub struct ReadPeriods {
    /// How often scans read each target.
    pub scan: Duration,
    /// Scan periods after which an object whose target no read has shown is not Ready any more.
    pub not_observed_after: u32,
}

impl ReadPeriods {
    /// How long Ready=True stands without a read.
    #[must_use]
    pub fn not_observed_after(&self) -> Duration {
        self.scan.saturating_mul(self.not_observed_after)
    }
}

/// What every pass shares.
pub struct Context {
    /// The cluster.
    pub client: kube::Client,
    /// Writes to it.
    pub writer: ApiWriter,
    /// One row per membership.
    pub table: Arc<ObjectTable>,
    /// The accounts and their grants.
    pub directory: Arc<Directory>,
    /// Requests passes.
    pub queue: ReconcileQueue,
    /// Receives transitions as events.
    pub events: EventRecorder,
    /// Counts passes.
    pub telemetry: Arc<Telemetry>,
    /// The time.
    pub clock: Clock,
    /// After it has begun, no step begins but the record of an answered call.
    pub shutdown: Shutdown,
    /// How long a target may stay unread.
    pub read_periods: ReadPeriods,
    /// Which passes may begin.
    pub admission: Arc<Admission>,
    /// How old what the watches have shown may be.
    pub view: View,
    /// Where the documentation is, for messages.
    pub docs_url: Option<DocsUrl>,
    /// The namespaces that are watched.
    pub(super) scopes: Vec<WatchScope>,
    /// When the API server refused the list of the memberships of all namespaces.
    pub(super) all_refused_at: Mutex<Option<Instant>>,
    pub(super) logged: LogDeduper,
    scans: Mutex<Vec<Weak<Progress>>>,
    late: Mutex<HashMap<AccountKey, usize>>,
    unlisted_scopes: AtomicUsize,
    all_listed: CancellationToken,
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
        writer: ApiWriter,
        table: Arc<ObjectTable>,
        directory: Arc<Directory>,
        queue: ReconcileQueue,
        events: EventRecorder,
        telemetry: Arc<Telemetry>,
        clock: Clock,
        shutdown: Shutdown,
        read_periods: ReadPeriods,
        scopes: &[WatchScope],
    ) -> Self {
        Self {
            client,
            writer,
            table,
            directory,
            admission: Arc::new(Admission::new(queue.clone())),
            queue,
            events,
            telemetry,
            logged: LogDeduper::default(),
            clock,
            shutdown,
            read_periods,
            scans: Mutex::default(),
            late: Mutex::default(),
            unlisted_scopes: AtomicUsize::new(scopes.len()),
            all_listed: CancellationToken::new(),
            view: View::new(scopes),
            docs_url: None,
            scopes: scopes.to_vec(),
            all_refused_at: Mutex::default(),
        }
    }

    /// Whether a membership may be removed: every object has been listed once (before that the siblings of an edge are unknown), and
    /// no call of a process before this one is under way.
    #[must_use]
    pub fn may_remove(&self) -> bool {
        self.all_listed.is_cancelled() && !self.table.others_may_be_calling()
    }

    /// Whether every object has been listed once.
    pub(super) fn is_listed(&self) -> bool {
        self.all_listed.is_cancelled()
    }

    /// How many targets of each account could not be read for three scan periods.
    pub(super) fn late_targets(&self) -> MutexGuard<'_, HashMap<AccountKey, usize>> {
        self.late.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The scans that run.
    pub(super) fn scans(&self) -> MutexGuard<'_, Vec<Weak<Progress>>> {
        self.scans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when every object has been listed once.
    pub async fn until_listed(&self) {
        self.all_listed.cancelled().await;
    }

    /// The calls of the process before this one have ended: what waited for that goes on.
    pub fn others_have_ended(&self) {
        self.table.others_have_ended();
        self.enqueue_deleting();
        self.enqueue_all(&self.table.unsettled());
    }

    /// What the API server will store of a status, as far as it is known.
    pub(super) fn storable(
        &self,
        status: SecurityGroupMembershipStatus,
    ) -> SecurityGroupMembershipStatus {
        self.writer.storable::<SecurityGroupMembership, _>(status)
    }

    /// Whether what memory shows of an edge is new enough for a Leave. What is not watched, and may be listed, it does not show.
    pub(super) fn edge_view(&self) -> EdgeView {
        let shows_all = self.watches_all() || !self.may_list_all();
        if shows_all && self.view.is_fresh() {
            EdgeView::Fresh
        } else {
            EdgeView::Stale
        }
    }

    /// Whether the memberships of all namespaces may be listed, as far as it was tried in the last [`ASK_AGAIN`].
    pub(super) fn may_list_all(&self) -> bool {
        let refused_at = self.all_refused_at.lock();
        let refused_at = *refused_at.unwrap_or_else(PoisonError::into_inner);
        refused_at.is_none_or(|at| at.elapsed() >= ASK_AGAIN)
    }

    /// The API server refuses the list of the memberships of all namespaces.
    pub(super) fn all_refused(&self) {
        let refused_at = self.all_refused_at.lock();
        *refused_at.unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    /// Whether the objects of this namespace are watched.
    pub(super) fn is_watched(&self, namespace: &str) -> bool {
        self.scopes.iter().any(|scope| scope.contains(namespace))
    }

    /// Whether those of all namespaces are.
    pub(super) fn watches_all(&self) -> bool {
        self.scopes.contains(&WatchScope::All)
    }

    /// Forgets a deleted object.
    pub(super) fn forget(&self, uid: &ObjectUid) {
        self.admission.forget(uid);
        let may_hold = self.may_hold(uid);
        let siblings = self.table.remove(uid);
        if may_hold {
            self.enqueue_all(&siblings);
        }
    }

    /// Enqueues the objects that a change of this object concerns.
    pub(super) fn enqueue_concerned(
        &self,
        uid: &ObjectUid,
        concerned: &[ObjectRef<SecurityGroupMembership>],
    ) {
        if !concerned.is_empty() && self.may_hold(uid) {
            self.enqueue_all(concerned);
        }
    }

    /// Whether others are concerned by what becomes of this object. Otherwise a namespace without a grant could cause reads of
    /// the others' targets.
    fn may_hold(&self, uid: &ObjectUid) -> bool {
        self.table.view(uid).is_some_and(|view| {
            let granted = |edge| self.granted_uid(&view, edge);
            view.record().is_some() || view.edge().and_then(granted).is_some()
        })
    }

    /// UID of the cloud account that an object may use for this edge now. Where a grant asks for tags of the target, an object
    /// that has recorded the edge has them, or had them then: others are read by their own passes only.
    pub(super) fn granted_uid(&self, view: &ObjectView, edge: &Edge) -> Option<AccountUid> {
        self.granted_uid_if(view, edge, view.record().is_some())
    }

    /// The same, with the answer where a grant asks for tags of the target.
    pub(super) fn granted_uid_if(
        &self,
        view: &ObjectView,
        edge: &Edge,
        if_tagged: bool,
    ) -> Option<AccountUid> {
        let (account, namespace) = (view.account()?, &view.namespace);
        self.directory
            .granted_uid(account, namespace, (&edge.region, &edge.group), if_tagged)
    }

    fn enqueue_all(&self, objects: &[ObjectRef<SecurityGroupMembership>]) {
        for object in objects {
            self.queue.enqueue(object);
        }
    }

    /// A scope has been listed for the first time.
    pub(super) fn scope_listed(&self) {
        if self.unlisted_scopes.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.telemetry.set_ready();
            self.all_listed.cancel();
            self.enqueue_deleting();
        }
    }

    fn enqueue_deleting(&self) {
        for object in self.table.deleting() {
            self.queue.enqueue(&object);
        }
    }
}

/// Over a cluster that never answers.
#[cfg(test)]
impl Context {
    pub(crate) fn of_test(directory: Directory) -> Self {
        let unused = |_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
        };
        let kubernetes = kube::Client::new(tower::service_fn(unused), "default");
        let clock = Clock::system();
        let writer = ApiWriter::new(1, Shutdown::default(), Arc::default());
        let (events, _) = EventRecorder::new(
            kubernetes.clone(),
            writer.clone(),
            None,
            Arc::default(),
            clock.clone(),
        );
        Self::new(
            kubernetes,
            writer,
            Arc::default(),
            Arc::new(directory),
            ReconcileQueue::new(&[]).0,
            events,
            Arc::default(),
            clock,
            Shutdown::default(),
            ReadPeriods {
                scan: Duration::from_secs(60),
                not_observed_after: 10,
            },
            &[WatchScope::All],
        )
    }
}
