//! The effect of each call of the simulated cloud. Pure.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::account::{Caller, caller_identity};
use super::action::Action;
use super::cloud::Cloud;
use super::error::{self, ErrorResponse};
use super::membership::MembershipCall;
use super::parameters::Parameters;
use super::power::Switch;

impl Action {
    /// Performs the call; with `DryRun` all of it but the effect and the answer.
    ///
    /// # Errors
    /// Every error of the simulated cloud; `DryRunOperation` if a dry run finds nothing wrong.
    pub fn run(
        self,
        cloud: &mut Cloud,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        let dry_run = self.has_dry_run() && parameters.boolean("DryRun")?.unwrap_or(false);
        let answer = match self {
            Self::JoinSecurityGroup => cloud
                .join(caller, &membership_call(parameters), now)
                .map(|()| json!({})),
            Self::LeaveSecurityGroup => cloud
                .leave(caller, &membership_call(parameters), now)
                .map(|()| json!({})),
            Self::ModifyNetworkInterfaceAttribute => cloud
                .modify_interface(caller, parameters, now)
                .map(|()| json!({})),
            Self::StartInstance => power(cloud, caller, Switch::On, parameters, dry_run, now),
            Self::StopInstance => power(cloud, caller, Switch::Off, parameters, dry_run, now),
            Self::DescribeInstances => cloud.describe_instances(caller, parameters, now),
            Self::DescribeInstanceStatus => cloud.describe_instance_status(caller, parameters, now),
            Self::DescribeNetworkInterfaces => {
                cloud.describe_network_interfaces(caller, parameters, now)
            }
            Self::DescribeSecurityGroups => cloud.describe_security_groups(caller, parameters, now),
            Self::DescribeDisks => cloud.describe_disks(caller, parameters, now),
            Self::DescribeInstanceAttribute => {
                cloud.describe_instance_attribute(caller, parameters, now)
            }
            Self::DescribeUserData => cloud.describe_user_data(caller, parameters, now),
            Self::DescribeSecurityGroupAttribute => {
                cloud.describe_security_group_attribute(caller, parameters, now)
            }
            Self::DescribeInstanceRamRole => cloud.describe_instance_ram_role(caller, parameters),
            Self::DescribeInstanceMaintenanceAttributes => {
                cloud.describe_instance_maintenance_attributes(caller, parameters, now)
            }
            Self::DescribeInstanceAttachmentAttributes => {
                cloud.describe_instance_attachment_attributes(caller, parameters, now)
            }
            Self::ListTagResources => cloud.list_tag_resources(caller, parameters, now),
            Self::GetCallerIdentity => Ok(caller_identity(caller)),
            Self::AssumeRole => cloud.assume_role(caller, parameters, now),
            Self::AssumeRoleWithOIDC => cloud.assume_role_with_oidc(parameters, now),
        }?;
        if dry_run {
            return Err(error::DRY_RUN.into());
        }
        Ok(answer)
    }
}

fn power(
    cloud: &mut Cloud,
    caller: &Caller,
    switch: Switch,
    parameters: &Parameters,
    dry_run: bool,
    now: Timestamp,
) -> Result<Value, ErrorResponse> {
    let id = cloud.check_switch(caller, switch, parameters.text("InstanceId"), now)?;
    if !dry_run {
        cloud.switch(switch, &id, now);
    }
    Ok(json!({}))
}

fn membership_call(parameters: &Parameters) -> MembershipCall<'_> {
    MembershipCall {
        region: parameters.text("RegionId"),
        instance_id: parameters.text("InstanceId"),
        network_interface_id: parameters.text("NetworkInterfaceId"),
        security_group_id: parameters.text("SecurityGroupId"),
    }
}
