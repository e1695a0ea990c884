//! What an object says, as far as the passes of other objects need it. Could be rebuilt from the API server at any time.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::runtime::reflector::ObjectRef;

use crate::account::key::AccountKey;
use crate::api::SecurityGroupMembership;
use crate::api::membership::{
    AdoptionPolicy, DeletionPolicy, ErrorClass, ManagementPolicy, Origin,
};
use crate::api::reason;
use crate::condition;
use crate::ecs::{AccountUid, Edge};
use crate::kubernetes::ObjectUid;
use crate::watched::Unreadable;

use super::super::decide::Desired;
use super::super::object::{
    Claim, Object, account_key, carries_finalizer, desired, has_finalizer, legible, version_of,
};

/// What an object says, as far as the passes of other objects need it.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts")]
pub struct ObjectView {
    /// UID of the object.
    pub uid: ObjectUid,
    /// Namespace of the object.
    pub namespace: Arc<str>,
    pub(super) name: Box<str>,
    /// What the spec names; `None` if the object was never readable, or names no valid edge.
    pub(super) names: Option<Names>,
    /// The object's claim, as of `resource_version`.
    pub claim: Option<Claim>,
    /// Whether this version can read the object. One that it cannot read is judged as a holder like others, and inherits nothing.
    pub readable: bool,
    /// Whether our finalizer is on the object.
    pub finalizer: bool,
    /// Whether the operator may write to the cloud for this object (`managementPolicy: Manage`).
    pub managed: bool,
    /// Whether the object takes over no membership from outside (`adoptionPolicy: Refuse`).
    pub refuses: bool,
    /// Whether the object is being deleted.
    pub deleting: bool,
    /// What the spec asks for; `None` if the object was never readable.
    pub(super) desired: Option<Desired>,
    /// What its status tells.
    pub(super) told: Told,
    /// When it was deleted, in seconds since 1970; 0 if it was not.
    pub(super) deleted: i64,
    /// When the object was created, in seconds since 1970.
    pub(super) created: i64,
    /// Version of the object that this view was read from, or that our last write returned.
    pub resource_version: u64,
}

/// How new the view of an object is.
#[derive(Clone, Copy, Debug)]
pub struct Known {
    version: u64,
    is_released: bool,
}

impl Known {
    /// Whether the view is newer than what is stored now. The API server puts no finalizer on an object that is being deleted: one that
    /// was released, and has ours, is an older one.
    #[must_use]
    pub fn is_newer_than(self, stored: &ObjectMeta) -> bool {
        version_of(stored) < self.version || self.is_released && carries_finalizer(stored)
    }
}

/// What a status tells of its object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Told {
    /// Whether the object is Ready; `None` while that is unknown.
    pub ready: Option<bool>,
    /// The class of its last error.
    pub class: Option<ErrorClass>,
    /// Since when it has been Ready, or has not, as far as this process knows: in seconds since 1970.
    pub since: i64,
}

impl Told {
    fn of(object: &SecurityGroupMembership, created: i64) -> Self {
        let status = object.status.as_ref();
        let ready = status.and_then(|status| condition::find(&status.conditions, reason::READY));
        let is_ready = ready.and_then(|ready| match &*ready.status {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        });
        let error = status.and_then(|status| status.last_error.as_ref());
        // The status that the schema gives to a new object is of 1970.
        let since = ready.map_or(created, |ready| ready.last_transition_time.0.as_second());
        Self {
            ready: is_ready,
            class: error.map(|error| error.class),
            since: since.max(created),
        }
    }

    /// What a newer status tells: from one reason not to be Ready to another it has not been Ready all the time.
    pub(super) fn renew(&mut self, newer: Self) {
        let stays = self.ready != Some(true) && newer.ready != Some(true);
        let since = if stays {
            self.since.min(newer.since)
        } else {
            newer.since
        };
        *self = Self { since, ..newer };
    }
}

/// The edge and the account that a spec names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    pub(super) edge: Edge,
    pub(super) account: Arc<AccountKey>,
}

impl ObjectView {
    /// The view of a readable object; `None` if its spec names no valid edge.
    pub(in crate::membership) fn of(object: &SecurityGroupMembership) -> Option<Self> {
        let view = Self::of_metadata(&object.metadata)?;
        let names = Names {
            edge: Edge::try_from(&object.spec).ok()?,
            account: Arc::new(account_key(&object.spec, &view.namespace)),
        };
        Some(Self {
            names: Some(names),
            claim: Claim::of(object),
            readable: true,
            finalizer: has_finalizer(object),
            managed: object.spec.management_policy == ManagementPolicy::Manage,
            refuses: object.spec.adoption_policy == AdoptionPolicy::Refuse,
            desired: Some(desired(object)),
            told: Told::of(object, view.created),
            ..view
        })
    }

