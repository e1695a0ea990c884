//! The reconcile loop of `SecurityGroupMembershipSet`: one membership for each target of a selector.
//!
//! ```text
//! sets ──┐
//! nodes ─┤
//! tags ──┼▶ select ─▶ plan ─▶ act ─▶ status
//! objects┘  pure      pure     creates, changes, deletes memberships
//! ```

pub mod access;
mod act;
mod context;
mod controller;
pub mod desired;
mod known;
mod member;
mod members;
pub mod plan;
mod refusal;
pub mod select;
mod selected;
pub mod status;
mod tags;

pub use context::Context;
pub use controller::run;
pub use known::{SetObject, Sets};
pub use member::{Member, Policies, State, controller_of, name_of};
pub use members::{Members, Tap};
pub use refusal::Refusal;
pub use tags::InstanceTags;
