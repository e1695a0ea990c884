//! Cheap: what a few hundred edges cost in calls to the cloud and writes to the API server, counted exactly. Never a time.

mod support;

use futures::future::try_join_all;
use serde_json::json;
use support::control_plane::ControlPlane;
use support::error::{Error, Result};
use support::eventually::eventually;
use support::stage::{Stage, operator_with};
use tokio::sync::{Mutex, MutexGuard};

const EDGES: usize = 300;
const OPERATOR: &str = "system:serviceaccount:security-group-operator:security-group-operator";

/// The tests of this file restart the operator that they share and count what it does: one after the other.
async fn turn() -> Result<MutexGuard<'static, ()>> {
    static TURN: Mutex<()> = Mutex::const_new(());
    let turn = TURN.lock().await;
    drop(operator_with(&binaries!(), &["--scan-period=3s"]).await?);
    Ok(turn)
}

fn inventory(limits: &str) -> String {
    let instances = (0..EDGES)
        .map(|n| format!("- {{id: i-{n:04}, securityGroupIds: [sg-base]}}\n"))
        .collect::<Vec<_>>()
        .concat();
    format!(
        "settings: {{limits: {limits}}}\nsecurityGroups:\n- {{id: sg-base}}\n- {{id: sg-web}}\ninstances:\n{instances}"
    )
}

async fn apply(stage: &Stage, edges: std::ops::Range<usize>) -> Result<()> {
    try_join_all(edges.map(|n| async move {
        stage
            .apply(
                &format!("edge-{n:04}"),
                &format!("i-{n:04}"),
                "sg-web",
                json!({}),
            )
            .await
    }))
    .await?;
    Ok(())
}

async fn all_ready(stage: &Stage, edges: std::ops::Range<usize>) -> Result<()> {
    for n in edges {
        stage.until_ready(&format!("edge-{n:04}")).await?;
    }
    Ok(())
}

/// The operator's writes in the stage's namespace, as `verb resource/subresource`.
fn writes(stage: &Stage, plane: &ControlPlane) -> Result<Vec<String>> {
    let events = plane.audit_events()?;
    Ok(events
        .into_iter()
        .filter(|event| event.user == OPERATOR && event.namespace == stage.name)
        .filter(|event| {
            matches!(
                event.verb.as_str(),
                "create" | "update" | "patch" | "delete"
            )
        })
        .map(|event| format!("{} {}/{}", event.verb, event.resource, event.subresource))
        .collect())
}

fn count(writes: &[String], what: &str) -> usize {
    writes.iter().filter(|write| *write == what).count()
}

#[tokio::test]
async fn a_new_edge_costs_one_join_a_hundredth_of_a_describe_and_two_writes() -> Result<()> {
    let _turn = turn().await?;
    let stage = Stage::set(&binaries!(), &inventory("{}")).await?;
    let mut operator = operator_with(&binaries!(), &[]).await?;
    operator.kill();
    apply(&stage, 0..EDGES).await?;
    operator.restart().await?;
    all_ready(&stage, 0..EDGES).await?;
    assert_eq!(stage.calls("JoinSecurityGroup").await?, 300);
    // The first of them leaves alone; a scan or two may have begun as well.
    let describes = stage.calls("DescribeInstances").await?;
    assert!(
        describes <= 3 + 1 + 6,
        "{describes} Describes for {EDGES} edges"
    );
    let plane = ControlPlane::shared().await?;
    eventually("one event an edge", async || {
        Ok(count(&writes(&stage, plane)?, "create events/") == EDGES)
    })
    .await?;
    let writes = writes(&stage, plane)?;
    assert_eq!(
        count(&writes, "patch securitygroupmemberships/"),
        EDGES,
        "one claim an edge"
    );
    assert_eq!(
        count(&writes, "patch securitygroupmemberships/status"),
        EDGES,
        "one status an edge"
    );
    assert_eq!(writes.len(), 3 * EDGES, "and nothing else");
    Ok(())
}

#[tokio::test]
async fn a_restart_reads_a_hundred_targets_a_call_and_writes_nothing() -> Result<()> {
    let _turn = turn().await?;
    let stage = Stage::set(&binaries!(), &inventory("{}")).await?;
    apply(&stage, 0..EDGES - 1).await?;
    all_ready(&stage, 0..EDGES - 1).await?;
    let plane = ControlPlane::shared().await?;
    let mut operator = operator_with(&binaries!(), &[]).await?;
    operator.kill();
    let before = writes(&stage, plane)?.len();
    stage.simulator.reset_stats().await?;
    // Made while nobody looked: it is served with the rest.
    apply(&stage, EDGES - 1..EDGES).await?;
    operator.restart().await?;
    all_ready(&stage, EDGES - 1..EDGES).await?;
    let describes = stage.calls("DescribeInstances").await?;
    assert!(
        describes <= 3 + 1 + 2,
        "{describes} Describes for {EDGES} edges after a restart"
    );
    assert_eq!(stage.calls("JoinSecurityGroup").await?, 1);
    eventually("the new edge's event", async || {
        Ok(writes(&stage, plane)?.len() >= before + 3)
    })
    .await?;
    assert_eq!(
        writes(&stage, plane)?.len(),
        before + 3,
        "only the new edge is written"
    );
    Ok(())
}

