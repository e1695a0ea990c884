//! What this process did and observed of one object: triggers, observations, consecutive failures, repairs, waits. In memory
//! only, lost with the process. No I/O.

mod backoff;
mod standing;

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use tokio::time::Instant;

use crate::ecs::{AccountUid, Class, Error, TargetDescription};

use super::decide::{ReadTrust, ReconcileOutcome};
use super::observation::{LastObservation, Observation};
use super::status::Ending;

pub use self::standing::{ClaimEvent, Standing};

/// How long a pass waits for the watch to show our own last write. A longer lag means that the API server has lost the write
/// (a restored backup); then the watched object counts.
pub(super) const WATCH_LAG: Duration = Duration::from_secs(5);

/// The least time from a pass that read the target to one that a user has triggered (1 s).
const DISTANCE: Duration = Duration::from_secs(1);

/// The least time from a call that the cloud refused with class blocked or invalid to one that a user has triggered (60 s).
const REFUSAL_DISTANCE: Duration = Duration::from_secs(60);

/// How long the watch may show an older status than the one that this process wrote last. After that the status is a foreign
/// write.
const STATUS_WATCH_LAG: Duration = Duration::from_secs(10);

/// The history of one object.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct History {
    /// Hash of the user-editable part when the watch last triggered a pass.
    last_trigger_hash: Option<u64>,
    /// Whether a user has triggered the next pass.
    asked: bool,
    /// Whether a pass over the deleted object has begun.
    deletes: bool,
    /// Whether this process has written an intent, or tried to.
    intends: bool,
    /// Whether a record `Joined` that a pass writes, or has written without an answer, may appear.
    record_may_appear: bool,
    /// Whether a pass waits for the watch to show our own last write.
    awaits_watch: bool,
    /// Hash of the status that the last pass wrote or found correct.
    written_status_hash: Option<u64>,
    /// Since when the watch has shown another status than that.
    foreign_status_since: Option<Instant>,
    /// What the last pass observed of the target; `None` if that pass did not read the target.
    observation: Option<LastObservation>,
    /// What most objects do not have.
    rare: Option<Box<Rare>>,
}

/// When the cloud refused a call with class blocked or invalid, and for which purpose.
#[derive(Clone, Copy, Debug)]
struct Refusal {
    at: Instant,
    deleting: bool,
}

#[derive(Debug, Default)]
struct Rare {
    last: Option<ReconcileOutcome>,
    /// Since when the target has been between states, or the cloud has answered with an unknown code.
    waits_since: Option<Timestamp>,
    repeats: u32,
    /// When the last returned wait ends.
    due: Option<Instant>,
    errors: u32,
    /// The last refusal by the cloud that only a change can mend.
    refusal: Option<Refusal>,
    drift_reported: bool,
    /// Whether an event has told that the intent is no claim.
    ignored_claim_reported: bool,
    pending_description: Option<(TargetDescription, ReadTrust)>,
    lagging_since: Option<Instant>,
    standing: Standing,
    /// The cloud account of the last Join of this process, while that may have had an effect of which no record tells.
    joined_with: Option<AccountUid>,
    /// When the object appeared with an intent of another process: a Join of that process may be on its way.
    found_intent_at: Option<Instant>,
    /// What the deletion made of the membership, until the status says so.
    ending: Option<Ending>,
}

/// What triggers a pass, and what the watch shows of our own writes.
impl History {
    /// Records that `trigger_hash` triggers a pass. Returns whether it differs from the hash of the last triggered pass, or a
    /// pass waits for a view that is as new as our last write, and this one is.
    pub fn mark_triggered(&mut self, trigger_hash: u64, is_current: bool) -> bool {
        let is_awaited = self.awaits_watch && is_current;
        self.awaits_watch &= !is_awaited;
        let before = self.last_trigger_hash.replace(trigger_hash);
        let is_new = before != Some(trigger_hash);
        self.asked |= is_new && before.is_some();
        is_new || is_awaited
    }

