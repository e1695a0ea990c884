//! All failures of a cloud call by name, and how to treat each. Pure; the codes are in `error_table`.

use std::time::Duration;

use super::action::Action;
use super::class::Class;
use super::error_table::{self, Classification};
use super::id::RequestId;
use super::transport::TransportError;

/// How a call failed. Its texts are redacted and may be shown to users.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The cloud answered with an error code.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The cloud did not answer.
    #[error("{action} got no answer: {source}")]
    Transport {
        /// The action called.
        action: Action,
        /// The transport's error.
        source: TransportError,
    },
    /// The answer is not a valid answer of the cloud: an HTML page, a truncated text, wrong types, IDs that were not asked
    /// for. It proves nothing about the target.
    #[error("{action} got an answer that cannot be used (HTTP {status}): {what}")]
    BadAnswer {
        /// The action called.
        action: Action,
        /// HTTP status.
        status: u16,
        /// The problem with the answer.
        what: String,
    },
    /// A valid answer with an unreadable row. It proves nothing about any target of the call.
    #[error("{action} answered with a row that cannot be read: {what}")]
    BadRow {
        /// The action called.
        action: Action,
        /// The problem with the row.
        what: String,
    },
}

/// An error code of the cloud and the rest of the error answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct ApiError {
    /// The action called.
    pub action: Action,
    /// HTTP status. Never decides alone: throttling has 400, an unknown access key 404.
    pub status: u16,
    /// The code as the cloud spells it.
    pub code: String,
    /// The cloud's message, without secrets, at most 1 KiB.
    pub message: String,
    /// ID of the call, for the vendor's support.
    pub request_id: Option<RequestId>,
    /// The missing permission, if the cloud names it: `key=value` pairs without secrets.
    pub access_denied_detail: Option<Box<str>>,
    /// The wait that the cloud asks for.
    pub retry_after: Option<Duration>,
    /// For a throttle: the account's limit of this API in calls per minute, if the cloud names it.
    pub limit: Option<u32>,
}

impl Error {
    /// The action called.
    #[must_use]
    pub fn action(&self) -> Action {
        match self {
            Self::Api(error) => error.action,
            Self::Transport { action, .. }
            | Self::BadAnswer { action, .. }
            | Self::BadRow { action, .. } => *action,
        }
    }

