//! What is wrong with objects together: two of one name, a membership or a set that the account in the same files does not grant. Pure.

use std::collections::BTreeMap;

use crate::account::directory::grants::{Granted, Use, granted};
use crate::account::directory::group_tags::GroupTags;
use crate::api::account::GrantedAction;
use crate::api::membership::{AccountKind, AccountRef, ManagementPolicy};
use crate::api::{
    ClusterCloudAccountSpec, SecurityGroupMembershipSetSpec, SecurityGroupMembershipSpec,
};
use crate::ecs::SecurityGroupId;

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
        not_granted(object, &accounts, mistakes);
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

/// What a membership or a set wants of an account; `None` for another kind, and for what the schema refuses: that is reported already.
fn wanted(object: &Object) -> Option<(AccountRef, String, ManagementPolicy)> {
    let spec = object.root.field("spec")?.json();
    match object.kind {
        "SecurityGroupMembership" => {
            let spec: SecurityGroupMembershipSpec = serde_json::from_value(spec).ok()?;
            Some((
                spec.account_ref,
                spec.security_group_id,
                spec.management_policy,
            ))
        }
        "SecurityGroupMembershipSet" => {
            let spec: SecurityGroupMembershipSetSpec = serde_json::from_value(spec).ok()?;
            Some((
                spec.account_ref,
                spec.security_group_id,
                spec.management_policy,
            ))
        }
        _ => None,
    }
}

/// Whether an account of the same files grants what a membership or a set wants. A grant by labels or tags is not judged.
fn not_granted(
    object: &Object,
    accounts: &BTreeMap<&str, ClusterCloudAccountSpec>,
    mistakes: &mut Vec<Mistake>,
) {
    let Some((account_ref, group, policy)) = wanted(object) else {
        return;
    };
    let Ok(group) = group.parse::<SecurityGroupId>() else {
        return;
    };
    if account_ref.kind != AccountKind::ClusterCloudAccount {
        return;
    }
    let (Some(account), Some(namespace)) = (
        accounts.get(account_ref.name.as_str()),
        object.metadata("namespace"),
    ) else {
        return;
    };
    let is_by_labels = account
        .grants
        .iter()
        .any(|of| of.namespaces.selector.is_some());
    let action = match policy {
        ManagementPolicy::Manage => GrantedAction::Join,
        ManagementPolicy::Observe => GrantedAction::Observe,
    };
    let wanted = Use {
        namespace,
        labels: None,
        group: &group,
        action,
    };
    if !is_by_labels && granted(&account.grants, wanted, || GroupTags::Unread) == Granted::No {
        let field = object.root.field("spec");
        let field = field.and_then(|spec| spec.field("securityGroupID"));
        let line = field.map_or(0, Node::line);
        let message = format!(
            "no grant of ClusterCloudAccount {} lets namespace {namespace} use {group}; add one to spec.grants of the account",
            account_ref.name
        );
        mistakes.push(object.mistake(line, "spec.securityGroupID", message));
    }
}
