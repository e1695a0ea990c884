//! A cluster, a cloud and any number of lives of the operator over them, in virtual time. Knows what a user and others can
//! do; what they do when is for schedules and paths to say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use security_group_operator::api::account::Endpoints;
use security_group_operator::args::{LogFormat, Settings};
use security_group_operator::clock::Clock;
use security_group_operator::operator;
use security_group_operator::simulator::Simulator;
use security_group_operator::simulator::cloud::Cloud;
use security_group_operator::simulator::inventory::Inventory;
use security_group_operator::telemetry::Telemetry;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use crate::api_server::request::{Reply, Request};
use crate::api_server::store::Kind;
use crate::api_server::{self, ApiServer, Verb};
use crate::link::{ApiSide, CloudSide, Link, Moment, Odds, Weather};
use crate::monitor::{MEMBERSHIPS, Monitor, condition, is_deleting, target_of, text};

pub const NAMESPACE: &str = "team";
pub const OPERATOR_NAMESPACE: &str = "operator";
pub const GROUPS: [&str; 2] = ["sg-a", "sg-b"];
/// Access keys: ID, secret, and the cloud account. The last one is of another account than the instances.
pub const KEYS: [(&str, &str, &str); 3] = [
    ("LTAI5tFirst", "first-secret-canary", "1000000000000001"),
    ("LTAI5tSecond", "second-secret-canary", "1000000000000001"),
    ("LTAI5tForeign", "foreign-secret-canary", "1000000000000002"),
];

pub struct World {
    pub server: Arc<ApiServer>,
    pub simulator: Arc<Simulator>,
    pub monitor: Arc<Monitor>,
    pub weather: Arc<Weather>,
    pub lives: Vec<Life>,
    seed: u64,
}

/// One running or dead operator.
pub struct Life {
    pub link: Arc<Link>,
    task: JoinHandle<()>,
    /// Whether its end has been seen to.
    cleared: bool,
}

/// What is different in one world.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nature {
    pub seed: u64,
    pub odds: Odds,
    pub lag: Duration,
    pub several: bool,
}

impl World {
    /// A world with an account that is granted everything, and no operator yet.
    pub fn new(nature: Nature) -> Self {
        let server = Arc::new(ApiServer::new(epoch()));
        let mut cloud = cloud();
        cloud.settings.lag = nature.lag;
        let simulator = Arc::new(Simulator::new(cloud, nature.seed));
        let mut monitor = Monitor::new(Arc::clone(&server), Arc::clone(&simulator));
        monitor.several = nature.several;
        monitor.old_lists = nature.odds.old_list > 0.0;
        monitor.lag = nature.lag;
        monitor.secrets = KEYS
            .iter()
            .map(|(_, secret, _)| (*secret).to_owned())
            .collect();
        let world = Self {
            server,
            simulator,
            monitor: Arc::new(monitor),
            weather: Arc::new(Weather::new(nature.seed, nature.odds)),
            lives: Vec::new(),
            seed: nature.seed,
        };
        world.create(
            "namespaces",
            "",
            json!({"metadata": {"name": NAMESPACE, "labels": {"team": "web"}}}),
        );
        world.write_secret(0);
        world.account(true);
        world
    }

    /// Starts an operator; `ends` is the request at which it is killed.
    pub fn start(&mut self, ends: Option<(usize, Moment)>) {
        self.start_until(ends, std::future::pending());
    }

    /// Starts an operator that is asked to end when `shutdown` resolves.
    pub fn start_until(
        &mut self,
        ends: Option<(usize, Moment)>,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) {
        let life = self.lives.len();
        let link = Arc::new(Link {
            life,
            server: Arc::clone(&self.server),
            simulator: Arc::clone(&self.simulator),
            monitor: Arc::clone(&self.monitor),
            weather: Arc::clone(&self.weather),
            ends: std::sync::Mutex::new(ends),
            requests: AtomicUsize::new(0),
            dead: AtomicBool::new(false),
            died: Notify::new(),
            halted: AtomicBool::new(false),
            goes_on: Notify::new(),
        });
        self.monitor.trace(|| format!("life {life} begins"));
        let client = api_server::client(&self.server, Arc::new(ApiSide(Arc::clone(&link))));
        let operator = operator::run_with(
            settings(),
            client,
            Arc::new(CloudSide(Arc::clone(&link))),
            Arc::new(Telemetry::default()),
            Clock::simulated(self.server.now(), self.seed.wrapping_add(life as u64)),
            shutdown,
        );
        self.lives.push(Life {
            link,
            task: tokio::spawn(operator),
            cleared: false,
        });
    }

