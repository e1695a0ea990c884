//! See `promises/window.rs`. Changes nothing.
#![no_main]

#[path = "../promises/mod.rs"]
mod promises;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| promises::window::hold(bytes));
