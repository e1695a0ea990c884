//! What is between one incarnation of the operator and the world: every request of it, to the API server and to the cloud, is
//! counted here, may go wrong here, and is the moment at which the operator may be killed.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use security_group_operator::api::INTENT_ANNOTATION;
use security_group_operator::ecs::transport::ANSWER_LIMIT;
use security_group_operator::ecs::{Transport, TransportError};
use security_group_operator::kubernetes::WatchScope;
use security_group_operator::shutdown::Shutdown;
use security_group_operator::simulator::faults::{ErrorFault, Fault, Kind, ThrottleFault};
use security_group_operator::simulator::{Delivery, SimulatedResponse, Simulator};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api_server::request::Reply;
use crate::api_server::store::Entry;
use crate::api_server::{ApiServer, Call, CallFault, FaultPlan, Silence, Verb, WatchFault};
use crate::lies::Lies;
use crate::monitor::sets::SETS;
use crate::monitor::{Edge, MEMBERSHIPS, Monitor, names_targets};

/// How long the slowest read of a target may take: the deadline of a read of interfaces.
pub const LONGEST_READ: Duration = Duration::from_secs(16);

/// A minute, and how long a call is on its way to the cloud, in milliseconds.
const MINUTE: u64 = 60_000;
const WAY: u64 = 10;

/// How long after it was sent a call takes effect at the latest.
const LATEST_EFFECT: Duration = Duration::from_secs(66);

/// At which side of a request an operator is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KillPoint {
    /// The request is not sent any more. (Also the moment after the answer of the one before.)
    Before,
    /// The request has done its work, and its answer reaches nobody.
    AfterEffect,
}

/// How likely each kind of fault is, each of 1.
#[derive(Clone, Copy, Debug, Default)]
pub struct FaultRates {
    /// An API request is refused or lost.
    pub api: f64,
    /// A cloud call fails, is lost or is throttled.
    pub cloud: f64,
    /// An event of a watch is delayed, doubled or replaced by 410.
    pub event: f64,
    /// A list shows an old revision.
    pub old_list: f64,
    /// The answer to a Join or Leave is lost, and the call takes effect later.
    pub late: f64,
    /// How long after it was sent such a call has its effect at the latest.
    pub latest: Duration,
}

/// Picks requests to the API server.
pub type CallFilter = fn(&Call) -> bool;

