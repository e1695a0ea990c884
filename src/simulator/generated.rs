//! A cloud of any size with predictable IDs. Pure.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use super::cloud::Cloud;
use super::spec::{GroupSpec, InstanceSpec, InterfaceSpec, InventoryError};

/// The initial group of all generated objects.
pub const BASE_GROUP: &str = "sg-base";

impl Cloud {
    /// `sg-base` and groups, instances and interfaces with predictable IDs. Every instance is Running and in `sg-base`.
    /// Interface n is attached to instance n modulo the number of instances, and is in `sg-base` too.
    ///
    /// # Errors
    /// None in practice.
    pub fn generated(
        instances: usize,
        groups: usize,
        interfaces: usize,
    ) -> Result<Self, InventoryError> {
        let mut cloud = Self::default();
        let base: BTreeSet<String> = [BASE_GROUP.to_owned()].into();
        cloud.create_group(
            &GroupSpec {
                quota: Some(instances + interfaces + 1_000),
                ..GroupSpec::named(BASE_GROUP)
            },
            Timestamp::MIN,
        )?;
        for number in 0..groups {
            cloud.create_group(
                &GroupSpec::named(format!("sg-sim{number:04}")),
                Timestamp::MIN,
            )?;
        }
        for number in 0..instances {
            let spec = InstanceSpec {
                security_group_ids: base.clone(),
                ..InstanceSpec::named(format!("i-sim{number:06}"))
            };
            cloud.create_instance(&spec, Timestamp::MIN, Timestamp::MIN)?;
        }
        for number in 0..interfaces {
            let spec = InterfaceSpec {
                instance_id: number
                    .checked_rem(instances)
                    .map(|number| format!("i-sim{number:06}")),
                security_group_ids: base.clone(),
                ..InterfaceSpec::named(format!("eni-sim{number:06}"))
            };
            cloud.create_interface(&spec, Timestamp::MIN, Timestamp::MIN)?;
        }
        Ok(cloud)
    }
}
