//! When an object is requeued if nothing else enqueues it.

use std::time::Duration;

use tokio::time::Instant;

use crate::clock::Clock;
use crate::ecs::{Class, Error};

use super::super::decide::ReconcileOutcome;
use super::{History, Rare, Standing};

impl History {
    /// Counts a pass that failed to write to the API server. Returns the wait before the next try; `clock` supplies its jitter.
    pub fn after_error(&mut self, clock: &Clock) -> Duration {
        let rare = self.rare();
        rare.errors = rare.errors.saturating_add(1);
        wait(rare.errors, Class::Transient, clock)
    }

    /// Counts a pass that met a write of somebody else. Returns the wait before the next try (at most 4 s); `clock` supplies its
    /// jitter.
    pub fn after_conflict(&mut self, clock: &Clock) -> Duration {
        let rare = self.rare();
        rare.errors = rare.errors.saturating_add(1);
        wait(rare.errors.min(3), Class::Transient, clock)
    }

    /// Whether the last pass failed to write to the API server.
    #[must_use]
    pub fn is_failing(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| {
            rare.errors > 0 || rare.last == Some(ReconcileOutcome::WriteRefused)
        })
    }

    /// When the last returned wait ends, if it has not ended.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        let due = self.rare.as_ref()?.due?;
        (due > Instant::now()).then_some(due)
    }

    /// Records how a pass ended. Returns when the object is requeued if nothing else enqueues it; `clock` supplies the jitter.
    ///
    /// Clears the API server errors and the watch lag, and counts repeats of the same `outcome`. What holds nothing useful is
    /// dropped.
    ///
    /// `failure` is the cloud's error, which may name the shortest wait (`x-acs-retry-after`). It counts up to the longest wait
    /// of the error's class. `due` is when a read of the edge will count, and in a repair loop when the next repair is allowed.
    /// `counts_at` is when a read will tell whether a Join of ours has made the missing edge: it is requeued then at the latest, for what
    /// others make until that read is taken for ours.
    pub fn requeue_after(
        &mut self,
        outcome: ReconcileOutcome,
        failure: Option<&Error>,
        due: Instant,
        counts_at: Option<Instant>,
        clock: &Clock,
    ) -> Option<Duration> {
        let wait = self.wait_after(outcome, failure, due, clock);
        let counts_in = counts_at.map(|at| at.saturating_duration_since(Instant::now()));
        let counts_in = counts_in.filter(|wait| !wait.is_zero());
        let look = counts_in.map(|wait| a_little_after(wait, clock));
        wait.into_iter().chain(look).min()
    }

    fn wait_after(
        &mut self,
        outcome: ReconcileOutcome,
        failure: Option<&Error>,
        due: Instant,
        clock: &Clock,
    ) -> Option<Duration> {
        if outcome == ReconcileOutcome::Gone {
            self.rare = None;
            return None;
        }
        let rare = self.rare();
        rare.count(outcome);
        let until_due = due.saturating_duration_since(Instant::now());
        match outcome {
            ReconcileOutcome::Undecided
            | ReconcileOutcome::Gone
            | ReconcileOutcome::Suspended
            | ReconcileOutcome::AccountUnusable
            // `Admission` enqueues it when the rate limit admits its call.
            | ReconcileOutcome::Failed(Class::Throttled) => None,
            // The periodic scan requeues ready objects that change.
            ReconcileOutcome::Ready { .. } => {
                rare.drift_reported = false;
                if rare.is_of_no_use() {
                    self.rare = None;
                }
                None
            }
            ReconcileOutcome::WouldJoin | ReconcileOutcome::DriftReported => None,
            ReconcileOutcome::Unsettled => Some(a_little_after(until_due, clock)),
            ReconcileOutcome::SuccessorOutOfReach
            | ReconcileOutcome::Unlisted
            | ReconcileOutcome::WriteRefused => {
                Some(rare.again(Class::Transient, failure, clock))
            }
            ReconcileOutcome::RepairLoop => {
                Some(until_due + clock.jittered(Duration::from_secs(60), 0.9))
            }
            ReconcileOutcome::Waiting => Some(rare.again(Class::Transitional, failure, clock)),
            ReconcileOutcome::Unsuitable | ReconcileOutcome::KarpenterNode => {
                Some(rare.again(Class::Invalid, failure, clock))
            }
            ReconcileOutcome::Absent | ReconcileOutcome::AdoptionRefused => {
                Some(rare.again(Class::Absent, failure, clock))
            }
            ReconcileOutcome::Failed(class) => Some(rare.again(class, failure, clock)),
        }
    }
}

