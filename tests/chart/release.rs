//! A release from its install to its uninstall, and what must not be installed beside it.

use std::path::Path;
use std::process::Output;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, ObjectMeta, PostParams};
use security_group_operator::api::{
    ACCOUNT_FINALIZER, ClusterCloudAccount, FINALIZER, SecurityGroupMembership,
};
use serde_json::json;

use crate::helm::{Helm, chart, repository};
use crate::support::control_plane::ControlPlane;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::port;
use crate::support::process::Child;
use crate::support::simulator::probe;
use crate::support::tempdir::TempDir;
use crate::{BINARY, NAME};

const MEMBERSHIPS: &str = "securitygroupmemberships.security-group-operator.io";
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);

#[tokio::test]
async fn release_is_installed_upgraded_and_uninstalled() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let helm = Helm::on(&plane).await?;
    let client = plane.admin_client().await?;
    let files = TempDir::new("chart")?;
    let earlier = earlier_chart(files.path())?;
    let of_release = ["--namespace", NAME];
    helm.run(
        &[
            &[
                "install",
                NAME,
                &earlier,
                "--create-namespace",
                "--set=operator.scanPeriod=5m",
            ],
            &of_release[..],
        ]
        .concat(),
    )
    .await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    assert!(!has_field(&crds.get(MEMBERSHIPS).await?, "driftPolicy"));
    // The CRDs are older than the operator: it says so, with the fix.
    let operator = async |command: &str| look(&plane, command).await;
    let older = operator("check").await?;
    let said = String::from_utf8_lossy(&older.stderr).into_owned();
    assert!(!older.status.success(), "{said}");
    assert!(
        said.contains(MEMBERSHIPS)
            && said.contains("lacks spec.driftPolicy")
            && said.contains("kubectl apply"),
        "{said}"
    );

    let current = chart().display().to_string();
    let said = helm
        .run(
            &[
                &["upgrade", NAME, &current, "--set=operator.log.format=text"],
                &of_release[..],
            ]
            .concat(),
        )
        .await?;
    assert!(said.contains("No image is published"), "{said}");
    assert!(has_field(&crds.get(MEMBERSHIPS).await?, "driftPolicy"));
    helm.run(&[&["rollback", NAME], &of_release[..]].concat())
        .await?;
    assert!(!has_field(&crds.get(MEMBERSHIPS).await?, "driftPolicy"));
    helm.run(&[&["rollback", NAME, "2"], &of_release[..]].concat())
        .await?;
    assert!(has_field(&crds.get(MEMBERSHIPS).await?, "driftPolicy"));
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAME);
    let deployment = serde_json::to_value(deployments.get(NAME).await?)?;
    let arguments = &deployment["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(*arguments, json!(["--leader-elect", "--log-format=text"]));
    let ready = operator("check").await?;
    assert!(ready.status.success(), "{ready:?}");

    another_release_is_refused(&helm, &of_release).await?;
    uninstall_with_objects_left(&plane, &helm).await
}

/// As a first install would leave a cluster, by this chart in a lower version: another value, an older CRD.
fn earlier_chart(folder: &Path) -> Result<String> {
    let earlier = folder.join("earlier");
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(chart())
        .arg(&earlier)
        .status()?;
    assert!(copied.success());
    let edit = |file: &str, edit: &dyn Fn(String) -> String| -> Result<()> {
        let file = earlier.join(file);
        let text = std::fs::read_to_string(&file)?;
        let edited = edit(text.clone());
        assert!(edited != text, "{} is as it was", file.display());
        Ok(std::fs::write(file, edited)?)
    };
    edit("Chart.yaml", &|text| {
        text.replace("ersion: 0.1.0", "ersion: 0.0.9")
    })?;
    edit(
        "files/crds/security-group-operator.io_securitygroupmemberships.yaml",
        &|text| {
            let mut crd: serde_json::Value = serde_saphyr::from_str(&text).unwrap();
            let spec = crd
                .pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties");
            spec.unwrap()
                .as_object_mut()
                .unwrap()
                .remove("driftPolicy")
                .unwrap();
            // As text the template adds an annotation to.
            serde_saphyr::to_string(&crd).unwrap()
        },
    )?;
    Ok(earlier.display().to_string())
}

