//! A deleted object that another controller's finalizer keeps: its status says once what has become of the membership, and
//! nothing follows.

use security_group_operator::api::{FINALIZER, RECONCILE_REQUESTED_ANNOTATION};
use serde_json::{Value, json};

use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::scenario::{object, ready, seconds, world};
use crate::topology::NAMESPACE;
use crate::world::World;

const HOLD: &str = "example.com/hold";

/// A Ready object with these finalizers of others. Its target 0 is in group 0, joined by the operator.
async fn held_object(world: &World, finalizers: &[&str], policies: Value) {
    let mut spec = json!({"region": "cn-hangzhou", "instanceID": "i-0", "securityGroupID": "sg-a"});
    spec.as_object_mut()
        .unwrap()
        .extend(policies.as_object().unwrap().clone());
    let metadata = json!({"name": "m", "finalizers": finalizers});
    world.create(
        MEMBERSHIPS,
        NAMESPACE,
        json!({"metadata": metadata, "spec": spec}),
    );
    seconds(10.0).await;
    assert_eq!(ready(world, "m").0, "True");
}

/// What the status says of Ready. No other condition but Drifted is there.
fn told(world: &World) -> (String, String, String) {
    let object = object(world, "m").unwrap();
    let conditions = object["status"]["conditions"].as_array().unwrap();
    let types: Vec<String> = conditions.iter().map(|one| text(one, "/type")).collect();
    assert_eq!(types, ["Ready", "Drifted"]);
    let ready = condition(&object, "Ready").unwrap();
    assert_eq!(
        ready["observedGeneration"],
        object["metadata"]["generation"]
    );
    assert_eq!(object["status"]["origin"], Value::Null, "nothing is owned");
    let part = |name: &str| text(ready, name);
    (part("/status"), part("/reason"), part("/message"))
}

/// Whatever happens now, the operator makes no call and no write. When the last finalizer is removed, the object is gone.
async fn nothing_follows(world: &mut World) {
    let calls = |world: &World| world.simulator.stats()["calls"].clone();
    let of_ecs = |world: &World| {
        let mut calls = calls(world);
        calls.as_object_mut().unwrap().remove("GetCallerIdentity");
        calls
    };
    let before = (world.monitor.effects(), of_ecs(world));
    seconds(600.0).await;
    world.patch(
        "m",
        json!({"metadata": {"annotations": {RECONCILE_REQUESTED_ANNOTATION: "now"}}}),
    );
    seconds(600.0).await;
    assert_eq!((world.monitor.effects(), of_ecs(world)), before);
    world.restart_all();
    seconds(600.0).await;
    assert_eq!(
        (world.monitor.effects(), of_ecs(world)),
        before,
        "restarted"
    );
    let finalizers = object(world, "m").unwrap()["metadata"]["finalizers"].clone();
    assert!(!finalizers.as_array().unwrap().contains(&json!(FINALIZER)));
    world.patch("m", json!({"metadata": {"finalizers": null}}));
    seconds(10.0).await;
    assert!(world.objects().is_empty());
    assert_eq!(world.monitor.violations(), [""; 0]);
}

#[test]
fn held_object_says_once_what_became_of_the_membership() {
    let removed = "i-0 was removed from sg-a";
    let kept = "i-0 stays a member of sg-a";
    let until = "the object stays until finalizer example.com/hold is removed";
    let both = "the object stays until finalizers example.com/a, example.com/hold are removed";
    for (finalizers, policies, reason, message) in [
        (
            &[HOLD][..],
            json!({}),
            "Removed",
            format!("{removed}; {until}"),
        ),
        (
            &["example.com/a", HOLD],
            json!({}),
            "Removed",
            format!("{removed}; {both}"),
        ),
        (
            &[HOLD],
            json!({"deletionPolicy": "Retain"}),
            "Retained",
            format!("{kept}; {until}"),
        ),
    ] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            held_object(&world, finalizers, policies).await;
            let before = world.monitor.effects();
            world.delete("m");
            seconds(10.0).await;
            let expected = ("False".to_owned(), reason.to_owned(), message);
            assert_eq!(told(&world), expected);
            assert_eq!(world.is_member("i-0", "sg-a"), reason == "Retained");
            // The finalizer, the event and the status; and the cloud, where the target was removed.
            let effects = 3 + usize::from(reason == "Removed");
            assert_eq!(world.monitor.effects() - before, effects);
            nothing_follows(&mut world).await;
        });
    }
}

#[test]
fn status_of_a_held_object_is_written_after_a_conflict_and_beside_a_co_owner_of_the_finalizer() {
    in_virtual_time(|| async {
        let mut world = world().await;
        held_object(&world, &[], json!({})).await;
        // A backup tool that restores finalizers owns ours too.
        world.patch("m", json!({"metadata": {"finalizers": [FINALIZER, HOLD]}}));
        world.faults.refuse_status_writes(1);
        world.delete("m");
        seconds(30.0).await;
        assert_eq!(told(&world).1, "Removed");
        nothing_follows(&mut world).await;
    });
}

#[test]
fn object_that_was_only_observed_says_nothing_more() {
    in_virtual_time(|| async {
        let mut world = world().await;
        world.foreign(0, 0, true);
        held_object(&world, &[HOLD], json!({"managementPolicy": "Observe"})).await;
        world.delete("m");
        seconds(10.0).await;
        assert_eq!(
            ready(&world, "m"),
            ("True".to_owned(), "Observed".to_owned())
        );
        nothing_follows(&mut world).await;
    });
}
