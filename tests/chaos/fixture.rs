//! The objects and the cloud: does the acts, whoever is dead meanwhile, and tells the model. Judges nothing.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use security_group_operator::api::SecurityGroupMembership;
use serde_json::{Value, json};

use crate::act::{self, Act, EDGES, OBJECTS};
use crate::ledger::Ledger;
use crate::model::{Edge, Policies};
use crate::support::env::TestEnv;
use crate::support::error::{Error, Result};

/// Far longer than a busy machine takes for anything here; only a hang reaches it.
pub const PATIENCE: Duration = Duration::from_secs(300);

pub struct Fixture {
    pub env: TestEnv,
    pub edges: Vec<Edge>,
    pub ledger: Ledger,
    pub created: [Option<CreatedObject>; OBJECTS],
    /// When the deletion of objects of this name was asked for that were not gone at the last comparison.
    pub deletions: [Vec<Timestamp>; OBJECTS],
    pub holders: [Holder; OBJECTS],
    /// Since the last comparison.
    pub history: Vec<String>,
    /// How often somebody left an edge behind the operator's back, and in which of its incarnations.
    pub undone: [(u64, usize); EDGES],
    pub acts: usize,
    /// Whether calls without an answer may take effect late, since the last comparison.
    pub late: bool,
    /// To be made as soon as the name is free.
    waiting: BTreeMap<usize, (Policies, Option<usize>)>,
    started: Instant,
}

/// An object that was made and may still be there.
#[derive(Clone, Debug)]
pub struct CreatedObject {
    pub uid: String,
    pub policies: Policies,
    pub suspended: bool,
    /// Whether its deletion was asked for.
    pub deleted: bool,
    /// Whether it was made with the finalizers of another.
    copied: bool,
}

/// Whether an object of this name was live and had a claim at the last comparison: every operator knows it from its first
/// list.
#[derive(Clone, Copy, Debug)]
pub enum Holder {
    None,
    Holds,
    /// It did, until its deletion was asked for.
    DeletedAt(Timestamp),
}

impl Fixture {
    pub fn new(env: TestEnv) -> Self {
        Self {
            env,
            edges: (0..EDGES)
                .map(|edge| Edge::new(act::was_there(edge)))
                .collect(),
            ledger: Ledger::new(),
            created: [const { None }; OBJECTS],
            deletions: [const { Vec::new() }; OBJECTS],
            holders: [Holder::None; OBJECTS],
            history: Vec::new(),
            undone: [(0, 0); EDGES],
            acts: 0,
            late: false,
            waiting: BTreeMap::new(),
            started: Instant::now(),
        }
    }

    /// From here on some calls without an answer take effect late.
    pub fn expect_late_effects(&mut self) {
        self.late = true;
        for edge in &mut self.edges {
            edge.expect_late_effects();
        }
    }

    pub fn log(&mut self, line: &str) {
        let at = self.started.elapsed().as_secs_f64();
        self.history.push(format!("{at:9.3}  {line}"));
    }

    /// Does these acts, each after its pause, while the operator's incarnation is the one in `incarnation`.
    pub async fn churn(&mut self, acts: Vec<(u64, Act)>, incarnation: &AtomicU64) -> Result<()> {
        for (pause, act) in acts {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.make_the_waiting().await?;
            self.log(&act.to_string());
            self.acts += 1;
            self.perform(act, incarnation.load(Ordering::Relaxed))
                .await?;
        }
        Ok(())
    }

    /// Nothing is left to be made.
    pub fn wait_no_more(&mut self) {
        self.waiting.clear();
    }

    async fn make_the_waiting(&mut self) -> Result<()> {
        for (object, (policies, from)) in self.waiting.clone() {
            self.create(object, policies, from).await?;
        }
        Ok(())
    }

    async fn perform(&mut self, act: Act, incarnation: u64) -> Result<()> {
        match act {
            Act::Create { object, policies } => {
                self.free_the_name(object).await?;
                self.create(object, policies, None).await
            }
            Act::Copy {
                object,
                policies,
                from,
            } => {
                self.free_the_name(object).await?;
                self.create(object, policies, Some(from)).await
            }
            Act::Replace { object, policies } => self.replace(object, policies).await,
            Act::Delete { object } => self.delete(object).await,
            Act::Remake { object, policies } => {
                self.delete(object).await?;
                self.free_the_name(object).await?;
                self.create(object, policies, None).await
            }
            Act::Respecify { object, policies } => self.respecify(object, policies).await,
            Act::Suspend { object, suspended } => self.pause(object, suspended).await,
            Act::Foreign { edge, joins } => self.change_cloud(edge, joins, incarnation).await,
            Act::Power { target, status } => {
                let change = json!({"setStatus": {"id": target, "status": status, "for": "2s"}});
                self.env.simulator.change(&change).await
            }
        }
    }

