//! An operator that watches some namespaces, each by a watch of its own: it knows the objects of all of them, and begins when
//! it has seen all.

use std::sync::Arc;

use security_group_operator::kubernetes::WatchScope;
use security_group_operator::telemetry::{self, Telemetry};
use serde_json::{Value, json};
use tower::Service as _;

use crate::api_server::{Call, CallFault, Verb};
use crate::in_virtual_time;
use crate::monitor::MEMBERSHIPS;
use crate::scenario::{claimed, journal, seconds};
use crate::topology::{GUESTS, NAMESPACE};
use crate::world::{SimOptions, World};

async fn is_ready(telemetry: &Arc<Telemetry>) -> bool {
    let question = http::Request::get("/readyz").body(axum::body::Body::empty());
    let answer = telemetry::routes(Arc::clone(telemetry))
        .call(question.unwrap())
        .await;
    answer.unwrap().status() == 200
}

/// An object of this name and namespace on `target`.
fn put(world: &World, namespace: &str, name: &str, target: &str) {
    let spec = json!({"region": "cn-hangzhou", "instanceID": target, "securityGroupID": "sg-a"});
    world.create(
        MEMBERSHIPS,
        namespace,
        json!({"metadata": {"name": name}, "spec": spec}),
    );
}

fn delete(world: &World, namespace: &str, name: &str) {
    world.user(Verb::Delete, MEMBERSHIPS, namespace, name, Value::Null);
}

fn claim(world: &World, namespace: &str, name: &str) -> Option<String> {
    let object = world.server.object(MEMBERSHIPS, namespace, name)?;
    Some(claimed(&object).to_owned())
}

fn both_namespaces() -> Vec<WatchScope> {
    [NAMESPACE, GUESTS]
        .map(|name| WatchScope::Namespace(name.to_owned()))
        .into()
}

#[test]
fn operator_is_ready_after_listing_all_its_namespaces() {
    for scopes in [vec![WatchScope::All], both_namespaces()] {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions::default());
            let telemetry = Arc::new(Telemetry::default());
            assert!(!is_ready(&telemetry).await);
            world.start_over(scopes.clone(), &telemetry);
            seconds(1.0).await;
            assert!(is_ready(&telemetry).await, "{scopes:?}");
        });
    }
}

/// The operator watches one namespace. Before a Leave it lists the memberships of all, if it may.
#[test]
fn refused_list_of_all_namespaces_is_tried_again_after_five_minutes() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        let scope = WatchScope::Namespace(NAMESPACE.to_owned());
        world.start_over(vec![scope], &Arc::default());
        for (name, target) in [("a", "i-0"), ("b", "i-1"), ("c", "i-2")] {
            put(&world, NAMESPACE, name, target);
        }
        seconds(5.0).await;
        let lists_all = |call: &Call| {
            let is_list = call.kind.plural == MEMBERSHIPS && call.verb == Verb::List;
            is_list && call.namespace.is_empty()
        };
        world.faults.refuse_calls(lists_all, CallFault::Refuse(403));
        world.faults.record_requests();
        for (name, pause, asked) in [("a", 240.0, 1), ("b", 90.0, 1), ("c", 5.0, 2)] {
            delete(&world, NAMESPACE, name);
            seconds(pause).await;
            assert_eq!(world.faults.recorded(lists_all).len(), asked, "{name}");
            assert!(world.server.object(MEMBERSHIPS, NAMESPACE, name).is_none());
        }
    });
}

/// T12: an operator of one namespace, which may list the memberships of all. An object there wants to have removed what was joined for an
/// object of another namespace. It goes, and the membership stays, as long as the other one has its record. Without that right it is as with
/// two clusters.
#[test]
fn membership_that_was_joined_for_another_namespace_stays_where_its_objects_may_be_listed() {
    for may_list in [true, false] {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions::default());
            world.start(None);
            seconds(11.0).await;
            put(&world, GUESTS, "owner", "i-0");
            seconds(11.0).await;
            assert_eq!(claim(&world, GUESTS, "owner").as_deref(), Some("Joined"));
            world.kill(0);
            if may_list {
                world.faults.allow_list_of_all();
            }
            let scope = WatchScope::Namespace(NAMESPACE.to_owned());
            world.start_over(vec![scope], &Arc::default());
            seconds(11.0).await;
            world.membership("m", 0, 0, json!({"deletionPolicy": "Remove"}));
            seconds(11.0).await;
            assert_eq!(claim(&world, NAMESPACE, "m").as_deref(), Some("Adopted"));
            delete(&world, NAMESPACE, "m");
            seconds(11.0).await;
            assert_eq!(claim(&world, NAMESPACE, "m"), None);
            let changes = ["the operator joined", "the operator left"];
            assert_eq!(journal(&world), changes[..2 - usize::from(may_list)]);
        });
    }
}

#[test]
fn edge_shared_by_namespaces_is_left_with_the_last() {
    in_virtual_time(|| async {
        let mut world = World::new(SimOptions::default());
        world.start_over(both_namespaces(), &Arc::default());
        // Each namespace owns one edge and shares the other's.
        for (owner, guest, target) in [(NAMESPACE, GUESTS, "i-0"), (GUESTS, NAMESPACE, "i-1")] {
            put(&world, owner, "owner", target);
            seconds(2.0).await;
            put(&world, guest, "guest", target);
            seconds(2.0).await;
        }
        // What was deleted while no operator ran is seen to at the next start, when all is listed.
        world.kill(0);
        for namespace in [NAMESPACE, GUESTS] {
            assert_eq!(
                claim(&world, namespace, "owner").as_deref(),
                Some("Joined"),
                "{:#?}",
                world.objects()
            );
            delete(&world, namespace, "owner");
        }
        world.start_over(both_namespaces(), &Arc::default());
        seconds(3.0).await;
        for (namespace, target) in [(NAMESPACE, "i-1"), (GUESTS, "i-0")] {
            assert_eq!(claim(&world, namespace, "owner"), None);
            assert_eq!(claim(&world, namespace, "guest").as_deref(), Some("Joined"));
            assert!(world.is_member(target, "sg-a"), "{target}");
        }
        let leaves = world.simulator.stats()["calls"]["LeaveSecurityGroup"].clone();
        assert_eq!(leaves, Value::Null);
        for (namespace, target) in [(NAMESPACE, "i-1"), (GUESTS, "i-0")] {
            delete(&world, namespace, "guest");
            seconds(2.0).await;
            assert_eq!(claim(&world, namespace, "guest"), None);
            assert!(!world.is_member(target, "sg-a"), "{target}");
        }
    });
}
