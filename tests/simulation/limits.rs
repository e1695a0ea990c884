//! Where ownership ends: what docs/user/ownership.md, two-clusters.md and backup.md say happens, and what to do. The journal of the cloud judges.

use std::time::Duration;

use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION};
use security_group_operator::kubernetes::WatchScope;
use serde_json::{Value, json};

use crate::api_server::CallFault;
use crate::in_virtual_time;
use crate::link::KillPoint;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::scenario::{
    add_fault, calls, claimed, exceptions, journal, lagging_world, object, ready, seconds, told,
    world,
};
use crate::topology::{CLUSTER, GUESTS, KEYS, NAMESPACE, name_own_account, place};
use crate::world::{SimOptions, World};

/// Longer than a pass over one object without faults.
const AT_ONCE: f64 = 0.4;
/// Longer than what the cloud's reads may lag, and than a process that has just started trusts no read.
const SETTLED: f64 = 11.0;
/// The scan period of 60 s, and a pass.
const SCAN: f64 = 66.0;

fn is_member(world: &World) -> bool {
    world.monitor.read_journal();
    world.is_member("i-0", "sg-a")
}

fn claim(world: &World, name: &str) -> String {
    let (namespace, name) = place(name);
    let object = world.server.object(MEMBERSHIPS, namespace, name);
    claimed(&object.unwrap()).to_owned()
}

fn is_there(world: &World, name: &str) -> bool {
    let (namespace, name) = place(name);
    world.server.object(MEMBERSHIPS, namespace, name).is_some()
}

fn has_finalizer(world: &World, name: &str) -> bool {
    let finalizers = object(world, name).unwrap()["metadata"]["finalizers"].clone();
    finalizers
        .as_array()
        .is_some_and(|all| all.contains(&json!(FINALIZER)))
}

/// How long i-0 is not in sg-a within the next 150 s.
async fn seconds_missing(world: &World) -> u32 {
    let mut missing = 0;
    for _ in 0..150 {
        seconds(1.0).await;
        missing += u32::from(!is_member(world));
    }
    missing
}

/// Two clusters of one cloud account. The first has joined i-0 to sg-a for its object `m`, the second has adopted it for its own.
async fn two_clusters(first: Value, second: Value) -> (World, World) {
    let mut blue = World::new(SimOptions::default());
    let mut green = blue.second_cluster();
    blue.start(None);
    green.start(None);
    seconds(SETTLED).await;
    blue.membership("m", 0, 0, first);
    seconds(SETTLED).await;
    green.membership("m", 0, 0, second);
    seconds(SETTLED).await;
    assert_eq!(ready(&blue, "m").1, "Joined");
    assert_eq!(ready(&green, "m").1, "Adopted");
    (blue, green)
}

#[test]
fn deletion_in_one_cluster_takes_the_membership_from_the_other_for_a_scan_period() {
    in_virtual_time(|| async {
        let (blue, green) = two_clusters(json!({}), json!({})).await;
        blue.delete("m");
        seconds(AT_ONCE).await;
        assert!(!is_there(&blue, "m"));
        let missing = seconds_missing(&green).await;
        assert!((1..=66).contains(&missing), "{missing} s");
        // The second cluster adopted it. It stays so, whatever the operator does there.
        assert_eq!(ready(&green, "m").1, "Adopted");
        green.delete("m");
        seconds(AT_ONCE).await;
        assert!(!is_there(&green, "m"));
        let expected = [
            "the operator joined",
            "the operator left",
            "the second operator joined",
        ];
        assert_eq!(journal(&green), expected);
        assert!(is_member(&green));
    });
}

#[test]
fn clusters_that_retain_take_nothing_from_each_other_and_one_that_removes_ends_it() {
    in_virtual_time(|| async {
        let retain = || json!({"deletionPolicy": "Retain"});
        let (blue, green) = two_clusters(retain(), json!({"deletionPolicy": "Remove"})).await;
        blue.delete("m");
        assert_eq!(seconds_missing(&green).await, 0);
        assert!(!is_there(&blue, "m"));
        green.delete("m");
        seconds(AT_ONCE).await;
        assert!(!is_there(&green, "m"));
        assert_eq!(
            journal(&green),
            ["the operator joined", "the second operator left"]
        );
    });
}

/// The commands of the page, in their order. The group is never missing, and goes with the new object.
#[test]
fn move_to_another_cluster_keeps_the_membership_all_the_time() {
    in_virtual_time(|| async {
        let (blue, green) = two_clusters(json!({}), json!({"deletionPolicy": "Remove"})).await;
        blue.patch("m", json!({"spec": {"deletionPolicy": "Retain"}}));
        blue.delete("m");
        assert_eq!(seconds_missing(&green).await, 0);
        assert!(!is_there(&blue, "m"));
        assert_eq!(
            ready(&green, "m"),
            ("True".to_owned(), "Adopted".to_owned())
        );
        green.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(
            journal(&green),
            ["the operator joined", "the second operator left"]
        );
    });
}

/// R13: what another operator has just removed is still listed, and this one knows of no call.
#[test]
fn what_another_operator_removed_seconds_ago_is_adopted() {
    in_virtual_time(|| async {
        let mut blue = World::new(SimOptions {
            lag: Duration::from_secs(5),
            ..SimOptions::default()
        });
        let mut green = blue.second_cluster();
        blue.start(None);
        green.start(None);
        seconds(SETTLED).await;
        blue.membership("m", 0, 0, json!({}));
        seconds(20.0).await;
        blue.delete("m");
        seconds(2.0).await;
        assert!(!is_there(&blue, "m"));
        green.membership("m", 0, 0, json!({}));
        seconds(AT_ONCE).await;
        assert_eq!(ready(&green, "m").1, "Adopted");
        assert!(!is_member(&green));
        seconds(2.0 * SCAN).await;
        assert!(is_member(&green));
        green.delete("m");
        seconds(20.0).await;
        assert!(!is_there(&green, "m"));
        let expected = [
            "the operator joined",
            "the operator left",
            "the second operator joined",
        ];
        assert_eq!(journal(&green), expected);
    });
}

