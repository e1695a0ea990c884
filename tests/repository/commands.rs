//! The commands of the pages that are marked `run`, as a user would type them, on a real API server with everything that
//! `deploy/install.yaml` installs. No operator runs and no pod: what must wait for one is not marked so.

#![expect(clippy::indexing_slicing, reason = "a test ends at its first surprise")]

use kube::Api;
use kube::api::DynamicObject;
use kube::discovery::ApiResource;

use crate::book::{blocks, failed, pages, read, repository};
use crate::support::control_plane::ControlPlane;
use crate::support::error::{Error, Result};
use crate::support::eventually::eventually;

/// What the words in capitals stand for.
const NAMESPACE: &str = "default";
const NAME: &str = "web-1";

#[tokio::test]
async fn commands_of_the_pages_work_as_written() -> Result<()> {
    // One of its own: it binds admission policies and deletes objects.
    let plane = ControlPlane::start().await?;
    shell(
        &plane,
        "setup",
        "kubectl apply --server-side -f deploy/install.yaml",
    )
    .await?;
    shell(
        &plane,
        "setup",
        "kubectl wait --for=condition=Established crd --all --timeout=60s",
    )
    .await?;
    // As the operator would have made it.
    let lease = r#"printf '%s' '{"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "security-group-operator", "namespace": "security-group-operator"}}' | kubectl create -f -"#;
    shell(&plane, "setup", lease).await?;
    let mut number = 0;
    for page in pages() {
        for block in blocks(&read(&page)) {
            if block.mark.as_deref() != Some("run") {
                continue;
            }
            let origin = format!("{page}:{}", block.line);
            create_objects(&plane).await?;
            let typed = block.text.replace("NAMESPACE:", "namespace:");
            let typed = typed.replace("NAMESPACE", NAMESPACE);
            let typed = typed.replace("=NAME:", "=name:").replace("NAME", NAME);
            shell(&plane, &origin, &typed).await?;
            number += 1;
        }
    }
    println!("{number} blocks of commands were run");
    assert!(number > 10, "{number}");
    Ok(())
}

/// An account and a membership, whatever the block before has made of them.
async fn create_objects(plane: &ControlPlane) -> Result<()> {
    let account = serde_json::json!({
        "apiVersion": "security-group-operator.io/v1alpha1",
        "kind": "ClusterCloudAccount",
        "metadata": {"name": "default"},
        "spec": {
            "credentials": {"secretRef": {"name": "aliyun"}},
            "grants": [{
                "name": "all", "namespaces": {"selector": {}}, "securityGroups": {"ids": ["*"]},
                "allow": ["Join", "Observe", "RemoveAdopted"],
            }],
        },
    });
    let membership = serde_json::json!({
        "apiVersion": "security-group-operator.io/v1alpha1",
        "kind": "SecurityGroupMembership",
        "metadata": {"name": NAME, "namespace": NAMESPACE},
        "spec": {"region": "cn-hangzhou", "instanceID": "i-1", "securityGroupID": "sg-1"},
    });
    // The policy that asks the grants may see the account a moment later.
    eventually("the membership is created", async || {
        for object in [&account, &membership] {
            let kind = object["kind"].as_str().unwrap_or_default();
            let resource = ApiResource {
                group: "security-group-operator.io".to_owned(),
                version: "v1alpha1".to_owned(),
                api_version: "security-group-operator.io/v1alpha1".to_owned(),
                kind: kind.to_owned(),
                plural: format!("{}s", kind.to_lowercase()),
            };
            let client = plane.admin_client().await?;
            let api: Api<DynamicObject> = if kind == "ClusterCloudAccount" {
                Api::all_with(client, &resource)
            } else {
                Api::namespaced_with(client, NAMESPACE, &resource)
            };
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let parameters = kube::api::PatchParams::apply("tests").force();
            let patch = kube::api::Patch::Apply(object);
            if api.patch(name, &parameters, &patch).await.is_err() {
                return Ok(false);
            }
        }
        Ok(true)
    })
    .await
}

/// Runs commands in bash, from the root of the repository, with the cluster as kubectl's.
async fn shell(plane: &ControlPlane, origin: &str, commands: &str) -> Result<()> {
    let kubectl = plane.kubectl();
    let program = std::path::Path::new(kubectl.get_program());
    let folder = program.parent().map(|folder| folder.display().to_string());
    let path = std::env::var("PATH").unwrap_or_default();
    let path = match folder.filter(|folder| !folder.is_empty()) {
        Some(folder) => format!("{folder}:{path}"),
        None => path,
    };
    let output = tokio::process::Command::new("bash")
        .args(["-euo", "pipefail", "-c", commands])
        .current_dir(repository())
        .env("PATH", path)
        .env("KUBECONFIG", plane.admin_kubeconfig())
        .kill_on_drop(true)
        .output()
        .await
        .map_err(Error::from)?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(&format!("{origin}: {commands}"), &output.stderr))
}
