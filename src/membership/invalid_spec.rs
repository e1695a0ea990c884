//! Reports an object whose spec names no edge, or cannot be read. Writes its status only.

use kube::Resource as _;
use kube::runtime::controller::Action;
use serde::Serialize;
use serde_json::json;

use crate::api::membership::SecurityGroupMembershipStatus;
use crate::api::{SecurityGroupMembership, reason};
use crate::condition::{self, NewCondition, Status};
use crate::ecs::Edge;
use crate::watched::Unreadable;

use super::act::{ActError, write_status};
use super::context::Context;
use super::decide::ReconcileOutcome;
use super::object::Object;
use super::status;

/// Why no pass over an object can begin.
pub(super) enum Unusable<'a> {
    /// This version cannot read it.
    Unreadable(&'a Unreadable),
    /// Its spec names no edge; with the status and what is wrong.
    NoEdge(Option<&'a SecurityGroupMembershipStatus>, String),
}

/// The object with the edge that its spec names.
pub(super) fn usable(object: &Object) -> Result<(&SecurityGroupMembership, Edge), Unusable<'_>> {
    let readable = object.0.as_ref().map_err(Unusable::Unreadable)?;
    match Edge::try_from(&readable.spec) {
        Ok(edge) => Ok((readable, edge)),
        Err(error) => Err(Unusable::NoEdge(
            readable.status.as_ref(),
            error.to_string(),
        )),
    }
}

impl Unusable<'_> {
    /// Reports it, once per change. The next change of the object starts the next pass.
    pub(super) async fn report(
        &self,
        object: &Object,
        context: &Context,
    ) -> Result<Action, ActError> {
        match self {
            Self::Unreadable(unreadable) => report_unreadable(object, unreadable, context).await,
            Self::NoEdge(previous, message) => {
                let empty = SecurityGroupMembershipStatus::default();
                let previous = previous.unwrap_or(&empty);
                let next = with_invalid_spec(object, previous, message, context);
                report_invalid_spec(object, previous, &next, &next, context).await
            }
        }
    }
}

/// What the status says of the edge stays as it is, also where it cannot be read.
async fn report_unreadable(
    object: &Object,
    unreadable: &Unreadable,
    context: &Context,
) -> Result<Action, ActError> {
    let Unreadable {
        error,
        status: stored,
        ..
    } = unreadable;
    let message = format!("this version of the operator cannot read the object: {error}");
    // Compared with the previous status, so that an unchanged one is not written again.
    let previous = status::parse_lenient(stored);
    let next = with_invalid_spec(object, &previous, &message, context);
    let mut written = stored.as_object().cloned().unwrap_or_default();
    let generation = json!(next.observed_generation);
    written.insert("observedGeneration".to_owned(), generation);
    written.insert("conditions".to_owned(), json!(next.conditions));
    report_invalid_spec(object, &previous, &next, &written, context).await
}

/// The status of an object whose spec cannot be used.
fn with_invalid_spec(
    object: &Object,
    previous: &SecurityGroupMembershipStatus,
    message: &str,
    context: &Context,
) -> SecurityGroupMembershipStatus {
    let generation = object.meta().generation;
    let condition = |type_, status| NewCondition {
        type_,
        status,
        reason: reason::INVALID_SPEC.to_owned(),
        message: message.to_owned(),
    };
    let conditions = vec![
        condition(reason::READY, Status::False),
        condition(reason::STALLED, Status::True),
    ];
    let now = context.clock.now();
    let mut conditions = condition::merge(&previous.conditions, conditions, generation, now);
    conditions.extend(status::drifted_as_known(previous, generation, now));
    SecurityGroupMembershipStatus {
        observed_generation: generation,
        conditions,
        ..previous.clone()
    }
}

/// Writes the status `next`, as `written`, if it differs from the previous one.
async fn report_invalid_spec(
    object: &Object,
    previous: &SecurityGroupMembershipStatus,
    next: &SecurityGroupMembershipStatus,
    written: &impl Serialize,
    context: &Context,
) -> Result<Action, ActError> {
    if next != previous {
        write_status(object.meta(), written, &context.writer, context).await?;
        if let Some(event) = status::event_for(previous, next, ReconcileOutcome::Undecided) {
            context.events.publish(object, event);
        }
    }
    Ok(Action::await_change())
}
