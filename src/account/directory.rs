//! The directory of accounts for the passes: usability, grants, client. In memory only.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::time::Instant;

use crate::api::account::Grant;
use crate::ecs::{AccountUid, SecurityGroupId};

use super::key::AccountKey;
use super::session::AccountSession;

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

/// Which objects may use an account, and for which groups.
#[derive(Clone, Debug, PartialEq)]
pub enum Grants {
    /// Every object that can name the account: the namespaced kind.
    OwnNamespace,
    /// The grants listed in the spec of the cluster kind.
    Listed(Vec<Grant>),
}

/// What may change whom an object may call as.
#[derive(Debug)]
pub enum Change {
    /// The usability or the grants of an account, or whether it exists.
    Account(AccountKey),
    /// The access key of an account that goes on being usable.
    Key(AccountKey),
    /// The labels of a namespace, which grants select.
    NamespaceLabels(String),
}

/// How long a deleted account still serves deletions (10 minutes). Longer than a target takes to start or stop.
pub const DELETED_ACCOUNT_GRACE: Duration = Duration::from_secs(10 * 60);

/// One account in the directory.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Whether the account can be used.
    pub state: AccountState,
    /// The last usable session, for deletions after the Secret was deleted: deleting a namespace deletes both at once.
    pub last_usable: Option<Arc<AccountSession>>,
    /// Which objects may use the account.
    pub grants: Grants,
    /// When the account object was deleted. After that the entry serves deletions only, for [`DELETED_ACCOUNT_GRACE`].
    pub deleted_at: Option<Instant>,
}

/// All accounts, by the key that objects name.
pub struct Directory {
    entries: Mutex<HashMap<AccountKey, Entry>>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
}

impl Directory {
    /// An empty directory that reads the labels of namespaces from `namespaces`.
    #[must_use]
    pub fn new(namespaces: Store<PartialObjectMeta<Namespace>>) -> Self {
        Self {
            entries: Mutex::default(),
            namespaces,
        }
    }

    /// The entry of this account; `None` if there is no such object.
    #[must_use]
    pub fn look_up(&self, key: &AccountKey) -> Option<Entry> {
        self.lock().get(key).cloned()
    }

    /// The session of the account, if it can be used now.
    #[must_use]
    pub fn usable(&self, key: &AccountKey) -> Option<Arc<AccountSession>> {
        match self.look_up(key)?.state {
            AccountState::Ready(account) => Some(account),
            AccountState::Checking | AccountState::NotReady { .. } => None,
        }
    }

    /// Inserts or updates an account. Grants take effect immediately, usability after the credential check. Returns whether
    /// anything changed.
    pub fn upsert(&self, key: &AccountKey, grants: Grants) -> bool {
        let mut entries = self.lock();
        match entries.get_mut(key) {
            Some(entry) if entry.grants == grants && entry.deleted_at.is_none() => false,
            Some(entry) => {
                if entry.deleted_at.take().is_some() {
                    entry.state = AccountState::Checking;
                }
                entry.grants = grants;
                true
            }
            None => {
                entries.insert(
                    key.clone(),
                    Entry {
                        state: AccountState::Checking,
                        last_usable: None,
                        grants,
                        deleted_at: None,
                    },
                );
                true
            }
        }
    }

    /// Stores the result of a credential check. Returns what has changed. Ignored for an account that was deleted in the
    /// meantime.
    pub fn set_state(&self, key: &AccountKey, state: AccountState) -> News {
        let mut entries = self.lock();
        let Some(entry) = entries
            .get_mut(key)
            .filter(|entry| entry.deleted_at.is_none())
        else {
            return News::None;
        };
        if let AccountState::Ready(account) = &state {
            entry.last_usable = Some(Arc::clone(account));
        }
        let news = match (&entry.state, &state) {
            (
                AccountState::NotReady { stalled, message },
                AccountState::NotReady {
                    stalled: now_stalled,
                    message: new_message,
                },
            ) if stalled == now_stalled && message == new_message => News::None,
            (AccountState::Ready(old), AccountState::Ready(new))
                if old.uid == new.uid && !old.is_suspect() =>
            {
                if new.has_key_of(old) {
                    News::None
                } else {
                    News::Key
                }
            }
            (
                AccountState::Checking | AccountState::Ready(_) | AccountState::NotReady { .. },
                _,
            ) => News::State,
        };
        entry.state = state;
        news
    }

    /// Removes a deleted account. One that was usable stays for deletions: deleting a namespace deletes accounts, Secrets
    /// and memberships in any order, and so does `kubectl delete -f` of a directory with all of them.
    pub fn forget(&self, key: &AccountKey) {
        let mut entries = self.lock();
        match entries.get_mut(key) {
            Some(entry) if entry.last_usable.is_some() => {
                entry.deleted_at = Some(Instant::now());
                entry.state = AccountState::NotReady {
                    stalled: true,
                    message: format!("{key} does not exist any more"),
                };
            }
            Some(_) | None => {
                entries.remove(key);
            }
        }
    }

    /// Drops accounts, with their credentials, that were deleted at least [`DELETED_ACCOUNT_GRACE`] ago.
    pub fn evict_expired(&self) {
        self.lock().retain(|_, entry| {
            entry
                .deleted_at
                .is_none_or(|since| since.elapsed() < DELETED_ACCOUNT_GRACE)
        });
    }

