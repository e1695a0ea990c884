//! What is remembered of an object between its passes and may be lost with the process: failures in a row, repairs. No I/O.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::ecs::{Class, Error, TargetDescription};

use super::decide::{REPAIR_LIMIT, REPAIR_WINDOW_MINUTES, ReconcileOutcome};
use super::scan::CLOUD_READ_LAG;

/// How often an edge is repaired that is undone again and again.
const LOOP_PERIOD: Duration = Duration::from_secs(60 * 60);
/// How long a pass waits for the watch to show our own last write. Longer than that, the API server has gone back in time
/// (a restored backup), and what it shows is what counts.
const WATCH_LAG: Duration = Duration::from_secs(5);

/// The history of all passes, by UID.
#[derive(Debug, Default)]
pub struct History {
    entries: Mutex<HashMap<String, Rare>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Rare {
    last: Option<ReconcileOutcome>,
    /// Since when the target is between states.
    waits_since: Option<Timestamp>,
    repeats: u32,
    /// When the last wait ends.
    due: Option<Instant>,
    errors: u32,
    repairs: Vec<Instant>,
    /// While repairs are undone again and again: when the next one is allowed.
    next_repair: Option<Instant>,
    drift_reported: bool,
    pending_description: Option<TargetDescription>,
    lagging_since: Option<Instant>,
    /// Since when Leave is answered with 403.
    forbidden_since: Option<Instant>,
    /// Whether nothing can have been joined under the claim: every Join since it was written was refused, or never made.
    never_joined: bool,
}

impl History {
    /// Remembers nothing yet; what is tried again is spread by this clock.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            entries: Mutex::default(),
            clock,
        }
    }

    /// Forgets an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.lock().remove(uid);
    }

    /// Repairs within the window, as far as they forbid another one: in a repair loop one is allowed an hour.
    pub fn repairs(&self, uid: &str) -> usize {
        let mut entries = self.lock();
        let Some(entry) = entries.get_mut(uid) else {
            return 0;
        };
        if let Some(next) = entry.next_repair {
            let allowed = Instant::now() >= next;
            return if allowed { 0 } else { REPAIR_LIMIT };
        }
        entry
            .repairs
            .retain(|at| at.elapsed() < Duration::from_secs(REPAIR_WINDOW_MINUTES * 60));
        entry.repairs.len()
    }

    /// Keeps what a pass saw of a target that has to wait for its turn within the cloud's limit; `None` when it need not.
    pub fn keep_pending_description(&self, uid: &str, description: Option<TargetDescription>) {
        let mut entries = self.lock();
        match description {
            Some(description) => {
                entries
                    .entry(uid.to_owned())
                    .or_default()
                    .pending_description = Some(description);
            }
            None => {
                if let Some(entry) = entries.get_mut(uid) {
                    entry.pending_description = None;
                }
            }
        }
    }

    /// What the last pass saw, if it ended waiting for its turn.
    pub fn pending_description(&self, uid: &str) -> Option<TargetDescription> {
        self.lock().get(uid)?.pending_description.clone()
    }

    /// Whether nothing can have been joined under the object's claim. False after a restart: then nobody knows.
    pub fn may_have_joined(&self, uid: &str) -> bool {
        !self.lock().get(uid).is_some_and(|entry| entry.never_joined)
    }

    /// Whether something may have been joined under the object's claim from now on.
    pub fn set_may_have_joined(&self, uid: &str, may_have_joined: bool) {
        let mut entries = self.lock();
        match entries.get_mut(uid) {
            Some(entry) => entry.never_joined = !may_have_joined,
            None if may_have_joined => {}
            None => entries.entry(uid.to_owned()).or_default().never_joined = true,
        }
    }

    /// Since when the target of a pass that ends so is between states; none where it is not. `told` is what the object says
    /// of it: it counts where this process has seen nothing of the wait yet.
    pub fn waits_since(
        &self,
        uid: &str,
        outcome: ReconcileOutcome,
        reported: impl FnOnce() -> Timestamp,
    ) -> Option<Timestamp> {
        let mut entries = self.lock();
        let waits = matches!(
            outcome,
            ReconcileOutcome::Waiting | ReconcileOutcome::Failed(Class::Transitional)
        );
        if !waits {
            if let Some(entry) = entries.get_mut(uid) {
                entry.waits_since = None;
            }
            return None;
        }
        let entry = entries.entry(uid.to_owned()).or_default();
        Some(*entry.waits_since.get_or_insert_with(reported))
    }

    /// Counts a repair.
    pub fn repaired(&self, uid: &str) {
        let mut entries = self.lock();
        let entry = entries.entry(uid.to_owned()).or_default();
        entry.repairs.push(Instant::now());
        entry.drift_reported = false;
        if entry.next_repair.is_some() {
            entry.next_repair = Some(Instant::now() + LOOP_PERIOD);
        }
    }

    /// Whether this drift has not been told yet.
    pub fn first_report_of_drift(&self, uid: &str) -> bool {
        let mut entries = self.lock();
        let entry = entries.entry(uid.to_owned()).or_default();
        !std::mem::replace(&mut entry.drift_reported, true)
    }

    /// Whether a pass may still wait for the watch to catch up with our own write.
    pub fn within_watch_lag(&self, uid: &str) -> bool {
        let mut entries = self.lock();
        let entry = entries.entry(uid.to_owned()).or_default();
        let since = *entry.lagging_since.get_or_insert_with(Instant::now);
        since.elapsed() < WATCH_LAG
    }

    /// Leave was answered with 403. Whether that has been so for long enough for a read not to lag behind our own Join: only
    /// then a read that does not show the edge says that it is gone.
    pub fn leave_is_forbidden(&self, uid: &str) -> bool {
        let mut entries = self.lock();
        let entry = entries.entry(uid.to_owned()).or_default();
        let since = *entry.forbidden_since.get_or_insert_with(Instant::now);
        since.elapsed() >= CLOUD_READ_LAG
    }

    /// The wait after a pass that could not write to the API server.
    pub fn after_error(&self, uid: &str) -> Duration {
        let mut entries = self.lock();
        let entry = entries.entry(uid.to_owned()).or_default();
        entry.errors = entry.errors.saturating_add(1);
        self.wait(entry.errors, Class::Transient)
    }

    /// When the object is looked at again without a change and without being enqueued.
    pub fn requeue_after(
        &self,
        uid: &str,
        outcome: ReconcileOutcome,
        failure: Option<&Error>,
        stopped_until: Option<Instant>,
    ) -> Action {
        if outcome == ReconcileOutcome::Gone {
            self.forget(uid);
            return Action::await_change();
        }
        let mut entries = self.lock();
        let entry = entries.entry(uid.to_owned()).or_default();
        entry.errors = 0;
        entry.lagging_since = None;
        // A look that was asked for in between makes no wait longer.
        let is_due = entry.due.is_none_or(|due| due <= Instant::now());
        entry.repeats = match entry.last {
            Some(last) if last == outcome && is_due => entry.repeats.saturating_add(1),
            Some(last) if last == outcome => entry.repeats,
            Some(_) | None => 1,
        };
        entry.last = Some(outcome);
        match outcome {
            ReconcileOutcome::Undecided
            | ReconcileOutcome::Gone
            | ReconcileOutcome::Suspended
            | ReconcileOutcome::AccountUnusable => Action::await_change(),
            // The scanner looks at them.
            ReconcileOutcome::Ready { .. } => {
                entry.leave_loop();
                entry.drift_reported = false;
                if entry.is_of_no_use() {
                    entries.remove(uid);
                }
                Action::await_change()
            }
            ReconcileOutcome::WouldJoin | ReconcileOutcome::DriftReported => {
                entry.leave_loop();
                Action::await_change()
            }
            ReconcileOutcome::RepairLoop => {
                let next = *entry
                    .next_repair
                    .get_or_insert_with(|| Instant::now() + LOOP_PERIOD);
                let wait = next.saturating_duration_since(Instant::now());
                Action::requeue(wait + self.clock.jittered(Duration::from_secs(60), 0.9))
            }
            ReconcileOutcome::Failed(Class::Throttled) => {
                Action::requeue(self.throttle_wait(failure, stopped_until))
            }
            ReconcileOutcome::Waiting => self.again(entry, Class::Transitional),
            ReconcileOutcome::Absent | ReconcileOutcome::AdoptionRefused => {
                self.again(entry, Class::Absent)
            }
            ReconcileOutcome::Failed(class) => self.again(entry, class),
        }
    }

    fn again(&self, entry: &mut Rare, class: Class) -> Action {
        let wait = self.wait(entry.repeats, class);
        entry.due = Some(Instant::now() + wait);
        Action::requeue(wait)
    }

    fn wait(&self, repeats: u32, class: Class) -> Duration {
        let delay = class.retry().delay(repeats);
        match class {
            // Full jitter, though not at once: what failed together shall not come back together.
            Class::Transient => self.clock.within(class.retry().first / 2..delay),
            Class::Done
            | Class::Transitional
            | Class::Throttled
            | Class::Absent
            | Class::Blocked
            | Class::Invalid => self.clock.jittered(delay, 0.1),
        }
    }

    /// To the moment that the cloud named, and a little more, spread.
    fn throttle_wait(&self, failure: Option<&Error>, stopped_until: Option<Instant>) -> Duration {
        let asked = failure.and_then(Error::retry_after);
        let stopped = stopped_until.map(|until| until.saturating_duration_since(Instant::now()));
        let wait = stopped.or(asked).unwrap_or(Class::Throttled.retry().cap);
        wait + self
            .clock
            .within(Duration::from_millis(50)..Duration::from_secs(2))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Rare>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rare {
    /// An edge that stayed for a whole period after its repair is in no loop any more.
    fn leave_loop(&mut self) {
        if self.next_repair.is_some_and(|next| next <= Instant::now()) {
            self.next_repair = None;
            self.repairs.clear();
        }
    }

    /// Of an edge that is as it should be, only its repairs matter: most objects need no entry.
    fn is_of_no_use(&self) -> bool {
        self.repairs.is_empty()
            && self.next_repair.is_none()
            && self.pending_description.is_none()
            && !self.never_joined
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn repairs_count_for_half_an_hour() {
        let history = History::default();
        history.repaired("a");
        history.repaired("a");
        assert_eq!(history.repairs("a"), 2);
        tokio::time::advance(Duration::from_secs(31 * 60)).await;
        assert_eq!(history.repairs("a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn repair_loop_allows_one_repair_per_hour() {
        let history = History::default();
        for _ in 0..REPAIR_LIMIT {
            history.repaired("a");
        }
        assert_eq!(history.repairs("a"), REPAIR_LIMIT);
        let _ = history.requeue_after("a", ReconcileOutcome::RepairLoop, None, None);
        tokio::time::advance(Duration::from_secs(59 * 60)).await;
        assert_eq!(
            history.repairs("a"),
            REPAIR_LIMIT,
            "the window alone does not end the loop"
        );
        tokio::time::advance(Duration::from_secs(2 * 60)).await;
        assert_eq!(history.repairs("a"), 0);
        history.repaired("a");
        assert_eq!(history.repairs("a"), REPAIR_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn wait_for_the_watch_is_limited() {
        let history = History::default();
        assert!(history.within_watch_lag("a"));
        tokio::time::advance(WATCH_LAG).await;
        assert!(!history.within_watch_lag("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn repair_counts_until_its_window_ends() {
        let history = History::default();
        history.repaired("a");
        tokio::time::advance(Duration::from_secs(REPAIR_WINDOW_MINUTES * 60 - 1)).await;
        assert_eq!(history.repairs("a"), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(history.repairs("a"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn edge_stable_for_a_period_ends_its_repair_loop() {
        let ready = ReconcileOutcome::WouldJoin;
        let history = History::default();
        for _ in 0..REPAIR_LIMIT {
            history.repaired("a");
        }
        let _ = history.requeue_after("a", ReconcileOutcome::RepairLoop, None, None);
        let _ = history.requeue_after("a", ready, None, None);
        assert_eq!(history.repairs("a"), REPAIR_LIMIT, "it has not stayed yet");
        tokio::time::advance(LOOP_PERIOD).await;
        history.repaired("a");
        tokio::time::advance(LOOP_PERIOD).await;
        let _ = history.requeue_after("a", ready, None, None);
        history.repaired("a");
        assert_eq!(history.repairs("a"), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn forbidden_leave_counts_after_the_read_lag() {
        let history = History::default();
        assert!(!history.leave_is_forbidden("a"));
        tokio::time::advance(
            CLOUD_READ_LAG
                .checked_sub(Duration::from_millis(1))
                .unwrap(),
        )
        .await;
        assert!(!history.leave_is_forbidden("a"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(history.leave_is_forbidden("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn drift_is_reported_once_until_repaired() {
        let history = History::default();
        assert!(history.first_report_of_drift("a"));
        assert!(!history.first_report_of_drift("a"));
        history.repaired("a");
        assert!(history.first_report_of_drift("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn only_deleted_objects_are_forgotten() {
        let history = History::default();
        history.repaired("a");
        history.repaired("b");
        let _ = history.requeue_after("a", ReconcileOutcome::Gone, None, None);
        let _ = history.requeue_after("b", ReconcileOutcome::Suspended, None, None);
        assert_eq!((history.repairs("a"), history.repairs("b")), (0, 1));
        history.forget("b");
        assert_eq!(history.repairs("b"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_grows_and_resets_with_another_failure() {
        let history = History::default();
        let failed = ReconcileOutcome::Failed(Class::Blocked);
        let wait = |outcome| {
            let _ = history.requeue_after("a", outcome, None, None);
            let repeats = history.lock()["a"].repeats;
            history.wait(repeats, Class::Blocked)
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
        let history = History::default();
        let retry = Class::Transient.retry();
        let waits: Vec<Duration> = (0..1_000)
            .map(|_| history.wait(20, Class::Transient))
            .collect();
        let (first, last) = (waits.iter().min().unwrap(), waits.iter().max().unwrap());
        assert!(*first >= retry.first / 2 && *first < retry.cap / 10);
        assert!(*last <= retry.cap && *last > retry.cap.mul_f64(0.9));
    }

    #[test]
    fn never_joined_holds_until_a_join_may_have_succeeded() {
        let history = History::default();
        history.set_may_have_joined("a", true);
        assert!(history.may_have_joined("a"), "nobody knows");
        history.set_may_have_joined("a", false);
        assert!(!history.may_have_joined("a") && history.may_have_joined("b"));
        history.set_may_have_joined("a", true);
        assert!(history.may_have_joined("a"));
    }

    #[tokio::test(start_paused = true)]
    async fn api_server_errors_back_off_until_a_success() {
        let history = History::default();
        let retry = Class::Transient.retry();
        assert!(history.after_error("a") <= retry.first.mul_f64(1.5));
        for _ in 0..20 {
            assert!(history.after_error("a") > Duration::ZERO);
        }
        let waits = (0..100).map(|_| history.after_error("a"));
        assert!(waits.max().unwrap() >= retry.cap.mul_f64(0.5));
        let _ = history.requeue_after("a", ReconcileOutcome::Suspended, None, None);
        assert!(history.after_error("a") <= retry.first.mul_f64(1.5));
    }

    #[tokio::test(start_paused = true)]
    async fn throttle_wait_ends_shortly_after_the_throttle() {
        let history = History::default();
        let until = Instant::now() + Duration::from_secs(10);
        for _ in 0..100 {
            let wait = history.throttle_wait(None, Some(until));
            assert!(wait > Duration::from_secs(10) && wait < Duration::from_secs(12));
        }
        assert!(history.throttle_wait(None, None) > Class::Throttled.retry().cap);
    }

    #[test]
    fn pending_description_is_kept_until_cleared() {
        let history = History::default();
        let seen = TargetDescription {
            state: crate::ecs::TargetState::Running,
            vpc_id: None,
            lock_reasons: Vec::new(),
            security_group_ids: std::collections::BTreeSet::new(),
            service_managed: false,
        };
        history.keep_pending_description("a", Some(seen));
        assert!(
            history.pending_description("a").is_some()
                && history.pending_description("b").is_none()
        );
        history.keep_pending_description("a", None);
        assert!(history.pending_description("a").is_none());
    }
}
