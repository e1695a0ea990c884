//! Lists that are not true: of Nodes that leave one out or are old, and of instances with certain tags that leave some out or show
//! others.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use security_group_operator::simulator::SimulatedResponse;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api_server::request::Reply;
use crate::topology;

/// What lists say that is not so, each until a moment.
#[derive(Default)]
pub struct Lies {
    /// The Node that lists leave out.
    node: Mutex<Option<(String, Instant)>>,
    /// How many revisions old lists of Nodes are.
    old_nodes: Mutex<Option<(u64, Instant)>>,
    /// What lists of tags leave out, and what they show.
    tags: Mutex<Option<(TagLie, Instant)>>,
}

/// How a list of the instances with certain tags lies.
#[derive(Clone, Debug)]
pub struct TagLie {
    /// Instances that it leaves out.
    pub omits: Vec<&'static str>,
    /// Instances that it shows with the tags.
    pub shows: Vec<&'static str>,
}

impl Lies {
    /// Until then lists of Nodes leave out this one.
    pub fn hide_node(&self, name: String, until: Instant) {
        *self.node.lock().unwrap() = Some((name, until));
    }

    /// Until then lists of Nodes are so many revisions old.
    pub fn age_nodes(&self, revisions: u64, until: Instant) {
        *self.old_nodes.lock().unwrap() = Some((revisions, until));
    }

    /// Until then lists by tags lie so.
    pub fn lie_about_tags(&self, lie: TagLie, until: Instant) {
        *self.tags.lock().unwrap() = Some((lie, until));
    }

    /// From now on every list is true.
    pub fn end(&self) {
        *self.node.lock().unwrap() = None;
        *self.old_nodes.lock().unwrap() = None;
        *self.tags.lock().unwrap() = None;
    }

    /// How many revisions ago a list of Nodes was true.
    pub fn old_nodes(&self) -> Option<u64> {
        let old = *self.old_nodes.lock().unwrap();
        old.filter(|(_, until)| Instant::now() < *until)
            .map(|(revisions, _)| revisions)
    }

    /// Takes the hidden Node out of a list. Whether it was there.
    pub fn leave_out_node(&self, reply: &mut Reply) -> bool {
        let hidden = self.node.lock().unwrap().clone();
        let Some((name, _)) = hidden.filter(|(_, until)| Instant::now() < *until) else {
            return false;
        };
        let mut body = (*reply.body).clone();
        let Some(items) = body["items"].as_array_mut() else {
            return false;
        };
        let before = items.len();
        items.retain(|item| item["metadata"]["name"] != name.as_str());
        let is_cut = items.len() < before;
        reply.body = Arc::new(body);
        is_cut
    }

    /// Changes the answer to a list by tags. Whether it did.
    pub fn bend(
        &self,
        parameters: &BTreeMap<String, String>,
        answer: &mut SimulatedResponse,
    ) -> bool {
        let lie = self.tags.lock().unwrap().clone();
        let (Some((lie, until)), Some(key), Some(value)) = (
            lie,
            parameters.get("Tag.1.Key"),
            parameters.get("Tag.1.Value"),
        ) else {
            return false;
        };
        if Instant::now() >= until || answer.outcome != "OK" {
            return false;
        }
        let mut body: Value = serde_json::from_slice(answer.response.body()).unwrap();
        let rows = body["Instances"]["Instance"].as_array_mut().unwrap();
        let before = rows.clone();
        rows.retain(|row| lie.omits.iter().all(|id| row["InstanceId"] != *id));
        let region = parameters.get("RegionId").map(String::as_str);
        let of_region = |id: &&&str| Some(topology::home(id)) == region;
        for id in lie.shows.iter().filter(of_region) {
            if rows.iter().all(|row| row["InstanceId"] != *id) {
                rows.push(json!({
                    "InstanceId": id, "Status": "Running",
                    "Tags": {"Tag": [{"TagKey": key, "TagValue": value}]},
                    "SecurityGroupIds": {"SecurityGroupId": ["sg-base"]},
                }));
            }
        }
        let is_bent = *rows != before;
        *answer.response.body_mut() = body.to_string().into();
        is_bent
    }
}
