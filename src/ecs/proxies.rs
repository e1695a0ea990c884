//! The proxies between a process and the cloud, and the client that goes through them. No I/O.

use std::time::Duration;

/// Which proxies are between this process and the cloud.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proxies {
    /// None, whatever the environment says: the operator calls the cloud's own network.
    None,
    /// The proxies of `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and `NO_PROXY`: the plugin calls from a user's network.
    Environment,
}

impl Proxies {
    /// A client without redirects and retries.
    pub(super) fn client(self) -> reqwest::ClientBuilder {
        let builder = reqwest::Client::builder();
        let builder = match self {
            Self::None => builder.no_proxy(),
            // What reqwest does by itself.
            Self::Environment => builder,
        };
        builder
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .connect_timeout(Duration::from_secs(5))
            // Below the usual idle timeouts of load balancers: a connection lost during a Join leaves its outcome unknown.
            .pool_idle_timeout(Duration::from_secs(20))
            .pool_max_idle_per_host(32)
            .tcp_keepalive(Duration::from_secs(15))
    }
}
