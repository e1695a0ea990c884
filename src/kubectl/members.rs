//! `kubectl sgm members`: who is in a group, and by whom. Reads the cluster and the cloud.

use std::collections::BTreeMap;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::api::SecurityGroupMembership;
use crate::api::reason;
use crate::condition;
use crate::ecs::{Region, SecurityGroupId, Target, TargetDescription};

use super::cloud;
use super::cluster::{Cluster, full_name};
use super::common::Common;
use super::failure::Failure;
use super::output::{Report, column, note, wide};
use super::sets::set_of;

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm members sg-bp1…                                  # region and account of the objects that name the group
  kubectl sgm members sg-bp1… --region cn-hangzhou             # with your own key, where no object names it
  kubectl sgm members sg-bp1… --account default -o name        # one target a line";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// ID of the security group.
    security_group: String,
    /// Region of the group. Default: that of the objects that name it.
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

/// The members of a group and the objects that name it.
pub(super) struct Members {
    pub(super) region: Region,
    pub(super) group: SecurityGroupId,
    pub(super) rows: Vec<(Target, TargetDescription)>,
    /// The objects that name the group in this region, by the ID of their target.
    pub(super) objects: BTreeMap<String, Vec<SecurityGroupMembership>>,
    /// The namespace that the person is in.
    pub(super) namespace: String,
}

/// Which objects count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Objects {
    /// Those of the one namespace that the person asks for, or else all.
    AskedFor,
    /// All: what an object of another namespace names is not free.
    All,
}

impl Members {
    /// Reads both.
    ///
    /// # Errors
    /// A wrong ID, a missing right, or no answer.
    pub(super) async fn read(
        group: &str,
        region: Option<&str>,
        which: Objects,
        common: &Common,
    ) -> Result<Self, Failure> {
        let group: SecurityGroupId = group
            .parse()
            .map_err(|error: crate::ecs::ParseIdError| Failure::with(2, error.to_string()))?;
        let cluster = Cluster::connect(&common.cluster).await?;
        let fields = format!("spec.securityGroupID={group}");
        let objects = match which {
            Objects::AskedFor => cluster.memberships(&fields).await?,
            Objects::All => cluster.everywhere(&fields).await?,
        };
        let region = cloud::region(region, &objects, group.as_str())?;
        let here = objects
            .into_iter()
            .filter(|object| object.spec.region == region.as_str());
        let here: Vec<_> = here.collect();
        // The objects of the person's own namespace name the account first.
        let own = here
            .iter()
            .filter(|object| object.namespace().as_ref() == Some(&cluster.namespace));
        let own: Vec<_> = own.cloned().collect();
        let naming = if which == Objects::All && !own.is_empty() {
            &own
        } else {
            &here
        };
        let cloud = common.cloud.choose(&cluster, naming).await?;
        let rows = cloud.members(&region, &group).await?;
        if rows.is_empty() {
            note(&format!(
                "the cloud lists no member of {group} in {region}: it is empty or does not exist, or {} may not see its members",
                cloud.whose
            ));
        }
        let mut by_target: BTreeMap<String, Vec<SecurityGroupMembership>> = BTreeMap::new();
        for object in here {
            by_target
                .entry(target_of(&object))
                .or_default()
                .push(object);
        }
        Ok(Self {
            region,
            group,
            rows,
            objects: by_target,
            namespace: cluster.namespace,
        })
    }

    /// The objects that name a target.
    pub(super) fn named_by(&self, target: &str) -> &[SecurityGroupMembership] {
        self.objects.get(target).map_or(&[], Vec::as_slice)
    }
}

/// ID of the target that an object names; empty if it names none.
pub(super) fn target_of(object: &SecurityGroupMembership) -> String {
    let spec = &object.spec;
    let target = spec
        .instance_id
        .as_ref()
        .or(spec.network_interface_id.as_ref());
    target.cloned().unwrap_or_default()
}

/// Name of an object and of the set behind it, status of Ready, and origin of the record.
pub(super) fn object_cells(object: &SecurityGroupMembership) -> [String; 4] {
    let status = object.status.as_ref();
    let ready = status.and_then(|status| condition::find(&status.conditions, reason::READY));
    let origin = status.and_then(|status| status.origin);
    [
        full_name(object),
        set_of(object).unwrap_or(NONE).to_owned(),
        ready.map_or("Unknown".to_owned(), |ready| ready.status.clone()),
        origin.map_or(NONE.to_owned(), |origin| format!("{origin:?}")),
    ]
}

/// What a table says where there is nothing.
const NONE: &str = "<none>";

/// The cells of a target that no object names.
pub(super) fn no_object() -> [String; 4] {
    [NONE; 4].map(str::to_owned)
}

pub(super) async fn run(arguments: Arguments, common: &Common) -> Result<Report, Failure> {
    let members = Members::read(
        &arguments.security_group,
        arguments.region.as_deref(),
        Objects::AskedFor,
        common,
    )
    .await?;
    Ok(report(&members))
}

fn report(members: &Members) -> Report {
    let mut rows = Vec::new();
    let mut values = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    for (target, row) in &members.rows {
        let id = target.to_string();
        let objects = members.named_by(&id);
        values.push(value(&id, true, Some(row), objects));
        rows.extend(cells(
            &id,
            "True",
            &row.state.to_string(),
            row.vpc_id.as_deref(),
            objects,
        ));
        seen.insert(id);
    }
    // Objects that name a target which is no member: somebody waits for it, or it has drifted.
    for (id, objects) in &members.objects {
        if !seen.contains(id) {
            values.push(value(id, false, None, objects));
            rows.extend(cells(id, "False", NONE, None, objects));
        }
    }
    Report {
        columns: vec![
            column("TARGET"),
            column("MEMBER"),
            column("STATE"),
            column("OBJECT"),
            column("SET"),
            column("READY"),
            column("ORIGIN"),
            wide("VPC"),
        ],
        rows,
        names: members
            .rows
            .iter()
            .map(|(target, _)| target.to_string())
            .collect(),
        value: json!({
            "securityGroupID": members.group, "region": members.region, "members": values,
        }),
        ..Report::default()
    }
}

/// A row for each object that names the target; one row without an object where there is none.
fn cells(
    id: &str,
    member: &str,
    state: &str,
    vpc: Option<&str>,
    objects: &[SecurityGroupMembership],
) -> Vec<Vec<String>> {
    let row = |object: [String; 4]| {
        let target = [id, member, state].map(str::to_owned);
        let vpc = [vpc.unwrap_or(NONE).to_owned()];
        [&target[..], &object, &vpc].concat()
    };
    if objects.is_empty() {
        return vec![row(no_object())];
    }
    objects
        .iter()
        .map(|object| row(object_cells(object)))
        .collect()
}

fn value(
    id: &str,
    member: bool,
    row: Option<&TargetDescription>,
    objects: &[SecurityGroupMembership],
) -> Value {
    let objects: Vec<Value> = objects
        .iter()
        .map(|object| {
            let [_, _, ready, origin] = object_cells(object);
            json!({
                "namespace": object.namespace(), "name": object.name_any(), "set": set_of(object),
                "ready": ready, "origin": origin,
            })
        })
        .collect();
    json!({
        "target": id,
        "member": member,
        "state": row.map(|row| row.state.to_string()),
        "vpcID": row.and_then(|row| row.vpc_id.clone()),
        "objects": objects,
    })
}
