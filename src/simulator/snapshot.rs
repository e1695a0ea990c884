//! The state of the cloud as a test compares it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::cloud::{Cloud, InterfaceKind, Membership};
use super::faults::Fault;

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

/// The conditions of each fault, how many calls it lets through and hits, and what it is.
pub(super) fn faults(list: &[Fault]) -> Value {
    let shown = list.iter().map(|fault| {
        json!({
            "action": fault.action, "region": fault.region, "target": fault.target,
            "securityGroupId": fault.security_group_id, "tag": fault.tag, "accessKey": fault.access_key,
            "skip": fault.skip, "count": fault.count, "probability": fault.probability,
            "fault": fault.fault.word(),
        })
    });
    shown.collect()
}

/// An instance or a network interface.
fn target(status: &str, membership: &Membership, now: Timestamp) -> Value {
    let groups = membership.groups.at(now).iter().map(|id| &**id);
    json!({"status": status, "securityGroupIds": groups.collect::<Vec<&str>>()})
}
