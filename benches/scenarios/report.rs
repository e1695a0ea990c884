//! Writes the results: JSON, Markdown and SVG under `target/bench/`, and with `--docs` also under `docs/`. Writes files
//! only.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::arguments::Arguments;
use crate::plot;
use crate::support::error::{Context as _, Error, Result};
use crate::table::{self, Machine, Run};

/// Writes one run as soon as it has ended, so that an interrupted bench keeps its results.
pub fn keep(run: &Run, arguments: &Arguments) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    write(run, run, &root.join("target/bench"))?;
    if arguments.docs {
        write(run, &without_counts(run), &root.join("docs/benchmarks"))?;
    }
    Ok(())
}

fn write(run: &Run, kept: &Run, directory: &Path) -> Result<()> {
    let stem = stem(run);
    std::fs::create_dir_all(directory).context(directory.display())?;
    let file = directory.join(format!("{stem}.json"));
    std::fs::write(&file, serde_json::to_string_pretty(kept)? + "\n").context(file.display())?;
    for plot in plot::write(run, &stem, directory)? {
        crate::progress::line(&format!("wrote {}", directory.join(plot).display()));
    }
    Ok(())
}

/// Only the data for the table: the lines are in the plots, and single requests do not belong in a repository.
fn without_counts(run: &Run) -> Run {
    let mut run = run.clone();
    for outcome in run.outcomes.values_mut() {
        outcome.lines.clear();
        outcome.raw = serde_json::Value::Null;
    }
    run
}

/// The file name: one run per scenario and size is stored.
fn stem(run: &Run) -> String {
    format!("{}-{}", run.scenario, run.n)
}

/// Prints and writes the tables of these runs; with `--docs`, writes the tables of all stored runs to the page.
pub fn finish(runs: &[Run], arguments: &Arguments) -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = tables(runs);
    println!("{text}");
    let name = arguments.scenario.as_deref().unwrap_or("all");
    let file = root.join(format!("target/bench/{name}.md"));
    std::fs::write(&file, &text).context(file.display())?;
    println!(
        "JSON, table and plots: {}",
        root.join("target/bench").display()
    );
    if arguments.docs {
        let kept = kept(&root.join("docs/benchmarks"))?;
        rewrite_page(&root.join("docs/benchmarks.md"), &tables(&kept))?;
    }
    Ok(())
}

fn tables(runs: &[Run]) -> String {
    let mut text = String::new();
    // Stored runs may be of different machines.
    for run in runs {
        let Run {
            scenario,
            n,
            seed,
            latency_ms,
            textbook_workers,
            machine,
            ..
        } = run;
        let Machine {
            cores,
            memory_gib,
            processor,
            load_before,
        } = machine;
        let _ = writeln!(
            text,
            "- {scenario}: N={n} SEED={seed} LATENCY={latency_ms}ms, textbook MaxConcurrentReconciles {textbook_workers}; {cores} cores ({processor}), {memory_gib} GiB, load average before the run {load_before:.1}"
        );
    }
    let scenarios: Vec<Run> = runs
        .iter()
        .filter(|run| run.scenario != "growth")
        .cloned()
        .collect();
    if !scenarios.is_empty() {
        let _ = write!(text, "\n{}", table::markdown(&scenarios));
    }
    if runs.iter().any(|run| run.scenario == "growth") {
        let _ = write!(text, "\n{}", table::growth(runs));
    }
    let notes = table::notes(runs);
    if !notes.is_empty() {
        let _ = write!(text, "\n{notes}");
    }
    text
}

/// All stored runs in a directory: S1 to S10, then growth by size.
fn kept(directory: &Path) -> Result<Vec<Run>> {
    let mut runs = Vec::new();
    for entry in std::fs::read_dir(directory).context(directory.display())? {
        let path: PathBuf = entry?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            let text = std::fs::read_to_string(&path)?;
            let run: Run = serde_json::from_str(&text).context(path.display())?;
            runs.push(run);
        }
    }
    runs.sort_by_key(|run| {
        let number: u32 = run
            .scenario
            .trim_start_matches('S')
            .parse()
            .unwrap_or(u32::MAX);
        (number, run.n)
    });
    Ok(runs)
}

/// Puts `tables` between the two markers of the page.
fn rewrite_page(page: &Path, tables: &str) -> Result<()> {
    let text = std::fs::read_to_string(page).context(page.display())?;
    let (head, rest) = text
        .split_once(BEGIN)
        .ok_or_else(|| Error::new(format!("{} has no line {BEGIN}", page.display())))?;
    let (_, tail) = rest
        .split_once(END)
        .ok_or_else(|| Error::new(format!("{} has no line {END}", page.display())))?;
    std::fs::write(page, format!("{head}{BEGIN}\n{tables}{END}{tail}")).context(page.display())
}

const BEGIN: &str = "<!-- results: make bench DOCS=1 -->";
const END: &str = "<!-- end of results -->";

/// The machine of this run.
pub fn machine() -> Machine {
    let read = |file: &str| std::fs::read_to_string(file).unwrap_or_default();
    let field = |text: &str, name: &str| -> String {
        text.lines()
            .find_map(|line| line.strip_prefix(name))
            .map_or_else(String::new, |rest| {
                rest.trim_start_matches([' ', '\t', ':']).trim().to_owned()
            })
    };
    let kib: u64 = field(&read("/proc/meminfo"), "MemTotal")
        .split_whitespace()
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0);
    Machine {
        cores: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        memory_gib: kib.div_ceil(1024 * 1024),
        processor: field(&read("/proc/cpuinfo"), "model name"),
        load_before: read("/proc/loadavg")
            .split_whitespace()
            .next()
            .and_then(|number| number.parse().ok())
            .unwrap_or(0.0),
    }
}
