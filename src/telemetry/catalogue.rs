//! The names, types, labels and meanings of all metrics. `docs/reference/metrics.md` is made from this list. Pure data.

/// What a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It only grows, and begins at 0 with the process.
    Counter,
    /// A value that goes up and down.
    Gauge,
    /// Counts of observed values by size.
    Histogram,
}

/// One metric.
#[derive(Clone, Copy, Debug)]
pub struct Description {
    /// The name as Prometheus stores it, without the parts that a histogram adds.
    pub name: &'static str,
    /// What it is.
    pub kind: Kind,
    /// The unit of its values; `None` for a plain number.
    pub unit: Option<&'static str>,
    /// The labels, each with its values.
    pub labels: &'static [(&'static str, &'static str)],
    /// What it says.
    pub help: &'static str,
}

/// The prefix of the operator's own metrics.
pub const PREFIX: &str = "security_group_operator_";

const ACCOUNT: (&str, &str) = (
    "account",
    "name of a ClusterCloudAccount, of which the first 29 by name have series; `namespaced` for all CloudAccounts together; `other` for every other account",
);
const API: (&str, &str) = ("api", "an action of the cloud, such as `JoinSecurityGroup`");
const REGION: (&str, &str) = (
    "region",
    "a region that this version knows, such as `cn-hangzhou`, else `other`",
);
const ERROR_CLASS: (&str, &str) = (
    "class",
    "class of `status.lastError` in lower case: `transitional`, `transient`, `throttled`, `absent`, `blocked` or `invalid`; `none` without one",
);

type LabelTexts = &'static [(&'static str, &'static str)];

const fn counter(name: &'static str, labels: LabelTexts, help: &'static str) -> Description {
    metric(Kind::Counter, name, None, labels, help)
}

const fn gauge(
    name: &'static str,
    unit: Option<&'static str>,
    labels: LabelTexts,
    help: &'static str,
) -> Description {
    metric(Kind::Gauge, name, unit, labels, help)
}

const fn histogram(
    name: &'static str,
    unit: Option<&'static str>,
    labels: LabelTexts,
    help: &'static str,
) -> Description {
    metric(Kind::Histogram, name, unit, labels, help)
}

const fn metric(
    kind: Kind,
    name: &'static str,
    unit: Option<&'static str>,
    labels: LabelTexts,
    help: &'static str,
) -> Description {
    Description {
        name,
        kind,
        unit,
        labels,
        help,
    }
}

const SECONDS: Option<&str> = Some("seconds");
const TIMESTAMP: Option<&str> = Some("seconds since 1970");

