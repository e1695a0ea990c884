//! The cluster, with the person's own kubeconfig and rights. Reads, but for what a verb says it writes.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::{Api, Resource, ResourceExt};
use serde::de::DeserializeOwned;

use crate::account::as_user::AnyAccount;
use crate::account::key::AccountKey;
use crate::api::membership::AccountKind;
use crate::api::{
    CloudAccount, ClusterCloudAccount, SecurityGroupMembership, SecurityGroupMembershipSet,
};
use crate::kubernetes::{error_chain, proxy, with_deadline};
use crate::nodes::{Node, Nodes};

use super::failure::{Failure, Request, exit};
use super::output::note;

/// Which cluster, and as whom: as kubectl's own flags.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ClusterArguments {
    /// Namespace of the objects. Default: that of the context.
    #[arg(short = 'n', long, global = true, value_name = "NS")]
    pub namespace: Option<String>,
    /// Objects of all namespaces.
    #[arg(short = 'A', long, global = true, conflicts_with = "namespace")]
    pub all_namespaces: bool,
    /// Context of the kubeconfig. Default: the current one.
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Kubeconfig file. Default: KUBECONFIG, then ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// User to act as, if you may impersonate.
    #[arg(long = "as", global = true, value_name = "USER")]
    pub impersonate: Option<String>,
}

/// The cluster of a person.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: kube::Client,
    /// The namespace that the person is in.
    pub namespace: String,
    /// Whether the person wants one namespace only.
    is_one_namespace: bool,
}

