//! The RAM role of the ECS instance that the operator runs on, from the metadata service: hardened mode (v2) first, then v1.

use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Method;

use crate::ecs::transport::TransportError;

use super::provider::{HandedOut, IssuedKey, Network, Provider, ProviderError, no_key};

/// A key of the instance's role.
#[derive(Clone, Debug)]
pub struct RamRole {
    /// The field of the spec, for messages.
    pub field: &'static str,
    /// Name of the role; `None` asks the metadata service for it.
    pub name: Option<String>,
    /// Whether v1, which has no token, is never asked.
    pub hardened_only: bool,
}

/// Longest wait for one answer. The service is on the same machine: the vendor's SDKs wait 1 s.
const DEADLINE: Duration = Duration::from_secs(2);

/// Length of the token's life in seconds: what the vendor's SDKs ask for.
const TOKEN_SECONDS: &str = "21600";

const TOKEN: &str = "latest/api/token";
const ROLES: &str = "latest/meta-data/ram/security-credentials/";

impl Provider for RamRole {
    fn obtain<'a>(
        &'a self,
        network: &'a Network,
    ) -> BoxFuture<'a, Result<IssuedKey, ProviderError>> {
        async move {
            let token = self.token(network).await?;
            let token = token.as_deref();
            let name = match &self.name {
                Some(name) => name.clone(),
                None => self.role_name(network, token).await?,
            };
            let body = self.get(network, &format!("{ROLES}{name}"), token).await?;
            HandedOut::read(&body).map_err(|what| self.refuse(network, &what))
        }
        .boxed()
    }
}

impl RamRole {
    /// A token of hardened mode; `None` where the service knows none and v1 may be asked.
    async fn token(&self, network: &Network) -> Result<Option<String>, ProviderError> {
        let time = (
            "x-aliyun-ecs-metadata-token-ttl-seconds",
            TOKEN_SECONDS.to_owned(),
        );
        let url = format!("{}{TOKEN}", network.metadata);
        let answer = network.fetch(Method::PUT, &url, Some(time), DEADLINE).await;
        let (status, body) = answer.map_err(|error| self.silent(network, &error))?;
        let is_token = |text: &str| {
            (1..=1_024).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic())
        };
        let text = std::str::from_utf8(&body)
            .map(str::trim)
            .unwrap_or_default();
        if status == 200 && is_token(text) && !text.starts_with('<') {
            return Ok(Some(text.to_owned()));
        }
        if status == 200 {
            return Err(self.refuse(network, "it answered with a page instead of a token"));
        }
        if self.hardened_only {
            let what = format!("it gave no token (HTTP {status}), and v1 is off");
            return Err(self.refuse(network, &what));
        }
        Ok(None)
    }

    async fn role_name(
        &self,
        network: &Network,
        token: Option<&str>,
    ) -> Result<String, ProviderError> {
        let body = self.get(network, ROLES, token).await?;
        let text = std::str::from_utf8(&body)
            .map(str::trim)
            .unwrap_or_default();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
        if (1..=64).contains(&text.len()) && text.bytes().all(allowed) {
            return Ok(text.to_owned());
        }
        Err(self.refuse(
            network,
            "it answered with something else than the name of one role",
        ))
    }

    async fn get(
        &self,
        network: &Network,
        path: &str,
        token: Option<&str>,
    ) -> Result<Bytes, ProviderError> {
        let header = token.map(|token| ("x-aliyun-ecs-metadata-token", token.to_owned()));
        let url = format!("{}{path}", network.metadata);
        let answer = network.fetch(Method::GET, &url, header, DEADLINE).await;
        let (status, body) = answer.map_err(|error| self.silent(network, &error))?;
        match status {
            200 => Ok(body),
            404 => Err(self.refuse(network, "the instance has no such role")),
            status => Err(self.refuse(network, &format!("it answered with HTTP {status}"))),
        }
    }

    fn silent(&self, network: &Network, error: &TransportError) -> ProviderError {
        self.refuse(network, &error.to_string())
    }

    fn refuse(&self, network: &Network, what: &str) -> ProviderError {
        let host = network.metadata.authority();
        let service = format!("the metadata service at {host}");
        let fix = "attach the role to the ECS instance of the operator and let its pod reach the metadata service, or choose another kind of credentials";
        no_key(self.field, &service, what, fix)
    }
}
