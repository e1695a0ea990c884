//! The environment of the end-to-end tests, the benchmarks and the demo: a real control plane, the operator's own binary,
//! the simulated cloud, and kstatus, each a child process that ends with its parent process. Knows nothing of the tests.
#![allow(
    dead_code,
    reason = "each test binary compiles this module for itself and uses a part of it"
)]

pub mod assets;
pub mod audit;
pub mod bulk;
pub mod control_plane;
pub mod env;
pub mod error;
pub mod error_codes;
pub mod eventually;
pub mod kstatus;
pub mod operator;
pub mod port;
pub mod process;
pub mod prometheus;
pub mod sets;
pub mod simulator;
pub mod tempdir;

/// Installs the process's TLS provider; must run before the first client and may run again.
pub fn install_crypto() {
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
