//! The condition of Nodes that sets select: none without its flag, none without its right, and one write per change.

use std::sync::atomic::{AtomicUsize, Ordering};

use k8s_openapi::api::core::v1::{Node, NodeCondition};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::core::Status;
use security_group_operator::api::{
    NODE_CONDITION, NODE_MANAGER, RECONCILE_REQUESTED_ANNOTATION, SecurityGroupMembershipSet,
};
use security_group_operator::condition::find;
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::{Context, Error, Result};
use crate::support::eventually::eventually;
use crate::support::operator::{NAMESPACE, Operator, SERVICE_ACCOUNT};
use crate::{binaries, options};

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
- {id: sg-full, quota: 0}
instances:
- {id: i-a, securityGroupIds: [sg-base]}
- {id: i-b, securityGroupIds: [sg-base]}
- {id: i-c, securityGroupIds: [sg-base]}
";
const FLAG: &str = "--node-conditions";

/// A cluster with two Nodes of the pool and one beside it, each Ready by its kubelet.
struct Fixture {
    plane: ControlPlane,
    env: TestEnv,
    operator: Operator,
}

impl Fixture {
    /// Of its own: the requests of the operator are counted, and it gets a right that others must not have.
    async fn start(arguments: &[&str]) -> Result<Self> {
        let plane = ControlPlane::start().await?;
        let operator = Operator::start(&plane, options(arguments)).await?;
        let env = TestEnv::start_on(&plane, &binaries!(), INVENTORY).await?;
        let fixture = Self {
            plane,
            env,
            operator,
        };
        fixture.create_node("a", "i-a", "web").await?;
        fixture.create_node("b", "i-b", "web").await?;
        fixture.create_node("other", "i-c", "other").await?;
        Ok(fixture)
    }

