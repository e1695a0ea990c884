//! Judges what operators do as sets (J1 to J5 and J7 of `docs/proof.md`): by the journal of the cloud, what the API server holds, and what
//! the API server and the cloud have shown to each operator. Never by what an operator has written of its plan.

mod checks;
mod evidence;
mod karpenter;
mod selector;
mod view;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use security_group_operator::api::SET_MANAGER;
use serde_json::Value;
use tokio::time::Instant;

use crate::api_server::request::Reply;
use crate::api_server::store::{Change, Entry};
use crate::api_server::{Call, Verb};
use crate::monitor::{Edge, MEMBERSHIPS, Monitor, condition, is_deleting, names_targets, text};

pub use selector::{
    KARPENTER_TAGS, has_policies, has_tags, instance_of, listed, matches, name_of, tags,
};
use view::{Answer, Place, View, place_of};

pub const SETS: &str = "securitygroupmembershipsets";

/// What the rules for sets would forbid, and is allowed: no operator could know better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SetException {
    /// A pass wrote that had begun before the operator was shown the deletion or the suspension of its set.
    PassUnderWay,
    /// A membership went because its target had no Node for five minutes, and the API server had not shown the Node that came.
    NodeNotShown,
    /// A membership went by the labels of its Node, and the API server had not shown the labels that it has.
    LabelsNotShown,
    /// The old group was left after others had removed the target from the new one.
    OthersLeftNewGroup,
    /// The old group was left seconds after the operator had left the new one for another object: a user had deleted the new membership,
    /// or that Leave had got no clear answer and the cloud still showed the target there.
    NewGroupJustLeft,
    /// The old group was left, and the set had deleted the membership of the new group before that, because its target was not selected
    /// any more. It is selected again, and the new membership has not been Ready since.
    DeselectedBetween,
    /// The old group was left, and a user had deleted the membership of the new group before that. The set has made it again, and it has
    /// not been Ready since.
    DeletedBetween,
}

impl SetException {
    pub const ALL: [Self; 7] = [
        Self::PassUnderWay,
        Self::NodeNotShown,
        Self::LabelsNotShown,
        Self::OthersLeftNewGroup,
        Self::NewGroupJustLeft,
        Self::DeselectedBetween,
        Self::DeletedBetween,
    ];

    /// What it is called in the counts.
    pub const fn word(self) -> &'static str {
        match self {
            Self::PassUnderWay => "exception PassUnderWay",
            Self::NodeNotShown => "exception NodeNotShown",
            Self::LabelsNotShown => "exception LabelsNotShown",
            Self::OthersLeftNewGroup => "exception OthersLeftNewGroup",
            Self::NewGroupJustLeft => "exception NewGroupJustLeft",
            Self::DeselectedBetween => "exception DeselectedBetween",
            Self::DeletedBetween => "exception DeletedBetween",
        }
    }
}

/// What became of one write.
enum Finding {
    Violation(String),
    Exception(SetException),
    Counted(&'static str),
}

/// A group that the target of a set has left for another one.
struct Replaced {
    set: String,
    group: String,
    /// When the membership of the new group was deleted since, and what allows its absence until the next one is Ready.
    deleted: Option<(SetException, Instant)>,
}

/// What the judge remembers.
#[derive(Default)]
pub struct Judge {
    is_on: bool,
    /// For how long a pass may go by what it was shown before.
    slack: Duration,
    /// How late the API server may show something.
    late: Duration,
    /// How old what the cloud has said of tags may be.
    tags_age: Duration,
    /// Whether the API server may leave rows out of its lists, or show old ones.
    has_bad_lists: bool,
    /// Where each set is or was, by its UID.
    places: HashMap<String, Place>,
    /// Who writes now, and what.
    author: Option<(usize, Call)>,
    views: BTreeMap<usize, View>,
    /// What the pages of a list have shown that is not at its end: of an operator, a kind and a namespace.
    lists: BTreeMap<(usize, &'static str, String), Vec<Value>>,
    truth: View,
    /// Memberships as they were stored last.
    stored: BTreeMap<Place, Arc<Value>>,
    /// When a membership of a set for an edge was last Ready.
    ready: HashMap<(String, Edge), Instant>,
    /// The tags of instances.
    tags: HashMap<String, BTreeMap<String, String>>,
    /// The cloud account of each instance that is of another one than [`OWNER`](crate::topology::OWNER).
    owners: HashMap<String, String>,
    /// When each instance was released.
    released: HashMap<String, Instant>,
    replaced: HashMap<Edge, Replaced>,
    /// Who changed each edge last in the cloud: whether it was an operator.
    by_operator: HashMap<Edge, (bool, Instant)>,
}

/// What the delays of a schedule allow.
#[derive(Clone, Copy, Debug)]
pub struct Delays {
    /// For how long a pass may go by what it was shown before.
    pub slack: Duration,
    /// How late the API server may show something.
    pub late: Duration,
    /// How old what the cloud has said of tags may be.
    pub tags_age: Duration,
    /// Whether the API server may leave rows out of its lists, or show old ones.
    pub has_bad_lists: bool,
}

/// UID of what controls an object.
fn controller(object: &Value) -> Option<String> {
    let owners = object["metadata"]["ownerReferences"].as_array()?;
    let owner = owners.iter().find(|owner| owner["controller"] == true)?;
    Some(text(owner, "/uid"))
}

/// Whether Ready is True for the generation of an object that is not being deleted.
fn is_ready(object: &Value) -> bool {
    let ready = condition(object, "Ready");
    let current = |ready: &&Value| {
        ready["status"] == "True" && ready["observedGeneration"] == object["metadata"]["generation"]
    };
    !is_deleting(object) && ready.as_ref().is_some_and(current)
}

impl Monitor {
    /// From now on sets are judged.
    pub fn judge_sets(&self, delays: Delays) {
        let mut judge = self.sets.lock().unwrap();
        judge.is_on = true;
        judge.slack = delays.slack;
        judge.late = delays.late;
        judge.tags_age = delays.tags_age;
        judge.has_bad_lists = delays.has_bad_lists;
    }

