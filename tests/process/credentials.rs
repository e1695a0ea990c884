//! Every kind of credentials against the real API server, STS and metadata service of the simulator: each makes a membership Ready,
//! and what is wrong with one is a condition with the field and the fix.

use std::time::Duration;

use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use security_group_operator::api::ClusterCloudAccount;
use security_group_operator::ecs::credential::AUDIENCE;
use serde_json::{Value, json};

use crate::support::env::TestEnv;
use crate::support::error::{Context, Error, Result};
use crate::support::eventually::eventually;
use crate::support::operator::{NAMESPACE, Operator, SERVICE_ACCOUNT};
use crate::support::port;
use crate::support::simulator::fetch;
use crate::{OnlyOperator, binaries, options};

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-token, securityGroupIds: [sg-base]}
- {id: i-oidc, securityGroupIds: [sg-base]}
- {id: i-role, securityGroupIds: [sg-base]}
- {id: i-environment, securityGroupIds: [sg-base]}
- {id: i-assumed, securityGroupIds: [sg-base]}
accessKeys:
- {id: STS.test, secret: testsecret, securityToken: token-of-test}
- {id: STS.old, secret: testsecret, securityToken: token-of-old, expires: '2020-01-01T00:00:00Z'}
";

/// Calls that an account in trouble may cost within a test.
const FEW: u64 = 8;

pub struct Fixture {
    pub env: TestEnv,
    pub operator: OnlyOperator,
    /// The URL of the simulator's metadata service.
    pub metadata: String,
}

impl Fixture {
    /// An operator whose metadata service is the simulator's, and a cloud that trusts the cluster's service accounts.
    async fn start() -> Result<Self> {
        Self::start_with(INVENTORY).await
    }

    /// The same with this inventory.
    pub async fn start_with(inventory: &str) -> Result<Self> {
        let port = port::free()?;
        let metadata = format!("http://127.0.0.1:{port}");
        let endpoint = format!("--metadata-endpoint={metadata}");
        let operator = OnlyOperator::start(&["--scan-period=1s", &endpoint]).await?;
        let arguments = [format!("--metadata=127.0.0.1:{port}")];
        let env = TestEnv::start_with(operator.plane, &binaries!(), inventory, &arguments).await?;
        let fixture = Self {
            env,
            operator,
            metadata,
        };
        fixture
            .trust_the_cluster("cluster", "https://kubernetes.default.svc")
            .await?;
        fixture.service_account("membership").await?;
        Ok(fixture)
    }

    /// Another operator instead, with these variables of the environment.
    pub async fn start_again(&mut self, variables: &[(&str, &str)]) -> Result<()> {
        let endpoint = format!("--metadata-endpoint={}", self.metadata);
        let mut options = options(&["--scan-period=1s", &endpoint]);
        let variables = variables.iter();
        options.environment = variables
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        self.operator.kill();
        *self.operator = Operator::start(self.operator.plane, options).await?;
        Ok(())
    }

    pub fn arn(&self, what: &str) -> String {
        format!("acs:ram::{}:{what}", self.env.account)
    }

    /// Registers the cluster's keys as an OIDC provider.
    async fn trust_the_cluster(&self, name: &str, issuer: &str) -> Result<()> {
        let request = http::Request::get("/openid/v1/jwks").body(Vec::new())?;
        let keys: Value = self.env.client.request(request).await?;
        let provider =
            json!({"name": name, "account": self.env.account, "issuer": issuer, "keys": keys});
        self.env
            .simulator
            .change(&json!({"addOidcProvider": provider}))
            .await
    }

