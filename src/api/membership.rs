//! `SecurityGroupMembership`: one edge. Only types. Every rule is in the schema, so that the API server rejects an invalid object.

#![expect(
    clippy::duplicated_attributes,
    reason = "the printcolumn attribute of kube repeats its keys"
)]
#![expect(
    clippy::doc_markdown,
    reason = "`kubectl explain` shows these texts as they are"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::policy::{
    AdoptionPolicy, DeletionPolicy, DriftPolicy, KarpenterPolicy, ManagementPolicy,
};

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
    selectable = ".spec.region",
    selectable = ".spec.accountRef.name",
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
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
#[x_kube(
    validation = Rule::new("has(self.instanceID) != has(self.networkInterfaceID)")
        .message("must set exactly one of instanceID and networkInterfaceID")
        .reason(Reason::FieldValueInvalid)
        .field_path(".instanceID"),
    validation = Rule::new("has(self.instanceID) == has(oldSelf.instanceID) && has(self.networkInterfaceID) == has(oldSelf.networkInterfaceID)")
        .message("is immutable; delete this object and create another one for the new target")
        .reason(Reason::FieldValueForbidden)
        .field_path(".instanceID"),
)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupMembershipSpec {
    /// region is the region of the target and of the security group, for example cn-hangzhou (not a zone such as cn-hangzhou-b). It is immutable.
    #[schemars(regex(pattern = r"^[a-z]{2}(-[a-z0-9]+)+$"), length(max = 40))]
    #[x_kube(
        validation = Rule::new("!self.matches('(-[a-z]|[0-9][a-z])$')").message("must be a region, not a zone: cn-hangzhou instead of cn-hangzhou-b").reason(Reason::FieldValueInvalid),
        validation = Rule::new("self == oldSelf").message("is immutable; delete this object and create another one with the new region").reason(Reason::FieldValueForbidden)
    )]
    pub region: String,

    /// instanceID is the ECS instance to join, for example i-bp1234567890abcdefgh. Its primary network interface becomes a member. Exactly one of instanceID and networkInterfaceID must be set. It is immutable.
    #[serde(
        rename = "instanceID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(regex(pattern = r"^i-[a-z0-9]+$"), length(max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable; delete this object and create another one with the new instanceID").reason(Reason::FieldValueForbidden))]
    pub instance_id: Option<String>,

    /// networkInterfaceID is the secondary elastic network interface to join, for example eni-bp1234567890abcdefgh. A primary interface is reached through instanceID. It is immutable.
    #[serde(
        rename = "networkInterfaceID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(regex(pattern = r"^eni-[a-z0-9]+$"), length(max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable; delete this object and create another one with the new networkInterfaceID").reason(Reason::FieldValueForbidden))]
    pub network_interface_id: Option<String>,

    /// securityGroupID is the security group to join, for example sg-bp1234567890abcdefgh. It must be in the region and the VPC of the target. It is immutable.
    #[serde(rename = "securityGroupID")]
    #[schemars(regex(pattern = r"^sg-[a-z0-9]+$"), length(max = 64))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable; delete this object and create another one with the new securityGroupID").reason(Reason::FieldValueForbidden))]
    pub security_group_id: String,

    /// accountRef names the account that the operator calls the cloud with. Default: the ClusterCloudAccount named default. It is immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable; delete this object and create another one with the new accountRef").reason(Reason::FieldValueForbidden).field_path(".name"))]
    pub account_ref: AccountRef,

    /// managementPolicy says whether the operator may write to the cloud. Manage (default): it joins, repairs and removes. Observe: it never writes to the cloud and reports what it would do.
    #[serde(default)]
    pub management_policy: ManagementPolicy,

    /// adoptionPolicy says what to do with a membership that existed before this object. Adopt (default): take it over, and keep it when this object is deleted, unless deletionPolicy is Remove. Refuse: leave it alone and report it (Stalled).
    #[serde(default)]
    pub adoption_policy: AdoptionPolicy,

    /// deletionPolicy says what happens to the membership when this object is deleted. RemoveIfJoined (default): remove it only if the operator joined it. Remove: remove an adopted one as well. Retain: keep it. Retain needs no call to the cloud, may be set at any time, and is the way out of a deletion that cannot finish.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// driftPolicy says what to do when another actor removes the target from the group. Repair (default): join again. Report: only report it (Drifted, Stalled).
    #[serde(default)]
    pub drift_policy: DriftPolicy,

    /// karpenterPolicy says what to do with an instance that Karpenter has launched and that is not a member yet. Karpenter replaces a node whose security groups differ from those of its ECSNodeClass. Refuse (default): do not join it, and report it (Stalled). Join: join it; the security group must be in the ECSNodeClass. It has no effect on a network interface.
    #[serde(default)]
    pub karpenter_policy: KarpenterPolicy,

    /// suspend stops all cloud calls for this object while it is true, also those of a deletion. Only the status is written (condition Suspended). Default: false.
    #[serde(default)]
    pub suspend: bool,
}

