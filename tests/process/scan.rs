//! One look a period at everything: what changed is found, and what did not costs a hundredth of a call and no write.

use serde_json::json;

use crate::OnlyOperator;
use crate::support::bulk::{EDGES, all_ready, apply, inventory, writes};
use crate::support::env::ready;
use crate::support::error::Result;
use crate::support::eventually::eventually;

const OFTEN: &[&str] = &["--scan-period=3s"];

#[tokio::test]
async fn scans_of_unchanged_targets_write_nothing() -> Result<()> {
    let operator = OnlyOperator::start(OFTEN).await?;
    let env = operator.env(&inventory("{}")).await?;
    apply(&env, 0..EDGES).await?;
    all_ready(&env, 0..EDGES).await?;
    let plane = operator.plane;
    eventually("one event an edge", async || {
        Ok(writes(&env, plane)?.len() == 3 * EDGES)
    })
    .await?;
    env.simulator.reset_stats().await?;
    // Three blocks a scan: at least four whole scans.
    eventually("scans", async || {
        Ok(env.calls("DescribeInstances").await? >= 12)
    })
    .await?;
    assert_eq!(writes(&env, plane)?.len(), 3 * EDGES);
    assert_eq!(env.calls("JoinSecurityGroup").await?, 0);
    Ok(())
}

#[tokio::test]
async fn scan_finds_removed_edges_and_rejoins_each_once() -> Result<()> {
    let operator = OnlyOperator::start(OFTEN).await?;
    let env = operator.env(&inventory("{}")).await?;
    apply(&env, 0..EDGES).await?;
    all_ready(&env, 0..EDGES).await?;
    env.simulator.reset_stats().await?;
    let taken = ["i-0007", "i-0100", "i-0299"];
    for target in taken {
        let change = json!({"leave": {"target": target, "securityGroupId": "sg-web"}});
        env.simulator.change(&change).await?;
    }
    eventually("all are members again", async || {
        for target in taken {
            if !env.is_member(target, "sg-web").await? {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    assert_eq!(env.calls("JoinSecurityGroup").await?, 3);
    let name = "edge-0100";
    eventually("the events", async || {
        Ok(env
            .events(name)
            .await?
            .contains(&"DriftRepaired".to_owned()))
    })
    .await?;
    assert!(
        env.events(name)
            .await?
            .contains(&"DriftDetected".to_owned())
    );
    Ok(())
}

#[tokio::test]
async fn scan_finds_released_and_stopping_targets() -> Result<()> {
    let operator = OnlyOperator::start(OFTEN).await?;
    let env = operator.env(&inventory("{}")).await?;
    apply(&env, 0..3).await?;
    all_ready(&env, 0..3).await?;
    env.simulator
        .change(&json!({"delete": {"id": "i-0001"}}))
        .await?;
    env.simulator
        .change(&json!({"setStatus": {"id": "i-0002", "status": "Stopping"}}))
        .await?;
    env.until_reason("edge-0001", "TargetNotFound").await?;
    // A member between states is a member still.
    let stopping = env
        .until("edge-0002", "seen Stopping", |object| {
            let target = object
                .status
                .as_ref()
                .and_then(|status| status.target.as_ref());
            target.is_some_and(|target| target.state == "Stopping")
        })
        .await?;
    assert_eq!(
        ready(&stopping).map(|ready| ready.status.as_str()),
        Some("True")
    );
    Ok(())
}
