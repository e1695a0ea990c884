//! Which targets a set picks, and what is known of a target that it does not pick. Pure: the time is an argument.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use crate::api::SecurityGroupMembershipSetSpec;
use crate::ecs::{Region, Target};
use crate::nodes::{KnownNode, Listed};

/// How long a target whose Node is gone is kept, and how old a Node must be for its labels to count (5 minutes). The cloud controller
/// manager looks at Nodes that often, deletes some by mistake, and labels a new one only some seconds after it has registered.
pub const PATIENCE: Duration = Duration::from_secs(5 * 60);

/// What is known of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// The selector picks it.
    Picked,
    /// There is evidence that the selector does not pick it: it is not in the list, or its Node has other labels.
    NotSelected,
    /// Its Node is too new for its labels to count.
    New,
    /// It has no Node, for less than [`PATIENCE`].
    Missing,
    /// It has no Node, for [`PATIENCE`] or longer.
    Gone,
    /// Nothing is known: Nodes are not all known.
    Unknown,
}

/// What a selector says now.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The targets that it picks.
    pub picked: BTreeSet<Target>,
    /// Nodes that it picks and that are no instance of the region.
    pub skipped: usize,
    /// When a Node that does not match is old enough for that to count, by its instance; `None` for a list of IDs, which says all.
    others: Option<HashMap<Target, i64>>,
    is_complete: bool,
}

impl Selection {
    /// What is known without the Nodes: nothing.
    #[must_use]
    pub fn unknown() -> Self {
        Self {
            picked: BTreeSet::new(),
            skipped: 0,
            others: Some(HashMap::new()),
            is_complete: false,
        }
    }

    /// What the list of IDs says; `None` for a set that selects Nodes. An ID that does not parse is none: the CRD refuses it.
    #[must_use]
    pub fn of_list(spec: &SecurityGroupMembershipSetSpec) -> Option<Self> {
        let instances = spec.instance_ids.iter().flatten();
        let instances = instances.filter_map(|id| Some(Target::Instance(id.parse().ok()?)));
        let interfaces = spec.network_interface_ids.iter().flatten();
        let interfaces =
            interfaces.filter_map(|id| Some(Target::NetworkInterface(id.parse().ok()?)));
        spec.node_selector.is_none().then(|| Self {
            picked: instances.chain(interfaces).collect(),
            skipped: 0,
            others: None,
            is_complete: true,
        })
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
            is_complete: *listed == Listed::All,
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
        selection.others = Some(others);
        selection
    }

    /// What is known of a target at `now` (in seconds since 1970); `missing_for` tells for how long it has had no Node.
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
        let Some(others) = &self.others else {
            return Standing::NotSelected;
        };
        match others.get(target) {
            Some(counts) if *counts <= now => Standing::NotSelected,
            Some(_) => Standing::New,
            None if !self.is_complete => Standing::Unknown,
            None if missing_for() >= PATIENCE => Standing::Gone,
            None => Standing::Missing,
        }
    }

    /// When a Node that does not match is old enough for that to count, in seconds since 1970.
    #[must_use]
    pub fn counts_at(&self, target: &Target) -> Option<i64> {
        self.others.as_ref()?.get(target).copied()
    }
}

/// Since when targets have had no Node, as far as this process knows.
#[derive(Clone, Debug, Default)]
pub struct MissingSince(HashMap<Target, Instant>);

impl MissingSince {
    /// For how long a target has had no Node, counted from the first time that this is asked.
    pub fn missing_for(&mut self, target: &Target) -> Duration {
        let since = self.0.entry(target.clone());
        since.or_insert_with(Instant::now).elapsed()
    }

    /// Forgets the targets that are not missing any more.
    pub fn keep(&mut self, is_missing: impl Fn(&Target) -> bool) {
        self.0.retain(|target, _| is_missing(target));
    }

    /// How long it takes until the next target has been missing for [`PATIENCE`].
    #[must_use]
    pub fn next(&self) -> Option<Duration> {
        let waits = self
            .0
            .values()
            .map(|since| PATIENCE.saturating_sub(since.elapsed()));
        waits.filter(|wait| !wait.is_zero()).min()
    }
}
