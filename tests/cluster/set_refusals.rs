//! Sets on a real API server that refuses memberships: a quota is used up, or the namespace is being deleted.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, ResourceQuota};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use security_group_operator::api::{RECONCILE_REQUESTED_ANNOTATION, SecurityGroupMembershipSet};
use security_group_operator::condition::{find, is_true};
use serde_json::json;

use crate::binaries;
use crate::sets::{apply, until};
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-a, securityGroupIds: [sg-base]}
- {id: i-b, securityGroupIds: [sg-base]}
- {id: i-c, securityGroupIds: [sg-base]}
";
const COUNT: &str = "count/securitygroupmemberships.security-group-operator.io";

/// Sets how many memberships the namespace may have and has, as the controller of quotas writes it.
async fn write_quota(env: &TestEnv, used: usize, hard: usize) -> Result<()> {
    let quotas: Api<ResourceQuota> = Api::namespaced(env.client.clone(), &env.name);
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "memberships"},
        "spec": {"hard": {COUNT: hard.to_string()}},
    });
    let params = PatchParams::apply("test").force();
    let spec = Patch::Apply(&quota);
    quotas.patch("memberships", &params, &spec).await?;
    let status = json!({"status": {
        "hard": {COUNT: hard.to_string()}, "used": {COUNT: used.to_string()},
    }});
    let params = PatchParams::default();
    quotas
        .patch_status("memberships", &params, &Patch::Merge(&status))
        .await?;
    Ok(())
}

async fn names(env: &TestEnv) -> Result<BTreeSet<String>> {
    let all = env.memberships().list(&ListParams::default()).await?;
    Ok(all.iter().map(kube::ResourceExt::name_any).collect())
}

/// The API server stores one membership, and refuses the second one.
#[tokio::test]
async fn a_quota_that_is_used_up_is_told_and_what_it_lets_through_goes_on() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    write_quota(&env, 0, 1).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a", "i-b", "i-c"]})).await?;
    let set = until(&env, "web", "CreateRefused").await?;
    let status = set.status.clone().unwrap_or_default();
    assert!(is_true(&status.conditions, "Stalled"));
    let ready = find(&status.conditions, "Ready").context("Ready")?;
    for words in ["exceeded quota: memberships", COUNT, "raise the quota"] {
        assert!(ready.message.contains(words), "{}", ready.message);
    }
    // The one membership becomes Ready, and no other set or membership is held up.
    eventually("i-a is a member", async || {
        env.is_member("i-a", "sg-web").await
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(names(&env).await?.len(), 1);
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);

    write_quota(&env, 1, 10).await?;
    let sets: Api<SecurityGroupMembershipSet> = Api::namespaced(env.client.clone(), &env.name);
    // Without that it would look again after five minutes.
    let asked = json!({"metadata": {"annotations": {RECONCILE_REQUESTED_ANNOTATION: "1"}}});
    let params = PatchParams::default();
    sets.patch("web", &params, &Patch::Merge(&asked)).await?;
    let set = until(&env, "web", "AllMembers").await?;
    let status = set.status.unwrap_or_default();
    assert_eq!((status.targets, status.ready_targets), (Some(3), Some(3)));
    Ok(())
}

/// The set and its memberships go with their namespace, and each membership leaves what it joined; none is made again.
#[tokio::test]
async fn a_set_goes_with_its_namespace_and_leaves_what_it_joined() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a", "i-b", "i-c"]})).await?;
    until(&env, "web", "AllMembers").await?;
    // A finalizer of another actor keeps the namespace, so that one can look into it; it does not keep the set.
    let kept = env.apply("kept", "i-a", "sg-web", json!({})).await?;
    env.until_ready("kept").await?;
    let finalizer = json!({"metadata": {"finalizers": [
        "example.com/keep", security_group_operator::api::FINALIZER,
    ]}});
    let params = PatchParams::default();
    env.memberships()
        .patch("kept", &params, &Patch::Merge(&finalizer))
        .await?;
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    namespaces
        .delete(&env.name, &DeleteParams::default())
        .await?;
    eventually("all but one membership are gone", async || {
        Ok(names(&env).await? == BTreeSet::from(["kept".to_owned()]))
    })
    .await?;
    eventually("all groups are left", async || {
        let mut left = true;
        for target in ["i-a", "i-b", "i-c"] {
            left &= !env.is_member(target, "sg-web").await?;
        }
        Ok(left)
    })
    .await?;
    let free = json!({"metadata": {"finalizers": null}});
    let stored = env.memberships().get_opt("kept").await?;
    assert_eq!(stored.and_then(|stored| stored.uid()), kept.uid());
    env.memberships()
        .patch("kept", &params, &Patch::Merge(&free))
        .await?;
    eventually("the namespace is gone", async || {
        Ok(namespaces.get_opt(&env.name).await?.is_none())
    })
    .await?;
    assert_eq!(env.effects("JoinSecurityGroup").await?, 3);
    assert_eq!(env.effects("LeaveSecurityGroup").await?, 3);
    Ok(())
}
