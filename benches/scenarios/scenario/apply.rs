//! S1: a user applies all memberships while the operator runs. S10: the same with a backlog, beside a client that only
//! reads.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;

use crate::arguments::Candidate;
use crate::bench_run::{BenchRun, Sample, Since, TEXTBOOK_PERIOD};
use crate::cluster::NAMESPACE;
use crate::load::{self, IN_FLIGHT, MembershipRequest};
use crate::outcome::{Outcome, number, quantile};
use crate::support::error::Result;

/// S1. The clock runs from the first request of the user until the last membership is Ready.
pub async fn apply_all(bench: &mut BenchRun) -> Result<Outcome> {
    bench.start_candidate(TEXTBOOK_PERIOD).await?;
    let n = bench.arguments.n;
    let requests: Vec<MembershipRequest> = (0..n).map(MembershipRequest::number).collect();
    let before = bench.before().await?;
    let started = Instant::now();
    let ((), samples) = bench.sampled(bench.make(&requests)).await?;
    bench.filled = n;
    let since = bench.since(before).await?;
    let mut outcome = Outcome::default();
    times(bench, started, &mut outcome);
    costs(&since, n, &mut outcome);
    ready_line(&samples, &mut outcome);
    Ok(outcome)
}

/// Time until all were Ready, and the time per membership.
fn times(bench: &BenchRun, started: Instant, outcome: &mut Outcome) {
    let mut each = Vec::new();
    let mut last = 0.0_f64;
    for (_, seen) in bench.watch.filter(|_| true) {
        if let (Some(asked), Some(ready)) = (seen.asked, seen.ready) {
            each.push(ready.saturating_duration_since(asked).as_secs_f64());
            last = last.max(ready.saturating_duration_since(started).as_secs_f64());
        }
    }
    outcome.figure("all_ready_s", last);
    outcome.figure("ready_p50_s", quantile(&mut each, 0.5));
    outcome.figure("ready_p99_s", quantile(&mut each, 0.99));
}

/// Costs per edge.
pub fn costs(since: &Since, n: u32, outcome: &mut Outcome) {
    let edges = f64::from(n);
    outcome.figure("calls_per_edge", number(since.total_calls()) / edges);
    outcome.figure("writes_per_edge", number(since.writes()) / edges);
    outcome.figure("events_per_edge", number(since.events()) / edges);
    outcome.figure(
        "api_server_cpu_ms_per_edge",
        since.api_server_cpu_seconds * 1_000.0 / edges,
    );
    outcome.figure("api_server_peak_mib", since.api_server.peak_mib);
    if let Some(own) = since.own {
        outcome.figure("cpu_ms_per_edge", since.cpu_seconds * 1_000.0 / edges);
        outcome.figure("peak_mib", own.peak_mib);
    }
    outcome.raw = since.raw();
}

/// Edges Ready over time.
#[expect(
    clippy::cast_precision_loss,
    reason = "counts of a benchmark are far below 2^52"
)]
pub fn ready_line(samples: &[Sample], outcome: &mut Outcome) {
    let line = samples
        .iter()
        .map(|sample| (sample.at.as_secs_f64(), sample.ready as f64))
        .collect();
    outcome.lines.insert("ready".to_owned(), line);
}

/// S10. A client reads 20 times per second, first alone, then beside an operator with a full backlog.
pub async fn beside_a_reader(bench: &mut BenchRun) -> Result<Outcome> {
    let n = bench.arguments.n;
    let requests: Vec<MembershipRequest> = (0..n).map(MembershipRequest::number).collect();
    load::create(&bench.cluster, &bench.watch, &requests).await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    crate::progress::at("the reader alone");
    let (mut idle, ()) = read_during(bench, async {
        tokio::time::sleep(Duration::from_secs(10)).await;
        Ok(())
    })
    .await?;
    let before = bench.before().await?;
    if bench.candidate != Candidate::Floor {
        bench.start_candidate(TEXTBOOK_PERIOD).await?;
    }
    let (mut busy, ()) = read_during(bench, catch_up(bench, &requests)).await?;
    bench.filled = n;
    let since = bench.since(before).await?;
    let mut outcome = Outcome::default();
    let (alone, beside) = (quantile(&mut idle, 0.99), quantile(&mut busy, 0.99));
    outcome.figure("reader_alone_p99_ms", alone * 1_000.0);
    outcome.figure("reader_p99_ms", beside * 1_000.0);
    outcome.figure("reader_ratio", beside / alone);
    outcome.count("too_many_requests", since.answered(429));
    outcome.raw = since.raw();
    Ok(outcome)
}

async fn catch_up(bench: &BenchRun, requests: &[MembershipRequest]) -> Result<()> {
    match bench.candidate {
        Candidate::Ours | Candidate::Textbook => {}
        Candidate::Floor => {
            let api = bench.cluster.memberships();
            let uids: std::collections::HashMap<String, String> = api
                .list(&kube::api::ListParams::default())
                .await?
                .items
                .into_iter()
                .filter_map(|object| Some((object.metadata.name?, object.metadata.uid?)))
                .collect();
            let mut writes = futures::stream::iter(requests)
                .map(|request| {
                    let uid = uids.get(&request.name).cloned().unwrap_or_default();
                    async move { load::floor_writes(&bench.cluster.client, request, &uid).await }
                })
                .buffer_unordered(IN_FLIGHT);
            while let Some(written) = writes.next().await {
                written?;
            }
        }
    }
    bench
        .watch
        .until_ready(requests.len(), bench.patience())
        .await
}

/// Duration of each read in seconds while `work` runs.
async fn read_during<T>(
    bench: &BenchRun,
    work: impl Future<Output = Result<T>>,
) -> Result<(Vec<f64>, T)> {
    // A separate connection: a read must not wait behind the bench's own writes.
    let client = bench.cluster.plane.admin_client().await?;
    let (took, mut reads) = tokio::sync::mpsc::unbounded_channel();
    let reader = tokio::spawn(async move {
        let api: Api<Namespace> = Api::all(client);
        let mut ticks = tokio::time::interval(Duration::from_millis(50));
        loop {
            ticks.tick().await;
            let asked = Instant::now();
            let answer = api.get(NAMESPACE).await;
            // A failed read counts as infinitely long.
            let seconds = answer.map_or(f64::INFINITY, |_| asked.elapsed().as_secs_f64());
            if took.send(seconds).is_err() {
                return;
            }
        }
    });
    let done = work.await;
    reader.abort();
    let mut seconds = Vec::new();
    while let Ok(one) = reads.try_recv() {
        seconds.push(one);
    }
    Ok((seconds, done?))
}
