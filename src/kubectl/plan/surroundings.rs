//! What a forecast needs to know beside the object: accounts, labels, targets, the other objects. Reads; then takes what each object does
//! as done for the next ones.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, ResourceExt as _};

use crate::account::as_user::AnyAccount;
use crate::account::key::AccountKey;
use crate::api::membership::AccountKind;
use crate::api::{
    CloudAccount, ClusterCloudAccount, FINALIZER, SecurityGroupMembership,
    SecurityGroupMembershipSet, reason,
};
use crate::condition;
use crate::ecs::{AccountUid, Edge, Region, Target, TargetDescription};
use crate::kubernetes::with_deadline;
use crate::membership::decide::{ReconcileOutcome, Step};
use crate::membership::forecast::{Forecast, KnownAccount};

use super::super::cloud::{CloudArguments, account_of};
use super::super::cluster::Cluster;
use super::super::failure::{Failure, exit};
use super::super::lint::Objects;
use super::super::output::note;
use super::super::sets::controls;

/// The targets of one account and region, or why they cannot be read.
type Targets = Result<BTreeMap<String, TargetDescription>, Failure>;

/// All that is known beside the objects of the files.
pub(super) struct Surroundings {
    accounts: BTreeMap<AccountKey, KnownAccount>,
    labels: BTreeMap<String, BTreeMap<String, String>>,
    targets: BTreeMap<(AccountKey, String), Targets>,
    /// Every object that is known, by namespace and name: those of the cluster, and those of the files after their forecast.
    objects: BTreeMap<(String, String), SecurityGroupMembership>,
}

impl Surroundings {
    /// The memberships of the cluster, or at least those of these namespaces.
    ///
    /// # Errors
    /// They cannot be listed.
    pub(super) async fn list(
        cluster: &Cluster,
        namespaces: &BTreeSet<&str>,
    ) -> Result<Self, Failure> {
        let mut all = Self {
            accounts: BTreeMap::new(),
            labels: BTreeMap::new(),
            targets: BTreeMap::new(),
            objects: BTreeMap::new(),
        };
        for object in cluster.everywhere_or_in(namespaces, "").await? {
            all.objects.insert(key_of(&object), object);
        }
        Ok(all)
    }

    /// Reads the accounts and targets of these objects.
    ///
    /// # Errors
    /// A right is missing, or there is no answer.
    pub(super) async fn read(
        &mut self,
        cluster: &Cluster,
        files: &Objects,
        wanted: &[SecurityGroupMembership],
        arguments: &CloudArguments,
    ) -> Result<(), Failure> {
        for object in wanted {
            let namespace = object.namespace().unwrap_or_default();
            self.read_account(cluster, files, account_of(object), namespace)
                .await?;
        }
        self.read_targets(cluster, wanted, arguments).await
    }

    /// Reads an account that an object in this namespace names, and what grants look at in the namespace.
    ///
    /// # Errors
    /// A right is missing, or there is no answer.
    pub(super) async fn read_account(
        &mut self,
        cluster: &Cluster,
        files: &Objects,
        key: AccountKey,
        namespace: String,
    ) -> Result<(), Failure> {
        if let Entry::Vacant(entry) = self.accounts.entry(key.clone()) {
            entry.insert(known(cluster, files, &key).await?);
        }
        if !self.labels.contains_key(&namespace)
            && let Some(labels) = labels(cluster, &namespace).await
        {
            self.labels.insert(namespace, labels);
        }
        Ok(())
    }

    async fn read_targets(
        &mut self,
        cluster: &Cluster,
        stored: &[SecurityGroupMembership],
        arguments: &CloudArguments,
    ) -> Result<(), Failure> {
        let mut wanted: BTreeMap<(AccountKey, String), (Region, BTreeSet<Target>)> =
            BTreeMap::new();
        for object in stored {
            let Ok(edge) = Edge::try_from(&object.spec) else {
                continue;
            };
            let key = (account_of(object), edge.region.to_string());
            let entry = wanted
                .entry(key)
                .or_insert_with(|| (edge.region, BTreeSet::new()));
            entry.1.insert(edge.target);
        }
        // One key for all, where the person names one; otherwise that of each account.
        let own = match arguments.key(&cluster.namespace)? {
            Some(key) => Some(arguments.of_account(cluster, &key).await?),
            None => arguments.own().await?,
        };
        for ((account, name), (region, targets)) in wanted {
            let targets: Vec<Target> = targets.into_iter().collect();
            let is_there = !matches!(self.accounts.get(&account), Some(KnownAccount::Missing));
            let read = match &own {
                Some(cloud) => cloud.describe(&region, &targets).await,
                // Without the account nothing is read.
                None if !is_there => Ok(BTreeMap::new()),
                None => match arguments.of_account(cluster, &account).await {
                    Ok(cloud) => cloud.describe(&region, &targets).await,
                    Err(failure) => Err(failure),
                },
            };
            self.targets.insert((account, name), read);
        }
        Ok(())
    }

    /// The target of an object; `None` if the cloud does not list it.
    pub(super) fn target(
        &self,
        object: &SecurityGroupMembership,
        edge: &Edge,
    ) -> Result<Option<TargetDescription>, Failure> {
        let key = (account_of(object), edge.region.to_string());
        match self.targets.get(&key) {
            Some(Ok(found)) => Ok(found.get(&edge.target.to_string()).cloned()),
            Some(Err(failure)) => Err(failure.clone()),
            None => Err(Failure::new("it was not asked for")),
        }
    }

    /// The account of this key.
    pub(super) fn account(&self, key: &AccountKey) -> &KnownAccount {
        const UNREADABLE: &KnownAccount = &KnownAccount::Unreadable;
        self.accounts.get(key).unwrap_or(UNREADABLE)
    }

