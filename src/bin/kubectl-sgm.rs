//! The plugin `kubectl sgm` as a process: its runtime and its exit code. No logic.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("kubectl sgm: {error}");
            return ExitCode::FAILURE;
        }
    };
    // Fails only if TLS is set up already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let code = runtime.block_on(security_group_operator::kubectl::run(std::env::args_os()));
    // A credential plugin or a name that is being resolved may take its time; the process does not wait for it.
    runtime.shutdown_background();
    code
}
