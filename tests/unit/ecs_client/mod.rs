//! The cloud's client against real sockets: what it sends, and that no answer, however bad, is taken for what it is not.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

mod codes;
mod describe;
#[path = "../../support/error_codes.rs"]
mod error_codes;
mod hostile;
#[cfg(target_os = "linux")]
mod memory;
mod private_cloud;
mod redaction;
mod server;
mod wire;
