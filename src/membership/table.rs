//! All objects: one row per object, found by UID, by edge and by account. In memory only: no I/O, no decisions.
//!
//! A row has two parts. Its [`ObjectView`] is what the object says, and could be rebuilt from the API server at any time. Its
//! [`History`] is what this process did and observed, and is lost with the process. Both go with the object.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use kube::runtime::reflector::ObjectRef;
use smallvec::SmallVec;
use tokio::time::Instant;

use crate::account::key::{AccountKey, AccountRegion};
use crate::api::SecurityGroupMembership;
use crate::api::membership::{AdoptionPolicy, DeletionPolicy, ManagementPolicy, Origin};
use crate::ecs::{AccountUid, Edge, Region, SecurityGroupId, Target, TargetDescription};
use crate::kubernetes::ObjectUid;
use crate::watched::{Unreadable, Watched};

use super::decide::{Desired, ReadTrust};
use super::history::{History, LastObservation, Standing};
use super::ledger::{EdgeCall, Effect, LastCall, Ledger};
use super::object::{Claim, Object, account_key, desired, has_finalizer, legible, version_of};
use super::observation::Observation;
use super::repairs::Repairs;

/// What an object says, as far as the passes of other objects need it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct ObjectView {
    /// UID of the object.
    pub uid: ObjectUid,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    name: Box<str>,
    /// What the spec names; `None` if the object was never readable, or names no valid edge.
    names: Option<Names>,
    /// The object's claim, as of `resource_version`.
    pub claim: Option<Claim>,
    /// Whether this version can read the object. One that it cannot read is judged as a holder like others, and inherits nothing.
    pub readable: bool,
    /// Whether our finalizer is on the object.
    pub finalizer: bool,
    /// Whether the operator may write to the cloud for this object (`managementPolicy: Manage`).
    pub managed: bool,
    /// Whether the object takes over no membership from outside (`adoptionPolicy: Refuse`).
    pub refuses: bool,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// What the spec asks for; `None` if the object was never readable.
    desired: Option<Desired>,
    /// When the object was created, in seconds since 1970.
    created: i64,
    /// Version of the object that this view was read from, or that our last write returned.
    pub resource_version: u64,
}

/// The edge and the account that a spec names.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Names {
    edge: Edge,
    account: Arc<AccountKey>,
}

impl ObjectView {
    /// The view of a readable object; `None` if its spec names no valid edge.
    fn of(object: &SecurityGroupMembership) -> Option<Self> {
        let view = Self::of_metadata(&object.metadata)?;
        let names = Names {
            edge: Edge::try_from(&object.spec).ok()?,
            account: Arc::new(account_key(&object.spec, &view.namespace)),
        };
        Some(Self {
            names: Some(names),
            claim: Claim::of(object),
            readable: true,
            finalizer: has_finalizer(object),
            managed: object.spec.management_policy == ManagementPolicy::Manage,
            refuses: object.spec.adoption_policy == AdoptionPolicy::Refuse,
            desired: Some(desired(object)),
            ..view
        })
    }

    /// The view of a listed object.
    #[must_use]
    pub fn of_listed(object: &Object) -> Option<Self> {
        match &object.0 {
            Ok(object) => Self::of(object),
            Err(unreadable) => Self::of_unreadable(unreadable),
        }
    }

    /// The view of an object that this version cannot read as a whole.
    fn of_unreadable(unreadable: &Unreadable) -> Option<Self> {
        let Some(object) = legible(unreadable) else {
            return Self::of_metadata(&unreadable.metadata);
        };
        let view = Self::of(&object)?;
        Some(Self {
            readable: false,
            ..view
        })
    }

    /// The view of an object of which only the metadata can be read.
    fn of_metadata(metadata: &ObjectMeta) -> Option<Self> {
        let created = metadata.creation_timestamp.as_ref();
        Some(Self {
            uid: metadata.uid.as_deref()?.into(),
            namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
            name: metadata.name.as_deref()?.into(),
            names: None,
            claim: None,
            readable: false,
            finalizer: false,
            managed: false,
            refuses: false,
            desired: None,
            deleting: metadata.deletion_timestamp.is_some(),
            created: created.map_or(0, |time| time.0.as_second()),
            resource_version: version_of(metadata),
        })
    }

