//! S6: a group that always fails, a key that was revoked and a region that never answers, each with a twentieth of the edges.
//! Measured is how the others fare.

use std::time::Duration;

use serde_json::json;

use crate::bed::OTHER_KEY;
use crate::load::{self, Wish};
use crate::outcome::{Outcome, quantile};
use crate::stand::{Stand, TEXTBOOK_PERIOD};
use crate::support::error::Result;

/// The group that fails.
const GROUP: &str = "sg-sim0099";
/// The region that does not answer.
const REGION: &str = "cn-beijing";

/// What is wrong with an edge.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Lot {
    Healthy,
    Group,
    Key,
    Region,
}

/// By number, so that they stand among the others.
const fn lot(index: u32) -> Lot {
    match index % 20 {
        3 => Lot::Group,
        9 => Lot::Key,
        15 => Lot::Region,
        _ => Lot::Healthy,
    }
}

fn wish(index: u32) -> Wish {
    let mut wish = Wish::number(index);
    match lot(index) {
        Lot::Healthy => {
            if wish.group == GROUP {
                "sg-sim0000".clone_into(&mut wish.group);
            }
        }
        Lot::Group => GROUP.clone_into(&mut wish.group),
        Lot::Key => wish.account = OTHER_KEY.account,
        Lot::Region => wish.region = REGION,
    }
    wish
}

/// S6. Once with nothing broken, then on a stand of its own with all three broken.
pub async fn healthy(stand: &mut Stand) -> Result<Outcome> {
    let well = healthy_p99(stand, false).await?;
    let mut other = Stand::set(&stand.arguments, stand.contender, &[]).await?;
    let mut outcome = healthy_p99(&mut other, true).await?;
    let p99 = |outcome: &Outcome| outcome.figures.get(P99).copied().unwrap_or(0.0);
    outcome.figure("healthy_ratio", p99(&outcome) / p99(&well));
    outcome.figure("unbroken_p99_s", p99(&well));
    Ok(outcome)
}

const P99: &str = "healthy_p99_s";

/// The time that healthy edges take, with the others among them; `broken` says whether the others are.
///
/// Without, the same number of objects is made, and all of them are well: only the harm done is the difference.
async fn healthy_p99(stand: &mut Stand, broken: bool) -> Result<Outcome> {
    stand.start(TEXTBOOK_PERIOD).await?;
    if broken {
        break_three(stand).await?;
    }
    let n = stand.arguments.n;
    let wishes: Vec<Wish> = (0..n)
        .map(|index| {
            if broken {
                wish(index)
            } else {
                Wish::number(index)
            }
        })
        .collect();
    load::create(&stand.bed, &stand.watch, &wishes).await?;
    let healthy: std::collections::HashSet<String> = (0..n)
        .filter(|index| lot(*index) == Lot::Healthy)
        .map(load::name)
        .collect();
    let waited = stand
        .watch
        .until("healthy and Ready", patience(n), |watch| {
            let ready = watch
                .those(|name| healthy.contains(name))
                .iter()
                .filter(|(_, seen)| seen.ready.is_some())
                .count();
            (ready, ready == healthy.len())
        })
        .await;
    let mut took: Vec<f64> = stand
        .watch
        .those(|name| healthy.contains(name))
        .into_iter()
        .filter_map(|(_, seen)| Some((seen.ready? - seen.asked?).as_secs_f64()))
        .collect();
    let mut outcome = Outcome::default();
    outcome.count("healthy_not_ready", (healthy.len() - took.len()) as u64);
    if let Err(error) = waited {
        outcome.notes.push(error.to_string());
        // Who is not Ready yet has waited at least this long.
        took.resize(healthy.len(), patience(n).as_secs_f64());
    }
    outcome.figure(P99, quantile(&mut took, 0.99));
    Ok(outcome)
}

async fn break_three(stand: &Stand) -> Result<()> {
    let faults = json!([
        {"action": "JoinSecurityGroup", "securityGroupId": GROUP, "fault": {"error": {"code": "InternalError", "status": 500}}},
        {"region": REGION, "fault": "silence"},
    ]);
    stand.bed.simulator.faults(&faults).await?;
    let revoked = json!({"revokeKey": {"id": OTHER_KEY.id}});
    stand.bed.simulator.change(&revoked).await
}

fn patience(n: u32) -> Duration {
    Duration::from_secs(60 + u64::from(n) / 20)
}
