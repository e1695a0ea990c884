//! The event that a change of status is worth. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::membership::{Origin, SecurityGroupMembershipStatus};
use crate::api::reason;
use crate::condition;

use super::super::decide::ReconcileOutcome;

/// An event that a change of status is worth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Event reason.
    pub reason: &'static str,
    /// Whether it is a warning.
    pub warning: bool,
    /// For a human.
    pub text: String,
}

/// The event for going from one status to the next, if that is a transition.
#[must_use]
pub fn event_for(
    previous: &SecurityGroupMembershipStatus,
    next: &SecurityGroupMembershipStatus,
    outcome: ReconcileOutcome,
) -> Option<EventRecord> {
    let before = |type_| true_condition(previous, type_);
    let after = |type_| true_condition(next, type_);
    let event = |reason, warning, condition: &Condition| {
        Some(EventRecord {
            reason,
            warning,
            text: condition.message.clone(),
        })
    };
    let changed = |type_| match (before(type_), after(type_)) {
        (Some(before), Some(after)) if before.reason == after.reason => None,
        (_, after) => after,
    };
    if let Some(ready) = changed(reason::READY) {
        let held = previous.origin.is_some() && previous.origin == next.origin;
        let reason = match outcome {
            _ if before(reason::STALLED).is_some() => "Recovered",
            // It went on holding what it held.
            _ if held && is_paused(previous) => return None,
            _ if held && before(reason::READY).is_none() => "Recovered",
            ReconcileOutcome::Ready {
                origin: Some(Origin::Joined),
                ..
            } => "Joined",
            _ => "Adopted",
        };
        return event(reason, false, ready);
    }
    if let Some(drifted) = changed(reason::DRIFTED) {
        return event("DriftDetected", true, drifted);
    }
    if let Some(stalled) = changed(reason::STALLED) {
        return event("Stalled", true, stalled);
    }
    changed(reason::RECONCILING)
        .filter(|condition| condition.reason == reason::WAITING_FOR_TARGET)
        .and_then(|waiting| event("Waiting", false, waiting))
}

fn is_paused(status: &SecurityGroupMembershipStatus) -> bool {
    condition::find(&status.conditions, reason::READY)
        .is_some_and(|ready| ready.reason == reason::PAUSED)
}

fn true_condition<'a>(
    status: &'a SecurityGroupMembershipStatus,
    type_: &str,
) -> Option<&'a Condition> {
    condition::find(&status.conditions, type_).filter(|condition| condition.status == "True")
}
