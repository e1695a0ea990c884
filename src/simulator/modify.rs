//! `ModifyNetworkInterfaceAttribute`, as far as it sets the groups of a secondary interface: the rules of Join for all groups at
//! once, under that call's own codes. Pure.

use std::collections::BTreeSet;

use k8s_openapi::jiff::Timestamp;

use super::account::Caller;
use super::cloud::{Cloud, GroupKind, Id, InterfaceKind, Member, NetworkInterface, SecurityGroup};
use super::error::{self, ErrorResponse};
use super::membership::{Edge, Target};
use super::parameters::{Parameters, well_formed};
use super::timeline::later;

impl Cloud {
    /// Replaces the groups of an interface. Changes nothing if the call names no group.
    ///
    /// # Errors
    /// Every code of the vendor's page that state can produce.
    pub fn modify_interface(
        &mut self,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<(), ErrorResponse> {
        let region = self.region(parameters)?;
        let id = parameters
            .text("NetworkInterfaceId")
            .ok_or_else(|| error::missing_parameter("NetworkInterfaceId"))?;
        if !well_formed(id, "eni-") {
            return Err(error::ENI_ID_INVALID.into());
        }
        let ids = parameters.repeated("SecurityGroupId", MOST_GROUPS)?;
        if ids.iter().collect::<BTreeSet<_>>().len() < ids.len() {
            return Err(error::GROUP_REPEATED.into());
        }
        let groups = ids.iter().map(|id| format!("securitygroup/{id}"));
        let resources: Vec<String> = [format!("eni/{id}")].into_iter().chain(groups).collect();
        caller.authorize("ecs:ModifyNetworkInterfaceAttribute", region, &resources)?;

        let interface = self
            .interface(id, now)
            .filter(|interface| interface.resource.visible_to(&caller.account))
            .filter(|interface| *interface.resource.region == *region)
            .ok_or(error::ENI_NOT_FOUND)?;
        let groups = self.named_groups(caller, region, &ids, now)?;
        if groups.is_empty() {
            return Ok(());
        }
        self.check_groups(caller, interface, &groups, now)?;

        let member = Member::NetworkInterface(interface.resource.id.clone());
        let wanted: Vec<Id> = groups
            .iter()
            .map(|group| group.resource.id.clone())
            .collect();
        let before = self.groups_of(&member, now);
        for group in &wanted {
            self.connect(&member, group, now);
        }
        for group in before.iter().filter(|group| !wanted.contains(group)) {
            self.disconnect(&member, group, now);
        }
        self.occupy(&member, later(now, self.settings.latency));
        Ok(())
    }

    fn named_groups(
        &self,
        caller: &Caller,
        region: &str,
        ids: &[String],
        now: Timestamp,
    ) -> Result<Vec<&SecurityGroup>, ErrorResponse> {
        let group = |id: &String| {
            self.group(id, now)
                .filter(|group| group.resource.visible_to(&caller.account))
                .filter(|group| *group.resource.region == *region)
                .ok_or_else(|| error::GROUP_NOT_FOUND.into())
        };
        ids.iter().map(group).collect()
    }

    /// The checks of Join, in the same order.
    fn check_groups(
        &self,
        caller: &Caller,
        interface: &NetworkInterface,
        groups: &[&SecurityGroup],
        now: Timestamp,
    ) -> Result<(), ErrorResponse> {
        let member = Member::NetworkInterface(interface.resource.id.clone());
        let edge = |group| Edge {
            target: Target::Interface(interface),
            member: member.clone(),
            group,
        };
        let edges: Vec<Edge<'_>> = groups.iter().map(|group| edge(group)).collect();
        if interface.kind == InterfaceKind::Primary {
            return Err(error::PRIMARY_ENI.into());
        }
        edges.iter().try_for_each(|edge| edge.check_owner(caller))?;
        edges.iter().try_for_each(Edge::check_managed)?;
        // Which of its groups a product manages counts as well when it would be left.
        let before = self.groups_of(&member, now);
        let left = before.iter().filter_map(|id| self.group(id, now));
        left.filter(|own| {
            !groups
                .iter()
                .any(|group| group.resource.id == own.resource.id)
        })
        .try_for_each(|group| edge(group).check_managed())?;
        for edge in &edges {
            edge.check_state(self, now)?;
        }
        self.check_conflict(&member, now)?;
        edges.iter().try_for_each(Edge::check_network)?;
        let enterprise = |group: &&SecurityGroup| group.kind == GroupKind::Enterprise;
        if groups.iter().any(enterprise) {
            if !groups.iter().all(enterprise) {
                return Err(error::ENI_MULTI_GROUP_TYPE.into());
            }
            if !edges
                .iter()
                .all(|edge| edge.supports_enterprise_groups(self))
            {
                return Err(error::NOT_SUPPORT_ENTERPRISE_GROUP.into());
            }
        }
        self.check_group_quotas(&member, &before, groups)
    }

    fn check_group_quotas(
        &self,
        member: &Member,
        before: &[Id],
        groups: &[&SecurityGroup],
    ) -> Result<(), ErrorResponse> {
        if groups.len() > self.group_quota(member) {
            return Err(error::JOINED_GROUP_LIMIT.into());
        }
        let mut joined = groups
            .iter()
            .filter(|group| !before.contains(&group.resource.id));
        let full = joined.find(|group| group.members.len() >= self.capacity(group).0);
        if let Some(group) = full {
            return Err(match group.kind {
                GroupKind::Normal => error::GROUP_MEMBER_LIMIT.into(),
                GroupKind::Enterprise => error::ENI_COUNT.into(),
            });
        }
        let rules = groups
            .iter()
            .fold(0_u32, |sum, group| sum.saturating_add(group.rules));
        if rules > self.settings.rules_per_target {
            return Err(error::ACL_LIMIT.into());
        }
        Ok(())
    }
}

/// The most groups that the vendor grants an interface.
const MOST_GROUPS: usize = 16;
