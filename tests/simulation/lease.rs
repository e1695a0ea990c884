//! Leader election: of two operators the holder of the Lease acts. A leader that is frozen, cut off, killed or asked to end is
//! followed by the other one, no call begins without the Lease, and no edge of ours is taken for somebody else's.
//!
//! Whether a Join or Leave began under the Lease is judged by the log of the API server and by what has reached the cloud.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http_body_util::BodyExt as _;
use k8s_openapi::jiff::Timestamp;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use security_group_operator::kubernetes::lease::{CALLS_ANNOTATION, NAME};
use security_group_operator::telemetry::{self, Telemetry};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::Instant;
use tower::ServiceExt as _;

use crate::link::FaultRates;
use crate::monitor::{MEMBERSHIPS, text};
use crate::scenario::{add_fault, object, ready, seconds};
use crate::topology::{NAMESPACE, OPERATOR_NAMESPACE, TARGETS};
use crate::world::{SimOptions, World};
use crate::{in_threads, in_virtual_time, number};

const LEASE: Duration = Duration::from_secs(15);

/// A world, and a way to ask each of its operators to end.
struct Elected {
    world: World,
    stops: Vec<Option<oneshot::Sender<()>>>,
    telemetry: Vec<Arc<Telemetry>>,
}

impl Elected {
    /// A world without an operator.
    fn new(options: SimOptions) -> Self {
        Self {
            world: World::new(options),
            stops: Vec::new(),
            telemetry: Vec::new(),
        }
    }

    /// Starts one more operator. Returns its number.
    fn start(&mut self) -> usize {
        self.start_with(LEASE)
    }

    /// The same, with this `--lease-duration`.
    fn start_with(&mut self, duration: Duration) -> usize {
        let (stop, stopped) = oneshot::channel();
        let telemetry = Arc::default();
        self.world.start_elected(duration, &telemetry, async {
            if stopped.await.is_err() {
                std::future::pending::<()>().await;
            }
        });
        self.stops.push(Some(stop));
        self.telemetry.push(telemetry);
        self.stops.len() - 1
    }

    /// How many operators have not ended.
    fn running(&self) -> usize {
        let all = 0..self.stops.len();
        all.filter(|of| !self.world.has_ended(*of)).count()
    }

    /// SIGTERM.
    fn terminate(&mut self, incarnation: usize) {
        if let Some(stop) = self.stops[incarnation].take() {
            let _ = stop.send(());
        }
    }

    fn lease(&self) -> Arc<Value> {
        let lease = self.world.server.object("leases", OPERATOR_NAMESPACE, NAME);
        lease.unwrap()
    }

    /// Waits until the note on the Lease, which must be there, no longer says that calls of another leader are under way.
    async fn until_calls_have_ended(&self) {
        let is_noted = || {
            let lease = self.lease();
            let annotations = lease["metadata"]["annotations"].as_object();
            annotations.is_some_and(|all| all.contains_key(CALLS_ANNOTATION))
        };
        assert!(is_noted());
        while is_noted() {
            seconds(0.01).await;
        }
    }

    /// The holder of the Lease, if there is one.
    fn leader(&self) -> Option<usize> {
        incarnation_of(&self.lease())
    }

    /// The calls that began while the Lease was not their operator's.
    fn calls_without_lease(&self) -> Vec<String> {
        let log = self.world.server.state();
        let holders: Vec<(Timestamp, Option<usize>)> = log
            .log
            .iter()
            .filter(|entry| entry.key.0 == "leases")
            .map(|entry| {
                let renewed = text(&entry.object, "/spec/renewTime").parse().unwrap();
                (renewed, incarnation_of(&entry.object))
            })
            .collect();
        drop(log);
        let now = (Instant::now(), self.world.server.now());
        let sent = self.world.monitor.sent().into_iter();
        sent.filter_map(|(incarnation, sent)| {
            let at = now.1 - (now.0 - sent);
            let before = |(renewed, _): &&(Timestamp, Option<usize>)| *renewed <= at;
            let (renewed, holder) = holders.iter().rev().find(before)?;
            let age = Duration::try_from(at.duration_since(*renewed)).unwrap();
            (*holder != Some(incarnation) || age > LEASE).then(|| {
                format!("{incarnation} called at {at}, {age:?} after {holder:?} held the Lease")
            })
        })
        .collect()
    }

