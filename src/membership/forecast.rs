//! What a pass over an object would do and say, without doing it; long because it stands for every step of a pass. Pure.
//!
//! [`decide`] is asked again and again, with every step taken as done.
//!
//! A forecast knows no history: it takes every read as one that counts, and every call as answered. It foresees the refusals that a
//! description of the target shows, and no other.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::account::directory::TargetTags;
use crate::account::directory::grants::{Granted, Grants, Use, granted};
use crate::account::directory::group_tags::GroupTags;
use crate::account::directory::{Access, AccessRequest};
use crate::api::membership::{AdoptionPolicy, ManagementPolicy, Origin};
use crate::api::{SecurityGroupMembership, SecurityGroupMembershipStatus, reason};
use crate::condition;
use crate::ecs::{AccountUid, Action, ApiError, Class, Edge, Error, TargetDescription};
use crate::kubernetes::ObjectUid;

use super::access::{access_view, claim_view, wanted_action};
use super::decide::{
    AccessView, Attempt, ClaimView, Desired, EdgeView, Elsewhere, Holder, Observed, REPAIR_LIMIT,
    ReadTrust, ReconcileOutcome, Release, Step, TargetView, decide,
};
use super::history::Standing;
use super::object::{Claim, account_key, desired, has_finalizer, is_unanswered};
use super::pass_access::no_grant_for_target;
use super::status::{self, StatusInput};
use super::target::target_view;

/// The account that an object names, as somebody beside the operator can know it.
#[derive(Clone, Debug)]
pub enum KnownAccount {
    /// There is none of that name.
    Missing,
    /// It is there.
    There {
        /// UID of its cloud account, if the operator has told one.
        uid: Option<AccountUid>,
        /// Why it cannot be used, and whether a person must act; `None` if it can be.
        trouble: Option<(String, bool)>,
        /// Which objects may use it.
        grants: Grants,
    },
    /// It cannot be read: it is taken as usable, and as granted.
    Unreadable,
}

/// What is known beside the object.
#[derive(Clone, Debug)]
pub struct Known<'a> {
    /// The account that the object names.
    pub account: &'a KnownAccount,
    /// Labels of the object's namespace; `None` if they are not known: then no selector of a grant selects it.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// The target; `None` if a complete answer does not list it.
    pub target: Option<&'a TargetDescription>,
    /// The other objects on the same edge.
    pub others: &'a [SecurityGroupMembership],
}

/// What a pass would do, and what it would say at its end.
#[derive(Clone, Debug)]
pub struct Forecast {
    /// The steps, without reads and waits, in their order.
    pub steps: Vec<Step>,
    /// How the pass would end.
    pub outcome: ReconcileOutcome,
    /// What the operator would own of the edge after it.
    pub claim: ClaimView,
    /// The status after it.
    pub status: SecurityGroupMembershipStatus,
}

impl Forecast {
    /// Whether the pass would call this step.
    #[must_use]
    pub fn does(&self, step: Step) -> bool {
        self.steps.contains(&step)
    }

    /// Why the pass would let a deleted object go; `None` if it would not.
    #[must_use]
    pub fn release(&self) -> Option<Release> {
        for step in &self.steps {
            if let Step::Release(why) = step {
                return Some(*why);
            }
        }
        None
    }
}

/// Most steps of a pass; more would be a bug in `decide`.
const STEPS: usize = 20;

/// What a pass over `object` would do. The target is taken as described.
#[must_use]
pub fn forecast(
    object: &SecurityGroupMembership,
    edge: &Edge,
    known: &Known<'_>,
    now: Timestamp,
) -> Forecast {
    let desired = desired(object);
    let mut world = World::begin(object, edge, known, desired);
    let mut steps = Vec::new();
    let mut outcome = ReconcileOutcome::Failed(Class::Transient);
    for _ in 0..STEPS {
        let step = decide(&desired, &world.observed);
        match step {
            Step::Finish(end) => {
                outcome = end;
                break;
            }
            Step::Read | Step::AwaitTurn | Step::ListEdge => {}
            Step::Intend
            | Step::Confirm
            | Step::Adopt
            | Step::DropClaim
            | Step::Join
            | Step::Leave
            | Step::Record
            | Step::HandOver
            | Step::Release(_) => steps.push(step),
        }
        world.take(step);
    }
    let status = world.status(outcome, now);
    Forecast {
        steps,
        outcome,
        claim: world.observed.claim,
        status,
    }
}

