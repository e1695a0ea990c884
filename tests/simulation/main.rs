//! Harmless under any crash, any view, any cloud: the real controllers over an API server and a cloud in process, in virtual
//! time. `SEED=17 cargo test --test simulation` replays one schedule with its whole trace; `SEEDS=100000` runs that many.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

#[path = "../support/api_server/mod.rs"]
mod api_server;
mod crash;
mod link;
mod monitor;
mod schedule;
mod world;

use std::future::Future;

use link::Moment;

/// Runs in virtual time: whenever nothing is left to do at a moment, the clock goes on to the next.
fn in_virtual_time<T>(run: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(run)
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

#[test]
fn a_crash_at_any_request_changes_nothing_in_the_end() {
    let mut runs = 0;
    for path in crash::PATHS {
        let wanted = in_virtual_time(crash::run(path, &[]));
        assert_eq!(
            wanted.violations,
            [""; 0],
            "{}:\n{}",
            path.name,
            wanted.trace.join("\n")
        );
        for request in 1..=wanted.requests[0] {
            for moment in [Moment::Before, Moment::AfterEffect] {
                let crashes = [(request, moment)];
                let end = in_virtual_time(crash::run(path, &crashes));
                runs += 1;
                if let Some(text) = crash::describe(path, &crashes, &wanted.picture, &end) {
                    panic!("{text}");
                }
            }
        }
        println!(
            "{}: {} requests, {:?}",
            path.name, wanted.requests[0], wanted.picture
        );
    }
    println!("{runs} crash points");
}

/// Schedules in `cargo test`; a release build does many times as many in the same time.
const SCHEDULES: u64 = 1_000;

#[test]
fn no_schedule_of_faults_breaks_an_invariant() {
    if let Some(seed) = number("SEED") {
        let schedule = schedule::Schedule::draw(seed);
        let outcome = in_virtual_time(schedule::run(&schedule));
        println!("{}\n{schedule:#?}", outcome.trace.join("\n"));
        assert_eq!(outcome.problems, [""; 0], "seed {seed}");
        return;
    }
    let first = number("FIRST_SEED").unwrap_or(0);
    let count = number("SEEDS").unwrap_or(SCHEDULES);
    let started = std::time::Instant::now();
    let mut violations = 0;
    for seed in first..first + count {
        let schedule = schedule::Schedule::draw(seed);
        let outcome = in_virtual_time(schedule::run(&schedule));
        if !outcome.problems.is_empty() {
            violations += 1;
            let file = format!("{}/simulation-{seed}.txt", env!("CARGO_TARGET_TMPDIR"));
            std::fs::write(&file, format!("{}\n{schedule:#?}", outcome.trace.join("\n"))).unwrap();
            println!("SEED={seed}: {:#?}\n  trace: {file}", outcome.problems);
        }
        if (seed + 1 - first) % 10_000 == 0 {
            progress(seed + 1 - first, started.elapsed(), violations);
        }
    }
    progress(count, started.elapsed(), violations);
    assert_eq!(
        violations, 0,
        "replay one with SEED=<seed> cargo test --test simulation -- --nocapture no_schedule"
    );
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn progress(schedules: u64, took: std::time::Duration, violations: u64) {
    println!(
        "{schedules} schedules, {:.0} a second, violations {violations}",
        schedules as f64 / took.as_secs_f64()
    );
}
