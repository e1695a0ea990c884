//! Carries out the plan of a set: creates and changes memberships, and has others deleted (`delete`). Every creation names the UID of the
//! set. Every change names UID and version of the object: the set does not touch what a user has released since.

use std::sync::Arc;

use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api::{
    SET_LABEL, SET_MANAGER, SecurityGroupMembership, SecurityGroupMembershipSet, reason,
};
use crate::ecs::{Region, SecurityGroupId, Target};
use crate::kubernetes::events::EventRecord;
use crate::kubernetes::{Error, ObjectUid, with_deadline};

use super::batches::{Batches, Written};
use super::context::Context;
use super::desired::{self, Occupant};
use super::member::{Member, Policies};
use super::plan::Plan;
use super::refusal::Refusal;

/// A set whose plan is carried out.
pub(super) struct Doer<'a> {
    pub set: &'a SecurityGroupMembershipSet,
    pub uid: &'a ObjectUid,
    pub region: &'a Region,
    pub group: &'a SecurityGroupId,
    /// How many passes over the set had a write that failed or was refused. Each begins with another membership, or that one would keep
    /// the others waiting.
    pub stopped_passes: u32,
    pub context: &'a Context,
}

/// What has become of a plan.
#[derive(Debug, Default)]
pub(super) struct Acted {
    /// What refuses some of it.
    pub refused: Option<Refusal>,
    /// Whether nothing more can be created: the namespace or the set is being deleted.
    pub over: bool,
    /// Number of targets whose membership cannot be created yet: an object that is about to go has its name.
    pub held: usize,
}

