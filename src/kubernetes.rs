//! Plain calls to the API server, each with a deadline (kube has none by itself, and a dead connection would hang for ever),
//! and the one way in which a status is written.

use std::collections::HashMap;
use std::fmt::Debug;
use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::runtime::controller;
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::STATUS_MANAGER;

/// Deadline of one call, retries of the client included.
const DEADLINE: Duration = Duration::from_secs(30);

/// How a call to the API server failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It answered with an error, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// It did not answer in time.
    #[error("the Kubernetes API server did not answer within {} s", DEADLINE.as_secs())]
    Timeout,
}

impl Error {
    /// The HTTP status of an answer.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            Self::Api(_) | Self::Timeout => None,
        }
    }
}

/// Runs one call with the deadline. Boxed: a pass spends most of its life waiting for its turn, and must not carry the room
/// for a whole request all the time.
///
/// # Errors
/// The call's own error, or [`Error::Timeout`].
pub fn with_deadline<'a, T: 'a>(
    call: impl Future<Output = kube::Result<T>> + Send + 'a,
) -> BoxFuture<'a, Result<T, Error>> {
    Box::pin(async move {
        match tokio::time::timeout(DEADLINE, call).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::Timeout),
        }
    })
}

/// Writes a status in one server-side apply, to the very version of the object that it speaks of: the API server does not
/// compare the UID on this subresource, and without a version the status of an object that is gone would be written to its
/// successor of the same name.
///
/// # Errors
/// 404 where the object is gone, 409 where another version is stored, and whatever else keeps the API server from taking it.
pub async fn apply_status<K>(
    api: &Api<K>,
    metadata: &ObjectMeta,
    status: &impl Serialize,
) -> Result<K, Error>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
{
    let name = metadata.name.clone().unwrap_or_default();
    let patch = serde_json::json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {"name": name, "uid": metadata.uid, "resourceVersion": metadata.resource_version},
        "status": status,
    });
    let params = PatchParams::apply(STATUS_MANAGER).force();
    with_deadline(api.patch_status(&name, &params, &Patch::Apply(&patch))).await
}

/// An error with its causes, as far as it does not name them itself: "client error (Connect)" alone helps nobody.
#[must_use]
pub fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let words = cause.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        next = cause.source();
    }
    text
}

/// How everything is watched. Cloud load balancers drop idle connections after four minutes (AKS: 240 s), so a watch ends
/// by itself before that; that costs a reconnect and no new list.
#[must_use]
pub fn watch_config() -> kube::runtime::watcher::Config {
    kube::runtime::watcher::Config::default().timeout(WATCH_SECONDS)
}

const WATCH_SECONDS: u32 = 230;

/// Tells a trouble that is new from one that is met again at each try.
#[derive(Debug, Default)]
pub struct LogDeduper(Mutex<HashMap<String, Instant>>);

/// No shorter than from one try to the next: a trouble that comes again later is another one.
const SAME_LINE_AFTER: Duration = Duration::from_secs(6 * 60);

impl LogDeduper {
    /// Whether this was not met of late.
    pub fn is_first(&self, trouble: &str) -> bool {
        let now = Instant::now();
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.retain(|_, at| now.saturating_duration_since(*at) < SAME_LINE_AFTER);
        met.insert(trouble.to_owned(), now).is_none()
    }
}

/// Logs what keeps one kind from being watched: the same trouble once, not at every try.
#[derive(Debug)]
pub struct WatchLog {
    kind: &'static str,
    deduper: LogDeduper,
}

impl WatchLog {
    /// For the watch of `kind`.
    #[must_use]
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind,
            deduper: LogDeduper::default(),
        }
    }

    /// Takes in what the watch says in place of an event.
    pub fn error(&self, error: &dyn std::error::Error) {
        let error = error_chain(error);
        if self.deduper.is_first(&error) {
            warn!(
                kind = self.kind,
                error, "cannot be watched; tried again until it can"
            );
        }
    }

    /// Takes in one result of the kind's controller.
    pub fn result<T, R, Q>(&self, result: Result<T, controller::Error<R, Q>>)
    where
        R: std::error::Error + 'static,
        Q: std::error::Error + 'static,
    {
        match result {
            Ok(_) => {}
            Err(controller::Error::QueueError(error)) => self.error(&error),
            // Reconcile errors are logged where they are known; an object that is gone needs no pass.
            Err(error) => debug!(kind = self.kind, %error, "queue"),
        }
    }
}
