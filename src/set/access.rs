//! Whether a set may use its account for its group: a set that may not must not make ten thousand objects that say so. Pure.

use crate::account::directory::{Access, AccessRequest};
use crate::account::key::AccountKey;
use crate::api::account::GrantedAction;
use crate::api::membership::ManagementPolicy;
use crate::api::{SecurityGroupMembershipSetSpec, reason};
use crate::ecs::{Region, SecurityGroupId};

use super::refusal::Refusal;

/// The account has not been checked yet, or the tags of the group have not been read. The end of the check enqueues the set.
#[derive(Clone, Copy, Debug)]
pub struct NotChecked;

/// What a set of this namespace asks of its account.
#[must_use]
pub const fn request<'a>(
    spec: &SecurityGroupMembershipSetSpec,
    account: &'a AccountKey,
    namespace: &'a str,
    (region, group): (&'a Region, &'a SecurityGroupId),
) -> AccessRequest<'a> {
    AccessRequest {
        account,
        namespace,
        region,
        group,
        claimed_uid: None,
        action: Some(match spec.management_policy {
            ManagementPolicy::Manage => GrantedAction::Join,
            ManagementPolicy::Observe => GrantedAction::Observe,
        }),
        deleting: false,
        recorded: false,
    }
}

/// What an answer of the directory keeps the set from, if anything.
///
/// # Errors
/// The account has not been checked yet.
pub fn refusal(access: &Access, request: AccessRequest<'_>) -> Result<Option<Refusal>, NotChecked> {
    let refused = |reason, stalled| {
        Ok(Some(Refusal::Account {
            reason,
            message: access.problem(request),
            stalled,
        }))
    };
    match access {
        Access::Usable(_) | Access::UsableForTags(..) => Ok(None),
        Access::Checking => Err(NotChecked),
        Access::Missing => refused(reason::ACCOUNT_NOT_FOUND, true),
        Access::NotReady { stalled, .. } => refused(reason::ACCOUNT_NOT_READY, *stalled),
        Access::Changed { .. } => refused(reason::ACCOUNT_CHANGED, true),
        Access::NotGranted => refused(reason::NOT_GRANTED, true),
    }
}
