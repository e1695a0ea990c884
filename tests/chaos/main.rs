//! Fifty objects under constant churn on a real API server and a real simulated cloud, while the operator, the API server and
//! etcd are killed with SIGKILL again and again: cloud and objects must always come to what the promises allow.
//! `KILLS=1000 cargo test --test chaos`; `SEED=17` draws the same acts and the same kills again (their timing is real).
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod act;
mod compare;
mod fixture;
mod kill;
mod ledger;
mod model;
mod races;
mod sets;
#[path = "../support/mod.rs"]
mod support;

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use act::Acts;
use fixture::Fixture;
use kill::{KillCounts, KillPlan};
use support::control_plane::ControlPlane;
use support::env::TestEnv;
use support::error::{Error, Result};
use support::operator::{Operator, Options};

/// Kills in `make test`; `make chaos` does as many as it is told.
const KILLS: usize = 20;
/// Kills between two comparisons, at most.
const BETWEEN: usize = 12;
/// Kills between two lines of progress.
const PROGRESS: usize = 20;

#[tokio::test]
async fn killed_at_any_moment_the_end_state_is_allowed() -> Result<()> {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let kills = number("KILLS").map_or(KILLS, |kills: u64| usize::try_from(kills).unwrap());
    let seed = number("SEED").unwrap_or_else(|| rand::random_range(0..1_000_000));
    println!("SEED={seed} KILLS={kills}");
    let mut chaos = Chaos::begin(seed).await?;
    let outcome = chaos.run(kills).await;
    println!("{}", chaos.progress());
    outcome.map_err(|error| chaos.report(&error))
}

struct Chaos {
    seed: u64,
    // Dropped in this order: the operator first, so that it does not complain about the rest.
    operator: Operator,
    fixture: Fixture,
    plane: ControlPlane,
    acts: Acts,
    random: StdRng,
    /// Which incarnation of the operator this is.
    incarnation: AtomicU64,
    kill_counts: KillCounts,
    comparisons: usize,
    violations: usize,
    compared: Instant,
    begun: Instant,
}

impl Chaos {
    async fn begin(seed: u64) -> Result<Self> {
        let binaries = binaries!();
        let plane = ControlPlane::start().await?;
        let options = Options {
            binary: binaries.operator.clone(),
            arguments: [
                "--scan-period=1s",
                "--log=security_group_operator=debug,info",
            ]
            .map(str::to_owned)
            .to_vec(),
            environment: Vec::new(),
        };
        let operator = Operator::start(&plane, options).await?;
        let env = TestEnv::start_on(&plane, &binaries, &act::inventory()).await?;
        Ok(Self {
            seed,
            operator,
            fixture: Fixture::new(env),
            plane,
            acts: Acts::seeded(seed),
            random: StdRng::seed_from_u64(!seed),
            incarnation: AtomicU64::new(0),
            kill_counts: KillCounts::default(),
            comparisons: 0,
            violations: 0,
            compared: Instant::now(),
            begun: Instant::now(),
        })
    }

    async fn run(&mut self, kills: usize) -> Result<()> {
        let first = self.acts.first().into_iter().map(|act| (0, act));
        self.fixture
            .churn(first.collect(), &self.incarnation)
            .await?;
        let mut next_comparison = self.random.random_range(1..=BETWEEN);
        while self.kill_counts.kills() < kills {
            let before = self.kill_counts.kills();
            self.round().await?;
            let done = self.kill_counts.kills();
            if done >= next_comparison || done >= kills {
                if done < kills && self.random.random_bool(0.6) {
                    self.kill_while_it_settles().await?;
                }
                self.compare().await?;
                next_comparison = done + self.random.random_range(BETWEEN / 2..=BETWEEN);
            }
            if self.kill_counts.kills() / PROGRESS > before / PROGRESS {
                println!("{}", self.progress());
            }
        }
        Ok(())
    }

