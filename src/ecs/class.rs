//! The error classes and their retry intervals: pure data. `error_table` maps each code to its class.

use std::fmt;
use std::time::Duration;

/// How the operator reacts to an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The edge is already in the desired state.
    Done,
    /// The target is between states: wait without a call.
    Transitional,
    /// Retry soon.
    Transient,
    /// The account's API quota for this minute is used up.
    Throttled,
    /// The target or the group does not exist.
    Absent,
    /// A person or another system must act.
    Blocked,
    /// The spec can never work.
    Invalid,
}

/// Retry intervals: `first` after the first failure, then multiplied by `factor` up to `cap`. Jitter is added by
/// `membership::history`: ±10 %, and for [`Class::Transient`] any wait between `first / 2` and the interval.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// Wait after the first failure.
    pub first: Duration,
    /// Each wait is this many times the one before (2.0 doubles it).
    pub factor: f64,
    /// The longest wait.
    pub cap: Duration,
}

impl Class {
    /// The retry intervals of the class.
    #[must_use]
    pub fn retry(self) -> Retry {
        let range = |first, factor, cap| Retry {
            first: Duration::from_secs(first),
            factor,
            cap: Duration::from_secs(cap),
        };
        match self {
            Self::Done => range(0, 1.0, 0),
            Self::Transitional => range(5, 1.5, 60),
            Self::Transient => range(1, 2.0, 5 * 60),
            // Used if the cloud names no wait: the next one-minute window begins within 60 s.
            Self::Throttled => range(1, 2.0, 60),
            Self::Absent => range(60, 2.0, 15 * 60),
            Self::Blocked => range(5 * 60, 2.0, 30 * 60),
            Self::Invalid => range(60 * 60, 1.0, 60 * 60),
        }
    }
}

impl Retry {
    /// The wait after `failures` consecutive failures (the first is 1), without jitter.
    #[must_use]
    pub fn delay(self, failures: u32) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1).min(64)).unwrap_or(64);
        let seconds = self.first.as_secs_f64() * self.factor.powi(exponent);
        Duration::from_secs_f64(seconds.min(self.cap.as_secs_f64()))
    }
}

/// The retry intervals in words that hold for every retry.
impl fmt::Display for Retry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cap = short(self.cap);
        if self.first == self.cap {
            write!(f, "next try in {cap}")
        } else {
            write!(f, "next try in {} (backs off to {cap})", short(self.first))
        }
    }
}

fn short(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds % 3600 == 0 => format!("{}h", seconds / 3600),
        seconds if seconds % 60 == 0 => format!("{}m", seconds / 60),
        seconds => format!("{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(class: Class) -> Vec<u64> {
        (1..=9)
            .map(|failures| class.retry().delay(failures).as_secs())
            .collect()
    }

    #[test]
    fn retry_delays_grow_up_to_the_cap_of_their_class() {
        assert_eq!(
            seconds(Class::Transitional),
            [5, 7, 11, 16, 25, 37, 56, 60, 60]
        );
        assert_eq!(
            seconds(Class::Transient),
            [1, 2, 4, 8, 16, 32, 64, 128, 256]
        );
        assert_eq!(
            seconds(Class::Absent),
            [60, 120, 240, 480, 900, 900, 900, 900, 900]
        );
        assert_eq!(
            seconds(Class::Blocked),
            [300, 600, 1200, 1800, 1800, 1800, 1800, 1800, 1800]
        );
        assert_eq!(seconds(Class::Invalid), [3600; 9]);
        for class in [
            Class::Transient,
            Class::Throttled,
            Class::Transitional,
            Class::Absent,
            Class::Blocked,
        ] {
            assert_eq!(
                class.retry().delay(u32::MAX),
                class.retry().cap,
                "{class:?}"
            );
            assert_eq!(class.retry().delay(0), class.retry().first, "{class:?}");
        }
    }
}
