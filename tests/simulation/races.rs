//! What one pass does when something comes in between: each a small scenario, run for every moment at which it can happen.

use std::sync::Arc;
use std::time::Duration;

use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION};
use serde_json::{Value, json};

use crate::api_server::{Call, CallFault, Verb};
use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition, is_deleting, text};
use crate::scenario::{add_fault, calls, claimed, journal, object, ready, seconds, world};
use crate::topology::{CLUSTER, INTERFACE, NAMESPACE, TEAMS};
use crate::world::{SimOptions, World};

/// Longer than a pass over one object without faults, shorter than the first wait after a fault.
const AT_ONCE: f64 = 0.4;
/// Longer than what the cloud's reads may lag, and than a process that has just started trusts no read.
const SETTLED: f64 = 11.0;

/// Runs the scenario for each millisecond up to `last`; the scenario is told how long to wait.
fn at_every_moment<Scenario: Future<Output = ()>>(
    last: u32,
    scenario: impl Fn(f64) -> Scenario + Sync,
) {
    for moment in 0..=last {
        in_virtual_time(|| scenario(f64::from(moment) / 1_000.0));
    }
}

fn claim(world: &World, name: &str) -> String {
    claimed(&object(world, name).unwrap()).to_owned()
}

fn fault(world: &World, action: &str, code: &str) {
    add_fault(world, action, 1, &json!({"error": {"code": code}}));
}

/// Takes an object away with its finalizers, as an administrator may.
fn tear_away(world: &World, name: &str) {
    world.patch(name, json!({"metadata": {"finalizers": null}}));
    world.delete(name);
}

#[test]
fn edge_costs_four_effects_and_its_deletion_three() {
    in_virtual_time(|| async {
        let world = world().await;
        let before = world.monitor.effects();
        world.membership("m", 0, 0, json!({}));
        seconds(AT_ONCE).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
        let made = world.monitor.effects();
        assert_eq!(made - before, 4, "claim, Join, status, event");
        seconds(200.0).await;
        assert_eq!(world.monitor.effects(), made, "two scans find it so");
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "m"), None);
        assert_eq!(world.monitor.effects() - made, 3, "Leave, finalizer, event");
    });
}

#[test]
fn failed_join_is_not_ready_until_retried() {
    for (code, reason) in [
        ("ServiceUnavailable", "Retrying"),
        ("OperationConflict", "Retrying"),
    ] {
        in_virtual_time(|| async {
            let world = world().await;
            fault(&world, "JoinSecurityGroup", code);
            world.membership("m", 0, 0, json!({}));
            seconds(AT_ONCE).await;
            assert_eq!(ready(&world, "m"), ("False".to_owned(), reason.to_owned()));
            seconds(10.0).await;
            assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

#[test]
fn failed_leave_keeps_the_object_until_retried() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(AT_ONCE).await;
        fault(&world, "LeaveSecurityGroup", "ServiceUnavailable");
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(ready(&world, "m").1, "Retrying");
        seconds(10.0).await;
        assert_eq!(object(&world, "m"), None);
        assert!(!world.is_member("i-0", "sg-a"));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// B4.
#[test]
fn foreign_join_in_between_is_adopted_or_refused() {
    for (adoption, told) in [("Adopt", "Adopted"), ("Refuse", "AdoptionRefused")] {
        at_every_moment(60, |moment| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({"adoptionPolicy": adoption}));
            seconds(moment).await;
            let joined = world.is_member("i-0", "sg-a");
            world.foreign(0, 0, true);
            seconds(AT_ONCE).await;
            let reason = ready(&world, "m").1;
            let wanted = if joined { "Joined" } else { told };
            assert_eq!(reason, wanted, "{moment}");
            let claimed = claim(&world, "m");
            match reason.as_str() {
                "AdoptionRefused" => assert_eq!(claimed, "", "{moment}"),
                reason => assert_eq!(claimed, reason, "{moment}"),
            }
            // B4: no intent beside `Adopted`, nor where the adoption was refused.
            if reason != "Joined" {
                let object = object(&world, "m").unwrap();
                let intent = &object["metadata"]["annotations"][INTENT_ANNOTATION];
                assert_eq!(*intent, Value::Null, "{moment}");
            }
            world.delete("m");
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, "m"), None, "{moment}");
            assert_eq!(world.is_member("i-0", "sg-a"), !joined, "{moment}");
        });
    }
}

