//! States and kinds of the objects, as the vendor spells them.

use serde::Deserialize;

/// Status of an instance, as ECS spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the vendor's own words")]
pub enum InstanceStatus {
    Pending,
    Starting,
    Running,
    Stopping,
    Stopped,
}

impl InstanceStatus {
    /// As ECS spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::Starting => "Starting",
            Self::Running => "Running",
            Self::Stopping => "Stopping",
            Self::Stopped => "Stopped",
        }
    }

    /// The status that follows without a further call.
    #[must_use]
    pub const fn settles_in(self) -> Self {
        match self {
            Self::Pending | Self::Starting | Self::Running => Self::Running,
            Self::Stopping | Self::Stopped => Self::Stopped,
        }
    }
}

/// Status of a network interface, as ECS spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "the vendor's own words")]
pub enum InterfaceStatus {
    Creating,
    Available,
    Attaching,
    InUse,
    Detaching,
    Deleting,
}

impl InterfaceStatus {
    /// As ECS spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "Creating",
            Self::Available => "Available",
            Self::Attaching => "Attaching",
            Self::InUse => "InUse",
            Self::Detaching => "Detaching",
            Self::Deleting => "Deleting",
        }
    }

    /// The status that follows without a further call. (`Deleting` ends with the interface itself.)
    #[must_use]
    pub const fn settles_in(self) -> Self {
        match self {
            Self::Creating | Self::Available | Self::Detaching => Self::Available,
            Self::Attaching | Self::InUse => Self::InUse,
            Self::Deleting => Self::Deleting,
        }
    }
}

/// Type of a network interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the vendor's own words")]
pub enum InterfaceKind {
    Primary,
    Secondary,
}

impl InterfaceKind {
    /// As ECS spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Primary => "Primary",
            Self::Secondary => "Secondary",
        }
    }
}

/// Type of a security group. A target cannot be in both types.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[expect(missing_docs, reason = "the vendor's own words")]
pub enum GroupKind {
    #[default]
    Normal,
    Enterprise,
}

impl GroupKind {
    /// As ECS spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Enterprise => "enterprise",
        }
    }
}
