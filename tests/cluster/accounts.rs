//! What is wrong with an account, its Secret or its grants is a condition that says what to do, costs only the objects that
//! need it, storms nobody with calls, and ends by itself when it is put right.

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use security_group_operator::api::account::CloudAccountStatus;
use security_group_operator::api::{CloudAccount, ClusterCloudAccount, SecurityGroupMembership};
use security_group_operator::ecs::Class;
use serde_json::{Value, json};

use crate::binaries;
use crate::support::env::{Binaries, TestEnv, claim, message, operator, phase, ready};
use crate::support::error::{Context, Result};
use crate::support::eventually::eventually;
use crate::support::operator::NAMESPACE;
use crate::support::port;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
- {id: sg-db}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-other, securityGroupIds: [sg-base]}
accessKeys:
- {id: LTAIdisabled, secret: testsecret, inactive: true}
";

/// Calls that an account in trouble may cost within a test: one at each change, and the first few of a slow retry.
const FEW: u64 = 5;

#[tokio::test]
async fn missing_account_is_reported_until_created() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let missing = format!("{}-missing", env.name);
    apply(&env, "web", "i-web", &missing).await?;
    let object = env.until_reason("web", "AccountNotFound").await?;
    stalled(&object, &[&missing, "create it"]);
    assert_eq!(claim(&object), None);

    write_account(&env, &missing, &env.name, &env.simulator.endpoint()).await?;
    env.until_reason("web", "Joined").await?;
    delete_account(&env, &missing).await?;
    env.until_reason("web", "AccountNotFound").await?;
    assert!(env.is_member("i-web", "sg-web").await?);
    alive(&binaries!()).await
}

#[tokio::test]
async fn account_of_another_namespace_is_not_found() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let other = TestEnv::start(&binaries!(), INVENTORY).await?;
    let accounts: Api<CloudAccount> = Api::namespaced(other.client.clone(), &other.name);
    let account = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "CloudAccount",
        "metadata": {"name": "elsewhere"}, "spec": {"credentials": {"secretRef": {"name": "key"}}},
    });
    let account = serde_json::from_value(account)?;
    accounts.create(&PostParams::default(), &account).await?;
    let reference = json!({"accountRef": {"kind": "CloudAccount", "name": "elsewhere"}});
    env.apply("web", "i-web", "sg-web", reference).await?;
    let object = env.until_reason("web", "AccountNotFound").await?;
    stalled(&object, &["elsewhere", "create it"]);
    alive(&binaries!()).await
}

#[tokio::test]
async fn missing_secret_is_reported_until_created() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let (account, secret) = (format!("{}-own", env.name), format!("{}-secret", env.name));
    write_account(&env, &account, &secret, &env.simulator.endpoint()).await?;
    apply(&env, "web", "i-web", &account).await?;
    let sentence = [secret.as_str(), NAMESPACE, "accessKeyID", "accessKeySecret"];
    until_account(&env, &account, "SecretNotFound", "Stalled", &sentence).await?;
    let object = env.until_reason("web", "AccountNotReady").await?;
    stalled(&object, &sentence);

    let data = json!({"accessKeyID": "testid", "accessKeySecret": "testsecret"});
    write_secret(&env, &secret, &data).await?;
    env.until_reason("web", "Joined").await?;
    until_account(&env, &account, "CredentialsAccepted", "", &["acs:ram:"]).await?;
    alive(&binaries!()).await
}

