//! The rules J1 to J5, one after the other.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::evidence::{Case, Evidence};
use super::selector::{self, FIVE_MINUTES};
use super::view::Place;
use super::{Finding, Judge, Replaced, SETS, SetException, controller, is_ready};
use crate::api_server::store::{Change, Entry};
use crate::monitor::{Edge, MEMBERSHIPS, Monitor, edge_of, is_deleting, target_of, text};
use crate::topology::OWNER;

/// For how long the answer to a Leave may be unclear, and reads may not show it.
const JUST: Duration = Duration::from_secs(20);

/// Where a set is, and its UID.
type Set<'a> = (&'a Place, &'a str);

impl Judge {
    /// Takes in what is stored at a place now.
    pub(super) fn remember(&mut self, place: Place, object: Option<Arc<Value>>) {
        if place.0 == SETS
            && let Some(object) = &object
        {
            self.places
                .insert(text(object, "/metadata/uid"), place.clone());
        }
        if place.0 != MEMBERSHIPS {
            return;
        }
        let Some(object) = object else {
            self.stored.remove(&place);
            return;
        };
        if let (true, Some(set), Some(edge)) =
            (is_ready(&object), controller(&object), edge_of(&object))
        {
            self.ready.insert((set, edge), Instant::now());
        }
        let was_ready = self.stored.insert(place, Arc::clone(&object));
        // It counts until the moment in which it is not so any more.
        if let Some(before) = was_ready.filter(|before| is_ready(before))
            && let (Some(set), Some(edge)) = (controller(&before), edge_of(&before))
        {
            self.ready.insert((set, edge), Instant::now());
        }
    }

    /// J3, and the names.
    pub(super) fn check_edge(&self, entry: &Entry) -> Vec<Finding> {
        let object = &entry.object;
        let Some(set) = controller(object).filter(|_| entry.change != Change::Deleted) else {
            return Vec::new();
        };
        let mut findings = Vec::new();
        let name = &entry.key.2;
        let edge = |object: &Value| {
            let field = |field: &str| text(object, field);
            (
                target_of(object).to_owned(),
                field("/spec/securityGroupID"),
                field("/spec/region"),
            )
        };
        // An object of another namespace is no membership of the set, whatever it names as its controller.
        let is_twin = |other: &&Arc<Value>| {
            other["metadata"]["uid"] != object["metadata"]["uid"]
                && other["metadata"]["namespace"] == object["metadata"]["namespace"]
                && controller(other).as_ref() == Some(&set)
                && edge(other) == edge(object)
        };
        if self.stored.values().any(|other| is_twin(&other)) {
            findings.push(Finding::Violation(format!(
                "J3: {name} is the second object of its set for one edge"
            )));
        }
        let (target, group, region) = edge(object);
        let owner = self.places.get(&set).map(|(_, place)| place);
        let owner = owner.and_then(|place| place.split_once('/'));
        let is_called_so =
            owner.is_none_or(|(_, set)| *name == selector::name_of(set, &region, &target, &group));
        if entry.change == Change::Added && self.author.is_some() && !is_called_so {
            findings.push(Finding::Violation(format!("J3: {name} has another name")));
        }
        findings
    }

    /// J4: an object without a controller is not a set's to delete.
    pub(super) fn check_released(object: &Value) -> Finding {
        let name = text(object, "/metadata/name");
        Finding::Violation(format!("J4: a set wrote {name}, which no set controls"))
    }

    /// J5: a set that is being deleted, or suspended, writes nothing.
    pub(super) fn check_lives(
        &self,
        incarnation: usize,
        (place, uid): Set<'_>,
        name: &str,
    ) -> Option<Finding> {
        let view = self.views.get(&incarnation)?;
        let rests = |set: Option<&Arc<Value>>| {
            set.is_none_or(|set| {
                set["metadata"]["uid"] != uid || is_deleting(set) || set["spec"]["suspend"] == true
            })
        };
        let states = view.states(place, Instant::now() - self.slack);
        let (_, last) = states.last()?;
        if !rests(*last) {
            return None;
        }
        if states.iter().any(|(_, set)| !rests(*set)) {
            return Some(Finding::Exception(SetException::PassUnderWay));
        }
        Some(Finding::Violation(format!(
            "J5: {name} was written by a set that is being deleted or suspended, and that was shown"
        )))
    }

