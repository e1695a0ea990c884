//! A local service that hands out keys (`ALIBABA_CLOUD_CREDENTIALS_URI`).

use std::fmt;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::Method;
use url::Url;

use super::provider::{DEADLINE, HandedOut, IssuedKey, Network, Provider, ProviderError, no_key};

/// A key from a URL of the operator's own environment.
#[derive(Clone)]
pub struct CredentialsUri(pub Url);

/// Host and port only: the rest may hold a secret of the service.
impl fmt::Debug for CredentialsUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.0.host_str().unwrap_or_default();
        write!(
            f,
            "CredentialsUri({host}:{:?})",
            self.0.port_or_known_default()
        )
    }
}

impl Provider for CredentialsUri {
    fn obtain<'a>(
        &'a self,
        network: &'a Network,
    ) -> BoxFuture<'a, Result<IssuedKey, ProviderError>> {
        async move {
            // The path or the query may hold a secret of the service.
            let service = format!("ALIBABA_CLOUD_CREDENTIALS_URI at {}", self.0.authority());
            let fix = "let it answer with JSON that has AccessKeyId, AccessKeySecret, SecurityToken and Expiration";
            let refuse =
                |what: &str| no_key("spec.credentials.environment", &service, what, fix);
            let url = self.0.as_str();
            match network.fetch(Method::GET, url, None, DEADLINE).await {
                Ok((200, body)) => HandedOut::read(&body).map_err(|what| refuse(&what)),
                Ok((status, _)) => Err(refuse(&format!("it answered with HTTP {status}"))),
                Err(error) => Err(refuse(&error.to_string())),
            }
        }
        .boxed()
    }
}
