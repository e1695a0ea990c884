//! The roles and OIDC providers of the simulated cloud, and what sessions of a role may do. Pure.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::account::default_account;
use super::error::{self, ErrorResponse};
use super::policy::Policy;
use super::token::{Claims, Jwks, TokenError};

/// A role in the inventory or the admin port.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Role {
    /// Name of the role.
    pub name: String,
    /// UID of the account that owns it.
    #[serde(default = "default_account")]
    pub account: String,
    /// Who may assume it.
    pub trust_policy: Policy,
    /// What its sessions may do. Absent: everything.
    pub policies: Option<Vec<Policy>>,
    /// Longest session in seconds.
    #[serde(default = "one_hour")]
    pub max_session_duration: u32,
}

pub(super) fn one_hour() -> u32 {
    3_600
}

/// An OIDC provider in the inventory or the admin port: a cluster whose service accounts the cloud knows.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OidcProvider {
    /// Name of the provider.
    pub name: String,
    /// UID of the account that owns it.
    #[serde(default = "default_account")]
    pub account: String,
    /// The issuer of its tokens: `--service-account-issuer` of the API server.
    pub issuer: String,
    /// The audiences that it takes.
    #[serde(default = "usual_audience")]
    pub client_ids: Vec<String>,
    /// The keys of its tokens: `/openid/v1/jwks` of the API server.
    pub keys: Jwks,
}

fn usual_audience() -> Vec<String> {
    vec!["sts.aliyuncs.com".to_owned()]
}

/// The roles and OIDC providers of all accounts, by ARN.
#[derive(Clone, Debug, Default)]
pub struct Ram {
    pub(super) roles: BTreeMap<String, Role>,
    pub(super) providers: BTreeMap<String, OidcProvider>,
    pub(super) issued: u64,
}

impl Role {
    /// ARN of the role.
    #[must_use]
    pub fn arn(&self) -> String {
        format!("acs:ram::{}:role/{}", self.account, self.name)
    }
}

impl Ram {
    /// These roles and OIDC providers.
    #[must_use]
    pub fn of(roles: Vec<Role>, providers: Vec<OidcProvider>) -> Self {
        let mut ram = Self::default();
        for role in roles {
            ram.insert_role(role);
        }
        for provider in providers {
            ram.insert_provider(provider);
        }
        ram
    }

    /// Adds or replaces a role. Its sessions have its new policies at once.
    pub fn insert_role(&mut self, role: Role) {
        self.roles.insert(role.arn(), role);
    }

    /// Removes a role by name or ARN: its sessions may do nothing afterwards.
    pub fn remove_role(&mut self, name: &str) -> Option<Role> {
        let arn = self.role_named(name).map(Role::arn)?;
        self.roles.remove(&arn)
    }

    /// Adds or replaces an OIDC provider.
    pub fn insert_provider(&mut self, provider: OidcProvider) {
        let OidcProvider { account, name, .. } = &provider;
        let arn = format!("acs:ram::{account}:oidc-provider/{name}");
        self.providers.insert(arn, provider);
    }

    /// A role by name or ARN.
    #[must_use]
    pub fn role_named(&self, name: &str) -> Option<&Role> {
        let named = |role: &&Role| role.name == name;
        self.roles
            .get(name)
            .or_else(|| self.roles.values().find(named))
    }

    /// What the sessions of a role may do; `None`: everything. A role that is gone permits nothing.
    #[must_use]
    pub fn policies_of(&self, role: &str) -> Option<Vec<Policy>> {
        self.roles
            .get(role)
            .map_or(Some(Vec::new()), |role| role.policies.clone())
    }
}

impl OidcProvider {
    pub(super) fn claims(&self, token: &str, now: Timestamp) -> Result<Claims, ErrorResponse> {
        let claims = self.keys.verify(token, now).map_err(|error| match error {
            TokenError::Malformed => ErrorResponse::from(error::OIDC_TOKEN_INVALID),
            TokenError::Signature => error::OIDC_TOKEN_INVALID
                .says("The signature of this JsonWebToken is not of the OIDC provider."),
            TokenError::Expired => error::OIDC_TOKEN_EXPIRED.into(),
        })?;
        if claims.iss != self.issuer {
            return Err(error::OIDC_ISSUER.into());
        }
        if !claims.aud.iter().any(|aud| self.client_ids.contains(aud)) {
            return Err(error::OIDC_AUDIENCE.into());
        }
        Ok(claims)
    }
}
