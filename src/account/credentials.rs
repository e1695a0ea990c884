//! Resolves an account's spec to a credential: reads one Secret by name, or the operator's own environment. Reads only.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::ResourceExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroize as _;

use crate::api::account::SecretKeys;
use crate::api::reason;
use crate::ecs::Credential;

use super::status::CheckResult;

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Secret.
    Secret {
        /// Namespace of the Secret: the account's own, or the operator's.
        namespace: String,
        /// Name of the Secret.
        name: String,
        /// Keys of the three values in the Secret.
        keys: SecretKeys,
    },
    /// The operator's own environment.
    Environment,
    /// The spec names no source; the CRD rejects such a spec.
    Nothing,
}

/// A credential and a version that changes with it.
pub struct Found {
    /// The credential.
    pub credential: Credential,
    /// Version of the Secret; empty for the environment, which never changes.
    pub version: String,
}

/// Reads the credential.
///
/// # Errors
/// The check result to report: why there is no credential.
pub async fn read(
    client: &kube::Client,
    source: &Source,
    environment: Option<&Credential>,
) -> Result<Found, CheckResult> {
    match source {
        Source::Secret {
            namespace,
            name,
            keys,
        } => read_secret(client, namespace, name, keys).await,
        Source::Environment => environment
            .map(|credential| Found {
                credential: credential.clone(),
                version: String::new(),
            })
            .ok_or_else(|| missing(
                reason::ENVIRONMENT_EMPTY,
                "spec.credentials.environment: the operator's process has no ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET; set them in its Deployment or use secretRef".to_owned(),
            )),
        Source::Nothing => Err(missing(
            reason::SECRET_NOT_FOUND,
            "spec.credentials.secretRef must be set".to_owned(),
        )),
    }
}

async fn read_secret(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    keys: &SecretKeys,
) -> Result<Found, CheckResult> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let field = "spec.credentials.secretRef.name";
    match crate::kubernetes::with_deadline(secrets.get_opt(name)).await {
        Ok(Some(mut secret)) => parse(&mut secret, namespace, name, keys),
        Ok(None) => Err(missing(
            reason::SECRET_NOT_FOUND,
            format!(
                "{field}: Secret {name} does not exist in namespace {namespace}; create it with the keys {} and {}",
                keys.access_key_id, keys.access_key_secret
            ),
        )),
        Err(crate::kubernetes::Error::Api(kube::Error::Api(status))) if status.is_forbidden() => {
            Err(missing(
                reason::SECRET_FORBIDDEN,
                format!(
                    "{field}: the operator may not read Secrets in namespace {namespace}; bind the ClusterRole security-group-operator-secrets to it there with a RoleBinding"
                ),
            ))
        }
        Err(error) => Err(CheckResult::Unknown(format!(
            "{field}: Secret {name} in namespace {namespace} could not be read: {error}"
        ))),
    }
}

/// Parses the values and zeroizes the data of the Secret.
fn parse(
    secret: &mut Secret,
    namespace: &str,
    name: &str,
    keys: &SecretKeys,
) -> Result<Found, CheckResult> {
    let found = parse_values(secret, namespace, name, keys);
    for value in secret.data.iter_mut().flat_map(BTreeMap::values_mut) {
        value.0.zeroize();
    }
    found
}

fn parse_values(
    secret: &Secret,
    namespace: &str,
    name: &str,
    keys: &SecretKeys,
) -> Result<Found, CheckResult> {
    let invalid = |what: String| missing(reason::SECRET_INVALID, what);
    let secret_name = format!("Secret {namespace}/{name}");
    let value = |key: &str| -> Result<Option<SecretString>, CheckResult> {
        let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else {
            return match near_miss(secret, key) {
                Some(found) => Err(invalid(format!(
                    "{secret_name} has {found}, must have {key}"
                ))),
                None => Ok(None),
            };
        };
        let text = std::str::from_utf8(&bytes.0).map_err(|_| {
            invalid(format!(
                "{secret_name}: key {key} is not text; write the value as Alibaba Cloud shows it"
            ))
        })?;
        Ok(Some(text.into()))
    };
    let required = |key: &str| {
        value(key)?.ok_or_else(|| {
            invalid(format!(
                "{secret_name}: key {key} is missing; add it, or name another key in spec.credentials.secretRef.keys"
            ))
        })
    };
    let credential = Credential::new(
        required(&keys.access_key_id)?.expose_secret(),
        required(&keys.access_key_secret)?,
        value(&keys.security_token)?,
    )
    .map_err(|error| invalid(format!("{secret_name}: {error}")))?;
    Ok(Found {
        credential,
        version: secret.resource_version().unwrap_or_default(),
    })
}

