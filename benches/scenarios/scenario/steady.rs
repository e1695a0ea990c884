//! S3, S4, S5, S7, S20, S21: all memberships are Ready, then the process is killed, nothing happens, edges drift, one more is
//! created, or the account's key changes.

use std::time::{Duration, Instant};

use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::arguments::Candidate;
use crate::bench_run::BenchRun;
use crate::cluster::{KEY, OTHER_KEY};
use crate::load::{self, MembershipRequest};
use crate::measure;
use crate::outcome::{Outcome, number, quantile};
use crate::support::error::{Context as _, Error, Result};

/// S3. Killed and restarted; one new object was created in between.
pub async fn restart(bench: &mut BenchRun) -> Result<Outcome> {
    bench.fill().await?;
    let index = bench.filled;
    bench.process()?.kill();
    load::create(
        &bench.cluster,
        &bench.watch,
        &[MembershipRequest::number(index)],
    )
    .await?;
    let before = bench.before_start().await?;
    let started = Instant::now();
    bench.process()?.restart().await?;
    let quiet = bench.until_quiet().await?;
    let since = bench.since(before).await?;
    bench.filled += 1;
    bench
        .watch
        .until_ready(bench.filled as usize, bench.patience())
        .await?;
    let new = bench.watch.filter(|name| name == load::name(index));
    let ready = new
        .first()
        .and_then(|(_, seen)| seen.ready)
        .context("the new object is not Ready")?;
    let mut outcome = Outcome::default();
    outcome.figure(
        "settled_s",
        quiet.saturating_duration_since(started).as_secs_f64(),
    );
    outcome.figure(
        "new_ready_s",
        ready.saturating_duration_since(started).as_secs_f64(),
    );
    outcome.count("describes", since.describes());
    // The two writes of the new object are work, not a consequence of the restart.
    outcome.count("writes", since.writes().saturating_sub(2));
    outcome.raw = since.raw();
    Ok(outcome)
}

/// S4. Nothing happens for a minute.
pub async fn steady(bench: &mut BenchRun) -> Result<Outcome> {
    look_every_minute(bench).await?;
    let mut outcome = Outcome::default();
    measure_steady(bench, Duration::from_secs(60), &mut outcome).await?;
    if bench.candidate == Candidate::Textbook {
        let per_minute = f64::from(bench.arguments.n) / 10.0;
        outcome.notes.push(format!(
            "RequeueAfter is 60 s here, for the same freshness; with the 10 min it has elsewhere it would be {per_minute:.0} Describes a minute"
        ));
    }
    Ok(outcome)
}

/// The cost of one minute without changes.
pub async fn measure_steady(
    bench: &mut BenchRun,
    period: Duration,
    outcome: &mut Outcome,
) -> Result<()> {
    crate::progress::at("nothing happens");
    let before = bench.before().await?;
    tokio::time::sleep(period).await;
    let since = bench.since(before).await?;
    let minutes = since.seconds / 60.0;
    outcome.figure("describes_per_minute", number(since.describes()) / minutes);
    outcome.count("writes", since.writes());
    outcome.figure("cpu_percent", 100.0 * since.cpu_seconds / since.seconds);
    outcome.raw = since.raw();
    Ok(())
}

/// Rotations of S21.
const ROTATIONS: u32 = 5;

/// S21. The account gets another access key of the same cloud account each minute, for five minutes. The five minutes before, in
/// which nothing happens, are the measure.
pub async fn key_rotation(bench: &mut BenchRun) -> Result<Outcome> {
    look_every_minute(bench).await?;
    let minute = Duration::from_secs(60);
    let mut quiet = Outcome::default();
    measure_steady(bench, minute * ROTATIONS, &mut quiet).await?;
    let passes = bench.passes().await?;
    let before = bench.before().await?;
    for rotation in 0..ROTATIONS {
        crate::progress::at(&format!("rotation {} of {ROTATIONS}", rotation + 1));
        let key = if rotation % 2 == 0 { OTHER_KEY } else { KEY };
        bench.cluster.write_secret(KEY.account, key).await?;
        tokio::time::sleep(minute).await;
    }
    let since = bench.since(before).await?;
    let mut outcome = Outcome::default();
    outcome.figure(
        "describes_per_minute",
        number(since.describes()) / (since.seconds / 60.0),
    );
    if let Some(calls) = quiet.figures.get("describes_per_minute") {
        outcome.figure("quiet_describes_per_minute", *calls);
    }
    outcome.figure(
        "identities_per_rotation",
        number(since.calls_of("GetCallerIdentity")) / f64::from(ROTATIONS),
    );
    outcome.count("passes", bench.passes().await? - passes);
    outcome.count("writes", since.writes());
    outcome.raw = since.raw();
    Ok(outcome)
}

