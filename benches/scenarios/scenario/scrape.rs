//! How long a scrape of the metrics takes with N memberships that are Ready, and what scrapes cost the operator.

use std::time::{Duration, Instant};

use crate::bench_run::BenchRun;
use crate::candidate::Running;
use crate::outcome::{Outcome, number, quantile};
use crate::scenario::steady::measure_steady;
use crate::support::error::{Error, Result};

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

/// The same two minutes, the second one with a scraper as Prometheus is.
async fn steady(bench: &mut BenchRun, scraper: &Scraper, outcome: &mut Outcome) -> Result<()> {
    let minutes = 2;
    let period = Duration::from_secs(60) * minutes;
    let mut alone = Outcome::default();
    measure_steady(bench, period, &mut alone).await?;
    let mut scraped = Outcome::default();
    let count = usize::try_from(period.as_secs() / PERIOD.as_secs())?;
    futures::future::try_join(
        measure_steady(bench, period, &mut scraped),
        scraper.every(PERIOD, count),
    )
    .await?;
    for (figure, of) in [("alone", &alone), ("scraped", &scraped)] {
        if let Some(percent) = of.figures.get("cpu_percent") {
            outcome.figure(&format!("{figure}_cpu_percent"), *percent);
        }
    }
    Ok(())
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
