//! Collects the observed state of a pass: account, grants and siblings from memory, the target from the cloud. Reads only.

use std::sync::Arc;
use std::time::Duration;

use crate::account::directory::{Access, AccessRequest};
use crate::account::session::{AccountSession, CallError};
use crate::api::SecurityGroupMembership;
use crate::api::membership::Origin;
use crate::ecs::limit::Reservation;
use crate::ecs::{AccountUid, Action, Class, Edge, Error, Target, TargetDescription};
use crate::kubernetes::{self, ObjectUid};

use super::admission::Slot;
use super::context::Context;
use super::decide::{self, AccessView, Attempt, Desired, Observed, Sharing, Step};
use super::object::{Claim, Object, account_key};
use super::observation::Observation;
use super::table::ObjectView;

use kube::ResourceExt as _;

/// What one pass over one object knows so far.
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct Pass {
    object: Current,
    /// Generation of the spec that the pass reads. The answer to one of its own writes may show a later generation.
    pub generation: Option<i64>,
    /// The edge that the spec names.
    pub edge: Edge,
    /// What the spec asks for.
    pub desired: Desired,
    /// The input of [`decide::decide`].
    pub observed: Observed,
    /// The session for calls; `None` if the object cannot use the account.
    pub account: Option<Arc<AccountSession>>,
    /// The problem with the account, for users; empty if there is none.
    pub account_problem: String,
    /// The other live objects on this edge, oldest first.
    pub others: Vec<ObjectView>,
    /// The target as last described.
    pub description: Option<TargetDescription>,
    /// Value of the annotation `reconcile-requested-at` when the pass began.
    pub reconcile_requested_at: Option<String>,
    /// Whether the cloud has accepted a Leave of this pass.
    pub removed: bool,
    /// Whether the cloud has answered the last Join or Leave of this pass, or it failed on its way.
    pub answered: bool,
    /// Whether this pass has written the claim that the object carries.
    pub claimed: bool,
    /// The last failure, if the pass ended with one.
    pub failure: Option<Error>,
    /// The place of the pass among the passes in flight.
    pub slot: Slot,
    /// The Join or Leave that the rate limit has admitted.
    pub reservation: Option<Reservation>,
    /// Whether the rate limit has admitted no call.
    pub held_back: bool,
}

/// The object from the watch (shared with the store), or from the answer to a write of this pass.
enum Current {
    Watched(Arc<Object>),
    Written(Box<SecurityGroupMembership>),
}

impl Pass {
    /// UID of the cloud account of the object's edge: from the claim, or else from the account that the spec names.
    #[must_use]
    pub fn account_uid(
        object: &SecurityGroupMembership,
        namespace: &str,
        context: &Context,
    ) -> Option<AccountUid> {
        Claim::of(object)
            .and_then(|claim| claim.account_uid)
            .or_else(|| {
                let key = account_key(&object.spec, namespace);
                context.directory.uid(&key)
            })
    }

    /// A pass with what memory knows of the object. Makes no call.
    pub fn begin(
        watched: Arc<Object>,
        edge: Edge,
        slot: Slot,
        repairs: usize,
        context: &Context,
    ) -> Option<Self> {
        let object = watched.0.as_ref().ok()?;
        let namespace = object.namespace().unwrap_or_default();
        let uid = ObjectUid::of(object).unwrap_or_default();
        let desired = desired(object);
        let claim = context.table.claim(object);
        let request = AccessRequest {
            account: &account_key(&object.spec, &namespace),
            namespace: &namespace,
            group: &edge.group,
            claimed_uid: claim.as_ref().and_then(|claim| claim.account_uid.as_ref()),
            deleting: desired.deleting,
        };
        let access = context.directory.resolve(request);
        let account_problem = access.problem(request);
        let access_view = access_view(&access);
        let account = access.session();
        let own_uid = account
            .as_ref()
            .map(|account| account.uid.clone())
            .or_else(|| claim.as_ref()?.account_uid.clone());
        let others = co_owners(object, &edge, own_uid.as_ref(), context);
        let observed = Observed {
            account: access_view,
            claim: claim.map(|claim| decide::ClaimView {
                origin: claim.origin,
                untested: claim.origin == Origin::Joined && !context.table.may_have_joined(&uid),
            }),
            target: decide::TargetView::Unread,
            sharing: sharing(&others),
            attempt: Attempt::None,
            was_ready: object
                .status
                .as_ref()
                .is_some_and(|status| status.origin.is_some()),
            leave_forbidden_past_lag: false,
            repairs,
            synced: context.is_synced(),
        };
        Some(Self {
            generation: object.metadata.generation,
            reconcile_requested_at: kubernetes::reconcile_requested_at(object),
            object: Current::Watched(watched),
            edge,
            desired,
            observed,
            account,
            account_problem,
            others,
            description: None,
            removed: false,
            answered: false,
            claimed: false,
            failure: None,
            slot,
            reservation: None,
            held_back: false,
        })
    }

