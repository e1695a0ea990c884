//! No secret byte in anything that the operator says: log at its loudest, events, objects, metrics; also when the cloud's
//! own answers echo what was signed. And the probes answer.

use std::collections::{BTreeMap, BTreeSet};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use security_group_operator::api::ClusterCloudAccount;
use serde_json::{Value, json};

use crate::support;
use crate::support::control_plane::ControlPlane;
use crate::support::env::{TestEnv, ready};
use crate::support::error::{Context, Result};
use crate::support::eventually::eventually;
use crate::support::operator::{self, NAMESPACE, Operator, Options};
use crate::support::port;
use crate::support::process::Child;
use crate::support::simulator::probe;
use crate::support::tempdir::TempDir;
use crate::{OnlyOperator, binaries};

const INVENTORY: &str = "
accessKeys:
- {id: STS.canary, secret: CANARYsecretCANARY, securityToken: CANARYtokenCANARY}
securityGroups:
- {id: sg-base}
- {id: sg-web}
- {id: sg-cache}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
";
const KEY: &str = "STS.canary";
const SECRET: &str = "CANARYsecretCANARY";
const TOKEN: &str = "CANARYtokenCANARY";
const WRONG_SECRET: &str = "CANARYwrongsecretCANARY";
const WRONG_TOKEN: &str = "CANARYwrongtokenCANARY";

/// An operator that logs all that it can, and a test environment whose account has canaries for credentials.
async fn loud_env() -> Result<(TestEnv, OnlyOperator)> {
    let operator = OnlyOperator::start_with(Options {
        binary: binaries!().operator,
        arguments: Vec::new(),
        environment: vec![("RUST_LOG".to_owned(), "trace".to_owned())],
    })
    .await?;
    let env = operator.env(INVENTORY).await?;
    write_key(&env, SECRET, TOKEN).await?;
    Ok((env, operator))
}

async fn write_key(env: &TestEnv, secret: &str, token: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(env.client.clone(), NAMESPACE);
    let patch = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": env.name},
        "stringData": {"accessKeyID": KEY, "accessKeySecret": secret, "securityToken": token},
    });
    let by_us = PatchParams::apply("test").force();
    secrets
        .patch(&env.name, &by_us, &Patch::Apply(&patch))
        .await?;
    Ok(())
}

/// What the cloud itself takes for the secret of the key.
async fn set_cloud_key(env: &TestEnv, secret: &str) -> Result<()> {
    let key = json!({"id": KEY, "secret": secret, "securityToken": TOKEN, "account": env.account});
    env.change_cloud(json!({"addKey": key})).await
}

async fn until_account(env: &TestEnv, reason: &str) -> Result<()> {
    let accounts: Api<ClusterCloudAccount> = Api::all(env.client.clone());
    eventually(&format!("the account says {reason}"), async || {
        let status = accounts.get(&env.name).await?.status;
        Ok(status
            .iter()
            .flat_map(|status| &status.conditions)
            .any(|condition| condition.type_ == "Ready" && condition.reason == reason))
    })
    .await
}

#[tokio::test]
async fn operator_output_contains_no_secret() -> Result<()> {
    let (env, mut operator) = loud_env().await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;

    // The cloud's own copy changes: calls of a usable account are refused with an echo of what was signed.
    set_cloud_key(&env, "somethingelse").await?;
    env.apply("cache", "i-web", "sg-cache", json!({})).await?;
    // The account is examined at once: from then on the membership says so.
    env.until("cache", "the refusal is told", |object| {
        ready(object).is_some_and(|ready| ready.message.contains("SignatureDoesNotMatch"))
    })
    .await?;
    // And so is the examination of a Secret that is wrong.
    write_key(&env, WRONG_SECRET, TOKEN).await?;
    until_account(&env, "SignatureDoesNotMatch").await?;
    set_cloud_key(&env, SECRET).await?;
    write_key(&env, SECRET, WRONG_TOKEN).await?;
    until_account(&env, "InvalidSecurityTokenMalformed").await?;

    let log = std::fs::read_to_string(operator.process().log())?;
    assert!(log.contains("TRACE"), "the log is not at its loudest");
    assert!(
        log.contains("SignatureDoesNotMatch"),
        "the log does not tell of the refusal"
    );
    let said = [
        ("the log", log),
        ("the metrics", get(&operator, "/metrics").await?.1),
        ("the memberships", memberships(&env).await?),
        ("the accounts", accounts(&env).await?),
        ("the events", events(&env).await?),
    ];
    let token_of_the_operator = service_account_token(operator.plane)?;
    for (where_, text) in &said {
        assert!(text.len() > 100, "{where_}: {text}");
        for canary in [SECRET, TOKEN, WRONG_SECRET, WRONG_TOKEN] {
            for form in [canary.to_owned(), STANDARD.encode(canary)] {
                let found = text.lines().find(|line| line.contains(&form));
                assert_eq!(found, None, "{where_} has {form}");
            }
        }
        assert!(
            !text.contains(&token_of_the_operator),
            "{where_} has the token of the service account"
        );
    }
    Ok(())
}