impl History {
    /// Whether the last pass waited until a read of the edge counts.
    #[must_use]
    pub fn is_unsettled(&self) -> bool {
        let last = self.rare.as_ref().and_then(|rare| rare.last);
        last == Some(ReconcileOutcome::Unsettled)
    }
}

impl Rare {
    /// Counts a pass that ended like the one before, unless it ran before the wait between them had ended: then the next wait
    /// stays as long.
    fn count(&mut self, outcome: ReconcileOutcome) {
        self.errors = 0;
        self.lagging_since = None;
        let is_due = self.due.is_none_or(|due| due <= Instant::now());
        self.repeats = match self.last {
            Some(last) if last == outcome && is_due => self.repeats.saturating_add(1),
            Some(last) if last == outcome => self.repeats,
            Some(_) | None => 1,
        };
        self.last = Some(outcome);
    }

    fn again(&mut self, class: Class, failure: Option<&Error>, clock: &Clock) -> Duration {
        let asked = failure.and_then(Error::retry_after);
        let asked = asked.map(|asked| a_little_after(asked.min(class.retry().cap), clock));
        let wait = wait(self.repeats, class, clock);
        let wait = asked.map_or(wait, |asked| wait.max(asked));
        self.due = Some(Instant::now() + wait);
        wait
    }

    /// Whether this part of a ready object can be dropped.
    fn is_of_no_use(&self) -> bool {
        self.pending_description.is_none()
            && self.standing == Standing::Unknown
            && self.found_intent_at.is_none()
            && !self.ignored_claim_reported
    }
}

fn wait(repeats: u32, class: Class, clock: &Clock) -> Duration {
    let delay = class.retry().delay(repeats);
    match class {
        // Full jitter, but at least half the first wait: objects that failed together must not retry together.
        Class::Transient => clock.within(class.retry().first / 2..delay),
        Class::Done
        | Class::Transitional
        | Class::Throttled
        | Class::Absent
        | Class::Blocked
        | Class::Invalid => clock.jittered(delay, 0.1),
    }
}