    /// The object as the watch showed it, or as this pass has written it since.
    #[must_use]
    pub fn object(&self) -> &SecurityGroupMembership {
        match &self.object {
            Current::Written(object) => object,
            Current::Watched(object) => match &object.0 {
                Ok(object) => object,
                Err(_) => unreachable!("`begin` takes readable objects only"),
            },
        }
    }

    /// UID of the cloud account of the membership, as far as this pass knows it.
    #[must_use]
    pub fn known_account_uid(&self) -> Option<AccountUid> {
        Claim::of(self.object())
            .and_then(|claim| claim.account_uid)
            .or_else(|| self.account.as_ref().map(|account| account.uid.clone()))
    }

    /// Continues with the object from the answer to a write.
    pub fn written(&mut self, object: SecurityGroupMembership) {
        self.object = Current::Written(Box::new(object));
    }

    /// Reads the target. A failed read makes it unreadable, never "not a member".
    pub async fn read(&mut self, context: &Context) {
        if self.observed.attempt == Attempt::None
            && let Some(description) = self.pending_description(context)
        {
            self.see(description);
            return;
        }
        let Some(account) = &self.account else {
            self.observed.target = decide::TargetView::Unreadable(Class::Transient);
            return;
        };
        self.observed.target = match account.describe(&self.edge.region, &self.edge.target).await {
            Ok(None) => {
                self.description = None;
                decide::TargetView::Absent
            }
            Ok(Some(description)) => {
                self.see(description);
                return;
            }
            Err(error) => {
                let action = match self.edge.target {
                    Target::Instance(_) => Action::DescribeInstances,
                    Target::NetworkInterface(_) => Action::DescribeNetworkInterfaces,
                };
                decide::TargetView::Unreadable(self.note(action, error))
            }
        };
    }

    fn see(&mut self, description: TargetDescription) {
        self.observed.target = decide::TargetView::Present {
            member: description.security_group_ids.contains(&self.edge.group),
            transitional: description.state.is_transitional(),
        };
        self.description = Some(description);
    }

    /// Whether this pass itself has written the claim: then a call needs no other check of the object.
    #[must_use]
    pub fn claim_is_confirmed(&self) -> bool {
        self.claimed
    }

    /// Whether the step can be taken now: a claim for a Join, a Join and a Leave need a call that the rate limit admits. If it
    /// admits none, the call counts as failed, and the object waits for it.
    pub fn may_call(&mut self, step: Step) -> bool {
        let action = match step {
            Step::Claim(Origin::Joined) | Step::Join => Action::JoinSecurityGroup,
            Step::Leave => Action::LeaveSecurityGroup,
            Step::Read
            | Step::Claim(Origin::Adopted)
            | Step::TransferOwnership
            | Step::Release(_)
            | Step::Finish(_) => return true,
        };
        let Some(account) = &self.account else {
            return true;
        };
        if self
            .reservation
            .as_ref()
            .is_some_and(|one| one.action() == action)
        {
            return true;
        }
        match self.slot.reserve(action, account.limiter()) {
            Ok(reservation) => {
                self.reservation = Some(reservation);
                true
            }
            Err(retry_at) => {
                self.observed.attempt = Attempt::Failed {
                    class: self.note(action, CallError::RateLimited { retry_at }),
                    forbidden: false,
                };
                false
            }
        }
    }

