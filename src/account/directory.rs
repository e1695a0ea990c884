//! The directory of accounts for the passes: usability, grants, client. In memory only.

mod access;
mod all;
mod entry;
pub mod grants;
pub mod group_tags;
mod holding;
mod limits;
mod signals;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{ObjectRef, Store};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::api::account::GrantedAction;
use crate::api::membership::AccountKind;
use crate::ecs::{AccountUid, Action, Region, SecurityGroupId};

use self::entry::{CLUSTER_ACCOUNTS_UNREADABLE, Entry, TERMINATING};
use self::grants::{Granted, Use, granted};
use self::group_tags::{GroupTags, Groups, TagsUnread};
use super::key::{AccountKey, AccountRegion, CloudAccountId, CredentialSpec};
use super::session::AccountSession;
use super::uses::Uses;

pub use self::access::{Access, AccessRequest};
pub use self::entry::{AccountKinds, AccountState, LAST_SESSION_GRACE, News};
pub use self::grants::{Grants, TargetTags};

/// All accounts, by the key that objects name.
pub struct Directory {
    entries: Mutex<HashMap<AccountKey, Entry>>,
    namespaces: Store<PartialObjectMeta<Namespace>>,
    kinds: AccountKinds,
    /// The tags of groups, for grants by tags.
    pub group_tags: Groups,
    uses: watch::Sender<Option<Uses>>,
    /// Changes when the cloud has refused a key.
    refusals: watch::Sender<u64>,
}

impl Directory {
    /// An empty directory that reads the labels of namespaces from `namespaces`.
    #[must_use]
    pub fn new(namespaces: Store<PartialObjectMeta<Namespace>>) -> Self {
        Self {
            entries: Mutex::default(),
            namespaces,
            kinds: AccountKinds::default(),
            group_tags: Groups::default(),
            uses: watch::channel(None).0,
            refusals: watch::channel(0).0,
        }
    }

    /// The same, with the kinds of account that the operator may read.
    #[must_use]
    pub fn serving(self, kinds: AccountKinds) -> Self {
        Self { kinds, ..self }
    }

    /// Whether an object may use the account that it names.
    #[must_use]
    pub fn resolve(&self, request: AccessRequest<'_>) -> Access {
        let AccessRequest {
            account,
            namespace,
            region,
            group,
            claimed_uid,
            action,
            deleting,
            recorded,
        } = request;
        match (self.kinds, account.kind) {
            (AccountKinds::NamespacedOnly, AccountKind::ClusterCloudAccount) => {
                return Access::NotReady {
                    stalled: true,
                    message: CLUSTER_ACCOUNTS_UNREADABLE.to_owned(),
                };
            }
            (AccountKinds::NamespacedOnly, AccountKind::CloudAccount) | (AccountKinds::Both, _) => {
            }
        }
        let entries = self.lock();
        let Some(entry) = entries
            .get(account)
            .filter(|entry| deleting || entry.deleted_at.is_none())
        else {
            return Access::Missing;
        };
        // First: an object without a grant learns nothing else of the account.
        let granted = action.map_or(Granted::Yes, |action| {
            self.granted(&entry.grants, (namespace, group, action), || {
                self.group_tags.ask(&account_region(account, region), group)
            })
        });
        if granted == Granted::No && entry.grants != Grants::Unknown {
            return Access::NotGranted;
        }
        if entry.terminating && !deleting {
            return Access::NotReady {
                stalled: true,
                message: TERMINATING.to_owned(),
            };
        }
        let session = match entry.session(deleting && recorded) {
            Ok(session) => session,
            Err(access) => return access,
        };
        if let Some(claimed) = claimed_uid
            && *claimed != session.uid
        {
            return Access::Changed {
                uid: session.uid.clone(),
                claimed: claimed.clone(),
            };
        }
        access_to(session, granted)
    }

    /// The session of the account, if it can be used now.
    #[must_use]
    pub fn usable(&self, key: &AccountKey) -> Option<Arc<AccountSession>> {
        match &self.lock().get(key)?.state {
            AccountState::Ready(account) => Some(Arc::clone(account)),
            AccountState::Checking | AccountState::NotReady { .. } => None,
        }
    }

    /// The last session of the account that was usable.
    #[must_use]
    pub fn last_usable(&self, key: &AccountKey) -> Option<Arc<AccountSession>> {
        self.lock().get(key)?.last_usable.clone()
    }

