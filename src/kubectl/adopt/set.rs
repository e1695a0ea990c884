//! The sets that `adopt` prints: by IDs, or by the labels of the Nodes that the members are. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use serde_json::{Value, json};

use crate::api::grant::{LabelOperator, LabelRequirement, LabelSelector};
use crate::ecs::{Region, Target};
use crate::nodes::KnownNode;

use super::super::failure::{Failure, exit};
use super::super::output::{counted, first_three};
use super::super::sets::nodes_with;

/// Most IDs that a set takes.
const IDS: usize = 1000;
/// Most values that a requirement of a selector takes.
const VALUES: usize = 64;
/// Labels that name the pool of a Node, the best ones to select by first.
const POOLS: [&str; 3] = [
    "node.alibabacloud.com/nodepool-id",
    "alibabacloud.com/nodepool-id",
    "karpenter.sh/nodepool",
];
/// Labels that say what a machine is, and not what it is for: the next Node has them by chance.
const OF_MACHINES: [&str; 5] = [
    "kubernetes.io/",
    "beta.kubernetes.io/",
    "node.kubernetes.io/",
    "topology.",
    "failure-domain.",
];

/// The name and the selector of each set that lists these targets: instances and interfaces apart, at most 1,000 IDs each.
pub(super) fn by_ids(name: &str, targets: &[&Target]) -> Vec<(String, Value)> {
    let ids = |wanted: fn(&Target) -> bool| -> Vec<String> {
        let of = targets.iter().filter(|target| wanted(target));
        of.map(ToString::to_string).collect()
    };
    let instances = ids(|target| matches!(target, Target::Instance(_)));
    let interfaces = ids(|target| matches!(target, Target::NetworkInterface(_)));
    let instances = instances.chunks(IDS).map(|ids| json!({"instanceIDs": ids}));
    let interfaces = interfaces
        .chunks(IDS)
        .map(|ids| json!({"networkInterfaceIDs": ids}));
    let sets = instances.chain(interfaces).enumerate();
    let named = |(at, selector): (usize, Value)| {
        let name = match at {
            0 => name.to_owned(),
            at => format!("{name}-{}", at + 1),
        };
        (name, selector)
    };
    sets.map(named).collect()
}

/// A selector and what it leaves out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ByNodes {
    pub(super) selector: LabelSelector,
    /// The targets that it selects and no object names yet.
    pub(super) selected: usize,
}

/// The label that selects all Nodes among `free`, and no Node of the region that is not in `members`: what it selects is in the group
/// already, so that the set joins nothing.
///
/// # Errors
/// None of `free` is a Node, or no label does it.
pub(super) fn by_nodes(
    nodes: &HashMap<String, KnownNode>,
    region: &Region,
    members: &BTreeSet<Target>,
    free: &BTreeSet<Target>,
) -> Result<ByNodes, Failure> {
    let here: Vec<(&str, Target, &KnownNode)> = nodes
        .iter()
        .filter_map(|(name, node)| {
            let (of, id) = node.instance.as_ref()?;
            (of == region).then(|| (name.as_str(), Target::Instance(id.clone()), node))
        })
        .collect();
    let of_free = || here.iter().filter(|(_, target, _)| free.contains(target));
    let wanted: Vec<&KnownNode> = of_free().map(|(_, _, node)| *node).collect();
    // Two Nodes may be one instance.
    let selected = of_free()
        .map(|(_, target, _)| target)
        .collect::<BTreeSet<_>>()
        .len();
    let Some((first, others)) = wanted.split_first() else {
        return Err(Failure::with(
            exit::NO,
            "no member without an object is a Node of this cluster: leave --from-nodes out",
        ));
    };
    let mut candidates: Vec<(Vec<&str>, LabelSelector)> = Vec::new();
    for (key, value) in first.labels().filter(|(key, _)| is_of_purpose(key)) {
        let values = others.iter().map(|node| node.label(key));
        let values: Option<BTreeSet<&str>> = values.chain([Some(value)]).collect();
        let Some(values) = values.filter(|values| values.len() <= VALUES) else {
            continue;
        };
        // A label of its own on each Node selects no Node to come.
        if wanted.len() > 1 && values.len() == wanted.len() && !POOLS.contains(&key) {
            continue;
        }
        let foreign = here.iter().filter(|(_, target, node)| {
            let label = node.label(key);
            label.is_some_and(|label| values.contains(label)) && !members.contains(target)
        });
        let mut foreign: Vec<&str> = foreign.map(|(name, _, _)| *name).collect();
        foreign.sort_unstable();
        candidates.push((foreign, selector(key, &values)));
    }
    candidates.sort_by_key(|(foreign, selector)| {
        let key = key_of(selector);
        let pool = POOLS.iter().position(|pool| *pool == key);
        (foreign.len(), pool.unwrap_or(POOLS.len()), key.to_owned())
    });
    match candidates.into_iter().next() {
        Some((foreign, selector)) if foreign.is_empty() => Ok(ByNodes { selector, selected }),
        Some((foreign, selector)) => Err(no_label(wanted.len(), Some((&foreign, &selector)))),
        None => Err(no_label(wanted.len(), None)),
    }
}

/// Whether a label may say what a Node is for.
fn is_of_purpose(key: &str) -> bool {
    !OF_MACHINES.iter().any(|prefix| key.starts_with(prefix))
}

