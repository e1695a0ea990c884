//! What the process tells about itself: logs, metrics, `/livez`, `/readyz`, `/metrics`. No label is the name of an object, a
//! message, or any other text that a user typed, but for the name of a `ClusterCloudAccount`, which administrators make.

mod logs;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};
use tokio::time::Instant;
use tracing::warn;

use crate::ecs::{Action, Class, Error, Region};

#[cfg(test)]
pub(crate) use self::logs::TestLog;
pub use self::logs::{LogFormat, start_logging};

/// Metrics and readiness of the process.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    /// Counter `security_group_operator_ecs_calls_total`, labels:
    /// - `api`: an [`Action`], such as `JoinSecurityGroup`;
    /// - `class`: `ok`, `done`, `transitional`, `transient`, `throttled`, `absent`, `blocked` or `invalid`;
    /// - `region`: the region of the call if this version knows it, else `other`.
    calls: Family<CallLabels, Counter>,
    /// Histogram `security_group_operator_ecs_call_seconds` in seconds, label `api`. 14 buckets from 0.005 s, each twice the one
    /// before, up to 40.96 s. Longer calls (Join has 66 s) count in `+Inf` only.
    call_seconds: Family<ApiLabels, Histogram, fn() -> Histogram>,
    /// Counter `security_group_operator_ecs_unknown_codes_total`, label `api`.
    unknown_codes: Family<ApiLabels, Counter>,
    /// Counter `security_group_operator_reconcile_total`, label `outcome`: `undecided`, `gone`, `ready`, `repaired`, `suspended`,
    /// `waiting`, `observed`, `refused`, `drifted`, `absent`, `unsuitable`, `account` or `failed`.
    reconciles: Family<ReconcileLabels, Counter>,
    /// Gauge `security_group_operator_targets_not_observed`, label `account`: the name of a `ClusterCloudAccount`, or `namespaced` for
    /// all other accounts together.
    targets_not_observed: Family<AccountLabels, Gauge>,
    /// Counter `security_group_operator_dropped_events_total`, without labels.
    dropped_events: Counter,
    /// Gauge `security_group_operator_leader`, without labels: 1 in the process that acts, 0 in a standby.
    leader: Gauge,
    /// The accounts that have series.
    accounts: Mutex<HashSet<AccountLabels>>,
    /// Counter `security_group_operator_missed_deletions_total`, without labels.
    missed_deletions: Counter,
    /// Whether every object has been listed once.
    ready: AtomicBool,
    /// When each loop that must not end went on last.
    progress: Mutex<HashMap<String, Instant>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    api: &'static str,
    class: &'static str,
    region: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ApiLabels {
    api: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AccountLabels {
    account: String,
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("security_group_operator");
        let calls = registered(
            &mut registry,
            "ecs_calls",
            "Calls to the cloud by API, class of the answer and region",
        );
        let call_seconds = call_seconds(&mut registry);
        let unknown_codes = registered(
            &mut registry,
            "ecs_unknown_codes",
            "Answers with an error code that this version does not know; please report them",
        );
        let reconciles = registered(
            &mut registry,
            "reconcile",
            "Passes over a membership by outcome",
        );
        let targets_not_observed = registered(
            &mut registry,
            "targets_not_observed",
            "Targets that could not be read for three scan periods",
        );
        let dropped_events = registered(
            &mut registry,
            "dropped_events",
            "Kubernetes events that were not written: too many waited, or the API server refused them",
        );
        let leader = registered(
            &mut registry,
            "leader",
            "Whether this process acts: 1, or 0 in a standby",
        );
        let missed_deletions = registered(
            &mut registry,
            "missed_deletions",
            "Objects with the operator's finalizer that are gone and whose deletion the operator has not seen",
        );
        Self {
            registry,
            leader,
            calls,
            call_seconds,
            unknown_codes,
            reconciles,
            targets_not_observed,
            dropped_events,
            accounts: Mutex::default(),
            missed_deletions,
            ready: AtomicBool::new(false),
            progress: Mutex::default(),
        }
    }
}

/// The durations of calls, in 14 buckets.
fn call_seconds(registry: &mut Registry) -> Family<ApiLabels, Histogram, fn() -> Histogram> {
    let family: Family<ApiLabels, Histogram, fn() -> Histogram> =
        Family::new_with_constructor(|| Histogram::new(exponential_buckets(0.005, 2.0, 14)));
    registry.register_with_unit(
        "ecs_call",
        "Time of one call to the cloud",
        Unit::Seconds,
        family.clone(),
    );
    family
}