/// H11: A copy of etcd has the same objects with the same UIDs: both clusters own what the original joined.
#[test]
fn clone_of_a_cluster_owns_what_the_original_joined() {
    // What is done in the clone before its operator starts; whether a deletion in it ends there, and removes what the original needs.
    type Precaution = fn(&World);
    let precautions: [(Precaution, bool, bool); 3] = [
        (|_| {}, true, true),
        (
            |clone| {
                clone.patch("m", json!({"spec": {"deletionPolicy": "Retain"}}));
            },
            true,
            false,
        ),
        (|clone| clone.remove_secret(CLUSTER), false, false),
    ];
    for (precaution, ends, evicts) in precautions {
        in_virtual_time(|| async move {
            let original = world().await;
            original.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            let content = original.server.state().clone();
            let mut clone = original.restored(content);
            precaution(&clone);
            clone.start(None);
            seconds(SETTLED).await;
            clone.delete("m");
            let missing = seconds_missing(&original).await;
            assert_eq!(is_there(&clone, "m"), !ends);
            assert_eq!(missing > 0, evicts, "{missing} s");
            assert!(missing <= 66, "{missing} s");
            assert_eq!(ready(&original, "m").1, "Joined");
            original.delete("m");
            seconds(AT_ONCE).await;
            assert!(!is_member(&original));
        });
    }
}

fn only(namespace: &str) -> Vec<WatchScope> {
    vec![WatchScope::Namespace(namespace.to_owned())]
}

/// With Roles in its own namespaces, as the chart gives them with `namespaces`.
#[test]
fn operators_of_different_namespaces_take_memberships_from_each_other() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start_over(only(NAMESPACE), &std::sync::Arc::default());
        world.start_over(only(GUESTS), &std::sync::Arc::default());
        seconds(SETTLED).await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.membership("guest/c", 0, 0, json!({}));
        seconds(SETTLED).await;
        assert_eq!(claim(&world, "m"), "Joined");
        assert_eq!(claim(&world, "guest/c"), "Adopted");
        world.delete("m");
        let missing = seconds_missing(&world).await;
        assert!(!is_there(&world, "m"));
        assert!((1..=66).contains(&missing), "{missing} s");
        world.delete("guest/c");
        seconds(AT_ONCE).await;
        assert!(!is_there(&world, "guest/c"));
        let expected = [
            "the operator joined",
            "the operator left",
            "the operator joined",
        ];
        assert_eq!(journal(&world), expected);
        assert!(is_member(&world));
    });
}

/// Each of two operators remembers when it was accepted itself. None of them writes its own time over that of the other one for ever.
#[test]
fn operators_that_share_an_account_do_not_write_its_status_in_turn() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start_over(only(NAMESPACE), &std::sync::Arc::default());
        seconds(SETTLED).await;
        // STS does not answer the second one at first.
        let failed = json!({"error": {"code": "InternalError"}});
        add_fault(&world, "GetCallerIdentity", 1, &failed);
        world.start_over(only(GUESTS), &std::sync::Arc::default());
        seconds(200.0).await;
        let revision = world.server.state().revision;
        seconds(600.0).await;
        assert_eq!(world.server.state().revision, revision);
    });
}

/// R12: an operator whose `--namespace` has become narrower. What is outside holds nothing, and waits for an operator when it is deleted.
#[test]
fn object_outside_the_scope_holds_nothing_and_its_deletion_waits() {
    in_virtual_time(|| async {
        let mut world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.membership("guest/c", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.kill(0);
        world.start_over(only(NAMESPACE), &std::sync::Arc::default());
        seconds(SETTLED).await;
        world.delete("m");
        seconds(SCAN).await;
        assert!(!is_there(&world, "m"));
        assert_eq!(
            journal(&world),
            ["the operator joined", "the operator left"]
        );
        world.delete("guest/c");
        seconds(600.0).await;
        assert!(is_there(&world, "guest/c"));
        // The way out, as for an operator that is not installed.
        world.patch("guest/c", json!({"metadata": {"finalizers": null}}));
        assert!(!is_there(&world, "guest/c"));
    });
}

/// H5, H6: A cluster is lost with all objects, and a backup brings them back as new ones.
#[test]
fn restored_object_adopts_what_the_lost_one_joined() {
    for (with_status, policy, kept) in [
        (false, "RemoveIfJoined", true),
        (true, "RemoveIfJoined", true),
        (false, "Remove", false),
        (true, "Remove", false),
    ] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            let lost = object(&world, "m").unwrap();
            world.kill(0);
            let mut world = world.second_cluster();
            let metadata = json!({
                "name": "m",
                "finalizers": lost["metadata"]["finalizers"],
                "annotations": lost["metadata"]["annotations"],
            });
            let mut spec = lost["spec"].clone();
            spec["deletionPolicy"] = json!(policy);
            // UIDs are numbers here: without these the new object would have that of the lost one.
            for (name, target) in [("first", 1), ("second", 2)] {
                world.membership(name, target, 0, json!({}));
            }
            world.create(
                MEMBERSHIPS,
                NAMESPACE,
                json!({"metadata": metadata, "spec": spec}),
            );
            if with_status {
                world.overwrite_status("m", &lost["status"]);
            }
            assert_ne!(
                object(&world, "m").unwrap()["metadata"]["uid"],
                lost["metadata"]["uid"]
            );
            world.start(None);
            seconds(2.0 * SETTLED).await;
            assert_eq!(ready(&world, "m").1, "Adopted");
            world.delete("m");
            seconds(AT_ONCE).await;
            assert!(!is_there(&world, "m"));
            assert_eq!(is_member(&world), kept, "status {with_status}, {policy}");
        });
    }
}

