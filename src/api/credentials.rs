//! `spec.credentials` of the account kinds. Only types.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

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
