//! What keeps a set from its work, for its status. Only types.

use std::fmt;

use crate::api::reason;
use crate::ecs::Region;

/// Instances with certain tags that the cloud is known to list (1,000). Whether it lists more is not documented.
pub const MOST_LISTED: usize = 1_000;

/// What keeps a set from its work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The account cannot be used; with the reason and the message that a membership would have.
    Account {
        /// Reason of Ready.
        reason: &'static str,
        /// Message of Ready.
        message: String,
        /// Whether somebody must act.
        stalled: bool,
    },
    /// The operator may not list Nodes; with the API server's answer.
    Nodes(String),
    /// The Nodes could not be listed; with the error.
    NodesUnread(String),
    /// The Nodes were all known, and could not be watched since; with the error.
    NodesUnwatched(String),
    /// The instances with the tags could not all be read; with the error.
    Tags {
        /// What kept them from being read.
        error: String,
        /// Whether somebody must act.
        stalled: bool,
    },
    /// The cloud lists no instance of the region to the account's key, with the tags or without. It answers some keys without the right so.
    NothingShown(Region),
    /// More instances have the tags than the cloud is known to list.
    ManyTagged,
    /// An object that is not the set's has the name of one of its memberships.
    NameTaken {
        /// The name.
        name: String,
    },
    /// The API server refuses to store a membership; with its answer.
    Create(String),
    /// The API server refuses to change or to delete a membership; with its answer.
    Write(String),
}

impl Refusal {
    /// Reason of Ready.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Account { reason, .. } => reason,
            Self::Nodes(_) => reason::NODES_FORBIDDEN,
            Self::NodesUnread(_)
            | Self::NodesUnwatched(_)
            | Self::Tags { .. }
            | Self::NothingShown(_)
            | Self::ManyTagged => reason::SELECTION_INCOMPLETE,
            Self::NameTaken { .. } => reason::NAME_TAKEN,
            Self::Create(_) => reason::CREATE_REFUSED,
            Self::Write(_) => reason::WRITE_REFUSED,
        }
    }

    /// Whether somebody must act.
    #[must_use]
    pub const fn is_stalled(&self) -> bool {
        match self {
            Self::Account { stalled, .. } | Self::Tags { stalled, .. } => *stalled,
            Self::NodesUnread(_) | Self::NodesUnwatched(_) => false,
            Self::Nodes(_)
            | Self::NothingShown(_)
            | Self::ManyTagged
            | Self::NameTaken { .. }
            | Self::Create(_)
            | Self::Write(_) => true,
        }
    }

    /// Whether the set creates memberships for the targets that are known all the same.
    #[must_use]
    pub const fn lets_create(&self) -> bool {
        match self {
            Self::ManyTagged | Self::NodesUnwatched(_) => true,
            Self::Account { .. }
            | Self::Nodes(_)
            | Self::NodesUnread(_)
            | Self::Tags { .. }
            | Self::NothingShown(_)
            | Self::NameTaken { .. }
            | Self::Create(_)
            | Self::Write(_) => false,
        }
    }

    /// Whether it concerns one target, and the set goes on with the others.
    #[must_use]
    pub const fn is_of_one_target(&self) -> bool {
        matches!(self, Self::NameTaken { .. })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account { message, .. } => f.write_str(message),
            Self::Nodes(answer) => write!(
                f,
                "the operator may not list Nodes ({answer}); grant its service account list and watch on nodes, or select by instanceIDs; nothing is removed meanwhile; next try within 1m"
            ),
            Self::NodesUnread(error) => write!(
                f,
                "the Nodes could not be listed: {error}; the set adds and removes no membership meanwhile; next try within 1m"
            ),
            Self::NodesUnwatched(error) => write!(
                f,
                "the Nodes could not be watched: {error}; the set goes by the Nodes as the operator last saw them; next try within 90s"
            ),
            Self::Tags { error, .. } => write!(
                f,
                "the instances with these tags could not all be read: {error}; the set adds and removes no membership meanwhile; next try within one scan period"
            ),
            Self::NothingShown(region) => write!(
                f,
                "the cloud lists no instance of {region} to the key of the account, not even one without these tags; grant it ecs:DescribeInstances; if there is none in the region, delete the memberships; the set removes none meanwhile; next try within one scan period"
            ),
            Self::ManyTagged => write!(
                f,
                "{MOST_LISTED} instances or more have these tags, and the cloud may not list all of them; split the set by one more tag; until then the set has memberships for the instances that the cloud lists"
            ),
            Self::NameTaken { name } => write!(
                f,
                "the SecurityGroupMembership {name} is not this set's, and has the name that one of its memberships needs; delete it, or rename the set; next try in 5m"
            ),
            Self::Create(answer) => write!(
                f,
                "the API server refuses a membership of this set: {answer}; raise the quota or change the policy that it names; next try in 5m"
            ),
            Self::Write(answer) => write!(
                f,
                "the API server refuses a change or the deletion of a membership of this set: {answer}; correct the policy, the webhook or the right that it names; next try in 5m"
            ),
        }
    }
}
