//! The operator without a cluster, without its CRDs, or without rights says which, once, and ends or keeps trying.

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use security_group_operator::api::SecurityGroupMembership;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use crate::support::control_plane::ControlPlane;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::operator::install;
use crate::support::port;
use crate::support::process::Child;
use crate::support::simulator::probe;
use crate::support::tempdir::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_security-group-operator");
/// Tries of a list that fails, before which a line counts as said once.
const TRIES: usize = 3;
const MEMBERSHIPS: &str = "securitygroupmemberships";

#[test]
fn missing_cluster_config_exits_with_one_line() -> Result<()> {
    let tempdir = TempDir::new("start")?;
    let garbage = tempdir.path().join("garbage");
    std::fs::write(&garbage, "no: [kubeconfig")?;
    let nothing = tempdir.path().join("nothing");
    for kubeconfig in [None, Some(garbage), Some(nothing)] {
        let output = ends(tempdir.path(), kubeconfig.as_deref(), &[])?;
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
fn invalid_flag_is_named() -> Result<()> {
    let tempdir = TempDir::new("start")?;
    for (argument, named) in [
        ("--listen=here", "--listen"),
        ("--log-format=xml", "--log-format"),
        ("--ecs-endpoint=ftp://x", "--ecs-endpoint"),
        ("--ecs-endpoint=http://10.0.0.1", "--ecs-endpoint"),
        ("--log=what=ever=", "--log"),
        ("--unknown", "--unknown"),
        ("--sts-endpoint=ftp://x", "--sts-endpoint"),
        ("--sts-endpoint=http://sts.example.com", "--sts-endpoint"),
        // Not "install the CRDs", which is what an API server says of such a path.
        ("--namespace=team/web", "--namespace"),
        ("--namespace=team,Web", "--namespace"),
        (
            "--operator-namespace=../kube-system",
            "--operator-namespace",
        ),
        // Would be the Secrets of all namespaces.
        ("--operator-namespace=", "--operator-namespace"),
    ] {
        let output = ends(tempdir.path(), None, &[argument])?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(named), "{argument}: {said}");
        assert!(!said.contains("panicked"), "{said}");
    }
    Ok(())
}

#[test]
fn invalid_variable_is_named() -> Result<()> {
    let tempdir = TempDir::new("start")?;
    for (variable, value) in [
        ("SECURITY_GROUP_OPERATOR_LISTEN", "here"),
        ("SECURITY_GROUP_OPERATOR_NAMESPACE", "team/web"),
        ("SECURITY_GROUP_OPERATOR_OPERATOR_NAMESPACE", ""),
        ("SECURITY_GROUP_OPERATOR_SCAN_PERIOD", "soon"),
        ("SECURITY_GROUP_OPERATOR_MAX_WRITES_IN_FLIGHT", "0"),
        ("SECURITY_GROUP_OPERATOR_LOG_FORMAT", "xml"),
        ("RUST_LOG", "what=ever="),
        ("ALIBABA_CLOUD_ACCESS_KEY_ID", "LTAI"),
    ] {
        let output = Command::new(BINARY)
            .env_clear()
            .env("HOME", tempdir.path())
            .env(variable, value)
            .stdin(Stdio::null())
            .output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success(), "{variable}: {said}");
        assert!(said.contains(variable), "{variable}: {said}");
    }
    Ok(())
}

fn kubeconfig_for(server: &str, proxy: Option<String>) -> String {
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "proxy-url": proxy}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "current-context": "c",
    });
    config.to_string()
}

