//! Fixtures that read as a sentence: one cluster and one operator per test binary; per test a cloud, an account and a
//! namespace of its own. Requests, waits and reads; the tests assert.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event as CoreEvent, Namespace, Secret};
use k8s_openapi::api::events::v1::Event;
use kube::api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use security_group_operator::api::{
    ClusterCloudAccount, FINALIZER, INTENT_ANNOTATION, RECONCILE_REQUESTED_ANNOTATION,
    SecurityGroupMembership,
};
use security_group_operator::condition::is_true;
use serde_json::{Value, json};
use tokio::sync::{Mutex, MutexGuard, OnceCell};

use super::control_plane::ControlPlane;
use super::error::{Context, Error, Result};
use super::eventually::eventually;
use super::operator::{NAMESPACE, Operator, Options};
use super::simulator::SimulatorProcess;
use super::tempdir::TempDir;

/// Longer than any step takes on a busy machine; only a hang reaches it.
const PATIENCE: Duration = Duration::from_secs(120);

/// The UID of the next test environment's cloud account.
static NEXT_ACCOUNT: AtomicU64 = AtomicU64::new(1_000_000_000_000_101);

/// The binaries of this crate; a test says `binaries!()`.
#[derive(Clone)]
pub struct Binaries {
    pub operator: PathBuf,
    pub simulator: PathBuf,
}

/// `Binaries` where cargo has just built them.
#[macro_export]
macro_rules! binaries {
    () => {
        $crate::support::env::Binaries {
            operator: env!("CARGO_BIN_EXE_security-group-operator").into(),
            simulator: env!("CARGO_BIN_EXE_ecs-simulator").into(),
        }
    };
}

/// The operator that the tests of a binary share, on [`ControlPlane::shared`].
pub async fn operator(binaries: &Binaries) -> Result<MutexGuard<'static, Operator>> {
    static OPERATOR: OnceCell<Mutex<Operator>> = OnceCell::const_new();
    let operator = OPERATOR
        .get_or_try_init(|| async {
            let options = Options {
                binary: binaries.operator.clone(),
                arguments: vec!["--log=security_group_operator=debug,info".to_owned()],
                environment: Vec::new(),
            };
            let started = Operator::start(ControlPlane::shared().await?, options).await?;
            Ok::<_, Error>(Mutex::new(started))
        })
        .await?;
    Ok(operator.lock().await)
}

/// One test's own cloud, account and namespace.
pub struct TestEnv {
    pub simulator: SimulatorProcess,
    pub client: Client,
    /// Name of both the namespace and the `ClusterCloudAccount` granted to it.
    pub name: String,
    /// UID of the cloud account that owns all inventory objects without an account. Unique per test environment: to the
    /// operator, equal edges of one account are one edge, whatever the endpoint.
    pub account: String,
    started: Instant,
    _tempdir: TempDir,
}

impl TestEnv {
    /// A cloud with this inventory (YAML, see docs/simulator.md; the key `testid` and an owner are added), an account
    /// granted to the test environment's namespace, and the operator running.
    pub async fn start(binaries: &Binaries, inventory: &str) -> Result<Self> {
        drop(operator(binaries).await?);
        Self::start_on(ControlPlane::shared().await?, binaries, inventory).await
    }

    /// The same on another control plane, for a test that starts its operator itself. The CRDs must be installed.
    pub async fn start_on(
        plane: &ControlPlane,
        binaries: &Binaries,
        inventory: &str,
    ) -> Result<Self> {
        Self::start_with(plane, binaries, inventory, &[]).await
    }

