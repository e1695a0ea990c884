//! Answers that are none: each is its named error, for every action, and none of them says anything about a target.

use std::time::Duration;

use security_group_operator::ecs::transport::ANSWER_LIMIT;
use security_group_operator::ecs::{Class, Client, Error, Http, TransportError};

use super::server::{Reply, Server, client, group, instance, region};

/// Every action once; what each of them made of the answers.
pub async fn errors(client: &Client) -> Vec<Error> {
    vec![
        client
            .join_security_group(&region(), &instance(), &group())
            .await
            .unwrap_err(),
        client
            .leave_security_group(&region(), &instance(), &group())
            .await
            .unwrap_err(),
        client
            .describe_instances(&region(), &["i-1".parse().unwrap()])
            .await
            .unwrap_err(),
        client
            .describe_network_interfaces(&region(), &["eni-1".parse().unwrap()])
            .await
            .unwrap_err(),
        client.caller_identity().await.unwrap_err(),
    ]
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "a table")]
async fn unexpected_body_is_a_bad_answer() {
    let json = "content-type: application/json\r\n";
    let html =
        "<!DOCTYPE html><html><title>502 Bad Gateway</title>InvalidInstanceId.NotFound</html>";
    for (name, reply, what) in [
        (
            "HTML with 200",
            Reply::new(200, "", html),
            "HTML or XML instead of JSON",
        ),
        (
            "HTML with 404",
            Reply::new(404, "", html),
            "HTML or XML instead of JSON",
        ),
        (
            "HTML with 502",
            Reply::new(502, "", html),
            "HTML or XML instead of JSON",
        ),
        (
            "XML error",
            Reply::new(
                404,
                "",
                "<?xml version='1.0'?><Error><Code>InvalidInstanceId.NotFound</Code></Error>",
            ),
            "HTML or XML instead of JSON",
        ),
        ("empty", Reply::new(200, json, ""), "it is empty"),
        ("empty 404", Reply::new(404, json, " \r\n"), "it is empty"),
        (
            "no content",
            Reply::Raw(b"HTTP/1.1 204 X\r\nconnection: close\r\n\r\n".to_vec()),
            "it is empty",
        ),
        (
            "cut",
            Reply::new(
                200,
                json,
                r#"{"RequestId":"R","Instances":{"Instance":[{"Insta"#,
            ),
            "JSON that ends in the middle",
        ),
        (
            "cut error",
            Reply::new(404, json, r#"{"Code":"InvalidInstanceId.NotFound","Mess"#),
            "JSON that ends in the middle",
        ),
        (
            "not UTF-8",
            Reply::new(200, json, b"{\"RequestId\":\"\xff\xfe\"}"),
            "it is not JSON",
        ),
        (
            "two values",
            Reply::new(200, json, r#"{"RequestId":"R"}{"RequestId":"R"}"#),
            "it is not JSON",
        ),
        (
            "deep",
            Reply::new(200, json, "[".repeat(100_000)),
            "JSON that ends in the middle",
        ),
        (
            "a field twice",
            Reply::new(200, json, r#"{"RequestId":"R","RequestId":"S"}"#),
            "JSON that names a field twice",
        ),
        (
            "array",
            Reply::new(200, json, r#"[{"RequestId":"R"}]"#),
            "JSON, but not an object",
        ),
        (
            "null",
            Reply::new(200, json, "null"),
            "JSON, but not an object",
        ),
        (
            "text",
            Reply::new(200, json, "\"ok\""),
            "JSON, but not an object",
        ),
        (
            "nothing in it",
            Reply::new(200, json, "{}"),
            "it names no RequestId",
        ),
        (
            "RequestId null",
            Reply::new(200, json, r#"{"RequestId":null}"#),
            "it names no RequestId",
        ),
        (
            "RequestId a number",
            Reply::new(200, json, r#"{"RequestId":7}"#),
            "it names no RequestId",
        ),
        (
            "RequestId empty",
            Reply::new(200, json, r#"{"RequestId":""}"#),
            "it names no RequestId",
        ),
        (
            "an error in a success",
            Reply::new(
                200,
                json,
                r#"{"RequestId":"R","Code":"InvalidInstanceId.NotFound","Message":"m"}"#,
            ),
            "a success that carries the error code InvalidInstanceId.NotFound",
        ),
        (
            "an error without a code",
            Reply::new(404, json, r#"{"RequestId":"R","Message":"m"}"#),
            "an error without a code",
        ),
        (
            "an empty code",
            Reply::new(404, json, r#"{"RequestId":"R","Code":""}"#),
            "an error without a code",
        ),
        (
            "a code that is a number",
            Reply::new(404, json, r#"{"RequestId":"R","Code":404}"#),
            "its error code is not a text",
        ),
        (
            "the same with 200",
            Reply::new(200, json, r#"{"RequestId":"R","Code":404}"#),
            "its error code is not a text",
        ),
        (
            "an error in a success, in small letters beside nothing",
            Reply::new(
                200,
                json,
                r#"{"RequestId":"R","Code":null,"code":"InvalidInstanceId.NotFound"}"#,
            ),
            "a success that carries the error code InvalidInstanceId.NotFound",
        ),
        (
            "almost a code",
            Reply::new(
                404,
                json,
                r#"{"RequestId":"R","Code":"InvalidInstanceId.NotFound\u0000"}"#,
            ),
            "its error code is none: InvalidInstanceId.NotFound",
        ),
        (
            "more than a code",
            Reply::new(
                404,
                json,
                r#"{"RequestId":"R","Code":" InvalidInstanceId.NotFound"}"#,
            ),
            "its error code is none: InvalidInstanceId.NotFound",
        ),
    ] {
        let server = Server::always(reply).await;
        for error in errors(&server.client()).await {
            let Error::BadAnswer {
                action, what: said, ..
            } = &error
            else {
                panic!("{name}: {error:?}")
            };
            assert_eq!(said, what, "{name}");
            assert_eq!(error.class(), Class::Transient, "{name}");
            assert_eq!(error.outcome_unknown(), action.is_write(), "{name}");
            assert_eq!(error.reason(), "BadAnswer", "{name}");
        }
    }
}

#[tokio::test]
async fn redirect_is_not_followed() {
    let other = Server::always(Reply::json(200, r#"{"RequestId":"R"}"#)).await;
    for (status, body) in [
        (301, ""),
        (302, "<html>"),
        (307, r#"{"Code":"InvalidInstanceId.NotFound"}"#),
        (308, r#"{"RequestId":"R"}"#),
    ] {
        let server = Server::always(Reply::new(
            status,
            &format!("location: {}/\r\n", other.address),
            body,
        ))
        .await;
        for error in errors(&server.client()).await {
            assert!(
                matches!(&error, Error::BadAnswer { what, .. } if what.contains("redirect")),
                "{error:?}"
            );
        }
    }
    assert!(other.seen().is_empty(), "signed requests went elsewhere");
}

#[tokio::test]
async fn answer_is_read_up_to_16_mib() {
    let filler = "x".repeat(ANSWER_LIMIT - 40);
    let just_fits = Server::always(Reply::json(
        200,
        &format!(r#"{{"RequestId":"R","Filler":"{filler}"}}"#),
    ))
    .await;
    just_fits
        .client()
        .join_security_group(&region(), &instance(), &group())
        .await
        .unwrap();

    let announced = Reply::new(200, "", " ".repeat(ANSWER_LIMIT + 1));
    let endless = Reply::Endless(b"HTTP/1.1 200 X\r\nconnection: close\r\n\r\n{".to_vec());
    let endless_error = Reply::Endless(b"HTTP/1.1 404 X\r\nconnection: close\r\n\r\n{".to_vec());
    let chunked = b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\nffffffff\r\n{";
    let endless_chunk = Reply::Endless(chunked.to_vec());
    for reply in [announced, endless, endless_error, endless_chunk] {
        let server = Server::always(reply).await;
        for error in errors(&server.client()).await {
            let Error::Transport { action, source } = &error else {
                panic!("{error:?}")
            };
            let limit = ANSWER_LIMIT;
            assert_eq!(*source, TransportError::TooLarge { limit });
            assert!(error.is_too_large() && !error.is_usable_answer());
            assert_eq!(error.outcome_unknown(), action.is_write());
        }
    }
}

/// Ten answers of 15 MiB at the same time: four have room, and the others end at once. Then there is room again.
#[tokio::test]
async fn large_answers_share_64_mib() {
    let filler = "x".repeat(15 * 1024 * 1024);
    let large = Reply::json(200, &format!(r#"{{"RequestId":"R","Filler":"{filler}"}}"#));
    let server = Server::always(large).await;
    let client = server.client();
    let (region, target, group) = (region(), instance(), group());
    let call = || client.join_security_group(&region, &target, &group);
    let answers = futures::future::join_all((0..10).map(|_| call())).await;
    let refused: Vec<Error> = answers.into_iter().filter_map(Result::err).collect();
    assert!(
        (1..=6).contains(&refused.len()),
        "{} refused",
        refused.len()
    );
    for error in refused {
        let limit = 64 * 1024 * 1024;
        assert!(
            matches!(error, Error::Transport { source: TransportError::NoRoom { limit: said }, .. } if said == limit),
            "{error:?}"
        );
        assert!(error.is_too_large() && error.is_usable_answer() && error.outcome_unknown());
    }
    call().await.unwrap();
}

/// A mebibyte is a mebibyte: a packed answer could be a thousand.
#[tokio::test]
async fn compressed_answer_is_not_requested_or_decoded() {
    let packed = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xab\x56\x0a\x4a\x2d\x2c\x4d\x2d\x2e\xf1\x4c\x51\xb2\x52\x0a\x52\xaa\x05\x00\x10\x67\xcd\xe8\x11\x00\x00\x00";
    let headers = "content-type: application/json\r\ncontent-encoding: gzip\r\n";
    let server = Server::always(Reply::new(200, headers, packed)).await;
    for error in errors(&server.client()).await {
        assert!(
            matches!(&error, Error::BadAnswer { what, .. } if what == "it is not JSON"),
            "{error:?}"
        );
    }
    for request in server.seen() {
        assert!(
            !request.head.contains("accept-encoding"),
            "{}",
            request.head
        );
    }
}

#[tokio::test]
async fn deadline_covers_the_whole_exchange() {
    let head = b"HTTP/1.1 200 X\r\ncontent-length: 1000000\r\n\r\n".to_vec();
    for reply in [
        Reply::Stall(Vec::new()),
        Reply::Stall(b"HTTP/1.1 200 X\r\n".to_vec()),
        Reply::Stall(head.clone()),
        Reply::Drip(head),
        Reply::Drip(b"HTTP/1.1 200 X\r\nx-header:".to_vec()),
    ] {
        let server = Server::always(reply).await;
        for error in errors(&server.hasty_client()).await {
            // The whole deadline, not what was left of it for the last page: a status says it.
            let whole = error.action().deadline();
            assert!(
                matches!(
                    error,
                    Error::Transport {
                        source: TransportError::Timeout { after },
                        ..
                    } if after == whole
                ),
                "{error:?}"
            );
            assert_eq!(error.outcome_unknown(), error.action().is_write());
            assert_eq!(error.reason(), "NoAnswer");
        }
    }
}

#[tokio::test]
async fn broken_connection_leaves_the_outcome_unknown() {
    for bytes in [
        &b""[..],
        b"HTTP/1.1 200 X\r\ncontent-le",
        b"HTTP/1.1 200 X\r\ncontent-length: 100\r\n\r\n{\"RequestId\":\"R\"}",
        b"HTTP/1.1 200 X\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{\"Req",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x15\x03\x01\x00\x02\x02\x16",
    ] {
        let server = Server::always(Reply::Raw(bytes.to_vec())).await;
        for error in errors(&server.client()).await {
            assert!(
                matches!(
                    error,
                    Error::Transport {
                        source: TransportError::Interrupted { .. },
                        ..
                    }
                ),
                "{error:?}"
            );
            assert_eq!(error.outcome_unknown(), error.action().is_write());
        }
        assert_eq!(server.seen().len(), 5, "nothing is sent twice");
    }
}

#[tokio::test]
async fn failed_connect_means_no_effect() {
    let nothing_happened = |error: Error| {
        assert!(
            matches!(
                error,
                Error::Transport {
                    source: TransportError::Connect { .. },
                    ..
                }
            ),
            "{error:?}"
        );
        assert!(!error.outcome_unknown());
        assert_eq!(error.class(), Class::Transient);
    };
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap())
    };
    errors(&client(&closed, Http::new().unwrap()))
        .await
        .into_iter()
        .for_each(nothing_happened);

    // No TLS there, and no such host: both may take the 5 s that a connection may take, so not five times in turn.
    let no_tls = Server::always(Reply::Raw(Vec::new()))
        .await
        .address
        .replace("http:", "https:");
    let join = async |address: &str| {
        client(address, Http::new().unwrap())
            .join_security_group(&region(), &instance(), &group())
            .await
            .unwrap_err()
    };
    let (no_tls, nowhere) = tokio::join!(join(&no_tls), join("http://no-such-host.invalid"));
    nothing_happened(no_tls);
    nothing_happened(nowhere);
}

#[tokio::test]
async fn cloud_texts_are_safe_for_a_terminal() {
    let long = "节".repeat(5000);
    let body = format!(
        r#"{{"RequestId":"R\u001b[2J\nR","Code":"Odd.Code-节","Message":"a\u0000b\r\nc\u001b[31m{long}"}}"#
    );
    let server = Server::always(Reply::json(403, &body)).await;
    for error in errors(&server.client()).await {
        let Error::Api(error) = error else {
            panic!("{error:?}")
        };
        assert_eq!(error.code, "Odd.Code-节");
        assert_eq!(error.reason(), "OddCode");
        assert_eq!(error.request_id.as_ref().unwrap().as_str(), "R [2J R");
        assert!(
            error.message.starts_with("a b c [31m节") && error.message.len() <= 1024,
            "{}",
            error.message
        );
        assert!(!error.to_string().contains(char::is_control));
    }
}

#[tokio::test]
async fn retry_after_is_read_and_nonsense_ignored() {
    let throttled = r#"{"RequestId":"R","Code":"Throttling.User","Message":"m"}"#;
    let other = r#"{"RequestId":"R","Code":"InternalError","Message":"m"}"#;
    let after = |millis| Some(Duration::from_millis(millis));
    for (body, headers, expected) in [
        (throttled, "", None),
        (throttled, "x-acs-retry-after: 1500\r\n", after(1500)),
        (other, "x-acs-retry-after: 1500\r\n", after(1500)),
        (
            throttled,
            "x-ratelimit-user-api: Limit:1,Remain:0,TimeLeft:2000,Reset:1234\r\n",
            after(2000),
        ),
        (
            throttled,
            "x-ratelimit-user-api: TimeLeft:2000\r\nx-ratelimit-user: Limit:9, TimeLeft:3000\r\n",
            after(3000),
        ),
        (
            throttled,
            "x-acs-retry-after: 10\r\nx-ratelimit-user: TimeLeft:3000\r\n",
            after(10),
        ),
        (
            throttled,
            "x-acs-retry-after: soon\r\nx-ratelimit-user: TimeLeft:3000\r\n",
            after(3000),
        ),
        (
            other,
            "x-ratelimit-user-api: Limit:1,Remain:0,TimeLeft:2000,Reset:1234\r\n",
            None,
        ),
        (throttled, "x-acs-retry-after: 0\r\n", None),
        (throttled, "x-acs-retry-after: -5\r\n", None),
        (
            throttled,
            "x-acs-retry-after: 99999999999999999999999\r\n",
            None,
        ),
        (throttled, "x-acs-retry-after: 3600001\r\n", None),
        (throttled, "x-acs-retry-after: 1.5\r\n", None),
        (throttled, "x-acs-retry-after: \u{ff}\r\n", None),
        (
            throttled,
            "x-ratelimit-user-api: TimeLeft\r\nx-ratelimit-user: ,,:,TimeLeft:NaN\r\n",
            None,
        ),
    ] {
        let server = Server::always(Reply::new(400, headers, body)).await;
        let error = server
            .client()
            .join_security_group(&region(), &instance(), &group())
            .await
            .unwrap_err();
        assert_eq!(error.retry_after(), expected, "{headers:?}");
    }
}

#[tokio::test]
async fn throttle_limit_is_read_and_nonsense_ignored() {
    let throttled = r#"{"RequestId":"R","Code":"Throttling.User","Message":"m"}"#;
    let other = r#"{"RequestId":"R","Code":"InternalError","Message":"m"}"#;
    for (body, header, expected) in [
        (
            throttled,
            "Limit:600,Remain:0,TimeLeft:2000,Reset:1234",
            Some(600),
        ),
        (throttled, "Remain:0, Limit: 30 ,TimeLeft:2000", Some(30)),
        (throttled, "Limit:4294967295", Some(u32::MAX)),
        (other, "Limit:600,Remain:0,TimeLeft:2000,Reset:1234", None),
        (throttled, "Limit:4294967296", None),
        (throttled, "Limit:-1", None),
        (throttled, "Limit:6e2", None),
        (throttled, "Limit:", None),
        (throttled, "Limit", None),
        (throttled, "600", None),
        (throttled, "limit:600", None),
        (throttled, "UserLimit:600", None),
        (throttled, "\u{ff}Limit:600", None),
        (throttled, "Limit:none,Limit:600", None),
        (throttled, "", None),
    ] {
        let header = format!("x-ratelimit-user-api: {header}\r\n");
        let server = Server::always(Reply::new(400, &header, body)).await;
        let error = server
            .client()
            .join_security_group(&region(), &instance(), &group())
            .await
            .unwrap_err();
        assert_eq!(error.limit(), expected, "{header:?}");
    }
    // That of the user over all APIs is no limit of this one.
    let header = "x-ratelimit-user: Limit:600\r\n";
    let server = Server::always(Reply::new(400, header, throttled)).await;
    let error = server.client().caller_identity().await.unwrap_err();
    assert_eq!(error.limit(), None);
}

#[tokio::test]
async fn account_id_must_be_plain_digits() {
    let long = "1".repeat(65);
    for uid in [
        long.as_str(),
        r"\u0000",
        r"1\u200b2",
        r"12\n",
        " 12",
        "12a",
        "１２",
        r"\ufeff",
    ] {
        let body = format!(r#"{{"RequestId":"R","AccountId":"{uid}","Arn":"acs:ram::12:user/x"}}"#);
        let server = Server::always(Reply::json(200, &body)).await;
        let error = server.client().caller_identity().await.unwrap_err();
        assert!(
            matches!(&error, Error::BadAnswer { what, .. } if what == "AccountId is not a number"),
            "{uid}: {error:?}"
        );
    }
}
