//! Whether the object of a pass may use its account, and with its target. Reads memory only.

use std::sync::Arc;

use kube::ResourceExt as _;

use crate::account::key::AccountKey;
use crate::ecs::{Edge, TargetDescription};

use super::access::{access, access_view, claim};
use super::act::ActError;
use super::context::Context;
use super::decide::{AccessView, TargetView};
use super::object::account_key;
use super::observe::Pass;

impl Pass {
    /// Sees whether the object may use its account by now, and, where the grants ask for tags, with its target.
    ///
    /// # Errors
    /// The account is one of another cloud, or has other endpoints: the pass would call the former ones.
    pub(super) fn renew_access(&mut self, context: &Context) -> Result<(), ActError> {
        let claim = claim(self.object(), context);
        let (access, problem) = access(
            self.object(),
            &self.edge,
            claim.as_ref(),
            self.observed.claim,
            context,
        );
        self.observed.account = access_view(&access);
        self.account_problem = problem;
        self.target_tags = access.target_tags().cloned();
        self.check_tags();
        match (access.session(), &self.account) {
            (Some(session), Some(own)) if !Arc::ptr_eq(&session, own) => Err(ActError::Changed),
            _ => Ok(()),
        }
    }

    /// A target that has the tags of no grant, and one that is not listed, are not granted: the message does not say which of both it is.
    pub(super) fn check_tags(&mut self) {
        let Some(wanted) = &self.target_tags else {
            return;
        };
        let is_granted = match self.observed.target {
            TargetView::Unread | TargetView::Unreadable(_) => return,
            TargetView::Absent => false,
            TargetView::Unsuitable | TargetView::Present { .. } => {
                let tags = self.description.as_ref().map(|seen| seen.tags.by_key());
                tags.is_some_and(|tags| wanted.allow(tags))
            }
        };
        if !is_granted {
            let namespace = self.object().namespace().unwrap_or_default();
            let account = account_key(&self.object().spec, &namespace);
            self.observed.account = AccessView::NotGranted;
            self.account_problem = no_grant_for_target(&account, &namespace, &self.edge);
        }
    }

    /// The description for users: who has no grant learns nothing of the target.
    pub(super) fn told_description(&self) -> Option<&TargetDescription> {
        let is_told = self.observed.account != AccessView::NotGranted;
        self.description.as_ref().filter(|_| is_told)
    }
}

/// What the status says where no grant is for targets with the tags of this one.
pub(super) fn no_grant_for_target(account: &AccountKey, namespace: &str, edge: &Edge) -> String {
    let Edge { group, target, .. } = edge;
    format!(
        "no grant of {account} lets namespace {namespace} use {group} with {target}; ask the account's administrator which tags the target must have, or to add a grant in spec.grants"
    )
}
