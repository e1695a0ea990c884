//! The calls of one usable account: reads in batches of 100, every call rate-limited and counted. No decisions.

mod calls;

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::watch;

use crate::ecs::batch::{self, Batch, Pace, Split};
use crate::ecs::limit::{CallLimiter, Priority, Reservation};
use crate::ecs::{
    AccountUid, Action, Client, Edge, Error, InstanceId, NetworkInterfaceId, Region, RequestId,
    SecurityGroupId, Tags, Target, TargetsPage,
};
use crate::shutdown::Shutdown;
use crate::telemetry::Telemetry;

use self::calls::{Calls, Hold, Signer};
use super::limiters::CloudLimits;
use super::reach::{Reach, Reachability};

pub use self::calls::{CallError, CallPermit, Sighting};

/// An account object whose credentials the cloud accepted. It outlives its key: a new key of the same cloud account signs the
/// later calls of the same session, and reads that wait for a call go on waiting for it.
#[derive(Debug)]
pub struct AccountSession {
    /// UID of the cloud account.
    pub uid: AccountUid,
    calls: Arc<Calls>,
    batchers: Mutex<HashMap<Region, DescribeBatchers>>,
}

/// The two read queues of a region: one per kind of target.
#[derive(Clone, Debug)]
struct DescribeBatchers {
    instances: Arc<Batch<InstanceId, Sighting, CallError>>,
    interfaces: Arc<Batch<NetworkInterfaceId, Sighting, CallError>>,
}

impl AccountSession {
    /// A session for an account whose credentials the cloud accepted. No call begins after `shutdown` has begun.
    #[must_use]
    pub fn new(
        client: Client,
        limits: Arc<CloudLimits>,
        telemetry: Arc<Telemetry>,
        reach: Arc<Reach>,
        shutdown: Shutdown,
    ) -> Self {
        Self {
            uid: limits.id.uid.clone(),
            calls: Arc::new(Calls {
                limits,
                telemetry,
                shutdown,
                signer: Mutex::new(Arc::new(Signer {
                    client,
                    reach,
                    suspect: AtomicBool::new(false),
                })),
                hold: watch::channel(Hold::None).0,
            }),
            batchers: Mutex::default(),
        }
    }

    /// Whether both make calls of the same cloud account to the same endpoints.
    #[must_use]
    pub fn has_cloud_of(&self, other: &Self) -> bool {
        self.limits().id == other.limits().id
    }

    /// Whether both sign with the same access key.
    #[must_use]
    pub fn has_key_of(&self, other: &Self) -> bool {
        self.calls.signer().client.access_key_id() == other.calls.signer().client.access_key_id()
    }

    /// Signs later calls as `newer` does. Calls in flight are not touched.
    pub fn sign_as(&self, newer: &Self) {
        let signer = newer.calls.signer();
        *self.calls.lock_signer() = signer;
        self.release();
    }

    /// Has calls wait until the Secret has been read again, 10 s at most: it is gone, and may be there again in a moment.
    pub fn await_secret(&self) {
        self.calls.reread();
    }

    /// Fails calls before they are made: STS has refused the key as well.
    pub fn refuse(&self, error: Error) {
        self.calls.hold.send_replace(Hold::Refused(error));
    }

    /// Makes the calls that wait.
    pub fn release(&self) {
        self.calls.hold.send_replace(Hold::None);
    }

    /// Whether the cloud has rejected the access key, or the time of this process, in a call since STS last accepted both.
    #[must_use]
    pub fn is_suspect(&self) -> bool {
        self.calls.signer().suspect.load(Ordering::Relaxed)
    }

    /// Clears the suspicion after STS has accepted the key again.
    pub fn clear_suspicion(&self) {
        let signer = self.calls.signer();
        signer.suspect.store(false, Ordering::Relaxed);
        self.release();
    }

    /// Reads the target; `None` if a complete answer does not list it. Concurrent reads share a call.
    ///
    /// # Errors
    /// The rate limit admitted no call, or the call failed.
    pub async fn describe(
        &self,
        region: &Region,
        target: &Target,
    ) -> Result<Option<Sighting>, CallError> {
        let batchers = self.batchers(region);
        match target {
            Target::Instance(id) => batchers.instances.get(id.clone()).await,
            Target::NetworkInterface(id) => batchers.interfaces.get(id.clone()).await,
        }
    }

