//! A value and when it changed, future included: pure. It is how the simulated cloud has intermediate states and a lagging
//! Describe without a clock or a thread: every reader says for which moment it asks.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// A value over time. Entries are sorted by time; those that lie ahead are transitions that nobody has to fire.
#[derive(Clone, Debug)]
pub struct Timeline<T> {
    first: T,
    changes: VecDeque<(Timestamp, T)>,
}

impl<T> Timeline<T> {
    /// A value that has always been so.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self {
            first: value,
            changes: VecDeque::new(),
        }
    }

    /// The value at a moment.
    #[must_use]
    pub fn at(&self, moment: Timestamp) -> &T {
        self.changes
            .iter()
            .rev()
            .find(|(from, _)| *from <= moment)
            .map_or(&self.first, |(_, value)| value)
    }

    /// The value from `now` on. What was planned for later is given up; what nobody can ask for any more is forgotten.
    pub fn set(&mut self, now: Timestamp, value: T) {
        while self.changes.back().is_some_and(|(from, _)| *from >= now) {
            self.changes.pop_back();
        }
        self.changes.push_back((now, value));
        self.forget(earlier(now, MEMORY));
    }

    /// The value from a later moment on, behind everything that is planned already.
    pub fn plan(&mut self, from: Timestamp, value: T) {
        self.changes.push_back((from, value));
    }

    fn forget(&mut self, before: Timestamp) {
        while self.changes.get(1).is_some_and(|(from, _)| *from <= before) {
            self.changes.pop_front();
        }
        if self
            .changes
            .front()
            .is_some_and(|(from, _)| *from <= before)
            && let Some((_, value)) = self.changes.pop_front()
        {
            self.first = value;
        }
    }
}

/// How far back a lagging Describe can look.
pub const MEMORY: Duration = Duration::from_secs(600);

/// `now + by`, never past the end of time.
#[must_use]
pub fn later(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_add(by).unwrap_or(Timestamp::MAX)
}

/// `now - by`, never before the start of time.
#[must_use]
pub fn earlier(now: Timestamp, by: Duration) -> Timestamp {
    now.checked_sub(by).unwrap_or(Timestamp::MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn planned_transition_happens_unless_overwritten() {
        let mut status = Timeline::new("Stopped");
        status.set(second(10), "Starting");
        status.plan(second(20), "Running");
        assert_eq!(*status.at(second(9)), "Stopped");
        assert_eq!(*status.at(second(10)), "Starting");
        assert_eq!(*status.at(second(20)), "Running");
        status.set(second(15), "Stopping");
        assert_eq!(*status.at(second(100)), "Stopping");
        assert_eq!(*status.at(second(12)), "Starting");
    }

    #[test]
    fn timeline_does_not_grow_without_bound() {
        let mut groups = Timeline::new(0);
        for round in 0..10_000 {
            groups.set(second(round), round);
        }
        assert!(groups.changes.len() <= 602, "{}", groups.changes.len());
        assert_eq!(*groups.at(second(9_500)), 9_500);
    }
}
