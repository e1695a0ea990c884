//! Two operators and one Lease, as real processes: the standby takes over from a leader that ends, is killed or is frozen, and a
//! leader that goes on after its Lease makes no call. Times are printed, not judged. Two operators without a Lease say so.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::{DeleteParams, ListParams, PostParams};
use security_group_operator::api::membership::Origin;
use security_group_operator::kubernetes::lease::NAME;
use serde_json::json;

use crate::support::env::TestEnv;
use crate::support::error::{Error, Result};
use crate::support::eventually::eventually;
use crate::support::operator::{NAMESPACE, Operator};
use crate::{OnlyOperator, options};

/// With the Lease of `deploy/`, which a busy machine renews in time.
const ELECTED: [&str; 1] = ["--leader-elect"];
/// For a leader that may lose its Lease at any time.
const SHORT: [&str; 2] = ["--leader-elect", "--lease-duration=2s"];
/// Longer than the short Lease.
const FREEZE: Duration = Duration::from_millis(2_500);
const TARGETS: usize = 40;

fn inventory(instances: usize) -> Result<String> {
    let mut inventory = "securityGroups: [{id: sg-base}, {id: sg-web}]\ninstances:\n".to_owned();
    for n in 0..instances {
        writeln!(inventory, "- {{id: i-n{n}, securityGroupIds: [sg-base]}}")?;
    }
    Ok(inventory)
}

/// Two elected operators, of which the first leads, and a cloud with 40 instances.
async fn two() -> Result<(TestEnv, OnlyOperator, Operator)> {
    let mut first = OnlyOperator::start(&ELECTED).await?;
    // Of no other test: a leader waits for the calls of one that has vanished.
    first.kill();
    let leases = leases(&first).await?;
    let gone = leases.delete(NAME, &DeleteParams::default()).await;
    gone.map_or_else(ignore_404, |_| Ok(()))?;
    first.restart().await?;
    until_leads(&first).await?;
    let second = Operator::start(first.plane, options(&ELECTED)).await?;
    let env = first.env(&inventory(TARGETS)?).await?;
    env.apply("before", "i-n0", "sg-web", json!({})).await?;
    env.until_ready("before").await?;
    assert!(!leads(&second).await?);
    Ok((env, first, second))
}

async fn leases(operator: &OnlyOperator) -> Result<Api<Lease>> {
    let client = operator.plane.admin_client().await?;
    Ok(Api::namespaced(client, NAMESPACE))
}

fn ignore_404(error: kube::Error) -> Result<()> {
    match error {
        kube::Error::Api(status) if status.code == 404 => Ok(()),
        error => Err(error.into()),
    }
}

async fn leads(operator: &Operator) -> Result<bool> {
    let text = reqwest::get(operator.url("/metrics")).await?.text().await?;
    Ok(text.contains("security_group_operator_leader 1"))
}

async fn until_leads(operator: &Operator) -> Result<()> {
    eventually("the operator leads", async || leads(operator).await).await
}

/// Applies an object now, and prints how long after `since` it is Ready.
async fn until_new_is_ready(env: &TestEnv, name: &str, since: Instant, after: &str) -> Result<()> {
    env.until_ready(name).await?;
    println!("{after}: a new object is Ready after {:?}", since.elapsed());
    Ok(())
}

/// Every object of the test says that the operator joined it, and each edge was joined once.
async fn all_are_joined(env: &TestEnv) -> Result<()> {
    let objects = env.memberships().list(&ListParams::default()).await?.items;
    for object in &objects {
        let origin = object.status.as_ref().and_then(|status| status.origin);
        assert_eq!(origin, Some(Origin::Joined), "{:?}", object.status);
    }
    assert_eq!(
        env.effects("JoinSecurityGroup").await?,
        objects.len() as u64
    );
    assert_eq!(env.effects("LeaveSecurityGroup").await?, 0);
    Ok(())
}

