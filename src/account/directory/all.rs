//! All accounts at once. In memory only.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::key::AccountKey;
use super::super::session::AccountSession;
use super::Directory;
use super::entry::{AccountState, Entry};

impl Directory {
    /// Every account that exists.
    #[must_use]
    pub fn keys(&self) -> Vec<AccountKey> {
        self.lock()
            .iter()
            .filter(|(_, entry)| entry.deleted_at.is_none())
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Every account that exists, and whether it can be used.
    #[must_use]
    pub fn readiness(&self) -> Vec<(AccountKey, bool)> {
        let entries = self.lock();
        let existing = entries.iter().filter(|(_, one)| one.deleted_at.is_none());
        let is_ready = |one: &Entry| matches!(one.state, AccountState::Ready(_));
        existing
            .map(|(key, one)| (key.clone(), is_ready(one)))
            .collect()
    }

    /// The session of each account that is or was usable.
    #[must_use]
    pub fn sessions(&self) -> HashMap<AccountKey, Arc<AccountSession>> {
        let entries = self.lock();
        let usable = entries.iter().filter_map(|(key, entry)| {
            Some((key.clone(), Arc::clone(entry.last_usable.as_ref()?)))
        });
        usable.collect()
    }
}
