//! A outcome in the words of the status: conditions, reasons, messages and the last error. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::api::membership::{LastError, Origin, SecurityGroupMembershipStatus};
use crate::api::reason;
use crate::condition::{self, NewCondition, Status};
use crate::ecs::{Class, Error};

use super::super::decide::{
    Access, REPAIR_LIMIT, REPAIR_WINDOW_MINUTES, ReconcileOutcome, TargetView,
};
use super::super::edge::Edge;
use super::StatusInput;

/// How long a target may be between states before it counts as stuck.
pub const STUCK_AFTER: Duration = Duration::from_secs(30 * 60);

/// How long an object waits for its turn without a word: a status costs the API server a write.
const REPORT_WAIT_AFTER: Duration = Duration::from_secs(60);

/// A outcome in the words of the status.
pub(super) struct Summary {
    ready: Status,
    reason: String,
    message: String,
    phase: Phase,
    drifted: Option<(&'static str, String)>,
    pub(super) last_error: Option<LastError>,
}

/// kstatus: at most one of the two is said.
enum Phase {
    Settled,
    Reconciling,
    Stalled,
}

impl Summary {
    pub(super) fn conditions(&self) -> Vec<NewCondition> {
        let condition = |type_, status, reason: &str, message: &str| NewCondition {
            type_,
            status,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        let mut conditions = vec![condition(
            reason::READY,
            self.ready,
            &self.reason,
            &self.message,
        )];
        match self.phase {
            Phase::Settled => {}
            Phase::Reconciling => conditions.push(condition(
                reason::RECONCILING,
                Status::True,
                &self.reason,
                &self.message,
            )),
            Phase::Stalled => conditions.push(condition(
                reason::STALLED,
                Status::True,
                &self.reason,
                &self.message,
            )),
        }
        if let Some((reason, message)) = &self.drifted {
            conditions.push(condition(reason::DRIFTED, Status::True, reason, message));
        }
        conditions
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

/// None where the outcome says nothing that belongs into a status.
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
        ReconcileOutcome::Undecided | ReconcileOutcome::Gone => return None,
        ReconcileOutcome::Ready { origin, shared, .. } => ready(edge, origin, shared),
        ReconcileOutcome::Paused => Summary::simple(
            Status::Unknown,
            reason::PAUSED,
            paused_message(previous, input.deleting),
            Phase::Settled,
        ),
        ReconcileOutcome::Waiting => waiting(previous, input, now),
        ReconcileOutcome::WouldJoin => Summary::simple(
            Status::False,
            reason::NOT_A_MEMBER,
            format!(
                "{target} is not a member of {group}; with managementPolicy Manage it would be joined"
            ),
            Phase::Settled,
        ),
        ReconcileOutcome::AdoptionRefused => Summary::simple(
            Status::False,
            reason::ADOPTION_REFUSED,
            format!(
                "{target} was a member of {group} before this object, and adoptionPolicy is Refuse; set it to Adopt, or take the membership away"
            ),
            Phase::Stalled,
        ),
        ReconcileOutcome::DriftReported => drift_reported(edge),
        ReconcileOutcome::RepairLoop => repair_loop(edge),
        ReconcileOutcome::Absent => absent(input),
        // A passing failure of the account says nothing new about the edge.
        ReconcileOutcome::AccountUnusable
            if input.observed.account == (Access::NotReady { stalled: false })
                && was_ready_for(previous, generation)
                && !input.deleting =>
        {
            return None;
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
            format!("{target} is a member of {group}; another object joined it and holds it too"),
        ),
        (Some(Origin::Adopted), false) => (
            reason::ADOPTED,
            format!(
                "{target} is a member of {group}; it was one before this object, and stays one when this object goes"
            ),
        ),
        (None, _) => (
            reason::ADOPTED,
            format!("{target} is a member of {group}; only observed"),
        ),
    };
    Summary::simple(Status::True, reason, message, Phase::Settled)
}

fn paused_message(previous: &SecurityGroupMembershipStatus, deleting: bool) -> String {
    let then = condition::find(&previous.conditions, reason::READY)
        .filter(|condition| condition.reason != reason::PAUSED)
        .map(|condition| format!("; before: {}", condition.reason));
    // A later pass of the same pause must say the same.
    let kept = condition::find(&previous.conditions, reason::READY)
        .filter(|condition| condition.reason == reason::PAUSED)
        .and_then(|condition| condition.message.split_once("; before: "))
        .map(|(_, before)| format!("; before: {}", before.split(';').next().unwrap_or_default()));
    let deletion = if deleting { "; the deletion waits" } else { "" };
    format!(
        "nothing is read or written while the annotation {} is there and not \"false\"{}{deletion}",
        crate::api::PAUSED_ANNOTATION,
        then.or(kept).unwrap_or_default()
    )
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
    let call = if input.deleting { "left" } else { "joined" };
    let cause = input.failure.map_or_else(
        || format!("{target}{state} and is {call} when it has settled"),
        ToString::to_string,
    );
    let retry = Class::Transitional.retry().to_string();
    let stuck = waits(previous).is_some_and(|condition| condition.type_ == reason::STALLED)
        || input.waits_since.is_some_and(|since| {
            let waited = now.as_second().saturating_sub(since.as_second());
            u64::try_from(waited).is_ok_and(|waited| waited >= STUCK_AFTER.as_secs())
        });
    let message = if stuck {
        format!(
            "{cause}; this object has been reconciling for more than {} min now, look at the target in the ECS console",
            STUCK_AFTER.as_secs() / 60
        )
    } else {
        cause
    };
    Summary {
        ready: Status::False,
        reason: reason::WAITING_FOR_TARGET.to_owned(),
        message: format!("{message}; looked at again {retry}"),
        phase: if stuck {
            Phase::Stalled
        } else {
            Phase::Reconciling
        },
        drifted: None,
        last_error: input.failure.map(|failure| last_error(failure, &retry)),
    }
}

/// Since when an object waits for its target, as its own conditions tell: that survives a restart, and counts what was retried
/// before it waited as well, because the time of a condition does not move with its reason.
#[must_use]
pub fn waits_since(previous: &SecurityGroupMembershipStatus) -> Option<Timestamp> {
    waits(previous).map(|condition| condition.last_transition_time.0)
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
            "{target} was taken out of {group} by somebody else, and driftPolicy is Report; join it again, set driftPolicy to Repair, or delete this object"
        ),
    )
}

