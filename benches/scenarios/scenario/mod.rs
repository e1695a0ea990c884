//! The scenarios, each a function of a stand. They do what a user or the world would do, and count what came of it.

pub mod apply;
pub mod delete;
pub mod keep;
pub mod limit;
pub mod memory;
pub mod pass;
pub mod poison;
