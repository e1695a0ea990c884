//! Deserializes objects in answers of the API server. An unreadable object does not stop the others, and only the metadata
//! that the operator uses is stored: any user of a namespace can make the rest as large as the API server takes it. No I/O.
//!
//! Not kube's `DeserializeGuard`: it reads everything into a tree, copies the tree, and reads `managedFields` into a second
//! one. `managedFields` are most of an object's bytes here.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference, Time};
use kube::Resource;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, de};
use serde_json::{Map, Value};

use crate::api::{ACCOUNT_FINALIZER, ANNOTATIONS, FINALIZER, GROUP, SecurityGroupMembershipSet};
use crate::condition::truncate;

/// An object, or why it is unreadable.
#[derive(Clone, Debug)]
pub struct Watched<K>(pub Result<K, Unreadable>);

/// An object that does not match this version of the kind.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{error}")]
pub struct Unreadable {
    /// The field and its problem.
    pub error: String,
    /// Metadata of the object.
    pub metadata: ObjectMeta,
    /// Spec of the object, unparsed.
    pub spec: Value,
    /// Status of the object, unparsed.
    pub status: Value,
}

impl<'de, K: Resource + DeserializeOwned> Deserialize<'de> for Watched<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Parts { metadata, mut rest } = Parts::deserialize(deserializer)?;
        let metadata = ObjectMeta::from(metadata);
        rest.insert("metadata".to_owned(), Value::Object(Map::new()));
        let rest = Value::Object(rest);
        Ok(Self(match K::deserialize(&rest) {
            Ok(mut object) => {
                *object.meta_mut() = metadata;
                Ok(object)
            }
            Err(_) => Err(Unreadable {
                spec: rest.get("spec").cloned().unwrap_or_default(),
                status: rest.get("status").cloned().unwrap_or_default(),
                error: why_unreadable::<K>(rest),
                metadata,
            }),
        }))
    }
}

/// Parses the object once more, with a slower parser that names the field.
fn why_unreadable<K: DeserializeOwned>(object: Value) -> String {
    match serde_path_to_error::deserialize::<_, K>(object) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[derive(Deserialize)]
struct Parts {
    #[serde(default)]
    metadata: Metadata,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// The metadata fields that the operator uses. All others are skipped unread.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Metadata {
    name: Option<String>,
    namespace: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    generation: Option<i64>,
    creation_timestamp: Option<Time>,
    deletion_timestamp: Option<Time>,
    #[serde(deserialize_with = "our_finalizer")]
    finalizers: Option<Vec<String>>,
    #[serde(deserialize_with = "our_annotations")]
    annotations: Option<BTreeMap<String, String>>,
    #[serde(deserialize_with = "our_set")]
    owner_references: Option<Vec<OwnerReference>>,
}

impl From<Metadata> for ObjectMeta {
    fn from(metadata: Metadata) -> Self {
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            uid: metadata.uid,
            resource_version: metadata.resource_version,
            generation: metadata.generation,
            creation_timestamp: metadata.creation_timestamp,
            deletion_timestamp: metadata.deletion_timestamp,
            finalizers: metadata.finalizers,
            annotations: metadata.annotations,
            owner_references: metadata.owner_references,
            ..Self::default()
        }
    }
}

/// Others' finalizers that are kept, for the message of an object that they keep; and the longest name, in bytes.
const OTHERS: usize = 2;
const OTHER_LIMIT: usize = 128;

/// Keeps our finalizer, if it is there, and the first two others: users may add thousands.
fn our_finalizer<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<String>>, D::Error> {
    struct Ours;
    impl<'de> Visitor<'de> for Ours {
        type Value = Option<Vec<String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("finalizers")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let (mut kept, mut others) = (Vec::new(), 0);
            while let Some(name) = list.next_element::<Cow<'_, str>>()? {
                if name == FINALIZER || name == ACCOUNT_FINALIZER {
                    kept.push(name.into_owned());
                } else if others < OTHERS {
                    others += 1;
                    kept.push(truncate(&name, OTHER_LIMIT));
                }
            }
            kept.shrink_to_fit();
            Ok((!kept.is_empty()).then_some(kept))
        }
    }
    deserializer.deserialize_any(Ours)
}

/// Keeps the beginnings of our annotations, and no other: `kubectl apply` stores the whole manifest in one.
fn our_annotations<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<BTreeMap<String, String>>, D::Error> {
    struct Ours;
    impl<'de> Visitor<'de> for Ours {
        type Value = Option<BTreeMap<String, String>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("annotations")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
            let mut ours = BTreeMap::new();
            while let Some(name) = map.next_key::<Cow<'_, str>>()? {
                if ANNOTATIONS.contains(&&*name) {
                    let value: Cow<'_, str> = map.next_value()?;
                    let value = value.chars().take(ANNOTATION_LIMIT).collect();
                    ours.insert(name.into_owned(), value);
                } else {
                    map.next_value::<IgnoredAny>()?;
                }
            }
            Ok((!ours.is_empty()).then_some(ours))
        }
    }
    deserializer.deserialize_any(Ours)
}

