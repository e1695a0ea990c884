//! Initial state of the simulated cloud: the YAML format, the generated inventory, and the conversion of their objects to
//! state. Pure; the format is documented in `docs/simulator.md`.

use super::account::AccessKey;
use super::cloud::{
    Cloud, Groups, Id, Instance, InstanceStatus, InterfaceKind, InterfaceStatus, Member,
    Membership, NetworkInterface, Resource, SecurityGroup,
};
use super::metadata::MetadataChange;
use super::ram::{OidcProvider, Ram, Role};
use super::settings::SettingsChange;
use super::spec::{GroupSpec, InstanceSpec, InterfaceSpec, InventoryError};
use super::timeline::{Timeline, later};
use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;
use std::collections::BTreeSet;
/// An inventory file.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Inventory {
    /// Settings of the whole cloud.
    #[serde(default)]
    pub settings: SettingsChange,
    /// The access keys.
    #[serde(default)]
    pub access_keys: Vec<AccessKey>,
    /// Roles, which STS hands out sessions of.
    #[serde(default)]
    pub roles: Vec<Role>,
    /// OIDC providers: clusters whose service account tokens STS takes.
    #[serde(default)]
    pub oidc_providers: Vec<OidcProvider>,
    /// The metadata service.
    pub metadata: Option<MetadataChange>,
    /// Security groups.
    #[serde(default)]
    pub security_groups: Vec<GroupSpec>,
    /// Instances, each with its primary interface.
    #[serde(default)]
    pub instances: Vec<InstanceSpec>,
    /// Secondary interfaces.
    #[serde(default)]
    pub network_interfaces: Vec<InterfaceSpec>,
}

impl Inventory {
    /// Reads an inventory file.
    ///
    /// # Errors
    /// [`InventoryError::Format`], which names field and line, in one line.
    pub fn from_yaml(text: &str) -> Result<Self, InventoryError> {
        let mut path = String::new();
        serde_saphyr::with_deserializer_from_str(text, |yaml| {
            serde_path_to_error::deserialize(yaml).map_err(|error| {
                path = error.path().to_string();
                error.into_inner()
            })
        })
        .map_err(|error| {
            // Without the excerpt, which would repeat the message.
            let said = plainly(&error.without_snippet().to_string());
            InventoryError::Format(match path.as_str() {
                "" | "." => said,
                path => format!("{path}: {said}"),
            })
        })
    }

    /// Builds the cloud.
    ///
    /// # Errors
    /// Dangling references, duplicate or malformed IDs.
    pub fn build(self, now: Timestamp) -> Result<Cloud, InventoryError> {
        let Self {
            settings,
            access_keys,
            roles,
            oidc_providers,
            metadata,
            security_groups,
            instances,
            network_interfaces,
        } = self;
        let mut cloud = Cloud::default();
        settings.apply(&mut cloud.settings);
        for key in access_keys {
            if let Some(other) = cloud.keys.insert(key) {
                return Err(InventoryError::Duplicate(other.id));
            }
        }
        cloud.ram = Ram::of(roles, oidc_providers);
        metadata.unwrap_or_default().apply(&mut cloud.metadata);
        for spec in &security_groups {
            cloud.create_group(spec, Timestamp::MIN)?;
        }
        for spec in &instances {
            cloud.create_instance(spec, Timestamp::MIN, now)?;
        }
        for spec in &network_interfaces {
            cloud.create_interface(spec, Timestamp::MIN, now)?;
        }
        Ok(cloud)
    }
}

/// Rewrites the parser's message about a wrong type in terms of YAML.
fn plainly(said: &str) -> String {
    said.replace("expected sequence start", "expected a list ([…])")
        .replace("expected mapping start", "expected fields (name: value)")
        .replace("invalid u64", "expected a whole number, not negative")
        .replace("invalid u32", "expected a whole number, not negative")
}

impl Cloud {
    /// Adds a group that exists from `created` on.
    ///
    /// # Errors
    /// A malformed or duplicate ID.
    pub fn create_group(
        &mut self,
        spec: &GroupSpec,
        created: Timestamp,
    ) -> Result<(), InventoryError> {
        let resource = self.admit(
            spec.resource(created)?,
            "sg-",
            "sg- and letters, digits or dashes",
        )?;
        let group = SecurityGroup {
            name: spec.name.clone().unwrap_or_else(|| spec.id.clone()),
            kind: spec.kind,
            service_managed: spec.service_managed,
            rules: spec.rules,
            quota: spec.quota,
            members: BTreeSet::new(),
            resource,
        };
        self.groups.insert(group.resource.id.clone(), group);
        Ok(())
    }

