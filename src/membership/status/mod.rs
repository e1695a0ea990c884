//! Builds the status for the outcome of a pass. Pure: the observed state and `now` are arguments.

mod conditions;
mod event;
mod failure;
mod input;
mod last_error;
mod summary;
mod wait;
mod write_refused;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;

use crate::api::membership::{LastError, SecurityGroupMembershipStatus, TargetStatus};
use crate::api::reason;
use crate::condition;
use crate::ecs::{Class, TargetDescription};

use super::decide::{ReconcileOutcome, TargetView};

use self::conditions::Summary;
use self::summary::summarize;

pub use self::event::{Ending, event_for};
pub use self::input::{Held, Refusal, Refused, StatusInput};
pub use self::wait::{STUCK_AFTER, waits_since};

/// The condition types that the operator writes.
const OUR_CONDITIONS: [&str; 5] = [
    reason::READY,
    reason::RECONCILING,
    reason::STALLED,
    reason::DRIFTED,
    reason::SUSPENDED,
];

/// The status after this pass; `None` if it has the same meaning as the previous one.
#[must_use]
pub fn status(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    now: Timestamp,
) -> Option<SecurityGroupMembershipStatus> {
    let described = if input.outcome == ReconcileOutcome::Suspended {
        Some(suspended(previous, generation, input, now))
    } else {
        summarize(previous, generation, input, now)
            .map(|summary| described(previous, generation, input, summary, now))
    };
    let mut next = described.unwrap_or_else(|| previous.clone());
    if let Some(requested_at) = input.reconcile_requested_at.filter(|_| is_handled(input)) {
        next.last_handled_reconcile_at = Some(requested_at.to_owned());
    }
    (!same_meaning(previous, &next)).then_some(next)
}

/// The status of a pass that learned something about the membership.
fn described(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    summary: Summary,
    now: Timestamp,
) -> SecurityGroupMembershipStatus {
    let mut conditions =
        condition::merge(&previous.conditions, summary.conditions(), generation, now);
    if summary.drift_is_unknown(input) {
        conditions.retain(|condition| condition.type_ != reason::DRIFTED);
        conditions.extend(drifted_as_known(previous, generation, now));
    }
    SecurityGroupMembershipStatus {
        observed_generation: generation,
        conditions,
        origin: match input.outcome {
            ReconcileOutcome::Ready {
                origin: Some(origin),
                ..
            } => Some(origin),
            ReconcileOutcome::Gone => None,
            // What others make again is theirs, also for the next process.
            ReconcileOutcome::WriteRefused
                if input.held.is_some_and(|held| held.ending.is_final()) =>
            {
                None
            }
            _ => input.observed.claim.record(),
        },
        object_uid: Some(input.object_uid.as_str().to_owned()),
        account_uid: match input.account_uid {
            Some(uid) => Some(uid.as_str().to_owned()),
            None => previous
                .account_uid
                .clone()
                .filter(|_| previous.object_uid.as_deref() == Some(input.object_uid.as_str())),
        },
        target: match input.observed.target {
            TargetView::Absent => None,
            _ => input
                .description
                .map(target_status)
                .or_else(|| previous.target.clone()),
        },
        last_error: summary
            .last_error
            .map(|error| with_first_time(error, previous.last_error.as_ref())),
        last_handled_reconcile_at: previous.last_handled_reconcile_at.clone(),
    }
}

/// The same error again keeps the time at which it was first reported.
fn with_first_time(error: LastError, previous: Option<&LastError>) -> LastError {
    match previous {
        Some(previous) if (&previous.action, &previous.code) == (&error.action, &error.code) => {
            LastError {
                time: previous.time.clone(),
                ..error
            }
        }
        Some(_) | None => error,
    }
}

/// Drifted for a pass that has not read the target: the previous condition, or `NoDrift`.
#[must_use]
pub fn drifted_as_known(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    condition::keep(&previous.conditions, reason::DRIFTED, now).map_or_else(
        || {
            condition::merge(
                &previous.conditions,
                vec![conditions::no_drift()],
                generation,
                now,
            )
        },
        |kept| vec![kept],
    )
}

