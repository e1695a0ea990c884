//! Verification of the service account tokens that `AssumeRoleWithOIDC` exchanges: real signatures (RS256, ES256) under the keys
//! of an OIDC provider. Pure.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::jiff::Timestamp;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;

/// Public keys in the form of `/openid/v1/jwks` of the API server.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Jwks {
    keys: Vec<Jwk>,
}

/// One public key (RFC 7517). Fields that the verification does not need are ignored.
#[derive(Clone, Debug, Deserialize)]
#[serde(tag = "kty")]
enum Jwk {
    /// RSA.
    #[serde(rename = "RSA")]
    Rsa { kid: String, n: String, e: String },
    /// An elliptic curve; only P-256 is known.
    #[serde(rename = "EC")]
    Ec {
        kid: String,
        crv: String,
        x: String,
        y: String,
    },
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: String,
}

/// What a token says, verified.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Claims {
    /// Who signed it.
    pub iss: String,
    /// Whom it speaks of: `system:serviceaccount:<namespace>:<name>`.
    pub sub: String,
    /// For whom it was made.
    #[serde(deserialize_with = "audience")]
    pub aud: Vec<String>,
    /// Its end, in seconds since 1970.
    pub exp: i64,
    /// Its start, in seconds since 1970.
    #[serde(default)]
    pub nbf: i64,
}

/// Why a token is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// It is no signed token.
    Malformed,
    /// No key of the provider made its signature.
    Signature,
    /// Its time is over or has not come.
    Expired,
}

impl Jwks {
    /// The claims of a token that one of the keys has signed and whose time is now.
    ///
    /// # Errors
    /// Why the token is not taken.
    pub fn verify(&self, token: &str, now: Timestamp) -> Result<Claims, TokenError> {
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        let header: Header = json(header)?;
        let signature = bytes(signature)?;
        let verified = self
            .keys
            .iter()
            .any(|key| key.has_signed(&header, signed.as_bytes(), &signature));
        if !verified {
            return Err(TokenError::Signature);
        }
        let claims: Claims = json(claims)?;
        let second = now.as_second();
        if claims.exp <= second || claims.nbf > second {
            return Err(TokenError::Expired);
        }
        Ok(claims)
    }
}

impl Jwk {
    fn has_signed(&self, header: &Header, signed: &[u8], signature: &[u8]) -> bool {
        match self {
            Self::Rsa { kid, n, e } => {
                let (Ok(n), Ok(e)) = (bytes(n), bytes(e)) else {
                    return false;
                };
                *kid == header.kid
                    && header.alg == "RS256"
                    && RsaPublicKeyComponents { n: &n, e: &e }
                        .verify(&RSA_PKCS1_2048_8192_SHA256, signed, signature)
                        .is_ok()
            }
            Self::Ec { kid, crv, x, y } => {
                let (Ok(x), Ok(y)) = (bytes(x), bytes(y)) else {
                    return false;
                };
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                *kid == header.kid
                    && header.alg == "ES256"
                    && crv == "P-256"
                    && UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point)
                        .verify(signed, signature)
                        .is_ok()
            }
        }
    }
}

fn bytes(text: &str) -> Result<Vec<u8>, TokenError> {
    URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|_| TokenError::Malformed)
}

fn json<T: DeserializeOwned>(text: &str) -> Result<T, TokenError> {
    serde_json::from_slice(&bytes(text)?).map_err(|_| TokenError::Malformed)
}

/// One audience or a list of them.
fn audience<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(text) => vec![text],
        Audience::Many(texts) => texts,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::simulator::test_issuer::Issuer;

    #[test]
    fn only_a_signed_token_of_now_is_taken() {
        let issuer = Issuer::new();
        let keys: Jwks = serde_json::from_value(issuer.jwks.clone()).unwrap();
        let now = Timestamp::from_second(1_000).unwrap();
        let claims =
            |nbf, exp| json!({"iss": "i", "sub": "s", "aud": ["a"], "nbf": nbf, "exp": exp});
        let good = issuer.sign(&claims(900, 1_100));
        assert_eq!(keys.verify(&good, now).unwrap().aud, ["a"]);
        for (nbf, exp) in [(900, 1_000), (1_001, 1_100)] {
            let token = issuer.sign(&claims(nbf, exp));
            assert_eq!(keys.verify(&token, now), Err(TokenError::Expired));
        }
        let stranger = Issuer::new().sign(&claims(900, 1_100));
        assert_eq!(keys.verify(&stranger, now), Err(TokenError::Signature));
        // The claims of one token under the signature of another.
        let later = issuer.sign(&claims(900, 9_999));
        let (_, signature) = later.rsplit_once('.').unwrap();
        let (signed, _) = good.rsplit_once('.').unwrap();
        let mixed = format!("{signed}.{signature}");
        assert_eq!(keys.verify(&mixed, now), Err(TokenError::Signature));
        for text in ["", "a", "a.b", "a.b.c", "..", "{}.{}.{}"] {
            assert_eq!(keys.verify(text, now), Err(TokenError::Malformed), "{text}");
        }
    }
}
