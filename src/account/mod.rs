//! The two account kinds: reads the credentials, calls STS for their identity, writes the account's status, and updates the
//! [`Directory`] in which memberships find their accounts. Knows no memberships: it reports [`Change`]s. Writes nothing to the
//! cloud.

pub mod breaker;
pub mod change;
pub mod credentials;
pub mod directory;
pub mod key;
mod kind;
pub mod limiters;
pub mod namespaces;
pub mod reach;
pub mod session;
mod status;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::account::{CloudAccountStatus, Endpoints as EndpointSpec};
use crate::api::membership::AccountKind;
use crate::api::reason;
use crate::clock::Clock;
use crate::ecs::{self, Class, Credential, Endpoints, Transport};
use crate::kubernetes::events::{self, EventRecord, EventRecorder};
use crate::kubernetes::writer::ApiWriter;
use crate::kubernetes::{self, ObjectUid, WatchLog, WatchScope, version_of};
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;
use crate::watched::Watched;

use self::change::Change;
use self::credentials::Source;
use self::directory::{AccountState, Directory, Grants, News};
use self::key::{AccountKey, CloudAccountId};
use self::kind::AccountObject;
use self::limiters::Limiters;
use self::reach::Reach;
use self::session::AccountSession;
use self::status::{CheckResult, Observation};

/// Longest time between two reads of a Secret (1 minute). The operator cannot watch the Secrets of the namespaced kind.
const SECRET_PERIOD: Duration = Duration::from_secs(60);
/// Scan periods without a usable answer after which an account is reported as not reachable.
const SILENT_PERIODS: u32 = 3;

/// What a check needs.
pub struct Context {
    /// The cluster.
    pub client: kube::Client,
    /// Writes to it.
    pub writer: ApiWriter,
    /// Receives the result.
    pub directory: Arc<Directory>,
    /// The limiters of the cloud accounts.
    pub limiters: Limiters,
    /// Receives the accounts that have changed.
    pub changes: mpsc::UnboundedSender<Change>,
    /// Sends requests to the cloud.
    pub transport: Arc<dyn Transport>,
    /// Namespace of the cluster kind's Secrets.
    pub operator_namespace: String,
    /// Endpoints of accounts that name none.
    pub default_endpoints: EndpointSpec,
    /// The process's own credentials.
    pub environment: Option<Credential>,
    /// Counts the calls.
    pub telemetry: Arc<Telemetry>,
    /// Wall time and random numbers.
    pub clock: Clock,
    /// The last check of each account.
    pub checks: Mutex<HashMap<AccountKey, LastCheck>>,
    /// Where transitions are recorded as events.
    pub events: EventRecorder,
    /// How often every target is read. An account in use makes at least one call per period.
    pub scan_period: Duration,
    /// After it has begun, no call of STS and no write begins.
    pub shutdown: Shutdown,
}

/// What is remembered of an account between its checks.
#[derive(Clone, Debug, Default)]
pub struct LastCheck {
    /// What the last call of STS was about. It holds the UID, because an account that is deleted during its check leaves this
    /// entry for the next account of its name.
    last_checked: Option<CheckedVersion>,
    /// When STS is called again for the same version; `None` after it accepted the credentials.
    check_after: Option<Instant>,
    /// Failed checks in a row.
    failures: u32,
    /// Failed writes of the status in a row. Not counted as checks: a conflict only means that the watch lags.
    failed_writes: u32,
    /// Why the last write of the status failed, as logged. `None` after one that succeeded.
    failed_write: Option<(Option<u16>, String)>,
    /// Reason and message of the last result that was logged.
    logged: Option<(String, String)>,
    /// Whether its calls got usable answers.
    reach: Arc<Reach>,
    /// The status that this process wrote last. The watch may show an older one.
    written: Option<WrittenStatus>,
}

/// A status of an account as it was stored.
#[derive(Clone, Debug)]
struct WrittenStatus {
    account: Option<ObjectUid>,
    status: CloudAccountStatus,
    /// The version of the account with this status, and the whole status of that version.
    version: u64,
    stored: CloudAccountStatus,
}

