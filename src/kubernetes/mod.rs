//! Calls to the API server, each with a deadline (kube sets none by itself for what it begins, and a dead connection would hang
//! for ever). Makes no decisions.

pub mod changed;
pub mod events;
pub mod lease;
pub mod older_crds;
pub mod proxy;
pub mod writer;

use std::collections::HashMap;
use std::fmt::{self, Debug};
use std::future::Future;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, Stream, StreamExt as _, stream};
use http_body_util::{BodyExt as _, StreamBody};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::client::Body;
use kube::runtime::controller;
use kube::runtime::reflector::Store;
use kube::{Api, Resource, ResourceExt};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::RECONCILE_REQUESTED_ANNOTATION;
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;

/// Deadline of one call, including the client's retries.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The longest time until the watch shows a write (1 minute; a watch that is silent for longer begins with a new list).
pub const APPEARS_WITHIN: Duration = Duration::from_secs(60);

/// Why a call to the API server failed.
#[derive(Debug)]
pub enum Error {
    /// The API server answered with an error or could not be reached.
    Api(kube::Error),
    /// The API server did not answer before the deadline.
    Timeout {
        /// The deadline.
        after: Duration,
    },
    /// The process ends: the call was not made.
    Stopping,
}

impl From<kube::Error> for Error {
    fn from(error: kube::Error) -> Self {
        Self::Api(error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // kube shows every field of the answer.
            Self::Api(kube::Error::Api(status)) if !status.message.is_empty() => {
                f.write_str(&status.message)
            }
            Self::Api(error) => fmt::Display::fmt(error, f),
            Self::Timeout { after } => f.write_str(&no_answer(*after)),
            Self::Stopping => f.write_str("the process ends"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Api(kube::Error::Api(_)) | Self::Timeout { .. } | Self::Stopping => None,
            Self::Api(error) => error.source(),
        }
    }
}

impl Error {
    /// HTTP status of the answer, if there was one.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) => Some(status.code),
            Self::Api(_) | Self::Timeout { .. } | Self::Stopping => None,
        }
    }
}

/// UID of a Kubernetes object (`metadata.uid`).
#[derive(Clone, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectUid(Arc<str>);

impl ObjectUid {
    /// The UID of an object; `None` before the API server has given it one.
    #[must_use]
    pub fn of(object: &impl ResourceExt) -> Option<Self> {
        object.meta().uid.as_deref().map(Self::from)
    }

    /// The UID as the API server spells it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ObjectUid {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl Debug for ObjectUid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The version of an object as a number, for comparison; 0 if absent or not a number.
///
/// Comparing versions is part of the API's contract since Kubernetes 1.35 (KEP-5504). Older servers give no such guarantee,
/// but their versions are etcd revisions, which only grow.
#[must_use]
pub fn version_of(metadata: &ObjectMeta) -> u64 {
    let version = metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// Runs one call with the deadline (30 s). Boxed to keep futures of waiting passes small.
///
/// # Errors
/// The call's own error, or [`Error::Timeout`].
pub fn with_deadline<'a, T: 'a>(
    call: impl Future<Output = kube::Result<T>> + Send + 'a,
) -> BoxFuture<'a, Result<T, Error>> {
    within(DEADLINE, call)
}

/// Runs one call with this deadline.
///
/// # Errors
/// The call's own error, or [`Error::Timeout`].
pub fn within<'a, T: 'a>(
    deadline: Duration,
    call: impl Future<Output = kube::Result<T>> + Send + 'a,
) -> BoxFuture<'a, Result<T, Error>> {
    Box::pin(async move {
        match tokio::time::timeout(deadline, call).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(Error::Timeout { after: deadline }),
        }
    })
}

fn no_answer(after: Duration) -> String {
    format!(
        "the Kubernetes API server did not answer within {} s",
        after.as_secs()
    )
}

/// The same client for everything that kube calls by itself: no answer is awaited for longer than the deadline (30 s), and no
/// further piece of it. What a watch does not say within its time is for kube to notice ([`watch_config`]).
///
/// Each step of a list or watch counts as progress of its path for `/livez`.
#[must_use]
pub fn with_answer_deadline(client: kube::Client, telemetry: Arc<Telemetry>) -> kube::Client {
    let namespace = client.default_namespace().to_owned();
    let send = move |request| send(client.clone(), request, Arc::clone(&telemetry));
    kube::Client::new(tower::service_fn(send), namespace)
}

