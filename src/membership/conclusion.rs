//! What the end of a pass leaves: status and event, what a scan must find, and the next pass.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use tokio::time::Instant;

use crate::api::membership::{Origin, SecurityGroupMembershipStatus};
use crate::api::reason;
use crate::condition;
use crate::ecs::Error;
use crate::kubernetes::ObjectUid;
use crate::kubernetes::events::EventRecord;

use super::act::ActError;
use super::context::Context;
use super::decide::{AccessView, Attempt, ReconcileOutcome, TargetView};
use super::history::ClaimEvent;
use super::object::own_status;
use super::observation::{Observation, Unread};
use super::observe::Pass;
use super::status::{self, Held, Refusal, StatusInput};
use super::table::Told;

/// Writes the status and publishes the event of a pass. Returns when the object is requeued if nothing else enqueues it.
///
/// # Errors
/// The API server did not accept the status.
pub(super) async fn conclude(
    pass: &mut Pass,
    outcome: ReconcileOutcome,
    refusal: Option<&Refusal>,
    context: &Context,
) -> Result<Action, ActError> {
    let uid = pass.uid();
    let previous = own_status(pass.object()).cloned().unwrap_or_default();
    let next = next_status(pass, outcome, refusal, &previous, context);
    let event = event(pass, outcome, &previous, next.as_ref());
    // Before the write: the watch may show the status before the answer arrives.
    let written = status_hash(next.as_ref().or(pass.object().status.as_ref()));
    let observation = observation_of(pass, outcome);
    context.table.history(&uid, |history| {
        history.record_written_status(written);
        history.record_observation(observation);
    });
    let told = context.table.told(&uid);
    let stored = match &next {
        Some(next) => store(next, pass, &uid, context).await?,
        None => previous.clone(),
    };
    note_time_to_ready(told, &stored, context);
    if next.is_some() && stored.origin.is_some() && stored.origin != previous.origin {
        tell_siblings(pass, context);
    }
    if let Some(event) = event {
        context.events.publish(pass.object(), event);
    }
    Ok(requeue(pass, outcome, stored.origin, context))
}

/// Records how long the object was not Ready, if it is now.
fn note_time_to_ready(
    told: Option<Told>,
    stored: &SecurityGroupMembershipStatus,
    context: &Context,
) {
    let before = told.filter(|told| told.ready != Some(true));
    if let Some(before) = before
        && condition::is_true(&stored.conditions, reason::READY)
    {
        let seconds = context.clock.now().as_second() - before.since;
        let took = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
        context.telemetry.note_time_to_ready(took);
    }
}

/// The status that tells the outcome; `None` if the stored one tells the same.
fn next_status(
    pass: &Pass,
    outcome: ReconcileOutcome,
    refusal: Option<&Refusal>,
    previous: &SecurityGroupMembershipStatus,
    context: &Context,
) -> Option<SecurityGroupMembershipStatus> {
    let uid = pass.uid();
    let now = context.clock.now();
    let ending = context.table.history(&uid, |history| history.ending());
    let ending = ending.flatten();
    let input = StatusInput {
        edge: &pass.edge,
        outcome,
        observed: &pass.observed,
        deleting: pass.desired.deleting,
        deletion: pass.desired.deletion,
        description: pass.told_description(),
        failure: pass.failure.as_ref(),
        account_problem: &pass.account_problem,
        not_listed: pass.not_listed.as_deref(),
        waits_since: context
            .table
            .history(&uid, |history| {
                let failure = pass.failure.as_ref();
                let reported = || status::waits_since(previous, failure).unwrap_or(now);
                history.waits_since(outcome, failure, reported)
            })
            .flatten(),
        not_observed_after: not_observed_after(&uid, context),
        held_for: pass.slot.held_for(),
        object_uid: &uid,
        account_uid: pass.account_uid.as_ref(),
        reconcile_requested_at: pass.reconcile_requested_at.as_deref(),
        held: ending.map(|ending| Held {
            ending,
            finalizers: pass.object().finalizers(),
        }),
        docs_url: context.docs_url.as_ref(),
        refusal,
    };
    status::status(previous, pass.generation, &input, now)
        .map(|next| context.storable(next))
        .filter(|next| !status::same_meaning(previous, next))
}

