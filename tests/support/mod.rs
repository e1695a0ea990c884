//! What the end-to-end tests, the benchmarks and the demo run on: a real control plane, the operator's own
//! binary, the simulated cloud, and kstatus, each a child process that dies with the process that started it.
//! Knows nothing of what is tested.
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
pub mod eventually;
pub mod kstatus;
pub mod operator;
pub mod port;
pub mod process;
pub mod simulator;
pub mod tempdir;

/// Chooses the process's TLS provider; must come before the first client, and may come again.
pub fn install_crypto() {
    // An error says that one is installed already, which is all that is wanted.
    let _ = rustls::crypto::ring::default_provider().install_default();
}
