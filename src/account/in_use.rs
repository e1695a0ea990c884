//! Keeps an account that is deleted until no membership needs it any more: by a finalizer, which is there while memberships would
//! be removed with the account's key.

use std::time::Duration;

use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};
use serde_json::json;
use tokio::sync::watch;
use tracing::{debug, warn};

use crate::api::{ACCOUNT_FINALIZER, ACCOUNT_MANAGER};
use crate::kubernetes::{self, ObjectUid, version_of};
use crate::watched::Watched;

use super::context::Context;
use super::key::AccountKey;
use super::kind::{AccountObject, key_of};
use super::uses::{AccountUse, Uses};

/// What has become of the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Held {
    /// It is as it must be, or cannot be changed now.
    Unchanged,
    /// It was added or removed: the account has a new version.
    Written,
    /// It must change, and the watch has not shown yet what it must change under.
    Waits,
}

/// When an account whose finalizer must change is checked again while the watch lags (5 s).
const WATCH_LAGS: Duration = Duration::from_secs(5);

impl Held {
    /// When the account is checked again that would be after `wait`.
    pub(super) fn no_later_than(self, wait: Duration) -> Duration {
        match self {
            Self::Waits => wait.min(WATCH_LAGS),
            Self::Unchanged | Self::Written => wait,
        }
    }
}

/// Adds the finalizer to an account that is needed, and removes it from one that is not.
pub(super) async fn hold<K: AccountObject>(
    account: &K,
    used: Option<AccountUse>,
    key: &AccountKey,
    context: &Context,
) -> Held {
    let Some(change) = used.and_then(|used| change(account, used)) else {
        return Held::Unchanged;
    };
    let seen = Some((ObjectUid::of(account), version_of(account.meta())));
    if context
        .checks()
        .get(key)
        .is_some_and(|check| check.held_at == seen)
    {
        return Held::Waits;
    }
    // Whether a write that is under way has its effect matters little: the next process looks again.
    let written = context
        .shutdown
        .unless_begun(write(account, change, context));
    let Some(written) = written.await else {
        return Held::Unchanged;
    };
    match written {
        // The watch shows the newer version, also after a conflict.
        Ok(()) => {}
        Err(error) if matches!(error.code(), Some(404 | 409)) => {}
        Err(error) => {
            log_failure(&error, key, context);
            return Held::Unchanged;
        }
    }
    context.checks().entry(key.clone()).or_default().held_at = seen;
    Held::Written
}

/// A change of the finalizer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum FinalizerChange {
    Add,
    Remove,
}

/// How the finalizer must change. The API server takes no new one on an object that is being deleted.
fn change<K: AccountObject>(account: &K, used: AccountUse) -> Option<FinalizerChange> {
    let is_going = account.meta().deletion_timestamp.is_some();
    match (used.joined > 0, has_finalizer(account)) {
        (true, false) if !is_going => Some(FinalizerChange::Add),
        (false, true) => Some(FinalizerChange::Remove),
        (true | false, _) => None,
    }
}

fn has_finalizer(account: &impl ResourceExt) -> bool {
    account
        .finalizers()
        .iter()
        .any(|name| name == ACCOUNT_FINALIZER)
}

/// One server-side apply under the version that was seen. A finalizer that another field manager owns as well goes by a second
/// write.
async fn write<K: AccountObject>(
    account: &K,
    change: FinalizerChange,
    context: &Context,
) -> Result<(), kubernetes::Error> {
    let api = K::api(&context.client, &account.namespace().unwrap_or_default());
    let name = account.name_any();
    let ours = match change {
        FinalizerChange::Add => vec![ACCOUNT_FINALIZER],
        FinalizerChange::Remove => Vec::new(),
    };
    let fields = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": {
            "name": name, "uid": account.uid(), "resourceVersion": account.resource_version(), "finalizers": ours,
        },
    });
    let turn = context.writer.turn().await?;
    let written = turn.apply(&api, &name, ACCOUNT_MANAGER, &fields).await?;
    if change == FinalizerChange::Add || !has_finalizer(&written) {
        return Ok(());
    }
    let mut others = written.finalizers().to_vec();
    others.retain(|name| name != ACCOUNT_FINALIZER);
    let fields = json!({"metadata": {
        "uid": written.uid(), "resourceVersion": written.resource_version(), "finalizers": others,
    }});
    context.writer.merge_metadata(&api, &name, &fields).await?;
    Ok(())
}

/// Logs it at WARN once until it is another one: an account is usable without the finalizer.
fn log_failure(error: &kubernetes::Error, key: &AccountKey, context: &Context) {
    let said = Some(error.to_string());
    let before = {
        let mut checks = context.checks();
        let check = checks.entry(key.clone()).or_default();
        std::mem::replace(&mut check.failed_hold, said.clone())
    };
    let code = error.code();
    if before == said {
        debug!(account = %key, code, "the finalizer {ACCOUNT_FINALIZER} could not be changed: {error}");
    } else {
        warn!(account = %key, code, "the finalizer {ACCOUNT_FINALIZER} could not be changed: {error}");
    }
}

/// Sends each account whose finalizer must change, or that is being deleted and used by others than before. Ends with the senders.
pub(super) async fn watch_uses<K: AccountObject>(
    mut counts: watch::Receiver<Option<Uses>>,
    accounts: Store<Watched<K>>,
    look: impl Fn(ObjectRef<Watched<K>>),
) {
    let mut before = Uses::default();
    while counts.changed().await.is_ok() {
        let Some(now) = counts.borrow_and_update().clone() else {
            continue;
        };
        for account in accounts.state() {
            let Ok(readable) = &account.0 else {
                continue;
            };
            let key = key_of::<K>(readable);
            let Some(used) = now.of(&key) else {
                continue;
            };
            let is_going = readable.meta().deletion_timestamp.is_some();
            let is_other = before.of(&key) != Some(used);
            if change(readable, used).is_some() || (is_going && is_other) {
                look(ObjectRef::from_obj(&*account));
            }
        }
        before = now;
    }
}
