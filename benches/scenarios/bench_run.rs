//! One candidate on its cluster, and the counters of its actions. Every scenario has a bench run.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::future::{Either, select};
use serde_json::{Value, json};

use crate::arguments::{Arguments, Candidate};
use crate::candidate::{OUR_USER, Running, TEXTBOOK_USER, Textbook, start_ours};
use crate::cluster::BenchCluster;
use crate::load::{self, MembershipRequest};
use crate::measure::{self, AuditCursor, Calls, Requests, Usage};
use crate::support::error::{Context as _, Error, Result};
use crate::watch::Watch;

/// A candidate with a control plane, a cloud and a watch of its own.
pub struct BenchRun {
    pub arguments: Arguments,
    pub candidate: Candidate,
    // Dropped in this order: users of the cluster before the cluster.
    pub watch: Watch,
    pub running: Option<Running>,
    pub cluster: BenchCluster,
    /// Whether the textbook operator reconciles sets, too.
    pub with_sets: bool,
    /// Memberships that exist and are Ready, from number 0.
    pub filled: u32,
}

/// The user of the bench's own client.
const FLOOR_USER: &str = "admin";

/// How often the textbook operator reconciles an object without a change: the usual value of kubebuilder users.
pub const TEXTBOOK_PERIOD: Duration = Duration::from_secs(600);

/// Time without a burst of reads that counts as quiet.
const QUIET: Duration = Duration::from_secs(1);

/// The counters at one time, to subtract later.
pub struct Before {
    at: Instant,
    calls: Calls,
    cursor: AuditCursor,
    own: Option<Usage>,
    api_server: Usage,
}

/// The differences since then.
pub struct Since {
    pub seconds: f64,
    pub calls: Calls,
    before: Calls,
    pub requests: Requests,
    pub own: Option<Usage>,
    pub cpu_seconds: f64,
    pub api_server_cpu_seconds: f64,
    pub api_server: Usage,
    user: &'static str,
}

/// The counters at one time of a run.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Time since the start of the run.
    pub at: Duration,
    /// The minute of the clock, as the cloud counts.
    pub minute: u64,
    /// Memberships that are Ready.
    pub ready: usize,
    /// Memberships that are deleted.
    pub gone: usize,
    /// The cloud's counts.
    pub calls: Calls,
}

impl BenchRun {
    /// Starts the cluster; does not start the candidate.
    pub async fn start(
        arguments: &Arguments,
        candidate: Candidate,
        cloud: &[String],
    ) -> Result<Self> {
        crate::progress::at("control plane and cloud start");
        let cluster = BenchCluster::start(arguments, cloud).await?;
        let watch = Watch::start(cluster.client.clone());
        Ok(Self {
            arguments: arguments.clone(),
            candidate,
            cluster,
            watch,
            running: None,
            with_sets: false,
            filled: 0,
        })
    }

    /// Starts the candidate. The textbook operator reconciles each object every `period`.
    pub async fn start_candidate(&mut self, period: Duration) -> Result<()> {
        self.running = match self.candidate {
            Candidate::Ours => Some(start_ours(&self.cluster).await?),
            Candidate::Textbook => {
                let workers = self.arguments.textbook_workers;
                let sets = self.with_sets;
                let textbook = Textbook::start(&self.cluster, workers, period, sets).await?;
                Some(Running::Textbook(Box::new(textbook)))
            }
            Candidate::Floor => None,
        };
        Ok(())
    }

    /// Creates all N memberships and waits until they are Ready, unless they are already.
    pub async fn fill(&mut self) -> Result<()> {
        if self.running.is_none() {
            self.start_candidate(TEXTBOOK_PERIOD).await?;
        }
        if self.filled < self.arguments.n {
            let requests: Vec<MembershipRequest> = (self.filled..self.arguments.n)
                .map(MembershipRequest::number)
                .collect();
            self.make(&requests).await?;
            self.filled = self.arguments.n;
            self.until_quiet().await?;
        }
        Ok(())
    }