    /// A role that these principals may assume.
    pub async fn role(&self, name: &str, principal: Value, condition: Value) -> Result<()> {
        let trust = json!({"Version": "1", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal, "Condition": condition}]});
        let policies = [policy(), self.may_assume("chained")];
        let role = json!({"name": name, "account": self.env.account, "trustPolicy": trust, "policies": policies});
        self.env.simulator.change(&json!({"addRole": role})).await
    }

    /// The right to assume this role.
    fn may_assume(&self, role: &str) -> Value {
        let role = self.arn(&format!("role/{role}"));
        json!({"Version": "1", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Resource": role}]})
    }

    /// The role for the service account of the operator's namespace, with the trust policy of the manual.
    pub async fn role_for_service_account(&self, name: &str, service_account: &str) -> Result<()> {
        let provider = self.arn("oidc-provider/cluster");
        let subject = format!("system:serviceaccount:{NAMESPACE}:{service_account}");
        let condition = json!({"StringEquals": {
            "oidc:iss": "https://kubernetes.default.svc", "oidc:aud": AUDIENCE, "oidc:sub": subject}});
        self.role(name, json!({"Federated": [provider]}), condition)
            .await
    }

    /// A service account, and the operator's right to request its tokens and no others.
    async fn service_account(&self, name: &str) -> Result<()> {
        apply::<ServiceAccount>(&self.env.client, NAMESPACE, name, json!({})).await?;
        let rules = json!([{"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [name], "verbs": ["create"]}]);
        apply::<Role>(&self.env.client, NAMESPACE, name, json!({"rules": rules})).await?;
        let binding = json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}]});
        apply::<RoleBinding>(&self.env.client, NAMESPACE, name, binding).await
    }

    pub fn oidc(&self, role: &str, provider: &str, service_account: &str) -> Value {
        json!({"oidc": {"roleARN": self.arn(&format!("role/{role}")),
            "oidcProviderARN": self.arn(&format!("oidc-provider/{provider}")),
            "serviceAccountName": service_account}})
    }

    /// Writes an account of the cluster kind with these credentials.
    pub async fn account(&self, kind: &str, credentials: &Value) -> Result<ClusterCloudAccount> {
        let endpoint = self.env.simulator.endpoint();
        let name = self.name(kind);
        let account = json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "ClusterCloudAccount",
            "metadata": {"name": name},
            "spec": {
                "credentials": credentials,
                "endpoints": {"ecs": endpoint, "sts": endpoint},
                "grants": [{"name": "all", "namespaces": {"names": [self.env.name]}, "securityGroups": {"ids": ["*"]}}],
            },
        });
        let by_us = PatchParams::apply("test").force();
        let accounts = self.accounts();
        Ok(accounts
            .patch(&name, &by_us, &Patch::Apply(&account))
            .await?)
    }

    fn accounts(&self) -> Api<ClusterCloudAccount> {
        Api::all(self.env.client.clone())
    }

    fn name(&self, kind: &str) -> String {
        format!("{}-{kind}", self.env.name)
    }

    /// A Secret of the operator's namespace under this name for the kind.
    pub async fn secret(&self, kind: &str, data: Value) -> Result<Value> {
        let name = self.name(kind);
        apply::<Secret>(
            &self.env.client,
            NAMESPACE,
            &name,
            json!({"stringData": data}),
        )
        .await?;
        Ok(json!({"secretRef": {"name": name}}))
    }

    /// Returns when the account says this, and checks each part of its sentence.
    pub async fn until(&self, kind: &str, reason: &str, sentence: &[&str]) -> Result<()> {
        let mut message = String::new();
        let what = format!("{kind} is {reason}: {sentence:?}");
        let said = eventually(&what, async || {
            let account = self.accounts().get(&self.name(kind)).await?;
            let status = account.status.unwrap_or_default();
            let mut conditions = status.conditions.into_iter();
            let ready = conditions.find(|condition| condition.type_ == "Ready");
            let ready = ready.filter(|ready| {
                message = format!("{}: {}", ready.reason, ready.message);
                ready.reason == reason
            });
            Ok(ready.is_some_and(|ready| sentence.iter().all(|part| ready.message.contains(part))))
        });
        said.await.context(message)
    }

    /// The account works: a membership with it is Joined, by a caller with this in its ARN.
    pub async fn works(&self, kind: &str, credentials: &Value, arn: &str) -> Result<()> {
        self.account(kind, credentials).await?;
        self.until(kind, "CredentialsAccepted", &[arn]).await?;
        let account =
            json!({"accountRef": {"kind": "ClusterCloudAccount", "name": self.name(kind)}});
        self.env
            .apply(kind, &format!("i-{kind}"), "sg-web", account)
            .await?;
        self.env.until_reason(kind, "Joined").await?;
        Ok(())
    }
}

