//! The limiter's arithmetic, to the call and the moment: who may go when, what is learned from what, and that no nonsense of the
//! cloud or of a clock changes more than one window.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

use std::time::Duration;

use security_group_operator::ecs::limit::Priority::{self, Pass, Scan};
use security_group_operator::ecs::limit::window::{CallOutcome, WINDOW, WindowLimiter};
use tokio::time::Instant;

/// A limiter whose limit the cloud has just named, and the moment at which its first window opens.
fn limited(limit: u32) -> (WindowLimiter, Instant) {
    let now = Instant::now();
    let mut limiter = WindowLimiter::new(now);
    limiter.note(now, throttled(Some(1_000), Some(limit)), WINDOW);
    (limiter, now + seconds(1.0))
}

fn throttled(milliseconds: Option<u64>, limit: Option<u32>) -> CallOutcome {
    CallOutcome::Throttled {
        retry_after: milliseconds.map(Duration::from_millis),
        limit,
    }
}

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Begins `calls` calls of a user, all at once.
fn burst(limiter: &mut WindowLimiter, now: Instant, calls: usize) {
    for call in 0..calls {
        assert_eq!(limiter.admit(now, Pass), Ok(()), "call {call}");
    }
}

/// Begins calls of nobody in particular until the next one must wait; how many, and from when on it may come.
fn fill(limiter: &mut WindowLimiter, now: Instant, priority: Priority) -> (u32, Instant) {
    let mut calls = 0;
    loop {
        match limiter.admit(now, priority) {
            Ok(()) => calls += 1,
            Err(until) => return (calls, until),
        }
        assert!(calls < 100_000, "there is a limit");
    }
}

/// Everybody who asks again when told, until `end`; how many were let through.
fn spend(limiter: &mut WindowLimiter, mut now: Instant, end: Instant, priority: Priority) -> u32 {
    let mut calls = 0;
    while now < end {
        let (more, until) = fill(limiter, now, priority);
        assert!(until > now, "nobody spins");
        calls += more;
        now = until;
    }
    calls
}

#[track_caller]
fn assert_at(until: Instant, from: Instant, after: f64) {
    let passed = until.duration_since(from).as_secs_f64();
    assert!(
        (passed - after).abs() < 1e-6,
        "{passed} s instead of {after} s"
    );
}

#[test]
fn burst_is_a_twentieth_and_the_rest_is_paced() {
    let (mut limiter, open) = limited(600);
    let (calls, next) = fill(&mut limiter, open, Pass);
    assert_eq!(calls, 30);
    // One call each 60 s / (600 × 1.02).
    assert_at(next, open, 60.0 / 612.0);
    assert_eq!(fill(&mut limiter, next, Pass).0, 1);
    let (calls, next) = fill(&mut limiter, open + seconds(30.0), Pass);
    assert_eq!(calls, 30 + 306 - 31);
    assert_at(next, open, 307.0 * 60.0 / 612.0);
    assert_eq!(spend(&mut limiter, next, open + WINDOW, Pass), 600 - 336);
    // Used up: nothing goes before the window ends; then the same again, and a higher limit is tried.
    let (calls, next) = fill(&mut limiter, open + seconds(59.9), Pass);
    assert_eq!(calls, 0);
    assert_at(next, open, 60.0);
    assert_eq!(fill(&mut limiter, next, Pass).0, 37);
}

#[test]
fn wait_is_at_least_ten_milliseconds() {
    let (mut limiter, open) = limited(1_000_000);
    let (_, next) = fill(&mut limiter, open, Pass);
    assert_at(next, open, 0.01);
    let (_, next) = fill(&mut limiter, open, Scan);
    assert_at(next, open, 0.01);
}