    /// Ends the operator, and starts one with these arguments.
    async fn restart(&mut self, arguments: &[&str]) -> Result<()> {
        self.operator.stop().await?;
        self.operator = Operator::start(&self.plane, options(arguments)).await?;
        Ok(())
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.env.client.clone())
    }

    async fn create_node(&self, name: &str, instance: &str, pool: &str) -> Result<()> {
        let node = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": {"pool": pool}},
            "spec": {"providerID": format!("cn-hangzhou.{instance}")},
        }))?;
        self.nodes().create(&PostParams::default(), &node).await?;
        self.heartbeat(name).await
    }

    /// What a kubelet does every five minutes.
    async fn heartbeat(&self, name: &str) -> Result<()> {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let second = NEXT.fetch_add(1, Ordering::Relaxed) % 60;
        let now = format!("2026-01-02T03:04:{second:02}Z");
        let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": now});
        self.patch_conditions(name, json!([ready])).await
    }

    async fn patch_conditions(&self, name: &str, conditions: Value) -> Result<()> {
        let patch = json!({"status": {"conditions": conditions}});
        let params = PatchParams::default();
        self.nodes()
            .patch_status(name, &params, &Patch::Strategic(&patch))
            .await?;
        Ok(())
    }

    fn sets(&self) -> Api<SecurityGroupMembershipSet> {
        Api::namespaced(self.env.client.clone(), &self.env.name)
    }

    /// Applies a set that selects the Nodes of the pool.
    async fn select_pool(&self, set: &str, group: &str) -> Result<()> {
        let patch = json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet",
            "metadata": {"name": set},
            "spec": {
                "region": "cn-hangzhou", "securityGroupID": group,
                "accountRef": {"kind": "ClusterCloudAccount", "name": self.env.name},
                "nodeSelector": {"matchLabels": {"pool": "web"}},
            },
        });
        let params = PatchParams::apply("test").force();
        self.sets()
            .patch(set, &params, &Patch::Apply(&patch))
            .await?;
        Ok(())
    }

    async fn delete_set(&self, set: &str) -> Result<()> {
        self.sets().delete(set, &DeleteParams::default()).await?;
        Ok(())
    }

    async fn until_set(&self, set: &str, reason: &str) -> Result<()> {
        eventually(&format!("{set} says {reason}"), async || {
            let status = self.sets().get(set).await?.status.unwrap_or_default();
            Ok(find(&status.conditions, "Ready").is_some_and(|ready| ready.reason == reason))
        })
        .await
    }

    /// The operator's condition on a Node. The kubelet's must be there.
    async fn condition(&self, node: &str) -> Result<Option<NodeCondition>> {
        let status = self.nodes().get(node).await?.status.context("a status")?;
        let conditions = status.conditions.unwrap_or_default();
        assert!(
            conditions
                .iter()
                .any(|condition| condition.type_ == "Ready")
        );
        Ok(conditions
            .into_iter()
            .find(|condition| condition.type_ == NODE_CONDITION))
    }

    /// Returns the condition when it has this status.
    async fn until(&self, node: &str, status: &str) -> Result<NodeCondition> {
        let mut seen = None;
        let found = eventually(&format!("{node} says {status}"), async || {
            seen = self.condition(node).await?;
            Ok(seen.as_ref().is_some_and(|seen| seen.status == status))
        })
        .await;
        found.context(serde_json::to_string(&seen)?)?;
        seen.context("a condition")
    }

    async fn owns_only_its_condition(&self, node: &str) -> Result<()> {
        let fields = self.nodes().get(node).await?.metadata.managed_fields;
        let mut fields = fields.into_iter().flatten();
        let own = fields.find(|entry| entry.manager.as_deref() == Some(NODE_MANAGER));
        let own = serde_json::to_value(own.context("an entry")?.fields_v1)?;
        let keys = |path: &str| -> Vec<String> {
            let fields = own.pointer(path).and_then(Value::as_object);
            fields
                .into_iter()
                .flatten()
                .map(|(key, _)| key.clone())
                .collect()
        };
        assert_eq!(keys(""), ["f:status"]);
        assert_eq!(keys("/f:status"), ["f:conditions"]);
        let condition = format!("k:{}", json!({"type": NODE_CONDITION}));
        assert_eq!(keys("/f:status/f:conditions"), [condition]);
        Ok(())
    }

    async fn until_gone(&self, nodes: &[&str]) -> Result<()> {
        eventually("no condition is left", async || {
            for node in nodes {
                if self.condition(node).await?.is_some() {
                    return Ok(false);
                }
            }
            Ok(true)
        })
        .await
    }

    /// The names of the Nodes that the operator has written or tried to write, each with the answer.
    fn writes(&self) -> Result<Vec<(String, u16)>> {
        let events = self.plane.audit_events()?.into_iter();
        let of_nodes = events.filter(|event| event.resource == "nodes");
        let by_operator = of_nodes.filter(|event| event.user.ends_with(SERVICE_ACCOUNT));
        let writes = by_operator.filter(|event| {
            !["list", "watch"].contains(&&*event.verb) && !event.uri.contains("dryRun")
        });
        Ok(writes
            .map(|event| {
                assert_eq!((&*event.verb, &*event.subresource), ("patch", "status"));
                (event.name, event.code)
            })
            .collect())
    }

    /// Returns when so many writes are in the audit log, which has each after its answer. None more follows.
    async fn until_writes(&self, number: usize) -> Result<()> {
        eventually(&format!("{number} writes"), async || {
            Ok(self.writes()?.len() >= number)
        })
        .await?;
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        let writes = self.writes()?;
        assert_eq!(writes.len(), number, "{writes:?}");
        Ok(())
    }

    /// The right of the chart's value `operator.nodeConditions`.
    async fn grant(&self) -> Result<()> {
        const ROLE: &str = "security-group-operator-node-conditions";
        let roles: Api<ClusterRole> = Api::all(self.env.client.clone());
        let role = serde_json::from_value(json!({
            "metadata": {"name": ROLE},
            "rules": [{"apiGroups": [""], "resources": ["nodes/status"], "verbs": ["patch"]}],
        }))?;
        roles.create(&PostParams::default(), &role).await?;
        let bindings: Api<ClusterRoleBinding> = Api::all(self.env.client.clone());
        let binding = serde_json::from_value(json!({
            "metadata": {"name": ROLE},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": ROLE},
            "subjects": [{"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": NAMESPACE}],
        }))?;
        bindings.create(&PostParams::default(), &binding).await?;
        // The API server reads roles from a watch.
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        Ok(())
    }
}

#[tokio::test]
async fn condition_follows_the_sets_with_one_write_per_change() -> Result<()> {
    let mut fixture = Fixture::start(&[]).await?;
    fixture.grant().await?;
    // As the chart starts it.
    fixture.restart(&[FLAG, "--leader-elect"]).await?;
    fixture.until_writes(0).await?;
    fixture.select_pool("full", "sg-full").await?;
    fixture
        .until_set("full", "SecurityGroupInstanceLimitExceeded")
        .await?;
    for node in ["a", "b"] {
        let condition = fixture.until(node, "False").await?;
        eventually("it has the reason", async || {
            let condition = fixture.condition(node).await?.context("a condition")?;
            Ok(condition.reason.as_deref() == Some("SecurityGroupInstanceLimitExceeded"))
        })
        .await?;
        assert!(condition.last_transition_time.is_some());
    }
    let told = fixture.condition("a").await?.and_then(|told| told.message);
    let told = told.context("a message")?;
    let place = format!(
        "i-a is no member of sg-full by the set {}/full",
        fixture.env.name
    );
    assert!(
        told.starts_with(&place) && told.contains("kubectl describe sgm full-i-a-"),
        "{told}"
    );

    fixture.select_pool("full", "sg-web").await?;
    let joined = fixture.until("a", "True").await?;
    fixture.until("b", "True").await?;
    assert_eq!(joined.reason.as_deref(), Some("Joined"));
    let place = format!("member of sg-web by the set {}/full", fixture.env.name);
    assert_eq!(joined.message.as_deref(), Some(&*place));
    assert_eq!(fixture.condition("other").await?, None);
    fixture.owns_only_its_condition("a").await?;

    // Nothing changes: no write.
    let writes = fixture.writes()?.len();
    fixture.until_writes(writes).await?;
    for node in ["a", "b", "other"] {
        fixture.heartbeat(node).await?;
    }
    let annotation = json!({"metadata": {"annotations": {RECONCILE_REQUESTED_ANNOTATION: "now"}}});
    fixture
        .sets()
        .patch("full", &PatchParams::default(), &Patch::Merge(&annotation))
        .await?;
    eventually("the set has had its pass", async || {
        let status = fixture.sets().get("full").await?.status.unwrap_or_default();
        Ok(status.last_handled_reconcile_at.as_deref() == Some("now"))
    })
    .await?;
    fixture.until_writes(writes).await?;

    // Another actor's change is put back with one write.
    let forged = json!([{"type": NODE_CONDITION, "status": "Unknown"}]);
    fixture.patch_conditions("a", forged).await?;
    fixture.until("a", "True").await?;
    fixture.until_writes(writes + 1).await?;

    // The last set is deleted: one write per Node removes the condition.
    fixture.delete_set("full").await?;
    fixture.until_gone(&["a", "b"]).await?;
    fixture.until_writes(writes + 3).await?;
    let refused = fixture.writes()?.into_iter().find(|(_, code)| *code != 200);
    assert_eq!(refused, None);
    Ok(())
}

