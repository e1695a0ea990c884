//! Rate limiter for one API of one account in one region under the cloud's fixed one-minute windows: paces calls, stops
//! after a throttle, learns the limit. Pure: `now` is an argument; a caller that must wait gets the time to return. The order
//! of those who wait is not kept here.

use std::time::Duration;

use tokio::time::Instant;

use super::minute::{LastMinute, MINUTE};

/// The cloud counts calls in fixed windows of one minute.
pub const WINDOW: Duration = MINUTE;
/// Plausible limits in calls per minute; values outside are ignored.
const PLAUSIBLE: std::ops::RangeInclusive<u32> = 1..=1_000_000;
/// Part of the calls per minute that may start in one burst.
const BURST: f64 = 0.05;
/// Calls are paced this much faster than the limit, so that a window is used up before it ends.
const PACE_MARGIN: f64 = 1.02;
/// Lower bound (calls per minute) for a limit learned from a first throttle that names none.
const MIN_FIRST_LIMIT: f64 = 10.0;
/// Factor by which the limit is raised after whole windows were used up without a throttle.
const GROWTH: f64 = 1.25;
/// Calls between two attempts to raise the limit. Each attempt may cost one or two rejections, and fewer than 1 in 100 calls
/// may be rejected.
const CALLS_BETWEEN_TRIES: f64 = 400.0;
/// Full windows between two attempts to raise a small limit. Unexpected throttles may have left a limit of a few calls per
/// minute; 400 calls would take hours then.
const WINDOWS_BETWEEN_TRIES: f64 = 5.0;
/// How long a caller may be late for its time to return before its call is offered to scans.
const RETURN_GRACE: Duration = Duration::from_secs(5);
/// The shortest wait that is returned.
const SHORTEST_WAIT: Duration = Duration::from_millis(10);
/// Part of the limit that scans may use.
const SCAN_SHARE: f64 = 0.2;

/// How urgent a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Priority {
    /// A pass over an object waits for this call.
    Pass,
    /// Reads to detect changes.
    Scan,
}

/// Result of a call for the limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallOutcome {
    /// The cloud did not throttle the call.
    Admitted,
    /// The cloud throttled the call.
    Throttled {
        /// The wait that the cloud asks for, if it names one.
        retry_after: Option<Duration>,
        /// The limit in calls per minute, if the cloud names it.
        limit: Option<u32>,
    },
}

/// State of one limit.
#[derive(Debug)]
pub struct WindowLimiter {
    /// Calls per minute, as learned from throttles; `None` until the first one.
    learned: Option<f64>,
    /// Calls per minute, as an account sets them.
    configured: Option<u32>,
    /// The calls of the last minute, while an account sets a limit.
    last_minute: LastMinute,
    /// End of the current window.
    window_end: Instant,
    /// Calls started in this window.
    used: f64,
    /// Scan calls started in this window.
    used_by_scans: f64,
    /// Whether the cloud throttled a call in this window.
    throttled: bool,
    /// No call may start before this time.
    stopped_until: Option<Instant>,
    /// Calls since the limit was last raised or a call was throttled.
    calls_since_throttle: f64,
    /// Until when a waiting caller with a higher priority than scans is expected to return.
    awaited_until: Option<Instant>,
}

