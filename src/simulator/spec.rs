//! One group, instance or interface in the inventory or the admin port, and why one is invalid: only types.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::account::DEFAULT_ACCOUNT;
use super::cloud::{GroupKind, Id, InstanceStatus, InterfaceStatus, Resource};
use super::settings::optional_duration;

/// The common fields: place and owner.
macro_rules! spec {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            /// ID of the object.
            pub id: String,
            /// Region; `cn-hangzhou` by default.
            pub region: Option<String>,
            /// UID of the owner; the default account if absent.
            pub account: Option<String>,
            /// Whether other accounts can see it.
            #[serde(default)]
            pub shared: bool,
            /// VPC; `vpc-sim` by default.
            pub vpc_id: Option<String>,
            /// Whether it is in the classic network, outside of any VPC.
            #[serde(default)]
            pub classic: bool,
            /// Tags.
            #[serde(default)]
            pub tags: BTreeMap<String, String>,
            $($(#[$field_doc])* pub $field: $type,)*
        }

        impl $name {
            pub(super) fn resource(&self, created: Timestamp) -> Result<Resource, InventoryError> {
                if self.classic && self.vpc_id.is_some() {
                    return Err(InventoryError::TwoNetworks(self.id.clone()));
                }
                let text = |text: &Option<String>, or: &str| Id::from(text.as_deref().unwrap_or(or));
                Ok(Resource {
                    id: self.id.as_str().into(),
                    region: text(&self.region, "cn-hangzhou"),
                    account: text(&self.account, DEFAULT_ACCOUNT),
                    shared: self.shared,
                    vpc: (!self.classic).then(|| text(&self.vpc_id, "vpc-sim")),
                    created,
                    deleted: None,
                    tags: self.tags.clone(),
                })
            }
        }
    };
}

spec! {
    /// A security group.
    GroupSpec {
        /// Name; the ID by default.
        name: Option<String>,
        /// `normal` (default) or `enterprise`.
        #[serde(default, rename = "type")]
        kind: GroupKind,
        /// Whether a cloud product manages it.
        #[serde(default)]
        service_managed: bool,
        /// Number of rules.
        #[serde(default)]
        rules: u32,
        /// Member quota.
        quota: Option<usize>,
    }
}

spec! {
    /// An instance.
    InstanceSpec {
        /// Name; the ID by default.
        name: Option<String>,
        /// Zone.
        zone_id: Option<String>,
        /// Virtual switch.
        v_switch_id: Option<String>,
        /// Instance type.
        instance_type: Option<String>,
        /// ID of its image.
        image_id: Option<String>,
        /// Private address.
        private_ip: Option<String>,
        /// Status; `Running` by default.
        status: Option<InstanceStatus>,
        /// Duration of an intermediate status. Absent: for ever.
        #[serde(default, deserialize_with = "optional_duration")]
        status_for: Option<Duration>,
        /// Lock reasons.
        #[serde(default)]
        locks: BTreeSet<String>,
        /// Whether the instance type supports enterprise groups; true by default.
        enterprise_groups: Option<bool>,
        /// ID of the primary interface; derived from the instance's by default.
        primary_network_interface_id: Option<String>,
        /// Groups of the instance.
        #[serde(default)]
        security_group_ids: BTreeSet<String>,
        /// Group quota.
        quota: Option<usize>,
    }
}

spec! {
    /// A secondary interface.
    InterfaceSpec {
        /// Name; the ID by default.
        name: Option<String>,
        /// The instance that it is attached to.
        instance_id: Option<String>,
        /// Zone.
        zone_id: Option<String>,
        /// Virtual switch.
        v_switch_id: Option<String>,
        /// Private address.
        private_ip: Option<String>,
        /// Status; `InUse` when attached, else `Available`.
        status: Option<InterfaceStatus>,
        /// Duration of an intermediate status. Absent: for ever.
        #[serde(default, deserialize_with = "optional_duration")]
        status_for: Option<Duration>,
        /// Whether a cloud product manages it.
        #[serde(default)]
        service_managed: bool,
        /// Groups of the interface.
        #[serde(default)]
        security_group_ids: BTreeSet<String>,
        /// Group quota.
        quota: Option<usize>,
    }
}

macro_rules! named {
    ($name:ident { $($field:ident: $value:expr),* $(,)? }) => {
        impl $name {
            /// An object with this ID and defaults for all other fields.
            #[must_use]
            pub fn named(id: impl Into<String>) -> Self {
                Self {
                    id: id.into(),
                    region: None,
                    account: None,
                    shared: false,
                    vpc_id: None,
                    classic: false,
                    tags: BTreeMap::new(),
                    $($field: $value,)*
                }
            }
        }
    };
}

named!(GroupSpec {
    name: None,
    kind: GroupKind::Normal,
    service_managed: false,
    rules: 0,
    quota: None
});
named!(InstanceSpec {
    name: None,
    zone_id: None,
    v_switch_id: None,
    instance_type: None,
    image_id: None,
    private_ip: None,
    status: None,
    status_for: None,
    locks: BTreeSet::new(),
    enterprise_groups: None,
    primary_network_interface_id: None,
    security_group_ids: BTreeSet::new(),
    quota: None,
});
named!(InterfaceSpec {
    name: None,
    instance_id: None,
    zone_id: None,
    v_switch_id: None,
    private_ip: None,
    status: None,
    status_for: None,
    service_managed: false,
    security_group_ids: BTreeSet::new(),
    quota: None,
});

/// Why an inventory or an object of it is invalid.
#[derive(Debug, thiserror::Error)]
pub enum InventoryError {
    /// Not YAML, an unknown field, a wrong type.
    #[error("{0}")]
    Format(String),
    /// A reference to an object that does not exist.
    #[error("{field} of {id} names {missing}, which the inventory does not have")]
    Dangling {
        /// The object with the reference.
        id: String,
        /// The field with the reference.
        field: &'static str,
        /// The missing object.
        missing: String,
    },
    /// Two objects with one ID.
    #[error("id {0} is there twice")]
    Duplicate(String),
    /// An object in a VPC and in the classic network.
    #[error("vpcId and classic of {0}: give one of them, for the classic network is in no VPC")]
    TwoNetworks(String),
    /// An ID that ECS would not assign.
    #[error("id {id:?} is not one that ECS gives: expected {expected}")]
    Id {
        /// The ID.
        id: String,
        /// The expected shape.
        expected: &'static str,
    },
}
