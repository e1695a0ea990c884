//! Regions that do not answer, and regions that a user invented: each costs a few calls and nobody else anything.

use std::collections::BTreeMap;
use std::sync::Arc;

use security_group_operator::kubernetes::WatchScope;
use security_group_operator::telemetry::{self, Telemetry};
use serde_json::json;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::scenario::{object, ready, seconds};
use crate::topology::{ACCOUNTS, CLUSTER, GUESTS, NAMESPACE, TEAMS};
use crate::world::{SimOptions, World};

const HANGZHOU: &str = "ecs.cn-hangzhou.test";
const BEIJING: &str = "ecs.cn-beijing.test";

/// A world whose regions have hosts of their own, and the operator's metrics.
async fn world() -> (World, Arc<Telemetry>) {
    let mut world = World::new(SimOptions::default());
    set_endpoint(&world, "https://ecs.{region}.test");
    let hosts = ["sts.test", "ecs.test", HANGZHOU, BEIJING, "ecs.dead.test"];
    world.faults.set_hosts(hosts.map(str::to_owned).to_vec());
    let telemetry = Arc::new(Telemetry::default());
    world.start_over(vec![WatchScope::All], &telemetry);
    seconds(1.0).await;
    (world, telemetry)
}

fn set_endpoint(world: &World, ecs: &str) {
    let account = &ACCOUNTS[CLUSTER];
    let spec = json!({"spec": {"endpoints": {"ecs": ecs}}});
    let reply = world.user(Verb::Merge, account.plural, "", account.name, spec);
    assert_eq!(reply.code, 200, "{}", reply.body);
}

fn invented(number: usize) -> String {
    let letters = |number: usize| char::from(b'a' + u8::try_from(number % 26).unwrap());
    format!("xx-{}{}", letters(number / 26), letters(number))
}

/// An object in a namespace of guests that names an invented region.
fn create_in(world: &World, region: &str) {
    let spec = json!({"region": region, "instanceID": "i-0", "securityGroupID": "sg-a"});
    let object = json!({"metadata": {"name": region}, "spec": spec});
    let reply = world.create(MEMBERSHIPS, GUESTS, object);
    assert_eq!(reply.code, 201, "{}", reply.body);
}

fn message(world: &World, namespace: &str, name: &str) -> String {
    let object = world.server.object(MEMBERSHIPS, namespace, name).unwrap();
    text(condition(&object, "Ready").unwrap(), "/message")
}

pub async fn metrics(telemetry: &Arc<Telemetry>) -> String {
    let request = http::Request::get("/metrics").body(axum::body::Body::empty());
    let answer = telemetry::routes(Arc::clone(telemetry)).oneshot(request.unwrap());
    let body = answer.await.unwrap().into_body();
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Series of the metric that has regions, without those of known ones.
async fn region_series(telemetry: &Arc<Telemetry>) -> Vec<String> {
    let text = metrics(telemetry).await;
    let calls = text
        .lines()
        .filter(|line| line.starts_with("security_group_operator_cloud_calls_total{"));
    let series =
        calls.filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series.to_owned()));
    series
        .filter(|series| !series.contains("\"cn-hangzhou\""))
        .collect()
}

fn invented_calls(calls: &BTreeMap<String, usize>) -> usize {
    let invented = calls.iter().filter(|(host, _)| host.starts_with("ecs.xx-"));
    invented.map(|(_, count)| count).sum()
}

#[test]
fn four_hundred_invented_regions_cost_a_few_look_ups_and_no_series() {
    in_virtual_time(|| async {
        let (world, telemetry) = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(100.0).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        world.faults.take_called_hosts();
        seconds(600.0).await;
        let before = world.faults.take_called_hosts();
        let regions: Vec<String> = (0..400).map(invented).collect();
        for region in &regions {
            create_in(&world, region);
        }
        seconds(5.0).await;
        let calls = world.faults.take_called_hosts();
        assert_eq!(invented_calls(&calls), 8, "{calls:?}");
        world.membership("late", 1, 0, json!({}));
        seconds(1.0).await;
        assert_eq!(ready(&world, "late").1, "Joined");
        world.faults.take_called_hosts();
        seconds(600.0).await;
        let calls = world.faults.take_called_hosts();
        // One at a time, a minute apart.
        assert!(invented_calls(&calls) <= 12, "{calls:?}");
        assert_eq!(calls.get(HANGZHOU), before.get(HANGZHOU), "ten scans");
        for region in [&regions[0], &regions[399]] {
            let message = message(&world, GUESTS, region);
            for part in ["check spec.region", "next try in 1s (backs off to 5m)"] {
                assert!(message.contains(part), "no {part:?} in: {message}");
            }
        }
        let series = region_series(&telemetry).await;
        assert_eq!(series.len(), 1, "{series:?}");
        assert!(series[0].contains("region=\"other\""), "{series:?}");
        // Says nothing of the account.
        let account = &ACCOUNTS[CLUSTER];
        let account = world
            .server
            .object(account.plural, "", account.name)
            .unwrap();
        assert_eq!(condition(&account, "Reachable").unwrap()["status"], "True");
        for region in &regions {
            world.delete(&format!("{GUESTS}/{region}"));
        }
        seconds(5.0).await;
        assert_eq!(world.objects().len(), 2);
        world.faults.take_called_hosts();
        seconds(600.0).await;
        let calls = world.faults.take_called_hosts();
        assert_eq!(invented_calls(&calls), 0, "{calls:?}");
        assert_eq!(calls.get(HANGZHOU), before.get(HANGZHOU));
    });
}

