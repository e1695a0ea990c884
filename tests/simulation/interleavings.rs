//! Rows of the interleavings of ownership that no other file shows: what users, others, late calls and kills do to one membership, in
//! every order. Each test names its row. The journal of the cloud and the stored objects judge.

use std::time::Duration;

use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION, RECONCILE_REQUESTED_ANNOTATION};
use serde_json::{Value, json};

use crate::api_server::{CallFault, Verb};
use crate::in_virtual_time;
use crate::link::{CallFilter, KillPoint};
use crate::monitor::{MEMBERSHIPS, condition};
use crate::scenario::{
    add_fault, calls, claimed, journal, lagging_world, object, ready, seconds, told, world,
};
use crate::topology::{GUESTS, NAMESPACE};
use crate::world::{SimOptions, World};

/// Longer than a pass over one object without faults.
const AT_ONCE: f64 = 0.4;
/// Longer than what the cloud's reads may lag, and than a process that has just started trusts no read.
const SETTLED: f64 = 11.0;
/// The scan period of 60 s, and a pass.
const SCAN: f64 = 66.0;
/// Until the outcome of any call shows, and some time more.
const OVER: f64 = 120.0;

fn is_member(world: &World) -> bool {
    world.is_member("i-0", "sg-a")
}

fn claim(world: &World, name: &str) -> String {
    claimed(&object(world, name).unwrap()).to_owned()
}

fn fault(world: &World, fault: Value) {
    world
        .simulator
        .add_fault(serde_json::from_value(fault).unwrap());
}

/// Deletes the object, and waits until any call has shown its outcome. Whether the target is a member then.
async fn stays_after_deletion(world: &World, name: &str) -> bool {
    world.delete(name);
    seconds(OVER).await;
    assert_eq!(object(world, name), None);
    assert_eq!(world.monitor.violations(), [""; 0]);
    is_member(world)
}

fn was_drift_told(world: &World, name: &str) -> bool {
    let told = told(world, name);
    told.iter().any(|reason| reason.starts_with("Drift"))
}

/// A4: an object that waits for the rate limit has no claim, and is deleted without the operator.
#[test]
fn object_that_waits_for_the_limit_has_no_claim() {
    in_virtual_time(|| async {
        let world = world().await;
        let throttled = json!({"error": {"code": "Throttling.User", "status": 400}});
        add_fault(&world, "JoinSecurityGroup", 10, &throttled);
        world.membership("first", 1, 0, json!({}));
        seconds(AT_ONCE).await;
        world.membership("m", 0, 0, json!({}));
        seconds(AT_ONCE).await;
        assert_eq!(claim(&world, "m"), "");
        world.pause(true);
        world.delete("m");
        assert_eq!(object(&world, "m"), None);
        world.pause(false);
        seconds(OVER).await;
        assert!(!is_member(&world));
    });
}

/// A5, A14: the process is killed in its Join, once or twice, and the effect comes late. The next process joins for the same intent.
#[test]
fn late_join_of_a_killed_process_is_its_objects() {
    for kills in [1, 2] {
        for late in ["1s", "20s", "60s"] {
            in_virtual_time(|| async move {
                let mut world = world().await;
                fault(
                    &world,
                    json!({
                        "action": "JoinSecurityGroup", "count": kills, "effectAfter": late, "fault": "reset",
                    }),
                );
                world.membership("m", 0, 0, json!({}));
                for _ in 0..kills {
                    seconds(0.06).await;
                    world.restart_all();
                }
                seconds(OVER).await;
                assert_eq!(ready(&world, "m").1, "Joined", "{kills} {late}");
                assert!(!stays_after_deletion(&world, "m").await, "{kills} {late}");
            });
        }
    }
}

/// A8: the first Join gets no answer and lands late, the second is refused.
#[test]
fn join_without_an_answer_counts_although_the_next_is_refused() {
    in_virtual_time(|| async {
        let world = world().await;
        fault(
            &world,
            json!({
                "action": "JoinSecurityGroup", "count": 1, "effectAfter": "50s", "fault": "reset",
            }),
        );
        let refused = json!({"error": {"code": "QuotaExceeded", "status": 400}});
        add_fault(&world, "JoinSecurityGroup", 20, &refused);
        world.membership("m", 0, 0, json!({}));
        seconds(OVER).await;
        assert!(is_member(&world));
        assert!(!stays_after_deletion(&world, "m").await);
    });
}

