//! Builds and signs one request (RPC, signature version 1.0): pure. Time and nonce come in as values.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use k8s_openapi::jiff::Timestamp;
use url::Url;

use super::action::Action;
use super::credential::Credential;
use super::sign::{canonical_query, signature_v1, string_to_sign_v1};

/// What makes an attempt unlike every other one: a retry needs a new nonce, or the cloud refuses it as a replay.
pub(super) struct Attempt {
    pub now: Timestamp,
    pub nonce: String,
}

/// Everything travels in the form body, so that no proxy logs a token with the URL.
pub(super) fn build(
    endpoint: &Url,
    action: Action,
    parameters: &[(String, String)],
    credential: &Credential,
    attempt: Attempt,
) -> Request<Bytes> {
    let mut form: Vec<(String, String)> = parameters.to_vec();
    let mut add = |name: &str, value: &str| form.push((name.to_owned(), value.to_owned()));
    add("Action", action.name());
    add("Version", action.version());
    add("Format", "JSON");
    add("AccessKeyId", credential.access_key_id());
    add("SignatureMethod", "HMAC-SHA1");
    add("SignatureVersion", "1.0");
    add("SignatureNonce", &attempt.nonce);
    add(
        "Timestamp",
        &attempt.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
    );
    if let Some(token) = credential.security_token() {
        add("SecurityToken", token);
    }
    let signature = signature_v1(
        credential.access_key_secret(),
        &string_to_sign_v1("POST", &form),
    );
    form.push(("Signature".to_owned(), signature));

    let mut request = Request::new(Bytes::from(canonical_query(&form)));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = endpoint
        .as_str()
        .parse::<Uri>()
        .expect("an http URL with a host is a URI");
    let headers = request.headers_mut();
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/x-www-form-urlencoded"),
    );
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    request
}

const AGENT: &str = concat!("security-group-operator/", env!("CARGO_PKG_VERSION"));
