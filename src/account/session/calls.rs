//! The calls of a session: each is admitted by breaker and rate limit, signed with the current key, and counted.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::ecs::batch::{self, Split};
use crate::ecs::limit::{CallSlot, Priority};
use crate::ecs::{
    Action, Client, Error, InstanceId, NetworkInterfaceId, Region, SecurityGroupId, Tags,
    TargetDescription, TargetsPage,
};
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;

use super::super::breaker::Turn;
use super::super::limiters::CloudLimits;
use super::super::reach::Reach;

/// Why a call has no result.
#[derive(Clone, Debug)]
pub enum CallError {
    /// The rate limit admitted no call; none was made.
    RateLimited {
        /// When to ask again.
        retry_at: Instant,
    },
    /// The region does not answer, or refuses the key; no call was made.
    NotAnswering(Error),
    /// The process ends; no call was made.
    Stopping,
    /// The call was made and failed.
    Failed(Error),
}

impl CallError {
    /// Whether the call certainly changed nothing: it was not made, or the cloud rejected it ([`Error::outcome_unknown`]). A 4xx is
    /// a rejection, also a conflict and one with an unknown code: what other actors have made would count as joined otherwise.
    #[must_use]
    pub fn is_without_effect(&self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::NotAnswering(_) | Self::Stopping => true,
            Self::Failed(error) => !error.outcome_unknown(),
        }
    }

    /// Whether a call for fewer IDs may not fail so.
    #[must_use]
    pub fn split(&self) -> Split {
        match self {
            Self::RateLimited { .. } | Self::NotAnswering(_) | Self::Stopping => Split::No,
            Self::Failed(error) if error.is_too_large() => Split::TooLarge,
            Self::Failed(error) if error.may_be_one_bad_id() => Split::OneBadId,
            Self::Failed(_) => Split::No,
        }
    }
}

/// Permission to send one call now. Dropping it gives its place to another call.
#[derive(Debug)]
pub struct CallPermit {
    turn: Turn,
    slot: CallSlot,
}

/// The limits, the counters and the key behind all calls of a session.
pub(super) struct Calls {
    pub(super) limits: Arc<CloudLimits>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) shutdown: Shutdown,
    pub(super) signer: Mutex<Arc<Signer>>,
    /// Why calls wait, or fail before they are made.
    pub(super) hold: watch::Sender<Hold>,
}

/// Whether calls may be signed with the current key.
#[derive(Clone, Debug)]
pub(super) enum Hold {
    /// They may.
    None,
    /// The cloud has just refused the key, or its Secret is gone: until it is read again, or this moment comes, calls wait.
    Rereading {
        /// When they are made all the same.
        until: Instant,
    },
    /// STS has refused the key with this error, too: none is made.
    Refused(Error),
}

/// A target as a read has shown it.
#[derive(Clone, Debug)]
pub struct Sighting {
    /// What the read has shown.
    pub description: TargetDescription,
    /// When its call was sent: it may have waited for the limit, the region or the key before.
    pub sent: Instant,
}

fn sightings<Id: Eq + Hash>(
    rows: HashMap<Id, TargetDescription>,
    sent: Instant,
) -> HashMap<Id, Sighting> {
    let sighting = |description| Sighting { description, sent };
    rows.into_iter()
        .map(|(id, description)| (id, sighting(description)))
        .collect()
}

/// How long calls wait for the Secret to be read again (10 s).
pub(super) const REREAD: Duration = Duration::from_secs(10);

/// One access key, and what its calls met.
pub(super) struct Signer {
    pub(super) client: Client,
    pub(super) reach: Arc<Reach>,
    pub(super) suspect: AtomicBool,
}

impl Calls {
    pub(super) async fn instances(
        &self,
        region: &Region,
        priority: Priority,
        ids: &[InstanceId],
    ) -> batch::BatchResult<InstanceId, Sighting, CallError> {
        let call = async |client: Client| {
            self.telemetry.note_batch(ids.len());
            let sent = Instant::now();
            let rows = client.describe_instances(region, ids).await?;
            Ok(sightings(rows, sent))
        };
        let action = Action::DescribeInstances;
        let permit = self.limits.limiter.enter(region, action, priority);
        self.call(region, action, permit, call).await
    }

    /// One page of the instances that have these tags, `most` at most.
    pub(super) async fn tagged(
        &self,
        region: &Region,
        tags: &BTreeMap<String, String>,
        most: usize,
        token: Option<&str>,
    ) -> Result<TargetsPage<InstanceId>, CallError> {
        let call =
            async |client: Client| client.instances_with_tags(region, tags, most, token).await;
        let action = Action::DescribeInstances;
        let permit = self.limits.limiter.enter(region, action, Priority::Scan);
        self.call(region, action, permit, call).await
    }