async fn send(
    client: kube::Client,
    request: http::Request<Body>,
    telemetry: Arc<Telemetry>,
) -> kube::Result<http::Response<impl http_body::Body<Data = Bytes, Error = kube::Error> + Send>> {
    let expired = |_| kube::Error::Service(no_answer(DEADLINE).into());
    let watches = asks_for(request.uri(), "watch");
    // A single Secret is not read again and again, nor are the objects that some fields select.
    let lists = asks_for(request.uri(), "limit") && !asks_for(request.uri(), "fieldSelector");
    let goes_on = watches || lists;
    let path = goes_on.then(|| request.uri().path().to_owned());
    let went_on = move || {
        if let Some(path) = &path {
            telemetry.went_on(path);
        }
    };
    went_on();
    let answer = tokio::time::timeout(DEADLINE, client.send(request)).await;
    went_on();
    let answer = answer.map_err(expired)??;
    let pieces = |body: Body| {
        stream::unfold((body, went_on), move |(mut body, went_on)| async move {
            let piece = if watches {
                body.frame().await
            } else {
                let piece = tokio::time::timeout(DEADLINE, body.frame()).await;
                piece.unwrap_or_else(|late| Some(Err(expired(late))))
            };
            went_on();
            piece.map(|piece| (piece, (body, went_on)))
        })
    };
    Ok(answer.map(|body| StreamBody::new(pieces(body))))
}

/// Resolves when shutdown begins before the store has been listed. kube's controller waits for the list then, for ever: it holds
/// its reconciliations until the list is complete, and no longer polls the watch.
pub async fn ends_unlisted<K>(store: Store<K>, shutdown: Shutdown)
where
    K: Clone + Resource<DynamicType: Clone + Eq + std::hash::Hash> + 'static,
{
    let listed = shutdown.unless_begun(store.wait_until_ready()).await;
    if listed.is_some() {
        std::future::pending::<()>().await;
    }
}

/// A stream of one item, which does not end after it.
pub fn once<T>(item: impl Future<Output = T>) -> impl Stream<Item = T> {
    item.into_stream().chain(stream::pending())
}

fn asks_for(uri: &http::Uri, what: &str) -> bool {
    let query = uri.query().unwrap_or_default().as_bytes();
    url::form_urlencoded::parse(query).any(|(name, _)| name == what)
}

/// A hash of what only a user changes: the spec and deletion (both move the generation), and the request to reconcile now.
#[must_use]
pub fn trigger_hash(object: &impl ResourceExt) -> u64 {
    let mut hasher = DefaultHasher::new();
    object.meta().generation.hash(&mut hasher);
    object.meta().deletion_timestamp.is_some().hash(&mut hasher);
    object
        .annotations()
        .get(RECONCILE_REQUESTED_ANNOTATION)
        .hash(&mut hasher);
    hasher.finish()
}

/// The request to reconcile now, which `status.lastHandledReconcileAt` repeats.
#[must_use]
pub fn reconcile_requested_at(object: &impl ResourceExt) -> Option<String> {
    object
        .annotations()
        .get(RECONCILE_REQUESTED_ANNOTATION)
        .cloned()
}

/// An error with all causes that its text does not include yet: "client error (Connect)" alone does not help.
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

/// The namespaces that one controller watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchScope {
    /// All namespaces.
    All,
    /// One namespace.
    Namespace(String),
}

impl WatchScope {
    /// Whether objects of this namespace are watched.
    #[must_use]
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Namespace(watched) => watched == namespace,
        }
    }

    /// The API to list and watch a namespaced kind.
    #[must_use]
    pub fn api<K>(&self, client: &kube::Client) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match self {
            Self::All => Api::all(client.clone()),
            Self::Namespace(namespace) => Api::namespaced(client.clone(), namespace),
        }
    }
}

/// The configuration of every watch. Cloud load balancers drop idle connections after four minutes (AKS: 240 s), so a watch
/// ends before that (230 s). Ending costs a reconnect but no new list. From a watch that is silent for 5 s longer, kube takes
/// nothing any more: it watches anew.
#[must_use]
pub fn watch_config() -> kube::runtime::watcher::Config {
    kube::runtime::watcher::Config::default()
        .timeout(WATCH_SECONDS)
        .page_size(PAGE)
}

