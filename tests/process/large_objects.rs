//! Any user of a namespace may make objects as large as the API server takes them, and many: the operator stays within the
//! memory of `deploy/install.yaml`, also when it lists all of them at its start, and its probes answer.

use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use security_group_operator::api::SecurityGroupMembership;
use serde_json::{Value, json};

use crate::binaries;
use crate::support::control_plane::{ControlPlane, Controllers};
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::operator::{self, Operator, Options};
use crate::support::simulator::probe;

const OBJECTS: usize = 500;
/// In bytes; the API server takes 262,144 of annotations.
const JUNK: usize = 250_000;
const MEMORY_LIMIT: u64 = 256 << 20;

#[tokio::test]
async fn large_objects_fit_into_the_memory_limit() -> Result<()> {
    let deployment = include_str!("../../deploy/install.yaml");
    assert!(deployment.contains("memory: 256Mi\n"), "another limit");
    let plane = ControlPlane::start_with(Controllers::Absent).await?;
    let options = Options {
        binary: env!("CARGO_BIN_EXE_security-group-operator").into(),
        ..Options::default()
    };
    let mut operator = Operator::start(&plane, options).await?;
    let memberships: Api<SecurityGroupMembership> =
        Api::namespaced(plane.admin_client().await?, "default");
    create_all(&memberships, |number| format!("i-{number}")).await?;
    all_answered(&operator).await?;
    let while_made = operator.peak_memory()?;
    assert!(while_made < MEMORY_LIMIT, "{while_made} bytes");

    operator.respawn()?;
    let (livez, readyz) = (operator.url("/livez"), operator.url("/readyz"));
    let mut was_alive = false;
    eventually("every object is listed", async || {
        let answer = probe(&livez).await;
        assert!(answer.is_ok() || !was_alive, "{answer:?}");
        was_alive |= answer.is_ok();
        Ok(probe(&readyz).await.is_ok())
    })
    .await?;
    let at_start = operator.peak_memory()?;
    assert!(at_start < MEMORY_LIMIT, "{at_start} bytes");
    println!(
        "peak: {} MiB while the objects were made, {} MiB at a start",
        while_made >> 20,
        at_start >> 20
    );
    // It works as ever.
    let patch = json!({"metadata": {"annotations": {
        "security-group-operator.io/reconcile-requested-at": "now",
    }}});
    memberships
        .patch("large-0", &PatchParams::default(), &Patch::Merge(&patch))
        .await?;
    eventually("a request is handled", async || {
        let status = memberships.get("large-0").await?.status;
        Ok(status.is_some_and(|status| status.last_handled_reconcile_at.is_some()))
    })
    .await
}

/// They name the membership of somebody else, in a namespace that the operator does not watch. Before a Leave it asks who else holds the
/// membership.
#[tokio::test]
async fn large_objects_on_one_membership_fit_into_the_memory_limit() -> Result<()> {
    let plane = ControlPlane::start_with(Controllers::Absent).await?;
    operator::install(
        &plane,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy"),
    )
    .await?;
    let inventory = "
securityGroups: [{id: sg-base}, {id: sg-web}]
instances: [{id: i-0, securityGroupIds: [sg-base]}]
";
    let env = TestEnv::start_on(&plane, &binaries!(), inventory).await?;
    let options = Options {
        binary: env!("CARGO_BIN_EXE_security-group-operator").into(),
        arguments: vec![format!("--namespace={}", env.name)],
        ..Options::default()
    };
    let operator = Operator::start(&plane, options).await?;
    env.apply("web", "i-0", "sg-web", json!({})).await?;
    env.until_ready("web").await?;
    let elsewhere: Api<SecurityGroupMembership> =
        Api::namespaced(plane.admin_client().await?, "default");
    create_all(&elsewhere, |_| "i-0".to_owned()).await?;
    env.delete("web").await?;
    env.until_deleted("web").await?;
    assert!(!env.is_member("i-0", "sg-web").await?);
    let peak = operator.peak_memory()?;
    assert!(peak < MEMORY_LIMIT, "{peak} bytes");
    println!("peak: {} MiB", peak >> 20);
    Ok(())
}

/// Objects on these targets.
async fn create_all(
    memberships: &Api<SecurityGroupMembership>,
    target: impl Fn(usize) -> String,
) -> Result<()> {
    stream::iter((0..OBJECTS).map(|number| create(memberships, number, target(number))))
        .buffer_unordered(8)
        .try_collect::<Vec<()>>()
        .await?;
    Ok(())
}

/// The account does not exist, and the operator says so.
async fn create(
    memberships: &Api<SecurityGroupMembership>,
    number: usize,
    target: String,
) -> Result<()> {
    let (field, value) = junk(number);
    let metadata = json!({"name": format!("large-{number}"), field: value});
    let membership = serde_json::from_value(json!({
        "metadata": metadata,
        "spec": {"region": "cn-hangzhou", "instanceID": target, "securityGroupID": "sg-web"},
    }))?;
    memberships
        .create(&PostParams::default(), &membership)
        .await
        .context(format!("large-{number}"))?;
    Ok(())
}

/// An annotation of others, one of ours, one that we read; and in some, many finalizers or labels, which the API server stores
/// twice.
fn junk(number: usize) -> (&'static str, Value) {
    let annotation = |name: &str| {
        let text = "x".repeat(JUNK);
        ("annotations", json!({ name: text }))
    };
    let long = "x".repeat(55);
    match number % 50 {
        0..16 => annotation("example.com/junk"),
        16..32 => annotation("security-group-operator.io/junk"),
        32..48 => annotation("security-group-operator.io/reconcile-requested-at"),
        48 => {
            let finalizer = |number| json!(format!("example.com/{long}{number}"));
            let many = (0..JUNK / 80).map(finalizer).collect();
            ("finalizers", Value::Array(many))
        }
        _ => {
            let label = |number| (format!("example.com/{number}"), json!(long));
            ("labels", Value::Object((0..JUNK / 80).map(label).collect()))
        }
    }
}

/// Returns when each object has had a pass.
async fn all_answered(operator: &Operator) -> Result<()> {
    let passes = "security_group_operator_reconcile_total{outcome=\"account\"} ";
    eventually("all are looked at", async || {
        let metrics = reqwest::get(operator.url("/metrics")).await?.text().await?;
        let count = metrics.lines().find_map(|line| line.strip_prefix(passes));
        Ok(count.unwrap_or("0").parse::<usize>()? >= OBJECTS)
    })
    .await
}
