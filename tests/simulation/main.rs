//! Harmless under any crash, any view, any cloud: the real controllers over an API server and a cloud in process, in virtual
//! time. `SEED=17 cargo test --test simulation` replays one schedule with its whole trace; `SEEDS=100000` runs that many.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod account_in_use;
mod account_limits;
mod accounts;
#[path = "../support/api_server/mod.rs"]
mod api_server;
mod bad_claims;
mod call_budget;
mod crash;
mod crowds;
mod foreign_finalizers;
mod found;
mod grants;
mod group_tags;
mod interleavings;
mod judged;
mod judged_sets;
mod lease;
mod lies;
mod limits;
mod link;
mod long_running;
mod monitor;
mod mute;
mod node_conditions;
mod ownership;
mod raced_deletions;
mod races;
mod reads;
mod refused_joins;
mod refused_writes;
mod regions;
mod regressions;
mod rotation;
mod scenario;
mod schedule;
mod scopes;
mod set_cloud;
mod set_kubernetes;
mod set_schedule;
mod sets;
mod shrink;
mod shutdown;
mod specs;
mod tenancy;
mod topology;
mod unreadable;
mod views;
mod wide;
mod world;

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};

use link::KillPoint;
use schedule::{Happens, Schedule};

/// A schedule is little but small objects made and dropped: with the system's allocator it takes a fifth longer.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Runs in virtual time: whenever nothing is left to do at a moment, the clock goes on to the next. On a thread of its own,
/// whose random numbers are fixed: what runs again does the same.
fn in_virtual_time<T: Send, F: Future<Output = T>>(run: impl FnOnce() -> F + Send) -> T {
    // What draws random numbers once for the whole process draws them here, and not in whichever run is the first.
    static FIRST: std::sync::Once = std::sync::Once::new();
    FIRST.call_once(|| {
        let schedule = Schedule::draw(0);
        on_a_thread(|| async move { drop(schedule::run(&schedule, true).await) });
    });
    on_a_thread(run)
}

fn on_a_thread<T: Send, F: Future<Output = T>>(run: impl FnOnce() -> F + Send) -> T {
    let alone = || {
        fixed_randomness::fix(0);
        tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap()
            .block_on(run())
    };
    std::thread::scope(|scope| match scope.spawn(alone).join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Does `work` for each number below `count`, on as many threads as `THREADS` says (1).
fn in_threads(count: u64, work: impl Fn(u64) + Sync) {
    let next = AtomicU64::new(0);
    let threads = number("THREADS").unwrap_or(1).max(1);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        return;
                    }
                    work(number);
                }
            });
        }
    });
}

const KILL_POINTS: [KillPoint; 2] = [KillPoint::Before, KillPoint::AfterEffect];

/// Which path, where the operator is killed on it, and how it ends without that.
type Point = (usize, Vec<(usize, KillPoint)>, Vec<String>);

/// Every point of a path at which the operator can be killed. What the path does without that must be what it says.
fn points_of(at: usize, path: &crash::Path) -> Vec<Point> {
    let wanted = in_virtual_time(|| crash::run(path, &[], true));
    let problems = crash::problems(path, &wanted);
    let trace = || wanted.trace.join("\n");
    assert_eq!(problems, [""; 0], "{}:\n{}", path.name, trace());
    let all = (1..=wanted.requests[0])
        .flat_map(|request| KILL_POINTS.map(|point| vec![(request, point)]));
    all.map(|crashes| (at, crashes, wanted.picture.clone()))
        .collect()
}

