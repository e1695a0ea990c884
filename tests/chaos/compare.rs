//! Compares cloud and objects once everything has settled: with what each object says of itself, and with what the model allows.
//! Changes neither.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::ListParams;
use security_group_operator::api::membership::{AdoptionPolicy, DriftPolicy, Origin};
use security_group_operator::api::{FINALIZER, INTENT_ANNOTATION, SecurityGroupMembership};
use security_group_operator::condition::is_true;
use serde_json::{Value, json};

use crate::act::{self, EDGES};
use crate::fixture::{ApiOutcome, Fixture, Holder, PATIENCE, answered, name};
use crate::kill::LATE;
use crate::ledger::{Change, Settled};
use crate::model::{Object, SHARERS};
use crate::races;
use crate::support::env::{phase, ready};
use crate::support::error::{Context as _, Result};

/// What there is at one moment.
struct Observation {
    objects: BTreeMap<String, SecurityGroupMembership>,
    cloud: Value,
}

/// Ends the churn and the faults, waits until everything has settled, and compares. What does not fit is said, each with its
/// edge and its objects; from what does fit the model goes on.
pub async fn compare(fixture: &mut Fixture, incarnation: u64, audit: &Path) -> Result<Vec<String>> {
    fixture.wait_no_more();
    fixture.env.simulator.faults(&json!([])).await?;
    fixture
        .env
        .simulator
        .change(&json!({"set": {"lag": "0s"}}))
        .await?;
    if std::mem::take(&mut fixture.late) {
        tokio::time::sleep(LATE * 2).await;
    }
    fixture.log("=== all is well, and compared when it has settled");
    let observation = match settled(fixture, incarnation).await? {
        Ok(observation) => observation,
        Err(unsettled) => return Ok(unsettled),
    };
    let journal = fixture.env.simulator.journal().await?;
    fixture.env.simulator.reset_stats().await?;
    let mut violations = leaves_without_cause(fixture, &journal)?;
    for object in races::removed_in_the_moment_of_their_claim(audit)? {
        fixture.ledger.raced(act::edge_of(object).0);
    }
    violations.extend(read_by_ledger(fixture, &journal)?);
    for edge in 0..EDGES {
        violations.extend(check(fixture, &observation, edge));
        violations.extend(settle_ledger(fixture, &observation, edge));
    }
    let created: Vec<&str> = fixture
        .created
        .iter()
        .flatten()
        .map(|created| created.uid.as_str())
        .collect();
    let strangers = observation.objects.values().filter(|object| {
        object
            .uid()
            .is_none_or(|uid| !created.contains(&uid.as_str()))
    });
    violations.extend(strangers.map(|object| format!("nobody made {}", yaml(object))));
    Ok(violations)
}

/// The observation as soon as two comparisons in a row find nothing to do, or the remaining differences after the deadline.
async fn settled(
    fixture: &Fixture,
    incarnation: u64,
) -> Result<std::result::Result<Observation, Vec<String>>> {
    let begun = Instant::now();
    let mut still = false;
    loop {
        let observation = look(fixture).await?;
        let left: Vec<String> = (0..EDGES)
            .filter_map(|edge| {
                let why = unsettled(fixture, &observation, edge, incarnation)?;
                Some(format!(
                    "not settled: {why}\n{}",
                    describe(fixture, &observation, edge)
                ))
            })
            .collect();
        if left.is_empty() && still {
            return Ok(Ok(observation));
        }
        if begun.elapsed() > PATIENCE {
            return Ok(Err(left));
        }
        still = left.is_empty();
        tokio::time::sleep(Duration::from_millis(150)).await;
    }
}

async fn look(fixture: &Fixture) -> Result<Observation> {
    let api = fixture.env.memberships();
    let ApiOutcome::Yes(list) = answered(async || api.list(&ListParams::default()).await).await?
    else {
        return Err(crate::support::error::Error::new(
            "memberships cannot be listed",
        ));
    };
    let objects = list
        .items
        .into_iter()
        .map(|object| (object.name_any(), object))
        .collect();
    Ok(Observation {
        objects,
        cloud: fixture.env.simulator.state().await?,
    })
}

impl Observation {
    fn is_member(&self, edge: usize) -> bool {
        let (target, group) = act::ends(edge);
        ["instances", "networkInterfaces"].iter().any(|kind| {
            let groups = &self.cloud[*kind][&target]["securityGroupIds"];
            groups
                .as_array()
                .is_some_and(|groups| groups.iter().any(|id| id == group))
        })
    }

