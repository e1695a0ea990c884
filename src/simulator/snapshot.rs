//! The state of the cloud as a test compares it. Pure.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::cloud::{Cloud, InterfaceKind};

pub(super) fn snapshot(cloud: &Cloud, now: Timestamp) -> Value {
    let instances: BTreeMap<&str, Value> = cloud
        .instances
        .iter()
        .filter(|(_, instance)| instance.resource.exists(now))
        .map(|(id, instance)| {
            let groups: Vec<&str> = instance
                .membership
                .groups
                .at(now)
                .iter()
                .map(|id| &**id)
                .collect();
            (
                &**id,
                json!({"status": instance.status.at(now).as_str(), "securityGroupIds": groups}),
            )
        })
        .collect();
    let interfaces: BTreeMap<&str, Value> = cloud
        .interfaces
        .iter()
        .filter(|(_, interface)| {
            interface.resource.exists(now) && interface.kind == InterfaceKind::Secondary
        })
        .map(|(id, interface)| {
            let groups: Vec<&str> = interface
                .membership
                .groups
                .at(now)
                .iter()
                .map(|id| &**id)
                .collect();
            (
                &**id,
                json!({"status": interface.status.at(now).as_str(), "securityGroupIds": groups}),
            )
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