/// B3: objects that were never joined, and refuse to adopt, share nothing.
#[test]
fn two_objects_that_refuse_adopt_nothing_together() {
    in_virtual_time(|| async {
        let world = world().await;
        world.foreign(0, 0, true);
        for name in ["a", "b"] {
            world.membership(name, 0, 0, json!({"adoptionPolicy": "Refuse"}));
        }
        seconds(SCAN).await;
        for name in ["a", "b"] {
            assert_eq!(ready(&world, name).1, "AdoptionRefused");
            assert_eq!(claim(&world, name), "");
        }
        assert!(stays_after_deletion(&world, "a").await);
    });
}

/// B5: the process before left the edge 3 s before its end, and Describe still lists it.
#[test]
fn what_the_process_before_has_just_left_is_joined_and_not_adopted() {
    in_virtual_time(|| async {
        let mut world = lagging_world(9).await;
        world.membership("m", 0, 0, json!({}));
        seconds(2.0 * SETTLED).await;
        world.delete("m");
        seconds(3.0).await;
        world.restart_all();
        world.membership("next", 0, 0, json!({}));
        seconds(SCAN).await;
        assert_eq!(ready(&world, "next").1, "Joined");
        assert!(!stays_after_deletion(&world, "next").await);
    });
}

/// C4: others make again what was seen missing, at any millisecond of the repair.
#[test]
fn what_others_make_again_during_the_repair_is_theirs() {
    for millis in 0..30 {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            world.foreign(0, 0, false);
            let joins = calls(&world, "JoinSecurityGroup");
            let reads = calls(&world, "DescribeInstances");
            // The scan finds it missing.
            while calls(&world, "DescribeInstances") == reads {
                seconds(0.001).await;
            }
            seconds(f64::from(millis) / 1_000.0).await;
            let repaired = is_member(&world);
            world.foreign(0, 0, true);
            seconds(SCAN).await;
            let _ = joins;
            assert_eq!(
                stays_after_deletion(&world, "m").await,
                !repaired,
                "{millis}"
            );
        });
    }
}

/// C6: the repair gets no answer and has its effect.
#[test]
fn repair_without_an_answer_is_still_ours() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        fault(
            &world,
            json!({"action": "JoinSecurityGroup", "count": 1, "effect": true, "fault": "reset"}),
        );
        world.foreign(0, 0, false);
        seconds(2.0 * OVER).await;
        assert_eq!(claim(&world, "m"), "Joined");
        assert!(!stays_after_deletion(&world, "m").await);
    });
}

/// C7: the repair is refused and told; others make the membership again, over a restart or not.
#[test]
fn what_others_make_after_a_refused_repair_is_theirs() {
    for restarts in [false, true] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            let refused = json!({"error": {"code": "QuotaExceeded", "status": 400}});
            add_fault(&world, "JoinSecurityGroup", 20, &refused);
            world.foreign(0, 0, false);
            seconds(SCAN).await;
            assert_eq!(claim(&world, "m"), "");
            assert!(!is_member(&world));
            if restarts {
                world.restart_all();
                seconds(SETTLED).await;
            }
            world.foreign(0, 0, true);
            seconds(SCAN).await;
            assert!(stays_after_deletion(&world, "m").await, "{restarts}");
        });
    }
}

