//! What is wrong with objects together: two of one name, a membership that the account in the same files does not grant. Pure.

use std::collections::BTreeMap;

use crate::account::directory::grants::{Granted, Use, granted};
use crate::account::directory::group_tags::GroupTags;
use crate::api::account::GrantedAction;
use crate::api::membership::{AccountKind, ManagementPolicy};
use crate::api::{ClusterCloudAccountSpec, SecurityGroupMembershipSpec};
use crate::ecs::Edge;

use super::documents::Node;
use super::mistake::{Mistake, Object};

pub(super) fn check(objects: &[Object], mistakes: &mut Vec<Mistake>) {
    twice(objects, mistakes);
    let accounts = objects
        .iter()
        .filter(|object| object.kind == "ClusterCloudAccount");
    let accounts: BTreeMap<&str, ClusterCloudAccountSpec> = accounts
        .filter_map(|account| {
            let spec = account.root.field("spec")?.json();
            Some((
                account.metadata("name")?,
                serde_json::from_value(spec).ok()?,
            ))
        })
        .collect();
    for object in objects {
        if object.kind == "SecurityGroupMembership" {
            membership(object, &accounts, mistakes);
        }
    }
}

/// Two objects of one kind, namespace and name: the second one changes the first.
fn twice(objects: &[Object], mistakes: &mut Vec<Mistake>) {
    let mut seen: BTreeMap<(&str, &str, &str), &Object> = BTreeMap::new();
    for object in objects {
        let Some(name) = object.metadata("name") else {
            continue;
        };
        let namespace = object.metadata("namespace").unwrap_or_default();
        let Some(first) = seen.insert((object.kind, namespace, name), object) else {
            continue;
        };
        let line = object
            .root
            .field("metadata")
            .and_then(|node| node.field("name"));
        let slash = if namespace.is_empty() { "" } else { "/" };
        let message = format!(
            "there is another {} {namespace}{slash}{name} in {}, line {}",
            object.kind,
            first.file,
            first.root.line()
        );
        mistakes.push(object.mistake(line.map_or(0, Node::line), "metadata.name", message));
    }
}

/// Whether an account of the same files grants what a membership wants. A grant by labels or tags is not judged.
fn membership(
    object: &Object,
    accounts: &BTreeMap<&str, ClusterCloudAccountSpec>,
    mistakes: &mut Vec<Mistake>,
) {
    let Some(node) = object.root.field("spec") else {
        return;
    };
    // What the schema refuses is reported already.
    let Ok(spec) = serde_json::from_value::<SecurityGroupMembershipSpec>(node.json()) else {
        return;
    };
    let Ok(edge) = Edge::try_from(&spec) else {
        return;
    };
    if spec.account_ref.kind != AccountKind::ClusterCloudAccount {
        return;
    }
    let (Some(account), Some(namespace)) = (
        accounts.get(spec.account_ref.name.as_str()),
        object.metadata("namespace"),
    ) else {
        return;
    };
    let is_by_labels = account
        .grants
        .iter()
        .any(|of| of.namespaces.selector.is_some());
    let action = match spec.management_policy {
        ManagementPolicy::Manage => GrantedAction::Join,
        ManagementPolicy::Observe => GrantedAction::Observe,
    };
    let wanted = Use {
        namespace,
        labels: None,
        group: &edge.group,
        action,
    };
    if !is_by_labels && granted(&account.grants, wanted, || GroupTags::Unread) == Granted::No {
        let line = node
            .field("securityGroupID")
            .map_or(node.line(), Node::line);
        let message = format!(
            "no grant of ClusterCloudAccount {} lets namespace {namespace} use {}; add one to spec.grants of the account",
            spec.account_ref.name, edge.group
        );
        mistakes.push(object.mistake(line, "spec.securityGroupID", message));
    }
}
