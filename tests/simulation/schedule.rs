//! Random schedules: what users, others, the cloud and faults do in some minutes, drawn from a seed; then everything gets
//! well again, and what is left must settle, be right, and stay still.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::link::{FaultRates, KillPoint, LONGEST_READ};
use crate::monitor::{Exception, MEMBERSHIPS, PASS, Tolerance, condition, text};
use crate::topology::{self, ACCOUNTS, CLUSTER, DRAWN, KEYS, NAMES, NAMESPACE, TARGETS};
use crate::wide::{self, WideAct};
use crate::world::{Scopes, SimOptions, World};

/// One thing that happens.
#[derive(Clone, Debug)]
pub enum Act {
    Create {
        name: usize,
        target: usize,
        group: usize,
        /// The policies; and the account, if it is not the cluster's.
        rest: Value,
    },
    Policies {
        name: usize,
        policies: Value,
    },
    Annotate {
        name: usize,
        annotations: Value,
    },
    Delete {
        name: usize,
    },
    Foreign {
        target: usize,
        group: usize,
        joins: bool,
    },
    Status {
        target: usize,
        status: &'static str,
    },
    Release {
        target: usize,
    },
    Limit {
        calls: Option<u32>,
    },
    Grant {
        granted: bool,
    },
    Key {
        active: bool,
    },
    Secret {
        account: usize,
        there: bool,
        key: usize,
    },
    Account {
        account: usize,
        there: bool,
    },
    Kill {
        after: usize,
        point: KillPoint,
    },
    Stop {
        seconds: u64,
    },
    Second,
    /// `kubectl get -o yaml | sed | kubectl create -f -`: annotations and finalizers are copied.
    Copy {
        from: usize,
        name: usize,
        target: usize,
        group: usize,
    },
    /// `kubectl replace` with a manifest without finalizers and annotations.
    Replace {
        name: usize,
    },
    /// `kubectl replace --force`: deleted, and created again.
    Recreate {
        name: usize,
    },
    /// Finalizers are taken off by hand.
    Strip {
        name: usize,
    },
    /// Deleted, and the API server carries it out only after some milliseconds: also if the object has got a finalizer by then.
    DeleteSlowly {
        name: usize,
        millis: u64,
    },
    /// An admission policy refuses writes of the object, of its status, or of both; or no more of any object.
    Policy {
        name: usize,
        object: bool,
        status: bool,
    },
    /// etcd is put back from a backup that is so many revisions old.
    PutBack {
        revisions: u64,
    },
    Wide(WideAct),
}

