//! The stored object, as far as a write depends on it.

use kube::api::ObjectMeta;
use kube::{Api, Resource as _, ResourceExt as _};

use crate::api::SecurityGroupMembership;
use crate::api::membership::SecurityGroupMembershipStatus;
use crate::kubernetes::writer::{ApiWriter, WriteTurn};
use crate::kubernetes::{self, ObjectUid};
use crate::watched::Watched;

use super::super::context::Context;
use super::super::object::{Claim, Object};
use super::super::observe::Pass;
use super::super::status;
use super::super::view::{self, Made};
use super::error::{ActError, ApiRequest};

/// How often a write under a version is tried when only annotations of others have changed.
pub(super) const TRIES: usize = 3;

impl Pass {
    /// The version of the stored object, if a pass over it would decide and say the same.
    pub(super) async fn same_but_newer(
        &self,
        context: &Context,
    ) -> Result<Option<String>, ActError> {
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
}

/// What operators have written of the status.
fn our_part(object: &SecurityGroupMembership) -> SecurityGroupMembershipStatus {
    status::our_part(&object.status.clone().unwrap_or_default())
}

/// Another object as it is stored.
pub(super) enum Stored {
    Found(Box<SecurityGroupMembership>),
    /// Deleted, or another object has its name.
    Gone,
    Unreadable,
}

pub(super) async fn read_stored(
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

/// Makes a write when it is its turn, and tells the view when it began and what it has made. `before` is the version that it is made
/// under, if any.
pub(super) async fn in_view(
    metadata: &ObjectMeta,
    before: Option<&str>,
    writer: &ApiWriter,
    context: &Context,
    write: impl AsyncFnOnce(WriteTurn<'_>) -> Result<Object, kubernetes::Error>,
) -> Result<Object, kubernetes::Error> {
    let uid = metadata.uid.as_deref().unwrap_or_default().into();
    let namespace = metadata.namespace.as_deref().unwrap_or_default();
    let turn = writer.turn().await?;
    // Not before: with 8 writes in flight and a busy API server, the wait alone makes the view too old.
    let begun = context.view.write_began(uid, namespace);
    let answer = write(turn).await;
    context.view.write_ended(begun, made_by(&answer, before));
    answer
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
