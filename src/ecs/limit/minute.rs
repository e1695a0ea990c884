//! The calls that began within the last minute, for a limit that holds in every minute and not only in those of a clock. Pure.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// A minute.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// When the calls of the last minute began, the oldest first.
#[derive(Debug, Default)]
pub(super) struct LastMinute(VecDeque<Instant>);

impl LastMinute {
    /// When the next call may begin, so that no minute has more than `most`; in the past if it may begin now.
    pub(super) fn next(&mut self, most: u32, now: Instant) -> Instant {
        while self.0.front().is_some_and(|begun| is_over(*begun, now)) {
            self.0.pop_front();
        }
        let most = usize::try_from(most).unwrap_or(usize::MAX);
        let waits_for = self.0.len().checked_sub(most);
        let begun = waits_for.and_then(|index| self.0.get(index));
        begun.map_or(now, |begun| *begun + MINUTE)
    }

    /// Counts a call. The clock of a caller may be a little behind that of another one.
    pub(super) fn begin(&mut self, now: Instant) {
        let last = self.0.back().copied();
        self.0.push_back(last.map_or(now, |last| last.max(now)));
    }

    /// Counts `calls` that began at unknown moments of this minute, as if they had begun now.
    pub(super) fn fill(&mut self, calls: f64, most: u32, now: Instant) {
        let mut filled = 0.0;
        while filled < calls.min(f64::from(most)) {
            self.begin(now);
            filled += 1.0;
        }
    }

    /// Takes back a call that was counted at `begun`.
    pub(super) fn take_back(&mut self, begun: Instant, now: Instant) {
        if is_over(begun, now) {
            return;
        }
        let index = self.0.partition_point(|other| *other < begun);
        self.0.remove(index);
    }
}

fn is_over(begun: Instant, now: Instant) -> bool {
    begun + MINUTE <= now
}
