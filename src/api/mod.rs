//! The kinds that users write and the names that they rely on. Only types: no I/O, no decisions.

pub mod account;
pub mod credentials;
pub mod grant;
pub mod limits;
pub mod membership;
pub mod policy;
pub mod reason;
pub mod set;

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
pub use set::{
    SecurityGroupMembershipSet, SecurityGroupMembershipSetSpec, SecurityGroupMembershipSetStatus,
};

/// API group of every kind.
pub const GROUP: &str = "security-group-operator.io";
/// Keeps a deleted object until its membership is removed, retained or handed over.
pub const FINALIZER: &str = "security-group-operator.io/membership";
/// Finalizer on an account while a membership needs it to be removed.
pub const ACCOUNT_FINALIZER: &str = "security-group-operator.io/account-in-use";
/// The intent to join, in JSON: from now on a Join of the operator may have an effect that `status.origin` does not tell of.
/// Written before the first call, together with the finalizer.
pub const INTENT_ANNOTATION: &str = "security-group-operator.io/intent";
/// Any new value requests a pass now.
pub const RECONCILE_REQUESTED_ANNOTATION: &str =
    "security-group-operator.io/reconcile-requested-at";
/// The annotations that the operator reads. All others are dropped while an object is parsed.
pub const ANNOTATIONS: [&str; 2] = [INTENT_ANNOTATION, RECONCILE_REQUESTED_ANNOTATION];
/// Field manager of finalizer and intent.
pub const CLAIM_MANAGER: &str = "security-group-operator-claim";
/// Field manager of what a set keeps so on its memberships.
pub const SET_MANAGER: &str = "security-group-operator-set";
/// Label of the memberships of a set, with its name: for people. The set itself goes by the owner reference.
pub const SET_LABEL: &str = "security-group-operator.io/set";
/// Field manager of every status.
pub const STATUS_MANAGER: &str = "security-group-operator-status";
/// Condition of the Nodes that sets select, with `--node-conditions`.
pub const NODE_CONDITION: &str = "security-group-operator.io/SecurityGroupsJoined";
/// Field manager of [`NODE_CONDITION`].
pub const NODE_MANAGER: &str = "security-group-operator-node";
/// Field manager of the finalizer on accounts.
pub const ACCOUNT_MANAGER: &str = "security-group-operator-account";

/// How the CRDs of this version are installed.
pub const INSTALL_CRDS: &str = "security-group-operator crds | kubectl apply --server-side -f -";

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
        (
            "securitygroupmembershipsets",
            finished(SecurityGroupMembershipSet::crd()),
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

/// Adds what kube's derive has no attribute for. A default for `status`, as in Gateway API: a fresh object is `Ready=Unknown`
/// without an extra write, and neither kstatus nor `kubectl wait` takes it for a finished one. And no nullable fields: a
/// nullable field that is null counts as set (`has(self.instanceID)`). The API server drops the null of any other field.
fn finished(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    let name = "security-group-operator".to_owned();
    let labels = crd.metadata.labels.get_or_insert_default();
    labels.insert("app.kubernetes.io/name".to_owned(), name.clone());
    labels.insert("app.kubernetes.io/part-of".to_owned(), name);
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
        schema.title = None;
        refuse_null(schema);
        patterns_to_rules(schema);
        plain_descriptions(schema);
        if let Some(status) = schema
            .properties
            .as_mut()
            .and_then(|properties| properties.get_mut("status"))
        {
            status.default = Some(JSON(pending.clone()));
            limit_conditions(status);
        }
    }
    crd
}

/// Replaces each known pattern by a rule whose message says what to write: the message for a pattern is the pattern itself. The
/// API server reports a rule on a string with the path of the string.
fn patterns_to_rules(schema: &mut JSONSchemaProps) {
    if let Some((pattern, message)) = PATTERNS
        .iter()
        .find(|(pattern, _)| schema.pattern.as_deref() == Some(*pattern))
    {
        schema.pattern = None;
        let rule = ValidationRule {
            rule: format!("self.matches(r'{pattern}')"),
            message: Some((*message).to_owned()),
            reason: Some("FieldValueInvalid".to_owned()),
            ..ValidationRule::default()
        };
        let rules = &mut schema.x_kubernetes_validations;
        rules.get_or_insert_default().insert(0, rule);
    }
    for_each_part(schema, patterns_to_rules);
}

