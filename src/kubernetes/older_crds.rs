//! The fields of a status that a CRD of the cluster does not declare, learned from what the API server answers. A server-side apply
//! of such a field is refused as a whole (500), so that it is left out.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use kube::Resource;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::Instant;
use tracing::warn;

use crate::api::{GROUP, INSTALL_CRDS};

use super::Error;

/// After this time a whole status is tried again: the CRD may be a newer one by now (5 minutes).
const AGAIN_AFTER: Duration = Duration::from_secs(5 * 60);

/// What is known of the CRDs, by plural.
#[derive(Debug, Default)]
pub(super) struct OlderCrds(Mutex<HashMap<String, Undeclared>>);

#[derive(Debug)]
struct Undeclared {
    /// Paths below `status`.
    fields: BTreeSet<Vec<String>>,
    since: Instant,
}

impl OlderCrds {
    /// Learns from the answer to an apply which fields are not declared. Returns whether it names any.
    pub(super) fn learn<K: Resource<DynamicType = ()>>(&self, error: &Error) -> bool {
        let fields = match error {
            Error::Api(kube::Error::Api(status)) if status.code == 500 => {
                undeclared_fields(&status.message)
            }
            Error::Api(_) | Error::Timeout { .. } | Error::Stopping => return false,
        };
        if fields.is_empty() {
            return false;
        }
        let plural = K::plural(&()).into_owned();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.entry(plural.clone()).or_insert_with(|| Undeclared {
            fields: BTreeSet::new(),
            since: Instant::now(),
        });
        if known.since.elapsed() >= AGAIN_AFTER {
            known.fields.clear();
            known.since = Instant::now();
        }
        known.fields.extend(fields);
        let names: Vec<String> = known
            .fields
            .iter()
            .map(|field| format!("status.{}", field.join(".")))
            .collect();
        warn_once(
            &plural,
            &format!(
                "the CRD {plural}.{GROUP} is older than this operator: it lacks {}, which the operator does not write; install the CRDs of this version: {INSTALL_CRDS}",
                names.join(" and ")
            ),
        );
        true
    }

    /// Takes the fields out of a status that the CRD is known not to declare. Returns whether any was in it.
    pub(super) fn take_out<K: Resource<DynamicType = ()>>(&self, status: &mut Value) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = known.get(&*K::plural(&()));
        let Some(known) = known.filter(|known| known.since.elapsed() < AGAIN_AFTER) else {
            return false;
        };
        let removed = known.fields.iter().filter(|field| remove(status, field));
        removed.count() > 0
    }

    /// What the API server will store of a status, as far as is known.
    pub(super) fn storable<K, S>(&self, status: S) -> S
    where
        K: Resource<DynamicType = ()>,
        S: Serialize + DeserializeOwned,
    {
        let is_known = {
            let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.contains_key(&*K::plural(&()))
        };
        let mut value = match serde_json::to_value(&status) {
            Ok(value) if is_known => value,
            Ok(_) | Err(_) => return status,
        };
        if self.take_out::<K>(&mut value) {
            serde_json::from_value(value).unwrap_or(status)
        } else {
            status
        }
    }
}

/// Warns that a CRD is older, once for each CRD and process: the check at the start and the first write find the same.
pub fn warn_once(plural: &str, line: &str) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(plural.to_owned()) {
        warn!("{line}");
    }
}

/// The paths below `status` in the API server's sentence: `.status.target: field not declared in schema`, each once.
fn undeclared_fields(sentence: &str) -> BTreeSet<Vec<String>> {
    let parts: Vec<&str> = sentence.split(": field not declared in schema").collect();
    let ends = parts.split_last().map(|(_, ends)| ends).unwrap_or_default();
    let paths = ends.iter().filter_map(|part| {
        let path = part.rsplit(char::is_whitespace).next()?;
        let fields = path.strip_prefix(".status.")?;
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '.';
        fields
            .chars()
            .all(is_plain)
            .then(|| fields.split('.').map(str::to_owned).collect())
    });
    paths.collect()
}

/// Returns whether the field was there.
fn remove(value: &mut Value, path: &[String]) -> bool {
    let Some((field, outer)) = path.split_last() else {
        return false;
    };
    let inner = outer
        .iter()
        .try_fold(value, |value, name| value.get_mut(name));
    let fields = inner.and_then(Value::as_object_mut);
    fields.is_some_and(|fields| fields.remove(field).is_some())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::{SecurityGroupMembership, SecurityGroupMembershipStatus};

    const ONE: &str = "failed to create typed patch object (team/web; security-group-operator.io/v1alpha1, Kind=SecurityGroupMembership): .status.target: field not declared in schema";
    const TWO: &str = "failed to create typed patch object (team/web; security-group-operator.io/v1alpha1, Kind=SecurityGroupMembership): errors:\n  .status.lastError.requestID: field not declared in schema\n  .status.target: field not declared in schema";

    fn refusal(code: u16, sentence: &str) -> Error {
        kube::Error::Api(Box::new(
            kube::core::Status::failure(sentence, "InternalError").with_code(code),
        ))
        .into()
    }

    #[tokio::test(start_paused = true)]
    async fn undeclared_fields_are_left_out_for_a_time() {
        type Kind = SecurityGroupMembership;
        let older = OlderCrds::default();
        let status = || json!({"origin": "Joined", "target": {"state": "Running"}, "lastError": {"requestID": "R", "code": "C"}});
        let stored = |older: &OlderCrds| {
            let mut status = status();
            older.take_out::<Kind>(&mut status);
            status
        };
        assert_eq!(stored(&older), status());
        assert!(!older.learn::<Kind>(&refusal(500, "etcdserver: leader changed")));
        assert!(!older.learn::<Kind>(&refusal(422, ONE)));
        assert!(older.learn::<Kind>(&refusal(500, ONE)));
        assert_eq!(stored(&older)["target"], Value::Null);
        assert!(older.learn::<Kind>(&refusal(500, TWO)));
        let expected = json!({"origin": "Joined", "lastError": {"code": "C"}});
        assert_eq!(stored(&older), expected);
        let known = older.storable::<Kind, _>(SecurityGroupMembershipStatus {
            target: Some(crate::api::membership::TargetStatus::default()),
            ..SecurityGroupMembershipStatus::default()
        });
        assert_eq!(known.target, None);
        tokio::time::advance(AGAIN_AFTER).await;
        assert_eq!(stored(&older), status(), "the CRD may be a newer one");
        assert!(older.learn::<Kind>(&refusal(500, ONE)));
        assert_eq!(stored(&older)["lastError"]["requestID"], "R");
    }

    #[test]
    fn item_of_a_list_is_not_left_out() {
        let sentence = r#"…: .status.conditions[type="Ready"].note: field not declared in schema"#;
        assert_eq!(undeclared_fields(sentence), BTreeSet::new());
    }
}
