//! The scenarios, each a function of a bench run. They perform the actions of users or of the cloud, and count the results.

pub mod apply;
pub mod crowd;
pub mod dashboard;
pub mod delete;
pub mod limit;
pub mod memory;
pub mod pass;
pub mod poison;
pub mod scrape;
pub mod set;
pub mod steady;
pub mod takeover;
