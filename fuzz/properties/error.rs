//! The error table: a code means one thing, and only a code that is known means more than "try again".
//!
//! Input: a byte that picks action and status, the code, `0x0a`, the message.

use std::time::Duration;

use futures::executor::block_on;
use security_group_operator::ecs::limit::{CallLimiter, Priority};
use security_group_operator::ecs::{Action, ApiError, Class, Error, error_table};

use super::{assert_printable, assert_reason};

const ACTIONS: [Action; 5] = [
    Action::JoinSecurityGroup,
    Action::LeaveSecurityGroup,
    Action::DescribeInstances,
    Action::DescribeNetworkInterfaces,
    Action::GetCallerIdentity,
];
const STATUSES: [u16; 9] = [200, 400, 401, 403, 404, 409, 500, 503, 504];

pub fn hold(bytes: &[u8]) {
    let Some((pick, text)) = bytes.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(text);
    let (code, message) = text.split_once('\n').unwrap_or((&text, ""));
    let action = ACTIONS[usize::from(*pick) % ACTIONS.len()];
    let status = STATUSES[usize::from(*pick) / ACTIONS.len() % STATUSES.len()];
    let classify = error_table::classify(action, status, code, message);

    if !classify.known {
        assert_eq!(classify.class, Class::Transient, "{code}");
    }
    if status >= 500 {
        assert!(
            matches!(classify.class, Class::Transient | Class::Throttled),
            "{code}"
        );
    }
    if code != "InvalidParameter" {
        let silent = error_table::classify(action, status, code, "");
        assert_eq!(classify, silent, "a message is not to be matched on");
    }
    // What says that something is not there, or that all is done, is a code as the vendor spells it.
    if matches!(classify.class, Class::Done | Class::Absent) {
        assert!(
            code.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'.'),
            "{code:?}"
        );
    }
    if matches!(
        action,
        Action::DescribeInstances | Action::DescribeNetworkInterfaces
    ) {
        assert!(
            classify.class != Class::Done,
            "a read cannot be done already: {code}"
        );
    }
    assert_printable(classify.hint);
    assert!(classify.hint.len() > 20);

    let error = ApiError {
        action,
        status,
        code: code.to_owned(),
        message: message.to_owned(),
        request_id: None,
        access_denied_detail: None,
        retry_after: number(message).map(Duration::from_millis),
        limit: number(message).and_then(|number| u32::try_from(number).ok()),
    };
    assert_reason(&error.reason());
    let error = Error::from(error);
    assert_eq!(error.classify(), classify);
    assert!(!error.outcome_unknown() || action.is_write());
    assert!(
        !(error.may_be_one_bad_id() && matches!(classify.class, Class::Throttled)),
        "a throttle is never split"
    );
    waits(classify.class, number(message).unwrap_or(0));
    limiter(action, &error);
}

/// The waits of a class never shrink and have an end.
fn waits(class: Class, failures: u64) {
    let failures = u32::try_from(failures).unwrap_or(u32::MAX);
    let retry = class.retry();
    let (this, next) = (
        retry.delay(failures),
        retry.delay(failures.saturating_add(1)),
    );
    assert!(this <= next && next <= retry.cap, "{class:?} {failures}");
}

/// Whatever the cloud says, nobody is told to stay away for longer than two windows, and only a throttle stops anybody.
fn limiter(action: Action, error: &Error) {
    let limiter = CallLimiter::default();
    let region = "cn-hangzhou".parse().unwrap();
    limiter.note(&region, action, Some(error));
    let now = tokio::time::Instant::now();
    match block_on(limiter.enter(&region, action, Priority::Pass)) {
        Ok(_) => assert!(error.class() != Class::Throttled, "{error:?}"),
        Err(until) => {
            assert_eq!(error.class(), Class::Throttled, "{error:?}");
            let wait = until.saturating_duration_since(now);
            assert!(wait <= Duration::from_secs(121), "{wait:?}");
        }
    }
}

fn number(text: &str) -> Option<u64> {
    let digits: String = text.chars().filter(char::is_ascii_digit).take(20).collect();
    digits.parse().ok()
}