/// Shared by all incarnations of a world: whether faults are on, and the random numbers that decide.
pub struct FaultInjector {
    rates: Mutex<FaultRates>,
    random: Mutex<StdRng>,
    /// Writes that are still to be refused with 409.
    refused_status: AtomicUsize,
    refused_claims: AtomicUsize,
    /// Writes of claim and finalizer that are still to be performed without an answer.
    unanswered_claims: AtomicUsize,
    /// How late the next write of claim and finalizer arrives.
    late_claim: Mutex<Option<Duration>>,
    /// What such writes were answered with, in the order in which they arrived.
    late_answers: Mutex<Vec<u16>>,
    /// Whether an operator of some namespaces may list the memberships of all.
    may_list_all: AtomicBool,
    /// The membership whose next event shows it as deleted.
    unselected: Mutex<Option<&'static str>>,
    /// The object whose finalizer and intent nobody may write, and the status of the refusal.
    policy: Mutex<Option<(&'static str, u16)>>,
    /// The object whose status nobody may write.
    refused_status_of: Mutex<Option<&'static str>>,
    /// Reads of Secrets that are still to be refused with 500.
    refused_secrets: AtomicUsize,
    /// How many events of each kind of object are still to be lost, each with its watch.
    lost_events: Mutex<HashMap<&'static str, usize>>,
    /// Until when no event of a membership reaches an incarnation.
    lagging: Mutex<BTreeMap<usize, Instant>>,
    /// The watches that show nothing.
    silent: Mutex<Vec<SilentWatch>>,
    /// Until when no event of a set reaches anybody.
    lagging_sets: Mutex<Option<Instant>>,
    api_millis: AtomicU64,
    /// The hosts that there are; every one while this is `None`.
    hosts: Mutex<Option<Vec<String>>>,
    /// The hosts that accept connections and never answer.
    silent_hosts: Mutex<&'static [&'static str]>,
    /// How often each host was called.
    called_hosts: Mutex<BTreeMap<String, usize>>,
    /// Until when requests of these kinds get no answer.
    mute: Mutex<Option<(&'static [Verb], Instant)>>,
    /// Of which kind no list is answered, and until when.
    late_lists: Mutex<Option<(&'static str, Instant)>>,
    /// Until when an incarnation and the API server cannot reach each other.
    cut_off: Mutex<BTreeMap<usize, Instant>>,
    /// Lists by field selectors that are still to be refused, and the code.
    refused_selections: Mutex<(usize, u16)>,
    /// Lists by field selectors so far.
    selections: AtomicUsize,
    /// What a mutating webhook makes of calls.
    webhook: Mutex<Option<fn(&mut Call)>>,
    /// Which requests of the operator the API server refuses, and how; the first that fits.
    refused: Mutex<Vec<(CallFilter, CallFault)>>,
    /// Every request to the API server since [`FaultInjector::record_requests`], with its moment.
    recorded: Mutex<Option<Vec<(Instant, Call)>>>,
    /// What calls said of the access keys that they were signed with.
    keys: Mutex<KeyUse>,
    /// What lists leave out, or show that is not so, and until when.
    pub lies: Lies,
}

/// The watches of one kind that an incarnation has when they fall silent.
#[derive(Clone, Copy, Debug)]
struct SilentWatch {
    incarnation: usize,
    plural: &'static str,
    from: Instant,
    silence: Silence,
}

/// The use of access keys, as the operator's end of the wire sees it.
#[derive(Clone, Debug, Default)]
pub struct KeyUse {
    /// When the first call with each key began.
    pub first_calls: BTreeMap<String, Instant>,
    /// The answers that a key is disabled: those that have arrived.
    pub refusals: u64,
    /// The calls that were refused so and that had begun after the first such answer had arrived.
    pub began_after_refusal: u64,
}

impl FaultInjector {
    pub fn new(seed: u64, rates: FaultRates) -> Self {
        Self {
            rates: Mutex::new(rates),
            random: Mutex::new(StdRng::seed_from_u64(seed)),
            refused_status: AtomicUsize::new(0),
            refused_claims: AtomicUsize::new(0),
            unanswered_claims: AtomicUsize::new(0),
            late_claim: Mutex::default(),
            late_answers: Mutex::default(),
            may_list_all: AtomicBool::new(false),
            unselected: Mutex::default(),
            policy: Mutex::default(),
            refused_status_of: Mutex::default(),
            refused_secrets: AtomicUsize::new(0),
            lost_events: Mutex::default(),
            lagging: Mutex::default(),
            silent: Mutex::default(),
            lagging_sets: Mutex::default(),
            api_millis: AtomicU64::new(2),
            hosts: Mutex::default(),
            silent_hosts: Mutex::default(),
            called_hosts: Mutex::default(),
            mute: Mutex::default(),
            late_lists: Mutex::default(),
            cut_off: Mutex::default(),
            refused_selections: Mutex::default(),
            selections: AtomicUsize::new(0),
            webhook: Mutex::default(),
            refused: Mutex::default(),
            recorded: Mutex::default(),
            keys: Mutex::default(),
            lies: Lies::default(),
        }
    }

    /// From now on a mutating webhook makes this of every call; `None`: no more.
    pub fn change_calls(&self, webhook: Option<fn(&mut Call)>) {
        *self.webhook.lock().unwrap() = webhook;
    }

    /// From now on the requests that fit go wrong like this.
    pub fn refuse_calls(&self, fits: CallFilter, fault: CallFault) {
        self.refused.lock().unwrap().push((fits, fault));
    }

    /// From now on [`FaultInjector::refuse_calls`] refuses nothing.
    pub fn refuse_no_calls(&self) {
        self.refused.lock().unwrap().clear();
    }

    fn refuses_call(&self, call: &Call) -> Option<CallFault> {
        let refused = self.refused.lock().unwrap();
        let (_, fault) = refused.iter().find(|(fits, _)| fits(call))?;
        Some(*fault)
    }

    /// From now on each request to the API server is recorded; what was before is forgotten.
    pub fn record_requests(&self) {
        *self.recorded.lock().unwrap() = Some(Vec::new());
    }

    /// When the recorded requests that fit were made.
    pub fn recorded(&self, fits: impl Fn(&Call) -> bool) -> Vec<Instant> {
        let recorded = self.recorded.lock().unwrap();
        let all = recorded.iter().flatten();
        all.filter(|(_, call)| fits(call))
            .map(|(at, _)| *at)
            .collect()
    }

    /// The use of access keys so far.
    pub fn key_use(&self) -> KeyUse {
        self.keys.lock().unwrap().clone()
    }

    /// A call with a key begins. Whether an answer has arrived before that a key is disabled.
    fn key_call_begins(&self, key: Option<&String>) -> bool {
        let mut keys = self.keys.lock().unwrap();
        if let Some(key) = key {
            let first = keys.first_calls.entry(key.clone());
            first.or_insert_with(Instant::now);
        }
        keys.refusals > 0
    }

    /// The answer to a call arrives: whether it says that the key is disabled.
    fn key_answer_arrives(&self, outcome: &str, began_after_refusal: bool) {
        if outcome == "InvalidAccessKeyId.Inactive" {
            let mut keys = self.keys.lock().unwrap();
            keys.refusals += 1;
            keys.began_after_refusal += u64::from(began_after_refusal);
        }
    }

    /// For so long, no request of an incarnation reaches the API server, and no event reaches the incarnation.
    pub fn cut_off(&self, incarnation: usize, period: Duration) {
        let until = Instant::now() + period;
        self.cut_off.lock().unwrap().insert(incarnation, until);
        self.hold_back_events(incarnation, period);
    }

    fn is_cut_off(&self, incarnation: usize) -> bool {
        let until = self.cut_off.lock().unwrap().get(&incarnation).copied();
        until.is_some_and(|until| Instant::now() < until)
    }

    /// Answers the next lists by field selectors with this code.
    pub fn refuse_selections(&self, count: usize, code: u16) {
        *self.refused_selections.lock().unwrap() = (count, code);
    }

    /// How many lists by field selectors there were.
    pub fn selections(&self) -> usize {
        self.selections.load(Ordering::SeqCst)
    }

    fn refuses_selection(&self, call: &Call) -> Option<CallFault> {
        if call.verb != Verb::List || !call.query.contains_key("fieldSelector") {
            return None;
        }
        self.selections.fetch_add(1, Ordering::SeqCst);
        let (left, code) = &mut *self.refused_selections.lock().unwrap();
        *left = left.checked_sub(1)?;
        Some(CallFault::Refuse(*code))
    }

    /// From now on these are the hosts of the cloud; the name of any other is not known.
    pub fn set_hosts(&self, hosts: Vec<String>) {
        *self.hosts.lock().unwrap() = Some(hosts);
    }

    /// From now on these hosts accept connections and never answer.
    pub fn silence_hosts(&self, hosts: &'static [&'static str]) {
        *self.silent_hosts.lock().unwrap() = hosts;
    }

    /// How often each host of the cloud was called since this was last asked.
    pub fn take_called_hosts(&self) -> BTreeMap<String, usize> {
        std::mem::take(&mut self.called_hosts.lock().unwrap())
    }

    /// Counts a call to a host. Whether it is known, and whether it answers.
    fn call_host(&self, host: &str) -> (bool, bool) {
        let mut called = self.called_hosts.lock().unwrap();
        *called.entry(host.to_owned()).or_default() += 1;
        let hosts = self.hosts.lock().unwrap();
        let is_known = hosts
            .as_ref()
            .is_none_or(|hosts| hosts.iter().any(|known| known == host));
        (is_known, !self.silent_hosts.lock().unwrap().contains(&host))
    }

    /// For so long, connections are accepted, and requests of these kinds on them never get an answer.
    pub fn mute(&self, verbs: &'static [Verb], period: Duration) {
        *self.mute.lock().unwrap() = Some((verbs, Instant::now() + period));
    }

    fn is_mute(&self, verb: Verb) -> bool {
        let mute = *self.mute.lock().unwrap();
        mute.is_some_and(|(verbs, until)| verbs.contains(&verb) && Instant::now() < until)
    }

    /// For so long, no list of these objects is answered; then each is.
    pub fn delay_lists(&self, plural: &'static str, period: Duration) {
        *self.late_lists.lock().unwrap() = Some((plural, Instant::now() + period));
    }

    fn list_delay(&self, call: &Call) -> Option<Duration> {
        let (plural, until) = (*self.late_lists.lock().unwrap())?;
        let is_late = call.verb == Verb::List && call.kind.plural == plural;
        let left = until.saturating_duration_since(Instant::now());
        Some(left).filter(|left| is_late && !left.is_zero())
    }

    /// From now on a request to the API server takes so long.
    pub fn slow_down_api(&self, millis: u64) {
        self.api_millis.store(millis, Ordering::SeqCst);
    }

    /// Keeps every event of a set back for so long.
    pub fn hold_back_sets(&self, lag: Duration) {
        *self.lagging_sets.lock().unwrap() = Some(Instant::now() + lag);
    }

    fn lag_of_sets(&self) -> Option<Duration> {
        let until = (*self.lagging_sets.lock().unwrap())?;
        Some(until.saturating_duration_since(Instant::now())).filter(|lag| !lag.is_zero())
    }

    /// Keeps every event of a membership from an incarnation for so long.
    pub fn hold_back_events(&self, incarnation: usize, lag: Duration) {
        self.lagging
            .lock()
            .unwrap()
            .insert(incarnation, Instant::now() + lag);
    }

    /// For so long, the watches of a kind that an incarnation has now stay open and show nothing. Then they go on, or break.
    pub fn silence(
        &self,
        incarnation: usize,
        plural: &'static str,
        period: Duration,
        breaks: bool,
    ) {
        let from = Instant::now();
        let until = from + period;
        self.silent.lock().unwrap().push(SilentWatch {
            incarnation,
            plural,
            from,
            silence: Silence { until, breaks },
        });
    }

    fn is_silent(&self, incarnation: usize, watch: &Call, since: Instant) -> Option<Silence> {
        let silent = self.silent.lock().unwrap();
        let fits = |one: &&SilentWatch| {
            one.incarnation == incarnation
                && one.plural == watch.kind.plural
                && since <= one.from
                && Instant::now() < one.silence.until
        };
        silent.iter().find(fits).map(|one| one.silence)
    }

    /// Whether a watch of memberships of an incarnation is silent.
    fn is_silent_now(&self, incarnation: usize) -> bool {
        let silent = self.silent.lock().unwrap();
        silent.iter().any(|one| {
            one.incarnation == incarnation
                && one.plural == MEMBERSHIPS
                && Instant::now() < one.silence.until
        })
    }

    /// How long after its arrival a call of a lost answer has its effect: within a minute, and often at the very last where that is later.
    fn late_effect(&self) -> Duration {
        let latest = self.rates.lock().unwrap().latest;
        let latest = u64::try_from(latest.as_millis()).unwrap_or(60_000);
        if latest > MINUTE && self.roll(0..3) == 0 {
            return Duration::from_millis(self.roll(MINUTE..latest - WAY));
        }
        Duration::from_millis(self.roll(100..MINUTE))
    }

    fn lag(&self, incarnation: usize) -> Option<Duration> {
        let until = self.lagging.lock().unwrap().get(&incarnation).copied()?;
        Some(until.saturating_duration_since(Instant::now())).filter(|lag| !lag.is_zero())
    }

    /// Loses the next events of these objects; each ends its watch with 410, so that everything is listed anew.
    pub fn lose_events(&self, plural: &'static str, count: usize) {
        self.lost_events.lock().unwrap().insert(plural, count);
    }

    fn loses_event(&self, plural: &str) -> bool {
        let mut left = self.lost_events.lock().unwrap();
        let left = left.get_mut(plural).filter(|left| **left > 0);
        left.map(|left| *left -= 1).is_some()
    }

    /// Answers the next writes of a status with 409.
    pub fn refuse_status_writes(&self, count: usize) {
        self.refused_status.store(count, Ordering::SeqCst);
    }

    /// Answers the next writes of claim and finalizer with 409.
    pub fn refuse_claim_writes(&self, count: usize) {
        self.refused_claims.store(count, Ordering::SeqCst);
    }

    /// Breaks the connection after the next writes of claim and finalizer have been performed.
    pub fn lose_answers_to_claim_writes(&self, count: usize) {
        self.unanswered_claims.store(count, Ordering::SeqCst);
    }

    /// The next write of claim and finalizer arrives so late that nobody waits for its answer.
    pub fn delay_claim_write(&self, after: Duration) {
        *self.late_claim.lock().unwrap() = Some(after);
    }

    /// What such writes were answered with, in the order in which they arrived.
    pub fn late_answers(&self) -> Vec<u16> {
        self.late_answers.lock().unwrap().clone()
    }

    /// From now on an operator of some namespaces may list the memberships of all, as with a `ClusterRole` beside its Roles.
    pub fn allow_list_of_all(&self) {
        self.may_list_all.store(true, Ordering::SeqCst);
    }

    /// The next event of this membership shows it as deleted, as a watch with a selector shows what no longer fits.
    pub fn unselect(&self, name: &'static str) {
        *self.unselected.lock().unwrap() = Some(name);
    }

    fn unselects(&self, name: &str) -> bool {
        let mut unselected = self.unselected.lock().unwrap();
        unselected
            .take_if(|unselected| *unselected == name)
            .is_some()
    }

    /// From now on every write of this object but of its status is refused with this code, as by an admission policy; `None`:
    /// no more.
    pub fn set_policy(&self, policy: Option<(&'static str, u16)>) {
        *self.policy.lock().unwrap() = policy;
    }

    /// From now on every write of the status of this object is refused with 422, as by an admission policy; `None`: no more.
    pub fn refuse_status_of(&self, name: Option<&'static str>) {
        *self.refused_status_of.lock().unwrap() = name;
    }

    /// Answers the next reads of a Secret with 500.
    pub fn refuse_secrets(&self, count: usize) {
        self.refused_secrets.store(count, Ordering::SeqCst);
    }

    fn refuses(&self, call: &Call) -> Option<CallFault> {
        let of_metadata = matches!(call.verb, Verb::Apply | Verb::Merge) && !call.status;
        if let Some((name, code)) = *self.policy.lock().unwrap()
            && of_metadata
            && call.name == name
            && call.kind.plural == MEMBERSHIPS
        {
            return Some(CallFault::Refuse(code));
        }
        if *self.refused_status_of.lock().unwrap() == Some(call.name.as_str())
            && call.status
            && call.verb.writes()
            && call.kind.plural == MEMBERSHIPS
        {
            return Some(CallFault::Refuse(422));
        }
        if of_metadata && is_one_left(&self.unanswered_claims) {
            return Some(CallFault::LoseAfter);
        }
        if of_metadata && let Some(after) = self.late_claim.lock().unwrap().take() {
            return Some(CallFault::Late(after));
        }
        let (left, code) = match call.verb {
            Verb::Apply | Verb::Merge if call.status => (&self.refused_status, 409),
            Verb::Apply | Verb::Merge => (&self.refused_claims, 409),
            Verb::Get if call.kind.plural == "secrets" => (&self.refused_secrets, 500),
            _ => return None,
        };
        is_one_left(left).then_some(CallFault::Refuse(code))
    }

    pub fn clear(&self) {
        *self.rates.lock().unwrap() = FaultRates::default();
        self.set_policy(None);
        self.refuse_status_of(None);
        self.lies.end();
    }

    fn strikes(&self, which: fn(&FaultRates) -> f64) -> bool {
        let rate = which(&self.rates.lock().unwrap());
        rate > 0.0 && self.random.lock().unwrap().random_bool(rate)
    }

    fn roll(&self, range: std::ops::Range<u64>) -> u64 {
        self.random.lock().unwrap().random_range(range)
    }
}

/// Takes one away, if there is one.
fn is_one_left(left: &AtomicUsize) -> bool {
    left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
        left.checked_sub(1)
    })
    .is_ok()
}