/// UID and generation of the account, and version of its Secret.
type CheckedVersion = (Option<ObjectUid>, Option<i64>, String);

/// Runs the controller of one kind until shutdown has begun and its checks have ended. It resolves `synced` when every account
/// has been listed once.
pub async fn run<K: AccountObject>(
    context: Arc<Context>,
    scope: WatchScope,
    synced: tokio::sync::oneshot::Sender<()>,
) {
    let api = K::watched(&context.client, &scope);
    let (reader, writer) = reflector::store();
    let keeper = Arc::clone(&context);
    let mut listed = Vec::new();
    let mut synced = Some(synced);
    let accounts = watcher(api, kubernetes::watch_config())
        .inspect_ok(move |event| {
            keep_directory(&keeper, &scope, &mut listed, event);
            if matches!(event, watcher::Event::InitDone)
                && let Some(synced) = synced.take()
            {
                let _ = synced.send(());
            }
        })
        .reflect(writer)
        .applied_objects()
        .predicate_filter(
            |account: &Watched<K>| Some(kubernetes::trigger_hash(account)),
            PredicateConfig::default(),
        );
    let (queue, secrets) = unbounded();
    let secret_watch = watch_secrets::<K>(Arc::clone(&context), reader.clone(), queue);
    let ends_unlisted = kubernetes::ends_unlisted(reader.clone(), context.shutdown.clone());
    let log = WatchLog::new(K::KIND.name());
    let controller = Controller::for_stream(accounts, reader)
        .reconcile_on(secrets)
        .reconcile_all_on(kubernetes::once(context.shutdown.begins_to_lead()))
        .graceful_shutdown_on(context.shutdown.begun())
        .run(check::<K>, on_error::<K>, context)
        .for_each(|result| {
            log.result(result);
            std::future::ready(())
        });
    tokio::select! {
        biased;
        () = controller => {}
        () = ends_unlisted => {}
        () = secret_watch => {}
    }
}

/// Updates the directory from the watch: adds listed accounts and forgets deleted ones.
fn keep_directory<K: AccountObject>(
    context: &Context,
    scope: &WatchScope,
    listed: &mut Vec<AccountKey>,
    event: &watcher::Event<Watched<K>>,
) {
    match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(account) => {
            listed.push(key_of::<K>(account));
            upsert(context, account);
        }
        watcher::Event::Apply(account) => upsert(context, account),
        watcher::Event::Delete(account) => forget(context, &key_of::<K>(account)),
        watcher::Event::InitDone => {
            for key in context.directory.keys() {
                if key.kind == K::KIND && scope.contains(&key.namespace) && !listed.contains(&key) {
                    forget(context, &key);
                }
            }
        }
    }
}

fn upsert<K: AccountObject>(context: &Context, account: &Watched<K>) {
    let key = key_of::<K>(account);
    match &account.0 {
        Ok(account) => {
            let terminating = account.meta().deletion_timestamp.is_some();
            let directory = &context.directory;
            if directory.upsert_as(&key, account.grants(), terminating) {
                context.report_change(&key);
            }
        }
        Err(error) => {
            let message = format!("this version of the operator cannot read it: {error}");
            context.checks().remove(&key);
            let granted_before = context.directory.upsert(&key, Grants::Unknown);
            let state = AccountState::NotReady {
                stalled: true,
                message: message.clone(),
            };
            let news = context.directory.set_state(&key, state) != News::None;
            if news {
                let event = EventRecord {
                    reason: reason::INVALID_SPEC.to_owned(),
                    warning: true,
                    text: message,
                    ..EventRecord::default()
                };
                events::log(&key.reference(), &event);
            }
            if news || granted_before {
                context.report_change(&key);
            }
        }
    }
}

fn forget(context: &Context, key: &AccountKey) {
    context.directory.forget(key);
    context.checks().remove(key);
    context.report_change(key);
}

