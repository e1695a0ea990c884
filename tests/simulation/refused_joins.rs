//! A Join that was refused has made nothing, whoever makes the edge afterwards: it is theirs, and is not left with the object.

use std::time::Duration;

use security_group_operator::api::RECONCILE_REQUESTED_ANNOTATION;
use serde_json::json;

use crate::in_virtual_time;
use crate::monitor::MEMBERSHIPS;
use crate::scenario::{add_fault, calls, claimed, object, ready, seconds, world};
use crate::world::{SimOptions, World};

/// Longer than a pass over one object without faults.
const AT_ONCE: f64 = 0.4;

const REFUSALS: [&str; 4] = [
    "Forbidden.RAM",
    "InstanceSecurityGroupLimitExceeded",
    "InvalidInstanceId.Mismatch",
    "Throttling.User",
];

fn claim(world: &World, name: &str) -> String {
    claimed(&object(world, name).unwrap()).to_owned()
}

fn refuse(world: &World, count: u32, code: &str) {
    let status = if code.starts_with("Throttling") {
        400
    } else {
        403
    };
    let how = json!({"error": {"code": code, "status": status}});
    add_fault(world, "JoinSecurityGroup", count, &how);
}

fn ask(world: &World, name: &str, moment: &str) {
    let annotations = json!({RECONCILE_REQUESTED_ANNOTATION: moment});
    world.patch(name, json!({"metadata": {"annotations": annotations}}));
}

fn suspend(world: &World, name: &str, suspend: bool) {
    world.patch(name, json!({"spec": {"suspend": suspend}}));
}

fn leaves(world: &World) -> bool {
    let calls = world.simulator.stats()["calls"].clone();
    calls.get("LeaveSecurityGroup").is_some()
}

/// A7.
#[test]
fn foreign_edge_after_a_rejected_join_is_never_left() {
    for code in REFUSALS {
        for (adoption, told) in [("Adopt", "Adopted"), ("Refuse", "AdoptionRefused")] {
            in_virtual_time(|| async move {
                let world = world().await;
                refuse(&world, 1, code);
                world.membership("m", 0, 0, json!({"adoptionPolicy": adoption}));
                seconds(AT_ONCE).await;
                // It is called again soon after a throttle; after another refusal the object claims nothing.
                let waits = code.starts_with("Throttling");
                assert_eq!(
                    claim(&world, "m"),
                    if waits { "Joined" } else { "" },
                    "{code}"
                );
                world.foreign(0, 0, true);
                ask(&world, "m", "now");
                seconds(70.0).await;
                assert_eq!(ready(&world, "m").1, told, "{code}");
                world.delete("m");
                seconds(AT_ONCE).await;
                assert_eq!(object(&world, "m"), None, "{code}");
                assert!(world.is_member("i-0", "sg-a"), "{code}");
                assert!(!leaves(&world), "{code}");
                assert_eq!(world.monitor.violations(), [""; 0]);
            });
        }
    }
}

#[test]
fn never_joined_object_is_deleted_without_a_leave() {
    for code in REFUSALS {
        for policy in ["RemoveIfJoined", "Remove"] {
            in_virtual_time(|| async move {
                let world = world().await;
                refuse(&world, 10, code);
                world.membership("m", 0, 0, json!({"deletionPolicy": policy}));
                seconds(AT_ONCE).await;
                world.foreign(0, 0, true);
                world.delete("m");
                seconds(AT_ONCE).await;
                assert_eq!(object(&world, "m"), None, "{code}");
                // `Remove` asks for it, whoever made it, as long as the object waits for its Join.
                let removes = policy == "Remove" && code.starts_with("Throttling");
                assert_eq!(world.is_member("i-0", "sg-a"), !removes, "{code}");
                assert_eq!(leaves(&world), removes, "{code}");
            });
        }
    }
}

