//! Writes the status, and the record in it.

use kube::api::ObjectMeta;
use kube::{Api, Resource as _, ResourceExt as _};
use serde::Serialize;
use serde_json::{Value, json};

use crate::api::SecurityGroupMembership;
use crate::api::membership::{Origin, SecurityGroupMembershipStatus};
use crate::ecs::AccountUid;
use crate::kubernetes;
use crate::kubernetes::writer::{ApiWriter, WriteTurn};
use crate::watched::Watched;

use super::super::context::Context;
use super::super::decide::ClaimView;
use super::super::history::{ClaimEvent, History};
use super::super::object::{Claim, Object, own_status};
use super::super::observe::Pass;
use super::super::status::foreign_conditions;
use super::error::{ActError, ApiRequest};
use super::stored::{TRIES, in_view};

impl Pass {
    /// Writes the record `Joined` to the object's own status. That of an object that is gone is kept in memory.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn record(&mut self, context: &Context) -> Result<(), ActError> {
        if self.is_unreleased {
            let uid = self.uid();
            if let Some(account) = &self.account_uid {
                context.table.history(&uid, |history: &mut History| {
                    history.learns(ClaimEvent::Joined);
                    history.joins_with(account);
                });
            }
            self.observed.claim = ClaimView::Joined { void: false };
            return Ok(());
        }
        let status = with_joined(self.object(), self.account_uid.as_ref());
        let written = self.write_status(&status, context).await?;
        // An older CRD drops the record. The hand-over, for which it is written, finds that out.
        self.written(written.ok_or(ActError::Changed)?);
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
        let uid = self.uid();
        if status.origin == Some(Origin::Joined) {
            context.table.history(&uid, History::record_is_sent);
        }
        let written = self.try_write_status(status, context).await?;
        context.table.history(&uid, History::status_is_stored);
        Ok(written)
    }

    async fn try_write_status(
        &self,
        status: &SecurityGroupMembershipStatus,
        context: &Context,
    ) -> Result<Option<SecurityGroupMembership>, ActError> {
        let writer = self.writer(context);
        let mut metadata = without_foreign_status(self.object(), &writer, context).await?;
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
}

/// Whether the API server shows the record `Joined`: an older CRD drops it.
pub(super) fn is_recorded_as_joined(object: &SecurityGroupMembership) -> bool {
    Claim::of(object).and_then(|claim| claim.record()) == Some(Origin::Joined)
}

/// The object's status with the record `Joined`.
pub(super) fn with_joined(
    object: &SecurityGroupMembership,
    account: Option<&AccountUid>,
) -> SecurityGroupMembershipStatus {
    SecurityGroupMembershipStatus {
        origin: Some(Origin::Joined),
        object_uid: object.uid(),
        account_uid: account.map(|uid| uid.as_str().to_owned()),
        ..own_status(object).cloned().unwrap_or_default()
    }
}

/// A status that tells of another object, as a backup tool restores it.
fn foreign_status(object: &SecurityGroupMembership) -> Option<&SecurityGroupMembershipStatus> {
    let foreign = own_status(object).is_none();
    object.status.as_ref().filter(|_| foreign)
}

/// Takes a status out that tells of another object. Returns the metadata after that.
pub(super) async fn without_foreign_status(
    object: &SecurityGroupMembership,
    writer: &ApiWriter,
    context: &Context,
) -> Result<ObjectMeta, ActError> {
    match foreign_status(object) {
        Some(foreign) => take_out(object, foreign, writer, context).await,
        None => Ok(object.metadata.clone()),
    }
}

/// Takes out what an operator has written of another object: a server-side apply would leave what the field manager of the backup tool
/// owns, and make that record this object's. Returns the metadata after that.
async fn take_out(
    object: &SecurityGroupMembership,
    foreign: &SecurityGroupMembershipStatus,
    writer: &ApiWriter,
    context: &Context,
) -> Result<ObjectMeta, ActError> {
    let Value::Object(mut status) = json!(foreign) else {
        return Err(ActError::Changed);
    };
    for value in status.values_mut() {
        *value = Value::Null;
    }
    status.insert("conditions".to_owned(), json!(foreign_conditions(foreign)));
    let metadata = &object.metadata;
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let api: Api<Object> = Api::namespaced(context.client.clone(), &namespace);
    let patch = json!({
        "metadata": {"uid": metadata.uid, "resourceVersion": metadata.resource_version},
        "status": status,
    });
    let name = object.name_any();
    let merge = async |turn: WriteTurn<'_>| turn.json_merge_status(&api, &name, &patch).await;
    let before = metadata.resource_version.as_deref();
    match in_view(metadata, before, writer, context, merge).await {
        Ok(written) => Ok(written.meta().clone()),
        Err(error) => Err(refused(error)),
    }
}

/// What an answer to a write of a status is that stored nothing.
fn refused(error: kubernetes::Error) -> ActError {
    match error.code() {
        Some(404) => ActError::ObjectGone,
        Some(409) => ActError::Changed,
        Some(_) | None => ActError::of(ApiRequest::Status, error),
    }
}

/// Writes a status under the version of `metadata`. Returns the object, if it is readable.
pub(in super::super) async fn write_status(
    metadata: &ObjectMeta,
    status: &impl Serialize,
    writer: &ApiWriter,
    context: &Context,
) -> Result<Option<SecurityGroupMembership>, ActError> {
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let api: Api<Object> = Api::namespaced(context.client.clone(), &namespace);
    let apply = async |turn: WriteTurn<'_>| turn.apply_status(&api, metadata, status).await;
    let before = metadata.resource_version.as_deref();
    let answer = in_view(metadata, before, writer, context, apply).await;
    match answer {
        Ok(Watched(Ok(written))) => {
            context.table.written(&written);
            Ok(Some(written))
        }
        Ok(Watched(Err(_))) => Ok(None),
        Err(error) => Err(refused(error)),
    }
}
