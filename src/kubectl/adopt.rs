//! `kubectl sgm adopt`: memberships in YAML for what is in a group already. Reads the cluster and the cloud; writes nothing anywhere.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::api::membership::AccountKind;
use crate::ecs::Target;

use super::cloud::account_of;
use super::common::Common;
use super::failure::Failure;
use super::members::Members;
use super::output::{Format, Report, note};

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm adopt --security-group sg-bp1… --region cn-hangzhou > web.yaml
  kubectl sgm adopt --security-group sg-bp1… --region cn-hangzhou | kubectl apply -f -

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
}

pub(super) async fn run(arguments: Arguments, common: &Common) -> Result<Report, Failure> {
    let Arguments {
        security_group,
        region,
        account_ref,
    } = arguments;
    let members = Members::read(&security_group, region.as_deref(), common).await?;
    let named = super::cloud::CloudArguments {
        account: account_ref.or_else(|| common.cloud.account.clone()),
        ..common.cloud.clone()
    };
    let of_objects = members.objects.values().flatten().next().map(account_of);
    let account = named.key("")?.or(of_objects).map_or_else(
        || json!({"kind": AccountKind::default().name(), "name": "default"}),
        |key| json!({"kind": key.kind.name(), "name": key.name}),
    );
    let free = members
        .rows
        .iter()
        .filter(|(target, _)| members.named_by(&target.to_string()).is_empty());
    let free: Vec<&(Target, _)> = free.collect();
    let namespace = common.cluster.namespace.as_deref();
    let objects: Vec<Value> = free
        .iter()
        .map(|(target, _)| object(target, &members, &account, namespace))
        .collect();
    note(&told(&members, objects.len()));
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

/// Longest name that the API server takes for an object.
const NAME_LIMIT: usize = 253;

fn object(target: &Target, members: &Members, account: &Value, namespace: Option<&str>) -> Value {
    let field = match target {
        Target::Instance(_) => "instanceID",
        Target::NetworkInterface(_) => "networkInterfaceID",
    };
    let mut name = format!("{}-{target}", members.group);
    name.truncate(NAME_LIMIT);
    let mut metadata = json!({"name": name});
    if let (Some(namespace), Some(metadata)) = (namespace, metadata.as_object_mut()) {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    json!({
        "apiVersion": "security-group-operator.io/v1alpha1",
        "kind": "SecurityGroupMembership",
        "metadata": metadata,
        "spec": {
            "region": members.region,
            field: target.to_string(),
            "securityGroupID": members.group,
            "accountRef": account,
        },
    })
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
fn told(members: &Members, free: usize) -> String {
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
        "{} in {}: {instances} instances, {interfaces} network interfaces; {} are named by an object, {free} are printed",
        members.group,
        members.region,
        members.rows.len() - free,
    );
    for (pool, count) in pools {
        let _ = write!(
            text,
            "; {count} of the instances are nodes of the node pool {pool}"
        );
    }
    if karpenter > 0 {
        let _ = write!(
            text,
            "; {karpenter} are nodes of Karpenter, which replaces them by itself: leave them out"
        );
    }
    text
}