    /// The labels of a namespace, if they could be read.
    pub(super) fn labels(&self, namespace: &str) -> Option<&BTreeMap<String, String>> {
        self.labels.get(namespace)
    }

    /// The other objects on an edge.
    pub(super) fn others(
        &self,
        object: &SecurityGroupMembership,
        edge: &Edge,
    ) -> Vec<SecurityGroupMembership> {
        let own = key_of(object);
        let others = self.objects.iter().filter(|(key, other)| {
            **key != own && Edge::try_from(&other.spec).is_ok_and(|of| of == *edge)
        });
        others.map(|(_, other)| other.clone()).collect()
    }

    /// Takes what an object does as done.
    pub(super) fn done(
        &mut self,
        mut object: SecurityGroupMembership,
        edge: &Edge,
        found: Forecast,
    ) {
        for ((_, region), targets) in &mut self.targets {
            let target = targets
                .as_mut()
                .ok()
                .filter(|_| *region == edge.region.as_str())
                .and_then(|found| found.get_mut(&edge.target.to_string()));
            let Some(target) = target else {
                continue;
            };
            let is_ready = condition::is_true(&found.status.conditions, reason::READY);
            if found.does(Step::Join) && is_ready {
                target.security_group_ids.insert(edge.group.clone());
            }
            if found.does(Step::Leave) && found.outcome == ReconcileOutcome::Gone {
                target.security_group_ids.remove(&edge.group);
            }
        }
        if found.claim.record().is_some() {
            let finalizers = object.metadata.finalizers.get_or_insert_default();
            if !finalizers.iter().any(|name| name == FINALIZER) {
                finalizers.push(FINALIZER.to_owned());
            }
        }
        if found.outcome == ReconcileOutcome::Gone {
            self.objects.remove(&key_of(&object));
            return;
        }
        object.status = Some(found.status);
        self.objects.insert(key_of(&object), object);
    }

    /// The memberships that a set controls.
    pub(super) fn members(&self, set: &SecurityGroupMembershipSet) -> Vec<SecurityGroupMembership> {
        let all = self.objects.values();
        all.filter(|object| controls(set, object))
            .cloned()
            .collect()
    }

    /// The object of this name.
    pub(super) fn object(&self, namespace: &str, name: &str) -> Option<&SecurityGroupMembership> {
        self.objects.get(&(namespace.to_owned(), name.to_owned()))
    }
}

fn key_of(object: &SecurityGroupMembership) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The account of this key: its grants as the files have them, its state as the cluster has it.
async fn known(
    cluster: &Cluster,
    files: &Objects,
    key: &AccountKey,
) -> Result<KnownAccount, Failure> {
    let in_files = files.accounts.iter().find_map(|account| {
        let kind = account.get("kind")?.as_str()?;
        let account = match key.kind {
            AccountKind::CloudAccount if kind == "CloudAccount" => {
                let mut found: CloudAccount = serde_json::from_value(account.clone()).ok()?;
                let namespace = &mut found.metadata.namespace;
                namespace.get_or_insert_with(|| cluster.namespace.clone());
                AnyAccount::Namespaced(found)
            }
            AccountKind::ClusterCloudAccount if kind == "ClusterCloudAccount" => {
                let found: ClusterCloudAccount = serde_json::from_value(account.clone()).ok()?;
                AnyAccount::Cluster(found)
            }
            AccountKind::CloudAccount | AccountKind::ClusterCloudAccount => return None,
        };
        (account.key() == *key).then_some(account)
    });
    let stored = match cluster.account(key).await {
        Ok(stored) => Some(stored),
        Err(failure) if failure.code == exit::NOT_FOUND => None,
        Err(failure) if failure.code == exit::NO_RIGHT && in_files.is_none() => {
            note(&format!(
                "whether {key} grants it is not known, and taken as yes: {}",
                failure.message
            ));
            return Ok(KnownAccount::Unreadable);
        }
        Err(failure) if failure.code == exit::NO_RIGHT => None,
        Err(failure) => return Err(failure),
    };
    Ok(match (in_files, stored) {
        (None, None) => KnownAccount::Missing,
        (Some(in_files), None) => {
            note(&format!(
                "{key} is in the files and not in the cluster yet: it is taken as usable"
            ));
            known_account(&in_files, &in_files)
        }
        (Some(in_files), Some(stored)) => known_account(&stored, &in_files),
        (None, Some(stored)) => known_account(&stored, &stored),
    })
}

/// What a forecast needs to know of an account: the state of one, the grants of the other.
fn known_account(state: &AnyAccount, grants: &AnyAccount) -> KnownAccount {
    let status = state.status();
    let uid = status.and_then(|status| status.account_uid.as_deref());
    let conditions = status.map_or(&[][..], |status| &status.conditions);
    let ready = condition::find(conditions, reason::READY);
    let trouble = ready.filter(|ready| ready.status == "False").map(|ready| {
        let stalled = condition::is_true(conditions, reason::STALLED);
        (ready.message.clone(), stalled)
    });
    KnownAccount::There {
        uid: uid.and_then(AccountUid::of_claim),
        trouble,
        grants: grants.grants(),
    }
}

/// The labels of a namespace; `None` if the person may not read it.
async fn labels(cluster: &Cluster, namespace: &str) -> Option<BTreeMap<String, String>> {
    let api: Api<Namespace> = Api::all(cluster.client.clone());
    let found = with_deadline(api.get(namespace)).await.ok()?;
    Some(found.metadata.labels.unwrap_or_default())
}
