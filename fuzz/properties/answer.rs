//! Whatever bytes come back for a call, they are a value that the bytes really say, or a named error fit to be shown.
//!
//! Input: answers, parted by `0x1e` (the last one is repeated). Each is a line with the HTTP status, `name: value` lines, an
//! empty line, the body; where that form is broken, the whole is the body of a 200.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Debug;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::executor::block_on;
use futures::future::BoxFuture;
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use security_group_operator::ecs::{
    Class, Client, Credential, Endpoints, Error, InstanceId, NetworkInterfaceId, SecurityGroupId,
    Target, TargetDescription, Transport, TransportError, sign,
};
use serde_json::Value;

use super::{assert_printable, assert_reason};

const SECRET: &str = "canary/Secret+0123456789";
const TOKEN: &str = "canary+Token/9876543210==";

pub fn hold(bytes: &[u8]) {
    let answers: Vec<Response<Bytes>> = bytes.split(|byte| *byte == 0x1e).map(response).collect();
    changes(&answers);
    identity(&answers);
    instances(&answers);
    network_interfaces(&answers);
}

fn changes(answers: &[Response<Bytes>]) {
    let region = "cn-hangzhou".parse().unwrap();
    let group: SecurityGroupId = "sg-1".parse().unwrap();
    let target = Target::Instance("i-1".parse().unwrap());
    for join in [true, false] {
        let (client, cloud) = client(answers);
        let result = if join {
            block_on(client.join_security_group(&region, &target, &group))
        } else {
            block_on(client.leave_security_group(&region, &target, &group))
        };
        assert_eq!(cloud.calls(), 1, "a change is sent once");
        let response = cloud.served().remove(0);
        match result {
            Ok(id) => {
                if let Some(body) = good_body(&response) {
                    assert!(
                        body["RequestId"].is_string() || body["requestId"].is_string(),
                        "{body}"
                    );
                }
                assert!(!id.as_str().is_empty() && id.as_str().len() <= 128);
                assert_shown(&id);
                assert_printable(id.as_str());
            }
            Err(error) => {
                assert_error(&error, &response);
                if let Error::BadAnswer { .. } = error {
                    assert!(error.outcome_unknown(), "{error:?}");
                }
            }
        }
    }
}

fn identity(answers: &[Response<Bytes>]) {
    let (client, cloud) = client(answers);
    let result = block_on(client.caller_identity());
    let response = cloud.served().remove(0);
    match result {
        Ok(identity) => {
            good_body(&response);
            let account_uid = identity.account_uid.as_str();
            assert!(!account_uid.is_empty());
            assert!(account_uid.bytes().all(|byte| byte.is_ascii_digit()));
            for text in [account_uid, &identity.arn] {
                assert_printable(text);
                assert!(text.len() <= 128);
            }
            assert_shown(&identity);
        }
        Err(error) => assert_error(&error, &response),
    }
}

fn instances(answers: &[Response<Bytes>]) {
    let (client, cloud) = client(answers);
    let ids: Vec<InstanceId> = ["i-1", "i-2", "i-3"].map(|id| id.parse().unwrap()).into();
    let result = block_on(client.describe_instances(&"cn-hangzhou".parse().unwrap(), &ids));
    assert!(cloud.calls() <= ids.len() + 1, "{} pages", cloud.calls());
    let path = ["Instances", "Instance", "InstanceId"];
    assert_described(
        result.map(named),
        &cloud.served(),
        path,
        &["i-1", "i-2", "i-3"],
    );
}

fn network_interfaces(answers: &[Response<Bytes>]) {
    let (client, cloud) = client(answers);
    let ids: Vec<NetworkInterfaceId> = ["eni-1", "eni-2"].map(|id| id.parse().unwrap()).into();
    let result =
        block_on(client.describe_network_interfaces(&"cn-hangzhou".parse().unwrap(), &ids));
    assert!(cloud.calls() <= ids.len() + 1, "{} pages", cloud.calls());
    let path = [
        "NetworkInterfaceSets",
        "NetworkInterfaceSet",
        "NetworkInterfaceId",
    ];
    assert_described(
        result.map(named),
        &cloud.served(),
        path,
        &["eni-1", "eni-2"],
    );
}

fn named<Id: ToString>(
    found: HashMap<Id, TargetDescription>,
) -> BTreeMap<String, TargetDescription> {
    found
        .into_iter()
        .map(|(id, description)| (id.to_string(), description))
        .collect()
}

/// Only IDs that were asked for, each in one row of one page, with the groups of that row.
fn assert_described(
    result: Result<BTreeMap<String, TargetDescription>, Error>,
    pages: &[Response<Bytes>],
    [outer, inner, id]: [&str; 3],
    asked: &[&str],
) {
    let found = match result {
        Ok(found) => found,
        Err(error) => return assert_error(&error, pages.last().unwrap()),
    };
    let bodies: Option<Vec<Value>> = pages.iter().map(good_body).collect();
    let Some(bodies) = bodies else { return };
    let rows: Vec<Value> = bodies
        .iter()
        .flat_map(|body| body[outer][inner].as_array().unwrap().clone())
        .collect();
    assert_eq!(rows.len(), found.len(), "every row once: {found:?}");
    for row in rows {
        let name = row[id].as_str().unwrap();
        assert!(asked.contains(&name), "{name}");
        let description = &found[name];
        let groups: BTreeSet<String> = row["SecurityGroupIds"]["SecurityGroupId"]
            .as_array()
            .unwrap()
            .iter()
            .map(|group| group.as_str().unwrap().to_owned())
            .filter(|group| group.starts_with("sg-"))
            .collect();
        let described = description.security_group_ids.iter();
        assert_eq!(
            described.map(ToString::to_string).collect::<BTreeSet<_>>(),
            groups
        );
        assert_eq!(
            description.state.to_string(),
            row["Status"].as_str().unwrap()
        );
        for text in [description.state.to_string()]
            .iter()
            .chain(&description.vpc_id)
            .chain(&description.lock_reasons)
        {
            assert_printable(text);
            assert!(text.len() <= 128);
        }
        assert_shown(description);
    }
}

