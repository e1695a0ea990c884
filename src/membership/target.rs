//! Reads the target of a pass. Reads only.

use std::time::Duration;

use kube::ResourceExt as _;
use tokio::time::Instant;

use crate::account::key::AccountRegion;
use crate::account::session::Sighting;
use crate::api::membership::ManagementPolicy;
use crate::ecs::{Class, TargetDescription};

use super::context::Context;
use super::decide::{self, Attempt, Desired, ReadTrust};
use super::object::account_key;
use super::observation::Observation;
use super::observe::{Pass, count_found_intents};

impl Pass {
    /// Reads the target. A failed read makes it unreadable, never "not a member".
    pub async fn read(&mut self, context: &Context) {
        // Its tags were not kept.
        let needs_tags = self.target_tags.is_some();
        if self.observed.attempt == Attempt::None
            && !needs_tags
            && let Some((description, trust)) = self.pending_description(context)
        {
            self.see(description, trust, context);
            return;
        }
        let Some(account) = &self.account else {
            self.observed.target = decide::TargetView::Unreadable(Class::Transient);
            return;
        };
        self.observed.target = match account.describe(&self.edge.region, &self.edge.target).await {
            Ok(None) => {
                self.description = None;
                decide::TargetView::Absent
            }
            Ok(Some(Sighting { description, sent })) => {
                let trust = self.trust(&description, sent, context);
                self.tell_others(&description, sent, context);
                self.see(description, trust, context);
                self.check_tags();
                return;
            }
            Err(error) => {
                let action = self.edge.target.describe_action();
                decide::TargetView::Unreadable(self.note(action, error))
            }
        };
        self.check_tags();
    }

    /// Whether a read that was sent at `sent` counts.
    fn trust(
        &self,
        description: &TargetDescription,
        sent: Instant,
        context: &Context,
    ) -> ReadTrust {
        let member = description.security_group_ids.contains(&self.edge.group);
        self.account_uid
            .as_ref()
            .map_or(ReadTrust::AfterStart, |account| {
                // Some may have appeared while the read waited for the key.
                count_found_intents(account, &self.edge, context);
                context.table.read_edge(account, &self.edge, sent, member)
            })
    }

    /// Enqueues the other objects of the target that say something else of it.
    fn tell_others(&self, description: &TargetDescription, sent: Instant, context: &Context) {
        let Some(account) = &self.account_uid else {
            return;
        };
        let object = self.object();
        let account_region = AccountRegion {
            account: account_key(&object.spec, &object.namespace().unwrap_or_default()),
            region: self.edge.region.clone(),
        };
        let read = (&self.edge.target, description);
        let table = &context.table;
        for other in table.read_by_pass(&account_region, account, &self.uid(), read, sent) {
            context.queue.enqueue(&other);
        }
    }

    /// Adds a description to the observed state.
    fn see(&mut self, description: TargetDescription, trust: ReadTrust, context: &Context) {
        let is_recorded = self.observed.claim.record().is_some();
        let member = description.security_group_ids.contains(&self.edge.group);
        self.observed.target = target_view(&self.desired, is_recorded, member, &description);
        if self.observed.target == decide::TargetView::Unsuitable {
            self.description = Some(description);
            return;
        }
        self.observed.karpenter = description.karpenter;
        self.description = Some(description);
        self.observed.trust = trust;
        self.renew_claim(context);
        let is_missing = !member && self.observed.trust != ReadTrust::AfterLeave;
        let counts = self.observed.trust == ReadTrust::Settled || self.observed.claim.is_void();
        self.observed.drifted |= is_recorded && is_missing && counts;
    }

    /// The description from the last pass and whether it counted then, if that pass ended in a rate-limit wait and no scan has found
    /// a change since. It says nothing of what other objects have joined meanwhile. Good enough for a Join under a claim: its answer
    /// tells whether the target is a member by now. Not if that Join may be preceded by one of ours that is open: then a read that counts
    /// tells first whose the membership is.
    fn pending_description(&self, context: &Context) -> Option<(TargetDescription, ReadTrust)> {
        let uid = self.uid();
        let ((description, trust), fresh) = context.table.history(&uid, |history| {
            let fresh = history.fresh_observation(OBSERVATION_AGE);
            Some((history.pending_description()?, fresh?))
        })??;
        let counts_now = |account| context.table.settles_at(account, &self.edge) <= Instant::now();
        let read_tells = trust != ReadTrust::Settled
            && self.observed.claim.is_ours()
            && self.account_uid.as_ref().is_some_and(counts_now);
        if read_tells {
            return None;
        }
        let member = |seen: &TargetDescription| seen.security_group_ids.contains(&self.edge.group);
        (fresh == Observation::of(Some(&description), member) && !member(&description))
            .then_some((description, trust))
    }
}

/// What a description shows of a target. `is_recorded` is whether the object has a record of its edge: another service may have taken
/// over an interface that the operator joined, and the membership is there all the same.
pub(super) fn target_view(
    desired: &Desired,
    is_recorded: bool,
    member: bool,
    description: &TargetDescription,
) -> decide::TargetView {
    let writes = desired.management == ManagementPolicy::Manage && !desired.deleting;
    if writes && (description.primary || description.service_managed && !is_recorded) {
        return decide::TargetView::Unsuitable;
    }
    decide::TargetView::Present {
        member,
        transitional: description.state.is_transitional(),
    }
}

/// An observation older than this is not used.
const OBSERVATION_AGE: Duration = Duration::from_secs(150);
