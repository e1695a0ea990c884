//! takeover: two operators with the Lease that `deploy/` ships, and all memberships Ready. The leader gets a signal, and a user
//! creates one more membership at that moment: the time until it is Ready.

use std::time::Instant;

use crate::bench_run::BenchRun;
use crate::cluster;
use crate::load::{self, MembershipRequest};
use crate::outcome::{Outcome, quantile};
use crate::support::error::{Context as _, Result};
use crate::support::operator::Operator;

/// How often the leader gets each signal.
const ROUNDS: [(&str, u32); 2] = [("TERM", 10), ("KILL", 5)];

pub async fn takeover(bench: &mut BenchRun) -> Result<Outcome> {
    let n = bench.arguments.n;
    let mut leader = cluster::start_elected(&bench.cluster).await?;
    let mut standby = cluster::start_elected(&bench.cluster).await?;
    let requests: Vec<MembershipRequest> = (0..n).map(MembershipRequest::number).collect();
    load::create(&bench.cluster, &bench.watch, &requests).await?;
    bench
        .watch
        .until_ready(n as usize, bench.patience())
        .await?;
    let mut outcome = Outcome::default();
    let mut next = n;
    for (signal, rounds) in ROUNDS {
        let mut times = Vec::new();
        for round in 1..=rounds {
            crate::progress::at(&format!("SIG{signal} {round} of {rounds}"));
            times.push(one(bench, &mut leader, signal, next).await?);
            next += 1;
            std::mem::swap(&mut leader, &mut standby);
            standby.restart().await?;
        }
        let name = signal.to_lowercase();
        outcome.figure(&format!("{name}_p50_s"), quantile(&mut times, 0.5));
        outcome.figure(&format!("{name}_max_s"), quantile(&mut times, 1.0));
        outcome.notes.push(format!("SIG{signal}, s: {times:.2?}"));
    }
    Ok(outcome)
}

/// Seconds from the signal until a membership that was created at the same moment is Ready.
async fn one(bench: &BenchRun, leader: &mut Operator, signal: &str, index: u32) -> Result<f64> {
    let signalled = Instant::now();
    leader.process().signal(signal)?;
    let request = [MembershipRequest::number(index)];
    load::create(&bench.cluster, &bench.watch, &request).await?;
    bench
        .watch
        .until_ready(index as usize + 1, bench.patience())
        .await?;
    let new = bench.watch.filter(|name| name == load::name(index));
    let ready = new.first().and_then(|(_, seen)| seen.ready);
    let ready = ready.context("the new object is not Ready")?;
    Ok(ready.saturating_duration_since(signalled).as_secs_f64())
}
