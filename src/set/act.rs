//! Carries out the plan of a set: creates, changes and deletes memberships. Every creation names the UID of the set. Every change and
//! every deletion names UID and version of the object: the set does not touch what a user has released since.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::api::{
    SET_LABEL, SET_MANAGER, SecurityGroupMembership, SecurityGroupMembershipSet, reason,
};
use crate::ecs::{Region, SecurityGroupId, Target};
use crate::kubernetes::events::EventRecord;
use crate::kubernetes::{Error, ObjectUid, with_deadline};

use super::context::Context;
use super::desired::{self, Occupant};
use super::member::{Member, Policies};
use super::plan::{Plan, Why};
use super::refusal::Refusal;

/// A set whose plan is carried out.
pub(super) struct Doer<'a> {
    pub set: &'a SecurityGroupMembershipSet,
    pub uid: &'a ObjectUid,
    pub region: &'a Region,
    pub group: &'a SecurityGroupId,
    pub context: &'a Context,
    /// Whether the stored set is still this one and lives, asked before the first orphan is taken over.
    pub lives: OnceCell<bool>,
}

/// How a write of one membership ended.
enum Written {
    Done,
    /// An object of the name is being deleted.
    Waits,
    Refused(Refusal),
    /// The namespace is being deleted.
    Over,
}

/// What has become of a plan.
#[derive(Debug, Default)]
pub(super) struct Acted {
    /// What refuses some of it.
    pub refused: Option<Refusal>,
    /// Whether nothing more can be created: the namespace or the set is being deleted.
    pub over: bool,
}

/// What has become of many writes.
struct Batches<T> {
    /// What the API server has stored or deleted.
    done: Vec<T>,
    /// What refused some, or what ended them.
    end: Result<Option<Refusal>, Error>,
    over: bool,
}

impl<T> Batches<T> {
    /// Keeps the first refusal; one of all goes before one of a single target, and an error before both.
    fn refused(&mut self, refusal: Refusal) {
        let Ok(told) = &mut self.end else {
            return;
        };
        let goes_before = |told: &Refusal| told.is_of_one_target() && !refusal.is_of_one_target();
        if told.as_ref().is_none_or(goes_before) {
            *told = Some(refusal);
        }
    }
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
        if matches!(written, Ok(None)) {
            written = self.delete(plan).await;
        }
        if !may_create {
            return Ok(Acted {
                refused: written?,
                over: false,
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
            refused: written?.or(created.end?),
        })
    }

    async fn delete(&self, plan: &Plan) -> Result<Option<Refusal>, Error> {
        let delete =
            |(member, _): (Arc<Member>, Why)| async move { self.delete_one(&member).await };
        let deleted = self.write(&plan.delete, delete).await;
        let mut counts: BTreeMap<Why, usize> = BTreeMap::new();
        for (_, why) in &deleted.done {
            *counts.entry(*why).or_default() += 1;
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

    /// Writes in batches that double from one, and ends with the first batch in which a write failed: what refuses one refuses ten
    /// thousand. A name that is taken refuses one only.
    async fn write<T: Clone, F>(&self, items: &[T], write: impl Fn(T) -> F) -> Batches<T>
    where
        F: Future<Output = Result<Written, Error>>,
    {
        let (mut rest, mut size) = (items, 1);
        let mut all = Batches {
            done: Vec::new(),
            end: Ok(None),
            over: false,
        };
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            (rest, size) = (later, size * 2);
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
            for (item, outcome) in self.context.writer.each(batch.to_vec(), one).await {
                match outcome {
                    Ok(Written::Done) => all.done.push(item),
                    Ok(Written::Waits) => {}
                    Ok(Written::Over) => (rest, all.over) = (&[], true),
                    Ok(Written::Refused(refusal)) => {
                        if !refusal.is_of_one_target() {
                            rest = &[];
                        }
                        all.refused(refusal);
                    }
                    Err(error) => {
                        rest = &[];
                        all.end = Err(error);
                    }
                }
            }
        }
        all
    }

    /// Deletes a membership once it has the policies that the set has now: it goes by them.
    async fn delete_one(&self, member: &Member) -> Result<Written, Error> {
        let Context {
            writer, members, ..
        } = self.context;
        let (api, uid) = (self.api(), &member.uid);
        // The watch has shown since that it is gone or released.
        let Some(mut known) = members.get(self.uid, uid) else {
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

    async fn change_one(&self, member: &Member) -> Result<Written, Error> {
        let version = member.version.to_string();
        let fields = self.fields(&member.name, member.uid.as_str(), &version);
        match self.apply(&member.name, &fields).await {
            Ok(()) => Ok(Written::Done),
            // The watch shows that it is gone.
            Err(error) if error.code() == Some(404) => Ok(Written::Waits),
            Err(error) if error.code() == Some(409) => self.look_again_at(member).await,
            Err(error) => refused(error),
        }
    }

    /// Either the watch has not shown its last version yet, or the API server gave up. The next try goes by what is stored now.
    async fn look_again_at(&self, member: &Member) -> Result<Written, Error> {
        self.stored(member).await?;
        self.soon();
        Ok(Written::Waits)
    }

    /// Takes in what is stored of a membership. Returns it if it is still the set's.
    async fn stored(&self, member: &Member) -> Result<Option<Arc<Member>>, Error> {
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

    fn soon(&self) {
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
            Occupant::Goes => Ok(Written::Waits),
            Occupant::Orphan => self.adopt(&stored).await,
            Occupant::Foreign => Ok(Written::Refused(Refusal::NameTaken { name })),
        }
    }

    async fn adopt(&self, orphan: &SecurityGroupMembership) -> Result<Written, Error> {
        let name = orphan.name_any();
        let lives = self.lives.get_or_try_init(|| self.ask_whether_it_lives());
        if !*lives.await? {
            return Ok(Written::Over);
        }
        let uid = orphan.uid().unwrap_or_default();
        let version = orphan.resource_version().unwrap_or_default();
        let fields = self.fields(&name, &uid, &version);
        match self.apply(&name, &fields).await {
            Ok(()) => Ok(Written::Done),
            Err(error) if matches!(error.code(), Some(404 | 409)) => Ok(Written::Waits),
            Err(error) => refused(error),
        }
    }

    /// The watch may lag: a set that is being deleted takes nothing over.
    async fn ask_whether_it_lives(&self) -> Result<bool, Error> {
        let namespace = self.set.namespace().unwrap_or_default();
        let sets: Api<SecurityGroupMembershipSet> =
            Api::namespaced(self.context.client.clone(), &namespace);
        let stored = with_deadline(sets.get_opt(&self.set.name_any())).await?;
        Ok(stored.is_some_and(|stored| {
            stored.metadata.uid.as_deref() == Some(self.uid.as_str())
                && stored.metadata.deletion_timestamp.is_none()
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

    async fn apply(&self, name: &str, fields: &Value) -> Result<(), Error> {
        let turn = self.context.writer.turn().await?;
        let api = self.api();
        let began = Instant::now();
        let stored: SecurityGroupMembership = turn.apply(&api, name, SET_MANAGER, fields).await?;
        self.context.members.answered(&stored, began);
        Ok(())
    }

    fn api(&self) -> Api<SecurityGroupMembership> {
        let namespace = self.set.namespace().unwrap_or_default();
        self.context.memberships(&namespace)
    }

    /// An event about the set, if anything was done.
    fn tell(&self, reason: &str, count: usize, text: impl FnOnce(usize) -> String) {
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

/// What an answer to a change or a deletion is that stored nothing.
fn refused(error: Error) -> Result<Written, Error> {
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
