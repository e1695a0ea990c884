//! How often the operator has repaired each edge: an edge that other actors remove again and again is in a repair loop. In memory
//! only: no I/O, no decisions.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::ecs::{AccountUid, Edge};

use super::decide::{REPAIR_LIMIT, REPAIR_WINDOW_MINUTES};

/// Repairs are counted over this time (30 minutes).
const WINDOW: Duration = Duration::from_secs(REPAIR_WINDOW_MINUTES * 60);
/// In a repair loop, one repair is allowed per this period (1 hour).
const LOOP_PERIOD: Duration = Duration::from_secs(60 * 60);

/// The repairs by cloud account and edge, whichever object asked for them.
#[derive(Debug, Default)]
pub struct Repairs {
    by_edge: HashMap<(AccountUid, Edge), EdgeRepairs>,
}

#[derive(Debug, Default)]
struct EdgeRepairs {
    at: Vec<Instant>,
    /// When the next repair is allowed; set only in a repair loop.
    next: Option<Instant>,
}

impl EdgeRepairs {
    fn is_over(&self) -> bool {
        let last = self.at.last();
        let is_old = last.is_none_or(|at| at.elapsed() >= WINDOW);
        is_old && self.next.is_none_or(|next| next.elapsed() >= LOOP_PERIOD)
    }
}

impl Repairs {
    /// Number of repairs in the last `REPAIR_WINDOW_MINUTES`, compared by the caller with `REPAIR_LIMIT`. In a repair loop:
    /// 0 when the next repair is allowed (one per hour), else `REPAIR_LIMIT`.
    pub fn count(&mut self, account: &AccountUid, edge: &Edge) -> usize {
        let Some(repairs) = self.by_edge.get_mut(&(account.clone(), edge.clone())) else {
            return 0;
        };
        if let Some(next) = repairs.next {
            let allowed = Instant::now() >= next;
            return if allowed { 0 } else { REPAIR_LIMIT };
        }
        repairs.at.retain(|at| at.elapsed() < WINDOW);
        repairs.at.len()
    }

    /// Number of edges in a repair loop.
    #[must_use]
    pub fn loops(&self) -> usize {
        let edges = self.by_edge.values();
        edges.filter(|repairs| repairs.next.is_some()).count()
    }

    /// Records a repair. In a repair loop it also starts the next wait of `LOOP_PERIOD`.
    pub fn repaired(&mut self, account: &AccountUid, edge: &Edge) {
        let key = (account.clone(), edge.clone());
        let repairs = self.by_edge.entry(key).or_default();
        let now = Instant::now();
        repairs.at.push(now);
        if let Some(next) = &mut repairs.next {
            *next = now + LOOP_PERIOD;
        }
    }

    /// The edge is in a repair loop. Returns when its next repair is allowed.
    pub fn next(&mut self, account: &AccountUid, edge: &Edge) -> Instant {
        let key = (account.clone(), edge.clone());
        let repairs = self.by_edge.entry(key).or_default();
        *repairs
            .next
            .get_or_insert_with(|| Instant::now() + LOOP_PERIOD)
    }

    /// The edge is in place, or is not to be repaired. Ends a repair loop whose last repair is `LOOP_PERIOD` old.
    pub fn leave_loop(&mut self, account: &AccountUid, edge: &Edge) {
        let key = (account.clone(), edge.clone());
        let next = self.by_edge.get(&key).and_then(|repairs| repairs.next);
        if next.is_some_and(|next| next <= Instant::now()) {
            self.by_edge.remove(&key);
        }
    }

    /// A user asks for the next repair. Ends a repair loop.
    pub fn end_loop(&mut self, account: &AccountUid, edge: &Edge) {
        let key = (account.clone(), edge.clone());
        if self
            .by_edge
            .get(&key)
            .is_some_and(|repairs| repairs.next.is_some())
        {
            self.by_edge.remove(&key);
        }
    }

