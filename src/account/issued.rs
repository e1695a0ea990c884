//! The key that a provider issued for an account: kept until shortly before its end, replaced by one request at a time, and not
//! asked for again at once after a failure.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::ecs::credential::{IssuedKey, ProviderError};
use crate::ecs::{Credential, Retry};

use super::key::CredentialSpec;

/// What a key was issued for: the spec of the account, and the version of the credentials that it began with.
pub type IssuedFor = (CredentialSpec, String);

/// The key of one account.
#[derive(Debug, Default)]
pub struct Issued {
    state: Mutex<State>,
    /// When the key ends, in seconds since 1970; 0 without an end. It can be read while a new key is asked for.
    ends: AtomicI64,
}

#[derive(Debug, Default)]
struct State {
    made_for: IssuedFor,
    key: Option<Kept>,
    failure: Option<Failure>,
}

#[derive(Debug)]
struct Kept {
    credential: Credential,
    /// From when on a new key is asked for.
    renew_at: Option<Timestamp>,
    /// When it was issued.
    since: Instant,
    expires: Option<Timestamp>,
}

impl Kept {
    /// Whether it was issued long enough ago to be doubted.
    fn is_old(&self) -> bool {
        self.since.elapsed() >= LEAST_WAIT
    }
}

#[derive(Debug)]
struct Failure {
    error: ProviderError,
    count: u32,
    since: Instant,
    again: Instant,
}

/// Whether a key that has not ended is replaced.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Doubt {
    /// It is not.
    #[default]
    None,
    /// A user wants a new one. The old one stays in use while no other can be had.
    Requested,
    /// The cloud has refused it.
    Refused,
}

/// A new key is asked for so long before the end of the old one, or when a third of its life is left, whichever is later (10
/// minutes).
const RENEWAL: SignedDuration = SignedDuration::from_mins(10);

/// Shortest time between two requests for one account (5 seconds).
const LEAST_WAIT: Duration = Duration::from_secs(5);

/// When another key is asked for after a failure, whatever it was: a role that is corrected must not wait long, and one request per
/// account costs little.
pub const RETRY: Retry = Retry {
    first: LEAST_WAIT,
    factor: 2.0,
    cap: Duration::from_secs(5 * 60),
};

impl Issued {
    /// The key for `made_for`. It is obtained if there is none, if the one that there is ends soon, or if there is a doubt about it.
    /// Concurrent requests wait for each other: the first one obtains it. After a failure the same error is returned for a time that
    /// grows from 5 seconds to 5 minutes; a doubt ends it after 5 seconds, and another `made_for` at once. A key that has neither ended
    /// nor been refused stays in use while no other can be had. A key is not doubted within 5 seconds.
    ///
    /// # Errors
    /// Why no key can be had.
    pub async fn key(
        &self,
        made_for: IssuedFor,
        doubt: Doubt,
        now: Timestamp,
        obtain: impl AsyncFnOnce() -> Result<IssuedKey, ProviderError>,
    ) -> Result<Credential, ProviderError> {
        let mut state = self.state.lock().await;
        if state.made_for != made_for {
            *state = State {
                made_for,
                ..State::default()
            };
            self.ends.store(0, Ordering::Relaxed);
        }
        let usable = state.usable(doubt, now);
        if let Some(credential) = usable.as_ref().filter(|_| !state.is_due(doubt, now)) {
            return Ok(credential.clone());
        }
        if let Some(error) = state.recent_failure(doubt) {
            return usable.ok_or(error);
        }
        match obtain().await {
            Ok(issued) => {
                let ends = issued.expires.map_or(0, Timestamp::as_second);
                self.ends.store(ends, Ordering::Relaxed);
                Ok(state.keep(issued, now))
            }
            Err(error) => {
                state.fail(error.clone());
                usable.ok_or(error)
            }
        }
    }
}

impl Issued {
    /// Forgets the key: the account has another kind of credentials.
    pub async fn forget(&self) {
        *self.state.lock().await = State::default();
        self.ends.store(0, Ordering::Relaxed);
    }

    /// When the key that was issued last ends, in seconds since 1970; `None` without an end.
    #[must_use]
    pub fn ends(&self) -> Option<i64> {
        Some(self.ends.load(Ordering::Relaxed)).filter(|ends| *ends > 0)
    }
}

impl State {
    /// The key, if it has neither ended nor been refused.
    fn usable(&self, doubt: Doubt, now: Timestamp) -> Option<Credential> {
        let is_refused = |key: &Kept| doubt == Doubt::Refused && key.is_old();
        let key = self.key.as_ref().filter(|key| !is_refused(key))?;
        let has_ended = key.expires.is_some_and(|end| end <= now);
        (!has_ended).then(|| key.credential.clone())
    }

    /// Whether another key is asked for although there is one.
    fn is_due(&self, doubt: Doubt, now: Timestamp) -> bool {
        self.key.as_ref().is_none_or(|key| {
            let ends_soon = key.renew_at.is_some_and(|at| at <= now);
            ends_soon || doubt != Doubt::None && key.is_old()
        })
    }

    fn recent_failure(&self, doubt: Doubt) -> Option<ProviderError> {
        let failure = self.failure.as_ref()?;
        let again = match doubt {
            Doubt::None => failure.again,
            Doubt::Requested | Doubt::Refused => failure.since + LEAST_WAIT,
        };
        (Instant::now() < again).then(|| failure.error.clone())
    }

