//! A write that the API server refuses. Pure.

use crate::api::membership::SecurityGroupMembershipStatus;
use crate::api::reason;
use crate::condition::{self, Status};
use crate::ecs::{Class, Edge};

use super::super::decide::Release;
use super::conditions::{Phase, Summary, retain_hint};
use super::input::{Refusal, Refused, StatusInput};

/// A write that the API server refuses: what it was for, its answer, and the way out.
pub(super) fn write_refused(
    previous: &SecurityGroupMembershipStatus,
    generation: Option<i64>,
    input: &StatusInput<'_>,
    refusal: &Refusal,
) -> Summary {
    let Edge { target, group, .. } = input.edge;
    let another =
        format!("another SecurityGroupMembership on {target} and {group} must own the membership");
    let (reason, what) = match (refusal.what, input.held) {
        (Refused::Claim, _) => (
            reason::WRITE_REFUSED,
            "the operator's claim could not be stored, and without it the operator does not join"
                .to_owned(),
        ),
        (Refused::Finalizer, Some(held)) => {
            let told = told_ending(previous, generation)
                .filter(|_| held.ending.why == Release::NeverJoined);
            let ending = told.map_or_else(|| held.ending.explain(input.edge).1, str::to_owned);
            (reason::WRITE_REFUSED, format!("{ending}{FINALIZER_STAYS}"))
        }
        (Refused::Finalizer, None) => (
            reason::WRITE_REFUSED,
            "the finalizer could not be removed".to_owned(),
        ),
        (Refused::Successor, _) => (
            reason::WRITE_REFUSED,
            format!("{another}, but the API server refuses the write to it"),
        ),
        // Not `WriteRefused`: nothing is given up.
        (Refused::Record, _) => (reason::RETRYING, another),
    };
    let (fix, hint) = match refusal.what {
        Refused::Claim | Refused::Finalizer => (POLICY, ""),
        Refused::Successor => (POLICY, retain_hint(true)),
        Refused::Record => ("install the CRDs of this version", retain_hint(true)),
    };
    let sentence = &refusal.sentence;
    let retry = Class::Transient.retry();
    Summary::simple(
        Status::False,
        reason,
        format!("{what}: {sentence}; {fix}; {retry}{hint}"),
        Phase::Reconciling,
    )
}

const POLICY: &str =
    "correct what refuses it: a policy, a webhook, a quota or the operator's rights";

/// Between what became of the membership and why the object is still there.
const FINALIZER_STAYS: &str = "; the finalizer could not be removed";

/// What an earlier process has said of the end of the membership.
fn told_ending(previous: &SecurityGroupMembershipStatus, generation: Option<i64>) -> Option<&str> {
    let ready = condition::find(&previous.conditions, reason::READY)?;
    let is_told = ready.reason == reason::WRITE_REFUSED && ready.observed_generation == generation;
    let (ending, _) = ready.message.split_once(FINALIZER_STAYS)?;
    is_told.then_some(ending)
}
