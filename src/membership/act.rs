//! Performs the one effect that [`super::decide`] chose, and adds its result to the observed state. Each function writes to
//! the cloud or to the API server, never to both.

use std::fmt;

use kube::api::ObjectMeta;
use kube::{Api, Resource as _, ResourceExt as _};
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::account::session::CallError;
use crate::api::membership::{Origin, SecurityGroupMembershipStatus};
use crate::api::{CLAIM_MANAGER, FINALIZER, INTENT_ANNOTATION, SecurityGroupMembership};
use crate::ecs::{AccountUid, Action, Class, Error, RequestId};
use crate::kubernetes::writer::ApiWriter;
use crate::kubernetes::{self, ObjectUid};

use crate::watched::Watched;

use super::context::Context;
use super::decide::{Attempt, ClaimView, TargetView};
use super::history::{History, Standing};
use super::ledger::{EdgeCall, Effect};
use super::object::{Claim, Intent, Object, has_finalizer};
use super::observe::Pass;
use super::status;
use super::view::{self, Made};

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
    /// The API server rejected the request or did not answer: the stored state is unknown.
    #[error("{what}: {source}")]
    Kubernetes {
        /// The request that failed.
        what: ApiRequest,
        /// The error.
        source: kubernetes::Error,
    },
    /// The API server has dropped the record from a status that it accepted.
    #[error("the CRD is older than this operator: the API server does not store status.origin")]
    RecordNotStored,
}

/// A request to the API server. Its text says that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRequest {
    /// Writes the finalizer and the intent of the object.
    Claim,
    /// Removes them.
    Finalizer,
    /// Writes the finalizer or the record of another object.
    Successor {
        /// Whether it is in the same namespace: its users may know of it.
        same_namespace: bool,
    },
    /// Writes the status of the object.
    Status,
    /// Reads an object.
    Read,
}

impl fmt::Display for ApiRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claim => "the claim could not be written",
            Self::Finalizer => "the finalizer could not be removed",
            Self::Successor { .. } => "another object could not be given the membership",
            Self::Status => "the status could not be written",
            Self::Read => "an object could not be read",
        })
    }
}

impl ActError {
    /// Why a request to the API server failed.
    pub(super) fn of(what: ApiRequest, source: kubernetes::Error) -> Self {
        match source {
            kubernetes::Error::Stopping => Self::Stopping,
            kubernetes::Error::Api(_) | kubernetes::Error::Timeout { .. } => {
                Self::Kubernetes { what, source }
            }
        }
    }

    /// The same for a request about another object.
    fn of_successor(self, same_namespace: bool) -> Self {
        match self {
            Self::Kubernetes { source, .. } => Self::Kubernetes {
                what: ApiRequest::Successor { same_namespace },
                source,
            },
            other => other,
        }
    }

    /// Whether the API server takes no new finalizer because the object is being deleted. An admission policy refuses with the
    /// same status.
    fn is_of_a_deleted_object(&self) -> bool {
        let Self::Kubernetes {
            source: kubernetes::Error::Api(kube::Error::Api(status)),
            ..
        } = self
        else {
            return false;
        };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        status.code == 422
            && causes
                .map(|cause| cause.field.as_str())
                .any(|field| field == "metadata.finalizers")
    }
}

/// How often a write under a version is tried when only annotations of others have changed.
const TRIES: usize = 3;

