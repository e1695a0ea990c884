//! What stands before every call: signatures of both versions, nonces, clocks, keys, tokens, versions, throttling, formats.

use bytes::Bytes;
use http::Request;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use security_group_operator::ecs::sign;
use security_group_operator::simulator::SimulatedResponse;
use security_group_operator::simulator::inventory::Inventory;
use serde_json::json;

use crate::world::{self, KEY, World, answer, signed};

fn gateway() -> World {
    World::of(
        "
accessKeys:
- {id: second, secret: testsecret}
- {id: disabled, secret: testsecret, inactive: true}
- {id: other, secret: testsecret, account: '2'}
- {id: STS.fresh, secret: testsecret, securityToken: CAIS+/tok=en, expires: 2027-01-15T09:00:00Z}
- {id: STS.stale, secret: testsecret, securityToken: CAIS+/old=en, expires: 2020-01-01T00:00:00Z}
securityGroups: [{id: sg-base}, {id: sg-web}]
instances: [{id: i-web, securityGroupIds: [sg-base]}]
",
    )
}

fn describe(world: &World, key: (&str, &str)) -> Request<Bytes> {
    let region = [("RegionId", "cn-hangzhou")];
    signed(key, "DescribeInstances", &region, world.now)
}

/// A DescribeInstances in which one common parameter is another (or, empty, absent) and the signature still holds.
fn describe_with(world: &World, name: &str, value: &str) -> Request<Bytes> {
    let mut pairs = world::common(KEY.0, "DescribeInstances", "nonce", world.now);
    pairs.push(("RegionId".to_owned(), "cn-hangzhou".to_owned()));
    pairs.retain(|(own, _)| own != name);
    if !value.is_empty() {
        pairs.push((name.to_owned(), value.to_owned()));
    }
    world::sign_v1("GET", KEY.1, pairs)
}

fn text(answered: &SimulatedResponse) -> String {
    String::from_utf8_lossy(answered.response.body()).into_owned()
}

#[test]
fn wrong_signature_is_answered_with_the_string_to_sign() {
    let world = gateway();
    assert_eq!(world.code(&describe(&world, KEY)), (200, "OK".to_owned()));
    let (status, body) = answer(&world.send(&describe(&world, ("testid", "wrong"))));
    assert_eq!(
        (status, &body["Code"]),
        (400, &json!("SignatureDoesNotMatch"))
    );
    let message = body["Message"].as_str().unwrap();
    let echo = "Specified signature is not matched with our calculation. server string to sign is:GET&%2F&AccessKeyId%3Dtestid";
    assert!(message.starts_with(echo), "{message}");
}

#[test]
fn signature_covers_method_and_parameters() {
    let world = gateway();
    let request = describe(&world, KEY);
    let mut post = request.clone();
    *post.method_mut() = http::Method::POST;
    assert_eq!(world.code(&post).1, "SignatureDoesNotMatch");
    let mut more = request;
    *more.uri_mut() = format!("{}&VpcId=vpc-sim", more.uri()).parse().unwrap();
    assert_eq!(world.code(&more).1, "SignatureDoesNotMatch");
}

/// Version 1.0 signs no header, so that none may say what is done.
#[test]
fn headers_do_not_change_a_v1_request() {
    let world = gateway();
    let mut request = describe(&world, KEY);
    let headers = request.headers_mut();
    headers.insert("x-acs-action", "StopInstance".parse().unwrap());
    headers.insert("x-acs-version", "2015-04-01".parse().unwrap());
    let answer = world.simulator.answer(&request, world.now);
    assert_eq!(
        (&*answer.action, answer.outcome.as_str()),
        ("DescribeInstances", "OK")
    );
}

#[test]
fn query_and_form_are_signed_together() {
    let world = gateway();
    let mut all = world::common(KEY.0, "JoinSecurityGroup", "form", world.now);
    let form = [("InstanceId", "i-web"), ("SecurityGroupId", "sg-web")];
    let in_query = all.clone();
    all.extend(world::owned(&form));
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
        world
            .code(&request("InstanceId=i-web&SecurityGroupId=sg-base"))
            .1,
        "SignatureDoesNotMatch"
    );
    assert_eq!(world.code(&request(&sign::canonical_query(&form))).1, "OK");
}