/// etcd is put back to an earlier day while the operator is stopped. What was deleted since is there again, and is joined again.
#[test]
fn object_that_a_restored_etcd_brings_back_is_joined_again() {
    for (policy, told, journal_after) in [
        (
            "Repair",
            "Joined",
            &[
                "the operator joined",
                "the operator left",
                "the operator joined",
            ][..],
        ),
        (
            "Report",
            "DriftReported",
            &["the operator joined", "the operator left"],
        ),
    ] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({"driftPolicy": policy}));
            seconds(SETTLED).await;
            let backup = world.server.state().clone();
            world.delete("m");
            seconds(AT_ONCE).await;
            assert!(!is_there(&world, "m"));
            world.kill(0);
            let mut restored = world.restored(backup);
            restored.start(None);
            seconds(2.0 * SETTLED).await;
            assert_eq!(ready(&restored, "m").1, told);
            assert_eq!(journal(&restored), journal_after, "{policy}");
            restored.delete("m");
            seconds(AT_ONCE).await;
            assert!(!is_there(&restored, "m"), "{policy}");
            assert!(!is_member(&restored), "{policy}");
        });
    }
}

/// What was created since the backup is gone, and the operator knows nothing of its membership.
#[test]
fn membership_that_a_restored_etcd_does_not_know_stays() {
    in_virtual_time(|| async {
        let world = world().await;
        let backup = world.server.state().clone();
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.kill(0);
        let mut restored = world.restored(backup);
        restored.start(None);
        seconds(2.0 * SCAN).await;
        assert_eq!(journal(&restored), ["the operator joined"]);
        // What to do: an object with `Remove`.
        restored.membership("m", 0, 0, json!({"deletionPolicy": "Remove"}));
        seconds(SETTLED).await;
        assert_eq!(ready(&restored, "m").1, "Adopted");
        restored.delete("m");
        seconds(AT_ONCE).await;
        assert!(!is_member(&restored));
    });
}

/// H10: A record comes back that was taken off since, because others had removed the membership and made it again.
#[test]
fn record_that_a_restored_etcd_brings_back_counts_again() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({"driftPolicy": "Report"}));
        seconds(SETTLED).await;
        let backup = world.server.state().clone();
        world.foreign(0, 0, false);
        seconds(SCAN).await;
        assert_eq!(ready(&world, "m").1, "DriftReported");
        world.foreign(0, 0, true);
        seconds(SCAN).await;
        assert_eq!(ready(&world, "m").1, "Adopted");
        world.kill(0);
        let mut restored = world.restored(backup);
        restored.start(None);
        seconds(SETTLED).await;
        assert_eq!(ready(&restored, "m").1, "Joined");
        restored.delete("m");
        seconds(AT_ONCE).await;
        let expected = [
            "the operator joined",
            "another actor left",
            "another actor joined",
            "the operator left",
        ];
        assert_eq!(journal(&restored), expected);
    });
}

/// F3.
#[test]
fn replace_takes_off_the_finalizer_and_the_operator_puts_it_back() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.replace("m");
        assert!(!has_finalizer(&world, "m"));
        seconds(AT_ONCE).await;
        assert!(has_finalizer(&world, "m"));
        assert_eq!(ready(&world, "m").1, "Joined");
        // By hand it is the same.
        world.patch(
            "m",
            json!({"metadata": {"finalizers": null, "annotations": {INTENT_ANNOTATION: null}}}),
        );
        seconds(AT_ONCE).await;
        assert!(has_finalizer(&world, "m"));
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(
            journal(&world),
            ["the operator joined", "the operator left"]
        );
    });
}

/// H7: also while the operator runs, if the deletion comes before it has put the finalizer back; and while the object is suspended.
#[test]
fn object_that_is_replaced_and_deleted_before_the_operator_acts_leaves_its_membership() {
    for why in ["down", "too late", "suspended"] {
        in_virtual_time(move || async move {
            let mut world = world().await;
            world.membership("m", 0, 0, json!({}));
            world.membership("applied", 1, 0, json!({}));
            seconds(SETTLED).await;
            if why == "down" {
                world.kill(0);
            }
            if why == "suspended" {
                world.patch("m", json!({"spec": {"suspend": true}}));
                seconds(SETTLED).await;
            }
            world.replace("m");
            if why == "suspended" {
                seconds(SETTLED).await;
            }
            for name in ["m", "applied"] {
                world.delete(name);
            }
            assert!(!is_there(&world, "m"), "{why}");
            if why == "down" {
                world.start(None);
            }
            seconds(2.0 * SCAN).await;
            assert_eq!(journal(&world), ["the operator joined"], "{why}");
            assert!(is_member(&world));
            // Without `replace` the deletion has waited.
            assert!(!is_there(&world, "applied"));
            assert!(!world.is_member("i-1", "sg-a"));
        });
    }
}

/// `kubectl replace --force`, and Argo CD with `Replace=true,Force=true`.
#[test]
fn forced_replace_removes_the_membership_for_a_moment() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.recreate("m");
        seconds(SETTLED).await;
        let expected = [
            "the operator joined",
            "the operator left",
            "the operator joined",
        ];
        assert_eq!(journal(&world), expected);
        assert_eq!(ready(&world, "m").1, "Joined");
    });
}

/// C13: at every moment at which the operator may be killed as well.
#[test]
fn adopted_membership_that_was_repaired_stays_adopted_and_is_kept() {
    for (policy, kept) in [("RemoveIfJoined", true), ("Remove", false)] {
        for kill_at in 0..8 {
            in_virtual_time(|| async move {
                let mut world = world().await;
                world.foreign(0, 0, true);
                world.membership("m", 0, 0, json!({"deletionPolicy": policy}));
                seconds(SETTLED).await;
                world.foreign(0, 0, false);
                world.schedule_kill(kill_at, KillPoint::AfterEffect);
                seconds(2.0 * SCAN).await;
                if kill_at > 0 {
                    world.restart_all();
                    seconds(2.0 * SCAN).await;
                }
                assert!(is_member(&world));
                assert_eq!(ready(&world, "m").1, "Adopted", "{kill_at}");
                world.delete("m");
                seconds(AT_ONCE).await;
                assert!(!is_there(&world, "m"));
                assert_eq!(is_member(&world), kept, "{policy} {kill_at}");
            });
        }
    }
}