    /// The edge that the spec names.
    #[must_use]
    pub fn edge(&self) -> Option<&Edge> {
        self.names.as_ref().map(|names| &names.edge)
    }

    /// The account that the spec names.
    #[must_use]
    pub fn account(&self) -> Option<&AccountKey> {
        self.names.as_ref().map(|names| &*names.account)
    }

    /// Whether the object carries a claim of the cloud account with this UID.
    #[must_use]
    pub fn is_claimed_with(&self, account_uid: Option<&AccountUid>) -> bool {
        account_uid.is_some() && self.claimed_account() == account_uid
    }

    /// The record in the object's status.
    #[must_use]
    pub fn record(&self) -> Option<Origin> {
        self.claim.as_ref()?.record()
    }

    fn claimed_account(&self) -> Option<&AccountUid> {
        self.claim.as_ref()?.account_uid()
    }

    /// The part of the view that decides whether siblings must be requeued.
    fn hold(&self) -> Hold {
        Hold {
            managed: self.managed,
            finalizer: self.finalizer,
            readable: self.readable,
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

/// Whether an object may write to the cloud, carries our finalizer, and can be read.
struct Hold {
    managed: bool,
    finalizer: bool,
    readable: bool,
}

/// A call that has begun, and what was known before it.
#[derive(Clone, Copy, Debug)]
pub struct BegunCall {
    call: EdgeCall,
    last: Option<LastCall>,
    standing: Standing,
}

/// What no read has shown for long.
#[derive(Debug, Default)]
pub struct Overdue {
    /// The objects to requeue.
    pub objects: Vec<ObjectRef<SecurityGroupMembership>>,
    /// The number of targets, for each account and region that objects name.
    pub late: Vec<(AccountRegion, usize)>,
}

#[derive(Debug)]
struct Row {
    says: ObjectView,
    history: History,
}

/// All objects by UID, by edge and by account.
#[derive(Debug, Default)]
pub struct ObjectTable {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    rows: HashMap<ObjectUid, Row>,
    by_edge: HashMap<Edge, Uids>,
    by_account: HashMap<Arc<AccountKey>, HashMap<Region, BTreeMap<Target, Uids>>>,
    /// The last calls on each edge.
    ledger: Ledger,
    /// The last repairs of each edge.
    repairs: Repairs,
    /// Whether any row may have a status in the watch that is not ours.
    has_foreign_status: bool,
    /// The objects that are gone and have not been released, as they were stored last. Their rows stay.
    unreleased: HashMap<ObjectUid, Arc<Object>>,
}

/// Mostly one UID: few objects share an edge or a target.
type Uids = SmallVec<[ObjectUid; 1]>;

impl ObjectTable {
    /// Inserts or updates an object from the watch. Returns the objects to requeue. A view older than the stored one
    /// is ignored.
    pub fn insert(
        &self,
        object: &SecurityGroupMembership,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        if let Some(view) = ObjectView::of(object) {
            self.insert_view(view)
        } else {
            self.insert_metadata(&object.metadata);
            Vec::new()
        }
    }

    /// Inserts or updates an object from the watch that this version cannot read. Returns the objects to requeue.
    pub fn insert_unreadable(
        &self,
        unreadable: &Unreadable,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        match ObjectView::of_unreadable(unreadable) {
            Some(view) if view.names.is_some() => self.insert_view(view),
            Some(_) | None => {
                self.insert_metadata(&unreadable.metadata);
                Vec::new()
            }
        }
    }

    fn insert_view(&self, view: ObjectView) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let uid = view.uid.clone();
        let mut inner = self.lock();
        let before = inner.rows.get(&uid).map(|row| row.says.hold());
        inner.note_late_intent(&view);
        if let Some(new) = inner.renew(view) {
            let mut history = History::default();
            if matches!(new.claim, Some(Claim::Intent { .. })) {
                history.found_intent();
            }
            inner.add(new, history);
        }
        let Some(Row { says, history }) = inner.rows.get(&uid) else {
            return Vec::new();
        };
        let Some(before) = before else {
            // A sibling that is being deleted may have been waiting for a successor.
            return inner.siblings(&uid, |other| other.deleting);
        };
        let owns = says.record().is_some() && history.standing() != Standing::Void;
        let lost = !says.deleting && before.finalizer && !says.finalizer && owns;
        if !lost && (before.managed, before.readable) == (says.managed, says.readable) {
            return Vec::new();
        }
        // A user removed the finalizer of an owner by hand or with `kubectl replace`: it is requeued to write it again.
        let own = lost.then(|| says.reference());
        let mut concerned = inner.siblings(&uid, |_| true);
        concerned.extend(own);
        concerned
    }

    /// Inserts an object from the watch of which this version can read only the metadata. A row that named an edge before keeps its
    /// view, as long as the object is not deleted.
    fn insert_metadata(&self, metadata: &ObjectMeta) {
        let Some(view) = ObjectView::of_metadata(metadata) else {
            return;
        };
        let mut inner = self.lock();
        match inner.rows.get_mut(&view.uid) {
            Some(row) => row.says.deleting |= view.deleting,
            None => inner.add(view, History::default()),
        }
    }

    /// Updates an object from the API server's answer to our own write. An object that the watch has already reported
    /// deleted is not inserted again.
    pub fn written(&self, object: &SecurityGroupMembership) {
        if let Some(view) = ObjectView::of(object) {
            let _unknown = self.lock().renew(view);
        }
    }

    /// What an object says; `None` for an unknown or deleted one.
    #[must_use]
    pub fn view(&self, uid: &ObjectUid) -> Option<ObjectView> {
        Some(self.lock().rows.get(uid)?.says.clone())
    }

    /// Keeps the row of an object that the API server has removed with our finalizer on it and without a `deletionTimestamp`, as if
    /// it were being deleted, if something of ours may be on its edge that its policies do not keep. `object` is as it was stored
    /// last. Returns whether the row is kept.
    pub fn keep_unreleased(&self, object: &SecurityGroupMembership) -> bool {
        let Some(view) = ObjectView::of(object) else {
            return false;
        };
        let uid = view.uid.clone();
        let mut inner = self.lock();
        let _unknown = inner.renew(view);
        let Some(Row { says, history }) = inner.rows.get_mut(&uid) else {
            return false;
        };
        let is_ours = match (&says.claim, history.standing()) {
            (_, Standing::Void) => false,
            (Some(claim), _) if claim.record() == Some(Origin::Adopted) => false,
            (Some(_), Standing::Joined | Standing::Unknown) | (None, Standing::Joined) => true,
            (None, Standing::Unknown) => false,
        };
        let Some(desired) = says.desired.as_mut().filter(|desired| {
            is_ours
                && desired.management == ManagementPolicy::Manage
                && desired.deletion != DeletionPolicy::Retain
                && !desired.suspended
        }) else {
            return false;
        };
        desired.deleting = true;
        says.deleting = true;
        let mut kept = object.clone();
        kept.metadata.deletion_timestamp = kept.metadata.creation_timestamp.clone();
        inner.unreleased.insert(uid, Arc::new(Watched(Ok(kept))));
        true
    }

    /// The objects whose rows [`Self::keep_unreleased`] keeps.
    #[must_use]
    pub fn unreleased(&self) -> Vec<Arc<Object>> {
        self.lock().unreleased.values().cloned().collect()
    }

    /// Whether [`Self::keep_unreleased`] keeps the row of the object; `None` for an unknown object.
    #[must_use]
    pub fn is_unreleased(&self, uid: &ObjectUid) -> Option<bool> {
        let inner = self.lock();
        let is_known = inner.rows.contains_key(uid);
        is_known.then(|| inner.unreleased.contains_key(uid))
    }

    /// Removes a deleted object. Returns the objects to requeue: the siblings of an object that was deleted while it still
    /// carried a claim.
    pub fn remove(&self, uid: &ObjectUid) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let mut inner = self.lock();
        let held = inner
            .rows
            .get(uid)
            .is_some_and(|row| row.says.claim.is_some());
        let concerned = if held {
            inner.siblings(uid, |_| true)
        } else {
            Vec::new()
        };
        inner.remove(uid);
        concerned
    }

    /// Calls `change` with the history of an object. `None` for an unknown or deleted object: nothing brings it back.
    pub fn history<T>(&self, uid: &ObjectUid, change: impl FnOnce(&mut History) -> T) -> Option<T> {
        let mut inner = self.lock();
        Some(change(&mut inner.rows.get_mut(uid)?.history))
    }

    /// Records that a call on the edge of an object begins: from now on it may have had its effect.
    #[must_use]
    pub fn call_began(
        &self,
        uid: &ObjectUid,
        account: &AccountUid,
        edge: &Edge,
        call: EdgeCall,
    ) -> BegunCall {
        let mut inner = self.lock();
        let last = inner.ledger.began(account, edge, call);
        let history = inner.rows.get_mut(uid).map(|row| &mut row.history);
        let standing = history.map_or(Standing::Unknown, |history| {
            let standing = history.standing();
            if call == EdgeCall::Join {
                history.revive();
            }
            standing
        });
        BegunCall {
            call,
            last,
            standing,
        }
    }

    /// Records what the answer of a call tells. A Join that was accepted counts for every claim on the edge, and so does a Leave
    /// that was answered for good. A call of unknown outcome speaks only for the claim that it was sent under.
    pub fn call_ended(
        &self,
        uid: &ObjectUid,
        account: &AccountUid,
        edge: &Edge,
        begun: BegunCall,
        effect: Effect,
    ) {
        let mut inner = self.lock();
        inner.ledger.ended(account, edge, begun.last, effect);
        let is_open = inner.ledger.join_is_open(account, edge);
        match (begun.call, effect) {
            (EdgeCall::Join, Effect::Done) => {
                inner.each_claim(account, edge, History::revive);
                inner.set_standing(uid, Standing::Joined);
            }
            (EdgeCall::Join, Effect::None) => inner.set_standing(uid, begun.standing),
            (EdgeCall::Leave, Effect::Done) if !is_open => inner.void(account, edge),
            (EdgeCall::Leave, Effect::Done | Effect::None)
            | (EdgeCall::Join | EdgeCall::Leave, Effect::Unknown) => {}
        }
    }

    /// Records a read of the edge that began at `began`. Returns whether it counts. A read that counts and lists the target
    /// without the group makes every claim on the edge void.
    pub fn read_edge(
        &self,
        account: &AccountUid,
        edge: &Edge,
        began: Instant,
        member: bool,
    ) -> ReadTrust {
        let mut inner = self.lock();
        let trust = inner.ledger.trust(account, edge, began, member);
        if trust == ReadTrust::Settled && !member {
            inner.void(account, edge);
        }
        trust
    }

    /// Counts the intents of other processes on the edge as open Joins, if `is_granted` is true for their objects: anybody can
    /// write an intent.
    pub fn count_found_intents(
        &self,
        account: &AccountUid,
        edge: &Edge,
        is_granted: impl Fn(&ObjectView) -> bool,
    ) {
        let mut inner = self.lock();
        let Inner {
            rows,
            by_edge,
            ledger,
            ..
        } = &mut *inner;
        for uid in by_edge.get(edge).into_iter().flatten() {
            if let Some(Row { says, history }) = rows.get(uid)
                && let Some(found_at) = history.found_intent_at()
                && says.claimed_account() == Some(account)
                && is_granted(says)
            {
                ledger.found_intent(account, edge, found_at);
            }
        }
    }

    /// Records that the process begins to act now: an intent without a record is a Join that a process before it may have sent. With
    /// `others_may_call`, calls of that process may still be under way.
    pub fn begins_to_act(&self, others_may_call: bool) {
        let mut inner = self.lock();
        inner.ledger.begins_to_act(others_may_call);
        for Row { says, history } in inner.rows.values_mut() {
            if matches!(says.claim, Some(Claim::Intent { .. })) {
                history.found_intent();
            }
        }
    }

    /// Records that the calls of the process before this one have ended by now.
    pub fn others_have_ended(&self) {
        self.lock().ledger.others_have_ended();
    }

    /// Whether a call of a process before this one may still have its effect.
    #[must_use]
    pub fn others_may_be_calling(&self) -> bool {
        self.lock().ledger.others_may_be_calling()
    }

    /// Whether any call, of this process or one before it, may still have an effect.
    #[must_use]
    pub fn has_open_calls(&self) -> bool {
        self.lock().ledger.has_open_calls()
    }

    /// Whether a Join on the edge, whose outcome is unknown, may still take effect.
    #[must_use]
    pub fn join_is_open(&self, account: &AccountUid, edge: &Edge) -> bool {
        self.lock().ledger.join_is_open(account, edge)
    }

    /// When a read of the edge will count, if no other call is made.
    #[must_use]
    pub fn settles_at(&self, account: &AccountUid, edge: &Edge) -> Instant {
        self.lock().ledger.settles_at(account, edge)
    }

    /// Calls `change` with the repairs of all edges.
    pub fn repairs<T>(&self, change: impl FnOnce(&mut Repairs) -> T) -> T {
        change(&mut self.lock().repairs)
    }

    /// Drops the calls whose effect every read shows, and the repairs that count no more.
    pub fn drop_old(&self) {
        let mut inner = self.lock();
        inner.ledger.drop_settled();
        inner.repairs.drop_old();
    }

    /// Records that `trigger_hash` triggers a pass. Returns whether it differs from the hash of the last triggered pass, or a
    /// pass waits for a view of this version. Always `true` for an object that names no edge.
    #[must_use]
    pub fn mark_triggered(&self, uid: &ObjectUid, trigger_hash: u64, version: u64) -> bool {
        let mut inner = self.lock();
        let row = inner.rows.get_mut(uid);
        row.filter(|row| row.says.names.is_some())
            .is_none_or(|Row { says, history }| {
                history.mark_triggered(trigger_hash, version >= says.resource_version)
            })
    }

    /// The objects for which `keep` is false. Used after a complete relist, to find deleted objects.
    #[must_use]
    pub fn all_but(&self, keep: impl Fn(&ObjectView) -> bool) -> Vec<ObjectView> {
        let inner = self.lock();
        let gone = inner.rows.values().map(|row| &row.says);
        let gone = gone.filter(|says| !keep(says) && !inner.unreleased.contains_key(&says.uid));
        gone.cloned().collect()
    }

    /// The other objects on this edge, oldest first, for any account.
    #[must_use]
    pub fn others(&self, edge: &Edge, uid: &ObjectUid) -> Vec<ObjectView> {
        let inner = self.lock();
        let mut others: Vec<ObjectView> = inner
            .by_edge
            .get(edge)
            .into_iter()
            .flatten()
            .filter(|other| **other != *uid)
            .filter_map(|other| inner.rows.get(other))
            .map(|row| row.says.clone())
            .collect();
        others.sort_by(|a, b| a.age().cmp(&b.age()));
        others
    }

    /// The objects that name this account.
    #[must_use]
    pub fn of_account(&self, account: &AccountKey) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.of_account_with(account, None, |_| true)
    }

