//! Cheap: what a few hundred edges cost in calls to the cloud and writes to the API server, counted exactly. Never a time.

use std::time::{Duration, Instant};

use crate::support::bulk::{EDGES, all_ready, apply, count, inventory, writes};
use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::{Error, Result};
use crate::support::eventually::eventually;
use crate::support::operator::Operator;
use crate::{OnlyOperator, binaries, options};

/// Each call is one that a pass makes.
const NO_SCAN: &[&str] = &["--scan-period=1h"];

/// A call a hundred, and a few that are not full: the first one leaves alone. On a machine so busy that the passes come slowly, a
/// read waits for more of them for a second at most.
async fn assert_few_describes(env: &TestEnv, start: Instant) -> Result<()> {
    let waited = start.elapsed().as_secs();
    let describes = env.calls("DescribeInstances").await?;
    assert!(
        describes <= 3 + 5 + waited,
        "{describes} Describes for {EDGES} edges in {waited} s"
    );
    Ok(())
}

#[tokio::test]
async fn new_edges_cost_one_join_two_writes_few_describes() -> Result<()> {
    let mut operator = OnlyOperator::start(NO_SCAN).await?;
    let env = operator.env(&inventory("{}")).await?;
    operator.kill();
    apply(&env, 0..EDGES).await?;
    let start = Instant::now();
    operator.restart().await?;
    all_ready(&env, 0..EDGES).await?;
    assert_eq!(env.calls("JoinSecurityGroup").await?, 300);
    assert_few_describes(&env, start).await?;
    let plane = operator.plane;
    eventually("one event an edge", async || {
        Ok(count(&writes(&env, plane)?, "create events/") == EDGES)
    })
    .await?;
    let writes = writes(&env, plane)?;
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
async fn restart_reads_in_batches_and_writes_only_new_edges() -> Result<()> {
    let mut operator = OnlyOperator::start(NO_SCAN).await?;
    let env = operator.env(&inventory("{}")).await?;
    apply(&env, 0..EDGES - 1).await?;
    all_ready(&env, 0..EDGES - 1).await?;
    let plane = operator.plane;
    // Claim, status and event of each: what is still on its way would be counted for the next operator.
    let before = 3 * (EDGES - 1);
    eventually("each edge's event is written", async || {
        Ok(writes(&env, plane)?.len() == before)
    })
    .await?;
    operator.kill();
    env.simulator.reset_stats().await?;
    // Made while nobody looked: it is served with the rest.
    apply(&env, EDGES - 1..EDGES).await?;
    let start = Instant::now();
    operator.restart().await?;
    all_ready(&env, EDGES - 1..EDGES).await?;
    assert_few_describes(&env, start).await?;
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
    eventually("the new edge's event", async || {
        Ok(writes(&env, plane)?.len() >= before + 3)
    })
    .await?;
    assert_eq!(
        writes(&env, plane)?.len(),
        before + 3,
        "only the new edge is written"
    );
    Ok(())
}

#[tokio::test]
async fn small_limit_rejects_few_calls_and_all_become_ready() -> Result<()> {
    // Of its own: the others would wait for minutes.
    let plane = ControlPlane::start().await?;
    let _operator = Operator::start(&plane, options(NO_SCAN)).await?;
    let inventory = inventory("{JoinSecurityGroup: 140}");
    let env = TestEnv::start_on(&plane, &binaries!(), &inventory).await?;
    let start = Instant::now();
    apply(&env, 0..EDGES).await?;
    // Up to three windows of a minute: longer than the patience of one wait.
    for _ in 0..3 {
        if all_ready(&env, 0..EDGES).await.is_ok() {
            break;
        }
    }
    all_ready(&env, 0..EDGES).await?;
    let stats = env.simulator.stats().await?;
    let joins = &stats["calls"]["JoinSecurityGroup"];
    assert_eq!(joins["OK"], 300, "{joins}");
    let rejected = joins["Throttling.User"].as_u64().unwrap_or(0);
    // Those in flight when the limit was met for the first time, and no retries after it.
    assert!(rejected <= 32, "{rejected} rejected");
    // Two windows hold fewer than these edges, wherever in a minute the first one fell: unseen, the limit was only met
    // by a machine so slow that a whole window lay between the first Join and the last.
    if rejected == 0 && start.elapsed() < Duration::from_secs(60) {
        return Err(Error::new(
            "the limit was never met: the test shows nothing",
        ));
    }
    Ok(())
}
