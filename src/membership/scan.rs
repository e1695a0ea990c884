//! Reads every tracked target once per scan period, 100 targets per call, and enqueues only the objects whose observation
//! changed. Reads only: the enqueued pass reads again and decides. A missing answer enqueues nothing, and a refusal the objects
//! that do not tell of it yet.
//!
//! A cloud account is scanned once, however many account objects name it. A target that objects of several accounts name is read
//! with the key of one of them. What that key did not find is read again with the key of the next: it may lack rights.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{AbortHandle, abortable};
use tokio::time::Instant;
use tracing::{debug, warn};

use crate::account::key::{AccountKey, AccountRegion, CloudAccountId};
use crate::account::limiters::CloudLimits;
use crate::account::session::{AccountSession, CallError, until_admitted};
use crate::ecs::batch::Split;
use crate::ecs::{Class, Error, MAX_IDS_PER_CALL, Region, Target, TargetDescription};
use crate::kubernetes::LogDeduper;

use super::context::Context;
use super::progress::Progress;

/// How often accounts and regions that appeared or disappeared are looked up.
const FOLLOW_PERIOD: Duration = Duration::from_secs(1);

/// Scans until dropped, with one task per cloud account and region that has answered: a region that does not answer delays only
/// its own targets. Also forgets the regions that no object names any more.
pub async fn run(context: Arc<Context>, period: Duration) {
    let mut tasks = Tasks::default();
    loop {
        tasks.follow(&context, period);
        tokio::time::sleep(FOLLOW_PERIOD).await;
    }
}

/// A cloud account at its endpoints, and a region.
type Place = (Arc<CloudAccountId>, Region);

/// The running scans; aborted on drop.
#[derive(Default)]
struct Tasks(HashMap<Place, Task>);

struct Task {
    handle: AbortHandle,
    progress: Arc<Progress>,
}

impl Tasks {
    /// Aborts the scans of regions without objects, starts the missing ones, and tells each which accounts it is for.
    fn follow(&mut self, context: &Arc<Context>, period: Duration) {
        let sessions = context.directory.sessions();
        let named = named_places(context, &sessions);
        forget_regions(&sessions, &named);
        self.0.retain(|place, _| named.contains_key(place));
        for (place, accounts) in named {
            if let Some(task) = self.0.get(&place) {
                task.progress.set_accounts(accounts, context.clock.now());
                continue;
            }
            let (cloud, region) = &place;
            let has_answered =
                |limits: &CloudLimits| limits.id == *cloud && limits.breakers.has_answered(region);
            // Until then no pass has observed a target there.
            let is_scanned = accounts
                .iter()
                .filter_map(|account| sessions.get(account))
                .any(|session| has_answered(session.limits()));
            if is_scanned {
                self.0
                    .insert(place.clone(), Task::start(context, place, accounts, period));
            }
        }
    }
}

impl Task {
    fn start(
        context: &Arc<Context>,
        (cloud, region): Place,
        accounts: BTreeSet<AccountKey>,
        period: Duration,
    ) -> Self {
        let now = context.clock.now();
        let progress = Arc::new(Progress::new(region.clone(), accounts, now));
        let mut scans = context.scans();
        scans.retain(|scan| scan.strong_count() > 0);
        scans.push(Arc::downgrade(&progress));
        drop(scans);
        let scan = Scan {
            context: Arc::clone(context),
            cloud,
            region,
            progress: Arc::clone(&progress),
            period,
        };
        let (running, handle) = abortable(async move { scan.run().await });
        tokio::spawn(running);
        Self { handle, progress }
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.handle.abort();
    }
}

type Sessions = HashMap<AccountKey, Arc<AccountSession>>;

