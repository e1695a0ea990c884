//! The state of the cloud as a test compares it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::cloud::{Cloud, InterfaceKind, Membership};

pub(super) fn snapshot(cloud: &Cloud, now: Timestamp) -> Value {
    let instances: BTreeMap<&str, Value> = cloud
        .instances
        .iter()
        .filter(|(_, instance)| instance.resource.exists(now))
        .map(|(id, instance)| {
            let status = instance.status.at(now).as_str();
            let mut shown = target(status, &instance.membership, now);
            if let Some(fields) = shown.as_object_mut().filter(|_| !instance.locks.is_empty()) {
                fields.insert("locks".to_owned(), json!(instance.locks));
            }
            (&**id, shown)
        })
        .collect();
    let interfaces: BTreeMap<&str, Value> = cloud
        .interfaces
        .iter()
        .filter(|(_, interface)| {
            interface.resource.exists(now) && interface.kind == InterfaceKind::Secondary
        })
        .map(|(id, interface)| {
            let status = interface.status.at(now).as_str();
            (&**id, target(status, &interface.membership, now))
        })
        .collect();
    let groups: BTreeMap<&str, Value> = cloud
        .groups
        .iter()
        .filter(|(_, group)| group.resource.exists(now))
        .map(|(id, group)| {
            (
                &**id,
                json!({"type": group.kind.as_str(), "members": group.members.len()}),
            )
        })
        .collect();
    json!({"instances": instances, "networkInterfaces": interfaces, "securityGroups": groups})
}

/// An instance or a network interface.
fn target(status: &str, membership: &Membership, now: Timestamp) -> Value {
    let groups = membership.groups.at(now).iter().map(|id| &**id);
    json!({"status": status, "securityGroupIds": groups.collect::<Vec<&str>>()})
}
