//! `StartInstance` and `StopInstance`. Pure.

use k8s_openapi::jiff::Timestamp;

use super::account::Caller;
use super::cloud::{Cloud, InstanceStatus};
use super::error::{self, ErrorResponse};
use super::parameters::well_formed;
use super::settings::Codes;
use super::timeline::later;

impl Cloud {
    /// `StartInstance`: Stopped, then Starting for the transition time, then Running.
    ///
    /// # Errors
    /// The vendor's, for parameters, RAM, status and locks.
    pub fn start(
        &mut self,
        caller: &Caller,
        instance_id: Option<&str>,
        now: Timestamp,
    ) -> Result<(), ErrorResponse> {
        let [from, through, to] = [
            InstanceStatus::Stopped,
            InstanceStatus::Starting,
            InstanceStatus::Running,
        ];
        self.switch(
            caller,
            "ecs:StartInstance",
            instance_id,
            now,
            [from, through, to],
        )
    }

    /// `StopInstance`: Running, then Stopping for the transition time, then Stopped.
    ///
    /// # Errors
    /// The vendor's, for parameters, RAM, status and locks.
    pub fn stop(
        &mut self,
        caller: &Caller,
        instance_id: Option<&str>,
        now: Timestamp,
    ) -> Result<(), ErrorResponse> {
        let [from, through, to] = [
            InstanceStatus::Running,
            InstanceStatus::Stopping,
            InstanceStatus::Stopped,
        ];
        self.switch(
            caller,
            "ecs:StopInstance",
            instance_id,
            now,
            [from, through, to],
        )
    }

    fn switch(
        &mut self,
        caller: &Caller,
        action: &str,
        instance_id: Option<&str>,
        now: Timestamp,
        [from, through, to]: [InstanceStatus; 3],
    ) -> Result<(), ErrorResponse> {
        let id = instance_id
            .filter(|id| !id.is_empty())
            .ok_or_else(|| error::missing_parameter("InstanceId"))?;
        if !well_formed(id, "i-") {
            return Err(error::INSTANCE_MALFORMED.into());
        }
        let place = self
            .instances
            .get(id)
            .map(|instance| &*instance.resource.region);
        caller.authorize(action, place.unwrap_or("*"), &[format!("instance/{id}")])?;
        let (transition, codes) = (self.settings.transition, self.settings.codes);
        let instance = self
            .instances
            .get_mut(id)
            .filter(|instance| {
                instance.resource.exists(now) && instance.resource.visible_to(&caller.account)
            })
            .ok_or(error::INSTANCE_NOT_FOUND)?;
        if instance.locks.contains("security") {
            return Err(match codes {
                Codes::Current => error::LOCKED_FOR_SECURITY.into(),
                Codes::Original => error::OPERATION_DENIED.into(),
            });
        }
        if *instance.status.at(now) != from {
            return Err(error::INCORRECT_INSTANCE_STATUS.into());
        }
        instance.status.set(now, through);
        instance.status.plan(later(now, transition), to);
        Ok(())
    }
}
