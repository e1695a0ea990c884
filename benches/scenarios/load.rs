//! What users do: create memberships and delete them, a bounded number at a time.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use security_group_operator::api::SecurityGroupMembership;
use serde_json::{Value, json};

use crate::bed::{Bed, GROUPS, KEY, NAMESPACE};
use crate::support::error::{Context as _, Result};
use crate::watch::Watch;

/// Requests of a user in flight.
pub const IN_FLIGHT: usize = 8;

/// One membership to be.
#[derive(Clone, Debug)]
pub struct Wish {
    pub name: String,
    pub instance: String,
    pub group: String,
    pub region: &'static str,
    pub account: &'static str,
}

impl Wish {
    /// Number `index`: instance by instance, over all groups in turn.
    pub fn number(index: u32) -> Self {
        Self {
            name: name(index),
            instance: instance(index),
            group: format!("sg-sim{:04}", index % GROUPS),
            region: "cn-hangzhou",
            account: KEY.account,
        }
    }

    fn object(&self) -> Value {
        json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
            "metadata": {"name": self.name, "namespace": NAMESPACE},
            "spec": {
                "region": self.region, "instanceID": self.instance, "securityGroupID": self.group,
                "accountRef": {"kind": "ClusterCloudAccount", "name": self.account},
            },
        })
    }
}

/// Name of a membership.
pub fn name(index: u32) -> String {
    format!("edge-{index:06}")
}

/// Name of a generated instance.
pub fn instance(index: u32) -> String {
    format!("i-sim{index:06}")
}

/// Creates them, in order.
pub async fn create(bed: &Bed, watch: &Watch, wishes: &[Wish]) -> Result<()> {
    stream::iter(wishes)
        .map(|wish| create_one(&bed.client, watch, wish))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
}

/// Creates one; gives its UID.
pub async fn create_one(client: &Client, watch: &Watch, wish: &Wish) -> Result<String> {
    let api: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), NAMESPACE);
    let object: SecurityGroupMembership = serde_json::from_value(wish.object())?;
    watch.ask(&wish.name);
    let created = api
        .create(&PostParams::default(), &object)
        .await
        .context(&wish.name)?;
    created
        .metadata
        .uid
        .context("an object was created without a UID")
}

/// Deletes them, in order.
pub async fn delete(bed: &Bed, watch: &Watch, names: &[String]) -> Result<()> {
    let api = bed.memberships();
    stream::iter(names)
        .map(|name| {
            let api = api.clone();
            async move {
                watch.ask(name);
                api.delete(name, &DeleteParams::default())
                    .await
                    .context(name)?;
                Ok(())
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
}

/// The writes of a contender that has nothing to ask: what our operator sends to make one edge, with nothing around it.
pub async fn floor_writes(client: &Client, wish: &Wish, uid: &str) -> Result<()> {
    let api: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), NAMESPACE);
    let claim = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
        "metadata": {
            "name": wish.name, "uid": uid, "finalizers": [security_group_operator::api::FINALIZER],
            "annotations": {
                security_group_operator::api::ORIGIN_ANNOTATION: "Joined",
                security_group_operator::api::ACCOUNT_ANNOTATION: "1000000000000001",
            },
        },
    });
    let params = PatchParams::apply(security_group_operator::api::CLAIM_MANAGER).force();
    api.patch(&wish.name, &params, &Patch::Apply(&claim))
        .await?;
    let status = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
        "metadata": {"name": wish.name, "uid": uid},
        "status": {
            "observedGeneration": 1, "origin": "Joined", "target": {"state": "Running", "vpcID": "vpc-sim"},
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Joined", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "message": format!("{} is a member of {}; joined by the operator", wish.instance, wish.group),
            }],
        },
    });
    let params = PatchParams::apply(security_group_operator::api::STATUS_MANAGER).force();
    api.patch_status(&wish.name, &params, &Patch::Apply(&status))
        .await?;
    Ok(())
}