    /// Every account that exists.
    #[must_use]
    pub fn keys(&self) -> Vec<AccountKey> {
        self.lock()
            .iter()
            .filter(|(_, entry)| entry.deleted_at.is_none())
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// UID of the cloud account, if the account is or was usable.
    #[must_use]
    pub fn uid(&self, key: &AccountKey) -> Option<AccountUid> {
        self.lock()
            .get(key)?
            .last_usable
            .as_ref()
            .map(|account| account.uid.clone())
    }

    /// Whether an object in `namespace` may use the account for `group`.
    #[must_use]
    pub fn granted(&self, entry: &Entry, namespace: &str, group: &SecurityGroupId) -> bool {
        match &entry.grants {
            Grants::OwnNamespace => true,
            Grants::Listed(grants) => {
                let labels = self.namespace_labels(namespace);
                grants
                    .iter()
                    .any(|grant| covers(grant, namespace, labels.as_ref(), group))
            }
        }
    }

    fn namespace_labels(&self, namespace: &str) -> Option<BTreeMap<String, String>> {
        let namespace = self.namespaces.get(&ObjectRef::new(namespace))?;
        Some(namespace.metadata.labels.clone().unwrap_or_default())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one grant covers this use. `false` for a selector if the labels of the namespace are unknown.
fn covers(
    grant: &Grant,
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
    group: &SecurityGroupId,
) -> bool {
    let group_granted = grant
        .security_groups
        .ids
        .iter()
        .any(|granted| granted == "*" || granted == group.as_str());
    let named = grant
        .namespaces
        .names
        .as_ref()
        .is_some_and(|names| names.iter().any(|name| name == namespace));
    let selected = grant
        .namespaces
        .selector
        .as_ref()
        .zip(labels)
        .is_some_and(|(selector, labels)| selector.matches(labels));
    group_granted && (named || selected)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::account::{GrantedNamespaces, GrantedSecurityGroups};
    use crate::api::membership::AccountKind;

    fn grant(yaml: &str) -> Grant {
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn group(text: &str) -> SecurityGroupId {
        text.parse().unwrap()
    }

    #[test]
    fn account_problem_counts_as_new_only_when_it_changes() {
        let directory = Directory::new(kube::runtime::reflector::store().0);
        let key = AccountKey {
            kind: AccountKind::ClusterCloudAccount,
            namespace: String::new(),
            name: "default".to_owned(),
        };
        let trouble = |stalled, message: &str| {
            let message = message.to_owned();
            directory.set_state(&key, AccountState::NotReady { stalled, message })
        };
        let changed = News::State;
        assert_eq!(trouble(false, "a"), News::None, "there is no such account");
        assert!(directory.upsert(&key, Grants::OwnNamespace));
        assert_eq!(directory.keys(), std::slice::from_ref(&key));
        assert_eq!(trouble(false, "a"), changed);
        assert_eq!(trouble(false, "a"), News::None);
        assert_eq!(trouble(false, "b"), changed);
        assert_eq!(trouble(true, "b"), changed);
        directory.forget(&key);
        assert_eq!(directory.keys(), []);
    }

    #[test]
    fn grant_by_name_covers_only_its_namespaces_and_groups() {
        let grant = grant("{name: web, namespaces: {names: [web]}, securityGroups: {ids: [sg-1]}}");
        assert!(covers(&grant, "web", None, &group("sg-1")));
        assert!(!covers(&grant, "web", None, &group("sg-2")));
        assert!(!covers(&grant, "other", None, &group("sg-1")));
    }

    #[test]
    fn grant_by_label_needs_matching_known_labels() {
        let grant = grant(
            "{name: web, namespaces: {selector: {matchLabels: {team: web}}}, securityGroups: {ids: ['*']}}",
        );
        let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
        assert!(covers(&grant, "a", Some(&labels("web")), &group("sg-1")));
        assert!(!covers(&grant, "a", Some(&labels("db")), &group("sg-1")));
        assert!(!covers(&grant, "a", None, &group("sg-1")));
    }

    #[test]
    fn grant_by_expression_matches_like_kubernetes() {
        for (expression, here, elsewhere, unlabelled) in [
            (
                "{key: team, operator: In, values: [web, db]}",
                true,
                false,
                false,
            ),
            (
                "{key: team, operator: NotIn, values: [web]}",
                false,
                true,
                true,
            ),
            ("{key: team, operator: NotIn}", false, false, false),
            ("{key: team, operator: In}", false, false, false),
            ("{key: team, operator: Exists}", true, true, false),
            ("{key: team, operator: DoesNotExist}", false, false, true),
        ] {
            let grant = grant(&format!(
                "{{name: web, namespaces: {{selector: {{matchExpressions: [{expression}]}}}}, securityGroups: {{ids: ['*']}}}}"
            ));
            let labels = |team: &str| BTreeMap::from([("team".to_owned(), team.to_owned())]);
            let covered = |labels| covers(&grant, "a", Some(&labels), &group("sg-1"));
            assert_eq!(covered(labels("web")), here, "{expression}");
            assert_eq!(covered(labels("mail")), elsewhere, "{expression}");
            assert_eq!(covered(BTreeMap::new()), unlabelled, "{expression}");
        }
    }

    #[test]
    fn empty_grant_covers_nothing() {
        let grant = Grant {
            namespaces: GrantedNamespaces::default(),
            name: "missing".to_owned(),
            security_groups: GrantedSecurityGroups {
                ids: vec!["*".to_owned()],
            },
        };
        assert!(!covers(&grant, "a", Some(&BTreeMap::new()), &group("sg-1")));
    }
}
