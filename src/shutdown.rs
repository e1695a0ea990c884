//! Tells every part whether it may begin anything: a standby may not yet, and a process that ends may not any more. Bounds how long
//! the end takes. Makes no call and writes nothing.
//!
//! From SIGTERM on, no step of a pass and no call to the cloud begins, and what waits for its turn gives up. What is under way
//! ends by itself within its own deadline. One thing may still begin: the write that records the answer of a Join or Leave, so
//! that the cluster knows of every membership that the operator made.
//!
//! The same holds from the moment at which a Lease can no longer be relied on, by this process's own clock: a process that was frozen
//! finds that it may begin nothing before any timer has told it so.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// How long calls that are under way may take to end: a Join or Leave (66 s), and a second to write its record. A record that
/// the API server does not take in this time is lost; the next process finds the claim on the object and reads the target anew.
pub const TIME_FOR_CALLS: Duration = Duration::from_secs(67);
/// How long the events that are queued then may take.
pub const TIME_FOR_EVENTS: Duration = Duration::from_secs(3);

/// The request to end, and whether the process may act before it. All clones share both.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    begun: CancellationToken,
    leads: CancellationToken,
    tenure: Arc<Mutex<Tenure>>,
}

/// When a process may act.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Tenure {
    /// It needs no Lease.
    #[default]
    Always,
    /// It has no Lease yet.
    Standby,
    /// It has a Lease that it may rely on until then.
    Until(Instant),
    /// It has given its Lease up.
    Over,
}

impl Shutdown {
    /// For a process that may act only while it has a Lease, and has none yet.
    #[must_use]
    pub fn standby() -> Self {
        let standby = Self::default();
        *standby.tenure() = Tenure::Standby;
        standby
    }

    /// The process may act until `end`, and begins to if it was a standby. Changes nothing after the Lease has ended or was given up:
    /// [`Self::may_have_successor`] says so.
    pub fn lead_until(&self, end: Instant) {
        let mut tenure = self.tenure();
        match *tenure {
            Tenure::Standby => {}
            Tenure::Until(before) if Instant::now() < before => {}
            Tenure::Always | Tenure::Until(_) | Tenure::Over => return,
        }
        *tenure = Tenure::Until(end);
        drop(tenure);
        self.leads.cancel();
    }

    /// The process gives its Lease up: from now on another one may act.
    pub fn give_up(&self) {
        let mut tenure = self.tenure();
        match *tenure {
            Tenure::Always => {}
            Tenure::Standby | Tenure::Until(_) | Tenure::Over => *tenure = Tenure::Over,
        }
    }

    /// Whether the process is no standby: it may act, or it could before it was asked to end.
    #[must_use]
    pub fn has_led(&self) -> bool {
        *self.tenure() != Tenure::Standby
    }

    /// Resolves when a standby begins to act; never for a process that needs no Lease.
    pub fn begins_to_lead(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        self.leads.clone().cancelled_owned()
    }

    /// Whether another process may act by now: the Lease has ended or was given up.
    #[must_use]
    pub fn may_have_successor(&self) -> bool {
        match *self.tenure() {
            Tenure::Always | Tenure::Standby => false,
            Tenure::Until(end) => Instant::now() >= end,
            Tenure::Over => true,
        }
    }

    /// Begins when `asked` resolves. Resolves [`TIME_FOR_CALLS`] (67 s) later: whatever is still under way is given up then.
    pub async fn begin_when(&self, asked: impl Future<Output = ()>) {
        asked.await;
        self.begun.cancel();
        tokio::time::sleep(TIME_FOR_CALLS).await;
    }

    /// Whether nothing may begin any more: the process was asked to end, or its Lease is over.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.begun.is_cancelled() || self.may_have_successor()
    }

    /// Resolves when the process is asked to end.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        self.begun.clone().cancelled_owned()
    }

    /// Waits for the turn of something that must not begin when the process ends: `None` then, even if the turn has come.
    pub async fn unless_begun<T>(&self, turn: impl Future<Output = T>) -> Option<T> {
        let turn = self.begun.run_until_cancelled(turn).await;
        turn.filter(|_| !self.has_begun())
    }

    fn tenure(&self) -> MutexGuard<'_, Tenure> {
        self.tenure.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;

    #[tokio::test(start_paused = true)]
    async fn turn_that_comes_with_or_after_the_request_is_not_taken() {
        let shutdown = Shutdown::default();
        assert_eq!(shutdown.unless_begun(async { 1 }).await, Some(1));
        let asks = async {
            shutdown.begun.cancel();
            2
        };
        assert_eq!(shutdown.unless_begun(asks).await, None);
        assert_eq!(shutdown.unless_begun(async { 3 }).await, None);
        let never = std::future::pending::<()>();
        assert_eq!(shutdown.unless_begun(never).await, None);
    }

    #[tokio::test(start_paused = true)]
    async fn shutdown_is_over_67_s_after_the_request() {
        let shutdown = Shutdown::default();
        let clone = shutdown.clone();
        let asked = tokio::time::sleep(Duration::from_secs(5));
        let start = Instant::now();
        let over = shutdown.begin_when(asked);
        assert_eq!(clone.begun().now_or_never(), None);
        let begun = async {
            clone.begun().await;
            start.elapsed().as_secs()
        };
        let ((), begun) = tokio::join!(over, begun);
        assert_eq!((begun, start.elapsed().as_secs()), (5, 72));
    }

    #[tokio::test(start_paused = true)]
    async fn lease_that_is_not_renewed_stops_what_begins_without_any_timer() {
        let second = Duration::from_secs(1);
        let shutdown = Shutdown::standby();
        let begins = shutdown.begins_to_lead();
        assert!(!shutdown.has_led() && !shutdown.may_have_successor());
        shutdown.lead_until(Instant::now() + second);
        assert_eq!(begins.now_or_never(), Some(()));
        assert!(shutdown.has_led());
        assert_eq!(shutdown.unless_begun(async { 1 }).await, Some(1));
        tokio::time::advance(second / 2).await;
        shutdown.lead_until(Instant::now() + second);
        tokio::time::advance(Duration::from_millis(999)).await;
        assert!(!shutdown.has_begun());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(shutdown.has_begun() && shutdown.may_have_successor());
        assert_eq!(shutdown.unless_begun(async { 2 }).await, None);
        // An answer that comes late brings nothing back.
        shutdown.lead_until(Instant::now() + second);
        assert!(shutdown.has_begun());
    }

    #[tokio::test(start_paused = true)]
    async fn lease_that_was_given_up_is_over() {
        let shutdown = Shutdown::standby();
        shutdown.lead_until(Instant::now() + Duration::from_secs(1));
        shutdown.give_up();
        shutdown.lead_until(Instant::now() + Duration::from_secs(1));
        assert!(shutdown.has_begun() && shutdown.may_have_successor());
        let alone = Shutdown::default();
        alone.give_up();
        assert!(alone.has_led() && !alone.has_begun());
        assert_eq!(alone.begins_to_lead().now_or_never(), None);
    }
}
