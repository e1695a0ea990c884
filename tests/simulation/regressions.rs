//! What the search has found, each as a small story of its own.

use std::time::Duration;

use serde_json::json;

use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::world::{NAMESPACE, Nature, World};

async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

fn ready(world: &World, name: &str) -> (String, String) {
    let object = world.server.object(MEMBERSHIPS, NAMESPACE, name).unwrap();
    let ready = condition(&object, "Ready").unwrap();
    (text(ready, "/status"), text(ready, "/reason"))
}

#[test]
fn a_status_that_was_refused_with_a_conflict_is_written_in_the_end() {
    in_virtual_time(async {
        let mut world = World::new(Nature::default());
        world.start(None);
        seconds(1.0).await;
        world.weather.refuse_status_writes(1);
        world.membership("m", 0, 0, json!({}));
        seconds(10.0).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn the_status_of_an_object_that_is_gone_is_not_written_to_its_successor() {
    in_virtual_time(async {
        let mut world = World::new(Nature::default());
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
fn a_release_that_was_refused_with_a_conflict_is_tried_again() {
    in_virtual_time(async {
        let mut world = World::new(Nature::default());
        world.start(None);
        seconds(1.0).await;
        world.membership("m", 0, 0, json!({}));
        seconds(10.0).await;
        world.weather.refuse_claim_writes(1);
        world.delete("m");
        seconds(10.0).await;
        assert!(world.objects().is_empty(), "{:#?}", world.objects());
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

#[test]
fn an_account_that_goes_while_it_is_examined_does_not_vouch_for_the_next_one_of_its_name() {
    in_virtual_time(async {
        let mut world = World::new(Nature::default());
        world.start(None);
        // STS has been asked and has not answered yet.
        seconds(0.012).await;
        world.account(false);
        seconds(1.0).await;
        world.membership("m", 0, 0, json!({}));
        seconds(1.0).await;
        assert_eq!(ready(&world, "m").1, "AccountNotFound");
        world.account(true);
        seconds(10.0).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn an_object_that_is_deleted_and_made_again_with_the_same_name_is_looked_at() {
    in_virtual_time(async {
        let mut world = World::new(Nature::default());
        world.start(None);
        seconds(1.0).await;
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
fn who_refuses_to_adopt_finds_the_edge_shared_as_soon_as_another_object_holds_it() {
    in_virtual_time(async {
        let mut world = World::new(Nature::default());
        world.foreign(0, 0, true);
        world.start(None);
        seconds(1.0).await;
        world.membership("first", 0, 0, json!({"adoptionPolicy": "Refuse"}));
        seconds(10.0).await;
        assert_eq!(ready(&world, "first").1, "AdoptionRefused");
        world.membership("second", 0, 0, json!({}));
        seconds(10.0).await;
        assert_eq!(ready(&world, "second").1, "Adopted");
        // In whatever order they come, and whether or not the operator is restarted in between.
        assert_eq!(ready(&world, "first").1, "Adopted");
    });
}