    /// How long a pass that a user has triggered must still wait; `None` if it may begin. A user who changes an object all the
    /// time causes one read per second, and one call that the cloud refuses per minute. A deletion begins at once.
    /// `needs_no_call` is whether this pass calls nothing.
    pub fn distance(&mut self, deleting: bool, needs_no_call: bool) -> Option<Duration> {
        let begins = deleting && !std::mem::replace(&mut self.deletes, deleting);
        if begins || !self.asked {
            self.asked = false;
            return None;
        }
        let read = self.observation.map(|last| last.observed_at + DISTANCE);
        let refusal = self.rare.as_ref().and_then(|rare| rare.refusal);
        let refused = refusal
            .filter(|refusal| refusal.deleting == deleting && !needs_no_call)
            .map(|refusal| refusal.at + REFUSAL_DISTANCE);
        let begins_at = read.max(refused);
        let wait = begins_at.map(|at| at.saturating_duration_since(Instant::now()));
        let wait = wait.filter(|wait| !wait.is_zero());
        self.asked = wait.is_some();
        wait
    }

    /// The next view that is as new as our own last write triggers a pass. Returns whether a pass may still wait for it: true
    /// for `WATCH_LAG` (5 s) from the first call since the last finished pass.
    pub fn await_watch(&mut self) -> bool {
        self.awaits_watch = true;
        let since = *self.rare().lagging_since.get_or_insert_with(Instant::now);
        since.elapsed() < WATCH_LAG
    }

    /// Records the hash of the status that a pass has just written or found correct.
    pub fn record_written_status(&mut self, status_hash: u64) {
        self.written_status_hash = Some(status_hash);
        self.foreign_status_since = None;
    }

    /// Compares the watched status with the one last written. Returns whether they differ: the watch lags, or somebody else
    /// wrote the status.
    pub fn compare_watched_status(&mut self, status_hash: impl FnOnce() -> u64) -> bool {
        let Some(written) = self.written_status_hash else {
            return false;
        };
        if written == status_hash() {
            self.foreign_status_since = None;
        } else {
            self.foreign_status_since.get_or_insert_with(Instant::now);
        }
        self.has_foreign_status()
    }

    /// Whether the watch shows another status than the one last written.
    #[must_use]
    pub fn has_foreign_status(&self) -> bool {
        self.foreign_status_since.is_some()
    }

    /// Whether the watch has shown another status for `STATUS_WATCH_LAG` (10 s). True once for each difference.
    pub fn take_foreign_status(&mut self) -> bool {
        let since = self.foreign_status_since;
        let is_long = since.is_some_and(|since| since.elapsed() >= STATUS_WATCH_LAG);
        if is_long {
            self.foreign_status_since = None;
        }
        is_long
    }
}

/// What was observed of the target.
impl History {
    /// Stores what a pass observed of the object's target; `None` if it was not to read the target. A pass that could not read it
    /// does not change when a read last showed it.
    pub fn record_observation(&mut self, observation: Option<Observation>) {
        let now = Instant::now();
        let before = self.observation;
        self.observation = observation.map(|observation| {
            let before = before.filter(|_| matches!(observation, Observation::Unread(_)));
            LastObservation {
                observation,
                observed_at: now,
                confirmed_at: before.map_or(now, |before| before.confirmed_at),
                stale: false,
                reported_overdue: before.is_some_and(|before| before.reported_overdue),
            }
        });
    }

    /// How long no read has shown the target; `None` if none was to.
    #[must_use]
    pub fn unread_for(&self) -> Option<Duration> {
        self.observation.as_ref().map(LastObservation::age)
    }

    /// The last observation, to compare it with what a scan has found.
    pub fn observation(&mut self) -> Option<&mut LastObservation> {
        self.observation.as_mut()
    }

    /// Whether scans read the target.
    #[must_use]
    pub fn is_scanned(&self) -> bool {
        let observation = self.observation.map(|last| last.observation);
        observation.is_some_and(Observation::is_scanned)
    }

    /// Whether the target was a member of the group when it was last read, and no scan has found it changed since.
    #[must_use]
    pub fn is_member(&self) -> bool {
        let last = self.observation.filter(|last| !last.stale);
        let observation = last.map(|last| last.observation);
        matches!(observation, Some(Observation::Present { member: true, .. }))
    }

