//! What the operator needs of the cluster before it can work: kinds that exist, rights to list them, CRDs of its own version.
//! Looks only.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write as _};
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::api::ListParams;
use kube::{Api, Resource, ResourceExt as _};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tracing::{debug, info, warn};

use crate::account::directory::AccountKinds;
use crate::api::{
    self, CloudAccount, ClusterCloudAccount, INSTALL_CRDS, SecurityGroupMembership,
    SecurityGroupMembershipSet,
};
use crate::kubernetes::{self, LogDeduper, WatchScope, error_chain, older_crds, with_deadline};

/// How often an operator that may not list `ClusterCloudAccounts` asks whether it may now (1 minute).
const ASK_AGAIN: Duration = Duration::from_secs(60);

/// Returns when all kinds can be listed, with the kinds of account that can be. Logs each new problem once.
pub async fn wait_until_listable(client: &kube::Client, scopes: &[WatchScope]) -> AccountKinds {
    let logged = LogDeduper::default();
    let mut wait = Duration::from_secs(1);
    loop {
        match listable(client, scopes).await {
            Ok(kinds) => {
                if kinds == AccountKinds::NamespacedOnly {
                    info!("{WITHOUT_CLUSTER_ACCOUNTS}");
                }
                return kinds;
            }
            Err(trouble) => {
                if logged.is_first(&trouble) {
                    warn!("{trouble}");
                }
            }
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(30));
    }
}

const WITHOUT_CLUSTER_ACCOUNTS: &str = "the operator may not list ClusterCloudAccounts and namespaces: it serves only memberships that name a CloudAccount of their namespace";

/// Returns when `ClusterCloudAccounts` and namespaces can be listed; never for an operator that lists them already.
pub async fn until_cluster_accounts_are_listable(client: &kube::Client, kinds: AccountKinds) {
    match kinds {
        AccountKinds::Both => std::future::pending().await,
        AccountKinds::NamespacedOnly => loop {
            tokio::time::sleep(ASK_AGAIN).await;
            if can_list_cluster_accounts(client).await.is_ok() {
                return;
            }
        },
    }
}

/// Everything that keeps the operator from its work, one line each; what it found, in one line, if nothing does.
///
/// # Errors
/// The problems.
pub async fn check(client: &kube::Client, scopes: &[WatchScope]) -> Result<String, Vec<String>> {
    let kinds = listable(client, scopes)
        .await
        .map_err(|trouble| vec![trouble])?;
    let old = old_crds(client)
        .await
        .map_err(|error| vec![unusable(&error)])?;
    if !old.is_empty() {
        return Err(old.into_iter().map(|(_, trouble)| trouble).collect());
    }
    let ready = "the CRDs are of this version, and the operator may list what it needs";
    Ok(match kinds {
        AccountKinds::Both => ready.to_owned(),
        AccountKinds::NamespacedOnly => format!("{ready}; {WITHOUT_CLUSTER_ACCOUNTS}"),
    })
}

