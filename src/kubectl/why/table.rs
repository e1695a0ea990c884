//! The table of what is not Ready. Reads the cluster.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::api::{SecurityGroupMembership, SecurityGroupMembershipSet};

use super::super::cluster::Cluster;
use super::super::failure::{Failure, exit};
use super::super::members::target_of;
use super::super::output::{Report, column, counted, note, wide};
use super::super::sets::{membership_name, set_name};
use super::parts::{ready, ready_of, since, summary};

/// The memberships and sets that are not Ready.
pub(super) async fn not_ready(cluster: &Cluster, all: bool) -> Result<Report, Failure> {
    let namespace = if all { "" } else { cluster.namespace.as_str() };
    let mut objects = cluster.list(namespace, "").await?;
    let mut sets = match cluster.sets(namespace).await {
        Ok(sets) => sets,
        Err(failure) if failure.code == exit::FAILED => return Err(failure),
        Err(failure) => {
            note(&format!("sets are not looked at: {}", failure.message));
            Vec::new()
        }
    };
    let total = (objects.len(), sets.len());
    objects.retain(|object| !is_true(ready(object)));
    sets.retain(|set| !is_true(ready_of(set)));
    if objects.is_empty() && sets.is_empty() {
        let (objects, sets) = (counted(total.0, "membership"), counted(total.1, "set"));
        note(&format!("{objects} and {sets}, all of them Ready"));
    }
    let now = Timestamp::now();
    let of_sets = sets.iter().map(|set| set_row(set, now));
    let rows = of_sets.chain(objects.iter().map(|object| row(object, now)));
    let names = sets.iter().map(set_name);
    Ok(Report {
        columns: vec![
            column("NAMESPACE"),
            column("NAME"),
            column("READY"),
            column("REASON"),
            column("FOR"),
            column("TARGET"),
            column("SECURITY-GROUP"),
            wide("MESSAGE"),
        ],
        rows: rows.collect(),
        names: names.chain(objects.iter().map(membership_name)).collect(),
        value: json!({
            "memberships": total.0, "notReady": objects.iter().map(summary).collect::<Vec<_>>(),
            "sets": total.1, "setsNotReady": sets.iter().map(set_summary).collect::<Vec<_>>(),
        }),
        code: if objects.is_empty() && sets.is_empty() {
            0
        } else {
            exit::NO
        },
        text: None,
    })
}

fn is_true(condition: Option<&Condition>) -> bool {
    condition.is_some_and(|condition| condition.status == "True")
}

/// The cells of a row of the table: object, its Ready, target, group.
fn cells(
    of: [String; 2],
    ready: Option<&Condition>,
    target: String,
    group: &str,
    now: Timestamp,
) -> Vec<String> {
    let text = |pick: fn(&Condition) -> &String| ready.map(pick).cloned().unwrap_or_default();
    let [namespace, name] = of;
    vec![
        namespace,
        name,
        text(|ready| &ready.status),
        text(|ready| &ready.reason),
        ready.map(|ready| since(ready, now)).unwrap_or_default(),
        target,
        group.to_owned(),
        text(|ready| &ready.message),
    ]
}

fn row(object: &SecurityGroupMembership, now: Timestamp) -> Vec<String> {
    let of = [object.namespace().unwrap_or_default(), object.name_any()];
    let group = &object.spec.security_group_id;
    cells(of, ready(object), target_of(object), group, now)
}

/// The row of a set: its target is how many of its targets are members.
fn set_row(set: &SecurityGroupMembershipSet, now: Timestamp) -> Vec<String> {
    let name = format!("sgmset/{}", set.name_any());
    let of = [set.namespace().unwrap_or_default(), name];
    let group = &set.spec.security_group_id;
    cells(of, ready_of(set), progress(set), group, now)
}

/// How many of the selected targets are members of the group: "3/5".
fn progress(set: &SecurityGroupMembershipSet) -> String {
    let status = set.status.as_ref();
    let number = |pick: Option<i64>| pick.unwrap_or_default();
    let members = number(status.and_then(|status| status.ready_targets));
    let targets = number(status.and_then(|status| status.targets));
    format!("{members}/{targets}")
}

fn set_summary(set: &SecurityGroupMembershipSet) -> Value {
    json!({"namespace": set.namespace(), "name": set.name_any(), "spec": set.spec, "ready": ready_of(set)})
}
