//! The lines of the report: figure, scenario and goal of each. Only data and its formatting.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// One scenario of one run, as stored in JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    pub scenario: String,
    pub n: u32,
    pub seed: u64,
    pub latency_ms: u64,
    pub textbook_workers: u32,
    pub machine: Machine,
    /// By name of the candidate.
    pub outcomes: BTreeMap<String, Outcome>,
}

/// The machine of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Machine {
    pub cores: usize,
    pub memory_gib: u64,
    pub processor: String,
    /// Load average in the minute before the run: above the number of cores, other programs were busy.
    pub load_before: f64,
}

/// One line of the table.
pub struct Line {
    pub scenario: &'static str,
    pub figure: &'static str,
    pub what: &'static str,
    pub goal: &'static str,
}

const fn line(
    scenario: &'static str,
    figure: &'static str,
    what: &'static str,
    goal: &'static str,
) -> Line {
    Line {
        scenario,
        figure,
        what,
        goal,
    }
}

/// All lines in order. The goals are for ten thousand edges on two cores.
pub const LINES: &[Line] = &[
    line(
        "S1",
        "all_ready_s",
        "apply all: until all are Ready, s",
        "≤ 1.02 × floor",
    ),
    line("S1", "ready_p50_s", "create to Ready, p50, s", ""),
    line("S1", "ready_p99_s", "create to Ready, p99, s", ""),
    line("S1", "calls_per_edge", "cloud calls an edge", "≤ 1.02"),
    line("S1", "writes_per_edge", "API-server writes an edge", "2.00"),
    line("S1", "events_per_edge", "Events an edge", ""),
    line("S1", "cpu_ms_per_edge", "CPU an edge, ms", "≤ 0.6"),
    line("S1", "peak_mib", "peak memory, MiB", "≤ 40"),
    line(
        "S1",
        "api_server_cpu_ms_per_edge",
        "API server's CPU an edge, ms",
        "",
    ),
    line(
        "S1",
        "api_server_peak_mib",
        "API server's peak memory, MiB",
        "",
    ),
    line(
        "S2",
        "used_percent",
        "Joins under a limit: share of the limit used, %",
        "≥ 98",
    ),
    line(
        "S2",
        "used_percent_after_halving",
        "the same in the last minute, limit halved, %",
        "≥ 98",
    ),
    line("S2", "rejected_percent", "rejected, %", "≤ 1"),
    line(
        "S3",
        "settled_s",
        "restart: until all were looked at, s",
        "≤ 3",
    ),
    line("S3", "describes", "Describes until then", "≤ N/100 + 5"),
    line("S3", "writes", "API-server writes", "0"),
    line(
        "S3",
        "new_ready_s",
        "a new object Ready after the start, s",
        "< 1",
    ),
    line(
        "S4",
        "describes_per_minute",
        "nothing changes: Describes a minute, looked at every 60 s",
        "≤ N/100",
    ),
    line("S4", "writes", "API-server writes", "0"),
    line("S4", "cpu_percent", "share of a core, %", "< 1"),
    line("S5", "repaired_p50_s", "1 % drift: repaired, p50, s", ""),
    line("S5", "repaired_p99_s", "repaired, p99, s", "≤ 75"),
    line("S5", "joins_per_drift", "Joins a drifted edge", "1.00"),
    line(
        "S6",
        "healthy_ratio",
        "5 % each of group, key and region broken: healthy p99 against none broken",
        "≤ 1.10",
    ),
    line(
        "S6",
        "healthy_p99_s",
        "healthy, create to Ready, p99, s",
        "",
    ),
    line(
        "S6",
        "healthy_not_ready",
        "healthy that did not become Ready",
        "0",
    ),
    line(
        "S7",
        "ready_p50_ms",
        "one new object a second: create to Ready, p50, ms",
        "≤ 2 × latency + 20",
    ),
    line("S7", "ready_p99_ms", "p99, ms", "≤ p50 + 50"),
    line(
        "S8",
        "all_gone_s",
        "delete all: until all that can go are gone, s",
        "≤ 1.02 × floor",
    ),
    line("S8", "leaves_per_edge", "accepted Leaves an edge", "1.00"),
    line(
        "S8",
        "kept_with_reason_percent",
        "kept for their last group, with the cloud's code, %",
        "100",
    ),
    line("S9", "mib_at_0", "memory with no object, MiB", "≤ 12"),
    line("S9", "mib_at_1000", "with 1,000, MiB", "≤ 18"),
    line("S9", "mib_at_10000", "with 10,000, MiB", "≤ 40"),
    line("S9", "mib_at_100000", "with 100,000, MiB", "≤ 220"),
    line(
        "S10",
        "reader_alone_p99_ms",
        "20 reads a second by somebody else: p99 alone, ms",
        "",
    ),
    line(
        "S10",
        "reader_p99_ms",
        "p99 beside the operator at work, ms",
        "≤ floor",
    ),
    line("S10", "reader_ratio", "ratio", ""),
    line("S10", "too_many_requests", "429 to the operator", "0"),
    line(
        "S11",
        "all_ready_s",
        "a set of N Nodes is applied: until all are Ready, s",
        "≤ 1.1 × S1",
    ),
    line("S11", "calls_per_edge", "cloud calls an edge", "≤ 1.02"),
    line(
        "S11",
        "writes_per_edge",
        "API-server writes an edge",
        "3.00",
    ),
    line(
        "S11",
        "set_status_writes",
        "status writes of the set",
        "≤ 60",
    ),
    line("S11", "cpu_ms_per_edge", "CPU an edge, ms", ""),
    line("S11", "peak_mib", "peak memory, MiB", ""),
    line(
        "S12",
        "ready_p50_ms",
        "one new Node a second: Node created to Ready, p50, ms",
        "≤ 2 × latency + 35",
    ),
    line("S12", "ready_p99_ms", "p99, ms", "≤ p50 + 100"),
    line("S12", "writes_per_node", "API-server writes a Node", "3.00"),
    line(
        "S13",
        "all_changed_s",
        "the set changes its group: until all have moved, s",
        "≤ 2.2 × S1",
    ),
    line("S13", "joins_per_edge", "accepted Joins an edge", "1.00"),
    line("S13", "leaves_per_edge", "accepted Leaves an edge", "1.00"),
    line("S13", "gaps", "targets in neither group meanwhile", "0"),
    line(
        "S14",
        "passes",
        "each Node reports every 5 min: passes in a minute",
        "0",
    ),
    line("S14", "writes", "API-server writes", "0"),
    line("S14", "cpu_percent", "share of a core, %", ""),
    line(
        "S14",
        "cpu_percent_more",
        "more than without reports, % of a core",
        "≤ 1",
    ),
    line(
        "S15",
        "more_mib",
        "memory for N Nodes, MiB more than without a nodeSelector",
        "≤ 8",
    ),
    line("S15", "peak_mib", "peak memory, MiB", ""),
    line(
        "S16",
        "creates_and_deletes",
        "restart with a set: memberships created or deleted",
        "0",
    ),
    line(
        "S16",
        "describes",
        "Describes until all were looked at",
        "≤ N/100 + 5",
    ),
    line("S16", "writes", "API-server writes", "0"),
    line("S16", "settled_s", "until all were looked at, s", ""),
    line(
        "S17",
        "describes_per_minute_more",
        "three sets with the same tags: Describes a minute more",
        "≤ N/100",
    ),
    line(
        "S18",
        "one_ready_s",
        "N waiting under 600 Joins a minute: one of another namespace Ready, s",
        "≤ 61",
    ),
    line(
        "S19",
        "crowd_gone_s",
        "the same N deleted at once: until none is listed, s",
        "",
    ),
    line(
        "S19",
        "one_ready_s",
        "one new object after them Ready, s",
        "≤ 1.1",
    ),
    line(
        "S20",
        "describes_per_minute",
        "rows of 8 interfaces with 20 addresses: Describes a minute",
        "≤ N/100",
    ),
    line("S20", "writes", "API-server writes", "0"),
    line("S20", "cpu_percent", "% of a core", "< 1"),
    line(
        "S20",
        "repaired_p99_s",
        "1 % drift repaired, p99, s",
        "≤ 75",
    ),
    line("S20", "joins_per_drift", "Joins a drifted edge", "1.00"),
    line("S20", "peak_mib", "memory, MiB", "≤ S9 + 20"),
    line(
        "S21",
        "describes_per_minute",
        "another key each minute, five times: Describes a minute",
        "as without",
    ),
    line(
        "S21",
        "quiet_describes_per_minute",
        "Describes a minute without, in the same run",
        "≤ N/100",
    ),
    line(
        "S21",
        "identities_per_rotation",
        "GetCallerIdentity a new key",
        "1.00",
    ),
    line("S21", "passes", "passes", "0"),
    line("S21", "writes", "API-server writes", "0"),
    line(
        "takeover",
        "term_p50_s",
        "SIGTERM to the leader: a new object Ready, p50, s",
        "",
    ),
    line("takeover", "term_max_s", "the same, longest, s", "≤ 2"),
    line(
        "takeover",
        "kill_p50_s",
        "SIGKILL, with a Lease of 15 s: a new object Ready, p50, s",
        "",
    ),
    line("takeover", "kill_max_s", "the same, longest, s", "≤ 16"),
    line("scrape", "scrape_p50_ms", "one scrape: p50, ms", "< 10"),
    line("scrape", "scrape_max_ms", "the longest of 30, ms", ""),
    line("scrape", "kib", "size of the answer, KiB", ""),
    line("scrape", "busy_p50_ms", "100 scrapes a second: p50, ms", ""),
    line("scrape", "busy_max_ms", "the longest of 1,000, ms", ""),
    line(
        "scrape",
        "busy_cpu_ms_per_scrape",
        "CPU a scrape, scans included, ms",
        "",
    ),
    line(
        "scrape",
        "alone_cpu_percent",
        "nothing changes and nobody scrapes: share of a core, %",
        "",
    ),
    line(
        "scrape",
        "scraped_cpu_percent",
        "the same with a scrape every 15 s, %",
        "as without",
    ),
];

