//! The cloud API for the operator: one client per account, typed methods, named errors.
//!
//! Only this module builds URLs, signatures or queries for the cloud. The only seam is [`Transport`]: reqwest in production,
//! the in-process simulated cloud in a simulation.
//!
//! ```text
//! Client ─▶ request (pure: parameters, signature) ─▶ Transport ─▶ response (pure: a value, or a named Error) ─▶ description
//! ```

pub mod access_key;
pub mod action;
mod authorities;
pub mod batch;
mod body;
pub mod class;
pub mod client;
pub mod credential;
mod description;
pub mod docs_url;
mod edge;
pub mod endpoint;
pub mod error;
pub mod error_table;
pub mod id;
pub mod limit;
pub mod members;
mod proxies;
mod redact;
pub mod region;
mod request;
mod response;
mod row;
pub mod sign;
#[cfg(test)]
mod test_transport;
pub mod transport;

pub use access_key::{Credential, CredentialError};
pub use action::{Action, MAX_IDS_PER_CALL};
pub use authorities::Authorities;
pub use class::{Class, Retry};
pub use client::{Client, Identity};
pub use description::{Tags, TargetDescription, TargetState};
pub use docs_url::DocsUrl;
pub use edge::Edge;
pub use endpoint::{EndpointError, Endpoints};
pub use error::{ApiError, Error};
pub use error_table::Classification;
pub use id::{
    AccountUid, InstanceId, NetworkInterfaceId, ParseIdError, Region, RequestId, SecurityGroupId,
    Target,
};
pub use members::TargetsPage;
pub use proxies::Proxies;
#[cfg(test)]
pub(crate) use test_transport::{TestTransport, test_answer, test_parameters};
pub use transport::{Http, Transport, TransportError};
