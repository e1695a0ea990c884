//! The part of a target's description that passes and scans compare. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use crate::ecs::TargetDescription;

/// How long the cloud's answers may lag behind our own change. No observation is marked stale sooner.
pub const CLOUD_READ_LAG: Duration = Duration::from_secs(10);

/// The compared part of a target's description: membership, and a hash of what the status shows. Text is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The last pass could not read the target.
    Unread {
        /// Whether scans go on reading it: a malformed ID would fail the call for the others.
        scanned: bool,
    },
    /// A complete answer does not list the target.
    Absent,
    /// The answer lists the target.
    Present {
        /// Whether the target is a member of the object's group.
        member: bool,
        /// Whether the target is between states.
        transitional: bool,
        /// Hash of state, VPC, lock reasons, and whether the groups may be changed.
        details_hash: u64,
    },
}

impl Observation {
    /// The observation of a description. `member` tells whether the target is a member of the object's group.
    #[must_use]
    pub fn of(
        description: Option<&TargetDescription>,
        member: impl FnOnce(&TargetDescription) -> bool,
    ) -> Self {
        let Some(description) = description else {
            return Self::Absent;
        };
        let mut hasher = DefaultHasher::new();
        description.state.hash(&mut hasher);
        description.vpc_id.hash(&mut hasher);
        description.lock_reasons.hash(&mut hasher);
        description.refusal().hash(&mut hasher);
        Self::Present {
            member: member(description),
            transitional: description.state.is_transitional(),
            details_hash: hasher.finish(),
        }
    }
}
