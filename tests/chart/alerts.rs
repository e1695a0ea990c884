//! The metrics and the alerts of the chart, judged by promtool; tests/process/monitoring.rs has a real Prometheus.

use std::collections::BTreeSet;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use security_group_operator::ecs::{Action, ApiError, Error};
use security_group_operator::telemetry::catalogue::{Kind, METRICS, PREFIX};
use security_group_operator::telemetry::{self, Samples, Telemetry};
use tokio::io::AsyncWriteExt as _;
use tower::ServiceExt as _;

use crate::helm::repository;
use crate::support::assets;
use crate::support::error::{Context as _, Result};

const RULES: &str = "deploy/chart/files/alerts.yaml";
const DASHBOARD: &str = "deploy/chart/files/dashboard.json";
const CASES: &str = "tests/chart/alerts.test.yaml";

/// Whether promtool accepts it, and what it says.
async fn promtool(arguments: &[&str], input: &str) -> Result<(bool, String)> {
    let mut child = tokio::process::Command::new(assets::prometheus().await?.join("promtool"))
        .args(arguments)
        .current_dir(repository())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("promtool")?;
    let mut stdin = child.stdin.take().context("stdin")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let output = child.wait_with_output().await?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    Ok((output.status.success(), said))
}

fn read(path: &str) -> String {
    std::fs::read_to_string(repository().join(path)).unwrap()
}

fn alerts() -> Vec<String> {
    let rules = read(RULES);
    let lines = rules.lines();
    let names = lines.filter_map(|line| line.trim().strip_prefix("- alert: "));
    names.map(str::to_owned).collect()
}

/// `/metrics` of a process with at least one series of each metric.
async fn every_metric() -> String {
    let telemetry = Arc::new(Telemetry::default());
    let second = Duration::from_secs(1);
    let invented = "xx-invented-1".parse().unwrap();
    let unknown = Error::Api(ApiError {
        action: Action::JoinSecurityGroup,
        status: 400,
        code: "Invented".to_owned(),
        message: String::new(),
        request_id: None,
        access_denied_detail: None,
        retry_after: None,
        limit: None,
    });
    telemetry.count_call(unknown.action(), &invented, Some(&unknown), second);
    telemetry.note_batch(7);
    telemetry.count_reconcile("ready", second);
    telemetry.note_time_to_ready(second);
    telemetry.count_drift("repaired");
    telemetry.count_status_write(None);
    telemetry.set_source(|| {
        let mut samples = Samples::default();
        for metric in METRICS.iter().filter(|metric| metric.kind == Kind::Gauge) {
            let own = ["build_info", "leader"];
            let name = metric.name.strip_prefix(PREFIX);
            if let Some(name) = name.filter(|name| !own.contains(name)) {
                let labels = metric.labels.iter();
                let labels = labels.map(|(label, _)| (*label, "x".to_owned()));
                samples.add(name, labels.collect(), 1.0);
            }
        }
        samples
    });
    telemetry.set_leader(true);
    let request = http::Request::get("/metrics").body(axum::body::Body::empty());
    let answer = telemetry::routes(telemetry).oneshot(request.unwrap()).await;
    let body = axum::body::to_bytes(answer.unwrap().into_body(), usize::MAX).await;
    String::from_utf8(body.unwrap().into()).unwrap()
}

#[tokio::test]
async fn promtool_finds_nothing_wrong_with_the_metrics() -> Result<()> {
    let text = every_metric().await;
    for metric in METRICS {
        let described = format!("# TYPE {} ", metric.name);
        assert!(text.contains(&described), "no {described:?} in\n{text}");
    }
    let (accepted, said) = promtool(&["check", "metrics"], &text).await?;
    assert!(accepted && said.is_empty(), "{said}");
    let (accepted, _) = promtool(&["check", "metrics"], "# TYPE a gauge\na_total 1\n").await?;
    assert!(!accepted, "it accepts everything");
    Ok(())
}

#[tokio::test]
async fn every_alert_fires_after_its_time_and_not_before() -> Result<()> {
    let (passed, said) = promtool(&["test", "rules", CASES], "").await?;
    assert!(passed, "{said}");
    let (cases, runbook) = (read(CASES), read("docs/runbook.md"));
    let alerts = alerts();
    assert!(alerts.len() > 10, "{alerts:?}");
    for alert in alerts {
        let fires = format!("alertname: {alert}\n    exp_alerts:\n    - exp_labels");
        let is_quiet = format!("alertname: {alert}, exp_alerts: []");
        assert!(cases.contains(&fires), "{alert} never fires");
        assert!(cases.contains(&is_quiet), "{alert} is never quiet");
        let row = format!("\n| `{alert}` | ");
        assert!(runbook.contains(&row), "the runbook lacks {alert}");
    }
    Ok(())
}

#[test]
fn alerts_and_dashboard_name_metrics_that_exist() {
    let mut known: BTreeSet<String> = BTreeSet::new();
    for metric in METRICS {
        let parts: &[&str] = match metric.kind {
            Kind::Counter | Kind::Gauge => &[""],
            Kind::Histogram => &["_bucket", "_count", "_sum"],
        };
        known.extend(parts.iter().map(|part| format!("{}{part}", metric.name)));
    }
    for (file, least) in [(RULES, 8), (DASHBOARD, 20)] {
        let text = read(file);
        let words = text.split(|letter: char| !(letter.is_ascii_alphanumeric() || letter == '_'));
        let prefixes = [PREFIX, "process_"];
        let named = words.filter(|word| prefixes.iter().any(|prefix| word.starts_with(prefix)));
        let named: BTreeSet<String> = named.map(str::to_owned).collect();
        assert!(named.len() > least, "{named:?}");
        let unknown: Vec<_> = named.difference(&known).collect();
        assert!(unknown.is_empty(), "{file}: {unknown:?}");
    }
}

/// Which metric has no panel is a decision: it is named here.
#[test]
fn every_metric_has_a_panel() {
    let dashboard = read(DASHBOARD);
    for metric in METRICS {
        assert!(
            dashboard.contains(metric.name),
            "no panel shows {}",
            metric.name
        );
    }
}
