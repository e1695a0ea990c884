//! What a user does with the operator of the cluster, and what the cluster and the cloud then hold.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use security_group_operator::api::membership::Origin;
use security_group_operator::api::{
    ClusterCloudAccount, SecurityGroupMembership, SecurityGroupMembershipSet,
};
use security_group_operator::condition::is_true;
use security_group_operator::ecs::credential::AUDIENCE;
use security_group_operator::kubernetes::lease;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::support::error::{Context as _, Error, Result};
use crate::support::eventually::eventually;
use crate::support::operator::NAMESPACE;

/// The name of the release's Deployment and service account, too.
const NAME: &str = NAMESPACE;
/// A group of examples/inventory.yaml.
const GROUP: &str = "sg-demoweb";
/// The simulated cloud as pods reach it.
const ENDPOINT: &str = "http://10.99.0.2:18080";
/// Where pods have the token of their service account.
pub const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const ISSUER: &str = "https://kubernetes.default.svc";

/// The operator in its namespace, and memberships in `default`.
pub struct Operator<'a> {
    pub cluster: &'a Cluster,
}

impl<'a> Operator<'a> {
    pub fn new(cluster: &'a Cluster) -> Self {
        Self { cluster }
    }

    // --- its pods

    fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.cluster.client.clone(), NAMESPACE)
    }

    fn deployments(&self) -> Api<Deployment> {
        Api::namespaced(self.cluster.client.clone(), NAMESPACE)
    }

    async fn all_pods(&self) -> Result<Vec<Pod>> {
        let ours = ListParams::default().labels(&format!("app.kubernetes.io/name={NAME}"));
        Ok(self.pods().list(&ours).await?.items)
    }

    pub async fn only_pod(&self) -> Result<Pod> {
        let mut pods = self.all_pods().await?;
        assert_eq!(pods.len(), 1, "{pods:?}");
        pods.pop().context("a pod")
    }

    /// What the API server says of a privileged pod beside it, which is not stored.
    pub async fn try_privileged_pod(&self) -> Result<String> {
        let pod = serde_json::from_value(json!({
            "metadata": {"name": "privileged"},
            "spec": {"containers": [{"name": "any", "image": "any", "securityContext": {"privileged": true}}]},
        }))?;
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        let answer = self.pods().create(&dry_run, &pod).await;
        Ok(answer.map_or_else(|error| error.to_string(), |_| "accepted".to_owned()))
    }

    pub async fn scale(&self, replicas: i32) -> Result<()> {
        self.patch_deployment(json!({"replicas": replicas})).await?;
        self.until_available(replicas).await
    }

    /// As `kubectl rollout restart` does.
    pub async fn restart(&self) -> Result<()> {
        let annotations = json!({"kubectl.kubernetes.io/restartedAt": "now"});
        self.patch_deployment(json!({"template": {"metadata": {"annotations": annotations}}}))
            .await
    }

    /// A token of the pod's own service account for ten minutes, the shortest that the API server grants.
    pub async fn shorten_tokens(&self) -> Result<()> {
        let token = json!({"serviceAccountToken": {"path": "token", "expirationSeconds": 600}});
        let authority = json!({"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}});
        let field = json!({"apiVersion": "v1", "fieldPath": "metadata.namespace"});
        let namespace =
            json!({"downwardAPI": {"items": [{"path": "namespace", "fieldRef": field}]}});
        let mount = json!({"name": "token", "mountPath": TOKEN_FOLDER, "readOnly": true});
        let patch = Patch::Strategic(json!({"spec": {"template": {"spec": {
            "containers": [{"name": "operator", "volumeMounts": [mount]}],
            "volumes": [{"name": "token", "projected": {"sources": [token, authority, namespace]}}],
        }}}}));
        let old = self.only_pod().await?;
        let by_us = PatchParams::default();
        self.deployments().patch(NAME, &by_us, &patch).await?;
        self.until_gone(&old).await
    }

    async fn patch_deployment(&self, spec: Value) -> Result<()> {
        let patch = Patch::Merge(json!({"spec": spec}));
        let by_us = PatchParams::default();
        self.deployments().patch(NAME, &by_us, &patch).await?;
        Ok(())
    }

    pub async fn delete(&self, pod: &Pod) -> Result<()> {
        let now = DeleteParams::default();
        self.pods().delete(&pod.name_any(), &now).await?;
        Ok(())
    }

    /// Waits until so many pods are available, and each of them says so itself: the kubelet may not have asked it for some seconds.
    pub async fn until_available(&self, replicas: i32) -> Result<()> {
        eventually(&format!("{replicas} pods are available"), async || {
            let deployment = self.deployments().get(NAME).await?;
            let status = deployment.status.unwrap_or_default();
            let mut available = status.available_replicas == Some(replicas)
                && status.observed_generation == deployment.metadata.generation;
            for pod in self.all_pods().await? {
                available &= self.is_ready(&pod).await?;
            }
            Ok(available)
        })
        .await
    }

    /// What the pod answers at /readyz, through the API server.
    async fn is_ready(&self, pod: &Pod) -> Result<bool> {
        let name = pod.name_any();
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:8080/proxy/readyz");
        let request = http::Request::get(path).body(Vec::new())?;
        Ok(self.cluster.client.request_text(request).await.is_ok())
    }

    pub async fn until_gone(&self, pod: &Pod) -> Result<()> {
        eventually(&format!("{} is gone", pod.name_any()), async || {
            Ok(self.pods().get_opt(&pod.name_any()).await?.is_none())
        })
        .await
    }

    /// Waits until the kubelet has started the pod's container once more, and says for this reason that the last one ended.
    pub async fn until_restarted(&self, pod: &Pod, reason: &str) -> Result<()> {
        let before = restarts(pod);
        eventually(
            &format!("{} is restarted: {reason}", pod.name_any()),
            async || {
                let pod = self.pods().get(&pod.name_any()).await?;
                let container = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.container_statuses.as_ref()?.first());
                let ended = container
                    .and_then(|container| container.last_state.as_ref()?.terminated.as_ref());
                Ok(restarts(&pod) > before
                    && ended.is_some_and(|ended| ended.reason.as_deref() == Some(reason)))
            },
        )
        .await
    }

    /// What the API server says to a client with this token.
    pub async fn try_token(&self, token: &str) -> Result<String> {
        let mut config = self.cluster.config.clone();
        config.auth_info = kube::config::AuthInfo {
            token: Some(token.to_owned().into()),
            ..kube::config::AuthInfo::default()
        };
        let pods: Api<Pod> = Api::namespaced(Client::try_from(config)?, NAMESPACE);
        let answer = pods.list(&ListParams::default()).await;
        Ok(answer.map_or_else(|error| error.to_string(), |_| "accepted".to_owned()))
    }

    // --- who leads

    async fn holder(&self) -> Result<String> {
        let leases: Api<Lease> = Api::namespaced(self.cluster.client.clone(), NAMESPACE);
        let spec = leases.get(lease::NAME).await?.spec.unwrap_or_default();
        Ok(spec.holder_identity.unwrap_or_default())
    }

    /// The pod that leads.
    pub async fn leader(&self) -> Result<Pod> {
        let holder = self.holder().await?;
        let (pod, _) = holder.rsplit_once('_').context(holder.clone())?;
        self.pods().get(pod).await.context(pod)
    }

    pub async fn until_leader_is_not(&self, pod: &Pod) -> Result<()> {
        let prefix = format!("{}_", pod.name_any());
        eventually(&format!("not {} leads", pod.name_any()), async || {
            let holder = self.holder().await?;
            Ok(!holder.is_empty() && !holder.starts_with(&prefix))
        })
        .await
    }

    // --- accounts

    /// A key of the simulated cloud.
    pub async fn key(&self) -> Result<Value> {
        let data =
            json!({"stringData": {"accessKeyID": "testid", "accessKeySecret": "testsecret"}});
        self.apply::<Secret>("key", data).await?;
        Ok(json!({"secretRef": {"name": "key"}}))
    }

    /// Lets tokens of a service account beside the operator assume a role, as docs/user/accounts.md says.
    pub async fn trust_service_account(&self, name: &str) -> Result<Value> {
        let request = http::Request::get("/openid/v1/jwks").body(Vec::new())?;
        let keys: Value = self.cluster.client.request(request).await?;
        let provider = json!({"name": "cluster", "issuer": ISSUER, "keys": keys});
        let arn = |what: &str| format!("acs:ram::{ACCOUNT}:{what}");
        let condition = json!({"StringEquals": {"oidc:iss": ISSUER, "oidc:aud": AUDIENCE,
            "oidc:sub": format!("system:serviceaccount:{NAMESPACE}:{name}")}});
        let statement = json!({"Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": {"Federated": [arn("oidc-provider/cluster")]}, "Condition": condition});
        let role =
            json!({"name": "web", "trustPolicy": {"Version": "1", "Statement": [statement]}});
        let changes = json!([{"addOidcProvider": provider}, {"addRole": role}]);
        self.cluster.tell_cloud("/change", &changes).await?;
        self.apply::<ServiceAccount>(name, json!({})).await?;
        let rules = json!([{"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": [name], "verbs": ["create"]}]);
        self.apply::<Role>(name, json!({"rules": rules})).await?;
        let binding = json!({
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}]});
        self.apply::<RoleBinding>(name, binding).await?;
        Ok(
            json!({"oidc": {"roleARN": arn("role/web"), "oidcProviderARN": arn("oidc-provider/cluster"), "serviceAccountName": name}}),
        )
    }

    /// An account that memberships in `default` may use.
    pub async fn account(&self, name: &str, credentials: &Value) -> Result<()> {
        let accounts: Api<ClusterCloudAccount> = Api::all(self.cluster.client.clone());
        let account = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "credentials": credentials,
                "endpoints": {"ecs": ENDPOINT, "sts": ENDPOINT, "allowInsecure": true},
                "grants": [{"name": "all", "namespaces": {"names": ["default"]}, "securityGroups": {"ids": ["*"]}}],
            },
        }))?;
        accounts.create(&PostParams::default(), &account).await?;
        Ok(())
    }

    /// Applies an object into the operator's namespace.
    async fn apply<K>(&self, name: &str, mut object: Value) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.cluster.client.clone(), NAMESPACE);
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(K::kind(&()));
        object["metadata"] = json!({"name": name});
        let by_us = PatchParams::apply("test").force();
        api.patch(name, &by_us, &Patch::Apply(&object)).await?;
        Ok(())
    }

    // --- sets

    fn sets(&self) -> Api<SecurityGroupMembershipSet> {
        Api::namespaced(self.cluster.client.clone(), "default")
    }

    /// Creates a Node of a new instance. No kubelet serves it, and no pod is for it.
    pub async fn create_node(&self, name: &str) -> Result<()> {
        let instance = self.create_instance(name).await?;
        let node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"pool": "web"}},
            "spec": {"providerID": format!("cn-hangzhou.{instance}"), "unschedulable": true},
        }))?;
        let nodes: Api<Node> = Api::all(self.cluster.client.clone());
        nodes.create(&PostParams::default(), &node).await?;
        Ok(())
    }

    /// Creates a set of the Nodes of [`Self::create_node`], with the account `key`.
    pub async fn create_set(&self, name: &str) -> Result<()> {
        let set = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"region": "cn-hangzhou", "nodeSelector": {"matchLabels": {"pool": "web"}}, "securityGroupID": GROUP, "accountRef": {"name": "key"}},
        }))?;
        self.sets().create(&PostParams::default(), &set).await?;
        Ok(())
    }

    /// Waits until a set is Ready with so many members.
    pub async fn until_set_has(&self, name: &str, members: i64) -> Result<()> {
        let what = format!("{name} has {members} members");
        let ready = eventually(&what, async || {
            let set = self.sets().get(name).await?;
            let status = set.status.unwrap_or_default();
            let is_ready = is_true(&status.conditions, "Ready");
            Ok(is_ready && status.ready_targets == Some(members))
        });
        let Err(error) = ready.await else {
            return Ok(());
        };
        let seen = self.sets().get(name).await?;
        Err(error).context(serde_json::to_string_pretty(&seen)?)
    }

    // --- memberships

    fn memberships(&self) -> Api<SecurityGroupMembership> {
        Api::namespaced(self.cluster.client.clone(), "default")
    }

    /// Creates a membership of a new instance, with the account `key`.
    pub async fn create(&self, name: &str) -> Result<()> {
        self.create_with(name, "key").await
    }

    pub async fn create_with(&self, name: &str, account: &str) -> Result<()> {
        let instance = self.create_instance(name).await?;
        let membership = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"region": "cn-hangzhou", "instanceID": instance, "securityGroupID": GROUP, "accountRef": {"name": account}},
        }))?;
        self.memberships()
            .create(&PostParams::default(), &membership)
            .await?;
        Ok(())
    }

    async fn create_instance(&self, name: &str) -> Result<String> {
        let instance = format!("i-{name}");
        let new = json!({"createInstance": {"id": instance, "status": "Running", "securityGroupIds": ["sg-base"]}});
        self.cluster.tell_cloud("/change", &new).await?;
        Ok(instance)
    }

    pub async fn until_ready(&self, name: &str) -> Result<()> {
        let what = format!("{name} is Ready");
        let ready = eventually(&what, async || {
            let status = self.memberships().get(name).await?.status;
            Ok(status.is_some_and(|status| is_true(&status.conditions, "Ready")))
        });
        let Err(error) = ready.await else {
            return Ok(());
        };
        let seen = self.memberships().get(name).await?;
        Err(error).context(serde_json::to_string_pretty(&seen)?)
    }

    /// Every membership becomes Ready and is the operator's own; each was joined once, and none was left.
    pub async fn all_are_joined(&self) -> Result<()> {
        let objects = self.memberships().list(&ListParams::default()).await?.items;
        for object in &objects {
            self.until_ready(&object.name_any()).await?;
        }
        let objects = self.memberships().list(&ListParams::default()).await?.items;
        let mut targets = Vec::new();
        for object in &objects {
            let origin = object.status.as_ref().and_then(|status| status.origin);
            assert_eq!(
                origin,
                Some(Origin::Joined),
                "{}: {:?}",
                object.name_any(),
                object.status
            );
            targets.extend(object.spec.instance_id.clone());
        }
        targets.sort();
        assert_eq!(self.journal("JoinSecurityGroup").await?, targets);
        let none: [String; 0] = [];
        assert_eq!(self.journal("LeaveSecurityGroup").await?, none);
        Ok(())
    }

    /// The targets of every Join or Leave that had an effect, sorted.
    pub async fn journal(&self, action: &str) -> Result<Vec<String>> {
        let journal = self.cluster.cloud("/journal").await?;
        let entries = journal.as_array().context("the journal is a list")?;
        let ours = entries.iter().filter(|entry| entry["action"] == action);
        let targets = ours.filter_map(|entry| entry["target"].as_str());
        let mut targets: Vec<_> = targets.map(str::to_owned).collect();
        targets.sort();
        Ok(targets)
    }

    /// Waits until the call has begun for which the cloud has a fault.
    pub async fn until_no_fault_is_left(&self) -> Result<()> {
        eventually("the call has begun", async || {
            Ok(self.cluster.cloud("/stats").await?["faults"] == 0)
        })
        .await
    }

    /// Waits until the release has no pod, of the Deployment or of a hook.
    pub async fn until_no_pod_is_left(&self) -> Result<()> {
        eventually("no pod is left", async || {
            let all = self.pods().list(&ListParams::default()).await?;
            Ok(all.items.is_empty())
        })
        .await
    }

    /// That their CRD is still there, with no object.
    pub async fn has_no_membership(&self) -> Result<()> {
        let left = self.memberships().list(&ListParams::default()).await?;
        assert_eq!(left.items.len(), 0);
        Ok(())
    }

    /// Deletes every set and every membership, and waits until they are gone.
    pub async fn delete_all(&self) -> Result<()> {
        let all = (DeleteParams::default(), ListParams::default());
        self.sets().delete_collection(&all.0, &all.1).await?;
        self.memberships().delete_collection(&all.0, &all.1).await?;
        let gone = eventually("all memberships are gone", async || {
            Ok(self.memberships().list(&all.1).await?.items.is_empty())
        });
        let Err(error) = gone.await else {
            return Ok(());
        };
        let left = self.memberships().list(&all.1).await?.items;
        Err(Error::new(format!(
            "{error}: {}",
            serde_json::to_string_pretty(&left)?
        )))
    }
}

/// The account of the cloud that owns what names none.
const ACCOUNT: &str = "1000000000000001";

/// How often the kubelet has started the pod's container again.
pub fn restarts(pod: &Pod) -> i32 {
    let statuses = pod
        .status
        .as_ref()
        .and_then(|status| status.container_statuses.as_ref());
    statuses.map_or(0, |all| all.iter().map(|one| one.restart_count).sum())
}