#[tokio::test]
async fn when_nothing_changes_targets_are_looked_at_and_nothing_is_written() -> Result<()> {
    let _turn = turn().await?;
    let stage = Stage::set(&binaries!(), &inventory("{}")).await?;
    apply(&stage, 0..EDGES).await?;
    all_ready(&stage, 0..EDGES).await?;
    let plane = ControlPlane::shared().await?;
    eventually("one event an edge", async || {
        Ok(writes(&stage, plane)?.len() == 3 * EDGES)
    })
    .await?;
    stage.simulator.reset_stats().await?;
    // Three blocks a scan: at least four whole scans.
    eventually("scans", async || {
        Ok(stage.calls("DescribeInstances").await? >= 12)
    })
    .await?;
    assert_eq!(writes(&stage, plane)?.len(), 3 * EDGES);
    assert_eq!(stage.calls("JoinSecurityGroup").await?, 0);
    Ok(())
}

#[tokio::test]
async fn a_scan_finds_what_somebody_else_took_away_and_one_join_puts_each_back() -> Result<()> {
    let _turn = turn().await?;
    let stage = Stage::set(&binaries!(), &inventory("{}")).await?;
    apply(&stage, 0..EDGES).await?;
    all_ready(&stage, 0..EDGES).await?;
    stage.simulator.reset_stats().await?;
    let taken = ["i-0007", "i-0100", "i-0299"];
    for target in taken {
        let change = json!({"leave": {"target": target, "securityGroupId": "sg-web"}});
        stage.simulator.change(&change).await?;
    }
    eventually("all are members again", async || {
        for target in taken {
            if !stage.is_member(target, "sg-web").await? {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await?;
    assert_eq!(stage.calls("JoinSecurityGroup").await?, 3);
    let name = "edge-0100";
    eventually("the events", async || {
        Ok(stage
            .events(name)
            .await?
            .contains(&"DriftRepaired".to_owned()))
    })
    .await?;
    assert!(
        stage
            .events(name)
            .await?
            .contains(&"DriftDetected".to_owned())
    );
    Ok(())
}

#[tokio::test]
async fn a_target_that_is_gone_and_one_that_starts_are_found_by_a_scan() -> Result<()> {
    let _turn = turn().await?;
    let stage = Stage::set(&binaries!(), &inventory("{}")).await?;
    apply(&stage, 0..3).await?;
    all_ready(&stage, 0..3).await?;
    stage
        .simulator
        .change(&json!({"delete": {"id": "i-0001"}}))
        .await?;
    stage
        .simulator
        .change(&json!({"setStatus": {"id": "i-0002", "status": "Stopping"}}))
        .await?;
    stage.until_reason("edge-0001", "TargetNotFound").await?;
    // A member between states is a member still.
    let stopping = stage
        .until("edge-0002", "seen Stopping", |object| {
            let target = object
                .status
                .as_ref()
                .and_then(|status| status.target.as_ref());
            target.is_some_and(|target| target.state == "Stopping")
        })
        .await?;
    assert_eq!(
        support::stage::ready(&stopping).map(|ready| ready.status.as_str()),
        Some("True")
    );
    Ok(())
}

#[tokio::test]
async fn under_a_small_limit_few_calls_are_rejected_and_all_edges_get_their_turn() -> Result<()> {
    let _turn = turn().await?;
    let stage = Stage::set(&binaries!(), &inventory("{JoinSecurityGroup: 200}")).await?;
    apply(&stage, 0..EDGES).await?;
    // Two windows of a minute; longer than the patience of one wait.
    for _ in 0..3 {
        if all_ready(&stage, 0..EDGES).await.is_ok() {
            break;
        }
    }
    all_ready(&stage, 0..EDGES).await?;
    let stats = stage.simulator.stats().await?;
    let joins = &stats["calls"]["JoinSecurityGroup"];
    assert_eq!(joins["OK"], 300, "{joins}");
    let rejected = joins["Throttling.User"].as_u64().unwrap_or(0);
    // Those in flight when the limit was met for the first time, and no retries after it.
    assert!(rejected <= 32, "{rejected} rejected");
    if rejected == 0 {
        return Err(Error::new(
            "the limit was never met: the test shows nothing",
        ));
    }
    Ok(())
}
