//! What passes remember of an object between runs: consecutive failures, repairs, waits. In memory only, lost with the
//! process. No I/O.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::runtime::controller::Action;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::ecs::{Class, Error, TargetDescription};
use crate::kubernetes::ObjectUid;

use super::decide::{REPAIR_LIMIT, REPAIR_WINDOW_MINUTES, ReconcileOutcome};
use super::observation::CLOUD_READ_LAG;
use super::status::Ending;

/// In a repair loop, one repair is allowed per this period (1 hour).
const LOOP_PERIOD: Duration = Duration::from_secs(60 * 60);
/// How long a pass waits for the watch to show our own last write. A longer lag means that the API server has lost the write
/// (a restored backup); then the watched object counts.
pub(super) const WATCH_LAG: Duration = Duration::from_secs(5);

/// The history of all passes, by UID.
#[derive(Debug, Default)]
pub struct History {
    entries: Mutex<HashMap<ObjectUid, Rare>>,
    clock: Clock,
}

#[derive(Debug, Default)]
struct Rare {
    last: Option<ReconcileOutcome>,
    /// Since when the target has been between states.
    waits_since: Option<Timestamp>,
    repeats: u32,
    /// When the last returned wait ends.
    due: Option<Instant>,
    errors: u32,
    repairs: Vec<Instant>,
    /// When the next repair is allowed; set only in a repair loop.
    next_repair: Option<Instant>,
    drift_reported: bool,
    pending_description: Option<TargetDescription>,
    lagging_since: Option<Instant>,
    /// When Leave was first answered with 403.
    forbidden_since: Option<Instant>,
    /// Whether every Join under the current claim was rejected or never sent.
    never_joined: bool,
    /// What the deletion made of the membership, until the status says so.
    ending: Option<Ending>,
}

impl History {
    /// An empty history. `clock` supplies the jitter of retries.
    #[must_use]
    pub fn new(clock: Clock) -> Self {
        Self {
            entries: Mutex::default(),
            clock,
        }
    }

    /// Forgets a deleted object.
    pub fn forget(&self, uid: &ObjectUid) {
        self.lock().remove(uid);
    }