    /// The cloud's error code, if it answered with one.
    #[must_use]
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Api(error) => Some(&error.code),
            Self::Transport { .. } | Self::BadAnswer { .. } | Self::BadRow { .. } => None,
        }
    }

    /// The ID of the call, if the cloud answered with an error that names it.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        match self {
            Self::Api(error) => error.request_id.as_ref().map(RequestId::as_str),
            Self::Transport { .. } | Self::BadAnswer { .. } | Self::BadRow { .. } => None,
        }
    }

    /// How the operator reacts to the error.
    #[must_use]
    pub fn class(&self) -> Class {
        self.classify().class
    }

    /// The next step for the user, in one sentence.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.classify().hint
    }

    /// The next step for the user while the object is being deleted: never advises to delete it.
    #[must_use]
    pub fn hint_while_deleting(&self) -> &'static str {
        error_table::without_recreation(self.hint())
    }

    /// Class, hint, and whether the code is known.
    #[must_use]
    pub fn classify(&self) -> Classification {
        match self {
            Self::Api(error) => error.classify(),
            Self::Transport { action, source } => Classification {
                class: Class::Transient,
                known: true,
                code: None,
                hint: match (action, source) {
                    // The host is derived from the region unless the account sets an endpoint.
                    (
                        Action::JoinSecurityGroup
                        | Action::LeaveSecurityGroup
                        | Action::DescribeInstances
                        | Action::DescribeNetworkInterfaces,
                        TransportError::Connect { .. } | TransportError::NotTried { .. },
                    ) => {
                        "check spec.region, and that the operator's pod reaches the endpoint of that region"
                    }
                    _ => "check that the operator's pod reaches the cloud's endpoint",
                },
            },
            Self::BadAnswer { .. } | Self::BadRow { .. } => Classification {
                class: Class::Transient,
                known: true,
                code: None,
                hint: "check that the account's endpoint is the cloud itself and no proxy stands in between",
            },
        }
    }

    /// The code, if the table has it, for a metric: no text that another has written. `other` for an unknown one, `NoAnswer` or
    /// `BadAnswer` without a usable answer.
    #[must_use]
    pub fn known_code(&self) -> &'static str {
        match self {
            Self::Api(error) => error.classify().code.unwrap_or("other"),
            Self::Transport { .. } => "NoAnswer",
            Self::BadAnswer { .. } | Self::BadRow { .. } => "BadAnswer",
        }
    }

    /// Whether the requested change may have been made despite the error: read before the next step.
    #[must_use]
    pub fn outcome_unknown(&self) -> bool {
        self.action().is_write()
            && match self {
                Self::Api(error) => error.outcome_unknown(),
                Self::Transport { source, .. } => source.may_have_arrived(),
                Self::BadAnswer { .. } | Self::BadRow { .. } => true,
            }
    }

    /// Whether the cloud itself has answered. A refusal is an answer, too; a page of something in between is none.
    #[must_use]
    pub fn is_usable_answer(&self) -> bool {
        match self {
            Self::Api(_) | Self::BadRow { .. } => true,
            Self::Transport { source, .. } => matches!(source, TransportError::NoRoom { .. }),
            Self::BadAnswer { .. } => false,
        }
    }

    /// Whether the cloud refuses with a code that this version does not know: a 4xx, which hardly passes by itself.
    #[must_use]
    pub fn is_unknown_refusal(&self) -> bool {
        match self {
            Self::Api(error) => (400..500).contains(&error.status) && !error.classify().known,
            Self::Transport { .. } | Self::BadAnswer { .. } | Self::BadRow { .. } => false,
        }
    }

    /// Whether the answer would have been usable, but for its size: fewer IDs may be read.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        match self {
            Self::Transport { source, .. } => source.is_too_large(),
            Self::Api(_) | Self::BadAnswer { .. } | Self::BadRow { .. } => false,
        }
    }

    /// Whether one of several requested IDs may have caused the error; then the others are read without it. False for a
    /// throttle, a server error or no answer.
    #[must_use]
    pub fn may_be_one_bad_id(&self) -> bool {
        match self {
            Self::Api(error) => ONE_ID.contains(&error.code.as_str()),
            Self::BadRow { .. } => true,
            Self::Transport { .. } | Self::BadAnswer { .. } => false,
        }
    }

    /// Whether the cloud rejects the access key: unknown, disabled, expired, or its signature is wrong.
    #[must_use]
    pub fn is_credential_error(&self) -> bool {
        match self {
            Self::Api(error) => {
                KEY.contains(&error_table::normalize_code(&error.code, &error.message))
            }
            Self::Transport { .. } | Self::BadAnswer { .. } | Self::BadRow { .. } => false,
        }
    }

    /// Whether the cloud finds the time of the request wrong. That says nothing of the target or the key: the clock of this
    /// process is off, and every call of every account fails in the same way.
    #[must_use]
    pub fn is_clock_error(&self) -> bool {
        match self {
            Self::Api(error) => CLOCK.contains(&error.code.as_str()),
            Self::Transport { .. } | Self::BadAnswer { .. } | Self::BadRow { .. } => false,
        }
    }

    /// The wait that the cloud asks for.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Api(error) => error.retry_after,
            Self::Transport { .. } | Self::BadAnswer { .. } | Self::BadRow { .. } => None,
        }
    }

    /// The limit of the throttled API in calls per minute, if the cloud names it.
    #[must_use]
    pub fn limit(&self) -> Option<u32> {
        match self {
            Self::Api(error) => error.limit,
            Self::Transport { .. } | Self::BadAnswer { .. } | Self::BadRow { .. } => None,
        }
    }

    /// The condition reason: the code without its dots, or `NoAnswer`, `BadAnswer`.
    #[must_use]
    pub fn reason(&self) -> String {
        match self {
            Self::Api(error) => error.reason(),
            Self::Transport { .. } => "NoAnswer".to_owned(),
            Self::BadAnswer { .. } | Self::BadRow { .. } => "BadAnswer".to_owned(),
        }
    }
}

impl ApiError {
    /// The table's entry for the code and action.
    #[must_use]
    pub fn classify(&self) -> Classification {
        error_table::classify(self.action, self.status, &self.code, &self.message)
    }

