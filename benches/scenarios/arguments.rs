//! What was typed after `make bench`, and what stays the same through a run. Only types and parsing.

use std::time::Duration;

use clap::{Parser, ValueEnum};

/// Runs scenarios against a real API server and the simulated cloud; see docs/benchmarks.md.
#[derive(Clone, Debug, Parser)]
#[command(name = "scenarios")]
pub struct Arguments {
    /// S1 to S10, all, growth or pass. Without one nothing is run.
    pub scenario: Option<String>,
    /// How many memberships.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(10..=200_000))]
    pub n: u32,
    /// Decides which edges drift, are poisoned or are in their last group.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// What every call to the simulated cloud takes.
    #[arg(long, default_value = "30ms", value_parser = humantime::parse_duration)]
    pub latency: Duration,
    /// Runs only this candidate. Repeatable. Default: all that the scenario has.
    #[arg(long, value_enum)]
    pub only: Vec<Candidate>,
    /// `MaxConcurrentReconciles` of the textbook operator. controller-runtime's own default is 1.
    #[arg(long, default_value_t = 16)]
    pub textbook_workers: u32,
    /// Also writes docs/benchmarks/ and the table of docs/benchmarks.md.
    #[arg(long)]
    pub docs: bool,
    /// What cargo adds.
    #[arg(long, hide = true)]
    pub bench: bool,
    /// In process, for valgrind: so many passes, then the end.
    #[arg(long, hide = true)]
    pub passes: Option<u32>,
}

impl Arguments {
    /// Whether a candidate takes part in this run.
    pub fn includes(&self, candidate: Candidate) -> bool {
        self.only.is_empty() || self.only.contains(&candidate)
    }
}

/// Who does the work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Candidate {
    /// This operator.
    Ours,
    /// The operator that one writes with controller-runtime: `benches/textbook`.
    Textbook,
    /// A bare client that sends the same writes and asks no cloud.
    Floor,
}

impl Candidate {
    /// As in files and tables.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Textbook => "textbook",
            Self::Floor => "floor",
        }
    }

    /// All, in the order in which they run.
    pub const ALL: [Self; 3] = [Self::Ours, Self::Textbook, Self::Floor];
}