    fn object(&self, edge: usize, slot: usize) -> Option<&SecurityGroupMembership> {
        self.objects.get(&name(act::object_of(edge, slot)?))
    }
}

/// What of an edge is not yet as its objects ask for, or not truly told.
fn unsettled(
    fixture: &Fixture,
    observation: &Observation,
    edge: usize,
    incarnation: u64,
) -> Option<String> {
    let (of, undone) = fixture.undone[edge];
    let looping = of == incarnation && undone >= 3;
    (0..SHARERS)
        .filter_map(|slot| observation.object(edge, slot))
        .find_map(|object| untrue(object, observation.is_member(edge), looping))
}

/// Why this is not what the object should say at last.
fn untrue(object: &SecurityGroupMembership, member: bool, looping: bool) -> Option<String> {
    let name = object.name_any();
    let suspended = object.spec.suspend;
    let Some(ready) = ready(object) else {
        return Some(format!("{name} has no status"));
    };
    if object.metadata.deletion_timestamp.is_some() && !suspended {
        return Some(format!("{name} does not go"));
    }
    if !suspended && ready.observed_generation != object.metadata.generation {
        return Some(format!(
            "{name} is not Ready or otherwise for its generation"
        ));
    }
    let claim = claim(object);
    let is_true = ready.status == "True";
    let origin = object.status.as_ref().and_then(|status| status.origin);
    // `kubectl replace` takes the finalizer off: without it, a deletion would not wait for the operator.
    let guarded = has_finalizer(object);
    let holds =
        |wanted| is_true && member && guarded && claim == Some(wanted) && origin == Some(wanted);
    let fine = match ready.reason.as_str() {
        _ if suspended => phase(object) != "Reconciling",
        "Joined" => holds(Origin::Joined) && phase(object) == "Settled",
        "Adopted" | "Shared" => holds(Origin::Adopted) && phase(object) == "Settled",
        "AdoptionRefused" => {
            !is_true
                && member
                && object.spec.adoption_policy == AdoptionPolicy::Refuse
                && claim.is_none()
        }
        "DriftReported" => !is_true && !member && object.spec.drift_policy == DriftPolicy::Report,
        "RepairLoop" => !is_true && !member && looping,
        _ => false,
    };
    (!fine).then(|| format!("{name} is {} {}", ready.status, ready.reason))
}

fn has_finalizer(object: &SecurityGroupMembership) -> bool {
    let mut finalizers = object.finalizers().iter();
    finalizers.any(|finalizer| finalizer == FINALIZER)
}

fn claim(object: &SecurityGroupMembership) -> Option<Origin> {
    let held = has_finalizer(object);
    let status = object.status.as_ref();
    let own = status.filter(|status| status.object_uid == object.uid());
    let intent = object.annotations().get(INTENT_ANNOTATION);
    let uid = object.uid().unwrap_or_default();
    let intent = intent.filter(|intent| held && intent.contains(&uid));
    own.and_then(|status| status.origin)
        .or_else(|| intent.map(|_| Origin::Joined))
}

/// Whether the model allows what an edge has come to.
fn check(fixture: &mut Fixture, observation: &Observation, edge: usize) -> Option<String> {
    let mut objects = [Object::Absent; SHARERS];
    let mut were_ready = [false; SHARERS];
    for slot in 0..SHARERS {
        let Some(of) = act::object_of(edge, slot) else {
            continue;
        };
        let Some(object) = observation.object(edge, slot) else {
            fixture.created[of] = None;
            fixture.holders[of] = Holder::None;
            fixture.deletions[of].clear();
            continue;
        };
        let claim = claim(object);
        objects[slot] = match (object.metadata.deletion_timestamp.is_some(), claim) {
            (true, Some(origin)) => Object::Going(origin, false),
            (true, None) => return Some(format!("{} is held without a claim", yaml(object))),
            (false, claim) => Object::Live(claim),
        };
        were_ready[slot] = was_ready(object);
        let live = object.metadata.deletion_timestamp.is_none();
        fixture.holders[of] = if live && claim.is_some() {
            Holder::Holds
        } else {
            Holder::None
        };
        if live {
            fixture.deletions[of].clear();
        }
    }
    let allowed = fixture.edges[edge].states.clone();
    if fixture.edges[edge].compare(observation.is_member(edge), objects, were_ready) {
        return None;
    }
    let mut allowed: Vec<String> = allowed
        .iter()
        .map(|state| format!("  member {}, {:?}", state.member, state.objects))
        .collect();
    allowed.sort();
    allowed.dedup();
    Some(format!(
        "not allowed:\n{}allowed would be:\n{}",
        describe(fixture, observation, edge),
        allowed.join("\n")
    ))
}

