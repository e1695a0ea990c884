//! Temporary keys of the simulated cloud: `AssumeRole`, `AssumeRoleWithOIDC`. Pure.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::ecs::sign::sha256_hex;

use super::account::{AccessKey, Caller, RoleSession};
use super::cloud::Cloud;
use super::error::{self, ErrorResponse, missing_parameter};
use super::parameters::Parameters;
use super::policy::{Principal, Verdict};
use super::ram::{Role, one_hour};
use super::timeline::later;

impl Cloud {
    /// `AssumeRole`: a temporary key for a caller whom the role trusts and whose policies allow it.
    ///
    /// # Errors
    /// The codes of STS.
    pub fn assume_role(
        &mut self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let request = RoleRequest::read(parameters)?;
        let external_id = parameters.text("ExternalId");
        let role = self.requested_role(&request)?;
        if caller.verdict("sts:AssumeRole", &role.arn()) != Verdict::Allowed {
            return Err(error::NO_PERMISSION.into());
        }
        let principal = Principal::Ram {
            arn: &caller.arn(),
            account: &caller.account,
        };
        let facts: Vec<(&str, &str)> = external_id
            .map(|id| ("sts:ExternalId", id))
            .into_iter()
            .collect();
        if !role.trust_policy.trusts(principal, &facts) {
            return Err(error::NO_PERMISSION.into());
        }
        let duration = request.duration(role)?;
        let role = role.clone();
        let key = self.issue(&role, &request.session, duration, now);
        Ok(session_answer(&role, &request.session, &key))
    }

    /// `AssumeRoleWithOIDC`: a temporary key for the holder of a service account token.
    ///
    /// # Errors
    /// The codes of STS.
    pub fn assume_role_with_oidc(
        &mut self,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let needed = |name| parameters.text(name).ok_or_else(|| missing_parameter(name));
        let request = RoleRequest::read(parameters)?;
        let provider_arn = needed("OIDCProviderArn")?;
        let token = needed("OIDCToken")?;
        let provider =
            self.ram.providers.get(provider_arn).ok_or_else(|| {
                error::OIDC_NO_PERMISSION.says("No such OIDC Provider registered.")
            })?;
        let claims = provider.claims(token, now)?;
        let role = self.requested_role(&request)?;
        let audience = claims
            .aud
            .iter()
            .find(|aud| provider.client_ids.contains(aud));
        let facts = [
            ("oidc:iss", claims.iss.as_str()),
            ("oidc:sub", claims.sub.as_str()),
            ("oidc:aud", audience.map_or("", String::as_str)),
        ];
        let principal = Principal::Federated(provider_arn);
        if !role.trust_policy.trusts(principal, &facts) {
            return Err(error::OIDC_NO_PERMISSION.into());
        }
        let duration = request.duration(role)?;
        let role = role.clone();
        let key = self.issue(&role, &request.session, duration, now);
        let mut answer = session_answer(&role, &request.session, &key);
        if let Some(fields) = answer.as_object_mut() {
            let information = json!({
                "Subject": claims.sub,
                "Issuer": claims.iss,
                "ClientIds": claims.aud.join(","),
                "VerificationInfo": "Success",
            });
            fields.insert("OIDCTokenInfo".to_owned(), information);
        }
        Ok(answer)
    }

    fn requested_role(&self, request: &RoleRequest) -> Result<&Role, ErrorResponse> {
        self.ram
            .roles
            .get(&request.arn)
            .ok_or_else(|| error::NO_SUCH_ROLE.into())
    }

    /// A temporary key of a role, which the cloud knows from now on.
    pub(super) fn issue(
        &mut self,
        role: &Role,
        session: &str,
        duration: Duration,
        now: Timestamp,
    ) -> AccessKey {
        self.ram.issued += 1;
        let part = |what: &str, length: usize| {
            let text = format!("{what} {} {} {now}", self.ram.issued, role.arn());
            sha256_hex(text.as_bytes()).chars().take(length).collect()
        };
        let (id, secret, token): (String, String, String) =
            (part("id", 24), part("secret", 35), part("token", 64));
        let key = AccessKey {
            account: role.account.clone(),
            user: role.name.clone(),
            // The beginnings tell tests what they look for.
            security_token: Some(format!("CAISsimtoken{token}")),
            expires: Some(later(now, duration)),
            role: Some(RoleSession {
                arn: role.arn(),
                session: session.to_owned(),
            }),
            ..AccessKey::new(format!("STS.{id}"), format!("SimSecret{secret}"))
        };
        self.keys.insert(key.clone());
        key
    }
}

