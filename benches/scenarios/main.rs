//! `make bench`: scenarios against a real API server and the simulated cloud, ours beside a textbook operator and a bare client.
//! Measures from outside only; asserts nothing.

#[path = "../../tests/support/mod.rs"]
mod support;

mod arguments;
mod bed;
mod contender;
mod load;
mod measure;
mod outcome;
mod plot;
mod progress;
mod report;
mod scenario;
mod stand;
mod table;
mod watch;

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _};

use arguments::{Arguments, Contender};
use outcome::Outcome;
use stand::Stand;
use support::error::{Error, Result};
use table::Run;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let Some(scenario) = arguments.scenario.clone() else {
        // As `cargo test --benches` calls it: there is nothing to measure without being asked to.
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
    let mut runs = Vec::new();
    for scenario in chosen(scenario)? {
        let run = all_contenders(scenario, arguments).await?;
        report::keep(&run, arguments)?;
        runs.push(run);
    }
    report::finish(&runs, arguments)
}

fn chosen(scenario: &str) -> Result<Vec<&'static str>> {
    if scenario == "all" {
        return Ok(SCENARIOS.to_vec());
    }
    SCENARIOS
        .iter()
        .find(|name| name.eq_ignore_ascii_case(scenario))
        .map(|name| vec![*name])
        .ok_or_else(|| {
            Error::new(format!(
                "no scenario {scenario}; there are {}, all, growth and pass",
                SCENARIOS.join(", ")
            ))
        })
}

const SCENARIOS: [&str; 2] = ["S1", "S10"];

async fn all_contenders(scenario: &str, arguments: &Arguments) -> Result<Run> {
    let machine = report::machine();
    let mut outcomes = BTreeMap::new();
    for contender in Contender::ALL {
        if arguments.includes(contender) {
            progress::part(&format!("{scenario} {}", contender.name()));
            if let Some(outcome) = one(scenario, contender, arguments).await? {
                outcomes.insert(contender.name().to_owned(), outcome);
            }
        }
    }
    Ok(Run {
        scenario: scenario.to_owned(),
        n: arguments.n,
        seed: arguments.seed,
        latency_ms: u64::try_from(arguments.latency.as_millis())?,
        textbook_workers: arguments.textbook_workers,
        machine,
        outcomes,
    })
}

async fn one(
    scenario: &str,
    contender: Contender,
    arguments: &Arguments,
) -> Result<Option<Outcome>> {
    let mut stand = Stand::set(arguments, contender, &[]).await?;
    let outcome = match scenario {
        "S1" => scenario::apply::apply_all(&mut stand).await?,
        _ => scenario::apply::beside_a_reader(&mut stand).await?,
    };
    Ok(Some(outcome))
}
