//! `CloudAccount` and `ClusterCloudAccount`: credentials, endpoints and grants. Only types.

#![expect(
    clippy::duplicated_attributes,
    reason = "the printcolumn attribute of kube repeats its keys"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::{Reason, Rule};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use super::grant::{
    Grant, GrantedAction, GrantedNamespaces, GrantedSecurityGroups, GrantedTargets, LabelOperator,
    LabelRequirement, NamespaceSelector,
};

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

    /// endpoints are the base URLs of the APIs, for a VPC endpoint or a simulator. Default: the public endpoints of each region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,

    /// grants say which namespaces may use this account for which security groups. Without a grant no namespace may use it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".to_owned()]))]
    pub grants: Vec<Grant>,
}

/// Credentials of a `CloudAccount`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.secretRef) || has(self.oidc)")
        .message("must be set, unless oidc is")
        .reason(Reason::FieldValueRequired)
        .field_path(".secretRef"),
    validation = Rule::new("!(has(self.secretRef) && has(self.oidc))")
        .message("must not be set when secretRef is")
        .reason(Reason::FieldValueForbidden)
        .field_path(".oidc"),
)]
#[serde(rename_all = "camelCase")]
pub struct NamespacedCredentials {
    /// secretRef names the Secret that holds the access key. It is read in the namespace of this object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// oidc exchanges a token of a service account in the namespace of this object for a key of a RAM role (RRSA). No key is stored
    /// in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcCredentials>,

    /// assumeRole assumes a RAM role with the credentials above, and makes every call as that role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
}

/// Credentials of a `ClusterCloudAccount`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.secretRef) || has(self.oidc) || has(self.ecsRAMRole) || has(self.environment)")
        .message("must be set, unless oidc, ecsRAMRole or environment is")
        .reason(Reason::FieldValueRequired)
        .field_path(".secretRef"),
    validation = Rule::new("!(has(self.secretRef) && has(self.oidc))")
        .message("must not be set when secretRef is")
        .reason(Reason::FieldValueForbidden)
        .field_path(".oidc"),
    validation = Rule::new("!(has(self.ecsRAMRole) && (has(self.secretRef) || has(self.oidc)))")
        .message("must not be set when secretRef or oidc is")
        .reason(Reason::FieldValueForbidden)
        .field_path(".ecsRAMRole"),
    validation = Rule::new("!(has(self.environment) && (has(self.secretRef) || has(self.oidc) || has(self.ecsRAMRole)))")
        .message("must not be set when secretRef, oidc or ecsRAMRole is")
        .reason(Reason::FieldValueForbidden)
        .field_path(".environment"),
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterCredentials {
    /// secretRef names the Secret that holds the access key. It is read in the operator's namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// oidc exchanges a token of a service account in the operator's namespace for a key of a RAM role (RRSA). No key is stored in
    /// the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oidc: Option<OidcCredentials>,

    /// ecsRAMRole takes the key of the RAM role of the ECS instance that the operator runs on, from its metadata service.
    #[serde(
        default,
        rename = "ecsRAMRole",
        skip_serializing_if = "Option::is_none"
    )]
    pub ecs_ram_role: Option<EcsRamRole>,

    /// environment takes the credentials of the operator's own process, by the variables of the vendor's SDKs. The first of these that
    /// is set counts: `ALIBABA_CLOUD_ACCESS_KEY_ID`, `ALIBABA_CLOUD_ACCESS_KEY_SECRET` and, for a temporary key,
    /// `ALIBABA_CLOUD_SECURITY_TOKEN`; `ALIBABA_CLOUD_ROLE_ARN`, `ALIBABA_CLOUD_OIDC_PROVIDER_ARN` and
    /// `ALIBABA_CLOUD_OIDC_TOKEN_FILE` (RRSA); `ALIBABA_CLOUD_CREDENTIALS_URI`; the RAM role of the ECS instance. Write
    /// environment: {}.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentCredentials>,

    /// assumeRole assumes a RAM role with the credentials above, and makes every call as that role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assume_role: Option<AssumeRole>,
}

