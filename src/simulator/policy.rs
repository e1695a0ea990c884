//! RAM policies and trust policies of the simulated cloud, in the vendor's own form, so that a test pastes what a user does. Pure.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::pattern::matches;

/// A policy. As the policy of a user or a role its statements have resources, as the trust policy of a role principals.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    /// Always 1. Not used.
    #[serde(default, rename = "Version")]
    pub version: String,
    statement: Vec<Statement>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Statement {
    effect: PolicyEffect,
    action: OneOrMany,
    #[serde(default)]
    resource: OneOrMany,
    #[serde(default)]
    principal: Principals,
    #[serde(default)]
    condition: BTreeMap<Comparison, BTreeMap<String, OneOrMany>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
enum PolicyEffect {
    Allow,
    Deny,
}

/// Who may assume a role.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
struct Principals {
    /// Users, roles and whole accounts.
    #[serde(default, rename = "RAM")]
    ram: OneOrMany,
    /// Products, such as `ecs.aliyuncs.com`.
    #[serde(default)]
    service: OneOrMany,
    /// OIDC providers.
    #[serde(default)]
    federated: OneOrMany,
}

/// The comparisons that the simulated cloud knows; a policy with another one is refused when it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
enum Comparison {
    StringEquals,
    StringLike,
}

/// A text or a list of texts.
#[derive(Clone, Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

impl Default for OneOrMany {
    fn default() -> Self {
        Self::Many(Vec::new())
    }
}

impl OneOrMany {
    fn any(&self, holds: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::One(text) => holds(text),
            Self::Many(texts) => texts.iter().any(|text| holds(text)),
        }
    }
}

/// Who asks for a role.
#[derive(Clone, Copy, Debug)]
pub enum Principal<'a> {
    /// A user or a role, by its ARN.
    Ram {
        /// ARN of the user or role.
        arn: &'a str,
        /// UID of its account, all of which may be trusted.
        account: &'a str,
    },
    /// A product.
    Service(&'a str),
    /// The holder of a token of this OIDC provider.
    Federated(&'a str),
}

/// What policies say of a use of one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is allowed, and not denied.
    Allowed,
    /// It is denied, whatever else is allowed.
    Denied,
    /// No statement speaks of it, which is a denial, too.
    Silent,
}

impl Policy {
    /// What the policy says of an action on a resource. Statements with a condition never match: the simulated cloud knows
    /// conditions in trust policies only.
    #[must_use]
    pub fn verdict(&self, action: &str, resource: &str) -> Verdict {
        let about = |statement: &&Statement| {
            statement.condition.is_empty()
                && statement.action.any(|pattern| matches(pattern, action))
                && statement.resource.any(|pattern| matches(pattern, resource))
        };
        self.sum_up(about)
    }

    /// Whether the trust policy lets `principal` assume the role. `facts` are the condition keys of the call.
    #[must_use]
    pub fn trusts(&self, principal: Principal<'_>, facts: &[(&str, &str)]) -> bool {
        let about = |statement: &&Statement| {
            statement
                .action
                .any(|pattern| matches(pattern, "sts:AssumeRole"))
                && statement.principal.includes(principal)
                && statement
                    .condition
                    .iter()
                    .all(|(comparison, keys)| comparison.holds(keys, facts))
        };
        self.sum_up(about) == Verdict::Allowed
    }

    fn sum_up(&self, about: impl Fn(&&Statement) -> bool) -> Verdict {
        let mut verdict = Verdict::Silent;
        for statement in self.statement.iter().filter(about) {
            match statement.effect {
                PolicyEffect::Deny => return Verdict::Denied,
                PolicyEffect::Allow => verdict = Verdict::Allowed,
            }
        }
        verdict
    }
}

impl Principals {
    fn includes(&self, principal: Principal<'_>) -> bool {
        match principal {
            Principal::Ram { arn, account } => self
                .ram
                .any(|named| named == arn || named == format!("acs:ram::{account}:root")),
            Principal::Service(name) => self.service.any(|named| named == name),
            Principal::Federated(arn) => self.federated.any(|named| named == arn),
        }
    }
}

impl Comparison {
    fn holds(self, keys: &BTreeMap<String, OneOrMany>, facts: &[(&str, &str)]) -> bool {
        keys.iter().all(|(key, wanted)| {
            facts.iter().any(|(name, value)| {
                name == key
                    && wanted.any(|wanted| match self {
                        Self::StringEquals => wanted == *value,
                        Self::StringLike => matches(wanted, value),
                    })
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(json: &str) -> Policy {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn denial_beats_permission_and_silence_is_none() {
        let policy = policy(
            r#"{"Version": "1", "Statement": [
            {"Effect": "Allow", "Action": ["ecs:JoinSecurityGroup", "ecs:Describe*"], "Resource": "acs:ecs:*:*:*"},
            {"Effect": "Deny", "Action": "ecs:Join*", "Resource": ["acs:ecs:*:*:securitygroup/sg-prod"]}]}"#,
        );
        for (action, resource, expected) in [
            (
                "ecs:JoinSecurityGroup",
                "securitygroup/sg-1",
                Verdict::Allowed,
            ),
            (
                "ecs:JoinSecurityGroup",
                "securitygroup/sg-prod",
                Verdict::Denied,
            ),
            (
                "ecs:LeaveSecurityGroup",
                "securitygroup/sg-1",
                Verdict::Silent,
            ),
        ] {
            let resource = format!("acs:ecs:cn-hangzhou:1:{resource}");
            assert_eq!(policy.verdict(action, &resource), expected, "{action}");
        }
    }

    #[test]
    fn role_trusts_only_whom_its_policy_names() {
        let provider = "acs:ram::1:oidc-provider/ack-rrsa-c1";
        let policy = policy(
            r#"{"Statement": [{"Action": "sts:AssumeRole", "Effect": "Allow",
            "Principal": {"Federated": ["acs:ram::1:oidc-provider/ack-rrsa-c1"]},
            "Condition": {"StringEquals": {"oidc:aud": "sts.aliyuncs.com"}, "StringLike": {"oidc:sub": ["system:serviceaccount:team-a:*"]}}}]}"#,
        );
        let trusts = |principal, subject| {
            policy.trusts(
                principal,
                &[("oidc:aud", "sts.aliyuncs.com"), ("oidc:sub", subject)],
            )
        };
        let federated = Principal::Federated(provider);
        assert!(trusts(federated, "system:serviceaccount:team-a:web"));
        assert!(!trusts(federated, "system:serviceaccount:team-b:web"));
        assert!(!policy.trusts(federated, &[("oidc:aud", "sts.aliyuncs.com")]));
        let user = Principal::Ram {
            arn: "acs:ram::1:user/a",
            account: "1",
        };
        assert!(!trusts(user, "system:serviceaccount:team-a:web"));
        assert!(!trusts(
            Principal::Service("ecs.aliyuncs.com"),
            "system:serviceaccount:team-a:web"
        ));
    }

    #[test]
    fn unknown_condition_is_refused() {
        let said = serde_json::from_str::<Policy>(
            r#"{"Statement": [{"Action": "*", "Effect": "Allow", "Condition": {"IpAddress": {"acs:SourceIp": "10.0.0.0/8"}}}]}"#,
        );
        assert!(said.unwrap_err().to_string().contains("StringEquals"));
    }
}
