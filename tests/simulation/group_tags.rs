//! Grants by the tags of the group: what they let a namespace do, and what they cost. The statistics of the cloud count the calls.

use serde_json::{Value, json};

use crate::in_virtual_time;
use crate::monitor::{condition, text};
use crate::scenario::{add_fault, calls, message, object, ready, seconds, told, world};
use crate::topology::{GUESTS, NAMESPACE, OPERATOR_NAMESPACE, TARGETS};
use crate::world::World;

const READ: &str = "DescribeSecurityGroups";
const JOIN: &str = "JoinSecurityGroup";
/// One scan period, and a little.
const A_SCAN: f64 = 75.0;

/// A grant of the groups with a tag.
fn by_tags(namespace: &str) -> Value {
    json!({"name": namespace, "namespaces": {"names": [namespace]}, "securityGroups": {"tags": {"team": "a"}}})
}

fn by_ids(namespace: &str, ids: &[&str]) -> Value {
    json!({"name": "by-ids", "namespaces": {"names": [namespace]}, "securityGroups": {"ids": ids}})
}

fn tag(world: &World, group: &str, tags: &Value) {
    world.cloud(json!({"setTags": {"id": group, "tags": tags}}));
}

fn reason(world: &World, name: &str) -> String {
    ready(world, name).1
}

/// The reason of an object of another namespace.
fn reason_of_guest(world: &World, name: &str) -> String {
    let object = world
        .server
        .object("securitygroupmemberships", GUESTS, name);
    text(condition(&object.unwrap(), "Ready").unwrap(), "/reason")
}

#[test]
fn group_with_the_tags_of_a_grant_is_joined_and_no_other() {
    in_virtual_time(|| async {
        let world = world().await;
        tag(&world, "sg-a", &json!({"team": "a", "tier": "web"}));
        tag(&world, "sg-b", &json!({"team": "b", "Team": "a"}));
        world.set_grants(&json!([by_tags(NAMESPACE)]));
        world.membership("m", 0, 0, json!({}));
        world.membership("b", 0, 1, json!({}));
        world.membership("absent", 1, 0, json!({"securityGroupID": "sg-absent"}));
        seconds(5.0).await;
        assert_eq!(reason(&world, "m"), "Joined");
        assert_eq!(reason(&world, "b"), "NotGranted");
        assert_eq!(reason(&world, "absent"), "NotGranted");
        // The sentence leads on, and does not tell whether there is such a group.
        let said = message(&world, "b");
        assert!(said.contains("ask the account's administrator"), "{said}");
        let of_absent = message(&world, "absent").replace("sg-absent", "sg-b");
        assert_eq!(said, of_absent);
        assert_eq!(calls(&world, JOIN), 1);
        assert_eq!(told(&world, "m"), ["Joined"]);
        // Three groups, one call; and once more per scan period, whatever the number of objects.
        assert!(calls(&world, READ) <= 2, "{}", calls(&world, READ));
        world.simulator.reset_stats();
        seconds(600.0).await;
        assert!(
            (9..=12).contains(&calls(&world, READ)),
            "{}",
            calls(&world, READ)
        );
        assert_eq!(calls(&world, JOIN), 0);
    });
}

#[test]
fn changed_tags_of_a_group_are_seen_within_a_scan_period() {
    in_virtual_time(|| async {
        let world = world().await;
        world.set_grants(&json!([by_tags(NAMESPACE)]));
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        assert_eq!(reason(&world, "m"), "NotGranted");
        tag(&world, "sg-a", &json!({"team": "a"}));
        seconds(A_SCAN).await;
        assert_eq!(reason(&world, "m"), "Joined");

        // Without the tags nothing is joined and nothing repaired, and a deletion removes what the operator joined.
        tag(&world, "sg-a", &json!({"team": "b"}));
        seconds(A_SCAN).await;
        assert_eq!(reason(&world, "m"), "NotGranted");
        world.membership("late", 1, 0, json!({}));
        world.foreign(0, 0, false);
        seconds(2.0 * A_SCAN).await;
        assert_eq!(calls(&world, JOIN), 1);
        assert_eq!(reason(&world, "late"), "NotGranted");
        world.foreign(0, 0, true);
        tag(&world, "sg-a", &json!({"team": "a"}));
        seconds(A_SCAN).await;
        assert_eq!(reason(&world, "late"), "Joined");
        tag(&world, "sg-a", &json!({}));
        seconds(A_SCAN).await;
        world.delete("late");
        seconds(A_SCAN).await;
        assert!(object(&world, "late").is_none());
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 1);
        assert!(!world.is_member(TARGETS[1].id, "sg-a"));
    });
}

