//! What the process tells about itself: logs, metrics, `/livez`, `/readyz`, `/metrics`. No label is the name of an object, a
//! message, or any other text that a user typed, but for the name of a `ClusterCloudAccount`, which administrators make.

pub mod catalogue;
mod logs;
mod process;
mod state;

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
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
use prometheus_client::registry::{Metric, Registry};
use tokio::time::Instant;
use tracing::warn;

use crate::ecs::{Action, Class, Error, Region};

use self::catalogue::{PREFIX, described};
#[cfg(test)]
pub(crate) use self::logs::TestLog;
pub use self::logs::{LogFormat, start_logging};
use self::process::ProcessCollector;
pub use self::state::{Labels, Samples};
use self::state::{State, StateCollector};

/// The value of a label that stands for all values without series of their own.
pub const OTHER: &str = "other";

/// Metrics and readiness of the process. [`catalogue`] describes each metric.
#[derive(Debug)]
pub struct Telemetry {
    registry: Registry,
    calls: Family<CallLabels, Counter>,
    /// How many series it has.
    call_series: AtomicUsize,
    call_seconds: Family<ApiLabels, Histogram, fn() -> Histogram>,
    unknown_codes: Family<ApiLabels, Counter>,
    batch_size: Histogram,
    reconciles: Family<ReconcileLabels, Counter>,
    reconcile_seconds: Histogram,
    time_to_ready: Histogram,
    drifts: Family<ResultLabels, Counter>,
    status_writes: Family<ResultLabels, Counter>,
    dropped_events: Counter,
    missed_deletions: Counter,
    state: Arc<State>,
    /// Whether every object has been listed once.
    ready: AtomicBool,
    /// When each loop that must not end went on last.
    progress: Mutex<HashMap<String, Instant>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    api: &'static str,
    class: &'static str,
    code: &'static str,
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
struct ResultLabels {
    result: &'static str,
}

/// Series of the counter of calls. A call that would need one more is counted with the code and the region `other`.
const MOST_CALL_SERIES: usize = 400;

/// 15 buckets from 0.005 s, each twice the one before, up to 81.92 s: Join has 66 s.
fn seconds() -> Histogram {
    Histogram::new(exponential_buckets(0.005, 2.0, 15))
}

impl Default for Telemetry {
    fn default() -> Self {
        let mut all = Registry::default();
        all.register_collector(Box::new(ProcessCollector));
        let registry = all.sub_registry_with_prefix(PREFIX.trim_end_matches('_'));
        let build = Family::<[(&'static str, &'static str); 1], Gauge>::default();
        build
            .get_or_create(&[("version", env!("CARGO_PKG_VERSION"))])
            .set(1);
        registered(registry, "build_info", build);
        let state = Arc::new(State::new(registered(registry, "leader", Gauge::default())));
        registry.register_collector(Box::new(StateCollector(Arc::clone(&state))));
        let by_api = Family::new_with_constructor(seconds as fn() -> Histogram);
        let to_ready = [
            0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0,
        ];
        let sizes = [1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0];
        let (to_ready, sizes) = (Histogram::new(to_ready), Histogram::new(sizes));
        Self {
            call_series: AtomicUsize::new(0),
            calls: registered(registry, "cloud_calls_total", Family::default()),
            call_seconds: registered(registry, "cloud_call_duration_seconds", by_api),
            unknown_codes: registered(registry, "unknown_codes_total", Family::default()),
            batch_size: registered(registry, "batch_size", sizes),
            reconciles: registered(registry, "reconcile_total", Family::default()),
            reconcile_seconds: registered(registry, "reconcile_duration_seconds", seconds()),
            time_to_ready: registered(registry, "time_to_ready_seconds", to_ready),
            drifts: registered(registry, "drifts_total", Family::default()),
            status_writes: registered(registry, "status_writes_total", Family::default()),
            dropped_events: registered(registry, "events_dropped_total", Counter::default()),
            missed_deletions: registered(registry, "missed_deletions_total", Counter::default()),
            state,
            registry: all,
            ready: AtomicBool::new(false),
            progress: Mutex::default(),
        }
    }
}

/// Registers the metric with the help of its description. The encoder adds `_total` to a counter itself.
fn registered<M: Metric + Clone>(registry: &mut Registry, name: &str, metric: M) -> M {
    let help = described(name).map_or("", |metric| metric.help);
    let name = name.strip_suffix("_total").unwrap_or(name);
    registry.register(name, help, metric.clone());
    metric
}

impl Telemetry {
    /// Counts a call to the cloud, its time, and an unknown code.
    pub fn count_call(
        &self,
        action: Action,
        region: &Region,
        error: Option<&Error>,
        took: Duration,
    ) {
        let api = action.name();
        let mut labels = CallLabels {
            api,
            class: error.map_or("ok", |error| class_name(error.class())),
            code: error.map_or("none", Error::known_code),
            region: region.known_name().unwrap_or(OTHER),
        };
        if self.calls.get(&labels).is_none()
            && self.call_series.fetch_add(1, Ordering::Relaxed) >= MOST_CALL_SERIES
        {
            (labels.code, labels.region) = (OTHER, OTHER);
        }
        self.calls.get_or_create(&labels).inc();
        self.call_seconds
            .get_or_create(&ApiLabels { api })
            .observe(took.as_secs_f64());
        if error.is_some_and(|error| !error.classify().known) {
            self.unknown_codes.get_or_create(&ApiLabels { api }).inc();
        }
    }

