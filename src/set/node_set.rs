//! A set that selects Nodes. Only types.

use kube::ResourceExt as _;

use crate::api::SecurityGroupMembershipSet;
use crate::api::grant::LabelSelector;
use crate::ecs::{Region, SecurityGroupId};
use crate::kubernetes::ObjectUid;

/// A set that selects Nodes, and is not being deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSet {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: ObjectUid,
    /// Region of its targets.
    pub region: Region,
    /// The group that they join.
    pub group: SecurityGroupId,
    /// The Nodes that it selects.
    pub selector: LabelSelector,
    /// Whether it creates no memberships now.
    pub suspended: bool,
}

impl NodeSet {
    /// A set as it is watched; `None` if it selects no Nodes.
    #[must_use]
    pub fn of(set: &SecurityGroupMembershipSet) -> Option<Self> {
        let selector = set.spec.node_selector.clone()?;
        if set.metadata.deletion_timestamp.is_some() {
            return None;
        }
        Some(Self {
            namespace: set.namespace().unwrap_or_default(),
            name: set.name_any(),
            uid: ObjectUid::of(set)?,
            // The CRD refuses what does not parse.
            region: set.spec.region.parse().ok()?,
            group: set.spec.security_group_id.parse().ok()?,
            selector,
            suspended: set.spec.suspend,
        })
    }
}
