//! What users and others do, drawn from a seed: the same seed draws the same acts, whatever comes of them. Does nothing itself.

use std::fmt;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use security_group_operator::api::membership::{AdoptionPolicy, DeletionPolicy, DriftPolicy};
use serde_json::{Value, json};

use crate::model::Policies;

/// Objects, each with a fixed name and edge.
pub const OBJECTS: usize = 50;
/// The objects from here on are two on an edge.
const ALONE: usize = 30;
/// Edges that objects name.
pub const NAMED: usize = ALONE + (OBJECTS - ALONE) / 2;
/// All edges: these five are others' alone.
pub const EDGES: usize = NAMED + 5;

const INSTANCES: usize = 12;
const GROUPS: [&str; 3] = ["sg-a", "sg-b", "sg-c"];

/// The edge of an object, and which of its objects it is.
pub fn edge_of(object: usize) -> (usize, usize) {
    if object < ALONE {
        (object, 0)
    } else {
        (ALONE + (object - ALONE) / 2, (object - ALONE) % 2)
    }
}

/// The object that is the one of this number on an edge.
pub fn object_of(edge: usize, slot: usize) -> Option<usize> {
    (0..OBJECTS).find(|object| edge_of(*object) == (edge, slot))
}

/// Target and group.
pub fn ends(edge: usize) -> (String, &'static str) {
    let target = edge / GROUPS.len();
    let id = if target < INSTANCES {
        format!("i-n{target}")
    } else {
        format!("eni-n{target}")
    };
    (id, GROUPS[edge % GROUPS.len()])
}

/// Every third edge is there before any object.
pub const fn was_there(edge: usize) -> bool {
    edge.is_multiple_of(3)
}

/// The cloud at the beginning.
pub fn inventory() -> String {
    let target = |first: usize| {
        let edges = first..first + GROUPS.len();
        let groups: Vec<&str> = edges
            .filter(|edge| was_there(*edge))
            .map(|edge| ends(edge).1)
            .chain(["sg-base"])
            .collect();
        let instance = (first / GROUPS.len()).checked_sub(INSTANCES);
        instance.map_or_else(
            || json!({"id": ends(first).0, "securityGroupIds": groups}),
            |n| json!({"id": ends(first).0, "securityGroupIds": groups, "instanceId": format!("i-n{n}")}),
        )
    };
    let targets: Vec<Value> = (0..EDGES).step_by(GROUPS.len()).map(target).collect();
    let (instances, interfaces) = targets.split_at(INSTANCES);
    json!({
        "settings": {"latency": "10ms"},
        "securityGroups": [{"id": "sg-base"}, {"id": "sg-a"}, {"id": "sg-b"}, {"id": "sg-c"}],
        "instances": instances,
        "networkInterfaces": interfaces,
    })
    .to_string()
}

#[derive(Clone, Debug)]
pub enum Act {
    Create {
        object: usize,
        policies: Policies,
    },
    Delete {
        object: usize,
    },
    /// Deletes, and creates under the same name as soon as that is free.
    Remake {
        object: usize,
        policies: Policies,
    },
    /// `kubectl get -o yaml | sed | kubectl apply`: made with the annotations and finalizers of another.
    Copy {
        object: usize,
        policies: Policies,
        from: usize,
    },
    /// `kubectl replace` with a manifest without annotations and finalizers.
    Replace {
        object: usize,
        policies: Policies,
    },
    Respecify {
        object: usize,
        policies: Policies,
    },
    Suspend {
        object: usize,
        suspended: bool,
    },
    /// Somebody else joins or leaves.
    Foreign {
        edge: usize,
        joins: bool,
    },
    /// Somebody stops or starts an instance; it takes two seconds.
    Power {
        target: String,
        status: &'static str,
    },
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = |edge| {
            let (target, group) = ends(edge);
            format!("{target} in {group}")
        };
        match self {
            Self::Create { object, policies } => {
                write!(
                    f,
                    "create n{object} ({}) {policies:?}",
                    at(edge_of(*object).0)
                )
            }
            Self::Delete { object } => write!(f, "delete n{object}"),
            Self::Remake { object, policies } => {
                write!(f, "delete and make again n{object} {policies:?}")
            }
            Self::Copy {
                object,
                policies,
                from,
            } => write!(f, "create n{object} from n{from} {policies:?}"),
            Self::Replace { object, policies } => write!(f, "replace n{object} {policies:?}"),
            Self::Respecify { object, policies } => write!(f, "change n{object} {policies:?}"),
            Self::Suspend {
                object,
                suspended: true,
            } => write!(f, "suspend n{object}"),
            Self::Suspend {
                object,
                suspended: false,
            } => write!(f, "resume n{object}"),
            Self::Foreign { edge, joins: true } => write!(f, "somebody joins {}", at(*edge)),
            Self::Foreign { edge, joins: false } => write!(f, "somebody leaves {}", at(*edge)),
            Self::Power { target, status } => write!(f, "{target} is {status}"),
        }
    }
}