/// C9: the repair is refused, and the process is killed after it has taken the intent off and before it takes the record off. The next one
/// writes the finalizer again, reads, and ends the claim anew. The other order would leave an intent that counts.
#[test]
fn claim_that_a_killed_process_has_half_ended_is_ended_anew() {
    let mut met = 0;
    for request in 1..6 {
        met += u32::from(in_virtual_time(|| async move {
            let mut world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            let refused = json!({"error": {"code": "QuotaExceeded", "status": 400}});
            add_fault(&world, "JoinSecurityGroup", 20, &refused);
            world.foreign(0, 0, false);
            let joins = calls(&world, "JoinSecurityGroup");
            while calls(&world, "JoinSecurityGroup") == joins {
                seconds(0.001).await;
            }
            world.schedule_kill(request, KillPoint::AfterEffect);
            seconds(AT_ONCE).await;
            if world.dead_incarnation().is_none() || !is_half_ended(&world) {
                return false;
            }
            world.restart_all();
            seconds(2.0).await;
            let again = object(&world, "m").unwrap();
            assert_eq!(again["metadata"]["finalizers"], json!([FINALIZER]));
            seconds(2.0 * SETTLED).await;
            assert_eq!(claim(&world, "m"), "");
            let ended = object(&world, "m").unwrap();
            assert_eq!(ended["metadata"].get("finalizers"), None);
            // Whoever looks next finds no intent that would count.
            world.restart_all();
            seconds(SETTLED).await;
            world.foreign(0, 0, true);
            seconds(SCAN).await;
            assert!(stays_after_deletion(&world, "m").await, "{request}");
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0, "{request}");
            true
        }));
    }
    assert!(met > 0, "the write that takes the intent off");
}

/// Whether the object has its record, and neither finalizer nor intent.
fn is_half_ended(world: &World) -> bool {
    let object = object(world, "m").unwrap();
    let metadata = &object["metadata"];
    let marks = [
        &metadata["finalizers"],
        &metadata["annotations"][INTENT_ANNOTATION],
    ];
    object["status"]["origin"] == "Joined" && marks.iter().all(|mark| mark.is_null())
}

/// C8: the repair waits for the target for longer than any call takes; others make the membership again.
#[test]
fn what_others_make_while_the_repair_waits_is_theirs() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.cloud(json!({"setStatus": {"id": "i-0", "status": "Starting"}}));
        world.foreign(0, 0, false);
        seconds(2.0 * OVER).await;
        world.foreign(0, 0, true);
        world.cloud(json!({"setStatus": {"id": "i-0", "status": "Running"}}));
        seconds(2.0 * SCAN).await;
        assert_eq!(ready(&world, "m").1, "Adopted");
        assert!(stays_after_deletion(&world, "m").await);
    });
}

/// C10, C12: drift that was told under `Report` is joined by no later pass and no later process; `Adopted` stays `Adopted`.
#[test]
fn reported_drift_is_never_joined() {
    for is_adopted in [false, true] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            world.foreign(0, 0, is_adopted);
            world.membership("m", 0, 0, json!({"driftPolicy": "Report"}));
            seconds(SETTLED).await;
            world.foreign(0, 0, false);
            seconds(SCAN).await;
            assert_eq!(ready(&world, "m").1, "DriftReported");
            world.restart_all();
            seconds(SCAN).await;
            world.patch("m", json!({"metadata": {"annotations": {"a": "b"}}}));
            seconds(SCAN).await;
            assert!(!is_member(&world), "{is_adopted}");
            let expected = if is_adopted { "Adopted" } else { "" };
            assert_eq!(claim(&world, "m"), expected);
        });
    }
}

/// C15: a scan began before the Join, and its answer comes after.
#[test]
fn scan_that_began_before_the_join_tells_no_drift() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("other", 0, 1, json!({}));
        seconds(SETTLED).await;
        // Only the scan reads before the next object comes.
        let reads = calls(&world, "DescribeInstances");
        add_fault(&world, "DescribeInstances", 1, &json!({"latency": "8s"}));
        while calls(&world, "DescribeInstances") == reads {
            seconds(0.01).await;
        }
        world.membership("m", 0, 0, json!({}));
        seconds(2.0 * SCAN).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        assert!(!was_drift_told(&world, "m"));
        assert_eq!(calls(&world, "JoinSecurityGroup"), 2);
    });
}

/// C18: a Leave without an answer takes effect after the Join of the next object.
#[test]
fn late_leave_of_ours_is_no_drift_of_the_next_object() {
    for policy in ["Repair", "Report"] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            fault(
                &world,
                json!({
                    "action": "LeaveSecurityGroup", "count": 1, "effectAfter": "30s", "fault": "reset",
                }),
            );
            world.delete("m");
            seconds(AT_ONCE).await;
            world.membership("next", 0, 0, json!({"driftPolicy": policy}));
            seconds(4.0 * SCAN).await;
            assert_eq!(object(&world, "m"), None, "{policy}");
            assert_eq!(ready(&world, "next").1, "Joined", "{policy}");
            assert!(is_member(&world), "{policy}");
            assert!(!was_drift_told(&world, "next"), "{policy}");
            assert!(!stays_after_deletion(&world, "next").await, "{policy}");
        });
    }
}

