//! Checks what the operator writes to the API server: I4 and I5. Tells the ledger of claims and of objects that have gone.

use security_group_operator::api::{FINALIZER, SET_MANAGER};
use serde_json::Value;
use tokio::time::Instant;

use crate::api_server::Call;
use crate::api_server::request::Reply;
use crate::api_server::store::{Change, Entry};
use crate::topology::ACCOUNTS;

use super::{MEMBERSHIPS, Monitor, condition, edge_of, is_deleting, target_of, text};

impl Monitor {
    /// An operator's call of the API server was done.
    pub fn written(&self, incarnation: usize, call: &Call, reply: &Reply) {
        self.set_called(incarnation, call, reply);
        self.read_log();
        self.set_call_ends();
        if call.kind.plural == MEMBERSHIPS && reply.body["items"].is_array() {
            self.event_shown();
        }
        // A Lease is renewed for ever, and says nothing of a membership.
        if !call.verb.writes() || call.kind.plural == "leases" {
            return;
        }
        {
            let mut state = self.state.lock().unwrap();
            // The number of memberships follows in the status of their account, up to a minute later.
            if !ACCOUNTS
                .iter()
                .any(|account| account.plural == call.kind.plural)
            {
                state.writes += 1;
            }
            *state.effects_of.entry(incarnation).or_default() += 1;
        }
        let body = serde_json::to_string(&call.body).unwrap();
        self.trace(|| format!("  -> {} {}", reply.code, body));
        if self.secrets.iter().any(|secret| body.contains(secret)) {
            self.violated(format!("I5: a secret in a write to {}", call.kind.plural));
        }
        if call.kind.plural == MEMBERSHIPS && call.status && reply.code == 200 {
            self.check_ready(&reply.body);
        }
        let by_set = call.query.get("fieldManager");
        if by_set.is_some_and(|name| name == SET_MANAGER) {
            // As when a user does it: a pass that runs may still go by the old policies.
            self.respecified(&text(&reply.body, "/metadata/uid"));
        }
        if call.kind.plural == MEMBERSHIPS && reply.code == 200 {
            self.claim_written(&reply.body);
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

    /// Reads what has changed at the API server since the last look: births of generations, and objects that have gone.
    pub fn read_log(&self) {
        let entries: Vec<Entry> = {
            let read = self.state.lock().unwrap().read;
            let state = self.server.state();
            state.log[read..].to_vec()
        };
        for entry in &entries {
            self.judge_entry(entry);
            if entry.key.0 != MEMBERSHIPS {
                continue;
            }
            let uid = text(&entry.object, "/metadata/uid");
            let generation = entry.object["metadata"]["generation"]
                .as_i64()
                .unwrap_or_default();
            {
                let mut state = self.state.lock().unwrap();
                let appeared = state.appeared.entry(uid.clone());
                appeared.or_insert_with(Instant::now);
                let born = state.births.entry((uid.clone(), generation));
                born.or_insert_with(Instant::now);
                if is_deleting(&entry.object) {
                    state.deleted.entry(uid).or_insert_with(Instant::now);
                }
            }
            if entry.change == Change::Deleted
                && let Some(edge) = edge_of(&entry.object)
            {
                // The API server removed it in the moment in which it got the finalizer: what was joined may be removed later.
                let metadata = &entry.object["metadata"];
                let finalizers = metadata["finalizers"].as_array();
                let is_unreleased = metadata.get("deletionTimestamp").is_none()
                    && finalizers.is_some_and(|all| all.iter().any(|one| one == FINALIZER));
                if is_unreleased {
                    let mut state = self.state.lock().unwrap();
                    state.unreleased.insert(edge.clone());
                }
                self.object_gone(&entry.object, &edge, is_unreleased);
                self.state.lock().unwrap().gone.insert(edge, Instant::now());
            }
        }
        self.state.lock().unwrap().read += entries.len();
        if entries.iter().any(|entry| entry.key.0 == MEMBERSHIPS) {
            self.judge_ready();
        }
    }
}
