//! The event that a change of status is worth. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::membership::SecurityGroupMembershipStatus;
use crate::api::reason;
use crate::condition;
use crate::kubernetes::events::EventRecord;

use super::super::decide::ReconcileOutcome;

/// The event for going from one status to the next, if that is a transition. Its reason is that of Ready.
#[must_use]
pub fn event_for(
    previous: &SecurityGroupMembershipStatus,
    next: &SecurityGroupMembershipStatus,
    outcome: ReconcileOutcome,
) -> Option<EventRecord> {
    let before = |type_| true_condition(previous, type_);
    let after = |type_| true_condition(next, type_);
    let event = |reason: &str, warning, condition: &Condition| {
        Some(EventRecord {
            reason: reason.to_owned(),
            warning,
            text: condition.message.clone(),
        })
    };
    let changed = |type_| match (before(type_), after(type_)) {
        (Some(before), Some(after)) if before.reason == after.reason => None,
        (_, after) => after,
    };
    if outcome == ReconcileOutcome::Suspended {
        return None;
    }
    if let Some(ready) = changed(reason::READY) {
        let origin_unchanged = previous.origin.is_some() && previous.origin == next.origin;
        let is_recovery = before(reason::STALLED).is_some()
            || origin_unchanged && before(reason::READY).is_none();
        let reason = if is_recovery {
            reason::RECOVERED
        } else {
            &ready.reason
        };
        return event(reason, false, ready);
    }
    if let Some(drifted) = changed(reason::DRIFTED) {
        return event(reason::DRIFT_DETECTED, true, drifted);
    }
    if let Some(stalled) = changed(reason::STALLED) {
        return event(&stalled.reason, true, stalled);
    }
    changed(reason::RECONCILING)
        .filter(|condition| condition.reason == reason::WAITING_FOR_TARGET)
        .and_then(|waiting| event(&waiting.reason, false, waiting))
}

fn true_condition<'a>(
    status: &'a SecurityGroupMembershipStatus,
    type_: &str,
) -> Option<&'a Condition> {
    condition::find(&status.conditions, type_).filter(|condition| condition.status == "True")
}