    pub(super) async fn interfaces(
        &self,
        region: &Region,
        priority: Priority,
        ids: &[NetworkInterfaceId],
    ) -> batch::BatchResult<NetworkInterfaceId, Sighting, CallError> {
        let call = async |client: Client| {
            self.telemetry.note_batch(ids.len());
            let sent = Instant::now();
            let rows = client.describe_network_interfaces(region, ids).await?;
            Ok(sightings(rows, sent))
        };
        let action = Action::DescribeNetworkInterfaces;
        let permit = self.limits.limiter.enter(region, action, priority);
        self.call(region, action, permit, call).await
    }

    pub(super) async fn tags_of_groups(
        &self,
        region: &Region,
        groups: &[SecurityGroupId],
    ) -> Result<HashMap<SecurityGroupId, Tags>, CallError> {
        let call = async |client: Client| client.tags_of_groups(region, groups).await;
        let action = Action::DescribeSecurityGroups;
        let permit = self.limits.limiter.enter(region, action, Priority::Pass);
        self.call(region, action, permit, call).await
    }

    /// Makes one call if the region answers and the rate limit admits it.
    async fn call<T>(
        &self,
        region: &Region,
        action: Action,
        slot: impl Future<Output = Result<CallSlot, Instant>>,
        call: impl AsyncFnOnce(Client) -> Result<T, Error>,
    ) -> Result<T, CallError> {
        let permit = self.permit(region, action, slot).await?;
        self.send(region, action, permit, call).await
    }

    pub(super) async fn permit(
        &self,
        region: &Region,
        action: Action,
        slot: impl Future<Output = Result<CallSlot, Instant>>,
    ) -> Result<CallPermit, CallError> {
        // Before there is a turn or a slot, which are shared with other keys. `send` looks once more.
        self.until_key_may_be_used().await?;
        let turn = self.limits.breakers.enter(region, action);
        let turn = self.shutdown.unless_begun(turn).await;
        let turn = turn
            .ok_or(CallError::Stopping)?
            .map_err(CallError::NotAnswering)?;
        let slot = self.shutdown.unless_begun(slot).await;
        let slot = slot
            .ok_or(CallError::Stopping)?
            .map_err(|retry_at| CallError::RateLimited { retry_at })?;
        Ok(CallPermit { turn, slot })
    }

    /// Sends a call, or says that it may not be sent now. It does not wait: what has been decided may hold no more afterwards.
    pub(super) async fn send<T>(
        &self,
        region: &Region,
        action: Action,
        CallPermit { turn, mut slot }: CallPermit,
        call: impl AsyncFnOnce(Client) -> Result<T, Error>,
    ) -> Result<T, CallError> {
        let limiter = &self.limits.limiter;
        if let Hold::Rereading { until } = self.hold()? {
            return Err(CallError::RateLimited { retry_at: until });
        }
        let begun = limiter.begin(region, action, &slot);
        begun.map_err(|retry_at| CallError::RateLimited { retry_at })?;
        let signer = self.signer();
        let started = Instant::now();
        // Boxed to keep futures small while they wait for the limiter.
        let result = slot.hold(Box::pin(call(signer.client.clone()))).await;
        drop(slot);
        let error = result.as_ref().err();
        self.telemetry
            .count_call(action, region, error, started.elapsed());
        limiter.note(region, action, error);
        if turn.is_of_known_region() || error.is_none_or(Error::is_usable_answer) {
            let host = || signer.client.ecs_host(region);
            signer.reach.note(error, host);
        }
        if turn.end(error) {
            self.limits.report_answer(region);
        }
        if error.is_some_and(|error| error.is_credential_error() || error.is_clock_error()) {
            signer.suspect.store(true, Ordering::Relaxed);
        }
        if error.is_some_and(Error::is_credential_error) && Arc::ptr_eq(&signer, &self.signer()) {
            self.reread();
            self.limits.report_refusal();
        }
        result.map_err(CallError::Failed)
    }

    /// Has calls wait until the Secret has been read again.
    pub(super) fn reread(&self) {
        self.hold.send_if_modified(|hold| {
            let now = Instant::now();
            let may_begin = match hold {
                Hold::None => true,
                Hold::Rereading { until } => *until <= now,
                Hold::Refused(_) => false,
            };
            if may_begin {
                *hold = Hold::Rereading {
                    until: now + REREAD,
                };
            }
            may_begin
        });
    }

    /// Waits while the Secret is read again: a key that was just refused signs nothing more until then.
    async fn until_key_may_be_used(&self) -> Result<(), CallError> {
        let mut holds = self.hold.subscribe();
        loop {
            holds.mark_unchanged();
            let Hold::Rereading { until } = self.hold()? else {
                return Ok(());
            };
            let change = tokio::time::timeout_at(until, holds.changed());
            if self.shutdown.unless_begun(change).await.is_none() {
                return Err(CallError::Stopping);
            }
        }
    }

