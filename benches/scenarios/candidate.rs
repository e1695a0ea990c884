//! The competing processes, each with a service account of its own. Knows nothing of scenarios.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::pinned_kind;
use serde_json::{Value, json};

use crate::cluster::{self, BenchCluster, KEY, NAMESPACE, OTHER_KEY};
use crate::support::error::{Context as _, Error, Result};
use crate::support::operator::Operator;
use crate::support::process::Child;
use crate::support::{assets, port, simulator};

/// A running operator of either kind.
pub enum Running {
    Ours(Box<Operator>),
    Textbook(Box<Textbook>),
}

impl Running {
    /// Process ID of the operator.
    pub fn pid(&mut self) -> u32 {
        match self {
            Self::Ours(operator) => operator.process().pid(),
            Self::Textbook(textbook) => textbook.child.pid(),
        }
    }

    /// Sends SIGKILL and waits for the end.
    pub fn kill(&mut self) {
        match self {
            Self::Ours(operator) => operator.kill(),
            Self::Textbook(textbook) => textbook.child.kill(),
        }
    }

    /// Starts it again after [`Self::kill`] and returns when it reports ready.
    pub async fn restart(&mut self) -> Result<()> {
        match self {
            Self::Ours(operator) => operator.restart().await,
            Self::Textbook(textbook) => {
                let options = textbook.options.clone();
                **textbook = Textbook::spawn(options).await?;
                Ok(())
            }
        }
    }
}

/// The operator of `benches/textbook`.
pub struct Textbook {
    child: Child,
    options: Options,
}

#[derive(Clone)]
struct Options {
    binary: PathBuf,
    kubeconfig: PathBuf,
    directory: PathBuf,
    endpoint: String,
    workers: u32,
    period: Duration,
    sets: bool,
}

impl Textbook {
    /// Creates its service account and rights, and starts it. `period` is its `RequeueAfter`; with `sets` it reconciles them, too.
    pub async fn start(
        cluster: &BenchCluster,
        workers: u32,
        period: Duration,
        sets: bool,
    ) -> Result<Self> {
        for object in rights() {
            apply(cluster, &object).await?;
        }
        let kubeconfig = cluster
            .plane
            .kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT)
            .await?;
        Self::spawn(Options {
            binary: assets::textbook().await?,
            kubeconfig,
            directory: cluster.plane.directory().to_owned(),
            endpoint: cluster.simulator.endpoint(),
            workers,
            period,
            sets,
        })
        .await
    }

    async fn spawn(options: Options) -> Result<Self> {
        let probe = port::free()?;
        let mut command = Command::new(&options.binary);
        command
            .arg(format!("--health-probe-bind-address=127.0.0.1:{probe}"))
            .arg(format!("--ecs-endpoint={}", options.endpoint))
            .arg(format!("--max-concurrent-reconciles={}", options.workers))
            .arg(format!("--period={}s", options.period.as_secs()))
            .arg(format!("--sets={}", options.sets));
        for key in [KEY, OTHER_KEY] {
            command.arg(format!(
                "--access-key={}={}:{}",
                key.account, key.id, key.secret
            ));
        }
        command.env("KUBECONFIG", &options.kubeconfig);
        let log = options.directory.join(format!("textbook-{probe}.log"));
        let mut child = Child::spawn("textbook", &command, &log)?;
        let url = format!("http://127.0.0.1:{probe}/readyz");
        child
            .wait_until(START_LIMIT, async || simulator::probe(&url).await)
            .await?;
        Ok(Self { child, options })
    }
}

/// The rights that `kubebuilder` generates from the markers of such a controller.
fn rights() -> [Value; 3] {
    [
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": SERVICE_ACCOUNT, "namespace": NAMESPACE}}),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": SERVICE_ACCOUNT},
            "rules": [
                {"apiGroups": ["security-group-operator.io"], "resources": ["securitygroupmemberships"],
                 "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]},
                {"apiGroups": ["security-group-operator.io"], "resources": ["securitygroupmembershipsets"],
                 "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["security-group-operator.io"],
                 "resources": ["securitygroupmembershipsets/status", "securitygroupmembershipsets/finalizers"],
                 "verbs": ["get", "update", "patch"]},
                {"apiGroups": [""], "resources": ["nodes"], "verbs": ["get", "list", "watch"]},
                {"apiGroups": ["security-group-operator.io"],
                 "resources": ["securitygroupmemberships/status", "securitygroupmemberships/finalizers"],
                 "verbs": ["get", "update", "patch"]},
            ],
        }),
        json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": SERVICE_ACCOUNT},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": SERVICE_ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}],
        }),
    ]
}

async fn apply(cluster: &BenchCluster, object: &Value) -> Result<()> {
    let object: DynamicObject = serde_json::from_value(object.clone())?;
    let types = object.types.as_ref().context("an object without a kind")?;
    let gvk = GroupVersionKind::try_from(types).map_err(|error| Error::new(error.to_string()))?;
    let (resource, _) = pinned_kind(&cluster.client, &gvk).await?;
    let api: Api<DynamicObject> = match object.metadata.namespace.as_deref() {
        Some(namespace) => Api::namespaced_with(cluster.client.clone(), namespace, &resource),
        None => Api::all_with(cluster.client.clone(), &resource),
    };
    let name = object.metadata.name.clone().unwrap_or_default();
    api.patch(
        &name,
        &PatchParams::apply("bench").force(),
        &Patch::Apply(&object),
    )
    .await
    .context(name)?;
    Ok(())
}

/// Starts our operator and waits for its accounts.
pub async fn start_ours(cluster: &BenchCluster) -> Result<Running> {
    let operator = cluster::start_ours(cluster).await?;
    cluster.until_accounts_ready().await?;
    Ok(Running::Ours(Box::new(operator)))
}

/// User name of our operator at the API server.
pub const OUR_USER: &str = "system:serviceaccount:security-group-operator:security-group-operator";
/// User name of the textbook operator at the API server.
pub const TEXTBOOK_USER: &str = "system:serviceaccount:bench:textbook";

const SERVICE_ACCOUNT: &str = "textbook";
const START_LIMIT: Duration = Duration::from_secs(60);
