//! Whether an object may use the account that it names, and what its status says if it may not. Pure.

use std::sync::Arc;

use crate::api::account::GrantedAction;
use crate::ecs::{AccountUid, Region, SecurityGroupId};

use super::super::key::AccountKey;
use super::super::session::AccountSession;
use super::grants::TargetTags;

/// What an object asks of the directory.
#[derive(Clone, Copy, Debug)]
pub struct AccessRequest<'a> {
    /// The account that the object names.
    pub account: &'a AccountKey,
    /// Namespace of the object.
    pub namespace: &'a str,
    /// The region of its edge.
    pub region: &'a Region,
    /// The security group of its edge.
    pub group: &'a SecurityGroupId,
    /// UID of the cloud account in its claim.
    pub claimed_uid: Option<&'a AccountUid>,
    /// What the object needs a grant for; `None` if it needs none: it removes what the operator joined.
    pub action: Option<GrantedAction>,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// Whether the operator has recorded a claim of the object: users can write an intent, but no record.
    pub recorded: bool,
}

/// Whether an object may use its account.
#[derive(Debug)]
pub enum Access {
    /// It may.
    Usable(Arc<AccountSession>),
    /// It may, if its target has the tags of a grant.
    UsableForTags(Arc<AccountSession>, TargetTags),
    /// There is no such account.
    Missing,
    /// The account cannot be used now.
    NotReady {
        /// Whether a person must act.
        stalled: bool,
        /// Message of the account's Ready condition.
        message: String,
    },
    /// The account can be used, but it is another cloud account than the one in the claim.
    Changed {
        /// UID of the cloud account now.
        uid: AccountUid,
        /// UID of the cloud account in the claim.
        claimed: AccountUid,
    },
    /// No grant of the account covers this namespace and group.
    NotGranted,
    /// The credential check has not ended yet, or the tags of the group have not been read.
    Checking,
}

impl Access {
    /// The session for calls; `None` if the object may make none.
    #[must_use]
    pub fn session(self) -> Option<Arc<AccountSession>> {
        match self {
            Self::Usable(session) | Self::UsableForTags(session, _) => Some(session),
            Self::Missing
            | Self::NotReady { .. }
            | Self::Changed { .. }
            | Self::NotGranted
            | Self::Checking => None,
        }
    }

    /// The problem with the account, for users; empty if there is none, or none is known yet.
    #[must_use]
    pub fn problem(&self, request: AccessRequest<'_>) -> String {
        let AccessRequest {
            account,
            namespace,
            region: _,
            group,
            claimed_uid: _,
            action,
            deleting,
            recorded: _,
        } = request;
        match self {
            Self::Usable(_) | Self::UsableForTags(..) | Self::Checking => String::new(),
            Self::Missing => format!(
                "{account} does not exist; {}",
                if deleting {
                    "create it"
                } else {
                    "create it, or recreate this object with another spec.accountRef"
                }
            ),
            Self::NotReady { message, .. } => format!("{account} is not ready: {message}"),
            Self::Changed { uid, claimed } => format!(
                "{account} now belongs to cloud account {uid}, but this membership was created with cloud account {claimed}; restore its credentials"
            ),
            Self::NotGranted => match action {
                Some(GrantedAction::RemoveAdopted) => format!(
                    "no grant of {account} lets namespace {namespace} remove from {group} what the operator did not join; set spec.deletionPolicy to RemoveIfJoined, or ask the account's administrator for a grant that allows RemoveAdopted"
                ),
                Some(GrantedAction::Join | GrantedAction::Observe) | None => format!(
                    "no grant of {account} lets namespace {namespace} use {group}; ask the account's administrator to add a grant in spec.grants"
                ),
            },
        }
    }

    /// The tags of which the target must have some; `None` if it needs none.
    #[must_use]
    pub const fn target_tags(&self) -> Option<&TargetTags> {
        match self {
            Self::UsableForTags(_, tags) => Some(tags),
            Self::Usable(_)
            | Self::Missing
            | Self::NotReady { .. }
            | Self::Changed { .. }
            | Self::NotGranted
            | Self::Checking => None,
        }
    }
}
