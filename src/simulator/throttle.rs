//! One-minute windows per account, action and region, as the vendor's gateway counts: pure, `now` is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::error::{ErrorResponse, THROTTLING_USER};

/// Calls counted in the current windows.
#[derive(Clone, Debug, Default)]
pub struct Throttle {
    windows: HashMap<(String, String, String), Window>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Window {
    minute: i64,
    calls: u32,
}

impl Throttle {
    /// Counts a call, or rejects it with headers that name the time to retry. Rejected calls are not counted.
    ///
    /// # Errors
    /// `Throttling.User`.
    pub fn admit(
        &mut self,
        limits: &BTreeMap<String, u32>,
        account: &str,
        action: &str,
        region: &str,
        now: Timestamp,
    ) -> Result<(), ErrorResponse> {
        let Some(&limit) = limits.get(action) else {
            return Ok(());
        };
        let key = (account.to_owned(), action.to_owned(), region.to_owned());
        let minute = now.as_second().div_euclid(60);
        let window = self.windows.entry(key).or_default();
        if window.minute != minute {
            *window = Window { minute, calls: 0 };
        }
        if window.calls < limit {
            window.calls += 1;
            return Ok(());
        }
        Err(refusal(limit, minute, now))
    }
}

/// `Throttling.User` until the end of the minute.
fn refusal(limit: u32, minute: i64, now: Timestamp) -> ErrorResponse {
    let reset = (minute + 1) * 60;
    let left = (reset * 1_000 - now.as_millisecond()).max(1);
    throttled(limit, Duration::from_millis(left.unsigned_abs()), reset)
}

/// `Throttling.User` with the vendor's two headers.
#[must_use]
pub fn throttled(limit: u32, left: Duration, reset: i64) -> ErrorResponse {
    let left = left.as_millis();
    ErrorResponse {
        headers: vec![
            (
                "x-ratelimit-user-api",
                format!("Limit:{limit},Remain:0,TimeLeft:{left},Reset:{reset}"),
            ),
            ("x-acs-retry-after", left.to_string()),
        ],
        ..THROTTLING_USER.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_resets_each_minute_and_is_per_account() {
        let limits = BTreeMap::from([("JoinSecurityGroup".to_owned(), 2)]);
        let mut throttle = Throttle::default();
        let mut call = |account: &str, second: i64| {
            let now = Timestamp::from_second(second).unwrap();
            throttle.admit(&limits, account, "JoinSecurityGroup", "cn-hangzhou", now)
        };
        assert!(call("a", 58).is_ok() && call("a", 59).is_ok());
        let refused = call("a", 59).unwrap_err();
        assert_eq!((refused.status, &*refused.code), (400, "Throttling.User"));
        assert_eq!(
            refused.headers[0].1,
            "Limit:2,Remain:0,TimeLeft:1000,Reset:60"
        );
        assert_eq!(refused.headers[1], ("x-acs-retry-after", "1000".to_owned()));
        assert!(call("b", 59).is_ok());
        assert!(call("a", 60).is_ok());
    }
}
