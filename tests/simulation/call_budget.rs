//! What is asked of the cloud and told in events, to the count: each target once a period, each transition once.

use std::time::Duration;

use security_group_operator::api::RECONCILE_REQUESTED_ANNOTATION;
use serde_json::{Value, json};

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::scenario::{add_fault, object, seconds, told, world};
use crate::topology::{NAMESPACE, TEAMS};
use crate::world::World;

fn reason(world: &World, name: &str, type_: &str) -> String {
    let object = object(world, name).unwrap();
    condition(&object, type_).map_or_else(String::new, |condition| text(condition, "/reason"))
}

fn looks(world: &World) -> u64 {
    let looks = &world.simulator.stats()["calls"]["DescribeInstances"]["OK"];
    looks.as_u64().unwrap_or_default()
}

/// Has a user ask for a pass now.
fn ask(world: &World, name: &str) {
    world.patch(
        name,
        json!({"metadata": {"annotations": {RECONCILE_REQUESTED_ANNOTATION: "now"}}}),
    );
}

#[test]
fn each_target_is_read_once_per_scan_period() {
    // Also where the last block of a hundred is a full one.
    for (targets, blocks) in [(1, 1), (100, 1), (201, 3)] {
        in_virtual_time(|| async move {
            let world = world().await;
            let bulk: Vec<String> = (0..targets)
                .map(|target| format!("i-bulk{target}"))
                .collect();
            for id in &bulk {
                world.cloud(json!({"createInstance": {"id": id, "securityGroupIds": ["sg-base"]}}));
                let spec =
                    json!({"region": "cn-hangzhou", "instanceID": id, "securityGroupID": "sg-a"});
                let object = json!({"metadata": {"name": id}, "spec": spec});
                world.create(MEMBERSHIPS, NAMESPACE, object);
            }
            seconds(300.0).await;
            for id in &bulk {
                assert_eq!(reason(&world, id, "Ready"), "Joined");
            }
            let before = looks(&world);
            seconds(300.0).await;
            assert_eq!(looks(&world) - before, 5 * blocks, "{targets} targets");
            for id in bulk.iter().step_by(49) {
                world.cloud(json!({"leave": {"target": id, "securityGroupId": "sg-a"}}));
            }
            seconds(70.0).await;
            for id in bulk.iter().step_by(49) {
                assert!(world.is_member(id, "sg-a"), "{id}");
            }
        });
    }
}

/// A user changes the object 10 times a second for 30 seconds, in one of two ways.
async fn change_all_the_time(world: &World, name: &str, change: impl Fn(u32) -> Value) {
    for moment in 0..300 {
        world.patch(name, change(moment));
        seconds(0.1).await;
    }
}

#[test]
fn user_who_changes_an_object_all_the_time_causes_one_read_per_second() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        let before = looks(&world);
        let policies = ["Observe", "Manage"];
        change_all_the_time(
            &world,
            "m",
            |moment| json!({"spec": {"managementPolicy": policies[moment as usize % 2]}}),
        )
        .await;
        let read = looks(&world) - before;
        assert!((20..=31).contains(&read), "{read} reads in 30 s");
        seconds(5.0).await;
        assert_eq!(reason(&world, "m", "Ready"), "Joined");
    });
}

#[test]
fn user_who_asks_all_the_time_causes_one_refused_join_per_minute() {
    in_virtual_time(|| async {
        let world = world().await;
        let code = "SecurityGroupInstanceLimitExceeded";
        let how = json!({"error": {"code": code, "status": 403}});
        add_fault(&world, "JoinSecurityGroup", 1_000, &how);
        world.membership("m", 0, 0, json!({}));
        for _ in 0..4 {
            change_all_the_time(&world, "m", |moment| {
                let asked = json!({RECONCILE_REQUESTED_ANNOTATION: moment.to_string()});
                json!({"metadata": {"annotations": asked}})
            })
            .await;
        }
        let joins = &world.simulator.stats()["calls"]["JoinSecurityGroup"];
        assert_eq!(joins[code], 2, "in 2 minutes: {joins}");
    });
}