#[test]
fn removed_edge_or_target_does_not_block_deletion() {
    let gone: [fn(&World); 2] = [
        |world| world.foreign(0, 0, false),
        |world| world.cloud(json!({"delete": {"id": "i-0"}})),
    ];
    for go in gone {
        at_every_moment(50, |moment| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(AT_ONCE).await;
            world.delete("m");
            seconds(moment).await;
            go(&world);
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, "m"), None, "{moment}");
        });
    }
}

#[test]
fn removed_successor_is_replaced_by_the_next() {
    at_every_moment(20, |moment| async move {
        let world = world().await;
        for name in ["m", "successor", "third"] {
            world.membership(name, 0, 0, json!({}));
            seconds(2.0).await;
        }
        world.delete("m");
        seconds(moment).await;
        tear_away(&world, "successor");
        // An apply to what is gone is answered as a conflict, after which the pass starts anew.
        seconds(3.0).await;
        assert_eq!(object(&world, "m"), None, "{moment}");
        assert!(world.is_member("i-0", "sg-a"), "{moment}");
        if moment < 0.001 {
            assert_eq!(claim(&world, "third"), "Joined");
            world.delete("third");
            seconds(AT_ONCE).await;
            assert!(!world.is_member("i-0", "sg-a"), "{moment}");
        }
    });
}

/// What an object has been like, oldest first.
fn versions(world: &World, name: &str) -> Vec<Arc<Value>> {
    let state = world.server.state();
    let of_object = state.log.iter().filter(|entry| {
        entry.key.0 == MEMBERSHIPS && text(&entry.object, "/metadata/name") == name
    });
    of_object.map(|entry| Arc::clone(&entry.object)).collect()
}

/// E8: a status write succeeds on an object that is going. The successor is read first.
#[test]
fn nothing_is_handed_to_an_object_that_is_being_deleted() {
    at_every_moment(20, |moment| async move {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(2.0).await;
        world.membership("successor", 0, 0, json!({"deletionPolicy": "Retain"}));
        seconds(2.0).await;
        let hold = json!([FINALIZER, "example.com/hold"]);
        world.patch("successor", json!({"metadata": {"finalizers": hold}}));
        seconds(2.0).await;
        world.delete("m");
        seconds(moment).await;
        world.delete("successor");
        seconds(20.0).await;
        assert_eq!(object(&world, "m"), None, "{moment}");
        let versions = versions(&world, "successor");
        let owns = |object: &&Arc<Value>| object["status"]["origin"] == "Joined";
        match versions.iter().find(owns) {
            Some(first) => assert!(!is_deleting(first), "{moment}"),
            None => assert!(!world.is_member("i-0", "sg-a"), "{moment}"),
        }
    });
}