/// The status of a suspended object keeps Ready, Stalled and Drifted with their older `observedGeneration`, and adds Suspended.
/// It has no Reconciling: kstatus would wait for ever.
fn suspended(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    now: Timestamp,
) -> SecurityGroupMembershipStatus {
    let kept = |type_| condition::keep(&previous.conditions, type_, now);
    let new = |new_condition| {
        condition::merge(&previous.conditions, vec![new_condition], generation, now)
    };
    let mut conditions =
        kept(reason::READY).map_or_else(|| new(conditions::pending()), |kept| vec![kept]);
    conditions.extend(kept(reason::STALLED));
    conditions.extend(drifted_as_known(previous, generation, now));
    conditions.extend(new(conditions::suspended_condition(input.deleting)));
    SecurityGroupMembershipStatus {
        observed_generation: generation,
        conditions,
        ..previous.clone()
    }
}

/// Whether the pass handled the request `reconcile-requested-at`. A pass that only waited did not.
fn is_handled(input: &StatusInput<'_>) -> bool {
    match input.outcome {
        ReconcileOutcome::Undecided | ReconcileOutcome::Unsettled | ReconcileOutcome::Gone => false,
        ReconcileOutcome::Failed(Class::Throttled) => input.failure.is_some(),
        ReconcileOutcome::Ready { .. }
        | ReconcileOutcome::Suspended
        | ReconcileOutcome::Waiting
        | ReconcileOutcome::WouldJoin
        | ReconcileOutcome::AdoptionRefused
        | ReconcileOutcome::DriftReported
        | ReconcileOutcome::RepairLoop
        | ReconcileOutcome::Absent
        | ReconcileOutcome::Unsuitable
        | ReconcileOutcome::KarpenterNode
        | ReconcileOutcome::AccountUnusable
        | ReconcileOutcome::SuccessorOutOfReach
        | ReconcileOutcome::WriteRefused
        | ReconcileOutcome::Unlisted
        | ReconcileOutcome::Failed(_) => true,
    }
}

/// The readable part of a stored status: all of it, or else each readable condition.
#[must_use]
pub fn parse_lenient(stored: &Value) -> SecurityGroupMembershipStatus {
    SecurityGroupMembershipStatus::deserialize(stored).unwrap_or_else(|_| {
        let conditions = stored["conditions"].as_array().into_iter().flatten();
        SecurityGroupMembershipStatus {
            observed_generation: stored["observedGeneration"].as_i64(),
            conditions: conditions
                .filter_map(|condition| Condition::deserialize(condition).ok())
                .collect(),
            ..SecurityGroupMembershipStatus::default()
        }
    })
}

/// Whether two statuses have the same meaning. A different request ID or error time alone is not written. Conditions of other
/// controllers do not count.
#[must_use]
pub fn same_meaning(
    previous: &SecurityGroupMembershipStatus,
    next: &SecurityGroupMembershipStatus,
) -> bool {
    let without_request = |status: &SecurityGroupMembershipStatus| {
        let mut status = our_part(status);
        if let Some(error) = &mut status.last_error {
            error.request_id = None;
            error.time = Time(Timestamp::UNIX_EPOCH);
        }
        status
    };
    without_request(previous) == without_request(next)
}

/// The status without the conditions of other controllers.
#[must_use]
pub fn our_part(status: &SecurityGroupMembershipStatus) -> SecurityGroupMembershipStatus {
    let mut status = status.clone();
    status
        .conditions
        .retain(|condition| OUR_CONDITIONS.contains(&condition.type_.as_str()));
    status
}

/// The conditions of other controllers.
pub(super) fn foreign_conditions(status: &SecurityGroupMembershipStatus) -> Vec<&Condition> {
    let conditions = status.conditions.iter();
    let foreign = conditions.filter(|one| !OUR_CONDITIONS.contains(&one.type_.as_str()));
    foreign.collect()
}

/// Longest state in bytes that the schema allows. The cloud may send a longer one that the operator does not know.
const STATE_LIMIT: usize = 64;
/// Most lock reasons that the schema allows.
const LOCKS_LIMIT: usize = 16;

fn target_status(description: &TargetDescription) -> TargetStatus {
    let locks = description.lock_reasons.iter().take(LOCKS_LIMIT);
    TargetStatus {
        state: condition::truncate(&description.state.to_string(), STATE_LIMIT),
        vpc_id: description.vpc_id.clone(),
        lock_reasons: locks.cloned().collect(),
    }
}
