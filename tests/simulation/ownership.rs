//! Whose a membership is after other actors, deletions and late calls: findings that no other file shows. The journal of the cloud
//! judges.

use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION};
use serde_json::{Value, json};

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, text};
use crate::scenario::{
    add_fault, calls, claimed, lagging_world, object, ready, seconds, told, world,
};
use crate::topology::{CLUSTER, FREE_INTERFACE, KEYS, NAMESPACE, TEAMS, name_own_account};
use crate::world::{SimOptions, World};

/// Longer than a pass over one object without faults.
const AT_ONCE: f64 = 0.4;
/// Longer than what the cloud's reads may lag, and than a process that has just started trusts no read.
const SETTLED: f64 = 11.0;
/// The scan period of 60 s, and a pass.
const SCAN: f64 = 66.0;
/// Until the outcome of any call shows, and some time more.
const OVER: f64 = 120.0;

fn assert_kept(world: &World, told: &str) {
    assert!(world.is_member("i-0", "sg-a"), "{told}");
    assert_eq!(calls(world, "LeaveSecurityGroup"), 0, "{told}");
    assert_eq!(world.monitor.violations(), [""; 0], "{told}");
}

fn assert_nothing_left(world: &World, told: &str) {
    assert!(world.objects().is_empty(), "{told}: {:#?}", world.objects());
    world.monitor.check_all_left_behind();
    assert_eq!(world.monitor.violations(), [""; 0], "{told}");
}

/// C5, C11, C14, C19: others remove what the operator joined, a scan shows it, and others make it again.
#[test]
fn membership_that_others_made_again_after_a_scan_is_kept() {
    for (policies, told) in [
        (json!({"driftPolicy": "Report"}), "DriftReported"),
        (json!({"managementPolicy": "Observe"}), "NotAMember"),
    ] {
        for restarts in [false, true] {
            let policies = &policies;
            in_virtual_time(|| async move {
                let mut world = world().await;
                world.membership("m", 0, 0, json!({}));
                seconds(SETTLED).await;
                assert_eq!(ready(&world, "m").1, "Joined");
                world.patch("m", json!({"spec": policies}));
                seconds(AT_ONCE).await;
                world.foreign(0, 0, false);
                seconds(SCAN).await;
                assert_eq!(ready(&world, "m").1, told);
                world.foreign(0, 0, true);
                if restarts {
                    world.restart_all();
                    seconds(SETTLED).await;
                }
                seconds(SCAN).await;
                let back = json!({"spec": {"managementPolicy": "Manage", "driftPolicy": "Repair"}});
                world.patch("m", back);
                seconds(SETTLED).await;
                assert_eq!(ready(&world, "m").1, "Adopted");
                world.delete("m");
                seconds(AT_ONCE).await;
                assert_eq!(object(&world, "m"), None);
                assert_kept(&world, &format!("{policies} {restarts}"));
            });
        }
    }
}

/// The operator writes an intent, gets no answer and makes no Join; meanwhile others make the membership.
#[test]
fn membership_made_after_an_intent_without_an_answer_is_kept() {
    in_virtual_time(|| async {
        let world = world().await;
        // No intent of a process before this one can appear any more.
        seconds(2.0 * OVER).await;
        world.faults.lose_answers_to_claim_writes(1);
        world.membership("m", 0, 0, json!({}));
        while claimed(&object(&world, "m").unwrap()) != "Joined" {
            seconds(0.001).await;
        }
        world.foreign(0, 0, true);
        seconds(SETTLED).await;
        assert_eq!(calls(&world, "JoinSecurityGroup"), 0);
        assert_eq!(ready(&world, "m").1, "Adopted");
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "m"), None);
        assert_kept(&world, "an intent without an answer");
    });
}

