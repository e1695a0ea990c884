//! Wall time and random numbers, which enter at the edge: from the system in production; from an epoch plus tokio's clock
//! and a seed in a repeatable run. Waits and deadlines use tokio's clock directly.

use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;
use uuid::Uuid;

/// Wall time and a random number generator. Cheap to clone; all clones share one generator.
#[derive(Clone)]
pub struct Clock {
    wall: Wall,
    random: Arc<Mutex<StdRng>>,
}

#[derive(Clone, Copy, Debug)]
enum Wall {
    System,
    Since { epoch: Timestamp, started: Instant },
}

impl Clock {
    /// The system's clock, and unpredictable random numbers.
    #[must_use]
    pub fn system() -> Self {
        Self {
            wall: Wall::System,
            random: Arc::new(Mutex::new(rand::make_rng())),
        }
    }

    /// A clock that starts at `epoch` and advances with tokio's clock, with the random numbers of `seed`.
    #[must_use]
    pub fn simulated(epoch: Timestamp, seed: u64) -> Self {
        Self {
            wall: Wall::Since {
                epoch,
                started: Instant::now(),
            },
            random: Arc::new(Mutex::new(StdRng::seed_from_u64(seed))),
        }
    }

    /// Wall time.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        match self.wall {
            Wall::System => Timestamp::now(),
            Wall::Since { epoch, started } => epoch
                .checked_add(started.elapsed())
                .unwrap_or(Timestamp::MAX),
        }
    }

    /// A random UUID (version 4).
    #[must_use]
    pub fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.draw(StdRng::random)).into_uuid()
    }

    /// `duration` with uniform jitter of ±`part` (0.1 = 10 %).
    #[must_use]
    pub fn jittered(&self, duration: Duration, part: f64) -> Duration {
        duration.mul_f64(self.draw(|random| random.random_range(1.0 - part..=1.0 + part)))
    }

    /// A uniform random duration within `range`; the start of an empty range.
    #[must_use]
    pub fn within(&self, range: Range<Duration>) -> Duration {
        let width = range.end.saturating_sub(range.start);
        range.start + width.mul_f64(self.draw(|random| random.random_range(0.0..1.0)))
    }

    fn draw<T>(&self, draw: impl FnOnce(&mut StdRng) -> T) -> T {
        draw(&mut self.random.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Default for Clock {
    /// As [`Clock::system`].
    fn default() -> Self {
        Self::system()
    }
}

/// Leaves out the generator: nonces come from it.
impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("wall", &self.wall)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn simulated_clock_follows_tokio_time() {
        let epoch = Timestamp::from_second(1_767_225_600).unwrap();
        let clock = Clock::simulated(epoch, 1);
        tokio::time::advance(Duration::from_secs(90)).await;
        assert_eq!(clock.now(), epoch + Duration::from_secs(90));
    }

    #[test]
    fn jitter_spreads_waits_over_the_whole_range() {
        let clock = Clock::system();
        let waits: Vec<Duration> = (0..1_000)
            .map(|_| clock.jittered(Duration::from_secs(100), 0.5))
            .collect();
        let (first, last) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*first >= Duration::from_secs(50) && *first < Duration::from_secs(75));
        assert!(*last <= Duration::from_secs(150) && *last > Duration::from_secs(125));
    }

    #[tokio::test(start_paused = true)]
    async fn seed_fixes_random_values_and_uuids_differ() {
        let drawn = |seed| {
            let clock = Clock::simulated(Timestamp::UNIX_EPOCH, seed);
            let second = Duration::from_secs(1);
            let jittered = clock.jittered(second, 0.5);
            let within = clock.within(second..second * 2);
            assert!((0.5..=1.5).contains(&jittered.as_secs_f64()));
            assert!((second..second * 2).contains(&within));
            let uuids = (clock.uuid(), clock.clone().uuid());
            assert_ne!(uuids.0, uuids.1);
            assert_eq!(uuids.0.get_version_num(), 4);
            (jittered, within, uuids)
        };
        assert_eq!(drawn(1), drawn(1));
        assert_ne!(drawn(1), drawn(2));
    }
}
