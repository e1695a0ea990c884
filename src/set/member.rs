//! A membership of a set, as the set looks at it. Pure.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::ResourceExt as _;
use sha2::{Digest as _, Sha256};

use crate::api::membership::{
    AdoptionPolicy, DeletionPolicy, DriftPolicy, KarpenterPolicy, ManagementPolicy,
};
use crate::api::{
    SecurityGroupMembership, SecurityGroupMembershipSetSpec, SecurityGroupMembershipSpec, reason,
};
use crate::condition;
use crate::ecs::{AccountUid, Edge, Region, SecurityGroupId, Target};
use crate::kubernetes::{ObjectUid, version_of};
use crate::membership::object::{Object, legible};

/// The policies that a set keeps as its own on each of its memberships.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policies {
    /// Whether the operator may write to the cloud.
    pub management: ManagementPolicy,
    /// What to do with what was there before.
    pub adoption: AdoptionPolicy,
    /// What to do on deletion.
    pub deletion: DeletionPolicy,
    /// What to do about drift.
    pub drift: DriftPolicy,
    /// What to do with instances of Karpenter.
    pub karpenter: KarpenterPolicy,
}

impl Policies {
    /// Those of a set.
    #[must_use]
    pub const fn of_set(spec: &SecurityGroupMembershipSetSpec) -> Self {
        Self {
            management: spec.management_policy,
            adoption: spec.adoption_policy,
            deletion: spec.deletion_policy,
            drift: spec.drift_policy,
            karpenter: spec.karpenter_policy,
        }
    }

    /// Gives them to a membership.
    pub const fn apply_to(self, spec: &mut SecurityGroupMembershipSpec) {
        spec.management_policy = self.management;
        spec.adoption_policy = self.adoption;
        spec.deletion_policy = self.deletion;
        spec.drift_policy = self.drift;
        spec.karpenter_policy = self.karpenter;
    }

    pub(super) const fn of_membership(spec: &SecurityGroupMembershipSpec) -> Self {
        Self {
            management: spec.management_policy,
            adoption: spec.adoption_policy,
            deletion: spec.deletion_policy,
            drift: spec.drift_policy,
            karpenter: spec.karpenter_policy,
        }
    }
}

/// What a membership says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Nothing of this generation yet, or that it goes on.
    Pending,
    /// The target is a member.
    Ready,
    /// Somebody must act; with the reason of Ready.
    Stalled(Arc<str>),
    /// The cloud does not list the target.
    TargetNotFound,
}

/// A membership that a set controls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: ObjectUid,
    /// Its version.
    pub version: u64,
    /// Its region.
    pub region: Region,
    /// Its target.
    pub target: Target,
    /// Its group.
    pub group: SecurityGroupId,
    /// Its policies.
    pub policies: Policies,
    /// What it says.
    pub state: State,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// The cloud account that it was last looked at with.
    pub account_uid: Option<AccountUid>,
}

/// The set that controls a membership.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// UID of the set.
    pub uid: ObjectUid,
    /// Name of the set.
    pub name: String,
}

/// What controls a membership: its set, or something that this operator does not know.
#[must_use]
pub fn controller_of(object: &SecurityGroupMembership) -> Option<&OwnerReference> {
    let mut owners = object.owner_references().iter();
    owners.find(|owner| owner.controller == Some(true))
}

impl Member {
    /// A watched object that a set controls, and the set; `None` for any other.
    #[must_use]
    pub fn watched(object: &Object) -> Option<(Owner, Self)> {
        let legible = match &object.0 {
            Ok(object) => return Self::of(object),
            Err(unreadable) => legible(unreadable)?,
        };
        let (owner, member) = Self::of(&legible)?;
        // Whatever it said before, this version cannot read it.
        let state = State::Stalled(reason::INVALID_SPEC.into());
        Some((owner, Self { state, ..member }))
    }

    /// An object that a set controls, and the set; `None` for any other.
    #[must_use]
    pub fn of(object: &SecurityGroupMembership) -> Option<(Owner, Self)> {
        let owner = controller_of(object)?;
        let edge = Edge::try_from(&object.spec).ok()?;
        let status = object.status.as_ref();
        let uid = status.and_then(|status| status.account_uid.as_deref());
        let member = Self {
            name: object.name_any(),
            uid: ObjectUid::of(object)?,
            version: version_of(&object.metadata),
            region: edge.region,
            target: edge.target,
            group: edge.group,
            policies: Policies::of_membership(&object.spec),
            state: state(object),
            deleting: object.metadata.deletion_timestamp.is_some(),
            account_uid: uid.map(AccountUid::from),
        };
        let owner = Owner {
            uid: owner.uid.as_str().into(),
            name: owner.name.clone(),
        };
        Some((owner, member))
    }

    /// Whether its target is a member of its group, and stays so.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.state == State::Ready && !self.deleting
    }

    /// Whether a set has to look again when this becomes `other`.
    #[must_use]
    pub fn is_news(&self, other: &Self) -> bool {
        let version = other.version;
        Self {
            version,
            ..self.clone()
        } != *other
    }
}

fn state(object: &SecurityGroupMembership) -> State {
    let Some(status) = &object.status else {
        return State::Pending;
    };
    let generation = object.metadata.generation;
    let ready = condition::find(&status.conditions, reason::READY);
    let ready = ready.filter(|ready| ready.observed_generation == generation);
    let is_deleting = object.metadata.deletion_timestamp.is_some();
    if condition::is_true(&status.conditions, reason::SUSPENDED) {
        // Its Ready is of an older generation, and nothing changes it until somebody ends that.
        return State::Stalled(reason::SUSPENDED.into());
    }
    match ready {
        Some(ready) if ready.status == "True" && !is_deleting => State::Ready,
        Some(ready) if ready.reason == reason::TARGET_NOT_FOUND => State::TargetNotFound,
        Some(ready) if condition::is_true(&status.conditions, reason::STALLED) => {
            State::Stalled(ready.reason.as_str().into())
        }
        Some(_) | None => State::Pending,
    }
}

/// The name of the membership of a set for one target and group: always the same, so that none is made twice. At most 137 letters.
#[must_use]
pub fn name_of(set: &str, region: &Region, target: &Target, group: &SecurityGroupId) -> String {
    let digest = Sha256::digest(format!("{region}/{target}/{group}"));
    let digest: String = hex::encode(digest).chars().take(8).collect();
    let target = target.to_string().to_lowercase();
    format!("{set}-{target}-{digest}")
}