fn has_field(crd: &CustomResourceDefinition, name: &str) -> bool {
    serde_json::to_string(crd)
        .unwrap()
        .contains(&format!("\"{name}\""))
}

/// A subcommand of the operator's binary as its service account, as the pods of the hooks run it.
async fn look(plane: &ControlPlane, command: &str) -> Result<Output> {
    let kubeconfig = plane.kubeconfig_for_service_account(NAME, NAME).await?;
    let mut process = tokio::process::Command::new(BINARY);
    process.arg(command).env("KUBECONFIG", kubeconfig);
    Ok(process.output().await?)
}

async fn another_release_is_refused(helm: &Helm, of_release: &[&str]) -> Result<()> {
    let current = chart().display().to_string();
    for (values, is_refused) in [
        (&[][..], true),
        (&["--set=namespaces={default}"], true),
        (&["--set=namespaces={default},userRoles.create=false"], true),
    ] {
        let install = [
            "install",
            "second",
            &current,
            "--namespace=second",
            "--create-namespace",
        ];
        let (worked, said) = helm.try_run(&[&install, values].concat()).await?;
        assert_eq!(worked, !is_refused, "{said}");
        let line = said.lines().find(|line| line.contains(NAME));
        assert!(line.is_some(), "{said}");
    }
    let said = helm
        .try_run(&["install", "second", &current, "--namespace=second"])
        .await?
        .1;
    assert!(
        said.contains(&format!(
            "release {NAME} in namespace {NAME} already has the ClusterRole"
        )) && said.contains("two operators must not work in the same namespaces"),
        "{said}"
    );
    // The first one is as it was.
    helm.run(&[&["status", NAME], of_release].concat()).await?;
    Ok(())
}

async fn uninstall_with_objects_left(plane: &ControlPlane, helm: &Helm) -> Result<()> {
    let client = plane.admin_client().await?;
    let team = Namespace {
        metadata: ObjectMeta {
            name: Some("team-web".to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    let namespaces: Api<Namespace> = Api::all(client.clone());
    namespaces.create(&PostParams::default(), &team).await?;
    let memberships: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), "team-web");
    let membership = serde_json::from_value(json!({
        "metadata": {"name": "web", "finalizers": [FINALIZER]},
        "spec": {"region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web"},
    }))?;
    memberships
        .create(&PostParams::default(), &membership)
        .await?;

    // What the Job of the hook runs.
    let left = look(plane, "check-uninstall").await?;
    let said = String::from_utf8_lossy(&left.stderr).into_owned();
    assert!(!left.status.success(), "{said}");
    assert!(
        said.contains("memberships that need the operator: 1 (team-web: 1)")
            && said.contains("kubectl delete sgmset,sgm --all -n team-web"),
        "{said}"
    );

    // No pod runs here, so that the Job would not end.
    let uninstall = ["uninstall", NAME, "--namespace", NAME, "--no-hooks"];
    let said = helm.run(&uninstall).await?;
    assert!(
        said.contains("kept") && said.contains(MEMBERSHIPS),
        "{said}"
    );
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAME);
    assert!(deployments.get_opt(NAME).await?.is_none());
    memberships.get("web").await?;

    // The namespace that waits says for what.
    namespaces
        .delete("team-web", &DeleteParams::default())
        .await?;
    eventually("the namespace names the finalizer", async || {
        let namespace = namespaces.get("team-web").await?;
        Ok(serde_json::to_string(&namespace.status)?.contains(FINALIZER))
    })
    .await?;

    // Installed again, it takes up what was left.
    let current = chart().display().to_string();
    helm.run(&["install", NAME, &current, "--namespace", NAME])
        .await?;
    let mut operator = start(plane).await?;
    eventually("the namespace ends", async || {
        Ok(namespaces.get_opt("team-web").await?.is_none())
    })
    .await?;
    operator.check()?;
    // An account keeps its finalizer for some seconds after the last membership, and for ever without the operator.
    let accounts: Api<ClusterCloudAccount> = Api::all(client.clone());
    let account = async |name: &str| {
        let account = json!({
            "metadata": {"name": name, "finalizers": [ACCOUNT_FINALIZER]},
            "spec": {"credentials": {"secretRef": {"name": "aliyun"}}},
        });
        let account = serde_json::from_value(account)?;
        accounts.create(&PostParams::default(), &account).await?;
        Ok::<_, crate::support::error::Error>(())
    };
    account("used").await?;
    let nothing = look(plane, "check-uninstall").await?;
    assert!(nothing.status.success(), "{nothing:?}");
    drop(operator);
    account("left").await?;
    let left = look(plane, "check-uninstall").await?;
    let said = String::from_utf8_lossy(&left.stderr).into_owned();
    assert!(
        !left.status.success() && said.contains("account-in-use: 1."),
        "{said}"
    );
    helm.run(&uninstall).await?;
    Ok(())
}

