//! An operator whose view of the cluster is old: a watch that is silent, a replica that is cut off, a call that waits. It removes no
//! membership that others hold.

use std::time::Duration;

use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION};
use serde_json::json;

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::scenario::{add_fault, calls, claimed, object, ready, seconds, world};
use crate::topology::NAMESPACE;
use crate::world::{SimOptions, World};

const LAST_GROUP: &str = "InstanceLastSecurityGroup";

/// Deletes the object; its Leave is refused once, and tried again after about 5 minutes.
async fn block_deletion(world: &World, name: &str) {
    let refused = json!({"error": {"code": LAST_GROUP}});
    add_fault(world, "LeaveSecurityGroup", 1, &refused);
    world.delete(name);
    seconds(2.0).await;
    assert_eq!(ready(world, name).1, LAST_GROUP);
}

async fn assert_member_for(world: &World, secs: u32) {
    for second in 0..secs {
        seconds(1.0).await;
        assert!(world.is_member("i-0", "sg-a"), "evicted after {second} s");
    }
}

/// Removes the last object, and looks that nothing is left.
async fn end(world: &World, name: &str) {
    world.delete(name);
    seconds(90.0).await;
    assert_eq!(object(world, name), None);
    assert!(!world.is_member("i-0", "sg-a"));
    assert_eq!(world.monitor.violations(), [""; 0]);
}

/// The operator lists anew, page by page: kube's store takes the list over at its end, and the first page shows what has changed.
#[test]
fn what_the_first_page_of_a_list_shows_gets_its_pass() {
    in_virtual_time(|| async {
        let world = world().await;
        for number in 0..120 {
            world.membership(&format!("n{number}"), 1, 0, json!({"suspend": true}));
        }
        world.membership("a1", 0, 0, json!({"suspend": true}));
        seconds(30.0).await;
        world.faults.slow_down_api(200);
        world.faults.lose_events(MEMBERSHIPS, 1);
        world.membership("a0", 0, 1, json!({}));
        world.patch("a1", json!({"spec": {"suspend": false}}));
        seconds(15.0).await;
        for name in ["a0", "a1"] {
            assert_eq!(ready(&world, name).1, "Joined", "{name}");
        }
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

/// C6, G2: the watch is silent for 200 s, and within them the Leave is due that was refused before.
#[test]
fn late_leave_of_a_silent_watch_evicts_nobody() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(2.0).await;
        block_deletion(&world, "m").await;
        seconds(200.0).await;
        world.hold_back_events(0, Duration::from_secs(200));
        seconds(50.0).await;
        world.membership("heir", 0, 0, json!({}));
        assert_member_for(&world, 200).await;
        assert_eq!(object(&world, "m"), None);
        assert_eq!(ready(&world, "heir").1, "Joined");
        assert_eq!(claimed(&object(&world, "heir").unwrap()), "Joined");
        end(&world, "heir").await;
    });
}

/// The same, and meanwhile a user keeps the membership, suspends the object, or takes the operator's finalizer off: the list before the
/// Leave shows it.
#[test]
fn late_leave_of_a_silent_watch_goes_by_what_a_user_has_said_since() {
    const FOREIGN: &str = "example.com/hold";
    for change in [
        json!({"spec": {"deletionPolicy": "Retain"}}),
        json!({"spec": {"suspend": true}}),
        json!({"spec": {"managementPolicy": "Observe"}}),
        json!({"metadata": {"finalizers": [FOREIGN]}}),
    ] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(2.0).await;
            let held = json!({"metadata": {"finalizers": [FINALIZER, FOREIGN]}});
            world.patch("m", held);
            seconds(2.0).await;
            block_deletion(&world, "m").await;
            seconds(200.0).await;
            world.hold_back_events(0, Duration::from_secs(200));
            seconds(50.0).await;
            world.patch("m", change.clone());
            assert_member_for(&world, 400).await;
            let stored = object(&world, "m").unwrap();
            let finalizers = stored["metadata"]["finalizers"].as_array().unwrap();
            let has_ours = finalizers.iter().any(|one| one == FINALIZER);
            assert_eq!(has_ours, change["spec"]["suspend"] == true, "{change}");
            assert_eq!(world.monitor.violations(), [""; 0], "{change}");
        });
    }
}

