//! The input of a status. Only types.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::membership::DeletionPolicy;
use crate::ecs::{AccountUid, DocsUrl, Edge, Error, TargetDescription};
use crate::kubernetes::ObjectUid;

use super::super::decide::{Observed, ReconcileOutcome};
use super::Ending;

/// The result of a pass.
#[derive(Clone, Copy, Debug)]
pub struct StatusInput<'a> {
    /// The edge.
    pub edge: &'a Edge,
    /// How the pass ended.
    pub outcome: ReconcileOutcome,
    /// The observed state at its end.
    pub observed: &'a Observed,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// What its deletion does.
    pub deletion: DeletionPolicy,
    /// The target as last described.
    pub description: Option<&'a TargetDescription>,
    /// The cloud error that it ended with.
    pub failure: Option<&'a Error>,
    /// The problem with the account, for users.
    pub account_problem: &'a str,
    /// Why the objects on the edge could not be listed.
    pub not_listed: Option<&'a str>,
    /// Since when the target is between states, or the cloud answers with a code that this version does not know; `None` if it
    /// does not.
    pub waits_since: Option<Timestamp>,
    /// How long Ready=True stands without a read of the target, if no read has shown it for so long.
    pub not_observed_after: Option<Duration>,
    /// How long the rate limit has held the object back.
    pub held_for: Duration,
    /// UID of the object.
    pub object_uid: &'a ObjectUid,
    /// UID of the cloud account, if it is known.
    pub account_uid: Option<&'a AccountUid>,
    /// Value of the annotation `reconcile-requested-at`.
    pub reconcile_requested_at: Option<&'a str>,
    /// What the deletion has made of the membership of an object that is still there.
    pub held: Option<Held<'a>>,
    /// Where the documentation is; messages about what a human must correct end with a link to it.
    pub docs_url: Option<&'a DocsUrl>,
    /// The write that the API server refused.
    pub refusal: Option<&'a Refusal>,
}

/// A deleted object that finalizers keep.
#[derive(Clone, Copy, Debug)]
pub struct Held<'a> {
    /// What the deletion has made of the membership.
    pub ending: Ending,
    /// The finalizers that are left.
    pub finalizers: &'a [String],
}

/// A write that the API server refused, as the status tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What was to be written.
    pub what: Refused,
    /// What the API server answered, as one line.
    pub sentence: String,
}

/// What was to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The claim: without it no Join is called.
    Claim,
    /// The removal of finalizer and intent.
    Finalizer,
    /// The ownership of another object: until then the deletion waits.
    Successor,
    /// The record, which the API server drops: until it is stored the deletion waits.
    Record,
}
