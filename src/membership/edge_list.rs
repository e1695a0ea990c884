//! Lists the objects on one edge, where what the watches have shown may be too old for a Leave. Reads only.

use std::time::Duration;

use kube::Api;
use kube::api::ListParams;
use kube::core::ObjectList;

use crate::ecs::{Edge, Target};
use crate::kubernetes::{self, WatchScope};

use super::act::ActError;
use super::context::Context;
use super::decide::EdgeView;
use super::object::Object;
use super::observe::Pass;
use super::table::ObjectView;
use super::view::EdgeList;

/// Longest wait for all pages of one list (10 s).
const LIST_DEADLINE: Duration = Duration::from_secs(10);

impl Pass {
    /// Lists the objects on the edge. The object itself must still be there, and be as this pass knows it: a user may have changed its
    /// spec, or have removed our finalizer, and the watch may be silent. An unreleased one must not be there.
    ///
    /// # Errors
    /// It is not so.
    pub async fn list_edge(&mut self, context: &Context) -> Result<(), ActError> {
        let objects = match list(&self.edge, context).await {
            Ok(objects) => objects,
            Err(error) => {
                self.not_listed = Some(error.to_string());
                self.observed.view = EdgeView::Unlisted;
                return Ok(());
            }
        };
        let uid = self.uid();
        let own = objects.iter().find(|listed| listed.uid == uid);
        match own.map(|own| self.is_known_as(own)) {
            None if self.is_unreleased => {}
            // It is there. If the watch shows that already, the row is of the object as it is there.
            Some(_) if self.is_unreleased => {
                if context.table.is_unreleased(&uid) == Some(true) {
                    context.forget(&uid);
                }
                return Err(ActError::ObjectGone);
            }
            Some(true) => {}
            Some(false) => return Err(ActError::Changed),
            None => return Err(ActError::ObjectGone),
        }
        let is_other = |listed: &ObjectView| {
            // An object of a namespace that is not watched counts only with a record.
            let is_watched = context.is_watched(&listed.namespace);
            listed.uid != uid && (is_watched || listed.record().is_some())
        };
        let others = objects.into_iter().filter(is_other);
        self.listed = Some(EdgeList::new(others.collect()));
        self.observed.view = EdgeView::Fresh;
        self.renew_others(context);
        Ok(())
    }

    /// Whether the object asks for the same as when this pass began, and has our finalizer if it had it then.
    pub(super) fn is_known_as(&self, own: &ObjectView) -> bool {
        let asks_the_same = own.readable && own.desired() == Some(self.desired);
        asks_the_same && own.finalizer == self.observed.finalizer
    }
}

/// The objects on an edge, in all namespaces if the operator may list them, otherwise in the watched ones.
async fn list(edge: &Edge, context: &Context) -> Result<Vec<ObjectView>, kubernetes::Error> {
    let params = ListParams::default().fields(&selector(edge));
    if context.may_list_all() {
        match list_in(&WatchScope::All, edge, &params, context).await {
            Err(error) if error.code() == Some(403) && !context.watches_all() => {
                context.all_refused();
            }
            listed => return listed,
        }
    }
    let mut objects = Vec::new();
    for scope in &context.scopes {
        objects.extend(list_in(scope, edge, &params, context).await?);
    }
    Ok(objects)
}

async fn list_in(
    scope: &WatchScope,
    edge: &Edge,
    params: &ListParams,
    context: &Context,
) -> Result<Vec<ObjectView>, kubernetes::Error> {
    let api: Api<Object> = scope.api(&context.client);
    let on_edge =
        |object: &Object| ObjectView::of_listed(object).filter(|view| view.edge() == Some(edge));
    let pages = async {
        let mut page = params.clone().limit(kubernetes::PAGE);
        let mut found = Vec::new();
        loop {
            let list: ObjectList<Object> = api.list(&page).await?;
            found.extend(list.items.iter().filter_map(on_edge));
            // An empty token is none.
            match list.metadata.continue_.as_deref() {
                None | Some("") => return Ok(found),
                Some(token) => page = page.continue_token(token),
            }
        }
    };
    kubernetes::within(LIST_DEADLINE, pages).await
}

/// Selects the objects that name the target and the group.
fn selector(edge: &Edge) -> String {
    let (field, id) = match &edge.target {
        Target::Instance(id) => ("instanceID", id.as_str()),
        Target::NetworkInterface(id) => ("networkInterfaceID", id.as_str()),
    };
    let group = edge.group.as_str();
    format!("spec.{field}={id},spec.securityGroupID={group}")
}
