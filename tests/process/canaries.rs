//! Every kind of credentials, in both kinds of account, with an operator that logs all that it can: no secret of any of them, and no
//! connection to a host that is none of the cluster, the cloud and the metadata service.

#![expect(clippy::indexing_slicing, reason = "fields are put into JSON objects")]

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::Api;
use kube::api::ListParams;
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::binaries;
use crate::credentials::{Fixture, apply};
use crate::support::error::{Context, Result};
use crate::support::eventually::eventually;
use crate::support::operator::{NAMESPACE, Operator, Options, SERVICE_ACCOUNT};
use crate::support::simulator::fetch;

/// What users write: keys and tokens of Secrets, and external IDs.
const WRITTEN: [&str; 6] = [
    "CANARYplainsecret",
    "CANARYtokensecret",
    "CANARYtokenOfSecret",
    "CANARYwrongsecret",
    "CANARYexternalid",
    "CANARYwrongexternalid",
];

/// How each secret begins that the simulator hands out: secret and token of a session, and the token of the metadata service. And
/// each token of a service account.
const HANDED_OUT: [&str; 4] = ["SimSecret", "CAISsimtoken", "sim-metadata", "eyJhbGciOi"];

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-plain, securityGroupIds: [sg-base]}
- {id: i-token, securityGroupIds: [sg-base]}
- {id: i-oidc, securityGroupIds: [sg-base]}
- {id: i-role, securityGroupIds: [sg-base]}
- {id: i-environment, securityGroupIds: [sg-base]}
- {id: i-assumed, securityGroupIds: [sg-base]}
- {id: i-ownplain, securityGroupIds: [sg-base]}
- {id: i-ownoidc, securityGroupIds: [sg-base]}
accessKeys:
- {id: plain, secret: CANARYplainsecret}
- {id: STS.token, secret: CANARYtokensecret, securityToken: CANARYtokenOfSecret}
";

/// Beginning of a secret, as it is and in the encoding of a Secret.
fn forms(canary: &str) -> [String; 2] {
    let whole = canary.len() / 3 * 3;
    let encoded = STANDARD.encode(canary.get(..whole).unwrap_or(canary));
    [canary.to_owned(), encoded]
}

/// The operator of the fixture again, loud, with endpoints for `CloudAccount`s and a credentials URI.
async fn loud_fixture() -> Result<Fixture> {
    let mut fixture = Fixture::start_with(INVENTORY).await?;
    let endpoint = fixture.env.simulator.endpoint();
    let metadata = fixture.metadata.clone();
    let options = Options {
        binary: binaries!().operator,
        arguments: vec![
            format!("--ecs-endpoint={endpoint}"),
            format!("--sts-endpoint={endpoint}"),
            format!("--metadata-endpoint={metadata}"),
            // As in the chart. The text is that of `secrets`.
            "--log-format=json".to_owned(),
        ],
        environment: vec![
            ("RUST_LOG".to_owned(), "trace".to_owned()),
            (
                "ALIBABA_CLOUD_CREDENTIALS_URI".to_owned(),
                format!("{metadata}/latest/meta-data/ram/security-credentials/node"),
            ),
        ],
    };
    fixture.operator.kill();
    *fixture.operator = Operator::start(fixture.operator.plane, options).await?;
    Ok(fixture)
}

