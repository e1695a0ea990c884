//! The status of a set. Pure: `now` is an argument.

use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;

use crate::api::{SecurityGroupMembershipSetStatus, reason};
use crate::condition::{self, NewCondition, Status};

use super::plan::Plan;
use super::refusal::Refusal;

/// What a pass found.
#[derive(Clone, Copy, Debug)]
pub struct Found<'a> {
    /// Namespace and name of the set.
    pub set: (&'a str, &'a str),
    /// What the set does next.
    pub plan: &'a Plan,
    /// Number of targets that the selector picks; `None` while that is not known.
    pub targets: Option<usize>,
    /// Nodes that it picks and that are no instance of the region.
    pub skipped: usize,
    /// Number of memberships of the set.
    pub objects: usize,
    /// What keeps the set from its work.
    pub refusal: Option<&'a Refusal>,
    /// Why a write of the pass failed.
    pub failure: Option<&'a str>,
    /// Whether the set is suspended.
    pub suspended: bool,
    /// The request to reconcile now that this pass answers.
    pub requested: Option<&'a str>,
}

/// Which of Reconciling and Stalled is written: for kstatus at most one of them.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Complete,
    Reconciling,
    Stalled,
}

struct Summary {
    ready: Status,
    reason: String,
    message: String,
    phase: Phase,
}

/// The status after a pass.
#[must_use]
pub fn status(
    previous: &SecurityGroupMembershipSetStatus,
    generation: Option<i64>,
    found: Found<'_>,
    now: Timestamp,
) -> SecurityGroupMembershipSetStatus {
    let requested = found.requested.map(str::to_owned);
    let last_handled_reconcile_at =
        requested.or_else(|| previous.last_handled_reconcile_at.clone());
    if found.suspended {
        return SecurityGroupMembershipSetStatus {
            observed_generation: generation,
            conditions: suspended(previous, generation, now),
            last_handled_reconcile_at,
            ..previous.clone()
        };
    }
    let conditions = summarize(found).conditions();
    SecurityGroupMembershipSetStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
        objects: Some(count(found.objects)),
        last_handled_reconcile_at,
        ..counts(previous, generation, found)
    }
}

/// What is counted of targets. While the selection is not known, what was counted for the same generation is as true as it was.
fn counts(
    previous: &SecurityGroupMembershipSetStatus,
    generation: Option<i64>,
    found: Found<'_>,
) -> SecurityGroupMembershipSetStatus {
    if found.targets.is_some() {
        return SecurityGroupMembershipSetStatus {
            targets: found.targets.map(count),
            ready_targets: Some(count(found.plan.ready)),
            stalled_targets: Some(count(found.plan.stalled_targets)),
            skipped_nodes: Some(count(found.skipped)),
            ..SecurityGroupMembershipSetStatus::default()
        };
    }
    if previous.observed_generation == generation {
        return previous.clone();
    }
    SecurityGroupMembershipSetStatus::default()
}

fn count(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// The status of a set that cannot be read or names no region or group.
#[must_use]
pub fn invalid(
    previous: &SecurityGroupMembershipSetStatus,
    generation: Option<i64>,
    message: String,
    now: Timestamp,
) -> SecurityGroupMembershipSetStatus {
    let summary = Summary {
        ready: Status::False,
        reason: reason::INVALID_SPEC.to_owned(),
        message,
        phase: Phase::Stalled,
    };
    SecurityGroupMembershipSetStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, summary.conditions(), generation, now),
        ..previous.clone()
    }
}

impl Summary {
    fn conditions(&self) -> Vec<NewCondition> {
        let same = |type_, status| NewCondition {
            type_,
            status,
            reason: self.reason.clone(),
            message: self.message.clone(),
        };
        let mut conditions = vec![same(reason::READY, self.ready)];
        match self.phase {
            Phase::Complete => {}
            Phase::Reconciling => conditions.push(same(reason::RECONCILING, Status::True)),
            Phase::Stalled => conditions.push(same(reason::STALLED, Status::True)),
        }
        conditions
    }
}

fn summarize(found: Found<'_>) -> Summary {
    let (plan, targets) = (found.plan, found.targets.unwrap_or_default());
    let summary = |ready, reason: &str, message: String, phase| Summary {
        ready,
        reason: reason.to_owned(),
        message,
        phase,
    };
    if let Some(refusal) = found.refusal {
        let phase = if refusal.is_stalled() {
            Phase::Stalled
        } else {
            Phase::Reconciling
        };
        return summary(Status::False, refusal.reason(), refusal.to_string(), phase);
    }
    if plan.nothing_selected {
        let message = format!(
            "the selector picks nothing, although memberships of this set for targets that exist: {}; nothing is removed: correct the selector, or delete the set to remove them",
            found.objects
        );
        return summary(
            Status::False,
            reason::NOTHING_SELECTED,
            message,
            Phase::Stalled,
        );
    }
    if let Some((most, _)) = plan.stalled.iter().max_by_key(|(_, count)| **count) {
        return summary(Status::False, most, stalled(found), Phase::Stalled);
    }
    let waits = plan.ready + plan.not_found < targets;
    if waits || plan.going > 0 || !plan.change.is_empty() {
        let message = progress(found, targets);
        let reason = reason::PROGRESSING;
        return summary(Status::False, reason, message, Phase::Reconciling);
    }
    at_rest(found)
}

