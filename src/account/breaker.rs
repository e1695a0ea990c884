//! Which regions of a cloud account answer. A region that does not is called by one caller at a time, ever more rarely, until it
//! answers again; every other caller gets the last failure at once, without a call. In memory only; makes no call.
//!
//! A region is a word that a user typed, and most endpoints have it in their host name. A region that this version does not know
//! and that has never answered is called by one caller at a time from the start, and only a few such regions of a cloud account
//! are tried before the others must wait: invented names cost next to no look-ups.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::ecs::{Action, Error, Region, Retry, TransportError};

/// Calls in a row without a usable answer, after which a region is only probed.
const FAILURES: u32 = 3;
/// Waits before the probes of a region that has answered before, or that is known.
const PROBES: Retry = retry(5, 60);
/// Waits before the probes of a region that is not known and has never answered.
const PROBES_OF_UNKNOWN: Retry = retry(60, 30 * 60);
/// Unknown regions in a row that may be tried without an answer; from then on one at a time.
const FREE_TRIES: u32 = 8;
/// Waits before the tries of further unknown regions of the cloud account.
const TRIES_OF_UNKNOWN: Retry = retry(15, 60);

const fn retry(first: u64, cap: u64) -> Retry {
    Retry {
        first: Duration::from_secs(first),
        factor: 2.0,
        cap: Duration::from_secs(cap),
    }
}

/// The regions of one cloud account at its endpoints.
#[derive(Debug)]
pub struct Breakers {
    /// Whether the host of a call depends on its region.
    hosts_by_region: bool,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    regions: HashMap<Region, Answers>,
    unknown: Unknown,
}

/// Whether one region answers.
#[derive(Debug)]
struct Answers {
    /// Whether it has answered since an object names it.
    answered: bool,
    /// Whether it is tried as a region that may not exist.
    unknown: bool,
    /// Calls without a usable answer since the last one that had one.
    failures: u32,
    last_failure: Option<Error>,
    probes: u32,
    next_probe: Instant,
    /// Held by the caller that probes.
    probe: Arc<Semaphore>,
    /// Whether a caller was refused since the last answer.
    has_refused: bool,
}

/// The tries of all regions of the cloud account that may not exist.
#[derive(Debug, Default)]
struct Unknown {
    in_flight: u32,
    failures: u32,
    next_try: Option<Instant>,
}

/// Permission for one call.
#[derive(Debug)]
pub struct Turn {
    breakers: Arc<Breakers>,
    region: Region,
    probe: Option<OwnedSemaphorePermit>,
    /// Whether it counts among the tries of unknown regions.
    is_try: bool,
}

/// What a caller may do.
enum Verdict {
    Call,
    Probe {
        permit: OwnedSemaphorePermit,
        is_try: bool,
    },
    /// Another caller makes the first call to an unknown region: its answer decides.
    Wait(Arc<Semaphore>),
    Refuse(Error),
}

impl Breakers {
    /// No region was called yet.
    #[must_use]
    pub fn new(hosts_by_region: bool) -> Self {
        Self {
            hosts_by_region,
            inner: Mutex::default(),
        }
    }

    /// Permission for one call of `action`. Waits only while another caller makes the very first call to an unknown region.
    ///
    /// # Errors
    /// The region does not answer: how the last call to it failed. No call may be made now.
    pub async fn enter(self: &Arc<Self>, region: &Region, action: Action) -> Result<Turn, Error> {
        let mut held = None;
        loop {
            let verdict = self.ask(region, action, held.take(), Instant::now());
            let (probe, is_try) = match verdict {
                Verdict::Call => (None, false),
                Verdict::Probe { permit, is_try } => (Some(permit), is_try),
                Verdict::Refuse(failure) => return Err(failure),
                Verdict::Wait(probe) => {
                    // Never closed. The state is asked again, whatever the first call has found. The permit is kept until then: one that
                    // is given back goes to the next who waits, and none of them would call.
                    held = probe.acquire_owned().await.ok();
                    continue;
                }
            };
            return Ok(Turn {
                breakers: Arc::clone(self),
                region: region.clone(),
                probe,
                is_try,
            });
        }
    }

