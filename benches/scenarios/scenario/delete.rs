//! S8: a user deletes all memberships. For one edge in 100, the group is the instance's last one, and the cloud rejects the
//! Leave.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::steady::chosen;
use crate::arguments::Candidate;
use crate::bench_run::BenchRun;
use crate::load::{self, MembershipRequest};
use crate::outcome::{Outcome, number};
use crate::support::error::Result;

/// S8. The clock runs from the first DELETE until the last deletable object is deleted.
pub async fn delete_all(bench: &mut BenchRun) -> Result<Outcome> {
    bench.fill().await?;
    let total = bench.filled;
    let stuck = match bench.candidate {
        Candidate::Ours | Candidate::Textbook => chosen(
            bench.arguments.n,
            bench.arguments.n.div_ceil(100),
            bench.arguments.seed,
        ),
        // It asks no cloud, so that all can go.
        Candidate::Floor => Vec::new(),
    };
    let changes: Vec<Value> = stuck
        .iter()
        .map(|index| {
            let instance = MembershipRequest::number(*index).instance;
            json!({"leave": {"target": instance, "securityGroupId": "sg-base"}})
        })
        .collect();
    bench.cluster.simulator.change(&json!(changes)).await?;
    let stuck: std::collections::HashSet<String> = stuck.into_iter().map(load::name).collect();
    let can_go = total as usize - stuck.len();
    let names: Vec<String> = (0..total).map(load::name).collect();
    let before = bench.before().await?;
    let started = Instant::now();
    let work = async {
        match bench.candidate {
            Candidate::Ours | Candidate::Textbook => {
                load::delete(&bench.cluster, &bench.watch, &names).await?;
            }
            Candidate::Floor => {
                load::floor_delete(&bench.cluster, &bench.watch, &names).await?;
            }
        }
        bench
            .watch
            .until("gone", bench.patience(), |watch| {
                let gone = watch.count(|seen| seen.gone.is_some());
                (gone, gone >= can_go)
            })
            .await
    };
    let ((), samples) = bench.sampled(work).await?;
    let last = bench
        .watch
        .filter(|_| true)
        .into_iter()
        .filter_map(|(_, seen)| seen.gone)
        .max()
        .map_or(0.0, |gone| {
            gone.saturating_duration_since(started).as_secs_f64()
        });
    // The objects that stay get their status within the same time; one second of delay does not count.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let since = bench.since(before).await?;
    let with_reason = bench
        .watch
        .filter(|name| stuck.contains(name))
        .iter()
        .filter(|(_, seen)| seen.gone.is_none() && seen.code == "InstanceLastSecurityGroup")
        .count();
    let mut outcome = Outcome::default();
    outcome.figure("all_gone_s", last);
    if bench.candidate != Candidate::Floor {
        outcome.figure(
            "leaves_per_edge",
            number(since.calls_with(LEAVE, "OK")) / number(can_go as u64),
        );
        outcome.figure(
            "kept_with_reason_percent",
            100.0 * number(with_reason as u64) / number(stuck.len() as u64),
        );
    }
    outcome.figure("writes_per_edge", number(since.writes()) / f64::from(total));
    let line = samples
        .iter()
        .map(|sample| (sample.at.as_secs_f64(), number(sample.gone as u64)))
        .collect();
    outcome.lines.insert("gone".to_owned(), line);
    outcome.raw = since.raw();
    Ok(outcome)
}

const LEAVE: &str = "LeaveSecurityGroup";
