//! The condition of ours on a Node, as the API server stores it. Only types.

use std::borrow::Cow;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde::{Deserialize, Deserializer};

use crate::api::NODE_CONDITION;
use crate::condition::NewCondition;

/// The stored condition [`NODE_CONDITION`] of a Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCondition {
    /// Its status.
    pub status: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// Since when it has had its status.
    pub since: Option<Time>,
}

impl StoredCondition {
    /// Whether it says the same as a new one.
    #[must_use]
    pub fn says(&self, new: &NewCondition) -> bool {
        self.status == new.status.as_str()
            && self.reason == new.reason
            && self.message == new.message
    }
}

/// Reads our condition out of the list of all conditions of a Node. The others are passed over.
pub(super) fn read<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<StoredCondition>, D::Error> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Condition<'a> {
        #[serde(borrow, rename = "type")]
        type_: Cow<'a, str>,
        #[serde(borrow, default)]
        status: Cow<'a, str>,
        #[serde(borrow, default)]
        reason: Cow<'a, str>,
        #[serde(borrow, default)]
        message: Cow<'a, str>,
        #[serde(default)]
        last_transition_time: Option<Time>,
    }
    let all: Option<Vec<Condition<'de>>> = Option::deserialize(deserializer)?;
    let own = all.into_iter().flatten();
    let mut own = own.filter(|condition| condition.type_ == NODE_CONDITION);
    Ok(own.next().map(|condition| StoredCondition {
        status: condition.status.into_owned(),
        reason: condition.reason.into_owned(),
        message: condition.message.into_owned(),
        since: condition.last_transition_time,
    }))
}