/// One incarnation of the operator.
pub struct Link {
    pub incarnation: usize,
    /// It has no right to memberships and `CloudAccount`s elsewhere.
    pub scopes: Vec<WatchScope>,
    pub server: Arc<ApiServer>,
    pub simulator: Arc<Simulator>,
    pub monitor: Arc<Monitor>,
    pub faults: Arc<FaultInjector>,
    /// The request at which it is killed.
    pub kill_at: Mutex<Option<(usize, KillPoint)>>,
    pub requests: AtomicUsize,
    pub dead: AtomicBool,
    pub died: Notify,
    /// True while the process is stopped (SIGSTOP).
    pub paused: AtomicBool,
    pub resumed: Notify,
    /// When nothing between the process and the API server arrives.
    pub cut_off: AtomicBool,
}

impl Link {
    pub fn kill(&self) {
        self.dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    /// Kills it at its `after`-th request from now; 0 is never.
    pub fn schedule_kill(&self, after: usize, point: KillPoint) {
        let so_far = self.requests.load(Ordering::SeqCst);
        *self.kill_at.lock().unwrap() = (after > 0).then_some((so_far + after, point));
    }

    /// Requests to the API server and the cloud so far.
    pub fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    pub fn is_dead(&self) -> bool {
        self.dead.load(Ordering::SeqCst)
    }

    /// Whether it has the right to a call: what the chart gives, with Roles in `namespaces` if it watches some only.
    fn may(&self, call: &Call) -> bool {
        let serves = |scope: &WatchScope| match scope {
            WatchScope::All => true,
            WatchScope::Namespace(name) => *name == call.namespace,
        };
        let by_namespace = [
            "securitygroupmemberships",
            "securitygroupmembershipsets",
            "cloudaccounts",
        ];
        let lists_all = call.verb == Verb::List
            && call.kind.plural == MEMBERSHIPS
            && self.faults.may_list_all.load(Ordering::SeqCst);
        lists_all || !by_namespace.contains(&call.kind.plural) || self.scopes.iter().any(serves)
    }

    /// Counts a request; whether it is still sent, and whether anybody will hear of it.
    fn next(&self, what: impl FnOnce() -> String) -> Option<KillPoint> {
        if self.dead.load(Ordering::SeqCst) {
            return Some(KillPoint::Before);
        }
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        let end = self
            .kill_at
            .lock()
            .unwrap()
            .filter(|(last, _)| *last == number)
            .map(|(_, point)| point);
        self.monitor.trace(|| {
            format!(
                "incarnation {} request {number}: {}{}",
                self.incarnation,
                what(),
                match end {
                    None => "",
                    Some(KillPoint::Before) => "   <- killed before it",
                    Some(KillPoint::AfterEffect) => "   <- killed after its effect",
                }
            )
        });
        if end.is_some() {
            self.kill();
        }
        end
    }

    pub fn pause(&self, paused: bool) {
        self.paused.store(paused, Ordering::SeqCst);
        self.resumed.notify_waiters();
    }

    /// Has the next call of the action answered with 504 and take effect `after` that.
    fn take_effect_late(&self, action: &str, after: Duration) {
        self.monitor
            .trace(|| format!("  fault: the effect comes {after:?} late"));
        self.simulator.add_fault(Fault {
            action: Some(action.to_owned()),
            effect_after: Some(after),
            ..fault(error("RequestTimeout"), false)
        });
        let monitor = Arc::clone(&self.monitor);
        tokio::spawn(async move {
            // The call arrives 10 ms after it was sent, or once a stopped process goes on.
            tokio::time::sleep(after + Duration::from_millis(10)).await;
            monitor.read_journal();
        });
    }

    async fn wait_until_running(&self) {
        while self.paused.load(Ordering::SeqCst) {
            self.resumed.notified().await;
        }
    }
}

/// The operator's end of the wire to the API server.
pub struct ApiSide(pub Arc<Link>);

impl ApiSide {
    /// Whoever writes an intent and gets no answer cannot tell it from that of a process before it.
    fn note_lost_intent(&self, call: &Call) {
        let writes = call.body["metadata"]["annotations"][INTENT_ANNOTATION].is_string();
        let is_intent = writes && call.kind.plural == MEMBERSHIPS && !call.status;
        let object = self
            .0
            .server
            .object(MEMBERSHIPS, &call.namespace, &call.name);
        if let Some(object) = object.filter(|_| is_intent) {
            self.0.monitor.intent_unanswered(&object);
        }
    }
}

impl FaultPlan for ApiSide {
    fn call(&self, call: &Call) -> CallFault {
        let link = &self.0;
        if let Some(recorded) = &mut *link.faults.recorded.lock().unwrap() {
            recorded.push((Instant::now(), call.clone()));
        }
        match link.next(|| {
            format!(
                "{:?} {} {}{}",
                call.verb,
                call.kind.plural,
                call.name,
                if call.status { "/status" } else { "" }
            )
        }) {
            Some(KillPoint::Before) => return CallFault::Hang,
            Some(KillPoint::AfterEffect) => return CallFault::HangAfter,
            None => {}
        }
        if link.cut_off.load(Ordering::SeqCst) || link.faults.is_mute(call.verb) {
            return CallFault::Hang;
        }
        if link.faults.is_cut_off(link.incarnation) {
            return CallFault::LoseBefore;
        }
        if !link.may(call) {
            return CallFault::Refuse(403);
        }
        if let Some(fault) = link
            .faults
            .refuses_call(call)
            .or_else(|| link.faults.refuses(call))
            .or_else(|| link.faults.refuses_selection(call))
        {
            if matches!(fault, CallFault::Refuse(422)) {
                link.monitor.count(if call.status {
                    "status refused by a policy"
                } else {
                    "write refused by a policy"
                });
            }
            if fault == CallFault::LoseAfter {
                self.note_lost_intent(call);
            }
            return fault;
        }
        if let Some(delay) = link.faults.list_delay(call) {
            return CallFault::Pass(delay);
        }
        if link.faults.strikes(|rates| rates.api) {
            let fault = match link.faults.roll(0..8) {
                0 => CallFault::Refuse(429),
                1 => CallFault::Refuse(500),
                2 => CallFault::Refuse(504),
                3 => CallFault::Refuse(if call.verb.writes() && call.kind.custom {
                    409
                } else {
                    503
                }),
                4 | 5 => CallFault::LoseBefore,
                6 => CallFault::LoseAfter,
                _ => CallFault::Pass(Duration::from_millis(link.faults.roll(100..4_000))),
            };
            link.monitor.trace(|| format!("  fault: {fault:?}"));
            if fault == CallFault::LoseAfter {
                self.note_lost_intent(call);
            }
            return fault;
        }
        CallFault::Pass(Duration::from_millis(
            link.faults.api_millis.load(Ordering::SeqCst),
        ))
    }

