//! The arguments of `make bench`, which do not change during a run. Only types and parsing.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Runs scenarios against a real API server and the simulated cloud; see docs/benchmarks.md.
#[derive(Clone, Debug, Parser)]
#[command(name = "scenarios")]
pub struct Arguments {
    /// S1 to S21, takeover, scrape, all, sets, growth, pass or dashboard. Without a scenario, nothing runs.
    pub scenario: Option<String>,
    /// Number of memberships.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=200_000))]
    pub n: u32,
    /// Selects the edges that drift, are poisoned or are in their last group.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Duration of every call to the simulated cloud.
    #[arg(long, default_value = "30ms", value_parser = humantime::parse_duration)]
    pub latency: Duration,
    /// Runs only this candidate. Repeatable. Default: all candidates of the scenario.
    #[arg(long, value_enum)]
    pub only: Vec<Candidate>,
    /// `MaxConcurrentReconciles` of the textbook operator. controller-runtime's own default is 1.
    #[arg(long, default_value_t = 16)]
    pub textbook_workers: u32,
    /// An argument for our operator, such as `--max-writes-in-flight=4`. Repeatable.
    #[arg(long, allow_hyphen_values = true)]
    pub operator: Vec<String>,
    /// Also writes docs/benchmarks/ and the table of docs/benchmarks.md.
    #[arg(long)]
    pub docs: bool,
    /// Added by cargo.
    #[arg(long, hide = true)]
    pub bench: bool,
    /// In process, for valgrind: runs this many passes and exits.
    #[arg(long, hide = true)]
    pub passes: Option<u32>,
}

impl Arguments {
    /// Whether a candidate takes part in this run.
    pub fn includes(&self, candidate: Candidate) -> bool {
        self.only.is_empty() || self.only.contains(&candidate)
    }
}

/// The program that does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Candidate {
    /// This operator.
    Ours,
    /// The operator as usually written with controller-runtime: `benches/textbook`.
    Textbook,
    /// A bare client that sends the same writes and makes no cloud calls.
    Floor,
}

impl Candidate {
    /// Name in files and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Textbook => "textbook",
            Self::Floor => "floor",
        }
    }

    /// All candidates in running order.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Textbook, Self::Floor];
}
