//! Index of all objects by UID, edge and account: one compact record per object, updated by the watch and by our own writes.
//! In memory only: no I/O, no decisions.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::ResourceExt as _;
use kube::runtime::reflector::ObjectRef;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::account::key::{AccountKey, AccountRegion};
use crate::api::SecurityGroupMembership;
use crate::api::membership::ManagementPolicy;
use crate::ecs::{AccountUid, Edge, Region, SecurityGroupId, Target, TargetDescription};
use crate::kubernetes::ObjectUid;

use super::object::{Claim, account_key, resource_version};
use super::observation::{CLOUD_READ_LAG, Observation};

/// An observation, when a pass made it, and when a read last confirmed it.
#[derive(Clone, Copy, Debug)]
pub struct LastObservation {
    observation: Observation,
    observed_at: Instant,
    confirmed_at: Instant,
    stale: bool,
}

/// How long the watch may show an older status than the one that this process wrote last. After that the status is a foreign
/// write.
const STATUS_WATCH_LAG: Duration = Duration::from_secs(10);

/// One object in the index: only what the passes of other objects need.
#[derive(Clone, Debug)]
pub struct Record {
    /// UID of the object.
    pub uid: ObjectUid,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    name: Box<str>,
    /// The edge that the spec names.
    pub edge: Edge,
    /// The account that the spec names.
    pub account: Arc<AccountKey>,
    /// The object's claim, as of `resource_version`.
    pub claim: Option<Claim>,
    /// Whether the operator may write to the cloud for this object (`managementPolicy: Manage`).
    pub managed: bool,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// When the object was created, in seconds since 1970.
    created: i64,
    /// Version of the object that this record was read from, or that our last write returned.
    pub resource_version: u64,
    /// What the last pass observed of the target; `None` if that pass did not read the target.
    observation: Option<LastObservation>,
    /// Hash of the user-editable part when the watch last triggered a pass.
    last_trigger_hash: Option<u64>,
    /// Whether a pass waits for the watch to show our own last write.
    awaits_watch: bool,
    /// Hash of the status that the last pass wrote or found correct.
    written_status_hash: Option<u64>,
}

/// Whether an object may write to the cloud, and whether it carries a claim.
struct Hold {
    managed: bool,
    claimed: bool,
}

impl Record {
    /// The record of an object; `None` if the spec names no valid edge.
    #[must_use]
    pub fn of(object: &SecurityGroupMembership) -> Option<Self> {
        let edge = Edge::try_from(&object.spec).ok()?;
        let namespace = object.namespace().unwrap_or_default();
        Some(Self {
            uid: ObjectUid::of(object)?,
            name: object.metadata.name.as_deref()?.into(),
            edge,
            account: Arc::new(account_key(&object.spec, &namespace)),
            namespace: namespace.into(),
            claim: Claim::of(object),
            managed: object.spec.management_policy == ManagementPolicy::Manage,
            deleting: object.metadata.deletion_timestamp.is_some(),
            created: object
                .creation_timestamp()
                .map_or(0, |time| time.0.as_second()),
            resource_version: resource_version(object),
            observation: None,
            last_trigger_hash: None,
            awaits_watch: false,
            written_status_hash: None,
        })
    }

    /// Copies the fields that can differ in a newer view of the object. The names stay, shared with the index.
    fn take_over(&mut self, newer: Self) {
        self.claim = newer.claim;
        self.managed = newer.managed;
        self.deleting = newer.deleting;
        self.resource_version = newer.resource_version;
    }

    /// Whether the object carries a claim of the cloud account with this UID.
    #[must_use]
    pub fn is_claimed_with(&self, account_uid: Option<&AccountUid>) -> bool {
        let claimed = self
            .claim
            .as_ref()
            .and_then(|claim| claim.account_uid.as_ref());
        account_uid.is_some() && claimed == account_uid
    }

    /// The part of the record that decides whether siblings must be requeued.
    fn hold(&self) -> Hold {
        Hold {
            managed: self.managed,
            claimed: self.claim.is_some(),
        }
    }

