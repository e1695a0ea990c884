//! Who may edit a namespace may write its memberships, who may view it may read them, and nobody else gets anything.

mod support;

use std::path::Path;

use k8s_openapi::api::rbac::v1::{ClusterRole, RoleBinding};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use support::control_plane::ControlPlane;
use support::error::{Error, Result};
use support::operator;
use support::scratch::Scratch;

const MEMBERSHIP: &str = "
apiVersion: security-group-operator.io/v1alpha1
kind: SecurityGroupMembership
metadata: {name: web}
spec: {region: cn-hangzhou, instanceID: i-web, securityGroupID: sg-web}
";

async fn plane_with_roles() -> Result<&'static ControlPlane> {
    let plane = ControlPlane::shared().await?;
    operator::install(plane, &Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")).await?;
    Ok(plane)
}

/// kubectl as this user, in the namespace default: whether it worked, and what it said.
async fn kubectl_as(
    plane: &ControlPlane,
    user: &str,
    arguments: &[&str],
) -> Result<(bool, String)> {
    let mut command = tokio::process::Command::from(plane.kubectl());
    let output = command
        .args(["--as", user, "-n", "default"])
        .args(arguments)
        .output()
        .await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

/// What the cluster's aggregation would do, which runs in a controller that is not here: the role, given to a user.
async fn bind(plane: &ControlPlane, user: &str, role: &str) -> Result<()> {
    let bindings: Api<RoleBinding> = Api::namespaced(plane.admin_client().await?, "default");
    let binding = serde_json::from_value(json!({
        "metadata": {"generateName": "user-"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    Ok(())
}

#[tokio::test]
async fn the_roles_become_part_of_the_clusters_own() -> Result<()> {
    let roles: Api<ClusterRole> = Api::all(plane_with_roles().await?.admin_client().await?);
    for (name, into) in [
        ("security-group-operator-edit", ["admin", "edit"].as_slice()),
        ("security-group-operator-view", ["view"].as_slice()),
    ] {
        let labels = roles.get(name).await?.metadata.labels.unwrap_or_default();
        let mut aggregated: Vec<_> = labels
            .iter()
            .filter(|(_, value)| *value == "true")
            .filter_map(|(label, _)| label.strip_prefix("rbac.authorization.k8s.io/aggregate-to-"))
            .collect();
        aggregated.sort_unstable();
        assert_eq!(aggregated, into, "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn editors_write_memberships_and_viewers_read_them() -> Result<()> {
    let plane = plane_with_roles().await?;
    bind(plane, "editor", "security-group-operator-edit").await?;
    bind(plane, "viewer", "security-group-operator-view").await?;
    let files = Scratch::new("user-roles")?;
    let file = files.path().join("membership.yaml");
    std::fs::write(&file, MEMBERSHIP)?;
    let file = file.display().to_string();
    let allowed = async |user: &str, arguments: &[&str]| -> Result<()> {
        let (done, said) = kubectl_as(plane, user, arguments).await?;
        let failed = || Error::new(format!("{user}, {arguments:?}: {said}"));
        done.then_some(()).ok_or_else(failed)
    };
    let refused = async |user: &str, arguments: &[&str]| -> Result<()> {
        let (done, said) = kubectl_as(plane, user, arguments).await?;
        assert!(
            !done && said.contains("orbidden"),
            "{user}, {arguments:?}: {said}"
        );
        Ok(())
    };
    refused("viewer", &["create", "-f", &file]).await?;
    allowed("editor", &["create", "-f", &file]).await?;
    allowed("viewer", &["get", "sgm", "web"]).await?;
    refused("nobody", &["get", "sgm", "web"]).await?;
    refused("viewer", &["annotate", "sgm", "web", "a=b"]).await?;
    allowed("editor", &["annotate", "sgm", "web", "a=b"]).await?;
    refused("viewer", &["delete", "sgm", "web"]).await?;
    allowed("editor", &["delete", "sgm", "web"]).await?;
    for user in ["editor", "viewer"] {
        refused(user, &["get", "clustercloudaccounts"]).await?;
        for verb in ["patch", "update"] {
            let can = ["auth", "can-i", verb, "sgm", "--subresource=status"];
            let (done, said) = kubectl_as(plane, user, &can).await?;
            assert!(!done && said.contains("no"), "{user} may write a status");
        }
        let (done, _) = kubectl_as(plane, user, &["auth", "can-i", "get", "secrets"]).await?;
        assert!(!done, "{user} may read Secrets");
    }
    Ok(())
}
