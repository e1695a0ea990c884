//! Writes the status of an account, and records its transitions as events.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt as _;
use kube::runtime::controller::Action;
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::api::account::CloudAccountStatus;
use crate::api::reason;
use crate::ecs::Class;
use crate::kubernetes::events::EventRecord;
use crate::kubernetes::{self, ObjectUid, version_of};
use crate::watched::Watched;

use super::context::{Context, SECRET_PERIOD, WrittenStatus};
use super::key::AccountKey;
use super::kind::{AccountObject, key_of};
use super::status::{self, Observation};

/// Writes the status that follows from an observation, if it differs from the stored one.
pub(super) async fn write_status<K: AccountObject>(
    account: &K,
    key: &AccountKey,
    previous: &CloudAccountStatus,
    observation: Observation<'_>,
    context: &Context,
) -> Result<(), kubernetes::Error> {
    let generation = account.meta().generation;
    let next = status::status(previous, generation, observation, context.clock.now());
    let mut stored = (
        version_of(account.meta()),
        account.status().cloned().unwrap_or_default(),
    );
    if next != *previous || context.has_foreign_status(account, key) {
        let api = K::api(&context.client, &account.namespace().unwrap_or_default());
        let answer = context
            .writer
            .apply_status(&api, account.meta(), &next)
            .await;
        match answer {
            Ok(written) => {
                stored = (
                    version_of(written.meta()),
                    written.status().cloned().unwrap_or_default(),
                );
            }
            // The account was deleted.
            Err(error) if error.code() == Some(404) => return Ok(()),
            Err(error) => return Err(error),
        }
        publish_transitions(account, previous, &next, context);
    }
    let mut checks = context.checks();
    let check = checks.entry(key.clone()).or_default();
    let own = ObjectUid::of(account);
    let is_newer = |written: &WrittenStatus| written.account != own || written.version <= stored.0;
    if check.written.as_ref().is_none_or(is_newer) {
        check.written = Some(WrittenStatus {
            account: own,
            status: next,
            version: stored.0,
            stored: stored.1,
            at: Instant::now(),
        });
    }
    check.failed_writes = 0;
    check.failed_write = None;
    Ok(())
}

/// An event for each condition that has changed.
fn publish_transitions<K: AccountObject>(
    account: &K,
    previous: &CloudAccountStatus,
    next: &CloudAccountStatus,
    context: &Context,
) {
    for condition in status::transitions(previous, next) {
        let event = EventRecord {
            reason: condition.reason.clone(),
            warning: condition.status == "False",
            text: condition.message.clone(),
            ..EventRecord::default()
        };
        if condition.type_ == reason::READY {
            // `log_result` has logged it.
            context.events.queue(account, event);
        } else {
            context.events.publish(account, event);
        }
    }
}

/// Logs a failed write once, and says when it is tried again.
pub(super) fn on_error<K: AccountObject>(
    account: Arc<Watched<K>>,
    error: &kubernetes::Error,
    context: Arc<Context>,
) -> Action {
    let key = key_of::<K>(&*account);
    let ObjectReference {
        kind,
        namespace,
        name,
        ..
    } = key.reference();
    let mut checks = context.checks();
    let check = checks.entry(key).or_default();
    let code = error.code();
    let failure = Some((code, error.to_string()));
    if check.failed_write == failure {
        debug!(
            kind,
            namespace, name, code, "the status could not be written: {error}"
        );
    } else {
        warn!(
            kind,
            namespace, name, code, "the status could not be written: {error}"
        );
    }
    check.failed_write = failure;
    check.failed_writes = check.failed_writes.saturating_add(1);
    let wait = Class::Transient.retry().delay(check.failed_writes);
    Action::requeue(wait.min(SECRET_PERIOD))
}
