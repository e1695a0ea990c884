//! The cloud, with the person's own key or with the key of an account object whose Secret the person may read. Reads only.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::account::as_user::NoClient;
use crate::account::key::AccountKey;
use crate::api::SecurityGroupMembership;
use crate::api::account::Endpoints as EndpointSpec;
use crate::api::membership::AccountKind;
use crate::clock::Clock;
use crate::ecs::credential::{Environment, METADATA_SERVICE, Network};
use crate::ecs::{
    self, Class, Client, Endpoints, Http, InstanceId, NetworkInterfaceId, Proxies, Region,
    SecurityGroupId, Target, TargetDescription, Transport,
};
use crate::membership::object::account_key;
use crate::shutdown::Shutdown;

use super::cluster::Cluster;
use super::failure::{Failure, exit, of_cloud};
use super::progress::Progress;

/// Whose key, and where the cloud is.
#[expect(clippy::doc_markdown, reason = "--help shows these texts as they are")]
#[derive(Clone, Debug, Default, clap::Args)]
pub struct CloudArguments {
    /// Use the key of this account object, with your own right to read its Secret: NAME or CloudAccount/NAME. Default: the key in your
    /// environment (ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, ALIBABA_CLOUD_CREDENTIALS_URI, the variables of
    /// RRSA, ALIBABA_CLOUD_ECS_METADATA); without one, the account that the objects name.
    #[arg(long, global = true, value_name = "NAME")]
    pub account: Option<String>,
    /// Namespace in which Secrets of a ClusterCloudAccount live.
    #[arg(
        long,
        global = true,
        value_name = "NS",
        default_value = "security-group-operator",
        hide_short_help = true
    )]
    pub operator_namespace: String,
    /// Base URL of ECS for your own key; {region} in its host is the region of the call. Default: the public endpoint of each region.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SECURITY_GROUP_OPERATOR_ECS_ENDPOINT",
        hide_short_help = true
    )]
    pub ecs_endpoint: Option<String>,
    /// Base URL of STS for your own key. Default: <https://sts.aliyuncs.com>.
    #[arg(
        long,
        global = true,
        value_name = "URL",
        env = "SECURITY_GROUP_OPERATOR_STS_ENDPOINT",
        hide_short_help = true
    )]
    pub sts_endpoint: Option<String>,
}

/// The cloud of a person.
pub struct Cloud {
    client: Client,
    /// Whose key signs the calls, for messages.
    pub whose: String,
}

impl CloudArguments {
    /// The account that the person names, if any.
    ///
    /// # Errors
    /// The text names none.
    pub fn key(&self, namespace: &str) -> Result<Option<AccountKey>, Failure> {
        let Some(text) = &self.account else {
            return Ok(None);
        };
        let (kind, name) = match text.split_once('/') {
            None => (AccountKind::ClusterCloudAccount, text.as_str()),
            Some(("ClusterCloudAccount" | "clustercloudaccount", name)) => {
                (AccountKind::ClusterCloudAccount, name)
            }
            Some(("CloudAccount" | "cloudaccount", name)) => (AccountKind::CloudAccount, name),
            Some(_) => {
                return Err(Failure::with(
                    2,
                    format!("--account {text}: write NAME or CloudAccount/NAME"),
                ));
            }
        };
        let namespace = match kind {
            AccountKind::ClusterCloudAccount => String::new(),
            AccountKind::CloudAccount => namespace.to_owned(),
        };
        Ok(Some(AccountKey {
            kind,
            namespace,
            name: name.to_owned(),
        }))
    }

    fn defaults(&self) -> EndpointSpec {
        EndpointSpec {
            ecs: self.ecs_endpoint.clone(),
            sts: self.sts_endpoint.clone(),
            allow_insecure: None,
            ca_bundle: None,
        }
    }

    /// The cloud with the key of an account object.
    ///
    /// # Errors
    /// The account, its Secret, or a right to read one of them is missing.
    pub async fn of_account(&self, cluster: &Cluster, key: &AccountKey) -> Result<Cloud, Failure> {
        let account = cluster.account(key).await?;
        let transport = transport()?;
        let defaults = self.defaults();
        let found = account.cloud_client(
            &cluster.client,
            &self.operator_namespace,
            transport,
            &defaults,
        );
        let client = found.await.map_err(|error| match error {
            NoClient::Forbidden {
                verb,
                resource,
                namespace,
            } => Failure::with(
                exit::NO_RIGHT,
                format!(
                    "you may not {verb} {resource} in namespace {namespace}, which the key of {key} needs; set your own key in ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET"
                ),
            ),
            NoClient::OperatorsOwn(key) => Failure::with(
                exit::NO_RIGHT,
                format!(
                    "{key} uses the credentials of the operator's own pod; set your own key in ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET"
                ),
            ),
            NoClient::Other(message) => Failure::new(format!("{key}: {message}")),
        })?;
        Ok(Cloud {
            client,
            whose: format!("the key of {key}"),
        })
    }

