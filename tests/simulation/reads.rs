//! Reads that cannot be used: what they do not show is looked for again, and what nothing has shown for long is not said to be there.

use std::sync::Arc;

use security_group_operator::kubernetes::WatchScope;
use security_group_operator::telemetry::Telemetry;
use serde_json::{Value, json};

use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::regions::metrics;
use crate::scenario::{calls, claimed, journal, object, ready, seconds, world};
use crate::topology::{ACCOUNTS, CLUSTER, KEYS, NAMESPACE};
use crate::world::{SimOptions, World};

fn id(number: usize) -> String {
    format!("i-bulk{number}")
}

/// A world with `count` instances, each of which is Ready in `sg-a`; the operator's metrics.
async fn world_of(count: usize, interfaces: usize, addresses: u32) -> (World, Arc<Telemetry>) {
    let mut world = World::new(SimOptions::default());
    world.cloud(json!({"set": {"addresses": addresses, "membersPerGroup": 10_000}}));
    for number in 0..count {
        let instance =
            json!({"id": id(number), "securityGroupIds": ["sg-base"], "status": "Running"});
        world.cloud(json!({"createInstance": instance}));
        // The first interface is the primary one.
        for interface in 1..interfaces {
            let eni = format!("eni-bulk{number}x{interface}");
            world.cloud(json!({"createInterface": {"id": eni, "instanceId": id(number)}}));
        }
    }
    let telemetry = Arc::new(Telemetry::default());
    world.start_over(vec![WatchScope::All], &telemetry);
    seconds(11.0).await;
    for number in 0..count {
        let spec =
            json!({"region": "cn-hangzhou", "instanceID": id(number), "securityGroupID": "sg-a"});
        let object = json!({"metadata": {"name": id(number)}, "spec": spec});
        world.create(MEMBERSHIPS, NAMESPACE, object);
    }
    seconds(20.0).await;
    (world, telemetry)
}

