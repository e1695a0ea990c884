//! A cluster, a cloud and any number of incarnations of the operator over them, in virtual time. Knows what a user and others can
//! do; what they do when is for schedules and paths to say.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use security_group_operator::account::directory::AccountKinds;
use security_group_operator::api::account::Endpoints;
use security_group_operator::args::Settings;
use security_group_operator::clock::Clock;
use security_group_operator::ecs::credential::{Environment, METADATA_SERVICE};
use security_group_operator::kubernetes::WatchScope;
use security_group_operator::operator;
use security_group_operator::simulator::Simulator;
use security_group_operator::telemetry::{LogFormat, Telemetry};
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::api_server::request::{Reply, Request};
use crate::api_server::store::{Kind, State};
use crate::api_server::{self, ApiServer, Verb};
use crate::link::{ApiSide, CloudSide, FaultInjector, FaultRates, KillPoint, Link};
use crate::monitor::{MEMBERSHIPS, Monitor, condition, edge_of, is_deleting, target_of, text};
use crate::scenario::claimed;
use crate::topology::{
    self, ACCOUNTS, CLUSTER, GUESTS, KEYS, MISPLACED, NAMESPACE, OPERATOR_NAMESPACE, SimTarget,
    TARGETS, place,
};

pub struct World {
    pub server: Arc<ApiServer>,
    pub simulator: Arc<Simulator>,
    pub monitor: Arc<Monitor>,
    pub faults: Arc<FaultInjector>,
    pub incarnations: Vec<Process>,
    options: SimOptions,
    /// The revision of the API server with nothing but namespaces and accounts.
    furnished: u64,
}

/// One running or dead operator.
pub struct Process {
    pub link: Arc<Link>,
    task: JoinHandle<()>,
    freezer: Arc<Freezer>,
    /// Whether its end has been seen to.
    cleared: bool,
}

/// Whether an operator is frozen, and who polls it when it is not any more.
#[derive(Default)]
struct Freezer(Mutex<(bool, Option<Waker>)>);

impl Freezer {
    fn set(&self, frozen: bool) {
        let mut state = self.0.lock().unwrap();
        state.0 = frozen;
        if let Some(waker) = state.1.take() {
            waker.wake();
        }
    }
}

/// An operator that is not polled while it is frozen.
struct Freezable {
    freezer: Arc<Freezer>,
    operator: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Freezable {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        {
            let mut state = self.freezer.0.lock().unwrap();
            if state.0 {
                state.1 = Some(context.waker().clone());
                return Poll::Pending;
            }
        }
        self.operator.as_mut().poll(context)
    }
}

/// What is different in one world of the simulation.
#[derive(Clone, Copy, Debug, Default)]
pub struct SimOptions {
    pub seed: u64,
    pub rates: FaultRates,
    pub lag: Duration,
    pub several: bool,
    /// Whether namespaces have accounts of their own.
    pub own_accounts: bool,
    pub scopes: Scopes,
}

/// What operators watch. Who watches namespaces has no right to what is in others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Scopes {
    #[default]
    All,
    /// One operator watches both namespaces, each by a watch of its own.
    Each,
    /// One operator watches [`NAMESPACE`], and nobody the other one.
    One,
    /// Each namespace has an operator, and none of the two sees what the other one does.
    Apart,
}

impl Scopes {
    /// What each operator watches.
    fn of_operators(self) -> Vec<Vec<WatchScope>> {
        let only = |name: &str| WatchScope::Namespace(name.to_owned());
        match self {
            Self::All => vec![vec![WatchScope::All]],
            Self::Each => vec![vec![only(NAMESPACE), only(GUESTS)]],
            Self::One => vec![vec![only(NAMESPACE)]],
            Self::Apart => vec![vec![only(NAMESPACE)], vec![only(GUESTS)]],
        }
    }

    /// Whether an operator watches a namespace. What is in none is everybody's.
    pub fn serve(self, namespace: &str) -> bool {
        self != Self::One || namespace != GUESTS
    }
}

impl World {
    /// A world with an account that is granted everything, and no operator yet.
    pub fn new(options: SimOptions) -> Self {
        let server = Arc::new(ApiServer::new(topology::epoch()));
        let mut cloud = topology::cloud();
        cloud.settings.lag = options.lag;
        let simulator = Arc::new(Simulator::new(cloud, options.seed));
        let mut world = Self::of(server, simulator, options);
        world.furnish();
        world.furnished = world.server.state().revision;
        world
    }

