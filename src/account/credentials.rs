//! Resolves an account's spec to a credential: reads one Secret by name, or the operator's own environment. Reads only.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::ResourceExt as _;
use secrecy::{ExposeSecret as _, SecretString};
use zeroize::Zeroize as _;

use crate::api::reason;
use crate::ecs::Credential;

use super::status::CheckResult;

/// Key of the Secret that holds the access key ID.
const ACCESS_KEY_ID: &str = "accessKeyID";
/// Key of the Secret that holds the access key secret.
const ACCESS_KEY_SECRET: &str = "accessKeySecret";
/// Key of the Secret that holds the STS token, if there is one.
const SECURITY_TOKEN: &str = "securityToken";

/// Where credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A Secret.
    Secret {
        /// Namespace of the Secret: the account's own, or the operator's.
        namespace: String,
        /// Name of the Secret.
        name: String,
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
        Source::Secret { namespace, name } => read_secret(client, namespace, name).await,
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
            "spec.credentials: set secretRef".to_owned(),
        )),
    }
}

async fn read_secret(
    client: &kube::Client,
    namespace: &str,
    name: &str,
) -> Result<Found, CheckResult> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let field = "spec.credentials.secretRef.name";
    match crate::kubernetes::with_deadline(secrets.get_opt(name)).await {
        Ok(Some(mut secret)) => parse(&mut secret, namespace, name),
        Ok(None) => Err(missing(
            reason::SECRET_NOT_FOUND,
            format!(
                "{field}: Secret {name} does not exist in namespace {namespace}; create it with the keys {ACCESS_KEY_ID} and {ACCESS_KEY_SECRET}"
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

/// Parses the values and zeroizes the rest of the Secret.
fn parse(secret: &mut Secret, namespace: &str, name: &str) -> Result<Found, CheckResult> {
    let found = parse_values(secret, namespace, name);
    for value in secret.data.iter_mut().flat_map(BTreeMap::values_mut) {
        value.0.zeroize();
    }
    found
}

fn parse_values(secret: &Secret, namespace: &str, name: &str) -> Result<Found, CheckResult> {
    let invalid = |what: String| {
        missing(
            reason::SECRET_INVALID,
            format!("Secret {name} in namespace {namespace}: {what}"),
        )
    };
    let value = |key: &str| -> Result<Option<SecretString>, CheckResult> {
        let Some(bytes) = secret.data.as_ref().and_then(|data| data.get(key)) else {
            return Ok(None);
        };
        let text = std::str::from_utf8(&bytes.0).map_err(|_| {
            invalid(format!(
                "key {key} is not text; write the value as Alibaba Cloud shows it"
            ))
        })?;
        Ok(Some(text.into()))
    };
    let required =
        |key: &str| value(key)?.ok_or_else(|| invalid(format!("key {key} is missing; add it")));
    let credential = Credential::new(
        required(ACCESS_KEY_ID)?.expose_secret(),
        required(ACCESS_KEY_SECRET)?,
        value(SECURITY_TOKEN)?,
    )
    .map_err(|error| invalid(error.to_string()))?;
    Ok(Found {
        credential,
        version: secret.resource_version().unwrap_or_default(),
    })
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
        let id: (&str, &[u8]) = (ACCESS_KEY_ID, b"LTAI");
        let key: (&str, &[u8]) = (ACCESS_KEY_SECRET, b"canary-secret");
        for (values, good) in [
            (vec![id, key, (SECURITY_TOKEN, b"canary-token")], true),
            (vec![id, key, ("other", b"canary")], true),
            (vec![key], false),
            (vec![id, key, (SECURITY_TOKEN, b"canary\xff")], false),
            (vec![id, key, (SECURITY_TOKEN, b"canary\n")], false),
        ] {
            let mut secret = secret(&values);
            let found = parse(&mut secret, "default", "aliyun");
            assert_eq!(found.is_ok(), good, "{values:?}");
            for (key, value) in secret.data.unwrap() {
                assert!(value.0.is_empty(), "{key} is still there");
            }
        }
    }
}