#[test]
fn unknown_regions_that_answer_are_used_like_any_other() {
    in_virtual_time(|| async {
        let (world, telemetry) = world().await;
        let regions: Vec<String> = (0..20).map(invented).collect();
        let hosts = regions.iter().map(|region| format!("ecs.{region}.test"));
        world
            .faults
            .set_hosts(hosts.chain(["sts.test".to_owned()]).collect());
        for region in &regions {
            create_in(&world, region);
        }
        seconds(5.0).await;
        for region in &regions {
            let object = world.server.object(MEMBERSHIPS, GUESTS, region).unwrap();
            let reason = &condition(&object, "Ready").unwrap()["reason"];
            assert_eq!(
                reason, "InvalidRegionIdNotFound",
                "the cloud has answered: {region}"
            );
        }
        let calls = world.faults.take_called_hosts();
        // More than eight at a time are refused, and asked once more when the region answers.
        assert_eq!(invented_calls(&calls), 8 + 2 * 12, "{calls:?}");
        assert_eq!(region_series(&telemetry).await.len(), 1);
    });
}

/// Objects of their own targets in a region.
fn create_bulk(world: &World, count: usize) {
    for number in 0..count {
        let id = format!("i-bulk{number}");
        let instance = json!({"id": id, "securityGroupIds": ["sg-base"], "status": "Running"});
        world.cloud(json!({"createInstance": instance}));
        let spec = json!({"region": "cn-hangzhou", "instanceID": id, "securityGroupID": "sg-a"});
        let object = json!({"metadata": {"name": id}, "spec": spec});
        world.create(MEMBERSHIPS, NAMESPACE, object);
    }
}

#[test]
fn silent_region_is_probed_by_one_call_at_a_time_and_found_again() {
    in_virtual_time(|| async {
        let (world, _) = world().await;
        world.faults.silence_hosts(&[HANGZHOU]);
        create_bulk(&world, 300);
        seconds(60.0).await;
        world.faults.take_called_hosts();
        seconds(600.0).await;
        let calls = world.faults.take_called_hosts()[HANGZHOU];
        assert!((8..=12).contains(&calls), "one a minute: {calls}");
        let message = message(&world, NAMESPACE, "i-bulk299");
        for part in [
            "DescribeInstances got no answer: no complete answer within 10 s",
            "check that the operator's pod reaches the cloud's endpoint",
            "next try in 1s (backs off to 5m)",
        ] {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
        // Another region is not held up.
        world.membership("m", 5, 0, json!({}));
        seconds(1.0).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        world.faults.silence_hosts(&[]);
        seconds(75.0).await;
        for number in 0..300 {
            assert_eq!(
                ready(&world, &format!("i-bulk{number}")).1,
                "Joined",
                "{number}"
            );
        }
    });
}

#[test]
fn account_whose_endpoint_is_dead_delays_no_other_of_its_cloud_account() {
    in_virtual_time(|| async {
        let (world, _) = world().await;
        set_endpoint(&world, "https://ecs.dead.test");
        world.faults.silence_hosts(&["ecs.dead.test"]);
        world.write_secret(TEAMS, 1);
        world.account(TEAMS, true);
        seconds(1.0).await;
        create_bulk(&world, 600);
        seconds(1.0).await;
        let own = json!({"accountRef": {"kind": "CloudAccount", "name": "own"}});
        world.membership("m", 0, 0, own.clone());
        let created = Instant::now();
        while object(&world, "m")
            .is_none_or(|m| condition(&m, "Ready").is_none_or(|ready| ready["status"] != "True"))
        {
            assert!(
                created.elapsed().as_secs_f64() < 1.1,
                "{:?}",
                object(&world, "m")
            );
            seconds(0.01).await;
        }
        seconds(120.0).await;
        world.membership("late", 1, 0, own);
        seconds(1.1).await;
        assert_eq!(ready(&world, "late").1, "Joined");
    });
}
