//! Crowds: hundreds of objects of one account and region, most of them deleted while they wait. What was kept for them must not
//! hold up the next object.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::json;
use tokio::time::Instant;

use crate::monitor::{MEMBERSHIPS, condition};
use crate::scenario::{object, seconds};
use crate::topology::NAMESPACE;
use crate::world::{SimOptions, World};

/// More than the passes in flight of one account and region.
const CROWD: usize = 300;

/// A new object is Ready within two round trips (of 22 ms each to the cloud) and a second, when no other waits for anything.
const AT_ONCE: Duration = Duration::from_millis(1_100);

pub struct Crowd {
    seed: u64,
    /// Joins per minute.
    limit: u32,
    /// Seconds after which it is deleted.
    deleted_after: f64,
}

impl Crowd {
    pub fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        Self {
            seed,
            limit: random.random_range(20..200),
            deleted_after: match random.random_range(0..3) {
                0 => random.random_range(0.0..0.05),
                1 => random.random_range(0.05..1.0),
                _ => random.random_range(1.0..60.0),
            },
        }
    }
}

/// Applies a crowd, deletes it while it waits, and creates one more object when all are gone and the next minute has begun.
pub async fn run(crowd: &Crowd) -> Vec<String> {
    let mut world = World::new(SimOptions {
        seed: crowd.seed,
        ..SimOptions::default()
    });
    let name = |number: usize| format!("i-bulk{number}");
    for number in 0..=CROWD {
        let instance =
            json!({"id": name(number), "securityGroupIds": ["sg-base"], "status": "Running"});
        world.cloud(json!({"createInstance": instance}));
    }
    world.cloud(json!({"set": {"limits": {"JoinSecurityGroup": crowd.limit}}}));
    world.start(None);
    seconds(1.0).await;
    let create = |world: &World, number: usize| {
        let spec =
            json!({"region": "cn-hangzhou", "instanceID": name(number), "securityGroupID": "sg-a"});
        let object = json!({"metadata": {"name": name(number)}, "spec": spec});
        world.create(MEMBERSHIPS, NAMESPACE, object);
    };
    for number in 0..CROWD {
        create(&world, number);
    }
    seconds(crowd.deleted_after).await;
    for number in 0..CROWD {
        world.delete(&name(number));
    }
    let deleted = Instant::now();
    while !world.objects().is_empty() {
        if deleted.elapsed() > Duration::from_secs(3_600) {
            return vec![format!("Crowd: {} objects stay", world.objects().len())];
        }
        seconds(0.5).await;
    }
    let now = world.server.now().as_millisecond();
    tokio::time::sleep(Duration::from_millis(
        u64::try_from(60_000 - now % 60_000).unwrap(),
    ))
    .await;
    create(&world, CROWD);
    let created = Instant::now();
    let is_ready = |world: &World| {
        let object = object(world, &name(CROWD)).unwrap();
        condition(&object, "Ready").is_some_and(|ready| ready["status"] == "True")
    };
    while !is_ready(&world) && created.elapsed() < Duration::from_secs(3_600) {
        seconds(0.01).await;
    }
    let mut problems = world.monitor.violations();
    if created.elapsed() > AT_ONCE {
        problems.push("Crowd: a new object waited for objects that were gone".to_owned());
    }
    problems
}