fn repair_loop(edge: &Edge) -> Summary {
    let Edge { target, group, .. } = edge;
    drifted(
        reason::REPAIR_LOOP,
        format!(
            "somebody else keeps taking {target} out of {group}: {REPAIR_LIMIT} repairs in {REPAIR_WINDOW_MINUTES} min were undone; find the other owner (in Terraform: ignore_changes = [security_groups]); repaired again in an hour"
        ),
    )
}

fn drifted(reason: &'static str, message: String) -> Summary {
    Summary {
        drifted: Some((reason, message.clone())),
        ..Summary::simple(Status::False, reason, message, Phase::Stalled)
    }
}

fn absent(input: &StatusInput<'_>) -> Summary {
    let Edge { target, region, .. } = input.edge;
    let retry = Class::Absent.retry().to_string();
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
            "{found}; check spec.{field}, spec.region and the account; looked for again {retry}"
        ),
        phase: Phase::Stalled,
        drifted: None,
        last_error: Some(LastError {
            action: action.to_owned(),
            code: None,
            request_id: None,
            message: found,
            retry,
        }),
    }
}

fn account_unusable(input: &StatusInput<'_>) -> Summary {
    let (reason, phase) = match input.observed.account {
        Access::Missing => (reason::ACCOUNT_NOT_FOUND, Phase::Stalled),
        Access::NotReady { stalled: true } => (reason::ACCOUNT_NOT_READY, Phase::Stalled),
        Access::NotReady { stalled: false } => (reason::ACCOUNT_NOT_READY, Phase::Reconciling),
        Access::Changed => (reason::ACCOUNT_CHANGED, Phase::Stalled),
        Access::NotGranted => (reason::NOT_GRANTED, Phase::Stalled),
        Access::Checking | Access::Usable => (reason::PENDING, Phase::Reconciling),
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
        return rate_limit_wait(previous, generation, input);
    };
    match class {
        Class::Transitional => Some(waiting(previous, input, now)),
        // A passing failure does not undo what the cloud said of this generation before; that the edge is gone does.
        Class::Transient | Class::Throttled
            if was_ready_for(previous, generation) && !input.deleting && !is_missing(input) =>
        {
            None
        }
        Class::Transient => Some(failure_summary(
            input,
            failure,
            class,
            reason::RETRYING,
            Phase::Reconciling,
        )),
        Class::Throttled => Some(failure_summary(
            input,
            failure,
            class,
            reason::THROTTLED,
            Phase::Reconciling,
        )),
        Class::Done | Class::Absent | Class::Blocked | Class::Invalid => Some(failure_summary(
            input,
            failure,
            class,
            &failure.reason(),
            Phase::Stalled,
        )),
    }
}

