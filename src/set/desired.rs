//! The membership that a set wants for a target, and whose an object of its name is. Pure.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};

use crate::api::{
    SET_LABEL, SecurityGroupMembership, SecurityGroupMembershipSet, SecurityGroupMembershipSpec,
};
use crate::ecs::{Region, SecurityGroupId, Target};

use super::member::{controller_of, name_of};

/// The membership of a set for one of its targets, as it is created.
#[must_use]
pub fn membership(
    set: &SecurityGroupMembershipSet,
    region: &Region,
    group: &SecurityGroupId,
    target: &Target,
) -> SecurityGroupMembership {
    let name = name_of(&set.name_any(), region, target, group);
    let mut object = SecurityGroupMembership::new(&name, spec_for(set, target));
    object.metadata.namespace = set.namespace();
    let label = (SET_LABEL.to_owned(), set.name_any());
    object.metadata.labels = Some(BTreeMap::from([label]));
    object.metadata.owner_references = owner(set).map(|owner| vec![owner]);
    object
}

fn spec_for(set: &SecurityGroupMembershipSet, target: &Target) -> SecurityGroupMembershipSpec {
    let spec = &set.spec;
    let (instance_id, network_interface_id) = match target {
        Target::Instance(id) => (Some(id.to_string()), None),
        Target::NetworkInterface(id) => (None, Some(id.to_string())),
    };
    SecurityGroupMembershipSpec {
        region: spec.region.clone(),
        instance_id,
        network_interface_id,
        security_group_id: spec.security_group_id.clone(),
        account_ref: spec.account_ref.clone(),
        management_policy: spec.management_policy,
        adoption_policy: spec.adoption_policy,
        deletion_policy: spec.deletion_policy,
        drift_policy: spec.drift_policy,
        karpenter_policy: spec.karpenter_policy,
        suspend: false,
    }
}

/// The set as the owner of its memberships; `None` where the API server has not given it a UID.
#[must_use]
pub fn owner(set: &SecurityGroupMembershipSet) -> Option<OwnerReference> {
    let owner = set.controller_owner_ref(&())?;
    Some(OwnerReference {
        // A set that is deleted in the foreground goes after its memberships.
        block_owner_deletion: Some(true),
        ..owner
    })
}

/// Whose an object is that has the name of a membership of a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occupant {
    /// The set's own.
    Own,
    /// It is about to go: it is being deleted, or that of an earlier set of this name, which goes with it.
    Goes,
    /// It has no controller, and is for the same edge and account: the set takes it over.
    Orphan,
    /// Another's.
    Foreign,
}

/// Whose `stored` is, which has the name of `wanted`, a membership of `set`.
#[must_use]
pub fn occupant(
    set: &SecurityGroupMembershipSet,
    stored: &SecurityGroupMembership,
    wanted: &SecurityGroupMembership,
) -> Occupant {
    let is_deleting = stored.metadata.deletion_timestamp.is_some();
    match controller_of(stored) {
        Some(owner) if Some(&owner.uid) == set.metadata.uid.as_ref() => Occupant::Own,
        Some(owner) if owner.name == set.name_any() => Occupant::Goes,
        _ if is_deleting => Occupant::Goes,
        None if is_same_edge(&stored.spec, &wanted.spec) => Occupant::Orphan,
        Some(_) | None => Occupant::Foreign,
    }
}

/// Whether two specs name the same edge and account.
fn is_same_edge(a: &SecurityGroupMembershipSpec, b: &SecurityGroupMembershipSpec) -> bool {
    let edge = |spec: &SecurityGroupMembershipSpec| {
        (
            spec.region.clone(),
            spec.instance_id.clone(),
            spec.network_interface_id.clone(),
            spec.security_group_id.clone(),
            spec.account_ref.clone(),
        )
    };
    edge(a) == edge(b)
}