/// Whether the operator can be uninstalled: neither a membership nor an account waits for it to take its finalizer off. It takes that of
/// an account off some seconds after the last membership has gone; so long this waits.
///
/// # Errors
/// How many are where, and what to do; or why they cannot be listed.
pub async fn check_uninstall(
    client: &kube::Client,
    scopes: &[WatchScope],
) -> Result<String, Vec<String>> {
    let mut left: BTreeMap<String, usize> = BTreeMap::new();
    for scope in scopes {
        let memberships: Api<SecurityGroupMembership> = scope.api(client);
        count_finalizers(&memberships, api::FINALIZER, &mut left)
            .await
            .map_err(|error| vec![unusable(&error)])?;
    }
    if let Some(namespace) = left.keys().next() {
        let names = counted(&left);
        return Err(vec![format!(
            "memberships that need the operator: {} ({names}). Without it their deletion never ends, nor does that of their \
             namespaces. Delete them first (kubectl delete sgmset,sgm --all -n {namespace}), or uninstall all the same with --no-hooks, and \
             install the operator again before you delete them",
            left.values().sum::<usize>()
        )]);
    }
    let mut looks = 1;
    loop {
        let accounts = accounts_left(client, scopes).await;
        let accounts = accounts.map_err(|error| vec![unusable(&error)])?;
        if accounts.is_empty() {
            return Ok("nothing needs the operator: it can be uninstalled".to_owned());
        }
        if looks == UNINSTALL_LOOKS {
            return Err(vec![format!(
                "accounts that still have the operator's finalizer {}: {}. Without the operator their deletion never ends. It takes the \
                 finalizer off when no membership that it joined needs the account: see that it runs, and try again; or take it off \
                 by hand (docs/user/uninstall.md)",
                api::ACCOUNT_FINALIZER,
                accounts.values().sum::<usize>()
            )]);
        }
        looks += 1;
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// How often accounts are looked at until one that has the finalizer counts (20): the operator looks every 5 s.
const UNINSTALL_LOOKS: u32 = 20;

/// How many accounts have the operator's finalizer, by namespace. An operator that watches some namespaces only has none on a
/// `ClusterCloudAccount`.
async fn accounts_left(
    client: &kube::Client,
    scopes: &[WatchScope],
) -> Result<BTreeMap<String, usize>, kubernetes::Error> {
    let mut left = BTreeMap::new();
    for scope in scopes {
        let accounts: Api<CloudAccount> = scope.api(client);
        count_finalizers(&accounts, api::ACCOUNT_FINALIZER, &mut left).await?;
    }
    if scopes.contains(&WatchScope::All) {
        let accounts: Api<ClusterCloudAccount> = Api::all(client.clone());
        count_finalizers(&accounts, api::ACCOUNT_FINALIZER, &mut left).await?;
    }
    Ok(left)
}

/// The first namespaces with their numbers.
fn counted(left: &BTreeMap<String, usize>) -> String {
    let mut names = String::new();
    for (namespace, count) in left.iter().take(NAMESPACES_NAMED) {
        let separator = if names.is_empty() { "" } else { ", " };
        let _ = write!(names, "{separator}{namespace}: {count}");
    }
    if left.len() > NAMESPACES_NAMED {
        let _ = write!(names, ", and {} more", left.len() - NAMESPACES_NAMED);
    }
    names
}

/// Namespaces that are named before the rest is only counted.
const NAMESPACES_NAMED: usize = 10;

/// Adds the number of objects with a finalizer to `left`, by namespace.
async fn count_finalizers<K>(
    objects: &Api<K>,
    finalizer: &str,
    left: &mut BTreeMap<String, usize>,
) -> Result<(), kubernetes::Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
{
    let mut page = ListParams::default().limit(500);
    loop {
        let list = match with_deadline(objects.list_metadata(&page)).await {
            Ok(list) => list,
            // Without the kind there is no object of it.
            Err(error) if error.code() == Some(404) => return Ok(()),
            Err(error) => return Err(error),
        };
        for object in &list.items {
            if object.finalizers().iter().any(|name| name == finalizer) {
                let namespace = object.namespace().unwrap_or_default();
                *left.entry(namespace).or_default() += 1;
            }
        }
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page = page.continue_token(&token),
            Some(_) | None => return Ok(()),
        }
    }
}

/// Warns of each CRD that lacks fields of this version: the API server would drop them without a word.
pub async fn warn_of_old_crds(client: kube::Client) {
    match old_crds(&client).await {
        Ok(old) => {
            for (plural, trouble) in old {
                older_crds::warn_once(plural, &trouble);
            }
        }
        Err(error) => debug!("the schemas of the CRDs could not be read: {error}"),
    }
}

/// One line for each CRD of the cluster that lacks fields of this version. Every authenticated user may read the schemas. The API
/// server publishes them some seconds after a CRD is installed, so that a problem counts only if it stays.
async fn old_crds(client: &kube::Client) -> Result<Vec<(&'static str, String)>, kubernetes::Error> {
    let mut looks = 1;
    loop {
        match old_crds_now(client).await {
            Ok(old) if !old.is_empty() && looks < LOOKS => {}
            Err(error) if error.code() == Some(404) && looks < LOOKS => {}
            found => return found,
        }
        looks += 1;
        tokio::time::sleep(BETWEEN_LOOKS).await;
    }
}

/// How often schemas are read until a problem counts.
const LOOKS: u32 = 6;
/// Time between two reads of the schemas (1 s).
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

async fn old_crds_now(
    client: &kube::Client,
) -> Result<Vec<(&'static str, String)>, kubernetes::Error> {
    let path = format!(
        "/openapi/v3/apis/{}",
        SecurityGroupMembership::api_version(&())
    );
    let request = http::Request::get(path).body(Vec::new());
    let request = request.map_err(kube::Error::HttpError)?;
    let served: Document = with_deadline(client.request(request)).await?;
    let mut old = Vec::new();
    for (plural, crd) in api::crds() {
        let kind = &crd.spec.names.kind;
        let mut schemas = served.components.schemas.values();
        let Some(served) = schemas.find(|schema| schema.kinds.iter().any(|of| of.kind == *kind))
        else {
            continue;
        };
        let mut missing = Vec::new();
        for version in &crd.spec.versions {
            let schema = version.schema.as_ref();
            if let Some(own) = schema.and_then(|schema| schema.open_api_v3_schema.as_ref()) {
                missing_fields(own, served, "", &mut missing);
            }
        }
        if let Some(first) = missing.first() {
            let more = match missing.len() {
                1 => String::new(),
                all => format!(" and {} more fields", all - 1),
            };
            let line = format!(
                "the CRD {plural}.{} is older than this operator: it lacks {first}{more}, which the API server then drops; install the CRDs of this version: {INSTALL_CRDS}",
                api::GROUP
            );
            old.push((plural, line));
        }
    }
    Ok(old)
}

/// Collects the paths of the fields of `own` that `served` lacks; not what is below such a field.
fn missing_fields(own: &JSONSchemaProps, served: &Schema, path: &str, missing: &mut Vec<String>) {
    for (name, own) in own.properties.iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        match served.properties.get(name) {
            Some(served) => missing_fields(own, served, &path, missing),
            None if ["apiVersion", "kind", "metadata"].contains(&path.as_str()) => {}
            None => missing.push(path),
        }
    }
    if let Some(JSONSchemaPropsOrArray::Schema(own)) = &own.items
        && let Some(served) = &served.items
    {
        missing_fields(own, served, path, missing);
    }
}

