//! Changes behind the operator's back: what the admin port and simulations can do to the cloud without a call. Pure, unchecked:
//! a change may make states that no call could.

use std::collections::BTreeSet;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

use super::account::{AccessKey, Denial};
use super::cloud::{
    Cloud, Id, Instance, InstanceStatus, InterfaceStatus, Member, NetworkInterface, SecurityGroup,
};
use super::inventory::InventoryError;
use super::settings::{SettingsChange, optional_duration};
use super::spec::{GroupSpec, InstanceSpec, InterfaceSpec};
use super::timeline::later;

/// One change.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Change {
    /// Puts a target into a group.
    Join(EdgeChange),
    /// Takes a target out of a group, be it the last one.
    Leave(EdgeChange),
    /// Sets the status of an instance or interface.
    SetStatus(StatusChange),
    /// Releases an instance (with its primary interface) or interface, or deletes a group.
    Delete(ById),
    /// Locks an instance; the reason is `security` by default.
    Lock(LockChange),
    /// Takes a lock away.
    Unlock(LockChange),
    /// Sets or (absent) clears the quota of one instance, interface or group.
    SetQuota(QuotaChange),
    /// Changes knobs of the whole cloud: latency, lag, limits, quotas …
    Set(SettingsChange),
    /// Adds a key or replaces it.
    AddKey(AccessKey),
    /// Makes a key unknown.
    RemoveKey(ById),
    /// Disables a key.
    RevokeKey(ById),
    /// Enables a key.
    ActivateKey(ById),
    /// Has RAM refuse things to a key.
    Deny(DenyChange),
    /// Takes all denials of a key away.
    Allow(ById),
    /// Marks a group or interface as managed by a cloud product, or not.
    SetManaged(ManagedChange),
    /// Sets the number of rules of a group.
    SetRules(RulesChange),
    /// Deletes a virtual switch under what stands in it.
    #[serde(rename = "deleteVSwitch")]
    DeleteVSwitch(ById),
    /// A new group.
    CreateGroup(GroupSpec),
    /// A new instance: Pending for the transition time and then Running, unless it says otherwise.
    CreateInstance(InstanceSpec),
    /// A new secondary interface.
    CreateInterface(InterfaceSpec),
}

macro_rules! change {
    ($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        pub struct $name {
            $($(#[$field_doc])* pub $field: $type,)*
        }
    };
}

change! {
    /// An edge.
    EdgeChange {
        /// An instance or a secondary interface.
        target: String,
        /// The group.
        security_group_id: String,
    }
}
change! {
    /// Something by its ID.
    ById {
        /// The ID.
        id: String,
    }
}
change! {
    /// A status.
    StatusChange {
        /// An instance or interface.
        id: String,
        /// The status, as ECS spells it.
        status: String,
        /// How long an intermediate status lasts; absent: until it is changed.
        #[serde(default, rename = "for", deserialize_with = "optional_duration")]
        duration: Option<Duration>,
    }
}
change! {
    /// A lock.
    LockChange {
        /// The instance.
        id: String,
        /// The reason.
        reason: Option<String>,
    }
}
change! {
    /// A quota.
    QuotaChange {
        /// An instance, interface or group.
        id: String,
        /// Groups (of a target) or members (of a group).
        quota: Option<usize>,
    }
}
change! {
    /// Denials.
    DenyChange {
        /// The access key ID.
        id: String,
        /// What is refused, in addition to what is refused already.
        deny: Vec<Denial>,
    }
}
change! {
    /// Management by a product.
    ManagedChange {
        /// A group or interface.
        id: String,
        /// Whether it is.
        managed: bool,
    }
}
change! {
    /// Rules.
    RulesChange {
        /// The group.
        id: String,
        /// How many.
        rules: u32,
    }
}

/// Why a change cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// An ID of nothing.
    #[error("{field}: there is no {id}")]
    NoSuch {
        /// The field.
        field: &'static str,
        /// The ID.
        id: String,
    },
    /// A status that it cannot have.
    #[error("status: {0:?} is not a status of it")]
    Status(String),
    /// A new object that does not fit.
    #[error(transparent)]
    Inventory(#[from] InventoryError),
}

impl Cloud {
    /// Makes a change.
    ///
    /// # Errors
    /// A sentence that names the field; then nothing has changed.
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
            Change::Unlock(LockChange { id, reason }) => {
                let locks = self.locks(&id, now)?;
                match reason {
                    Some(reason) => locks.retain(|lock| *lock != reason),
                    None => locks.clear(),
                }
            }
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
            Change::DeleteVSwitch(ById { id }) => {
                self.deleted_vswitches.insert(id);
            }
            Change::CreateGroup(spec) => self.create_group(&spec, now)?,
            Change::CreateInstance(mut spec) => {
                if spec.status.is_none() {
                    spec.status = Some(InstanceStatus::Pending);
                    spec.status_for = spec.status_for.or(Some(self.settings.transition));
                }
                self.create_instance(&spec, now, now)?;
            }
            Change::CreateInterface(spec) => self.create_interface(&spec, now, now)?,
        }
        Ok(())
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
        // Another status ends a deletion that was on its way.
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

    fn locks(
        &mut self,
        instance: &str,
        now: Timestamp,
    ) -> Result<&mut BTreeSet<String>, ChangeError> {
        self.instance_mut(instance, now)
            .map(|instance| &mut instance.locks)
            .ok_or_else(|| no_such("id", instance))
    }

    // What has gone cannot be changed any more.

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
