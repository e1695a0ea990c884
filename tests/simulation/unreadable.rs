//! An object that this version cannot read, as after a downgrade of the operator or in a CRD whose rules were loosened: it
//! holds its edge as it did, and nothing is handed on to it.

use serde_json::{Value, json};

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::scenario::{calls, claimed, message, object, ready, seconds, world};
use crate::topology::{ACCOUNTS, CLUSTER, GUESTS, KEYS, NAMESPACE};
use crate::world::World;

/// Makes a spec unreadable for this version.
fn blur(world: &World, name: &str) {
    world.patch(name, json!({"spec": {"driftPolicy": "Ask"}}));
}

fn clear(world: &World, name: &str) {
    world.patch(name, json!({"spec": {"driftPolicy": "Repair"}}));
}

/// E16.
#[test]
fn unreadable_object_holds_its_edge_and_is_no_heir() {
    for restarted in [false, true] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            for name in ["m", "other"] {
                world.membership(name, 0, 0, json!({}));
                seconds(5.0).await;
            }
            blur(&world, "other");
            seconds(1.0).await;
            if restarted {
                world.restart_all();
                seconds(11.0).await;
            }
            assert_eq!(ready(&world, "other").1, "InvalidSpec");
            assert_eq!(claimed(&object(&world, "other").unwrap()), "Adopted");
            world.delete("m");
            seconds(60.0).await;
            assert!(world.is_member("i-0", "sg-a"), "the other one is alive");
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
            assert_eq!(ready(&world, "m").0, "False");
            let text = message(&world, "m");
            assert!(text.contains("another SecurityGroupMembership"), "{text}");
            assert!(text.contains("deletionPolicy to Retain"), "{text}");
            // As soon as it can be read it takes the edge over.
            clear(&world, "other");
            seconds(5.0).await;
            assert_eq!(object(&world, "m"), None);
            assert_eq!(claimed(&object(&world, "other").unwrap()), "Joined");
            world.delete("other");
            seconds(10.0).await;
            assert!(!world.is_member("i-0", "sg-a"));
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

#[test]
fn deletion_waits_no_longer_for_an_unreadable_object_that_goes() {
    in_virtual_time(|| async {
        let mut world = world().await;
        for name in ["m", "other"] {
            world.membership(name, 0, 0, json!({}));
            seconds(5.0).await;
        }
        blur(&world, "other");
        world.restart_all();
        seconds(11.0).await;
        world.delete("m");
        seconds(5.0).await;
        world.delete("other");
        // Nothing reads it: its finalizer is taken off by hand.
        world.patch("other", json!({"metadata": {"finalizers": null}}));
        seconds(10.0).await;
        assert!(world.objects().is_empty(), "{:#?}", world.objects());
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

/// E17.
#[test]
fn unreadable_object_without_a_grant_holds_nothing() {
    in_virtual_time(|| async {
        let mut world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        world.membership(&format!("{GUESTS}/m"), 0, 0, json!({"driftPolicy": "Ask"}));
        let account = &ACCOUNTS[CLUSTER];
        let grants = json!([{"name": "own", "namespaces": {"names": [NAMESPACE]}, "securityGroups": {"ids": ["*"]}}]);
        let grants = json!({"spec": {"grants": grants}});
        world.user(Verb::Merge, account.plural, "", account.name, grants);
        world.restart_all();
        seconds(11.0).await;
        world.delete("m");
        seconds(10.0).await;
        assert_eq!(object(&world, "m"), None);
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

/// J3: what the status says of the edge is not for a pass that cannot read it.
#[test]
fn record_that_this_version_does_not_know_is_kept() {
    in_virtual_time(|| async {
        let mut world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        let mut status = object(&world, "m").unwrap()["status"].clone();
        status["origin"] = json!("Inherited");
        world.overwrite_status("m", &status);
        blur(&world, "m");
        world.restart_all();
        seconds(20.0).await;
        let status: Value = object(&world, "m").unwrap()["status"].clone();
        assert_eq!(ready(&world, "m").1, "InvalidSpec");
        assert_eq!(status["origin"], "Inherited");
        assert_eq!(status["accountUID"], KEYS[0].2);
    });
}

/// It waits for its Join, and gives up its place: the next one of its target has its turn.
#[test]
fn object_that_becomes_unreadable_while_it_waits_keeps_nobody_waiting() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"set": {"limits": {"JoinSecurityGroup": 1}}}));
        for (name, target, group) in [("first", 1, 0), ("second", 1, 1), ("m", 0, 0), ("n", 0, 1)] {
            world.membership(name, target, group, json!({}));
            seconds(3.0).await;
        }
        assert!(world.is_member("i-1", "sg-a"));
        blur(&world, "m");
        seconds(240.0).await;
        assert_eq!(ready(&world, "m").1, "InvalidSpec");
        assert_eq!(ready(&world, "second").1, "Joined");
        assert_eq!(ready(&world, "n").1, "Joined");
        clear(&world, "m");
        seconds(240.0).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}