#[test]
fn tags_of_groups_are_read_for_those_who_have_a_grant_by_tags_only() {
    in_virtual_time(|| async {
        let world = world().await;
        tag(&world, "sg-a", &json!({"team": "a"}));
        // Nothing but IDs: no account needs the tags of a group.
        world.set_grants(&json!([by_ids(NAMESPACE, &["*"])]));
        world.membership("m", 0, 0, json!({}));
        seconds(3.0 * A_SCAN).await;
        assert_eq!(
            (reason(&world, "m").as_str(), calls(&world, READ)),
            ("Joined", 0)
        );
        // A grant of another namespace, and none for this one.
        world.set_grants(&json!([
            by_tags(OPERATOR_NAMESPACE),
            by_ids(NAMESPACE, &["sg-a"])
        ]));
        world.membership("guest/c", 1, 0, json!({}));
        seconds(3.0 * A_SCAN).await;
        assert_eq!(reason_of_guest(&world, "c"), "NotGranted");
        assert_eq!(
            (reason(&world, "m").as_str(), calls(&world, READ)),
            ("Joined", 0)
        );
        // Where an ID is granted the tags make no difference.
        world.set_grants(&json!([by_tags(NAMESPACE), by_ids(NAMESPACE, &["sg-a"])]));
        seconds(3.0 * A_SCAN).await;
        assert_eq!(
            (reason(&world, "m").as_str(), calls(&world, READ)),
            ("Joined", 0)
        );
        // A grant that goes ends the reads as well.
        world.set_grants(&json!([by_tags(NAMESPACE)]));
        seconds(2.0 * A_SCAN).await;
        assert!(calls(&world, READ) > 0);
        assert_eq!(reason(&world, "m"), "Joined");
        world.set_grants(&json!([by_ids(NAMESPACE, &["sg-a"])]));
        seconds(A_SCAN).await;
        world.simulator.reset_stats();
        seconds(3.0 * A_SCAN).await;
        assert_eq!(calls(&world, READ), 0);
    });
}

#[test]
fn group_whose_tags_cannot_be_read_is_not_granted_and_the_object_says_why() {
    for (status, code, stalled) in [
        (403, "Forbidden.RAM", true),
        (503, "ServiceUnavailable", false),
    ] {
        in_virtual_time(move || async move {
            let world = world().await;
            tag(&world, "sg-a", &json!({"team": "a"}));
            add_fault(
                &world,
                READ,
                1_000,
                &json!({"error": {"code": code, "status": status}}),
            );
            world.set_grants(&json!([by_tags(NAMESPACE)]));
            world.membership("m", 0, 0, json!({}));
            seconds(2.0 * A_SCAN).await;
            assert_eq!(calls(&world, JOIN), 0, "{code}");
            let object = object(&world, "m").unwrap();
            let is_stalled = condition(&object, "Stalled").is_some();
            assert_eq!(is_stalled, stalled, "{code}");
            assert_eq!(reason(&world, "m"), "AccountNotReady", "{code}");
            let said = message(&world, "m");
            for part in ["tags", code, "ecs:DescribeSecurityGroups", "next try"] {
                assert!(said.contains(part), "no {part:?} in: {said}");
            }
            // The same sentence is written once.
            let version = || object["metadata"]["resourceVersion"].clone();
            let before = version();
            seconds(3.0 * A_SCAN).await;
            assert_eq!(version(), before);
            world.simulator.set_faults(Vec::new());
            seconds(A_SCAN).await;
            assert_eq!(reason(&world, "m"), "Joined", "{code}");
        });
    }
}

#[test]
fn known_grant_stays_while_reads_fail_and_ends_where_they_are_refused() {
    in_virtual_time(|| async {
        let world = world().await;
        tag(&world, "sg-a", &json!({"team": "a"}));
        world.set_grants(&json!([by_tags(NAMESPACE)]));
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        assert_eq!(reason(&world, "m"), "Joined");
        add_fault(
            &world,
            READ,
            1_000,
            &json!({"error": {"code": "ServiceUnavailable", "status": 503}}),
        );
        seconds(5.0 * A_SCAN).await;
        assert_eq!(reason(&world, "m"), "Joined");
        // It is still repaired, and another object of the group joins.
        world.foreign(0, 0, false);
        world.membership("b", 1, 0, json!({}));
        seconds(A_SCAN).await;
        assert_eq!(calls(&world, JOIN), 3);
        // What the operator has not read for ten scan periods does not count any more.
        seconds(600.0).await;
        world.membership("late", 2, 0, json!({}));
        seconds(5.0).await;
        assert_eq!(reason(&world, "late"), "AccountNotReady");
        assert_eq!(calls(&world, JOIN), 3);
        world.simulator.set_faults(Vec::new());
        seconds(A_SCAN).await;
        assert_eq!(reason(&world, "late"), "Joined");
        add_fault(
            &world,
            READ,
            1_000,
            &json!({"error": {"code": "Forbidden.RAM", "status": 403}}),
        );
        seconds(A_SCAN).await;
        assert_eq!(reason(&world, "m"), "AccountNotReady");
        world.foreign(0, 0, false);
        seconds(A_SCAN).await;
        assert_eq!(calls(&world, JOIN), 4, "nothing is repaired");
    });
}

