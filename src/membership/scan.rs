//! Reads every tracked target once per scan period, 100 targets per call, and enqueues only the objects whose observation
//! changed. Reads only: the enqueued pass reads again and decides. A failed or missing answer enqueues nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, abortable};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::account::key::{AccountKey, AccountRegion};
use crate::account::session::CallError;
use crate::ecs::{Class, Error, MAX_IDS_PER_CALL, Region, Target};
use crate::kubernetes::LogDeduper;

use super::context::Context;
use super::table::ObjectTable;

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
            let keep = context.table.has_account_region(account_region);
            if !keep {
                task.abort();
            }
            keep
        });
        let new = context
            .table
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
        let (batch, total) = next_batch(&context.table, &account_region, after.as_ref());
        after = batch.last().cloned();
        let pause =
            period / u32::try_from(total.div_ceil(MAX_IDS_PER_CALL).max(1)).unwrap_or(u32::MAX);
        // Skip targets that no pass has described (no grant, paused, malformed ID): one bad ID fails the whole batch.
        let batch = context.table.seen(&account_region, &batch);
        if !batch.is_empty() {
            scan_batch(&context, &account_region, &batch).await;
        }
        tokio::time::sleep_until(started + pause).await;
    }
}

/// The batch after `after`, or the first one after the last, and the total number of targets. Wraps without an empty batch
/// in between, which would take a pause of its own: 100 targets would then be scanned only every other period.
fn next_batch(
    table: &ObjectTable,
    account_region: &AccountRegion,
    after: Option<&Target>,
) -> (Vec<Target>, usize) {
    let (batch, total) = table.targets_after(account_region, after, MAX_IDS_PER_CALL);
    if batch.is_empty() && after.is_some() {
        return table.targets_after(account_region, None, MAX_IDS_PER_CALL);
    }
    (batch, total)
}

/// Reads one batch until the cloud answers or the call fails, then enqueues the changed objects.
async fn scan_batch(context: &Context, account_region: &AccountRegion, batch: &[Target]) {
    let AccountRegion { account, region } = account_region;
    let Some(session) = context.directory.usable(account) else {
        return;
    };
    let (found, began) = loop {
        let began = Instant::now();
        match session.scan(region, batch).await {
            Ok(found) => break (found, began),
            // Under a small rate limit, this wait makes the scan period longer.
            Err(CallError::RateLimited { retry_at: until }) => {
                tokio::time::sleep_until(until).await;
            }
            Err(CallError::Stopping) => return,
            // One malformed ID may have failed the batch. The passes read each target alone and find it; later scans skip
            // it.
            Err(CallError::Failed(error)) if error.may_be_one_bad_id() => {
                for object in context.table.mark_stale(account_region, batch) {
                    context.queue.enqueue(&object);
                }
                return;
            }
            Err(CallError::Failed(error)) => {
                log_failure(account, region, &error, &context.logged);
                return;
            }
        }
    };
    context
        .table
        .read_by_scan(account_region, &session.uid, &found, began);
    for object in context.table.changed(account_region, batch, &found) {
        context.queue.enqueue(&object);
    }
}