    /// Records how many IDs a call names.
    #[expect(clippy::cast_precision_loss, reason = "at most 100")]
    pub fn note_batch(&self, ids: usize) {
        self.batch_size.observe(ids as f64);
    }

    /// Counts a pass over a membership.
    pub fn count_reconcile(&self, outcome: &'static str, took: Duration) {
        self.reconciles
            .get_or_create(&ReconcileLabels { outcome })
            .inc();
        self.reconcile_seconds.observe(took.as_secs_f64());
    }

    /// Records how long a membership that is Ready now was not.
    pub fn note_time_to_ready(&self, took: Duration) {
        self.time_to_ready.observe(took.as_secs_f64());
    }

    /// Counts a membership that another actor has removed, by what became of the repair.
    pub fn count_drift(&self, result: &'static str) {
        self.drifts.get_or_create(&ResultLabels { result }).inc();
    }

    /// Counts a write of a status. `refused` is the HTTP status with which the API server refused it; `None` in it if it gave no answer.
    pub fn count_status_write(&self, refused: Option<Option<u16>>) {
        let result = match refused {
            None => "ok",
            Some(Some(404)) => "gone",
            Some(Some(409)) => "conflict",
            Some(_) => "failed",
        };
        self.status_writes
            .get_or_create(&ResultLabels { result })
            .inc();
    }