    /// The objects that do not say that the operator joined them.
    fn not_joined(&self) -> Vec<String> {
        let objects = self.world.objects().into_iter();
        objects
            .filter(|object| object["status"]["origin"] != "Joined")
            .map(|object| format!("{}", object["status"]))
            .collect()
    }

    async fn metric(&self, incarnation: usize, name: &str) -> String {
        metric(&self.telemetry[incarnation], name).await
    }
}

/// The value of the first series whose name begins so.
pub async fn metric(telemetry: &Arc<Telemetry>, name: &str) -> String {
    let body = get(telemetry, "/metrics").await.1;
    let line = body.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit_once(' '))
        .unwrap()
        .1
        .to_owned()
}

async fn get(telemetry: &Arc<Telemetry>, path: &str) -> (u16, String) {
    let request = http::Request::get(path).body(axum::body::Body::empty());
    let answer = telemetry::routes(Arc::clone(telemetry)).oneshot(request.unwrap());
    let answer = answer.await.unwrap();
    let code = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap();
    (code, String::from_utf8(body.to_bytes().to_vec()).unwrap())
}

fn incarnation_of(lease: &Value) -> Option<usize> {
    let holder = text(lease, "/spec/holderIdentity");
    let number = holder.strip_prefix("pod-")?.split_once('_')?.0;
    number.parse().ok()
}

/// Two operators, of which the first leads.
async fn two() -> Elected {
    let mut elected = Elected::new(SimOptions::default());
    elected.start();
    seconds(1.0).await;
    elected.start();
    seconds(11.0).await;
    assert_eq!(elected.leader(), Some(0));
    elected
}

fn slow_joins(world: &World, latency: &str) {
    add_fault(world, "JoinSecurityGroup", 1, &json!({"latency": latency}));
}

#[test]
fn standby_only_watches_and_is_ready() {
    in_virtual_time(|| async {
        let elected = two().await;
        elected.world.membership("m", 0, 0, json!({}));
        seconds(60.0).await;
        elected.world.delete("m");
        elected.world.membership("n", 1, 0, json!({}));
        seconds(600.0).await;
        assert_eq!(ready(&elected.world, "n").1, "Joined");
        assert_eq!(elected.world.monitor.effects_of(1), 0);
        for (incarnation, leads) in [(0, "1"), (1, "0")] {
            for path in ["/readyz", "/livez"] {
                assert_eq!(get(&elected.telemetry[incarnation], path).await.0, 200);
            }
            let leader = elected.metric(incarnation, "security_group_operator_leader");
            assert_eq!(leader.await, leads);
        }
        assert_eq!(elected.lease()["spec"]["leaseTransitions"], 0);
    });
}

#[test]
fn standby_takes_over_within_a_second_of_sigterm_and_joins_at_once() {
    in_virtual_time(|| async {
        let mut elected = two().await;
        elected.terminate(0);
        elected.world.membership("m", 0, 0, json!({}));
        seconds(1.0).await;
        assert_eq!(elected.leader(), Some(1));
        assert!(elected.world.has_ended(0));
        assert_eq!(ready(&elected.world, "m").1, "Joined");
        assert_eq!(elected.lease()["spec"]["leaseTransitions"], 1);
        let annotations = &elected.lease()["metadata"]["annotations"];
        assert_eq!(annotations.get(CALLS_ANNOTATION), None);
        // Nothing of the old leader was under way: what is deleted goes at once.
        elected.world.delete("m");
        seconds(2.0).await;
        assert_eq!(object(&elected.world, "m"), None);
        assert_eq!(elected.calls_without_lease(), [""; 0]);
    });
}

#[test]
fn standby_takes_over_when_the_lease_of_a_killed_leader_has_ended() {
    in_virtual_time(|| async {
        let elected = two().await;
        elected.world.kill(0);
        elected.world.membership("m", 0, 0, json!({}));
        seconds(9.0).await;
        assert_eq!(elected.leader(), Some(0));
        seconds(7.0).await;
        assert_eq!(elected.leader(), Some(1));
        assert_eq!(ready(&elected.world, "m").1, "Joined");
    });
}

