//! Reads the tags of the groups that grants by tags are about, once per scan period, and reports those that have changed. Reads only.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use tokio::time::Instant;
use tracing::warn;

use crate::ecs::{Action, ApiError, Class, Error, Region, SecurityGroupId};
use crate::kubernetes::LogDeduper;

use super::change::Change;
use super::context::Context;
use super::directory::group_tags::{Failed, TagsUnread};
use super::key::AccountRegion;
use super::session::{AccountSession, CallError, read_in_parts};

/// How long the first question about a group waits for others: they share a call.
const GATHER: Duration = Duration::from_millis(20);
/// How often the reader looks for groups that are due.
const TICK: Duration = Duration::from_secs(1);

/// Reads until dropped. Without a grant by tags it only waits.
pub async fn run(context: Arc<Context>) {
    let groups = &context.directory.group_tags;
    let logged = LogDeduper::default();
    let mut reads = FuturesUnordered::new();
    loop {
        for (place, due) in groups.take_due(context.scan_period) {
            reads.push(read(&context, place, due, &logged));
        }
        let idle = groups.is_empty() && reads.is_empty();
        tokio::select! {
            () = groups.asked() => tokio::time::sleep(GATHER).await,
            Some(()) = reads.next() => {}
            () = tokio::time::sleep(TICK), if !idle => {}
        }
    }
}

/// Reads groups of one account and region, and reports those of which something else is known then.
async fn read(
    context: &Context,
    place: AccountRegion,
    due: Vec<SecurityGroupId>,
    logged: &LogDeduper,
) {
    let directory = &context.directory;
    let Some(session) = directory.usable(&place.account) else {
        // Without a key the objects say what the account lacks.
        directory
            .group_tags
            .postpone(&place, &due, Instant::now() + TICK);
        return;
    };
    let take = |groups: &[SecurityGroupId], answer| {
        let (sent, result) = match answer {
            Ok((sent, found)) => (sent, Ok(found)),
            Err(error) => match failed(&error, &place, logged) {
                Some(failed) => (Instant::now(), Err(failed)),
                None => return Err(error),
            },
        };
        let times = (sent, context.scan_period);
        let changed = directory.group_tags.store(&place, groups, times, &result);
        if !changed.is_empty() {
            context.report(Change::GroupTags(place.clone(), changed));
        }
        Ok(())
    };
    // It ends early only while the process ends.
    let _ = read_all(&session, &place.region, &due, take).await;
}

/// The tags of the groups that the cloud shows, and when it was asked.
type Answer = (Instant, HashMap<SecurityGroupId, BTreeMap<String, String>>);

/// Reads these groups. Each part of them that the cloud has answered for counts at once, also if other parts fail.
async fn read_all(
    session: &AccountSession,
    region: &Region,
    groups: &[SecurityGroupId],
    mut take: impl FnMut(&[SecurityGroupId], Result<Answer, CallError>) -> Result<(), CallError>,
) -> Result<(), CallError> {
    let limits = session.limits();
    let pace = limits.pace(region, Action::DescribeSecurityGroups);
    let read = async |part| -> Result<Answer, CallError> {
        let sent = Instant::now();
        let rows = session.tags_of_groups(region, part).await?;
        let tags = rows.into_iter();
        let tags = tags.map(|(group, tags)| (group, tags.by_key().clone()));
        Ok((sent, tags.collect()))
    };
    let take = |part: &[SecurityGroupId], answer| match answer {
        // The cloud takes it for none: such a group has no tags.
        Err(CallError::Failed(error @ Error::Api(_))) if error.may_be_one_bad_id() => {
            take(part, Ok((Instant::now(), HashMap::new())))
        }
        answer => take(part, answer),
    };
    read_in_parts(groups, &pace, read, take).await
}

/// What a failed read means; `None` while the process ends.
fn failed(error: &CallError, place: &AccountRegion, logged: &LogDeduper) -> Option<Failed> {
    let (CallError::Failed(error) | CallError::NotAnswering(error)) = error else {
        return None;
    };
    let stalled = matches!(
        error.class(),
        Class::Blocked | Class::Invalid | Class::Absent
    ) && !error.is_clock_error();
    if logged.is_first(&format!("{place:?} {error}")) {
        let reference = place.account.reference();
        let (kind, namespace, name) = (reference.kind, reference.namespace, reference.name);
        let region = &place.region;
        warn!(kind, namespace, name, %region, "the tags of security groups could not be read; next try within one scan period: {error}");
    }
    Some(Failed {
        trouble: TagsUnread {
            stalled,
            message: message(error),
        },
        // A key that was just replaced says nothing about the right.
        ends: stalled && is_forbidden(error) && !error.is_credential_error(),
    })
}