    /// Creates these memberships. Waits until they, and all that the bench had created before, are Ready.
    pub async fn make(&self, requests: &[MembershipRequest]) -> Result<()> {
        let making = async {
            match self.candidate {
                Candidate::Ours | Candidate::Textbook => {
                    load::create(&self.cluster, &self.watch, requests).await
                }
                Candidate::Floor => load::floor_create(&self.cluster, &self.watch, requests).await,
            }
        };
        let all = self.filled as usize + requests.len();
        let seeing = self.watch.until_ready(all, self.patience());
        futures::future::try_join(making, seeing).await?;
        Ok(())
    }

    /// Returns when the cloud is read only by scans. Returns the time at which that began.
    pub async fn until_quiet(&self) -> Result<Instant> {
        // A scan of N targets reads N/100 batches per minute. Twice that per second, plus two calls, is not a burst.
        let rush = 2 + 2 * u64::from(self.arguments.n) / 100 / 60;
        let limit = self.patience();
        let started = Instant::now();
        let (mut last, mut quiet_since) = (self.calls().await?.total(), started);
        let mut in_this_second = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let now = self.calls().await?.total();
            in_this_second += now - last;
            if in_this_second > rush {
                (quiet_since, in_this_second) = (Instant::now(), 0);
            }
            last = now;
            if quiet_since.elapsed() > QUIET {
                return Ok(quiet_since);
            }
            if started.elapsed() > limit {
                return Err(Error::new(format!("the calls do not end within {limit:?}")));
            }
        }
    }

    /// Longer than any candidate should need for all N.
    pub fn patience(&self) -> Duration {
        Duration::from_secs(180 + u64::from(self.arguments.n) / 20)
    }

    /// The running candidate.
    pub fn process(&mut self) -> Result<&mut Running> {
        self.running.as_mut().context("the candidate does not run")
    }

    /// Passes over memberships that our operator has made since its start.
    pub async fn passes(&mut self) -> Result<u64> {
        let Running::Ours(operator) = self.process()? else {
            return Err(Error::new("only our operator counts its passes"));
        };
        let metrics = crate::support::simulator::fetch(&operator.url("/metrics")).await?;
        let text = String::from_utf8(metrics)?;
        text.lines()
            .filter(|line| line.starts_with("security_group_operator_reconcile_total{"))
            .map(|line| {
                let count = line.rsplit(' ').next().unwrap_or_default();
                Ok(count.parse::<u64>()?)
            })
            .sum()
    }

    /// The cloud's counts now.
    pub async fn calls(&self) -> Result<Calls> {
        Calls::read(self.cluster.simulator.stats().await?)
    }

    /// The counters now.
    pub async fn before(&mut self) -> Result<Before> {
        Ok(Before {
            own: self.own()?,
            ..self.before_start().await?
        })
    }

    /// The same for a candidate that does not run yet: its CPU time counts from its start.
    pub async fn before_start(&mut self) -> Result<Before> {
        Ok(Before {
            at: Instant::now(),
            calls: self.calls().await?,
            cursor: measure::cursor(&self.cluster.plane.audit_log())?,
            own: None,
            api_server: measure::usage(self.cluster.plane.api_server_pid()?)?,
        })
    }

    /// The differences since `before`.
    pub async fn since(&mut self, before: Before) -> Result<Since> {
        let seconds = before.at.elapsed().as_secs_f64();
        let own = self.own()?;
        let api_server = measure::usage(self.cluster.plane.api_server_pid()?)?;
        let calls = self.calls().await?;
        // The audit line of the last answer is written after the answer.
        tokio::time::sleep(Duration::from_millis(300)).await;
        let cpu = |usage: Option<Usage>| usage.map_or(0.0, |usage| usage.cpu_seconds);
        Ok(Since {
            seconds,
            calls,
            before: before.calls,
            requests: measure::requests_since(&self.cluster.plane.audit_log(), &before.cursor)?,
            cpu_seconds: cpu(own) - cpu(before.own),
            own,
            api_server_cpu_seconds: api_server.cpu_seconds - before.api_server.cpu_seconds,
            api_server,
            user: self.user(),
        })
    }

    /// Samples the run every half second, for the plots.
    pub async fn sampled<T>(
        &self,
        work: impl Future<Output = Result<T>>,
    ) -> Result<(T, Vec<Sample>)> {
        let samples = RefCell::new(Vec::new());
        let started = Instant::now();
        let sampling = async {
            loop {
                let sample = Sample {
                    at: started.elapsed(),
                    minute: minute_of_the_clock(),
                    ready: self.watch.ready(),
                    gone: self.watch.count(|seen| seen.gone.is_some()),
                    calls: self.calls().await?,
                };
                samples.borrow_mut().push(sample);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            #[expect(unreachable_code, reason = "gives the block its type")]
            Ok::<(), Error>(())
        };
        let done = match select(std::pin::pin!(work), std::pin::pin!(sampling)).await {
            Either::Left((done, _)) => done?,
            Either::Right((Err(error), _)) => return Err(error),
            Either::Right((Ok(()), _)) => return Err(Error::new("the sampling ended by itself")),
        };
        Ok((done, samples.into_inner()))
    }

    fn own(&mut self) -> Result<Option<Usage>> {
        match &mut self.running {
            Some(running) => Ok(Some(measure::usage(running.pid())?)),
            None => Ok(None),
        }
    }

    const fn user(&self) -> &'static str {
        match self.candidate {
            Candidate::Ours => OUR_USER,
            Candidate::Textbook => TEXTBOOK_USER,
            Candidate::Floor => FLOOR_USER,
        }
    }
}

