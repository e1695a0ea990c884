//! Which credentials the environment of the process asks for, by the variables of the vendor's SDKs. Pure.

use std::sync::Arc;

use url::Url;

use crate::ecs::access_key::Credential;

use super::oidc::{Oidc, TokenFile};
use super::provider::Provider;
use super::ram_role::RamRole;
use super::static_key::StaticKey;
use super::uri::CredentialsUri;

/// The credentials of the process. The first of these that is set counts: a key; the three variables of RRSA; the credentials
/// URI; the role of the ECS instance. It is chosen once, at the start: a source that fails is reported, not passed over.
#[derive(Clone, Debug)]
pub enum Environment {
    /// A key that never changes.
    Key(Credential),
    /// A source of keys that are short-lived.
    Source(Arc<dyn Provider>),
    /// None: no variable is set, and the metadata service is switched off.
    Nothing,
}

const FIELD: &str = "spec.credentials.environment";

impl Environment {
    /// Reads the variables.
    ///
    /// # Errors
    /// A sentence that names the variable: half a key, half of RRSA, a value that no key can have, a URI that is none.
    pub fn read(variable: impl Fn(&str) -> Option<String>) -> Result<Self, String> {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let is_true =
            |name: &str| set(name).is_some_and(|value| value.eq_ignore_ascii_case("true"));
        if let Some(key) = static_key(&set)? {
            return Ok(Self::Key(key));
        }
        if let Some(oidc) = oidc(&set)? {
            return Ok(Self::Source(Arc::new(oidc)));
        }
        if let Some(uri) = set("ALIBABA_CLOUD_CREDENTIALS_URI") {
            let uri = Url::parse(&uri)
                .ok()
                .filter(|uri| matches!(uri.scheme(), "http" | "https") && uri.has_host());
            let uri =
                uri.ok_or("ALIBABA_CLOUD_CREDENTIALS_URI: it is no http:// or https:// URL")?;
            // Messages name the address when the service fails, and no request would carry them.
            if !uri.username().is_empty() || uri.password().is_some() {
                return Err("ALIBABA_CLOUD_CREDENTIALS_URI: it must not hold a user name or password; name a service that needs none, or put what it needs into the path".to_owned());
            }
            return Ok(Self::Source(Arc::new(CredentialsUri(uri))));
        }
        if is_true("ALIBABA_CLOUD_ECS_METADATA_DISABLED") {
            return Ok(Self::Nothing);
        }
        Ok(Self::Source(Arc::new(RamRole {
            field: FIELD,
            name: set("ALIBABA_CLOUD_ECS_METADATA"),
            hardened_only: is_true("ALIBABA_CLOUD_IMDSV1_DISABLED"),
        })))
    }

    /// The provider of the credentials.
    #[must_use]
    pub fn provider(&self) -> Option<Arc<dyn Provider>> {
        match self {
            Self::Key(key) => Some(Arc::new(StaticKey(key.clone()))),
            Self::Source(provider) => Some(Arc::clone(provider)),
            Self::Nothing => None,
        }
    }
}

fn static_key(set: &impl Fn(&str) -> Option<String>) -> Result<Option<Credential>, String> {
    let (id, secret) = (
        "ALIBABA_CLOUD_ACCESS_KEY_ID",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
    );
    let half =
        |is: &str, lacks: &str| Err(format!("{is} is set without {lacks}: set both or neither"));
    match (set(id), set(secret)) {
        (None, None) => Ok(None),
        (Some(_), None) => half(id, secret),
        (None, Some(_)) => half(secret, id),
        (Some(access_key_id), Some(access_key_secret)) => {
            let token = set("ALIBABA_CLOUD_SECURITY_TOKEN").map(Into::into);
            Credential::new(access_key_id, access_key_secret, token)
                .map(Some)
                .map_err(|error| format!("{id}, {secret}: {error}"))
        }
    }
}

fn oidc(set: &impl Fn(&str) -> Option<String>) -> Result<Option<Oidc>, String> {
    let names = [
        "ALIBABA_CLOUD_ROLE_ARN",
        "ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
        "ALIBABA_CLOUD_OIDC_TOKEN_FILE",
    ];
    match names.map(set) {
        [None, None, None] => Ok(None),
        [Some(role_arn), Some(provider_arn), Some(file)] => Ok(Some(Oidc {
            field: FIELD,
            role_arn,
            provider_arn,
            session_name: set("ALIBABA_CLOUD_ROLE_SESSION_NAME"),
            token: Arc::new(TokenFile(file.into())),
        })),
        _ => Err(format!(
            "of {} only some are set: set all or none",
            names.join(", ")
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<String, String> {
        let variable = |name: &str| {
            let found = variables.iter().find(|(own, _)| *own == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        Environment::read(variable).map(|found| format!("{found:?}"))
    }

    #[test]
    fn first_source_that_is_set_counts() {
        let key = [
            ("ALIBABA_CLOUD_ACCESS_KEY_ID", "id"),
            ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "secret"),
        ];
        let rrsa = [
            ("ALIBABA_CLOUD_ROLE_ARN", "acs:ram::1:role/a"),
            (
                "ALIBABA_CLOUD_OIDC_PROVIDER_ARN",
                "acs:ram::1:oidc-provider/a",
            ),
            ("ALIBABA_CLOUD_OIDC_TOKEN_FILE", "/token"),
        ];
        let uri = [("ALIBABA_CLOUD_CREDENTIALS_URI", "http://127.0.0.1:1/key")];
        let role = [("ALIBABA_CLOUD_ECS_METADATA", "node")];
        let off = [("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true")];
        let all = [&key[..], &rrsa, &uri, &role, &off].concat();
        for (from, start) in [
            (0, "Key("),
            (2, "Source(Oidc"),
            (5, "Source(CredentialsUri"),
            (6, "Nothing"),
        ] {
            let found = read(&all[from..]).unwrap();
            assert!(found.starts_with(start), "{found}");
        }
        let found = read(&role).unwrap();
        assert!(
            found.contains("RamRole") && found.contains("\"node\""),
            "{found}"
        );
        assert!(read(&[]).unwrap().contains("name: None"));
    }

    #[test]
    fn half_of_a_source_is_refused_by_name() {
        for (variables, said) in [
            (
                &[("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")][..],
                "ALIBABA_CLOUD_ACCESS_KEY_SECRET: set both",
            ),
            (
                &[("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "id")][..],
                "ALIBABA_CLOUD_ACCESS_KEY_ID: set both",
            ),
            (&[("ALIBABA_CLOUD_ROLE_ARN", "a")][..], "set all or none"),
            (
                &[("ALIBABA_CLOUD_CREDENTIALS_URI", "file:///etc/passwd")][..],
                "no http://",
            ),
            (
                &[(
                    "ALIBABA_CLOUD_CREDENTIALS_URI",
                    "http://a:canary@127.0.0.1:1/key",
                )][..],
                "must not hold a user name or password",
            ),
        ] {
            let error = read(variables).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }
}
