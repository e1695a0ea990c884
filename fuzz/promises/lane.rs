//! The limiter under any order of calls, any headers and a clock that stands still, jumps ahead or repeats itself: nobody spins,
//! nobody waits for ever, and the limit stays a number.
//!
//! Input: steps of four bytes: what happens, who, and two for how long or how much.

use std::collections::BTreeSet;
use std::time::Duration;

use security_group_operator::ecs::limit::Priority;
use security_group_operator::ecs::limit::lane::{Lane, Outcome, WINDOW};
use tokio::time::Instant;

/// Steps: enough for several windows, few enough to be fast.
const STEPS: usize = 400;

pub fn hold(bytes: &[u8]) {
    let start = Instant::now();
    let mut now = start;
    let mut lane = Lane::new(start);
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
                match lane.admit(now, priority, name) {
                    Ok(()) => {
                        waiting.remove(&who);
                    }
                    Err(until) => {
                        assert!(until > now, "who waits is told a later moment");
                        assert_reasonable(until - now, &lane, waiting.len());
                        waiting.insert(who);
                    }
                }
            }
            4 | 5 => lane.note(now, Outcome::Admitted, WINDOW),
            _ => {
                let throttled = Outcome::Throttled {
                    retry_after: (who & 1 == 1)
                        .then(|| Duration::from_millis(u64::from(much)) * 3_600),
                    limit: (who & 2 == 2).then(|| u32::from(much) * (u32::from(who) + 1)),
                };
                lane.note(now, throttled, Duration::from_secs(u64::from(much % 61)));
                let stopped = lane.stopped(now).expect("a throttle stops the lane");
                assert!(
                    stopped > now && stopped <= now + WINDOW,
                    "{:?}",
                    stopped - now
                );
            }
        }
        if let Some(limit) = lane.limit() {
            assert!(limit.is_finite() && limit >= 1.0, "{limit}");
        }
    }
    ends(&mut lane, now);
}

/// Whatever came before: whoever comes back when told is let through within some hours (at one call a minute, those before it
/// take a minute each, and each may ask half-way again).
fn ends(lane: &mut Lane, mut now: Instant) {
    for _ in 0..2_000 {
        match lane.admit(now, Priority::User, Some("the last")) {
            Ok(()) => return,
            Err(until) => now = until,
        }
    }
    panic!("the last one waits for ever: {lane:?}");
}

fn assert_reasonable(wait: Duration, lane: &Lane, waiting: usize) {
    let limit = lane.limit().unwrap_or(1.0);
    #[allow(clippy::cast_precision_loss, reason = "at most 256 wait")]
    let windows = 3.0 + 2.0 * STEPS as f64 / limit + waiting as f64;
    assert!(
        wait.as_secs_f64() <= windows * WINDOW.as_secs_f64(),
        "{wait:?} at {limit} a minute: {lane:?}"
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