/// The observed state of a pass, and what its status is made of.
struct World<'a> {
    object: &'a SecurityGroupMembership,
    edge: &'a Edge,
    desired: Desired,
    observed: Observed,
    target: Option<&'a TargetDescription>,
    account_uid: Option<AccountUid>,
    problem: String,
    failure: Option<Error>,
}

impl<'a> World<'a> {
    fn begin(
        object: &'a SecurityGroupMembership,
        edge: &'a Edge,
        known: &Known<'a>,
        desired: Desired,
    ) -> Self {
        let uid = uid_of(known.account);
        let claim = Claim::of(object).filter(|claim| {
            let is_foreign = uid.is_some() && claim.account_uid() != uid.as_ref();
            claim.record().is_some() || !is_foreign
        });
        let claim_view = claim_view(claim.as_ref(), Standing::Unknown);
        let claimed = claim.as_ref().and_then(Claim::account_uid).cloned();
        let (account, problem) = access(object, edge, known, claimed.as_ref(), claim_view);
        let account_uid = claimed.or(uid);
        let (holder, elsewhere) = others(object, edge, known, account_uid.as_ref());
        let status = object.status.as_ref();
        let is_drifted = |status: &SecurityGroupMembershipStatus| {
            condition::is_true(&status.conditions, reason::DRIFTED)
        };
        let observed = Observed {
            account,
            claim: claim_view,
            finalizer: has_finalizer(object),
            confirmed: false,
            target: TargetView::Unread,
            trust: ReadTrust::Settled,
            join_is_open: false,
            holder,
            elsewhere,
            admitted: false,
            view: EdgeView::Fresh,
            attempt: Attempt::None,
            drifted: status.is_some_and(is_drifted),
            repairs: repairs(object),
            synced: true,
            karpenter: false,
        };
        Self {
            object,
            edge,
            desired,
            observed,
            target: known.target,
            account_uid,
            problem,
            failure: None,
        }
    }

    /// Takes a step as done.
    fn take(&mut self, step: Step) {
        let observed = &mut self.observed;
        match step {
            Step::Read => self.read(),
            Step::AwaitTurn => observed.admitted = true,
            Step::Intend => {
                observed.finalizer = true;
                observed.confirmed = true;
                observed.claim = ClaimView::Intent { void: true };
            }
            Step::Confirm => {
                observed.finalizer = true;
                observed.confirmed = true;
            }
            Step::Adopt => {
                observed.finalizer = true;
                observed.claim = ClaimView::Adopted;
            }
            Step::DropClaim => {
                observed.finalizer = false;
                observed.claim = ClaimView::None;
            }
            Step::Join => self.join(),
            Step::ListEdge => observed.view = EdgeView::Fresh,
            Step::Leave => self.leave(),
            Step::Record => observed.claim = ClaimView::Joined { void: false },
            Step::HandOver => observed.attempt = Attempt::HandedOver,
            Step::Release(_) => observed.attempt = Attempt::Released,
            Step::Finish(_) => {}
        }
    }

    fn read(&mut self) {
        let Some(description) = self.target else {
            self.observed.target = TargetView::Absent;
            return;
        };
        let is_recorded = self.observed.claim.record().is_some();
        let member = description.security_group_ids.contains(&self.edge.group);
        self.observed.target = target_view(&self.desired, is_recorded, member, description);
        self.observed.karpenter = description.karpenter;
        let is_suitable = self.observed.target != TargetView::Unsuitable;
        self.observed.drifted |= is_recorded && !member && is_suitable;
    }

    fn join(&mut self) {
        match self.refusal(Action::JoinSecurityGroup) {
            None => {
                self.observed.attempt = Attempt::Joined;
                self.observed.claim = ClaimView::Joined { void: false };
            }
            Some(error) => {
                self.observed.attempt = failed(&error);
                self.failure = Some(error);
            }
        }
    }

    fn leave(&mut self) {
        match self.refusal(Action::LeaveSecurityGroup) {
            None => self.observed.attempt = Attempt::Left,
            Some(error) => {
                self.observed.attempt = failed(&error);
                self.failure = Some(error);
            }
        }
    }

