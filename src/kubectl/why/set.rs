//! The report of `why` on a set: what it selects, how many targets are members, why the others are not, what its deletion would do. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::account::key::AccountKey;
use crate::api::{
    SecurityGroupMembership, SecurityGroupMembershipSet, SecurityGroupMembershipSetSpec, reason,
};
use crate::condition;
use crate::ecs::Edge;

use super::super::cluster::full_name;
use super::super::failure::exit;
use super::super::members::target_of;
use super::super::output::{Report, counted, first_three};
use super::super::sets::{controls, nodes_with, set_name};
use super::deletion::Deletion;
use super::parts::{advice, condition_lines, ready};

/// Reasons that the text names; JSON and YAML have all of them.
const REASONS: usize = 5;

/// What a set selects.
fn selection(spec: &SecurityGroupMembershipSetSpec) -> String {
    let listed = |ids: &Vec<String>, what: &str| {
        format!("{}: {}", counted(ids.len(), what), first_three(ids))
    };
    if let Some(selector) = &spec.node_selector {
        return nodes_with(selector);
    }
    if let Some(ids) = &spec.instance_ids {
        return listed(ids, "instance");
    }
    if let Some(ids) = &spec.network_interface_ids {
        return listed(ids, "network interface");
    }
    let tags = spec.instance_tags.iter().flatten();
    let tags: Vec<String> = tags.map(|(key, value)| format!("{key}={value}")).collect();
    format!("instances with the tags {}", tags.join(", "))
}

/// Why some memberships of the set are not Ready.
struct NotReady<'a> {
    reason: &'a str,
    count: usize,
    /// The first of them, by name.
    example: &'a SecurityGroupMembership,
}

fn not_ready<'a>(members: &[&'a SecurityGroupMembership]) -> Vec<NotReady<'a>> {
    let mut by_reason: BTreeMap<&str, NotReady<'a>> = BTreeMap::new();
    for object in members {
        let ready = ready(object);
        if ready.is_some_and(|ready| ready.status == "True") {
            continue;
        }
        let reason = ready.map_or("Pending", |ready| ready.reason.as_str());
        let entry = by_reason.entry(reason).or_insert(NotReady {
            reason,
            count: 0,
            example: object,
        });
        entry.count += 1;
    }
    let mut found: Vec<NotReady<'_>> = by_reason.into_values().collect();
    found.sort_by_key(|of| std::cmp::Reverse(of.count));
    found
}

/// How the membership of one target ends with the set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
#[serde(rename_all = "camelCase")]
enum Ending {
    Removed,
    Retained,
    Adopted,
    Shared,
    NeverJoined,
    Waits,
}

impl Ending {
    /// After a number of targets.
    const fn words(self) -> &'static str {
        match self {
            Self::Removed => "removed from the group",
            Self::Retained => "kept by deletionPolicy Retain",
            Self::Adopted => "kept, because the operator did not join it",
            Self::Shared => "kept, because another object names it",
            Self::NeverJoined => "never joined",
            Self::Waits => "waiting for what the membership says",
        }
    }
}

/// How many memberships end in which way when the set is deleted.
fn on_deletion(
    members: &[&SecurityGroupMembership],
    others: &[SecurityGroupMembership],
    now: Timestamp,
) -> BTreeMap<Ending, usize> {
    let mut by_target: BTreeMap<String, Vec<SecurityGroupMembership>> = BTreeMap::new();
    for other in others {
        by_target
            .entry(target_of(other))
            .or_default()
            .push(other.clone());
    }
    let mut counts: BTreeMap<Ending, usize> = BTreeMap::new();
    for object in members {
        let beside = by_target
            .get(&target_of(object))
            .map_or(&[][..], Vec::as_slice);
        let Ok(edge) = Edge::try_from(&object.spec) else {
            continue;
        };
        let what = match Deletion::of(object, &edge, beside, now) {
            Deletion::Leaves => Ending::Removed,
            Deletion::TakenOver(_) | Deletion::Shared(_) => Ending::Shared,
            Deletion::Retained => Ending::Retained,
            Deletion::NotJoined => Ending::Adopted,
            Deletion::Nothing => Ending::NeverJoined,
            Deletion::Suspended | Deletion::Waits => Ending::Waits,
        };
        *counts.entry(what).or_default() += 1;
    }
    counts
}