/// The places that objects name, and the accounts that they name there.
fn named_places(context: &Context, sessions: &Sessions) -> HashMap<Place, BTreeSet<AccountKey>> {
    let mut named: HashMap<Place, BTreeSet<AccountKey>> = HashMap::new();
    for AccountRegion { account, region } in context.table.account_regions() {
        if let Some(session) = sessions.get(&account) {
            let place = (Arc::clone(&session.limits().id), region);
            named.entry(place).or_default().insert(account);
        }
    }
    named
}

/// Has the sessions and the limits of the cloud accounts forget the regions that no object names.
fn forget_regions(sessions: &Sessions, named: &HashMap<Place, BTreeSet<AccountKey>>) {
    for (account, session) in sessions {
        let limits = session.limits();
        let accounts = |region: &Region| named.get(&(Arc::clone(&limits.id), region.clone()));
        session.retain_regions(|region| {
            accounts(region).is_some_and(|accounts| accounts.contains(account))
        });
        limits.retain_regions(|region| accounts(region).is_some());
    }
}

/// The scan of one cloud account in one region.
struct Scan {
    context: Arc<Context>,
    cloud: Arc<CloudAccountId>,
    region: Region,
    progress: Arc<Progress>,
    period: Duration,
}

impl Scan {
    /// Reads the targets once per period, for ever.
    async fn run(&self) {
        // After a restart all objects become ready at once: a random start keeps the scans of all cloud accounts apart.
        let start = self.context.clock.within(self.period / 5..self.period);
        tokio::time::sleep(start).await;
        loop {
            let started = Instant::now();
            for account in self.read_all().await {
                self.progress.complete(&account, self.context.clock.now());
            }
            tokio::time::sleep_until(started + self.period).await;
        }
    }

    /// Reads each target once, spread evenly over the period. Returns the accounts of which every call was answered. Targets that appear
    /// meanwhile are for the next scan: it must not be late because of them.
    async fn read_all(&self) -> BTreeSet<AccountKey> {
        let table = &self.context.table;
        let with_last = |account_region: AccountRegion| {
            let (total, last) = table.last_target(&account_region)?;
            Some((account_region, total, last))
        };
        let accounts: Vec<_> = self.account_regions().filter_map(with_last).collect();
        let blocks = accounts
            .iter()
            .map(|(_, total, _)| total.div_ceil(MAX_IDS_PER_CALL));
        let blocks = u32::try_from(blocks.sum::<usize>()).unwrap_or(u32::MAX);
        let pause = self.period / blocks.max(1);
        // What one account's key has found is not read with the next one's.
        let mut found_before = HashSet::new();
        // One whose targets are all read with the keys of others needs no call of its own.
        let mut all_read: BTreeSet<_> = self.progress.accounts().keys().cloned().collect();
        for (account_region, _, last) in &accounts {
            let mut after = None;
            loop {
                let started = Instant::now();
                let batch = self
                    .next_batch(account_region, &mut after, last, &found_before)
                    .await;
                if batch.is_empty() {
                    break;
                }
                let (reads, complete) =
                    scan_batch(&self.context, &self.cloud, account_region, &batch).await;
                if !complete {
                    all_read.remove(&account_region.account);
                }
                for read in reads.into_iter().filter(|_| accounts.len() > 1) {
                    let others = accounts.iter().map(|(other, _, _)| other);
                    self.read_for_others(others.filter(|other| *other != account_region), &read);
                    found_before.extend(read.found.into_keys());
                }
                tokio::time::sleep_until(started + pause).await;
            }
        }
        all_read
    }

