//! The names of all calls of the simulated cloud. Pure.

use super::error::{self, ErrorResponse};

/// A call that the simulated cloud can answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the vendor's own words")]
pub enum Action {
    JoinSecurityGroup,
    LeaveSecurityGroup,
    ModifyNetworkInterfaceAttribute,
    DescribeInstances,
    DescribeInstanceStatus,
    DescribeNetworkInterfaces,
    DescribeSecurityGroups,
    DescribeDisks,
    DescribeInstanceAttribute,
    DescribeUserData,
    DescribeSecurityGroupAttribute,
    DescribeInstanceRamRole,
    DescribeInstanceMaintenanceAttributes,
    DescribeInstanceAttachmentAttributes,
    ListTagResources,
    StartInstance,
    StopInstance,
    GetCallerIdentity,
    AssumeRole,
    AssumeRoleWithOIDC,
}

impl Action {
    /// The call with this version and name.
    ///
    /// # Errors
    /// `InvalidVersion`, `InvalidApi.NotFound`, `InvalidAction.NotFound` (it exists, but in another product).
    pub fn parse(version: Option<&str>, name: Option<&str>) -> Result<Self, ErrorResponse> {
        let version = version.ok_or_else(|| error::missing_parameter("Version"))?;
        let name = name.ok_or_else(|| error::missing_parameter("Action"))?;
        if !PRODUCTS.iter().any(|(known, _)| *known == version) {
            return Err(error::VERSION_INVALID.into());
        }
        let action = ALL
            .iter()
            .find(|action| action.as_str() == name)
            .ok_or(error::API_NOT_FOUND)?;
        if action.version() != version {
            return Err(error::ACTION_NOT_FOUND.into());
        }
        Ok(*action)
    }

    /// Checks an action name in a limit or a fault.
    ///
    /// # Errors
    /// A sentence that lists the valid names: a misspelled name would never match.
    pub fn check(name: &str) -> Result<(), String> {
        let names = ALL.map(Self::as_str);
        if names.contains(&name) {
            return Ok(());
        }
        Err(format!(
            "there is no action {name:?}: write one of {}",
            names.join(", ")
        ))
    }

    /// As the vendor spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JoinSecurityGroup => "JoinSecurityGroup",
            Self::LeaveSecurityGroup => "LeaveSecurityGroup",
            Self::ModifyNetworkInterfaceAttribute => "ModifyNetworkInterfaceAttribute",
            Self::DescribeInstances => "DescribeInstances",
            Self::DescribeInstanceStatus => "DescribeInstanceStatus",
            Self::DescribeNetworkInterfaces => "DescribeNetworkInterfaces",
            Self::DescribeSecurityGroups => "DescribeSecurityGroups",
            Self::DescribeDisks => "DescribeDisks",
            Self::DescribeInstanceAttribute => "DescribeInstanceAttribute",
            Self::DescribeUserData => "DescribeUserData",
            Self::DescribeSecurityGroupAttribute => "DescribeSecurityGroupAttribute",
            Self::DescribeInstanceRamRole => "DescribeInstanceRamRole",
            Self::DescribeInstanceMaintenanceAttributes => "DescribeInstanceMaintenanceAttributes",
            Self::DescribeInstanceAttachmentAttributes => "DescribeInstanceAttachmentAttributes",
            Self::ListTagResources => "ListTagResources",
            Self::StartInstance => "StartInstance",
            Self::StopInstance => "StopInstance",
            Self::GetCallerIdentity => "GetCallerIdentity",
            Self::AssumeRole => "AssumeRole",
            Self::AssumeRoleWithOIDC => "AssumeRoleWithOIDC",
        }
    }

    const fn version(self) -> &'static str {
        match self {
            Self::GetCallerIdentity | Self::AssumeRole | Self::AssumeRoleWithOIDC => STS,
            Self::JoinSecurityGroup
            | Self::LeaveSecurityGroup
            | Self::ModifyNetworkInterfaceAttribute
            | Self::DescribeInstances
            | Self::DescribeInstanceStatus
            | Self::DescribeNetworkInterfaces
            | Self::DescribeSecurityGroups
            | Self::DescribeDisks
            | Self::DescribeInstanceAttribute
            | Self::DescribeUserData
            | Self::DescribeSecurityGroupAttribute
            | Self::DescribeInstanceRamRole
            | Self::DescribeInstanceMaintenanceAttributes
            | Self::DescribeInstanceAttachmentAttributes
            | Self::ListTagResources
            | Self::StartInstance
            | Self::StopInstance => ECS,
        }
    }

    /// Whether the call carries a signature. One does not: its token says who calls.
    pub(super) const fn is_signed(self) -> bool {
        !matches!(self, Self::AssumeRoleWithOIDC)
    }

    /// Whether the vendor's page of the action has `DryRun`.
    pub(super) const fn has_dry_run(self) -> bool {
        match self {
            Self::DescribeInstances
            | Self::DescribeSecurityGroups
            | Self::DescribeDisks
            | Self::StartInstance
            | Self::StopInstance => true,
            Self::JoinSecurityGroup
            | Self::LeaveSecurityGroup
            | Self::ModifyNetworkInterfaceAttribute
            | Self::DescribeInstanceStatus
            | Self::DescribeNetworkInterfaces
            | Self::DescribeInstanceAttribute
            | Self::DescribeUserData
            | Self::DescribeSecurityGroupAttribute
            | Self::DescribeInstanceRamRole
            | Self::DescribeInstanceMaintenanceAttributes
            | Self::DescribeInstanceAttachmentAttributes
            | Self::ListTagResources
            | Self::GetCallerIdentity
            | Self::AssumeRole
            | Self::AssumeRoleWithOIDC => false,
        }
    }
}

/// The product of a version, as `Recommend` names it.
#[must_use]
pub fn product(version: Option<&str>) -> &'static str {
    PRODUCTS
        .iter()
        .find(|(known, _)| Some(*known) == version)
        .map_or("Ecs", |(_, product)| product)
}

const ALL: [Action; 20] = [
    Action::JoinSecurityGroup,
    Action::LeaveSecurityGroup,
    Action::ModifyNetworkInterfaceAttribute,
    Action::DescribeInstances,
    Action::DescribeInstanceStatus,
    Action::DescribeNetworkInterfaces,
    Action::DescribeSecurityGroups,
    Action::DescribeDisks,
    Action::DescribeInstanceAttribute,
    Action::DescribeUserData,
    Action::DescribeSecurityGroupAttribute,
    Action::DescribeInstanceRamRole,
    Action::DescribeInstanceMaintenanceAttributes,
    Action::DescribeInstanceAttachmentAttributes,
    Action::ListTagResources,
    Action::StartInstance,
    Action::StopInstance,
    Action::GetCallerIdentity,
    Action::AssumeRole,
    Action::AssumeRoleWithOIDC,
];

const ECS: &str = "2014-05-26";
const STS: &str = "2015-04-01";
const PRODUCTS: [(&str, &str); 2] = [(ECS, "Ecs"), (STS, "Sts")];