#[test]
fn a_crash_at_any_request_changes_nothing_in_the_end() {
    // A long run may be of some paths only.
    let part = std::env::var("CRASH_PATHS").unwrap_or_default();
    let paths = crash::PATHS.iter();
    let paths: Vec<_> = paths.filter(|path| path.name.contains(&part)).collect();
    let points = paths.iter().enumerate();
    let points: Vec<Point> = points.flat_map(|(at, path)| points_of(at, path)).collect();
    let (pairs, run, missed) = (AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let costs: Vec<_> = paths.iter().map(|_| AtomicU64::new(0)).collect();
    // Every pair in a long run; a few of them in a short one.
    let all_pairs = number("PAIRS").is_some();
    in_threads(points.len() as u64, |number| {
        let (at, crashes, wanted) = &points[usize::try_from(number).unwrap()];
        let path = paths[*at];
        let end = check(path, crashes, wanted);
        costs[*at].fetch_add(u64::from(end.costs(path.cost.as_ref())), Ordering::Relaxed);
        for (second, point) in
            (1..=end.requests[1]).flat_map(|second| KILL_POINTS.map(|point| (second, point)))
        {
            pairs.fetch_add(1, Ordering::Relaxed);
            let chosen = (number.wrapping_mul(7919) + second as u64 * 104_729).is_multiple_of(97);
            if all_pairs || chosen && point == KILL_POINTS[second % 2] {
                let end = check(path, &[crashes[0], (second, point)], wanted);
                // Two kills leave three processes, unless all was over before the second.
                missed.fetch_add(u64::from(end.requests.len() < 3), Ordering::Relaxed);
                run.fetch_add(1, Ordering::Relaxed);
            }
        }
    });
    for (path, costs) in paths.iter().zip(costs) {
        // What the design grants must be what happens, and no more.
        let costs = costs.into_inner();
        let most = path.cost.as_ref().map_or(0, |cost| cost.points);
        let granted = most.min(1)..=most;
        assert!(granted.contains(&costs), "{}: {costs}", path.name);
    }
    let (run, missed) = (run.into_inner(), missed.into_inner());
    println!(
        "{} paths, {} crash points, {run} of {} pairs of them, in {missed} of which all was over before the second; violations 0",
        paths.len(),
        points.len(),
        pairs.into_inner()
    );
    assert!(
        missed * 1_000 <= run,
        "{missed} of {run} pairs were no pairs"
    );
}

/// Runs one path with these crashes. The operator must have been killed at the first of them.
fn check(path: &crash::Path, crashes: &[(usize, KillPoint)], wanted: &[String]) -> crash::End {
    let mut end = in_virtual_time(|| crash::run(path, crashes, false));
    if !end.is_as(wanted, path.cost.as_ref()) {
        end = in_virtual_time(|| crash::run(path, crashes, true));
    }
    if let Some(text) = crash::describe(path, crashes, wanted, &end) {
        panic!("{text}");
    }
    assert!(end.requests.len() > 1, "{} {crashes:?}", path.name);
    end
}

/// Schedules of each kind in `cargo test`, which is not optimized. `make simulate` runs as many as it is told.
const SCHEDULES: u64 = 250;

#[test]
fn no_schedule_of_faults_breaks_an_invariant() {
    search("plain", SCHEDULES, Schedule::draw);
}

#[test]
fn no_wide_schedule_breaks_an_invariant() {
    search("wide", SCHEDULES, Schedule::draw_wide);
}

/// Schedules with sets in `cargo test`: each takes longer.
const SETS: u64 = 100;

#[test]
fn no_schedule_of_sets_breaks_an_invariant() {
    search("sets", SETS, set_schedule::draw);
}

/// Crowds in `cargo test`.
const CROWDS: u64 = 12;

#[test]
fn nobody_waits_for_objects_that_are_gone() {
    let seeds: Vec<u64> = number("SEED").map_or_else(|| (0..CROWDS).collect(), |seed| vec![seed]);
    let wrong = std::sync::Mutex::new(Vec::new());
    in_threads(seeds.len() as u64, |number| {
        let seed = seeds[usize::try_from(number).unwrap()];
        let problems =
            in_virtual_time(|| async move { crowds::run(&crowds::Crowd::draw(seed)).await });
        println!("crowd {seed}: {problems:?}");
        if !problems.is_empty() {
            wrong.lock().unwrap().push((seed, problems));
        }
    });
    assert_eq!(wrong.into_inner().unwrap(), []);
}

fn search<A: Happens>(kind: &str, schedules: u64, draw: fn(u64) -> Schedule<A>) {
    if let Some(seed) = number("SEED") {
        let schedule = draw(seed);
        let outcome = in_virtual_time(|| A::run(&schedule, true));
        println!("{}\n{schedule:#?}", outcome.trace.join("\n"));
        assert_eq!(outcome.problems, [""; 0], "{kind} seed {seed}");
        println!("{kind} seed {seed}: violations 0");
        return;
    }
    let first = number("FIRST_SEED").unwrap_or(0);
    let count = number("SEEDS").unwrap_or(schedules);
    let started = std::time::Instant::now();
    let (done, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let counts = schedule::Counts::default();
    in_threads(count, |number| {
        let seed = first + number;
        let schedule = draw(seed);
        let outcome = in_virtual_time(|| A::run(&schedule, false));
        counts.add(&outcome.counts);
        let problems = outcome.problems;
        if !problems.is_empty() {
            failed.fetch_add(1, Ordering::Relaxed);
            println!("{kind} SEED={seed}: {problems:#?}");
            explain(kind, seed, &schedule);
        }
        let done = done.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(10_000) || done == count {
            progress(
                kind,
                done,
                started.elapsed(),
                failed.load(Ordering::Relaxed),
            );
        }
    });
    print!("{}", counts.lines(&A::words(kind)));
    assert_eq!(
        failed.into_inner(),
        0,
        "replay one with: SEED=<seed> make simulate"
    );
}

fn problems_of<A: Happens>(schedule: &Schedule<A>) -> Vec<String> {
    in_virtual_time(|| A::run(schedule, false)).problems
}

/// What a problem says, without the names of objects, targets and groups.
fn kind_of(problem: &str) -> String {
    let is_name = |word: &&str| {
        word.len() == 1
            || ["i-", "eni-", "sg-"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
    };
    let words = problem.split(' ').filter(|word| !is_name(word));
    words.collect::<Vec<_>>().join(" ")
}

/// Leaves the trace of a failing schedule in a file, and prints the smallest one that fails in the same way.
fn explain<A: Happens>(name: &str, seed: u64, schedule: &Schedule<A>) {
    let kind = |problems: &[String]| problems.first().map(|problem| kind_of(problem));
    let wanted = kind(&problems_of(schedule));
    let smallest = shrink::shrink(schedule, |schedule| kind(&problems_of(schedule)) == wanted);
    let outcome = in_virtual_time(|| A::run(&smallest, true));
    let file = format!(
        "{}/simulation-{name}-{seed}.txt",
        env!("CARGO_TARGET_TMPDIR")
    );
    let text = format!("{}\n{smallest:#?}", outcome.trace.join("\n"));
    std::fs::write(&file, text).unwrap();
    println!(
        "  fails as well with {} of its {} acts: {smallest:#?}\n  {:#?}\n  the trace of these: {file}",
        smallest.acts.len(),
        schedule.acts.len(),
        outcome.problems
    );
}

#[expect(clippy::cast_precision_loss, reason = "a rate")]
fn progress(kind: &str, schedules: u64, took: std::time::Duration, violations: u64) {
    println!(
        "{schedules} {kind} schedules, {:.0} a second, violations {violations}",
        schedules as f64 / took.as_secs_f64()
    );
}

/// As a user replays one that has failed among thousands.
#[test]
fn a_seed_replays_exactly_in_a_process_of_its_own() {
    for seed in [7, 980_521] {
        let schedule = Schedule::draw(seed);
        let here = in_virtual_time(|| schedule::run(&schedule, true)).trace;
        let there = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["no_schedule_of_faults", "--nocapture", "--test-threads=1"])
            .env("SEED", seed.to_string())
            .output()
            .unwrap();
        let there = String::from_utf8(there.stdout).unwrap();
        let there: Vec<&str> = there
            .lines()
            .skip_while(|line| !line.contains("SimOptions"))
            .collect();
        let differs = here
            .iter()
            .zip(&there)
            .find(|(here, there)| !there.ends_with(here.as_str()));
        assert_eq!(differs, None, "seed {seed}");
        assert!(there.len() > here.len(), "seed {seed}");
    }
}

#[test]
fn a_seed_replays_exactly() {
    let seeds = number("REPLAYS");
    replays_exactly(seeds.unwrap_or(6), Schedule::draw);
    // Longer ones.
    replays_exactly(seeds.unwrap_or(2), set_schedule::draw);
}

fn replays_exactly<A: Happens>(seeds: u64, draw: fn(u64) -> Schedule<A>) {
    for seed in 0..seeds {
        let run = || {
            let schedule = draw(seed);
            in_virtual_time(|| A::run(&schedule, true)).trace
        };
        let first = run();
        for _ in 0..2 {
            let again = run();
            let differs = first
                .iter()
                .zip(&again)
                .find(|(first, again)| first != again);
            assert_eq!(differs, None, "seed {seed}");
            assert_eq!(first.len(), again.len(), "seed {seed}");
        }
    }
}