/// The first line that the operator sends to a listener of this test, whose address stands for `LISTENER` in the kubeconfig and
/// the environment.
async fn first_line(
    server: &str,
    own_proxy: Option<&str>,
    environment: &[(&str, &str)],
) -> Result<String> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let filled = |text: &str| text.replace("LISTENER", &address);
    let config = kubeconfig_for(&filled(server), own_proxy.map(filled));
    let tempdir = TempDir::new("start")?;
    let kubeconfig = tempdir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, config)?;
    let mut command = Command::new(BINARY);
    command
        .arg("--listen=127.0.0.1:0")
        .env("KUBECONFIG", &kubeconfig);
    for variable in ["HTTPS_PROXY", "https_proxy", "NO_PROXY", "no_proxy"] {
        command.env_remove(variable);
    }
    command.envs(
        environment
            .iter()
            .map(|(name, value)| (name, filled(value))),
    );
    let log = tempdir.path().join("log");
    let mut child = Child::spawn("security-group-operator", &command, &log)?;
    let received = async {
        let (mut stream, _) = listener.accept().await?;
        let mut bytes = Vec::new();
        stream.read_buf(&mut bytes).await?;
        std::io::Result::Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let received = tokio::time::timeout(LIMIT, received).await;
    let log = std::fs::read_to_string(&log)?;
    assert_eq!(child.exit_code()?, None, "it ended: {log}");
    let received = received.context(format!("nobody connects: {log}"))??;
    Ok(received.lines().next().unwrap_or_default().to_owned())
}

/// The first byte of TLS: what an API server gets that is connected to without a proxy.
const TLS: char = '\u{16}';

#[tokio::test]
async fn proxy_of_the_environment_connects_to_other_machines() -> Result<()> {
    // Resolves nowhere: the proxy gets the name.
    let remote = "https://cluster.invalid:6443";
    for environment in [
        [("HTTPS_PROXY", "http://LISTENER")].as_slice(),
        &[("https_proxy", "http://LISTENER")],
        &[("HTTPS_PROXY", "LISTENER")],
        // Names the proxy, not the API server.
        &[
            ("HTTPS_PROXY", "http://LISTENER"),
            ("NO_PROXY", "127.0.0.1"),
        ],
    ] {
        let line = first_line(remote, None, environment).await?;
        assert_eq!(line, "CONNECT cluster.invalid:6443 HTTP/1.1");
    }
    Ok(())
}

#[tokio::test]
async fn proxy_of_the_environment_does_not_keep_the_operator_from_its_api_server() -> Result<()> {
    let nobody = ("HTTPS_PROXY", "http://127.0.0.1:9");
    for environment in [[nobody].as_slice(), &[("HTTPS_PROXY", "ftp://127.0.0.1:9")]] {
        let line = first_line("https://LISTENER", None, environment).await?;
        assert!(line.starts_with(TLS), "{environment:?}: {line}");
    }
    Ok(())
}

#[tokio::test]
async fn proxy_of_the_kubeconfig_always_connects() -> Result<()> {
    let nobody = ("HTTPS_PROXY", "http://127.0.0.1:9");
    for server in ["cluster.invalid:6443", "127.0.0.1:1"] {
        for environment in [nobody, ("NO_PROXY", "127.0.0.1,cluster.invalid")] {
            let url = format!("https://{server}");
            let line = first_line(&url, Some("http://LISTENER"), &[environment]).await?;
            assert_eq!(line, format!("CONNECT {server} HTTP/1.1"));
        }
    }
    Ok(())
}

#[test]
fn unreadable_proxy_variable_is_named() -> Result<()> {
    let tempdir = TempDir::new("start")?;
    let kubeconfig = tempdir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, kubeconfig_for("https://cluster.invalid", None))?;
    for (variable, value) in [("HTTPS_PROXY", "http://a b"), ("NO_PROXY", "localhost,")] {
        let mut command = command_that_ends(tempdir.path(), Some(&kubeconfig), &[]);
        let output = command
            .env("HTTPS_PROXY", "http://proxy:3128")
            .env(variable, value)
            .output()?;
        assert!(!output.status.success());
        let said = complaint(&output);
        assert!(said.contains(variable), "{said}");
        assert!(!said.contains("no Kubernetes cluster"), "{said}");
    }
    Ok(())
}

