//! Instances of Karpenter in some of the schedules with sets: they carry its tags, and sets join them or not. They are drawn beside the
//! other acts, with random numbers of their own, so that the other acts of each seed stay what they were.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use super::acts::{INSTANCES, MemberAct, SET_NAMES, SetAct, put_set};
use crate::monitor::sets::KARPENTER_TAGS;
use crate::world::World;

/// What happens about Karpenter.
#[derive(Clone, Debug)]
pub enum KarpenterAct {
    /// An instance is Karpenter's from now on.
    Launched { instance: usize, tag: usize },
    /// A set comes to join instances of Karpenter, or not to.
    Policy { set: usize, policy: &'static str },
}

/// What is counted.
pub const WORDS: [&str; 5] = [
    "instance of Karpenter",
    "set with karpenterPolicy Join",
    "set with karpenterPolicy Refuse",
    "instance of Karpenter joined under Join",
    "instance of Karpenter refused",
];

/// Adds them to every seventh schedule; to none that has found a fault (`found.rs`), so that each of these stays what it was.
pub fn add(acts: &mut Vec<(Duration, SetAct)>, seed: u64, sets: usize) {
    if seed % 7 != 3 {
        return;
    }
    let mut random = StdRng::seed_from_u64(!(seed ^ 0x5e75));
    let random = &mut random;
    let end = acts.last().map_or(Duration::ZERO, |(at, _)| *at);
    let some_time = |random: &mut StdRng| end.mul_f64(random.random_range(0.0..1.0));
    for _ in 0..random.random_range(1..4) {
        // Most of them before anybody looks at them.
        let at = if random.random_bool(0.7) {
            Duration::from_millis(1)
        } else {
            some_time(random)
        };
        let instance = random.random_range(0..INSTANCES.len());
        let tag = random.random_range(0..KARPENTER_TAGS.len());
        let launched = KarpenterAct::Launched { instance, tag };
        acts.push((at, SetAct::Karpenter(launched)));
    }
    let is_set = |act: &SetAct| matches!(act, SetAct::Set { .. });
    let first = acts.iter().find(|(_, act)| is_set(act)).map(|(at, _)| *at);
    for _ in 0..random.random_range(0..4) {
        // From the beginning of the sets, or later.
        let at = match first {
            Some(first) if random.random_bool(0.5) => first,
            _ => some_time(random),
        };
        let set = random.random_range(0..sets);
        let policy = ["Join", "Join", "Refuse"][random.random_range(0..3)];
        let act = KarpenterAct::Policy { set, policy };
        acts.push((at, SetAct::Karpenter(act)));
    }
    if random.random_bool(0.3) {
        let which = random.random_range(0..16);
        let policy = ["Join", "Refuse"][random.random_range(0..2)];
        let what = MemberAct::Patch(json!({"karpenterPolicy": policy}));
        acts.push((some_time(random), SetAct::Member { which, what }));
    }
    acts.sort_by_key(|(at, _)| *at);
}

impl KarpenterAct {
    pub fn happen(&self, world: &World) {
        match self {
            Self::Launched { instance, tag } => {
                world.monitor.count(WORDS[0]);
                let id = INSTANCES[*instance];
                let mut tags = world.monitor.tags_of(id);
                tags.insert(KARPENTER_TAGS[*tag].to_owned(), "general".to_owned());
                world.cloud(json!({"setTags": {"id": id, "tags": tags}}));
            }
            Self::Policy { set, policy } => {
                world.monitor.count(if *policy == "Join" {
                    WORDS[1]
                } else {
                    WORDS[2]
                });
                let spec = json!({"karpenterPolicy": policy});
                put_set(world, SET_NAMES[*set], &spec, false);
            }
        }
    }
}

/// The tags that an instance gets from a user, with those that Karpenter has put on it: nobody takes these off.
pub fn with_kept_tags(world: &World, id: &str, tags: &Value) -> Value {
    let mut all = tags.clone();
    for (key, value) in world.monitor.tags_of(id) {
        if KARPENTER_TAGS.contains(&key.as_str()) {
            all[key] = json!(value);
        }
    }
    all
}
