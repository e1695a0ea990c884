//! What the API server would make of the files, asked with `dryRun`: it checks the schema, the rules, the defaults and the rights.

use futures::{StreamExt as _, TryStreamExt as _, stream};
use kube::api::{Patch, PatchParams, ValidationDirective};
use kube::{Api, ResourceExt as _};
use serde_json::{Value, json};

use crate::api::{SecurityGroupMembership, SecurityGroupMembershipSet};
use crate::kubernetes::with_deadline;

use super::super::cluster::{Cluster, Namespaced};
use super::super::failure::{Failure, exit};

/// What becomes of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// There is none of that name.
    Created,
    /// Its spec changes.
    Configured,
    /// It is as the file says.
    Unchanged,
}

impl Change {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Configured => "configured",
            Self::Unchanged => "unchanged",
        }
    }
}

/// A kind that files may hold.
pub(super) trait Kind: Namespaced {
    /// Whether two objects want the same.
    fn has_spec_of(&self, other: &Self) -> bool;
}

impl Kind for SecurityGroupMembership {
    fn has_spec_of(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

impl Kind for SecurityGroupMembershipSet {
    fn has_spec_of(&self, other: &Self) -> bool {
        self.spec == other.spec
    }
}

/// An object of the files, as it would be stored; or why the API server would refuse it.
pub(super) struct Applied<K> {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) result: Result<(Change, K), Failure>,
}

/// Calls to the API server at the same time.
const AT_ONCE: usize = 8;

/// As `kubectl apply` does it, for all these objects of the files, in their order.
///
/// # Errors
/// The API server cannot be asked at all.
pub(super) async fn dry_run<K: Kind>(
    cluster: &Cluster,
    objects: &[Value],
) -> Result<Vec<Applied<K>>, Failure> {
    let all = stream::iter(objects).map(|object| one(cluster, object));
    all.buffered(AT_ONCE).try_collect().await
}

async fn one<K: Kind>(cluster: &Cluster, object: &Value) -> Result<Applied<K>, Failure> {
    let text = |path: &str| {
        object
            .pointer(path)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let namespace = text("/metadata/namespace").unwrap_or_else(|| cluster.namespace.clone());
    let name = text("/metadata/name").unwrap_or_default();
    let api: Api<K> = Api::namespaced(cluster.client.clone(), &namespace);
    let result = match with_deadline(api.get_opt(&name)).await {
        Ok(live) => apply(&api, live, object, &namespace, &name).await,
        Err(error) => Err(K::request("get", &namespace, &name).failed(&error)),
    };
    // Without an answer nothing is known of any object.
    if let Err(failure) = &result
        && failure.code == exit::FAILED
        && failure.message.contains("API server")
    {
        return Err(failure.clone());
    }
    Ok(Applied {
        namespace,
        name,
        result,
    })
}

async fn apply<K: Kind>(
    api: &Api<K>,
    live: Option<K>,
    object: &Value,
    namespace: &str,
    name: &str,
) -> Result<(Change, K), Failure> {
    let params = PatchParams {
        dry_run: true,
        field_manager: Some("kubectl-client-side-apply".to_owned()),
        field_validation: Some(ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let mut wanted = object.clone();
    if let Some(wanted) = wanted.as_object_mut() {
        wanted.remove("status");
    }
    let (verb, answer) = match &live {
        None => (
            "create",
            with_deadline(api.patch(name, &params, &Patch::Apply(&wanted))).await,
        ),
        Some(live) => {
            let patch = merge_patch(live, &wanted);
            (
                "patch",
                with_deadline(api.patch(name, &params, &Patch::Merge(&patch))).await,
            )
        }
    };
    let stored = answer.map_err(|error| match error.code() {
        Some(400 | 422) => Failure::with(exit::NO, error.to_string()),
        Some(404) => Failure::with(exit::NOT_FOUND, error.to_string()),
        _ => K::request(verb, namespace, name).failed(&error),
    })?;
    let change = match &live {
        None => Change::Created,
        Some(live) if live.has_spec_of(&stored) => Change::Unchanged,
        Some(_) => Change::Configured,
    };
    Ok((change, stored))
}

/// The fields of the file, and null for each field of the spec, at any depth, that the last `kubectl apply` wrote and the file has no more.
fn merge_patch<K: Kind>(live: &K, wanted: &Value) -> Value {
    let annotations = live.annotations();
    let last = annotations.get("kubectl.kubernetes.io/last-applied-configuration");
    let last: Value = last
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let fields = |of: &Value| of.get("spec").cloned().unwrap_or(json!({}));
    let mut spec = fields(wanted);
    take_out_missing(&mut spec, &fields(&last));
    json!({"spec": spec})
}

fn take_out_missing(wanted: &mut Value, last: &Value) {
    let (Value::Object(wanted), Value::Object(last)) = (wanted, last) else {
        return;
    };
    for (name, value) in last {
        take_out_missing(wanted.entry(name.clone()).or_insert(Value::Null), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_that_the_file_has_no_more_is_removed_and_one_of_another_actor_stays() {
        let mut live: SecurityGroupMembership = serde_json::from_value(json!({
            "metadata": {"name": "web"},
            "spec": {
                "region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web",
                "deletionPolicy": "Retain", "suspend": true,
            },
        }))
        .unwrap();
        let file = json!({"spec": {"region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web"}});
        assert_eq!(merge_patch(&live, &file), file);
        let last = json!({"spec": {"region": "cn-hangzhou", "deletionPolicy": "Retain"}});
        live.metadata.annotations.get_or_insert_default().insert(
            "kubectl.kubernetes.io/last-applied-configuration".to_owned(),
            last.to_string(),
        );
        let patch = merge_patch(&live, &file);
        assert_eq!(patch["spec"]["deletionPolicy"], Value::Null);
        assert!(patch["spec"].get("suspend").is_none());
    }

    #[test]
    fn label_that_the_selector_of_the_file_has_no_more_is_removed() {
        let selecting =
            |selector: Value| json!({"spec": {"region": "cn-hangzhou", "nodeSelector": selector}});
        let last = selecting(json!({"matchLabels": {"pool": "a", "zone": "b"}}));
        let live: SecurityGroupMembership = serde_json::from_value(json!({
            "metadata": {
                "name": "web",
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": last.to_string()},
            },
            "spec": {"region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web"},
        }))
        .unwrap();
        for (file, patch) in [
            (
                json!({"matchLabels": {"pool": "a"}}),
                json!({"matchLabels": {"pool": "a", "zone": null}}),
            ),
            (json!({}), json!({"matchLabels": null})),
        ] {
            assert_eq!(merge_patch(&live, &selecting(file)), selecting(patch));
        }
    }
}
