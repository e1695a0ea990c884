//! The client of the API server: where it is, and through which proxy.

use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};

use crate::kubernetes::{DEADLINE, error_chain, proxy};

use super::start_error::StartError;

pub(super) async fn connect() -> Result<kube::Client, StartError> {
    let options = KubeConfigOptions::default();
    let mut config = match kube::Config::from_kubeconfig(&options).await {
        Ok(mut config) => {
            config.apply_debug_overrides();
            let kubeconfig = Kubeconfig::read().ok();
            config.proxy_url = proxy::of(kubeconfig, None, &config.cluster_url);
            config
        }
        Err(error @ (KubeconfigError::ParseProxyUrl(_) | KubeconfigError::ParseNoProxy(_))) => {
            return Err(StartError::Proxy(error_chain(&error)));
        }
        // In a pod. Its error names both causes.
        Err(_) => kube::Config::infer()
            .await
            .map_err(|error| StartError::NoCluster(Box::new(error)))?,
    };
    config.connect_timeout = Some(Duration::from_secs(10));
    // Runs the kubeconfig's credential plugin, and waits for its end.
    let client = tokio::task::spawn_blocking(|| kube::Client::try_from(config));
    match tokio::time::timeout(DEADLINE, client).await {
        Ok(Ok(client)) => client.map_err(|error| StartError::Client(Box::new(error))),
        Ok(Err(panic)) => std::panic::resume_unwind(panic.into_panic()),
        Err(_) => Err(StartError::CredentialPlugin),
    }
}
