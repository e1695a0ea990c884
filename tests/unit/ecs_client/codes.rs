//! Every documented error code, as the cloud sends it with its HTTP status, through the whole client.

use std::sync::{Arc, Mutex};

use security_group_operator::ecs::Class::{self, Done, Throttled};
use security_group_operator::ecs::{Client, Error};

use super::error_codes::{COMMON, DESCRIBE, JOIN, LEAVE, MODIFY, STS};
use super::server::{Reply, Server, group, instance, network_interface, region};

/// A cloud that answers every call with the code that was set last.
async fn cloud() -> (Client, Arc<Mutex<(u16, String)>>) {
    let next = Arc::new(Mutex::new((400, String::new())));
    let set = next.clone();
    let server = Server::start(move |_| {
        let (status, code) = next.lock().unwrap().clone();
        Reply::json(
            status,
            &format!(r#"{{"RequestId":"R","HostId":"ecs.aliyuncs.com","Code":"{code}","Message":"Words.","Recommend":"u"}}"#),
        )
    })
    .await;
    (server.client(), set)
}

/// What every code must be, whatever its class.
fn check(error: &Error, status: u16, code: &str, class: Class) {
    let Error::Api(api) = error else {
        panic!("{error:?}")
    };
    assert_eq!(
        (api.status, api.code.as_str(), api.message.as_str()),
        (status, code, "Words.")
    );
    assert_eq!(api.request_id.as_ref().unwrap().as_str(), "R");
    assert_eq!(error.class(), class, "{status} {code}");
    assert!(error.classify().known, "{code}");
    assert!(
        error.hint().len() > 20,
        "{code}: the reader is told what to do"
    );
    assert_eq!(api.reason(), code.replace('.', ""));
    assert_eq!(
        error.outcome_unknown(),
        error.action().is_write() && (status >= 500 || code == "SignatureNonceUsed"),
        "{code}"
    );
}

#[tokio::test]
async fn every_join_code_has_its_class() {
    let (client, next) = cloud().await;
    for (status, code, class, _) in JOIN.iter().chain(MODIFY).chain(COMMON) {
        *next.lock().unwrap() = (*status, (*code).to_owned());
        for target in [instance(), network_interface()] {
            check(
                &client
                    .join_security_group(&region(), &target, &group())
                    .await
                    .unwrap_err(),
                *status,
                code,
                *class,
            );
        }
    }
}

#[tokio::test]
async fn every_leave_code_has_its_class() {
    let (client, next) = cloud().await;
    for (status, code, class, _) in LEAVE.iter().chain(COMMON) {
        *next.lock().unwrap() = (*status, (*code).to_owned());
        for target in [instance(), network_interface()] {
            check(
                &client
                    .leave_security_group(&region(), &target, &group())
                    .await
                    .unwrap_err(),
                *status,
                code,
                *class,
            );
        }
    }
}

#[tokio::test]
async fn every_describe_code_has_its_class() {
    let (client, next) = cloud().await;
    for (status, code, class, _) in DESCRIBE.iter().chain(COMMON) {
        *next.lock().unwrap() = (*status, (*code).to_owned());
        check(
            &client
                .describe_instances(&region(), &["i-1".parse().unwrap()])
                .await
                .unwrap_err(),
            *status,
            code,
            *class,
        );
        let interfaces = ["eni-1".parse().unwrap()];
        check(
            &client
                .describe_network_interfaces(&region(), &interfaces)
                .await
                .unwrap_err(),
            *status,
            code,
            *class,
        );
    }
}

#[tokio::test]
async fn every_sts_code_has_its_class() {
    let (client, next) = cloud().await;
    for (status, code, class, _) in STS.iter().chain(COMMON) {
        *next.lock().unwrap() = (*status, (*code).to_owned());
        check(
            &client.caller_identity().await.unwrap_err(),
            *status,
            code,
            *class,
        );
    }
}

/// A finalizer goes on these words and on no others; none of them is believed from a server that failed.
#[tokio::test]
async fn only_known_codes_confirm_a_leave() {
    let (client, next) = cloud().await;
    let mut done = Vec::new();
    for (_, code, ..) in [JOIN, LEAVE, DESCRIBE, MODIFY, COMMON, STS].concat() {
        for status in [400, 403, 404, 409, 500, 503] {
            *next.lock().unwrap() = (status, code.to_owned());
            let error = client
                .leave_security_group(&region(), &instance(), &group())
                .await
                .unwrap_err();
            if error.class() == Done {
                assert!(status < 500, "{code}");
                done.push(code);
            }
        }
    }
    done.sort_unstable();
    done.dedup();
    assert_eq!(
        done,
        [
            "InstanceNotInSecurityGroup",
            "InvalidEniId.NotFound",
            "InvalidInstanceId.NotFound",
            "InvalidSecurityGroupAssociation.NotFound",
            "InvalidSecurityGroupId.NotFound",
        ]
    );
}

#[tokio::test]
async fn lower_case_error_fields_are_read() {
    let body = r#"{"requestId":"R","code":"Throttling.Api","message":"Words."}"#;
    let server = Server::always(Reply::json(400, body)).await;
    let error = server
        .client()
        .join_security_group(&region(), &instance(), &group())
        .await
        .unwrap_err();
    check(&error, 400, "Throttling.Api", Throttled);
    assert_eq!(error.to_string(), "Throttling.Api: Words.");
}