/// C7, D5: what the operator has just removed is still listed when the next object of the edge comes.
#[test]
fn object_made_within_the_read_lag_of_a_deletion_joins() {
    for policies in [
        json!({}),
        json!({"driftPolicy": "Report"}),
        json!({"adoptionPolicy": "Refuse"}),
    ] {
        for pause in [0, 1, 5, 20, 40, 60, 100, 500, 1_000, 2_500, 2_990, 3_010] {
            let policies = &policies;
            in_virtual_time(|| async move {
                let world = lagging_world(3).await;
                world.membership("m", 0, 0, policies.clone());
                seconds(2.0 * SETTLED).await;
                world.delete("m");
                seconds(f64::from(pause) / 1_000.0).await;
                world.membership("next", 0, 0, policies.clone());
                seconds(2.0 * SCAN).await;
                let what = format!("{policies} after {pause} ms");
                assert_eq!(ready(&world, "next").1, "Joined", "{what}");
                assert_eq!(
                    claimed(&object(&world, "next").unwrap()),
                    "Joined",
                    "{what}"
                );
                let told = self::told(&world, "next");
                let is_drift = |reason: &String| reason.starts_with("Drift");
                assert!(!told.iter().any(is_drift), "{what}: {told:?}");
                world.delete("next");
                seconds(OVER).await;
                assert_nothing_left(&world, &what);
            });
        }
    }
}

/// Q1, D0, D1, D3: a Join without an answer takes effect when the object is being deleted, also one of a killed process.
#[test]
fn join_that_takes_effect_after_the_deletion_is_undone() {
    for late in ["1s", "20s", "50s", "65s"] {
        for killed in [false, true] {
            in_virtual_time(|| async move {
                let mut world = world().await;
                let fault = json!({
                    "action": "JoinSecurityGroup", "count": 1, "effectAfter": late,
                    "fault": {"error": {"code": "RequestTimeout"}},
                });
                world
                    .simulator
                    .add_fault(serde_json::from_value(fault).unwrap());
                world.membership("m", 0, 0, json!({}));
                seconds(0.06).await;
                world.delete("m");
                if killed {
                    world.restart_all();
                }
                seconds(2.0 * OVER).await;
                assert_nothing_left(&world, &format!("{late} {killed}"));
                assert!(!world.is_member("i-0", "sg-a"), "{late} {killed}");
            });
        }
    }
}

/// C19, Q6: a Join that is refused with a 4xx has made nothing, also if it is tried again soon, and if its code is unknown.
#[test]
fn join_that_is_refused_for_a_moment_takes_no_membership_from_others() {
    for (code, status) in [
        ("InvalidOperation.EniIsMember", 400),
        ("OperationConflict", 409),
        ("InvalidOperation.Conflict", 409),
        ("LastTokenProcessing", 403),
    ] {
        in_virtual_time(|| async move {
            let world = world().await;
            let fault = json!({
                "action": "JoinSecurityGroup", "count": 1,
                "fault": {"error": {"code": code, "status": status}},
            });
            world
                .simulator
                .add_fault(serde_json::from_value(fault).unwrap());
            world.membership("m", FREE_INTERFACE, 0, json!({}));
            seconds(0.03).await;
            world.foreign(FREE_INTERFACE, 0, true);
            seconds(OVER).await;
            assert_eq!(ready(&world, "m").1, "Adopted", "{code}");
            world.delete("m");
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, "m"), None, "{code}");
            assert!(world.is_member("eni-1", "sg-a"), "{code}");
            assert_eq!(world.monitor.violations(), [""; 0], "{code}");
        });
    }
}

/// C4, Q2, C20: the key has lost its rights, and the cloud lists nothing to it instead of refusing.
#[test]
fn deletion_waits_while_a_key_without_rights_sees_no_target() {
    for (target, id) in [(0, "i-0"), (FREE_INTERFACE, "eni-1")] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", target, 0, json!({}));
            seconds(SETTLED).await;
            let key = KEYS[0].0;
            world.cloud(json!({"set": {"deniedReads": "EmptyList"}}));
            world.cloud(json!({"deny": {"id": key, "deny": [{"action": "ecs:*"}]}}));
            world.delete("m");
            seconds(300.0).await;
            assert_eq!(
                ready(&world, "m"),
                ("False".to_owned(), "ForbiddenRAM".to_owned())
            );
            assert!(world.is_member(id, "sg-a"));
            world.cloud(json!({"allow": {"id": key}}));
            seconds(2_000.0).await;
            assert!(!world.is_member(id, "sg-a"));
            assert_nothing_left(&world, id);
        });
    }
}

