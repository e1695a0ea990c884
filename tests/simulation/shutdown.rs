//! SIGTERM in the middle of work: what is under way ends and is recorded, nothing more begins, and the next process does the
//! rest.

use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt as _;
use security_group_operator::telemetry::{self, Telemetry};
use serde_json::{Value, json};
use tower::ServiceExt as _;

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition};
use crate::scenario::{add_fault, calls, claimed, object, ready, seconds};
use crate::topology::{BULK_REGIONS, NAMESPACE, city};
use crate::world::{SimOptions, World};

const PER_REGION: usize = 40;
const OBJECTS: u64 = (BULK_REGIONS.len() * PER_REGION) as u64;
/// Calls that the operator makes at a time: 32 in each region.
const UNDER_WAY: u64 = (BULK_REGIONS.len() * 32) as u64;
const SIGTERM: f64 = 10.0;

/// The region and the name of each object, which is the ID of its instance.
fn bulk() -> impl Iterator<Item = (&'static str, String)> {
    let numbered = |number| BULK_REGIONS.map(move |region| (region, number));
    let all = (0..PER_REGION).flat_map(numbered);
    all.map(|(region, number)| (region, format!("i-bulk{}{number}", city(region))))
}

/// A cloud with an instance for each object, and a group for them in each region.
fn bulk_world() -> World {
    let world = World::new(SimOptions::default());
    for region in BULK_REGIONS {
        for group in ["base", "web"] {
            let group = json!({"id": format!("sg-{group}{}", city(region)), "region": region});
            world.cloud(json!({"createGroup": group}));
        }
    }
    for (region, name) in bulk() {
        let base = format!("sg-base{}", city(region));
        let instance =
            json!({"id": name, "region": region, "securityGroupIds": [base], "status": "Running"});
        world.cloud(json!({"createInstance": instance}));
    }
    world
}

fn create_all(world: &World) {
    for (region, name) in bulk() {
        let group = format!("sg-web{}", city(region));
        let spec = json!({"region": region, "instanceID": name, "securityGroupID": group});
        let object = json!({"metadata": {"name": name}, "spec": spec});
        world.create(MEMBERSHIPS, NAMESPACE, object);
    }
}

fn slow_down(world: &World, action: &str, latency: &str) {
    add_fault(world, action, 1_000, &json!({"latency": latency}));
}

/// An operator that gets SIGTERM after 10 seconds, a tenth of a second from now, while it joins 160 instances in four regions,
/// each of which takes a minute.
async fn busy() -> (World, Arc<Telemetry>) {
    let mut world = bulk_world();
    slow_down(&world, "JoinSecurityGroup", "60s");
    let telemetry = Arc::default();
    world.start_counted_until(&telemetry, seconds(SIGTERM));
    create_all(&world);
    seconds(SIGTERM - 0.1).await;
    assert_eq!(calls(&world, "JoinSecurityGroup"), UNDER_WAY);
    (world, telemetry)
}

/// The passes that have come to a result.
async fn passes(telemetry: &Arc<Telemetry>) -> u64 {
    let request = http::Request::get("/metrics").body(axum::body::Body::empty());
    let answer = telemetry::routes(Arc::clone(telemetry)).oneshot(request.unwrap());
    let body = answer.await.unwrap().into_body().collect().await.unwrap();
    let text = String::from_utf8(body.to_bytes().to_vec()).unwrap();
    let passes = text
        .lines()
        .filter(|line| line.contains("_reconcile_total{"));
    let counts = passes.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
    counts.sum()
}

/// The calls of all actions that have reached the cloud.
fn all_calls(world: &World) -> u64 {
    let stats = world.simulator.stats();
    let actions = stats["calls"].as_object().unwrap().keys();
    actions.map(|action| calls(world, action)).sum()
}

/// The objects of which this is true.
fn count(world: &World, is: impl Fn(&Value) -> bool) -> u64 {
    let objects = bulk().filter_map(|(_, name)| object(world, &name));
    objects.map(|object| u64::from(is(&object))).sum()
}

fn is_ready(object: &Value) -> bool {
    condition(object, "Ready").is_some_and(|ready| ready["status"] == "True")
}

fn is_claimed(object: &Value) -> bool {
    object["metadata"]["finalizers"].is_array()
}

#[test]
fn nothing_begins_after_sigterm_and_what_is_under_way_ends() {
    in_virtual_time(|| async {
        let (mut world, telemetry) = busy().await;
        let (begun, claimed) = (all_calls(&world), count(&world, is_claimed));
        let ended = passes(&telemetry).await;
        seconds(70.0).await;
        assert_eq!(all_calls(&world), begun);
        assert!(world.has_ended(0));
        assert_eq!(count(&world, is_ready), UNDER_WAY);
        assert_eq!(count(&world, is_claimed), claimed);
        assert_eq!(passes(&telemetry).await, ended + UNDER_WAY);

        world.simulator.set_faults(Vec::new());
        world.start(None);
        seconds(60.0).await;
        assert_eq!(count(&world, is_ready), OBJECTS);
        assert_eq!(calls(&world, "JoinSecurityGroup"), OBJECTS);
        assert_eq!(world.monitor.violations(), [""; 0]);
    });
}