/// How often each act happened, what became of some, and how often the monitor made each exception, in all schedules of a run.
#[derive(Default)]
pub struct Counts(Mutex<BTreeMap<&'static str, u64>>);

impl Counts {
    /// Adds those of one schedule.
    pub fn add(&self, counts: &BTreeMap<&'static str, u64>) {
        let mut all = self.0.lock().unwrap();
        for (what, times) in counts {
            *all.entry(what).or_default() += times;
        }
    }

    /// One line for each of `words` and each exception. What never happened is reported as such.
    pub fn lines(&self, words: &[&'static str]) -> String {
        let counts = self.0.lock().unwrap();
        let exceptions = Exception::ALL.map(Exception::word);
        let tolerances = Tolerance::ALL.map(Tolerance::word);
        let mut lines = String::new();
        for what in words.iter().chain(&exceptions).chain(&tolerances) {
            let times = counts.get(what).copied().unwrap_or_default();
            let never = if times == 0 { ": never happened" } else { "" };
            writeln!(lines, "{what}: {times}{never}").unwrap();
        }
        lines
    }
}

const PLAIN: [&str; 16] = [
    "create",
    "change policies",
    "annotate",
    "delete",
    "join by others",
    "leave by others",
    "state of a target",
    "release a target",
    "limit",
    "grant",
    "key",
    "Secret",
    "account",
    "kill",
    "stop",
    "second operator",
];
const WIDE: [&str; 12] = [
    "copy",
    "replace",
    "create again",
    "strip",
    "delete slowly",
    "finalizer written while the object is removed",
    "policy",
    "write refused by a policy",
    "status refused by a policy",
    "put back",
    "object that the store has put back",
    "object that the store has lost",
];

/// What a schedule is made of.
pub trait Happens: Clone + std::fmt::Debug + Send + Sync {
    /// Whether it starts another operator.
    fn is_second(&self) -> bool;
    /// What is counted in a run of schedules of this kind.
    fn words(kind: &str) -> Vec<&'static str>;
    /// Runs one schedule; keeps a trace of it if it is `traced`.
    fn run(schedule: &Schedule<Self>, traced: bool) -> impl Future<Output = Outcome>;
}

impl Happens for Act {
    fn is_second(&self) -> bool {
        matches!(self, Self::Second)
    }

    fn words(kind: &str) -> Vec<&'static str> {
        let (changes, wide) = match kind {
            "wide" => (&WIDE[..], &wide::WORDS[..]),
            _ => (&[][..], &[][..]),
        };
        [&PLAIN, changes, wide].concat()
    }

    async fn run(schedule: &Schedule, traced: bool) -> Outcome {
        run(schedule, traced).await
    }
}

/// A whole schedule.
#[derive(Clone, Debug)]
pub struct Schedule<A = Act> {
    pub options: SimOptions,
    /// What happens, by the time since the start.
    pub acts: Vec<(Duration, A)>,
}

impl Schedule {
    /// The schedule of a seed.
    pub fn draw(seed: u64) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let random = &mut random;
        let rates = rates(random);
        // No API server hands out an old list to a client that names no revision; see docs/proof.md.
        let rates = FaultRates {
            old_list: if std::env::var_os("OLD_LISTS").is_some() {
                rates.old_list
            } else {
                0.0
            },
            ..rates
        };
        let several = random.random_bool(0.15);
        let lag = if random.random_bool(0.25) {
            Duration::from_millis(random.random_range(100..5_000))
        } else {
            Duration::ZERO
        };
        let cast = Cast::draw(random);
        let mut at = Duration::ZERO;
        let mut acts = Vec::new();
        for _ in 0..random.random_range(4..24) {
            let pause = match random.random_range(0..10) {
                0..5 => random.random_range(1..100),
                5..8 => random.random_range(100..5_000),
                _ => random.random_range(5_000..70_000),
            };
            at += Duration::from_millis(pause);
            acts.push((at, Act::draw(random, &cast, several)));
        }
        Self {
            options: SimOptions {
                seed,
                rates,
                lag,
                several,
                own_accounts: cast.accounts > 1,
                scopes: Scopes::All,
            },
            acts,
        }
    }

    /// The schedule of a seed with what the plain ones have not: effects that come late, a Describe that lags more often, and
    /// objects that are copied, replaced, created again, and stripped of their finalizers. The seeds that have found a fault before
    /// [`Schedule::draw_wide`] came are those of these.
    pub fn draw_known_wide(seed: u64) -> Self {
        let mut schedule = Self::draw(seed);
        let mut random = StdRng::seed_from_u64(!seed);
        let random = &mut random;
        schedule.options.rates.late = [0.0, 0.1, 0.5][random.random_range(0..3)];
        schedule.options.rates.latest = Duration::from_secs(60);
        if random.random_bool(0.5) {
            schedule.options.lag = Duration::from_millis(random.random_range(100..5_000));
        }
        for _ in 0..random.random_range(1..6) {
            let (at, target, group) = schedule.some_create(random);
            let name = random.random_range(0..NAMES.len());
            let act = match random.random_range(0..16) {
                0 | 1 => Act::Copy {
                    from: random.random_range(0..NAMES.len()),
                    name,
                    target,
                    group,
                },
                2 => Act::Replace { name },
                3 => Act::Strip { name },
                4..7 => Act::Foreign {
                    target,
                    group,
                    joins: random.random_bool(0.6),
                },
                7..10 => Act::Recreate { name },
                10..12 => {
                    schedule.race(random);
                    continue;
                }
                12..15 => {
                    let which = random.random_range(0..3);
                    let (object, status) = (which != 1, which != 0);
                    let end = at + Duration::from_millis(random.random_range(1_000..120_000));
                    let over = Act::Policy {
                        name,
                        object: false,
                        status: false,
                    };
                    schedule.acts.push((end, over));
                    Act::Policy {
                        name,
                        object,
                        status,
                    }
                }
                _ => Act::PutBack {
                    revisions: random.random_range(1..40),
                },
            };
            schedule.acts.push((at, act));
        }
        schedule.acts.sort_by_key(|(at, _)| *at);
        schedule
    }

    /// Deletes one of the objects in the moment in which the operator may write its finalizer.
    fn race(&mut self, random: &mut StdRng) {
        let created = self.acts.iter().filter_map(|(at, act)| match act {
            Act::Create { name, .. } => Some((*at, *name)),
            _ => None,
        });
        let created: Vec<(Duration, usize)> = created.collect();
        if created.is_empty() {
            return;
        }
        let (at, name) = created[random.random_range(0..created.len())];
        let at = at + Duration::from_millis(random.random_range(1..60));
        let millis = random.random_range(2..20);
        self.acts.push((at, Act::DeleteSlowly { name, millis }));
    }

    /// A moment after one of the objects was created, and its edge.
    fn some_create(&self, random: &mut StdRng) -> (Duration, usize, usize) {
        let created: Vec<(Duration, usize, usize)> = self
            .acts
            .iter()
            .filter_map(|(at, act)| match act {
                Act::Create { target, group, .. } => Some((*at, *target, *group)),
                _ => None,
            })
            .collect();
        let after = Duration::from_millis(match random.random_range(0..3) {
            0 => random.random_range(1..200),
            1 => random.random_range(200..10_000),
            _ => random.random_range(10_000..90_000),
        });
        match created.len() {
            0 => (after, 0, 0),
            count => {
                let (at, target, group) = created[random.random_range(0..count)];
                (at + after, target, group)
            }
        }
    }
}

