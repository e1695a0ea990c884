//! What the reports of `why` have in common: Ready, ages, conditions, advice, objects as JSON. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::api::membership::LastError;
use crate::api::{SecurityGroupMembership, SecurityGroupMembershipSet, reason};
use crate::condition;
use crate::ecs::Action;
use crate::ecs::error_table::classify;

use super::super::output::age;

pub(super) fn ready(object: &SecurityGroupMembership) -> Option<&Condition> {
    let status = object.status.as_ref()?;
    condition::find(&status.conditions, reason::READY)
}

pub(super) fn ready_of(set: &SecurityGroupMembershipSet) -> Option<&Condition> {
    let status = set.status.as_ref()?;
    condition::find(&status.conditions, reason::READY)
}

pub(super) fn summary(object: &SecurityGroupMembership) -> Value {
    json!({"namespace": object.namespace(), "name": object.name_any(), "spec": object.spec, "ready": ready(object)})
}

/// How long a condition has been as it is; nothing where the API server's default stands.
pub(super) fn since(condition: &Condition, now: Timestamp) -> String {
    let then = condition.last_transition_time.0;
    if then.as_second() == 0 {
        return String::new();
    }
    age(then, now)
}

/// The advice of the error table for an error in a status.
pub(super) fn advice(error: &LastError) -> Option<&'static str> {
    let actions = [
        Action::JoinSecurityGroup,
        Action::LeaveSecurityGroup,
        Action::DescribeInstances,
        Action::DescribeNetworkInterfaces,
    ];
    let action = actions
        .into_iter()
        .find(|action| action.name() == error.action)?;
    let code = error.code.as_deref()?;
    Some(classify(action, 400, code, &error.message).hint)
}

/// A line for each condition, and its message where no line before says it.
pub(super) fn condition_lines(
    conditions: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
    line: &mut impl FnMut(&str, &str),
) {
    for condition in conditions {
        let since = since(condition, now);
        let since = if since.is_empty() {
            since
        } else {
            format!(", for {since}")
        };
        let old = match (condition.observed_generation, generation) {
            (Some(seen), Some(now)) if seen < now => ", of an older spec",
            _ => "",
        };
        line(
            &condition.type_,
            &format!("{} {}{since}{old}", condition.status, condition.reason),
        );
        let is_told = condition.type_ == reason::READY
            || condition.status == "True" && {
                let ready = condition::find(conditions, reason::READY);
                ready.is_none_or(|ready| ready.message != condition.message)
            };
        if is_told {
            line("", &condition.message);
        }
    }
}