    /// How the reads of targets of this kind go in this region.
    #[must_use]
    pub fn pace(&self, region: &Region, target: &Target) -> Arc<Pace> {
        self.limits().pace(region, target.describe_action())
    }

    /// Reads up to [`crate::ecs::MAX_IDS_PER_CALL`] targets with the lowest priority. A target that a complete answer does
    /// not list is missing from the result.
    ///
    /// # Errors
    /// The rate limit admitted no call, or a call failed.
    pub async fn scan(
        &self,
        region: &Region,
        targets: &[Target],
    ) -> Result<HashMap<Target, Sighting>, CallError> {
        let mut instances = Vec::new();
        let mut interfaces = Vec::new();
        for target in targets {
            match target {
                Target::Instance(id) => instances.push(id.clone()),
                Target::NetworkInterface(id) => interfaces.push(id.clone()),
            }
        }
        let mut found = HashMap::new();
        if !instances.is_empty() {
            let rows = self
                .calls
                .instances(region, Priority::Scan, &instances)
                .await?;
            found.extend(
                rows.into_iter()
                    .map(|(id, row)| (Target::Instance(id), row)),
            );
        }
        if !interfaces.is_empty() {
            let rows = self
                .calls
                .interfaces(region, Priority::Scan, &interfaces)
                .await?;
            found.extend(
                rows.into_iter()
                    .map(|(id, row)| (Target::NetworkInterface(id), row)),
            );
        }
        Ok(found)
    }

    /// Reads one page of the instances that have all of these tags, `most` at most, with the lowest priority. Also where the next page
    /// begins.
    ///
    /// # Errors
    /// The rate limit admitted no call, or the call failed.
    pub async fn tagged(
        &self,
        region: &Region,
        tags: &BTreeMap<String, String>,
        most: usize,
        token: Option<&str>,
    ) -> Result<TargetsPage<InstanceId>, CallError> {
        self.calls.tagged(region, tags, most, token).await
    }

    /// Reads the tags of up to [`crate::ecs::MAX_IDS_PER_CALL`] groups. A group that a complete answer does not list is missing from the
    /// result.
    ///
    /// # Errors
    /// The rate limit admitted no call, or the call failed.
    pub async fn tags_of_groups(
        &self,
        region: &Region,
        groups: &[SecurityGroupId],
    ) -> Result<HashMap<SecurityGroupId, Tags>, CallError> {
        self.calls.tags_of_groups(region, groups).await
    }

    /// Waits until a Join or Leave may be sent: the region answers, and there is a place among the calls in flight.
    ///
    /// # Errors
    /// The region does not answer, the cloud has throttled the action meanwhile, or the process ends.
    pub async fn permit(
        &self,
        region: &Region,
        reservation: Reservation,
    ) -> Result<CallPermit, CallError> {
        let action = reservation.action();
        let permit = self.calls.permit(region, action, reservation.enter());
        permit.await
    }

    /// Adds the edge's target to its group.
    ///
    /// # Errors
    /// The call failed. Check [`CallError::is_without_effect`]: only then was certainly nothing joined.
    pub async fn join(&self, edge: &Edge, permit: CallPermit) -> Result<RequestId, CallError> {
        let call = async |client: Client| {
            client
                .join_security_group(&edge.region, &edge.target, &edge.group)
                .await
        };
        let action = Action::JoinSecurityGroup;
        self.calls.send(&edge.region, action, permit, call).await
    }

    /// Removes the edge's target from its group.
    ///
    /// # Errors
    /// The call failed. Check [`CallError::is_without_effect`]: only then was certainly nothing removed.
    pub async fn leave(&self, edge: &Edge, permit: CallPermit) -> Result<RequestId, CallError> {
        let call = async |client: Client| {
            client
                .leave_security_group(&edge.region, &edge.target, &edge.group)
                .await
        };
        let action = Action::LeaveSecurityGroup;
        self.calls.send(&edge.region, action, permit, call).await
    }

    /// Records whether some targets of the account have not been read for three scan periods; the account's status says so.
    pub fn report_unread(&self, unread: bool) {
        self.calls.signer().reach.note_unread(unread);
    }