impl WindowLimiter {
    /// A limiter without a known limit.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self {
            learned: None,
            configured: None,
            last_minute: LastMinute::default(),
            window_end: now + WINDOW,
            used: 0.0,
            used_by_scans: 0.0,
            throttled: false,
            stopped_until: None,
            calls_since_throttle: 0.0,
            awaited_until: None,
        }
    }

    /// Admits a call or returns when to ask again.
    ///
    /// # Errors
    /// The time to ask again.
    pub fn admit(&mut self, now: Instant, priority: Priority) -> Result<(), Instant> {
        let next = self.next(now, priority);
        if next > now {
            if priority == Priority::Pass {
                self.awaited_until = Some(next + RETURN_GRACE);
            }
            return Err(next);
        }
        self.used += 1.0;
        self.calls_since_throttle += 1.0;
        if self.configured.is_some() {
            self.last_minute.begin(now);
        }
        match priority {
            Priority::Pass => self.awaited_until = None,
            Priority::Scan => self.used_by_scans += 1.0,
        }
        Ok(())
    }

    /// When the next call is admitted: `now`, or at least 10 ms later.
    pub fn next(&mut self, now: Instant, priority: Priority) -> Instant {
        self.roll(now);
        let Some(limit) = self.limit() else {
            return now;
        };
        let next = match (self.stopped_until, priority) {
            (Some(until), _) => until,
            (None, Priority::Scan) => self.next_scan(now, limit),
            (None, Priority::Pass) if self.used >= limit => self.window_end,
            (None, Priority::Pass) => self.next_token(limit),
        };
        let next = match self.configured {
            Some(most) => next.max(self.last_minute.next(most, now)),
            None => next,
        };
        if next <= now {
            return now;
        }
        next.max(now + SHORTEST_WAIT)
    }

    /// Calls begun in this window.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a whole number that is not negative"
    )]
    pub fn used(&self) -> usize {
        self.used as usize
    }

    /// End of the current window, for [`Self::give_back`].
    #[must_use]
    pub fn window_end(&self) -> Instant {
        self.window_end
    }

    /// Takes back a call that was admitted at `admitted`, in the window with this end, and not made. A call of an earlier window is lost.
    pub fn give_back(&mut self, now: Instant, window_end: Instant, admitted: Instant) {
        self.roll(now);
        self.last_minute.take_back(admitted, now);
        if window_end != self.window_end {
            return;
        }
        self.used = (self.used - 1.0).max(0.0);
        self.calls_since_throttle = (self.calls_since_throttle - 1.0).max(0.0);
    }

    /// Sets the limit that an account asks for, in calls per minute; `None` if it asks for none. No minute that ends from now on has more
    /// calls. Calls of this window, while no limit was set, count as begun now.
    pub fn configure(&mut self, now: Instant, most: Option<u32>) {
        self.roll(now);
        match (self.configured, most) {
            (None, Some(most)) => self.last_minute.fill(self.used, most, now),
            (Some(_), None) => self.last_minute = LastMinute::default(),
            (None, None) | (Some(_), Some(_)) => {}
        }
        self.configured = most;
    }

    /// Begins a call that was admitted at `admitted`: it counts from now on, and not from then.
    ///
    /// # Errors
    /// It is not admitted any more: the time to ask again. The call has been taken back.
    pub fn begin(&mut self, now: Instant, admitted: Instant) -> Result<(), Instant> {
        if let Some(until) = self.stopped(now) {
            return Err(until);
        }
        let Some(most) = self.configured else {
            return Ok(());
        };
        self.last_minute.take_back(admitted, now);
        let next = self.last_minute.next(most, now);
        if next > now {
            return Err(next.max(now + SHORTEST_WAIT));
        }
        self.last_minute.begin(now);
        Ok(())
    }

    /// Updates the limiter with the result of a call. `to_next_minute` is the wait after a throttle if the cloud names none.
    pub fn note(&mut self, now: Instant, outcome: CallOutcome, to_next_minute: Duration) {
        self.roll(now);
        let CallOutcome::Throttled { retry_after, limit } = outcome else {
            return;
        };
        let wait = retry_after
            .filter(|wait| *wait <= WINDOW)
            .unwrap_or(to_next_minute)
            .min(WINDOW);
        let until = now + wait.max(Duration::from_millis(1));
        // One window may reject several calls in flight; only the first rejection is new information about the limit.
        if !self.throttled {
            self.learned = Some(self.learn(limit));
        }
        self.throttled = true;
        self.calls_since_throttle = 0.0;
        self.window_end = until;
        self.stopped_until = Some(until);
    }

    /// Until when calls are stopped after a throttle; `None` if they are not.
    pub fn stopped(&mut self, now: Instant) -> Option<Instant> {
        self.roll(now);
        self.stopped_until
    }

    /// The limit in calls per minute, if any is known: the smaller one of what was learned and what an account sets.
    #[must_use]
    pub fn limit(&self) -> Option<f64> {
        let configured = self.configured.map(f64::from);
        match (self.learned, configured) {
            (Some(learned), Some(configured)) => Some(learned.min(configured)),
            (learned, configured) => learned.or(configured),
        }
    }

    /// The limit after a throttle: the one that the cloud names, else the calls used in this window. At least half the old
    /// limit, because other clients of the account may have used the rest.
    fn learn(&self, named: Option<u32>) -> f64 {
        let at_least = self
            .limit()
            .map_or(MIN_FIRST_LIMIT, |believed| (believed / 2.0).max(1.0));
        named
            .filter(|limit| PLAUSIBLE.contains(limit))
            .map_or_else(|| (self.used - 1.0).max(at_least), f64::from)
    }

    fn next_scan(&self, now: Instant, limit: f64) -> Instant {
        let share = scan_share(limit);
        // Reserve the last call of a window for waiting passes; otherwise scans would always win it.
        let awaited = self.awaited_until.is_some_and(|until| now <= until);
        if awaited && self.used + 2.0 > limit {
            return self.window_end;
        }
        if self.used_by_scans + 1.0 <= (share * self.elapsed(now)).max(1.0) && self.used < limit {
            return now;
        }
        if self.used >= limit || self.used_by_scans >= share {
            return self.window_end;
        }
        let at = (self.used_by_scans + 1.0) / share;
        self.window_start() + WINDOW.mul_f64(at.min(1.0))
    }

    /// Earliest start of the next call at the pace of the limit; in the past if it may start now.
    fn next_token(&self, limit: f64) -> Instant {
        let burst = (limit * BURST).max(1.0);
        let at = (self.used + 1.0 - burst) / (limit * PACE_MARGIN);
        self.window_start() + WINDOW.mul_f64(at.clamp(0.0, 1.0))
    }

    /// Opens a new window if the current one has ended.
    fn roll(&mut self, now: Instant) {
        if self.stopped_until.is_some_and(|until| until <= now) {
            self.stopped_until = None;
        }
        if now < self.window_end {
            return;
        }
        if let (Some(learned), Some(limit)) = (self.learned, self.limit()) {
            let is_calm = |calls: f64| {
                let enough = CALLS_BETWEEN_TRIES.min(calls * WINDOWS_BETWEEN_TRIES);
                self.calls_since_throttle >= enough
            };
            if self.used_up(limit).is_some_and(is_calm) && !self.throttled {
                let grown = (learned * GROWTH).max(learned + 1.0);
                // Nothing is learned of what lies above the limit that an account sets.
                let most = self.configured.map_or(f64::INFINITY, f64::from);
                self.learned = Some(grown.min(most.max(learned)));
                self.calls_since_throttle = 0.0;
            }
        }
        let over = now.duration_since(self.window_end).as_secs();
        self.window_end += WINDOW * u32::try_from(over / WINDOW.as_secs() + 1).unwrap_or(u32::MAX);
        self.used = 0.0;
        self.used_by_scans = 0.0;
        self.throttled = false;
    }

    /// What this window has used up, in calls per minute: the limit, or the share of the scans where only they call.
    fn used_up(&self, limit: f64) -> Option<f64> {
        if self.used >= limit.floor() {
            return Some(limit);
        }
        let share = scan_share(limit);
        // The last call of the share comes when the window ends.
        let most = (share - 1.0).max(1.0).floor();
        (self.used_by_scans >= most).then_some(share)
    }

    fn window_start(&self) -> Instant {
        self.window_end
            .checked_sub(WINDOW)
            .unwrap_or(self.window_end)
    }

    /// Part of the window that has passed (0 to 1).
    fn elapsed(&self, now: Instant) -> f64 {
        now.saturating_duration_since(self.window_start())
            .as_secs_f64()
            / WINDOW.as_secs_f64()
    }
}

