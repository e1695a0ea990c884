//! One membership of a target in a group, as the cloud sees it. Only a type.

use std::fmt;

use super::id::{Region, SecurityGroupId, Target};

/// A membership to maintain: this target in this group. Two objects with equal edges and the same cloud account share it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Edge {
    /// Region of the target and the group.
    pub region: Region,
    /// The instance or network interface.
    pub target: Target,
    /// The security group.
    pub group: SecurityGroupId,
}

impl fmt::Debug for Edge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}->{}", self.region, self.target, self.group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edge_is_shown_in_one_line() {
        let edge = Edge {
            region: "cn-hangzhou".parse().unwrap(),
            target: Target::Instance("i-1".parse().unwrap()),
            group: "sg-1".parse().unwrap(),
        };
        assert_eq!(format!("{edge:?}"), "cn-hangzhou/i-1->sg-1");
    }
}