/// D0, D1, D3: a Join without an answer lands as late as it may, and Describe lags as much as it may.
#[test]
fn join_that_lands_last_and_is_shown_last_is_undone() {
    for killed in [false, true] {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions {
                lag: Duration::from_millis(9_900),
                ..SimOptions::default()
            });
            world.start(None);
            seconds(2.0 * SETTLED).await;
            fault(
                &world,
                json!({
                    "action": "JoinSecurityGroup", "count": 1, "effectAfter": "65s", "fault": "reset",
                }),
            );
            world.membership("m", 0, 0, json!({}));
            seconds(0.06).await;
            if killed {
                world.restart_all();
            }
            assert!(!stays_after_deletion(&world, "m").await, "{killed}");
        });
    }
}

/// D6: somebody else joins 3 s after our Leave, and the next object comes then.
#[test]
fn what_others_join_after_our_leave_is_adopted() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.delete("m");
        seconds(3.0).await;
        world.foreign(0, 0, true);
        world.membership("next", 0, 0, json!({}));
        seconds(SCAN).await;
        assert_eq!(ready(&world, "next").1, "Adopted");
        assert!(stays_after_deletion(&world, "next").await);
    });
}

/// D4a: the first Join gets no answer, the second is accepted, and the object is deleted: its Leave is accepted while the first Join may
/// still take effect. Another actor joins then, and users ask for passes. No second Leave is sent before a read counts; if that read
/// shows a member, one is.
#[test]
fn leave_beside_an_open_join_is_repeated_only_after_a_read_that_counts() {
    for (others_join, effect_after) in [(true, None), (false, Some("50s")), (false, None)] {
        in_virtual_time(|| async move {
            let world = world().await;
            let mut unanswered = json!({
                "action": "JoinSecurityGroup", "count": 1, "fault": "reset",
            });
            if let Some(after) = effect_after {
                unanswered["effectAfter"] = json!(after);
            }
            fault(&world, unanswered);
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            assert_eq!(ready(&world, "m").1, "Joined");
            assert_eq!(calls(&world, "JoinSecurityGroup"), 2);
            world.delete("m");
            seconds(AT_ONCE).await;
            assert!(!is_member(&world));
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 1);
            if others_join {
                world.foreign(0, 0, true);
            }
            for round in 0..15 {
                let asked = json!({RECONCILE_REQUESTED_ANNOTATION: round.to_string()});
                world.patch("m", json!({"metadata": {"annotations": asked}}));
                seconds(4.0).await;
                let told = format!("{others_join} {effect_after:?} {round}");
                assert!(object(&world, "m").is_some(), "{told}");
                assert_eq!(calls(&world, "LeaveSecurityGroup"), 1, "{told}");
            }
            assert_eq!(is_member(&world), others_join || effect_after.is_some());
            seconds(OVER).await;
            assert_eq!(object(&world, "m"), None);
            let is_repeated = others_join || effect_after.is_some();
            let leaves = 1 + u64::from(is_repeated);
            assert_eq!(calls(&world, "LeaveSecurityGroup"), leaves);
            assert!(!is_member(&world));
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

/// D8: others have removed what the operator joined, the object is deleted, and its read shows that. Others join at any millisecond after
/// that read; or later, while an admission policy refuses the removal of the finalizer.
#[test]
fn what_others_join_after_a_deletion_has_read_it_missing_is_theirs() {
    for (is_refused, moments) in [(false, 0..25), (true, 0..1)] {
        for millis in moments {
            in_virtual_time(|| async move {
                let world = world().await;
                world.membership("m", 0, 0, json!({}));
                seconds(SETTLED).await;
                let refusal = is_refused.then_some(("m", 422));
                world.faults.set_policy(refusal);
                let reads = calls(&world, "DescribeInstances");
                world.foreign(0, 0, false);
                world.delete("m");
                while calls(&world, "DescribeInstances") == reads {
                    seconds(0.001).await;
                    assert!(object(&world, "m").is_some(), "gone without a read");
                }
                seconds(f64::from(millis) / 1_000.0).await;
                if is_refused {
                    seconds(SETTLED).await;
                    assert!(object(&world, "m").is_some());
                }
                world.foreign(0, 0, true);
                seconds(SETTLED).await;
                world.faults.set_policy(None);
                seconds(OVER).await;
                assert_eq!(object(&world, "m"), None, "{is_refused} {millis}");
                assert!(is_member(&world), "{is_refused} {millis}");
                assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
                assert_eq!(world.monitor.violations(), [""; 0]);
            });
        }
    }
}

/// E1: both are new at once, and the cloud's reads lag.
#[test]
fn two_new_objects_of_one_edge_join_once() {
    for lag in [0, 3, 9] {
        in_virtual_time(|| async move {
            let world = lagging_world(lag).await;
            for name in ["a", "b"] {
                world.membership(name, 0, 0, json!({}));
            }
            seconds(SCAN).await;
            let mut claims = ["a", "b"].map(|name| claim(&world, name));
            claims.sort();
            assert_eq!(claims, ["Adopted", "Joined"], "{lag}");
            assert!(stays_after_deletion(&world, "a").await, "{lag}");
            assert!(!stays_after_deletion(&world, "b").await, "{lag}");
        });
    }
}

/// E2: the process is killed between the Join of one object and its record. Another object comes meanwhile, has its pass before the first
/// one and adopts. The intent of the first is recorded as joined.
#[test]
fn intent_of_a_killed_process_is_recorded_after_another_object_has_adopted() {
    for (first, second) in [("m", "other"), ("other", "m")] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            world.membership("m", 0, 0, json!({}));
            let mut waited = 0;
            while !is_member(&world) {
                seconds(0.001).await;
                waited += 1;
                assert!(waited < 1_000, "not joined");
            }
            world.kill(0);
            assert!(object(&world, "m").unwrap()["status"]["origin"].is_null());
            world.membership("other", 0, 0, json!({}));
            // The first one cannot end its pass before the other one has.
            world.refuse_status_of(Some("m"));
            world.start(None);
            let mut waited = 0;
            while claim(&world, "other") != "Adopted" {
                seconds(0.1).await;
                waited += 1;
                assert!(waited < 1_000);
            }
            assert!(object(&world, "m").unwrap()["status"]["origin"].is_null());
            world.refuse_status_of(None);
            seconds(SCAN).await;
            let record = object(&world, "m").unwrap()["status"]["origin"].clone();
            assert_eq!(record, "Joined");
            assert_eq!(claim(&world, "other"), "Adopted");
            assert!(stays_after_deletion(&world, first).await, "{first}");
            assert!(!stays_after_deletion(&world, second).await, "{second}");
            let once = ["the operator joined", "the operator left"];
            assert_eq!(journal(&world), once, "{first}");
        });
    }
}