/// The policy of the manual.
fn policy() -> Value {
    json!({"Version": "1", "Statement": [
        {"Effect": "Allow", "Action": ["ecs:JoinSecurityGroup", "ecs:LeaveSecurityGroup"],
         "Resource": ["acs:ecs:*:*:instance/*", "acs:ecs:*:*:eni/*", "acs:ecs:*:*:securitygroup/sg-web"]},
        {"Effect": "Allow", "Action": ["ecs:DescribeInstances", "ecs:DescribeNetworkInterfaces"], "Resource": "*"}]})
}

/// Applies an object into a namespace.
pub async fn apply<K>(client: &Client, namespace: &str, name: &str, mut object: Value) -> Result<()>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let fields = object.as_object_mut().context("an object")?;
    fields.insert("apiVersion".to_owned(), json!(K::api_version(&())));
    fields.insert("kind".to_owned(), json!(K::kind(&())));
    fields.insert("metadata".to_owned(), json!({"name": name}));
    let by_us = PatchParams::apply("test").force();
    api.patch(name, &by_us, &Patch::Apply(&object)).await?;
    Ok(())
}

#[tokio::test]
async fn every_kind_of_credentials_makes_a_membership_ready() -> Result<()> {
    let fixture = Fixture::start().await?;
    let user = fixture.arn("user/simulator");
    fixture
        .role_for_service_account("web", "membership")
        .await?;
    let ecs = json!({"Service": ["ecs.aliyuncs.com"]});
    fixture.role("node", ecs, json!({})).await?;
    let external = json!({"StringEquals": {"sts:ExternalId": "42"}});
    fixture
        .role("assumed", json!({"RAM": [user]}), external)
        .await?;
    let metadata = json!({"role": "node", "requiresToken": true, "sessionDuration": "6s"});
    fixture
        .env
        .simulator
        .change(&json!({"setMetadata": metadata}))
        .await?;

    let token = json!({"accessKeyID": "STS.test\n", "accessKeySecret": "testsecret\n", "securityToken": "token-of-test\n"});
    let token = fixture.secret("token", token).await?;
    fixture.works("token", &token, "assumed-role").await?;
    let oidc = fixture.oidc("web", "cluster", "membership");
    fixture
        .works("oidc", &oidc, "assumed-role/web/security-group-operator")
        .await?;
    let role = json!({"ecsRAMRole": {"name": "node"}});
    fixture.works("role", &role, "assumed-role/node/").await?;
    let environment = json!({"environment": {}});
    fixture
        .works("environment", &environment, "assumed-role/node/")
        .await?;
    let key = json!({"accessKeyID": "testid", "accessKeySecret": "testsecret"});
    let mut assumed = fixture.secret("assumed", key).await?;
    assumed["assumeRole"] = json!({"roleARN": fixture.arn("role/assumed"), "sessionName": "team-a",
        "externalID": "42", "durationSeconds": 900});
    fixture
        .works("assumed", &assumed, "assumed-role/assumed/team-a")
        .await
}

