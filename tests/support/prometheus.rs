//! A real Prometheus that scrapes one operator, and the dashboard of the chart. Starts, asks and reads; decides nothing.
#![allow(
    clippy::indexing_slicing,
    reason = "a JSON value is null where a field is not there"
)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{Context as _, Error, Result};
use super::process::Child;
use super::simulator::{fetch, probe};
use super::tempdir::TempDir;
use super::{assets, port};

/// Dropping it kills it.
pub struct Prometheus {
    url: String,
    _child: Child,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes `target` (a URL without a path) and evaluates `rules` each second.
    pub async fn start(target: &str, rules: &str) -> Result<Self> {
        let directory = TempDir::new("prometheus")?;
        let target = target.trim_start_matches("http://");
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "operator", "static_configs": [{"targets": [target]}]}],
        });
        let file = directory.path().join("prometheus.json");
        std::fs::write(&file, config.to_string())?;
        std::fs::write(directory.path().join("rules.yaml"), rules)?;
        let listen = format!("127.0.0.1:{}", port::free()?);
        let mut command = Command::new(assets::prometheus().await?.join("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={listen}"));
        let log = directory.path().join("prometheus.log");
        let mut child = Child::spawn("prometheus", &command, &log)?;
        let url = format!("http://{listen}");
        let ready = format!("{url}/-/ready");
        child
            .wait_until(START_LIMIT, async || probe(&ready).await)
            .await?;
        Ok(Self {
            url,
            _child: child,
            _directory: directory,
        })
    }

    /// The series that an expression gives now, each with `metric`, its labels.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        self.series("query", &[("query", expression)]).await
    }

    /// The series that an expression gave at each second of this time, in seconds since 1970: `metric`, and `values` as pairs of a
    /// time and a number in text.
    pub async fn query_range(&self, expression: &str, from: f64, to: f64) -> Result<Vec<Value>> {
        let (from, to) = (from.to_string(), to.to_string());
        let parameters = [
            ("query", expression),
            ("start", &from),
            ("end", &to),
            ("step", "1s"),
        ];
        self.series("query_range", &parameters).await
    }

    /// The alerts that are pending or firing.
    pub async fn alerts(&self) -> Result<Vec<Value>> {
        let mut data = self.get("/api/v1/alerts").await?;
        list(data["alerts"].take())
    }

    async fn series(&self, api: &str, parameters: &[(&str, &str)]) -> Result<Vec<Value>> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(parameters)
            .finish();
        let mut data = self.get(&format!("/api/v1/{api}?{query}")).await?;
        list(data["result"].take())
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = fetch(&format!("{}{path}", self.url)).await?;
        let mut answer: Value = serde_json::from_slice(&answer)?;
        if answer["status"] != "success" {
            return Err(Error::new(format!("{path}: {answer}")));
        }
        Ok(answer["data"].take())
    }
}

fn list(value: Value) -> Result<Vec<Value>> {
    serde_json::from_value(value).context("Prometheus answers no list")
}

/// One panel of the dashboard that shows numbers.
pub struct Panel {
    pub title: String,
    /// Grafana's name of the unit: `s`, `bytes` or `short`.
    pub unit: String,
    /// Whether it shows lines over time, and not one number.
    pub is_graph: bool,
    pub lines: Vec<Line>,
}

/// What a panel shows.
pub struct Line {
    /// For all jobs.
    pub expression: String,
    /// With `{{label}}` for the value of a label.
    pub legend: String,
}

impl Line {
    /// The labels that the legend names.
    pub fn labels(&self) -> impl Iterator<Item = &str> {
        let parts = self.legend.split("{{").skip(1);
        parts.filter_map(|part| Some(part.split_once("}}")?.0))
    }
}

/// The panels of deploy/chart/files/dashboard.json, from the top.
pub fn panels() -> Result<Vec<Panel>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/chart/files/dashboard.json");
    let mut dashboard: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let panels = list(dashboard["panels"].take())?.into_iter();
    let panels = panels.filter(|panel| panel["type"] != "row");
    panels
        .map(|mut panel| {
            let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
            let lines = list(panel["targets"].take())?.into_iter();
            let lines = lines.map(|target| {
                Ok(Line {
                    expression: text(&target["expr"])?.replace("$job", ".*"),
                    legend: text(&target["legendFormat"])?,
                })
            });
            Ok(Panel {
                title: text(&panel["title"])?,
                unit: text(&panel["fieldConfig"]["defaults"]["unit"])?,
                is_graph: panel["type"] == "timeseries",
                lines: lines.collect::<Result<_>>()?,
            })
        })
        .collect()
}

const START_LIMIT: Duration = Duration::from_secs(60);
