//! A target between two states is waited for without a call, and joined or removed when it is between them no more.

use serde_json::json;

use crate::binaries;
use crate::support::env::{TestEnv, phase, ready};
use crate::support::error::Result;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-pending, status: Pending, securityGroupIds: [sg-base]}
- {id: i-starting, status: Starting, securityGroupIds: [sg-base]}
- {id: i-running, status: Running, securityGroupIds: [sg-base]}
- {id: i-stopping, status: Stopping, securityGroupIds: [sg-base]}
- {id: i-stopped, status: Stopped, securityGroupIds: [sg-base]}
- {id: i-late, status: Starting, securityGroupIds: [sg-base]}
networkInterfaces:
- {id: eni-attaching, status: Attaching, instanceId: i-running, securityGroupIds: [sg-base]}
- {id: eni-detaching, status: Detaching, securityGroupIds: [sg-base]}
- {id: eni-deleting, status: Deleting, securityGroupIds: [sg-base]}
- {id: eni-creating, status: Creating, securityGroupIds: [sg-base]}
- {id: eni-new, instanceId: i-pending, securityGroupIds: [sg-base]}
- {id: eni-free, status: Available, securityGroupIds: [sg-base]}
- {id: eni-used, status: InUse, instanceId: i-running, securityGroupIds: [sg-base]}
";

/// A state that ends by itself, a target that is in it, and the state that comes after it.
const TRANSITIONS: [(&str, &str, &str); 6] = [
    ("Pending", "i-pending", "Running"),
    ("Starting", "i-starting", "Running"),
    ("Stopping", "i-stopping", "Stopped"),
    ("Attaching", "eni-attaching", "InUse"),
    ("Detaching", "eni-detaching", "Available"),
    // An interface that goes does not come back; if it did, it would be joined.
    ("Deleting", "eni-deleting", "Available"),
];

#[tokio::test]
async fn stable_target_joins_at_once() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (target, state) in [
        ("i-running", "Running"),
        ("i-stopped", "Stopped"),
        ("eni-free", "Available"),
        ("eni-used", "InUse"),
    ] {
        env.apply(target, target, "sg-web", json!({})).await?;
        let object = env.until_reason(target, "Joined").await?;
        let described = object.status.unwrap().target.unwrap();
        assert_eq!(described.state, state);
        assert_eq!(described.vpc_id.as_deref(), Some("vpc-sim"));
        env.delete(target).await?;
        env.until_deleted(target).await?;
        assert!(!env.is_member(target, "sg-web").await?);
    }
    Ok(())
}

#[tokio::test]
async fn join_waits_while_the_target_is_transitional() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (state, target, after) in TRANSITIONS {
        env.simulator.reset_stats().await?;
        env.apply(target, target, "sg-web", json!({})).await?;
        let object = env.until_reason(target, "WaitingForTarget").await?;
        assert_eq!(phase(&object), "Reconciling");
        let message = &ready(&object).unwrap().message;
        assert!(
            message.contains(&format!("{target} is {state}")),
            "{message}"
        );
        assert_eq!(
            object
                .status
                .as_ref()
                .unwrap()
                .target
                .as_ref()
                .unwrap()
                .state,
            state
        );
        env.until_event(target, "WaitingForTarget").await?;
        env.reconcile_and_wait(target).await?;
        env.reconcile_and_wait(target).await?;
        assert_eq!(env.calls("JoinSecurityGroup").await?, 0);

        env.change_cloud(json!({"setStatus": {"id": target, "status": after}}))
            .await?;
        env.request_reconcile(target).await?;
        let object = env.until_reason(target, "Joined").await?;
        assert_eq!(phase(&object), "Settled");
        assert!(env.is_member(target, "sg-web").await?);
        assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
        env.until_event(target, "Joined").await?;
    }
    Ok(())
}

#[tokio::test]
async fn leave_waits_while_the_target_is_transitional() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (state, target, after) in TRANSITIONS {
        env.change_cloud(json!({"setStatus": {"id": target, "status": after}}))
            .await?;
        env.apply(target, target, "sg-web", json!({})).await?;
        env.until_reason(target, "Joined").await?;
        env.simulator.reset_stats().await?;
        env.change_cloud(json!({"setStatus": {"id": target, "status": state}}))
            .await?;
        env.delete(target).await?;
        let object = env.until_reason(target, "WaitingForTarget").await?;
        assert_eq!(phase(&object), "Reconciling");
        let message = &ready(&object).unwrap().message;
        assert!(
            message.contains("the operator removes it when it is "),
            "{message}"
        );
        env.reconcile_and_wait(target).await?;
        env.reconcile_and_wait(target).await?;
        assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
        assert!(env.is_member(target, "sg-web").await?);

        env.change_cloud(json!({"setStatus": {"id": target, "status": after}}))
            .await?;
        env.request_reconcile(target).await?;
        env.until_deleted(target).await?;
        assert!(!env.is_member(target, "sg-web").await?);
        assert_eq!(env.calls("LeaveSecurityGroup").await?, 1);
    }
    Ok(())
}

#[tokio::test]
async fn wait_ends_when_the_target_is_stable() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let for_a_second = async |status| {
        let change = json!({"setStatus": {"id": "i-late", "status": status, "for": "1s"}});
        env.change_cloud(change).await
    };
    env.apply("late", "i-late", "sg-web", json!({})).await?;
    env.until_reason("late", "WaitingForTarget").await?;
    for_a_second("Starting").await?;
    env.until_reason("late", "Joined").await?;
    assert_eq!(env.simulator.calls("JoinSecurityGroup", "OK").await?, 1);
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);

    env.change_cloud(json!({"setStatus": {"id": "i-late", "status": "Stopping"}}))
        .await?;
    env.delete("late").await?;
    env.until_reason("late", "WaitingForTarget").await?;
    for_a_second("Stopping").await?;
    env.until_deleted("late").await?;
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 1);
    Ok(())
}

/// What Describe cannot tell: the vendor names no state `Creating` of an interface, and an interface does not say that its
/// instance is being created. Only the answer of Join does, and it is waited for all the same.
#[tokio::test]
async fn being_created_error_of_join_is_waited_for() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for (name, target, settling) in [
        (
            "creating",
            "eni-creating",
            json!({"id": "eni-creating", "status": "Available"}),
        ),
        (
            "new",
            "eni-new",
            json!({"id": "i-pending", "status": "Running"}),
        ),
    ] {
        env.simulator.reset_stats().await?;
        env.apply(name, target, "sg-web", json!({})).await?;
        let object = env.until_reason(name, "WaitingForTarget").await?;
        assert_eq!(phase(&object), "Reconciling");
        let error = object.status.unwrap().last_error.unwrap();
        assert_eq!(
            error.code.as_deref(),
            Some("InvalidStatus.EniOrInstanceIsBeingCreated")
        );
        env.change_cloud(json!({"setStatus": settling})).await?;
        env.request_reconcile(name).await?;
        let object = env.until_reason(name, "Joined").await?;
        assert!(object.status.unwrap().last_error.is_none());
        assert!(env.is_member(target, "sg-web").await?);
    }
    Ok(())
}

#[tokio::test]
async fn object_of_a_transitional_target_can_be_deleted() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for target in ["i-pending", "eni-attaching"] {
        env.apply(target, target, "sg-web", json!({})).await?;
        env.until_reason(target, "WaitingForTarget").await?;
        // It was never joined, so there is no claim and nothing to leave.
        env.delete(target).await?;
        env.until_deleted(target).await?;
    }
    assert_eq!(env.calls("JoinSecurityGroup").await?, 0);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    Ok(())
}