/// Enqueues the accounts of the cluster kind whose Secret changed, for ever. The operator may watch Secrets in its own namespace
/// only; it reads the others again every [`SECRET_PERIOD`]. This is a separate watch, because an error on one trigger of a
/// `Controller` delays all of them.
async fn watch_secrets<K: AccountObject>(
    context: Arc<Context>,
    accounts: reflector::Store<Watched<K>>,
    queue: UnboundedSender<ObjectRef<Watched<K>>>,
) {
    if K::KIND != AccountKind::ClusterCloudAccount {
        return std::future::pending().await;
    }
    let namespace = &context.operator_namespace;
    let secrets: Api<PartialObjectMeta<Secret>> =
        Api::namespaced(context.client.clone(), namespace);
    let mut changes = std::pin::pin!(
        watcher(secrets, kubernetes::watch_config())
            .default_backoff()
            .touched_objects()
    );
    let log = WatchLog::new("Secret");
    while let Some(change) = changes.next().await {
        match change {
            Ok(secret) => {
                for account in accounts.state() {
                    if names_secret(&account, namespace, &secret.name_any()) {
                        // Closed only while the process shuts down.
                        let _ = queue.unbounded_send(ObjectRef::from_obj(&*account));
                    }
                }
            }
            Err(error) => log.error(&error),
        }
    }
}

fn names_secret<K: AccountObject>(account: &Watched<K>, namespace: &str, name: &str) -> bool {
    account.0.as_ref().is_ok_and(|account| {
        matches!(
            account.source(namespace),
            Source::Secret { namespace: of, name: named, .. } if of == namespace && named == name
        )
    })
}

async fn check<K: AccountObject>(
    account: Arc<Watched<K>>,
    context: Arc<Context>,
) -> Result<Action, kubernetes::Error> {
    let Ok(account) = &account.0 else {
        return Ok(Action::await_change());
    };
    // A standby only watches. All accounts are checked when it begins to act.
    if !context.shutdown.has_led() {
        return Ok(Action::await_change());
    }
    let key = key_of::<K>(account);
    let previous = context.status(account, &key);
    let request = kubernetes::reconcile_requested_at(account);
    let is_requested = request.is_some() && request != previous.last_handled_reconcile_at;
    let checked = check_credentials(account, &key, is_requested, &context).await;
    let (result, handled) = match &checked {
        Checked::Unread => (None, None),
        Checked::Unchanged => (None, request),
        Checked::Found(result) => (Some(result), request),
    };
    let observation = Observation {
        result,
        reachability: context
            .reach(&key)
            .reachability(context.scan_period * SILENT_PERIODS),
        handled: handled.or_else(|| previous.last_handled_reconcile_at.clone()),
    };
    if let Err(error) = write_status(account, &key, &previous, observation, &context).await {
        if matches!(error, kubernetes::Error::Stopping) {
            return Ok(Action::await_change());
        }
        // Otherwise the next check would find no change and never write the status.
        if result.is_some() {
            context.checks().entry(key).or_default().last_checked = None;
        }
        return Err(error);
    }
    Ok(Action::requeue(match result {
        Some(result) => next_check(result, &key, &context),
        None => unchanged_check(&key, &context),
    }))
}

fn on_error<K: AccountObject>(
    account: Arc<Watched<K>>,
    error: &kubernetes::Error,
    context: Arc<Context>,
) -> Action {
    let key = key_of::<K>(&*account);
    let ObjectReference {
        kind,
        namespace,
        name,
        ..
    } = key.reference();
    let mut checks = context.checks();
    let check = checks.entry(key).or_default();
    let code = error.code();
    let failure = Some((code, error.to_string()));
    if check.failed_write == failure {
        debug!(
            kind,
            namespace, name, code, "the status could not be written: {error}"
        );
    } else {
        warn!(
            kind,
            namespace, name, code, "the status could not be written: {error}"
        );
    }
    check.failed_write = failure;
    check.failed_writes = check.failed_writes.saturating_add(1);
    let wait = Class::Transient.retry().delay(check.failed_writes);
    Action::requeue(wait.min(SECRET_PERIOD))
}