/// The flag is off, or the right is missing: no condition, and the sets go on.
#[tokio::test]
async fn without_flag_or_right_sets_work_and_nodes_stay_as_they_are() -> Result<()> {
    let mut fixture = Fixture::start(&[]).await?;
    fixture.select_pool("web", "sg-web").await?;
    fixture.until_set("web", "AllMembers").await?;
    fixture.until_writes(0).await?;
    fixture.until_gone(&["a", "b"]).await?;

    fixture.restart(&[FLAG]).await?;
    eventually("a write was refused", async || {
        Ok(!fixture.writes()?.is_empty())
    })
    .await?;
    // The set goes on.
    fixture.create_node("c", "i-c", "web").await?;
    eventually("i-c is a member", async || {
        fixture.env.is_member("i-c", "sg-web").await
    })
    .await?;
    fixture.until_set("web", "AllMembers").await?;
    // Two Nodes were tried, and none again before five minutes have passed.
    fixture.until_writes(2).await?;
    assert!(fixture.writes()?.iter().all(|(_, code)| *code == 403));
    let log = std::fs::read_to_string(fixture.operator.log())?;
    let told = log.matches("may not patch nodes/status").count();
    assert_eq!(told, 1, "{log}");
    assert!(log.contains("operator.nodeConditions=true"), "{log}");
    fixture.until_gone(&["a", "b", "c"]).await?;

    let check = async || {
        let mut command = tokio::process::Command::new(binaries!().operator);
        let kubeconfig = fixture
            .plane
            .kubeconfig_for_service_account(NAMESPACE, SERVICE_ACCOUNT);
        command
            .args([FLAG, "check"])
            .env("KUBECONFIG", kubeconfig.await?);
        let output = command.output().await?;
        Ok::<_, Error>((output.status.success(), String::from_utf8(output.stderr)?))
    };
    let (worked, said) = check().await?;
    assert!(
        !worked && said.contains("the verb patch on nodes/status"),
        "{said}"
    );

    // With the right, what was missed is written. What is there stays while no operator runs, and goes when it is not wanted any more.
    fixture.grant().await?;
    let (worked, said) = check().await?;
    assert!(worked, "{said}");
    fixture.restart(&[FLAG]).await?;
    for node in ["a", "b", "c"] {
        fixture.until(node, "True").await?;
    }
    fixture.until_writes(5).await?;
    fixture.operator.stop().await?;
    assert!(fixture.condition("a").await?.is_some());
    fixture.delete_set("web").await?;
    fixture.operator.restart().await?;
    fixture.until_gone(&["a", "b", "c"]).await?;
    fixture.until_writes(8).await
}

/// What the operator relies on: the API server writes no status to another Node of the same name.
#[tokio::test]
async fn status_of_another_node_of_the_name_is_not_written() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let nodes: Api<Node> = Api::all(plane.admin_client().await?);
    let node = serde_json::from_value(json!({"metadata": {"generateName": "replaced-"}}))?;
    let node = nodes.create(&PostParams::default(), &node).await?;
    let name = node.metadata.name.context("a name")?;
    let condition = json!([{"type": NODE_CONDITION, "status": "True"}]);
    let patch = json!({"metadata": {"uid": "of-another"}, "status": {"conditions": condition}});
    let answer = nodes
        .patch_status(&name, &PatchParams::default(), &Patch::Strategic(&patch))
        .await;
    let names_uid = |status: &Status| status.code == 422 && status.message.contains("metadata.uid");
    let refused = matches!(&answer, Err(kube::Error::Api(status)) if names_uid(status));
    assert!(refused, "{answer:?}");
    nodes.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}
