//! A namespace without a grant changes nothing for the others: pairs of runs of one seed, with and without it. What becomes of the
//! others' objects, of their edges and of the Joins and Leaves for them is the same, and they are not read more often.
//!
//! One outcome depends on the order of two passes that one scan starts: see [`depends_on_order`]. A scan enqueues them in the same order
//! in both runs; kube starts passes that are due at the same moment in any order, with and without that namespace. So a pair does not
//! compare such an edge. It compares all others, and which edges these are.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION, RECONCILE_REQUESTED_ANNOTATION};
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::api_server::Verb;
use crate::monitor::sets::SETS;
use crate::monitor::{Edge, MEMBERSHIPS, edge_of, is_deleting, text};
use crate::schedule::{Act, Schedule};
use crate::topology::{DRAWN, OWNER, TARGETS};
use crate::world::{SimOptions, World};
use crate::{in_threads, in_virtual_time, number};

/// The namespace that no grant names.
const HOSTILE: &str = "hostile";
/// From one act of the others to the next: longer than a scan period. What the hostile namespace asks of the API server may delay
/// a pass by a few ms and move a scan by the jitter of its period.
const PAUSE: Duration = Duration::from_secs(80);
/// After the last act: three scans.
const REST: Duration = Duration::from_secs(200);
/// Acts of the hostile namespace for each second.
const HOSTILE_ACTS: f64 = 0.3;

/// What a run leaves: which others' objects there are and what they say, who is in which group, and who was called for what.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    picture: Vec<String>,
    /// The changes that the operator made, edge by edge.
    changes: BTreeMap<Edge, Vec<String>>,
    /// The number of Joins and Leaves by answer; `None` beside an edge that is left out, as the cloud does not count them by edge.
    calls: Option<[Value; 2]>,
    /// The edges that are left out of the rest.
    left_out: BTreeSet<Edge>,
}

/// Reads of one kind more or fewer: jitter moves a scan from one side of an act of the others to the other.
const JITTER: u64 = 2;

/// The reads by action.
fn reads(world: &World) -> [u64; 2] {
    let calls = &world.simulator.stats()["calls"];
    ["DescribeInstances", "DescribeNetworkInterfaces"].map(|action| {
        let answers = calls[action].as_object();
        let counts = answers.into_iter().flat_map(|answers| answers.values());
        counts.filter_map(Value::as_u64).sum()
    })
}

/// What the others do: no crash and no fault, which would strike another request in the second run.
fn acts_of_others(seed: u64) -> Vec<Act> {
    let acts = Schedule::draw_known_wide(seed).acts.into_iter();
    let is_theirs = |act: &Act| match act {
        Act::Create { .. }
        | Act::Policies { .. }
        | Act::Annotate { .. }
        | Act::Delete { .. }
        | Act::Foreign { .. }
        | Act::Grant { .. }
        | Act::Copy { .. }
        | Act::Replace { .. }
        | Act::Recreate { .. }
        | Act::Strip { .. } => true,
        Act::Status { .. }
        | Act::Release { .. }
        | Act::Limit { .. }
        | Act::Key { .. }
        | Act::Secret { .. }
        | Act::Account { .. }
        | Act::Kill { .. }
        | Act::Stop { .. }
        | Act::Second
        | Act::DeleteSlowly { .. }
        | Act::Policy { .. }
        | Act::PutBack { .. }
        | Act::Wide(_) => false,
    };
    acts.map(|(_, act)| act).filter(is_theirs).collect()
}

async fn run(seed: u64, with_hostile: bool) -> (Outcome, [u64; 2]) {
    let mut world = World::new(SimOptions {
        seed,
        ..SimOptions::default()
    });
    world.start(None);
    let acts = acts_of_others(seed);
    let begun = Instant::now();
    let end = begun + PAUSE * u32::try_from(acts.len()).unwrap_or_default() + REST;
    let mut hostile = Hostile {
        random: StdRng::seed_from_u64(seed ^ 0x5eed),
        uids: Vec::new(),
    };
    if with_hostile {
        let namespace = json!({"metadata": {"name": HOSTILE}});
        world.create("namespaces", "", namespace);
    }
    let mut next = begun + PAUSE;
    let mut left_out = BTreeSet::new();
    let mut acts = acts.into_iter();
    loop {
        let act = acts.next();
        let until = if act.is_some() { next } else { end };
        if with_hostile {
            hostile.acts_until(&world, until).await;
        }
        sleep_until(until).await;
        let Some(act) = act else { break };
        if let Act::Foreign {
            target,
            group,
            joins: false,
        } = act
        {
            let edge = edge(target, group);
            if depends_on_order(&world, &edge) {
                left_out.insert(edge);
            }
        }
        act.happen(&mut world);
        next += PAUSE;
    }
    (outcome(&world, left_out), reads(&world))
}