    /// Whether its calls got usable answers, or none for `limit` ([`Reach::reachability`]).
    #[must_use]
    pub fn reachability(&self, limit: Duration) -> Option<Reachability> {
        self.calls.signer().reach.reachability(limit)
    }

    /// The limits of the account's calls.
    #[must_use]
    pub fn limiter(&self) -> &Arc<CallLimiter> {
        &self.calls.limits.limiter
    }

    /// The limits that all account objects of the cloud account share.
    #[must_use]
    pub fn limits(&self) -> &Arc<CloudLimits> {
        &self.calls.limits
    }

    /// Number of regions that have read queues.
    #[must_use]
    pub fn regions(&self) -> usize {
        let batchers = self.batchers.lock().unwrap_or_else(PoisonError::into_inner);
        batchers.len()
    }

    /// Forgets the read queues of the regions for which `keep` is false. Reads that wait in one are still answered.
    pub fn retain_regions(&self, keep: impl Fn(&Region) -> bool) {
        let mut batchers = self.batchers.lock().unwrap_or_else(PoisonError::into_inner);
        batchers.retain(|region, _| keep(region));
    }

    fn batchers(&self, region: &Region) -> DescribeBatchers {
        let mut batchers = self.batchers.lock().unwrap_or_else(PoisonError::into_inner);
        batchers
            .entry(region.clone())
            .or_insert_with(|| DescribeBatchers::new(&self.calls, region))
            .clone()
    }
}

impl DescribeBatchers {
    fn new(calls: &Arc<Calls>, region: &Region) -> Self {
        let (instances, interfaces) = (Arc::clone(calls), Arc::clone(calls));
        let (here, there) = (region.clone(), region.clone());
        Self {
            instances: batcher(
                move |ids| {
                    let (calls, region) = (Arc::clone(&instances), here.clone());
                    async move { calls.instances(&region, Priority::Pass, &ids).await }.boxed()
                },
                calls.limits.pace(region, Action::DescribeInstances),
            ),
            interfaces: batcher(
                move |ids| {
                    let (calls, region) = (Arc::clone(&interfaces), there.clone());
                    async move { calls.interfaces(&region, Priority::Pass, &ids).await }.boxed()
                },
                calls.limits.pace(region, Action::DescribeNetworkInterfaces),
            ),
        }
    }
}

fn batcher<Id: Clone + Eq + Hash + Send + Sync + 'static>(
    ask: impl Fn(
        Vec<Id>,
    )
        -> futures::future::BoxFuture<'static, batch::BatchResult<Id, Sighting, CallError>>
    + Send
    + Sync
    + 'static,
    pace: Arc<Pace>,
) -> Arc<Batch<Id, Sighting, CallError>> {
    Arc::new(Batch::new(ask, CallError::split, pace))
}

/// Calls again whenever the rate limit admits it, until the call was made.
///
/// # Errors
/// Any error of the call but [`CallError::RateLimited`].
pub async fn until_admitted<T, F>(mut call: impl FnMut() -> F) -> Result<T, CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    loop {
        match call().await {
            Err(CallError::RateLimited { retry_at }) => tokio::time::sleep_until(retry_at).await,
            result => return result,
        }
    }
}

/// Reads by ID, as many per call as fit in an answer. A call whose answer is too large, or one of whose IDs may have made it fail, is made again
/// in halves. `take` gets each answer or error, with the IDs that the call named, and tells whether to go on.
///
/// # Errors
/// What `take` returns.
pub async fn read_in_parts<'a, Id, T, F>(
    ids: &'a [Id],
    pace: &Pace,
    read: impl Fn(&'a [Id]) -> F,
    mut take: impl FnMut(&'a [Id], Result<T, CallError>) -> Result<(), CallError>,
) -> Result<(), CallError>
where
    F: Future<Output = Result<T, CallError>>,
{
    let mut left: Vec<&[Id]> = ids.chunks(pace.most()).collect();
    while let Some(part) = left.pop() {
        match until_admitted(|| read(part)).await {
            Err(error) if error.split() != Split::No && part.len() > 1 => {
                if error.split() == Split::TooLarge {
                    pace.was_too_large(part.len());
                }
                let (first, rest) = part.split_at(part.len() / 2);
                left.extend([first, rest]);
            }
            result => take(part, result)?,
        }
    }
    Ok(())
}
