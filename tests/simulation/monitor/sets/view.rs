//! What an operator was shown: sets, Nodes and memberships by the API server, instances by the cloud, each with the moment at which
//! it was shown. Remembers only.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use crate::monitor::text;

/// Plural, and namespace and name.
pub type Place = (&'static str, String);

/// A state of an object, and since when it was shown.
type State = (Instant, Option<Arc<Value>>);

/// Where an object is.
pub fn place_of(plural: &'static str, object: &Value) -> Place {
    let metadata = |field| text(&object["metadata"], field);
    (
        plural,
        format!("{}/{}", metadata("/namespace"), metadata("/name")),
    )
}

/// What one operator was shown, or, in the one of the truth, what is stored.
#[derive(Default)]
pub struct View {
    /// Each state of an object and since when it was shown; `None` for one that is gone.
    objects: BTreeMap<Place, Vec<State>>,
    /// When the Nodes were first listed.
    pub nodes_since: Option<Instant>,
    /// Answers of the cloud to lists by tags, and to questions by ID.
    pub answers: Vec<Answer>,
}

/// Instances that the cloud has shown to an operator.
pub struct Answer {
    pub at: Instant,
    pub region: String,
    /// The tags that were asked for; `None` if it was asked by ID.
    pub asked: Option<BTreeMap<String, String>>,
    /// The tags of each instance that was shown.
    pub shown: BTreeMap<String, BTreeMap<String, String>>,
}

impl View {
    /// An object is shown, or that it is gone.
    pub fn show(&mut self, place: Place, object: Option<Arc<Value>>) {
        let states = self.objects.entry(place).or_default();
        states.push((Instant::now(), object));
    }

    /// A whole list is shown: what it does not show is gone.
    pub fn list(&mut self, plural: &'static str, namespace: &str, items: &[Value]) {
        let listed: BTreeSet<Place> = items.iter().map(|item| place_of(plural, item)).collect();
        let of_list = |place: &Place| {
            let (of, name) = place;
            *of == plural && (namespace.is_empty() || name.starts_with(&format!("{namespace}/")))
        };
        let gone = self
            .objects
            .keys()
            .filter(|place| of_list(place) && !listed.contains(*place));
        for place in gone.cloned().collect::<Vec<_>>() {
            self.show(place, None);
        }
        for item in items {
            self.show(place_of(plural, item), Some(Arc::new(item.clone())));
        }
        if plural == "nodes" {
            self.nodes_since.get_or_insert_with(Instant::now);
        }
    }

    /// The objects of a kind as they were shown at a moment.
    pub fn at(&self, plural: &str, moment: Instant) -> Vec<&Arc<Value>> {
        let of_kind = self.objects.iter().filter(|((of, _), _)| *of == plural);
        let last = of_kind.filter_map(|(_, states)| {
            let last = states.iter().rfind(|(at, _)| *at <= moment)?;
            last.1.as_ref()
        });
        last.collect()
    }

    /// The moments, from `since` on, from which something of a kind was shown otherwise; `since` is the first.
    pub fn moments(&self, plural: &str, since: Instant) -> Vec<Instant> {
        let of_kind = self.objects.iter().filter(|((of, _), _)| *of == plural);
        let times = of_kind.flat_map(|(_, states)| states.iter().map(|(at, _)| *at));
        let mut times: Vec<Instant> = times.filter(|at| *at > since).collect();
        times.push(since);
        times.sort();
        times.dedup();
        times
    }

    /// The states of one object that were shown at `since` or later, with the one that was shown before; each with its moment.
    pub fn states(&self, place: &Place, since: Instant) -> Vec<(Instant, Option<&Arc<Value>>)> {
        let Some(states) = self.objects.get(place) else {
            return Vec::new();
        };
        let first = states.iter().rposition(|(at, _)| *at <= since);
        let states = &states[first.unwrap_or_default()..];
        states
            .iter()
            .map(|(at, object)| (*at, object.as_ref()))
            .collect()
    }

    /// The states of all objects of a kind that were shown at `since` or later, with those that were shown before.
    pub fn states_of(&self, plural: &str, since: Instant) -> impl Iterator<Item = &Arc<Value>> {
        let of_kind = self.objects.keys().filter(move |(of, _)| *of == plural);
        let states = of_kind.flat_map(move |place| self.states(place, since));
        states.filter_map(|(_, object)| object)
    }

    /// The answers that came within `age`.
    pub fn answers_within(&self, age: Duration) -> impl Iterator<Item = &Answer> {
        self.answers
            .iter()
            .filter(move |answer| answer.at.elapsed() <= age)
    }
}