/// An OpenAPI document, as far as it is read here.
#[derive(Deserialize)]
struct Document {
    components: Components,
}

#[derive(Deserialize)]
struct Components {
    schemas: BTreeMap<String, Schema>,
}

#[derive(Deserialize)]
struct Schema {
    #[serde(rename = "x-kubernetes-group-version-kind", default)]
    kinds: Vec<Kind>,
    #[serde(default)]
    properties: BTreeMap<String, Schema>,
    items: Option<Box<Schema>>,
}

#[derive(Deserialize)]
struct Kind {
    kind: String,
}

/// The kinds of account that can be listed; an error if the operator cannot work.
async fn listable(client: &kube::Client, scopes: &[WatchScope]) -> Result<AccountKinds, String> {
    for scope in scopes {
        let memberships = scope.api::<SecurityGroupMembership>(client);
        can_list(&memberships)
            .await
            .map_err(|error| trouble("securitygroupmemberships", &error))?;
        let sets = scope.api::<SecurityGroupMembershipSet>(client);
        can_list(&sets)
            .await
            .map_err(|error| trouble("securitygroupmembershipsets", &error))?;
        let accounts = scope.api::<CloudAccount>(client);
        can_list(&accounts)
            .await
            .map_err(|error| trouble("cloudaccounts", &error))?;
    }
    let is_namespaced = scopes.iter().all(|scope| *scope != WatchScope::All);
    match can_list_cluster_accounts(client).await {
        Ok(()) => Ok(AccountKinds::Both),
        Err((_, error)) if is_namespaced && error.code() == Some(403) => {
            Ok(AccountKinds::NamespacedOnly)
        }
        Err((plural, error)) => Err(trouble(plural, &error)),
    }
}

/// Whether `ClusterCloudAccounts` can be listed, and the namespaces whose labels their grants name; or which of them cannot be, and why.
async fn can_list_cluster_accounts(
    client: &kube::Client,
) -> Result<(), (&'static str, kubernetes::Error)> {
    let accounts: Api<ClusterCloudAccount> = Api::all(client.clone());
    let listed = can_list(&accounts).await;
    listed.map_err(|error| ("clustercloudaccounts", error))?;
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let listed = can_list(&namespaces).await;
    listed.map_err(|error| ("namespaces", error))
}

async fn can_list<K>(api: &Api<K>) -> Result<(), kubernetes::Error>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let one = ListParams::default().limit(1);
    with_deadline(api.list_metadata(&one)).await.map(|_| ())
}

/// Why a kind cannot be listed, and what to do.
fn trouble(plural: &str, error: &kubernetes::Error) -> String {
    match error.code() {
        Some(404) => {
            format!("the cluster does not know {plural}; install the CRDs: {INSTALL_CRDS}")
        }
        Some(401) => "the cluster does not accept the operator's credentials; check KUBECONFIG or the service account".to_owned(),
        Some(403) => format!(
            "the operator may not list {plural}; apply the roles in deploy/ and bind them to its service account: {error}"
        ),
        Some(_) | None => unusable(error),
    }
}

fn unusable(error: &kubernetes::Error) -> String {
    format!(
        "the Kubernetes API server cannot be used: {}",
        error_chain(error)
    )
}