    /// Adds an instance and its primary interface. An intermediate status with a duration starts at `now`.
    ///
    /// # Errors
    /// A malformed or duplicate ID, a group that does not exist.
    pub fn create_instance(
        &mut self,
        spec: &InstanceSpec,
        created: Timestamp,
        now: Timestamp,
    ) -> Result<(), InventoryError> {
        let resource = self.admit(spec.resource(created)?, "i-", "i- and letters or digits")?;
        let primary = primary_id(spec);
        let primary = self.admit(
            Resource {
                id: primary.into(),
                ..resource.clone()
            },
            "eni-",
            "eni- and letters or digits",
        )?;
        let groups = self.known_groups(&spec.id, &spec.security_group_ids)?;
        let number = self.instances.len();
        let status = spec.status.unwrap_or(InstanceStatus::Running);
        let mut timeline = Timeline::new(status);
        if let Some(duration) = spec.status_for {
            timeline.plan(later(now, duration), status.settles_in());
        }
        let instance = Instance {
            name: spec.name.clone().unwrap_or_else(|| spec.id.clone()),
            zone: zone(spec.zone_id.as_ref(), &resource),
            vswitch: vswitch(spec.v_switch_id.as_ref()),
            instance_type: spec
                .instance_type
                .clone()
                .unwrap_or_else(|| "ecs.g7.large".to_owned()),
            image: spec.image_id.as_deref().unwrap_or(IMAGE).into(),
            private_ip: spec
                .private_ip
                .clone()
                .unwrap_or_else(|| address(10, number)),
            status: timeline,
            locks: spec.locks.clone(),
            enterprise_groups: spec.enterprise_groups.unwrap_or(true),
            primary: primary.id.clone(),
            attached: BTreeSet::new(),
            membership: membership(spec.quota),
            resource,
        };
        let interface = primary_interface(&instance, primary);
        let member = Member::Instance(instance.resource.id.clone());
        self.instances
            .insert(instance.resource.id.clone(), instance);
        self.interfaces
            .insert(interface.resource.id.clone(), interface);
        self.seed_groups(&member, &groups);
        Ok(())
    }

    /// Adds a secondary interface. An intermediate status with a duration starts at `now`.
    ///
    /// # Errors
    /// A malformed or duplicate ID, a group or an instance that does not exist.
    pub fn create_interface(
        &mut self,
        spec: &InterfaceSpec,
        created: Timestamp,
        now: Timestamp,
    ) -> Result<(), InventoryError> {
        let resource = self.admit(
            spec.resource(created)?,
            "eni-",
            "eni- and letters or digits",
        )?;
        let groups = self.known_groups(&spec.id, &spec.security_group_ids)?;
        self.check_instance(spec)?;
        let number = self.interfaces.len();
        let status = spec.status.unwrap_or(match spec.instance_id {
            Some(_) => InterfaceStatus::InUse,
            None => InterfaceStatus::Available,
        });
        let mut timeline = Timeline::new(status);
        let mut resource = resource;
        if let Some(duration) = spec.status_for {
            let end = later(now, duration);
            match status {
                InterfaceStatus::Deleting => resource.deleted = Some(end),
                InterfaceStatus::Creating
                | InterfaceStatus::Available
                | InterfaceStatus::Attaching
                | InterfaceStatus::InUse
                | InterfaceStatus::Detaching => timeline.plan(end, status.settles_in()),
            }
        }
        let interface = NetworkInterface {
            name: spec.name.clone(),
            kind: InterfaceKind::Secondary,
            instance: spec.instance_id.as_deref().map(Id::from),
            zone: zone(spec.zone_id.as_ref(), &resource),
            vswitch: vswitch(spec.v_switch_id.as_ref()),
            private_ip: spec
                .private_ip
                .clone()
                .unwrap_or_else(|| address(11, number)),
            status: timeline,
            service_managed: spec.service_managed,
            membership: membership(spec.quota),
            resource,
        };
        let member = Member::NetworkInterface(interface.resource.id.clone());
        if let Some(instance) = interface
            .instance
            .as_ref()
            .and_then(|id| self.instances.get_mut(id))
        {
            instance.attached.insert(interface.resource.id.clone());
        }
        self.interfaces
            .insert(interface.resource.id.clone(), interface);
        self.seed_groups(&member, &groups);
        Ok(())
    }

