//! What stands before every call: signatures of both versions, nonces, clocks, keys, tokens, versions, throttling, formats.

use bytes::Bytes;
use http::{Request, Response};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use security_group_operator::ecs::sign;
use security_group_operator::simulator::Simulator;
use security_group_operator::simulator::inventory::Inventory;
use serde_json::{Value, json};

use crate::cloud;

const KEY: (&str, &str) = ("testid", "testsecret");

const INVENTORY: &str = "
accessKeys:
- {id: testid, secret: testsecret}
- {id: second, secret: testsecret}
- {id: disabled, secret: testsecret, inactive: true}
- {id: other, secret: testsecret, account: '2'}
- {id: STS.fresh, secret: testsecret, securityToken: CAIS+/tok=en, expires: 2027-01-15T09:00:00Z}
- {id: STS.stale, secret: testsecret, securityToken: CAIS+/old=en, expires: 2020-01-01T00:00:00Z}
securityGroups: [{id: sg-base}, {id: sg-web}]
instances: [{id: i-web, securityGroupIds: [sg-base]}]
";

struct Fixture {
    simulator: Simulator,
    now: Timestamp,
}

impl Fixture {
    fn new() -> Self {
        // 2027-01-15T08:00:00Z, at the start of a minute.
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let cloud = Inventory::from_yaml(INVENTORY).unwrap().build(now).unwrap();
        Self {
            simulator: Simulator::new(cloud, 1),
            now,
        }
    }

    fn send(&self, request: &Request<Bytes>) -> Response<Bytes> {
        self.simulator.answer(request, self.now).response
    }

    fn code(&self, request: &Request<Bytes>) -> (u16, String) {
        let response = self.send(request);
        let body: Value = serde_json::from_slice(response.body()).unwrap();
        (
            response.status().as_u16(),
            body["Code"].as_str().unwrap_or("OK").to_owned(),
        )
    }

    fn describe(&self, key: (&str, &str)) -> Request<Bytes> {
        cloud::signed(
            key,
            "DescribeInstances",
            &[("RegionId", "cn-hangzhou")],
            self.now,
        )
    }

    /// A DescribeInstances in which one common parameter is another (or, empty, absent) and the signature still holds.
    fn with(&self, name: &str, value: &str) -> Request<Bytes> {
        let timestamp = self.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut pairs = cloud::common(KEY.0, "DescribeInstances", "nonce", &timestamp);
        pairs.push(("RegionId".to_owned(), "cn-hangzhou".to_owned()));
        pairs.retain(|(own, _)| own != name);
        if !value.is_empty() {
            pairs.push((name.to_owned(), value.to_owned()));
        }
        cloud::sign_v1("GET", KEY.1, pairs)
    }
}

fn text(response: &Response<Bytes>) -> String {
    String::from_utf8_lossy(response.body()).into_owned()
}

#[test]
fn wrong_signature_is_answered_with_the_string_to_sign() {
    let fixture = Fixture::new();
    assert_eq!(fixture.code(&fixture.describe(KEY)), (200, "OK".to_owned()));
    let response = fixture.send(&fixture.describe(("testid", "wrong")));
    let body: Value = serde_json::from_slice(response.body()).unwrap();
    assert_eq!(
        (response.status().as_u16(), &body["Code"]),
        (400, &json!("SignatureDoesNotMatch"))
    );
    let message = body["Message"].as_str().unwrap();
    let echo = "Specified signature is not matched with our calculation. server string to sign is:GET&%2F&AccessKeyId%3Dtestid";
    assert!(message.starts_with(echo), "{message}");
}

#[test]
fn signature_covers_method_and_parameters() {
    let fixture = Fixture::new();
    let request = fixture.describe(KEY);
    let mut post = request.clone();
    *post.method_mut() = http::Method::POST;
    assert_eq!(fixture.code(&post).1, "SignatureDoesNotMatch");
    let mut more = request;
    *more.uri_mut() = format!("{}&VpcId=vpc-sim", more.uri()).parse().unwrap();
    assert_eq!(fixture.code(&more).1, "SignatureDoesNotMatch");
}

