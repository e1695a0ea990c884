//! The two account kinds: reads the credentials, calls STS for their identity, writes the account's status, and updates the
//! [`Directory`] in which memberships find their accounts. Knows no memberships: it reports [`Change`]s. Writes nothing to the
//! cloud.

pub mod as_user;
pub mod breaker;
pub mod change;
mod check;
mod context;
mod controller;
pub mod credentials;
pub mod directory;
pub mod group_tags;
mod in_use;
mod issued;
pub mod key;
mod kind;
pub mod limiters;
pub mod namespaces;
pub mod reach;
mod service_account;
pub mod session;
mod status;
pub mod uses;
mod write;

pub use context::Context;
pub use controller::run;
