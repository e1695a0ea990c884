//! A real Prometheus scrapes the real operator: each rule of the chart fires, and each panel of the dashboard shows something.
#![allow(
    clippy::indexing_slicing,
    reason = "a JSON value is null where a field is not there"
)]

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use security_group_operator::api::ClusterCloudAccount;
use serde_json::{Value, json};

use crate::OnlyOperator;
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::port;
use crate::support::prometheus::{Prometheus, panels};

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-blocked, securityGroupIds: [sg-base]}
- {id: i-unknown, securityGroupIds: [sg-base]}
- {id: i-stuck, securityGroupIds: [sg-base]}
- {id: i-fought, securityGroupIds: [sg-base]}
- {id: i-later, securityGroupIds: [sg-base]}
networkInterfaces:
- {id: eni-throttled, securityGroupIds: [sg-base]}
";

/// Adds the alerts that fire now, by name, and checks that their sentences have no hole.
async fn add_firing(prometheus: &Prometheus, fired: &mut BTreeSet<String>) -> Result<()> {
    for alert in prometheus.alerts().await? {
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

fn read(path: &str) -> Result<String> {
    Ok(std::fs::read_to_string(
        Path::new(env!("CARGO_MANIFEST_DIR")).join(path),
    )?)
}

/// The rules of the chart, with times that a test can wait for. Nothing else changes.
fn impatient(rules: &str) -> String {
    let mut rules = rules.to_owned();
    for (patient, impatient) in [
        ("> 900", "> 1"),
        ("clamp_min(2.5 *", "clamp_min(0.1 *"),
        (", 900) or vector(900)", ", 1) or vector(1)"),
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
            // Of an API that nothing else here needs: its limit holds the others back.
            json!({"action": "DescribeNetworkInterfaces", "fault": throttle}),
            refused("i-stuck", "LeaveSecurityGroup", error("Forbidden.RAM")),
        ]))
        .await?;
    for target in ["web", "blocked", "unknown", "stuck", "fought"] {
        env.apply(target, &format!("i-{target}"), "sg-web", json!({}))
            .await?;
    }
    env.apply("throttled", "eni-throttled", "sg-web", json!({}))
        .await?;
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
    bindings.delete(&name, &DeleteParams::default()).await?;
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(env.client.clone());
    policies.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn every_rule_fires_and_every_panel_shows_something() -> Result<()> {
    let mut operator = OnlyOperator::start(&["--scan-period=3s"]).await?;
    let env = operator.env(INVENTORY).await?;
    let rules = read("deploy/chart/files/alerts.yaml")?;
    let wanted: BTreeSet<String> = rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- alert: "))
        .map(str::to_owned)
        .collect();
    let prometheus = Prometheus::start(&operator.url(""), &impatient(&rules)).await?;
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
        add_firing(&prometheus, &mut fired).await?;
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

    // Nothing here is older than this test.
    for seconds in [
        "max(security_group_operator_oldest_unready_seconds)",
        "max(security_group_operator_time_to_ready_seconds_sum)",
    ] {
        let told = prometheus.query(seconds).await?;
        let told = told.first().context(seconds)?["value"][1].as_str();
        let told: f64 = told.context(seconds)?.parse()?;
        assert!(told < 3_600.0, "{seconds} is {told}");
    }

    let panels = panels()?;
    assert!(panels.len() > 20, "{} panels", panels.len());
    for panel in panels {
        for line in panel.lines {
            let (title, expression) = (&panel.title, &line.expression);
            let series = prometheus.query(expression).await?;
            assert!(!series.is_empty(), "{title} shows nothing: {expression}");
            for label in line.labels() {
                let named = series.iter().any(|one| one["metric"].get(label).is_some());
                assert!(named, "{title}: no series has {label}: {expression}");
            }
        }
    }
    let series = prometheus.query("{job=\"operator\"}").await?;
    assert!(series.len() < 2_000, "{} series", series.len());

    operator.kill();
    eventually("it is told that nobody acts", async || {
        add_firing(&prometheus, &mut fired).await?;
        Ok(fired.contains(no_leader))
    })
    .await
}