#[test]
fn nonce_is_accepted_only_once() {
    let world = gateway();
    let request = describe(&world, KEY);
    assert_eq!(world.code(&request).1, "OK");
    assert_eq!(world.code(&request), (400, "SignatureNonceUsed".to_owned()));
}

#[test]
fn clock_skew_is_limited_to_15_minutes() {
    let mut world = gateway();
    let start = world.now;
    for (offset, code) in [
        (900, "OK"),
        (-900, "OK"),
        (901, "InvalidTimeStamp.Expired"),
        (-901, "InvalidTimeStamp.Expired"),
    ] {
        world.now = start;
        let request = describe(&world, KEY);
        world.now = start + SignedDuration::from_secs(offset);
        assert_eq!(world.code(&request).1, code, "{offset}");
    }
    world.now = start;
    for wrong in [
        "2027-01-15 08:00:00",
        "2027-01-15 08:00:00Z",
        "2027-01-15t08:00:00Z",
        "2027-01-15T08:00:00+00:00",
        "yesterday",
        "1800000000",
    ] {
        assert_eq!(
            world.code(&describe_with(&world, "Timestamp", wrong)),
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
        let world = gateway();
        let response = world.send(&describe_with(&world, name, ""));
        assert_eq!(response.response.status(), 400);
        let body = text(&response);
        assert!(
            body.contains("\"MissingParameter\"") && body.contains(&format!("\\\"{name}\\\"")),
            "{body}"
        );
    }
}

#[test]
fn unsupported_protocol_values_have_their_codes() {
    let world = gateway();
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
            world.code(&describe_with(&world, name, value)),
            (status, code.to_owned()),
            "{name}={value}"
        );
    }
    let mut put = describe(&world, KEY);
    *put.method_mut() = http::Method::PUT;
    assert_eq!(world.code(&put), (400, "UnsupportedHTTPMethod".to_owned()));
}

#[test]
fn access_key_must_exist_and_be_active() {
    let world = gateway();
    assert_eq!(
        world.code(&describe(&world, ("nobody", "x"))),
        (404, "InvalidAccessKeyId.NotFound".to_owned())
    );
    assert_eq!(
        world.code(&describe(&world, ("disabled", "testsecret"))),
        (400, "InvalidAccessKeyId.Inactive".to_owned())
    );
    world.change(json!({"revokeKey": {"id": "testid"}}));
    assert_eq!(
        world.code(&describe(&world, KEY)).1,
        "InvalidAccessKeyId.Inactive"
    );
    world.change(json!({"activateKey": {"id": "testid"}}));
    assert_eq!(world.code(&describe(&world, KEY)).1, "OK");
    world.change(json!({"removeKey": {"id": "testid"}}));
    assert_eq!(
        world.code(&describe(&world, KEY)).1,
        "InvalidAccessKeyId.NotFound"
    );
}

#[test]
fn temporary_key_needs_its_own_unexpired_token() {
    let world = gateway();
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
        let request = signed(
            (id, "testsecret"),
            "DescribeInstances",
            &parameters,
            world.now,
        );
        assert_eq!(world.code(&request).1, code, "{id} {token}");
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
    let world = World::at(now, cloud);
    let good = authorization("a0769ccee5cee427f2134018e53cb5e91529c84c17b8c522faac669f80d01736");

    let request = version_3()
        .header("authorization", &good)
        .body(Bytes::from_static(b"other=body"))
        .unwrap();
    assert_eq!(
        world.code(&request),
        (400, "SignatureDoesNotMatch".to_owned())
    );
    let request = version_3()
        .header("authorization", authorization("00"))
        .body(Bytes::new())
        .unwrap();
    let told = text(&world.send(&request));
    assert!(told.contains("Specified signature does not match our calculation. server StringToSign is [ACS3-HMAC-SHA256\\n"), "{told}");
    let request = version_3()
        .header("authorization", &good)
        .header("x-acs-extra", "1")
        .body(Bytes::new())
        .unwrap();
    assert_eq!(
        world.code(&request),
        (400, "IncompleteSignature".to_owned()),
        "a header of the vendor's that is not signed"
    );
    let request = version_3()
        .header("authorization", "Bearer x")
        .body(Bytes::new())
        .unwrap();
    assert_eq!(
        world.code(&request),
        (400, "InvalidSignatureMethod".to_owned())
    );
    let request = version_3()
        .header("authorization", &good)
        .body(Bytes::new())
        .unwrap();
    assert_eq!(world.code(&request), (200, "OK".to_owned()));
    assert_eq!(world.code(&request), (400, "SignatureNonceUsed".to_owned()));
}