    /// Another cluster over the same cloud account, with a key of its own ([`KEYS`]`[1]`), and no operator yet.
    pub fn second_cluster(&self) -> Self {
        let server = Arc::new(ApiServer::new(self.server.now()));
        let world = Self::of(server, Arc::clone(&self.simulator), self.other_options());
        world.furnish();
        world.write_secret(CLUSTER, 1);
        world
    }

    /// A cluster whose etcd has this content, over the same cloud, and no operator yet.
    pub fn restored(&self, content: State) -> Self {
        let server = Arc::new(ApiServer::new(self.server.now()));
        *server.state() = content;
        Self::of(server, Arc::clone(&self.simulator), self.other_options())
    }

    /// Another seed: the cloud takes no nonce twice.
    fn other_options(&self) -> SimOptions {
        SimOptions {
            seed: self.options.seed.wrapping_add(1_000),
            ..self.options
        }
    }

    fn of(server: Arc<ApiServer>, simulator: Arc<Simulator>, options: SimOptions) -> Self {
        let mut monitor = Monitor::new(Arc::clone(&server), Arc::clone(&simulator));
        monitor.several = options.several || options.scopes == Scopes::Apart;
        monitor.scopes = options.scopes;
        monitor.old_lists = options.rates.old_list > 0.0;
        monitor.lag = options.lag;
        monitor.ecs_by_default = options.seed.is_multiple_of(2);
        monitor.secrets = KEYS
            .iter()
            .map(|(_, secret, _)| (*secret).to_owned())
            .collect();
        Self {
            server,
            simulator,
            monitor: Arc::new(monitor),
            faults: Arc::new(FaultInjector::new(options.seed, options.rates)),
            incarnations: Vec::new(),
            options,
            furnished: 0,
        }
    }

    /// Makes the namespaces and the accounts.
    fn furnish(&self) {
        for name in [NAMESPACE, GUESTS] {
            self.create(
                "namespaces",
                "",
                json!({"metadata": {"name": name, "labels": {"team": "web"}}}),
            );
        }
        self.restore_accounts();
    }

    /// Makes every account of this world that is not there, with its Secret.
    pub fn restore_accounts(&self) {
        let last = if self.options.own_accounts {
            ACCOUNTS.len()
        } else {
            1
        };
        for account in 0..last {
            self.write_secret(account, 0);
            self.account(account, true);
        }
    }

    /// Starts an operator, or one for each namespace; `kill_at` is the request at which it is killed.
    pub fn start(&mut self, kill_at: Option<(usize, KillPoint)>) {
        for scopes in self.options.scopes.of_operators() {
            let settings = settings(scopes);
            self.start_as(settings, Arc::default(), kill_at, std::future::pending());
        }
    }

    /// Starts an operator that is asked to end when `shutdown` resolves.
    pub fn start_until(
        &mut self,
        kill_at: Option<(usize, KillPoint)>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) {
        self.start_as(
            settings(vec![WatchScope::All]),
            Arc::default(),
            kill_at,
            shutdown,
        );
    }

    /// Starts an operator that counts here and is asked to end when `shutdown` resolves.
    pub fn start_counted_until(
        &mut self,
        telemetry: &Arc<Telemetry>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) {
        let settings = settings(vec![WatchScope::All]);
        self.start_as(settings, Arc::clone(telemetry), None, shutdown);
    }

    /// Starts an operator that watches these scopes and counts here.
    pub fn start_over(&mut self, scopes: Vec<WatchScope>, telemetry: &Arc<Telemetry>) {
        self.start_as(
            settings(scopes),
            Arc::clone(telemetry),
            None,
            std::future::pending(),
        );
    }

    /// The same, of one that writes conditions of Nodes.
    pub fn start_with_node_conditions(&mut self, telemetry: &Arc<Telemetry>) {
        let settings = Settings {
            node_conditions: true,
            ..settings(vec![WatchScope::All])
        };
        let telemetry = Arc::clone(telemetry);
        self.start_as(settings, telemetry, None, std::future::pending());
    }

    /// Starts an operator that acts only while it holds the Lease, for so long, and is asked to end when `shutdown` resolves.
    pub fn start_elected(
        &mut self,
        duration: Duration,
        telemetry: &Arc<Telemetry>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) {
        let mut settings = settings(vec![WatchScope::All]);
        settings.lease_duration = Some(duration);
        settings.instance = Some(format!("pod-{}", self.incarnations.len()));
        self.start_as(settings, Arc::clone(telemetry), None, shutdown);
    }

