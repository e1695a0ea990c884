//! Some hundred edges on a test environment, and what the operator writes for them. Knows nothing of what is right.

use futures::future::try_join_all;
use serde_json::json;

use super::control_plane::ControlPlane;
use super::env::TestEnv;
use super::error::Result;

/// As many as need a few calls of a hundred.
pub const EDGES: usize = 300;
const OPERATOR: &str = "system:serviceaccount:security-group-operator:security-group-operator";

/// So many instances, in sg-base only, these limits, and the latency of a real call: what comes during a call goes together.
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

/// How often one of them is there.
pub fn count(writes: &[String], what: &str) -> usize {
    writes.iter().filter(|write| *write == what).count()
}