/// C16: one object has joined and reports, another has adopted and repairs. If the report comes first, no object owns what the other
/// one repairs.
#[test]
fn mixed_drift_policies_on_one_membership_can_end_without_an_owner() {
    // The policies of the object that has joined and of the one that shares, whether the first is alone at first, and what both are then.
    for (joined, shared, alone, claims) in [
        ("Report", "Repair", true, ["Adopted", "Adopted"]),
        ("Report", "Repair", false, ["Joined", "Adopted"]),
        ("Repair", "Report", false, ["Joined", "Adopted"]),
        ("Repair", "Repair", false, ["Joined", "Adopted"]),
    ] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({"driftPolicy": joined}));
            seconds(SETTLED).await;
            world.membership("other", 0, 0, json!({"driftPolicy": shared}));
            seconds(SETTLED).await;
            let both = || [claim(&world, "m"), claim(&world, "other")];
            assert_eq!(both(), ["Joined", "Adopted"]);
            world.patch("other", json!({"spec": {"suspend": alone}}));
            world.foreign(0, 0, false);
            seconds(SCAN).await;
            if alone {
                assert_eq!(ready(&world, "m").1, "DriftReported");
            }
            world.patch("other", json!({"spec": {"suspend": false}}));
            seconds(2.0 * SCAN).await;
            assert!(is_member(&world));
            let policies = format!("{joined}, {shared}, {alone}");
            assert_eq!(both(), claims, "{policies}");
            for name in ["m", "other"] {
                world.delete(name);
                seconds(AT_ONCE).await;
                assert!(!is_there(&world, name));
            }
            let is_owned = claims.contains(&"Joined");
            assert_eq!(is_member(&world), !is_owned, "{policies}");
        });
    }
}

/// C30, E14: `Retain` hands nothing on. What it keeps is kept for good, unless another object says `Remove`.
#[test]
fn retain_on_a_shared_edge_hands_nothing_on() {
    for (others_policy, kept) in [("RemoveIfJoined", true), ("Remove", false)] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({"deletionPolicy": "Retain"}));
            seconds(SETTLED).await;
            world.membership("other", 0, 0, json!({"deletionPolicy": others_policy}));
            seconds(SETTLED).await;
            world.delete("m");
            seconds(SETTLED).await;
            assert!(!is_there(&world, "m"));
            assert_eq!(ready(&world, "other").1, "Adopted");
            world.delete("other");
            seconds(AT_ONCE).await;
            assert!(!is_there(&world, "other"));
            assert_eq!(is_member(&world), kept, "{others_policy}");
        });
    }
    // The other way round: what is handed to it is kept by its own policy.
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.membership("other", 0, 0, json!({"deletionPolicy": "Retain"}));
        seconds(SETTLED).await;
        for name in ["m", "other"] {
            world.delete(name);
            seconds(AT_ONCE).await;
            assert!(!is_there(&world, name));
        }
        assert_eq!(journal(&world), ["the operator joined"]);
    });
}

/// A3, A9, A10: the operator is killed between its intent and its Join, and another actor makes the membership before the next start.
#[test]
fn membership_made_while_the_operator_is_down_with_an_open_intent_counts_as_joined() {
    let mut open = 0;
    for request in 1..8 {
        open += u32::from(in_virtual_time(|| async move {
            let mut world = world().await;
            world.schedule_kill(request, KillPoint::AfterEffect);
            world.membership("m", 0, 0, json!({}));
            seconds(AT_ONCE).await;
            let is_open = claim(&world, "m") == "Joined" && !is_member(&world);
            if !is_open || world.dead_incarnation().is_none() {
                return false;
            }
            world.foreign(0, 0, true);
            world.restart_all();
            seconds(SETTLED).await;
            assert_eq!(ready(&world, "m").1, "Joined");
            world.delete("m");
            // A Join of the process before might still take effect.
            seconds(90.0).await;
            assert!(!is_there(&world, "m"));
            assert_eq!(
                journal(&world),
                ["another actor joined", "the operator left"]
            );
            true
        }));
    }
    assert_eq!(open, 1, "one request, the write of the intent");
}

/// C3: what others remove and make again between two reads is not seen missing.
#[test]
fn membership_made_again_before_the_next_read_still_counts_as_joined() {
    for while_down in [false, true] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            if while_down {
                world.kill(0);
            }
            world.foreign(0, 0, false);
            world.foreign(0, 0, true);
            if while_down {
                world.start(None);
            }
            seconds(2.0 * SCAN).await;
            assert_eq!(ready(&world, "m").1, "Joined");
            world.delete("m");
            seconds(AT_ONCE).await;
            let expected = [
                "the operator joined",
                "another actor left",
                "another actor joined",
                "the operator left",
            ];
            assert_eq!(journal(&world), expected, "{while_down}");
        });
    }
}

