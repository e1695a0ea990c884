//! The right to list and watch Nodes: it is used only for sets that select Nodes, and only they need it.

use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use security_group_operator::api::SecurityGroupMembershipSet;
use security_group_operator::condition::{find, is_true};
use serde_json::{Value, json};

use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::operator::{Operator, SERVICE_ACCOUNT};
use crate::{binaries, options};

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-a, securityGroupIds: [sg-base]}
- {id: i-b, securityGroupIds: [sg-base]}
";
const ROLE: &str = "security-group-operator";

/// Takes the rules for Nodes out of the role of the operator. Returns the role as it was.
async fn take_right(env: &TestEnv) -> Result<ClusterRole> {
    let cluster_roles: Api<ClusterRole> = Api::all(env.client.clone());
    let role = cluster_roles.get(ROLE).await?;
    let mut without = role.clone();
    let rules = without.rules.as_mut().context("rules")?;
    let before = rules.len();
    rules.retain(|rule| {
        let resources = rule.resources.iter().flatten();
        resources.into_iter().all(|resource| resource != "nodes")
    });
    assert!(rules.len() < before, "the role has no rule for Nodes");
    cluster_roles
        .replace(ROLE, &PostParams::default(), &without)
        .await?;
    // The API server reads roles from a watch.
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(role)
}

async fn give_right(env: &TestEnv, role: &ClusterRole) -> Result<()> {
    let cluster_roles: Api<ClusterRole> = Api::all(env.client.clone());
    let rules = json!({"rules": role.rules});
    let params = PatchParams::default();
    cluster_roles
        .patch(ROLE, &params, &Patch::Merge(&rules))
        .await?;
    Ok(())
}

/// The verbs with which the operator has asked for Nodes, each with the answer.
fn requests(plane: &ControlPlane) -> Result<Vec<(String, u16)>> {
    let events = plane.audit_events()?.into_iter();
    let of_nodes = events.filter(|event| event.resource == "nodes");
    let by_operator = of_nodes.filter(|event| event.user.ends_with(SERVICE_ACCOUNT));
    Ok(by_operator.map(|event| (event.verb, event.code)).collect())
}

fn sets(env: &TestEnv) -> Api<SecurityGroupMembershipSet> {
    Api::namespaced(env.client.clone(), &env.name)
}

async fn apply(env: &TestEnv, name: &str, selector: (&str, Value)) -> Result<()> {
    let (field, value) = selector;
    let object = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet",
        "metadata": {"name": name},
        "spec": {
            "region": "cn-hangzhou", "securityGroupID": "sg-web", field: value,
            "accountRef": {"kind": "ClusterCloudAccount", "name": env.name},
        },
    });
    let params = PatchParams::apply("test").force();
    sets(env)
        .patch(name, &params, &Patch::Apply(&object))
        .await?;
    Ok(())
}

async fn until(env: &TestEnv, name: &str, reason: &str) -> Result<SecurityGroupMembershipSet> {
    eventually(&format!("{name} says {reason}"), async || {
        let status = sets(env).get(name).await?.status.unwrap_or_default();
        Ok(find(&status.conditions, "Ready").is_some_and(|ready| ready.reason == reason))
    })
    .await?;
    Ok(sets(env).get(name).await?)
}

#[tokio::test]
async fn nodes_are_read_for_sets_that_select_them_and_only_these_need_the_right() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let mut operator = Operator::start(&plane, options(&[])).await?;
    let env = TestEnv::start_on(&plane, &binaries!(), INVENTORY).await?;
    let nodes: Api<Node> = Api::all(env.client.clone());
    let node = serde_json::from_value(json!({
        "metadata": {"name": "a", "labels": {"pool": "web"}}, "spec": {"providerID": "cn-hangzhou.i-a"},
    }))?;
    nodes.create(&PostParams::default(), &node).await?;
    apply(&env, "ids", ("instanceIDs", json!(["i-b"]))).await?;
    until(&env, "ids", "AllMembers").await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(requests(&plane)?, []);

    let by_label = ("nodeSelector", json!({"matchLabels": {"pool": "web"}}));
    apply(&env, "nodes", by_label).await?;
    until(&env, "nodes", "AllMembers").await?;
    let lists = requests(&plane)?;
    let lists = lists.iter().filter(|(verb, _)| verb == "list").count();
    assert_eq!(lists, 1);
    // Without the right, after a restart.
    let role = take_right(&env).await?;
    operator.restart().await?;
    nodes.delete("a", &DeleteParams::default()).await?;
    let set = until(&env, "nodes", "NodesForbidden").await?;
    let status = set.status.unwrap_or_default();
    assert!(is_true(&status.conditions, "Stalled"));
    let ready = find(&status.conditions, "Ready").context("Ready")?;
    for words in [
        "nodes is forbidden",
        "grant its service account list and watch on nodes",
    ] {
        assert!(ready.message.contains(words), "{}", ready.message);
    }
    apply(&env, "ids", ("instanceIDs", json!(["i-a", "i-b"]))).await?;
    until(&env, "ids", "AllMembers").await?;
    assert!(env.is_member("i-a", "sg-web").await?);
    assert_eq!(env.effects("LeaveSecurityGroup").await?, 0);

    give_right(&env, &role).await?;
    nodes.create(&PostParams::default(), &node).await?;
    until(&env, "nodes", "AllMembers").await?;
    Ok(())
}