/// Whether the cloud has refused the read. Any other answer says nothing of the right.
const fn is_forbidden(error: &Error) -> bool {
    matches!(error, Error::Api(ApiError { status: 403, .. }))
}

/// It names no group: an object learns nothing of groups that no grant lets it use.
fn message(error: &Error) -> String {
    format!(
        "it grants security groups by tags, and the tags cannot be read: {error}; {}; the key needs the right to ecs:DescribeSecurityGroups; next try within one scan period",
        error.hint()
    )
}

#[cfg(test)]
mod tests {
    use futures::future::BoxFuture;
    use serde_json::json;

    use crate::account::limiters::CloudLimits;
    use crate::ecs::{
        Client, Credential, Endpoints, Transport, TransportError, test_answer, test_parameters,
    };
    use crate::shutdown::Shutdown;

    use super::*;

    /// `sg-none` is refused wherever it is asked for, the row of `sg-odd` cannot be read, a call with `sg-busy` gets no rows, and the
    /// other groups have a tag.
    #[derive(Debug)]
    struct Cloud;

    impl Transport for Cloud {
        fn send(
            &self,
            request: http::Request<bytes::Bytes>,
            _: Duration,
        ) -> BoxFuture<'_, Result<http::Response<bytes::Bytes>, TransportError>> {
            let asked = test_parameters(&request);
            let ids: Vec<String> = serde_json::from_str(&asked["SecurityGroupIds"]).unwrap();
            let asks_for = |group: &str| ids.iter().any(|id| id == group);
            let refusal = |code| json!({"Code": code, "Message": "so it is", "RequestId": "R"});
            let (status, body) = if asks_for("sg-none") {
                (400, refusal("InvalidSecurityGroupId.Malformed"))
            } else if asks_for("sg-busy") {
                (503, refusal("ServiceUnavailable"))
            } else {
                let rows: Vec<_> = ids
                    .iter()
                    .map(|id| {
                        let value = if id == "sg-odd" {
                            json!(["a"])
                        } else {
                            json!("a")
                        };
                        let tags = json!({"Tag": [{"TagKey": "team", "TagValue": value}]});
                        json!({"SecurityGroupId": id, "Tags": tags})
                    })
                    .collect();
                let groups = json!({"SecurityGroup": rows});
                (200, json!({"RequestId": "R", "SecurityGroups": groups}))
            };
            test_answer(status, body.to_string())
        }
    }

    /// One that cannot be read is not one without tags: what was known of it counts on.
    #[tokio::test(start_paused = true)]
    async fn each_group_is_told_by_its_own_read() {
        let credential = Credential::new("LTAI4", "secret-of-the-key", None).unwrap();
        let endpoints = Endpoints::parse(None, None, false).unwrap();
        let session = AccountSession::new(
            Client::new(Arc::new(Cloud), credential, endpoints),
            CloudLimits::of_test("1"),
            Arc::default(),
            Arc::default(),
            Shutdown::default(),
        );
        let groups = ["sg-a", "sg-none", "sg-odd", "sg-b", "sg-busy", "sg-c"];
        let groups = groups.map(|id| id.parse::<SecurityGroupId>().unwrap());
        let region = "cn-hangzhou".parse().unwrap();
        let mut told = BTreeMap::new();
        let read = read_all(&session, &region, &groups, |groups, answer| {
            for group in groups {
                let tags = match &answer {
                    Ok((_, found)) => {
                        format!("{:?}", found.get(group).cloned().unwrap_or_default())
                    }
                    Err(CallError::Failed(error)) => error.known_code().to_owned(),
                    Err(error) => panic!("{group}: {error:?}"),
                };
                assert_eq!(told.insert(group.to_string(), tags), None);
            }
            Ok(())
        });
        read.await.unwrap();
        let told: Vec<_> = told
            .iter()
            .map(|(group, tags)| (&**group, &**tags))
            .collect();
        let of_a = r#"{"team": "a"}"#;
        assert_eq!(
            told,
            [
                ("sg-a", of_a),
                // They shared a call that failed.
                ("sg-b", "ServiceUnavailable"),
                ("sg-busy", "ServiceUnavailable"),
                ("sg-c", "ServiceUnavailable"),
                ("sg-none", "{}"),
                ("sg-odd", "BadAnswer"),
            ]
        );
    }
}