    /// An operator has called the API server; what its call has changed is in the log.
    pub(super) fn set_called(&self, incarnation: usize, call: &Call, reply: &Reply) {
        let mut judge = self.sets.lock().unwrap();
        if !judge.is_on {
            return;
        }
        if call.verb.writes() && call.kind.plural == MEMBERSHIPS {
            judge.author = Some((incarnation, call.clone()));
        }
        let Some(items) = reply.body["items"].as_array() else {
            return;
        };
        let plural = call.kind.plural;
        if call.query.contains_key("fieldSelector")
            || ![MEMBERSHIPS, SETS, "nodes"].contains(&plural)
        {
            return;
        }
        let list = (incarnation, plural, call.namespace.clone());
        let mut listed = judge.lists.remove(&list).unwrap_or_default();
        if !call.query.contains_key("continue") {
            listed.clear();
        }
        listed.extend_from_slice(items);
        if reply.body["metadata"]["continue"].is_null() {
            let view = judge.views.entry(incarnation).or_default();
            view.list(plural, &call.namespace, &listed);
        } else {
            judge.lists.insert(list, listed);
        }
    }

    /// The write of an operator is over.
    pub(super) fn set_call_ends(&self) {
        self.sets.lock().unwrap().author = None;
    }

    /// The API server shows an event to an operator.
    pub(super) fn set_shown(&self, incarnation: usize, event: &Entry) {
        let mut judge = self.sets.lock().unwrap();
        if !judge.is_on {
            return;
        }
        let place = place_of(event.key.0, &event.object);
        let object = (event.change != Change::Deleted).then(|| Arc::clone(&event.object));
        let view = judge.views.entry(incarnation).or_default();
        view.show(place, object);
    }

    /// The cloud has shown instances to an operator.
    pub fn instances_shown(
        &self,
        incarnation: usize,
        parameters: &BTreeMap<String, String>,
        body: &[u8],
    ) {
        let mut judge = self.sets.lock().unwrap();
        let action = parameters.get("Action").map(String::as_str);
        if !judge.is_on || action != Some("DescribeInstances") {
            return;
        }
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return;
        };
        let Some(rows) = body["Instances"]["Instance"].as_array() else {
            return;
        };
        let tags_of = |row: &Value| {
            let tags = row["Tags"]["Tag"].as_array().into_iter().flatten();
            let pair = |tag: &Value| (text(tag, "/TagKey"), text(tag, "/TagValue"));
            tags.map(pair).collect::<BTreeMap<_, _>>()
        };
        let asked = (1..).map_while(|n| {
            let key = parameters.get(&format!("Tag.{n}.Key"))?;
            let value = parameters.get(&format!("Tag.{n}.Value"))?;
            Some((key.clone(), value.clone()))
        });
        let asked: BTreeMap<String, String> = asked.collect();
        let answer = Answer {
            at: Instant::now(),
            region: parameters.get("RegionId").cloned().unwrap_or_default(),
            asked: (!names_targets(parameters)).then_some(asked),
            shown: rows
                .iter()
                .map(|row| (text(row, "/InstanceId"), tags_of(row)))
                .collect(),
        };
        let view = judge.views.entry(incarnation).or_default();
        view.answers.push(answer);
    }

    /// What the last list by these tags in a region has shown to an operator.
    pub fn last_listed(
        &self,
        region: &str,
        tags: &BTreeMap<String, String>,
    ) -> Option<BTreeSet<String>> {
        let judge = self.sets.lock().unwrap();
        let answers = judge.views.values().flat_map(|view| &view.answers);
        let lists = answers.filter(|answer| {
            answer.region == region && answer.asked.as_ref().is_some_and(|asked| asked == tags)
        });
        let last = lists.max_by_key(|answer| answer.at)?;
        Some(last.shown.keys().cloned().collect())
    }

