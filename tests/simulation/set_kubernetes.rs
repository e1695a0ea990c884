//! Sets in virtual time: what the API server refuses, hides or ends, and what a set says and leaves alone meanwhile.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use security_group_operator::api::SET_MANAGER;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api_server::{Call, CallFault, Refusal, Verb};
use crate::in_virtual_time;
use crate::judged::{Judged, world};
use crate::link::CallFilter;
use crate::monitor::{MEMBERSHIPS, condition, target_of, text};
use crate::scenario::{add_fault, calls, seconds};
use crate::set_cloud::two_joined;
use crate::set_schedule::garbage;
use crate::sets::{
    MINUTE, SETS, apply, apply_set, delete_node, members, message_of, node, tag, three_nodes,
    three_tagged, told, told_of, web, within,
};
use crate::topology::{CLUSTER, GUESTS, NAMESPACE};
use crate::world::World;

fn reads_nodes(call: &Call) -> bool {
    call.kind.plural == "nodes" && matches!(call.verb, Verb::List | Verb::Watch)
}

fn creates_memberships(call: &Call) -> bool {
    call.kind.plural == MEMBERSHIPS && call.verb == Verb::Create
}

fn writes_status_of_sets(call: &Call) -> bool {
    call.kind.plural == SETS && call.status && call.verb.writes()
}

/// Whether the set `s` says that somebody must act.
fn is_stalled(world: &World) -> bool {
    let set = world.server.object(SETS, NAMESPACE, "s").unwrap();
    condition(&set, "Stalled").is_some_and(|stalled| stalled["status"] == "True")
}

/// Reason and message of the events about a set, in order of the alphabet.
fn events_of(world: &World, name: &str) -> Vec<(String, String)> {
    let events = world.server.objects("events");
    let of_set = events
        .iter()
        .filter(|event| text(event, "/regarding/name") == name);
    let mut events: Vec<_> = of_set
        .map(|event| (text(event, "/reason"), text(event, "/note")))
        .collect();
    events.sort();
    events
}

/// The journal of the cloud is read by the monitor; none of its rules is broken.
fn assert_no_violations(world: &World) {
    world.monitor.read_journal();
    assert_eq!(world.monitor.violations(), [""; 0]);
}

#[test]
fn without_the_right_to_nodes_a_set_says_so_and_other_sets_go_on() {
    in_virtual_time(|| async {
        let mut world = three_nodes().await;
        let forbidden = CallFault::RefuseWith(Refusal {
            code: 403,
            message: "nodes is forbidden: User \"sgo\" cannot list resource \"nodes\"",
            cause: None,
        });
        world.faults.refuse_calls(reads_nodes, forbidden);
        world.kill(0);
        world.start(None);
        // But for the right, one would go.
        node(&world, 0, json!({}));
        delete_node(&world, 1);
        tag(&world, 2, json!({"team": "web"}));
        let by_ids = json!({"instanceIDs": ["i-1"], "securityGroupID": "sg-b"});
        apply_set(&world, "ids", by_ids);
        let by_tags = json!({"instanceTags": {"team": "web"}, "securityGroupID": "sg-b"});
        apply_set(&world, "tags", by_tags);
        seconds(3.0 * MINUTE).await;
        assert_eq!(told_of(&world, "ids"), ("AllMembers".to_owned(), [1, 1, 1]));
        assert_eq!(
            told_of(&world, "tags"),
            ("AllMembers".to_owned(), [1, 1, 1])
        );
        assert_eq!(told(&world), ("NodesForbidden".to_owned(), [3, 3, 3]));
        assert!(is_stalled(&world));
        let message = message_of(&world, "s");
        for words in [
            "cannot list resource",
            "grant its service account list and watch on nodes",
        ] {
            assert!(message.contains(words), "{message}");
        }
        seconds(20.0 * MINUTE).await;
        assert_eq!(within(&world), [0, 1, 2]);
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
        // Given the right, what is evidence counts again: i-1 has had no Node for longer than five minutes only from now on.
        world.faults.refuse_no_calls();
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 2]));
        assert_eq!(within(&world), [1, 2]);
        seconds(5.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 1]));
        assert_eq!(within(&world), [2]);
        assert_no_violations(&world);
    });
}

/// Whatever keeps the Nodes from being listed, a new set says so within a minute, and is Ready soon after they are.
#[test]
fn nodes_that_cannot_be_listed_are_told_within_a_minute() {
    let busy = |code, message| {
        CallFault::RefuseWith(Refusal {
            code,
            message,
            cause: None,
        })
    };
    for (fault, words) in [
        (
            busy(500, "etcdserver: leader changed"),
            "etcdserver: leader changed",
        ),
        (busy(429, "too many requests"), "too many requests"),
        (CallFault::LoseBefore, "connection was reset"),
        (CallFault::Hang, "did not answer within 30 s"),
    ] {
        in_virtual_time(move || async move {
            let world = world().await;
            node(&world, 0, web());
            world.faults.refuse_calls(reads_nodes, fault);
            apply(&world, json!({"nodeSelector": {"matchLabels": web()}}));
            apply_set(&world, "ids", json!({"instanceIDs": ["i-1"]}));
            seconds(MINUTE).await;
            let (reason, _) = told(&world);
            assert_eq!(reason, "SelectionIncomplete", "{fault:?}");
            let message = message_of(&world, "s");
            for words in [words, "could not be listed", "next try"] {
                assert!(message.contains(words), "{message}");
            }
            assert!(!is_stalled(&world), "nobody must act yet");
            assert_eq!(told_of(&world, "ids"), ("AllMembers".to_owned(), [1, 1, 1]));
            // As long as it lasts, the set does not write it again and again.
            world.faults.record_requests();
            seconds(30.0 * MINUTE).await;
            let writes = world.faults.recorded(writes_status_of_sets).len();
            assert!(writes <= 1, "{writes} writes");
            world.faults.refuse_no_calls();
            seconds(1.5 * MINUTE).await;
            assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 1]));
            assert_eq!(within(&world), [0, 1]);
            assert_no_violations(&world);
        });
    }
}

/// A short trouble is nobody's business.
#[test]
fn nodes_that_are_listed_at_the_second_try_are_not_told() {
    in_virtual_time(|| async {
        let mut world = three_nodes().await;
        world
            .faults
            .refuse_calls(reads_nodes, CallFault::Refuse(429));
        world.kill(0);
        world.faults.record_requests();
        world.start(None);
        seconds(3.0).await;
        world.faults.refuse_no_calls();
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_eq!(world.faults.recorded(writes_status_of_sets).len(), 0);
    });
}

