//! A key as it is: of a Secret or of the environment.

use futures::FutureExt as _;
use futures::future::BoxFuture;

use crate::ecs::access_key::Credential;

use super::provider::{IssuedKey, Network, Provider, ProviderError};

/// A key that somebody stored, handed out as it is.
#[derive(Clone, Debug)]
pub struct StaticKey(pub Credential);

impl Provider for StaticKey {
    fn obtain<'a>(
        &'a self,
        _network: &'a Network,
    ) -> BoxFuture<'a, Result<IssuedKey, ProviderError>> {
        let key = IssuedKey {
            credential: self.0.clone(),
            expires: None,
        };
        std::future::ready(Ok(key)).boxed()
    }
}
