//! The proxy between a process and the API server, as client-go chooses it. Reads the environment.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use kube::config::Kubeconfig;
use tracing::warn;
use url::Url;

use crate::ecs::endpoint::is_loopback;

/// The proxy for `server`: that of a context of the kubeconfig (`None`: the current one), else that of the environment.
#[must_use]
pub fn of(kubeconfig: Option<Kubeconfig>, context: Option<&str>, server: &Uri) -> Option<Uri> {
    let named = kubeconfig.and_then(|config| of_kubeconfig(config, context));
    named.or_else(|| environment_proxy(server, |name| std::env::var(name).ok()))
}

/// The `proxy-url` of the cluster of a context.
fn of_kubeconfig(config: Kubeconfig, context: Option<&str>) -> Option<Uri> {
    let name = context.map(str::to_owned).or(config.current_context)?;
    let mut contexts = config.contexts.into_iter();
    let context = contexts.find(|context| context.name == name)?.context?;
    let mut clusters = config.clusters.into_iter();
    let cluster = clusters.find(|cluster| cluster.name == context.cluster)?;
    cluster.cluster?.proxy_url?.parse().ok()
}

/// The proxy for an API server of a kubeconfig that names none. As client-go does it: a proxy without a scheme is an HTTP
/// proxy, and none is used for this machine itself. A proxy that cannot be used is no reason not to start: the variable is
/// meant for every program.
///
/// Not kube's own choice: it compares `NO_PROXY` with the proxy's name instead of the API server's (kube 5.0.0).
fn environment_proxy(server: &Uri, variable: impl Fn(&str) -> Option<String>) -> Option<Uri> {
    let first_of = |names: [&str; 2]| {
        let mut values = names.into_iter().filter_map(&variable);
        values.find(|value| !value.is_empty())
    };
    let proxy: Uri = first_of(["HTTPS_PROXY", "https_proxy"])?.parse().ok()?;
    let exceptions = first_of(["NO_PROXY", "no_proxy"]).unwrap_or_default();
    let is_this_machine = Url::parse(&server.to_string()).is_ok_and(|url| is_loopback(&url));
    if is_this_machine || is_exception(server, &exceptions) {
        return None;
    }
    match proxy.scheme_str() {
        Some("http" | "https" | "socks5") => Some(proxy),
        None => format!("http://{proxy}").parse().ok(),
        Some(scheme) => {
            // Without the rest: it may contain a password.
            warn!(scheme, "HTTPS_PROXY is not used: its scheme is unknown");
            None
        }
    }
}

/// Whether `NO_PROXY` names the server: by its name, a parent domain, an address, a network or `*`, with or without a port.
fn is_exception(server: &Uri, exceptions: &str) -> bool {
    let server_port = server.port_u16().unwrap_or(443);
    let without_port = exceptions.split(',').filter_map(|exception| {
        let exception = exception.trim();
        let exception = exception
            .strip_prefix('*')
            .filter(|rest| rest.starts_with('.'))
            .unwrap_or(exception);
        match exception.rsplit_once(':') {
            // More colons without brackets are an IPv6 address.
            Some((host, port)) if !host.contains(':') || host.ends_with(']') => {
                (port.parse() == Ok(server_port)).then_some(host)
            }
            Some(_) | None => Some(exception),
        }
    });
    let hosts = without_port.map(|host| host.trim_start_matches('[').trim_end_matches(']'));
    let matcher = Matcher::builder()
        .all("http://proxy")
        .no(hosts.collect::<Vec<_>>().join(","))
        .build();
    matcher.intercept(server).is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxy(server: &str, variables: &[(&str, &str)]) -> Option<String> {
        let variable = |name: &str| {
            let mut variables = variables.iter();
            let found = variables.find(|(key, _)| *key == name);
            found.map(|(_, value)| (*value).to_owned())
        };
        let proxy = environment_proxy(&server.parse().unwrap(), variable);
        proxy.map(|proxy| proxy.to_string())
    }

    #[test]
    fn proxy_of_the_environment_is_used_if_its_scheme_is_known() {
        for (typed, used) in [
            ("http://proxy:3128", Some("http://proxy:3128/")),
            ("https://proxy", Some("https://proxy/")),
            ("socks5://proxy:1080", Some("socks5://proxy:1080/")),
            ("proxy:3128", Some("http://proxy:3128/")),
            (
                "user:word@10.0.0.1:3128",
                Some("http://user:word@10.0.0.1:3128/"),
            ),
            ("ftp://proxy", None),
            ("", None),
        ] {
            for variable in ["HTTPS_PROXY", "https_proxy"] {
                let proxy = proxy("https://cluster:6443", &[(variable, typed)]);
                assert_eq!(proxy.as_deref(), used);
            }
        }
    }

    #[test]
    fn no_proxy_names_api_servers() {
        for (server, exceptions, uses_proxy) in [
            ("https://api.example.com:6443", "", true),
            ("https://api.example.com:6443", "proxy,127.0.0.1", true),
            ("https://api.example.com:6443", "api.example.com", false),
            ("https://api.example.com:6443", "example.com", false),
            ("https://api.example.com:6443", " .example.com , x", false),
            ("https://api.example.com:6443", "*.example.com", false),
            ("https://api.example.com:6443", "pi.example.com", true),
            ("https://api.example.com:6443", "*", false),
            ("https://api.example.com:6443", "example.com:6443", false),
            ("https://api.example.com:6443", "example.com:443", true),
            ("https://api.example.com", "example.com:443", false),
            ("https://10.1.2.3:6443", "10.0.0.0/8", false),
            ("https://10.1.2.3:6443", "10.1.2.3", false),
            ("https://10.1.2.3:6443", "10.1.2.3:6443", false),
            ("https://10.1.2.3:6443", "10.1.2.4,11.0.0.0/8", true),
            ("https://[2001:db8::1]:6443", "2001:db8::1", false),
            ("https://[2001:db8::1]:6443", "[2001:db8::1]:6443", false),
            ("https://[2001:db8::1]:6443", "2001:db8::/32", false),
            ("https://[2001:db8::1]:6443", "2001:db8::2", true),
            // This machine needs no exception.
            ("https://127.0.0.1:6443", "", false),
            ("https://[::1]:6443", "", false),
            ("https://localhost:6443", "", false),
        ] {
            for variable in ["NO_PROXY", "no_proxy"] {
                let variables = [("HTTPS_PROXY", "http://proxy"), (variable, exceptions)];
                let proxy = proxy(server, &variables);
                assert_eq!(proxy.is_some(), uses_proxy, "{server}, {exceptions}");
            }
        }
    }
}
