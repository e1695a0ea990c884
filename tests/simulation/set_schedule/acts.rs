//! What happens in a schedule with sets, and how it is drawn.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::garbage::Cascade;
use super::karpenter::{self, KarpenterAct};
use crate::api_server::Verb;
use crate::lies::TagLie;
use crate::link::KillPoint;
use crate::monitor::sets::{SETS, name_of};
use crate::monitor::text;
use crate::schedule::{Act, policies};
use crate::topology::{KEYS, TARGETS, place};
use crate::world::World;

/// Names of sets, as those of [`crate::topology::NAMES`].
pub const SET_NAMES: [&str; 3] = ["s", "t", "guest/u"];
/// Instances that Nodes may be, and that sets pick: all of the first region, and one of the second.
pub const INSTANCES: [&str; 4] = ["i-0", "i-1", "i-2", "i-3"];
pub const NODES: usize = 5;

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum SetAct {
    /// Creates a set, or replaces parts of its spec.
    Set {
        set: usize,
        spec: Value,
    },
    /// Changes a set that is there.
    Change {
        set: usize,
        spec: Value,
    },
    Delete {
        set: usize,
        cascade: Cascade,
    },
    /// A Node registers, or changes; with a `providerID` or without.
    Node {
        node: usize,
        instance: Option<usize>,
        labels: Value,
    },
    NodeGoes {
        node: usize,
    },
    /// The kubelet reports.
    Heartbeat {
        node: usize,
    },
    Tags {
        instance: usize,
        tags: Value,
    },
    /// Lists of the cloud by tags lie for some time.
    Lie {
        omits: Vec<usize>,
        shows: Vec<usize>,
        seconds: u64,
    },
    /// Lists of the API server leave out a Node for some time.
    HideNode {
        node: usize,
        seconds: u64,
    },
    /// Lists of Nodes are old for some time.
    OldNodes {
        revisions: u64,
        seconds: u64,
    },
    /// Somebody does something to one of the memberships that are there.
    Member {
        which: usize,
        what: MemberAct,
    },
    /// Somebody creates an object that has the name of a membership of a set.
    Occupy {
        set: usize,
        instance: usize,
        group: usize,
        same_edge: bool,
    },
    Karpenter(KarpenterAct),
    /// As in schedules without sets.
    Other(Act),
}

/// What somebody does to a membership.
#[derive(Clone, Debug)]
pub enum MemberAct {
    Delete,
    /// Changes its policies.
    Patch(Value),
    /// Takes its owner off.
    Release,
    /// Takes its labels off.
    Unlabel,
}

/// What is counted; in the order of the acts.
pub const WORDS: [&str; 19] = [
    "set created or changed",
    "set changed",
    "set deleted in the background",
    "set deleted in the foreground",
    "set deleted with orphans",
    "Node registers or changes",
    "Node goes",
    "heartbeat",
    "tags",
    "lists by tags lie",
    "list of tags that lies",
    "lists without a Node",
    "list of Nodes cut short",
    "old lists of Nodes",
    "old list of Nodes",
    "membership deleted by hand",
    "membership changed by hand",
    "membership released by hand",
    "name occupied",
];

