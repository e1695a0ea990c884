//! Access keys of the simulated cloud, their accounts, and RAM denials. Pure.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::error::{self, ErrorResponse};
use super::pattern::matches;
use super::policy::{Policy, Verdict};

/// The owner of all objects and keys without an account of their own.
pub const DEFAULT_ACCOUNT: &str = "1000000000000001";

/// An access key in the inventory, the admin port or the command line.
#[derive(Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AccessKey {
    /// The access key ID.
    #[serde(deserialize_with = "something")]
    pub id: String,
    /// The access key secret.
    #[serde(deserialize_with = "something")]
    pub secret: String,
    /// UID of the account that owns the key.
    #[serde(default = "default_account")]
    pub account: String,
    /// Name of the RAM user, as `GetCallerIdentity` and denials show it.
    #[serde(default = "default_user")]
    pub user: String,
    /// Whether the key is disabled.
    #[serde(default)]
    pub inactive: bool,
    /// Makes it an STS key: calls need this token.
    pub security_token: Option<String>,
    /// Expiry of the token. Absent: never.
    pub expires: Option<Timestamp>,
    /// Actions that RAM denies to this key.
    #[serde(default)]
    pub deny: Vec<Denial>,
    /// What RAM allows the user. Absent: everything.
    pub policies: Option<Vec<Policy>>,
    /// The role whose session the key is; STS issues such keys.
    #[serde(skip)]
    pub role: Option<RoleSession>,
}

/// The session of a role that a temporary key belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RoleSession {
    /// ARN of the role.
    pub arn: String,
    /// Name of the session.
    pub session: String,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("id", &self.id)
            .field("account", &self.account)
            .finish_non_exhaustive()
    }
}

impl AccessKey {
    /// A plain key of the default account.
    #[must_use]
    pub fn new(id: impl Into<String>, secret: impl Into<String>) -> Self {
        Self {
            id: id.into(),
            secret: secret.into(),
            account: default_account(),
            user: default_user(),
            inactive: false,
            security_token: None,
            expires: None,
            deny: Vec::new(),
            policies: None,
            role: None,
        }
    }
}

fn something<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let text = String::deserialize(deserializer)?;
    if text.is_empty() {
        return Err(serde::de::Error::custom(
            "an access key has an id and a secret: neither is empty",
        ));
    }
    Ok(text)
}

pub(super) fn default_account() -> String {
    DEFAULT_ACCOUNT.to_owned()
}

fn default_user() -> String {
    "simulator".to_owned()
}

/// One RAM denial. Both fields are patterns in which `*` matches any text.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Denial {
    /// For example `ecs:JoinSecurityGroup` or `ecs:*`.
    #[serde(default = "anything")]
    pub action: String,
    /// For example `acs:ecs:*:*:securitygroup/sg-bp1`.
    #[serde(default = "anything")]
    pub resource: String,
}

fn anything() -> String {
    "*".to_owned()
}

/// The caller, after its signature has been verified.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The access key ID.
    pub access_key: String,
    /// UID of the caller's account.
    pub account: String,
    /// Name of the RAM user.
    pub user: String,
    /// Whether the call carried a security token.
    pub temporary: bool,
    /// The role whose session the key is.
    pub role: Option<RoleSession>,
    /// What RAM allows the caller; `None`: everything.
    pub policies: Option<Vec<Policy>>,
    deny: Vec<Denial>,
}

impl Caller {
    /// The caller of a call without a signature.
    #[must_use]
    pub fn anonymous() -> Self {
        Self {
            access_key: String::new(),
            account: String::new(),
            user: String::new(),
            temporary: false,
            role: None,
            policies: None,
            deny: Vec::new(),
        }
    }

    /// ARN of the user, or of the role whose session the caller is.
    #[must_use]
    pub fn arn(&self) -> String {
        self.role.as_ref().map_or_else(
            || format!("acs:ram::{}:user/{}", self.account, self.user),
            |role| role.arn.clone(),
        )
    }

    /// What the caller's policies say of an action on a resource, together.
    #[must_use]
    pub fn verdict(&self, action: &str, resource: &str) -> Verdict {
        let Some(policies) = &self.policies else {
            return Verdict::Allowed;
        };
        let verdicts = || {
            policies
                .iter()
                .map(|policy| policy.verdict(action, resource))
        };
        if verdicts().any(|verdict| verdict == Verdict::Denied) {
            Verdict::Denied
        } else if verdicts().any(|verdict| verdict == Verdict::Allowed) {
            Verdict::Allowed
        } else {
            Verdict::Silent
        }
    }

    /// Rejects the call if a denial matches the action and any of the resources, or if the caller has policies and they do not
    /// allow the action on each of the resources.
    ///
    /// # Errors
    /// 403 `Forbidden.RAM`.
    pub fn authorize(
        &self,
        action: &str,
        region: &str,
        resources: &[String],
    ) -> Result<(), ErrorResponse> {
        let refused = self.deny.iter().any(|denial| {
            matches(&denial.action, action)
                && (resources.is_empty() && denial.resource == "*"
                    || resources.iter().any(|resource| {
                        matches(
                            &denial.resource,
                            &format!("acs:ecs:{region}:{}:{resource}", self.account),
                        )
                    }))
        });
        let arn = |resource| format!("acs:ecs:{region}:{}:{resource}", self.account);
        let allowed = |resource| self.verdict(action, &arn(resource)) == Verdict::Allowed;
        if refused || !resources.iter().all(allowed) {
            return Err(error::forbidden_ram(action, &self.account, &self.user));
        }
        Ok(())
    }
}

