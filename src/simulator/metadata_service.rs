//! What the metadata service answers that an instance sees at 100.100.100.200, as far as roles go: hardened mode (v2) and v1. Pure;
//! `server` puts it on a port.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::ecs::sign::sha256_hex;

use super::Simulator;
use super::account::AccessKey;
use super::cloud::Cloud;
use super::metadata::MetadataFault;
use super::policy::Principal;
use super::sts::in_seconds;
use super::timeline::later;

impl Simulator {
    /// Answers one request to the metadata service; `None` if it hangs. No I/O, no clock.
    #[must_use]
    pub fn metadata(&self, request: &Request<Bytes>, now: Timestamp) -> Option<Response<Bytes>> {
        let mut state = self.state();
        let metadata = &state.cloud.metadata;
        let fault = metadata.fault;
        let is_token_request = request.method() == Method::PUT && request.uri().path() == TOKEN;
        let name = if is_token_request {
            "MetadataToken"
        } else {
            "Metadata"
        };
        let answer = match fault {
            Some(MetadataFault::Hang) => None,
            Some(MetadataFault::Html) => Some((StatusCode::OK, PAGE.to_owned())),
            Some(MetadataFault::Error) => Some(plain(StatusCode::INTERNAL_SERVER_ERROR)),
            Some(MetadataFault::NoTokens) if is_token_request => Some(plain(StatusCode::NOT_FOUND)),
            Some(MetadataFault::NoTokens) | None => Some(state.cloud.metadata_answer(request, now)),
        };
        let outcome = answer
            .as_ref()
            .map_or("NoAnswer".to_owned(), |(status, _)| {
                if status.is_success() {
                    "OK".to_owned()
                } else {
                    status.as_u16().to_string()
                }
            });
        state.count(name, &outcome);
        answer.map(|(status, body)| {
            let mut response = Response::new(Bytes::from(body));
            *response.status_mut() = status;
            response
        })
    }
}

const TOKEN: &str = "/latest/api/token";
const ROLES: &str = "/latest/meta-data/ram/security-credentials/";
const PAGE: &str = "<!DOCTYPE html><html><body>Sign in to this network</body></html>";

fn plain(status: StatusCode) -> (StatusCode, String) {
    (
        status,
        status.canonical_reason().unwrap_or_default().to_owned(),
    )
}

impl Cloud {
    fn metadata_answer(
        &mut self,
        request: &Request<Bytes>,
        now: Timestamp,
    ) -> (StatusCode, String) {
        let header = |name| {
            request
                .headers()
                .get(name)
                .and_then(|value| value.to_str().ok())
        };
        let path = request.uri().path();
        if path == TOKEN {
            let seconds = header("x-aliyun-ecs-metadata-token-ttl-seconds")
                .and_then(|text| text.parse::<u32>().ok())
                .filter(|seconds| (1..=21_600).contains(seconds));
            return match (request.method() == Method::PUT, seconds) {
                (true, Some(seconds)) => {
                    let tokens = &mut self.metadata.tokens;
                    let token = format!("{} {now}", tokens.len());
                    let token = format!("sim-metadata{}", sha256_hex(token.as_bytes()));
                    let end = later(now, Duration::from_secs(seconds.into()));
                    tokens.push((token.clone(), end));
                    (StatusCode::OK, token)
                }
                (true, None) => plain(StatusCode::BAD_REQUEST),
                (false, _) => plain(StatusCode::METHOD_NOT_ALLOWED),
            };
        }
        let token = header("x-aliyun-ecs-metadata-token");
        let is_valid = |token| {
            let known = |(own, end): &(String, Timestamp)| own == token && *end > now;
            self.metadata.tokens.iter().any(known)
        };
        if token.map_or(self.metadata.requires_token, |token| !is_valid(token)) {
            return plain(StatusCode::UNAUTHORIZED);
        }
        let role = self.metadata.role.clone();
        match (path.strip_prefix(ROLES), role) {
            (Some(""), Some(role)) => (StatusCode::OK, role),
            (Some(named), Some(role)) if named == role => self.role_keys(&role, now),
            (Some(_) | None, _) => plain(StatusCode::NOT_FOUND),
        }
    }

