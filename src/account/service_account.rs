//! Tokens of service accounts for STS, requested from the API server (`TokenRequest`).

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::Api;
use kube::api::PostParams;
use secrecy::SecretString;

use crate::api::reason;
use crate::ecs::credential::{AUDIENCE, ProviderError, TokenSource};
use crate::kubernetes::{Error, with_deadline};

/// The service account of an account object.
#[derive(Clone)]
pub struct RequestedToken {
    /// The cluster.
    pub client: kube::Client,
    /// Namespace of the service account: the account's own, or the operator's.
    pub namespace: String,
    /// Name of the service account.
    pub name: String,
}

impl std::fmt::Debug for RequestedToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RequestedToken({}/{})", self.namespace, self.name)
    }
}

/// Life of a token in seconds: the shortest that the API server issues. It is exchanged at once.
const SECONDS: i64 = 600;

const FIELD: &str = "spec.credentials.oidc.serviceAccountName";

impl TokenSource for RequestedToken {
    fn token(&self) -> BoxFuture<'_, Result<SecretString, ProviderError>> {
        async move {
            let accounts: Api<ServiceAccount> =
                Api::namespaced(self.client.clone(), &self.namespace);
            let request = TokenRequest {
                spec: Some(TokenRequestSpec {
                    audiences: Some(vec![AUDIENCE.to_owned()]),
                    expiration_seconds: Some(SECONDS),
                    ..TokenRequestSpec::default()
                }),
                ..TokenRequest::default()
            };
            let parameters = PostParams::default();
            let call = accounts.create_token_request(&self.name, &parameters, &request);
            let answer = with_deadline(call)
                .await
                .map_err(|error| self.explain(&error))?;
            let token = answer.status.and_then(|status| status.token);
            let token = token.filter(|token| !token.is_empty());
            token
                .map(SecretString::from)
                .ok_or_else(|| self.unavailable("the answer holds no token"))
        }
        .boxed()
    }
}

impl RequestedToken {
    fn explain(&self, error: &Error) -> ProviderError {
        let Self {
            namespace, name, ..
        } = self;
        match error.code() {
            Some(404) => ProviderError::Misconfigured {
                reason: reason::SERVICE_ACCOUNT_NOT_FOUND,
                message: format!(
                    "{FIELD}: ServiceAccount {name} does not exist in namespace {namespace}; create it"
                ),
            },
            Some(403) => ProviderError::Misconfigured {
                reason: reason::TOKEN_FORBIDDEN,
                message: format!(
                    "{FIELD}: the operator may not request tokens of ServiceAccount {name} in namespace {namespace}; allow it create on serviceaccounts/token with resourceNames: [{name}] by a Role and a RoleBinding there"
                ),
            },
            _ => self.unavailable(&error.to_string()),
        }
    }

    fn unavailable(&self, what: &str) -> ProviderError {
        let Self {
            namespace, name, ..
        } = self;
        ProviderError::Unavailable {
            message: format!(
                "{FIELD}: no token of ServiceAccount {name} in namespace {namespace} could be requested: {what}"
            ),
        }
    }
}
