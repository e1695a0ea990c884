//! `kubectl sgm plan` says of 1,000 random memberships what the operator then does with them, on a real API server and the simulated
//! cloud; and it says what would be refused.

#![expect(clippy::indexing_slicing, reason = "a test ends at its first surprise")]

use std::collections::BTreeMap;
use std::fmt::Write as _;

use kube::ResourceExt as _;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::binaries;
use crate::support::control_plane::ControlPlane;
use crate::support::env::{TestEnv, ready};
use crate::support::error::{Context as _, Error, Result};

/// Random numbers that are the same in every run.
struct Dice(u64);

impl Dice {
    /// A number below `sides`.
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (self.0 >> 33) % sides
    }

    fn of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        let at = usize::try_from(self.roll(choices.len() as u64)).unwrap_or_default();
        choices[at]
    }
}

const INSTANCES: u64 = 200;
const GROUPS: u64 = 8;
const SPECS: usize = 1_000;

fn inventory(dice: &mut Dice) -> String {
    let mut text = "securityGroups:\n- {id: sg-base}\n".to_owned();
    for group in 0..GROUPS {
        let _ = writeln!(text, "- {{id: sg-{group}}}");
    }
    text.push_str("instances:\n");
    for number in 0..INSTANCES {
        let mut groups = "sg-base".to_owned();
        for group in 0..GROUPS {
            if dice.roll(4) == 0 {
                let _ = write!(groups, ", sg-{group}");
            }
        }
        let status = dice.of(&[
            "Running", "Running", "Running", "Stopped", "Starting", "Pending",
        ]);
        let lock = if dice.roll(12) == 0 {
            ", locks: [security]"
        } else {
            ""
        };
        let tags = if dice.roll(2) == 0 {
            ", tags: {team: a}"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "- {{id: i-{number}, status: {status}, quota: 16, securityGroupIds: [{groups}]{lock}{tags}}}"
        );
    }
    text
}

/// A document for each membership, most of them on an edge of their own.
fn specs(dice: &mut Dice, env: &TestEnv) -> String {
    let mut text = String::new();
    let mut plain: BTreeMap<(u64, u64), bool> = BTreeMap::new();
    let mut number = 0;
    while number < SPECS {
        let edge = (dice.roll(INSTANCES + 10), dice.roll(GROUPS));
        let mut spec = json!({
            "region": "cn-hangzhou", "instanceID": format!("i-{}", edge.0), "securityGroupID": format!("sg-{}", edge.1),
            "accountRef": {"name": env.name},
        });
        let is_plain = dice.roll(3) == 0;
        // Of objects with different policies on one edge the result depends on who comes first.
        if plain
            .get(&edge)
            .is_some_and(|all_plain| !(*all_plain && is_plain))
        {
            continue;
        }
        plain.insert(edge, is_plain);
        if !is_plain {
            spec["managementPolicy"] = dice.of(&["Manage", "Manage", "Observe"]).into();
            spec["adoptionPolicy"] = dice.of(&["Adopt", "Refuse"]).into();
            spec["deletionPolicy"] = dice.of(&["RemoveIfJoined", "Remove", "Retain"]).into();
            spec["driftPolicy"] = dice.of(&["Repair", "Report"]).into();
            spec["suspend"] = (dice.roll(12) == 0).into();
            if dice.roll(20) == 0 {
                spec["accountRef"]["name"] = "nobody".into();
            }
        }
        let object = json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
            "metadata": {"name": format!("m-{number}"), "namespace": env.name}, "spec": spec,
        });
        let _ = writeln!(text, "---\n{object}");
        number += 1;
    }
    text
}

async fn plan(
    file: &std::path::Path,
    env: &TestEnv,
) -> Result<(i32, BTreeMap<String, Value>, String)> {
    let kubeconfig = ControlPlane::shared().await?.admin_kubeconfig();
    let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_kubectl-sgm"))
        .args(["plan", "-o", "json", "-n", &env.name, "-f"])
        .arg(file)
        .env("KUBECONFIG", kubeconfig)
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("ALIBABA_CLOUD_ECS_METADATA_DISABLED", "true")
        .output()
        .await?;
    let told = String::from_utf8(output.stderr)?;
    let value: Value = serde_json::from_slice(&output.stdout).context(told.clone())?;
    let rows = value["memberships"]
        .as_array()
        .context("memberships")?
        .clone();
    let by_name = rows
        .into_iter()
        .map(|row| (row["name"].as_str().unwrap_or_default().to_owned(), row));
    Ok((output.status.code().unwrap_or(-1), by_name.collect(), told))
}

async fn apply(file: &std::path::Path) -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let mut command = tokio::process::Command::from(plane.kubectl());
    let applied = command
        .args(["apply", "--server-side", "-f"])
        .arg(file)
        .output()
        .await?;
    if applied.status.success() {
        Ok(())
    } else {
        Err(Error::new(
            String::from_utf8_lossy(&applied.stderr).into_owned(),
        ))
    }
}

