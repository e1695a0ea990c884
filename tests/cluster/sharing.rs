//! An edge belongs to all objects that name it: whoever goes last leaves what was joined, and nobody evicts another.

use security_group_operator::api::membership::Origin;
use serde_json::{Value, json};

use crate::binaries;
use crate::support::env::{TestEnv, claim, ready};
use crate::support::error::Result;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-before, securityGroupIds: [sg-base, sg-web]}
- {id: i-round0, securityGroupIds: [sg-base]}
- {id: i-round1, securityGroupIds: [sg-base]}
- {id: i-round2, securityGroupIds: [sg-base]}
- {id: i-round3, securityGroupIds: [sg-base]}
";
const ROUNDS: usize = 4;

/// A test environment on which `a` has joined i-web to sg-web, and `b` shares that edge.
async fn shared_edge() -> Result<TestEnv> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("a", "i-web", "sg-web", json!({})).await?;
    env.until_reason("a", "Joined").await?;
    env.apply("b", "i-web", "sg-web", json!({})).await?;
    env.until_reason("b", "Shared").await?;
    Ok(env)
}

/// Deletes an object and waits until it is gone.
async fn remove(env: &TestEnv, name: &str) -> Result<()> {
    env.delete(name).await?;
    env.until_deleted(name).await
}

#[tokio::test]
async fn second_object_on_an_edge_shares_without_joining() -> Result<()> {
    let env = shared_edge().await?;
    let object = env.until_ready("b").await?;
    assert_eq!(claim(&object).as_deref(), Some("Adopted"));
    assert_eq!(object.status.unwrap().origin, Some(Origin::Adopted));
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
    Ok(())
}

#[tokio::test]
async fn successor_becomes_owner_and_leaves_last() -> Result<()> {
    let env = shared_edge().await?;
    remove(&env, "a").await?;
    let successor = env.until_reason("b", "Joined").await?;
    assert_eq!(claim(&successor).as_deref(), Some("Joined"));
    assert_eq!(successor.status.unwrap().origin, Some(Origin::Joined));
    assert!(env.is_member("i-web", "sg-web").await?);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    remove(&env, "b").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    assert_eq!(env.effects("LeaveSecurityGroup").await?, 1);
    Ok(())
}

#[tokio::test]
async fn non_owner_is_deleted_without_a_leave() -> Result<()> {
    let env = shared_edge().await?;
    remove(&env, "b").await?;
    assert!(env.is_member("i-web", "sg-web").await?);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    let owner = env.until_ready("a").await?;
    assert_eq!(claim(&owner).as_deref(), Some("Joined"));
    remove(&env, "a").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn oldest_sibling_becomes_owner_and_last_one_leaves() -> Result<()> {
    let env = shared_edge().await?;
    // The age of an object is counted in seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    env.apply("c", "i-web", "sg-web", json!({})).await?;
    env.until_reason("c", "Shared").await?;
    remove(&env, "a").await?;
    env.until_reason("b", "Joined").await?;
    assert_eq!(
        claim(&env.memberships().get("c").await?).as_deref(),
        Some("Adopted"),
        "one edge has one owner"
    );
    remove(&env, "b").await?;
    env.until_reason("c", "Joined").await?;
    assert!(env.is_member("i-web", "sg-web").await?);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    remove(&env, "c").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 1);
    Ok(())
}

#[tokio::test]
async fn shared_adopted_edge_is_kept_by_default() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for name in ["a", "b"] {
        env.apply(name, "i-before", "sg-web", json!({})).await?;
        env.until_reason(name, "Adopted").await?;
    }
    remove(&env, "a").await?;
    let other = env.until_reason("b", "Adopted").await?;
    assert_eq!(claim(&other).as_deref(), Some("Adopted"));
    remove(&env, "b").await?;
    assert!(env.is_member("i-before", "sg-web").await?);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    Ok(())
}

#[tokio::test]
async fn refuse_applies_to_foreign_edges_not_siblings() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let refuse = json!({"adoptionPolicy": "Refuse"});
    env.apply("outside", "i-before", "sg-web", refuse.clone())
        .await?;
    env.until_reason("outside", "AdoptionRefused").await?;
    env.apply("a", "i-web", "sg-web", refuse.clone()).await?;
    env.until_reason("a", "Joined").await?;
    env.apply("b", "i-web", "sg-web", refuse).await?;
    env.until_reason("b", "Shared").await?;
    Ok(())
}

