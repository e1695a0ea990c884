//! The Describe calls: reads only, and only of the state of `lag` ago. Pure.
//!
//! Limits are the vendor's: `MaxResults` 10 by default and at least, 100 (interfaces: 500) at most; 100 IDs; `PageSize` 50 for
//! statuses. `SecurityGroupId` finds secondary interfaces only. `TotalCount` means nothing under `NextToken` paging.

use std::collections::BTreeMap;
use std::ops::Bound;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::account::Caller;
use super::cloud::{
    Cloud, Groups, Id, Instance, InstanceStatus, InterfaceKind, Member, NetworkInterface, Resource,
    SecurityGroup,
};
use super::error::{self, ApiError};
use super::membership::well_formed;
use super::parameters::Parameters;
use super::timeline::earlier;

impl Cloud {
    /// `DescribeInstances`.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_instances(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let region = self.region(parameters)?;
        caller.authorize("ecs:DescribeInstances", region, &["instance/*".to_owned()])?;
        let at = earlier(now, self.settings.lag);
        let ids = parameters.json_list("InstanceIds")?;
        if ids.iter().flatten().any(|id| !well_formed(id, "i-")) {
            return Err(error::INSTANCE_MALFORMED
                .says("The specified parameter \"InstanceIds\" is not valid."));
        }
        let status = parameters.text("Status");
        if status.is_some_and(|status| !STATUSES.iter().any(|known| known.as_str() == status)) {
            return Err(error::STATUS_NOT_FOUND.into());
        }
        let filter = Filter::new(caller, parameters, region, at);
        let wanted = |instance: &&Instance| {
            filter.takes(&instance.resource)
                && status.is_none_or(|status| instance.status.at(at).as_str() == status)
                && filter
                    .vswitch
                    .is_none_or(|vswitch| instance.vswitch == vswitch)
                && filter
                    .group
                    .is_none_or(|group| has(instance.membership.groups.at(at), group))
        };
        let candidates = self.candidates(ids, filter.group, "i-");
        let page = Page::parse(parameters, 100, 100)?;
        let found = page.take(&self.instances, candidates, wanted);
        let rows: Vec<Value> = found
            .rows
            .iter()
            .map(|instance| self.instance_row(instance, at))
            .collect();
        Ok(found.envelope("Instances", "Instance", rows))
    }

    /// `DescribeInstanceStatus`.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_instance_status(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let region = self.region(parameters)?;
        caller.authorize(
            "ecs:DescribeInstanceStatus",
            region,
            &["instance/*".to_owned()],
        )?;
        let at = earlier(now, self.settings.lag);
        let ids = parameters.repeated("InstanceId", 100)?;
        let filter = Filter::new(caller, parameters, region, at);
        let page = Page::parse_numbered(parameters, 50)?;
        let candidates = self.candidates((!ids.is_empty()).then_some(ids), None, "i-");
        let found = page.take(&self.instances, candidates, |instance| {
            filter.takes(&instance.resource)
        });
        let rows: Vec<Value> = found
            .rows
            .iter()
            .map(|instance| json!({"InstanceId": *instance.resource.id, "Status": instance.status.at(at).as_str()}))
            .collect();
        Ok(found.envelope("InstanceStatuses", "InstanceStatus", rows))
    }

    /// `DescribeNetworkInterfaces`.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_network_interfaces(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let region = self.region(parameters)?;
        caller.authorize(
            "ecs:DescribeNetworkInterfaces",
            region,
            &["eni/*".to_owned()],
        )?;
        let at = earlier(now, self.settings.lag);
        let ids = parameters.repeated("NetworkInterfaceId", 100)?;
        let kind = match parameters.text("Type") {
            None => None,
            Some("Primary") => Some(InterfaceKind::Primary),
            Some("Secondary") => Some(InterfaceKind::Secondary),
            Some(_) => return Err(error::invalid_parameter("Type")),
        };
        let status = parameters.text("Status");
        let instance_id = parameters.text("InstanceId");
        let managed = parameters.boolean("ServiceManaged")?;
        let filter = Filter::new(caller, parameters, region, at);
        let wanted = |interface: &&NetworkInterface| {
            filter.takes(&interface.resource)
                && kind.is_none_or(|kind| interface.kind == kind)
                && status.is_none_or(|status| interface.status.at(at).as_str() == status)
                && instance_id.is_none_or(|id| interface.instance.as_deref() == Some(id))
                && managed.is_none_or(|managed| interface.service_managed == managed)
                && filter
                    .vswitch
                    .is_none_or(|vswitch| interface.vswitch == vswitch)
                && filter.group.is_none_or(|group| {
                    interface.kind == InterfaceKind::Secondary
                        && has(interface.membership.groups.at(at), group)
                })
        };
        let candidates = self.candidates((!ids.is_empty()).then_some(ids), filter.group, "eni-");
        let page = Page::parse(parameters, 500, 1_000)?;
        let found = page.take(&self.interfaces, candidates, wanted);
        let rows: Vec<Value> = found
            .rows
            .iter()
            .map(|interface| self.interface_row(interface, at))
            .collect();
        Ok(found.envelope("NetworkInterfaceSets", "NetworkInterfaceSet", rows))
    }

    /// `DescribeSecurityGroups`.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_security_groups(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let region = match parameters.text("RegionId") {
            None => return Err(error::MISSING_REGION_ID.into()),
            Some(_) => self.region(parameters)?,
        };
        caller.authorize(
            "ecs:DescribeSecurityGroups",
            region,
            &["securitygroup/*".to_owned()],
        )?;
        let at = earlier(now, self.settings.lag);
        let mut ids = parameters.json_list("SecurityGroupIds")?;
        if let Some(id) = parameters.text("SecurityGroupId") {
            ids.get_or_insert_default().push(id.to_owned());
        }
        if ids.iter().flatten().any(|id| {
            !id.bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        }) {
            return Err(error::GROUP_MALFORMED.into());
        }
        let kind = parameters.text("SecurityGroupType");
        if kind.is_some_and(|kind| !matches!(kind, "normal" | "enterprise")) {
            return Err(error::GROUP_TYPE_INVALID.into());
        }
        let name = parameters.text("SecurityGroupName");
        let managed = parameters.boolean("ServiceManaged")?;
        let count = parameters.boolean("IsQueryEcsCount")?.unwrap_or(false);
        let filter = Filter {
            group: None,
            ..Filter::new(caller, parameters, region, at)
        };
        let wanted = |group: &&SecurityGroup| {
            filter.takes(&group.resource)
                && kind.is_none_or(|kind| group.kind.as_str() == kind)
                && name.is_none_or(|name| group.name == name)
                && managed.is_none_or(|managed| group.service_managed == managed)
        };
        let page = Page::parse(parameters, 100, 100).map_err(|refused| {
            if refused.message.contains("NextToken") {
                error::NEXT_TOKEN_INVALID.into()
            } else {
                refused
            }
        })?;
        let candidates = ids.map(|ids| ids.into_iter().map(Id::from).collect());
        let found = page.take(&self.groups, candidates, wanted);
        let rows: Vec<Value> = found
            .rows
            .iter()
            .map(|group| self.group_row(group, count))
            .collect();
        let mut answer = found.envelope("SecurityGroups", "SecurityGroup", rows);
        if let Some(answer) = answer.as_object_mut() {
            answer.insert("RegionId".to_owned(), region.into());
        }
        Ok(answer)
    }

    fn region<'a>(&self, parameters: &'a Parameters) -> Result<&'a str, ApiError> {
        let region = parameters
            .text("RegionId")
            .ok_or_else(|| error::missing_parameter("RegionId"))?;
        if !self.has_region(region) {
            return Err(error::REGION_NOT_FOUND.into());
        }
        Ok(region)
    }

    /// The IDs that can match, where that is known without a look at everything. Under lag the index of members is no help.
    fn candidates(
        &self,
        ids: Option<Vec<String>>,
        group: Option<&str>,
        prefix: &str,
    ) -> Option<Vec<Id>> {
        if let Some(ids) = ids {
            return Some(ids.into_iter().map(Id::from).collect());
        }
        let group = group.filter(|_| self.settings.lag.is_zero())?;
        let members = self.groups.get(group).map(|group| &group.members);
        Some(
            members
                .into_iter()
                .flatten()
                .filter(|id| id.starts_with(prefix))
                .cloned()
                .collect(),
        )
    }

    fn instance_row(&self, instance: &Instance, at: Timestamp) -> Value {
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

    /// The primary interface only: who asks for secondary ones asks `DescribeNetworkInterfaces`. Has no groups, as the vendor's.
    fn attached_rows(&self, instance: &Instance, at: Timestamp) -> Vec<Value> {
        self.interface(&instance.primary, at)
            .map(|interface| {
                json!({
                    "NetworkInterfaceId": *interface.resource.id,
                    "Type": "Primary",
                    "PrimaryIpAddress": interface.private_ip,
                    "MacAddress": mac(&interface.private_ip),
                    "PrivateIpSets": {"PrivateIpSet": [{"PrivateIpAddress": interface.private_ip, "Primary": true}]},
                })
            })
            .into_iter()
            .collect()
    }

    fn interface_row(&self, interface: &NetworkInterface, at: Timestamp) -> Value {
        let resource = &interface.resource;
        let groups = match (interface.kind, &interface.instance) {
            (InterfaceKind::Primary, Some(id)) => self.groups_at(&Member::Instance(id.clone()), at),
            (InterfaceKind::Primary | InterfaceKind::Secondary, _) => {
                interface.membership.groups.at(at).clone()
            }
        };
        // An interface that is managed for another service hides its instance.
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
            "Type": match interface.kind { InterfaceKind::Primary => "Primary", InterfaceKind::Secondary => "Secondary" },
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
            "PrivateIpSets": {"PrivateIpSet": [{"PrivateIpAddress": interface.private_ip, "Primary": true}]},
            "Ipv6Sets": {"Ipv6Set": []},
        })
    }

    fn group_row(&self, group: &SecurityGroup, count: bool) -> Value {
        let resource = &group.resource;
        let (members, available) = if count {
            let limit = group.quota.unwrap_or(self.settings.members_per_group);
            (
                group.members.len(),
                limit.saturating_sub(group.members.len()),
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

    fn groups_at(&self, member: &Member, at: Timestamp) -> Groups {
        self.groups_of(member, at)
    }
}

struct Filter<'a> {
    account: &'a str,
    region: &'a str,
    at: Timestamp,
    vpc: Option<&'a str>,
    vswitch: Option<&'a str>,
    group: Option<&'a str>,
    network: Option<&'a str>,
    tags: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Filter<'a> {
    fn new(caller: &'a Caller, parameters: &'a Parameters, region: &'a str, at: Timestamp) -> Self {
        Self {
            account: &caller.account,
            region,
            at,
            vpc: parameters.text("VpcId"),
            vswitch: parameters.text("VSwitchId"),
            group: parameters.text("SecurityGroupId"),
            network: parameters
                .text("InstanceNetworkType")
                .or_else(|| parameters.text("NetworkType")),
            tags: parameters.tags(),
        }
    }

    fn takes(&self, resource: &Resource) -> bool {
        resource.exists(self.at)
            && *resource.region == *self.region
            && resource.visible_to(self.account)
            && self
                .vpc
                .is_none_or(|vpc| resource.vpc.as_deref() == Some(vpc))
            && self
                .network
                .is_none_or(|network| (network == "vpc") == resource.vpc.is_some())
            && self.tags.iter().all(|(key, value)| {
                resource
                    .tags
                    .get(*key)
                    .is_some_and(|own| value.is_none_or(|value| own == value))
            })
    }
}

/// Which rows of all that match are asked for.
enum Page {
    Token { after: Option<String>, size: usize },
    Numbered { number: usize, size: usize },
}

struct Found<'a, T> {
    rows: Vec<&'a T>,
    total: usize,
    next: Option<String>,
    number: usize,
    size: usize,
}

