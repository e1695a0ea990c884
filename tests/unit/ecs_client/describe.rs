//! Reading targets: a complete answer or an error, by ID and never by position.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use security_group_operator::ecs::{
    Error, InstanceId, NetworkInterfaceId, Tags, TargetDescription, TargetState, Transport,
    TransportError,
};

use super::server::{Reply, Seen, Server, client, region};

fn ids(range: std::ops::Range<usize>) -> Vec<InstanceId> {
    range.map(|n| format!("i-{n}").parse().unwrap()).collect()
}

fn row(id: &str) -> String {
    format!(
        r#"{{"InstanceId":"{id}","Status":"Running","VpcAttributes":{{"VpcId":"vpc-1","VSwitchId":""}},"OperationLocks":{{"LockReason":[{{"LockReason":"security","LockMsg":""}}]}},"SecurityGroupIds":{{"SecurityGroupId":["sg-2","sg-1"]}},"Tags":{{"Tag":[{{"TagKey":"team","TagValue":"a"}},{{"TagKey":"empty"}},{{"TagValue":"of none"}}]}}}}"#
    )
}

fn page(rows: &[String], next_token: &str) -> Reply {
    Reply::json(
        200,
        &format!(
            r#"{{"RequestId":"R","TotalCount":0,"NextToken":"{next_token}","Instances":{{"Instance":[{}]}}}}"#,
            rows.join(",")
        ),
    )
}

/// A cloud that has everything that it is asked for, `size` rows a page.
fn everything(size: usize) -> impl Fn(&Seen) -> Reply {
    move |seen| {
        let ids = seen
            .parameter("InstanceIds")
            .unwrap()
            .trim_matches(['[', ']'])
            .replace('"', "");
        let ids: Vec<&str> = ids.split(',').collect();
        let start: usize = seen
            .parameter("NextToken")
            .map_or(0, |token| token.parse().unwrap());
        let end = ids.len().min(start + size);
        let rows: Vec<String> = ids[start..end].iter().rev().map(|id| row(id)).collect();
        page(
            &rows,
            &if end < ids.len() {
                end.to_string()
            } else {
                String::new()
            },
        )
    }
}

fn tags(pairs: &[(&str, &str)]) -> Tags {
    let pairs = pairs.iter();
    let owned = pairs.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    Tags::new(owned.collect())
}

async fn describe(
    server: &Server,
    ids: &[InstanceId],
) -> Result<HashMap<InstanceId, TargetDescription>, Error> {
    server.client().describe_instances(&region(), ids).await
}

