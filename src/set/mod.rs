//! The reconcile loop of `SecurityGroupMembershipSet`: one membership for each target of a selector.
//!
//! ```text
//! sets ──┐
//! nodes ─┤
//! tags ──┼▶ select ─▶ plan ─▶ act ─▶ status
//! objects┘  pure      pure     creates, changes, deletes memberships
//! ```
//!
//! Beside it, [`node_condition`] says of each Node that sets select whether it is a member of their groups. Only where that is asked for.

pub mod access;
mod act;
mod batches;
mod context;
mod controller;
mod delete;
pub mod desired;
mod known;
mod look;
mod member;
mod members;
pub mod node_condition;
mod node_conditions;
mod node_set;
pub mod plan;
mod refusal;
pub mod select;
mod selected;
pub mod status;
mod tags;

pub use context::{Context, Passed};
pub use controller::run;
pub use known::{SetObject, Sets};
pub use member::{Member, Policies, State, controller_of, name_of};
pub use members::{Members, Tap};
pub use node_conditions::{check as check_node_conditions, run as write_node_conditions};
pub use node_set::NodeSet;
pub use refusal::Refusal;
pub use tags::InstanceTags;
