//! Looks at every tracked target once a period, a hundred a call, and enqueues only the objects whose observation changed. Reads
//! only; what is to be done about a change is decided by the pass, which reads for itself. An answer that fails or does not
//! come says nothing and enqueues nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, abortable};
use tokio::time::Instant;
use tracing::debug;

use crate::account::directory::AccountState;
use crate::account::session::CallError;
use crate::ecs::MAX_IDS_PER_CALL;
use crate::ecs::{Region, Target, TargetDescription};

use super::Context;
use super::edge::AccountKey;
use super::index::Edges;

/// How often it is looked for accounts and regions that came or went.
const BUCKET_PERIOD: Duration = Duration::from_secs(1);
/// The cloud's own answers may lag behind a change of ours; an observation is not stale sooner.
pub const CLOUD_READ_LAG: Duration = Duration::from_secs(10);

/// What is compared of a target: whether it is a member, and what the status shows of it. None of the two texts is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// A complete answer does not list it.
    Absent,
    /// Listed.
    Present {
        /// Whether it is a member of the object's group.
        member: bool,
        /// Whether it is between states.
        transitional: bool,
        /// Hash of state, VPC and locks.
        details_hash: u64,
    },
}

impl Observation {
    /// The observation of a description.
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

/// Scans until dropped: one task for each account and region, so that a silent region delays its own targets only.
pub async fn run(context: Arc<Context>, period: Duration) {
    let mut tasks = Tasks::default();
    loop {
        tasks.follow(&context, period);
        context.turns.call_the_waiting();
        context.directory.evict_expired();
        for object in context.edges.stale_statuses() {
            context.queue.enqueue(&object);
        }
        tokio::time::sleep(BUCKET_PERIOD).await;
    }
}

/// The running scans; they end with it.
#[derive(Default)]
struct Tasks(HashMap<AccountKey, HashMap<Region, AbortHandle>>);

impl Tasks {
    /// Ends the scans that no object needs any more, and starts those that are missing.
    fn follow(&mut self, context: &Arc<Context>, period: Duration) {
        self.0.retain(|account, regions| {
            regions.retain(|region, task| {
                let keep = context.edges.has_account_region(account, region);
                if !keep {
                    task.abort();
                }
                keep
            });
            !regions.is_empty()
        });
        let new = context
            .edges
            .new_account_regions(|account, region| self.has(account, region));
        for (account, region) in new {
            let scan =
                scan_account_region(Arc::clone(context), account.clone(), region.clone(), period);
            let (scan, handle) = abortable(scan);
            tokio::spawn(scan);
            self.0.entry(account).or_default().insert(region, handle);
        }
    }

    fn has(&self, account: &AccountKey, region: &Region) -> bool {
        self.0
            .get(account)
            .is_some_and(|regions| regions.contains_key(region))
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in self.0.values().flat_map(HashMap::values) {
            task.abort();
        }
    }
}

/// Walks the targets of one account and region for ever, spread evenly over the period.
async fn scan_account_region(
    context: Arc<Context>,
    account: AccountKey,
    region: Region,
    period: Duration,
) {
    // What a restart makes ready at one moment shall not be scanned at one moment ever after.
    tokio::time::sleep(context.clock.within(period / 5..period)).await;
    let mut after: Option<Target> = None;
    loop {
        let started = Instant::now();
        let (batch, total) = next_batch(&context.edges, &account, &region, after.as_ref());
        after = batch.last().cloned();
        let pause =
            period / u32::try_from(total.div_ceil(MAX_IDS_PER_CALL).max(1)).unwrap_or(u32::MAX);
        // Nothing is asked for whoever may not use the account, is paused, or names what the cloud takes for no ID at all:
        // that would spoil the batch for all others.
        let batch = context.edges.seen(&account, &region, &batch);
        if !batch.is_empty() {
            scan_batch(&context, &account, &region, &batch).await;
        }
        tokio::time::sleep_until(started + pause).await;
    }
}

/// The batch behind `after`, or the first one where none is left, and how many targets there are in all. Not an empty one in
/// between: that would take a turn of its own, and a hundred targets be looked at every other period.
fn next_batch(
    edges: &Edges,
    account: &AccountKey,
    region: &Region,
    after: Option<&Target>,
) -> (Vec<Target>, usize) {
    let (batch, total) = edges.targets_after(account, region, after, MAX_IDS_PER_CALL);
    if batch.is_empty() && after.is_some() {
        return edges.targets_after(account, region, None, MAX_IDS_PER_CALL);
    }
    (batch, total)
}

/// Asks for one batch until there is an answer or a failure, and compares.
async fn scan_batch(context: &Context, account: &AccountKey, region: &Region, batch: &[Target]) {
    let Some(entry) = context.directory.look_up(account) else {
        return;
    };
    let AccountState::Ready(access) = &entry.state else {
        return;
    };
    let found = loop {
        match access.scan(region, batch).await {
            Ok(found) => break found,
            // This stretches the period where the limit is small.
            Err(CallError::RateLimited { retry_at: until }) => {
                tokio::time::sleep_until(until).await
            }
            // Passes ask for each by itself, and the scan no more for the one to blame.
            Err(CallError::Failed(error)) if error.may_be_one_bad_id() => {
                for object in context.edges.mark_stale(account, region, batch) {
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
    for object in context.edges.changed(account, region, batch, &found) {
        context.queue.enqueue(&object);
    }
}