#[test]
fn v3_accepts_parameters_in_query_or_form() {
    let world = gateway();
    let call = |method: &str, query: &str, form: &str, nonce: &str| {
        let form_type = "application/x-www-form-urlencoded";
        let date = world.now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
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
        world.code(&request).1
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
    let world = gateway();
    let request = describe_with(&world, "Format", "");
    assert!(text(&world.send(&request)).starts_with(
        "<?xml version='1.0' encoding='UTF-8'?><DescribeInstancesResponse><Instances><Instance>"
    ));
    let world = gateway();
    let mut parameters = describe_with(&world, "Format", "xml");
    assert!(text(&world.send(&parameters)).contains("<RequestId>"));
    *parameters.method_mut() = http::Method::PUT;
    let error = text(&world.send(&parameters));
    assert!(error.starts_with("<?xml version='1.0' encoding='UTF-8'?><Error><Code>UnsupportedHTTPMethod</Code><HostId>ecs.test</HostId>"), "{error}");
}

#[test]
fn rate_limit_is_per_account_action_and_region() {
    let mut world = gateway();
    world.change(json!({"set": {"limits": {"DescribeInstances": 2}}}));
    world.now += SignedDuration::from_millis(45_500);
    assert_eq!(world.code(&describe(&world, KEY)).1, "OK");
    assert_eq!(
        world.code(&describe(&world, ("second", "testsecret"))).1,
        "OK",
        "the account's second key"
    );
    let refused = world.send(&describe(&world, KEY));
    let (status, told) = answer(&refused);
    assert_eq!(status, 400, "as the vendor does it, not 429");
    assert_eq!(
        (&told["Code"], &told["Message"]),
        (
            &json!("Throttling.User"),
            &json!("Request was denied due to user flow control.")
        )
    );
    let headers = refused.response.headers();
    assert_eq!(headers["x-acs-retry-after"], "14500");
    assert_eq!(
        headers["x-ratelimit-user-api"],
        "Limit:2,Remain:0,TimeLeft:14500,Reset:1800000060"
    );
    assert_eq!(
        world.code(&describe(&world, ("other", "testsecret"))).1,
        "OK",
        "another account"
    );
    let elsewhere = signed(
        KEY,
        "DescribeInstances",
        &[("RegionId", "cn-beijing")],
        world.now,
    );
    assert_eq!(world.code(&elsewhere).1, "OK", "another region");
    world.now += SignedDuration::from_millis(14_500);
    assert_eq!(
        world.code(&describe(&world, KEY)).1,
        "OK",
        "the next minute"
    );
}

#[test]
fn sts_identifies_the_caller() {
    let world = gateway();
    let (_, body) = world.call_as(("other", "testsecret"), "GetCallerIdentity", &[]);
    assert_eq!(
        (&body["AccountId"], &body["IdentityType"]),
        (&json!("2"), &json!("RAMUser"))
    );
    assert_eq!(body["Arn"], "acs:ram::2:user/simulator");
    for field in ["UserId", "PrincipalId", "RequestId"] {
        assert!(body[field].is_string(), "{field}");
    }

    let token = [("SecurityToken", "CAIS+/tok=en")];
    let (_, body) = world.call_as(("STS.fresh", "testsecret"), "GetCallerIdentity", &token);
    assert_eq!(
        (&body["AccountId"], &body["IdentityType"]),
        (&json!("1000000000000001"), &json!("AssumedRoleUser"))
    );
    assert!(body["RoleId"].is_string(), "{body}");
}