impl<A> Schedule<A> {
    /// How much there is in it: acts, and kinds of faults.
    pub fn size(&self) -> usize {
        let SimOptions {
            rates,
            lag,
            several,
            scopes,
            ..
        } = self.options;
        let FaultRates {
            api,
            cloud,
            event,
            old_list,
            late,
            latest: _,
        } = rates;
        let faults = [api, cloud, event, old_list, late];
        self.acts.len()
            + faults.into_iter().filter(|rate| *rate > 0.0).count()
            + usize::from(!lag.is_zero())
            + usize::from(several)
            + usize::from(scopes != Scopes::All)
    }
}

/// How likely faults are; each kind is absent in half of the schedules.
pub fn rates(random: &mut StdRng) -> FaultRates {
    let mut rates = |likely: &[f64]| likely[random.random_range(0..likely.len())];
    FaultRates {
        api: rates(&[0.0, 0.0, 0.02, 0.1]),
        cloud: rates(&[0.0, 0.0, 0.05, 0.3]),
        event: rates(&[0.0, 0.0, 0.05, 0.3]),
        old_list: rates(&[0.0, 0.0, 0.0, 0.3]),
        late: 0.0,
        latest: Duration::ZERO,
    }
}

/// What a schedule has to do with.
struct Cast {
    targets: Vec<usize>,
    groups: usize,
    accounts: usize,
}

impl Cast {
    /// Few targets make edges shared; sometimes only one.
    fn draw(random: &mut StdRng) -> Self {
        let targets = random.random_range(1..=4);
        Self {
            targets: (0..targets)
                .map(|_| random.random_range(0..DRAWN))
                .collect(),
            groups: random.random_range(1..=2),
            accounts: if random.random_bool(0.4) {
                ACCOUNTS.len()
            } else {
                1
            },
        }
    }
}

impl Act {
    fn draw(random: &mut StdRng, cast: &Cast, several: bool) -> Self {
        let name = random.random_range(0..NAMES.len());
        let target = cast.targets[random.random_range(0..cast.targets.len())];
        let group = random.random_range(0..cast.groups);
        let account = random.random_range(0..cast.accounts);
        match random.random_range(0..100) {
            0..26 => Self::Create {
                name,
                target,
                group,
                rest: {
                    let mut rest = policies(random, 0.25);
                    if account != CLUSTER {
                        topology::name_own_account(&mut rest);
                    }
                    rest
                },
            },
            26..34 => Self::Policies {
                name,
                policies: policies(random, 0.6),
            },
            34..40 => Self::Annotate {
                name,
                annotations: annotations(random),
            },
            40..58 => Self::Delete { name },
            58..68 => Self::Foreign {
                target,
                group,
                joins: random.random_bool(0.5),
            },
            68..73 => Self::Status {
                target,
                status: {
                    let statuses = TARGETS[target].statuses();
                    statuses[random.random_range(0..statuses.len())]
                },
            },
            73..74 => Self::Release { target },
            74..77 => Self::Limit {
                calls: random.random_bool(0.6).then(|| random.random_range(2..10)),
            },
            77..80 => Self::Grant {
                granted: random.random_bool(0.5),
            },
            80..83 => Self::Key {
                active: random.random_bool(0.5),
            },
            83..86 => Self::Secret {
                account,
                there: random.random_bool(0.6),
                key: random.random_range(0..KEYS.len()),
            },
            86..87 => Self::Account {
                account,
                there: random.random_bool(0.5),
            },
            87..94 => Self::Kill {
                after: random.random_range(1..12),
                point: if random.random_bool(0.5) {
                    KillPoint::Before
                } else {
                    KillPoint::AfterEffect
                },
            },
            94..97 => Self::Stop {
                seconds: random.random_range(1..40),
            },
            _ if several => Self::Second,
            _ => Self::Delete { name },
        }
    }