/// C5: a read that lags more than 10 s behind our own Join is taken for the truth: the repair is answered with `AlreadyExists`, and what
/// the operator joined counts as another actor's. One that lags less is not.
#[test]
fn read_that_lags_more_than_ten_seconds_is_taken_for_the_truth() {
    for (lag, scanned_after, told, is_kept) in
        [(9, 8.0, "Joined", false), (12, 11.0, "Adopted", true)]
    {
        in_virtual_time(|| async move {
            let world = lagging_world(lag).await;
            world.membership("other", 1, 0, json!({"deletionPolicy": "Retain"}));
            seconds(2.0 * SCAN).await;
            let reads = calls(&world, "DescribeInstances");
            while calls(&world, "DescribeInstances") == reads {
                seconds(0.1).await;
            }
            // The next scan begins so long after the Join.
            seconds(60.0 - scanned_after).await;
            world.membership("m", 0, 0, json!({}));
            seconds(AT_ONCE).await;
            assert_eq!(ready(&world, "m").1, "Joined", "{lag}");
            seconds(2.0 * SCAN).await;
            assert_eq!(ready(&world, "m").1, told, "{lag}");
            assert_eq!(claim(&world, "m"), told, "{lag}");
            world.delete("m");
            seconds(2.0 * SCAN).await;
            assert!(!is_there(&world, "m"), "{lag}");
            assert_eq!(is_member(&world), is_kept, "{lag}");
            let expected = ["the operator joined", "the operator left"];
            assert_eq!(journal(&world), expected[..2 - usize::from(is_kept)]);
        });
    }
}

/// C17: the owner is suspended, and another object sees that others have removed the membership. Others make it again. A process knows
/// of what it has seen; the next one goes by the record of the owner, which stands.
#[test]
fn record_of_a_suspended_owner_counts_again_after_a_restart() {
    for restarts in [false, true] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            for name in ["m", "other"] {
                world.membership(name, 0, 0, json!({"driftPolicy": "Report"}));
                seconds(SETTLED).await;
            }
            world.patch("m", json!({"spec": {"suspend": true}}));
            seconds(AT_ONCE).await;
            world.foreign(0, 0, false);
            seconds(SCAN).await;
            assert_eq!(ready(&world, "other").1, "DriftReported");
            world.foreign(0, 0, true);
            seconds(SCAN).await;
            if restarts {
                world.restart_all();
                seconds(SETTLED).await;
            }
            assert_eq!(claim(&world, "m"), "Joined");
            world.patch("m", json!({"spec": {"suspend": false}}));
            world.delete("m");
            seconds(AT_ONCE).await;
            assert!(!is_there(&world, "m"));
            let handed = if restarts { "Joined" } else { "Adopted" };
            assert_eq!(claim(&world, "other"), handed);
            world.delete("other");
            seconds(AT_ONCE).await;
            assert!(!is_there(&world, "other"));
            let expected = [
                "the operator joined",
                "another actor left",
                "another actor joined",
                "the operator left",
            ];
            let count = 3 + usize::from(restarts);
            assert_eq!(journal(&world), expected[..count]);
        });
    }
}

/// A11, Q5: the vendor's gateway sends the first Join twice, and answers with what the second was told.
#[test]
fn first_join_that_is_answered_with_already_exists_is_adopted() {
    in_virtual_time(|| async {
        let world = world().await;
        let twice = json!({
            "action": "JoinSecurityGroup", "count": 1, "effect": true,
            "fault": {"error": {"code": "InvalidInstanceId.AlreadyExists"}},
        });
        world
            .simulator
            .add_fault(serde_json::from_value(twice).unwrap());
        world.membership("m", 0, 0, json!({}));
        seconds(AT_ONCE).await;
        assert_eq!(ready(&world, "m").1, "Adopted");
        world.delete("m");
        seconds(AT_ONCE).await;
        assert!(!is_there(&world, "m"));
        assert_eq!(journal(&world), ["the operator joined"]);
        assert!(is_member(&world));
    });
}

/// A15, U3: the cloud answers OK to a Join of a member, and its reads lag behind what another actor has made.
#[test]
fn join_of_a_member_that_is_answered_with_ok_counts_as_joined() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions {
            lag: Duration::from_secs(8),
            ..SimOptions::default()
        });
        world.cloud(json!({"set": {"joinMember": "Success"}}));
        world.start(None);
        seconds(2.0 * SETTLED).await;
        world.foreign(0, 0, true);
        world.membership("m", 0, 0, json!({}));
        seconds(2.0 * SCAN).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        // A read that lags is no drift.
        assert_eq!(told(&world, "m"), ["Joined"]);
        world.delete("m");
        seconds(AT_ONCE).await;
        let expected = ["another actor joined", "the operator left"];
        assert_eq!(journal(&world), expected);
    });
}

/// D4: the process that repairs is killed before the answer, the call takes effect a minute later, and the object is deleted between.
#[test]
fn repair_of_a_killed_process_that_arrives_after_the_deletion_stays() {
    in_virtual_time(|| async {
        let mut world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        let late = json!({
            "action": "JoinSecurityGroup", "count": 1, "effectAfter": "60s", "fault": "reset",
        });
        world
            .simulator
            .add_fault(serde_json::from_value(late).unwrap());
        world.foreign(0, 0, false);
        let mut waited = 0;
        while world.simulator.stats()["calls"]["JoinSecurityGroup"].get("OK") == Some(&json!(1))
            && world.simulator.stats()["calls"]["JoinSecurityGroup"]
                .as_object()
                .unwrap()
                .len()
                == 1
        {
            seconds(0.1).await;
            waited += 1;
            assert!(waited < 1_000, "{}", world.simulator.stats());
        }
        world.kill(0);
        world.start(None);
        world.delete("m");
        seconds(20.0).await;
        assert!(!is_there(&world, "m"));
        assert!(!is_member(&world));
        seconds(60.0).await;
        let expected = [
            "the operator joined",
            "another actor left",
            "the operator joined",
        ];
        assert_eq!(journal(&world), expected);
        assert!(is_member(&world));
    });
}

/// E21, simulated wide seeds 48305 and 187969: the membership that `m` has joined is removed, and the repair for another object, which has
/// adopted it, gets no answer. `m` makes no repair of its own, and the other object may go before the call takes effect. The call speaks for the
/// object that it was sent for, and `m` adopts what it finds.
#[test]
fn unanswered_repair_for_an_adopter_speaks_for_no_other_object() {
    for goes in [true, false] {
        in_virtual_time(|| unanswered_repair_for_an_adopter(goes));
    }
}

