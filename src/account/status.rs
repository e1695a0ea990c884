//! The status of an account from what its examination found. Pure.

use k8s_openapi::jiff::Timestamp;

use crate::api::account::CloudAccountStatus;
use crate::api::reason;
use crate::condition::{self, NewCondition, Status};
use crate::ecs::{Class, Error, Identity};

/// What an examination found.
#[derive(Debug)]
pub enum CheckResult {
    /// The cloud knows the credentials.
    Accepted(Identity),
    /// There are no usable credentials to ask with; somebody must act.
    NoCredentials {
        /// Condition reason.
        reason: &'static str,
        /// What is wrong, with the field and the fix.
        message: String,
    },
    /// The cloud was last_checked and did not accept, or did not answer.
    Refused(Error),
    /// The API server did not hand out the Secret.
    Unknown(String),
}

impl CheckResult {
    /// Whether somebody must act before this can change.
    #[must_use]
    pub fn is_stalled(&self) -> bool {
        match self {
            Self::Accepted(_) | Self::Unknown(_) => false,
            Self::NoCredentials { .. } => true,
            Self::Refused(error) => is_stalled(error),
        }
    }

    /// Condition reason and message.
    #[must_use]
    pub fn explain(&self) -> (String, String) {
        match self {
            Self::Accepted(identity) => (
                reason::CREDENTIALS_ACCEPTED.to_owned(),
                format!("authenticated as {}", identity.arn),
            ),
            Self::NoCredentials { reason, message } => ((*reason).to_owned(), message.clone()),
            Self::Refused(error) => (
                if self.is_stalled() {
                    error.reason()
                } else {
                    reason::RETRYING.to_owned()
                },
                format!(
                    "{}; {}; {}",
                    // The cloud's sentence goes on here.
                    error.to_string().trim_end_matches('.'),
                    error.hint(),
                    error.class().retry()
                ),
            ),
            Self::Unknown(message) => (reason::RETRYING.to_owned(), message.clone()),
        }
    }
}

/// Whether somebody must act before the cloud can take the credentials.
pub(super) fn is_stalled(error: &Error) -> bool {
    match error.class() {
        Class::Blocked | Class::Invalid | Class::Absent => true,
        Class::Done | Class::Transitional | Class::Transient | Class::Throttled => false,
    }
}

/// The status to write; none where it would say the same.
#[must_use]
pub fn status(
    previous: Option<&CloudAccountStatus>,
    generation: Option<i64>,
    result: &CheckResult,
    now: Timestamp,
) -> Option<CloudAccountStatus> {
    let empty = CloudAccountStatus::default();
    let previous = previous.unwrap_or(&empty);
    let (reason, message) = result.explain();
    let condition = |type_, status| NewCondition {
        type_,
        status,
        reason: reason.clone(),
        message: message.clone(),
    };
    let (account_uid, arn, conditions) = match result {
        CheckResult::Accepted(identity) => (
            Some(identity.account_uid.clone()),
            Some(identity.arn.clone()),
            vec![condition(reason::READY, Status::True)],
        ),
        CheckResult::NoCredentials { .. } | CheckResult::Refused(_) | CheckResult::Unknown(_) => (
            previous.account_uid.clone(),
            previous.arn.clone(),
            vec![
                condition(reason::READY, Status::False),
                condition(
                    if result.is_stalled() {
                        reason::STALLED
                    } else {
                        reason::RECONCILING
                    },
                    Status::True,
                ),
            ],
        ),
    };
    let next = CloudAccountStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
        account_uid,
        arn,
        last_handled_reconcile_at: previous.last_handled_reconcile_at.clone(),
    };
    (next != *previous).then_some(next)
}
