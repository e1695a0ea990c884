//! What selects rows of the lists. Pure.

use k8s_openapi::jiff::Timestamp;

use super::account::Caller;
use super::cloud::Resource;
use super::error::ErrorResponse;
use super::parameters::Parameters;

/// What selects rows of several lists. Each list reads the parameters that its page has.
pub(super) struct Filter<'a> {
    pub(super) account: &'a str,
    pub(super) region: &'a str,
    pub(super) at: Timestamp,
    pub(super) vpc: Option<&'a str>,
    pub(super) vswitch: Option<&'a str>,
    pub(super) group: Option<&'a str>,
    pub(super) network: Option<&'a str>,
    pub(super) tags: Vec<(&'a str, Option<&'a str>)>,
}

impl<'a> Filter<'a> {
    /// By region, owner and lifetime.
    pub(super) fn of_place(caller: &'a Caller, region: &'a str, at: Timestamp) -> Self {
        Self {
            account: &caller.account,
            region,
            at,
            vpc: None,
            vswitch: None,
            group: None,
            network: None,
            tags: Vec::new(),
        }
    }

    /// By VPC and tags as well.
    pub(super) fn new(
        caller: &'a Caller,
        parameters: &'a Parameters,
        region: &'a str,
        at: Timestamp,
    ) -> Result<Self, ErrorResponse> {
        Ok(Self {
            vpc: parameters.text("VpcId"),
            tags: parameters.tags()?,
            ..Self::of_place(caller, region, at)
        })
    }

    pub(super) fn takes(&self, resource: &Resource) -> bool {
        resource.exists(self.at)
            && *resource.region == *self.region
            && resource.visible_to(self.account)
            && self
                .vpc
                .is_none_or(|vpc| resource.vpc.as_deref() == Some(vpc))
            && self
                .network
                .is_none_or(|network| (network == "vpc") == resource.vpc.is_some())
            && self.tags.iter().all(|(key, value)| {
                resource
                    .tags
                    .get(*key)
                    .is_some_and(|own| value.is_none_or(|value| own == value))
            })
    }
}