    /// kill -9. What the process had begun is lost, what the servers have got is done.
    pub fn kill(&self, life: usize) {
        self.monitor.trace(|| format!("life {life} is killed"));
        self.lives[life].link.kill();
        self.lives[life].task.abort();
    }

    /// Has every running life end at its `after`-th request from now.
    pub fn doom(&self, after: usize, moment: Moment) {
        for life in &self.lives {
            life.link.doom(after, moment);
        }
    }

    pub fn undoom(&self) {
        for life in &self.lives {
            life.link.doom(0, Moment::Before);
        }
    }

    /// SIGSTOP and SIGCONT: nothing is sent or heard meanwhile.
    pub fn halt(&self, halted: bool) {
        for life in &self.lives {
            life.link.halt(halted);
        }
    }

    /// A life that has ended and was not cleared away yet.
    pub fn dead_life(&self) -> Option<usize> {
        self.lives
            .iter()
            .position(|life| life.link.is_dead() && !life.cleared)
    }

    /// Resolves at the next death.
    pub fn deaths(&self) -> impl Future<Output = ()> + use<> {
        let links: Vec<Arc<Link>> = self
            .lives
            .iter()
            .filter(|life| !life.cleared)
            .map(|life| Arc::clone(&life.link))
            .collect();
        async move {
            let waits = links.iter().map(|link| Box::pin(link.died.notified()));
            let _ = futures::future::select_all(waits).await;
        }
    }

    pub fn revive(&mut self, life: usize) {
        self.lives[life].cleared = true;
        self.start(None);
    }

    /// Ends all operators and starts another.
    pub fn keep_none(&mut self) {
        for life in 0..self.lives.len() {
            if !self.lives[life].cleared {
                self.kill(life);
                self.lives[life].cleared = true;
            }
        }
        self.start(None);
    }

    pub fn remove_secret(&self) {
        self.user(
            Verb::Delete,
            "secrets",
            OPERATOR_NAMESPACE,
            "key",
            Value::Null,
        );
        self.monitor.upheaval();
    }

    /// Makes or takes away the account.
    pub fn account(&self, there: bool) {
        if there {
            self.create("clustercloudaccounts", "", json!({"metadata": {"name": "default"}, "spec": {
                "credentials": {"secretRef": {"name": "key"}},
                "endpoints": {"ecs": "http://ecs.test", "sts": "http://sts.test"},
                "grants": [{"namespaces": {"selector": {"matchLabels": {"team": "web"}}}, "securityGroupIDs": ["*"]}],
            }}));
        } else {
            self.user(
                Verb::Delete,
                "clustercloudaccounts",
                "",
                "default",
                Value::Null,
            );
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

    pub fn write_secret(&self, key: usize) {
        use base64::Engine as _;
        let encode = |text: &str| base64::engine::general_purpose::STANDARD.encode(text);
        let (id, secret, _) = KEYS[key % KEYS.len()];
        self.user(
            Verb::Apply,
            "secrets",
            OPERATOR_NAMESPACE,
            "key",
            json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"},
                "data": {"accessKeyID": encode(id), "accessKeySecret": encode(secret)},
            }),
        );
        self.monitor.upheaval();
    }

    /// A membership `name` of instance `target` in group `group`.
    pub fn membership(&self, name: &str, target: usize, group: usize, policies: Value) -> Reply {
        let mut spec = json!({"region": "cn-hangzhou", "instanceID": format!("i-{target}"), "securityGroupID": GROUPS[group]});
        spec.as_object_mut()
            .unwrap()
            .extend(policies.as_object().cloned().unwrap_or_default());
        self.create(
            MEMBERSHIPS,
            NAMESPACE,
            json!({"metadata": {"name": name}, "spec": spec}),
        )
    }

    pub fn patch(&self, name: &str, patch: Value) -> Reply {
        self.user(Verb::Merge, MEMBERSHIPS, NAMESPACE, name, patch)
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
        let reply = self.user(Verb::Delete, MEMBERSHIPS, NAMESPACE, name, Value::Null);
        self.monitor.touched(&text(&reply.body, "/metadata/uid"));
    }

    /// Sets who may use the account: everybody, or nobody.
    pub fn grant(&self, granted: bool) {
        let grants = if granted {
            json!([{"namespaces": {"selector": {"matchLabels": {"team": "web"}}}, "securityGroupIDs": ["*"]}])
        } else {
            json!([])
        };
        self.user(
            Verb::Merge,
            "clustercloudaccounts",
            "",
            "default",
            json!({"spec": {"grants": grants}}),
        );
        self.monitor.upheaval();
    }

