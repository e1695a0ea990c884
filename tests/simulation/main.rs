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