/// The owner `m` is deleted. Its hand-over to `heir` is refused, and tried again. The watch shows nothing for so many seconds.
async fn refused_hand_over_and_silence(silence: u64) -> World {
    let world = world().await;
    world.membership("m", 0, 0, json!({}));
    seconds(2.0).await;
    world.membership("heir", 0, 0, json!({}));
    seconds(2.0).await;
    world.refuse_status_of(Some("heir"));
    world.delete("m");
    seconds(2.0).await;
    assert!(object(&world, "m").is_some());
    world.hold_back_events(0, Duration::from_secs(silence));
    seconds(5.0).await;
    world
}

/// The watch is silent, and meanwhile the only other holder has come to observe, or to refuse what others made: it inherits nothing, and
/// nobody needs the membership.
#[test]
fn silent_watch_hands_nothing_to_who_does_not_hold_any_more() {
    for change in [
        json!({"spec": {"managementPolicy": "Observe"}}),
        json!({"spec": {"managementPolicy": "Observe", "adoptionPolicy": "Refuse"}}),
    ] {
        in_virtual_time(|| async move {
            let world = refused_hand_over_and_silence(1_000).await;
            world.patch("heir", change.clone());
            world.refuse_status_of(None);
            seconds(900.0).await;
            let heir = object(&world, "heir").unwrap();
            assert_eq!(claimed(&heir), "Adopted", "{change}");
            assert_eq!(object(&world, "m"), None, "{change}");
            assert!(!world.is_member("i-0", "sg-a"), "{change}");
            seconds(200.0).await;
            assert_eq!(ready(&world, "heir").1, "NotAMember", "{change}");
            assert_eq!(world.monitor.violations(), [""; 0], "{change}");
        });
    }
}

/// The watch is silent, and meanwhile a user keeps the membership of the owner, or suspends it: it hands nothing on (E14).
#[test]
fn owner_hands_nothing_on_that_a_user_keeps_while_the_watch_is_silent() {
    for change in [
        json!({"spec": {"deletionPolicy": "Retain"}}),
        json!({"spec": {"suspend": true}}),
    ] {
        in_virtual_time(|| async move {
            let world = refused_hand_over_and_silence(900).await;
            world.patch("m", change.clone());
            world.refuse_status_of(None);
            seconds(800.0).await;
            let heir = object(&world, "heir").unwrap();
            assert_eq!(claimed(&heir), "Adopted", "{change}");
            seconds(400.0).await;
            let is_suspended = change["spec"]["suspend"] == true;
            assert_eq!(object(&world, "m").is_some(), is_suspended, "{change}");
            assert_eq!(claimed(&object(&world, "heir").unwrap()), "Adopted");
            assert!(world.is_member("i-0", "sg-a"), "{change}");
            assert_eq!(world.monitor.violations(), [""; 0], "{change}");
        });
    }
}

/// The same with a crowd that names the membership: an answer to a list has 50 objects at most, and the last one counts.
#[test]
fn list_of_a_crowd_comes_in_pages_of_which_the_last_counts() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(2.0).await;
        block_deletion(&world, "m").await;
        seconds(200.0).await;
        world.hold_back_events(0, Duration::from_secs(200));
        world.faults.record_requests();
        seconds(50.0).await;
        for number in 0..120 {
            let observes = json!({"managementPolicy": "Observe"});
            world.membership(&format!("crowd-{number}"), 0, 0, observes);
        }
        world.membership("heir", 0, 0, json!({}));
        assert_member_for(&world, 200).await;
        assert_eq!(object(&world, "m"), None);
        assert_eq!(ready(&world, "heir").1, "Joined");
        let lists = world
            .faults
            .recorded(|call| call.verb == Verb::List && call.query.contains_key("fieldSelector"));
        let pages = world.faults.recorded(|call| {
            let limit = call.query.get("limit").map(String::as_str);
            limit == Some("50") && call.query.contains_key("fieldSelector")
        });
        assert!(
            !lists.is_empty() && lists.len().is_multiple_of(3),
            "{lists:?}"
        );
        assert_eq!(lists, pages);
        end(&world, "heir").await;
    });
}

