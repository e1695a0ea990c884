//! What the small scenarios share: a world whose operator runs, waits, and what an object says.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::topology::NAMESPACE;
use crate::world::{SimOptions, World};

pub async fn seconds(seconds: f64) {
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
}

/// A world whose operator has seen the account.
pub async fn world() -> World {
    let mut world = World::new(SimOptions::default());
    world.start(None);
    seconds(1.0).await;
    world
}

pub fn object(world: &World, name: &str) -> Option<Arc<Value>> {
    world.server.object(MEMBERSHIPS, NAMESPACE, name)
}

/// Status and reason of Ready.
pub fn ready(world: &World, name: &str) -> (String, String) {
    let object = object(world, name).unwrap();
    let ready = condition(&object, "Ready").unwrap();
    (text(ready, "/status"), text(ready, "/reason"))
}

/// Has the next `count` calls of an action go wrong like this; see the manual of the simulator.
pub fn add_fault(world: &World, action: &str, count: u32, how: &Value) {
    let fault = json!({"action": action, "count": count, "fault": how});
    world
        .simulator
        .add_fault(serde_json::from_value(fault).unwrap());
}
