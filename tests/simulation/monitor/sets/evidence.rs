//! Which evidence there is against a membership of a set: by what an operator was shown, and never by what is missing from one list.
//! Pure, but for the clock.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use crate::monitor::is_deleting;

use super::selector::{self, FIVE_MINUTES};
use super::view::{Answer, Place, View};

/// Why a membership of a set may be deleted.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Evidence {
    /// The user has taken its target off the list, or selects by tags what is an interface.
    NotListed,
    /// The Node of its target is old and has other labels.
    Labels,
    /// The instance was asked for by ID and has other tags.
    Tags,
    /// Its target has had no Node for five minutes.
    NoNode,
    /// The cloud does not list its target, and has not for five minutes.
    NotInCloud,
    /// The account is now one that does not own the target, and the membership has nothing of the other.
    OtherAccount,
    /// The set has this group now, and its target is picked.
    Replaced(String),
}

impl Evidence {
    /// What it is called in the counts.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotListed => "evidence: not in the list of IDs",
            Self::Labels => "evidence: labels of an old Node",
            Self::Tags => "evidence: tags by ID",
            Self::NoNode => "evidence: no Node for five minutes",
            Self::NotInCloud => "evidence: released five minutes ago",
            Self::OtherAccount => "evidence: nothing recorded, and another account",
            Self::Replaced(_) => "evidence: Ready in the new group",
        }
    }
}

/// A membership that is to be judged, and what an operator could know.
pub struct Case<'a> {
    pub view: &'a View,
    /// What is stored, where the operator has to ask for it: before it deletes.
    pub stored: Option<&'a View>,
    /// Where its set is, and the UID of that.
    pub set: (&'a Place, &'a str),
    pub target: &'a str,
    pub group: &'a str,
    /// For how long a pass may go by what it was shown before.
    pub slack: Duration,
    /// How old what the cloud has said of tags may be.
    pub tags_age: Duration,
    /// The targets of all live memberships of the set that are in the cloud.
    pub existing: &'a BTreeSet<String>,
    /// For how long the target has not been in the cloud.
    pub released_for: Option<Duration>,
    /// Whether an account that does not own the target is the last one that the membership was looked at with, and no record says more.
    pub is_elsewhere: bool,
    pub now: Timestamp,
}

impl Case<'_> {
    /// Each spec of the set that was shown within the slack, and was stored within it where the operator has to ask for that.
    pub fn specs(&self) -> Vec<&Value> {
        let shown = self.set_in(self.view);
        let mut specs: Vec<&Value> = shown.map(|object| &object["spec"]).collect();
        if let Some(stored) = self.stored {
            let lives = self.set_in(stored).filter(|object| !is_deleting(object));
            let stored: Vec<&Value> = lives.map(|object| &object["spec"]).collect();
            specs.retain(|spec| stored.contains(spec));
        }
        specs
    }

    /// The set as it was in a view within the slack.
    fn set_in<'v>(&self, view: &'v View) -> impl Iterator<Item = &'v Arc<Value>> {
        let (place, uid) = self.set;
        let states = view.states(place, Instant::now() - self.slack);
        let objects = states.into_iter().filter_map(|(_, object)| object);
        objects.filter(move |object| object["metadata"]["uid"] == uid)
    }

    /// All evidence that there is.
    pub fn evidence(&self) -> BTreeSet<Evidence> {
        let mut found = BTreeSet::new();
        for spec in self.specs() {
            let picked = if let Some(ids) = selector::listed(spec) {
                let picked = ids.contains(self.target);
                if !picked {
                    found.insert(Evidence::NotListed);
                }
                picked
            } else if let Some(wanted) = selector::tags(spec) {
                self.by_tags(&wanted, &mut found)
            } else {
                self.by_nodes(spec, &mut found)
            };
            let group = spec["securityGroupID"].as_str().unwrap_or_default();
            if picked && group != self.group {
                found.insert(Evidence::Replaced(group.to_owned()));
            }
        }
        found
    }

    /// Whether the target is picked by a spec that was shown.
    pub fn is_picked(&self) -> bool {
        self.specs().into_iter().any(|spec| {
            if let Some(ids) = selector::listed(spec) {
                ids.contains(self.target)
            } else if let Some(wanted) = selector::tags(spec) {
                self.by_tags(&wanted, &mut BTreeSet::new())
            } else {
                self.by_nodes(spec, &mut BTreeSet::new())
            }
        })
    }

    /// Adds the evidence of Nodes. Returns whether the target was picked at some moment.
    fn by_nodes(&self, spec: &Value, found: &mut BTreeSet<Evidence>) -> bool {
        let mut picked_once = false;
        let is_gone = self.has_no_node(spec);
        for moment in self.view.moments("nodes", Instant::now() - self.slack) {
            let nodes = self.view.at("nodes", moment);
            let picked = selector::picked(spec, &nodes);
            if picked.contains(self.target) {
                picked_once = true;
                continue;
            }
            let exists = |target: &String| {
                self.existing.contains(target)
                    || !selector::nodes_of(&nodes, spec, target).is_empty()
            };
            // A selector that picks nothing removes nothing.
            if picked.is_empty() && self.existing.iter().any(exists) {
                continue;
            }
            let own = selector::nodes_of(&nodes, spec, self.target);
            let is_old = |node: &&Arc<Value>| selector::is_old(node, self.now);
            if !own.is_empty() && own.iter().all(is_old) {
                found.insert(Evidence::Labels);
            }
            if own.is_empty() && is_gone {
                found.insert(Evidence::NoNode);
            }
        }
        picked_once
    }

    /// Whether no Node of the target was shown for five minutes, while Nodes were shown.
    fn has_no_node(&self, spec: &Value) -> bool {
        let since = Instant::now() - FIVE_MINUTES;
        let is_shown = |moment: &Instant| {
            let nodes = self.view.at("nodes", *moment);
            !selector::nodes_of(&nodes, spec, self.target).is_empty()
        };
        let is_listed = self.view.nodes_since.is_some_and(|first| first <= since);
        is_listed && !self.view.moments("nodes", since).iter().any(is_shown)
    }

    /// Adds the evidence of tags. Returns whether an answer shows the target with the tags.
    fn by_tags(
        &self,
        wanted: &std::collections::BTreeMap<String, String>,
        found: &mut BTreeSet<Evidence>,
    ) -> bool {
        let answers = || self.view.answers_within(self.tags_age);
        let shows = |answer: &Answer| {
            let mut rows = answer.shown.iter();
            rows.any(|(_, own)| selector::has_tags(own, wanted))
        };
        let own = |answer: &Answer| answer.shown.get(self.target).cloned();
        let picked = answers()
            .filter_map(own)
            .any(|tags| selector::has_tags(&tags, wanted));
        if self.is_elsewhere {
            found.insert(Evidence::OtherAccount);
        }
        // A selector that picks nothing removes nothing.
        if !answers().any(shows) && !self.existing.is_empty() {
            return false;
        }
        // Tags select instances: the spec is the evidence.
        if self.target.starts_with("eni-") {
            found.insert(Evidence::NotListed);
        }
        let by_id = answers().filter(|answer| answer.asked.is_none());
        if by_id
            .filter_map(own)
            .any(|tags| !selector::has_tags(&tags, wanted))
        {
            found.insert(Evidence::Tags);
        }
        if self
            .released_for
            .is_some_and(|released| released >= FIVE_MINUTES)
        {
            found.insert(Evidence::NotInCloud);
        }
        picked
    }
}