    fn admit(&self, call: &mut Call) {
        if let Some(webhook) = *self.0.faults.webhook.lock().unwrap() {
            webhook(call);
        }
    }

    fn silence(&self, watch: &Call, since: Instant) -> Option<Silence> {
        let link = &self.0;
        link.faults.is_silent(link.incarnation, watch, since)
    }

    fn event(&self, watch: &Call, event: &Entry) -> WatchFault {
        let link = &self.0;
        if self.is_dead() {
            return WatchFault::Never;
        }
        if watch.kind.plural == SETS
            && let Some(lag) = link.faults.lag_of_sets()
        {
            return WatchFault::Delay(lag);
        }
        if watch.kind.plural == MEMBERSHIPS
            && let Some(lag) = link.faults.lag(link.incarnation)
        {
            return WatchFault::Delay(lag);
        }
        if link.faults.loses_event(watch.kind.plural) {
            return WatchFault::Expire;
        }
        if watch.kind.plural == MEMBERSHIPS && link.faults.unselects(&event.key.2) {
            return WatchFault::Unselect;
        }
        if link.faults.strikes(|rates| rates.event) {
            let fault = match link.faults.roll(0..5) {
                0 => WatchFault::Twice,
                1 => WatchFault::Expire,
                2 => WatchFault::Break,
                _ => WatchFault::Delay(Duration::from_millis(link.faults.roll(10..5_000))),
            };
            link.monitor.trace(|| {
                format!(
                    "  watch of {} in incarnation {}: {} {}: {fault:?}",
                    watch.kind.plural,
                    link.incarnation,
                    event.change.word(),
                    event.key.2
                )
            });
            if matches!(fault, WatchFault::Expire | WatchFault::Break) {
                link.monitor.event_missed();
            }
            return fault;
        }
        WatchFault::Deliver
    }