    /// The code as a condition reason, which holds only letters, digits and `_` and starts with a letter.
    #[must_use]
    pub fn reason(&self) -> String {
        let reason: String = self
            .code
            .chars()
            .filter(|letter| letter.is_ascii_alphanumeric() || *letter == '_')
            .skip_while(|letter| !letter.is_ascii_alphabetic())
            .take(REASON_LIMIT)
            .collect();
        if reason.is_empty() {
            "CloudError".to_owned()
        } else {
            reason
        }
    }

    /// A 5xx may follow a completed change (504 `RequestTimeout` is documented so for Leave). A "used" nonce means that a
    /// proxy sent the request twice: the first copy may have succeeded.
    fn outcome_unknown(&self) -> bool {
        (self.status >= 500 && self.classify().class != Class::Throttled)
            || self.code == "SignatureNonceUsed"
    }
}

/// Codes with which Describe may answer one malformed or unknown ID among 100. The vendor documents one for `DescribeSecurityGroups`
/// (`InvalidSecurityGroupId.Malformed`) and none for targets; the others are the codes of sibling actions.
const ONE_ID: [&str; 9] = [
    "InvalidInstanceId.Malformed",
    "InvalidInstanceIds.Malformed",
    "InvalidInstanceId.NotFound",
    "InvalidEniId.NotFound",
    "InvalidEniId.Malformed",
    "InvalidParams.EniId",
    "InvalidParam.Malformed",
    "InvalidSecurityGroupId.Malformed",
    "InvalidSecurityGroupId.NotFound",
];

/// Codes that reject the account's key, for any action.
const KEY: [&str; 9] = [
    "InvalidAccessKeyId.NotFound",
    "InvalidAccessKeyId.Inactive",
    "Forbidden.AccessKeyDisabled",
    "SignatureDoesNotMatch",
    "IncompleteSignature",
    "InvalidSecurityToken.Expired",
    "InvalidSecurityToken.Malformed",
    "InvalidSecurityToken.MismatchWithAccessKey",
    "MissingSecurityToken",
];

/// Codes for a request whose time differs from the cloud's by more than 15 minutes.
const CLOCK: [&str; 2] = ["InvalidTimeStamp.Expired", "IllegalTimestamp"];

/// In characters. Kubernetes allows 1,024, but the reason is a column of `kubectl get`.
const REASON_LIMIT: usize = 100;

impl ApiError {
    /// A refusal with this code that was seen to come, so that no call was made.
    #[must_use]
    pub fn foreseen(action: Action, code: &str) -> Self {
        Self {
            action,
            status: 403,
            code: code.to_owned(),
            message: String::new(),
            request_id: None,
            access_denied_detail: None,
            retry_after: None,
            limit: None,
        }
    }