    async fn change_cloud(&mut self, edge: usize, joins: bool, incarnation: u64) -> Result<()> {
        let (target, group) = act::ends(edge);
        let word = if joins { "join" } else { "leave" };
        let change = json!({word: {"target": target, "securityGroupId": group}});
        self.env.simulator.change(&change).await?;
        if !joins {
            let (of, count) = &mut self.undone[edge];
            *count = if *of == incarnation { *count + 1 } else { 1 };
            *of = incarnation;
        }
        self.edges[edge].foreign_change(joins);
        Ok(())
    }

    /// Who wants a name again lets the suspended deletion of its last bearer go on.
    async fn free_the_name(&mut self, object: usize) -> Result<()> {
        let held = self.created[object].as_ref();
        if held.is_some_and(|created| created.suspended && created.deleted) {
            self.pause(object, false).await?;
        }
        Ok(())
    }

    /// Makes an object, with the annotations and finalizers of another that is there.
    async fn create(
        &mut self,
        object: usize,
        policies: Policies,
        from: Option<usize>,
    ) -> Result<()> {
        let (edge, slot) = act::edge_of(object);
        let name = name(object);
        let held = self.created[object]
            .as_ref()
            .map(|created| created.uid.clone());
        let mut new: SecurityGroupMembership =
            serde_json::from_value(self.manifest(object, policies))?;
        let api = self.env.memberships();
        if let Some(from) = from
            && let ApiOutcome::Yes(other) =
                answered(async || api.get(&crate::fixture::name(from)).await).await?
        {
            new.metadata.annotations = other.metadata.annotations;
            new.metadata.finalizers = other.metadata.finalizers;
        }
        let asked = Timestamp::now();
        let made = loop {
            let params = PostParams::default();
            match answered(async || api.create(&params, &new).await).await? {
                ApiOutcome::Yes(made) => break Some(made),
                ApiOutcome::NotFound => {}
                // Its last bearer is still there; or the answer to our first request was lost.
                ApiOutcome::Conflict => match answered(async || api.get(&name).await).await? {
                    ApiOutcome::Yes(found) if found.uid() == held => break None,
                    ApiOutcome::Yes(found) => break Some(found),
                    ApiOutcome::NotFound | ApiOutcome::Conflict => {}
                },
            }
        };
        let Some(made) = made else {
            self.waiting.insert(object, (policies, from));
            return Ok(());
        };
        self.waiting.remove(&object);
        self.log(&format!(
            "{name} is made, {}",
            made.uid().unwrap_or_default()
        ));
        let copied = new.metadata.finalizers.is_some();
        self.created[object] = Some(CreatedObject {
            uid: made.uid().unwrap_or_default(),
            policies,
            suspended: false,
            deleted: false,
            copied,
        });
        self.edges[edge].created(slot, policies, copied);
        self.ledger.created(edge, slot, policies, asked);
        Ok(())
    }

