//! One pass over one object: calls [`decide`] and does its step until [`decide`] ends the pass, then writes status and event.
//! At most one effect per step; [`decide`] chooses which.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::controller::Action;
use kube::runtime::reflector::ObjectRef;
use kube::{Resource as _, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::SecurityGroupMembership;
use crate::api::membership::SecurityGroupMembershipStatus;
use crate::api::{INTENT_ANNOTATION, reason};
use crate::condition::{self, NewCondition, Status};
use crate::ecs::{Class, Edge};
use crate::kubernetes::ObjectUid;
use crate::kubernetes::events::EventRecord;

use super::act::{ActError, write_status};
use super::admission::{Applicant, Line, Slot, Urgency};
use super::context::Context;
use super::decide::{AccessView, Attempt, ReconcileOutcome, Release, Step, TargetView, decide};
use super::history::History;
use super::object::{Object, account_key, ignored_intent};
use super::observation::Observation;
use super::observe::{Pass, named_account};
use super::refusal::log_failure;
use super::status::{self, Ending, Held, Refusal, StatusInput};

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
    context.telemetry.count_reconcile(outcome_label(outcome));
    if pass.is_unreleased {
        return Ok(end_unreleased(&pass, outcome, context));
    }
    let previous = pass.object().status.clone().unwrap_or_default();
    let now = context.clock.now();
    let ending = context.table.history(&uid, |history| history.ending());
    let ending = ending.flatten();
    let input = StatusInput {
        edge: &pass.edge,
        outcome,
        observed: &pass.observed,
        deleting: pass.desired.deleting,
        description: pass.description.as_ref(),
        failure: pass.failure.as_ref(),
        account_problem: &pass.account_problem,
        not_listed: pass.not_listed.as_deref(),
        waits_since: context
            .table
            .history(&uid, |history| {
                let failure = pass.failure.as_ref();
                let reported = || status::waits_since(&previous, failure).unwrap_or(now);
                history.waits_since(outcome, failure, reported)
            })
            .flatten(),
        not_observed_after: not_observed_after(&uid, context),
        held_for: pass.slot.held_for(),
        object_uid: &uid,
        account_uid: pass.account_uid.as_ref(),
        reconcile_requested_at: pass.reconcile_requested_at.as_deref(),
        held: ending.map(|ending| Held {
            ending,
            finalizers: pass.object().finalizers(),
        }),
        refusal: refusal.as_ref(),
    };
    let next = status::status(&previous, pass.generation, &input, now)
        .map(|next| context.storable(next))
        .filter(|next| !status::same_meaning(&previous, next));
    let event = event(&pass, outcome, &previous, next.as_ref());
    // Before the write: the watch may show the status before the answer arrives.
    let written = status_hash(next.as_ref().or(pass.object().status.as_ref()));
    let observation = observation_of(&pass, outcome);
    context.table.history(&uid, |history| {
        history.record_written_status(written);
        history.record_observation(observation);
    });
    let stored = match &next {
        Some(next) => store(next, &pass, &uid, context).await?,
        None => previous.clone(),
    };
    if next.is_some() && stored.origin.is_some() && stored.origin != previous.origin {
        tell_siblings(&pass, context);
    }
    if let Some(event) = event {
        context.events.publish(pass.object(), event);
    }
    let record = stored.origin;
    let is_held_back = pass.held_back && pass.failure.is_none();
    let description = pass.description.take().filter(|_| is_held_back);
    let pending = description.map(|description| (description, pass.observed.trust));
    let due = due(&pass, outcome, context);
    let deleting = pass.desired.deleting;
    let requeue = context.table.history(&uid, |history| {
        if let Some(origin) = record {
            history.recorded(origin);
        }
        history.keep_pending_description(pending);
        history.record_refusal(outcome, deleting);
        history.requeue_after(outcome, pass.failure.as_ref(), due, &context.clock)
    });
    Ok(requeue.unwrap_or_else(Action::await_change))
}

/// The event that the end of a pass is worth.
fn event(
    pass: &Pass,
    outcome: ReconcileOutcome,
    previous: &SecurityGroupMembershipStatus,
    next: Option<&SecurityGroupMembershipStatus>,
) -> Option<EventRecord> {
    match outcome {
        ReconcileOutcome::Ready { repaired: true, .. } => Some(EventRecord {
            reason: reason::DRIFT_REPAIRED.to_owned(),
            warning: false,
            text: format!(
                "the operator joined {} to {} again",
                pass.edge.target, pass.edge.group
            ),
            ..EventRecord::default()
        }),
        _ => status::event_for(previous, next?, outcome),
    }
}

/// Ends a pass over an object that is gone: there is nothing to write a status to. Its row goes when nothing is left to do.
fn end_unreleased(pass: &Pass, outcome: ReconcileOutcome, context: &Context) -> Action {
    let uid = pass.uid();
    if outcome == ReconcileOutcome::Gone {
        context.forget(&uid);
        return Action::await_change();
    }
    let due = due(pass, outcome, context);
    let requeue = context.table.history(&uid, |history| {
        history.requeue_after(outcome, pass.failure.as_ref(), due, &context.clock)
    });
    requeue.unwrap_or_else(Action::await_change)
}