async fn unanswered_repair_for_an_adopter(goes: bool) {
    let world = world().await;
    for name in ["m", "adopter"] {
        world.membership(name, 0, 0, json!({}));
        seconds(SETTLED).await;
    }
    assert_eq!(claim(&world, "adopter"), "Adopted");
    world.patch("m", json!({"spec": {"suspend": true}}));
    let late = json!({
        "action": "JoinSecurityGroup", "count": 1, "effectAfter": "50s", "fault": "reset",
    });
    world
        .simulator
        .add_fault(serde_json::from_value(late).unwrap());
    world.foreign(0, 0, false);
    let mut waited = 0;
    while calls(&world, "JoinSecurityGroup") < 2 {
        seconds(0.1).await;
        waited += 1;
        assert!(waited < 1_000, "{}", world.simulator.stats());
    }
    if goes {
        world.delete("adopter");
        seconds(AT_ONCE).await;
        assert!(!is_there(&world, "adopter"));
    }
    assert!(!is_member(&world));
    seconds(52.0).await;
    world.patch("m", json!({"spec": {"suspend": false}}));
    seconds(SCAN).await;
    assert_eq!(claim(&world, "m"), "Adopted");
    for name in ["m", "adopter"] {
        world.delete(name);
    }
    seconds(SCAN).await;
    assert!(!is_there(&world, "m") && !is_there(&world, "adopter"));
    let expected = [
        "the operator joined",
        "another actor left",
        "the operator joined",
    ];
    assert_eq!(journal(&world), expected);
    assert_eq!(exceptions(&world), [("RepairedForAnAdopter", 1)]);
    assert_eq!(world.monitor.violations(), [""; 0]);
}

/// Simulated wide seed 140076, cut to five acts: the process is stopped for half a minute between its note that it sends a Join and the sending. The call gets
/// no answer and takes effect 80 s after the note. The deletion waits for 76 s.
#[test]
fn join_of_a_process_that_is_stopped_while_it_sends_stays_after_a_deletion() {
    in_virtual_time(|| async {
        let world = world().await;
        let late = json!({
            "action": "JoinSecurityGroup", "count": 1, "effectAfter": "50s", "fault": "reset",
        });
        world
            .simulator
            .add_fault(serde_json::from_value(late).unwrap());
        world.membership("m", 0, 0, json!({}));
        // The target was read, and the intent is on its way.
        seconds(0.021).await;
        world.pause(true);
        seconds(30.0).await;
        assert_eq!(claim(&world, "m"), "Joined");
        assert_eq!(calls(&world, "JoinSecurityGroup"), 0);
        world.pause(false);
        seconds(AT_ONCE).await;
        assert_eq!(calls(&world, "JoinSecurityGroup"), 1);
        world.delete("m");
        seconds(SCAN).await;
        assert!(!is_there(&world, "m"));
        assert_eq!(journal(&world), ["the operator joined"]);
        assert!(is_member(&world));
    });
}

/// H12: a tenant whose own key may only read. It adopts, and so it holds the membership after the owner has gone.
#[test]
fn tenant_with_a_read_only_key_of_the_same_cloud_account_holds_what_it_has_adopted() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions {
            own_accounts: true,
            ..SimOptions::default()
        });
        let guests = 2;
        world.write_secret(guests, 1);
        let refused = json!({
            "accessKey": KEYS[1].0, "action": "LeaveSecurityGroup",
            "fault": {"error": {"code": "Forbidden.RAM", "status": 403}},
        });
        world
            .simulator
            .add_fault(serde_json::from_value(refused).unwrap());
        world.start(None);
        seconds(SETTLED).await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        let mut own = json!({});
        name_own_account(&mut own);
        world.membership("guest/c", 0, 0, own);
        seconds(SETTLED).await;
        assert_eq!(claim(&world, "guest/c"), "Adopted");
        world.delete("m");
        seconds(2.0 * SCAN).await;
        assert!(!is_there(&world, "m"));
        assert!(is_member(&world));
        assert_eq!(claim(&world, "guest/c"), "Joined");
        // The deletion says why it waits.
        world.delete("guest/c");
        seconds(SETTLED).await;
        let held = world.server.object(MEMBERSHIPS, GUESTS, "c").unwrap();
        assert_eq!(
            text(condition(&held, "Ready").unwrap(), "/reason"),
            "ForbiddenRAM"
        );
        assert_eq!(journal(&world), ["the operator joined"]);
    });
}

/// The operator has started, and cannot check an account. It does not know whose that is, and its object holds nothing that it has not
/// joined.
#[test]
fn object_of_an_account_that_was_not_accepted_since_the_start_holds_only_what_it_joined() {
    for (origin, is_kept) in [("", false), ("Adopted", false), ("Joined", true)] {
        in_virtual_time(|| async move {
            let (mut world, own) = with_own_account();
            world.start(None);
            seconds(SETTLED).await;
            world.membership("m", 0, 0, own.clone());
            seconds(SETTLED).await;
            if origin == "Joined" {
                // What is handed over counts as joined by the heir.
                world.membership("second", 0, 0, json!({}));
                seconds(SETTLED).await;
                world.delete("m");
                seconds(SETTLED).await;
                world.membership("m", 0, 0, own);
                seconds(SETTLED).await;
            } else if origin == "Adopted" {
                world.membership("second", 0, 0, json!({}));
                seconds(SETTLED).await;
            }
            world.kill(0);
            world.remove_secret(CLUSTER);
            if origin.is_empty() {
                world.membership("second", 0, 0, json!({}));
            }
            world.start(None);
            seconds(SETTLED).await;
            assert_eq!(claim(&world, "second"), origin);
            assert_eq!(ready(&world, "second").1, "AccountNotReady");
            world.delete("m");
            seconds(AT_ONCE).await;
            assert!(!is_there(&world, "m"), "{origin}");
            assert_eq!(is_member(&world), is_kept, "{origin}");
            // As soon as the account can be used, the target is in the group again.
            world.write_secret(CLUSTER, 0);
            seconds(SETTLED).await;
            assert!(is_member(&world), "{origin}");
            assert_eq!(world.monitor.violations(), [""; 0], "{origin}");
        });
    }
}

