//! What the selector of a set says of a target, written again from `docs/user/sets.md`: which instance a Node is, which labels and tags
//! match, what a membership is called and which policies it has. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::monitor::text;

/// How old a Node must be for its labels to count, and how long a target must have been gone.
pub const FIVE_MINUTES: Duration = Duration::from_secs(300);

/// Region and ID of the instance that a Node is.
pub fn instance_of(node: &Value) -> Option<(String, String)> {
    let labels = &node["metadata"]["labels"];
    if labels["type"] == "virtual-kubelet" || labels["alibabacloud.com/lingjun-worker"] == "true" {
        return None;
    }
    let id = text(node, "/spec/providerID");
    let id = id.strip_prefix("alicloud://").unwrap_or(&id);
    let (region, instance) = id.split_once('.')?;
    let is_instance = instance.starts_with("i-");
    is_instance.then(|| (region.to_owned(), instance.to_owned()))
}

/// Whether a membership has the policies that the spec of its set has.
pub fn has_policies(membership: &Value, spec: &Value) -> bool {
    let policies = ["management", "adoption", "deletion", "drift", "karpenter"];
    policies.iter().all(|policy| {
        let field = format!("{policy}Policy");
        membership["spec"][&field] == spec[&field]
    })
}

/// Whether a Node has the labels of a selector.
pub fn matches(selector: &Value, node: &Value) -> bool {
    let labels = &node["metadata"]["labels"];
    let wanted = selector["matchLabels"].as_object().into_iter().flatten();
    let mut wanted = wanted.map(|(key, value)| labels[key] == *value);
    let expressions = selector["matchExpressions"]
        .as_array()
        .into_iter()
        .flatten();
    let mut expressions = expressions.map(|expression| {
        let label = &labels[text(expression, "/key")];
        let values = expression["values"].as_array();
        let is_named = values.is_some_and(|values| values.contains(label));
        match text(expression, "/operator").as_str() {
            "In" => is_named,
            "NotIn" => !is_named,
            "Exists" => label.is_string(),
            _ => label.is_null(),
        }
    });
    wanted.all(|fits| fits) && expressions.all(|fits| fits)
}

/// The IDs that a set lists; `None` if it selects otherwise.
pub fn listed(spec: &Value) -> Option<BTreeSet<String>> {
    let ids = spec["instanceIDs"].as_array();
    let ids = ids.or_else(|| spec["networkInterfaceIDs"].as_array())?;
    Some(
        ids.iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect(),
    )
}

/// The tags that a set selects by.
pub fn tags(spec: &Value) -> Option<BTreeMap<String, String>> {
    let tags = spec["instanceTags"].as_object()?;
    let text = |(key, value): (&String, &Value)| Some((key.clone(), value.as_str()?.to_owned()));
    Some(tags.iter().filter_map(text).collect())
}

/// The tags by which an instance is Karpenter's.
pub const KARPENTER_TAGS: [&str; 3] = [
    "karpenter.sh/nodepool",
    "karpenter.sh/nodeclaim",
    "karpenter.sh/managed-by",
];

/// Whether an instance with these tags is Karpenter's.
pub fn is_karpenters(tags: &BTreeMap<String, String>) -> bool {
    KARPENTER_TAGS.iter().any(|tag| tags.contains_key(*tag))
}

/// Whether an instance with `own` tags has those that are `wanted`.
pub fn has_tags(own: &BTreeMap<String, String>, wanted: &BTreeMap<String, String>) -> bool {
    wanted
        .iter()
        .all(|(key, value)| own.get(key) == Some(value))
}

/// The instances of the region that a node selector picks among these Nodes.
pub fn picked(spec: &Value, nodes: &[&Arc<Value>]) -> BTreeSet<String> {
    let fits = nodes
        .iter()
        .filter(|node| matches(&spec["nodeSelector"], node));
    let of_region = fits.filter_map(|node| instance_of(node));
    let of_region = of_region.filter(|(region, _)| spec["region"] == *region);
    of_region.map(|(_, id)| id).collect()
}

/// The Nodes of one instance.
pub fn nodes_of<'a>(nodes: &[&'a Arc<Value>], spec: &Value, target: &str) -> Vec<&'a Arc<Value>> {
    let is_its = |node: &&&Arc<Value>| {
        instance_of(node).is_some_and(|(region, id)| spec["region"] == region && id == target)
    };
    nodes.iter().filter(is_its).copied().collect()
}

/// Whether a Node is so old at `now` that its labels count.
pub fn is_old(node: &Value, now: Timestamp) -> bool {
    let created = text(node, "/metadata/creationTimestamp").parse::<Timestamp>();
    created.is_ok_and(|created| {
        now.as_second() - created.as_second() >= i64::try_from(FIVE_MINUTES.as_secs()).unwrap()
    })
}

/// The name of the membership of a set for a target and a group.
pub fn name_of(set: &str, region: &str, target: &str, group: &str) -> String {
    let digest = Sha256::digest(format!("{region}/{target}/{group}").as_bytes());
    let first: String = digest.iter().take(4).fold(String::new(), |text, byte| {
        use std::fmt::Write as _;
        let mut text = text;
        write!(text, "{byte:02x}").unwrap();
        text
    });
    format!("{set}-{}-{first}", target.to_lowercase())
}
