//! More sentences of a [`Stage`]: asking for a pass, waiting for its traces, reading what an object and the audit log say.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kube::ResourceExt;
use security_group_operator::api::{
    FINALIZER, ORIGIN_ANNOTATION, RECONCILE_REQUESTED_ANNOTATION, SecurityGroupMembership,
};
use security_group_operator::ecs::{Client, Credential, Endpoints, Http, Target};
use serde_json::{Value, json};

use super::control_plane::ControlPlane;
use super::error::Result;
use super::eventually::eventually;
use super::stage::{Stage, condition, ready};

/// Who the operator is to the API server.
const OPERATOR: &str = "system:serviceaccount:security-group-operator:security-group-operator";

impl Stage {
    /// Asks for a pass over a membership, as a user does.
    pub async fn look_again(&self, name: &str) -> Result<()> {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let value = ASKED.fetch_add(1, Ordering::Relaxed).to_string();
        self.annotate(name, RECONCILE_REQUESTED_ANNOTATION, &value)
            .await
    }

    /// Asks for a pass and returns when it has read the target, so that a pass asked for before has ended.
    pub async fn look_and_wait(&self, name: &str) -> Result<()> {
        let before = self.reads().await?;
        self.look_again(name).await?;
        eventually(&format!("{name} is looked at"), async || {
            Ok(self.reads().await? > before)
        })
        .await
    }

    /// Describe calls, of both kinds.
    pub async fn reads(&self) -> Result<u64> {
        Ok(
            self.calls("DescribeInstances").await?
                + self.calls("DescribeNetworkInterfaces").await?,
        )
    }

    /// Returns when there is an event with this reason about the membership.
    pub async fn until_event(&self, name: &str, reason: &str) -> Result<()> {
        eventually(&format!("event {reason} about {name}"), async || {
            Ok(self.events(name).await?.iter().any(|seen| seen == reason))
        })
        .await
    }

    /// The operator's accepted writes in the stage's namespace so far: `patch securitygroupmemberships/status NAME`.
    pub async fn operator_writes(&self) -> Result<Vec<String>> {
        Ok(ControlPlane::shared()
            .await?
            .audit_events()?
            .into_iter()
            .filter(|event| {
                event.user == OPERATOR
                    && event.namespace == self.name
                    && !["get", "list", "watch"].contains(&event.verb.as_str())
            })
            .map(|event| {
                let slash = if event.subresource.is_empty() {
                    ""
                } else {
                    "/"
                };
                format!(
                    "{} {}{slash}{}",
                    event.verb, event.resource, event.subresource
                )
            })
            .collect())
    }

    /// Has somebody else begin a change of an instance that takes a minute: until then every other one is a 409.
    pub async fn occupy(&self, instance: &str, group: &str) -> Result<()> {
        eventually(
            "the account is examined, which must not take a minute",
            async || Ok(self.calls("GetCallerIdentity").await? > 0),
        )
        .await?;
        let endpoint = self.simulator.endpoint();
        let somebody = Client::new(
            Arc::new(Http::new()?),
            Credential::new("testid", "testsecret", None)?,
            Endpoints::parse(Some(&endpoint), Some(&endpoint))?,
        );
        let before = self.calls("JoinSecurityGroup").await?;
        self.behind(json!({"set": {"latency": "60s"}})).await?;
        let target = Target::Instance(instance.parse()?);
        let (region, group) = ("cn-hangzhou".parse()?, group.parse()?);
        let call =
            tokio::spawn(
                async move { somebody.join_security_group(&region, &target, &group).await },
            );
        eventually("the call has arrived", async || {
            Ok(self.calls("JoinSecurityGroup").await? > before)
        })
        .await?;
        call.abort();
        self.behind(json!({"set": {"latency": "0s"}})).await
    }

    /// One change behind the operator's back.
    pub async fn behind(&self, change: Value) -> Result<()> {
        self.simulator.change(&change).await
    }
}

/// What kstatus goes by: `Stalled`, `Reconciling`, or `Settled`; fails if an object claims both.
pub fn phase(object: &SecurityGroupMembership) -> &'static str {
    let is = |type_| condition(object, type_).is_some_and(|found| found.status == "True");
    let (stalled, reconciling) = (is("Stalled"), is("Reconciling"));
    assert!(!(stalled && reconciling), "{} is both", object.name_any());
    if stalled {
        "Stalled"
    } else if reconciling {
        "Reconciling"
    } else {
        "Settled"
    }
}

/// The sentence of the condition Ready; empty where there is none.
pub fn message(object: &SecurityGroupMembership) -> &str {
    ready(object).map_or("", |ready| &ready.message)
}

/// Whether `status.lastError` has this code, as the cloud spells it.
pub fn has_code(object: &SecurityGroupMembership, code: &str) -> bool {
    let status = object.status.as_ref();
    let error = status.and_then(|status| status.last_error.as_ref());
    error.is_some_and(|error| error.code.as_deref() == Some(code))
}

/// The claim on the object, if it carries one; fails if claim and finalizer do not go together.
pub fn claim(object: &SecurityGroupMembership) -> Option<String> {
    let origin = object.annotations().get(ORIGIN_ANNOTATION).cloned();
    let kept = object.finalizers().iter().any(|name| name == FINALIZER);
    assert_eq!(origin.is_some(), kept, "claim and finalizer are one");
    origin
}
