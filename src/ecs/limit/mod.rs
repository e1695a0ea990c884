//! Keeps one account's calls within the cloud's limits: a bound on calls in flight per region, and a bound on young calls and one
//! [`WindowLimiter`] per region and action. In memory; makes no call.
//!
//! There are two kinds of waits. A rate limit never blocks: the caller gets the time to ask again. A place among the young calls and
//! a slot among the 32 calls in flight are awaited, without a time limit of their own: a call is soon no longer young, and each call
//! has a deadline and frees its slot.

mod minute;
pub mod window;

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
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
/// How long a call is young. When calls meet a limit for the first time, the cloud rejects those in flight, so few quick ones may be. Slow
/// ones hold up no others: 5 places for 250 ms each are 1,200 calls a minute.
const YOUNG: Duration = Duration::from_millis(250);
/// Young calls per account, region and action, at first.
const FEWEST_YOUNG: usize = 5;
/// One more call may be young for each hundred that were begun in one minute: one in a hundred is rejected then.
const CALLS_PER_YOUNG: usize = 100;

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
    actions: HashMap<Action, ActionLimits>,
    last_used: Instant,
}

/// The limits of one action.
#[derive(Debug)]
struct ActionLimits {
    /// Free places among the young calls.
    young: Arc<Semaphore>,
    /// All of these places. It only grows: a limit that was met is kept by the pace of `window`.
    places: usize,
    window: WindowLimiter,
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
            for (action, state) in &mut region.actions {
                state.window.configure(now, limits.get(action).copied());
            }
        }
        inner.configured.clone_from(limits);
    }

    /// Waits until a call of `action` may be sent to `region` beside those in flight, then asks its rate limit.
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
        let slot = self.free_slot(region, action).await;
        let mut inner = self.lock();
        inner
            .action(region, action)
            .admit(slot.admitted, priority)?;
        Ok(slot)
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
        let state = inner.action(region, action);
        let admitted = Instant::now();
        state.admit(admitted, Priority::Pass)?;
        Ok(Reservation {
            limiter: Arc::clone(self),
            region: region.clone(),
            action,
            window_end: state.window.window_end(),
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

    async fn free_slot(&self, region: &Region, action: Action) -> CallSlot {
        let young = Arc::clone(&self.lock().action(region, action).young);
        let young = permit(young).await;
        let slots = Arc::clone(&self.lock().region(region).slots);
        CallSlot {
            permit: permit(slots).await,
            young: Some(young),
            admitted: Instant::now(),
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
            let actions = state.actions.iter();
            actions.map(move |(action, state)| (region.clone(), *action, state.window.limit()))
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
    /// Held while the call is young.
    young: Option<OwnedSemaphorePermit>,
    admitted: Instant,
}

impl CallSlot {
    /// Awaits the call, or what comes before it. The next call of the action may begin as soon as this one has ended or is no longer young.
    pub async fn hold<T>(&mut self, call: impl Future<Output = T>) -> T {
        let mut call = pin!(call);
        if self.young.is_some() {
            if let Ok(result) = tokio::time::timeout(YOUNG, &mut call).await {
                return result;
            }
            self.young = None;
        }
        call.await
    }
}

impl Reservation {
    /// The action that may be called.
    #[must_use]
    pub fn action(&self) -> Action {
        self.action
    }

    /// Waits until the call may be sent beside those in flight.
    ///
    /// # Errors
    /// The cloud has throttled the action meanwhile: the time to ask again.
    pub async fn enter(mut self) -> Result<CallSlot, Instant> {
        let mut slot = self.limiter.free_slot(&self.region, self.action).await;
        let mut inner = self.limiter.lock();
        if let Some(until) = inner
            .window(&self.region, self.action)
            .stopped(Instant::now())
        {
            return Err(until);
        }
        drop(inner);
        self.is_used = true;
        slot.admitted = self.admitted;
        Ok(slot)
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

impl ActionLimits {
    fn new(configured: Option<u32>) -> Self {
        let now = Instant::now();
        let mut window = WindowLimiter::new(now);
        window.configure(now, configured);
        Self {
            young: Arc::new(Semaphore::new(FEWEST_YOUNG)),
            places: FEWEST_YOUNG,
            window,
        }
    }

    /// Admits a call or returns when to ask again. After many in this minute more calls may be young.
    fn admit(&mut self, now: Instant, priority: Priority) -> Result<(), Instant> {
        self.window.admit(now, priority)?;
        let places = (self.window.used() / CALLS_PER_YOUNG).min(MAX_CALLS_IN_FLIGHT);
        let more = places.saturating_sub(self.places);
        self.young.add_permits(more);
        self.places += more;
        Ok(())
    }
}

impl Inner {
    fn window(&mut self, region: &Region, action: Action) -> &mut WindowLimiter {
        &mut self.action(region, action).window
    }

    fn action(&mut self, region: &Region, action: Action) -> &mut ActionLimits {
        let configured = self.configured.get(&action).copied();
        let actions = &mut self.region(region).actions;
        let new = || ActionLimits::new(configured);
        actions.entry(action).or_insert_with(new)
    }

    fn region(&mut self, region: &Region) -> &mut RegionLimits {
        let now = Instant::now();
        let state = self
            .regions
            .entry(region.clone())
            .or_insert_with(|| RegionLimits {
                slots: Arc::new(Semaphore::new(MAX_CALLS_IN_FLIGHT)),
                actions: HashMap::new(),
                last_used: now,
            });
        state.last_used = now;
        state
    }
}

async fn permit(semaphore: Arc<Semaphore>) -> OwnedSemaphorePermit {
    match semaphore.acquire_owned().await {
        Ok(permit) => permit,
        Err(_) => unreachable!("the semaphore is never closed"),
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

    /// `count` calls in flight, each once it may be sent.
    async fn fill(limiter: &CallLimiter, action: Action, count: usize) -> Vec<CallSlot> {
        let region = region("cn-hangzhou");
        let mut held = Vec::new();
        for _ in 0..count {
            let slot = limiter.enter(&region, action, Priority::Pass);
            held.push(slot.await.unwrap());
        }
        held
    }

    /// Whether no call may be sent within a second.
    async fn waits(limiter: &CallLimiter, text: &str, action: Action) -> bool {
        let next = enters(limiter, text, action);
        let second = Duration::from_secs(1);
        tokio::time::timeout(second, next).await.is_err()
    }

    #[tokio::test(start_paused = true)]
    async fn hanging_region_uses_only_its_own_slots() {
        let limiter = CallLimiter::default();
        let action = Action::JoinSecurityGroup;
        let mut held = Vec::new();
        for _ in 0..MAX_CALLS_IN_FLIGHT {
            let mut slots = fill(&limiter, action, 1).await;
            let hangs = slots[0].hold(std::future::pending::<()>());
            tokio::time::timeout(YOUNG * 2, hangs).await.unwrap_err();
            held.extend(slots);
        }
        assert!(waits(&limiter, "cn-hangzhou", action).await);
        assert!(enters(&limiter, "cn-beijing", action).await);
        tokio::time::advance(WINDOW * 2).await;
        limiter.retain_regions(|_| false);
        assert_eq!(limiter.regions(), 1, "its calls still count");
        drop(held);
        limiter.retain_regions(|_| false);
        assert_eq!(limiter.regions(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn five_calls_are_young_until_they_end_or_250_ms_have_passed() {
        let limiter = CallLimiter::default();
        let action = Action::JoinSecurityGroup;
        let mut held = fill(&limiter, action, 5).await;
        assert!(waits(&limiter, "cn-hangzhou", action).await);
        assert!(enters(&limiter, "cn-hangzhou", Action::LeaveSecurityGroup).await);
        held.pop();
        assert!(enters(&limiter, "cn-hangzhou", action).await, "one ended");
        held.extend(fill(&limiter, action, 1).await);
        let start = Instant::now();
        let slow = held[0].hold(std::future::pending::<()>());
        tokio::select! {
            () = slow => unreachable!("it hangs"),
            waited = waits(&limiter, "cn-hangzhou", action) => assert!(!waited),
        }
        assert_eq!(start.elapsed(), Duration::from_millis(250));
    }

    #[tokio::test(start_paused = true)]
    async fn one_more_call_is_young_for_each_hundred_in_a_minute() {
        let limiter = CallLimiter::default();
        let action = Action::LeaveSecurityGroup;
        for (calls, young) in [(1_000, 10), (1_000, 20), (0, 20), (3_000, 32)] {
            for _ in 0..calls {
                assert!(enters(&limiter, "cn-hangzhou", action).await);
            }
            let held = fill(&limiter, action, young).await;
            assert!(waits(&limiter, "cn-hangzhou", action).await, "{young}");
            drop(held);
        }
        tokio::time::advance(WINDOW * 3).await;
        let held = fill(&limiter, action, MAX_CALLS_IN_FLIGHT).await;
        assert_eq!(held.len(), MAX_CALLS_IN_FLIGHT, "the next minutes too");
    }
}