fn edge(target: usize, group: usize) -> Edge {
    let target = &TARGETS[target];
    (target.id.to_owned(), target.groups[group].to_owned())
}

/// Whether the order of two passes decides who owns the edge after another actor has removed it now (C16 in `docs/proof.md`): one of the
/// others' objects has joined it and reports drift, and another one repairs it. If the report comes first, it ends the claim, and no
/// object owns what the repair joins. If the repair comes first, the object that has joined owns the edge as before.
fn depends_on_order(world: &World, edge: &Edge) -> bool {
    let mut objects = world.monitor.naming(&edge.0, &edge.1);
    objects.retain(|object| {
        let (namespace, spec) = (&object["metadata"]["namespace"], &object["spec"]);
        let acts = spec["managementPolicy"] == "Manage" && spec["suspend"] != true;
        namespace != HOSTILE && acts && !is_deleting(object)
    });
    let any = |policy: &str, has_joined: bool| {
        objects.iter().any(|object| {
            object["spec"]["driftPolicy"] == policy
                && (object["status"]["origin"] == "Joined") == has_joined
        })
    };
    world.is_member(&edge.0, &edge.1) && any("Report", true) && any("Repair", false)
}

fn outcome(world: &World, left_out: BTreeSet<Edge>) -> Outcome {
    let mut changes: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for entry in world.simulator.journal_from(0) {
        if entry["by"] != "admin" {
            let edge = (text(&entry, "/target"), text(&entry, "/securityGroupId"));
            let action = text(&entry, "/action");
            changes.entry(edge).or_default().push(action);
        }
    }
    changes.retain(|edge, _| !left_out.contains(edge));
    // How the lines of the picture begin that are not compared.
    let mut skipped = vec![HOSTILE.to_owned()];
    skipped.extend(
        left_out
            .iter()
            .map(|(id, group)| format!("{id} is in {group}")),
    );
    for object in world.objects() {
        if edge_of(&object).is_some_and(|edge| left_out.contains(&edge)) {
            skipped.push(format!("{} ", text(&object, "/metadata/name")));
        }
    }
    let mut picture = world.picture();
    picture.retain(|line| !skipped.iter().any(|skipped| line.starts_with(skipped)));
    let calls = &world.simulator.stats()["calls"];
    let by_answer =
        || ["JoinSecurityGroup", "LeaveSecurityGroup"].map(|action| calls[action].clone());
    Outcome {
        picture,
        changes,
        calls: left_out.is_empty().then(by_answer),
        left_out,
    }
}

/// Somebody who may do everything in a namespace of its own, and knows what is written in the others.
struct Hostile {
    random: StdRng,
    /// UIDs of the others' objects that it has seen.
    uids: Vec<String>,
}

impl Hostile {
    async fn acts_until(&mut self, world: &World, until: Instant) {
        loop {
            let pause = self.random.random_range(0.0..2.0 / HOSTILE_ACTS);
            let at = Instant::now() + Duration::from_secs_f64(pause);
            if at >= until {
                return;
            }
            sleep_until(at).await;
            self.act(world);
        }
    }

    fn act(&mut self, world: &World) {
        for object in world.objects() {
            if text(&object, "/metadata/namespace") != HOSTILE {
                self.uids.push(text(&object, "/metadata/uid"));
            }
        }
        let name = format!("{HOSTILE}-{}", self.random.random_range(0..6));
        match self.random.random_range(0..14) {
            0..3 => self.create(world, &name),
            3 => {
                for number in 0..40 {
                    self.create(world, &format!("{HOSTILE}-crowd-{number}"));
                }
            }
            4 => {
                for number in 0..40 {
                    delete(world, &format!("{HOSTILE}-crowd-{number}"));
                }
            }
            5 => delete(world, &name),
            6 => patch(world, &name, &json!({"metadata": {"finalizers": null}})),
            7 => {
                let stored = world.server.object(MEMBERSHIPS, HOSTILE, &name);
                let metadata = self.forged(stored.as_deref());
                patch(world, &name, &json!({"metadata": metadata}));
            }
            8 => patch(world, &name, &json!({"spec": self.policies()})),
            9 => {
                let suspend = self.random.random_bool(0.5);
                patch(world, &name, &json!({"spec": {"suspend": suspend}}));
            }
            10 => self.replace(world, &name),
            11 | 12 => self.set(world),
            _ => {
                let moment = self.random.random_range(0..99).to_string();
                let asked = json!({RECONCILE_REQUESTED_ANNOTATION: moment});
                patch(world, &name, &json!({"metadata": {"annotations": asked}}));
            }
        }
    }