#[test]
fn throttle_stops_until_retry_after_or_the_minute_end() {
    for (said, minute, expected) in [
        (Some(2_500), 20.0, 2.5),
        (Some(60_000), 20.0, 60.0),
        (Some(60_001), 20.0, 20.0),
        (None, 20.0, 20.0),
        (None, 3_600.0, 60.0),
        (Some(0), 20.0, 0.001),
        (None, 0.0, 0.001),
    ] {
        let now = Instant::now();
        let mut limiter = WindowLimiter::new(now);
        limiter.note(now, throttled(said, Some(600)), seconds(minute));
        assert_at(limiter.stopped(now).unwrap(), now, expected);
        // A scan waits like everybody, and nobody for less than 10 ms.
        for priority in [Pass, Scan] {
            let until = limiter.admit(now, priority).unwrap_err();
            assert_at(until, now, expected.max(0.01));
        }
        let end = now + seconds(expected);
        assert!(limiter.stopped(end - Duration::from_micros(1)).is_some());
        assert_eq!(limiter.stopped(end), None);
        assert_eq!(limiter.admit(end, Pass), Ok(()));
    }
}

#[test]
fn limit_is_learned_from_the_header_or_from_use() {
    let now = Instant::now();
    let learned = |used: usize, named: Option<u32>| {
        let mut limiter = WindowLimiter::new(now);
        burst(&mut limiter, now, used);
        limiter.note(now, throttled(Some(1_000), named), WINDOW);
        limiter.limit().unwrap()
    };
    for (used, named, expected) in [
        (30, None, 29.0),
        // One throttle of one of the first calls says little.
        (10, None, 10.0),
        (1, None, 10.0),
        (0, None, 10.0),
        (10, Some(600), 600.0),
        (10, Some(1), 1.0),
        (10, Some(1_000_000), 1_000_000.0),
        // Nonsense is as good as nothing.
        (30, Some(0), 29.0),
        (30, Some(1_000_001), 29.0),
        (30, Some(u32::MAX), 29.0),
    ] {
        assert_eq!(
            learned(used, named).to_bits(),
            f64::to_bits(expected),
            "{used} {named:?}"
        );
    }
    let (mut limiter, open) = limited(600);
    burst(&mut limiter, open, 5);
    limiter.note(open, throttled(Some(1_000), None), WINDOW);
    assert_eq!(
        limiter.limit(),
        Some(300.0),
        "somebody else may have used the rest"
    );
}

#[test]
fn first_throttle_of_a_window_alone_lowers_the_limit() {
    let (mut limiter, open) = limited(600);
    burst(&mut limiter, open, 9);
    for _ in 0..8 {
        limiter.note(open, throttled(Some(5_000), None), WINDOW);
    }
    assert_eq!(limiter.limit(), Some(300.0));
    // In the next one it is news again.
    let open = open + seconds(5.0);
    burst(&mut limiter, open, 3);
    limiter.note(open, throttled(Some(5_000), None), WINDOW);
    assert_eq!(limiter.limit(), Some(150.0));
}

#[test]
fn admitted_calls_do_not_lower_the_limit() {
    let (mut limiter, open) = limited(600);
    burst(&mut limiter, open, 9);
    limiter.note(open, CallOutcome::Admitted, WINDOW);
    assert_eq!(
        (limiter.limit(), limiter.stopped(open)),
        (Some(600.0), None)
    );
}

#[test]
fn limit_is_raised_by_a_quarter_after_steady_use() {
    // 400 calls of 600 are one window.
    let (mut limiter, open) = limited(600);
    assert_eq!(spend(&mut limiter, open, open + WINDOW, Pass), 600);
    assert_eq!(limiter.limit(), Some(600.0));
    let _ = limiter.stopped(open + WINDOW);
    assert_eq!(limiter.limit(), Some(750.0));
    // Counted anew from there: 750 calls are more than 400 again.
    assert_eq!(
        spend(&mut limiter, open + WINDOW, open + WINDOW * 2, Pass),
        750
    );
    let _ = limiter.stopped(open + WINDOW * 2);
    assert_eq!(limiter.limit(), Some(937.5));
    // 300 calls are less than 400: two windows.
    let (mut limiter, open) = limited(300);
    spend(&mut limiter, open, open + WINDOW, Pass);
    let _ = limiter.stopped(open + WINDOW);
    assert_eq!(limiter.limit(), Some(300.0));
    spend(&mut limiter, open + WINDOW, open + WINDOW * 2, Pass);
    let _ = limiter.stopped(open + WINDOW * 2);
    assert_eq!(limiter.limit(), Some(375.0));
    // Two calls a minute: five windows, and at least one call more.
    let (mut limiter, open) = limited(2);
    for window in 0..5 {
        let _ = limiter.stopped(open + WINDOW * window);
        assert_eq!(limiter.limit(), Some(2.0), "window {window}");
        spend(
            &mut limiter,
            open + WINDOW * window,
            open + WINDOW * (window + 1),
            Pass,
        );
    }
    let _ = limiter.stopped(open + WINDOW * 5);
    assert_eq!(limiter.limit(), Some(3.0));
}