enum Checked {
    /// The credentials could not be read just now, and were accepted before; or the process ends.
    Unread,
    /// Nothing changed.
    Unchanged,
    /// There is a new result.
    Found(CheckResult),
}

/// Reads the credentials and calls STS for their identity, unless it is known and no new check was requested.
async fn check_credentials<K: AccountObject>(
    account: &K,
    key: &AccountKey,
    is_requested: bool,
    context: &Context,
) -> Checked {
    let source = account.source(&context.operator_namespace);
    let found =
        match credentials::read(&context.client, &source, context.environment.as_ref()).await {
            Ok(found) => found,
            // A failed read of the Secret does not undo the answer of the cloud.
            Err(CheckResult::Unknown(_)) if context.accepted(account, key) => {
                return Checked::Unread;
            }
            Err(result) => return Checked::Found(record(result, None, key, context)),
        };
    let version = (
        ObjectUid::of(account),
        account.meta().generation,
        found.version,
    );
    let known = context.checks().get(key).is_some_and(|check| {
        check.last_checked.as_ref() == Some(&version)
            && check.check_after.is_none_or(|again| Instant::now() < again)
    });
    // The cloud accepted the key once and rejected it in a call since: it may be disabled or expired.
    let suspect = context
        .directory
        .usable(key)
        .filter(|account| known && (is_requested || account.is_suspect()));
    if known && suspect.is_none() && !is_requested {
        return Checked::Unchanged;
    }
    let endpoints = match endpoints(account, context) {
        Ok(endpoints) => endpoints,
        Err(result) => return Checked::Found(record(result, None, key, context)),
    };
    let client = ecs::Client::new(
        Arc::clone(&context.transport),
        found.credential,
        endpoints.clone(),
    )
    .with_clock(context.clock.clone())
    .with_shutdown(context.shutdown.clone());
    let reach = context.reach(key);
    if context.shutdown.has_begun() {
        return Checked::Unread;
    }
    let identity = client.caller_identity().await;
    reach.note(identity.as_ref().err(), || client.sts_host());
    match (identity, suspect) {
        (Ok(_), Some(account)) => {
            account.clear_suspicion();
            Checked::Unchanged
        }
        // This failure proves nothing about the key.
        (Err(error), Some(_)) if !status::is_stalled(&error) && !error.is_clock_error() => {
            Checked::Unchanged
        }
        (Ok(identity), None) => {
            context
                .checks()
                .entry(key.clone())
                .or_default()
                .last_checked = Some(version);
            let id = CloudAccountId {
                uid: identity.account_uid.clone(),
                endpoints,
            };
            let usable = AccountSession::new(
                client,
                context.limiters.of(id, &context.clock, &context.changes),
                Arc::clone(&context.telemetry),
                reach,
                context.shutdown.clone(),
            );
            Checked::Found(record(
                CheckResult::Accepted(identity),
                Some(usable),
                key,
                context,
            ))
        }
        (Err(error), _) => {
            let result = record(CheckResult::Refused(error), None, key, context);
            context
                .checks()
                .entry(key.clone())
                .or_default()
                .last_checked = Some(version);
            Checked::Found(result)
        }
    }
}

/// The endpoints of an account, or what is wrong with them.
fn endpoints<K: AccountObject>(account: &K, context: &Context) -> Result<Endpoints, CheckResult> {
    let own = account.endpoints();
    let choose = |pick: fn(&EndpointSpec) -> Option<&String>| {
        own.and_then(pick)
            .or_else(|| pick(&context.default_endpoints))
    };
    Endpoints::parse(
        choose(|endpoints| endpoints.ecs.as_ref()).map(String::as_str),
        choose(|endpoints| endpoints.sts.as_ref()).map(String::as_str),
        own.is_some_and(|endpoints| endpoints.allow_insecure == Some(true)),
    )
    .map_err(|error| CheckResult::NoCredentials {
        reason: reason::INVALID_SPEC,
        message: format!("spec.{error}"),
    })
}