    /// Whether the region has answered since an object names it.
    #[must_use]
    pub fn has_answered(&self, region: &Region) -> bool {
        let inner = self.lock();
        inner.regions.get(region).is_some_and(|one| one.answered)
    }

    /// Forgets the regions for which `keep` is false, unless they are being probed.
    pub fn retain_regions(&self, keep: impl Fn(&Region) -> bool) {
        self.lock()
            .regions
            .retain(|region, one| keep(region) || one.probe.available_permits() == 0);
    }

    /// Number of regions that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().regions.len()
    }

    /// Whether no region is remembered.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What a caller may do that has waited for the permit to probe, or has not.
    fn ask(
        &self,
        region: &Region,
        action: Action,
        held: Option<OwnedSemaphorePermit>,
        now: Instant,
    ) -> Verdict {
        let mut inner = self.lock();
        let Inner { regions, unknown } = &mut *inner;
        let one = regions.entry(region.clone()).or_insert_with(|| {
            Answers::new(self.hosts_by_region && region.known_name().is_none(), now)
        });
        let verdict = one.ask(unknown, region, action, held, now);
        one.has_refused |= matches!(verdict, Verdict::Refuse(_));
        verdict
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    fn new(unknown: bool, now: Instant) -> Self {
        Self {
            answered: false,
            unknown,
            failures: 0,
            last_failure: None,
            probes: 0,
            next_probe: now,
            probe: Arc::new(Semaphore::new(1)),
            has_refused: false,
        }
    }

    fn ask(
        &self,
        unknown: &mut Unknown,
        region: &Region,
        action: Action,
        held: Option<OwnedSemaphorePermit>,
        now: Instant,
    ) -> Verdict {
        let last_failure = self.last_failure.clone().filter(|_| self.is_open());
        if last_failure.is_none() && !self.unknown {
            return Verdict::Call;
        }
        let refusal = || {
            Verdict::Refuse(last_failure.clone().unwrap_or_else(|| Error::Transport {
                action,
                source: TransportError::NotTried {
                    region: region.clone(),
                },
            }))
        };
        let permit = held.map_or_else(|| Arc::clone(&self.probe).try_acquire_owned(), Ok);
        match permit {
            Err(_) if last_failure.is_none() => Verdict::Wait(Arc::clone(&self.probe)),
            Ok(permit) if now >= self.next_probe => {
                if self.unknown && !unknown.try_one(now) {
                    return refusal();
                }
                let is_try = self.unknown;
                Verdict::Probe { permit, is_try }
            }
            Ok(_) | Err(_) => refusal(),
        }
    }

    /// Whether it is only probed.
    fn is_open(&self) -> bool {
        self.failures >= if self.unknown { 1 } else { FAILURES }
    }

    fn fail(&mut self, failure: &Error, is_probe: bool, now: Instant) {
        let was_open = self.is_open();
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(failure.clone());
        // Calls that were in flight when it opened say nothing new.
        if self.is_open() && (is_probe || !was_open) {
            self.probes = self.probes.saturating_add(1);
            let waits = if self.unknown {
                PROBES_OF_UNKNOWN
            } else {
                PROBES
            };
            self.next_probe = now + waits.delay(self.probes);
        }
    }

    /// Returns whether callers were refused since the last answer.
    fn answer(&mut self) -> bool {
        self.answered = true;
        self.unknown = false;
        self.failures = 0;
        self.last_failure = None;
        self.probes = 0;
        std::mem::take(&mut self.has_refused)
    }
}

impl Unknown {
    /// Takes a try, if there is one.
    fn try_one(&mut self, now: Instant) -> bool {
        let is_free = self.failures + self.in_flight < FREE_TRIES
            || self.in_flight == 0 && self.next_try.is_none_or(|next| next <= now);
        self.in_flight += u32::from(is_free);
        is_free
    }

