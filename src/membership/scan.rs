//! Reads every tracked target once per scan period, 100 targets per call, and enqueues only the objects whose observation
//! changed. Reads only: the enqueued pass reads again and decides. A failed or missing answer enqueues nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, abortable};
use tokio::time::Instant;
use tracing::debug;

use crate::account::directory::AccountState;
use crate::account::session::CallError;
use crate::ecs::MAX_IDS_PER_CALL;
use crate::ecs::{Target, TargetDescription};

use super::Context;
use super::edge::AccountRegion;
use super::index::Edges;

/// How often accounts and regions that appeared or disappeared are looked up, and how often [`run`] does its other work.
const BUCKET_PERIOD: Duration = Duration::from_secs(1);
/// How long the cloud's answers may lag behind our own change. No observation is marked stale sooner.
pub const CLOUD_READ_LAG: Duration = Duration::from_secs(10);

/// The compared part of a target's description: membership, and a hash of what the status shows. Text is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A complete answer does not list the target.
    Absent,
    /// The answer lists the target.
    Present {
        /// Whether the target is a member of the object's group.
        member: bool,
        /// Whether the target is between states.
        transitional: bool,
        /// Hash of state, VPC and lock reasons.
        details_hash: u64,
    },
}

impl Observation {
    /// The observation of a description. `member` tells whether the target is a member of the object's group.
    #[must_use]
    pub fn of(
        description: Option<&TargetDescription>,
        member: impl FnOnce(&TargetDescription) -> bool,
    ) -> Self {
        use std::hash::{DefaultHasher, Hash as _, Hasher as _};
        let Some(description) = description else {
            return Self::Absent;
        };
        let mut hasher = DefaultHasher::new();
        description.state.hash(&mut hasher);
        description.vpc_id.hash(&mut hasher);
        description.lock_reasons.hash(&mut hasher);
        Self::Present {
            member: member(description),
            transitional: description.state.is_transitional(),
            details_hash: hasher.finish(),
        }
    }
}

/// Scans until dropped, with one task per account and region: a region that does not answer delays only its own targets.
///
/// Once per second it also does the housekeeping of three other modules: admits waiting passes, evicts the expired accounts
/// of the directory, and enqueues objects with a stale status.
pub async fn run(context: Arc<Context>, period: Duration) {
    let mut tasks = Tasks::default();
    loop {
        context.telemetry.went_on("housekeeping");
        tasks.follow(&context, period);
        context.turns.call_the_waiting();
        context.directory.evict_expired();
        for object in context.edges.stale_statuses() {
            context.queue.enqueue(&object);
        }
        tokio::time::sleep(BUCKET_PERIOD).await;
    }
}

/// The running scans; aborted on drop.
#[derive(Default)]
struct Tasks(HashMap<AccountRegion, AbortHandle>);

impl Tasks {
    /// Aborts the scans of accounts and regions without objects, and starts the missing ones.
    fn follow(&mut self, context: &Arc<Context>, period: Duration) {
        self.0.retain(|account_region, task| {
            let keep = context.edges.has_account_region(account_region);
            if !keep {
                task.abort();
            }
            keep
        });
        let new = context
            .edges
            .new_account_regions(|known| self.0.contains_key(known));
        for account_region in new {
            let scan = scan_account_region(Arc::clone(context), account_region.clone(), period);
            let (scan, handle) = abortable(scan);
            tokio::spawn(scan);
            self.0.insert(account_region, handle);
        }
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in self.0.values() {
            task.abort();
        }
    }
}

/// Scans the targets of one account and region for ever, spread evenly over the period.
async fn scan_account_region(
    context: Arc<Context>,
    account_region: AccountRegion,
    period: Duration,
) {
    // After a restart all objects become ready at once: a random start keeps the scans of all accounts apart.
    tokio::time::sleep(context.clock.within(period / 5..period)).await;
    let mut after: Option<Target> = None;
    loop {
        let started = Instant::now();
        let (batch, total) = next_batch(&context.edges, &account_region, after.as_ref());
        after = batch.last().cloned();
        let pause =
            period / u32::try_from(total.div_ceil(MAX_IDS_PER_CALL).max(1)).unwrap_or(u32::MAX);
        // Skip targets that no pass has described (no grant, paused, malformed ID): one bad ID fails the whole batch.
        let batch = context.edges.seen(&account_region, &batch);
        if !batch.is_empty() {
            scan_batch(&context, &account_region, &batch).await;
        }
        tokio::time::sleep_until(started + pause).await;
    }
}

/// The batch after `after`, or the first one after the last, and the total number of targets. Wraps without an empty batch
/// in between, which would take a pause of its own: 100 targets would then be scanned only every other period.
fn next_batch(
    edges: &Edges,
    account_region: &AccountRegion,
    after: Option<&Target>,
) -> (Vec<Target>, usize) {
    let (batch, total) = edges.targets_after(account_region, after, MAX_IDS_PER_CALL);
    if batch.is_empty() && after.is_some() {
        return edges.targets_after(account_region, None, MAX_IDS_PER_CALL);
    }
    (batch, total)
}

/// Reads one batch until the cloud answers or the call fails, then enqueues the changed objects.
async fn scan_batch(context: &Context, account_region: &AccountRegion, batch: &[Target]) {
    let AccountRegion { account, region } = account_region;
    let Some(entry) = context.directory.look_up(account) else {
        return;
    };
    let AccountState::Ready(access) = &entry.state else {
        return;
    };
    let found = loop {
        match access.scan(region, batch).await {
            Ok(found) => break found,
            // Under a small rate limit, this wait makes the scan period longer.
            Err(CallError::RateLimited { retry_at: until }) => {
                tokio::time::sleep_until(until).await;
            }
            // One malformed ID may have failed the batch. The passes read each target alone and find it; later scans skip
            // it.
            Err(CallError::Failed(error)) if error.may_be_one_bad_id() => {
                for object in context.edges.mark_stale(account_region, batch) {
                    context.queue.enqueue(&object);
                }
                return;
            }
            Err(CallError::Failed(error)) => {
                debug!(%account, %region, %error, "scan failed; the next one will tell");
                return;
            }
        }
    };
    for object in context.edges.changed(account_region, batch, &found) {
        context.queue.enqueue(&object);
    }
}