/// Keeps the set that controls the object, if one does, and no other owner: users may add thousands.
fn our_set<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Vec<OwnerReference>>, D::Error> {
    struct Ours;
    impl<'de> Visitor<'de> for Ours {
        type Value = Option<Vec<OwnerReference>>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("owner references")
        }

        fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
            Ok(None)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
            let mut kept = None;
            while let Some(owner) = list.next_element::<OwnerReference>()? {
                if is_set(&owner) && owner.controller == Some(true) {
                    kept = Some(vec![owner]);
                }
            }
            Ok(kept)
        }
    }
    deserializer.deserialize_any(Ours)
}

fn is_set(owner: &OwnerReference) -> bool {
    let group = owner.api_version.split('/').next();
    owner.kind == SecurityGroupMembershipSet::kind(&()) && group == Some(GROUP)
}

/// In letters. The status repeats a request to reconcile, and the schema of `lastHandledReconcileAt` allows no more; claims are
/// shorter.
const ANNOTATION_LIMIT: usize = 253;

impl<K: Resource> Resource for Watched<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dynamic_type: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dynamic_type)
    }

    fn group(dynamic_type: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dynamic_type)
    }

    fn version(dynamic_type: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dynamic_type)
    }

    fn plural(dynamic_type: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dynamic_type)
    }

    fn meta(&self) -> &ObjectMeta {
        match &self.0 {
            Ok(object) => object.meta(),
            Err(unreadable) => &unreadable.metadata,
        }
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        match &mut self.0 {
            Ok(object) => object.meta_mut(),
            Err(unreadable) => &mut unreadable.metadata,
        }
    }
}

#[cfg(test)]
mod tests {
    use kube::core::WatchEvent;
    use serde_json::json;

    use super::*;
    use crate::api::{INTENT_ANNOTATION, RECONCILE_REQUESTED_ANNOTATION, SecurityGroupMembership};

    type Object = Watched<SecurityGroupMembership>;

    fn stored() -> Value {
        json!({
            "apiVersion": "security-group-operator.io/v1alpha1",
            "kind": "SecurityGroupMembership",
            "metadata": {
                "name": "web", "namespace": "team", "uid": "u-1", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "labels": {"app": "web"},
                "annotations": {
                    "kubectl.kubernetes.io/last-applied-configuration": "{}",
                    "security-group-operator.io/intent": "Joined",
                    "security-group-operator.io/unknown": "",
                    "security-group-operator.io/reconcile-requested-at": "節".repeat(300),
                },
                "finalizers": [
                    format!("example.com/{}", "a".repeat(300)), "example.com/b", "example.com/c",
                    "security-group-operator.io/membership", "example.com/d",
                ],
                "ownerReferences": [
                    {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": "u-a"},
                    {"apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet", "name": "nodes", "uid": "u-set", "controller": true},
                ],
                "managedFields": [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {
                "region": "cn-hangzhou", "instanceID": "i-1", "securityGroupID": "sg-1",
                "accountRef": {"name": "default"},
            },
        })
    }

    #[test]
    fn only_needed_fields_are_kept() {
        let text = json!({"type": "MODIFIED", "object": stored()}).to_string();
        let WatchEvent::Modified(Object { 0: Ok(object) }) = serde_json::from_str(&text).unwrap()
        else {
            unreachable!("it is readable");
        };
        let metadata = object.metadata;
        assert_eq!(metadata.name.as_deref(), Some("web"));
        assert_eq!(metadata.namespace.as_deref(), Some("team"));
        assert_eq!(metadata.uid.as_deref(), Some("u-1"));
        assert_eq!(metadata.resource_version.as_deref(), Some("7"));
        assert_eq!(metadata.generation, Some(2));
        assert!(metadata.creation_timestamp.is_some());
        let finalizers = metadata.finalizers.unwrap();
        assert_eq!(finalizers[0].len(), OTHER_LIMIT);
        assert_eq!(finalizers[1..], ["example.com/b", FINALIZER]);
        let annotations: Vec<(String, String)> =
            metadata.annotations.into_iter().flatten().collect();
        let annotation = |name: &str, value: String| (name.to_owned(), value);
        assert_eq!(
            annotations,
            [
                annotation(INTENT_ANNOTATION, "Joined".to_owned()),
                annotation(
                    RECONCILE_REQUESTED_ANNOTATION,
                    "節".repeat(ANNOTATION_LIMIT)
                ),
            ]
        );
        let owners = metadata.owner_references.unwrap();
        assert_eq!(owners.len(), 1);
        assert_eq!(owners[0].uid, "u-set");
        assert_eq!((metadata.labels, metadata.managed_fields), (None, None));
        assert_eq!(object.spec.region, "cn-hangzhou");
    }

    #[test]
    fn unreadable_object_keeps_uid_and_names_the_field() {
        let mut object = stored();
        object["spec"]["deletionPolicy"] = json!("Explode");
        let Object { 0: Err(unreadable) } = serde_json::from_value(object).unwrap() else {
            unreachable!("it is not readable");
        };
        assert_eq!(unreadable.metadata.uid.as_deref(), Some("u-1"));
        assert!(
            unreadable.error.starts_with("spec.deletionPolicy: "),
            "{unreadable}"
        );
    }

    #[test]
    fn null_annotations_and_finalizers_are_accepted() {
        let mut object = stored();
        object["metadata"]["annotations"] = Value::Null;
        object["metadata"]["finalizers"] = Value::Null;
        object["metadata"]["ownerReferences"] = Value::Null;
        assert!(serde_json::from_value::<Object>(object).unwrap().0.is_ok());
    }
}
