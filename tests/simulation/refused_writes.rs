//! The API server refuses a write of finalizer or intent, as by an admission policy: the status says so, whoever waits says for
//! what, and nothing is done twice. And a status that meets a conflict is written all the same.

use security_group_operator::api::INTENT_ANNOTATION;
use serde_json::{Value, json};

use crate::in_virtual_time;
use crate::monitor::MEMBERSHIPS;
use crate::scenario::{calls, claimed, journal, message, object, ready, seconds, told, world};
use crate::world::World;

fn origin(world: &World, name: &str) -> Value {
    object(world, name).unwrap()["status"]["origin"].clone()
}

fn waits(world: &World, name: &str) {
    let object = object(world, name).unwrap();
    let conditions = object["status"]["conditions"].as_array().unwrap();
    let types: Vec<_> = conditions
        .iter()
        .map(|condition| condition["type"].as_str().unwrap())
        .collect();
    assert!(types.contains(&"Reconciling"), "{types:?}");
    assert!(!types.contains(&"Stalled"), "{types:?}");
}

/// J5.
#[test]
fn refused_claim_is_told_until_it_is_accepted() {
    for code in [403, 422, 500] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.faults.set_policy(Some(("m", code)));
            world.membership("m", 0, 0, json!({}));
            seconds(10.0).await;
            let said = ("False".to_owned(), "WriteRefused".to_owned());
            assert_eq!(ready(&world, "m"), said, "{code}");
            let text = message(&world, "m");
            assert!(text.contains("by a fault"), "{text}");
            assert!(text.contains("next try in"), "{text}");
            waits(&world, "m");
            assert_eq!(calls(&world, "JoinSecurityGroup"), 0);
            // It waits longer and longer, and says it once.
            let told_at = object(&world, "m").unwrap()["metadata"]["resourceVersion"].clone();
            let tried = world.incarnations[0].link.requests();
            seconds(600.0).await;
            let tried = world.incarnations[0].link.requests() - tried;
            assert!(tried < 60, "{tried} requests in 10 minutes");
            let object_now = object(&world, "m").unwrap();
            assert_eq!(object_now["metadata"]["resourceVersion"], told_at);
            world.faults.set_policy(None);
            seconds(310.0).await;
            assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
            world.delete("m");
            seconds(10.0).await;
            assert_eq!(object(&world, "m"), None);
            assert!(!world.is_member("i-0", "sg-a"));
        });
    }
}

/// J1: an admission policy refuses every status of an object for hours, so that it never gets a record. The intent stands in for it, also
/// for the next process: nothing is joined twice, and the deletion removes what was joined.
#[test]
fn intent_stands_in_for_a_record_that_is_refused_for_hours() {
    for restarted in [false, true] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            world.refuse_status_of(Some("m"));
            world.membership("m", 0, 0, json!({}));
            seconds(3.0 * 3_600.0).await;
            if restarted {
                world.restart_all();
                seconds(3_600.0).await;
            }
            let stored = object(&world, "m").unwrap();
            assert!(stored["status"]["origin"].is_null(), "{stored}");
            assert!(stored["metadata"]["annotations"][INTENT_ANNOTATION].is_string());
            assert_eq!(journal(&world), ["the operator joined"]);
            world.delete("m");
            seconds(400.0).await;
            assert_eq!(object(&world, "m"), None, "{restarted}");
            let both = ["the operator joined", "the operator left"];
            assert_eq!(journal(&world), both, "{restarted}");
            world.monitor.check_all_left_behind();
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

/// J1: the hand-over waits for hours where the record of the successor is refused, or that of the owner after a restart. The membership
/// stays, and goes with the last object.
#[test]
fn hand_over_waits_while_a_record_is_refused_for_hours() {
    for (refused, restarted) in [("heir", false), ("heir", true), ("m", true)] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            world.refuse_status_of(Some(refused));
            world.membership("m", 0, 0, json!({}));
            seconds(20.0).await;
            world.membership("heir", 0, 0, json!({}));
            seconds(20.0).await;
            if restarted {
                world.restart_all();
            }
            world.delete("m");
            seconds(3.0 * 3_600.0).await;
            let told = format!("{refused} {restarted}");
            assert!(object(&world, "m").is_some(), "{told}");
            assert_eq!(journal(&world), ["the operator joined"], "{told}");
            if refused == "heir" {
                assert_eq!(ready(&world, "m").1, "WriteRefused", "{told}");
            }
            world.refuse_status_of(None);
            seconds(400.0).await;
            assert_eq!(object(&world, "m"), None, "{told}");
            assert_eq!(journal(&world), ["the operator joined"], "{told}");
            world.delete("heir");
            seconds(100.0).await;
            assert_eq!(object(&world, "heir"), None, "{told}");
            let both = ["the operator joined", "the operator left"];
            assert_eq!(journal(&world), both, "{told}");
            assert_eq!(world.monitor.violations(), [""; 0], "{told}");
        });
    }
}