#[tokio::test]
async fn credential_plugin_that_does_not_end_is_named() -> Result<()> {
    let tempdir = TempDir::new("start")?;
    let plugin = json!({"exec": {
        "apiVersion": "client.authentication.k8s.io/v1", "interactiveMode": "Never",
        "command": "sh", "args": ["-c", "exec sleep 600"],
    }});
    let mut config: Value = serde_json::from_str(&kubeconfig_for("https://cluster.invalid", None))?;
    config["users"][0]["user"] = plugin;
    let kubeconfig = tempdir.path().join("kubeconfig");
    std::fs::write(&kubeconfig, config.to_string())?;
    let mut command = Command::new(BINARY);
    command
        .arg("--listen=127.0.0.1:0")
        .env("KUBECONFIG", &kubeconfig);
    let log = tempdir.path().join("log");
    let mut child = Child::spawn("security-group-operator", &command, &log)?;
    assert_eq!(child.wait(LIMIT).await?, 1);
    let said = std::fs::read_to_string(&log)?;
    assert!(said.contains("credential plugin"), "{said}");
    Ok(())
}

#[tokio::test]
async fn missing_crds_are_reported_once_and_waited_for() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let mut operator = Started::with(&plane, &plane.admin_kubeconfig())?;
    operator
        .until_tried(&plane, "admin", 404, MEMBERSHIPS)
        .await?;
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
async fn missing_rights_are_reported_once_and_waited_for() -> Result<()> {
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
    operator.until_tried(&plane, user, 403, MEMBERSHIPS).await?;
    let lines = operator.lines_with("may not list securitygroupmemberships")?;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].contains("deploy/") && lines[0].contains(user),
        "{lines:?}"
    );
    operator.is_alive_but_not_ready().await?;

    bind(&Api::all(plane.admin_client().await?)).await?;
    operator.until_ready().await
}