/// The parameters that both calls have.
struct RoleRequest {
    arn: String,
    session: String,
    seconds: u32,
}

impl RoleRequest {
    fn read(parameters: &Parameters) -> Result<Self, ErrorResponse> {
        let needed = |name| parameters.text(name).ok_or_else(|| missing_parameter(name));
        let arn = needed("RoleArn")?;
        if !(arn.starts_with("acs:ram::") && arn.contains(":role/")) {
            return Err(error::ROLE_ARN_INVALID.into());
        }
        let session = needed("RoleSessionName")?;
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b".@_-".contains(&byte);
        if !(2..=64).contains(&session.len()) || !session.bytes().all(allowed) {
            return Err(error::SESSION_NAME_INVALID.into());
        }
        let seconds = match parameters.text("DurationSeconds") {
            None => one_hour(),
            Some(text) => text.parse().map_err(|_| error::DURATION_INVALID)?,
        };
        Ok(Self {
            arn: arn.to_owned(),
            session: session.to_owned(),
            seconds,
        })
    }

    fn duration(&self, role: &Role) -> Result<Duration, ErrorResponse> {
        if !(900..=role.max_session_duration).contains(&self.seconds) {
            return Err(error::DURATION_INVALID.into());
        }
        Ok(Duration::from_secs(self.seconds.into()))
    }
}

fn session_answer(role: &Role, session: &str, key: &AccessKey) -> Value {
    json!({
        "AssumedRoleUser": {
            "Arn": format!("acs:ram::{}:role/{}/{session}", role.account, role.name),
            "AssumedRoleId": format!("300000000000000001:{session}"),
        },
        "Credentials": {
            "AccessKeyId": key.id,
            "AccessKeySecret": key.secret,
            "SecurityToken": key.security_token,
            "Expiration": key.expires.map(in_seconds),
        },
    })
}