/// The account that the operator calls the cloud with.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct AccountRef {
    /// kind is ClusterCloudAccount (default), or CloudAccount for an account in the namespace of this object.
    #[serde(default)]
    pub kind: AccountKind,
    /// name is the name of the account. Default: default.
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

/// origin says who made the target a member: Joined (the operator) or Adopted (it was a member before this object).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub enum Origin {
    /// This operator joined the target to the group.
    Joined,
    /// The target was a member before.
    Adopted,
}

/// What the operator last observed and did.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupMembershipStatus {
    /// observedGeneration is the generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// conditions are Ready and Drifted, and where they apply Reconciling, Stalled and Suspended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]), length(max = 16))]
    pub conditions: Vec<Condition>,

    /// origin says who made the target a member: Joined (the operator) or Adopted (it was a member before).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,

    /// objectUID is the UID of the object that origin and accountUID speak of. A status that was copied or restored to another object speaks of none.
    #[serde(rename = "objectUID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub object_uid: Option<String>,

    /// accountUID is the UID of the Alibaba Cloud account that the membership was made with.
    #[serde(
        rename = "accountUID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 64))]
    pub account_uid: Option<String>,

    /// target is the instance or network interface as the cloud last described it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetStatus>,

    /// lastError is the last refusal or failure that still applies. It is absent when there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<LastError>,

    /// lastHandledReconcileAt is the value of the annotation security-group-operator.io/reconcile-requested-at that the operator last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_handled_reconcile_at: Option<String>,
}

/// target is the instance or network interface as the cloud last described it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TargetStatus {
    /// state is the state in the cloud's words: Pending, Starting, Running, Stopping, Stopped for an instance; Available, Attaching, InUse, Detaching, Deleting for a network interface.
    #[schemars(length(max = 64))]
    pub state: String,
    /// vpcID is the VPC of the target. It is absent in a classic network.
    #[serde(rename = "vpcID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub vpc_id: Option<String>,
    /// lockReasons say why the cloud has locked the instance, if it has: financial, security, Recycling, dedicatedhostfinancial, refunded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "atomic"), length(max = 16), inner(length(max = 128)))]
    pub lock_reasons: Vec<String>,
}

/// lastError is the last refusal or failure, in the cloud's own words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LastError {
    /// action is the API action that failed, for example JoinSecurityGroup.
    #[schemars(length(max = 64))]
    pub action: String,
    /// code is the error code as the cloud spells it. It is absent when no answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub code: Option<String>,
    /// class is the kind of the error. It decides when the operator retries.
    pub class: ErrorClass,
    /// requestID is the request ID to give to Alibaba Cloud support. It is absent when no answer came.
    #[serde(rename = "requestID", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub request_id: Option<String>,
    /// time is when the operator first reported this error.
    pub time: Time,
    /// message is what the cloud answered, without anything secret.
    #[schemars(length(max = 2048))]
    pub message: String,
    /// accessDeniedDetail says which permission is missing, where the cloud says so.
    #[serde(
        rename = "accessDeniedDetail",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 2048))]
    pub access_denied_detail: Option<String>,
}

/// Kinds of errors, by the reaction of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum ErrorClass {
    /// The target is between states: retried after 5 s to 1 min.
    Transitional,
    /// No usable answer, or an unknown code: retried after 1 s to 5 min.
    Transient,
    /// The account's calls of this minute are used up: retried when the cloud's limit allows it.
    Throttled,
    /// The target or the group does not exist: retried after 1 to 15 min.
    Absent,
    /// A limit, a lock or a missing right: retried after 5 to 30 min.
    Blocked,
    /// The spec can never work as it is: retried every hour.
    Invalid,
}
