//! The files in examples/simulator/ and examples/kind/ do what their comments say, applied as a user would, against the simulated cloud.

use std::path::Path;

use kube::Api;
use security_group_operator::api::{SecurityGroupMembership, SecurityGroupMembershipSet};
use serde_json::{Value, json};

use crate::binaries;
use crate::support::control_plane::ControlPlane;
use crate::support::env::{self, ready};
use crate::support::error::{Context, Error, Result};
use crate::support::eventually::eventually;
use crate::support::simulator::SimulatorProcess;
use crate::support::tempdir::TempDir;

/// The service of `examples/kind/simulator.yaml`.
const SERVICE: &str = "http://ecs-simulator.ecs-simulator.svc:18080";

/// Where the samples say the simulator is.
const WRITTEN: &str = "http://127.0.0.1:18080";

#[tokio::test]
async fn every_sample_behaves_as_its_comment_states() -> Result<()> {
    let binaries = binaries!();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    drop(env::operator(&binaries).await?);
    let plane = ControlPlane::shared().await?;
    let inventory = root.join("examples/inventory.yaml").display().to_string();
    let simulator =
        SimulatorProcess::start(&binaries.simulator, &["--inventory", inventory.as_str()]).await?;
    let starting = |status| json!({"setStatus": {"id": "i-demostarting", "status": status}});
    // As in the inventory, but for as long as this test wants.
    simulator.change(&starting("Starting")).await?;
    let files = copy_samples(&root.join("examples/simulator"), &simulator.endpoint())?;
    let refused = root.join("examples/refused").display().to_string();
    let folder = files.path().display().to_string();
    // Without the admission policies nothing refuses it at once.
    kubectl(plane, &["apply", "-f", &folder, "-f", &refused]).await?;

    let objects = Api::namespaced(plane.admin_client().await?, "default");
    for (name, status, reason) in [
        ("demo-running-instance", "True", "Joined"),
        ("demo-network-interface", "True", "Joined"),
        ("demo-adopted-instance", "True", "Adopted"),
        ("demo-starting-instance", "False", "WaitingForTarget"),
        (
            "demo-group-full",
            "False",
            "SecurityGroupInstanceLimitExceeded",
        ),
        ("demo-missing-instance", "False", "TargetNotFound"),
        ("demo-observed-instance", "False", "NotAMember"),
        ("demo-wrong-vpc", "False", "InvalidInstanceIdMismatch"),
    ] {
        until(&objects, name, status, reason).await?;
    }
    let sets: Api<SecurityGroupMembershipSet> =
        Api::namespaced(plane.admin_client().await?, "default");
    let members = async |count| {
        eventually(&format!("the set has {count} members"), async || {
            let status = sets.get("demo-nodes").await?.status;
            Ok(status.is_some_and(|status| status.ready_targets == Some(count)))
        })
        .await
    };
    members(1).await?;
    kubectl(plane, &["label", "node", "demo-node-b", "demo-pool=web"]).await?;
    members(2).await?;
    let all = objects.list(&kube::api::ListParams::default()).await?;
    let names = all
        .items
        .iter()
        .filter_map(|object| object.metadata.name.as_deref());
    let samples = names.filter(|name| name.starts_with("demo-"));
    assert_eq!(
        samples.count(),
        8 + 2,
        "a sample that this test does not know"
    );
    let elsewhere = Api::namespaced(plane.admin_client().await?, "demo-team-b");
    until(&elsewhere, "demo-team-b", "False", "NotGranted").await?;
    simulator.change(&starting("Running")).await?;
    until(&objects, "demo-starting-instance", "True", "Joined").await?;
    let expected = [
        ("instances/i-demorunning", true),
        ("instances/i-demostarting", true),
        ("instances/i-demoadopted", true),
        ("instances/i-demoobserved", false),
        ("instances/i-demonodea", true),
        ("instances/i-demonodeb", true),
        ("networkInterfaces/eni-demosecondary", true),
    ];
    for (target, member) in expected {
        assert_eq!(is_member(&simulator, target).await?, member, "{target}");
    }

    // The account first, as the files are ordered; what it was used for must go all the same.
    let all = ["delete", "-f", &folder, "-f", &refused, "--timeout=60s"];
    kubectl(plane, &all).await?;
    for (target, _) in expected {
        let stays = target.ends_with("i-demoadopted");
        assert_eq!(is_member(&simulator, target).await?, stays, "{target}");
    }
    Ok(())
}

