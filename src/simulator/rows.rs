//! Rows of the Describe calls for each object, with the vendor's field names. Reads only; pure.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::cloud::{
    Cloud, Groups, Instance, InstanceStatus, InterfaceKind, Member, NetworkInterface, Resource,
    SecurityGroup,
};

impl Cloud {
    pub(super) fn instance_row(&self, instance: &Instance, at: Timestamp) -> Value {
        let resource = &instance.resource;
        let locks: Vec<Value> = instance
            .locks
            .iter()
            .map(|reason| json!({"LockReason": reason, "LockMsg": ""}))
            .collect();
        json!({
            "InstanceId": *resource.id,
            "InstanceName": instance.name,
            "Status": instance.status.at(at).as_str(),
            "RegionId": *resource.region,
            "ZoneId": instance.zone,
            "InstanceType": instance.instance_type,
            "InstanceTypeFamily": instance.family(),
            "InstanceChargeType": "PostPaid",
            "ImageId": *instance.image,
            "InstanceNetworkType": if resource.vpc.is_some() { "vpc" } else { "classic" },
            "SecurityGroupIds": {"SecurityGroupId": texts(instance.membership.groups.at(at))},
            "VpcAttributes": {
                "VpcId": resource.vpc.as_deref().unwrap_or_default(),
                "VSwitchId": if resource.vpc.is_some() { instance.vswitch.as_str() } else { "" },
                "NatIpAddress": "",
                "PrivateIpAddress": {"IpAddress": [instance.private_ip]},
            },
            "OperationLocks": {"LockReason": locks},
            "NetworkInterfaces": {"NetworkInterface": self.attached_rows(instance, at)},
            "Tags": {"Tag": tags(resource)},
            "StoppedMode": match instance.status.at(at) {
                InstanceStatus::Stopped => "KeepCharging",
                InstanceStatus::Pending | InstanceStatus::Starting | InstanceStatus::Running | InstanceStatus::Stopping => "Not-applicable",
            },
            "DeletionProtection": false,
            "CreationTime": moment(resource.created, "%Y-%m-%dT%H:%MZ"),
            "ExpiredTime": "2099-12-31T15:59Z",
            "HostName": instance.name,
            "ResourceGroupId": "",
            "PublicIpAddress": {"IpAddress": []},
            "InnerIpAddress": {"IpAddress": []},
        })
    }

    /// All interfaces without their groups, as in the vendor's rows.
    fn attached_rows(&self, instance: &Instance, at: Timestamp) -> Vec<Value> {
        [&instance.primary]
            .into_iter()
            .chain(&instance.attached)
            .filter_map(|id| self.interface(id, at))
            .map(|interface| {
                json!({
                    "NetworkInterfaceId": *interface.resource.id,
                    "Type": interface.kind.as_str(),
                    "PrimaryIpAddress": interface.private_ip,
                    "MacAddress": mac(&interface.private_ip),
                    "PrivateIpSets": self.private_ips(&interface.private_ip),
                    "Ipv6Sets": {"Ipv6Set": []},
                })
            })
            .collect()
    }

    pub(super) fn interface_row(&self, interface: &NetworkInterface, at: Timestamp) -> Value {
        let resource = &interface.resource;
        let groups = match (interface.kind, &interface.instance) {
            (InterfaceKind::Primary, Some(id)) => self.groups_of(&Member::Instance(id.clone()), at),
            (InterfaceKind::Primary | InterfaceKind::Secondary, _) => {
                interface.membership.groups.at(at).clone()
            }
        };
        // An interface that another service manages hides its instance.
        let instance = interface
            .instance
            .as_deref()
            .filter(|_| !interface.service_managed)
            .unwrap_or_default();
        json!({
            "NetworkInterfaceId": *resource.id,
            "NetworkInterfaceName": interface.name(),
            "InstanceId": instance,
            "Status": interface.status.at(at).as_str(),
            "Type": interface.kind.as_str(),
            "VpcId": resource.vpc.as_deref().unwrap_or_default(),
            "VSwitchId": interface.vswitch,
            "ZoneId": interface.zone,
            "PrivateIpAddress": interface.private_ip,
            "MacAddress": mac(&interface.private_ip),
            "SecurityGroupIds": {"SecurityGroupId": texts(&groups)},
            "ServiceManaged": interface.service_managed,
            "OwnerId": *resource.account,
            "Tags": {"Tag": tags(resource)},
            "CreationTime": moment(resource.created, "%Y-%m-%dT%H:%M:%SZ"),
            "PrivateIpSets": self.private_ips(&interface.private_ip),
            "Ipv6Sets": {"Ipv6Set": []},
            "Ipv4PrefixSets": {"Ipv4PrefixSet": []},
            "Ipv6PrefixSets": {"Ipv6PrefixSet": []},
            "Attachment": self.attachment(interface, instance),
            "Description": "",
            "DeleteOnRelease": true,
            "NetworkInterfaceTrafficMode": "Standard",
            "QueueNumber": 1,
            "ResourceGroupId": "",
            "SourceDestCheck": false,
        })
    }