#[tokio::test]
async fn granted_namespaces_share_an_edge() -> Result<()> {
    let (env, tenant) = env_and_tenant().await?;
    let both = json!([{"name": "all", "namespaces": {"names": [env.name, tenant.name]}, "securityGroups": {"ids": ["*"]}}]);
    env.write_account(both).await?;
    env.apply("a", "i-web", "sg-web", json!({})).await?;
    env.until_reason("a", "Joined").await?;
    tenant
        .apply("b", "i-web", "sg-web", account(&env.name))
        .await?;
    tenant.until_reason("b", "Shared").await?;
    remove(&env, "a").await?;
    let successor = tenant.until_reason("b", "Joined").await?;
    assert_eq!(claim(&successor).as_deref(), Some("Joined"));
    assert!(env.is_member("i-web", "sg-web").await?);
    remove(&tenant, "b").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn sibling_without_a_grant_does_not_prevent_leave() -> Result<()> {
    let (env, tenant) = env_and_tenant().await?;
    env.apply("a", "i-web", "sg-web", json!({})).await?;
    env.until_reason("a", "Joined").await?;
    tenant
        .apply("b", "i-web", "sg-web", account(&env.name))
        .await?;
    tenant.until_reason("b", "NotGranted").await?;
    remove(&env, "a").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    let stranger = tenant.memberships().get("b").await?;
    assert_eq!(claim(&stranger), None);
    remove(&tenant, "b").await
}

#[tokio::test]
async fn observing_sibling_does_not_prevent_leave() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("a", "i-web", "sg-web", json!({})).await?;
    env.until_reason("a", "Joined").await?;
    let observe = json!({"managementPolicy": "Observe"});
    env.apply("b", "i-web", "sg-web", observe).await?;
    let watcher = env.until_ready("b").await?;
    assert_eq!(claim(&watcher), None);
    remove(&env, "a").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn sibling_of_another_account_does_not_prevent_leave() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let key =
        json!({"addKey": {"id": "otherid", "secret": "testsecret", "account": "1000000000000002"}});
    env.simulator.change(&key).await?;
    let other = format!("{}-other", env.name);
    env.write_secret_named(&other, "otherid", "testsecret")
        .await?;
    let grants = json!([{"name": "all", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": ["*"]}}]);
    env.write_account_named(&other, grants).await?;
    env.apply("a", "i-web", "sg-web", json!({})).await?;
    env.until_reason("a", "Joined").await?;
    env.apply("b", "i-web", "sg-web", account(&other)).await?;
    // The other account does not own the instance, and is not shown it.
    env.until_reason("b", "TargetNotFound").await?;
    remove(&env, "a").await?;
    assert!(!env.is_member("i-web", "sg-web").await?);
    remove(&env, "b").await
}

#[tokio::test]
async fn simultaneous_creates_join_once_with_one_owner() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for round in 0..ROUNDS {
        let target = format!("i-round{round}");
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let (first, second) = tokio::join!(
            env.apply(&a, &target, "sg-web", json!({})),
            env.apply(&b, &target, "sg-web", json!({})),
        );
        drop((first?, second?));
        let objects = [env.until_ready(&a).await?, env.until_ready(&b).await?];
        let mut claims: Vec<_> = objects.iter().filter_map(claim).collect();
        claims.sort_unstable();
        assert_eq!(claims, ["Adopted", "Joined"], "round {round}");
        let mut reasons: Vec<_> = objects
            .iter()
            .map(|object| ready(object).unwrap().reason.as_str())
            .collect();
        reasons.sort_unstable();
        assert_eq!(reasons, ["Joined", "Shared"], "round {round}");
        assert_eq!(
            env.effects("JoinSecurityGroup").await?,
            round as u64 + 1,
            "round {round}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn simultaneous_deletions_leave_once_and_finish() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for round in 0..ROUNDS {
        let target = format!("i-round{round}");
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        env.apply(&a, &target, "sg-web", json!({})).await?;
        env.until_reason(&a, "Joined").await?;
        env.apply(&b, &target, "sg-web", json!({})).await?;
        env.until_reason(&b, "Shared").await?;
        let (first, second) = tokio::join!(env.delete(&a), env.delete(&b));
        first.and(second)?;
        env.until_deleted(&a).await?;
        env.until_deleted(&b).await?;
        assert!(!env.is_member(&target, "sg-web").await?, "round {round}");
        assert_eq!(
            env.effects("LeaveSecurityGroup").await?,
            round as u64 + 1,
            "round {round}"
        );
    }
    Ok(())
}

/// A test environment, and another tenant's namespace beside it, whose own cloud plays no part.
async fn env_and_tenant() -> Result<(TestEnv, TestEnv)> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let tenant = TestEnv::start(&binaries!(), "").await?;
    Ok((env, tenant))
}

/// What makes a spec use the account of this name.
fn account(name: &str) -> Value {
    json!({"accountRef": {"kind": "ClusterCloudAccount", "name": name}})
}