impl Page {
    fn parse(
        parameters: &Parameters,
        max_results: usize,
        max_size: usize,
    ) -> Result<Self, ApiError> {
        let token = parameters.text("NextToken");
        let asked = parameters.number("MaxResults")?;
        if token.is_none()
            && asked.is_none()
            && (parameters.text("PageNumber").is_some() || parameters.text("PageSize").is_some())
        {
            return Self::parse_numbered(parameters, max_size);
        }
        let after = token
            .map(|token| {
                let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
                String::from_utf8(bytes)
                    .ok()?
                    .strip_prefix(TOKEN)
                    .map(str::to_owned)
            })
            .map(|after| after.ok_or_else(|| error::invalid_parameter("NextToken")))
            .transpose()?;
        Ok(Self::Token {
            after,
            size: asked.unwrap_or(10).clamp(10, max_results),
        })
    }

    fn parse_numbered(parameters: &Parameters, max_size: usize) -> Result<Self, ApiError> {
        let number = parameters.number("PageNumber")?.unwrap_or(1);
        let size = parameters.number("PageSize")?.unwrap_or(10);
        if number == 0 {
            return Err(error::invalid_parameter("PageNumber"));
        }
        if size == 0 || size > max_size {
            return Err(error::invalid_parameter("PageSize"));
        }
        Ok(Self::Numbered { number, size })
    }

