//! RRSA: a service account token, exchanged at STS for a key of a role (`AssumeRoleWithOIDC`).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use secrecy::{ExposeSecret as _, SecretString};

use crate::api::reason;
use crate::ecs::action::Action;

use super::provider::{IssuedKey, Network, Provider, ProviderError, misconfigured};
use super::sts;

/// The audience of tokens for STS.
pub const AUDIENCE: &str = "sts.aliyuncs.com";

/// The name of a session for which the spec has none.
pub(super) const SESSION_NAME: &str = "security-group-operator";

/// Where a service account token comes from. It is asked for each exchange: tokens are short-lived.
pub trait TokenSource: fmt::Debug + Send + Sync {
    /// A token for [`AUDIENCE`].
    fn token(&self) -> BoxFuture<'_, Result<SecretString, ProviderError>>;
}

/// A key of a role for a service account token.
#[derive(Clone, Debug)]
pub struct Oidc {
    /// The field of the spec, for messages.
    pub field: &'static str,
    /// ARN of the role.
    pub role_arn: String,
    /// ARN of the OIDC provider: the cluster as the cloud knows it.
    pub provider_arn: String,
    /// Name of the session; `None` is the operator's own.
    pub session_name: Option<String>,
    /// Where the token comes from.
    pub token: Arc<dyn TokenSource>,
}

impl Provider for Oidc {
    fn obtain<'a>(
        &'a self,
        network: &'a Network,
    ) -> BoxFuture<'a, Result<IssuedKey, ProviderError>> {
        async move {
            let token = self.token.token().await?;
            let session = self.session_name.as_deref().unwrap_or(SESSION_NAME);
            let parameters = vec![
                ("RoleArn", self.role_arn.clone()),
                ("OIDCProviderArn", self.provider_arn.clone()),
                ("RoleSessionName", session.to_owned()),
            ];
            let action = Action::AssumeRoleWithOidc;
            let token = Some(("OIDCToken", token.expose_secret()));
            let issued = sts::call(network, action, parameters, token, None).await;
            issued.map_err(|error| ProviderError::Sts {
                field: self.field,
                error,
            })
        }
        .boxed()
    }
}

/// The token that the kubelet keeps fresh in a file.
#[derive(Clone, Debug)]
pub struct TokenFile(pub PathBuf);

impl TokenSource for TokenFile {
    fn token(&self) -> BoxFuture<'_, Result<SecretString, ProviderError>> {
        let path = self.0.clone();
        async move {
            let shown = path.display().to_string();
            let read = tokio::task::spawn_blocking(move || std::fs::read_to_string(path)).await;
            let refuse = |what: String| {
                misconfigured(
                    reason::TOKEN_UNUSABLE,
                    format!("spec.credentials.environment: ALIBABA_CLOUD_OIDC_TOKEN_FILE {shown}: {what}; mount a projected service account token with the audience {AUDIENCE} there"),
                )
            };
            match read {
                Ok(Ok(text)) if !text.trim().is_empty() => Ok(SecretString::from(text.trim())),
                Ok(Ok(_)) => Err(refuse("the file is empty".to_owned())),
                Ok(Err(error)) => Err(refuse(error.to_string())),
                Err(_) => Err(refuse("reading it was cut off".to_owned())),
            }
        }
        .boxed()
    }
}