/// What a set has still to do, with the numbers.
fn progress(found: Found<'_>, targets: usize) -> String {
    let plan = found.plan;
    let mut message = format!("{} of {targets} targets are members", plan.ready);
    let rest = [
        (
            plan.change.len(),
            "memberships that get the policies of the set",
        ),
        (
            plan.held,
            "memberships that wait until an object with their name is gone",
        ),
        (plan.going, "memberships to remove"),
    ];
    for (count, what) in rest.into_iter().filter(|(count, _)| *count > 0) {
        let _ = write!(message, "; {what}: {count}");
    }
    if let Some(failure) = found.failure {
        let _ = write!(
            message,
            "; the last write failed: {failure}; next try within 5m"
        );
    }
    message
}

/// A set with nothing left to do.
fn at_rest(found: Found<'_>) -> Summary {
    let (plan, targets) = (found.plan, found.targets.unwrap_or_default());
    let (reason, message) = if targets == 0 {
        let skipped = match found.skipped {
            0 => String::new(),
            skipped => format!(
                "; Nodes that it picks and that are no ECS instance of the region: {skipped}"
            ),
        };
        (
            reason::NO_TARGETS,
            format!("the selector picks nothing{skipped}"),
        )
    } else {
        let absent = match plan.not_found {
            0 => String::new(),
            absent => format!("; the cloud does not list the others: {absent}"),
        };
        (
            reason::ALL_MEMBERS,
            format!("{} of {targets} targets are members{absent}", plan.ready),
        )
    };
    Summary {
        ready: Status::True,
        reason: reason.to_owned(),
        message,
        phase: Phase::Complete,
    }
}

/// The reasons with their numbers, the most frequent first.
fn stalled(found: Found<'_>) -> String {
    let mut reasons: Vec<_> = found.plan.stalled.iter().collect();
    reasons.sort_by(|(a, of_a), (b, of_b)| of_b.cmp(of_a).then(a.cmp(b)));
    let all: usize = reasons.iter().map(|(_, count)| **count).sum();
    let mut text = format!("{all} of {} memberships need somebody: ", found.objects);
    for (at, (reason, count)) in reasons.into_iter().take(REASONS).enumerate() {
        let separator = if at == 0 { "" } else { ", " };
        let _ = write!(text, "{separator}{reason} ({count})");
    }
    let (namespace, name) = found.set;
    let _ = write!(
        text,
        "; see their messages: kubectl get sgm -n {namespace} -o wide -l security-group-operator.io/set={name}"
    );
    text
}

/// Reasons that a message names.
const REASONS: usize = 5;

/// The condition types that the operator writes.
const OURS: [&str; 4] = [
    reason::READY,
    reason::RECONCILING,
    reason::STALLED,
    reason::SUSPENDED,
];

/// A suspended set keeps Ready and Stalled with their older `observedGeneration`, and adds Suspended.
fn suspended(
    previous: &SecurityGroupMembershipSetStatus,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    let kept = [reason::READY, reason::STALLED];
    let kept = kept
        .iter()
        .filter_map(|type_| condition::keep(&previous.conditions, type_, now));
    let suspended = NewCondition {
        type_: reason::SUSPENDED,
        status: Status::True,
        reason: reason::SUSPENDED.to_owned(),
        message: "suspended by spec.suspend: the set creates, changes and deletes no membership; its memberships go on; set spec.suspend to false to go on".to_owned(),
    };
    let mut conditions: Vec<_> = kept.collect();
    conditions.extend(condition::merge(
        &previous.conditions,
        vec![suspended],
        generation,
        now,
    ));
    conditions
}

/// Whether two statuses have the same meaning. Conditions of other controllers do not count.
#[must_use]
pub fn same_meaning(
    previous: &SecurityGroupMembershipSetStatus,
    next: &SecurityGroupMembershipSetStatus,
) -> bool {
    let ours = |status: &SecurityGroupMembershipSetStatus| {
        let mut status = status.clone();
        let is_ours = |type_: &str| OURS.contains(&type_);
        status
            .conditions
            .retain(|condition| is_ours(&condition.type_));
        status
    };
    ours(previous) == ours(next)
}
