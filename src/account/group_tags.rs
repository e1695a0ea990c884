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
    let began = Instant::now();
    let directory = &context.directory;
    let result = match directory.usable(&place.account) {
        Some(session) => Some(read_all(&session, &place.region, &due).await),
        // Without a key the objects say what the account lacks.
        None => None,
    };
    let result = match result {
        Some(Ok(tags)) => Ok(tags),
        Some(Err(error)) => match failed(&error, &place, logged) {
            Some(failed) => Err(failed),
            None => return,
        },
        None => {
            directory.group_tags.postpone(&place, &due, began + TICK);
            return;
        }
    };
    let times = (began, context.scan_period);
    let changed = directory.group_tags.store(&place, &due, times, &result);
    if !changed.is_empty() {
        context.report(Change::GroupTags(place, changed));
    }
}

type Found = HashMap<SecurityGroupId, BTreeMap<String, String>>;

async fn read_all(
    session: &AccountSession,
    region: &Region,
    groups: &[SecurityGroupId],
) -> Result<Found, CallError> {
    let size = session
        .limits()
        .call_size(region, Action::DescribeSecurityGroups);
    let read = |part| session.tags_of_groups(region, part);
    let answers = read_in_parts(groups, &size, read).await?;
    let rows = answers.into_iter().flat_map(|(_, rows)| rows);
    Ok(rows
        .map(|(group, tags)| (group, tags.by_key().clone()))
        .collect())
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
