//! Which objects the API server has removed in the moment of their claim, by its audit log: it decides to remove an object that has
//! no finalizer, and the operator's finalizer comes before it does. Reads only.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;

use crate::support::error::Result;

/// When a request arrived, and when it was answered.
type Span = (Timestamp, Timestamp);

/// Deletions and claims of the objects of one name.
#[derive(Default)]
struct Requests {
    deletions: Vec<Span>,
    claims: Vec<Span>,
}

/// The objects whose claim was written while they were being deleted, by their number. What the log does not tell is none: a killed
/// API server leaves half a line.
pub fn removed_in_the_moment_of_their_claim(audit: &Path) -> Result<Vec<usize>> {
    let text = String::from_utf8_lossy(&std::fs::read(audit)?).into_owned();
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok());
    Ok(overlapping(lines))
}

fn overlapping(lines: impl Iterator<Item = Value>) -> Vec<usize> {
    let mut all: BTreeMap<usize, Requests> = BTreeMap::new();
    for line in lines {
        let object = &line["objectRef"];
        let is_done = line["stage"] == "ResponseComplete" && line["responseStatus"]["code"] == 200;
        let is_object =
            object["resource"] == "securitygroupmemberships" && object["subresource"].is_null();
        let number = object["name"]
            .as_str()
            .and_then(|name| name.strip_prefix('n')?.parse().ok());
        let time = |field: &str| line[field].as_str()?.parse::<Timestamp>().ok();
        let span = time("requestReceivedTimestamp").zip(time("stageTimestamp"));
        let (true, true, Some(number), Some(span)) = (is_done, is_object, number, span) else {
            continue;
        };
        let requests = all.entry(number).or_default();
        let uri = line["requestURI"].as_str().unwrap_or_default();
        match line["verb"].as_str() {
            Some("delete") => requests.deletions.push(span),
            Some("patch") if uri.contains("fieldManager=security-group-operator-claim") => {
                requests.claims.push(span);
            }
            _ => {}
        }
    }
    let overlap = |one: &Span, other: &Span| one.0 <= other.1 && other.0 <= one.1;
    let is_raced = |requests: &Requests| {
        let mut deletions = requests.deletions.iter();
        deletions.any(|deletion| requests.claims.iter().any(|claim| overlap(claim, deletion)))
    };
    let raced = all.iter().filter(|(_, requests)| is_raced(requests));
    raced.map(|(number, _)| *number).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(name: &str, verb: &str, from: &str, to: &str) -> Value {
        json!({
            "stage": "ResponseComplete", "verb": verb, "responseStatus": {"code": 200},
            "requestURI": "/apis/…?fieldManager=security-group-operator-claim",
            "objectRef": {"resource": "securitygroupmemberships", "name": name},
            "requestReceivedTimestamp": format!("2026-11-30T12:00:00.{from}Z"),
            "stageTimestamp": format!("2026-11-30T12:00:00.{to}Z"),
        })
    }

    #[test]
    fn only_a_claim_during_the_deletion_is_a_race() {
        let lines = [
            request("n1", "patch", "100", "110"),
            request("n1", "delete", "120", "130"),
            request("n2", "patch", "100", "110"),
            request("n2", "delete", "105", "130"),
            request("n3", "delete", "105", "130"),
        ];
        assert_eq!(overlapping(lines.into_iter()), [2]);
    }
}