    fn keep(&mut self, issued: IssuedKey, now: Timestamp) -> Credential {
        let renew_at = issued.expires.map(|end| {
            let life = end.duration_since(now);
            end.saturating_sub(RENEWAL.min(life / 3)).unwrap_or(end)
        });
        self.failure = None;
        self.key = Some(Kept {
            credential: issued.credential.clone(),
            renew_at,
            since: Instant::now(),
            expires: issued.expires,
        });
        issued.credential
    }

    fn fail(&mut self, error: ProviderError) {
        let count = self.failure.as_ref().map_or(0, |failure| failure.count);
        let count = count.saturating_add(1);
        let since = Instant::now();
        self.failure = Some(Failure {
            error,
            count,
            since,
            again: since + RETRY.delay(count),
        });
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    struct Fixture {
        issued: Issued,
        asked: AtomicU32,
        began: Timestamp,
        start: Instant,
    }

    impl Fixture {
        fn new() -> Self {
            Self {
                issued: Issued::default(),
                asked: AtomicU32::new(0),
                began: Timestamp::from_second(1_000_000).unwrap(),
                start: Instant::now(),
            }
        }

        /// Asks for the key; a provider that works issues one for an hour. Returns its number.
        async fn ask(&self, generation: i64, doubt: Doubt, works: bool) -> Result<String, ()> {
            let passed = SignedDuration::try_from(self.start.elapsed()).unwrap();
            let now = self.began + passed;
            let made_for = (CredentialSpec::of(None, generation), String::new());
            let obtain = async || {
                let number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
                tokio::time::sleep(Duration::from_secs(1)).await;
                if !works {
                    let message = "no".to_owned();
                    return Err(ProviderError::Unavailable { message });
                }
                Ok(IssuedKey {
                    credential: Credential::new(format!("STS.{number}"), "secret", None).unwrap(),
                    expires: Some(now + SignedDuration::from_hours(1)),
                })
            };
            let key = self.issued.key(made_for, doubt, now, obtain).await;
            key.map(|key| key.access_key_id().to_owned()).map_err(drop)
        }
    }

    async fn pass(minutes: u64) {
        tokio::time::advance(Duration::from_secs(60 * minutes)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn many_requests_at_once_obtain_one_key() {
        let fixture = Arc::new(Fixture::new());
        let asks = (0..100).map(|_| {
            let fixture = Arc::clone(&fixture);
            async move { fixture.ask(1, Doubt::None, true).await }
        });
        for key in futures::future::join_all(asks).await {
            assert_eq!(key.as_deref(), Ok("STS.1"));
        }
        assert_eq!(fixture.asked.load(Ordering::SeqCst), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn key_is_renewed_ten_minutes_before_its_end() {
        let fixture = Fixture::new();
        assert_eq!(
            fixture.ask(1, Doubt::None, true).await.as_deref(),
            Ok("STS.1")
        );
        pass(49).await;
        assert_eq!(
            fixture.ask(1, Doubt::None, true).await.as_deref(),
            Ok("STS.1")
        );
        pass(2).await;
        // A failed renewal leaves the old key in use until its end.
        assert_eq!(
            fixture.ask(1, Doubt::None, false).await.as_deref(),
            Ok("STS.1")
        );
        pass(8).await;
        assert_eq!(
            fixture.ask(1, Doubt::None, false).await.as_deref(),
            Ok("STS.1")
        );
        pass(2).await;
        assert_eq!(fixture.ask(1, Doubt::None, false).await, Err(()));
        pass(6).await;
        assert_eq!(
            fixture.ask(1, Doubt::None, true).await.as_deref(),
            Ok("STS.5")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn provider_that_fails_is_not_asked_by_every_request() {
        let fixture = Fixture::new();
        // Ten requests a second for an hour, each of which sees an error.
        for _ in 0..36_000 {
            assert_eq!(fixture.ask(1, Doubt::None, false).await, Err(()));
            tokio::time::advance(Duration::from_millis(100)).await;
        }
        let asked = fixture.asked.load(Ordering::SeqCst);
        assert!((10..=20).contains(&asked), "{asked} requests in an hour");
    }

    #[tokio::test(start_paused = true)]
    async fn doubted_key_is_replaced_and_another_spec_waits_for_nothing() {
        let fixture = Fixture::new();
        assert_eq!(
            fixture.ask(1, Doubt::None, true).await.as_deref(),
            Ok("STS.1")
        );
        assert_eq!(
            fixture.ask(1, Doubt::Refused, true).await.as_deref(),
            Ok("STS.1")
        );
        pass(1).await;
        assert_eq!(
            fixture.ask(1, Doubt::Refused, true).await.as_deref(),
            Ok("STS.2")
        );
        pass(1).await;
        assert_eq!(fixture.ask(1, Doubt::Refused, false).await, Err(()));
        // Not again within 5 seconds, however often somebody asks for it.
        for _ in 0..100 {
            assert_eq!(fixture.ask(1, Doubt::Refused, false).await, Err(()));
        }
        assert_eq!(fixture.asked.load(Ordering::SeqCst), 3);
        assert_eq!(
            fixture.ask(2, Doubt::None, true).await.as_deref(),
            Ok("STS.4")
        );
    }

    /// A user asks for a check while the provider does not answer.
    #[tokio::test(start_paused = true)]
    async fn key_stays_in_use_while_the_one_that_a_user_asks_for_cannot_be_had() {
        let fixture = Fixture::new();
        let first = fixture.ask(1, Doubt::None, true).await;
        assert_eq!(first.as_deref(), Ok("STS.1"));
        pass(1).await;
        for works in [false, true] {
            let key = fixture.ask(1, Doubt::Requested, works).await;
            assert_eq!(key.as_deref(), Ok(if works { "STS.3" } else { "STS.1" }));
            pass(1).await;
        }
    }
}
