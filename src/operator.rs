//! Connects all parts and runs them until a shutdown future resolves. The only module that knows all of them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, Stream, StreamExt as _};
use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;
use k8s_openapi::api::core::v1::Namespace;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};
use url::Url;

use crate::access;
use crate::account::limiters::Limiters;
use crate::account::{
    self,
    directory::{AccountKinds, Directory},
};
use crate::api::{CloudAccount, ClusterCloudAccount};
use crate::args::Settings;
use crate::clock::Clock;
use crate::ecs::endpoint::is_loopback;
use crate::ecs::{Http, Transport};
use crate::kubernetes::events::EventRecorder;
use crate::kubernetes::lease::{self, Election};
use crate::kubernetes::writer::ApiWriter;
use crate::kubernetes::{DEADLINE, WatchScope, error_chain, with_answer_deadline};
use crate::listener;
use crate::membership::object::Object;
use crate::membership::queue::ReconcileQueue;
use crate::membership::table::ObjectTable;
use crate::membership::{self, housekeeping};
use crate::shutdown::{Shutdown, TIME_FOR_EVENTS};
use crate::telemetry::{self, Telemetry};

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

/// Runs until `asked` resolves and what is under way has ended, at most 70 s later.
///
/// # Errors
/// Errors that only a restart can fix. All others are retried.
pub async fn run(
    settings: Settings,
    asked: impl Future<Output = ()> + Send + 'static,
) -> Result<(), StartError> {
    let asked = asked.boxed().shared();
    let client = connect().await?;
    let http = Http::new()?;
    if let Some(cause) = http.without_authorities() {
        warn!("no https:// endpoint of the cloud can be used: {cause}");
    }
    let transport: Arc<dyn Transport> = Arc::new(http);
    let telemetry = Arc::new(Telemetry::default());
    let port = listener::bind(settings.listen).await;
    let port = port.map_err(|(address, source)| StartError::Listen { address, source })?;
    let address = port.local_addr().map(tracing::field::display).ok();
    let routes = telemetry::routes(Arc::clone(&telemetry));
    tokio::spawn(listener::serve(port, routes));
    info!(address, version = env!("CARGO_PKG_VERSION"), "started");
    let kinds = tokio::select! {
        kinds = access::wait_until_listable(&client, &settings.scopes) => kinds,
        () = asked.clone() => return Ok(()),
    };
    tokio::spawn(access::warn_of_old_crds(client.clone()));
    let clock = Clock::system();
    let cluster = client.clone();
    let stop = async move {
        tokio::select! {
            () = access::until_cluster_accounts_are_listable(&cluster, kinds) => {
                info!("the operator may list ClusterCloudAccounts now: it ends, and serves them after its next start");
            }
            () = asked => {}
        }
    };
    if settings.lease_duration.is_none() {
        let namespace = settings.operator_namespace.clone();
        tokio::spawn(lease::warn_of_leader(client.clone(), namespace));
    }
    run_with(settings, client, transport, telemetry, clock, kinds, stop).await?;
    info!("stopped");
    Ok(())
}

/// Whether the operator could work here: what it found, in one line.
///
/// # Errors
/// What keeps it from its work, one line each.
pub async fn check(settings: &Settings) -> Result<String, Vec<String>> {
    let client = connect().await.map_err(|error| vec![error.to_string()])?;
    let found = access::check(&client, &settings.scopes).await?;
    if settings.lease_duration.is_some() {
        let may_lead = lease::check(client, &settings.operator_namespace).await;
        may_lead.map_err(|trouble| vec![trouble])?;
    }
    Ok(found)
}

/// Whether the operator can be uninstalled.
///
/// # Errors
/// How many memberships need it, and what to do; or why they cannot be listed.
pub async fn check_uninstall(settings: &Settings) -> Result<String, Vec<String>> {
    let client = connect().await.map_err(|error| vec![error.to_string()])?;
    access::check_uninstall(&client, &settings.scopes).await
}

