//! Parses the edge and the account that a spec names, and the claim in an object's annotations. Pure.

use std::fmt;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt as _;

use crate::api::membership::{AccountKind, Origin};
use crate::api::{
    ACCOUNT_ANNOTATION, FINALIZER, ORIGIN_ANNOTATION, SecurityGroupMembership,
    SecurityGroupMembershipSpec,
};
use crate::ecs::{AccountUid, ParseIdError, Region, SecurityGroupId, Target};

/// A membership to maintain: this target in this group. Two objects with equal edges and the same cloud account share it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Region of the target and the group.
    pub region: Region,
    /// The instance or network interface.
    pub target: Target,
    /// The security group.
    pub group: SecurityGroupId,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}->{}", self.region, self.target, self.group)
    }
}

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

/// The account that an object names: its kind, the namespace for the namespaced kind, its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountKey {
    /// Kind of the account object.
    pub kind: AccountKind,
    /// Namespace of the account and of the object that names it; empty for the cluster kind.
    pub namespace: String,
    /// Name of the account object.
    pub name: String,
}

impl AccountKey {
    /// The account that `spec` of an object in `namespace` names. No spec can name another namespace.
    #[must_use]
    pub fn of(spec: &SecurityGroupMembershipSpec, namespace: &str) -> Self {
        Self {
            kind: spec.account_ref.kind,
            namespace: match spec.account_ref.kind {
                AccountKind::ClusterCloudAccount => String::new(),
                AccountKind::CloudAccount => namespace.to_owned(),
            },
            name: spec.account_ref.name.clone(),
        }
    }

    /// Kind, namespace and name, for the log.
    #[must_use]
    pub fn reference(&self) -> ObjectReference {
        ObjectReference {
            kind: Some(self.kind.name().to_owned()),
            namespace: Some(self.namespace.clone()).filter(|namespace| !namespace.is_empty()),
            name: Some(self.name.clone()),
            ..ObjectReference::default()
        }
    }
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            AccountKind::ClusterCloudAccount => write!(f, "ClusterCloudAccount {}", self.name),
            AccountKind::CloudAccount => write!(f, "CloudAccount {}/{}", self.namespace, self.name),
        }
    }
}

/// An account and a region: the cloud limits the calls of each by themselves, and either may be the only one that answers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AccountRegion {
    /// The account.
    pub account: AccountKey,
    /// The region.
    pub region: Region,
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

/// The version of an object as a number, for comparison; 0 if absent or not a number. 0 is also the version of an unknown
/// object in the index.
///
/// Comparing versions is part of the API's contract since Kubernetes 1.35 (KEP-5504). Older servers give no such guarantee,
/// but their versions are etcd revisions, which only grow.
#[must_use]
pub fn resource_version(object: &SecurityGroupMembership) -> u64 {
    object
        .resource_version()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_and_accounts_are_shown_in_one_line() {
        let edge = Edge {
            region: "cn-hangzhou".parse().unwrap(),
            target: Target::Instance("i-1".parse().unwrap()),
            group: "sg-1".parse().unwrap(),
        };
        assert_eq!(format!("{edge:?}"), "cn-hangzhou/i-1->sg-1");
        let account = |kind, namespace: &str| AccountKey {
            kind,
            namespace: namespace.to_owned(),
            name: "own".to_owned(),
        };
        let cluster = account(AccountKind::ClusterCloudAccount, "");
        assert_eq!(cluster.to_string(), "ClusterCloudAccount own");
        let namespaced = account(AccountKind::CloudAccount, "team");
        assert_eq!(namespaced.to_string(), "CloudAccount team/own");
    }
}
