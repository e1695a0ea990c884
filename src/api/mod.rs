//! The kinds that users write, the names they rely on, and nothing else: only types, no I/O, no decisions.

pub mod account;
pub mod membership;
pub mod reason;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
    ValidationRule,
};
use kube::CustomResourceExt as _;

pub use account::{
    CloudAccount, CloudAccountSpec, CloudAccountStatus, ClusterCloudAccount,
    ClusterCloudAccountSpec,
};
pub use membership::{
    SecurityGroupMembership, SecurityGroupMembershipSpec, SecurityGroupMembershipStatus,
};

/// API group of every kind.
pub const GROUP: &str = "security-group-operator.io";
/// Keeps a deleted membership until its edge is settled.
pub const FINALIZER: &str = "security-group-operator.io/membership";
/// The claim: who made the edge, `Joined` (this operator) or `Adopted` (it was there before). Written before the call.
pub const ORIGIN_ANNOTATION: &str = "security-group-operator.io/origin";
/// UID of the Alibaba Cloud account that the claim was made with.
pub const ACCOUNT_ANNOTATION: &str = "security-group-operator.io/account-uid";
/// Any new value asks for a pass now.
pub const RECONCILE_REQUESTED_ANNOTATION: &str =
    "security-group-operator.io/reconcile-requested-at";
/// Field manager of finalizer and claim.
pub const CLAIM_MANAGER: &str = "security-group-operator-claim";
/// Field manager of every status.
pub const STATUS_MANAGER: &str = "security-group-operator-status";

/// The CRDs as they are installed, in the order of `crds/`: file stem and definition.
#[must_use]
pub fn crds() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("cloudaccounts", finished(CloudAccount::crd())),
        ("clustercloudaccounts", finished(ClusterCloudAccount::crd())),
        (
            "securitygroupmemberships",
            finished(SecurityGroupMembership::crd()),
        ),
    ]
}

/// All CRDs as one YAML stream.
///
/// # Errors
/// A definition that YAML cannot express; none of ours.
pub fn crds_yaml() -> Result<String, serde_saphyr::ser::Error> {
    crds()
        .iter()
        .map(|(_, crd)| serde_saphyr::to_string(crd).map(|yaml| format!("---\n{yaml}")))
        .collect()
}

/// What kube's derive has no attribute for. A default for `status`, as Gateway API has it: a fresh object is `Ready=Unknown`
/// at no extra write, and neither kstatus nor `kubectl wait` takes it for a finished one. And no `null`: a nullable
/// field counts as set (`has(self.instanceID)`) when it is null; of any other, the API server drops the null.
fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let pending = serde_json::json!({
        "conditions": [{
            "type": reason::READY,
            "status": "Unknown",
            "reason": reason::PENDING,
            "message": "waiting for the operator",
            "lastTransitionTime": "1970-01-01T00:00:00Z",
        }]
    });
    for version in &mut crd.spec.versions {
        let Some(schema) = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        refuse_null(schema);
        explain_patterns(schema);
        if let Some(status) = schema
            .properties
            .as_mut()
            .and_then(|properties| properties.get_mut("status"))
        {
            status.default = Some(JSON(pending.clone()));
        }
    }
    crd
}

/// A pattern that does not match is refused with the pattern. Beside that, what to write, in words.
fn explain_patterns(schema: &mut JSONSchemaProps) {
    let pattern = schema.pattern.clone().unwrap_or_default();
    if let Some((_, rule, words)) = PATTERNS.iter().find(|(known, ..)| *known == pattern) {
        let rule = ValidationRule {
            rule: rule.map_or_else(|| format!("self.matches(r'{pattern}')"), str::to_owned),
            message: Some((*words).to_owned()),
            ..ValidationRule::default()
        };
        let rules = &mut schema.x_kubernetes_validations;
        rules.get_or_insert_default().insert(0, rule);
    }
    for_each_part(schema, explain_patterns);
}

/// What to write where these patterns stand, and in long lists a rule that costs the API server less than the pattern and
/// finds what people write by mistake. The syntax of labels is for the pattern alone: too dear, and known to whoever uses them.
const PATTERNS: &[(&str, Option<&str>, &str)] = &[
    (
        "^[a-z]{2}(-[a-z0-9]+)+$",
        None,
        "must be a region, such as cn-hangzhou",
    ),
    (
        "^i-[a-z0-9]+$",
        None,
        "must be the ID of an instance in lower case, such as i-bp1234567890abcdefgh",
    ),
    (
        "^eni-[a-z0-9]+$",
        None,
        "must be the ID of a network interface in lower case, such as eni-bp1234567890abcdefgh",
    ),
    (
        "^sg-[a-z0-9]+$",
        None,
        "must be the ID of a security group in lower case, such as sg-bp1234567890abcdefgh",
    ),
    (
        r"^(\*|sg-[a-zA-Z0-9]+)$",
        Some("self == '*' || (self.startsWith('sg-') && !self.contains('*'))"),
        "must be the ID of a security group, such as sg-bp1234567890abcdefgh, or * for all",
    ),
    (
        "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        None,
        "must be the name of an object: lower-case letters, digits, dashes and dots",
    ),
    (
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        Some("size(self) > 0 && !self.contains('*')"),
        "must be the name of a namespace; for all namespaces leave names out and write selector: {}",
    ),
    (
        "^https?://[a-zA-Z0-9]([a-zA-Z0-9.-]*[a-zA-Z0-9])?(:[0-9]{1,5})?$",
        None,
        "must be http:// or https://, a host and, if needed, a port, such as https://ecs-vpc.cn-beijing.aliyuncs.com",
    ),
];

fn refuse_null(schema: &mut JSONSchemaProps) {
    schema.nullable = None;
    for_each_part(schema, refuse_null);
}

/// The fields of an object, the values of a map, the items of a list.
fn for_each_part(schema: &mut JSONSchemaProps, change: fn(&mut JSONSchemaProps)) {
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
    {
        change(property);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        change(values);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        change(items);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pattern_has_a_message_in_words() {
        fn collect(schema: &mut JSONSchemaProps) {
            let rules = schema.x_kubernetes_validations.as_deref();
            let words = rules.unwrap_or_default().iter().any(|rule| {
                let words = rule.message.as_deref();
                words.is_some_and(|words| words.starts_with("must be "))
            });
            let pattern = schema.pattern.as_deref().unwrap_or_default();
            let is_of_labels = pattern.contains("[-A-Za-z0-9_.]");
            assert_eq!(words, !pattern.is_empty() && !is_of_labels, "{pattern}");
            for_each_part(schema, collect);
        }
        for (_, crd) in crds() {
            for version in crd.spec.versions {
                collect(&mut version.schema.unwrap().open_api_v3_schema.unwrap());
            }
        }
    }
}
