//! A Join whose answer is lost, broken or late is our own work all the same: the edge is `Joined`, never `Adopted`, and it is
//! left when its object goes.

use security_group_operator::api::membership::ErrorClass;
use serde_json::{Value, json};

use crate::binaries;
use crate::support::env::{TestEnv, claim, phase, ready};
use crate::support::error::Result;

const GROUPS: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
";

/// Ways to lose an answer, each with and without the change made.
fn faults() -> Vec<(Value, bool)> {
    let kinds = [
        json!({"error": {"code": "InternalError", "status": 500}}),
        json!({"error": {"code": "ServiceUnavailable", "status": 503}}),
        json!({"error": {"code": "Newly.Invented", "status": 400}}),
        json!("reset"),
        json!({"malformed": "html"}),
        json!({"malformed": "badGateway"}),
        json!({"malformed": "empty"}),
        json!({"malformed": "wrongTypes"}),
        json!({"malformed": "garbage"}),
        json!({"malformed": "huge"}),
    ];
    let both = |kind: Value| [(kind.clone(), true), (kind, false)];
    // A cut answer is always that of a change that was made.
    let cut = (json!({"malformed": "truncated"}), true);
    kinds.into_iter().flat_map(both).chain([cut]).collect()
}

#[tokio::test]
async fn lost_join_answer_keeps_ownership() -> Result<()> {
    let mut faults: Vec<(Value, bool)> = faults();
    // What the cloud refuses with a 4xx, whatever the code, it has not done.
    faults.retain(|(fault, effect)| !effect || fault["error"]["status"] != 400);
    for (kind, prefix) in [("instances", "i"), ("networkInterfaces", "eni")] {
        // A target for each fault, so that they are all met at once.
        let target = |index: usize| format!("{prefix}-{index}");
        let targets: Vec<Value> = (0..faults.len())
            .map(|index| json!({"id": target(index), "securityGroupIds": ["sg-base"]}))
            .collect();
        let env =
            TestEnv::start(&binaries!(), &format!("{GROUPS}{kind}: {}", json!(targets))).await?;
        let wanted: Vec<Value> = faults
            .iter()
            .enumerate()
            .map(|(index, (fault, effect))| {
                json!({
                    "action": "JoinSecurityGroup", "target": target(index), "count": 1,
                    "effect": effect, "fault": fault,
                })
            })
            .collect();
        env.simulator.faults(&json!(wanted)).await?;
        for index in 0..faults.len() {
            env.apply(&target(index), &target(index), "sg-web", json!({}))
                .await?;
        }
        for (index, what) in wanted.iter().enumerate() {
            let object = env.until_ready(&target(index)).await?;
            assert_eq!(ready(&object).unwrap().reason, "Joined", "{what}");
            assert_eq!(claim(&object).as_deref(), Some("Joined"), "{what}");
            assert!(object.status.unwrap().last_error.is_none(), "{what}");
            assert!(env.is_member(&target(index), "sg-web").await?, "{what}");
        }
        let stats = env.simulator.stats().await?;
        assert_eq!(stats["faults"], 0, "every fault was met");
        assert_eq!(
            stats["effects"]["JoinSecurityGroup"],
            faults.len(),
            "one change each"
        );

        for index in 0..faults.len() {
            env.delete(&target(index)).await?;
        }
        for (index, what) in wanted.iter().enumerate() {
            env.until_deleted(&target(index)).await?;
            assert!(!env.is_member(&target(index), "sg-web").await?, "{what}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn persistent_failure_is_retried_and_reported() -> Result<()> {
    let inventory = format!(
        "{GROUPS}instances: [{{id: i-a, securityGroupIds: [sg-base]}}, {{id: i-b, securityGroupIds: [sg-base]}}, {{id: i-c, securityGroupIds: [sg-base]}}]"
    );
    let env = TestEnv::start(&binaries!(), &inventory).await?;
    for (target, fault, code, opens) in [
        (
            "i-a",
            json!({"error": {"code": "Newly.Invented", "status": 400}}),
            Some("Newly.Invented"),
            "Newly.Invented: ",
        ),
        (
            "i-b",
            json!("reset"),
            None,
            "JoinSecurityGroup got no answer",
        ),
        (
            "i-c",
            json!({"malformed": "html"}),
            None,
            "JoinSecurityGroup got an answer that cannot be used",
        ),
    ] {
        env.simulator
            .faults(&json!({"action": "JoinSecurityGroup", "fault": fault}))
            .await?;
        env.apply(target, target, "sg-web", json!({})).await?;
        let object = env.until_reason(target, "Retrying").await?;
        assert_eq!(phase(&object), "Reconciling");
        let message = &ready(&object).unwrap().message;
        assert!(message.starts_with(opens), "{message}");
        let error = object.status.unwrap().last_error.unwrap();
        assert_eq!(error.code.as_deref(), code);
        assert_eq!(error.class, ErrorClass::Transient);

        env.simulator.faults(&json!([])).await?;
        env.until_reason(target, "Joined").await?;
    }
    Ok(())
}

#[tokio::test]
async fn unusable_describe_causes_no_action() -> Result<()> {
    let inventory = format!(
        "{GROUPS}instances: [{{id: i-new, securityGroupIds: [sg-base]}}, {{id: i-old, securityGroupIds: [sg-base]}}]"
    );
    let env = TestEnv::start(&binaries!(), &inventory).await?;
    for broken in ["html", "wrongTypes", "truncated"] {
        env.apply("old", "i-old", "sg-web", json!({})).await?;
        env.until_ready("old").await?;
        env.simulator.reset_stats().await?;
        let fault = json!({"action": "DescribeInstances", "fault": {"malformed": broken}});
        env.simulator.faults(&fault).await?;
        // A new edge, and one that somebody else took away and whose object then goes.
        let edge = json!({"target": "i-old", "securityGroupId": "sg-web"});
        env.simulator.change(&json!({"leave": edge})).await?;
        env.apply("new", "i-new", "sg-web", json!({})).await?;
        env.delete("old").await?;
        env.until_reason("new", "Retrying").await?;
        env.until_reason("old", "Retrying").await?;
        for change in ["JoinSecurityGroup", "LeaveSecurityGroup"] {
            assert_eq!(env.calls(change).await?, 0, "{broken}: {change}");
        }

        env.simulator.faults(&json!([])).await?;
        env.until_ready("new").await?;
        env.until_deleted("old").await?;
        assert!(env.is_member("i-new", "sg-web").await?, "{broken}");
        env.delete("new").await?;
        env.until_deleted("new").await?;
    }
    Ok(())
}
