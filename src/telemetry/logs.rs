//! The log of the process.

use clap::ValueEnum;
use tracing::Dispatch;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt as _;

/// Starts logging to standard error. `filter` is in the syntax of `RUST_LOG`.
///
/// # Errors
/// What is wrong with the filter.
pub fn start_logging(format: LogFormat, filter: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(filter).map_err(|error| format!("--log, RUST_LOG: {error}"))?;
    let subscriber = subscriber(format, filter, std::io::stderr);
    subscriber.try_init().map_err(|error| error.to_string())
}

/// Format of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One readable line an event.
    Text,
    /// One JSON object an event.
    Json,
}

fn subscriber<W>(format: LogFormat, filter: EnvFilter, writer: W) -> Dispatch
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer);
    match format {
        LogFormat::Text => builder.with_ansi(false).into(),
        // Fields are keys of the line itself, next to `message`.
        LogFormat::Json => builder.json().flatten_event(true).into(),
    }
}

/// What a test logs.
#[cfg(test)]
#[derive(Clone, Default)]
pub(crate) struct TestLog(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

#[cfg(test)]
impl TestLog {
    /// Starts the process's own JSON log for this thread, while the guard lives.
    pub(crate) fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let filter = EnvFilter::new("debug");
        let subscriber = subscriber(LogFormat::Json, filter, move || writer.clone());
        (log, tracing::dispatcher::set_default(&subscriber))
    }

    /// The lines of the crate's own modules so far.
    pub(crate) fn lines(&self) -> Vec<serde_json::Value> {
        let bytes = self.0.lock().unwrap().clone();
        let lines = serde_json::Deserializer::from_slice(&bytes).into_iter();
        lines
            .map(|line: Result<serde_json::Value, _>| line.unwrap())
            .filter(|line| {
                let target = line["target"].as_str().unwrap();
                target.starts_with("security_group_operator")
            })
            .collect()
    }
}

#[cfg(test)]
impl std::io::Write for TestLog {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
