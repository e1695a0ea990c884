//! The users' actions: create and delete memberships, a bounded number at a time.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use security_group_operator::api::SecurityGroupMembership;
use security_group_operator::membership::object::Intent;
use serde_json::json;

use crate::cluster::{BenchCluster, GROUPS, KEY, NAMESPACE};
use crate::support::error::{Context as _, Result};
use crate::watch::Watch;

/// Requests of a user in flight.
pub const IN_FLIGHT: usize = 8;

/// One membership to create.
#[derive(Clone, Debug)]
pub struct MembershipRequest {
    pub name: String,
    pub instance: String,
    pub group: String,
    pub region: &'static str,
    pub account: &'static str,
}

impl MembershipRequest {
    /// Number `index`: instance by instance, rotating over all groups.
    pub fn number(index: u32) -> Self {
        Self {
            name: name(index),
            instance: instance(index),
            group: format!("sg-sim{:04}", index % GROUPS),
            region: "cn-hangzhou",
            account: KEY.account,
        }
    }

    /// The object in a namespace.
    pub fn object_in(&self, namespace: &str) -> Result<SecurityGroupMembership> {
        Ok(serde_json::from_value(json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
            "metadata": {"name": self.name, "namespace": namespace},
            "spec": {
                "region": self.region, "instanceID": self.instance, "securityGroupID": self.group,
                "accountRef": {"kind": "ClusterCloudAccount", "name": self.account},
            },
        }))?)
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

/// Creates them in order.
pub async fn create(
    cluster: &BenchCluster,
    watch: &Watch,
    requests: &[MembershipRequest],
) -> Result<()> {
    stream::iter(requests)
        .map(|request| create_one(&cluster.client, watch, request))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
}

/// Creates one; returns its UID.
pub async fn create_one(
    client: &Client,
    watch: &Watch,
    request: &MembershipRequest,
) -> Result<String> {
    let api: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), NAMESPACE);
    let object = request.object_in(NAMESPACE)?;
    watch.ask(&request.name);
    let created = api
        .create(&PostParams::default(), &object)
        .await
        .context(&request.name)?;
    created
        .metadata
        .uid
        .context("an object was created without a UID")
}

/// Deletes them in order.
pub async fn delete(cluster: &BenchCluster, watch: &Watch, names: &[String]) -> Result<()> {
    stream::iter(names)
        .map(|name| delete_one(&cluster.client, watch, name))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
}

/// Deletes one; returns its UID while a finalizer keeps it.
async fn delete_one(client: &Client, watch: &Watch, name: &str) -> Result<Option<String>> {
    let api: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), NAMESPACE);
    watch.ask(name);
    let answer = api
        .delete(name, &DeleteParams::default())
        .await
        .context(name)?;
    Ok(answer.left().and_then(|object| object.metadata.uid))
}

/// Creates them in order. After each answer, the floor sends the two writes of an operator.
pub async fn floor_create(
    cluster: &BenchCluster,
    watch: &Watch,
    requests: &[MembershipRequest],
) -> Result<()> {
    let client = &cluster.client;
    let creates = requests
        .iter()
        .map(|request| async move { Ok((request, create_one(client, watch, request).await?)) });
    as_floor(
        creates,
        async |(request, uid): (&MembershipRequest, String)| {
            floor_writes(client, request, &uid).await
        },
    )
    .await
}

/// Deletes them in order. After each answer, the floor sends the write that lets the object go.
pub async fn floor_delete(cluster: &BenchCluster, watch: &Watch, names: &[String]) -> Result<()> {
    let client = &cluster.client;
    let deletions = names
        .iter()
        .map(|name| async move { Ok((name, delete_one(client, watch, name).await?)) });
    as_floor(deletions, async |(name, uid): (&String, Option<String>)| {
        let uid = uid.context("an object was deleted at once: it had no finalizer")?;
        floor_release(client, name, &uid).await
    })
    .await
}

/// A user's requests and, after each answer, what the floor writes: each eight at a time.
async fn as_floor<T>(
    requests: impl Iterator<Item = impl Future<Output = Result<T>>>,
    write: impl AsyncFn(T) -> Result<()>,
) -> Result<()> {
    let (answered, mut to_write) = tokio::sync::mpsc::unbounded_channel();
    let requesting = async move {
        let mut answers = stream::iter(requests).buffer_unordered(IN_FLIGHT);
        while let Some(answer) = answers.next().await {
            // The receiver is dropped only after a failed write, and that error is reported.
            let _ = answered.send(answer?);
        }
        Ok(())
    };
    let writing = stream::poll_fn(|context| to_write.poll_recv(context))
        .map(|answer| write(answer))
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|()| std::future::ready(Ok(())));
    futures::future::try_join(requesting, writing).await?;
    Ok(())
}

/// The writes of a candidate without cloud calls: the ones that our operator sends for one edge, and no others.
pub async fn floor_writes(client: &Client, request: &MembershipRequest, uid: &str) -> Result<()> {
    let api: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), NAMESPACE);
    let account = "1000000000000001".into();
    let intent = Intent::new(&uid.into(), &account).text();
    let claim = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
        "metadata": {
            "name": request.name, "uid": uid, "finalizers": [security_group_operator::api::FINALIZER],
            "annotations": {security_group_operator::api::INTENT_ANNOTATION: intent},
        },
    });
    let params = PatchParams::apply(security_group_operator::api::CLAIM_MANAGER).force();
    api.patch(&request.name, &params, &Patch::Apply(&claim))
        .await?;
    let status = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
        "metadata": {"name": request.name, "uid": uid},
        "status": {
            "observedGeneration": 1, "origin": "Joined", "target": {"state": "Running", "vpcID": "vpc-sim"},
            "conditions": [{
                "type": "Ready", "status": "True", "reason": "Joined", "observedGeneration": 1,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
                "message": format!("{} is a member of {}; joined by the operator", request.instance, request.group),
            }],
        },
    });
    let params = PatchParams::apply(security_group_operator::api::STATUS_MANAGER).force();
    api.patch_status(&request.name, &params, &Patch::Apply(&status))
        .await?;
    Ok(())
}

/// The write of a candidate without cloud calls after a deletion: finalizer and intent are taken off, as our operator does it.
async fn floor_release(client: &Client, name: &str, uid: &str) -> Result<()> {
    let api: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), NAMESPACE);
    let marks = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
        "metadata": {"name": name, "uid": uid},
    });
    let params = PatchParams::apply(security_group_operator::api::CLAIM_MANAGER).force();
    api.patch(name, &params, &Patch::Apply(&marks)).await?;
    Ok(())
}