/// `examples/kind/`: the inventory, the account and the memberships, with the simulator as a process instead of a pod.
#[tokio::test]
async fn quick_start_on_kind_ends_as_its_page_says() -> Result<()> {
    let binaries = binaries!();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kind");
    drop(env::operator(&binaries).await?);
    let plane = ControlPlane::shared().await?;
    let text = std::fs::read_to_string(folder.join("simulator.yaml"))?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let inventory = objects
        .iter()
        .find_map(|object| object.pointer("/data/inventory.yaml")?.as_str())
        .context("an inventory")?;
    let container = objects
        .iter()
        .find_map(|object| object.pointer("/spec/template/spec/containers/0"))
        .context("a pod")?;
    let files = TempDir::new("kind")?;
    let file = files.path().join("inventory.yaml");
    std::fs::write(&file, inventory)?;
    // The pod's own arguments, but for what only a pod has: its addresses and its volume.
    let arguments = container["args"].as_array().context("arguments")?;
    let arguments: Vec<&str> = arguments.iter().filter_map(Value::as_str).collect();
    assert_eq!(
        arguments,
        [
            "--listen=0.0.0.0:18080",
            "--admin=127.0.0.1:18081",
            "--inventory=/inventory/inventory.yaml"
        ]
    );
    let inventory = format!("--inventory={}", file.display());
    let simulator = SimulatorProcess::start(&binaries.simulator, &[&inventory]).await?;

    assert!(text.contains(SERVICE));
    // The endpoint that the pod's account names can be used, because it allows http://.
    security_group_operator::ecs::Endpoints::parse(Some(SERVICE), Some(SERVICE), true)
        .map_err(|error| Error::new(error.to_string()))?;
    std::fs::write(
        files.path().join("simulator.yaml"),
        text.replace(SERVICE, &simulator.endpoint()),
    )?;
    let cloud = files.path().join("simulator.yaml").display().to_string();
    let memberships = folder.join("memberships.yaml").display().to_string();
    kubectl(plane, &["apply", "-f", &cloud, "-f", &memberships]).await?;
    let objects = Api::namespaced(plane.admin_client().await?, "default");
    until(&objects, "web-1", "True", "Joined").await?;
    until(&objects, "wrong", "False", "TargetNotFound").await?;
    let running = json!({"setStatus": {"id": "i-web2", "status": "Running"}});
    simulator.change(&running).await?;
    until(&objects, "web-2", "True", "Joined").await?;
    let all = ["delete", "-f", &memberships, "-f", &cloud, "--timeout=60s"];
    kubectl(plane, &all).await
}

/// The samples with this endpoint in the place of the one that they name.
fn copy_samples(from: &Path, endpoint: &str) -> Result<TempDir> {
    let files = TempDir::new("samples")?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        let text = std::fs::read_to_string(file.path())?;
        std::fs::write(
            files.path().join(file.file_name()),
            text.replace(WRITTEN, endpoint),
        )?;
    }
    let account = std::fs::read_to_string(files.path().join("account.yaml"))?;
    assert!(account.contains(endpoint), "no sample names {WRITTEN}");
    Ok(files)
}

async fn kubectl(plane: &ControlPlane, arguments: &[&str]) -> Result<()> {
    let mut command = tokio::process::Command::from(plane.kubectl());
    let output = command.args(arguments).output().await?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::new(String::from_utf8_lossy(&output.stderr)))
}

async fn until(
    objects: &Api<SecurityGroupMembership>,
    name: &str,
    status: &str,
    reason: &str,
) -> Result<()> {
    eventually(&format!("{name} is {status}, {reason}"), async || {
        let object = objects.get(name).await?;
        let found = ready(&object).context("no Ready")?;
        Ok((found.status.as_str(), found.reason.as_str()) == (status, reason))
    })
    .await
}

async fn is_member(simulator: &SimulatorProcess, target: &str) -> Result<bool> {
    let state = simulator.state().await?;
    let groups = state
        .pointer(&format!("/{target}/securityGroupIds"))
        .and_then(serde_json::Value::as_array)
        .context(format!("the cloud has no {target}"))?;
    Ok(groups.iter().any(|group| group == "sg-demoweb"))
}
