//! Checks what the operator writes to the API server: I3, I4 and I5, and at the end that no edge of ours is left to nobody.

use std::time::Duration;

use security_group_operator::api::{FINALIZER, ORIGIN_ANNOTATION};
use serde_json::Value;
use tokio::time::Instant;

use crate::api_server::Call;
use crate::api_server::request::Reply;
use crate::api_server::store::{Change, Entry};

use super::{EdgeFacts, MEMBERSHIPS, Monitor, PASS, condition, edge_of, target_of, text};

impl Monitor {
    /// An operator's call of the API server was done.
    pub fn written(&self, incarnation: usize, call: &Call, reply: &Reply) {
        self.read_log();
        for item in reply.body["items"].as_array().into_iter().flatten() {
            if call.kind.plural == MEMBERSHIPS {
                self.state
                    .lock()
                    .unwrap()
                    .shown
                    .entry((incarnation, text(item, "/metadata/uid")))
                    .or_insert_with(Instant::now);
            }
        }
        if !call.verb.writes() {
            return;
        }
        self.state.lock().unwrap().writes += 1;
        let body = serde_json::to_string(&call.body).unwrap();
        self.trace(|| format!("  -> {} {}", reply.code, body));
        if self.secrets.iter().any(|secret| body.contains(secret)) {
            self.violated(format!("I5: a secret in a write to {}", call.kind.plural));
        }
        if call.kind.plural == MEMBERSHIPS && call.status && reply.code == 200 {
            self.check_ready(&reply.body);
        }
    }

    /// I4.
    fn check_ready(&self, object: &Value) {
        let Some(ready) = condition(object, "Ready").filter(|ready| ready["status"] == "True")
        else {
            return;
        };
        let generation = ready["observedGeneration"].as_i64().unwrap_or_default();
        let (uid, target) = (text(object, "/metadata/uid"), target_of(object));
        let fine = edge_of(object).is_some() && {
            let state = self.state.lock().unwrap();
            let born = state.births.get(&(uid.clone(), generation));
            born.is_some_and(|born| {
                state
                    .answers
                    .get(target)
                    .is_some_and(|answered| answered >= born)
            })
        };
        if !fine {
            self.violated(format!("I4: {} ({uid}) is Ready for generation {generation} without an answer of the cloud about {target} since", text(object, "/metadata/name")));
        }
    }

    /// I3, for every object that went since the last look; and the births of generations.
    pub fn read_log(&self) {
        let entries: Vec<Entry> = {
            let read = self.state.lock().unwrap().read;
            let state = self.server.state();
            state.log[read..].to_vec()
        };
        for entry in &entries {
            if entry.key.0 != MEMBERSHIPS {
                continue;
            }
            let uid = text(&entry.object, "/metadata/uid");
            let generation = entry.object["metadata"]["generation"]
                .as_i64()
                .unwrap_or_default();
            self.state
                .lock()
                .unwrap()
                .births
                .entry((uid, generation))
                .or_insert_with(Instant::now);
            if entry.change == Change::Deleted
                && let Some(edge) = edge_of(&entry.object)
            {
                self.check_release(&entry.object, &edge);
                self.remember(&text(&entry.object, "/metadata/uid"), edge);
            }
        }
        self.state.lock().unwrap().read += entries.len();
    }

    /// An object of an edge has gone. If it could not see yet that the edge was there before it, neither can its successors.
    fn remember(&self, uid: &str, edge: (String, String)) {
        let mut state = self.state.lock().unwrap();
        let born = state.births.get(&(uid.to_owned(), 1)).copied();
        if let Some(input) = state.edges.get_mut(&edge) {
            input.named |= born.is_none_or(|born| !self.could_see(born, input));
        }
        state.gone.insert(edge, Instant::now());
    }

    fn check_release(&self, object: &Value, (target, group): &(String, String)) {
        let held = object["metadata"]["finalizers"]
            .as_array()
            .is_some_and(|all| all.iter().any(|one| one == FINALIZER));
        let claim = object["metadata"]["annotations"][ORIGIN_ANNOTATION]
            .as_str()
            .unwrap_or_default();
        let spec = &object["spec"];
        let leaves = spec["managementPolicy"] == "Manage"
            && (spec["deletionPolicy"] == "Remove"
                || spec["deletionPolicy"] == "RemoveIfJoined" && claim == "Joined");
        let there = self.membership(Some(target), Some(group), self.server.now());
        let ours = self
            .state
            .lock()
            .unwrap()
            .edges
            .get(&(target.clone(), group.clone()))
            // What was put back for those who had adopted it is nobody's, whoever claims it later.
            .is_some_and(|input| input.by_operator && (input.owned || claim != "Joined"));
        if self.is_just_respecified(&text(object, "/metadata/uid"))
            || !held
            || !leaves
            || !there
            || !ours
            || self.is_recent(&text(object, "/metadata/uid")) && self.several
        {
            return;
        }
        let others = self.naming(target, group);
        let name = text(object, "/metadata/name");
        if others.is_empty() {
            if !self.recently_gone(target, group) {
                self.violated(format!(
                    "I3: the finalizer of {name} went, and {target} is still in {group}"
                ));
            }
        } else if claim == "Joined" {
            let successor = others
                .iter()
                .any(|other| other["metadata"]["annotations"][ORIGIN_ANNOTATION] == "Joined");
            if !successor && !self.recently_gone(target, group) {
                self.violated(format!("I3: {name} went with the claim Joined on {target} in {group} and left it to nobody"));
            }
        }
    }

    /// At the end: an edge that an operator made and that no object has.
    pub fn check_orphans(&self) {
        if self.old_lists {
            // An object that has gone, with its finalizer and all, is in an old list, and nothing tells it from one that is there.
            return;
        }
        let edges: Vec<((String, String), EdgeFacts)> = self
            .state
            .lock()
            .unwrap()
            .edges
            .iter()
            .map(|(key, input)| (key.clone(), *input))
            .collect();
        for ((target, group), input) in edges {
            let gone = self
                .state
                .lock()
                .unwrap()
                .gone
                .get(&(target.clone(), group.clone()))
                .copied();
            // What another operator had on its way when the object went is not called back.
            let on_its_way = if self.several { PASS } else { Duration::ZERO };
            let late = gone.is_some_and(|gone| input.since > gone + on_its_way);
            if input.by_operator
                && late
                && self.naming(&target, &group).is_empty()
                && self.membership(Some(&target), Some(&group), self.server.now())
            {
                self.violated(format!(
                    "an orphan: {target} was joined to {group} after its last object had gone"
                ));
            }
        }
    }
}