    /// Whether a scan has found something else than the last pass.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.observation.is_some_and(|last| last.stale)
    }

    /// The observation of the target, if it was confirmed within `age` and is not marked stale.
    #[must_use]
    pub fn fresh_observation(&self, age: Duration) -> Option<Observation> {
        let last = self.observation?;
        (!last.stale && last.confirmed_at.elapsed() <= age).then_some(last.observation)
    }

    /// Stores the description of a target whose pass ended in a rate-limit wait, and whether it counted; `None` clears it.
    pub fn keep_pending_description(&mut self, read: Option<(TargetDescription, ReadTrust)>) {
        if read.is_some() || self.rare.is_some() {
            self.rare().pending_description = read;
        }
    }

    /// The description from the last pass and whether it counted then, if that pass ended in a rate-limit wait.
    #[must_use]
    pub fn pending_description(&self) -> Option<(TargetDescription, ReadTrust)> {
        self.rare.as_ref()?.pending_description.clone()
    }
}

/// What passes did.
impl History {
    /// Records that this process sends a Join with this cloud account, or has joined with it.
    pub fn joins_with(&mut self, account: &AccountUid) {
        self.rare().joined_with = Some(account.clone());
    }

    /// Records that no Join of this process has an effect of which no record tells.
    pub fn no_join_is_open(&mut self) {
        if let Some(rare) = &mut self.rare {
            rare.joined_with = None;
        }
    }

    /// The cloud account of the last Join of this process, while that may have had an effect of which no record tells.
    #[must_use]
    pub fn joined_with(&self) -> Option<AccountUid> {
        self.rare.as_ref()?.joined_with.clone()
    }

    /// Records that this process writes an intent now. Returns whether it is the first one.
    pub fn intends(&mut self) -> bool {
        !std::mem::replace(&mut self.intends, true)
    }

    /// The API server did not take the first intent of this process.
    pub fn intends_nothing(&mut self) {
        self.intends = false;
    }

    /// Whether this process has written an intent, or tried to.
    #[must_use]
    pub fn has_intended(&self) -> bool {
        self.intends
    }

    /// The object has appeared with an intent: a Join of another process may be on its way.
    pub fn found_intent(&mut self) {
        self.rare().found_intent_at = Some(Instant::now());
    }

    /// When the object appeared with an intent of another process.
    #[must_use]
    pub fn found_intent_at(&self) -> Option<Instant> {
        self.rare.as_ref()?.found_intent_at
    }

    /// Stores what the deletion of an object has made of its membership, until our finalizer is off and the status says so.
    pub fn keep_ending(&mut self, ending: Ending) {
        self.rare().ending = Some(ending);
    }

    /// What the deletion has made of the membership, if the status does not say so yet.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.rare.as_ref()?.ending
    }

    /// Start of the current wait for the target, or of answers with a code that this version does not know; `None` if `outcome` is
    /// neither. Falls back to `reported` (from the object's conditions) after a restart.
    pub fn waits_since(
        &mut self,
        outcome: ReconcileOutcome,
        failure: Option<&Error>,
        reported: impl FnOnce() -> Timestamp,
    ) -> Option<Timestamp> {
        let is_unknown = outcome == ReconcileOutcome::Failed(Class::Transient)
            && failure.is_some_and(Error::is_unknown_refusal);
        let waits = matches!(
            outcome,
            ReconcileOutcome::Waiting | ReconcileOutcome::Failed(Class::Transitional)
        ) || is_unknown;
        if waits {
            return Some(*self.rare().waits_since.get_or_insert_with(reported));
        }
        if let Some(rare) = &mut self.rare {
            rare.waits_since = None;
        }
        None
    }

    /// Records that the drift was repaired: the next one is reported again.
    pub fn drift_repaired(&mut self) {
        self.rare().drift_reported = false;
    }

    /// Records how a pass ended for [`Self::distance`].
    pub fn record_refusal(&mut self, outcome: ReconcileOutcome, deleting: bool) {
        let is_refusal = matches!(
            outcome,
            ReconcileOutcome::Failed(Class::Blocked | Class::Invalid)
        );
        if is_refusal || self.rare.is_some() {
            let at = Instant::now();
            self.rare().refusal = is_refusal.then_some(Refusal { at, deleting });
        }
    }

    /// Records that the drift is reported. Returns whether this is the first report since the last repair.
    pub fn first_report_of_drift(&mut self) -> bool {
        !std::mem::replace(&mut self.rare().drift_reported, true)
    }

    /// Records that an event tells of an intent that is no claim. Returns whether this is the first one.
    pub fn first_report_of_ignored_claim(&mut self) -> bool {
        !std::mem::replace(&mut self.rare().ignored_claim_reported, true)
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }
}