/// Version 1.0 signs no header, so that none may say what is done.
#[test]
fn headers_do_not_change_a_v1_request() {
    let fixture = Fixture::new();
    let mut request = fixture.describe(KEY);
    let headers = request.headers_mut();
    headers.insert("x-acs-action", "StopInstance".parse().unwrap());
    headers.insert("x-acs-version", "2015-04-01".parse().unwrap());
    let answer = fixture.simulator.answer(&request, fixture.now);
    assert_eq!(
        (answer.action, answer.outcome.as_str()),
        ("DescribeInstances", "OK")
    );
}

#[test]
fn query_and_form_are_signed_together() {
    let fixture = Fixture::new();
    let timestamp = fixture.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let mut all = cloud::common(KEY.0, "JoinSecurityGroup", "form", &timestamp);
    let form = [("InstanceId", "i-web"), ("SecurityGroupId", "sg-web")];
    let in_query = all.clone();
    all.extend(form.map(|(name, value)| (name.to_owned(), value.to_owned())));
    let signature = sign::signature_v1(KEY.1, &sign::string_to_sign_v1("POST", &all));
    let mut query = in_query;
    query.push(("Signature".to_owned(), signature));
    let request = |body: &str| {
        Request::post(format!("/?{}", sign::canonical_query(&query)))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Bytes::from(body.to_owned()))
            .unwrap()
    };
    assert_eq!(
        fixture
            .code(&request("InstanceId=i-web&SecurityGroupId=sg-base"))
            .1,
        "SignatureDoesNotMatch"
    );
    assert_eq!(
        fixture.code(&request(&sign::canonical_query(&form))).1,
        "OK"
    );
}

#[test]
fn nonce_is_accepted_only_once() {
    let fixture = Fixture::new();
    let request = fixture.describe(KEY);
    assert_eq!(fixture.code(&request).1, "OK");
    assert_eq!(
        fixture.code(&request),
        (400, "SignatureNonceUsed".to_owned())
    );
}

#[test]
fn clock_skew_is_limited_to_15_minutes() {
    let mut fixture = Fixture::new();
    let start = fixture.now;
    for (offset, code) in [
        (900, "OK"),
        (-900, "OK"),
        (901, "InvalidTimeStamp.Expired"),
        (-901, "InvalidTimeStamp.Expired"),
    ] {
        fixture.now = start;
        let request = fixture.describe(KEY);
        fixture.now = start + SignedDuration::from_secs(offset);
        assert_eq!(fixture.code(&request).1, code, "{offset}");
    }
    fixture.now = start;
    for wrong in [
        "2027-01-15 08:00:00",
        "2027-01-15 08:00:00Z",
        "2027-01-15t08:00:00Z",
        "2027-01-15T08:00:00+00:00",
        "yesterday",
        "1800000000",
    ] {
        assert_eq!(
            fixture.code(&fixture.with("Timestamp", wrong)),
            (400, "InvalidTimeStamp.Format".to_owned()),
            "{wrong}"
        );
    }
}

#[test]
fn missing_common_parameter_is_named() {
    for name in [
        "AccessKeyId",
        "Action",
        "SignatureMethod",
        "SignatureNonce",
        "SignatureVersion",
        "Timestamp",
        "Version",
    ] {
        let fixture = Fixture::new();
        let response = fixture.send(&fixture.with(name, ""));
        assert_eq!(response.status(), 400);
        let body = text(&response);
        assert!(
            body.contains("\"MissingParameter\"") && body.contains(&format!("\\\"{name}\\\"")),
            "{body}"
        );
    }
}