    /// Inserts or updates an account that no check is about. Returns whether anything changed.
    pub fn upsert(&self, key: &AccountKey, grants: Grants) -> bool {
        self.upsert_as(key, &CredentialSpec::default(), grants, false)
    }

    /// Inserts or updates an account. Grants take effect immediately, but with other credentials only after their check: what is granted
    /// with them must not be used with the former ones. `terminating` says whether the account is being deleted. Returns whether
    /// grants or that have changed: the end of a check tells of the credentials.
    pub fn upsert_as(
        &self,
        key: &AccountKey,
        spec: &CredentialSpec,
        grants: Grants,
        terminating: bool,
    ) -> bool {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else {
            let entry = Entry {
                state: AccountState::Checking,
                spec: spec.clone(),
                last_usable: None,
                grants,
                limits: BTreeMap::new(),
                terminating,
                unusable_since: None,
                deleted_at: None,
            };
            entries.insert(key.clone(), entry);
            return true;
        };
        if entry.spec != *spec {
            entry.spec = spec.clone();
            if matches!(entry.state, AccountState::Ready(_)) {
                entry.state = AccountState::Checking;
                entry.unusable_since = Some(Instant::now());
            }
        }
        if entry.grants == grants && entry.terminating == terminating && entry.deleted_at.is_none()
        {
            return false;
        }
        if entry.deleted_at.take().is_some() {
            entry.state = AccountState::Checking;
        }
        if entry.grants != grants {
            self.group_tags.let_go(key);
        }
        entry.grants = grants;
        entry.terminating = terminating;
        true
    }

    /// Whether checks of the account are about this.
    pub(super) fn has_spec(&self, key: &AccountKey, spec: &CredentialSpec) -> bool {
        let entries = self.lock();
        entries.get(key).is_some_and(|entry| entry.spec == *spec)
    }

    /// Stores the limits that the spec of an account sets, in calls per minute and region. They count at once, and are no news to
    /// objects.
    pub fn set_limits(&self, key: &AccountKey, wanted: BTreeMap<Action, u32>) {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(key) else {
            return;
        };
        if entry.limits != wanted {
            entry.limits = wanted;
            limits::apply(&entries);
        }
    }

    /// Stores the state of an account that no check is about. Returns what has changed.
    pub fn set_state(&self, key: &AccountKey, state: AccountState) -> News {
        self.set_checked(key, &CredentialSpec::default(), state)
    }