#[tokio::test]
async fn unusable_secret_names_the_key_not_its_value() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let (account, secret) = (format!("{}-own", env.name), format!("{}-secret", env.name));
    write_account(&env, &account, &secret, &env.simulator.endpoint()).await?;
    apply(&env, "web", "i-web", &account).await?;
    let before = env.calls("GetCallerIdentity").await?;
    for (data, sentence) in [
        (json!({}), ["accessKeyID is missing", "add it"]),
        (
            json!({"accessKeyId": "testid", "accessKeySecret": "canary0"}),
            ["has accessKeyId, must have accessKeyID", secret.as_str()],
        ),
        (
            json!({"accessKeyID": "testid"}),
            ["accessKeySecret is missing", "add it"],
        ),
        (
            json!({"accessKeyID": "", "accessKeySecret": "canary1"}),
            ["accessKeyID is empty", "store the value"],
        ),
        (
            json!({"accessKeyID": "testid", "accessKeySecret": [0xff, 0xfe, 0x00]}),
            ["accessKeySecret is not text", "as Alibaba Cloud shows it"],
        ),
        (
            json!({"accessKeyID": "testid", "accessKeySecret": "canary4 5"}),
            ["accessKeySecret", secret.as_str()],
        ),
        (
            json!({"accessKeyID": "testid", "accessKeySecret": "testsecret", "securityToken": "canary\n6"}),
            [
                "securityToken holds a blank, a control character",
                "store exactly",
            ],
        ),
    ] {
        write_secret(&env, &secret, &data).await?;
        let status = until_account(&env, &account, "SecretInvalid", "Stalled", &sentence).await?;
        let shown = serde_json::to_string(&status)?;
        assert!(!shown.contains("canary"), "{shown}");
        let object = env
            .until("web", sentence[0], |object| {
                ready(object).is_some_and(|ready| ready.message.contains(sentence[0]))
            })
            .await?;
        stalled(&object, &sentence);
        assert_eq!(ready(&object).unwrap().reason, "AccountNotReady");
    }
    let after = env.calls("GetCallerIdentity").await?;
    assert!(
        after - before <= 1,
        "an unusable key causes no call; the test environment's own account may make one"
    );

    let data = json!({"accessKeyID": "testid", "accessKeySecret": "testsecret"});
    write_secret(&env, &secret, &data).await?;
    env.until_reason("web", "Joined").await?;
    alive(&binaries!()).await
}

#[tokio::test]
async fn secret_may_use_other_keys() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let (account, secret) = (format!("{}-own", env.name), format!("{}-secret", env.name));
    write_account(&env, &account, &secret, &env.simulator.endpoint()).await?;
    let data = json!({"id": "testid", "key.secret": "testsecret"});
    write_secret(&env, &secret, &data).await?;
    let missing = ["accessKeyID is missing", "spec.credentials.secretRef.keys"];
    until_account(&env, &account, "SecretInvalid", "Stalled", &missing).await?;
    let keys = json!({"accessKeyID": "id", "accessKeySecret": "key.secret"});
    let patch = json!({"spec": {"credentials": {"secretRef": {"keys": keys}}}});
    accounts(&env.client)
        .patch(&account, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    until_account(&env, &account, "CredentialsAccepted", "", &["acs:ram:"]).await?;
    alive(&binaries!()).await
}

#[tokio::test]
async fn rejected_key_shows_the_clouds_code_and_backs_off() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    // The test environment's own account has been examined, so that the counts below are those of its new key alone.
    env.apply("first", "i-other", "sg-web", json!({})).await?;
    env.until_reason("first", "Joined").await?;
    for (id, secret, code) in [
        ("LTAIunknown", "testsecret", "InvalidAccessKeyId.NotFound"),
        ("LTAIdisabled", "testsecret", "InvalidAccessKeyId.Inactive"),
        ("testid", "canarysecret", "SignatureDoesNotMatch"),
    ] {
        env.simulator.reset_stats().await?;
        env.write_secret(id, secret).await?;
        let reason = code.replace('.', "");
        let retry = format!("; {}", Class::Blocked.retry());
        let sentence = [code, "in the account's Secret", retry.as_str()];
        let status = until_account(&env, &env.name, &reason, "Stalled", &sentence).await?;
        assert!(!serde_json::to_string(&status)?.contains("canary"));
        env.apply("web", "i-web", "sg-web", json!({})).await?;
        for _ in 0..3 {
            env.request_reconcile("web").await?;
        }
        let object = env.until_reason("web", "AccountNotReady").await?;
        stalled(&object, &[code, &env.name, "in the account's Secret"]);
        // What is joined stays joined.
        env.until_reason("first", "AccountNotReady").await?;
        assert!(env.is_member("i-other", "sg-web").await?);
        let asked = env.calls("GetCallerIdentity").await?;
        assert!((1..=FEW).contains(&asked), "{code}: {asked} calls");
        assert_eq!(env.describe_calls().await?, 0);

        // Put right without a restart.
        env.write_secret("testid", "testsecret").await?;
        env.until_reason("web", "Joined").await?;
        env.until_reason("first", "Joined").await?;
        env.delete("web").await?;
        env.until_deleted("web").await?;
    }
    alive(&binaries!()).await
}

