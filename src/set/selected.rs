//! What the selector of a set says now: reads what the watches and the lists of the cloud have shown. Has the cloud read for sets that
//! select by tags.

use std::collections::BTreeMap;

use kube::ResourceExt as _;

use crate::account::key::AccountKey;
use crate::api::SecurityGroupMembershipSet;
use crate::ecs::{Region, Target};
use crate::kubernetes::ObjectUid;
use crate::nodes::Listed;

use super::context::Context;
use super::refusal::Refusal;
use super::select::Selection;
use super::tags::Query;

/// What the selector of a set says now.
pub(super) enum Selected {
    /// With what keeps it from being all.
    Known(Selection, Option<Refusal>),
    /// It cannot be known.
    Unknown(Refusal),
    /// Nodes or instances have not been listed yet. Their list enqueues the set.
    NotYet,
}

/// What the selector of a set says; a set that `may_read` has the cloud read for it.
pub(super) fn select(
    set: &SecurityGroupMembershipSet,
    uid: &ObjectUid,
    region: &Region,
    may_read: bool,
    context: &Context,
) -> Selected {
    match &set.spec.instance_tags {
        Some(tags) if may_read => return select_by_tags(set, uid, region, tags, context),
        Some(_) | None => context.tags.forget(uid),
    }
    if set.spec.instance_tags.is_some() {
        return Selected::NotYet;
    }
    if let Some(selection) = Selection::of_list(&set.spec) {
        return Selected::Known(selection, None);
    }
    context.nodes.look(|nodes, listed| match listed {
        Listed::Not => Selected::NotYet,
        Listed::Failed(cause) => Selected::Unknown(Refusal::NodesUnread(cause.clone())),
        Listed::Forbidden(answer) => Selected::Unknown(Refusal::Nodes(answer.clone())),
        Listed::All | Listed::Interrupted(_) => {
            let nodes = nodes.values();
            let selection = Selection::of_nodes(&set.spec, region, nodes, listed);
            let trouble = listed.trouble().cloned();
            Selected::Known(selection, trouble.map(Refusal::NodesUnwatched))
        }
    })
}

fn select_by_tags(
    set: &SecurityGroupMembershipSet,
    uid: &ObjectUid,
    region: &Region,
    tags: &BTreeMap<String, String>,
    context: &Context,
) -> Selected {
    let namespace = set.namespace().unwrap_or_default();
    let account = AccountKey::of(&set.spec.account_ref, &namespace);
    // The end of its check enqueues the set.
    let Some(cloud) = context.directory.cloud(&account) else {
        return Selected::NotYet;
    };
    let query = Query {
        account,
        cloud,
        region: region.clone(),
        tags: tags.clone(),
    };
    let has_members = || {
        let members = context.members.of(&namespace, uid);
        members
            .iter()
            .any(|member| matches!(member.target, Target::Instance(_)))
    };
    let name = (namespace.clone(), set.name_any());
    let tagged = context.tags.select(uid, name, query);
    tagged.map_or(Selected::NotYet, |tagged| {
        let trouble = tagged.trouble.clone();
        // A set without memberships of instances misses none.
        let concerns = |trouble: &Refusal| match trouble {
            Refusal::NothingShown(_) => has_members(),
            _ => true,
        };
        Selected::Known(Selection::of_tags(tagged), trouble.filter(concerns))
    })
}