fn edge_of(entry: &Value) -> Option<usize> {
    (0..EDGES).find(|edge| {
        let (target, group) = act::ends(*edge);
        entry["target"] == target && entry["securityGroupId"] == group
    })
}

/// Who made each edge since the last comparison, and whether the operator left what it may not.
fn read_by_ledger(fixture: &mut Fixture, journal: &Value) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for entry in journal.as_array().context("a journal is a list")? {
        let Some(edge) = edge_of(entry) else {
            continue;
        };
        let change = Change {
            at: entry["at"].as_str().unwrap_or_default().parse()?,
            by_operator: entry["by"] != "admin",
            joins: entry["action"] == "JoinSecurityGroup",
        };
        if let Some(why) = fixture.ledger.changed(edge, change) {
            violations.push(format!("{entry}: {why}"));
        }
    }
    Ok(violations)
}

/// Whether something of the operator's own is left.
fn settle_ledger(fixture: &mut Fixture, observation: &Observation, edge: usize) -> Option<String> {
    let mut objects = [None; SHARERS];
    for (slot, found) in objects.iter_mut().enumerate() {
        let object = observation.object(edge, slot);
        *found = object.map(|object| Settled {
            claimed: claim(object).is_some(),
            joined: claim(object) == Some(Origin::Joined),
            was_ready: was_ready(object),
            finalizer: has_finalizer(object),
        });
    }
    let member = observation.is_member(edge);
    let why = fixture.ledger.settled(edge, member, objects)?;
    Some(format!("{why}\n{}", describe(fixture, observation, edge)))
}

/// Whether a missing edge is drift to an object.
fn was_ready(object: &SecurityGroupMembership) -> bool {
    let status = object.status.as_ref();
    status.is_some_and(|status| status.origin.is_some() || is_true(&status.conditions, "Drifted"))
}

/// I1: each Leave since the last comparison was for an object whose deletion had been asked for, and no other object that
/// had a claim by then, and so was known to every operator from its first list, was left without its edge.
fn leaves_without_cause(fixture: &Fixture, journal: &Value) -> Result<Vec<String>> {
    let mut violations = Vec::new();
    for entry in journal.as_array().context("a journal is a list")? {
        if entry["action"] != "LeaveSecurityGroup" || entry["by"] == "admin" {
            continue;
        }
        let edge = edge_of(entry);
        let at: Timestamp = entry["at"].as_str().unwrap_or_default().parse()?;
        let Some(edge) = edge else {
            violations.push(format!("I1: a Leave of an edge of nobody: {entry}"));
            continue;
        };
        let mut caused = false;
        for object in (0..SHARERS).filter_map(|slot| act::object_of(edge, slot)) {
            let deleted = fixture.deletions[object]
                .iter()
                .any(|deleted| *deleted <= at);
            caused |= deleted;
            let holds = match fixture.holders[object] {
                Holder::None => false,
                Holder::Holds => true,
                Holder::DeletedAt(deleted) => deleted > at,
            };
            if holds {
                violations.push(format!("I1: {entry}, and {} still named it", name(object)));
            }
        }
        if !caused {
            violations.push(format!("I1: {entry}, and no object of it was deleted"));
        }
    }
    Ok(violations)
}

fn describe(fixture: &Fixture, observation: &Observation, edge: usize) -> String {
    let (target, group) = act::ends(edge);
    let member = if observation.is_member(edge) {
        "a member"
    } else {
        "no member"
    };
    let mut text = format!("{target} is {member} of {group}; its objects:\n");
    for slot in 0..SHARERS {
        if let Some(object) = observation.object(edge, slot) {
            text.push_str(&yaml(object));
        }
        if let Some(created) =
            act::object_of(edge, slot).and_then(|of| fixture.created[of].as_ref())
        {
            let _ = writeln!(text, "last made with this name: {created:?}");
        }
    }
    text
}

fn yaml(object: &SecurityGroupMembership) -> String {
    let mut object = object.clone();
    object.metadata.managed_fields = None;
    serde_saphyr::to_string(&object).unwrap_or_else(|error| error.to_string())
}