    /// Number of repairs in the last `REPAIR_WINDOW_MINUTES`, compared by the caller with `REPAIR_LIMIT`. In a repair loop:
    /// 0 when the next repair is allowed (one per hour), else `REPAIR_LIMIT`.
    pub fn repairs(&self, uid: &ObjectUid) -> usize {
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

    /// Stores the description of a target whose pass ended in a rate-limit wait; `None` clears it.
    pub fn keep_pending_description(
        &self,
        uid: &ObjectUid,
        description: Option<TargetDescription>,
    ) {
        let mut entries = self.lock();
        match description {
            Some(description) => {
                entries.entry(uid.clone()).or_default().pending_description = Some(description);
            }
            None => {
                if let Some(entry) = entries.get_mut(uid) {
                    entry.pending_description = None;
                }
            }
        }
    }

    /// The description from the last pass, if that pass ended in a rate-limit wait.
    pub fn pending_description(&self, uid: &ObjectUid) -> Option<TargetDescription> {
        self.lock().get(uid)?.pending_description.clone()
    }

    /// Whether a Join under the object's claim may have taken effect. True after a restart, because the history is empty
    /// then.
    pub fn may_have_joined(&self, uid: &ObjectUid) -> bool {
        !self.lock().get(uid).is_some_and(|entry| entry.never_joined)
    }

    /// Records whether a Join under the current claim may have taken effect.
    pub fn set_may_have_joined(&self, uid: &ObjectUid, may_have_joined: bool) {
        let mut entries = self.lock();
        match entries.get_mut(uid) {
            Some(entry) => entry.never_joined = !may_have_joined,
            None if may_have_joined => {}
            None => entries.entry(uid.clone()).or_default().never_joined = true,
        }
    }

    /// Stores what the deletion of an object has made of its membership, for the status of an object that others keep.
    pub fn keep_ending(&self, uid: &ObjectUid, ending: Ending) {
        self.lock().entry(uid.clone()).or_default().ending = Some(ending);
    }

    /// What the deletion has made of the membership, if the status does not say so yet.
    pub fn ending(&self, uid: &ObjectUid) -> Option<Ending> {
        self.lock().get(uid)?.ending
    }

    /// Start of the current wait for the target, or `None` if `outcome` is not a wait. Falls back to `reported` (from the
    /// object's conditions) after a restart.
    pub fn waits_since(
        &self,
        uid: &ObjectUid,
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
        let entry = entries.entry(uid.clone()).or_default();
        Some(*entry.waits_since.get_or_insert_with(reported))
    }

    /// Records a repair. In a repair loop it also starts the next wait of `LOOP_PERIOD`.
    pub fn repaired(&self, uid: &ObjectUid) {
        let mut entries = self.lock();
        let entry = entries.entry(uid.clone()).or_default();
        entry.repairs.push(Instant::now());
        entry.drift_reported = false;
        if entry.next_repair.is_some() {
            entry.next_repair = Some(Instant::now() + LOOP_PERIOD);
        }
    }

    /// Records that the drift is reported. Returns whether this is the first report since the last repair.
    pub fn first_report_of_drift(&self, uid: &ObjectUid) -> bool {
        let mut entries = self.lock();
        let entry = entries.entry(uid.clone()).or_default();
        !std::mem::replace(&mut entry.drift_reported, true)
    }

    /// Whether a pass may still wait for the watch to show our own write: true for `WATCH_LAG` (5 s) from the first call
    /// since the last finished pass.
    pub fn within_watch_lag(&self, uid: &ObjectUid) -> bool {
        let mut entries = self.lock();
        let entry = entries.entry(uid.clone()).or_default();
        let since = *entry.lagging_since.get_or_insert_with(Instant::now);
        since.elapsed() < WATCH_LAG
    }

    /// Records that Leave was answered with 403. Returns whether the first 403 is at least `CLOUD_READ_LAG` (10 s) old. Only
    /// then does a read without the edge prove that it was removed: a younger read may lag behind our own Join.
    pub fn leave_is_forbidden(&self, uid: &ObjectUid) -> bool {
        let mut entries = self.lock();
        let entry = entries.entry(uid.clone()).or_default();
        let since = *entry.forbidden_since.get_or_insert_with(Instant::now);
        since.elapsed() >= CLOUD_READ_LAG
    }

    /// Counts a pass that failed to write to the API server. Returns the wait before the next try.
    pub fn after_error(&self, uid: &ObjectUid) -> Duration {
        let mut entries = self.lock();
        let entry = entries.entry(uid.clone()).or_default();
        entry.errors = entry.errors.saturating_add(1);
        self.wait(entry.errors, Class::Transient)
    }

    /// Records how a pass ended. Returns when the object is requeued if nothing else enqueues it.
    ///
    /// Changes the entry of the object: clears the API server errors and the watch lag, and counts repeats of the same
    /// `outcome`. An edge that has stayed in place leaves its repair loop. The entry is dropped when it holds nothing
    /// useful, and at once for `Gone`.
    ///
    /// `failure` is the cloud's error, which may name the shortest wait (`x-acs-retry-after`). It counts up to the longest wait
    /// of the error's class.
    pub fn requeue_after(
        &self,
        uid: &ObjectUid,
        outcome: ReconcileOutcome,
        failure: Option<&Error>,
    ) -> Action {
        if outcome == ReconcileOutcome::Gone {
            self.forget(uid);
            return Action::await_change();
        }
        let mut entries = self.lock();
        let entry = entries.entry(uid.clone()).or_default();
        entry.errors = 0;
        entry.lagging_since = None;
        // A pass that runs before the wait has ended does not lengthen the next wait.
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
            | ReconcileOutcome::AccountUnusable
            // `Admission` enqueues it when the rate limit admits its call.
            | ReconcileOutcome::Failed(Class::Throttled) => Action::await_change(),
            // The periodic scan requeues ready objects that change.
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
            ReconcileOutcome::Waiting => self.again(entry, Class::Transitional, failure),
            ReconcileOutcome::Absent | ReconcileOutcome::AdoptionRefused => {
                self.again(entry, Class::Absent, failure)
            }
            ReconcileOutcome::Failed(class) => self.again(entry, class, failure),
        }
    }

