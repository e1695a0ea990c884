//! An object as the store keeps it: compressed. A pass unpacks its object. Pure.
//!
//! `docs/benchmarks.md` has the memory that this saves.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;
use kube::runtime::watcher::Event;
use lz4_flex::block::{compress_prepend_size_with_dict, decompress_size_prepended_with_dict};
use serde::Deserialize;
use serde_json::Value;

use crate::api::{
    SecurityGroupMembership, SecurityGroupMembershipSpec, SecurityGroupMembershipStatus,
};
use crate::watched::{Unreadable, Watched};

use super::object::Object;

/// A compressed object. kube's controller wants it deserializable, although nothing reads it from the API server.
#[derive(Clone, Debug, Deserialize)]
#[serde(from = "Object")]
pub struct Packed {
    /// Only namespace and name, which kube looks for.
    metadata: ObjectMeta,
    object: Result<Box<[u8]>, Box<Unreadable>>,
}

type Parts = (
    ObjectMeta,
    SecurityGroupMembershipSpec,
    Option<SecurityGroupMembershipStatus>,
);

/// What a Ready object has in common with others. What is not in it is compressed less, and nothing else.
const USUAL: &[u8] = include_bytes!("usual.json");

impl Packed {
    /// Packs an object.
    #[must_use]
    pub fn of(object: &Object) -> Self {
        let metadata = name(object);
        let object = match &object.0 {
            Ok(object) => {
                let parts = (&object.metadata, &object.spec, &object.status);
                // Only maps with keys other than texts cannot be written as JSON; there are none.
                let text = serde_json::to_vec(&parts).unwrap_or_default();
                Ok(compress_prepend_size_with_dict(&text, USUAL).into())
            }
            Err(unreadable) => Err(Box::new(unreadable.clone())),
        };
        Self { metadata, object }
    }

    /// Only what names the object.
    #[must_use]
    pub fn name(object: &Object) -> Self {
        Self {
            metadata: name(object),
            object: Ok(Box::default()),
        }
    }

    /// The object, as it was packed.
    #[must_use]
    pub fn unpack(&self) -> Object {
        let packed = match &self.object {
            Ok(packed) => packed,
            Err(unreadable) => return Watched(Err((**unreadable).clone())),
        };
        let unpacked = decompress_size_prepended_with_dict(packed, USUAL)
            .map_err(|error| error.to_string())
            .and_then(|text| {
                serde_json::from_slice::<Parts>(&text).map_err(|error| error.to_string())
            });
        Watched(match unpacked {
            Ok((metadata, spec, status)) => Ok(SecurityGroupMembership {
                metadata,
                spec,
                status,
            }),
            Err(error) => Err(Unreadable {
                error,
                metadata: self.metadata.clone(),
                spec: Value::Null,
                status: Value::Null,
            }),
        })
    }

    /// Packs the object of an event of the watch.
    #[must_use]
    pub fn event(event: &Event<Object>) -> Event<Self> {
        match event {
            Event::Apply(object) => Event::Apply(Self::of(object)),
            // The store only looks for its name.
            Event::Delete(object) => Event::Delete(Self::name(object)),
            Event::Init => Event::Init,
            Event::InitApply(object) => Event::InitApply(Self::of(object)),
            Event::InitDone => Event::InitDone,
        }
    }
}

fn name(object: &Object) -> ObjectMeta {
    ObjectMeta {
        name: object.meta().name.clone(),
        namespace: object.meta().namespace.clone(),
        ..ObjectMeta::default()
    }
}

impl From<Object> for Packed {
    fn from(object: Object) -> Self {
        Self::of(&object)
    }
}

impl Resource for Packed {
    type DynamicType = <Object as Resource>::DynamicType;
    type Scope = <Object as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        Object::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        Object::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        Object::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        Object::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt as _;
    use serde_json::json;

    use super::*;

