//! How many calls an account may make. Only types.

use std::borrow::Cow;
use std::collections::BTreeMap;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Calls per minute of each API, in each region.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallLimits(pub BTreeMap<LimitedApi, u32>);

/// An API whose calls can be limited: those of ECS that the operator calls. STS is called a few times per hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LimitedApi {
    /// Adds a target to a group.
    JoinSecurityGroup,
    /// Removes a target from a group.
    LeaveSecurityGroup,
    /// Reads instances.
    DescribeInstances,
    /// Reads network interfaces.
    DescribeNetworkInterfaces,
    /// Reads the tags of security groups, for grants by tags.
    DescribeSecurityGroups,
}

/// The most calls per minute that a spec can name. The cloud admits fewer of each API.
const MOST: u32 = 10_000;

impl JsonSchema for CallLimits {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "CallLimits".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let apis = [
            LimitedApi::JoinSecurityGroup,
            LimitedApi::LeaveSecurityGroup,
            LimitedApi::DescribeInstances,
            LimitedApi::DescribeNetworkInterfaces,
            LimitedApi::DescribeSecurityGroups,
        ]
        .map(|api| format!("{api:?}"));
        let quoted = apis.each_ref().map(|api| format!("'{api}'")).join(", ");
        json_schema!({
            "type": "object",
            "maxProperties": 16,
            "additionalProperties": {"type": "integer", "format": "int32", "minimum": 1, "maximum": MOST},
            "x-kubernetes-validations": [{
                "rule": format!("self.all(api, api in [{quoted}])"),
                "message": format!("must name APIs that the operator calls: {}", apis.join(", ")),
                "reason": "FieldValueInvalid",
            }],
        })
    }
}
