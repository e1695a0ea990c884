//! Deletes memberships of a set. Every deletion names UID and version of the object: the set does not touch what a user has released
//! since.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kube::ResourceExt as _;
use tokio::time::Instant;

use crate::api::{SecurityGroupMembership, reason};
use crate::kubernetes::{Error, ObjectUid, with_deadline};

use super::act::{Doer, refused};
use super::batches::{Batches, Written};
use super::context::Context;
use super::look::look;
use super::member::{Member, Policies};
use super::plan::{Deletion, Plan, Why};
use super::refusal::Refusal;

/// Memberships of one batch of deletions at most.
const DELETIONS: usize = 64;

impl Doer<'_> {
    /// Deletes what goes, and tells how many. Before each batch it asks whether the set is
    /// still the one that the watch has shown, and looks again at what the set selects.
    ///
    /// # Errors
    /// The API server could not be asked.
    pub(super) async fn delete(&self, plan: &Plan) -> Result<Option<Refusal>, Error> {
        let mut deleted = Batches::default();
        let delete = |deletion: Deletion| async move { self.delete_one(&deletion).await };
        let deletions = self.in_turn(&self.conforming(plan));
        let mut rest = deletions.as_slice();
        while let Some(batch) = deleted.next(&mut rest, DELETIONS) {
            match self.is_current().await {
                Ok(true) => {
                    let batch = self.still_planned(batch);
                    self.write_batch(&batch, delete, &mut deleted).await;
                }
                // The watch is about to show what it is now.
                Ok(false) => break,
                Err(error) => deleted.failed(error),
            }
        }
        let mut counts: BTreeMap<Why, usize> = BTreeMap::new();
        for deletion in &deleted.done {
            *counts.entry(deletion.why).or_default() += 1;
        }
        for (why, count) in counts {
            let words = match why {
                Why::NotSelected => "targets that are not selected any more",
                Why::Gone => "targets that have been gone for 5m",
                Why::Replaced => "targets that are members of the new group",
            };
            self.tell(reason::MEMBERSHIPS_DELETED, count, |count| {
                format!("memberships deleted, {words}: {count}")
            });
        }
        deleted.end
    }

    /// The deletions of a plan without those whose policies could not be put back.
    fn conforming(&self, plan: &Plan) -> Vec<Deletion> {
        let policies = Policies::of_set(&self.set.spec);
        let conforms = |deletion: &&Deletion| {
            let member = self.known(&deletion.member.uid);
            member.is_some_and(|member| member.policies == policies)
        };
        plan.delete.iter().filter(conforms).cloned().collect()
    }

    /// Those of a batch that the set would still delete, by what it has been shown since.
    fn still_planned(&self, batch: &[Deletion]) -> Vec<Deletion> {
        let place = (self.region, self.group);
        let Ok(Some(looked)) = look(self.set, self.uid, place, self.context) else {
            return Vec::new();
        };
        let batch: HashSet<&ObjectUid> =
            batch.iter().map(|deletion| &deletion.member.uid).collect();
        let mut planned = looked.plan.delete;
        planned.retain(|deletion| batch.contains(&deletion.member.uid));
        planned
    }

    /// Deletes a membership once it has the policies that the set has now: it goes by them.
    async fn delete_one(&self, deletion: &Deletion) -> Result<Written, Error> {
        let member = &deletion.member;
        let Context {
            writer, members, ..
        } = self.context;
        let (api, uid) = (self.api(), &member.uid);
        let is_ready = |by: &ObjectUid| {
            let by = self.known(by);
            by.is_some_and(|by| by.is_ready())
        };
        if !deletion.replaced_by.as_ref().is_none_or(is_ready) {
            return Ok(Written::Waits);
        }
        // The watch has shown since that it is gone or released.
        let Some(mut known) = self.known(uid) else {
            return Ok(Written::Waits);
        };
        for _ in 0..2 {
            if known.policies != Policies::of_set(&self.set.spec) {
                break;
            }
            let version = known.version.to_string();
            let what = (uid.as_str(), version.as_str());
            let began = Instant::now();
            match writer.delete(&api, &member.name, what).await {
                Ok(Some(kept)) => members.answered(&kept, began),
                Ok(None) => members.gone(uid),
                Err(error) if error.code() == Some(404) => members.gone(uid),
                Err(error) if error.code() == Some(409) => match self.stored(member).await? {
                    Some(stored) if stored.version == known.version => return Err(error),
                    Some(stored) => {
                        known = stored;
                        continue;
                    }
                    None => break,
                },
                Err(error) => return refused(error),
            }
            return Ok(Written::Done);
        }
        self.soon();
        Ok(Written::Waits)
    }

    /// A membership of the set, as the watch and the answers have shown it.
    fn known(&self, uid: &ObjectUid) -> Option<Arc<Member>> {
        let namespace = self.set.namespace().unwrap_or_default();
        self.context.members.get(&namespace, self.uid, uid)
    }

    /// Takes in what is stored of a membership. Returns it if it is still the set's.
    pub(super) async fn stored(&self, member: &Member) -> Result<Option<Arc<Member>>, Error> {
        let members = &self.context.members;
        let began = Instant::now();
        let stored = with_deadline(self.api().get_opt(&member.name)).await?;
        let is_it =
            |stored: &SecurityGroupMembership| ObjectUid::of(stored).as_ref() == Some(&member.uid);
        let Some(stored) = stored.filter(is_it) else {
            members.gone(&member.uid);
            return Ok(None);
        };
        members.answered(&stored, began);
        let own = Member::of(&stored).filter(|(owner, _)| owner.uid == *self.uid);
        Ok(own.map(|(_, member)| Arc::new(member)))
    }
}