/// All Nodes were known, and the API server has not let the operator watch them since. The sets say so, go by the Nodes as they were, and
/// remove nothing. It ends when the watch shows something, or has not failed for two minutes.
#[test]
fn a_watch_of_nodes_that_stays_broken_makes_the_selection_incomplete() {
    let busy = CallFault::RefuseWith(Refusal {
        code: 500,
        message: "etcdserver: no leader",
        cause: None,
    });
    for (fault, words, is_quiet) in [
        (busy, "etcdserver: no leader", false),
        (CallFault::LoseBefore, "connection was reset", true),
        (CallFault::Hang, "did not answer within 30 s", false),
    ] {
        in_virtual_time(move || async move {
            let world = three_nodes().await;
            let group = "sg-b";
            let ids = json!({"instanceIDs": ["i-1"], "securityGroupID": group});
            apply_set(&world, "ids", ids);
            world.faults.refuse_calls(reads_nodes, fault);
            // A watch ends after four minutes. What happens to the Nodes then is not seen.
            seconds(5.0 * MINUTE).await;
            if !is_quiet {
                delete_node(&world, 0);
                node(&world, 1, json!({}));
            }
            seconds(0.5 * MINUTE).await;
            assert_eq!(told(&world), ("SelectionIncomplete".to_owned(), [3, 3, 3]));
            let message = message_of(&world, "s");
            for words in [words, "could not be watched", "next try"] {
                assert!(message.contains(words), "{message}");
            }
            assert!(!is_stalled(&world), "no user must act yet");
            assert_eq!(told_of(&world, "ids"), ("AllMembers".to_owned(), [1, 1, 1]));
            // A new set goes by what is known.
            let late = json!({"nodeSelector": {"matchLabels": web()}, "securityGroupID": group});
            apply_set(&world, "late", late);
            seconds(MINUTE).await;
            let incomplete = ("SelectionIncomplete".to_owned(), [3, 3, 3]);
            assert_eq!(told_of(&world, "late"), incomplete);
            // As long as it lasts, the sets do not write it again and again.
            world.faults.record_requests();
            seconds(30.0 * MINUTE).await;
            let writes = world.faults.recorded(writes_status_of_sets).len();
            assert_eq!(writes, 0);
            assert_eq!(within(&world), [0, 1, 2]);
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
            world.faults.refuse_no_calls();
            seconds(3.5 * MINUTE).await;
            let counts = if is_quiet { [3, 3, 3] } else { [1, 1, 2] };
            assert_eq!(told(&world), ("AllMembers".to_owned(), counts));
            let left = if is_quiet { &[0, 1, 2][..] } else { &[0, 2] };
            assert_eq!(within(&world), left);
            assert_no_violations(&world);
        });
    }
}

/// The watch ends every four minutes, and cannot begin again for some seconds. The Nodes do not change meanwhile.
#[test]
fn a_watch_of_nodes_that_goes_on_within_seconds_writes_no_status() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        let mut writes = 0;
        for _ in 0..5 {
            world.faults.record_requests();
            world
                .faults
                .refuse_calls(watches_nodes, CallFault::LoseBefore);
            while world.faults.recorded(watches_nodes).is_empty() {
                seconds(0.1).await;
            }
            seconds(6.0).await;
            assert!(world.faults.recorded(watches_nodes).len() > 2);
            world.faults.refuse_no_calls();
            seconds(MINUTE).await;
            writes += world.faults.recorded(writes_status_of_sets).len();
        }
        assert_eq!(writes, 0);
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
    });
}

/// An object of another namespace names the set as its controller, and a finalizer keeps it from the garbage collector.
#[test]
fn object_of_another_namespace_is_no_membership_of_a_set() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        let set = world.server.object(SETS, NAMESPACE, "s").unwrap();
        let mut spec = members(&world)[0]["spec"].clone();
        spec["instanceID"] = json!("i-2");
        let owner = json!({
            "apiVersion": set["apiVersion"], "kind": set["kind"], "name": "s",
            "uid": set["metadata"]["uid"], "controller": true,
        });
        let metadata = json!({"name": "forged", "finalizers": ["example.com/kept"], "ownerReferences": [owner]});
        let forged = json!({"metadata": metadata, "spec": spec});
        assert_eq!(world.create(MEMBERSHIPS, GUESTS, forged).code, 201);
        apply(&world, json!({"instanceIDs": ["i-0", "i-1", "i-2"]}));
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        let all = members(&world);
        let own = all
            .iter()
            .filter(|object| object["metadata"]["namespace"] == NAMESPACE);
        assert_eq!(own.count(), 3);
    });
}

/// The right to watch Nodes is missing for a moment: the watch has ended, and begins again.
#[test]
fn right_to_nodes_that_is_missing_for_a_moment_keeps_no_new_node_waiting() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        seconds(MINUTE).await;
        world
            .faults
            .refuse_calls(reads_nodes, CallFault::Refuse(403));
        // The watch ends after some four minutes.
        while told(&world).0 != "NodesForbidden" {
            seconds(0.1).await;
        }
        world.faults.refuse_no_calls();
        seconds(2.0 * MINUTE).await;
        more_instances(&world, 1);
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "more", "labels": web()},
            "spec": {"providerID": "cn-hangzhou.i-bulk0"},
        });
        world.user(Verb::Apply, "nodes", "", "more", node);
        seconds(3.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [4, 4, 4]));
    });
}

/// A watch that goes on sends bookmarks or ends; a stopped one asks for nothing.
#[test]
fn nodes_are_read_only_while_a_set_selects_nodes() {
    in_virtual_time(|| async {
        let world = world().await;
        world.faults.record_requests();
        node(&world, 0, web());
        apply(&world, json!({"instanceIDs": ["i-1"]}));
        tag(&world, 2, web());
        apply_set(&world, "tags", json!({"instanceTags": web()}));
        seconds(20.0 * MINUTE).await;
        assert_eq!(told_of(&world, "tags").0, "AllMembers");
        let nodes = |call: &Call| call.kind.plural == "nodes";
        assert_eq!(world.faults.recorded(nodes).len(), 0);

        let selector = json!({"nodeSelector": {"matchLabels": web()}});
        apply_set(&world, "nodes", selector.clone());
        apply_set(&world, "more", selector);
        seconds(20.0 * MINUTE).await;
        assert_eq!(told_of(&world, "nodes").0, "AllMembers");
        let lists = |call: &Call| nodes(call) && call.verb == Verb::List;
        assert_eq!(world.faults.recorded(lists).len(), 1, "one list for both");
        let watches = world.faults.recorded(nodes).len();
        assert!(
            watches > 4,
            "a watch ends after about four minutes: {watches}"
        );

        // The last set that selects Nodes goes, or comes to select otherwise.
        world.user(Verb::Delete, SETS, NAMESPACE, "more", Value::Null);
        apply_set(&world, "nodes", json!({"instanceIDs": ["i-0"]}));
        seconds(1.0).await;
        world.faults.record_requests();
        seconds(60.0 * MINUTE).await;
        assert_eq!(world.faults.recorded(nodes).len(), 0);
    });
}

