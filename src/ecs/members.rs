//! Reads of a whole group, a page per call: for tools of users. The operator reads by ID.

use super::action::{Action, MAX_IDS_PER_CALL};
use super::client::Client;
use super::description::{self, Page, TargetDescription};
use super::error::Error;
use super::id::{InstanceId, NetworkInterfaceId, Region, SecurityGroupId};
use super::response::ApiResponse;

/// The members of a group on one page, and where the next one begins; `None` after the last.
pub type MembersPage<Id> = (Vec<(Id, TargetDescription)>, Option<String>);

impl Client {
    /// One page of the instances in a group, 100 at most, and where the next page begins. Deadline 10 s.
    ///
    /// # Errors
    /// As [`Client::describe_instances`]. A key without the right may be answered with an empty page.
    pub async fn instances_in_group(
        &self,
        region: &Region,
        group: &SecurityGroupId,
        token: Option<&str>,
    ) -> Result<MembersPage<InstanceId>, Error> {
        self.in_group(
            Action::DescribeInstances,
            region,
            group,
            token,
            description::instances,
        )
        .await
    }

    /// One page of the secondary network interfaces in a group, 100 at most, and where the next page begins: the cloud finds no
    /// primary one by its group. Deadline 16 s.
    ///
    /// # Errors
    /// As [`Client::instances_in_group`].
    pub async fn interfaces_in_group(
        &self,
        region: &Region,
        group: &SecurityGroupId,
        token: Option<&str>,
    ) -> Result<MembersPage<NetworkInterfaceId>, Error> {
        self.in_group(
            Action::DescribeNetworkInterfaces,
            region,
            group,
            token,
            description::network_interfaces,
        )
        .await
    }

    async fn in_group<Id>(
        &self,
        action: Action,
        region: &Region,
        group: &SecurityGroupId,
        token: Option<&str>,
        read: fn(&ApiResponse) -> Result<Page<Id>, Error>,
    ) -> Result<MembersPage<Id>, Error> {
        let mut parameters = vec![
            ("SecurityGroupId".to_owned(), group.to_string()),
            ("RegionId".to_owned(), region.to_string()),
            ("MaxResults".to_owned(), MAX_IDS_PER_CALL.to_string()),
        ];
        parameters.extend(token.map(|token| ("NextToken".to_owned(), token.to_owned())));
        let endpoint = self.endpoints().ecs(region);
        let response = self
            .call(action, &endpoint, &parameters, action.deadline())
            .await?;
        let page = read(&response)?;
        let is_member = |(_, row): &(Id, TargetDescription)| row.security_group_ids.contains(group);
        if !page.rows.iter().all(is_member) {
            return Err(response.bad("it describes something that is in another group"));
        }
        Ok((page.rows, page.next_token))
    }
}
