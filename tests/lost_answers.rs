//! A Join whose answer is lost, broken or late is our own work all the same: the edge is `Joined`, never `Adopted`, and it is
//! left when its object goes.

mod support;

use serde_json::{Value, json};
use support::ask::{claim, phase};
use support::error::Result;
use support::stage::{Stage, ready};

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-never, securityGroupIds: [sg-base]}
networkInterfaces:
- {id: eni-web, securityGroupIds: [sg-base]}
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
async fn an_edge_is_ours_whatever_became_of_the_answer() -> Result<()> {
    for target in ["i-web", "eni-web"] {
        let stage = Stage::set(&binaries!(), INVENTORY).await?;
        for (fault, effect) in faults() {
            let what = format!("{target}, {fault}, effect: {effect}");
            stage.simulator.reset_stats().await?;
            stage
                .simulator
                .faults(&json!({"action": "JoinSecurityGroup", "count": 1, "effect": effect, "fault": fault}))
                .await?;
            stage.apply("web", target, "sg-web", json!({})).await?;
            let object = stage.until_ready("web").await?;
            assert_eq!(ready(&object).unwrap().reason, "Joined", "{what}");
            assert_eq!(claim(&object).as_deref(), Some("Joined"), "{what}");
            assert!(object.status.unwrap().last_error.is_none(), "{what}");
            assert!(stage.is_member(target, "sg-web").await?, "{what}");
            let stats = stage.simulator.stats().await?;
            assert_eq!(stats["effects"]["JoinSecurityGroup"], 1, "{what}");
            assert_eq!(stats["faults"], 0, "{what}");

            stage.delete("web").await?;
            stage.until_gone("web").await?;
            assert!(!stage.is_member(target, "sg-web").await?, "{what}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_cloud_that_keeps_failing_is_asked_again_and_says_so() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for (fault, code, opens) in [
        (
            json!({"error": {"code": "Newly.Invented", "status": 400}}),
            Some("Newly.Invented"),
            "Newly.Invented: ",
        ),
        (json!("reset"), None, "JoinSecurityGroup got no answer"),
        (
            json!({"malformed": "html"}),
            None,
            "JoinSecurityGroup got an answer that cannot be used",
        ),
    ] {
        stage
            .simulator
            .faults(&json!({"action": "JoinSecurityGroup", "fault": fault}))
            .await?;
        stage.apply("never", "i-never", "sg-web", json!({})).await?;
        let object = stage.until_reason("never", "Retrying").await?;
        assert_eq!(phase(&object), "Reconciling");
        let message = &ready(&object).unwrap().message;
        assert!(message.starts_with(opens), "{message}");
        let error = object.status.unwrap().last_error.unwrap();
        assert_eq!(error.code.as_deref(), code);
        assert!(!error.retry.is_empty());

        stage.simulator.faults(&json!([])).await?;
        stage.until_reason("never", "Joined").await?;
        stage.delete("never").await?;
        stage.until_gone("never").await?;
    }
    Ok(())
}
