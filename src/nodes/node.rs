//! A Node as it is watched. Only types.

use std::borrow::Cow;
use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Resource;
use kube::core::ClusterResourceScope;
use serde::{Deserialize, Deserializer};

use super::condition::StoredCondition;

/// What kube's watch reads of a Node. Images and all that else makes up most of a Node are passed over unread, and every condition
/// but ours.
#[derive(Clone, Debug, Default)]
pub struct Node {
    pub(super) metadata: ObjectMeta,
    pub(super) provider_id: Option<String>,
    pub(super) condition: Option<StoredCondition>,
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Default, Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        struct Metadata {
            name: Option<String>,
            uid: Option<String>,
            resource_version: Option<String>,
            creation_timestamp: Option<Time>,
            labels: Option<BTreeMap<String, String>>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Spec {
            #[serde(rename = "providerID")]
            provider_id: Option<String>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Status {
            #[serde(deserialize_with = "super::condition::read")]
            conditions: Option<StoredCondition>,
        }
        #[derive(Deserialize)]
        struct Parts {
            #[serde(default)]
            metadata: Metadata,
            #[serde(default)]
            spec: Spec,
            #[serde(default)]
            status: Status,
        }
        let Parts {
            metadata,
            spec,
            status,
        } = Parts::deserialize(deserializer)?;
        Ok(Self {
            metadata: ObjectMeta {
                name: metadata.name,
                uid: metadata.uid,
                resource_version: metadata.resource_version,
                creation_timestamp: metadata.creation_timestamp,
                labels: metadata.labels,
                ..ObjectMeta::default()
            },
            provider_id: spec.provider_id,
            condition: status.conditions,
        })
    }
}

impl Resource for Node {
    type DynamicType = ();
    type Scope = ClusterResourceScope;

    fn kind((): &()) -> Cow<'_, str> {
        "Node".into()
    }

    fn group((): &()) -> Cow<'_, str> {
        "".into()
    }

    fn version((): &()) -> Cow<'_, str> {
        "v1".into()
    }

    fn plural((): &()) -> Cow<'_, str> {
        "nodes".into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
