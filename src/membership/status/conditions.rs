//! The conditions that a summary makes, and those that stand without one. Pure.

use crate::api::membership::LastError;
use crate::api::reason;
use crate::condition::{NewCondition, Status};

use super::super::decide::TargetView;
use super::input::StatusInput;

/// The conditions and the last error for one outcome.
pub(super) struct Summary {
    pub(super) ready: Status,
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) phase: Phase,
    pub(super) drifted: Option<(&'static str, String)>,
    pub(super) last_error: Option<LastError>,
}

/// Which of Reconciling and Stalled is written: for kstatus at most one of them.
pub(super) enum Phase {
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

    pub(super) fn simple(ready: Status, reason: &str, message: String, phase: Phase) -> Self {
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

pub(super) const fn retain_hint(deleting: bool) -> &'static str {
    if deleting {
        "; to keep the membership, set spec.deletionPolicy to Retain"
    } else {
        ""
    }
}

/// Longest part of the cloud's sentence in a condition, in bytes. With the advice and the next try a message stays below 250.
pub(super) const CAUSE_LIMIT: usize = 110;

/// Longest part of the API server's sentence in a condition, in bytes.
pub(super) const LIST_CAUSE_LIMIT: usize = 70;