#[tokio::test]
async fn unreachable_endpoint_affects_only_its_account() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let silent = format!("{}-silent", env.name);
    let nobody = format!("http://127.0.0.1:{}", port::free()?);
    write_account(&env, &silent, &env.name, &nobody).await?;
    for index in 0..5 {
        apply(&env, &format!("silent-{index}"), "i-other", &silent).await?;
    }
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    for index in 0..5 {
        let object = env
            .until_reason(&format!("silent-{index}"), "AccountNotReady")
            .await?;
        assert_eq!(phase(&object), "Reconciling");
        let message = &ready(&object).unwrap().message;
        assert!(
            message.contains("GetCallerIdentity") && message.contains("connect"),
            "{message}"
        );
    }
    until_account(
        &env,
        &silent,
        "Retrying",
        "Reconciling",
        &["GetCallerIdentity"],
    )
    .await?;
    assert!(!env.is_member("i-other", "sg-web").await?);

    write_account(&env, &silent, &env.name, &env.simulator.endpoint()).await?;
    for index in 0..5 {
        env.until_ready(&format!("silent-{index}")).await?;
    }
    alive(&binaries!()).await
}

#[tokio::test]
async fn without_a_grant_nothing_is_joined_or_left() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let named = |groups: Value| json!([{"name": "all", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": groups}}]);
    env.write_account(named(json!(["sg-web"]))).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.apply("db", "i-web", "sg-db", json!({})).await?;
    let granted = format!("{}-granted", env.name);
    write_account(&env, &granted, &env.name, &env.simulator.endpoint()).await?;
    apply(&env, "witness", "i-other", &granted).await?;
    env.until_reason("witness", "Joined").await?;
    env.until_reason("web", "Joined").await?;
    let object = env.until_reason("db", "NotGranted").await?;
    stalled(&object, &["sg-db", &env.name, "spec.grants"]);
    assert_eq!(claim(&object), None);

    for grants in [
        json!([]),
        json!([{"name": "all", "namespaces": {"names": ["elsewhere"]}, "securityGroups": {"ids": ["*"]}}]),
        named(json!(["sg-base"])),
    ] {
        env.write_account(grants).await?;
        let object = env.until_reason("web", "NotGranted").await?;
        stalled(&object, &["sg-web", &env.name]);
        // No repair any more, and no Leave either. The witness is looked at after it.
        let edge = json!({"target": "i-web", "securityGroupId": "sg-web"});
        env.change_cloud(json!({"leave": edge})).await?;
        env.request_reconcile("web").await?;
        env.reconcile_and_wait("witness").await?;
        env.reconcile_and_wait("witness").await?;
        assert!(!env.is_member("i-web", "sg-web").await?);
        env.change_cloud(json!({"join": edge})).await?;
        env.write_account(named(json!(["sg-web"]))).await?;
        env.until_reason("web", "Joined").await?;
    }
    assert_eq!(
        env.calls("JoinSecurityGroup").await?,
        2,
        "web and the witness"
    );
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);

    env.write_account(named(json!(["*"]))).await?;
    env.until_reason("db", "Joined").await?;
    alive(&binaries!()).await
}

#[tokio::test]
async fn grant_by_label_follows_namespace_labels() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let selector = json!({"matchLabels": {"team": env.name}});
    env.write_account(json!([{"name": "all", "namespaces": {"selector": selector}, "securityGroups": {"ids": ["*"]}}]))
        .await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "NotGranted").await?;
    label(&env, json!(env.name)).await?;
    env.until_reason("web", "Joined").await?;
    for other in [json!("other"), Value::Null] {
        label(&env, other).await?;
        env.until_reason("web", "NotGranted").await?;
        assert!(env.is_member("i-web", "sg-web").await?);
        label(&env, json!(env.name)).await?;
        env.until_reason("web", "Joined").await?;
    }
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    alive(&binaries!()).await
}

