//! Sets in virtual time: what counts as evidence, and for how long nothing does.

use std::sync::Arc;

use security_group_operator::kubernetes::WatchScope;
use serde_json::{Value, json};

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::judged::{Judged, world};
use crate::link::KillPoint;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::scenario::{calls, seconds};
use crate::topology::{KEYS, NAMESPACE};
use crate::world::World;

pub const SETS: &str = "securitygroupmembershipsets";
pub const MINUTE: f64 = 60.0;

/// Applies the set `s`.
pub fn apply(world: &World, spec: Value) {
    apply_set(world, "s", spec);
}

/// Applies a set of this name; its group is sg-a where the spec names no other.
pub fn apply_set(world: &World, name: &str, spec: Value) {
    let mut all = json!({"region": "cn-hangzhou", "securityGroupID": "sg-a"});
    all.as_object_mut()
        .unwrap()
        .extend(spec.as_object().unwrap().clone());
    let object = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet",
        "metadata": {"name": name}, "spec": all,
    });
    world.user(Verb::Apply, SETS, NAMESPACE, name, object);
}

/// A Node for i-0, i-1 or i-2.
pub fn node(world: &World, number: usize, labels: Value) {
    let name = format!("n-{number}");
    let object = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": {"providerID": format!("cn-hangzhou.i-{number}")},
    });
    world.user(Verb::Apply, "nodes", "", &name, object);
}

pub fn delete_node(world: &World, number: usize) {
    world.user(
        Verb::Delete,
        "nodes",
        "",
        &format!("n-{number}"),
        Value::Null,
    );
}

pub fn members(world: &World) -> Vec<Arc<Value>> {
    world.server.objects(MEMBERSHIPS)
}

/// What the set `s` says: the reason of Ready, and the numbers of targets, of ready ones and of objects.
pub fn told(world: &World) -> (String, [i64; 3]) {
    told_of(world, "s")
}

/// The same of a set of this name.
pub fn told_of(world: &World, name: &str) -> (String, [i64; 3]) {
    let set = world.server.object(SETS, NAMESPACE, name).unwrap();
    let reason = condition(&set, "Ready").map_or_else(String::new, |ready| text(ready, "/reason"));
    let count = |field: &str| set["status"][field].as_i64().unwrap_or(-1);
    let counts = ["targets", "readyTargets", "objects"].map(count);
    (reason, counts)
}

/// The message of Ready of a set.
pub fn message_of(world: &World, name: &str) -> String {
    let set = world.server.object(SETS, NAMESPACE, name).unwrap();
    text(condition(&set, "Ready").unwrap(), "/message")
}

pub fn within(world: &World) -> Vec<usize> {
    let is_member = |number: &usize| world.is_member(&format!("i-{number}"), "sg-a");
    (0..3).filter(is_member).collect()
}

pub fn web() -> Value {
    json!({"pool": "web"})
}

/// Three old Nodes that are joined.
pub async fn three_nodes() -> Judged {
    let world = world().await;
    for number in 0..3 {
        node(&world, number, web());
    }
    seconds(10.0 * MINUTE).await;
    apply(&world, json!({"nodeSelector": {"matchLabels": web()}}));
    seconds(10.0).await;
    assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
    assert_eq!(within(&world), [0, 1, 2]);
    world
}

#[test]
fn a_label_that_goes_counts_at_once_on_an_old_node_and_later_on_a_new_one() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        node(&world, 0, json!({}));
        seconds(5.0).await;
        assert_eq!(within(&world), [1, 2]);
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        // It registers anew, with its label; then the label goes.
        delete_node(&world, 1);
        node(&world, 1, web());
        seconds(MINUTE).await;
        node(&world, 1, json!({}));
        seconds(3.0 * MINUTE).await;
        assert_eq!(within(&world), [1, 2]);
        seconds(2.0 * MINUTE).await;
        assert_eq!(within(&world), [2]);
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 2);
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

