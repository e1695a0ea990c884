//! The loop over `SecurityGroupMembership`.
//!
//! ```text
//! watch ─▶ observe ─▶ decide ─▶ act ─▶ … until nothing is left to do ─▶ status ─▶ requeue
//!          reads      pure      one effect                              one patch, if it differs
//! ```
//!
//! A pass runs until [`decide::decide`] says [`decide::Step::Finish`], so that a new edge needs one pass and not four round trips of
//! the watch. Our own writes start no pass: the watch is filtered by what a user can change.

mod act;
mod context;
mod controller;
pub mod decide;
mod history;
pub mod housekeeping;
pub mod index;
pub mod locks;
pub mod object;
pub mod observation;
pub mod observe;
mod pass;
pub mod queue;
pub mod scan;
pub mod status;
pub mod turn;

pub use self::context::Context;
pub use self::controller::run;