/// All keys, by ID.
#[derive(Clone, Debug, Default)]
pub struct AccessKeys(BTreeMap<String, AccessKey>);

impl AccessKeys {
    /// Adds or replaces a key. Returns the replaced key.
    pub fn insert(&mut self, key: AccessKey) -> Option<AccessKey> {
        self.0.insert(key.id.clone(), key)
    }

    /// Removes a key: it is unknown afterwards.
    pub fn remove(&mut self, id: &str) -> Option<AccessKey> {
        self.0.remove(id)
    }

    /// The key to change.
    pub fn find_mut(&mut self, id: &str) -> Option<&mut AccessKey> {
        self.0.get_mut(id)
    }

    /// Whether there are no keys.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The key behind an ID, if it may sign.
    ///
    /// # Errors
    /// `InvalidAccessKeyId.NotFound` and `.Inactive`.
    pub fn usable(&self, id: &str) -> Result<&AccessKey, ErrorResponse> {
        let key = self.0.get(id).ok_or(error::KEY_NOT_FOUND)?;
        if key.inactive {
            return Err(error::KEY_INACTIVE.into());
        }
        Ok(key)
    }

    /// Checks the security token of a correctly signed call. Returns the caller.
    ///
    /// # Errors
    /// `MissingSecurityToken`, `InvalidSecurityToken.Malformed`, `.MismatchWithAccessKey`, `.Expired`.
    pub fn caller(
        &self,
        key: &AccessKey,
        token: Option<&str>,
        now: Timestamp,
    ) -> Result<Caller, ErrorResponse> {
        match (key.security_token.as_deref(), token) {
            (None, None) => {}
            (Some(_), None) => return Err(error::TOKEN_MISSING.into()),
            (Some(own), Some(given)) if own == given => {
                if key.expires.is_some_and(|expires| expires <= now) {
                    return Err(error::TOKEN_EXPIRED.into());
                }
            }
            (Some(_) | None, Some(given)) => {
                let known = self
                    .0
                    .values()
                    .any(|key| key.security_token.as_deref() == Some(given));
                return Err(
                    if known || key.security_token.is_none() && well_formed(given) {
                        error::TOKEN_MISMATCH.into()
                    } else {
                        error::TOKEN_MALFORMED.into()
                    },
                );
            }
        }
        Ok(Caller {
            access_key: key.id.clone(),
            account: key.account.clone(),
            user: key.user.clone(),
            temporary: token.is_some(),
            role: key.role.clone(),
            policies: key.policies.clone(),
            deny: key.deny.clone(),
        })
    }
}

fn well_formed(token: &str) -> bool {
    token.len() >= 8
        && token
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+/=_-.".contains(&byte))
}

/// `GetCallerIdentity` of STS.
#[must_use]
pub fn caller_identity(caller: &Caller) -> Value {
    let Caller {
        access_key,
        account,
        user,
        temporary,
        role,
        ..
    } = caller;
    if *temporary {
        let session = role.as_ref().map_or(user, |role| &role.session);
        return json!({
            "IdentityType": "AssumedRoleUser",
            "AccountId": account,
            "UserId": "",
            "PrincipalId": format!("300000000000000001:{session}"),
            "RoleId": "300000000000000001",
            "Arn": format!("acs:sts::{account}:assumed-role/{user}/{session}"),
        });
    }
    // The user ID has 18 digits and cannot be derived from a real key: make one from the access key ID.
    let number = access_key.bytes().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let id = (200_000_000_000_000_000 + number % 100_000_000_000_000_000).to_string();
    json!({
        "IdentityType": "RAMUser",
        "AccountId": account,
        "UserId": id,
        "PrincipalId": id,
        "Arn": format!("acs:ram::{account}:user/{user}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denial_covers_only_its_pattern() {
        let mut key = AccessKey::new("id", "secret");
        key.deny.push(Denial {
            action: "ecs:Join*".into(),
            resource: "acs:ecs:*:*:securitygroup/sg-1".into(),
        });
        let caller = AccessKeys::default()
            .caller(&key, None, Timestamp::UNIX_EPOCH)
            .unwrap();
        let denied = caller.authorize(
            "ecs:JoinSecurityGroup",
            "cn-hangzhou",
            &["securitygroup/sg-1".into()],
        );
        assert_eq!(denied.as_ref().map_err(|error| error.status), Err(403));
        assert!(denied.unwrap_err().access_denied.is_some());
        for (action, resource) in [
            ("ecs:LeaveSecurityGroup", "securitygroup/sg-1"),
            ("ecs:JoinSecurityGroup", "securitygroup/sg-12"),
        ] {
            assert_eq!(
                caller.authorize(action, "cn-hangzhou", &[resource.into()]),
                Ok(())
            );
        }
    }

    #[test]
    fn star_matches_any_text_even_none() {
        for (pattern, text) in [
            ("*", ""),
            ("web-*", "web-"),
            ("*-7", "web-7"),
            ("a*b*c", "a-b-b-c"),
            ("a**c", "abc"),
            (
                "acs:ecs:*:*:instance/*",
                "acs:ecs:cn-hangzhou:1:instance/i-1",
            ),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("a", "ab"),
            ("a*", "ba"),
            ("*a", "ab"),
            ("ab*b", "ab"),
            ("a*b*c", "a-c-b"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        let many = "*a".repeat(1_000);
        assert!(!matches(&many, &"a".repeat(999)), "and that at once");
    }

    #[test]
    fn debug_of_a_key_shows_no_secret() {
        let mut key = AccessKey::new("LTAI", "canary-secret");
        key.security_token = Some("canary-token".into());
        assert!(!format!("{key:?}").contains("canary"));
    }
}
