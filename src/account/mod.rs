//! The two account kinds: reads the credentials, asks STS whose they are, writes the account's status, and keeps the
//! [`Directory`] that memberships look accounts up in. Writes nothing to the cloud.

pub mod credentials;
pub mod directory;
mod kind;
pub mod reach;
pub mod session;
mod status;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, PredicateConfig, WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt};
use tokio::time::Instant;
use tracing::{info, warn};

use crate::api::account::{CloudAccountStatus, Endpoints as EndpointSpec};
use crate::api::membership::AccountKind;
use crate::api::reason;
use crate::clock::Clock;
use crate::ecs::{self, Class, Credential, Endpoints, Transport};
use crate::kubernetes::{self, ObjectUid, WatchLog, WatchScope};
use crate::membership::edge::AccountKey;
use crate::membership::event::EventRecorder;
use crate::membership::index::Edges;
use crate::membership::queue::ReconcileQueue;
use crate::telemetry::Telemetry;
use crate::watched::Watched;

use self::credentials::Source;
use self::directory::{AccountState, Directory, Grants};
use self::kind::AccountObject;
use self::reach::Reach;
use self::session::AccountSession;
use self::status::{CheckResult, Observation};

/// How often a Secret is read again at most: no watch of ours covers those of the namespaced kind.
const SECRET_PERIOD: Duration = Duration::from_secs(60);
/// Scan periods without a usable answer after which an account is not reachable.
const SILENT_PERIODS: u32 = 3;

/// What a check needs.
pub struct Context {
    /// The cluster.
    pub client: kube::Client,
    /// Where the result goes.
    pub directory: Arc<Directory>,
    /// Which memberships name which account.
    pub edges: Arc<Edges>,
    /// How they are told.
    pub queue: ReconcileQueue,
    /// The way to the cloud.
    pub transport: Arc<dyn Transport>,
    /// Secrets of the cluster kind live here.
    pub operator_namespace: String,
    /// Endpoints of accounts that name none.
    pub default_endpoints: EndpointSpec,
    /// The process's own credentials.
    pub environment: Option<Credential>,
    /// Where calls are counted.
    pub telemetry: Arc<Telemetry>,
    /// What time it is.
    pub clock: Clock,
    /// The last check of each account.
    pub checks: Mutex<HashMap<AccountKey, LastCheck>>,
    /// Where transitions are recorded as events.
    pub events: EventRecorder,
    /// How often every target is read, and so how often a call of an account in use is due.
    pub scan_period: Duration,
}

/// What is remembered of an account between its checks.
#[derive(Clone, Debug, Default)]
pub struct LastCheck {
    /// What the cloud was asked about last. An account that is deleted while it is checked leaves this behind; the next one of
    /// its name is another one.
    last_checked: Option<CheckedVersion>,
    /// When it is asked about the same again; none where it accepted it.
    check_after: Option<Instant>,
    /// Failed checks in a row.
    failures: u32,
    /// Failed writes of the status in a row. Not counted as checks: a conflict only means that the watch lags.
    failed_writes: u32,
    /// What its calls met.
    reach: Arc<Reach>,
    /// The status that this process wrote last, and to which UID: the watch may show an older one.
    written: Option<(Option<ObjectUid>, CloudAccountStatus)>,
}

/// UID and generation of the account, and version of its Secret.
type CheckedVersion = (Option<ObjectUid>, Option<i64>, String);

/// Runs the controller of one kind until `shutdown` resolves. It resolves `synced` when every account has been listed once.
pub async fn run<K: AccountObject>(
    context: Arc<Context>,
    scope: WatchScope,
    synced: tokio::sync::oneshot::Sender<()>,
    shutdown: impl Future<Output = ()> + Send + Sync + 'static,
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
    let log = WatchLog::new(K::KIND.name());
    let controller = Controller::for_stream(accounts, reader)
        .reconcile_on(secrets)
        .graceful_shutdown_on(shutdown)
        .run(check::<K>, on_error::<K>, context)
        .for_each(|result| {
            log.result(result);
            std::future::ready(())
        });
    tokio::select! {
        biased;
        () = controller => {}
        () = secret_watch => {}
    }
}

/// Accounts are known from the moment that they are listed, and forgotten when they go.
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
            if context.directory.upsert(&key, account.grants()) {
                enqueue_memberships(context, &key);
            }
        }
        Err(error) => {
            warn!(account = %key, %error, "cannot be read by this version of the operator");
            context.checks().remove(&key);
            context.directory.upsert(&key, Grants::Listed(Vec::new()));
            context.directory.set_state(
                &key,
                AccountState::NotReady {
                    stalled: true,
                    message: format!("this version of the operator cannot read it: {error}"),
                },
            );
            enqueue_memberships(context, &key);
        }
    }
}

fn forget(context: &Context, key: &AccountKey) {
    context.directory.forget(key);
    context.checks().remove(key);
    enqueue_memberships(context, key);
}

fn enqueue_memberships(context: &Context, key: &AccountKey) {
    for membership in context.edges.of_account(key) {
        context.queue.enqueue(&membership);
    }
}

