//! What a grant lets a namespace do, and with which targets.

use std::time::Duration;

use serde_json::{Value, json};

use crate::in_virtual_time;
use crate::scenario::{calls, message, object, ready, seconds, told, world};
use crate::topology::{MISPLACED, NAMESPACE, TARGETS};
use crate::world::{SimOptions, World};

/// One scan, and a little.
const A_SCAN: f64 = 75.0;

fn grant(world: &World, more: &Value) {
    let mut grant = json!({"name": "own", "namespaces": {"names": [NAMESPACE]}, "securityGroups": {"ids": ["*"]}});
    let fields = grant.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    world.set_grants(&json!([grant]));
}

fn tag(world: &World, tags: &Value) {
    world.cloud(json!({"setTags": {"id": TARGETS[0].id, "tags": tags}}));
}

fn reason(world: &World, name: &str) -> String {
    ready(world, name).1
}

#[test]
fn nothing_is_granted_or_refused_until_accounts_and_namespaces_are_listed() {
    for late in ["clustercloudaccounts", "cloudaccounts", "namespaces"] {
        in_virtual_time(|| async move {
            // The account grants everything to namespaces with a label.
            let mut world = World::new(SimOptions::default());
            world.membership("m", 0, 0, json!({}));
            // Shorter than the deadline of a request.
            world.faults.delay_lists(late, Duration::from_secs(25));
            world.start(None);
            seconds(20.0).await;
            assert_eq!(reason(&world, "m"), "Pending", "{late}");
            for action in ["DescribeInstances", "JoinSecurityGroup"] {
                assert_eq!(calls(&world, action), 0, "{late}: {action}");
            }
            seconds(20.0).await;
            assert_eq!(reason(&world, "m"), "Joined", "{late}");
            assert_eq!(told(&world, "m"), ["Joined"], "{late}");
        });
    }
}

#[test]
fn target_with_the_tags_of_a_grant_is_joined_and_no_other() {
    in_virtual_time(|| async {
        let world = world().await;
        grant(&world, &json!({"targets": {"tags": {"team": "a"}}}));
        world.membership("m", 0, 0, json!({}));
        world.membership("absent", MISPLACED, 0, json!({}));
        seconds(5.0).await;
        for name in ["m", "absent"] {
            assert_eq!(reason(&world, name), "NotGranted");
        }
        // One cannot tell from the sentence that there is no such target, nor what is known of it.
        let of_absent = message(&world, "absent").replace(TARGETS[MISPLACED].id, TARGETS[0].id);
        assert_eq!(message(&world, "m"), of_absent);
        assert_eq!(
            object(&world, "m").unwrap()["status"]["target"],
            Value::Null
        );

        // Nothing in the cluster changes: the scan sees the tags.
        tag(&world, &json!({"team": "b", "tier": "a"}));
        seconds(A_SCAN).await;
        assert_eq!(reason(&world, "m"), "NotGranted");
        assert_eq!(calls(&world, "JoinSecurityGroup"), 0);
        tag(&world, &json!({"team": "a", "tier": "a"}));
        seconds(A_SCAN).await;
        assert_eq!(reason(&world, "m"), "Joined");
        assert_eq!(calls(&world, "JoinSecurityGroup"), 1);

        // Without the tag nothing is repaired, and the deletion removes what the operator joined.
        tag(&world, &json!({}));
        seconds(A_SCAN).await;
        assert_eq!(reason(&world, "m"), "NotGranted");
        world.foreign(0, 0, false);
        seconds(A_SCAN).await;
        assert_eq!(calls(&world, "JoinSecurityGroup"), 1);
        world.foreign(0, 0, true);
        tag(&world, &json!({"team": "a"}));
        seconds(A_SCAN).await;
        assert_eq!(ready(&world, "m").0, "True");
    });
}

#[test]
fn deletion_without_the_tags_removes_what_the_operator_joined() {
    in_virtual_time(|| async {
        let world = world().await;
        tag(&world, &json!({"team": "a"}));
        grant(&world, &json!({"targets": {"tags": {"team": "a"}}}));
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        assert_eq!(reason(&world, "m"), "Joined");
        tag(&world, &json!({}));
        seconds(A_SCAN).await;
        assert_eq!(reason(&world, "m"), "NotGranted");
        world.delete("m");
        seconds(A_SCAN).await;
        assert!(object(&world, "m").is_none());
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 1);
    });
}

#[test]
fn grant_to_observe_joins_nothing() {
    in_virtual_time(|| async {
        let world = world().await;
        grant(&world, &json!({"allow": ["Observe"]}));
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        assert_eq!(reason(&world, "m"), "NotGranted");
        assert_eq!(calls(&world, "DescribeInstances"), 0);
        world.membership("b", 1, 0, json!({"managementPolicy": "Observe"}));
        seconds(5.0).await;
        assert_eq!(reason(&world, "b"), "NotAMember");
        assert_eq!(calls(&world, "JoinSecurityGroup"), 0);
        grant(&world, &json!({"allow": ["Join"]}));
        seconds(5.0).await;
        assert_eq!(reason(&world, "m"), "Joined");
        assert_eq!(reason(&world, "b"), "NotGranted");
    });
}

/// F15.
#[test]
fn adopted_membership_is_removed_where_a_grant_allows_it() {
    in_virtual_time(|| async {
        let world = world().await;
        grant(&world, &json!({}));
        world.foreign(0, 0, true);
        world.membership("m", 0, 0, json!({"deletionPolicy": "Remove"}));
        seconds(5.0).await;
        assert_eq!(reason(&world, "m"), "Adopted");
        world.delete("m");
        seconds(A_SCAN).await;
        assert_eq!(reason(&world, "m"), "NotGranted");
        let said = message(&world, "m");
        for part in ["RemoveAdopted", "set spec.deletionPolicy to RemoveIfJoined"] {
            assert!(said.contains(part), "no {part:?} in: {said}");
        }
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
        grant(&world, &json!({"allow": ["RemoveAdopted"]}));
        seconds(5.0).await;
        assert!(object(&world, "m").is_none());
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 1);
    });
}
