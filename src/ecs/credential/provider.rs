//! What all kinds of credentials have in common: the [`Provider`], its errors, and the network that it asks.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use http::{Method, Request};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use url::Url;

use crate::api::reason;
use crate::clock::Clock;
use crate::ecs::access_key::Credential;
use crate::ecs::endpoint::Endpoints;
use crate::ecs::error::Error;
use crate::ecs::transport::{Transport, TransportError};
use crate::shutdown::Shutdown;

/// One kind of credentials. `docs/dev/extend.md` says how to add one.
pub trait Provider: fmt::Debug + Send + Sync {
    /// Obtains a key now.
    fn obtain<'a>(
        &'a self,
        network: &'a Network,
    ) -> BoxFuture<'a, Result<IssuedKey, ProviderError>>;
}

/// A key and the end of its life.
#[derive(Clone, Debug)]
pub struct IssuedKey {
    /// The key.
    pub credential: Credential,
    /// When it ends; `None` if that is not known, as for a key that somebody stored.
    pub expires: Option<Timestamp>,
}

/// What providers use to ask for keys.
#[derive(Clone)]
pub struct Network {
    /// Sends the requests.
    pub transport: Arc<dyn Transport>,
    /// The endpoints of the account, of which STS is asked.
    pub endpoints: Endpoints,
    /// Base URL of the metadata service.
    pub metadata: Url,
    /// Time and nonces of signatures.
    pub clock: Clock,
    /// No request is sent when another process may act.
    pub shutdown: Shutdown,
}

/// Base URL of the metadata service of every ECS instance.
pub const METADATA_SERVICE: &str = "http://100.100.100.200";

/// Why a provider has no key. Never contains a key, a token or the text of an answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// Somebody must put something right.
    #[error("{message}")]
    Misconfigured {
        /// Reason of the condition.
        reason: &'static str,
        /// The field, what is wrong, and the fix.
        message: String,
    },
    /// What the key comes from cannot be asked now.
    #[error("{message}")]
    Unavailable {
        /// The field, what happened, and what to check.
        message: String,
    },
    /// STS refused, or gave no answer.
    #[error("{field}: {error}")]
    Sts {
        /// The field of the spec.
        field: &'static str,
        /// What STS said.
        error: Error,
    },
}

/// Longest wait for the answer of a credentials URI.
pub(super) const DEADLINE: Duration = Duration::from_secs(5);

/// A key as the metadata service and credentials URIs hand it out.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct HandedOut {
    #[serde(default)]
    code: Option<String>,
    #[serde(default)]
    access_key_id: String,
    #[serde(default)]
    access_key_secret: String,
    #[serde(default)]
    security_token: String,
    #[serde(default)]
    expiration: String,
}

impl HandedOut {
    /// The key of an answer; the error says what the answer is instead, and shows nothing of it.
    pub(super) fn read(body: &[u8]) -> Result<IssuedKey, String> {
        if body.trim_ascii_start().starts_with(b"<") {
            return Err("it answered with HTML or XML instead of JSON".to_owned());
        }
        let handed: Self = serde_json::from_slice(body)
            .map_err(|_| "it answered with something that is not JSON with a key".to_owned())?;
        if handed.code.as_deref().is_some_and(|code| code != "Success") {
            return Err("it answered that it has no key (Code is not Success)".to_owned());
        }
        handed.issued()
    }

    pub(super) fn issued(self) -> Result<IssuedKey, String> {
        let credential = Credential::new(
            self.access_key_id,
            self.access_key_secret,
            Some(self.security_token.into()),
        )
        .map_err(|error| format!("it answered with a key that cannot be used: {error}"))?;
        let expires = self
            .expiration
            .parse()
            .map_err(|_| "it answered with a key without a time of expiry".to_owned())?;
        Ok(IssuedKey {
            credential,
            expires: Some(expires),
        })
    }
}

impl Network {
    /// Sends a plain request to a service of this machine or this network, and returns status and body.
    pub(super) async fn fetch(
        &self,
        method: Method,
        url: &str,
        header: Option<(&'static str, String)>,
        deadline: Duration,
    ) -> Result<(u16, bytes::Bytes), TransportError> {
        let mut request = Request::builder().method(method).uri(url);
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let mut request =
            request
                .body(bytes::Bytes::new())
                .map_err(|_| TransportError::Connect {
                    cause: "the URL or a header of the request is none".to_owned(),
                })?;
        request.extensions_mut().insert(self.shutdown.clone());
        let answer = self.transport.send(request, deadline).await?;
        Ok((answer.status().as_u16(), answer.into_body()))
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network")
            .field("endpoints", &self.endpoints)
            .finish_non_exhaustive()
    }
}

pub(super) fn misconfigured(reason: &'static str, message: impl Into<String>) -> ProviderError {
    ProviderError::Misconfigured {
        reason,
        message: message.into(),
    }
}

/// The metadata service, or another service of this kind, gave no key.
pub(super) fn no_key(field: &str, service: &str, what: &str, fix: &str) -> ProviderError {
    misconfigured(
        reason::NO_KEY_HANDED_OUT,
        format!("{field}: {service}: {what}; {fix}"),
    )
}
