//! The limiter under any order of calls, any headers and a clock that stands still, jumps ahead or repeats itself: nobody spins,
//! nobody waits for ever, and the limit stays a number.
//!
//! Input: steps of four bytes: what happens, who, and two for how long or how much.

use std::collections::BTreeSet;
use std::time::Duration;

use security_group_operator::ecs::limit::Priority;
use security_group_operator::ecs::limit::window::{CallOutcome, WINDOW, WindowLimiter};
use tokio::time::Instant;

/// Steps: enough for several windows, few enough to be fast.
const STEPS: usize = 400;

pub fn hold(bytes: &[u8]) {
    let start = Instant::now();
    let mut now = start;
    let mut limiter = WindowLimiter::new(start);
    let mut waiting = BTreeSet::new();
    for step in bytes.chunks_exact(4).take(STEPS) {
        let &[what, who, high, low] = step else {
            return;
        };
        let much = u16::from_be_bytes([high, low]);
        now += pause(what, much);
        match what % 8 {
            0..=3 => {
                let priority = match who % 3 {
                    0 => Priority::User,
                    1 => Priority::Repair,
                    _ => Priority::Scan,
                };
                let name = format!("object-{}", who / 3);
                let name = (priority != Priority::Scan).then_some(name.as_str());
                match limiter.admit(now, priority, name) {
                    Ok(()) => {
                        waiting.remove(&who);
                    }
                    Err(until) => {
                        assert!(until > now, "who waits is told a later moment");
                        assert_reasonable(until - now, &limiter, waiting.len());
                        waiting.insert(who);
                    }
                }
            }
            4 | 5 => limiter.note(now, CallOutcome::Admitted, WINDOW),
            _ => {
                let throttled = CallOutcome::Throttled {
                    retry_after: (who & 1 == 1)
                        .then(|| Duration::from_millis(u64::from(much)) * 3_600),
                    limit: (who & 2 == 2).then(|| u32::from(much) * (u32::from(who) + 1)),
                };
                limiter.note(now, throttled, Duration::from_secs(u64::from(much % 61)));
                let stopped = limiter.stopped(now).expect("a throttle stops the limiter");
                assert!(
                    stopped > now && stopped <= now + WINDOW,
                    "{:?}",
                    stopped - now
                );
            }
        }
        if let Some(limit) = limiter.limit() {
            assert!(limit.is_finite() && limit >= 1.0, "{limit}");
        }
    }
    ends(&mut limiter, now);
}

/// Whatever came before: whoever comes back when told is let through within some hours (at one call a minute, those before it
/// take a minute each, and each may ask half-way again).
fn ends(limiter: &mut WindowLimiter, mut now: Instant) {
    for _ in 0..2_000 {
        match limiter.admit(now, Priority::User, Some("the last")) {
            Ok(()) => return,
            Err(until) => now = until,
        }
    }
    panic!("the last one waits for ever: {limiter:?}");
}

fn assert_reasonable(wait: Duration, limiter: &WindowLimiter, waiting: usize) {
    let limit = limiter.limit().unwrap_or(1.0);
    #[allow(clippy::cast_precision_loss, reason = "at most 256 wait")]
    let windows = 3.0 + 2.0 * STEPS as f64 / limit + waiting as f64;
    assert!(
        wait.as_secs_f64() <= windows * WINDOW.as_secs_f64(),
        "{wait:?} at {limit} a minute: {limiter:?}"
    );
}

fn pause(what: u8, much: u16) -> Duration {
    match what / 8 % 4 {
        0 => Duration::ZERO,
        1 => Duration::from_millis(u64::from(much) / 16),
        2 => Duration::from_millis(u64::from(much)),
        // A machine that slept: up to two days.
        _ => Duration::from_secs(u64::from(much) * 3),
    }
}