/// E11: the successor keeps what its status says, and gets the record beside it. E15: also while it is suspended.
#[test]
fn successor_keeps_its_conditions() {
    for suspended in [false, true] {
        in_virtual_time(|| async move {
            let world = world().await;
            for name in ["m", "other"] {
                world.membership(name, 0, 0, json!({}));
                seconds(SETTLED).await;
            }
            world.patch("other", json!({"spec": {"suspend": suspended}}));
            seconds(AT_ONCE).await;
            world.delete("m");
            seconds(AT_ONCE).await;
            let other = object(&world, "other").unwrap();
            assert_eq!(other["status"]["origin"], "Joined", "{suspended}");
            assert!(condition(&other, "Ready").is_some(), "{suspended}");
            assert!(other["status"]["observedGeneration"].is_number());
        });
    }
}

/// E18: who only observes is no heir, and owns what it has joined.
#[test]
fn object_that_observes_inherits_nothing() {
    in_virtual_time(|| async {
        let world = world().await;
        for name in ["m", "other"] {
            world.membership(name, 0, 0, json!({}));
            seconds(SETTLED).await;
        }
        world.patch("other", json!({"spec": {"managementPolicy": "Observe"}}));
        seconds(AT_ONCE).await;
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "m"), None);
        assert!(!is_member(&world));
        seconds(SCAN).await;
        assert_eq!(ready(&world, "other").1, "NotAMember");
    });
}

