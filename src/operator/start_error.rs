//! Why the operator cannot start or go on.

use std::net::SocketAddr;

use crate::kubernetes::{DEADLINE, lease};

/// Why the operator cannot start or go on, in one line.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Neither KUBECONFIG nor a pod's service account names a cluster.
    #[error(
        "no Kubernetes cluster is configured; set KUBECONFIG, or run in a pod with a service account: {0}"
    )]
    NoCluster(#[source] Box<kube::config::InferConfigError>),
    /// kube cannot read the proxy, or the exceptions from it.
    #[error(
        "the proxy of the API server cannot be used; check proxy-url in the kubeconfig, HTTPS_PROXY, and NO_PROXY, which has a single comma between two entries: {0}"
    )]
    Proxy(String),
    /// The client could not be built from the configuration.
    #[error("the Kubernetes client cannot be set up: {0}")]
    Client(#[source] Box<kube::Error>),
    /// The kubeconfig names a program that hands out credentials, and it does not.
    #[error(
        "the credential plugin of the kubeconfig has not ended within {} s; run it by hand to see what it waits for",
        DEADLINE.as_secs()
    )]
    CredentialPlugin,
    /// The address of probes and metrics cannot be bound.
    #[error("--listen {address}: {source}{}", port_hint(.source))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The Lease was lost. The process may start again.
    #[error(transparent)]
    Lease(#[from] lease::Lost),
    /// TLS cannot be set up.
    #[error("the client of the cloud cannot be set up: {0}")]
    Transport(#[from] crate::ecs::TransportError),
}

fn port_hint(error: &std::io::Error) -> &'static str {
    match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            "; end the process that has this port, or choose another one with --listen"
        }
        std::io::ErrorKind::PermissionDenied => "; choose a port from 1024 on with --listen",
        _ => "",
    }
}
