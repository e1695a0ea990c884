//! The condition of a Node: whether it is a member of the groups of all sets that select it. Pure.

use crate::api::{NODE_CONDITION, reason};
use crate::condition::{NewCondition, Status, truncate};
use crate::ecs::Target;

use super::context::Passed;
use super::member::{Member, State, name_of};
use super::node_set::NodeSet;

/// A set that selects the Node, and what is known of its membership.
#[derive(Clone, Copy, Debug)]
pub struct Part<'a> {
    /// The set.
    pub set: &'a NodeSet,
    /// The instance that the Node is.
    pub target: &'a Target,
    /// Its membership of the group of the set.
    pub member: Option<&'a Member>,
    /// The last pass over the set in this process.
    pub passed: Option<&'a Passed>,
}

/// What the condition of a Node must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// No set selects the Node: it has none.
    Absent,
    /// This.
    Present(NewCondition),
    /// A set has not had its first pass yet: what the Node has stays.
    Unknown,
}

/// The condition for these sets, which are in the order of their names.
#[must_use]
pub fn wanted(parts: &[Part<'_>]) -> Wanted {
    if parts.is_empty() {
        return Wanted::Absent;
    }
    let mut troubles = Vec::new();
    for part in parts {
        match part.verdict() {
            Verdict::Joined => {}
            Verdict::NotJoined(reason, text) => troubles.push((reason, text)),
            Verdict::Unknown => return Wanted::Unknown,
        }
    }
    let (status, reason, message) = match troubles.first() {
        None => {
            let places = parts.iter().map(Part::place).collect();
            let message = format!("member of {}", listed(places));
            (Status::True, reason::JOINED.to_owned(), message)
        }
        Some((reason, _)) => {
            let reason = reason.clone();
            let texts = troubles.into_iter().map(|(_, text)| text).collect();
            (Status::False, reason, listed(texts))
        }
    };
    Wanted::Present(NewCondition {
        type_: NODE_CONDITION,
        status,
        reason,
        message: truncate(&message, MESSAGE_LIMIT),
    })
}

/// The first texts, and how many more there are.
fn listed(mut texts: Vec<String>) -> String {
    let more = texts.len().saturating_sub(MOST_NAMED);
    texts.truncate(MOST_NAMED);
    if more > 0 {
        texts.push(format!("and {more} more"));
    }
    texts.join("; ")
}

/// Sets that a message names.
const MOST_NAMED: usize = 3;
/// Longest message, in bytes.
const MESSAGE_LIMIT: usize = 2048;

/// What one set says of a Node.
enum Verdict {
    Joined,
    /// With the reason and the text.
    NotJoined(String, String),
    Unknown,
}

impl Part<'_> {
    fn verdict(&self) -> Verdict {
        match (self.member, self.passed) {
            (Some(member), _) => self.verdict_of(member),
            (None, _) if self.set.suspended => self.without_membership(
                reason::SUSPENDED,
                "the set is suspended; set its spec.suspend to false",
            ),
            (None, None) => Verdict::Unknown,
            (None, Some(Passed { refusal: None })) => self.not_yet(),
            (
                None,
                Some(Passed {
                    refusal: Some(refusal),
                }),
            ) => {
                let shown = self.shown_by("sgmset", &self.set.name);
                self.without_membership(refusal.reason(), &shown)
            }
        }
    }

    fn verdict_of(&self, member: &Member) -> Verdict {
        let (target, place) = (self.target, self.place());
        let (reason, what) = match &member.state {
            State::Ready if !member.deleting => return Verdict::Joined,
            State::Ready | State::Pending => return self.not_yet(),
            State::Stalled(reason) if **reason == *reason::SUSPENDED => (
                reason::SUSPENDED,
                format!("the operator does not look whether {target} is a member of {place}"),
            ),
            State::Stalled(reason) => (&**reason, format!("{target} is no member of {place}")),
            State::TargetNotFound => (
                reason::TARGET_NOT_FOUND,
                format!("the cloud does not list {target}, which is to join {place}"),
            ),
        };
        let shown = self.shown_by("sgm", &member.name);
        Verdict::NotJoined(reason.to_owned(), format!("{what} ({reason}): {shown}"))
    }

    /// The same before and after the membership has been created: one write less for each new Node.
    fn not_yet(&self) -> Verdict {
        let NodeSet {
            name,
            region,
            group,
            ..
        } = self.set;
        let (reason, target, place) = (reason::PROGRESSING, self.target, self.place());
        let shown = self.shown_by("sgm", &name_of(name, region, target, group));
        let text = format!("{target} is not yet a member of {place} ({reason}): {shown}");
        Verdict::NotJoined(reason.to_owned(), text)
    }

    fn without_membership(&self, reason: &str, why: &str) -> Verdict {
        let (target, place) = (self.target, self.place());
        let text = format!("{target} has no membership of {place} ({reason}): {why}");
        Verdict::NotJoined(reason.to_owned(), text)
    }

    /// The group and the set.
    fn place(&self) -> String {
        let NodeSet {
            namespace,
            name,
            group,
            ..
        } = self.set;
        format!("{group} by the set {namespace}/{name}")
    }

    /// Where the cause and the fix are.
    fn shown_by(&self, kind: &str, name: &str) -> String {
        let namespace = &self.set.namespace;
        format!("kubectl describe {kind} {name} -n {namespace} shows cause and fix")
    }
}
