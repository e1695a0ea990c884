//! The two calls of STS that hand out keys.

use serde::Deserialize;
use zeroize::Zeroize as _;

use crate::ecs::access_key::Credential;
use crate::ecs::action::Action;
use crate::ecs::error::Error;
use crate::ecs::redact::Secrets;
use crate::ecs::request::{self, SigningInput};
use crate::ecs::response;

use super::provider::{HandedOut, IssuedKey, Network};

/// Calls STS for a key of a role: signed with `signer`, or unsigned, with the `secret` parameter as the proof.
pub(super) async fn call(
    network: &Network,
    action: Action,
    parameters: Vec<(&'static str, String)>,
    secret: Option<(&'static str, &str)>,
    signer: Option<&Credential>,
) -> Result<IssuedKey, Error> {
    let input = SigningInput {
        now: network.clock.now(),
        nonce: network.clock.uuid().to_string(),
    };
    let mut form: Vec<(String, String)> = parameters
        .into_iter()
        .chain(secret.map(|(name, value)| (name, value.to_owned())))
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    let mut request = request::build(&network.endpoints.sts(), action, &form, signer, &input);
    for (_, value) in &mut form {
        value.zeroize();
    }
    request.extensions_mut().insert(network.shutdown.clone());
    if let Some(authorities) = network.endpoints.authorities() {
        request.extensions_mut().insert(authorities.clone());
    }
    let answer = network
        .transport
        .send(request, action.deadline())
        .await
        .map_err(|source| Error::Transport { action, source })?;
    let secrets = match (secret, signer) {
        (Some((_, secret)), _) => Secrets::in_texts([secret].into_iter()),
        (None, Some(signer)) => Secrets::of(signer),
        (None, None) => Secrets::in_texts(std::iter::empty()),
    };
    let response = response::parse(action, &answer, secrets)?;
    let keys: Result<Answer, _> = serde_json::from_slice(answer.body());
    keys.map_err(|_| response.bad("it holds no Credentials"))?
        .credentials
        .issued()
        .map_err(|what| response.bad(&what))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    credentials: HandedOut,
}
