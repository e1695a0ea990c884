//! Watches Nodes into memory, and keeps apart a watch that goes on, one that fails for a moment, and one that fails for longer. Reads
//! only.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use kube::Api;
use kube::core::Status;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt as _, watcher};
use tokio::sync::watch::Receiver;
use tokio::time::Instant;

use crate::kubernetes::{WatchLog, error_chain, watch_config};
use crate::telemetry::Telemetry;

use super::{Listed, News, Node, Nodes};

/// For how long it may be impossible to list or to watch the Nodes before sets say so (10 s): the API server may be starting. Its answer
/// is awaited for 30 s, and the next try comes within another 30 s.
pub const TROUBLE_AFTER: Duration = Duration::from_secs(10);

/// Longer than the time between two tries that fail (2 minutes).
const LONGEST_TRY: Duration = Duration::from_secs(2 * 60);

/// Nodes in one answer to a list. A Node has some 20 KiB, and the client holds an answer more than twice while it reads it.
const PAGE: u32 = 25;

/// Watches Nodes while `wanted` is true, and calls `changed` with what has changed. Never ends.
pub async fn watch(
    client: kube::Client,
    nodes: Arc<Nodes>,
    telemetry: Arc<Telemetry>,
    mut wanted: Receiver<bool>,
    changed: impl Fn(News),
) {
    let log = WatchLog::new("Node");
    loop {
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            // Only while the process shuts down.
            return std::future::pending().await;
        }
        let api: Api<Node> = Api::all(client.clone());
        let config = watch_config().page_size(PAGE);
        let path = api.resource_url().to_owned();
        let mut events = Box::pin(watcher(api, config).default_backoff());
        // Since when each try has failed; before the Nodes are listed, since the first one.
        let mut fails_since = Some(Instant::now());
        loop {
            let event = tokio::select! {
                event = events.next() => event,
                _ = wanted.wait_for(|wanted| !*wanted) => break,
                () = tokio::time::sleep(LONGEST_TRY), if fails_since.is_some() => {
                    fails_since = None;
                    if nodes.fail_no_more() {
                        changed(SELECTION);
                    }
                    continue;
                }
            };
            let news = match event {
                Some(Ok(event)) => {
                    if matches!(event, Event::Apply(_) | Event::Delete(_) | Event::InitDone) {
                        fails_since = None;
                    }
                    nodes.take(event)
                }
                Some(Err(error)) => {
                    log.error(&error);
                    let since = fails_since.filter(|_| !had_begun(&error));
                    let since = *fails_since.insert(since.unwrap_or_else(Instant::now));
                    let is_new = nodes.fail(&error, since.elapsed());
                    if is_new { SELECTION } else { News::default() }
                }
                None => break,
            };
            if news != News::default() {
                changed(news);
            }
        }
        // First: nothing of the watch may go on after `ended`.
        drop(events);
        telemetry.ended(&path);
        nodes.forget();
    }
}

/// What sets look at.
const SELECTION: News = News {
    selection: true,
    condition: false,
};

impl Nodes {
    /// The list or the watch has failed, as each try for so long. Returns whether that is new.
    fn fail(&self, error: &watcher::Error, fails_for: Duration) -> bool {
        let mut inner = self.lock();
        let is_short = fails_for < TROUBLE_AFTER;
        let next = match (refusal(error), &inner.listed) {
            (Some(answer), _) => Listed::Forbidden(answer),
            (None, Listed::All | Listed::Interrupted(_)) => {
                Listed::Interrupted((!is_short).then(|| cause(error)))
            }
            (None, Listed::Not) if is_short => return false,
            (None, Listed::Not | Listed::Failed(_)) => Listed::Failed(cause(error)),
            (None, Listed::Forbidden(_)) => return false,
        };
        let is_new = inner.listed != next;
        inner.listed = next;
        is_new
    }

    /// No try has failed for [`LONGEST_TRY`]: the watch has begun again, and no Node has changed since. That is no evidence that all
    /// Nodes are known. Returns whether the sets have to look again.
    fn fail_no_more(&self) -> bool {
        let mut inner = self.lock();
        let is_told = matches!(
            inner.listed,
            Listed::Interrupted(Some(_)) | Listed::Forbidden(_)
        );
        if is_told {
            inner.listed = Listed::Interrupted(None);
        }
        is_told
    }
}

/// Whether the watch had begun before it failed.
const fn had_begun(error: &watcher::Error) -> bool {
    matches!(
        error,
        watcher::Error::WatchFailed(_) | watcher::Error::WatchError(_)
    )
}

/// What the API server said, if it does not let the operator list or watch.
fn refusal(error: &watcher::Error) -> Option<String> {
    let status = answer(error).filter(|status| status.code == 403)?;
    Some(status.message.clone())
}

/// What a user reads of a failed list or watch.
fn cause(error: &watcher::Error) -> String {
    answer(error).map_or_else(|| error_chain(error), |status| status.message.clone())
}

fn answer(error: &watcher::Error) -> Option<&Status> {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status))
        | watcher::Error::WatchError(status) => Some(status),
        _ => None,
    }
}
