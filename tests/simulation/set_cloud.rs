//! Sets in virtual time: what the cloud refuses or says, and what becomes of a set's memberships and of the edges that they made.

use std::sync::Arc;
use std::time::Duration;

use security_group_operator::api::SET_MANAGER;
use serde_json::{Value, json};

use crate::api_server::{Call, Verb};
use crate::in_virtual_time;
use crate::judged::{Judged, world};
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::scenario::{calls, seconds};
use crate::set_kubernetes::collect_garbage;
use crate::set_schedule::garbage::Cascade;
use crate::sets::{
    MINUTE, SETS, apply, apply_set, members, message_of, node, tag, three_nodes, three_tagged,
    told, told_of, web, within,
};
use crate::topology::{CLUSTER, KEYS, NAMESPACE};
use crate::world::World;

/// Two instances in sg-a by a set.
pub async fn two_joined(more: &Value) -> Judged {
    let world = world().await;
    apply(&world, with(more));
    seconds(10.0).await;
    assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
    world
}

/// The spec of [`two_joined`].
fn with(more: &Value) -> Value {
    let mut spec = json!({"instanceIDs": ["i-0", "i-1"]});
    let fields = spec.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    spec
}

fn is_stalled(world: &World, name: &str) -> bool {
    let set = world.server.object(SETS, NAMESPACE, name).unwrap();
    condition(&set, "Stalled").is_some_and(|stalled| stalled["status"] == "True")
}

/// How often the operator has joined and left an edge with effect, by the journal of the cloud.
fn effects(world: &World, target: &str, group: &str) -> [usize; 2] {
    let entries = world.simulator.journal_from(0);
    let of_edge = entries.iter().filter(|entry| {
        entry["target"] == target && entry["securityGroupId"] == group && entry["by"] == KEYS[0].0
    });
    let of_edge: Vec<_> = of_edge.collect();
    ["JoinSecurityGroup", "LeaveSecurityGroup"].map(|action| {
        let of_action = of_edge.iter().filter(|entry| entry["action"] == action);
        of_action.count()
    })
}

fn assert_no_violations(world: &World) {
    world.monitor.read_journal();
    assert_eq!(world.monitor.violations(), [""; 0]);
}

#[test]
fn with_retain_the_membership_of_an_unlabelled_node_goes_and_its_edge_stays() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        let selector = json!({"matchLabels": web()});
        apply(
            &world,
            json!({"nodeSelector": selector, "deletionPolicy": "Retain"}),
        );
        seconds(10.0).await;
        node(&world, 0, json!({}));
        seconds(10.0).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        assert_eq!(members(&world).len(), 2);
        seconds(10.0 * MINUTE).await;
        assert_eq!(within(&world), [0, 1, 2]);
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
        assert_no_violations(&world);
    });
}

/// Writes of memberships by the set.
fn is_of_set(call: &Call) -> bool {
    let manager = call.query.get("fieldManager").map(String::as_str);
    let by_set = manager == Some(SET_MANAGER);
    call.kind.plural == MEMBERSHIPS && (by_set || call.verb == Verb::Delete)
}

/// Deleted at many moments of a change of group, with each policy, in the background and in the foreground. The requests of the change
/// take some 400 ms.
#[test]
fn a_set_that_is_deleted_while_its_group_changes_writes_nothing_more() {
    for policy in ["RemoveIfJoined", "Retain"] {
        for cascade in [Cascade::Background, Cascade::Foreground] {
            for moment in 0..12 {
                in_virtual_time(move || delete_while_the_group_changes(policy, cascade, moment));
            }
        }
    }
}

async fn delete_while_the_group_changes(policy: &str, cascade: Cascade, moment: u32) {
    let what = format!("{policy} {cascade:?} {moment}");
    let world = two_joined(&json!({"deletionPolicy": policy})).await;
    collect_garbage(&world);
    world.faults.slow_down_api(20);
    let moved = json!({"deletionPolicy": policy, "securityGroupID": "sg-b"});
    apply(&world, with(&moved));
    seconds(f64::from(moment) * 0.06).await;
    if let Some(finalizer) = cascade.finalizer() {
        let marked = json!({"metadata": {"finalizers": [finalizer]}});
        world.user(Verb::Merge, SETS, NAMESPACE, "s", marked);
    }
    world.user(Verb::Delete, SETS, NAMESPACE, "s", Value::Null);
    // The pass that runs ends with its batch.
    seconds(0.1).await;
    world.faults.record_requests();
    seconds(3.0 * MINUTE).await;
    assert_eq!(world.faults.recorded(is_of_set).len(), 0, "{what}");
    assert_eq!(members(&world).len(), 0, "{what}");
    assert!(
        world.server.object(SETS, NAMESPACE, "s").is_none(),
        "{what}"
    );
    for target in ["i-0", "i-1"] {
        let groups = ["sg-a", "sg-b"].map(|group| world.is_member(target, group));
        match policy {
            "Retain" => assert_ne!(groups, [false, false], "{target} {what}"),
            _ => assert_eq!(groups, [false, false], "{target} {what}"),
        }
        let [joins, leaves] = effects(&world, target, "sg-b");
        assert!(joins <= 1 && leaves <= 1, "{target} {what}");
    }
    if policy == "Retain" {
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0, "{what}");
    }
    assert_no_violations(&world);
}

