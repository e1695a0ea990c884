//! `kubectl sgm adopt`: memberships or a set in YAML for what is in a group already. Reads the cluster and the cloud; writes nothing
//! anywhere.

mod set;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::account::key::AccountKey;
use crate::api::membership::AccountKind;
use crate::ecs::{Target, TargetDescription};

use super::cloud::account_of;
use super::cluster::Cluster;
use super::common::Common;
use super::failure::Failure;
use super::members::{Members, Objects};
use super::output::{Format, Report, counted, note};

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm adopt --security-group sg-bp1… --region cn-hangzhou > web.yaml
  kubectl sgm adopt --security-group sg-bp1… --region cn-hangzhou | kubectl apply -f -
  kubectl sgm adopt --security-group sg-bp1… --set web                # one set that lists the IDs
  kubectl sgm adopt --security-group sg-bp1… --set web --from-nodes   # one set that selects the Nodes by a label

Applying the answer calls nothing that writes to the cloud: the memberships are Adopted, and stay when their objects are deleted.";

#[expect(clippy::doc_markdown, reason = "--help shows these texts as they are")]
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// ID of the security group.
    #[arg(long, value_name = "SG")]
    security_group: String,
    /// Region of the group. Default: that of the objects that name it.
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    /// Account that the printed objects name: NAME or CloudAccount/NAME. Default: --account, else that of the objects that name the group,
    /// else the ClusterCloudAccount default.
    #[arg(long, value_name = "NAME")]
    account_ref: Option<String>,
    /// Print a set of this name instead of a membership for each target. It lists their IDs: instances and network interfaces in a set
    /// each, at most 1,000 in one; the sets after the first are NAME-2, NAME-3.
    #[arg(long, value_name = "NAME")]
    set: Option<String>,
    /// Let the set select the Nodes that the members are, by a label that selects no Node outside the group.
    #[arg(long, requires = "set")]
    from_nodes: bool,
}

pub(super) async fn run(arguments: Arguments, common: &Common) -> Result<Report, Failure> {
    let Arguments {
        security_group,
        region,
        account_ref,
        set,
        from_nodes,
    } = arguments;
    let region = region.as_deref();
    let members = Members::read(&security_group, region, Objects::All, common).await?;
    let named = super::cloud::CloudArguments {
        account: account_ref.or_else(|| common.cloud.account.clone()),
        ..common.cloud.clone()
    };
    let mut of_objects = named_accounts(&members).into_iter();
    let account = named.key("")?.or_else(|| of_objects.next()).map_or_else(
        || json!({"kind": AccountKind::default().name(), "name": "default"}),
        |key| json!({"kind": key.kind.name(), "name": key.name}),
    );
    let free = members
        .rows
        .iter()
        .filter(|(target, _)| members.named_by(&target.to_string()).is_empty());
    // The operator refuses an object for an interface that a service of the cloud manages.
    let (free, managed): (Vec<_>, Vec<_>) = free.partition(|(_, row)| row.refusal().is_none());
    let printed = Printed {
        members: &members,
        account: &account,
        namespace: common.cluster.namespace.as_deref(),
    };
    let objects: Vec<Value> = match (set, from_nodes) {
        (None, _) => free
            .iter()
            .map(|(target, _)| printed.membership(target))
            .collect(),
        (Some(name), false) => {
            let targets: Vec<&Target> = free.iter().map(|(target, _)| target).collect();
            let sets = set::by_ids(&name, &targets).into_iter();
            sets.map(|(name, selector)| printed.set(&name, selector))
                .collect()
        }
        (Some(name), true) => printed.set_of_nodes(&name, &free, common).await?,
    };
    note(&told(&members, free.len(), managed.len()));
    let value = match (common.format, objects.as_slice()) {
        // kubectl takes both.
        (Format::Json | Format::Yaml, objects) => {
            json!({"apiVersion": "v1", "kind": "List", "items": objects})
        }
        (Format::Table | Format::Wide | Format::Name, _) => Value::Null,
    };
    Ok(Report {
        text: Some(stream(&objects)?),
        names: free.iter().map(|(target, _)| target.to_string()).collect(),
        value,
        ..Report::default()
    })
}

/// The accounts that the objects of a group name and that an object in the person's namespace may name, those of that namespace first.
fn named_accounts(members: &Members) -> Vec<AccountKey> {
    let mut objects: Vec<_> = members.objects.values().flatten().collect();
    objects.sort_by_key(|object| object.namespace().as_ref() != Some(&members.namespace));
    let accounts = objects.into_iter().map(account_of);
    let may_be_named =
        |key: &AccountKey| key.namespace.is_empty() || key.namespace == members.namespace;
    accounts.filter(may_be_named).collect()
}

