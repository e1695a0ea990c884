//! The library that Flux, Argo CD and kpt users go by reads our conditions as they are meant.

use kube::Api;
use kube::api::{DeleteParams, PropagationPolicy};
use security_group_operator::api::SecurityGroupMembershipSet;
use serde_json::json;

use crate::binaries;
use crate::sets;
use crate::support;
use crate::support::env::TestEnv;
use crate::support::error::{Context, Result};
use crate::support::kstatus;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-starting, status: Starting, securityGroupIds: [sg-base]}
";

/// What kstatus calls an object as the API server has it now.
async fn word(env: &TestEnv, name: &str) -> Result<String> {
    let object = serde_json::to_value(env.memberships().get(name).await?)?;
    let results = kstatus::compute(&[object]).await?;
    let result = results.into_iter().next().context("a result")?;
    Ok(result.status)
}

#[tokio::test]
async fn waiting_object_is_in_progress() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-starting", "sg-web", json!({})).await?;
    env.until_reason("web", "WaitingForTarget").await?;
    assert_eq!(word(&env, "web").await?, "InProgress");
    Ok(())
}

#[tokio::test]
async fn stalled_object_has_failed() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-none", "sg-web", json!({})).await?;
    env.until_reason("web", "TargetNotFound").await?;
    assert_eq!(word(&env, "web").await?, "Failed");
    Ok(())
}

#[tokio::test]
async fn suspended_ready_object_is_current() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_ready("web").await?;
    env.apply("web", "i-web", "sg-web", json!({"suspend": true}))
        .await?;
    env.until_suspended("web", true).await?;
    assert_eq!(word(&env, "web").await?, "Current");
    env.apply("web", "i-web", "sg-web", json!({"suspend": false}))
        .await?;
    env.until_suspended("web", false).await?;
    assert_eq!(word(&env, "web").await?, "Current");
    Ok(())
}

#[tokio::test]
async fn object_with_a_blocked_deletion_is_terminating() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_ready("web").await?;
    // Its instance starts again, and until that is over it cannot leave.
    let starting = json!({"setStatus": {"id": "i-web", "status": "Starting"}});
    env.simulator.change(&starting).await?;
    env.delete("web").await?;
    env.until_reason("web", "WaitingForTarget").await?;
    assert_eq!(word(&env, "web").await?, "Terminating");
    Ok(())
}

#[tokio::test]
async fn account_is_current_until_its_key_is_rejected() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_ready("web").await?;
    assert_eq!(account_word(&env).await?, "Current");
    env.write_secret("nobody", "testsecret").await?;
    support::eventually::eventually("the account has failed", async || {
        Ok(account_word(&env).await? == "Failed")
    })
    .await
}

#[tokio::test]
async fn set_is_in_progress_until_all_are_members_and_terminating_while_they_leave() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let both = json!({"instanceIDs": ["i-web", "i-starting"]});
    sets::apply(&env, "both", both).await?;
    sets::until(&env, "both", "Progressing").await?;
    assert_eq!(set_word(&env, "both").await?, "InProgress");
    let status = |status| json!({"setStatus": {"id": "i-starting", "status": status}});
    env.simulator.change(&status("Running")).await?;
    sets::until(&env, "both", "AllMembers").await?;
    assert_eq!(set_word(&env, "both").await?, "Current");
    // It starts again, and until that is over it cannot leave: a set that is deleted in the foreground waits for it.
    env.simulator.change(&status("Starting")).await?;
    let foreground = DeleteParams {
        propagation_policy: Some(PropagationPolicy::Foreground),
        ..DeleteParams::default()
    };
    all_sets(&env).delete("both", &foreground).await?;
    assert_eq!(set_word(&env, "both").await?, "Terminating");
    env.simulator.change(&status("Running")).await?;
    support::eventually::eventually("the set is gone", async || {
        Ok(all_sets(&env).get_opt("both").await?.is_none())
    })
    .await
}

#[tokio::test]
async fn set_that_the_cloud_refuses_has_failed() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let nowhere = json!({"instanceIDs": ["i-web"], "securityGroupID": "sg-nowhere"});
    sets::apply(&env, "web", nowhere).await?;
    sets::until(&env, "web", "InvalidSecurityGroupIdNotFound").await?;
    assert_eq!(set_word(&env, "web").await?, "Failed");
    Ok(())
}

fn all_sets(env: &TestEnv) -> Api<SecurityGroupMembershipSet> {
    Api::namespaced(env.client.clone(), &env.name)
}

async fn set_word(env: &TestEnv, name: &str) -> Result<String> {
    let object = serde_json::to_value(all_sets(env).get(name).await?)?;
    let results = kstatus::compute(&[object]).await?;
    Ok(results.into_iter().next().context("a result")?.status)
}

async fn account_word(env: &TestEnv) -> Result<String> {
    let accounts: kube::Api<security_group_operator::api::ClusterCloudAccount> =
        kube::Api::all(env.client.clone());
    let object = serde_json::to_value(accounts.get(&env.name).await?)?;
    let results = kstatus::compute(&[object]).await?;
    Ok(results.into_iter().next().context("a result")?.status)
}