    /// What it is called in the counts.
    const fn word(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::Policies { .. } => "change policies",
            Self::Annotate { .. } => "annotate",
            Self::Delete { .. } => "delete",
            Self::Foreign { joins: true, .. } => "join by others",
            Self::Foreign { joins: false, .. } => "leave by others",
            Self::Status { .. } => "state of a target",
            Self::Release { .. } => "release a target",
            Self::Limit { .. } => "limit",
            Self::Grant { .. } => "grant",
            Self::Key { .. } => "key",
            Self::Secret { .. } => "Secret",
            Self::Account { .. } => "account",
            Self::Kill { .. } => "kill",
            Self::Stop { .. } => "stop",
            Self::Second => "second operator",
            Self::Copy { .. } => "copy",
            Self::Replace { .. } => "replace",
            Self::Recreate { .. } => "create again",
            Self::Strip { .. } => "strip",
            Self::DeleteSlowly { .. } => "delete slowly",
            Self::Policy { .. } => "policy",
            Self::PutBack { .. } => "put back",
            Self::Wide(act) => act.word(),
        }
    }

    pub fn happen(&self, world: &mut World) {
        world.monitor.count(self.word());
        match self {
            Self::Create {
                name,
                target,
                group,
                rest,
            } => {
                world.membership(NAMES[*name], *target, *group, rest.clone());
            }
            Self::Policies { name, policies } => {
                world.patch(NAMES[*name], json!({"spec": policies}));
            }
            Self::Annotate { name, annotations } => {
                world.patch(
                    NAMES[*name],
                    json!({"metadata": {"annotations": annotations}}),
                );
            }
            Self::Delete { name } => world.delete(NAMES[*name]),
            Self::Foreign {
                target,
                group,
                joins,
            } => world.foreign(*target, *group, *joins),
            Self::Status { target, status } => {
                world.cloud(json!({"setStatus": {"id": TARGETS[*target].id, "status": status, "for": "20s"}}));
            }
            Self::Release { target } => world.cloud(json!({"delete": {"id": TARGETS[*target].id}})),
            Self::Limit { calls } => world.cloud(json!({"set": {"limits": limits(*calls)}})),
            Self::Grant { granted } => world.grant(*granted),
            Self::Key { active } => {
                let change = if *active { "activateKey" } else { "revokeKey" };
                world.cloud(json!({change: {"id": "LTAI5tFirst"}}));
                world.monitor.upheaval();
            }
            Self::Secret {
                account,
                there: true,
                key,
            } => world.write_secret(*account, *key),
            Self::Secret {
                account,
                there: false,
                ..
            } => world.remove_secret(*account),
            Self::Account { account, there } => world.account(*account, *there),
            Self::Kill { after, point } => world.schedule_kill(*after, *point),
            Self::Stop { .. } => {}
            Self::Second => world.start(None),
            Self::Copy {
                from,
                name,
                target,
                group,
            } => world.copy(NAMES[*from], NAMES[*name], *target, *group),
            Self::Replace { name } => world.replace(NAMES[*name]),
            Self::Recreate { name } => world.recreate(NAMES[*name]),
            Self::Strip { name } => {
                world.patch(NAMES[*name], json!({"metadata": {"finalizers": null}}));
            }
            Self::DeleteSlowly { name, millis } => {
                world.delete_slowly(NAMES[*name], Duration::from_millis(*millis));
            }
            Self::Policy {
                name,
                object,
                status,
            } => {
                let (_, name) = topology::place(NAMES[*name]);
                world.faults.set_policy(object.then_some((name, 422)));
                world.refuse_status_of(status.then_some(name));
            }
            Self::PutBack { revisions } => world.put_back(*revisions),
            Self::Wide(act) => act.happen(world),
        }
    }
}

