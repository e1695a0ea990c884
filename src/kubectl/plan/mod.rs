//! `kubectl sgm plan`: what `kubectl apply` would do with files, and what the operator would do then. Writes nothing: the API server is
//! asked with `dryRun`, and the operator's own decision is asked with what the cloud shows now.
//!
//! ```text
//! files ─▶ apply (dryRun) ─▶ accounts, targets ─▶ forecast, one object after the other
//! ```

mod apply;
mod surroundings;

use std::path::PathBuf;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::reason;
use crate::condition;
use crate::ecs::Edge;
use crate::membership::decide::{ReconcileOutcome, Step};
use crate::membership::forecast::{Forecast, Known, forecast};

use self::apply::Applied;
use self::surroundings::Surroundings;
use super::cluster::Cluster;
use super::common::Common;
use super::failure::{Failure, exit};
use super::lint;
use super::output::{Report, column, counted, note, wide};

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm plan -f web.yaml
  kubectl sgm plan -f manifests/ -o wide          # with the message that the status would have
  kustomize build . | kubectl sgm plan -f -       # exit code 3 if a membership would not become Ready

It foresees what the API server, grants, policies and the target's own description say. It cannot foresee what only a Join \
meets: a limit of the cloud, a group that does not exist, a missing right of the account's key.";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Files and folders; - is standard input.
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

pub(super) async fn run(arguments: Arguments, common: &Common) -> Result<Report, Failure> {
    let mut texts = Vec::new();
    for file in &arguments.files {
        texts.extend(lint::read(file)?);
    }
    let files = lint::objects(&texts)?;
    let cluster = Cluster::connect(&common.cluster).await?;
    let applied = apply::dry_run(&cluster, &files).await?;
    let mut surroundings = Surroundings::read(&cluster, &files, &applied, &common.cloud).await?;
    let now = Timestamp::now();
    let planned: Vec<Planned> = applied
        .into_iter()
        .map(|applied| plan(applied, &mut surroundings, now))
        .collect();
    if files.foreign > 0 {
        note(&format!(
            "{} of other kinds not looked at",
            counted(files.foreign, "object")
        ));
    }
    Ok(report(&planned))
}

/// What becomes of one object of the files.
struct Planned {
    namespace: String,
    name: String,
    change: &'static str,
    calls: String,
    ready: String,
    reason: String,
    message: String,
    /// The exit code that it stands for.
    code: u8,
}

impl Planned {
    /// An object of which it is not known what would become of it.
    fn unknown(of: (&str, &str), change: &'static str, reason: &str, failure: Failure) -> Self {
        let (namespace, name) = of;
        Self {
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

/// Forecasts one object, and takes what it does as done for the next ones.
fn plan(applied: Applied, surroundings: &mut Surroundings, now: Timestamp) -> Planned {
    let Applied {
        namespace,
        name,
        result,
    } = applied;
    let of = (namespace.as_str(), name.as_str());
    let (change, object) = match result {
        Ok((change, object)) => (change.name(), object),
        Err(failure) => {
            let refused = Planned::unknown(of, "refused", "<none>", failure);
            return Planned {
                calls: "none".to_owned(),
                ..refused
            };
        }
    };
    let edge = match Edge::try_from(&object.spec) {
        Ok(edge) => edge,
        Err(error) => {
            let failure = Failure::with(exit::NO, error.to_string());
            return Planned::unknown(of, change, reason::INVALID_SPEC, failure);
        }
    };
    let target = match surroundings.target(&object, &edge) {
        Ok(target) => target,
        Err(Failure { code, message }) => {
            let failure = Failure::with(code, format!("the target cannot be read: {message}"));
            return Planned::unknown(of, change, "<none>", failure);
        }
    };
    let others = surroundings.others(&object, &edge);
    let known = Known {
        account: surroundings.account(&object),
        labels: surroundings.labels(&namespace),
        target: target.as_ref(),
        others: &others,
    };
    let found = forecast(&object, &edge, &known, now);
    let planned = forecasted(namespace, name, change, &found);
    surroundings.done(object, &edge, found);
    planned
}

/// What a forecast says.
fn forecasted(namespace: String, name: String, change: &'static str, found: &Forecast) -> Planned {
    let ready = condition::find(&found.status.conditions, reason::READY);
    let text = |pick: fn(&Condition) -> &String| ready.map(pick).cloned();
    let status = text(|ready| &ready.status).unwrap_or("Unknown".to_owned());
    Planned {
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

fn report(planned: &[Planned]) -> Report {
    let cells = |of: &Planned| {
        let Planned {
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
        [namespace, name, &change, calls, ready, reason, message]
            .map(Clone::clone)
            .to_vec()
    };
    let value = |of: &Planned| {
        json!({
            "namespace": of.namespace, "name": of.name, "change": of.change, "calls": of.calls,
            "ready": of.ready, "reason": of.reason, "message": of.message,
        })
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
        value: json!({"memberships": planned.iter().map(value).collect::<Vec<Value>>()}),
        code: planned.iter().map(|of| of.code).max().unwrap_or_default(),
        text: None,
    }
}
