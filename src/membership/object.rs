//! What an object says: the edge and the account that its spec names, and its claim. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::account::key::AccountKey;
use crate::api::membership::{AccountRef, Origin};
use crate::api::{
    FINALIZER, INTENT_ANNOTATION, SecurityGroupMembership, SecurityGroupMembershipSpec,
    SecurityGroupMembershipStatus, reason,
};
use crate::condition;
use crate::ecs::{AccountUid, Edge, ParseIdError, Target};
pub use crate::kubernetes::version_of;
use crate::kubernetes::{self, ObjectUid};
use crate::watched::{Unreadable, Watched};

use super::decide::Desired;

/// What is watched: one object that this version cannot read does not stop the others.
pub type Object = Watched<SecurityGroupMembership>;

/// Why a spec names no valid edge. The CRD rejects all of these; they occur only if its rules were loosened by hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither target or both targets are set.
    #[error("spec: set exactly one of instanceID and networkInterfaceID")]
    Targets,
    /// A field does not parse.
    #[error("spec.{field}: {source}")]
    Id {
        /// Name of the field in the spec.
        field: &'static str,
        /// Why it does not parse.
        source: ParseIdError,
    },
}

impl TryFrom<&SecurityGroupMembershipSpec> for Edge {
    type Error = SpecError;

    fn try_from(spec: &SecurityGroupMembershipSpec) -> Result<Self, SpecError> {
        let target = match (&spec.instance_id, &spec.network_interface_id) {
            (Some(id), None) => Target::Instance(parse("instanceID", id)?),
            (None, Some(id)) => Target::NetworkInterface(parse("networkInterfaceID", id)?),
            (Some(_), Some(_)) | (None, None) => return Err(SpecError::Targets),
        };
        Ok(Self {
            region: parse("region", &spec.region)?,
            target,
            group: parse("securityGroupID", &spec.security_group_id)?,
        })
    }
}

fn parse<T: std::str::FromStr<Err = ParseIdError>>(
    field: &'static str,
    text: &str,
) -> Result<T, SpecError> {
    text.parse()
        .map_err(|source| SpecError::Id { field, source })
}

/// What can be read of an object that this version cannot read as a whole: its edge, its account, and its record. `None` if it names
/// no edge or account. An unknown policy counts as the default one.
#[must_use]
pub fn legible(unreadable: &Unreadable) -> Option<SecurityGroupMembership> {
    fn field<T: DeserializeOwned>(of: &Value, name: &str) -> Option<T> {
        T::deserialize(of.get(name)?).ok()
    }
    let (spec, status) = (&unreadable.spec, &unreadable.status);
    let account_ref = match spec.get("accountRef") {
        Some(_) => field(spec, "accountRef")?,
        None => AccountRef::default(),
    };
    let mut object = SecurityGroupMembership::new(
        "",
        SecurityGroupMembershipSpec {
            region: field(spec, "region")?,
            instance_id: field(spec, "instanceID"),
            network_interface_id: field(spec, "networkInterfaceID"),
            security_group_id: field(spec, "securityGroupID")?,
            account_ref,
            management_policy: field(spec, "managementPolicy").unwrap_or_default(),
            adoption_policy: field(spec, "adoptionPolicy").unwrap_or_default(),
            deletion_policy: field(spec, "deletionPolicy").unwrap_or_default(),
            drift_policy: field(spec, "driftPolicy").unwrap_or_default(),
            karpenter_policy: field(spec, "karpenterPolicy").unwrap_or_default(),
            suspend: field(spec, "suspend").unwrap_or_default(),
        },
    );
    Edge::try_from(&object.spec).ok()?;
    object.metadata = unreadable.metadata.clone();
    object.status = Some(SecurityGroupMembershipStatus {
        origin: field(status, "origin"),
        object_uid: field(status, "objectUID"),
        account_uid: field(status, "accountUID"),
        ..SecurityGroupMembershipStatus::default()
    });
    Some(object)
}

/// The account that `spec` of an object in `namespace` names. No spec can name another namespace.
#[must_use]
pub fn account_key(spec: &SecurityGroupMembershipSpec, namespace: &str) -> AccountKey {
    AccountKey::of(&spec.account_ref, namespace)
}

/// What a spec asks for.
#[must_use]
pub fn desired(object: &SecurityGroupMembership) -> Desired {
    Desired {
        deleting: object.metadata.deletion_timestamp.is_some(),
        suspended: object.spec.suspend,
        management: object.spec.management_policy,
        adoption: object.spec.adoption_policy,
        deletion: object.spec.deletion_policy,
        drift: object.spec.drift_policy,
        karpenter: object.spec.karpenter_policy,
    }
}

/// What the operator owns of the edge through an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// The intent to join: a Join of the operator may have had an effect that no record tells of.
    Intent {
        /// UID of the cloud account of the Join.
        account_uid: AccountUid,
    },
    /// The record in the status.
    Record {
        /// Whether this operator joined the target, or the membership existed before.
        origin: Origin,
        /// UID of the cloud account of the edge; `None` only if a user removed it.
        account_uid: Option<AccountUid>,
    },
}

impl Claim {
    /// The claim on an object. Its record is `status.origin`. Without a record, its intent counts beside our finalizer. One that
    /// names another object was copied or restored, and is no claim.
    #[must_use]
    pub fn of(object: &SecurityGroupMembership) -> Option<Self> {
        let uid = object.metadata.uid.as_deref()?;
        let status = object.status.as_ref();
        let own = status.filter(|status| status.object_uid.as_deref() == Some(uid));
        if let Some(origin) = own.and_then(|status| status.origin) {
            let account_uid = own.and_then(|status| status.account_uid.as_deref());
            return Some(Self::Record {
                origin,
                account_uid: account_uid.and_then(AccountUid::of_claim),
            });
        }
        let intent = object.annotations().get(INTENT_ANNOTATION);
        let intent = intent.and_then(|text| Intent::parse(text, uid))?;
        let account_uid = AccountUid::of_claim(&intent.account_uid)?;
        (has_finalizer(object) && !is_released(object)).then_some(Self::Intent { account_uid })
    }

