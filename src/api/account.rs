//! `CloudAccount` and `ClusterCloudAccount`: who we are at the cloud, and who may use it. Only types.

#![expect(
    clippy::duplicated_attributes,
    reason = "the printcolumn attribute of kube repeats its keys"
)]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

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
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct CloudAccountSpec {
    /// How the operator proves who it is.
    pub credentials: NamespacedCredentials,
}

/// An Alibaba Cloud account that namespaces may use as far as its grants say.
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
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
pub struct ClusterCloudAccountSpec {
    /// How the operator proves who it is.
    pub credentials: ClusterCredentials,

    /// Where the APIs are, for a VPC endpoint or a simulator. Leave it out for the public endpoints of each region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,

    /// Which namespaces may use this account for which security groups. Without a grant nobody may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub grants: Vec<Grant>,
}

/// Credentials of a `CloudAccount`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.secretRef)").message("set secretRef"))]
#[serde(rename_all = "camelCase")]
pub struct NamespacedCredentials {
    /// Secret in the namespace of this object with the keys accessKeyID, accessKeySecret and, for a temporary key, securityToken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,
}

/// Credentials of a `ClusterCloudAccount`.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.secretRef) != has(self.environment)")
    .message("set exactly one of secretRef and environment"))]
#[serde(rename_all = "camelCase")]
pub struct ClusterCredentials {
    /// Secret in the operator's namespace with the keys accessKeyID, accessKeySecret and, for a temporary key, securityToken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretRef>,

    /// Credentials of the operator's own process: `ALIBABA_CLOUD_ACCESS_KEY_ID`, `ALIBABA_CLOUD_ACCESS_KEY_SECRET` and, for a
    /// temporary key, `ALIBABA_CLOUD_SECURITY_TOKEN`. Write `environment: {}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environment: Option<EnvironmentCredentials>,
}

/// The operator's own environment; has no settings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct EnvironmentCredentials {}

/// A Secret by name; its namespace cannot be chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(
        length(min = 1, max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
    )]
    pub name: String,
}

/// Base URLs of the APIs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Endpoints {
    /// ECS, for example `https://ecs-vpc.cn-beijing.aliyuncs.com`. Used for every region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(pattern = r"^https?://[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?$"),
        length(max = 255)
    )]
    pub ecs: Option<String>,
    /// STS, for example `https://sts-vpc.cn-beijing.aliyuncs.com`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        regex(pattern = r"^https?://[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?$"),
        length(max = 255)
    )]
    pub sts: Option<String>,
}

/// Lets some namespaces use some security groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Grant {
    /// Namespaces that the grant is for.
    pub namespaces: GrantedNamespaces,
    /// Security groups that they may use; `["*"]` for all.
    #[serde(rename = "securityGroupIDs")]
    #[schemars(
        length(min = 1, max = 1000),
        inner(regex(pattern = r"^(\*|sg-[a-zA-Z0-9]+)$"), length(max = 64))
    )]
    pub security_group_ids: Vec<String>,
}

/// Namespaces by name or by label.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("has(self.names) != has(self.selector)").message("set exactly one of names and selector"))]
pub struct GrantedNamespaces {
    /// Namespaces by name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 1000),
        inner(regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"), length(max = 63))
    )]
    pub names: Option<Vec<String>>,
    /// Namespaces by label. An empty selector means all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<NamespaceSelector>,
}

/// Selects namespaces that fulfil all of it, as every label selector of Kubernetes does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NamespaceSelector {
    /// Labels that a namespace must have, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
    /// What else the labels of a namespace must fulfil.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub match_expressions: Vec<LabelRequirement>,
}

/// What one label must fulfil.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)")
    .message("In and NotIn need values, Exists and DoesNotExist take none"))]
pub struct LabelRequirement {
    /// Name of the label.
    #[schemars(
        length(min = 1, max = 317),
        regex(
            pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
        )
    )]
    pub key: String,
    /// In: it has one of the values. `NotIn`: it has none of them, or is not there. Exists: it is there. `DoesNotExist`: it is not.
    pub operator: LabelOperator,
    /// Values for In and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = 64),
        inner(
            regex(pattern = r"^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$"),
            length(max = 63)
        )
    )]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LabelOperator {
    /// It has one of the values.
    In,
    /// It has none of the values, or is not there.
    NotIn,
    /// It is there.
    Exists,
    /// It is not there.
    DoesNotExist,
}

impl NamespaceSelector {
    /// Whether a namespace with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let equal = |(name, value)| labels.get(name) == Some(value);
        self.match_labels.iter().all(equal)
            && self.match_expressions.iter().all(|requirement| {
                let LabelRequirement {
                    key,
                    operator,
                    values,
                } = requirement;
                let value = labels.get(key);
                let among = value.is_some_and(|value| values.contains(value));
                match operator {
                    LabelOperator::In => among,
                    // Without values it is no requirement that anybody means: closed.
                    LabelOperator::NotIn => !among && !values.is_empty(),
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}

/// Values that a label can have, so that one that none can have is refused. A null is the empty value, as in the kinds of
/// Kubernetes itself: without the default the API server would drop the label, and a selector of no label is for everybody.
fn labels(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 64,
        "additionalProperties": {
            "type": "string",
            "default": "",
            "maxLength": 63,
            "pattern": "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$",
        },
    })
}

/// What the operator found out about an account.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CloudAccountStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, and where they apply Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// UID of the Alibaba Cloud account, as STS `GetCallerIdentity` tells it.
    #[serde(
        rename = "accountUID",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub account_uid: Option<String>,
    /// ARN of the user or role that the calls are made as.
    #[serde(
        rename = "identityARN",
        default,
        skip_serializing_if = "Option::is_none"
    )]
    pub identity_arn: Option<String>,
}