#[test]
fn unused_or_throttled_window_does_not_raise_the_limit() {
    let (mut limiter, open) = limited(600);
    assert!(spend(&mut limiter, open, open + seconds(50.0), Pass) < 600);
    let _ = limiter.stopped(open + WINDOW);
    assert_eq!(limiter.limit(), Some(600.0), "not used up");

    let (mut limiter, open) = limited(600);
    assert_eq!(spend(&mut limiter, open, open + seconds(59.5), Pass), 600);
    limiter.note(
        open + seconds(59.5),
        throttled(Some(500), Some(600)),
        WINDOW,
    );
    let _ = limiter.stopped(open + WINDOW);
    assert_eq!(limiter.limit(), Some(600.0), "throttled");
}

#[test]
fn shorter_throttle_replaces_a_longer_one() {
    let (mut limiter, open) = limited(60);
    limiter.note(open, throttled(Some(50_000), Some(60)), WINDOW);
    assert!(limiter.admit(open, Pass).is_err());
    limiter.note(open, throttled(Some(5_000), Some(60)), WINDOW);
    let until = limiter.admit(open, Pass).unwrap_err();
    assert_at(until, open, 5.0);
    assert_eq!(limiter.admit(until, Pass), Ok(()));
}

#[test]
fn unused_call_is_given_back() {
    let (mut limiter, open) = limited(60);
    burst(&mut limiter, open, 3);
    assert!(limiter.admit(open, Pass).is_err());
    let first = limiter.window_end();
    limiter.give_back(open, first, open);
    assert_eq!(limiter.next(open, Pass), open);
    burst(&mut limiter, open, 1);
    assert!(limiter.admit(open, Pass).is_err());
    // Not more than were admitted, and none of another window.
    burst(&mut limiter, open + WINDOW, 3);
    limiter.give_back(open + WINDOW, first, open + WINDOW);
    assert!(limiter.admit(open + WINDOW, Pass).is_err());
    let second = limiter.window_end();
    for _ in 0..9 {
        limiter.give_back(open + WINDOW, second, open + WINDOW);
    }
    burst(&mut limiter, open + WINDOW, 3);
    assert!(limiter.admit(open + WINDOW, Pass).is_err());
}

#[test]
fn scans_use_a_fifth_spread_over_the_window() {
    let (mut limiter, open) = limited(100);
    for call in 1..=19 {
        let at = if call == 1 {
            0.0
        } else {
            f64::from(call) * 3.0
        };
        assert_eq!(limiter.admit(open + seconds(at), Scan), Ok(()), "{call}");
        let until = limiter.admit(open + seconds(at), Scan).unwrap_err();
        assert_at(until, open, f64::from(call + 1) * 3.0);
    }
    // Of a small limit it is one call.
    let (mut limiter, open) = limited(3);
    assert_eq!(fill(&mut limiter, open, Scan), (1, open + WINDOW));
    // Nor do scans go beyond what users have left, nor come back before there is more.
    let (mut limiter, open) = limited(100);
    let now = open + seconds(59.5);
    burst(&mut limiter, now, 100);
    assert_eq!(limiter.admit(now, Scan), Err(open + WINDOW));
}

