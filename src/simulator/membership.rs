//! `JoinSecurityGroup` and `LeaveSecurityGroup`: every documented precondition, in one order. Pure.
//!
//! The vendor does not document which of several failing preconditions is reported. `docs/simulator.md` documents our order,
//! and how to produce each code.

use k8s_openapi::jiff::Timestamp;

use super::account::Caller;
use super::cloud::{
    Cloud, GroupKind, Id, Instance, InstanceStatus, InterfaceKind, InterfaceStatus, Member,
    NetworkInterface, SecurityGroup,
};
use super::error::{self, Code, ErrorResponse};
use super::membership_call::{Parameters, TargetId};
use super::settings::{Codes, JoinMember};
use super::timeline::later;

pub use super::membership_call::MembershipCall;

impl Cloud {
    /// `JoinSecurityGroup`.
    ///
    /// # Errors
    /// Every code of the vendor's page that state can produce.
    pub fn join(
        &mut self,
        caller: &Caller,
        call: &MembershipCall<'_>,
        now: Timestamp,
    ) -> Result<(), ErrorResponse> {
        let edge = self.edge(caller, "ecs:JoinSecurityGroup", call, now)?;
        edge.check_owner(caller)?;
        edge.check_managed()?;
        edge.check_creation(self, now)?;
        edge.check_state(self, now)?;
        self.check_conflict(&edge.member, now)?;
        edge.check_network()?;
        self.check_types(&edge, now)?;
        let groups = self.groups_of(&edge.member, now);
        if groups.contains(&edge.group.resource.id) {
            return match self.settings.join_member {
                JoinMember::AlreadyExists => Err(error::ALREADY_EXISTS.into()),
                JoinMember::Success => Ok(()),
            };
        }
        self.check_quotas(&edge, &groups)?;
        let (member, group) = (edge.member, edge.group.resource.id.clone());
        self.connect(&member, &group, now);
        self.occupy(&member, later(now, self.settings.latency));
        Ok(())
    }

    /// `LeaveSecurityGroup`.
    ///
    /// # Errors
    /// Every code of the vendor's page that state can produce.
    pub fn leave(
        &mut self,
        caller: &Caller,
        call: &MembershipCall<'_>,
        now: Timestamp,
    ) -> Result<(), ErrorResponse> {
        let edge = self.edge(caller, "ecs:LeaveSecurityGroup", call, now)?;
        edge.check_owner(caller)?;
        edge.check_managed()?;
        if self.deleted_vswitches.contains(edge.target.vswitch()) {
            let vswitch = edge.target.vswitch();
            return Err(error::VSWITCH_NOT_FOUND.says(format!(
                "The specified virtual switch {vswitch} does not exist."
            )));
        }
        edge.check_state(self, now)?;
        self.check_conflict(&edge.member, now)?;
        let groups = self.groups_of(&edge.member, now);
        if !groups.contains(&edge.group.resource.id) {
            return Err(match self.settings.codes {
                Codes::Current => error::ASSOCIATION_NOT_FOUND.into(),
                Codes::Original => error::INSTANCE_NOT_IN_GROUP.into(),
            });
        }
        if groups.len() == 1 {
            return Err(match edge.target {
                Target::Instance(_) => error::LAST_GROUP.into(),
                Target::Interface(_) => error::AT_LEAST_ONE_GROUP.into(),
            });
        }
        let (member, group) = (edge.member, edge.group.resource.id.clone());
        self.disconnect(&member, &group, now);
        self.occupy(&member, later(now, self.settings.latency));
        Ok(())
    }

    /// Checks parameters, RAM and existence. Returns the edge of the call.
    fn edge(
        &self,
        caller: &Caller,
        action: &str,
        call: &MembershipCall<'_>,
        now: Timestamp,
    ) -> Result<Edge<'_>, ErrorResponse> {
        let Parameters {
            target,
            group,
            region,
        } = Parameters::parse(call)?;
        if region.is_some_and(|region| !self.has_region(region)) {
            return Err(error::REGION_NOT_FOUND.into());
        }
        let resource = target.resource();
        // A call without a region uses that of the group, so that a denial for one region applies to it.
        let place = region.or_else(|| Some(&*self.groups.get(group)?.resource.region));
        caller.authorize(
            action,
            place.unwrap_or("*"),
            &[resource, format!("securitygroup/{group}")],
        )?;

