//! The common trait of `CloudAccount` and `ClusterCloudAccount`, with two impls. Pure: builds API handles but makes no call.

use std::collections::BTreeMap;
use std::fmt::Debug;

use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::api::account::{CallLimits, CloudAccountStatus, Endpoints, LimitedApi};
use crate::api::membership::AccountKind;
use crate::api::{CloudAccount, ClusterCloudAccount};
use crate::ecs::Action;
use crate::kubernetes::{ObjectUid, WatchScope};
use crate::watched::Watched;

use super::credentials::{Origin, Source};
use super::directory::Grants;
use super::key::{AccountKey, CredentialSpec};

/// The common interface of the two account kinds.
pub trait AccountObject:
    Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static
{
    /// The kind.
    const KIND: AccountKind;
    /// The API to write one object.
    fn api(client: &kube::Client, namespace: &str) -> Api<Self>;
    /// The API to watch the objects in `scope`; those of the cluster kind are in every one. An unreadable object does not
    /// stop the others.
    fn watched(client: &kube::Client, scope: &WatchScope) -> Api<Watched<Self>>;
    /// Source of the account's credentials.
    fn source(&self, operator_namespace: &str) -> Source;
    /// Endpoint overrides of the spec.
    fn endpoints(&self) -> Option<&Endpoints>;
    /// What a check of the account is about.
    fn credential_spec(&self) -> CredentialSpec;
    /// Which objects may use the account.
    fn grants(&self) -> Grants;
    /// The limits of its calls, in calls per minute and region.
    fn limits(&self) -> BTreeMap<Action, u32>;
    /// Status of the account.
    fn status(&self) -> Option<&CloudAccountStatus>;
}

impl AccountObject for CloudAccount {
    const KIND: AccountKind = AccountKind::CloudAccount;

    fn api(client: &kube::Client, namespace: &str) -> Api<Self> {
        Api::namespaced(client.clone(), namespace)
    }

    fn watched(client: &kube::Client, scope: &WatchScope) -> Api<Watched<Self>> {
        scope.api(client)
    }

    fn source(&self, _operator_namespace: &str) -> Source {
        let credentials = &self.spec.credentials;
        let namespace = self.namespace().unwrap_or_default();
        let origin = match (&credentials.secret_ref, &credentials.oidc) {
            (Some(secret), None) => Origin::secret(namespace, secret),
            (None, Some(oidc)) => Origin::oidc(namespace, oidc),
            (None, None) => Origin::Nothing,
            (Some(_), Some(_)) => Origin::Several,
        };
        Source {
            origin,
            assume_role: credentials.assume_role.clone(),
        }
    }

    fn endpoints(&self) -> Option<&Endpoints> {
        None
    }

    fn credential_spec(&self) -> CredentialSpec {
        CredentialSpec::of(ObjectUid::of(self), &self.spec.credentials)
    }

    fn grants(&self) -> Grants {
        Grants::OwnNamespace
    }

    fn limits(&self) -> BTreeMap<Action, u32> {
        by_action(self.spec.limits.as_ref())
    }

    fn status(&self) -> Option<&CloudAccountStatus> {
        self.status.as_ref()
    }
}

impl AccountObject for ClusterCloudAccount {
    const KIND: AccountKind = AccountKind::ClusterCloudAccount;

    fn api(client: &kube::Client, _namespace: &str) -> Api<Self> {
        Api::all(client.clone())
    }

    fn watched(client: &kube::Client, _scope: &WatchScope) -> Api<Watched<Self>> {
        Api::all(client.clone())
    }

    fn source(&self, operator_namespace: &str) -> Source {
        let credentials = &self.spec.credentials;
        let namespace = || operator_namespace.to_owned();
        let mut named = [
            credentials
                .secret_ref
                .as_ref()
                .map(|secret| Origin::secret(namespace(), secret)),
            credentials
                .oidc
                .as_ref()
                .map(|oidc| Origin::oidc(namespace(), oidc)),
            credentials
                .ecs_ram_role
                .as_ref()
                .map(|role| Origin::RamRole(role.name.clone())),
            credentials
                .environment
                .as_ref()
                .map(|_| Origin::Environment),
        ]
        .into_iter()
        .flatten();
        let origin = match (named.next(), named.next()) {
            (Some(origin), None) => origin,
            (None, _) => Origin::Nothing,
            (Some(_), Some(_)) => Origin::Several,
        };
        Source {
            origin,
            assume_role: credentials.assume_role.clone(),
        }
    }

    fn endpoints(&self) -> Option<&Endpoints> {
        self.spec.endpoints.as_ref()
    }

    fn credential_spec(&self) -> CredentialSpec {
        let spec = (&self.spec.credentials, &self.spec.endpoints);
        CredentialSpec::of(ObjectUid::of(self), spec)
    }

    fn grants(&self) -> Grants {
        Grants::Listed(self.spec.grants.clone())
    }

    fn limits(&self) -> BTreeMap<Action, u32> {
        by_action(self.spec.limits.as_ref())
    }

    fn status(&self) -> Option<&CloudAccountStatus> {
        self.status.as_ref()
    }
}

fn by_action(limits: Option<&CallLimits>) -> BTreeMap<Action, u32> {
    let limits = limits.into_iter().flat_map(|limits| &limits.0);
    let by_action = limits.map(|(api, limit)| {
        let action = match api {
            LimitedApi::JoinSecurityGroup => Action::JoinSecurityGroup,
            LimitedApi::LeaveSecurityGroup => Action::LeaveSecurityGroup,
            LimitedApi::DescribeInstances => Action::DescribeInstances,
            LimitedApi::DescribeNetworkInterfaces => Action::DescribeNetworkInterfaces,
            LimitedApi::DescribeSecurityGroups => Action::DescribeSecurityGroups,
        };
        (action, *limit)
    });
    by_action.collect()
}

/// The key of an account object.
pub fn key_of<K: AccountObject>(account: &impl ResourceExt) -> AccountKey {
    AccountKey {
        kind: K::KIND,
        namespace: account.namespace().unwrap_or_default(),
        name: account.name_any(),
    }
}