    fn account_regions(&self) -> impl Iterator<Item = AccountRegion> + use<'_> {
        let accounts: Vec<_> = self.progress.accounts().keys().cloned().collect();
        accounts.into_iter().map(|account| AccountRegion {
            account,
            region: self.region.clone(),
        })
    }

    /// Up to 100 targets of the account that sort after `after` and not after `last`. Skips a target that no pass has described: it has
    /// no grant, is paused, or its ID is malformed, and one bad ID fails the whole call. Skips a target of `found_before`. Returns none
    /// only after the last.
    async fn next_batch(
        &self,
        account_region: &AccountRegion,
        after: &mut Option<Target>,
        last: &Target,
        found_before: &HashSet<Target>,
    ) -> Vec<Target> {
        let table = &self.context.table;
        let mut batch = Vec::new();
        while batch.len() < MAX_IDS_PER_CALL {
            let most = MAX_IDS_PER_CALL - batch.len();
            let targets = table.targets_between(account_region, after.as_ref(), last, most);
            let Some(newest) = targets.last() else {
                break;
            };
            *after = Some(newest.clone());
            let seen = table.seen(account_region, &targets).into_iter();
            batch.extend(seen.filter(|target| !found_before.contains(target)));
            // Thousands may be skipped at a time.
            tokio::task::yield_now().await;
        }
        batch
    }

    /// Records the read for the objects of other accounts that name targets which were found, and enqueues the changed ones.
    fn read_for_others<'a>(
        &self,
        others: impl Iterator<Item = &'a AccountRegion>,
        read: &ScanRead,
    ) {
        let targets: Vec<Target> = read.found.keys().cloned().collect();
        for other in others {
            record_read(&self.context, &self.cloud, other, &targets, read);
        }
    }
}

/// What one call of a scan found, and when it was sent.
struct ScanRead {
    found: HashMap<Target, TargetDescription>,
    sent: Instant,
}

/// Reads one batch in as many calls as it needs, and enqueues the changed objects of the account whose key read it. Returns what
/// was found, and whether every call was answered. One malformed ID among the targets does not count.
async fn scan_batch(
    context: &Context,
    cloud: &CloudAccountId,
    account_region: &AccountRegion,
    batch: &[Target],
) -> (Vec<ScanRead>, bool) {
    let session = context.directory.usable(&account_region.account);
    let Some(session) = session.filter(|session| *session.limits().id == *cloud) else {
        return (Vec::new(), false);
    };
    let mut complete = true;
    let mut all = Vec::new();
    let mut parts = parts(&session, &account_region.region, batch);
    while let Some(part) = parts.pop_front() {
        match read_part(&session, &account_region.region, &part).await {
            Ok(read) => {
                record_read(context, cloud, account_region, &part, &read);
                all.push(read);
            }
            Err(CallError::RateLimited { .. } | CallError::Stopping) => {
                complete = false;
                break;
            }
            Err(error) if error.split() == Split::TooLarge && part.len() > 1 => {
                if let Some(first) = part.first() {
                    let pace = session.pace(&account_region.region, first);
                    pace.was_too_large(part.len());
                }
                let (left, right) = part.split_at(part.len() / 2);
                parts.push_front(right.to_vec());
                parts.push_front(left.to_vec());
            }
            Err(CallError::Failed(error) | CallError::NotAnswering(error)) => {
                complete &= error.may_be_one_bad_id();
                report_failure(context, account_region, &part, &error);
            }
        }
    }
    (all, complete)
}

/// The batch by kind of target, in parts that one call may read.
fn parts(session: &AccountSession, region: &Region, batch: &[Target]) -> VecDeque<Vec<Target>> {
    let by_kind = batch.chunk_by(|a, b| a.describe_action() == b.describe_action());
    let parts = by_kind.flat_map(|kind| {
        let most = kind.first().map_or(MAX_IDS_PER_CALL, |target| {
            session.pace(region, target).most()
        });
        kind.chunks(most).map(<[Target]>::to_vec)
    });
    parts.collect()
}

/// Reads the targets as soon as the rate limit admits the call.
async fn read_part(
    session: &AccountSession,
    region: &Region,
    part: &[Target],
) -> Result<ScanRead, CallError> {
    // Under a small rate limit, its waits make the scan period longer.
    let seen = until_admitted(|| session.scan(region, part)).await?;
    let sent = seen.values().map(|seen| seen.sent).min();
    let found = seen
        .into_iter()
        .map(|(target, seen)| (target, seen.description));
    Ok(ScanRead {
        found: found.collect(),
        // Of a target that is not listed, nothing is concluded from the time.
        sent: sent.unwrap_or_else(Instant::now),
    })
}

