//! Not a measurement: a picture of the chart's dashboard, from what a real Prometheus has scraped while memberships were made, drifted,
//! were refused and were deleted.
#![allow(
    clippy::indexing_slicing,
    reason = "a JSON value is null where a field is not there"
)]

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::bench_run::{BenchRun, TEXTBOOK_PERIOD};
use crate::candidate::Running;
use crate::load::{self, MembershipRequest};
use crate::outcome::Outcome;
use crate::plot::{self, Graph};
use crate::support::error::{Context as _, Error, Result};
use crate::support::prometheus::{Panel, Prometheus, panels};

/// Where the picture is written.
const PICTURE: &str = "docs/dashboard.svg";

/// The rates of the dashboard are those of 5 minutes; the run has only some, and shows those of 30 seconds.
const RATE: (&str, &str) = ("[5m]", "[30s]");

/// Plays the story and draws the picture.
pub async fn picture(bench: &mut BenchRun) -> Result<Outcome> {
    bench.start_candidate(TEXTBOOK_PERIOD).await?;
    let Running::Ours(operator) = bench.process()? else {
        return Err(Error::new("the dashboard shows our operator"));
    };
    let prometheus = Prometheus::start(&operator.url(""), "groups: []").await?;
    let from = now()?;
    play(bench).await?;
    let to = now()?;
    let mut graphs = Vec::new();
    for panel in panels()?.iter().filter(|panel| panel.is_graph) {
        graphs.push(graph(panel, &prometheus, from, to).await?);
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(PICTURE);
    plot::grid(&file, to - from, &graphs).context(file.display())?;
    crate::progress::line(&format!("wrote {}", file.display()));
    Ok(Outcome::default())
}

/// A tenth of the memberships cannot be joined, one in 20 drifts, and a fifth is deleted.
async fn play(bench: &mut BenchRun) -> Result<()> {
    let n = bench.arguments.n;
    let simulator = &bench.cluster.simulator;
    let refused = (0..n / 10).map(|index| {
        let fault = json!({"error": {"code": "InstanceSecurityGroupLimitExceeded", "status": 400}});
        json!({"action": "JoinSecurityGroup", "target": load::instance(index * 10 + 1), "fault": fault})
    });
    simulator
        .faults(&json!(refused.collect::<Vec<_>>()))
        .await?;
    let requests: Vec<MembershipRequest> = (0..n).map(MembershipRequest::number).collect();
    load::create(&bench.cluster, &bench.watch, &requests).await?;
    let ready = (n - n / 10) as usize;
    bench.watch.until_ready(ready, bench.patience()).await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let drifted = (0..n / 20).map(|index| {
        let request = MembershipRequest::number(index * 20);
        json!({"leave": {"target": request.instance, "securityGroupId": request.group}})
    });
    simulator
        .change(&json!(drifted.collect::<Vec<_>>()))
        .await?;
    // A scan and the repairs.
    tokio::time::sleep(Duration::from_secs(80)).await;
    let names: Vec<String> = (0..n / 5).map(|index| load::name(index * 5)).collect();
    load::delete(&bench.cluster, &bench.watch, &names).await?;
    tokio::time::sleep(Duration::from_secs(20)).await;
    Ok(())
}

async fn graph(panel: &Panel, prometheus: &Prometheus, from: f64, to: f64) -> Result<Graph> {
    let mut curves = Vec::new();
    for line in &panel.lines {
        let expression = line.expression.replace(RATE.0, RATE.1);
        for series in prometheus.query_range(&expression, from, to).await? {
            let mut name = line.legend.clone();
            for label in line.labels() {
                let value = series["metric"][label].as_str().unwrap_or_default();
                name = name.replace(&format!("{{{{{label}}}}}"), value);
            }
            let values = series["values"].as_array().context("values")?.iter();
            let points = values.filter_map(|pair| {
                let value: f64 = pair[1].as_str()?.parse().ok()?;
                value
                    .is_finite()
                    .then_some((pair[0].as_f64()? - from, value))
            });
            curves.push((name, points.collect()));
        }
    }
    Ok(Graph {
        title: panel.title.clone(),
        unit: panel.unit.clone(),
        curves,
    })
}

fn now() -> Result<f64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}