fn limits(calls: Option<u32>) -> Value {
    json!({"JoinSecurityGroup": calls, "DescribeInstances": calls, "DescribeNetworkInterfaces": calls})
}

pub fn policies(random: &mut StdRng, probability: f64) -> Value {
    let mut policies = json!({});
    if random.random_bool(probability / 2.0) {
        policies["suspend"] = json!(random.random_bool(0.4));
    }
    for (name, values) in [
        ("managementPolicy", ["Manage", "Observe", "Manage"]),
        ("adoptionPolicy", ["Adopt", "Refuse", "Adopt"]),
        ("deletionPolicy", ["RemoveIfJoined", "Remove", "Retain"]),
        ("driftPolicy", ["Repair", "Report", "Repair"]),
    ] {
        if random.random_bool(probability) {
            policies[name] = json!(values[random.random_range(0..3)]);
        }
    }
    policies
}

fn annotations(random: &mut StdRng) -> Value {
    match random.random_range(0..5) {
        0..3 => {
            json!({"security-group-operator.io/reconcile-requested-at": random.random_range(0..9).to_string()})
        }
        _ => json!({"example.com/nonsense": "\u{1f980}".repeat(random.random_range(1..50))}),
    }
}

/// What became of a schedule.
pub struct Outcome {
    pub problems: Vec<String>,
    pub trace: Vec<String>,
    pub counts: BTreeMap<&'static str, u64>,
}

/// In every fourth schedule a list takes several requests.
pub fn cut_pages(world: &World, seed: u64) {
    if seed % 4 == 3 {
        world.server.cut_pages(2);
    }
}

/// Runs one schedule; keeps a trace of it if it is `traced`.
pub async fn run(schedule: &Schedule, traced: bool) -> Outcome {
    let mut world = World::new(schedule.options);
    cut_pages(&world, schedule.options.seed);
    world.monitor.keep_trace(traced);
    world.monitor.trace(|| format!("{:?}", schedule.options));
    wide::count_options(&world, &schedule.options);
    world.start(None);
    let started = Instant::now();
    let mut rested = started;
    for (at, act) in &schedule.acts {
        sleep_until(&mut world, started + *at).await;
        if let Act::Stop { seconds } = act {
            // Whoever is stopped again and again may have a call on its way for as long as one likes.
            if Instant::now() < rested {
                continue;
            }
            rested = stop(&mut world, Duration::from_secs(*seconds)).await;
        } else {
            act.happen(&mut world);
        }
    }
    // What was begun and takes its time has ended by then: an interface that is being deleted has gone.
    let settle = Instant::now() + Duration::from_secs(25);
    sleep_until(&mut world, settle).await;
    heal(&mut world);
    let mut problems = settle_down(&mut world).await;
    if problems.is_empty() {
        problems = delete_all(&mut world).await;
    }
    world.monitor.check_all_left_behind();
    problems.extend(world.monitor.violations());
    Outcome {
        problems,
        trace: world.monitor.take_trace(),
        counts: world.monitor.counts(),
    }
}

/// The operator stops for so long. Returns when it may be stopped again.
pub async fn stop(world: &mut World, period: Duration) -> Instant {
    world.monitor.count("stop");
    world.monitor.trace(|| format!("stopped for {period:?}"));
    world.pause(true);
    sleep_until(world, Instant::now() + period).await;
    world.pause(false);
    Instant::now() + PASS
}

/// Sleeps, and starts the operator again whenever it dies.
pub async fn sleep_until(world: &mut World, until: Instant) {
    loop {
        let died = world.dead_incarnation();
        if let Some(incarnation) = died {
            world.kill(incarnation);
            world.restart(incarnation);
            continue;
        }
        if Instant::now() >= until {
            return;
        }
        let deaths = world.deaths();
        tokio::select! {
            biased;
            () = deaths => {}
            () = tokio::time::sleep_until(until) => return,
        }
    }
}

