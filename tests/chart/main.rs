//! How the operator gets into a cluster: `deploy/chart`, by Helm itself (what it renders, what it refuses, what its releases do on a
//! real API server), and the image.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod alerts;
mod helm;
mod image;
mod namespaced;
mod release;
mod render;
#[path = "../support/mod.rs"]
mod support;
mod walls;

const BINARY: &str = env!("CARGO_BIN_EXE_security-group-operator");
/// The release and its namespace, as the README installs them; also the name of the chart and of its objects.
const NAME: &str = "security-group-operator";
