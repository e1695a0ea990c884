//! Which targets a scan reads, and what it tells of the objects that name them.

use std::collections::HashMap;
use std::ops::Bound;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use crate::account::key::{AccountKey, AccountRegion};
use crate::api::SecurityGroupMembership;
use crate::ecs::{AccountUid, Edge, Target, TargetDescription};
use crate::kubernetes::ObjectUid;

use super::super::decide::ReadTrust;
use super::super::observation::Observation;
use super::ObjectTable;
use super::rows::{Row, Rows};

impl Rows {
    /// Makes every claim void on an edge of the target that a read which counts does not show.
    fn void_missing(
        &mut self,
        account_region: &AccountRegion,
        account: &AccountUid,
        (target, seen): (&Target, &TargetDescription),
        began: Instant,
    ) {
        let targets = self.targets(account_region);
        let uids = targets.and_then(|targets| targets.get(target));
        let rows = uids
            .into_iter()
            .flatten()
            .filter_map(|uid| self.by_uid.get(uid));
        let edges = rows.filter_map(|row| Some(&row.says.names.as_ref()?.edge));
        let missing: Vec<Edge> = edges
            .filter(|edge| !seen.security_group_ids.contains(&edge.group))
            .filter(|edge| {
                let trust = self.ledger.trust(account, edge, began, false);
                trust == ReadTrust::Settled
            })
            .cloned()
            .collect();
        for edge in missing {
            self.void(account, &edge);
        }
    }
}

/// What no read has shown for long.
#[derive(Debug, Default)]
pub struct Overdue {
    /// The objects to requeue.
    pub objects: Vec<ObjectRef<SecurityGroupMembership>>,
    /// The number of targets, for each account and region that objects name.
    pub late: Vec<(AccountRegion, usize)>,
}

impl ObjectTable {
    /// The number of targets of an account and region, and the last of them in order; `None` if there are none.
    #[must_use]
    pub fn last_target(&self, account_region: &AccountRegion) -> Option<(usize, Target)> {
        let inner = self.lock();
        let targets = inner.targets(account_region)?;
        let (last, _) = targets.last_key_value()?;
        Some((targets.len(), last.clone()))
    }

    /// Up to `most` targets of an account and region that sort after `after`, in order, and none after `last`.
    #[must_use]
    pub fn targets_between(
        &self,
        account_region: &AccountRegion,
        after: Option<&Target>,
        last: &Target,
        most: usize,
    ) -> Vec<Target> {
        let inner = self.lock();
        let targets = inner.targets(account_region);
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        // A range that ends before it starts would panic.
        let targets = targets.filter(|_| after.is_none_or(|after| after < last));
        let between = targets
            .into_iter()
            .flat_map(|targets| targets.range((start, Bound::Included(last))));
        between
            .take(most)
            .map(|(target, _)| target.clone())
            .collect()
    }

    /// The targets of this batch that a pass has observed, or was to. A scan has nothing to compare the others with.
    #[must_use]
    pub fn seen(&self, account_region: &AccountRegion, batch: &[Target]) -> Vec<Target> {
        let inner = self.lock();
        let targets = inner.targets(account_region);
        let is_seen = |target: &&Target| {
            let uids = targets.and_then(|targets| targets.get(*target));
            let mut rows = uids.into_iter().flatten().map(|uid| inner.by_uid.get(uid));
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
            .pick(account_region, batch, |_, (target, group), last| {
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
        for (target, seen) in found {
            inner.void_missing(account_region, account, (target, seen), began);
        }
    }

    /// Records for the other objects of a target what a pass over one of them has read of it since `began`. Returns those whose last
    /// observation differs, as [`Self::changed`] does: they would learn of it from the next scan.
    #[must_use]
    pub fn read_by_pass(
        &self,
        account_region: &AccountRegion,
        account: &AccountUid,
        own: &ObjectUid,
        (target, seen): (&Target, &TargetDescription),
        began: Instant,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let mut inner = self.lock();
        let targets = inner.targets(account_region);
        let uids = targets.and_then(|targets| targets.get(target));
        if uids.is_none_or(|uids| uids.iter().all(|uid| uid == own)) {
            return Vec::new();
        }
        inner.void_missing(account_region, account, (target, seen), began);
        let target = std::slice::from_ref(target);
        inner.pick(account_region, target, |uid, (_, group), last| {
            let member = |seen: &TargetDescription| seen.security_group_ids.contains(group);
            uid != own && last.differs_from(Observation::of(Some(seen), member))
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
        let Rows {
            by_uid, by_account, ..
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
                    if let Some(Row { says, history }) = by_uid.get_mut(uid)
                        && let Some(last) = history.observation()
                    {
                        is_late |= last.is_late(late);
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
}
