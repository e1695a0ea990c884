//! A value with its past and planned changes: pure. Gives the simulated cloud intermediate states and a lagging Describe
//! without a clock or a thread: every reader names its time.

use std::collections::VecDeque;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

/// A value over time. Entries are sorted by time. Future entries are transitions that take effect without further action.
#[derive(Clone, Debug)]
pub struct Timeline<T> {
    first: T,
    changes: VecDeque<(Timestamp, T)>,
}

impl<T> Timeline<T> {
    /// A value that has never changed.
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

    /// Sets the value from `now` on. Drops planned changes, and those too old to be read.
    pub fn set(&mut self, now: Timestamp, value: T) {
        while self.changes.back().is_some_and(|(from, _)| *from >= now) {
            self.changes.pop_back();
        }
        self.changes.push_back((now, value));
        self.forget(earlier(now, MEMORY));
    }

    /// Plans a value from a later time on, after all planned changes.
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

/// Longest lag of Describe (10 minutes).
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
