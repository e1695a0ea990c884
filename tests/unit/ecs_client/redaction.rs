//! No secret in anything that can be printed, whatever the cloud echoes.

use security_group_operator::ecs::{Credential, Endpoints, Error, sign};

use super::server::{Reply, SECRET, Server, TOKEN, group, instance, region};

#[tokio::test]
async fn echoed_signed_request_is_never_shown() {
    // As the real one does: the whole string to sign, token and all, in each of the spellings seen, and in places where it
    // has never been seen.
    let server = Server::start(|seen| {
        let signed: Vec<_> = seen.form.iter().filter(|(name, _)| name != "Signature").cloned().collect();
        let echo = sign::string_to_sign_v1("POST", &signed);
        assert!(echo.contains("canary-token"));
        let body = match seen.parameter("InstanceId").unwrap() {
            "i-1" => serde_json::json!({"RequestId": "R", "Code": "SignatureDoesNotMatch",
                "Message": format!("Specified signature is not matched with our calculation. server string to sign is:{echo}")}),
            "i-2" => serde_json::json!({"RequestId": "R", "Code": "SignatureDoesNotMatch",
                "Message": format!("Specified signature does not match our calculation. server StringToSign is [{echo}]")}),
            "i-3" => serde_json::json!({"RequestId": echo, "Code": echo, "Message": echo, "Recommend": echo}),
            "i-4" => serde_json::json!({"RequestId": TOKEN, "Code": TOKEN, "Message": format!("{SECRET} {TOKEN}")}),
            _ => serde_json::json!({"RequestId": TOKEN, "Code": SECRET}),
        };
        Reply::json(if seen.parameter("InstanceId") == Some("i-5") { 200 } else { 400 }, &body.to_string())
    })
    .await;
    let client = server.client();
    for id in ["i-1", "i-2", "i-3", "i-4", "i-5"] {
        let target = security_group_operator::ecs::Target::Instance(id.parse().unwrap());
        let error = client
            .join_security_group(&region(), &target, &group())
            .await
            .unwrap_err();
        let shown = format!(
            "{error} {error:?} {error:#?} {} {}",
            error.reason(),
            error.hint()
        );
        assert!(!shown.contains("canary"), "{id}: {shown}");
        if let Error::Api(error) = &error
            && error.code == "SignatureDoesNotMatch"
        {
            assert!(
                error.message.starts_with("Specified signature"),
                "the cloud's sentence stays: {}",
                error.message
            );
        }
    }
}

#[tokio::test]
async fn row_with_a_secret_is_rejected() {
    for (status, vpc, lock) in [
        (SECRET, "vpc-1", "security"),
        ("Running", TOKEN, "security"),
        ("Running", "vpc-1", SECRET),
    ] {
        let row = serde_json::json!({"InstanceId": "i-1", "Status": status, "VpcAttributes": {"VpcId": vpc},
            "OperationLocks": {"LockReason": [{"LockReason": lock}]}, "SecurityGroupIds": {"SecurityGroupId": []}});
        let body = serde_json::json!({"RequestId": "R", "Instances": {"Instance": [row]}});
        let server = Server::always(Reply::json(200, &body.to_string())).await;
        let error = server
            .client()
            .describe_instances(&region(), &["i-1".parse().unwrap()])
            .await
            .unwrap_err();
        assert!(matches!(error, Error::BadRow { .. }), "{error:?}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

#[tokio::test]
async fn debug_of_client_and_credential_shows_no_secret() {
    let credential = Credential::new("LTAI5t-canary", SECRET, Some(TOKEN.into())).unwrap();
    let server = Server::always(Reply::json(200, r#"{"RequestId":"R"}"#)).await;
    let client = security_group_operator::ecs::Client::new(
        std::sync::Arc::new(security_group_operator::ecs::Http::new().unwrap()),
        credential.clone(),
        Endpoints::parse(Some(&server.address), None, false).unwrap(),
    );
    client
        .join_security_group(&region(), &instance(), &group())
        .await
        .unwrap();
    let shown = format!("{credential:?} {client:?} {client:#?}");
    assert!(!shown.contains("canary"), "{shown}");
    assert!(shown.contains(&server.address), "{shown}");
}
