//! Random schedules with sets: their specs change, Nodes come and go, tags change, lists lie, operators are killed. Then all faults end:
//! each set must have one membership for each target that it selects, and no other.

mod acts;
pub mod garbage;
mod karpenter;
mod rest;

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use crate::monitor::sets::{Delays, SetException};
use crate::schedule::{self, Act, Happens, Outcome, Schedule};
use crate::world::{SimOptions, World};

use acts::{NODES, SET_NAMES, SetAct};
use garbage::Cascade;

/// The schedule of a seed.
pub fn draw(seed: u64) -> Schedule<SetAct> {
    // Others than those of the schedules without sets.
    let mut random = StdRng::seed_from_u64(seed ^ 0x5e75);
    let random = &mut random;
    let mut rates = schedule::rates(random);
    rates.old_list = 0.0;
    let several = random.random_bool(0.1);
    let lag = if random.random_bool(0.2) {
        Duration::from_millis(random.random_range(100..5_000))
    } else {
        Duration::ZERO
    };
    let sets = random.random_range(1..=SET_NAMES.len());
    let mut acts = Vec::new();
    let mut at = Duration::from_millis(1);
    for node in 0..random.random_range(0..=NODES) {
        acts.push((at, SetAct::draw_node(random, node)));
    }
    for instance in 0..acts::INSTANCES.len() {
        let tags = serde_json::json!({"pool": "web"});
        if random.random_bool(0.7) {
            acts.push((at, SetAct::Tags { instance, tags }));
        }
    }
    // Old Nodes, or new ones.
    if random.random_bool(0.7) {
        at += Duration::from_secs(310);
    }
    for set in 0..random.random_range(1..=sets) {
        acts.push((at, SetAct::draw_set(random, set)));
    }
    for _ in 0..random.random_range(4..26) {
        at += pause(random);
        let act = SetAct::draw(random, sets, several);
        if let SetAct::HideNode { node, seconds } = act {
            let end = at + Duration::from_secs(seconds + 1);
            acts.push((end, SetAct::Heartbeat { node }));
        }
        acts.push((at, act));
    }
    acts.sort_by_key(|(at, _)| *at);
    karpenter::add(&mut acts, seed, sets);
    let options = SimOptions {
        seed,
        rates,
        lag,
        several,
        own_accounts: false,
        ..SimOptions::default()
    };
    Schedule { options, acts }
}

/// The time until the next act: often while a pass still runs, sometimes longer than what is gone is kept.
fn pause(random: &mut StdRng) -> Duration {
    Duration::from_millis(match random.random_range(0..10) {
        0..4 => random.random_range(1..100),
        4..7 => random.random_range(100..5_000),
        7..9 => random.random_range(5_000..70_000),
        _ => random.random_range(70_000..400_000),
    })
}

impl Happens for SetAct {
    fn is_second(&self) -> bool {
        matches!(self, Self::Other(Act::Second))
    }

    fn words(_: &str) -> Vec<&'static str> {
        let exceptions = SetException::ALL.map(SetException::word);
        [
            &acts::WORDS[..],
            &karpenter::WORDS,
            &Act::words("plain"),
            &EVIDENCE,
            &exceptions,
        ]
        .concat()
    }

    async fn run(schedule: &Schedule<Self>, traced: bool) -> Outcome {
        run(schedule, traced).await
    }
}

const EVIDENCE: [&str; 8] = [
    "evidence: not in the list of IDs",
    "evidence: labels of an old Node",
    "evidence: tags by ID",
    "evidence: no Node for five minutes",
    "evidence: released five minutes ago",
    "evidence: Ready in the new group",
    "change of group without a gap",
    "orphan taken over",
];

/// What the faults of a schedule delay.
fn delays(schedule: &Schedule<SetAct>) -> Delays {
    let rates = schedule.options.rates;
    let any = |is: fn(&SetAct) -> bool| schedule.acts.iter().any(|(_, act)| is(act));
    let is_slow = rates.api > 0.0 || any(|act| matches!(act, SetAct::Other(Act::Stop { .. })));
    let is_throttled = rates.cloud > 0.0
        || any(|act| matches!(act, SetAct::Other(Act::Limit { .. } | Act::Secret { .. })));
    let slack = Duration::from_secs(if is_slow { 120 } else { 3 });
    Delays {
        slack,
        late: Duration::from_secs(if rates.event > 0.0 { 60 } else { 1 }),
        tags_age: slack + Duration::from_secs(if is_throttled { 1_200 } else { 150 }),
        has_bad_lists: any(|act| matches!(act, SetAct::HideNode { .. } | SetAct::OldNodes { .. })),
    }
}

/// Runs one schedule; keeps a trace of it if it is `traced`.
async fn run(schedule: &Schedule<SetAct>, traced: bool) -> Outcome {
    let mut world = World::new(schedule.options);
    schedule::cut_pages(&world, schedule.options.seed);
    world.monitor.keep_trace(traced);
    world.monitor.trace(|| format!("{:?}", schedule.options));
    world.monitor.judge_sets(delays(schedule));
    let period = [200, 500, 3_000][usize::try_from(schedule.options.seed % 3).unwrap()];
    let collector = garbage::collect(world.user_handle(), Duration::from_millis(period));
    let collector = tokio::spawn(collector);
    world.start(None);
    act(&mut world, schedule).await;
    // What was begun and takes its time has ended by then.
    let settle = Instant::now() + Duration::from_secs(25);
    schedule::sleep_until(&mut world, settle).await;
    schedule::heal(&mut world);
    rest::heal(&world);
    let mut problems = rest::settle_down(&mut world).await;
    if problems.is_empty() {
        for (at, name) in SET_NAMES.iter().enumerate() {
            let all = [Cascade::Background, Cascade::Foreground, Cascade::Orphan];
            let at = usize::try_from(schedule.options.seed % 3).unwrap() + at;
            acts::delete_set(&world, name, all[at % 3]);
        }
        problems = rest::sets_go(&mut world).await;
        problems.extend(schedule::delete_all(&mut world).await);
    }
    collector.abort();
    world.monitor.check_all_left_behind();
    problems.extend(world.monitor.violations());
    Outcome {
        problems,
        trace: world.monitor.take_trace(),
        counts: world.monitor.counts(),
    }
}

async fn act(world: &mut World, schedule: &Schedule<SetAct>) {
    let started = Instant::now();
    let mut rested = started;
    for (at, act) in &schedule.acts {
        schedule::sleep_until(world, started + *at).await;
        let SetAct::Other(Act::Stop { seconds }) = act else {
            act.happen(world);
            continue;
        };
        if Instant::now() < rested {
            continue;
        }
        rested = schedule::stop(world, Duration::from_secs(*seconds)).await;
    }
}
