//! Conditions, reasons, messages and the last error for the outcome of a pass. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::api::membership::{ErrorClass, LastError, Origin, SecurityGroupMembershipStatus};
use crate::api::reason;
use crate::condition::{self, NewCondition, Status};
use crate::ecs::{Action, ApiError, Class, Edge, Error, TargetDescription};

use super::super::admission::REPORT_WAIT_AFTER;
use super::super::decide::{
    AccessView, REPAIR_LIMIT, REPAIR_WINDOW_MINUTES, ReconcileOutcome, Release, TargetView,
};
use super::input::{Held, Refusal, Refused, StatusInput};

/// How long a target may be between states before it counts as stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(30 * 60);

/// The conditions and the last error for one outcome.
pub(super) struct Summary {
    ready: Status,
    reason: String,
    message: String,
    phase: Phase,
    drifted: Option<(&'static str, String)>,
    pub(super) last_error: Option<LastError>,
}

/// Which of Reconciling and Stalled is written: for kstatus at most one of them.
enum Phase {
    Complete,
    Reconciling,
    Stalled,
}

impl Summary {
    pub(super) fn conditions(&self) -> Vec<NewCondition> {
        let same = |type_, status| new_condition(type_, status, &self.reason, &self.message);
        let mut conditions = vec![same(reason::READY, self.ready)];
        match self.phase {
            Phase::Complete => {}
            Phase::Reconciling => conditions.push(same(reason::RECONCILING, Status::True)),
            Phase::Stalled => conditions.push(same(reason::STALLED, Status::True)),
        }
        conditions.push(match &self.drifted {
            Some((reason, message)) => {
                new_condition(reason::DRIFTED, Status::True, reason, message)
            }
            None => no_drift(),
        });
        conditions
    }

    /// Whether the pass neither reports drift nor has read the target.
    pub(super) fn drift_is_unknown(&self, input: &StatusInput<'_>) -> bool {
        let is_read = match input.observed.target {
            TargetView::Absent | TargetView::Unsuitable | TargetView::Present { .. } => true,
            TargetView::Unread | TargetView::Unreadable(_) => false,
        };
        self.drifted.is_none() && !matches!(self.ready, Status::True) && !is_read
    }

