//! The passes of one line: those in flight, the reserved slots, and the objects that wait.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use kube::runtime::reflector::ObjectRef;
use tokio::time::Instant;

use crate::api::SecurityGroupMembership;
use crate::ecs::limit::{CallLimiter, Reservation};
use crate::ecs::{Action, MAX_IDS_PER_CALL, Region, Target};
use crate::kubernetes::ObjectUid;

use super::applicant::Applicant;
use super::queue::{Order, WaitingObjects};

/// Passes in flight per cloud account, endpoint and region: two full batches of reads (100 each) and some more.
pub(super) const PASSES_IN_FLIGHT: usize = 256;

/// While objects wait for slots, slots that became free one by one are given away this often.
const PARTIAL_BATCH_PERIOD: Duration = Duration::from_secs(1);

/// How long an object is held back by the rate limit before its status says so (1 minute): a status costs the API server a write.
pub const REPORT_WAIT_AFTER: Duration = Duration::from_secs(60);

/// The passes of one line.
#[derive(Debug, Default)]
pub(super) struct Passes {
    pub(super) in_flight: usize,
    pub(super) objects: HashMap<ObjectUid, Waiting>,
    /// Objects that can start when there is a slot, or a call.
    pub(super) ready: WaitingObjects,
    /// Objects whose target is busy.
    pub(super) blocked: HashMap<Target, BTreeSet<Order>>,
    pub(super) reserved: usize,
    /// Number of the last object that came.
    pub(super) last_number: u64,
    /// The limiter that held objects back.
    pub(super) limiter: Option<Arc<CallLimiter>>,
    /// When reads may be admitted again: those admitted last must have sent their call first.
    pub(super) next_reads: Option<Instant>,
    /// When fewer objects than a batch are admitted.
    pub(super) next_partial_batch: Option<Instant>,
    /// Held back, and nothing was reported of it yet.
    pub(super) unreported: BTreeSet<(Instant, ObjectUid)>,
}

/// How many objects wait for what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiters {
    /// For a slot among the passes in flight.
    pub for_slot: usize,
    /// For a call that the rate limit admits.
    pub for_call: usize,
    /// For another pass over the same target.
    pub for_target: usize,
    /// Since when the first of them has waited.
    pub first: Option<Instant>,
}

/// An object that waits, or whose pass is in flight.
#[derive(Debug)]
pub(super) struct Waiting {
    object: ObjectRef<SecurityGroupMembership>,
    target: Target,
    order: Order,
    since: Instant,
    held: Option<Held>,
    stage: Stage,
}

/// The rate limit holds an object back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) since: Instant,
    pub(super) reported: bool,
}

#[derive(Debug)]
pub(super) enum Stage {
    Waiting,
    /// It was enqueued; its pass takes the slot. A Join or Leave that it waited for may go out.
    Reserved(Option<Reservation>),
    Running,
}

impl Passes {
    fn free(&self) -> usize {
        PASSES_IN_FLIGHT.saturating_sub(self.in_flight + self.reserved)
    }

