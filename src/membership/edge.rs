//! What an object names: the edge, the account, and the claim that its annotations carry. Pure.

use std::fmt;

use kube::ResourceExt as _;

use crate::api::membership::{AccountKind, Origin};
use crate::api::{
    ACCOUNT_ANNOTATION, FINALIZER, ORIGIN_ANNOTATION, SecurityGroupMembership,
    SecurityGroupMembershipSpec,
};
use crate::ecs::{ParseIdError, Region, SecurityGroupId, Target};

/// What is kept: this target in this group. Two objects with equal edges and one cloud account share it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Region of target and group.
    pub region: Region,
    /// The instance or interface.
    pub target: Target,
    /// The group.
    pub group: SecurityGroupId,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}->{}", self.region, self.target, self.group)
    }
}

/// Why a spec names no edge. The CRD refuses all of these; they come up where its rules were loosened by hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// Neither or both targets.
    #[error("spec: set exactly one of instanceID and networkInterfaceID")]
    Targets,
    /// A field that does not parse.
    #[error("spec.{field}: {source}")]
    Id {
        /// Field of the spec.
        field: &'static str,
        /// What is wrong with it.
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
    /// Kind.
    pub kind: AccountKind,
    /// Namespace of the object that names it; empty for the cluster kind.
    pub namespace: String,
    /// Name.
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
}

impl fmt::Display for AccountKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.kind {
            AccountKind::ClusterCloudAccount => write!(f, "ClusterCloudAccount {}", self.name),
            AccountKind::CloudAccount => write!(f, "CloudAccount {}/{}", self.namespace, self.name),
        }
    }
}

/// Who made the edge, by which cloud account: what the object's annotations say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Joined by this operator, or there before.
    pub origin: Origin,
    /// UID of the cloud account; absent only where somebody removed the annotation.
    pub account_uid: Option<String>,
}

impl Claim {
    /// The claim on an object. A claim without our finalizer does not count: it may have been copied with the manifest.
    #[must_use]
    pub fn of(object: &SecurityGroupMembership) -> Option<Self> {
        if !has_finalizer(object) {
            return None;
        }
        let annotations = object.annotations();
        // A finalizer of ours with no readable claim: somebody edited the object. Adopted never leaves by default.
        let origin = match annotations.get(ORIGIN_ANNOTATION).map(String::as_str) {
            Some("Joined") => Origin::Joined,
            _ => Origin::Adopted,
        };
        Some(Self {
            origin,
            account_uid: annotations.get(ACCOUNT_ANNOTATION).cloned(),
        })
    }
}

/// The version of an object as a number. Versions are comparable numbers by the API's own contract since Kubernetes 1.35.
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