    /// The status says that the edge was in a repair loop when the last process ended: it still is.
    pub fn resume_loop(&mut self, account: &AccountUid, edge: &Edge) {
        let key = (account.clone(), edge.clone());
        self.by_edge.entry(key).or_insert_with(|| EdgeRepairs {
            at: Vec::new(),
            next: Some(Instant::now() + LOOP_PERIOD),
        });
    }

    /// Drops what counts no more.
    pub fn drop_old(&mut self) {
        self.by_edge.retain(|_, repairs| !repairs.is_over());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn account() -> AccountUid {
        "1".into()
    }

    fn edge() -> Edge {
        Edge {
            region: "cn-hangzhou".parse().unwrap(),
            target: crate::ecs::Target::Instance("i-1".parse().unwrap()),
            group: "sg-1".parse().unwrap(),
        }
    }

    fn count(repairs: &mut Repairs) -> usize {
        repairs.count(&account(), &edge())
    }

    fn repair(repairs: &mut Repairs, times: usize) {
        for _ in 0..times {
            repairs.repaired(&account(), &edge());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn repairs_count_for_half_an_hour() {
        let mut repairs = Repairs::default();
        repair(&mut repairs, 2);
        assert_eq!(count(&mut repairs), 2);
        assert_eq!(repairs.count(&"2".into(), &edge()), 0, "another account");
        tokio::time::advance(Duration::from_secs(30 * 60 - 1)).await;
        repairs.drop_old();
        assert_eq!(count(&mut repairs), 2);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(count(&mut repairs), 0);
        repairs.drop_old();
        assert!(repairs.by_edge.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn repair_loop_allows_one_repair_per_hour() {
        let mut repairs = Repairs::default();
        repair(&mut repairs, REPAIR_LIMIT);
        assert_eq!(count(&mut repairs), REPAIR_LIMIT);
        let next = repairs.next(&account(), &edge());
        assert_eq!(next, Instant::now() + LOOP_PERIOD);
        tokio::time::advance(59 * MINUTE).await;
        repairs.drop_old();
        assert_eq!(
            count(&mut repairs),
            REPAIR_LIMIT,
            "the window alone does not end the loop"
        );
        tokio::time::advance(2 * MINUTE).await;
        assert_eq!(count(&mut repairs), 0);
        repair(&mut repairs, 1);
        assert_eq!(count(&mut repairs), REPAIR_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn edge_stable_for_a_period_ends_its_repair_loop() {
        let mut repairs = Repairs::default();
        repair(&mut repairs, REPAIR_LIMIT);
        let _ = repairs.next(&account(), &edge());
        repairs.leave_loop(&account(), &edge());
        assert_eq!(count(&mut repairs), REPAIR_LIMIT, "it has not stayed yet");
        tokio::time::advance(LOOP_PERIOD).await;
        repair(&mut repairs, 1);
        tokio::time::advance(LOOP_PERIOD).await;
        repairs.leave_loop(&account(), &edge());
        repair(&mut repairs, 1);
        assert_eq!(count(&mut repairs), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn user_ends_a_loop_and_a_restart_does_not() {
        let mut repairs = Repairs::default();
        repairs.resume_loop(&account(), &edge());
        assert_eq!(count(&mut repairs), REPAIR_LIMIT);
        repairs.end_loop(&account(), &edge());
        assert_eq!(count(&mut repairs), 0);
        repair(&mut repairs, 1);
        repairs.end_loop(&account(), &edge());
        repairs.resume_loop(&account(), &edge());
        assert_eq!(count(&mut repairs), 1, "what this process knows counts");
    }

    #[tokio::test(start_paused = true)]
    async fn loop_of_an_edge_without_an_object_is_dropped() {
        let mut repairs = Repairs::default();
        let _ = repairs.next(&account(), &edge());
        tokio::time::advance(Duration::from_secs(2 * 60 * 60 - 1)).await;
        repairs.drop_old();
        assert!(!repairs.by_edge.is_empty());
        tokio::time::advance(Duration::from_secs(1)).await;
        repairs.drop_old();
        assert!(repairs.by_edge.is_empty());
    }
}
