//! Makes changes without an API call. Pure. Unchecked: a change may produce states that no call can.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;

use super::account::AccessKey;
use super::change::{
    ById, Change, ChangeError, DenyChange, EdgeChange, LockChange, ManagedChange, QuotaChange,
    RulesChange, StatusChange, TagsChange,
};
use super::cloud::{
    Cloud, Id, Instance, InstanceStatus, InterfaceStatus, Member, NetworkInterface, SecurityGroup,
};
use super::spec::InstanceSpec;
use super::timeline::later;

impl Cloud {
    /// Makes a change.
    ///
    /// # Errors
    /// A sentence that names the field; the cloud is unchanged then.
    pub fn change(&mut self, change: Change, now: Timestamp) -> Result<(), ChangeError> {
        match change {
            Change::Join(EdgeChange {
                target,
                security_group_id,
            }) => {
                let (member, group) = self.named_edge(&target, &security_group_id, now)?;
                self.connect(&member, &group, now);
            }
            Change::Leave(EdgeChange {
                target,
                security_group_id,
            }) => {
                let (member, group) = self.named_edge(&target, &security_group_id, now)?;
                self.disconnect(&member, &group, now);
            }
            Change::SetStatus(change) => self.set_status(&change, now)?,
            Change::Delete(ById { id }) => self.delete(&id, now)?,
            Change::Lock(LockChange { id, reason }) => {
                let reason = reason.unwrap_or_else(|| "security".to_owned());
                self.locks(&id, now)?.insert(reason);
            }
            Change::Unlock(change) => self.unlock(change, now)?,
            Change::SetQuota(QuotaChange { id, quota }) => self.set_quota(&id, quota, now)?,
            Change::Set(settings) => settings.apply(&mut self.settings),
            Change::AddKey(key) => {
                self.keys.insert(key);
            }
            Change::RemoveKey(ById { id }) => {
                self.keys.remove(&id).ok_or_else(|| no_such("id", &id))?;
            }
            Change::RevokeKey(ById { id }) => self.key(&id)?.inactive = true,
            Change::ActivateKey(ById { id }) => self.key(&id)?.inactive = false,
            Change::AddRole(role) => self.ram.insert_role(role),
            Change::RemoveRole(ById { id }) => self.remove_role(&id)?,
            Change::AddOidcProvider(provider) => self.ram.insert_provider(provider),
            Change::SetMetadata(change) => change.apply(&mut self.metadata),
            Change::Deny(DenyChange { id, deny }) => self.key(&id)?.deny.extend(deny),
            Change::Allow(ById { id }) => self.key(&id)?.deny.clear(),
            Change::SetManaged(ManagedChange { id, managed }) => {
                self.set_managed(&id, managed, now)?;
            }
            Change::SetRules(RulesChange { id, rules }) => {
                self.group_mut(&id, now)
                    .ok_or_else(|| no_such("id", &id))?
                    .rules = rules;
            }
            Change::SetTags(TagsChange { id, tags }) => self.set_tags(&id, tags, now)?,
            Change::DeleteVSwitch(ById { id }) => {
                self.deleted_vswitches.insert(id);
            }
            Change::CreateGroup(spec) => self.create_group(&spec, now)?,
            Change::CreateInstance(spec) => self.start_instance(spec, now)?,
            Change::CreateInterface(spec) => self.create_interface(&spec, now, now)?,
        }
        Ok(())
    }

    /// A new instance is Pending at first, unless it sets a status.
    fn start_instance(
        &mut self,
        mut spec: InstanceSpec,
        now: Timestamp,
    ) -> Result<(), ChangeError> {
        if spec.status.is_none() {
            spec.status = Some(InstanceStatus::Pending);
            spec.status_for = spec.status_for.or(Some(self.settings.transition));
        }
        Ok(self.create_instance(&spec, now, now)?)
    }

    fn unlock(
        &mut self,
        LockChange { id, reason }: LockChange,
        now: Timestamp,
    ) -> Result<(), ChangeError> {
        let locks = self.locks(&id, now)?;
        match reason {
            Some(reason) => locks.retain(|lock| *lock != reason),
            None => locks.clear(),
        }
        Ok(())
    }

    fn remove_role(&mut self, name: &str) -> Result<(), ChangeError> {
        let removed = self.ram.remove_role(name);
        removed.map(drop).ok_or_else(|| no_such("id", name))
    }

    fn named_edge(
        &self,
        target: &str,
        group: &str,
        now: Timestamp,
    ) -> Result<(Member, Id), ChangeError> {
        let member = self
            .member(target, now)
            .ok_or_else(|| no_such("target", target))?;
        let group = self
            .group(group, now)
            .ok_or_else(|| no_such("securityGroupId", group))?;
        Ok((member, group.resource.id.clone()))
    }

    fn key(&mut self, id: &str) -> Result<&mut AccessKey, ChangeError> {
        self.keys.find_mut(id).ok_or_else(|| no_such("id", id))
    }