/// Logs why a scan failed: at WARN once per cause, otherwise at DEBUG. A throttle only makes the scan slower.
fn log_failure(account: &AccountKey, region: &Region, error: &Error, logged: &LogDeduper) {
    let regarding = account.reference();
    let (kind, namespace, name) = (regarding.kind, regarding.namespace, regarding.name);
    let reason = error.reason();
    let (code, request_id) = (error.code(), error.request_id());
    let text = format!("the scan failed and is repeated after one scan period: {error}");
    if error.class() != Class::Throttled
        && logged.is_first(&format!("scan {account} {region} {error}"))
    {
        warn!(kind, namespace, name, %region, reason, code, request_id, "{text}");
    } else {
        debug!(kind, namespace, name, %region, reason, code, request_id, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use serde_json::json;

    use super::*;
    use crate::account::directory::{AccountState, Directory, Grants};
    use crate::account::session::AccountSession;
    use crate::api::membership::AccountKind;
    use crate::clock::Clock;
    use crate::ecs::{Client, Credential, Endpoints, TestTransport};
    use crate::kubernetes::WatchScope;
    use crate::kubernetes::events::EventRecorder;
    use crate::kubernetes::writer::ApiWriter;
    use crate::membership::queue::ReconcileQueue;
    use crate::shutdown::Shutdown;
    use crate::telemetry::TestLog;

    /// A context with one usable account, whose calls `cloud` answers.
    fn context(account: &AccountKey, cloud: &Arc<TestTransport>) -> Context {
        let unused = |_: http::Request<kube::client::Body>| {
            std::future::pending::<Result<http::Response<kube::client::Body>, std::io::Error>>()
        };
        let kubernetes = kube::Client::new(tower::service_fn(unused), "default");
        let clock = Clock::system();
        let credential = Credential::new("LTAI4", "secret-of-the-key", None).unwrap();
        let endpoints = Endpoints::parse(None, None, false).unwrap();
        let client = Client::new(Arc::clone(cloud) as _, credential, endpoints);
        let session = AccountSession::new(
            client,
            "123".into(),
            Arc::default(),
            Arc::default(),
            Arc::default(),
            Shutdown::default(),
        );
        let directory = Directory::new(reflector::store().0);
        directory.upsert(account, Grants::OwnNamespace);
        directory.set_state(account, AccountState::Ready(Arc::new(session)));
        let writer = ApiWriter::new(1, Shutdown::default());
        let (events, _) = EventRecorder::new(
            kubernetes.clone(),
            writer.clone(),
            None,
            Arc::default(),
            clock.clone(),
        );
        Context::new(
            kubernetes,
            writer,
            Arc::default(),
            Arc::new(directory),
            ReconcileQueue::new(&[]).0,
            events,
            Arc::default(),
            clock,
            Shutdown::default(),
            &[WatchScope::All],
        )
    }

    #[tokio::test(start_paused = true)]
    async fn failed_scan_is_logged_once_per_cause() {
        let (log, _guard) = TestLog::start();
        let account = AccountKey {
            kind: AccountKind::CloudAccount,
            namespace: "team".to_owned(),
            name: "own".to_owned(),
        };
        let cloud = Arc::default();
        let context = context(&account, &cloud);
        let account_region = AccountRegion {
            account,
            region: "cn-hangzhou".parse().unwrap(),
        };
        let batch = [Target::Instance("i-1".parse().unwrap())];
        let failures = [
            ("WARN", 403, "Forbidden.RAM", "R-1"),
            ("DEBUG", 403, "Forbidden.RAM", "R-2"),
            ("WARN", 503, "ServiceUnavailable", "R-3"),
            // The scans wait for the limit by themselves.
            ("DEBUG", 400, "Throttling.User", "R-4"),
        ];
        for (_, status, code, request_id) in failures {
            let body = json!({"Code": code, "Message": "No.", "RequestId": request_id});
            cloud.answers(status, &body);
            scan_batch(&context, &account_region, &batch).await;
        }
        let mut lines = log.lines();
        lines.retain(|line| line["target"] == "security_group_operator::membership::scan");
        assert_eq!(lines.len(), failures.len(), "{lines:#?}");
        for (mut line, (level, _, code, request_id)) in lines.into_iter().zip(failures) {
            line.as_object_mut().unwrap().remove("timestamp");
            let expected = json!({
                "level": level,
                "message": format!("the scan failed and is repeated after one scan period: {code}: No."),
                "target": "security_group_operator::membership::scan",
                "kind": "CloudAccount",
                "namespace": "team",
                "name": "own",
                "region": "cn-hangzhou",
                "reason": code.replace('.', ""),
                "code": code,
                "request_id": request_id,
            });
            assert_eq!(line, expected);
        }
    }
}