/// Stores a result in the directory, logs it, and enqueues the memberships if it changed.
fn record(
    result: CheckResult,
    usable: Option<AccountSession>,
    key: &AccountKey,
    context: &Context,
) -> CheckResult {
    let state = match usable {
        Some(account) => AccountState::Ready(Arc::new(account)),
        None => AccountState::NotReady {
            stalled: result.is_stalled(),
            message: result.explain().1,
        },
    };
    log_result(&result, key, context);
    // A Secret that could not be read for a time must be checked again, even if its version is the same.
    if matches!(state, AccountState::NotReady { .. }) {
        context
            .checks()
            .entry(key.clone())
            .or_default()
            .last_checked = None;
    }
    match context.directory.set_state(key, state) {
        News::None => {}
        News::Key => context.report(Change::Key(key.clone())),
        News::State => context.report_change(key),
    }
    result
}

/// Logs a result, at WARN if the account cannot be used. The same result is logged once.
fn log_result(result: &CheckResult, key: &AccountKey, context: &Context) {
    let (reason, text) = result.explain();
    let said = Some((reason.clone(), text.clone()));
    let before = {
        let mut checks = context.checks();
        let check = checks.entry(key.clone()).or_default();
        std::mem::replace(&mut check.logged, said.clone())
    };
    if before == said {
        return;
    }
    let error = match result {
        CheckResult::Refused(error) => Some(error),
        CheckResult::Accepted(_) | CheckResult::NoCredentials { .. } | CheckResult::Unknown(_) => {
            None
        }
    };
    let event = EventRecord {
        reason,
        warning: !matches!(result, CheckResult::Accepted(_)),
        text,
        code: error.and_then(ecs::Error::code).map(str::to_owned),
        request_id: error.and_then(ecs::Error::request_id).map(str::to_owned),
    };
    events::log(&key.reference(), &event);
}

/// The wait until the next check after a result.
fn next_check(result: &CheckResult, key: &AccountKey, context: &Context) -> Duration {
    let mut checks = context.checks();
    let check = checks.entry(key.clone()).or_default();
    check.failures = check.failures.saturating_add(1);
    check.check_after = None;
    let wait = match result {
        CheckResult::Accepted(_) => {
            check.failures = 0;
            context.period()
        }
        CheckResult::NoCredentials { .. } | CheckResult::Unknown(_) => {
            Class::Transient.retry().delay(check.failures)
        }
        CheckResult::Refused(error) => {
            let wait = status::retry(error).delay(check.failures);
            let wait = error.retry_after().map_or(wait, |least| least.max(wait));
            check.check_after = Some(Instant::now() + wait);
            wait
        }
    };
    // The Secret may be corrected sooner.
    wait.min(context.period())
}

/// The wait until the next check of an unchanged account.
fn unchanged_check(key: &AccountKey, context: &Context) -> Duration {
    let again = context
        .checks()
        .get(key)
        .and_then(|check| check.check_after);
    again.map_or(context.period(), |again| {
        again
            .saturating_duration_since(Instant::now())
            .min(context.period())
    })
}

async fn write_status<K: AccountObject>(
    account: &K,
    key: &AccountKey,
    previous: &CloudAccountStatus,
    observation: Observation<'_>,
    context: &Context,
) -> Result<(), kubernetes::Error> {
    let generation = account.meta().generation;
    let next = status::status(previous, generation, observation, context.clock.now());
    let mut stored = (
        version_of(account.meta()),
        account.status().cloned().unwrap_or_default(),
    );
    if next != *previous || context.has_foreign_status(account, key) {
        let api = K::api(&context.client, &account.namespace().unwrap_or_default());
        match context
            .writer
            .apply_status(&api, account.meta(), &next)
            .await
        {
            Ok(written) => {
                stored = (
                    version_of(written.meta()),
                    written.status().cloned().unwrap_or_default(),
                );
            }
            // The account was deleted.
            Err(error) if error.code() == Some(404) => return Ok(()),
            Err(error) => return Err(error),
        }
        for condition in status::transitions(previous, &next) {
            let event = EventRecord {
                reason: condition.reason.clone(),
                warning: condition.status == "False",
                text: condition.message.clone(),
                ..EventRecord::default()
            };
            if condition.type_ == reason::READY {
                // `log_result` has logged it.
                context.events.queue(account, event);
            } else {
                context.events.publish(account, event);
            }
        }
    }
    let mut checks = context.checks();
    let check = checks.entry(key.clone()).or_default();
    let own = ObjectUid::of(account);
    let is_newer = |written: &WrittenStatus| written.account != own || written.version <= stored.0;
    if check.written.as_ref().is_none_or(is_newer) {
        check.written = Some(WrittenStatus {
            account: own,
            status: next,
            version: stored.0,
            stored: stored.1,
        });
    }
    check.failed_writes = 0;
    check.failed_write = None;
    Ok(())
}