/// The answers in turn to the question for i-0 and i-1.
async fn refused(replies: Vec<Reply>) -> String {
    let server = Server::in_turn(replies).await;
    match describe(&server, &ids(0..2)).await {
        Err(Error::BadAnswer { what, .. } | Error::BadRow { what, .. }) => what,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn instance_is_described() {
    let server = Server::start(everything(100)).await;
    let found = describe(&server, &ids(0..1)).await.unwrap();
    let expected = TargetDescription {
        state: TargetState::Running,
        vpc_id: Some("vpc-1".to_owned()),
        lock_reasons: vec!["security".to_owned()],
        security_group_ids: ["sg-1", "sg-2"].map(|id| id.parse().unwrap()).into(),
        service_managed: false,
        primary: false,
        karpenter: false,
        tags: tags(&[("team", "a"), ("empty", "")]),
    };
    assert_eq!(found, HashMap::from([("i-0".parse().unwrap(), expected)]));
    let seen = &server.seen()[0];
    assert_eq!(seen.parameter("InstanceIds"), Some(r#"["i-0"]"#));
    assert_eq!(seen.parameter("MaxResults"), Some("100"));
    assert_eq!(seen.parameter("RegionId"), Some("cn-hangzhou"));
}

#[tokio::test]
async fn network_interface_is_described() {
    let server = Server::always(Reply::json(
        200,
        r#"{"RequestId":"R","NetworkInterfaceSets":{"NetworkInterfaceSet":[
            {"NetworkInterfaceId":"eni-1","Status":"InUse","Type":"Secondary","VpcId":"vpc-1","InstanceId":"i-1","ServiceManaged":true,"SecurityGroupIds":{"SecurityGroupId":["sg-1"]},"Tags":{"Tag":[{"TagKey":"team","TagValue":"b"}]}},
            {"NetworkInterfaceId":"eni-2","Status":"Odd","Type":"Primary","SecurityGroupIds":{"SecurityGroupId":[]}}]}}"#,
    ))
    .await;
    let ids: Vec<NetworkInterfaceId> = ["eni-1", "eni-2", "eni-3"]
        .map(|id| id.parse().unwrap())
        .into();
    let found = server
        .client()
        .describe_network_interfaces(&region(), &ids)
        .await
        .unwrap();
    assert_eq!(found[&ids[0]].state, TargetState::InUse);
    assert!(found[&ids[0]].service_managed && !found[&ids[1]].service_managed);
    assert!(!found[&ids[0]].primary && found[&ids[1]].primary);
    assert_eq!(found[&ids[0]].vpc_id.as_deref(), Some("vpc-1"));
    assert_eq!(found[&ids[0]].tags, tags(&[("team", "b")]));
    assert_eq!(found[&ids[1]].tags, Tags::default());
    assert_eq!(found[&ids[1]].state, TargetState::Other("Odd".to_owned()));
    assert!(
        !found.contains_key(&ids[2]),
        "absent from a complete answer"
    );
    let seen = &server.seen()[0];
    assert_eq!(
        [1, 2, 3].map(|n| seen
            .parameter(&format!("NetworkInterfaceId.{n}"))
            .unwrap()
            .to_owned()),
        ["eni-1", "eni-2", "eni-3"]
    );
    assert_eq!(seen.parameter("NetworkInterfaceId.4"), None);
}

#[tokio::test]
async fn every_state_keeps_the_clouds_spelling() {
    for (state, transitional) in [
        ("Pending", true),
        ("Starting", true),
        ("Running", false),
        ("Stopping", true),
        ("Stopped", false),
        ("Available", false),
        ("Attaching", true),
        ("InUse", false),
        ("Detaching", true),
        ("Deleting", true),
        ("Hibernating", false),
    ] {
        let server = Server::always(page(&[row("i-0").replace("Running", state)], "")).await;
        let found = describe(&server, &ids(0..1))
            .await
            .unwrap()
            .remove(&ids(0..1)[0])
            .unwrap();
        assert_eq!(found.state.to_string(), state);
        assert_eq!(found.state.is_transitional(), transitional, "{state}");
        assert_eq!(
            matches!(found.state, TargetState::Other(_)),
            state == "Hibernating",
            "{state}"
        );
    }
}

#[tokio::test]
async fn ids_are_sent_100_per_call_and_none_makes_no_call() {
    let server = Server::start(everything(100)).await;
    assert_eq!(describe(&server, &ids(0..100)).await.unwrap().len(), 100);
    assert_eq!(server.seen().len(), 1);
    assert_eq!(describe(&server, &ids(0..201)).await.unwrap().len(), 201);
    assert_eq!(server.seen().len(), 4);
    // Without IDs the cloud would list every instance of the region.
    assert!(describe(&server, &[]).await.unwrap().is_empty());
    assert_eq!(server.seen().len(), 4);
}

#[tokio::test]
async fn pages_are_followed_to_the_end() {
    for size in [1, 10, 33] {
        let server = Server::start(everything(size)).await;
        assert_eq!(
            describe(&server, &ids(0..100)).await.unwrap().len(),
            100,
            "{size}"
        );
        assert_eq!(server.seen().len(), 100_usize.div_ceil(size), "{size}");
    }
    // A page may be empty without being the last.
    let server = Server::in_turn(vec![
        page(&[], "a"),
        page(&[row("i-1")], "b"),
        page(&[], ""),
    ])
    .await;
    assert_eq!(describe(&server, &ids(0..2)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn shrinking_pages_are_followed_until_all_rows_came() {
    let all = ids(0..5);
    let server = Server::in_turn(vec![
        page(&[row("i-4"), row("i-1"), row("i-3")], "a"),
        page(&[row("i-0")], "b"),
        page(&[], "c"),
        page(&[row("i-2")], "d"),
    ])
    .await;
    assert_eq!(describe(&server, &all).await.unwrap().len(), 5);
    assert_eq!(
        server.seen().len(),
        4,
        "a token without need is not followed"
    );
    let tokens: Vec<_> = server
        .seen()
        .iter()
        .map(|seen| seen.parameter("NextToken").map(ToOwned::to_owned))
        .collect();
    assert_eq!(
        tokens,
        [None, Some("a"), Some("b"), Some("c")].map(|token| token.map(String::from))
    );

    // One that the shrunken pages never name is absent, and only when the last page has come.
    let server = Server::in_turn(vec![
        page(&[row("i-4"), row("i-1"), row("i-3")], "a"),
        page(&[row("i-0")], ""),
    ])
    .await;
    let found = describe(&server, &all).await.unwrap();
    assert_eq!((found.len(), found.contains_key(&all[2])), (4, false));
}

#[tokio::test]
async fn wrong_total_count_is_ignored() {
    // Documented as meaningless with NextToken paging: it neither ends the pages nor makes up for a row.
    for total in ["0", "1", "2", "3", "-1", "1e300", "\"two\"", "null", "[]"] {
        let rows = format!("{},{}", row("i-0"), row("i-1"));
        let body = |rows: &str, token: &str| {
            let body = format!(
                r#"{{"RequestId":"R","TotalCount":{total},"PageSize":{total},"PageNumber":{total},"NextToken":"{token}","Instances":{{"Instance":[{rows}]}}}}"#
            );
            Reply::json(200, &body)
        };
        let server = Server::always(body(&rows, "")).await;
        assert_eq!(
            describe(&server, &ids(0..2)).await.unwrap().len(),
            2,
            "{total}"
        );
        let server = Server::in_turn(vec![body("", "a"), body(&rows, "")]).await;
        assert_eq!(
            describe(&server, &ids(0..2)).await.unwrap().len(),
            2,
            "{total}"
        );
        let server = Server::always(body(&row("i-0"), "")).await;
        assert_eq!(
            describe(&server, &ids(0..2)).await.unwrap().len(),
            1,
            "{total}"
        );
    }
}

#[tokio::test]
async fn invalid_interface_pages_are_rejected() {
    let row = |id: &str| {
        format!(
            r#"{{"NetworkInterfaceId":"{id}","Status":"InUse","SecurityGroupIds":{{"SecurityGroupId":["sg-1"]}}}}"#
        )
    };
    let (ours, foreign) = (row("eni-1"), row("eni-7"));
    for (rows, token, expected) in [
        (
            vec![&ours, &foreign],
            "",
            "it describes something that was not asked for",
        ),
        (
            vec![&foreign],
            "",
            "it describes something that was not asked for",
        ),
        (vec![&ours, &ours], "", "it describes the same ID twice"),
        (vec![], "again", "its pages do not end"),
    ] {
        let rows: Vec<&str> = rows.into_iter().map(String::as_str).collect();
        let rows = rows.join(",");
        let body = format!(
            r#"{{"RequestId":"R","NextToken":"{token}","NetworkInterfaceSets":{{"NetworkInterfaceSet":[{rows}]}}}}"#
        );
        let server = Server::always(Reply::json(200, &body)).await;
        let ids: [NetworkInterfaceId; 2] = ["eni-1", "eni-2"].map(|id| id.parse().unwrap());
        let error = server
            .client()
            .describe_network_interfaces(&region(), &ids)
            .await;
        let is_one_row = rows.contains("eni-1") && rows.contains("eni-7");
        match &error {
            Err(Error::BadRow { what, .. }) => assert!(is_one_row && what == expected, "{error:?}"),
            Err(Error::BadAnswer { what, .. }) => {
                assert!(!is_one_row && what == expected, "{error:?}");
            }
            _ => panic!("{error:?}"),
        }
        assert!(server.seen().len() <= 3, "{} pages", server.seen().len());
    }
}

#[tokio::test]
async fn one_failed_page_fails_the_describe() {
    let rows = |n: &str| page(&[row("i-0")], n);
    let cut = Reply::json(200, r#"{"RequestId":"R","Instances":{"Instance":["#);
    assert_eq!(
        refused(vec![rows("a"), cut]).await,
        "JSON that ends in the middle"
    );
    let throttled = Reply::json(400, r#"{"RequestId":"R","Code":"Throttling","Message":""}"#);
    let server = Server::in_turn(vec![rows("a"), throttled]).await;
    assert!(matches!(
        describe(&server, &ids(0..2)).await,
        Err(Error::Api(_))
    ));
}

#[tokio::test]
async fn endless_pages_are_rejected() {
    assert_eq!(
        refused(vec![page(&[], "same")]).await,
        "its pages do not end"
    );
    assert_eq!(
        refused(vec![
            page(&[row("i-0")], "a"),
            page(&[], "b"),
            page(&[], "a")
        ])
        .await,
        "its pages do not end"
    );
    let server = Server::start(|seen| {
        let n: usize = seen
            .parameter("NextToken")
            .map_or(0, |token| token.parse().unwrap());
        page(&[], &(n + 1).to_string())
    })
    .await;
    assert!(matches!(
        describe(&server, &ids(0..5)).await,
        Err(Error::BadAnswer { .. } | Error::BadRow { .. })
    ));
    assert_eq!(server.seen().len(), 6, "one page an ID and one more");
}

#[tokio::test]
async fn page_token_is_accepted_up_to_4_kib() {
    let token = |length: usize| page(&[row("i-0")], &"t".repeat(length));
    let last = page(&[row("i-1")], "");
    let server = Server::in_turn(vec![token(4096), last.clone()]).await;
    assert_eq!(describe(&server, &ids(0..2)).await.unwrap().len(), 2);
    assert_eq!(
        refused(vec![token(4097), last]).await,
        "its NextToken is longer than 4096 bytes"
    );
}

/// Pages that come 4 s apart and do not end.
struct Slow(Arc<Mutex<Vec<Duration>>>);

impl Transport for Slow {
    fn send(
        &self,
        _: http::Request<Bytes>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        self.0.lock().unwrap().push(deadline);
        let number = self.0.lock().unwrap().len();
        async move {
            tokio::time::sleep(deadline.min(Duration::from_secs(4))).await;
            let body = format!(
                r#"{{"RequestId":"R","NextToken":"{number}","Instances":{{"Instance":[]}}}}"#
            );
            Ok(http::Response::new(body.into()))
        }
        .boxed()
    }
}

#[tokio::test(start_paused = true)]
async fn all_pages_of_a_batch_share_one_deadline() {
    let deadlines = Arc::new(Mutex::new(Vec::new()));
    let client = client("http://cloud.test", Slow(Arc::clone(&deadlines)));
    let start = tokio::time::Instant::now();
    let answer = client.describe_instances(&region(), &ids(0..100)).await;
    assert!(answer.is_err());
    let seconds: Vec<u64> = deadlines
        .lock()
        .unwrap()
        .iter()
        .map(Duration::as_secs)
        .filter(|left| *left > 0)
        .collect();
    assert_eq!(seconds, [10, 6, 2]);
    assert_eq!(start.elapsed().as_secs(), 10);
}

#[tokio::test]
async fn unrequested_or_repeated_rows_are_rejected() {
    assert_eq!(
        refused(vec![page(&[row("i-0"), row("i-7")], "")]).await,
        "it describes something that was not asked for"
    );
    assert_eq!(
        refused(vec![page(&[row("i-0"), row("i-0")], "")]).await,
        "it describes the same ID twice"
    );
    assert_eq!(
        refused(vec![page(&[row("i-0")], "a"), page(&[row("i-0")], "")]).await,
        "it describes the same ID twice"
    );
}

/// One of the IDs may have brought a foreign row: the others are read without it. If none of the rows was asked for, the filter was
/// ignored.
#[tokio::test]
async fn foreign_row_does_not_fail_the_other_ids() {
    for (rows, blames_one) in [
        ([row("i-0"), row("i-7")], true),
        ([row("i-7"), row("i-1")], true),
        ([row("i-7"), row("i-8")], false),
    ] {
        let server = Server::always(page(&rows, "")).await;
        let error = describe(&server, &ids(0..2)).await.unwrap_err();
        assert_eq!(error.may_be_one_bad_id(), blames_one, "{error}");
    }
    let crowd: Vec<String> = (0..101).map(|number| row(&format!("i-{number}"))).collect();
    let server = Server::always(page(&crowd, "")).await;
    let Err(Error::BadAnswer { what, .. }) = describe(&server, &ids(0..100)).await else {
        panic!("more rows than a call may ask for");
    };
    assert_eq!(what, "it has more rows than were asked for");
}

/// What the operator does not read is skipped, whatever it is; a row of wrong types spoils no other.
#[tokio::test]
async fn unread_fields_may_be_anything() {
    let odd = r#""Odd":[1e999,{"a":[[[]]]},"\ud800"],"TotalCount":"two","#;
    let with = row("i-0").replace(r#""InstanceId""#, &format!(r#"{odd}"InstanceId""#));
    assert_ne!(with, row("i-0"));
    let server = Server::always(page(&[with], "")).await;
    assert_eq!(describe(&server, &ids(0..1)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn unreadable_row_is_an_error_not_an_absence() {
    let good = row("i-0");
    for (from, to) in [
        (r#""Status":"Running","#, ""),
        (r#""Status":"Running""#, r#""Status":"""#),
        (r#""Status":"Running""#, r#""Status":null"#),
        (r#""Status":"Running""#, r#""Status":7"#),
        (r#""Status":"Running""#, r#""Status":"Run\u0000ning""#),
        (r#""InstanceId":"i-0","#, ""),
        (r#""InstanceId":"i-0""#, r#""InstanceId":"""#),
        (r#""InstanceId":"i-0""#, r#""InstanceId":"i-0\u0000""#),
        (r#""InstanceId":"i-0""#, r#""InstanceId":["i-0"]"#),
        (r#"{"SecurityGroupId":["sg-2","sg-1"]}"#, "null"),
        (r#"{"SecurityGroupId":["sg-2","sg-1"]}"#, "{}"),
        (r#"["sg-2","sg-1"]"#, "null"),
        (r#"["sg-2","sg-1"]"#, r#""sg-1""#),
        (r#"["sg-2","sg-1"]"#, r#"["sg-1",null]"#),
        // Almost an ID of ours: passing it over would say that the target is not a member.
        (r#""sg-1""#, r#""sg-1 ""#),
        (r#""sg-1""#, r#""SG-1""#),
        (r#""sg-1""#, r#""sg1""#),
        (r#""sg-1""#, r#""sg-\u202e1""#),
        (r#""sg-1""#, r#""""#),
    ] {
        assert!(good.contains(from), "{from}");
        let bad = good.replace(from, to);
        let what = refused(vec![page(std::slice::from_ref(&bad), "")]).await;
        assert!(!what.contains('\u{0}'), "{from} -> {to}: {what}");
        // Its neighbours can be had without it, unless nothing at all can be read.
        for (rows, blames_one) in [
            ([row("i-1"), bad.clone()], true),
            ([bad.clone(), row("i-1")], true),
            ([bad.clone(), bad.clone()], false),
        ] {
            let server = Server::always(page(&rows, "")).await;
            let error = describe(&server, &ids(0..2)).await.unwrap_err();
            assert_eq!(
                error.may_be_one_bad_id(),
                blames_one,
                "{from} -> {to}: {error}"
            );
            assert_eq!(error.reason(), "BadAnswer");
        }
    }
    for body in [
        r#"{"RequestId":"R"}"#,
        r#"{"RequestId":"R","Instances":null}"#,
        r#"{"RequestId":"R","Instances":{}}"#,
        r#"{"RequestId":"R","Instances":[]}"#,
        r#"{"RequestId":"R","Instances":{"Instance":null}}"#,
        r#"{"RequestId":"R","Instances":{"Instance":{}}}"#,
        r#"{"RequestId":"R","Instances":{"Instance":[null]}}"#,
        r#"{"RequestId":"R","Instances":{"Instance":[]},"NextToken":7}"#,
    ] {
        refused(vec![Reply::json(200, body)]).await;
    }
    refused(vec![page(&[], &"x".repeat(5000))]).await;
}

#[tokio::test]
async fn optional_fields_may_be_missing() {
    let bare = r#"{"InstanceId":"i-0","Status":"Stopped","SecurityGroupIds":{"SecurityGroupId":["G1234567890","F876FF7BA984","sg-1"]}}"#;
    let server = Server::always(page(&[bare.to_owned()], "")).await;
    let found = describe(&server, &ids(0..1))
        .await
        .unwrap()
        .remove(&ids(0..1)[0])
        .unwrap();
    assert_eq!(found.vpc_id, None);
    assert!(found.lock_reasons.is_empty());
    assert_eq!(
        found.security_group_ids,
        ["sg-1".parse().unwrap()].into(),
        "IDs of an older shape are nobody's here"
    );
}