/// Objects of the cluster's and of the namespace's own account, both of one cloud account, on a hundred targets.
async fn two_accounts_of_one_cloud_account(own_targets: bool) -> World {
    let world = world().await;
    world.write_secret(TEAMS, 1);
    world.account(TEAMS, true);
    for target in 0..100 {
        let id = |of: usize| format!("i-bulk{}", target + if own_targets { 100 * of } else { 0 });
        for (of, account) in ["ClusterCloudAccount", "CloudAccount"].iter().enumerate() {
            let id = id(of);
            world.cloud(json!({"createInstance": {"id": id, "securityGroupIds": ["sg-base"]}}));
            let (name, group) = [("default", "sg-a"), ("own", "sg-b")][of];
            let spec = json!({
                "region": "cn-hangzhou", "instanceID": id, "securityGroupID": group,
                "accountRef": {"kind": account, "name": name},
            });
            let object = json!({"metadata": {"name": format!("{target}-{name}")}, "spec": spec});
            world.create(MEMBERSHIPS, NAMESPACE, object);
        }
    }
    seconds(300.0).await;
    world
}

#[test]
fn shared_target_of_two_accounts_is_read_once_per_scan_period() {
    for (own_targets, blocks) in [(false, 1), (true, 2)] {
        in_virtual_time(|| async move {
            let world = two_accounts_of_one_cloud_account(own_targets).await;
            for name in ["0-default", "0-own", "99-default", "99-own"] {
                assert_eq!(reason(&world, name, "Ready"), "Joined", "{name}");
            }
            let before = looks(&world);
            seconds(300.0).await;
            assert_eq!(
                looks(&world) - before,
                5 * blocks,
                "own targets: {own_targets}"
            );
        });
    }
}

#[test]
fn ready_object_is_read_only_by_scans() {
    let refuse = json!({"adoptionPolicy": "Refuse"});
    // Who refuses to adopt looks again by itself, every few minutes.
    for (foreign, policies, expected, passes) in [
        (false, &json!({}), "Joined", 1..=1),
        (true, &json!({}), "Adopted", 1..=1),
        (true, &refuse, "AdoptionRefused", 2..=6),
    ] {
        in_virtual_time(|| async move {
            let world = world().await;
            if foreign {
                world.foreign(0, 0, true);
            }
            world.membership("m", 0, 0, policies.clone());
            seconds(605.0).await;
            assert_eq!(reason(&world, "m", "Ready"), expected);
            let looks = looks(&world) - 10;
            assert!(passes.contains(&looks), "{expected}: ten scans and {looks}");
        });
    }
}

#[test]
fn reconcile_waits_for_a_watch_behind_our_writes() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(0.001).await;
        world.hold_back_events(0, Duration::from_secs(4));
        seconds(1.0).await;
        assert_eq!(reason(&world, "m", "Ready"), "Joined");
        assert_eq!(looks(&world), 1);
        // Asks for a pass, which would see an object without a claim.
        let label = json!({"metadata": {"labels": {"tier": "front"}}});
        world.user(Verb::Merge, "namespaces", "", NAMESPACE, label);
        seconds(2.0).await;
        assert_eq!(looks(&world), 1, "the view is older than what was written");
        seconds(5.0).await;
        assert_eq!(looks(&world), 2);
    });
}

#[test]
fn drift_and_repair_are_each_reported_once() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(10.0).await;
        world.foreign(0, 0, false);
        seconds(120.0).await;
        assert!(world.is_member("i-0", "sg-a"));
        assert_eq!(
            told(&world, "m"),
            ["DriftDetected", "DriftRepaired", "Joined"]
        );
    });
}

#[test]
fn drift_is_reported_if_repair_fails_not_if_it_waits() {
    let unavailable = json!({"error": {"code": "ServiceUnavailable"}});
    let throttle = json!({"throttle": {"retryAfter": "20s"}});
    for (how, count, drift) in [(&unavailable, 1_000, true), (&throttle, 1, false)] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(10.0).await;
            add_fault(&world, "JoinSecurityGroup", count, how);
            // Whoever meets the throttle first.
            world.membership("other", 1, 0, json!({}));
            seconds(0.4).await;
            world.foreign(0, 0, false);
            ask(&world, "m");
            seconds(5.0).await;
            assert!(!world.is_member("i-0", "sg-a"));
            assert_eq!(
                told(&world, "m").contains(&"DriftDetected".to_owned()),
                drift
            );
            // Whoever took it away puts it back before the operator may.
            world.foreign(0, 0, true);
            seconds(100.0).await;
            assert_eq!(
                told(&world, "m").contains(&"DriftDetected".to_owned()),
                drift
            );
        });
    }
}

