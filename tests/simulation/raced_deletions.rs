//! The API server decides to remove an object without finalizers at once, and carries it out when the operator has written its finalizer
//! and joined the target. The monitor's rule of what is left behind is the judge.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use crate::in_virtual_time;
use crate::lease::metric;
use crate::monitor::MEMBERSHIPS;
use crate::scenario::{add_fault, calls, claimed, journal, object, ready, seconds, world};
use crate::topology::{INTERFACE, TEAMS, name_own_account};
use crate::world::{SimOptions, World};

const SOON: Duration = Duration::from_millis(6);
/// Until the outcome of any call shows, and some time more.
const SETTLED: f64 = 120.0;

/// Creates `m` and deletes it after so many milliseconds, slowly. Returns whether it went with the operator's finalizer on it.
async fn raced(world: &World, millis: u32, rest: serde_json::Value) -> bool {
    world.membership("m", 0, 0, rest);
    seconds(f64::from(millis) / 1_000.0).await;
    world.delete_slowly("m", SOON);
    seconds(0.01).await;
    world.monitor.is_unreleased("i-0", "sg-a")
}

fn assert_nothing_left(world: &World, told: &str) {
    world.monitor.check_all_left_behind();
    assert_eq!(world.monitor.violations(), [""; 0], "{told}");
}

/// Runs the scenario for each millisecond in which a pass may write its finalizer. It returns whether the race was met.
fn at_every_moment<Scenario: Future<Output = bool>>(scenario: impl Fn(u32) -> Scenario + Sync) {
    let met: Vec<u32> = (0..60)
        .filter(|moment| in_virtual_time(|| scenario(*moment)))
        .collect();
    println!("the race was met at {met:?} ms");
    assert!(met.len() > 3, "{met:?}");
}

/// F5.
#[test]
fn nothing_is_left_of_an_object_deleted_in_the_moment_of_its_claim() {
    for latency in ["0s", "20s"] {
        at_every_moment(|moment| async move {
            let world = world().await;
            add_fault(&world, "JoinSecurityGroup", 1, &json!({"latency": latency}));
            let was_met = raced(&world, moment, json!({})).await;
            seconds(SETTLED).await;
            assert_eq!(object(&world, "m"), None, "{moment}");
            assert!(!world.is_member("i-0", "sg-a"), "{moment}");
            assert_nothing_left(&world, &format!("{moment}"));
            // The list after the event does not show the object.
            let lists = world.faults.selections();
            assert!(!was_met || lists > 0, "{moment}: no list before the Leave");
            // And then it is over.
            let effects = world.monitor.effects();
            let looks = world.simulator.stats();
            seconds(300.0).await;
            assert_eq!(world.monitor.effects(), effects);
            assert_eq!(world.simulator.stats(), looks);
            was_met
        });
    }
}

/// F11: an admission webhook holds the deletion up for seconds, after the API server has seen no finalizer. When the object goes, it has
/// its record. Another object may have adopted the membership by then.
#[test]
fn nothing_is_left_of_an_object_whose_deletion_a_webhook_holds_up() {
    for (hold, is_shared) in [(1.0, false), (5.0, false), (5.0, true), (30.0, true)] {
        at_every_moment(|moment| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(f64::from(moment) / 1_000.0).await;
            world.delete_slowly("m", Duration::from_secs_f64(hold));
            seconds(hold / 2.0).await;
            if is_shared {
                world.membership("other", 0, 0, json!({}));
            }
            seconds(hold / 2.0 - 0.001).await;
            // What goes is an object that is being deleted if the finalizer was there first.
            let last = object(&world, "m");
            let is_recorded = last.is_some_and(|last| last["status"]["origin"] == "Joined");
            seconds(0.002).await;
            let was_met = world.monitor.is_unreleased("i-0", "sg-a");
            assert!(is_recorded || !was_met, "{hold} {moment}");
            seconds(SETTLED).await;
            assert_eq!(object(&world, "m"), None, "{moment}");
            assert_eq!(world.is_member("i-0", "sg-a"), is_shared, "{hold} {moment}");
            if is_shared {
                assert!(!was_met || calls(&world, "LeaveSecurityGroup") == 0);
                world.delete("other");
                seconds(SETTLED).await;
            }
            assert!(!world.is_member("i-0", "sg-a"), "{hold} {moment}");
            assert_nothing_left(&world, &format!("{hold} {moment}"));
            was_met
        });
    }
}

