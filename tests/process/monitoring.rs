//! A real Prometheus scrapes the real operator: each rule of the chart fires, and each panel of the dashboard shows something.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::Api;
use kube::api::{Patch, PatchParams};
use security_group_operator::api::ClusterCloudAccount;
use serde_json::{Value, json};

use crate::OnlyOperator;
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::process::Child;
use crate::support::simulator::fetch;
use crate::support::tempdir::TempDir;
use crate::support::{assets, port, simulator};

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-blocked, securityGroupIds: [sg-base]}
- {id: i-unknown, securityGroupIds: [sg-base]}
- {id: i-throttled, securityGroupIds: [sg-base]}
- {id: i-stuck, securityGroupIds: [sg-base]}
- {id: i-fought, securityGroupIds: [sg-base]}
- {id: i-later, securityGroupIds: [sg-base]}
";

/// Prometheus with the rules of the chart. Dropping it kills it.
struct Prometheus {
    url: String,
    _child: Child,
    _directory: TempDir,
}

impl Prometheus {
    /// Scrapes the operator each second. The rules are those of the chart with shorter times.
    async fn start(operator: &OnlyOperator, rules: &str) -> Result<Self> {
        let directory = TempDir::new("prometheus")?;
        let target = operator.url("");
        let target = target.trim_start_matches("http://");
        let config = json!({
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": ["rules.yaml"],
            "scrape_configs": [{"job_name": "operator", "static_configs": [{"targets": [target]}]}],
        });
        let file = directory.path().join("prometheus.json");
        std::fs::write(&file, config.to_string())?;
        std::fs::write(directory.path().join("rules.yaml"), rules)?;
        let listen = format!("127.0.0.1:{}", port::free()?);
        let mut command = Command::new(assets::prometheus().await?.join("prometheus"));
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                directory.path().join("data").display()
            ))
            .arg(format!("--web.listen-address={listen}"));
        let log = directory.path().join("prometheus.log");
        let mut child = Child::spawn("prometheus", &command, &log)?;
        let url = format!("http://{listen}");
        let ready = format!("{url}/-/ready");
        let limit = std::time::Duration::from_secs(60);
        child
            .wait_until(limit, async || simulator::probe(&ready).await)
            .await?;
        Ok(Self {
            url,
            _child: child,
            _directory: directory,
        })
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer: Value = serde_json::from_slice(&fetch(&format!("{}{path}", self.url)).await?)?;
        assert_eq!(answer["status"], "success", "{path}: {answer}");
        Ok(answer["data"].clone())
    }

    /// What an expression gives now: the labels of each series.
    async fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let query = url::form_urlencoded::Serializer::new(String::new())
            .append_pair("query", expression)
            .finish();
        let data = self.get(&format!("/api/v1/query?{query}")).await?;
        let series = data["result"].as_array().context("a vector")?;
        Ok(series.iter().map(|one| one["metric"].clone()).collect())
    }

    /// Adds the alerts that fire now, each with its labels and its sentence.
    async fn add_firing(&self, fired: &mut BTreeSet<String>) -> Result<()> {
        let data = self.get("/api/v1/alerts").await?;
        for alert in data["alerts"].as_array().context("alerts")? {
            if alert["state"] == "firing" {
                let summary = alert["annotations"]["summary"]
                    .as_str()
                    .context("summary")?;
                // A label that does not exist is an empty text in the sentence.
                for hole in ["(class )", " of  ", " of .", "of in ", " in  for"] {
                    assert!(!summary.contains(hole), "{alert}");
                }
                let name = alert["labels"]["alertname"].as_str().context("alertname")?;
                fired.insert(name.to_owned());
            }
        }
        Ok(())
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

/// The rules of the chart, with times that a test can wait for. Nothing else changes.
fn impatient(rules: &str) -> String {
    let mut rules = rules.to_owned();
    for (patient, impatient) in [
        ("> 900", "> 1"),
        ("> 1800", "> 1"),
        ("- time() < 300", "- time() < 3000"),
        ("[15m]", "[30s]"),
        ("[1h]", "[30s]"),
        ("offset 1h", "offset 30s"),
        ("for: 15m", "for: 1s"),
        ("for: 10m", "for: 1s"),
        ("for: 2m", "for: 1s"),
    ] {
        assert!(rules.contains(patient), "no rule says {patient}");
        rules = rules.replace(patient, impatient);
    }
    rules
}

/// The expressions of the dashboard, each with the name of its panel and the labels of its legend.
fn panels() -> Vec<(String, String, Vec<String>)> {
    let dashboard: Value =
        serde_json::from_str(&read("deploy/chart/files/dashboard.json")).unwrap();
    let mut found = Vec::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let legend = target["legendFormat"].as_str().unwrap();
            let labels = legend.split("{{").skip(1);
            let labels = labels.filter_map(|part| part.split_once("}}"));
            found.push((
                panel["title"].as_str().unwrap().to_owned(),
                target["expr"].as_str().unwrap().replace("$job", ".*"),
                labels.map(|(label, _)| label.to_owned()).collect(),
            ));
        }
    }
    found
}

