//! A target between two states is waited for without a call, and joined or left when it has settled.

mod support;

use serde_json::json;
use support::ask::phase;
use support::error::Result;
use support::stage::{Stage, ready};

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
async fn a_settled_target_joins_at_once() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for (target, state) in [
        ("i-running", "Running"),
        ("i-stopped", "Stopped"),
        ("eni-free", "Available"),
        ("eni-used", "InUse"),
    ] {
        stage.apply(target, target, "sg-web", json!({})).await?;
        let object = stage.until_reason(target, "Joined").await?;
        let described = object.status.unwrap().target.unwrap();
        assert_eq!(described.state, state);
        assert_eq!(described.vpc_id.as_deref(), Some("vpc-sim"));
        stage.delete(target).await?;
        stage.until_gone(target).await?;
        assert!(!stage.is_member(target, "sg-web").await?);
    }
    Ok(())
}

#[tokio::test]
async fn join_waits_without_a_call_while_the_target_is_between_states() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for (state, target, after) in TRANSITIONS {
        stage.simulator.reset_stats().await?;
        stage.apply(target, target, "sg-web", json!({})).await?;
        let object = stage.until_reason(target, "WaitingForTarget").await?;
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
        stage.until_event(target, "Waiting").await?;
        stage.look_and_wait(target).await?;
        stage.look_and_wait(target).await?;
        assert_eq!(stage.calls("JoinSecurityGroup").await?, 0);

        stage
            .behind(json!({"setStatus": {"id": target, "status": after}}))
            .await?;
        stage.look_again(target).await?;
        let object = stage.until_reason(target, "Joined").await?;
        assert_eq!(phase(&object), "Settled");
        assert!(stage.is_member(target, "sg-web").await?);
        assert_eq!(stage.calls("JoinSecurityGroup").await?, 1);
        stage.until_event(target, "Joined").await?;
    }
    Ok(())
}

#[tokio::test]
async fn leave_waits_without_a_call_while_the_target_is_between_states() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for (state, target, after) in TRANSITIONS {
        stage
            .behind(json!({"setStatus": {"id": target, "status": after}}))
            .await?;
        stage.apply(target, target, "sg-web", json!({})).await?;
        stage.until_reason(target, "Joined").await?;
        stage.simulator.reset_stats().await?;
        stage
            .behind(json!({"setStatus": {"id": target, "status": state}}))
            .await?;
        stage.delete(target).await?;
        let object = stage.until_reason(target, "WaitingForTarget").await?;
        assert_eq!(phase(&object), "Reconciling");
        let message = &ready(&object).unwrap().message;
        assert!(message.contains("is left when it has settled"), "{message}");
        stage.look_and_wait(target).await?;
        stage.look_and_wait(target).await?;
        assert_eq!(stage.calls("LeaveSecurityGroup").await?, 0);
        assert!(stage.is_member(target, "sg-web").await?);

        stage
            .behind(json!({"setStatus": {"id": target, "status": after}}))
            .await?;
        stage.look_again(target).await?;
        stage.until_gone(target).await?;
        assert!(!stage.is_member(target, "sg-web").await?);
        assert_eq!(stage.calls("LeaveSecurityGroup").await?, 1);
    }
    Ok(())
}

#[tokio::test]
async fn a_wait_ends_by_itself() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let for_a_second = async |status| {
        let change = json!({"setStatus": {"id": "i-late", "status": status, "for": "1s"}});
        stage.behind(change).await
    };
    stage.apply("late", "i-late", "sg-web", json!({})).await?;
    stage.until_reason("late", "WaitingForTarget").await?;
    for_a_second("Starting").await?;
    stage.until_reason("late", "Joined").await?;
    assert_eq!(stage.simulator.calls("JoinSecurityGroup", "OK").await?, 1);
    assert_eq!(stage.calls("JoinSecurityGroup").await?, 1);

    stage
        .behind(json!({"setStatus": {"id": "i-late", "status": "Stopping"}}))
        .await?;
    stage.delete("late").await?;
    stage.until_reason("late", "WaitingForTarget").await?;
    for_a_second("Stopping").await?;
    stage.until_gone("late").await?;
    assert_eq!(stage.calls("LeaveSecurityGroup").await?, 1);
    Ok(())
}

/// What Describe cannot tell: the vendor names no state `Creating` of an interface, and an interface does not say that its
/// instance is being created. Only the answer of Join does, and it is waited for all the same.
#[tokio::test]
async fn what_only_join_knows_to_be_created_is_waited_for_too() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
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
        stage.simulator.reset_stats().await?;
        stage.apply(name, target, "sg-web", json!({})).await?;
        let object = stage.until_reason(name, "WaitingForTarget").await?;
        assert_eq!(phase(&object), "Reconciling");
        let error = object.status.unwrap().last_error.unwrap();
        assert_eq!(
            error.code.as_deref(),
            Some("InvalidStatus.EniOrInstanceIsBeingCreated")
        );
        stage.behind(json!({"setStatus": settling})).await?;
        stage.look_again(name).await?;
        let object = stage.until_reason(name, "Joined").await?;
        assert!(object.status.unwrap().last_error.is_none());
        assert!(stage.is_member(target, "sg-web").await?);
    }
    Ok(())
}

#[tokio::test]
async fn an_object_whose_target_never_settles_can_still_be_deleted() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for target in ["i-pending", "eni-attaching"] {
        stage.apply(target, target, "sg-web", json!({})).await?;
        stage.until_reason(target, "WaitingForTarget").await?;
        // It was never joined, so there is no claim and nothing to leave.
        stage.delete(target).await?;
        stage.until_gone(target).await?;
    }
    assert_eq!(stage.calls("JoinSecurityGroup").await?, 0);
    assert_eq!(stage.calls("LeaveSecurityGroup").await?, 0);
    Ok(())
}
