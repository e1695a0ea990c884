//! The rows of a plan: what becomes of one object, and how it is printed. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde_json::{Value, json};

use crate::api::reason;
use crate::condition;
use crate::membership::decide::{ReconcileOutcome, Step};
use crate::membership::forecast::Forecast;

use super::super::failure::{Failure, exit};
use super::super::output::{Report, column, note, wide};

/// What becomes of one object.
pub(super) struct Planned {
    /// The set that the object is of, or that it is.
    pub(super) set: Option<String>,
    /// Whether it is a set.
    pub(super) is_set: bool,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) change: &'static str,
    pub(super) calls: String,
    pub(super) ready: String,
    pub(super) reason: String,
    pub(super) message: String,
    /// The exit code that it stands for.
    pub(super) code: u8,
}

impl Planned {
    /// An object of which it is not known what would become of it.
    pub(super) fn unknown(
        of: (&str, &str),
        change: &'static str,
        reason: &str,
        failure: Failure,
    ) -> Self {
        let (namespace, name) = of;
        Self {
            set: None,
            is_set: false,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            change,
            calls: "unknown".to_owned(),
            ready: "Unknown".to_owned(),
            reason: reason.to_owned(),
            message: failure.message,
            code: failure.code,
        }
    }
}

/// What a forecast says.
pub(super) fn forecasted(
    namespace: String,
    name: String,
    change: &'static str,
    found: &Forecast,
) -> Planned {
    let ready = condition::find(&found.status.conditions, reason::READY);
    let text = |pick: fn(&Condition) -> &String| ready.map(pick).cloned();
    let status = text(|ready| &ready.status).unwrap_or("Unknown".to_owned());
    Planned {
        set: None,
        is_set: false,
        namespace,
        name,
        change,
        calls: calls(found),
        code: if status == "True" { 0 } else { exit::NO },
        ready: status,
        reason: told_reason(found, text(|ready| &ready.reason).as_deref()),
        message: text(|ready| &ready.message).unwrap_or_default(),
    }
}

/// The reason of Ready, or of the suspension: Ready stays as it is then.
fn told_reason(found: &Forecast, ready: Option<&str>) -> String {
    if found.outcome == ReconcileOutcome::Suspended {
        return reason::SUSPENDED.to_owned();
    }
    ready.unwrap_or("<none>").to_owned()
}

/// The calls that change the cloud.
fn calls(found: &Forecast) -> String {
    let calls = [
        (Step::Join, "JoinSecurityGroup"),
        (Step::Leave, "LeaveSecurityGroup"),
    ];
    let made = calls.into_iter().filter(|(step, _)| found.does(*step));
    let made: Vec<&str> = made.map(|(_, name)| name).collect();
    if made.is_empty() {
        "none".to_owned()
    } else {
        made.join(",")
    }
}

pub(super) fn report(planned: &[Planned]) -> Report {
    let cells = |of: &Planned| {
        let Planned {
            set: _,
            is_set,
            namespace,
            name,
            change,
            calls,
            ready,
            reason,
            message,
            code: _,
        } = of;
        let change = (*change).to_owned();
        let name = if *is_set {
            format!("sgmset/{name}")
        } else {
            name.clone()
        };
        [namespace, &name, &change, calls, ready, reason, message]
            .map(Clone::clone)
            .to_vec()
    };
    let value = |of: &Planned| {
        json!({
            "namespace": of.namespace, "name": of.name, "set": of.set, "change": of.change, "calls": of.calls,
            "ready": of.ready, "reason": of.reason, "message": of.message,
        })
    };
    let values = |sets: bool| -> Vec<Value> {
        let of = planned.iter().filter(|of| of.is_set == sets);
        of.map(value).collect()
    };
    // Those without a forecast.
    let unknown = |of: &&Planned| of.change == "refused" || of.calls == "unknown";
    for of in planned.iter().filter(unknown) {
        note(&format!("{}/{}: {}", of.namespace, of.name, of.message));
    }
    Report {
        columns: vec![
            column("NAMESPACE"),
            column("NAME"),
            column("APPLY"),
            column("CALLS"),
            column("READY"),
            column("REASON"),
            wide("MESSAGE"),
        ],
        rows: planned.iter().map(cells).collect(),
        names: planned
            .iter()
            .map(|of| format!("{}/{}", of.namespace, of.name))
            .collect(),
        value: json!({"memberships": values(false), "sets": values(true)}),
        code: planned.iter().map(|of| of.code).max().unwrap_or_default(),
        text: None,
    }
}