const WATCH_SECONDS: u32 = 230;
/// Most objects in one answer to a list (50). The client holds an answer more than twice while it reads it, and an object may have the
/// 1.5 MiB that etcd takes. With kube's 500, a user who created 500 large objects had the process killed for its memory, at each
/// start anew.
///
/// Not streaming lists, which need no pages: kube 5.0.0 asks for them with `resourceVersion=0`, and an API server may answer that from
/// an old cache; nor does it fall back to pages where the server has none. They are hardly faster (`docs/benchmarks.md`).
pub const PAGE: u32 = 50;

/// Tells a new error from a repeated one, so that each is logged once.
#[derive(Debug, Default)]
pub struct LogDeduper(Mutex<HashMap<String, Instant>>);

/// An error that recurs after this time is logged again. Longer than the longest wait between two retries.
const SAME_LINE_AFTER: Duration = Duration::from_secs(6 * 60);

impl LogDeduper {
    /// Records the error. Returns whether it is its first occurrence within `SAME_LINE_AFTER` (6 minutes).
    pub fn is_first(&self, trouble: &str) -> bool {
        let now = Instant::now();
        let mut met = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        met.retain(|_, at| now.saturating_duration_since(*at) < SAME_LINE_AFTER);
        met.insert(trouble.to_owned(), now).is_none()
    }
}

/// Logs the watch errors of one kind: the same error once, not at every retry.
#[derive(Debug)]
pub struct WatchLog {
    kind: &'static str,
    deduper: LogDeduper,
}

impl WatchLog {
    /// A log for the watch of `kind`.
    #[must_use]
    pub fn new(kind: &'static str) -> Self {
        Self {
            kind,
            deduper: LogDeduper::default(),
        }
    }

    /// Logs a watch error, unless it is a repeated one.
    pub fn error(&self, error: &dyn std::error::Error) {
        let error = error_chain(error);
        // While the API server starts, its 403 lists the roles that it has not loaded yet: the cause is the same.
        let cause = cause_of_refusal(&error);
        if self.deduper.is_first(cause) {
            warn!(
                kind = self.kind,
                error, "cannot be watched; tried again until it can"
            );
        }
    }

    /// Logs one result of the kind's controller, if it is a watch error.
    pub fn result<T, R, Q>(&self, result: Result<T, controller::Error<R, Q>>)
    where
        R: std::error::Error + 'static,
        Q: std::error::Error + 'static,
    {
        match result {
            Ok(_) => {}
            Err(controller::Error::QueueError(error)) => self.error(&error),
            // Reconcile errors are logged where they occur; a deleted object needs no pass.
            Err(error) => debug!(kind = self.kind, %error, "queue"),
        }
    }
}

/// The text without the missing roles, and without the whole answer that kube appends.
fn cause_of_refusal(error: &str) -> &str {
    let ends = [": rbac: ", ": Forbidden (Status"].map(|end| error.find(end));
    let end = ends.into_iter().flatten().min();
    end.and_then(|end| error.get(..end)).unwrap_or(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusal_with_and_without_missing_roles_has_one_cause() {
        let refusal = "cannot watch resource at the cluster scope";
        for rest in [
            ": rbac: RBAC: [a not found]: Forbidden (Status {})",
            ": Forbidden (Status {})",
            "",
        ] {
            assert_eq!(cause_of_refusal(&format!("{refusal}{rest}")), refusal);
        }
    }

    #[test]
    fn refusal_is_shown_as_the_api_server_says_it() {
        let status = kube::core::Status::failure("pods \"a\" is forbidden", "Forbidden");
        let error = Error::from(kube::Error::Api(Box::new(status.with_code(403))));
        assert_eq!(error.to_string(), "pods \"a\" is forbidden");
        assert_eq!(error_chain(&error), error.to_string());
        assert_eq!(error.code(), Some(403));
        let unreachable = kube::Error::Service("connection refused".into());
        let error = Error::from(unreachable);
        assert!(error_chain(&error).contains("connection refused"));
    }
}