/// E19: what was seen missing, and what others made since, is not handed on as ours.
#[test]
fn void_claim_is_not_handed_on() {
    in_virtual_time(|| async {
        let world = world().await;
        for name in ["m", "other"] {
            world.membership(name, 0, 0, json!({"driftPolicy": "Report"}));
            seconds(SETTLED).await;
        }
        world.foreign(0, 0, false);
        seconds(SCAN).await;
        world.foreign(0, 0, true);
        seconds(SCAN).await;
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "m"), None);
        assert_eq!(claim(&world, "other"), "Adopted");
        assert!(stays_after_deletion(&world, "other").await);
    });
}

/// E21: one object has an intent, and its Join was throttled. The repair for another object, which has adopted the membership, gets no
/// answer. Others make the membership, and both objects are deleted: an unknown outcome speaks for no other claim.
#[test]
fn repair_without_an_answer_speaks_for_no_other_intent() {
    in_virtual_time(|| async {
        let world = world().await;
        world.foreign(0, 0, true);
        world.membership("adopter", 0, 0, json!({}));
        seconds(SETTLED).await;
        assert_eq!(claim(&world, "adopter"), "Adopted");
        world.foreign(0, 0, false);
        let throttled = json!({"error": {"code": "Throttling.User", "status": 400}});
        add_fault(&world, "JoinSecurityGroup", 1, &throttled);
        world.membership("m", 0, 0, json!({}));
        seconds(AT_ONCE).await;
        // Its intent stays, and it waits.
        assert_eq!(calls(&world, "JoinSecurityGroup"), 1);
        assert_eq!(claim(&world, "m"), "Joined");
        world.patch("m", json!({"spec": {"suspend": true}}));
        add_fault(&world, "JoinSecurityGroup", 1, &json!("reset"));
        while calls(&world, "JoinSecurityGroup") < 2 {
            seconds(0.001).await;
            assert!(!is_member(&world));
        }
        world.foreign(0, 0, true);
        seconds(AT_ONCE).await;
        world.patch("m", json!({"spec": {"suspend": false}}));
        assert!(stays_after_deletion(&world, "m").await);
        assert_eq!(claim(&world, "adopter"), "Adopted");
        assert!(stays_after_deletion(&world, "adopter").await);
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
    });
}