    fn admit(
        &mut self,
        resource: Resource,
        prefix: &str,
        expected: &'static str,
    ) -> Result<Resource, InventoryError> {
        let id = &resource.id;
        let dash = prefix == "sg-";
        let valid = id.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty()
                && rest
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || dash && byte == b'-')
        });
        if !valid {
            return Err(InventoryError::Id {
                id: id.to_string(),
                expected,
            });
        }
        let taken = [
            self.instances
                .get(id)
                .map(|instance| instance.resource.deleted),
            self.interfaces
                .get(id)
                .map(|interface| interface.resource.deleted),
            self.groups.get(id).map(|group| group.resource.deleted),
        ];
        if taken.into_iter().flatten().any(|deleted| deleted.is_none()) {
            return Err(InventoryError::Duplicate(id.to_string()));
        }
        self.regions.insert(resource.region.clone());
        Ok(resource)
    }

    /// The instance that an interface names exists.
    fn check_instance(&self, spec: &InterfaceSpec) -> Result<(), InventoryError> {
        let missing = spec
            .instance_id
            .as_ref()
            .filter(|id| !self.instances.contains_key(id.as_str()));
        missing.map_or(Ok(()), |missing| {
            Err(InventoryError::Dangling {
                id: spec.id.clone(),
                field: "instanceId",
                missing: missing.clone(),
            })
        })
    }

    fn known_groups(&self, id: &str, groups: &BTreeSet<String>) -> Result<Groups, InventoryError> {
        if let Some(missing) = groups
            .iter()
            .find(|group| !self.groups.contains_key(group.as_str()))
        {
            return Err(InventoryError::Dangling {
                id: id.to_owned(),
                field: "securityGroupIds",
                missing: missing.clone(),
            });
        }
        Ok(groups
            .iter()
            .map(|group| Id::from(group.as_str()))
            .collect())
    }

    fn seed_groups(&mut self, member: &Member, groups: &Groups) {
        if let Some(membership) = self.membership_mut(member) {
            membership.groups = Timeline::new(groups.clone());
        }
        let id: Id = member.to_string().into();
        for group in groups.iter() {
            if let Some(group) = self.groups.get_mut(group) {
                group.members.insert(id.clone());
            }
        }
    }
}

/// The image of an instance without one of its own.
const IMAGE: &str = "aliyun_3_x64_20G_alibase_20260122.vhd";

/// ID of the interface that an instance is created with.
fn primary_id(spec: &InstanceSpec) -> String {
    let given = spec.primary_network_interface_id.clone();
    let number = spec.id.strip_prefix("i-").unwrap_or_default();
    given.unwrap_or_else(|| format!("eni-primary{number}"))
}

/// The interface that an instance is created with.
fn primary_interface(instance: &Instance, resource: Resource) -> NetworkInterface {
    NetworkInterface {
        name: None,
        kind: InterfaceKind::Primary,
        instance: Some(instance.resource.id.clone()),
        zone: instance.zone.clone(),
        vswitch: instance.vswitch.clone(),
        private_ip: instance.private_ip.clone(),
        status: Timeline::new(InterfaceStatus::InUse),
        service_managed: false,
        membership: membership(None),
        resource,
    }
}

/// The zone of an object, by default the first one of its region.
fn zone(given: Option<&String>, resource: &Resource) -> String {
    given
        .cloned()
        .unwrap_or_else(|| format!("{}-a", resource.region))
}

/// The virtual switch of an object.
fn vswitch(given: Option<&String>) -> String {
    given.cloned().unwrap_or_else(|| "vsw-sim".to_owned())
}

fn membership(quota: Option<usize>) -> Membership {
    Membership {
        groups: Timeline::new(Groups::from([])),
        quota,
        busy_until: Timestamp::MIN,
    }
}