        let group = self
            .group(group, now)
            .filter(|group| group.resource.visible_to(&caller.account))
            .filter(|group| region.is_none_or(|region| *group.resource.region == *region))
            .ok_or(error::GROUP_NOT_FOUND)?;
        let (target, member) = match target {
            TargetId::Instance(id) => {
                let instance = self
                    .instance(id, now)
                    .filter(|instance| instance.resource.visible_to(&caller.account))
                    .filter(|instance| instance.resource.region == group.resource.region)
                    .ok_or(error::INSTANCE_NOT_FOUND)?;
                (
                    Target::Instance(instance),
                    Member::Instance(instance.resource.id.clone()),
                )
            }
            TargetId::Interface(id) => {
                let interface = self
                    .interface(id, now)
                    .filter(|interface| interface.resource.visible_to(&caller.account))
                    .filter(|interface| interface.resource.region == group.resource.region)
                    .ok_or(error::ENI_NOT_FOUND)?;
                (
                    Target::Interface(interface),
                    Member::NetworkInterface(interface.resource.id.clone()),
                )
            }
        };
        Ok(Edge {
            target,
            member,
            group,
        })
    }

    pub(super) fn check_conflict(
        &self,
        member: &Member,
        now: Timestamp,
    ) -> Result<(), ErrorResponse> {
        let busy = self
            .membership(member)
            .is_some_and(|membership| now < membership.busy_until);
        if self.settings.conflicts && busy {
            return Err(error::CONFLICT.into());
        }
        Ok(())
    }

    fn check_types(&self, edge: &Edge<'_>, now: Timestamp) -> Result<(), ErrorResponse> {
        if edge.group.kind == GroupKind::Enterprise && !edge.supports_enterprise_groups(self) {
            return Err(error::NOT_SUPPORT_ENTERPRISE_GROUP.into());
        }
        let other_type = self
            .groups_of(&edge.member, now)
            .iter()
            .filter_map(|id| self.group(id, now))
            .any(|group| group.kind != edge.group.kind);
        if other_type {
            return Err(error::MULTI_GROUP_TYPE.into());
        }
        Ok(())
    }

    fn check_quotas(&self, edge: &Edge<'_>, groups: &[Id]) -> Result<(), ErrorResponse> {
        if groups.len() >= self.group_quota(&edge.member) {
            return Err(match edge.target {
                Target::Instance(_) => error::INSTANCE_GROUP_LIMIT.into(),
                Target::Interface(_) => error::INTERFACE_GROUP_LIMIT.into(),
            });
        }
        let (capacity, code) = self.capacity(edge.group);
        if edge.group.members.len() >= capacity {
            return Err(code.into());
        }
        let rules: u32 = groups
            .iter()
            .filter_map(|id| self.groups.get(id))
            .map(|group| group.rules)
            .sum();
        if rules.saturating_add(edge.group.rules) > self.settings.rules_per_target {
            return Err(error::ACL_LIMIT.into());
        }
        Ok(())
    }

    /// How many groups an instance or interface may be in.
    pub(super) fn group_quota(&self, member: &Member) -> usize {
        self.membership(member)
            .and_then(|membership| membership.quota)
            .unwrap_or(self.settings.groups_per_target)
    }

    /// Member limit of a group, and the code for exceeding it.
    pub(super) fn capacity(&self, group: &SecurityGroup) -> (usize, Code) {
        let (limit, code) = match group.kind {
            GroupKind::Normal => (self.settings.members_per_group, error::GROUP_INSTANCE_LIMIT),
            GroupKind::Enterprise => (
                self.settings.members_per_enterprise_group,
                error::ENTERPRISE_GROUP_LIMIT,
            ),
        };
        (group.quota.unwrap_or(limit), code)
    }
}

/// A target and a group that may be joined or left.
pub(super) struct Edge<'a> {
    pub(super) target: Target<'a>,
    pub(super) member: Member,
    pub(super) group: &'a SecurityGroup,
}

pub(super) enum Target<'a> {
    Instance(&'a Instance),
    Interface(&'a NetworkInterface),
}

impl Target<'_> {
    fn vswitch(&self) -> &str {
        match self {
            Self::Instance(instance) => &instance.vswitch,
            Self::Interface(interface) => &interface.vswitch,
        }
    }
}