    /// Whether an object waits for a slot or for a call.
    pub(super) fn is_anything_waiting(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Adds the objects that wait here.
    pub(super) fn count(&self, waiters: &mut Waiters) {
        let waiting = |one: &&Waiting| matches!(one.stage, Stage::Waiting);
        for one in self.objects.values().filter(waiting) {
            let blocked = self.blocked.get(&one.target);
            if blocked.is_some_and(|blocked| blocked.contains(&one.order)) {
                waiters.for_target += 1;
            } else if one.order.needs.is_some() {
                waiters.for_call += 1;
            } else {
                waiters.for_slot += 1;
            }
            let first = waiters.first.get_or_insert(one.since);
            *first = one.since.min(*first);
        }
    }

    /// Starts a pass, or has the object wait. Returns the call that was reserved for it, and since when it was held back.
    pub(super) fn enter(
        &mut self,
        applicant: &Applicant,
        busy: &mut HashSet<Target>,
    ) -> Option<(Option<Reservation>, Option<Held>)> {
        if let Some(entered) = self.start(&applicant.uid) {
            return Some(entered);
        }
        let before = self.take(&applicant.uid);
        self.add(applicant, None, before, busy);
        // New objects queue even when a slot is free, because waiting ones are admitted in batches of 100.
        if self.free() == 0 || self.ready.len_for(None) > 1 || busy.contains(&applicant.target) {
            self.plan_partial_batch();
            return None;
        }
        self.admit(None, None, busy);
        self.start(&applicant.uid)
    }

    /// Starts the pass of an object whose slot is reserved.
    fn start(&mut self, uid: &ObjectUid) -> Option<(Option<Reservation>, Option<Held>)> {
        let Waiting { stage, held, .. } = self.objects.get_mut(uid)?;
        let Stage::Reserved(reservation) = stage else {
            return None;
        };
        let entered = (reservation.take(), *held);
        *stage = Stage::Running;
        self.reserved -= 1;
        self.in_flight += 1;
        Some(entered)
    }

    /// Whether the slot of an object is reserved.
    pub(super) fn is_admitted(&self, uid: &ObjectUid) -> bool {
        matches!(self.objects.get(uid), Some(one) if matches!(one.stage, Stage::Reserved(_)))
    }

    /// A second from now, fewer objects than a batch are admitted too.
    fn plan_partial_batch(&mut self) {
        self.next_partial_batch
            .get_or_insert_with(|| Instant::now() + PARTIAL_BATCH_PERIOD);
    }

    /// Adds an object that waits for a slot, or for a call of an action. It keeps the number of its last wait.
    pub(super) fn add(
        &mut self,
        applicant: &Applicant,
        needs: Option<Action>,
        before: Option<Waiting>,
        busy: &HashSet<Target>,
    ) {
        self.last_number += 1;
        let number = before
            .as_ref()
            .map_or(self.last_number, |before| before.order.number);
        let since = before
            .as_ref()
            .map_or_else(Instant::now, |before| before.since);
        let held = before.and_then(|before| before.held).or_else(|| {
            needs.is_some().then(|| Held {
                since: Instant::now(),
                reported: false,
            })
        });
        if let Some(held) = held.filter(|held| !held.reported) {
            self.unreported.insert((held.since, applicant.uid.clone()));
        }
        let waiting = Waiting {
            object: applicant.object.clone(),
            target: applicant.target.clone(),
            order: Order {
                needs,
                urgency: applicant.urgency,
                number,
                namespace: applicant
                    .object
                    .namespace
                    .as_deref()
                    .unwrap_or_default()
                    .into(),
                uid: applicant.uid.clone(),
            },
            since,
            held,
            stage: Stage::Waiting,
        };
        self.line_up(&waiting, busy);
        self.objects.insert(applicant.uid.clone(), waiting);
    }

    fn line_up(&mut self, waiting: &Waiting, busy: &HashSet<Target>) {
        if busy.contains(&waiting.target) {
            let blocked = self.blocked.entry(waiting.target.clone()).or_default();
            blocked.insert(waiting.order.clone());
        } else {
            self.ready.insert(waiting.order.clone());
        }
    }

    /// Takes an object out of the queues.
    pub(super) fn take(&mut self, uid: &ObjectUid) -> Option<Waiting> {
        let waiting = self.objects.remove(uid)?;
        self.ready.remove(&waiting.order);
        if let Some(held) = waiting.held {
            self.unreported.remove(&(held.since, uid.clone()));
        }
        if let Some(blocked) = self.blocked.get_mut(&waiting.target) {
            blocked.remove(&waiting.order);
            if blocked.is_empty() {
                self.blocked.remove(&waiting.target);
            }
        }
        Some(waiting)
    }

    /// Takes a deleted object out. Returns its target, if that is free now.
    pub(super) fn forget(&mut self, uid: &ObjectUid, busy: &mut HashSet<Target>) -> Option<Target> {
        let Waiting { target, stage, .. } = self.take(uid)?;
        match stage {
            Stage::Waiting => {
                // Others may have been blocked behind it while it was the first of its target.
                if !busy.contains(&target) {
                    self.unblock(&target);
                }
                None
            }
            Stage::Reserved(_) => {
                self.reserved -= 1;
                busy.remove(&target);
                self.unblock(&target);
                Some(target)
            }
            Stage::Running => None,
        }
    }

    /// Lines up the first object that waits for a free target. The others follow it one by one.
    pub(super) fn unblock(&mut self, target: &Target) {
        if let Some(blocked) = self.blocked.get_mut(target) {
            if let Some(first) = blocked.pop_first() {
                self.ready.insert(first);
            }
            if blocked.is_empty() {
                self.blocked.remove(target);
            }
        }
    }

    /// Admits a whole batch of 100 reads, or all that are left; nothing until there are slots for all of them.
    pub(super) fn admit_batch(
        &mut self,
        busy: &mut HashSet<Target>,
    ) -> Vec<ObjectRef<SecurityGroupMembership>> {
        let batch = self.ready.len_for(None).min(MAX_IDS_PER_CALL);
        if self.free() < batch {
            self.plan_partial_batch();
            return Vec::new();
        }
        (0..batch)
            .map_while(|_| self.admit(None, None, busy))
            .collect()
    }

    /// Reserves a slot, and the call if there is one, for the next object that needs this call (`None`: a slot only).
    fn admit(
        &mut self,
        needs: Option<Action>,
        mut reservation: Option<Reservation>,
        busy: &mut HashSet<Target>,
    ) -> Option<ObjectRef<SecurityGroupMembership>> {
        while self.free() > 0 {
            let order = self.ready.pop(needs)?;
            let Some(waiting) = self.objects.get_mut(&order.uid) else {
                continue;
            };
            if busy.contains(&waiting.target) {
                let blocked = self.blocked.entry(waiting.target.clone()).or_default();
                blocked.insert(order);
                continue;
            }
            waiting.stage = Stage::Reserved(reservation.take());
            busy.insert(waiting.target.clone());
            self.reserved += 1;
            return Some(waiting.object.clone());
        }
        None
    }

    /// Admits what is due, and returns when to look again.
    pub(super) fn admit_due(
        &mut self,
        region: &Region,
        now: Instant,
        busy: &mut HashSet<Target>,
        admitted: &mut Vec<ObjectRef<SecurityGroupMembership>>,
    ) -> Option<Instant> {
        let mut next = vec![self.report_long_waits(now, busy)];
        for action in self.ready.actions() {
            next.push(if action.is_membership_change() {
                self.admit_calls(region, action, busy, admitted)
            } else {
                self.admit_reads(region, action, now, busy, admitted)
            });
        }
        if self.next_partial_batch.is_some_and(|at| at <= now) {
            admitted.extend(std::iter::from_fn(|| self.admit(None, None, busy)));
            let waits = self.ready.len_for(None) > 0;
            self.next_partial_batch = waits.then_some(now + PARTIAL_BATCH_PERIOD);
        }
        next.push(self.next_partial_batch);
        next.into_iter().flatten().min()
    }

    /// Reserves a call, and a slot, for each object whose Join or Leave the rate limit admits.
    fn admit_calls(
        &mut self,
        region: &Region,
        action: Action,
        busy: &mut HashSet<Target>,
        admitted: &mut Vec<ObjectRef<SecurityGroupMembership>>,
    ) -> Option<Instant> {
        let limiter = Arc::clone(self.limiter.as_ref()?);
        while self.free() > 0 && self.ready.len_for(Some(action)) > 0 {
            match limiter.reserve(region, action) {
                Ok(reservation) => {
                    admitted.extend(self.admit(Some(action), Some(reservation), busy));
                }
                Err(retry_at) => return Some(retry_at),
            }
        }
        None
    }

    /// Admits the objects of one batch, if the rate limit admits its call.
    fn admit_reads(
        &mut self,
        region: &Region,
        action: Action,
        now: Instant,
        busy: &mut HashSet<Target>,
        admitted: &mut Vec<ObjectRef<SecurityGroupMembership>>,
    ) -> Option<Instant> {
        let due = self.limiter.as_ref()?.next(region, action);
        let due = self.next_reads.map_or(due, |next| next.max(due));
        if due > now {
            return Some(due);
        }
        let batch = (0..MAX_IDS_PER_CALL).map_while(|_| self.admit(Some(action), None, busy));
        admitted.extend(batch.collect::<Vec<_>>());
        self.next_reads = Some(now + PARTIAL_BATCH_PERIOD);
        (self.ready.len_for(Some(action)) > 0)
            .then_some(self.next_reads)
            .flatten()
    }

    /// Has each object that was held back for a minute wait for a slot only: its pass says so, and it keeps its number. Returns
    /// when the next one is due.
    fn report_long_waits(&mut self, now: Instant, busy: &HashSet<Target>) -> Option<Instant> {
        while let Some((since, uid)) = self.unreported.first().cloned() {
            if since + REPORT_WAIT_AFTER > now {
                return Some(since + REPORT_WAIT_AFTER);
            }
            self.unreported.pop_first();
            let Some(waiting) = self.objects.get_mut(&uid) else {
                continue;
            };
            waiting.held = Some(Held {
                since,
                reported: true,
            });
            // A pass that has a slot says so when it ends.
            if !matches!(waiting.stage, Stage::Waiting) {
                continue;
            }
            let Some(mut waiting) = self.take(&uid) else {
                continue;
            };
            waiting.order.needs = None;
            self.line_up(&waiting, busy);
            self.objects.insert(uid, waiting);
            self.next_partial_batch.get_or_insert(now);
        }
        None
    }
}
