//! What goes over the wire: the documented parameters, signed, in a POST that no two attempts share.

use std::collections::HashSet;

use security_group_operator::ecs::{Identity, sign};

use crate::server::{Reply, SECRET, Server, TOKEN, group, instance, network_interface, region};

const DONE: &str = r#"{"RequestId":"473469C7-AA6F-4DC5-B3DB-A3DC0DE3C83E"}"#;

#[tokio::test]
async fn join_and_leave_name_region_target_and_group() {
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
async fn every_attempt_is_signed_anew_and_keeps_its_secrets_out_of_the_url() {
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

#[tokio::test]
async fn sts_says_whose_credentials_these_are() {
    let server = Server::always(Reply::json(
        200,
        r#"{"RequestId":"R","IdentityType":"RAMUser","AccountId":"1234567890123456","PrincipalId":"2","UserId":"2","Arn":"acs:ram::1234567890123456:user/x"}"#,
    ))
    .await;
    assert_eq!(
        server.client().caller_identity().await.unwrap(),
        Identity {
            account_uid: "1234567890123456".to_owned(),
            arn: "acs:ram::1234567890123456:user/x".to_owned()
        }
    );
    assert_eq!(server.seen()[0].parameter("Version"), Some("2015-04-01"));
    assert_eq!(
        server.seen()[0].parameter("Action"),
        Some("GetCallerIdentity")
    );
}