    fn start_as(
        &mut self,
        settings: Settings,
        telemetry: Arc<Telemetry>,
        kill_at: Option<(usize, KillPoint)>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) {
        let incarnation = self.incarnations.len();
        self.monitor.process_started(&settings.scopes);
        let link = Arc::new(Link {
            incarnation,
            scopes: settings.scopes.clone(),
            server: Arc::clone(&self.server),
            simulator: Arc::clone(&self.simulator),
            monitor: Arc::clone(&self.monitor),
            faults: Arc::clone(&self.faults),
            kill_at: std::sync::Mutex::new(kill_at),
            requests: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            paused: AtomicBool::new(false),
            resumed: Notify::new(),
            cut_off: AtomicBool::new(false),
        });
        self.monitor
            .trace(|| format!("incarnation {incarnation} begins"));
        let client = api_server::client(&self.server, Arc::new(ApiSide(Arc::clone(&link))));
        let mut settings = settings;
        // The namespaces' own accounts have the STS of the cluster's, so that they may be of one cloud account.
        settings.default_endpoints = test_endpoints();
        if !self.options.seed.is_multiple_of(2) {
            // They call ECS elsewhere: their limits are not those of the cluster's account.
            settings.default_endpoints.ecs = None;
        }
        let operator = operator::run_with(
            settings,
            client,
            Arc::new(CloudSide(Arc::clone(&link))),
            telemetry,
            Clock::simulated(
                self.server.now(),
                self.options.seed.wrapping_add(incarnation as u64),
            ),
            AccountKinds::Both,
            shutdown,
        );
        let freezer = Arc::<Freezer>::default();
        let operator = Box::pin(async {
            // An error is the loss of the Lease.
            let _ = operator.await;
        });
        let frozen = Freezable {
            freezer: Arc::clone(&freezer),
            operator,
        };
        self.incarnations.push(Process {
            link,
            task: tokio::spawn(frozen),
            freezer,
            cleared: false,
        });
    }

    /// kill -9. What the process had begun is lost, what the servers have got is done.
    pub fn kill(&self, incarnation: usize) {
        self.monitor
            .trace(|| format!("incarnation {incarnation} is killed"));
        self.incarnations[incarnation].link.kill();
        self.incarnations[incarnation].task.abort();
    }

    /// Kills every running incarnation at its `after`-th request from now.
    pub fn schedule_kill(&self, after: usize, point: KillPoint) {
        for process in &self.incarnations {
            process.link.schedule_kill(after, point);
        }
    }

    pub fn cancel_kill(&self) {
        for process in &self.incarnations {
            process.link.schedule_kill(0, KillPoint::Before);
        }
    }

    /// The watches of a kind that the last incarnation has stay open and show nothing for so long; then they go on, or break.
    pub fn silence(&self, plural: &'static str, period: Duration, breaks: bool) {
        let last = self.incarnations.len().saturating_sub(1);
        self.faults.silence(last, plural, period, breaks);
        if plural == MEMBERSHIPS {
            self.monitor.drawn_silent_for(period);
        } else {
            self.monitor.upheaval_for(period);
        }
    }

    /// Keeps every event of a membership from an incarnation for so long, whatever watch it opens.
    pub fn hold_back_events(&self, incarnation: usize, period: Duration) {
        self.faults.hold_back_events(incarnation, period);
        self.monitor.silent_for(period);
    }

    /// SIGSTOP and SIGCONT: nothing is sent or heard meanwhile.
    pub fn pause(&self, paused: bool) {
        self.monitor.paused(paused);
        for process in &self.incarnations {
            process.link.pause(paused);
        }
    }

    /// Nothing of one incarnation runs, neither its timers, while it is frozen; what it has sent arrives.
    pub fn freeze(&self, incarnation: usize, frozen: bool) {
        self.monitor
            .trace(|| format!("incarnation {incarnation} is frozen: {frozen}"));
        self.incarnations[incarnation].freezer.set(frozen);
    }

    /// An incarnation that has ended and was not cleared away yet.
    pub fn dead_incarnation(&self) -> Option<usize> {
        self.incarnations
            .iter()
            .position(|process| process.link.is_dead() && !process.cleared)
    }

