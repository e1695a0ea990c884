//! What takes half an hour and more in the real world: targets that are stuck, edges that somebody else undoes again and again.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use security_group_operator::api::RECONCILE_REQUESTED_ANNOTATION;
use serde_json::{Value, json};

use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::scenario::add_fault;
use crate::topology::NAMESPACE;
use crate::world::{SimOptions, World};

async fn minutes(minutes: u64) {
    tokio::time::sleep(Duration::from_secs(minutes * 60)).await;
}

fn object(world: &World) -> Arc<Value> {
    world.server.object(MEMBERSHIPS, NAMESPACE, "m").unwrap()
}

/// The reason of a condition that is true.
fn reason(world: &World, type_: &str) -> Option<String> {
    let object = object(world);
    let condition = condition(&object, type_).filter(|condition| condition["status"] == "True")?;
    Some(text(condition, "/reason"))
}

#[test]
fn transitional_target_is_stalled_after_30_minutes() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.cloud(json!({"setStatus": {"id": "i-0", "status": "Starting", "for": "40m"}}));
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        minutes(28).await;
        let waits = Some("WaitingForTarget".to_owned());
        assert_eq!(reason(&world, "Reconciling"), waits);
        // A restart does not count anew: since when it waits is written in the object.
        world.restart_all();
        minutes(5).await;
        assert_eq!(reason(&world, "Stalled"), waits);
        assert_eq!(reason(&world, "Reconciling"), None);
        minutes(10).await;
        assert_eq!(reason(&world, "Ready"), Some("Joined".to_owned()));
        assert_eq!(reason(&world, "Stalled"), None);
    });
}

#[test]
fn earlier_retries_do_not_count_as_waiting_time() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start(None);
        minutes(1).await;
        add_fault(
            &world,
            "JoinSecurityGroup",
            1_000,
            &json!({"error": {"code": "ServiceUnavailable"}}),
        );
        world.membership("m", 0, 0, json!({}));
        minutes(40).await;
        assert_eq!(reason(&world, "Reconciling"), Some("Retrying".to_owned()));
        world.cloud(json!({"setStatus": {"id": "i-0", "status": "Starting"}}));
        let waits = Some("WaitingForTarget".to_owned());
        minutes(10).await;
        assert_eq!(reason(&world, "Reconciling"), waits);
        minutes(15).await;
        assert_eq!(reason(&world, "Reconciling"), waits);
        minutes(10).await;
        assert_eq!(reason(&world, "Stalled"), waits);
    });
}

#[test]
fn ready_is_false_while_repair_fails() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        minutes(1).await;
        assert_eq!(reason(&world, "Ready"), Some("Joined".to_owned()));
        add_fault(
            &world,
            "JoinSecurityGroup",
            1_000,
            &json!({"error": {"code": "ServiceUnavailable"}}),
        );
        world.foreign(0, 0, false);
        minutes(3).await;
        assert_eq!(reason(&world, "Ready"), None);
        assert_eq!(reason(&world, "Reconciling"), Some("Retrying".to_owned()));
        world.foreign(0, 0, true);
        minutes(6).await;
        assert_eq!(reason(&world, "Ready"), Some("Joined".to_owned()));
        assert_eq!(reason(&world, "Reconciling"), None);
    });
}

#[test]
fn transition_time_is_the_time_of_the_change() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.cloud(json!({"setStatus": {"id": "i-0", "status": "Starting", "for": "10m"}}));
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        minutes(20).await;
        let changed: Timestamp = text(
            condition(&object(&world), "Ready").unwrap(),
            "/lastTransitionTime",
        )
        .parse()
        .unwrap();
        let ago = world.server.now().as_second() - changed.as_second();
        // The target settled 10 min ago, and was looked at once a minute.
        assert!((8 * 60..=10 * 60).contains(&ago), "{ago} s ago");
    });
}

/// Takes the edge away and waits for the scan, the repair, and what then is said.
async fn undo(world: &World) -> Option<String> {
    assert!(world.is_member("i-0", "sg-a"));
    world.foreign(0, 0, false);
    minutes(3).await;
    reason(world, "Ready")
}

#[test]
fn three_repairs_in_30_minutes_are_a_repair_loop() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        minutes(1).await;
        for repair in 1..=3 {
            assert_eq!(undo(&world).await, Some("Joined".to_owned()), "{repair}");
        }
        assert_eq!(undo(&world).await, None);
        assert_eq!(reason(&world, "Stalled"), Some("RepairLoop".to_owned()));
        assert_eq!(reason(&world, "Drifted"), Some("RepairLoop".to_owned()));
        minutes(50).await;
        assert!(!world.is_member("i-0", "sg-a"));
        minutes(15).await;
        assert_eq!(reason(&world, "Ready"), Some("Joined".to_owned()));
        assert_eq!(undo(&world).await, None, "one an hour");
        minutes(65).await;
        // Let alone for an hour, it is in no loop any more.
        assert_eq!(reason(&world, "Ready"), Some("Joined".to_owned()));
        minutes(70).await;
        assert_eq!(undo(&world).await, Some("Joined".to_owned()));
    });
}

#[test]
fn request_of_a_user_ends_a_repair_loop_and_a_restart_does_not() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        minutes(1).await;
        for _ in 1..=3 {
            assert_eq!(undo(&world).await, Some("Joined".to_owned()));
        }
        assert_eq!(undo(&world).await, None);
        assert_eq!(reason(&world, "Drifted"), Some("RepairLoop".to_owned()));
        world.restart_all();
        minutes(20).await;
        assert!(!world.is_member("i-0", "sg-a"), "repaired after a restart");
        assert_eq!(reason(&world, "Drifted"), Some("RepairLoop".to_owned()));
        let asked = json!({RECONCILE_REQUESTED_ANNOTATION: "now"});
        world.patch("m", json!({"metadata": {"annotations": asked}}));
        minutes(1).await;
        assert!(world.is_member("i-0", "sg-a"));
        assert_eq!(reason(&world, "Drifted"), None);
        assert_eq!(reason(&world, "Ready"), Some("Joined".to_owned()));
    });
}

#[test]
fn repairs_through_two_objects_of_one_edge_are_one_repair_loop() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        world.membership("n", 0, 0, json!({}));
        minutes(1).await;
        for _ in 1..=3 {
            world.foreign(0, 0, false);
            minutes(3).await;
            assert!(world.is_member("i-0", "sg-a"));
        }
        world.foreign(0, 0, false);
        minutes(10).await;
        assert!(!world.is_member("i-0", "sg-a"), "repaired 4 times");
    });
}

#[test]
fn rare_repairs_are_no_repair_loop() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start(None);
        world.membership("m", 0, 0, json!({}));
        minutes(1).await;
        for _ in 0..8 {
            assert_eq!(undo(&world).await, Some("Joined".to_owned()));
            minutes(10).await;
        }
    });
}
