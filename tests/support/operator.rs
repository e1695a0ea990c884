//! The operator's own binary, with the service account and the rights from `deploy/`.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use kube::runtime::wait::{await_condition, conditions::is_crd_established};
use kube::{Api, Client};

use super::control_plane::ControlPlane;
use super::error::{Context, Error, Result};
use super::port;
use super::process::Child;

/// Start options beyond the required ones.
#[derive(Clone, Default)]
pub struct Options {
    /// The binary: in tests `env!("CARGO_BIN_EXE_security-group-operator")`.
    pub binary: PathBuf,
    pub arguments: Vec<String>,
    pub environment: Vec<(String, String)>,
}

/// A running operator. Dropping it kills it.
pub struct Operator {
    child: Child,
    port: u16,
    kubeconfig: PathBuf,
    directory: PathBuf,
    options: Options,
}

impl Operator {
    /// Installs `deploy/`, starts the binary under its service account and waits for `/readyz`.
    pub async fn start(plane: &ControlPlane, options: Options) -> Result<Self> {
        install(plane, &Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")).await?;
        let kubeconfig = plane
            .kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
            .await?;
        let directory = plane.directory().to_owned();
        let (child, port) = spawn(&options, &kubeconfig, &directory)?;
        let mut operator = Self {
            child,
            port,
            kubeconfig,
            directory,
            options,
        };
        operator.wait_until_ready().await?;
        Ok(operator)
    }

    /// Sends SIGKILL and waits for the end. [`Self::restart`] starts it again.
    pub fn kill(&mut self) {
        self.child.kill();
    }

    /// Sends SIGTERM; returns the exit code.
    pub async fn stop(&mut self) -> Result<i32> {
        self.child.terminate(LIMIT).await
    }

    /// Kills it if it still runs, and starts it again on another port (the old port may still be in use).
    pub async fn restart(&mut self) -> Result<()> {
        self.respawn()?;
        self.wait_until_ready().await
    }

    /// The same, without waiting until it is ready.
    pub fn respawn(&mut self) -> Result<()> {
        self.child.kill();
        (self.child, self.port) = spawn(&self.options, &self.kubeconfig, &self.directory)?;
        Ok(())
    }

    /// The process, to freeze (STOP) and thaw (CONT) it, or to query the kernel.
    pub fn process(&mut self) -> &mut Child {
        &mut self.child
    }

    /// The most memory that the process has used, in bytes.
    pub fn peak_memory(&self) -> Result<u64> {
        let status = format!("/proc/{}/status", self.child.pid());
        let status = std::fs::read_to_string(status)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.context("no VmHWM")?.parse::<u64>()? << 10)
    }

    /// Its log file; a new file after each restart.
    pub fn log(&self) -> &Path {
        self.child.log()
    }

    /// A URL such as that of `/metrics`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Returns when every object has been listed.
    pub async fn wait_until_ready(&mut self) -> Result<()> {
        let url = self.url("/readyz");
        self.child
            .wait_until(LIMIT, async || super::simulator::probe(&url).await)
            .await
    }
}

/// Applies what `kubectl apply -k` would, except Deployments: nothing here runs pods. Nor are admission policies bound: most tests
/// try what the operator itself refuses ([`bind_policies`] binds them).
pub async fn install(plane: &ControlPlane, kustomization: &Path) -> Result<()> {
    let client = plane.admin_client().await?;
    let (definitions, others): (Vec<_>, Vec<_>) = render(plane, kustomization)
        .await?
        .into_iter()
        .filter(|object| kind(object) != "Deployment" && kind(object) != BINDING)
        .partition(|object| kind(object) == "CustomResourceDefinition");
    for object in &definitions {
        apply(&client, object).await?;
    }
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for object in &definitions {
        let name = object.metadata.name.as_deref().unwrap_or_default();
        tokio::time::timeout(
            LIMIT,
            await_condition(api.clone(), name, is_crd_established()),
        )
        .await
        .context(format!("{name} is not established"))??;
    }
    for object in &others {
        apply(&client, object).await?;
    }
    Ok(())
}