/// Memberships and accounts in every trouble that a rule tells of.
async fn make_trouble(env: &TestEnv) -> Result<()> {
    let refused = |target: &str, action: &str, fault: Value| json!({"action": action, "target": target, "fault": fault});
    let error = |code: &str| json!({"error": {"code": code, "status": 400}});
    let join = "JoinSecurityGroup";
    let throttle = json!({"throttle": {"retryAfter": "1s"}});
    env.simulator
        .faults(&json!([
            refused(
                "i-blocked",
                join,
                error("InstanceSecurityGroupLimitExceeded")
            ),
            refused("i-unknown", join, error("InventedByTheTest")),
            refused("i-throttled", join, throttle),
            refused("i-stuck", "LeaveSecurityGroup", error("Forbidden.RAM")),
        ]))
        .await?;
    for target in ["web", "blocked", "unknown", "throttled", "stuck", "fought"] {
        env.apply(target, &format!("i-{target}"), "sg-web", json!({}))
            .await?;
    }
    for joined in ["web", "stuck", "fought"] {
        env.until_reason(joined, "Joined").await?;
    }
    env.delete("stuck").await?;
    env.until_reason("stuck", "ForbiddenRAM").await?;
    let taken_out = json!({"leave": {"target": "i-fought", "securityGroupId": "sg-web"}});
    for _ in 0..3 {
        env.change_cloud(taken_out.clone()).await?;
        env.reconcile_and_wait("fought").await?;
    }
    env.change_cloud(taken_out).await?;
    env.until_reason("fought", "RepairLoop").await?;
    Ok(())
}

