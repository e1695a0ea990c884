//! What must be when all faults have ended: each set has one membership, with its spec, for each target that it selects, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use security_group_operator::api::INTENT_ANNOTATION;
use security_group_operator::simulator::cloud::Cloud;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::acts::{INSTANCES, NODES, heartbeat};
use crate::api_server::Verb;
use crate::monitor::sets::{
    SETS, has_policies, has_tags, instance_of, listed, matches, name_of, tags,
};
use crate::monitor::{MEMBERSHIPS, condition, is_deleting, target_of, text};
use crate::schedule;
use crate::topology::OWNER;
use crate::world::World;

/// Sets go on, Nodes are shown as they are, and names are free.
pub fn heal(world: &World) {
    for set in world.server.objects(SETS) {
        let metadata = |field| text(&set["metadata"], field);
        let goes_on = json!({"spec": {"suspend": false}});
        world.user(
            Verb::Merge,
            SETS,
            &metadata("/namespace"),
            &metadata("/name"),
            goes_on,
        );
    }
    for node in 0..NODES {
        heartbeat(world, node);
    }
    // What has the name of a membership of a set, and is another edge's.
    for object in world.objects() {
        let metadata = |field| text(&object["metadata"], field);
        let (name, group) = (metadata("/name"), text(&object, "/spec/securityGroupID"));
        let named = name.split_once('-').map(|(set, _)| {
            name_of(
                set,
                &text(&object, "/spec/region"),
                target_of(&object),
                &group,
            )
        });
        if named.is_some_and(|right| right != name) {
            world.delete(&format!("{}/{name}", metadata("/namespace")));
        }
    }
    // What is deleted and was claimed with another cloud account waits for that one; docs/user/stuck-deletion.md says so.
    for object in world.objects() {
        if is_deleting(&object) && is_claimed_elsewhere(&object) {
            let metadata = |field| text(&object["metadata"], field);
            let name = format!("{}/{}", metadata("/namespace"), metadata("/name"));
            world.patch(&name, json!({"spec": {"deletionPolicy": "Retain"}}));
        }
    }
}

/// Whether a membership says that it was joined, or was to be, with a cloud account that does not own its target.
fn is_claimed_elsewhere(object: &Value) -> bool {
    let intent = &object["metadata"]["annotations"][INTENT_ANNOTATION];
    let intent: Value = serde_json::from_str(intent.as_str().unwrap_or("null")).unwrap_or_default();
    let claims = [&intent, &object["status"]];
    claims
        .iter()
        .any(|claim| claim["origin"].is_string() && claim["accountUID"] != OWNER)
}

/// Waits until everything is as it must be, and then a while for what must not happen any more.
pub async fn settle_down(world: &mut World) -> Vec<String> {
    schedule::settle_down_with(world, unsettled).await
}

/// Waits until no set is left.
pub async fn sets_go(world: &mut World) -> Vec<String> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3_600) {
        if world.server.objects(SETS).is_empty() {
            return Vec::new();
        }
        schedule::sleep_until(world, Instant::now() + Duration::from_secs(5)).await;
    }
    vec!["a set is deleted and stays".to_owned()]
}

/// The targets that a set selects, as cluster and cloud are; and all targets of the region that exist, as far as the selector asks.
fn selected(world: &World, spec: &Value) -> BTreeSet<String> {
    if let Some(ids) = listed(spec) {
        return ids;
    }
    if let Some(wanted) = tags(spec) {
        let now = world.server.now();
        let fits = |id: &&&str| {
            let is_there = |cloud: &Cloud| cloud.member(id, now).is_some();
            crate::topology::home(id) == spec["region"]
                && world.simulator.inspect(is_there)
                && has_tags(&world.monitor.tags_of(id), &wanted)
        };
        return INSTANCES
            .iter()
            .filter(fits)
            .map(|id| (*id).to_owned())
            .collect();
    }
    let nodes = world.server.objects("nodes");
    let fits = nodes
        .iter()
        .filter(|node| matches(&spec["nodeSelector"], node));
    let instances = fits.filter_map(|node| instance_of(node));
    let of_region = instances.filter(|(region, _)| spec["region"] == *region);
    of_region.map(|(_, id)| id).collect()
}

/// What is not as it must be.
fn unsettled(world: &World) -> Vec<String> {
    let mut left = Vec::new();
    for set in world.server.objects(SETS) {
        let name = text(&set, "/metadata/name");
        if is_deleting(&set) {
            continue;
        }
        let ready = condition(&set, "Ready").cloned().unwrap_or_default();
        let reason = text(&ready, "/reason");
        left.extend(wrong_members(world, &set, &reason).into_iter().map(|what| {
            format!(
                "set {name}: {what}; it says {reason}: {}",
                text(&ready, "/message")
            )
        }));
        if ready["observedGeneration"] != set["metadata"]["generation"] {
            left.push(format!("set {name}: it says nothing of its spec"));
        }
        if has_untrue_list(world, &set["spec"]) {
            left.push(format!("set {name}: its last list by tags was not true"));
        }
    }
    left
}

