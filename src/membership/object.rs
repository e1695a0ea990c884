//! What an object says: the edge and the account that its spec names, and the claim in its annotations. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt as _;

use crate::account::key::AccountKey;
use crate::api::membership::{AccountKind, Origin};
use crate::api::{
    ACCOUNT_ANNOTATION, FINALIZER, ORIGIN_ANNOTATION, SecurityGroupMembership,
    SecurityGroupMembershipSpec,
};
use crate::ecs::{AccountUid, Edge, ParseIdError, Target};
use crate::watched::Watched;

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

/// The account that `spec` of an object in `namespace` names. No spec can name another namespace.
#[must_use]
pub fn account_key(spec: &SecurityGroupMembershipSpec, namespace: &str) -> AccountKey {
    AccountKey {
        kind: spec.account_ref.kind,
        namespace: match spec.account_ref.kind {
            AccountKind::ClusterCloudAccount => String::new(),
            AccountKind::CloudAccount => namespace.to_owned(),
        },
        name: spec.account_ref.name.clone(),
    }
}

/// How the edge came about and with which cloud account, from the object's annotations.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Whether this operator joined the target, or the membership existed before.
    pub origin: Origin,
    /// UID of the cloud account; `None` only if a user removed the annotation.
    pub account_uid: Option<AccountUid>,
}

impl Claim {
    /// The claim on an object. A claim without our finalizer is ignored: it may have been copied with the manifest.
    #[must_use]
    pub fn of(object: &SecurityGroupMembership) -> Option<Self> {
        if !has_finalizer(object) {
            return None;
        }
        let annotations = object.annotations();
        // Our finalizer without a readable claim: a user edited the object. Adopted is the safe value: it calls no Leave by
        // default.
        let origin = match annotations.get(ORIGIN_ANNOTATION).map(String::as_str) {
            Some("Joined") => Origin::Joined,
            _ => Origin::Adopted,
        };
        Some(Self {
            origin,
            account_uid: annotations
                .get(ACCOUNT_ANNOTATION)
                .map(|uid| uid.as_str().into()),
        })
    }
}

/// The version of an object as a number, for comparison; 0 if absent or not a number.
///
/// Comparing versions is part of the API's contract since Kubernetes 1.35 (KEP-5504). Older servers give no such guarantee,
/// but their versions are etcd revisions, which only grow.
#[must_use]
pub fn version_of(metadata: &ObjectMeta) -> u64 {
    let version = metadata.resource_version.as_deref();
    version
        .and_then(|version| version.parse().ok())
        .unwrap_or_default()
}

/// Whether the object carries our finalizer.
#[must_use]
pub fn has_finalizer(object: &SecurityGroupMembership) -> bool {
    object
        .finalizers()
        .iter()
        .any(|finalizer| finalizer == FINALIZER)
}
