//! The effect of each call of the simulated cloud. Pure.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use super::account::{Caller, caller_identity};
use super::action::Action;
use super::cloud::Cloud;
use super::error::ErrorResponse;
use super::membership::MembershipCall;
use super::parameters::Parameters;

impl Action {
    /// Performs the call.
    ///
    /// # Errors
    /// Every error of the simulated cloud.
    pub fn run(
        self,
        cloud: &mut Cloud,
        caller: &Caller,
        parameters: &Parameters,
        now: Timestamp,
    ) -> Result<Value, ErrorResponse> {
        match self {
            Self::JoinSecurityGroup => cloud
                .join(caller, &membership_call(parameters), now)
                .map(|()| json!({})),
            Self::LeaveSecurityGroup => cloud
                .leave(caller, &membership_call(parameters), now)
                .map(|()| json!({})),
            Self::DescribeInstances => cloud.describe_instances(caller, parameters, now),
            Self::DescribeInstanceStatus => cloud.describe_instance_status(caller, parameters, now),
            Self::DescribeNetworkInterfaces => {
                cloud.describe_network_interfaces(caller, parameters, now)
            }
            Self::DescribeSecurityGroups => cloud.describe_security_groups(caller, parameters, now),
            Self::StartInstance => cloud
                .start(caller, parameters.text("InstanceId"), now)
                .map(|()| json!({})),
            Self::StopInstance => cloud
                .stop(caller, parameters.text("InstanceId"), now)
                .map(|()| json!({})),
            Self::GetCallerIdentity => Ok(caller_identity(caller)),
        }
    }
}

fn membership_call(parameters: &Parameters) -> MembershipCall<'_> {
    MembershipCall {
        region: parameters.text("RegionId"),
        instance_id: parameters.text("InstanceId"),
        network_interface_id: parameters.text("NetworkInterfaceId"),
        security_group_id: parameters.text("SecurityGroupId"),
    }
}
