//! What goes over the wire: the documented parameters, signed, in a POST that no two attempts share.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use security_group_operator::ecs::{Http, Identity, Transport, TransportError, sign};

use super::hostile;
use super::server::{
    Reply, SECRET, Server, TOKEN, client, group, instance, network_interface, region,
};

const DONE: &str = r#"{"RequestId":"473469C7-AA6F-4DC5-B3DB-A3DC0DE3C83E"}"#;

#[tokio::test]
async fn join_and_leave_send_region_target_and_group() {
    let server = Server::always(Reply::json(200, DONE)).await;
    let client = server.client();
    for target in [instance(), network_interface()] {
        let id = client
            .join_security_group(&region(), &target, &group())
            .await
            .unwrap();
        assert_eq!(id.as_str(), "473469C7-AA6F-4DC5-B3DB-A3DC0DE3C83E");
        client
            .leave_security_group(&region(), &target, &group())
            .await
            .unwrap();
    }
    let sent: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| {
            [
                "Action",
                "RegionId",
                "SecurityGroupId",
                "InstanceId",
                "NetworkInterfaceId",
            ]
            .map(|name| seen.parameter(name).unwrap_or("-").to_owned())
            .join(" ")
        })
        .collect();
    assert_eq!(
        sent,
        [
            "JoinSecurityGroup cn-hangzhou sg-1 i-1 -",
            "LeaveSecurityGroup cn-hangzhou sg-1 i-1 -",
            "JoinSecurityGroup cn-hangzhou sg-1 - eni-1",
            "LeaveSecurityGroup cn-hangzhou sg-1 - eni-1",
        ]
    );
}

#[tokio::test]
async fn each_attempt_is_signed_anew_without_secrets_in_url() {
    let server = Server::always(Reply::json(
        500,
        r#"{"Code":"InternalError","Message":"","RequestId":"R"}"#,
    ))
    .await;
    let client = server.client();
    for _ in 0..3 {
        client
            .join_security_group(&region(), &instance(), &group())
            .await
            .unwrap_err();
    }
    let seen = server.seen();
    assert_eq!(seen.len(), 3, "the transport repeats nothing by itself");
    let nonces: HashSet<_> = seen
        .iter()
        .map(|seen| seen.parameter("SignatureNonce").unwrap())
        .collect();
    assert_eq!(nonces.len(), 3);
    for request in &seen {
        assert!(
            request.head.starts_with("post / http/1.1\r\n"),
            "{}",
            request.head
        );
        assert!(
            request
                .head
                .contains("content-type: application/x-www-form-urlencoded"),
            "{}",
            request.head
        );
        assert!(
            request
                .head
                .contains("user-agent: security-group-operator/"),
            "{}",
            request.head
        );
        assert!(!request.head.contains("canary"), "{}", request.head);
        assert_eq!(request.parameter("SecurityToken"), Some(TOKEN));
        let signed: Vec<_> = request
            .form
            .iter()
            .filter(|(name, _)| name != "Signature")
            .cloned()
            .collect();
        let signature = sign::signature_v1(SECRET, &sign::string_to_sign_v1("POST", &signed));
        assert_eq!(request.parameter("Signature"), Some(signature.as_str()));
    }
}

/// Keeps how long each call may take, and lets none of them through.
#[derive(Default)]
struct Deadlines(Arc<Mutex<Vec<u64>>>);

impl Transport for Deadlines {
    fn send(
        &self,
        _: http::Request<Bytes>,
        after: Duration,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        self.0.lock().unwrap().push(after.as_secs());
        async move { Err(TransportError::Timeout { after }) }.boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn each_call_has_the_vendor_sdks_deadline() {
    let deadlines = Deadlines::default();
    let seen = deadlines.0.clone();
    let client = client("http://cloud.test", deadlines);
    let errors = hostile::errors(&client).await;
    let actions: Vec<_> = errors.iter().map(|error| error.action().name()).collect();
    let seen = seen.lock().unwrap().clone();
    assert_eq!(
        actions.into_iter().zip(seen).collect::<Vec<_>>(),
        [
            ("JoinSecurityGroup", 66),
            ("LeaveSecurityGroup", 66),
            ("DescribeInstances", 10),
            ("DescribeNetworkInterfaces", 16),
            ("GetCallerIdentity", 10),
        ]
    );
}

#[tokio::test]
async fn environment_proxy_is_not_used() {
    const SERVER: &str = "SECURITY_GROUP_OPERATOR_TEST_SERVER";
    if let Ok(address) = std::env::var(SERVER) {
        let client = client(&address, Http::new().unwrap());
        client
            .join_security_group(&region(), &instance(), &group())
            .await
            .unwrap();
        return;
    }
    let server = Server::always(Reply::json(200, DONE)).await;
    let proxy = Server::always(Reply::json(200, DONE)).await;
    let mut again = tokio::process::Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", "ecs_client::wire::environment_proxy_is_not_used"]);
    again.env(SERVER, &server.address);
    for name in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        again.env(name, &proxy.address);
    }
    again.env_remove("NO_PROXY").env_remove("no_proxy");
    let ended = again.output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
    assert_eq!((server.seen().len(), proxy.seen().len()), (1, 0));
}

#[tokio::test]
async fn sts_returns_account_and_arn() {
    let server = Server::always(Reply::json(
        200,
        r#"{"RequestId":"R","IdentityType":"RAMUser","AccountId":"1234567890123456","PrincipalId":"2","UserId":"2","Arn":"acs:ram::1234567890123456:user/x"}"#,
    ))
    .await;
    assert_eq!(
        server.client().caller_identity().await.unwrap(),
        Identity {
            account_uid: "1234567890123456".into(),
            arn: "acs:ram::1234567890123456:user/x".to_owned()
        }
    );
    assert_eq!(server.seen()[0].parameter("Version"), Some("2015-04-01"));
    assert_eq!(
        server.seen()[0].parameter("Action"),
        Some("GetCallerIdentity")
    );
}