    /// Where the gauges come from that tell of memberships and accounts. They are asked for by each scrape, at most once per second, while
    /// this process acts.
    pub fn set_source(&self, source: impl Fn() -> Samples + Send + Sync + 'static) {
        self.state.set_source(Box::new(source));
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
        self.state.leader.set(i64::from(leads));
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

    /// Records that this loop has ended as it should: it need not go on.
    pub fn ended(&self, what: &str) {
        let mut progress = self.progress.lock().unwrap_or_else(PoisonError::into_inner);
        progress.remove(what);
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
    pub(crate) fn render(&self, openmetrics: bool) -> String {
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

    /// One of each metric, but for those of the state that are not asked for.
    fn counted() -> Telemetry {
        let telemetry = Telemetry::default();
        let region = "cn-hangzhou".parse().unwrap();
        let took = Duration::from_millis(7);
        telemetry.count_call(Action::JoinSecurityGroup, &region, None, took);
        telemetry
            .unknown_codes
            .get_or_create(&ApiLabels { api: "Join" })
            .inc();
        telemetry.count_reconcile("ready", took);
        telemetry.count_drift("repaired");
        telemetry.count_status_write(None);
        telemetry.count_status_write(Some(Some(409)));
        telemetry.count_status_write(Some(None));
        telemetry.note_batch(100);
        telemetry.note_time_to_ready(Duration::from_secs(3));
        telemetry.count_dropped_event();
        telemetry.set_source(|| {
            let mut samples = Samples::default();
            for (account, count) in [("default", 2.0), ("namespaced", 1.0), ("namespaced", 3.0)] {
                let labels = vec![("account", account.to_owned())];
                samples.add("targets_not_observed", labels.clone(), count);
                samples.lowest("account_ready", labels, count);
            }
            samples.highest("oldest_deleting_seconds", Vec::new(), 1.5);
            samples
        });
        telemetry.set_leader(true);
        telemetry
    }

    /// Name and type of what the text describes.
    fn types(text: &str) -> Vec<(&str, &str)> {
        let lines = text.lines();
        let types = lines.filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
        types.collect()
    }

    #[test]
    fn what_is_counted_is_described_and_nothing_else() {
        let text = counted().render(false);
        for (name, kind) in types(&text) {
            let described = catalogue::METRICS.iter().find(|one| one.name == name);
            let described = described.unwrap_or_else(|| panic!("{name} is not described"));
            assert_eq!(
                format!("{:?}", described.kind).to_lowercase(),
                kind,
                "{name}"
            );
            let series = text.lines().filter(|line| {
                line.split(['{', ' ']).next() == Some(name)
                    || line.starts_with(&format!("{name}_bucket{{"))
            });
            for line in series {
                let labels = line.split_once('{').map_or("", |(_, rest)| rest);
                let keys = labels
                    .split("\",")
                    .filter_map(|label| label.split_once("=\""));
                let keys: Vec<&str> = keys.map(|(key, _)| key).collect();
                let known = |key: &str| {
                    key == "le" || described.labels.iter().any(|(label, _)| *label == key)
                };
                assert!(keys.iter().all(|key| known(key)), "{line}");
            }
        }
        let sorted = catalogue::METRICS.windows(2);
        for pair in sorted {
            assert_ne!(pair[0].name, pair[1].name);
        }
    }

    #[test]
    fn standby_tells_nothing_of_accounts() {
        let telemetry = counted();
        assert!(telemetry.render(false).contains("account_ready{"));
        telemetry.set_leader(false);
        let text = telemetry.render(false);
        assert!(text.contains("_leader 0\n") && !text.contains("account_ready"));
    }

    #[test]
    fn calls_have_a_bounded_number_of_series() {
        let telemetry = Telemetry::default();
        let regions = ["cn-hangzhou", "cn-beijing", "xx-invented"];
        telemetry
            .call_series
            .store(MOST_CALL_SERIES - 1, Ordering::Relaxed);
        for region in regions {
            let region = region.parse().unwrap();
            telemetry.count_call(Action::DescribeInstances, &region, None, Duration::ZERO);
        }
        let text = telemetry.render(false);
        let series = text
            .lines()
            .filter(|line| line.contains("cloud_calls_total{"));
        let series: Vec<&str> = series.collect();
        assert_eq!(series.len(), 2, "{series:?}");
        assert!(
            series
                .iter()
                .any(|one| one.contains("region=\"cn-hangzhou\""))
        );
        assert!(
            series
                .iter()
                .any(|one| one.ends_with("code=\"other\",region=\"other\"} 2"))
        );
    }

    #[test]
    fn classic_text_describes_each_sample_by_its_own_name() {
        let telemetry = counted();
        let openmetrics = telemetry.render(true);
        assert!(openmetrics.ends_with("# EOF\n"));
        let classic = telemetry.render(false);
        assert_eq!(types(&classic).len(), types(&openmetrics).len());
        let version = env!("CARGO_PKG_VERSION");
        for sample in [
            "cloud_calls_total{api=\"JoinSecurityGroup\",class=\"ok\",code=\"none\",region=\"cn-hangzhou\"} 1",
            "cloud_call_duration_seconds_bucket{le=\"+Inf\",api=\"JoinSecurityGroup\"} 1",
            "cloud_call_duration_seconds_bucket{le=\"81.92\",api=\"JoinSecurityGroup\"} 1",
            "cloud_call_duration_seconds_sum{api=\"JoinSecurityGroup\"} 0.007",
            "cloud_call_duration_seconds_count{api=\"JoinSecurityGroup\"} 1",
            "unknown_codes_total{api=\"Join\"} 1",
            "reconcile_total{outcome=\"ready\"} 1",
            "reconcile_duration_seconds_count 1",
            "batch_size_bucket{le=\"100.0\"} 1",
            "time_to_ready_seconds_sum 3.0",
            "drifts_total{result=\"repaired\"} 1",
            "status_writes_total{result=\"conflict\"} 1",
            "status_writes_total{result=\"failed\"} 1",
            "events_dropped_total 1",
            "leader 1",
            "targets_not_observed{account=\"default\"} 2.0",
            "targets_not_observed{account=\"namespaced\"} 4.0",
            "account_ready{account=\"namespaced\"} 1.0",
            "oldest_deleting_seconds 1.5",
            &format!("build_info{{version=\"{version}\"}} 1"),
        ] {
            let sample = format!("security_group_operator_{sample}");
            let found = classic.lines().any(|line| line == sample);
            assert!(found, "{sample}: {classic}");
        }
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
            let lines = text
                .lines()
                .filter(|line| !line.starts_with('#') && !line.starts_with("process_"));
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