/// Roles and the right to Secrets and tokens in the namespace of the test.
async fn trust(fixture: &Fixture) -> Result<()> {
    let own = &fixture.env.name;
    fixture
        .role_for_service_account("web", "membership")
        .await?;
    let provider = fixture.arn("oidc-provider/cluster");
    let subject = format!("system:serviceaccount:{own}:membership");
    let condition = json!({"StringEquals": {"oidc:sub": subject}});
    fixture
        .role("own", json!({"Federated": [provider]}), condition)
        .await?;
    let ecs = json!({"Service": ["ecs.aliyuncs.com"]});
    fixture.role("node", ecs, json!({})).await?;
    let user = json!({"RAM": [fixture.arn("user/simulator")]});
    let external = json!({"StringEquals": {"sts:ExternalId": "CANARYexternalid"}});
    fixture.role("assumed", user, external).await?;
    let change = json!({"setMetadata": {"role": "node", "sessionDuration": "6s"}});
    fixture.env.simulator.change(&change).await?;
    let path = "latest/meta-data/ram/security-credentials/node";
    let key = fetch(&format!("{}/{path}", fixture.metadata)).await?;
    let key = String::from_utf8(key)?;
    for begins in ["\"SimSecret", "\"CAISsimtoken"] {
        assert!(key.contains(begins), "the key of a session: {key}");
    }

    let client = &fixture.env.client;
    let subjects =
        json!([{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}]);
    let group = "rbac.authorization.k8s.io";
    let secrets = json!({"roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "security-group-operator-secrets"}, "subjects": subjects});
    apply::<RoleBinding>(client, own, "secrets", secrets).await?;
    apply::<ServiceAccount>(client, own, "membership", json!({})).await?;
    let rules = json!([{"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["membership"], "verbs": ["create"]}]);
    apply::<Role>(client, own, "tokens", json!({"rules": rules})).await?;
    let tokens = json!({"roleRef": {"apiGroup": group, "kind": "Role", "name": "tokens"}, "subjects": subjects});
    apply::<RoleBinding>(client, own, "tokens", tokens).await
}

/// Writes a `CloudAccount` and returns when it has this reason.
async fn own_account(
    fixture: &Fixture,
    name: &str,
    credentials: &Value,
    reason: &str,
) -> Result<()> {
    use security_group_operator::api::CloudAccount;
    let env = &fixture.env;
    let spec = json!({"spec": {"credentials": credentials}});
    apply::<CloudAccount>(&env.client, &env.name, name, spec).await?;
    let accounts: Api<CloudAccount> = Api::namespaced(env.client.clone(), &env.name);
    eventually(&format!("{name} is {reason}"), async || {
        let status = accounts.get(name).await?.status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        Ok(conditions.any(|ready| ready.type_ == "Ready" && ready.reason == reason))
    })
    .await
}

/// Each kind makes a membership Ready.
async fn all_kinds_work(fixture: &Fixture) -> Result<()> {
    let plain = json!({"accessKeyID": "plain", "accessKeySecret": "CANARYplainsecret"});
    let secret = fixture.secret("plain", plain.clone()).await?;
    fixture.works("plain", &secret, "user/").await?;
    let mut assumed = secret.clone();
    assumed["assumeRole"] =
        json!({"roleARN": fixture.arn("role/assumed"), "externalID": "CANARYexternalid"});
    fixture.works("assumed", &assumed, "role/assumed/").await?;
    let token = json!({"accessKeyID": "STS.token", "accessKeySecret": "CANARYtokensecret", "securityToken": "CANARYtokenOfSecret"});
    let token = fixture.secret("token", token).await?;
    fixture.works("token", &token, "assumed-role").await?;
    let oidc = fixture.oidc("web", "cluster", "membership");
    fixture.works("oidc", &oidc, "role/web/").await?;
    let role = json!({"ecsRAMRole": {"name": "node"}});
    fixture.works("role", &role, "role/node/").await?;
    let environment = json!({"environment": {}});
    fixture
        .works("environment", &environment, "role/node/")
        .await?;

    let env = &fixture.env;
    apply::<Secret>(&env.client, &env.name, "own", json!({"stringData": plain})).await?;
    let secret = json!({"secretRef": {"name": "own"}});
    let oidc = fixture.oidc("own", "cluster", "membership");
    for (name, credentials) in [("ownplain", &secret), ("ownoidc", &oidc)] {
        own_account(fixture, name, credentials, "CredentialsAccepted").await?;
        let account = json!({"accountRef": {"kind": "CloudAccount", "name": name}});
        env.apply(name, &format!("i-{name}"), "sg-web", account)
            .await?;
        env.until_reason(name, "Joined").await?;
    }
    Ok(())
}

/// Each kind is refused, with the words of who refuses.
async fn all_kinds_are_refused(fixture: &Fixture) -> Result<()> {
    let wrong = json!({"accessKeyID": "plain", "accessKeySecret": "CANARYwrongsecret"});
    let mut assumed = fixture.secret("plain", wrong.clone()).await?;
    let mismatch = "SignatureDoesNotMatch";
    fixture.until("plain", mismatch, &[]).await?;
    let right = json!({"accessKeyID": "plain", "accessKeySecret": "CANARYplainsecret"});
    assumed["secretRef"] = fixture.secret("right", right).await?["secretRef"].take();
    assumed["assumeRole"] =
        json!({"roleARN": fixture.arn("role/assumed"), "externalID": "CANARYwrongexternalid"});
    fixture.account("assumed", &assumed).await?;
    fixture.until("assumed", "NoPermission", &[]).await?;
    let token = json!({"accessKeyID": "STS.token", "accessKeySecret": "CANARYwrongsecret", "securityToken": "CANARYtokenOfSecret"});
    fixture.secret("token", token).await?;
    fixture.until("token", mismatch, &[]).await?;
    let none = fixture.oidc("none", "cluster", "membership");
    fixture.account("oidc", &none).await?;
    fixture.until("oidc", "EntityNotExistRole", &[]).await?;
    own_account(fixture, "ownoidc", &none, "EntityNotExistRole").await?;
    let env = &fixture.env;
    apply::<Secret>(&env.client, &env.name, "own", json!({"stringData": wrong})).await?;
    let secret = json!({"secretRef": {"name": "own"}});
    own_account(fixture, "ownplain", &secret, mismatch).await?;
    let change = json!({"setMetadata": {"role": "node", "fault": "html"}});
    env.simulator.change(&change).await?;
    let role = json!({"ecsRAMRole": {"name": "node"}, "assumeRole": {"roleARN": fixture.arn("role/assumed")}});
    fixture.account("role", &role).await?;
    fixture.until("role", "NoKeyHandedOut", &[]).await?;
    let role = json!({"environment": {}, "assumeRole": {"roleARN": fixture.arn("role/assumed")}});
    fixture.account("environment", &role).await?;
    fixture.until("environment", "NoKeyHandedOut", &[]).await
}

/// The statuses of all objects of a kind, and what is written on their metadata but for who wrote which field.
async fn said_on(fixture: &Fixture, kind: &str, plural: &str) -> Result<String> {
    let gvk = GroupVersionKind::gvk("security-group-operator.io", "v1alpha1", kind);
    let kind = ApiResource::from_gvk_with_plural(&gvk, plural);
    let objects: Api<DynamicObject> = Api::all_with(fixture.env.client.clone(), &kind);
    let objects = objects.list(&ListParams::default()).await?;
    let said = objects.iter().map(|object| {
        let annotations = &object.metadata.annotations;
        format!("{annotations:?} {}", object.data["status"])
    });
    Ok(said.collect::<Vec<_>>().join("\n"))
}

#[tokio::test]
async fn no_kind_of_credentials_leaks_a_secret_or_calls_an_unknown_host() -> Result<()> {
    let fixture = loud_fixture().await?;
    trust(&fixture).await?;
    all_kinds_work(&fixture).await?;
    all_kinds_are_refused(&fixture).await?;

    let events: Api<Event> = Api::all(fixture.env.client.clone());
    let events = events.list(&ListParams::default()).await?;
    let events: Vec<_> = events.iter().map(|event| &event.note).collect();
    let log = std::fs::read_to_string(fixture.operator.log())?;
    let metrics = fetch(&fixture.operator.url("/metrics")).await?;
    let said = [
        ("the metrics", String::from_utf8(metrics)?),
        ("the events", format!("{events:?}")),
        (
            "the memberships",
            said_on(
                &fixture,
                "SecurityGroupMembership",
                "securitygroupmemberships",
            )
            .await?,
        ),
        (
            "the CloudAccounts",
            said_on(&fixture, "CloudAccount", "cloudaccounts").await?,
        ),
        (
            "the ClusterCloudAccounts",
            said_on(&fixture, "ClusterCloudAccount", "clustercloudaccounts").await?,
        ),
        ("the log", log.clone()),
    ];
    assert!(log.contains("TRACE"), "the log is not at its loudest");
    for line in log.lines() {
        let event: Value = serde_json::from_str(line).context(line)?;
        assert!(
            event["message"].is_string() || event["level"] == "TRACE",
            "{line}"
        );
    }
    let mut hits = 0;
    for (place, text) in &said {
        assert!(text.len() > 100, "{place}: {text}");
        for canary in WRITTEN.iter().chain(&HANDED_OUT) {
            for form in forms(canary) {
                for line in text.lines().filter(|line| line.contains(&form)) {
                    hits += 1;
                    println!("{place} has {form}: {line}");
                }
            }
        }
    }
    println!("canary hits: {hits} in {} bytes of log", log.len());
    assert_eq!(hits, 0);
    check_hosts(&fixture, &log)
}

/// Checks every host that the HTTP clients of the process have opened a connection to, as their own logs record it.
fn check_hosts(fixture: &Fixture, log: &str) -> Result<()> {
    let mut called = BTreeSet::new();
    for line in log.lines() {
        for opening in ["starting new connection: ", "connecting to "] {
            let Some((_, host)) = line.split_once(opening) else {
                continue;
            };
            let host = host.split([' ', '"']).next().unwrap_or_default();
            let host = host.trim_start_matches("http://");
            let host = host.trim_start_matches("https://").trim_end_matches('/');
            called.insert(host.to_owned());
        }
    }
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let kubeconfig = std::fs::read_to_string(fixture.operator.plane.admin_kubeconfig())?;
    let kubeconfig: Value = serde_saphyr::from_str(&kubeconfig)?;
    let server = kubeconfig.pointer("/clusters/0/cluster/server");
    let server = server.and_then(Value::as_str).context("an API server")?;
    let server = url::Url::parse(server)?;
    let known = BTreeSet::from([
        host(&fixture.env.simulator.endpoint()),
        host(&fixture.metadata),
        server.authority().to_owned(),
    ]);
    println!("hosts: {called:?}");
    assert_eq!(called, known);
    Ok(())
}
