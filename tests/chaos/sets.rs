//! A set changes its group again and again while its operator is killed with SIGKILL: no target is ever in none of the groups, by the
//! cloud's journal. `KILLS=100 cargo test --test chaos change_of_group`; `SEED=17` draws the same changes and kills again.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use security_group_operator::api::SecurityGroupMembershipSet;
use serde_json::{Value, json};

use crate::binaries;
use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::operator::{Operator, Options};

/// Kills in `make test`.
const KILLS: usize = 5;
/// Kills between two comparisons, at most.
const BETWEEN: usize = 10;
const TARGETS: usize = 200;
const GROUPS: [&str; 3] = ["sg-a", "sg-b", "sg-c"];

#[tokio::test]
async fn change_of_group_leaves_no_gap_whenever_the_operator_is_killed() -> Result<()> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let kills = number("KILLS").map_or(Ok(KILLS), usize::try_from)?;
    let seed = number("SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("SEED={seed} KILLS={kills}");
    let mut random = StdRng::seed_from_u64(seed);
    let binaries = binaries!();
    let plane = ControlPlane::start().await?;
    let options = Options {
        binary: binaries.operator.clone(),
        arguments: vec!["--scan-period=1s".to_owned()],
        environment: Vec::new(),
    };
    let mut operator = Operator::start(&plane, options).await?;
    let env = TestEnv::start_on(&plane, &binaries, &inventory()).await?;
    let mut group = 0;
    write_set(&env, group).await?;
    until_settled(&env, group).await?;
    let mut settled_in = group;
    env.simulator.reset_stats().await?;
    let (mut killed, mut changes) = (0, 0);
    while killed < kills {
        for _ in 0..BETWEEN.min(kills - killed) {
            // Now and then the operator dies twice in one change.
            if random.random_bool(0.8) {
                group = (group + random.random_range(1..GROUPS.len())) % GROUPS.len();
                write_set(&env, group).await?;
                changes += 1;
            }
            tokio::time::sleep(Duration::from_millis(random.random_range(20..2_000))).await;
            operator.kill();
            tokio::time::sleep(Duration::from_millis(random.random_range(10..150))).await;
            operator.respawn()?;
            killed += 1;
        }
        until_settled(&env, group).await?;
        let gaps = gaps(&env.simulator.journal().await?, GROUPS[settled_in])?;
        assert!(
            gaps.is_empty(),
            "SEED={seed}, after {killed} kills: {gaps:?}"
        );
        settled_in = group;
        env.simulator.reset_stats().await?;
        println!("{killed} kills, {changes} changes of group, 0 gaps");
    }
    Ok(())
}

fn target(index: usize) -> String {
    format!("i-n{index}")
}

fn inventory() -> String {
    let instance = |index| json!({"id": target(index), "securityGroupIds": ["sg-base"]});
    let instances: Vec<Value> = (0..TARGETS).map(instance).collect();
    let groups: Vec<Value> = ["sg-base"]
        .into_iter()
        .chain(GROUPS)
        .map(|id| json!({"id": id}))
        .collect();
    json!({"settings": {"latency": "10ms"}, "securityGroups": groups, "instances": instances})
        .to_string()
}

async fn write_set(env: &TestEnv, group: usize) -> Result<()> {
    let sets: Api<SecurityGroupMembershipSet> = Api::namespaced(env.client.clone(), &env.name);
    let targets: Vec<String> = (0..TARGETS).map(target).collect();
    let set = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet",
        "metadata": {"name": "web"},
        "spec": {
            "region": "cn-hangzhou", "securityGroupID": GROUPS[group], "instanceIDs": targets,
            "accountRef": {"kind": "ClusterCloudAccount", "name": env.name},
        },
    });
    let by_us = PatchParams::apply("test").force();
    sets.patch("web", &by_us, &Patch::Apply(&set)).await?;
    Ok(())
}

/// Every target is in this group of ours and in no other, by the cloud, and there is one object for each.
async fn until_settled(env: &TestEnv, group: usize) -> Result<()> {
    let mut left = 0;
    let settled = eventually("all targets are in the new group alone", async || {
        let state = env.simulator.state().await?;
        let wanted = [json!("sg-base"), json!(GROUPS[group])];
        let is_there = |index: &usize| {
            let groups = state["instances"][target(*index)]["securityGroupIds"].as_array();
            groups.is_some_and(|groups| {
                groups.len() == wanted.len() && wanted.iter().all(|id| groups.contains(id))
            })
        };
        left = TARGETS - (0..TARGETS).filter(is_there).count();
        Ok(left == 0
            && env
                .memberships()
                .list(&ListParams::default())
                .await?
                .items
                .len()
                == TARGETS)
    });
    settled
        .await
        .context(format!("{left} targets are elsewhere"))
}

/// The targets that were in none of the groups at some time, with the entry of the journal after which it was so.
fn gaps(journal: &Value, before: &str) -> Result<BTreeMap<String, Value>> {
    let mut groups: BTreeMap<String, BTreeSet<String>> = (0..TARGETS)
        .map(|index| (target(index), BTreeSet::from([before.to_owned()])))
        .collect();
    let mut gaps = BTreeMap::new();
    for entry in journal.as_array().context("a journal is a list")? {
        let text = |field: &str| {
            entry[field]
                .as_str()
                .context(field.to_owned())
                .map(str::to_owned)
        };
        let of = groups
            .get_mut(&text("target")?)
            .context("a target of the set")?;
        if text("action")? == "JoinSecurityGroup" {
            of.insert(text("securityGroupId")?);
        } else {
            of.remove(&text("securityGroupId")?);
        }
        if of.is_empty() {
            gaps.insert(text("target")?, entry.clone());
        }
    }
    Ok(gaps)
}

#[test]
fn a_leave_before_the_join_is_a_gap() {
    let entry = |action: &str, group: &str| json!({"action": action, "target": "i-n0", "securityGroupId": group});
    let (join, leave) = (
        entry("JoinSecurityGroup", "sg-b"),
        entry("LeaveSecurityGroup", "sg-a"),
    );
    assert!(gaps(&json!([join, leave]), "sg-a").unwrap().is_empty());
    assert_eq!(gaps(&json!([leave, join]), "sg-a").unwrap().len(), 1);
}