/// Records how a pass ended, with the record that the API server stores now. Returns when the object is requeued.
fn requeue(
    pass: &mut Pass,
    outcome: ReconcileOutcome,
    record: Option<Origin>,
    context: &Context,
) -> Action {
    let is_held_back = pass.held_back && pass.failure.is_none();
    let description = pass.description.take().filter(|_| is_held_back);
    let pending = description.map(|mut description| {
        description.tags.drop_values();
        (description, pass.observed.trust)
    });
    let due = due(pass, outcome, context);
    let counts_at = counts_at(pass, context);
    let deleting = pass.desired.deleting;
    let looks_again = deleting && pass.others.is_being_checked;
    let requeue = context.table.history(&pass.uid(), |history| {
        if let Some(origin) = record {
            history.learns(ClaimEvent::Recorded(origin));
        }
        history.keep_pending_description(pending);
        history.record_refusal(outcome, deleting);
        let failure = pass.failure.as_ref();
        history.requeue_after(outcome, failure, due, counts_at, &context.clock)
    });
    match outcome {
        ReconcileOutcome::Undecided if looks_again => Action::requeue(CHECKED),
        _ => requeue
            .flatten()
            .map_or_else(Action::await_change, Action::requeue),
    }
}

/// When a deletion that waits for the first check of another object's account looks again (1 s). Its passes make no call.
const CHECKED: Duration = Duration::from_secs(1);

/// Ends a pass over an object that is gone: there is nothing to write a status to. Its row goes when nothing is left to do.
pub(super) fn end_unreleased(pass: &Pass, outcome: ReconcileOutcome, context: &Context) -> Action {
    let uid = pass.uid();
    if outcome == ReconcileOutcome::Gone {
        context.forget(&uid);
        return Action::await_change();
    }
    let due = due(pass, outcome, context);
    let requeue = context.table.history(&uid, |history| {
        history.requeue_after(outcome, pass.failure.as_ref(), due, None, &context.clock)
    });
    requeue
        .flatten()
        .map_or_else(Action::await_change, Action::requeue)
}

/// The event that the end of a pass is worth.
fn event(
    pass: &Pass,
    outcome: ReconcileOutcome,
    previous: &SecurityGroupMembershipStatus,
    next: Option<&SecurityGroupMembershipStatus>,
) -> Option<EventRecord> {
    match outcome {
        ReconcileOutcome::Ready { repaired: true, .. } => Some(EventRecord {
            reason: reason::DRIFT_REPAIRED.to_owned(),
            warning: false,
            text: format!(
                "the operator joined {} to {} again",
                pass.edge.target, pass.edge.group
            ),
            ..EventRecord::default()
        }),
        _ => status::event_for(previous, next?, outcome),
    }
}

/// When a read of the edge will count, and in a repair loop when the next repair is allowed. An edge that stays in place leaves
/// its repair loop.
fn due(pass: &Pass, outcome: ReconcileOutcome, context: &Context) -> Instant {
    let Some(account) = &pass.account_uid else {
        return Instant::now();
    };
    match outcome {
        ReconcileOutcome::RepairLoop => context
            .table
            .repairs(|repairs| repairs.next(account, &pass.edge)),
        ReconcileOutcome::Ready { .. }
        | ReconcileOutcome::WouldJoin
        | ReconcileOutcome::DriftReported => {
            context
                .table
                .repairs(|repairs| repairs.leave_loop(account, &pass.edge));
            Instant::now()
        }
        ReconcileOutcome::Undecided
        | ReconcileOutcome::Unsettled
        | ReconcileOutcome::SuccessorOutOfReach
        | ReconcileOutcome::Unlisted
        | ReconcileOutcome::Gone
        | ReconcileOutcome::Suspended
        | ReconcileOutcome::Waiting
        | ReconcileOutcome::AdoptionRefused
        | ReconcileOutcome::Absent
        | ReconcileOutcome::Unsuitable
        | ReconcileOutcome::KarpenterNode
        | ReconcileOutcome::AccountUnusable
        | ReconcileOutcome::WriteRefused
        | ReconcileOutcome::Failed(_) => context.table.settles_at(account, &pass.edge),
    }
}

