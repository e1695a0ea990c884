//! What a failed call, or one that the rate limit holds back, means for the status. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::api::membership::SecurityGroupMembershipStatus;
use crate::api::reason;
use crate::condition::{self, Status};
use crate::ecs::{Class, Error};

use super::super::admission::REPORT_WAIT_AFTER;
use super::super::decide::TargetView;
use super::conditions::{CAUSE_LIMIT, Phase, Summary, retain_hint};
use super::input::StatusInput;
use super::last_error::last_error;
use super::wait::{gets_unknown_code, has_waited_long, waiting};

pub(super) fn failed(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    class: Class,
    now: Timestamp,
) -> Option<Summary> {
    let Some(failure) = input.failure else {
        return rate_limit_wait(previous, generation, input, now);
    };
    match class {
        Class::Transitional => Some(waiting(previous, input, now)),
        Class::Transient if is_stuck(previous, input, failure, now) => {
            let reason = failure.reason();
            let phase = Phase::Stalled;
            Some(failure_summary(input, failure, class, &reason, phase, now))
        }
        Class::Transient | Class::Throttled if stands(previous, generation, input) => {
            unless_overdue(previous, generation, input, now)
        }
        Class::Transient => Some(failure_summary(
            input,
            failure,
            class,
            reason::RETRYING,
            Phase::Reconciling,
            now,
        )),
        Class::Throttled => Some(failure_summary(
            input,
            failure,
            class,
            reason::THROTTLED,
            Phase::Reconciling,
            now,
        )),
        Class::Done | Class::Absent | Class::Blocked | Class::Invalid => Some(failure_summary(
            input,
            failure,
            class,
            &failure.reason(),
            Phase::Stalled,
            now,
        )),
    }
}

/// Reports a rate-limit wait only if it exceeds `REPORT_WAIT_AFTER`, and not instead of what is still right: Ready=True, or
/// Stalled, which the awaited call only checks again.
fn rate_limit_wait(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    now: Timestamp,
) -> Option<Summary> {
    if stands(previous, generation, input) {
        return unless_overdue(previous, generation, input, now);
    }
    let is_long = input.held_for >= REPORT_WAIT_AFTER;
    let is_still_ready = was_ready_for(previous, generation) && !is_missing(input);
    let is_still_stalled = previous.observed_generation == generation
        && condition::is_true(&previous.conditions, reason::STALLED);
    (is_long && !is_still_ready && !is_still_stalled).then(|| {
        let target = &input.edge.target;
        Summary::simple(
            Status::False,
            reason::THROTTLED,
            format!(
                "rate limited: the account's calls per minute are used by earlier requests; {target} follows without any action{}",
                retain_hint(input.deleting)
            ),
            Phase::Reconciling,
        )
    })
}

/// Whether the previous status has Ready=True for this generation.
pub(super) fn was_ready_for(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
) -> bool {
    previous.observed_generation == generation
        && condition::is_true(&previous.conditions, reason::READY)
}

/// Whether the previous status says for this generation that the target has not been observed for long.
fn was_not_observed_for(previous: &SecurityGroupMembershipStatus, generation: Option<i64>) -> bool {
    let ready = condition::find(&previous.conditions, reason::READY);
    previous.observed_generation == generation
        && ready.is_some_and(|ready| ready.reason == reason::NOT_OBSERVED)
}

/// Whether a failure that may pass keeps what the object says of this generation: Ready=True, unless the membership is known to be
/// missing, or that it has not been observed for long.
pub(super) fn stands(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
) -> bool {
    let is_ready = was_ready_for(previous, generation) && !is_missing(input);
    !input.deleting && (is_ready || was_not_observed_for(previous, generation))
}

/// Ready=Unknown once no read has shown the target for long, with the first cause: another one later would be one more write.
pub(super) fn unless_overdue(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    now: Timestamp,
) -> Option<Summary> {
    let limit = input.not_observed_after?;
    if was_not_observed_for(previous, generation) {
        return None;
    }
    let cause = match input.failure {
        Some(failure) => {
            let text = failure.to_string();
            let text = condition::truncate(text.trim_end_matches('.'), CAUSE_LIMIT);
            format!("{text}; {}", failure.hint())
        }
        None if input.account_problem.is_empty() => {
            "rate limited: the account's calls per minute are used by earlier requests".to_owned()
        }
        None => input.account_problem.to_owned(),
    };
    let (target, limit) = (&input.edge.target, humantime::format_duration(limit));
    let message = format!("{target} has not been read for {limit}: {cause}");
    Some(Summary {
        last_error: input
            .failure
            .map(|failure| last_error(failure, failure.class(), now)),
        ..Summary::simple(
            Status::Unknown,
            reason::NOT_OBSERVED,
            message,
            Phase::Reconciling,
        )
    })
}

/// Whether the cloud has refused for long with a code that this version does not know.
fn is_stuck(
    previous: &SecurityGroupMembershipStatus,
    input: &StatusInput<'_>,
    failure: &Error,
    now: Timestamp,
) -> bool {
    let is_stalled_by = |condition: &Condition| condition.type_ == reason::STALLED;
    failure.is_unknown_refusal()
        && (has_waited_long(input, now)
            || gets_unknown_code(previous, failure).is_some_and(is_stalled_by))
}

/// Whether the pass has read that the target is not a member.
pub(super) fn is_missing(input: &StatusInput<'_>) -> bool {
    matches!(
        input.observed.target,
        TargetView::Present { member: false, .. }
    )
}

/// `class` is the class that the loop uses: a Leave that is answered with 403 is retried sooner than its code says.
fn failure_summary(
    input: &StatusInput<'_>,
    failure: &Error,
    class: Class,
    reason: &str,
    phase: Phase,
    now: Timestamp,
) -> Summary {
    let text = failure.to_string();
    // `lastError.message` holds the whole sentence.
    let text = condition::truncate(text.trim_end_matches('.'), CAUSE_LIMIT);
    let hint = if input.deleting {
        failure.hint_while_deleting()
    } else {
        failure.hint()
    };
    Summary {
        ready: Status::False,
        reason: reason.to_owned(),
        message: format!(
            "{text}; {hint}; {}{}{}",
            class.retry(),
            retain_hint(input.deleting),
            input
                .docs_url
                .map(|docs| docs.end_for(failure, class))
                .unwrap_or_default()
        ),
        phase,
        drifted: None,
        last_error: Some(last_error(failure, class, now)),
    }
}