/// E9: the successor has gone, and the watch has not shown it for a quarter of an hour.
#[test]
fn successor_that_is_gone_unseen_keeps_nothing() {
    in_virtual_time(|| async {
        let world = world().await;
        for name in ["m", "successor"] {
            world.membership(name, 0, 0, json!({}));
            seconds(2.0).await;
        }
        seconds(SETTLED).await;
        world.refuse_status_of(Some("successor"));
        world.delete("m");
        seconds(5.0).await;
        assert!(object(&world, "m").is_some());
        world.hold_back_events(0, Duration::from_secs(900));
        tear_away(&world, "successor");
        world.refuse_status_of(None);
        seconds(600.0).await;
        assert_eq!(object(&world, "m"), None);
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

/// Q8: the successor has gone, and another object has its name, for another target. The watch has not shown that for a quarter of an hour.
#[test]
fn nothing_is_handed_to_another_object_of_the_name() {
    in_virtual_time(|| async {
        let world = world().await;
        for name in ["m", "successor"] {
            world.membership(name, 0, 0, json!({}));
            seconds(2.0).await;
        }
        seconds(SETTLED).await;
        // What the next object of the name finds is others'.
        world.foreign(1, 0, true);
        world.refuse_status_of(Some("successor"));
        world.delete("m");
        seconds(5.0).await;
        assert!(object(&world, "m").is_some());
        world.faults.hold_back_events(0, Duration::from_secs(900));
        tear_away(&world, "successor");
        world.membership("successor", 1, 0, json!({}));
        world.refuse_status_of(None);
        seconds(600.0).await;
        assert_eq!(object(&world, "m"), None);
        assert_eq!(
            journal(&world),
            ["the operator joined", "the operator left"]
        );
        seconds(600.0).await;
        let uid = object(&world, "successor").unwrap()["metadata"]["uid"].clone();
        let mut versions = versions(&world, "successor");
        versions.retain(|version| version["metadata"]["uid"] == uid);
        for version in versions {
            assert_ne!(version["status"]["origin"], "Joined");
        }
        world.delete("successor");
        seconds(60.0).await;
        assert_eq!(object(&world, "successor"), None);
        assert!(world.is_member("i-1", "sg-a"));
    });
}

/// E16: the successor becomes unreadable at any moment. It is alive: what it holds is not removed.
#[test]
fn successor_that_becomes_unreadable_keeps_the_edge() {
    at_every_moment(20, |moment| async move {
        let world = world().await;
        for name in ["m", "successor"] {
            world.membership(name, 0, 0, json!({}));
            seconds(2.0).await;
        }
        world.delete("m");
        seconds(moment).await;
        world.patch("successor", json!({"spec": {"driftPolicy": "Ask"}}));
        seconds(60.0).await;
        assert!(world.is_member("i-0", "sg-a"), "{moment}");
        let leaves = world.simulator.stats()["calls"]["LeaveSecurityGroup"].clone();
        assert_eq!(leaves, Value::Null, "{moment}");
        if object(&world, "m").is_none() {
            assert_eq!(claim(&world, "successor"), "Joined", "{moment}");
        }
    });
}

/// A13: the user suspends the object, or only observes it, between the read of a pass and its intent.
#[test]
fn object_that_is_suspended_before_its_intent_gets_none() {
    for spec in [
        json!({"suspend": true}),
        json!({"managementPolicy": "Observe"}),
    ] {
        let spec = &spec;
        at_every_moment(30, |moment| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(moment).await;
            world.patch("m", json!({"spec": spec}));
            seconds(AT_ONCE).await;
            let versions = versions(&world, "m");
            let is_marked = |object: &&Arc<Value>| object["metadata"]["finalizers"].is_array();
            let marked = versions.iter().find(is_marked);
            let intended_before =
                marked.is_some_and(|object| object["metadata"]["generation"] == 1);
            assert!(marked.is_none() || intended_before, "{spec} {moment}");
            assert!(
                intended_before || !world.is_member("i-0", "sg-a"),
                "{spec} {moment}"
            );
        });
    }
}

#[test]
fn unclaimed_deleting_successor_blocks_no_deletion() {
    at_every_moment(20, |moment| async move {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(2.0).await;
        // It is kept by somebody else's finalizer, and nothing may add ours once it is deleted.
        world.membership("successor", 0, 0, json!({}));
        world.patch(
            "successor",
            json!({"metadata": {
                "finalizers": ["example.com/hold"],
            }, "spec": {"suspend": true}}),
        );
        seconds(2.0).await;
        world.delete("m");
        seconds(moment).await;
        world.delete("successor");
        // A write that meets another version is tried again after about a second.
        seconds(3.0).await;
        assert_eq!(object(&world, "m"), None, "{moment}");
    });
}

/// The pass over the object that is gone waits for another group's slow Join on the same target.
#[test]
fn waiting_pass_of_a_gone_object_hands_nothing_on() {
    for policy in ["RemoveIfJoined", "Retain"] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({"deletionPolicy": policy}));
            seconds(2.0).await;
            assert_eq!(claim(&world, "m"), "Joined");
            add_fault(&world, "JoinSecurityGroup", 1, &json!({"latency": "5s"}));
            world.membership("slow", 0, 1, json!({}));
            seconds(1.0).await;
            world.delete("m");
            seconds(1.0).await;
            world.patch("m", json!({"metadata": {"finalizers": null}}));
            assert_eq!(object(&world, "m"), None);
            world.membership("m", 0, 0, json!({"adoptionPolicy": "Refuse"}));
            seconds(10.0).await;
            assert_eq!(ready(&world, "m").1, "AdoptionRefused", "{policy}");
            assert_eq!(claim(&world, "m"), "", "{policy}");
            world.delete("m");
            seconds(2.0).await;
            assert!(world.is_member("i-0", "sg-a"), "{policy}");
        });
    }
}

