//! The kinds that users write, the names they rely on, and nothing else: only types, no I/O, no decisions.

pub mod account;
pub mod membership;
pub mod reason;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON,
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
pub const RECONCILE_REQUESTED_ANNOTATION: &str = "security-group-operator.io/reconcile-requested-at";
/// Field manager of finalizer and claim.
pub const CLAIM_MANAGER: &str = "security-group-operator-claim";
/// Field manager of every status.
pub const STATUS_MANAGER: &str = "security-group-operator-status";

/// The CRDs as they are installed, in the order of `crds/`: file stem and definition.
#[must_use]
pub fn crds() -> Vec<(&'static str, CustomResourceDefinition)> {
    vec![
        ("cloudaccounts", with_pending_status(CloudAccount::crd())),
        (
            "clustercloudaccounts",
            with_pending_status(ClusterCloudAccount::crd()),
        ),
        (
            "securitygroupmemberships",
            with_pending_status(SecurityGroupMembership::crd()),
        ),
    ]
}

/// Gives `status` a default, as Gateway API does: a fresh object is `Ready=Unknown` at no extra write, and
/// neither kstatus nor `kubectl wait` takes it for a finished one. kube's derive has no attribute for it.
fn with_pending_status(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
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
        let status = version
            .schema
            .as_mut()
            .and_then(|schema| schema.open_api_v3_schema.as_mut())
            .and_then(|schema| schema.properties.as_mut())
            .and_then(|properties| properties.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(pending.clone()));
        }
    }
    crd
}