    /// An object that names an edge of the others, with whatever may make it count.
    fn create(&mut self, world: &World, name: &str) {
        let target = &TARGETS[self.random.random_range(0..DRAWN)];
        let group = target.groups[self.random.random_range(0..target.groups.len())];
        let mut spec = self.policies();
        spec["region"] = json!(target.region);
        spec[target.field()] = json!(target.id);
        spec["securityGroupID"] = json!(group);
        let mut metadata = self.forged(None);
        metadata["name"] = json!(name);
        let object = json!({"metadata": metadata, "spec": spec});
        world.create(MEMBERSHIPS, HOSTILE, object);
    }

    /// `kubectl replace`: all that was written on it is another's now.
    fn replace(&mut self, world: &World, name: &str) {
        let Some(stored) = world.server.object(MEMBERSHIPS, HOSTILE, name) else {
            return;
        };
        let mut metadata = self.forged(Some(&stored));
        metadata["name"] = json!(name);
        metadata["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
        let object = json!({"metadata": metadata, "spec": stored["spec"]});
        let reply = world.user(Verb::Replace, MEMBERSHIPS, HOSTILE, name, object);
        assert_eq!(reply.code, 200, "{}", reply.body);
    }

    /// A set that selects the targets of the others, in one of the four ways, or goes again.
    fn set(&mut self, world: &World) {
        let name = format!("set-{}", self.random.random_range(0..4));
        if world.server.object(SETS, HOSTILE, &name).is_some() {
            if self.random.random_bool(0.5) {
                world.user(Verb::Delete, SETS, HOSTILE, &name, Value::Null);
            } else {
                let suspend = json!({"spec": {"suspend": self.random.random_bool(0.5)}});
                world.user(Verb::Merge, SETS, HOSTILE, &name, suspend);
            }
            return;
        }
        let target = &TARGETS[self.random.random_range(0..DRAWN)];
        let mut spec = self.policies();
        let (field, selector) = match self.random.random_range(0..3) {
            0 => ("nodeSelector", json!({})),
            1 => ("instanceTags", json!({"pool": "web"})),
            _ if target.id.starts_with("eni-") => ("networkInterfaceIDs", json!([target.id])),
            _ => ("instanceIDs", json!([target.id])),
        };
        spec[field] = selector;
        spec["region"] = json!(target.region);
        spec["securityGroupID"] = json!(target.groups[0]);
        let object = json!({"metadata": {"name": name}, "spec": spec});
        let reply = world.create(SETS, HOSTILE, object);
        assert_eq!(reply.code, 201, "{}", reply.body);
    }

    fn policies(&mut self) -> Value {
        let mut one_of = |words: [&str; 2]| json!(words[self.random.random_range(0..2)]);
        json!({
            "managementPolicy": one_of(["Manage", "Observe"]),
            "adoptionPolicy": one_of(["Adopt", "Refuse"]),
            "deletionPolicy": one_of(["RemoveIfJoined", "Remove"]),
            "driftPolicy": one_of(["Repair", "Report"]),
        })
    }

    /// Our finalizer, and an intent that names the owner of the edges, and either the object itself or one of the others; or one of
    /// the two.
    fn forged(&mut self, stored: Option<&Value>) -> Value {
        let of_others = match self.uids.len() {
            0 => String::new(),
            count => self.uids[self.random.random_range(0..count)].clone(),
        };
        let is_own = self.random.random_bool(0.5);
        let own = stored.filter(|_| is_own);
        let uid = own.map_or(of_others, |own| text(own, "/metadata/uid"));
        let intent = json!({"origin": "Joined", "accountUID": OWNER, "uid": uid}).to_string();
        let mut metadata = json!({});
        if self.random.random_bool(0.8) {
            metadata["annotations"] = json!({INTENT_ANNOTATION: intent});
        }
        if self.random.random_bool(0.7) {
            metadata["finalizers"] = json!([FINALIZER]);
        }
        metadata
    }
}

fn delete(world: &World, name: &str) {
    world.user(Verb::Delete, MEMBERSHIPS, HOSTILE, name, Value::Null);
}

fn patch(world: &World, name: &str, patch: &Value) {
    world.user(Verb::Merge, MEMBERSHIPS, HOSTILE, name, patch.clone());
}

#[test]
fn namespace_without_a_grant_changes_nothing_for_the_others() {
    let first = number("FIRST_SEED").unwrap_or(0);
    let pairs = number("SEEDS").unwrap_or(15).min(5_000);
    in_threads(pairs, |number| {
        let seed = first + number;
        let [alone, beside] = [false, true].map(|with| in_virtual_time(|| run(seed, with)));
        assert_eq!(alone.0, beside.0, "seed {seed}");
        if !alone.0.left_out.is_empty() {
            println!("seed {seed}: not compared: {:?}", alone.0.left_out);
        }
        for (alone, beside) in alone.1.into_iter().zip(beside.1) {
            assert!(
                beside <= alone + JITTER,
                "seed {seed}: {beside} reads, {alone} alone"
            );
        }
    });
}