    /// What an operator could know of a membership of a set; whether it `asks_first` for the stored set.
    fn with_case<T>(
        &self,
        monitor: &Monitor,
        (incarnation, asks_first): (usize, bool),
        set: Set<'_>,
        object: &Value,
        ask: impl FnOnce(&Case<'_>) -> T,
    ) -> Option<T> {
        let now = monitor.server.now();
        let (_, place) = set.0;
        let in_namespace = |object: &Value| {
            let namespace = text(object, "/metadata/namespace");
            place.starts_with(&format!("{namespace}/"))
        };
        let is_of_set = |object: &&Arc<Value>| {
            let controls = controller(object).as_deref() == Some(set.1);
            controls && in_namespace(object) && !is_deleting(object)
        };
        let targets = self.stored.values().filter(is_of_set);
        let existing: BTreeSet<String> = targets
            .filter(|object| !self.is_elsewhere(object))
            .map(|object| target_of(object).to_owned())
            .filter(|target| {
                monitor
                    .simulator
                    .inspect(|cloud| cloud.member(target, now).is_some())
            })
            .collect();
        let target = target_of(object);
        let group = text(object, "/spec/securityGroupID");
        let case = Case {
            view: self.views.get(&incarnation)?,
            stored: asks_first.then_some(&self.truth),
            set,
            target,
            group: &group,
            slack: self.slack,
            tags_age: self.tags_age,
            existing: &existing,
            released_for: self.released.get(target).map(Instant::elapsed),
            is_elsewhere: self.is_elsewhere(object),
            now,
        };
        Some(ask(&case))
    }

    /// Whether the last account that a membership was looked at with does not own its target, and no record says more.
    fn is_elsewhere(&self, object: &Value) -> bool {
        let status = &object["status"];
        let told = &status["accountUID"];
        let owner = self.owners.get(target_of(object)).map(String::as_str);
        told.is_string() && told != owner.unwrap_or(OWNER) && status["origin"].is_null()
    }

    /// J1: whether there is evidence against a membership that a set has deleted; and J2.
    pub(super) fn check_deletion(
        &mut self,
        monitor: &Monitor,
        incarnation: usize,
        set: Set<'_>,
        object: &Value,
    ) -> Vec<Finding> {
        let by = (incarnation, true);
        #[expect(
            clippy::redundant_closure_for_method_calls,
            reason = "the method is not one for every lifetime"
        )]
        let evidence = self.with_case(monitor, by, set, object, |case| case.evidence());
        let mut evidence = evidence.unwrap_or_default();
        let (target, group) = (target_of(object), text(object, "/spec/securityGroupID"));
        let known = self.slack + self.late;
        evidence.retain(|evidence| match evidence {
            Evidence::Replaced(new) => {
                let edge = (target.to_owned(), new.clone());
                self.was_ready(set.1, &edge, known)
            }
            _ => true,
        });
        let name = text(object, "/metadata/name");
        monitor.trace(|| format!("  {name} is deleted by {evidence:?}"));
        let words = evidence.iter().map(Evidence::word);
        let mut findings: Vec<Finding> = words.map(Finding::Counted).collect();
        if evidence.is_empty() {
            findings.push(Finding::Violation(format!(
                "J1: {name} was deleted without evidence against {target}"
            )));
        }
        let keeps_policies = self.with_case(monitor, by, set, object, |case| {
            let mut specs = case.specs().into_iter();
            specs.any(|spec| selector::has_policies(object, spec))
        });
        if keeps_policies != Some(true) {
            findings.push(Finding::Violation(format!(
                "J1: {name} was deleted with other policies than those of its set"
            )));
        }
        findings.extend(self.check_truth(&evidence, set, target));
        let news: Vec<&String> = evidence
            .iter()
            .filter_map(|evidence| match evidence {
                Evidence::Replaced(new) => Some(new),
                _ => None,
            })
            .collect();
        // One that only observes takes its target from no group when it goes.
        let observes = object["spec"]["managementPolicy"] == "Observe";
        let is_change = !observes && news.len() == evidence.len();
        if news.len() < evidence.len() {
            let exception = SetException::DeselectedBetween;
            self.note_deletion(set.1, (target, &group), exception);
        }
        for new in &news {
            self.forget_change_to(set.1, target, (new, &group));
        }
        if let Some(new) = news.first().filter(|_| is_change) {
            let edge = (target.to_owned(), (*new).clone());
            if !monitor.membership(Some(target), Some(new), monitor.server.now()) {
                findings.extend(self.check_absence_of_new(set.1, &edge, &group));
            }
            let replaced = Replaced {
                set: set.1.to_owned(),
                group: (*new).clone(),
                deleted: None,
            };
            self.replaced.insert((target.to_owned(), group), replaced);
        }
        findings
    }

    /// A set has gone back from `group` to `former`: its change from `former` to `group` is undone.
    fn forget_change_to(&mut self, set: &str, target: &str, (former, group): (&str, &str)) {
        let edge = (target.to_owned(), former.to_owned());
        let is_undone = |replaced: &Replaced| replaced.set == set && replaced.group == group;
        if self.replaced.get(&edge).is_some_and(is_undone) {
            self.replaced.remove(&edge);
        }
    }

    /// The membership of a set for a group is deleted, and not because of a change of group.
    fn note_deletion(&mut self, set: &str, (target, group): (&str, &str), exception: SetException) {
        for ((of, _), replaced) in &mut self.replaced {
            if of == target && replaced.set == set && replaced.group == group {
                replaced.deleted = Some((exception, Instant::now()));
            }
        }
    }

    /// A user has written a membership of a set: perhaps deleted it.
    pub(super) fn note_deletion_by_user(&mut self, entry: &Entry, before: Option<&Value>) {
        let is_going = entry.change == Change::Deleted || is_deleting(&entry.object);
        let Some(before) = before.filter(|before| is_going && !is_deleting(before)) else {
            return;
        };
        if let Some(set) = controller(before) {
            let group = text(before, "/spec/securityGroupID");
            let edge = (target_of(before), group.as_str());
            self.note_deletion(&set, edge, SetException::DeletedBetween);
        }
    }

    /// What allows that the target is not in its new group: its membership was deleted since the change of group, and the next one has
    /// not been Ready since.
    pub(super) fn deleted_between(&self, replaced: &Replaced, new: &Edge) -> Option<SetException> {
        let ready = self.ready.get(&(replaced.set.clone(), new.clone()));
        let is_before = |at: Instant| ready.is_none_or(|ready| *ready <= at);
        let (exception, at) = replaced.deleted?;
        is_before(at).then_some(exception)
    }

    /// Whether a membership of a set for an edge is Ready, or was within `age`.
    fn was_ready(&self, set: &str, edge: &Edge, age: Duration) -> bool {
        let is_it = |object: &&Arc<Value>| {
            controller(object).as_deref() == Some(set) && edge_of(object).as_ref() == Some(edge)
        };
        let mut own = self.stored.values().filter(is_it);
        let last = self.ready.get(&(set.to_owned(), edge.clone()));
        own.any(|object| is_ready(object)) || last.is_some_and(|at| at.elapsed() <= age)
    }

    /// J2: why the target is not in its new group, although it leaves the old one.
    pub(super) fn check_absence_of_new(&self, set: &str, new: &Edge, old: &str) -> Option<Finding> {
        // It is released: it is in no group any more.
        if self.released.contains_key(&new.0) {
            return None;
        }
        match self.by_operator.get(new) {
            Some((false, _)) => {
                return Some(Finding::Exception(SetException::OthersLeftNewGroup));
            }
            Some((true, at)) if at.elapsed() < JUST => {
                return Some(Finding::Exception(SetException::NewGroupJustLeft));
            }
            Some(_) | None => {}
        }
        let of_new = |object: &&Arc<Value>| {
            controller(object).as_deref() == Some(set) && edge_of(object).as_ref() == Some(new)
        };
        // What the new group was left for is judged by itself.
        let stored = self.stored.values().find(of_new);
        let is_going = stored.is_none_or(|object| is_deleting(object));
        let (target, group) = new;
        (!is_going).then(|| {
            Finding::Violation(format!(
                "J2: {target} leaves {old} for {group}, and is not in {group}"
            ))
        })
    }

    /// Whether what an operator was shown of Nodes has been so; only lists that leave out rows or are old may show otherwise.
    fn check_truth(
        &self,
        evidence: &BTreeSet<Evidence>,
        (place, uid): Set<'_>,
        target: &str,
    ) -> Vec<Finding> {
        let now = Instant::now();
        let known = self.slack + self.late;
        let specs = self.truth.states(place, now - known);
        let specs: Vec<&Value> = specs
            .into_iter()
            .filter_map(|(_, object)| object)
            .filter(|object| object["metadata"]["uid"] == uid)
            .map(|object| &object["spec"])
            .filter(|spec| spec["nodeSelector"].is_object())
            .collect();
        // By every selector that a pass may have gone by.
        let has_node = |moment: &Instant, fits: bool| {
            let nodes = self.truth.at("nodes", *moment);
            let is_there = |spec: &&Value| {
                let own = selector::nodes_of(&nodes, spec, target);
                own.iter()
                    .any(|node| !fits || selector::matches(&spec["nodeSelector"], node))
            };
            !specs.is_empty() && specs.iter().all(is_there)
        };
        let mut findings = Vec::new();
        let mut shown_otherwise = |exception, what: &str| {
            findings.push(if self.has_bad_lists {
                Finding::Exception(exception)
            } else {
                Finding::Violation(format!("J1: {target} {what}, whatever was shown"))
            });
        };
        if evidence.len() != 1 {
            return findings;
        }
        if evidence.contains(&Evidence::NoNode) {
            let since = now - FIVE_MINUTES + known.min(FIVE_MINUTES / 2);
            let moments = self.truth.moments("nodes", since);
            let old = |moment: &Instant| now.duration_since(*moment) > known;
            if moments
                .iter()
                .filter(|at| old(at))
                .any(|at| has_node(at, false))
            {
                shown_otherwise(SetException::NodeNotShown, "has had a Node");
            }
        }
        if evidence.contains(&Evidence::Labels) {
            let moments = self.truth.moments("nodes", now - known);
            if moments.iter().all(|at| has_node(at, true)) {
                shown_otherwise(SetException::LabelsNotShown, "has a Node with the labels");
            }
        }
        findings
    }

    /// A set makes memberships for the targets that it picks, and for its group.
    pub(super) fn check_creation(
        &self,
        monitor: &Monitor,
        incarnation: usize,
        set: Set<'_>,
        object: &Value,
    ) -> Option<Finding> {
        let by = (incarnation, false);
        let is_picked = self.with_case(monitor, by, set, object, |case| {
            let group = &object["spec"]["securityGroupID"];
            let mut specs = case.specs().into_iter();
            specs.any(|spec| spec["securityGroupID"] == *group) && case.is_picked()
        });
        let name = text(object, "/metadata/name");
        (is_picked != Some(true))
            .then(|| Finding::Violation(format!("J1: a set made {name}, which it does not select")))
    }

    /// J4: a set changes what it controls, and takes over what nobody does and it would make itself.
    pub(super) fn check_change(
        &self,
        monitor: &Monitor,
        incarnation: usize,
        set: Set<'_>,
        (object, owner): (&Value, Option<String>),
    ) -> Option<Finding> {
        match owner {
            Some(owner) if owner == set.1 => None,
            Some(_) => {
                let name = text(object, "/metadata/name");
                Some(Finding::Violation(format!(
                    "J4: a set wrote {name}, which another one controls"
                )))
            }
            None => Some(
                self.check_creation(monitor, incarnation, set, object)
                    .unwrap_or(Finding::Counted("orphan taken over")),
            ),
        }
    }
}