/// R1.
#[test]
fn nothing_is_removed_until_the_calls_of_the_old_leader_have_ended() {
    // With a note on the Lease, and 70 s after a leader that could write none.
    for killed in [false, true] {
        in_virtual_time(|| async move {
            let mut elected = two().await;
            elected.world.membership("old", 0, 0, json!({}));
            seconds(15.0).await;
            // A repair that takes 30 s to have its effect.
            elected.world.foreign(0, 0, false);
            slow_joins(&elected.world, "30s");
            let request = json!({"metadata": {"annotations": {"security-group-operator.io/reconcile-requested-at": "now"}}});
            elected.world.patch("old", request);
            seconds(2.0).await;
            elected.world.membership("new", 1, 0, json!({}));
            let begun = Instant::now();
            if killed {
                elected.world.kill(0);
                seconds(16.0).await;
            } else {
                elected.terminate(0);
                seconds(1.0).await;
            }
            assert_eq!(elected.leader(), Some(1));
            let annotations = &elected.lease()["metadata"]["annotations"];
            let noted = text(
                annotations,
                &format!("/{}", CALLS_ANNOTATION.replace('/', "~1")),
            );
            let _ = noted;
            assert!(
                annotations[CALLS_ANNOTATION]
                    .as_str()
                    .unwrap()
                    .starts_with("pod-0_")
            );
            assert_eq!(ready(&elected.world, "new").1, "Joined");
            elected.world.delete("old");
            elected.world.delete("new");
            let held_until = if killed { 10 + 69 } else { 27 };
            tokio::time::sleep_until(begun + Duration::from_secs(held_until)).await;
            assert!(object(&elected.world, "old").is_some(), "{killed}");
            assert!(object(&elected.world, "new").is_some(), "{killed}");
            seconds(25.0).await;
            assert_eq!(object(&elected.world, "old"), None, "{killed}");
            assert_eq!(object(&elected.world, "new"), None, "{killed}");
            assert!(!elected.world.is_member("i-0", "sg-a"));
            assert_eq!(elected.world.monitor.violations(), [""; 0]);
            assert_eq!(
                elected.lease()["metadata"]["annotations"].get(CALLS_ANNOTATION),
                None
            );
        });
    }
}

#[test]
fn leader_that_is_cut_off_calls_nothing_any_more_and_ends_before_its_lease() {
    in_virtual_time(|| async {
        let mut elected = Elected::new(SimOptions::default());
        elected.start();
        seconds(20.0).await;
        elected.world.membership("m", 0, 0, json!({}));
        seconds(1.0).await;
        let link = Arc::clone(&elected.world.incarnations[0].link);
        link.cut_off.store(true, Ordering::SeqCst);
        let scans = elected.world.monitor.effects_of(0);
        // Two thirds of the Lease, and the time that the API server has for the last events.
        seconds(13.1).await;
        assert!(elected.world.has_ended(0));
        let all = elected.world.monitor.effects_of(0);
        assert!(all <= scans + 1, "{all}, {scans}");
    });
}

#[test]
fn lease_that_another_process_has_taken_ends_the_leader() {
    in_virtual_time(|| async {
        let elected = two().await;
        let lease = elected.lease();
        let mut taken = Value::clone(&lease);
        taken["spec"]["holderIdentity"] = json!("somebody");
        let reply = elected.world.user(
            crate::api_server::Verb::Replace,
            "leases",
            OPERATOR_NAMESPACE,
            NAME,
            taken,
        );
        assert_eq!(reply.code, 200);
        seconds(6.0).await;
        assert!(elected.world.has_ended(0));
        assert!(!elected.world.has_ended(1));
    });
}

