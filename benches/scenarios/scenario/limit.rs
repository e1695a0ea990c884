//! S2: more Joins are needed than the account may make per minute, and in the middle of the run the cloud halves the limit.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::bench_run::{BenchRun, Sample, TEXTBOOK_PERIOD};
use crate::load::{self, MembershipRequest};
use crate::measure::Calls;
use crate::outcome::{Outcome, number};
use crate::support::error::{Context as _, Result};

/// Calls per minute for N edges: 600, or less if there is not enough work for all minutes.
pub fn limit(n: u32) -> u32 {
    (n / 3).clamp(4, 600)
}

/// Number of whole minutes measured: one and a half at the limit, one and a half at half of it, as the cloud counts.
const MINUTES: u64 = 3;

/// S2. The cloud counts in minutes of the clock, and so does this scenario.
pub async fn joins(bench: &mut BenchRun) -> Result<Outcome> {
    let n = bench.arguments.n;
    let limit = limit(n);
    let requests: Vec<MembershipRequest> = (0..n).map(MembershipRequest::number).collect();
    load::create(&bench.cluster, &bench.watch, &requests).await?;
    crate::progress::at("waits for the next minute of the clock");
    tokio::time::sleep(to_next_minute()?).await;
    let before = bench.before().await?;
    bench.start_candidate(TEXTBOOK_PERIOD).await?;
    let half = limit / 2;
    let script = async {
        // The first minute is the rest of the minute after the start.
        tokio::time::sleep(to_next_minute()?).await;
        halve(bench, half).await?;
        tokio::time::sleep(Duration::from_secs((MINUTES - 1) * 60)).await;
        Ok(())
    };
    let ((), samples) = bench.sampled(script).await?;
    let since = bench.since(before).await?;
    let mut outcome = Outcome::default();
    let made = since.calls_with(JOIN, "OK");
    let rejected = since.calls_of(JOIN) - made;
    // In a window in which the limit was halved, the cloud admits the calls that the larger limit admitted before.
    let allowed = u64::from(limit) + (MINUTES - 1) * u64::from(half);
    outcome.count("allowed", allowed);
    outcome.count("made", made);
    outcome.figure("used_percent", 100.0 * number(made) / number(allowed));
    outcome.figure(
        "used_percent_after_halving",
        100.0 * number(last_minute(&samples)) / f64::from(half),
    );
    outcome.figure(
        "rejected_percent",
        100.0 * number(rejected) / number((made + rejected).max(1)),
    );
    outcome.notes.push(format!(
        "limit {limit} a minute for the first minute, then {half} for {} minutes; {made} Joins made of {allowed} allowed, {rejected} rejected",
        MINUTES - 1
    ));
    minute_lines(&samples, limit, half, &mut outcome);
    outcome.raw = since.raw();
    Ok(outcome)
}

async fn halve(bench: &BenchRun, half: u32) -> Result<()> {
    let change = json!({"set": {"limits": {JOIN: half}}});
    bench.cluster.simulator.change(&change).await
}

fn to_next_minute() -> Result<Duration> {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .context("a clock before 1970")?;
    let into = now.as_millis() % 60_000;
    Ok(Duration::from_millis(u64::try_from(60_000 - into)?))
}

/// Joins made in the last 60 seconds of the run.
fn last_minute(samples: &[Sample]) -> u64 {
    let Some(end) = samples.last() else {
        return 0;
    };
    let start = samples
        .iter()
        .rev()
        .find(|sample| end.at.saturating_sub(sample.at) >= Duration::from_secs(60));
    let made = |calls: &Calls| calls.with(JOIN, "OK");
    made(&end.calls) - start.map_or(0, |start| made(&start.calls))
}

/// Calls in each minute of the clock so far, rejected ones included: a sawtooth that should end at the limit.
fn minute_lines(samples: &[Sample], limit: u32, half: u32, outcome: &mut Outcome) {
    let Some(first) = samples.first() else {
        return;
    };
    let (mut calls, mut limits) = (Vec::new(), Vec::new());
    let mut minute = first.minute;
    let mut at_start = 0;
    let mut last = 0;
    let mut limit_now = limit;
    for sample in samples {
        let at = sample.at.as_secs_f64();
        if sample.minute > minute {
            minute = sample.minute;
            at_start = last;
            calls.push((at, 0.0));
            limits.push((at, f64::from(limit_now)));
            limit_now = half;
        }
        last = sample.calls.of(JOIN);
        calls.push((at, number(last - at_start)));
        limits.push((at, f64::from(limit_now)));
    }
    outcome.lines.insert("joins".to_owned(), calls);
    outcome.lines.insert("joins_limit".to_owned(), limits);
}

const JOIN: &str = "JoinSecurityGroup";
