//! The rows of the Describe actions: what the operator reads of them. Only types.

use serde::Deserialize;

/// A row of `DescribeInstances`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InstanceRow {
    pub instance_id: String,
    pub status: String,
    pub vpc_attributes: Option<VpcAttributes>,
    pub operation_locks: Option<OperationLocks>,
    pub security_group_ids: SecurityGroupIds,
    pub tags: Option<TagList>,
}

/// The tags of an instance or an interface.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TagList {
    #[serde(default)]
    pub tag: Vec<Tag>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tag {
    pub tag_key: Option<String>,
    pub tag_value: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct VpcAttributes {
    pub vpc_id: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OperationLocks {
    #[serde(default)]
    pub lock_reason: Vec<Lock>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Lock {
    pub lock_reason: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SecurityGroupIds {
    pub security_group_id: Vec<String>,
}

/// A row of `DescribeNetworkInterfaces`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkInterfaceRow {
    pub network_interface_id: String,
    pub status: String,
    #[serde(rename = "Type")]
    pub kind: Option<String>,
    pub vpc_id: Option<String>,
    pub security_group_ids: SecurityGroupIds,
    pub service_managed: Option<bool>,
    pub tags: Option<TagList>,
}

/// A row of `DescribeSecurityGroups`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct SecurityGroupRow {
    pub security_group_id: String,
    pub tags: Option<TagList>,
}