/// Enqueues the accounts of the cluster kind whose Secret changed, for ever. The operator may watch its own namespace only;
/// Secrets elsewhere are read again every [`SECRET_PERIOD`]. A watch of its own, because an error on one trigger of a
/// `Controller` holds up all of them.
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
    if account.meta().deletion_timestamp.is_some() {
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
        // Otherwise the next check would find nothing new and never write it.
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
    warn!(account = %key, %error, "the status could not be written");
    let mut checks = context.checks();
    let failures = &mut checks.entry(key).or_default().failed_writes;
    *failures = failures.saturating_add(1);
    Action::requeue(Class::Transient.retry().delay(*failures).min(SECRET_PERIOD))
}

enum Checked {
    /// The credentials could not be read just now; they were accepted before.
    Unread,
    /// Everything is as it was.
    Unchanged,
    /// There is something to say.
    Found(CheckResult),
}

/// Reads the credentials and asks STS whose they are, unless the answer is known and no new check was requested.
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
            // What the API server cannot say just now does not undo what the cloud said.
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
    // Accepted once, and refused in a call since: it may have been disabled, or have expired.
    let suspect = context
        .directory
        .usable(key)
        .filter(|account| known && (is_requested || account.is_suspect()));
    if known && suspect.is_none() && !is_requested {
        return Checked::Unchanged;
    }
    let own = account.endpoints();
    let choose = |pick: fn(&EndpointSpec) -> Option<&String>| {
        own.and_then(pick)
            .or_else(|| pick(&context.default_endpoints))
    };
    let endpoints = match Endpoints::parse(
        choose(|endpoints| endpoints.ecs.as_ref()).map(String::as_str),
        choose(|endpoints| endpoints.sts.as_ref()).map(String::as_str),
        own.is_some_and(|endpoints| endpoints.allow_insecure == Some(true)),
    ) {
        Ok(endpoints) => endpoints,
        Err(error) => {
            let result = CheckResult::NoCredentials {
                reason: reason::INVALID_SPEC,
                message: format!("spec.{error}"),
            };
            return Checked::Found(record(result, None, key, context));
        }
    };
    let client = ecs::Client::new(Arc::clone(&context.transport), found.credential, endpoints)
        .with_clock(context.clock.clone());
    let reach = context.reach(key);
    let identity = client.caller_identity().await;
    reach.note(identity.as_ref().err(), || client.sts_host());
    match (identity, suspect) {
        (Ok(_), Some(account)) => {
            account.clear_suspicion();
            Checked::Unchanged
        }
        // Says nothing about the key.
        (Err(error), Some(_)) if !status::is_stalled(&error) && !error.is_clock_error() => {
            Checked::Unchanged
        }
        (Ok(identity), None) => {
            context
                .checks()
                .entry(key.clone())
                .or_default()
                .last_checked = Some(version);
            let usable = AccountSession::new(
                client,
                identity.account_uid.clone(),
                Arc::clone(&context.telemetry),
                reach,
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

/// Puts a result into the directory.
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
    match &state {
        AccountState::Ready(account) => info!(account = %key, uid = account.uid.as_str(), "usable"),
        AccountState::NotReady { message, .. } => warn!(account = %key, "not usable: {message}"),
        AccountState::Checking => {}
    }
    // A key that was accepted and then could not be read must be asked about again, even if nothing changed.
    if matches!(state, AccountState::NotReady { .. }) {
        context
            .checks()
            .entry(key.clone())
            .or_default()
            .last_checked = None;
    }
    if context.directory.set_state(key, state) {
        enqueue_memberships(context, key);
    }
    result
}

/// When to look again without a change.
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
    // The Secret may be put right sooner.
    wait.min(context.period())
}

/// When to look again at what is as it was.
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
    if next != *previous {
        let api = K::api(&context.client, &account.namespace().unwrap_or_default());
        match kubernetes::apply_status(&api, account.meta(), &next).await {
            Ok(_) => {}
            // Gone.
            Err(error) if error.code() == Some(404) => return Ok(()),
            Err(error) => return Err(error),
        }
        for condition in status::transitions(previous, &next) {
            let is_warning = condition.status == "False";
            context.events.record(
                account,
                condition.reason.clone().into(),
                is_warning,
                condition.message.clone(),
            );
        }
    }
    let mut checks = context.checks();
    let check = checks.entry(key.clone()).or_default();
    check.written = Some((ObjectUid::of(account), next));
    check.failed_writes = 0;
    Ok(())
}

impl Context {
    /// What the account says now: as this process wrote it, else as the watch shows it.
    fn status<K: AccountObject>(&self, account: &K, key: &AccountKey) -> CloudAccountStatus {
        let checks = self.checks();
        let written = checks.get(key).and_then(|check| check.written.as_ref());
        match written {
            Some((uid, status)) if *uid == ObjectUid::of(account) => status.clone(),
            Some(_) | None => account.status().cloned().unwrap_or_default(),
        }
    }

    /// What the calls of an account met.
    fn reach(&self, key: &AccountKey) -> Arc<Reach> {
        Arc::clone(&self.checks().entry(key.clone()).or_default().reach)
    }

    /// How often an account without a change is checked.
    fn period(&self) -> Duration {
        SECRET_PERIOD.min(self.scan_period)
    }

    /// Whether this account, as it is, was accepted with the Secret as it was.
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
