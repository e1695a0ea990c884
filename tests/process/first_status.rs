//! An object that no operator has seen yet is not taken for one that is finished.

use serde_json::json;

use crate::OnlyOperator;
use crate::support::env::{TestEnv, ready};
use crate::support::error::{Context, Result};
use crate::support::kstatus;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
";

/// What kstatus calls an object as the API server has it now.
async fn word(env: &TestEnv, name: &str) -> Result<String> {
    let object = serde_json::to_value(env.memberships().get(name).await?)?;
    let results = kstatus::compute(&[object]).await?;
    let result = results.into_iter().next().context("a result")?;
    Ok(result.status)
}

#[tokio::test]
async fn new_object_is_in_progress_before_its_first_reconcile() -> Result<()> {
    let mut operator = OnlyOperator::start(&[]).await?;
    let env = operator.env(INVENTORY).await?;
    operator.kill();
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    let object = env.memberships().get("web").await?;
    let condition = ready(&object).context("a fresh object has no Ready")?;
    assert_eq!(
        (condition.status.as_str(), condition.reason.as_str()),
        ("Unknown", "Pending")
    );
    assert_eq!(word(&env, "web").await?, "InProgress");
    operator.restart().await?;
    env.until_ready("web").await?;
    assert_eq!(word(&env, "web").await?, "Current");
    Ok(())
}
