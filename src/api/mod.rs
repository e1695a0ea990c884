//! The kinds that users write, the names they rely on, and nothing else: only types, no I/O, no decisions.

pub mod account;
pub mod membership;
pub mod reason;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps,
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
/// `"true"` stops every action for the object, deletion included.
pub const PAUSED_ANNOTATION: &str = "security-group-operator.io/paused";
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
            "message": "not seen by the operator yet",
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

fn refuse_null(schema: &mut JSONSchemaProps) {
    use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaPropsOrArray;
    schema.nullable = None;
    for property in schema
        .properties
        .iter_mut()
        .flat_map(|properties| properties.values_mut())
    {
        refuse_null(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        refuse_null(items);
    }
}