    fn set_status(&mut self, change: &StatusChange, now: Timestamp) -> Result<(), ChangeError> {
        let StatusChange {
            id,
            status: text,
            duration,
        } = change;
        let wrong = || ChangeError::Status(text.clone());
        let word = serde_json::Value::String(text.clone());
        if let Some(instance) = self.instance_mut(id, now) {
            let status: InstanceStatus = serde_json::from_value(word).map_err(|_| wrong())?;
            instance.status.set(now, status);
            if let Some(duration) = duration {
                instance
                    .status
                    .plan(later(now, *duration), status.settles_in());
            }
            return Ok(());
        }
        let interface = self
            .interface_mut(id, now)
            .ok_or_else(|| no_such("id", id))?;
        let status: InterfaceStatus = serde_json::from_value(word).map_err(|_| wrong())?;
        interface.status.set(now, status);
        // Another status cancels a pending deletion.
        interface.resource.deleted = None;
        if let Some(duration) = duration {
            let end = later(now, *duration);
            match status {
                InterfaceStatus::Deleting => interface.resource.deleted = Some(end),
                InterfaceStatus::Creating
                | InterfaceStatus::Available
                | InterfaceStatus::Attaching
                | InterfaceStatus::InUse
                | InterfaceStatus::Detaching => interface.status.plan(end, status.settles_in()),
            }
        }
        Ok(())
    }

    fn delete(&mut self, id: &str, now: Timestamp) -> Result<(), ChangeError> {
        if self.group(id, now).is_some() {
            let members = self
                .groups
                .get(id)
                .map(|group| group.members.clone())
                .unwrap_or_default();
            for member in &members {
                if let Some(member) = self.member(member, now) {
                    self.disconnect(&member, id, now);
                }
            }
            if let Some(group) = self.groups.get_mut(id) {
                group.resource.deleted = Some(now);
            }
            return Ok(());
        }
        let known = self.instance(id, now).is_some() || self.interface(id, now).is_some();
        if !known {
            return Err(no_such("id", id));
        }
        if let Some(member) = self.member(id, now) {
            for group in self.groups_of(&member, now).iter() {
                if let Some(group) = self.groups.get_mut(group) {
                    group.members.remove(id);
                }
            }
        }
        if let Some(instance) = self.instances.get_mut(id) {
            instance.resource.deleted = Some(now);
            if let Some(primary) = self.interfaces.get_mut(&instance.primary) {
                primary.resource.deleted = Some(now);
            }
        }
        if let Some(interface) = self.interfaces.get_mut(id) {
            interface.resource.deleted = Some(now);
        }
        Ok(())
    }

    fn set_quota(
        &mut self,
        id: &str,
        quota: Option<usize>,
        now: Timestamp,
    ) -> Result<(), ChangeError> {
        if let Some(group) = self.group_mut(id, now) {
            group.quota = quota;
            return Ok(());
        }
        let member = self.member(id, now).ok_or_else(|| no_such("id", id))?;
        if let Some(membership) = self.membership_mut(&member) {
            membership.quota = quota;
        }
        Ok(())
    }

    fn set_managed(&mut self, id: &str, managed: bool, now: Timestamp) -> Result<(), ChangeError> {
        if let Some(group) = self.group_mut(id, now) {
            group.service_managed = managed;
            return Ok(());
        }
        self.interface_mut(id, now)
            .ok_or_else(|| no_such("id", id))?
            .service_managed = managed;
        Ok(())
    }

    fn set_tags(
        &mut self,
        id: &str,
        tags: BTreeMap<String, String>,
        now: Timestamp,
    ) -> Result<(), ChangeError> {
        if let Some(instance) = self.instance_mut(id, now) {
            instance.resource.tags = tags;
            return Ok(());
        }
        if let Some(group) = self.group_mut(id, now) {
            group.resource.tags = tags;
            return Ok(());
        }
        self.interface_mut(id, now)
            .ok_or_else(|| no_such("id", id))?
            .resource
            .tags = tags;
        Ok(())
    }

    fn locks(
        &mut self,
        instance: &str,
        now: Timestamp,
    ) -> Result<&mut BTreeSet<String>, ChangeError> {
        self.instance_mut(instance, now)
            .map(|instance| &mut instance.locks)
            .ok_or_else(|| no_such("id", instance))
    }

    // A deleted object cannot be changed.
    fn instance_mut(&mut self, id: &str, now: Timestamp) -> Option<&mut Instance> {
        self.instances
            .get_mut(id)
            .filter(|instance| instance.resource.exists(now))
    }

    fn interface_mut(&mut self, id: &str, now: Timestamp) -> Option<&mut NetworkInterface> {
        self.interfaces
            .get_mut(id)
            .filter(|interface| interface.resource.exists(now))
    }

    fn group_mut(&mut self, id: &str, now: Timestamp) -> Option<&mut SecurityGroup> {
        self.groups
            .get_mut(id)
            .filter(|group| group.resource.exists(now))
    }
}

fn no_such(field: &'static str, id: &str) -> ChangeError {
    ChangeError::NoSuch {
        field,
        id: id.to_owned(),
    }
}
