//! What was typed, once: arguments and environment become [`Settings`]. After that, only the search for a cluster and for a
//! proxy to it reads the environment.

use std::net::SocketAddr;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue};
use clap::{CommandFactory as _, Parser, Subcommand};
use url::Url;

use crate::api::account::Endpoints as EndpointSpec;
use crate::ecs::credential::{Environment, METADATA_SERVICE};
use crate::ecs::{DocsUrl, Endpoints};
use crate::kubernetes::WatchScope;
use crate::telemetry::LogFormat;

/// Keeps Alibaba Cloud ECS instances and network interfaces members of security groups.
///
/// Without a subcommand it runs the operator. The cluster comes from KUBECONFIG, or from the pod that it runs in.
#[derive(Debug, Parser)]
#[command(name = "security-group-operator", version, max_term_width = 100)]
struct Typed {
    #[command(subcommand)]
    command: Option<Command>,

    /// Address of /livez, /readyz and /metrics. Default: [::]:8080, or 0.0.0.0:8080 where there is no IPv6.
    #[arg(long, value_name = "ADDRESS", env = "SECURITY_GROUP_OPERATOR_LISTEN")]
    listen: Option<SocketAddr>,

    /// Namespace to work in; repeat it for several. Default: all namespaces.
    #[arg(
        long = "namespace",
        value_name = "NS",
        value_delimiter = ',',
        value_parser = namespace_or_nothing,
        env = "SECURITY_GROUP_OPERATOR_NAMESPACE"
    )]
    namespaces: Vec<String>,

    /// Namespace in which Secrets of a `ClusterCloudAccount` live.
    #[arg(
        long,
        value_name = "NS",
        default_value = "security-group-operator",
        value_parser = namespace,
        env = "SECURITY_GROUP_OPERATOR_OPERATOR_NAMESPACE"
    )]
    operator_namespace: String,

    /// Whether to act only while it holds the Lease `security-group-operator` of its operator namespace, so that of several operators
    /// one acts. deploy/ sets it.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        env = "SECURITY_GROUP_OPERATOR_LEADER_ELECT"
    )]
    leader_elect: bool,

    /// How long the Lease lasts, in whole seconds from 1s to 60s. It is renewed after a third. A standby takes over so long after
    /// the leader has vanished.
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = lease_duration, env = "SECURITY_GROUP_OPERATOR_LEASE_DURATION")]
    lease_duration: Duration,

    /// How often the operator reads each target, 100 targets per call, from 1s to 1d. The period is longer where the cloud's limit is small.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = scan_period, env = "SECURITY_GROUP_OPERATOR_SCAN_PERIOD")]
    scan_period: Duration,

    /// Scan periods after which an object whose target could not be read is Ready=Unknown, of 1 to 10000.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=10_000),
        env = "SECURITY_GROUP_OPERATOR_NOT_OBSERVED_AFTER"
    )]
    not_observed_after: u32,

    /// Writes to the API server in flight, of 1 to 256. Raise it to make many objects Ready faster if the API server can take the load.
    #[arg(
        long,
        value_name = "N",
        default_value_t = 8,
        value_parser = clap::value_parser!(u16).range(1..=256),
        env = "SECURITY_GROUP_OPERATOR_MAX_WRITES_IN_FLIGHT"
    )]
    max_writes_in_flight: u16,

    /// Whether each Node that a set selects gets the condition `security-group-operator.io/SecurityGroupsJoined`. The operator needs the
    /// right to patch nodes/status for it. Not with --namespace.
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        env = "SECURITY_GROUP_OPERATOR_NODE_CONDITIONS"
    )]
    node_conditions: bool,

    /// Base URL of ECS for accounts that name none, such as a VPC endpoint; {region} in its host is the region of the call.
    /// http:// only to the loopback interface. Default: the public endpoint of each region.
    #[arg(long, value_name = "URL", env = "SECURITY_GROUP_OPERATOR_ECS_ENDPOINT")]
    ecs_endpoint: Option<String>,

    /// Base URL of STS for accounts that name none. http:// only to the loopback interface. Default: <https://sts.aliyuncs.com>.
    #[arg(long, value_name = "URL", env = "SECURITY_GROUP_OPERATOR_STS_ENDPOINT")]
    sts_endpoint: Option<String>,

    /// Base URL of the metadata service of the ECS instance, for the role of the instance.
    #[arg(
        long,
        value_name = "URL",
        default_value = METADATA_SERVICE,
        env = "SECURITY_GROUP_OPERATOR_METADATA_ENDPOINT"
    )]
    metadata_endpoint: Url,

    /// Where the book of docs/ is served, such as <https://docs.example.com/security-group-operator>. Messages of class blocked, absent
    /// or invalid then end with a link to the heading of the code. Default: no link.
    #[arg(long, value_name = "URL", value_parser = DocsUrl::parse, env = "SECURITY_GROUP_OPERATOR_DOCS_URL")]
    docs_url: Option<DocsUrl>,

    /// Format of the log on standard error.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, env = "SECURITY_GROUP_OPERATOR_LOG_FORMAT")]
    log_format: LogFormat,

    /// What to log, such as info or `security_group_operator=debug,info`. By default the messages of the
    /// Kubernetes client per retry are off; the operator logs each failure once.
    #[arg(
        long = "log",
        value_name = "FILTER",
        default_value = "info,kube_client=off,kube_runtime::controller=off,kube_runtime::watcher=off",
        env = "RUST_LOG"
    )]
    log_filter: String,
}

