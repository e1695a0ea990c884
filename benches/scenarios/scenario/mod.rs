//! The scenarios, each a function of a bench run. They do what a user or the world would do, and count what came of it.

pub mod apply;
pub mod delete;
pub mod limit;
pub mod memory;
pub mod pass;
pub mod poison;
pub mod steady;