/// A world with accounts of the namespaces, and what names the one of [`NAMESPACE`].
fn with_own_account() -> (World, Value) {
    let world = World::new(SimOptions {
        own_accounts: true,
        ..SimOptions::default()
    });
    let mut own = json!({});
    name_own_account(&mut own);
    (world, own)
}

/// L27: of two objects on one edge, the one that has adopted it is the first to repair it; others join it in that moment.
#[test]
fn what_others_join_while_an_adopter_repairs_is_theirs() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.membership("a", 0, 0, json!({}));
        seconds(SETTLED).await;
        assert_eq!(
            (claim(&world, "m"), claim(&world, "a")),
            ("Joined".to_owned(), "Adopted".to_owned())
        );
        // The owner looks on.
        world.patch("m", json!({"spec": {"suspend": true}}));
        seconds(1.0).await;
        let exists = json!({"error": {"code": "InvalidInstanceId.AlreadyExists"}});
        add_fault(&world, "JoinSecurityGroup", 1, &exists);
        world.foreign(0, 0, false);
        let joins = calls(&world, "JoinSecurityGroup");
        while calls(&world, "JoinSecurityGroup") == joins {
            seconds(0.01).await;
        }
        world.foreign(0, 0, true);
        seconds(SCAN).await;
        world.patch("m", json!({"spec": {"suspend": false}}));
        seconds(SCAN).await;
        assert_eq!(ready(&world, "m").1, "Adopted");
        for name in ["m", "a"] {
            world.delete(name);
            seconds(SETTLED).await;
            assert!(!is_there(&world, name));
        }
        assert!(is_member(&world), "{:?}", journal(&world));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// The first object hands its membership over to one that a backup tool has restored with the status of a third.
#[test]
fn restored_status_says_nothing_of_an_object_that_a_membership_is_handed_over_to() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        let mut status = object(&world, "m").unwrap()["status"].clone();
        status["objectUID"] = json!("of-a-lost-object");
        status["conditions"].as_array_mut().unwrap().push(json!({
            "type": "Stalled", "status": "True", "reason": "NotGranted", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }));
        let slow = CallFault::Pass(Duration::from_secs(3));
        world
            .faults
            .refuse_calls(|call| call.status && call.verb.writes(), slow);
        world.membership("c", 0, 0, json!({}));
        world.overwrite_status("c", &status);
        world.delete("m");
        seconds(60.0).await;
        world.faults.refuse_no_calls();
        seconds(2.0 * SCAN).await;
        assert!(!is_there(&world, "m") && is_member(&world));
        let object = object(&world, "c").unwrap();
        assert_eq!(ready(&world, "c").1, "Joined", "{object}");
        assert!(condition(&object, "Stalled").is_none(), "{object}");
    });
}

/// A backup tool restores the object with its status, and the cloud does not answer.
#[test]
fn restored_status_says_nothing_of_the_new_object() {
    for spec in [json!({}), json!({"suspend": true})] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            let status = object(&world, "m").unwrap()["status"].clone();
            assert_eq!(status["origin"], "Joined");
            world.patch("m", json!({"spec": {"deletionPolicy": "Retain"}}));
            world.delete("m");
            seconds(SETTLED).await;
            assert!(is_member(&world) && !is_there(&world, "m"));
            let failure = json!({"error": {"code": "ServiceUnavailable", "status": 503}});
            add_fault(&world, "DescribeInstances", 1_000, &failure);
            world.membership("m", 0, 0, spec.clone());
            world.overwrite_status("m", &status);
            seconds(60.0).await;
            assert_ne!(ready(&world, "m").0, "True");
            world.simulator.set_faults(Vec::new());
            world.patch("m", json!({"spec": {"suspend": false}}));
            seconds(2.0 * SCAN).await;
            let said = &object(&world, "m").unwrap();
            assert_eq!(ready(&world, "m").1, "Adopted", "{spec}: {said}");
            world.delete("m");
            seconds(SETTLED).await;
            assert!(is_member(&world), "{:?}", journal(&world));
        });
    }
}

/// The monitor has counted these exceptions, and nothing else is wrong.
fn assert_counted(world: &World, counted: &[(&'static str, u64)], told: &str) {
    world.monitor.check_all_left_behind();
    assert_eq!(world.monitor.violations(), [""; 0], "{told}");
    assert_eq!(exceptions(world), counted, "{told}");
}

/// `LeaveUnanswered`: the Leave gets no answer, and others make the membership before the operator can know what became of it. The Leave
/// takes effect at once and the next one removes what they made, or the next process does; or it takes effect after they have made it.
/// What they make later stays.
#[test]
fn what_others_join_while_a_leave_has_no_answer_is_removed() {
    for (takes_effect, is_killed, others_join_after, stays) in [
        (None, false, 0.0, false),
        (None, true, 30.0, false),
        (Some("20s"), false, 10.0, false),
        (Some("60s"), false, 50.0, false),
        (None, false, 30.0, true),
        (None, true, 30.0, true),
        (Some("20s"), false, 30.0, true),
    ] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            let mut unanswered =
                json!({"action": "LeaveSecurityGroup", "count": 1, "fault": "reset"});
            match takes_effect {
                Some(after) => unanswered["effectAfter"] = json!(after),
                None => unanswered["effect"] = json!(true),
            }
            let unanswered = serde_json::from_value(unanswered).unwrap();
            world.simulator.add_fault(unanswered);
            world.delete("m");
            while calls(&world, "LeaveSecurityGroup") == 0 {
                seconds(0.001).await;
            }
            if is_killed {
                world.kill(0);
            }
            // The next process knows what it has read itself.
            if is_killed && stays {
                world.start(None);
            }
            seconds(others_join_after).await;
            world.foreign(0, 0, true);
            if is_killed && !stays {
                world.start(None);
            }
            seconds(2.0 * SCAN).await;
            let told = format!("{takes_effect:?} {is_killed} {others_join_after}");
            assert!(!is_there(&world, "m"), "{told}");
            assert_eq!(is_member(&world), stays, "{told}");
            let one = [("LeaveUnanswered", 1)];
            assert_counted(&world, &one[..usize::from(!stays)], &told);
        });
    }
}