/// F9: a watch with a selector shows an object that no longer fits as one that has gone: with its finalizer, and without a
/// `deletionTimestamp`. It lives. The list before the Leave shows it.
#[test]
fn object_that_no_longer_fits_a_selector_keeps_its_membership() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(20.0).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        world.faults.unselect("m");
        let shard = |name: &str| json!({"metadata": {"labels": {"shard": name}}});
        world.patch("m", shard("another"));
        for second in 0..300 {
            seconds(1.0).await;
            assert!(world.is_member("i-0", "sg-a"), "{second}");
        }
        assert!(world.faults.selections() > 0, "no list");
        assert_eq!(journal(&world), ["the operator joined"]);
        assert_nothing_left(&world, "unselected");
        // It fits again, and is deleted.
        world.patch("m", shard("own"));
        seconds(20.0).await;
        world.delete("m");
        seconds(SETTLED).await;
        assert_eq!(object(&world, "m"), None);
        let both = ["the operator joined", "the operator left"];
        assert_eq!(journal(&world), both);
        assert_nothing_left(&world, "selected again");
    });
}

/// F7: `kubectl replace --force` makes the object again at once.
#[test]
fn next_object_of_the_edge_owns_what_was_joined() {
    for name in ["m", "next"] {
        at_every_moment(|moment| async move {
            let world = world().await;
            let was_met = raced(&world, moment, json!({})).await;
            if !was_met {
                return false;
            }
            world.membership(name, 0, 0, json!({}));
            seconds(SETTLED).await;
            assert!(world.is_member("i-0", "sg-a"), "{moment}");
            assert_eq!(ready(&world, name).0, "True", "{moment}");
            assert_eq!(
                claimed(&object(&world, name).unwrap()),
                "Joined",
                "{moment}"
            );
            world.delete(name);
            seconds(SETTLED).await;
            assert!(!world.is_member("i-0", "sg-a"), "{moment}");
            assert_nothing_left(&world, &format!("{moment}"));
            was_met
        });
    }
}

#[test]
fn policies_of_an_object_deleted_in_the_moment_of_its_claim_hold() {
    let mut own = json!({});
    name_own_account(&mut own);
    for (rest, keeps) in [
        (json!({"deletionPolicy": "Retain"}), true),
        (json!({"deletionPolicy": "Remove"}), false),
        (own, false),
    ] {
        let rest = &rest;
        at_every_moment(|moment| async move {
            let world = world().await;
            world.write_secret(TEAMS, 0);
            world.account(TEAMS, true);
            seconds(2.0).await;
            let was_met = raced(&world, moment, rest.clone()).await;
            seconds(SETTLED).await;
            if !keeps {
                assert!(!world.is_member("i-0", "sg-a"), "{moment}");
                assert_nothing_left(&world, &format!("{rest} {moment}"));
            } else if was_met {
                let leaves = &world.simulator.stats()["calls"]["LeaveSecurityGroup"];
                assert!(leaves.is_null(), "{moment}");
            }
            was_met
        });
    }
}

/// The edge was there before: nothing is removed.
#[test]
fn foreign_membership_stays() {
    at_every_moment(|moment| async move {
        let world = world().await;
        world.foreign(0, 0, true);
        world.membership("m", 0, 0, json!({}));
        seconds(f64::from(moment) / 1_000.0).await;
        world.delete_slowly("m", SOON);
        seconds(SETTLED).await;
        assert!(world.is_member("i-0", "sg-a"), "{moment}");
        assert_nothing_left(&world, &format!("{moment}"));
        world.monitor.is_unreleased("i-0", "sg-a")
    });
}

/// Others make the membership in the same moment, so that the cloud answers that it is there. Of such an object `Remove` removes it, too.
#[test]
fn what_others_make_in_the_moment_of_the_claim_goes_under_remove_only() {
    for (policy, stays) in [("RemoveIfJoined", true), ("Remove", false)] {
        at_every_moment(|moment| async move {
            let world = world().await;
            let rest = json!({"deletionPolicy": policy});
            world.membership("m", 0, 0, rest);
            seconds(f64::from(moment) / 1_000.0).await;
            world.foreign(0, 0, true);
            world.delete_slowly("m", SOON);
            seconds(SETTLED).await;
            let was_met = world.monitor.is_unreleased("i-0", "sg-a");
            let joined = calls(&world, "JoinSecurityGroup") > 0;
            let is_member = world.is_member("i-0", "sg-a");
            assert!(
                !was_met || !joined || is_member == stays,
                "{policy} {moment}"
            );
            assert_nothing_left(&world, &format!("{policy} {moment}"));
            was_met && joined
        });
    }
}