/// The body of a success, as another parser reads it. `None` where that is not possible: what the operator does not read may be
/// a number that is too large, or no UTF-8.
fn good_body(response: &Response<Bytes>) -> Option<Value> {
    assert!(response.status().is_success(), "{}", response.status());
    let body: Value = serde_json::from_slice(response.body()).ok()?;
    for code in [&body["Code"], &body["code"]] {
        assert!(
            code.is_null() || code == "",
            "an error taken for a success: {body}"
        );
    }
    Some(body)
}

fn assert_error(error: &Error, response: &Response<Bytes>) {
    let shown = error.to_string();
    assert_printable(&shown);
    assert!(shown.len() <= 1024 + 128 + 200, "{} bytes", shown.len());
    assert_shown(error);
    let reason = error.reason();
    assert_reason(&reason);
    no_secret(&reason);
    let wait = error.retry_after();
    let plausible = Duration::from_millis(1)..=Duration::from_secs(3600);
    assert!(
        wait.is_none_or(|wait| plausible.contains(&wait)),
        "{wait:?}"
    );
    assert!(error.limit().is_none() || error.class() == Class::Throttled);
    assert!(!error.outcome_unknown() || error.action().is_write());
    match error {
        Error::Api(api) => {
            let status = response.status();
            assert!(!status.is_success() && !status.is_redirection(), "{status}");
            let body: Option<Value> = serde_json::from_slice(response.body()).ok();
            // Taken as it stands or not at all: a finalizer may go on it.
            assert!(
                body.is_none_or(|body| body["Code"] == *api.code || body["code"] == *api.code),
                "{error:?}"
            );
            assert!(api.message.len() <= 1024 && api.code.len() <= 128);
            if status.is_server_error() {
                assert!(
                    matches!(error.class(), Class::Transient | Class::Throttled),
                    "a failing server is believed: {error:?}"
                );
            }
        }
        Error::BadAnswer { .. } | Error::BadRow { .. } => {
            assert_eq!(error.class(), Class::Transient);
        }
        Error::Transport { .. } => unreachable!("there is always an answer"),
    }
}

fn assert_shown(value: &impl Debug) {
    no_secret(&format!("{value:?}"));
    no_secret(&format!("{value:#?}"));
}

fn no_secret(text: &str) {
    for secret in [SECRET, TOKEN] {
        let once = sign::percent_encode(secret);
        let twice = sign::percent_encode(&once);
        for form in [secret, &once, &twice] {
            assert!(!text.contains(form), "a secret shows: {text}");
        }
    }
}

fn response(bytes: &[u8]) -> Response<Bytes> {
    parsed(bytes).unwrap_or_else(|| Response::new(Bytes::copy_from_slice(bytes)))
}

fn parsed(bytes: &[u8]) -> Option<Response<Bytes>> {
    let end = bytes.windows(2).position(|pair| pair == b"\n\n")?;
    let (head, body) = bytes.split_at(end);
    let mut lines = head.split(|byte| *byte == b'\n');
    let status = StatusCode::from_bytes(lines.next()?).ok()?;
    let mut response = Response::new(Bytes::copy_from_slice(body.get(2..)?));
    *response.status_mut() = status;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let (name, value) = line.split_at(colon);
        response.headers_mut().append(
            HeaderName::from_bytes(name).ok()?,
            HeaderValue::from_bytes(value.get(1..)?.trim_ascii()).ok()?,
        );
    }
    Some(response)
}

/// Hands the answers out in turn, the last one again and again, and keeps which it handed out.
struct Cloud {
    answers: Vec<Response<Bytes>>,
    calls: AtomicUsize,
    served: Mutex<Vec<Response<Bytes>>>,
}

impl Cloud {
    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    fn served(&self) -> Vec<Response<Bytes>> {
        self.served.lock().unwrap().clone()
    }
}

struct Wire(Arc<Cloud>);

impl Transport for Wire {
    fn send(
        &self,
        _: Request<Bytes>,
        _: Duration,
    ) -> BoxFuture<'_, Result<Response<Bytes>, TransportError>> {
        let call = self.0.calls.fetch_add(1, Ordering::Relaxed);
        let last = self.0.answers.len() - 1;
        let response = self.0.answers[call.min(last)].clone();
        self.0.served.lock().unwrap().push(response.clone());
        async move { Ok(response) }.boxed()
    }
}

fn client(answers: &[Response<Bytes>]) -> (Client, Arc<Cloud>) {
    let cloud = Arc::new(Cloud {
        answers: answers.to_vec(),
        calls: AtomicUsize::new(0),
        served: Mutex::default(),
    });
    let credential = Credential::new("LTAI5tFuzz", SECRET, Some(TOKEN.into())).unwrap();
    let client = Client::new(
        Arc::new(Wire(cloud.clone())),
        credential,
        Endpoints::default(),
    );
    (client, cloud)
}