    /// An answer with nothing but a code.
    #[cfg(test)]
    pub(crate) fn of(action: Action, status: u16, code: &str) -> Self {
        Self {
            status,
            ..Self::foreseen(action, code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn api(action: Action, status: u16, code: &str) -> ApiError {
        ApiError::of(action, status, code)
    }

    #[test]
    fn every_error_kind_has_class_reason_and_message() {
        let action = Action::LeaveSecurityGroup;
        let throttled = ApiError {
            message: "Slow down.".to_owned(),
            retry_after: Some(Duration::from_secs(7)),
            limit: Some(600),
            ..api(action, 400, "Throttling.User")
        };
        let malformed = api(action, 400, "InvalidInstanceId.Malformed");
        let source = TransportError::TooLarge { limit: 9 };
        let (status, what) = (200, "it is empty".to_owned());
        let seven = Some(Duration::from_secs(7));
        #[rustfmt::skip]
        let ways = [
            (Error::from(throttled), Class::Throttled, "ThrottlingUser", "Throttling.User: Slow down.", false, seven, Some(600)),
            (malformed.into(), Class::Invalid, "InvalidInstanceIdMalformed", "InvalidInstanceId.Malformed: ", true, None, None),
            (Error::Transport { action, source }, Class::Transient, "NoAnswer",
                "LeaveSecurityGroup got no answer: the answer is larger than 9 bytes", false, None, None),
            (Error::BadAnswer { action, status, what: what.clone() }, Class::Transient, "BadAnswer",
                "LeaveSecurityGroup got an answer that cannot be used (HTTP 200): it is empty", false, None, None),
            (Error::BadRow { action, what }, Class::Transient, "BadAnswer",
                "LeaveSecurityGroup answered with a row that cannot be read: it is empty", true, None, None),
        ];
        for (error, class, reason, text, one_id, retry_after, limit) in ways {
            assert_eq!(error.action(), action, "{text}");
            assert_eq!(
                (error.class(), error.classify().known),
                (class, true),
                "{text}"
            );
            assert_eq!(error.reason(), reason);
            assert_eq!(error.to_string(), text);
            assert_eq!(error.may_be_one_bad_id(), one_id, "{text}");
            assert_eq!(
                (error.retry_after(), error.limit()),
                (retry_after, limit),
                "{text}"
            );
            assert_eq!(error.hint(), error.classify().hint);
            assert!(error.hint().split(' ').count() > 3, "{}", error.hint());
        }
    }

    #[test]
    fn only_credential_codes_blame_the_key() {
        let blamed = |code: &str, message: &str| {
            let message = message.to_owned();
            let error = ApiError {
                message,
                ..api(Action::DescribeInstances, 404, code)
            };
            assert_eq!(
                error.classify().class == Class::Blocked,
                error.classify().known
            );
            Error::from(error).is_credential_error()
        };
        for code in KEY {
            assert!(blamed(code, ""), "{code}");
        }
        assert!(blamed(
            "InvalidParameter",
            "\"SecurityToken.Expired\" is not valid"
        ));
        for code in [
            "Forbidden.RAM",
            "InstanceLastSecurityGroup",
            "Newly.Invented",
        ]
        .into_iter()
        .chain(CLOCK)
        {
            assert!(!blamed(code, ""), "{code}");
        }
    }

    #[test]
    fn clock_is_blamed_for_late_requests_only() {
        let blames = |code| {
            let error = api(Action::JoinSecurityGroup, 400, code);
            Error::from(error).is_clock_error()
        };
        for code in CLOCK {
            assert!(blames(code), "{code}");
        }
        // The request was written wrongly.
        assert!(!blames("InvalidTimeStamp.Format"));
        assert!(!blames(KEY[0]));
    }

    #[test]
    fn condition_reason_is_always_valid() {
        let reason = |code| api(Action::JoinSecurityGroup, 400, code).reason();
        assert_eq!(
            reason("InvalidInstanceId.Mismatch"),
            "InvalidInstanceIdMismatch"
        );
        assert_eq!(reason("InternalError"), "InternalError");
        assert_eq!(reason("403.Not-Allowed"), "NotAllowed");
        for nothing in ["", "...", "403", "节点", "\u{202e}", "_1"] {
            assert_eq!(reason(nothing), "CloudError", "{nothing:?}");
        }
        assert_eq!(reason(&"x".repeat(5000)).len(), REASON_LIMIT);
    }

    #[test]
    fn outcome_is_unknown_unless_surely_without_effect() {
        let unknown =
            |action, status, code| Error::from(api(action, status, code)).outcome_unknown();
        for action in [Action::JoinSecurityGroup, Action::LeaveSecurityGroup] {
            assert!(unknown(action, 500, "InternalError"));
            assert!(unknown(action, 504, "RequestTimeout"));
            assert!(unknown(action, 400, "SignatureNonceUsed"));
            assert!(!unknown(action, 400, "Throttling.User"));
            assert!(!unknown(action, 503, "Throttling"));
            assert!(!unknown(action, 404, "InvalidInstanceId.NotFound"));
            assert!(!unknown(action, 409, "InvalidOperation.Conflict"));
        }
        assert!(!unknown(Action::DescribeInstances, 500, "InternalError"));
        for (source, expected) in [
            (
                TransportError::Connect {
                    cause: String::new(),
                },
                false,
            ),
            (
                TransportError::Timeout {
                    after: Duration::ZERO,
                },
                true,
            ),
            (TransportError::TooLarge { limit: 1 }, true),
            (
                TransportError::Interrupted {
                    cause: String::new(),
                },
                true,
            ),
        ] {
            let at = |action| {
                Error::Transport {
                    action,
                    source: source.clone(),
                }
                .outcome_unknown()
            };
            assert_eq!(at(Action::JoinSecurityGroup), expected, "{source:?}");
            assert!(!at(Action::DescribeNetworkInterfaces), "{source:?}");
        }
    }
}