/// Enqueues the objects whose status must follow from a failed read, and logs it.
fn report_failure(
    context: &Context,
    account_region: &AccountRegion,
    part: &[Target],
    error: &Error,
) {
    let AccountRegion { account, region } = account_region;
    let concerned = match error.class() {
        // One malformed ID may have failed the call. The passes read each target alone and find it; later scans skip it.
        _ if error.may_be_one_bad_id() => context.table.mark_stale(account_region, part),
        Class::Blocked | Class::Invalid | Class::Absent => {
            log_failure(account, region, error, &context.logged);
            context.table.mark_refused(account_region, part)
        }
        Class::Done | Class::Transitional | Class::Transient | Class::Throttled => {
            log_failure(account, region, error, &context.logged);
            Vec::new()
        }
    };
    for object in concerned {
        context.queue.enqueue(&object);
    }
}

/// Records a read of these targets for the objects of one account, and enqueues the changed ones.
fn record_read(
    context: &Context,
    cloud: &CloudAccountId,
    account_region: &AccountRegion,
    targets: &[Target],
    ScanRead { found, sent }: &ScanRead,
) {
    let table = &context.table;
    table.read_by_scan(account_region, &cloud.uid, found, *sent);
    for object in table.changed(account_region, targets, found) {
        context.queue.enqueue(&object);
    }
}

/// Logs why a scan failed: at WARN once per cause, otherwise at DEBUG. A throttle only makes the scan slower.
fn log_failure(account: &AccountKey, region: &Region, error: &Error, logged: &LogDeduper) {
    let regarding = account.reference();
    let (kind, namespace, name) = (regarding.kind, regarding.namespace, regarding.name);
    let reason = error.reason();
    let (code, request_id) = (error.code(), error.request_id());
    let text = format!("the scan failed and is repeated after one scan period: {error}");
    if error.class() != Class::Throttled
        && logged.is_first(&format!("scan {account} {region} {error}"))
    {
        warn!(kind, namespace, name, %region, reason, code, request_id, "{text}");
    } else {
        debug!(kind, namespace, name, %region, reason, code, request_id, "{text}");
    }
}

#[cfg(test)]
mod tests {
    use kube::runtime::reflector;
    use std::sync::Mutex;

    use serde_json::json;

    use super::*;
    use crate::account::directory::{AccountState, Directory, Grants};
    use crate::account::session::AccountSession;
    use crate::api::SecurityGroupMembership;
    use crate::api::membership::AccountKind;
    use crate::ecs::{Client, Credential, Endpoints, TestTransport, Transport, TransportError};
    use crate::membership::history::{History, Standing};
    use crate::membership::observation::{CLOUD_READ_LAG, Observation, Unread};
    use crate::shutdown::Shutdown;
    use crate::telemetry::TestLog;

    /// A context with one usable account, whose calls `cloud` answers.
    fn context(account: &AccountKey, cloud: &Arc<impl Transport>) -> Context {
        let credential = Credential::new("LTAI4", "secret-of-the-key", None).unwrap();
        let endpoints = Endpoints::parse(None, None, false).unwrap();
        let client = Client::new(Arc::clone(cloud) as _, credential, endpoints);
        let session = AccountSession::new(
            client,
            CloudLimits::of_test("123"),
            Arc::default(),
            Arc::default(),
            Shutdown::default(),
        );
        let directory = Directory::new(reflector::store().0);
        directory.upsert(account, Grants::OwnNamespace);
        directory.set_state(account, AccountState::Ready(Arc::new(session)));
        Context::of_test(directory)
    }