#[test]
fn a_quota_that_refuses_is_told_and_asked_again_slowly() {
    in_virtual_time(|| async {
        let world = world().await;
        let quota = CallFault::RefuseWith(Refusal {
            code: 403,
            message: "exceeded quota: memberships, requested: 1, used: 10, limited: 10",
            cause: None,
        });
        world.faults.refuse_calls(creates_memberships, quota);
        world.faults.record_requests();
        let ids = json!({"instanceIDs": ["i-0", "i-1", "i-2"]});
        apply(&world, ids);
        seconds(30.0 * MINUTE).await;
        assert_eq!(told(&world), ("CreateRefused".to_owned(), [3, 0, 0]));
        assert!(is_stalled(&world));
        let message = message_of(&world, "s");
        for words in [
            "exceeded quota: memberships",
            "raise the quota",
            "next try in 5m",
        ] {
            assert!(message.contains(words), "{message}");
        }
        let asked = world.faults.recorded(creates_memberships).len();
        assert!((5..=8).contains(&asked), "{asked} requests in 30 min");
        assert!(world.faults.recorded(writes_status_of_sets).len() <= 2);
        // A membership by hand goes on meanwhile.
        let joined = world.create(
            MEMBERSHIPS,
            NAMESPACE,
            json!({
                "metadata": {"name": "by-hand"},
                "spec": {"region": "cn-hangzhou", "instanceID": "i-0", "securityGroupID": "sg-b"},
            }),
        );
        assert_eq!(joined.code, 201);
        seconds(10.0).await;
        assert!(world.is_member("i-0", "sg-b"));
        world.faults.refuse_no_calls();
        seconds(6.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_eq!(within(&world), [0, 1, 2]);
        assert_no_violations(&world);
    });
}

#[test]
fn a_namespace_that_is_being_deleted_ends_a_pass_quietly() {
    in_virtual_time(|| async {
        let world = world().await;
        let terminating = CallFault::RefuseWith(Refusal {
            code: 403,
            message: "unable to create new content in namespace team because it is being terminated",
            cause: Some("NamespaceTerminating"),
        });
        world.faults.refuse_calls(creates_memberships, terminating);
        world.faults.record_requests();
        apply(&world, json!({"instanceIDs": ["i-0", "i-1", "i-2"]}));
        seconds(10.0 * MINUTE).await;
        let asked = world.faults.recorded(creates_memberships).len();
        assert!(asked <= 2, "{asked} requests in 10 min");
        let (reason, counts) = told(&world);
        assert_eq!(counts, [3, 0, 0]);
        assert_eq!(reason, "Progressing");
        let writes = world.faults.recorded(writes_status_of_sets).len();
        assert!(writes <= 1, "{writes} writes");
        // The namespace controller deletes the set: nothing more is written.
        world.user(Verb::Delete, SETS, NAMESPACE, "s", Value::Null);
        seconds(1.0).await;
        world.faults.record_requests();
        seconds(10.0 * MINUTE).await;
        let of_sets =
            |call: &Call| call.verb.writes() && [SETS, MEMBERSHIPS].contains(&call.kind.plural);
        assert_eq!(world.faults.recorded(of_sets).len(), 0);
    });
}

/// A hundred and fifty targets that become members one by one, and a user who changes the spec ten times per second.
#[test]
fn the_status_of_a_set_is_written_once_per_second_at_most() {
    in_virtual_time(|| async {
        let world = world().await;
        let mut ids: Vec<String> = Vec::new();
        for number in 0..150 {
            let id = format!("i-bulk{number}");
            let instance = json!({"id": id, "securityGroupIds": ["sg-base"], "status": "Running"});
            world.cloud(json!({"createInstance": instance}));
            ids.push(id);
        }
        world.faults.record_requests();
        apply(&world, json!({"instanceIDs": ids}));
        seconds(2.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [150, 150, 150]));
        for change in 0..100 {
            let policy = if change % 2 == 0 { "Report" } else { "Repair" };
            apply(
                &world,
                json!({"instanceIDs": ids[..100 - change / 2], "driftPolicy": policy}),
            );
            seconds(0.1).await;
        }
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [51, 51, 51]));
        let set = world.server.object(SETS, NAMESPACE, "s").unwrap();
        assert_eq!(
            set["status"]["observedGeneration"],
            set["metadata"]["generation"]
        );
        let writes: Vec<Instant> = world.faults.recorded(writes_status_of_sets);
        assert!(writes.len() > 5, "{}", writes.len());
        for pair in writes.windows(2) {
            let between = pair[1] - pair[0];
            assert!(
                between >= Duration::from_millis(999),
                "{between:?} between two writes"
            );
        }
    });
}

#[test]
fn a_pass_tells_one_event_with_a_count() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        let told = |reason: &str, note: &str| (reason.to_owned(), note.to_owned());
        assert_eq!(
            events_of(&world, "s"),
            [told("MembershipsCreated", "memberships created: 3")]
        );
        for number in 0..2 {
            node(&world, number, json!({}));
        }
        seconds(10.0).await;
        let deleted = "memberships deleted, targets that are not selected any more: 2";
        let events = events_of(&world, "s");
        assert_eq!(
            events,
            [
                told("MembershipsCreated", "memberships created: 3"),
                told("MembershipsDeleted", deleted),
            ]
        );
    });
}