impl Pass {
    /// Writes finalizer and intent in one server-side apply. From now on a Join may have an effect.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn intend(&mut self, context: &Context) -> Result<(), ActError> {
        let Some(account) = self.account_uid.clone() else {
            return Err(ActError::Changed);
        };
        let uid = self.uid();
        let intent = Intent::new(&uid, &account);
        self.write_marks(Some(&intent), context).await?;
        // The claim is void until a Join under it may have had an effect.
        context
            .table
            .history(&uid, |history| history.set_standing(Standing::Void));
        self.observed.claim = ClaimView::Intent { void: true };
        self.call_successors(context);
        Ok(())
    }

    /// Writes the finalizer and the intent of the claim again, under the version that this pass has seen.
    ///
    /// # Errors
    /// The stored object differs, or the API server did not answer.
    pub async fn confirm(&mut self, context: &Context) -> Result<(), ActError> {
        let uid = self.uid();
        let account = self.account_uid.as_ref();
        let intent = match self.observed.claim {
            ClaimView::None | ClaimView::Adopted => None,
            ClaimView::Intent { .. } | ClaimView::Joined { .. } => {
                account.map(|account| Intent::new(&uid, account))
            }
        };
        let object = self.object();
        let version = object.resource_version();
        let writer = self.writer(context);
        let written = write_marks(
            object,
            version,
            Marks::Held(intent.as_ref()),
            &writer,
            context,
        )
        .await?;
        self.marked(written);
        Ok(())
    }

    /// Writes the finalizer alone, if that changes anything: the edge was there before. The status records it after that.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn adopt(&mut self, context: &Context) -> Result<(), ActError> {
        let has_intent = self.object().annotations().contains_key(INTENT_ANNOTATION);
        if has_intent || !self.observed.finalizer {
            self.write_marks(None, context).await?;
        }
        self.observed.claim = ClaimView::Adopted;
        self.call_successors(context);
        Ok(())
    }

    /// Removes finalizer and intent from a live object.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn drop_claim(&mut self, context: &Context) -> Result<(), ActError> {
        self.remove_marks(context).await?;
        self.observed.claim = ClaimView::None;
        Ok(())
    }

    /// Removes finalizer and intent from a deleted object.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn release(&mut self, context: &Context) -> Result<(), ActError> {
        if !self.is_unreleased {
            self.remove_marks(context).await?;
        }
        self.observed.attempt = Attempt::Released;
        self.observed.claim = ClaimView::None;
        // The siblings' status may name this object as an owner: requeue them.
        for other in &self.others.holders {
            context.queue.enqueue(&other.reference());
        }
        Ok(())
    }

    /// Calls `JoinSecurityGroup`.
    pub async fn join(&mut self, context: &Context) {
        let Some((account, permit)) = self.account.clone().zip(self.permit.take()) else {
            return;
        };
        let uid = self.uid();
        let is_void = self.observed.claim.is_void();
        let (table, edge) = (&context.table, self.edge.clone());
        let begun = table.call_began(&uid, &account.uid, &edge, EdgeCall::Join);
        let answer = account.join(&edge, permit).await;
        self.note_answer(&answer);
        let effect = match effect_of(&answer) {
            // Under a void claim, another actor made the membership that is found.
            Effect::Done if answer.is_err() && is_void => Effect::None,
            effect => effect,
        };
        table.call_ended(&uid, &account.uid, &edge, begun, effect);
        self.observed.admitted = false;
        self.observed.attempt = match answer {
            Ok(_) => Attempt::Joined,
            Err(CallError::Failed(error)) if error.class() == Class::Done => Attempt::AlreadyMember,
            Err(error) => Attempt::Failed {
                class: self.note(Action::JoinSecurityGroup, error),
                forbidden: false,
                unknown: effect == Effect::Unknown,
            },
        };
        self.renew_claim(context);
    }

    /// Calls `LeaveSecurityGroup`.
    pub async fn leave(&mut self, context: &Context) {
        let Some((account, permit)) = self.account.clone().zip(self.permit.take()) else {
            return;
        };
        let uid = self.uid();
        let (table, edge) = (&context.table, self.edge.clone());
        let begun = table.call_began(&uid, &account.uid, &edge, EdgeCall::Leave);
        let answer = account.leave(&edge, permit).await;
        self.note_answer(&answer);
        let effect = effect_of(&answer);
        table.call_ended(&uid, &account.uid, &edge, begun, effect);
        self.observed.admitted = false;
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
                }
                Attempt::Failed {
                    class: self.note(Action::LeaveSecurityGroup, error),
                    forbidden,
                    unknown: effect == Effect::Unknown,
                }
            }
        };
        self.renew_claim(context);
    }

    /// Writes the record `Joined` to the object's own status. That of an object that is gone is kept in memory.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn record(&mut self, context: &Context) -> Result<(), ActError> {
        if self.is_unreleased {
            let uid = self.uid();
            let record = |history: &mut History| history.set_standing(Standing::Joined);
            context.table.history(&uid, record);
            self.observed.claim = ClaimView::Joined { void: false };
            return Ok(());
        }
        let status = with_joined(self.object(), self.account_uid.as_ref());
        let written = self.write_status(&status, context).await?;
        let written = written.ok_or(ActError::Changed)?;
        let is_stored = is_recorded_as_joined(&written);
        self.written(written);
        if !is_stored {
            return Err(ActError::RecordNotStored);
        }
        self.observed.claim = ClaimView::Joined { void: false };
        Ok(())
    }

    /// Writes the status of the object. A version that differs from the known one only by what others write is taken as well:
    /// otherwise a user who annotates the object all the time would keep its status from being written. Returns the object, if it
    /// is readable.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn write_status(
        &self,
        status: &SecurityGroupMembershipStatus,
        context: &Context,
    ) -> Result<Option<SecurityGroupMembership>, ActError> {
        let writer = self.writer(context);
        let mut metadata = self.object().metadata.clone();
        let mut tries_left = TRIES;
        loop {
            tries_left -= 1;
            match write_status(&metadata, status, &writer, context).await {
                Err(ActError::Changed) if tries_left > 0 => {
                    metadata.resource_version = self.same_but_newer(context).await?;
                }
                answered => return answered,
            }
        }
    }

    /// Writes the record `Joined` to the oldest other holder: from record to record. The holder is read first, gets our finalizer
    /// where it has none, and then its own status with the record, under the version that was read. That proves that it is there
    /// and is not being deleted.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn hand_over(&mut self, context: &Context) -> Result<(), ActError> {
        let Some(successor) = self.others.holders.first().cloned() else {
            return Ok(());
        };
        let reference = successor.reference();
        let same_namespace = self.object().namespace().as_deref() == Some(&*successor.namespace);
        let handed_over = match read_stored(
            &successor.uid,
            &successor.namespace,
            &reference.name,
            context,
        )
        .await
        {
            Ok(Stored::Found(object)) if object.metadata.deletion_timestamp.is_none() => {
                let writer = self.writer(context);
                let given = give(*object, self.account_uid.as_ref(), &writer, context).await;
                given.map_err(|error| error.of_successor(same_namespace))?
            }
            Ok(Stored::Found(_) | Stored::Gone) => false,
            Ok(Stored::Unreadable) => {
                self.others.out_of_reach = true;
                false
            }
            Err(ActError::Kubernetes { source, .. }) if source.code() == Some(403) => {
                self.others.out_of_reach = true;
                false
            }
            Err(error) => return Err(error),
        };
        if handed_over {
            self.observed.attempt = Attempt::HandedOver;
            context.queue.enqueue(&reference);
        } else {
            self.others.dismissed.push(successor.uid);
            self.renew_others(context);
        }
        Ok(())
    }

    /// An object that is being deleted but cannot call Leave now has a successor: requeue it.
    fn call_successors(&self, context: &Context) {
        let uid = self.uid();
        for other in context.table.others(&self.edge, &uid) {
            if other.deleting && other.is_claimed_with(self.account_uid.as_ref()) {
                context.queue.enqueue(&other.reference());
            }
        }
    }

    /// Writes the finalizer, and the intent or none, under the stored version. A version that differs from the watched one only by
    /// annotations of others is taken as well: otherwise a user who annotates the object all the time would keep it from being
    /// joined.
    async fn write_marks(
        &mut self,
        intent: Option<&Intent>,
        context: &Context,
    ) -> Result<(), ActError> {
        let mut version = self.object().resource_version();
        let writer = self.writer(context);
        let mut tries_left = TRIES;
        loop {
            tries_left -= 1;
            let object = self.object();
            match write_marks(object, version, Marks::Held(intent), &writer, context).await {
                Ok(written) => {
                    self.marked(written);
                    return Ok(());
                }
                Err(ActError::Changed) if tries_left > 0 => {
                    version = self.same_but_newer(context).await?;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// The version of the stored object, if a pass over it would decide and say the same.
    async fn same_but_newer(&self, context: &Context) -> Result<Option<String>, ActError> {
        let object = self.object();
        let namespace = object.namespace().unwrap_or_default();
        match read_stored(&self.uid(), &namespace, &object.name_any(), context).await? {
            Stored::Found(stored)
                if stored.metadata.generation == object.metadata.generation
                    && Claim::of(&stored) == Claim::of(object)
                    && our_part(&stored) == our_part(object) =>
            {
                Ok(stored.resource_version())
            }
            Stored::Found(_) | Stored::Unreadable => Err(ActError::Changed),
            Stored::Gone => Err(ActError::ObjectGone),
        }
    }

    fn marked(&mut self, written: SecurityGroupMembership) {
        self.observed.finalizer = has_finalizer(&written);
        self.observed.confirmed = true;
        self.written(written);
    }

    /// Removes finalizer and intent until the API server shows none.
    async fn remove_marks(&mut self, context: &Context) -> Result<(), ActError> {
        if has_marks(self.object()) {
            let writer = self.writer(context);
            let written =
                write_marks(self.object(), None, Marks::Removed, &writer, context).await?;
            let written = if has_marks(&written) {
                remove_foreign_marks(&written, &writer, context).await?
            } else {
                Some(written)
            };
            if let Some(written) = written {
                self.written(written);
            }
        }
        self.observed.finalizer = false;
        self.observed.confirmed = false;
        Ok(())
    }
}

/// What the answer of a Join or Leave tells of its effect.
fn effect_of(answer: &Result<RequestId, CallError>) -> Effect {
    match answer {
        Ok(_) => Effect::Done,
        Err(CallError::Failed(error)) if error.class() == Class::Done => Effect::Done,
        Err(error) if error.is_without_effect() => Effect::None,
        Err(_) => Effect::Unknown,
    }
}

/// What operators have written of the status.
fn our_part(object: &SecurityGroupMembership) -> SecurityGroupMembershipStatus {
    status::our_part(&object.status.clone().unwrap_or_default())
}

/// Whether the API server shows the record `Joined`: an older CRD drops it.
fn is_recorded_as_joined(object: &SecurityGroupMembership) -> bool {
    Claim::of(object).and_then(|claim| claim.record()) == Some(Origin::Joined)
}

/// The object's status with the record `Joined`.
fn with_joined(
    object: &SecurityGroupMembership,
    account: Option<&AccountUid>,
) -> SecurityGroupMembershipStatus {
    SecurityGroupMembershipStatus {
        origin: Some(Origin::Joined),
        object_uid: object.uid(),
        account_uid: account.map(|uid| uid.as_str().to_owned()),
        ..object.status.clone().unwrap_or_default()
    }
}

/// Another object as it is stored.
enum Stored {
    Found(Box<SecurityGroupMembership>),
    /// Deleted, or another object has its name.
    Gone,
    Unreadable,
}

async fn read_stored(
    uid: &ObjectUid,
    namespace: &str,
    name: &str,
    context: &Context,
) -> Result<Stored, ActError> {
    let api: Api<Object> = Api::namespaced(context.client.clone(), namespace);
    match kubernetes::with_deadline(api.get_opt(name)).await {
        Ok(None) => Ok(Stored::Gone),
        Ok(Some(Watched(Ok(object)))) => Ok(if ObjectUid::of(&object).as_ref() == Some(uid) {
            Stored::Found(Box::new(object))
        } else {
            Stored::Gone
        }),
        Ok(Some(Watched(Err(_)))) => Ok(Stored::Unreadable),
        Err(source) => Err(ActError::of(ApiRequest::Read, source)),
    }
}

/// Gives ownership to a live object. Returns whether it has it now: an object that is being deleted takes no finalizer.
async fn give(
    successor: SecurityGroupMembership,
    account: Option<&AccountUid>,
    writer: &ApiWriter,
    context: &Context,
) -> Result<bool, ActError> {
    let successor = if has_finalizer(&successor) {
        successor
    } else {
        let version = successor.resource_version();
        match write_marks(&successor, version, Marks::Held(None), writer, context).await {
            Ok(written) => written,
            Err(error) if error.is_of_a_deleted_object() => return Ok(false),
            Err(error) => return Err(error),
        }
    };
    let status = with_joined(&successor, account);
    match write_status(&successor.metadata, &status, writer, context).await {
        Ok(Some(written)) if is_recorded_as_joined(&written) => Ok(true),
        Ok(Some(_)) => Err(ActError::RecordNotStored),
        // A user has made it unreadable in the meantime.
        Ok(None) => Err(ActError::Changed),
        Err(ActError::ObjectGone) => Ok(false),
        Err(error) => Err(error),
    }
}

fn has_marks(object: &SecurityGroupMembership) -> bool {
    has_finalizer(object) || object.annotations().contains_key(INTENT_ANNOTATION)
}

/// What the operator's field manager owns of an object.
#[derive(Clone, Copy)]
enum Marks<'a> {
    /// The finalizer, with an intent or without one.
    Held(Option<&'a Intent>),
    /// Neither.
    Removed,
}

/// Applies the marks of our field manager. `metadata.uid` keeps the apply from creating a deleted object again. With `version`, only
/// if that version is still stored.
async fn write_marks(
    object: &SecurityGroupMembership,
    version: Option<String>,
    marks: Marks<'_>,
    writer: &ApiWriter,
    context: &Context,
) -> Result<SecurityGroupMembership, ActError> {
    let what = match marks {
        Marks::Held(_) => ApiRequest::Claim,
        Marks::Removed => ApiRequest::Finalizer,
    };
    let name = object.name_any();
    let namespace = object.namespace().unwrap_or_default();
    let api: Api<Object> = Api::namespaced(context.client.clone(), &namespace);
    let mut metadata = Map::new();
    metadata.insert("name".to_owned(), json!(name));
    metadata.insert("uid".to_owned(), json!(object.metadata.uid));
    if let Some(version) = &version {
        metadata.insert("resourceVersion".to_owned(), json!(version));
    }
    if let Marks::Held(intent) = marks {
        metadata.insert("finalizers".to_owned(), json!([FINALIZER]));
        if let Some(intent) = intent {
            let annotations = json!({ INTENT_ANNOTATION: intent.text() });
            metadata.insert("annotations".to_owned(), annotations);
        }
    }
    let patch = json!({
        "apiVersion": SecurityGroupMembership::api_version(&()),
        "kind": SecurityGroupMembership::kind(&()),
        "metadata": Value::Object(metadata),
    });
    let begun = context.view.write_began(uid_of(object), &namespace);
    let answer = writer.apply(&api, &name, CLAIM_MANAGER, &patch).await;
    context
        .view
        .write_ended(begun, made_by(&answer, version.as_deref()));
    match answer {
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

/// What a write has made of the object, as the watch shows it: `before` is the version that it was made under, if any. A deleted
/// object goes with its last finalizer.
fn made_by(answer: &Result<Object, kubernetes::Error>, before: Option<&str>) -> Option<Made> {
    let metadata = answer.as_ref().ok()?.meta();
    let has_finalizers = metadata
        .finalizers
        .as_ref()
        .is_some_and(|all| !all.is_empty());
    if metadata.deletion_timestamp.is_some() && !has_finalizers {
        return Some(Made::Deletion);
    }
    view::made(before, metadata)
}

fn uid_of(object: &SecurityGroupMembership) -> ObjectUid {
    ObjectUid::of(object).unwrap_or_default()
}

/// Removes our marks if another field manager owns them too, for example a backup tool that restored the object with them. Under
/// the version just written, so that no foreign change is lost. Returns the object if it is readable.
async fn remove_foreign_marks(
    object: &SecurityGroupMembership,
    writer: &ApiWriter,
    context: &Context,
) -> Result<Option<SecurityGroupMembership>, ActError> {
    let failed = |source: kubernetes::Error| match source.code() {
        Some(409) => ActError::Changed,
        Some(_) | None => ActError::of(ApiRequest::Finalizer, source),
    };
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
        "annotations": { INTENT_ANNOTATION: null },
    }});
    let begun = context.view.write_began(uid_of(object), &namespace);
    let answer = writer.merge(&api, &name, &patch).await;
    let before = object.metadata.resource_version.as_deref();
    context.view.write_ended(begun, made_by(&answer, before));
    match answer {
        Ok(Watched(Ok(written))) => {
            context.table.written(&written);
            Ok(Some(written))
        }
        Ok(Watched(Err(_))) => Ok(None),
        Err(source) => Err(failed(source)),
    }
}

/// Writes a status under the version of `metadata`. Returns the object, if it is readable.
pub(super) async fn write_status(
    metadata: &ObjectMeta,
    status: &impl Serialize,
    writer: &ApiWriter,
    context: &Context,
) -> Result<Option<SecurityGroupMembership>, ActError> {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let api: Api<Object> = Api::namespaced(context.client.clone(), &namespace);
    let uid = metadata.uid.as_deref().unwrap_or_default().into();
    let begun = context.view.write_began(uid, &namespace);
    let answer = writer.apply_status(&api, metadata, status).await;
    let before = metadata.resource_version.as_deref();
    context.view.write_ended(begun, made_by(&answer, before));
    match answer {
        Ok(Watched(Ok(written))) => {
            context.table.written(&written);
            Ok(Some(written))
        }
        Ok(Watched(Err(_))) => Ok(None),
        Err(error) if error.code() == Some(404) => Err(ActError::ObjectGone),
        Err(error) if error.code() == Some(409) => Err(ActError::Changed),
        Err(source) => Err(ActError::of(ApiRequest::Status, source)),
    }
}