/// `AccountChangedWhileOpen`: the process is killed in its first Join, the key changes to one of another cloud account, and the object is
/// deleted. The deletion does not wait for the Join, which takes effect after it. With the key as it was it waits.
#[test]
fn first_join_of_a_killed_process_stays_if_the_account_has_changed() {
    for is_changed in [true, false] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            let late = json!({
                "action": "JoinSecurityGroup", "count": 1, "effectAfter": "60s", "fault": "reset",
            });
            world
                .simulator
                .add_fault(serde_json::from_value(late).unwrap());
            world.membership("m", 0, 0, json!({}));
            while calls(&world, "JoinSecurityGroup") == 0 {
                seconds(0.001).await;
            }
            world.kill(0);
            if is_changed {
                world.write_secret(CLUSTER, 2);
            }
            world.start(None);
            seconds(1.0).await;
            world.delete("m");
            seconds(SETTLED).await;
            assert_eq!(is_there(&world, "m"), !is_changed);
            // The monitor sees the Join in the second of its effect.
            let _ = seconds_missing(&world).await;
            assert!(!is_there(&world, "m"));
            assert_eq!(is_member(&world), is_changed);
            let one = [("AccountChangedWhileOpen", 1)];
            let told = format!("{is_changed}");
            assert_counted(&world, &one[..usize::from(is_changed)], &told);
        });
    }
}

/// `IntentUnanswered`: the write of the first intent gets no answer, and others make the membership just before it. A process that has just
/// begun cannot tell its own intent from one of the process before it, and no read of it counts: the membership counts as joined. So it does
/// if they make it before the next try: that is `MadeWhileOpen`. Ten seconds later a read has shown that it was missing, and it does not.
#[test]
fn membership_made_around_a_lost_intent_of_a_new_process_counts_as_joined() {
    for (age, before, counted) in [
        (5.0, true, Some("IntentUnanswered")),
        (9.0, true, Some("IntentUnanswered")),
        (5.0, false, Some("MadeWhileOpen")),
        (11.0, true, None),
        (11.0, false, None),
        (70.0, true, None),
        (70.0, false, None),
    ] {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions::default());
            world.start(None);
            seconds(age).await;
            world.faults.lose_answers_to_claim_writes(1);
            world.membership("m", 0, 0, json!({}));
            while calls(&world, "DescribeInstances") == 0 {
                seconds(0.001).await;
            }
            assert_eq!(claim(&world, "m"), "");
            world.foreign(0, 0, before);
            while claim(&world, "m") != "Joined" {
                seconds(0.001).await;
            }
            world.foreign(0, 0, true);
            seconds(SETTLED).await;
            let told = format!("{age} {before}");
            assert_eq!(calls(&world, "JoinSecurityGroup"), 0, "{told}");
            world.delete("m");
            seconds(2.0 * SCAN).await;
            assert!(!is_there(&world, "m"), "{told}");
            let expected = ["another actor joined", "the operator left"];
            let changes = 1 + usize::from(counted.is_some());
            assert_eq!(journal(&world), expected[..changes], "{told}");
            let one: Vec<_> = counted.into_iter().map(|name| (name, 1)).collect();
            assert_counted(&world, &one, &told);
        });
    }
}

/// H1: no admission policy, and a tenant whom a grant names writes the intent of its own object by hand. What others had made counts as
/// joined, is handed on to the object of another namespace that had adopted it, and is removed with that one. The monitor calls it what
/// it is. Without the grant nothing of it happens.
#[test]
fn intent_that_a_granted_tenant_forges_counts_for_the_others_of_the_membership() {
    for is_granted in [true, false] {
        in_virtual_time(|| async move {
            let world = world().await;
            if !is_granted {
                world.set_grants(&json!([{
                    "name": "team", "namespaces": {"names": [NAMESPACE]}, "securityGroups": {"ids": ["*"]},
                }]));
            }
            world.foreign(0, 0, true);
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            assert_eq!(claim(&world, "m"), "Adopted");
            world.membership("guest/c", 0, 0, json!({"suspend": true}));
            let tenants = world.server.object(MEMBERSHIPS, GUESTS, "c").unwrap();
            let uid = text(&tenants, "/metadata/uid");
            let own = json!({"origin": "Joined", "accountUID": KEYS[0].2, "uid": uid}).to_string();
            let forged =
                json!({"finalizers": [FINALIZER], "annotations": {INTENT_ANNOTATION: own}});
            world.patch("guest/c", json!({"metadata": forged}));
            world.patch("guest/c", json!({"spec": {"suspend": false}}));
            seconds(SETTLED).await;
            world.delete("guest/c");
            seconds(2.0 * SCAN).await;
            assert!(is_member(&world), "another object still holds it");
            let handed_on = if is_granted { "Joined" } else { "Adopted" };
            assert_eq!(claim(&world, "m"), handed_on);
            world.delete("m");
            seconds(2.0 * SCAN).await;
            assert!(!is_there(&world, "m"));
            let changes = ["another actor joined", "the operator left"];
            assert_eq!(journal(&world), changes[..=usize::from(is_granted)]);
            let broken = "Leave: the operator removed i-0 from sg-a, which others had made before any Join of the operator";
            assert_eq!(
                world.monitor.violations(),
                [broken][..usize::from(is_granted)]
            );
            assert_eq!(exceptions(&world), []);
        });
    }
}