/// Without its account a set cannot ask the cloud which instances have the tags. What was counted by another spec says nothing of this one.
#[test]
fn targets_that_cannot_be_known_are_not_counted_as_none() {
    in_virtual_time(|| async {
        let world = three_tagged().await;
        world.remove_secret(CLUSTER);
        seconds(10.0 * MINUTE).await;
        assert_eq!(told(&world), ("AccountNotReady".to_owned(), [3, 3, 3]));
        apply(&world, json!({"instanceTags": {"pool": "db"}}));
        seconds(10.0 * MINUTE).await;
        let unknown = -1;
        let counts = [unknown, unknown, 3];
        assert_eq!(told(&world), ("AccountNotReady".to_owned(), counts));
        assert_eq!(within(&world), [0, 1, 2]);
        apply(&world, json!({"instanceTags": web()}));
        world.write_secret(CLUSTER, 0);
        seconds(10.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_no_violations(&world);
    });
}

#[test]
fn without_an_account_no_membership_is_created() {
    in_virtual_time(|| async {
        // A set whose account is not there, and one whose account has no Secret.
        let mut world = Judged::new();
        world.remove_secret(CLUSTER);
        world.start(None);
        world.faults.record_requests();
        seconds(11.0).await;
        let ids = json!({"instanceIDs": ["i-0", "i-1"]});
        apply(&world, ids.clone());
        let mut elsewhere = ids;
        elsewhere["accountRef"] = json!({"kind": "ClusterCloudAccount", "name": "nowhere"});
        apply_set(&world, "nowhere", elsewhere);
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("AccountNotReady".to_owned(), [2, 0, 0]));
        assert_eq!(
            told_of(&world, "nowhere"),
            ("AccountNotFound".to_owned(), [2, 0, 0])
        );
        let message = message_of(&world, "nowhere");
        assert!(
            message.contains("nowhere") && message.contains("create it"),
            "{message}"
        );
        assert_eq!(world.faults.recorded(creates_memberships).len(), 0);
        assert_eq!(members(&world).len(), 0);
        world.write_secret(CLUSTER, 0);
        seconds(2.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        assert_no_violations(&world);
    });
}

/// The answers to all creations are lost, and the watch shows none of them for a while: each is found by its name.
#[test]
fn an_old_view_of_its_own_memberships_makes_no_second_one() {
    in_virtual_time(|| async {
        let world = world().await;
        world.hold_back_events(0, Duration::from_secs(40));
        world
            .faults
            .refuse_calls(creates_memberships, CallFault::LoseAfter);
        apply(&world, json!({"instanceIDs": ["i-0", "i-1", "i-2"]}));
        seconds(15.0).await;
        world.faults.refuse_no_calls();
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_eq!(members(&world).len(), 3);
        assert_eq!(calls(&world, "JoinSecurityGroup"), 3);
        assert_no_violations(&world);
    });
}

/// Two operators in a row are killed, one before and one after each of its creations.
#[test]
fn a_kill_at_every_creation_makes_each_membership_once() {
    use crate::link::KillPoint;
    for at in 1..14 {
        for point in [KillPoint::Before, KillPoint::AfterEffect] {
            in_virtual_time(move || async move {
                let mut world = world().await;
                world.schedule_kill(at, point);
                apply(&world, json!({"instanceIDs": ["i-0", "i-1", "i-2"]}));
                for _ in 0..100 {
                    seconds(0.1).await;
                    if let Some(dead) = world.dead_incarnation() {
                        world.restart(dead);
                    }
                }
                seconds(MINUTE).await;
                assert_eq!(
                    told(&world),
                    ("AllMembers".to_owned(), [3, 3, 3]),
                    "{at} {point:?}"
                );
                assert_eq!(members(&world).len(), 3, "{at} {point:?}");
                assert_no_violations(&world);
            });
        }
    }
}

/// The name of the membership of an instance.
fn member_of(world: &World, instance: &str) -> String {
    let all = members(world);
    let of = all.iter().find(|object| target_of(object) == instance);
    text(of.unwrap(), "/metadata/name")
}

fn deletes_memberships(call: &Call) -> bool {
    call.kind.plural == MEMBERSHIPS && call.verb == Verb::Delete
}

fn changed_by_set(call: &Call) -> bool {
    let is_change = call.kind.plural == MEMBERSHIPS && call.verb == Verb::Apply;
    let manager = call.query.get("fieldManager");
    is_change && manager.is_some_and(|name| name == SET_MANAGER)
}

/// The API server answers so when it has given up after other writes of the object: the membership is still there.
#[test]
fn a_deletion_that_meets_a_conflict_is_tried_again() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        world
            .faults
            .refuse_calls(deletes_memberships, CallFault::Refuse(409));
        apply(&world, json!({"instanceIDs": ["i-1"]}));
        seconds(20.0).await;
        assert_eq!(within(&world), [0, 1]);
        let (reason, counts) = told(&world);
        assert_ne!((reason.as_str(), counts[2]), ("AllMembers", 1));
        world.faults.refuse_no_calls();
        seconds(5.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 1]));
        assert_eq!(within(&world), [1]);
        assert_eq!(members(&world).len(), 1);
        assert_no_violations(&world);
    });
}

/// A webhook may answer 409, too.
#[test]
fn a_conflict_that_stays_is_told_and_asked_for_slowly() {
    let one_less = json!({"instanceIDs": ["i-1"]});
    let report = json!({"instanceIDs": ["i-0", "i-1"], "driftPolicy": "Report"});
    for (fits, spec) in [
        (deletes_memberships as CallFilter, one_less),
        (changed_by_set, report),
    ] {
        in_virtual_time(move || async move {
            let world = two_joined(&json!({})).await;
            world.faults.refuse_calls(fits, CallFault::Refuse(409));
            world.faults.record_requests();
            apply(&world, spec);
            seconds(30.0 * MINUTE).await;
            let message = message_of(&world, "s");
            assert!(message.contains("the last write failed"), "{message}");
            let asked = world.faults.recorded(fits).len();
            assert!((5..=20).contains(&asked), "{asked} requests in 30 min");
            assert_eq!(within(&world), [0, 1]);
            assert_no_violations(&world);
        });
    }
}

/// A user takes the set off a membership, and then its target off the list. The watch has shown neither: the membership is not the set's
/// any more, and stays.
#[test]
fn a_membership_that_was_just_released_is_not_deleted() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        world.hold_back_events(0, Duration::from_secs(30));
        let no_owner = json!({"metadata": {"ownerReferences": null}});
        world.patch(&member_of(&world, "i-0"), no_owner);
        apply(&world, json!({"instanceIDs": ["i-1"]}));
        seconds(10.0).await;
        let all_members = ("AllMembers".to_owned(), [1, 1, 1]);
        assert_eq!(told(&world), all_members);
        seconds(MINUTE).await;
        assert_eq!(told(&world), all_members);
        assert_eq!(members(&world).len(), 2);
        assert_eq!(within(&world), [0, 1]);
        assert_no_violations(&world);
    });
}

/// A deletion names the version of the membership: the one that the API server has stored, if the watch lags behind it.
#[test]
fn a_membership_that_was_just_changed_is_deleted_at_once() {
    in_virtual_time(|| async {
        let world = world().await;
        apply(&world, json!({"instanceIDs": ["i-0", "i-1", "i-2"]}));
        seconds(10.0).await;
        world.faults.record_requests();
        let mut deletions = 0;
        let mut assert_deletions = |count: usize, left: &[usize]| {
            deletions += count;
            assert_eq!(world.faults.recorded(deletes_memberships).len(), deletions);
            assert_eq!(within(&world), left);
        };
        // The set has changed it itself: it knows the version.
        let one_less = json!({"instanceIDs": ["i-1", "i-2"], "deletionPolicy": "Remove"});
        apply(&world, one_less);
        seconds(5.0).await;
        assert_deletions(1, &[1, 2]);
        // A user has.
        let lag = Duration::from_secs(30);
        world.hold_back_events(0, lag);
        let label = json!({"metadata": {"labels": {"team": "web"}}});
        world.patch(&member_of(&world, "i-1"), label);
        apply(
            &world,
            json!({"instanceIDs": ["i-2"], "deletionPolicy": "Remove"}),
        );
        seconds(1.0).await;
        assert_eq!(world.faults.recorded(deletes_memberships).len(), 3);
        seconds(MINUTE).await;
        assert_deletions(2, &[2]);
        assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 1]));
        assert_no_violations(&world);
    });
}