/// Lets the API server refuse what the admission policies of `deploy/` refuse. It begins within a second or so.
pub async fn bind_policies(plane: &ControlPlane, kustomization: &Path) -> Result<()> {
    let client = plane.admin_client().await?;
    let objects = render(plane, kustomization).await?;
    for object in objects.iter().filter(|object| kind(object) == BINDING) {
        apply(&client, object).await?;
    }
    Ok(())
}

const BINDING: &str = "ValidatingAdmissionPolicyBinding";

/// The objects of a kustomization, by kubectl itself, so that a `deploy/` which users cannot apply fails here, too.
pub async fn render(plane: &ControlPlane, kustomization: &Path) -> Result<Vec<DynamicObject>> {
    let mut command = tokio::process::Command::from(plane.kubectl());
    let output = command
        .arg("kustomize")
        .arg(kustomization)
        .stdin(Stdio::null())
        .output()
        .await
        .context("kubectl")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(Error::new(format!(
            "kubectl kustomize {}: {}",
            kustomization.display(),
            said.trim_end()
        )));
    }
    let text = String::from_utf8(output.stdout)?;
    serde_saphyr::from_multiple(&text)
        .context(format!("the objects of {}", kustomization.display()))
}

async fn apply(client: &Client, object: &DynamicObject) -> Result<()> {
    let types = object
        .types
        .as_ref()
        .context("an object without apiVersion and kind")?;
    let name = object
        .metadata
        .name
        .as_deref()
        .context(format!("a {} without a name", types.kind))?;
    let what = format!("{} {name}", types.kind);
    let gvk = GroupVersionKind::try_from(types).context(&what)?;
    let (resource, capabilities) = pinned_kind(client, &gvk).await.context(&what)?;
    let api: Api<DynamicObject> = match (capabilities.scope, object.metadata.namespace.as_deref()) {
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
        (Scope::Namespaced, Some(namespace)) => {
            Api::namespaced_with(client.clone(), namespace, &resource)
        }
        (Scope::Namespaced, None) => return Err(Error::new(format!("{what} names no namespace"))),
    };
    let by_us = PatchParams::apply("security-group-operator-tests").force();
    api.patch(name, &by_us, &Patch::Apply(as_of_a_release(object)))
        .await
        .context(what)?;
    Ok(())
}

/// Marked as the README's release marks it, so that `helm install` works on the cluster of `make up`.
fn as_of_a_release(object: &DynamicObject) -> DynamicObject {
    let mut object = object.clone();
    let labels = object.metadata.labels.get_or_insert_default();
    labels.insert("app.kubernetes.io/managed-by".to_owned(), "Helm".to_owned());
    let annotations = object.metadata.annotations.get_or_insert_default();
    for (key, value) in [
        ("meta.helm.sh/release-name", NAMESPACE),
        ("meta.helm.sh/release-namespace", NAMESPACE),
    ] {
        annotations.insert(key.to_owned(), value.to_owned());
    }
    object
}

fn kind(object: &DynamicObject) -> &str {
    object.types.as_ref().map_or("", |types| &types.kind)
}

fn spawn(options: &Options, kubeconfig: &Path, directory: &Path) -> Result<(Child, u16)> {
    let Options {
        binary,
        arguments,
        environment,
    } = options;
    let port = port::free()?;
    let mut command = Command::new(binary);
    command
        .arg(format!("--listen=127.0.0.1:{port}"))
        .arg(format!("--operator-namespace={NAMESPACE}"))
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .envs(environment.iter().map(|(key, value)| (key, value)));
    let child = Child::spawn(
        "security-group-operator",
        &command,
        &directory.join(format!("operator-{port}.log")),
    )?;
    Ok((child, port))
}

/// Names from `deploy/`.
pub const NAMESPACE: &str = "security-group-operator";
pub const SERVICE_ACCOUNT: &str = "security-group-operator";

const LIMIT: Duration = Duration::from_secs(60);