/// F12: the namespace is removed by its subresource `finalize`, and its objects stay. Those count that had been recorded as joined, and
/// those that a grant still names.
#[test]
fn objects_of_a_namespace_that_is_gone_count_as_long_as_they_are_there() {
    for gone in [NAMESPACE, GUESTS] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.set_grants(&json!([{
                "name": "both", "namespaces": {"names": [NAMESPACE, GUESTS]}, "securityGroups": {"ids": ["*"]},
            }]));
            for name in ["m", "guest/c"] {
                world.membership(name, 0, 0, json!({}));
                seconds(SETTLED).await;
            }
            world.user(Verb::Delete, "namespaces", "", gone, Value::Null);
            // The API server creates no event in it any more.
            let creates: CallFilter = |call| call.verb == Verb::Create;
            world.faults.refuse_calls(creates, CallFault::Refuse(404));
            seconds(SCAN).await;
            world.delete("m");
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, "m"), None, "{gone}");
            assert!(is_member(&world), "{gone}");
            let left = world.objects();
            assert_eq!(claimed(&left[0]), "Joined", "{gone}");
            world.delete("guest/c");
            seconds(AT_ONCE).await;
            assert!(world.objects().is_empty(), "{gone}");
            assert!(!is_member(&world), "{gone}");
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
    // A grant by labels ends with the namespace. What was joined is removed all the same, and what was adopted holds nothing.
    for (first, second) in [("m", "guest/c"), ("guest/c", "m")] {
        in_virtual_time(|| async move {
            let world = world().await;
            for name in [first, second] {
                world.membership(name, 0, 0, json!({}));
                seconds(SETTLED).await;
            }
            world.user(Verb::Delete, "namespaces", "", GUESTS, Value::Null);
            seconds(SCAN).await;
            world.delete("m");
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, "m"), None);
            assert_eq!(is_member(&world), first == "guest/c");
            world.delete("guest/c");
            seconds(AT_ONCE).await;
            assert!(world.objects().is_empty(), "{first}");
            assert!(!is_member(&world), "{first}");
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

/// F13: `Observe` removes nothing, whatever was joined before; `Remove` removes what was adopted.
#[test]
fn policies_decide_over_the_record() {
    for (is_foreign, policies, stays) in [
        (false, json!({"managementPolicy": "Observe"}), true),
        (true, json!({"deletionPolicy": "Remove"}), false),
        (false, json!({"deletionPolicy": "Retain"}), true),
    ] {
        let policies = &policies;
        in_virtual_time(|| async move {
            let world = world().await;
            world.foreign(0, 0, is_foreign);
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            world.patch("m", json!({"spec": policies}));
            seconds(AT_ONCE).await;
            assert_eq!(stays_after_deletion(&world, "m").await, stays, "{policies}");
        });
    }
}

/// F14: an object that is deleted while it is suspended waits, also with `Retain`.
#[test]
fn deletion_of_a_suspended_object_waits() {
    for policy in ["RemoveIfJoined", "Retain"] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({"deletionPolicy": policy}));
            seconds(SETTLED).await;
            world.patch("m", json!({"spec": {"suspend": true}}));
            world.delete("m");
            seconds(OVER).await;
            assert!(object(&world, "m").is_some(), "{policy}");
            assert!(is_member(&world));
            world.patch("m", json!({"spec": {"suspend": false}}));
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, "m"), None, "{policy}");
            assert_eq!(is_member(&world), policy == "Retain");
        });
    }
}

/// F17: a process that has not listed every object removes nothing.
#[test]
fn deletion_waits_until_every_object_is_listed() {
    in_virtual_time(|| async {
        let mut world = world().await;
        for name in ["m", "other"] {
            world.membership(name, 0, 0, json!({}));
            seconds(SETTLED).await;
        }
        world.kill(0);
        world.delete("m");
        world
            .faults
            .delay_lists(MEMBERSHIPS, Duration::from_secs(40));
        world.start(None);
        seconds(39.0).await;
        assert!(object(&world, "m").is_some());
        seconds(SETTLED).await;
        assert_eq!(object(&world, "m"), None);
        assert_eq!(claim(&world, "other"), "Joined");
        assert!(is_member(&world));
    });
}

/// G8: an object that is made at any moment of the Leave is joined in the end, and no drift of it is told.
#[test]
fn object_made_at_the_moment_of_the_leave_is_joined_in_the_end() {
    for millis in 0..20 {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            world.delete("m");
            seconds(f64::from(millis) / 1_000.0).await;
            world.membership("next", 0, 0, json!({}));
            seconds(SCAN).await;
            assert!(is_member(&world), "{millis}");
            assert_eq!(claim(&world, "next"), "Joined", "{millis}");
            assert!(!was_drift_told(&world, "next"), "{millis}");
        });
    }
}

/// H4: a tenant strips intent and finalizer while the Join runs.
#[test]
fn join_counts_although_its_claim_is_stripped_meanwhile() {
    for effect in [json!({"latency": "5s"}), json!("reset")] {
        let effect = &effect;
        in_virtual_time(|| async move {
            let world = world().await;
            fault(
                &world,
                json!({"action": "JoinSecurityGroup", "count": 1, "effect": true, "fault": effect}),
            );
            world.membership("m", 0, 0, json!({}));
            while calls(&world, "JoinSecurityGroup") == 0 {
                seconds(0.001).await;
            }
            let stripped = json!({"annotations": {INTENT_ANNOTATION: null}, "finalizers": null});
            world.patch("m", json!({"metadata": stripped}));
            seconds(OVER).await;
            assert_eq!(claim(&world, "m"), "Joined", "{effect}");
            assert!(!stays_after_deletion(&world, "m").await, "{effect}");
        });
    }
}

