//! The status of an account from the result of its check. Pure.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

use crate::api::account::CloudAccountStatus;
use crate::api::reason;
use crate::condition::{self, NewCondition, Status};
use crate::ecs::{Class, DocsUrl, Error, Identity, Retry};

use super::issued;
use super::reach::Reachability;

/// The result of a check.
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
    /// The cloud was asked and did not accept, or did not answer.
    Refused(Error),
    /// STS issued no key: it refused, or did not answer.
    NotIssued {
        /// The field of the spec.
        field: &'static str,
        /// What STS said.
        error: Box<Error>,
    },
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
            Self::NotIssued { error, .. } => is_stalled(error),
        }
    }

    /// The error of STS, if it was asked and did not accept.
    #[must_use]
    pub fn error(&self) -> Option<&Error> {
        match self {
            Self::Refused(error) => Some(error),
            Self::NotIssued { error, .. } => Some(error.as_ref()),
            Self::Accepted(_) | Self::NoCredentials { .. } | Self::Unknown(_) => None,
        }
    }

    /// When it is tried again, unless the credentials were accepted.
    pub(super) fn retry(&self) -> Retry {
        match self {
            Self::Refused(error) if error.is_clock_error() => CLOCK_RETRY,
            Self::Refused(error) => error.class().retry(),
            Self::NotIssued { .. } => issued::RETRY,
            Self::Accepted(_) | Self::NoCredentials { .. } | Self::Unknown(_) => {
                Class::Transient.retry()
            }
        }
    }

    fn explain_refusal(&self, error: &Error, docs: Option<&DocsUrl>) -> (String, String) {
        let reason = if self.is_stalled() || error.is_clock_error() {
            error.reason()
        } else {
            reason::RETRYING.to_owned()
        };
        let message = format!(
            "{}; {}; {}{}",
            // The cloud's sentence goes on here.
            error.to_string().trim_end_matches('.'),
            error.hint(),
            self.retry(),
            docs.map(|docs| docs.end_for(error, error.class()))
                .unwrap_or_default()
        );
        (reason, message)
    }

    /// Condition reason and message. It ends with a link to the documentation, if there is one for the error.
    #[must_use]
    pub fn explain(&self, docs: Option<&DocsUrl>) -> (String, String) {
        match self {
            Self::Accepted(identity) => (
                reason::CREDENTIALS_ACCEPTED.to_owned(),
                format!("authenticated as {}", identity.arn),
            ),
            Self::NoCredentials { reason, message } => ((*reason).to_owned(), message.clone()),
            Self::Refused(error) => self.explain_refusal(error, docs),
            Self::NotIssued { field, error } => {
                let (reason, message) = self.explain_refusal(error, docs);
                (reason, format!("{field}: {message}"))
            }
            Self::Unknown(message) => (reason::RETRYING.to_owned(), message.clone()),
        }
    }
}

/// Whether somebody must act before the cloud can take the credentials. A clock is put right by itself as a rule, and while it
/// is wrong nothing is known to have changed: objects keep what they say.
pub(super) fn is_stalled(error: &Error) -> bool {
    match error.class() {
        Class::Blocked | Class::Invalid | Class::Absent => !error.is_clock_error(),
        Class::Done | Class::Transitional | Class::Transient | Class::Throttled => false,
    }
}

/// The clock may be right at any moment, and until then no account does anything.
const CLOCK_RETRY: Retry = Retry {
    first: Duration::from_secs(60),
    factor: 1.0,
    cap: Duration::from_secs(60),
};

/// Whether two statuses say the same, since whenever and with whichever issued key: two operators that share an account have each their
/// own, and would write them in turn for ever.
pub(super) fn same_meaning(one: &CloudAccountStatus, other: &CloudAccountStatus) -> bool {
    let timeless = |status: &CloudAccountStatus| {
        let mut status = status.clone();
        for condition in &mut status.conditions {
            condition.last_transition_time = Time(Timestamp::UNIX_EPOCH);
        }
        status.credential_expiry = None;
        status
    };
    timeless(one) == timeless(other)
}

/// What a check adds to what an account says.
#[derive(Debug)]
pub struct Observation<'a> {
    /// What the check found; none where everything is as it was.
    pub result: Option<&'a CheckResult>,
    /// Whether the last result holds for the spec as it is now, if this check has none.
    pub stands: bool,
    /// Whether the endpoints answer; none where that is as it was.
    pub reachability: Option<Reachability>,
    /// The request to look now that has been acted on.
    pub handled: Option<String>,
    /// When the key that was issued for the account ends, in seconds since 1970.
    pub expires: Option<i64>,
    /// The number of memberships to tell.
    pub memberships: Option<i64>,
    /// The memberships that keep the account, if it is being deleted; none where that is not known.
    pub kept_by: Option<usize>,
    /// Where the documentation is, for messages.
    pub docs_url: Option<&'a DocsUrl>,
}