#[test]
fn a_change_to_a_group_that_is_not_granted_keeps_the_old_one() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        world.set_grants(&json!([{
            "name": "one", "namespaces": {"names": [NAMESPACE]}, "securityGroups": {"ids": ["sg-a"]},
        }]));
        apply(&world, with(&json!({"securityGroupID": "sg-b"})));
        seconds(30.0 * MINUTE).await;
        // Nothing is made that would say so once more.
        assert_eq!(told(&world), ("NotGranted".to_owned(), [2, 0, 2]));
        assert!(is_stalled(&world, "s"));
        let message = message_of(&world, "s");
        assert!(
            message.contains("sg-b") && message.contains("grant"),
            "{message}"
        );
        assert_eq!(within(&world), [0, 1]);
        assert_eq!(calls(&world, "JoinSecurityGroup"), 2);
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
        world.grant(true);
        seconds(30.0).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        assert!(world.is_member("i-0", "sg-b") && within(&world).is_empty());
        assert_no_violations(&world);
    });
}

/// Groups that the cloud refuses, each for another reason: the old edges stay, and the set says the reason and how many.
#[test]
fn a_change_to_a_group_that_the_cloud_refuses_keeps_the_old_one() {
    let foreign = json!({"id": "sg-foreign", "account": "1000000000000002"});
    let elsewhere = json!({"id": "sg-elsewhere", "vpcId": "vpc-elsewhere"});
    let full = json!({"id": "sg-full", "quota": 0});
    for (group, spec, reason) in [
        (
            "sg-foreign",
            Some(foreign),
            "InvalidSecurityGroupIdNotFound",
        ),
        ("sg-nowhere", None, "InvalidSecurityGroupIdNotFound"),
        ("sg-elsewhere", Some(elsewhere), "InvalidInstanceIdMismatch"),
        ("sg-full", Some(full), "SecurityGroupInstanceLimitExceeded"),
    ] {
        in_virtual_time(move || async move {
            let world = two_joined(&json!({})).await;
            if let Some(spec) = spec {
                world.cloud(json!({"createGroup": spec}));
            }
            apply(&world, with(&json!({"securityGroupID": group})));
            seconds(MINUTE).await;
            let (told_reason, counts) = told(&world);
            let message = message_of(&world, "s");
            assert_eq!(told_reason, reason, "{group}: {message}");
            assert_eq!(counts, [2, 0, 4], "{group}");
            assert!(message.contains(&format!("{reason} (2)")), "{message}");
            assert!(is_stalled(&world, "s"), "{group}");
            assert_eq!(within(&world), [0, 1], "{group}");
            seconds(60.0 * MINUTE).await;
            assert_eq!(within(&world), [0, 1], "{group}");
            let joins = calls(&world, "JoinSecurityGroup");
            assert!(joins < 2 + 2 * 20, "{group}: {joins} Joins in an hour");
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0, "{group}");
            // Back again.
            apply(&world, with(&json!({})));
            seconds(MINUTE).await;
            assert_eq!(
                told(&world),
                ("AllMembers".to_owned(), [2, 2, 2]),
                "{group}"
            );
            assert_eq!(effects(&world, "i-0", "sg-a"), [1, 0], "{group}");
            assert_no_violations(&world);
        });
    }
}

