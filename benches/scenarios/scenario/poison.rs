//! S6: a group that always fails, a revoked key and a region that never answers, each with a twentieth of the edges.
//! Measures the other edges.

use std::time::Duration;

use serde_json::json;

use crate::bench_run::{BenchRun, TEXTBOOK_PERIOD};
use crate::cluster::OTHER_KEY;
use crate::load::{self, MembershipRequest};
use crate::outcome::{Outcome, quantile};
use crate::support::error::Result;

/// The group that fails.
const GROUP: &str = "sg-sim0099";
/// The region that does not answer.
const REGION: &str = "cn-beijing";

/// The fault of an edge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    Group,
    Key,
    Region,
}

/// Chosen by number, so that faulty edges are spread among the others.
const fn fault_of(index: u32) -> Fault {
    match index % 20 {
        3 => Fault::Group,
        9 => Fault::Key,
        15 => Fault::Region,
        _ => Fault::None,
    }
}

fn request(index: u32) -> MembershipRequest {
    let mut request = MembershipRequest::number(index);
    match fault_of(index) {
        Fault::None => {
            if request.group == GROUP {
                "sg-sim0000".clone_into(&mut request.group);
            }
        }
        Fault::Group => GROUP.clone_into(&mut request.group),
        Fault::Key => request.account = OTHER_KEY.account,
        Fault::Region => request.region = REGION,
    }
    request
}

/// S6. First without faults, then in a second bench run with all three.
pub async fn healthy(bench: &mut BenchRun) -> Result<Outcome> {
    let well = healthy_p99(bench, false).await?;
    let mut other = BenchRun::start(&bench.arguments, bench.candidate, &[]).await?;
    let mut outcome = healthy_p99(&mut other, true).await?;
    let p99 = |outcome: &Outcome| outcome.figures.get(P99).copied().unwrap_or(0.0);
    outcome.figure("healthy_ratio", p99(&outcome) / p99(&well));
    outcome.figure("unbroken_p99_s", p99(&well));
    Ok(outcome)
}

const P99: &str = "healthy_p99_s";

/// The time of the healthy edges, with the faulty ones among them; `broken` enables the faults.
///
/// Without faults, the same number of objects is created, all of them healthy: the faults are the only difference.
async fn healthy_p99(bench: &mut BenchRun, broken: bool) -> Result<Outcome> {
    bench.start_candidate(TEXTBOOK_PERIOD).await?;
    if broken {
        break_three(bench).await?;
    }
    let n = bench.arguments.n;
    let requests: Vec<MembershipRequest> = (0..n)
        .map(|index| {
            if broken {
                request(index)
            } else {
                MembershipRequest::number(index)
            }
        })
        .collect();
    load::create(&bench.cluster, &bench.watch, &requests).await?;
    let healthy: std::collections::HashSet<String> = (0..n)
        .filter(|index| fault_of(*index) == Fault::None)
        .map(load::name)
        .collect();
    let waited = bench
        .watch
        .until("healthy and Ready", patience(n), |watch| {
            let ready = watch
                .filter(|name| healthy.contains(name))
                .iter()
                .filter(|(_, seen)| seen.ready.is_some())
                .count();
            (ready, ready == healthy.len())
        })
        .await;
    let mut took: Vec<f64> = bench
        .watch
        .filter(|name| healthy.contains(name))
        .into_iter()
        .filter_map(|(_, seen)| Some((seen.ready? - seen.asked?).as_secs_f64()))
        .collect();
    let mut outcome = Outcome::default();
    outcome.count("healthy_not_ready", (healthy.len() - took.len()) as u64);
    if let Err(error) = waited {
        outcome.notes.push(error.to_string());
        // A membership that is not Ready has waited at least this long.
        took.resize(healthy.len(), patience(n).as_secs_f64());
    }
    outcome.figure(P99, quantile(&mut took, 0.99));
    Ok(outcome)
}

async fn break_three(bench: &BenchRun) -> Result<()> {
    let faults = json!([
        {"action": "JoinSecurityGroup", "securityGroupId": GROUP, "fault": {"error": {"code": "InternalError", "status": 500}}},
        {"region": REGION, "fault": "silence"},
    ]);
    bench.cluster.simulator.faults(&faults).await?;
    let revoked = json!({"revokeKey": {"id": OTHER_KEY.id}});
    bench.cluster.simulator.change(&revoked).await
}

fn patience(n: u32) -> Duration {
    Duration::from_secs(60 + u64::from(n) / 20)
}
