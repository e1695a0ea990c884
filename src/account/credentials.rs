//! Resolves an account's spec to a credential: a Secret by name, the operator's own environment, or a key that a provider issues.
//! Reads, and asks STS and the metadata service for keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroize as _;

use crate::api::account::{AssumeRole as AssumeRoleSpec, OidcCredentials, SecretKeys, SecretRef};
use crate::api::reason;
use crate::ecs::Credential;
use crate::ecs::credential::{
    AssumeRole, Environment, Network, Oidc, Provider, ProviderError, RamRole, StaticKey,
};

use super::issued::{Doubt, Issued, IssuedFor};
use super::key::CredentialSpec;
use super::service_account::RequestedToken;
use super::status::CheckResult;

/// Where an account's credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Who the operator is at first.
    pub origin: Origin,
    /// The role that it assumes as such.
    pub assume_role: Option<AssumeRoleSpec>,
}

/// Who the operator is, before it assumes a role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A Secret.
    Secret {
        /// Namespace of the Secret: the account's own, or the operator's.
        namespace: String,
        /// Name of the Secret.
        name: String,
        /// Keys of the three values in the Secret.
        keys: SecretKeys,
    },
    /// A token of a service account, exchanged at STS.
    Oidc {
        /// Namespace of the service account: the account's own, or the operator's.
        namespace: String,
        /// The role, the OIDC provider and the service account.
        spec: OidcCredentials,
    },
    /// The role of this name of the ECS instance.
    RamRole(String),
    /// The operator's own environment.
    Environment,
    /// The spec names no source; the CRD rejects such a spec.
    Nothing,
    /// The spec names several sources; the CRD rejects such a spec.
    Several,
}

impl Origin {
    /// The Secret that a spec names.
    #[must_use]
    pub fn secret(namespace: String, secret: &SecretRef) -> Self {
        Self::Secret {
            namespace,
            name: secret.name.clone(),
            keys: secret.keys.clone(),
        }
    }

    /// The service account that a spec names.
    #[must_use]
    pub fn oidc(namespace: String, spec: &OidcCredentials) -> Self {
        Self::Oidc {
            namespace,
            spec: spec.clone(),
        }
    }
}

impl Source {
    /// Whether this Secret holds the access key.
    #[must_use]
    pub fn names_secret(&self, namespace: &str, name: &str) -> bool {
        matches!(
            &self.origin,
            Origin::Secret { namespace: of, name: named, .. } if of == namespace && named == name
        )
    }
}

/// A credential and a version that changes with it.
pub struct Found {
    /// The credential.
    pub credential: Credential,
    /// A digest of the values of the Secret; the ID of a key that was issued; empty for a key of the environment, which never changes.
    pub version: String,
}

/// What a read needs beside the spec.
pub struct Reading<'a> {
    /// The cluster.
    pub client: &'a kube::Client,
    /// The credentials of the process.
    pub environment: &'a Environment,
    /// Asks for keys.
    pub network: &'a Network,
    /// The key that was issued last for this account.
    pub issued: &'a Issued,
    /// What the key is for.
    pub spec: CredentialSpec,
    /// Whether another key is asked for, although there is one.
    pub doubt: Doubt,
}

/// Reads the credential, or has it issued.
///
/// # Errors
/// The check result to report: why there is no credential.
pub async fn read(source: &Source, reading: &Reading<'_>) -> Result<Found, CheckResult> {
    let (base, version) = match base(&source.origin, reading).await? {
        Base::Key(found) if source.assume_role.is_none() => {
            reading.issued.forget().await;
            return Ok(found);
        }
        Base::Key(Found {
            credential,
            version,
        }) => (
            Arc::new(StaticKey(credential)) as Arc<dyn Provider>,
            version,
        ),
        Base::Provider(provider) => (provider, String::new()),
    };
    let provider = match &source.assume_role {
        Some(role) => Arc::new(AssumeRole {
            base,
            role_arn: role.role_arn.clone(),
            session_name: role.session_name.clone(),
            external_id: role.external_id.clone(),
            duration_seconds: role.duration_seconds,
        }),
        None => base,
    };
    let made_for: IssuedFor = (reading.spec.clone(), version);
    let now = reading.network.clock.now();
    let obtain = async || provider.obtain(reading.network).await;
    let issued = reading.issued.key(made_for, reading.doubt, now, obtain);
    let credential = issued.await.map_err(not_issued)?;
    let version = credential.access_key_id().to_owned();
    Ok(Found {
        credential,
        version,
    })
}

/// What a spec begins with.
enum Base {
    /// A key that somebody stored.
    Key(Found),
    /// Something that issues keys.
    Provider(Arc<dyn Provider>),
}

async fn base(origin: &Origin, reading: &Reading<'_>) -> Result<Base, CheckResult> {
    match origin {
        Origin::Secret {
            namespace,
            name,
            keys,
        } => read_secret(reading.client, namespace, name, keys)
            .await
            .map(Base::Key),
        Origin::Oidc { namespace, spec } => Ok(Base::Provider(Arc::new(Oidc {
            field: "spec.credentials.oidc",
            role_arn: spec.role_arn.clone(),
            provider_arn: spec.oidc_provider_arn.clone(),
            session_name: None,
            token: Arc::new(RequestedToken {
                client: reading.client.clone(),
                namespace: namespace.clone(),
                name: spec.service_account_name.clone(),
            }),
        }))),
        Origin::RamRole(name) => Ok(Base::Provider(Arc::new(RamRole {
            field: "spec.credentials.ecsRAMRole",
            name: Some(name.clone()),
            hardened_only: false,
        }))),
        Origin::Environment => match reading.environment {
            Environment::Key(credential) => Ok(Base::Key(Found {
                credential: credential.clone(),
                version: String::new(),
            })),
            Environment::Source(provider) => Ok(Base::Provider(Arc::clone(provider))),
            Environment::Nothing => Err(missing(
                reason::ENVIRONMENT_EMPTY,
                "spec.credentials.environment: the operator's process has no ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, and ALIBABA_CLOUD_ECS_METADATA_DISABLED is true; set them in its Deployment or use another kind of credentials".to_owned(),
            )),
        },
        Origin::Nothing => Err(missing(
            reason::SECRET_NOT_FOUND,
            "spec.credentials.secretRef must be set".to_owned(),
        )),
        Origin::Several => Err(missing(
            reason::INVALID_SPEC,
            "spec.credentials names several kinds of credentials; keep one of them".to_owned(),
        )),
    }
}

fn not_issued(error: ProviderError) -> CheckResult {
    match error {
        ProviderError::Misconfigured { reason, message } => missing(reason, message),
        ProviderError::Unavailable { message } => CheckResult::Unknown(message),
        ProviderError::Sts { field, error } => CheckResult::NotIssued {
            field,
            error: Box::new(error),
        },
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
                    "{field}: the operator may not read Secret {name} in namespace {namespace}; bind a Role that allows to get this Secret to its service account there with a RoleBinding, or the ClusterRole security-group-operator-secrets for all of them"
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
    let version = credential.digest();
    Ok(Found {
        credential,
        version,
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
            (vec![id, key, (token, b"canary\n")], true),
            (vec![id, key, (token, b"canary\ncanary")], false),
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