#[test]
fn unsupported_protocol_values_have_their_codes() {
    let fixture = Fixture::new();
    for (name, value, status, code) in [
        (
            "SignatureMethod",
            "HMAC-SHA256",
            400,
            "InvalidSignatureMethod",
        ),
        ("SignatureVersion", "2.0", 400, "IncompleteSignature"),
        ("Version", "2014-05-27", 404, "InvalidVersion"),
        ("Action", "DescribeEverything", 404, "InvalidApi.NotFound"),
        ("Action", "GetCallerIdentity", 404, "InvalidAction.NotFound"),
    ] {
        assert_eq!(
            fixture.code(&fixture.with(name, value)),
            (status, code.to_owned()),
            "{name}={value}"
        );
    }
    let mut put = fixture.describe(KEY);
    *put.method_mut() = http::Method::PUT;
    assert_eq!(
        fixture.code(&put),
        (400, "UnsupportedHTTPMethod".to_owned())
    );
}

#[test]
fn access_key_must_exist_and_be_active() {
    let fixture = Fixture::new();
    assert_eq!(
        fixture.code(&fixture.describe(("nobody", "x"))),
        (404, "InvalidAccessKeyId.NotFound".to_owned())
    );
    assert_eq!(
        fixture.code(&fixture.describe(("disabled", "testsecret"))),
        (400, "InvalidAccessKeyId.Inactive".to_owned())
    );
    let change = |change: Value| {
        fixture
            .simulator
            .change(serde_json::from_value(change).unwrap(), fixture.now)
            .unwrap();
    };
    change(json!({"revokeKey": {"id": "testid"}}));
    assert_eq!(
        fixture.code(&fixture.describe(KEY)).1,
        "InvalidAccessKeyId.Inactive"
    );
    change(json!({"activateKey": {"id": "testid"}}));
    assert_eq!(fixture.code(&fixture.describe(KEY)).1, "OK");
    change(json!({"removeKey": {"id": "testid"}}));
    assert_eq!(
        fixture.code(&fixture.describe(KEY)).1,
        "InvalidAccessKeyId.NotFound"
    );
}

#[test]
fn temporary_key_needs_its_own_unexpired_token() {
    let fixture = Fixture::new();
    for (id, token, code) in [
        ("STS.fresh", "CAIS+/tok=en", "OK"),
        ("STS.fresh", "", "MissingSecurityToken"),
        ("STS.fresh", "no token", "InvalidSecurityToken.Malformed"),
        (
            "STS.fresh",
            "CAIS+/old=en",
            "InvalidSecurityToken.MismatchWithAccessKey",
        ),
        ("STS.stale", "CAIS+/old=en", "InvalidSecurityToken.Expired"),
        (
            "testid",
            "CAIS+/tok=en",
            "InvalidSecurityToken.MismatchWithAccessKey",
        ),
    ] {
        let mut parameters = vec![("RegionId", "cn-hangzhou")];
        if !token.is_empty() {
            parameters.push(("SecurityToken", token));
        }
        let request = cloud::signed(
            (id, "testsecret"),
            "DescribeInstances",
            &parameters,
            fixture.now,
        );
        assert_eq!(fixture.code(&request).1, code, "{id} {token}");
    }
}

/// A fixed vector, computed once with a plain HMAC: nothing of it goes through our own signing code.
fn version_3() -> http::request::Builder {
    Request::post("/?InstanceId=i-bp1abc&RegionId=cn-beijing&SecurityGroupId=sg-bp1abc")
        .header("host", "ecs.cn-beijing.aliyuncs.com")
        .header("accept", "application/json")
        .header("x-acs-action", "JoinSecurityGroup")
        .header("x-acs-version", "2014-05-26")
        .header("x-acs-date", "2026-01-02T03:04:05Z")
        .header("x-acs-signature-nonce", "nonce-0001")
        .header("x-acs-content-sha256", sign::sha256_hex(b""))
        .header("x-acs-accesskey-id", "STS.testid")
        .header("x-acs-security-token", "CAIS+/tok=en")
}