    async fn delete(&mut self, object: usize) -> Result<()> {
        self.waiting.remove(&object);
        let (edge, slot) = act::edge_of(object);
        let Some(created) = self.created[object]
            .as_mut()
            .filter(|created| !created.deleted)
        else {
            return Ok(());
        };
        created.deleted = true;
        self.ledger.deleted(edge, slot);
        let now = Timestamp::now();
        self.deletions[object].push(now);
        if let Holder::Holds = self.holders[object] {
            self.holders[object] = Holder::DeletedAt(now);
        }
        let params = DeleteParams {
            preconditions: Some(Preconditions {
                uid: Some(created.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        let (api, name) = (self.env.memberships(), name(object));
        while let ApiOutcome::Conflict = answered(async || api.delete(&name, &params).await).await?
        {
        }
        self.edges[edge].deleted(slot);
        Ok(())
    }

    async fn respecify(&mut self, object: usize, policies: Policies) -> Result<()> {
        let (edge, slot) = act::edge_of(object);
        let Some(created) = &mut self.created[object] else {
            return Ok(());
        };
        created.policies = policies;
        self.edges[edge].respecified(slot, policies);
        self.ledger.respecified(edge, slot, policies);
        self.patch(object, json!({"spec": spec(policies)})).await
    }

    async fn replace(&mut self, object: usize, policies: Policies) -> Result<()> {
        let (edge, slot) = act::edge_of(object);
        let Some(created) = self.created[object].clone() else {
            return Ok(());
        };
        let (api, name) = (self.env.memberships(), name(object));
        let mut new: SecurityGroupMembership =
            serde_json::from_value(self.manifest(object, policies))?;
        new.spec.suspend = created.suspended;
        let params = PostParams::default();
        loop {
            let found = match answered(async || api.get(&name).await).await? {
                ApiOutcome::Yes(found) if found.uid() == Some(created.uid.clone()) => found,
                ApiOutcome::Yes(_) | ApiOutcome::NotFound | ApiOutcome::Conflict => return Ok(()),
            };
            new.metadata.uid = found.metadata.uid;
            new.metadata.resource_version = found.metadata.resource_version;
            // Whether or not its answer comes, it may have been done.
            self.ledger.replaced(edge, slot);
            self.ledger.respecified(edge, slot, policies);
            match answered(async || api.replace(&name, &params, &new).await).await? {
                ApiOutcome::Conflict => {}
                ApiOutcome::NotFound => return Ok(()),
                ApiOutcome::Yes(_) => break,
            }
        }
        if let Some(created) = &mut self.created[object] {
            created.policies = policies;
        }
        self.edges[edge].replaced(slot, policies);
        Ok(())
    }

    async fn pause(&mut self, object: usize, suspended: bool) -> Result<()> {
        let (edge, slot) = act::edge_of(object);
        let Some(created) = &mut self.created[object] else {
            return Ok(());
        };
        // One without a claim that has a copied finalizer, and is deleted while it is suspended, stays as it is.
        let suspended = suspended && !created.copied;
        created.suspended = suspended;
        let patch = json!({"spec": {"suspend": suspended}});
        // Before and after: in between both may hold.
        self.edges[edge].suspended(slot, false);
        self.patch(object, patch).await?;
        self.edges[edge].suspended(slot, suspended);
        Ok(())
    }

    async fn patch(&self, object: usize, patch: Value) -> Result<()> {
        let (api, name, patch) = (self.env.memberships(), name(object), Patch::Merge(patch));
        let params = PatchParams::default();
        while let ApiOutcome::Conflict =
            answered(async || api.patch(&name, &params, &patch).await).await?
        {}
        Ok(())
    }

    fn manifest(&self, object: usize, policies: Policies) -> Value {
        let (target, group) = act::ends(act::edge_of(object).0);
        let field = if target.starts_with("eni-") {
            "networkInterfaceID"
        } else {
            "instanceID"
        };
        let mut spec = spec(policies);
        spec["region"] = json!("cn-hangzhou");
        spec[field] = json!(target);
        spec["securityGroupID"] = json!(group);
        spec["accountRef"] = json!({"kind": "ClusterCloudAccount", "name": self.env.name});
        json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembership",
            "metadata": {"name": name(object)}, "spec": spec,
        })
    }
}

pub fn name(object: usize) -> String {
    format!("n{object}")
}

fn spec(policies: Policies) -> Value {
    json!({
        "adoptionPolicy": policies.adoption,
        "deletionPolicy": policies.deletion,
        "driftPolicy": policies.drift,
    })
}

/// What the API server said in the end.
pub enum ApiOutcome<T> {
    Yes(T),
    NotFound,
    Conflict,
}

/// Asks until there is an answer: the API server may be dead, or without etcd.
pub async fn answered<T>(mut ask: impl AsyncFnMut() -> kube::Result<T>) -> Result<ApiOutcome<T>> {
    let asked = Instant::now();
    let mut failures = VecDeque::new();
    loop {
        match ask().await {
            Ok(answer) => return Ok(ApiOutcome::Yes(answer)),
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(ApiOutcome::NotFound),
            Err(kube::Error::Api(status)) if status.code == 409 => return Ok(ApiOutcome::Conflict),
            Err(kube::Error::Api(status)) if status.code == 422 => {
                return Err(Error::new(format!("the API server refuses: {status:?}")));
            }
            Err(error) => failures.push_back(error.to_string()),
        }
        failures.truncate(3);
        if asked.elapsed() > PATIENCE {
            return Err(Error::new(format!(
                "no answer of the API server: {failures:?}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
