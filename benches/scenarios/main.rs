//! `make bench`: scenarios against a real API server and the simulated cloud; our operator beside a textbook operator and a
//! bare client. Measures from outside only; asserts nothing.

#[path = "../../tests/support/mod.rs"]
mod support;

mod arguments;
mod bench_run;
mod candidate;
mod cluster;
mod load;
mod measure;
mod outcome;
mod plot;
mod progress;
mod report;
mod scenario;
mod table;
mod watch;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use arguments::{Arguments, Candidate};
use bench_run::BenchRun;
use outcome::Outcome;
use support::error::{Context as _, Error, Result};
use table::{Machine, Run};

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(passes) = arguments.passes {
        return scenario::pass::run(passes);
    }
    let Some(scenario) = arguments.scenario.clone() else {
        // Called as by `cargo test --benches`, without a scenario: nothing to measure.
        let _ = Arguments::command().print_help();
        return ExitCode::SUCCESS;
    };
    match run(&scenario, &arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress::line(&format!("bench: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn run(scenario: &str, arguments: &Arguments) -> Result<()> {
    let runs = match scenario {
        "growth" => growth(arguments).await?,
        "pass" => return scenario::pass::count(),
        _ => {
            let mut runs = Vec::new();
            for course in courses(scenario)? {
                let ran = all_candidates(&course, arguments).await?;
                for run in &ran {
                    report::keep(run, arguments)?;
                }
                runs.extend(ran);
            }
            runs
        }
    };
    report::finish(&runs, arguments)
}

/// The scenarios of one bench run, in this order: the first fills it, the last empties it.
const COURSES: [&[&str]; 11] = [
    &["S1", "S7", "S3", "S4", "S5", "S8"],
    &["S2"],
    &["S6"],
    &["S9"],
    &["S10"],
    &["S18"],
    &["S19"],
    &["S20"],
    &["S21"],
    &["takeover"],
    &["scrape"],
];

/// The same for those with sets.
const SETS: [&[&str]; 3] = [&["S11", "S12", "S14", "S16", "S13"], &["S15"], &["S17"]];

fn courses(scenario: &str) -> Result<Vec<Vec<&'static str>>> {
    if scenario == "dashboard" {
        return Ok(vec![vec!["dashboard"]]);
    }
    let all = || COURSES.iter().chain(&SETS);
    match scenario {
        "all" => return Ok(all().map(|course| course.to_vec()).collect()),
        "sets" => return Ok(SETS.iter().map(|course| course.to_vec()).collect()),
        _ => {}
    }
    all()
        .flat_map(|course| course.iter())
        .find(|name| name.eq_ignore_ascii_case(scenario))
        .map(|name| vec![vec![*name]])
        .ok_or_else(|| {
            Error::new(format!(
                "no scenario {scenario}: say one of S1 to S21, takeover, scrape, all, sets, growth, pass or dashboard"
            ))
        })
}

async fn all_candidates(course: &[&'static str], arguments: &Arguments) -> Result<Vec<Run>> {
    let machine = report::machine();
    let mut outcomes: BTreeMap<&str, BTreeMap<String, Outcome>> = BTreeMap::new();
    for candidate in Candidate::ALL {
        let mut takes_part = course.to_vec();
        takes_part.retain(|name| match candidate {
            Candidate::Ours => true,
            Candidate::Textbook => !OURS_ONLY.contains(name),
            Candidate::Floor => HAS_FLOOR.contains(name),
        });
        if !arguments.includes(candidate) || takes_part.is_empty() {
            continue;
        }
        for (name, outcome) in in_one_run(&takes_part, candidate, arguments).await? {
            outcomes
                .entry(name)
                .or_default()
                .insert(candidate.name().to_owned(), outcome);
        }
    }
    course
        .iter()
        .map(|name| {
            let outcomes = outcomes.remove(name).unwrap_or_default();
            a_run(name, arguments, &machine, outcomes)
        })
        .collect()
}

/// The scenarios without the textbook operator: S15 and S20 are about our memory; its sets select no instances by tags; in S21 it would
/// read no Secret, as it gets its keys at its start; it elects no leader, and has neither these metrics nor a dashboard.
const OURS_ONLY: [&str; 7] = [
    "S15",
    "S17",
    "S20",
    "S21",
    "takeover",
    "scrape",
    "dashboard",
];

/// The scenarios with the bare client.
const HAS_FLOOR: [&str; 3] = ["S1", "S8", "S10"];

fn a_run(
    scenario: &str,
    arguments: &Arguments,
    machine: &Machine,
    outcomes: BTreeMap<String, Outcome>,
) -> Result<Run> {
    Ok(Run {
        scenario: scenario.to_owned(),
        n: arguments.n,
        seed: arguments.seed,
        latency_ms: u64::try_from(arguments.latency.as_millis())?,
        textbook_workers: arguments.textbook_workers,
        machine: machine.clone(),
        outcomes,
    })
}

async fn in_one_run(
    course: &[&'static str],
    candidate: Candidate,
    arguments: &Arguments,
) -> Result<Vec<(&'static str, Outcome)>> {
    let cloud = match course {
        ["S2"] => vec![format!(
            "--limit=JoinSecurityGroup={}",
            scenario::limit::limit(arguments.n)
        )],
        ["S18" | "S19"] => vec![format!(
            "--limit=JoinSecurityGroup={}",
            scenario::crowd::LIMIT
        )],
        ["S20"] => vec![
            // With the primary one, 8 for each instance.
            format!(
                "--network-interfaces={}",
                7 * (arguments.n + cluster::SPARE)
            ),
            "--addresses=20".to_owned(),
        ],
        _ => Vec::new(),
    };
    let mut found = Vec::new();
    progress::part(&format!("{} {}", course.join(" "), candidate.name()));
    let mut bench = BenchRun::start(arguments, candidate, &cloud).await?;
    for name in course {
        progress::part(&format!("{name} {}", candidate.name()));
        let outcome = one(name, &mut bench).await;
        let outcome = outcome.context(format!("{name} {}", candidate.name()))?;
        // The bench prints each figure at once: a candidate that fails later deletes none.
        let (figures, who) = (&outcome.figures, candidate.name());
        progress::line(&format!("{name} {who}: {figures:.2?}"));
        found.push((*name, outcome));
    }
    Ok(found)
}

async fn one(name: &str, bench: &mut BenchRun) -> Result<Outcome> {
    match name {
        "S1" => scenario::apply::apply_all(bench).await,
        "S2" => scenario::limit::joins(bench).await,
        "S3" => scenario::steady::restart(bench).await,
        "S4" => scenario::steady::steady(bench).await,
        "S5" => scenario::steady::drift(bench).await,
        "S6" => scenario::poison::healthy(bench).await,
        "S7" => scenario::steady::one_per_second(bench).await,
        "S8" => scenario::delete::delete_all(bench).await,
        "S9" => scenario::memory::by_size(bench).await,
        "S10" => scenario::apply::beside_a_reader(bench).await,
        "S11" => scenario::set::apply_set(bench).await,
        "S12" => scenario::set::one_node_per_second(bench).await,
        "S13" => scenario::set::change_of_group(bench).await,
        "S14" => scenario::set::nodes_report(bench).await,
        "S15" => scenario::set::memory_of_nodes(bench).await,
        "S16" => scenario::set::restart(bench).await,
        "S17" => scenario::set::same_tags(bench).await,
        "S18" => scenario::crowd::beside(bench).await,
        "S19" => scenario::crowd::after(bench).await,
        "S20" => scenario::steady::large_rows(bench).await,
        "S21" => scenario::steady::key_rotation(bench).await,
        "takeover" => scenario::takeover::takeover(bench).await,
        "scrape" => scenario::scrape::scrape(bench).await,
        "dashboard" => scenario::dashboard::picture(bench).await,
        _ => Err(Error::new(format!("no scenario {name}"))),
    }
}

/// S1 and S4 of our operator by size: the cost per edge must not depend on the number of edges.
async fn growth(arguments: &Arguments) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for n in SIZES {
        let arguments = Arguments {
            n,
            ..arguments.clone()
        };
        let machine = report::machine();
        progress::part(&format!("growth {n}"));
        let mut bench = BenchRun::start(&arguments, Candidate::Ours, &[]).await?;
        let mut outcome = scenario::apply::apply_all(&mut bench).await?;
        bench.until_quiet().await?;
        let steady = scenario::steady::steady(&mut bench).await?;
        for figure in ["describes_per_minute", "cpu_percent"] {
            if let Some(value) = steady.figures.get(figure) {
                outcome.figure(figure, *value);
            }
        }
        let outcomes = BTreeMap::from([(Candidate::Ours.name().to_owned(), outcome)]);
        let run = a_run("growth", &arguments, &machine, outcomes)?;
        report::keep(&run, &arguments)?;
        runs.push(run);
    }
    Ok(runs)
}

/// Sizes of [`growth`].
const SIZES: [u32; 4] = [1_000, 10_000, 50_000, 100_000];
