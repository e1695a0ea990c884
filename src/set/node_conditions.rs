//! Writes the condition of each Node that sets select, where that is asked for. Writes only what differs from what the Node has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};
use tracing::warn;

use crate::api::{NODE_CONDITION, NODE_MANAGER};
use crate::condition::{NewCondition, whole_seconds};
use crate::ecs::{Class, Target};
use crate::kubernetes::{Error, error_chain, with_deadline};
use crate::nodes::{Node, StoredCondition};

use super::context::{Context, Passed};
use super::member::Member;
use super::node_condition::{Part, Wanted, wanted};
use super::node_set::NodeSet;

/// When a write that the operator may not make is tried again (5 minutes).
const AFTER_REFUSAL: Duration = Duration::from_secs(5 * 60);
/// Longest wait after any other failure: meanwhile no other Node is written either (30 s).
const MOST_WAIT: Duration = Duration::from_secs(30);
/// Refusals after which no other Node is tried: what refuses these refuses ten thousand.
const MOST_REFUSED: usize = 3;

/// Keeps the conditions in step with sets, memberships and Nodes. Never ends.
pub async fn run(context: Arc<Context>) {
    if !context.node_conditions {
        return std::future::pending().await;
    }
    // A standby only watches.
    if !context.shutdown.has_led() {
        context.shutdown.begins_to_lead().await;
    }
    // An earlier run may have left conditions on Nodes that no set selects any more.
    context.sets.keep_nodes(true);
    let mut failures: u32 = 0;
    loop {
        let wait = match write_all(&context).await {
            Ok(()) => {
                failures = 0;
                context.sets.conditions_due().await;
                continue;
            }
            Err(Error::Stopping) => return std::future::pending().await,
            Err(error) if is_missing_right(&error) => AFTER_REFUSAL,
            Err(_) => Class::Transient.retry().delay(failures).min(MOST_WAIT),
        };
        failures = failures.saturating_add(1);
        tokio::time::sleep(wait).await;
    }
}

/// A change of the condition of one Node.
struct Change {
    name: String,
    uid: Box<str>,
    /// `None`: the condition is removed.
    to: Option<NewCondition>,
    /// Since when the Node has had the status of the condition.
    since: Option<Time>,
}

/// Writes every condition that differs. Nothing before all sets, memberships and Nodes are known.
async fn write_all(context: &Context) -> Result<(), Error> {
    let Some((changes, some_stay)) = changes(context) else {
        return Ok(());
    };
    if some_stay {
        // Before the first is written: the watch of Nodes must not end while there is one to remove.
        context.sets.keep_nodes(true);
    }
    let (mut rest, mut size, mut written) = (changes, 1, 0);
    let (mut refused, mut failure) = (0, None);
    while !rest.is_empty() && (written > 0 || refused < MOST_REFUSED) {
        let batch = rest.split_off(rest.len().saturating_sub(size));
        size = MOST_AT_ONCE.min(size * 2);
        let batch = still_wanted(&batch, context);
        let write = |change: Change| async move { write(&change, context).await };
        for outcome in context.writer.each(batch, write).await {
            match outcome {
                Ok(()) => written += 1,
                Err(Error::Stopping) => return Err(Error::Stopping),
                Err(error) => {
                    refused += usize::from(error.code() == Some(403));
                    failure = Some(error);
                }
            }
        }
    }
    if let Some(failure) = failure {
        log(context, &failure);
        return Err(failure);
    }
    context.sets.keep_nodes(some_stay);
    Ok(())
}

/// Conditions of one batch at most.
const MOST_AT_ONCE: usize = 64;

/// What still differs of a batch, by what is known now: a condition that says True must still be so when it is written.
fn still_wanted(batch: &[Change], context: &Context) -> Vec<Change> {
    let Some((mut now, _)) = changes(context) else {
        return Vec::new();
    };
    let names: HashSet<&str> = batch.iter().map(|change| change.name.as_str()).collect();
    now.retain(|change| names.contains(change.name.as_str()));
    now
}

/// What differs, and whether any Node has or gets a condition; `None` if not all is known.
fn changes(context: &Context) -> Option<(Vec<Change>, bool)> {
    let sets = context.sets.node_sets()?;
    if !context.members.is_listed() {
        return None;
    }
    let views: Vec<View> = sets.iter().map(|set| View::of(set, context)).collect();
    let (mut changes, mut some_stay) = (Vec::new(), false);
    let are_listed = context.nodes.each_condition(|name, node, stored| {
        let instance = node.instance.as_ref();
        let target = instance.map(|(region, id)| (region, Target::Instance(id.clone())));
        let selects = |set: &NodeSet| set.selector.matches_with(|key| node.label(key));
        let of_node = target.iter().flat_map(|(region, target)| {
            let of_region = views.iter().filter(|view| view.set.region == **region);
            let selected = of_region.filter(|view| selects(view.set));
            selected.map(|view| view.part(target))
        });
        let parts: Vec<Part<'_>> = of_node.collect();
        let (to, differs) = match wanted(&parts) {
            Wanted::Absent => (None, stored.is_some()),
            Wanted::Present(new) => {
                let differs = !stored.is_some_and(|stored| stored.says(&new));
                (Some(new), differs)
            }
            Wanted::Unknown => {
                some_stay |= stored.is_some();
                return;
            }
        };
        some_stay |= to.is_some();
        if differs {
            changes.push(Change {
                name: name.to_owned(),
                uid: node.uid.clone(),
                since: since(stored, to.as_ref()),
                to,
            });
        }
    });
    are_listed.then_some((changes, some_stay))
}