#[derive(Clone, Copy, Debug, Subcommand)]
enum Command {
    /// Print the custom resource definitions as YAML.
    Crds,
    /// Say whether the CRDs are of this version, and the operator may list what it watches.
    Check,
    /// Say whether the operator can be uninstalled: no membership is left that needs it.
    CheckUninstall,
}

/// What is to be done.
#[derive(Debug)]
pub enum Task {
    /// Print the CRDs.
    PrintCrds,
    /// Say whether the operator can work here.
    Check(Box<Settings>),
    /// Say whether the operator can be uninstalled.
    CheckUninstall(Box<Settings>),
    /// Run the operator.
    Run(Box<Settings>),
}

/// Everything that the operator was told.
#[derive(Debug)]
pub struct Settings {
    /// Address of the probes and metrics; `None` is the default.
    pub listen: Option<SocketAddr>,
    /// Scopes to watch, a controller each.
    pub scopes: Vec<WatchScope>,
    /// Namespace of the cluster kind's Secrets.
    pub operator_namespace: String,
    /// Endpoints of accounts that name none.
    pub default_endpoints: EndpointSpec,
    /// The process's own credentials.
    pub environment: Environment,
    /// Base URL of the metadata service.
    pub metadata_service: Url,
    /// How often the operator reads each target.
    pub scan_period: Duration,
    /// How long the Lease lasts; `None` without leader election.
    pub lease_duration: Option<Duration>,
    /// Scan periods after which an object whose target could not be read is not Ready any more.
    pub not_observed_after: u32,
    /// Writes to the API server in flight.
    pub max_writes_in_flight: u16,
    /// Whether Nodes get a condition.
    pub node_conditions: bool,
    /// Name of this process in events: the pod's.
    pub instance: Option<String>,
    /// Where the documentation is, for messages.
    pub docs_url: Option<DocsUrl>,
    /// Format of the log.
    pub log_format: LogFormat,
    /// Filter of the log.
    pub log_filter: String,
}

/// The command line, for the reference of its flags.
#[must_use]
pub fn command() -> clap::Command {
    Typed::command()
}

