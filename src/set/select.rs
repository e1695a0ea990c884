//! Which targets a set picks, and what is known of a target that it does not pick. Pure: the time is an argument.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::SecurityGroupMembershipSetSpec;
use crate::ecs::{Region, Target};
use crate::nodes::{KnownNode, Listed};

use super::refusal::Refusal;

/// How long a set keeps a target whose Node is gone or that the cloud does not list, and how old a Node must be for its labels to
/// count (5 minutes). The cloud controller manager looks at Nodes that often, deletes some by mistake, and labels a new one only
/// some seconds after it has registered.
pub const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// What is known of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The selector picks it.
    Picked,
    /// There is evidence that the selector does not pick it: it is not in the list, its Node has other labels, or the instance other
    /// tags.
    NotSelected,
    /// Its Node is too new for its labels to count.
    New,
    /// It has no Node, or the cloud does not list the instance, for less than [`PATIENCE`].
    Missing,
    /// The same, for [`PATIENCE`] or longer.
    Gone,
    /// Nothing is known: Nodes are not all known, or the instance was not described.
    Unknown,
}

/// What a selector says now.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The targets that it picks.
    pub picked: BTreeSet<Target>,
    /// Nodes that it picks and that are no instance of the region.
    pub skipped: usize,
    others: Others,
    /// Whether `picked` is what the selector picks now.
    is_known: bool,
}

/// What is known of the targets that a selector does not pick.
#[derive(Clone, Debug)]
enum Others {
    /// A list of IDs says all.
    NotListed,
    /// When a Node that does not match is old enough for that to count, by its instance; and whether all Nodes are known.
    Nodes(HashMap<Target, i64>, bool),
    /// What the cloud has shown of the instances that the operator asked for by ID.
    Described(Arc<Tagged>),
}

/// What the cloud has last shown of the instances with certain tags.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tagged {
    /// The instances that have the tags.
    pub picked: BTreeSet<Target>,
    /// Targets of sets that have other tags, as their description by ID says; and interfaces, which no tags select.
    pub other: HashSet<Target>,
    /// Targets of sets that the cloud does not list when it is asked for them by ID.
    pub absent: HashSet<Target>,
    /// Those of them that it did not list the time before either. One answer alone is not enough to call a target gone.
    pub absent_twice: HashSet<Target>,
    /// Why that is not all.
    pub trouble: Option<Refusal>,
}