#[test]
fn rate_limit_wait_over_a_minute_is_reported_once() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"set": {"limits": {"JoinSecurityGroup": 1}}}));
        for target in 0..3 {
            world.membership(&format!("early-{target}"), target, 0, json!({}));
        }
        seconds(10.0).await;
        world.membership("late", 0, 1, json!({}));
        seconds(59.0).await;
        let object = || world.server.object(MEMBERSHIPS, NAMESPACE, "late").unwrap();
        assert_eq!(reason(&world, "late", "Ready"), "Pending");
        seconds(2.0).await;
        assert_eq!(reason(&world, "late", "Ready"), "Throttled");
        assert_eq!(
            object()["status"]["lastError"],
            Value::Null,
            "it made no call"
        );
        let said = object()["metadata"]["resourceVersion"].clone();
        seconds(60.0).await;
        assert_eq!(object()["metadata"]["resourceVersion"], said);
        seconds(900.0).await;
        assert_eq!(reason(&world, "late", "Ready"), "Joined");
        assert_eq!(told(&world, "late"), ["Joined"]);
    });
}

#[test]
fn invalid_spec_is_reported_once_per_generation() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({"networkInterfaceID": "eni-1"}));
        seconds(10.0).await;
        let object = || world.server.object(MEMBERSHIPS, NAMESPACE, "m").unwrap();
        assert_eq!(object()["status"]["observedGeneration"], 1);
        assert_eq!(reason(&world, "m", "Ready"), "InvalidSpec");
        assert_eq!(reason(&world, "m", "Stalled"), "InvalidSpec");
        let effects = world.monitor.effects();
        ask(&world, "m");
        seconds(10.0).await;
        assert_eq!(world.monitor.effects(), effects);
        assert_eq!(told(&world, "m"), ["InvalidSpec"]);
        world.patch("m", json!({"spec": {"networkInterfaceID": Value::Null}}));
        seconds(10.0).await;
        assert_eq!(object()["status"]["observedGeneration"], 2);
        assert_eq!(reason(&world, "m", "Ready"), "Joined");
    });
}

#[test]
fn unreadable_object_is_reported_once() {
    in_virtual_time(|| async {
        let world = world().await;
        // As where the CRD is a newer one than the operator.
        world.membership("m", 0, 0, json!({"deletionPolicy": "Explode"}));
        seconds(10.0).await;
        assert_eq!(reason(&world, "m", "Stalled"), "InvalidSpec");
        let effects = world.monitor.effects();
        seconds(100.0).await;
        ask(&world, "m");
        seconds(10.0).await;
        assert_eq!(world.monitor.effects(), effects);
        assert_eq!(told(&world, "m"), ["InvalidSpec"]);
        world.patch("m", json!({"spec": {"deletionPolicy": "Remove"}}));
        seconds(10.0).await;
        assert_eq!(reason(&world, "m", "Ready"), "Joined");
    });
}

#[test]
fn scan_skips_suspended_and_ungranted_targets() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(10.0).await;
        world.patch("m", json!({"spec": {"suspend": true}}));
        seconds(1.0).await;
        let before = looks(&world);
        seconds(300.0).await;
        assert_eq!(looks(&world), before);
        world.patch("m", json!({"spec": {"suspend": false}}));
        seconds(1.0).await;
        assert_eq!(reason(&world, "m", "Ready"), "Joined");
        assert_eq!(told(&world, "m"), ["Joined"], "it has not joined again");
        world.grant(false);
        seconds(1.0).await;
        let before = looks(&world);
        seconds(300.0).await;
        assert_eq!(looks(&world), before);
        world.grant(true);
        seconds(70.0).await;
        assert!(looks(&world) >= before + 2, "its pass, and a scan");
    });
}

#[test]
fn failed_scan_batch_requeues_each_object() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        world.membership("other", 1, 0, json!({}));
        seconds(11.0).await;
        let malformed = json!({"error": {"code": "InvalidInstanceId.Malformed"}});
        add_fault(&world, "DescribeInstances", 1, &malformed);
        world.foreign(0, 0, false);
        seconds(61.0).await;
        assert!(world.is_member("i-0", "sg-a"));
    });
}
