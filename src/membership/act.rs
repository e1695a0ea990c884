//! Performs the one effect that [`super::decide`] chose, and adds its result to the observed state. Each function writes to
//! the cloud or to the API server, never to both.

use std::collections::BTreeMap;

use kube::runtime::reflector::ObjectRef;
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Map, Value, json};

use crate::account::session::CallError;
use crate::api::membership::Origin;
use crate::api::{
    ACCOUNT_ANNOTATION, CLAIM_MANAGER, FINALIZER, ORIGIN_ANNOTATION, SecurityGroupMembership,
};
use crate::ecs::{AccountUid, Action, Class, Error};
use crate::kubernetes::writer::ApiWriter;
use crate::kubernetes::{self, ObjectUid};

use crate::watched::Watched;

use super::context::Context;
use super::decide::{Attempt, ClaimView, TargetView};
use super::history::History;
use super::object::{Claim, Object, has_finalizer};
use super::observe::Pass;

/// Why a pass stops early.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The object was deleted, or another object has its name. The watch reports it in an event of its own.
    #[error("the object is gone")]
    ObjectGone,
    /// The stored version of the object differs from the one the pass knows, or another object has its name.
    #[error("the object has changed meanwhile")]
    Changed,
    /// The process ends: nothing more begins. The next process goes on from what is stored.
    #[error("the process ends")]
    Stopping,
    /// The API server rejected the write or did not answer: the stored state is unknown.
    #[error("{what}: {source}")]
    Kubernetes {
        /// The write that failed, for the message.
        what: &'static str,
        /// The error.
        source: kubernetes::Error,
    },
}

impl ActError {
    /// Why a write failed. `what` is for the message.
    pub(super) fn of(what: &'static str, source: kubernetes::Error) -> Self {
        match source {
            kubernetes::Error::Stopping => Self::Stopping,
            kubernetes::Error::Api(_) | kubernetes::Error::Timeout { .. } => {
                Self::Kubernetes { what, source }
            }
        }
    }

    /// Whether the object is being deleted: the API server answers a new finalizer with 422 then.
    fn is_about_going(&self) -> bool {
        match self {
            Self::ObjectGone | Self::Changed | Self::Stopping => false,
            Self::Kubernetes { source, .. } => source.code() == Some(422),
        }
    }
}

