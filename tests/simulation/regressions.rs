//! What the search has found, each as a small scenario of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::link::fault;
use crate::monitor::{MEMBERSHIPS, condition};
use crate::scenario::{add_fault, object, ready, seconds, world};
use crate::topology::{CLUSTER, NAMESPACE};
use crate::world::{SimOptions, World};
use security_group_operator::simulator::faults::{ErrorFault, Fault, Kind};

#[test]
fn status_write_conflict_is_retried() {
    in_virtual_time(|| async {
        let world = world().await;
        world.faults.refuse_status_writes(1);
        world.membership("m", 0, 0, json!({}));
        seconds(10.0).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn status_is_not_written_to_a_recreated_object() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.foreign(0, 0, true);
        world.start(None);
        seconds(1.0).await;
        // Neither has a finalizer, so the first is gone while its pass still asks the cloud.
        world.membership("m", 0, 0, json!({"managementPolicy": "Observe"}));
        seconds(0.005).await;
        world.delete("m");
        world.membership("m", 1, 0, json!({"managementPolicy": "Observe"}));
        for _ in 0..1_000 {
            seconds(0.002).await;
            assert_ne!(ready(&world, "m").0, "True", "i-1 was never a member");
        }
        seconds(10.0).await;
        assert_eq!(ready(&world, "m").1, "NotAMember");
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

#[test]
fn release_conflict_is_retried() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(10.0).await;
        world.faults.refuse_claim_writes(1);
        world.delete("m");
        seconds(10.0).await;
        assert!(world.objects().is_empty(), "{:#?}", world.objects());
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

#[test]
fn target_of_a_deleted_object_is_not_read_again() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(10.0).await;
        world.delete("m");
        seconds(10.0).await;
        world.simulator.reset_stats();
        let nothing = world.simulator.stats();
        seconds(600.0).await;
        assert_eq!(world.simulator.stats(), nothing);
    });
}

/// The watch shows that an object has gone before the answer to our last write of it comes.
#[test]
fn object_deleted_during_status_write_holds_no_edge() {
    for millis in 0..60 {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions::default());
            world.faults.slow_down_api(20);
            world.cloud(json!({"setStatus": {"id": "i-0", "status": "Starting"}}));
            world.start(None);
            seconds(1.0).await;
            world.membership("first", 0, 0, json!({}));
            seconds(f64::from(millis) / 1_000.0).await;
            world.delete("first");
            world.cloud(json!({"setStatus": {"id": "i-0", "status": "Running"}}));
            world.membership("second", 0, 0, json!({}));
            seconds(60.0).await;
            assert_eq!(ready(&world, "second").1, "Joined");
            world.delete("second");
            seconds(10.0).await;
            assert!(!world.is_member("i-0", "sg-a"), "gone after {millis} ms");
        });
    }
}

#[test]
fn check_of_a_deleted_account_is_not_reused() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start(None);
        // STS has been asked and has not answered yet.
        seconds(0.012).await;
        world.account(CLUSTER, false);
        seconds(1.0).await;
        world.membership("m", 0, 0, json!({}));
        seconds(1.0).await;
        assert_eq!(ready(&world, "m").1, "AccountNotFound");
        world.account(CLUSTER, true);
        seconds(10.0).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn recreated_object_of_the_same_name_is_reconciled() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({"managementPolicy": "Observe"}));
        seconds(10.0).await;
        // Without a finalizer it is gone at once, and the next one has generation 1 as well.
        world.delete("m");
        seconds(10.0).await;
        world.membership("m", 0, 0, json!({"managementPolicy": "Observe"}));
        seconds(10.0).await;
        assert_eq!(ready(&world, "m").1, "NotAMember");
    });
}

#[test]
fn no_task_outlives_the_operator() {
    in_virtual_time(|| async {
        let tasks = tokio::runtime::Handle::current().metrics();
        let mut world = World::new(SimOptions::default());
        assert_eq!(tasks.num_alive_tasks(), 0);
        world.start_until(None, seconds(30.0));
        world.membership("m", 0, 0, json!({}));
        seconds(29.0).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
        assert!(tasks.num_alive_tasks() > 0);
        seconds(5.0).await;
        assert_eq!(tasks.num_alive_tasks(), 0);
    });
}