/// The group changes and changes back, a little later each time.
#[test]
fn a_change_of_group_that_is_taken_back_half_way_leaves_no_gap() {
    for moment in 0..15 {
        in_virtual_time(move || async move {
            let world = two_joined(&json!({})).await;
            world.faults.slow_down_api(20);
            apply(&world, with(&json!({"securityGroupID": "sg-b"})));
            let watch = async |rounds: u32| {
                for _ in 0..rounds {
                    seconds(0.01).await;
                    for target in ["i-0", "i-1"] {
                        let is_member = |group| world.is_member(target, group);
                        assert!(is_member("sg-a") || is_member("sg-b"), "{target} {moment}");
                    }
                }
            };
            watch(moment * 5).await;
            apply(&world, with(&json!({})));
            watch(1_000).await;
            seconds(MINUTE).await;
            assert_eq!(
                told(&world),
                ("AllMembers".to_owned(), [2, 2, 2]),
                "{moment}"
            );
            assert_eq!(within(&world), [0, 1], "{moment}");
            assert!(!world.is_member("i-0", "sg-b") && !world.is_member("i-1", "sg-b"));
            assert_no_violations(&world);
        });
    }
}

/// The cloud does not let a target leave its last group: the set says so, asks seldom, and ends when somebody has acted.
#[test]
fn a_membership_that_cannot_leave_its_last_group_is_told() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        world.cloud(json!({"leave": {"target": "i-0", "securityGroupId": "sg-base"}}));
        apply(&world, json!({"instanceIDs": ["i-1"]}));
        seconds(MINUTE).await;
        let (reason, counts) = told(&world);
        assert_eq!(
            (reason.as_str(), counts),
            ("InstanceLastSecurityGroup", [1, 1, 2])
        );
        assert!(is_stalled(&world, "s"));
        let message = message_of(&world, "s");
        assert!(
            message.contains("1 of 2 memberships need somebody"),
            "{message}"
        );
        seconds(60.0 * MINUTE).await;
        let leaves = calls(&world, "LeaveSecurityGroup");
        assert!((2..=16).contains(&leaves), "{leaves} Leaves in an hour");
        // It is selected again, while its membership still goes.
        apply(&world, with(&json!({})));
        seconds(MINUTE).await;
        let (reason, counts) = told(&world);
        assert_eq!(
            (reason.as_str(), counts),
            ("InstanceLastSecurityGroup", [2, 1, 2])
        );
        assert_eq!(members(&world).len(), 2);
        // Somebody gives it another group: the old membership goes, and is made anew.
        world.cloud(json!({"join": {"target": "i-0", "securityGroupId": "sg-base"}}));
        seconds(40.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        assert_eq!(within(&world), [0, 1]);
        assert_eq!(effects(&world, "i-0", "sg-a"), [2, 1]);
        assert_no_violations(&world);
    });
}

/// The same for the former group after a change: the target is in both groups until then.
#[test]
fn a_former_group_that_cannot_be_left_is_told_and_keeps_no_target_from_the_new_one() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        let fault = json!({
            "action": "LeaveSecurityGroup", "target": "i-0",
            "fault": {"error": {"code": "InstanceLastSecurityGroup"}},
        });
        world
            .simulator
            .add_fault(serde_json::from_value(fault).unwrap());
        apply(&world, with(&json!({"securityGroupID": "sg-b"})));
        seconds(60.0 * MINUTE).await;
        let (reason, counts) = told(&world);
        assert_eq!(
            (reason.as_str(), counts),
            ("InstanceLastSecurityGroup", [2, 2, 3])
        );
        for target in ["i-0", "i-1"] {
            assert!(world.is_member(target, "sg-b"), "{target}");
        }
        assert_eq!(within(&world), [0]);
        let leaves = calls(&world, "LeaveSecurityGroup");
        assert!((2..=16).contains(&leaves), "{leaves} Leaves in an hour");
        assert_eq!(calls(&world, "JoinSecurityGroup"), 4);
        world.simulator.set_faults(Vec::new());
        seconds(40.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        assert!(within(&world).is_empty());
        assert_no_violations(&world);
    });
}

#[test]
fn two_sets_of_one_edge_join_it_once_and_the_last_one_leaves() {
    in_virtual_time(|| async {
        let world = world().await;
        collect_garbage(&world);
        let ids = json!({"instanceIDs": ["i-0"]});
        apply(&world, ids.clone());
        apply_set(&world, "other", ids);
        seconds(30.0).await;
        for name in ["s", "other"] {
            assert_eq!(told_of(&world, name), ("AllMembers".to_owned(), [1, 1, 1]));
        }
        assert_eq!(members(&world).len(), 2);
        assert_eq!(calls(&world, "JoinSecurityGroup"), 1);
        let reasons: Vec<String> = members(&world)
            .iter()
            .map(|object| text(condition(object, "Ready").unwrap(), "/reason"))
            .collect();
        assert!(reasons.contains(&"Shared".to_owned()), "{reasons:?}");
        // Whichever has joined: the one that goes hands it on.
        world.user(Verb::Delete, SETS, NAMESPACE, "s", Value::Null);
        seconds(MINUTE).await;
        assert_eq!(members(&world).len(), 1);
        assert!(world.is_member("i-0", "sg-a"));
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
        assert_eq!(
            told_of(&world, "other"),
            ("AllMembers".to_owned(), [1, 1, 1])
        );
        world.user(Verb::Delete, SETS, NAMESPACE, "other", Value::Null);
        seconds(MINUTE).await;
        assert_eq!(members(&world).len(), 0);
        assert_eq!(effects(&world, "i-0", "sg-a"), [1, 1]);
        assert_no_violations(&world);
    });
}