    fn list_at(&self, call: &Call, newest: u64) -> Option<u64> {
        let link = &self.0;
        if call.verb == Verb::List
            && call.kind.plural == "nodes"
            && let Some(back) = link.faults.lies.old_nodes()
        {
            link.monitor
                .trace(|| format!("  fault: Nodes of {back} revisions ago"));
            link.monitor.count("old list of Nodes");
            return Some(newest.saturating_sub(back).max(100));
        }
        if call.verb == Verb::List && link.faults.strikes(|rates| rates.old_list) {
            let back = link.faults.roll(1..12);
            link.monitor
                .trace(|| format!("  fault: a list of {back} revisions ago"));
            return Some(newest.saturating_sub(back).max(100));
        }
        None
    }

    fn cut(&self, call: &Call, reply: &mut Reply) {
        let of_nodes = call.verb == Verb::List && call.kind.plural == "nodes";
        if of_nodes && self.0.faults.lies.leave_out_node(reply) {
            self.0
                .monitor
                .trace(|| "  fault: a list without a Node".to_owned());
            self.0.monitor.count("list of Nodes cut short");
        }
    }

    fn done(&self, call: &Call, reply: &Reply) {
        self.0.monitor.written(self.0.incarnation, call, reply);
    }

    fn arrived_late(&self, reply: &Reply) {
        let mut answers = self.0.faults.late_answers.lock().unwrap();
        answers.push(reply.code);
    }