fn authorization(signature: &str) -> String {
    let names = "host;x-acs-accesskey-id;x-acs-action;x-acs-content-sha256;x-acs-date;x-acs-security-token;x-acs-signature-nonce;x-acs-version";
    format!("ACS3-HMAC-SHA256 Credential=STS.testid,SignedHeaders={names},Signature={signature}")
}

#[test]
fn v3_signature_covers_headers_query_and_body() {
    let inventory = "
accessKeys: [{id: STS.testid, secret: testsecret, securityToken: CAIS+/tok=en}]
securityGroups: [{id: sg-bp1abc, region: cn-beijing}]
instances: [{id: i-bp1abc, region: cn-beijing}]";
    let now: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let cloud = Inventory::from_yaml(inventory).unwrap().build(now).unwrap();
    let fixture = Fixture {
        simulator: Simulator::new(cloud, 1),
        now,
    };
    let good = authorization("a0769ccee5cee427f2134018e53cb5e91529c84c17b8c522faac669f80d01736");

    let request = version_3()
        .header("authorization", &good)
        .body(Bytes::from_static(b"other=body"))
        .unwrap();
    assert_eq!(
        fixture.code(&request),
        (400, "SignatureDoesNotMatch".to_owned())
    );
    let request = version_3()
        .header("authorization", authorization("00"))
        .body(Bytes::new())
        .unwrap();
    let told = text(&fixture.send(&request));
    assert!(told.contains("Specified signature does not match our calculation. server StringToSign is [ACS3-HMAC-SHA256\\n"), "{told}");
    let request = version_3()
        .header("authorization", &good)
        .header("x-acs-extra", "1")
        .body(Bytes::new())
        .unwrap();
    assert_eq!(
        fixture.code(&request),
        (400, "IncompleteSignature".to_owned()),
        "a header of the vendor's that is not signed"
    );
    let request = version_3()
        .header("authorization", "Bearer x")
        .body(Bytes::new())
        .unwrap();
    assert_eq!(
        fixture.code(&request),
        (400, "InvalidSignatureMethod".to_owned())
    );
    let request = version_3()
        .header("authorization", &good)
        .body(Bytes::new())
        .unwrap();
    assert_eq!(fixture.code(&request), (200, "OK".to_owned()));
    assert_eq!(
        fixture.code(&request),
        (400, "SignatureNonceUsed".to_owned())
    );
}

