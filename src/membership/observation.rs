//! The part of a target's description that passes and scans compare. Pure.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::Duration;

use tokio::time::Instant;

use crate::ecs::TargetDescription;

/// How long the cloud's answers may lag behind our own change. No observation is marked stale sooner.
pub const CLOUD_READ_LAG: Duration = Duration::from_secs(10);

/// The compared part of a target's description: membership, and a hash of what the status shows. Text is not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// The last pass could not read the target.
    Unread(Unread),
    /// A complete answer does not list the target.
    Absent,
    /// The answer lists the target.
    Present {
        /// Whether the target is a member of the object's group.
        member: bool,
        /// Whether the target is between states.
        transitional: bool,
        /// Hash of state, VPC, lock reasons, tags, and whether the groups may be changed.
        details_hash: u64,
    },
}

/// Why a pass could not read a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    /// The call failed, or could not be made. Scans go on reading the target.
    Failed,
    /// The pass waits for the rate limit. The target is read when its turn has come.
    Waiting,
    /// The cloud takes its ID for none, or shows what cannot be read. In a scan it would fail the call for the others.
    BadId,
}

impl Observation {
    /// Whether scans read the target.
    #[must_use]
    pub fn is_scanned(self) -> bool {
        !matches!(self, Self::Unread(Unread::Waiting | Unread::BadId))
    }

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
        description.tags.hash().hash(&mut hasher);
        Self::Present {
            member: member(description),
            transitional: description.state.is_transitional(),
            details_hash: hasher.finish(),
        }
    }
}

/// An observation, when a pass made it, and when a read last confirmed it.
#[derive(Clone, Copy, Debug)]
pub struct LastObservation {
    pub(super) observation: Observation,
    pub(super) observed_at: Instant,
    /// When a read last showed the target; for one that was never read, when a pass first failed to.
    pub(super) confirmed_at: Instant,
    pub(super) stale: bool,
    /// Whether a pass was requested because no read has shown the target for long.
    pub(super) reported_overdue: bool,
}

impl LastObservation {
    /// Compares the observation with what a scan has found. Returns whether the object must be requeued: it must if they differ
    /// and the observation is older than `CLOUD_READ_LAG` (10 s), for the cloud's answer may be older than the pass.
    pub fn differs_from(&mut self, found: Observation) -> bool {
        if found == self.observation {
            self.confirmed_at = Instant::now();
            self.stale = false;
            self.reported_overdue = false;
            return false;
        }
        let settled = self.observed_at.elapsed() >= CLOUD_READ_LAG;
        self.stale |= settled;
        settled
    }

    /// No pass goes by this observation any more.
    pub fn mark_stale(&mut self) {
        self.stale = true;
    }

    /// A scan was refused the read. Returns whether the object must be requeued: its status tells of no such failure yet.
    pub fn mark_refused(&mut self) -> bool {
        let is_told = self.stale || matches!(self.observation, Observation::Unread(_));
        self.stale |= !is_told;
        !is_told
    }

    /// Whether no read has shown the target for `limit`, although the account could read it. A wrong ID says nothing of the account.
    #[must_use]
    pub fn is_late(&self, limit: Duration) -> bool {
        self.observation != Observation::Unread(Unread::BadId) && self.age() >= limit
    }

    /// How long no read has shown the target.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.confirmed_at.elapsed()
    }

    /// Whether no read has shown the target for `limit`. True once until a read shows it.
    pub fn take_overdue(&mut self, limit: Duration) -> bool {
        self.age() >= limit && !std::mem::replace(&mut self.reported_overdue, true)
    }
}
