//! Which memberships use an account: the number that its status says, and whether it must stay. Pure.

use std::collections::HashMap;

use crate::api::membership::AccountKind;

use super::key::AccountKey;

/// Who uses an account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountUse {
    /// Memberships that name it.
    pub memberships: usize,
    /// Those that the operator joined, and removes when they are deleted.
    pub joined: usize,
}

/// Who uses each account, as far as this process sees all memberships that can name it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// The accounts that memberships name.
    pub by_account: HashMap<AccountKey, AccountUse>,
    /// Whether the memberships of all namespaces are watched. Otherwise nothing is known of the cluster kind.
    pub of_all_namespaces: bool,
}

impl Uses {
    /// Who uses this account; `None` if others may use it, too.
    #[must_use]
    pub fn of(&self, account: &AccountKey) -> Option<AccountUse> {
        match account.kind {
            AccountKind::ClusterCloudAccount if !self.of_all_namespaces => None,
            AccountKind::ClusterCloudAccount | AccountKind::CloudAccount => {
                Some(self.by_account.get(account).copied().unwrap_or_default())
            }
        }
    }
}
