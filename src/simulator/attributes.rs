//! Reads that other people's clients do beside the four lists of `describe`: attributes of one instance or group, disks, tags,
//! and lists of what the simulator has nothing of. Reads only, of the state as of `lag` ago; pure.
//!
//! Every instance has one system disk, whose ID follows from its own.

use std::collections::BTreeMap;

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::account::Caller;
use super::cloud::{Cloud, Id, Instance, Resource};
use super::error::{self, ErrorResponse};
use super::filter::Filter;
use super::page::Page;
use super::parameters::{Parameters, well_formed};
use super::rows::disk_row;
use super::timeline::earlier;

impl Cloud {
    /// `DescribeInstanceAttribute`: one instance, in any region.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_instance_attribute(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let at = earlier(now, self.settings.lag);
        let instance = self.named_instance(caller, "DescribeInstanceAttribute", parameters, at)?;
        Ok(self.instance_attributes(instance, at))
    }

    /// `DescribeUserData`: there is none.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_user_data(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let region = self.region(parameters)?;
        let at = earlier(now, self.settings.lag);
        let instance = self.named_instance(caller, "DescribeUserData", parameters, at)?;
        let id = &instance.resource.id;
        if *instance.resource.region != *region {
            return Err(error::INSTANCE_NOT_FOUND.into());
        }
        Ok(json!({"RegionId": region, "InstanceId": **id, "UserData": ""}))
    }

    /// The instance that `InstanceId` names.
    fn named_instance(
        &self,
        caller: &Caller,
        action: &str,
        parameters: &Parameters,
        at: Timestamp,
    ) -> Result<&Instance, ErrorResponse> {
        let id = parameters
            .text("InstanceId")
            .ok_or_else(|| error::missing_parameter("InstanceId"))?;
        if !well_formed(id, "i-") {
            return Err(error::INSTANCE_MALFORMED.into());
        }
        let known = self.instances.get(id);
        let place = known.map_or("*", |instance| &*instance.resource.region);
        caller.authorize(&format!("ecs:{action}"), place, &[format!("instance/{id}")])?;
        self.instance(id, at)
            .filter(|instance| instance.resource.visible_to(&caller.account))
            .ok_or_else(|| error::INSTANCE_NOT_FOUND.into())
    }

    /// `DescribeSecurityGroupAttribute`. The simulator knows how many rules a group has, but not the rules.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_security_group_attribute(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let region = self.region(parameters)?;
        let id = parameters
            .text("SecurityGroupId")
            .ok_or_else(|| error::missing_parameter("SecurityGroupId"))?;
        caller.authorize(
            "ecs:DescribeSecurityGroupAttribute",
            region,
            &[format!("securitygroup/{id}")],
        )?;
        let at = earlier(now, self.settings.lag);
        let group = self
            .group(id, at)
            .filter(|group| group.resource.visible_to(&caller.account))
            .filter(|group| *group.resource.region == *region)
            .ok_or(error::GROUP_NOT_FOUND)?;
        Ok(json!({
            "RegionId": region,
            "SecurityGroupId": *group.resource.id,
            "SecurityGroupName": group.name,
            "Description": "",
            "VpcId": group.resource.vpc.as_deref().unwrap_or_default(),
            "InnerAccessPolicy": "Accept",
            "Permissions": {"Permission": []},
            "NextToken": "",
        }))
    }

    /// `DescribeInstanceRamRole`: no instance has one.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_instance_ram_role(
        &self,
        caller: &Caller,
        parameters: &Parameters,
    ) -> Result<Value, ErrorResponse> {
        let region = self.region(parameters)?;
        let ids = parameters.json_list("InstanceIds")?;
        if ids.is_none() && parameters.text("RamRoleName").is_none() {
            return Err(error::missing_parameter("InstanceIds"));
        }
        authorize_list(caller, "DescribeInstanceRamRole", region)?;
        Ok(
            json!({"RegionId": region, "InstanceRamRoleSets": {"InstanceRamRoleSet": []}, "TotalCount": 0}),
        )
    }

    /// `DescribeInstanceMaintenanceAttributes`: the vendor's defaults.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_instance_maintenance_attributes(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let ids = parameters.repeated("InstanceId", 100)?;
        let ids = (!ids.is_empty()).then_some(ids);
        let list = List {
            action: "DescribeInstanceMaintenanceAttributes",
            names: ("MaintenanceAttributes", "MaintenanceAttribute"),
            row: |id| {
                json!({
                    "InstanceId": id,
                    "NotifyOnMaintenance": false,
                    "MaintenanceWindows": {"MaintenanceWindow": []},
                    "ActionOnMaintenance": {
                        "Value": "AutoRecover",
                        "DefaultValue": "AutoRecover",
                        "SupportedValues": {"SupportedValue": ["Stop", "AutoRecover"]},
                    },
                })
            },
        };
        self.numbered_list(caller, parameters, ids, &list, now)
    }

    /// `DescribeInstanceAttachmentAttributes`: no instance is in a private pool.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_instance_attachment_attributes(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let ids = parameters
            .json_list("InstanceIds")?
            .ok_or_else(|| error::missing_parameter("InstanceIds"))?;
        let list = List {
            action: "DescribeInstanceAttachmentAttributes",
            names: ("Instances", "Instance"),
            row: |id| json!({"InstanceId": id, "PrivatePoolOptionsId": "", "PrivatePoolOptionsMatchCriteria": "None"}),
        };
        self.numbered_list(caller, parameters, Some(ids), &list, now)
    }

    /// One row for each instance, in pages by number.
    fn numbered_list(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        ids: Option<Vec<String>>,
        list: &List,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let region = self.region(parameters)?;
        authorize_list(caller, list.action, region)?;
        let at = earlier(now, self.settings.lag);
        let filter = Filter::of_place(caller, region, at);
        let page = Page::parse_numbered(parameters, 100)?;
        let candidates = ids.map(|ids| ids.into_iter().map(Id::from).collect());
        let found = page.take(&self.instances, candidates, |instance| {
            filter.takes(&instance.resource)
        });
        let ids = found.rows.iter().map(|instance| &*instance.resource.id);
        let rows = ids.map(list.row).collect();
        let (name, item) = list.names;
        let mut answer = found.envelope(name, item, rows);
        if let Some(answer) = answer.as_object_mut() {
            answer.remove("NextToken");
        }
        Ok(answer)
    }

    /// `DescribeDisks`.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn describe_disks(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let region = self.region(parameters)?;
        caller.authorize("ecs:DescribeDisks", region, &["disk/*".to_owned()])?;
        let wanted_type = match parameters.text("DiskType") {
            None | Some("all" | "system") => true,
            Some("data") => false,
            Some(_) => return Err(error::invalid_parameter("DiskType")),
        };
        let at = earlier(now, self.settings.lag);
        let filter = Filter::of_place(caller, region, at);
        let (instance_id, zone) = (parameters.text("InstanceId"), parameters.text("ZoneId"));
        let candidates = match parameters.json_list("DiskIds")? {
            Some(disks) => {
                let suffixes = disks.iter().filter_map(|disk| disk.strip_prefix("d-"));
                Some(
                    suffixes
                        .map(|suffix| format!("i-{suffix}").into())
                        .collect(),
                )
            }
            None => instance_id.map(|id| vec![Id::from(id)]),
        };
        let page = Page::parse(parameters, 500, 100)?;
        let found = page.take(&self.instances, candidates, |instance| {
            wanted_type
                && filter.takes(&instance.resource)
                && instance_id.is_none_or(|id| *instance.resource.id == *id)
                && zone.is_none_or(|zone| instance.zone == zone)
        });
        let rows = found.rows.iter().copied().map(disk_row).collect();
        Ok(found.envelope("Disks", "Disk", rows))
    }

    /// `ListTagResources`: the tags of up to 50 instances, interfaces or groups a page. Other types of resources have none.
    ///
    /// # Errors
    /// The vendor's, for parameters and RAM.
    pub fn list_tag_resources(
        &self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let region = self.region(parameters)?;
        let kind = parameters
            .text("ResourceType")
            .ok_or(error::MISSING_RESOURCE_TYPE)?;
        let ids = parameters.repeated("ResourceId", RESOURCES)?;
        let at = earlier(now, self.settings.lag);
        let mut filter = Filter::of_place(caller, region, at);
        filter.tags = parameters.tags()?;
        if ids.is_empty() && filter.tags.is_empty() {
            return Err(error::MISSING_RESOURCE_IDS.into());
        }
        caller.authorize("ecs:ListTagResources", region, &[format!("{kind}/*")])?;
        let candidates = (!ids.is_empty()).then(|| ids.into_iter().map(Id::from).collect());
        let page = Page::after_token(parameters, RESOURCES)?;
        let (rows, next) = match kind {
            "instance" => tagged(kind, &page, &self.instances, candidates, &filter, |own| {
                &own.resource
            }),
            "eni" => tagged(kind, &page, &self.interfaces, candidates, &filter, |own| {
                &own.resource
            }),
            "securitygroup" => tagged(kind, &page, &self.groups, candidates, &filter, |own| {
                &own.resource
            }),
            kind if OTHER_RESOURCES.contains(&kind) => (Vec::new(), String::new()),
            _ => return Err(error::RESOURCE_TYPE_NOT_FOUND.into()),
        };
        Ok(json!({"TagResources": {"TagResource": rows}, "NextToken": next}))
    }
}