    /// UID of the cloud account of the edge.
    #[must_use]
    pub fn account_uid(&self) -> Option<&AccountUid> {
        match self {
            Self::Intent { account_uid } => Some(account_uid),
            Self::Record { account_uid, .. } => account_uid.as_ref(),
        }
    }

    /// The record in the status.
    #[must_use]
    pub fn record(&self) -> Option<Origin> {
        match self {
            Self::Intent { .. } => None,
            Self::Record { origin, .. } => Some(*origin),
        }
    }
}

/// Forgets an intent that says nothing more than the record beside it. In the store of 10,000 memberships the intents alone take 7 MB.
pub fn forget_recorded_intent(object: &mut Object) {
    if let Ok(object) = &mut object.0
        && has_joined_record(object)
        && has_finalizer(object)
        && let Some(annotations) = &mut object.metadata.annotations
    {
        annotations.remove(INTENT_ANNOTATION);
        if annotations.is_empty() {
            object.metadata.annotations = None;
        }
    }
}

/// Whether the stored object may have an intent: it shows one, or it has been forgotten ([`forget_recorded_intent`]).
#[must_use]
pub fn may_have_intent(object: &SecurityGroupMembership) -> bool {
    object.annotations().contains_key(INTENT_ANNOTATION) || has_joined_record(object)
}

fn has_joined_record(object: &SecurityGroupMembership) -> bool {
    let claim = Claim::of(object);
    claim.and_then(|claim| claim.record()) == Some(Origin::Joined)
}

/// Why the intent on an object is no claim of it; `None` if it is one, or if a record tells more. `account` is the cloud account of
/// the object now.
#[must_use]
pub fn ignored_intent(
    object: &SecurityGroupMembership,
    account: Option<&AccountUid>,
) -> Option<&'static str> {
    let is_recorded = Claim::of(object).is_some_and(|claim| claim.record().is_some());
    let text = object.annotations().get(INTENT_ANNOTATION)?;
    if is_recorded {
        return None;
    }
    let Ok(intent) = serde_json::from_str::<Intent>(text) else {
        return Some("the operator writes no such text");
    };
    if object.metadata.uid.as_ref() != Some(&intent.uid) {
        return Some("it names another object");
    }
    if intent.origin != Origin::Joined {
        return Some("the operator writes no such origin");
    }
    account
        .is_some_and(|account| account.as_str() != intent.account_uid)
        .then_some("it names another cloud account")
}

/// The status, unless it tells of another object: a backup tool restores it with the object, which has a new UID then.
#[must_use]
pub fn own_status(object: &SecurityGroupMembership) -> Option<&SecurityGroupMembershipStatus> {
    let status = object.status.as_ref()?;
    let is_own = status.object_uid.is_none() || status.object_uid == object.metadata.uid;
    is_own.then_some(status)
}

/// Whether the status says that the deletion has seen to the membership, and only the finalizer, which the API server does not
/// let go, is left. Its intent is then of no meaning: the pass that removes the record cannot remove the intent.
fn is_released(object: &SecurityGroupMembership) -> bool {
    let status = object.status.as_ref();
    let own = status.filter(|status| status.object_uid == object.metadata.uid);
    let ready = own.and_then(|status| condition::find(&status.conditions, reason::READY));
    object.metadata.deletion_timestamp.is_some()
        && ready.is_some_and(|ready| {
            ready.reason == reason::WRITE_REFUSED
                && ready.observed_generation == object.metadata.generation
        })
}

/// The value of the intent annotation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    origin: Origin,
    #[serde(rename = "accountUID")]
    account_uid: String,
    uid: String,
}

impl Intent {
    /// The intent of the object with this UID to join with this cloud account.
    #[must_use]
    pub fn new(uid: &ObjectUid, account_uid: &AccountUid) -> Self {
        Self {
            origin: Origin::Joined,
            account_uid: account_uid.as_str().to_owned(),
            uid: uid.as_str().to_owned(),
        }
    }

    /// The intent as it is stored.
    #[must_use]
    pub fn text(&self) -> String {
        json!(self).to_string()
    }

    /// The intent of the object with this UID; `None` if the text is no intent, or another object's.
    fn parse(text: &str, uid: &str) -> Option<Self> {
        let intent: Self = serde_json::from_str(text).ok()?;
        (intent.origin == Origin::Joined && intent.uid == uid).then_some(intent)
    }
}

/// Whether a user has changed the spec, or asked for a pass, since the status was written.
#[must_use]
pub fn is_unanswered(object: &SecurityGroupMembership) -> bool {
    let status = object.status.as_ref();
    let observed = status.and_then(|status| status.observed_generation);
    let handled = status.and_then(|status| status.last_handled_reconcile_at.as_ref());
    let requested = kubernetes::reconcile_requested_at(object);
    observed != object.metadata.generation || requested.is_some() && requested.as_ref() != handled
}

/// Whether the object carries our finalizer.
#[must_use]
pub fn has_finalizer(object: &SecurityGroupMembership) -> bool {
    carries_finalizer(&object.metadata)
}

/// Whether the object of this metadata carries our finalizer.
#[must_use]
pub fn carries_finalizer(metadata: &ObjectMeta) -> bool {
    let mut finalizers = metadata.finalizers.iter().flatten();
    finalizers.any(|finalizer| finalizer == FINALIZER)
}