async fn memberships(env: &TestEnv) -> Result<String> {
    let list = env.memberships().list(&ListParams::default()).await?;
    Ok(serde_json::to_string_pretty(&list)?)
}

async fn accounts(env: &TestEnv) -> Result<String> {
    let accounts: Api<ClusterCloudAccount> = Api::all(env.client.clone());
    Ok(serde_json::to_string_pretty(
        &accounts.list(&ListParams::default()).await?,
    )?)
}

async fn events(env: &TestEnv) -> Result<String> {
    eventually("an event tells of the refusal", async || {
        let reasons = env.events("cache").await?;
        let refusals = ["SignatureDoesNotMatch", "AccountNotReady"];
        Ok(reasons
            .iter()
            .any(|reason| refusals.contains(&reason.as_str())))
    })
    .await?;
    let events: Api<k8s_openapi::api::events::v1::Event> = Api::all(env.client.clone());
    Ok(serde_json::to_string_pretty(
        &events.list(&ListParams::default()).await?,
    )?)
}

/// What the operator itself shows to the API server.
fn service_account_token(plane: &ControlPlane) -> Result<String> {
    let file = plane.directory().join(format!(
        "{NAMESPACE}.{}.kubeconfig",
        operator::SERVICE_ACCOUNT
    ));
    let kubeconfig: Value = serde_json::from_str(&std::fs::read_to_string(file)?)?;
    let token = kubeconfig
        .pointer("/users/0/user/token")
        .and_then(Value::as_str);
    Ok(token.context("a kubeconfig without a token")?.to_owned())
}

/// A core file would hold the keys.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn operator_writes_no_core_file() -> Result<()> {
    let mut operator = OnlyOperator::start(&[]).await?;
    let pid = operator.process().pid();
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits"))?;
    let mut lines = limits.lines();
    let core = lines.find(|line| line.starts_with("Max core file size"));
    let words: Vec<_> = core.unwrap_or_default().split_whitespace().collect();
    assert_eq!(words.get(4..6), Some(&["0", "0"][..]), "{limits}");
    Ok(())
}

/// Whether another process of this user reads the memory of the process: its environment is a part of it.
#[cfg(target_os = "linux")]
fn is_readable(user: u32, pid: u32) -> Result<bool> {
    use std::os::unix::process::CommandExt as _;
    let output = std::process::Command::new("cat")
        .arg(format!("/proc/{pid}/environ"))
        .uid(user)
        .gid(user)
        .output()?;
    Ok(output.status.success() && !output.stdout.is_empty())
}