fn selector(key: &str, values: &BTreeSet<&str>) -> LabelSelector {
    let mut all = values.iter().map(|value| (*value).to_owned());
    if values.len() == 1 {
        let labels = all.map(|value| (key.to_owned(), value));
        return LabelSelector {
            match_labels: labels.collect::<BTreeMap<_, _>>(),
            ..LabelSelector::default()
        };
    }
    LabelSelector {
        match_expressions: vec![LabelRequirement {
            key: key.to_owned(),
            operator: LabelOperator::In,
            values: all.by_ref().collect(),
        }],
        ..LabelSelector::default()
    }
}

fn key_of(selector: &LabelSelector) -> &str {
    let mut labels = selector.match_labels.keys();
    let mut expressions = selector.match_expressions.iter().map(|of| &of.key);
    labels
        .next()
        .or_else(|| expressions.next())
        .map_or("", String::as_str)
}

fn no_label(nodes: usize, closest: Option<(&Vec<&str>, &LabelSelector)>) -> Failure {
    let closest = closest.map_or(String::new(), |(foreign, selector)| {
        format!(
            "; the closest, {}, also selects {} outside the group ({})",
            nodes_with(selector),
            counted(foreign.len(), "Node"),
            first_three(foreign)
        )
    });
    Failure::with(
        exit::NO,
        format!(
            "no label selects the {} among the members and nothing else{closest}; label them, or leave --from-nodes out",
            counted(nodes, "Node")
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nodes::{Node, Nodes};
    use kube::runtime::watcher::Event;

    /// The choice among Nodes of name, instance and labels; the members of the group are `i-1` to `i-3`, of which `i-3` has an object.
    fn choose(all: &[(&str, &str, Value)]) -> Result<ByNodes, Failure> {
        let nodes = Nodes::default();
        for (name, instance, labels) in all {
            let node = json!({"metadata": {"name": name, "labels": labels}, "spec": {"providerID": format!("cn-hangzhou.{instance}")}});
            let node: Node = serde_json::from_value(node).unwrap();
            nodes.take(Event::InitApply(node));
        }
        let target = |id: &str| Target::Instance(id.parse().unwrap());
        let members = ["i-1", "i-2", "i-3"].map(target).into();
        let free = ["i-1", "i-2"].map(target).into();
        let region = "cn-hangzhou".parse().unwrap();
        nodes.look(|nodes, _| by_nodes(nodes, &region, &members, &free))
    }

    const POOL: &str = "node.alibabacloud.com/nodepool-id";

    #[test]
    fn pool_is_chosen_before_another_label_and_two_pools_are_a_list() {
        let found = choose(&[
            ("a", "i-1", json!({POOL: "np1", "app": "web"})),
            ("b", "i-2", json!({POOL: "np1", "app": "web"})),
            ("c", "i-3", json!({POOL: "np1"})),
            ("d", "i-9", json!({POOL: "np2"})),
        ])
        .unwrap();
        assert_eq!(
            nodes_with(&found.selector),
            format!("Nodes with {POOL}=np1")
        );
        assert_eq!(found.selected, 2);
        let found = choose(&[
            ("a", "i-1", json!({POOL: "np1"})),
            ("b", "i-2", json!({POOL: "np2"})),
        ])
        .unwrap();
        assert_eq!(
            nodes_with(&found.selector),
            format!("Nodes with {POOL} in (np1, np2)")
        );
    }

    #[test]
    fn two_nodes_of_one_instance_are_one_member() {
        let found = choose(&[
            ("a", "i-1", json!({POOL: "np1"})),
            ("a-again", "i-1", json!({POOL: "np1"})),
        ]);
        assert_eq!(found.unwrap().selected, 1);
    }

    #[test]
    fn label_that_would_join_another_node_is_refused_and_named() {
        let refused = choose(&[
            (
                "a",
                "i-1",
                json!({POOL: "np1", "kubernetes.io/os": "linux"}),
            ),
            (
                "b",
                "i-2",
                json!({POOL: "np1", "kubernetes.io/os": "linux"}),
            ),
            ("stranger", "i-9", json!({POOL: "np1"})),
        ])
        .unwrap_err();
        assert_eq!(refused.code, exit::NO);
        assert!(
            refused
                .message
                .contains("np1, also selects 1 Node outside the group (stranger)"),
            "{}",
            refused.message
        );
        assert_eq!(choose(&[]).unwrap_err().code, exit::NO);
        assert!(choose(&[("a", "i-1", json!({"kubernetes.io/hostname": "a"}))]).is_err());
    }

    #[test]
    fn more_than_a_thousand_ids_are_several_sets_and_interfaces_one_of_their_own() {
        let instances = (0..1001).map(|at| Target::Instance(format!("i-{at}").parse().unwrap()));
        let targets: Vec<Target> = instances
            .chain([Target::NetworkInterface("eni-1".parse().unwrap())])
            .collect();
        let sets = by_ids("web", &targets.iter().collect::<Vec<_>>());
        let names: Vec<&str> = sets.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["web", "web-2", "web-3"]);
        assert_eq!(sets[2].1, json!({"networkInterfaceIDs": ["eni-1"]}));
        assert!(by_ids("web", &[]).is_empty());
    }
}