    fn own_account() -> AccountKey {
        AccountKey {
            kind: AccountKind::CloudAccount,
            namespace: "team".to_owned(),
            name: "own".to_owned(),
        }
    }

    fn object(number: usize, region: &Region) -> SecurityGroupMembership {
        let object = json!({
            "metadata": {"name": format!("m{number}"), "namespace": "team", "uid": format!("u{number}"), "resourceVersion": "1"},
            "spec": {
                "region": region, "instanceID": format!("i-{number}"), "securityGroupID": "sg-a",
                "accountRef": {"kind": "CloudAccount", "name": "own"},
            },
        });
        serde_json::from_value(object).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn region_is_forgotten_with_its_last_object() {
        let cloud = Arc::<TestTransport>::default();
        cloud.answers(
            200,
            &json!({"RequestId": "R", "Instances": {"Instance": []}, "TotalCount": 0}),
        );
        let context = Arc::new(context(&own_account(), &cloud));
        let session = context.directory.usable(&own_account()).unwrap();
        let regions: Vec<Region> = (0..400)
            .map(|number| format!("xx-{number}").parse().unwrap())
            .collect();
        let remembered = |tasks: &Tasks| {
            let limits = session.limits();
            let limited = limits.limiter.regions();
            (
                tasks.0.len(),
                session.regions(),
                limits.breakers.len(),
                limited,
            )
        };
        let mut tasks = Tasks::default();
        for (number, region) in regions.iter().enumerate() {
            let _ = context.table.insert(&object(number, region));
        }
        tasks.follow(&context, Duration::from_secs(60));
        assert_eq!(remembered(&tasks), (0, 0, 0, 0), "nothing was called");
        for (number, region) in regions.iter().enumerate() {
            let target = Target::Instance(format!("i-{number}").parse().unwrap());
            let _ = session.describe(region, &target).await;
        }
        tasks.follow(&context, Duration::from_secs(60));
        assert_eq!(remembered(&tasks), (400, 400, 400, 400));
        for number in 1..400 {
            let _ = context.table.remove(&format!("u{number}").as_str().into());
        }
        tasks.follow(&context, Duration::from_secs(60));
        // Its calls count for a minute.
        assert_eq!(remembered(&tasks), (1, 1, 1, 400));
        tokio::time::advance(Duration::from_secs(60)).await;
        tasks.follow(&context, Duration::from_secs(60));
        assert_eq!(remembered(&tasks), (1, 1, 1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn read_with_the_key_of_one_account_counts_for_the_claims_of_others() {
        let cloud = Arc::<TestTransport>::default();
        let row = json!({
            "InstanceId": "i-0", "Status": "Running", "SecurityGroupIds": {"SecurityGroupId": ["sg-base"]},
        });
        cloud.answers(
            200,
            &json!({"RequestId": "R", "Instances": {"Instance": [row]}, "TotalCount": 1}),
        );
        let context = Arc::new(context(&own_account(), &cloud));
        let region: Region = "cn-hangzhou".parse().unwrap();
        let mut recorded = object(0, &region);
        recorded.metadata.uid = Some("other".to_owned());
        recorded.spec.account_ref.name = "second".to_owned();
        recorded.spec.security_group_id = "sg-b".to_owned();
        let record = json!({"origin": "Joined", "objectUID": "other", "accountUID": "123"});
        recorded.status = Some(serde_json::from_value(record).unwrap());
        let _ = context.table.insert(&object(0, &region));
        let _ = context.table.insert(&recorded);
        context.table.history(&"u0".into(), |history| {
            history.record_observation(Some(Observation::Absent));
        });
        let standing = || {
            let standing = |history: &mut History| history.standing();
            context.table.history(&"other".into(), standing)
        };
        let alone_in = region.clone();
        let second = AccountKey {
            name: "second".to_owned(),
            ..own_account()
        };
        let scan = Scan {
            context: Arc::clone(&context),
            cloud: Arc::clone(&CloudLimits::of_test("123").id),
            region: region.clone(),
            progress: Arc::new(Progress::new(
                region,
                BTreeSet::from([own_account(), second]),
                context.clock.now(),
            )),
            period: Duration::from_secs(60),
        };
        let started = Instant::now();
        assert_eq!(scan.read_all().await.len(), 2);
        let early = "a read in the first 10 s of the process does not count";
        assert_eq!(standing(), Some(Standing::Unknown), "{early}");
        tokio::time::sleep_until(started + CLOUD_READ_LAG).await;
        assert_eq!(scan.read_all().await.len(), 2);
        assert_eq!(standing(), Some(Standing::Void));
        // The second account has no usable key, and a target that the first one does not name.
        let mut alone = object(1, &alone_in);
        alone.spec.account_ref.name = "second".to_owned();
        let _ = context.table.insert(&alone);
        context.table.history(&"u1".into(), |history| {
            history.record_observation(Some(Observation::Absent));
        });
        assert_eq!(scan.read_all().await, BTreeSet::from([own_account()]));
    }

    /// A cloud whose answers about more than `fits` instances are too large. Keeps how many each call asked for.
    struct Large {
        fits: usize,
        asked: Mutex<Vec<usize>>,
    }

    impl Transport for Large {
        fn send(
            &self,
            request: http::Request<bytes::Bytes>,
            _: Duration,
        ) -> futures::future::BoxFuture<'_, Result<http::Response<bytes::Bytes>, TransportError>>
        {
            let ids = url::form_urlencoded::parse(request.body())
                .find(|(name, _)| name == "InstanceIds")
                .map_or_else(String::new, |(_, ids)| ids.into_owned());
            let ids: Vec<String> = serde_json::from_str(&ids).unwrap();
            self.asked.lock().unwrap().push(ids.len());
            let row = |id| json!({"InstanceId": id, "Status": "Running", "SecurityGroupIds": {"SecurityGroupId": ["sg-a"]}});
            let rows: Vec<_> = ids.iter().map(row).collect();
            let body = json!({"RequestId": "R", "Instances": {"Instance": rows}});
            let answer = if ids.len() > self.fits {
                Err(TransportError::TooLarge { limit: 7 })
            } else {
                Ok(http::Response::new(body.to_string().into()))
            };
            Box::pin(std::future::ready(answer))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn scan_halves_what_is_too_large_and_remembers_it() {
        let cloud = Arc::new(Large {
            fits: 60,
            asked: Mutex::default(),
        });
        let account = own_account();
        let context = context(&account, &cloud);
        let id = CloudLimits::of_test("123").id.clone();
        let account_region = AccountRegion {
            account,
            region: "cn-hangzhou".parse().unwrap(),
        };
        let target = |number| Target::Instance(format!("i-{number}").parse().unwrap());
        let batch: Vec<Target> = (0..100).map(target).collect();
        for expected in [vec![100, 50, 50], vec![50, 50]] {
            let read = scan_batch(&context, &id, &account_region, &batch).await;
            let found: usize = read.0.iter().map(|read| read.found.len()).sum();
            assert_eq!((found, read.1), (100, true));
            let asked = std::mem::take(&mut *cloud.asked.lock().unwrap());
            assert_eq!(asked, expected);
        }
        // Passes share the pace.
        let session = context.directory.usable(&account_region.account).unwrap();
        let reads = batch
            .iter()
            .map(|target| session.describe(&account_region.region, target));
        let reads = futures::future::join_all(reads).await;
        assert!(reads.into_iter().all(|read| read.unwrap().is_some()));
        let asked = std::mem::take(&mut *cloud.asked.lock().unwrap());
        assert!(asked.iter().all(|asked| *asked <= 50), "{asked:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn account_of_another_cloud_account_is_not_scanned_in_its_place() {
        let cloud = Arc::new(Large {
            fits: 60,
            asked: Mutex::default(),
        });
        let account = own_account();
        let context = context(&account, &cloud);
        let account_region = AccountRegion {
            account,
            region: "cn-hangzhou".parse().unwrap(),
        };
        let batch = [Target::Instance("i-1".parse().unwrap())];
        for (cloud_account, calls) in [("456", 0), ("123", 1)] {
            let id = CloudLimits::of_test(cloud_account).id.clone();
            let read = scan_batch(&context, &id, &account_region, &batch).await;
            assert_eq!(read.0.is_empty(), calls == 0);
            assert_eq!(cloud.asked.lock().unwrap().len(), calls, "{cloud_account}");
        }
    }

    /// The passes read each target alone: all but the malformed one are found.
    #[tokio::test(start_paused = true)]
    async fn call_with_a_malformed_id_makes_every_observation_of_it_stale() {
        let cloud = Arc::<TestTransport>::default();
        let body =
            json!({"Code": "InvalidInstanceId.Malformed", "Message": "No.", "RequestId": "R"});
        cloud.answers(400, &body);
        let account = own_account();
        let context = context(&account, &cloud);
        let region: Region = "cn-hangzhou".parse().unwrap();
        let batch: Vec<_> = (0..2)
            .map(|number| {
                let _ = context.table.insert(&object(number, &region));
                context
                    .table
                    .history(&format!("u{number}").as_str().into(), |history| {
                        let failed = Observation::Unread(Unread::Failed);
                        history.record_observation(Some(failed));
                    });
                Target::Instance(format!("i-{number}").parse().unwrap())
            })
            .collect();
        let account_region = AccountRegion { account, region };
        let id = CloudLimits::of_test("123").id.clone();
        let read = scan_batch(&context, &id, &account_region, &batch).await;
        assert!(read.0.is_empty() && read.1, "the scan goes on");
        for uid in ["u0", "u1"] {
            let is_stale = |history: &mut History| history.is_stale();
            assert_eq!(context.table.history(&uid.into(), is_stale), Some(true));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failed_scan_is_logged_once_per_cause() {
        let (log, _guard) = TestLog::start();
        let account = own_account();
        let cloud = Arc::<TestTransport>::default();
        let context = context(&account, &cloud);
        let cloud_account = CloudLimits::of_test("123").id.clone();
        let account_region = AccountRegion {
            account,
            region: "cn-hangzhou".parse().unwrap(),
        };
        let batch = [Target::Instance("i-1".parse().unwrap())];
        let failures = [
            ("WARN", 403, "Forbidden.RAM", "R-1"),
            ("DEBUG", 403, "Forbidden.RAM", "R-2"),
            ("WARN", 503, "ServiceUnavailable", "R-3"),
            // The scans wait for the limit by themselves.
            ("DEBUG", 400, "Throttling.User", "R-4"),
        ];
        for (_, status, code, request_id) in failures {
            let body = json!({"Code": code, "Message": "No.", "RequestId": request_id});
            cloud.answers(status, &body);
            let read = scan_batch(&context, &cloud_account, &account_region, &batch).await;
            assert!(read.0.is_empty() && !read.1);
        }
        let mut lines = log.lines();
        lines.retain(|line| line["target"] == "security_group_operator::membership::scan");
        assert_eq!(lines.len(), failures.len(), "{lines:#?}");
        for (mut line, (level, _, code, request_id)) in lines.into_iter().zip(failures) {
            line.as_object_mut().unwrap().remove("timestamp");
            let expected = json!({
                "level": level,
                "message": format!("the scan failed and is repeated after one scan period: {code}: No."),
                "target": "security_group_operator::membership::scan",
                "kind": "CloudAccount",
                "namespace": "team",
                "name": "own",
                "region": "cn-hangzhou",
                "reason": code.replace('.', ""),
                "code": code,
                "request_id": request_id,
            });
            assert_eq!(line, expected);
        }
    }
}