#[test]
fn last_call_of_a_window_is_kept_for_a_waiter() {
    // Eight calls of ten gone, and a user told to wait: a scan may take the ninth, not the tenth.
    for (gone, expected) in [(8, Ok(())), (9, Err(()))] {
        let (mut limiter, open) = limited(10);
        let mut used = 0;
        let mut now = open;
        while used < gone {
            match limiter.admit(now, Pass) {
                Ok(()) => used += 1,
                Err(until) => now = until,
            }
        }
        let promised = limiter.admit(now, Pass).unwrap_err();
        assert_eq!(limiter.admit(now, Scan).map_err(|_| ()), expected, "{gone}");
        if expected.is_err() {
            assert_eq!(limiter.admit(now, Scan), Err(open + WINDOW));
            // It may come five seconds late, and is not awaited any longer; nor is it once it has come.
            let overdue = promised + seconds(5.0);
            assert!(limiter.admit(overdue, Scan).is_err());
            assert_eq!(limiter.admit(overdue + seconds(0.01), Scan), Ok(()));
        }
    }
    // Where the window ends within 10 ms, a scan too comes back no sooner.
    let (mut limiter, open) = limited(10);
    let now = open + seconds(59.995);
    burst(&mut limiter, now, 10);
    assert!(limiter.admit(now, Pass).is_err());
    assert_at(limiter.admit(now, Scan).unwrap_err(), open, 60.005);
    // Nor is it awaited once it has come.
    let (mut limiter, open) = limited(10);
    let mut now = open;
    for _ in 0..8 {
        assert_eq!(limiter.admit(now, Pass), Ok(()));
        now = limiter.admit(now, Pass).unwrap_err();
    }
    assert_eq!(limiter.admit(now, Pass), Ok(()));
    assert_eq!(limiter.admit(now, Scan), Ok(()));
}

#[test]
fn clock_jump_opens_only_the_current_window() {
    for jump in [60.0, 61.0, 119.0, 120.0, 601.5, 86_400.0, 400.0 * 86_400.0] {
        let (mut limiter, open) = limited(600);
        assert_eq!(fill(&mut limiter, open, Pass).0, 30);
        let now = open + seconds(jump);
        let into = jump % 60.0;
        // What was not used of the windows between is lost: the cloud does not keep it either.
        let (calls, next) = fill(&mut limiter, now, Pass);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "at most 600"
        )]
        let expected = (30.0 + 612.0 * into / 60.0).min(600.0) as u32;
        assert!(
            calls.abs_diff(expected) <= 1,
            "{jump}: {calls} instead of {expected}"
        );
        assert!(next > now && next <= now + WINDOW, "{jump}");
        assert_eq!(limiter.limit(), Some(600.0), "{jump}");
    }
}

#[test]
fn clock_going_back_earns_no_extra_calls() {
    // Two threads read the clock before they take the lock: `now` may go back.
    let (mut limiter, open) = limited(600);
    let mut calls = 0;
    for round in 0..10_000 {
        let at = if round % 2 == 0 { 20.0 } else { 10.0 };
        let now = open + seconds(at);
        match limiter.admit(now, Pass) {
            Ok(()) => calls += 1,
            Err(until) => assert!(until > now),
        }
    }
    // A burst, and 20 s at the pace of the limit.
    assert!((100..=235).contains(&calls), "{calls}");
    // Nor does one that is earlier than the limiter itself break anything.
    let mut limiter = WindowLimiter::new(open);
    let before = open.checked_sub(seconds(0.5)).unwrap();
    limiter.note(before, throttled(Some(1_000), Some(600)), WINDOW);
    assert!(limiter.admit(before, Pass).unwrap_err() > before);
    assert_eq!(limiter.admit(open + seconds(1.0), Pass), Ok(()));
}

/// A limiter with a limit that an account sets, and nothing learned.
fn configured(most: u32) -> (WindowLimiter, Instant) {
    let now = Instant::now();
    let mut limiter = WindowLimiter::new(now);
    limiter.configure(now, Some(most));
    (limiter, now)
}

/// Begins calls from `from` to `to`, each as soon as it is admitted; when.
fn begun(limiter: &mut WindowLimiter, from: Instant, to: Instant) -> Vec<Instant> {
    let mut calls = Vec::new();
    let mut now = from;
    while now < to {
        match limiter.admit(now, Pass) {
            Ok(()) => calls.push(now),
            Err(until) => now = until,
        }
    }
    calls
}

