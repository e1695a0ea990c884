//! What keeps a set from its work, for its status. Only types.

use std::fmt;

use crate::api::reason;

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
    /// An object that is not the set's has the name of one of its memberships.
    NameTaken {
        /// The name.
        name: String,
    },
    /// The API server refuses to store a membership; with its answer.
    Create(String),
}

impl Refusal {
    /// Reason of Ready.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Account { reason, .. } => reason,
            Self::Nodes(_) => reason::NODES_FORBIDDEN,
            Self::NameTaken { .. } => reason::NAME_TAKEN,
            Self::Create(_) => reason::CREATE_REFUSED,
        }
    }

    /// Whether somebody must act.
    #[must_use]
    pub const fn is_stalled(&self) -> bool {
        match self {
            Self::Account { stalled, .. } => *stalled,
            Self::Nodes(_) | Self::NameTaken { .. } | Self::Create(_) => true,
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Account { message, .. } => f.write_str(message),
            Self::Nodes(answer) => write!(
                f,
                "the operator may not list Nodes ({answer}); grant its service account list and watch on nodes, or select by instanceIDs; nothing is removed meanwhile"
            ),
            Self::NameTaken { name } => write!(
                f,
                "the SecurityGroupMembership {name} is not this set's, and has the name that one of its memberships needs; delete it, or rename the set; next try in 5m"
            ),
            Self::Create(answer) => write!(
                f,
                "the API server refuses a membership of this set: {answer}; raise the quota or change the policy that it names; next try in 5m"
            ),
        }
    }
}