fn minute_of_the_clock() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs() / 60)
}

impl Since {
    /// Calls to ECS of any API.
    pub fn total_calls(&self) -> u64 {
        self.calls.total() - self.before.total()
    }

    /// Calls of one API.
    pub fn calls_of(&self, api: &str) -> u64 {
        self.calls.of(api) - self.before.of(api)
    }

    /// Calls of one API with this result.
    pub fn calls_with(&self, api: &str, result: &str) -> u64 {
        self.calls.with(api, result) - self.before.with(api, result)
    }

    /// Changes by one API that took effect.
    pub fn effects(&self, api: &str) -> u64 {
        self.calls.effects(api) - self.before.effects(api)
    }

    /// Describe calls.
    pub fn describes(&self) -> u64 {
        self.calls.describes() - self.before.describes()
    }

    /// Writes of the candidate to memberships, status included. [`Since::events`] counts events.
    pub fn writes(&self) -> u64 {
        // The floor has the same user as the creates and deletes.
        let by_user = self.user == FLOOR_USER;
        self.sum(|request| {
            request.is_write()
                && request.is_of("securitygroupmemberships")
                && !(by_user && ["create", "delete"].contains(&request.verb.as_str()))
        })
    }

    /// Writes of the candidate to sets, status included.
    pub fn writes_of_sets(&self) -> u64 {
        self.sum(|request| request.is_write() && request.is_of("securitygroupmembershipsets"))
    }

    /// Number of memberships that the candidate created or deleted.
    pub fn creates_and_deletes(&self) -> u64 {
        self.sum(|request| {
            request.resource == "securitygroupmemberships"
                && ["create", "delete", "deletecollection"].contains(&request.verb.as_str())
        })
    }

    /// Events that the candidate wrote.
    pub fn events(&self) -> u64 {
        self.sum(|request| request.is_write() && request.resource == "events")
    }

    /// Requests of the candidate with this answer.
    pub fn answered(&self, code: u16) -> u64 {
        self.sum(|request| request.code == code)
    }

    fn sum(&self, of_kind: impl Fn(&measure::Request) -> bool) -> u64 {
        self.requests
            .iter()
            .filter(|(request, _)| request.user == self.user && of_kind(request))
            .map(|(_, count)| count)
            .sum()
    }

    /// All counters, for the JSON report.
    pub fn raw(&self) -> Value {
        let mut requests: BTreeMap<String, u64> = BTreeMap::new();
        for (request, count) in &self.requests {
            let key = format!(
                "{} {} {} {}",
                request.agent, request.verb, request.resource, request.code
            );
            *requests.entry(key).or_default() += count;
        }
        json!({
            "cloudCallsSinceStart": self.calls.table(), "cloudCallsBefore": self.before.table(),
            "apiServerRequests": requests,
        })
    }
}