#[tokio::test]
async fn deletion_without_a_grant_removes_only_what_the_operator_joined() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    env.change_cloud(json!({"join": {"target": "i-other", "securityGroupId": "sg-web"}}))
        .await?;
    let removes = json!({"deletionPolicy": "Remove"});
    env.apply("old", "i-other", "sg-web", removes).await?;
    env.until_reason("old", "Adopted").await?;
    env.write_account(json!([])).await?;
    for name in ["web", "old"] {
        env.until_reason(name, "NotGranted").await?;
        env.delete(name).await?;
    }
    env.until_deleted("web").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    let way_out = "set spec.deletionPolicy to Retain";
    let object = env
        .until("old", "told the way out", |object| {
            ready(object).is_some_and(|ready| ready.message.contains(way_out))
        })
        .await?;
    stalled(&object, &["sg-web"]);
    let retains = json!({"deletionPolicy": "Retain"});
    env.apply("old", "i-other", "sg-web", retains).await?;
    env.until_deleted("old").await?;
    assert!(env.is_member("i-other", "sg-web").await?);
    alive(&binaries!()).await
}

#[tokio::test]
async fn unreadable_secret_names_the_role_to_bind() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let accounts: Api<CloudAccount> = Api::namespaced(env.client.clone(), &env.name);
    let object = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "CloudAccount",
        "metadata": {"name": "own"}, "spec": {"credentials": {"secretRef": {"name": "aliyun"}}},
    });
    accounts
        .patch(
            "own",
            &PatchParams::apply("test").force(),
            &Patch::Apply(&object),
        )
        .await?;
    let account = json!({"accountRef": {"kind": "CloudAccount", "name": "own"}});
    env.apply("web", "i-web", "sg-web", account).await?;
    let object = env.until_reason("web", "AccountNotReady").await?;
    stalled(
        &object,
        &["security-group-operator-secrets", "RoleBinding", &env.name],
    );
    alive(&binaries!()).await
}

#[tokio::test]
async fn requested_check_asks_at_once_and_says_so() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    until_account(&env, &env.name, "CredentialsAccepted", "", &["acs:ram:"]).await?;
    let request = async |value: &str| {
        let annotation = json!({"security-group-operator.io/reconcile-requested-at": value});
        let patch = json!({"metadata": {"annotations": annotation}});
        accounts(&env.client)
            .patch(&env.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
    };
    let handled = async |value: &str| {
        eventually(&format!("{value:.20} is handled"), async || {
            let status = accounts(&env.client).get(&env.name).await?.status;
            Ok(status
                .unwrap_or_default()
                .last_handled_reconcile_at
                .as_deref()
                == Some(value))
        })
        .await
    };
    for value in ["1", "2", &"long".repeat(80)] {
        let before = env.calls("GetCallerIdentity").await?;
        request(value).await?;
        handled(&value[..value.len().min(253)]).await?;
        assert_eq!(env.calls("GetCallerIdentity").await?, before + 1);
    }
    // The operator checks a refused key again at once, long before the backoff ends.
    env.write_secret("testid", "another").await?;
    until_account(&env, &env.name, "SignatureDoesNotMatch", "Stalled", &[]).await?;
    let before = env.calls("GetCallerIdentity").await?;
    request("3").await?;
    handled("3").await?;
    assert_eq!(env.calls("GetCallerIdentity").await?, before + 1);
    until_account(&env, &env.name, "SignatureDoesNotMatch", "Stalled", &[]).await?;
    eventually("the refusal is an event", async || {
        let expected = [
            "CredentialsAccepted Normal",
            "SignatureDoesNotMatch Warning",
        ];
        Ok(env.account_events().await? == expected)
    })
    .await?;
    alive(&binaries!()).await
}

/// Another instance, or a person, writes the status. It is looked at once a minute.
#[tokio::test]
async fn status_that_somebody_else_writes_is_put_right() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let ours = until_account(&env, &env.name, "CredentialsAccepted", "", &[]).await?;
    let before = env.calls("GetCallerIdentity").await?;
    let mut foreign = ours.conditions.clone();
    for condition in &mut foreign {
        "False".clone_into(&mut condition.status);
        "Foreign".clone_into(&mut condition.reason);
    }
    let patch = json!({"status": {"conditions": foreign, "accountUID": "666"}});
    accounts(&env.client)
        .patch_status(&env.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    let again = until_account(&env, &env.name, "CredentialsAccepted", "", &["acs:ram:"]).await?;
    assert_eq!(again.account_uid, ours.account_uid);
    let reasons = |status: &CloudAccountStatus| -> Vec<String> {
        let conditions = status.conditions.iter();
        conditions
            .map(|condition| condition.reason.clone())
            .collect()
    };
    assert_eq!(reasons(&again), reasons(&ours));
    assert_eq!(env.calls("GetCallerIdentity").await?, before);
    alive(&binaries!()).await
}

