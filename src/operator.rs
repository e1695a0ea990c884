//! Connects all parts and runs them until a shutdown future resolves. The only module that knows all of them.

mod connect;
mod controllers;
mod leadership;
mod start_error;

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::Namespace;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, Store};
use tokio::sync::mpsc;
use tracing::{info, warn};

use crate::account::change::Change;
use crate::account::directory::{AccountKinds, Directory};
use crate::account::limiters::Limiters;
use crate::args::Settings;
use crate::clock::Clock;
use crate::ecs::{Http, Transport};
use crate::kubernetes::events::{self, EventRecorder};
use crate::kubernetes::lease::Election;
use crate::kubernetes::writer::ApiWriter;
use crate::kubernetes::{lease, with_answer_deadline};
use crate::membership::queue::ReconcileQueue;
use crate::membership::{self, housekeeping};
use crate::shutdown::{Shutdown, TIME_FOR_EVENTS};
use crate::telemetry::{self, Samples, Telemetry};
use crate::{access, account, listener, set};

use self::connect::connect;
use self::controllers::{SetControllers, all, run_controllers};
use self::leadership::{election, lead, release};

pub use self::start_error::StartError;

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
        let may_lead = lease::check(client.clone(), &settings.operator_namespace).await;
        may_lead.map_err(|trouble| vec![trouble])?;
    }
    if settings.node_conditions {
        let may_write = set::check_node_conditions(client).await;
        may_write.map_err(|trouble| vec![trouble])?;
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
    let (queue, queues) = ReconcileQueue::new(&settings.scopes);
    let (changes, receiver) = mpsc::unbounded_channel();
    let (namespaces, namespace_watch) = watch_namespaces(&client, kinds, &changes);
    let in_flight = settings.max_writes_in_flight;
    let writer = ApiWriter::new(in_flight, shutdown.clone(), Arc::clone(&telemetry));
    let (events, event_writer) = EventRecorder::new(
        client.clone(),
        writer.clone(),
        settings.instance.clone(),
        Arc::clone(&telemetry),
        clock.clone(),
    );
    let shared = Shared {
        directory: Arc::new(Directory::new(namespaces.clone()).serving(kinds)),
        client,
        writer,
        events,
        telemetry,
        clock,
        shutdown,
    };
    let sets = set_controllers(&shared, &settings);
    let accounts = Arc::new(account_context(&shared, &settings, transport, changes));
    let context = Arc::new(membership_context(shared, &settings, queue.clone()));
    context.telemetry.set_source(source(&accounts, &context));
    let (table, directory) = (Arc::clone(&context.table), Arc::clone(&context.directory));
    let due = Arc::clone(&sets.context.sets);
    let access_changed = move || due.all_now();
    let follow_accounts =
        housekeeping::follow_accounts(table, directory, queue, receiver, access_changed);
    let watches = all([namespace_watch, follow_accounts.boxed()]);
    let controllers = run_controllers(
        accounts,
        Arc::clone(&context),
        sets,
        kinds,
        &namespaces,
        queues,
        settings,
    );
    let run = run_until(asked, controllers, watches, election, context, event_writer);
    Box::pin(run).await
}

/// What the controllers of all kinds share.
struct Shared {
    client: kube::Client,
    writer: ApiWriter,
    directory: Arc<Directory>,
    events: EventRecorder,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    shutdown: Shutdown,
}

/// The store of namespaces, and the watch that fills it.
fn watch_namespaces(
    client: &kube::Client,
    kinds: AccountKinds,
    changes: &mpsc::UnboundedSender<Change>,
) -> (Store<PartialObjectMeta<Namespace>>, BoxFuture<'static, ()>) {
    match kinds {
        AccountKinds::Both => {
            let (namespaces, watch) = account::namespaces::watch(client, changes.clone());
            (namespaces, watch.boxed())
        }
        // Only grants of ClusterCloudAccounts look at them. Without a writer the store counts as complete.
        AccountKinds::NamespacedOnly => (reflector::store().0, std::future::pending().boxed()),
    }
}

fn account_context(
    shared: &Shared,
    settings: &Settings,
    transport: Arc<dyn Transport>,
    changes: mpsc::UnboundedSender<Change>,
) -> account::Context {
    account::Context {
        client: shared.client.clone(),
        writer: shared.writer.clone(),
        directory: Arc::clone(&shared.directory),
        limiters: Limiters::default(),
        changes,
        transport,
        operator_namespace: settings.operator_namespace.clone(),
        default_endpoints: settings.default_endpoints.clone(),
        environment: settings.environment.clone(),
        metadata_service: settings.metadata_service.clone(),
        telemetry: Arc::clone(&shared.telemetry),
        clock: shared.clock.clone(),
        checks: std::sync::Mutex::default(),
        events: shared.events.clone(),
        scan_period: settings.scan_period,
        shutdown: shared.shutdown.clone(),
        docs_url: settings.docs_url.clone(),
    }
}

fn membership_context(
    shared: Shared,
    settings: &Settings,
    queue: ReconcileQueue,
) -> membership::Context {
    let mut context = membership::Context::new(
        shared.client,
        shared.writer,
        Arc::default(),
        shared.directory,
        queue,
        shared.events,
        shared.telemetry,
        shared.clock,
        shared.shutdown,
        read_periods(settings),
        &settings.scopes,
    );
    context.docs_url.clone_from(&settings.docs_url);
    context
}

fn set_controllers(shared: &Shared, settings: &Settings) -> SetControllers {
    let scopes = &settings.scopes;
    let (sets, due) = set::Sets::new(scopes);
    let mut context = set::Context::new(
        shared.client.clone(),
        shared.writer.clone(),
        Arc::clone(&shared.directory),
        shared.events.clone(),
        shared.clock.clone(),
        shared.shutdown.clone(),
        Arc::new(set::Members::new(scopes.len())),
        sets,
        settings.scan_period,
    );
    context.node_conditions = settings.node_conditions;
    SetControllers {
        context: Arc::new(context),
        due,
    }
}

/// Where the metrics of memberships and accounts come from. It holds neither: the process ends when the last of both is dropped.
fn source(
    accounts: &Arc<account::Context>,
    context: &Arc<membership::Context>,
) -> impl Fn() -> Samples + Send + Sync + 'static {
    let (accounts, context) = (Arc::downgrade(accounts), Arc::downgrade(context));
    move || match (accounts.upgrade(), context.upgrade()) {
        (Some(accounts), Some(context)) => {
            membership::metrics::samples(&context, &accounts.key_ends())
        }
        _ => Samples::default(),
    }
}

/// Runs until `asked` resolves or the Lease is lost, and what is under way has ended. Then writes the events and gives the Lease up.
async fn run_until(
    asked: impl Future<Output = ()> + Send + 'static,
    controllers: impl Future<Output = ()>,
    watches: impl Future<Output = ()>,
    election: Option<Election>,
    context: Arc<membership::Context>,
    event_writer: events::Writer,
) -> Result<(), lease::Lost> {
    let shutdown = context.shutdown.clone();
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
        () = watches => {}
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
