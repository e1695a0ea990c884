//! Looks at the Lease without taking part in the election, and says what keeps a process from it.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use tracing::warn;

use super::super::with_deadline;
use super::super::{Error, error_chain};
use super::held::{DEFAULT_DURATION, NAME};

/// Why the Lease of a namespace cannot be used, and what to do.
pub(super) fn explain(namespace: &str, error: &Error) -> String {
    match error.code() {
        Some(403) => format!(
            "the operator may not use the Lease {NAME} in namespace {namespace}, so that it never acts: apply the roles in deploy/ and bind them to its service account, or run a single operator without --leader-elect: {error}"
        ),
        Some(404) => format!(
            "the namespace {namespace} for the Lease does not exist: create it, or name the operator's own with --operator-namespace: {error}"
        ),
        Some(_) | None => format!(
            "the Lease {namespace}/{NAME} cannot be used, and is tried again until it can: {}",
            error_chain(error)
        ),
    }
}

/// Whether the rights suffice to take part in an election.
///
/// # Errors
/// What is missing.
pub async fn check(client: kube::Client, namespace: &str) -> Result<(), String> {
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let found = with_deadline(leases.get_opt(NAME)).await;
    found
        .map(|_| ())
        .map_err(|error| explain(namespace, &error))
}

/// For an operator that takes part in no election: warns of another one that holds the Lease of its namespace and renews it. Looks
/// twice, a Lease's duration apart. Says nothing where it may not look.
pub async fn warn_of_leader(client: kube::Client, namespace: String) {
    let leases: Api<Lease> = Api::namespaced(client, &namespace);
    let look = async || {
        let found = with_deadline(leases.get_opt(NAME)).await;
        let spec = found.ok().flatten()?.spec?;
        let holder = spec
            .holder_identity
            .clone()
            .filter(|holder| !holder.is_empty());
        Some((holder?, spec))
    };
    let Some((_, before)) = look().await else {
        return;
    };
    let seconds = before
        .lease_duration_seconds
        .and_then(|all| all.try_into().ok());
    tokio::time::sleep(seconds.map_or(DEFAULT_DURATION, Duration::from_secs)).await;
    if let Some((holder, now)) = look().await
        && now.renew_time != before.renew_time
    {
        warn!(
            "another operator works here: {holder} holds the Lease {namespace}/{NAME}. Two operators take each other's memberships for somebody else's: end one of them, start this one with --leader-elect, or give each its own --namespace and --operator-namespace"
        );
    }
}