/// Gives the operator's rights to the service account default/default.
async fn bind(bindings: &Api<ClusterRoleBinding>) -> Result<()> {
    let binding = serde_json::from_value(json!({
        "metadata": {"name": "late"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "security-group-operator"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    Ok(())
}

#[tokio::test]
async fn missing_or_revoked_right_is_reported_once() -> Result<()> {
    let mut plane = ControlPlane::start().await?;
    install(
        &plane,
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy"),
    )
    .await?;
    let kubeconfig = plane
        .kubeconfig_for_service_account("default", "default")
        .await?;
    // All but the Secrets of the operator's namespace.
    let bindings: Api<ClusterRoleBinding> = Api::all(plane.admin_client().await?);
    bind(&bindings).await?;
    let mut operator = Started::with(&plane, &kubeconfig)?;
    let user = "system:serviceaccount:default:default";
    operator.until_ready().await?;
    operator.until_tried(&plane, user, 403, "secrets").await?;
    let lines = operator.lines_with("secrets is forbidden")?;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains(user), "{lines:?}");

    bindings.delete("late", &DeleteParams::default()).await?;
    // A watch that stands is not asked for its rights again.
    plane.stop_api_server();
    plane.start_api_server().await?;
    operator.until_tried(&plane, user, 403, MEMBERSHIPS).await?;
    operator
        .until_tried(&plane, user, 403, "namespaces")
        .await?;
    for kind in ["SecurityGroupMembership", "Namespace"] {
        let mut lines = operator.lines_with(&format!("kind=\"{kind}\""))?;
        lines.retain(|line| line.contains("is forbidden") && line.contains("cannot be watched"));
        assert_eq!(lines.len(), 1, "{lines:#?}");
    }
    assert_eq!(operator.child.exit_code()?, None);
    Ok(())
}

#[tokio::test]
async fn missing_write_right_is_reported_once() -> Result<()> {
    for (verb, resource, said) in [
        ("patch", MEMBERSHIPS, "the status could not be written"),
        ("create", "events", "the API server refuses an event"),
    ] {
        let plane = ControlPlane::start().await?;
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        install(&plane, &deploy).await?;
        let client = plane.admin_client().await?;
        let roles: Api<ClusterRole> = Api::all(client.clone());
        let mut shipped = roles.get("security-group-operator").await?;
        let mut rights = shipped.rules.take().unwrap_or_default();
        for right in &mut rights {
            let is_it = |of: &String| of.starts_with(resource);
            if right.resources.iter().flatten().any(is_it) {
                right.verbs.retain(|granted| granted != verb);
            }
        }
        rights.retain(|right| !right.verbs.is_empty());
        let fewer = Patch::Merge(json!({"rules": rights}));
        roles
            .patch("security-group-operator", &PatchParams::default(), &fewer)
            .await?;
        bind(&Api::all(client.clone())).await?;
        let kubeconfig = plane
            .kubeconfig_for_service_account("default", "default")
            .await?;
        let mut operator = Started::with(&plane, &kubeconfig)?;
        operator.until_ready().await?;
        let memberships: Api<SecurityGroupMembership> = Api::namespaced(client, "default");
        for name in ["a", "b", "c"] {
            let membership = serde_json::from_value(json!({
                "metadata": {"name": name},
                "spec": {"region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web"},
            }))?;
            memberships
                .create(&PostParams::default(), &membership)
                .await?;
        }
        let user = "system:serviceaccount:default:default";
        operator.until_tried(&plane, user, 403, resource).await?;
        let lines = operator.lines_with(said)?;
        assert_eq!(lines.len(), 1, "{lines:#?}");
        assert!(lines[0].contains("is forbidden: User"), "{lines:#?}");
        assert_eq!(operator.child.exit_code()?, None);
    }
    Ok(())
}

#[tokio::test]
async fn removed_crds_are_reported_once_and_served_again() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    install(&plane, &deploy).await?;
    let mut operator = Started::with(&plane, &plane.admin_kubeconfig())?;
    operator.until_ready().await?;
    let client = plane.admin_client().await?;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let crd = format!("{MEMBERSHIPS}.security-group-operator.io");
    crds.delete(&crd, &DeleteParams::default()).await?;
    operator
        .until_tried(&plane, "admin", 404, MEMBERSHIPS)
        .await?;
    let lines = operator.lines_with("kind=\"SecurityGroupMembership\"")?;
    assert_eq!(lines.len(), 1, "{lines:#?}");
    assert_eq!(operator.child.exit_code()?, None);

    install(&plane, &deploy).await?;
    let memberships: Api<SecurityGroupMembership> = Api::namespaced(client, "default");
    let membership = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web"},
    }))?;
    memberships
        .create(&PostParams::default(), &membership)
        .await?;
    eventually("it is served again", async || {
        let status = memberships.get("web").await?.status.unwrap_or_default();
        let mut conditions = status.conditions.iter();
        Ok(conditions.any(|condition| condition.reason == "AccountNotFound"))
    })
    .await
}

#[tokio::test]
async fn unreachable_api_server_is_waited_for() -> Result<()> {
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
    // After 1, 3 and 7 seconds it has asked again, without another word from anybody.
    tokio::time::sleep(Duration::from_secs(8)).await;
    let lines = operator.lines_with("")?;
    assert_eq!(
        lines.len(),
        2,
        "started, and what is in the way: {lines:#?}"
    );
    assert!(lines[1].contains("Connection refused"), "{lines:#?}");
    operator.is_alive_but_not_ready().await?;
    plane.start_api_server().await?;
    operator.until_ready().await
}

#[tokio::test]
async fn list_that_is_never_answered_is_made_anew() -> Result<()> {
    until_answered(FIRST_LISTS, |request| request.contains("limit=1 ")).await
}

/// What the operator asks before it watches anything: whether the API server has its kinds, and lets it list them.
#[tokio::test]
async fn first_look_that_is_never_answered_is_made_anew() -> Result<()> {
    until_answered(1, |_| false).await
}