/// Since when the Node has had the status of the new condition.
fn since(stored: Option<&StoredCondition>, new: Option<&NewCondition>) -> Option<Time> {
    let same = stored.filter(|stored| new.is_some_and(|new| stored.status == new.status.as_str()));
    same?.since.clone()
}

/// A set with its memberships.
struct View<'a> {
    set: &'a NodeSet,
    members: HashMap<Target, Arc<Member>>,
    passed: Option<Passed>,
}

impl<'a> View<'a> {
    fn of(set: &'a NodeSet, context: &Context) -> Self {
        let mut members: HashMap<Target, Arc<Member>> = HashMap::new();
        for member in context.members.of(&set.namespace, &set.uid) {
            if member.group == set.group {
                let known = members.get(&member.target);
                // Of two on one edge, the one that stays counts.
                if known.is_none_or(|known| known.deleting) {
                    members.insert(member.target.clone(), member);
                }
            }
        }
        Self {
            set,
            members,
            passed: context.last_pass(&set.uid),
        }
    }

    fn part<'b>(&'b self, target: &'b Target) -> Part<'b> {
        Part {
            set: self.set,
            target,
            member: self.members.get(target).map(|member| &**member),
            passed: self.passed.as_ref(),
        }
    }
}

async fn write(change: &Change, context: &Context) -> Result<(), Error> {
    let fields = fields(change, whole_seconds(context.clock.now()));
    let api: Api<Node> = Api::all(context.client.clone());
    let turn = context.writer.turn().await?;
    let answer = turn.merge_status(&api, &change.name, NODE_MANAGER, &fields);
    match answer.await {
        Ok(node) => {
            context.nodes.written(node);
            Ok(())
        }
        // The watch shows that.
        Err(error) if is_of_another(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Whether the Node is gone, or another one has its name: then the UID cannot be changed to that of the patch. Any other 409 is a lost race,
/// or a webhook's.
fn is_of_another(error: &Error) -> bool {
    match error.code() {
        Some(404) => true,
        Some(409) => error.to_string().contains("UID in precondition"),
        Some(422) => error.to_string().contains("metadata.uid"),
        Some(_) | None => false,
    }
}

/// The patch of one condition. It names the UID: another Node of the name is another instance.
fn fields(change: &Change, now: Time) -> Value {
    let condition = match &change.to {
        Some(NewCondition {
            type_,
            status,
            reason,
            message,
        }) => json!({
            "type": type_, "status": status.as_str(), "reason": reason, "message": message,
            "lastHeartbeatTime": now, "lastTransitionTime": change.since.as_ref().unwrap_or(&now),
        }),
        None => json!({"type": NODE_CONDITION, "$patch": "delete"}),
    };
    json!({"metadata": {"uid": change.uid}, "status": {"conditions": [condition]}})
}

/// Whether the operator has no right to any of the writes, rather than one of them having been refused.
fn is_missing_right(error: &Error) -> bool {
    error.code() == Some(403) && error.to_string().contains("cannot patch")
}

fn log(context: &Context, error: &Error) {
    if !is_missing_right(error) {
        if context.logged.is_first(&format!("node: {error}")) {
            warn!(
                kind = "Node",
                "{NODE_CONDITION} could not be written: {error}"
            );
        }
    } else if context.logged.is_first("nodes/status") {
        let retry_seconds = AFTER_REFUSAL.as_secs();
        warn!(kind = "Node", retry_seconds, "{}", explain(error));
    }
}

fn explain(error: &Error) -> String {
    format!(
        "the operator may not patch nodes/status, so that the condition {NODE_CONDITION} of Nodes stays as it is; the sets go on. Give its service account the verb patch on nodes/status (chart: operator.nodeConditions=true), or start it without --node-conditions: {error}"
    )
}

/// Whether the operator may write the condition.
///
/// # Errors
/// What to do, or why that is not known.
pub async fn check(client: kube::Client) -> Result<(), String> {
    let nodes: Api<Node> = Api::all(client);
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let patch = Patch::Strategic(json!({}));
    // The API server looks at the right before it looks for the Node.
    let answer = with_deadline(nodes.patch_status(NO_NODE, &params, &patch)).await;
    match answer {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(404) => Ok(()),
        Err(error) if is_missing_right(&error) => Err(explain(&error)),
        Err(error) => Err(error_chain(&error)),
    }
}

/// The name of no Node.
const NO_NODE: &str = "security-group-operator-check";