/// S20. S4, S5 and the memory of S9, with instances that have 8 interfaces of 20 addresses each.
pub async fn large_rows(bench: &mut BenchRun) -> Result<Outcome> {
    let mut outcome = steady(bench).await?;
    let drift = drift(bench).await?;
    outcome.figures.extend(drift.figures);
    let usage = measure::usage(bench.process()?.pid())?;
    outcome.figure("peak_mib", usage.peak_mib);
    Ok(outcome)
}

/// The textbook operator detects drift only as often as it reconciles; for a fair comparison it reconciles as often as our
/// scan runs.
async fn look_every_minute(bench: &mut BenchRun) -> Result<()> {
    bench.fill().await?;
    if bench.candidate == Candidate::Textbook {
        bench.process()?.kill();
        bench.start_candidate(Duration::from_secs(60)).await?;
    }
    bench.until_quiet().await?;
    Ok(())
}

/// S5. One edge in 100 is removed, all at the same time.
pub async fn drift(bench: &mut BenchRun) -> Result<Outcome> {
    look_every_minute(bench).await?;
    let n = bench.arguments.n;
    let drifted = chosen(n, n.div_ceil(100), bench.arguments.seed);
    let changes: Vec<Value> = drifted
        .iter()
        .map(|index| {
            let request = MembershipRequest::number(*index);
            json!({"leave": {"target": request.instance, "securityGroupId": request.group}})
        })
        .collect();
    // At a random time within the minute, not right after a scan.
    let moment = rand::rngs::StdRng::seed_from_u64(bench.arguments.seed).random_range(10..50);
    tokio::time::sleep(Duration::from_secs(moment)).await;
    let before = bench.before().await?;
    let started = Instant::now();
    bench.cluster.simulator.change(&json!(changes)).await?;
    let at_start = bench.calls().await?.effects(JOIN);
    let mut repaired = Vec::new();
    while repaired.len() < drifted.len() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let now = bench.calls().await?.effects(JOIN) - at_start;
        let at = started.elapsed().as_secs_f64();
        repaired.resize(usize::try_from(now)?.max(repaired.len()), at);
        crate::progress::at(&format!("{} of {} repaired", repaired.len(), drifted.len()));
        if started.elapsed() > DRIFT_LIMIT {
            return Err(Error::new(format!(
                "only {} of {} repaired after {DRIFT_LIMIT:?}",
                repaired.len(),
                drifted.len()
            )));
        }
    }
    tokio::time::sleep(Duration::from_secs(5)).await; // a superfluous Join would come now
    let since = bench.since(before).await?;
    let mut outcome = Outcome::default();
    outcome.figure("repaired_p50_s", quantile(&mut repaired, 0.5));
    outcome.figure("repaired_p99_s", quantile(&mut repaired, 0.99));
    outcome.figure(
        "joins_per_drift",
        number(since.calls_of(JOIN)) / number(drifted.len() as u64),
    );
    outcome.raw = since.raw();
    Ok(outcome)
}

/// S7. One new membership per second for half a minute, beside N that are Ready.
pub async fn one_per_second(bench: &mut BenchRun) -> Result<Outcome> {
    bench.fill().await?;
    let first = bench.filled;
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    let last = (first + NEW_OBJECTS).min(bench.arguments.n + crate::cluster::SPARE);
    for index in first..last {
        ticks.tick().await;
        crate::progress::at(&format!("new object {}", index - first + 1));
        load::create_one(
            &bench.cluster.client,
            &bench.watch,
            &MembershipRequest::number(index),
        )
        .await?;
    }
    bench
        .watch
        .until_ready(last as usize, bench.patience())
        .await?;
    bench.filled = last;
    let mut took: Vec<f64> = bench
        .watch
        .filter(|name| (first..last).any(|index| load::name(index) == name))
        .into_iter()
        .filter_map(|(_, seen)| Some((seen.ready? - seen.asked?).as_secs_f64() * 1_000.0))
        .collect();
    let mut outcome = Outcome::default();
    outcome.figure("ready_p50_ms", quantile(&mut took, 0.5));
    outcome.figure("ready_p99_ms", quantile(&mut took, 0.99));
    Ok(outcome)
}

/// `count` of the first n, chosen by the seed.
pub fn chosen(n: u32, count: u32, seed: u64) -> Vec<u32> {
    let mut all: Vec<u32> = (0..n).collect();
    all.shuffle(&mut rand::rngs::StdRng::seed_from_u64(seed));
    all.truncate(count as usize);
    all
}

const JOIN: &str = "JoinSecurityGroup";
const NEW_OBJECTS: u32 = 30;
const DRIFT_LIMIT: Duration = Duration::from_secs(300);
