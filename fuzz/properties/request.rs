//! Requests to the simulated cloud: one that is not rightly signed changes nothing and is told nothing, one that is changes what
//! it says and nothing else, and neither is good a second time.
//!
//! Input: a byte that picks how it is signed, then `METHOD /path?query`, `name: value` lines, an empty line, the body.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use k8s_openapi::jiff::Timestamp;
use security_group_operator::ecs::sign;
use security_group_operator::simulator::inventory::Inventory;
use security_group_operator::simulator::{SimulatedResponse, Simulator};
use serde_json::Value;

const INVENTORY: &str = "
settings: {conflicts: false, transition: 0s, groupsPerTarget: 3, membersPerGroup: 3}
accessKeys: [{id: testid, secret: this-secret-signs-nothing-in-the-corpus}]
securityGroups: [{id: sg-base}, {id: sg-web}, {id: sg-full, quota: 1}, {id: sg-far, vpcId: vpc-far}]
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-two, securityGroupIds: [sg-base, sg-full], tags: {team: web}}
networkInterfaces: [{id: eni-web, instanceId: i-web, securityGroupIds: [sg-base]}]
";
const SECRET: &str = "this-secret-signs-nothing-in-the-corpus";

pub fn hold(bytes: &[u8]) {
    let Some((pick, text)) = bytes.split_first() else {
        return;
    };
    let Some(request) = parse(text) else {
        return;
    };
    let world = World::new();
    match pick % 4 {
        0 => world.unsigned(&request),
        1 => world.signed(&v1(Method::GET, &request, *pick), &request),
        2 => world.signed(&v1(Method::POST, &request, *pick), &request),
        _ => world.signed(&v3(&request, *pick), &request),
    }
}

struct World {
    simulator: Simulator,
    now: Timestamp,
}

impl World {
    fn new() -> Self {
        let now = now();
        let cloud = Inventory::from_yaml(INVENTORY).unwrap().build(now).unwrap();
        Self {
            simulator: Simulator::new(cloud, 1),
            now,
        }
    }

    /// Nobody who lacks the secret can have signed it.
    fn unsigned(&self, request: &Request<Bytes>) {
        let before = self.state();
        let answer = self.send(request);
        assert!(answer.response.status().as_u16() >= 400, "{answer:?}");
        assert_eq!(self.state(), before);
        assert!(effects(&self.simulator).is_empty());
    }

    fn signed(&self, request: &Request<Bytes>, meant: &Request<Bytes>) {
        let tampered = tampered(request);
        let before = self.state();
        let refused = self.send(&tampered);
        assert!(
            refused.response.status().as_u16() >= 400,
            "a forged call: {refused:?}"
        );
        assert_eq!(self.state(), before);

        let answer = self.send(request);
        let after = self.state();
        let edges = |state: &Value| edges(state, "instances") + edges(state, "networkInterfaces");
        match (answer.outcome.as_str(), &*answer.action) {
            ("OK", "JoinSecurityGroup") => {
                assert_eq!(edges(&after), edges(&before) + 1, "{meant:?}");
            }
            ("OK", "LeaveSecurityGroup") => {
                assert_eq!(edges(&after), edges(&before) - 1, "{meant:?}");
            }
            // It may set any groups; the state is checked below.
            ("OK", "ModifyNetworkInterfaceAttribute") => {}
            ("OK", "StartInstance" | "StopInstance") => assert_eq!(edges(&after), edges(&before)),
            _ => assert_eq!(
                after, before,
                "{} {} changed something",
                answer.action, answer.outcome
            ),
        }
        Self::assert_sound(&after);

        let again = self.send(request);
        assert_ne!(again.outcome, "OK", "a nonce is good for one call");
        assert_eq!(self.state(), after);
    }

    fn send(&self, request: &Request<Bytes>) -> SimulatedResponse {
        let answer = self.simulator.answer(request, self.now);
        assert_readable(&answer.response);
        assert!(
            !String::from_utf8_lossy(answer.response.body()).contains(SECRET),
            "the secret is told: {answer:?}"
        );
        answer
    }

    fn state(&self) -> Value {
        self.simulator.snapshot(self.now)
    }

    /// What the vendor promises of every state: at least one group, no more than the quotas, and only groups that there are.
    fn assert_sound(state: &Value) {
        for kind in ["instances", "networkInterfaces"] {
            for target in state[kind].as_object().unwrap().values() {
                let groups = target["securityGroupIds"].as_array().unwrap();
                assert!((1..=3).contains(&groups.len()), "{state}");
                for group in groups {
                    assert!(
                        state["securityGroups"][group.as_str().unwrap()].is_object(),
                        "{state}"
                    );
                }
            }
        }
    }
}

fn edges(state: &Value, kind: &str) -> usize {
    let targets = state[kind].as_object().unwrap().values();
    targets
        .map(|target| target["securityGroupIds"].as_array().unwrap().len())
        .sum()
}

fn effects(simulator: &Simulator) -> serde_json::Map<String, Value> {
    simulator.stats()["effects"].as_object().unwrap().clone()
}

