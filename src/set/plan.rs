//! What a set does next: which memberships it creates, changes and deletes. Pure, and checked for every case
//! (`tests/unit/set_plan.rs`).
//!
//! A membership is deleted only on evidence. Nothing goes because something is missing from a list.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::ecs::{SecurityGroupId, Target};
use crate::kubernetes::ObjectUid;

use super::member::{Member, Policies, State};
use super::select::Standing;

/// What a set wants of its memberships.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The group of its spec.
    pub group: &'a SecurityGroupId,
    /// The policies of its spec.
    pub policies: Policies,
    /// The targets that it picks.
    pub picked: &'a BTreeSet<Target>,
}

/// Why a membership is deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Its target is not selected any more.
    NotSelected,
    /// Its target has had no Node, or was not listed by the cloud, for five minutes.
    Gone,
    /// Its target is a member of the group of the spec.
    Replaced,
}

/// A membership that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deletion {
    /// The membership.
    pub member: Arc<Member>,
    /// Why it goes.
    pub why: Why,
    /// The membership that replaces it: it goes only while that one is Ready.
    pub replaced_by: Option<ObjectUid>,
}

/// What a set does next, and what it found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// Targets that get a membership of the group of the spec.
    pub create: Vec<Target>,
    /// Number of targets whose membership cannot be created yet: an object that is about to go has its name.
    pub held: usize,
    /// Memberships whose policies are put back.
    pub change: Vec<Arc<Member>>,
    /// Memberships that go.
    pub delete: Vec<Deletion>,
    /// Whether the selector picks nothing although targets of the set still exist.
    pub nothing_selected: bool,
    /// Picked targets that are members.
    pub ready: usize,
    /// Picked targets that the cloud does not list.
    pub not_found: usize,
    /// Why somebody must act, with the number of memberships: of picked targets, and of those that should go.
    pub stalled: BTreeMap<Arc<str>, usize>,
    /// Picked targets for which somebody must act.
    pub stalled_targets: usize,
    /// Memberships beside the current ones of picked targets that are going or to go, those that wait for evidence not counted.
    pub going: usize,
}

/// The plan for these memberships of the set; `standing` tells what is known of a target.
#[must_use]
pub fn plan(
    wanted: Wanted<'_>,
    members: &[Arc<Member>],
    standing: impl Fn(&Target) -> Standing,
) -> Plan {
    let mut plan = Plan::default();
    let of_group = |member: &&Arc<Member>| member.group == *wanted.group;
    let mut current: BTreeMap<&Target, &Arc<Member>> = BTreeMap::new();
    for member in members.iter().filter(of_group) {
        // Of two on one edge, the one that stays counts.
        let known = current.entry(&member.target).or_insert(member);
        if known.deleting && !member.deleting {
            *known = member;
        }
    }
    for target in wanted.picked {
        match current.get(target) {
            // One that is still being deleted has the name. Its end wakes the set.
            Some(member) => plan.count(member),
            None => plan.create.push(target.clone()),
        }
    }
    let exists = |member: &Arc<Member>| still_exists(member, standing(&member.target));
    plan.nothing_selected = wanted.picked.is_empty()
        && members
            .iter()
            .any(|member| !member.deleting && exists(member));
    for member in members {
        let ready = current.get(&member.target);
        let ready = ready.filter(|current| current.is_ready());
        plan.judge(member, wanted, standing(&member.target), ready.copied());
    }
    plan
}

/// Whether the target of a membership is still there, as far as is known.
fn still_exists(member: &Member, standing: Standing) -> bool {
    match standing {
        Standing::Picked | Standing::NotSelected | Standing::New | Standing::Unknown => true,
        Standing::Missing | Standing::Gone => member.state != State::TargetNotFound,
    }
}

impl Plan {
    /// Creates no membership whose name is taken. Its end starts the next pass.
    pub fn hold_back(&mut self, is_taken: impl Fn(&Target) -> bool) {
        let before = self.create.len();
        self.create.retain(|target| !is_taken(target));
        self.held = before - self.create.len();
    }

    /// Counts the membership of a picked target.
    fn count(&mut self, member: &Member) {
        match &member.state {
            State::Ready => self.ready += 1,
            State::TargetNotFound => self.not_found += 1,
            State::Stalled(reason) => {
                self.stalled_targets += 1;
                *self.stalled.entry(Arc::clone(reason)).or_default() += 1;
            }
            State::Pending => {}
        }
    }

    /// What becomes of one membership; `ready` is that of its target for the group of the spec, if it is Ready.
    fn judge(
        &mut self,
        member: &Arc<Member>,
        wanted: Wanted<'_>,
        standing: Standing,
        ready: Option<&Arc<Member>>,
    ) {
        let is_current = member.group == *wanted.group;
        let why = match standing {
            Standing::Picked if is_current => None,
            Standing::Picked if ready.is_some() => Some(Why::Replaced),
            Standing::Picked | Standing::New | Standing::Missing | Standing::Unknown => None,
            Standing::NotSelected | Standing::Gone if self.nothing_selected => None,
            Standing::NotSelected => Some(Why::NotSelected),
            Standing::Gone => Some(Why::Gone),
        };
        let is_left_over = standing != Standing::Picked || !is_current;
        // What the cloud does not list is in no group: it is kept, and does not hold up the set.
        let waits = standing == Standing::Picked && member.state != State::TargetNotFound;
        let is_to_go = member.deleting || why.is_some() || waits;
        self.going += usize::from(is_left_over && is_to_go);
        if member.deleting {
            if let (true, State::Stalled(reason)) = (is_left_over, &member.state) {
                *self.stalled.entry(Arc::clone(reason)).or_default() += 1;
            }
            return;
        }
        if let Some(why) = why {
            let replaced_by = ready.filter(|_| why == Why::Replaced);
            self.delete.push(Deletion {
                member: Arc::clone(member),
                why,
                replaced_by: replaced_by.map(|ready| ready.uid.clone()),
            });
        }
        if member.policies != wanted.policies {
            self.change.push(Arc::clone(member));
        }
    }
}
