//! Changes of group that the monitor of sets must not take for a gap.

use serde_json::{Value, json};

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::judged::world;
use crate::monitor::sets::name_of;
use crate::scenario::{ready, seconds};
use crate::sets::{SETS, apply, apply_set};
use crate::topology::NAMESPACE;
use crate::world::World;

/// The name of the membership of a set for i-1.
fn member(set: &str, group: &str) -> String {
    name_of(set, "cn-hangzhou", "i-1", group)
}

fn path(name: &str) -> String {
    format!("{NAMESPACE}/{name}")
}

fn assert_no_violations(world: &World) {
    world.monitor.read_journal();
    assert_eq!(world.monitor.violations(), [""; 0]);
}

/// Seed 84096: the set `s` changes to sg-b and back, while `t` holds sg-a. Later `t` goes, and with it the edge to sg-a.
#[test]
fn set_that_went_back_to_its_former_group_has_ended_its_change() {
    in_virtual_time(|| async {
        let world = world().await;
        apply_set(&world, "t", json!({"instanceIDs": ["i-1"]}));
        seconds(10.0).await;
        for group in ["sg-a", "sg-b", "sg-a"] {
            let spec = json!({"instanceIDs": ["i-1"], "securityGroupID": group});
            apply(&world, spec);
            seconds(30.0).await;
        }
        let only_observes = json!({
            "instanceIDs": ["i-1"], "securityGroupID": "sg-b", "managementPolicy": "Observe",
        });
        apply(&world, only_observes);
        seconds(10.0).await;
        assert_eq!(ready(&world, &member("s", "sg-b")).1, "NotAMember");
        world.user(Verb::Delete, SETS, NAMESPACE, "t", Value::Null);
        seconds(10.0).await;
        world.delete(&path(&member("t", "sg-a")));
        seconds(10.0).await;
        assert!(!world.is_member("i-1", "sg-a"));
        assert_no_violations(&world);
    });
}

/// Seed 84096 too: the deletion of the old membership waits, and a user deletes the new one meanwhile.
#[test]
fn user_may_delete_the_new_membership_while_the_old_one_waits() {
    in_virtual_time(|| async {
        let world = world().await;
        apply(&world, json!({"instanceIDs": ["i-1"]}));
        seconds(10.0).await;
        let old = path(&member("s", "sg-a"));
        world.patch(&old, json!({"spec": {"suspend": true}}));
        seconds(2.0).await;
        let spec = json!({"instanceIDs": ["i-1"], "securityGroupID": "sg-b"});
        apply(&world, spec.clone());
        seconds(10.0).await;
        assert!(world.is_member("i-1", "sg-b"));
        let mut suspended = spec.clone();
        suspended["suspend"] = json!(true);
        apply(&world, suspended);
        seconds(5.0).await;
        world.delete(&path(&member("s", "sg-b")));
        seconds(10.0).await;
        assert!(!world.is_member("i-1", "sg-b"));
        let mut only_observes = spec;
        only_observes["managementPolicy"] = json!("Observe");
        apply(&world, only_observes);
        seconds(30.0).await;
        assert_eq!(ready(&world, &member("s", "sg-b")).1, "NotAMember");
        world.patch(&old, json!({"spec": {"suspend": false}}));
        seconds(10.0).await;
        assert!(!world.is_member("i-1", "sg-a"));
        assert_no_violations(&world);
        assert_eq!(
            world.monitor.counts().get("exception DeletedBetween"),
            Some(&1)
        );
    });
}
