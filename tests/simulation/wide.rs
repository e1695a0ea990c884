//! What happens in the wide schedules only: watches that fall silent, keys of unequal rights, reads that list nothing, primary
//! interfaces, specs that cannot be read, operators that watch some namespaces, and a Describe that lags for nearly as long as the
//! design allows.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::monitor::{MEMBERSHIPS, text};
use crate::schedule::{Act, Schedule, policies};
use crate::topology::{ACCOUNTS, KEYS, NAMES, PRIMARY};
use crate::world::{Scopes, SimOptions, World};

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum WideAct {
    /// The watches of a kind stay open and show nothing.
    Silence {
        kind: &'static str,
        seconds: u64,
        /// Whether the connection breaks at the end.
        breaks: bool,
    },
    /// RAM denies an action to a key: the cloud refuses it, or lists nothing.
    Deny {
        key: usize,
        action: &'static str,
        lists_nothing: bool,
    },
    /// RAM denies nothing to a key.
    Allow { key: usize },
    /// An object of the primary interface of an instance.
    Primary {
        name: usize,
        group: usize,
        policies: Value,
    },
    /// The spec of an object cannot be read by this version of the operator.
    Blur { name: usize },
    /// It can be read again.
    Clear { name: usize },
    /// So few Joins and Leaves a minute that they queue for minutes; `None`: any number.
    Queue { calls: Option<u32> },
}

/// What is counted in a run of wide schedules.
pub const WORDS: [&str; 20] = [
    "silent watch of memberships",
    "silent watch of accounts",
    "silent watch of Secrets or namespaces",
    "silent watch that breaks",
    "right denied",
    "right given back",
    "call refused for want of a right",
    "read that lists nothing of what is there",
    "primary interface",
    "unreadable spec",
    "readable again",
    "calls that queue",
    "calls that queue no more",
    "operator of two namespaces",
    "operator of one namespace",
    "two operators apart",
    "lag of more than 5 s",
    "effect more than 60 s late",
    "deletion of an unreadable object",
    "Leave beside a silent watch",
];

impl Schedule {
    /// The schedule of a seed with all that can happen.
    pub fn draw_wide(seed: u64) -> Self {
        let mut schedule = Self::draw_known_wide(seed);
        let mut random = StdRng::seed_from_u64(seed ^ 0x71de_71de);
        let random = &mut random;
        let options = &mut schedule.options;
        options.rates.latest = LATEST;
        if random.random_bool(0.25) {
            options.lag = Duration::from_millis(random.random_range(5_000..=10_000));
        }
        options.scopes = match random.random_range(0..100) {
            0..12 => Scopes::Each,
            12..20 => Scopes::One,
            20..28 => Scopes::Apart,
            _ => Scopes::All,
        };
        for _ in 0..random.random_range(0..5) {
            schedule.add(random);
        }
        schedule.acts.sort_by_key(|(at, _)| *at);
        schedule
    }

    /// Adds one thing, and its end.
    fn add(&mut self, random: &mut StdRng) {
        let at = self.some_time(random);
        let name = random.random_range(0..NAMES.len());
        let (act, end) = match random.random_range(0..11) {
            0..4 => (silence(random), None),
            4..7 => {
                let (key, lists_nothing) = (random.random_range(0..2), random.random_bool(0.6));
                if key > 0 {
                    // Beside an account whose key sees all.
                    let account = random.random_range(1..ACCOUNTS.len());
                    let there = true;
                    let secret = Act::Secret {
                        account,
                        there,
                        key,
                    };
                    self.acts.push((at, secret));
                }
                let action = ACTIONS[random.random_range(0..ACTIONS.len())];
                let deny = WideAct::Deny {
                    key,
                    action,
                    lists_nothing,
                };
                (deny, Some(WideAct::Allow { key }))
            }
            7 => {
                let (group, policies) = (random.random_range(0..2), policies(random, 0.25));
                let primary = WideAct::Primary {
                    name,
                    group,
                    policies,
                };
                (primary, None)
            }
            8 => {
                let calls = Some(random.random_range(1..3));
                let over = WideAct::Queue { calls: None };
                (WideAct::Queue { calls }, Some(over))
            }
            _ => (WideAct::Blur { name }, Some(WideAct::Clear { name })),
        };
        self.acts.push((at, Act::Wide(act)));
        if let Some(end) = end {
            let after = Duration::from_millis(random.random_range(1_000..300_000));
            self.acts.push((at + after, Act::Wide(end)));
        }
    }

    /// A moment shortly before or after something else happens.
    fn some_time(&self, random: &mut StdRng) -> Duration {
        let (at, _) = &self.acts[random.random_range(0..self.acts.len())];
        let apart = Duration::from_millis(match random.random_range(0..3) {
            0 => random.random_range(1..100),
            1 => random.random_range(100..5_000),
            _ => random.random_range(5_000..60_000),
        });
        if random.random_bool(0.5) {
            at.saturating_sub(apart)
        } else {
            *at + apart
        }
    }
}