/// A new metric under this name.
fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

impl Telemetry {
    /// Counts a call to the cloud in `ecs_calls_total` and `ecs_call_seconds`, and an unknown code in `ecs_unknown_codes_total`.
    pub fn count_call(
        &self,
        action: Action,
        region: &Region,
        error: Option<&Error>,
        took: Duration,
    ) {
        let api = action.name();
        let labels = CallLabels {
            api,
            class: error.map_or("ok", |error| class_name(error.class())),
            region: region.known_name().unwrap_or("other"),
        };
        self.calls.get_or_create(&labels).inc();
        self.call_seconds
            .get_or_create(&ApiLabels { api })
            .observe(took.as_secs_f64());
        if error.is_some_and(|error| !error.classify().known) {
            self.unknown_codes.get_or_create(&ApiLabels { api }).inc();
        }
    }

    /// Counts a pass over a membership.
    pub fn count_reconcile(&self, outcome: &'static str) {
        self.reconciles
            .get_or_create(&ReconcileLabels { outcome })
            .inc();
    }

    /// Sets how many targets of each account could not be read for three scan periods. An account that is not named any more has
    /// no series.
    pub fn set_targets_not_observed<'a>(&self, counts: impl Iterator<Item = (&'a str, usize)>) {
        let mut sums = HashMap::<&str, i64>::new();
        for (account, count) in counts {
            *sums.entry(account).or_default() += i64::try_from(count).unwrap_or(i64::MAX);
        }
        let mut known = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        known.retain(|labels| {
            let stays = sums.contains_key(&*labels.account);
            if !stays {
                self.targets_not_observed.remove(labels);
            }
            stays
        });
        for (account, sum) in sums {
            let labels = AccountLabels {
                account: account.to_owned(),
            };
            self.targets_not_observed.get_or_create(&labels).set(sum);
            known.insert(labels);
        }
    }

    /// Counts an event that was dropped.
    pub fn count_dropped_event(&self) {
        self.dropped_events.inc();
    }

    /// Counts an object that is gone and whose deletion was not seen.
    pub fn count_missed_deletion(&self) {
        self.missed_deletions.inc();
    }

    /// Events that were dropped so far.
    #[must_use]
    pub fn dropped_events(&self) -> u64 {
        self.dropped_events.get()
    }

    /// Sets the metric `leader`.
    pub fn set_leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    /// Makes `/readyz` answer 200.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Records that a loop goes on which must not end while the process lives: a watch, or the housekeeping. From the first
    /// time on, `/livez` fails when it has not for `STANDSTILL` (5 minutes).
    pub fn went_on(&self, what: &str) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        match progress.get_mut(what) {
            Some(last) => *last = Instant::now(),
            None => {
                progress.insert(what.to_owned(), Instant::now());
            }
        }
    }

    /// What has not gone on for `STANDSTILL`.
    fn standing_still(&self) -> Vec<String> {
        let progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let still = progress
            .iter()
            .filter(|(_, last)| last.elapsed() >= STANDSTILL);
        still.map(|(what, _)| what.clone()).collect()
    }

    /// All metrics: in `OpenMetrics`, or in the classic text format.
    fn render(&self, openmetrics: bool) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = encode(&mut text, &self.registry);
        if openmetrics { text } else { classic(&text) }
    }
}

/// Longer than a watch is silent in the worst case: 235 s until kube gives it up, 30 s until the next one is answered or not,
/// 30 s of back-off.
const STANDSTILL: Duration = Duration::from_secs(5 * 60);

/// `OpenMetrics` as the classic text format (version 0.0.4): a counter is described under the name of its sample, and neither units
/// nor the end are marked.
fn classic(openmetrics: &str) -> String {
    let types: HashMap<&str, &str> = openmetrics
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '))
        .collect();
    let described = |line: &str| {
        let mut words = line.splitn(4, ' ');
        let (_, what, name, rest) = (words.next()?, words.next()?, words.next()?, words.next()?);
        let total = match types.get(name) {
            Some(&"counter") => "_total",
            Some(_) | None => "",
        };
        Some(format!("# {what} {name}{total} {rest}\n"))
    };
    openmetrics
        .lines()
        .filter(|line| !line.starts_with("# UNIT ") && *line != "# EOF")
        .map(|line| {
            let description = line.starts_with("# ").then(|| described(line)).flatten();
            description.unwrap_or_else(|| format!("{line}\n"))
        })
        .collect()
}

