//! One pass over one object: calls [`decide`] and does its step until [`decide`] ends the pass, then writes status and event.
//! At most one effect per step; [`decide`] chooses which.

use std::sync::Arc;

use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::{INTENT_ANNOTATION, SecurityGroupMembership, reason};
use crate::ecs::{Class, Edge};
use crate::kubernetes::ObjectUid;
use crate::kubernetes::events::EventRecord;

use super::access::named_account;
use super::act::ActError;
use super::admission::{Applicant, Line, Slot, Urgency};
use super::conclusion::{conclude, end_unreleased, outcome_label};
use super::context::Context;
use super::decide::{Attempt, ReconcileOutcome, Release, Step, decide};
use super::history::History;
use super::object::{Object, account_key, ignored_intent};
use super::observe::Pass;
use super::refusal::log_failure;
use super::status::{Ending, Refusal};

/// The application of an object for a pass.
pub(super) fn applicant(
    object: &SecurityGroupMembership,
    edge: &Edge,
    urgency: Urgency,
    context: &Context,
) -> Applicant {
    let namespace = object.namespace().unwrap_or_default();
    Applicant {
        uid: ObjectUid::of(object).unwrap_or_default(),
        object: ObjectRef::new(&object.name_any()).within(&namespace),
        line: Line {
            account_uid: Pass::account_uid(object, &namespace, context),
            cloud: context
                .directory
                .cloud(&account_key(&object.spec, &namespace)),
            region: edge.region.clone(),
        },
        target: edge.target.clone(),
        urgency,
    }
}

/// Observes, decides and acts until no step is left, then writes the status.
///
/// # Errors
/// The API server did not accept a write.
pub(super) async fn run(
    object: Arc<Object>,
    edge: Edge,
    slot: Slot,
    context: &Context,
) -> Result<Action, ActError> {
    let began = Instant::now();
    let uid = ObjectUid::of(&*object).unwrap_or_default();
    let Some(mut pass) = Pass::begin(object, edge, slot, context) else {
        return Ok(Action::await_change());
    };
    report_ignored_intent(&pass, context);
    let ended = run_steps(&mut pass, &uid, context).await;
    let (outcome, refusal) = told_outcome(ended, &pass, context)?;
    let object = pass.object();
    debug!(
        namespace = object.namespace(),
        name = object.name_any(),
        edge = ?pass.edge,
        ?outcome,
        "reconciled"
    );
    context
        .telemetry
        .count_reconcile(outcome_label(outcome), began.elapsed());
    if pass.is_unreleased {
        return Ok(end_unreleased(&pass, outcome, context));
    }
    conclude(&mut pass, outcome, refusal.as_ref(), context).await
}

/// How a pass has ended. A write that the API server refused is an end that the status tells.
fn told_outcome(
    ended: Result<ReconcileOutcome, ActError>,
    pass: &Pass,
    context: &Context,
) -> Result<(ReconcileOutcome, Option<Refusal>), ActError> {
    let error = match ended {
        Ok(outcome) => return Ok((outcome, None)),
        Err(error) => error,
    };
    let is_failing = context
        .table
        .history(&pass.uid(), |history| history.is_failing());
    let Some(refusal) = Refusal::of(&error, is_failing == Some(true)) else {
        return Err(error);
    };
    let object = pass.object();
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    log_failure(&error, &namespace, &name, None, &context.logged);
    Ok((ReconcileOutcome::WriteRefused, Some(refusal)))
}

/// Most steps of a pass: claim, join, correct the claim, and the reads between them. More would be a bug in `decide`.
const STEPS: usize = 10;

