//! Builds and signs one request (RPC, signature version 1.0): pure. Time and nonce are arguments.

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Uri};
use k8s_openapi::jiff::Timestamp;
use url::Url;
use zeroize::Zeroizing;

use super::access_key::Credential;
use super::action::Action;
use super::sign::{canonical_query, signature_v1, string_to_sign_v1};

/// Values that differ per attempt: a retry needs a new nonce, or the cloud rejects it as a replay.
pub(super) struct SigningInput {
    pub now: Timestamp,
    pub nonce: String,
}

/// All parameters are in the form body, so that no proxy logs a token with the URL. Without a credential the request is unsigned.
pub(super) fn build(
    endpoint: &Url,
    action: Action,
    parameters: &[(String, String)],
    credential: Option<&Credential>,
    input: &SigningInput,
) -> Request<Bytes> {
    let timestamp = input.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut form: Vec<(&str, &str)> = parameters
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    form.extend([
        ("Action", action.name()),
        ("Version", action.version()),
        ("Format", "JSON"),
        ("SignatureNonce", &input.nonce),
        ("Timestamp", &timestamp),
    ]);
    let signature;
    if let Some(credential) = credential {
        form.extend([
            ("AccessKeyId", credential.access_key_id()),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureVersion", "1.0"),
        ]);
        form.extend(
            credential
                .security_token()
                .map(|token| ("SecurityToken", token)),
        );
        // The string to sign and the body contain the token: both are zeroized on drop.
        let string_to_sign = Zeroizing::new(string_to_sign_v1("POST", &form));
        signature = signature_v1(credential.access_key_secret(), &string_to_sign);
        form.push(("Signature", &signature));
    }
    let body = Zeroizing::new(canonical_query(&form).into_bytes());

    let mut request = Request::new(Bytes::from_owner(body));
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

#[cfg(test)]
mod tests {
    use super::*;

    fn build_at(now: &str, credential: &Credential) -> Request<Bytes> {
        let endpoint = Url::parse("http://127.0.0.1:18080").unwrap();
        let parameters = [("InstanceIds".to_owned(), "[\"i-1\"]".to_owned())];
        let input = SigningInput {
            now: now.parse().unwrap(),
            nonce: "nonce".to_owned(),
        };
        build(
            &endpoint,
            Action::DescribeInstances,
            &parameters,
            Some(credential),
            &input,
        )
    }

    #[test]
    fn all_parameters_are_signed_in_the_form() {
        let credential =
            Credential::new("testid", "testsecret", Some("CAIS+/tok=en".into())).unwrap();
        let request = build_at("2026-01-02T03:04:05.678Z", &credential);
        assert_eq!(request.method(), Method::POST);
        assert_eq!(request.uri(), "http://127.0.0.1:18080/");
        let form: Vec<(String, String)> = url::form_urlencoded::parse(request.body())
            .into_owned()
            .collect();
        let (signature, signed): (Vec<_>, Vec<_>) =
            form.into_iter().partition(|(name, _)| name == "Signature");
        let expected = [
            ("AccessKeyId", "testid"),
            ("Action", "DescribeInstances"),
            ("Format", "JSON"),
            ("InstanceIds", "[\"i-1\"]"),
            ("SecurityToken", "CAIS+/tok=en"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureNonce", "nonce"),
            ("SignatureVersion", "1.0"),
            ("Timestamp", "2026-01-02T03:04:05Z"),
            ("Version", "2014-05-26"),
        ];
        assert_eq!(
            signed,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
        assert_eq!(
            signature[0].1,
            signature_v1("testsecret", &string_to_sign_v1("POST", &expected))
        );
    }

    #[test]
    fn long_lived_key_sends_no_token() {
        let credential = Credential::new("testid", "testsecret", None).unwrap();
        let body = build_at("2026-01-02T03:04:05Z", &credential).into_body();
        assert!(!String::from_utf8_lossy(&body).contains("SecurityToken"));
    }
}
