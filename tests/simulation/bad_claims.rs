//! What a user writes where the operator keeps its claim: it is no claim, is said once, and nothing hangs.

use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION};
use serde_json::{Value, json};

use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, text};
use crate::scenario::{calls, claimed, object, ready, seconds, told, world};
use crate::topology::{GUESTS, KEYS, NAMESPACE};
use crate::world::World;

/// An object that is suspended until its metadata is as a user wants it.
async fn prepared(world: &World, spec: Value) -> String {
    let mut whole = json!({
        "region": "cn-hangzhou", "instanceID": "i-0", "securityGroupID": "sg-a", "suspend": true,
    });
    let more = spec.as_object().unwrap().clone();
    whole.as_object_mut().unwrap().extend(more);
    let made = json!({"metadata": {"name": "m"}, "spec": whole});
    let made = world.create(MEMBERSHIPS, NAMESPACE, made);
    seconds(2.0).await;
    text(&made.body, "/metadata/uid")
}

fn write(world: &World, intent: Option<&str>, finalizer: bool) {
    let mut metadata = json!({});
    if let Some(intent) = intent {
        metadata["annotations"] = json!({INTENT_ANNOTATION: intent});
    }
    if finalizer {
        metadata["finalizers"] = json!([FINALIZER]);
    }
    world.patch("m", json!({"metadata": metadata}));
}

/// A new line, the escape character of a terminal, and the mark that turns the direction of writing.
const HOSTILE: &str = "1\n2\u{1b}[2J\u{202e}3";

