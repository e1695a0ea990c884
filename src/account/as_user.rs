//! A client of the cloud with the credentials of an account object, for a person with a tool: read with that person's own rights at
//! the API server. Writes nothing.

use std::sync::Arc;

use crate::api::account::Endpoints as EndpointSpec;
use crate::api::{CloudAccount, ClusterCloudAccount, reason};
use crate::clock::Clock;
use crate::ecs::credential::{Environment, METADATA_SERVICE, Network};
use crate::ecs::{Client, Transport};
use crate::shutdown::Shutdown;

use super::check::parse_endpoints;
use super::credentials::{self, Origin, Reading};
use super::directory::Grants;
use super::issued::{Doubt, Issued};
use super::key::AccountKey;
use super::kind::{AccountObject, key_of};

/// An account object of either kind.
#[derive(Clone, Debug)]
pub enum AnyAccount {
    /// Of a namespace.
    Namespaced(CloudAccount),
    /// Of the cluster.
    Cluster(ClusterCloudAccount),
}

/// Why an account gives a person no client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoClient {
    /// The person has no right to what the key is made of.
    #[error("{verb} {resource} in namespace {namespace}")]
    Forbidden {
        /// What the person would do with it.
        verb: &'static str,
        /// The Secret, or the token of a service account.
        resource: &'static str,
        /// Its namespace.
        namespace: String,
    },
    /// The credentials are those of the operator's own process.
    #[error("the credentials of {0} are those of the operator's own process")]
    OperatorsOwn(AccountKey),
    /// Anything else, as the status of the account says it.
    #[error("{0}")]
    Other(String),
}

impl AnyAccount {
    /// Kind, namespace and name.
    #[must_use]
    pub fn key(&self) -> AccountKey {
        match self {
            Self::Namespaced(account) => key_of::<CloudAccount>(account),
            Self::Cluster(account) => key_of::<ClusterCloudAccount>(account),
        }
    }

    /// Which objects may use the account.
    #[must_use]
    pub fn grants(&self) -> Grants {
        match self {
            Self::Namespaced(account) => account.grants(),
            Self::Cluster(account) => account.grants(),
        }
    }

    /// Status of the account.
    #[must_use]
    pub fn status(&self) -> Option<&crate::api::CloudAccountStatus> {
        match self {
            Self::Namespaced(account) => AccountObject::status(account),
            Self::Cluster(account) => AccountObject::status(account),
        }
    }

    /// A client with the credentials of the account. `operator_namespace` is where the Secrets of the cluster kind are.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn cloud_client(
        &self,
        cluster: &kube::Client,
        operator_namespace: &str,
        transport: Arc<dyn Transport>,
        defaults: &EndpointSpec,
    ) -> Result<Client, NoClient> {
        match self {
            Self::Namespaced(account) => {
                cloud_client(account, cluster, operator_namespace, transport, defaults).await
            }
            Self::Cluster(account) => {
                cloud_client(account, cluster, operator_namespace, transport, defaults).await
            }
        }
    }
}

async fn cloud_client<K: AccountObject>(
    account: &K,
    cluster: &kube::Client,
    operator_namespace: &str,
    transport: Arc<dyn Transport>,
    defaults: &EndpointSpec,
) -> Result<Client, NoClient> {
    let source = account.source(operator_namespace);
    match source.origin {
        Origin::RamRole(_) | Origin::Environment => {
            return Err(NoClient::OperatorsOwn(key_of::<K>(account)));
        }
        Origin::Secret { .. } | Origin::Oidc { .. } | Origin::Nothing | Origin::Several => {}
    }
    let other = |result: super::status::CheckResult| NoClient::Other(result.explain(None).1);
    let endpoints = parse_endpoints(account.endpoints(), defaults).map_err(other)?;
    let metadata =
        url::Url::parse(METADATA_SERVICE).map_err(|error| NoClient::Other(error.to_string()))?;
    let network = Network {
        transport: Arc::clone(&transport),
        endpoints: endpoints.clone(),
        metadata,
        clock: Clock::system(),
        shutdown: Shutdown::default(),
    };
    let reading = Reading {
        client: cluster,
        environment: &Environment::Nothing,
        network: &network,
        issued: &Issued::default(),
        spec: account.credential_spec(),
        doubt: Doubt::None,
    };
    let found = match credentials::read(&source, &reading).await {
        Ok(found) => found,
        Err(result) => {
            return Err(match (result.explain(None).0.as_str(), source.origin) {
                (reason::SECRET_FORBIDDEN, Origin::Secret { namespace, .. }) => {
                    NoClient::Forbidden {
                        verb: "get",
                        resource: "secrets",
                        namespace,
                    }
                }
                (reason::TOKEN_FORBIDDEN, Origin::Oidc { namespace, .. }) => NoClient::Forbidden {
                    verb: "create",
                    resource: "serviceaccounts/token",
                    namespace,
                },
                _ => other(result),
            });
        }
    };
    Ok(Client::new(transport, found.credential, endpoints))
}