/// Reads arguments and environment; prints help, version or a usage error and exits where that is what was asked for.
///
/// # Errors
/// One line that names the argument and the fix.
pub fn parse() -> Result<Task, String> {
    let typed = Typed::try_parse().unwrap_or_else(|error| {
        if let Some(variable) = blamed_variable(&error, std::env::args()) {
            eprintln!("in the environment variable {variable}:");
        }
        error.exit()
    });
    let task = match typed.command {
        Some(Command::Crds) => return Ok(Task::PrintCrds),
        Some(Command::Check) => Task::Check,
        Some(Command::CheckUninstall) => Task::CheckUninstall,
        None => Task::Run,
    };
    settings(typed, |name| std::env::var(name).ok()).map(|settings| task(Box::new(settings)))
}

/// clap blames the flag even if the value came from the environment: finds the variable.
fn blamed_variable(error: &clap::Error, mut typed: impl Iterator<Item = String>) -> Option<String> {
    let Some(ContextValue::String(argument)) = error.get(ContextKind::InvalidArg) else {
        return None;
    };
    let flag = argument.split_whitespace().next()?;
    let is_flag = |word: String| word.split('=').next() == Some(flag);
    if typed.any(is_flag) {
        return None;
    }
    let command = Typed::command();
    let argument = command
        .get_arguments()
        .find(|argument| argument.get_long() == flag.strip_prefix("--"))?;
    Some(argument.get_env()?.to_string_lossy().into_owned())
}

fn settings(typed: Typed, variable: impl Fn(&str) -> Option<String>) -> Result<Settings, String> {
    Endpoints::parse(typed.ecs_endpoint.as_deref(), None, false)
        .map_err(|error| format!("--ecs-endpoint: {error}"))?;
    Endpoints::parse(None, typed.sts_endpoint.as_deref(), false)
        .map_err(|error| format!("--sts-endpoint: {error}"))?;
    let mut namespaces = typed.namespaces;
    namespaces.retain(|namespace| !namespace.is_empty());
    namespaces.sort_unstable();
    namespaces.dedup();
    let scopes = if namespaces.is_empty() {
        vec![WatchScope::All]
    } else {
        namespaces.into_iter().map(WatchScope::Namespace).collect()
    };
    if typed.node_conditions && !scopes.contains(&WatchScope::All) {
        return Err("--node-conditions cannot be used with --namespace: the operator of another namespace could write the same condition of the same Node; leave out one of both".to_owned());
    }
    Ok(Settings {
        listen: typed.listen,
        scopes,
        operator_namespace: typed.operator_namespace,
        default_endpoints: EndpointSpec {
            ecs: typed.ecs_endpoint,
            sts: typed.sts_endpoint,
            allow_insecure: None,
            ca_bundle: None,
        },
        scan_period: typed.scan_period,
        lease_duration: typed.leader_elect.then_some(typed.lease_duration),
        not_observed_after: typed.not_observed_after,
        max_writes_in_flight: typed.max_writes_in_flight,
        node_conditions: typed.node_conditions,
        instance: variable("HOSTNAME").filter(|name| !name.is_empty()),
        environment: Environment::read(variable)?,
        metadata_service: typed.metadata_endpoint,
        docs_url: typed.docs_url,
        log_format: typed.log_format,
        log_filter: typed.log_filter,
    })
}

/// A name that becomes a part of paths at the API server: nothing else than a namespace's own.
fn namespace(text: &str) -> Result<String, String> {
    let letter = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    let is_name = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| letter(byte) || byte == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-');
    if is_name {
        Ok(text.to_owned())
    } else {
        Err("a namespace has 1 to 63 lower-case letters, digits and dashes".to_owned())
    }
}

/// An empty variable, or a comma at the end, names none.
fn namespace_or_nothing(text: &str) -> Result<String, String> {
    if text.is_empty() {
        Ok(String::new())
    } else {
        namespace(text)
    }
}

fn scan_period(text: &str) -> Result<Duration, String> {
    let period: Duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write 60s or 5m"))?;
    if (Duration::from_secs(1)..=Duration::from_secs(86_400)).contains(&period) {
        Ok(period)
    } else {
        Err("a scan takes from 1s to 1d".to_owned())
    }
}