    /// Namespace and name.
    #[must_use]
    pub fn reference(&self) -> ObjectRef<SecurityGroupMembership> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }

    /// Sort key for age: creation second, then UID.
    #[must_use]
    pub fn age(&self) -> (i64, &ObjectUid) {
        (self.created, &self.uid)
    }
}

/// All objects by UID, by edge and by account.
#[derive(Debug, Default)]
pub struct Edges {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    records: HashMap<ObjectUid, Record>,
    by_edge: HashMap<Edge, Uids>,
    by_account: HashMap<Arc<AccountKey>, HashMap<Region, BTreeMap<Target, Uids>>>,
    /// Since when the watch has shown a status other than the one last written.
    stale_statuses: BTreeMap<ObjectUid, Instant>,
}

/// Mostly one UID: few objects share an edge or a target.
type Uids = SmallVec<[ObjectUid; 1]>;

impl Edges {
    /// Inserts or updates an object from the watch. Returns the objects to requeue. A view older than the stored one is
    /// ignored.
    pub fn insert(
        &self,
        object: &SecurityGroupMembership,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let Some(record) = Record::of(object) else {
            return Vec::new();
        };
        let uid = record.uid.clone();
        let mut inner = self.lock();
        let before = inner.records.get(&uid).map(Record::hold);
        if let Some(new) = inner.renew(record) {
            inner.add(new);
        }
        let Some(record) = inner.records.get(&uid) else {
            return Vec::new();
        };
        let Some(before) = before else {
            // A sibling that is being deleted may have been waiting for a successor.
            return inner.siblings(&uid, |other| other.deleting);
        };
        let lost = !record.deleting && before.claimed && record.claim.is_none();
        if !lost && before.managed == record.managed {
            return Vec::new();
        }
        // A user removed the claim by hand or with `kubectl replace`: this object is requeued to write it again.
        let own = lost.then(|| record.reference());
        let mut concerned = inner.siblings(&uid, |_| true);
        concerned.extend(own);
        concerned
    }

    /// Updates an object from the API server's answer to our own write. An object that the watch has already reported
    /// deleted is not inserted again.
    pub fn written(&self, object: &SecurityGroupMembership) {
        if let Some(record) = Record::of(object) {
            let _unknown = self.lock().renew(record);
        }
    }

    /// Records that `trigger_hash` triggers a pass. Returns whether it differs from the hash of the last triggered pass, or a
    /// pass waits for a view of this version.
    /// Always `true` for an object without a record.
    #[must_use]
    pub fn mark_triggered(&self, uid: &ObjectUid, trigger_hash: u64, version: u64) -> bool {
        // An object with an invalid spec has no record: every change triggers a pass.
        self.lock().records.get_mut(uid).is_none_or(|record| {
            let is_awaited = record.awaits_watch && version >= record.resource_version;
            record.awaits_watch &= !is_awaited;
            record.last_trigger_hash.replace(trigger_hash) != Some(trigger_hash) || is_awaited
        })
    }

    /// The next view that is as new as our own last write triggers a pass.
    pub fn await_watch(&self, uid: &ObjectUid) {
        if let Some(record) = self.lock().records.get_mut(uid) {
            record.awaits_watch = true;
        }
    }

    /// Whether a scan has found something else than the last pass over this object.
    #[must_use]
    pub fn is_stale(&self, uid: &ObjectUid) -> bool {
        let inner = self.lock();
        let observation = inner.records.get(uid).and_then(|record| record.observation);
        observation.is_some_and(|last| last.stale)
    }

