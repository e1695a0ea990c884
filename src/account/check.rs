//! One check of an account: reads its credentials, and calls STS for their identity unless it is known.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::account::Endpoints as EndpointSpec;
use crate::api::membership::AccountKind;
use crate::api::reason;
use crate::ecs::credential::Network;
use crate::ecs::{self, Credential, Endpoints, Identity};
use crate::kubernetes::events::{self, EventRecord};

use super::change::Change;
use super::context::{CheckedVersion, Context};
use super::credentials::{self, Found, Reading};
use super::directory::{AccountState, News};
use super::issued::Doubt;
use super::key::{AccountKey, CloudAccountId};
use super::kind::{AccountObject, key_of};
use super::reach::Reach;
use super::session::AccountSession;
use super::status::{self, CheckResult};

/// What a check of the credentials found.
pub(super) enum Checked {
    /// The credentials could not be read just now, and were accepted before; or the process ends.
    Unread,
    /// The Secret is gone for less than [`SECRET_GONE`], and its credentials were accepted before.
    SecretGone,
    /// Nothing changed.
    Unchanged,
    /// There is a new result.
    Found(CheckResult),
}

/// Reads the credentials and calls STS for their identity, unless it is known and no new check was requested.
pub(super) async fn check_credentials<K: AccountObject>(
    account: &K,
    key: &AccountKey,
    is_requested: bool,
    context: &Context,
) -> Checked {
    let found = match credentials_of(account, key, is_requested, context).await {
        Ok(found) => found,
        Err(checked) => return checked,
    };
    let version = (account.credential_spec(), found.version);
    let known = is_known(&version, key, context);
    // The cloud accepted the key once and rejected it in a call since: it may be disabled or expired.
    let suspect = context
        .directory
        .usable(key)
        .filter(|account| known && (is_requested || account.is_suspect()));
    if known && suspect.is_none() && !is_requested {
        if let Some(session) = context.directory.usable(key) {
            // The Secret is there again, as it was.
            session.release();
        }
        return Checked::Unchanged;
    }
    let client = match client(account, found.credential, context) {
        Ok(client) => client,
        Err(result) => return Checked::Found(record(result, None, account, context)),
    };
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
            keep(version, key, context);
            let session = session(client, &identity, reach, context);
            let result = CheckResult::Accepted(identity);
            Checked::Found(record(result, Some(session), account, context))
        }
        (Err(error), _) => {
            let result = record(CheckResult::Refused(error), None, account, context);
            keep(version, key, context);
            Checked::Found(result)
        }
    }
}

/// A Secret may be gone for so long while it is replaced (10 s): its account stays as it is, and makes no call.
const SECRET_GONE: Duration = Duration::from_secs(10);

/// When a Secret that is gone is looked for again (1 s).
pub(super) const SECRET_GONE_RETRY: Duration = Duration::from_secs(1);

/// Whether the Secret of accepted credentials has just gone. The calls of the account wait then.
fn is_briefly_gone<K: AccountObject>(
    result: &CheckResult,
    account: &K,
    key: &AccountKey,
    context: &Context,
) -> bool {
    let is_gone = matches!(
        result,
        CheckResult::NoCredentials { reason, .. } if *reason == reason::SECRET_NOT_FOUND
    );
    let session = context.directory.usable(key);
    let Some(session) = session.filter(|_| is_gone && context.accepted(account, key)) else {
        return false;
    };
    let mut checks = context.checks();
    let since = &mut checks.entry(key.clone()).or_default().secret_gone;
    let since = *since.get_or_insert_with(Instant::now);
    let is_brief = since.elapsed() < SECRET_GONE;
    if is_brief {
        session.await_secret();
    }
    is_brief
}

/// Whether the last call of STS was about this version, and is not due again.
fn is_known(version: &CheckedVersion, key: &AccountKey, context: &Context) -> bool {
    context.checks().get(key).is_some_and(|check| {
        check.last_checked.as_ref() == Some(version)
            && check.check_after.is_none_or(|again| Instant::now() < again)
    })
}