/// T5: the Secret is gone, and a user writes the intent of an object by hand.
#[test]
fn intent_of_a_user_calls_nobody_with_a_key_that_was_withdrawn() {
    in_virtual_time(|| async {
        let world = world().await;
        world.foreign(0, 0, true);
        world.membership("used", 1, 0, json!({}));
        seconds(SETTLED).await;
        world.remove_secret(CLUSTER);
        seconds(SETTLED).await;
        let spec = json!({
            "region": "cn-hangzhou", "instanceID": "i-0", "securityGroupID": "sg-a", "suspend": true,
        });
        let made = json!({"metadata": {"name": "m"}, "spec": spec});
        let made = world.create(MEMBERSHIPS, NAMESPACE, made);
        let uid = text(&made.body, "/metadata/uid");
        let own = json!({"origin": "Joined", "accountUID": KEYS[0].2, "uid": uid}).to_string();
        let metadata = json!({"finalizers": [FINALIZER], "annotations": {INTENT_ANNOTATION: own}});
        world.patch("m", json!({"metadata": metadata}));
        let before = world.simulator.stats();
        world.delete("m");
        world.patch("m", json!({"spec": {"suspend": false}}));
        seconds(OVER).await;
        assert_kept(&world, "");
        let calls = |stats: &Value| stats["calls"]["DescribeInstances"].clone();
        assert_eq!(calls(&world.simulator.stats()), calls(&before));
    });
}

/// T13: an account whose own STS says that it is the same cloud account. Only who has asked the same STS counts.
#[test]
fn account_of_another_sts_holds_nothing() {
    for (sts, keeps) in [("https://sts.test", true), ("https://sts.rogue", false)] {
        in_virtual_time(|| async move {
            let world = world().await;
            let spec = json!({
                "credentials": {"secretRef": {"name": "key"}},
                "endpoints": {"ecs": "https://ecs.test", "sts": sts},
                "grants": [{"name": "all", "namespaces": {"names": [NAMESPACE]}, "securityGroups": {"ids": ["*"]}}],
            });
            let account = json!({
                "apiVersion": "security-group-operator.io/v1alpha1", "kind": "ClusterCloudAccount",
                "metadata": {"name": "second"}, "spec": spec,
            });
            world.user(Verb::Apply, "clustercloudaccounts", "", "second", account);
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            let second = json!({"accountRef": {"kind": "ClusterCloudAccount", "name": "second"}});
            world.membership("other", 0, 0, second);
            seconds(SETTLED).await;
            assert_eq!(ready(&world, "other").0, "True");
            world.delete("m");
            seconds(SETTLED).await;
            assert_eq!(object(&world, "m"), None);
            // What the other object does then, it does with its own account.
            let leaves = calls(&world, "LeaveSecurityGroup");
            assert_eq!(leaves, u64::from(!keeps), "{sts}");
        });
    }
}

/// U2: the Secret of an account is deleted and made again with the same key, as `kubectl replace --force` does it.
#[test]
fn secret_that_is_made_again_with_the_same_key_is_no_news() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        let asked = calls(&world, "GetCallerIdentity");
        let revision = object(&world, "m").unwrap()["metadata"]["resourceVersion"].clone();
        world.remove_secret(CLUSTER);
        world.write_secret(CLUSTER, 0);
        seconds(SCAN).await;
        assert_eq!(told(&world, "m"), ["Joined"]);
        assert_eq!(
            object(&world, "m").unwrap()["metadata"]["resourceVersion"],
            revision
        );
        assert!(calls(&world, "GetCallerIdentity") <= asked + 1);
    });
}