/// Nothing goes wrong any more, and one operator is left.
pub fn heal(world: &mut World) {
    world
        .monitor
        .trace(|| "all is well from here on".to_owned());
    world.faults.clear();
    world.refuse_status_of(None);
    world.pause(false);
    world.cancel_kill();
    if world.monitor.several {
        // Nobody corrects what another operator wrote into a status last, until an operator lists everything anew.
        world.restart_all();
    }
    world.cloud(json!({"activateKey": {"id": "LTAI5tFirst"}}));
    world.cloud(json!({"set": {"limits": limits(None)}}));
    wide::heal(world);
    world.restore_accounts();
    world.grant(true);
    for object in world.objects() {
        let metadata = |field| text(&object["metadata"], field);
        let name = format!("{}/{}", metadata("/namespace"), metadata("/name"));
        world.patch(&name, json!({"spec": {"suspend": false}}));
    }
}

/// Deletes every object: what the operator joined must have gone with the last of each edge.
pub async fn delete_all(world: &mut World) -> Vec<String> {
    world.monitor.trace(|| "everything is deleted".to_owned());
    let names = |world: &World| -> Vec<String> {
        let objects = world.objects();
        let name = |object: &Arc<Value>| {
            let metadata = |field| text(&object["metadata"], field);
            format!("{}/{}", metadata("/namespace"), metadata("/name"))
        };
        objects.iter().map(name).collect()
    };
    for name in names(world) {
        world.delete(&name);
    }
    // What was joined with another cloud account waits for it for ever; docs/user/stuck-deletion.md says so. So does what no operator
    // watches for an operator.
    for object in world.objects() {
        let is_elsewhere =
            condition(&object, "Ready").is_some_and(|ready| ready["reason"] == "AccountChanged");
        if is_elsewhere || !world.monitor.serves(&object) {
            let metadata = |field| text(&object["metadata"], field);
            let name = format!("{}/{}", metadata("/namespace"), metadata("/name"));
            world.patch(&name, json!({"metadata": {"finalizers": null}}));
        }
    }
    let begun = Instant::now();
    while begun.elapsed() < PATIENCE {
        if names(world).is_empty() && !world.monitor.owes_a_leave() {
            return Vec::new();
        }
        sleep_until(world, Instant::now() + Duration::from_secs(5)).await;
    }
    let stay = |name: String| format!("I7: {name} is deleted and stays");
    names(world).into_iter().map(stay).collect()
}

/// Two scans, and where the operator said that it would look later, until then.
const PATIENCE: Duration = Duration::from_secs(2 * 60 * 60);

const QUIET_TRIES: usize = 12;

async fn settle_down(world: &mut World) -> Vec<String> {
    settle_down_with(world, |_| Vec::new()).await
}

/// Waits until everything, and what `more` looks at, is as it must be; and then a while for what must not happen any more.
pub async fn settle_down_with(
    world: &mut World,
    more_left: fn(&World) -> Vec<String>,
) -> Vec<String> {
    let begun = Instant::now();
    // By then the answer to every call from before has come.
    let mut pause = LONGEST_READ;
    loop {
        sleep_until(world, Instant::now() + pause).await;
        pause = (pause * 2).min(Duration::from_secs(65));
        let mut left = world.unsettled();
        left.extend(world.unusable_accounts());
        left.extend(more_left(world));
        if left.is_empty() {
            break;
        }
        if begun.elapsed() > PATIENCE {
            return left
                .into_iter()
                .map(|line| format!("I7: not settled: {line}"))
                .collect();
        }
    }
    // A small limit that was learned from a throttle may still hold somebody up.
    let mut more = 0;
    for _ in 0..QUIET_TRIES {
        let (effects, revision) = (world.monitor.effects(), world.server.state().revision);
        sleep_until(world, Instant::now() + Duration::from_secs(125)).await;
        more = world.monitor.effects() - effects;
        if more == 0 && world.server.state().revision == revision {
            break;
        }
        more = more.max(1);
    }
    if more > 0 {
        return vec![format!(
            "I7: {more} effects after everything had settled ({NAMESPACE} {MEMBERSHIPS})"
        )];
    }
    let mut problems: Vec<String> = world
        .unsettled()
        .into_iter()
        .chain(more_left(world))
        .map(|line| format!("I7: settled and then not: {line}"))
        .collect();
    // A scan that waits for its turn may still ask for what was there when it began.
    let mut looks = world.needless_looks(Duration::from_secs(120));
    for _ in 0..QUIET_TRIES {
        if looks.is_empty() {
            break;
        }
        sleep_until(world, Instant::now() + Duration::from_secs(125)).await;
        looks = world.needless_looks(Duration::from_secs(120));
    }
    problems.extend(
        looks
            .into_iter()
            .map(|target| format!("I7: {target} is looked at, and no object names it")),
    );
    problems
}
