//! The controller of an account kind: keeps the directory, watches Secrets, and checks an account when something of it has
//! changed or its next check is due.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{StreamExt as _, TryStreamExt as _};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;
use kube::runtime::reflector::{self, ObjectRef};
use kube::runtime::{Controller, WatchStreamExt as _, watcher};
use kube::{Api, ResourceExt as _};
use tokio::time::Instant;

use crate::api::membership::AccountKind;
use crate::api::reason;
use crate::kubernetes::changed::changed;
use crate::kubernetes::events::{self, EventRecord};
use crate::kubernetes::{self, WatchLog, WatchScope};
use crate::watched::Watched;

use super::check::{Checked, SECRET_GONE_RETRY, check_credentials, next_check, unchanged_check};
use super::context::{CheckedVersion, Context};
use super::directory::{AccountState, Grants, News};
use super::in_use::{self, Held};
use super::key::AccountKey;
use super::kind::{AccountObject, key_of};
use super::status::Observation;
use super::uses::AccountUse;
use super::write::{on_error, write_status};

/// Scan periods without a usable answer after which an account is reported as not reachable.
const SILENT_PERIODS: u32 = 3;

/// When an account is checked after its finalizer was changed (100 ms): the watch shows the version that the next write needs.
const AFTER_FINALIZER: Duration = Duration::from_millis(100);

/// Shortest time between two checks of one account that a user has caused (1 s).
const DISTANCE: Duration = Duration::from_secs(1);

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
    let mut listed = HashSet::new();
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
        .reflect(writer);
    let (queue, looks) = unbounded();
    let uses = queue.clone();
    let use_watch =
        in_use::watch_uses::<K>(context.directory.uses(), reader.clone(), move |account| {
            // Closed only while the process shuts down.
            let _ = uses.unbounded_send(account);
        });
    let refused = queue.clone();
    let refusal_watch = watch_refusals::<K>(Arc::clone(&context), reader.clone(), refused);
    let secret_watch = watch_secrets::<K>(Arc::clone(&context), reader.clone(), queue);
    let ends_unlisted = kubernetes::ends_unlisted(reader.clone(), context.shutdown.clone());
    let log = WatchLog::new(K::KIND.name());
    let controller = Controller::for_stream(changed(accounts), reader)
        .reconcile_on(looks)
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
        () = use_watch => {}
        () = refusal_watch => {}
    }
}

