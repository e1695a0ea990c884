//! A simulated cloud without sockets at a time that the test sets, and signed requests to it.

use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Method, Request};
use k8s_openapi::jiff::Timestamp;
use security_group_operator::ecs::sign;
use security_group_operator::simulator::account::AccessKey;
use security_group_operator::simulator::cloud::Cloud;
use security_group_operator::simulator::inventory::Inventory;
use security_group_operator::simulator::{SimulatedResponse, Simulator};
use serde_json::{Value, json};

/// ID and secret of the key that every world accepts.
pub const KEY: (&str, &str) = ("testid", "testsecret");

pub struct World {
    pub simulator: Simulator,
    pub now: Timestamp,
}

impl World {
    /// The cloud of an inventory file, at the start of a minute.
    pub fn of(inventory: &str) -> Self {
        let now = "2027-01-15T08:00:00Z".parse().unwrap();
        Self::at(
            now,
            Inventory::from_yaml(inventory).unwrap().build(now).unwrap(),
        )
    }

    /// The generated cloud, as the flags of the process make it.
    pub fn generated(instances: usize, groups: usize, interfaces: usize) -> Self {
        let now = "2027-01-15T08:00:00Z".parse().unwrap();
        Self::at(
            now,
            Cloud::generated(instances, groups, interfaces).unwrap(),
        )
    }

    pub fn at(now: Timestamp, mut cloud: Cloud) -> Self {
        cloud.keys.insert(AccessKey::new(KEY.0, KEY.1));
        let simulator = Simulator::new(cloud, 1);
        Self { simulator, now }
    }

    pub fn change(&self, change: Value) {
        self.try_change(change).unwrap();
    }

    pub fn try_change(&self, change: Value) -> Result<(), String> {
        let change = serde_json::from_value(change).unwrap();
        let changed = self.simulator.change(change, self.now);
        changed.map_err(|error| error.to_string())
    }

    /// The same object made anew with other fields; `null` takes one away.
    pub fn becomes(&self, create: &str, before: &Value, fields: Value) -> Value {
        let mut after = before.clone();
        for (name, value) in fields.as_object().unwrap() {
            after[name] = value.clone();
        }
        let kept = after.as_object_mut().unwrap();
        kept.retain(|_, value| !value.is_null());
        self.change(json!({"delete": {"id": before["id"]}}));
        self.change(json!({ create: after }));
        after
    }

    pub fn fault(&self, fault: Value) {
        let fault = serde_json::from_value(fault).unwrap();
        self.simulator.add_fault(fault);
    }

    pub fn send(&self, request: &Request<Bytes>) -> SimulatedResponse {
        self.simulator.answer(request, self.now)
    }

    /// HTTP status and code of the answer; `OK` without one.
    pub fn code(&self, request: &Request<Bytes>) -> (u16, String) {
        let (status, body) = answer(&self.send(request));
        (status, body["Code"].as_str().unwrap_or("OK").to_owned())
    }

    /// A call with [`KEY`]: its body.
    pub fn call(&self, action: &str, parameters: &[(&str, &str)]) -> Value {
        self.call_as(KEY, action, parameters).1
    }

    pub fn call_as(
        &self,
        key: (&str, &str),
        action: &str,
        parameters: &[(&str, &str)],
    ) -> (u16, Value) {
        answer(&self.send(&signed(key, action, parameters, self.now)))
    }

    /// A Describe in cn-hangzhou: the rows, and the whole answer.
    pub fn rows(&self, what: &str, parameters: &[(&str, &str)]) -> (Vec<Value>, Value) {
        let (action, list, item) = match what {
            "instances" => ("DescribeInstances", "Instances", "Instance"),
            "interfaces" => (
                "DescribeNetworkInterfaces",
                "NetworkInterfaceSets",
                "NetworkInterfaceSet",
            ),
            "groups" => ("DescribeSecurityGroups", "SecurityGroups", "SecurityGroup"),
            "disks" => ("DescribeDisks", "Disks", "Disk"),
            "statuses" => (
                "DescribeInstanceStatus",
                "InstanceStatuses",
                "InstanceStatus",
            ),
            other => panic!("{other} cannot be listed"),
        };
        let mut all = vec![("RegionId", "cn-hangzhou")];
        all.extend(parameters);
        let answer = self.call(action, &all);
        let rows = answer[list][item].as_array().cloned();
        (rows.unwrap_or_default(), answer)
    }

    pub fn count(&self, what: &str, parameters: &[(&str, &str)]) -> usize {
        self.rows(what, parameters).0.len()
    }
}

/// HTTP status and JSON of an answer.
pub fn answer(answered: &SimulatedResponse) -> (u16, Value) {
    let response = &answered.response;
    (
        response.status().as_u16(),
        serde_json::from_slice(response.body()).unwrap(),
    )
}

/// A GET signed with version 1.0, with a fresh nonce.
pub fn signed(
    (id, secret): (&str, &str),
    action: &str,
    parameters: &[(&str, &str)],
    now: Timestamp,
) -> Request<Bytes> {
    static NONCE: AtomicU64 = AtomicU64::new(0);
    let nonce = format!("nonce-{}", NONCE.fetch_add(1, Ordering::Relaxed));
    let mut pairs = common(id, action, &nonce, now);
    pairs.extend(owned(parameters));
    sign_v1("GET", secret, pairs)
}

/// The parameters that every call of version 1.0 has, without the signature.
pub fn common(id: &str, action: &str, nonce: &str, now: Timestamp) -> Vec<(String, String)> {
    let version = if action == "GetCallerIdentity" {
        "2015-04-01"
    } else {
        "2014-05-26"
    };
    let timestamp = now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    owned(&[
        ("AccessKeyId", id),
        ("Action", action),
        ("Format", "JSON"),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureNonce", nonce),
        ("SignatureVersion", "1.0"),
        ("Timestamp", &timestamp),
        ("Version", version),
    ])
}

pub fn owned(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    pairs.iter().map(owned).collect()
}

pub fn sign_v1(method: &str, secret: &str, mut pairs: Vec<(String, String)>) -> Request<Bytes> {
    let signature = sign::signature_v1(secret, &sign::string_to_sign_v1(method, &pairs));
    pairs.push(("Signature".to_owned(), signature));
    let query = sign::canonical_query(&pairs);
    Request::builder()
        .method(Method::from_bytes(method.as_bytes()).unwrap())
        .uri(format!("/?{query}"))
        .header("host", "ecs.test")
        .body(Bytes::new())
        .unwrap()
}
