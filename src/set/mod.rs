//! The reconcile loop of `SecurityGroupMembershipSet`: one membership for each target of a selector.
//!
//! ```text
//! sets ──┐
//! nodes ─┼▶ select ─▶ plan ─▶ act ─▶ status
//! objects┘  pure      pure     creates, changes, deletes memberships
//! ```

mod act;
mod context;
mod controller;
mod known;
mod member;
mod members;
pub mod plan;
mod refusal;
pub mod select;
pub mod status;

pub use context::Context;
pub use controller::run;
pub use known::{SetObject, Sets};
pub use member::{Member, Policies, State, name_of};
pub use members::{Members, Tap};
pub use refusal::Refusal;