impl Pass {
    /// Writes finalizer and claim in one server-side apply. `metadata.uid` keeps the apply from creating a deleted object
    /// again.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn claim(&mut self, origin: Origin, context: &Context) -> Result<(), ActError> {
        let uid = self.account.as_ref().map(|account| account.uid.clone());
        let written = write_claim(
            &ObjectRef::from_obj(self.object()),
            &ObjectUid::of(self.object()).unwrap_or_default(),
            None,
            Some((origin, uid.clone())),
            &self.writer(context),
            context,
        )
        .await?;
        let own = ObjectUid::of(&written).unwrap_or_default();
        self.written(written);
        context
            .table
            .set_may_have_joined(&own, origin == Origin::Adopted);
        // Requeue objects that refused adoption (they may now share this edge) and objects whose own Join was rejected (they
        // did not create it).
        for other in &self.others {
            if other.claim.is_none() || !context.table.may_have_joined(&other.uid) {
                context.queue.enqueue(&other.reference());
            }
        }
        // An object that is being deleted but cannot call Leave now has a successor: requeue it.
        for other in context.table.others(&self.edge, &own) {
            if other.deleting && other.is_claimed_with(uid.as_ref()) {
                context.queue.enqueue(&other.reference());
            }
        }
        // A correction to Adopted is marked untested too; no call follows it.
        self.observed.claim = Some(ClaimView {
            origin,
            untested: true,
        });
        self.claimed = true;
        Ok(())
    }

    /// Checks that the object is stored exactly as this pass sees it: applies its own claim under its version, which changes
    /// nothing. Needed before a Join under a claim of an earlier pass: the watch may lag, and another operator may have
    /// called Leave and released the object.
    ///
    /// # Errors
    /// The stored object differs, or the API server did not answer.
    pub async fn confirm(&mut self, context: &Context) -> Result<(), ActError> {
        let object = self.object();
        let Some(claim) = Claim::of(object) else {
            return Err(ActError::Changed);
        };
        let confirmed = write_claim(
            &ObjectRef::from_obj(object),
            &ObjectUid::of(object).unwrap_or_default(),
            object.resource_version(),
            Some((claim.origin, claim.account_uid)),
            &self.writer(context),
            context,
        )
        .await?;
        self.written(confirmed);
        Ok(())
    }

    /// Calls `JoinSecurityGroup`.
    pub async fn join(&mut self, uid: &ObjectUid, context: &Context) {
        let Some((account, reservation)) = self.account.clone().zip(self.reservation.take()) else {
            return;
        };
        let may_have_joined = context.table.may_have_joined(uid);
        // Until the answer proves that the call had no effect.
        context.table.set_may_have_joined(uid, true);
        let answer = account.join(&self.edge, reservation).await;
        self.note_answer(&answer);
        if answer.as_ref().is_err_and(CallError::is_without_effect) {
            context.table.set_may_have_joined(uid, may_have_joined);
        } else {
            // Siblings share the edge: its Join counts for them too.
            for other in &self.others {
                context.table.set_may_have_joined(&other.uid, true);
            }
        }
        self.observed.attempt = match answer {
            Ok(_) => Attempt::Joined,
            Err(CallError::Failed(error)) if error.class() == Class::Done => Attempt::AlreadyMember,
            Err(error) => Attempt::Failed {
                class: self.note(Action::JoinSecurityGroup, error),
                forbidden: false,
            },
        };
    }

    /// Calls `LeaveSecurityGroup`.
    pub async fn leave(&mut self, uid: &ObjectUid, context: &Context) {
        let Some((account, reservation)) = self.account.clone().zip(self.reservation.take()) else {
            return;
        };
        let answer = account.leave(&self.edge, reservation).await;
        self.note_answer(&answer);
        self.observed.attempt = match answer {
            Ok(_) => {
                self.removed = true;
                Attempt::Left
            }
            Err(CallError::Failed(error)) if error.class() == Class::Done => Attempt::Left,
            Err(error) => {
                let forbidden =
                    matches!(&error, CallError::Failed(Error::Api(api)) if api.status == 403);
                if forbidden {
                    self.observed.target = TargetView::Unread;
                    let past_lag = context.table.history(uid, History::leave_is_forbidden);
                    self.observed.leave_forbidden_past_lag = past_lag == Some(true);
                }
                Attempt::Failed {
                    class: self.note(Action::LeaveSecurityGroup, error),
                    forbidden,
                }
            }
        };
    }

    /// Writes the claim `Joined` on the oldest sibling.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn transfer_ownership(&mut self, context: &Context) -> Result<(), ActError> {
        let uid = self
            .account
            .as_ref()
            .map(|account| account.uid.clone())
            .or_else(|| {
                let uid = self.object().annotations().get(ACCOUNT_ANNOTATION)?;
                Some(uid.as_str().into())
            });
        let Some(successor) = self.others.first().cloned() else {
            return Ok(());
        };
        let reference = successor.reference();
        match write_claim(
            &reference,
            &successor.uid,
            None,
            Some((Origin::Joined, uid)),
            &self.writer(context),
            context,
        )
        .await
        {
            Ok(_) => {
                self.observed.attempt = Attempt::OwnershipTransferred;
                context.table.set_may_have_joined(&successor.uid, true);
                context.queue.enqueue(&reference);
            }
            // The successor is being deleted and cannot take a finalizer: try the next sibling, if any.
            Err(error) if error.is_about_going() => {
                self.others.retain(|other| other.uid != successor.uid);
                self.observed.sharing.others = !self.others.is_empty();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Removes finalizer and claim.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn release(&mut self, context: &Context) -> Result<(), ActError> {
        let reference = ObjectRef::from_obj(self.object());
        let uid = ObjectUid::of(self.object()).unwrap_or_default();
        let joined = self.observed.claim.map(|claim| claim.origin) == Some(Origin::Joined);
        if joined && context.table.may_have_joined(&uid) {
            // A sibling that also carries `Joined` becomes the owner; no write is needed.
            for other in &self.others {
                context.table.set_may_have_joined(&other.uid, true);
            }
        }
        let writer = self.writer(context);
        let written = write_claim(&reference, &uid, None, None, &writer, context).await?;
        if has_finalizer(&written) {
            if let Some(written) = remove_foreign_finalizer(&written, &writer, context).await? {
                self.written(written);
            }
        } else {
            self.written(written);
        }
        self.observed.attempt = Attempt::Released;
        self.observed.claim = None;
        // The siblings' status may name this object as an owner: requeue them.
        for other in &self.others {
            context.queue.enqueue(&other.reference());
        }
        Ok(())
    }
}

/// Applies or removes finalizer and claim. With `version`, only if that version is still stored.
async fn write_claim(
    object: &ObjectRef<SecurityGroupMembership>,
    uid: &ObjectUid,
    version: Option<String>,
    claim: Option<(Origin, Option<AccountUid>)>,
    writer: &ApiWriter,
    context: &Context,
) -> Result<SecurityGroupMembership, ActError> {
    let what = if claim.is_some() {
        "the claim could not be written"
    } else {
        "the finalizer could not be removed"
    };
    let namespace = object.namespace.clone().unwrap_or_default();
    let api: Api<Object> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "apiVersion": SecurityGroupMembership::api_version(&()),
        "kind": SecurityGroupMembership::kind(&()),
        "metadata": claim_metadata(&object.name, uid, version, claim),
    });
    match writer
        .apply(&api, &object.name, CLAIM_MANAGER, &patch)
        .await
    {
        Ok(Watched(Ok(written))) => {
            context.table.written(&written);
            Ok(written)
        }
        // A user has made the object unreadable in the meantime.
        Ok(Watched(Err(_))) => Err(ActError::Changed),
        // 409 for a deleted object (an apply with a UID creates nothing), or the API server gave up on concurrent writes.
        Err(error) if error.code() == Some(409) => Err(ActError::Changed),
        Err(source) => Err(ActError::of(what, source)),
    }
}

