//! A watch: the log from a revision on, as a stream of lines with bookmarks and an end. The [`FaultPlan`] decides which
//! lines reach the client.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::stream::{self, Stream};
use http_body::Frame;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::request::{Request, failure, metadata_of};
use super::store::{ApiServer, Change, Entry};
use super::wire::{FaultPlan, WatchFault};

type Line = Result<Frame<Bytes>, std::io::Error>;

struct Watch {
    server: Arc<ApiServer>,
    faults: Arc<dyn FaultPlan>,
    request: Request,
    /// The last revision that was sent or skipped.
    revision: u64,
    /// Next position in the log.
    at: usize,
    since: Instant,
    until: Instant,
    next_bookmark: Option<Instant>,
    ended: bool,
    again: Option<Bytes>,
}

/// The stream for a watch request.
pub fn stream(
    server: Arc<ApiServer>,
    faults: Arc<dyn FaultPlan>,
    request: Request,
) -> impl Stream<Item = Line> + Send + 'static {
    let number = |name: &str| {
        request
            .query
            .get(name)
            .and_then(|value| value.parse::<u64>().ok())
    };
    let now = Instant::now();
    let revision = number("resourceVersion").unwrap_or(0);
    let at = server
        .state()
        .log
        .partition_point(|entry| entry.revision <= revision);
    let watch = Watch {
        revision,
        at,
        since: now,
        until: now + Duration::from_secs(number("timeoutSeconds").unwrap_or(1800)),
        next_bookmark: request
            .flag("allowWatchBookmarks")
            .then_some(now + BOOKMARKS),
        ended: false,
        again: None,
        server,
        faults,
        request,
    };
    stream::unfold(watch, |mut watch| async move {
        watch.next().await.map(|line| (line, watch))
    })
}

impl Watch {
    async fn next(&mut self) -> Option<Line> {
        if let Some(line) = self.again.take() {
            return Some(Ok(Frame::data(line)));
        }
        if self.ended {
            return None;
        }
        loop {
            if let Some(silence) = self.faults.silence(&self.request, self.since) {
                tokio::time::sleep_until(silence.until).await;
                if silence.breaks {
                    return None;
                }
                continue;
            }
            let server = Arc::clone(&self.server);
            let mut news = pin!(server.news(self.request.kind.plural).notified());
            // Registered before the read, so that no change between the two is missed.
            news.as_mut().enable();
            if self.is_compacted() {
                self.ended = true;
                return Some(Ok(expired()));
            }
            if let Some(entry) = self.next_entry() {
                match self.faults.event(&self.request, &entry) {
                    WatchFault::Deliver => {}
                    WatchFault::Delay(by) => tokio::time::sleep(by).await,
                    WatchFault::Twice => self.again = Some(self.line(&entry)),
                    WatchFault::Expire => {
                        self.ended = true;
                        return Some(Ok(expired()));
                    }
                    WatchFault::Break => return None,
                    WatchFault::Never => std::future::pending().await,
                    WatchFault::Unselect => {
                        let gone = Entry {
                            change: Change::Deleted,
                            ..entry
                        };
                        return Some(Ok(Frame::data(self.line(&gone))));
                    }
                }
                self.faults.delivered(&self.request, &entry);
                return Some(Ok(Frame::data(self.line(&entry))));
            }
            let wake = self
                .next_bookmark
                .map_or(self.until, |at| at.min(self.until));
            tokio::select! {
                biased;
                () = news => {}
                () = tokio::time::sleep_until(wake) => {
                    if self.faults.is_dead() {
                        std::future::pending::<()>().await;
                    }
                    if self.faults.silence(&self.request, self.since).is_some() {
                        continue;
                    }
                    self.ended = Instant::now() >= self.until;
                    self.next_bookmark = self.next_bookmark.map(|_| Instant::now() + BOOKMARKS);
                    self.next_bookmark?;
                    return Some(Ok(Frame::data(self.bookmark())));
                }
            }
        }
    }

    /// Whether the store was put back since the watch began.
    fn is_compacted(&self) -> bool {
        self.revision < self.server.state().compacted
    }

    fn next_entry(&mut self) -> Option<Entry> {
        let state = self.server.state();
        while let Some(entry) = state.log.get(self.at) {
            self.at += 1;
            self.revision = self.revision.max(entry.revision);
            let (plural, namespace, _) = &entry.key;
            if *plural == self.request.kind.plural
                && (self.request.namespace.is_empty() || *namespace == self.request.namespace)
            {
                return Some(entry.clone());
            }
        }
        None
    }

    fn line(&self, entry: &Entry) -> Bytes {
        if self.request.metadata_only {
            line(entry.change.word(), &metadata_of(&entry.object))
        } else {
            line(entry.change.word(), &entry.object)
        }
    }

    fn bookmark(&self) -> Bytes {
        let object = json!({
            "apiVersion": self.request.kind.api_version(), "kind": self.request.kind.kind,
            "metadata": {"resourceVersion": self.revision.to_string(), "creationTimestamp": null},
        });
        line("BOOKMARK", &object)
    }
}

fn expired() -> Frame<Bytes> {
    let gone = failure(410, "Expired", "too old resource version").body;
    Frame::data(line("ERROR", &gone))
}

fn line(type_: &str, object: &Value) -> Bytes {
    let mut text = format!("{{\"type\":\"{type_}\",\"object\":").into_bytes();
    serde_json::to_writer(&mut text, object).unwrap();
    text.extend(b"}\n");
    text.into()
}

/// About one per minute, as the real server sends them.
const BOOKMARKS: Duration = Duration::from_secs(60);
