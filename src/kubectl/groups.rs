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
use super::members::{object_cells, target_of};
use super::output::{Report, column, note};

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm groups i-bp1…                          # region and account of the objects that name it
  kubectl sgm groups i-bp1… eni-bp1… --region cn-hangzhou";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// IDs of instances and network interfaces.
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,
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
    let targets = arguments.targets.iter().map(|text| parse_target(text));
    let targets: Vec<Target> = targets.collect::<Result<_, _>>()?;
    let cluster = Cluster::connect(&common.cluster).await?;
    let mut objects = Vec::new();
    for target in &targets {
        let field = match target {
            Target::Instance(_) => "spec.instanceID",
            Target::NetworkInterface(_) => "spec.networkInterfaceID",
        };
        objects.extend(cluster.memberships(&format!("{field}={target}")).await?);
    }
    let region = cloud::region(arguments.region.as_deref(), &objects, "the targets")?;
    objects.retain(|object| object.spec.region == region.as_str());
    let cloud = common.cloud.choose(&cluster, &objects).await?;
    let found = cloud.describe(&region, &targets).await?;
    let mut answer = Answer::default();
    for target in &targets {
        let id = target.to_string();
        let own = objects.iter().filter(|object| target_of(object) == id);
        let own: Vec<&SecurityGroupMembership> = own.collect();
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
            let mut row = |[name, ready, origin]: [String; 3]| {
                let cells = [id, group, member].map(str::to_owned);
                self.rows
                    .push([&cells[..], &[name, ready, origin]].concat());
            };
            if objects.is_empty() {
                row(["<none>", "<none>", "<none>"].map(str::to_owned));
            }
            for object in &objects {
                row(object_cells(object));
            }
            let objects: Vec<Value> = objects
                .iter()
                .map(|object| json!({"namespace": object.namespace(), "name": object.name_any()}))
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