/// Removes our finalizer if another field manager owns it too, for example a backup tool that restored the object with its
/// finalizers. Under the version just written, so that no foreign change is lost. Returns the object if it is readable.
async fn remove_foreign_finalizer(
    object: &SecurityGroupMembership,
    writer: &ApiWriter,
    context: &Context,
) -> Result<Option<SecurityGroupMembership>, ActError> {
    let failed = |source| ActError::of("the finalizer could not be removed", source);
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<Object> = Api::namespaced(context.client.clone(), &namespace);
    let (uid, version) = (object.uid(), object.resource_version());
    // Only some finalizers of an object are kept in memory. This changes nothing and shows all.
    let nothing = json!({"metadata": {"uid": uid, "resourceVersion": version}});
    let shown = writer.merge_metadata(&api, &name, &nothing).await;
    let mut others = shown.map_err(failed)?.finalizers.unwrap_or_default();
    others.retain(|finalizer| finalizer != FINALIZER);
    let patch = json!({"metadata": {
        "uid": uid,
        "resourceVersion": version,
        "finalizers": others,
        "annotations": { ORIGIN_ANNOTATION: null, ACCOUNT_ANNOTATION: null },
    }});
    match writer.merge(&api, &name, &patch).await {
        Ok(Watched(Ok(written))) => {
            context.table.written(&written);
            Ok(Some(written))
        }
        Ok(Watched(Err(_))) => Ok(None),
        Err(source) => Err(failed(source)),
    }
}

/// The fields that our field manager owns: finalizer and claim together, or neither.
fn claim_metadata(
    name: &str,
    uid: &ObjectUid,
    version: Option<String>,
    claim: Option<(Origin, Option<AccountUid>)>,
) -> Value {
    let mut metadata = Map::new();
    let mut add = |name: &str, value| metadata.insert(name.to_owned(), value);
    add("name", json!(name));
    add("uid", json!(uid.as_str()));
    if let Some(version) = version {
        add("resourceVersion", json!(version));
    }
    if let Some((origin, account_uid)) = claim {
        let annotations: BTreeMap<&str, Value> = [
            Some((ORIGIN_ANNOTATION, json!(origin))),
            account_uid.map(|uid| (ACCOUNT_ANNOTATION, json!(uid.as_str()))),
        ]
        .into_iter()
        .flatten()
        .collect();
        add("finalizers", json!([FINALIZER]));
        add("annotations", json!(annotations));
    }
    Value::Object(metadata)
}
