//! What ten thousand Nodes take in memory. A process of its own: nothing else allocates while it measures.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

use kube::runtime::watcher::Event;
use security_group_operator::nodes::{Node, Nodes};
use serde_json::{Value, json};

/// That of the operator.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const NODES: u32 = 10_000;

/// The resident memory of this process, in KiB.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let number = line.unwrap().split_whitespace().nth(1);
    number.unwrap().parse().unwrap()
}

/// With as many labels as a Node of ACK has; three of the values are its own.
fn node(index: u32) -> Node {
    let instance = format!("i-bp1{index:017}");
    let mut labels = json!({
        "kubernetes.io/hostname": format!("cn-hangzhou.192.168.0.{index}"),
        "alibabacloud.com/ecs-instance-id": instance,
        "node.alibabacloud.com/address": format!("192.168.0.{index}"),
        "topology.kubernetes.io/region": "cn-hangzhou",
        "topology.kubernetes.io/zone": "cn-hangzhou-h",
    });
    for number in 0..20 {
        labels[format!("example.com/label-number-{number}")] = Value::from("a-value");
    }
    let node = json!({
        "metadata": {
            "name": format!("cn-hangzhou.192.168.0.{index}"),
            "uid": format!("0e9fd0b6-5b5c-4a2a-9b1a-{index:012}"),
            "labels": labels, "creationTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": {"providerID": format!("cn-hangzhou.{instance}")},
    });
    serde_json::from_value(node).unwrap()
}

#[test]
fn ten_thousand_nodes_with_25_labels_take_ten_mebibytes_at_most() {
    let nodes = Nodes::default();
    // What the first Node of all makes is not the Nodes'.
    drop(node(0));
    let before = resident();
    nodes.take(Event::Init);
    for index in 0..NODES {
        nodes.take(Event::InitApply(node(index)));
    }
    nodes.take(Event::InitDone);
    let more = resident() - before;
    println!("{more} KiB");
    nodes.look(|nodes, _| assert_eq!(nodes.len(), NODES as usize));
    assert!(more <= 10 * 1024, "{more} KiB");
}
