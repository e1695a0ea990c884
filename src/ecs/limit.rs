//! What keeps one account's calls inside its means: a bound on calls in flight per region, and a stop per (region, action)
//! after the cloud has said `Throttling`. In memory; makes no call itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::{Action, Region};

/// Calls in flight per account and region.
const IN_FLIGHT: usize = 32;
/// Longest stop taken from an answer: Alibaba Cloud counts in windows of one minute, so more is nonsense.
const LONGEST_STOP: Duration = Duration::from_secs(60);

/// The gate before every call of one account.
#[derive(Debug, Default)]
pub struct Gate {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    regions: HashMap<Region, Arc<Semaphore>>,
    stops: HashMap<(Region, Action), Instant>,
}

impl Gate {
    /// A place among the calls in flight to `region`; give it back by dropping it.
    ///
    /// # Errors
    /// The moment from which `action` may be called again, while the cloud throttles it. Waiting is the caller's requeue,
    /// not a blocked task.
    pub async fn enter(
        &self,
        region: &Region,
        action: Action,
    ) -> Result<OwnedSemaphorePermit, Instant> {
        let places = {
            let mut inner = self.lock();
            if let Some(until) = inner.stopped_until(region, action) {
                return Err(until);
            }
            Arc::clone(
                inner
                    .regions
                    .entry(region.clone())
                    .or_insert_with(|| Arc::new(Semaphore::new(IN_FLIGHT))),
            )
        };
        let Ok(permit) = places.acquire_owned().await else {
            unreachable!("the semaphore is never closed");
        };
        // The stop may have come while this call waited for its place.
        match self.lock().stopped_until(region, action) {
            Some(until) => Err(until),
            None => Ok(permit),
        }
    }

    /// Stops `action` in `region` for `wait`, at most a minute.
    pub fn stop(&self, region: &Region, action: Action, wait: Duration) {
        let until = Instant::now() + wait.min(LONGEST_STOP);
        self.lock().stops.insert((region.clone(), action), until);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn stopped_until(&mut self, region: &Region, action: Action) -> Option<Instant> {
        let key = (region.clone(), action);
        let until = *self.stops.get(&key)?;
        if until > Instant::now() {
            Some(until)
        } else {
            self.stops.remove(&key);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(text: &str) -> Region {
        text.parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_stop_holds_its_action_in_its_region_and_nothing_else() {
        let gate = Gate::default();
        gate.stop(
            &region("cn-hangzhou"),
            Action::JoinSecurityGroup,
            Duration::from_secs(20),
        );
        assert!(
            gate.enter(&region("cn-hangzhou"), Action::JoinSecurityGroup)
                .await
                .is_err()
        );
        assert!(
            gate.enter(&region("cn-hangzhou"), Action::LeaveSecurityGroup)
                .await
                .is_ok()
        );
        assert!(
            gate.enter(&region("cn-beijing"), Action::JoinSecurityGroup)
                .await
                .is_ok()
        );
        tokio::time::advance(Duration::from_secs(21)).await;
        assert!(
            gate.enter(&region("cn-hangzhou"), Action::JoinSecurityGroup)
                .await
                .is_ok()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_nonsense_wait_is_a_minute_at_most() {
        let gate = Gate::default();
        gate.stop(
            &region("cn-hangzhou"),
            Action::JoinSecurityGroup,
            Duration::MAX,
        );
        tokio::time::advance(Duration::from_secs(61)).await;
        assert!(
            gate.enter(&region("cn-hangzhou"), Action::JoinSecurityGroup)
                .await
                .is_ok()
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_region_takes_only_its_own_places() {
        let gate = Gate::default();
        let mut held = Vec::new();
        for _ in 0..IN_FLIGHT {
            held.push(
                gate.enter(&region("cn-hangzhou"), Action::JoinSecurityGroup)
                    .await
                    .unwrap(),
            );
        }
        let silent = region("cn-hangzhou");
        let waiting = gate.enter(&silent, Action::JoinSecurityGroup);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), waiting)
                .await
                .is_err()
        );
        assert!(
            gate.enter(&region("cn-beijing"), Action::JoinSecurityGroup)
                .await
                .is_ok()
        );
    }
}