/// G1: the deletion is seen when it is 200 s old.
#[test]
fn deletion_that_is_shown_late_is_followed_by_a_list() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(2.0).await;
        world.hold_back_events(0, Duration::from_secs(200));
        seconds(1.0).await;
        world.delete("m");
        seconds(220.0).await;
        assert_eq!(world.faults.selections(), 1);
        assert_eq!(object(&world, "m"), None);
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

/// C6, G3: a replica cannot reach the API server. Another one settles everything. Half an hour later the first one goes on.
#[test]
fn replica_that_was_cut_off_evicts_nobody() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions {
            several: true,
            ..SimOptions::default()
        });
        world.start(None);
        seconds(11.0).await;
        world.membership("m", 0, 0, json!({}));
        seconds(2.0).await;
        block_deletion(&world, "m").await;
        world.faults.cut_off(0, Duration::from_secs(900));
        world.start(None);
        seconds(5.0).await;
        assert_eq!(object(&world, "m"), None);
        assert!(!world.is_member("i-0", "sg-a"));
        world.membership("m", 0, 0, json!({}));
        seconds(20.0).await;
        assert!(world.is_member("i-0", "sg-a"));
        assert_member_for(&world, 2_000).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        end(&world, "m").await;
    });
}

/// G6: no list, no Leave; and the status says so.
#[test]
fn list_that_fails_holds_the_leave_up() {
    for code in [403, 429, 500] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(2.0).await;
            block_deletion(&world, "m").await;
            world.faults.refuse_selections(1_000_000, code);
            // Otherwise the watch shows the status that says so, which proves that the view is fresh.
            seconds(200.0).await;
            world.hold_back_events(0, Duration::from_secs(1_000));
            assert_member_for(&world, 1_000).await;
            assert_eq!(ready(&world, "m").1, "Retrying");
            let stored = object(&world, "m").unwrap();
            let message = text(condition(&stored, "Ready").unwrap(), "/message");
            assert!(message.contains("could not be listed"), "{message}");
            assert!(message.len() < 250, "{message}");
            world.faults.refuse_selections(0, 0);
            seconds(330.0).await;
            assert_eq!(object(&world, "m"), None);
            assert!(!world.is_member("i-0", "sg-a"));
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

/// A world with so many instances more, which no object names.
async fn instances(count: usize) -> (World, Vec<String>) {
    let world = world().await;
    let ids: Vec<String> = (0..count).map(|number| format!("i-bulk{number}")).collect();
    for id in &ids {
        world.cloud(json!({"createInstance": {"id": id, "securityGroupIds": ["sg-base"]}}));
    }
    (world, ids)
}

/// Many instances, each with an object and a membership, whose calls of this action take half a minute from now on.
async fn crowd(action: &str, joins: bool) -> (World, Vec<String>) {
    let (world, ids) = instances(80).await;
    // They start first.
    seconds(60.0).await;
    if !joins {
        create(&world, &ids);
        seconds(20.0).await;
        for id in &ids {
            assert_eq!(ready(&world, id).1, "Joined");
        }
    }
    add_fault(&world, action, 1_000, &json!({"latency": "30s"}));
    (world, ids)
}

fn create(world: &World, ids: &[String]) {
    for id in ids {
        let spec = json!({"region": "cn-hangzhou", "instanceID": id, "securityGroupID": "sg-a"});
        let object = json!({"metadata": {"name": id}, "spec": spec});
        world.create(MEMBERSHIPS, NAMESPACE, object);
    }
}

fn members(world: &World, ids: &[String]) -> usize {
    ids.iter().filter(|id| world.is_member(id, "sg-a")).count()
}

/// C6: the calls in flight are 32. What waits for its place is decided again when it has one.
#[test]
fn leave_that_waits_for_its_place_ends_with_retain() {
    in_virtual_time(|| async {
        let (world, ids) = crowd("LeaveSecurityGroup", false).await;
        for id in &ids {
            world.delete(id);
        }
        seconds(5.0).await;
        for id in &ids {
            world.patch(id, json!({"spec": {"deletionPolicy": "Retain"}}));
        }
        seconds(200.0).await;
        assert_eq!(world.objects().len(), 0);
        assert_eq!(members(&world, &ids), ids.len() - 32);
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

#[test]
fn leave_that_waits_for_its_place_ends_with_another_holder() {
    in_virtual_time(|| async {
        let (world, ids) = crowd("LeaveSecurityGroup", false).await;
        for id in &ids {
            world.delete(id);
        }
        seconds(5.0).await;
        for id in &ids {
            let spec =
                json!({"region": "cn-hangzhou", "instanceID": id, "securityGroupID": "sg-a"});
            let object = json!({"metadata": {"name": format!("heir-{id}")}, "spec": spec});
            world.create(MEMBERSHIPS, NAMESPACE, object);
        }
        seconds(400.0).await;
        assert_eq!(world.objects().len(), ids.len());
        assert_eq!(members(&world, &ids), ids.len());
        let leaves = &world.simulator.stats()["calls"]["LeaveSecurityGroup"]["OK"];
        assert_eq!(leaves, &json!(32));
    });
}

/// A13: what becomes of an object while its Join waits for its place, or for the limit of calls: its grant goes, a user suspends it, only
/// observes it, or deletes it. No Join is sent for it any more.
#[test]
fn join_that_waits_for_its_place_is_not_sent_for_what_has_changed_since() {
    type Change = fn(&World, &[String]);
    let changes: [(&str, Change); 4] = [
        ("grant", |world, _| world.grant(false)),
        ("suspend", |world, ids| {
            for id in ids {
                world.patch(id, json!({"spec": {"suspend": true}}));
            }
        }),
        ("observe", |world, ids| {
            for id in ids {
                world.patch(id, json!({"spec": {"managementPolicy": "Observe"}}));
            }
        }),
        ("delete", |world, ids| {
            for id in ids {
                world.delete(id);
            }
        }),
    ];
    for (name, change) in changes {
        for limit in [None, Some(20)] {
            in_virtual_time(|| async move {
                let (world, ids) = crowd("JoinSecurityGroup", true).await;
                if let Some(limit) = limit {
                    world.simulator.set_faults(Vec::new());
                    world.cloud(json!({"set": {"limits": {"JoinSecurityGroup": limit}}}));
                }
                create(&world, &ids);
                seconds(5.0).await;
                change(&world, &ids);
                // Those under way.
                let sent = joins_sent(&world);
                let most = limit.unwrap_or(32);
                assert!((1..=most).contains(&sent), "{name} {limit:?}: {sent}");
                seconds(600.0).await;
                assert_eq!(joins_sent(&world), sent, "{name} {limit:?}");
                let left = if name == "delete" { 0 } else { sent };
                assert_eq!(members(&world, &ids), left, "{name} {limit:?}");
                assert_eq!(world.objects().is_empty(), name == "delete");
                assert_eq!(world.monitor.violations(), [""; 0]);
            });
        }
    }
}

/// Joins that the cloud has accepted or has still to answer: the changes in its journal, at once or later.
fn joins_sent(world: &World) -> usize {
    world.monitor.read_journal();
    let journal = world.simulator.journal_from(0);
    let joins = journal
        .iter()
        .filter(|entry| entry["action"] == "JoinSecurityGroup");
    joins.count()
}

/// G3: what was fresh when the Leave was decided is old when its place is free.
#[test]
fn leave_that_waits_for_its_place_goes_by_a_list_of_then() {
    in_virtual_time(|| async {
        let (world, ids) = crowd("LeaveSecurityGroup", false).await;
        for id in &ids {
            world.delete(id);
        }
        seconds(5.0).await;
        world.hold_back_events(0, Duration::from_secs(600));
        for id in &ids {
            let spec =
                json!({"region": "cn-hangzhou", "instanceID": id, "securityGroupID": "sg-a"});
            let object = json!({"metadata": {"name": format!("heir-{id}")}, "spec": spec});
            world.create(MEMBERSHIPS, NAMESPACE, object);
        }
        seconds(500.0).await;
        assert_eq!(members(&world, &ids), ids.len() - 32);
    });
}

/// F2, F4: the documented way out. A user who takes the finalizer off while the Leave waits keeps the membership.
#[test]
fn leave_that_waits_for_its_place_is_not_sent_for_an_object_that_is_gone() {
    for hold in [None, Some("example.com/hold")] {
        in_virtual_time(|| async move {
            let (world, ids) = crowd("LeaveSecurityGroup", false).await;
            for id in &ids {
                if let Some(hold) = hold {
                    let finalizers = json!([FINALIZER, hold]);
                    world.patch(id, json!({"metadata": {"finalizers": finalizers}}));
                }
                world.delete(id);
            }
            seconds(5.0).await;
            for id in &ids {
                let finalizers = hold.map_or(json!(null), |hold| json!([hold]));
                world.patch(id, json!({"metadata": {"finalizers": finalizers}}));
            }
            seconds(200.0).await;
            assert_eq!(members(&world, &ids), ids.len() - 32, "{hold:?}");
        });
    }
}

/// C22, E20: while the Leave waits, a scan finds the membership missing, and others make it again.
#[test]
fn leave_that_waits_for_its_place_is_not_sent_for_what_others_made_since() {
    in_virtual_time(|| async {
        let (world, ids) = crowd("LeaveSecurityGroup", false).await;
        let slow = json!({"latency": "30s"});
        add_fault(&world, "LeaveSecurityGroup", 1_000, &slow);
        let (first, rest) = ids.split_at(32);
        let others = |word: &str| {
            for id in rest {
                let edge = json!({"target": id, "securityGroupId": "sg-a"});
                world.cloud(json!({ word: edge }));
            }
        };
        for id in first {
            world.delete(id);
        }
        // Within the minute a scan comes to wait for its place, before the Leaves of the rest.
        others("leave");
        seconds(58.0).await;
        for id in rest {
            world.delete(id);
        }
        seconds(4.0).await;
        others("join");
        seconds(400.0).await;
        assert!(world.objects().is_empty());
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 32, "the first ones");
        assert_eq!(members(&world, &ids), rest.len());
    });
}

/// C21: a user takes finalizer and intent off while the Join waits. A process that is killed after the Join leaves an intent to the next one.
#[test]
fn join_that_waits_for_its_place_is_not_sent_without_its_intent() {
    in_virtual_time(|| async {
        let (mut world, ids) = crowd("JoinSecurityGroup", true).await;
        create(&world, &ids);
        seconds(5.0).await;
        for id in &ids {
            let metadata = json!({"annotations": {INTENT_ANNOTATION: null}});
            world.patch(id, json!({"metadata": metadata}));
        }
        let joined = || members(&world, &ids);
        let before: Vec<_> = ids
            .iter()
            .filter(|id| world.is_member(id, "sg-a"))
            .collect();
        seconds(40.0).await;
        assert!(joined() > before.len(), "the next ones are under way");
        world.restart_all();
        seconds(200.0).await;
        for id in ids.iter().filter(|id| !before.contains(id)) {
            assert_eq!(ready(&world, id).1, "Joined", "{id}");
        }
    });
}

/// Somebody takes the finalizers off while the repairs wait: without them a deletion would leave behind what a repair joins.
#[test]
fn repair_that_waits_for_its_place_is_not_sent_without_the_finalizer() {
    in_virtual_time(|| async {
        let (world, ids) = crowd("JoinSecurityGroup", false).await;
        let is_held = |id: &String| {
            let finalizers = object(&world, id).unwrap()["metadata"]["finalizers"].clone();
            finalizers.as_array().is_some_and(|all| !all.is_empty())
        };
        for id in &ids {
            world.cloud(json!({"leave": {"target": id, "securityGroupId": "sg-a"}}));
        }
        // The scan finds them missing, and all but 32 repairs wait.
        let before = calls(&world, "JoinSecurityGroup");
        for _ in 0..750 {
            if calls(&world, "JoinSecurityGroup") == before {
                seconds(0.1).await;
            }
        }
        seconds(5.0).await;
        for id in &ids {
            world.patch(id, json!({"metadata": {"finalizers": null}}));
        }
        for _ in 0..3_000 {
            seconds(0.1).await;
            let is_left = |id: &&String| !is_held(id) && world.is_member(id, "sg-a");
            let left = ids.iter().filter(is_left).count();
            // Those under way, in the moment in which they lost it.
            assert!(left <= 32, "{left}");
        }
        assert_eq!(members(&world, &ids), ids.len());
    });
}

/// New objects of one namespace take turns with the repairs of another one.
#[test]
fn new_objects_of_one_namespace_keep_no_repair_of_another_waiting() {
    in_virtual_time(|| async {
        let (world, ids) = instances(300).await;
        world.cloud(json!({"set": {"limits": {"JoinSecurityGroup": 20}}}));
        world.membership("guest/x", 0, 0, json!({}));
        seconds(70.0).await;
        assert!(world.is_member("i-0", "sg-a"));
        create(&world, &ids);
        world.foreign(0, 0, false);
        // A scan period, and two minutes of the limit.
        seconds(190.0).await;
        assert!(world.is_member("i-0", "sg-a"));
        let joined = members(&world, &ids);
        assert!(
            joined < ids.len() / 2,
            "{joined} joined: the crowd still waits"
        );
    });
}

/// The cloud throttles those that go first. Those that wait are held back, and say nothing for a minute.
#[test]
fn join_that_waits_for_its_place_is_held_back_when_the_cloud_throttles_meanwhile() {
    in_virtual_time(|| async {
        let (world, ids) = instances(80).await;
        seconds(60.0).await;
        let throttled = json!({"error": {"code": "Throttling.User", "status": 400}});
        add_fault(&world, "JoinSecurityGroup", 32, &json!({"latency": "20s"}));
        add_fault(&world, "JoinSecurityGroup", 32, &throttled);
        create(&world, &ids);
        seconds(50.0).await;
        let told = |id: &String| {
            let object = object(&world, id).unwrap();
            condition(&object, "Ready").map(|ready| text(ready, "/reason"))
        };
        let retrying: Vec<_> = ids
            .iter()
            .filter(|id| told(id).as_deref() == Some("Retrying"))
            .collect();
        assert_eq!(retrying, [""; 0]);
        seconds(600.0).await;
        assert_eq!(members(&world, &ids), ids.len());
    });
}

/// S8, G4: a deletion is seen at once, or an earlier release proves that the view is fresh.
#[test]
fn many_deletions_cost_no_list() {
    in_virtual_time(|| async {
        let (world, ids) = instances(300).await;
        create(&world, &ids);
        seconds(60.0).await;
        for id in &ids {
            world.delete(id);
        }
        seconds(60.0).await;
        assert_eq!(world.objects().len(), 0);
        assert_eq!(world.faults.selections(), 0);
    });
}

/// S8 on a busy API server: a write that has waited for seconds to be sent proves as much as one that was sent at once.
#[test]
fn deletions_that_wait_to_be_written_cost_no_list() {
    in_virtual_time(|| async {
        let (world, ids) = instances(600).await;
        create(&world, &ids);
        seconds(60.0).await;
        // 8 writes in flight: 20 per second, and up to 256 passes wait for theirs.
        world.faults.slow_down_api(400);
        for id in &ids {
            world.delete(id);
        }
        seconds(120.0).await;
        assert_eq!(world.objects().len(), 0);
        assert_eq!(world.faults.selections(), 0);
    });
}

/// G5: S8 under a limit: between two windows of the limit nothing is released. Then as many lists go out as there are Leaves in flight.
#[test]
fn deletions_under_a_limit_cost_a_list_per_second_at_most() {
    in_virtual_time(|| async {
        let (world, ids) = instances(300).await;
        create(&world, &ids);
        seconds(60.0).await;
        world.cloud(json!({"set": {"limits": {"LeaveSecurityGroup": 60}}}));
        for id in &ids {
            world.delete(id);
        }
        let mut minutes = 0;
        while !world.objects().is_empty() {
            seconds(60.0).await;
            minutes += 1;
            assert!(minutes < 20, "{} are left", world.objects().len());
        }
        let lists = world.faults.selections();
        println!("{lists} lists in {minutes} minutes");
        assert!(lists <= 60 * minutes, "{lists} lists in {minutes} minutes");
    });
}
