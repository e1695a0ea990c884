//! Writes finalizer and intent: the marks of our field manager. One write to the API server each.

use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Map, Value, json};

use crate::api::{CLAIM_MANAGER, FINALIZER, INTENT_ANNOTATION, SecurityGroupMembership};
use crate::kubernetes::writer::{ApiWriter, WriteTurn};
use crate::kubernetes::{self, ObjectUid};
use crate::watched::Watched;

use super::super::context::Context;
use super::super::decide::{Attempt, ClaimView};
use super::super::history::{ClaimEvent, History};
use super::super::object::{Intent, Object, has_finalizer, may_have_intent};
use super::super::observe::Pass;
use super::super::other_operator;
use super::error::{ActError, ApiRequest};
use super::stored::{TRIES, in_view};

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
        let void = |history: &mut History| history.learns(ClaimEvent::Intended);
        // If no answer comes, the intent that appears is this one, unless a process before this one may have written another.
        if self.observed.claim == ClaimView::None && context.table.acts_alone() {
            context.table.history(&uid, void);
        }
        self.write_marks(Some(&intent), context).await?;
        // The claim is void until a Join under it may have had an effect.
        context.table.history(&uid, void);
        self.observed.claim = ClaimView::Intent { void: true };
        self.call_successors(context);
        Ok(())
    }

    /// Writes the finalizer and the intent of the claim again.
    ///
    /// # Errors
    /// The stored object differs, or the API server did not answer.
    pub async fn confirm(&mut self, context: &Context) -> Result<(), ActError> {
        let account = self.account_uid.as_ref();
        let intent = match self.observed.claim {
            ClaimView::None | ClaimView::Adopted => None,
            ClaimView::Intent { .. } | ClaimView::Joined { .. } => {
                account.map(|account| Intent::new(&self.uid(), account))
            }
        };
        self.write_marks(intent.as_ref(), context).await
    }

    /// Writes the finalizer alone, if that changes anything: the edge was there before. The status records it after that.
    ///
    /// # Errors
    /// The API server did not accept the write.
    pub async fn adopt(&mut self, context: &Context) -> Result<(), ActError> {
        if may_have_intent(self.object()) || !self.observed.finalizer {
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
    /// joined or repaired.
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

fn has_marks(object: &SecurityGroupMembership) -> bool {
    has_finalizer(object) || object.annotations().contains_key(INTENT_ANNOTATION)
}

/// What the operator's field manager owns of an object.
#[derive(Clone, Copy)]
pub(super) enum Marks<'a> {
    /// The finalizer, with an intent or without one.
    Held(Option<&'a Intent>),
    /// Neither.
    Removed,
}

/// Applies the marks of our field manager. `metadata.uid` keeps the apply from creating a deleted object again. With `version`, only
/// if that version is still stored.
pub(super) async fn write_marks(
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
    let uid = ObjectUid::of(object).unwrap_or_default();
    let is_first_intent = matches!(marks, Marks::Held(Some(_)))
        && context.table.history(&uid, History::intends) == Some(true);
    let apply = async |turn: WriteTurn<'_>| turn.apply(&api, &name, CLAIM_MANAGER, &patch).await;
    let answer = in_view(&object.metadata, version.as_deref(), writer, context, apply).await;
    match answer {
        Ok(Watched(Ok(written))) => {
            context.table.written(&written);
            Ok(written)
        }
        // A user has made the object unreadable in the meantime.
        Ok(Watched(Err(_))) => Err(ActError::Changed),
        // 409 for a deleted object (an apply with a UID creates nothing), or the API server gave up on concurrent writes.
        Err(error) if error.code() == Some(409) => {
            if is_first_intent {
                other_operator::notice_conflict(object, &uid, context);
            }
            Err(ActError::Changed)
        }
        Err(source) => Err(ActError::of(what, source)),
    }
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
    let merge = async |turn: WriteTurn<'_>| turn.merge(&api, &name, &patch).await;
    let before = object.metadata.resource_version.as_deref();
    let answer = in_view(&object.metadata, before, writer, context, merge).await;
    match answer {
        Ok(Watched(Ok(written))) => {
            context.table.written(&written);
            Ok(Some(written))
        }
        Ok(Watched(Err(_))) => Ok(None),
        Err(source) => Err(failed(source)),
    }
}
