//! How far the scans have come, for the metrics. In memory only.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use k8s_openapi::jiff::Timestamp;

use crate::account::key::AccountKey;
use crate::ecs::Region;

/// The scan of one cloud account in one region.
#[derive(Debug)]
pub struct Progress {
    /// The region.
    pub region: Region,
    accounts: Mutex<BTreeSet<AccountKey>>,
    /// When all targets had been read last, in seconds since 1970.
    completed: AtomicI64,
}

impl Progress {
    /// Of a scan that begins now.
    #[must_use]
    pub fn new(region: Region, accounts: BTreeSet<AccountKey>, now: Timestamp) -> Self {
        Self {
            region,
            accounts: Mutex::new(accounts),
            completed: AtomicI64::new(now.as_second()),
        }
    }

    /// The accounts that it is for.
    pub fn accounts(&self) -> MutexGuard<'_, BTreeSet<AccountKey>> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All targets have been read.
    pub fn complete(&self, now: Timestamp) {
        self.completed.store(now.as_second(), Ordering::Relaxed);
    }

    /// When all targets had been read last, or the scans began: in seconds since 1970.
    #[must_use]
    pub fn completed(&self) -> i64 {
        self.completed.load(Ordering::Relaxed)
    }
}