#[tokio::test]
async fn two_operators_without_election_are_told_of_each_other() -> Result<()> {
    let first = OnlyOperator::start(&[]).await?;
    let second = Operator::start(first.plane, options(&[])).await?;
    let env = first.env(&inventory(TARGETS)?).await?;
    // What appears in the first minute may be of an operator that has just ended. Either may be the first to write an intent.
    for n in 0..TARGETS {
        let name = format!("n{n}");
        env.apply(&name, &format!("i-n{n}"), "sg-web", json!({}))
            .await?;
        env.until_ready(&name).await?;
        for log in [first.log(), second.log()] {
            let said = std::fs::read_to_string(log)?;
            let lines = said.matches("another operator joins targets").count();
            assert!(lines <= 1, "{said}");
            if lines == 1 {
                assert!(said.contains("--leader-elect"), "{said}");
                return Ok(());
            }
        }
        tokio::time::sleep(Duration::from_secs(5)).await;
    }
    Err(Error::new("neither operator has told of the other"))
}

#[tokio::test]
async fn standby_takes_over_from_a_leader_that_ends() -> Result<()> {
    let (env, mut first, second) = two().await?;
    let since = Instant::now();
    let (code, applied) = tokio::join!(first.stop(), env.apply("new", "i-n1", "sg-web", json!({})));
    applied?;
    assert_eq!(code?, 0);
    until_new_is_ready(&env, "new", since, "SIGTERM").await?;
    assert!(leads(&second).await?);
    all_are_joined(&env).await?;
    // No call was under way: what is deleted goes at once.
    env.delete("new").await?;
    env.until_deleted("new").await
}

#[tokio::test]
async fn standby_takes_over_from_a_leader_that_is_killed() -> Result<()> {
    let (env, mut first, second) = two().await?;
    let since = Instant::now();
    first.kill();
    env.apply("new", "i-n1", "sg-web", json!({})).await?;
    until_new_is_ready(&env, "new", since, "SIGKILL").await?;
    assert!(leads(&second).await?);
    // The killed one comes back as the standby.
    first.restart().await?;
    assert!(!leads(&first).await?);
    all_are_joined(&env).await
}

#[tokio::test]
async fn leader_that_was_frozen_ends_and_takes_nothing_from_its_successor() -> Result<()> {
    let (env, mut first, mut second) = two().await?;
    for n in 1..TARGETS {
        env.apply(&format!("n{n}"), &format!("i-n{n}"), "sg-web", json!({}))
            .await?;
        if n == TARGETS / 2 {
            first.process().signal("STOP")?;
        }
    }
    until_leads(&second).await?;
    first.process().signal("CONT")?;
    assert_eq!(first.process().wait(FREEZE * 10).await?, 1);
    let said = std::fs::read_to_string(first.log())?;
    assert!(
        said.contains("the Lease security-group-operator/"),
        "{said}"
    );
    for n in 1..TARGETS {
        env.until_ready(&format!("n{n}")).await?;
    }
    all_are_joined(&env).await?;
    second.process().check()
}

/// How often the log of an operator has a text.
fn told(operator: &Operator, text: &str) -> Result<usize> {
    let said = std::fs::read_to_string(operator.log())?;
    Ok(said.matches(text).count())
}

#[tokio::test]
async fn what_keeps_an_operator_from_leading_is_told_once() -> Result<()> {
    let (_env, mut first, second) = two().await?;
    let held = "standby: ";
    assert_eq!(told(&second, held)?, 1);
    drop(second);
    let beside = Operator::start(first.plane, options(&[])).await?;
    eventually(
        "an operator that is not elected tells of the other",
        async || Ok(told(&beside, "another operator works here")? == 1),
    )
    .await?;
    drop(beside);
    // The next test installs it again.
    let bindings: Api<RoleBinding> = Api::namespaced(first.plane.admin_client().await?, NAMESPACE);
    first.kill();
    bindings
        .delete("security-group-operator", &DeleteParams::default())
        .await?;
    first.respawn()?;
    first.wait_until_ready().await?;
    let refused = "the operator may not use the Lease";
    eventually("the missing right is told", async || {
        Ok(told(&first, refused)? > 0)
    })
    .await?;
    tokio::time::sleep(FREEZE).await;
    assert_eq!(told(&first, refused)?, 1);
    assert!(!leads(&first).await?);
    Ok(())
}

