//! Where access keys come from: one [`Provider`] per kind, each in a file of its own. A provider obtains a key when it is asked,
//! and remembers nothing: the account decides when to ask.
//!
//! ```text
//! static_key    a key as it is: a Secret, the environment
//! oidc          a service account token, exchanged at STS (RRSA)
//! ram_role      the role of the ECS instance, from the metadata service
//! uri           a local service that hands out keys
//! assume_role   a role, assumed at STS with the key of another provider
//! environment   which of them the environment of the process asks for
//! ```

mod assume_role;
mod environment;
mod oidc;
mod provider;
mod ram_role;
mod static_key;
mod sts;
mod uri;

pub use assume_role::AssumeRole;
pub use environment::Environment;
pub use oidc::{AUDIENCE, Oidc, TokenFile, TokenSource};
pub use provider::{IssuedKey, METADATA_SERVICE, Network, Provider, ProviderError};
pub use ram_role::RamRole;
pub use static_key::StaticKey;
pub use uri::CredentialsUri;