fn address(net: u8, number: usize) -> String {
    let number = number + 1;
    format!(
        "{net}.{}.{}.{}",
        number >> 16 & 0xff,
        number >> 8 & 0xff,
        number & 0xff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documented_example_inventory_is_valid() {
        let document = include_str!("../../docs/simulator.md");
        let example = document
            .split("```yaml\n")
            .nth(1)
            .and_then(|rest| rest.split("```").next())
            .unwrap();
        let cloud = Inventory::from_yaml(example)
            .unwrap()
            .build(Timestamp::UNIX_EPOCH)
            .unwrap();
        assert!(cloud.instances.len() > 1);
    }

    #[test]
    fn invalid_inventory_names_field_place_and_fix() {
        for (yaml, said, place) in [
            (
                "instances: [{id: i-1, securityGroups: [sg-1]}]",
                "instances[0].securityGroups: unknown field `securityGroups`, expected one of id, ",
                " at line 1, column 23",
            ),
            (
                "instance: []",
                "instance: unknown field",
                " at line 1, column 1",
            ),
            (
                "settings: {latencyMs: 3}",
                "settings.latencyMs: unknown field",
                " at line 1, column 12",
            ),
            (
                "accessKeys: [{id: a, secret: b, token: c}]",
                "accessKeys[0].token: unknown field",
                " at line 1, column 33",
            ),
            (
                "accessKeys: [{id: a, secret: ''}]",
                "accessKeys[0].secret: an access key has an id and a secret",
                " at line 1, column 30",
            ),
            (
                "settings: {limits: {JoinSecurityGroups: 1}}",
                "settings.limits: there is no action \"JoinSecurityGroups\": write one of JoinSecurityGroup, ",
                " at line 1, column 20",
            ),
            (
                "settings: {lag: 11m}",
                "settings.lag: a lag is 10m at most",
                " at line 1, column 17",
            ),
            (
                "settings: {groupsPerTarget: -1}",
                "settings.groupsPerTarget: expected a whole number",
                " at line 1, column 29",
            ),
            (
                "instances:\n- {id: i-1}\n- {id: i-2, status: Sleeping}",
                "instances[1].status: unknown variant `Sleeping`, expected one of Pending, Starting",
                " at line 3, column 21",
            ),
            (
                "instances: [{id: i-1, securityGroupIds: sg-1}]",
                "instances[0].securityGroupIds: expected a list",
                " at line 1, column 41",
            ),
            (
                "instances: [{name: web}]",
                "instances[0]: missing field `id`",
                " at line 1, column 14",
            ),
            ("- id: i-1", "expected fields", " at line 1, column 1"),
        ] {
            let error = Inventory::from_yaml(yaml).unwrap_err().to_string();
            assert!(
                error.starts_with(said) && error.ends_with(place) && error.lines().count() == 1,
                "{said} … {place}\n{error}"
            );
        }
        assert!(Inventory::from_yaml("").is_ok());
    }

    #[test]
    fn inconsistent_inventory_names_the_object() {
        for (yaml, text) in [
            (
                "instances: [{id: i-1, securityGroupIds: [sg-1]}]",
                "securityGroupIds of i-1 names sg-1",
            ),
            (
                "networkInterfaces: [{id: eni-1, instanceId: i-9}]",
                "instanceId of eni-1 names i-9",
            ),
            ("instances: [{id: i-1}, {id: i-1}]", "id i-1 is there twice"),
            ("instances: [{id: web}]", "\"web\""),
            (
                "instances: [{id: i-1, classic: true, vpcId: vpc-1}]",
                "vpcId and classic of i-1",
            ),
            (
                "accessKeys: [{id: a, secret: b}, {id: a, secret: c}]",
                "id a is there twice",
            ),
        ] {
            let error = Inventory::from_yaml(yaml)
                .unwrap()
                .build(Timestamp::UNIX_EPOCH)
                .unwrap_err()
                .to_string();
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn generated_names_are_predictable() {
        let cloud = Cloud::generated(3, 2, 1).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        assert!(cloud.group("sg-sim0001", now).is_some() && cloud.group("sg-base", now).is_some());
        let member = cloud.member("i-sim000002", now).unwrap();
        assert_eq!(*cloud.groups_of(&member, now), [Id::from("sg-base")]);
        assert!(cloud.interface("eni-sim000000", now).is_some());
    }
}