/// Does the steps of `decide` until it returns [`Step::Finish`].
async fn run_steps(
    pass: &mut Pass,
    uid: &ObjectUid,
    context: &Context,
) -> Result<ReconcileOutcome, ActError> {
    for _ in 0..STEPS {
        // The watch may have reported the object deleted while this pass waited for an answer. This pass must then neither hand
        // its edge on nor remove it.
        if context.table.is_unreleased(uid) != Some(pass.is_unreleased) {
            return Err(ActError::ObjectGone);
        }
        let step = decide(&pass.desired, &pass.observed);
        if !pass.may_begin(step, &context.shutdown) {
            return Err(ActError::Stopping);
        }
        match step {
            Step::Finish(outcome) => {
                // A call that is not made any more holds up no other while the status is written.
                pass.permit = None;
                return Ok(outcome);
            }
            Step::Read => pass.read(context).await,
            Step::AwaitTurn => pass.await_turn(),
            Step::Intend => pass.intend(context).await?,
            Step::Confirm => pass.confirm(context).await?,
            Step::Adopt => pass.adopt(context).await?,
            Step::DropClaim => pass.drop_claim(context).await?,
            Step::Join => {
                if pass.is_still(step, context).await? {
                    pass.join(context).await;
                }
                if pass.observed.drifted {
                    report_drift(pass, uid, context);
                }
            }
            Step::ListEdge => {
                if pass.is_still(step, context).await? {
                    pass.list_edge(context).await?;
                }
            }
            Step::Leave => {
                if pass.is_still(step, context).await? {
                    pass.leave(context).await;
                }
            }
            Step::Record => pass.record(context).await?,
            Step::HandOver => pass.hand_over(context).await?,
            Step::Release(why) => release(pass, why, uid, context).await?,
        }
    }
    let object = pass.object();
    warn!(
        namespace = object.namespace(),
        name = object.name_any(),
        edge = ?pass.edge,
        "too many steps in one pass; it starts again"
    );
    Ok(ReconcileOutcome::Failed(Class::Transient))
}

async fn release(
    pass: &mut Pass,
    why: Release,
    uid: &ObjectUid,
    context: &Context,
) -> Result<(), ActError> {
    let known = context.table.history(uid, |history| history.ending());
    let known = known.flatten().filter(Ending::is_final);
    let ending = known.unwrap_or(Ending {
        why,
        removed: pass.removed,
    });
    // Before the write: a pass that follows a refused one leaves nothing and hands nothing on again. After it: a pass that meets a
    // conflict in the status does not release again.
    context
        .table
        .history(uid, |history| history.keep_ending(ending));
    pass.release(context).await?;
    if ending.why == Release::Retained
        && let Some(account) = &pass.account_uid
    {
        context.table.retained(uid, account, &pass.edge);
    }
    if let Some(event) = ending.event(&pass.edge) {
        context.events.publish(pass.object(), event);
    }
    Ok(())
}

/// Reports once that the intent on the object is no claim: a user has written it, or copied it from another object.
fn report_ignored_intent(pass: &Pass, context: &Context) {
    let object = pass.object();
    if pass.observed.claim.record().is_some() {
        return;
    }
    let Some(why) = ignored_intent(object, named_account(object, context).as_ref()) else {
        return;
    };
    let is_first = |history: &mut History| history.first_report_of_ignored_claim();
    if context.table.history(&pass.uid(), is_first) == Some(true) {
        let event = EventRecord {
            reason: reason::CLAIM_IGNORED.to_owned(),
            warning: true,
            text: format!(
                "the annotation {INTENT_ANNOTATION} is no claim of this object, and is ignored: {why}; only the operator writes it"
            ),
            ..EventRecord::default()
        };
        context.events.publish(object, event);
    }
}

/// Reports drift after a repair was tried. `AlreadyMember` is no drift: the read lagged behind the cloud.
fn report_drift(pass: &Pass, uid: &ObjectUid, context: &Context) {
    match pass.observed.attempt {
        Attempt::Joined => {}
        Attempt::Failed { .. } if pass.failure.is_some() => {}
        Attempt::Failed { .. }
        | Attempt::None
        | Attempt::AlreadyMember
        | Attempt::Left
        | Attempt::HandedOver
        | Attempt::Released => return,
    }
    let joined = pass.observed.attempt == Attempt::Joined;
    let is_first = context.table.history(uid, History::first_report_of_drift) == Some(true);
    if joined || is_first {
        let result = if joined { "repaired" } else { "failed" };
        context.telemetry.count_drift(result);
    }
    if is_first {
        let event = EventRecord {
            reason: reason::DRIFT_DETECTED.to_owned(),
            warning: true,
            text: format!(
                "{} was removed from {} by another actor",
                pass.edge.target, pass.edge.group
            ),
            ..EventRecord::default()
        };
        context.events.publish(pass.object(), event);
    }
    if joined {
        context.table.history(uid, History::drift_repaired);
        if let Some(account) = &pass.account_uid {
            context
                .table
                .repairs(|repairs| repairs.repaired(account, &pass.edge));
        }
    }
}