/// The status after a check.
#[must_use]
pub fn status(
    previous: &CloudAccountStatus,
    generation: Option<i64>,
    observation: Observation<'_>,
    now: Timestamp,
) -> CloudAccountStatus {
    let mut next = observation.result.map_or_else(
        || previous.clone(),
        |result| after_result(previous, generation, result, observation.docs_url, now),
    );
    if observation.stands && next.observed_generation.is_some() {
        next.observed_generation = generation;
        for condition in &mut next.conditions {
            condition.observed_generation = generation;
        }
    }
    next.conditions
        .retain(|condition| condition.type_ != reason::REACHABLE);
    next.conditions.extend(reachable(
        previous,
        generation,
        observation.reachability,
        now,
    ));
    next.conditions
        .retain(|condition| condition.type_ != reason::IN_USE);
    next.conditions
        .extend(in_use(previous, generation, observation.kept_by, now));
    let expires = observation.expires.map(Timestamp::from_second);
    next.credential_expiry = expires.and_then(Result::ok).map(Time);
    next.memberships = observation.memberships;
    next.last_handled_reconcile_at = observation.handled;
    next
}

/// Why an account that is being deleted is still there, and the way out.
fn in_use(
    previous: &CloudAccountStatus,
    generation: Option<i64>,
    kept_by: Option<usize>,
    now: Timestamp,
) -> Option<Condition> {
    let count = kept_by.filter(|count| *count > 0)?;
    let condition = NewCondition {
        type_: reason::IN_USE,
        status: Status::True,
        reason: reason::IN_USE.to_owned(),
        message: format!(
            "memberships that the operator joined with this account: {count}; delete them, or set their spec.deletionPolicy to Retain; the account goes when none is left"
        ),
    };
    condition::merge(&previous.conditions, vec![condition], generation, now).pop()
}

