//! How long a scrape of the metrics takes with N memberships that are Ready, and what scrapes cost the operator.

use std::time::{Duration, Instant};

use crate::bench_run::BenchRun;
use crate::candidate::Running;
use crate::outcome::{Outcome, number, quantile};
use crate::scenario::steady::measure_steady;
use crate::support::error::{Context as _, Error, Result};

const MINUTE: Duration = Duration::from_secs(60);
/// Prometheus' usual period is 15 s to 1 min.
const PERIOD: Duration = Duration::from_secs(15);
/// The operator computes its gauges once per second at most: longer than that, so that each scrape computes them.
const APART: Duration = Duration::from_millis(1_100);
const SCRAPES: usize = 30;
/// Of the scraper that asks all the time: 100 times a second.
const BUSY_PERIOD: Duration = Duration::from_millis(10);
const BUSY_SCRAPES: usize = 1_000;

/// Steady state without and with a scraper, then single scrapes, then 100 scrapes a second for 10 s.
pub async fn scrape(bench: &mut BenchRun) -> Result<Outcome> {
    bench.fill().await?;
    bench.until_quiet().await?;
    let Running::Ours(operator) = bench.process()? else {
        return Err(Error::new("only our operator has metrics"));
    };
    let scraper = Scraper {
        client: reqwest::Client::builder().no_proxy().build()?,
        url: operator.url("/metrics"),
    };
    let mut outcome = Outcome::default();
    steady(bench, &scraper, &mut outcome).await?;

    crate::progress::at("single scrapes");
    let (mut seconds, bytes) = scraper.every(APART, SCRAPES).await?;
    outcome.figure("scrape_p50_ms", quantile(&mut seconds, 0.5) * 1_000.0);
    outcome.figure("scrape_max_ms", quantile(&mut seconds, 1.0) * 1_000.0);
    outcome.figure("kib", number(bytes) / 1_024.0);

    crate::progress::at("100 scrapes a second");
    let before = bench.before().await?;
    let (mut seconds, _) = scraper.every(BUSY_PERIOD, BUSY_SCRAPES).await?;
    let since = bench.since(before).await?;
    outcome.figure("busy_p50_ms", quantile(&mut seconds, 0.5) * 1_000.0);
    outcome.figure("busy_max_ms", quantile(&mut seconds, 1.0) * 1_000.0);
    outcome.figure(
        "busy_cpu_ms_per_scrape",
        since.cpu_seconds * 1_000.0 / number(BUSY_SCRAPES as u64),
    );
    outcome.raw = since.raw();
    Ok(outcome)
}

/// One minute alone and one with a scraper as Prometheus is, twice.
async fn steady(bench: &mut BenchRun, prometheus: &Scraper, outcome: &mut Outcome) -> Result<()> {
    // The Events of the fill are written after its passes.
    tokio::time::sleep(MINUTE).await;
    let (mut alone, mut beside) = (0.0, 0.0);
    let count = usize::try_from(MINUTE.as_secs() / PERIOD.as_secs())?;
    for _ in 0..2 {
        alone += cpu_percent(bench, async { Ok(()) }).await?;
        let scrapes = async { prometheus.every(PERIOD, count).await.map(drop) };
        beside += cpu_percent(bench, scrapes).await?;
    }
    outcome.figure("alone_cpu_percent", alone / 2.0);
    outcome.figure("scraped_cpu_percent", beside / 2.0);
    Ok(())
}

/// The operator's share of a core in a minute in which somebody does this.
async fn cpu_percent(bench: &mut BenchRun, work: impl Future<Output = Result<()>>) -> Result<f64> {
    let mut minute = Outcome::default();
    futures::future::try_join(measure_steady(bench, MINUTE, &mut minute), work).await?;
    let percent = minute.figures.get("cpu_percent");
    Ok(*percent.context("no CPU time")?)
}

struct Scraper {
    client: reqwest::Client,
    url: String,
}

impl Scraper {
    /// Scrapes so many times, one after the other. Returns how long each took, in seconds, and the size of the last answer.
    async fn every(&self, period: Duration, count: usize) -> Result<(Vec<f64>, u64)> {
        let mut ticks = tokio::time::interval(period);
        let (mut seconds, mut bytes) = (Vec::new(), 0);
        for _ in 0..count {
            ticks.tick().await;
            let asked = Instant::now();
            let answer = self.client.get(&self.url).send().await?;
            bytes = answer.error_for_status()?.bytes().await?.len() as u64;
            seconds.push(asked.elapsed().as_secs_f64());
        }
        Ok((seconds, bytes))
    }
}
