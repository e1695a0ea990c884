//! What the passes over all sets share. Decides nothing.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kube::Api;
use tokio::time::Instant;

use crate::account::directory::Directory;
use crate::api::SecurityGroupMembership;
use crate::clock::Clock;
use crate::kubernetes::events::EventRecorder;
use crate::kubernetes::writer::ApiWriter;
use crate::kubernetes::{LogDeduper, ObjectUid};
use crate::nodes::Nodes;
use crate::shutdown::Shutdown;

use super::known::Sets;
use super::members::Members;
use super::refusal::Refusal;
use super::select::MissingSince;
use super::tags::InstanceTags;

/// Shortest time between two writes of the status of a set (1 s).
const STATUS_PERIOD: Duration = Duration::from_secs(1);

/// How long a watch that has failed may take to go on (60 s). After that what it shows counts, also if it is older: etcd may have been
/// put back.
const WATCH_LAG: Duration = Duration::from_secs(60);

/// What every pass over a set shares.
pub struct Context {
    /// The cluster.
    pub client: kube::Client,
    /// Writes to it.
    pub writer: ApiWriter,
    /// The accounts and their grants.
    pub directory: Arc<Directory>,
    /// Receives what was created and deleted as events.
    pub events: EventRecorder,
    /// The time.
    pub clock: Clock,
    /// After it has begun, nothing is written.
    pub shutdown: Shutdown,
    /// The memberships of all sets.
    pub members: Arc<Members>,
    /// The Nodes, while a set selects some.
    pub nodes: Arc<Nodes>,
    /// The instances with the tags that sets name.
    pub tags: Arc<InstanceTags>,
    /// The queue of sets that are due.
    pub sets: Arc<Sets>,
    /// Whether the Nodes that sets select get a condition.
    pub node_conditions: bool,
    pub(super) logged: LogDeduper,
    pub(super) memory: Mutex<HashMap<ObjectUid, Memory>>,
}

/// What this process remembers of a set. It is lost with the process, which only makes a set wait longer.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub missing: MissingSince,
    /// The generation that targets have been missing by.
    generation: Option<i64>,
    /// When the last write of the status began.
    write_began: Option<Instant>,
    written_at: Option<Instant>,
    /// The version that the last write of the status made.
    written: u64,
    pub failures: u32,
    /// How many passes had a write that failed or was refused.
    pub stopped_passes: u32,
    passed: Option<Passed>,
}

/// The last pass over a set in this process.
#[derive(Clone, Debug, Default)]
pub struct Passed {
    /// What kept it from its work.
    pub refusal: Option<Refusal>,
}

impl Memory {
    /// How long the next write of the status must wait; `None` if it begins now.
    pub(super) fn begin_status_write(&mut self) -> Option<Duration> {
        let since = self.write_began.map(|began| began.elapsed());
        let wait = since.map_or(Duration::ZERO, |since| STATUS_PERIOD.saturating_sub(since));
        if wait.is_zero() {
            self.write_began = Some(Instant::now());
            return None;
        }
        Some(wait)
    }

    /// A pass goes by this generation. Another selector is another evidence: what was missing by the former one is so from now on.
    pub(super) fn begin(&mut self, generation: Option<i64>) {
        if self.generation != generation {
            self.generation = generation;
            self.missing = MissingSince::default();
        }
    }

    /// A pass has done what it could; `stopped` is whether a write of it failed or was refused, so that others were not tried.
    pub(super) fn passed(&mut self, refusal: Option<&Refusal>, stopped: bool) {
        let refusal = refusal.cloned();
        self.stopped_passes = self.stopped_passes.wrapping_add(u32::from(stopped));
        self.passed = Some(Passed { refusal });
    }

    /// The status was written, and made this version.
    pub(super) fn wrote_status(&mut self, version: u64) {
        self.written_at = Some(Instant::now());
        self.written = version;
    }

    /// Whether the watch has not shown the last written status yet, where it shows this version. A status is compared with that one, and
    /// not with an older one.
    pub(super) fn is_ahead_of(&self, version: u64) -> bool {
        let is_recent = self.written_at.is_some_and(|at| at.elapsed() < WATCH_LAG);
        is_recent && version < self.written
    }
}

impl Context {
    /// The context of all sets, which reads the instances with certain tags once per `scan_period`.
    #[must_use]
    #[expect(
        clippy::too_many_arguments,
        reason = "each is another thing, named by its type"
    )]
    pub fn new(
        client: kube::Client,
        writer: ApiWriter,
        directory: Arc<Directory>,
        events: EventRecorder,
        clock: Clock,
        shutdown: Shutdown,
        members: Arc<Members>,
        sets: Arc<Sets>,
        scan_period: Duration,
    ) -> Self {
        let tags = InstanceTags::new(
            Arc::clone(&directory),
            Arc::clone(&members),
            Arc::clone(&sets),
            scan_period,
        );
        Self {
            tags: Arc::new(tags),
            client,
            writer,
            directory,
            events,
            clock,
            shutdown,
            members,
            nodes: Arc::default(),
            sets,
            node_conditions: false,
            logged: LogDeduper::default(),
            memory: Mutex::default(),
        }
    }

    /// Calls `change` with what is remembered of a set.
    pub(super) fn remember<T>(&self, set: &ObjectUid, change: impl FnOnce(&mut Memory) -> T) -> T {
        // No code panics while it holds this lock.
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(set.clone()).or_default())
    }

    /// The last pass over a set; `None` before the first.
    pub(super) fn last_pass(&self, set: &ObjectUid) -> Option<Passed> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.get(set)?.passed.clone()
    }

    /// Forgets a set that is gone.
    pub(super) fn forget(&self, set: &ObjectUid) {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remove(set);
        self.tags.forget(set);
    }

    /// The memberships of a namespace.
    pub(super) fn memberships(&self, namespace: &str) -> Api<SecurityGroupMembership> {
        Api::namespaced(self.client.clone(), namespace)
    }
}
