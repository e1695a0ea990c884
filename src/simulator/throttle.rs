//! One-minute windows per account, action and region, as the vendor's gateway counts: pure, `now` is an argument.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use super::error::{ErrorResponse, THROTTLING_USER};
use super::timeline::later;

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
        let end = Timestamp::from_second((minute + 1) * 60).unwrap_or(Timestamp::MAX);
        let left = end.duration_since(now).unsigned_abs();
        Err(throttled(Some(limit), left.max(ONE_MILLISECOND), now))
    }
}

const ONE_MILLISECOND: Duration = Duration::from_millis(1);

/// `Throttling.User` for so long. `x-ratelimit-user-api` is absent without a limit: a client that believes an invented one
/// calls as rarely as that says.
#[must_use]
pub fn throttled(limit: Option<u32>, left: Duration, now: Timestamp) -> ErrorResponse {
    let milliseconds = left.as_millis();
    let mut headers = vec![("x-acs-retry-after", milliseconds.to_string())];
    if let Some(limit) = limit {
        let reset = later(now, left).as_second();
        let value = format!("Limit:{limit},Remain:0,TimeLeft:{milliseconds},Reset:{reset}");
        headers.push(("x-ratelimit-user-api", value));
    }
    ErrorResponse {
        headers,
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
            refused.headers[1].1,
            "Limit:2,Remain:0,TimeLeft:1000,Reset:60"
        );
        assert_eq!(refused.headers[0], ("x-acs-retry-after", "1000".to_owned()));
        assert!(call("b", 59).is_ok());
        assert!(call("a", 60).is_ok());
    }
}