impl Context {
    fn report_change(&self, key: &AccountKey) {
        self.report(Change::Account(key.clone()));
    }

    fn report(&self, change: Change) {
        // Closed only while the process shuts down.
        let _ = self.changes.send(change);
    }

    /// The current status: from this process's own last write, or else from the watch.
    fn status<K: AccountObject>(&self, account: &K, key: &AccountKey) -> CloudAccountStatus {
        let checks = self.checks();
        let written = checks.get(key).and_then(|check| check.written.as_ref());
        match written {
            Some(written) if written.account == ObjectUid::of(account) => written.status.clone(),
            Some(_) | None => account.status().cloned().unwrap_or_default(),
        }
    }

    /// Whether the watch shows a newer status than the one that this process wrote last: another process wrote it.
    fn has_foreign_status<K: AccountObject>(&self, account: &K, key: &AccountKey) -> bool {
        let checks = self.checks();
        let written = checks.get(key).and_then(|check| check.written.as_ref());
        written.is_some_and(|written| {
            written.account == ObjectUid::of(account)
                && written.version < version_of(account.meta())
                && account.status() != Some(&written.stored)
        })
    }

    /// Whether the calls of an account got usable answers.
    fn reach(&self, key: &AccountKey) -> Arc<Reach> {
        Arc::clone(&self.checks().entry(key.clone()).or_default().reach)
    }

    /// How often an account without a change is checked.
    fn period(&self) -> Duration {
        SECRET_PERIOD.min(self.scan_period)
    }

    /// Whether the cloud accepted this generation of the account with the last Secret that was read.
    fn accepted<K: AccountObject>(&self, account: &K, key: &AccountKey) -> bool {
        self.checks().get(key).is_some_and(|check| {
            let last_checked = check
                .last_checked
                .as_ref()
                .filter(|_| check.check_after.is_none());
            last_checked.is_some_and(|(uid, generation, _)| {
                *uid == ObjectUid::of(account) && *generation == account.meta().generation
            })
        })
    }

    fn checks(&self) -> std::sync::MutexGuard<'_, HashMap<AccountKey, LastCheck>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The key of an account object.
fn key_of<K: AccountObject>(account: &impl ResourceExt) -> AccountKey {
    AccountKey {
        kind: K::KIND,
        namespace: account.namespace().unwrap_or_default(),
        name: account.name_any(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU16, Ordering};

    use serde_json::{Value, json};

    use super::*;
    use crate::api::{CloudAccount, ClusterCloudAccount};
    use crate::ecs::TestTransport;
    use crate::telemetry::TestLog;

    fn refuses(sts: &TestTransport, request_id: &str) {
        let code = "InvalidAccessKeyId.NotFound";
        let message = "Specified access key is not found.";
        sts.answers(
            404,
            &json!({"Code": code, "Message": message, "RequestId": request_id}),
        );
    }

    fn accepts(sts: &TestTransport) {
        let arn = "acs:ram::123:user/operator";
        sts.answers(
            200,
            &json!({"AccountId": "123", "Arn": arn, "RequestId": "R"}),
        );
    }

    /// An API server without Secrets, which answers writes of a status with `writes`.
    fn api_server(writes: &Arc<AtomicU16>) -> kube::Client {
        let writes = Arc::clone(writes);
        let answer = move |request: http::Request<kube::client::Body>| {
            let code = match *request.method() {
                http::Method::PATCH => writes.load(Ordering::SeqCst),
                http::Method::GET => 404,
                _ => 201,
            };
            let body = if code >= 400 {
                json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "no", "reason": if code == 404 { "NotFound" } else { "" }})
            } else {
                json!({"metadata": {"name": "default"}, "spec": {"credentials": {}}})
            };
            let body = kube::client::Body::from(body.to_string().into_bytes());
            let answer = http::Response::builder().status(code).body(body);
            std::future::ready(Ok::<_, std::convert::Infallible>(answer.unwrap()))
        };
        kube::Client::new(tower::service_fn(answer), "default")
    }