/// A tenant names an ID that the cloud takes for none. It refuses each read of tags with that ID.
#[test]
fn malformed_group_of_one_namespace_ends_no_grant_of_another() {
    for code in [
        "InvalidSecurityGroupId.Malformed",
        "InvalidSecurityGroupId.NotFound",
    ] {
        in_virtual_time(move || async move {
            let world = world().await;
            tag(&world, "sg-a", &json!({"team": "a"}));
            world.set_grants(&json!([by_tags(NAMESPACE), by_tags(GUESTS)]));
            world.membership("m", 0, 0, json!({}));
            seconds(5.0).await;
            let fault = json!({
                "action": READ, "securityGroupId": "sg-x", "fault": {"error": {"code": code, "status": 400}},
            });
            let fault = serde_json::from_value(fault).unwrap();
            world.simulator.add_fault(fault);
            world.membership("guest/x", 1, 0, json!({"securityGroupID": "sg-x"}));
            seconds(2.0 * A_SCAN).await;
            assert_eq!(reason_of_guest(&world, "x"), "NotGranted", "{code}");
            assert_eq!(reason(&world, "m"), "Joined", "{code}");
            world.foreign(0, 0, false);
            world.membership("late", 2, 0, json!({}));
            seconds(2.0 * A_SCAN).await;
            assert_eq!(reason(&world, "late"), "Joined", "{code}");
            assert!(world.is_member(TARGETS[0].id, "sg-a"), "{code}");
        });
    }
}

/// Neither the clock of the operator nor a code that it does not know says anything of the right to read.
#[test]
fn known_grant_outlives_answers_that_are_no_refusal() {
    for code in ["InvalidTimeStamp.Expired", "InvalidParameter.Invented"] {
        in_virtual_time(move || async move {
            let world = world().await;
            tag(&world, "sg-a", &json!({"team": "a"}));
            world.set_grants(&json!([by_tags(NAMESPACE)]));
            world.membership("m", 0, 0, json!({}));
            seconds(5.0).await;
            let fault = json!({"error": {"code": code, "status": 400}});
            add_fault(&world, READ, 1_000, &fault);
            seconds(3.0 * A_SCAN).await;
            assert_eq!(reason(&world, "m"), "Joined", "{code}");
            world.foreign(0, 0, false);
            seconds(2.0 * A_SCAN).await;
            assert!(world.is_member(TARGETS[0].id, "sg-a"), "{code}");
        });
    }
}

/// A set for a group whose tags no grant allows yet.
async fn set_by_tags() -> World {
    let world = world().await;
    world.set_grants(&json!([by_tags(NAMESPACE)]));
    let spec =
        json!({"region": "cn-hangzhou", "securityGroupID": "sg-a", "instanceIDs": [TARGETS[0].id]});
    world.create(
        "securitygroupmembershipsets",
        NAMESPACE,
        json!({"metadata": {"name": "s"}, "spec": spec}),
    );
    world
}

#[test]
fn set_makes_no_object_for_a_group_without_the_tags_of_a_grant() {
    in_virtual_time(|| async {
        let world = set_by_tags().await;
        seconds(A_SCAN).await;
        let set = world
            .server
            .object("securitygroupmembershipsets", NAMESPACE, "s")
            .unwrap();
        assert_eq!(
            text(condition(&set, "Ready").unwrap(), "/reason"),
            "NotGranted"
        );
        assert!(world.objects().is_empty());
        tag(&world, "sg-a", &json!({"team": "a"}));
        seconds(A_SCAN).await;
        assert_eq!(world.objects().len(), 1);
        assert!(world.is_member(TARGETS[0].id, "sg-a"));
    });
}

/// A set asks again every five minutes: the operator reads the tags of a group only while something asks for it.
#[test]
fn set_that_was_refused_for_long_sees_the_tags_of_its_group() {
    in_virtual_time(|| async {
        let world = set_by_tags().await;
        seconds(30.0 * 60.0).await;
        tag(&world, "sg-a", &json!({"team": "a"}));
        seconds(5.0 * 60.0 + 2.0 * A_SCAN).await;
        assert!(world.is_member(TARGETS[0].id, "sg-a"));
    });
}
