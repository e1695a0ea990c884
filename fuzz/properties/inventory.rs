//! An inventory file and changes behind everybody's back: refused with a sentence, or a cloud that answers.
//!
//! Input: YAML, then JSON changes and JSON faults, parted by `0x1e`.

use bytes::Bytes;
use http::Request;
use k8s_openapi::jiff::Timestamp;
use security_group_operator::simulator::change::Change;
use security_group_operator::simulator::faults::Fault;
use security_group_operator::simulator::inventory::Inventory;
use security_group_operator::simulator::{DEFAULT_ACCESS_KEY, Delivery, Simulator};

use security_group_operator::ecs::sign;

use super::request::assert_readable;

pub fn hold(bytes: &[u8]) {
    let mut parts = bytes.split(|byte| *byte == 0x1e);
    let Some(Ok(yaml)) = parts.next().map(std::str::from_utf8) else {
        return;
    };
    let now = Timestamp::from_second(1_800_000_000).unwrap();
    let cloud = match Inventory::from_yaml(yaml) {
        Ok(inventory) => inventory.build(now),
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let Ok(cloud) = cloud else {
        return;
    };
    let simulator = Simulator::new(cloud, 1);
    let state = simulator.snapshot(now);
    for target in state["instances"].as_object().unwrap().values() {
        for group in target["securityGroupIds"].as_array().unwrap() {
            let group = group.as_str().unwrap();
            assert!(
                state["securityGroups"].get(group).is_some(),
                "{group} is not there: {state}"
            );
        }
    }
    if let Some(Ok(changes)) = parts.next().map(serde_json::from_slice::<Vec<Change>>) {
        for change in changes {
            if let Err(error) = simulator.change(change, now) {
                assert!(!error.to_string().is_empty());
            }
        }
    }
    if let Some(Ok(faults)) = parts.next().map(serde_json::from_slice::<Vec<Fault>>) {
        simulator.set_faults(faults);
    }
    for action in [
        "DescribeInstances",
        "JoinSecurityGroup",
        "LeaveSecurityGroup",
        "StopInstance",
    ] {
        let answer = simulator.answer(&call(action, now), now);
        if answer.outcome != "MalformedBody" && answer.delivery == Delivery::Whole {
            assert_readable(&answer.response);
        }
        let _ = simulator.snapshot(now);
    }
    let _ = simulator.stats();
}

fn call(action: &str, now: Timestamp) -> Request<Bytes> {
    let (id, secret) = DEFAULT_ACCESS_KEY;
    let timestamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut pairs = vec![
        ("AccessKeyId", id),
        ("Action", action),
        ("Format", "JSON"),
        ("InstanceId", "i-web"),
        ("RegionId", "cn-hangzhou"),
        ("SecurityGroupId", "sg-web"),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureNonce", action),
        ("SignatureVersion", "1.0"),
        ("Timestamp", &timestamp),
        ("Version", "2014-05-26"),
    ];
    let signature = sign::signature_v1(secret, &sign::string_to_sign_v1("GET", &pairs));
    pairs.push(("Signature", &signature));
    let query = sign::canonical_query(&pairs);
    let request = Request::builder()
        .uri(format!("/?{query}"))
        .header("host", "ecs.test");
    request.body(Bytes::new()).unwrap()
}