#[test]
fn v3_accepts_parameters_in_query_or_form() {
    let fixture = Fixture::new();
    let call = |method: &str, query: &str, form: &str, nonce: &str| {
        let form_type = "application/x-www-form-urlencoded";
        let date = fixture.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let hash = sign::sha256_hex(form.as_bytes());
        let headers = [
            ("content-type", form_type),
            ("host", "ecs.test"),
            ("x-acs-action", "JoinSecurityGroup"),
            ("x-acs-content-sha256", &hash),
            ("x-acs-date", &date),
            ("x-acs-signature-nonce", nonce),
            ("x-acs-version", "2014-05-26"),
        ];
        let canonical = sign::canonical_request_v3(method, "/", query, &headers, &hash);
        let signature = sign::signature_v3(KEY.1, &sign::string_to_sign_v3(&canonical));
        let names = headers.map(|(name, _)| name).join(";");
        let mut request = Request::builder().method(method).uri(format!("/?{query}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let authorization = format!(
            "ACS3-HMAC-SHA256 Credential={},SignedHeaders={names},Signature={signature}",
            KEY.0
        );
        let request = request
            .header("accept", "application/json")
            .header("authorization", authorization)
            .body(Bytes::from(form.to_owned()))
            .unwrap();
        fixture.code(&request).1
    };
    let edge = "InstanceId=i-web&SecurityGroupId=sg-web";
    assert_eq!(call("POST", "", edge, "form"), "OK");
    assert_eq!(
        call("GET", edge, "", "query"),
        "InvalidInstanceId.AlreadyExists"
    );
    assert_eq!(
        call("POST", edge, "", "both"),
        "InvalidInstanceId.AlreadyExists"
    );
    assert_eq!(
        call("GET", "", edge, "a GET has no form"),
        "MissingParameter"
    );
}

#[test]
fn answers_are_xml_unless_json_is_requested() {
    let fixture = Fixture::new();
    let request = fixture.with("Format", "");
    assert!(text(&fixture.send(&request)).starts_with(
        "<?xml version='1.0' encoding='UTF-8'?><DescribeInstancesResponse><Instances><Instance>"
    ));
    let fixture = Fixture::new();
    let mut parameters = fixture.with("Format", "xml");
    assert!(text(&fixture.send(&parameters)).contains("<RequestId>"));
    *parameters.method_mut() = http::Method::PUT;
    let error = text(&fixture.send(&parameters));
    assert!(error.starts_with("<?xml version='1.0' encoding='UTF-8'?><Error><Code>UnsupportedHTTPMethod</Code><HostId>ecs.test</HostId>"), "{error}");
}

#[test]
fn rate_limit_is_per_account_action_and_region() {
    let mut fixture = Fixture::new();
    let set = json!({"set": {"limits": {"DescribeInstances": 2}}});
    fixture
        .simulator
        .change(serde_json::from_value(set).unwrap(), fixture.now)
        .unwrap();
    fixture.now += SignedDuration::from_millis(45_500);
    assert_eq!(fixture.code(&fixture.describe(KEY)).1, "OK");
    assert_eq!(
        fixture.code(&fixture.describe(("second", "testsecret"))).1,
        "OK",
        "the account's second key"
    );
    let refused = fixture.send(&fixture.describe(KEY));
    assert_eq!(refused.status(), 400, "as the vendor does it, not 429");
    let told: Value = serde_json::from_slice(refused.body()).unwrap();
    assert_eq!(
        (&told["Code"], &told["Message"]),
        (
            &json!("Throttling.User"),
            &json!("Request was denied due to user flow control.")
        )
    );
    assert_eq!(refused.headers()["x-acs-retry-after"], "14500");
    assert_eq!(
        refused.headers()["x-ratelimit-user-api"],
        "Limit:2,Remain:0,TimeLeft:14500,Reset:1800000060"
    );
    assert_eq!(
        fixture.code(&fixture.describe(("other", "testsecret"))).1,
        "OK",
        "another account"
    );
    let elsewhere = cloud::signed(
        KEY,
        "DescribeInstances",
        &[("RegionId", "cn-beijing")],
        fixture.now,
    );
    assert_eq!(fixture.code(&elsewhere).1, "OK", "another region");
    fixture.now += SignedDuration::from_millis(14_500);
    assert_eq!(
        fixture.code(&fixture.describe(KEY)).1,
        "OK",
        "the next minute"
    );
}

#[test]
fn sts_identifies_the_caller() {
    let fixture = Fixture::new();
    let request = cloud::signed(
        ("other", "testsecret"),
        "GetCallerIdentity",
        &[],
        fixture.now,
    );
    let body: Value = serde_json::from_slice(fixture.send(&request).body()).unwrap();
    assert_eq!(
        (&body["AccountId"], &body["IdentityType"]),
        (&json!("2"), &json!("RAMUser"))
    );
    assert_eq!(body["Arn"], "acs:ram::2:user/simulator");
    for field in ["UserId", "PrincipalId", "RequestId"] {
        assert!(body[field].is_string(), "{field}");
    }

    let token = [("SecurityToken", "CAIS+/tok=en")];
    let request = cloud::signed(
        ("STS.fresh", "testsecret"),
        "GetCallerIdentity",
        &token,
        fixture.now,
    );
    let body: Value = serde_json::from_slice(fixture.send(&request).body()).unwrap();
    assert_eq!(
        (&body["AccountId"], &body["IdentityType"]),
        (&json!("1000000000000001"), &json!("AssumedRoleUser"))
    );
    assert!(body["RoleId"].is_string(), "{body}");
}