    /// The description from the last pass, if that pass ended in a rate-limit wait and no scan has found a change since. Good
    /// enough for a Join under a claim: its answer tells whether the target is a member by now.
    fn pending_description(&self, context: &Context) -> Option<TargetDescription> {
        let uid = ObjectUid::of(self.object())?;
        let (description, fresh) = context.table.history(&uid, |history| {
            let fresh = history.fresh_observation(OBSERVATION_AGE);
            Some((history.pending_description()?, fresh))
        })??;
        let member = |seen: &TargetDescription| seen.security_group_ids.contains(&self.edge.group);
        let observation = Observation::of(Some(&description), member);
        (fresh == Some(observation)).then_some(description)
    }

    /// Stores a failed call for the status. Returns its class. A throttled object waits for its next call. A wrong clock is
    /// reported by the account, which is checked within a minute: the object waits for it.
    pub fn note(&mut self, action: Action, error: CallError) -> Class {
        let class = match error {
            CallError::RateLimited { .. } => {
                self.held_back = true;
                Class::Throttled
            }
            // Only until the next step, which does not begin.
            CallError::Stopping => Class::Transient,
            CallError::Failed(error) => {
                let class = if error.is_clock_error() {
                    Class::Transient
                } else {
                    error.class()
                };
                self.failure = Some(error);
                class
            }
        };
        if class == Class::Throttled
            && let Some(account) = &self.account
        {
            self.slot.wait_for(action, account.limiter());
        }
        class
    }
}

/// An observation older than this is not used.
const OBSERVATION_AGE: Duration = Duration::from_secs(150);

fn desired(object: &SecurityGroupMembership) -> Desired {
    Desired {
        deleting: object.metadata.deletion_timestamp.is_some(),
        suspended: object.spec.suspend,
        management: object.spec.management_policy,
        adoption: object.spec.adoption_policy,
        deletion: object.spec.deletion_policy,
        drift: object.spec.drift_policy,
    }
}

/// What `decide` needs to know of the access.
fn access_view(access: &Access) -> AccessView {
    match access {
        Access::Usable(_) => AccessView::Usable,
        Access::Missing => AccessView::Missing,
        Access::NotReady { stalled, .. } => AccessView::NotReady { stalled: *stalled },
        Access::Changed { .. } => AccessView::Changed,
        Access::NotGranted => AccessView::NotGranted,
        Access::Checking => AccessView::Checking,
    }
}

fn sharing(others: &[ObjectView]) -> Sharing {
    let mut claims = others.iter().filter_map(|other| other.claim.as_ref());
    Sharing {
        others: !others.is_empty(),
        claimed_elsewhere: others.iter().any(|other| other.claim.is_some()),
        joined_elsewhere: claims.any(|claim| claim.origin == Origin::Joined),
    }
}

/// The other live objects that manage or may manage this edge of this cloud account. An object without a grant and without a
/// claim does not count: otherwise any tenant could block the removal of any edge.
fn co_owners(
    object: &SecurityGroupMembership,
    edge: &Edge,
    own_uid: Option<&AccountUid>,
    context: &Context,
) -> Vec<ObjectView> {
    let Some(own_uid) = own_uid else {
        return Vec::new();
    };
    let mut others = context
        .table
        .others(edge, &ObjectUid::of(object).unwrap_or_default());
    others.retain(|other| {
        let account_uid = match &other.claim {
            Some(claim) => claim
                .account_uid
                .clone()
                .or_else(|| context.directory.uid(other.account()?)),
            None => other.account().and_then(|account| {
                context
                    .directory
                    .granted_uid(account, &other.namespace, &edge.group)
            }),
        };
        other.managed && !other.deleting && account_uid.as_ref() == Some(own_uid)
    });
    others
}
