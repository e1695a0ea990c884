//! Keeps one account's calls within the cloud's limits: a bound on calls in flight per region, and one [`WindowLimiter`] per
//! region and action. In memory; makes no call.
//!
//! There are two kinds of waits. A rate limit never blocks: the caller gets the time to ask again. A free slot among the 32
//! calls in flight is awaited, without a time limit of its own: each call has a deadline and frees its slot.

mod minute;
pub mod window;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

pub use self::window::Priority;
use self::window::{CallOutcome, WINDOW, WindowLimiter};
use super::{Action, Error, Region};
use crate::clock::Clock;

/// Calls in flight per account and region.
const MAX_CALLS_IN_FLIGHT: usize = 32;

/// The limiter for all calls of one account.
#[derive(Debug, Default)]
pub struct CallLimiter {
    inner: Mutex<Inner>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Inner {
    regions: HashMap<Region, RegionLimits>,
    /// Calls per minute and region, as the accounts set them.
    configured: BTreeMap<Action, u32>,
}

/// The limits of one region.
#[derive(Debug)]
struct RegionLimits {
    slots: Arc<Semaphore>,
    windows: HashMap<Action, WindowLimiter>,
    last_used: Instant,
}

impl CallLimiter {
    /// A limiter without known limits.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            inner: Mutex::default(),
            clock,
        }
    }

    /// Sets the limits of the accounts, in calls per minute and region. The limits of the other actions are learned only.
    pub fn configure(&self, limits: &BTreeMap<Action, u32>) {
        let mut inner = self.lock();
        if inner.configured == *limits {
            return;
        }
        let now = Instant::now();
        for region in inner.regions.values_mut() {
            for (action, window) in &mut region.windows {
                window.configure(now, limits.get(action).copied());
            }
        }
        inner.configured.clone_from(limits);
    }

    /// Waits for a slot among the calls in flight to `region`, then asks the rate limit of `action`.
    ///
    /// # Errors
    /// The rate limit admits no call now: the time to ask again.
    pub async fn enter(
        &self,
        region: &Region,
        action: Action,
        priority: Priority,
    ) -> Result<CallSlot, Instant> {
        // Checked first, so that no caller waits for a slot while calls are stopped.
        let now = Instant::now();
        {
            let mut inner = self.lock();
            let window = inner.window(region, action);
            if window.stopped(now).is_some() {
                window.admit(now, priority)?;
            }
        }
        let permit = self.free_slot(region).await;
        let mut inner = self.lock();
        let admitted = Instant::now();
        inner.window(region, action).admit(admitted, priority)?;
        Ok(CallSlot { permit, admitted })
    }

    /// Begins a call that has a slot, just before it is sent. A call may have waited since it was admitted, and counts in the minute in
    /// which it is sent.
    ///
    /// # Errors
    /// The rate limit does not admit it any more: the time to ask again.
    pub fn begin(&self, region: &Region, action: Action, slot: &CallSlot) -> Result<(), Instant> {
        let mut inner = self.lock();
        inner
            .window(region, action)
            .begin(Instant::now(), slot.admitted)
    }

    /// Admits one call of a pass, to be made soon. Dropping the reservation gives it back.
    ///
    /// # Errors
    /// The rate limit admits no call now: the time to ask again.
    pub fn reserve(
        self: &Arc<Self>,
        region: &Region,
        action: Action,
    ) -> Result<Reservation, Instant> {
        let mut inner = self.lock();
        let window = inner.window(region, action);
        let admitted = Instant::now();
        window.admit(admitted, Priority::Pass)?;
        Ok(Reservation {
            limiter: Arc::clone(self),
            region: region.clone(),
            action,
            window_end: window.window_end(),
            admitted,
            is_used: false,
        })
    }

    /// When the next call of a pass is admitted; not later than now if it is admitted at once.
    #[must_use]
    pub fn next(&self, region: &Region, action: Action) -> Instant {
        self.lock()
            .window(region, action)
            .next(Instant::now(), Priority::Pass)
    }

    async fn free_slot(&self, region: &Region) -> OwnedSemaphorePermit {
        let slots = self.lock().slots(region);
        match slots.acquire_owned().await {
            Ok(permit) => permit,
            Err(_) => unreachable!("the semaphore is never closed"),
        }
    }

    /// Updates the limit of `action` with the result of a call; `None` is a success.
    pub fn note(&self, region: &Region, action: Action, error: Option<&Error>) {
        let outcome = match error {
            Some(error) if error.class() == super::Class::Throttled => CallOutcome::Throttled {
                retry_after: error.retry_after(),
                limit: error.limit(),
            },
            Some(_) | None => CallOutcome::Admitted,
        };
        self.lock().window(region, action).note(
            Instant::now(),
            outcome,
            to_next_minute(self.clock.now()),
        );
    }

    /// Forgets the regions for which `keep` is false, a minute after their last call: until then their limit and the calls in
    /// flight count for the objects that may name them next.
    pub fn retain_regions(&self, keep: impl Fn(&Region) -> bool) {
        let now = Instant::now();
        self.lock().regions.retain(|region, state| {
            keep(region)
                || state.slots.available_permits() < MAX_CALLS_IN_FLIGHT
                || now.saturating_duration_since(state.last_used) < WINDOW
        });
    }

    /// The known limits in calls per minute.
    #[must_use]
    pub fn limits(&self) -> Vec<(Region, Action, f64)> {
        let inner = self.lock();
        let regions = inner.regions.iter();
        let windows = regions.flat_map(|(region, state)| {
            let windows = state.windows.iter();
            windows.map(move |(action, window)| (region.clone(), *action, window.limit()))
        });
        let known = windows.filter_map(|(region, action, limit)| Some((region, action, limit?)));
        known.collect()
    }

    /// Number of regions that are remembered.
    #[must_use]
    pub fn regions(&self) -> usize {
        self.lock().regions.len()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One call that the rate limit has admitted and that was not made yet.
#[derive(Debug)]
pub struct Reservation {
    limiter: Arc<CallLimiter>,
    region: Region,
    action: Action,
    window_end: Instant,
    admitted: Instant,
    is_used: bool,
}

/// A slot among the calls in flight, for a call that the rate limit has admitted. Dropping it frees the slot.
#[derive(Debug)]
pub struct CallSlot {
    #[expect(dead_code, reason = "held until the call has ended")]
    permit: OwnedSemaphorePermit,
    admitted: Instant,
}

impl Reservation {
    /// The action that may be called.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// Waits for a slot among the calls in flight.
    ///
    /// # Errors
    /// The cloud has throttled the action meanwhile: the time to ask again.
    pub async fn enter(mut self) -> Result<CallSlot, Instant> {
        let permit = self.limiter.free_slot(&self.region).await;
        let mut inner = self.limiter.lock();
        if let Some(until) = inner
            .window(&self.region, self.action)
            .stopped(Instant::now())
        {
            return Err(until);
        }
        drop(inner);
        self.is_used = true;
        Ok(CallSlot {
            permit,
            admitted: self.admitted,
        })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if !self.is_used {
            let mut inner = self.limiter.lock();
            inner.window(&self.region, self.action).give_back(
                Instant::now(),
                self.window_end,
                self.admitted,
            );
        }
    }
}

impl Inner {
    fn slots(&mut self, region: &Region) -> Arc<Semaphore> {
        Arc::clone(&self.region(region).slots)
    }

    fn window(&mut self, region: &Region, action: Action) -> &mut WindowLimiter {
        let configured = self.configured.get(&action).copied();
        let windows = &mut self.region(region).windows;
        windows.entry(action).or_insert_with(|| {
            let now = Instant::now();
            let mut window = WindowLimiter::new(now);
            window.configure(now, configured);
            window
        })
    }

    fn region(&mut self, region: &Region) -> &mut RegionLimits {
        let now = Instant::now();
        let state = self
            .regions
            .entry(region.clone())
            .or_insert_with(|| RegionLimits {
                slots: Arc::new(Semaphore::new(MAX_CALLS_IN_FLIGHT)),
                windows: HashMap::new(),
                last_used: now,
            });
        state.last_used = now;
        state
    }
}

/// Time until the cloud's window ends by our own clock, for answers that do not name it.
fn to_next_minute(now: Timestamp) -> Duration {
    Duration::from_secs(60 - now.as_second().rem_euclid(60).unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ecs::ApiError;

    fn region(text: &str) -> Region {
        text.parse().unwrap()
    }

    fn throttled() -> Error {
        Error::Api(ApiError {
            retry_after: Some(Duration::from_secs(20)),
            limit: Some(600),
            ..ApiError::of(Action::JoinSecurityGroup, 400, "Throttling.User")
        })
    }

    async fn enters(limiter: &CallLimiter, text: &str, action: Action) -> bool {
        limiter
            .enter(&region(text), action, Priority::Pass)
            .await
            .is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn throttle_stops_only_its_action_and_region() {
        let limiter = CallLimiter::default();
        limiter.note(
            &region("cn-hangzhou"),
            Action::JoinSecurityGroup,
            Some(&throttled()),
        );
        assert!(!enters(&limiter, "cn-hangzhou", Action::JoinSecurityGroup).await);
        assert!(enters(&limiter, "cn-hangzhou", Action::LeaveSecurityGroup).await);
        assert!(enters(&limiter, "cn-beijing", Action::JoinSecurityGroup).await);
        tokio::time::advance(Duration::from_secs(21)).await;
        assert!(enters(&limiter, "cn-hangzhou", Action::JoinSecurityGroup).await);
    }

    #[tokio::test(start_paused = true)]
    async fn only_throttle_errors_stop_calls() {
        let limiter = CallLimiter::default();
        let region = region("cn-hangzhou");
        let action = Action::JoinSecurityGroup;
        let mut error = match throttled() {
            Error::Api(error) => error,
            other => unreachable!("{other}"),
        };
        error.code = "InternalError".to_owned();
        limiter.note(&region, action, Some(&Error::Api(error)));
        limiter.note(&region, action, None);
        assert!(enters(&limiter, "cn-hangzhou", action).await);
    }

    #[tokio::test(start_paused = true)]
    async fn throttle_without_delay_stops_until_the_minute_ends() {
        let at_second_17 = Timestamp::from_second(60 * 29_000_000 + 17).unwrap();
        let limiter = CallLimiter::new(Clock::simulated(at_second_17, 1));
        let region = region("cn-hangzhou");
        let mut error = match throttled() {
            Error::Api(error) => error,
            other => unreachable!("{other}"),
        };
        error.retry_after = None;
        let start = Instant::now();
        limiter.note(&region, Action::JoinSecurityGroup, Some(&Error::Api(error)));
        let until = limiter
            .enter(&region, Action::JoinSecurityGroup, Priority::Pass)
            .await
            .unwrap_err();
        assert_eq!(until - start, Duration::from_secs(43));
    }

    #[test]
    fn minute_ends_by_wall_clock() {
        let rest = |second| to_next_minute(Timestamp::from_second(second).unwrap()).as_secs();
        assert_eq!((rest(0), rest(1), rest(59), rest(60)), (60, 59, 1, 60));
        assert_eq!((rest(-1), rest(-60)), (1, 60), "a clock before 1970");
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_region_uses_only_its_own_slots() {
        let limiter = CallLimiter::default();
        let silent = region("cn-hangzhou");
        let mut held = Vec::new();
        for _ in 0..MAX_CALLS_IN_FLIGHT {
            held.push(
                limiter
                    .enter(&silent, Action::JoinSecurityGroup, Priority::Pass)
                    .await
                    .unwrap(),
            );
        }
        let waiting = limiter.enter(&silent, Action::JoinSecurityGroup, Priority::Pass);
        assert!(
            tokio::time::timeout(Duration::from_secs(1), waiting)
                .await
                .is_err()
        );
        assert!(enters(&limiter, "cn-beijing", Action::JoinSecurityGroup).await);
    }
}