/// What is retained is others' from then on, also for an object that is created at once, and also if the Join got no answer.
#[test]
fn retained_membership_is_adopted_by_the_next_object() {
    for fault in [json!({"latency": "0s"}), json!("reset")] {
        in_virtual_time(|| async {
            let world = world().await;
            let fault =
                json!({"action": "JoinSecurityGroup", "count": 1, "effect": true, "fault": fault});
            world
                .simulator
                .add_fault(serde_json::from_value(fault).unwrap());
            world.membership("m", 0, 0, json!({"deletionPolicy": "Retain"}));
            seconds(SETTLED).await;
            assert_eq!(ready(&world, "m").1, "Joined");
            world.delete("m");
            seconds(AT_ONCE).await;
            world.membership("next", 0, 0, json!({}));
            seconds(OVER).await;
            assert_eq!(ready(&world, "next").1, "Adopted");
            world.delete("next");
            seconds(OVER).await;
            assert_kept(&world, "retained");
        });
    }
}

/// F16: the key changes to one of another cloud account before the record of a Join is stored, whatever the answer to it was, and
/// whatever becomes of the intent.
#[test]
fn join_is_recorded_with_the_cloud_account_that_it_was_made_with() {
    let unanswered =
        json!({"action": "JoinSecurityGroup", "count": 1, "effect": true, "fault": "reset"});
    for (fault, keeps_intent) in [
        (None, true),
        (None, false),
        (Some(&unanswered), true),
        (Some(&unanswered), false),
    ] {
        in_virtual_time(|| async move {
            let world = world().await;
            if let Some(fault) = fault {
                world
                    .simulator
                    .add_fault(serde_json::from_value(fault.clone()).unwrap());
            }
            world.faults.refuse_status_writes(1);
            world.membership("m", 0, 0, json!({}));
            seconds(0.06).await;
            assert!(world.is_member("i-0", "sg-a"));
            world.write_secret(CLUSTER, 2);
            if !keeps_intent {
                world.patch(
                    "m",
                    json!({"metadata": {"annotations": {INTENT_ANNOTATION: null}}}),
                );
            }
            seconds(SCAN).await;
            let told = format!("{fault:?} {keeps_intent}");
            assert_eq!(ready(&world, "m").1, "AccountChanged", "{told}");
            world.delete("m");
            seconds(SCAN).await;
            assert!(object(&world, "m").is_some(), "{told}");
            world.write_secret(CLUSTER, 0);
            seconds(2.0 * OVER).await;
            assert_eq!(object(&world, "m"), None, "{told}");
            assert!(!world.is_member("i-0", "sg-a"), "{told}");
            assert_nothing_left(&world, &told);
        });
    }
}

/// B5: the process before has just left the edge, and Describe still lists it. A read counts from when it began.
#[test]
fn read_that_began_before_it_counts_adopts_nothing() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.foreign(0, 0, true);
        world.start(None);
        seconds(5.0).await;
        add_fault(&world, "DescribeInstances", 1, &json!({"latency": "8s"}));
        world.membership("m", 0, 0, json!({}));
        // It is answered in the 14th second of the process.
        seconds(9.0).await;
        assert_eq!(claimed(&object(&world, "m").unwrap()), "");
        seconds(SETTLED).await;
        assert_eq!(ready(&world, "m").1, "Adopted");
    });
}

/// E5: an object that refuses to take over what it has no record of is no heir.
#[test]
fn object_that_refuses_and_has_no_record_is_no_heir() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.membership(
            "other",
            0,
            0,
            json!({"adoptionPolicy": "Refuse", "suspend": true}),
        );
        seconds(SETTLED).await;
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "m"), None);
        assert_eq!(claimed(&object(&world, "other").unwrap()), "");
        assert!(!world.is_member("i-0", "sg-a"));
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// E6: what the operator has joined for an object needs no grant to be held.
#[test]
fn recorded_joined_holds_without_a_grant() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("owner", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.membership("m", 0, 0, json!({"deletionPolicy": "Remove"}));
        seconds(SETTLED).await;
        assert_eq!(claimed(&object(&world, "m").unwrap()), "Adopted");
        world.grant(false);
        seconds(SETTLED).await;
        world.delete("m");
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "m"), None, "it waits for no grant");
        assert_kept(&world, "held by its owner");
        world.delete("owner");
        seconds(AT_ONCE).await;
        assert_eq!(object(&world, "owner"), None);
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

