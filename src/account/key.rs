//! The names of account objects and of cloud accounts, and what tells one check of an account from another. Only types.

use std::fmt;

use k8s_openapi::api::core::v1::ObjectReference;
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::api::membership::{AccountKind, AccountRef};
use crate::ecs::{AccountUid, Endpoints, Region};
use crate::kubernetes::ObjectUid;

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
    /// The account that an object in `namespace` names. No object can name another namespace.
    #[must_use]
    pub fn of(account: &AccountRef, namespace: &str) -> Self {
        Self {
            kind: account.kind,
            namespace: match account.kind {
                AccountKind::ClusterCloudAccount => String::new(),
                AccountKind::CloudAccount => namespace.to_owned(),
            },
            name: account.name.clone(),
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

/// A cloud account and the endpoints of its calls. Two objects of the same cloud account whose endpoints differ make different
/// calls: either's endpoints may be the only ones that answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CloudAccountId {
    /// UID of the cloud account, as STS at these endpoints names it.
    pub uid: AccountUid,
    /// Where its calls go.
    pub endpoints: Endpoints,
}

/// What a check of an account is about: the UID of the object, and the credentials and endpoints of its spec. Grants, limits and labels
/// are no part of it: an edit of them needs no other check. The default is that of no account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CredentialSpec {
    uid: Option<ObjectUid>,
    /// Of credentials and endpoints, which may hold certificates.
    digest: [u8; 32],
}

impl CredentialSpec {
    /// That of the account with this UID, with these credentials and endpoints.
    #[must_use]
    pub fn of(uid: Option<ObjectUid>, spec: impl Serialize) -> Self {
        // Specs are JSON.
        let spec = serde_json::to_vec(&spec).unwrap_or_default();
        let digest = Sha256::digest(spec).into();
        Self { uid, digest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_account_is_shown_in_one_line() {
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