#[test]
fn write_that_waits_for_its_turn_at_sigterm_does_not_begin() {
    in_virtual_time(|| async {
        let mut world = bulk_world();
        world.start_until(None, seconds(SIGTERM));
        seconds(1.0).await;
        // Eight writes at a time.
        world.faults.slow_down_api(2_000);
        create_all(&world);
        seconds(SIGTERM - 1.1).await;
        let (begun, claimed) = (all_calls(&world), count(&world, is_claimed));
        assert!((1..OBJECTS / 2).contains(&claimed), "{claimed}");
        // The statuses after Joins that were answered are records, and are written.
        seconds(20.0).await;
        assert!(world.has_ended(0));
        assert_eq!(all_calls(&world), begun);
        assert_eq!(count(&world, is_ready), calls(&world, "JoinSecurityGroup"));
        let written = count(&world, is_claimed) - claimed;
        assert!(written <= 8, "{written}");
    });
}

#[test]
fn scans_begin_no_call_after_sigterm() {
    in_virtual_time(|| async {
        let mut world = bulk_world();
        world.start_until(None, seconds(200.0));
        create_all(&world);
        seconds(190.0).await;
        assert_eq!(count(&world, is_ready), OBJECTS);
        let scanned = calls(&world, "DescribeInstances");
        // Keeps the operator from its end for more than a scan period.
        slow_down(&world, "JoinSecurityGroup", "64s");
        world.membership("m", 0, 0, json!({}));
        seconds(9.9).await;
        assert!(scanned < calls(&world, "DescribeInstances"));
        let begun = all_calls(&world);
        seconds(50.0).await;
        assert!(!world.has_ended(0));
        seconds(10.0).await;
        assert!(world.has_ended(0));
        assert_eq!(all_calls(&world), begun);
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn check_of_an_account_begins_no_call_after_sigterm() {
    // The list, the read of the Secret and the write of the status take 2 s each.
    for sigterm in [1.0, 3.0, 5.0] {
        in_virtual_time(|| async move {
            let mut world = World::new(SimOptions::default());
            world.faults.slow_down_api(2_000);
            world.start_until(None, seconds(sigterm));
            seconds(sigterm - 0.1).await;
            let begun = all_calls(&world);
            seconds(10.0).await;
            assert!(world.has_ended(0));
            assert_eq!(all_calls(&world), begun, "SIGTERM after {sigterm} s");
        });
    }
}

/// An operator that gets SIGTERM while the cloud takes half a minute for the call of one object, and has ended then.
async fn end_during(action: &str, lag: Duration, work: impl Fn(&World)) -> World {
    let mut world = World::new(SimOptions {
        lag,
        ..SimOptions::default()
    });
    world.start_until(None, seconds(SIGTERM + 10.0));
    work(&world);
    seconds(SIGTERM).await;
    slow_down(&world, action, "30s");
    world
}

#[test]
fn answer_after_sigterm_that_another_has_joined_corrects_the_claim() {
    in_virtual_time(|| async {
        let lag = Duration::from_secs(300);
        let join = |world: &World| world.foreign(0, 0, true);
        let world = end_during("JoinSecurityGroup", lag, join).await;
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        assert_eq!(claimed(&object(&world, "m").unwrap()), "Joined");
        seconds(35.0).await;
        assert!(world.has_ended(0));
        let kept = object(&world, "m").unwrap();
        assert_eq!(claimed(&kept), "Adopted");
        assert_eq!(
            ready(&world, "m"),
            ("True".to_owned(), "Adopted".to_owned())
        );
    });
}

#[test]
fn object_goes_when_its_leave_is_answered_after_sigterm() {
    in_virtual_time(|| async {
        let create = |world: &World| drop(world.membership("m", 0, 0, json!({})));
        let world = end_during("LeaveSecurityGroup", Duration::ZERO, create).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
        world.delete("m");
        seconds(5.0).await;
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 1);
        seconds(35.0).await;
        assert!(world.has_ended(0));
        assert!(object(&world, "m").is_none());
    });
}

#[test]
fn mute_api_server_does_not_keep_the_operator_from_its_end() {
    for mute in [
        &[Verb::Apply] as &[_],
        &[Verb::List, Verb::Watch, Verb::Apply, Verb::Create],
    ] {
        in_virtual_time(|| async move {
            let (world, _) = busy().await;
            // No status can be written any more.
            world.faults.mute(mute, Duration::from_secs(600));
            world.faults.lose_events(MEMBERSHIPS, 1);
            let (_, last) = bulk().last().unwrap();
            world.delete(&last);
            let begun = all_calls(&world);
            seconds(70.2).await;
            assert!(world.has_ended(0), "{mute:?}");
            assert_eq!(all_calls(&world), begun);
        });
    }
}