/// Simulated seed 28540: each new target sorts after those of the scan that runs, and had a whole period of it for itself.
#[test]
fn new_targets_do_not_hold_up_the_scan_of_the_others() {
    in_virtual_time(|| async {
        let (world, _telemetry) = world_of(1, 1, 0).await;
        seconds(60.0).await;
        for number in 1..=6 {
            let instance =
                json!({"id": id(number), "securityGroupIds": ["sg-base"], "status": "Running"});
            world.cloud(json!({"createInstance": instance}));
            let spec = json!({"region": "cn-hangzhou", "instanceID": id(number), "securityGroupID": "sg-a"});
            let object = json!({"metadata": {"name": id(number)}, "spec": spec});
            world.create(MEMBERSHIPS, NAMESPACE, object);
            if number == 2 {
                world.cloud(json!({"leave": {"target": id(0), "securityGroupId": "sg-a"}}));
            }
            seconds(40.0).await;
        }
        assert!(world.is_member(&id(0), "sg-a"), "four scans later");
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// The row of an instance with 8 interfaces of 30 addresses has 16 KiB: a hundred do not fit into 1 MiB.
#[test]
fn drift_is_repaired_on_instances_with_many_addresses() {
    in_virtual_time(|| async {
        let (world, _) = world_of(100, 8, 30).await;
        for number in 0..100 {
            assert_eq!(ready(&world, &id(number)).1, "Joined", "{number}");
        }
        let mut before = calls(&world, "DescribeInstances");
        for number in 0..100 {
            world.cloud(json!({"leave": {"target": id(number), "securityGroupId": "sg-a"}}));
        }
        seconds(130.0).await;
        for number in 0..100 {
            assert!(world.is_member(&id(number), "sg-a"), "{number}");
        }
        assert_eq!(world.monitor.violations(), Vec::<String>::new());
        seconds(10.0).await;
        before = calls(&world, "DescribeInstances") - before;
        assert!(before <= 10, "{before} calls");
    });
}

/// The key may not read instances any more.
fn deny_reads(world: &World, denied: bool) {
    let key = KEYS[0].0;
    world.cloud(if denied {
        json!({"deny": {"id": key, "deny": [{"action": "ecs:DescribeInstances"}]}})
    } else {
        json!({"allow": {"id": key}})
    });
}

fn account(world: &World, type_: &str) -> (String, String) {
    let account = &ACCOUNTS[CLUSTER];
    let object = world.server.object(account.plural, "", account.name);
    let object = object.unwrap();
    let condition = condition(&object, type_).unwrap();
    (text(condition, "/status"), text(condition, "/reason"))
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

fn say_all(world: &World, count: usize, expected: &(String, String)) {
    for number in 0..count {
        assert_eq!(ready(world, &id(number)), *expected, "{number}");
    }
}

async fn unread_targets(telemetry: &Arc<Telemetry>) -> String {
    let text = metrics(telemetry).await;
    let name = "security_group_operator_targets_not_observed{account=\"default\"} ";
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap_or_default().trim_end_matches(".0").to_owned()
}

/// Fails each DescribeInstances from now on.
fn fail_reads(world: &World, fault: &Value) {
    let fault = json!({"action": "DescribeInstances", "fault": fault});
    world
        .simulator
        .add_fault(serde_json::from_value(fault).unwrap());
}

fn error(code: &str) -> Value {
    json!({"error": {"code": code}})
}

#[test]
fn refused_read_makes_its_objects_not_ready_at_once_and_ends_by_itself() {
    in_virtual_time(|| async {
        let (world, telemetry) = world_of(3, 1, 1).await;
        deny_reads(&world, true);
        seconds(75.0).await;
        say_all(&world, 3, &pair("False", "ForbiddenRAM"));
        let object = object(&world, &id(0)).unwrap();
        assert_eq!(text(&object, "/status/lastError/code"), "Forbidden.RAM");
        assert_eq!(
            text(&object, "/status/lastError/action"),
            "DescribeInstances"
        );
        assert_eq!(condition(&object, "Stalled").unwrap()["status"], "True");
        let effects = world.monitor.effects();
        seconds(240.0).await;
        assert_eq!(unread_targets(&telemetry).await, "3");
        assert_eq!(account(&world, "Reachable"), pair("False", "NotObserved"));
        assert_eq!(account(&world, "Ready").0, "True");
        // The account's status and its event.
        assert!(world.monitor.effects() - effects <= 2, "told once");
        deny_reads(&world, false);
        seconds(75.0).await;
        say_all(&world, 3, &pair("True", "Joined"));
        seconds(120.0).await;
        assert_eq!(unread_targets(&telemetry).await, "0");
        assert_eq!(account(&world, "Reachable"), pair("True", "Answering"));
        assert_eq!(world.monitor.violations(), Vec::<String>::new());
    });
}

/// One object names an ID that the cloud takes for none, and says so. It says nothing of the account.
#[test]
fn wrong_id_makes_no_account_unreachable() {
    in_virtual_time(|| async {
        let (world, telemetry) = world_of(2, 1, 1).await;
        let fault = json!({
            "action": "DescribeInstances", "target": "i-wrong",
            "fault": {"error": {"code": "InvalidInstanceId.Malformed", "status": 400}},
        });
        let fault = serde_json::from_value(fault).unwrap();
        world.simulator.add_fault(fault);
        let spec =
            json!({"region": "cn-hangzhou", "instanceID": "i-wrong", "securityGroupID": "sg-a"});
        let object = json!({"metadata": {"name": "wrong"}, "spec": spec});
        world.create(MEMBERSHIPS, NAMESPACE, object);
        seconds(500.0).await;
        let wrong = pair("False", "InvalidInstanceIdMalformed");
        assert_eq!(ready(&world, "wrong"), wrong);
        assert_eq!(unread_targets(&telemetry).await, "0");
        assert_eq!(account(&world, "Reachable"), pair("True", "Answering"));
    });
}

#[test]
fn reads_that_fail_for_ten_periods_make_ready_unknown_and_end_by_themselves() {
    for fault in [
        error("InternalError"),
        json!("reset"),
        json!({"throttle": {"retryAfter": "2s"}}),
        json!({"malformed": "html"}),
    ] {
        in_virtual_time(move || async move {
            let (world, telemetry) = world_of(3, 1, 1).await;
            fail_reads(&world, &fault);
            seconds(500.0).await;
            say_all(&world, 3, &pair("True", "Joined"));
            assert_eq!(unread_targets(&telemetry).await, "3", "{fault}");
            assert_eq!(account(&world, "Reachable").0, "False", "{fault}");
            seconds(240.0).await;
            say_all(&world, 3, &pair("Unknown", "NotObserved"));
            let object = object(&world, &id(0)).unwrap();
            assert_eq!(text(&object, "/status/origin"), "Joined");
            let message = text(condition(&object, "Ready").unwrap(), "/message");
            assert!(
                message.starts_with("i-bulk0 has not been read for 10m: "),
                "{message}"
            );
            let effects = world.monitor.effects();
            seconds(1_800.0).await;
            assert_eq!(world.monitor.effects(), effects, "told once: {fault}");
            world.simulator.set_faults(Vec::new());
            // The next scan, after the region has been probed.
            seconds(140.0).await;
            say_all(&world, 3, &pair("True", "Joined"));
            seconds(120.0).await;
            assert_eq!(unread_targets(&telemetry).await, "0");
            assert_eq!(account(&world, "Reachable"), pair("True", "Answering"));
        });
    }
}

/// The next process reads nothing at all.
#[test]
fn restart_does_not_keep_what_cannot_be_read_ready_for_ever() {
    in_virtual_time(|| async {
        let (mut world, _) = world_of(3, 1, 1).await;
        fail_reads(&world, &error("InternalError"));
        world.restart_all();
        seconds(500.0).await;
        say_all(&world, 3, &pair("True", "Joined"));
        seconds(240.0).await;
        say_all(&world, 3, &pair("Unknown", "NotObserved"));
        world.restart_all();
        seconds(60.0).await;
        say_all(&world, 3, &pair("Unknown", "NotObserved"));
        world.simulator.set_faults(Vec::new());
        seconds(400.0).await;
        say_all(&world, 3, &pair("True", "Joined"));
    });
}

/// STS fails, and no pass may use the account.
#[test]
fn unusable_account_does_not_keep_its_objects_ready_for_ever() {
    in_virtual_time(|| async {
        let (mut world, _) = world_of(3, 1, 1).await;
        for action in ["GetCallerIdentity", "DescribeInstances"] {
            let fault = json!({"action": action, "fault": error("InternalError")});
            world
                .simulator
                .add_fault(serde_json::from_value(fault).unwrap());
        }
        world.restart_all();
        seconds(500.0).await;
        say_all(&world, 3, &pair("True", "Joined"));
        seconds(240.0).await;
        say_all(&world, 3, &pair("Unknown", "NotObserved"));
        world.simulator.set_faults(Vec::new());
        seconds(400.0).await;
        say_all(&world, 3, &pair("True", "Joined"));
    });
}

#[test]
fn statuses_of_a_whole_region_are_written_at_a_bounded_pace() {
    in_virtual_time(|| async {
        let (world, _) = world_of(600, 1, 1).await;
        say_all(&world, 600, &pair("True", "Joined"));
        fail_reads(&world, &json!("reset"));
        let mut writes = Vec::new();
        for _ in 0..800 {
            let before = world.monitor.effects();
            seconds(1.0).await;
            writes.push(world.monitor.effects() - before);
        }
        say_all(&world, 600, &pair("Unknown", "NotObserved"));
        // A status each; that they are not Ready any more is no event. Those of one read come together.
        let most = writes.iter().max().unwrap();
        assert!(*most <= 110, "{most} writes in a second");
        let most = writes
            .windows(5)
            .map(|seconds| seconds.iter().sum::<usize>());
        let most = most.max().unwrap();
        assert!(most <= 5 * 60, "{most} writes in 5 s");
    });
}

/// C14, T14 of the findings: the primary interface of an instance has the groups of its instance. A membership of the interface would be a
/// second name for the same membership, and the deletion of one would take it from the other. It is refused in any order, before any claim,
/// also where others have made the membership.
#[test]
fn primary_interface_is_refused_before_any_claim() {
    for order in [["instance", "interface"], ["interface", "instance"]] {
        for (is_foreign, policy) in [
            (false, "RemoveIfJoined"),
            (false, "Remove"),
            (true, "Remove"),
        ] {
            in_virtual_time(move || async move {
                let world = world().await;
                world.foreign(0, 0, is_foreign);
                for name in order {
                    create_one_of_two_names(&world, name, policy);
                    seconds(20.0).await;
                }
                let told = if is_foreign { "Adopted" } else { "Joined" };
                assert_eq!(ready(&world, "instance"), pair("True", told));
                assert_interface_is_refused(&world);
                // Whichever goes first.
                for name in order {
                    world.delete(name);
                    seconds(70.0).await;
                    assert!(object(&world, name).is_none());
                    let is_held = name == "interface" && order[0] == name;
                    assert_eq!(
                        world.is_member("i-0", "sg-a"),
                        is_held,
                        "{order:?} {policy}"
                    );
                }
                let changes = if is_foreign {
                    ["another actor joined", "the operator left"]
                } else {
                    ["the operator joined", "the operator left"]
                };
                assert_eq!(journal(&world), changes, "{order:?} {policy}");
                let calls =
                    ["JoinSecurityGroup", "LeaveSecurityGroup"].map(|action| calls(&world, action));
                assert_eq!(calls, [u64::from(!is_foreign), 1]);
                assert_eq!(world.monitor.violations(), Vec::<String>::new());
            });
        }
    }
}

/// Creates the object `instance` or `interface`: both name what i-0 is a member of.
fn create_one_of_two_names(world: &World, name: &str, policy: &str) {
    let (field, id) = if name == "instance" {
        ("instanceID", "i-0")
    } else {
        ("networkInterfaceID", "eni-primary0")
    };
    let spec = json!({
        "region": "cn-hangzhou", (field): id, "securityGroupID": "sg-a", "deletionPolicy": policy,
    });
    let object = json!({"metadata": {"name": name}, "spec": spec});
    world.create(MEMBERSHIPS, NAMESPACE, object);
}

/// No version of the object `interface` has ever had a finalizer, an intent or a record.
fn assert_interface_is_refused(world: &World) {
    let refused = pair("False", "InvalidOperationInvalidEniType");
    assert_eq!(ready(world, "interface"), refused);
    let interface = object(world, "interface").unwrap();
    let message = text(condition(&interface, "Ready").unwrap(), "/message");
    assert!(message.contains("set spec.instanceID instead"), "{message}");
    assert_eq!(text(&interface, "/status/lastError/class"), "Invalid");
    let state = world.server.state();
    let is_version = |object: &Value| {
        object["kind"] == "SecurityGroupMembership" && text(object, "/metadata/name") == "interface"
    };
    for entry in state.log.iter().filter(|entry| is_version(&entry.object)) {
        assert_eq!(claimed(&entry.object), "");
        let metadata = &entry.object["metadata"];
        assert!(metadata.get("finalizers").is_none(), "{metadata}");
    }
}

#[test]
fn interface_of_another_service_is_refused_before_any_claim() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"createInterface": {"id": "eni-nat", "serviceManaged": true, "securityGroupIds": ["sg-base"]}}));
        let spec = json!({"region": "cn-hangzhou", "networkInterfaceID": "eni-nat", "securityGroupID": "sg-a"});
        for (name, policy) in [("manage", "Manage"), ("observe", "Observe")] {
            let mut spec = spec.clone();
            spec["managementPolicy"] = json!(policy);
            let object = json!({"metadata": {"name": name}, "spec": spec});
            world.create(MEMBERSHIPS, NAMESPACE, object);
        }
        seconds(20.0).await;
        let refused = pair("False", "InvalidOperationEniServiceManaged");
        assert_eq!(ready(&world, "manage"), refused);
        assert_eq!(ready(&world, "observe"), pair("False", "NotAMember"));
        assert_eq!(calls(&world, "JoinSecurityGroup"), 0);
    });
}

