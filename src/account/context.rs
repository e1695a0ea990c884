//! What the account controllers share, and what is remembered of an account between its checks.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::api::account::{CloudAccountStatus, Endpoints as EndpointSpec};
use crate::clock::Clock;
use crate::ecs::credential::Environment;
use crate::ecs::{DocsUrl, Transport};
use crate::kubernetes::events::EventRecorder;
use crate::kubernetes::writer::ApiWriter;
use crate::kubernetes::{APPEARS_WITHIN, ObjectUid, version_of};
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;

use super::change::Change;
use super::directory::Directory;
use super::issued::Issued;
use super::key::{AccountKey, CredentialSpec};
use super::kind::AccountObject;
use super::limiters::Limiters;
use super::reach::Reach;
use super::status;
use super::uses::AccountUse;

/// Longest time between two reads of a Secret (1 minute). The operator cannot watch the Secrets of the namespaced kind.
pub(super) const SECRET_PERIOD: Duration = Duration::from_secs(60);

/// Shortest time between two writes of the number of memberships (1 minute).
const COUNT_PERIOD: Duration = Duration::from_secs(60);

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
    pub environment: Environment,
    /// Base URL of the metadata service.
    pub metadata_service: url::Url,
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
    /// Where the documentation is, for messages.
    pub docs_url: Option<DocsUrl>,
    /// After it has begun, no call of STS and no write begins.
    pub shutdown: Shutdown,
}

/// What is remembered of an account between its checks.
#[derive(Clone, Debug, Default)]
pub struct LastCheck {
    /// What the last call of STS was about. It holds the UID, because an account that is deleted during its check leaves this
    /// entry for the next account of its name.
    pub(super) last_checked: Option<CheckedVersion>,
    /// When STS is called again for the same version; `None` after it accepted the credentials.
    pub(super) check_after: Option<Instant>,
    /// When a check began last that a user had caused.
    pub(super) caused: Option<Instant>,
    /// Failed checks in a row.
    pub(super) failures: u32,
    /// Failed writes of the status in a row. Not counted as checks: a conflict only means that the watch lags.
    pub(super) failed_writes: u32,
    /// Why the last write of the status failed, as logged. `None` after one that succeeded.
    pub(super) failed_write: Option<(Option<u16>, String)>,
    /// Since when the Secret of accepted credentials is gone.
    pub(super) secret_gone: Option<Instant>,
    /// The version of the account whose finalizer was changed, or could not be because the watch lagged: the watch must show another one
    /// before the next try.
    pub(super) held_at: Option<(Option<ObjectUid>, u64)>,
    /// Why the last change of the finalizer failed, as logged.
    pub(super) failed_hold: Option<String>,
    /// When the number of memberships was written last.
    pub(super) counted: Option<Instant>,
    /// Reason and message of the last result that was logged.
    pub(super) logged: Option<(String, String)>,
    /// Whether its calls got usable answers.
    pub(super) reach: Arc<Reach>,
    /// The key that was issued for it.
    pub(super) issued: Arc<Issued>,
    /// The status that this process wrote last. The watch may show an older one.
    pub(super) written: Option<WrittenStatus>,
}

/// A status of an account as it was stored.
#[derive(Clone, Debug)]
pub(super) struct WrittenStatus {
    pub(super) account: Option<ObjectUid>,
    pub(super) status: CloudAccountStatus,
    /// The version of the account with this status, and the whole status of that version.
    pub(super) version: u64,
    pub(super) stored: CloudAccountStatus,
    pub(super) at: Instant,
}

/// What a check was about: the spec of the account, and the version of its credentials.
pub(super) type CheckedVersion = (CredentialSpec, String);

impl Context {
    pub(super) fn report_change(&self, key: &AccountKey) {
        self.report(Change::Account(key.clone()));
    }

    pub(super) fn report(&self, change: Change) {
        // Closed only while the process shuts down.
        let _ = self.changes.send(change);
    }

    /// The current status: from this process's own last write, or else from the watch.
    pub(super) fn status<K: AccountObject>(
        &self,
        account: &K,
        key: &AccountKey,
    ) -> CloudAccountStatus {
        let checks = self.checks();
        let written = checks.get(key).and_then(|check| check.written.as_ref());
        match written {
            Some(written) if written.account == ObjectUid::of(account) => written.status.clone(),
            Some(_) | None => account.status().cloned().unwrap_or_default(),
        }
    }

    /// Whether the watch shows a status that says something else than the one that this process wrote last, in a newer version: another
    /// process wrote it; or for a minute in an older one: the API server's store was put back.
    pub(super) fn has_foreign_status<K: AccountObject>(
        &self,
        account: &K,
        key: &AccountKey,
    ) -> bool {
        let checks = self.checks();
        let written = checks.get(key).and_then(|check| check.written.as_ref());
        written.is_some_and(|written| {
            written.account == ObjectUid::of(account)
                && !account
                    .status()
                    .is_some_and(|shown| status::same_meaning(shown, &written.stored))
                && (written.version < version_of(account.meta())
                    || written.at.elapsed() >= APPEARS_WITHIN)
        })
    }

    /// Whether the calls of an account got usable answers.
    pub(super) fn reach(&self, key: &AccountKey) -> Arc<Reach> {
        Arc::clone(&self.checks().entry(key.clone()).or_default().reach)
    }

    /// How many memberships the status may say that there are: another number at most once a minute.
    pub(super) fn told_memberships(
        &self,
        key: &AccountKey,
        previous: Option<i64>,
        used: Option<AccountUse>,
    ) -> Option<i64> {
        let now = used.map(|used| i64::try_from(used.memberships).unwrap_or(i64::MAX));
        if now.is_none() || now == previous {
            return previous;
        }
        let mut checks = self.checks();
        let counted = &mut checks.entry(key.clone()).or_default().counted;
        if counted.is_some_and(|counted| counted.elapsed() < COUNT_PERIOD) {
            return previous;
        }
        *counted = Some(Instant::now());
        now
    }

    /// The key that was issued for an account.
    pub(super) fn issued(&self, key: &AccountKey) -> Arc<Issued> {
        Arc::clone(&self.checks().entry(key.clone()).or_default().issued)
    }

    /// When the keys that were issued for accounts end, in seconds since 1970.
    #[must_use]
    pub fn key_ends(&self) -> Vec<(AccountKey, i64)> {
        let checks = self.checks();
        let ends = checks
            .iter()
            .filter_map(|(key, check)| Some((key.clone(), check.issued.ends()?)));
        ends.collect()
    }

    /// How often an account without a change is checked.
    pub(super) fn period(&self) -> Duration {
        SECRET_PERIOD.min(self.scan_period)
    }

    /// Whether the cloud accepted the account as its spec is with the last Secret that was read.
    pub(super) fn accepted<K: AccountObject>(&self, account: &K, key: &AccountKey) -> bool {
        self.checks().get(key).is_some_and(|check| {
            let last_checked = check
                .last_checked
                .as_ref()
                .filter(|_| check.check_after.is_none());
            last_checked.is_some_and(|(spec, _)| *spec == account.credential_spec())
        })
    }

    pub(super) fn checks(&self) -> std::sync::MutexGuard<'_, HashMap<AccountKey, LastCheck>> {
        self.checks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
