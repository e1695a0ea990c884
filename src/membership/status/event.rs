//! Events for changes of a status and for releases. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use crate::api::membership::SecurityGroupMembershipStatus;
use crate::api::reason;
use crate::condition;
use crate::ecs::Edge;
use crate::kubernetes::events::EventRecord;

use super::super::decide::{Attempt, ReconcileOutcome, Release};

/// What the deletion of an object has made of its membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why the operator removed its finalizer.
    pub why: Release,
    /// Whether the cloud accepted a Leave.
    pub removed: bool,
}

impl Ending {
    /// Whether the operator owns nothing of the edge any more, whatever the object says.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        match self.why {
            Release::Left | Release::NeverJoined | Release::Shared => true,
            Release::Retained => false,
        }
    }

    /// The call of an earlier pass that has brought it about.
    #[must_use]
    pub const fn attempt(self) -> Attempt {
        match self.why {
            Release::Left => Attempt::Left,
            Release::Shared => Attempt::HandedOver,
            Release::NeverJoined | Release::Retained => Attempt::None,
        }
    }

    /// Reason and message, for the event and for the status of an object that another finalizer keeps.
    pub(super) fn explain(self, edge: &Edge) -> (&'static str, String) {
        let Edge { target, group, .. } = edge;
        match self.why {
            Release::Left if self.removed => (
                reason::REMOVED,
                format!("{target} was removed from {group}"),
            ),
            Release::Left => (
                reason::REMOVED,
                format!("{target} is not a member of {group}"),
            ),
            Release::NeverJoined => (
                reason::REMOVED,
                format!("the operator has not joined {target} to {group}"),
            ),
            Release::Retained => (
                reason::RETAINED,
                format!("{target} stays a member of {group}"),
            ),
            Release::Shared => (
                reason::RETAINED,
                format!(
                    "{target} stays a member of {group}: another SecurityGroupMembership manages it"
                ),
            ),
        }
    }

    /// The event; `None` if there was no membership to remove, or none of ours.
    #[must_use]
    pub fn event(self, edge: &Edge) -> Option<EventRecord> {
        let is_reported = match self.why {
            Release::Left => self.removed,
            Release::Retained | Release::Shared => true,
            Release::NeverJoined => false,
        };
        let (reason, text) = self.explain(edge);
        is_reported.then(|| EventRecord {
            reason: reason.to_owned(),
            text,
            ..EventRecord::default()
        })
    }
}

/// The event for a change of the status; `None` if it is no transition. Its reason is the reason of Ready.
#[must_use]
pub fn event_for(
    previous: &SecurityGroupMembershipStatus,
    next: &SecurityGroupMembershipStatus,
    outcome: ReconcileOutcome,
) -> Option<EventRecord> {
    let before = |type_| true_condition(previous, type_);
    let after = |type_| true_condition(next, type_);
    let event = |reason: &str, warning, condition: &Condition| {
        let error = next.last_error.as_ref();
        Some(EventRecord {
            reason: reason.to_owned(),
            warning,
            text: condition.message.clone(),
            code: error.and_then(|error| error.code.clone()),
            request_id: error.and_then(|error| error.request_id.clone()),
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