/// The most calls in any minute, wherever it begins.
fn most_in_a_minute(calls: &[Instant]) -> usize {
    let minutes = calls.iter().map(|first| {
        let minute = calls
            .iter()
            .filter(|call| *call >= first && **call < *first + WINDOW);
        minute.count()
    });
    minutes.max().unwrap_or_default()
}

#[test]
fn configured_limit_holds_in_every_minute_and_is_used() {
    for (most, idle) in [(1, 0.0), (7, 59.0), (60, 30.5), (600, 47.0), (600, 0.0)] {
        let (mut limiter, start) = configured(most);
        let from = start + seconds(idle);
        let calls = begun(&mut limiter, from, from + WINDOW * 5);
        assert_eq!(most_in_a_minute(&calls), most as usize, "{most}, {idle}");
        let possible = most as usize * 5;
        assert!(
            calls.len() * 100 >= possible * 98,
            "{most}, {idle}: {}",
            calls.len()
        );
        assert_eq!(limiter.limit(), Some(f64::from(most)), "it is never passed");
    }
}

#[test]
fn call_that_waits_after_it_was_admitted_counts_when_it_is_sent() {
    let (mut limiter, start) = configured(4);
    burst(&mut limiter, start, 1);
    for late in [15.0, 30.0, 44.5] {
        burst(&mut limiter, start + seconds(late), 1);
    }
    // All four go out together: none is admitted in the minute after that.
    let sent = start + seconds(50.0);
    for late in [0.0, 15.0, 30.0, 44.5] {
        assert_eq!(limiter.begin(sent, start + seconds(late)), Ok(()));
    }
    assert_eq!(begun(&mut limiter, sent, sent + WINDOW), []);
    // One that waited for longer than a minute is not sent where its place was taken.
    let (mut limiter, start) = configured(1);
    burst(&mut limiter, start, 1);
    burst(&mut limiter, start + WINDOW, 1);
    let late = start + WINDOW + seconds(1.0);
    assert_eq!(limiter.begin(late, start), Err(start + WINDOW * 2));
}

#[test]
fn lowered_limit_counts_the_calls_of_the_last_minute() {
    let (mut limiter, start) = configured(100);
    let before = begun(&mut limiter, start, start + seconds(20.0));
    let change = start + seconds(20.0);
    limiter.configure(change, Some(10));
    let after = begun(&mut limiter, change, change + WINDOW * 4);
    assert!(before.len() > 10);
    assert!(after[0] >= before[before.len() - 10] + WINDOW);
    assert_eq!(most_in_a_minute(&after), 10);
    // Without the field nothing is known: the cloud has not throttled.
    limiter.configure(change + WINDOW * 4, None);
    assert_eq!(limiter.limit(), None);
    burst(&mut limiter, change + WINDOW * 4, 1_000);
    // A limit that comes in the middle of a window counts what the window has seen.
    limiter.configure(change + WINDOW * 4, Some(5));
    let next = limiter.admit(change + WINDOW * 4, Pass).unwrap_err();
    assert_at(next, change, 300.0);
}

#[test]
fn throttle_below_the_configured_limit_is_learned_and_growth_ends_at_it() {
    let (mut limiter, start) = configured(700);
    assert_eq!(limiter.admit(start, Pass), Ok(()));
    limiter.note(start, throttled(Some(1_000), Some(600)), WINDOW);
    assert_eq!(limiter.limit(), Some(600.0));
    let open = start + seconds(1.0);
    let calls = begun(&mut limiter, open, open + WINDOW * 6);
    assert_eq!(limiter.limit(), Some(700.0), "and not 750");
    assert!(most_in_a_minute(&calls) <= 700);
    // What the cloud names above it changes nothing, nor is anything learned there.
    let later = open + WINDOW * 6;
    limiter.note(later, throttled(Some(1_000), Some(900)), WINDOW);
    assert_eq!(limiter.limit(), Some(700.0));
    begun(&mut limiter, later + seconds(1.0), later + WINDOW * 6);
    limiter.configure(later + WINDOW * 6, None);
    assert_eq!(limiter.limit(), Some(900.0));
}