    /// The refusal that the description of the target foretells.
    fn refusal(&self, action: Action) -> Option<Error> {
        let target = self.target?;
        let is_locked = target.lock_reasons.iter().any(|lock| lock == "security");
        let is_last = action == Action::LeaveSecurityGroup
            && target.security_group_ids.len() == 1
            && target.security_group_ids.contains(&self.edge.group);
        let code = match (is_locked, is_last) {
            (true, _) => "InstanceLockedForSecurity",
            (false, true) => "InstanceLastSecurityGroup",
            (false, false) => return None,
        };
        Some(ApiError::foreseen(action, code).into())
    }

    fn status(&self, outcome: ReconcileOutcome, now: Timestamp) -> SecurityGroupMembershipStatus {
        let previous = self.object.status.clone().unwrap_or_default();
        let uid = ObjectUid::of(self.object).unwrap_or_default();
        let input = StatusInput {
            edge: self.edge,
            outcome,
            observed: &self.observed,
            deleting: self.desired.deleting,
            deletion: self.desired.deletion,
            description: self.target.filter(|_| {
                // Who has no grant learns nothing of the target.
                self.observed.account != AccessView::NotGranted
            }),
            failure: self.failure.as_ref(),
            account_problem: &self.problem,
            not_listed: None,
            waits_since: None,
            not_observed_after: None,
            held_for: Duration::ZERO,
            object_uid: &uid,
            docs_url: None,
            account_uid: self.account_uid.as_ref(),
            reconcile_requested_at: None,
            held: None,
            refusal: None,
        };
        let generation = self.object.metadata.generation;
        status::status(&previous, generation, &input, now).unwrap_or(previous)
    }
}

fn failed(error: &Error) -> Attempt {
    Attempt::Failed {
        class: error.class(),
        forbidden: false,
        unknown: false,
    }
}

fn uid_of(account: &KnownAccount) -> Option<AccountUid> {
    match account {
        KnownAccount::There { uid, .. } => uid.clone(),
        KnownAccount::Missing | KnownAccount::Unreadable => None,
    }
}

/// A user who changes the spec, or asks for a pass, ends a repair loop.
fn repairs(object: &SecurityGroupMembership) -> usize {
    let conditions = object.status.as_ref().map(|status| &status.conditions);
    let drifted = conditions.and_then(|all| condition::find(all, reason::DRIFTED));
    let is_in_loop = drifted.is_some_and(|drifted| drifted.reason == reason::REPAIR_LOOP);
    if is_in_loop && !is_unanswered(object) {
        REPAIR_LIMIT
    } else {
        0
    }
}

/// Whether the object may use its account with its target, and what its status says if it may not.
fn access(
    object: &SecurityGroupMembership,
    edge: &Edge,
    known: &Known<'_>,
    claimed: Option<&AccountUid>,
    claim: ClaimView,
) -> (AccessView, String) {
    let namespace = object.namespace().unwrap_or_default();
    let key = account_key(&object.spec, &namespace);
    let deleting = object.metadata.deletion_timestamp.is_some();
    let request = AccessRequest {
        account: &key,
        namespace: &namespace,
        region: &edge.region,
        group: &edge.group,
        claimed_uid: claimed,
        action: wanted_action(object, deleting, claim),
        deleting,
        recorded: claim.record().is_some(),
    };
    let (refused, tags) = answer(request, known.account, known.labels);
    if let Some(access) = refused {
        return (access_view(&access), access.problem(request));
    }
    let has_tags = |tags: &TargetTags| {
        let target = known.target;
        target.is_some_and(|target| tags.allow(target.tags.by_key()))
    };
    if tags.is_some_and(|tags| !has_tags(&tags)) {
        let problem = no_grant_for_target(&key, &namespace, edge);
        return (AccessView::NotGranted, problem);
    }
    (AccessView::Usable, String::new())
}

/// What refuses a request that names no target, as the directory of the operator would answer it; `None` if nothing does.
#[must_use]
pub fn refused(
    request: AccessRequest<'_>,
    account: &KnownAccount,
    labels: Option<&BTreeMap<String, String>>,
) -> Option<Access> {
    let (refused, _) = answer(request, account, labels);
    refused
}