    /// Whether an incarnation has come to its end by itself.
    pub fn has_ended(&self, incarnation: usize) -> bool {
        self.incarnations[incarnation].task.is_finished()
    }

    /// Resolves at the next death.
    pub fn deaths(&self) -> impl Future<Output = ()> + use<> {
        let links: Vec<Arc<Link>> = self
            .incarnations
            .iter()
            .filter(|process| !process.cleared)
            .map(|process| Arc::clone(&process.link))
            .collect();
        async move {
            let waits = links.iter().map(|link| Box::pin(link.died.notified()));
            let _ = futures::future::select_all(waits).await;
        }
    }

    pub fn restart(&mut self, incarnation: usize) {
        self.incarnations[incarnation].cleared = true;
        let scopes = self.incarnations[incarnation].link.scopes.clone();
        self.start_over(scopes, &Arc::default());
    }

    /// Kills all operators and starts another.
    pub fn restart_all(&mut self) {
        for incarnation in 0..self.incarnations.len() {
            if !self.incarnations[incarnation].cleared {
                self.kill(incarnation);
                self.incarnations[incarnation].cleared = true;
            }
        }
        self.start(None);
    }

    pub fn remove_secret(&self, account: usize) {
        let namespace = ACCOUNTS[account].secret_namespace;
        self.user(Verb::Delete, "secrets", namespace, "key", Value::Null);
        self.monitor.upheaval();
    }

    /// Makes or takes away an account.
    pub fn account(&self, account: usize, there: bool) {
        let topology::AccountObject {
            plural,
            namespace,
            name,
            ..
        } = ACCOUNTS[account];
        if there {
            // An administrator takes the finalizer off, to create the account again while memberships need it.
            let before = self.server.object(plural, namespace, name);
            if before.is_some_and(|before| before["metadata"]["deletionTimestamp"].is_string()) {
                let freed = json!({"metadata": {"finalizers": null}});
                self.user(Verb::Merge, plural, namespace, name, freed);
            }
            let mut spec = json!({"credentials": {"secretRef": {"name": "key"}}});
            if account == CLUSTER {
                spec["endpoints"] = serde_json::to_value(test_endpoints()).unwrap();
                spec["grants"] = everything();
            }
            self.create(
                plural,
                namespace,
                json!({"metadata": {"name": name}, "spec": spec}),
            );
        } else {
            self.user(Verb::Delete, plural, namespace, name, Value::Null);
        }
        self.monitor.upheaval();
    }

    pub fn create(&self, plural: &'static str, namespace: &str, object: Value) -> Reply {
        self.user(Verb::Create, plural, namespace, "", object)
    }

    pub fn user(
        &self,
        verb: Verb,
        plural: &'static str,
        namespace: &str,
        name: &str,
        body: Value,
    ) -> Reply {
        self.user_handle().user(verb, plural, namespace, name, body)
    }

    pub fn user_handle(&self) -> User {
        User {
            server: Arc::clone(&self.server),
            monitor: Arc::clone(&self.monitor),
        }
    }

