//! An API server in process, behind a `kube::Client` and without a socket: the part of the API that the operator uses, in
//! tokio's time. Storage, verbs and watches are honest (`tests/api_server_differs.rs` compares them with a real
//! kube-apiserver); what goes wrong on the way is for a [`FaultPlan`] to say.
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
pub use wire::{Call, CallFault, FaultPlan, NoFaults, WatchFault, client};
