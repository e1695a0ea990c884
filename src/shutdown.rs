//! Tells every part that the process ends, and bounds how long that takes. Makes no call and writes nothing.
//!
//! From SIGTERM on, no step of a pass and no call to the cloud begins, and what waits for its turn gives up. What is under way
//! ends by itself within its own deadline. One thing may still begin: the write that records the answer of a Join or Leave, so
//! that the cluster knows of every membership that the operator made.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

/// How long calls that are under way may take to end: a Join or Leave (66 s), and a second to write its record. A record that
/// the API server does not take in this time is lost; the next process finds the claim on the object and reads the target anew.
pub const TIME_FOR_CALLS: Duration = Duration::from_secs(67);
/// How long the events that are queued then may take.
pub const TIME_FOR_EVENTS: Duration = Duration::from_secs(3);

/// The request to end. All clones share it.
#[derive(Clone, Debug, Default)]
pub struct Shutdown(CancellationToken);

impl Shutdown {
    /// Begins when `asked` resolves. Resolves [`TIME_FOR_CALLS`] (67 s) later: whatever is still under way is given up then.
    pub async fn begin_when(&self, asked: impl Future<Output = ()>) {
        asked.await;
        self.0.cancel();
        tokio::time::sleep(TIME_FOR_CALLS).await;
    }

    /// Whether the process was asked to end.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.is_cancelled()
    }

    /// Resolves when the process is asked to end.
    pub fn begun(&self) -> impl Future<Output = ()> + Send + Sync + use<> {
        self.0.clone().cancelled_owned()
    }

    /// Waits for the turn of something that must not begin when the process ends: `None` then, even if the turn has come.
    pub async fn unless_begun<T>(&self, turn: impl Future<Output = T>) -> Option<T> {
        let turn = self.0.run_until_cancelled(turn).await;
        turn.filter(|_| !self.has_begun())
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn turn_that_comes_with_or_after_the_request_is_not_taken() {
        let shutdown = Shutdown::default();
        assert_eq!(shutdown.unless_begun(async { 1 }).await, Some(1));
        let asks = async {
            shutdown.0.cancel();
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
}
