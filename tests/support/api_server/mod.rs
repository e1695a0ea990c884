//! An in-process API server behind a `kube::Client`, without a socket: the part of the API that the operator uses, in
//! tokio's time. Storage, verbs and watches behave like the real ones (`tests/support_checks/api_server_differs.rs` compares them
//! with a real kube-apiserver); a [`FaultPlan`] decides on faults.
//!
//! ```text
//! kube::Client ─▶ wire: Service, faults ─▶ request: routes, verbs ─▶ store: objects, revisions, log
//!                                           fields: who owns what      watch: the log as a stream
//! ```
#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::struct_field_names,
    missing_docs,
    reason = "test support: each test uses a part of it, and a fault of it shall fail the test"
)]

pub mod fields;
pub mod request;
pub mod schema;
pub mod store;
pub mod watch;
pub mod wire;

pub use request::{Reply, Verb};
pub use store::{ApiServer, Stored};
pub use wire::{Call, CallFault, FaultPlan, NoFaults, Refusal, Silence, WatchFault, client};
