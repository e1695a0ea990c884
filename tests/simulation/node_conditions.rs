//! What Nodes say of the groups that sets want them in, where writing takes long.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::api_server::{Call, CallFault, Verb};
use crate::in_virtual_time;
use crate::judged::world;
use crate::scenario::seconds;
use crate::sets::{apply_set, told_of, web};
use crate::topology::NAMESPACE;
use crate::world::World;

const NODES: i64 = 100;

fn says_true(call: &Call) -> bool {
    let is_status = call.kind.plural == "nodes" && call.status && call.verb.writes();
    is_status && call.body["status"]["conditions"][0]["status"] == "True"
}

/// So many Nodes, and a set that has made all of them members. Returns its selector.
async fn set_of_nodes(world: &World, count: i64) -> Value {
    for number in 0..count {
        let id = format!("i-bulk{number}");
        let instance = json!({"id": id, "securityGroupIds": ["sg-base"], "status": "Running"});
        world.cloud(json!({"createInstance": instance}));
        let name = format!("n-{number}");
        let node = json!({
            "apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": web()},
            "spec": {"providerID": format!("cn-hangzhou.{id}")},
        });
        world.user(Verb::Apply, "nodes", "", &name, node);
    }
    let selector = json!({"matchLabels": web()});
    apply_set(world, "s", json!({"nodeSelector": selector}));
    seconds(60.0).await;
    let all = ("AllMembers".to_owned(), [count; 3]);
    assert_eq!(told_of(world, "s"), all);
    selector
}

/// A webhook fails, or the kubelet and others write the status all the time.
#[test]
fn condition_that_met_a_conflict_is_written_again() {
    in_virtual_time(|| async {
        let mut world = world().await;
        set_of_nodes(&world, 1).await;
        world.kill(0);
        let of_status = |call: &Call| call.kind.plural == "nodes" && call.status;
        world.faults.refuse_calls(of_status, CallFault::Refuse(409));
        world.start_with_node_conditions(&Arc::default());
        seconds(20.0).await;
        world.faults.refuse_no_calls();
        world.faults.record_requests();
        seconds(40.0).await;
        assert_eq!(world.faults.recorded(says_true).len(), 1);
    });
}

/// Another set selects all Nodes, for a group that is not granted, while the first conditions are written.
#[test]
fn no_node_says_true_that_is_not_so_any_more_when_its_turn_comes() {
    in_virtual_time(|| async {
        let mut world = world().await;
        world.set_grants(&json!([{
            "name": "one", "namespaces": {"names": [NAMESPACE]}, "securityGroups": {"ids": ["sg-a"]},
        }]));
        let selector = set_of_nodes(&world, NODES).await;
        world.kill(0);
        let of_status = |call: &Call| call.kind.plural == "nodes" && call.status;
        let slow = CallFault::Pass(Duration::from_secs(1));
        world.faults.refuse_calls(of_status, slow);
        world.faults.record_requests();
        world.start_with_node_conditions(&Arc::default());
        for _ in 0..600 {
            if world.faults.recorded(says_true).is_empty() {
                seconds(0.1).await;
            }
        }
        let spec = json!({"nodeSelector": selector, "securityGroupID": "sg-b"});
        apply_set(&world, "other", spec);
        seconds(60.0).await;
        assert_eq!(told_of(&world, "other").0, "NotGranted");
        let written = world.faults.recorded(says_true).len();
        assert!((1..32).contains(&written), "{written} of {NODES}");
    });
}
