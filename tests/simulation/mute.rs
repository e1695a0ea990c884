//! An API server, or what is in front of it, or a cloud, that accepts connections and says nothing for some minutes.

use std::sync::Arc;
use std::time::Duration;

use security_group_operator::telemetry::{self, Telemetry};
use serde_json::json;
use tower::ServiceExt as _;

use crate::api_server::{Call, Verb};
use crate::in_virtual_time;
use crate::judged::Judged;
use crate::monitor::MEMBERSHIPS;
use crate::scenario::{ready, seconds};
use crate::sets;
use crate::world::{SimOptions, World};
use security_group_operator::kubernetes::WatchScope;

const MINUTE: Duration = Duration::from_secs(60);
const ALL: &[Verb] = &[
    Verb::Get,
    Verb::List,
    Verb::Watch,
    Verb::Create,
    Verb::Apply,
    Verb::Merge,
];
/// A request that was made in the last moment is given up, and made anew after a back-off.
const RECOVERY: f64 = 75.0;

/// A world whose operator starts now.
fn start() -> (World, Arc<Telemetry>) {
    let mut world = World::new(SimOptions::default());
    let telemetry = Arc::new(Telemetry::default());
    world.start_over(vec![WatchScope::All], &telemetry);
    (world, telemetry)
}

fn assert_joined(world: &World, name: &str) {
    assert_eq!(
        ready(world, name),
        ("True".to_owned(), "Joined".to_owned()),
        "{name}"
    );
}

async fn is_alive(telemetry: &Arc<Telemetry>) -> bool {
    answers(telemetry, "/livez").await
}

async fn answers(telemetry: &Arc<Telemetry>, path: &str) -> bool {
    let request = http::Request::get(path).body(axum::body::Body::empty());
    let answer = telemetry::routes(Arc::clone(telemetry)).oneshot(request.unwrap());
    answer.await.unwrap().status() == 200
}

#[test]
fn operator_starts_when_a_mute_api_server_speaks_again() {
    for verbs in [&[Verb::List] as &[_], &[Verb::Watch], ALL] {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions::default());
            world.faults.mute(verbs, 5 * MINUTE);
            world.start(None);
            seconds(300.0).await;
            world.membership("m", 0, 0, json!({}));
            seconds(RECOVERY).await;
            assert_joined(&world, "m");
        });
    }
}

#[test]
fn list_without_an_answer_is_made_anew() {
    in_virtual_time(|| async {
        let (world, _) = start();
        seconds(1.0).await;
        // The event of this object ends the watch, and the list after it gets no answer.
        world.faults.lose_events(MEMBERSHIPS, 1);
        world.faults.mute(&[Verb::List], 2 * MINUTE);
        world.membership("m", 0, 0, json!({}));
        seconds(120.0 + RECOVERY).await;
        assert_joined(&world, "m");
    });
}

#[test]
fn operator_is_alive_while_nothing_happens_or_the_api_server_is_mute() {
    in_virtual_time(|| async {
        let (world, telemetry) = start();
        for mute in [false, true] {
            if mute {
                world.faults.mute(ALL, 30 * MINUTE);
            }
            for _ in 0..30 * 6 {
                seconds(10.0).await;
                assert!(is_alive(&telemetry).await, "mute: {mute}");
            }
        }
        world.membership("m", 0, 0, json!({}));
        seconds(RECOVERY).await;
        assert_joined(&world, "m");
    });
}

/// From its start, or later.
#[test]
fn cloud_that_is_down_makes_no_probe_fail() {
    for (running, silent) in [(false, false), (false, true), (true, false), (true, true)] {
        in_virtual_time(|| async move {
            let down = |world: &World| {
                if silent {
                    world.faults.silence_hosts(&["ecs.test", "sts.test"]);
                } else {
                    world.faults.set_hosts(Vec::new());
                }
            };
            let mut world = World::new(SimOptions::default());
            let telemetry = Arc::new(Telemetry::default());
            world.membership("m", 0, 0, json!({}));
            if !running {
                down(&world);
            }
            world.start_over(vec![WatchScope::All], &telemetry);
            seconds(RECOVERY).await;
            if running {
                assert_joined(&world, "m");
                down(&world);
            }
            let _ = world.faults.take_called_hosts();
            for _ in 0..60 * 6 {
                seconds(10.0).await;
                for path in ["/livez", "/readyz"] {
                    assert!(
                        answers(&telemetry, path).await,
                        "{path}, running: {running}, silent: {silent}"
                    );
                }
            }
            assert!(!world.faults.take_called_hosts().is_empty());
            assert_ne!(ready(&world, "m").0, "True");
        });
    }
}

/// The operator watches Nodes only while a set selects some, or while it looks for conditions that it has left on them.
#[test]
fn watch_of_nodes_that_ends_makes_no_probe_fail() {
    for node_conditions in [false, true] {
        in_virtual_time(move || async move {
            let mut world = Judged::new();
            let telemetry = Arc::new(Telemetry::default());
            world.faults.record_requests();
            if node_conditions {
                world.start_with_node_conditions(&telemetry);
            } else {
                world.start_over(vec![WatchScope::All], &telemetry);
            }
            sets::node(&world, 0, sets::web());
            let by_nodes = json!({"nodeSelector": {"matchLabels": sets::web()}});
            for spec in [by_nodes, json!({"instanceIDs": ["i-0"]})] {
                // Without a set that selects Nodes, and with one, for longer than a watch may be silent.
                for _ in 0..60 {
                    seconds(10.0).await;
                    assert!(is_alive(&telemetry).await, "conditions: {node_conditions}");
                }
                sets::apply(&world, spec);
            }
            for _ in 0..60 {
                seconds(10.0).await;
                assert!(is_alive(&telemetry).await, "conditions: {node_conditions}");
            }
            let watches = |call: &Call| call.kind.plural == "nodes" && call.verb == Verb::Watch;
            assert!(
                !world.faults.recorded(watches).is_empty(),
                "it has watched Nodes"
            );
        });
    }
}
