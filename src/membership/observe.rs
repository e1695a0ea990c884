//! Fills in what a pass sees: the account, grants and siblings from memory, the target from the cloud. Reads only.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::account::directory::AccountState;
use crate::account::session::{AccountSession, CallError};
use crate::api::SecurityGroupMembership;
use crate::api::membership::Origin;
use crate::ecs::{AccountUid, Class, Error, TargetDescription};
use crate::kubernetes::{self, ObjectUid};

use super::decide::{self, Attempt, Desired, Observed, Sharing};
use super::edge::{AccountKey, Claim, Edge};
use super::index::Record;
use super::scan::Observation;
use super::{Context, Object};

use kube::ResourceExt as _;

/// One pass over one object: what it knows so far. Lives as long as the pass.
pub struct Pass {
    object: Current,
    /// Generation of the spec that the pass goes by. What a write of its own hands back may be of a later one already.
    pub generation: Option<i64>,
    /// The edge that it names.
    pub edge: Edge,
    /// The account that it names.
    pub account_key: AccountKey,
    /// What it asks for.
    pub desired: Desired,
    /// What [`decide::decide`] goes by.
    pub observed: Observed,
    /// The account to call with, where there is one.
    pub account: Option<Arc<AccountSession>>,
    /// What is wrong with the account, for the user.
    pub account_problem: String,
    /// The other live objects on this edge, oldest first.
    pub others: Vec<Record>,
    /// The target as last described.
    pub description: Option<TargetDescription>,
    /// Value of the annotation `reconcile-requested-at` when the pass began.
    pub reconcile_requested_at: Option<String>,
    /// Whether the cloud has accepted a Leave of this pass.
    pub removed: bool,
    /// Whether this pass has written the claim that the object carries.
    pub claimed: bool,
    /// Whether a pass before this one described the target so, and only waited for its turn since.
    pub waited: bool,
    /// The last failure, if the pass ended with one.
    pub failure: Option<Error>,
    /// Until when the cloud throttles the action that is needed.
    pub stopped_until: Option<Instant>,
}

/// The object: as the watch has it, shared with the store, or as this pass has written it.
enum Current {
    Watched(Arc<Object>),
    Written(Box<SecurityGroupMembership>),
}

impl Pass {
    /// UID of the cloud account that the object's edge is of: that of its claim, or that of the account that it names.
    #[must_use]
    pub fn account_uid(
        object: &SecurityGroupMembership,
        namespace: &str,
        context: &Context,
    ) -> Option<AccountUid> {
        Claim::of(object)
            .and_then(|claim| claim.account_uid)
            .or_else(|| {
                let key = AccountKey::of(&object.spec, namespace);
                context.directory.uid(&key)
            })
    }

    /// What memory says of the object. No call.
    pub fn begin(
        watched: Arc<Object>,
        edge: Edge,
        repairs: usize,
        context: &Context,
    ) -> Option<Self> {
        let object = watched.0.as_ref().ok()?;
        let namespace = object.namespace().unwrap_or_default();
        let uid = ObjectUid::of(object).unwrap_or_default();
        let account_key = AccountKey::of(&object.spec, &namespace);
        let desired = desired(object);
        let claim = context.edges.claim(object);
        let reconcile_requested_at = kubernetes::reconcile_requested_at(object);
        let AccountView {
            state,
            account,
            problem,
        } = view_account(
            &account_key,
            &namespace,
            &edge,
            claim.as_ref(),
            desired.deleting,
            context,
        );
        let own_uid = account
            .as_ref()
            .map(|account| account.uid.clone())
            .or_else(|| claim.as_ref()?.account_uid.clone());
        let others = co_owners(object, &edge, own_uid.as_ref(), context);
        let claimed = |record: &Record, origin| {
            record
                .claim
                .as_ref()
                .is_some_and(|claim| claim.origin == origin)
        };
        let observed = Observed {
            account: state,
            claim: claim.map(|claim| decide::ClaimView {
                origin: claim.origin,
                untested: claim.origin == Origin::Joined && !context.history.may_have_joined(&uid),
            }),
            target: decide::TargetView::Unread,
            sharing: Sharing {
                others: !others.is_empty(),
                joined_elsewhere: others.iter().any(|record| claimed(record, Origin::Joined)),
                claimed_elsewhere: others.iter().any(|record| record.claim.is_some()),
            },
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
            object: Current::Watched(watched),
            edge,
            account_key,
            desired,
            observed,
            account,
            account_problem: problem,
            others,
            description: None,
            reconcile_requested_at,
            removed: false,
            claimed: false,
            waited: false,
            failure: None,
            stopped_until: None,
        })
    }

    /// The object as the pass found it, or as it has written it since.
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

    /// Goes on with the object as it has just been written.
    pub fn written(&mut self, object: SecurityGroupMembership) {
        self.object = Current::Written(Box::new(object));
    }

    /// Reads the target. What the cloud does not answer is unreadable, and never "not a member".
    pub async fn read(&mut self, context: &Context) {
        if self.observed.claim.is_some()
            && self.observed.attempt == Attempt::None
            && let Some(description) = self.pending_description(context)
        {
            self.waited = true;
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
            Err(error) => decide::TargetView::Unreadable(self.note(error)),
        };
    }

    fn see(&mut self, description: TargetDescription) {
        self.observed.target = decide::TargetView::Present {
            member: description.security_group_ids.contains(&self.edge.group),
            transitional: description.state.is_transitional(),
        };
        self.description = Some(description);
    }

    /// Whether this pass itself, or one that only waited for its turn since, has written the claim and read the target: then
    /// a call needs no other look at the object.
    #[must_use]
    pub fn claim_is_confirmed(&self) -> bool {
        self.claimed || self.waited && !self.observed.was_ready
    }

    /// What the last pass saw, if it then only waited for its turn and no scan has seen anything else since. Good enough for
    /// a Join under a claim: Join itself says if the edge is there by now.
    fn pending_description(&self, context: &Context) -> Option<TargetDescription> {
        let uid = ObjectUid::of(self.object())?;
        let description = context.history.pending_description(&uid)?;
        let member = |seen: &TargetDescription| seen.security_group_ids.contains(&self.edge.group);
        let observation = Observation::of(Some(&description), member);
        (context.edges.fresh_observation(&uid, OBSERVATION_AGE) == Some(observation))
            .then_some(description)
    }

    /// Keeps a failed call for the status, and says its class. That the clock is wrong is for the account to say: it is checked
    /// within a minute, and the object waits for it.
    pub fn note(&mut self, error: CallError) -> Class {
        match error {
            CallError::RateLimited { retry_at: until } => {
                self.stopped_until = Some(until);
                Class::Throttled
            }
            CallError::Failed(error) => {
                let class = if error.is_clock_error() {
                    Class::Transient
                } else {
                    error.class()
                };
                self.failure = Some(error);
                class
            }
        }
    }
}

