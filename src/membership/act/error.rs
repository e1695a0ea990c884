//! Why a pass stops early.

use std::fmt;

use crate::kubernetes;

/// Why a pass stops early.
#[derive(Debug, thiserror::Error)]
pub enum ActError {
    /// The object was deleted, or another object has its name. The watch reports it in an event of its own.
    #[error("the object is gone")]
    ObjectGone,
    /// The stored version of the object differs from the one the pass knows, or another object has its name.
    #[error("the object has changed meanwhile")]
    Changed,
    /// The process ends: nothing more begins. The next process goes on from what is stored.
    #[error("the process ends")]
    Stopping,
    /// The API server rejected the request or did not answer: the stored state is unknown.
    #[error("{what}: {source}")]
    Kubernetes {
        /// The request that failed.
        what: ApiRequest,
        /// The error.
        source: kubernetes::Error,
    },
    /// The API server has dropped the record from a status that it accepted.
    #[error("the CRD is older than this operator: the API server does not store status.origin")]
    RecordNotStored,
}

/// A request to the API server. Its text says that it failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiRequest {
    /// Writes the finalizer and the intent of the object.
    Claim,
    /// Removes them.
    Finalizer,
    /// Writes the finalizer or the record of another object.
    Successor {
        /// Whether it is in the same namespace: its users may know of it.
        same_namespace: bool,
    },
    /// Writes the status of the object.
    Status,
    /// Reads an object.
    Read,
}

impl fmt::Display for ApiRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Claim => "the claim could not be written",
            Self::Finalizer => "the finalizer could not be removed",
            Self::Successor { .. } => "another object could not be given the membership",
            Self::Status => "the status could not be written",
            Self::Read => "an object could not be read",
        })
    }
}

impl ActError {
    /// Why a request to the API server failed.
    pub(in super::super) fn of(what: ApiRequest, source: kubernetes::Error) -> Self {
        match source {
            kubernetes::Error::Stopping => Self::Stopping,
            kubernetes::Error::Api(_) | kubernetes::Error::Timeout { .. } => {
                Self::Kubernetes { what, source }
            }
        }
    }

    /// The same for a request about another object.
    pub(super) fn of_successor(self, same_namespace: bool) -> Self {
        match self {
            Self::Kubernetes { source, .. } => Self::Kubernetes {
                what: ApiRequest::Successor { same_namespace },
                source,
            },
            other => other,
        }
    }

    /// Whether the API server takes no new finalizer because the object is being deleted. An admission policy refuses with the
    /// same status.
    pub(super) fn is_of_a_deleted_object(&self) -> bool {
        let Self::Kubernetes {
            source: kubernetes::Error::Api(kube::Error::Api(status)),
            ..
        } = self
        else {
            return false;
        };
        let causes = status.details.iter().flat_map(|details| &details.causes);
        status.code == 422
            && causes
                .map(|cause| cause.field.as_str())
                .any(|field| field == "metadata.finalizers")
    }
}
