//! A crash at any point changes no promise: the operator's own process is killed, and the next one finds on the objects all
//! that it must know.

use std::fmt::Write as _;
use std::time::Duration;

use security_group_operator::api::membership::Origin;
use serde_json::{Value, json};

use crate::OnlyOperator;
use crate::support::env::{TestEnv, claim, ready};
use crate::support::error::{Context, Result};
use crate::support::eventually::eventually;
use crate::support::operator::Operator;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-other, securityGroupIds: [sg-base]}
- {id: i-before, securityGroupIds: [sg-base, sg-web]}
";

/// A test environment, and the operator for this test alone.
async fn begin(inventory: &str) -> Result<(TestEnv, OnlyOperator)> {
    let operator = OnlyOperator::start(&[]).await?;
    let env = operator.env(inventory).await?;
    Ok((env, operator))
}

/// Calls of this action arrive and are never answered; with `effect` they are carried out all the same.
async fn hold(env: &TestEnv, action: &str, effect: bool) -> Result<()> {
    let fault = json!({"action": action, "effect": effect, "fault": "silence"});
    env.simulator.faults(&fault).await
}

/// SIGKILL, the faults end, and a new process starts.
async fn crash(env: &TestEnv, operator: &mut Operator) -> Result<()> {
    operator.kill();
    env.simulator.faults(&json!([])).await?;
    operator.restart().await
}

async fn until_called(env: &TestEnv, action: &str) -> Result<()> {
    eventually(&format!("{action} is called"), async || {
        Ok(env.calls(action).await? > 0)
    })
    .await
}

/// The object is Ready by its own join, and leaves when it goes.
async fn is_our_own_edge(env: &TestEnv, name: &str, target: &str) -> Result<()> {
    let object = env.until_ready(name).await?;
    assert_eq!(
        ready(&object).map(|ready| ready.reason.as_str()),
        Some("Joined")
    );
    assert_eq!(claim(&object).as_deref(), Some("Joined"));
    assert_eq!(
        object.status.and_then(|status| status.origin),
        Some(Origin::Joined)
    );
    assert!(env.is_member(target, "sg-web").await?);
    env.delete(name).await?;
    env.until_deleted(name).await?;
    assert!(!env.is_member(target, "sg-web").await?);
    assert_eq!(env.effects("JoinSecurityGroup").await?, 1);
    assert_eq!(env.effects("LeaveSecurityGroup").await?, 1);
    Ok(())
}

#[tokio::test]
async fn kill_between_join_and_status_keeps_ownership() -> Result<()> {
    let (env, mut operator) = begin(INVENTORY).await?;
    hold(&env, "JoinSecurityGroup", true).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    until_called(&env, "JoinSecurityGroup").await?;
    assert!(env.is_member("i-web", "sg-web").await?);
    let unanswered = env.memberships().get("web").await?;
    assert_eq!(ready(&unanswered).unwrap().reason, "Pending");
    crash(&env, &mut operator).await?;
    is_our_own_edge(&env, "web", "i-web").await
}

#[tokio::test]
async fn lagging_reads_after_a_crash_keep_ownership() -> Result<()> {
    let (env, mut operator) = begin(INVENTORY).await?;
    hold(&env, "JoinSecurityGroup", true).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    until_called(&env, "JoinSecurityGroup").await?;
    // What is described from now on is the time before the Join.
    env.simulator.change(&json!({"set": {"lag": "5m"}})).await?;
    crash(&env, &mut operator).await?;
    env.until_reason("web", "Joined").await?;
    let told = env
        .simulator
        .calls("JoinSecurityGroup", "InvalidInstanceId.AlreadyExists")
        .await?;
    assert!(told > 0, "nobody was told that the edge is there already");
    is_our_own_edge(&env, "web", "i-web").await
}