/// When a read of the edge will count, and in a repair loop when the next repair is allowed. An edge that stays in place leaves
/// its repair loop.
fn due(pass: &Pass, outcome: ReconcileOutcome, context: &Context) -> Instant {
    let Some(account) = &pass.account_uid else {
        return Instant::now();
    };
    match outcome {
        ReconcileOutcome::RepairLoop => context
            .table
            .repairs(|repairs| repairs.next(account, &pass.edge)),
        ReconcileOutcome::Ready { .. }
        | ReconcileOutcome::WouldJoin
        | ReconcileOutcome::DriftReported => {
            context
                .table
                .repairs(|repairs| repairs.leave_loop(account, &pass.edge));
            Instant::now()
        }
        ReconcileOutcome::Undecided
        | ReconcileOutcome::Unsettled
        | ReconcileOutcome::SuccessorOutOfReach
        | ReconcileOutcome::Unlisted
        | ReconcileOutcome::Gone
        | ReconcileOutcome::Suspended
        | ReconcileOutcome::Waiting
        | ReconcileOutcome::AdoptionRefused
        | ReconcileOutcome::Absent
        | ReconcileOutcome::Unsuitable
        | ReconcileOutcome::AccountUnusable
        | ReconcileOutcome::WriteRefused
        | ReconcileOutcome::Failed(_) => context.table.settles_at(account, &pass.edge),
    }
}

/// Writes the status. Returns it as the API server shows it: an older CRD drops fields, and what it drops is not recorded.
async fn store(
    next: &SecurityGroupMembershipStatus,
    pass: &Pass,
    uid: &ObjectUid,
    context: &Context,
) -> Result<SecurityGroupMembershipStatus, ActError> {
    let written = pass.write_status(next, context).await?;
    let stored = written.and_then(|object| object.status);
    let stored = stored.unwrap_or_else(|| next.clone());
    let hash = status_hash(Some(&stored));
    if hash != status_hash(Some(next)) {
        context
            .table
            .history(uid, |history| history.record_written_status(hash));
    }
    Ok(stored)
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

/// How long Ready=True stands without a read of the target, if no read has shown it for so long.
fn not_observed_after(uid: &ObjectUid, context: &Context) -> Option<Duration> {
    let limit = context.read_periods.not_observed_after();
    let unread_for = context.table.history(uid, |history| history.unread_for());
    unread_for
        .flatten()
        .filter(|unread| *unread >= limit)
        .map(|_| limit)
}

/// A hash that differs for different statuses. The conditions of other controllers do not count.
pub(super) fn status_hash(status: Option<&SecurityGroupMembershipStatus>) -> u64 {
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&status.map(status::our_part))
        .unwrap_or_default()
        .hash(&mut hasher);
    hasher.finish()
}

/// The observation that a scan must reproduce for this object to stay idle. `None` if this pass was not to read the target, and
/// for a deleted object that others keep: no scan reads its target.
fn observation_of(pass: &Pass, outcome: ReconcileOutcome) -> Option<Observation> {
    if outcome == ReconcileOutcome::Gone {
        return None;
    }
    let ready = matches!(outcome, ReconcileOutcome::Ready { .. });
    match pass.observed.target {
        TargetView::Unread => {
            let is_account_down = outcome == ReconcileOutcome::AccountUnusable
                && pass.observed.account == (AccessView::NotReady { stalled: false });
            is_account_down.then_some(Observation::Unread { scanned: true })
        }
        TargetView::Unreadable(_) => Some(Observation::Unread {
            // One that waits for the rate limit is read when its turn has come.
            scanned: pass
                .failure
                .as_ref()
                .is_some_and(|failure| !failure.may_be_one_bad_id()),
        }),
        TargetView::Absent => Some(Observation::Absent),
        TargetView::Unsuitable => Some(Observation::of(pass.description.as_ref(), |seen| {
            seen.security_group_ids.contains(&pass.edge.group)
        })),
        TargetView::Present { member, .. } => {
            Some(Observation::of(pass.description.as_ref(), |_| {
                member || ready
            }))
        }
    }
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
            Step::Finish(outcome) => return Ok(outcome),
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
    if let Some(event) = ending.event(&pass.edge) {
        context.events.publish(pass.object(), event);
    }
    Ok(())
}

/// The edge has a record now: an object that refused to adopt it may share it, and one whose own Join was refused may adopt it.
fn tell_siblings(pass: &Pass, context: &Context) {
    let uid = pass.uid();
    for other in context.table.others(&pass.edge, &uid) {
        if other.record().is_none() {
            context.queue.enqueue(&other.reference());
        }
    }
}

