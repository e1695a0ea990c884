//! Whether an account's endpoints answer, from what its calls met. Makes no calls.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::ecs::Error;

/// What the calls of one account met so far, those of its check at STS included.
#[derive(Debug, Default)]
pub struct Reach(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    answered: bool,
    failing: Option<Failing>,
    /// Whether some targets of the account have not been read for three scan periods.
    unread: bool,
}

/// Calls without a usable answer, since the last one that had one.
#[derive(Debug)]
struct Failing {
    first: Instant,
    last: Instant,
    message: String,
}

/// What an account can say of its endpoints.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reachability {
    /// The last call got a usable answer.
    Answering,
    /// No call got one for long.
    NoAnswer {
        /// The host, what happened, and what to check.
        message: String,
    },
    /// The endpoints answer, but some targets could not be read for three scan periods.
    NotObserved,
}

impl Reach {
    /// Records how a call ended. A refusal is an answer, too.
    pub fn note(&self, error: Option<&Error>, host: impl FnOnce() -> String) {
        let mut state = self.lock();
        let Some(error) = error.filter(|error| !error.is_usable_answer()) else {
            state.answered = true;
            state.failing = None;
            return;
        };
        let now = Instant::now();
        let first = state.failing.as_ref().map_or(now, |failing| failing.first);
        let message = format!(
            "no usable answer from {}: {}; {}",
            host(),
            error.to_string().trim_end_matches('.'),
            error.hint()
        );
        state.failing = Some(Failing {
            first,
            last: now,
            message,
        });
    }

    /// Records whether some targets of the account have not been read for three scan periods.
    pub fn note_unread(&self, unread: bool) {
        self.lock().unread = unread;
    }

    /// What is known now: nothing before the first call, and nothing new while calls have failed for less than `limit`. Two
    /// failures that far apart with no answer between them are needed: an account that makes no calls stays as it is.
    #[must_use]
    pub fn reachability(&self, limit: Duration) -> Option<Reachability> {
        let state = self.lock();
        match &state.failing {
            None if state.unread => Some(Reachability::NotObserved),
            None => state.answered.then_some(Reachability::Answering),
            Some(failing) if failing.last.duration_since(failing.first) >= limit => {
                let message = failing.message.clone();
                Some(Reachability::NoAnswer { message })
            }
            Some(_) => None,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use crate::ecs::{Action, TransportError};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(180);

    #[tokio::test(start_paused = true)]
    async fn no_answer_needs_failures_over_three_periods() {
        let reach = Reach::default();
        let action = Action::DescribeInstances;
        let silence = Error::Transport {
            action,
            source: TransportError::Timeout {
                after: Duration::from_secs(10),
            },
        };
        let page = Error::BadAnswer {
            action,
            status: 200,
            what: "it is no JSON".to_owned(),
        };
        let row = Error::BadRow {
            action,
            what: "it has no ID".to_owned(),
        };
        let host = || "ecs.example.com".to_owned();
        assert_eq!(reach.reachability(LIMIT), None);
        reach.note(Some(&silence), host);
        assert_eq!(reach.reachability(LIMIT), None);
        for answer in [None, Some(&row)] {
            reach.note(answer, host);
            assert_eq!(reach.reachability(LIMIT), Some(Reachability::Answering));
            tokio::time::advance(LIMIT * 10).await;
            for failure in [&silence, &page, &silence] {
                reach.note(Some(failure), host);
                assert_eq!(reach.reachability(LIMIT), None);
                tokio::time::advance(LIMIT / 3).await;
            }
            // The time alone says nothing: perhaps nothing was called.
            assert_eq!(reach.reachability(LIMIT), None);
            reach.note(Some(&silence), host);
            let Some(Reachability::NoAnswer { message }) = reach.reachability(LIMIT) else {
                panic!("{reach:?}");
            };
            assert!(
                message.starts_with("no usable answer from ecs.example.com: DescribeInstances "),
                "{message}"
            );
        }
    }
}
