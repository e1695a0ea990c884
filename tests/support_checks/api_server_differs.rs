//! The API server of the simulation is honest: a thousand random requests are answered alike by it and by a real
//! kube-apiserver, and both tell the same in their watches. Names of fields, codes and reasons count; UIDs, revisions, times,
//! `managedFields` (with the events of writes that
//! change nothing else) and the wording of messages do not.

use std::sync::Arc;

use futures::StreamExt as _;
use http::Method;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ObjectMeta, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::core::{DynamicObject, WatchEvent};
use kube::{Api, Client, ResourceExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::api_server;
use crate::api_server::{ApiServer, NoFaults};
use crate::support;
use crate::support::control_plane::ControlPlane;
use crate::support::error::{Context as _, Error, Result};

/// Requests in one run.
const REQUESTS: usize = 1_000;
const NAMES: [&str; 4] = ["m0", "m1", "m2", "m3"];

#[tokio::test]
async fn random_requests_match_a_real_api_server() -> Result<()> {
    let seed = std::env::var("SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .unwrap_or(1);
    let real = real().await?;
    let server = Arc::new(ApiServer::new("2026-01-01T00:00:00Z".parse()?));
    let ours = Side {
        client: api_server::client(&server, Arc::new(NoFaults)),
        namespace: "ours".to_owned(),
    };
    let (real_from, our_from) = (real.newest().await?, ours.newest().await?);
    let mut random = StdRng::seed_from_u64(seed);
    for number in 0..REQUESTS {
        let request = Random::draw(&mut random);
        let (expected, got) = (real.send(&request).await?, ours.send(&request).await?);
        if expected != got {
            return Err(Error::new(format!(
                "seed {seed}, request {number}: {request:?}\nreal: {}\nours: {}",
                show(&expected),
                show(&got)
            )));
        }
    }
    let (expected, got) = (
        real.events_since(&real_from).await?,
        ours.events_since(&our_from).await?,
    );
    let before = |number: usize| got.get(number.wrapping_sub(1)).cloned().unwrap_or_default();
    for (number, (expected, got)) in expected.iter().zip(&got).enumerate() {
        if expected != got {
            return Err(Error::new(format!(
                "seed {seed}, event {number}:\nreal: {expected:#}\nours: {got:#}\nbefore: {:#}",
                before(number)
            )));
        }
    }
    assert_eq!(expected.len(), got.len(), "events");
    println!("{REQUESTS} requests and {} events alike", got.len());
    Ok(())
}

/// M4: a claim and a DELETE without a version meet. The API server has decided to remove the object at once and does so, finalizer or
/// not: no other event of a deletion looks like this one.
#[tokio::test]
async fn claim_and_deletion_at_once_end_alike() -> Result<()> {
    let real = real().await?;
    let from = real.newest().await?;
    let mut events = Vec::new();
    for number in 0..RACES {
        if number % 20 == 0 {
            events = real.events_since(&from).await?;
            if events.iter().any(is_unreleased) {
                break;
            }
        }
        real.race(&format!("race-{number}")).await?;
    }
    let Some(met) = events.iter().find(|event| is_unreleased(event)) else {
        return Err(Error::new(format!("the race was not met in {RACES} tries")));
    };
    let server = Arc::new(ApiServer::new("2026-01-01T00:00:00Z".parse()?));
    let ours = Side {
        client: api_server::client(&server, Arc::new(NoFaults)),
        namespace: "ours".to_owned(),
    };
    let name = met["object"]["metadata"]["name"]
        .as_str()
        .unwrap_or_default();
    ours.create(name).await?;
    let decided = server.decide_deletion("securitygroupmemberships", "ours", name);
    assert_eq!(ours.claim(name).await?, 200);
    let from = ours.newest().await?;
    assert!(server.carry_out_deletion(decided.context("it has no finalizer")?));
    let got = ours.events_since(&from).await?;
    assert!(got.iter().eq([met]), "{got:?}");
    assert!(
        server
            .decide_deletion("securitygroupmemberships", "ours", name)
            .is_none()
    );
    Ok(())
}

/// Tries until the race is met; measured: 76 of 400 meet it.
const RACES: usize = 400;

fn is_unreleased(event: &Value) -> bool {
    let metadata = &event["object"]["metadata"];
    event["type"] == "DELETED"
        && metadata["finalizers"].is_array()
        && metadata.get("deletionTimestamp").is_none()
}

impl Side {
    async fn create(&self, name: &str) -> Result<u16> {
        let mut body = object(name);
        body["spec"] =
            json!({"region": "cn-hangzhou", "instanceID": "i-1", "securityGroupID": "sg-1"});
        let path = format!("{}?fieldManager=user-a", self.path(""));
        let created = self.fetch(
            Method::POST,
            path,
            "application/json",
            "application/json",
            &body,
        );
        Ok(created.await?.0)
    }

    async fn claim(&self, name: &str) -> Result<u16> {
        let mut body = object(name);
        body["metadata"]["finalizers"] = json!(["security-group-operator.io/membership"]);
        let path = format!(
            "{}?fieldManager=claim&force=true",
            self.path(&format!("/{name}"))
        );
        let kind = "application/apply-patch+yaml";
        let applied = self.fetch(Method::PATCH, path, kind, "application/json", &body);
        Ok(applied.await?.0)
    }

    /// Creates an object, and claims and deletes it at once. What is left is removed.
    async fn race(&self, name: &str) -> Result<()> {
        self.create(name).await?;
        let path = self.path(&format!("/{name}"));
        let delete = || {
            let (kind, nothing) = ("application/json", &Value::Null);
            self.fetch(Method::DELETE, path.clone(), kind, kind, nothing)
        };
        let (claimed, deleted) = futures::join!(self.claim(name), delete());
        claimed?;
        deleted?;
        // The claim of a deleted object makes a new one.
        let off = json!({"metadata": {"finalizers": null}});
        let kind = "application/merge-patch+json";
        self.fetch(Method::PATCH, path.clone(), kind, "application/json", &off)
            .await?;
        delete().await?;
        Ok(())
    }
}

async fn real() -> Result<Side> {
    let client = ControlPlane::shared().await?.admin_client().await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for (_, definition) in security_group_operator::api::crds() {
        definitions
            .patch(
                &definition.name_any(),
                &PatchParams::apply("test").force(),
                &Patch::Apply(&definition),
            )
            .await?;
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta {
            generate_name: Some("differs-".to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let namespace = namespaces
        .create(&PostParams::default(), &namespace)
        .await?
        .name_any();
    let side = Side { client, namespace };
    support::eventually::eventually("the kinds are served", async || {
        Ok(side.newest().await.is_ok())
    })
    .await?;
    Ok(side)
}

/// One of the two servers.
struct Side {
    client: Client,
    namespace: String,
}

/// A request as both sides get it; UIDs and revisions are each side's own.
#[derive(Clone, Debug)]
struct Random {
    method: Method,
    name: Option<&'static str>,
    status: bool,
    query: String,
    content_type: &'static str,
    body: Value,
    /// Where the body gets the object's UID or revision, or a wrong one.
    uid: Option<bool>,
    version: Option<bool>,
    metadata_only: bool,
}

impl Random {
    fn draw(random: &mut StdRng) -> Self {
        let name = NAMES[random.random_range(0..NAMES.len())];
        let mut request = Self {
            method: Method::GET,
            name: Some(name),
            status: false,
            query: String::new(),
            content_type: "application/json",
            body: Value::Null,
            uid: None,
            version: None,
            metadata_only: random.random_bool(0.1),
        };
        let manager = ["user-a", "user-b", "user-c"][random.random_range(0..3)];
        // Always, as the operator does: conflicts of applies without force are not imitated down to the last case.
        let force = true;
        match random.random_range(0..100) {
            0..12 => {
                request.method = Method::POST;
                request.name = None;
                request.query = format!("fieldManager={manager}");
                request.body = object(name);
                decorate(&mut request.body, random);
                request.body["spec"] = spec(name, random);
                if random.random_bool(0.2) {
                    request.body["spec"]["unknown"] = json!(1);
                }
            }
            12..30 => {
                request.apply(manager, force);
                request.body = object(name);
                request.uid = maybe(random, 0.3);
                decorate(&mut request.body, random);
                if random.random_bool(0.8) {
                    request.body["spec"] = spec(name, random);
                }
                if random.random_bool(0.15) {
                    declare_nothing(&mut request.body, random);
                }
            }
            // The claim, or its release.
            30..45 => {
                request.apply("claim", true);
                request.body = object(name);
                request.uid = maybe(random, 0.7);
                if random.random_bool(0.6) {
                    request.body["metadata"]["finalizers"] =
                        json!(["security-group-operator.io/membership"]);
                    request.body["metadata"]["annotations"] =
                        json!({"security-group-operator.io/intent": pick(random, &["{}", "[]"])});
                }
            }
            // The record of a successor, and what somebody else does to it (M8, M9).
            45..50 => {
                request.method = Method::PATCH;
                request.content_type = "application/merge-patch+json";
                let manager = pick(random, &["status", "user-a"]);
                request.query = format!("fieldManager={manager}");
                request.status = true;
                request.uid = maybe(random, 0.5);
                request.version = maybe(random, 0.3);
                let origin = pick_value(random, &[json!("Joined"), json!("Adopted"), Value::Null]);
                request.body = json!({"metadata": {}, "status": {"origin": origin}});
            }
            50..62 => {
                request.apply("status", true);
                request.status = true;
                request.uid = maybe(random, 0.7);
                request.body = object(name);
                request.body["status"] = status(random);
                if random.random_bool(0.2) {
                    declare_nothing(&mut request.body, random);
                }
            }
            62..76 => {
                request.query = format!("fieldManager={manager}");
                request.merge(random);
            }
            76..86 => {
                request.method = Method::DELETE;
                request.metadata_only = false;
                request.uid = maybe(random, 0.2);
            }
            86..91 => {}
            _ => {
                request.name = None;
                request.query = format!("limit={}", random.random_range(1..5));
                if random.random_bool(0.6) {
                    let selector = pick(random, &SELECTORS);
                    let mut query = url::form_urlencoded::Serializer::new(String::new());
                    request.query = query.append_pair("fieldSelector", selector).finish();
                }
            }
        }
        request
    }

    /// Somebody changes a few fields.
    fn merge(&mut self, random: &mut StdRng) {
        self.method = Method::PATCH;
        self.content_type = "application/merge-patch+json";
        self.body = json!({"metadata": {}});
        self.version = maybe(random, 0.3);
        self.uid = maybe(random, 0.2);
        match random.random_range(0..5) {
            0 => {
                self.body["metadata"]["annotations"] =
                    json!({"a": pick(random, &["1", "2"]), "b": null})
            }
            1 => self.body["metadata"]["annotations"] = json!({"a": null, "b": "3"}),
            2 => {
                self.body["spec"] =
                    json!({"deletionPolicy": pick(random, &["Remove", "Retain", "RemoveIfJoined"])})
            }
            3 => {
                self.body["metadata"]["finalizers"] = pick_value(
                    random,
                    &[
                        json!([]),
                        json!(["example.com/a"]),
                        json!(["example.com/a", "security-group-operator.io/membership"]),
                    ],
                )
            }
            _ => self.body["spec"] = json!({"driftPolicy": "Report"}),
        }
    }

    fn apply(&mut self, manager: &str, force: bool) {
        self.method = Method::PATCH;
        self.content_type = "application/apply-patch+yaml";
        self.query = format!("fieldManager={manager}&force={force}");
    }
}

fn maybe(random: &mut StdRng, probability: f64) -> Option<bool> {
    random
        .random_bool(probability)
        .then(|| random.random_bool(0.85))
}

fn pick<'a>(random: &mut StdRng, words: &[&'a str]) -> &'a str {
    words[random.random_range(0..words.len())]
}

fn pick_value(random: &mut StdRng, values: &[Value]) -> Value {
    values[random.random_range(0..values.len())].clone()
}

fn object(name: &str) -> Value {
    json!({"apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership", "metadata": {"name": name}})
}

fn decorate(object: &mut Value, random: &mut StdRng) {
    let metadata = &mut object["metadata"];
    if random.random_bool(0.4) {
        metadata["annotations"] = json!({"a": pick(random, &["1", "2"])});
    }
    if random.random_bool(0.3) {
        metadata["annotations"]["b"] = json!("1");
    }
    if random.random_bool(0.3) {
        metadata["labels"] = json!({"l": pick(random, &["x", "y"])});
    }
    if random.random_bool(0.2) {
        metadata["finalizers"] = pick_value(
            random,
            &[
                json!(["example.com/a"]),
                json!(["security-group-operator.io/membership"]),
            ],
        );
    }
}

/// What lists select by: as the operator does, and in other ways.
const SELECTORS: [&str; 6] = [
    "spec.instanceID=i-1,spec.securityGroupID=sg-1",
    "spec.instanceID=i-2,spec.securityGroupID=sg-1",
    "spec.networkInterfaceID=eni-1,spec.securityGroupID=sg-1",
    "spec.networkInterfaceID=",
    "metadata.name=m1",
    "spec.driftPolicy=Repair",
];

/// The fixed fields of an object are always the same: what the rules of the CRD refuse is none of this test.
fn spec(name: &str, random: &mut StdRng) -> Value {
    let (field, target, group) = match name {
        "m2" => ("instanceID", "i-2", "sg-1"),
        "m3" => ("networkInterfaceID", "eni-1", "sg-1"),
        _ => ("instanceID", "i-1", "sg-1"),
    };
    let mut spec = json!({"region": "cn-hangzhou", (field): target, "securityGroupID": group});
    if random.random_bool(0.4) {
        spec["deletionPolicy"] = json!(pick(random, &["Remove", "Retain"]));
    }
    if random.random_bool(0.3) {
        spec["managementPolicy"] = json!(pick(random, &["Manage", "Observe"]));
    }
    spec
}

/// Adds a field that no schema declares: an apply of it is refused as a whole.
fn declare_nothing(object: &mut Value, random: &mut StdRng) {
    match random.random_range(0..4) {
        0 => object["spec"]["unknown"] = json!(1),
        1 => object["status"]["unknown"] = json!({"nested": true}),
        2 => object["status"]["target"] = json!({"state": "Running", "unknown": "x"}),
        _ => {
            let condition = json!({"type": "Ready", "status": "True", "unknown": null});
            object["status"]["conditions"] = json!([condition]);
        }
    }
}

fn status(random: &mut StdRng) -> Value {
    let condition = |type_: &str, status: &str| json!({"type": type_, "status": status, "reason": "R", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let mut status = json!({"observedGeneration": random.random_range(1..4)});
    let mut conditions = vec![condition("Ready", pick(random, &["True", "False"]))];
    for type_ in ["Stalled", "Reconciling", "Drifted"] {
        if random.random_bool(0.3) {
            // In whatever order.
            let at = random.random_range(0..=conditions.len());
            conditions.insert(at, condition(type_, "True"));
        }
    }
    status["conditions"] = json!(conditions);
    if random.random_bool(0.5) {
        status["target"] = json!({"state": "Running", "vpcID": "vpc-1"});
    }
    if random.random_bool(0.5) {
        status["origin"] = json!("Joined");
    }
    if random.random_bool(0.3) {
        status["lastError"] = json!({"action": "JoinSecurityGroup", "message": "no", "class": "Invalid", "time": "2026-01-01T00:00:00Z"});
    }
    status
}

const COLLECTION: &str = "/apis/security-group-operator.io/v1alpha1/namespaces";

impl Side {
    fn path(&self, rest: &str) -> String {
        format!(
            "{COLLECTION}/{}/securitygroupmemberships{rest}",
            self.namespace
        )
    }

    async fn fetch(
        &self,
        method: Method,
        path: String,
        content_type: &str,
        accept: &str,
        body: &Value,
    ) -> Result<(u16, Value)> {
        let bytes = if body.is_null() {
            Vec::new()
        } else {
            body.to_string().into_bytes()
        };
        let request = http::Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", content_type)
            .header("accept", accept)
            .body(Body::from(bytes))?;
        let answer = self.client.send(request).await?;
        let code = answer.status().as_u16();
        let bytes = answer.into_body().collect_bytes().await?;
        Ok((
            code,
            serde_json::from_slice(&bytes).context(String::from_utf8_lossy(&bytes))?,
        ))
    }

    async fn newest(&self) -> Result<String> {
        let (code, list) = self
            .fetch(
                Method::GET,
                self.path(""),
                "",
                "application/json",
                &Value::Null,
            )
            .await?;
        if code != 200 {
            return Err(Error::new(list.to_string()));
        }
        Ok(list["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or_default()
            .to_owned())
    }

    async fn send(&self, request: &Random) -> Result<Vec<(u16, Value)>> {
        let mut body = request.body.clone();
        if request.uid.is_some() || request.version.is_some() {
            let name = request.name.unwrap_or_default();
            let (_, object) = self
                .fetch(
                    Method::GET,
                    self.path(&format!("/{name}")),
                    "",
                    "application/json",
                    &Value::Null,
                )
                .await?;
            let own =
                |field: &str, right: bool, wrong: &str| match object["metadata"][field].as_str() {
                    Some(value) if right => json!(value),
                    _ => json!(wrong),
                };
            let uid = request
                .uid
                .map(|right| own("uid", right, "99999999-0000-4000-8000-000000000000"));
            let version = request
                .version
                .map(|right| own("resourceVersion", right, "1"));
            if request.method == Method::DELETE {
                body = json!({"apiVersion": "v1", "kind": "DeleteOptions", "preconditions": {"uid": uid}});
            } else {
                if let Some(uid) = uid {
                    body["metadata"]["uid"] = uid;
                }
                if let Some(version) = version {
                    body["metadata"]["resourceVersion"] = version;
                }
            }
        }
        let rest = match (request.name, request.status) {
            (None, _) => String::new(),
            (Some(name), false) => format!("/{name}"),
            (Some(name), true) => format!("/{name}/status"),
        };
        let list = request.method == Method::GET && request.name.is_none();
        let accept = match (request.metadata_only, list) {
            (false, _) => "application/json",
            (true, false) => "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1",
            (true, true) => "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
        };
        let mut answers = Vec::new();
        let mut query = request.query.clone();
        loop {
            let path = format!("{}?{query}", self.path(&rest));
            let (code, answer) = self
                .fetch(
                    request.method.clone(),
                    path,
                    request.content_type,
                    accept,
                    &body,
                )
                .await?;
            let token = answer["metadata"]["continue"].as_str().map(str::to_owned);
            answers.push((code, self.normal(answer)));
            match token.filter(|token| list && !token.is_empty()) {
                Some(token) => query = format!("{}&continue={token}", request.query),
                None => return Ok(answers),
            }
        }
    }

    async fn events_since(&self, version: &str) -> Result<Vec<Value>> {
        let path = format!(
            "{}?watch=1&resourceVersion={version}&timeoutSeconds=2",
            self.path("")
        );
        let request = http::Request::get(path).body(Vec::new())?;
        let mut events = Box::pin(self.client.request_events::<DynamicObject>(request).await?);
        let mut seen = Vec::new();
        let mut shown = std::collections::HashMap::new();
        while let Some(event) = events.next().await {
            let (word, object) = match event? {
                WatchEvent::Added(object) => ("ADDED", object),
                WatchEvent::Modified(object) => ("MODIFIED", object),
                WatchEvent::Deleted(object) => ("DELETED", object),
                WatchEvent::Bookmark(_) => continue,
                WatchEvent::Error(error) => return Err(Error::new(error.message)),
            };
            let object = self.normal(serde_json::to_value(object)?);
            let name = object["metadata"]["name"].to_string();
            // A write that changed `managedFields` only shows nothing here.
            let shown = shown.insert(name, object.clone());
            if word != "MODIFIED" || shown.as_ref() != Some(&object) {
                seen.push(json!({"type": word, "object": object}));
            }
        }
        Ok(seen)
    }

    /// Without what may differ.
    fn normal(&self, mut answer: Value) -> Value {
        if answer["kind"] == "Status" {
            return json!({"kind": "Status", "status": answer["status"], "reason": answer["reason"], "code": answer["code"]});
        }
        strip(&mut answer["metadata"], &self.namespace);
        for item in answer["items"].as_array_mut().into_iter().flatten() {
            strip(&mut item["metadata"], &self.namespace);
        }
        if let Some(fields) = answer.as_object_mut() {
            // No items are written as null or as an empty list.
            fields
                .retain(|name, value| !value.is_null() && (name != "items" || *value != json!([])));
        }
        answer
    }
}

fn strip(metadata: &mut Value, namespace: &str) {
    let Some(fields) = metadata.as_object_mut() else {
        return;
    };
    for name in [
        "uid",
        "resourceVersion",
        "creationTimestamp",
        "managedFields",
        "selfLink",
    ] {
        fields.remove(name);
    }
    if fields.get("continue").is_some_and(|token| token == "") {
        fields.remove("continue");
    } else if let Some(token) = fields.get_mut("continue") {
        *token = json!("more");
    }
    if fields.contains_key("deletionTimestamp") {
        fields.insert("deletionTimestamp".to_owned(), json!("set"));
    }
    if fields.get("namespace").is_some_and(|own| own == namespace) {
        fields.insert("namespace".to_owned(), json!("the namespace"));
    }
}

fn show(answers: &[(u16, Value)]) -> String {
    answers
        .iter()
        .map(|(code, body)| format!("{code} {body:#}\n"))
        .collect::<Vec<_>>()
        .concat()
}