/// Every metric of `/metrics`, by name.
pub const METRICS: &[Description] = &[
    gauge(
        "process_max_fds",
        None,
        &[],
        "File descriptors that the process may open",
    ),
    gauge(
        "process_open_fds",
        None,
        &[],
        "File descriptors that the process has open",
    ),
    gauge(
        "process_resident_memory_bytes",
        Some("bytes"),
        &[],
        "Memory of the process that is resident",
    ),
    gauge(
        "process_start_time_seconds",
        TIMESTAMP,
        &[],
        "Start of the process",
    ),
    metric(
        Kind::Counter,
        "process_cpu_seconds_total",
        SECONDS,
        &[],
        "CPU time of the process in user and system mode",
    ),
    gauge(
        "security_group_operator_account_reachable",
        None,
        &[ACCOUNT],
        "1 if the calls of the account get usable answers, else 0; of several accounts the lowest",
    ),
    gauge(
        "security_group_operator_account_ready",
        None,
        &[ACCOUNT],
        "1 if the account can be used, else 0; of several accounts the lowest",
    ),
    gauge(
        "security_group_operator_admission_oldest_seconds",
        SECONDS,
        &[],
        "How long the membership that has waited longest for its pass has waited; 0 if none waits",
    ),
    gauge(
        "security_group_operator_admission_waiting",
        None,
        &[(
            "state",
            "what it waits for: `slot` among the passes in flight, `call` that the rate limit admits, or `target` of another pass in flight",
        )],
        "Memberships that wait for a pass",
    ),
    histogram(
        "security_group_operator_batch_size",
        None,
        &[],
        "IDs in one call that describes targets",
    ),
    gauge(
        "security_group_operator_build_info",
        None,
        &[("version", "version of the operator")],
        "Always 1",
    ),
    histogram(
        "security_group_operator_cloud_call_duration_seconds",
        SECONDS,
        &[API],
        "Time of one call to the cloud",
    ),
    counter(
        "security_group_operator_cloud_calls_total",
        &[
            API,
            (
                "class",
                "`ok`, or the class of the error: `done`, `transitional`, `transient`, `throttled`, `absent`, `blocked` or `invalid`",
            ),
            (
                "code",
                "the error code if this version knows it, else `other`; `none` without an error, `NoAnswer` or `BadAnswer` without a usable answer",
            ),
            REGION,
        ],
        "Calls to the cloud by API, answer and region. At most 400 series with a code and a region: a call that needs one more is counted with the code and the region `other`",
    ),
    gauge(
        "security_group_operator_credential_expiry_timestamp_seconds",
        TIMESTAMP,
        &[ACCOUNT],
        "End of the temporary key of the account; of several accounts the earliest; no series for keys without an end",
    ),
    counter(
        "security_group_operator_drifts_total",
        &[(
            "result",
            "`repaired`, or `failed` once until the next repair",
        )],
        "Memberships that another actor has removed, by what became of the repair",
    ),
    counter(
        "security_group_operator_events_dropped_total",
        &[],
        "Kubernetes events that were not written: too many waited, or the API server refused them",
    ),
    gauge(
        "security_group_operator_last_scan_timestamp_seconds",
        TIMESTAMP,
        &[ACCOUNT, REGION],
        "End of the last scan that has read all targets, or the start of the scans before there was one; of several scans the earliest. At most 180 series: the earliest of all others is `other`, `other`",
    ),
    gauge(
        "security_group_operator_leader",
        None,
        &[],
        "Whether this process acts: 1, or 0 in a standby",
    ),
    gauge(
        "security_group_operator_memberships",
        None,
        &[
            ACCOUNT,
            (
                "ready",
                "status of the condition Ready: `True`, `False` or `Unknown`; `Unknown` without one",
            ),
            ERROR_CLASS,
        ],
        "Memberships by account, Ready and last error",
    ),
    counter(
        "security_group_operator_missed_deletions_total",
        &[],
        "Objects with the operator's finalizer that are gone and whose deletion the operator has not seen; the log names each one",
    ),
    gauge(
        "security_group_operator_oldest_deleting_seconds",
        SECONDS,
        &[],
        "How long ago the membership that has waited longest for the end of its deletion was deleted; 0 if none is being deleted",
    ),
    gauge(
        "security_group_operator_oldest_unready_seconds",
        SECONDS,
        &[ERROR_CLASS],
        "How long the membership that has been not Ready longest has been so, without those that are suspended or being deleted; no series if there is none",
    ),
    gauge(
        "security_group_operator_rate_limit_per_minute",
        Some("calls per minute"),
        &[API, REGION],
        "Limit that the operator has learned from the cloud; of several cloud accounts the lowest; no series if no limit was met",
    ),
    histogram(
        "security_group_operator_reconcile_duration_seconds",
        SECONDS,
        &[],
        "Time of one pass over a membership, with its calls",
    ),
    counter(
        "security_group_operator_reconcile_total",
        &[(
            "outcome",
            "`undecided`, `unsettled`, `gone`, `ready`, `repaired`, `suspended`, `waiting`, `observed`, `refused`, `drifted`, `absent`, `unsuitable`, `account`, `write_refused` or `failed`",
        )],
        "Passes over a membership by outcome",
    ),
    gauge(
        "security_group_operator_repair_loops",
        None,
        &[],
        "Targets that other actors remove from a group again and again: the operator repairs each once per hour only",
    ),
    gauge(
        "security_group_operator_scan_period_seconds",
        SECONDS,
        &[],
        "How often scans read all targets (`--scan-period`)",
    ),
    counter(
        "security_group_operator_status_writes_total",
        &[("result", "`ok`, `conflict`, `gone` or `failed`")],
        "Writes of the status of memberships, accounts and sets by result",
    ),
    gauge(
        "security_group_operator_targets_not_observed",
        None,
        &[ACCOUNT],
        "Targets that could not be read for three scan periods",
    ),
    histogram(
        "security_group_operator_time_to_ready_seconds",
        SECONDS,
        &[],
        "Time until a membership was Ready, from its creation or from when it was Ready last, as far as this process knows",
    ),
    counter(
        "security_group_operator_unknown_codes_total",
        &[API],
        "Answers with an error code that this version does not know; please report them",
    ),
];

/// The description of a metric of the operator, by its name without the prefix.
pub(super) fn described(name: &str) -> Option<&'static Description> {
    METRICS
        .iter()
        .find(|metric| metric.name.strip_prefix(PREFIX) == Some(name))
}

/// `docs/reference/metrics.md`.
#[must_use]
pub fn page() -> String {
    let mut page = String::from(
        "# Metrics\n\nGenerated from src/telemetry/catalogue.rs by `make manifests`; do not edit.\n\n`/metrics` answers in the classic Prometheus text format, or in OpenMetrics if the request asks for it. No label is a text that a\ntenant has typed. There are fewer than 2,000 series, however many objects, labels, accounts and regions there are: a test counts them\nwith 1,000 regions, 10,000 accounts and objects with 500 labels. A standby has no series that tell of memberships or accounts.\n",
    );
    for metric in METRICS {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let unit = metric.unit.map(|unit| format!(", in {unit}"));
        page.extend([
            "\n## `",
            metric.name,
            "`\n\nA ",
            kind,
            &unit.unwrap_or_default(),
            ". ",
            metric.help,
            ".\n",
        ]);
        if !metric.labels.is_empty() {
            page.push('\n');
        }
        for (label, values) in metric.labels {
            page.extend(["- `", label, "`: ", values, "\n"]);
        }
    }
    page
}
