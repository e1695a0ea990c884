//! Waits for a target between states, and since when an object waits. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::api::membership::SecurityGroupMembershipStatus;
use crate::api::reason;
use crate::condition::{self, Status};
use crate::ecs::{Class, Error};

use super::conditions::{CAUSE_LIMIT, Phase, Summary};
use super::input::StatusInput;
use super::last_error::last_error;

/// How long a target may be between states before it counts as stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(30 * 60);

pub(super) fn waiting(
    previous: &SecurityGroupMembershipStatus,
    input: &StatusInput<'_>,
    now: Timestamp,
) -> Summary {
    let target = &input.edge.target;
    let state = input.description.map_or_else(String::new, |description| {
        format!(" is {}", description.state)
    });
    let call = if input.deleting { "removes" } else { "joins" };
    let steady = match target {
        crate::ecs::Target::Instance(_) => "Running or Stopped",
        crate::ecs::Target::NetworkInterface(_) => "Available or InUse",
    };
    let cause = input.failure.map_or_else(
        || format!("{target}{state}; the operator {call} it when it is {steady}"),
        |failure| condition::truncate(failure.to_string().trim_end_matches('.'), CAUSE_LIMIT),
    );
    let retry = Class::Transitional.retry();
    let stuck = waits(previous).is_some_and(|condition| condition.type_ == reason::STALLED)
        || has_waited_long(input, now);
    let message = if stuck {
        format!(
            "{cause}; the target has been between states for more than {} minutes; check it in the ECS console",
            STUCK_AFTER.as_secs() / 60
        )
    } else {
        cause
    };
    Summary {
        ready: Status::False,
        reason: reason::WAITING_FOR_TARGET.to_owned(),
        message: format!("{message}; {retry}"),
        phase: if stuck {
            Phase::Stalled
        } else {
            Phase::Reconciling
        },
        drifted: None,
        last_error: input
            .failure
            .map(|failure| last_error(failure, Class::Transitional, now)),
    }
}

/// Since when an object has waited for its target, or has got the unknown code of `failure`, from its conditions: the time
/// survives a restart. It includes retries before the wait, because the time of a condition does not change with its reason.
#[must_use]
pub fn waits_since(
    previous: &SecurityGroupMembershipStatus,
    failure: Option<&Error>,
) -> Option<Timestamp> {
    let unknown = failure
        .filter(|failure| failure.is_unknown_refusal())
        .and_then(|failure| gets_unknown_code(previous, failure));
    let condition = unknown.or_else(|| waits(previous))?;
    Some(condition.last_transition_time.0)
}

/// The condition under which the object has got this code.
pub(super) fn gets_unknown_code<'a>(
    previous: &'a SecurityGroupMembershipStatus,
    failure: &Error,
) -> Option<&'a Condition> {
    let code = previous.last_error.as_ref()?.code.as_deref();
    let is_same = code.is_some() && code == failure.code();
    [reason::RECONCILING, reason::STALLED]
        .iter()
        .filter_map(|type_| condition::find(&previous.conditions, type_))
        .find(|condition| is_same && condition.status == "True")
}

/// Whether the wait for the target, or for another answer than an unknown code, has lasted for [`STUCK_AFTER`].
pub(super) fn has_waited_long(input: &StatusInput<'_>, now: Timestamp) -> bool {
    input.waits_since.is_some_and(|since| {
        let waited = now.as_second().saturating_sub(since.as_second());
        u64::try_from(waited).is_ok_and(|waited| waited >= STUCK_AFTER.as_secs())
    })
}

fn waits(previous: &SecurityGroupMembershipStatus) -> Option<&Condition> {
    [reason::RECONCILING, reason::STALLED]
        .iter()
        .filter_map(|type_| condition::find(&previous.conditions, type_))
        .find(|condition| {
            condition.status == "True" && condition.reason == reason::WAITING_FOR_TARGET
        })
}