    /// The objects that name this account, in this region or (`None`) in any, and whose target was not a member when it was last
    /// read, or was never read.
    #[must_use]
    pub fn unsettled_of_account(
        &self,
        account: &AccountKey,
        region: Option<&Region>,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.of_account_with(account, region, |history| !history.is_member())
    }

    fn of_account_with(
        &self,
        account: &AccountKey,
        region: Option<&Region>,
        concerns: impl Fn(&History) -> bool,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let inner = self.lock();
        let regions = inner.by_account.get(account).into_iter().flatten();
        regions
            .filter(|(of, _)| region.is_none_or(|region| region == *of))
            .flat_map(|(_, targets)| targets.values())
            .flatten()
            .filter_map(|uid| inner.rows.get(uid))
            .filter(|row| concerns(&row.history))
            .map(|row| row.says.reference())
            .collect()
    }

    /// The accounts and regions that objects name.
    #[must_use]
    pub fn account_regions(&self) -> Vec<AccountRegion> {
        let inner = self.lock();
        let mut named = Vec::new();
        for (account, regions) in &inner.by_account {
            named.extend(regions.keys().map(|region| AccountRegion {
                account: AccountKey::clone(account),
                region: region.clone(),
            }));
        }
        named
    }

    /// Up to `most` targets of an account and region that sort after `after`, in order, and the total number of targets.
    #[must_use]
    pub fn targets_after(
        &self,
        account_region: &AccountRegion,
        after: Option<&Target>,
        most: usize,
    ) -> (Vec<Target>, usize) {
        let inner = self.lock();
        let Some(targets) = inner.targets(account_region) else {
            return (Vec::new(), 0);
        };
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let batch = targets
            .range((start, Bound::Unbounded))
            .take(most)
            .map(|(target, _)| target.clone());
        (batch.collect(), targets.len())
    }

