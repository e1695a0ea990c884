//! Who may use a `ClusterCloudAccount`, and for which groups.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Lets some namespaces use some security groups.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// name of the grant, unique in this account.
    #[schemars(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
    /// namespaces that the grant is for.
    pub namespaces: GrantedNamespaces,
    /// securityGroups that these namespaces may use.
    pub security_groups: GrantedSecurityGroups,
    /// targets that they may use. Default: all that the account's key reaches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub targets: Option<GrantedTargets>,
    /// allow lists what these namespaces may do. Join: add a target to a group, and keep it there. Observe: see whether it is a member
    /// (managementPolicy Observe). `RemoveAdopted`: remove a membership that the operator did not join (deletionPolicy Remove).
    /// Default: Join and Observe.
    #[serde(default = "default_actions")]
    #[schemars(length(min = 1, max = 3))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allow: Vec<GrantedAction>,
}

fn default_actions() -> Vec<GrantedAction> {
    vec![GrantedAction::Join, GrantedAction::Observe]
}

/// What a grant allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum GrantedAction {
    /// Add a target to a group, keep it there, and remove it again.
    Join,
    /// See whether a target is a member.
    Observe,
    /// Remove a membership that the operator did not join.
    RemoveAdopted,
}

/// Instances and network interfaces by their tags at Alibaba Cloud.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct GrantedTargets {
    /// tags that the instance or network interface itself must have, all of them, with these values.
    #[schemars(schema_with = "tags")]
    pub tags: BTreeMap<String, String>,
}

/// Accepts only tags that a resource can have: up to 20, with keys of 1 to 128 and values of up to 128 characters.
pub(super) fn tags(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "minProperties": 1,
        "maxProperties": 20,
        "additionalProperties": {"type": "string", "maxLength": 128},
        "x-kubernetes-validations": [{
            "rule": "self.all(key, key.size() >= 1 && key.size() <= 128)",
            "message": "must have keys of 1 to 128 characters",
            "reason": "FieldValueInvalid",
        }],
    })
}

/// Security groups by ID or by their tags at Alibaba Cloud.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.ids) || has(self.tags)")
        .message("must be set, unless tags is")
        .reason(Reason::FieldValueRequired)
        .field_path(".ids"),
    validation = Rule::new("!(has(self.ids) && has(self.tags))")
        .message("must not be set when ids is")
        .reason(Reason::FieldValueForbidden)
        .field_path(".tags"),
)]
pub struct GrantedSecurityGroups {
    /// ids of the security groups; * stands for all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 512),
        inner(regex(pattern = r"^(\*|sg-[a-z0-9]+)$"), length(max = 64))
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub ids: Option<Vec<String>>,
    /// tags that a security group must have, all of them, with these values. The operator reads them once per scan period, for which its
    /// key needs the right to ecs:DescribeSecurityGroups.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "tags")]
    pub tags: Option<BTreeMap<String, String>>,
}

/// Namespaces by name or by label.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[x_kube(
    validation = Rule::new("has(self.names) || has(self.selector)")
        .message("must be set, unless selector is")
        .reason(Reason::FieldValueRequired)
        .field_path(".names"),
    validation = Rule::new("!(has(self.names) && has(self.selector))")
        .message("must not be set when names is")
        .reason(Reason::FieldValueForbidden)
        .field_path(".selector"),
)]
pub struct GrantedNamespaces {
    /// names of the namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 512),
        inner(
            regex(pattern = r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"),
            length(max = 63)
        )
    )]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub names: Option<Vec<String>>,
    /// selector of the namespaces by their labels. An empty selector selects all namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
}

/// Selects the objects that meet all requirements, as every label selector of Kubernetes does.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LabelSelector {
    /// matchLabels are labels that must be there, with these values.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub match_labels: BTreeMap<String, String>,
    /// matchExpressions are further requirements on the labels.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub match_expressions: Vec<LabelRequirement>,
}

/// A requirement on one label.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[x_kube(validation = Rule::new("(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)")
    .message("must not be empty for In and NotIn, and must be empty for Exists and DoesNotExist")
    .reason(Reason::FieldValueInvalid)
    .field_path(".values"))]
pub struct LabelRequirement {
    /// key of the label.
    #[schemars(
        length(max = 317),
        regex(
            pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"
        )
    )]
    pub key: String,
    /// operator compares the label. In: its value is one of the values. `NotIn`: its value is none of them, or there is no such
    /// label. Exists: there is such a label. `DoesNotExist`: there is no such label.
    pub operator: LabelOperator,
    /// values for In and `NotIn`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
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
    /// It has none of the values, or the label is absent.
    NotIn,
    /// The label is present.
    Exists,
    /// The label is absent.
    DoesNotExist,
}

impl LabelSelector {
    /// Whether an object with these labels is selected.
    #[must_use]
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.matches_with(|key| labels.get(key).map(String::as_str))
    }

    /// Whether an object is selected; `label` looks up the value of one of its labels.
    #[must_use]
    pub fn matches_with<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        let equal = |(key, value): (&String, &String)| label(key) == Some(value.as_str());
        self.match_labels.iter().all(equal)
            && self.match_expressions.iter().all(|requirement| {
                let LabelRequirement {
                    key,
                    operator,
                    values,
                } = requirement;
                let value = label(key);
                let among = value.is_some_and(|value| values.iter().any(|wanted| wanted == value));
                match operator {
                    LabelOperator::In => among,
                    // Without values it would select everything: select nothing instead.
                    LabelOperator::NotIn => !among && !values.is_empty(),
                    LabelOperator::Exists => value.is_some(),
                    LabelOperator::DoesNotExist => value.is_none(),
                }
            })
    }
}

/// Accepts only values that a label can have. A null becomes the empty value, as in the kinds of Kubernetes itself: without the
/// default the API server would drop the label, and a selector without labels selects all namespaces.
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
