//! An admission policy or webhook refuses what the operator writes: the status says so in the API server's words, nothing is
//! joined, and nothing is removed twice.

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::binaries;
use crate::support::env::{TestEnv, message, phase};
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;

const INVENTORY: &str = "
securityGroups: [{id: sg-base}, {id: sg-web}]
instances:
- {id: i-fresh, securityGroupIds: [sg-base]}
- {id: i-old, securityGroupIds: [sg-base]}
- {id: i-shared, securityGroupIds: [sg-base]}
";

/// From its return on nobody changes the objects with these names in the namespace of the test.
async fn freeze(env: &TestEnv, names: &[&str]) -> Result<()> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(env.client.clone());
    let policy = json!({
        "metadata": {"name": env.name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["security-group-operator.io"], "apiVersions": ["*"],
                "operations": ["UPDATE"], "resources": ["securitygroupmemberships"],
            }]},
            "matchConditions": [{
                "name": "frozen",
                "expression": format!("request.namespace == '{}' && object.metadata.name in {}", env.name, json!(names)),
            }],
            "validations": [{"expression": "false", "message": "this namespace is frozen"}],
        },
    });
    let create = PostParams::default();
    policies.create(&create, &from(policy)?).await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(env.client.clone());
    let binding = json!({
        "metadata": {"name": env.name},
        "spec": {"policyName": env.name, "validationActions": ["Deny"]},
    });
    bindings.create(&create, &from(binding)?).await?;
    let name = names.first().context("a name")?;
    let probe: Patch<Value> = Patch::Merge(json!({"metadata": {"labels": {"probe": "1"}}}));
    eventually("the policy holds", async || {
        match env
            .memberships()
            .patch(name, &PatchParams::default().dry_run(), &probe)
            .await
        {
            Err(kube::Error::Api(status)) if status.code == 422 => Ok(true),
            answer => answer.map(|_| false).context("a dry run"),
        }
    })
    .await
}

async fn thaw(env: &TestEnv) -> Result<()> {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(env.client.clone());
    policies.delete(&env.name, &DeleteParams::default()).await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(env.client.clone());
    bindings.delete(&env.name, &DeleteParams::default()).await?;
    Ok(())
}

fn from<T: serde::de::DeserializeOwned>(value: Value) -> Result<T> {
    Ok(serde_json::from_value(value)?)
}

#[tokio::test]
async fn write_that_a_policy_refuses_is_told_and_done_when_it_allows_it() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("old", "i-old", "sg-web", json!({})).await?;
    env.until_reason("old", "Joined").await?;
    freeze(&env, &["old", "fresh"]).await?;

    env.apply("fresh", "i-fresh", "sg-web", json!({})).await?;
    let fresh = env.until_reason("fresh", "WriteRefused").await?;
    assert!(
        message(&fresh).contains("this namespace is frozen"),
        "{}",
        message(&fresh)
    );
    assert_eq!(phase(&fresh), "Reconciling");
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1, "only the old one");

    env.delete("old").await?;
    let old = env.until_reason("old", "WriteRefused").await?;
    let said = message(&old);
    let begins = "i-old was removed from sg-web; the finalizer could not be removed: ";
    assert!(said.starts_with(begins), "{said}");
    assert!(said.contains("this namespace is frozen"), "{said}");
    assert_eq!(old.status.context("a status")?.origin, None);
    assert!(!env.is_member("i-old", "sg-web").await?);
    // What others make now is theirs.
    let edge = json!({"target": "i-old", "securityGroupId": "sg-web"});
    env.change_cloud(json!({"join": edge})).await?;
    thaw(&env).await?;
    env.until_deleted("old").await?;
    env.until_reason("fresh", "Joined").await?;
    assert!(env.is_member("i-old", "sg-web").await?);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 1);
    Ok(())
}

/// The refusal of a policy has the status of the refusal of a finalizer on a deleted object.
#[tokio::test]
async fn refused_hand_over_keeps_the_membership() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("owner", "i-shared", "sg-web", json!({})).await?;
    env.until_reason("owner", "Joined").await?;
    let suspended = json!({"suspend": true});
    env.apply("heir", "i-shared", "sg-web", suspended).await?;
    env.until_suspended("heir", true).await?;
    freeze(&env, &["heir"]).await?;
    env.delete("owner").await?;
    let owner = env.until_reason("owner", "WriteRefused").await?;
    let said = message(&owner);
    for part in [
        "another SecurityGroupMembership on i-shared and sg-web must own the membership",
        "this namespace is frozen",
        "deletionPolicy to Retain",
    ] {
        assert!(said.contains(part), "{said}");
    }
    assert!(env.is_member("i-shared", "sg-web").await?);
    thaw(&env).await?;
    env.until_deleted("owner").await?;
    assert!(env.is_member("i-shared", "sg-web").await?);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    Ok(())
}

#[tokio::test]
async fn webhook_that_is_down_is_told() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(env.client.clone());
    // Nobody listens on this port of the API server's machine. The object can be created, and is refused every change.
    let webhook = json!({
        "metadata": {"name": env.name},
        "webhooks": [{
            "name": "down.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"url": "https://127.0.0.1:1/validate"},
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": env.name}},
            "rules": [{
                "apiGroups": ["security-group-operator.io"], "apiVersions": ["*"],
                "operations": ["UPDATE"], "resources": ["securitygroupmemberships"],
            }],
        }],
    });
    env.apply("probe", "i-old", "sg-base", json!({"suspend": true}))
        .await?;
    webhooks
        .create(&PostParams::default(), &from(webhook)?)
        .await?;
    let label: Patch<Value> = Patch::Merge(json!({"metadata": {"labels": {"probe": "1"}}}));
    eventually("the webhook is asked", async || {
        let params = PatchParams::default().dry_run();
        match env.memberships().patch("probe", &params, &label).await {
            Err(kube::Error::Api(status)) if status.code == 500 => Ok(true),
            answer => answer.map(|_| false).context("a dry run"),
        }
    })
    .await?;
    env.apply("fresh", "i-fresh", "sg-web", json!({})).await?;
    let fresh = env.until_reason("fresh", "WriteRefused").await?;
    let said = message(&fresh);
    assert!(said.contains("down.example.com"), "{said}");
    webhooks.delete(&env.name, &DeleteParams::default()).await?;
    env.until_reason("fresh", "Joined").await?;
    Ok(())
}
