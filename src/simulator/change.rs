//! Changes to the cloud without an API call, as the admin port and simulations ask for them. `apply` makes them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize;

use super::account::{AccessKey, Denial};
use super::metadata::MetadataChange;
use super::ram::{OidcProvider, Role};
use super::settings::{SettingsChange, optional_duration};
use super::spec::{GroupSpec, InstanceSpec, InterfaceSpec, InventoryError};

/// One change.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Adds a target to a group.
    Join(EdgeChange),
    /// Removes a target from a group, even from its last one.
    Leave(EdgeChange),
    /// Sets the status of an instance or interface.
    SetStatus(StatusChange),
    /// Releases an instance (with its primary interface) or interface, or deletes a group.
    Delete(ById),
    /// Locks an instance; the reason is `security` by default.
    Lock(LockChange),
    /// Removes a lock.
    Unlock(LockChange),
    /// Sets the quota of one instance, interface or group; clears it if absent.
    SetQuota(QuotaChange),
    /// Changes settings of the whole cloud: latency, lag, limits, quotas …
    Set(SettingsChange),
    /// Adds or replaces a key.
    AddKey(AccessKey),
    /// Removes a key: it is unknown afterwards.
    RemoveKey(ById),
    /// Disables a key.
    RevokeKey(ById),
    /// Enables a key.
    ActivateKey(ById),
    /// Adds or replaces a role.
    AddRole(Role),
    /// Removes a role by its name: its sessions may do nothing afterwards.
    RemoveRole(ById),
    /// Adds or replaces an OIDC provider.
    AddOidcProvider(OidcProvider),
    /// Replaces the settings of the metadata service.
    SetMetadata(MetadataChange),
    /// Adds RAM denials to a key.
    Deny(DenyChange),
    /// Removes all RAM denials of a key.
    Allow(ById),
    /// Marks a group or interface as managed by a cloud product, or not managed.
    SetManaged(ManagedChange),
    /// Sets the number of rules of a group.
    SetRules(RulesChange),
    /// Sets all tags of an instance, interface or group.
    SetTags(TagsChange),
    /// Deletes a virtual switch that still contains objects.
    #[serde(rename = "deleteVSwitch")]
    DeleteVSwitch(ById),
    /// A new group.
    CreateGroup(GroupSpec),
    /// A new instance: Pending for the transition time and then Running, unless it sets a status.
    CreateInstance(InstanceSpec),
    /// A new secondary interface.
    CreateInterface(InterfaceSpec),
}

macro_rules! change {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    };
}

change! {
    /// An edge to add or remove.
    EdgeChange {
        /// An instance or a secondary interface.
        target: String,
        /// The group.
        security_group_id: String,
    }
}
change! {
    /// An object or key by its ID.
    ById {
        /// The ID.
        id: String,
    }
}
change! {
    /// A new status.
    StatusChange {
        /// ID of an instance or interface.
        id: String,
        /// The status, as ECS spells it.
        status: String,
        /// How long an intermediate status lasts. Absent: until the next change.
        #[serde(default, rename = "for", deserialize_with = "optional_duration")]
        duration: Option<Duration>,
    }
}
change! {
    /// A lock of an instance.
    LockChange {
        /// ID of the instance.
        id: String,
        /// The lock reason.
        reason: Option<String>,
    }
}
change! {
    /// A new quota.
    QuotaChange {
        /// ID of an instance, interface or group.
        id: String,
        /// Number of groups (of a target) or of members (of a group).
        quota: Option<usize>,
    }
}
change! {
    /// New denials of a key.
    DenyChange {
        /// The access key ID.
        id: String,
        /// The denials to add.
        deny: Vec<Denial>,
    }
}
change! {
    /// Whether a product manages an object.
    ManagedChange {
        /// ID of a group or interface.
        id: String,
        /// Whether a cloud product manages it.
        managed: bool,
    }
}
change! {
    /// The tags of an instance, interface or group.
    TagsChange {
        /// ID of the instance, interface or group.
        id: String,
        /// Each value by its key.
        tags: BTreeMap<String, String>,
    }
}
change! {
    /// The rules of a group.
    RulesChange {
        /// ID of the group.
        id: String,
        /// Number of rules.
        rules: u32,
    }
}

/// Why a change is rejected.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// There is no object with this ID.
    #[error("{field}: there is no {id}")]
    NoSuch {
        /// The field.
        field: &'static str,
        /// The ID.
        id: String,
    },
    /// The object cannot have this status.
    #[error("status: {0:?} is not a status of it")]
    Status(String),
    /// The new object is invalid.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
}

impl Change {
    /// The edge that a Join or Leave names.
    #[must_use]
    pub fn edge(&self) -> Option<EdgeChange> {
        if let Self::Join(edge) | Self::Leave(edge) = self {
            return Some(edge.clone());
        }
        None
    }
}
