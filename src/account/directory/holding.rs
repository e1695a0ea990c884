//! Whether an object may hold an edge, as far as its account tells: for the passes of the other objects on the edge. In memory only.

use crate::api::account::GrantedAction;
use crate::ecs::{AccountUid, Region, SecurityGroupId};

use super::super::key::AccountKey;
use super::entry::{AccountState, Entry};
use super::grants::Granted;
use super::{Directory, account_region};

impl Directory {
    /// UID of the cloud account, if the account is or was usable, and a grant lets objects in `namespace` join `group`. `if_tagged`
    /// is the answer where that depends on the tags of the target, or on unknown ones of the group.
    #[must_use]
    pub fn granted_uid(
        &self,
        key: &AccountKey,
        namespace: &str,
        (region, group): (&Region, &SecurityGroupId),
        if_tagged: bool,
    ) -> Option<AccountUid> {
        let entries = self.lock();
        let entry = entries.get(key)?;
        let session = entry.last_usable.as_ref()?;
        let is_granted = self.lets_join(entry, key, namespace, (region, group), if_tagged);
        is_granted.then(|| session.uid.clone())
    }

    /// Whether [`Self::granted_uid`] may have an answer as soon as the first check of the account has ended.
    #[must_use]
    pub fn is_checking(
        &self,
        key: &AccountKey,
        namespace: &str,
        (region, group): (&Region, &SecurityGroupId),
        if_tagged: bool,
    ) -> bool {
        let entries = self.lock();
        entries.get(key).is_some_and(|entry| {
            matches!(entry.state, AccountState::Checking)
                && entry.last_usable.is_none()
                && self.lets_join(entry, key, namespace, (region, group), if_tagged)
        })
    }

    fn lets_join(
        &self,
        entry: &Entry,
        key: &AccountKey,
        namespace: &str,
        (region, group): (&Region, &SecurityGroupId),
        if_tagged: bool,
    ) -> bool {
        let wanted = (namespace, group, GrantedAction::Join);
        let granted = self.granted(&entry.grants, wanted, || {
            self.group_tags.peek(&account_region(key, region), group)
        });
        match granted {
            Granted::No => false,
            Granted::Yes => true,
            Granted::Tagged(_) | Granted::Unread | Granted::Unreadable(_) => if_tagged,
        }
    }
}