    struct Fixture {
        context: Arc<Context>,
        sts: Arc<TestTransport>,
        writes: Arc<AtomicU16>,
    }

    impl Fixture {
        fn new() -> Self {
            let sts = Arc::<TestTransport>::default();
            let writes = Arc::new(AtomicU16::new(200));
            let client = api_server(&writes);
            let clock = Clock::simulated("2026-01-01T00:00:00Z".parse().unwrap(), 1);
            let api_writer = ApiWriter::new(1, Shutdown::default());
            let (events, _) = EventRecorder::new(
                client.clone(),
                api_writer.clone(),
                None,
                Arc::default(),
                clock.clone(),
            );
            let key = Credential::new("LTAI4", "secret-of-the-key", None).unwrap();
            let context = Arc::new(Context {
                client,
                writer: api_writer,
                directory: Arc::new(Directory::new(reflector::store().0)),
                limiters: Limiters::default(),
                changes: mpsc::unbounded_channel().0,
                transport: Arc::clone(&sts) as Arc<dyn Transport>,
                operator_namespace: "operator".to_owned(),
                default_endpoints: EndpointSpec::default(),
                environment: Some(key),
                telemetry: Arc::default(),
                clock,
                checks: Mutex::default(),
                events,
                scan_period: Duration::from_secs(60),
                shutdown: Shutdown::default(),
            });
            Self {
                context,
                sts,
                writes,
            }
        }

        /// Checks an account when its next check is due.
        async fn check<K: AccountObject>(&self, account: Value) {
            tokio::time::advance(Duration::from_secs(60 * 60)).await;
            let account: Watched<K> = serde_json::from_value(account).unwrap();
            upsert(&self.context, &account);
            let account = Arc::new(account);
            if let Err(error) = check(Arc::clone(&account), Arc::clone(&self.context)).await {
                on_error(account, &error, Arc::clone(&self.context));
            }
        }
    }

    fn cluster_account(generation: i64) -> Value {
        json!({
            "metadata": {"name": "default", "uid": "u-1", "generation": generation},
            "spec": {"credentials": {"environment": {}}, "grants": []},
        })
    }

    fn own_account() -> Value {
        json!({
            "metadata": {"name": "own", "namespace": "team", "uid": "u-2", "generation": 1},
            "spec": {"credentials": {"secretRef": {"name": "aliyun"}}},
        })
    }

