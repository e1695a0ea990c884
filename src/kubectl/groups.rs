//! `kubectl sgm groups`: every group that targets are in, and who names it. Reads the cluster and the cloud.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::api::SecurityGroupMembership;
use crate::ecs::{ParseIdError, Target};

use super::cloud;
use super::cluster::Cluster;
use super::common::Common;
use super::failure::{Failure, exit};
use super::members::{no_object, object_cells, target_of};
use super::output::{Report, column, note};
use super::sets::{controls, set_of};

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm groups i-bp1…                          # region and account of the objects that name it
  kubectl sgm groups i-bp1… eni-bp1… --region cn-hangzhou
  kubectl sgm groups --set web                       # the targets of a set of the current namespace";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// IDs of instances and network interfaces.
    #[arg(required_unless_present = "set", value_name = "TARGET")]
    targets: Vec<String>,
    /// The targets of this set.
    #[arg(long, value_name = "NAME", conflicts_with = "targets")]
    set: Option<String>,
    /// Region of the targets. Default: that of the objects that name them.
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
}

/// A target, by the start of its ID.
pub(super) fn parse_target(text: &str) -> Result<Target, Failure> {
    let wrong = |error: ParseIdError| Failure::with(2, error.to_string());
    if text.starts_with("eni-") {
        return Ok(Target::NetworkInterface(text.parse().map_err(wrong)?));
    }
    Ok(Target::Instance(text.parse().map_err(wrong)?))
}

pub(super) async fn run(arguments: Arguments, common: &Common) -> Result<Report, Failure> {
    let cluster = Cluster::connect(&common.cluster).await?;
    let Asked {
        targets,
        mut objects,
        own,
    } = match &arguments.set {
        Some(name) => of_set(&cluster, name).await?,
        None => of_targets(&cluster, &arguments.targets).await?,
    };
    if targets.is_empty() {
        note("the set has no membership yet: kubectl sgm why sgmset/NAME says why");
        return Ok(Answer::default().report(""));
    }
    let region = cloud::region(arguments.region.as_deref(), &own, "the targets")?;
    objects.retain(|object| object.spec.region == region.as_str());
    let here = own
        .into_iter()
        .filter(|object| object.spec.region == region.as_str());
    let cloud = common
        .cloud
        .choose(&cluster, &here.collect::<Vec<_>>())
        .await?;
    let found = cloud.describe(&region, &targets).await?;
    let mut answer = Answer::default();
    let mut by_target: BTreeMap<String, Vec<&SecurityGroupMembership>> = BTreeMap::new();
    for object in &objects {
        by_target.entry(target_of(object)).or_default().push(object);
    }
    for target in &targets {
        let id = target.to_string();
        let own = by_target.remove(&id).unwrap_or_default();
        let Some(row) = found.get(&id) else {
            answer.missing += 1;
            note(&format!(
                "the cloud does not list {id} in {region}: it does not exist there, or {} may not see it",
                cloud.whose
            ));
            continue;
        };
        let groups = row.security_group_ids.iter().map(ToString::to_string);
        answer.add(&id, &groups.collect(), &own);
    }
    Ok(answer.report(region.as_str()))
}

/// What is asked for, and what the cluster knows of it.
struct Asked {
    targets: Vec<Target>,
    /// The objects that name one of them.
    objects: Vec<SecurityGroupMembership>,
    /// The objects that name the region and the account to read with.
    own: Vec<SecurityGroupMembership>,
}

/// The targets that a person names, and the objects that name them.
async fn of_targets(cluster: &Cluster, named: &[String]) -> Result<Asked, Failure> {
    let targets = named.iter().map(|text| parse_target(text));
    let targets: Vec<Target> = targets.collect::<Result<_, _>>()?;
    let mut objects = Vec::new();
    for target in &targets {
        let field = match target {
            Target::Instance(_) => "spec.instanceID",
            Target::NetworkInterface(_) => "spec.networkInterfaceID",
        };
        objects.extend(cluster.memberships(&format!("{field}={target}")).await?);
    }
    Ok(Asked {
        targets,
        own: objects.clone(),
        objects,
    })
}

/// The targets of the memberships of a set.
async fn of_set(cluster: &Cluster, name: &str) -> Result<Asked, Failure> {
    let set = cluster.set(name).await?;
    let mut objects = cluster.memberships("").await?;
    let own = objects.iter().filter(|object| controls(&set, object));
    let own: Vec<SecurityGroupMembership> = own.cloned().collect();
    let ids: BTreeSet<String> = own.iter().map(target_of).collect();
    objects.retain(|object| ids.contains(&target_of(object)));
    let targets = ids.iter().map(|id| parse_target(id));
    Ok(Asked {
        targets: targets.collect::<Result<_, _>>()?,
        objects,
        own,
    })
}

#[derive(Default)]
struct Answer {
    rows: Vec<Vec<String>>,
    names: BTreeSet<String>,
    values: Vec<Value>,
    missing: usize,
}

impl Answer {
    fn add(&mut self, id: &str, groups: &BTreeSet<String>, own: &[&SecurityGroupMembership]) {
        let mut by_group: BTreeMap<&str, Vec<&SecurityGroupMembership>> = BTreeMap::new();
        for group in groups {
            by_group.insert(group, Vec::new());
        }
        for object in own {
            let group = object.spec.security_group_id.as_str();
            by_group.entry(group).or_default().push(object);
        }
        for (group, objects) in by_group {
            let is_member = groups.contains(group);
            let member = if is_member { "True" } else { "False" };
            if is_member {
                self.names.insert(group.to_owned());
            }
            let mut row = |object: [String; 4]| {
                let cells = [id, group, member].map(str::to_owned);
                self.rows.push([&cells[..], &object].concat());
            };
            if objects.is_empty() {
                row(no_object());
            }
            for object in &objects {
                row(object_cells(object));
            }
            let objects: Vec<Value> = objects
                .iter()
                .map(|object| json!({"namespace": object.namespace(), "name": object.name_any(), "set": set_of(object)}))
                .collect();
            self.values.push(json!({
                "target": id, "securityGroupID": group, "member": is_member, "objects": objects,
            }));
        }
    }

    fn report(self, region: &str) -> Report {
        Report {
            columns: vec![
                column("TARGET"),
                column("SECURITY-GROUP"),
                column("MEMBER"),
                column("OBJECT"),
                column("SET"),
                column("READY"),
                column("ORIGIN"),
            ],
            rows: self.rows,
            names: self.names.into_iter().collect(),
            value: json!({"region": region, "groups": self.values}),
            code: if self.missing == 0 {
                0
            } else {
                exit::NOT_FOUND
            },
            text: None,
        }
    }
}