/// A code that no version knows yet.
#[test]
fn unknown_refusal_is_stalled_after_half_an_hour() {
    in_virtual_time(|| async {
        let mut world = world().await;
        let unknown = json!({"error": {"code": "Newly.Invented", "status": 400}});
        let fault = json!({"action": "JoinSecurityGroup", "fault": unknown});
        world
            .simulator
            .add_fault(serde_json::from_value(fault).unwrap());
        world.membership("a", 0, 0, json!({}));
        seconds(1_000.0).await;
        assert_eq!(ready(&world, "a"), pair("False", "Retrying"));
        // The time survives a restart.
        world.restart_all();
        seconds(600.0).await;
        assert_eq!(ready(&world, "a"), pair("False", "Retrying"));
        seconds(600.0).await;
        assert_eq!(ready(&world, "a"), pair("False", "NewlyInvented"));
        let stalled = object(&world, "a").unwrap();
        assert_eq!(condition(&stalled, "Stalled").unwrap()["status"], "True");
        world.restart_all();
        seconds(400.0).await;
        assert_eq!(ready(&world, "a"), pair("False", "NewlyInvented"));
        world.simulator.set_faults(Vec::new());
        seconds(400.0).await;
        assert_eq!(ready(&world, "a"), pair("True", "Joined"));
    });
}

/// The rule of the monitor that every schedule is judged by: here nobody is left who reads.
#[test]
fn ready_object_of_whose_target_nobody_asks_is_found() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("a", 0, 0, json!({}));
        seconds(11.0).await;
        assert_eq!(ready(&world, "a"), pair("True", "Joined"));
        world.kill(0);
        world.foreign(0, 0, false);
        seconds(160.0).await;
        assert_eq!(world.monitor.violations(), [""; 0]);
        seconds(1.0).await;
        let told = "Ready: a is Ready beside a missing edge, 161s after the cloud was asked last about its target";
        assert_eq!(world.monitor.violations(), [told]);
    });
}
