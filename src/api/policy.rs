//! The policies of a membership. Only types.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether the operator may write to the cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ManagementPolicy {
    /// Join, repair, remove.
    #[default]
    Manage,
    /// Only read, and report what the operator would do.
    Observe,
}

/// What to do with a membership that existed before the object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AdoptionPolicy {
    /// Take it over, and keep it on deletion by default.
    #[default]
    Adopt,
    /// Do not change it, and report it.
    Refuse,
}

/// What happens to the membership when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Remove it only if the operator joined it.
    #[default]
    RemoveIfJoined,
    /// Remove an adopted one as well.
    Remove,
    /// Keep it, without a call to the cloud.
    Retain,
}

/// What happens when another actor removes the membership.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DriftPolicy {
    /// Join again.
    #[default]
    Repair,
    /// Only report it.
    Report,
}

/// What to do with an instance that Karpenter has launched.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum KarpenterPolicy {
    /// Do not join it, and report it: Karpenter would replace the node for one more group.
    #[default]
    Refuse,
    /// Join it like any other instance.
    Join,
}
