//! Parses the API server's audit log into a list of requests and answers. Reads only.

use std::collections::BTreeSet;
use std::path::Path;

use serde::Deserialize;

use super::error::{Context, Result};

/// One request to the API server. Inapplicable fields are empty.
#[derive(Debug, Clone)]
pub struct AuditEvent {
    pub user: String,
    pub user_agent: String,
    pub verb: String,
    pub api_group: String,
    pub resource: String,
    pub subresource: String,
    pub namespace: String,
    pub name: String,
    /// Path and query.
    pub uri: String,
    pub code: u16,
}

/// Every answered request in the log, once: a watch from its start, any other request from its answer.
///
/// The API server writes the line after the answer: the latest requests may be missing.
pub fn read(log: &Path) -> Result<Vec<AuditEvent>> {
    let text = std::fs::read_to_string(log).context(log.display())?;
    let mut seen = BTreeSet::new();
    let mut events = Vec::new();
    // The last piece has no newline if it is still being written; complete lines all have one.
    for line in text
        .split_inclusive('\n')
        .filter(|line| line.ends_with('\n'))
    {
        let line: Line =
            serde_json::from_str(line).context(format!("a line of {}: {line}", log.display()))?;
        if ANSWERED.contains(&line.stage.as_str()) && seen.insert(line.audit_id.clone()) {
            events.push(line.into());
        }
    }
    Ok(events)
}

const ANSWERED: [&str; 2] = ["ResponseStarted", "ResponseComplete"];

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: String,
    verb: String,
    user: User,
    #[serde(default)]
    user_agent: String,
    #[serde(default, rename = "requestURI")]
    uri: String,
    #[serde(default)]
    object_ref: ObjectRef,
    #[serde(default)]
    response_status: ResponseStatus,
}

/// An unauthenticated user has no name.
#[derive(Deserialize)]
struct User {
    #[serde(default)]
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct ObjectRef {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct ResponseStatus {
    code: u16,
}

impl From<Line> for AuditEvent {
    fn from(line: Line) -> Self {
        let ObjectRef {
            api_group,
            resource,
            subresource,
            namespace,
            name,
        } = line.object_ref;
        Self {
            user: line.user.username,
            user_agent: line.user_agent,
            verb: line.verb,
            api_group,
            resource,
            subresource,
            namespace,
            name,
            uri: line.uri,
            code: line.response_status.code,
        }
    }
}