/// The deadline of a Join: what is sent has its effect within that, or never.
const LATEST: Duration = Duration::from_secs(66);

const ACTIONS: [&str; 5] = [
    "ecs:DescribeInstances",
    "ecs:DescribeNetworkInterfaces",
    "ecs:Describe*",
    "ecs:LeaveSecurityGroup",
    "ecs:*",
];

fn silence(random: &mut StdRng) -> WideAct {
    let kind = match random.random_range(0..10) {
        0..7 => MEMBERSHIPS,
        7 => "clustercloudaccounts",
        8 => "cloudaccounts",
        _ => ["secrets", "namespaces"][random.random_range(0..2)],
    };
    WideAct::Silence {
        kind,
        seconds: random.random_range(60..=235),
        breaks: random.random_bool(0.5),
    }
}

impl WideAct {
    /// What it is called in the counts.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Silence { kind, .. } => match kind.as_bytes() {
                b"securitygroupmemberships" => "silent watch of memberships",
                b"clustercloudaccounts" | b"cloudaccounts" => "silent watch of accounts",
                _ => "silent watch of Secrets or namespaces",
            },
            Self::Deny { .. } => "right denied",
            Self::Allow { .. } => "right given back",
            Self::Primary { .. } => "primary interface",
            Self::Blur { .. } => "unreadable spec",
            Self::Clear { .. } => "readable again",
            Self::Queue { calls: Some(_) } => "calls that queue",
            Self::Queue { calls: None } => "calls that queue no more",
        }
    }

    pub fn happen(&self, world: &World) {
        match self {
            Self::Silence {
                kind,
                seconds,
                breaks,
            } => {
                if *breaks {
                    world.monitor.count("silent watch that breaks");
                }
                world.silence(kind, Duration::from_secs(*seconds), *breaks);
            }
            Self::Deny {
                key,
                action,
                lists_nothing,
            } => {
                let answer = if *lists_nothing {
                    "EmptyList"
                } else {
                    "Forbidden"
                };
                world.cloud(json!({"set": {"deniedReads": answer}}));
                let deny = json!([{"action": action}]);
                world.cloud(json!({"deny": {"id": KEYS[*key].0, "deny": deny}}));
                world.monitor.upheaval();
            }
            Self::Allow { key } => {
                world.cloud(json!({"allow": {"id": KEYS[*key].0}}));
                world.monitor.upheaval();
            }
            Self::Primary {
                name,
                group,
                policies,
            } => {
                world.membership(NAMES[*name], PRIMARY, *group, policies.clone());
            }
            Self::Blur { name } => {
                let reply = world.patch(NAMES[*name], json!({"spec": {"driftPolicy": UNREADABLE}}));
                if reply.body["metadata"].get("deletionTimestamp").is_some() {
                    world.monitor.count("deletion of an unreadable object");
                }
            }
            Self::Clear { name } => clear(world, NAMES[*name]),
            Self::Queue { calls } => limit(world, *calls),
        }
    }
}

/// A value that this version does not know.
pub const UNREADABLE: &str = "Ask";

fn clear(world: &World, name: &str) {
    world.patch(name, json!({"spec": {"driftPolicy": "Repair"}}));
}

fn limit(world: &World, calls: Option<u32>) {
    let limits = json!({"JoinSecurityGroup": calls, "LeaveSecurityGroup": calls});
    world.cloud(json!({"set": {"limits": limits}}));
}

/// Every key has all rights, and every spec can be read.
pub fn heal(world: &World) {
    for (id, _, _) in KEYS {
        world.cloud(json!({"allow": {"id": id}}));
    }
    world.cloud(json!({"set": {"deniedReads": "Forbidden"}}));
    limit(world, None);
    for object in world.objects() {
        if object["spec"]["driftPolicy"] == UNREADABLE {
            let metadata = |field| text(&object["metadata"], field);
            clear(
                world,
                &format!("{}/{}", metadata("/namespace"), metadata("/name")),
            );
        }
    }
}

/// Counts what is so in a whole schedule.
pub fn count_options(world: &World, options: &SimOptions) {
    let scopes = match options.scopes {
        Scopes::All => None,
        Scopes::Each => Some("operator of two namespaces"),
        Scopes::One => Some("operator of one namespace"),
        Scopes::Apart => Some("two operators apart"),
    };
    if let Some(scopes) = scopes {
        world.monitor.count(scopes);
    }
    if options.lag > Duration::from_secs(5) {
        world.monitor.count("lag of more than 5 s");
    }
}
