//! What the deletion of a membership would do, as the operator decides it: the target is taken to be as the status says. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::account::directory::Grants;
use crate::api::membership::DeletionPolicy;
use crate::api::{SecurityGroupMembership, SecurityGroupMembershipStatus};
use crate::ecs::{AccountUid, Edge, Tags, TargetDescription, TargetState};
use crate::membership::decide::{ReconcileOutcome, Release, Step};
use crate::membership::forecast::{Known, KnownAccount, forecast, holders};
use crate::membership::object::Claim;

use super::super::cluster::full_name;

/// What the deletion of a membership does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Deletion {
    /// The operator removes the target from the group.
    Leaves,
    /// Another object owns the membership from then on.
    TakenOver(String),
    /// Another object names the membership as well.
    Shared(String),
    /// The target stays, because `deletionPolicy` is `Retain`.
    Retained,
    /// The target stays, because the operator did not join it, or may not write.
    NotJoined,
    /// The operator owns nothing through the object.
    Nothing,
    /// The object stays while `spec.suspend` is true.
    Suspended,
    /// The object stays until what its message says is mended.
    Waits,
}

impl Deletion {
    /// What the deletion of `object` does beside these other objects.
    pub(super) fn of(
        object: &SecurityGroupMembership,
        edge: &Edge,
        others: &[SecurityGroupMembership],
        now: Timestamp,
    ) -> Self {
        let status = object.status.clone().unwrap_or_default();
        let is_member = Claim::of(object).is_some_and(|claim| claim.record().is_some());
        let target = described(&status, edge, is_member);
        let mut deleted = object.clone();
        let deletion = &mut deleted.metadata.deletion_timestamp;
        deletion.get_or_insert(Time(now));
        let own = status.account_uid.as_deref().and_then(AccountUid::of_claim);
        let account = KnownAccount::There {
            uid: own.clone(),
            trouble: None,
            grants: Grants::OwnNamespace,
        };
        let known = Known {
            account: &account,
            labels: None,
            target: Some(&target),
            others,
        };
        let found = forecast(&deleted, edge, &known, now);
        let holders = holders(object, edge, others, own.as_ref());
        let successor = holders.first().map(|successor| full_name(*successor));
        let successor = successor.unwrap_or_default();
        if found.does(Step::HandOver) {
            return Self::TakenOver(successor);
        }
        if found.does(Step::Leave) {
            return Self::Leaves;
        }
        match (found.release(), found.outcome) {
            (Some(Release::Retained), _) => match object.spec.deletion_policy {
                DeletionPolicy::Retain => Self::Retained,
                DeletionPolicy::RemoveIfJoined | DeletionPolicy::Remove => Self::NotJoined,
            },
            (Some(Release::Shared), _) => Self::Shared(successor),
            (Some(Release::Left | Release::NeverJoined), _) | (None, ReconcileOutcome::Gone) => {
                Self::Nothing
            }
            (None, ReconcileOutcome::Suspended) => Self::Suspended,
            (None, _) => Self::Waits,
        }
    }

    /// What a person reads.
    pub(super) fn sentence(&self, edge: &Edge) -> String {
        let Edge { target, group, .. } = edge;
        match self {
            Self::Leaves => {
                format!("the operator removes {target} from {group} (LeaveSecurityGroup)")
            }
            Self::TakenOver(successor) => {
                format!("nothing happens in the cloud: {successor} takes over the membership")
            }
            Self::Shared(successor) => {
                format!("nothing happens in the cloud: {successor} names the membership too")
            }
            Self::Retained => format!(
                "nothing happens in the cloud: {target} stays in {group}, because deletionPolicy is Retain"
            ),
            Self::NotJoined => format!(
                "nothing happens in the cloud: {target} stays in {group}, because the operator did not join it, or may not write to the cloud"
            ),
            Self::Nothing => {
                "nothing happens in the cloud: the operator has joined nothing for this object"
                    .to_owned()
            }
            Self::Suspended => "the deletion waits while spec.suspend is true".to_owned(),
            Self::Waits => "the deletion waits; see the message above".to_owned(),
        }
    }
}

/// The target as the status tells it.
fn described(
    status: &SecurityGroupMembershipStatus,
    edge: &Edge,
    is_member: bool,
) -> TargetDescription {
    // One more group, as almost every target has: the last one cannot be left, which only the cloud knows.
    let another = "sg-another".parse().ok();
    let groups = is_member.then(|| edge.group.clone());
    TargetDescription {
        state: TargetState::Running,
        vpc_id: None,
        lock_reasons: status
            .target
            .as_ref()
            .map(|target| target.lock_reasons.clone())
            .unwrap_or_default(),
        security_group_ids: groups.into_iter().chain(another).collect(),
        service_managed: false,
        primary: false,
        tags: Tags::default(),
        karpenter: false,
    }
}