/// H8: somebody applies the exported object with its intent again and again, without the admission policy. The intent has another owner
/// then, and is not taken off by what the operator's own apply leaves out. The claim ends all the same.
#[test]
fn exported_intent_that_is_applied_again_and_again_revives_no_claim() {
    for with_finalizer in [false, true] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            let stored = object(&world, "m").unwrap();
            let mut exported = json!({"apiVersion": stored["apiVersion"], "kind": stored["kind"]});
            exported["metadata"] =
                json!({"name": "m", "annotations": stored["metadata"]["annotations"]});
            exported["spec"] = stored["spec"].clone();
            if with_finalizer {
                exported["metadata"]["finalizers"] = json!([FINALIZER]);
            }
            assert!(exported["metadata"]["annotations"][INTENT_ANNOTATION].is_string());
            let again = || {
                let exported = exported.clone();
                let reply = world.user(Verb::Apply, MEMBERSHIPS, NAMESPACE, "m", exported);
                assert_eq!(reply.code, 200, "{}", reply.body);
            };
            again();
            let refused = json!({"error": {"code": "QuotaExceeded", "status": 400}});
            add_fault(&world, "JoinSecurityGroup", 1_000, &refused);
            world.foreign(0, 0, false);
            let joins = calls(&world, "JoinSecurityGroup");
            while calls(&world, "JoinSecurityGroup") == joins {
                seconds(0.1).await;
            }
            seconds(AT_ONCE).await;
            let metadata = object(&world, "m").unwrap()["metadata"].clone();
            let intent = &metadata["annotations"][INTENT_ANNOTATION];
            assert!(intent.is_null(), "{metadata}");
            assert!(metadata.get("finalizers").is_none(), "{metadata}");
            for _ in 0..10 {
                again();
                seconds(20.0).await;
            }
            assert!(!is_member(&world));
            world.foreign(0, 0, true);
            for _ in 0..10 {
                again();
                seconds(20.0).await;
            }
            assert!(stays_after_deletion(&world, "m").await, "{with_finalizer}");
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0, "{with_finalizer}");
        });
    }
}

/// H9: what the API server shows is the record, also if an administrator has edited it.
#[test]
fn record_that_an_administrator_has_edited_counts() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.overwrite_status("m", &json!({"origin": "Adopted"}));
        seconds(SCAN).await;
        assert_eq!(claim(&world, "m"), "Adopted");
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "m"), None);
        assert!(is_member(&world));
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
    });
}

/// J4: another version of the operator names the field of the record otherwise, and this one drops what it does not know. The intent
/// restores the record; where there is none, the membership was adopted.
#[test]
fn record_under_another_name_is_restored_by_the_intent() {
    for (is_foreign, is_deleted_before) in [(false, false), (false, true), (true, false)] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            world.foreign(0, 0, is_foreign);
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            let expected = claim(&world, "m");
            world.kill(0);
            let renamed = json!({"origin": null, "provenance": expected});
            world.overwrite_status("m", &renamed);
            let status = &object(&world, "m").unwrap()["status"];
            assert_eq!(status["origin"], Value::Null);
            if is_deleted_before {
                world.delete("m");
            }
            world.start(None);
            seconds(2.0 * SETTLED).await;
            if !is_deleted_before {
                let status = &object(&world, "m").unwrap()["status"];
                assert_eq!(status["origin"], expected);
            }
            assert_eq!(stays_after_deletion(&world, "m").await, is_foreign);
        });
    }
}

/// R10: a replica that lags takes the Leave of another one for drift. The object is still there, and its version is another.
#[test]
fn lagging_replica_repairs_nothing_for_an_object_that_is_going() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions {
            several: true,
            ..SimOptions::default()
        });
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.start(None);
        seconds(SETTLED).await;
        world.hold_back_events(1, Duration::from_secs(300));
        world.delete("m");
        while is_member(&world) {
            seconds(0.001).await;
        }
        world.kill(0);
        assert!(object(&world, "m").is_some(), "killed before the release");
        for _ in 0..280 {
            seconds(1.0).await;
            assert!(!is_member(&world), "joined for an object that is going");
        }
        seconds(OVER).await;
        assert_eq!(object(&world, "m"), None);
    });
}
