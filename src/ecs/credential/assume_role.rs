//! A role, assumed at STS with the key of another provider (`AssumeRole`).

use std::fmt;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::ecs::action::Action;

use super::oidc::SESSION_NAME;
use super::provider::{IssuedKey, Network, Provider, ProviderError};
use super::sts;

/// A key of a role for the key of another provider. Chains have one step: STS refuses longer sessions of longer ones.
#[derive(Clone)]
pub struct AssumeRole {
    /// Who assumes the role.
    pub base: Arc<dyn Provider>,
    /// ARN of the role.
    pub role_arn: String,
    /// Name of the session; `None` is the operator's own.
    pub session_name: Option<String>,
    /// The external ID that the trust policy asks for.
    pub external_id: Option<String>,
    /// Length of the session in seconds.
    pub duration_seconds: i32,
}

/// Without the external ID.
impl fmt::Debug for AssumeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AssumeRole")
            .field("base", &self.base)
            .field("role_arn", &self.role_arn)
            .finish_non_exhaustive()
    }
}

impl Provider for AssumeRole {
    fn obtain<'a>(
        &'a self,
        network: &'a Network,
    ) -> BoxFuture<'a, Result<IssuedKey, ProviderError>> {
        async move {
            let base = self.base.obtain(network).await?;
            let session = self.session_name.as_deref().unwrap_or(SESSION_NAME);
            let mut parameters = vec![
                ("RoleArn", self.role_arn.clone()),
                ("RoleSessionName", session.to_owned()),
                ("DurationSeconds", self.duration_seconds.to_string()),
            ];
            parameters.extend(self.external_id.clone().map(|id| ("ExternalId", id)));
            let signer = Some(&base.credential);
            let issued = sts::call(network, Action::AssumeRole, parameters, None, signer).await;
            issued.map_err(|error| ProviderError::Sts {
                field: "spec.credentials.assumeRole",
                error,
            })
        }
        .boxed()
    }
}