/// The set drops a target and changes its deletion policy in one edit, while the watch has not shown the last version of the membership.
/// The API server answers 409 to the new policy. The membership goes by that policy all the same.
#[test]
fn a_membership_is_deleted_only_with_the_policies_of_its_set() {
    for (before, after, left) in [
        ("Retain", "RemoveIfJoined", &[1][..]),
        ("RemoveIfJoined", "Retain", &[0, 1]),
    ] {
        in_virtual_time(move || async move {
            let world = world().await;
            let both = json!({"instanceIDs": ["i-0", "i-1"], "deletionPolicy": before});
            apply(&world, both);
            seconds(10.0).await;
            world.hold_back_events(0, Duration::from_secs(30));
            let label = json!({"metadata": {"labels": {"team": "web"}}});
            world.patch(&member_of(&world, "i-0"), label);
            let one = json!({"instanceIDs": ["i-1"], "deletionPolicy": after});
            apply(&world, one);
            seconds(2.0 * MINUTE).await;
            assert_eq!(members(&world).len(), 1);
            assert_eq!(within(&world), left, "from {before} to {after}");
            assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 1]));
            assert_no_violations(&world);
        });
    }
}

/// The API server answers 409 to the deletion, because a user has just changed a policy of the membership.
#[test]
fn a_policy_that_was_changed_by_hand_is_put_back_before_the_deletion() {
    in_virtual_time(|| async {
        let world = world().await;
        let both = json!({"instanceIDs": ["i-0", "i-1"]});
        apply(&world, both);
        seconds(10.0).await;
        world.hold_back_events(0, Duration::from_secs(30));
        let by_hand = json!({"spec": {"deletionPolicy": "Retain"}});
        world.patch(&member_of(&world, "i-0"), by_hand);
        apply(&world, json!({"instanceIDs": ["i-1"]}));
        seconds(2.0 * MINUTE).await;
        assert_eq!(members(&world).len(), 1);
        assert_eq!(within(&world), [1]);
        assert_no_violations(&world);
    });
}

/// A user changes the deletion policy, waits until the set is Ready, and deletes it. The garbage collector deletes the memberships then,
/// and they go by the policies that they have.
#[test]
fn a_set_is_ready_for_new_policies_when_its_memberships_have_them() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        let is_ready = || {
            let set = world.server.object(SETS, NAMESPACE, "s").unwrap();
            let ready = condition(&set, "Ready").unwrap();
            ready["status"] == "True"
                && ready["observedGeneration"] == set["metadata"]["generation"]
        };
        let retaining = || {
            let all = members(&world);
            let retains = |object: &&Arc<Value>| object["spec"]["deletionPolicy"] == "Retain";
            all.iter().filter(retains).count()
        };
        assert!(is_ready());
        world
            .faults
            .refuse_calls(changed_by_set, CallFault::Refuse(409));
        let retain = json!({"instanceIDs": ["i-0", "i-1"], "deletionPolicy": "Retain"});
        apply(&world, retain);
        seconds(20.0).await;
        assert_eq!((retaining(), is_ready()), (0, false));
        assert_eq!(told(&world).0, "Progressing");
        world.faults.refuse_no_calls();
        seconds(MINUTE).await;
        assert_eq!((retaining(), is_ready()), (2, true));
        assert_no_violations(&world);
    });
}

/// A user changes a policy of a membership, and the API server answers 409 to the set, which puts it back.
#[test]
fn a_change_that_meets_a_conflict_is_tried_again() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        world
            .faults
            .refuse_calls(changed_by_set, CallFault::Refuse(409));
        let name = text(&members(&world)[0], "/metadata/name");
        world.patch(&name, json!({"spec": {"deletionPolicy": "Remove"}}));
        seconds(20.0).await;
        let policies = || {
            let all = members(&world);
            let policy = |object: &Arc<Value>| text(object, "/spec/deletionPolicy");
            all.iter().map(policy).collect::<Vec<_>>()
        };
        assert!(policies().contains(&"Remove".to_owned()));
        world.faults.refuse_no_calls();
        seconds(MINUTE).await;
        assert_eq!(policies(), ["RemoveIfJoined"; 2]);
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        assert_no_violations(&world);
    });
}

/// A webhook that does not answer, for example: the API server answers 500.
#[test]
fn a_write_that_fails_is_told() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        world
            .faults
            .refuse_calls(creates_memberships, CallFault::Refuse(500));
        apply(&world, json!({"instanceIDs": ["i-0", "i-1", "i-2"]}));
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("Progressing".to_owned(), [3, 2, 2]));
        let message = message_of(&world, "s");
        assert!(message.contains("the last write failed"), "{message}");
        world.faults.refuse_no_calls();
        seconds(5.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_no_violations(&world);
    });
}

#[test]
fn a_change_that_fails_keeps_no_new_target_waiting() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        world
            .faults
            .refuse_calls(changed_by_set, CallFault::Refuse(500));
        let retain = json!({"instanceIDs": ["i-1", "i-2"], "deletionPolicy": "Retain"});
        apply(&world, retain);
        seconds(MINUTE).await;
        // None goes with another policy than the set's.
        assert_eq!(members(&world).len(), 3);
        assert_eq!(within(&world), [0, 1, 2]);
        world.faults.refuse_no_calls();
        seconds(5.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        assert_eq!(within(&world), [0, 1, 2]);
        assert_no_violations(&world);
    });
}

/// A user takes the set off a membership, and the API server refuses to let the set take it over.
#[test]
fn a_refused_take_over_is_told_as_what_it_is() {
    for code in [403, 422] {
        in_virtual_time(move || async move {
            let world = two_joined(&json!({})).await;
            world
                .faults
                .refuse_calls(changed_by_set, CallFault::Refuse(code));
            let no_owner = json!({"metadata": {"ownerReferences": null}});
            world.patch(&member_of(&world, "i-0"), no_owner);
            seconds(MINUTE).await;
            assert_eq!(told(&world).0, "WriteRefused", "{code}");
            assert!(is_stalled(&world), "{code}");
            world.faults.refuse_no_calls();
            seconds(6.0 * MINUTE).await;
            assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]), "{code}");
            assert_no_violations(&world);
        });
    }
}