#[test]
fn join_after_a_rejection_makes_the_object_owner() {
    for lost in [false, true] {
        in_virtual_time(|| async move {
            let world = world().await;
            refuse(&world, 1, "Forbidden.RAM");
            world.membership("m", 0, 0, json!({}));
            seconds(AT_ONCE).await;
            if lost {
                // The answer is lost, the effect is not.
                let how = json!({"action": "JoinSecurityGroup", "count": 1, "effect": true, "fault": "reset"});
                let fault = serde_json::from_value(how).unwrap();
                world.simulator.add_fault(fault);
            }
            ask(&world, "m", "now");
            seconds(60.0 + AT_ONCE).await;
            assert!(world.is_member("i-0", "sg-a"));
            seconds(10.0).await;
            assert_eq!(ready(&world, "m").1, "Joined");
            world.delete("m");
            // While a Join without an answer may still arrive, no deletion ends.
            seconds(if lost { 90.0 } else { AT_ONCE }).await;
            assert_eq!(object(&world, "m"), None);
            assert!(!world.is_member("i-0", "sg-a"));
        });
    }
}

#[test]
fn join_of_a_sibling_counts_despite_a_rejected_one() {
    // Who goes first: the one that was refused, or the one that joined.
    for refused_first in [false, true] {
        in_virtual_time(|| async move {
            let world = world().await;
            refuse(&world, 1, "Forbidden.RAM");
            world.membership("refused", 0, 0, json!({}));
            seconds(AT_ONCE).await;
            // Nor does it learn of it in time.
            if !refused_first {
                suspend(&world, "refused", true);
            }
            world.membership("joined", 0, 0, json!({}));
            seconds(AT_ONCE).await;
            assert_eq!(ready(&world, "joined").1, "Joined");
            let order = if refused_first {
                ["refused", "joined"]
            } else {
                ["joined", "refused"]
            };
            world.delete(order[0]);
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, order[0]), None);
            assert!(world.is_member("i-0", "sg-a"));
            if !refused_first {
                suspend(&world, "refused", false);
                seconds(AT_ONCE).await;
            }
            world.delete(order[1]);
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, order[1]), None);
            assert!(!world.is_member("i-0", "sg-a"), "{refused_first}");
        });
    }
}

#[test]
fn sibling_whose_join_was_refused_becomes_owner() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions {
            lag: Duration::from_secs(4),
            ..SimOptions::default()
        });
        world.start(None);
        seconds(1.0).await;
        world.membership("joined", 0, 0, json!({}));
        seconds(0.1).await;
        refuse(&world, 1, "Forbidden.RAM");
        world.membership("late", 0, 0, json!({}));
        seconds(AT_ONCE).await;
        assert_eq!(claim(&world, "late"), "");
        world.delete("joined");
        seconds(0.1).await;
        assert_eq!(object(&world, "joined"), None);
        assert_eq!(claim(&world, "late"), "Joined");
        world.delete("late");
        seconds(5.0).await;
        assert_eq!(object(&world, "late"), None);
        assert!(!world.is_member("i-0", "sg-a"));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// The process is killed in its Join, and the Join of the next one is refused: that says nothing of the first. What others make before a
