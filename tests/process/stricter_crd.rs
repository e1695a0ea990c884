//! A rule that a later version adds to a CRD keeps no older object from being changed, kept or deleted.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use security_group_operator::api::SecurityGroupMembership;
use serde_json::{Value, json};

use crate::binaries;
use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::operator::{Operator, Options};

const INVENTORY: &str = "
securityGroups: [{id: sg-base}, {id: sg-web}]
instances: [{id: i-web, securityGroupIds: [sg-base]}]
";

#[tokio::test]
async fn stricter_crd_rule_does_not_block_older_objects() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let options = Options {
        binary: binaries!().operator,
        ..Options::default()
    };
    let _operator = Operator::start(&plane, options).await?;
    let env = TestEnv::start_on(&plane, &binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;

    let crds: Api<CustomResourceDefinition> = Api::all(env.client.clone());
    let field =
        "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/securityGroupID";
    let stricter = json!([
        {"op": "add", "path": format!("{field}/pattern"), "value": "^sg-bp[a-z0-9]+$"},
        {"op": "replace", "path": format!("{field}/x-kubernetes-validations"), "value": [
            {"rule": "self.startsWith('sg-bp')", "message": "stricter"},
        ]},
    ]);
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(stricter)?);
    crds.patch(
        "securitygroupmemberships.security-group-operator.io",
        &PatchParams::default(),
        &patch,
    )
    .await?;
    let refused: SecurityGroupMembership = serde_json::from_value(json!({
        "metadata": {"name": "refused"},
        "spec": {"region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web"},
    }))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("the rule holds", async || {
        match env.memberships().create(&dry_run, &refused).await {
            Err(kube::Error::Api(status)) if status.code == 422 => Ok(true),
            answer => answer.map(|_| false).context("a dry run"),
        }
    })
    .await?;
    // A status, a policy, an annotation, a finalizer: none of them is what the rule is about.
    env.write_account(json!([])).await?;
    env.until_reason("web", "NotGranted").await?;
    let everything = json!([{"name": "all", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": ["*"]}}]);
    env.write_account(everything).await?;
    env.until_reason("web", "Joined").await?;
    let policy =
        json!({"spec": {"driftPolicy": "Report"}, "metadata": {"annotations": {"note": "x"}}});
    env.memberships()
        .patch("web", &PatchParams::default(), &Patch::Merge(&policy))
        .await?;
    env.until_ready("web").await?;
    env.delete("web").await?;
    env.until_deleted("web").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    Ok(())
}