impl Cluster {
    /// Reads the kubeconfig. Makes no call.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub async fn connect(arguments: &ClusterArguments) -> Result<Self, Failure> {
        let options = KubeConfigOptions {
            context: arguments.context.clone(),
            ..KubeConfigOptions::default()
        };
        let read = match &arguments.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        };
        let mut config = match read {
            Ok(read) => {
                let context = arguments.context.as_deref();
                let found = kube::Config::from_custom_kubeconfig(read.clone(), &options).await;
                match found {
                    Ok(mut config) => {
                        // Not kube's own choice, which compares NO_PROXY with the proxy's name (kube 5.0.0).
                        config.proxy_url = proxy::of(Some(read), context, &config.cluster_url);
                        config
                    }
                    Err(error) => in_pod(&error, arguments)?,
                }
            }
            Err(error) => in_pod(&error, arguments)?,
        };
        config.connect_timeout = Some(Duration::from_secs(10));
        if let Some(user) = &arguments.impersonate {
            config.auth_info.impersonate = Some(user.clone());
        }
        let namespace = arguments.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        // Runs the kubeconfig's credential plugin, and waits for its end.
        let client = tokio::task::spawn_blocking(|| kube::Client::try_from(config)).await;
        let client = client
            .map_err(|error| Failure::new(error.to_string()))?
            .map_err(|error| Failure::new(format!("kubeconfig: {}", error_chain(&error))))?;
        Ok(Self {
            client,
            namespace,
            is_one_namespace: arguments.namespace.is_some(),
        })
    }

    /// A membership by name, in the namespace that the person is in.
    ///
    /// # Errors
    /// There is none, a right is missing, or the API server does not answer.
    pub async fn membership(&self, name: &str) -> Result<SecurityGroupMembership, Failure> {
        self.get(name).await
    }

    /// A set by name, in the namespace that the person is in.
    ///
    /// # Errors
    /// There is none, a right is missing, or the API server does not answer.
    pub async fn set(&self, name: &str) -> Result<SecurityGroupMembershipSet, Failure> {
        self.get(name).await
    }

    async fn get<K: Namespaced>(&self, name: &str) -> Result<K, Failure> {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = with_deadline(api.get(name)).await;
        found.map_err(|error| K::request("get", &self.namespace, name).failed(&error))
    }

    /// The memberships with these values of their selectable fields, of the one namespace that the person asks for, or else of all.
    ///
    /// # Errors
    /// A right is missing, or the API server does not answer.
    pub async fn memberships(&self, fields: &str) -> Result<Vec<SecurityGroupMembership>, Failure> {
        if self.is_one_namespace {
            return self.list(&self.namespace, fields).await;
        }
        self.everywhere(fields).await
    }

    /// The memberships of all namespaces. Who may not list the cluster's gets a note, and those of the own namespace.
    ///
    /// # Errors
    /// A right is missing, or the API server does not answer.
    pub async fn everywhere(&self, fields: &str) -> Result<Vec<SecurityGroupMembership>, Failure> {
        let own = BTreeSet::from([self.namespace.as_str()]);
        self.everywhere_or_in(&own, fields).await
    }

    /// The memberships of all namespaces. Who may not list the cluster's gets a note, and those of these namespaces.
    ///
    /// # Errors
    /// A right is missing, or the API server does not answer.
    pub async fn everywhere_or_in(
        &self,
        namespaces: &BTreeSet<&str>,
        fields: &str,
    ) -> Result<Vec<SecurityGroupMembership>, Failure> {
        match self.list("", fields).await {
            Err(failure) if failure.code == exit::NO_RIGHT => {
                let mut found = Vec::new();
                for namespace in namespaces {
                    found.extend(self.list(namespace, fields).await?);
                }
                let names: Vec<&str> = namespaces.iter().copied().collect();
                note(&format!(
                    "only the objects of namespace {} are known: you may not list {MEMBERSHIPS} in the cluster",
                    names.join(" and ")
                ));
                Ok(found)
            }
            listed => listed,
        }
    }

    /// The memberships of one namespace; of all where it is empty.
    ///
    /// # Errors
    /// A right is missing, or the API server does not answer.
    pub async fn list(
        &self,
        namespace: &str,
        fields: &str,
    ) -> Result<Vec<SecurityGroupMembership>, Failure> {
        let api = self.api(namespace);
        pages(&api, MEMBERSHIPS, namespace, fields).await
    }

    /// The sets of one namespace; of all where it is empty.
    ///
    /// # Errors
    /// A right is missing, or the API server does not answer.
    pub async fn sets(&self, namespace: &str) -> Result<Vec<SecurityGroupMembershipSet>, Failure> {
        pages(&self.api(namespace), SETS, namespace, "").await
    }

    /// The Nodes of the cluster, as the operator looks at them.
    ///
    /// # Errors
    /// A right is missing, or the API server does not answer.
    pub async fn nodes(&self) -> Result<Nodes, Failure> {
        let listed: Vec<Node> = pages(&Api::all(self.client.clone()), "nodes", "", "").await?;
        let nodes = Nodes::default();
        for node in listed {
            nodes.take(watcher::Event::InitApply(node));
        }
        nodes.take(watcher::Event::InitDone);
        Ok(nodes)
    }

    fn api<K: Namespaced>(&self, namespace: &str) -> Api<K> {
        if namespace.is_empty() {
            Api::all(self.client.clone())
        } else {
            Api::namespaced(self.client.clone(), namespace)
        }
    }

    /// An account object.
    ///
    /// # Errors
    /// There is none, a right is missing, or the API server does not answer.
    pub async fn account(&self, key: &AccountKey) -> Result<AnyAccount, Failure> {
        let resource = match key.kind {
            AccountKind::CloudAccount => "cloudaccounts",
            AccountKind::ClusterCloudAccount => "clustercloudaccounts",
        };
        let request = Request {
            verb: "get",
            resource,
            namespace: &key.namespace,
            name: &key.name,
        };
        match key.kind {
            AccountKind::CloudAccount => {
                let api: Api<CloudAccount> = Api::namespaced(self.client.clone(), &key.namespace);
                let found = with_deadline(api.get(&key.name)).await;
                found.map(AnyAccount::Namespaced)
            }
            AccountKind::ClusterCloudAccount => {
                let api: Api<ClusterCloudAccount> = Api::all(self.client.clone());
                let found = with_deadline(api.get(&key.name)).await;
                found.map(AnyAccount::Cluster)
            }
        }
        .map_err(|error| request.failed(&error))
    }
}