/// The `proxy-url` of the kubeconfig's current cluster.
fn kubeconfig_proxy() -> Option<Uri> {
    let config = Kubeconfig::read().ok()?;
    let current = config.current_context?;
    let mut contexts = config.contexts.into_iter();
    let context = contexts.find(|context| context.name == current)?.context?;
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

async fn connect() -> Result<kube::Client, StartError> {
    let options = KubeConfigOptions::default();
    let mut config = match kube::Config::from_kubeconfig(&options).await {
        Ok(mut config) => {
            config.apply_debug_overrides();
            config.proxy_url = kubeconfig_proxy().or_else(|| {
                environment_proxy(&config.cluster_url, |name| std::env::var(name).ok())
            });
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

/// Runs the controllers with the given cluster client and cloud transport until `asked` resolves and what is under way has
/// ended, at most [`TIME_FOR_CALLS`] and [`TIME_FOR_EVENTS`] (70 s) later. Does not listen.
///
/// # Errors
/// The Lease was lost, and what was under way has ended.
///
/// [`TIME_FOR_CALLS`]: crate::shutdown::TIME_FOR_CALLS
/// [`TIME_FOR_EVENTS`]: crate::shutdown::TIME_FOR_EVENTS
pub async fn run_with(
    settings: Settings,
    client: kube::Client,
    transport: Arc<dyn Transport>,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    kinds: AccountKinds,
    asked: impl Future<Output = ()> + Send + 'static,
) -> Result<(), lease::Lost> {
    let shutdown = match settings.lease_duration {
        Some(_) => Shutdown::standby(),
        None => Shutdown::default(),
    };
    // kube counts no list or watch of it.
    let election = election(&settings, &client, &shutdown, &clock);
    let client = with_answer_deadline(client, Arc::clone(&telemetry));
    let table = Arc::new(ObjectTable::default());
    let (queue, queues) = ReconcileQueue::new(&settings.scopes);
    let (changes, receiver) = mpsc::unbounded_channel();
    let (namespaces, namespace_watch) = match kinds {
        AccountKinds::Both => {
            let (namespaces, watch) = account::namespaces::watch(&client, changes.clone());
            (namespaces, watch.boxed())
        }
        // Only grants of ClusterCloudAccounts look at them. Without a writer the store counts as complete.
        AccountKinds::NamespacedOnly => (reflector::store().0, std::future::pending().boxed()),
    };
    let directory = Arc::new(Directory::new(namespaces.clone()).serving(kinds));
    let follow_accounts = housekeeping::follow_accounts(
        Arc::clone(&table),
        Arc::clone(&directory),
        queue.clone(),
        receiver,
    );
    let writer = ApiWriter::new(settings.max_writes_in_flight, shutdown.clone());
    let (events, event_writer) = EventRecorder::new(
        client.clone(),
        writer.clone(),
        settings.instance.clone(),
        Arc::clone(&telemetry),
        clock.clone(),
    );
    let accounts = Arc::new(account::Context {
        client: client.clone(),
        writer: writer.clone(),
        directory: Arc::clone(&directory),
        limiters: Limiters::default(),
        changes,
        transport,
        operator_namespace: settings.operator_namespace.clone(),
        default_endpoints: settings.default_endpoints.clone(),
        environment: settings.environment.clone(),
        telemetry: Arc::clone(&telemetry),
        clock: clock.clone(),
        checks: std::sync::Mutex::default(),
        events: events.clone(),
        scan_period: settings.scan_period,
        shutdown: shutdown.clone(),
    });
    let (ending, scopes) = (shutdown.clone(), &settings.scopes);
    let read_periods = read_periods(&settings);
    let context = Arc::new(membership::Context::new(
        client,
        writer,
        table,
        directory,
        queue,
        events,
        telemetry,
        clock,
        ending,
        read_periods,
        scopes,
    ));
    let controllers = run_controllers(
        accounts,
        Arc::clone(&context),
        kinds,
        &namespaces,
        queues,
        settings,
    );
    let mut lost = None;
    let ends = async {
        tokio::select! {
            biased;
            () = asked => {}
            why = lead(election.as_ref(), &context) => lost = Some(why),
        }
    };
    tokio::select! {
        biased;
        () = shutdown.begin_when(ends) => warn!("the API server has not answered within 67 s; the process ends, and the next start takes up what is unfinished"),
        () = controllers => {}
        () = release(election.as_ref(), &context, &shutdown) => {}
        () = all([namespace_watch, follow_accounts.boxed()]) => {}
    }
    let calls_run = context.table.has_open_calls();
    drop(context);
    let release = async {
        if let Some(election) = &election {
            let _ = tokio::time::timeout(TIME_FOR_EVENTS, election.release(calls_run)).await;
        }
    };
    // The events end when the last recorder is dropped, with the last context.
    futures::future::join(event_writer.flush(), release).await;
    match lost {
        Some(why) => Err(why),
        None => Ok(()),
    }
}

fn read_periods(settings: &Settings) -> membership::ReadPeriods {
    membership::ReadPeriods {
        scan: settings.scan_period,
        not_observed_after: settings.not_observed_after,
    }
}

/// The election that the process takes part in, if it is asked to.
fn election(
    settings: &Settings,
    client: &kube::Client,
    shutdown: &Shutdown,
    clock: &Clock,
) -> Option<Election> {
    settings.lease_duration.map(|duration| {
        Election::new(
            client.clone(),
            &settings.operator_namespace,
            settings.instance.as_deref(),
            duration,
            shutdown.clone(),
            clock.clone(),
        )
    })
}

/// Has the process act while it holds the Lease, and returns why it may not any more. Never returns without an election.
async fn lead(election: Option<&Election>, context: &membership::Context) -> lease::Lost {
    let telemetry = &context.telemetry;
    let Some(election) = election else {
        telemetry.set_leader(true);
        return std::future::pending().await;
    };
    // Who has listed nothing yet does not take the Lease from a standby that has.
    context.until_listed().await;
    let mut held = election.acquire(telemetry).await;
    let mut others_may_call = held.others_may_call();
    context.table.begins_to_act(others_may_call);
    if held.others_have_ended() {
        context.others_have_ended();
    } else if others_may_call {
        info!(
            "nothing is removed until the calls of the leader before this one have ended, 70 s at most"
        );
    }
    election.begin(&held);
    telemetry.set_leader(true);
    loop {
        let have_ended = !context.table.others_may_be_calling();
        if let Err(lost) = election.renew(&mut held, have_ended, telemetry).await {
            telemetry.set_leader(false);
            return lost;
        }
        if others_may_call && !held.others_may_call() {
            others_may_call = false;
            context.others_have_ended();
        }
    }
}

/// Gives the Lease up as soon as the process is to end. Never returns.
async fn release(election: Option<&Election>, context: &membership::Context, shutdown: &Shutdown) {
    shutdown.begun().await;
    if let Some(election) = election {
        context.telemetry.set_leader(false);
        election.release(context.table.has_open_calls()).await;
    }
    std::future::pending::<()>().await;
}

async fn run_controllers(
    accounts: Arc<account::Context>,
    context: Arc<membership::Context>,
    kinds: AccountKinds,
    namespaces: &Store<PartialObjectMeta<Namespace>>,
    queues: Vec<impl Stream<Item = ObjectRef<Object>> + Send + 'static>,
    settings: Settings,
) {
    let account_controllers = run_accounts(&accounts, kinds, &settings.scopes);
    let memberships = async {
        // Otherwise a pass would report an account or a grant missing that is only not listed yet.
        let known = async {
            account_controllers.listed.await;
            let _ = namespaces.wait_until_ready().await;
        };
        if context.shutdown.unless_begun(known).await.is_some() {
            run_memberships(&context, queues, settings).await;
        }
    };
    futures::future::join(memberships, account_controllers.running).await;
}

/// Runs one controller per scope until all have ended, and what goes on beside them until shutdown has begun.
async fn run_memberships(
    context: &Arc<membership::Context>,
    queues: Vec<impl Stream<Item = ObjectRef<Object>> + Send + 'static>,
    settings: Settings,
) {
    let scans = membership::scan::run(Arc::clone(context), settings.scan_period);
    let housekeeping = housekeeping::run(Arc::clone(context));
    let admission = Arc::clone(&context.admission);
    let scopes = settings.scopes.into_iter().zip(queues);
    let controllers =
        scopes.map(|(scope, queue)| membership::run(Arc::clone(context), scope, queue).boxed());
    let beside = [
        scans.boxed(),
        housekeeping.boxed(),
        membership::unreleased::run(Arc::clone(context)).boxed(),
        async move { admission.run().await }.boxed(),
    ];
    let beside = context.shutdown.unless_begun(all(beside));
    futures::future::join(all(controllers), beside).await;
}

struct AccountControllers<L, R> {
    /// Resolves when every account has been listed once.
    listed: L,
    /// Resolves when all controllers have ended.
    running: R,
}

fn run_accounts(
    context: &Arc<account::Context>,
    kinds: AccountKinds,
    scopes: &[WatchScope],
) -> AccountControllers<impl Future<Output = ()> + use<>, impl Future<Output = ()> + use<>> {
    let mut listed = Vec::new();
    let mut running: Vec<BoxFuture<'static, ()>> = Vec::new();
    match kinds {
        AccountKinds::Both => {
            let (sender, receiver) = oneshot::channel();
            listed.push(receiver);
            running.push(
                account::run::<ClusterCloudAccount>(Arc::clone(context), WatchScope::All, sender)
                    .boxed(),
            );
        }
        AccountKinds::NamespacedOnly => {}
    }
    for scope in scopes {
        let (sender, receiver) = oneshot::channel();
        listed.push(receiver);
        running
            .push(account::run::<CloudAccount>(Arc::clone(context), scope.clone(), sender).boxed());
    }
    AccountControllers {
        listed: async {
            futures::future::join_all(listed).await;
        },
        running: all(running),
    }
}

/// Waits for all futures but polls only those that were woken: polling a controller or a watch is expensive.
async fn all(parts: impl IntoIterator<Item = BoxFuture<'static, ()>>) {
    let mut parts: FuturesUnordered<_> = parts.into_iter().collect();
    while parts.next().await.is_some() {}
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