#[cfg(test)]
mod tests {
    use crate::api::membership::Origin;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn wait_for_the_watch_is_limited() {
        let mut history = History::default();
        assert!(history.await_watch());
        tokio::time::advance(WATCH_LAG).await;
        assert!(!history.await_watch());
    }

    #[tokio::test(start_paused = true)]
    async fn user_starts_a_pass_per_second_and_a_refused_call_per_minute() {
        const MILLISECOND: Duration = Duration::from_millis(1);
        let seen = Observation::Absent;
        let mut history = History::default();
        let _ = history.mark_triggered(1, true);
        assert_eq!(history.distance(false, false), None, "the first pass");
        history.record_observation(Some(seen));
        // Not asked by a user: a retry, or a scan.
        assert_eq!(history.distance(false, false), None);
        let _ = history.mark_triggered(2, true);
        assert_eq!(history.distance(false, false), Some(DISTANCE));
        tokio::time::advance(Duration::from_millis(999)).await;
        let _ = history.mark_triggered(3, true);
        assert_eq!(history.distance(false, false), Some(MILLISECOND));
        tokio::time::advance(MILLISECOND).await;
        assert_eq!(history.distance(false, false), None);

        let _ = history.mark_triggered(3, true);
        assert_eq!(history.distance(true, false), None, "a deletion");
        history.record_observation(Some(seen));
        let _ = history.mark_triggered(3, true);
        assert_eq!(history.distance(true, false), None, "not asked again");

        history.record_refusal(ReconcileOutcome::Failed(Class::Blocked), false);
        let _ = history.mark_triggered(4, true);
        tokio::time::advance(Duration::from_millis(59_999)).await;
        assert_eq!(history.distance(false, false), Some(MILLISECOND));
        let mut other = |deleting, needs_no_call| {
            history.asked = true;
            history.distance(deleting, needs_no_call)
        };
        assert_eq!(other(true, false), None, "Join was refused, not Leave");
        assert_eq!(other(false, true), None, "nothing is called");
        history.record_refusal(ReconcileOutcome::Waiting, false);
        history.asked = true;
        assert_eq!(history.distance(false, false), None, "not refused any more");
    }

    #[tokio::test(start_paused = true)]
    async fn drift_is_reported_once_until_repaired() {
        let mut history = History::default();
        assert!(history.first_report_of_drift());
        assert!(!history.first_report_of_drift());
        history.drift_repaired();
        assert!(history.first_report_of_drift());
    }

    #[test]
    fn standing_changes_only_from_the_state_that_it_corrects() {
        let mut history = History::default();
        assert_eq!(history.standing(), Standing::Unknown);
        history.learns(ClaimEvent::Intended);
        history.record_is_sent();
        history.record_appears();
        history.learns(ClaimEvent::Recorded(Origin::Joined));
        assert_eq!(history.standing(), Standing::Void);
        history.status_is_stored();
        history.record_appears();
        assert_eq!(history.standing(), Standing::Unknown);
    }

    #[test]
    fn pending_description_is_kept_until_cleared() {
        let mut history = History::default();
        let seen = TargetDescription {
            state: crate::ecs::TargetState::Running,
            vpc_id: None,
            lock_reasons: Vec::new(),
            security_group_ids: std::collections::BTreeSet::new(),
            service_managed: false,
            primary: false,
            karpenter: false,
            tags: crate::ecs::Tags::default(),
        };
        history.keep_pending_description(Some((seen, ReadTrust::Settled)));
        assert!(history.pending_description().is_some());
        history.keep_pending_description(None);
        assert!(history.pending_description().is_none());
    }
}
