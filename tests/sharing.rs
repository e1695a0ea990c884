//! An edge belongs to all objects that name it: whoever goes last leaves what was joined, and nobody evicts another.

mod support;

use security_group_operator::api::membership::Origin;
use serde_json::{Value, json};
use support::ask::claim;
use support::error::Result;
use support::stage::{Stage, ready};

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

/// A stage on which `a` has joined i-web to sg-web, and `b` shares that edge.
async fn shared_edge() -> Result<Stage> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    stage.apply("a", "i-web", "sg-web", json!({})).await?;
    stage.until_reason("a", "Joined").await?;
    stage.apply("b", "i-web", "sg-web", json!({})).await?;
    stage.until_reason("b", "Shared").await?;
    Ok(stage)
}

/// Deletes an object and waits until it is gone.
async fn remove(stage: &Stage, name: &str) -> Result<()> {
    stage.delete(name).await?;
    stage.until_gone(name).await
}

#[tokio::test]
async fn the_second_object_on_an_edge_shares_it_and_joins_nothing() -> Result<()> {
    let stage = shared_edge().await?;
    let object = stage.until_ready("b").await?;
    assert_eq!(claim(&object).as_deref(), Some("Adopted"));
    assert_eq!(object.status.unwrap().origin, Some(Origin::Adopted));
    assert_eq!(stage.calls("JoinSecurityGroup").await?, 1);
    Ok(())
}

#[tokio::test]
async fn who_stays_inherits_the_edge_and_leaves_it_last() -> Result<()> {
    let stage = shared_edge().await?;
    remove(&stage, "a").await?;
    let heir = stage.until_reason("b", "Joined").await?;
    assert_eq!(claim(&heir).as_deref(), Some("Joined"));
    assert_eq!(heir.status.unwrap().origin, Some(Origin::Joined));
    assert!(stage.is_member("i-web", "sg-web").await?);
    assert_eq!(stage.calls("LeaveSecurityGroup").await?, 0);
    remove(&stage, "b").await?;
    assert!(!stage.is_member("i-web", "sg-web").await?);
    assert_eq!(stage.effects("LeaveSecurityGroup").await?, 1);
    Ok(())
}

#[tokio::test]
async fn a_guest_goes_without_a_leave_and_the_owner_leaves_last() -> Result<()> {
    let stage = shared_edge().await?;
    remove(&stage, "b").await?;
    assert!(stage.is_member("i-web", "sg-web").await?);
    assert_eq!(stage.calls("LeaveSecurityGroup").await?, 0);
    let owner = stage.until_ready("a").await?;
    assert_eq!(claim(&owner).as_deref(), Some("Joined"));
    remove(&stage, "a").await?;
    assert!(!stage.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn of_three_objects_the_oldest_inherits_and_the_last_one_leaves() -> Result<()> {
    let stage = shared_edge().await?;
    // The age of an object is counted in seconds.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    stage.apply("c", "i-web", "sg-web", json!({})).await?;
    stage.until_reason("c", "Shared").await?;
    remove(&stage, "a").await?;
    stage.until_reason("b", "Joined").await?;
    assert_eq!(
        claim(&stage.memberships().get("c").await?).as_deref(),
        Some("Adopted"),
        "one edge has one owner"
    );
    remove(&stage, "b").await?;
    stage.until_reason("c", "Joined").await?;
    assert!(stage.is_member("i-web", "sg-web").await?);
    assert_eq!(stage.calls("LeaveSecurityGroup").await?, 0);
    remove(&stage, "c").await?;
    assert!(!stage.is_member("i-web", "sg-web").await?);
    assert_eq!(stage.calls("JoinSecurityGroup").await?, 1);
    assert_eq!(stage.calls("LeaveSecurityGroup").await?, 1);
    Ok(())
}

#[tokio::test]
async fn an_adopted_edge_of_two_objects_is_never_left() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for name in ["a", "b"] {
        stage.apply(name, "i-before", "sg-web", json!({})).await?;
        stage.until_reason(name, "Adopted").await?;
    }
    remove(&stage, "a").await?;
    let other = stage.until_reason("b", "Adopted").await?;
    assert_eq!(claim(&other).as_deref(), Some("Adopted"));
    remove(&stage, "b").await?;
    assert!(stage.is_member("i-before", "sg-web").await?);
    assert_eq!(stage.calls("LeaveSecurityGroup").await?, 0);
    Ok(())
}

#[tokio::test]
async fn refuse_speaks_of_edges_from_outside_and_not_of_siblings() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let refuse = json!({"adoptionPolicy": "Refuse"});
    stage
        .apply("outside", "i-before", "sg-web", refuse.clone())
        .await?;
    stage.until_reason("outside", "AdoptionRefused").await?;
    stage.apply("a", "i-web", "sg-web", refuse.clone()).await?;
    stage.until_reason("a", "Joined").await?;
    stage.apply("b", "i-web", "sg-web", refuse).await?;
    stage.until_reason("b", "Shared").await?;
    Ok(())
}