    /// Changes the cloud behind the operator's back; see the manual of the simulator.
    pub fn cloud(&self, change: Value) {
        self.monitor.trace(|| format!("cloud: {change}"));
        let joined = change.get("join").map(|edge| (edge.clone(), true));
        let left = change.get("leave").map(|edge| (edge.clone(), false));
        if let Some((edge, joined)) = joined.or(left) {
            self.monitor.foreign(
                &text(&edge, "/target"),
                &text(&edge, "/securityGroupId"),
                joined,
            );
        }
        // One that does not fit (a target that is gone) changes nothing.
        let _ = self
            .simulator
            .change(serde_json::from_value(change).unwrap(), self.server.now());
    }

    pub fn foreign(&self, target: usize, group: usize, joins: bool) {
        let word = if joins { "join" } else { "leave" };
        self.cloud(
            json!({word: {"target": format!("i-{target}"), "securityGroupId": GROUPS[group]}}),
        );
    }

    pub fn is_member(&self, target: &str, group: &str) -> bool {
        self.monitor
            .membership(Some(target), Some(group), self.server.now())
    }

    pub fn objects(&self) -> Vec<Arc<Value>> {
        self.server.objects(MEMBERSHIPS)
    }

    /// What is compared between two runs: who is in which group, and what each object says.
    pub fn picture(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for target in 0..crate::monitor::TARGETS {
            for group in GROUPS {
                let target = format!("i-{target}");
                if self.is_member(&target, group) {
                    lines.push(format!("{target} is in {group}"));
                }
            }
        }
        for object in self.objects() {
            let metadata = &object["metadata"];
            lines.push(format!(
                "{} {} {} {}",
                text(&object, "/metadata/name"),
                metadata["finalizers"],
                metadata["annotations"],
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
        for object in self.objects() {
            let name = text(&object, "/metadata/name");
            let ready = condition(&object, "Ready").cloned().unwrap_or_default();
            let (status, reason) = (text(&ready, "/status"), text(&ready, "/reason"));
            let current = ready["observedGeneration"] == object["metadata"]["generation"];
            let member =
                self.is_member(&target_of(&object), &text(&object, "/spec/securityGroupID"));
            let exists = self.simulator.inspect(|cloud| {
                cloud
                    .instance(&target_of(&object), self.server.now())
                    .is_some()
            });
            let observed = object["spec"]["managementPolicy"] == "Observe";
            let fine = current
                && match reason.as_str() {
                    "Joined" | "Adopted" | "Shared" => status == "True" && member,
                    "AdoptionRefused" => object["spec"]["adoptionPolicy"] == "Refuse" && member,
                    "DriftReported" => object["spec"]["driftPolicy"] == "Report" && !member,
                    "NotAMember" => observed && !member,
                    "TargetNotFound" => !exists,
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
}

impl Drop for World {
    fn drop(&mut self) {
        for life in &self.lives {
            life.task.abort();
        }
    }
}

fn settings() -> Settings {
    Settings {
        listen: ([127, 0, 0, 1], 0).into(),
        scopes: vec![None],
        operator_namespace: OPERATOR_NAMESPACE.to_owned(),
        default_endpoints: Endpoints::default(),
        environment: None,
        scan_period: Duration::from_secs(60),
        max_writes_in_flight: 8,
        instance: Some("simulated".to_owned()),
        log_format: LogFormat::Text,
        log_filter: String::new(),
    }
}

fn epoch() -> Timestamp {
    Timestamp::from_second(1_767_225_600).unwrap()
}

/// The cloud at the beginning; parsed once.
fn cloud() -> Cloud {
    static CLOUD: OnceLock<Cloud> = OnceLock::new();
    CLOUD
        .get_or_init(|| {
            let keys: Vec<Value> = KEYS
                .iter()
                .map(
                    |(id, secret, account)| json!({"id": id, "secret": secret, "account": account}),
                )
                .collect();
            let instances: Vec<Value> = (0..crate::monitor::TARGETS)
                .map(|number| json!({"id": format!("i-{number}"), "securityGroupIds": ["sg-base"]}))
                .collect();
            let inventory = json!({
                "accessKeys": keys,
                "securityGroups": [{"id": "sg-base"}, {"id": "sg-a"}, {"id": "sg-b"}],
                "instances": instances,
            });
            Inventory::from_yaml(&inventory.to_string())
                .unwrap()
                .build(epoch())
                .unwrap()
        })
        .clone()
}