/// Two sets of one target with other groups take nothing from each other.
#[test]
fn two_sets_of_one_target_keep_both_groups() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        apply_set(&world, "other", with(&json!({"securityGroupID": "sg-b"})));
        seconds(10.0).await;
        apply(&world, json!({"instanceIDs": ["i-1"]}));
        seconds(MINUTE).await;
        assert_eq!(
            told_of(&world, "other"),
            ("AllMembers".to_owned(), [2, 2, 2])
        );
        assert!(world.is_member("i-0", "sg-b") && world.is_member("i-1", "sg-b"));
        assert_eq!(within(&world), [1]);
        assert_no_violations(&world);
    });
}

/// The list of the instances with the tags is throttled, with and without the time of the next call; meanwhile the tags change.
#[test]
fn a_list_of_tags_that_is_throttled_removes_nothing_and_is_told() {
    for throttle in [json!({}), json!({"retryAfter": "30s"})] {
        in_virtual_time(move || async move {
            let world = three_tagged().await;
            let fault = json!({
                "action": "DescribeInstances", "tag": "pool", "fault": {"throttle": throttle},
            });
            world
                .simulator
                .add_fault(serde_json::from_value(fault).unwrap());
            tag(&world, 0, json!({"pool": "db"}));
            apply_set(&world, "new", json!({"instanceTags": {"pool": "db"}}));
            world.faults.record_requests();
            seconds(3.0 * MINUTE).await;
            let (reason, _) = told_of(&world, "new");
            assert_eq!(
                reason,
                "SelectionIncomplete",
                "{}",
                message_of(&world, "new")
            );
            assert!(!is_stalled(&world, "new"));
            seconds(57.0 * MINUTE).await;
            assert_eq!(within(&world), [0, 1, 2]);
            assert_eq!(members(&world).len(), 3);
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
            let status =
                |call: &Call| call.kind.plural == SETS && call.status && call.verb.writes();
            let writes = world.faults.recorded(status).len();
            assert!(writes <= 4, "{writes} writes");
            world.simulator.set_faults(Vec::new());
            seconds(10.0 * MINUTE).await;
            assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
            assert_eq!(told_of(&world, "new"), ("AllMembers".to_owned(), [1, 1, 1]));
            assert_no_violations(&world);
        });
    }
}

/// The Secret of the account gets a key of another cloud account, and then the old one again. The other cloud account has an instance with
/// the tags, and does not list those of the first: that is no evidence against them.
#[test]
fn a_key_of_another_cloud_account_is_no_evidence_against_the_members() {
    in_virtual_time(|| async {
        let world = three_tagged().await;
        instance_of_theirs(&world);
        let uids = || {
            let all = members(&world);
            let ours = all
                .iter()
                .filter(|object| object["spec"]["instanceID"] != "i-theirs");
            let mut uids: Vec<_> = ours.map(|object| text(object, "/metadata/uid")).collect();
            uids.sort();
            uids
        };
        let before = uids();
        world.write_secret(CLUSTER, 2);
        seconds(30.0 * MINUTE).await;
        // The list was read with the other key: it shows what that cloud account has.
        let is_theirs = |object: &&Arc<Value>| object["spec"]["instanceID"] == "i-theirs";
        assert_eq!(members(&world).iter().filter(is_theirs).count(), 1);
        assert_eq!(uids(), before);
        assert_none_is_going(&world);
        world.write_secret(CLUSTER, 0);
        seconds(30.0 * MINUTE).await;
        assert_eq!(uids(), before);
        assert_eq!(within(&world), [0, 1, 2]);
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
        for target in ["i-0", "i-1", "i-2"] {
            assert_eq!(effects(&world, target, "sg-a"), [1, 0], "{target}");
        }
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_no_violations(&world);
    });
}