impl Doer<'_> {
    /// Puts policies back, deletes what goes, and then, unless `may_create` is false, creates what is missing. A suspended set
    /// does nothing.
    ///
    /// # Errors
    /// The API server could not be asked.
    pub async fn carry_out(&self, plan: &Plan, may_create: bool) -> Result<Acted, Error> {
        if self.set.spec.suspend {
            return Ok(Acted::default());
        }
        let change = |member: Arc<Member>| async move { self.change_one(&member).await };
        let mut written = self.write(&plan.change, change).await.end;
        // Also after a change that was refused or failed: the other memberships do not wait for it.
        if !matches!(written, Err(Error::Stopping)) {
            let deleted = self.delete(plan).await;
            written = written.and_then(|refused| Ok(refused.or(deleted?)));
        }
        if !may_create {
            return Ok(Acted {
                refused: written?,
                ..Acted::default()
            });
        }
        // Also after a change or a deletion that failed: new targets do not wait for it.
        let create = |target: Target| async move { self.create_one(&target).await };
        let created = self.write(&plan.create, create).await;
        self.tell(reason::MEMBERSHIPS_CREATED, created.done.len(), |count| {
            format!("memberships created: {count}")
        });
        Ok(Acted {
            over: created.over,
            held: created.held,
            refused: written?.or(created.end?),
        })
    }

    /// Writes in batches, until one failed or was refused as a whole. A name that is taken refuses one only.
    async fn write<T: Clone, F>(&self, items: &[T], write: impl Fn(T) -> F) -> Batches<T>
    where
        F: Future<Output = Result<Written, Error>>,
    {
        let mut all = Batches::default();
        let items = self.in_turn(items);
        let mut rest = items.as_slice();
        while let Some(batch) = all.next(&mut rest, usize::MAX) {
            self.write_batch(batch, &write, &mut all).await;
        }
        all
    }

    /// The same items, beginning with another one after each pass that had a write that failed or was refused.
    pub(super) fn in_turn<T: Clone>(&self, items: &[T]) -> Vec<T> {
        let mut items = items.to_vec();
        let begin = begin_at(self.stopped_passes, items.len());
        items.rotate_left(begin);
        items
    }

    pub(super) async fn write_batch<T: Clone, F>(
        &self,
        batch: &[T],
        write: impl Fn(T) -> F,
        all: &mut Batches<T>,
    ) where
        F: Future<Output = Result<Written, Error>>,
    {
        let one = |item: T| {
            let written = write(item.clone());
            async move {
                // The next pass goes by what the watch has shown since.
                if !self.context.sets.is_as_shown(self.set, self.uid) {
                    return (item, Ok(Written::Waits));
                }
                (item, written.await)
            }
        };
        let outcomes = self.context.writer.each(batch.to_vec(), one).await;
        all.take_batch(outcomes);
    }

    async fn change_one(&self, member: &Member) -> Result<Written, Error> {
        let version = member.version.to_string();
        let fields = self.fields(&member.name, member.uid.as_str(), &version);
        match self.apply(&member.name, &fields).await {
            Ok(written) => Ok(written),
            // The watch shows that it is gone.
            Err(error) if error.code() == Some(404) => Ok(Written::Waits),
            Err(error) if error.code() == Some(409) => self.after_conflict(member, error).await,
            Err(error) => refused(error),
        }
    }

    /// The next try goes by what is stored now. If that is the version that the set has named, a webhook means another conflict.
    async fn after_conflict(&self, member: &Member, conflict: Error) -> Result<Written, Error> {
        let stored = self.stored(member).await?;
        if stored.is_some_and(|stored| stored.version == member.version) {
            return Err(conflict);
        }
        self.soon();
        Ok(Written::Waits)
    }

    pub(super) fn soon(&self) {
        let namespace = self.set.namespace().unwrap_or_default();
        self.context.sets.soon(&namespace, &self.set.name_any());
    }

    async fn create_one(&self, target: &Target) -> Result<Written, Error> {
        let object = desired::membership(self.set, self.region, self.group, target);
        let writer = &self.context.writer;
        let began = Instant::now();
        match writer.create_as(&self.api(), &object, SET_MANAGER).await {
            Ok(stored) => {
                self.context.members.answered(&stored, began);
                Ok(Written::Done)
            }
            Err(error) => match error.code() {
                Some(409) => self.take_over(&object).await,
                Some(404) => Ok(Written::Over),
                Some(403) if is_terminating(&error) => Ok(Written::Over),
                Some(400 | 401 | 403 | 422) => {
                    Ok(Written::Refused(Refusal::Create(error.to_string())))
                }
                Some(_) | None => Err(error),
            },
        }
    }

    /// An object of the name exists: it is ours, or an orphan for the same edge that is taken over, or none of ours.
    async fn take_over(&self, wanted: &SecurityGroupMembership) -> Result<Written, Error> {
        let name = wanted.name_any();
        let api = self.api();
        let began = Instant::now();
        let stored = match with_deadline(api.get_opt(&name)).await {
            Ok(Some(stored)) => stored,
            Ok(None) => return Ok(Written::Waits),
            // This version cannot read it.
            Err(Error::Api(kube::Error::SerdeError(_))) => {
                return Ok(Written::Refused(Refusal::NameTaken { name }));
            }
            Err(error) => return Err(error),
        };
        match desired::occupant(self.set, &stored, wanted) {
            Occupant::Own => {
                self.context.members.answered(&stored, began);
                Ok(Written::Waits)
            }
            Occupant::Goes => Ok(Written::Held),
            Occupant::Orphan => self.adopt(&stored).await,
            Occupant::Foreign => Ok(Written::Refused(Refusal::NameTaken { name })),
        }
    }

    async fn adopt(&self, orphan: &SecurityGroupMembership) -> Result<Written, Error> {
        let name = orphan.name_any();
        if !self.is_current().await? {
            return Ok(Written::Over);
        }
        let uid = orphan.uid().unwrap_or_default();
        let version = orphan.resource_version().unwrap_or_default();
        let fields = self.fields(&name, &uid, &version);
        match self.apply(&name, &fields).await {
            Ok(written) => Ok(written),
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(Written::Waits),
            Err(error) => refused(error),
        }
    }

    /// Whether the API server still has this set, with this spec and not being deleted. The watch may lag behind it.
    pub(super) async fn is_current(&self) -> Result<bool, Error> {
        let namespace = self.set.namespace().unwrap_or_default();
        let sets: Api<SecurityGroupMembershipSet> =
            Api::namespaced(self.context.client.clone(), &namespace);
        let stored = with_deadline(sets.get_opt(&self.set.name_any())).await?;
        Ok(stored.is_some_and(|stored| {
            let (stored, shown) = (stored.metadata, &self.set.metadata);
            stored.uid == shown.uid
                && stored.generation == shown.generation
                && stored.deletion_timestamp.is_none()
        }))
    }

    /// What a set keeps so on each of its memberships. Always all of it: what a field manager leaves out goes.
    fn fields(&self, name: &str, uid: &str, version: &str) -> Value {
        let spec = &self.set.spec;
        json!({
            "apiVersion": SecurityGroupMembership::api_version(&()),
            "kind": SecurityGroupMembership::kind(&()),
            "metadata": {
                "name": name, "uid": uid, "resourceVersion": version,
                "labels": {SET_LABEL: self.set.name_any()},
                "ownerReferences": [desired::owner(self.set)],
            },
            "spec": {
                "managementPolicy": spec.management_policy,
                "adoptionPolicy": spec.adoption_policy,
                "deletionPolicy": spec.deletion_policy,
                "driftPolicy": spec.drift_policy,
                "karpenterPolicy": spec.karpenter_policy,
            },
        })
    }

    async fn apply(&self, name: &str, fields: &Value) -> Result<Written, Error> {
        let turn = self.context.writer.turn().await?;
        let api = self.api();
        let began = Instant::now();
        let stored: SecurityGroupMembership = turn.apply(&api, name, SET_MANAGER, fields).await?;
        self.context.members.answered(&stored, began);
        if Policies::of_membership(&stored.spec) == Policies::of_set(&self.set.spec) {
            return Ok(Written::Done);
        }
        Ok(Written::Refused(Refusal::Write(format!(
            "it stores {name} with other policies than those of the set: a webhook or an admission policy changes them, or the CRDs are of \
             an older version"
        ))))
    }

    pub(super) fn api(&self) -> Api<SecurityGroupMembership> {
        let namespace = self.set.namespace().unwrap_or_default();
        self.context.memberships(&namespace)
    }

    /// An event about the set, if anything was done.
    pub(super) fn tell(&self, reason: &str, count: usize, text: impl FnOnce(usize) -> String) {
        if count > 0 {
            let event = EventRecord {
                reason: reason.to_owned(),
                text: text(count),
                ..EventRecord::default()
            };
            self.context.events.publish(self.set, event);
        }
    }
}

/// Where the pass of this number begins in a list. Steps of the golden ratio spread the beginnings evenly over a list of any length.
fn begin_at(pass: u32, length: usize) -> usize {
    const GOLDEN_RATIO: u32 = 0x9E37_79B9;
    let share = u64::from(pass.wrapping_mul(GOLDEN_RATIO));
    let length = u64::try_from(length).unwrap_or_default();
    usize::try_from((share * length) >> 32).unwrap_or_default()
}

/// What an answer to a change or a deletion is that stored nothing.
pub(super) fn refused(error: Error) -> Result<Written, Error> {
    match error.code() {
        Some(400 | 401 | 403 | 422) => Ok(Written::Refused(Refusal::Write(error.to_string()))),
        Some(_) | None => Err(error),
    }
}

/// Whether the namespace is being deleted.
fn is_terminating(error: &Error) -> bool {
    let Error::Api(kube::Error::Api(status)) = error else {
        return false;
    };
    let details = status.details.as_ref();
    let mut causes = details.into_iter().flat_map(|details| &details.causes);
    causes.any(|cause| cause.reason == "NamespaceTerminating")
}
