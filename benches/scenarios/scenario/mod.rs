//! The scenarios, each a function of a stand. They do what a user or the world would do, and count what came of it.

pub mod apply;
