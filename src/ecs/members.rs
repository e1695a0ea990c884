//! Reads of many targets, a page per call: of a whole group, for tools of users, of the instances with certain tags, for sets, and of groups, for
//! grants.
//! Memberships are read by ID.

use std::collections::{BTreeMap, HashMap};

use super::action::{Action, MAX_IDS_PER_CALL};
use super::client::{Client, array};
use super::description::{self, Page, Tags, TargetDescription};
use super::error::Error;
use super::id::{InstanceId, NetworkInterfaceId, Region, SecurityGroupId};
use super::response::ApiResponse;

/// The targets on one page, and where the next one begins; `None` after the last.
pub type TargetsPage<Id> = (Vec<(Id, TargetDescription)>, Option<String>);

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
    ) -> Result<TargetsPage<InstanceId>, Error> {
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
    ) -> Result<TargetsPage<NetworkInterfaceId>, Error> {
        self.in_group(
            Action::DescribeNetworkInterfaces,
            region,
            group,
            token,
            description::network_interfaces,
        )
        .await
    }

    /// The tags of groups, 100 per call. A group that is missing from the result does not exist in this region, or the key may not
    /// see it. Deadline 25 s per 100 IDs.
    ///
    /// # Errors
    /// As [`Client::describe_instances`].
    pub async fn tags_of_groups(
        &self,
        region: &Region,
        groups: &[SecurityGroupId],
    ) -> Result<HashMap<SecurityGroupId, Tags>, Error> {
        self.describe(
            Action::DescribeSecurityGroups,
            region,
            groups,
            description::security_groups,
            |ids| vec![("SecurityGroupIds".to_owned(), array(ids))],
        )
        .await
    }

    /// One page of the instances that have all of these tags with these values, `most` at most, and where the next page begins.
    /// Deadline 10 s.
    ///
    /// # Errors
    /// As [`Client::instances_in_group`], and [`Error::BadAnswer`] for an instance that is shown without one of the tags.
    pub async fn instances_with_tags(
        &self,
        region: &Region,
        tags: &BTreeMap<String, String>,
        most: usize,
        token: Option<&str>,
    ) -> Result<TargetsPage<InstanceId>, Error> {
        let filter = (1..).zip(tags).flat_map(|(n, (key, value))| {
            [
                (format!("Tag.{n}.Key"), key.clone()),
                (format!("Tag.{n}.Value"), value.clone()),
            ]
        });
        let action = Action::DescribeInstances;
        let response = self.page(action, region, filter, most, token).await?;
        let mut page = description::instances(&response)?;
        let mut keys = tags.keys();
        let is_shown = |key| {
            page.rows
                .iter()
                .all(|(_, row)| row.tags.by_key().contains_key(key))
        };
        if !keys.all(is_shown) {
            return Err(response.bad("it shows an instance without a tag that was asked for"));
        }
        // The cloud may take an empty value for any value.
        page.rows.retain(|(_, row)| row.tags.include(tags));
        Ok((page.rows, page.next_token))
    }

    async fn in_group<Id>(
        &self,
        action: Action,
        region: &Region,
        group: &SecurityGroupId,
        token: Option<&str>,
        read: fn(&ApiResponse) -> Result<Page<Id>, Error>,
    ) -> Result<TargetsPage<Id>, Error> {
        let filter = [("SecurityGroupId".to_owned(), group.to_string())];
        let response = self
            .page(action, region, filter, MAX_IDS_PER_CALL, token)
            .await?;
        let page = read(&response)?;
        let is_member = |(_, row): &(Id, TargetDescription)| row.security_group_ids.contains(group);
        if !page.rows.iter().all(is_member) {
            return Err(response.bad("it describes something that is in another group"));
        }
        Ok((page.rows, page.next_token))
    }

    async fn page(
        &self,
        action: Action,
        region: &Region,
        filter: impl IntoIterator<Item = (String, String)>,
        most: usize,
        token: Option<&str>,
    ) -> Result<ApiResponse, Error> {
        let mut parameters: Vec<_> = filter.into_iter().collect();
        parameters.push(("RegionId".to_owned(), region.to_string()));
        parameters.push(("MaxResults".to_owned(), most.to_string()));
        parameters.extend(token.map(|token| ("NextToken".to_owned(), token.to_owned())));
        let endpoint = self.endpoints().ecs(region);
        self.call(action, &endpoint, &parameters, action.deadline())
            .await
    }
}
