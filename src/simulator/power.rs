//! `StartInstance`, `StopInstance` and STS `GetCallerIdentity`. Pure.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::account::Caller;
use super::cloud::{Cloud, InstanceStatus};
use super::error::{self, ErrorResponse};
use super::membership::well_formed;
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

/// `GetCallerIdentity` of STS.
#[must_use]
pub fn caller_identity(caller: &Caller) -> Value {
    let Caller {
        access_key,
        account,
        user,
        temporary,
        ..
    } = caller;
    if *temporary {
        return json!({
            "IdentityType": "AssumedRoleUser",
            "AccountId": account,
            "UserId": "",
            "PrincipalId": format!("300000000000000001:{user}"),
            "RoleId": "300000000000000001",
            "Arn": format!("acs:sts::{account}:assumed-role/{user}/{user}"),
        });
    }
    // The user ID has 18 digits and cannot be derived from a real key: make one from the access key ID.
    let number = access_key.bytes().fold(0_u64, |sum, byte| {
        sum.wrapping_mul(31).wrapping_add(u64::from(byte))
    });
    let id = (200_000_000_000_000_000 + number % 100_000_000_000_000_000).to_string();
    json!({
        "IdentityType": "RAMUser",
        "AccountId": account,
        "UserId": id,
        "PrincipalId": id,
        "Arn": format!("acs:ram::{account}:user/{user}"),
    })
}
