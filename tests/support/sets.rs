//! A set from its creation to its end, with every right that the operator has for sets in use.

use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PropagationPolicy};
use kube::{Api, Client};
use security_group_operator::api::{
    SET_LABEL, SecurityGroupMembership, SecurityGroupMembershipSet,
};
use security_group_operator::condition::find;
use serde_json::{Value, json};

use super::error::Result;
use super::eventually::eventually;

/// Applies a set with this spec.
async fn apply(sets: &Api<SecurityGroupMembershipSet>, name: &str, spec: &Value) -> Result<()> {
    let patch = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet",
        "metadata": {"name": name}, "spec": spec,
    });
    let params = PatchParams::apply("test").force();
    sets.patch(name, &params, &Patch::Apply(&patch)).await?;
    Ok(())
}

async fn until(sets: &Api<SecurityGroupMembershipSet>, name: &str, reason: &str) -> Result<()> {
    eventually(&format!("the set {name} says {reason}"), async || {
        let set = sets.get(name).await?;
        let status = set.status.unwrap_or_default();
        let ready = find(&status.conditions, "Ready");
        Ok(ready.is_some_and(|ready| {
            ready.reason == reason && ready.observed_generation == set.metadata.generation
        }))
    })
    .await
}

/// A set of `i-web`: made, deleted, made again, orphaned, made again, with another target, deleted.
pub async fn exercise(client: &Client, namespace: &str, account: &Value) -> Result<()> {
    let sets: Api<SecurityGroupMembershipSet> = Api::namespaced(client.clone(), namespace);
    let spec = |ids: &[&str]| {
        json!({
            "region": "cn-hangzhou", "securityGroupID": "sg-web", "accountRef": account,
            "instanceIDs": ids,
        })
    };
    let delete = async |how: PropagationPolicy| -> Result<()> {
        let params = DeleteParams {
            propagation_policy: Some(how),
            ..DeleteParams::default()
        };
        sets.delete("exercise", &params).await?;
        eventually("the set is gone", async || {
            Ok(sets.get_opt("exercise").await?.is_none())
        })
        .await
    };
    let memberships: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), namespace);
    let of_the_set = ListParams::default().labels(&format!("{SET_LABEL}=exercise"));
    let until_gone = async || {
        eventually("its memberships are gone", async || {
            Ok(memberships.list(&of_the_set).await?.items.is_empty())
        })
        .await
    };
    // The garbage collector learns of a new kind within half a minute. Before that it makes no orphans.
    apply(&sets, "exercise", &spec(&["i-web"])).await?;
    until(&sets, "exercise", "AllMembers").await?;
    delete(PropagationPolicy::Background).await?;
    until_gone().await?;

    apply(&sets, "exercise", &spec(&["i-web"])).await?;
    until(&sets, "exercise", "AllMembers").await?;
    delete(PropagationPolicy::Orphan).await?;
    apply(&sets, "exercise", &spec(&["i-web"])).await?;
    until(&sets, "exercise", "AllMembers").await?;
    // The cloud does not list it, which keeps no set from Ready.
    apply(&sets, "exercise", &spec(&["i-nowhere"])).await?;
    until(&sets, "exercise", "AllMembers").await?;
    delete(PropagationPolicy::Background).await?;
    until_gone().await
}

/// A set that selects Nodes, of which there are none.
pub async fn select_nodes(client: &Client, namespace: &str, account: &Value) -> Result<()> {
    let sets: Api<SecurityGroupMembershipSet> = Api::namespaced(client.clone(), namespace);
    let spec = json!({
        "region": "cn-hangzhou", "securityGroupID": "sg-web", "accountRef": account,
        "nodeSelector": {"matchLabels": {"pool": "nowhere"}},
    });
    apply(&sets, "nodes", &spec).await?;
    until(&sets, "nodes", "NoTargets").await?;
    sets.delete("nodes", &DeleteParams::default()).await?;
    Ok(())
}