    /// The keys of the instance's role: the same until half of their time is over.
    fn role_keys(&mut self, role: &str, now: Timestamp) -> (StatusCode, String) {
        let duration = self
            .metadata
            .session
            .unwrap_or(Duration::from_secs(6 * 3_600));
        let trusts = |role: &&super::ram::Role| {
            let ecs = Principal::Service("ecs.aliyuncs.com");
            role.trust_policy.trusts(ecs, &[])
        };
        let Some(role) = self.ram.role_named(role).filter(trusts).cloned() else {
            return (StatusCode::OK, json!({"Code": "Failed"}).to_string());
        };
        let fresh = later(now, duration / 2);
        let kept = self.metadata.key.take();
        let kept = kept.filter(|key| key.expires.is_some_and(|end| end > fresh));
        let key = kept.unwrap_or_else(|| self.issue(&role, "i-metadata", duration, now));
        self.metadata.key = Some(key.clone());
        (StatusCode::OK, answer(&key, now).to_string())
    }
}

fn answer(key: &AccessKey, now: Timestamp) -> Value {
    json!({
        "AccessKeyId": key.id,
        "AccessKeySecret": key.secret,
        "SecurityToken": key.security_token,
        "Expiration": key.expires.map(in_seconds),
        "LastUpdated": in_seconds(now),
        "Code": "Success",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn simulator(metadata: &Value) -> Simulator {
        let inventory = json!({"metadata": metadata, "roles": [{"name": "node", "trustPolicy": {"Statement": [
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Service": ["ecs.aliyuncs.com"]}}]}}]});
        let inventory = super::super::inventory::Inventory::from_yaml(&inventory.to_string());
        Simulator::new(inventory.unwrap().build(Timestamp::UNIX_EPOCH).unwrap(), 0)
    }

    fn ask(
        simulator: &Simulator,
        method: Method,
        path: &str,
        header: Option<(&str, &str)>,
    ) -> Option<(u16, String)> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(Bytes::new()).unwrap();
        let answer = simulator.metadata(&request, Timestamp::UNIX_EPOCH)?;
        let text = String::from_utf8(answer.body().to_vec()).unwrap();
        Some((answer.status().as_u16(), text))
    }

    #[test]
    fn hardened_mode_needs_a_token_and_hands_out_keys_of_the_role() {
        let simulator = simulator(&json!({"role": "node", "requiresToken": true}));
        let keys = format!("{ROLES}node");
        let get = |path, token: Option<&str>| {
            let header = token.map(|token| ("x-aliyun-ecs-metadata-token", token));
            ask(&simulator, Method::GET, path, header).unwrap()
        };
        assert_eq!(get(ROLES, None).0, 401);
        let time = Some(("x-aliyun-ecs-metadata-token-ttl-seconds", "21600"));
        let (status, token) = ask(&simulator, Method::PUT, TOKEN, time).unwrap();
        assert_eq!(status, 200);
        assert_eq!(get(ROLES, Some("other")).0, 401);
        assert_eq!(get(ROLES, Some(&token)), (200, "node".to_owned()));
        let (_, body) = get(&keys, Some(&token));
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(answer["Code"], "Success");
        assert_eq!(answer["Expiration"], "1970-01-01T06:00:00Z");
        assert_eq!(
            get(&keys, Some(&token)).1,
            body,
            "the same keys while they are young"
        );
        assert_eq!(get(&format!("{ROLES}other"), Some(&token)).0, 404);
    }

    #[test]
    fn broken_service_does_what_was_asked_for() {
        for (fault, expected) in [("hang", None), ("html", Some(200)), ("error", Some(500))] {
            let simulator = simulator(&json!({"role": "node", "fault": fault}));
            let answer = ask(&simulator, Method::GET, ROLES, None);
            assert_eq!(answer.map(|(status, _)| status), expected, "{fault}");
        }
        let simulator = simulator(&json!({"role": "node", "fault": "noTokens"}));
        let status = |method| ask(&simulator, method, TOKEN, None).unwrap().0;
        assert_eq!(status(Method::PUT), 404);
        assert_eq!(ask(&simulator, Method::GET, ROLES, None).unwrap().0, 200);
    }
}