fn answer(
    request: AccessRequest<'_>,
    account: &KnownAccount,
    labels: Option<&BTreeMap<String, String>>,
) -> (Option<Access>, Option<TargetTags>) {
    match account {
        KnownAccount::Missing => (Some(Access::Missing), None),
        KnownAccount::Unreadable => (None, None),
        KnownAccount::There {
            uid,
            trouble,
            grants,
        } => resolve(grants, request, labels, uid.as_ref(), trouble.as_ref()),
    }
}

/// As the directory of the operator does it.
fn resolve(
    grants: &Grants,
    request: AccessRequest<'_>,
    labels: Option<&BTreeMap<String, String>>,
    uid: Option<&AccountUid>,
    trouble: Option<&(String, bool)>,
) -> (Option<Access>, Option<TargetTags>) {
    let found = match (grants, request.action) {
        (Grants::OwnNamespace, _) | (_, None) => Granted::Yes,
        (Grants::Unknown, _) => Granted::No,
        (Grants::Listed(grants), Some(action)) => granted(
            grants,
            Use {
                namespace: request.namespace,
                labels,
                group: request.group,
                action,
            },
            || GroupTags::Unread,
        ),
    };
    if found == Granted::No {
        return (Some(Access::NotGranted), None);
    }
    if let Some((message, stalled)) = trouble {
        let (message, stalled) = (message.clone(), *stalled);
        return (Some(Access::NotReady { stalled, message }), None);
    }
    if let (Some(uid), Some(claimed)) = (uid, request.claimed_uid)
        && uid != claimed
    {
        let (uid, claimed) = (uid.clone(), claimed.clone());
        return (Some(Access::Changed { uid, claimed }), None);
    }
    match found {
        Granted::Tagged(tags) => (None, Some(tags)),
        // The plugin does not read the tags of groups: such a grant is taken as one.
        Granted::Yes | Granted::No | Granted::Unread | Granted::Unreadable(_) => (None, None),
    }
}

/// Who else holds the edge. The account of the others is taken as usable.
fn others(
    object: &SecurityGroupMembership,
    edge: &Edge,
    known: &Known<'_>,
    own: Option<&AccountUid>,
) -> (Holder, Elsewhere) {
    let mut elsewhere = Elsewhere::default();
    let mut holder = Holder::None;
    for other in holders(object, edge, known.others, own) {
        let record = Claim::of(other).and_then(|claim| claim.record());
        elsewhere.recorded |= record.is_some();
        elsewhere.joined |= record == Some(Origin::Joined);
        let refuses = record.is_none() && other.spec.adoption_policy == AdoptionPolicy::Refuse;
        if !refuses {
            holder = Holder::Successor;
        }
    }
    (holder, elsewhere)
}

/// The objects that hold the edge of an object as well: live, managing, and of the same cloud account. Where the cloud account of one is
/// unknown, it must name the same account.
#[must_use]
pub fn holders<'a>(
    object: &SecurityGroupMembership,
    edge: &Edge,
    others: &'a [SecurityGroupMembership],
    own: Option<&AccountUid>,
) -> Vec<&'a SecurityGroupMembership> {
    let mut found: Vec<_> = others
        .iter()
        .filter(|other| {
            let is_live = other.metadata.deletion_timestamp.is_none();
            let manages = other.spec.management_policy == ManagementPolicy::Manage;
            let is_same_edge = Edge::try_from(&other.spec).is_ok_and(|of| of == *edge);
            is_live && manages && is_same_edge && is_of_same_account(other, object, own)
        })
        .collect();
    found.sort_by_key(|other| other.creation_timestamp());
    found
}

fn is_of_same_account(
    other: &SecurityGroupMembership,
    object: &SecurityGroupMembership,
    own: Option<&AccountUid>,
) -> bool {
    let status = other.status.as_ref();
    let status = status.filter(|status| status.object_uid == other.metadata.uid);
    let uid = status.and_then(|status| status.account_uid.as_deref());
    let uid = uid.and_then(AccountUid::of_claim);
    if let (Some(uid), Some(own)) = (&uid, own) {
        return uid == own;
    }
    let named = |object: &SecurityGroupMembership| {
        account_key(&object.spec, &object.namespace().unwrap_or_default())
    };
    named(other) == named(object)
}
