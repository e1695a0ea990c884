//! Leader election: of several operators only the holder of one Lease acts. Reads and writes that Lease and nothing else; what a
//! leader does is for its caller.
//!
//! - No wall time of another machine counts. A standby waits until *it* has seen the same Lease unchanged for the whole duration.
//!   The holder counts from before it sent its last successful renewal, and stops after two thirds of the duration: the rest is for
//!   calls that have just begun to reach the cloud.
//! - Every write names the version that was read, so that of two processes one gets the Lease.
//! - A holder that ends empties the Lease at once. If Joins or Leaves of it are still under way, an annotation says whose, until
//!   they have ended. A standby that takes a Lease from a holder that has vanished writes the same annotation.
//! - A Lease that someone deletes is created again by its holder. A process that starts just then takes it too: the holder finds
//!   that within a third of the duration, and stops. Do not delete the Lease of operators that run.
//!
//! Not a crate: of those for kube 5, one compares the clocks of two machines and goes on after its Lease when the API server cannot
//! be reached; the others write without a version, or are for an older kube.

mod held;
mod look;

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::{ObjectMeta, PostParams};
use tokio::time::Instant;
use tracing::{debug, info, warn};

use crate::clock::Clock;
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;

use self::held::{calls_of, holder_of, set_calls_of};
use self::look::explain;
use super::{Error, LogDeduper, error_chain, within};

pub use self::held::{CALLS_ANNOTATION, DEFAULT_DURATION, Held, NAME};
pub use self::look::{check, warn_of_leader};

/// One process that takes part in the election.
#[derive(Debug)]
pub struct Election {
    leases: Api<Lease>,
    namespace: String,
    identity: String,
    duration: Duration,
    shutdown: Shutdown,
    clock: Clock,
    logged: LogDeduper,
}

/// Why a holder may not act any more.
#[derive(Debug, thiserror::Error)]
pub enum Lost {
    /// Another process holds the Lease.
    #[error(
        "the Lease {lease} is held by {holder} now: this process ends, and waits for the Lease after its next start"
    )]
    Taken {
        /// Namespace and name.
        lease: String,
        /// The holder.
        holder: String,
    },
    /// It was not renewed in time.
    #[error(
        "the Lease {lease} could not be renewed for {:.1} s: this process ends before another one takes over; last error: {error}", after.as_secs_f32()
    )]
    NotRenewed {
        /// Namespace and name.
        lease: String,
        /// How long.
        after: Duration,
        /// The last answer.
        error: String,
    },
}

/// What a standby saw last, and since when.
struct Seen {
    spec: Option<LeaseSpec>,
    at: Instant,
    /// Whether this is what its first look showed.
    first: bool,
}

impl Election {
    /// Takes part in the election for the Lease in this namespace. `shutdown` learns how long the process may act. `instance` is the
    /// name of the pod.
    #[must_use]
    pub fn new(
        client: kube::Client,
        namespace: &str,
        instance: Option<&str>,
        duration: Duration,
        shutdown: Shutdown,
        clock: Clock,
    ) -> Self {
        // A container that is started again in the same pod is another process.
        let identity = format!("{}_{}", instance.unwrap_or(NAME), clock.uuid());
        Self {
            leases: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            identity,
            duration,
            shutdown,
            clock,
            logged: LogDeduper::default(),
        }
    }