/// Freezes in `cargo test`. `PAUSES=1000` for more; `SHIPPED=1` with the Lease of `deploy/`, half a minute each.
const FREEZES: usize = 3;

/// The Lease is taken by somebody else while the leader is frozen in the middle of its work. When it goes on, it begins no call.
///
/// The freeze may fall between its last look at the Lease and the system call that sends the request. No code can look later. The
/// process has one thread, so that this is one request at most.
#[tokio::test]
async fn frozen_leader_begins_no_call_after_its_lease() -> Result<()> {
    let (options, longer_than_lease) = match std::env::var("SHIPPED") {
        Ok(_) => (&ELECTED[..], Duration::from_secs(16)),
        Err(_) => (&SHORT[..], FREEZE),
    };
    let mut operator = OnlyOperator::start(options).await?;
    let freezes = std::env::var("PAUSES")
        .ok()
        .and_then(|all| all.parse().ok());
    let freezes: usize = freezes.unwrap_or(FREEZES);
    let inventory = inventory(freezes * TARGETS)?;
    let env = operator.env(&inventory).await?;
    let leases = leases(&operator).await?;
    let (mut frozen, mut late) = (0, 0);
    for freeze in 0..freezes {
        until_leads_at_last(&mut operator).await?;
        let creates = create_all(&env, freeze);
        // Another moment each time.
        let freezing = async {
            let before = calls(&env).await?;
            // On a busy machine it may lose its Lease first.
            while calls(&env).await? == before && operator.process().exit_code()?.is_none() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            tokio::time::sleep(Duration::from_millis((freeze as u64 * 37) % 400)).await;
            if operator.process().exit_code()?.is_some() {
                return Ok(false);
            }
            operator.process().signal("STOP").map(|()| true)
        };
        let is_frozen = tokio::select! {
            never = creates => never?,
            frozen = freezing => frozen?,
        };
        if !is_frozen {
            continue;
        }
        frozen += 1;
        tokio::time::sleep(longer_than_lease).await;
        let mut lease = leases.get(NAME).await?;
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some("somebody".to_owned());
        leases.replace(NAME, &PostParams::default(), &lease).await?;
        let before = calls(&env).await?;
        operator.process().signal("CONT")?;
        assert_eq!(operator.process().wait(FREEZE * 40).await?, 1);
        let after = calls(&env).await? - before;
        assert!(after <= 1, "freeze {freeze}: {after} calls after it");
        late += after;
        let all = (DeleteParams::default(), ListParams::default());
        env.memberships().delete_collection(&all.0, &all.1).await?;
        operator.respawn()?;
    }
    println!(
        "{frozen} freezes, {} calls, {late} of them sent just before a freeze and made after it",
        calls(&env).await?
    );
    Ok(())
}

/// Starts the operator again as often as it loses the short Lease before it was asked.
async fn until_leads_at_last(operator: &mut Operator) -> Result<()> {
    loop {
        if operator.process().exit_code()?.is_some() {
            operator.respawn()?;
        }
        if leads(operator).await.unwrap_or(false) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Joins and Leaves that have reached the cloud.
async fn calls(env: &TestEnv) -> Result<u64> {
    Ok(env.calls("JoinSecurityGroup").await? + env.calls("LeaveSecurityGroup").await?)
}

/// Creates objects, each of an edge that no other freeze has.
async fn create_all(env: &TestEnv, freeze: usize) -> Result<bool> {
    for n in freeze * TARGETS..(freeze + 1) * TARGETS {
        let spec = json!({"deletionPolicy": "Retain"});
        env.apply(&format!("n{n}"), &format!("i-n{n}"), "sg-web", spec)
            .await?;
    }
    std::future::pending().await
}