/// etcd is put back to a state from before the set and its memberships got another policy, or from between.
#[test]
fn a_store_that_was_put_back_keeps_no_policy_from_a_set() {
    for revisions in 1..=10 {
        in_virtual_time(move || async move {
            let world = two_joined(&json!({})).await;
            let retain = json!({"instanceIDs": ["i-0", "i-1"], "deletionPolicy": "Retain"});
            apply(&world, retain);
            seconds(10.0).await;
            world.put_back(revisions);
            world.faults.record_requests();
            seconds(2.0 * MINUTE).await;
            let set = world.server.object(SETS, NAMESPACE, "s").unwrap();
            for object in members(&world) {
                let (is, wanted) = (&object["spec"], &set["spec"]);
                let policy = "deletionPolicy";
                assert_eq!(is[policy], wanted[policy], "{revisions} revisions");
            }
            let changes = world.faults.recorded(changed_by_set).len();
            assert!(changes <= 6, "{revisions} revisions: {changes} changes");
            assert_eq!(told(&world).0, "AllMembers", "{revisions} revisions");
        });
    }
}

/// Whether a request changes or deletes one of the first three memberships of [`more_instances`].
fn touches_protected(call: &Call) -> bool {
    let is_protected = |number| call.name.starts_with(&format!("s-i-bulk{number}-"));
    (changed_by_set(call) || deletes_memberships(call)) && (0..3).any(is_protected)
}

/// An admission policy protects some memberships, or a webhook fails for them: the set changes and deletes the others.
#[test]
fn protected_memberships_keep_no_others_waiting() {
    for code in [422, 409, 500] {
        in_virtual_time(move || async move {
            let world = world().await;
            let ids = more_instances(&world, 12);
            apply(&world, json!({"instanceIDs": ids}));
            seconds(MINUTE).await;
            world
                .faults
                .refuse_calls(touches_protected, CallFault::Refuse(code));
            let retain = json!({"instanceIDs": ids[..8], "deletionPolicy": "Retain"});
            apply(&world, retain);
            seconds(60.0 * MINUTE).await;
            let left = members(&world);
            let others = left.iter().filter(|object| {
                let is_protected = ids[..3].iter().any(|id| id == target_of(object));
                !is_protected && object["spec"]["deletionPolicy"] == "Retain"
            });
            assert_eq!((others.count(), left.len()), (5, 8), "{code}");

            apply(&world, json!({"instanceIDs": ids[7..8]}));
            world.faults.record_requests();
            seconds(60.0 * MINUTE).await;
            let left = members(&world).len();
            assert_eq!(left, 4, "{code}: three protected, and one selected");
            if code == 422 {
                assert_eq!(told(&world).0, "WriteRefused");
            }
            let asked = world.faults.recorded(touches_protected).len();
            assert!(asked <= 100, "{code}: {asked} requests in an hour");
        });
    }
}

/// The operator does nothing for a suspended membership. A set that only said `Progressing` would never tell its users why.
#[test]
fn membership_that_is_suspended_is_told() {
    in_virtual_time(|| async {
        let world = world().await;
        apply(&world, json!({"instanceIDs": more_instances(&world, 3)}));
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3; 3]));
        let name = members(&world)[0]["metadata"]["name"].clone();
        let suspend = |suspends| {
            let spec = json!({"spec": {"suspend": suspends}});
            world.patch(name.as_str().unwrap(), spec);
        };
        suspend(true);
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("Suspended".to_owned(), [3, 2, 3]));
        let said = message_of(&world, "s");
        assert!(said.contains("Suspended (1)"), "{said}");
        suspend(false);
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3; 3]));
    });
}

/// Creates so many instances, and returns their IDs.
fn more_instances(world: &World, count: usize) -> Vec<String> {
    let create = |number| {
        let id = format!("i-bulk{number}");
        let instance = json!({"id": id, "securityGroupIds": ["sg-base"], "status": "Running"});
        world.cloud(json!({"createInstance": instance}));
        id
    };
    (0..count).map(create).collect()
}

/// A set is suspended while it deletes many memberships: the others stay.
#[test]
fn a_set_that_is_suspended_stops_in_the_middle() {
    in_virtual_time(|| async {
        let world = world().await;
        let ids = more_instances(&world, 200);
        apply(&world, json!({"instanceIDs": ids}));
        seconds(2.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [200, 200, 200]));
        let slow = CallFault::Pass(Duration::from_secs(2));
        world.faults.refuse_calls(deletes_memberships, slow);
        apply(&world, json!({"instanceIDs": ids[..1]}));
        seconds(5.0).await;
        apply(&world, json!({"instanceIDs": ids, "suspend": true}));
        seconds(5.0).await;
        let left = members(&world).len();
        seconds(2.0 * MINUTE).await;
        assert_eq!(members(&world).len(), left);
        assert!(left > 150, "{left} left");
    });
}

/// Somebody takes the labels off many Nodes by mistake, and puts them back while the set deletes the memberships.
#[test]
fn nodes_that_get_their_labels_back_keep_their_memberships() {
    in_virtual_time(|| async {
        let world = world().await;
        more_instances(&world, 100);
        let label = |labels: &Value, numbers: std::ops::Range<usize>| {
            for number in numbers {
                let name = format!("more-{number}");
                let node = json!({
                    "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
                    "spec": {"providerID": format!("cn-hangzhou.i-bulk{number}")},
                });
                world.user(Verb::Apply, "nodes", "", &name, node);
            }
        };
        label(&web(), 0..100);
        seconds(6.0 * MINUTE).await;
        apply(&world, json!({"nodeSelector": {"matchLabels": web()}}));
        seconds(2.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [100, 100, 100]));
        let slow = CallFault::Pass(Duration::from_secs(2));
        world.faults.refuse_calls(deletes_memberships, slow);
        label(&json!({}), 1..100);
        seconds(5.0).await;
        label(&web(), 1..100);
        seconds(5.0).await;
        assert!(calls(&world, "LeaveSecurityGroup") < 10);
        world.faults.refuse_no_calls();
        seconds(2.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [100, 100, 100]));
        assert!(calls(&world, "LeaveSecurityGroup") < 10);
    });
}

/// A mutating webhook sets the policy back: the API server says 200.
#[test]
fn a_policy_that_is_not_stored_is_told_and_asked_for_slowly() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        world.faults.change_calls(Some(|call| {
            if changed_by_set(call) {
                call.body["spec"]["driftPolicy"] = json!("Repair");
            }
        }));
        world.faults.record_requests();
        let report = json!({"instanceIDs": ["i-0"], "driftPolicy": "Report"});
        apply(&world, report.clone());
        seconds(30.0 * MINUTE).await;
        assert_eq!(told(&world).0, "WriteRefused");
        assert!(is_stalled(&world));
        let message = message_of(&world, "s");
        assert!(message.contains("with other policies"), "{message}");
        let asked = world.faults.recorded(changed_by_set).len();
        assert!((5..=16).contains(&asked), "{asked} requests in 30 min");
        assert_eq!(members(&world).len(), 2);
        world.faults.change_calls(None);
        seconds(6.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 1]));
        assert_no_violations(&world);
    });
}