/// A leader is frozen while the API server answers its renewal, and wakes when it may not rely on the Lease any more. It has the Lease by
/// then, but has stopped: it must not keep it from the other one.
#[test]
fn leader_that_learns_of_its_renewal_too_late_ends() {
    in_virtual_time(|| async {
        let elected = two().await;
        let before = elected.lease();
        while elected.lease() == before {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        // The answer is on its way. What this renews ends in 5 s.
        elected.world.freeze(0, true);
        seconds(5.5).await;
        assert_eq!(elected.leader(), Some(0));
        elected.world.freeze(0, false);
        elected.world.membership("m-1-0", 1, 0, json!({}));
        seconds(40.0).await;
        assert!(elected.world.has_ended(0));
        assert_eq!(elected.leader(), Some(1));
        assert!(elected.world.is_member("i-1", "sg-a"));
        assert_eq!(elected.calls_without_lease(), [""; 0]);
    });
}

#[test]
fn lease_that_is_deleted_is_written_again_by_its_holder() {
    in_virtual_time(|| async {
        let elected = two().await;
        elected.world.user(
            crate::api_server::Verb::Delete,
            "leases",
            OPERATOR_NAMESPACE,
            NAME,
            Value::Null,
        );
        seconds(30.0).await;
        assert_eq!(elected.leader(), Some(0));
        assert!(!elected.world.has_ended(0));
        assert_eq!(elected.world.monitor.effects_of(1), 0);
    });
}

/// The Lease says how long its holder counts on it.
#[test]
fn standby_with_a_shorter_duration_waits_for_that_of_the_holder() {
    in_virtual_time(|| async {
        let mut elected = Elected::new(SimOptions::default());
        elected.start();
        seconds(1.0).await;
        elected.start_with(Duration::from_secs(3));
        seconds(11.0).await;
        elected.world.kill(0);
        seconds(9.0).await;
        assert_eq!(elected.leader(), Some(0));
        seconds(7.0).await;
        assert_eq!(elected.leader(), Some(1));
    });
}

/// The API server cannot be reached when the leader is asked to end.
#[test]
fn lease_is_given_up_as_soon_as_the_api_server_can_be_reached_again() {
    in_virtual_time(|| async {
        let mut elected = two().await;
        elected.world.faults.cut_off(0, Duration::from_secs(1));
        elected.terminate(0);
        seconds(0.9).await;
        assert_eq!(elected.leader(), Some(0));
        seconds(2.0).await;
        assert_eq!(elected.leader(), Some(1));
    });
}

/// The note on the Lease that calls of the old leader are under way is gone.
#[test]
fn new_leader_learns_within_a_second_that_the_calls_of_the_old_one_have_ended() {
    for latency in ["20s", "21s", "22s", "23s", "24s"] {
        in_virtual_time(|| async move {
            let mut elected = two().await;
            slow_joins(&elected.world, latency);
            elected.world.membership("m", 0, 0, json!({}));
            seconds(1.0).await;
            elected.terminate(0);
            seconds(2.0).await;
            elected.world.membership("n", 1, 0, json!({}));
            seconds(2.0).await;
            elected.world.delete("n");
            elected.until_calls_have_ended().await;
            let ended = Instant::now();
            while object(&elected.world, "n").is_some() {
                seconds(0.01).await;
            }
            // Its reads count 10 s later.
            let waited = ended.elapsed();
            assert!(waited < Duration::from_millis(11_500), "{waited:?}");
        });
    }
}

/// What others have removed meanwhile is not left until the calls must have ended: they have.
#[test]
fn new_leader_repairs_when_the_calls_of_the_old_one_have_ended() {
    in_virtual_time(|| async move {
        let mut elected = two().await;
        elected.world.membership("m", 0, 0, json!({}));
        seconds(15.0).await;
        slow_joins(&elected.world, "20s");
        elected.world.membership("x", 1, 0, json!({}));
        seconds(1.0).await;
        elected.world.foreign(0, 0, false);
        elected.terminate(0);
        seconds(2.0).await;
        elected.until_calls_have_ended().await;
        elected.world.simulator.set_faults(Vec::new());
        let ended = Instant::now();
        while !elected.world.is_member("i-0", "sg-a") {
            seconds(0.01).await;
            // Its reads count 10 s later.
            let waited = ended.elapsed();
            assert!(waited < Duration::from_secs(12), "{waited:?}");
        }
    });
}

/// How leaders are stopped in one world, drawn from a seed. Returns what was wrong, and how many leaders were stopped.
async fn stop_leaders(seed: u64) -> (Vec<String>, u64) {
    let mut random = StdRng::seed_from_u64(seed);
    let lag = Duration::from_millis(random.random_range(0..3) * 1_000);
    let rates = FaultRates {
        late: if random.random_bool(0.3) { 0.2 } else { 0.0 },
        latest: Duration::from_secs(60),
        ..FaultRates::default()
    };
    let mut elected = Elected::new(SimOptions {
        seed,
        lag,
        rates,
        several: true,
        ..SimOptions::default()
    });
    elected.start();
    elected.start();
    seconds(12.0).await;
    let mut stopped = 0;
    for _ in 0..4 {
        seconds(random.random_range(0.0..5.0)).await;
        change_objects(&elected.world, &mut random);
        tokio::time::sleep(Duration::from_millis(random.random_range(0..60))).await;
        let Some(leader) = elected.leader() else {
            continue;
        };
        stopped += 1;
        let pause = random.random_range(0.1..40.0);
        match random.random_range(0..6) {
            0 => elected.terminate(leader),
            1 => elected.world.kill(leader),
            2 => {
                let link = Arc::clone(&elected.world.incarnations[leader].link);
                link.cut_off.store(true, Ordering::SeqCst);
                seconds(pause).await;
                link.cut_off.store(false, Ordering::SeqCst);
            }
            _ => {
                elected.world.freeze(leader, true);
                change_objects(&elected.world, &mut random);
                seconds(pause).await;
                elected.world.freeze(leader, false);
            }
        }
        seconds(random.random_range(0.0..20.0)).await;
        if elected.running() < 2 {
            elected.start();
        }
    }
    elected.world.faults.clear();
    // Those that have lost the Lease end when their calls have ended.
    seconds(80.0).await;
    if elected.running() == 0 {
        elected.start();
    }
    seconds(400.0).await;
    let mut problems = elected.calls_without_lease();
    problems.extend(elected.not_joined());
    problems.extend(elected.world.unsettled());
    problems.extend(elected.world.monitor.violations());
    let edges = TARGETS[..7]
        .iter()
        .flat_map(|target| target.groups.map(|group| (target.id, group)));
    for (target, group) in edges {
        let named = !elected.world.monitor.naming(target, group).is_empty();
        if elected.world.is_member(target, group) != named {
            problems.push(format!("{target} in {group}: named {named}"));
        }
    }
    (problems, stopped)
}

/// Creates and deletes some objects, each of an edge of its own.
fn change_objects(world: &World, random: &mut StdRng) {
    for _ in 0..random.random_range(1..6) {
        let (target, group) = (
            random.random_range(0..7_usize),
            random.random_range(0..2_usize),
        );
        let name = format!("m-{target}-{group}");
        if world.server.object(MEMBERSHIPS, NAMESPACE, &name).is_none() {
            world.membership(&name, target, group, json!({}));
        } else if random.random_bool(0.5) {
            world.delete(&name);
        }
    }
}

/// Worlds in `cargo test`; four leaders are stopped in each. `PAUSES=100000` stops that many.
const WORLDS: u64 = 30;

#[test]
fn no_stopped_leader_calls_without_its_lease_or_loses_an_edge() {
    let seeds: Vec<u64> = match (number("SEED"), number("PAUSES")) {
        (Some(seed), _) => vec![seed],
        (None, Some(pauses)) => (0..pauses.div_ceil(4)).collect(),
        (None, None) => (0..WORLDS).collect(),
    };
    let (pauses, wrong) = (AtomicU64::new(0), AtomicU64::new(0));
    in_threads(seeds.len() as u64, |number| {
        let seed = seeds[usize::try_from(number).unwrap()];
        let (problems, stopped) = in_virtual_time(|| stop_leaders(seed));
        pauses.fetch_add(stopped, Ordering::Relaxed);
        if !problems.is_empty() {
            wrong.fetch_add(1, Ordering::Relaxed);
            println!("SEED={seed}: {problems:#?}");
        }
    });
    println!("{} leaders stopped", pauses.into_inner());
    assert_eq!(wrong.into_inner(), 0);
}