/// Draws acts. Knows what was asked for, and not what came of it.
pub struct Acts {
    random: StdRng,
    wanted: [bool; OBJECTS],
    suspended: [bool; OBJECTS],
    last: usize,
}

impl Acts {
    pub fn seeded(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            wanted: [false; OBJECTS],
            suspended: [false; OBJECTS],
            last: 0,
        }
    }

    /// The beginning: most objects are made.
    pub fn first(&mut self) -> Vec<Act> {
        let objects = (0..OBJECTS).filter(|object| !object.is_multiple_of(5));
        objects.map(|object| self.create(object)).collect()
    }

    /// What happens in one round, and after which pause in milliseconds.
    pub fn round(&mut self, long: bool) -> Vec<(u64, Act)> {
        let (count, pause) = if long { (20..40, 200) } else { (4..14, 60) };
        let count = self.random.random_range(count);
        (0..count)
            .map(|_| (self.random.random_range(0..pause), self.next()))
            .collect()
    }

    fn next(&mut self) -> Act {
        // Now and then the same object, or the other one on its edge: what comes close together is where races are.
        let object = if self.random.random_bool(0.3) {
            let (edge, slot) = edge_of(self.last);
            let other = object_of(edge, 1 - slot).filter(|_| self.random.random_bool(0.5));
            other.unwrap_or(self.last)
        } else {
            self.random.random_range(0..OBJECTS)
        };
        self.last = object;
        match self.random.random_range(0..100) {
            0..75 => self.of_user(object),
            75..93 => Act::Foreign {
                edge: if self.random.random_bool(0.3) {
                    edge_of(object).0
                } else {
                    self.random.random_range(0..EDGES)
                },
                joins: self.random.random_bool(0.5),
            },
            _ => Act::Power {
                target: format!("i-n{}", self.random.random_range(0..INSTANCES)),
                status: ["Stopping", "Starting"][self.random.random_range(0..2)],
            },
        }
    }

    fn of_user(&mut self, object: usize) -> Act {
        // A suspended object is resumed soon.
        if self.suspended[object] && self.random.random_bool(0.7) {
            self.suspended[object] = false;
            return Act::Suspend {
                object,
                suspended: false,
            };
        }
        if !self.wanted[object] {
            return if self.random.random_bool(0.25) {
                self.copy(object)
            } else {
                self.create(object)
            };
        }
        match self.random.random_range(0..100) {
            0..45 => {
                self.wanted[object] = false;
                Act::Delete { object }
            }
            45..60 => {
                self.suspended[object] = false;
                let policies = self.policies();
                Act::Remake { object, policies }
            }
            60..82 => {
                let policies = self.policies();
                Act::Respecify { object, policies }
            }
            82..90 => {
                let policies = self.policies();
                Act::Replace { object, policies }
            }
            _ => {
                self.suspended[object] = true;
                Act::Suspend {
                    object,
                    suspended: true,
                }
            }
        }
    }

    fn create(&mut self, object: usize) -> Act {
        self.wanted[object] = true;
        self.suspended[object] = false;
        let policies = self.policies();
        Act::Create { object, policies }
    }

    fn copy(&mut self, object: usize) -> Act {
        let (edge, slot) = edge_of(object);
        let sharer = object_of(edge, 1 - slot).filter(|_| self.random.random_bool(0.7));
        let from = sharer.unwrap_or_else(|| self.random.random_range(0..OBJECTS));
        self.wanted[object] = true;
        self.suspended[object] = false;
        let policies = self.policies();
        Act::Copy {
            object,
            policies,
            from,
        }
    }

    fn policies(&mut self) -> Policies {
        let random = &mut self.random;
        Policies {
            adoption: [
                AdoptionPolicy::Adopt,
                AdoptionPolicy::Adopt,
                AdoptionPolicy::Refuse,
            ][random.random_range(0..3)],
            deletion: [
                DeletionPolicy::RemoveIfJoined,
                DeletionPolicy::RemoveIfJoined,
                DeletionPolicy::Remove,
                DeletionPolicy::Retain,
            ][random.random_range(0..4)],
            drift: [
                DriftPolicy::Repair,
                DriftPolicy::Repair,
                DriftPolicy::Report,
            ][random.random_range(0..3)],
        }
    }
}
