//! What Linux tells of this process. Elsewhere there are no such metrics.

use std::fmt;
use std::fs;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::catalogue::METRICS;

/// Clock ticks per second in `/proc`: 100 on every architecture that Linux shows to programs.
const TICKS: f64 = 100.0;

/// Reads `/proc` when it is asked.
#[derive(Debug)]
pub(super) struct ProcessCollector;

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for (name, value) in [
            ("process_open_fds", open_files()),
            ("process_max_fds", most_files()),
            ("process_resident_memory_bytes", resident_bytes()),
            ("process_start_time_seconds", started_at()),
        ] {
            if let Some(value) = value {
                encoder
                    .encode_descriptor(name, help(name), None, MetricType::Gauge)?
                    .encode_gauge(&value)?;
            }
        }
        if let Some(seconds) = cpu_seconds() {
            let help = help("process_cpu_seconds_total");
            let name = "process_cpu_seconds";
            let sample = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            ConstCounter::new(seconds).encode(sample)?;
        }
        Ok(())
    }
}

fn help(name: &str) -> &'static str {
    let found = METRICS.iter().find(|metric| metric.name == name);
    found.map_or("", |metric| metric.help)
}

fn open_files() -> Option<f64> {
    let count = fs::read_dir("/proc/self/fd").ok()?.count();
    // Reading them opens one.
    u32::try_from(count.saturating_sub(1)).ok().map(f64::from)
}

fn most_files() -> Option<f64> {
    number_after("/proc/self/limits", "Max open files")
}

fn resident_bytes() -> Option<f64> {
    Some(number_after("/proc/self/status", "VmRSS:")? * 1024.0)
}

fn cpu_seconds() -> Option<f64> {
    Some((stat(14)? + stat(15)?) / TICKS)
}

fn started_at() -> Option<f64> {
    Some(number_after("/proc/stat", "btime")? + stat(22)? / TICKS)
}

/// The first number of the line that starts so.
fn number_after(path: &str, start: &str) -> Option<f64> {
    let text = fs::read_to_string(path).ok()?;
    let rest = text.lines().find_map(|line| line.strip_prefix(start))?;
    rest.split_whitespace().next()?.parse().ok()
}

/// A field of `/proc/self/stat`, counted from 1 as in proc(5). The second one, the name of the program, may hold spaces.
fn stat(field: usize) -> Option<f64> {
    let text = fs::read_to_string("/proc/self/stat").ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    let number = rest.split(' ').nth(field.checked_sub(3)?)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn process_is_measured() {
        let now = std::time::SystemTime::now();
        let now = now.duration_since(std::time::UNIX_EPOCH).unwrap();
        let age = now.as_secs_f64() - started_at().unwrap();
        assert!((-2.0..3600.0 * 24.0).contains(&age), "{age}");
        assert!(resident_bytes().unwrap() > 1024.0 * 1024.0);
        assert!(open_files().unwrap() >= 3.0);
        assert!(open_files() <= most_files());
        assert!(cpu_seconds().unwrap() >= 0.0);
    }
}
