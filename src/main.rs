//! The process: arguments, log, signals, exit code. No other logic.

use std::io::Write as _;
use std::process::ExitCode;

use security_group_operator::args::{self, Settings, Task};
use security_group_operator::{api, operator, telemetry};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;
use tracing::info;

/// Saves a fifth of the CPU per edge compared with the C library's allocator, with the same memory: docs/benchmarks.md.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    keep_memory_private();
    let done = match args::parse() {
        Ok(Task::PrintCrds) => print_crds().map_err(|error| vec![error]),
        Ok(Task::Check(settings)) => look(operator::check(&settings)),
        Ok(Task::CheckUninstall(settings)) => look(operator::check_uninstall(&settings)),
        Ok(Task::Run(settings)) => run(*settings).map_err(|error| vec![error]),
        Err(error) => Err(vec![error]),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(errors) => {
            for error in errors {
                // Some errors contain a multi-line excerpt of a file; print one line.
                let words: Vec<&str> = error.split_whitespace().collect();
                eprintln!("security-group-operator: {}", words.join(" "));
            }
            ExitCode::FAILURE
        }
    }
}

/// Keys are in the memory: no core file shows it, and no other process of the same user reads it. Where the kernel refuses that, the
/// process works all the same.
#[cfg(target_os = "linux")]
fn keep_memory_private() {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    let none = Rlimit {
        current: Some(0),
        maximum: Some(0),
    };
    let _ = setrlimit(Resource::Core, none);
    let _ = set_dumpable_behavior(DumpableBehavior::NotDumpable);
}

#[cfg(not(target_os = "linux"))]
fn keep_memory_private() {}

/// Looks at the cluster and prints what was found.
fn look(check: impl Future<Output = Result<String, Vec<String>>>) -> Result<(), Vec<String>> {
    let prepared = start_tls().and_then(|()| runtime());
    let runtime = prepared.map_err(|error| vec![error])?;
    let found = runtime.block_on(check);
    runtime.shutdown_background();
    println!("{}", found?);
    Ok(())
}

fn start_tls() -> Result<(), String> {
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| "TLS is set up already".to_owned())
}

/// One thread: the work is mostly waiting, and moving it between threads costs more than it gains. With 4,000 new edges,
/// `make bench SCENARIO=S1` shows 1.1 ms of CPU per edge instead of 1.6 ms on two cores.
fn runtime() -> Result<Runtime, String> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| error.to_string())
}

fn print_crds() -> Result<(), String> {
    let yaml = api::crds_yaml().map_err(|error| error.to_string())?;
    std::io::stdout()
        .write_all(yaml.as_bytes())
        .map_err(|error| error.to_string())
}

fn run(settings: Settings) -> Result<(), String> {
    telemetry::start_logging(settings.log_format, &settings.log_filter)?;
    start_tls()?;
    let runtime = runtime()?;
    let ended = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
        let mut asked = async || {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let asked_twice = async {
            asked().await;
            drop(stop);
            info!("ends with the calls that are under way; a second signal ends it at once");
            asked().await;
        };
        tokio::select! {
            ended = operator::run(settings, async { let _ = stopped.await; }) => ended.map_err(|error| error.to_string()),
            () = asked_twice => Err("ended at once by a second signal; what was under way is taken up by the next start".to_owned()),
        }
    });
    // A name that is being resolved or a credential plugin may take its time; the process does not wait for it.
    runtime.shutdown_background();
    ended
}
