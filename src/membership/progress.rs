//! How far the scans have come, for the metrics. In memory only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;

use crate::account::key::AccountKey;
use crate::ecs::Region;

/// The scan of one cloud account in one region.
#[derive(Debug)]
pub struct Progress {
    /// The region.
    pub region: Region,
    accounts: Mutex<BTreeMap<AccountKey, i64>>,
}

impl Progress {
    /// Of a scan that begins now.
    #[must_use]
    pub fn new(region: Region, accounts: BTreeSet<AccountKey>, now: Timestamp) -> Self {
        let progress = Self {
            region,
            accounts: Mutex::default(),
        };
        progress.set_accounts(accounts, now);
        progress
    }

    /// The accounts that it is for from now on.
    pub fn set_accounts(&self, accounts: BTreeSet<AccountKey>, now: Timestamp) {
        let mut known = self.accounts();
        known.retain(|account, _| accounts.contains(account));
        for account in accounts {
            known.entry(account).or_insert(now.as_second());
        }
    }

    /// The accounts that it is for, and when all targets of each had been read last, or its scans began: in seconds since 1970.
    pub fn accounts(&self) -> MutexGuard<'_, BTreeMap<AccountKey, i64>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All targets of this account have been read.
    pub fn complete(&self, account: &AccountKey, now: Timestamp) {
        if let Some(completed) = self.accounts().get_mut(account) {
            *completed = now.as_second();
        }
    }
}