/// The messages for these patterns. The syntax of labels stays a pattern: as a rule it costs the API server too much.
const PATTERNS: &[(&str, &str)] = &[
    (
        "^[a-z]{2}(-[a-z0-9]+)+$",
        "must be a region, such as cn-hangzhou",
    ),
    (
        "^i-[a-z0-9]+$",
        "must be the ID of an instance in lower case, such as i-bp1234567890abcdefgh",
    ),
    (
        "^eni-[a-z0-9]+$",
        "must be the ID of a network interface in lower case, such as eni-bp1234567890abcdefgh",
    ),
    (
        "^sg-[a-z0-9]+$",
        "must be the ID of a security group in lower case, such as sg-bp1234567890abcdefgh",
    ),
    (
        r"^(\*|sg-[a-z0-9]+)$",
        "must be the ID of a security group in lower case, such as sg-bp1234567890abcdefgh, or * for all",
    ),
    (
        "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$",
        "must be the name of an object: lower-case letters, digits, dashes and dots",
    ),
    (
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "must be a DNS label: lower-case letters, digits and dashes",
    ),
    (
        "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        "must be the name of a namespace; for all namespaces leave names out and write selector: {}",
    ),
    (
        r"^acs:ram::[0-9]{1,32}:role/[a-zA-Z0-9._-]{1,64}$",
        "must be the ARN of a RAM role, such as acs:ram::1234567890123456:role/security-groups",
    ),
    (
        r"^acs:ram::[0-9]{1,32}:oidc-provider/[a-zA-Z0-9._-]{1,128}$",
        "must be the ARN of an OIDC provider, such as acs:ram::1234567890123456:oidc-provider/ack-rrsa-c1example",
    ),
    (
        "^[a-zA-Z0-9._-]+$",
        "must be the name of a RAM role: letters, digits, dots, underscores and dashes",
    ),
    (
        "^[a-zA-Z0-9.@_-]{2,64}$",
        "must be 2 to 64 letters, digits and the characters . @ _ -",
    ),
    (
        "^[a-zA-Z0-9=,.@:/_-]{2,}$",
        "must be 2 to 1224 letters, digits and the characters = , . @ : / _ -",
    ),
    (
        "-----BEGIN CERTIFICATE-----",
        "must hold certificates in PEM, each between -----BEGIN CERTIFICATE----- and -----END CERTIFICATE-----",
    ),
    (
        "^[-._a-zA-Z0-9]+$",
        "must be a key of a Secret: letters, digits, dashes, underscores and dots",
    ),
];

/// Descriptions as `kubectl explain` shows them: no marks of rustdoc, no line breaks.
fn plain_descriptions(schema: &mut JSONSchemaProps) {
    if let Some(description) = &mut schema.description {
        let text = description.replace('`', "");
        *description = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    for_each_part(schema, plain_descriptions);
}

/// The limits that `metav1.Condition` has in Go, which k8s-openapi does not know.
fn limit_conditions(status: &mut JSONSchemaProps) {
    let conditions = status
        .properties
        .as_mut()
        .and_then(|properties| properties.get_mut("conditions"));
    let Some(Some(JSONSchemaPropsOrArray::Schema(condition))) =
        conditions.map(|conditions| &mut conditions.items)
    else {
        return;
    };
    for (name, field) in condition
        .properties
        .iter_mut()
        .flat_map(|fields| fields.iter_mut())
    {
        match name.as_str() {
            "type" => {
                field.max_length = Some(316);
                field.pattern = Some(CONDITION_TYPE.to_owned());
            }
            "status" => {
                let values = ["True", "False", "Unknown"];
                field.enum_ = Some(values.map(|value| JSON(value.into())).to_vec());
            }
            "reason" => {
                field.min_length = Some(1);
                field.max_length = Some(1024);
                field.pattern = Some("^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$".to_owned());
            }
            "message" => field.max_length = Some(32_768),
            "observedGeneration" => field.minimum = Some(0.0),
            _ => {}
        }
    }
}

const CONDITION_TYPE: &str = r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*/)?(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])$";

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

    /// Calls `check` with the path and schema of every part of every kind.
    fn walk(check: &mut dyn FnMut(&str, &JSONSchemaProps)) {
        fn visit(
            path: &str,
            schema: &JSONSchemaProps,
            check: &mut dyn FnMut(&str, &JSONSchemaProps),
        ) {
            check(path, schema);
            for (name, property) in schema.properties.iter().flatten() {
                visit(&format!("{path}.{name}"), property, check);
            }
            if let Some(JSONSchemaPropsOrBool::Schema(values)) = &schema.additional_properties {
                visit(&format!("{path}.*"), values, check);
            }
            if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
                visit(&format!("{path}[]"), items, check);
            }
        }
        for (plural, crd) in crds() {
            for version in crd.spec.versions {
                let schema = version.schema.unwrap().open_api_v3_schema.unwrap();
                visit(plural, &schema, check);
            }
        }
    }

    #[test]
    fn rules_say_what_must_be_and_why_they_refuse() {
        walk(&mut |path, schema| {
            for rule in schema.x_kubernetes_validations.iter().flatten() {
                let message = rule.message.as_deref().unwrap_or_default();
                assert!(
                    message.starts_with("must ") || message.starts_with("is immutable; "),
                    "{path}: {message}"
                );
                assert!(rule.reason.is_some(), "{path}: {message}");
                // A rule of the whole object speaks of its metadata, which the API server takes as no path.
                let is_whole = !path.contains('.');
                // Of a map the API server names the map, and its keys are no paths.
                let of_an_object = schema.properties.is_some() && !is_whole;
                assert_eq!(rule.field_path.is_some(), of_an_object, "{path}: {message}");
                // A pattern beside the rule would repeat it.
                assert_eq!(schema.pattern, None, "{path}");
            }
        });
    }

    #[test]
    fn strings_and_lists_have_limits() {
        walk(&mut |path, schema| match schema.type_.as_deref() {
            Some("string") => assert!(
                schema.max_length.is_some()
                    || schema.enum_.is_some()
                    || schema.format.as_deref() == Some("date-time"),
                "{path}"
            ),
            Some("array") => assert!(
                schema.max_items.is_some() && schema.x_kubernetes_list_type.is_some(),
                "{path}"
            ),
            _ => {}
        });
    }

    #[test]
    fn descriptions_start_with_the_fields_name() {
        walk(&mut |path, schema| {
            let description = schema.description.as_deref().unwrap_or_default();
            assert!(!description.contains(['`', '\n']), "{path}: {description}");
            let name = path.rsplit('.').next().unwrap_or_default();
            let is_field = path.contains('.') && !path.ends_with([']', '*']);
            if is_field && !matches!(name, "spec" | "status") {
                assert_eq!(description.split(' ').next(), Some(name), "{path}");
            }
        });
    }
}