/// The status, and the metric behind the alert.
#[tokio::test]
async fn status_and_metric_tell_when_an_issued_key_ends() -> Result<()> {
    let fixture = Fixture::start().await?;
    let user = fixture.arn("user/simulator");
    let trusts = json!({"RAM": [user]});
    fixture.role("assumed", trusts, json!({})).await?;
    let key = json!({"accessKeyID": "testid", "accessKeySecret": "testsecret"});
    let secret = fixture.secret("assumed", key).await?;
    let mut assumed = secret.clone();
    assumed["assumeRole"] = json!({"roleARN": fixture.arn("role/assumed"), "durationSeconds": 900});
    let began = Timestamp::now();
    fixture.works("assumed", &assumed, "assumed-role/").await?;
    let name = fixture.name("assumed");
    let expiry = async || {
        let status = fixture.accounts().get(&name).await?.status;
        Ok::<_, Error>(status.unwrap_or_default().credential_expiry)
    };
    let metric = async || {
        let text = fetch(&fixture.operator.url("/metrics")).await?;
        let text = String::from_utf8(text)?;
        let wanted = format!("expiry_timestamp_seconds{{account=\"{name}\"}}");
        Ok::<_, Error>(text.contains(&wanted))
    };
    let ends = expiry().await?.context("credentialExpiry")?.0;
    let life = ends.duration_since(began).as_secs();
    assert!((890..=1_000).contains(&life), "it ends {life} s later");
    assert!(metric().await?);

    // A key without an end again.
    fixture.works("assumed", &secret, "user/simulator").await?;
    assert_eq!(expiry().await?, None);
    eventually("no metric tells of an end", async || Ok(!metric().await?)).await
}

/// STS refuses to issue another key meanwhile.
#[tokio::test]
async fn requested_check_takes_no_key_away_that_works() -> Result<()> {
    let fixture = Fixture::start().await?;
    let trusts = json!({"RAM": [fixture.arn("user/simulator")]});
    fixture.role("assumed", trusts, json!({})).await?;
    let key = json!({"accessKeyID": "testid", "accessKeySecret": "testsecret"});
    let mut assumed = fixture.secret("assumed", key).await?;
    assumed["assumeRole"] = json!({"roleARN": fixture.arn("role/assumed")});
    fixture.works("assumed", &assumed, "assumed-role/").await?;
    // A younger key is not replaced.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let refusal = json!({"error": {"code": "NoPermission", "status": 403}});
    let refused = json!({"action": "AssumeRole", "fault": refusal});
    fixture.env.simulator.faults(&json!([refused])).await?;

    let name = fixture.name("assumed");
    let accepted_since = async || {
        let status = fixture.accounts().get(&name).await?.status;
        let mut conditions = status.unwrap_or_default().conditions.into_iter();
        let ready = conditions.find(|condition| condition.type_ == "Ready");
        let ready = ready.filter(|ready| ready.status == "True");
        Ok::<_, Error>(ready.context("Ready")?.last_transition_time)
    };
    let before = accepted_since().await?;
    let request = json!({"metadata": {"annotations": {"security-group-operator.io/reconcile-requested-at": "now"}}});
    let parameters = PatchParams::default();
    fixture
        .accounts()
        .patch(&name, &parameters, &Patch::Merge(&request))
        .await?;
    eventually("the operator asked for another key", async || {
        let refused = fixture.env.simulator.calls("AssumeRole", "NoPermission");
        Ok(refused.await? > 0)
    })
    .await?;
    eventually("the request was handled", async || {
        let status = fixture.accounts().get(&name).await?.status;
        let handled = status.unwrap_or_default().last_handled_reconcile_at;
        Ok(handled.as_deref() == Some("now"))
    })
    .await?;
    assert_eq!(accepted_since().await?, before);
    fixture.env.delete("assumed").await?;
    fixture.env.until_deleted("assumed").await?;
    assert!(!fixture.env.is_member("i-assumed", "sg-web").await?);
    Ok(())
}

/// A refusal of STS, not of a key: whoever corrects the role does not wait as long as after a wrong key.
#[tokio::test]
async fn role_that_refuses_is_asked_again_as_soon_as_the_account_says() -> Result<()> {
    let fixture = Fixture::start().await?;
    let trusts = json!({"RAM": [fixture.arn("user/simulator")]});
    fixture.role("assumed", trusts, json!({})).await?;
    let refusal = json!({"error": {"code": "NoPermission", "status": 403}});
    let refused = json!({"action": "AssumeRole", "fault": refusal});
    fixture.env.simulator.faults(&json!([refused])).await?;
    let key = json!({"accessKeyID": "testid", "accessKeySecret": "testsecret"});
    let mut assumed = fixture.secret("assumed", key).await?;
    assumed["assumeRole"] = json!({"roleARN": fixture.arn("role/assumed")});
    fixture.account("assumed", &assumed).await?;
    let told = ["next try in 5s (backs off to 5m)"];
    fixture.until("assumed", "NoPermission", &told).await?;
    eventually("the role was asked for three times", async || {
        let refused = fixture.env.simulator.calls("AssumeRole", "NoPermission");
        Ok(refused.await? >= 3)
    })
    .await?;
    fixture.env.simulator.faults(&json!([])).await?;
    let accepted = ["assumed-role/"];
    fixture
        .until("assumed", "CredentialsAccepted", &accepted)
        .await
}

