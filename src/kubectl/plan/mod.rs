//! `kubectl sgm plan`: what `kubectl apply` would do with files, and what the operator would do then. Writes nothing: the API server is
//! asked with `dryRun`, and the operator's own decision is asked with what the cloud shows now.
//!
//! ```text
//! files ─▶ apply (dryRun) ─▶ surroundings ─▶ set, membership ─▶ row
//!          API server        accounts,       forecast, one object
//!                            targets         after the other
//! ```

mod apply;
mod membership;
mod row;
mod set;
mod surroundings;

use std::path::PathBuf;

use k8s_openapi::jiff::Timestamp;

use crate::api::{SecurityGroupMembership, SecurityGroupMembershipSet};

use self::apply::Applied;
use self::row::Planned;
use self::surroundings::Surroundings;
use super::cluster::Cluster;
use super::common::Common;
use super::failure::Failure;
use super::lint;
use super::output::{Report, counted, note};

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm plan -f web.yaml
  kubectl sgm plan -f set.yaml                    # a set: also each membership that it would create, patch or delete
  kubectl sgm plan -f manifests/ -o wide          # with the message that the status would have
  kustomize build . | kubectl sgm plan -f -       # exit code 3 if an object would not become Ready

It foresees what the API server, grants, policies and the target's own description say. It cannot foresee what only a Join \
meets: a limit of the cloud, a group that does not exist, a missing right of the account's key.";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files and folders; - is standard input.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, common: &Common) -> Result<Report, Failure> {
    let mut texts = Vec::new();
    for file in &arguments.files {
        texts.extend(lint::read(file)?);
    }
    let files = lint::objects(&texts)?;
    let cluster = Cluster::connect(&common.cluster).await?;
    let sets: Vec<Applied<SecurityGroupMembershipSet>> =
        apply::dry_run(&cluster, &files.sets).await?;
    let memberships: Vec<Applied<SecurityGroupMembership>> =
        apply::dry_run(&cluster, &files.memberships).await?;
    let of_sets = sets.iter().map(|applied| applied.namespace.as_str());
    let of_memberships = memberships.iter().map(|applied| applied.namespace.as_str());
    let namespaces = of_sets.chain(of_memberships).collect();
    let mut surroundings = Surroundings::list(&cluster, &namespaces).await?;
    let sets = set::select(&cluster, sets).await?;
    let stored = memberships
        .iter()
        .filter_map(|applied| applied.result.as_ref().ok());
    let mut wanted: Vec<SecurityGroupMembership> =
        stored.map(|(_, object)| object.clone()).collect();
    wanted.extend(sets.iter().flat_map(|set| set.objects(&surroundings)));
    surroundings
        .read(&cluster, &files, &wanted, &common.cloud)
        .await?;
    for (account, namespace) in sets.iter().filter_map(set::Set::account) {
        // Also of a set that has and wants no membership.
        surroundings
            .read_account(&cluster, &files, account, namespace)
            .await?;
    }
    let now = Timestamp::now();
    let mut planned: Vec<Planned> = Vec::new();
    for applied in memberships {
        planned.push(membership::plan(applied, &mut surroundings, now));
    }
    for set in sets {
        planned.extend(set.plan(&mut surroundings, now));
    }
    if files.foreign > 0 {
        note(&format!(
            "{} of other kinds not looked at",
            counted(files.foreign, "object")
        ));
    }
    Ok(row::report(&planned))
}
