//! The cloud as the operator sees it: one client an account, typed methods, named errors.
//!
//! Nothing outside this module builds a URL, a signature or a query for the cloud. The only seam is [`Transport`]: reqwest
//! in production, the simulated cloud in process in a simulation.

pub mod client;
pub mod credential;
pub mod endpoint;
pub mod error;
pub mod id;
pub mod sign;
pub mod transport;

pub use client::{Client, Identity, NetworkInterface, Instance, TargetDescription, TargetState};
pub use credential::Credential;
pub use endpoint::Endpoints;
pub use error::{ApiError, Class, Error};
pub use id::{InstanceId, NetworkInterfaceId, ParseIdError, Region, SecurityGroupId, Target};
pub use transport::Transport;