    /// Stores the result of a check about `spec`. Returns what has changed. Ignored for an account that was deleted or got other
    /// credentials in the meantime. The session of an account stays while its cloud account and endpoints do: it only signs with the
    /// new key.
    pub fn set_checked(
        &self,
        key: &AccountKey,
        spec: &CredentialSpec,
        mut state: AccountState,
    ) -> News {
        let mut entries = self.lock();
        let Some(entry) = entries
            .get_mut(key)
            .filter(|entry| entry.deleted_at.is_none() && entry.spec == *spec)
        else {
            return News::None;
        };
        let news = match (&entry.state, &state) {
            (
                AccountState::NotReady { stalled, message },
                AccountState::NotReady {
                    stalled: now_stalled,
                    message: new_message,
                },
            ) if stalled == now_stalled && message == new_message => News::None,
            (AccountState::Ready(old), AccountState::Ready(new))
                if old.has_cloud_of(new) && !old.is_suspect() =>
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
        if let AccountState::Ready(session) = &mut state {
            match &entry.last_usable {
                Some(last) if last.has_cloud_of(session) => {
                    last.sign_as(session);
                    *session = Arc::clone(last);
                }
                Some(_) | None => {
                    // What is known of the groups is known of those of another cloud account.
                    self.group_tags.forget(key);
                    entry.last_usable = Some(Arc::clone(session));
                }
            }
        }
        entry.unusable_since = match &state {
            AccountState::Ready(_) => None,
            AccountState::Checking | AccountState::NotReady { .. } => {
                entry.unusable_since.or_else(|| Some(Instant::now()))
            }
        };
        entry.state = state;
        // Before the first call of a session.
        limits::apply(&entries);
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

    /// Drops accounts, with their credentials, that were deleted at least [`LAST_SESSION_GRACE`] ago, and the last session of those
    /// that could not be used for so long.
    pub fn evict_expired(&self) {
        let is_over = |since: Instant| since.elapsed() >= LAST_SESSION_GRACE;
        let mut entries = self.lock();
        entries.retain(|_, entry| {
            if entry.unusable_since.is_some_and(is_over) {
                entry.last_usable = None;
            }
            !entry.deleted_at.is_some_and(is_over)
        });
        limits::apply(&entries);
    }

    /// Whether the account exists.
    #[must_use]
    pub fn knows(&self, key: &AccountKey) -> bool {
        let entries = self.lock();
        entries.get(key).is_some_and(|one| one.deleted_at.is_none())
    }

    /// The cloud account and the endpoints of its calls, if the account is or was usable.
    #[must_use]
    pub fn cloud(&self, key: &AccountKey) -> Option<Arc<CloudAccountId>> {
        let entries = self.lock();
        let session = entries.get(key)?.last_usable.as_ref()?;
        Some(Arc::clone(&session.limits().id))
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

    fn granted(
        &self,
        grants: &Grants,
        (namespace, group, action): (&str, &SecurityGroupId, GrantedAction),
        group_tags: impl FnOnce() -> GroupTags,
    ) -> Granted {
        match grants {
            Grants::OwnNamespace => Granted::Yes,
            Grants::Unknown => Granted::No,
            Grants::Listed(grants) => {
                let known = self.namespaces.get(&ObjectRef::new(namespace));
                let unlabelled = BTreeMap::new();
                let labels = known
                    .as_ref()
                    .map(|known| known.metadata.labels.as_ref().unwrap_or(&unlabelled));
                let wanted = Use {
                    namespace,
                    labels,
                    group,
                    action,
                };
                granted(grants, wanted, group_tags)
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountKey, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the grants let an object do with a session.
fn access_to(session: &Arc<AccountSession>, granted: Granted) -> Access {
    match granted {
        Granted::No => Access::NotGranted,
        Granted::Yes => Access::Usable(Arc::clone(session)),
        Granted::Tagged(tags) => Access::UsableForTags(Arc::clone(session), tags),
        Granted::Unread => Access::Checking,
        Granted::Unreadable(TagsUnread { stalled, message }) => {
            Access::NotReady { stalled, message }
        }
    }
}

fn account_region(account: &AccountKey, region: &Region) -> AccountRegion {
    AccountRegion {
        account: account.clone(),
        region: region.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::limiters::CloudLimits;
    use crate::api::membership::AccountKind;
    use crate::ecs::{Client, Credential, Endpoints, TestTransport};

    fn group(text: &str) -> SecurityGroupId {
        text.parse().unwrap()
    }

    fn key() -> AccountKey {
        AccountKey {
            kind: AccountKind::ClusterCloudAccount,
            namespace: String::new(),
            name: "default".to_owned(),
        }
    }

    #[test]
    fn account_problem_counts_as_new_only_when_it_changes() {
        let directory = Directory::new(kube::runtime::reflector::store().0);
        let key = key();
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

    fn session(uid: &str) -> Arc<AccountSession> {
        let credential = Credential::new("LTAI4", "secret-of-the-key", None).unwrap();
        let endpoints = Endpoints::parse(None, None, false).unwrap();
        let client = Client::new(Arc::<TestTransport>::default(), credential, endpoints);
        let session = AccountSession::new(
            client,
            CloudLimits::of_test(uid),
            Arc::default(),
            Arc::default(),
            crate::shutdown::Shutdown::default(),
        );
        Arc::new(session)
    }

    /// What the directory answers to an object in the namespace `web`, and what it tells users. `claimed` is in its claim.
    fn answer(directory: &Directory, claimed: Option<&str>, deleting: bool) -> (String, String) {
        let claimed = claimed.map(AccountUid::from);
        let request = AccessRequest {
            account: &key(),
            namespace: "web",
            region: &"cn-hangzhou".parse().unwrap(),
            group: &group("sg-1"),
            claimed_uid: claimed.as_ref(),
            action: Some(GrantedAction::Join),
            deleting,
            recorded: claimed.is_some(),
        };
        let access = directory.resolve(request);
        let problem = access.problem(request);
        let name = match access {
            Access::Usable(session) => format!("usable {}", session.uid),
            Access::UsableForTags(session, _) => format!("usable for tags {}", session.uid),
            Access::Missing => "missing".to_owned(),
            Access::NotReady { stalled, .. } => format!("not ready {stalled}"),
            Access::Changed { .. } => "changed".to_owned(),
            Access::NotGranted => "not granted".to_owned(),
            Access::Checking => "checking".to_owned(),
        };
        (name, problem)
    }

    #[test]
    fn access_follows_existence_then_grant_then_check_then_claim() {
        let directory = Directory::new(kube::runtime::reflector::store().0);
        let key = key();
        let told = |claimed, deleting, name: &str, problem: &str| {
            let expected = (name.to_owned(), problem.to_owned());
            assert_eq!(answer(&directory, claimed, deleting), expected);
        };
        let missing = "ClusterCloudAccount default does not exist; create it, or recreate this object with another spec.accountRef";
        told(None, false, "missing", missing);
        let missing = "ClusterCloudAccount default does not exist; create it";
        told(None, true, "missing", missing);
        directory.upsert(&key, Grants::Listed(Vec::new()));
        let not_granted = "no grant of ClusterCloudAccount default lets namespace web use sg-1; ask the account's administrator to add a grant in spec.grants";
        told(Some("1"), false, "not granted", not_granted);
        directory.upsert(&key, Grants::OwnNamespace);
        told(Some("1"), true, "checking", "");
        let not_ready = |stalled| AccountState::NotReady {
            stalled,
            message: "no Secret".to_owned(),
        };
        directory.set_state(&key, not_ready(true));
        let no_secret = "ClusterCloudAccount default is not ready: no Secret";
        told(Some("1"), true, "not ready true", no_secret);
        directory.set_state(&key, AccountState::Ready(session("1")));
        let changed = "ClusterCloudAccount default now belongs to cloud account 1, but this membership was created with cloud account 2; restore its credentials";
        told(Some("2"), false, "changed", changed);
        let granted_uid = || {
            let place = (&"cn-hangzhou".parse().unwrap(), &group("sg-1"));
            directory.granted_uid(&key, "web", place, false)
        };
        assert_eq!(granted_uid(), Some("1".into()));
        directory.upsert(&key, Grants::Listed(Vec::new()));
        assert_eq!(granted_uid(), None);
        told(Some("1"), false, "not granted", not_granted);
        directory.upsert(&key, Grants::OwnNamespace);
        told(Some("1"), false, "usable 1", "");
        told(None, true, "usable 1", "");
        // Deletions of objects with a record keep the last session that was usable, when the Secret is gone and when the account is.
        directory.set_state(&key, not_ready(false));
        told(Some("1"), false, "not ready false", no_secret);
        told(Some("1"), true, "usable 1", "");
        told(None, true, "not ready false", no_secret);
        directory.forget(&key);
        let missing = "ClusterCloudAccount default does not exist; create it, or recreate this object with another spec.accountRef";
        told(None, false, "missing", missing);
        told(Some("1"), true, "usable 1", "");
        let gone = "ClusterCloudAccount default is not ready: ClusterCloudAccount default does not exist any more";
        told(None, true, "not ready true", gone);
        assert_eq!(granted_uid(), Some("1".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn last_session_serves_deletions_for_ten_minutes_after_the_key_is_gone() {
        let directory = Directory::new(kube::runtime::reflector::store().0);
        directory.upsert(&key(), Grants::OwnNamespace);
        let gone = |message: &str| {
            let message = message.to_owned();
            let stalled = true;
            directory.set_state(&key(), AccountState::NotReady { stalled, message })
        };
        let told = |name: &str| assert_eq!(answer(&directory, Some("1"), true).0, name);
        directory.set_state(&key(), AccountState::Ready(session("1")));
        tokio::time::advance(LAST_SESSION_GRACE * 2).await;
        directory.evict_expired();
        told("usable 1");
        gone("no Secret");
        tokio::time::advance(LAST_SESSION_GRACE / 2).await;
        gone("still no Secret");
        directory.evict_expired();
        told("usable 1");
        tokio::time::advance(LAST_SESSION_GRACE / 2).await;
        directory.evict_expired();
        told("not ready true");
        directory.set_state(&key(), AccountState::Ready(session("1")));
        told("usable 1");
    }
}