/// Records that STS has answered about this version.
fn keep(version: CheckedVersion, key: &AccountKey, context: &Context) {
    let mut checks = context.checks();
    checks.entry(key.clone()).or_default().last_checked = Some(version);
}

/// Why an account cannot be used where it is: a `CloudAccount` needs no grant, and the Secrets beside the operator are those of the
/// `ClusterCloudAccounts`.
fn misplaced(key: &AccountKey, context: &Context) -> Option<CheckResult> {
    let AccountKey {
        kind, namespace, ..
    } = key;
    let is_here = *kind == AccountKind::CloudAccount && *namespace == context.operator_namespace;
    is_here.then(|| CheckResult::NoCredentials {
        reason: reason::INVALID_SPEC,
        message: format!(
            "a CloudAccount in the operator's namespace {namespace} is not used, because the Secrets there belong to ClusterCloudAccounts; create it in the namespace of the memberships"
        ),
    })
}

/// The credentials of an account; otherwise what the check has found without them.
async fn credentials_of<K: AccountObject>(
    account: &K,
    key: &AccountKey,
    is_requested: bool,
    context: &Context,
) -> Result<Found, Checked> {
    if let Some(result) = misplaced(key, context) {
        return Err(Checked::Found(record(result, None, account, context)));
    }
    if context.shutdown.has_begun() {
        return Err(Checked::Unread);
    }
    match read(account, key, is_requested, context).await {
        Ok(found) => {
            context.checks().entry(key.clone()).or_default().secret_gone = None;
            Ok(found)
        }
        // A failed read of the Secret does not undo the answer of the cloud.
        Err(CheckResult::Unknown(_)) if context.accepted(account, key) => Err(Checked::Unread),
        Err(result) if is_briefly_gone(&result, account, key, context) => Err(Checked::SecretGone),
        Err(result) => Err(Checked::Found(record(result, None, account, context))),
    }
}

/// Reads the credentials of an account, or has them issued.
async fn read<K: AccountObject>(
    account: &K,
    key: &AccountKey,
    is_requested: bool,
    context: &Context,
) -> Result<Found, CheckResult> {
    let source = account.source(&context.operator_namespace);
    let network = Network {
        transport: Arc::clone(&context.transport),
        endpoints: endpoints(account, context)?,
        metadata: context.metadata_service.clone(),
        clock: context.clock.clone(),
        shutdown: context.shutdown.clone(),
    };
    let issued = context.issued(key);
    let session = context.directory.usable(key);
    let doubt = if session.is_some_and(|session| session.is_suspect()) {
        Doubt::Refused
    } else if is_requested {
        Doubt::Requested
    } else {
        Doubt::None
    };
    let reading = Reading {
        client: &context.client,
        environment: &context.environment,
        network: &network,
        issued: &issued,
        spec: account.credential_spec(),
        doubt,
    };
    credentials::read(&source, &reading).await
}

/// A client that signs with the credential of an account, or what is wrong with its endpoints.
fn client<K: AccountObject>(
    account: &K,
    credential: Credential,
    context: &Context,
) -> Result<ecs::Client, CheckResult> {
    let endpoints = endpoints(account, context)?;
    let client = ecs::Client::new(Arc::clone(&context.transport), credential, endpoints);
    Ok(client
        .with_clock(context.clock.clone())
        .with_shutdown(context.shutdown.clone()))
}

/// The session of an account that the cloud knows.
fn session(
    client: ecs::Client,
    identity: &Identity,
    reach: Arc<Reach>,
    context: &Context,
) -> AccountSession {
    let id = CloudAccountId {
        uid: identity.account_uid.clone(),
        endpoints: client.endpoints().clone(),
    };
    AccountSession::new(
        client,
        context.limiters.of(id, &context.clock, &context.changes),
        Arc::clone(&context.telemetry),
        reach,
        context.shutdown.clone(),
    )
}

