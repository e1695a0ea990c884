//! `StartInstance` and `StopInstance`. Pure.

use k8s_openapi::jiff::Timestamp;

use super::account::Caller;
use super::cloud::{Cloud, Id, InstanceStatus};
use super::error::{self, ErrorResponse};
use super::parameters::well_formed;
use super::settings::Codes;
use super::timeline::later;

/// What a call does to an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Switch {
    /// `StartInstance`: Stopped, then Starting for the transition time, then Running.
    On,
    /// `StopInstance`: Running, then Stopping for the transition time, then Stopped.
    Off,
}

impl Switch {
    const fn action(self) -> &'static str {
        match self {
            Self::On => "ecs:StartInstance",
            Self::Off => "ecs:StopInstance",
        }
    }

    const fn from(self) -> InstanceStatus {
        match self {
            Self::On => InstanceStatus::Stopped,
            Self::Off => InstanceStatus::Running,
        }
    }

    const fn through(self) -> InstanceStatus {
        match self {
            Self::On => InstanceStatus::Starting,
            Self::Off => InstanceStatus::Stopping,
        }
    }
}

impl Cloud {
    /// Whether the call may switch the instance: which one. Changes nothing.
    ///
    /// # Errors
    /// The vendor's, for parameters, RAM, status and locks.
    pub fn check_switch(
        &self,
        caller: &Caller,
        switch: Switch,
        instance_id: Option<&str>,
        now: Timestamp,
    ) -> Result<Id, ErrorResponse> {
        let id = instance_id.ok_or_else(|| error::missing_parameter("InstanceId"))?;
        if !well_formed(id, "i-") {
            return Err(error::INSTANCE_MALFORMED.into());
        }
        let known = self.instances.get(id);
        let place = known.map_or("*", |instance| &*instance.resource.region);
        caller.authorize(switch.action(), place, &[format!("instance/{id}")])?;
        let instance = self
            .instance(id, now)
            .filter(|instance| instance.resource.visible_to(&caller.account))
            .ok_or(error::INSTANCE_NOT_FOUND)?;
        if instance.locks.contains("security") {
            return Err(match self.settings.codes {
                Codes::Current => error::LOCKED_FOR_SECURITY.into(),
                Codes::Original => error::OPERATION_DENIED.into(),
            });
        }
        if *instance.status.at(now) != switch.from() {
            return Err(error::INCORRECT_INSTANCE_STATUS.into());
        }
        Ok(instance.resource.id.clone())
    }

    /// Switches an instance, without checks.
    pub fn switch(&mut self, switch: Switch, id: &str, now: Timestamp) {
        let transition = self.settings.transition;
        if let Some(instance) = self.instances.get_mut(id) {
            let through = switch.through();
            instance.status.set(now, through);
            let end = later(now, transition);
            instance.status.plan(end, through.settles_in());
        }
    }
}