/// E12.
#[test]
fn conflict_on_the_successor_is_retried() {
    in_virtual_time(|| async {
        let world = world().await;
        for name in ["m", "successor"] {
            world.membership(name, 0, 0, json!({}));
            seconds(2.0).await;
        }
        world.faults.refuse_claim_writes(1);
        world.delete("m");
        seconds(10.0).await;
        assert_eq!(object(&world, "m"), None);
        assert_eq!(claim(&world, "successor"), "Joined");
        assert!(world.is_member("i-0", "sg-a"));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// As a backup tool writes it back: somebody else owns the finalizer and the claim, and has a finalizer of its own there.
fn restored(world: &World, finalizers: &Value) {
    world.create(
        MEMBERSHIPS,
        NAMESPACE,
        json!({
            "metadata": {"name": "m", "finalizers": finalizers, "annotations": {INTENT_ANNOTATION: r#"{"origin":"Joined","accountUID":"1000000000000001","uid":"another"}"#}},
            "spec": {"region": "cn-hangzhou", "instanceID": "i-0", "securityGroupID": "sg-a"},
        }),
    );
}

#[test]
fn restored_object_loses_only_our_finalizer() {
    in_virtual_time(|| async {
        let world = world().await;
        restored(&world, &json!([FINALIZER, "example.com/hold"]));
        seconds(AT_ONCE).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        world.delete("m");
        seconds(AT_ONCE).await;
        assert!(!world.is_member("i-0", "sg-a"));
        let held = object(&world, "m").unwrap();
        assert_eq!(held["metadata"]["finalizers"], json!(["example.com/hold"]));
        assert_eq!(claim(&world, "m"), "");
    });
}

#[test]
fn restored_object_is_deleted_despite_a_conflict() {
    at_every_moment(60, |moment| async move {
        let world = world().await;
        restored(&world, &json!([FINALIZER]));
        seconds(AT_ONCE).await;
        world.delete("m");
        seconds(moment).await;
        world.faults.refuse_claim_writes(1);
        seconds(20.0).await;
        assert_eq!(object(&world, "m"), None, "{moment}");
        assert!(!world.is_member("i-0", "sg-a"), "{moment}");
    });
}

/// F10.
#[test]
fn force_deleted_object_is_not_recreated() {
    at_every_moment(60, |moment| async move {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(moment).await;
        tear_away(&world, "m");
        seconds(10.0).await;
        assert_eq!(object(&world, "m"), None, "{moment}");
        let effects = world.monitor.effects();
        seconds(100.0).await;
        assert_eq!(world.monitor.effects(), effects, "{moment}");
    });
}

#[test]
fn suspended_object_is_reported_and_not_joined() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        world.patch("m", json!({"spec": {"suspend": true}}));
        seconds(10.0).await;
        let object = object(&world, "m").unwrap();
        assert_eq!(condition(&object, "Suspended").unwrap()["status"], "True");
        assert_eq!(ready(&world, "m").1, "Pending");
        assert!(!world.is_member("i-0", "sg-a"));
        world.patch("m", json!({"spec": {"suspend": false}}));
        seconds(AT_ONCE).await;
        assert_eq!(ready(&world, "m").1, "Joined");
    });
}

#[test]
fn joined_edge_is_left_after_its_secret_is_deleted() {
    in_virtual_time(|| async {
        let world = world().await;
        for (target, name) in ["m", "stays"].into_iter().enumerate() {
            world.membership(name, target, 0, json!({}));
        }
        seconds(AT_ONCE).await;
        world.remove_secret(CLUSTER);
        // It may be gone for 10 s.
        seconds(15.0).await;
        assert_eq!(ready(&world, "stays").1, "AccountNotReady");
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "m"), None);
        assert!(!world.is_member("i-0", "sg-a"));
        assert!(world.is_member("i-1", "sg-a"));
    });
}