fn lease_duration(text: &str) -> Result<Duration, String> {
    let duration: Duration =
        humantime::parse_duration(text).map_err(|error| format!("{error}; write 15s"))?;
    let is_whole = duration.subsec_nanos() == 0;
    if is_whole && (1..=60).contains(&duration.as_secs()) {
        Ok(duration)
    } else {
        Err("a Lease lasts whole seconds, from 1s to 60s".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(arguments: &[&str], variables: &[(&str, &str)]) -> Result<Settings, String> {
        let typed =
            Typed::try_parse_from([&["security-group-operator"], arguments].concat()).unwrap();
        settings(typed, |name| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn all_namespaces_are_watched_by_default() {
        assert_eq!(run(&[], &[]).unwrap().scopes, [WatchScope::All]);
    }

    #[test]
    fn namespace_flags_are_merged_and_deduplicated() {
        let settings = run(&["--namespace", "b", "--namespace", "a,b"], &[]).unwrap();
        assert_eq!(
            settings.scopes,
            ["a", "b"].map(|name| WatchScope::Namespace(name.to_owned()))
        );
    }

    #[test]
    fn leader_election_is_off_unless_asked_for() {
        let lasts = |arguments: &[&str]| run(arguments, &[]).unwrap().lease_duration;
        assert_eq!(lasts(&[]), None);
        assert_eq!(lasts(&["--leader-elect=false"]), None);
        let duration = Some(Duration::from_secs(15));
        assert_eq!(lasts(&["--leader-elect"]), duration);
        assert_eq!(lasts(&["--leader-elect=true"]), duration);
        assert_eq!(
            lasts(&["--leader-elect", "--lease-duration=2s"]),
            Some(Duration::from_secs(2))
        );
        for wrong in ["0s", "500ms", "1500ms", "61s", "soon"] {
            let typed = format!("--lease-duration={wrong}");
            assert!(Typed::try_parse_from(["", &typed]).is_err(), "{wrong}");
        }
    }

    #[test]
    fn node_conditions_are_off_by_default_and_need_all_namespaces() {
        let is_on =
            |arguments: &[&str]| run(arguments, &[]).map(|settings| settings.node_conditions);
        assert_eq!(is_on(&[]), Ok(false));
        assert_eq!(is_on(&["--node-conditions"]), Ok(true));
        assert_eq!(
            is_on(&["--node-conditions=false", "--namespace=a"]),
            Ok(false)
        );
        let error = is_on(&["--node-conditions", "--namespace=a"]).unwrap_err();
        assert!(error.contains("--namespace"), "{error}");
    }

    #[test]
    fn half_a_credential_names_the_missing_variable() {
        let error = run(&[], &[("ALIBABA_CLOUD_ACCESS_KEY_ID", "id")]).unwrap_err();
        assert!(error.contains("ALIBABA_CLOUD_ACCESS_KEY_SECRET"), "{error}");
    }

    #[test]
    fn variable_is_blamed_when_its_flag_was_not_typed() {
        let blamed = |words: &[&str]| {
            let words = || std::iter::once("security-group-operator").chain(words.iter().copied());
            let error = Typed::try_parse_from(words()).unwrap_err();
            blamed_variable(&error, words().map(str::to_owned))
        };
        for typed in [
            ["--scan-period=soon"].as_slice(),
            &["--scan-period", "soon"],
        ] {
            assert_eq!(blamed(typed), None);
        }
        let error = Typed::try_parse_from(["", "--scan-period=soon"]).unwrap_err();
        let variable = blamed_variable(&error, ["--listen=soon".to_owned()].into_iter());
        assert_eq!(
            variable.as_deref(),
            Some("SECURITY_GROUP_OPERATOR_SCAN_PERIOD")
        );
        assert_eq!(blamed(&["--help"]), None);
    }

    #[test]
    fn invalid_endpoint_names_its_flag() {
        let error = run(&["--ecs-endpoint", "ftp://x"], &[]).unwrap_err();
        assert!(error.contains("--ecs-endpoint"), "{error}");
    }
}