    /// The same with more arguments for the simulator.
    pub async fn start_with(
        plane: &ControlPlane,
        binaries: &Binaries,
        inventory: &str,
        arguments: &[String],
    ) -> Result<Self> {
        let client = plane.admin_client().await?;
        let tempdir = TempDir::new("env")?;
        let file = tempdir.path().join("inventory.yaml");
        let account = NEXT_ACCOUNT.fetch_add(1, Ordering::Relaxed).to_string();
        std::fs::write(&file, owned(inventory, &account)?)?;
        let mut all = vec!["--inventory".to_owned(), file.display().to_string()];
        all.extend_from_slice(arguments);
        let simulator = SimulatorProcess::start(&binaries.simulator, &all).await?;
        let namespaces: Api<Namespace> = Api::all(client.clone());
        let namespace = Namespace {
            metadata: ObjectMeta {
                generate_name: Some("test-".to_owned()),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        };
        let name = namespaces
            .create(&PostParams::default(), &namespace)
            .await?
            .name_any();
        let env = Self {
            simulator,
            client,
            name,
            account,
            started: Instant::now(),
            _tempdir: tempdir,
        };
        env.write_secret("testid", "testsecret").await?;
        env.write_account(json!([{
            "name": "all", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": ["*"]},
            "allow": ["Join", "Observe", "RemoveAdopted"],
        }]))
        .await?;
        Ok(env)
    }

    /// Writes the account's Secret into the operator's namespace.
    pub async fn write_secret(&self, id: &str, secret: &str) -> Result<()> {
        self.write_secret_named(&self.name, id, secret).await
    }

    /// Writes a Secret for an account into the operator's namespace.
    pub async fn write_secret_named(&self, name: &str, id: &str, secret: &str) -> Result<()> {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), NAMESPACE);
        let patch = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name},
            "stringData": {"accessKeyID": id, "accessKeySecret": secret},
        });
        secrets
            .patch(
                name,
                &PatchParams::apply("test").force(),
                &Patch::Apply(&patch),
            )
            .await?;
        Ok(())
    }

    /// Writes the account with these grants.
    pub async fn write_account(&self, grants: Value) -> Result<()> {
        self.write_account_named(&self.name, grants).await
    }

    /// Writes an account with this name and the Secret of this name, for the test environment's cloud.
    pub async fn write_account_named(&self, name: &str, grants: Value) -> Result<()> {
        let accounts: Api<ClusterCloudAccount> = Api::all(self.client.clone());
        let endpoint = self.simulator.endpoint();
        let patch = json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "ClusterCloudAccount",
            "metadata": {"name": name},
            "spec": {
                "credentials": {"secretRef": {"name": name}},
                "endpoints": {"ecs": endpoint, "sts": endpoint},
                "grants": grants,
            },
        });
        accounts
            .patch(
                name,
                &PatchParams::apply("test").force(),
                &Patch::Apply(&patch),
            )
            .await?;
        Ok(())
    }

    /// The memberships of the test environment.
    pub fn memberships(&self) -> Api<SecurityGroupMembership> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Applies a membership of `target` in `group`, with `more` added to its spec.
    pub async fn apply(
        &self,
        name: &str,
        target: &str,
        group: &str,
        more: Value,
    ) -> Result<SecurityGroupMembership> {
        let field = if target.starts_with("eni-") {
            "networkInterfaceID"
        } else {
            "instanceID"
        };
        let mut spec = json!({
            "region": "cn-hangzhou", field: target, "securityGroupID": group,
            "accountRef": {"kind": "ClusterCloudAccount", "name": self.name},
        });
        let added = more.as_object().context("more must be an object")?;
        spec.as_object_mut()
            .context("a spec is an object")?
            .extend(added.clone());
        self.apply_spec(name, spec).await
    }

    /// Applies a membership with this spec, as a user would with `kubectl apply --server-side`.
    pub async fn apply_spec(&self, name: &str, spec: Value) -> Result<SecurityGroupMembership> {
        let patch = json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
            "metadata": {"name": name}, "spec": spec,
        });
        let params = PatchParams::apply("test").force();
        Ok(self
            .memberships()
            .patch(name, &params, &Patch::Apply(&patch))
            .await?)
    }

    /// Sets an annotation.
    pub async fn annotate(&self, name: &str, key: &str, value: &str) -> Result<()> {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.memberships()
            .patch(name, &PatchParams::default(), &Patch::Merge(&patch))
            .await?;
        Ok(())
    }

    /// Deletes a membership without waiting.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.memberships()
            .delete(name, &DeleteParams::default())
            .await?;
        Ok(())
    }

    /// Returns the membership when `wanted` is true for it.
    pub async fn until(
        &self,
        name: &str,
        what: &str,
        wanted: impl Fn(&SecurityGroupMembership) -> bool,
    ) -> Result<SecurityGroupMembership> {
        let started = std::time::Instant::now();
        loop {
            let seen = self.memberships().get_opt(name).await?;
            if let Some(object) = seen.as_ref().filter(|object| wanted(object)) {
                return Ok(object.clone());
            }
            if started.elapsed() > PATIENCE {
                let state = self.simulator.state().await?;
                let seen = serde_json::to_string_pretty(&seen)?;
                return Err(Error::new(format!(
                    "{name} is not {what}:\n{seen}\nthe cloud: {state}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Returns the membership when the condition Ready is `True` for its generation.
    pub async fn until_ready(&self, name: &str) -> Result<SecurityGroupMembership> {
        self.until(name, "Ready", |object| {
            object.status.as_ref().is_some_and(|status| {
                status.observed_generation == object.metadata.generation
                    && status
                        .conditions
                        .iter()
                        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
            })
        })
        .await
    }

    /// Returns the membership when the reason of Ready is `reason` for its generation.
    pub async fn until_reason(&self, name: &str, reason: &str) -> Result<SecurityGroupMembership> {
        self.until(name, reason, |object| {
            ready(object).is_some_and(|condition| {
                condition.reason == reason
                    && condition.observed_generation == object.metadata.generation
            })
        })
        .await
    }

    /// Returns when the operator says that the membership is suspended, or that it is not.
    pub async fn until_suspended(
        &self,
        name: &str,
        suspended: bool,
    ) -> Result<SecurityGroupMembership> {
        let wanted = format!("Suspended is {suspended}");
        self.until(name, &wanted, |object| {
            let conditions = object.status.as_ref().map(|status| &status.conditions);
            conditions.is_some_and(|conditions| {
                security_group_operator::condition::is_true(conditions, "Suspended") == suspended
            })
        })
        .await
    }

    /// Waits until the object is deleted.
    pub async fn until_deleted(&self, name: &str) -> Result<()> {
        let started = std::time::Instant::now();
        loop {
            let Some(object) = self.memberships().get_opt(name).await? else {
                return Ok(());
            };
            if started.elapsed() > PATIENCE {
                return Err(Error::new(format!(
                    "{name} is not deleted:\n{}",
                    serde_json::to_string_pretty(&object)?
                )));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// The groups of the target in the cloud.
    pub async fn groups(&self, target: &str) -> Result<BTreeSet<String>> {
        let state = self.simulator.state().await?;
        let kind = if target.starts_with("eni-") {
            "networkInterfaces"
        } else {
            "instances"
        };
        let groups = state
            .pointer(&format!("/{kind}/{target}/securityGroupIds"))
            .and_then(Value::as_array)
            .context(format!("the cloud has no {target}"))?;
        Ok(groups
            .iter()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect())
    }

    /// Whether the target is in the group in the cloud.
    pub async fn is_member(&self, target: &str, group: &str) -> Result<bool> {
        Ok(self.groups(target).await?.contains(group))
    }

    /// Number of calls of an action that the cloud has answered, with any result.
    pub async fn calls(&self, action: &str) -> Result<u64> {
        let stats = self.simulator.stats().await?;
        let counts = stats
            .pointer(&format!("/calls/{action}"))
            .and_then(Value::as_object);
        Ok(counts
            .into_iter()
            .flat_map(|counts| counts.values())
            .filter_map(Value::as_u64)
            .sum())
    }

    /// Number of calls of an action that took effect, with any answer.
    pub async fn effects(&self, action: &str) -> Result<u64> {
        let stats = self.simulator.stats().await?;
        let count = stats.pointer(&format!("/effects/{action}"));
        Ok(count.and_then(Value::as_u64).unwrap_or(0))
    }

    /// Reason and type of every event about the test environment's account, in their order.
    pub async fn account_events(&self) -> Result<Vec<String>> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), "default");
        let mut found: Vec<_> = events
            .list(&ListParams::default())
            .await?
            .into_iter()
            .filter(|event| {
                let regarding = event.regarding.as_ref();
                regarding.is_some_and(|object| object.name.as_ref() == Some(&self.name))
            })
            .map(|event| {
                let text = |text: Option<String>| text.unwrap_or_default();
                let line = format!("{} {}", text(event.reason), text(event.type_));
                (event.event_time.map(|time| time.0), line)
            })
            .collect();
        found.sort();
        Ok(found.into_iter().map(|(_, line)| line).collect())
    }

    /// The reasons of the events about an object.
    pub async fn events(&self, name: &str) -> Result<Vec<String>> {
        let events: Api<CoreEvent> = Api::namespaced(self.client.clone(), &self.name);
        let about = ListParams::default().fields(&format!("involvedObject.name={name}"));
        let list = events.list(&about).await?;
        Ok(list
            .items
            .into_iter()
            .filter_map(|event| event.reason)
            .collect())
    }
}

/// The inventory with the key `testid`; objects without an account are given this one.
fn owned(inventory: &str, account: &str) -> Result<String> {
    let mut inventory: serde_json::Map<String, Value> = serde_saphyr::from_str(inventory)?;
    let key = json!({"id": "testid", "secret": "testsecret"});
    inventory
        .entry("accessKeys")
        .or_insert(json!([]))
        .as_array_mut()
        .context("accessKeys is a list")?
        .push(key);
    let lists = [
        "accessKeys",
        "securityGroups",
        "instances",
        "networkInterfaces",
    ];
    for list in lists {
        let objects = inventory.get_mut(list).and_then(Value::as_array_mut);
        for object in objects.into_iter().flatten() {
            let object = object
                .as_object_mut()
                .context(format!("a list of objects in {list}"))?;
            object.entry("account").or_insert(json!(account));
        }
    }
    Ok(Value::Object(inventory).to_string())
}

/// The condition Ready.
pub fn ready(
    object: &SecurityGroupMembership,
) -> Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    condition(object, "Ready")
}

/// The condition of this type.
pub fn condition<'a>(
    object: &'a SecurityGroupMembership,
    type_: &str,
) -> Option<&'a k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition> {
    object
        .status
        .as_ref()?
        .conditions
        .iter()
        .find(|condition| condition.type_ == type_)
}

/// The operator's user name at the API server.
const OPERATOR_USER: &str = "system:serviceaccount:security-group-operator:security-group-operator";

impl TestEnv {
    /// Requests a pass over a membership, as a user does; returns what it wrote for that.
    pub async fn request_reconcile(&self, name: &str) -> Result<String> {
        static ASKED: AtomicU64 = AtomicU64::new(0);
        let value = ASKED.fetch_add(1, Ordering::Relaxed).to_string();
        self.annotate(name, RECONCILE_REQUESTED_ANNOTATION, &value)
            .await?;
        Ok(value)
    }

    /// Requests a pass and returns when it has ended, with all its effects.
    pub async fn reconcile_and_wait(&self, name: &str) -> Result<()> {
        let asked = self.request_reconcile(name).await?;
        self.until(name, "reconciled as requested", |object| {
            let status = object.status.as_ref();
            let handled = status.and_then(|status| status.last_handled_reconcile_at.as_ref());
            handled == Some(&asked)
        })
        .await?;
        Ok(())
    }

    /// Number of Describe calls, of both kinds.
    pub async fn describe_calls(&self) -> Result<u64> {
        Ok(
            self.calls("DescribeInstances").await?
                + self.calls("DescribeNetworkInterfaces").await?,
        )
    }

    /// Returns when the operator has found the account usable.
    pub async fn until_account_ready(&self) -> Result<()> {
        let accounts: Api<ClusterCloudAccount> = Api::all(self.client.clone());
        eventually("the account is Ready", async || {
            let status = accounts.get(&self.name).await?.status;
            Ok(status.is_some_and(|status| is_true(&status.conditions, "Ready")))
        })
        .await
    }

    /// Checks how many Describe calls passes have made. Beside them a scan may have read the targets: with the default period of 60 s the
    /// first one begins after 12 s at the earliest, which a busy machine may need for a test.
    pub fn assert_reads(&self, calls: u64, by_passes: u64) {
        let seconds = self.started.elapsed().as_secs();
        let scans = (seconds + 48) / 60;
        assert!(
            (by_passes..=by_passes + scans).contains(&calls),
            "{calls} reads, of which {by_passes} by passes and at most {scans} by scans"
        );
    }

    /// Returns when there is an event with this reason about the membership.
    pub async fn until_event(&self, name: &str, reason: &str) -> Result<()> {
        eventually(&format!("event {reason} about {name}"), async || {
            Ok(self.events(name).await?.iter().any(|seen| seen == reason))
        })
        .await
    }

    /// The operator's accepted writes in the test environment's namespace so far: `patch securitygroupmemberships/status NAME`.
    pub async fn operator_writes(&self) -> Result<Vec<String>> {
        Ok(ControlPlane::shared()
            .await?
            .audit_events()?
            .into_iter()
            .filter(|event| {
                event.user == OPERATOR_USER
                    && event.namespace == self.name
                    && !["get", "list", "watch"].contains(&event.verb.as_str())
            })
            .map(|event| {
                let slash = if event.subresource.is_empty() {
                    ""
                } else {
                    "/"
                };
                format!(
                    "{} {}{slash}{}",
                    event.verb, event.resource, event.subresource
                )
            })
            .collect())
    }

    /// Starts a foreign change of an instance that takes one minute: until then every other change is answered with 409.
    pub async fn hold_conflict(&self, instance: &str, group: &str) -> Result<()> {
        use security_group_operator::ecs::{Client, Credential, Endpoints, Http, Target};

        eventually(
            "the account is examined, which must not take a minute",
            async || Ok(self.calls("GetCallerIdentity").await? > 0),
        )
        .await?;
        let endpoint = self.simulator.endpoint();
        let somebody = Client::new(
            Arc::new(Http::new()?),
            Credential::new("testid", "testsecret", None)?,
            Endpoints::parse(Some(&endpoint), Some(&endpoint), false)?,
        );
        let before = self.calls("JoinSecurityGroup").await?;
        self.change_cloud(json!({"set": {"latency": "60s"}}))
            .await?;
        let target = Target::Instance(instance.parse()?);
        let (region, group) = ("cn-hangzhou".parse()?, group.parse()?);
        let call =
            tokio::spawn(
                async move { somebody.join_security_group(&region, &target, &group).await },
            );
        eventually("the call has arrived", async || {
            Ok(self.calls("JoinSecurityGroup").await? > before)
        })
        .await?;
        call.abort();
        self.change_cloud(json!({"set": {"latency": "0s"}})).await
    }

    /// One change of the cloud without the operator.
    pub async fn change_cloud(&self, change: Value) -> Result<()> {
        self.simulator.change(&change).await
    }
}

/// The phase that kstatus computes: `Stalled`, `Reconciling`, or `Settled`; fails if an object claims both.
pub fn phase(object: &SecurityGroupMembership) -> &'static str {
    let is = |type_| condition(object, type_).is_some_and(|found| found.status == "True");
    let (stalled, reconciling) = (is("Stalled"), is("Reconciling"));
    assert!(!(stalled && reconciling), "{} is both", object.name_any());
    if stalled {
        "Stalled"
    } else if reconciling {
        "Reconciling"
    } else {
        "Settled"
    }
}

/// Message of the condition Ready; empty if there is none.
pub fn message(object: &SecurityGroupMembership) -> &str {
    ready(object).map_or("", |ready| &ready.message)
}

/// Whether `status.lastError` has this code, as the cloud spells it.
pub fn has_code(object: &SecurityGroupMembership, code: &str) -> bool {
    let status = object.status.as_ref();
    let error = status.and_then(|status| status.last_error.as_ref());
    error.is_some_and(|error| error.code.as_deref() == Some(code))
}

/// The record of the object, or else its intent, if it is its own; fails if only one of claim and finalizer is present.
pub fn claim(object: &SecurityGroupMembership) -> Option<String> {
    let uid = object.uid().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let origin = status.origin.filter(|_| status.object_uid == object.uid());
    let intent = object.annotations().get(INTENT_ANNOTATION);
    let intent = intent.filter(|intent| intent.contains(&uid));
    let claim = origin
        .map(|origin| format!("{origin:?}"))
        .or_else(|| intent.map(|_| "Joined".to_owned()));
    let kept = object.finalizers().iter().any(|name| name == FINALIZER);
    assert_eq!(claim.is_some(), kept, "claim and finalizer are one");
    claim
}
