//! A membership is made, kept and taken away as its spec says, on a real API server against a cloud that checks everything.

mod support;

use kube::api::PostParams;
use serde_json::json;
use support::error::Result;
use support::stage::{Stage, ready};

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-before, securityGroupIds: [sg-base, sg-web]}
networkInterfaces:
- {id: eni-web, instanceId: i-web, securityGroupIds: [sg-base]}
";

#[tokio::test]
async fn an_instance_joins_and_leaves_with_its_object() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    stage.apply("web", "i-web", "sg-web", json!({})).await?;
    let object = stage.until_ready("web").await?;
    assert_eq!(ready(&object).unwrap().reason, "Joined");
    assert!(stage.is_member("i-web", "sg-web").await?);
    stage.delete("web").await?;
    stage.until_gone("web").await?;
    assert!(!stage.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn a_network_interface_joins_and_leaves_with_its_object() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    stage.apply("web", "eni-web", "sg-web", json!({})).await?;
    stage.until_ready("web").await?;
    assert!(stage.is_member("eni-web", "sg-web").await?);
    stage.delete("web").await?;
    stage.until_gone("web").await?;
    assert!(!stage.is_member("eni-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn an_adopted_edge_is_never_left_by_default() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    stage
        .apply("before", "i-before", "sg-web", json!({}))
        .await?;
    let object = stage.until_ready("before").await?;
    assert_eq!(ready(&object).unwrap().reason, "Adopted");
    stage.delete("before").await?;
    stage.until_gone("before").await?;
    assert!(stage.is_member("i-before", "sg-web").await?);
    assert_eq!(stage.calls("LeaveSecurityGroup").await?, 0);
    Ok(())
}

#[tokio::test]
async fn an_object_restored_with_its_finalizer_can_still_be_deleted() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    // As `kubectl get -o yaml` and a backup tool write it back: somebody else owns the finalizer and the claim.
    let restored = serde_json::from_value(json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
        "metadata": {
            "name": "web",
            "finalizers": ["security-group-operator.io/membership"],
            "annotations": {"security-group-operator.io/origin": "Joined"},
        },
        "spec": {
            "region": "cn-hangzhou", "instanceID": "i-before", "securityGroupID": "sg-web",
            "accountRef": {"kind": "ClusterCloudAccount", "name": stage.name},
        },
    }))?;
    stage
        .memberships()
        .create(&PostParams::default(), &restored)
        .await?;
    let object = stage.until_ready("web").await?;
    assert_eq!(ready(&object).unwrap().reason, "Joined");
    stage.delete("web").await?;
    stage.until_gone("web").await?;
    assert!(!stage.is_member("i-before", "sg-web").await?);
    Ok(())
}