#[test]
fn a_node_that_comes_back_within_five_minutes_changes_nothing() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        delete_node(&world, 0);
        seconds(4.0 * MINUTE).await;
        // As the kubelet registers it: the labels follow from the cloud controller manager.
        node(&world, 0, json!({}));
        seconds(4.0 * MINUTE).await;
        node(&world, 0, web());
        seconds(20.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_eq!(calls(&world, "JoinSecurityGroup"), 3);
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

#[test]
fn a_node_that_stays_away_is_left_after_five_minutes() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        delete_node(&world, 0);
        seconds(4.5 * MINUTE).await;
        assert_eq!(within(&world), [0, 1, 2]);
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 3]));
        seconds(MINUTE).await;
        assert_eq!(within(&world), [1, 2]);
        // Back: it is joined again.
        node(&world, 0, web());
        seconds(5.0).await;
        assert_eq!(within(&world), [0, 1, 2]);
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

#[test]
fn a_restart_begins_the_five_minutes_anew() {
    in_virtual_time(|| async {
        let mut world = three_nodes().await;
        delete_node(&world, 0);
        seconds(4.0 * MINUTE).await;
        world.kill(0);
        world.start(None);
        seconds(4.0 * MINUTE).await;
        assert_eq!(within(&world), [0, 1, 2]);
        seconds(2.0 * MINUTE).await;
        assert_eq!(within(&world), [1, 2]);
        assert_eq!(calls(&world, "JoinSecurityGroup"), 3);
        assert_eq!(members(&world).len(), 2);
    });
}

#[test]
fn a_selector_that_picks_nothing_removes_nothing_however_long() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        apply(
            &world,
            json!({"nodeSelector": {"matchLabels": {"pol": "web"}}}),
        );
        seconds(60.0 * MINUTE).await;
        assert_eq!(told(&world), ("NothingSelected".to_owned(), [0, 0, 3]));
        for number in 0..3 {
            delete_node(&world, number);
        }
        seconds(60.0 * MINUTE).await;
        assert_eq!(within(&world), [0, 1, 2]);
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
        // The instances are released: then their memberships go.
        for number in 0..3 {
            world.cloud(json!({"delete": {"id": format!("i-{number}")}}));
        }
        seconds(10.0 * MINUTE).await;
        assert_eq!(told(&world), ("NoTargets".to_owned(), [0, 0, 0]));
    });
}

/// J6.
#[test]
fn nothing_is_written_while_nothing_changes() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        seconds(MINUTE).await;
        let before = world.server.state().revision;
        // Heartbeats: other parts of the Nodes change.
        for round in 0..10 {
            for number in 0..3 {
                let beat = json!({"status": {"beat": round}});
                world.user(Verb::Merge, "nodes", "", &format!("n-{number}"), beat);
            }
            seconds(5.0 * MINUTE).await;
        }
        let beats = 30;
        // The status of the account tells the number of memberships once a minute, if it has changed.
        assert_eq!(world.server.state().revision, before + beats);
    });
}

/// Killed at every request of a change of group: whatever was begun is finished, and no target is ever in neither group.
#[test]
fn a_change_of_group_survives_a_kill_at_every_request() {
    let mut kills = 0;
    for at in 1..60 {
        for point in [KillPoint::Before, KillPoint::AfterEffect] {
            in_virtual_time(move || async move {
                let mut world = Judged::new();
                world.start(None);
                seconds(11.0).await;
                apply(&world, json!({"instanceIDs": ["i-0", "i-1"]}));
                seconds(10.0).await;
                assert_eq!(within(&world), [0, 1]);
                world.simulator.reset_stats();
                world.schedule_kill(at, point);
                apply(
                    &world,
                    json!({"instanceIDs": ["i-0", "i-1"], "securityGroupID": "sg-b"}),
                );
                for _ in 0..100 {
                    seconds(0.1).await;
                    if let Some(dead) = world.dead_incarnation() {
                        world.restart(dead);
                    }
                    for target in ["i-0", "i-1"] {
                        let is_member = |group| world.is_member(target, group);
                        assert!(is_member("sg-a") || is_member("sg-b"), "{at} {point:?}");
                    }
                }
                seconds(200.0).await;
                assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
                assert!(within(&world).is_empty(), "{at} {point:?}");
                assert_eq!(members(&world).len(), 2);
                assert_eq!(world.monitor.violations(), [""; 0]);
            });
            kills += 1;
        }
    }
    println!("{kills} kills");
}

pub fn tag(world: &World, number: usize, tags: Value) {
    let id = format!("i-{number}");
    world.cloud(json!({"setTags": {"id": id, "tags": tags}}));
}

