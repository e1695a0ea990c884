//! What there is in the simulated cloud, and the indexes over it: pure state. It has no clock, no thread, no socket; every
//! question and every change says when it is asked. Preconditions are in `membership`, answers of Describe in `describe`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::account::AccessKeys;
use super::settings::Settings;
use super::timeline::Timeline;

/// An ID of anything, cheap to clone.
pub type Id = Arc<str>;

/// The whole simulated cloud.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    /// Knobs.
    pub settings: Settings,
    /// Who may call.
    pub keys: AccessKeys,
    /// Virtual switches that were deleted under what stands in them.
    pub deleted_vswitches: BTreeSet<String>,
    pub(super) instances: BTreeMap<Id, Instance>,
    pub(super) interfaces: BTreeMap<Id, NetworkInterface>,
    pub(super) groups: BTreeMap<Id, SecurityGroup>,
    pub(super) regions: BTreeSet<Id>,
}

/// What every object has: where, whose, from when until when.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its ID.
    pub id: Id,
    /// Region.
    pub region: Id,
    /// UID of the account that owns it.
    pub account: Id,
    /// Other accounts can see it (a shared VPC).
    pub shared: bool,
    /// Its VPC; none is the classic network.
    pub vpc: Option<Id>,
    /// When it came into being.
    pub created: Timestamp,
    /// When it went.
    pub deleted: Option<Timestamp>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

impl Resource {
    /// Whether it is there at a moment.
    #[must_use]
    pub fn exists(&self, at: Timestamp) -> bool {
        self.created <= at && self.deleted.is_none_or(|deleted| at < deleted)
    }

    /// Whether a caller of this account can see it.
    #[must_use]
    pub fn visible_to(&self, account: &str) -> bool {
        self.shared || *self.account == *account
    }
}

/// The groups that something is in, sorted.
pub type Groups = Arc<[Id]>;

/// The side of an instance or interface that groups are joined to.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The groups, over time.
    pub groups: Timeline<Groups>,
    /// Groups that it can be in, where that differs from the setting.
    pub quota: Option<usize>,
    /// A change is under way until then.
    pub busy_until: Timestamp,
}

/// An ECS instance.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Identity, place, owner.
    pub resource: Resource,
    /// Name.
    pub name: String,
    /// Zone.
    pub zone: String,
    /// Virtual switch.
    pub vswitch: String,
    /// Type, for example `ecs.g7.large`.
    pub instance_type: String,
    /// Private address of the primary interface.
    pub private_ip: String,
    /// Status over time.
    pub status: Timeline<InstanceStatus>,
    /// Lock reasons, for example `security` or `financial`.
    pub locks: BTreeSet<String>,
    /// Whether its type can be in enterprise groups.
    pub enterprise_groups: bool,
    /// ID of its primary interface.
    pub primary: Id,
    /// Secondary interfaces that were attached to it.
    pub attached: BTreeSet<Id>,
    /// Its groups.
    pub membership: Membership,
}

/// A network interface. The groups of a primary one are those of its instance.
#[derive(Clone, Debug)]
pub struct NetworkInterface {
    /// Identity, place, owner.
    pub resource: Resource,
    /// Primary or secondary.
    pub kind: InterfaceKind,
    /// The instance that it is attached to.
    pub instance: Option<Id>,
    /// Zone.
    pub zone: String,
    /// Virtual switch.
    pub vswitch: String,
    /// Private address.
    pub private_ip: String,
    /// Status over time.
    pub status: Timeline<InterfaceStatus>,
    /// Managed by a cloud product.
    pub service_managed: bool,
    /// Its groups (a secondary one's).
    pub membership: Membership,
}

/// A security group.
#[derive(Clone, Debug)]
pub struct SecurityGroup {
    /// Identity, place, owner.
    pub resource: Resource,
    /// Name.
    pub name: String,
    /// Normal or enterprise.
    pub kind: GroupKind,
    /// Managed by a cloud product.
    pub service_managed: bool,
    /// Number of rules.
    pub rules: u32,
    /// Members that it can have, where that differs from the setting.
    pub quota: Option<usize>,
    /// Instances and secondary interfaces in it now.
    pub members: BTreeSet<Id>,
}

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

    /// What it turns into by itself.
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

    /// What it turns into by itself. (`Deleting` ends with the interface itself.)
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

/// What can be in a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// An instance, that is its primary interface.
    Instance(Id),
    /// A secondary interface.
    NetworkInterface(Id),
}

impl fmt::Display for Member {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Instance(id) | Self::NetworkInterface(id) => f.write_str(id),
        }
    }
}