fn after_result(
    previous: &CloudAccountStatus,
    generation: Option<i64>,
    result: &CheckResult,
    docs: Option<&DocsUrl>,
    now: Timestamp,
) -> CloudAccountStatus {
    let (reason, message) = result.explain(docs);
    let condition = |type_, status| NewCondition {
        type_,
        status,
        reason: reason.clone(),
        message: message.clone(),
    };
    let (account_uid, arn, conditions) = match result {
        CheckResult::Accepted(identity) => (
            Some(identity.account_uid.as_str().to_owned()),
            Some(identity.arn.clone()),
            vec![condition(reason::READY, Status::True)],
        ),
        CheckResult::NoCredentials { .. }
        | CheckResult::Refused(_)
        | CheckResult::NotIssued { .. }
        | CheckResult::Unknown(_) => (
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
    CloudAccountStatus {
        observed_generation: generation,
        conditions: condition::merge(&previous.conditions, conditions, generation, now),
        account_uid,
        arn,
        credential_expiry: None,
        memberships: None,
        last_handled_reconcile_at: None,
    }
}

/// The Reachable condition; none before the first answer. While it is False it says what failed first: every later failure may
/// differ in words, and would be one more write.
fn reachable(
    previous: &CloudAccountStatus,
    generation: Option<i64>,
    reachability: Option<Reachability>,
    now: Timestamp,
) -> Option<Condition> {
    let before = condition::find(&previous.conditions, reason::REACHABLE);
    let is_false = |before: &&Condition| before.status == Status::False.as_str();
    let stands = before.filter(|before| before.observed_generation == generation);
    let stands = stands.filter(is_false);
    let (status, reason, message) = match reachability {
        None => return before.cloned(),
        Some(Reachability::NoAnswer { .. }) if stands.is_some() => return stands.cloned(),
        // Endpoints that answer again: the next scan reads the targets.
        Some(Reachability::NotObserved) if before.as_ref().is_some_and(is_false) => {
            return before.cloned();
        }
        Some(Reachability::Answering) => (
            Status::True,
            reason::ANSWERING,
            "the account's endpoints answer".to_owned(),
        ),
        Some(Reachability::NoAnswer { message }) => (Status::False, reason::NO_ANSWER, message),
        Some(Reachability::NotObserved) => (
            Status::False,
            reason::NOT_OBSERVED,
            "some targets of this account have not been read for three scan periods; the operator's log names the cause"
                .to_owned(),
        ),
    };
    let condition = NewCondition {
        type_: reason::REACHABLE,
        status,
        reason: reason.to_owned(),
        message,
    };
    condition::merge(&previous.conditions, vec![condition], generation, now).pop()
}

/// The conditions whose change is worth an event: Ready with another status or reason, Reachable when it is lost or found
/// again, and `InUse` when it appears.
#[must_use]
pub fn transitions<'a>(
    previous: &CloudAccountStatus,
    next: &'a CloudAccountStatus,
) -> Vec<&'a Condition> {
    let changed = |type_| {
        let after = condition::find(&next.conditions, type_)?;
        let before = condition::find(&previous.conditions, type_);
        let same =
            |before: &Condition| before.status == after.status && before.reason == after.reason;
        (!before.is_some_and(same)).then_some((before, after))
    };
    let ready = changed(reason::READY)
        .map(|(_, ready)| ready)
        .filter(|ready| ready.status != Status::Unknown.as_str());
    // The first answer is no news: Ready tells it.
    let reachable = changed(reason::REACHABLE)
        .filter(|(before, after)| before.is_some() || after.status == Status::False.as_str())
        .map(|(_, reachable)| reachable);
    let in_use = changed(reason::IN_USE).map(|(_, in_use)| in_use);
    ready.into_iter().chain(reachable).chain(in_use).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn accepted() -> CheckResult {
        CheckResult::Accepted(Identity {
            account_uid: "1".into(),
            arn: "acs:ram::1:user/operator".to_owned(),
        })
    }

    fn observation(
        result: Option<&CheckResult>,
        reachability: Option<Reachability>,
    ) -> Observation<'_> {
        Observation {
            result,
            stands: false,
            reachability,
            handled: None,
            expires: None,
            memberships: None,
            kept_by: None,
            docs_url: None,
        }
    }

    fn no_answer(message: &str) -> Reachability {
        let message = message.to_owned();
        Reachability::NoAnswer { message }
    }

    fn reasons(conditions: &[&Condition]) -> Vec<(String, String)> {
        let pair = |condition: &&Condition| (condition.status.clone(), condition.reason.clone());
        conditions.iter().map(pair).collect()
    }

    fn pair(status: &str, reason: &str) -> Vec<(String, String)> {
        vec![(status.to_owned(), reason.to_owned())]
    }

    #[test]
    fn reachable_is_lost_and_found_without_touching_ready() {
        let fresh = CloudAccountStatus::default();
        let result = accepted();
        let answering = Some(Reachability::Answering);
        let first = status(
            &fresh,
            Some(1),
            observation(Some(&result), answering.clone()),
            at(10),
        );
        let ready = condition::find(&first.conditions, reason::READY).unwrap();
        assert_eq!(ready.message, "authenticated as acs:ram::1:user/operator");
        assert_eq!(
            reasons(&transitions(&fresh, &first)),
            pair("True", "CredentialsAccepted")
        );
        let same = status(&first, Some(1), observation(None, None), at(20));
        assert_eq!(same, first);

        let lost = status(
            &first,
            Some(1),
            observation(None, Some(no_answer("a"))),
            at(30),
        );
        assert_eq!(
            condition::find(&lost.conditions, reason::READY),
            Some(ready)
        );
        assert_eq!(
            reasons(&transitions(&first, &lost)),
            pair("False", "NoAnswer")
        );
        let still = status(
            &lost,
            Some(1),
            observation(None, Some(no_answer("b"))),
            at(40),
        );
        assert_eq!(still, lost, "no write for every failure");
        let found = status(&lost, Some(1), observation(None, answering), at(50));
        assert_eq!(
            reasons(&transitions(&lost, &found)),
            pair("True", "Answering")
        );
        let reachable = condition::find(&found.conditions, reason::REACHABLE).unwrap();
        assert_eq!(reachable.last_transition_time.0, at(50));
    }

    #[test]
    fn refusal_ends_with_a_link_where_the_documentation_is_known() {
        let docs = DocsUrl::parse("https://docs.example.com").unwrap();
        let message = |code| {
            let error = crate::ecs::ApiError::of(crate::ecs::Action::GetCallerIdentity, 404, code);
            CheckResult::Refused(Error::Api(error))
                .explain(Some(&docs))
                .1
        };
        let unknown_key = message("InvalidAccessKeyId.NotFound");
        let end = "; see https://docs.example.com/reference/errors.html#invalidaccesskeyidnotfound";
        assert!(unknown_key.ends_with(end), "{unknown_key}");
        let waits = message("Throttling.User");
        assert!(!waits.contains("docs.example.com"), "{waits}");
    }

    #[test]
    fn key_that_is_not_issued_says_when_it_is_asked_for_again() {
        let code = "NoPermission";
        let error = crate::ecs::ApiError::of(crate::ecs::Action::AssumeRole, 403, code);
        let field = "spec.credentials.assumeRole";
        let error = Box::new(Error::Api(error));
        let (_, message) = CheckResult::NotIssued { field, error }.explain(None);
        assert!(message.starts_with(field), "{message}");
        let end = "; next try in 5s (backs off to 5m)";
        assert!(message.ends_with(end), "{message}");
    }

    #[test]
    fn failure_says_cause_fix_and_when_it_is_tried_again() {
        let error = crate::ecs::Error::BadAnswer {
            action: crate::ecs::Action::GetCallerIdentity,
            status: 502,
            what: "it is empty".to_owned(),
        };
        let expected = format!("{error}; {}; {}", error.hint(), error.class().retry());
        let result = CheckResult::Refused(error);
        assert_eq!(result.explain(None), ("Retrying".to_owned(), expected));
        let fresh = CloudAccountStatus::default();
        let next = status(&fresh, Some(1), observation(Some(&result), None), at(1));
        assert_eq!(
            reasons(&transitions(&fresh, &next)),
            pair("False", "Retrying")
        );
        assert!(condition::find(&next.conditions, reason::REACHABLE).is_none());
    }
}