#[tokio::test]
async fn namespaces_that_are_granted_share_an_edge() -> Result<()> {
    let (stage, tenant) = stage_and_tenant().await?;
    let both =
        json!([{"namespaces": {"names": [stage.name, tenant.name]}, "securityGroupIDs": ["*"]}]);
    stage.write_account(both).await?;
    stage.apply("a", "i-web", "sg-web", json!({})).await?;
    stage.until_reason("a", "Joined").await?;
    tenant
        .apply("b", "i-web", "sg-web", account(&stage.name))
        .await?;
    tenant.until_reason("b", "Shared").await?;
    remove(&stage, "a").await?;
    let heir = tenant.until_reason("b", "Joined").await?;
    assert_eq!(claim(&heir).as_deref(), Some("Joined"));
    assert!(stage.is_member("i-web", "sg-web").await?);
    remove(&tenant, "b").await?;
    assert!(!stage.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn a_sibling_without_a_grant_keeps_nobody_from_leaving() -> Result<()> {
    let (stage, tenant) = stage_and_tenant().await?;
    stage.apply("a", "i-web", "sg-web", json!({})).await?;
    stage.until_reason("a", "Joined").await?;
    tenant
        .apply("b", "i-web", "sg-web", account(&stage.name))
        .await?;
    tenant.until_reason("b", "NotGranted").await?;
    remove(&stage, "a").await?;
    assert!(!stage.is_member("i-web", "sg-web").await?);
    let stranger = tenant.memberships().get("b").await?;
    assert_eq!(claim(&stranger), None);
    remove(&tenant, "b").await
}

#[tokio::test]
async fn a_sibling_that_only_observes_keeps_nobody_from_leaving() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    stage.apply("a", "i-web", "sg-web", json!({})).await?;
    stage.until_reason("a", "Joined").await?;
    let observe = json!({"managementPolicy": "Observe"});
    stage.apply("b", "i-web", "sg-web", observe).await?;
    let watcher = stage.until_ready("b").await?;
    assert_eq!(claim(&watcher), None);
    remove(&stage, "a").await?;
    assert!(!stage.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn a_sibling_of_another_cloud_account_keeps_nobody_from_leaving() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let key =
        json!({"addKey": {"id": "otherid", "secret": "testsecret", "account": "1000000000000002"}});
    stage.simulator.change(&key).await?;
    let other = format!("{}-other", stage.name);
    stage
        .write_secret_named(&other, "otherid", "testsecret")
        .await?;
    let grants = json!([{"namespaces": {"names": [stage.name]}, "securityGroupIDs": ["*"]}]);
    stage.write_account_named(&other, grants).await?;
    stage.apply("a", "i-web", "sg-web", json!({})).await?;
    stage.until_reason("a", "Joined").await?;
    stage.apply("b", "i-web", "sg-web", account(&other)).await?;
    // The other account does not own the instance, and is not shown it.
    stage.until_reason("b", "TargetNotFound").await?;
    remove(&stage, "a").await?;
    assert!(!stage.is_member("i-web", "sg-web").await?);
    remove(&stage, "b").await
}

#[tokio::test]
async fn two_objects_of_one_moment_make_one_join_and_one_claim() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for round in 0..ROUNDS {
        let target = format!("i-round{round}");
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        let (first, second) = tokio::join!(
            stage.apply(&a, &target, "sg-web", json!({})),
            stage.apply(&b, &target, "sg-web", json!({})),
        );
        drop((first?, second?));
        let objects = [stage.until_ready(&a).await?, stage.until_ready(&b).await?];
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
            stage.effects("JoinSecurityGroup").await?,
            round as u64 + 1,
            "round {round}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn two_objects_that_go_at_one_moment_leave_once_and_neither_is_stuck() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    for round in 0..ROUNDS {
        let target = format!("i-round{round}");
        let (a, b) = (format!("a{round}"), format!("b{round}"));
        stage.apply(&a, &target, "sg-web", json!({})).await?;
        stage.until_reason(&a, "Joined").await?;
        stage.apply(&b, &target, "sg-web", json!({})).await?;
        stage.until_reason(&b, "Shared").await?;
        let (first, second) = tokio::join!(stage.delete(&a), stage.delete(&b));
        first.and(second)?;
        stage.until_gone(&a).await?;
        stage.until_gone(&b).await?;
        assert!(!stage.is_member(&target, "sg-web").await?, "round {round}");
        assert_eq!(
            stage.effects("LeaveSecurityGroup").await?,
            round as u64 + 1,
            "round {round}"
        );
    }
    Ok(())
}

/// A stage, and another tenant's namespace beside it, whose own cloud plays no part.
async fn stage_and_tenant() -> Result<(Stage, Stage)> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let tenant = Stage::set(&binaries!(), "").await?;
    Ok((stage, tenant))
}

/// What makes a spec use the account of this name.
fn account(name: &str) -> Value {
    json!({"accountRef": {"kind": "ClusterCloudAccount", "name": name}})
}
