//! The operator without a cluster, without its CRDs, or without rights says which, once, and ends or keeps trying.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use support::control_plane::ControlPlane;
use support::error::Result;
use support::eventually::eventually;
use support::operator::install;
use support::port;
use support::process::Child;
use support::scratch::Scratch;
use support::simulator::probe;

const BINARY: &str = env!("CARGO_BIN_EXE_security-group-operator");
/// Tries of a list that fails, before which a line counts as said once.
const TRIES: usize = 3;

#[test]
fn without_a_cluster_it_ends_with_one_line() -> Result<()> {
    let scratch = Scratch::new("start")?;
    let garbage = scratch.path().join("garbage");
    std::fs::write(&garbage, "no: [kubeconfig")?;
    let nothing = scratch.path().join("nothing");
    for kubeconfig in [None, Some(garbage), Some(nothing)] {
        let output = ends(scratch.path(), kubeconfig.as_deref(), &[])?;
        let said = complaint(&output);
        assert!(
            said.contains("no Kubernetes cluster is configured"),
            "{said}"
        );
        assert!(said.contains("KUBECONFIG"), "{said}");
    }
    Ok(())
}

#[test]
fn what_is_typed_wrong_is_named() -> Result<()> {
    let scratch = Scratch::new("start")?;
    for (argument, named) in [
        ("--listen=here", "--listen"),
        ("--log-format=xml", "--log-format"),
        ("--ecs-endpoint=ftp://x", "ecs"),
        ("--log=what=ever=", "--log"),
        ("--unknown", "--unknown"),
    ] {
        let output = ends(scratch.path(), None, &[argument])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(named), "{argument}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn without_its_crds_it_says_so_once_and_starts_when_they_are_there() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let mut operator = Started::with(&plane, &plane.admin_kubeconfig())?;
    operator.until_tried(&plane, "admin", 404).await?;
    let lines = operator.lines_with("the cluster does not know securitygroupmemberships")?;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("install the CRDs"), "{lines:?}");
    operator.is_alive_but_not_ready().await?;

    install(
        &plane,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy"),
    )
    .await?;
    operator.until_ready().await
}

#[tokio::test]
async fn without_rights_it_names_the_right_once_and_starts_when_it_has_them() -> Result<()> {
    let plane = ControlPlane::start().await?;
    install(
        &plane,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy"),
    )
    .await?;
    let kubeconfig = plane
        .kubeconfig_for_service_account("default", "default")
        .await?;
    let mut operator = Started::with(&plane, &kubeconfig)?;
    let user = "system:serviceaccount:default:default";
    operator.until_tried(&plane, user, 403).await?;
    let lines = operator.lines_with("may not list securitygroupmemberships")?;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("deploy/") && lines[0].contains(user),
        "{lines:?}"
    );
    operator.is_alive_but_not_ready().await?;

    let bindings: Api<ClusterRoleBinding> = Api::all(plane.admin_client().await?);
    let binding = serde_json::from_value(json!({
        "metadata": {"name": "late"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "security-group-operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    operator.until_ready().await
}

#[tokio::test]
async fn an_api_server_that_is_gone_is_waited_for() -> Result<()> {
    let mut plane = ControlPlane::start().await?;
    install(
        &plane,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy"),
    )
    .await?;
    let kubeconfig = plane.admin_kubeconfig();
    plane.stop_api_server();
    let mut operator = Started::with(&plane, &kubeconfig)?;
    eventually("it says that nobody answers", async || {
        Ok(!operator
            .lines_with("the Kubernetes API server cannot be used")?
            .is_empty())
    })
    .await?;
    operator.is_alive_but_not_ready().await?;
    plane.start_api_server().await?;
    operator.until_ready().await
}

/// The operator started by hand, without anything that a deployment would do for it.
struct Started {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Started {
    fn with(plane: &ControlPlane, kubeconfig: &Path) -> Result<Self> {
        let port = port::free()?;
        let log = plane.directory().join(format!("started-{port}.log"));
        let mut command = Command::new(BINARY);
        command
            .arg(format!("--listen=127.0.0.1:{port}"))
            .env("KUBECONFIG", kubeconfig);
        let child = Child::spawn("security-group-operator", &command, &log)?;
        Ok(Self { child, port, log })
    }

    fn lines_with(&self, text: &str) -> Result<Vec<String>> {
        let log = std::fs::read_to_string(&self.log)?;
        let lines = log.lines().filter(|line| line.contains(text));
        Ok(lines.map(str::to_owned).collect())
    }

    /// Returns when it has asked in vain often enough that a line at each try would be seen.
    async fn until_tried(&self, plane: &ControlPlane, user: &str, code: u16) -> Result<()> {
        eventually("it asks again", async || {
            let events = plane.audit_events()?;
            let tries = events.iter().filter(|event| {
                event.user == user
                    && event.code == code
                    && event.verb == "list"
                    && event.resource == "securitygroupmemberships"
            });
            Ok(tries.count() >= TRIES)
        })
        .await
    }

    async fn is_alive_but_not_ready(&mut self) -> Result<()> {
        assert_eq!(self.child.exit_code()?, None);
        probe(&format!("http://127.0.0.1:{}/livez", self.port)).await?;
        assert!(
            probe(&format!("http://127.0.0.1:{}/readyz", self.port))
                .await
                .is_err()
        );
        Ok(())
    }

    async fn until_ready(&mut self) -> Result<()> {
        let url = format!("http://127.0.0.1:{}/readyz", self.port);
        self.child
            .wait_until(LIMIT, async || probe(&url).await)
            .await
    }
}

/// Runs it to its end with nothing in its environment but this.
fn ends(home: &Path, kubeconfig: Option<&Path>, arguments: &[&str]) -> Result<Output> {
    let mut command = Command::new(BINARY);
    command
        .args(["--listen=127.0.0.1:0"])
        .args(arguments)
        .env_clear()
        .env("HOME", home)
        .stdin(Stdio::null());
    if let Some(kubeconfig) = kubeconfig {
        command.env("KUBECONFIG", kubeconfig);
    }
    let output = command.output()?;
    assert!(
        !output.status.success(),
        "it must not go on without a cluster"
    );
    Ok(output)
}

/// The one line.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(output.stdout.is_empty());
    said
}

const LIMIT: Duration = Duration::from_secs(60);