/// `kubectl replace --force`: the memberships of the former set are still there, and the cloud refuses to let them go.
#[test]
fn a_set_that_is_made_again_asks_for_no_name_that_is_taken() {
    in_virtual_time(|| async {
        let world = world().await;
        collect_garbage(&world);
        let ids = json!({"instanceIDs": ["i-0", "i-1", "i-2"]});
        apply(&world, ids.clone());
        seconds(10.0).await;
        let refused = json!({"error": {"code": "InstanceLastSecurityGroup"}});
        add_fault(&world, "LeaveSecurityGroup", 3, &refused);
        world.user(Verb::Delete, SETS, NAMESPACE, "s", Value::Null);
        world.faults.record_requests();
        apply(&world, ids);
        seconds(2.0 * MINUTE).await;
        let held = "an object with their name is gone: 3";
        let message = message_of(&world, "s");
        assert!(message.contains(held), "{message}");
        let asked = world.faults.recorded(creates_memberships).len();
        assert!(asked <= 3, "{asked} requests");
        seconds(10.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_no_violations(&world);
    });
}

/// `kubectl delete sgmset --cascade=orphan`, and then the deletion of the memberships, which the cloud refuses for their last group.
#[test]
fn a_set_that_is_made_again_tells_that_orphans_are_being_deleted() {
    in_virtual_time(|| async {
        let world = world().await;
        collect_garbage(&world);
        let ids = json!({"instanceIDs": ["i-0", "i-1", "i-2"]});
        apply(&world, ids.clone());
        seconds(10.0).await;
        let orphan = json!({"metadata": {"finalizers": ["orphan"]}});
        world.user(Verb::Merge, SETS, NAMESPACE, "s", orphan);
        world.user(Verb::Delete, SETS, NAMESPACE, "s", Value::Null);
        seconds(10.0).await;
        let refused = json!({"error": {"code": "InstanceLastSecurityGroup"}});
        add_fault(&world, "LeaveSecurityGroup", 3, &refused);
        for object in members(&world) {
            let name = text(&object, "/metadata/name");
            world.user(Verb::Delete, MEMBERSHIPS, NAMESPACE, &name, Value::Null);
        }
        apply(&world, ids);
        seconds(MINUTE).await;
        let held = "an object with their name is gone: 3";
        let message = message_of(&world, "s");
        assert!(message.contains(held), "{message}");
        seconds(10.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_no_violations(&world);
    });
}

/// The user puts both targets back while the first deletion is on its way, and the watch does not show it.
#[test]
fn a_target_that_is_put_back_stays_although_the_watch_lags() {
    in_virtual_time(|| async {
        let world = world().await;
        let all = json!({"instanceIDs": ["i-0", "i-1", "i-2"]});
        apply(&world, all.clone());
        seconds(10.0).await;
        let slow = CallFault::Pass(Duration::from_secs(2));
        world.faults.refuse_calls(deletes_memberships, slow);
        apply(&world, json!({"instanceIDs": ["i-2"]}));
        seconds(1.0).await;
        world.faults.hold_back_sets(Duration::from_secs(30));
        apply(&world, all);
        seconds(25.0).await;
        assert_eq!(within(&world).len(), 2, "the second one stays");
        seconds(MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 1);
        assert_no_violations(&world);
    });
}

/// A user deletes the memberships of the new group while the set deletes those of the old one.
#[test]
fn a_membership_stays_when_the_one_that_replaces_it_is_deleted() {
    in_virtual_time(|| async {
        let world = world().await;
        let ids = ["i-0", "i-1"];
        apply(&world, json!({"instanceIDs": ids}));
        seconds(10.0).await;
        // The old ones are kept until both new ones are Ready.
        let refused = CallFault::Refuse(500);
        world.faults.refuse_calls(deletes_memberships, refused);
        apply(
            &world,
            json!({"instanceIDs": ids, "securityGroupID": "sg-b"}),
        );
        seconds(10.0).await;
        let is_new = |object: &Arc<Value>| object["spec"]["securityGroupID"] == "sg-b";
        let new: Vec<_> = members(&world).into_iter().filter(is_new).collect();
        assert_eq!(new.len(), 2);
        world.faults.record_requests();
        let slow = CallFault::Pass(Duration::from_secs(3));
        world.faults.refuse_no_calls();
        world.faults.refuse_calls(deletes_memberships, slow);
        while world.faults.recorded(deletes_memberships).is_empty() {
            seconds(0.1).await;
        }
        for object in new {
            let name = text(&object, "/metadata/name");
            world.user(Verb::Delete, MEMBERSHIPS, NAMESPACE, &name, Value::Null);
        }
        let mut without: BTreeSet<&str> = BTreeSet::new();
        for _ in 0..600 {
            seconds(0.1).await;
            let is_in = |id: &&str| {
                ["sg-a", "sg-b"]
                    .iter()
                    .any(|group| world.is_member(id, group))
            };
            without.extend(ids.iter().filter(|id| !is_in(id)));
        }
        // The old one of the first had gone before.
        assert!(without.len() <= 1, "{without:?}");
        assert_eq!(told(&world), ("AllMembers".to_owned(), [2, 2, 2]));
        assert_no_violations(&world);
    });
}

/// The answer is on its way for five seconds; the membership is gone long before, and the watch has shown it.
#[test]
fn a_late_answer_to_a_deletion_brings_no_membership_back() {
    in_virtual_time(|| async {
        let world = two_joined(&json!({})).await;
        let slow = CallFault::Pass(Duration::from_secs(10));
        world.faults.refuse_calls(deletes_memberships, slow);
        apply(&world, json!({"instanceIDs": ["i-1"]}));
        seconds(8.0).await;
        assert_eq!(members(&world).len(), 1);
        assert_eq!(within(&world), [1]);
        seconds(30.0).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [1, 1, 1]));
        assert_no_violations(&world);
    });
}

/// The same, and the watch ends before it reports the deletion. The next list does not show the membership.
#[test]
fn an_answer_that_is_older_than_a_list_brings_no_membership_back() {
    for lost in 1..=4 {
        in_virtual_time(move || async move {
            let world = two_joined(&json!({})).await;
            let slow = CallFault::Pass(Duration::from_secs(20));
            world.faults.refuse_calls(deletes_memberships, slow);
            world.faults.lose_events(MEMBERSHIPS, lost);
            apply(&world, json!({"instanceIDs": ["i-1"]}));
            seconds(19.0).await;
            assert_eq!(members(&world).len(), 1, "{lost} events lost");
            seconds(30.0).await;
            let told = told(&world);
            assert_eq!(
                told,
                ("AllMembers".to_owned(), [1, 1, 1]),
                "{lost} events lost"
            );
            assert_no_violations(&world);
        });
    }
}

fn watches_nodes(call: &Call) -> bool {
    call.kind.plural == "nodes" && call.verb == Verb::Watch
}