    /// Waits as a standby until this process holds the Lease. It may act only after [`Election::begin`].
    pub async fn acquire(&self, telemetry: &Telemetry) -> Held {
        let mut seen: Option<Seen> = None;
        loop {
            telemetry.went_on("lease");
            let mut wait = self.poll();
            match self.read().await {
                Ok(found) => {
                    let free_at = self.free_at(found.as_ref(), &mut seen);
                    let left = free_at.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        let asked = Instant::now();
                        match self.take(found).await {
                            Ok(lease) => {
                                info!(identity = self.identity, "leads: it holds {}", self.name());
                                return Held::new(lease, asked);
                            }
                            // Another one was faster.
                            Err(error) if error.code() == Some(409) => {}
                            Err(error) => self.log(&error),
                        }
                    } else {
                        wait = wait.min(left);
                        self.log_holder(found.as_ref());
                    }
                }
                Err(error) => self.log(&error),
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// The process that holds the Lease may act from now on.
    pub fn begin(&self, held: &Held) {
        self.shutdown.lead_until(self.end_of(held));
    }

    /// Renews the Lease when it is due.
    ///
    /// # Errors
    /// The Lease is lost: nothing may begin any more. [`Shutdown`] knows that already.
    pub async fn renew(
        &self,
        held: &mut Held,
        others_have_ended: bool,
        telemetry: &Telemetry,
    ) -> Result<(), Lost> {
        // While the calls of another process are awaited, its note is looked for more often.
        let pause = if held.others_may_call() {
            self.duration / 15
        } else {
            self.duration / 3
        };
        tokio::time::sleep_until(held.renewed + pause).await;
        let mut trouble = "none".to_owned();
        loop {
            telemetry.went_on("lease");
            let asked = Instant::now();
            if asked >= self.end_of(held) {
                return Err(self.not_renewed(held.renewed, trouble));
            }
            if others_have_ended {
                set_calls_of(&mut held.lease, None);
            }
            match self.write_renewal(held).await {
                Ok(lease) => {
                    let before = held.renewed;
                    *held = Held::new(lease, asked);
                    self.begin(held);
                    if !self.shutdown.may_have_successor() {
                        return Ok(());
                    }
                    // The process was frozen meanwhile. What has stopped does not begin again.
                    let late = "the answer to the renewal came too late".to_owned();
                    return Err(self.not_renewed(before, late));
                }
                Err(RenewalError::Taken(holder)) => {
                    self.shutdown.give_up();
                    return Err(Lost::Taken {
                        lease: self.name(),
                        holder,
                    });
                }
                Err(RenewalError::Changed(lease)) => held.lease = *lease,
                Err(RenewalError::Failed(error)) => {
                    self.log(&error);
                    trouble = error_chain(&error);
                    let again = Instant::now() + self.duration / 15;
                    tokio::time::sleep_until(again.min(self.end_of(held))).await;
                }
            }
        }
    }

    fn not_renewed(&self, since: Instant, error: String) -> Lost {
        Lost::NotRenewed {
            lease: self.name(),
            after: since.elapsed(),
            error,
        }
    }

    /// Gives the Lease up, if this process holds it: a standby takes it at once. `calls_run` says whether Joins or Leaves of this
    /// process, or of one before it, may still be under way; called once more without it, the Lease says so.
    pub async fn release(&self, calls_run: bool) {
        self.shutdown.give_up();
        let until = Instant::now() + self.duration;
        while Instant::now() < until {
            match self.write_release(calls_run).await {
                Ok(()) => return,
                // Changed meanwhile.
                Err(error) if error.code() == Some(409) => {}
                Err(error) => {
                    debug!("{} cannot be given up: {error}", self.name());
                    tokio::time::sleep(self.poll()).await;
                }
            }
        }
    }

    async fn write_release(&self, calls_run: bool) -> Result<(), Error> {
        let Some(mut lease) = self.read().await? else {
            return Ok(());
        };
        let holds = holder_of(&lease) == Some(&self.identity);
        let is_noted = calls_of(&lease) == Some(&self.identity);
        if !holds && (calls_run || !is_noted) {
            return Ok(());
        }
        set_calls_of(&mut lease, calls_run.then_some(self.identity.as_str()));
        if holds {
            let spec = lease.spec.get_or_insert_default();
            spec.holder_identity = Some(String::new());
            spec.renew_time = Some(MicroTime(self.clock.now()));
        }
        self.replace(&lease).await.map(|_| ())
    }

    /// When a standby that sees this may take the Lease.
    fn free_at(&self, found: Option<&Lease>, seen: &mut Option<Seen>) -> Instant {
        let now = Instant::now();
        let spec = found.map(|lease| lease.spec.clone().unwrap_or_default());
        let first = seen.is_none();
        let seen = match seen {
            Some(seen) if seen.spec == spec => seen,
            stale => stale.insert(Seen {
                spec,
                at: now,
                first,
            }),
        };
        match &seen.spec {
            // Deleted since: its holder may not have noticed.
            None if !seen.first => seen.at + self.duration,
            None => now,
            Some(spec) => match spec.holder_identity.as_deref() {
                None | Some("") => now,
                Some(holder) if holder == self.identity => now,
                Some(_) => {
                    let seconds = spec
                        .lease_duration_seconds
                        .and_then(|all| all.try_into().ok());
                    seen.at + seconds.map_or(self.duration, Duration::from_secs)
                }
            },
        }
    }

    /// Writes this process into the Lease that was read.
    async fn take(&self, found: Option<Lease>) -> Result<Lease, Error> {
        let Some(mut lease) = found else {
            return self.create().await;
        };
        let before = holder_of(&lease).map(str::to_owned);
        if let Some(vanished) = before.filter(|holder| *holder != self.identity) {
            set_calls_of(&mut lease, Some(&vanished));
        }
        let transitions = lease.spec.as_ref().and_then(|spec| spec.lease_transitions);
        lease.spec = Some(self.spec(transitions.unwrap_or_default().saturating_add(1)));
        self.replace(&lease).await
    }

    async fn create(&self) -> Result<Lease, Error> {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(NAME.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(self.spec(0)),
        };
        let params = PostParams::default();
        within(self.deadline(), self.leases.create(&params, &lease)).await
    }

    fn spec(&self, transitions: i32) -> LeaseSpec {
        let now = self.clock.now();
        LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            lease_duration_seconds: i32::try_from(self.duration.as_secs()).ok(),
            acquire_time: Some(MicroTime(now)),
            renew_time: Some(MicroTime(now)),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        }
    }

    async fn write_renewal(&self, held: &Held) -> Result<Lease, RenewalError> {
        let mut lease = held.lease.clone();
        lease.spec.get_or_insert_default().renew_time = Some(MicroTime(self.clock.now()));
        let error = match self.replace(&lease).await {
            Ok(lease) => return Ok(lease),
            Err(error) => error,
        };
        if !matches!(error.code(), Some(404 | 409)) {
            return Err(RenewalError::Failed(error));
        }
        // Changed by a note on it, by our own write whose answer was lost, or taken; or deleted.
        match self.read().await.map_err(RenewalError::Failed)? {
            Some(lease) => match holder_of(&lease) {
                Some(holder) if *holder == self.identity => {
                    Err(RenewalError::Changed(Box::new(lease)))
                }
                holder => {
                    let holder = holder.unwrap_or("no process").to_owned();
                    Err(RenewalError::Taken(holder))
                }
            },
            None => self.create().await.map_err(RenewalError::Failed),
        }
    }

    async fn read(&self) -> Result<Option<Lease>, Error> {
        within(self.deadline(), self.leases.get_opt(NAME)).await
    }

    /// Writes the Lease under the version that it was read in.
    async fn replace(&self, lease: &Lease) -> Result<Lease, Error> {
        let params = PostParams::default();
        within(self.deadline(), self.leases.replace(NAME, &params, lease)).await
    }

    fn end_of(&self, held: &Held) -> Instant {
        held.renewed + self.duration * 2 / 3
    }

    /// How often a standby looks at the Lease (0.5 s of 15 s).
    fn poll(&self) -> Duration {
        self.duration / 30
    }

    /// Deadline of one call (5 s of 15 s).
    fn deadline(&self) -> Duration {
        self.duration / 3
    }

    fn name(&self) -> String {
        format!("{}/{NAME}", self.namespace)
    }

    fn log_holder(&self, found: Option<&Lease>) {
        let holder = found.and_then(holder_of).unwrap_or("no process");
        let text = format!(
            "standby: {holder} holds the Lease {}. This process takes over when it is given up, or not renewed for its whole \
             duration. An operator for other namespaces needs an --operator-namespace of its own",
            self.name()
        );
        if self.logged.is_first(&text) {
            info!(identity = self.identity, "{text}");
        }
    }

    fn log(&self, error: &Error) {
        let text = explain(&self.namespace, error);
        if self.logged.is_first(&text) {
            warn!("{text}");
        }
    }
}

enum RenewalError {
    Taken(String),
    /// This process holds it still, in another version.
    Changed(Box<Lease>),
    Failed(Error),
}

#[cfg(test)]
mod tests {
    use kube::client::Body;

