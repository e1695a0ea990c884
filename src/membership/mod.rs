//! The loop over `SecurityGroupMembership`.
//!
//! ```text
//! watch ─▶ observe ─▶ decide ─▶ act ─▶ … until nothing is left to do ─▶ status ─▶ requeue
//!          reads      pure      one effect                              one patch, if it differs
//! ```
//!
//! A pass runs until [`decide::decide`] returns [`decide::Step::Finish`]. A new edge thus needs one pass and not four round trips
//! of the watch. Our own writes start no pass: the watch passes on only changes that users make.

mod access;
mod act;
pub mod admission;
mod conclusion;
mod context;
mod controller;
pub mod decide;
mod edge_list;
pub mod forecast;
mod history;
pub mod housekeeping;
mod invalid_spec;
pub mod ledger;
pub mod metrics;
pub mod object;
pub mod observation;
pub mod observe;
mod other_operator;
mod others;
mod overdue;
mod packed;
mod pass;
mod pass_access;
mod progress;
pub mod queue;
mod refusal;
pub mod repairs;
mod resume;
pub mod scan;
mod shutdown;
pub mod status;
pub mod table;
mod target;
pub mod unreleased;
pub mod view;

pub use self::context::{Context, ReadPeriods};
pub use self::controller::run;
pub use self::history::{ClaimEvent, Standing};
