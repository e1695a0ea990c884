//! Who may edit a namespace may write its memberships, who may view it may read them, and nobody else gets anything: by the
//! cluster's own roles `edit`, `view` and `admin`, of which ours become a part.

use std::path::Path;

use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::support::control_plane::ControlPlane;
use crate::support::error::{Error, Result};
use crate::support::eventually::eventually;
use crate::support::operator;
use crate::support::tempdir::TempDir;

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

/// Gives a user one of the cluster's own roles in the namespace default, and waits until ours has become a part of it.
async fn bind(plane: &ControlPlane, user: &str, role: &str, verb: &str) -> Result<()> {
    let bindings: Api<RoleBinding> = Api::namespaced(plane.admin_client().await?, "default");
    let binding = serde_json::from_value(json!({
        "metadata": {"generateName": "user-"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    for kind in ["sgm", "sgmset", "cloudaccounts"] {
        eventually(&format!("{role} may {verb} {kind}"), async || {
            let can = ["auth", "can-i", verb, kind];
            Ok(kubectl_as(plane, user, &can).await?.0)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn editors_write_memberships_and_viewers_read_them() -> Result<()> {
    let plane = plane_with_roles().await?;
    bind(plane, "editor", "edit", "create").await?;
    bind(plane, "viewer", "view", "get").await?;
    let files = TempDir::new("user-roles")?;
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
    }
    refused("viewer", &["get", "secrets"]).await
}

#[tokio::test]
async fn only_admins_may_let_the_operator_read_secrets() -> Result<()> {
    let plane = plane_with_roles().await?;
    bind(plane, "administrator", "admin", "create").await?;
    bind(plane, "author", "edit", "create").await?;
    // As deploy/roles.yaml says it.
    let command = [
        "create",
        "rolebinding",
        "security-group-operator",
        "--clusterrole",
        "security-group-operator-secrets",
        "--serviceaccount",
        "security-group-operator:security-group-operator",
    ];
    let (done, said) = kubectl_as(plane, "author", &command).await?;
    assert!(!done && said.contains("orbidden"), "{said}");
    let (done, said) = kubectl_as(plane, "administrator", &command).await?;
    assert!(done, "{said}");
    Ok(())
}