async fn apply(env: &TestEnv, name: &str, target: &str, account: &str) -> Result<()> {
    let account = json!({"accountRef": {"kind": "ClusterCloudAccount", "name": account}});
    env.apply(name, target, "sg-web", account).await?;
    Ok(())
}

fn stalled(object: &SecurityGroupMembership, sentence: &[&str]) {
    assert_eq!(phase(object), "Stalled");
    let message = message(object);
    for part in sentence {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
}

async fn write_account(env: &TestEnv, name: &str, secret: &str, endpoint: &str) -> Result<()> {
    let account = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "ClusterCloudAccount",
        "metadata": {"name": name},
        "spec": {
            "credentials": {"secretRef": {"name": secret}},
            "endpoints": {"ecs": endpoint, "sts": endpoint},
            "grants": [{"name": "all", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": ["*"]}}],
        },
    });
    let by_us = PatchParams::apply("test").force();
    accounts(&env.client)
        .patch(name, &by_us, &Patch::Apply(&account))
        .await?;
    Ok(())
}

async fn delete_account(env: &TestEnv, name: &str) -> Result<()> {
    accounts(&env.client)
        .delete(name, &DeleteParams::default())
        .await?;
    Ok(())
}

fn accounts(client: &Client) -> Api<ClusterCloudAccount> {
    Api::all(client.clone())
}

/// Writes these keys and no others: texts, or lists of bytes.
async fn write_secret(env: &TestEnv, name: &str, data: &Value) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(env.client.clone(), NAMESPACE);
    let encoded: serde_json::Map<String, Value> = data
        .as_object()
        .context("an object")?
        .iter()
        .map(|(key, value)| {
            let bytes = match value {
                Value::Array(bytes) => bytes
                    .iter()
                    .filter_map(|byte| u8::try_from(byte.as_u64()?).ok())
                    .collect(),
                _ => value.as_str().unwrap_or_default().as_bytes().to_vec(),
            };
            (key.clone(), json!(k8s_openapi::ByteString(bytes)))
        })
        .collect();
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded});
    secrets
        .patch(
            name,
            &PatchParams::apply("test").force(),
            &Patch::Apply(&secret),
        )
        .await?;
    Ok(())
}

async fn label(env: &TestEnv, team: Value) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    let patch = json!({"metadata": {"labels": {"team": team}}});
    namespaces
        .patch(&env.name, &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    Ok(())
}

/// The account's status as soon as its Ready has this reason and all parts of the sentence; `wait` is the condition beside it.
async fn until_account(
    env: &TestEnv,
    name: &str,
    reason: &str,
    wait: &str,
    sentence: &[&str],
) -> Result<CloudAccountStatus> {
    let mut found = None;
    eventually(
        &format!("account {name} is {reason}: {sentence:?}"),
        async || {
            let status = accounts(&env.client)
                .get(name)
                .await?
                .status
                .unwrap_or_default();
            let is = status.conditions.iter().any(|condition| {
                condition.type_ == "Ready"
                    && condition.reason == reason
                    && sentence.iter().all(|part| condition.message.contains(part))
            });
            found = is.then_some(status);
            Ok(is)
        },
    )
    .await?;
    let status = found.context("just seen")?;
    let abnormal: Vec<&str> = status
        .conditions
        .iter()
        .filter(|condition| {
            matches!(condition.type_.as_str(), "Reconciling" | "Stalled")
                && condition.status == "True"
        })
        .map(|condition| condition.type_.as_str())
        .collect();
    let expected: Vec<&str> = [wait].into_iter().filter(|wait| !wait.is_empty()).collect();
    assert_eq!(abnormal, expected, "account {name}");
    Ok(status)
}

/// The operator runs on: nothing restarts it here.
async fn alive(binaries: &Binaries) -> Result<()> {
    let mut operator = operator(binaries).await?;
    assert_eq!(operator.process().exit_code()?, None);
    Ok(())
}