/// A region's instances and groups.
fn region(of: usize) -> (&'static str, &'static [usize], [&'static str; 2]) {
    match of {
        0 => ("cn-hangzhou", &[0, 1, 2], ["sg-a", "sg-b"]),
        _ => ("cn-beijing", &[3], ["sg-c", "sg-d"]),
    }
}

/// Labels of Nodes, and tags of instances, are some of these.
fn words(random: &mut StdRng) -> Value {
    let all = [
        json!({"pool": "web"}),
        json!({"pool": "web", "zone": "a"}),
        json!({"pool": "db"}),
        json!({}),
    ];
    all[[0, 0, 0, 1, 2, 3][random.random_range(0..6)]].clone()
}

/// A selector; the other three kinds are taken off.
fn selector(random: &mut StdRng, of: usize) -> Value {
    let (_, instances, _) = region(of);
    let mut spec = json!({
        "nodeSelector": null, "instanceTags": null, "instanceIDs": null, "networkInterfaceIDs": null,
    });
    let wanted = [json!({"pool": "web"}), json!({"pool": "web", "zone": "a"})];
    let wanted = wanted[usize::from(random.random_bool(0.2))].clone();
    match random.random_range(0..10) {
        0..3 => {
            let picked = instances.iter().filter(|_| random.random_bool(0.6));
            let mut ids: Vec<&str> = picked.map(|at| INSTANCES[*at]).collect();
            if ids.is_empty() {
                ids.push(INSTANCES[instances[0]]);
            }
            spec["instanceIDs"] = json!(ids);
        }
        3 if of == 0 => {
            let both = random.random_bool(0.5);
            spec["networkInterfaceIDs"] = if both {
                json!(["eni-0", "eni-1"])
            } else {
                json!(["eni-1"])
            };
        }
        3..7 => {
            let not_db = json!({"matchExpressions": [{"key": "pool", "operator": "NotIn", "values": ["db"]}]});
            let some = json!({"matchExpressions": [{"key": "pool", "operator": "In", "values": ["web", "dns"]}]});
            let all = [json!({"matchLabels": wanted}), json!({}), not_db, some];
            spec["nodeSelector"] = all[[0, 0, 0, 1, 2, 3][random.random_range(0..6)]].clone();
        }
        _ => spec["instanceTags"] = wanted,
    }
    spec
}

/// The region of each set, fixed.
const fn region_of(set: usize) -> usize {
    if set == 2 { 1 } else { 0 }
}

impl SetAct {
    /// A whole set.
    pub fn draw_set(random: &mut StdRng, set: usize) -> Self {
        let (name, _, groups) = region(region_of(set));
        let mut spec = policies(random, 0.3);
        merge(&mut spec, &selector(random, region_of(set)));
        spec["suspend"] = json!(false);
        spec["region"] = json!(name);
        spec["securityGroupID"] = json!(groups[random.random_range(0..2)]);
        Self::Set { set, spec }
    }

    pub fn draw_node(random: &mut StdRng, node: usize) -> Self {
        // As a rule each Node is its own instance; some are another's, or none yet.
        let instance = match random.random_range(0..20) {
            0 => None,
            1 | 2 => Some(random.random_range(0..INSTANCES.len())),
            _ => Some(node % INSTANCES.len()),
        };
        let mut labels = words(random);
        if random.random_bool(0.03) {
            labels["type"] = json!("virtual-kubelet");
        }
        Self::Node {
            node,
            instance,
            labels,
        }
    }

    pub fn draw(random: &mut StdRng, sets: usize, several: bool) -> Self {
        let set = random.random_range(0..sets);
        let node = random.random_range(0..NODES);
        let instance = random.random_range(0..INSTANCES.len());
        match random.random_range(0..100) {
            0..8 => Self::draw_set(random, set),
            8..16 => Self::Change {
                set,
                spec: selector(random, region_of(set)),
            },
            16..26 => {
                let (_, _, groups) = region(region_of(set));
                let group = groups[random.random_range(0..2)];
                Self::Change {
                    set,
                    spec: json!({"securityGroupID": group}),
                }
            }
            26..29 => Self::Change {
                set,
                spec: policies(random, 0.5),
            },
            29..33 => Self::Delete {
                set,
                cascade: [Cascade::Background, Cascade::Foreground, Cascade::Orphan]
                    [random.random_range(0..3)],
            },
            33..48 => Self::draw_node(random, node),
            48..56 => Self::NodeGoes { node },
            56..64 => Self::Tags {
                instance,
                tags: words(random),
            },
            64..69 => {
                let mut some = || -> Vec<usize> {
                    (0..INSTANCES.len())
                        .filter(|_| random.random_bool(0.3))
                        .collect()
                };
                let (omits, shows) = (some(), some());
                Self::Lie {
                    omits,
                    shows,
                    seconds: random.random_range(30..900),
                }
            }
            69..72 => Self::HideNode {
                node,
                seconds: random.random_range(5..400),
            },
            72..74 => Self::OldNodes {
                revisions: random.random_range(1..60),
                seconds: random.random_range(5..60),
            },
            74..80 => Self::Member {
                which: random.random_range(0..16),
                what: MemberAct::draw(random),
            },
            80..82 => Self::Occupy {
                set,
                instance,
                group: random.random_range(0..2),
                same_edge: random.random_bool(0.5),
            },
            82..84 => Self::Other(Act::Release {
                target: [0, 1, 2, 5][instance],
            }),
            _ => Self::Other(other(random, several)),
        }
    }

    pub fn happen(&self, world: &mut World) {
        match self {
            Self::Set { set, spec } => put_set(world, SET_NAMES[*set], spec, true),
            Self::Change { set, spec } => put_set(world, SET_NAMES[*set], spec, false),
            Self::Delete { set, cascade } => delete_set(world, SET_NAMES[*set], *cascade),
            Self::Node {
                node,
                instance,
                labels,
            } => {
                world.monitor.count("Node registers or changes");
                put_node(world, *node, *instance, labels);
            }
            Self::NodeGoes { node } => {
                world.monitor.count("Node goes");
                world.user(Verb::Delete, "nodes", "", &node_name(*node), Value::Null);
            }
            Self::Heartbeat { node } => {
                world.monitor.count("heartbeat");
                heartbeat(world, *node);
            }
            Self::Tags { instance, tags } => {
                world.monitor.count("tags");
                let id = INSTANCES[*instance];
                let tags = karpenter::with_kept_tags(world, id, tags);
                world.cloud(json!({"setTags": {"id": id, "tags": tags}}));
            }
            Self::Lie {
                omits,
                shows,
                seconds,
            } => {
                world.monitor.count("lists by tags lie");
                let ids = |all: &[usize]| all.iter().map(|at| INSTANCES[*at]).collect();
                let lie = TagLie {
                    omits: ids(omits),
                    shows: ids(shows),
                };
                world.faults.lies.lie_about_tags(lie, within(*seconds));
            }
            Self::HideNode { node, seconds } => {
                world.monitor.count("lists without a Node");
                world
                    .faults
                    .lies
                    .hide_node(node_name(*node), within(*seconds));
            }
            Self::OldNodes { revisions, seconds } => {
                world.monitor.count("old lists of Nodes");
                world.faults.lies.age_nodes(*revisions, within(*seconds));
            }
            Self::Member { which, what } => what.happen(world, *which),
            Self::Occupy {
                set,
                instance,
                group,
                same_edge,
            } => {
                world.monitor.count("name occupied");
                occupy(
                    world,
                    SET_NAMES[*set],
                    (*instance, *group),
                    *same_edge,
                    region_of(*set),
                );
            }
            Self::Karpenter(act) => act.happen(world),
            Self::Other(act) => act.happen(world),
        }
    }
}

fn within(seconds: u64) -> Instant {
    Instant::now() + Duration::from_secs(seconds)
}

fn merge(spec: &mut Value, more: &Value) {
    let more = more.as_object().unwrap().clone();
    spec.as_object_mut().unwrap().extend(more);
}

/// An act of schedules without sets.
fn other(random: &mut StdRng, several: bool) -> Act {
    let target = random.random_range(0..6);
    let group = random.random_range(0..2);
    match random.random_range(0..32) {
        0..8 => Act::Kill {
            after: random.random_range(1..25),
            point: if random.random_bool(0.5) {
                KillPoint::Before
            } else {
                KillPoint::AfterEffect
            },
        },
        8..11 => Act::Stop {
            seconds: random.random_range(1..40),
        },
        11..17 => Act::Foreign {
            target,
            group,
            joins: random.random_bool(0.5),
        },
        17..19 => Act::Status {
            target,
            status: TARGETS[target].statuses()[random.random_range(0..5)],
        },
        19..21 => Act::Limit {
            calls: random.random_bool(0.6).then(|| random.random_range(2..10)),
        },
        21..23 => Act::Grant {
            granted: random.random_bool(0.5),
        },
        23 => Act::Key {
            active: random.random_bool(0.5),
        },
        24..26 => Act::Secret {
            account: 0,
            there: random.random_bool(0.6),
            key: random.random_range(0..KEYS.len()),
        },
        26..29 => Act::Create {
            name: random.random_range(0..5),
            target,
            group,
            rest: policies(random, 0.25),
        },
        29..31 => Act::Delete {
            name: random.random_range(0..5),
        },
        _ if several => Act::Second,
        _ => Act::Delete {
            name: random.random_range(0..5),
        },
    }
}

impl MemberAct {
    fn draw(random: &mut StdRng) -> Self {
        match random.random_range(0..8) {
            0..3 => Self::Delete,
            3..6 => Self::Patch(policies(random, 0.6)),
            6 => Self::Release,
            _ => Self::Unlabel,
        }
    }

    fn happen(&self, world: &World, which: usize) {
        let objects = world.objects();
        if objects.is_empty() {
            return;
        }
        let object = &objects[which % objects.len()];
        let metadata = |field| text(&object["metadata"], field);
        let name = format!("{}/{}", metadata("/namespace"), metadata("/name"));
        match self {
            Self::Delete => {
                world.monitor.count("membership deleted by hand");
                world.delete(&name);
            }
            Self::Patch(policies) => {
                world.monitor.count("membership changed by hand");
                world.patch(&name, json!({"spec": policies}));
            }
            Self::Release => {
                world.monitor.count("membership released by hand");
                world.patch(&name, json!({"metadata": {"ownerReferences": null}}));
            }
            Self::Unlabel => {
                world.monitor.count("membership changed by hand");
                world.patch(&name, json!({"metadata": {"labels": null}}));
            }
        }
    }
}

pub fn put_set(world: &World, name: &str, spec: &Value, create: bool) {
    let (namespace, name) = place(name);
    let stored = world.server.object(SETS, namespace, name);
    match stored {
        Some(_) => {
            let mut spec = spec.clone();
            // Fixed.
            spec.as_object_mut().unwrap().remove("region");
            world.monitor.count("set changed");
            world.user(Verb::Merge, SETS, namespace, name, json!({"spec": spec}));
        }
        None if create => {
            let mut spec = spec.clone();
            spec.as_object_mut()
                .unwrap()
                .retain(|_, value| !value.is_null());
            world.monitor.count("set created or changed");
            let object = json!({"metadata": {"name": name}, "spec": spec});
            world.create(SETS, namespace, object);
        }
        None => {}
    }
}

pub fn delete_set(world: &World, name: &str, cascade: Cascade) {
    let (namespace, name) = place(name);
    let stored = world.server.object(SETS, namespace, name);
    if stored.is_none_or(|set| set["metadata"].get("deletionTimestamp").is_some()) {
        return;
    }
    world.monitor.count(match cascade {
        Cascade::Background => "set deleted in the background",
        Cascade::Foreground => "set deleted in the foreground",
        Cascade::Orphan => "set deleted with orphans",
    });
    if let Some(finalizer) = cascade.finalizer() {
        let marked = json!({"metadata": {"finalizers": [finalizer]}});
        world.user(Verb::Merge, SETS, namespace, name, marked);
    }
    world.user(Verb::Delete, SETS, namespace, name, Value::Null);
}

fn node_name(node: usize) -> String {
    format!("n-{node}")
}

fn put_node(world: &World, node: usize, instance: Option<usize>, labels: &Value) {
    let name = node_name(node);
    let provider = instance.map(|instance| {
        let (id, of) = (INSTANCES[instance], region(usize::from(instance == 3)).0);
        // Older clusters write it otherwise.
        if node == 1 {
            format!("alicloud://{of}.{id}")
        } else {
            format!("{of}.{id}")
        }
    });
    let mut spec = json!({});
    if let Some(provider) = provider {
        spec["providerID"] = json!(provider);
    }
    let object = json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels},
        "spec": spec,
    });
    world.user(Verb::Apply, "nodes", "", &name, object);
}

/// Another part of a Node changes, if it is there.
pub fn heartbeat(world: &World, node: usize) {
    let name = node_name(node);
    if world.server.object("nodes", "", &name).is_some() {
        let beat = world.server.state().revision;
        let status = json!({"status": {"beat": beat}});
        world.user(Verb::Merge, "nodes", "", &name, status);
    }
}

/// An orphan of the right name: for the same edge, or for another.
fn occupy(world: &World, set: &str, (instance, group): (usize, usize), same_edge: bool, of: usize) {
    let (region, _, groups) = region(of);
    let (namespace, set) = place(set);
    let id = INSTANCES[instance];
    let name = name_of(set, region, id, groups[group]);
    let group = if same_edge {
        groups[group]
    } else {
        groups[1 - group]
    };
    let spec = json!({"region": region, "instanceID": id, "securityGroupID": group});
    let object = json!({"metadata": {"name": name}, "spec": spec});
    world.create(crate::monitor::MEMBERSHIPS, namespace, object);
}
