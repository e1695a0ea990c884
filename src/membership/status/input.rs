//! What a status is made of. Only a type.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::ecs::{AccountUid, Edge, Error, TargetDescription};

use super::super::decide::{Observed, ReconcileOutcome};

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
    /// When the rate limit lets the call begin, if it held the call back.
    pub turn_in: Option<Duration>,
    /// UID of the cloud account, where it is known.
    pub account_uid: Option<&'a AccountUid>,
    /// Value of the annotation `reconcile-requested-at`.
    pub reconcile_requested_at: Option<&'a str>,
}
