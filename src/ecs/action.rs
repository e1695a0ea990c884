//! The cloud actions that the operator calls, with the facts that the vendor fixes: name, version, deadline. Pure data.

use std::fmt;
use std::time::Duration;

/// An action of the cloud's RPC API that the operator calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Action {
    /// Adds an instance or a network interface to a security group.
    JoinSecurityGroup,
    /// Removes an instance or a network interface from a security group.
    LeaveSecurityGroup,
    /// Reads instances with their groups.
    DescribeInstances,
    /// Reads network interfaces with their groups.
    DescribeNetworkInterfaces,
    /// Reads security groups with their tags.
    DescribeSecurityGroups,
    /// STS: reads the identity of the credentials.
    GetCallerIdentity,
    /// STS: a key of a role, for another key.
    AssumeRole,
    /// STS: a key of a role, for a service account token.
    AssumeRoleWithOidc,
}

#[cfg(test)]
impl Action {
    /// Every action.
    pub(crate) const ALL: [Self; 8] = [
        Self::JoinSecurityGroup,
        Self::LeaveSecurityGroup,
        Self::DescribeInstances,
        Self::DescribeNetworkInterfaces,
        Self::DescribeSecurityGroups,
        Self::GetCallerIdentity,
        Self::AssumeRole,
        Self::AssumeRoleWithOidc,
    ];
}

impl Action {
    /// Whether it changes a membership.
    #[must_use]
    pub const fn is_membership_change(self) -> bool {
        match self {
            Self::JoinSecurityGroup | Self::LeaveSecurityGroup => true,
            Self::DescribeInstances
            | Self::DescribeNetworkInterfaces
            | Self::DescribeSecurityGroups
            | Self::GetCallerIdentity
            | Self::AssumeRole
            | Self::AssumeRoleWithOidc => false,
        }
    }

    /// The action as the cloud spells it; also a metric label.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::JoinSecurityGroup => "JoinSecurityGroup",
            Self::LeaveSecurityGroup => "LeaveSecurityGroup",
            Self::DescribeInstances => "DescribeInstances",
            Self::DescribeNetworkInterfaces => "DescribeNetworkInterfaces",
            Self::DescribeSecurityGroups => "DescribeSecurityGroups",
            Self::GetCallerIdentity => "GetCallerIdentity",
            Self::AssumeRole => "AssumeRole",
            Self::AssumeRoleWithOidc => "AssumeRoleWithOIDC",
        }
    }

    /// The API version that the action belongs to.
    #[must_use]
    pub fn version(self) -> &'static str {
        match self {
            Self::JoinSecurityGroup
            | Self::LeaveSecurityGroup
            | Self::DescribeInstances
            | Self::DescribeNetworkInterfaces
            | Self::DescribeSecurityGroups => "2014-05-26",
            Self::GetCallerIdentity | Self::AssumeRole | Self::AssumeRoleWithOidc => "2015-04-01",
        }
    }

    /// Deadline of one call, answer included: the read timeouts of the vendor's Python SDK (`timeout_config.json`). A
    /// shorter deadline on Join and Leave would turn slow successes into unknown outcomes.
    #[must_use]
    pub const fn deadline(self) -> Duration {
        match self {
            Self::JoinSecurityGroup | Self::LeaveSecurityGroup => Duration::from_secs(66),
            Self::DescribeInstances
            | Self::GetCallerIdentity
            | Self::AssumeRole
            | Self::AssumeRoleWithOidc => Duration::from_secs(10),
            Self::DescribeNetworkInterfaces => Duration::from_secs(16),
            Self::DescribeSecurityGroups => Duration::from_secs(25),
        }
    }

    /// Whether the action changes the cloud. Only then does a lost answer leave the outcome unknown.
    #[must_use]
    pub fn is_write(self) -> bool {
        match self {
            Self::JoinSecurityGroup | Self::LeaveSecurityGroup => true,
            Self::DescribeInstances
            | Self::DescribeNetworkInterfaces
            | Self::DescribeSecurityGroups
            | Self::GetCallerIdentity
            | Self::AssumeRole
            | Self::AssumeRoleWithOidc => false,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// IDs per Describe call at most: the cloud's limit for `InstanceIds` and `NetworkInterfaceId.N`, and the largest
/// `MaxResults` of both.
pub const MAX_IDS_PER_CALL: usize = 100;
