//! What the directory knows of one account.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::ecs::Action;

use super::super::key::CredentialSpec;
use super::super::session::AccountSession;
use super::access::Access;
use super::grants::Grants;

/// Whether an account can be used.
#[derive(Clone, Debug)]
pub enum AccountState {
    /// The credential check has not ended yet.
    Checking,
    /// The account cannot be used now.
    NotReady {
        /// Whether a person must act.
        stalled: bool,
        /// Message of the account's Ready condition.
        message: String,
    },
    /// The account can be used.
    Ready(Arc<AccountSession>),
}

/// What a credential check has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum News {
    /// Nothing.
    None,
    /// Another key of the same cloud account, which was usable before.
    Key,
    /// Whether the account can be used, or why not, or its cloud account.
    State,
}

/// How long an account that was deleted, or lost its credentials, still serves deletions (10 minutes). Longer than a target takes to
/// start or stop.
pub const LAST_SESSION_GRACE: Duration = Duration::from_secs(10 * 60);

/// The kinds of account that the operator may read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccountKinds {
    /// Both.
    #[default]
    Both,
    /// `CloudAccounts` only: the operator has rights in some namespaces and none in the whole cluster.
    NamespacedOnly,
}

/// Why no object can use a `ClusterCloudAccount` under [`AccountKinds::NamespacedOnly`].
pub(super) const CLUSTER_ACCOUNTS_UNREADABLE: &str = "this operator may not read ClusterCloudAccounts; recreate this object with a CloudAccount in spec.accountRef, or ask the cluster's administrator for that right (rbac.clusterCloudAccounts in the chart)";

/// Why an object that is not being deleted cannot use an account that is.
pub(super) const TERMINATING: &str =
    "it is being deleted, and serves deletions only; create it again when it is gone";

/// One account in the directory.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) state: AccountState,
    /// What a check of the account must be about for its result to count.
    pub(super) spec: CredentialSpec,
    /// The last usable session, for deletions after the Secret was deleted: deleting a namespace deletes both at once.
    pub(super) last_usable: Option<Arc<AccountSession>>,
    /// Which objects may use the account.
    pub(super) grants: Grants,
    /// Calls per minute and region that the spec sets.
    pub(super) limits: BTreeMap<Action, u32>,
    /// Whether the account object is being deleted, and a finalizer keeps it: it serves deletions only.
    pub(super) terminating: bool,
    /// Since when the account cannot be used. From then on its last session serves deletions, for [`LAST_SESSION_GRACE`].
    pub(super) unusable_since: Option<Instant>,
    /// When the account object was deleted. After that the entry serves deletions only, for [`LAST_SESSION_GRACE`].
    pub(super) deleted_at: Option<Instant>,
}

impl Entry {
    /// The session for an object that may use the account; otherwise what there is instead. `is_known` is whether the object is being
    /// deleted, and has a record: one that the operator did not know while it had the key uses it no more.
    pub(super) fn session(&self, is_known: bool) -> Result<&Arc<AccountSession>, Access> {
        match (&self.state, &self.last_usable) {
            (AccountState::Ready(session), _) => Ok(session),
            // The deletion of a namespace may delete the Secret before the object.
            (AccountState::NotReady { .. }, Some(last_usable)) if is_known => Ok(last_usable),
            (AccountState::NotReady { stalled, message }, _) => Err(Access::NotReady {
                stalled: *stalled,
                message: message.clone(),
            }),
            (AccountState::Checking, _) => Err(Access::Checking),
        }
    }
}