/// The cloud lists nothing to the key instead of refusing, and would let it leave.
#[test]
fn a_key_that_sees_nothing_is_no_evidence_against_the_members() {
    in_virtual_time(|| async {
        let world = three_tagged().await;
        world.cloud(json!({"set": {"deniedReads": "EmptyList"}}));
        let key = KEYS[0].0;
        world.cloud(json!({"deny": {"id": key, "deny": [{"action": "ecs:Describe*"}]}}));
        seconds(30.0 * MINUTE).await;
        assert_none_is_going(&world);
        assert_eq!(within(&world), [0, 1, 2]);
        assert_eq!(told(&world).0, "SelectionIncomplete");
        assert!(is_stalled(&world, "s"));
        let message = message_of(&world, "s");
        assert!(
            message.contains("grant it ecs:DescribeInstances"),
            "{message}"
        );
        world.cloud(json!({"allow": {"id": key}}));
        seconds(5.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
        assert_no_violations(&world);
    });
}

/// A pool that is scaled to zero. The key sees another instance.
#[test]
fn memberships_of_a_pool_that_was_released_as_a_whole_go() {
    in_virtual_time(|| async {
        let world = three_tagged().await;
        world.cloud(json!({"createInstance": {
            "id": "i-other", "account": KEYS[0].2, "securityGroupIds": ["sg-b"], "status": "Running",
        }}));
        for id in ["i-0", "i-1", "i-2"] {
            world.cloud(json!({"delete": {"id": id}}));
        }
        seconds(4.0 * MINUTE).await;
        assert_eq!(members(&world).len(), 3);
        seconds(6.0 * MINUTE).await;
        assert_eq!(told(&world), ("NoTargets".to_owned(), [0, 0, 0]));
        assert_no_violations(&world);
    });
}

fn assert_none_is_going(world: &World) {
    let all = members(world);
    let is_going = |object: &Arc<Value>| object["metadata"]["deletionTimestamp"].is_string();
    assert!(!all.iter().any(is_going), "{all:#?}");
}

/// The other cloud account has an instance with the tags as well: the selector picks something.
fn instance_of_theirs(world: &World) {
    let theirs = KEYS[2].2;
    world.cloud(json!({"createGroup": {"id": "sg-theirs", "account": theirs}}));
    world.cloud(json!({"createInstance": {
        "id": "i-theirs", "account": theirs, "securityGroupIds": ["sg-theirs"], "tags": web(), "status": "Running",
    }}));
}

/// The set has made new memberships with the other key, of which the cloud lists no target either.
#[test]
fn a_key_of_another_cloud_account_is_no_evidence_also_beside_a_new_group() {
    in_virtual_time(|| async {
        let world = three_tagged().await;
        let within = |group| {
            let targets = ["i-0", "i-1", "i-2"];
            let members = targets.map(|target| world.is_member(target, group));
            members.into_iter().filter(|is_member| *is_member).count()
        };
        instance_of_theirs(&world);
        world.write_secret(CLUSTER, 2);
        seconds(2.0 * MINUTE).await;
        apply(
            &world,
            json!({"instanceTags": web(), "securityGroupID": "sg-b"}),
        );
        seconds(30.0 * MINUTE).await;
        assert_eq!((within("sg-a"), within("sg-b")), (3, 0));
        assert_none_is_going(&world);
        world.write_secret(CLUSTER, 0);
        seconds(30.0 * MINUTE).await;
        assert_eq!((within("sg-a"), within("sg-b")), (0, 3));
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_no_violations(&world);
    });
}

/// Instance and Node go at the same time: the membership goes after five minutes, and there is nothing to leave.
#[test]
fn the_membership_of_a_released_node_goes_without_a_leave() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        world.cloud(json!({"delete": {"id": "i-0"}}));
        world.user(Verb::Delete, "nodes", "", "n-0", Value::Null);
        seconds(4.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 3]));
        seconds(6.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        assert_eq!(effects(&world, "i-0", "sg-a"), [1, 0]);
        assert_no_violations(&world);
    });
}

/// A membership of a set that is suspended by hand keeps its edge, and the set does not force it.
#[test]
fn a_suspended_membership_of_a_set_stays_suspended() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        let name = text(&members(&world)[0], "/metadata/name");
        let suspended = json!({"spec": {"suspend": true}});
        world.user(Verb::Merge, MEMBERSHIPS, NAMESPACE, &name, suspended);
        tokio::time::sleep(Duration::from_secs(600)).await;
        let object = world.server.object(MEMBERSHIPS, NAMESPACE, &name).unwrap();
        assert_eq!(object["spec"]["suspend"], true);
        assert_eq!(within(&world), [0, 1]);
    });
}