/// The operator's binary as its service account, ready.
async fn start(plane: &ControlPlane) -> Result<Child> {
    let kubeconfig = plane.kubeconfig_for_service_account(NAME, NAME).await?;
    let port = port::free()?;
    let mut command = std::process::Command::new(BINARY);
    command
        .arg(format!("--listen=127.0.0.1:{port}"))
        .env("KUBECONFIG", kubeconfig);
    let log = plane.directory().join(format!("operator-{port}.log"));
    let mut child = Child::spawn(NAME, &command, &log)?;
    let url = format!("http://127.0.0.1:{port}/readyz");
    child.wait_until(LIMIT, async || probe(&url).await).await?;
    Ok(child)
}

/// `resources: [REPOSITORY//deploy?ref=…]`, as an overlay of a user names it.
#[tokio::test]
async fn remote_kustomize_base_renders_what_is_committed() -> Result<()> {
    let files = TempDir::new("remote")?;
    let remote = files.path().join("remote");
    std::fs::create_dir(&remote)?;
    let copied = std::process::Command::new("cp")
        .arg("-r")
        .arg(repository().join("deploy"))
        .arg(&remote)
        .status()?;
    assert!(copied.success());
    let git = |arguments: &[&str]| -> Result<()> {
        let done = std::process::Command::new("git")
            .args([
                "-c",
                "user.name=test",
                "-c",
                "user.email=test@example.com",
                "-c",
                "init.defaultBranch=main",
            ])
            .args(arguments)
            .current_dir(&remote)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .output()?;
        assert!(done.status.success(), "{arguments:?}: {done:?}");
        Ok(())
    };
    for arguments in [
        &["init", "--quiet"][..],
        &["add", "."],
        &["commit", "--quiet", "-m", "deploy"],
        &["tag", "v0.1.0"],
    ] {
        git(arguments)?;
    }
    let overlay = files.path().join("overlay");
    std::fs::create_dir(&overlay)?;
    std::fs::write(
        overlay.join("kustomization.yaml"),
        format!(
            "resources: ['file://{}//deploy?ref=v0.1.0']\nimages: [{{name: security-group-operator, newName: example.com/op}}]\n",
            remote.display()
        ),
    )?;
    let plane = ControlPlane::shared().await?;
    let mut kubectl = tokio::process::Command::from(plane.kubectl());
    let output = kubectl.arg("kustomize").arg(&overlay).output().await?;
    let rendered = String::from_utf8(output.stdout).context("YAML")?;
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let committed = std::fs::read_to_string(repository().join("deploy/install.yaml"))?;
    let kinds = |text: &str| {
        text.lines()
            .filter(|line| line.starts_with("kind: "))
            .count()
    };
    assert_eq!(kinds(&rendered), kinds(&committed));
    assert!(
        rendered.contains("image: example.com/op:0.1.0"),
        "{rendered}"
    );
    Ok(())
}
