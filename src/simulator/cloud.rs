//! State of the simulated cloud and its indexes: pure. No clock, no thread, no socket; every read and every change takes its
//! time as an argument. Preconditions are in `membership`, answers of Describe in `describe`.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;

use super::account::AccessKeys;
use super::metadata::Metadata;
use super::ram::Ram;
use super::settings::Settings;
pub use super::status::{GroupKind, InstanceStatus, InterfaceKind, InterfaceStatus};
use super::timeline::Timeline;

/// ID of any object, cheap to clone.
pub type Id = Arc<str>;

/// The whole simulated cloud.
#[derive(Clone, Debug, Default)]
pub struct Cloud {
    /// Settings of the whole cloud.
    pub settings: Settings,
    /// The access keys of all callers.
    pub keys: AccessKeys,
    /// Roles and OIDC providers.
    pub ram: Ram,
    /// The metadata service.
    pub metadata: Metadata,
    /// Virtual switches that were deleted while objects were still in them.
    pub deleted_vswitches: BTreeSet<String>,
    pub(super) instances: BTreeMap<Id, Instance>,
    pub(super) interfaces: BTreeMap<Id, NetworkInterface>,
    pub(super) groups: BTreeMap<Id, SecurityGroup>,
    pub(super) regions: BTreeSet<Id>,
}

/// Common fields of all objects: place, owner, lifetime.
#[derive(Clone, Debug)]
pub struct Resource {
    /// ID of the object.
    pub id: Id,
    /// Region.
    pub region: Id,
    /// UID of the account that owns it.
    pub account: Id,
    /// Whether other accounts can see it (a shared VPC).
    pub shared: bool,
    /// VPC; `None` in the classic network.
    pub vpc: Option<Id>,
    /// Creation time.
    pub created: Timestamp,
    /// Deletion time.
    pub deleted: Option<Timestamp>,
    /// Tags.
    pub tags: BTreeMap<String, String>,
}

impl Resource {
    /// Whether the object exists at a time.
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

/// Sorted IDs of the groups of a target.
pub type Groups = Arc<[Id]>;

/// The group membership of an instance or interface.
#[derive(Clone, Debug)]
pub struct Membership {
    /// The groups over time.
    pub groups: Timeline<Groups>,
    /// Group quota of this target, if it differs from the setting.
    pub quota: Option<usize>,
    /// A change is in progress until this time.
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
    /// ID of its image.
    pub image: Id,
    /// Private address of the primary interface.
    pub private_ip: String,
    /// Status over time.
    pub status: Timeline<InstanceStatus>,
    /// Lock reasons, for example `security` or `financial`.
    pub locks: BTreeSet<String>,
    /// Whether the instance type supports enterprise groups.
    pub enterprise_groups: bool,
    /// ID of its primary interface.
    pub primary: Id,
    /// IDs of the attached secondary interfaces.
    pub attached: BTreeSet<Id>,
    /// Groups of the instance.
    pub membership: Membership,
}

impl Instance {
    /// Family of its type: `ecs.g7` of `ecs.g7.large`.
    #[must_use]
    pub fn family(&self) -> &str {
        let parts = self.instance_type.rsplit_once('.');
        parts.map_or(&self.instance_type, |(family, _)| family)
    }
}

/// A network interface. The groups of a primary one are those of its instance.
#[derive(Clone, Debug)]
pub struct NetworkInterface {
    /// Identity, place, owner.
    pub resource: Resource,
    /// Name, if it is not the ID.
    pub name: Option<String>,
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
    /// Whether a cloud product manages the interface.
    pub service_managed: bool,
    /// Groups of a secondary interface.
    pub membership: Membership,
}

impl NetworkInterface {
    /// Its name; the ID by default.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.resource.id)
    }
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
    /// Whether a cloud product manages the group.
    pub service_managed: bool,
    /// Number of rules.
    pub rules: u32,
    /// Member quota of this group, if it differs from the setting.
    pub quota: Option<usize>,
    /// Current members: instances and secondary interfaces.
    pub members: BTreeSet<Id>,
}

/// A member of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member {
    /// An instance, by its primary interface.
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
    /// The instance with this ID, if it exists at that time.
    #[must_use]
    pub fn instance(&self, id: &str, at: Timestamp) -> Option<&Instance> {
        self.instances
            .get(id)
            .filter(|instance| instance.resource.exists(at))
    }

    /// The interface with this ID, if it exists at that time.
    #[must_use]
    pub fn interface(&self, id: &str, at: Timestamp) -> Option<&NetworkInterface> {
        self.interfaces
            .get(id)
            .filter(|interface| interface.resource.exists(at))
    }

    /// The group with this ID, if it exists at that time.
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

    /// The groups of an instance or a secondary interface at `now`, without lag.
    #[must_use]
    pub fn groups_of(&self, member: &Member, now: Timestamp) -> Groups {
        self.membership(member).map_or_else(
            || Groups::from([]),
            |membership| membership.groups.at(now).clone(),
        )
    }

    /// Adds a member to a group, without checks.
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

    /// Removes a member from a group, without checks.
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

    /// Marks a member as being changed until a time.
    pub fn occupy(&mut self, member: &Member, until: Timestamp) {
        if let Some(membership) = self.membership_mut(member) {
            membership.busy_until = until;
        }
    }

    /// The instance or secondary interface with this ID, as a possible group member.
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

/// Regions that exist without objects.
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