impl Selection {
    /// What is known without the Nodes, or without an answer of the cloud: nothing.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            picked: BTreeSet::new(),
            skipped: 0,
            others: Others::Described(Arc::default()),
            is_known: false,
        }
    }

    /// Number of targets that the selector picks; `None` while that is not known.
    #[must_use]
    pub fn targets(&self) -> Option<usize> {
        self.is_known.then_some(self.picked.len())
    }

    /// What the list of IDs says; `None` for another selector. An ID that does not parse is none: the CRD refuses it.
    #[must_use]
    pub fn of_list(spec: &SecurityGroupMembershipSetSpec) -> Option<Self> {
        let is_list = spec.node_selector.is_none() && spec.instance_tags.is_none();
        let instances = spec.instance_ids.iter().flatten();
        let instances = instances.filter_map(|id| Some(Target::Instance(id.parse().ok()?)));
        let interfaces = spec.network_interface_ids.iter().flatten();
        let interfaces =
            interfaces.filter_map(|id| Some(Target::NetworkInterface(id.parse().ok()?)));
        is_list.then(|| Self {
            picked: instances.chain(interfaces).collect(),
            skipped: 0,
            others: Others::NotListed,
            is_known: true,
        })
    }

    /// What the cloud has shown of the instances with the tags of a set. A list alone is evidence of what it shows, and never of what
    /// it does not show.
    #[must_use]
    pub fn of_tags(tagged: Arc<Tagged>) -> Self {
        Self {
            picked: tagged.picked.clone(),
            skipped: 0,
            is_known: !matches!(tagged.trouble, Some(Refusal::Tags { .. })),
            others: Others::Described(tagged),
        }
    }

    /// What the node selector says of these Nodes. An instance is picked if any Node of it is.
    #[must_use]
    pub fn of_nodes<'a>(
        spec: &SecurityGroupMembershipSetSpec,
        region: &Region,
        nodes: impl Iterator<Item = &'a KnownNode>,
        listed: &Listed,
    ) -> Self {
        let mut selection = Self {
            is_known: true,
            ..Self::unknown()
        };
        let mut others: HashMap<Target, i64> = HashMap::new();
        let patience = i64::try_from(PATIENCE.as_secs()).unwrap_or(i64::MAX);
        for node in nodes {
            let selector = spec.node_selector.as_ref();
            let is_picked =
                selector.is_some_and(|selector| selector.matches_with(|key| node.label(key)));
            let instance = node.instance.as_ref().filter(|(of, _)| of == region);
            let target = instance.map(|(_, id)| Target::Instance(id.clone()));
            match (is_picked, target) {
                (true, Some(target)) => {
                    selection.picked.insert(target);
                }
                (true, None) => selection.skipped += 1,
                (false, Some(target)) => {
                    let counts = others.entry(target).or_insert(i64::MIN);
                    *counts = (*counts).max(node.created + patience);
                }
                (false, None) => {}
            }
        }
        selection.others = Others::Nodes(others, *listed == Listed::All);
        selection
    }

    /// What is known of a target at `now` (in seconds since 1970); `missing_for` tells for how long it has been missing.
    #[must_use]
    pub fn standing(
        &self,
        target: &Target,
        now: i64,
        missing_for: impl FnOnce() -> Duration,
    ) -> Standing {
        if self.picked.contains(target) {
            return Standing::Picked;
        }
        let (is_missing, is_confirmed) = match &self.others {
            Others::NotListed => return Standing::NotSelected,
            Others::Nodes(others, is_complete) => match others.get(target) {
                Some(counts) if *counts <= now => return Standing::NotSelected,
                Some(_) => return Standing::New,
                None => (*is_complete, true),
            },
            Others::Described(seen) if seen.other.contains(target) => return Standing::NotSelected,
            Others::Described(seen) => {
                let is_confirmed = seen.absent_twice.contains(target);
                (seen.absent.contains(target), is_confirmed)
            }
        };
        match is_missing {
            false => Standing::Unknown,
            true if missing_for() >= PATIENCE && is_confirmed => Standing::Gone,
            true => Standing::Missing,
        }
    }

    /// When a Node that does not match is old enough for that to count, in seconds since 1970.
    #[must_use]
    pub fn counts_at(&self, target: &Target) -> Option<i64> {
        match &self.others {
            Others::Nodes(others, _) => others.get(target).copied(),
            Others::NotListed | Others::Described(..) => None,
        }
    }
}

/// Since when targets have been missing, as far as this process knows.
#[derive(Clone, Debug, Default)]
pub struct MissingSince(HashMap<Target, Instant>);

impl MissingSince {
    /// For how long a target has been missing at `now`, counted from the first time that this is asked.
    pub fn missing_for(&mut self, target: &Target, now: Instant) -> Duration {
        let since = self.0.entry(target.clone());
        now.duration_since(*since.or_insert(now))
    }

    /// Forgets the targets that are not missing any more.
    pub fn keep(&mut self, is_missing: impl Fn(&Target) -> bool) {
        self.0.retain(|target, _| is_missing(target));
    }

    /// How long it takes from `now` until the next target has been missing for [`PATIENCE`].
    #[must_use]
    pub fn next(&self, now: Instant) -> Option<Duration> {
        let waits = self
            .0
            .values()
            .map(|since| PATIENCE.saturating_sub(now.duration_since(*since)));
        waits.filter(|wait| !wait.is_zero()).min()
    }
}
