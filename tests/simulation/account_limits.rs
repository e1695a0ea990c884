//! The limits that an account's spec sets: the statistics of the cloud count what begins in each minute.

use serde_json::{Value, json};

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::monitor::MEMBERSHIPS;
use crate::scenario::{calls, ready, seconds, world};
use crate::topology::{ACCOUNTS, CLUSTER, NAMESPACE, TEAMS};
use crate::world::World;

const JOIN: &str = "JoinSecurityGroup";
const LEAVE: &str = "LeaveSecurityGroup";

fn limit(world: &World, account: usize, limits: &Value) {
    let account = &ACCOUNTS[account];
    let patch = json!({"spec": {"limits": limits}});
    world.user(
        Verb::Merge,
        account.plural,
        account.namespace,
        account.name,
        patch,
    );
}

/// Creates instances and a membership of each that names the account.
fn memberships(world: &World, prefix: &str, count: usize, account: &Value) {
    for number in 0..count {
        let id = format!("i-bulk{prefix}{number}");
        let instance = json!({"id": id, "securityGroupIds": ["sg-base"], "status": "Running"});
        world.cloud(json!({"createInstance": instance}));
        let spec = json!({"region": "cn-hangzhou", "instanceID": id, "securityGroupID": "sg-a", "accountRef": account});
        let object = json!({"metadata": {"name": id}, "spec": spec});
        world.create(MEMBERSHIPS, NAMESPACE, object);
    }
}

fn cluster() -> Value {
    json!({"kind": "ClusterCloudAccount", "name": "default"})
}

fn own() -> Value {
    json!({"kind": "CloudAccount", "name": "own"})
}

/// How many calls of an action the cloud has counted, once every half second.
async fn counted(world: &World, action: &str, half_minutes: usize) -> Vec<u64> {
    let mut counts = vec![calls(world, action)];
    for _ in 0..half_minutes * 60 {
        seconds(0.5).await;
        counts.push(calls(world, action));
    }
    counts
}

/// The most calls in any minute. What begins within a minute may arrive a little later, so that a minute is a second shorter here.
fn most_in_a_minute(counts: &[u64]) -> u64 {
    let minutes = counts.windows(119).map(|minute| minute[118] - minute[0]);
    minutes.max().unwrap_or_default()
}

fn total(counts: &[u64]) -> u64 {
    counts[counts.len() - 1] - counts[0]
}

#[test]
fn no_minute_has_more_calls_than_the_limit_of_the_account() {
    in_virtual_time(|| async {
        let world = world().await;
        limit(&world, CLUSTER, &json!({JOIN: 60}));
        // In the middle of a minute of the operator, and of the cloud.
        seconds(47.0).await;
        memberships(&world, "", 250, &cluster());
        let counts = counted(&world, JOIN, 8).await;
        assert_eq!(most_in_a_minute(&counts), 60);
        assert!(total(&counts) >= 235, "{} in four minutes", total(&counts));
    });
}

#[test]
fn changed_limit_counts_without_a_restart_and_a_removed_one_no_more() {
    in_virtual_time(|| async {
        let world = world().await;
        limit(&world, CLUSTER, &json!({JOIN: 30}));
        seconds(1.0).await;
        memberships(&world, "", 500, &cluster());
        let slow = counted(&world, JOIN, 3).await;
        limit(&world, CLUSTER, &json!({JOIN: 120}));
        seconds(60.0).await;
        let faster = counted(&world, JOIN, 4).await;
        limit(&world, CLUSTER, &json!({JOIN: 12}));
        seconds(60.0).await;
        let slowest = counted(&world, JOIN, 4).await;
        assert_eq!(most_in_a_minute(&slow), 30);
        assert_eq!(most_in_a_minute(&faster), 120);
        assert_eq!(most_in_a_minute(&slowest), 12);
        limit(&world, CLUSTER, &Value::Null);
        seconds(62.0).await;
        assert_eq!(calls(&world, JOIN), 500, "no limit was learned");
    });
}

/// How often the cloud has throttled an action.
fn throttled(world: &World, action: &str) -> u64 {
    let counts = &world.simulator.stats()["calls"][action];
    let codes = counts.as_object().into_iter().flatten();
    let throttled = codes.filter(|(code, _)| code.starts_with("Throttling"));
    throttled.filter_map(|(_, count)| count.as_u64()).sum()
}