/// Updates the directory from the watch: adds listed accounts and forgets deleted ones.
fn keep_directory<K: AccountObject>(
    context: &Context,
    scope: &WatchScope,
    listed: &mut HashSet<AccountKey>,
    event: &watcher::Event<Watched<K>>,
) {
    match event {
        watcher::Event::Init => listed.clear(),
        watcher::Event::InitApply(account) => {
            listed.insert(key_of::<K>(account));
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
    if !context.directory.knows(&key) {
        // A check that was under way when the account went may have left its result.
        context.checks().remove(&key);
    }
    match &account.0 {
        Ok(account) => {
            let terminating = account.meta().deletion_timestamp.is_some();
            let directory = &context.directory;
            let spec = account.credential_spec();
            if !directory.has_spec(&key, &spec) {
                // Also what goes back to credentials that were checked before is checked: its state is `Checking` again.
                context
                    .checks()
                    .entry(key.clone())
                    .or_default()
                    .last_checked = None;
            }
            let is_news = directory.upsert_as(&key, &spec, account.grants(), terminating);
            directory.set_limits(&key, account.limits());
            if is_news {
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

/// Enqueues the accounts whose key the cloud has just refused, for ever: their Secrets may hold another one by now.
async fn watch_refusals<K: AccountObject>(
    context: Arc<Context>,
    accounts: reflector::Store<Watched<K>>,
    queue: UnboundedSender<ObjectRef<Watched<K>>>,
) {
    let mut refusals = context.directory.refusals();
    while refusals.changed().await.is_ok() {
        for account in accounts.state() {
            let session = context.directory.usable(&key_of::<K>(&*account));
            if session.is_some_and(|session| session.is_suspect()) {
                // Closed only while the process shuts down.
                let _ = queue.unbounded_send(ObjectRef::from_obj(&*account));
            }
        }
    }
}

fn names_secret<K: AccountObject>(account: &Watched<K>, namespace: &str, name: &str) -> bool {
    let source = |account: &K| account.source(namespace);
    let named = account.0.as_ref().map(source);
    named.is_ok_and(|source| source.names_secret(namespace, name))
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
    let used = context.directory.use_of(&key);
    let held = in_use::hold(account, used, &key, &context).await;
    if held == Held::Written {
        return Ok(Action::requeue(AFTER_FINALIZER));
    }
    // A read of the Secret would hold up the end of the process.
    if context.shutdown.has_begun() {
        return Ok(Action::await_change());
    }
    let previous = context.status(account, &key);
    let request = kubernetes::reconcile_requested_at(account);
    let is_requested = request.is_some() && request != previous.last_handled_reconcile_at;
    if let Some(wait) = distance(account, &key, is_requested, &context) {
        return Ok(Action::requeue(wait));
    }
    let checked = check_credentials(account, &key, is_requested, &context).await;
    let (result, handled) = match &checked {
        Checked::Unread | Checked::SecretGone => (None, None),
        Checked::Unchanged => (None, request),
        Checked::Found(result) => (Some(result), request),
    };
    let observation = Observation {
        result,
        stands: matches!(checked, Checked::Unchanged)
            || result.is_none() && context.accepted(account, &key),
        reachability: context
            .reach(&key)
            .reachability(context.scan_period * SILENT_PERIODS),
        handled: handled.or_else(|| previous.last_handled_reconcile_at.clone()),
        expires: context.issued(&key).ends(),
        memberships: context.told_memberships(&key, previous.memberships, used),
        kept_by: kept_by(account, used),
        docs_url: context.docs_url.as_ref(),
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
    let wait = wait_after(&checked, &key, &context);
    Ok(Action::requeue(held.no_later_than(wait)))
}

/// How long after a check the next one begins.
fn wait_after(checked: &Checked, key: &AccountKey, context: &Context) -> Duration {
    match checked {
        Checked::Found(result) => next_check(result, key, context),
        Checked::SecretGone => SECRET_GONE_RETRY,
        Checked::Unread | Checked::Unchanged => unchanged_check(key, context),
    }
}

/// How long a check must still wait that a user has caused, by a request or other credentials.
fn distance<K: AccountObject>(
    account: &K,
    key: &AccountKey,
    is_requested: bool,
    context: &Context,
) -> Option<Duration> {
    let spec = account.credential_spec();
    let mut checks = context.checks();
    let last = checks.entry(key.clone()).or_default();
    let is_known = |(checked, _): &CheckedVersion| *checked == spec;
    if !is_requested && last.last_checked.as_ref().is_some_and(is_known) {
        return None;
    }
    let now = Instant::now();
    let free_at = last.caused.map(|caused| caused + DISTANCE);
    if let Some(free_at) = free_at.filter(|free_at| now < *free_at) {
        return Some(free_at - now);
    }
    last.caused = Some(now);
    None
}

/// How many memberships keep an account that is being deleted.
fn kept_by<K: AccountObject>(account: &K, used: Option<AccountUse>) -> Option<usize> {
    let is_going = account.meta().deletion_timestamp.is_some();
    used.filter(|_| is_going).map(|used| used.joined)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU16, Ordering};
    use std::time::Duration;

    use serde_json::{Value, json};
    use tokio::sync::mpsc;

    use super::*;
    use crate::account::directory::Directory;
    use crate::account::limiters::Limiters;
    use crate::api::account::Endpoints as EndpointSpec;
    use crate::api::{CloudAccount, ClusterCloudAccount};
    use crate::clock::Clock;
    use crate::ecs::credential::{Environment, METADATA_SERVICE};
    use crate::ecs::{Credential, TestTransport, Transport};
    use crate::kubernetes::events::EventRecorder;
    use crate::kubernetes::writer::ApiWriter;
    use crate::shutdown::Shutdown;
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
            let api_writer = ApiWriter::new(1, Shutdown::default(), Arc::default());
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
                environment: Environment::Key(key),
                metadata_service: METADATA_SERVICE.parse().unwrap(),
                telemetry: Arc::default(),
                clock,
                checks: Mutex::default(),
                events,
                scan_period: Duration::from_secs(60),
                docs_url: None,
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

    /// Each generation names another endpoint.
    fn cluster_account(generation: i64) -> Value {
        let ecs = format!("https://ecs{generation}.test");
        json!({
            "metadata": {"name": "default", "uid": "u-1", "generation": generation},
            "spec": {"credentials": {"environment": {}}, "endpoints": {"ecs": ecs}, "grants": []},
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
        // Another endpoint has it checked again.
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
