//! `make demo`, `make up` and `make down`: a control plane, a cloud and the operator on this machine. Arguments, signals and
//! exit codes; the parts are in the modules.

mod environment;
mod up;
mod walkthrough;

#[path = "../../tests/support/mod.rs"]
mod support;

use std::process::ExitCode;

use support::error::{Error, Result};
use tokio::signal::unix::{SignalKind, signal};

#[tokio::main]
async fn main() -> ExitCode {
    let argument = std::env::args().nth(1);
    let done = match argument.as_deref() {
        None => unless_stopped(Box::pin(walkthrough::run()), 130).await,
        Some("up") => unless_stopped(Box::pin(up::up()), 0).await,
        Some("down") => up::down().await.map(|()| 0),
        Some(other) => Err(Error::new(format!(
            "unknown argument {other}: say up, down, or nothing for the demo"
        ))),
    };
    match done {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            eprintln!("\ndemo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` until it ends or a signal stops this process, which then exits with `code`. In both cases everything that
/// `work` started has ended when this returns.
async fn unless_stopped(work: impl Future<Output = Result<()>>, code: u8) -> Result<u8> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let stopped = async {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    };
    tokio::select! {
        done = work => done.map(|()| 0),
        () = stopped => Ok(code),
    }
}