/// The resource of memberships.
const MEMBERSHIPS: &str = "securitygroupmemberships";
/// The resource of sets.
const SETS: &str = "securitygroupmembershipsets";

/// A kind of objects in namespaces.
pub trait Namespaced:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()>
    + Clone
    + Debug
    + DeserializeOwned
    + Send
    + Sync
{
    /// The resource, in the plural.
    const RESOURCE: &'static str;

    /// A request for an object of this kind.
    fn request<'a>(verb: &'a str, namespace: &'a str, name: &'a str) -> Request<'a> {
        Request {
            verb,
            resource: Self::RESOURCE,
            namespace,
            name,
        }
    }
}

impl Namespaced for SecurityGroupMembership {
    const RESOURCE: &'static str = MEMBERSHIPS;
}

impl Namespaced for SecurityGroupMembershipSet {
    const RESOURCE: &'static str = SETS;
}

/// All objects of a list, 500 a call.
async fn pages<K: Clone + Debug + DeserializeOwned>(
    api: &Api<K>,
    resource: &str,
    namespace: &str,
    fields: &str,
) -> Result<Vec<K>, Failure> {
    let mut page = ListParams::default().limit(500);
    if !fields.is_empty() {
        page = page.fields(fields);
    }
    let mut found = Vec::new();
    loop {
        let list = with_deadline(api.list(&page)).await.map_err(|error| {
            let request = Request {
                verb: "list",
                resource,
                namespace,
                name: "",
            };
            request.failed(&error)
        })?;
        found.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(found),
        }
    }
}

/// Namespace and name of an object.
#[must_use]
pub fn full_name(object: &impl ResourceExt) -> String {
    format!(
        "{}/{}",
        object.namespace().unwrap_or_default(),
        object.name_any()
    )
}

/// Without a kubeconfig: the pod's own service account. One that cannot be used is an error, as for kubectl: the person means another cluster.
fn in_pod(error: &KubeconfigError, arguments: &ClusterArguments) -> Result<kube::Config, Failure> {
    let is_chosen = arguments.kubeconfig.is_some() || arguments.context.is_some();
    if !is_chosen
        && is_missing(error)
        && let Ok(config) = kube::Config::incluster()
    {
        return Ok(config);
    }
    let cause = match error {
        KubeconfigError::ReadConfig(cause, file) => format!("{}: {cause}", file.display()),
        other => error_chain(other),
    };
    Err(Failure::new(format!(
        "no cluster: {cause}; name a kubeconfig with --kubeconfig or KUBECONFIG, and a context of it with --context"
    )))
}

/// Whether there is no kubeconfig, or one that chooses no context.
fn is_missing(error: &KubeconfigError) -> bool {
    match error {
        KubeconfigError::FindPath | KubeconfigError::CurrentContextNotSet => true,
        KubeconfigError::ReadConfig(cause, _) => cause.kind() == std::io::ErrorKind::NotFound,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod of a CI has a service account of its own cluster, and a kubeconfig of another one.
    #[tokio::test]
    async fn kubeconfig_that_cannot_be_used_is_no_missing_one() {
        let none = Kubeconfig::read_from("no/such/kubeconfig").unwrap_err();
        assert!(is_missing(&none));
        let directory = Kubeconfig::read_from(".").unwrap_err();
        assert!(!is_missing(&directory), "{directory}");
        assert!(!is_missing(
            &Kubeconfig::from_yaml("clusters: [").unwrap_err()
        ));
        for (config, expected) in [("{}", true), ("current-context: prod", false)] {
            let config = Kubeconfig::from_yaml(config).unwrap();
            let options = KubeConfigOptions::default();
            let read = kube::Config::from_custom_kubeconfig(config, &options).await;
            assert_eq!(is_missing(&read.unwrap_err()), expected);
        }
    }
}
