//! The status that follows from a outcome. Pure: `now` and what was seen are arguments.

mod event;
mod summary;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize as _;
use serde_json::Value;

use crate::api::membership::{SecurityGroupMembershipStatus, TargetStatus};
use crate::api::reason;
use crate::condition;
use crate::ecs::{Error, TargetDescription};

use super::decide::{Observed, ReconcileOutcome};
use super::edge::Edge;

use self::summary::summarize;

pub use self::event::{EventRecord, event_for};
pub use self::summary::{STUCK_AFTER, waits_since};

/// The types of condition that are written.
const OUR_CONDITIONS: [&str; 4] = [
    reason::READY,
    reason::RECONCILING,
    reason::STALLED,
    reason::DRIFTED,
];

/// What a pass ended with.
#[derive(Clone, Copy, Debug)]
pub struct StatusInput<'a> {
    /// The edge.
    pub edge: &'a Edge,
    /// Where the pass ended.
    pub outcome: ReconcileOutcome,
    /// What it went by.
    pub observed: &'a Observed,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// The target as last described.
    pub description: Option<&'a TargetDescription>,
    /// The failure that it ended with.
    pub failure: Option<&'a Error>,
    /// What is wrong with the account.
    pub account_problem: &'a str,
    /// Since when the target is between states, if it is.
    pub waits_since: Option<Timestamp>,
    /// When its turn within the cloud's limit comes, if it was held back for that.
    pub turn_in: Option<Duration>,
}

/// The status after this pass; none where nothing in it would say anything new.
#[must_use]
pub fn status(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    now: Timestamp,
) -> Option<SecurityGroupMembershipStatus> {
    let summary = summarize(previous, generation, input, now)?;
    let next = SecurityGroupMembershipStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, summary.conditions(), generation, now),
        origin: match input.outcome {
            ReconcileOutcome::Ready { origin, .. } => origin,
            _ => previous.origin,
        },
        target: match input.observed.target {
            super::decide::TargetView::Absent => None,
            _ => input
                .description
                .map(target_status)
                .or_else(|| previous.target.clone()),
        },
        last_error: summary.last_error,
    };
    (!same_meaning(previous, &next)).then_some(next)
}

/// As much of a stored status as can be read: all of it, or its conditions, each by itself.
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

/// Whether two statuses say the same: a new request ID alone is no news, and writing it would only start the loop again. A
/// condition of somebody else's is not ours to take away.
fn same_meaning(
    previous: &SecurityGroupMembershipStatus,
    next: &SecurityGroupMembershipStatus,
) -> bool {
    let without_request = |status: &SecurityGroupMembershipStatus| {
        let mut status = status.clone();
        if let Some(error) = &mut status.last_error {
            error.request_id = None;
        }
        status
            .conditions
            .retain(|condition| OUR_CONDITIONS.contains(&condition.type_.as_str()));
        status
    };
    without_request(previous) == without_request(next)
}

fn target_status(description: &TargetDescription) -> TargetStatus {
    TargetStatus {
        state: description.state.to_string(),
        vpc_id: description.vpc_id.clone(),
        lock_reasons: description.lock_reasons.clone(),
    }
}