#[test]
fn policy_change_during_a_reconcile_is_not_yet_observed() {
    for milliseconds in 1..80 {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions::default());
            // Adopted: after the claim, whose answer shows the new generation, the cloud is not asked again.
            world.foreign(0, 0, true);
            world.start(None);
            seconds(1.0).await;
            world.membership("m", 0, 0, json!({}));
            seconds(f64::from(milliseconds) / 1000.0).await;
            world.patch("m", json!({"spec": {"deletionPolicy": "Retain"}}));
            seconds(12.0).await;
            assert_eq!(
                ready(&world, "m"),
                ("True".to_owned(), "Adopted".to_owned())
            );
            let object = world.server.object(MEMBERSHIPS, NAMESPACE, "m").unwrap();
            assert_eq!(object["status"]["observedGeneration"], 2);
            // I4: Ready for a generation only after an answer of the cloud to a call that began when it was there.
            assert_eq!(world.monitor.violations(), [""; 0], "{milliseconds} ms");
        });
    }
}

/// D7.
#[test]
fn forbidden_leave_and_stale_read_keep_the_finalizer() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions {
            lag: Duration::from_secs(4),
            ..SimOptions::default()
        });
        world.start(None);
        seconds(1.0).await;
        world.membership("m", 0, 0, json!({}));
        seconds(0.1).await;
        assert!(world.is_member("i-0", "sg-a"));
        let forbidden = Kind::Error(ErrorFault {
            code: "Forbidden.RAM".to_owned(),
            status: Some(403),
            message: None,
        });
        world.simulator.add_fault(Fault {
            action: Some("LeaveSecurityGroup".to_owned()),
            ..fault(forbidden, false)
        });
        world.delete("m");
        seconds(0.5).await;
        assert_eq!(world.objects().len(), 1, "Leave was refused: it is kept");
        seconds(400.0).await;
        assert!(world.objects().is_empty(), "{:#?}", world.objects());
        assert!(!world.is_member("i-0", "sg-a"));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

#[test]
fn wrong_status_is_corrected_after_watch_lag() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        seconds(20.0).await;
        world.hold_back_events(0, Duration::from_secs(40));
        world.grant(false);
        seconds(10.0).await;
        assert_eq!(ready(&world, "m").1, "NotGranted");
        // The pass compares with the Ready that it still sees, and has nothing to say.
        world.grant(true);
        seconds(80.0).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn stale_watch_after_claim_does_not_turn_joined_into_adopted() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(0.001).await;
        world.hold_back_events(0, Duration::from_secs(60));
        seconds(1.0).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        // Asks for a pass, which sees an object without a claim for as long as it waits.
        let label = json!({"metadata": {"labels": {"tier": "front"}}});
        world.user(Verb::Merge, "namespaces", "", NAMESPACE, label);
        seconds(30.0).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        seconds(60.0).await;
        world.delete("m");
        seconds(10.0).await;
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

/// R10.
#[test]
fn stale_operator_does_not_rejoin_a_left_edge() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions {
            several: true,
            ..SimOptions::default()
        });
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        seconds(10.0).await;
        world.start(None);
        seconds(10.0).await;
        assert!(world.is_member("i-0", "sg-a"));
        world.hold_back_events(1, Duration::from_secs(300));
        world.delete("m");
        for _ in 0..400 {
            seconds(1.0).await;
            assert!(!world.is_member("i-0", "sg-a"), "nobody's edge");
        }
        assert!(world.objects().is_empty());
    });
}

