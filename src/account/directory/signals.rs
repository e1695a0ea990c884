//! What the controllers of the accounts wait for: who uses an account, and refused keys. In memory only.

use tokio::sync::watch;

use super::super::key::AccountKey;
use super::super::uses::{AccountUse, Uses};
use super::Directory;

impl Directory {
    /// Stores who uses each account. Only a process that has listed all memberships knows it.
    pub fn set_uses(&self, uses: Uses) {
        self.uses.send_if_modified(|before| {
            let is_other = before.as_ref() != Some(&uses);
            *before = Some(uses);
            is_other
        });
    }

    /// Has the accounts whose key the cloud has refused read their Secrets again.
    pub fn read_secrets_again(&self) {
        self.refusals
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Changes whenever the cloud has refused a key.
    #[must_use]
    pub fn refusals(&self) -> watch::Receiver<u64> {
        self.refusals.subscribe()
    }

    /// Who uses an account, if it is known.
    #[must_use]
    pub fn use_of(&self, account: &AccountKey) -> Option<AccountUse> {
        self.uses.borrow().as_ref()?.of(account)
    }

    /// Who uses each account, from now on; `None` until it is known.
    #[must_use]
    pub fn uses(&self) -> watch::Receiver<Option<Uses>> {
        self.uses.subscribe()
    }
}