/// Without a call of its own there is nothing to tell, unless the wait is long, and nothing was told of this generation yet or
/// what was told is not so any more.
fn rate_limit_wait(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
) -> Option<Summary> {
    let is_long = input.turn_in.is_some_and(|wait| wait >= REPORT_WAIT_AFTER);
    let is_told = previous.observed_generation == generation;
    let is_outdated = was_ready_for(previous, generation) && is_missing(input);
    (is_long && (!is_told || is_outdated)).then(|| {
        let target = &input.edge.target;
        Summary::simple(
            Status::False,
            reason::THROTTLED,
            format!(
                "{target} waits for its turn: the cloud limits the account's calls a minute, and others were first{}",
                retain_hint(input.deleting)
            ),
            Phase::Reconciling,
        )
    })
}

/// Whether Ready=True was said for this generation.
fn was_ready_for(previous: &SecurityGroupMembershipStatus, generation: Option<i64>) -> bool {
    previous.observed_generation == generation
        && condition::is_true(&previous.conditions, reason::READY)
}

/// Whether the pass has seen that the edge is not there.
fn is_missing(input: &StatusInput<'_>) -> bool {
    matches!(
        input.observed.target,
        TargetView::Present { member: false, .. }
    )
}

/// `class` is what the loop takes the failure for: a Leave that is forbidden is asked about again sooner than its code says.
fn failure_summary(
    input: &StatusInput<'_>,
    failure: &Error,
    class: Class,
    reason: &str,
    phase: Phase,
) -> Summary {
    let retry = class.retry().to_string();
    let text = failure.to_string();
    // The cloud's sentence goes on here.
    let text = text.trim_end_matches('.');
    let hint = failure.hint();
    let hint = if hint.is_empty() {
        String::new()
    } else {
        format!("; {hint}")
    };
    Summary {
        ready: Status::False,
        reason: reason.to_owned(),
        message: format!(
            "{text}{hint}; tried again {retry}{}",
            retain_hint(input.deleting)
        ),
        phase,
        drifted: None,
        last_error: Some(last_error(failure, &retry)),
    }
}

fn last_error(failure: &Error, retry: &str) -> LastError {
    let (code, request_id, message) = match failure {
        Error::Api(api) => (
            Some(api.code.clone()),
            api.request_id.as_ref().map(ToString::to_string),
            api.message.clone(),
        ),
        Error::Transport { .. } | Error::BadAnswer { .. } | Error::BadRow { .. } => {
            (None, None, failure.to_string())
        }
    };
    LastError {
        action: failure.action().to_string(),
        code,
        request_id,
        message,
        retry: retry.to_owned(),
    }
}

const fn retain_hint(deleting: bool) -> &'static str {
    if deleting {
        "; to let this object go without leaving the group, set spec.deletionPolicy to Retain"
    } else {
        ""
    }
}
