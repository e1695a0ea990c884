//! The simulated cloud as a process: arguments, ports, exit code. No logic.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use k8s_openapi::jiff::Timestamp;
use security_group_operator::simulator::account::AccessKey;
use security_group_operator::simulator::action::Action;
use security_group_operator::simulator::cloud::Cloud;
use security_group_operator::simulator::inventory::Inventory;
use security_group_operator::simulator::settings::parse_duration;
use security_group_operator::simulator::{DEFAULT_ACCESS_KEY, Simulator, admin, server};
use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

/// A local ECS and STS that verifies signatures and enforces the documented rules of security-group membership.
///
/// For tests only: it is not the cloud, and keys given on the command line can be read by everybody on the machine (ps).
#[derive(Parser)]
#[command(name = "ecs-simulator", version)]
struct Arguments {
    /// Address of the simulated API; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:18080")]
    listen: SocketAddr,
    /// Address of the admin port; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:18081")]
    admin: SocketAddr,
    /// Address of the metadata service of one instance, with its role; port 0 takes a free one. Absent: there is none.
    #[arg(long)]
    metadata: Option<SocketAddr>,
    /// An inventory file (YAML, see docs/simulator.md).
    #[arg(long, conflicts_with_all = ["instances", "security_groups", "network_interfaces"])]
    inventory: Option<PathBuf>,
    /// How many instances to generate: i-sim000000 and so on, all Running and in sg-base.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    instances: u32,
    /// How many security groups to generate besides sg-base: sg-sim0000 and so on.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    security_groups: u32,
    /// How many secondary network interfaces to generate: eni-sim000000 and so on, attached and in sg-base.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=1_000_000))]
    network_interfaces: u32,
    /// Private addresses of each network interface. An instance with many has a long row in the answer of DescribeInstances.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    addresses: Option<u32>,
    /// Duration of every call.
    #[arg(long, value_parser = parse_duration)]
    latency: Option<Duration>,
    /// How long Pending, Starting and Stopping last.
    #[arg(long, value_parser = parse_duration)]
    transition: Option<Duration>,
    /// Calls per minute for an action, such as JoinSecurityGroup=600. Repeatable.
    #[arg(long, value_name = "ACTION=CALLS", value_parser = parse_limit)]
    limit: Vec<(String, u32)>,
    /// An access key of the default account. Repeatable. For tests only: the process list shows it.
    #[arg(long, value_name = "ID=SECRET", value_parser = parse_key)]
    access_key: Vec<AccessKey>,
    /// Determines request IDs and faults with a probability.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    match run(arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ecs-simulator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let mut cloud = match &arguments.inventory {
        Some(path) => load(path)?,
        None => Cloud::generated(
            arguments.instances as usize,
            arguments.security_groups as usize,
            arguments.network_interfaces as usize,
        )
        .map_err(|error| error.to_string())?,
    };
    if let Some(latency) = arguments.latency {
        cloud.settings.latency = latency;
    }
    if let Some(addresses) = arguments.addresses {
        cloud.settings.addresses = addresses;
    }
    if let Some(transition) = arguments.transition {
        cloud.settings.transition = transition;
    }
    cloud.settings.limits.extend(arguments.limit);
    for key in arguments.access_key {
        cloud.keys.insert(key);
    }
    let default_key = cloud.keys.is_empty();
    let wire = bind("--listen", arguments.listen).await?;
    let admin = bind("--admin", arguments.admin).await?;
    let (wire_address, admin_address) = (address(&wire)?, address(&admin)?);
    // Scripts and tests read these first two lines: keep them.
    say(&format!("listening on http://{wire_address}"));
    say(&format!("admin on http://{admin_address}"));
    let metadata = match arguments.metadata {
        Some(at) => Some(bind("--metadata", at).await?),
        None => None,
    };
    if let Some(metadata) = &metadata {
        say(&format!("metadata on http://{}", address(metadata)?));
    }
    if default_key {
        let (id, secret) = DEFAULT_ACCESS_KEY;
        say(&format!(
            "no access key given: use {id} with secret {secret} (good for nothing but this simulator)"
        ));
    }
    let simulator = Arc::new(Simulator::new(cloud, arguments.seed));
    let back_door = axum::serve(admin, admin::router(simulator.clone()));
    let metadata = async {
        match metadata {
            Some(listener) => server::serve_metadata(listener, simulator.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        ended = metadata => ended.map_err(|error| error.to_string()),
        () = server::serve(wire, simulator.clone()) => Ok(()),
        ended = back_door => ended.map_err(|error| error.to_string()),
        () = stop() => Ok(()),
    }
}

/// Prints a line on stdout. The parent process may have closed it: ignore that.
fn say(line: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = writeln!(stdout, "{line}");
    let _ = stdout.flush();
}

fn load(path: &Path) -> Result<Cloud, String> {
    let named = |error: &dyn std::fmt::Display| format!("--inventory {}: {error}", path.display());
    let text = std::fs::read_to_string(path).map_err(|error| named(&error))?;
    Inventory::from_yaml(&text)
        .and_then(|inventory| inventory.build(Timestamp::now()))
        .map_err(|error| named(&error))
}

async fn bind(flag: &str, at: SocketAddr) -> Result<TcpListener, String> {
    TcpListener::bind(at)
        .await
        .map_err(|error| format!("{flag} {at}: {error}"))
}

fn address(listener: &TcpListener) -> Result<SocketAddr, String> {
    listener.local_addr().map_err(|error| error.to_string())
}

async fn stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
        }
        Err(_) => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}

fn parse_limit(text: &str) -> Result<(String, u32), String> {
    let (action, calls) = text
        .split_once('=')
        .and_then(|(action, calls)| Some((action.to_owned(), calls.parse().ok()?)))
        .ok_or_else(|| "expected ACTION=CALLS, such as JoinSecurityGroup=600".to_owned())?;
    Action::check(&action)?;
    Ok((action, calls))
}

fn parse_key(text: &str) -> Result<AccessKey, String> {
    text.split_once('=')
        .filter(|(id, secret)| !id.is_empty() && !secret.is_empty())
        .map(|(id, secret)| AccessKey::new(id, secret))
        .ok_or_else(|| "expected ID=SECRET".to_owned())
}
