//! The simulated cloud: every code of the vendor's pages, what the Describe calls show, its gateway, its process and its two
//! ports, its page, and the vendor's own SDKs against it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test ends where its fixture breaks"
)]

mod clients;
mod codes;
mod console;
mod describe;
mod gateway;
mod hosts;
mod process;
#[path = "../support/mod.rs"]
mod support;
mod vendor_sdk;
mod world;