/// A RAM role for a service account (RRSA).
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct OidcCredentials {
    /// roleARN is the ARN of the role. Its trust policy must trust the OIDC provider and the service account.
    #[serde(rename = "roleARN")]
    #[schemars(
        length(max = 256),
        regex(pattern = r"^acs:ram::[0-9]{1,32}:role/[a-zA-Z0-9._-]{1,64}$")
    )]
    pub role_arn: String,
    /// oidcProviderARN is the ARN of the OIDC provider that stands for this cluster.
    #[serde(rename = "oidcProviderARN")]
    #[schemars(
        length(max = 256),
        regex(pattern = r"^acs:ram::[0-9]{1,32}:oidc-provider/[a-zA-Z0-9._-]{1,128}$")
    )]
    pub oidc_provider_arn: String,
    /// serviceAccountName names the service account. Its namespace cannot be chosen. The operator requests tokens for it, and a Role
    /// in its namespace must allow that.
    #[schemars(
        length(max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    #[x_kube(validation = Rule::new("self == oldSelf")
        .message("is immutable; create another account to use another service account")
        .reason(Reason::FieldValueInvalid))]
    pub service_account_name: String,
}

/// The RAM role of an ECS instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EcsRamRole {
    /// name of the role, as it is attached to the instance.
    #[schemars(length(max = 64), regex(pattern = r"^[a-zA-Z0-9._-]+$"))]
    pub name: String,
}

/// A RAM role to assume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AssumeRole {
    /// roleARN is the ARN of the role. Its trust policy must trust the user or the role that assumes it.
    #[serde(rename = "roleARN")]
    #[schemars(
        length(max = 256),
        regex(pattern = r"^acs:ram::[0-9]{1,32}:role/[a-zA-Z0-9._-]{1,64}$")
    )]
    pub role_arn: String,
    /// sessionName names the session in the cloud's audit log. Default: security-group-operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), regex(pattern = r"^[a-zA-Z0-9.@_-]{2,64}$"))]
    pub session_name: Option<String>,
    /// externalID is the external ID that the role's trust policy asks for.
    #[serde(
        default,
        rename = "externalID",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(length(max = 1224), regex(pattern = r"^[a-zA-Z0-9=,.@:/_-]{2,}$"))]
    pub external_id: Option<String>,
    /// durationSeconds is the length of a session in seconds. The operator begins a new one in time. The role's own longest session
    /// limits it.
    #[serde(default = "one_hour")]
    #[schemars(range(min = 900, max = 43_200))]
    pub duration_seconds: i32,
}

fn one_hour() -> i32 {
    3_600
}

/// The operator's own environment; has no settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentCredentials {}

/// A Secret by name; its namespace cannot be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// name of the Secret.
    #[schemars(
        length(max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
    /// keys name the entries of the Secret that hold the access key.
    #[serde(default)]
    pub keys: SecretKeys,
}

/// Which keys of a Secret hold the values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeys {
    /// accessKeyID is the key of the access key ID. Default: accessKeyID.
    #[serde(rename = "accessKeyID", default = "access_key_id")]
    #[schemars(length(max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub access_key_id: String,
    /// accessKeySecret is the key of the access key secret. Default: accessKeySecret.
    #[serde(default = "access_key_secret")]
    #[schemars(length(max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub access_key_secret: String,
    /// securityToken is the key of the STS token; only a temporary access key has one. Default: securityToken.
    #[serde(default = "security_token")]
    #[schemars(length(max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub security_token: String,
}

impl Default for SecretKeys {
    fn default() -> Self {
        Self {
            access_key_id: access_key_id(),
            access_key_secret: access_key_secret(),
            security_token: security_token(),
        }
    }
}

fn access_key_id() -> String {
    "accessKeyID".to_owned()
}

fn access_key_secret() -> String {
    "accessKeySecret".to_owned()
}

fn security_token() -> String {
    "securityToken".to_owned()
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