    /// Churn, and one kill at some moment of it.
    async fn round(&mut self) -> Result<()> {
        let plan = KillPlan::draw(&mut self.random, self.kill_counts.kills());
        let acts = self.acts.round(plan.is_long());
        self.fixture.log(&plan.to_string());
        self.set_cloud_faults(&plan).await?;
        let (churned, killed) = tokio::join!(
            self.fixture.churn(acts, &self.incarnation),
            plan.execute(&mut self.plane, &mut self.operator, &self.incarnation),
        );
        self.kill_counts += &plan;
        churned.and(killed)
    }

    /// Nobody does anything any more, and the operator dies once more over what is left to do.
    async fn kill_while_it_settles(&mut self) -> Result<()> {
        let plan = KillPlan::once_more(&mut self.random);
        self.fixture.log(&plan.to_string());
        self.set_cloud_faults(&plan).await?;
        plan.execute(&mut self.plane, &mut self.operator, &self.incarnation)
            .await?;
        self.kill_counts += &plan;
        Ok(())
    }

    async fn set_cloud_faults(&mut self, plan: &KillPlan) -> Result<()> {
        if plan.cloud.late {
            self.fixture.expect_late_effects();
        }
        // What Describe shows is never from before the last comparison: the model would not know of it.
        let lags = plan.cloud.lags && self.compared.elapsed() > Duration::from_secs(3);
        let lag = if lags { "2s" } else { "0s" };
        let simulator = &self.fixture.env.simulator;
        simulator.faults(&plan.cloud.faults).await?;
        simulator
            .change(&serde_json::json!({"set": {"lag": lag}}))
            .await
    }

    async fn compare(&mut self) -> Result<()> {
        let incarnation = self.incarnation.load(Ordering::Relaxed);
        let audit = self.plane.audit_log();
        let violations = compare::compare(&mut self.fixture, incarnation, &audit).await?;
        self.violations += violations.len();
        if !violations.is_empty() {
            return Err(Error::new(violations.join("\n\n")));
        }
        self.comparisons += 1;
        self.compared = Instant::now();
        self.fixture.history.clear();
        self.forget_logs()
    }

    /// What was written before a good comparison is of no use, and would fill the disk of a long run.
    fn forget_logs(&self) -> Result<()> {
        let current = self.operator.log();
        for log in self.operator_logs()? {
            if log != current {
                std::fs::remove_file(log)?;
            }
        }
        let audit = std::fs::OpenOptions::new()
            .write(true)
            .open(self.plane.audit_log())?;
        Ok(audit.set_len(0)?)
    }

    fn operator_logs(&self) -> Result<Vec<PathBuf>> {
        let mut logs = Vec::new();
        for entry in std::fs::read_dir(self.plane.directory())? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with("operator-") {
                logs.push(entry.path());
            }
        }
        Ok(logs)
    }

    #[expect(clippy::cast_precision_loss, reason = "a rate")]
    fn progress(&self) -> String {
        format!(
            "{}, {} acts, {} comparisons, violations {}, {:.1} s a kill\n{}",
            self.kill_counts,
            self.fixture.acts,
            self.comparisons,
            self.violations,
            self.begun.elapsed().as_secs_f64() / self.kill_counts.kills().max(1) as f64,
            self.fixture.ledger,
        )
    }

    /// What failed, after which acts; and keeps the logs.
    fn report(&self, error: &Error) -> Error {
        let kept = PathBuf::from(format!(
            "{}/chaos-{}",
            env!("CARGO_TARGET_TMPDIR"),
            self.seed
        ));
        let keep = || -> Result<()> {
            std::fs::create_dir_all(&kept)?;
            let mut files = self.operator_logs()?;
            files.push(self.plane.audit_log());
            files.push(self.plane.directory().join("kube-apiserver.log"));
            files.push(self.plane.directory().join("etcd.log"));
            for file in files {
                std::fs::copy(&file, kept.join(file.file_name().unwrap()))?;
            }
            Ok(())
        };
        let where_logs = match keep() {
            Ok(()) => format!(
                "the logs of every operator since the last good comparison: {}",
                kept.display()
            ),
            Err(error) => format!("the logs could not be kept: {error}"),
        };
        Error::new(format!(
            "SEED={}, after {}\n\nVIOLATION\n{error}\n\nsince the last good comparison:\n{}\n{where_logs}",
            self.seed,
            self.progress(),
            self.fixture.history.join("\n"),
        ))
    }
}
