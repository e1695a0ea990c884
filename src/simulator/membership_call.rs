//! The parameters of `JoinSecurityGroup` and `LeaveSecurityGroup`. Pure.

use super::error::{self, ErrorResponse};
use super::parameters::well_formed;

/// The parameters of both calls. Empty texts count as absent.
#[derive(Clone, Copy, Debug, Default)]
pub struct MembershipCall<'a> {
    /// `RegionId`: required for an interface.
    pub region: Option<&'a str>,
    /// `InstanceId`: either this or `NetworkInterfaceId`.
    pub instance_id: Option<&'a str>,
    /// `NetworkInterfaceId`.
    pub network_interface_id: Option<&'a str>,
    /// `SecurityGroupId`.
    pub security_group_id: Option<&'a str>,
}

pub(super) struct Parameters<'a> {
    pub(super) target: TargetId<'a>,
    pub(super) group: &'a str,
    pub(super) region: Option<&'a str>,
}

pub(super) enum TargetId<'a> {
    Instance(&'a str),
    Interface(&'a str),
}

impl TargetId<'_> {
    /// As RAM names it.
    pub(super) fn resource(&self) -> String {
        match self {
            TargetId::Instance(id) => format!("instance/{id}"),
            TargetId::Interface(id) => format!("eni/{id}"),
        }
    }
}

impl<'a> Parameters<'a> {
    pub(super) fn parse(call: &MembershipCall<'a>) -> Result<Self, ErrorResponse> {
        let given = |text: Option<&'a str>| text.filter(|text| !text.is_empty());
        let region = given(call.region);
        let target = match (given(call.instance_id), given(call.network_interface_id)) {
            (Some(_), Some(_)) => return Err(error::BOTH_TARGETS.into()),
            (None, None) => return Err(error::missing_parameter("InstanceId")),
            (Some(id), None) => TargetId::Instance(id),
            (None, Some(id)) => TargetId::Interface(id),
        };
        let group = given(call.security_group_id)
            .ok_or_else(|| error::missing_parameter("SecurityGroupId"))?;
        match target {
            TargetId::Instance(id) if !well_formed(id, "i-") => {
                return Err(error::INSTANCE_MALFORMED.into());
            }
            TargetId::Interface(_) if region.is_none() => {
                return Err(error::MISSING_REGION_ID.into());
            }
            TargetId::Interface(id) if !well_formed(id, "eni-") => {
                return Err(error::PARAM_MALFORMED
                    .says("The specified parameter \"NetworkInterfaceId\" is malformed."));
            }
            TargetId::Instance(_) | TargetId::Interface(_) => {}
        }
        // Old groups have IDs without a prefix (the vendor's example is F876FF7BA984): check only the alphabet.
        if !group
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
        {
            return Err(error::PARAM_MALFORMED
                .says("The specified parameter \"SecurityGroupId\" is malformed."));
        }
        Ok(Self {
            target,
            group,
            region,
        })
    }
}
