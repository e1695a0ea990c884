//! Which limits count for a cloud account: of each action the smallest one that its account objects set. Where one of them is a
//! `ClusterCloudAccount`, those of namespaces set none: a tenant does not slow down the others.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::ecs::Action;

use super::super::key::AccountKey;
use super::super::limiters::CloudLimits;
use super::entry::Entry;
use crate::api::membership::AccountKind;

/// Gives each limiter the smallest limits. Those of an account that is deleted, or lost its credentials, count while its last session
/// serves deletions.
pub(super) fn apply(entries: &HashMap<AccountKey, Entry>) {
    let mut by_cloud: HashMap<_, OfCloud<'_>> = HashMap::new();
    for (key, entry) in entries {
        let Some(session) = &entry.last_usable else {
            continue;
        };
        let cloud = session.limits();
        let of_cloud = by_cloud
            .entry(Arc::as_ptr(cloud))
            .or_insert_with(|| (cloud, Smallest::new(), None));
        let (_, of_namespaces, of_cluster) = of_cloud;
        let smallest = match key.kind {
            AccountKind::CloudAccount => of_namespaces,
            AccountKind::ClusterCloudAccount => of_cluster.get_or_insert_default(),
        };
        for (action, limit) in &entry.limits {
            let known = smallest.entry(*action).or_insert(*limit);
            *known = (*known).min(*limit);
        }
    }
    for (cloud, of_namespaces, of_cluster) in by_cloud.values() {
        let limits = of_cluster.as_ref().unwrap_or(of_namespaces);
        cloud.limiter.configure(limits);
    }
}

type Smallest = BTreeMap<Action, u32>;

/// A cloud account, what its `CloudAccounts` set, and what its `ClusterCloudAccounts` set if it has some.
type OfCloud<'a> = (&'a Arc<CloudLimits>, Smallest, Option<Smallest>);