    fn simple(ready: Status, reason: &str, message: String, phase: Phase) -> Self {
        Self {
            ready,
            reason: reason.to_owned(),
            message,
            phase,
            drifted: None,
            last_error: None,
        }
    }
}

fn new_condition(type_: &'static str, status: Status, reason: &str, message: &str) -> NewCondition {
    NewCondition {
        type_,
        status,
        reason: reason.to_owned(),
        message: message.to_owned(),
    }
}

/// The condition of a membership that is not known to have drifted.
pub(super) fn no_drift() -> NewCondition {
    new_condition(
        reason::DRIFTED,
        Status::False,
        reason::NO_DRIFT,
        "no drift is known",
    )
}

/// The condition of an object that was never observed.
pub(super) fn pending() -> NewCondition {
    new_condition(
        reason::READY,
        Status::Unknown,
        reason::PENDING,
        "waiting for the operator",
    )
}

/// The condition of a suspended object.
pub(super) fn suspended_condition(deleting: bool) -> NewCondition {
    let message = if deleting {
        "suspended by spec.suspend: no cloud call is made and the deletion waits; set spec.suspend to false to go on"
    } else {
        "suspended by spec.suspend: no cloud call is made; set spec.suspend to false to go on"
    };
    new_condition(reason::SUSPENDED, Status::True, reason::SUSPENDED, message)
}

/// The summary of an outcome; `None` if the outcome changes no status.
pub(super) fn summarize(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    now: Timestamp,
) -> Option<Summary> {
    let StatusInput { edge, outcome, .. } = *input;
    let target = &edge.target;
    let group = &edge.group;
    Some(match outcome {
        // `super::suspended` writes the status of a suspended object.
        ReconcileOutcome::Undecided | ReconcileOutcome::Suspended => return None,
        ReconcileOutcome::Unsettled if !input.deleting => return None,
        ReconcileOutcome::Unsettled => Summary::simple(
            Status::False,
            reason::RETRYING,
            format!(
                "a JoinSecurityGroup of the operator for {target} got no answer and may still take effect; the deletion ends when that is certain, within 76s{}",
                retain_hint(true)
            ),
            Phase::Reconciling,
        ),
        ReconcileOutcome::SuccessorOutOfReach => Summary::simple(
            Status::False,
            reason::RETRYING,
            format!(
                "another SecurityGroupMembership on {target} and {group} must own the membership, but cannot be read; correct or delete it; {}{}",
                Class::Transient.retry(),
                retain_hint(true)
            ),
            Phase::Reconciling,
        ),
        ReconcileOutcome::Unlisted => unlisted(input),
        ReconcileOutcome::WriteRefused => {
            return input
                .refusal
                .map(|refusal| write_refused(previous, generation, input, refusal));
        }
        ReconcileOutcome::Gone => {
            let held = input.held.filter(|held| !held.finalizers.is_empty());
            return held.map(|held| held_by_others(edge, held));
        }
        ReconcileOutcome::Ready { origin, shared, .. } => ready(edge, origin, shared),
        ReconcileOutcome::Waiting => waiting(previous, input, now),
        ReconcileOutcome::WouldJoin => Summary::simple(
            Status::False,
            reason::NOT_A_MEMBER,
            format!(
                "{target} is not a member of {group}; not joined because managementPolicy is Observe; set it to Manage, or join the target"
            ),
            Phase::Stalled,
        ),
        ReconcileOutcome::AdoptionRefused => Summary::simple(
            Status::False,
            reason::ADOPTION_REFUSED,
            format!(
                "{target} was a member of {group} before this object was created, and adoptionPolicy is Refuse; set adoptionPolicy to Adopt, or remove {target} from {group}; {}",
                Class::Absent.retry()
            ),
            Phase::Stalled,
        ),
        ReconcileOutcome::DriftReported => drift_reported(edge),
        ReconcileOutcome::RepairLoop => repair_loop(edge),
        ReconcileOutcome::Absent => absent(input, now),
        ReconcileOutcome::Unsuitable => unsuitable(input, now),
        // A transient failure of the account does not change what is known of the edge.
        ReconcileOutcome::AccountUnusable
            if input.observed.account == (AccessView::NotReady { stalled: false })
                && stands(previous, generation, input) =>
        {
            return unless_overdue(previous, generation, input, now);
        }
        ReconcileOutcome::AccountUnusable => account_unusable(input),
        ReconcileOutcome::Failed(class) => return failed(previous, generation, input, class, now),
    })
}

fn ready(edge: &Edge, origin: Option<Origin>, shared: bool) -> Summary {
    let Edge { target, group, .. } = edge;
    let (reason, message) = match (origin, shared) {
        (Some(Origin::Joined), _) => (
            reason::JOINED,
            format!("{target} is a member of {group}; joined by the operator"),
        ),
        (Some(Origin::Adopted), true) => (
            reason::SHARED,
            format!(
                "{target} is a member of {group}; another SecurityGroupMembership joined it and still manages it"
            ),
        ),
        (Some(Origin::Adopted), false) => (
            reason::ADOPTED,
            format!(
                "{target} is a member of {group}; it was a member before this object was created and stays one when this object is deleted"
            ),
        ),
        (None, _) => (
            reason::OBSERVED,
            format!("{target} is a member of {group}; managementPolicy is Observe"),
        ),
    };
    Summary::simple(Status::True, reason, message, Phase::Complete)
}

/// No Leave without a list: another object may hold the membership.
fn unlisted(input: &StatusInput<'_>) -> Summary {
    let cause = input.not_listed.unwrap_or("no answer");
    let message = format!(
        "the objects for this membership could not be listed ({}), and another one may hold it; {}{}",
        condition::truncate(cause, LIST_CAUSE_LIMIT),
        Class::Transient.retry(),
        retain_hint(true)
    );
    Summary::simple(Status::False, reason::RETRYING, message, Phase::Reconciling)
}

/// The last status of a deleted object that finalizers of others keep.
fn held_by_others(edge: &Edge, held: Held<'_>) -> Summary {
    let (reason, message) = held.ending.explain(edge);
    let (finalizers, are) = match held.finalizers {
        [_] => ("finalizer", "is"),
        _ => ("finalizers", "are"),
    };
    let names = held.finalizers.join(", ");
    Summary::simple(
        Status::False,
        reason,
        format!("{message}; the object stays until {finalizers} {names} {are} removed"),
        Phase::Complete,
    )
}

/// A write that the API server refuses: what it was for, its answer, and the way out.
fn write_refused(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    refusal: &Refusal,
) -> Summary {
    let Edge { target, group, .. } = input.edge;
    let another =
        format!("another SecurityGroupMembership on {target} and {group} must own the membership");
    let (reason, what) = match (refusal.what, input.held) {
        (Refused::Claim, _) => (
            reason::WRITE_REFUSED,
            "the operator's claim could not be stored, and without it the operator does not join"
                .to_owned(),
        ),
        (Refused::Finalizer, Some(held)) => {
            let told = told_ending(previous, generation)
                .filter(|_| held.ending.why == Release::NeverJoined);
            let ending = told.map_or_else(|| held.ending.explain(input.edge).1, str::to_owned);
            (reason::WRITE_REFUSED, format!("{ending}{FINALIZER_STAYS}"))
        }
        (Refused::Finalizer, None) => (
            reason::WRITE_REFUSED,
            "the finalizer could not be removed".to_owned(),
        ),
        (Refused::Successor, _) => (
            reason::WRITE_REFUSED,
            format!("{another}, but the API server refuses the write to it"),
        ),
        // Not `WriteRefused`: nothing is given up.
        (Refused::Record, _) => (reason::RETRYING, another),
    };
    let (fix, hint) = match refusal.what {
        Refused::Claim | Refused::Finalizer => (POLICY, ""),
        Refused::Successor => (POLICY, retain_hint(true)),
        Refused::Record => ("install the CRDs of this version", retain_hint(true)),
    };
    let sentence = &refusal.sentence;
    let retry = Class::Transient.retry();
    Summary::simple(
        Status::False,
        reason,
        format!("{what}: {sentence}; {fix}; {retry}{hint}"),
        Phase::Reconciling,
    )
}

const POLICY: &str =
    "correct what refuses it: a policy, a webhook, a quota or the operator's rights";

/// Between what became of the membership and why the object is still there.
const FINALIZER_STAYS: &str = "; the finalizer could not be removed";

/// What an earlier process has said of the end of the membership.
fn told_ending(previous: &SecurityGroupMembershipStatus, generation: Option<i64>) -> Option<&str> {
    let ready = condition::find(&previous.conditions, reason::READY)?;
    let is_told = ready.reason == reason::WRITE_REFUSED && ready.observed_generation == generation;
    let (ending, _) = ready.message.split_once(FINALIZER_STAYS)?;
    is_told.then_some(ending)
}

fn waiting(
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
fn gets_unknown_code<'a>(
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
fn has_waited_long(input: &StatusInput<'_>, now: Timestamp) -> bool {
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

fn drift_reported(edge: &Edge) -> Summary {
    let Edge { target, group, .. } = edge;
    drifted(
        reason::DRIFT_REPORTED,
        format!(
            "{target} was removed from {group} by another actor, and driftPolicy is Report; join it again, set driftPolicy to Repair, or delete this object"
        ),
    )
}

fn repair_loop(edge: &Edge) -> Summary {
    let Edge { target, group, .. } = edge;
    drifted(
        reason::REPAIR_LOOP,
        format!(
            "{target} was removed from {group} again after {REPAIR_LIMIT} repairs in {REPAIR_WINDOW_MINUTES} minutes; find the other owner (in Terraform: ignore_changes = [security_groups]); next repair in about 1 hour, or when reconcile-requested-at changes"
        ),
    )
}

fn drifted(reason: &'static str, message: String) -> Summary {
    Summary {
        drifted: Some((reason, message.clone())),
        ..Summary::simple(Status::False, reason, message, Phase::Stalled)
    }
}

fn absent(input: &StatusInput<'_>, now: Timestamp) -> Summary {
    let Edge { target, region, .. } = input.edge;
    let (action, field) = match target {
        crate::ecs::Target::Instance(_) => ("DescribeInstances", "instanceID"),
        crate::ecs::Target::NetworkInterface(_) => {
            ("DescribeNetworkInterfaces", "networkInterfaceID")
        }
    };
    let found = format!("{action} does not list {target} in {region}");
    Summary {
        ready: Status::False,
        reason: reason::TARGET_NOT_FOUND.to_owned(),
        message: format!(
            "{found}; check spec.{field}, spec.region and the account; {}",
            Class::Absent.retry()
        ),
        phase: Phase::Stalled,
        drifted: None,
        last_error: Some(LastError {
            action: action.to_owned(),
            code: None,
            class: ErrorClass::Absent,
            request_id: None,
            time: condition::whole_seconds(now),
            message: found,
            access_denied_detail: None,
        }),
    }
}

/// The reason and the advice are those of the refusal that a Join would get.
fn unsuitable(input: &StatusInput<'_>, now: Timestamp) -> Summary {
    let target = &input.edge.target;
    let found = if input.description.is_some_and(|seen| seen.primary) {
        format!("{target} is the primary interface of an instance")
    } else {
        format!("another cloud service manages {target}")
    };
    let code = input.description.and_then(TargetDescription::refusal);
    let refusal = ApiError::foreseen(Action::JoinSecurityGroup, code.unwrap_or_default());
    Summary {
        ready: Status::False,
        reason: refusal.reason(),
        message: format!(
            "{found}; {}; {}",
            refusal.classify().hint,
            Class::Invalid.retry()
        ),
        phase: Phase::Stalled,
        drifted: None,
        last_error: Some(LastError {
            action: target.describe_action().to_string(),
            code: None,
            class: ErrorClass::Invalid,
            request_id: None,
            time: condition::whole_seconds(now),
            message: found,
            access_denied_detail: None,
        }),
    }
}

fn account_unusable(input: &StatusInput<'_>) -> Summary {
    let (reason, phase) = match input.observed.account {
        AccessView::Missing => (reason::ACCOUNT_NOT_FOUND, Phase::Stalled),
        AccessView::NotReady { stalled: true } => (reason::ACCOUNT_NOT_READY, Phase::Stalled),
        AccessView::NotReady { stalled: false } => (reason::ACCOUNT_NOT_READY, Phase::Reconciling),
        AccessView::Changed => (reason::ACCOUNT_CHANGED, Phase::Stalled),
        AccessView::NotGranted => (reason::NOT_GRANTED, Phase::Stalled),
        AccessView::Checking | AccessView::Usable => (reason::PENDING, Phase::Reconciling),
    };
    let message = format!("{}{}", input.account_problem, retain_hint(input.deleting));
    Summary::simple(Status::False, reason, message, phase)
}

fn failed(
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
fn was_ready_for(previous: &SecurityGroupMembershipStatus, generation: Option<i64>) -> bool {
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
fn stands(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
) -> bool {
    let is_ready = was_ready_for(previous, generation) && !is_missing(input);
    !input.deleting && (is_ready || was_not_observed_for(previous, generation))
}

/// Ready=Unknown once no read has shown the target for long, with the first cause: another one later would be one more write.
fn unless_overdue(
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
fn is_missing(input: &StatusInput<'_>) -> bool {
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
            "{text}; {hint}; {}{}",
            class.retry(),
            retain_hint(input.deleting)
        ),
        phase,
        drifted: None,
        last_error: Some(last_error(failure, class, now)),
    }
}

/// Longest part of the cloud's sentence in a condition, in bytes. With the advice and the next try a message stays below 250.
const CAUSE_LIMIT: usize = 110;

/// Longest part of the API server's sentence in a condition, in bytes.
const LIST_CAUSE_LIMIT: usize = 70;

/// Longest message of `lastError` that the schema allows, in bytes. The cloud's sentence is shorter, but the cause of a lost
/// connection may list all names of a certificate.
const ERROR_LIMIT: usize = 2048;

fn last_error(failure: &Error, class: Class, now: Timestamp) -> LastError {
    let (code, request_id, message, access_denied_detail) = match failure {
        Error::Api(api) => (
            Some(api.code.clone()),
            api.request_id.as_ref().map(ToString::to_string),
            api.message.clone(),
            api.access_denied_detail.as_deref().map(str::to_owned),
        ),
        Error::Transport { .. } | Error::BadAnswer { .. } | Error::BadRow { .. } => (
            None,
            None,
            condition::truncate(&failure.to_string(), ERROR_LIMIT),
            None,
        ),
    };
    LastError {
        action: failure.action().to_string(),
        code,
        class: error_class(class),
        request_id,
        time: condition::whole_seconds(now),
        message,
        access_denied_detail,
    }
}

/// The class as the status spells it. `Done` is no failure and does not occur.
const fn error_class(class: Class) -> ErrorClass {
    match class {
        Class::Transitional => ErrorClass::Transitional,
        Class::Done | Class::Transient => ErrorClass::Transient,
        Class::Throttled => ErrorClass::Throttled,
        Class::Absent => ErrorClass::Absent,
        Class::Blocked => ErrorClass::Blocked,
        Class::Invalid => ErrorClass::Invalid,
    }
}

const fn retain_hint(deleting: bool) -> &'static str {
    if deleting {
        "; to keep the membership, set spec.deletionPolicy to Retain"
    } else {
        ""
    }
}
