//! The cluster of a candidate: a fresh control plane with the CRDs and roles of `deploy/`, a fresh cloud, one namespace and
//! the accounts granted to it. Knows nothing of scenarios.

use std::path::Path;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use security_group_operator::api::{ClusterCloudAccount, SecurityGroupMembership};
use serde_json::json;

use crate::arguments::Arguments;
use crate::binaries;
use crate::support::control_plane::ControlPlane;
use crate::support::error::{Context, Result};
use crate::support::operator::{self, Operator};
use crate::support::simulator::SimulatorProcess;

/// Namespace of the memberships.
pub const NAMESPACE: &str = "bench";
/// Namespace of a membership beside them.
pub const OTHER_NAMESPACE: &str = "beside";
/// Security groups of the cloud, beside `sg-base`.
pub const GROUPS: u32 = 100;
/// Instances beyond N, for objects that are created later.
pub const SPARE: u32 = 200;

/// An access key, and the name of its account.
#[derive(Clone, Copy)]
pub struct Key {
    pub account: &'static str,
    pub id: &'static str,
    pub secret: &'static str,
}

/// The account that memberships name unless a scenario says otherwise.
pub const KEY: Key = Key {
    account: "default",
    id: "benchid",
    secret: "benchsecret",
};
/// An account whose key a scenario revokes.
pub const OTHER_KEY: Key = Key {
    account: "other",
    id: "otherid",
    secret: "othersecret",
};

/// A running control plane and cloud.
pub struct BenchCluster {
    pub plane: ControlPlane,
    pub simulator: SimulatorProcess,
    pub client: Client,
    operator_arguments: Vec<String>,
}

impl BenchCluster {
    /// A cloud of N instances and some spare ones; `more` are further arguments of the simulator.
    pub async fn start(arguments: &Arguments, more: &[String]) -> Result<Self> {
        let plane = ControlPlane::start().await?;
        operator::install(
            &plane,
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy"),
        )
        .await?;
        let mut options = vec![
            format!("--instances={}", arguments.n + SPARE),
            format!("--security-groups={GROUPS}"),
            format!(
                "--latency={}",
                humantime::format_duration(arguments.latency)
            ),
            format!("--seed={}", arguments.seed),
        ];
        options
            .extend([KEY, OTHER_KEY].map(|key| format!("--access-key={}={}", key.id, key.secret)));
        options.extend_from_slice(more);
        let simulator = SimulatorProcess::start(&binaries!().simulator, &options).await?;
        let client = plane.admin_client().await?;
        let cluster = Self {
            plane,
            simulator,
            client,
            operator_arguments: arguments.operator.clone(),
        };
        for name in [NAMESPACE, OTHER_NAMESPACE] {
            cluster.apply_namespace(name).await?;
        }
        for key in [KEY, OTHER_KEY] {
            cluster.apply_account(key).await?;
        }
        Ok(cluster)
    }

    /// The memberships.
    pub fn memberships(&self) -> Api<SecurityGroupMembership> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// Returns when our operator has found all accounts usable.
    pub async fn until_accounts_ready(&self) -> Result<()> {
        let accounts: Api<ClusterCloudAccount> = Api::all(self.client.clone());
        crate::support::eventually::eventually("the accounts are Ready", async || {
            let list = accounts.list(&kube::api::ListParams::default()).await?;
            Ok(list.items.iter().all(|account| {
                account.status.as_ref().is_some_and(|status| {
                    status
                        .conditions
                        .iter()
                        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
                })
            }))
        })
        .await
    }

    async fn apply_namespace(&self, name: &str) -> Result<()> {
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let patch = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        namespaces
            .patch(name, &by_us(), &Patch::Apply(&patch))
            .await
            .context("the namespace")?;
        Ok(())
    }

    /// Gives the account this access key, whichever account it was made for.
    pub async fn write_secret(&self, account: &str, key: Key) -> Result<()> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), operator::NAMESPACE);
        let patch = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": account},
            "stringData": {"accessKeyID": key.id, "accessKeySecret": key.secret},
        });
        secrets
            .patch(account, &by_us(), &Patch::Apply(&patch))
            .await
            .context("the Secret")?;
        Ok(())
    }

    async fn apply_account(&self, key: Key) -> Result<()> {
        self.write_secret(key.account, key).await?;
        let accounts: Api<ClusterCloudAccount> = Api::all(self.client.clone());
        let endpoint = self.simulator.endpoint();
        let patch = json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "ClusterCloudAccount",
            "metadata": {"name": key.account},
            "spec": {
                "credentials": {"secretRef": {"name": key.account}},
                "endpoints": {"ecs": endpoint, "sts": endpoint},
                "grants": [{"name": "all", "namespaces": {"names": [NAMESPACE, OTHER_NAMESPACE]}, "securityGroups": {"ids": ["*"]}}],
            },
        });
        accounts
            .patch(key.account, &by_us(), &Patch::Apply(&patch))
            .await
            .context("the account")?;
        Ok(())
    }
}

fn by_us() -> PatchParams {
    PatchParams::apply("bench").force()
}

/// Starts our operator with its default configuration and log.
pub async fn start_ours(cluster: &BenchCluster) -> Result<Operator> {
    start(cluster, Vec::new()).await
}

/// Starts our operator with leader election, as `deploy/` does.
pub async fn start_elected(cluster: &BenchCluster) -> Result<Operator> {
    start(cluster, vec!["--leader-elect".to_owned()]).await
}

async fn start(cluster: &BenchCluster, mut arguments: Vec<String>) -> Result<Operator> {
    arguments.extend_from_slice(&cluster.operator_arguments);
    let options = operator::Options {
        binary: binaries!().operator,
        arguments,
        environment: Vec::new(),
    };
    Operator::start(&cluster.plane, options).await
}
