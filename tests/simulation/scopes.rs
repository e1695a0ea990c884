//! An operator that watches some namespaces, each by a watch of its own: it knows the objects of all of them, and begins when
//! it has seen all.

use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use security_group_operator::api::ORIGIN_ANNOTATION;
use security_group_operator::api::account::Endpoints;
use security_group_operator::args::{LogFormat, Settings};
use security_group_operator::clock::Clock;
use security_group_operator::operator;
use security_group_operator::telemetry::{self, Telemetry};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tower::Service as _;

use crate::api_server::{self, Verb};
use crate::in_virtual_time;
use crate::link::{ApiSide, CloudSide, Link};
use crate::monitor::MEMBERSHIPS;
use crate::scene::{GUESTS, NAMESPACE, OPERATOR_NAMESPACE};
use crate::world::{Nature, World};

async fn seconds(seconds: u64) {
    tokio::time::sleep(Duration::from_secs(seconds)).await;
}

/// Starts an operator over these scopes.
fn start(world: &World, scopes: &[Option<&str>], telemetry: &Arc<Telemetry>) -> JoinHandle<()> {
    let link = Arc::new(Link {
        life: 0,
        server: Arc::clone(&world.server),
        simulator: Arc::clone(&world.simulator),
        monitor: Arc::clone(&world.monitor),
        weather: Arc::clone(&world.weather),
        ends: Mutex::new(None),
        requests: AtomicUsize::new(0),
        dead: AtomicBool::new(false),
        died: Notify::new(),
        halted: AtomicBool::new(false),
        goes_on: Notify::new(),
    });
    let settings = Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        scopes: scopes
            .iter()
            .map(|scope| scope.map(str::to_owned))
            .collect(),
        operator_namespace: OPERATOR_NAMESPACE.to_owned(),
        default_endpoints: Endpoints::default(),
        environment: None,
        scan_period: Duration::from_secs(60),
        max_writes_in_flight: 8,
        instance: None,
        log_format: LogFormat::Text,
        log_filter: String::new(),
    };
    tokio::spawn(operator::run_with(
        settings,
        api_server::client(&world.server, Arc::new(ApiSide(Arc::clone(&link)))),
        Arc::new(CloudSide(link)),
        Arc::clone(telemetry),
        Clock::simulated(world.server.now(), 0),
        std::future::pending(),
    ))
}

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
    let claim = object["metadata"]["annotations"][ORIGIN_ANNOTATION].as_str();
    Some(claim.unwrap_or_default().to_owned())
}

#[test]
fn an_operator_is_ready_when_it_has_seen_every_namespace_that_it_watches() {
    for scopes in [&[None][..], &[Some(NAMESPACE), Some(GUESTS)]] {
        in_virtual_time(|| async move {
            let world = World::new(Nature::default());
            let telemetry = Arc::new(Telemetry::default());
            assert!(!is_ready(&telemetry).await);
            let life = start(&world, scopes, &telemetry);
            seconds(1).await;
            assert!(is_ready(&telemetry).await, "{scopes:?}");
            life.abort();
        });
    }
}

#[test]
fn an_edge_of_two_namespaces_stays_when_either_lets_it_go_and_goes_with_the_last() {
    in_virtual_time(|| async {
        let world = World::new(Nature::default());
        let scopes = [Some(NAMESPACE), Some(GUESTS)];
        let life = start(&world, &scopes, &Arc::default());
        // Each namespace owns one edge and shares the other's.
        for (owner, guest, target) in [(NAMESPACE, GUESTS, "i-0"), (GUESTS, NAMESPACE, "i-1")] {
            put(&world, owner, "owner", target);
            seconds(2).await;
            put(&world, guest, "guest", target);
            seconds(2).await;
        }
        // What was deleted while no operator ran is seen to at the next start, when all is listed.
        life.abort();
        for namespace in [NAMESPACE, GUESTS] {
            assert_eq!(
                claim(&world, namespace, "owner").as_deref(),
                Some("Joined"),
                "{:#?}",
                world.objects()
            );
            delete(&world, namespace, "owner");
        }
        let life = start(&world, &scopes, &Arc::default());
        seconds(3).await;
        for (namespace, target) in [(NAMESPACE, "i-1"), (GUESTS, "i-0")] {
            assert_eq!(claim(&world, namespace, "owner"), None);
            assert_eq!(claim(&world, namespace, "guest").as_deref(), Some("Joined"));
            assert!(world.is_member(target, "sg-a"), "{target}");
        }
        let leaves = world.simulator.stats()["calls"]["LeaveSecurityGroup"].clone();
        assert_eq!(leaves, Value::Null);
        for (namespace, target) in [(NAMESPACE, "i-1"), (GUESTS, "i-0")] {
            delete(&world, namespace, "guest");
            seconds(2).await;
            assert_eq!(claim(&world, namespace, "guest"), None);
            assert!(!world.is_member(target, "sg-a"), "{target}");
        }
        life.abort();
    });
}
