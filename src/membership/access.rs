//! The claim of an object, and the account that it may use. Reads memory only.

use kube::ResourceExt as _;

use crate::account::directory::{Access, AccessRequest};
use crate::api::SecurityGroupMembership;
use crate::api::account::GrantedAction;
use crate::api::membership::{ManagementPolicy, Origin};
use crate::ecs::{AccountUid, Edge};
use crate::kubernetes::ObjectUid;

use super::context::Context;
use super::decide::{AccessView, ClaimView};
use super::history::Standing;
use super::object::{Claim, account_key};

/// The claim of an object: its record, or else what this process has joined, also if a user removes or changes the intent. Any other
/// intent that names another cloud account than the object's is none: nothing was recorded there.
pub(super) fn claim(object: &SecurityGroupMembership, context: &Context) -> Option<Claim> {
    let claim = context.table.claim(object);
    if claim.as_ref().is_some_and(|claim| claim.record().is_some()) {
        return claim;
    }
    let uid = ObjectUid::of(object).unwrap_or_default();
    let joined_with = context.table.history(&uid, |history| history.joined_with());
    if let Some(account_uid) = joined_with.flatten() {
        return Some(Claim::Intent { account_uid });
    }
    let named = named_account(object, context);
    claim.filter(|claim| named.is_none() || claim.account_uid() == named.as_ref())
}

/// UID of the cloud account that the spec names, if it is known.
pub fn named_account(object: &SecurityGroupMembership, context: &Context) -> Option<AccountUid> {
    let namespace = object.namespace().unwrap_or_default();
    context
        .directory
        .uid(&account_key(&object.spec, &namespace))
}

/// What `decide` sees of a claim and of what this process knows of it.
pub(super) fn claim_view(claim: Option<&Claim>, standing: Standing) -> ClaimView {
    let void = standing == Standing::Void;
    match (claim, standing) {
        (
            Some(Claim::Record {
                origin: Origin::Adopted,
                ..
            }),
            _,
        ) => ClaimView::Adopted,
        (
            Some(Claim::Record {
                origin: Origin::Joined,
                ..
            }),
            _,
        ) => ClaimView::Joined { void },
        // What this process has joined counts like a record until it is written, also if a user removes the intent.
        (Some(Claim::Intent { .. }) | None, Standing::Joined) => ClaimView::Joined { void: false },
        (Some(Claim::Intent { .. }), Standing::Void | Standing::Unknown) => {
            ClaimView::Intent { void }
        }
        (None, Standing::Void | Standing::Unknown) => ClaimView::None,
    }
}

/// The account that the object may use, and the problem with it.
pub(super) fn access(
    object: &SecurityGroupMembership,
    edge: &Edge,
    claim: Option<&Claim>,
    claim_view: ClaimView,
    context: &Context,
) -> (Access, String) {
    let namespace = object.namespace().unwrap_or_default();
    let deleting = object.metadata.deletion_timestamp.is_some();
    let request = AccessRequest {
        account: &account_key(&object.spec, &namespace),
        namespace: &namespace,
        region: &edge.region,
        group: &edge.group,
        claimed_uid: claim.and_then(Claim::account_uid),
        action: wanted_action(object, deleting, claim_view),
        deleting,
        recorded: claim_view.record().is_some(),
    };
    let access = context.directory.resolve(request);
    let problem = access.problem(request);
    (access, problem)
}

/// What an object needs a grant for. Revoking a grant must not freeze what the operator joined.
pub(super) fn wanted_action(
    object: &SecurityGroupMembership,
    deleting: bool,
    claim: ClaimView,
) -> Option<GrantedAction> {
    match (object.spec.management_policy, claim) {
        (_, ClaimView::Joined { void: false }) if deleting => None,
        (ManagementPolicy::Observe, _) => Some(GrantedAction::Observe),
        // A Join of ours may have had an effect.
        (ManagementPolicy::Manage, ClaimView::Intent { void: false }) => Some(GrantedAction::Join),
        (ManagementPolicy::Manage, _) if deleting => Some(GrantedAction::RemoveAdopted),
        (ManagementPolicy::Manage, _) => Some(GrantedAction::Join),
    }
}

/// What `decide` needs to know of the access.
pub(super) fn access_view(access: &Access) -> AccessView {
    match access {
        Access::Usable(_) | Access::UsableForTags(..) => AccessView::Usable,
        Access::Missing => AccessView::Missing,
        Access::NotReady { stalled, .. } => AccessView::NotReady { stalled: *stalled },
        Access::Changed { .. } => AccessView::Changed,
        Access::NotGranted => AccessView::NotGranted,
        Access::Checking => AccessView::Checking,
    }
}