/// Root reads everything: run by root, the processes are those of another user.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn no_other_process_of_its_user_reads_the_memory_of_the_operator() -> Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::process::Command;

    let directory = TempDir::new("private")?;
    let path = |name: &str| directory.path().join(name);
    let user = match std::fs::metadata(directory.path())?.uid() {
        0 => 65_534,
        own => own,
    };
    // A program that its user may not read would be private by that alone.
    let to_all = |mode| std::fs::Permissions::from_mode(mode);
    std::fs::set_permissions(directory.path(), to_all(0o755))?;
    std::fs::copy(binaries!().operator, path("operator"))?;
    std::fs::set_permissions(path("operator"), to_all(0o755))?;
    // It waits for an API server that is not there.
    let server = format!("http://127.0.0.1:{}", port::free()?);
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "none",
        "clusters": [{"name": "none", "cluster": {"server": server}}],
        "contexts": [{"name": "none", "context": {"cluster": "none", "user": "none"}}],
        "users": [{"name": "none", "user": {}}]});
    std::fs::write(path("kubeconfig"), kubeconfig.to_string())?;
    std::fs::set_permissions(path("kubeconfig"), to_all(0o644))?;
    let address = format!("127.0.0.1:{}", port::free()?);
    let mut command = Command::new(path("operator"));
    command
        .arg(format!("--listen={address}"))
        .arg("--operator-namespace=default")
        .env("KUBECONFIG", path("kubeconfig"));
    let mut operator = Child::spawn_as(user, "operator", &command, &path("operator.log"))?;
    let mut command = Command::new("sleep");
    command.arg("infinity");
    let other = Child::spawn_as(user, "sleep", &command, &path("sleep.log"))?;

    let url = format!("http://{address}/livez");
    eventually("the operator runs", async || {
        operator.check()?;
        Ok(probe(&url).await.is_ok())
    })
    .await?;
    assert!(is_readable(user, other.pid())?, "no process is readable");
    assert!(!is_readable(user, operator.pid())?);
    operator.check()
}

#[tokio::test]
async fn probes_answer_and_metrics_have_few_labels() -> Result<()> {
    let (env, operator) = loud_env().await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    env.apply("gone", "i-gone", "sg-web", json!({})).await?;
    env.until_reason("gone", "TargetNotFound").await?;
    for probe in ["/livez", "/readyz"] {
        let (_, text) = get(&operator, probe).await?;
        assert_eq!(text.trim(), "ok", "{probe}");
    }
    let (content_type, text) = get(&operator, "/metrics").await?;
    assert!(
        content_type.starts_with("text/plain; version=0.0.4"),
        "{content_type}"
    );
    assert!(!text.contains("# EOF"), "{text}");
    let samples = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(sample)
        .collect::<Result<Vec<_>>>()?;
    let names: BTreeSet<_> = samples
        .iter()
        .flat_map(|(_, labels)| labels.keys().map(String::as_str))
        .collect();
    let allowed = BTreeSet::from([
        "account", "api", "class", "code", "le", "outcome", "ready", "region", "result", "state",
        "version",
    ]);
    assert!(names.is_subset(&allowed), "{names:?}");
    let values: BTreeSet<_> = samples
        .iter()
        .flat_map(|(_, labels)| labels.iter())
        // An administrator has named the ClusterCloudAccount as this test's namespace is named.
        .filter(|(key, value)| *key != "account" || **value != env.name)
        .map(|(_, value)| value.as_str())
        .collect();
    for typed in ["web", "gone", "i-web", "i-gone", "sg-web", &env.name] {
        assert!(!values.contains(typed), "{typed} is a label");
    }
    for api in ["DescribeInstances", "JoinSecurityGroup"] {
        assert!(
            samples.iter().any(|(name, labels)| {
                name == "security_group_operator_cloud_calls_total"
                    && labels.get("api").map(String::as_str) == Some(api)
                    && labels.get("class").map(String::as_str) == Some("ok")
            }),
            "no calls of {api} are counted:\n{text}"
        );
    }
    Ok(())
}

/// `name{label="value",…} number`.
fn sample(line: &str) -> Result<(String, BTreeMap<String, String>)> {
    let (series, number) = line.rsplit_once(' ').context(line)?;
    number.parse::<f64>().context(line)?;
    let Some((name, labels)) = series.split_once('{') else {
        return Ok((series.to_owned(), BTreeMap::new()));
    };
    let labels = labels.strip_suffix('}').context(line)?;
    let labels = labels.split(',').map(|label| {
        let (key, value) = label.split_once('=').context(line)?;
        Ok((key.to_owned(), value.trim_matches('"').to_owned()))
    });
    Ok((name.to_owned(), labels.collect::<Result<_>>()?))
}

/// Content type and text.
async fn get(operator: &Operator, path: &str) -> Result<(String, String)> {
    support::install_crypto();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client
        .get(operator.url(path))
        .send()
        .await?
        .error_for_status()?;
    let content_type = answer.headers().get(http::header::CONTENT_TYPE).cloned();
    let content_type =
        content_type.map_or(Ok(String::new()), |value| value.to_str().map(str::to_owned))?;
    Ok((content_type, answer.text().await?))
}
