//! `CloudAccount` and `ClusterCloudAccount`: credentials, endpoints and grants. Only types.

#![expect(
    clippy::duplicated_attributes,
    reason = "the printcolumn attribute of kube repeats its keys"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::core::{Reason, Rule};
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

pub use super::credentials::{
    AssumeRole, ClusterCredentials, EcsRamRole, EnvironmentCredentials, NamespacedCredentials,
    OidcCredentials, SecretKeys, SecretRef,
};
pub use super::grant::{
    Grant, GrantedAction, GrantedNamespaces, GrantedSecurityGroups, GrantedTargets, LabelOperator,
    LabelRequirement, LabelSelector,
};
pub use super::limits::{CallLimits, LimitedApi};

/// An Alibaba Cloud account for the memberships of one namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "security-group-operator.io",
    version = "v1alpha1",
    kind = "CloudAccount",
    plural = "cloudaccounts",
    category = "alibabacloud",
    category = "security-group-operator",
    namespaced,
    status = "CloudAccountStatus",
    derive = "PartialEq",
    doc = "An Alibaba Cloud account for the memberships of its own namespace. It reads only Secrets of that namespace.",
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
        name = "Account-UID",
        type_ = "string",
        json_path = ".status.accountUID"
    ),
    printcolumn(
        name = "Memberships",
        type_ = "integer",
        json_path = ".status.memberships"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "ARN",
        type_ = "string",
        json_path = ".status.arn",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
pub struct CloudAccountSpec {
    /// credentials say how the operator authenticates.
    pub credentials: NamespacedCredentials,

    /// limits are the most calls per minute that the operator begins of an API, in each region, such as `JoinSecurityGroup: 600`. They are
    /// for the whole cloud account: where several accounts name it, the smallest number counts, and that of a `CloudAccount` only where none
    /// of them is a `ClusterCloudAccount`. The operator learns the limit of an API that is absent here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<CallLimits>,
}

/// An Alibaba Cloud account for the namespaces that its grants name.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "security-group-operator.io",
    version = "v1alpha1",
    kind = "ClusterCloudAccount",
    plural = "clustercloudaccounts",
    category = "alibabacloud",
    category = "security-group-operator",
    status = "CloudAccountStatus",
    derive = "PartialEq",
    doc = "An Alibaba Cloud account that namespaces may use as far as its grants say. It reads only Secrets of the operator's namespace.",
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
        name = "Account-UID",
        type_ = "string",
        json_path = ".status.accountUID"
    ),
    printcolumn(
        name = "Memberships",
        type_ = "integer",
        json_path = ".status.memberships"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "ARN",
        type_ = "string",
        json_path = ".status.arn",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].message"#,
        priority = 1
    )
)]
pub struct ClusterCloudAccountSpec {
    /// credentials say how the operator authenticates.
    pub credentials: ClusterCredentials,

    /// endpoints are the base URLs of the APIs, for a VPC endpoint or a simulator. Default: those of the operator (--ecs-endpoint, --sts-endpoint), or else the public ones of each region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,

    /// limits are the most calls per minute that the operator begins of an API, in each region, such as `JoinSecurityGroup: 600`. They are
    /// for the whole cloud account: where several accounts name it, the smallest number counts, and that of a `CloudAccount` only where none
    /// of them is a `ClusterCloudAccount`. The operator learns the limit of an API that is absent here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<CallLimits>,

    /// grants say which namespaces may use this account for which security groups. Without a grant no namespace may use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub grants: Vec<Grant>,
}

/// Base URLs of the APIs. The operator checks them again (`ecs::Endpoints`), because flags can name them, too.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = insecure("ecs"),
    validation = insecure("sts"),
)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// ecs is the base URL of ECS, such as `https://ecs-vpc.cn-beijing.aliyuncs.com`. The host may contain {region}
    /// once. The operator replaces it with the region of the call. Without it the URL is used for every region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new(format!("self.replace('{{region}}', 'r', 1).matches(r'{BASE_URL}')"))
        .message("must be https:// or http://, a host and, if needed, a port, without a slash at the end, such as https://ecs-vpc.cn-beijing.aliyuncs.com or https://ecs.{region}.example.com")
        .reason(Reason::FieldValueInvalid))]
    pub ecs: Option<String>,
    /// sts is the base URL of STS, such as `https://sts-vpc.cn-beijing.aliyuncs.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    #[x_kube(validation = Rule::new(format!("self.matches(r'{BASE_URL}')"))
        .message("must be https:// or http://, a host and, if needed, a port, without a slash at the end, such as https://sts-vpc.cn-beijing.aliyuncs.com")
        .reason(Reason::FieldValueInvalid))]
    pub sts: Option<String>,
    /// allowInsecure permits http:// to hosts other than the loopback interface. Anyone on the network path can then read
    /// and change the calls. The access key secret itself is never sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow_insecure: Option<bool>,
    /// caBundle holds the certificate authorities of a private cloud in PEM. Certificates of no others are taken then. Default: the
    /// authorities of the operator's image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65_536), regex(pattern = r"-----BEGIN CERTIFICATE-----"))]
    pub ca_bundle: Option<String>,
}

/// Scheme, host and perhaps a port.
const BASE_URL: &str =
    r"^https?://([a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?$";

/// The rule that http:// is allowed to the loopback interface only, unless the account sets `allowInsecure`.
fn insecure(field: &str) -> Rule {
    let loopback = r"^http://(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?$";
    Rule::new(format!(
        "!has(self.{field}) || !self.{field}.startsWith('http://') || (has(self.allowInsecure) && self.allowInsecure) || self.{field}.matches(r'{loopback}')"
    ))
    .message("must be https://, or set allowInsecure: true to send calls unencrypted to a host other than the loopback interface")
    .reason(Reason::FieldValueInvalid)
    .field_path(format!(".{field}"))
}

/// The state of an account as the operator observed it.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CloudAccountStatus {
    /// observedGeneration is the generation of the spec that this status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
    /// conditions are Ready, Reachable (after the first check that got an answer), and while they apply Reconciling, Stalled and `InUse`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".to_owned()]))]
    pub conditions: Vec<Condition>,
    /// accountUID is the UID of the Alibaba Cloud account, as STS `GetCallerIdentity` returned it.
    #[serde(
        rename = "accountUID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 64))]
    pub account_uid: Option<String>,
    /// arn of the RAM user or role that the calls are made as.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub arn: Option<String>,
    /// credentialExpiry is when the temporary key ends that was issued for this account. The operator asks for another one before that. It is absent for a key without an end, and for one that a Secret holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credential_expiry: Option<Time>,
    /// memberships is the number of memberships that name this account. It is written at most once a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub memberships: Option<i64>,
    /// lastHandledReconcileAt is the value of the annotation security-group-operator.io/reconcile-requested-at that the last
    /// check acted on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub last_handled_reconcile_at: Option<String>,
}
