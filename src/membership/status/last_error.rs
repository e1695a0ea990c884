//! The last error, as the status shows it. Pure.

use k8s_openapi::jiff::Timestamp;

use crate::api::membership::{ErrorClass, LastError};
use crate::condition;
use crate::ecs::{Class, Error};

pub(super) fn last_error(failure: &Error, class: Class, now: Timestamp) -> LastError {
    let (code, request_id, message, access_denied_detail) = match failure {
        Error::Api(api) => (
            Some(api.code.clone()),
            api.request_id.as_ref().map(ToString::to_string),
            api.message.clone(),
            api.access_denied_detail.as_deref().map(str::to_owned),
        ),
        Error::Transport { .. } | Error::BadAnswer { .. } | Error::BadRow { .. } => (
            None,
            None,
            condition::truncate(&failure.to_string(), ERROR_LIMIT),
            None,
        ),
    };
    LastError {
        action: failure.action().to_string(),
        code,
        class: error_class(class),
        request_id,
        time: condition::whole_seconds(now),
        message,
        access_denied_detail,
    }
}

/// Longest message of `lastError` that the schema allows, in bytes. The cloud's sentence is shorter, but the cause of a lost
/// connection may list all names of a certificate.
const ERROR_LIMIT: usize = 2048;

/// The class as the status spells it. `Done` is no failure and does not occur.
const fn error_class(class: Class) -> ErrorClass {
    match class {
        Class::Transitional => ErrorClass::Transitional,
        Class::Done | Class::Transient => ErrorClass::Transient,
        Class::Throttled => ErrorClass::Throttled,
        Class::Absent => ErrorClass::Absent,
        Class::Blocked => ErrorClass::Blocked,
        Class::Invalid => ErrorClass::Invalid,
    }
}
