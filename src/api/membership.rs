//! `SecurityGroupMembership`: one edge. Only types; every rule is in the schema, so that the API server refuses what is wrong.

#![expect(
    clippy::duplicated_attributes,
    reason = "the printcolumn attribute of kube repeats its keys"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Keeps one ECS instance or one elastic network interface a member of one security group.
///
/// The region, the IDs and the account are fixed once the object exists: delete it and create another to change them.
/// The policies may be changed at any time.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "security-group-operator.io",
    version = "v1alpha1",
    kind = "SecurityGroupMembership",
    plural = "securitygroupmemberships",
    shortname = "sgm",
    category = "alibabacloud",
    category = "security-group-operator",
    namespaced,
    status = "SecurityGroupMembershipStatus",
    derive = "PartialEq",
    selectable = ".spec.instanceID",
    selectable = ".spec.networkInterfaceID",
    selectable = ".spec.securityGroupID",
    doc = "Keeps one ECS instance or one elastic network interface a member of one security group.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec['instanceID','networkInterfaceID']"
    ),
    printcolumn(
        name = "Security-Group",
        type_ = "string",
        json_path = ".spec.securityGroupID"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "State",
        type_ = "string",
        json_path = ".status.target.state",
        priority = 1
    ),
    printcolumn(
        name = "Origin",
        type_ = "string",
        json_path = ".status.origin",
        priority = 1
    ),
    printcolumn(
        name = "Region",
        type_ = "string",
        json_path = ".spec.region",
        priority = 1
    ),
    printcolumn(
        name = "Account",
        type_ = "string",
        json_path = ".spec.accountRef.name",
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("has(self.instanceID) != has(self.networkInterfaceID)")
        .message("set exactly one of instanceID and networkInterfaceID"),
    validation = Rule::new("has(self.instanceID) == has(oldSelf.instanceID) && has(self.networkInterfaceID) == has(oldSelf.networkInterfaceID)")
        .message("the target is fixed: delete this object and create another one for the new target"),
)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupMembershipSpec {
    /// Region of the target and of the group, for example cn-hangzhou. Cannot be changed.
    #[schemars(regex(pattern = r"^[a-z]{2}(-[a-z0-9]+)+$"), length(max = 40))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("region is fixed: delete this object and create another one"))]
    pub region: String,

    /// ECS instance to join, for example i-bp1234567890abcdefgh. Joins its primary network interface.
    /// Exactly one of instanceID and networkInterfaceID. Cannot be changed.
    #[serde(
        rename = "instanceID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(regex(pattern = r"^i-[a-zA-Z0-9]+$"), length(max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("instanceID is fixed: delete this object and create another one"))]
    pub instance_id: Option<String>,

    /// Secondary elastic network interface to join, for example eni-bp1234567890abcdefgh.
    /// A primary interface is reached through instanceID. Cannot be changed.
    #[serde(
        rename = "networkInterfaceID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(regex(pattern = r"^eni-[a-zA-Z0-9]+$"), length(max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("networkInterfaceID is fixed: delete this object and create another one"))]
    pub network_interface_id: Option<String>,

    /// Security group to join, for example sg-bp1234567890abcdefgh. Same region and VPC as the target. Cannot be changed.
    #[serde(rename = "securityGroupID")]
    #[schemars(regex(pattern = r"^sg-[a-zA-Z0-9]+$"), length(max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("securityGroupID is fixed: delete this object and create another one"))]
    pub security_group_id: String,

    /// Account that the calls are made with. Defaults to the `ClusterCloudAccount` named default. Cannot be changed.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("accountRef is fixed: delete this object and create another one"))]
    pub account_ref: AccountRef,

    /// Manage (default) joins, repairs and leaves. Observe never writes to the cloud, and says what it would do.
    #[serde(default)]
    pub management_policy: ManagementPolicy,

    /// What to do when the target is a member before this object: Adopt (default) takes it over, and keeps it when
    /// this object goes; Refuse leaves it alone and says so.
    #[serde(default)]
    pub adoption_policy: AdoptionPolicy,

    /// What to do when this object is deleted: `LeaveIfJoined` (default) leaves the group only if this object joined it;
    /// Leave leaves what it adopted, too; Retain keeps the membership. Setting Retain is the way out of a deletion that
    /// cannot finish, and needs no call to the cloud.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// What to do when somebody else takes the target out of the group: Repair (default) joins again; Report only says so.
    #[serde(default)]
    pub drift_policy: DriftPolicy,
}

/// The account that calls are made with.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct AccountRef {
    /// `ClusterCloudAccount` (default), or `CloudAccount` for one in the namespace of this object.
    #[serde(default)]
    pub kind: AccountKind,
    /// Name of the account.
    #[serde(default = "default_account_name")]
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
}

impl Default for AccountRef {
    fn default() -> Self {
        Self {
            kind: AccountKind::default(),
            name: default_account_name(),
        }
    }
}

fn default_account_name() -> String {
    "default".to_owned()
}

/// Kind of an account.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum AccountKind {
    /// Cluster-scoped; its grants say which namespaces may use which groups.
    #[default]
    ClusterCloudAccount,
    /// In the namespace of the object that names it.
    CloudAccount,
}

impl AccountKind {
    /// The kind as the API spells it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClusterCloudAccount => "ClusterCloudAccount",
            Self::CloudAccount => "CloudAccount",
        }
    }
}

/// Whether the operator may write to the cloud.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ManagementPolicy {
    /// Join, repair, leave.
    #[default]
    Manage,
    /// Only read, and say what would be done.
    Observe,
}

/// What to do with an edge that was there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum AdoptionPolicy {
    /// Take it over; it is kept on deletion by default.
    #[default]
    Adopt,
    /// Leave it alone and say so.
    Refuse,
}

/// What happens to the edge when the object is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DeletionPolicy {
    /// Leave only what this object joined.
    #[default]
    LeaveIfJoined,
    /// Leave what was adopted, too.
    Leave,
    /// Keep the edge; no call to the cloud.
    Retain,
}

/// What happens when somebody else removes the edge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum DriftPolicy {
    /// Join again.
    #[default]
    Repair,
    /// Only say so.
    Report,
}

/// Joined if this operator made the target a member of the group, Adopted if it was one before.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Origin {
    /// This operator joined the target to the group.
    Joined,
    /// The target was a member before.
    Adopted,
}

/// What the operator last saw and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupMembershipStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Ready, and where they apply Reconciling, Stalled and Drifted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// Who made the target a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,

    /// The target as the cloud last described it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,

    /// The last refusal or failure that still stands; absent when all is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,
}

/// The target as the cloud last described it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// State in the cloud's words: Pending, Starting, Running, Stopping, Stopped for an instance; Available, Attaching,
    /// `InUse`, Detaching, Deleting for a network interface.
    pub state: String,
    /// VPC of the target; absent in a classic network.
    #[serde(rename = "vpcID", default, skip_serializing_if = "Option::is_none")]
    pub vpc_id: Option<String>,
    /// Why the cloud has locked the instance, if it has: financial, security, Recycling, dedicatedhostfinancial, refunded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lock_reasons: Vec<String>,
}

/// A refusal or failure in the cloud's own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastError {
    /// API action that failed, for example `JoinSecurityGroup`.
    pub action: String,
    /// Error code as the cloud spells it; absent when no answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Request ID to give to Alibaba Cloud support; absent when no answer came.
    #[serde(rename = "requestID", default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What the cloud said, without anything secret.
    pub message: String,
    /// When it is tried again, for example "after 5m, at most every 30m".
    pub retry: String,
}
