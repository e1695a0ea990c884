//! The gauges that are computed from the state of the process when they are asked for. Keeps no count of its own.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::Gauge;
use tokio::time::Instant;

use super::catalogue::described;

/// The labels of a sample, with their values.
pub type Labels = Vec<(&'static str, String)>;

/// The values of gauges by name without the prefix, then by labels.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<&'static str, BTreeMap<Labels, f64>>);

impl Samples {
    /// Adds to a value.
    pub fn add(&mut self, metric: &'static str, labels: Labels, value: f64) {
        *self.of(metric).entry(labels).or_default() += value;
    }

    /// Keeps the lower one of the known value and this one.
    pub fn lowest(&mut self, metric: &'static str, labels: Labels, value: f64) {
        let known = self.of(metric).entry(labels).or_insert(value);
        *known = known.min(value);
    }

    /// Keeps the higher one of the known value and this one.
    pub fn highest(&mut self, metric: &'static str, labels: Labels, value: f64) {
        let known = self.of(metric).entry(labels).or_insert(value);
        *known = known.max(value);
    }

    fn of(&mut self, metric: &'static str) -> &mut BTreeMap<Labels, f64> {
        self.0.entry(metric).or_default()
    }
}

/// A scraper that asks all the time makes the operator compute the values once per second.
const KEPT_FOR: Duration = Duration::from_secs(1);

type Source = Box<dyn Fn() -> Samples + Send + Sync>;

/// Asks the source, if this process acts.
pub(super) struct State {
    pub(super) leader: Gauge,
    source: Mutex<Option<Source>>,
    last: Mutex<Option<(Instant, Samples)>>,
}

impl State {
    pub(super) fn new(leader: Gauge) -> Self {
        Self {
            leader,
            source: Mutex::default(),
            last: Mutex::default(),
        }
    }

    pub(super) fn set_source(&self, source: Source) {
        *self.source.lock().unwrap_or_else(PoisonError::into_inner) = Some(source);
    }

    fn samples(&self) -> Samples {
        if self.leader.get() == 0 {
            return Samples::default();
        }
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, samples)) = &*last
            && at.elapsed() < KEPT_FOR
        {
            return samples.clone();
        }
        let source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        let samples = source.as_ref().map(|ask| ask()).unwrap_or_default();
        *last = Some((Instant::now(), samples.clone()));
        samples
    }
}

impl fmt::Debug for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("State").finish_non_exhaustive()
    }
}

/// Encodes the samples of the state.
#[derive(Debug)]
pub(super) struct StateCollector(pub(super) Arc<State>);

impl Collector for StateCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (name, samples) in self.0.samples().0 {
            let help = described(name).map_or("", |metric| metric.help);
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            for (labels, value) in samples {
                if labels.is_empty() {
                    family.encode_gauge(&value)?;
                } else {
                    family.encode_family(&labels)?.encode_gauge(&value)?;
                }
            }
        }
        Ok(())
    }
}
