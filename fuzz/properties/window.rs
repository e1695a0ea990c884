//! The limiter under any order of calls, any headers and a clock that stands still, jumps ahead or repeats itself: no caller spins,
//! none waits for ever, the limit stays a number, and no minute has more calls than an account sets.
//!
//! Input: steps of four bytes: what happens, who, and two for how long or how much.

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
    let mut configured = None;
    let mut begun = Vec::new();
    for step in bytes.chunks_exact(4).take(STEPS) {
        let &[what, who, high, low] = step else {
            return;
        };
        let much = u16::from_be_bytes([high, low]);
        now += pause(what, much);
        match what % 8 {
            0..=3 => {
                let priority = match who % 3 {
                    0 | 1 => Priority::Pass,
                    _ => Priority::Scan,
                };
                if let Err(until) = limiter.admit(now, priority) {
                    assert!(until > now, "a refused caller gets a later time");
                    assert!(until <= now + WINDOW, "{:?}: {limiter:?}", until - now);
                } else if who >= 200 {
                    let window_end = limiter.window_end();
                    limiter.give_back(now, window_end, now);
                } else if let Some(most) = configured {
                    begun.push(now);
                    let last_minute = begun.iter().filter(|begun| now < **begun + WINDOW);
                    assert!(last_minute.count() <= most as usize, "{limiter:?}");
                }
            }
            5 if who >= 200 => {
                if configured.is_none() {
                    begun.clear();
                }
                configured = (who & 1 == 1).then_some(u32::from(much) + 1);
                limiter.configure(now, configured);
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

/// After any input, a caller that asks again at the returned time is admitted within four tries.
fn ends(limiter: &mut WindowLimiter, mut now: Instant) {
    for _ in 0..4 {
        match limiter.admit(now, Priority::Pass) {
            Ok(()) => return,
            Err(until) => now = until,
        }
    }
    panic!("the last one waits for ever: {limiter:?}");
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
