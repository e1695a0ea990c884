//! One lock per target: passes over the same target run one after the other. In memory only.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::ecs::{AccountUid, Edge, Region, Target};

/// The locks of the targets that passes run over or wait for.
#[derive(Debug, Default)]
pub struct Locks {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    held: HashMap<Key, Weak<tokio::sync::Mutex<()>>>,
    /// Number of entries at which unused locks are dropped.
    limit: usize,
}

/// UID of the cloud account (`None` if unknown) and the target.
type Key = (Option<AccountUid>, Region, Target);

impl Locks {
    /// The lock to hold while a pass runs. Claims need one pass at a time per edge. Calls need one per target, because the
    /// cloud rejects two concurrent changes of a target (409 `InvalidOperation.Conflict`). Targets of other cloud accounts
    /// have locks of their own, so that no account waits for the calls of another.
    #[must_use]
    pub fn of(&self, account_uid: Option<AccountUid>, edge: &Edge) -> Arc<tokio::sync::Mutex<()>> {
        self.inner
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .of((account_uid, edge.region.clone(), edge.target.clone()))
    }
}

impl Inner {
    fn of(&mut self, key: Key) -> Arc<tokio::sync::Mutex<()>> {
        if let Some(lock) = self.held.get(&key).and_then(Weak::upgrade) {
            return lock;
        }
        if self.held.len() >= self.limit {
            self.held.retain(|_, lock| lock.strong_count() > 0);
            self.limit = (2 * self.held.len()).max(64);
        }
        let lock = Arc::new(tokio::sync::Mutex::new(()));
        self.held.insert(key, Arc::downgrade(&lock));
        lock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(number: usize) -> Edge {
        Edge {
            region: "cn-hangzhou".parse().unwrap(),
            target: Target::Instance(format!("i-{number}").parse().unwrap()),
            group: "sg-1".parse().unwrap(),
        }
    }

    #[tokio::test]
    async fn each_target_of_an_account_has_one_lock() {
        let locks = Locks::default();
        let lock = locks.of(None, &edge(0));
        let held = lock.lock().await;
        // Unused locks are dropped, held ones stay.
        for number in 1..1_000 {
            assert!(locks.of(None, &edge(number)).try_lock().is_ok());
        }
        let other_group = Edge {
            group: "sg-2".parse().unwrap(),
            ..edge(0)
        };
        assert!(locks.of(None, &other_group).try_lock().is_err());
        let elsewhere = locks.of(Some("1".into()), &edge(0));
        assert!(elsewhere.try_lock().is_ok());
        drop(held);
        assert!(locks.of(None, &edge(0)).try_lock().is_ok());
    }

    #[test]
    fn unused_locks_are_dropped_when_their_number_doubles() {
        let key = |number: usize| (None, edge(number).region, edge(number).target);
        let mut locks = Inner::default();
        for number in 0..1_000 {
            drop(locks.of(key(number)));
            assert!(locks.held.len() <= 64, "{number}");
        }
        let mut locks = Inner::default();
        let held: Vec<_> = (0..129).map(|number| locks.of(key(number))).collect();
        assert_eq!((locks.held.len(), locks.limit), (held.len(), 256));
    }
}