/// A observation older than this is not used.
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

struct AccountView {
    state: decide::Access,
    account: Option<Arc<AccountSession>>,
    problem: String,
}

fn view_account(
    key: &AccountKey,
    namespace: &str,
    edge: &Edge,
    claim: Option<&Claim>,
    deleting: bool,
    context: &Context,
) -> AccountView {
    let unusable = |state, problem| AccountView {
        state,
        account: None,
        problem,
    };
    let missing = || {
        unusable(
            decide::Access::Missing,
            format!(
                "{key} does not exist; {}",
                if deleting {
                    "create it"
                } else {
                    "create it, or recreate this object with another spec.accountRef"
                }
            ),
        )
    };
    let Some(entry) = context
        .directory
        .look_up(key)
        .filter(|entry| deleting || entry.deleted_at.is_none())
    else {
        return missing();
    };
    let account = match (&entry.state, &entry.last_usable) {
        (AccountState::Ready(account), _) => Arc::clone(account),
        // The Secret may go before the object does, when a whole namespace goes.
        (AccountState::NotReady { .. }, Some(last_usable)) if deleting => Arc::clone(last_usable),
        (AccountState::NotReady { stalled, message }, _) => {
            return unusable(
                decide::Access::NotReady { stalled: *stalled },
                format!("{key} is not ready: {message}"),
            );
        }
        (AccountState::Checking, _) => return unusable(decide::Access::Checking, String::new()),
    };
    if let Some(claimed) = claim.and_then(|claim| claim.account_uid.as_ref())
        && *claimed != account.uid
    {
        return unusable(
            decide::Access::Changed,
            format!(
                "{key} now belongs to cloud account {}, but this membership was created with cloud account {claimed}; restore its credentials",
                account.uid
            ),
        );
    }
    if !context.directory.granted(&entry, namespace, &edge.group) {
        return unusable(
            decide::Access::NotGranted,
            format!(
                "no grant of {key} lets namespace {namespace} use {}; ask the account's administrator to add a grant in spec.grants",
                edge.group
            ),
        );
    }
    AccountView {
        state: decide::Access::Usable,
        account: Some(account),
        problem: String::new(),
    }
}

/// The other live objects that hold or may hold this edge of this cloud account. One without a grant and without a claim
/// does not count: otherwise any tenant could keep any edge from being left.
fn co_owners(
    object: &SecurityGroupMembership,
    edge: &Edge,
    own_uid: Option<&AccountUid>,
    context: &Context,
) -> Vec<Record> {
    let Some(own_uid) = own_uid else {
        return Vec::new();
    };
    let mut others = context
        .edges
        .others(edge, &ObjectUid::of(object).unwrap_or_default());
    others.retain(|other| {
        let claimed_uid = other
            .claim
            .as_ref()
            .and_then(|claim| claim.account_uid.clone());
        let same_account = claimed_uid
            .or_else(|| context.directory.uid(&other.account))
            .is_some_and(|uid| uid == *own_uid);
        other.managed
            && !other.deleting
            && same_account
            && (other.claim.is_some() || is_granted(other, edge, context))
    });
    others
}

fn is_granted(other: &Record, edge: &Edge, context: &Context) -> bool {
    context
        .directory
        .look_up(&other.account)
        .is_some_and(|entry| {
            context
                .directory
                .granted(&entry, &other.namespace, &edge.group)
        })
}