fn asks_for_openmetrics(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).into_iter();
    accepted
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| {
            let mut parts = range.split(';').map(str::trim);
            let is_openmetrics = parts
                .next()
                .is_some_and(|media| media.eq_ignore_ascii_case("application/openmetrics-text"));
            // A weight of zero is a refusal.
            let weight = parts.find_map(|part| part.strip_prefix("q="));
            is_openmetrics && weight.and_then(|weight| weight.parse::<f32>().ok()) != Some(0.0)
        })
}

const fn class_name(class: Class) -> &'static str {
    match class {
        Class::Done => "done",
        Class::Transitional => "transitional",
        Class::Transient => "transient",
        Class::Throttled => "throttled",
        Class::Absent => "absent",
        Class::Blocked => "blocked",
        Class::Invalid => "invalid",
    }
}

/// The routes `/livez`, `/readyz` and `/metrics`.
pub fn routes(telemetry: Arc<Telemetry>) -> Router {
    let (alive, ready) = (Arc::clone(&telemetry), Arc::clone(&telemetry));
    Router::new()
        .route(
            "/livez",
            get(move || async move {
                let still = alive.standing_still();
                if still.is_empty() {
                    return (StatusCode::OK, "ok".to_owned());
                }
                let message = format!("no progress for 5 minutes: {}", still.join(", "));
                warn!("{message}");
                (StatusCode::SERVICE_UNAVAILABLE, message)
            }),
        )
        .route(
            "/readyz",
            get(move || async move {
                if ready.ready.load(Ordering::Relaxed) {
                    (StatusCode::OK, "ok")
                } else {
                    (
                        StatusCode::SERVICE_UNAVAILABLE,
                        "the objects have not all been listed yet",
                    )
                }
            }),
        )
        .route(
            "/metrics",
            get(move |headers: HeaderMap| async move {
                let openmetrics = asks_for_openmetrics(&headers);
                let content_type = if openmetrics {
                    "application/openmetrics-text; version=1.0.0; charset=utf-8"
                } else {
                    "text/plain; version=0.0.4; charset=utf-8"
                };
                let text = telemetry.render(openmetrics);
                ([(header::CONTENT_TYPE, content_type)], text).into_response()
            }),
        )
}

#[cfg(test)]
mod tests {
    use tower::ServiceExt as _;

    use super::*;

    /// One of each metric.
    fn counted() -> Telemetry {
        let telemetry = Telemetry::default();
        let region = "cn-hangzhou".parse().unwrap();
        let took = Duration::from_millis(7);
        telemetry.count_call(Action::JoinSecurityGroup, &region, None, took);
        telemetry
            .unknown_codes
            .get_or_create(&ApiLabels { api: "Join" })
            .inc();
        telemetry.count_reconcile("ready");
        telemetry.count_dropped_event();
        let counts = [("gone", 7)];
        telemetry.set_targets_not_observed(counts.into_iter());
        let counts = [("default", 2), ("namespaced", 1), ("namespaced", 3)];
        telemetry.set_targets_not_observed(counts.into_iter());
        telemetry
    }

