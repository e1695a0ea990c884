//! The support of the tests keeps what the tests take for granted: the control plane is a real one, the API server of the
//! simulation answers like it, and what a test starts ends with it.

#![allow(
    clippy::indexing_slicing,
    clippy::semicolon_if_nothing_returned,
    reason = "a test: what is missing shall fail it"
)]

#[path = "../support/api_server/mod.rs"]
mod api_server;
mod api_server_differs;
mod child_process;
mod control_plane;
mod go_programs;
#[path = "../support/mod.rs"]
mod support;
