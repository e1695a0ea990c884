//! `kubectl sgm why`: everything that is known of a membership or a set, in one screen. Reads the cluster only.
//!
//! ```text
//! membership   the report on a membership
//! set          the report on a set
//! table        what is not Ready
//! deletion     what the deletion of a membership would do
//! parts        conditions, ages, advice
//! ```

mod deletion;
mod membership;
mod parts;
mod set;
mod table;

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use crate::api::{SecurityGroupMembership, SecurityGroupMembershipSet};

use super::cluster::Cluster;
use super::common::Common;
use super::failure::{Failure, exit};
use super::output::Report;
use super::sets::{Named, controls};

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm why web-1              # one membership of the current namespace
  kubectl sgm why sgmset/web         # one set: its targets, and why some are not members
  kubectl sgm why -A                 # every membership and set that is not Ready
  kubectl sgm why web-1 -o json      # for scripts; exit code 3 if it is not Ready";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of a membership, or sgmset/NAME. Without one: a table of the memberships and sets that are not Ready.
    name: Option<String>,
}

pub(super) async fn run(arguments: Arguments, common: &Common) -> Result<Report, Failure> {
    let cluster = Cluster::connect(&common.cluster).await?;
    let Some(name) = arguments.name else {
        return table::not_ready(&cluster, common.cluster.all_namespaces).await;
    };
    match Named::parse(&name)? {
        Named::Membership(name) => of_membership(&cluster, name).await,
        Named::Set(name) => {
            let set = cluster.set(name).await?;
            let objects = around(&cluster, &set).await?;
            Ok(set::explain(&set, &objects, Timestamp::now()))
        }
    }
}

async fn of_membership(cluster: &Cluster, name: &str) -> Result<Report, Failure> {
    let object = match cluster.membership(name).await {
        Ok(object) => object,
        Err(failure) if failure.code == exit::NOT_FOUND => {
            let is_set = cluster.set(name).await.is_ok();
            let hint = if is_set {
                format!("; there is a set of that name: kubectl sgm why sgmset/{name}")
            } else {
                String::new()
            };
            return Err(Failure::with(failure.code, failure.message + &hint));
        }
        Err(failure) => return Err(failure),
    };
    let others = others(cluster, &object).await?;
    Ok(membership::explain(&object, &others, Timestamp::now()))
}

/// The memberships of a set, and the other objects of the same groups.
async fn around(
    cluster: &Cluster,
    set: &SecurityGroupMembershipSet,
) -> Result<Vec<SecurityGroupMembership>, Failure> {
    let mut found = cluster.list(&cluster.namespace, "").await?;
    found.retain(|object| controls(set, object));
    let groups = found.iter().map(|of| of.spec.security_group_id.clone());
    let groups: BTreeSet<String> = groups.collect();
    for group in groups {
        let fields = format!("spec.securityGroupID={group}");
        let mut others = cluster.everywhere(&fields).await?;
        others.retain(|object| !controls(set, object));
        found.extend(others);
    }
    Ok(found)
}

/// The other objects of the same group; none, with a note, where the person may not list them.
async fn others(
    cluster: &Cluster,
    object: &SecurityGroupMembership,
) -> Result<Vec<SecurityGroupMembership>, Failure> {
    let fields = format!("spec.securityGroupID={}", object.spec.security_group_id);
    let mut listed = cluster.everywhere(&fields).await?;
    listed.retain(|other| other.metadata.uid != object.metadata.uid);
    Ok(listed)
}