    #[test]
    fn classic_text_describes_each_sample_by_its_own_name() {
        let telemetry = counted();
        let openmetrics = telemetry.render(true);
        assert!(openmetrics.ends_with("# EOF\n") && openmetrics.contains("# UNIT "));
        let classic = telemetry.render(false);
        let mut types: Vec<&str> = classic
            .lines()
            .filter_map(|line| line.strip_prefix("# TYPE security_group_operator_"))
            .collect();
        types.sort_unstable();
        let expected = [
            "dropped_events_total counter",
            "ecs_call_seconds histogram",
            "ecs_calls_total counter",
            "ecs_unknown_codes_total counter",
            "leader gauge",
            "missed_deletions_total counter",
            "reconcile_total counter",
            "targets_not_observed gauge",
        ];
        assert_eq!(types, expected);
        for sample in [
            "ecs_calls_total{api=\"JoinSecurityGroup\",class=\"ok\",region=\"cn-hangzhou\"} 1",
            "ecs_call_seconds_bucket{le=\"+Inf\",api=\"JoinSecurityGroup\"} 1",
            "ecs_call_seconds_sum{api=\"JoinSecurityGroup\"} 0.007",
            "ecs_call_seconds_count{api=\"JoinSecurityGroup\"} 1",
            "ecs_unknown_codes_total{api=\"Join\"} 1",
            "reconcile_total{outcome=\"ready\"} 1",
            "dropped_events_total 1",
            "leader 0",
            "targets_not_observed{account=\"default\"} 2",
            "targets_not_observed{account=\"namespaced\"} 4",
        ] {
            let sample = format!("security_group_operator_{sample}");
            let found = classic.lines().any(|line| line == sample);
            assert!(found, "{sample}: {classic}");
        }
        assert!(!classic.contains("\"gone\""), "{classic}");
        // Samples stand below the HELP and the TYPE of their own family, and no other line is marked.
        let mut described = ("", "");
        for line in classic.lines() {
            let mut words = line.split(' ');
            match (words.next(), words.next(), words.next()) {
                (Some("#"), Some("HELP"), Some(name)) => described = (name, ""),
                (Some("#"), Some("TYPE"), Some(name)) => described.1 = name,
                (Some("#"), ..) => panic!("{line}"),
                (sample, ..) => {
                    let name = sample.unwrap().split('{').next().unwrap();
                    let family = ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|part| name.strip_suffix(part))
                        .unwrap_or(name);
                    assert_eq!(described, (family, family), "{line}");
                }
            }
        }
        // Samples are the same in both formats.
        let samples = |text: &str| -> Vec<String> {
            let lines = text.lines().filter(|line| !line.starts_with('#'));
            lines.map(str::to_owned).collect()
        };
        assert_eq!(samples(&classic), samples(&openmetrics));
    }

    #[tokio::test(start_paused = true)]
    async fn livez_fails_when_a_loop_stands_still() {
        let telemetry = Arc::new(Telemetry::default());
        let livez = async || {
            let request = axum::http::Request::get("/livez").body(axum::body::Body::empty());
            let answer = routes(Arc::clone(&telemetry)).oneshot(request.unwrap());
            let (parts, body) = answer.await.unwrap().into_parts();
            let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
            (
                parts.status.as_u16(),
                String::from_utf8(body.into()).unwrap(),
            )
        };
        let ok = (200, "ok".to_owned());
        tokio::time::advance(STANDSTILL).await;
        assert_eq!(livez().await, ok, "nothing has begun yet");
        telemetry.went_on("a");
        telemetry.went_on("b");
        tokio::time::advance(STANDSTILL.saturating_sub(Duration::from_secs(1))).await;
        telemetry.went_on("b");
        assert_eq!(livez().await, ok);
        tokio::time::advance(Duration::from_secs(1)).await;
        let still = "no progress for 5 minutes: a".to_owned();
        assert_eq!(livez().await, (503, still), "other loops do not count");
        telemetry.went_on("a");
        assert_eq!(livez().await, ok);
    }

    #[tokio::test]
    async fn metrics_are_classic_text_unless_openmetrics_is_asked_for() {
        let routes = routes(Arc::new(counted()));
        for (accept, openmetrics) in [
            (None, false),
            (Some("*/*"), false),
            (Some("text/plain;version=0.0.4"), false),
            (
                Some(
                    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.7,text/plain;version=0.0.4;q=0.3",
                ),
                false,
            ),
            (
                Some("text/plain, application/openmetrics-text;q=0.0"),
                false,
            ),
            (
                Some(
                    "application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1",
                ),
                true,
            ),
            (Some("text/plain, Application/OpenMetrics-Text"), true),
        ] {
            let mut request = axum::http::Request::get("/metrics");
            if let Some(accept) = accept {
                request = request.header(header::ACCEPT, accept);
            }
            let request = request.body(axum::body::Body::empty()).unwrap();
            let answer = routes.clone().oneshot(request).await.unwrap();
            let content_type = answer.headers()[header::CONTENT_TYPE].to_str().unwrap();
            let expected = if openmetrics {
                "application/openmetrics-text; version=1.0.0; charset=utf-8"
            } else {
                "text/plain; version=0.0.4; charset=utf-8"
            };
            assert_eq!(content_type, expected, "{accept:?}");
            let body = axum::body::to_bytes(answer.into_body(), usize::MAX)
                .await
                .unwrap();
            assert_eq!(body.ends_with(b"# EOF\n"), openmetrics, "{accept:?}");
        }
    }
}