/// read tells what became of the first counts as joined (`MadeWhileOpen`). The operator looks as soon as a read can tell, and not when the
/// refused Join is due again (5 minutes) or at the next scan. What others make after that look is theirs (A8, C7).
#[test]
fn what_others_make_after_the_read_that_tells_of_a_killed_process_is_theirs() {
    // The first Join is killed, which may take 66 s, or a repair, which is not waited for. A read lags 10 s at most.
    for (is_repair, others_join_after, told) in [
        (false, 70.0, "Joined"),
        (false, 80.0, "Adopted"),
        (true, 5.0, "Joined"),
        (true, 14.0, "Adopted"),
    ] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            if is_repair {
                world.membership("m", 0, 0, json!({}));
                seconds(20.0).await;
                world.foreign(0, 0, false);
            }
            let before = calls(&world, "JoinSecurityGroup");
            add_fault(&world, "JoinSecurityGroup", 1, &json!("reset"));
            if !is_repair {
                world.membership("m", 0, 0, json!({}));
            }
            while calls(&world, "JoinSecurityGroup") == before {
                seconds(0.001).await;
            }
            world.kill(0);
            refuse(&world, 20, "InstanceSecurityGroupLimitExceeded");
            world.start(None);
            seconds(others_join_after).await;
            let is_over = told == "Adopted";
            let case = format!("{is_repair} {others_join_after}");
            assert_eq!(claim(&world, "m").is_empty(), is_over, "{case}");
            world.foreign(0, 0, true);
            seconds(120.0).await;
            assert_eq!(ready(&world, "m").1, told, "{case}");
            world.delete("m");
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, "m"), None, "{case}");
            assert_eq!(world.is_member("i-0", "sg-a"), is_over, "{case}");
            world.monitor.check_all_left_behind();
            assert_eq!(world.monitor.violations(), [""; 0], "{case}");
        });
    }
}

/// The same where the cloud throttles the Join of the next process for minutes: the read that tells of the first one comes all the same.
#[test]
fn what_others_make_while_the_join_of_the_next_process_is_throttled_is_theirs() {
    // Each seed has its scans at other times.
    for seed in 0..6 {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions {
                seed,
                ..SimOptions::default()
            });
            world.start(None);
            seconds(1.0).await;
            add_fault(&world, "JoinSecurityGroup", 1, &json!("reset"));
            world.membership("m", 0, 0, json!({}));
            while calls(&world, "JoinSecurityGroup") == 0 {
                seconds(0.001).await;
            }
            world.kill(0);
            refuse(&world, 2, "Throttling.User");
            world.start(None);
            seconds(80.0).await;
            assert_eq!(calls(&world, "JoinSecurityGroup"), 3, "the fourth waits");
            world.foreign(0, 0, true);
            seconds(180.0).await;
            assert_eq!(ready(&world, "m").1, "Adopted", "{seed}");
            world.delete("m");
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, "m"), None, "{seed}");
            assert!(world.is_member("i-0", "sg-a"), "{seed}");
            assert_eq!(world.monitor.violations(), [""; 0], "{seed}");
        });
    }
}

/// Changes of an object that the API server has stored since it was created.
fn writes(world: &World, name: &str) -> usize {
    let state = world.server.state();
    let of_object = state
        .log
        .iter()
        .filter(|entry| (entry.key.0, entry.key.2.as_str()) == (MEMBERSHIPS, name));
    of_object.count() - 1
}

/// What is refused costs the intent, its removal and the status; each further try, every 5 to 30 minutes, the first two.
#[test]
fn a_refused_join_costs_three_writes_and_each_further_try_two() {
    in_virtual_time(|| async {
        let world = world().await;
        refuse(&world, 100, "InstanceSecurityGroupLimitExceeded");
        world.membership("m", 0, 0, json!({}));
        seconds(60.0).await;
        assert_eq!(calls(&world, "JoinSecurityGroup"), 1);
        assert_eq!(writes(&world, "m"), 3);
        seconds(3.0 * 60.0 * 60.0).await;
        let tries = usize::try_from(calls(&world, "JoinSecurityGroup")).unwrap();
        // The wait grows from 5 minutes to 30.
        assert!((7..=20).contains(&tries), "{tries}");
        assert_eq!(writes(&world, "m"), 3 + 2 * (tries - 1));
    });
}

/// Drift that is told, and not repaired, costs the status and the intent that goes.
#[test]
fn told_drift_costs_two_writes() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({"driftPolicy": "Report"}));
        seconds(60.0).await;
        assert_eq!(writes(&world, "m"), 2);
        world.foreign(0, 0, false);
        seconds(3.0 * 60.0 * 60.0).await;
        assert_eq!(ready(&world, "m").1, "DriftReported");
        assert_eq!(writes(&world, "m"), 2 + 2);
    });
}
