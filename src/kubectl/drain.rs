//! `kubectl sgm drain`: deletes memberships before the operator is uninstalled, and waits until the operator has let them go. Writes and
//! deletes memberships and sets.

use std::collections::BTreeSet;
use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::membership::DeletionPolicy;
use crate::api::{SecurityGroupMembership, SecurityGroupMembershipSet, reason};
use crate::condition;
use crate::kubernetes::{Error, with_deadline};

use super::cluster::{Cluster, Namespaced, full_name};
use super::common::Common;
use super::failure::{Failure, exit};
use super::output::{Report, column, counted, note};
use super::sets::membership_name;

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm drain --retain -A          # delete the objects; every target stays in its groups
  kubectl sgm drain --remove -n team-a   # delete the objects; what the operator joined is removed from its groups
  kubectl sgm drain --retain -A --yes    # without asking, for scripts

Sets are suspended first, and deleted last: a set would create its memberships again. The operator must run: it is the one that \
lets the objects go. Suspended memberships are not let go.";

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true))]
pub(super) struct Arguments {
    /// Set deletionPolicy to Retain first: nothing changes in the cloud.
    #[arg(long, group = "what")]
    retain: bool,
    /// Delete by each object's own deletionPolicy: what the operator joined is removed from its groups.
    #[arg(long, group = "what")]
    remove: bool,
    /// Do not ask.
    #[arg(short = 'y', long)]
    yes: bool,
    /// Longest wait until the objects are gone.
    #[arg(long, value_name = "DURATION", default_value = "5m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Writes to the API server at the same time.
const AT_ONCE: usize = 8;
/// Time between two looks at the objects that are left.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

pub(super) async fn run(arguments: Arguments, common: &Common) -> Result<Report, Failure> {
    let cluster = Cluster::connect(&common.cluster).await?;
    let namespace = if common.cluster.all_namespaces {
        ""
    } else {
        cluster.namespace.as_str()
    };
    let mut sets = match cluster.sets(namespace).await {
        // An older version of the CRDs.
        Err(failure) if failure.code == exit::NOT_FOUND => Vec::new(),
        listed => listed?,
    };
    let objects = cluster.list(namespace, "").await?;
    if objects.is_empty() && sets.is_empty() {
        note("there is no membership and no set: nothing is to be done");
        return Ok(report(&[], &[]));
    }
    if !arguments.yes {
        confirm(&objects, &sets, arguments.retain, namespace)?;
    }
    let until = Instant::now() + arguments.timeout;
    // One that is being deleted creates nothing, and the operator writes no status of it.
    sets.retain(|set| set.metadata.deletion_timestamp.is_none());
    suspend_sets(&cluster, &sets, arguments.retain, until).await?;
    let drained = drain(&cluster, &sets, arguments.retain, namespace, until).await;
    if drained.is_err() && !sets.is_empty() {
        note(&format!(
            "{} may stay suspended: run this again, or set spec.suspend to false",
            counted(sets.len(), "set")
        ));
    }
    drained
}

/// Deletes the memberships of a namespace, and then the sets, which are suspended.
async fn drain(
    cluster: &Cluster,
    sets: &[SecurityGroupMembershipSet],
    retain: bool,
    namespace: &str,
    until: Instant,
) -> Result<Report, Failure> {
    // A set may have created some in the meantime.
    let objects = cluster.list(namespace, "").await?;
    let write = |object| drain_one(cluster, object, retain);
    let written = stream::iter(&objects).map(write).buffered(AT_ONCE);
    let _: Vec<()> = written.try_collect().await?;
    delete_sets(cluster, sets).await?;
    let left = wait(cluster, namespace, &objects, until).await?;
    for object in &left {
        let status = object.status.as_ref();
        let ready = status.and_then(|status| condition::find(&status.conditions, reason::READY));
        let message = match (object.spec.suspend, ready) {
            (true, _) => "it is suspended; set spec.suspend to false",
            (false, Some(ready)) => ready.message.as_str(),
            (false, None) => "the operator has not said why",
        };
        note(&format!("{} is still there: {message}", full_name(object)));
    }
    Ok(report(&objects, &left))
}

fn report(objects: &[SecurityGroupMembership], left: &[SecurityGroupMembership]) -> Report {
    let uids: BTreeSet<_> = left.iter().map(|of| of.metadata.uid.clone()).collect();
    let is_left = |object: &SecurityGroupMembership| uids.contains(&object.metadata.uid);
    let state = |object: &SecurityGroupMembership| if is_left(object) { "left" } else { "gone" };
    let row = |object: &SecurityGroupMembership| {
        let namespace = object.namespace().unwrap_or_default();
        vec![namespace, object.name_any(), state(object).to_owned()]
    };
    let value = |object: &SecurityGroupMembership| json!({"namespace": object.namespace(), "name": object.name_any(), "state": state(object)});
    Report {
        columns: vec![column("NAMESPACE"), column("NAME"), column("STATE")],
        rows: objects.iter().map(row).collect(),
        names: left.iter().map(membership_name).collect(),
        value: json!({"memberships": objects.iter().map(value).collect::<Vec<_>>()}),
        code: if left.is_empty() { 0 } else { exit::NO },
        text: None,
    }
}

/// Says what will happen, and asks.
fn confirm(
    objects: &[SecurityGroupMembership],
    sets: &[SecurityGroupMembershipSet],
    retain: bool,
    namespace: &str,
) -> Result<(), Failure> {
    let place = if namespace.is_empty() {
        "of all namespaces".to_owned()
    } else {
        format!("of namespace {namespace}")
    };
    let cloud = if retain {
        "every target stays in its groups".to_owned()
    } else {
        let kept = |object: &&SecurityGroupMembership| {
            object.spec.deletion_policy == DeletionPolicy::Retain
        };
        let kept = objects.iter().filter(kept).count();
        format!(
            "targets that the operator joined are removed from their groups, but for {kept} with deletionPolicy Retain"
        )
    };
    let memberships = counted(objects.len(), "membership");
    let what = match sets.len() {
        0 => memberships,
        sets => format!("{memberships} and {}", counted(sets, "set")),
    };
    let question = format!("{what} {place} will be deleted; {cloud}.");
    if !std::io::stdin().is_terminal() {
        return Err(Failure::with(
            2,
            format!("{question} Nothing was done: add --yes"),
        ));
    }
    let mut stderr = std::io::stderr();
    write!(stderr, "{question} Go on? (yes/no) ")?;
    stderr.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    if answer.trim() == "yes" {
        Ok(())
    } else {
        Err(Failure::new("nothing was done"))
    }
}

/// Suspends sets, so that they create no membership again and put no policy back, and waits until the operator has seen that. If that
/// fails for one, all of them are put back as they were.
///
/// Not `kubectl delete --cascade=orphan`: for half a minute after a CRD is new, the garbage collector does not know who is an orphan,
/// and deletes the memberships.
///
/// # Errors
/// A right is missing, the API server does not answer, or the operator has not seen it at `until`.
async fn suspend_sets(
    cluster: &Cluster,
    sets: &[SecurityGroupMembershipSet],
    retain: bool,
    until: Instant,
) -> Result<(), Failure> {
    let patch = if retain {
        json!({"spec": {"suspend": true, "deletionPolicy": "Retain"}})
    } else {
        json!({"spec": {"suspend": true}})
    };
    let mut patched = Vec::new();
    let mut suspended = Ok(());
    for set in sets {
        match OneObject::new(cluster, set).patch(&patch).await {
            Ok(seen) => patched.extend(seen.map(|seen| (set, seen))),
            Err(failure) => {
                // Without an answer it may be suspended all the same.
                if failure.code != exit::NO_RIGHT {
                    put_back(cluster, set).await;
                }
                suspended = Err(failure);
                break;
            }
        }
    }
    if suspended.is_ok() {
        suspended = until_seen(cluster, &patched, until).await;
    }
    if suspended.is_err() {
        for (set, _) in patched {
            put_back(cluster, set).await;
        }
    }
    suspended
}

/// Waits until the operator has seen that these sets are suspended; each with the version that says so.
async fn until_seen(
    cluster: &Cluster,
    patched: &[(&SecurityGroupMembershipSet, SecurityGroupMembershipSet)],
    until: Instant,
) -> Result<(), Failure> {
    for (set, seen) in patched {
        let object = OneObject::new(cluster, *set);
        let mut seen = seen.clone();
        while !is_seen(&seen) {
            if Instant::now() >= until {
                return Err(Failure::with(
                    exit::NO,
                    format!(
                        "the operator has not seen that the set {} is suspended; does it run? Nothing was deleted, and the sets are as before",
                        full_name(*set)
                    ),
                ));
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
            match object.get().await? {
                Some(now) => seen = now,
                None => break,
            }
        }
    }
    Ok(())
}

/// Puts a set back as it was before it was suspended.
async fn put_back(cluster: &Cluster, set: &SecurityGroupMembershipSet) {
    let spec = &set.spec;
    let before = json!({"spec": {"suspend": spec.suspend, "deletionPolicy": spec.deletion_policy}});
    if let Err(Failure { message, .. }) = OneObject::new(cluster, set).patch(&before).await {
        note(&format!(
            "the set {} stays suspended: {message}; put spec.suspend and spec.deletionPolicy back by hand",
            full_name(set)
        ));
    }
}

/// Whether the status is of the spec as it is now.
fn is_seen(set: &SecurityGroupMembershipSet) -> bool {
    let seen = set
        .status
        .as_ref()
        .and_then(|status| status.observed_generation);
    seen == set.metadata.generation
}

async fn delete_sets(
    cluster: &Cluster,
    sets: &[SecurityGroupMembershipSet],
) -> Result<(), Failure> {
    for set in sets {
        OneObject::new(cluster, set).delete().await?;
    }
    Ok(())
}

/// A membership or a set, by its name: it may be gone already.
struct OneObject<K> {
    api: Api<K>,
    namespace: String,
    name: String,
}

impl<K: Namespaced> OneObject<K> {
    fn new(cluster: &Cluster, object: &K) -> Self {
        let namespace = object.namespace().unwrap_or_default();
        Self {
            api: Api::namespaced(cluster.client.clone(), &namespace),
            namespace,
            name: object.name_any(),
        }
    }

    async fn get(&self) -> Result<Option<K>, Failure> {
        self.unless_gone("get", with_deadline(self.api.get(&self.name)).await)
    }

    async fn patch(&self, patch: &Value) -> Result<Option<K>, Failure> {
        let (params, patch) = (PatchParams::default(), Patch::Merge(patch));
        let patched = self.api.patch(&self.name, &params, &patch);
        self.unless_gone("patch", with_deadline(patched).await)
    }

    async fn delete(&self) -> Result<(), Failure> {
        let params = DeleteParams::default();
        let deleted = self.api.delete(&self.name, &params);
        self.unless_gone("delete", with_deadline(deleted).await)?;
        Ok(())
    }

    fn unless_gone<T>(&self, verb: &str, answer: Result<T, Error>) -> Result<Option<T>, Failure> {
        match answer {
            Ok(answer) => Ok(Some(answer)),
            Err(error) if error.code() == Some(404) => Ok(None),
            Err(error) => Err(K::request(verb, &self.namespace, &self.name).failed(&error)),
        }
    }
}

async fn drain_one(
    cluster: &Cluster,
    object: &SecurityGroupMembership,
    retain: bool,
) -> Result<(), Failure> {
    let named = OneObject::new(cluster, object);
    if retain && object.spec.deletion_policy != DeletionPolicy::Retain {
        let patch = json!({"spec": {"deletionPolicy": "Retain"}});
        named.patch(&patch).await?;
    }
    named.delete().await
}

/// Waits until all of these objects are gone. Returns the ones that are still there when the time is over.
async fn wait(
    cluster: &Cluster,
    namespace: &str,
    objects: &[SecurityGroupMembership],
    until: Instant,
) -> Result<Vec<SecurityGroupMembership>, Failure> {
    let asked: BTreeSet<_> = objects.iter().map(|of| of.metadata.uid.clone()).collect();
    let mut told = objects.len();
    loop {
        let mut left = cluster.list(namespace, "").await?;
        left.retain(|left| asked.contains(&left.metadata.uid));
        if left.is_empty() || Instant::now() >= until {
            return Ok(left);
        }
        if left.len() != told {
            told = left.len();
            note(&format!(
                "{told} of {} left …",
                counted(objects.len(), "membership")
            ));
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}