impl Cloud {
    /// The instance with this ID, if it is there at that moment.
    #[must_use]
    pub fn instance(&self, id: &str, at: Timestamp) -> Option<&Instance> {
        self.instances
            .get(id)
            .filter(|instance| instance.resource.exists(at))
    }

    /// The interface with this ID, if it is there at that moment.
    #[must_use]
    pub fn interface(&self, id: &str, at: Timestamp) -> Option<&NetworkInterface> {
        self.interfaces
            .get(id)
            .filter(|interface| interface.resource.exists(at))
    }

    /// The group with this ID, if it is there at that moment.
    #[must_use]
    pub fn group(&self, id: &str, at: Timestamp) -> Option<&SecurityGroup> {
        self.groups
            .get(id)
            .filter(|group| group.resource.exists(at))
    }

    /// Whether the cloud has this region.
    #[must_use]
    pub fn has_region(&self, region: &str) -> bool {
        REGIONS.contains(&region) || self.regions.contains(region)
    }

    /// The groups of an instance or a secondary interface, as the cloud itself knows them at `now`.
    #[must_use]
    pub fn groups_of(&self, member: &Member, now: Timestamp) -> Groups {
        self.membership(member).map_or_else(
            || Groups::from([]),
            |membership| membership.groups.at(now).clone(),
        )
    }

    /// Puts a member into a group, without any check.
    pub fn connect(&mut self, member: &Member, group: &Id, now: Timestamp) {
        let mut groups = self.groups_of(member, now).to_vec();
        if let Err(at) = groups.binary_search(group) {
            groups.insert(at, group.clone());
            self.put_groups(member, groups.into(), now);
        }
        if let Some(group) = self.groups.get_mut(group) {
            group.members.insert(member.to_string().into());
        }
    }

    /// Takes a member out of a group, without any check.
    pub fn disconnect(&mut self, member: &Member, group: &str, now: Timestamp) {
        let groups = self.groups_of(member, now);
        let left: Groups = groups
            .iter()
            .filter(|id| ***id != *group)
            .cloned()
            .collect();
        if left.len() != groups.len() {
            self.put_groups(member, left, now);
        }
        if let Some(group) = self.groups.get_mut(group) {
            group.members.remove(member.to_string().as_str());
        }
    }

    /// Marks a member as being changed.
    pub fn occupy(&mut self, member: &Member, until: Timestamp) {
        if let Some(membership) = self.membership_mut(member) {
            membership.busy_until = until;
        }
    }

    /// The instance or secondary interface with this ID, as something that can be in a group.
    #[must_use]
    pub fn member(&self, id: &str, now: Timestamp) -> Option<Member> {
        if let Some(instance) = self.instance(id, now) {
            return Some(Member::Instance(instance.resource.id.clone()));
        }
        self.interface(id, now)
            .filter(|interface| interface.kind == InterfaceKind::Secondary)
            .map(|interface| Member::NetworkInterface(interface.resource.id.clone()))
    }

    pub(super) fn membership(&self, member: &Member) -> Option<&Membership> {
        match member {
            Member::Instance(id) => self.instances.get(id).map(|instance| &instance.membership),
            Member::NetworkInterface(id) => self
                .interfaces
                .get(id)
                .map(|interface| &interface.membership),
        }
    }

    pub(super) fn membership_mut(&mut self, member: &Member) -> Option<&mut Membership> {
        match member {
            Member::Instance(id) => self
                .instances
                .get_mut(id)
                .map(|instance| &mut instance.membership),
            Member::NetworkInterface(id) => self
                .interfaces
                .get_mut(id)
                .map(|interface| &mut interface.membership),
        }
    }

    fn put_groups(&mut self, member: &Member, groups: Groups, now: Timestamp) {
        if let Some(membership) = self.membership_mut(member) {
            membership.groups.set(now, groups);
        }
    }
}

/// Regions that exist without an object in them.
const REGIONS: &[&str] = &[
    "cn-qingdao",
    "cn-beijing",
    "cn-zhangjiakou",
    "cn-huhehaote",
    "cn-wulanchabu",
    "cn-hangzhou",
    "cn-shanghai",
    "cn-nanjing",
    "cn-fuzhou",
    "cn-shenzhen",
    "cn-heyuan",
    "cn-guangzhou",
    "cn-chengdu",
    "cn-hongkong",
    "ap-southeast-1",
    "ap-southeast-3",
    "ap-southeast-5",
    "ap-southeast-6",
    "ap-southeast-7",
    "ap-northeast-1",
    "ap-northeast-2",
    "us-east-1",
    "us-west-1",
    "eu-central-1",
    "eu-west-1",
    "me-east-1",
    "me-central-1",
];