/// Longest name that the API server takes for an object.
const NAME_LIMIT: usize = 253;

/// What every printed object has in common.
struct Printed<'a> {
    members: &'a Members,
    account: &'a Value,
    namespace: Option<&'a str>,
}

impl Printed<'_> {
    fn membership(&self, target: &Target) -> Value {
        let field = match target {
            Target::Instance(_) => "instanceID",
            Target::NetworkInterface(_) => "networkInterfaceID",
        };
        let mut name = format!("{}-{target}", self.members.group);
        name.truncate(NAME_LIMIT);
        let target = json!({field: target.to_string()});
        self.object("SecurityGroupMembership", &name, target)
    }

    fn set(&self, name: &str, selector: Value) -> Value {
        self.object("SecurityGroupMembershipSet", name, selector)
    }

    /// The set of the Nodes that the members are; says which of them it leaves out.
    async fn set_of_nodes(
        &self,
        name: &str,
        free: &[&(Target, TargetDescription)],
        common: &Common,
    ) -> Result<Vec<Value>, Failure> {
        let nodes = Cluster::connect(&common.cluster).await?.nodes().await?;
        let all: BTreeSet<Target> = self.members.rows.iter().map(|(of, _)| of.clone()).collect();
        let free: BTreeSet<Target> = free.iter().map(|(target, _)| target.clone()).collect();
        let region = &self.members.region;
        let found = nodes.look(|nodes, _| set::by_nodes(nodes, region, &all, &free))?;
        let left_out = free.len() - found.selected;
        if left_out > 0 {
            note(&format!(
                "{} left out: no Node of this cluster",
                counted(left_out, "member")
            ));
        }
        let selector = json!({"nodeSelector": found.selector});
        Ok(vec![self.set(name, selector)])
    }

    fn object(&self, kind: &str, name: &str, targets: Value) -> Value {
        let mut metadata = json!({"name": name});
        if let (Some(namespace), Some(metadata)) = (self.namespace, metadata.as_object_mut()) {
            metadata.insert("namespace".to_owned(), namespace.into());
        }
        let mut spec = json!({
            "region": self.members.region,
            "securityGroupID": self.members.group,
            "accountRef": self.account,
        });
        if let (Some(spec), Value::Object(targets)) = (spec.as_object_mut(), targets) {
            spec.extend(targets);
        }
        json!({
            "apiVersion": "security-group-operator.io/v1alpha1",
            "kind": kind,
            "metadata": metadata,
            "spec": spec,
        })
    }
}

/// The objects as YAML documents.
fn stream(objects: &[Value]) -> Result<String, Failure> {
    let mut text = String::new();
    for object in objects {
        let yaml = serde_saphyr::to_string(object);
        let yaml = yaml.map_err(|error| Failure::new(error.to_string()))?;
        let _ = write!(text, "---\n{yaml}");
    }
    Ok(text)
}

/// What to know of the members, for standard error.
fn told(members: &Members, free: usize, managed: usize) -> String {
    let is_instance = |target: &Target| match target {
        Target::Instance(_) => true,
        Target::NetworkInterface(_) => false,
    };
    let instances = members
        .rows
        .iter()
        .filter(|(target, _)| is_instance(target))
        .count();
    let interfaces = members.rows.len() - instances;
    let mut pools: BTreeMap<&str, usize> = BTreeMap::new();
    let mut karpenter = 0;
    for (_, row) in &members.rows {
        let tags = row.tags.by_key();
        if let Some(pool) = tags.get("ack.alibabacloud.com/nodepool-id") {
            *pools.entry(pool).or_default() += 1;
        }
        karpenter += usize::from(tags.keys().any(|key| key.starts_with("karpenter.sh/")));
    }
    let mut text = format!(
        "{} in {}: {}, {}; {} named by an object, {free} printed",
        members.group,
        members.region,
        counted(instances, "instance"),
        counted(interfaces, "network interface"),
        members.rows.len() - free - managed,
    );
    if managed > 0 {
        let _ = write!(
            text,
            "; {managed} left out: the operator may not change their groups"
        );
    }
    for (pool, count) in pools {
        let _ = write!(
            text,
            "; {} in the node pool {pool}",
            counted(count, "instance")
        );
    }
    if karpenter > 0 {
        let _ = write!(
            text,
            "; {} of Karpenter, which replaces Nodes by itself: leave them out",
            counted(karpenter, "instance")
        );
    }
    text
}