    /// A Ready object of a set of 1,000 or more.
    fn usual() -> Object {
        serde_json::from_value(json!({
            "metadata": {
                "name": "web-i-bp67f3vq8zr1k5m0c2ab-3e0c9a17", "namespace": "payments", "uid": "0b2c7f5e-5e0e-4a43-9a3b-6d1f3c1e8a94",
                "resourceVersion": "48213377", "generation": 1, "creationTimestamp": "2026-11-28T09:41:13Z",
                "finalizers": ["security-group-operator.io/membership"],
            },
            "spec": {"region": "cn-shanghai", "instanceID": "i-bp67f3vq8zr1k5m0c2ab", "securityGroupID": "sg-bp1h4j7k2m9n5p8q3r6s"},
            "status": {
                "observedGeneration": 1,
                "conditions": [
                    {
                        "type": "Ready", "status": "True", "reason": "Joined", "observedGeneration": 1,
                        "message": "i-bp67f3vq8zr1k5m0c2ab is a member of sg-bp1h4j7k2m9n5p8q3r6s; joined by the operator",
                        "lastTransitionTime": "2026-11-28T09:41:15Z",
                    },
                    {
                        "type": "Drifted", "status": "False", "reason": "NoDrift", "observedGeneration": 1,
                        "message": "no drift is known", "lastTransitionTime": "2026-11-28T09:41:15Z",
                    },
                ],
                "origin": "Joined", "objectUID": "0b2c7f5e-5e0e-4a43-9a3b-6d1f3c1e8a94", "accountUID": "1987654321098765",
                "target": {"state": "Running", "vpcID": "vpc-bp1a2b3c4d5e6f7g8h9i"},
            },
        }))
        .unwrap()
    }

    #[test]
    fn usual_object_takes_less_than_a_quarter_of_its_text() {
        let object = usual();
        let Packed { object: packed, .. } = Packed::of(&object);
        let object = object.0.unwrap();
        let text = json!((&object.metadata, &object.spec, &object.status)).to_string();
        let (packed, text) = (packed.unwrap().len(), text.len());
        assert!(packed * 4 < text, "{packed} of {text} bytes");
    }

    fn object(spec: Value) -> Object {
        serde_json::from_value(json!({
            "metadata": {
                "name": "web", "namespace": "team", "uid": "u-1", "resourceVersion": "7", "generation": 2,
                "creationTimestamp": "2026-01-02T03:04:05Z",
                "deletionTimestamp": "2026-01-03T03:04:05Z",
                "annotations": {"security-group-operator.io/intent": "Joined"},
                "finalizers": ["example.com/a", "security-group-operator.io/membership"],
                "ownerReferences": [{
                    "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet",
                    "name": "nodes", "uid": "u-set", "controller": true,
                }],
            },
            "spec": spec,
            "status": {
                "observedGeneration": 2, "origin": "Joined", "objectUID": "u-1", "accountUID": "1",
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "Joined", "message": "\"a\"\n節",
                    "lastTransitionTime": "2026-01-02T03:04:06Z", "observedGeneration": 2,
                }],
                "target": {"state": "Running", "vpcID": "vpc-1", "lockReasons": ["financial"]},
                "lastError": {
                    "action": "JoinSecurityGroup", "class": "Blocked", "time": "2026-01-02T03:04:05Z", "message": "",
                },
            },
        }))
        .unwrap()
    }

    fn spec() -> Value {
        json!({
            "region": "cn-hangzhou", "networkInterfaceID": "eni-1", "securityGroupID": "sg-1",
            "accountRef": {"kind": "CloudAccount", "name": "own"}, "managementPolicy": "Observe",
            "adoptionPolicy": "Refuse", "deletionPolicy": "Retain", "driftPolicy": "Report", "karpenterPolicy": "Join",
            "suspend": true,
        })
    }

    #[test]
    fn object_is_unpacked_as_it_was() {
        let object = object(spec());
        let unpacked = Packed::of(&object).unpack();
        assert_eq!(unpacked.0.unwrap(), object.0.unwrap());
    }

    #[test]
    fn unreadable_object_is_unpacked_as_it_was() {
        let mut spec = spec();
        spec["deletionPolicy"] = json!("Explode");
        let object = object(spec);
        let packed = Packed::of(&object);
        assert_eq!(packed.name_any(), "web");
        let (unpacked, stored) = (packed.unpack().0.unwrap_err(), object.0.unwrap_err());
        assert_eq!(unpacked.metadata, stored.metadata);
        assert_eq!(
            (unpacked.error, unpacked.spec, unpacked.status),
            (stored.error, stored.spec, stored.status)
        );
    }
}