    fn again(&self, entry: &mut Rare, class: Class, failure: Option<&Error>) -> Action {
        let asked = failure.and_then(Error::retry_after);
        let asked = asked.map(|asked| self.a_little_after(asked.min(class.retry().cap)));
        let wait = self.wait(entry.repeats, class);
        let wait = asked.map_or(wait, |asked| wait.max(asked));
        entry.due = Some(Instant::now() + wait);
        Action::requeue(wait)
    }

    fn wait(&self, repeats: u32, class: Class) -> Duration {
        let delay = class.retry().delay(repeats);
        match class {
            // Full jitter, but at least half the first wait: objects that failed together must not retry together.
            Class::Transient => self.clock.within(class.retry().first / 2..delay),
            Class::Done
            | Class::Transitional
            | Class::Throttled
            | Class::Absent
            | Class::Blocked
            | Class::Invalid => self.clock.jittered(delay, 0.1),
        }
    }

    /// Objects that were told the same time must not come back together.
    fn a_little_after(&self, wait: Duration) -> Duration {
        wait + self
            .clock
            .within(Duration::from_millis(50)..Duration::from_secs(2))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ObjectUid, Rare>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Rare {
    /// Ends the repair loop if the edge has stayed for `LOOP_PERIOD` since its last repair.
    fn leave_loop(&mut self) {
        if self.next_repair.is_some_and(|next| next <= Instant::now()) {
            self.next_repair = None;
            self.repairs.clear();
        }
    }

    /// Whether the entry of a ready object can be dropped. Most objects need no entry.
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

    fn uid(text: &str) -> ObjectUid {
        text.into()
    }

    #[tokio::test(start_paused = true)]
    async fn repairs_count_for_half_an_hour() {
        let history = History::default();
        history.repaired(&uid("a"));
        history.repaired(&uid("a"));
        assert_eq!(history.repairs(&uid("a")), 2);
        tokio::time::advance(Duration::from_secs(31 * 60)).await;
        assert_eq!(history.repairs(&uid("a")), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn repair_loop_allows_one_repair_per_hour() {
        let history = History::default();
        for _ in 0..REPAIR_LIMIT {
            history.repaired(&uid("a"));
        }
        assert_eq!(history.repairs(&uid("a")), REPAIR_LIMIT);
        let _ = history.requeue_after(&uid("a"), ReconcileOutcome::RepairLoop, None);
        tokio::time::advance(Duration::from_secs(59 * 60)).await;
        assert_eq!(
            history.repairs(&uid("a")),
            REPAIR_LIMIT,
            "the window alone does not end the loop"
        );
        tokio::time::advance(Duration::from_secs(2 * 60)).await;
        assert_eq!(history.repairs(&uid("a")), 0);
        history.repaired(&uid("a"));
        assert_eq!(history.repairs(&uid("a")), REPAIR_LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn wait_for_the_watch_is_limited() {
        let history = History::default();
        assert!(history.within_watch_lag(&uid("a")));
        tokio::time::advance(WATCH_LAG).await;
        assert!(!history.within_watch_lag(&uid("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn repair_counts_until_its_window_ends() {
        let history = History::default();
        history.repaired(&uid("a"));
        tokio::time::advance(Duration::from_secs(REPAIR_WINDOW_MINUTES * 60 - 1)).await;
        assert_eq!(history.repairs(&uid("a")), 1);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(history.repairs(&uid("a")), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn edge_stable_for_a_period_ends_its_repair_loop() {
        let ready = ReconcileOutcome::WouldJoin;
        let history = History::default();
        for _ in 0..REPAIR_LIMIT {
            history.repaired(&uid("a"));
        }
        let _ = history.requeue_after(&uid("a"), ReconcileOutcome::RepairLoop, None);
        let _ = history.requeue_after(&uid("a"), ready, None);
        assert_eq!(
            history.repairs(&uid("a")),
            REPAIR_LIMIT,
            "it has not stayed yet"
        );
        tokio::time::advance(LOOP_PERIOD).await;
        history.repaired(&uid("a"));
        tokio::time::advance(LOOP_PERIOD).await;
        let _ = history.requeue_after(&uid("a"), ready, None);
        history.repaired(&uid("a"));
        assert_eq!(history.repairs(&uid("a")), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn forbidden_leave_counts_after_the_read_lag() {
        let history = History::default();
        assert!(!history.leave_is_forbidden(&uid("a")));
        tokio::time::advance(
            CLOUD_READ_LAG
                .checked_sub(Duration::from_millis(1))
                .unwrap(),
        )
        .await;
        assert!(!history.leave_is_forbidden(&uid("a")));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(history.leave_is_forbidden(&uid("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn drift_is_reported_once_until_repaired() {
        let history = History::default();
        assert!(history.first_report_of_drift(&uid("a")));
        assert!(!history.first_report_of_drift(&uid("a")));
        history.repaired(&uid("a"));
        assert!(history.first_report_of_drift(&uid("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn only_deleted_objects_are_forgotten() {
        let history = History::default();
        history.repaired(&uid("a"));
        history.repaired(&uid("b"));
        let _ = history.requeue_after(&uid("a"), ReconcileOutcome::Gone, None);
        let _ = history.requeue_after(&uid("b"), ReconcileOutcome::Suspended, None);
        assert_eq!(
            (history.repairs(&uid("a")), history.repairs(&uid("b"))),
            (0, 1)
        );
        history.forget(&uid("b"));
        assert_eq!(history.repairs(&uid("b")), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn backoff_grows_and_resets_with_another_failure() {
        let history = History::default();
        let failed = ReconcileOutcome::Failed(Class::Blocked);
        let wait = |outcome| {
            let _ = history.requeue_after(&uid("a"), outcome, None);
            let repeats = history.lock()[&uid("a")].repeats;
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
        history.set_may_have_joined(&uid("a"), true);
        assert!(history.may_have_joined(&uid("a")), "unknown counts as yes");
        history.set_may_have_joined(&uid("a"), false);
        assert!(!history.may_have_joined(&uid("a")) && history.may_have_joined(&uid("b")));
        history.set_may_have_joined(&uid("a"), true);
        assert!(history.may_have_joined(&uid("a")));
    }

    #[tokio::test(start_paused = true)]
    async fn api_server_errors_back_off_until_a_success() {
        let history = History::default();
        let retry = Class::Transient.retry();
        assert!(history.after_error(&uid("a")) <= retry.first.mul_f64(1.5));
        for _ in 0..20 {
            assert!(history.after_error(&uid("a")) > Duration::ZERO);
        }
        let waits = (0..100).map(|_| history.after_error(&uid("a")));
        assert!(waits.max().unwrap() >= retry.cap.mul_f64(0.5));
        let _ = history.requeue_after(&uid("a"), ReconcileOutcome::Suspended, None);
        assert!(history.after_error(&uid("a")) <= retry.first.mul_f64(1.5));
    }

    #[tokio::test(start_paused = true)]
    async fn cloud_names_the_shortest_wait_after_any_error() {
        let history = History::default();
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
            history.forget(&uid("a"));
            let error = unavailable(asked);
            let _ = history.requeue_after(&uid("a"), outcome, Some(&error));
            let due = history.lock()[&uid("a")].due.unwrap();
            let wait = due.duration_since(Instant::now());
            assert!((least..=most).contains(&wait), "{asked:?}: {wait:?}");
        }
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
        history.keep_pending_description(&uid("a"), Some(seen));
        assert!(
            history.pending_description(&uid("a")).is_some()
                && history.pending_description(&uid("b")).is_none()
        );
        history.keep_pending_description(&uid("a"), None);
        assert!(history.pending_description(&uid("a")).is_none());
    }
}