impl Edge<'_> {
    pub(super) fn check_owner(&self, caller: &Caller) -> Result<(), ErrorResponse> {
        let group = &self.group.resource;
        match self.target {
            Target::Interface(interface) if interface.resource.account != group.account => {
                Err(error::ENI_AND_GROUP_NOT_SAME_USER.into())
            }
            Target::Interface(NetworkInterface { resource, .. })
            | Target::Instance(Instance { resource, .. })
                if *resource.account != *caller.account || *group.account != *caller.account =>
            {
                Err(error::NOT_BELONG_USER.into())
            }
            Target::Interface(_) | Target::Instance(_) => Ok(()),
        }
    }

    pub(super) fn check_managed(&self) -> Result<(), ErrorResponse> {
        if self.group.service_managed {
            return Err(error::MANAGED_GROUP.into());
        }
        match self.target {
            Target::Interface(interface) if interface.service_managed => {
                Err(error::MANAGED_ENI.into())
            }
            Target::Interface(interface) if interface.kind == InterfaceKind::Primary => {
                Err(error::INVALID_ENI_TYPE.into())
            }
            Target::Interface(_) | Target::Instance(_) => Ok(()),
        }
    }

    /// Codes for targets that are still being created; only Join has them.
    fn check_creation(&self, cloud: &Cloud, now: Timestamp) -> Result<(), ErrorResponse> {
        if cloud.settings.codes == Codes::Original {
            return Ok(());
        }
        match self.target {
            Target::Instance(instance) if *instance.status.at(now) == InstanceStatus::Pending => {
                Err(error::INSTANCE_BEING_CREATED.into())
            }
            Target::Interface(interface)
                if *interface.status.at(now) == InterfaceStatus::Creating
                    || attached_to(cloud, interface, now).is_some_and(|instance| {
                        *instance.status.at(now) == InstanceStatus::Pending
                    }) =>
            {
                Err(error::BEING_CREATED.into())
            }
            Target::Interface(_) | Target::Instance(_) => Ok(()),
        }
    }

    pub(super) fn check_state(&self, cloud: &Cloud, now: Timestamp) -> Result<(), ErrorResponse> {
        let instance = match self.target {
            Target::Instance(instance) => Some(instance),
            Target::Interface(interface) => attached_to(cloud, interface, now),
        };
        if instance.is_some_and(|instance| instance.locks.contains("security")) {
            return Err(match cloud.settings.codes {
                Codes::Current => error::LOCKED_FOR_SECURITY.into(),
                Codes::Original => error::OPERATION_DENIED.into(),
            });
        }
        match self.target {
            Target::Instance(instance) => match instance.status.at(now) {
                InstanceStatus::Running | InstanceStatus::Stopped => Ok(()),
                InstanceStatus::Pending | InstanceStatus::Starting | InstanceStatus::Stopping => {
                    Err(error::INCORRECT_INSTANCE_STATUS.into())
                }
            },
            Target::Interface(interface) => match interface.status.at(now) {
                InterfaceStatus::Available | InterfaceStatus::InUse => Ok(()),
                InterfaceStatus::Creating
                | InterfaceStatus::Attaching
                | InterfaceStatus::Detaching
                | InterfaceStatus::Deleting => Err(error::INVALID_ENI_STATE.into()),
            },
        }
    }

    pub(super) fn check_network(&self) -> Result<(), ErrorResponse> {
        let (vpc, code) = match self.target {
            Target::Instance(instance) => (&instance.resource.vpc, error::INSTANCE_MISMATCH),
            Target::Interface(interface) => (&interface.resource.vpc, error::VPC_MISMATCH),
        };
        if *vpc != self.group.resource.vpc {
            return Err(code.into());
        }
        Ok(())
    }

    pub(super) fn supports_enterprise_groups(&self, cloud: &Cloud) -> bool {
        match self.target {
            Target::Instance(instance) => instance.enterprise_groups,
            Target::Interface(interface) => interface
                .instance
                .as_ref()
                .and_then(|id| cloud.instances.get(id))
                .is_none_or(|instance| instance.enterprise_groups),
        }
    }
}

fn attached_to<'a>(
    cloud: &'a Cloud,
    interface: &NetworkInterface,
    now: Timestamp,
) -> Option<&'a Instance> {
    interface
        .instance
        .as_ref()
        .and_then(|id| cloud.instance(id, now))
}