#[test]
fn deleted_account_is_used_for_leaves_for_ten_minutes() {
    in_virtual_time(|| async {
        let mut world = world().await;
        world.write_secret(TEAMS, 0);
        world.account(TEAMS, true);
        seconds(1.0).await;
        let own = json!({"accountRef": {"kind": "CloudAccount", "name": "own"}});
        world.membership("m", 0, 0, own.clone());
        world.membership("stays", 1, 0, own);
        world.membership("clusters", 2, 0, json!({}));
        world.membership("waits", INTERFACE, 0, json!({}));
        seconds(AT_ONCE).await;
        world.account(TEAMS, false);
        world.account(CLUSTER, false);
        seconds(5.0).await;
        for (name, target) in [("stays", "i-1"), ("waits", "eni-0")] {
            assert_eq!(ready(&world, name).1, "AccountNotFound");
            assert!(world.is_member(target, "sg-a"));
        }
        for (name, target) in [("m", "i-0"), ("clusters", "i-2")] {
            world.delete(name);
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, name), None);
            assert!(!world.is_member(target, "sg-a"));
        }
        seconds(600.0).await;
        world.delete("stays");
        seconds(AT_ONCE).await;
        assert_eq!(ready(&world, "stays").1, "AccountNotFound");
        assert!(world.is_member("i-1", "sg-a"));
        world.restart_all();
        world.delete("waits");
        seconds(10.0).await;
        assert_eq!(ready(&world, "waits").1, "AccountNotFound");
        assert!(world.is_member("eni-0", "sg-a"));
        world.account(CLUSTER, true);
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "waits"), None);
        assert!(!world.is_member("eni-0", "sg-a"));
    });
}

#[test]
fn revoked_grant_stops_joins_and_no_deletion() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(AT_ONCE).await;
        world.grant(false);
        seconds(AT_ONCE).await;
        assert_eq!(ready(&world, "m").1, "NotGranted");
        world.membership("late", 1, 0, json!({}));
        world.delete("m");
        seconds(10.0).await;
        assert_eq!(ready(&world, "late").1, "NotGranted");
        assert!(!world.is_member("i-1", "sg-a"));
        // What the operator has joined is removed all the same: revoking a grant must not freeze it.
        assert_eq!(object(&world, "m"), None);
        assert!(!world.is_member("i-0", "sg-a"));
        world.grant(true);
        seconds(AT_ONCE).await;
        assert_eq!(ready(&world, "late").1, "Joined");
    });
}

/// Another account object over the same cloud account.
fn second_account(world: &World, grants: &Value) {
    let spec = json!({
        "credentials": {"secretRef": {"name": "key"}},
        "endpoints": {"ecs": "https://ecs.test", "sts": "https://sts.test"},
        "grants": grants,
    });
    world.user(
        Verb::Apply,
        "clustercloudaccounts",
        "",
        "second",
        json!({"apiVersion": "security-group-operator.io/v1alpha1", "kind": "ClusterCloudAccount", "metadata": {"name": "second"}, "spec": spec}),
    );
}

/// E7.
#[test]
fn only_claiming_or_granted_siblings_keep_the_edge() {
    let everybody = json!([{"name": "all", "namespaces": {"selector": {"matchLabels": {"team": "web"}}}, "securityGroups": {"ids": ["*"]}}]);
    let second = json!({"accountRef": {"kind": "ClusterCloudAccount", "name": "second"}});
    let observes = json!({"managementPolicy": "Observe"});
    // What the other object asks for, whether it may use the account at first and later, whether it keeps the edge.
    for (policies, at_first, later, keeps) in [
        (&second, true, true, true),
        (&second, true, false, false),
        (&second, false, false, false),
        (&observes, true, true, false),
    ] {
        let everybody = &everybody;
        in_virtual_time(|| async move {
            let world = world().await;
            let grants = |granted| {
                if granted {
                    everybody.clone()
                } else {
                    json!([])
                }
            };
            second_account(&world, &grants(at_first));
            seconds(1.0).await;
            world.membership("m", 0, 0, json!({}));
            seconds(2.0).await;
            world.membership("other", 0, 0, policies.clone());
            seconds(2.0).await;
            second_account(&world, &grants(later));
            seconds(2.0).await;
            world.delete("m");
            seconds(AT_ONCE).await;
            let told = format!("{policies} {at_first} {later}");
            assert_eq!(object(&world, "m"), None, "{told}");
            assert_eq!(world.is_member("i-0", "sg-a"), keeps, "{told}");
        });
    }
}