    /// The cloud with the key of the environment; `None` if it names no key.
    ///
    /// # Errors
    /// A variable is wrong, or the source gives no key.
    pub async fn own(&self) -> Result<Option<Cloud>, Failure> {
        let variable = |name: &str| std::env::var(name).ok();
        let environment = Environment::read(variable).map_err(Failure::new)?;
        let is_metadata = matches!(&environment, Environment::Source(source) if format!("{source:?}").starts_with("RamRole"));
        // No one waits for a metadata service that was not asked for.
        if is_metadata && variable("ALIBABA_CLOUD_ECS_METADATA").is_none() {
            return Ok(None);
        }
        let Some(provider) = environment.provider() else {
            return Ok(None);
        };
        let endpoints = Endpoints::parse(
            self.ecs_endpoint.as_deref(),
            self.sts_endpoint.as_deref(),
            false,
        )
        .map_err(|error| Failure::new(format!("--ecs-endpoint, --sts-endpoint: {error}")))?;
        let transport = transport()?;
        let network = Network {
            // No proxy reaches the metadata service of this machine.
            transport: if is_metadata {
                through(Proxies::None)?
            } else {
                Arc::clone(&transport)
            },
            endpoints: endpoints.clone(),
            metadata: Url::parse(METADATA_SERVICE)
                .map_err(|error| Failure::new(error.to_string()))?,
            clock: Clock::system(),
            shutdown: Shutdown::default(),
        };
        let key = provider.obtain(&network).await;
        let key = key.map_err(|error| Failure::new(format!("your environment: {error}")))?;
        Ok(Some(Cloud {
            client: Client::new(transport, key.credential, endpoints),
            whose: "the key of your environment".to_owned(),
        }))
    }

    /// The cloud for objects: by `--account`, by the environment, or by the one account that they name.
    ///
    /// # Errors
    /// There is no key, or several accounts to choose from.
    pub async fn choose(
        &self,
        cluster: &Cluster,
        objects: &[SecurityGroupMembership],
    ) -> Result<Cloud, Failure> {
        if let Some(key) = self.key(&cluster.namespace)? {
            return self.of_account(cluster, &key).await;
        }
        if let Some(cloud) = self.own().await? {
            return Ok(cloud);
        }
        let named: BTreeSet<AccountKey> = objects.iter().map(account_of).collect();
        let mut named = named.into_iter();
        match (named.next(), named.next()) {
            (Some(key), None) => self.of_account(cluster, &key).await,
            (None, _) => Err(Failure::new(
                "no key of the cloud: set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or name an account with --account",
            )),
            (Some(first), Some(second)) => Err(Failure::new(format!(
                "the objects name several accounts, among them {first} and {second}: choose one with --account"
            ))),
        }
    }
}

/// The region of objects, unless the person names one.
///
/// # Errors
/// The text is no region; or no object, or objects of several regions, could tell.
pub fn region(
    named: Option<&str>,
    objects: &[SecurityGroupMembership],
    what: &str,
) -> Result<Region, Failure> {
    let parse = |text: &str| -> Result<Region, Failure> {
        text.parse()
            .map_err(|error| Failure::with(2, format!("--region: {error}")))
    };
    if let Some(named) = named {
        return parse(named);
    }
    let regions: BTreeSet<&str> = objects.iter().map(|of| of.spec.region.as_str()).collect();
    let mut regions = regions.into_iter();
    match (regions.next(), regions.next()) {
        (Some(region), None) => parse(region),
        (None, _) => Err(Failure::with(
            2,
            format!("no object names {what}: write its region, such as --region cn-hangzhou"),
        )),
        (Some(_), Some(_)) => Err(Failure::with(
            2,
            format!("objects of several regions name {what}: choose one with --region"),
        )),
    }
}

