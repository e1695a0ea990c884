//! Bounds the passes in flight per account and region, so that a region that does not answer delays only its own objects,
//! and new objects come before ready ones. In memory only.
//!
//! A pass that finds no free slot does not wait as a task: its object is queued here and enqueued again when a slot is free.
//! kube's runner polls every pass in flight whenever one of them wakes, so thousands in flight cost more than their work.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use crate::account::key::AccountRegion;
use crate::api::SecurityGroupMembership;
use crate::ecs::MAX_IDS_PER_CALL;

use super::queue::ReconcileQueue;

/// Passes in flight per account and region: two full batches of reads (100 each) and some more.
const IN_FLIGHT: usize = 256;

/// A reserved slot that is not taken within this time is released.
const LATE: Duration = Duration::from_secs(5);

/// The slots and queues of all accounts and regions.
#[derive(Debug)]
pub struct Turns {
    queue: ReconcileQueue,
    account_regions: Mutex<HashMap<AccountRegion, Line>>,
}

#[derive(Debug, Default)]
struct Line {
    in_flight: usize,
    urgent: VecDeque<Arc<ObjectRef<SecurityGroupMembership>>>,
    routine: VecDeque<Arc<ObjectRef<SecurityGroupMembership>>>,
    waiting: HashSet<Arc<ObjectRef<SecurityGroupMembership>>>,
    /// Objects that have been enqueued and have a reserved slot, with the time of the reservation.
    called: HashMap<ObjectRef<SecurityGroupMembership>, Instant>,
}

/// A slot among the passes in flight; dropping it admits the next waiters.
#[derive(Debug)]
pub struct Turn {
    turns: Arc<Turns>,
    account_region: AccountRegion,
}

impl Turns {
    /// No passes in flight, no waiters.
    #[must_use]
    pub fn new(queue: ReconcileQueue) -> Self {
        Self {
            queue,
            account_regions: Mutex::default(),
        }
    }

    /// A slot for a pass over `object`; `None` if it must wait. A waiting object is enqueued again when its slot is
    /// reserved.
    #[must_use]
    pub fn enter(
        self: &Arc<Self>,
        account_region: AccountRegion,
        object: &ObjectRef<SecurityGroupMembership>,
        urgent: bool,
    ) -> Option<Turn> {
        let mut account_regions = self.lock();
        let line = account_regions.entry(account_region.clone()).or_default();
        let called = line.called.remove(object).is_some();
        // New arrivals queue even when a slot is free, because waiters are admitted in batches of 100.
        if !called && (line.free() == 0 || !line.waiting.is_empty()) {
            if !line.waiting.contains(object) {
                let object = Arc::new(object.clone());
                line.waiting.insert(Arc::clone(&object));
                let queue = if urgent {
                    &mut line.urgent
                } else {
                    &mut line.routine
                };
                queue.push_back(object);
            }
            return None;
        }
        line.in_flight += 1;
        Some(Turn {
            turns: Arc::clone(self),
            account_region,
        })
    }

    /// Admits waiters into free slots without waiting for a full batch. Run every second: recovers from hung passes and lost
    /// reservations. Costs nothing without waiters.
    pub fn call_the_waiting(&self) {
        let mut called = Vec::new();
        for line in self.lock().values_mut() {
            line.called.retain(|_, at| at.elapsed() < LATE);
            for _ in 0..line.free() {
                called.extend(line.next());
            }
        }
        self.enqueue(called);
    }

    fn leave(&self, account_region: &AccountRegion) {
        let mut called = Vec::new();
        let mut account_regions = self.lock();
        if let Some(line) = account_regions.get_mut(account_region) {
            line.in_flight -= 1;
            called = line.next_batch();
            if line.in_flight == 0 && line.waiting.is_empty() && line.called.is_empty() {
                account_regions.remove(account_region);
            }
        }
        drop(account_regions);
        self.enqueue(called);
    }