    pub fn write_secret(&self, account: usize, key: usize) {
        self.user(
            Verb::Apply,
            "secrets",
            ACCOUNTS[account].secret_namespace,
            "key",
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"},
                "data": topology::secret_data(key),
            }),
        );
        self.monitor.upheaval();
    }

    /// A membership `name` of a target in one of its groups; `rest` is what else its spec says.
    pub fn membership(&self, name: &str, target: usize, group: usize, rest: Value) -> Reply {
        let (namespace, name) = place(name);
        let target = &TARGETS[target];
        let mut spec = json!({
            "region": target.region, (target.field()): target.id, "securityGroupID": target.groups[group],
        });
        spec.as_object_mut()
            .unwrap()
            .extend(rest.as_object().cloned().unwrap_or_default());
        self.create(
            MEMBERSHIPS,
            namespace,
            json!({"metadata": {"name": name}, "spec": spec}),
        )
    }

    fn manifest(&self, name: &str) -> Option<Value> {
        let (namespace, name) = place(name);
        let object = self.server.object(MEMBERSHIPS, namespace, name)?;
        Some(json!({"metadata": {"name": name}, "spec": object["spec"]}))
    }

    /// Creates an object from the manifest of another one, with its annotations and finalizers.
    pub fn copy(&self, from: &str, name: &str, target: usize, group: usize) {
        let (namespace, from) = place(from);
        let Some(original) = self.server.object(MEMBERSHIPS, namespace, from) else {
            return;
        };
        let (namespace, name) = place(name);
        let target = &TARGETS[target];
        let mut spec = original["spec"].clone();
        let fields = spec.as_object_mut().unwrap();
        fields.remove("instanceID");
        fields.remove("networkInterfaceID");
        fields.insert(target.field().to_owned(), json!(target.id));
        fields.insert("region".to_owned(), json!(target.region));
        fields.insert("securityGroupID".to_owned(), json!(target.groups[group]));
        let mut metadata = json!({"name": name});
        for field in ["annotations", "finalizers"] {
            if let Some(copied) = original["metadata"].get(field) {
                metadata[field] = copied.clone();
            }
        }
        self.create(
            MEMBERSHIPS,
            namespace,
            json!({"metadata": metadata, "spec": spec}),
        );
    }

    /// Replaces an object by its bare manifest, as kubectl does: under the version that is stored.
    pub fn replace(&self, name: &str) {
        let Some(mut manifest) = self.manifest(name) else {
            return;
        };
        let (namespace, name) = place(name);
        if let Some(stored) = self.server.object(MEMBERSHIPS, namespace, name) {
            manifest["metadata"]["resourceVersion"] = stored["metadata"]["resourceVersion"].clone();
        }
        let reply = self.user(Verb::Replace, MEMBERSHIPS, namespace, name, manifest);
        assert_eq!(reply.code, 200, "{}", reply.body);
    }

    /// Deletes an object and creates it again as soon as it has gone, within 10 seconds.
    pub fn recreate(&self, name: &str) {
        let Some(manifest) = self.manifest(name) else {
            return;
        };
        self.delete(name);
        let (namespace, name) = place(name);
        let again = self.user_handle();
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        tokio::spawn(async move {
            for _ in 0..1_000 {
                if again
                    .server
                    .object(MEMBERSHIPS, &namespace, &name)
                    .is_none()
                {
                    again.user(Verb::Create, MEMBERSHIPS, &namespace, "", manifest);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        });
    }

    pub fn patch(&self, name: &str, patch: Value) -> Reply {
        let (namespace, name) = place(name);
        self.user(Verb::Merge, MEMBERSHIPS, namespace, name, patch)
    }

    /// Writes what somebody else claims the status to be.
    pub fn overwrite_status(&self, name: &str, status: &Value) {
        let request = Request {
            verb: Verb::Merge,
            kind: Kind::by_plural(MEMBERSHIPS),
            namespace: NAMESPACE.to_owned(),
            name: name.to_owned(),
            status: true,
            query: BTreeMap::new(),
            metadata_only: false,
            body: json!({"status": status}),
        };
        assert_eq!(self.server.answer(&request, None).code, 200);
    }

    pub fn delete(&self, name: &str) {
        let (namespace, name) = place(name);
        let reply = self.user(Verb::Delete, MEMBERSHIPS, namespace, name, Value::Null);
        self.monitor.touched(&text(&reply.body, "/metadata/uid"));
    }

    /// Has the API server decide on the deletion of an object without finalizers, and carry it out after so long: an object that gets
    /// a finalizer meanwhile goes all the same. One with finalizers is deleted as always. Returns whether it was decided so.
    pub fn delete_slowly(&self, name: &str, after: Duration) -> bool {
        let (namespace, of) = place(name);
        let decided = self.server.decide_deletion(MEMBERSHIPS, namespace, of);
        let Some(decided) = decided else {
            self.delete(name);
            return false;
        };
        let (server, monitor, name) = (
            Arc::clone(&self.server),
            Arc::clone(&self.monitor),
            name.to_owned(),
        );
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            let (namespace, of) = place(&name);
            let object = server.object(MEMBERSHIPS, namespace, of);
            let had_finalizer = server.carry_out_deletion(decided);
            if had_finalizer {
                monitor.removed_in_the_moment_of_its_claim(object.as_deref());
                monitor.count("finalizer written while the object is removed");
            }
            monitor.trace(|| format!("user: {name} is deleted, with a finalizer: {had_finalizer}"));
            monitor.read_log();
        });
        true
    }

    /// Puts etcd back to what it held so many revisions ago; not to before there were namespaces and accounts.
    pub fn put_back(&self, revisions: u64) {
        self.monitor.read_log();
        let newest = self.server.state().revision;
        let to = newest.saturating_sub(revisions).max(self.furnished);
        let (lost, others) = self.server.put_back(to, MEMBERSHIPS);
        self.monitor
            .trace(|| format!("the store is put back from revision {newest} to {to}"));
        self.monitor.put_back(&lost, &others);
    }

    /// From now on an admission policy refuses every write of the status of this object; `None`: no more.
    pub fn refuse_status_of(&self, name: Option<&'static str>) {
        self.faults.refuse_status_of(name);
        self.monitor.status_refused(name);
    }

    /// Sets who may use the cluster's account: everybody, or nobody.
    pub fn grant(&self, granted: bool) {
        self.set_grants(&if granted { everything() } else { json!([]) });
    }

    /// Sets the grants of the cluster's account.
    pub fn set_grants(&self, grants: &Value) {
        let account = &ACCOUNTS[CLUSTER];
        self.user(
            Verb::Merge,
            account.plural,
            account.namespace,
            account.name,
            json!({"spec": {"grants": grants}}),
        );
        self.monitor.upheaval();
    }

    /// Changes the cloud behind the operator's back; see the manual of the simulator.
    pub fn cloud(&self, change: Value) {
        self.monitor.trace(|| format!("cloud: {change}"));
        self.monitor.cloud_changes(&change);
        // One that does not fit (a target that is gone) changes nothing.
        let _ = self
            .simulator
            .change(serde_json::from_value(change).unwrap(), self.server.now());
        self.monitor.read_journal();
    }

    pub fn foreign(&self, target: usize, group: usize, joins: bool) {
        let word = if joins { "join" } else { "leave" };
        let target = &TARGETS[target];
        self.cloud(json!({word: {"target": target.id, "securityGroupId": target.groups[group]}}));
    }

    pub fn is_member(&self, target: &str, group: &str) -> bool {
        self.monitor
            .membership(Some(target), Some(group), self.server.now())
    }

    /// The targets that were described within `age` although no object names them.
    pub fn needless_looks(&self, age: Duration) -> Vec<&'static str> {
        let objects = self.objects();
        let is_named = |target: &SimTarget| {
            let names = |object: &Arc<Value>| {
                object["spec"][target.field()] == target.id && self.monitor.serves(object)
            };
            objects.iter().any(names)
        };
        let looked_at = |target: &&SimTarget| self.monitor.was_described(target.id, age);
        let needless = TARGETS
            .iter()
            .filter(|target| !is_named(target))
            .filter(looked_at);
        needless.map(|target| target.id).collect()
    }

    pub fn objects(&self) -> Vec<Arc<Value>> {
        self.server.objects(MEMBERSHIPS)
    }

    /// What is compared between two runs: who is in which group, and what each object says.
    pub fn picture(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for target in &TARGETS[..MISPLACED] {
            for group in target.groups {
                if self.is_member(target.id, group) {
                    lines.push(format!("{} is in {group}", target.id));
                }
            }
        }
        for object in self.objects() {
            let metadata = &object["metadata"];
            lines.push(format!(
                "{} {} {} {}",
                text(&object, "/metadata/name"),
                metadata["finalizers"],
                claimed(&object),
                condition(&object, "Ready")
                    .map(|ready| format!("{} {}", ready["status"], ready["reason"]))
                    .unwrap_or_default(),
            ));
        }
        lines
    }

    /// Whether nothing is left to do: what is deleted is gone, what can be Ready is, and what is not says why for good.
    pub fn unsettled(&self) -> Vec<String> {
        let mut left = Vec::new();
        let mut objects = self.objects();
        objects.retain(|object| self.monitor.serves(object));
        for object in objects {
            let name = text(&object, "/metadata/name");
            let ready = condition(&object, "Ready").cloned().unwrap_or_default();
            let (status, reason) = (text(&ready, "/status"), text(&ready, "/reason"));
            let current = ready["observedGeneration"] == object["metadata"]["generation"];
            let edge = edge_of(&object);
            let member = edge
                .as_ref()
                .is_some_and(|(target, group)| self.is_member(target, group));
            let is_primary = edge
                .as_ref()
                .is_some_and(|(target, _)| topology::member_of(target) != target);
            let exists = edge.is_some_and(|(target, _)| {
                let (now, target) = (self.server.now(), topology::member_of(&target));
                self.simulator
                    .inspect(|cloud| cloud.member(target, now).is_some())
            });
            let observed = object["spec"]["managementPolicy"] == "Observe";
            let fine = current
                && match reason.as_str() {
                    "Joined" | "Adopted" | "Shared" | "Observed" => status == "True" && member,
                    "AdoptionRefused" => object["spec"]["adoptionPolicy"] == "Refuse" && member,
                    "DriftReported" => object["spec"]["driftPolicy"] == "Report" && !member,
                    "NotAMember" => observed && !member,
                    "KarpenterNode" => {
                        let refuses = object["spec"]["karpenterPolicy"] == "Refuse";
                        refuses && !member && self.monitor.is_karpenters(target_of(&object))
                    }
                    "TargetNotFound" => !exists,
                    "InvalidOperationInvalidEniType" => is_primary && exists && !observed,
                    "AccountChanged" => object["status"]["accountUID"] != topology::OWNER,
                    _ => false,
                };
            if is_deleting(&object) || !fine {
                left.push(format!(
                    "{name}: {status} {reason}, member {member}: {}",
                    text(&ready, "/message")
                ));
            }
        }
        left
    }

    /// Accounts that cannot be used. What an object leaves behind may wait for its account.
    pub fn unusable_accounts(&self) -> Vec<String> {
        let mut left = Vec::new();
        let served = ACCOUNTS
            .iter()
            .filter(|account| self.options.scopes.serve(account.namespace));
        for account in served {
            let namespace = account.namespace;
            let object = self.server.object(account.plural, namespace, account.name);
            let ready = object.and_then(|object| condition(&object, "Ready").cloned());
            if let Some(ready) = ready.filter(|ready| ready["status"] != "True") {
                left.push(format!(
                    "{} {namespace}/{}: {ready}",
                    account.plural, account.name
                ));
            }
        }
        left
    }
}

