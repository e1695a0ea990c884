//! Builds `metav1.Condition` lists from new conditions; compares them by meaning. Pure; `now` is an argument.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Longest message written, in bytes; the API convention allows 32,768.
const MESSAGE_LIMIT: usize = 2048;

/// One condition before it has a transition time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewCondition {
    /// `Ready`, `Reconciling`, `Stalled` or `Drifted`.
    pub type_: &'static str,
    /// Status of the condition.
    pub status: Status,
    /// Reason in `CamelCase`, without dots.
    pub reason: String,
    /// Message for users: the current state and what happens next.
    pub message: String,
}

/// Status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The condition holds.
    True,
    /// The condition does not hold.
    False,
    /// Not known, or not known yet.
    Unknown,
}

impl Status {
    /// As the API spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// The list for these conditions, in their order. `lastTransitionTime` changes only with the status. It has whole seconds:
/// `metav1.Time` drops the fraction, and the stored list would never compare equal again.
#[must_use]
pub fn merge(
    previous: &[Condition],
    conditions: Vec<NewCondition>,
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    conditions
        .into_iter()
        .map(|condition| {
            let last_transition_time = find(previous, condition.type_)
                .filter(|old| old.status == condition.status.as_str() && !is_default_time(old))
                .map_or_else(
                    || whole_seconds(now),
                    |old| old.last_transition_time.clone(),
                );
            Condition {
                type_: condition.type_.to_owned(),
                status: condition.status.as_str().to_owned(),
                reason: condition.reason,
                message: truncate(&condition.message, MESSAGE_LIMIT),
                observed_generation: generation,
                last_transition_time,
            }
        })
        .collect()
}

/// The unchanged condition of this type, for a status that does not update it. A time set by the CRD's default becomes
/// `now`.
#[must_use]
pub fn keep(previous: &[Condition], type_: &str, now: Timestamp) -> Option<Condition> {
    let mut condition = find(previous, type_)?.clone();
    if is_default_time(&condition) {
        condition.last_transition_time = whole_seconds(now);
    }
    Some(condition)
}

/// Whether the time comes from the CRD's default for `status`, which cannot contain the current time and has 1970.
fn is_default_time(condition: &Condition) -> bool {
    condition.last_transition_time.0 == Timestamp::UNIX_EPOCH
}

/// The condition of this type.
#[must_use]
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// Whether the condition of this type is `True`.
#[must_use]
pub fn is_true(conditions: &[Condition], type_: &str) -> bool {
    find(conditions, type_).is_some_and(|condition| condition.status == Status::True.as_str())
}

/// `now` without the fraction of a second, which `metav1.Time` drops.
#[must_use]
pub fn whole_seconds(now: Timestamp) -> Time {
    Time(Timestamp::from_second(now.as_second()).unwrap_or(now))
}

/// The first `limit` bytes of a text at most, cut between characters; a truncated text ends with `…`.
#[must_use]
pub fn truncate(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit.saturating_sub('…'.len_utf8()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or_default();
    format!("{}…", text.get(..end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ready(status: Status, reason: &str) -> NewCondition {
        NewCondition {
            type_: "Ready",
            status,
            reason: reason.to_owned(),
            message: String::new(),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::new(second, 700_000_000).unwrap()
    }

    #[test]
    fn transition_time_moves_only_with_the_status() {
        let first = merge(&[], vec![ready(Status::False, "Waiting")], Some(1), at(10));
        let second = merge(&first, vec![ready(Status::False, "Stuck")], Some(2), at(20));
        let third = merge(
            &second,
            vec![ready(Status::True, "Joined")],
            Some(2),
            at(30),
        );
        let seconds: Vec<i64> = [first, second, third]
            .iter()
            .map(|list| list[0].last_transition_time.0.as_second())
            .collect();
        assert_eq!(seconds, [10, 10, 30]);
    }

    #[test]
    fn transition_times_have_whole_seconds() {
        let list = merge(&[], vec![ready(Status::True, "Joined")], Some(1), at(10));
        assert_eq!(list[0].last_transition_time.0.subsec_nanosecond(), 0);
    }

    #[test]
    fn long_message_is_truncated_at_a_character() {
        let fits = "x".repeat(MESSAGE_LIMIT);
        assert_eq!(truncate(&fits, MESSAGE_LIMIT), fits);
        assert_eq!(
            truncate(&"節".repeat(2000), MESSAGE_LIMIT).len(),
            2043 + '…'.len_utf8()
        );
    }
}
