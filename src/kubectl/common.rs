//! What every verb gets. Only types.

use super::cloud::CloudArguments;
use super::cluster::ClusterArguments;
use super::output::Format;

/// What a verb gets beside its own arguments.
pub(super) struct Common {
    pub(super) cluster: ClusterArguments,
    pub(super) cloud: CloudArguments,
    pub(super) format: Format,
}
