//! The cloud's error codes as data: what each means to the loop, and what its reader does next. Pure.

use std::time::Duration;

use super::action::Action;

/// What the loop does about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The edge is as wanted already.
    Done,
    /// The target is between states: wait, do not call.
    Transitional,
    /// Try again soon.
    Transient,
    /// The account's calls of this minute are used up.
    Throttled,
    /// The target or the group does not exist.
    Absent,
    /// A human or another system must act.
    Blocked,
    /// The spec can never work as it is.
    Invalid,
}

/// When to try again: `first` after the first failure, then longer by `factor` up to `cap`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Retry {
    /// After the first failure.
    pub first: Duration,
    /// By which each wait is longer than the one before.
    pub factor: f64,
    /// At most.
    pub cap: Duration,
}

impl Class {
    /// The retry range of the class.
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
            // Where the cloud does not say how long: the next minute's window, which begins within this range.
            Self::Throttled => range(1, 2.0, 60),
            Self::Absent => range(60, 2.0, 15 * 60),
            Self::Blocked => range(5 * 60, 2.0, 30 * 60),
            Self::Invalid => range(60 * 60, 1.0, 60 * 60),
        }
    }
}

impl Retry {
    /// The wait after `failures` failures in a row (the first is 1), without jitter.
    #[must_use]
    pub fn delay(self, failures: u32) -> Duration {
        let exponent = i32::try_from(failures.saturating_sub(1).min(64)).unwrap_or(64);
        let seconds = self.first.as_secs_f64() * self.factor.powi(exponent);
        Duration::from_secs_f64(seconds.min(self.cap.as_secs_f64()))
    }
}

/// What the table says about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What the loop does.
    pub class: Class,
    /// Whether the code is in the table; a metric counts those that are not.
    pub known: bool,
    /// One sentence for the user: what to do next.
    pub hint: &'static str,
}

/// Looks a code up for the action that met it.
#[must_use]
pub fn verdict(_action: Action, _status: u16, _code: &str, _message: &str) -> Verdict {
    Verdict {
        class: Class::Transient,
        known: false,
        hint: "",
    }
}