/// A list with one row for each instance.
struct List {
    action: &'static str,
    /// Those of the list and of a row.
    names: (&'static str, &'static str),
    row: fn(&str) -> Value,
}

fn authorize_list(caller: &Caller, action: &str, region: &str) -> Result<(), ErrorResponse> {
    caller.authorize(&format!("ecs:{action}"), region, &["instance/*".to_owned()])
}

/// One row for each tag, and the token of the next page.
fn tagged<T>(
    kind: &str,
    page: &Page,
    all: &BTreeMap<Id, T>,
    candidates: Option<Vec<Id>>,
    filter: &Filter<'_>,
    resource: fn(&T) -> &Resource,
) -> (Vec<Value>, String) {
    let found = page.take(all, candidates, |own| filter.takes(resource(own)));
    let resources = found.rows.iter().map(|own| resource(own));
    let rows = resources.flat_map(|resource| {
        let tags = resource.tags.iter();
        tags.map(|(key, value)| {
            json!({"ResourceType": kind, "ResourceId": *resource.id, "TagKey": key, "TagValue": value})
        })
    });
    (rows.collect(), found.next.clone().unwrap_or_default())
}

/// The vendor's limit of IDs in one `ListTagResources`; also the resources of one page of tags, which the vendor does not document.
const RESOURCES: usize = 50;

/// Types of resources that the vendor can tag and the simulator does not have.
const OTHER_RESOURCES: &[&str] = &[
    "disk",
    "snapshot",
    "image",
    "volume",
    "ddh",
    "ddhcluster",
    "keypair",
    "launchtemplate",
    "reservedinstance",
    "snapshotpolicy",
    "elasticityassurance",
    "capacityreservation",
];