#[test]
fn foreign_status_write_is_corrected() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        // Before the first scan: our own status is not taken for somebody else's, and asks for no pass.
        seconds(11.9).await;
        let asked = world.simulator.stats();
        assert_eq!(asked["calls"]["DescribeInstances"], json!({"OK": 1}));
        seconds(18.0).await;
        let right = world.server.object(MEMBERSHIPS, NAMESPACE, "m").unwrap()["status"].clone();
        for wrong in [
            json!({"conditions": [{
                "type": "Ready", "status": "False", "reason": "Because", "message": "I say so",
                "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]}),
            json!({"conditions": []}),
        ] {
            world.overwrite_status("m", &wrong);
            seconds(20.0).await;
            assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
        }
        let now = world.server.object(MEMBERSHIPS, NAMESPACE, "m").unwrap()["status"].clone();
        assert_eq!(now["origin"], right["origin"]);
    });
}

#[test]
fn foreign_status_write_missed_by_the_watch_is_corrected() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(10.0).await;
        world.faults.lose_events(MEMBERSHIPS, 1);
        world.overwrite_status("m", &json!({"conditions": []}));
        seconds(20.0).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn refused_adoption_ends_when_a_sibling_adopts() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.foreign(0, 0, true);
        world.start(None);
        seconds(1.0).await;
        world.membership("first", 0, 0, json!({"adoptionPolicy": "Refuse"}));
        seconds(12.0).await;
        assert_eq!(ready(&world, "first").1, "AdoptionRefused");
        world.membership("second", 0, 0, json!({}));
        seconds(10.0).await;
        assert_eq!(ready(&world, "second").1, "Adopted");
        // In whatever order they come, and whether or not the operator is restarted in between.
        assert_eq!(ready(&world, "first").1, "Adopted");
    });
}

#[test]
fn drift_under_report_policy_is_written_once() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start(None);
        world.membership("m", 0, 0, json!({"driftPolicy": "Report"}));
        seconds(20.0).await;
        world.foreign(0, 0, false);
        seconds(100.0).await;
        assert_eq!(ready(&world, "m").1, "DriftReported");
        let effects = world.monitor.effects();
        for moment in 0..3 {
            let asks =
                json!({"security-group-operator.io/reconcile-requested-at": moment.to_string()});
            world.patch("m", json!({"metadata": {"annotations": asks}}));
            seconds(100.0).await;
        }
        // The value of each request is recorded in lastHandledReconcileAt, and nothing else is written.
        assert_eq!(world.monitor.effects(), effects + 3);
    });
}

#[test]
fn conditions_of_others_cost_no_look() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(30.0).await;
        let stored = object(&world, "m").unwrap();
        let mut looks = Vec::new();
        for writes in [false, true] {
            world.simulator.reset_stats();
            for moment in 0..60 {
                seconds(10.0).await;
                if writes {
                    let mut status = stored["status"].clone();
                    let heartbeat = json!({
                        "type": "example.com/Heartbeat", "status": "True", "reason": "Beats",
                        "message": moment.to_string(), "lastTransitionTime": "2026-01-01T00:00:00Z",
                    });
                    status["conditions"].as_array_mut().unwrap().push(heartbeat);
                    world.overwrite_status("m", &status);
                }
            }
            let stats = world.simulator.stats();
            looks.push(stats["calls"]["DescribeInstances"]["OK"].as_u64().unwrap());
        }
        assert_eq!(looks[0], looks[1], "scans only");
    });
}

/// The second object goes by a description from before the Join of the first: it waits for a call of its own.
#[test]
fn description_of_a_waiting_object_takes_no_claim_from_another() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"set": {"limits": {"JoinSecurityGroup": 1}}}));
        world.membership("before", 1, 0, json!({}));
        seconds(1.0).await;
        for name in ["first", "second"] {
            world.membership(name, 0, 0, json!({}));
            seconds(1.0).await;
        }
        seconds(300.0).await;
        assert_eq!(ready(&world, "first").1, "Joined");
        world.delete("first");
        world.delete("second");
        seconds(120.0).await;
        assert!(!world.is_member("i-0", "sg-a"));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// A restored backup: what the process knows of later versions of an object counts no more.
#[test]
fn object_of_a_store_that_was_put_back_is_met_anew() {
    for later in [
        json!({"spec": {"driftPolicy": "Report"}}),
        json!({"spec": {"managementPolicy": "Observe"}}),
        json!({"spec": {"suspend": true}}),
        json!({"spec": {"deletionPolicy": "Retain"}}),
    ] {
        // The later spec, and its status if that has changed.
        let met = [1, 2, 3].map(|revisions| {
            let (later, met) = (later.clone(), Arc::new(AtomicBool::new(false)));
            let is_met = Arc::clone(&met);
            in_virtual_time(|| async move {
                let met = repaired_after_put_back(&later, revisions).await;
                is_met.store(met, Ordering::Relaxed);
            });
            met.load(Ordering::Relaxed)
        });
        assert!(
            met.contains(&true),
            "{later}: never put back to the first spec"
        );
    }
}

