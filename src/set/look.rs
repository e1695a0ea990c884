//! What a set finds when it looks: whether it may use its account, what it selects, and what it does next.

use std::collections::HashMap;
use std::time::Duration;

use kube::ResourceExt as _;
use tokio::time::Instant;

use crate::account::key::AccountKey;
use crate::api::SecurityGroupMembershipSet;
use crate::ecs::{Region, SecurityGroupId, Target};
use crate::kubernetes::ObjectUid;

use super::access::{self, NotChecked};
use super::context::Context;
use super::member::{Policies, name_of};
use super::plan::{Plan, Wanted, plan};
use super::refusal::Refusal;
use super::select::{Selection, Standing};
use super::selected::{Selected, select};

/// When a set looks again that the API server or another object refuses, or whose namespace is being deleted (5 minutes). The operator
/// reads the tags of a group only while somebody asks for them.
pub(super) const AFTER_REFUSAL: Duration = Duration::from_secs(5 * 60);

/// What a set finds.
pub(super) struct Looked {
    /// What it does next.
    pub plan: Plan,
    pub selection: Selection,
    /// What keeps it from its work.
    pub refusal: Option<Refusal>,
    /// When it looks again if nothing else enqueues it.
    pub wait: Option<Duration>,
}

/// What a set finds now. `None` until it can be known what it selects: a list enqueues the set.
///
/// # Errors
/// The account has not been checked yet.
pub(super) fn look(
    set: &SecurityGroupMembershipSet,
    uid: &ObjectUid,
    place: (&Region, &SecurityGroupId),
    context: &Context,
) -> Result<Option<Looked>, NotChecked> {
    let account = access(set, place, context)?;
    let again = account.is_some().then_some(AFTER_REFUSAL);
    let Some((selection, refusal)) = selection(set, uid, place.0, account, context) else {
        return Ok(None);
    };
    let (plan, more) = plan_by(set, uid, place, &selection, context);
    Ok(Some(Looked {
        plan,
        selection,
        refusal,
        wait: earlier(again, more),
    }))
}

/// Whether the set may use its account for its group.
fn access(
    set: &SecurityGroupMembershipSet,
    place: (&Region, &SecurityGroupId),
    context: &Context,
) -> Result<Option<Refusal>, NotChecked> {
    let namespace = set.namespace().unwrap_or_default();
    let account = AccountKey::of(&set.spec.account_ref, &namespace);
    let request = access::request(&set.spec, &account, &namespace, place);
    access::refusal(&context.directory.resolve(request), request)
}

/// What a set selects, and what keeps it from its work. `None` until that can be known: a list enqueues the set.
fn selection(
    set: &SecurityGroupMembershipSet,
    uid: &ObjectUid,
    region: &Region,
    account: Option<Refusal>,
    context: &Context,
) -> Option<(Selection, Option<Refusal>)> {
    let may_read = account.is_none() && !set.spec.suspend;
    match select(set, uid, region, may_read, context) {
        Selected::Known(selection, trouble) => Some((selection, account.or(trouble))),
        Selected::Unknown(refusal) => Some((Selection::unknown(), account.or(Some(refusal)))),
        Selected::NotYet if may_read => None,
        Selected::NotYet => Some((Selection::unknown(), account)),
    }
}

/// The plan of a set, and when more of it will be known without an event.
fn plan_by(
    set: &SecurityGroupMembershipSet,
    uid: &ObjectUid,
    (region, group): (&Region, &SecurityGroupId),
    selection: &Selection,
    context: &Context,
) -> (Plan, Option<Duration>) {
    let namespace = set.namespace().unwrap_or_default();
    let members = context.members.of(&namespace, uid);
    let (now, moment) = (context.clock.now().as_second(), Instant::now());
    let mut standings: HashMap<&Target, Standing> = HashMap::new();
    let missing = context.remember(uid, |memory| {
        memory.begin(set.metadata.generation);
        for member in &members {
            let target = &member.target;
            let missing_for = || memory.missing.missing_for(target, moment);
            let standing = selection.standing(target, now, missing_for);
            standings.insert(target, standing);
        }
        memory.missing.keep(|target| {
            let standing = standings.get(target);
            matches!(standing, Some(Standing::Missing | Standing::Gone))
        });
        memory.missing.next(moment)
    });
    let new = standings
        .iter()
        .filter(|(_, standing)| **standing == Standing::New)
        .filter_map(|(target, _)| selection.counts_at(target))
        .min();
    let new = new.map(|at| Duration::from_secs(u64::try_from(at - now).unwrap_or_default()));
    let wanted = Wanted {
        group,
        policies: Policies::of_set(&set.spec),
        picked: &selection.picked,
    };
    let standing = |target: &Target| standings.get(target).copied().unwrap_or(Standing::Unknown);
    let mut plan = plan(wanted, &members, standing);
    if !plan.create.is_empty() {
        let names = context.members.names_of_others(&namespace, uid);
        let name = |target: &Target| name_of(&set.name_any(), region, target, group);
        plan.hold_back(|target| names.contains(&name(target)));
    }
    (plan, earlier(missing, new))
}

/// The earlier of two waits.
pub(super) fn earlier(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    a.into_iter().chain(b).min()
}