/// The report on one set, with all memberships of its namespace and those of its groups elsewhere.
pub(super) fn explain(
    set: &SecurityGroupMembershipSet,
    objects: &[SecurityGroupMembership],
    now: Timestamp,
) -> Report {
    let (own, others): (Vec<_>, Vec<_>) = objects.iter().partition(|of| controls(set, of));
    let others: Vec<SecurityGroupMembership> = others.into_iter().cloned().collect();
    let told = Told {
        set,
        members: &own,
        not_ready: not_ready(&own),
        deletion: on_deletion(&own, &others, now),
    };
    let conditions = set.status.as_ref().map(|status| &status.conditions);
    let is_ready = conditions.is_some_and(|all| condition::is_true(all, reason::READY));
    Report {
        text: Some(told.text(now)),
        names: vec![set_name(set)],
        value: told.value(),
        code: if is_ready { 0 } else { exit::NO },
        ..Report::default()
    }
}

/// All that the report says of one set.
struct Told<'a> {
    set: &'a SecurityGroupMembershipSet,
    members: &'a [&'a SecurityGroupMembership],
    not_ready: Vec<NotReady<'a>>,
    deletion: BTreeMap<Ending, usize>,
}

impl Told<'_> {
    fn text(&self, now: Timestamp) -> String {
        let spec = &self.set.spec;
        let status = self.set.status.clone().unwrap_or_default();
        let mut text = String::new();
        let mut line = |title: &str, value: &str| {
            let _ = writeln!(text, "{title:<14}{value}");
        };
        line("Set", &full_name(self.set));
        line("Selects", &selection(spec));
        let namespace = self.set.namespace().unwrap_or_default();
        let account = AccountKey::of(&spec.account_ref, &namespace);
        let group = &spec.security_group_id;
        line("Group", &format!("{group} ({}, {account})", spec.region));
        line("Targets", &self.targets());
        line("Memberships", &self.members.len().to_string());
        let generation = self.set.metadata.generation;
        condition_lines(&status.conditions, generation, now, &mut line);
        for of in self.not_ready.iter().take(REASONS) {
            let name = of.example.name_any();
            line(
                "Not Ready",
                &format!("{} {}, such as {name}", of.count, of.reason),
            );
            let message = ready(of.example).map(|ready| ready.message.as_str());
            line("", message.unwrap_or("waiting for the operator"));
            if let Some(next) = next_step(of.example) {
                line("Next step", next);
            }
        }
        line("On deletion", &self.deletion());
        text
    }

    fn targets(&self) -> String {
        let status = self.set.status.clone().unwrap_or_default();
        let number = |of: Option<i64>| of.unwrap_or_default();
        let (targets, members) = (number(status.targets), number(status.ready_targets));
        let mut text = format!("{targets} selected, {members} in the group");
        for (number, what) in [
            (
                number(status.stalled_targets),
                "for which somebody must act",
            ),
            (
                number(status.skipped_nodes),
                "skipped: a Node that is no instance of the region",
            ),
        ] {
            if number > 0 {
                let _ = write!(text, ", {number} {what}");
            }
        }
        text
    }

    fn deletion(&self) -> String {
        let counts = self.deletion.iter();
        let parts: Vec<String> = counts
            .map(|(what, count)| format!("{count} {}", what.words()))
            .collect();
        if parts.is_empty() {
            return "nothing happens in the cloud: the set has no membership".to_owned();
        }
        format!(
            "the cluster deletes {}: {}; with kubectl delete --cascade=orphan they stay",
            counted(self.members.len(), "membership"),
            parts.join(", ")
        )
    }

    fn value(&self) -> Value {
        let not_ready = self.not_ready.iter().map(|of| {
            json!({
                "reason": of.reason, "memberships": of.count, "example": of.example.name_any(),
                "message": ready(of.example).map(|ready| &ready.message), "nextStep": next_step(of.example),
            })
        });
        json!({
            "namespace": self.set.namespace(),
            "name": self.set.name_any(),
            "spec": self.set.spec,
            "status": self.set.status,
            "memberships": self.members.iter().map(|of| of.name_any()).collect::<Vec<_>>(),
            "notReady": not_ready.collect::<Vec<Value>>(),
            "onDeletion": self.deletion,
        })
    }
}

/// The advice of the error table for the last error of a membership.
fn next_step(object: &SecurityGroupMembership) -> Option<&'static str> {
    let error = object.status.as_ref()?.last_error.as_ref()?;
    advice(error)
}