/// S2: what is in flight when a limit is met for the first time is rejected, and so is what tries a limit that has fallen.
#[test]
fn one_join_in_a_hundred_is_rejected_while_a_limit_is_learned_and_halved() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"set": {"limits": {JOIN: 333}, "latency": "30ms"}}));
        memberships(&world, "", 700, &cluster());
        seconds(60.0).await;
        world.cloud(json!({"set": {"limits": {JOIN: 166}}}));
        seconds(120.0).await;
        let (made, rejected) = (calls(&world, JOIN), throttled(&world, JOIN));
        assert!(made >= 333 + 166, "{made} Joins");
        assert!(
            rejected * 100 <= made,
            "{rejected} of {made} Joins were rejected"
        );
    });
}

/// A team that has a key of the platform's cloud account does not slow down the others by its number.
#[test]
fn limits_of_cluster_accounts_count_before_those_of_namespaces_and_the_smallest_of_them() {
    in_virtual_time(|| async {
        let world = world().await;
        world.write_secret(TEAMS, 0);
        world.account(TEAMS, true);
        limit(&world, CLUSTER, &json!({JOIN: 90}));
        limit(&world, TEAMS, &json!({JOIN: 1}));
        seconds(2.0).await;
        memberships(&world, "a", 180, &cluster());
        memberships(&world, "b", 180, &own());
        let counts = counted(&world, JOIN, 4).await;
        assert_eq!(most_in_a_minute(&counts), 90);
        let account = &ACCOUNTS[CLUSTER];
        let first = world.server.object(account.plural, "", account.name);
        let mut spec = first.unwrap()["spec"].clone();
        spec["limits"] = json!({JOIN: 40});
        let second = json!({"metadata": {"name": "second"}, "spec": spec});
        world.create(account.plural, "", second);
        seconds(60.0).await;
        let counts = counted(&world, JOIN, 2).await;
        assert_eq!(most_in_a_minute(&counts), 40);
    });
}

#[test]
fn cloud_that_throttles_below_the_limit_of_the_account_is_followed() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"set": {"limits": {JOIN: 60}}}));
        limit(&world, CLUSTER, &json!({JOIN: 240}));
        seconds(1.0).await;
        memberships(&world, "", 480, &cluster());
        seconds(120.0).await;
        let before = throttled(&world, JOIN);
        assert!(before > 0);
        let counts = counted(&world, JOIN, 6).await;
        assert!(
            throttled(&world, JOIN) - before <= 3,
            "{} more",
            throttled(&world, JOIN) - before
        );
        assert!(total(&counts) >= 170, "{} in three minutes", total(&counts));
        // The cloud admits more again: the limit of the account is the most that is tried.
        world.cloud(json!({"set": {"limits": {JOIN: 100_000}}}));
        limit(&world, CLUSTER, &json!({JOIN: 66}));
        memberships(&world, "more", 700, &cluster());
        seconds(62.0).await;
        let counts = counted(&world, JOIN, 16).await;
        assert_eq!(most_in_a_minute(&counts), 66, "of 75 that would be tried");
    });
}

#[test]
fn removals_go_on_under_a_limit_of_one_call_per_minute() {
    in_virtual_time(|| async {
        let world = world().await;
        memberships(&world, "", 3, &cluster());
        seconds(5.0).await;
        limit(&world, CLUSTER, &json!({LEAVE: 1}));
        seconds(1.0).await;
        for number in 0..3 {
            world.delete(&format!("i-bulk{number}"));
        }
        let counts = counted(&world, LEAVE, 6).await;
        assert_eq!(most_in_a_minute(&counts), 1);
        assert_eq!(total(&counts), 3);
        assert!(world.server.objects(MEMBERSHIPS).is_empty());
    });
}

#[test]
fn changed_limit_wakes_no_object() {
    in_virtual_time(|| async {
        let world = world().await;
        memberships(&world, "", 20, &cluster());
        seconds(70.0).await;
        assert_eq!(ready(&world, "i-bulk0").1, "Joined");
        let versions = || {
            let objects = world.objects();
            let versions = objects
                .iter()
                .map(|object| object["metadata"]["resourceVersion"].clone());
            versions.collect::<Vec<_>>()
        };
        let before = versions();
        // Scans come once per minute: the first quiet second after one.
        let reads = calls(&world, "DescribeInstances");
        while calls(&world, "DescribeInstances") == reads {
            seconds(0.5).await;
        }
        seconds(2.0).await;
        world.simulator.reset_stats();
        limit(
            &world,
            CLUSTER,
            &json!({JOIN: 600, "DescribeInstances": 100}),
        );
        seconds(20.0).await;
        assert_eq!(calls(&world, "DescribeInstances"), 0);
        assert_eq!(calls(&world, JOIN), 0);
        assert!(calls(&world, "GetCallerIdentity") <= 1);
        assert_eq!(versions(), before);
    });
}