/// Three instances that are joined by their tags.
pub async fn three_tagged() -> Judged {
    let world = world().await;
    for number in 0..3 {
        tag(&world, number, web());
    }
    // The scans of the accounts begin within a minute.
    seconds(MINUTE).await;
    apply(&world, json!({"instanceTags": web()}));
    seconds(10.0).await;
    assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
    world
}

#[test]
fn tags_that_go_one_by_one_leave_the_last_one() {
    in_virtual_time(|| async {
        let world = three_tagged().await;
        for (number, left) in [(0, &[1, 2][..]), (1, &[2]), (2, &[2])] {
            tag(&world, number, json!({"pool": "db"}));
            seconds(1.2 * MINUTE).await;
            assert_eq!(within(&world), left);
        }
        seconds(30.0 * MINUTE).await;
        assert_eq!(told(&world), ("NothingSelected".to_owned(), [0, 0, 1]));
        assert_eq!(within(&world), [2]);
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 2);
        tag(&world, 0, web());
        seconds(1.2 * MINUTE).await;
        assert_eq!(within(&world), [0]);
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

#[test]
fn the_membership_of_a_released_instance_goes_after_five_minutes() {
    in_virtual_time(|| async {
        let world = three_tagged().await;
        world.cloud(json!({"delete": {"id": "i-0"}}));
        seconds(4.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 3]));
        seconds(4.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        // To be certain the membership asks for its removal; there was nothing to remove.
        let stats = world.simulator.stats();
        assert_eq!(stats["calls"]["LeaveSecurityGroup"]["OK"], Value::Null);
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// For an hour the second page of the list, or all of it, cannot be read, also after a restart; meanwhile the cloud changes.
#[test]
fn a_list_of_tags_that_fails_for_an_hour_changes_nothing() {
    for (skip, restart) in [(0, false), (0, true), (1, false)] {
        in_virtual_time(move || async move {
            let mut world = three_tagged().await;
            // A page has ten rows or more: with these there are two.
            for number in 0..120 {
                let instance = json!({
                    "id": format!("i-bulk{number}"), "securityGroupIds": ["sg-base"],
                    "status": "Running", "tags": {"pool": "db"},
                });
                world.cloud(json!({"createInstance": instance}));
            }
            let cut = json!({
                "action": "DescribeInstances", "tag": "pool", "skip": skip,
                "fault": {"error": {"code": "ServiceUnavailable"}},
            });
            world
                .simulator
                .add_fault(serde_json::from_value(cut).unwrap());
            tag(&world, 0, json!({"pool": "db"}));
            apply(&world, json!({"instanceTags": {"pool": "db"}}));
            if restart {
                world.kill(0);
                world.start(None);
            }
            seconds(60.0 * MINUTE).await;
            let (reason, _) = told(&world);
            assert_eq!(reason, "SelectionIncomplete");
            assert_eq!(within(&world), [0, 1, 2]);
            assert_eq!(members(&world).len(), 3);
            assert_eq!(calls(&world, "JoinSecurityGroup"), 3);
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

/// S17: the list of 200 instances takes 2 calls a minute for all sets with the same tags, beside the scan of their memberships. (A list
/// of 1,000 takes 10: `set/tags.rs`.)
#[test]
fn two_hundred_instances_take_two_calls_a_minute_for_all_sets_with_their_tags() {
    in_virtual_time(|| async {
        let world = world().await;
        for number in 0..200 {
            let instance = json!({
                "id": format!("i-bulk{number}"), "securityGroupIds": ["sg-base"],
                "status": "Running", "tags": web(),
            });
            world.cloud(json!({"createInstance": instance}));
        }
        let set = |name: &str, group: &str| {
            let spec = json!({
                "region": "cn-hangzhou", "securityGroupID": group, "instanceTags": web(),
                "managementPolicy": "Observe",
            });
            let object = json!({
                "apiVersion": "security-group-operator.io/v1alpha1",
                "kind": "SecurityGroupMembershipSet", "metadata": {"name": name}, "spec": spec,
            });
            world.user(Verb::Apply, SETS, NAMESPACE, name, object);
        };
        set("s", "sg-a");
        seconds(5.0 * MINUTE).await;
        assert_eq!(members(&world).len(), 200);
        let a_minute = async |minutes: f64| {
            world.simulator.reset_stats();
            seconds(minutes * MINUTE).await;
            calls(&world, "DescribeInstances")
        };
        // The list, and the memberships by ID.
        assert_eq!(a_minute(10.0).await, 10 * (2 + 2));
        set("other", "sg-b");
        seconds(5.0 * MINUTE).await;
        assert_eq!(members(&world).len(), 400);
        assert_eq!(a_minute(10.0).await, 10 * (2 + 2));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// A set comes to select by the tags of another one.
#[test]
fn tags_that_no_set_selects_by_any_more_are_read_no_more() {
    in_virtual_time(|| async {
        let world = world().await;
        let set = |name: &str, tags: Value| {
            let object = json!({
                "apiVersion": "security-group-operator.io/v1alpha1",
                "kind": "SecurityGroupMembershipSet", "metadata": {"name": name},
                "spec": {"region": "cn-hangzhou", "securityGroupID": "sg-a", "instanceTags": tags},
            });
            world.user(Verb::Apply, SETS, NAMESPACE, name, object);
        };
        set("s", web());
        set("t", json!({"pool": "db"}));
        seconds(5.0 * MINUTE).await;
        world.simulator.reset_stats();
        seconds(5.0 * MINUTE).await;
        assert_eq!(calls(&world, "DescribeInstances"), 10);
        set("s", json!({"pool": "db"}));
        seconds(MINUTE).await;
        world.simulator.reset_stats();
        seconds(5.0 * MINUTE).await;
        assert_eq!(calls(&world, "DescribeInstances"), 5);
    });
}

/// The watch of sets breaks, and misses the end of a set.
#[test]
fn nothing_is_read_for_a_set_whose_end_the_watch_has_missed() {
    in_virtual_time(|| async {
        let world = three_tagged().await;
        let delete = || world.user(Verb::Delete, SETS, NAMESPACE, "s", Value::Null);
        world.faults.lose_events(SETS, 1);
        delete();
        seconds(10.0).await;
        for object in members(&world) {
            world.delete(&text(&object, "/metadata/name"));
        }
        seconds(5.0 * MINUTE).await;
        assert!(members(&world).is_empty());
        world.simulator.reset_stats();
        seconds(5.0 * MINUTE).await;
        assert_eq!(calls(&world, "DescribeInstances"), 0);
        // As one that was made again meanwhile under the same name.
        apply(&world, json!({"instanceTags": web()}));
        seconds(MINUTE).await;
        world.faults.lose_events(SETS, 1);
        delete();
        apply(&world, json!({"instanceIDs": ["i-0"]}));
        seconds(10.0).await;
        for object in members(&world) {
            world.delete(&text(&object, "/metadata/name"));
        }
        seconds(5.0 * MINUTE).await;
        assert_eq!(within(&world), [0]);
        world.simulator.reset_stats();
        seconds(5.0 * MINUTE).await;
        // The scan of the one membership, and no list by tags.
        assert_eq!(calls(&world, "DescribeInstances"), 5);
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// The operator lists anew, page by page: kube's store takes the list over at its end, and the first page shows what has changed.
#[test]
fn a_set_that_the_first_page_of_a_list_shows_gets_its_pass() {
    in_virtual_time(|| async {
        let world = world().await;
        for number in 0..120 {
            let name = format!("n{number}");
            apply_set(
                &world,
                &name,
                json!({"instanceIDs": ["i-1"], "suspend": true}),
            );
        }
        apply_set(&world, "a1", json!({"instanceIDs": ["i-1"]}));
        seconds(30.0).await;
        world.faults.slow_down_api(200);
        world.faults.lose_events(SETS, 1);
        apply_set(&world, "a0", json!({"instanceIDs": ["i-0"]}));
        apply_set(&world, "a1", json!({"instanceIDs": ["i-1", "i-2"]}));
        seconds(15.0).await;
        assert_eq!(told_of(&world, "a0"), ("AllMembers".to_owned(), [1, 1, 1]));
        assert_eq!(told_of(&world, "a1"), ("AllMembers".to_owned(), [2, 2, 2]));
    });
}

/// Five minutes without a Node, and five minutes without an instance, are not two and three of each.
#[test]
fn another_selector_begins_the_five_minutes_anew() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        delete_node(&world, 0);
        seconds(4.0 * MINUTE).await;
        for number in [1, 2] {
            tag(&world, number, web());
        }
        world.cloud(json!({"delete": {"id": "i-0"}}));
        apply(&world, json!({"nodeSelector": null, "instanceTags": web()}));
        seconds(4.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 3]));
        seconds(4.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// Another cloud account lists none of the instances, and has none of their tags.
#[test]
fn the_key_of_another_cloud_account_is_no_evidence_against_an_instance() {
    for policy in ["Manage", "Observe"] {
        in_virtual_time(move || async move {
            let world = three_tagged().await;
            apply(
                &world,
                json!({"instanceTags": web(), "managementPolicy": policy}),
            );
            seconds(MINUTE).await;
            let before: Vec<_> = members(&world)
                .iter()
                .map(|object| text(object, "/metadata/uid"))
                .collect();
            world.write_secret(0, KEYS.len() - 1);
            seconds(30.0 * MINUTE).await;
            assert_eq!(within(&world), [0, 1, 2]);
            world.write_secret(0, 0);
            seconds(10.0 * MINUTE).await;
            assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
            let after: Vec<_> = members(&world)
                .iter()
                .map(|object| text(object, "/metadata/uid"))
                .collect();
            assert_eq!(before, after);
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

/// Somebody takes the set off one of its memberships: the set takes it over again, and does not say that all is well without it.
#[test]
fn a_membership_that_is_released_by_hand_is_taken_over_again() {
    in_virtual_time(|| async {
        let world = world().await;
        apply(&world, json!({"instanceIDs": ["i-0", "i-1"]}));
        seconds(10.0).await;
        let released = text(&members(&world)[0], "/metadata/name");
        let no_owner = json!({"metadata": {"ownerReferences": null}});
        world.user(Verb::Merge, MEMBERSHIPS, NAMESPACE, &released, no_owner);
        seconds(10.0).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        let owned = |object: &Arc<Value>| object["metadata"]["ownerReferences"].is_array();
        assert!(members(&world).iter().all(owned));
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
    });
}

/// An interface is not what tags select: it goes, like an ID that is taken off a list.
#[test]
fn a_set_of_interfaces_that_selects_by_tags_lets_the_interfaces_go() {
    in_virtual_time(|| async {
        let world = world().await;
        tag(&world, 0, web());
        apply(&world, json!({"networkInterfaceIDs": ["eni-0", "eni-1"]}));
        seconds(10.0).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        apply(&world, json!({"instanceTags": web()}));
        seconds(2.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 1]));
        assert!(world.is_member("i-0", "sg-a") && !world.is_member("eni-1", "sg-a"));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// A target that the cloud does not list keeps no set from Ready, also while its group changes.
#[test]
fn an_instance_that_is_not_there_does_not_hold_up_a_change_of_group() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"delete": {"id": "i-1"}}));
        apply(&world, json!({"instanceIDs": ["i-0", "i-1"]}));
        seconds(10.0).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 1, 2]));
        let other = json!({"instanceIDs": ["i-0", "i-1"], "securityGroupID": "sg-b"});
        apply(&world, other);
        seconds(5.0 * MINUTE).await;
        // What it would have left is kept until it is not selected any more.
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 1, 3]));
        apply(
            &world,
            json!({"instanceIDs": ["i-0"], "securityGroupID": "sg-b"}),
        );
        seconds(10.0).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 1]));
    });
}

/// A pass that does not know the last status of its own from the watch yet does not take an older one for it.
#[test]
fn a_watch_that_lags_behind_the_status_of_a_set_leaves_no_wrong_one() {
    in_virtual_time(|| async {
        let world = world().await;
        apply(&world, json!({"instanceIDs": ["i-0"]}));
        seconds(10.0).await;
        let lag = std::time::Duration::from_secs(5);
        world.faults.hold_back_sets(lag);
        world.grant(false);
        seconds(2.0).await;
        assert_eq!(told(&world).0, "NotGranted");
        world.grant(true);
        seconds(10.0).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 1]));
    });
}

/// An operator that watches some namespaces serves the sets in them.
#[test]
fn sets_of_other_namespaces_are_let_be() {
    in_virtual_time(|| async {
        let mut world = Judged::new();
        let guests = WatchScope::Namespace(crate::topology::GUESTS.to_owned());
        world.start_over(vec![guests], &Arc::default());
        seconds(11.0).await;
        apply(&world, json!({"instanceIDs": ["i-0"]}));
        seconds(60.0).await;
        assert!(members(&world).is_empty());
        assert!(within(&world).is_empty());
    });
}