    /// Where an interface is attached; empty where its row names no instance.
    fn attachment(&self, interface: &NetworkInterface, instance: &str) -> Value {
        if instance.is_empty() {
            return json!({});
        }
        let attached = self.instances.get(instance).and_then(|own| {
            own.attached
                .iter()
                .position(|id| *id == interface.resource.id)
        });
        json!({
            "InstanceId": instance,
            // The primary interface is device 0.
            "DeviceIndex": attached.map_or(0, |position| position + 1),
            "NetworkCardIndex": 0,
            "TrunkNetworkInterfaceId": "",
        })
    }

    /// The fields of `DescribeInstanceAttribute`, which are fewer than those of the row.
    pub(super) fn instance_attributes(&self, instance: &Instance, at: Timestamp) -> Value {
        let mut row = self.instance_row(instance, at);
        if let Some(fields) = row.as_object_mut() {
            fields.retain(|name, _| !ONLY_IN_ROWS.contains(&name.as_str()));
            fields.insert("Description".to_owned(), "".into());
            fields.insert("EnableJumboFrame".to_owned(), false.into());
        }
        row
    }

    /// The primary address, and the secondary ones that `settings.addresses` gives every interface.
    fn private_ips(&self, primary: &str) -> Value {
        let set = (0..self.settings.addresses.max(1)).map(|number| {
            let address = match number {
                0 => primary.to_owned(),
                number => format!(
                    "172.{}.{}.{}",
                    16 + (number >> 16 & 15),
                    number >> 8 & 255,
                    number & 255
                ),
            };
            json!({"PrivateIpAddress": address, "Primary": number == 0})
        });
        json!({"PrivateIpSet": set.collect::<Vec<_>>()})
    }

    pub(super) fn group_row(&self, group: &SecurityGroup, count: bool) -> Value {
        let resource = &group.resource;
        let (members, available) = if count {
            let (capacity, _) = self.capacity(group);
            (
                group.members.len(),
                capacity.saturating_sub(group.members.len()),
            )
        } else {
            (0, 0)
        };
        json!({
            "SecurityGroupId": *resource.id,
            "SecurityGroupName": group.name,
            "Description": "",
            "SecurityGroupType": group.kind.as_str(),
            "VpcId": resource.vpc.as_deref().unwrap_or_default(),
            "CreationTime": moment(resource.created, "%Y-%m-%dT%H:%M:%SZ"),
            "EcsCount": members,
            "AvailableInstanceAmount": available,
            "ResourceGroupId": "",
            "ServiceManaged": group.service_managed,
            "RuleCount": group.rules,
            "Tags": {"Tag": tags(resource)},
        })
    }
}

/// The system disk of an instance.
pub(super) fn disk_row(instance: &Instance) -> Value {
    let resource = &instance.resource;
    let suffix = resource.id.strip_prefix("i-").unwrap_or_default();
    let created = moment(resource.created, "%Y-%m-%dT%H:%M:%SZ");
    json!({
        "DiskId": format!("d-{suffix}"),
        "DiskName": "",
        "Description": "",
        "InstanceId": *resource.id,
        "RegionId": *resource.region,
        "ZoneId": instance.zone,
        "Type": "system",
        "Category": "cloud_essd",
        "PerformanceLevel": "PL0",
        "Size": 40,
        "Status": "In_use",
        "Device": "/dev/xvda",
        "DiskChargeType": "PostPaid",
        "ImageId": *instance.image,
        "Encrypted": false,
        "Portable": false,
        "DeleteWithInstance": true,
        "DeleteAutoSnapshot": true,
        "ResourceGroupId": "",
        "CreationTime": created,
        "AttachedTime": created,
        "Attachments": {"Attachment": [{"InstanceId": *resource.id, "Device": "/dev/xvda", "AttachedTime": created}]},
        "OperationLocks": {"OperationLock": []},
        "Tags": {"Tag": []},
    })
}

/// Fields of the row that `DescribeInstanceAttribute` does not have.
const ONLY_IN_ROWS: &[&str] = &[
    "InstanceTypeFamily",
    "NetworkInterfaces",
    "Tags",
    "DeletionProtection",
    "ResourceGroupId",
];

fn texts(ids: &Groups) -> Vec<&str> {
    ids.iter().map(|id| &**id).collect()
}

fn tags(resource: &Resource) -> Vec<Value> {
    resource
        .tags
        .iter()
        .map(|(key, value)| json!({"TagKey": key, "TagValue": value}))
        .collect()
}

fn moment(moment: Timestamp, format: &str) -> String {
    moment.max(FIRST_DAY).strftime(format).to_string()
}

/// Creation date of the objects in the initial inventory.
const FIRST_DAY: Timestamp = Timestamp::constant(1_700_000_000, 0);

fn mac(ip: &str) -> String {
    let tail: Vec<String> = ip
        .split('.')
        .filter_map(|part| part.parse::<u8>().ok())
        .map(|part| format!("{part:02x}"))
        .collect();
    format!("00:16:{}", tail.join(":"))
}