#[tokio::test]
async fn key_of_the_instance_role_is_renewed_before_it_ends() -> Result<()> {
    let fixture = Fixture::start().await?;
    let ecs = json!({"Service": ["ecs.aliyuncs.com"]});
    fixture.role("node", ecs, json!({})).await?;
    let metadata = json!({"role": "node", "sessionDuration": "9s"});
    fixture
        .env
        .simulator
        .change(&json!({"setMetadata": metadata}))
        .await?;
    let role = json!({"ecsRAMRole": {"name": "node"}});
    fixture.works("role", &role, "assumed-role/node/").await?;
    eventually("three more keys were fetched", async || {
        Ok(fixture
            .env
            .simulator
            .calls("GetCallerIdentity", "OK")
            .await?
            >= 5)
    })
    .await?;
    fixture.until("role", "CredentialsAccepted", &[]).await?;
    for action in ["DescribeInstances", "GetCallerIdentity"] {
        let expired = "InvalidSecurityToken.Expired";
        assert_eq!(
            fixture.env.simulator.calls(action, expired).await?,
            0,
            "{action}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn bad_credentials_are_a_condition_with_field_and_fix() -> Result<()> {
    let fixture = Fixture::start().await?;
    fixture
        .role_for_service_account("web", "membership")
        .await?;
    fixture
        .role_for_service_account("other", "somebody-else")
        .await?;
    fixture
        .trust_the_cluster("elsewhere", "https://other.example.com")
        .await?;
    let oidc = |role: &str, provider: &str| fixture.oidc(role, provider, "membership");
    let refused = "AuthenticationFail";

    fixture.account("oidc", &oidc("none", "cluster")).await?;
    let sentence = [
        "spec.credentials.oidc: EntityNotExist.Role",
        "check roleARN",
    ];
    fixture
        .until("oidc", "EntityNotExistRole", &sentence)
        .await?;
    fixture.account("oidc", &oidc("web", "elsewhere")).await?;
    let sentence = ["spec.credentials.oidc: ", "this cluster's issuer"];
    let reason = format!("{refused}OIDCTokenIssuerNotMatch");
    fixture.until("oidc", &reason, &sentence).await?;
    fixture.account("oidc", &oidc("other", "cluster")).await?;
    let sentence = ["spec.credentials.oidc: ", "trust policy"];
    fixture
        .until("oidc", &format!("{refused}NoPermission"), &sentence)
        .await?;
    fixture.account("oidc", &oidc("web", "none")).await?;
    let sentence = ["No such OIDC Provider", "check oidcProviderARN"];
    fixture
        .until("oidc", &format!("{refused}NoPermission"), &sentence)
        .await?;

    apply::<ServiceAccount>(&fixture.env.client, NAMESPACE, "unbound", json!({})).await?;
    fixture
        .account("unbound", &fixture.oidc("web", "cluster", "unbound"))
        .await?;
    let sentence = [
        "spec.credentials.oidc.serviceAccountName",
        "resourceNames: [unbound]",
        NAMESPACE,
    ];
    fixture
        .until("unbound", "TokenForbidden", &sentence)
        .await?;
    fixture.service_account("gone").await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(fixture.env.client.clone(), NAMESPACE);
    accounts
        .delete("gone", &kube::api::DeleteParams::default())
        .await?;
    fixture
        .account("gone", &fixture.oidc("web", "cluster", "gone"))
        .await?;
    let sentence = [
        "spec.credentials.oidc.serviceAccountName",
        "gone does not exist",
        "create it",
    ];
    fixture
        .until("gone", "ServiceAccountNotFound", &sentence)
        .await?;

    let old = json!({"accessKeyID": "STS.old", "accessKeySecret": "testsecret", "securityToken": "token-of-old"});
    fixture
        .account("token", &fixture.secret("token", old).await?)
        .await?;
    let reason = "InvalidSecurityTokenExpired";
    fixture
        .until("token", reason, &["fresh temporary credentials"])
        .await?;

    let key = json!({"accessKeyID": "testid", "accessKeySecret": "testsecret"});
    let mut assumed = fixture.secret("assumed", key).await?;
    assumed["assumeRole"] = json!({"roleARN": fixture.arn("role/web")});
    fixture.account("assumed", &assumed).await?;
    let sentence = ["spec.credentials.assumeRole: NoPermission", "trust policy"];
    fixture.until("assumed", "NoPermission", &sentence).await?;

    let mut two = fixture.oidc("web", "cluster", "membership");
    two["secretRef"] = json!({"name": "aliyun"});
    let said = fixture.account("two", &two).await.unwrap_err().to_string();
    for part in ["spec.credentials.oidc", "must not be set when secretRef is"] {
        assert!(said.contains(part), "{said}");
    }
    let mut changed = oidc("web", "cluster");
    changed["oidc"]["serviceAccountName"] = json!("another");
    let said = fixture
        .account("oidc", &changed)
        .await
        .unwrap_err()
        .to_string();
    assert!(said.contains("is immutable"), "{said}");
    Ok(())
}

#[tokio::test]
async fn broken_metadata_service_is_a_condition_and_no_storm() -> Result<()> {
    let fixture = Fixture::start().await?;
    let ecs = json!({"Service": ["ecs.aliyuncs.com"]});
    fixture.role("node", ecs, json!({})).await?;
    let role = json!({"ecsRAMRole": {"name": "node"}});
    let set = async |metadata: Value| {
        fixture
            .env
            .simulator
            .change(&json!({"setMetadata": metadata}))
            .await
    };
    for (number, (fault, sentence)) in [
        ("hang", "no complete answer within"),
        ("html", "a page instead of a token"),
        ("error", "HTTP 500"),
    ]
    .into_iter()
    .enumerate()
    {
        set(json!({"role": "node", "fault": fault})).await?;
        // Another generation, which does not wait.
        let more = json!({"ecsRAMRole": {"name": "node"}, "assumeRole": {"roleARN": fixture.arn(&format!("role/r{number}"))}});
        fixture.account("role", &more).await?;
        let said = [
            "spec.credentials.ecsRAMRole: the metadata service at 127.0.0.1",
            sentence,
            "attach the role",
        ];
        fixture.until("role", "NoKeyHandedOut", &said).await?;
    }
    set(json!({"role": "another"})).await?;
    fixture.account("role", &role).await?;
    fixture
        .until("role", "NoKeyHandedOut", &["no such role"])
        .await?;
    let before = fixture.env.simulator.stats().await?;
    for number in 0..20 {
        let patch = json!({"metadata": {"annotations": {"security-group-operator.io/reconcile-requested-at": number.to_string()}}});
        let name = fixture.name("role");
        let by_us = PatchParams::default();
        fixture
            .accounts()
            .patch(&name, &by_us, &Patch::Merge(&patch))
            .await?;
    }
    set(json!({"role": "node"})).await?;
    fixture
        .until("role", "CredentialsAccepted", &["assumed-role/node/"])
        .await?;
    let count = |stats: &Value| {
        stats
            .pointer("/calls/Metadata/404")
            .and_then(Value::as_u64)
            .unwrap_or(0)
    };
    let asked = count(&fixture.env.simulator.stats().await?) - count(&before);
    assert!(asked <= FEW, "{asked} requests");
    Ok(())
}