/// How an operator comes to a list of Nodes that does not show one of them.
#[derive(Clone, Copy, Debug)]
enum BadList {
    /// It has just started, and the list leaves the Node out.
    Cut,
    /// Its watch has ended with 410, and the list that follows leaves the Node out.
    CutAfterExpiry,
    /// It has just started, and the list is of a time at which the Node was not there.
    Old,
}

/// Within five minutes the Node is shown again.
#[test]
fn a_list_of_nodes_that_lacks_one_removes_nothing() {
    for bad in [BadList::Cut, BadList::CutAfterExpiry, BadList::Old] {
        in_virtual_time(move || async move {
            let mut world = three_nodes().await;
            let soon = |seconds| Instant::now() + Duration::from_secs(seconds);
            match bad {
                BadList::Cut => world.faults.lies.hide_node("n-0".to_owned(), soon(20)),
                BadList::CutAfterExpiry => {
                    world.faults.lies.hide_node("n-0".to_owned(), soon(20));
                    world.faults.lose_events("nodes", 1);
                    let beat = json!({"status": {"beat": 0}});
                    world.user(Verb::Merge, "nodes", "", "n-1", beat);
                }
                BadList::Old => {
                    delete_node(&world, 0);
                    let without = world.server.state().revision;
                    for beat in 0..20 {
                        let beat = json!({"status": {"beat": beat}});
                        world.user(Verb::Merge, "nodes", "", "n-1", beat);
                    }
                    seconds(MINUTE).await;
                    node(&world, 0, web());
                    seconds(6.0 * MINUTE).await;
                    let back = world.server.state().revision - without;
                    world.faults.lies.age_nodes(back, soon(20));
                    let watch_is_late = CallFault::Refuse(503);
                    world.faults.refuse_calls(watches_nodes, watch_is_late);
                }
            }
            if !matches!(bad, BadList::CutAfterExpiry) {
                world.kill(0);
                world.start(None);
            }
            seconds(3.0 * MINUTE).await;
            // After the old list the watch does not begin.
            let reason = match bad {
                BadList::Cut | BadList::CutAfterExpiry => "AllMembers",
                BadList::Old => "SelectionIncomplete",
            };
            assert_eq!(told(&world), (reason.to_owned(), [2, 2, 3]), "{bad:?}");
            world.faults.refuse_no_calls();
            let beat = json!({"status": {"beat": 1}});
            world.user(Verb::Merge, "nodes", "", "n-0", beat);
            seconds(10.0 * MINUTE).await;
            assert_eq!(
                told(&world),
                ("AllMembers".to_owned(), [3, 3, 3]),
                "{bad:?}"
            );
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0, "{bad:?}");
            assert_no_violations(&world);
        });
    }
}

#[test]
fn labels_that_are_taken_off_one_by_one_leave_the_last_node() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        for (number, left) in [(0, &[1, 2][..]), (1, &[2]), (2, &[2])] {
            node(&world, number, json!({}));
            seconds(10.0).await;
            assert_eq!(within(&world), left);
        }
        seconds(30.0 * MINUTE).await;
        assert_eq!(told(&world), ("NothingSelected".to_owned(), [0, 0, 1]));
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 2);
        assert_no_violations(&world);
    });
}

/// The instance is picked for as long as one Node of it is.
#[test]
fn two_nodes_of_one_instance_count_as_one_target() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        let twin = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "twin", "labels": web()},
            "spec": {"providerID": "cn-hangzhou.i-0"},
        });
        world.user(Verb::Apply, "nodes", "", "twin", twin);
        seconds(10.0).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        node(&world, 0, json!({}));
        seconds(10.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        // The two Nodes swap names: n-0 is i-1 now, and n-1 is i-0.
        for (name, instance) in [("n-0", "i-1"), ("n-1", "i-0")] {
            world.user(Verb::Delete, "nodes", "", name, Value::Null);
            let object = json!({
                "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": web()},
                "spec": {"providerID": format!("cn-hangzhou.{instance}")},
            });
            world.user(Verb::Apply, "nodes", "", name, object);
        }
        world.user(Verb::Delete, "nodes", "", "twin", Value::Null);
        seconds(20.0 * MINUTE).await;
        assert_eq!(told(&world), ("AllMembers".to_owned(), [3, 3, 3]));
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
        assert_no_violations(&world);
    });
}

/// Its Nodes are skipped and counted, and nothing is joined or left.
#[test]
fn a_set_of_nodes_in_the_wrong_region_joins_nothing() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        let elsewhere = json!({
            "region": "cn-beijing", "securityGroupID": "sg-c", "nodeSelector": {"matchLabels": web()},
        });
        apply_set(&world, "elsewhere", elsewhere);
        seconds(10.0).await;
        assert_eq!(
            told_of(&world, "elsewhere"),
            ("NoTargets".to_owned(), [0, 0, 0])
        );
        let message = message_of(&world, "elsewhere");
        assert!(
            message.contains("no ECS instance of the region: 3"),
            "{message}"
        );
        assert_eq!(calls(&world, "JoinSecurityGroup"), 3);
    });
}

/// What would be created, changed and deleted waits until the set goes on.
#[test]
fn a_suspended_set_writes_no_membership() {
    in_virtual_time(|| async {
        let world = three_nodes().await;
        let selector = json!({"nodeSelector": {"matchLabels": web()}, "suspend": true});
        apply(&world, selector);
        seconds(10.0).await;
        world.faults.record_requests();
        // What would be created, changed and deleted.
        node(&world, 0, json!({}));
        let name = text(&members(&world)[1], "/metadata/name");
        let policy = json!({"spec": {"driftPolicy": "Report"}});
        world.user(Verb::Merge, MEMBERSHIPS, NAMESPACE, &name, policy);
        let more = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": "n-9", "labels": web()},
            "spec": {"providerID": "cn-hangzhou.i-9"},
        });
        world.user(Verb::Apply, "nodes", "", "n-9", more);
        seconds(20.0 * MINUTE).await;
        let by_set = |call: &Call| {
            let manager = call.query.get("fieldManager").map(String::as_str);
            let is_of_set = manager == Some(security_group_operator::api::SET_MANAGER);
            call.kind.plural == MEMBERSHIPS && (is_of_set || call.verb == Verb::Delete)
        };
        assert_eq!(world.faults.recorded(by_set).len(), 0);
        assert_eq!(members(&world).len(), 3);
        assert_eq!(within(&world), [0, 1, 2]);
        let selector = json!({"nodeSelector": {"matchLabels": web()}, "suspend": false});
        apply(&world, selector);
        seconds(10.0).await;
        assert_eq!(within(&world), [1, 2]);
        assert!(!world.faults.recorded(by_set).is_empty());
    });
}

/// The garbage collector of the cluster.
pub fn collect_garbage(world: &World) {
    tokio::spawn(garbage::collect(
        world.user_handle(),
        Duration::from_millis(200),
    ));
}