    fn enqueue(&self, objects: impl IntoIterator<Item = ObjectRef<SecurityGroupMembership>>) {
        for object in objects {
            self.queue.enqueue(&object);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AccountRegion, Line>> {
        self.account_regions
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Line {
    /// The waiters to admit now: a whole batch of 100 reads, or all that are left. Empty until there are free slots for all
    /// of them.
    fn next_batch(&mut self) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let batch = self.waiting.len().min(MAX_IDS_PER_CALL);
        if batch == 0 || self.free() < batch {
            return Vec::new();
        }
        (0..batch).filter_map(|_| self.next()).collect()
    }

    fn next(&mut self) -> Option<ObjectRef<SecurityGroupMembership>> {
        let object = self
            .urgent
            .pop_front()
            .or_else(|| self.routine.pop_front())?;
        self.waiting.remove(&object);
        let object = Arc::unwrap_or_clone(object);
        self.called.insert(object.clone(), Instant::now());
        Some(object)
    }

    fn free(&self) -> usize {
        IN_FLIGHT.saturating_sub(self.in_flight + self.called.len())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.leave(&self.account_region);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};

    use super::*;
    use crate::account::key::AccountKey;
    use crate::api::membership::AccountKind;
    use crate::kubernetes::WatchScope;

    fn account_region(region: &str) -> AccountRegion {
        let account = AccountKey {
            kind: AccountKind::ClusterCloudAccount,
            namespace: String::new(),
            name: "default".to_owned(),
        };
        let region = region.parse().unwrap();
        AccountRegion { account, region }
    }

    fn object(name: &str) -> ObjectRef<SecurityGroupMembership> {
        ObjectRef::new(name).within("default")
    }

    #[test]
    fn full_region_delays_no_other_and_admits_urgent_first() {
        let (queue, mut queues) = ReconcileQueue::new(&[WatchScope::All]);
        let turns = Arc::new(Turns::new(queue));
        let mut held: Vec<Turn> = (0..IN_FLIGHT)
            .map(|n| {
                turns
                    .enter(account_region("cn-hangzhou"), &object(&n.to_string()), true)
                    .unwrap()
            })
            .collect();
        assert!(
            turns
                .enter(account_region("cn-hangzhou"), &object("settled"), false)
                .is_none()
        );
        assert!(
            turns
                .enter(account_region("cn-hangzhou"), &object("fresh"), true)
                .is_none()
        );
        assert!(
            turns
                .enter(account_region("cn-hangzhou"), &object("fresh"), true)
                .is_none(),
            "asked twice"
        );
        assert!(
            turns
                .enter(account_region("cn-beijing"), &object("other"), true)
                .is_some()
        );
        let queue = &mut queues[0];
        assert!(
            queue.next().now_or_never().is_none(),
            "no waiting object is called while it is full"
        );
        held.truncate(IN_FLIGHT - 1);
        assert!(
            queue.next().now_or_never().is_none(),
            "two wait, and are called together"
        );
        held.truncate(IN_FLIGHT - 2);
        let called: Vec<String> = std::iter::from_fn(|| queue.next().now_or_never().flatten())
            .map(|object| object.name)
            .collect();
        assert_eq!(called, ["fresh", "settled"]);
        // Their slots are reserved: new arrivals cannot take them.
        assert!(
            turns
                .enter(account_region("cn-hangzhou"), &object("newcomer"), true)
                .is_none()
        );
        assert!(
            turns
                .enter(account_region("cn-hangzhou"), &object("settled"), false)
                .is_some()
        );
    }

    fn full(turns: &Arc<Turns>) -> Vec<Turn> {
        (0..IN_FLIGHT)
            .map(|n| {
                turns
                    .enter(account_region("cn-hangzhou"), &object(&n.to_string()), true)
                    .unwrap()
            })
            .collect()
    }

    #[tokio::test(start_paused = true)]
    async fn late_waiter_loses_its_slot_to_the_next() {
        let (queue, mut queues) = ReconcileQueue::new(&[WatchScope::All]);
        let turns = Arc::new(Turns::new(queue));
        let mut held = full(&turns);
        let mut called = || queues[0].next().now_or_never().flatten().map(|at| at.name);
        let enter = |name: &str| turns.enter(account_region("cn-hangzhou"), &object(name), true);
        assert!(enter("gone").is_none());
        held.pop();
        assert_eq!(called().as_deref(), Some("gone"));
        assert!(enter("next").is_none(), "the place is kept");
        tokio::time::advance(LATE.checked_sub(Duration::from_millis(1)).unwrap()).await;
        turns.call_the_waiting();
        assert_eq!(called(), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        turns.call_the_waiting();
        assert_eq!(called().as_deref(), Some("next"));
        let _held = enter("next").unwrap();
        assert!(enter("one too many").is_none());
    }

    #[test]
    fn region_queue_is_dropped_when_no_slot_is_held() {
        let (queue, _queues) = ReconcileQueue::new(&[WatchScope::All]);
        let turns = Arc::new(Turns::new(queue));
        let mut held = full(&turns);
        held.truncate(IN_FLIGHT - 1);
        let again = turns.enter(account_region("cn-hangzhou"), &object("again"), true);
        assert!(again.is_some());
        let waits = turns.enter(account_region("cn-hangzhou"), &object("waits"), true);
        assert!(waits.is_none());
        drop(held);
        drop(again);
        drop(turns.enter(account_region("cn-hangzhou"), &object("waits"), true));
        assert!(turns.lock().is_empty());
    }
}