#[tokio::test]
async fn restart_writes_nothing_and_reads_in_batches() -> Result<()> {
    const OBJECTS: usize = 20;
    let mut inventory = "securityGroups: [{id: sg-base}, {id: sg-web}]\ninstances:\n".to_owned();
    for n in 0..=OBJECTS {
        writeln!(inventory, "- {{id: i-n{n}, securityGroupIds: [sg-base]}}")?;
    }
    let (env, mut operator) = begin(&inventory).await?;
    for n in 0..OBJECTS {
        env.apply(&format!("n{n}"), &format!("i-n{n}"), "sg-web", json!({}))
            .await?;
    }
    for n in 0..OBJECTS {
        env.until_ready(&format!("n{n}")).await?;
    }
    operator.kill();
    env.simulator.reset_stats().await?;
    let before = env.operator_writes().await?.len();
    operator.restart().await?;
    // What other tests have left behind is never Ready: their clouds are gone.
    let metrics = operator.url("/metrics");
    eventually("a pass over every object", async || {
        Ok(passes_ready(&metrics).await? >= OBJECTS)
    })
    .await?;
    let reads = env.describe_calls().await?;
    assert!(
        (1..=OBJECTS as u64).contains(&reads),
        "{reads} reads for {OBJECTS} objects"
    );
    let writes = env.operator_writes().await?.split_off(before);
    assert!(writes.is_empty(), "{writes:?}");
    let new = format!("i-n{OBJECTS}");
    env.apply("new", &new, "sg-web", json!({})).await?;
    env.until_reason("new", "Joined").await?;
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
    Ok(())
}

async fn passes_ready(metrics: &str) -> Result<usize> {
    let text = reqwest::get(metrics).await?.text().await?;
    let line = text
        .lines()
        .find(|line| line.contains("_reconcile_total{outcome=\"ready\"}"));
    let count = line.and_then(|line| line.rsplit(' ').next());
    count.map_or(Ok(0), |count| count.parse().context("a count"))
}

#[tokio::test]
async fn sigterm_finishes_the_running_call_and_exits_with_0() -> Result<()> {
    let (env, mut operator) = begin(INVENTORY).await?;
    let slow = json!({"action": "JoinSecurityGroup", "fault": {"latency": "5s"}});
    env.simulator.faults(&slow).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    until_called(&env, "JoinSecurityGroup").await?;
    let asked = env.memberships().get("web").await?;
    assert_eq!(ready(&asked).unwrap().reason, "Pending");
    assert_eq!(operator.stop().await?, 0);
    // Nobody runs now: this was written by the one that was asked to stop.
    let object = env.memberships().get("web").await?;
    assert_eq!(ready(&object).unwrap().reason, "Joined");
    operator.restart().await
}

#[tokio::test]
async fn second_signal_exits_at_once_and_restart_recovers() -> Result<()> {
    let (env, mut operator) = begin(INVENTORY).await?;
    hold(&env, "JoinSecurityGroup", true).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    until_called(&env, "JoinSecurityGroup").await?;
    let log = operator.log().to_owned();
    operator.process().signal("INT")?;
    eventually("it says that a second signal ends it", async || {
        Ok(std::fs::read_to_string(&log)?.contains("a second signal ends it at once"))
    })
    .await?;
    assert_eq!(
        operator.process().exit_code()?,
        None,
        "the call has no answer yet"
    );
    operator.process().signal("INT")?;
    // Long before the call's own deadline of 66 s.
    assert_eq!(operator.process().wait(Duration::from_secs(30)).await?, 1);
    crash(&env, &mut operator).await?;
    is_our_own_edge(&env, "web", "i-web").await
}

#[tokio::test]
async fn key_of_another_account_changes_no_edge() -> Result<()> {
    let (env, _operator) = begin(INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    let other = json!({"id": "otherid", "secret": "othersecret", "account": "1000000000000002"});
    env.simulator.change(&json!({"addKey": other})).await?;
    env.write_secret("otherid", "othersecret").await?;
    let object = env.until_reason("web", "AccountChanged").await?;
    let message = &ready(&object).unwrap().message;
    assert!(
        message.contains("1000000000000002") && message.contains(&env.account),
        "{message}"
    );
    env.delete("web").await?;
    env.until("web", "told the way out", |object| {
        ready(object).is_some_and(|ready| ready.message.contains("Retain"))
    })
    .await?;
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    env.write_secret("testid", "testsecret").await?;
    env.until_deleted("web").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn claim_survives_restart_under_another_accounts_key() -> Result<()> {
    let (env, mut operator) = begin(INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    operator.kill();
    let other: Value = json!({"addKey": {"id": "otherid", "secret": "othersecret", "account": "1000000000000002"}});
    env.simulator.change(&other).await?;
    env.write_secret("otherid", "othersecret").await?;
    env.simulator
        .change(&json!({"leave": {"target": "i-web", "securityGroupId": "sg-web"}}))
        .await?;
    operator.restart().await?;
    env.until_reason("web", "AccountChanged").await?;
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
    env.write_secret("testid", "testsecret").await?;
    env.until_reason("web", "Joined").await?;
    assert!(env.is_member("i-web", "sg-web").await?);
    Ok(())
}