    /// Removes a deleted object. Returns the objects to requeue: the siblings of an object that was deleted while it still
    /// carried a claim.
    pub fn remove(&self, uid: &ObjectUid) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let mut inner = self.lock();
        let held = inner
            .records
            .get(uid)
            .is_some_and(|one| one.claim.is_some());
        let concerned = if held {
            inner.siblings(uid, |_| true)
        } else {
            Vec::new()
        };
        inner.remove(uid);
        concerned
    }

    /// The objects for which `keep` is false. Used after a complete relist, to find deleted objects.
    #[must_use]
    pub fn all_but(&self, keep: impl Fn(&Record) -> bool) -> Vec<ObjectUid> {
        let inner = self.lock();
        let gone = inner.records.values().filter(|record| !keep(record));
        gone.map(|record| record.uid.clone()).collect()
    }

    /// The other objects on this edge, oldest first, for any account.
    #[must_use]
    pub fn others(&self, edge: &Edge, uid: &ObjectUid) -> Vec<Record> {
        let inner = self.lock();
        let mut others: Vec<Record> = inner
            .by_edge
            .get(edge)
            .into_iter()
            .flatten()
            .filter(|other| **other != *uid)
            .filter_map(|other| inner.records.get(other))
            .cloned()
            .collect();
        others.sort_by(|a, b| a.age().cmp(&b.age()));
        others
    }

    /// The objects that name this account.
    #[must_use]
    pub fn of_account(&self, account: &AccountKey) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let inner = self.lock();
        inner
            .by_account
            .get(account)
            .into_iter()
            .flat_map(|regions| regions.values())
            .flat_map(|targets| targets.values())
            .flatten()
            .filter_map(|uid| inner.records.get(uid))
            .map(Record::reference)
            .collect()
    }

    /// The objects that name this account and whose target was not a member when it was last read, or was never read.
    #[must_use]
    pub fn unsettled_of_account(
        &self,
        account: &AccountKey,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let is_member = |record: &Record| {
            let last = record.observation.filter(|last| !last.stale);
            last.is_some_and(|last| {
                matches!(last.observation, Observation::Present { member: true, .. })
            })
        };
        let mut unsettled = Vec::new();
        let inner = self.lock();
        for regions in inner.by_account.get(account).into_iter() {
            let uids = regions.values().flat_map(BTreeMap::values).flatten();
            let records = uids.filter_map(|uid| inner.records.get(uid));
            unsettled.extend(records.filter(|one| !is_member(one)).map(Record::reference));
        }
        unsettled
    }

    /// Whether any object names this account and region.
    #[must_use]
    pub fn has_account_region(&self, AccountRegion { account, region }: &AccountRegion) -> bool {
        self.lock()
            .by_account
            .get(account)
            .is_some_and(|regions| regions.contains_key(region))
    }

    /// The accounts and regions that objects name and for which `known` is false.
    #[must_use]
    pub fn new_account_regions(
        &self,
        known: impl Fn(&AccountRegion) -> bool,
    ) -> Vec<AccountRegion> {
        let inner = self.lock();
        let mut new = Vec::new();
        for (account, regions) in &inner.by_account {
            let pairs = regions.keys().map(|region| AccountRegion {
                account: AccountKey::clone(account),
                region: region.clone(),
            });
            new.extend(pairs.filter(|pair| !known(pair)));
        }
        new
    }

    /// Up to `most` targets of an account and region that sort after `after`, in order, and the total number of targets.
    #[must_use]
    pub fn targets_after(
        &self,
        AccountRegion { account, region }: &AccountRegion,
        after: Option<&Target>,
        most: usize,
    ) -> (Vec<Target>, usize) {
        let inner = self.lock();
        let Some(targets) = inner
            .by_account
            .get(account)
            .and_then(|regions| regions.get(region))
        else {
            return (Vec::new(), 0);
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let batch = targets
            .range((start, Bound::Unbounded))
            .take(most)
            .map(|(target, _)| target.clone());
        (batch.collect(), targets.len())
    }

    /// The targets of this batch that a pass has observed. A scan has nothing to compare the others with.
    #[must_use]
    pub fn seen(
        &self,
        AccountRegion { account, region }: &AccountRegion,
        batch: &[Target],
    ) -> Vec<Target> {
        let inner = self.lock();
        let targets = inner
            .by_account
            .get(account)
            .and_then(|regions| regions.get(region));
        let is_seen = |target: &&Target| {
            let uids = targets.and_then(|targets| targets.get(*target));
            uids.into_iter().flatten().any(|uid| {
                let record = inner.records.get(uid);
                record.is_some_and(|record| record.observation.is_some())
            })
        };
        batch.iter().filter(is_seen).cloned().collect()
    }

    /// Stores what a pass observed of an object's target; `None` if it did not read the target.
    pub fn record_observation(&self, uid: &ObjectUid, observation: Option<Observation>) {
        if let Some(record) = self.lock().records.get_mut(uid) {
            let now = Instant::now();
            record.observation = observation.map(|observation| LastObservation {
                observation,
                observed_at: now,
                confirmed_at: now,
                stale: false,
            });
        }
    }

    /// The observation of an object's target, if it was confirmed within `age` and is not marked stale.
    #[must_use]
    pub fn fresh_observation(&self, uid: &ObjectUid, age: Duration) -> Option<Observation> {
        let last = self.lock().records.get(uid)?.observation?;
        (!last.stale && last.confirmed_at.elapsed() <= age).then_some(last.observation)
    }

    /// The objects of these targets whose last observation differs from `found`. Observations younger than `CLOUD_READ_LAG`
    /// (10 s) are skipped: the cloud's answer may be older than the pass.
    #[must_use]
    pub fn changed(
        &self,
        account_region: &AccountRegion,
        batch: &[Target],
        found: &HashMap<Target, TargetDescription>,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.lock()
            .pick(account_region, batch, |target, group, last| {
                let member = |seen: &TargetDescription| seen.security_group_ids.contains(group);
                if Observation::of(found.get(target), member) == last.observation {
                    last.confirmed_at = Instant::now();
                    last.stale = false;
                    return false;
                }
                let settled = last.observed_at.elapsed() >= CLOUD_READ_LAG;
                last.stale |= settled;
                settled
            })
    }

    /// Marks all observations of these targets stale. Returns the objects that had one.
    #[must_use]
    pub fn mark_stale(
        &self,
        account_region: &AccountRegion,
        batch: &[Target],
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.lock().pick(account_region, batch, |_, _, last| {
            last.stale = true;
            true
        })
    }

    /// Records the hash of the status that a pass has just written or found correct.
    pub fn record_written_status(&self, uid: &ObjectUid, status_hash: u64) {
        let mut inner = self.lock();
        if let Some(record) = inner.records.get_mut(uid) {
            record.written_status_hash = Some(status_hash);
        }
        inner.stale_statuses.remove(uid);
    }

    /// Compares the watched status with the one last written. A difference means watch lag or a foreign write.
    pub fn compare_watched_status(&self, uid: &ObjectUid, status_hash: impl FnOnce() -> u64) {
        let mut inner = self.lock();
        let Some((uid, written_status_hash)) = inner
            .records
            .get(uid)
            .and_then(|record| Some((record.uid.clone(), record.written_status_hash?)))
        else {
            return;
        };
        if written_status_hash == status_hash() {
            inner.stale_statuses.remove(&uid);
        } else {
            inner.stale_statuses.entry(uid).or_insert_with(Instant::now);
        }
    }

    /// The objects whose watched status has differed from the written one for `STATUS_WATCH_LAG` (10 s). Returns each
    /// difference once.
    #[must_use]
    pub fn stale_statuses(&self) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let mut inner = self.lock();
        let mut long = Vec::new();
        let Inner {
            records,
            stale_statuses,
            ..
        } = &mut *inner;
        stale_statuses.retain(|uid, since| {
            let is_long = since.elapsed() >= STATUS_WATCH_LAG;
            if is_long {
                long.extend(records.get(uid).map(Record::reference));
            }
            !is_long
        });
        long
    }

    /// The objects in this namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.lock()
            .records
            .values()
            .filter(|record| *record.namespace == *namespace)
            .map(Record::reference)
            .collect()
    }

    /// The objects that are being deleted.
    #[must_use]
    pub fn deleting(&self) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.lock()
            .records
            .values()
            .filter(|record| record.deleting)
            .map(Record::reference)
            .collect()
    }

    /// The claim on an object: from `object`, or from our own newer write if the watch lags behind it.
    #[must_use]
    pub fn claim(&self, object: &SecurityGroupMembership) -> Option<Claim> {
        let uid = ObjectUid::of(object).unwrap_or_default();
        match self.lock().records.get(&uid) {
            Some(known) if known.resource_version > resource_version(object) => known.claim.clone(),
            Some(_) | None => Claim::of(object),
        }
    }

    /// The newest known version of an object, from the watch or from our own writes; 0 for an unknown object.
    #[must_use]
    pub fn known_version(&self, uid: &ObjectUid) -> u64 {
        self.lock()
            .records
            .get(uid)
            .map_or(0, |record| record.resource_version)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics while it holds this lock, so the index behind a poisoned lock is still consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Updates a known object unless `record` is older. Returns the record of an unknown object.
    fn renew(&mut self, mut record: Record) -> Option<Record> {
        let Some(held) = self.records.get_mut(&record.uid) else {
            return Some(record);
        };
        if held.resource_version > record.resource_version {
            return None;
        }
        if held.edge == record.edge && held.account == record.account {
            held.take_over(record);
            return None;
        }
        record.observation = held.observation;
        record.last_trigger_hash = held.last_trigger_hash;
        record.awaits_watch = held.awaits_watch;
        record.written_status_hash = held.written_status_hash;
        self.remove(&record.uid.clone());
        self.add(record);
        None
    }

    fn add(&mut self, mut record: Record) {
        let uid = &record.uid;
        self.by_edge
            .entry(record.edge.clone())
            .or_default()
            .push(uid.clone());
        // Share one copy of the account key.
        if let Some((account, _)) = self.by_account.get_key_value(&record.account) {
            record.account = Arc::clone(account);
        }
        self.by_account
            .entry(Arc::clone(&record.account))
            .or_default()
            .entry(record.edge.region.clone())
            .or_default()
            .entry(record.edge.target.clone())
            .or_default()
            .push(uid.clone());
        self.records.insert(uid.clone(), record);
    }

    /// Calls `look` with the last observation of each object of these targets, and with the object's target and group.
    /// Returns the objects for which it is true.
    fn pick(
        &mut self,
        AccountRegion { account, region }: &AccountRegion,
        batch: &[Target],
        mut look: impl FnMut(&Target, &SecurityGroupId, &mut LastObservation) -> bool,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let Some(targets) = self
            .by_account
            .get(account)
            .and_then(|regions| regions.get(region))
        else {
            return Vec::new();
        };
        let mut picked = Vec::new();
        for target in batch {
            for uid in targets.get(target).into_iter().flatten() {
                if let Some(record) = self.records.get_mut(uid)
                    && let Some(last) = &mut record.observation
                    && look(target, &record.edge.group, last)
                {
                    picked.push(record.reference());
                }
            }
        }
        picked
    }

    /// Other objects on the same edge that match `concerns`, limited to those known to use the same cloud account.
    fn siblings(
        &self,
        uid: &ObjectUid,
        concerns: impl Fn(&Record) -> bool,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let Some(record) = self.records.get(uid) else {
            return Vec::new();
        };
        let account_uid = record
            .claim
            .as_ref()
            .and_then(|claim| claim.account_uid.as_ref());
        let uids = self.by_edge.get(&record.edge);
        uids.into_iter()
            .flatten()
            .filter(|other| **other != *uid)
            .filter_map(|other| self.records.get(other))
            .filter(|other| other.account == record.account || other.is_claimed_with(account_uid))
            .filter(|other| concerns(other))
            .map(Record::reference)
            .collect()
    }

    fn remove(&mut self, uid: &ObjectUid) {
        self.stale_statuses.remove(uid);
        let Some(record) = self.records.remove(uid) else {
            return;
        };
        if let Some(uids) = self.by_edge.get_mut(&record.edge) {
            uids.retain(|other| other != uid);
            if uids.is_empty() {
                self.by_edge.remove(&record.edge);
            }
        }
        let Some(regions) = self.by_account.get_mut(&record.account) else {
            return;
        };
        if let Some(targets) = regions.get_mut(&record.edge.region) {
            if let Some(uids) = targets.get_mut(&record.edge.target) {
                uids.retain(|other| other != uid);
                if uids.is_empty() {
                    targets.remove(&record.edge.target);
                }
            }
            if targets.is_empty() {
                regions.remove(&record.edge.region);
            }
        }
        if regions.is_empty() {
            self.by_account.remove(&record.account);
        }
    }
}