/// An API server that answers only these requests, until the operator waits for the answers to so many others.
async fn until_answered(others: usize, answers: fn(&str) -> bool) -> Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let tempdir = TempDir::new("start")?;
    let kubeconfig = tempdir.path().join("kubeconfig");
    let server = format!("http://{}", listener.local_addr()?);
    std::fs::write(&kubeconfig, kubeconfig_for(&server, None))?;
    let is_mute = Arc::new(AtomicBool::new(true));
    let unanswered = Arc::new(AtomicUsize::new(0));
    tokio::spawn({
        let (is_mute, unanswered) = (Arc::clone(&is_mute), Arc::clone(&unanswered));
        async move {
            while let Ok((stream, _)) = listener.accept().await {
                let is_mute = Arc::clone(&is_mute);
                let unanswered = Arc::clone(&unanswered);
                tokio::spawn(empty_cluster(stream, is_mute, unanswered, answers));
            }
        }
    });
    let mut operator = Started::in_directory(tempdir.path(), &kubeconfig)?;
    eventually("every first request waits for an answer", async || {
        Ok(unanswered.load(Ordering::SeqCst) >= others)
    })
    .await?;
    is_mute.store(false, Ordering::SeqCst);
    operator.until_ready().await
}

/// Of both kinds of accounts, of namespaces and of Secrets; memberships are listed after them.
const FIRST_LISTS: usize = 4;

/// Answers requests as an API server without objects. While it is mute it answers only these.
async fn empty_cluster(
    stream: TcpStream,
    is_mute: Arc<AtomicBool>,
    unanswered: Arc<AtomicUsize>,
    answers: fn(&str) -> bool,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut request = String::new();
        while !request.ends_with("\r\n\r\n") {
            if stream.read_line(&mut request).await? == 0 {
                return Ok(());
            }
        }
        let is_watch = request.contains("watch=true");
        if is_watch || is_mute.load(Ordering::SeqCst) && !answers(&request) {
            unanswered.fetch_add(usize::from(!is_watch), Ordering::SeqCst);
            std::future::pending::<()>().await;
        }
        let list = json!({
            "apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": [],
        });
        let (list, length) = (list.to_string(), list.to_string().len());
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{list}"
        );
        stream.write_all(answer.as_bytes()).await?;
    }
}

/// The operator started by hand, without anything that a deployment would do for it.
struct Started {
    child: Child,
    port: u16,
    log: PathBuf,
}

impl Started {
    fn with(plane: &ControlPlane, kubeconfig: &Path) -> Result<Self> {
        Self::in_directory(plane.directory(), kubeconfig)
    }

    fn in_directory(directory: &Path, kubeconfig: &Path) -> Result<Self> {
        let port = port::free()?;
        let log = directory.join(format!("started-{port}.log"));
        let mut command = Command::new(BINARY);
        command
            .arg(format!("--listen=127.0.0.1:{port}"))
            // Meant for other hosts: a proxy that does not answer must not keep the operator from this machine's API server.
            .env("HTTPS_PROXY", "http://127.0.0.1:9")
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
    async fn until_tried(
        &self,
        plane: &ControlPlane,
        user: &str,
        code: u16,
        resource: &str,
    ) -> Result<()> {
        eventually("it asks again", async || {
            let events = plane.audit_events()?;
            let tries = events.iter().filter(|event| {
                event.user == user
                    && event.code == code
                    && matches!(event.verb.as_str(), "list" | "watch" | "patch" | "create")
                    && event.resource == resource
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
    let output = command_that_ends(home, kubeconfig, arguments).output()?;
    assert!(
        !output.status.success(),
        "it must not go on without a cluster"
    );
    Ok(output)
}

fn command_that_ends(home: &Path, kubeconfig: Option<&Path>, arguments: &[&str]) -> Command {
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
    command
}

/// The one line.
fn complaint(output: &Output) -> String {
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    assert!(output.stdout.is_empty());
    said
}

const LIMIT: Duration = Duration::from_secs(60);