    /// Whether calls wait; an error if none is made.
    fn hold(&self) -> Result<Hold, CallError> {
        match self.hold.borrow().clone() {
            Hold::Rereading { until } if until <= Instant::now() => Ok(Hold::None),
            Hold::Refused(error) => Err(CallError::NotAnswering(error)),
            hold @ (Hold::None | Hold::Rereading { .. }) => Ok(hold),
        }
    }

    pub(super) fn signer(&self) -> Arc<Signer> {
        Arc::clone(&self.lock_signer())
    }

    pub(super) fn lock_signer(&self) -> MutexGuard<'_, Arc<Signer>> {
        self.signer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Calls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.signer().client.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::account::session::AccountSession;
    use crate::ecs::{Credential, Edge, Endpoints, Target, TestTransport};

    use super::*;

    fn session(cloud: &Arc<TestTransport>) -> AccountSession {
        session_of(cloud, CloudLimits::of_test("1"))
    }

    fn session_of(cloud: &Arc<TestTransport>, limits: Arc<CloudLimits>) -> AccountSession {
        let credential = Credential::new("LTAI4", "secret-of-the-key", None).unwrap();
        let endpoints = Endpoints::parse(None, None, false).unwrap();
        let transport = Arc::clone(cloud) as Arc<dyn crate::ecs::Transport>;
        AccountSession::new(
            Client::new(transport, credential, endpoints),
            limits,
            Arc::default(),
            Arc::default(),
            Shutdown::default(),
        )
    }

    #[tokio::test(start_paused = true)]
    async fn read_that_waits_for_the_secret_counts_from_its_sending() {
        let cloud = Arc::<TestTransport>::default();
        let row = json!({"InstanceId": "i-1", "Status": "Running", "SecurityGroupIds": {"SecurityGroupId": []}});
        cloud.answers(
            200,
            &json!({"RequestId": "R", "Instances": {"Instance": [row]}}),
        );
        let session = session(&cloud);
        session.await_secret();
        let began = Instant::now();
        let region = "cn-hangzhou".parse().unwrap();
        let target = Target::Instance("i-1".parse().unwrap());
        let seen = session.describe(&region, &target).await;
        let seen = seen.unwrap().unwrap();
        assert!(seen.sent >= began + REREAD, "{:?}", seen.sent - began);
    }

    #[tokio::test(start_paused = true)]
    async fn call_waits_for_the_secret_before_it_is_decided_and_never_after() {
        let cloud = Arc::<TestTransport>::default();
        cloud.answers(200, &json!({"RequestId": "R"}));
        let session = session(&cloud);
        let edge = Edge {
            region: "cn-hangzhou".parse().unwrap(),
            target: Target::Instance("i-1".parse().unwrap()),
            group: "sg-1".parse().unwrap(),
        };
        let permit = async || {
            let reserved = session
                .limiter()
                .reserve(&edge.region, Action::LeaveSecurityGroup);
            session.permit(&edge.region, reserved.unwrap()).await
        };
        let decided = permit().await.unwrap();
        session.await_secret();
        let refused = session.leave(&edge, decided).await;
        assert!(
            matches!(refused, Err(CallError::RateLimited { .. })),
            "{refused:?}"
        );
        let began = Instant::now();
        let permit = permit().await.unwrap();
        assert_eq!(began.elapsed(), REREAD);
        assert!(session.leave(&edge, permit).await.is_ok());
    }

    /// All keys of a cloud account share the turns and the slots.
    #[tokio::test(start_paused = true)]
    async fn calls_that_wait_for_their_key_keep_those_of_other_keys_from_nothing() {
        let cloud = Arc::<TestTransport>::default();
        cloud.answers(200, &json!({"RequestId": "R"}));
        let limits = CloudLimits::of_test("1");
        let held = session_of(&cloud, Arc::clone(&limits));
        let other = session_of(&cloud, limits);
        let region = "cn-hangzhou".parse().unwrap();
        let permit = async |session: &AccountSession| {
            let reserved = session.limiter();
            let reserved = reserved.reserve(&region, Action::LeaveSecurityGroup);
            session.permit(&region, reserved.unwrap()).await.map(drop)
        };
        held.await_secret();
        let began = Instant::now();
        let waiting = futures::future::join_all((0..100).map(|_| permit(&held)));
        let call = async {
            tokio::time::sleep(REREAD / 2).await;
            permit(&other).await.unwrap();
            began.elapsed()
        };
        let (waited, took) = tokio::join!(waiting, call);
        assert!(waited.iter().all(Result::is_ok));
        assert_eq!((took, began.elapsed() >= REREAD), (REREAD / 2, true));
    }
}