/// D9, G13: what the Leave has removed, and others make again, is theirs.
#[test]
fn refused_finalizer_of_a_deleted_object_is_told_and_nothing_is_left_twice() {
    for (restarted, policy) in [
        (false, "RemoveIfJoined"),
        (true, "RemoveIfJoined"),
        (false, "Remove"),
    ] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            world.membership("m", 0, 0, json!({"deletionPolicy": policy}));
            seconds(5.0).await;
            world.faults.set_policy(Some(("m", 422)));
            world.delete("m");
            seconds(20.0).await;
            assert!(!world.is_member("i-0", "sg-a"));
            let said = ("False".to_owned(), "WriteRefused".to_owned());
            assert_eq!(ready(&world, "m"), said);
            let text = message(&world, "m");
            let begins = "i-0 was removed from sg-a; the finalizer could not be removed: ";
            assert!(text.starts_with(begins), "{text}");
            assert!(text.contains("by a fault"), "{text}");
            waits(&world, "m");
            assert_eq!(origin(&world, "m"), Value::Null);
            world.foreign(0, 0, true);
            if restarted {
                world.restart_all();
            }
            seconds(600.0).await;
            assert!(world.is_member("i-0", "sg-a"), "others made it again");
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 1);
            world.faults.set_policy(None);
            seconds(310.0).await;
            assert_eq!(object(&world, "m"), None);
            assert!(world.is_member("i-0", "sg-a"));
            if !restarted {
                assert_eq!(told(&world, "m"), ["Joined", "Removed"]);
            }
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

/// The policy goes away with the way out: `Retain` keeps the claim until the finalizer is off.
#[test]
fn refused_finalizer_under_retain_keeps_the_record() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({"deletionPolicy": "Retain"}));
        seconds(5.0).await;
        world.faults.set_policy(Some(("m", 403)));
        world.delete("m");
        seconds(10.0).await;
        assert_eq!(ready(&world, "m").1, "WriteRefused");
        assert_eq!(origin(&world, "m"), "Joined");
        world.patch("m", json!({"spec": {"deletionPolicy": "RemoveIfJoined"}}));
        world.faults.set_policy(None);
        seconds(10.0).await;
        assert!(world.is_member("i-0", "sg-a") || object(&world, "m").is_none());
        seconds(60.0).await;
        assert_eq!(object(&world, "m"), None);
    });
}