/// F6: what another object holds already is handed on, and what cannot be left now is tried again.
#[test]
fn leave_that_is_refused_is_tried_again() {
    at_every_moment(|moment| async move {
        let world = world().await;
        let refused = json!({"error": {"code": "InstanceLastSecurityGroup"}});
        add_fault(&world, "LeaveSecurityGroup", 2, &refused);
        let was_met = raced(&world, moment, json!({})).await;
        seconds(SETTLED).await;
        let leaves = calls(&world, "LeaveSecurityGroup");
        assert!(leaves <= 1, "{moment}: {leaves} within 2 minutes");
        seconds(1_500.0).await;
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 3 * leaves, "{moment}");
        assert!(!world.is_member("i-0", "sg-a"), "{moment}");
        assert_nothing_left(&world, &format!("{moment}"));
        was_met
    });
}

#[test]
fn list_that_fails_holds_the_leave_up() {
    at_every_moment(|moment| async move {
        let world = world().await;
        world.faults.refuse_selections(1_000, 500);
        let was_met = raced(&world, moment, json!({})).await;
        seconds(60.0).await;
        if was_met && world.is_member("i-0", "sg-a") {
            let lists = world.faults.selections();
            assert!(lists > 2, "{lists}");
        }
        world.faults.refuse_selections(0, 0);
        seconds(600.0).await;
        assert!(!world.is_member("i-0", "sg-a"), "{moment}");
        assert_nothing_left(&world, &format!("{moment}"));
        was_met
    });
}

#[test]
fn interface_is_removed_as_well() {
    at_every_moment(|moment| async move {
        let world = world().await;
        world.membership("m", INTERFACE, 0, json!({}));
        seconds(f64::from(moment) / 1_000.0).await;
        world.delete_slowly("m", SOON);
        seconds(SETTLED).await;
        assert!(!world.is_member("eni-0", "sg-a"), "{moment}");
        assert_nothing_left(&world, &format!("{moment}"));
        world.monitor.is_unreleased("eni-0", "sg-a")
    });
}

/// A standby has seen the deletion as well. It takes over when others have made the membership again.
#[test]
fn standby_removes_nothing_that_others_have_made_since() {
    at_every_moment(|moment| async move {
        let mut world = World::new(SimOptions::default());
        for _ in 0..2 {
            let (lease, telemetry) = (Duration::from_secs(15), Arc::default());
            world.start_elected(lease, &telemetry, std::future::pending());
            seconds(1.0).await;
        }
        seconds(11.0).await;
        let was_met = raced(&world, moment, json!({})).await;
        if !was_met {
            return false;
        }
        seconds(60.0).await;
        assert!(!world.is_member("i-0", "sg-a"), "{moment}");
        let leaves = calls(&world, "LeaveSecurityGroup");
        world.foreign(0, 0, true);
        world.kill(0);
        seconds(SETTLED).await;
        assert!(world.is_member("i-0", "sg-a"), "{moment}");
        assert_eq!(calls(&world, "LeaveSecurityGroup"), leaves, "{moment}");
        true
    });
}

/// F8: the event is lost, and the next list no longer shows the object. Another operator may have released it: nothing is removed.
#[test]
fn object_that_only_a_list_misses_is_let_be() {
    in_virtual_time(|| async {
        let telemetry = Arc::default();
        let mut world = World::new(SimOptions::default());
        world.start_counted_until(&telemetry, std::future::pending());
        seconds(11.0).await;
        let missed = || metric(&telemetry, "security_group_operator_missed_deletions_total");
        assert_eq!(missed().await, "0");
        world.membership("m", 0, 0, json!({}));
        seconds(20.0).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        world.faults.lose_events(MEMBERSHIPS, 1);
        world.patch("m", json!({"metadata": {"finalizers": null}}));
        world.delete("m");
        seconds(SETTLED).await;
        assert_eq!(object(&world, "m"), None);
        assert!(world.is_member("i-0", "sg-a"));
        assert_eq!(missed().await, "1");
    });
}