    use super::*;

    /// An API server that answers each request after so long: a read finds nothing, a write is accepted.
    fn slow(latency: Duration) -> kube::Client {
        let answer = move |request: http::Request<Body>| async move {
            let method = request.method().clone();
            let written = request.into_body().collect_bytes().await?;
            tokio::time::sleep(latency).await;
            let (code, body) = if method == http::Method::GET {
                let gone = kube::core::Status::failure("no Lease", "NotFound").with_code(404);
                (404, serde_json::to_vec(&gone)?)
            } else {
                (200, written.to_vec())
            };
            let answer = http::Response::builder().status(code);
            Ok::<_, tower::BoxError>(answer.body(Body::from(body))?)
        };
        kube::Client::new(tower::service_fn(answer), "operator")
    }

    /// The answer of the renewal comes 4 s after it was sent: others count from before that.
    #[tokio::test(start_paused = true)]
    async fn holder_counts_from_when_its_renewal_was_sent() {
        let shutdown = Shutdown::standby();
        let (latency, duration) = (Duration::from_secs(4), Duration::from_secs(15));
        let clock = Clock::system();
        let election = Election::new(slow(latency), "ns", None, duration, shutdown.clone(), clock);
        let telemetry = Telemetry::default();
        let mut held = election.acquire(&telemetry).await;
        election.begin(&held);
        election.renew(&mut held, false, &telemetry).await.unwrap();
        let sent = Instant::now() - latency;
        let end = sent + duration * 2 / 3;
        tokio::time::sleep_until(end - Duration::from_millis(1)).await;
        assert!(!shutdown.has_begun());
        tokio::time::sleep_until(end).await;
        assert!(shutdown.has_begun(), "{:?}", sent.elapsed());
    }
}