    /// What the spec asks for; `None` if the object was never readable.
    pub(in crate::membership) const fn desired(&self) -> Option<Desired> {
        self.desired
    }

    /// Whether its deletion removes what the operator joined with its account.
    pub(super) fn needs_account(&self) -> bool {
        let retains = |desired: Desired| desired.deletion == DeletionPolicy::Retain;
        self.record() == Some(Origin::Joined) && !self.desired.is_some_and(retains)
    }

    /// The view of a listed object.
    #[must_use]
    pub fn of_listed(object: &Object) -> Option<Self> {
        match &object.0 {
            Ok(object) => Self::of(object),
            Err(unreadable) => Self::of_unreadable(unreadable),
        }
    }

    /// The view of an object that this version cannot read as a whole.
    pub(super) fn of_unreadable(unreadable: &Unreadable) -> Option<Self> {
        let Some(object) = legible(unreadable) else {
            return Self::of_metadata(&unreadable.metadata);
        };
        let view = Self::of(&object)?;
        Some(Self {
            readable: false,
            ..view
        })
    }

    /// The view of an object of which only the metadata can be read.
    pub(super) fn of_metadata(metadata: &ObjectMeta) -> Option<Self> {
        let created = metadata.creation_timestamp.as_ref();
        let created = created.map_or(0, |time| time.0.as_second());
        let deleted = metadata.deletion_timestamp.as_ref();
        Some(Self {
            uid: metadata.uid.as_deref()?.into(),
            namespace: metadata.namespace.as_deref().unwrap_or_default().into(),
            name: metadata.name.as_deref()?.into(),
            names: None,
            claim: None,
            readable: false,
            finalizer: false,
            managed: false,
            refuses: false,
            desired: None,
            deleting: metadata.deletion_timestamp.is_some(),
            deleted: deleted.map_or(0, |time| time.0.as_second()),
            told: Told {
                ready: None,
                class: None,
                since: created,
            },
            created,
            resource_version: version_of(metadata),
        })
    }

    pub(super) fn known(&self) -> Known {
        Known {
            version: self.resource_version,
            is_released: self.is_released(),
        }
    }

    /// Whether our finalizer has been taken off the object, or never was on it, while it is being deleted.
    pub(super) fn is_released(&self) -> bool {
        self.names.is_some() && self.deleting && !self.finalizer
    }

    /// The edge that the spec names.
    #[must_use]
    pub fn edge(&self) -> Option<&Edge> {
        self.names.as_ref().map(|names| &names.edge)
    }

    /// The account that the spec names.
    #[must_use]
    pub fn account(&self) -> Option<&AccountKey> {
        self.names.as_ref().map(|names| &*names.account)
    }

    /// Whether the object carries a claim of the cloud account with this UID.
    #[must_use]
    pub fn is_claimed_with(&self, account_uid: Option<&AccountUid>) -> bool {
        account_uid.is_some() && self.claimed_account() == account_uid
    }

    /// The record in the object's status.
    #[must_use]
    pub fn record(&self) -> Option<Origin> {
        self.claim.as_ref()?.record()
    }

    /// Whether it may own a membership: it lives, manages, and takes over what others have joined. What has a record has done so.
    #[must_use]
    pub fn may_own(&self) -> bool {
        let takes_over = !self.refuses || self.record().is_some();
        self.managed && !self.deleting && takes_over
    }

    pub(super) fn claimed_account(&self) -> Option<&AccountUid> {
        self.claim.as_ref()?.account_uid()
    }

    /// The part of the view that decides whether siblings must be requeued.
    pub(super) fn hold(&self) -> Hold {
        Hold {
            managed: self.managed,
            finalizer: self.finalizer,
            readable: self.readable,
        }
    }

    /// Namespace and name.
    #[must_use]
    pub fn reference(&self) -> ObjectRef<SecurityGroupMembership> {
        ObjectRef::new(&self.name).within(&self.namespace)
    }

    /// Sort key for age: creation second, then UID.
    #[must_use]
    pub fn age(&self) -> (i64, &ObjectUid) {
        (self.created, &self.uid)
    }
}

/// Whether an object may write to the cloud, carries our finalizer, and can be read.
pub(super) struct Hold {
    pub(super) managed: bool,
    pub(super) finalizer: bool,
    pub(super) readable: bool,
}