/// Whether the last list by the tags of a set lied. The operator may still act on it: it describes by ID what the list lacks, and waits
/// for its turn before it does.
fn has_untrue_list(world: &World, spec: &Value) -> bool {
    let Some(tags) = tags(spec) else {
        return false;
    };
    let last = world.monitor.last_listed(&text(spec, "/region"), &tags);
    last.is_some_and(|shown| shown != selected(world, spec))
}

/// Whether the cloud has no instance in the region of a set by tags whose memberships name some: a key without the right would see the same.
fn sees_nothing(world: &World, spec: &Value, members: &[Arc<Value>]) -> bool {
    let now = world.server.now();
    let is_there = |id: &&str| {
        let in_region = crate::topology::home(id) == spec["region"];
        let exists = |cloud: &Cloud| cloud.member(id, now).is_some();
        in_region && world.simulator.inspect(exists)
    };
    let names_one = members
        .iter()
        .any(|object| object["spec"]["instanceID"].is_string());
    tags(spec).is_some() && names_one && !INSTANCES.iter().any(is_there)
}

/// In what the memberships of a set are not those that it must have, and what it says is not so.
fn wrong_members(world: &World, set: &Value, reason: &str) -> Vec<String> {
    let spec = &set["spec"];
    let mut wrong = Vec::new();
    let wanted = selected(world, spec);
    let is_own = |object: &Arc<Value>| {
        let owners = object["metadata"]["ownerReferences"].as_array();
        owners.is_some_and(|all| all.iter().any(|one| one["uid"] == set["metadata"]["uid"]))
    };
    let mut members = world.server.objects(MEMBERSHIPS);
    members.retain(is_own);
    let now = world.server.now();
    let exists = |target: &str| {
        world
            .simulator
            .inspect(|cloud| cloud.member(target, now).is_some())
    };
    if wanted.is_empty() {
        // A selector that picks nothing removes nothing while a target exists.
        let by_nodes = spec["nodeSelector"].is_object();
        let is_there = |target: &str| exists(target) || (by_nodes && has_node(world, target));
        let any = members.iter().any(|object| is_there(target_of(object)));
        let right = match any {
            _ if sees_nothing(world, spec, &members) => "SelectionIncomplete",
            true => "NothingSelected",
            false => "NoTargets",
        };
        if reason != right {
            wrong.push(format!(
                "it selects nothing, and {} memberships are left",
                members.len()
            ));
        }
        return wrong;
    }
    let mut current: BTreeMap<&str, &Arc<Value>> = BTreeMap::new();
    for object in &members {
        let (target, group) = (target_of(object), text(object, "/spec/securityGroupID"));
        let name = text(object, "/metadata/name");
        let same = |field: &str| object["spec"][field] == spec[field];
        if !has_policies(object, spec) || !["accountRef", "region"].iter().all(|field| same(field))
        {
            wrong.push(format!("{name} has other policies"));
        }
        if !wanted.contains(target) {
            wrong.push(format!("{name} is left"));
        } else if spec["securityGroupID"] == group.as_str()
            && current.insert(target, object).is_some()
        {
            wrong.push(format!("{name} is the second"));
        }
    }
    let is_ready = |object: &&Arc<Value>| {
        condition(object, "Ready").is_some_and(|ready| ready["status"] == "True")
    };
    for object in &members {
        let target = target_of(object);
        // It stays in the old group while it cannot be in the new one.
        if spec["securityGroupID"] != object["spec"]["securityGroupID"]
            && current.get(target).is_none_or(is_ready)
        {
            wrong.push(format!(
                "{} is of another group",
                text(object, "/metadata/name")
            ));
        }
    }
    for target in wanted
        .iter()
        .filter(|target| !current.contains_key(target.as_str()))
    {
        wrong.push(format!("{target} has no membership"));
    }
    let all_ready = current
        .iter()
        .all(|(target, object)| is_ready(object) || !exists(target));
    if all_ready && reason != "AllMembers" {
        wrong.push("all of its targets are members".to_owned());
    }
    if !all_ready && reason == "AllMembers" {
        wrong.push("not all of its targets are members".to_owned());
    }
    wrong
}

fn has_node(world: &World, target: &str) -> bool {
    let nodes = world.server.objects("nodes");
    nodes
        .iter()
        .any(|node| instance_of(node).is_some_and(|(_, id)| id == target))
}
