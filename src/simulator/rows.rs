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
                    "PrivateIpSets": private_ips(&interface.private_ip),
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
            "NetworkInterfaceName": *resource.id,
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
            "PrivateIpSets": private_ips(&interface.private_ip),
            "Ipv6Sets": {"Ipv6Set": []},
        })
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

fn private_ips(ip: &str) -> Value {
    json!({"PrivateIpSet": [{"PrivateIpAddress": ip, "Primary": true}]})
}

fn mac(ip: &str) -> String {
    let tail: Vec<String> = ip
        .split('.')
        .filter_map(|part| part.parse::<u8>().ok())
        .map(|part| format!("{part:02x}"))
        .collect();
    format!("00:16:{}", tail.join(":"))
}