    fn end(&mut self, failed: Option<bool>, now: Instant) {
        self.in_flight -= 1;
        match failed {
            Some(true) => {
                self.failures = self.failures.saturating_add(1);
                let beyond = (self.failures + 1).saturating_sub(FREE_TRIES);
                self.next_try = Some(now + TRIES_OF_UNKNOWN.delay(beyond));
            }
            Some(false) => {
                self.failures = 0;
                self.next_try = None;
            }
            None => {}
        }
    }
}

impl Turn {
    /// Whether a failure of the call says something of the account's endpoints: the host of an unknown region may not exist.
    #[must_use]
    pub fn is_of_known_region(&self) -> bool {
        !self.is_try
    }

    /// Records how the call ended. A refusal by the cloud is an answer. Returns whether callers were refused before who can be
    /// told now that the region answers.
    #[must_use]
    pub fn end(mut self, error: Option<&Error>) -> bool {
        let now = Instant::now();
        let failure = error.filter(|error| !error.is_usable_answer());
        let breakers = Arc::clone(&self.breakers);
        let mut inner = breakers.lock();
        if std::mem::take(&mut self.is_try) {
            inner.unknown.end(Some(failure.is_some()), now);
        }
        let Some(one) = inner.regions.get_mut(&self.region) else {
            return false;
        };
        match failure {
            Some(failure) => {
                one.fail(failure, self.probe.is_some(), now);
                false
            }
            None => one.answer(),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if self.is_try {
            self.breakers.lock().unknown.end(None, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ: Action = Action::DescribeInstances;

    fn region(text: &str) -> Region {
        text.parse().unwrap()
    }

    fn silence() -> Error {
        let after = Duration::from_secs(10);
        Error::Transport {
            action: READ,
            source: TransportError::Timeout { after },
        }
    }

    async fn call(
        breakers: &Arc<Breakers>,
        text: &str,
        error: Option<&Error>,
    ) -> Result<bool, Error> {
        let turn = breakers.enter(&region(text), READ).await?;
        Ok(turn.end(error))
    }

    /// Calls each second for so long; how many calls were made.
    async fn calls_in(breakers: &Arc<Breakers>, text: &str, seconds: u32) -> u32 {
        let mut calls = 0;
        for _ in 0..seconds {
            calls += u32::from(call(breakers, text, Some(&silence())).await.is_ok());
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        calls
    }

    #[tokio::test(start_paused = true)]
    async fn silent_region_is_probed_more_and_more_rarely() {
        let breakers = Arc::new(Breakers::new(true));
        // Three calls, and then probes after 5, 10, 20, 40 and each 60 s.
        assert_eq!(calls_in(&breakers, "cn-hangzhou", 78).await, 3 + 4);
        assert_eq!(calls_in(&breakers, "cn-hangzhou", 600).await, 10);
        assert_eq!(call(&breakers, "cn-beijing", None).await, Ok(false));
        assert!(breakers.has_answered(&region("cn-beijing")));
        assert!(!breakers.has_answered(&region("cn-hangzhou")));
        tokio::time::advance(Duration::from_secs(60)).await;
        let probe = breakers.enter(&region("cn-hangzhou"), READ).await.unwrap();
        let other = breakers.enter(&region("cn-hangzhou"), READ).await;
        assert_eq!(other.unwrap_err(), silence(), "one at a time");
        assert!(probe.end(None), "a caller was refused");
        assert_eq!(call(&breakers, "cn-hangzhou", None).await, Ok(false));
        assert_eq!(calls_in(&breakers, "cn-hangzhou", 3).await, 3);
    }

    #[tokio::test(start_paused = true)]
    async fn only_failures_in_a_row_count() {
        let breakers = Arc::new(Breakers::new(true));
        let refused = Error::BadRow {
            action: READ,
            what: String::new(),
        };
        for _ in 0..10 {
            for error in [Some(&silence()), Some(&silence()), Some(&refused)] {
                assert_eq!(call(&breakers, "cn-hangzhou", error).await, Ok(false));
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_probe_lets_the_next_one_go() {
        let breakers = Arc::new(Breakers::new(true));
        for unknown in ["xx-1", "cn-hangzhou"] {
            let _ = calls_in(&breakers, unknown, 4).await;
            tokio::time::advance(Duration::from_secs(60)).await;
            for _ in 0..20 {
                drop(breakers.enter(&region(unknown), READ).await.unwrap());
            }
        }
    }

    /// The first call to an unknown region is given up while two others wait for what it finds.
    #[tokio::test(start_paused = true)]
    async fn dropped_first_call_lets_one_of_those_go_that_wait() {
        let breakers = Arc::new(Breakers::new(true));
        let here = region("xx-1");
        let first = breakers.enter(&here, READ).await.unwrap();
        let mut second = std::pin::pin!(breakers.enter(&here, READ));
        let mut third = std::pin::pin!(breakers.enter(&here, READ));
        assert!(futures::poll!(&mut second).is_pending());
        assert!(futures::poll!(&mut third).is_pending());
        drop(first);
        for _ in 0..3 {
            assert!(futures::poll!(&mut third).is_pending(), "after the second");
        }
        let second = second.await.unwrap();
        assert!(!second.is_of_known_region());
        assert!(futures::poll!(&mut third).is_pending(), "one at a time");
        drop(second);
        assert!(!third.await.unwrap().end(None));
    }

    #[tokio::test(start_paused = true)]
    async fn invented_regions_cost_few_calls() {
        let breakers = Arc::new(Breakers::new(true));
        let mut calls = 0;
        for minute in 0..60 {
            for number in 0..400 {
                let text = format!("xx-{number}");
                calls += u32::from(call(&breakers, &text, Some(&silence())).await.is_ok());
                assert_eq!(call(&breakers, "cn-hangzhou", None).await, Ok(false));
            }
            if minute == 0 {
                assert_eq!(calls, FREE_TRIES);
                let error = call(&breakers, "xx-399", None).await.unwrap_err();
                assert!(error.to_string().contains("xx-399"), "{error}");
            }
            tokio::time::advance(Duration::from_secs(60)).await;
        }
        assert_eq!(calls, FREE_TRIES + 59, "one a minute from then on");
        assert_eq!(breakers.len(), 401);
        breakers.retain_regions(|region| region.as_str() == "cn-hangzhou");
        assert_eq!(breakers.len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn unknown_region_that_answers_is_like_any_other() {
        let breakers = Arc::new(Breakers::new(true));
        let first = breakers.enter(&region("xx-1"), READ).await.unwrap();
        assert!(!first.is_of_known_region());
        let here = region("xx-1");
        let mut second = std::pin::pin!(breakers.enter(&here, READ));
        assert!(futures::poll!(&mut second).is_pending(), "it waits");
        assert!(!first.end(None), "no caller was refused");
        let second = second.await.unwrap();
        let third = breakers.enter(&region("xx-1"), READ).await.unwrap();
        assert!(third.is_of_known_region());
        for turn in [second, third] {
            assert!(!turn.end(Some(&silence())));
        }
        assert_eq!(call(&breakers, "xx-1", None).await, Ok(false));
        // No more than a few at a time, also when none has failed.
        let mut turns = Vec::new();
        for number in 10..20 {
            turns.extend(breakers.enter(&region(&format!("xx-{number}")), READ).await);
        }
        assert_eq!(turns.len(), FREE_TRIES as usize);
    }

    #[tokio::test(start_paused = true)]
    async fn one_endpoint_for_all_regions_has_no_unknown_one() {
        let breakers = Arc::new(Breakers::new(false));
        for number in 0..400 {
            let text = format!("xx-{number}");
            assert!(call(&breakers, &text, Some(&silence())).await.is_ok());
        }
    }
}