/// What the status of each object says; suspended ones say that they are.
async fn reasons(env: &TestEnv) -> Result<BTreeMap<String, String>> {
    let objects = env.memberships().list(&ListParams::default()).await?;
    let said = objects.items.iter().map(|object| {
        let is_suspended = crate::support::env::condition(object, "Suspended")
            .is_some_and(|condition| condition.status == "True");
        let reason = if is_suspended {
            "Suspended".to_owned()
        } else {
            ready(object)
                .map(|ready| ready.reason.clone())
                .unwrap_or_default()
        };
        (object.name_any(), reason)
    });
    Ok(said.collect())
}

/// Reasons by edge: of two plain objects on one edge either may be the one that joins.
fn by_edge(
    reasons: &BTreeMap<String, String>,
    edges: &BTreeMap<String, String>,
) -> BTreeMap<String, Vec<String>> {
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, reason) in reasons {
        let edge = edges.get(name).cloned().unwrap_or_default();
        found.entry(edge).or_default().push(reason.clone());
    }
    for reasons in found.values_mut() {
        reasons.sort();
    }
    found
}

#[tokio::test]
async fn plan_agrees_with_what_the_operator_then_does_on_1000_random_specs() -> Result<()> {
    let mut dice = Dice(18);
    let env = TestEnv::start(&binaries!(), &inventory(&mut dice)).await?;
    env.write_account(json!([
        {"name": "all", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": ["sg-0", "sg-1", "sg-2", "sg-3", "sg-4", "sg-5"]}},
        {"name": "tagged", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": ["sg-6"]}, "targets": {"tags": {"team": "a"}}},
    ]))
    .await?;
    let resource = format!("clustercloudaccount/{}", env.name);
    let plane = ControlPlane::shared().await?;
    let waited = plane
        .kubectl()
        .args(["wait", "--for=condition=Ready", &resource, "--timeout=60s"])
        .output()?;
    assert!(waited.status.success());
    let file = plane.directory().join(format!("{}.yaml", env.name));
    std::fs::write(&file, specs(&mut dice, &env))?;

    let (code, planned, told) = plan(&file, &env).await?;
    assert_eq!(planned.len(), SPECS, "{told}");
    assert_eq!(code, 3, "{told}");
    assert!(planned.values().all(|row| row["change"] == "created"));
    assert_eq!(
        env.memberships()
            .list(&ListParams::default())
            .await?
            .items
            .len(),
        0,
        "it wrote"
    );
    let text = |row: &Value, field: &str| row[field].as_str().unwrap_or_default().to_owned();
    let foreseen: BTreeMap<String, String> = planned
        .iter()
        .map(|(name, row)| (name.clone(), text(row, "reason")))
        .collect();
    let kinds: std::collections::BTreeSet<_> = foreseen.values().collect();
    assert!(
        kinds.len() >= 10,
        "too few outcomes to prove much: {kinds:?}"
    );

    apply(&file).await?;
    let objects = env.memberships().list(&ListParams::default()).await?;
    let edges: BTreeMap<String, String> = objects
        .items
        .iter()
        .map(|object| {
            let spec = &object.spec;
            let target = spec.instance_id.clone().unwrap_or_default();
            (
                object.name_any(),
                format!("{target} {}", spec.security_group_id),
            )
        })
        .collect();
    let foretold = by_edge(&foreseen, &edges);
    let mut said = BTreeMap::new();
    let settled =
        crate::support::eventually::eventually("the operator does as planned", async || {
            said = by_edge(&reasons(&env).await?, &edges);
            Ok(said == foretold)
        })
        .await;
    if settled.is_err() {
        let wrong = foretold
            .iter()
            .filter(|(edge, reasons)| said.get(*edge) != Some(reasons));
        let wrong: Vec<String> = wrong
            .map(|(edge, reasons)| format!("{edge}: planned {reasons:?}, is {:?}", said.get(edge)))
            .collect();
        return Err(Error::new(format!(
            "{} of {}: {wrong:#?}",
            wrong.len(),
            foretold.len()
        )));
    }
    let joins = planned
        .values()
        .filter(|row| row["calls"] == "JoinSecurityGroup" && row["ready"] == "True");
    assert_eq!(
        env.effects("JoinSecurityGroup").await?,
        joins.count() as u64
    );
    assert_eq!(env.effects("LeaveSecurityGroup").await?, 0);

    // Nothing is left to do, and the plan says so.
    let (_, again, told) = plan(&file, &env).await?;
    assert!(
        again.values().all(|row| row["change"] == "unchanged"),
        "{told}"
    );
    let joins = again
        .values()
        .filter(|row| row["calls"] == "JoinSecurityGroup" && row["ready"] == "True");
    assert_eq!(joins.count(), 0);
    Ok(())
}

#[tokio::test]
async fn plan_tells_what_the_api_server_would_refuse() -> Result<()> {
    let env = TestEnv::start(
        &binaries!(),
        "
securityGroups: [{id: sg-base}, {id: sg-web}]
instances: [{id: i-web, securityGroupIds: [sg-base]}]
",
    )
    .await?;
    env.apply("moved", "i-web", "sg-base", json!({})).await?;
    env.until_ready("moved").await?;
    let object = |name: &str, spec: Value| {
        json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
            "metadata": {"name": name}, "spec": spec,
        })
    };
    let spec = |group: &str| json!({"region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": group, "accountRef": {"name": env.name}});
    let mut unknown = spec("sg-web");
    unknown["deletePolicy"] = "Retain".into();
    let documents = [
        object("moved", spec("sg-web")),
        object("unknown", unknown),
        object("good", spec("sg-web")),
    ];
    let file = ControlPlane::shared()
        .await?
        .directory()
        .join(format!("{}.yaml", env.name));
    let text = documents
        .map(|document| document.to_string())
        .join("\n---\n");
    std::fs::write(&file, text)?;
    let (code, rows, told) = plan(&file, &env).await?;
    assert_eq!(code, 3, "{told}");
    assert_eq!(rows["moved"]["change"], "refused");
    assert!(
        rows["moved"]["message"]
            .as_str()
            .unwrap_or_default()
            .contains("is immutable"),
        "{rows:#?}"
    );
    assert_eq!(rows["unknown"]["change"], "refused");
    assert!(
        rows["unknown"]["message"]
            .as_str()
            .unwrap_or_default()
            .contains("deletePolicy"),
        "{rows:#?}"
    );
    assert_eq!(rows["good"]["change"], "created");
    assert_eq!(rows["good"]["reason"], "Joined");
    assert!(!env.is_member("i-web", "sg-web").await?);
    let file = file.to_string_lossy().into_owned();
    let mut shown = crate::plugin::sgm(&["plan", "-n", &env.name, "-f", &file]).await?;
    shown.err.clear();
    crate::plugin_docs::assert_documented("plan -f web.yaml 2>/dev/null", &shown, &env)?;
    Ok(())
}