/// E10.
#[test]
fn granted_sibling_without_a_claim_keeps_the_edge() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(2.0).await;
        world.membership("other", 0, 0, json!({}));
        world.patch("other", json!({"spec": {"suspend": true}}));
        seconds(2.0).await;
        tear_claim(&world);
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "m"), None);
        assert!(world.is_member("i-0", "sg-a"));
        assert_eq!(claim(&world, "other"), "Joined");
    });
}

/// Whatever the other object has claimed before it was suspended.
fn tear_claim(world: &World) {
    world.patch(
        "other",
        json!({"metadata": {"finalizers": null, "annotations": {INTENT_ANNOTATION: null}}}),
    );
}

#[test]
fn siblings_are_requeued_when_the_owner_changes() {
    type Change = fn(&World);
    let changes: [(Change, &str); 4] = [
        (|world| tear_away(world, "m"), "Adopted"),
        (
            // As an administrator does with a deletion that does not finish.
            |world| {
                world.patch("m", json!({"spec": {"suspend": true}}));
                world.delete("m");
                world.patch("m", json!({"metadata": {"finalizers": null}}));
            },
            "Adopted",
        ),
        (
            |world| {
                let observes = json!({"spec": {"managementPolicy": "Observe"}});
                world.patch("m", observes);
            },
            "Adopted",
        ),
        (
            // As `kubectl replace` of the first manifest does. The record is in the status, which it cannot change.
            |world| {
                let bare = json!({"finalizers": null, "annotations": {INTENT_ANNOTATION: null}});
                world.patch("m", json!({"metadata": bare}));
            },
            "Shared",
        ),
    ];
    for (change, told) in changes {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(2.0).await;
            world.membership("other", 0, 0, json!({}));
            seconds(2.0).await;
            assert_eq!(ready(&world, "other").1, "Shared");
            change(&world);
            seconds(AT_ONCE).await;
            assert_eq!(ready(&world, "other").1, told);
            if object(&world, "m").is_some() {
                // What says that it was joined carries a claim that says so.
                assert_eq!(ready(&world, "m").1 == "Joined", told == "Shared");
            }
        });
    }
}

#[test]
fn blocked_deletion_finishes_when_a_successor_appears() {
    let everybody = json!([{"name": "all", "namespaces": {"selector": {"matchLabels": {"team": "web"}}}, "securityGroups": {"ids": ["*"]}}]);
    let second = json!({"accountRef": {"kind": "ClusterCloudAccount", "name": "second"}});
    for granted_late in [false, true] {
        let (everybody, second) = (&everybody, second.clone());
        in_virtual_time(|| async move {
            let world = world().await;
            let at_first = if granted_late { &json!([]) } else { everybody };
            second_account(&world, at_first);
            world.membership("m", 0, 0, json!({}));
            seconds(2.0).await;
            let refused = json!({"error": {"code": "InstanceLastSecurityGroup"}});
            add_fault(&world, "LeaveSecurityGroup", 100, &refused);
            world.delete("m");
            seconds(2.0).await;
            assert_eq!(ready(&world, "m").1, "InstanceLastSecurityGroup");
            world.membership("successor", 0, 0, second);
            seconds(2.0).await;
            second_account(&world, everybody);
            seconds(2.0).await;
            assert_eq!(object(&world, "m"), None);
            assert_eq!(claim(&world, "successor"), "Joined");
            assert!(world.is_member("i-0", "sg-a"));
        });
    }
}

/// R3: two operators without an election join one new object. The one whose intent comes later looks again.
#[test]
fn later_intent_of_another_operator_joins_nothing() {
    for millis in 0..40 {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions {
                several: true,
                ..SimOptions::default()
            });
            world.start(None);
            world.start(None);
            // No intent of a process before them can appear any more.
            seconds(70.0).await;
            let lag = Duration::from_millis(millis);
            world.hold_back_events(1, lag);
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            assert_eq!(claim(&world, "m"), "Joined", "{millis}");
            assert_eq!(calls(&world, "JoinSecurityGroup"), 1, "{millis}");
        });
    }
}

