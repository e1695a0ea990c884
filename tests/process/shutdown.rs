//! SIGTERM in the middle of many slow calls: the process ends with those that are under way, and begins none of the others.

use std::fmt::Write as _;

use kube::api::ListParams;
use serde_json::json;

use crate::OnlyOperator;
use crate::support::env::ready;
use crate::support::error::Result;
use crate::support::eventually::eventually;

const OBJECTS: usize = 100;
/// Calls of one account and region that the operator makes at a time.
const UNDER_WAY: u64 = 32;

#[tokio::test]
async fn sigterm_begins_no_further_call_and_records_those_under_way() -> Result<()> {
    let mut inventory = "securityGroups: [{id: sg-base}, {id: sg-web}]\ninstances:\n".to_owned();
    for n in 0..OBJECTS {
        writeln!(inventory, "- {{id: i-n{n}, securityGroupIds: [sg-base]}}")?;
    }
    let mut operator = OnlyOperator::start(&[]).await?;
    let env = operator.env(&inventory).await?;
    let slow = json!({"action": "JoinSecurityGroup", "fault": {"latency": "20s"}});
    env.simulator.faults(&slow).await?;
    for n in 0..OBJECTS {
        env.apply(&format!("n{n}"), &format!("i-n{n}"), "sg-web", json!({}))
            .await?;
    }
    eventually("as many calls as may be are under way", async || {
        Ok(env.calls("JoinSecurityGroup").await? >= UNDER_WAY)
    })
    .await?;
    let begun = env.calls("JoinSecurityGroup").await?;
    assert_eq!(operator.stop().await?, 0);
    assert_eq!(env.calls("JoinSecurityGroup").await?, begun);
    assert_eq!(env.effects("JoinSecurityGroup").await?, begun);
    // Nobody runs now.
    let objects = env.memberships().list(&ListParams::default()).await?;
    let joined = objects.into_iter().filter(|object| {
        let ready = ready(object);
        ready.is_some_and(|ready| ready.reason == "Joined")
    });
    assert_eq!(joined.count() as u64, begun);

    env.simulator.faults(&json!([])).await?;
    operator.restart().await?;
    for n in 0..OBJECTS {
        env.until_ready(&format!("n{n}")).await?;
    }
    assert_eq!(env.effects("JoinSecurityGroup").await?, OBJECTS as u64);
    Ok(())
}
