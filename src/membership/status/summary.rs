//! Which reason and message each outcome of a pass has. Pure.

use k8s_openapi::jiff::Timestamp;

use crate::api::membership::{
    DeletionPolicy, ErrorClass, LastError, Origin, SecurityGroupMembershipStatus,
};
use crate::api::reason;
use crate::condition::{self, Status};
use crate::ecs::{Action, ApiError, Class, Edge, TargetDescription};

use super::super::decide::{AccessView, REPAIR_LIMIT, REPAIR_WINDOW_MINUTES, ReconcileOutcome};
use super::conditions::{LIST_CAUSE_LIMIT, Phase, Summary, retain_hint};
use super::failure::{failed, is_missing, stands, unless_overdue, was_ready_for};
use super::input::{Held, StatusInput};
use super::wait::waiting;
use super::write_refused::write_refused;

/// The summary of an outcome; `None` if the outcome changes no status.
pub(super) fn summarize(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    now: Timestamp,
) -> Option<Summary> {
    let StatusInput { edge, outcome, .. } = *input;
    Some(match outcome {
        // `super::suspended` writes the status of a suspended object.
        ReconcileOutcome::Undecided | ReconcileOutcome::Suspended => return None,
        ReconcileOutcome::Unsettled if !input.deleting => {
            let is_known = was_ready_for(previous, generation) && is_missing(input);
            return (is_known && input.observed.join_is_open).then(|| unanswered(edge));
        }
        ReconcileOutcome::Unsettled => unsettled(edge),
        ReconcileOutcome::SuccessorOutOfReach => successor_out_of_reach(edge),
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
        ReconcileOutcome::Ready { origin, shared, .. } => {
            ready(edge, origin, shared, input.deletion)
        }
        ReconcileOutcome::Waiting => waiting(previous, input, now),
        ReconcileOutcome::WouldJoin => would_join(edge),
        ReconcileOutcome::AdoptionRefused => adoption_refused(edge),
        ReconcileOutcome::DriftReported => drift_reported(edge),
        ReconcileOutcome::RepairLoop => repair_loop(edge),
        ReconcileOutcome::Absent => absent(input, now),
        ReconcileOutcome::Unsuitable => unsuitable(input, now),
        ReconcileOutcome::KarpenterNode => karpenter_node(input, now),
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

fn ready(edge: &Edge, origin: Option<Origin>, shared: bool, deletion: DeletionPolicy) -> Summary {
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
                "{target} is a member of {group}; it was a member before this object was created{}",
                match deletion {
                    DeletionPolicy::Remove =>
                        ", and is removed when this object is deleted, because deletionPolicy is Remove",
                    DeletionPolicy::RemoveIfJoined | DeletionPolicy::Retain =>
                        " and stays one when this object is deleted",
                }
            ),
        ),
        (None, _) => (
            reason::OBSERVED,
            format!("{target} is a member of {group}; managementPolicy is Observe"),
        ),
    };
    Summary::simple(Status::True, reason, message, Phase::Complete)
}

/// A deletion that waits for the outcome of a Join.
fn unsettled(edge: &Edge) -> Summary {
    let target = &edge.target;
    Summary::simple(
        Status::False,
        reason::RETRYING,
        format!(
            "a JoinSecurityGroup of the operator for {target} got no answer and may still take effect; the deletion ends when that is certain, within 76s{}",
            retain_hint(true)
        ),
        Phase::Reconciling,
    )
}

/// The target is not there, and it is not known what a Join has done: perhaps that of another object on the edge.
fn unanswered(edge: &Edge) -> Summary {
    let Edge { target, group, .. } = edge;
    Summary::simple(
        Status::False,
        reason::RETRYING,
        format!(
            "{target} is not a member of {group}; a JoinSecurityGroup of the operator for it got no answer and may still take effect; next look within 76s"
        ),
        Phase::Reconciling,
    )
}

fn successor_out_of_reach(edge: &Edge) -> Summary {
    let Edge { target, group, .. } = edge;
    Summary::simple(
        Status::False,
        reason::RETRYING,
        format!(
            "another SecurityGroupMembership on {target} and {group} must own the membership, but cannot be read; correct or delete it; {}{}",
            Class::Transient.retry(),
            retain_hint(true)
        ),
        Phase::Reconciling,
    )
}

fn would_join(edge: &Edge) -> Summary {
    let Edge { target, group, .. } = edge;
    Summary::simple(
        Status::False,
        reason::NOT_A_MEMBER,
        format!(
            "{target} is not a member of {group}; not joined because managementPolicy is Observe; set it to Manage, or join the target"
        ),
        Phase::Stalled,
    )
}

fn adoption_refused(edge: &Edge) -> Summary {
    let Edge { target, group, .. } = edge;
    Summary::simple(
        Status::False,
        reason::ADOPTION_REFUSED,
        format!(
            "{target} was a member of {group} before this object was created, and adoptionPolicy is Refuse; set adoptionPolicy to Adopt, or remove {target} from {group}; {}",
            Class::Absent.retry()
        ),
        Phase::Stalled,
    )
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
            "{found}; check spec.{field}, spec.region and the account; {}{}",
            Class::Absent.retry(),
            input
                .docs_url
                .map(|docs| docs.end_for_reason(reason::TARGET_NOT_FOUND))
                .unwrap_or_default()
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
            "{found}; {}; {}{}",
            refusal.classify().hint,
            Class::Invalid.retry(),
            input
                .docs_url
                .map(|docs| docs.end_for_code(code.unwrap_or_default()))
                .unwrap_or_default()
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

/// The way out is to leave such nodes out, or to tell Karpenter of the group first.
fn karpenter_node(input: &StatusInput<'_>, now: Timestamp) -> Summary {
    let Edge { target, group, .. } = input.edge;
    let found = format!(
        "{target} belongs to a Karpenter node pool, which would replace the node for one more group"
    );
    Summary {
        ready: Status::False,
        reason: reason::KARPENTER_NODE.to_owned(),
        message: format!(
            "{found}; leave such nodes out (karpenter.sh/nodepool DoesNotExist), or list {group} in the ECSNodeClass and set karpenterPolicy to Join; {}",
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
