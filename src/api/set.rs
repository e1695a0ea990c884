//! `SecurityGroupMembershipSet`: a membership whose target is a selector. Only types. Every rule is in the schema.

#![expect(
    clippy::doc_markdown,
    reason = "`kubectl explain` shows these texts as they are"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::grant::LabelSelector;
use super::membership::{
    AccountRef, AdoptionPolicy, DeletionPolicy, DriftPolicy, KarpenterPolicy, ManagementPolicy,
};

/// Keeps every target of a selector a member of one security group.
///
/// The operator creates one SecurityGroupMembership for each target, and deletes it only on evidence that the target is not selected
/// any more. The region and the account are fixed. A new securityGroupID is joined before the old one is left.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[kube(
    group = "security-group-operator.io",
    version = "v1alpha1",
    kind = "SecurityGroupMembershipSet",
    plural = "securitygroupmembershipsets",
    shortname = "sgmset",
    category = "alibabacloud",
    category = "security-group-operator",
    namespaced,
    status = "SecurityGroupMembershipSetStatus",
    derive = "PartialEq",
    validation = Rule::new("self.metadata.name.size() <= 63").message("must have a metadata.name of at most 63 characters: it becomes a label of the memberships").reason(Reason::FieldValueInvalid),
    doc = "Keeps every target of a selector a member of one security group.",
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
    printcolumn(name = "Targets", type_ = "integer", json_path = ".status.targets"),
    printcolumn(
        name = "Members",
        type_ = "integer",
        json_path = ".status.readyTargets"
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
        name = "Stalled",
        type_ = "integer",
        json_path = ".status.stalledTargets",
        priority = 1
    ),
    printcolumn(
        name = "Skipped",
        type_ = "integer",
        json_path = ".status.skippedNodes",
        priority = 1
    ),
    printcolumn(
        name = "Objects",
        type_ = "integer",
        json_path = ".status.objects",
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
    validation = Rule::new("[has(self.nodeSelector), has(self.instanceTags), has(self.instanceIDs), has(self.networkInterfaceIDs)].filter(x, x).size() == 1")
        .message("must set exactly one of nodeSelector, instanceTags, instanceIDs and networkInterfaceIDs")
        .reason(Reason::FieldValueInvalid)
        .field_path(".nodeSelector"),
)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupMembershipSetSpec {
    /// region is the region of the targets and of the security group, for example cn-hangzhou (not a zone such as cn-hangzhou-b). It is immutable.
    #[schemars(regex(pattern = r"^[a-z]{2}(-[a-z0-9]+)+$"), length(max = 40))]
    #[x_kube(
        validation = Rule::new("!self.matches('(-[a-z]|[0-9][a-z])$')").message("must be a region, not a zone: cn-hangzhou instead of cn-hangzhou-b").reason(Reason::FieldValueInvalid),
        validation = Rule::new("self == oldSelf").message("is immutable; delete this set and create another one with the new region").reason(Reason::FieldValueForbidden)
    )]
    pub region: String,

    /// securityGroupID is the security group that every target joins, for example sg-bp1234567890abcdefgh. It may be changed: each target joins the new group before it leaves the old one.
    #[serde(rename = "securityGroupID")]
    #[schemars(regex(pattern = r"^sg-[a-z0-9]+$"), length(max = 64))]
    pub security_group_id: String,

    /// accountRef names the account that the operator calls the cloud with. Default: the ClusterCloudAccount named default. It is immutable.
    #[serde(default)]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is immutable; delete this set and create another one with the new accountRef").reason(Reason::FieldValueForbidden).field_path(".name"))]
    pub account_ref: AccountRef,

    /// nodeSelector selects Nodes of this cluster by their labels. Their ECS instances in the region are the targets. An empty selector selects every Node. Exactly one of nodeSelector, instanceTags, instanceIDs and networkInterfaceIDs must be set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,

    /// instanceTags selects the ECS instances of the region that have all of these tags, with these values, for example {team: web, env: prod}. The operator looks once per scan period. An instance whose tags do not match any more is removed from the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::grant::tags")]
    pub instance_tags: Option<BTreeMap<String, String>>,

    /// instanceIDs lists the ECS instances, for example i-bp1234567890abcdefgh. What is taken off the list is removed from the group at once.
    #[serde(
        rename = "instanceIDs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(
        length(min = 1, max = 1000),
        inner(regex(pattern = r"^i-[a-z0-9]+$"), length(max = 64))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub instance_ids: Option<Vec<String>>,

    /// networkInterfaceIDs lists secondary elastic network interfaces, for example eni-bp1234567890abcdefgh. What is taken off the list is removed from the group at once.
    #[serde(
        rename = "networkInterfaceIDs",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(
        length(min = 1, max = 1000),
        inner(regex(pattern = r"^eni-[a-z0-9]+$"), length(max = 64))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub network_interface_ids: Option<Vec<String>>,

    /// managementPolicy is that of every membership of the set. Manage (default): the operator joins, repairs and removes. Observe: it never writes to the cloud and reports what it would do.
    #[serde(default)]
    pub management_policy: ManagementPolicy,

    /// adoptionPolicy is that of every membership of the set: what to do with a target that was a member before. Adopt (default): take it over, and keep it a member when its membership is deleted. Refuse: leave it alone and report it.
    #[serde(default)]
    pub adoption_policy: AdoptionPolicy,

    /// deletionPolicy is that of every membership of the set: what happens when a target is not selected any more or the set is deleted. RemoveIfJoined (default): remove it only if the operator joined it. Remove: remove an adopted one as well. Retain: keep it.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,

    /// driftPolicy is that of every membership of the set: what to do when another actor removes a target from the group. Repair (default): join again. Report: only report it.
    #[serde(default)]
    pub drift_policy: DriftPolicy,

    /// karpenterPolicy is that of every membership of the set: what to do with an instance that Karpenter has launched and that is not a member yet. Refuse (default): do not join it, and report it. Join: join it; the security group must be in the ECSNodeClass.
    #[serde(default)]
    pub karpenter_policy: KarpenterPolicy,

    /// suspend stops the set while it is true: it creates, changes and deletes no membership. Its memberships go on. Default: false.
    #[serde(default)]
    pub suspend: bool,
}

/// What the operator last found and did for the set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecurityGroupMembershipSetStatus {
    /// observedGeneration is the generation of the spec that this status describes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// conditions are Ready, and where they apply Reconciling, Stalled and Suspended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]), length(max = 16))]
    pub conditions: Vec<Condition>,

    /// targets is the number of targets that the selector picks. While the operator cannot know that, this and the numbers of members, of stalled targets and of skipped Nodes stay as they were, and are not set after another spec.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<i64>,

    /// readyTargets is the number of these targets that are members of securityGroupID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_targets: Option<i64>,

    /// stalledTargets is the number of these targets for which somebody must act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled_targets: Option<i64>,

    /// skippedNodes is the number of Nodes that the selector picks and that are no ECS instance of the region: hybrid, virtual and Lingjun nodes, and those without a providerID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped_nodes: Option<i64>,

    /// objects is the number of memberships of this set, those of a previous group included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objects: Option<i64>,

    /// lastHandledReconcileAt is the value of the annotation security-group-operator.io/reconcile-requested-at that the operator last acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_handled_reconcile_at: Option<String>,
}