    fn delivered(&self, watch: &Call, event: &Entry) {
        self.0.monitor.shown(self.0.incarnation, watch, event);
    }

    fn is_dead(&self) -> bool {
        self.0.dead.load(Ordering::SeqCst)
    }
}

/// A Join on its way; when it is dropped, the operator has its answer, or nobody will ever.
struct OpenJoin {
    monitor: Arc<Monitor>,
    edge: Edge,
    number: usize,
    answered: bool,
}

impl OpenJoin {
    fn send(monitor: &Arc<Monitor>, edge: Edge) -> Self {
        Self {
            number: monitor.join_sent(&edge),
            monitor: Arc::clone(monitor),
            edge,
            answered: false,
        }
    }

    fn answered(join: Option<&mut Self>) {
        if let Some(join) = join {
            join.answered = true;
        }
    }
}

impl Drop for OpenJoin {
    fn drop(&mut self) {
        if self.answered {
            self.monitor.join_answered(&self.edge, self.number);
        } else {
            self.monitor.join_unanswered(&self.edge, self.number);
        }
    }
}

/// The operator's end of the wire to the cloud.
pub struct CloudSide(pub Arc<Link>);

impl Transport for CloudSide {
    fn send(
        &self,
        request: http::Request<Bytes>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<http::Response<Bytes>, TransportError>> {
        async move { self.exchange(request, deadline).await }.boxed()
    }
}

impl CloudSide {
    /// Counts a call to a host. An error if the host is not known, or, after the deadline, if it does not answer.
    async fn reach(&self, host: &str, deadline: Duration) -> Result<(), TransportError> {
        let (is_known, answers) = self.0.faults.call_host(host);
        if !is_known {
            return Err(TransportError::Connect {
                cause: "failed to lookup address information: Name or service not known".to_owned(),
            });
        }
        if !answers {
            tokio::time::sleep(deadline).await;
            return Err(TransportError::Timeout { after: deadline });
        }
        Ok(())
    }

