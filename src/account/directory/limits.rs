//! Which limits count for a cloud account: of each action the smallest one that its account objects set.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ecs::Action;

use super::super::limiters::CloudLimits;
use super::entry::Entry;

/// Gives each limiter the smallest limits. Those of an account that is deleted, or lost its credentials, count while its last session
/// serves deletions.
pub(super) fn apply<'a>(entries: impl Iterator<Item = &'a Entry>) {
    let mut smallest: HashMap<_, (&Arc<CloudLimits>, BTreeMap<Action, u32>)> = HashMap::new();
    for entry in entries {
        let Some(session) = &entry.last_usable else {
            continue;
        };
        let cloud = session.limits();
        let (_, limits) = smallest
            .entry(Arc::as_ptr(cloud))
            .or_insert_with(|| (cloud, BTreeMap::new()));
        for (action, limit) in &entry.limits {
            let known = limits.entry(*action).or_insert(*limit);
            *known = (*known).min(*limit);
        }
    }
    for (cloud, limits) in smallest.values() {
        cloud.limiter.configure(limits);
    }
}
