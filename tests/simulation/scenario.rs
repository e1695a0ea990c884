//! What the small scenarios share: a world whose operator runs, waits, and what an object says.

use std::sync::Arc;
use std::time::Duration;

use security_group_operator::api::INTENT_ANNOTATION;
use serde_json::{Value, json};

use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::topology::{KEYS, NAMESPACE};
use crate::world::{SimOptions, World};

pub async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// A world whose operator has seen the account, and runs for longer than what it reads may be older than its start.
pub async fn world() -> World {
    lagging_world(0).await
}

/// The same, with a cloud whose reads lag for so many seconds.
pub async fn lagging_world(lag: u64) -> World {
    let mut world = World::new(SimOptions {
        lag: Duration::from_secs(lag),
        ..SimOptions::default()
    });
    world.start(None);
    seconds(11.0).await;
    world
}

/// The record of an object, or else `Joined` for its intent; empty without both. What names another object is none.
pub fn claimed(object: &Value) -> &str {
    let uid = &object["metadata"]["uid"];
    if &object["status"]["objectUID"] == uid
        && let Some(origin) = object["status"]["origin"].as_str()
    {
        return origin;
    }
    let intent = object["metadata"]["annotations"][INTENT_ANNOTATION].as_str();
    let is_own = |intent: &&str| intent.contains(uid.as_str().unwrap_or_default());
    intent.filter(is_own).map_or("", |_| "Joined")
}

/// The object of this name as it is stored.
pub fn object(world: &World, name: &str) -> Option<Arc<Value>> {
    world.server.object(MEMBERSHIPS, NAMESPACE, name)
}

/// Status and reason of Ready.
pub fn ready(world: &World, name: &str) -> (String, String) {
    let object = object(world, name).unwrap();
    let ready = condition(&object, "Ready").unwrap();
    (text(ready, "/status"), text(ready, "/reason"))
}

/// Message of Ready.
pub fn message(world: &World, name: &str) -> String {
    let object = object(world, name).unwrap();
    text(condition(&object, "Ready").unwrap(), "/message")
}

/// The reasons of the events of an object, in order of the alphabet.
pub fn told(world: &World, name: &str) -> Vec<String> {
    let events = world.server.objects("events");
    let of_object = events
        .iter()
        .filter(|event| text(event, "/regarding/name") == name);
    let mut reasons: Vec<_> = of_object.map(|event| text(event, "/reason")).collect();
    reasons.sort();
    reasons
}

/// How often an action was called, with any result.
pub fn calls(world: &World, action: &str) -> u64 {
    let stats = world.simulator.stats();
    let counts = stats["calls"][action].as_object();
    counts
        .into_iter()
        .flat_map(|counts| counts.values())
        .filter_map(Value::as_u64)
        .sum()
}

/// Has the next `count` calls of an action go wrong like this; see the manual of the simulator.
pub fn add_fault(world: &World, action: &str, count: u32, how: &Value) {
    let fault = json!({"action": action, "count": count, "fault": how});
    world
        .simulator
        .add_fault(serde_json::from_value(fault).unwrap());
}

/// The changes of the membership of i-0 in sg-a, as the cloud's journal has them.
pub fn journal(world: &World) -> Vec<String> {
    world.monitor.read_journal();
    let entries = world.simulator.journal_from(0).into_iter();
    let of_edge =
        entries.filter(|entry| entry["target"] == "i-0" && entry["securityGroupId"] == "sg-a");
    of_edge
        .map(|entry| {
            let key = KEYS.iter().position(|(id, _, _)| entry["by"] == *id);
            let who = match key {
                Some(0) => "the operator",
                Some(_) => "the second operator",
                None => "another actor",
            };
            let what = if entry["action"] == "JoinSecurityGroup" {
                "joined"
            } else {
                "left"
            };
            format!("{who} {what}")
        })
        .collect()
}

/// The exceptions from the rules of ownership that the monitor has counted.
pub fn exceptions(world: &World) -> Vec<(&'static str, u64)> {
    let counts = world.monitor.counts().into_iter();
    let of_exceptions = counts.filter_map(|(word, count)| {
        let name = word.strip_prefix("exception ")?;
        Some((name, count))
    });
    of_exceptions.collect()
}