    #[expect(
        clippy::too_many_lines,
        reason = "the way of one call, with every fault where it strikes"
    )]
    async fn exchange(
        &self,
        request: http::Request<Bytes>,
        deadline: Duration,
    ) -> Result<http::Response<Bytes>, TransportError> {
        let link = &self.0;
        let started = Instant::now();
        let host = request.uri().host().unwrap_or_default();
        let parameters: BTreeMap<String, String> = url::form_urlencoded::parse(request.body())
            .into_owned()
            .collect();
        link.monitor.asks(host, &parameters);
        self.reach(host, deadline).await?;
        let interrupted = || TransportError::Interrupted {
            cause: "connection reset".to_owned(),
        };
        let begins_after_refusal = link.faults.key_call_begins(parameters.get("AccessKeyId"));
        let action = parameters.get("Action").cloned().unwrap_or_default();
        let target = parameters
            .get("InstanceId")
            .or_else(|| parameters.get("NetworkInterfaceId"))
            .cloned();
        let group = parameters.get("SecurityGroupId").cloned();
        let end = link.next(|| {
            format!(
                "{action} {} {}",
                target.as_deref().unwrap_or_default(),
                group.as_deref().unwrap_or_default()
            )
        });
        if end == Some(KillPoint::Before) {
            return std::future::pending().await;
        }
        let mut join = target
            .clone()
            .zip(group.clone())
            .filter(|_| action == "JoinSecurityGroup")
            .map(|edge| OpenJoin::send(&link.monitor, edge));
        let (mut lost, mut slow, mut late) = (false, Duration::ZERO, None);
        if end.is_none() && group.is_some() && link.faults.strikes(|rates| rates.late) {
            let after = link.faults.late_effect();
            if after > Duration::from_millis(MINUTE) {
                link.monitor.count("effect more than 60 s late");
            }
            late = Some(after);
        } else if end.is_none() && link.faults.strikes(|rates| rates.cloud) {
            let roll = link.faults.roll(0..9);
            link.monitor
                .trace(|| format!("  fault of the cloud: {roll}"));
            match roll {
                0 => {
                    OpenJoin::answered(join.as_mut());
                    return Err(TransportError::Connect {
                        cause: "refused".to_owned(),
                    });
                }
                1 => return Err(interrupted()),
                2 | 3 => lost = true,
                // On its way there, or its answer on the way back: what it shows is old when it arrives.
                4 => {
                    let most = deadline
                        .min(LONGEST_READ)
                        .saturating_sub(Duration::from_secs(1));
                    let most = u64::try_from(most.as_millis()).unwrap();
                    let took = Duration::from_millis(link.faults.roll(100..most.max(200)));
                    if link.faults.roll(0..2) == 0 {
                        tokio::time::sleep(took).await;
                    } else {
                        slow = took;
                    }
                }
                roll => link
                    .simulator
                    .add_fault(fault(refusal(roll), group.is_some())),
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
        link.wait_until_running().await;
        if end.is_none() && link.dead.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if let Some(after) = late {
            // Also after the call of a process that was stopped in this moment.
            let left = LATEST_EFFECT.saturating_sub(started.elapsed());
            link.take_effect_late(&action, after.min(left));
        }
        let shutdown = request.extensions().get::<Shutdown>();
        if shutdown.is_some_and(Shutdown::may_have_successor) {
            return Err(interrupted());
        }
        let now = link.server.now();
        let before = link
            .monitor
            .membership(target.as_deref(), group.as_deref(), now);
        let called = target.clone().zip(group.clone());
        link.monitor.arrives(called);
        let mut answer = link.simulator.answer(&request, now);
        if link.faults.lies.bend(&parameters, &mut answer) {
            link.monitor
                .trace(|| "  fault: a list of tags that lies".to_owned());
            link.monitor.count("list of tags that lies");
        }
        link.monitor.trace(|| {
            format!(
                "  incarnation {} {action}: {}",
                link.incarnation, answer.outcome
            )
        });
        let by = (link.incarnation, host);
        link.monitor
            .called(by, &parameters, &answer, before, started);
        if action == "LeaveSecurityGroup" && link.faults.is_silent_now(link.incarnation) {
            link.monitor.count("Leave beside a silent watch");
        }
        link.monitor.arrives(None);
        if end.is_some() {
            return std::future::pending().await;
        }
        tokio::time::sleep(Duration::from_millis(10) + answer.delay + slow).await;
        if link.dead.load(Ordering::SeqCst) {
            return std::future::pending().await;
        }
        if lost {
            return Err(interrupted());
        }
        link.faults
            .key_answer_arrives(&answer.outcome, begins_after_refusal);
        let leave = target
            .zip(group)
            .filter(|_| action == "LeaveSecurityGroup" && is_done(&answer.outcome));
        let answered = || OpenJoin::answered(join.as_mut());
        let answer = self
            .deliver(host, &parameters, answer, answered, started, deadline)
            .await?;
        if let Some(edge) = leave {
            link.monitor.leave_answered(&edge);
        }
        link.monitor
            .instances_shown(link.incarnation, &parameters, answer.body());
        Ok(answer)
    }

    /// What of an answer arrives. `answered` is called if the whole of it does.
    async fn deliver(
        &self,
        host: &str,
        parameters: &BTreeMap<String, String>,
        answer: SimulatedResponse,
        answered: impl FnOnce(),
        started: Instant,
        deadline: Duration,
    ) -> Result<http::Response<Bytes>, TransportError> {
        match answer.delivery {
            Delivery::Whole => {
                if !answer.response.status().is_server_error() {
                    answered();
                }
                let body = answer.response.body();
                if body.len() > ANSWER_LIMIT {
                    return Err(TransportError::TooLarge {
                        limit: ANSWER_LIMIT,
                    });
                }
                // A list by tags, or of all, tells the sets what they select. No membership goes by it.
                let action = &parameters["Action"];
                let by_id = names_targets(parameters);
                if action.starts_with("Describe") && by_id && answer.outcome == "OK" {
                    self.0.monitor.told(host, action, body, started);
                }
                Ok(answer.response)
            }
            Delivery::Reset | Delivery::Truncated | Delivery::Drip => {
                Err(TransportError::Interrupted {
                    cause: "connection reset".to_owned(),
                })
            }
            Delivery::Silence => {
                tokio::time::sleep(deadline).await;
                Err(TransportError::Timeout { after: deadline })
            }
        }
    }
}

/// Whether an answer to a Leave says that the target is no member.
fn is_done(outcome: &str) -> bool {
    [
        "OK",
        "InvalidSecurityGroupAssociation.NotFound",
        "InstanceNotInSecurityGroup",
    ]
    .contains(&outcome)
}

/// One call anywhere fails so; with its effect only where the cloud may have had one.
pub fn fault(fault: Kind, effect: bool) -> Fault {
    Fault {
        tag: None,
        action: None,
        region: None,
        target: None,
        security_group_id: None,
        access_key: None,
        count: Some(1),
        skip: 0,
        probability: None,
        effect: effect && matches!(fault, Kind::Error(ref error) if error.code == "InternalError"),
        effect_after: None,
        fault,
    }
}

fn refusal(roll: u64) -> Kind {
    match roll {
        5 => Kind::Throttle(ThrottleFault {
            retry_after: Some(Duration::from_secs(3)),
        }),
        6 => error("InternalError"),
        7 => error("OperationConflict"),
        _ => error("ServiceUnavailable"),
    }
}

fn error(code: &str) -> Kind {
    Kind::Error(ErrorFault {
        code: code.to_owned(),
        status: None,
        message: None,
    })
}