    /// The targets of this batch that a pass has observed, or was to. A scan has nothing to compare the others with.
    #[must_use]
    pub fn seen(&self, account_region: &AccountRegion, batch: &[Target]) -> Vec<Target> {
        let inner = self.lock();
        let targets = inner.targets(account_region);
        let is_seen = |target: &&Target| {
            let uids = targets.and_then(|targets| targets.get(*target));
            let mut rows = uids.into_iter().flatten().map(|uid| inner.rows.get(uid));
            rows.any(|row| row.is_some_and(|row| row.history.is_scanned()))
        };
        batch.iter().filter(is_seen).cloned().collect()
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
                last.differs_from(Observation::of(found.get(target), member))
            })
    }

    /// Records a scan that began at `began`, for every edge of the targets that it lists; see [`ObjectTable::read_edge`].
    pub fn read_by_scan(
        &self,
        account_region: &AccountRegion,
        account: &AccountUid,
        found: &HashMap<Target, TargetDescription>,
        began: Instant,
    ) {
        let mut inner = self.lock();
        let mut missing = Vec::new();
        let targets = inner.targets(account_region);
        for (target, seen) in found {
            let uids = targets.and_then(|targets| targets.get(target));
            let rows = uids
                .into_iter()
                .flatten()
                .filter_map(|uid| inner.rows.get(uid));
            let edges = rows.filter_map(|row| Some(&row.says.names.as_ref()?.edge));
            missing.extend(
                edges
                    .filter(|edge| !seen.security_group_ids.contains(&edge.group))
                    .filter(|edge| {
                        let trust = inner.ledger.trust(account, edge, began, false);
                        trust == ReadTrust::Settled
                    })
                    .cloned(),
            );
        }
        for edge in missing {
            inner.void(account, &edge);
        }
    }

    /// Marks all observations of these targets stale. Returns the objects that had one.
    #[must_use]
    pub fn mark_stale(
        &self,
        account_region: &AccountRegion,
        batch: &[Target],
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.lock().pick(account_region, batch, |_, _, last| {
            last.mark_stale();
            true
        })
    }

    /// A scan was refused the read of these targets. Returns the objects whose status does not tell of it.
    #[must_use]
    pub fn mark_refused(
        &self,
        account_region: &AccountRegion,
        batch: &[Target],
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.lock()
            .pick(account_region, batch, |_, _, last| last.mark_refused())
    }

    /// The objects whose target no read has shown for `limit`, each once; and for each account and region, how many targets no read
    /// has shown for `late`.
    #[must_use]
    pub fn overdue(&self, limit: Duration, late: Duration) -> Overdue {
        let mut inner = self.lock();
        let Inner {
            rows, by_account, ..
        } = &mut *inner;
        let mut found = Overdue::default();
        let regions = by_account.iter().flat_map(|(account, regions)| {
            regions
                .iter()
                .map(move |(region, targets)| (account, region, targets))
        });
        for (account, region, targets) in regions {
            let mut late_targets = 0;
            for uids in targets.values() {
                let mut is_late = false;
                for uid in uids {
                    if let Some(Row { says, history }) = rows.get_mut(uid)
                        && let Some(last) = history.observation()
                    {
                        is_late |= last.age() >= late;
                        if last.take_overdue(limit) {
                            found.objects.push(says.reference());
                        }
                    }
                }
                late_targets += usize::from(is_late);
            }
            let account_region = AccountRegion {
                account: AccountKey::clone(account),
                region: region.clone(),
            };
            found.late.push((account_region, late_targets));
        }
        found
    }

    /// Compares the watched status with the one last written. A difference means watch lag or a foreign write.
    pub fn compare_watched_status(&self, uid: &ObjectUid, status_hash: impl FnOnce() -> u64) {
        let mut inner = self.lock();
        let Some(row) = inner.rows.get_mut(uid) else {
            return;
        };
        let differs = row.history.compare_watched_status(status_hash);
        inner.has_foreign_status |= differs;
    }

    /// The objects whose watched status has differed from the written one for `STATUS_WATCH_LAG` (10 s). Returns each
    /// difference once.
    #[must_use]
    pub fn foreign_statuses(&self) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let mut inner = self.lock();
        let mut foreign = Vec::new();
        if !inner.has_foreign_status {
            return foreign;
        }
        let mut any_left = false;
        for Row { says, history } in inner.rows.values_mut() {
            if history.take_foreign_status() {
                foreign.push(says.reference());
            }
            any_left |= history.has_foreign_status();
        }
        inner.has_foreign_status = any_left;
        foreign
    }

    /// The objects in this namespace.
    #[must_use]
    pub fn in_namespace(&self, namespace: &str) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.all_with(|says| *says.namespace == *namespace)
    }

    /// The objects that are being deleted.
    #[must_use]
    pub fn deleting(&self) -> Vec<ObjectRef<SecurityGroupMembership>> {
        self.all_with(|says| says.deleting)
    }

    fn all_with(
        &self,
        concerns: impl Fn(&ObjectView) -> bool,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let inner = self.lock();
        let views = inner.rows.values().map(|row| &row.says);
        let concerned = views.filter(|says| says.names.is_some() && concerns(says));
        concerned.map(ObjectView::reference).collect()
    }

    /// The claim on an object: from `object`, or from our own newer write if the watch lags behind it.
    #[must_use]
    pub fn claim(&self, object: &SecurityGroupMembership) -> Option<Claim> {
        let uid = ObjectUid::of(object).unwrap_or_default();
        match self.lock().rows.get(&uid) {
            Some(Row { says, .. }) if says.resource_version > version_of(&object.metadata) => {
                says.claim.clone()
            }
            Some(_) | None => Claim::of(object),
        }
    }

    /// What the newest known spec of an object asks for; `None` for an unknown object.
    #[must_use]
    pub fn desired(&self, uid: &ObjectUid) -> Option<Desired> {
        self.lock().rows.get(uid)?.says.desired
    }

    /// The newest known version of an object, from the watch or from our own writes; `None` for an unknown object.
    #[must_use]
    pub fn known_version(&self, uid: &ObjectUid) -> Option<u64> {
        let inner = self.lock();
        Some(inner.rows.get(uid)?.says.resource_version)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code panics while it holds this lock, so the table behind a poisoned lock is still consistent.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// The watch may lag: an intent that appears while calls of the process before this one may be under way may be its own.
    fn note_late_intent(&mut self, view: &ObjectView) {
        let is_intent = |claim: &Option<Claim>| matches!(claim, Some(Claim::Intent { .. }));
        if is_intent(&view.claim)
            && self.ledger.others_may_be_calling()
            && let Some(Row { says, history }) = self.rows.get_mut(&view.uid)
            && !is_intent(&says.claim)
        {
            history.found_intent();
        }
    }

    /// Updates a known object unless `view` is older. Returns the view of an unknown object.
    fn renew(&mut self, view: ObjectView) -> Option<ObjectView> {
        let Some(Row { says, history }) = self.rows.get_mut(&view.uid) else {
            return Some(view);
        };
        if says.resource_version > view.resource_version {
            return None;
        }
        if says.record() != Some(Origin::Joined) && view.record() == Some(Origin::Joined) {
            history.revive();
        }
        if says.names == view.names {
            // The names stay, shared with the index.
            says.claim = view.claim;
            says.readable = view.readable;
            says.finalizer = view.finalizer;
            says.managed = view.managed;
            says.refuses = view.refuses;
            says.deleting = view.deleting;
            says.desired = view.desired;
            says.resource_version = view.resource_version;
        } else if let Some(Row { history, .. }) = self.remove(&view.uid) {
            self.add(view, history);
        }
        None
    }

    fn add(&mut self, mut says: ObjectView, history: History) {
        let uid = says.uid.clone();
        if let Some(Names { edge, account }) = &mut says.names {
            let on_edge = self.by_edge.entry(edge.clone()).or_default();
            on_edge.push(uid.clone());
            // Share one copy of the account key.
            if let Some((shared, _)) = self.by_account.get_key_value(account) {
                *account = Arc::clone(shared);
            }
            let regions = self.by_account.entry(Arc::clone(account)).or_default();
            let targets = regions.entry(edge.region.clone()).or_default();
            let on_target = targets.entry(edge.target.clone()).or_default();
            on_target.push(uid.clone());
        }
        self.rows.insert(uid, Row { says, history });
    }

    fn set_standing(&mut self, uid: &ObjectUid, standing: Standing) {
        if let Some(row) = self.rows.get_mut(uid) {
            row.history.set_standing(standing);
        }
    }

    /// Nothing of ours is on the edge any more.
    fn void(&mut self, account: &AccountUid, edge: &Edge) {
        self.each_claim(account, edge, |history| {
            history.set_standing(Standing::Void);
        });
    }

    /// Calls `change` with the history of each object on the edge that has, or may get, a claim of this cloud account.
    fn each_claim(&mut self, account: &AccountUid, edge: &Edge, change: impl Fn(&mut History)) {
        for uid in self.by_edge.get(edge).into_iter().flatten() {
            if let Some(Row { says, history }) = self.rows.get_mut(uid)
                && says.claimed_account().is_none_or(|uid| uid == account)
            {
                change(history);
            }
        }
    }

    fn targets(
        &self,
        AccountRegion { account, region }: &AccountRegion,
    ) -> Option<&BTreeMap<Target, Uids>> {
        self.by_account.get(account)?.get(region)
    }

    /// Calls `look` with the last observation of each object of these targets, and with the object's target and group.
    /// Returns the objects for which it is true.
    fn pick(
        &mut self,
        AccountRegion { account, region }: &AccountRegion,
        batch: &[Target],
        mut look: impl FnMut(&Target, &SecurityGroupId, &mut LastObservation) -> bool,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let regions = self.by_account.get(account);
        let Some(targets) = regions.and_then(|regions| regions.get(region)) else {
            return Vec::new();
        };
        let mut picked = Vec::new();
        for target in batch {
            for uid in targets.get(target).into_iter().flatten() {
                if let Some(Row { says, history }) = self.rows.get_mut(uid)
                    && let Some(names) = &says.names
                    && let Some(last) = history.observation()
                    && look(target, &names.edge.group, last)
                {
                    picked.push(says.reference());
                }
            }
        }
        picked
    }

    /// Other objects on the same edge that match `concerns`, limited to those known to use the same cloud account.
    fn siblings(
        &self,
        uid: &ObjectUid,
        concerns: impl Fn(&ObjectView) -> bool,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let says = self.rows.get(uid).map(|row| &row.says);
        let Some((says, names)) = says.and_then(|says| Some((says, says.names.as_ref()?))) else {
            return Vec::new();
        };
        let account_uid = says.claimed_account();
        let uids = self.by_edge.get(&names.edge);
        uids.into_iter()
            .flatten()
            .filter(|other| **other != *uid)
            .filter_map(|other| Some(&self.rows.get(other)?.says))
            .filter(|other| other.account() == says.account() || other.is_claimed_with(account_uid))
            .filter(|other| concerns(other))
            .map(ObjectView::reference)
            .collect()
    }

    fn remove(&mut self, uid: &ObjectUid) -> Option<Row> {
        let row = self.rows.remove(uid)?;
        self.unreleased.remove(uid);
        if let Some(names) = &row.says.names {
            self.remove_names(uid, names);
        }
        Some(row)
    }

    fn remove_names(&mut self, uid: &ObjectUid, Names { edge, account }: &Names) {
        if let Some(uids) = self.by_edge.get_mut(edge) {
            uids.retain(|other| other != uid);
            if uids.is_empty() {
                self.by_edge.remove(edge);
            }
        }
        let Some(regions) = self.by_account.get_mut(account) else {
            return;
        };
        if let Some(targets) = regions.get_mut(&edge.region) {
            if let Some(uids) = targets.get_mut(&edge.target) {
                uids.retain(|other| other != uid);
                if uids.is_empty() {
                    targets.remove(&edge.target);
                }
            }
            if targets.is_empty() {
                regions.remove(&edge.region);
            }
        }
        if regions.is_empty() {
            self.by_account.remove(account);
        }
    }
}