/// A key that differs from the expected one only in case, dashes and underscores.
fn near_miss<'a>(secret: &'a Secret, expected: &str) -> Option<&'a str> {
    let plain = |key: &str| key.replace(['-', '_'], "").to_ascii_lowercase();
    let expected = plain(expected);
    let mut keys = secret.data.iter().flat_map(BTreeMap::keys);
    keys.find(|key| plain(key) == expected).map(String::as_str)
}

fn missing(reason: &'static str, message: String) -> CheckResult {
    CheckResult::NoCredentials { reason, message }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;

    use super::*;

    fn secret(values: &[(&str, &[u8])]) -> Secret {
        let values = values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())));
        Secret {
            data: Some(values.collect()),
            ..Secret::default()
        }
    }

    #[test]
    fn secret_values_are_wiped_after_parsing() {
        let id: (&str, &[u8]) = ("accessKeyID", b"LTAI");
        let key: (&str, &[u8]) = ("accessKeySecret", b"canary-secret");
        let token = "securityToken";
        for (values, good) in [
            (vec![id, key, (token, b"canary-token")], true),
            (vec![id, key, ("other", b"canary")], true),
            (vec![key], false),
            (vec![id, key, (token, b"canary\xff")], false),
            (vec![id, key, (token, b"canary\n")], false),
        ] {
            let mut secret = secret(&values);
            let found = parse(&mut secret, "default", "aliyun", &SecretKeys::default());
            assert_eq!(found.is_ok(), good, "{values:?}");
            for (key, value) in secret.data.unwrap() {
                assert!(value.0.is_empty(), "{key} is still there");
            }
        }
    }

    #[test]
    fn misspelled_key_is_named() {
        let message = |values: &[(&str, &[u8])], keys: &SecretKeys| {
            let found = parse(&mut secret(values), "team", "aliyun", keys);
            let Err(CheckResult::NoCredentials { reason, message }) = found else {
                return String::new();
            };
            assert_eq!(reason, reason::SECRET_INVALID);
            message
        };
        let defaults = SecretKeys::default();
        let id: (&str, &[u8]) = ("accessKeyID", b"LTAI");
        let key: (&str, &[u8]) = ("accessKeySecret", b"canary-secret");
        for (found, expected, others) in [
            ("accessKeyId", "accessKeyID", vec![key]),
            ("ACCESS_KEY_ID", "accessKeyID", vec![key]),
            ("access-key-secret", "accessKeySecret", vec![id]),
            // Without its token, the cloud rejects a temporary key with an error that does not name the cause.
            ("security_token", "securityToken", vec![id, key]),
        ] {
            let values: Vec<(&str, &[u8])> = [(found, &b"canary"[..])]
                .into_iter()
                .chain(others)
                .collect();
            assert_eq!(
                message(&values, &defaults),
                format!("Secret team/aliyun has {found}, must have {expected}")
            );
        }
        let own = SecretKeys {
            access_key_id: "id".to_owned(),
            access_key_secret: "accessKeySecret".to_owned(),
            ..SecretKeys::default()
        };
        assert_eq!(message(&[("id", b"LTAI"), key], &own), "");
        assert!(message(&[id, key], &own).contains("key id is missing; add it"));
        assert_eq!(
            message(&[("ID", b"LTAI"), key], &own),
            "Secret team/aliyun has ID, must have id"
        );
    }
}