    /// The cloud is changed behind the operator's back.
    pub fn cloud_changes(&self, change: &Value) {
        let mut judge = self.sets.lock().unwrap();
        if let Some(id) = change["delete"]["id"].as_str() {
            let released = judge.released.entry(id.to_owned());
            released.or_insert_with(Instant::now);
        }
        if let Some(id) = change["setTags"]["id"].as_str() {
            let tags = &change["setTags"]["tags"];
            let tags = selector::tags(&serde_json::json!({"instanceTags": tags}));
            judge.tags.insert(id.to_owned(), tags.unwrap_or_default());
        }
        let created = &change["createInstance"];
        if let (Some(id), Some(account)) = (created["id"].as_str(), created["account"].as_str()) {
            judge.owners.insert(id.to_owned(), account.to_owned());
        }
    }

    /// The tags of an instance.
    pub fn tags_of(&self, id: &str) -> BTreeMap<String, String> {
        let judge = self.sets.lock().unwrap();
        judge.tags.get(id).cloned().unwrap_or_default()
    }

    /// An edge has changed in the cloud.
    pub(super) fn set_edge_changed(&self, edge: &Edge, joined: bool, by_operator: bool) {
        let replaced = {
            let mut judge = self.sets.lock().unwrap();
            if !judge.is_on {
                return;
            }
            let change = (by_operator, Instant::now());
            judge.by_operator.insert(edge.clone(), change);
            judge.replaced.remove(edge)
        };
        let Some(replaced) = replaced.filter(|_| !joined && by_operator) else {
            return;
        };
        let finding = self.check_new_group(edge, &replaced);
        self.found(finding);
    }

    /// J2: what has left its old group is in the new one.
    fn check_new_group(&self, (target, old): &Edge, replaced: &Replaced) -> Option<Finding> {
        if self.membership(Some(target), Some(&replaced.group), self.server.now()) {
            return Some(Finding::Counted("change of group without a gap"));
        }
        let new = (target.clone(), replaced.group.clone());
        let judge = self.sets.lock().unwrap();
        match judge.check_absence_of_new(&replaced.set, &new, old) {
            Some(Finding::Violation(what)) => {
                let exception = judge.deleted_between(replaced, &new);
                Some(exception.map_or(Finding::Violation(what), Finding::Exception))
            }
            finding => finding,
        }
    }

    fn found(&self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            match finding {
                Finding::Violation(what) => self.violated(what),
                Finding::Exception(exception) => {
                    self.trace(|| format!("exception: {exception:?}"));
                    self.count(exception.word());
                }
                Finding::Counted(what) => self.count(what),
            }
        }
    }

    /// Judges one change of what the API server holds.
    pub(super) fn judge_entry(&self, entry: &Entry) {
        if !self.sets.lock().unwrap().is_on {
            return;
        }
        let plural = entry.key.0;
        if ![MEMBERSHIPS, SETS, "nodes"].contains(&plural) {
            return;
        }
        let mut findings = if plural == MEMBERSHIPS {
            self.judge_membership(entry)
        } else {
            Vec::new()
        };
        {
            let mut judge = self.sets.lock().unwrap();
            let place = place_of(plural, &entry.object);
            let object = (entry.change != Change::Deleted).then(|| Arc::clone(&entry.object));
            findings.extend(judge.count_refusal(&place, &entry.object));
            judge.truth.show(place.clone(), object.clone());
            judge.remember(place, object);
        }
        self.found(findings);
    }

    /// Judges the write of a membership by a set, if this is one.
    fn judge_membership(&self, entry: &Entry) -> Vec<Finding> {
        let mut judge = self.sets.lock().unwrap();
        let place = place_of(MEMBERSHIPS, &entry.object);
        let before = judge.stored.get(&place).cloned();
        let mut findings = judge.check_edge(entry);
        let Some((incarnation, call)) = judge.author.clone() else {
            judge.note_deletion_by_user(entry, before.as_deref());
            return findings;
        };
        let manager = call.query.get("fieldManager");
        let by_set = manager.is_some_and(|name| name == SET_MANAGER);
        let set = match call.verb {
            Verb::Delete => before.as_deref().and_then(controller),
            Verb::Create | Verb::Apply if by_set => controller(&call.body),
            _ => return findings,
        };
        let object = before.as_ref().unwrap_or(&entry.object);
        let known = set.and_then(|uid| Some((judge.places.get(&uid)?.clone(), uid)));
        let Some((place, uid)) = known else {
            findings.push(Judge::check_released(object));
            return findings;
        };
        let set = (&place, uid.as_str());
        findings.extend(judge.check_lives(incarnation, set, &entry.key.2));
        let before = before.as_deref();
        match call.verb {
            Verb::Delete if before.is_some_and(|before| !is_deleting(before)) => {
                findings.extend(judge.check_deletion(self, incarnation, set, object));
            }
            Verb::Create => findings.extend(judge.check_creation(self, incarnation, set, object)),
            Verb::Apply => {
                let owner = before.and_then(controller);
                findings.extend(judge.check_change(self, incarnation, set, (object, owner)));
            }
            _ => {}
        }
        findings
    }
}