    /// The lines above DEBUG since the last call, without the parts that each line has.
    fn new_lines(log: &TestLog, seen: &mut usize) -> Vec<Value> {
        let mut lines = log.lines();
        lines.retain(|line| line["level"] != "DEBUG");
        let new = lines.split_off(*seen);
        *seen += new.len();
        new.into_iter()
            .map(|mut line| {
                let fields = line.as_object_mut().unwrap();
                fields.remove("timestamp");
                fields.remove("target");
                line
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn account_state_is_logged_once_until_it_changes() {
        let (log, _guard) = TestLog::start();
        let seen = &mut 0;
        let fixture = Fixture::new();
        let refused = |request_id: &str| {
            json!({
                "level": "WARN",
                "message": "InvalidAccessKeyId.NotFound: Specified access key is not found; check accessKeyID in the account's Secret; the key is unknown or disabled; next try in 5m (backs off to 30m)",
                "kind": "ClusterCloudAccount",
                "name": "default",
                "reason": "InvalidAccessKeyIdNotFound",
                "code": "InvalidAccessKeyId.NotFound",
                "request_id": request_id,
            })
        };
        let accepted = json!({
            "level": "INFO",
            "message": "authenticated as acs:ram::123:user/operator",
            "kind": "ClusterCloudAccount",
            "name": "default",
            "reason": "CredentialsAccepted",
        });
        for request_id in ["R-1", "R-2", "R-3"] {
            refuses(&fixture.sts, request_id);
            fixture
                .check::<ClusterCloudAccount>(cluster_account(1))
                .await;
        }
        assert_eq!(new_lines(&log, seen), [refused("R-1")]);
        accepts(&fixture.sts);
        // An edit has it checked again.
        for generation in [2, 2, 3] {
            let account = cluster_account(generation);
            fixture.check::<ClusterCloudAccount>(account).await;
        }
        assert_eq!(new_lines(&log, seen), [accepted]);
        refuses(&fixture.sts, "R-4");
        fixture
            .check::<ClusterCloudAccount>(cluster_account(4))
            .await;
        assert_eq!(new_lines(&log, seen), [refused("R-4")], "lost again");
    }

    #[tokio::test(start_paused = true)]
    async fn lines_of_a_namespaced_account_name_its_namespace() {
        let (log, _guard) = TestLog::start();
        let seen = &mut 0;
        let fixture = Fixture::new();
        for _ in 0..3 {
            fixture.check::<CloudAccount>(own_account()).await;
        }
        let expected = json!({
            "level": "WARN",
            "message": "spec.credentials.secretRef.name: Secret aliyun does not exist in namespace team; create it with the keys accessKeyID and accessKeySecret",
            "kind": "CloudAccount",
            "namespace": "team",
            "name": "own",
            "reason": "SecretNotFound",
        });
        assert_eq!(new_lines(&log, seen), [expected]);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_status_write_is_logged_once_until_one_succeeds() {
        let (log, _guard) = TestLog::start();
        let seen = &mut 0;
        let fixture = Fixture::new();
        accepts(&fixture.sts);
        let failures = [(403, 1), (403, 0), (500, 1), (200, 0), (500, 1)];
        for (generation, (code, expected)) in (1..).zip(failures) {
            fixture.writes.store(code, Ordering::SeqCst);
            let mut account = cluster_account(generation);
            account["metadata"]["annotations"] = json!({
                "security-group-operator.io/reconcile-requested-at": generation.to_string(),
            });
            fixture.check::<ClusterCloudAccount>(account).await;
            let mut lines = new_lines(&log, seen);
            lines.retain(|line| line["reason"] != "CredentialsAccepted");
            let line = json!({
                "level": "WARN",
                "message": "the status could not be written: no",
                "kind": "ClusterCloudAccount",
                "name": "default",
                "code": code,
            });
            assert_eq!(lines, vec![line; expected], "{generation}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn unreadable_account_is_logged_once() {
        let (log, _guard) = TestLog::start();
        let seen = &mut 0;
        let fixture = Fixture::new();
        let mut account = cluster_account(1);
        account["spec"]["grants"] = json!(7);
        for _ in 0..3 {
            fixture.check::<ClusterCloudAccount>(account.clone()).await;
        }
        let lines = new_lines(&log, seen);
        assert_eq!(lines.len(), 1, "{lines:#?}");
        let message = lines[0]["message"].as_str().unwrap();
        assert!(
            message.starts_with("this version of the operator cannot read it: spec.grants: "),
            "{message}"
        );
        let fields = ["level", "kind", "name", "reason"].map(|field| &lines[0][field]);
        assert_eq!(
            fields,
            ["WARN", "ClusterCloudAccount", "default", "InvalidSpec"]
        );
    }
}
