//! The Describe calls: reads only, of the state as of `lag` ago. Pure.
//!
//! Limits are the vendor's: `MaxResults` is at least 10 (the default) and at most 100 (interfaces: 500); at most 100 IDs;
//! `PageSize` at most 50 for statuses. `SecurityGroupId` finds secondary interfaces only. `TotalCount` is meaningless with
//! `NextToken` paging.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::account::Caller;
use super::cloud::{
    Cloud, Groups, Id, Instance, InstanceStatus, InterfaceKind, NetworkInterface, SecurityGroup,
};
use super::error::{self, Code, ErrorResponse};
use super::filter::Filter;
use super::page::Page;
use super::parameters::{Parameters, well_formed};
use super::pattern::matches;
use super::settings::DeniedReads;
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
    ) -> Result<Value, ErrorResponse> {
        let region = self.region(parameters)?;
        let hidden = self.hides(caller, "ecs:DescribeInstances", region, "instance/*")?;
        let at = earlier(now, self.settings.lag);
        let ids = instance_ids(parameters)?;
        let one_of = |name, known: &[&str], code: Code| match parameters.text(name) {
            Some(value) if !known.contains(&value) => Err(ErrorResponse::from(code)),
            value => Ok(value),
        };
        let statuses = STATUSES.map(InstanceStatus::as_str);
        let status = one_of("Status", &statuses, error::STATUS_NOT_FOUND)?;
        let networks = ["vpc", "classic"];
        let code = error::NETWORK_TYPE_NOT_FOUND;
        let network = one_of("InstanceNetworkType", &networks, code)?;
        let lock = one_of("LockReason", &LOCK_REASONS, error::LOCK_REASON_NOT_FOUND)?;
        let addresses = parameters.json_list("PrivateIpAddresses")?;
        let (name, zone) = (parameters.text("InstanceName"), parameters.text("ZoneId"));
        let (image, instance_type) = (parameters.text("ImageId"), parameters.text("InstanceType"));
        let family = parameters.text("InstanceTypeFamily");
        let filter = Filter {
            vswitch: parameters.text("VSwitchId"),
            group: parameters.text("SecurityGroupId"),
            network,
            ..Filter::new(caller, parameters, region, at)?
        };
        let wanted = |instance: &&Instance| {
            !hidden
                && filter.takes(&instance.resource)
                && image.is_none_or(|image| *instance.image == *image)
                && instance_type.is_none_or(|own| instance.instance_type == own)
                && family.is_none_or(|family| instance.family() == family)
                && status.is_none_or(|status| instance.status.at(at).as_str() == status)
                && lock.is_none_or(|lock| instance.locks.contains(lock))
                && name.is_none_or(|name| matches(name, &instance.name))
                && zone.is_none_or(|zone| instance.zone == zone)
                && addresses
                    .as_ref()
                    .is_none_or(|addresses| addresses.contains(&instance.private_ip))
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
    ) -> Result<Value, ErrorResponse> {
        let region = self.region(parameters)?;
        caller.authorize(
            "ecs:DescribeInstanceStatus",
            region,
            &["instance/*".to_owned()],
        )?;
        let at = earlier(now, self.settings.lag);
        let ids = parameters.repeated("InstanceId", 100)?;
        let zone = parameters.text("ZoneId");
        let filter = Filter::of_place(caller, region, at);
        let page = Page::parse_numbered(parameters, 50)?;
        let candidates = self.candidates((!ids.is_empty()).then_some(ids), None, "i-");
        let found = page.take(&self.instances, candidates, |instance| {
            filter.takes(&instance.resource) && zone.is_none_or(|zone| instance.zone == zone)
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
    ) -> Result<Value, ErrorResponse> {
        let region = self.region(parameters)?;
        let hidden = self.hides(caller, "ecs:DescribeNetworkInterfaces", region, "eni/*")?;
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
        let primary_address = parameters.text("PrimaryIpAddress");
        let addresses = parameters.repeated("PrivateIpAddress", 100)?;
        let name = parameters.text("NetworkInterfaceName");
        let filter = Filter {
            vswitch: parameters.text("VSwitchId"),
            group: parameters.text("SecurityGroupId"),
            ..Filter::new(caller, parameters, region, at)?
        };
        let wanted = |interface: &&NetworkInterface| {
            !hidden
                && filter.takes(&interface.resource)
                && name.is_none_or(|name| interface.name() == name)
                && primary_address.is_none_or(|address| interface.private_ip == address)
                && (addresses.is_empty() || addresses.contains(&interface.private_ip))
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
    ) -> Result<Value, ErrorResponse> {
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
        let ids = group_ids(parameters)?;
        let kind = parameters.text("SecurityGroupType");
        if kind.is_some_and(|kind| !matches!(kind, "normal" | "enterprise")) {
            return Err(error::GROUP_TYPE_INVALID.into());
        }
        let name = parameters.text("SecurityGroupName");
        if name.is_some_and(|name| !(2..=128).contains(&name.chars().count())) {
            return Err(error::GROUP_NAME_MALFORMED.into());
        }
        let managed = parameters.boolean("ServiceManaged")?;
        let count = parameters.boolean("IsQueryEcsCount")?.unwrap_or(false);
        let filter = Filter {
            network: parameters.text("NetworkType"),
            ..Filter::new(caller, parameters, region, at)?
        };
        let wanted = |group: &&SecurityGroup| {
            filter.takes(&group.resource)
                && kind.is_none_or(|kind| group.kind.as_str() == kind)
                && name.is_none_or(|name| group.name == name)
                && managed.is_none_or(|managed| group.service_managed == managed)
        };
        let page = page_of_groups(parameters)?;
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

    pub(super) fn region<'a>(&self, parameters: &'a Parameters) -> Result<&'a str, ErrorResponse> {
        let region = parameters
            .text("RegionId")
            .ok_or_else(|| error::missing_parameter("RegionId"))?;
        if !self.has_region(region) {
            return Err(error::REGION_NOT_FOUND.into());
        }
        Ok(region)
    }

    /// Whether a caller without the right to an action sees nothing; an error if it is refused.
    fn hides(
        &self,
        caller: &Caller,
        action: &str,
        region: &str,
        resource: &str,
    ) -> Result<bool, ErrorResponse> {
        match (
            caller.authorize(action, region, &[resource.to_owned()]),
            self.settings.denied_reads,
        ) {
            (Ok(()), _) => Ok(false),
            (Err(_), DeniedReads::EmptyList) => Ok(true),
            (Err(refusal), DeniedReads::Forbidden) => Err(refusal),
        }
    }

    /// The IDs that can match, if they are known without a full scan. Under lag the member index cannot be used.
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
}

fn instance_ids(parameters: &Parameters) -> Result<Option<Vec<String>>, ErrorResponse> {
    let ids = parameters.json_list("InstanceIds")?;
    if ids.iter().flatten().any(|id| !well_formed(id, "i-")) {
        return Err(
            error::INSTANCE_MALFORMED.says("The specified parameter \"InstanceIds\" is not valid.")
        );
    }
    Ok(ids)
}

/// The groups that a call names, in either of two parameters.
fn group_ids(parameters: &Parameters) -> Result<Option<Vec<String>>, ErrorResponse> {
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
    Ok(ids)
}

/// Groups have two ways of paging, and a code of their own for a wrong token.
fn page_of_groups(parameters: &Parameters) -> Result<Page, ErrorResponse> {
    let given = |name| parameters.text(name).is_some();
    if (given("MaxResults") || given("NextToken")) && (given("PageNumber") || given("PageSize")) {
        return Err(error::TWO_WAYS_OF_PAGING.into());
    }
    Page::parse(parameters, 100, 100).map_err(|refused| {
        if refused.message.contains("NextToken") {
            error::NEXT_TOKEN_INVALID.into()
        } else {
            refused
        }
    })
}

const STATUSES: [InstanceStatus; 5] = [
    InstanceStatus::Pending,
    InstanceStatus::Starting,
    InstanceStatus::Running,
    InstanceStatus::Stopping,
    InstanceStatus::Stopped,
];

const LOCK_REASONS: [&str; 5] = [
    "financial",
    "security",
    "Recycling",
    "dedicatedhostfinancial",
    "refunded",
];

fn has(groups: &Groups, group: &str) -> bool {
    groups.iter().any(|id| **id == *group)
}