#[tokio::test]
async fn drain_lets_every_object_go_and_asks_first() -> Result<()> {
    let env = TestEnv::start(
        &binaries!(),
        "
securityGroups: [{id: sg-base}, {id: sg-web}]
instances: [{id: i-a, securityGroupIds: [sg-base]}, {id: i-b, securityGroupIds: [sg-base]}]
",
    )
    .await?;
    let kubeconfig = ControlPlane::shared().await?.admin_kubeconfig();
    let drain = async |arguments: &[&str]| {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_kubectl-sgm"))
            .args(["drain", "-n", &env.name])
            .args(arguments)
            .env("KUBECONFIG", &kubeconfig)
            .env("NO_PROXY", "127.0.0.1,localhost")
            .stdin(std::process::Stdio::null())
            .output()
            .await?;
        Ok::<_, Error>((output.status.code(), String::from_utf8(output.stderr)?))
    };
    for (how, stays) in [("--retain", true), ("--remove", false)] {
        for name in ["a", "b"] {
            env.apply(name, &format!("i-{name}"), "sg-web", json!({}))
                .await?;
        }
        for name in ["a", "b"] {
            env.until_ready(name).await?;
        }
        let (code, said) = drain(&[how]).await?;
        assert_eq!(code, Some(2), "{said}");
        assert!(
            said.contains("2 memberships of namespace")
                && said.contains("Nothing was done: add --yes"),
            "{said}"
        );
        assert_eq!(
            env.memberships()
                .list(&ListParams::default())
                .await?
                .items
                .len(),
            2
        );
        let (code, said) = drain(&[how, "--yes"]).await?;
        assert_eq!(code, Some(0), "{said}");
        assert_eq!(
            env.memberships()
                .list(&ListParams::default())
                .await?
                .items
                .len(),
            0
        );
        for target in ["i-a", "i-b"] {
            assert_eq!(env.is_member(target, "sg-web").await?, stays, "{how}");
            env.change_cloud(json!({"join": {"target": target, "securityGroupId": "sg-web"}}))
                .await
                .ok();
            env.change_cloud(json!({"leave": {"target": target, "securityGroupId": "sg-web"}}))
                .await?;
        }
    }
    assert_eq!(
        drain(&["--retain", "--yes"]).await?.0,
        Some(0),
        "there is nothing to do"
    );
    assert_eq!(
        drain(&[]).await?.0,
        Some(2),
        "what is to be done must be said"
    );

    env.apply("a", "i-a", "sg-web", json!({"suspend": true}))
        .await?;
    env.until_suspended("a", true).await?;
    let finalizer = json!({"metadata": {"finalizers": ["example.com/mine"]}});
    let patch = kube::api::Patch::Merge(&finalizer);
    env.memberships()
        .patch("a", &kube::api::PatchParams::default(), &patch)
        .await?;
    let (code, said) = drain(&["--retain", "--yes", "--timeout=2s"]).await?;
    assert_eq!(code, Some(3), "{said}");
    assert!(
        said.contains("/a is still there: it is suspended"),
        "{said}"
    );
    let none = json!({"metadata": {"finalizers": []}});
    env.memberships()
        .patch(
            "a",
            &kube::api::PatchParams::default(),
            &kube::api::Patch::Merge(&none),
        )
        .await?;
    Ok(())
}