/// Nothing that the operator says of any object repeats a letter of [`HOSTILE`] that is no number.
fn assert_nothing_hostile_is_said(world: &World) {
    let is_hostile = |said: &str| said.contains(['\n', '\u{1b}', '\u{202e}']);
    for event in world.server.objects("events") {
        assert!(!is_hostile(&text(&event, "/note")), "{event}");
    }
    for object in world.objects() {
        for condition in object["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
        {
            assert!(!is_hostile(&text(condition, "/message")), "{condition}");
        }
    }
}

/// T19: an administrator, or whoever has the right to it, writes into a record an account that is no number.
#[test]
fn account_of_a_record_that_is_no_number_is_shown_nowhere() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(20.0).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        world.overwrite_status("m", &json!({"accountUID": HOSTILE}));
        seconds(200.0).await;
        assert_nothing_hostile_is_said(&world);
        world.delete("m");
        seconds(200.0).await;
        assert_nothing_hostile_is_said(&world);
        assert_eq!(object(&world, "m"), None);
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

/// Intents that are none, for the object with this UID.
fn bad_intents(uid: &str) -> Vec<String> {
    let intent = |origin: &str, account: &str, uid: &str| {
        json!({"origin": origin, "accountUID": account, "uid": uid}).to_string()
    };
    let own = KEYS[0].2;
    vec![
        String::new(),
        "Joined".to_owned(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        json!({"uid": uid}).to_string(),
        intent("Joined", own, "another"),
        intent("Inherited", own, uid),
        intent("Adopted", own, uid),
        intent("Joined", "1000000000000009", uid),
        "節".repeat(33_000),
        intent("Joined", own, &format!("{uid}{}", " ".repeat(100_000))),
        intent("Joined", HOSTILE, uid),
    ]
}

#[test]
fn bad_intent_is_no_claim_and_said_once() {
    for case in 0..bad_intents("").len() {
        for finalizer in [false, true] {
            in_virtual_time(|| async move {
                let world = world().await;
                // What others made stays, whatever the annotation says.
                world.foreign(0, 0, true);
                let uid = prepared(&world, json!({})).await;
                let intent = &bad_intents(&uid)[case];
                write(&world, Some(intent), finalizer);
                world.patch("m", json!({"spec": {"suspend": false}}));
                seconds(20.0).await;
                let shown = intent.chars().take(80).collect::<String>();
                assert_eq!(ready(&world, "m").1, "Adopted", "{shown}");
                seconds(200.0).await;
                assert_eq!(told(&world, "m"), ["Adopted", "ClaimIgnored"], "{shown}");
                assert_nothing_hostile_is_said(&world);
                world.delete("m");
                seconds(20.0).await;
                assert_eq!(object(&world, "m"), None, "{shown}");
                assert!(world.is_member("i-0", "sg-a"), "{shown}");
                assert_eq!(calls(&world, "LeaveSecurityGroup"), 0);
                assert_eq!(world.monitor.violations(), [""; 0]);
            });
        }
    }
}

#[test]
fn bad_intent_on_a_missing_edge_is_replaced_by_a_good_one() {
    for case in 0..bad_intents("").len() {
        in_virtual_time(|| async move {
            let world = world().await;
            let uid = prepared(&world, json!({})).await;
            let intent = &bad_intents(&uid)[case];
            write(&world, Some(intent), true);
            world.patch("m", json!({"spec": {"suspend": false}}));
            seconds(20.0).await;
            let shown = intent.chars().take(80).collect::<String>();
            assert_eq!(ready(&world, "m").1, "Joined", "{shown}");
            assert_eq!(claimed(&object(&world, "m").unwrap()), "Joined");
            assert_eq!(told(&world, "m"), ["ClaimIgnored", "Joined"], "{shown}");
            world.delete("m");
            seconds(20.0).await;
            assert_eq!(object(&world, "m"), None, "{shown}");
            assert!(!world.is_member("i-0", "sg-a"), "{shown}");
        });
    }
}

#[test]
fn bad_intent_on_a_deleted_object_is_let_go_at_once() {
    for case in 0..bad_intents("").len() {
        in_virtual_time(|| async move {
            let world = world().await;
            world.foreign(0, 0, true);
            let uid = prepared(&world, json!({})).await;
            let intent = &bad_intents(&uid)[case];
            write(&world, Some(intent), true);
            world.delete("m");
            world.patch("m", json!({"spec": {"suspend": false}}));
            seconds(20.0).await;
            let shown = intent.chars().take(80).collect::<String>();
            assert_eq!(object(&world, "m"), None, "{shown}");
            assert!(world.is_member("i-0", "sg-a"), "{shown}");
        });
    }
}

#[test]
fn half_a_claim_is_made_whole_or_let_go() {
    for member in [false, true] {
        for (intent, finalizer) in [(false, true), (true, false)] {
            for deleted in [false, true] {
                in_virtual_time(|| async move {
                    let world = world().await;
                    if member {
                        world.foreign(0, 0, true);
                    }
                    let uid = prepared(&world, json!({})).await;
                    let own = json!({"origin": "Joined", "accountUID": KEYS[0].2, "uid": uid});
                    let own = own.to_string();
                    write(&world, intent.then_some(own.as_str()), finalizer);
                    if deleted {
                        world.delete("m");
                    }
                    world.patch("m", json!({"spec": {"suspend": false}}));
                    seconds(20.0).await;
                    if !deleted {
                        let expected = if member { "Adopted" } else { "Joined" };
                        assert_eq!(ready(&world, "m").1, expected);
                        let whole = object(&world, "m").unwrap();
                        assert_eq!(claimed(&whole), expected);
                        assert_eq!(whole["metadata"]["finalizers"], json!([FINALIZER]));
                        assert_eq!(told(&world, "m"), [expected]);
                        world.delete("m");
                        seconds(20.0).await;
                    }
                    assert_eq!(object(&world, "m"), None);
                    assert_eq!(world.is_member("i-0", "sg-a"), member);
                });
            }
        }
    }
}

/// Without a grant nobody's intent is a Join that may be on its way, also for a process that has just begun: others wait for nothing.
#[test]
fn forged_intent_without_a_grant_delays_no_deletion_of_others() {
    for is_granted in [false, true] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            if !is_granted {
                world.set_grants(&json!([{
                    "name": "team", "namespaces": {"names": [NAMESPACE]}, "securityGroups": {"ids": ["*"]},
                }]));
            }
            world.membership("m", 0, 0, json!({}));
            seconds(20.0).await;
            world.membership("guest/c", 0, 0, json!({"suspend": true}));
            let tenants = world.server.object(MEMBERSHIPS, GUESTS, "c").unwrap();
            let uid = text(&tenants, "/metadata/uid");
            let intent = json!({"origin": "Joined", "accountUID": KEYS[0].2, "uid": uid});
            let annotations = json!({INTENT_ANNOTATION: intent.to_string()});
            let metadata = json!({"finalizers": [FINALIZER], "annotations": annotations});
            world.patch("guest/c", json!({"metadata": metadata}));
            world.restart_all();
            seconds(15.0).await;
            // What observes holds nothing.
            world.patch("guest/c", json!({"spec": {"managementPolicy": "Observe"}}));
            seconds(1.0).await;
            world.delete("m");
            seconds(2.0).await;
            assert!(!world.is_member("i-0", "sg-a"), "{is_granted}");
            assert_eq!(object(&world, "m").is_some(), is_granted);
            seconds(100.0).await;
            assert_eq!(object(&world, "m"), None, "{is_granted}");
        });
    }
}