/// E4: both go at once. Neither holds the edge for the other, at any millisecond between the deletions.
#[test]
fn objects_that_are_deleted_at_once_leave_nothing() {
    for (first, second) in [
        (json!({"deletionPolicy": "Remove"}), json!({})),
        (json!({}), json!({"deletionPolicy": "Remove"})),
        (json!({}), json!({})),
    ] {
        for moment in 0..20 {
            let (first, second) = (&first, &second);
            in_virtual_time(|| async move {
                let world = world().await;
                let is_foreign = first != second;
                world.foreign(0, 0, is_foreign);
                world.membership("a", 0, 0, first.clone());
                seconds(SETTLED).await;
                world.membership("b", 0, 0, second.clone());
                seconds(SETTLED).await;
                world.delete("a");
                seconds(f64::from(moment) / 1_000.0).await;
                world.delete("b");
                seconds(SETTLED).await;
                let told = format!("{first} {second} {moment}");
                assert_nothing_left(&world, &told);
                // Where the one that says `Remove` goes first and has time, the other one still holds it.
                let may_stay = is_foreign && moment > 0 && *second == json!({});
                assert!(may_stay || !world.is_member("i-0", "sg-a"), "{told}");
            });
        }
    }
}

/// H1, H2: a tenant with a cloud account of its own names the edge of another one, and writes an intent with that one's UID.
#[test]
fn object_of_another_cloud_account_holds_nothing() {
    for is_forged in [false, true] {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions {
                own_accounts: true,
                ..SimOptions::default()
            });
            // A key of another cloud account.
            world.write_secret(TEAMS, 2);
            world.start(None);
            seconds(SETTLED).await;
            world.membership("m", 0, 0, json!({}));
            seconds(SETTLED).await;
            let mut own = json!({"suspend": true});
            name_own_account(&mut own);
            world.membership("tenant", 0, 0, own);
            if is_forged {
                let uid = object(&world, "tenant").unwrap()["metadata"]["uid"].clone();
                let ours = object(&world, "m").unwrap()["status"]["accountUID"].clone();
                let intent = json!({"origin": "Joined", "accountUID": ours, "uid": uid});
                let annotations = json!({INTENT_ANNOTATION: intent.to_string()});
                let metadata = json!({"annotations": annotations, "finalizers": [FINALIZER]});
                world.patch("tenant", json!({"metadata": metadata}));
            }
            seconds(SETTLED).await;
            world.delete("m");
            seconds(AT_ONCE).await;
            assert_eq!(object(&world, "m"), None, "{is_forged}");
            assert!(!world.is_member("i-0", "sg-a"), "{is_forged}");
        });
    }
}

/// Another actor removes the target while the operator is not there, and the first Join of the next process gets no answer.
#[test]
fn a_shared_membership_is_not_ready_while_the_repair_has_no_answer() {
    in_virtual_time(|| async {
        let mut world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(SETTLED).await;
        world.membership("sharer", 0, 0, json!({}));
        seconds(SETTLED).await;
        assert_eq!(ready(&world, "sharer").1, "Shared");
        world.kill(0);
        world.foreign(0, 0, false);
        world.start(None);
        add_fault(&world, "JoinSecurityGroup", 1, &json!("reset"));
        while calls(&world, "JoinSecurityGroup") < 2 {
            seconds(0.1).await;
        }
        seconds(2.0).await;
        assert!(!world.is_member("i-0", "sg-a"));
        for name in ["m", "sharer"] {
            let (status, reason) = ready(&world, name);
            assert_eq!((&*status, &*reason), ("False", "Retrying"), "{name}");
        }
        seconds(OVER).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        assert_eq!(ready(&world, "sharer").1, "Shared");
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}