/// Calls per minute that scans may use of a limit.
fn scan_share(limit: f64) -> f64 {
    (limit * SCAN_SHARE).max(1.0)
}

#[cfg(test)]
mod tests {
    use std::collections::BinaryHeap;

    use super::*;

    /// The simulated cloud: fixed windows, a limit that may change, and other clients of the same account.
    struct Cloud {
        start: Instant,
        limit: f64,
        others: f64,
        headers: bool,
        minute: u64,
        used: f64,
        accepted: u64,
        rejected: u64,
    }

    impl Cloud {
        fn new(start: Instant, limit: f64, headers: bool) -> Self {
            Self {
                start,
                limit,
                others: 0.0,
                headers,
                minute: 0,
                used: 0.0,
                accepted: 0,
                rejected: 0,
            }
        }

        fn left(&self, now: Instant) -> Duration {
            let passed = now.duration_since(self.start);
            (WINDOW * u32::try_from(passed.as_secs() / 60 + 1).unwrap()).saturating_sub(passed)
        }

        fn call(&mut self, now: Instant) -> CallOutcome {
            let minute = now.duration_since(self.start).as_secs() / 60;
            if minute != self.minute {
                self.minute = minute;
                self.used = self.others;
            }
            if self.used < self.limit {
                self.used += 1.0;
                self.accepted += 1;
                return CallOutcome::Admitted;
            }
            self.rejected += 1;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a small limit"
            )]
            let limit = self.limit as u32;
            CallOutcome::Throttled {
                retry_after: self.headers.then(|| self.left(now)),
                limit: self.headers.then_some(limit),
            }
        }
    }

    /// Runs `objects` calls of 30 ms each, at most 32 at a time, each begun as soon as it is admitted. A throttled call is made
    /// again. Returns how many were made.
    fn run(
        objects: usize,
        cloud: &mut Cloud,
        minutes: u64,
        mut change: impl FnMut(u64, &mut Cloud),
    ) -> usize {
        let mut limiter = WindowLimiter::new(cloud.start);
        let mut ends: BinaryHeap<std::cmp::Reverse<Instant>> = BinaryHeap::new();
        let mut waiting = objects;
        let mut next = cloud.start;
        let mut minute = 0;
        while waiting > 0 || !ends.is_empty() {
            let end = ends.peek().map(|std::cmp::Reverse(end)| *end);
            let may_begin = waiting > 0 && ends.len() < 32;
            let at = match end {
                Some(end) if !may_begin || end <= next => end,
                _ => next,
            };
            let passed = at.duration_since(cloud.start);
            if passed >= WINDOW * u32::try_from(minutes).unwrap() {
                break;
            }
            if passed.as_secs() / 60 != minute {
                minute = passed.as_secs() / 60;
                change(minute, cloud);
            }
            if end == Some(at) {
                ends.pop();
                let outcome = cloud.call(at);
                let to_next_minute = cloud.left(at);
                limiter.note(at, outcome, to_next_minute);
                waiting += usize::from(outcome != CallOutcome::Admitted);
                next = next.max(at);
                continue;
            }
            match limiter.admit(at, Priority::Pass) {
                Ok(()) => {
                    waiting -= 1;
                    ends.push(std::cmp::Reverse(at + Duration::from_millis(30)));
                }
                Err(until) => {
                    assert!(until > at, "no caller spins");
                    next = until;
                }
            }
        }
        objects - waiting - ends.len()
    }

    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    fn assert_goodput(cloud: &Cloud, possible: f64) {
        let used = cloud.accepted as f64 / possible;
        let wasted = cloud.rejected as f64 / (cloud.accepted + cloud.rejected) as f64;
        assert!(used >= 0.98, "used {used:.3} of the limit");
        assert!(
            wasted <= 0.01,
            "{wasted:.4} rejected ({} of {})",
            cloud.rejected,
            cloud.accepted
        );
    }

    #[test]
    fn limit_is_used_with_few_rejections() {
        for headers in [true, false] {
            let mut cloud = Cloud::new(Instant::now(), 600.0, headers);
            run(10_000, &mut cloud, 16, |_, _| {});
            assert_goodput(&cloud, 16.0 * 600.0);
        }
    }

    #[test]
    fn halved_and_doubled_limits_are_followed() {
        for headers in [true, false] {
            let mut cloud = Cloud::new(Instant::now(), 600.0, headers);
            run(10_000, &mut cloud, 16, |minute, cloud| {
                cloud.limit = if minute >= 8 { 300.0 } else { 600.0 }
            });
            assert_goodput(&cloud, 8.0 * 600.0 + 8.0 * 300.0);

            let mut cloud = Cloud::new(Instant::now(), 300.0, headers);
            run(12_000, &mut cloud, 20, |minute, cloud| {
                cloud.limit = if minute >= 8 { 600.0 } else { 300.0 };
            });
            let followed = cloud.accepted;
            assert!(
                followed >= 8 * 300 + 9 * 600,
                "{followed} calls in twenty minutes"
            );
        }
    }

    #[test]
    fn limit_shared_with_another_client_is_used() {
        for headers in [true, false] {
            let mut cloud = Cloud::new(Instant::now(), 600.0, headers);
            cloud.others = 300.0;
            run(6_000, &mut cloud, 16, |_, _| {});
            assert_goodput(&cloud, 16.0 * 300.0);
        }
    }

    #[test]
    fn every_waiting_call_is_admitted_exactly_once() {
        let mut cloud = Cloud::new(Instant::now(), 600.0, true);
        assert_eq!(run(1_000, &mut cloud, 4, |_, _| {}), 1_000);
        assert_eq!(cloud.accepted, 1_000);
    }

    #[test]
    fn without_a_known_limit_every_call_is_admitted() {
        let mut limiter = WindowLimiter::new(Instant::now());
        assert!((0..100_000).all(|_| limiter.admit(Instant::now(), Priority::Pass).is_ok()));
    }

    #[test]
    fn scans_use_a_fifth_of_the_limit() {
        let start = Instant::now();
        let mut limiter = WindowLimiter::new(start);
        let named = CallOutcome::Throttled {
            retry_after: Some(Duration::from_secs(1)),
            limit: Some(100),
        };
        limiter.note(start, named, WINDOW);
        let mut scans = 0;
        let mut now = start + Duration::from_secs(1);
        let end = now + WINDOW;
        while now < end {
            scans += u32::from(limiter.admit(now, Priority::Scan).is_ok());
            now += Duration::from_millis(50);
        }
        assert!((18..=21).contains(&scans), "{scans}");
    }

    #[test]
    fn scans_do_not_use_up_one_call_per_minute() {
        let start = Instant::now();
        let mut limiter = WindowLimiter::new(start);
        let named = CallOutcome::Throttled {
            retry_after: Some(Duration::from_secs(1)),
            limit: Some(1),
        };
        limiter.note(start, named, WINDOW);
        let mut now = start + Duration::from_secs(2);
        assert_eq!(limiter.admit(now, Priority::Scan), Ok(()));
        let mut user_at = limiter.admit(now, Priority::Pass).unwrap_err() + Duration::from_secs(2);
        let mut scan_at = now;
        let patience = now + WINDOW * 3;
        while now < patience {
            now = user_at.min(scan_at);
            if scan_at <= now {
                scan_at = match limiter.admit(now, Priority::Scan) {
                    Ok(()) => now + WINDOW,
                    Err(until) => until,
                };
            }
            if user_at <= now {
                match limiter.admit(now, Priority::Pass) {
                    Ok(()) => return,
                    Err(until) => user_at = until + Duration::from_secs(2),
                }
            }
        }
        panic!("the user waited for three minutes");
    }

    const UNNAMED: CallOutcome = CallOutcome::Throttled {
        retry_after: None,
        limit: None,
    };

    #[test]
    fn limit_recovers_after_a_throttle_of_the_first_call() {
        let start = Instant::now();
        let mut limiter = WindowLimiter::new(start);
        assert_eq!(limiter.admit(start, Priority::Pass), Ok(()));
        limiter.note(start, UNNAMED, WINDOW);
        assert_eq!(limiter.limit(), Some(MIN_FIRST_LIMIT));
        for second in 0..3600 {
            let _ = limiter.admit(start + Duration::from_secs(second), Priority::Pass);
        }
        let limit = limiter.limit().unwrap();
        assert!(limit > 20.0, "{limit} after an hour that was used up");
    }

    /// Only scans read, as on a cluster where nothing changes. Another program has used up a minute of the account once.
    #[test]
    fn limit_recovers_where_only_scans_call() {
        let start = Instant::now();
        for limit in [1, 50] {
            let mut limiter = WindowLimiter::new(start);
            let throttled = CallOutcome::Throttled {
                retry_after: None,
                limit: Some(limit),
            };
            limiter.note(start, throttled, WINDOW);
            let mut now = start;
            let day = start + Duration::from_secs(24 * 3_600);
            while now < day {
                now = match limiter.admit(now, Priority::Scan) {
                    Ok(()) => now + SHORTEST_WAIT,
                    Err(next) => next,
                };
            }
            let limit = limiter.limit().unwrap();
            assert!(limit > 500.0, "{limit} after a day of scans");
        }
    }

    #[test]
    fn limit_below_the_first_estimate_is_learned() {
        let mut cloud = Cloud::new(Instant::now(), 1.0, false);
        run(1_000, &mut cloud, 60, |_, _| {});
        assert!(cloud.accepted >= 55, "{} of 60", cloud.accepted);
        // 31 of them in the first second, while no limit is known and 32 calls are in flight.
        assert!(cloud.rejected <= 60, "{} rejected", cloud.rejected);
    }

    #[test]
    fn nonsense_headers_do_not_block_the_limiter() {
        let start = Instant::now();
        for limit in [Some(0), Some(u32::MAX), None] {
            let mut limiter = WindowLimiter::new(start);
            let nonsense = CallOutcome::Throttled {
                retry_after: Some(Duration::from_secs(1 << 40)),
                limit,
            };
            limiter.note(start, nonsense, Duration::from_secs(20));
            let until = limiter.admit(start, Priority::Pass).unwrap_err();
            assert!(until <= start + WINDOW * 2, "{:?}", until - start);
            assert_eq!(limiter.admit(until, Priority::Pass), Ok(()));
        }
    }

    #[test]
    fn clock_jump_of_a_day_only_opens_a_new_window() {
        let start = Instant::now();
        let mut limiter = WindowLimiter::new(start);
        let named = CallOutcome::Throttled {
            retry_after: Some(Duration::from_secs(1)),
            limit: Some(100),
        };
        limiter.note(start, named, WINDOW);
        let tomorrow = start + Duration::from_secs(86_400);
        assert!(limiter.admit(tomorrow, Priority::Pass).is_ok());
        assert_eq!(limiter.limit(), Some(100.0));
    }
}