/// Reports once that the intent on the object is no claim: a user has written it, or copied it from another object.
fn report_ignored_intent(pass: &Pass, context: &Context) {
    let object = pass.object();
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
    if context.table.history(uid, History::first_report_of_drift) == Some(true) {
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
    if pass.observed.attempt == Attempt::Joined {
        context.table.history(uid, History::drift_repaired);
        if let Some(account) = &pass.account_uid {
            context
                .table
                .repairs(|repairs| repairs.repaired(account, &pass.edge));
        }
    }
}

const fn outcome_label(outcome: ReconcileOutcome) -> &'static str {
    match outcome {
        ReconcileOutcome::Undecided => "undecided",
        ReconcileOutcome::Unsettled => "unsettled",
        ReconcileOutcome::SuccessorOutOfReach | ReconcileOutcome::Unlisted => "waiting",
        ReconcileOutcome::WriteRefused => "write_refused",
        ReconcileOutcome::Gone => "gone",
        ReconcileOutcome::Ready {
            repaired: false, ..
        } => "ready",
        ReconcileOutcome::Ready { repaired: true, .. } => "repaired",
        ReconcileOutcome::Suspended => "suspended",
        ReconcileOutcome::Waiting => "waiting",
        ReconcileOutcome::WouldJoin => "observed",
        ReconcileOutcome::AdoptionRefused => "refused",
        ReconcileOutcome::DriftReported | ReconcileOutcome::RepairLoop => "drifted",
        ReconcileOutcome::Absent => "absent",
        ReconcileOutcome::Unsuitable => "unsuitable",
        ReconcileOutcome::AccountUnusable => "account",
        ReconcileOutcome::Failed(_) => "failed",
    }
}

/// Reports a spec that names no edge, once per change. Its next change starts the next pass.
pub(super) async fn invalid_spec(
    object: &Object,
    previous: Option<&SecurityGroupMembershipStatus>,
    message: &str,
    context: &Context,
) -> Result<Action, ActError> {
    let empty = SecurityGroupMembershipStatus::default();
    let previous = previous.unwrap_or(&empty);
    let next = with_invalid_spec(object, previous, message, context);
    report_invalid_spec(object, previous, &next, &next, context).await
}

/// Reports an object that this version cannot read, once per change. What its status says of the edge stays as it is, also where it
/// cannot be read.
pub(super) async fn unreadable(
    object: &Object,
    stored: &Value,
    message: &str,
    context: &Context,
) -> Result<Action, ActError> {
    // Compared with the previous status, so that an unchanged one is not written again.
    let previous = status::parse_lenient(stored);
    let next = with_invalid_spec(object, &previous, message, context);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reconciles_are_counted_by_outcome() {
        let ready = |repaired| ReconcileOutcome::Ready {
            origin: None,
            shared: false,
            repaired,
        };
        let ends = [
            ReconcileOutcome::Undecided,
            ReconcileOutcome::Gone,
            ready(false),
            ready(true),
            ReconcileOutcome::Suspended,
            ReconcileOutcome::Waiting,
            ReconcileOutcome::WouldJoin,
            ReconcileOutcome::AdoptionRefused,
            ReconcileOutcome::DriftReported,
            ReconcileOutcome::Absent,
            ReconcileOutcome::Unsuitable,
            ReconcileOutcome::AccountUnusable,
            ReconcileOutcome::Failed(Class::Transient),
        ];
        let words: std::collections::BTreeSet<_> = ends.map(outcome_label).into();
        assert_eq!(words.len(), ends.len(), "{words:?}");
        assert_eq!(
            outcome_label(ReconcileOutcome::RepairLoop),
            outcome_label(ReconcileOutcome::DriftReported)
        );
    }

    #[test]
    fn stored_status_has_the_same_fingerprint() {
        let mut status = SecurityGroupMembershipStatus {
            observed_generation: Some(3),
            origin: Some(crate::api::membership::Origin::Joined),
            ..SecurityGroupMembershipStatus::default()
        };
        let condition = NewCondition {
            type_: reason::READY,
            status: Status::True,
            reason: reason::JOINED.to_owned(),
            message: "as \u{1f980} said".to_owned(),
        };
        let now = "2026-01-02T03:04:05.678912Z".parse().unwrap();
        status.conditions = condition::merge(&[], vec![condition], Some(3), now);
        let stored = serde_json::to_string(&status).unwrap();
        let back: SecurityGroupMembershipStatus = serde_json::from_str(&stored).unwrap();
        assert_eq!(status_hash(Some(&status)), status_hash(Some(&back)));
        assert_ne!(status_hash(Some(&status)), status_hash(None));
        let mut shared = status.clone();
        shared.conditions.insert(0, {
            let mut foreign = status.conditions[0].clone();
            foreign.type_ = "example.com/Heartbeat".to_owned();
            foreign
        });
        assert_eq!(status_hash(Some(&status)), status_hash(Some(&shared)));
        status.conditions.clear();
        assert_ne!(status_hash(Some(&status)), status_hash(Some(&back)));
    }
}
