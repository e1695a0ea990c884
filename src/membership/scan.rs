//! Reads every tracked target once per scan period, 100 targets per call, and enqueues only the objects whose observation
//! changed. Reads only: the enqueued pass reads again and decides. A failed or missing answer enqueues nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, abortable};
use tokio::time::Instant;
use tracing::debug;

use crate::account::directory::AccountState;
use crate::account::key::AccountRegion;
use crate::account::session::CallError;
use crate::ecs::{MAX_IDS_PER_CALL, Target};

use super::context::Context;
use super::index::Edges;

/// How often accounts and regions that appeared or disappeared are looked up.
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);
/// Scans until dropped, with one task per account and region: a region that does not answer delays only its own targets.
pub async fn run(context: Arc<Context>, period: Duration) {
    let mut tasks = Tasks::default();
    loop {
        tasks.follow(&context, period);
        tokio::time::sleep(FOLLOW_PERIOD).await;
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