    fn take<'a, T>(
        &self,
        all: &'a BTreeMap<Id, T>,
        candidates: Option<Vec<Id>>,
        wanted: impl Fn(&&'a T) -> bool,
    ) -> Found<'a, T> {
        let after = match self {
            Self::Token { after, .. } => after.as_deref(),
            Self::Numbered { .. } => None,
        };
        if let Some(mut ids) = candidates {
            ids.sort_unstable();
            ids.dedup();
            let rows = ids
                .iter()
                .filter(|id| after.is_none_or(|after| ***id > *after))
                .filter_map(|id| all.get_key_value(id))
                .filter(|(_, row)| wanted(row));
            self.cut(rows)
        } else {
            let start = after.map_or(Bound::Unbounded, Bound::Excluded);
            self.cut(
                all.range::<str, _>((start, Bound::Unbounded))
                    .filter(|(_, row)| wanted(row)),
            )
        }
    }

    fn cut<'a, T>(&self, mut matching: impl Iterator<Item = (&'a Id, &'a T)>) -> Found<'a, T> {
        match *self {
            Self::Token { size, .. } => {
                let page: Vec<(&Id, &T)> = matching.by_ref().take(size).collect();
                let more = matching.next().is_some();
                let next = page
                    .last()
                    .filter(|_| more)
                    .map(|(id, _)| URL_SAFE_NO_PAD.encode(format!("{TOKEN}{id}")));
                let rows: Vec<&T> = page.into_iter().map(|(_, row)| row).collect();
                Found {
                    total: rows.len(),
                    rows,
                    next,
                    number: 1,
                    size,
                }
            }
            Self::Numbered { number, size } => {
                let all: Vec<&T> = matching.map(|(_, row)| row).collect();
                let total = all.len();
                let rows = all
                    .into_iter()
                    .skip((number - 1).saturating_mul(size))
                    .take(size)
                    .collect();
                Found {
                    rows,
                    total,
                    next: None,
                    number,
                    size,
                }
            }
        }
    }
}

const TOKEN: &str = "after:";

impl<T> Found<'_, T> {
    fn envelope(&self, list: &str, item: &str, rows: Vec<Value>) -> Value {
        json!({
            list: {item: rows},
            "TotalCount": self.total,
            "PageNumber": self.number,
            "PageSize": self.size,
            "NextToken": self.next.as_deref().unwrap_or_default(),
        })
    }
}

const STATUSES: [InstanceStatus; 5] = [
    InstanceStatus::Pending,
    InstanceStatus::Starting,
    InstanceStatus::Running,
    InstanceStatus::Stopping,
    InstanceStatus::Stopped,
];

fn has(groups: &Groups, group: &str) -> bool {
    groups.iter().any(|id| **id == *group)
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

/// What the inventory starts with was made on this day.
const FIRST_DAY: Timestamp = Timestamp::constant(1_700_000_000, 0);

fn mac(ip: &str) -> String {
    let tail: Vec<String> = ip
        .split('.')
        .filter_map(|part| part.parse::<u8>().ok())
        .map(|part| format!("{part:02x}"))
        .collect();
    format!("00:16:{}", tail.join(":"))
}