/// The endpoints of an account, or what is wrong with them.
fn endpoints<K: AccountObject>(account: &K, context: &Context) -> Result<Endpoints, CheckResult> {
    parse_endpoints(account.endpoints(), &context.default_endpoints)
}

/// The endpoints of a spec, where it names any, and the default ones; or what is wrong with them.
pub(super) fn parse_endpoints(
    own: Option<&EndpointSpec>,
    defaults: &EndpointSpec,
) -> Result<Endpoints, CheckResult> {
    let choose =
        |pick: fn(&EndpointSpec) -> Option<&String>| own.and_then(pick).or_else(|| pick(defaults));
    Endpoints::parse(
        choose(|endpoints| endpoints.ecs.as_ref()).map(String::as_str),
        choose(|endpoints| endpoints.sts.as_ref()).map(String::as_str),
        own.is_some_and(|endpoints| endpoints.allow_insecure == Some(true)),
    )
    .and_then(|endpoints| {
        endpoints.with_authorities(own.and_then(|endpoints| endpoints.ca_bundle.as_deref()))
    })
    .map_err(|error| CheckResult::NoCredentials {
        reason: reason::INVALID_SPEC,
        message: format!("spec.{error}"),
    })
}

/// Stores a result in the directory, logs it, and enqueues the memberships if it changed.
fn record<K: AccountObject>(
    result: CheckResult,
    usable: Option<AccountSession>,
    account: &K,
    context: &Context,
) -> CheckResult {
    let key = &key_of::<K>(account);
    let state = match usable {
        Some(account) => AccountState::Ready(Arc::new(account)),
        None => AccountState::NotReady {
            stalled: result.is_stalled(),
            message: result.explain(context.docs_url.as_ref()).1,
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
    let spec = account.credential_spec();
    let news = context.directory.set_checked(key, &spec, state);
    hold_calls(&result, key, context);
    match news {
        News::None => {}
        News::Key => context.report(Change::Key(key.clone())),
        News::State => context.report_change(key),
    }
    result
}

/// Has the calls that wait for this result fail, if it is that the key is refused; otherwise they are made.
fn hold_calls(result: &CheckResult, key: &AccountKey, context: &Context) {
    let Some(session) = context.directory.last_usable(key) else {
        return;
    };
    match result.error() {
        Some(error) if error.is_credential_error() => session.refuse(error.clone()),
        Some(_) | None => session.release(),
    }
}

/// Logs a result, at WARN if the account cannot be used. The same result is logged once.
fn log_result(result: &CheckResult, key: &AccountKey, context: &Context) {
    let (reason, text) = result.explain(context.docs_url.as_ref());
    let said = Some((reason.clone(), text.clone()));
    let before = {
        let mut checks = context.checks();
        let check = checks.entry(key.clone()).or_default();
        std::mem::replace(&mut check.logged, said.clone())
    };
    if before == said {
        return;
    }
    let error = result.error();
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
pub(super) fn next_check(result: &CheckResult, key: &AccountKey, context: &Context) -> Duration {
    let mut checks = context.checks();
    let check = checks.entry(key.clone()).or_default();
    check.failures = check.failures.saturating_add(1);
    check.check_after = None;
    let mut wait = if let CheckResult::Accepted(_) = result {
        check.failures = 0;
        context.period()
    } else {
        result.retry().delay(check.failures)
    };
    // STS is not called again for the same version before this is over.
    if let Some(error) = result.error() {
        wait = error.retry_after().map_or(wait, |least| least.max(wait));
        check.check_after = Some(Instant::now() + wait);
    }
    // The Secret may be corrected sooner.
    wait.min(context.period())
}

/// The wait until the next check of an unchanged account.
pub(super) fn unchanged_check(key: &AccountKey, context: &Context) -> Duration {
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