/// C10, G6b, R11: a refused hand-over is no proof that the heir goes.
#[test]
fn refused_hand_over_keeps_the_membership_and_says_what_the_deletion_waits_for() {
    for code in [403, 422] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(5.0).await;
            world.faults.set_policy(Some(("heir", code)));
            // Its finalizer cannot be written.
            world.membership("heir", 0, 0, json!({}));
            seconds(5.0).await;
            world.delete("m");
            seconds(60.0).await;
            assert!(world.is_member("i-0", "sg-a"), "{code}: the heir is alive");
            assert_eq!(ready(&world, "m").1, "WriteRefused");
            let text = message(&world, "m");
            assert!(text.contains("another SecurityGroupMembership"), "{text}");
            assert!(text.contains("by a fault"), "{text}");
            assert!(text.contains("deletionPolicy to Retain"), "{text}");
            assert_eq!(origin(&world, "m"), "Joined");
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
            world.faults.set_policy(None);
            seconds(310.0).await;
            assert_eq!(object(&world, "m"), None);
            assert_eq!(claimed(&object(&world, "heir").unwrap()), "Joined");
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

/// The heir has the edge: what becomes of it is no more the business of the object that waits for its finalizer.
#[test]
fn handed_over_edge_is_left_once_by_its_heir() {
    for restarted in [false, true] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(5.0).await;
            world.membership("heir", 0, 0, json!({}));
            seconds(5.0).await;
            world.faults.set_policy(Some(("m", 422)));
            world.delete("m");
            seconds(10.0).await;
            assert_eq!(ready(&world, "m").1, "WriteRefused");
            assert_eq!(origin(&world, "m"), Value::Null);
            assert_eq!(claimed(&object(&world, "heir").unwrap()), "Joined");
            world.delete("heir");
            seconds(10.0).await;
            assert!(!world.is_member("i-0", "sg-a"));
            world.foreign(0, 0, true);
            if restarted {
                world.restart_all();
            }
            seconds(310.0).await;
            assert!(world.is_member("i-0", "sg-a"));
            world.faults.set_policy(None);
            seconds(310.0).await;
            assert_eq!(object(&world, "m"), None);
            assert!(world.is_member("i-0", "sg-a"));
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

/// F11, A12.
#[test]
fn object_that_is_annotated_all_the_time_is_told_at_once() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"set": {"latency": "700ms"}}));
        world.membership("m", 0, 0, json!({}));
        let beat = async |number: u32| {
            let annotation = json!({"example.com/beat": number.to_string()});
            world.patch("m", json!({"metadata": {"annotations": annotation}}));
            seconds(0.3).await;
        };
        for number in 0..15 {
            beat(number).await;
        }
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
        assert_eq!(calls(&world, "JoinSecurityGroup"), 1);
        world.grant(false);
        for number in 20..25 {
            beat(number).await;
        }
        assert_eq!(ready(&world, "m").1, "NotGranted");
    });
}

/// So is one that others remove.
#[test]
fn membership_that_is_annotated_all_the_time_is_repaired() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(15.0).await;
        world.cloud(json!({"set": {"latency": "700ms"}}));
        world.foreign(0, 0, false);
        // A scan period, and a pass.
        for number in 0..250 {
            let annotation = json!({"example.com/beat": number.to_string()});
            world.patch("m", json!({"metadata": {"annotations": annotation}}));
            seconds(0.3).await;
        }
        assert!(world.is_member("i-0", "sg-a"));
        assert_eq!(calls(&world, "JoinSecurityGroup"), 2);
    });
}

/// R2: A status that another operator has written meanwhile is not overwritten by one that goes by an older one.
#[test]
fn conflict_with_another_status_starts_a_new_pass() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        world.faults.refuse_status_writes(12);
        world.grant(false);
        seconds(15.0).await;
        assert_eq!(
            ready(&world, "m").1,
            "NotGranted",
            "conflicts are tried again soon"
        );
        let intent = object(&world, "m").unwrap();
        assert!(intent["metadata"]["annotations"][INTENT_ANNOTATION].is_string());
    });
}

/// J2, E13: an older CRD does not store the record, also of an owner whose process was killed before it. Nothing is handed over by it,
/// and the membership stays until there is a CRD that does.
#[test]
fn hand_over_that_an_older_crd_does_not_store_waits() {
    for restarts in [false, true] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            if restarts {
                world.server.undeclare(MEMBERSHIPS, Some("status.origin"));
            }
            for name in ["m", "other"] {
                world.membership(name, 0, 0, json!({}));
                seconds(11.0).await;
            }
            world.server.undeclare(MEMBERSHIPS, Some("status.origin"));
            if restarts {
                world.restart_all();
                seconds(90.0).await;
            }
            world.delete("m");
            seconds(60.0).await;
            assert!(object(&world, "m").is_some(), "{restarts}");
            assert!(world.is_member("i-0", "sg-a"), "{restarts}");
            world.server.undeclare(MEMBERSHIPS, None);
            seconds(600.0).await;
            assert_eq!(object(&world, "m"), None, "{restarts}");
            assert_eq!(origin(&world, "other"), "Joined", "{restarts}");
            world.delete("other");
            seconds(11.0).await;
            assert!(!world.is_member("i-0", "sg-a"), "{restarts}");
        });
    }
}