/// When a read will tell whether the missing edge may still come from a Join of a process before this one; `None` if none can, or if the
/// cloud has asked not to be called before a time. The next try reads what became of an unknown outcome of our own.
fn counts_at(pass: &Pass, context: &Context) -> Option<Instant> {
    let account = pass.account_uid.as_ref()?;
    let asks_to_wait = pass.failure.as_ref().and_then(Error::retry_after);
    let is_missing = matches!(
        (pass.observed.target, pass.observed.attempt),
        (
            TargetView::Present { member: false, .. },
            Attempt::None | Attempt::Failed { unknown: false, .. }
        )
    );
    (is_missing && pass.observed.claim.is_ours() && asks_to_wait.is_none())
        .then(|| context.table.settles_at(account, &pass.edge))
}

/// Writes the status. Returns it as the API server shows it: an older CRD drops fields, and what it drops is not recorded.
async fn store(
    next: &SecurityGroupMembershipStatus,
    pass: &Pass,
    uid: &ObjectUid,
    context: &Context,
) -> Result<SecurityGroupMembershipStatus, ActError> {
    let written = pass.write_status(next, context).await?;
    let stored = written.and_then(|object| object.status);
    let stored = stored.unwrap_or_else(|| next.clone());
    let hash = status_hash(Some(&stored));
    if hash != status_hash(Some(next)) {
        context
            .table
            .history(uid, |history| history.record_written_status(hash));
    }
    Ok(stored)
}

/// How long Ready=True stands without a read of the target, if no read has shown it for so long.
fn not_observed_after(uid: &ObjectUid, context: &Context) -> Option<Duration> {
    let limit = context.read_periods.not_observed_after();
    let unread_for = context.table.history(uid, |history| history.unread_for());
    unread_for
        .flatten()
        .filter(|unread| *unread >= limit)
        .map(|_| limit)
}

/// A hash that differs for different statuses. The conditions of other controllers do not count.
pub(super) fn status_hash(status: Option<&SecurityGroupMembershipStatus>) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&status.map(status::our_part))
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

/// The observation that a scan must reproduce for this object to stay idle. `None` if this pass was not to read the target, and
/// for a deleted object that others keep: no scan reads its target.
fn observation_of(pass: &Pass, outcome: ReconcileOutcome) -> Option<Observation> {
    if outcome == ReconcileOutcome::Gone {
        return None;
    }
    let ready = matches!(outcome, ReconcileOutcome::Ready { .. });
    match pass.observed.target {
        TargetView::Unread => {
            let is_account_down = outcome == ReconcileOutcome::AccountUnusable
                && pass.observed.account == (AccessView::NotReady { stalled: false });
            is_account_down.then_some(Observation::Unread(Unread::Failed))
        }
        TargetView::Unreadable(_) => Some(Observation::Unread(match &pass.failure {
            None => Unread::Waiting,
            Some(failure) if failure.may_be_one_bad_id() => Unread::BadId,
            Some(_) => Unread::Failed,
        })),
        TargetView::Absent => Some(Observation::Absent),
        TargetView::Unsuitable => Some(Observation::of(pass.description.as_ref(), |seen| {
            seen.security_group_ids.contains(&pass.edge.group)
        })),
        TargetView::Present { member, .. } => {
            Some(Observation::of(pass.description.as_ref(), |_| {
                member || ready
            }))
        }
    }
}

/// The edge has another record now: an object that refused to adopt it may share it, one whose own Join was refused may adopt it, and one
/// that has adopted it says whether another has joined it.
fn tell_siblings(pass: &Pass, context: &Context) {
    let uid = pass.uid();
    for other in context.table.others(&pass.edge, &uid) {
        if other.record() != Some(Origin::Joined) {
            context.queue.enqueue(&other.reference());
        }
    }
}

