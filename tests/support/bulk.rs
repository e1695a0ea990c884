//! Some hundred edges in a test environment, and the operator's writes for them. Asserts nothing.

use futures::future::try_join_all;
use serde_json::json;

use super::control_plane::ControlPlane;
use super::env::TestEnv;
use super::error::Result;

/// Enough for a few calls of 100 targets each.
pub const EDGES: usize = 300;
const OPERATOR: &str = "system:serviceaccount:security-group-operator:security-group-operator";

/// `EDGES` instances, all in sg-base only, with these limits and the latency of a real call, so that concurrent reads are
/// batched.
pub fn inventory(limits: &str) -> String {
    let instances = (0..EDGES)
        .map(|n| format!("- {{id: i-{n:04}, securityGroupIds: [sg-base]}}\n"))
        .collect::<Vec<_>>()
        .concat();
    format!(
        "settings: {{latency: 30ms, limits: {limits}}}\nsecurityGroups:\n- {{id: sg-base}}\n- {{id: sg-web}}\ninstances:\n{instances}"
    )
}

/// Applies the memberships of these instances in sg-web.
pub async fn apply(env: &TestEnv, edges: std::ops::Range<usize>) -> Result<()> {
    try_join_all(edges.map(|n| async move {
        env.apply(
            &format!("edge-{n:04}"),
            &format!("i-{n:04}"),
            "sg-web",
            json!({}),
        )
        .await
    }))
    .await?;
    Ok(())
}

/// Returns when all of them are Ready.
pub async fn all_ready(env: &TestEnv, edges: std::ops::Range<usize>) -> Result<()> {
    for n in edges {
        env.until_ready(&format!("edge-{n:04}")).await?;
    }
    Ok(())
}

/// The operator's writes in the test environment's namespace, as `verb resource/subresource`.
pub fn writes(env: &TestEnv, plane: &ControlPlane) -> Result<Vec<String>> {
    let events = plane.audit_events()?;
    Ok(events
        .into_iter()
        .filter(|event| event.user == OPERATOR && event.namespace == env.name)
        .filter(|event| {
            matches!(
                event.verb.as_str(),
                "create" | "update" | "patch" | "delete"
            )
        })
        .map(|event| format!("{} {}/{}", event.verb, event.resource, event.subresource))
        .collect())
}

/// Number of these writes.
pub fn count(writes: &[String], what: &str) -> usize {
    writes.iter().filter(|write| *write == what).count()
}
