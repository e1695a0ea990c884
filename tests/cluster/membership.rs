//! A membership is made, kept and taken away, on a real API server against a cloud that checks everything, at the price that
//! was promised.

use kube::ResourceExt as _;
use kube::api::{Patch, PatchParams, PostParams};
use security_group_operator::api::FINALIZER;
use serde_json::json;

use crate::binaries;
use crate::support::env::{TestEnv, claim, phase, ready};
use crate::support::error::Result;
use crate::support::eventually::eventually;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-before, securityGroupIds: [sg-base, sg-web]}
networkInterfaces:
- {id: eni-web, instanceId: i-web, securityGroupIds: [sg-base]}
- {id: eni-before, instanceId: i-web, securityGroupIds: [sg-base, sg-web]}
";

#[tokio::test]
async fn target_joins_and_leaves_with_its_object() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for target in ["i-web", "eni-web"] {
        env.apply("web", target, "sg-web", json!({})).await?;
        let object = env.until_ready("web").await?;
        assert_eq!(ready(&object).unwrap().reason, "Joined");
        assert_eq!(claim(&object).as_deref(), Some("Joined"));
        assert!(env.is_member(target, "sg-web").await?);
        env.delete("web").await?;
        env.until_deleted("web").await?;
        assert!(!env.is_member(target, "sg-web").await?);
        assert!(env.is_member(target, "sg-base").await?);
    }
    Ok(())
}

#[tokio::test]
async fn adopted_edge_is_kept_by_default() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for target in ["i-before", "eni-before"] {
        env.apply("before", target, "sg-web", json!({})).await?;
        let object = env.until_ready("before").await?;
        assert_eq!(ready(&object).unwrap().reason, "Adopted");
        assert_eq!(claim(&object).as_deref(), Some("Adopted"));
        env.delete("before").await?;
        env.until_deleted("before").await?;
        assert!(env.is_member(target, "sg-web").await?);
    }
    assert_eq!(env.calls("JoinSecurityGroup").await?, 0);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    Ok(())
}

#[tokio::test]
async fn restored_or_copied_object_owns_nothing_and_can_be_deleted() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    let original = env.until_ready("web").await?;
    assert_eq!(ready(&original).unwrap().reason, "Joined");
    // As `kubectl get -o yaml` and a backup tool write it back: somebody else owns the finalizer and the intent, and the status of
    // the original is restored.
    let mut restored = original.clone();
    restored.metadata = serde_json::from_value(json!({
        "name": "copy",
        "finalizers": original.metadata.finalizers,
        "annotations": original.metadata.annotations,
    }))?;
    restored.spec.instance_id = Some("i-before".to_owned());
    let api = env.memberships();
    api.create(&PostParams::default(), &restored).await?;
    let status = json!({"status": original.status});
    let params = PatchParams::default();
    api.patch_status("copy", &params, &Patch::Merge(status))
        .await?;
    let object = env.until_reason("copy", "Adopted").await?;
    assert_eq!(claim(&object).as_deref(), Some("Adopted"));
    env.delete("copy").await?;
    env.until_deleted("copy").await?;
    assert!(env.is_member("i-before", "sg-web").await?);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    // What the operator joined goes, also after `kubectl replace` of the first manifest.
    let mut replaced = original;
    replaced.metadata.finalizers = None;
    replaced.metadata.annotations = None;
    replaced.metadata.managed_fields = None;
    replaced.metadata.resource_version = api.get("web").await?.metadata.resource_version;
    api.replace("web", &PostParams::default(), &replaced)
        .await?;
    eventually("the finalizer is there again", async || {
        let object = api.get("web").await?;
        Ok(object.finalizers().iter().any(|name| name == FINALIZER))
    })
    .await?;
    env.delete("web").await?;
    env.until_deleted("web").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn new_edge_costs_two_calls_and_two_writes() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    // An account that becomes usable wakes its objects once more.
    env.until_account_ready().await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_ready("web").await?;
    // Written last, so that whatever else a new edge writes has been written.
    env.until_event("web", "Joined").await?;
    eventually("the event is in the audit log", async || {
        Ok(env.operator_writes().await?.len() >= 3)
    })
    .await?;
    assert_eq!(
        env.operator_writes().await?,
        [
            "patch securitygroupmemberships",
            "patch securitygroupmemberships/status",
            "create events",
        ]
    );
    assert_eq!(env.events("web").await?, ["Joined"]);
    env.assert_reads(env.calls("DescribeInstances").await?, 1);
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
    Ok(())
}

#[tokio::test]
async fn reconcile_of_a_ready_edge_writes_only_the_handled_request() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (name, target) in [("joined", "i-web"), ("adopted", "eni-before")] {
        env.apply(name, target, "sg-web", json!({})).await?;
        env.until_ready(name).await?;
        // A pass has ended when the next one reads.
        env.reconcile_and_wait(name).await?;
        env.reconcile_and_wait(name).await?;
        env.reconcile_and_wait(name).await?;
    }
    // For each object two writes and an event, and one write per request, which records that it was handled.
    let expected = 2 * (2 + 1 + 3);
    eventually("all writes are in the audit log", async || {
        Ok(env.operator_writes().await?.len() >= expected)
    })
    .await?;
    let writes = env.operator_writes().await?;
    assert_eq!(writes.len(), expected, "{writes:?}");
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
    Ok(())
}

#[tokio::test]
async fn released_target_is_reported_and_allows_deletion() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (target, field) in [
        ("i-before", "instanceID"),
        ("eni-web", "networkInterfaceID"),
    ] {
        // One object saw its target go, the other is deleted without having seen it.
        env.apply("saw", target, "sg-web", json!({"deletionPolicy": "Remove"}))
            .await?;
        env.until_ready("saw").await?;
        env.change_cloud(json!({"delete": {"id": target}})).await?;
        env.request_reconcile("saw").await?;
        let object = env.until_reason("saw", "TargetNotFound").await?;
        assert_eq!(phase(&object), "Stalled");
        assert!(ready(&object).unwrap().message.contains(field));
        env.delete("saw").await?;
        env.until_deleted("saw").await?;
    }
    Ok(())
}

#[tokio::test]
async fn target_released_unseen_does_not_block_deletion() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for target in ["i-web", "eni-web"] {
        env.apply("web", target, "sg-web", json!({})).await?;
        env.until_ready("web").await?;
        env.change_cloud(json!({"delete": {"id": target}})).await?;
        env.delete("web").await?;
        env.until_deleted("web").await?;
    }
    Ok(())
}

#[tokio::test]
async fn deleted_group_does_not_block_deletion() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env
        .change_cloud(json!({"createInterface": {"id": "eni-other", "account": env.account, "securityGroupIds": ["sg-base"]}}))
        .await?;
    for target in ["i-web", "eni-other"] {
        env.apply(target, target, "sg-web", json!({})).await?;
        env.until_ready(target).await?;
    }
    env.change_cloud(json!({"delete": {"id": "sg-web"}}))
        .await?;
    for target in ["i-web", "eni-other"] {
        env.delete(target).await?;
        env.until_deleted(target).await?;
        assert!(env.is_member(target, "sg-base").await?);
    }
    Ok(())
}