/// Q7: the write of an intent gets no answer for 30 s, and is given up. It arrives later, when the object has adopted what others made
/// meanwhile, or lets it be. It meets another version: no intent appears, and the next process finds none.
#[test]
fn intent_that_arrives_after_it_was_given_up_changes_nothing() {
    for (adoption, told) in [("Adopt", "Adopted"), ("Refuse", "AdoptionRefused")] {
        for late in [40, 50] {
            in_virtual_time(|| async move {
                let mut world = world().await;
                let late = Duration::from_secs(late);
                world.faults.delay_claim_write(late);
                world.membership("m", 0, 0, json!({"adoptionPolicy": adoption}));
                seconds(2.0).await;
                assert_eq!(claim(&world, "m"), "", "it is on its way");
                world.foreign(0, 0, true);
                seconds(36.0).await;
                assert_eq!(ready(&world, "m").1, told);
                assert_eq!(world.faults.late_answers(), [0; 0]);
                seconds(20.0).await;
                assert_eq!(world.faults.late_answers(), [409]);
                for version in versions(&world, "m") {
                    let intent = &version["metadata"]["annotations"][INTENT_ANNOTATION];
                    assert!(intent.is_null(), "{version}");
                }
                world.restart_all();
                seconds(2.0 * SETTLED).await;
                world.delete("m");
                seconds(120.0).await;
                assert_eq!(object(&world, "m"), None);
                assert_eq!(journal(&world), ["another actor joined"]);
                assert_eq!(world.monitor.violations(), [""; 0]);
            });
        }
    }
}

/// The write of the first record is on its way for long. Before it arrives, others remove what the operator joined, a read shows that, and
/// the repair waits for the limit. The record, which is there then, revives nothing: what others make after it is theirs.
#[test]
fn record_that_arrives_late_revives_no_claim_that_a_read_has_shown_to_be_void() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"set": {"limits": {"JoinSecurityGroup": 1}}}));
        let late = CallFault::Late(Duration::from_secs(45));
        let writes = |call: &Call| call.status && call.verb.writes() && call.name == "m";
        world.faults.refuse_calls(writes, late);
        world.membership("m", 0, 0, json!({}));
        seconds(1.0).await;
        assert!(world.is_member("i-0", "sg-a"));
        world.foreign(0, 0, false);
        let mut waited = 0;
        while object(&world, "m").unwrap()["status"]["origin"].is_null() {
            seconds(0.1).await;
            waited += 1;
            assert!(waited < 500, "the record is there");
        }
        assert!(!world.is_member("i-0", "sg-a"), "it waits for the limit");
        assert!(waited > 400, "{waited}");
        world.faults.refuse_no_calls();
        world.foreign(0, 0, true);
        seconds(120.0).await;
        assert_eq!(claim(&world, "m"), "Adopted");
        world.delete("m");
        seconds(2.0 * SETTLED).await;
        assert_eq!(object(&world, "m"), None);
        assert!(world.is_member("i-0", "sg-a"));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// Simulated wide seed 140076: an object has waited for the limit with what it had read. Its Join gets no answer, and it is deleted in that
/// moment: what it had read before the Join does not end the deletion.
#[test]
fn deletion_does_not_go_by_what_was_read_before_an_open_join() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"set": {"limits": {"JoinSecurityGroup": 1}}}));
        for (name, target, group) in [("first", 1, 0), ("second", 1, 1)] {
            world.membership(name, target, group, json!({}));
            seconds(2.0).await;
        }
        while ready(&world, "second").1 != "Joined" {
            seconds(0.1).await;
        }
        // The limit is known, and its next minute begins soon.
        seconds(57.0).await;
        world.membership("m", 0, 0, json!({}));
        seconds(1.0).await;
        let late = json!({
            "action": "JoinSecurityGroup", "count": 1, "effectAfter": "30s", "fault": "reset",
        });
        world
            .simulator
            .add_fault(serde_json::from_value(late).unwrap());
        let before = calls(&world, "JoinSecurityGroup");
        let mut waited = 0;
        while calls(&world, "JoinSecurityGroup") == before {
            seconds(0.001).await;
            waited += 1;
            assert!(waited < 100_000, "its turn comes");
        }
        world.delete("m");
        seconds(1.0).await;
        assert!(object(&world, "m").is_some(), "its Join is open");
        seconds(200.0).await;
        assert_eq!(object(&world, "m"), None);
        assert!(!world.is_member("i-0", "sg-a"));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}