/// The table of these runs.
pub fn markdown(runs: &[Run]) -> String {
    let mut text = String::from(
        "| | N | what | goal | ours | textbook | floor |\n|---|--:|---|--:|--:|--:|--:|\n",
    );
    for line in LINES {
        for run in runs.iter().filter(|run| run.scenario == line.scenario) {
            let cell = |candidate: &str| {
                run.outcomes
                    .get(candidate)
                    .and_then(|outcome| outcome.figures.get(line.figure))
                    .map_or_else(String::new, |value| figure(*value))
            };
            let (ours, textbook, floor) = (cell("ours"), cell("textbook"), cell("floor"));
            if ours.is_empty() && textbook.is_empty() && floor.is_empty() {
                continue;
            }
            let Line {
                scenario,
                what,
                goal,
                ..
            } = line;
            let _ = writeln!(
                text,
                "| {scenario} | {} | {what} | {goal} | {ours} | {textbook} | {floor} |",
                run.n
            );
        }
    }
    text
}

/// The notes of these runs, one line each; empty without notes.
pub fn notes(runs: &[Run]) -> String {
    let mut text = String::new();
    for run in runs {
        for (candidate, outcome) in &run.outcomes {
            for note in &outcome.notes {
                let _ = writeln!(text, "- {} {candidate}: {note}", run.scenario);
            }
        }
    }
    text
}

/// Cost per edge by number of edges.
pub fn growth(runs: &[Run]) -> String {
    let mut text = String::from(
        "| N | all Ready, s | calls an edge | writes an edge | CPU an edge, ms | peak, MiB | steady: Describes a minute | steady: % of a core |\n|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    for run in runs.iter().filter(|run| run.scenario == "growth") {
        let Some(outcome) = run.outcomes.get("ours") else {
            continue;
        };
        let cell = |name: &str| {
            outcome
                .figures
                .get(name)
                .map_or_else(String::new, |value| figure(*value))
        };
        let cells = [
            "all_ready_s",
            "calls_per_edge",
            "writes_per_edge",
            "cpu_ms_per_edge",
            "peak_mib",
            "describes_per_minute",
            "cpu_percent",
        ]
        .map(cell)
        .join(" | ");
        let _ = writeln!(text, "| {} | {cells} |", run.n);
    }
    text
}

/// Three significant digits.
pub fn figure(value: f64) -> String {
    if value == 0.0 {
        "0".to_owned()
    } else if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}