/// An account without a Secret, one whose cloud does not answer, and one whose key ends within the hour.
async fn make_accounts(env: &TestEnv) -> Result<()> {
    let accounts: Api<ClusterCloudAccount> = Api::all(env.client.clone());
    let write = async |name: &str, credentials: Value, ecs: &str| {
        let sts = env.simulator.endpoint();
        let account = json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "ClusterCloudAccount",
            "metadata": {"name": name},
            "spec": {"credentials": credentials, "endpoints": {"ecs": ecs, "sts": sts}, "grants": [
                {"name": "all", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": ["*"]}}]},
        });
        let by_us = PatchParams::apply("test").force();
        accounts.patch(name, &by_us, &Patch::Apply(&account)).await
    };
    let ecs = env.simulator.endpoint();
    let secret = json!({"secretRef": {"name": env.name}});
    write("no-secret", json!({"secretRef": {"name": "nowhere"}}), &ecs).await?;
    let silent = format!("http://127.0.0.1:{}", port::free()?);
    write("silent", secret.clone(), &silent).await?;
    let user = format!("acs:ram::{}:user/simulator", env.account);
    let trust = json!({"Version": "1", "Statement": [
        {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": {"RAM": [user]}}]});
    let policy = json!({"Version": "1", "Statement": [{"Effect": "Allow", "Action": "ecs:*", "Resource": "*"}]});
    let role = json!({"name": "short", "account": env.account, "trustPolicy": trust, "policies": [policy]});
    env.change_cloud(json!({"addRole": role})).await?;
    let mut assumed = secret;
    assumed["assumeRole"] = json!({
        "roleARN": format!("acs:ram::{}:role/short", env.account), "durationSeconds": 900});
    write("short", assumed, &ecs).await?;
    for (name, target) in [("silent", "i-web"), ("short", "i-later")] {
        let account = json!({"accountRef": {"kind": "ClusterCloudAccount", "name": name}});
        env.apply(name, target, "sg-web", account).await?;
    }
    env.until_reason("short", "Joined").await?;
    Ok(())
}

/// From now on the API server refuses each Event.
async fn refuse_events(env: &TestEnv) -> Result<()> {
    let name = format!("no-events-{}", env.name);
    let by_us = PatchParams::apply("test").force();
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy", "metadata": {"name": name},
        "spec": {
            "matchConstraints": {"resourceRules": [{"apiGroups": ["", "events.k8s.io"], "apiVersions": ["*"],
                "operations": ["CREATE", "UPDATE"], "resources": ["events"]}]},
            "validations": [{"expression": "false", "message": "no events here"}]},
    });
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(env.client.clone());
    policies
        .patch(&name, &by_us, &Patch::Apply(&policy))
        .await?;
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding", "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(env.client.clone());
    bindings
        .patch(&name, &by_us, &Patch::Apply(&binding))
        .await?;
    Ok(())
}

async fn allow_events(env: &TestEnv) -> Result<()> {
    let name = format!("no-events-{}", env.name);
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(env.client.clone());
    bindings.delete(&name, &Default::default()).await?;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(env.client.clone());
    policies.delete(&name, &Default::default()).await?;
    Ok(())
}

#[tokio::test]
async fn every_rule_fires_and_every_panel_shows_something() -> Result<()> {
    let mut operator = OnlyOperator::start(&["--scan-period=3s"]).await?;
    let env = operator.env(INVENTORY).await?;
    let rules = read("deploy/chart/files/alerts.yaml");
    let wanted: BTreeSet<String> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect();
    let prometheus = Prometheus::start(&operator, &impatient(&rules)).await?;
    make_trouble(&env).await?;
    refuse_events(&env).await?;
    make_accounts(&env).await?;

    let no_leader = "SecurityGroupOperatorNoLeader";
    let mut fired = BTreeSet::new();
    let result = eventually("each rule fires", async || {
        // Something to tell, and to be throttled, all the time.
        for name in ["throttled", "unknown", "blocked"] {
            env.request_reconcile(name).await?;
        }
        prometheus.add_firing(&mut fired).await?;
        Ok(wanted
            .iter()
            .all(|name| fired.contains(name) || name == no_leader))
    });
    let result = result.await;
    allow_events(&env).await?;
    assert!(
        result.is_ok() && !fired.contains(no_leader),
        "of {wanted:?} fire {fired:?}"
    );

    for (panel, expression, labels) in panels() {
        let series = prometheus.query(&expression).await?;
        assert!(!series.is_empty(), "{panel} shows nothing: {expression}");
        for label in labels {
            let named = series.iter().any(|one| one.get(&label).is_some());
            assert!(named, "{panel}: no series has {label}: {expression}");
        }
    }
    let series = prometheus.query("{job=\"operator\"}").await?;
    assert!(series.len() < 2_000, "{} series", series.len());

    operator.kill();
    eventually("it is told that nobody acts", async || {
        prometheus.add_firing(&mut fired).await?;
        Ok(fired.contains(no_leader))
    })
    .await
}
