//! Hands ownership over to another object that holds the membership.

use kube::ResourceExt as _;

use crate::api::SecurityGroupMembership;
use crate::ecs::AccountUid;
use crate::kubernetes::writer::ApiWriter;

use super::super::context::Context;
use super::super::decide::{Attempt, EdgeView};
use super::super::history::{ClaimEvent, History};
use super::super::object::has_finalizer;
use super::super::observe::Pass;
use super::super::table::ObjectView;
use super::error::ActError;
use super::marks::{Marks, write_marks};
use super::status::{is_recorded_as_joined, with_joined, without_foreign_status, write_status};
use super::stored::{Stored, read_stored};

impl Pass {
    /// Writes the record `Joined` to the oldest other holder: from record to record. The holder is read first, gets our finalizer
    /// where it has none, and then its own status with the record, under the version that was read. That proves that it is there
    /// and is not being deleted. The object itself is read before that, if the watch may be silent.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn hand_over(&mut self, context: &Context) -> Result<(), ActError> {
        let Some(successor) = self.others.holders.first().cloned() else {
            return Ok(());
        };
        if self.observed.view != EdgeView::Fresh && !self.is_unreleased {
            self.still_asks_the_same(context).await?;
        }
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
            Ok(Stored::Found(object)) if may_own(&object) => {
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
            // What this object has joined may be there although an earlier read did not show it.
            context
                .table
                .history(&successor.uid, |history: &mut History| {
                    history.learns(ClaimEvent::HandedOver);
                });
            self.observed.attempt = Attempt::HandedOver;
            context.queue.enqueue(&reference);
        } else {
            self.others.dismissed.push(successor.uid);
            self.renew_others(context);
        }
        Ok(())
    }

    /// The object as it is stored must ask for what this pass knows: a user may have said since that the membership stays.
    async fn still_asks_the_same(&self, context: &Context) -> Result<(), ActError> {
        let object = self.object();
        let namespace = object.namespace().unwrap_or_default();
        let stored = read_stored(&self.uid(), &namespace, &object.name_any(), context).await?;
        let is_known = |own: ObjectView| self.is_known_as(&own);
        match stored {
            Stored::Found(stored) if ObjectView::of(&stored).is_some_and(is_known) => Ok(()),
            Stored::Found(_) | Stored::Unreadable => Err(ActError::Changed),
            Stored::Gone => Err(ActError::ObjectGone),
        }
    }
}

/// Whether an object, as it is stored now, may own a membership. The watch may be silent since a user changed it.
fn may_own(object: &SecurityGroupMembership) -> bool {
    ObjectView::of(object).is_some_and(|view| view.may_own())
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
    let metadata = without_foreign_status(&successor, writer, context).await?;
    match write_status(&metadata, &status, writer, context).await {
        Ok(Some(written)) if is_recorded_as_joined(&written) => Ok(true),
        Ok(Some(_)) => Err(ActError::RecordNotStored),
        // A user has made it unreadable in the meantime.
        Ok(None) => Err(ActError::Changed),
        Err(ActError::ObjectGone) => Ok(false),
        Err(error) => Err(error),
    }
}