/// The account that an object names.
#[must_use]
pub fn account_of(object: &SecurityGroupMembership) -> AccountKey {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    account_key(&object.spec, &namespace)
}

/// The person's network, with its proxies.
fn transport() -> Result<Arc<dyn Transport>, Failure> {
    through(Proxies::Environment)
}

fn through(proxies: Proxies) -> Result<Arc<dyn Transport>, Failure> {
    Ok(Arc::new(Http::through(proxies).map_err(|error| {
        Failure::new(format!("TLS cannot be set up: {error}"))
    })?))
}

/// Longest wait for a rate limit or a busy cloud before a command gives up: 8 tries, 1 s to 10 s apart.
const TRIES: u32 = 8;

impl Cloud {
    /// A target as the cloud describes it; `None` if it is not listed.
    ///
    /// # Errors
    /// The cloud refuses the read, or does not answer.
    pub async fn describe(
        &self,
        region: &Region,
        targets: &[Target],
    ) -> Result<BTreeMap<String, TargetDescription>, Failure> {
        let mut instances: Vec<InstanceId> = Vec::new();
        let mut interfaces: Vec<NetworkInterfaceId> = Vec::new();
        for target in targets {
            match target {
                Target::Instance(id) => instances.push(id.clone()),
                Target::NetworkInterface(id) => interfaces.push(id.clone()),
            }
        }
        let mut found = BTreeMap::new();
        if !instances.is_empty() {
            let read = || self.client.describe_instances(region, &instances);
            let rows = self.patiently(read).await?;
            found.extend(rows.into_iter().map(|(id, row)| (id.to_string(), row)));
        }
        if !interfaces.is_empty() {
            let read = || self.client.describe_network_interfaces(region, &interfaces);
            let rows = self.patiently(read).await?;
            found.extend(rows.into_iter().map(|(id, row)| (id.to_string(), row)));
        }
        Ok(found)
    }

    /// Every instance and secondary network interface in a group, 100 a call. A large group is read with a line of progress on
    /// standard error.
    ///
    /// # Errors
    /// The cloud refuses the read, or does not answer.
    pub async fn members(
        &self,
        region: &Region,
        group: &SecurityGroupId,
    ) -> Result<Vec<(Target, TargetDescription)>, Failure> {
        let mut found: Vec<(Target, TargetDescription)> = Vec::new();
        let mut progress = Progress::default();
        let mut tokens: HashSet<String> = HashSet::new();
        let mut token: Option<String> = None;
        loop {
            let read = || {
                self.client
                    .instances_in_group(region, group, token.as_deref())
            };
            let (rows, next) = self.patiently(read).await?;
            let rows = rows.into_iter();
            found.extend(rows.map(|(id, row)| (Target::Instance(id), row)));
            progress.read(found.len());
            token = self.next(next, &mut tokens)?;
            if token.is_none() {
                break;
            }
        }
        tokens.clear();
        loop {
            let read = || {
                self.client
                    .interfaces_in_group(region, group, token.as_deref())
            };
            let (rows, next) = self.patiently(read).await?;
            let rows = rows.into_iter();
            found.extend(rows.map(|(id, row)| (Target::NetworkInterface(id), row)));
            progress.read(found.len());
            token = self.next(next, &mut tokens)?;
            if token.is_none() {
                break;
            }
        }
        progress.end(found.len());
        Ok(found)
    }

    fn next(
        &self,
        next: Option<String>,
        seen: &mut HashSet<String>,
    ) -> Result<Option<String>, Failure> {
        if next.clone().is_some_and(|token| !seen.insert(token)) {
            return Err(Failure::new(format!(
                "{}: the pages of the answer do not end",
                self.whose
            )));
        }
        Ok(next)
    }

    /// Calls again where the cloud says that it is busy.
    async fn patiently<T, F: Future<Output = Result<T, ecs::Error>>>(
        &self,
        call: impl Fn() -> F,
    ) -> Result<T, Failure> {
        let mut tries = 0;
        loop {
            match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) if error.class() == Class::Throttled && tries < TRIES => {
                    tries += 1;
                    let asked = error.retry_after().unwrap_or(Duration::from_secs(2));
                    let bounds = (Duration::from_secs(1), Duration::from_secs(10));
                    tokio::time::sleep(asked.clamp(bounds.0, bounds.1)).await;
                }
                Err(error) => return Err(of_cloud(&self.whose, &error)),
            }
        }
    }
}