/// Whether the store was put back to the first generation of the object.
async fn repaired_after_put_back(later: &Value, revisions: u64) -> bool {
    let world = world().await;
    world.membership("m", 0, 0, json!({}));
    seconds(30.0).await;
    assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    world.patch("m", later.clone());
    seconds(30.0).await;
    world.put_back(revisions);
    let there = object(&world, "m");
    let is_first = |object: Arc<Value>| {
        object["metadata"]["generation"] == 1 && object["status"]["origin"] == "Joined"
    };
    if !there.is_some_and(is_first) {
        return false;
    }
    seconds(30.0).await;
    world.foreign(0, 0, false);
    seconds(180.0).await;
    assert!(world.is_member("i-0", "sg-a"), "{later}: not repaired");
    assert_eq!(ready(&world, "m").0, "True", "{later}");
    world.delete("m");
    seconds(30.0).await;
    assert!(!world.is_member("i-0", "sg-a"), "{later}: not removed");
    assert_eq!(world.monitor.violations(), [""; 0], "{later}");
    true
}

/// Simulated wide seed 216466: the watch is silent while the operator releases the object, and the store is put back to the moment before.
/// The object has the version that this process knows.
#[test]
fn object_that_was_released_in_silence_and_is_put_back_is_released_again() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(30.0).await;
        add_fault(
            &world,
            "LeaveSecurityGroup",
            1,
            &json!({"error": {"code": "InternalError"}}),
        );
        world.delete("m");
        seconds(0.1).await;
        world.silence(MEMBERSHIPS, Duration::from_secs(100), false);
        let before_release = world.server.state().revision;
        seconds(10.0).await;
        assert_eq!(object(&world, "m"), None);
        let newest = world.server.state().revision;
        world.put_back(newest - before_release);
        let before = object(&world, "m").expect("the store was put back to before the release");
        assert!(before["metadata"]["deletionTimestamp"].is_string());
        assert!(!world.is_member("i-0", "sg-a"));
        seconds(170.0).await;
        assert_eq!(object(&world, "m"), None);
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// The store is put back to before an account was deleted: it is the very same account to the API server.
#[test]
fn account_that_an_older_store_brings_back_is_used_again() {
    in_virtual_time(|| async {
        let world = world().await;
        seconds(70.0).await;
        let before = world.server.state().revision;
        world.account(CLUSTER, false);
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        assert_eq!(ready(&world, "m").1, "AccountNotFound");
        let newest = world.server.state().revision;
        world.put_back(newest - before);
        seconds(90.0).await;
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
        let account = world.server.object("clustercloudaccounts", "", "default");
        let ready = account.and_then(|account| condition(&account, "Ready").cloned());
        assert!(ready.is_some_and(|ready| ready["status"] == "True"));
    });
}

/// What a pass reads of a target, the other objects of the target know: what others make again is not theirs.
#[test]
fn what_a_pass_has_seen_gone_is_not_the_object_s_that_had_joined_it() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("joins", 0, 0, json!({"driftPolicy": "Report"}));
        seconds(15.0).await;
        world.foreign(0, 0, false);
        seconds(1.0).await;
        // Another group of the same target. The next scan comes later.
        world.membership(
            "observes",
            0,
            1,
            json!({"managementPolicy": "Observe", "adoptionPolicy": "Adopt"}),
        );
        seconds(5.0).await;
        assert_eq!(ready(&world, "joins").1, "DriftReported");
        world.foreign(0, 0, true);
        seconds(130.0).await;
        world.delete("joins");
        seconds(30.0).await;
        assert!(world.is_member("i-0", "sg-a"), "others made it");
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// D7: the Leave is refused with 403 after others have removed the membership. A read that counts tells so at once.
#[test]
fn forbidden_leave_of_what_others_have_removed_is_no_obstacle() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        // The next scan comes later.
        seconds(45.0).await;
        add_fault(&world, "LeaveSecurityGroup", 1, &json!({"latency": "5s"}));
        let forbidden = json!({"error": {"code": "Forbidden.RAM", "status": 403}});
        add_fault(&world, "LeaveSecurityGroup", 1, &forbidden);
        world.delete("m");
        seconds(1.0).await;
        world.foreign(0, 0, false);
        seconds(5.0).await;
        assert_eq!(object(&world, "m"), None);
    });
}
