//! An account whose cloud does not answer says so until it does again, beside what is known of its key.

use kube::Api;
use kube::api::{Patch, PatchParams};
use security_group_operator::api::ClusterCloudAccount;
use security_group_operator::api::account::CloudAccountStatus;
use serde_json::{Value, json};

use crate::OnlyOperator;
use crate::support::env::TestEnv;
use crate::support::error::Result;
use crate::support::eventually::eventually;
use crate::support::port;
use crate::support::simulator::probe;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
";

#[tokio::test]
async fn silent_endpoint_makes_the_account_not_reachable() -> Result<()> {
    let operator = OnlyOperator::start(&["--scan-period=1s"]).await?;
    let env = operator.env(INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    until_reachable(&env, "Answering").await?;
    eventually("one event so far", async || {
        Ok(env.account_events().await? == ["CredentialsAccepted Normal"])
    })
    .await?;

    let silent = format!("127.0.0.1:{}", port::free()?);
    let endpoint = |ecs: &str| json!({"spec": {"endpoints": {"ecs": format!("http://{ecs}")}}});
    let write = async |patch: Value| {
        accounts(&env)
            .patch(&env.name, &PatchParams::default(), &Patch::Merge(&patch))
            .await
    };
    write(endpoint(&silent)).await?;
    let status = until_reachable(&env, "NoAnswer").await?;
    let find = |type_: &str| {
        let mut conditions = status.conditions.iter();
        conditions
            .find(|condition| condition.type_ == type_)
            .unwrap()
    };
    let reachable = find("Reachable");
    assert_eq!(reachable.status, "False");
    for part in [silent.as_str(), "Describe", "connect"] {
        assert!(reachable.message.contains(part), "{}", reachable.message);
    }
    assert_eq!(find("Ready").reason, "CredentialsAccepted");

    let simulator = env.simulator.endpoint();
    write(endpoint(simulator.trim_start_matches("http://"))).await?;
    until_reachable(&env, "Answering").await?;
    let expected = [
        "CredentialsAccepted Normal",
        "NoAnswer Warning",
        "Answering Normal",
    ];
    eventually("each transition is one event", async || {
        Ok(env.account_events().await? == expected)
    })
    .await
}

#[tokio::test]
async fn operator_starts_and_its_probes_answer_while_the_cloud_is_down() -> Result<()> {
    let mut operator = OnlyOperator::start(&["--scan-period=1s"]).await?;
    let mut env = operator.env(INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.until_reason("web", "Joined").await?;
    env.simulator.process().kill();
    until_reachable(&env, "NoAnswer").await?;
    for probed in ["/livez", "/readyz"] {
        probe(&operator.url(probed)).await?;
    }
    // Returns when it is ready.
    operator.restart().await?;
    env.apply("late", "i-web", "sg-base", json!({})).await?;
    env.until_reason("late", "AccountNotReady").await?;
    for probed in ["/livez", "/readyz"] {
        probe(&operator.url(probed)).await?;
    }
    Ok(())
}

/// The test environment's account as soon as its Reachable has this reason.
async fn until_reachable(env: &TestEnv, reason: &str) -> Result<CloudAccountStatus> {
    let mut found = CloudAccountStatus::default();
    eventually(&format!("the account is {reason}"), async || {
        found = accounts(env)
            .get(&env.name)
            .await?
            .status
            .unwrap_or_default();
        Ok(found
            .conditions
            .iter()
            .any(|condition| condition.type_ == "Reachable" && condition.reason == reason))
    })
    .await?;
    Ok(found)
}

fn accounts(env: &TestEnv) -> Api<ClusterCloudAccount> {
    Api::all(env.client.clone())
}
