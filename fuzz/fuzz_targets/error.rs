//! See `properties/error.rs`. Changes nothing.
#![no_main]

#[path = "../properties/mod.rs"]
mod properties;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| properties::error::hold(bytes));