/// Objects that were told the same time must not come back together.
fn a_little_after(wait: Duration, clock: &Clock) -> Duration {
    wait + clock.within(Duration::from_millis(50)..Duration::from_secs(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_a_deleted_object_is_forgotten() {
        let (mut a, mut b) = (History::default(), History::default());
        assert!(a.first_report_of_drift() && b.first_report_of_drift());
        let _ = a.requeue_after(
            ReconcileOutcome::Gone,
            None,
            Instant::now(),
            None,
            &Clock::default(),
        );
        let _ = b.requeue_after(
            ReconcileOutcome::Suspended,
            None,
            Instant::now(),
            None,
            &Clock::default(),
        );
        assert!(a.first_report_of_drift() && !b.first_report_of_drift());
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_grows_and_resets_with_another_failure() {
        let mut history = History::default();
        let failed = ReconcileOutcome::Failed(Class::Blocked);
        let mut wait = |outcome| {
            let _ = history.requeue_after(outcome, None, Instant::now(), None, &Clock::default());
            let repeats = history.rare().repeats;
            super::wait(repeats, Class::Blocked, &Clock::default())
        };
        let retry = Class::Blocked.retry();
        let about = |wait: Duration, minimum: Duration| {
            wait >= minimum.mul_f64(0.9) && wait <= minimum.mul_f64(1.1)
        };
        assert!(about(wait(failed), retry.first));
        for _ in 0..20 {
            assert!(about(wait(failed), retry.first), "asked for in between");
        }
        for _ in 0..20 {
            tokio::time::advance(retry.cap * 2).await;
            wait(failed);
        }
        assert!(about(wait(failed), retry.cap));
        assert!(about(wait(ReconcileOutcome::Absent), retry.first));
    }

    #[test]
    fn transient_retries_are_spread_up_to_the_cap() {
        let retry = Class::Transient.retry();
        let waits: Vec<Duration> = (0..1_000)
            .map(|_| wait(20, Class::Transient, &Clock::default()))
            .collect();
        let (first, last) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*first >= retry.first / 2 && *first < retry.cap / 10);
        assert!(*last <= retry.cap && *last > retry.cap.mul_f64(0.9));
    }

    #[tokio::test(start_paused = true)]
    async fn api_server_errors_back_off_until_a_success() {
        let mut history = History::default();
        let retry = Class::Transient.retry();
        assert!(history.after_error(&Clock::default()) <= retry.first.mul_f64(1.5));
        for _ in 0..20 {
            assert!(history.after_error(&Clock::default()) > Duration::ZERO);
        }
        let waits = (0..100).map(|_| history.after_error(&Clock::default()));
        assert!(waits.max().unwrap() >= retry.cap.mul_f64(0.5));
        let _ = history.requeue_after(
            ReconcileOutcome::Suspended,
            None,
            Instant::now(),
            None,
            &Clock::default(),
        );
        assert!(history.after_error(&Clock::default()) <= retry.first.mul_f64(1.5));
    }

    #[tokio::test(start_paused = true)]
    async fn look_at_a_read_that_counts_comes_before_a_longer_wait_only() {
        let seconds = Duration::from_secs;
        for (outcome, counts_in, least, most) in [
            (ReconcileOutcome::Failed(Class::Blocked), Some(76), 76, 78),
            (
                ReconcileOutcome::Failed(Class::Blocked),
                Some(900),
                270,
                330,
            ),
            (ReconcileOutcome::Failed(Class::Blocked), Some(0), 270, 330),
            (ReconcileOutcome::WouldJoin, Some(76), 76, 78),
        ] {
            let mut history = History::default();
            let now = Instant::now();
            let counts_at = counts_in.map(|after| now + seconds(after));
            let next = history.requeue_after(outcome, None, now, counts_at, &Clock::default());
            let next = next.unwrap();
            let told = format!("{outcome:?} {counts_in:?}: {next:?}");
            assert!((seconds(least)..=seconds(most)).contains(&next), "{told}");
        }
        let none = History::default().requeue_after(
            ReconcileOutcome::WouldJoin,
            None,
            Instant::now(),
            None,
            &Clock::default(),
        );
        assert_eq!(none, None);
    }

    #[tokio::test(start_paused = true)]
    async fn cloud_names_the_shortest_wait_after_any_error() {
        let unavailable = |retry_after| {
            let action = crate::ecs::Action::JoinSecurityGroup;
            Error::Api(crate::ecs::ApiError {
                retry_after,
                ..crate::ecs::ApiError::of(action, 503, "ServiceUnavailable")
            })
        };
        let outcome = ReconcileOutcome::Failed(Class::Transient);
        let seconds = Duration::from_secs;
        let cap = Class::Transient.retry().cap;
        for (asked, least, most) in [
            (None, Duration::ZERO, seconds(1)),
            (Some(seconds(40)), seconds(40), seconds(42)),
            (Some(seconds(3_600)), cap, cap + seconds(2)),
        ] {
            let mut history = History::default();
            let error = unavailable(asked);
            let _ = history.requeue_after(
                outcome,
                Some(&error),
                Instant::now(),
                None,
                &Clock::default(),
            );
            let due = history.rare().due.unwrap();
            let wait = due.duration_since(Instant::now());
            assert!((least..=most).contains(&wait), "{asked:?}: {wait:?}");
        }
    }
}