pub(super) const fn outcome_label(outcome: ReconcileOutcome) -> &'static str {
    match outcome {
        ReconcileOutcome::Undecided => "undecided",
        ReconcileOutcome::Unsettled => "unsettled",
        ReconcileOutcome::SuccessorOutOfReach | ReconcileOutcome::Unlisted => "waiting",
        ReconcileOutcome::WriteRefused => "write_refused",
        ReconcileOutcome::Gone => "gone",
        ReconcileOutcome::Ready {
            repaired: false, ..
        } => "ready",
        ReconcileOutcome::Ready { repaired: true, .. } => "repaired",
        ReconcileOutcome::Suspended => "suspended",
        ReconcileOutcome::Waiting => "waiting",
        ReconcileOutcome::WouldJoin => "observed",
        ReconcileOutcome::AdoptionRefused => "refused",
        ReconcileOutcome::DriftReported | ReconcileOutcome::RepairLoop => "drifted",
        ReconcileOutcome::Absent => "absent",
        ReconcileOutcome::Unsuitable => "unsuitable",
        ReconcileOutcome::KarpenterNode => "karpenter",
        ReconcileOutcome::AccountUnusable => "account",
        ReconcileOutcome::Failed(_) => "failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::{self, NewCondition, Status};
    use crate::ecs::Class;

    #[test]
    fn reconciles_are_counted_by_outcome() {
        let ready = |repaired| ReconcileOutcome::Ready {
            origin: None,
            shared: false,
            repaired,
        };
        let ends = [
            ReconcileOutcome::Undecided,
            ReconcileOutcome::Gone,
            ready(false),
            ready(true),
            ReconcileOutcome::Suspended,
            ReconcileOutcome::Waiting,
            ReconcileOutcome::WouldJoin,
            ReconcileOutcome::AdoptionRefused,
            ReconcileOutcome::DriftReported,
            ReconcileOutcome::Absent,
            ReconcileOutcome::Unsuitable,
            ReconcileOutcome::KarpenterNode,
            ReconcileOutcome::AccountUnusable,
            ReconcileOutcome::Failed(Class::Transient),
        ];
        let words: std::collections::BTreeSet<_> = ends.map(outcome_label).into();
        assert_eq!(words.len(), ends.len(), "{words:?}");
        assert_eq!(
            outcome_label(ReconcileOutcome::RepairLoop),
            outcome_label(ReconcileOutcome::DriftReported)
        );
    }

    #[test]
    fn stored_status_has_the_same_fingerprint() {
        let mut status = SecurityGroupMembershipStatus {
            observed_generation: Some(3),
            origin: Some(crate::api::membership::Origin::Joined),
            ..SecurityGroupMembershipStatus::default()
        };
        let condition = NewCondition {
            type_: reason::READY,
            status: Status::True,
            reason: reason::JOINED.to_owned(),
            message: "as \u{1f980} said".to_owned(),
        };
        let now = "2026-01-02T03:04:05.678912Z".parse().unwrap();
        status.conditions = condition::merge(&[], vec![condition], Some(3), now);
        let stored = serde_json::to_string(&status).unwrap();
        let back: SecurityGroupMembershipStatus = serde_json::from_str(&stored).unwrap();
        assert_eq!(status_hash(Some(&status)), status_hash(Some(&back)));
        assert_ne!(status_hash(Some(&status)), status_hash(None));
        let mut shared = status.clone();
        shared.conditions.insert(0, {
            let mut foreign = status.conditions[0].clone();
            foreign.type_ = "example.com/Heartbeat".to_owned();
            foreign
        });
        assert_eq!(status_hash(Some(&status)), status_hash(Some(&shared)));
        status.conditions.clear();
        assert_ne!(status_hash(Some(&status)), status_hash(Some(&back)));
    }
}