/// The time as the vendor writes it.
pub(super) fn in_seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simulator::test_issuer::Issuer;

    const SUBJECT: &str = "system:serviceaccount:team-a:membership";
    const PROVIDER: &str = "acs:ram::1000000000000001:oidc-provider/ack-rrsa-c1";
    const ROLE: &str = "acs:ram::1000000000000001:role/operator";

    fn now() -> Timestamp {
        Timestamp::from_second(1_000_000).unwrap()
    }

    fn cloud(issuer: &Issuer) -> Cloud {
        let mut cloud = Cloud::default();
        let provider =
            json!({"name": "ack-rrsa-c1", "issuer": "https://kubernetes", "keys": issuer.jwks});
        cloud
            .ram
            .insert_provider(serde_json::from_value(provider).unwrap());
        let role = json!({"name": "operator", "trustPolicy": {"Statement": [
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"Federated": [PROVIDER]},
             "Condition": {"StringEquals": {"oidc:aud": "sts.aliyuncs.com", "oidc:iss": "https://kubernetes", "oidc:sub": SUBJECT}}},
            {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"RAM": ["acs:ram::1000000000000001:user/simulator"]},
             "Condition": {"StringEquals": {"sts:ExternalId": "42"}}}]},
            "policies": [{"Statement": [{"Effect": "Allow", "Action": "ecs:Describe*", "Resource": "*"}]}]});
        cloud.ram.insert_role(serde_json::from_value(role).unwrap());
        cloud
    }

    fn parameters(pairs: &[(&str, &str)]) -> Parameters {
        let owned = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Parameters::new(owned.collect())
    }

    fn code<T>(result: Result<T, ErrorResponse>) -> String {
        result
            .err()
            .map_or("OK".to_owned(), |error| error.code.into_owned())
    }

    #[test]
    fn token_of_the_trusted_service_account_is_exchanged() {
        let issuer = Issuer::new();
        let mut cloud = cloud(&issuer);
        let claims = |sub: &str, aud: &str, iss: &str, exp| {
            issuer.sign(&json!({"iss": iss, "sub": sub, "aud": [aud], "exp": exp}))
        };
        let mut exchange = |token: &str, provider: &str, role: &str| {
            let pairs = [
                ("RoleArn", role),
                ("OIDCProviderArn", provider),
                ("OIDCToken", token),
                ("RoleSessionName", "session"),
            ];
            code(cloud.assume_role_with_oidc(&parameters(&pairs), now()))
        };
        let (aud, iss, exp) = ("sts.aliyuncs.com", "https://kubernetes", 2_000_000);
        let good = claims(SUBJECT, aud, iss, exp);
        assert_eq!(exchange(&good, PROVIDER, ROLE), "OK");
        let fail = "AuthenticationFail.OIDCToken";
        for (token, provider, role, expected) in [
            (
                &good,
                "acs:ram::1:oidc-provider/x",
                ROLE,
                "AuthenticationFail.NoPermission".to_owned(),
            ),
            (
                &good,
                PROVIDER,
                "acs:ram::1000000000000001:role/none",
                "EntityNotExist.Role".to_owned(),
            ),
            (
                &good,
                PROVIDER,
                "operator",
                "InvalidParameter.RoleArn".to_owned(),
            ),
            (
                &claims(SUBJECT, aud, iss, 1),
                PROVIDER,
                ROLE,
                format!("{fail}.Expired"),
            ),
            (
                &claims(SUBJECT, "kubernetes", iss, exp),
                PROVIDER,
                ROLE,
                format!("{fail}.AudienceNotMatch"),
            ),
            (
                &claims(SUBJECT, aud, "https://other", exp),
                PROVIDER,
                ROLE,
                format!("{fail}.IssuerNotMatch"),
            ),
            (
                &claims("system:serviceaccount:team-b:membership", aud, iss, exp),
                PROVIDER,
                ROLE,
                "AuthenticationFail.NoPermission".to_owned(),
            ),
            (
                &Issuer::new().sign(&json!({"iss": iss, "sub": SUBJECT, "aud": aud, "exp": exp})),
                PROVIDER,
                ROLE,
                format!("{fail}.Invalid"),
            ),
        ] {
            assert_eq!(exchange(token, provider, role), expected);
        }
    }

    #[test]
    fn role_is_assumed_by_whom_it_trusts_and_its_policies_hold() {
        let mut cloud = cloud(&Issuer::new());
        let key = AccessKey::new("id", "secret");
        let caller = cloud.keys.caller(&key, None, now()).unwrap();
        let with = |more: &[(&str, &str)]| {
            let pairs = [("RoleArn", ROLE), ("RoleSessionName", "session")];
            parameters(&[&pairs[..], more].concat())
        };
        let id = ("ExternalId", "42");
        for (more, expected) in [
            (&[][..], "NoPermission"),
            (&[("ExternalId", "43")][..], "NoPermission"),
            (
                &[id, ("DurationSeconds", "899")][..],
                "InvalidParameter.DurationSeconds",
            ),
            (
                &[id, ("DurationSeconds", "3601")][..],
                "InvalidParameter.DurationSeconds",
            ),
        ] {
            assert_eq!(
                code(cloud.assume_role(&caller, &with(more), now())),
                expected
            );
        }
        let answer = cloud
            .assume_role(&caller, &with(&[id, ("DurationSeconds", "900")]), now())
            .unwrap();
        let keys = &answer["Credentials"];
        assert_eq!(keys["Expiration"], "1970-01-12T14:01:40Z");
        let text = |name: &str| keys[name].as_str().unwrap().to_owned();
        let issued = cloud.keys.usable(&text("AccessKeyId")).unwrap().clone();
        let token = text("SecurityToken");
        let mut caller = cloud.keys.caller(&issued, Some(&token), now()).unwrap();
        caller.policies = cloud.ram.policies_of(ROLE);
        let may = |caller: &Caller, action: &str| {
            code(caller.authorize(action, "cn-hangzhou", &["instance/i-1".to_owned()]))
        };
        assert_eq!(may(&caller, "ecs:DescribeInstances"), "OK");
        assert_eq!(may(&caller, "ecs:JoinSecurityGroup"), "Forbidden.RAM");
        assert_eq!(
            code(cloud.keys.caller(&issued, None, now())),
            "MissingSecurityToken"
        );
        let late = later(now(), Duration::from_secs(900));
        let expired = cloud.keys.caller(&issued, Some(&token), late);
        assert_eq!(code(expired), "InvalidSecurityToken.Expired");
        cloud.ram.remove_role("operator").unwrap();
        caller.policies = cloud.ram.policies_of(ROLE);
        assert_eq!(may(&caller, "ecs:DescribeInstances"), "Forbidden.RAM");
    }
}