/// JSON or XML that a client can read, with a request ID.
pub fn assert_readable(response: &Response<Bytes>) {
    let text = std::str::from_utf8(response.body()).unwrap();
    let kind = response.headers()["content-type"].to_str().unwrap();
    if kind.starts_with("application/json") {
        let body: Value = serde_json::from_str(text).unwrap();
        assert!(body["RequestId"].is_string(), "{body}");
        return;
    }
    assert!(text.contains("<RequestId>"), "{text}");
    // XML 1.0 allows U+007F to U+009F, and warns of them.
    let forbidden = |letter: char| letter < ' ' && !"\t\n\r".contains(letter);
    assert!(!text.contains(forbidden), "no XML may hold this: {text:?}");
    let mut reader = quick_xml::Reader::from_str(text);
    loop {
        match reader.read_event() {
            Ok(quick_xml::events::Event::Eof) => return,
            Ok(_) => {}
            Err(error) => panic!("{error}: {text}"),
        }
    }
}

fn now() -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap()
}

/// The parameters of a request, without those that a signature brings along.
fn parameters(request: &Request<Bytes>) -> Vec<(String, String)> {
    let query = request.uri().query().unwrap_or_default().as_bytes();
    url::form_urlencoded::parse(query)
        .chain(url::form_urlencoded::parse(request.body()))
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .filter(|(name, _)| !COMMON.contains(&name.as_str()))
        .collect()
}

const COMMON: [&str; 8] = [
    "AccessKeyId",
    "Signature",
    "SignatureMethod",
    "SignatureNonce",
    "SignatureVersion",
    "Timestamp",
    "Version",
    "SecurityToken",
];

fn version(pick: u8) -> &'static str {
    if pick & 0x80 == 0 {
        "2014-05-26"
    } else {
        "2015-04-01"
    }
}

fn v1(method: Method, request: &Request<Bytes>, pick: u8) -> Request<Bytes> {
    let mut pairs = parameters(request);
    let timestamp = now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    for (name, value) in [
        ("AccessKeyId", "testid"),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureNonce", "nonce-1"),
        ("SignatureVersion", "1.0"),
        ("Timestamp", &timestamp),
        ("Version", version(pick)),
    ] {
        pairs.push((name.to_owned(), value.to_owned()));
    }
    let string = sign::string_to_sign_v1(method.as_str(), &pairs);
    pairs.push(("Signature".to_owned(), sign::signature_v1(SECRET, &string)));
    let query = sign::canonical_query(&pairs);
    let signed = Request::builder()
        .method(method.clone())
        .header("host", "ecs.test");
    if method == Method::GET {
        signed.uri(format!("/?{query}")).body(Bytes::new())
    } else {
        let form = "application/x-www-form-urlencoded";
        signed
            .uri("/")
            .header("content-type", form)
            .body(query.into())
    }
    .unwrap()
}

fn v3(request: &Request<Bytes>, pick: u8) -> Request<Bytes> {
    let pairs = parameters(request);
    let action = pairs.iter().find(|(name, _)| name == "Action");
    let action = action.map_or("DescribeInstances", |(_, action)| action);
    let action = HeaderValue::from_str(action)
        .ok()
        .filter(|value| {
            value
                .to_str()
                .is_ok_and(|text| !text.trim().is_empty() && text.trim() == text)
        })
        .unwrap_or(HeaderValue::from_static("DescribeInstances"));
    let query = sign::canonical_query(&pairs);
    let hash = sign::sha256_hex(b"");
    let date = now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let headers = [
        ("host", "ecs.test"),
        ("x-acs-action", action.to_str().unwrap()),
        ("x-acs-content-sha256", &hash),
        ("x-acs-date", &date),
        ("x-acs-signature-nonce", "nonce-1"),
        ("x-acs-version", version(pick)),
    ];
    let canonical = sign::canonical_request_v3("POST", "/", &query, &headers, &hash);
    let signature = sign::signature_v3(SECRET, &sign::string_to_sign_v3(&canonical));
    let names = headers.map(|(name, _)| name).join(";");
    let authorization =
        format!("ACS3-HMAC-SHA256 Credential=testid,SignedHeaders={names},Signature={signature}");
    let mut signed = Request::builder()
        .method(Method::POST)
        .uri(format!("/?{query}"));
    for (name, value) in headers {
        signed = signed.header(name, value);
    }
    signed
        .header("authorization", authorization)
        .body(Bytes::new())
        .unwrap()
}

/// The same with another group, which the signature does not cover.
fn tampered(request: &Request<Bytes>) -> Request<Bytes> {
    let mut tampered = request.clone();
    if request.body().is_empty() {
        let path = request.uri().path_and_query().unwrap().as_str();
        let path = format!("{path}&SecurityGroupId=sg-web");
        *tampered.uri_mut() = path.parse::<Uri>().unwrap();
    } else {
        let mut body = request.body().to_vec();
        body.extend_from_slice(b"&SecurityGroupId=sg-web");
        *tampered.body_mut() = body.into();
    }
    tampered
}

/// None where the text is no request that HTTP could carry.
pub fn parse(bytes: &[u8]) -> Option<Request<Bytes>> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = bytes.split_at(end);
    let mut lines = head.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let blank = first.iter().position(|byte| *byte == b' ')?;
    let (method, path) = first.split_at(blank);
    let mut request = Request::new(Bytes::copy_from_slice(body.get(2..)?));
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.uri_mut() = Uri::try_from(path.get(1..)?).ok()?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        request.headers_mut().append(
            HeaderName::from_bytes(name).ok()?,
            HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?,
        );
    }
    Some(request)
}