/// Somebody with kubectl.
pub struct User {
    pub server: Arc<ApiServer>,
    pub monitor: Arc<Monitor>,
}

impl User {
    pub fn user(
        &self,
        verb: Verb,
        plural: &'static str,
        namespace: &str,
        name: &str,
        body: Value,
    ) -> Reply {
        let request = Request {
            verb,
            kind: Kind::by_plural(plural),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            status: false,
            query: BTreeMap::from([
                ("fieldManager".to_owned(), "user".to_owned()),
                ("force".to_owned(), "true".to_owned()),
            ]),
            metadata_only: false,
            body,
        };
        let reply = self.server.answer(&request, None);
        let uid = text(&reply.body, "/metadata/uid");
        let takes_finalizer_off = match verb {
            Verb::Merge => request.body["metadata"].get("finalizers").is_some(),
            Verb::Replace => true,
            Verb::Get | Verb::List | Verb::Watch | Verb::Create | Verb::Apply | Verb::Delete => {
                false
            }
        };
        if takes_finalizer_off {
            self.monitor.finalizer_taken_off(&reply.body);
        }
        self.monitor.touched(&uid);
        if request.body.get("spec").is_some() && verb == Verb::Merge {
            self.monitor.respecified(&uid);
        }
        self.monitor.trace(|| {
            format!(
                "user: {verb:?} {plural} {name} {} -> {}",
                request.body, reply.code
            )
        });
        reply
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for process in &self.incarnations {
            process.task.abort();
        }
    }
}

fn settings(scopes: Vec<WatchScope>) -> Settings {
    Settings {
        listen: None,
        scopes,
        operator_namespace: OPERATOR_NAMESPACE.to_owned(),
        default_endpoints: Endpoints::default(),
        environment: Environment::Nothing,
        metadata_service: METADATA_SERVICE.parse().unwrap(),
        scan_period: Duration::from_secs(60),
        lease_duration: None,
        not_observed_after: 10,
        max_writes_in_flight: 8,
        node_conditions: false,
        instance: Some("simulated".to_owned()),
        docs_url: None,
        log_format: LogFormat::Text,
        log_filter: String::new(),
    }
}

fn test_endpoints() -> Endpoints {
    let endpoints = json!({"ecs": "https://ecs.test", "sts": "https://sts.test"});
    serde_json::from_value(endpoints).unwrap()
}

/// Grants of everything to everybody.
fn everything() -> Value {
    json!([{"name": "all", "namespaces": {"selector": {"matchLabels": {"team": "web"}}}, "securityGroups": {"ids": ["*"]}, "allow": ["Join", "Observe", "RemoveAdopted"]}])
}
