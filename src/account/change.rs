//! What the accounts report to the memberships. Only types.

use std::collections::HashSet;
use std::sync::Arc;

use crate::ecs::{Region, SecurityGroupId};

use super::key::{AccountKey, AccountRegion, CloudAccountId};

/// What may change whom an object may call as, or whether it is answered.
#[derive(Debug)]
pub enum Change {
    /// The usability or the grants of an account, or whether it exists.
    Account(AccountKey),
    /// The access key of an account that goes on being usable.
    Key(AccountKey),
    /// The cloud has refused a key that it accepted before.
    KeyRefused,
    /// A region that did not answer answers again.
    Answers {
        /// Whose calls it answers.
        cloud: Arc<CloudAccountId>,
        /// The region.
        region: Region,
    },
    /// The tags of groups, which grants of the account are about.
    GroupTags(AccountRegion, HashSet<SecurityGroupId>),
    /// The labels of a namespace, which grants select.
    NamespaceLabels(String),
}
