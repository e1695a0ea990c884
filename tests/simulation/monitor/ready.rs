//! **Ready**, by time: no object is Ready beside a missing edge for longer than two scans and a pass after a read that counts has shown
//! it. Nor is one Ready beside a missing edge for so long while no call asks the cloud about its target. Whatever makes that longer is a
//! [`Tolerance`], and counted.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use security_group_operator::simulator::SimulatedResponse;
use serde_json::Value;
use tokio::time::Instant;

use crate::topology::member_of;

use super::calls::named_targets;
use super::tolerance::Tolerance;
use super::{MEMBERSHIPS, Monitor, PASS, condition, edge_of, is_deleting, target_of, text};

const MINUTE: Duration = Duration::from_secs(60);

/// Two scans and a pass.
const LONGEST: Duration = Duration::from_secs(2 * 60 + PASS.as_secs());

/// The limit that the operator learns at least from a first throttle that names none, in calls per minute.
const FIRST_LIMIT: f64 = 10.0;

/// What is known of an object that is Ready beside a missing edge.
pub(super) struct Stands {
    name: String,
    /// Since when.
    since: Instant,
    /// When a read that counts showed it first.
    first_read: Option<Instant>,
    /// The same, since the last reason to wait for longer.
    read: Option<Instant>,
    /// That reason.
    why: Option<Tolerance>,
    /// Since when a call that asks about the target is waited for: the last one, or the last reason to wait for longer.
    asked: Instant,
    /// The reason that holds now.
    excuse: Option<Tolerance>,
    /// How long the limits of calls may hold the pass back.
    held: Duration,
    is_judged: bool,
    is_tolerated: bool,
}

/// A limit of calls per minute that the cloud has told of.
#[derive(Clone, Copy)]
pub(super) struct Limit {
    /// At most what the operator has learned.
    calls: f64,
    told: Instant,
}

/// A host, a region and an action.
pub(super) type Lane = (String, String, String);

impl Monitor {
    /// The cloud has refused a call for the rate of calls. Learned as by the operator, or less.
    pub(super) fn throttled(&self, lane: Lane, answer: &SimulatedResponse) {
        let told = answer.response.headers().get("x-ratelimit-user-api");
        let told = told.and_then(|header| header.to_str().ok()?.strip_prefix("Limit:"));
        let named: Option<f64> = told.and_then(|text| text.split(',').next()?.parse().ok());
        let mut state = self.state.lock().unwrap();
        let before = state.limits.get(&lane).map(|limit| limit.calls);
        let unnamed = before.map_or(FIRST_LIMIT, |before| (before / 2.0).max(1.0));
        let calls = named.unwrap_or(unnamed);
        let told = Instant::now();
        state.limits.insert(lane, Limit { calls, told });
    }

    /// How long the limits may hold back a pass of this object, which reads its target once more and may have to tell that it waits for
    /// its Join.
    fn held(&self, object: &Value) -> Duration {
        let limits: Vec<(Lane, Limit)> = {
            let state = self.state.lock().unwrap();
            let limits = state.limits.iter();
            limits.map(|(lane, limit)| (lane.clone(), *limit)).collect()
        };
        let describes = if target_of(object).starts_with("eni-") {
            "DescribeNetworkInterfaces"
        } else {
            "DescribeInstances"
        };
        let mut held = Duration::ZERO;
        for ((host, region, action), limit) in limits {
            let is_of = |object: &Value| {
                object["spec"]["region"] == region.as_str() && self.is_read_through(object, &host)
            };
            if !is_of(object) {
                continue;
            }
            if action == "JoinSecurityGroup" {
                held += MINUTE;
                continue;
            }
            if action != describes {
                continue;
            }
            // Each of the objects of the place, and the scan, which one account after the other reads.
            let objects = self.server.objects(MEMBERSHIPS);
            let objects = objects.iter().filter(|object| is_of(object)).count();
            let wanted = f64::from(u32::try_from(objects).unwrap_or(u32::MAX)) + 2.0;
            if limit.calls >= wanted && limit.told.elapsed() > 2 * MINUTE {
                continue;
            }
            held += MINUTE + MINUTE.mul_f64((wanted / limit.calls).ceil());
        }
        held
    }

    /// Looks at every object that is Ready beside a missing edge, and at each that was.
    pub(super) fn judge_ready(&self) {
        let mut standing: HashMap<String, Arc<Value>> = HashMap::new();
        let removed = {
            let state = self.state.lock().unwrap();
            let removed = state.ledger.removed_targets();
            if removed.is_empty() && state.stands.is_empty() {
                return;
            }
            removed
        };
        let mut objects = self.server.objects(MEMBERSHIPS);
        objects.retain(|object| removed.contains(member_of(target_of(object))));
        for object in objects {
            let ready = condition(&object, "Ready").is_some_and(|ready| ready["status"] == "True");
            let is_missing = edge_of(&object).is_some_and(|(target, group)| {
                !self.membership(Some(&target), Some(&group), self.server.now())
            });
            if ready && is_missing && !is_deleting(&object) && self.serves(&object) {
                standing.insert(text(&object, "/metadata/uid"), object);
            }
        }
        let excuses: HashMap<&String, (Option<Tolerance>, Duration, Option<Instant>)> = standing
            .iter()
            .map(|(uid, object)| {
                let asked = self.asked_last(object);
                (uid, (self.excuse(object), self.held(object), asked))
            })
            .collect();
        let (mut tolerated, mut violated) = (Vec::new(), Vec::new());
        let now = Instant::now();
        let mut state = self.state.lock().unwrap();
        for stands in state.stands.values_mut() {
            match stands.judge(now) {
                Some(Ok(tolerance)) => tolerated.push(tolerance),
                Some(Err(TooLong(took, since))) => {
                    violated.push((stands.name.clone(), took, since));
                }
                None => {}
            }
        }
        state.stands.retain(|uid, _| standing.contains_key(uid));
        for (uid, object) in &standing {
            let (excuse, held, asked) = excuses[uid];
            let stands = state.stands.entry(uid.clone());
            let stands = stands.or_insert_with(|| Stands::new(text(object, "/metadata/name")));
            (stands.excuse, stands.held) = (excuse, held);
            stands.asked = asked.map_or(stands.asked, |asked| stands.asked.max(asked));
        }
        drop(state);
        for tolerance in tolerated {
            self.tolerated(tolerance);
        }
        for (name, took, since) in violated {
            self.violated(format!(
                "Ready: {name} is Ready beside a missing edge, {took:?} after {since}"
            ));
        }
    }

    /// Whether an object is Ready that must not be, by now. Where a limit of calls may hold its pass back, the time tells.
    pub(super) fn is_ready_too_long(&self, object: &Value) -> bool {
        let ready = condition(object, "Ready").is_some_and(|ready| ready["status"] == "True");
        ready
            && !is_deleting(object)
            && self.excuse(object).is_none()
            && self.held(object).is_zero()
    }

    /// Why nothing is written of an object now.
    fn excuse(&self, object: &Value) -> Option<Tolerance> {
        let state = self.state.lock().unwrap();
        let name = object["metadata"]["name"].as_str();
        if state.paused {
            Some(Tolerance::Stopped)
        } else if state.status_refused.is_some() && state.status_refused == name {
            Some(Tolerance::StatusRefused)
        } else if object["spec"]["suspend"] == true {
            Some(Tolerance::Suspended)
        } else if state.silent_until > Some(Instant::now()) {
            Some(Tolerance::SilentWatch)
        } else {
            None
        }
    }

    /// A read that counts has shown that the edge of an object is missing.
    pub(super) fn missing_shown(&self, uid: &str) {
        self.judge_ready();
        let mut state = self.state.lock().unwrap();
        if let Some(stands) = state.stands.get_mut(uid) {
            let now = Instant::now();
            stands.first_read.get_or_insert(now);
            stands.read.get_or_insert(now);
        }
    }

    /// What was read counts no more.
    pub(super) fn read_anew(&self, why: Tolerance) {
        self.judge_ready();
        let mut state = self.state.lock().unwrap();
        for stands in state.stands.values_mut() {
            (stands.read, stands.why) = (None, Some(why));
            stands.asked = Instant::now();
        }
    }

    /// An operator asks this host about targets. Whether the call arrives, and what comes back, does not matter.
    pub fn asks(&self, host: &str, parameters: &BTreeMap<String, String>) {
        let targets = named_targets(parameters);
        if targets.is_empty() {
            return;
        }
        self.judge_ready();
        let mut state = self.state.lock().unwrap();
        let asked = state.asked.entry(host.to_owned()).or_default();
        for target in targets {
            asked.insert(target, Instant::now());
        }
        drop(state);
        self.judge_ready();
    }

    /// When the cloud was asked last about the target of an object, through a host at which its account reads.
    fn asked_last(&self, object: &Value) -> Option<Instant> {
        let hosts: Vec<(String, Instant)> = {
            let state = self.state.lock().unwrap();
            let at = |targets: &HashMap<String, Instant>| targets.get(target_of(object)).copied();
            let hosts = state.asked.iter();
            hosts
                .filter_map(|(host, targets)| Some((host.clone(), at(targets)?)))
                .collect()
        };
        let hosts = hosts.into_iter();
        hosts
            .filter(|(host, _)| self.is_read_through(object, host))
            .map(|(_, at)| at)
            .max()
    }

    /// A watch of memberships shows nothing for so long. What a pass has begun before the next event takes its time.
    pub fn silent_for(&self, period: Duration) {
        self.judge_ready();
        let until = Some(Instant::now() + period + PASS);
        let mut state = self.state.lock().unwrap();
        state.silent_until = state.silent_until.max(until);
        drop(state);
        self.judge_ready();
    }

    /// A schedule has a watch of memberships fall silent for so long.
    pub fn drawn_silent_for(&self, period: Duration) {
        self.silent_for(period);
        let mut state = self.state.lock().unwrap();
        let until = Some(Instant::now() + period + PASS);
        state.drawn_silent_until = state.drawn_silent_until.max(until);
    }

    /// All operators are stopped from now on, or go on.
    pub fn paused(&self, paused: bool) {
        self.judge_ready();
        self.state.lock().unwrap().paused = paused;
        self.judge_ready();
    }
}

/// For how long an object has been Ready that must not be, and since what.
#[derive(Debug, PartialEq, Eq)]
struct TooLong(Duration, &'static str);

impl Stands {
    fn new(name: String) -> Self {
        Self {
            name,
            since: Instant::now(),
            first_read: None,
            read: None,
            why: None,
            asked: Instant::now(),
            excuse: None,
            held: Duration::ZERO,
            is_judged: false,
            is_tolerated: false,
        }
    }

    /// What the time until now is: tolerated, or too long.
    fn judge(&mut self, now: Instant) -> Option<Result<Tolerance, TooLong>> {
        if let Some(excuse) = self.excuse {
            (self.read, self.why) = (self.read.map(|_| now), Some(excuse));
            self.asked = now;
        }
        if self.is_judged {
            return None;
        }
        let since = |at: Option<Instant>| at.map(|at| now - at).unwrap_or_default();
        if since(self.read) > LONGEST + self.held {
            self.is_judged = true;
            let shown = "a read that counts has shown it";
            return Some(Err(TooLong(since(self.read), shown)));
        }
        if now - self.asked > LONGEST + self.held {
            self.is_judged = true;
            let asked = "the cloud was asked last about its target";
            return Some(Err(TooLong(now - self.asked, asked)));
        }
        let why = if since(self.read) > LONGEST {
            Tolerance::Limited
        } else if since(self.first_read) > LONGEST
            || self.first_read.is_none() && now - self.since > LONGEST
        {
            self.why.unwrap_or(Tolerance::NotRead)
        } else {
            return None;
        };
        let is_first = !std::mem::replace(&mut self.is_tolerated, true);
        is_first.then_some(Ok(why))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    fn read_now() -> Stands {
        let now = Some(Instant::now());
        Stands {
            first_read: now,
            read: now,
            ..Stands::new("m".to_owned())
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ready_beside_a_missing_edge_is_judged_once_by_the_time_since_a_read() {
        let mut stands = read_now();
        advance(LONGEST).await;
        assert_eq!(stands.judge(Instant::now()), None);
        advance(Duration::from_millis(1)).await;
        let found = stands.judge(Instant::now());
        assert!(matches!(found, Some(Err(_))), "{found:?}");
        assert_eq!(stands.judge(Instant::now()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn limit_of_calls_prolongs_the_time_and_is_told() {
        let mut stands = read_now();
        stands.held = 3 * MINUTE;
        advance(LONGEST + Duration::from_millis(1)).await;
        let found = stands.judge(Instant::now());
        assert_eq!(found, Some(Ok(Tolerance::Limited)));
        assert_eq!(stands.judge(Instant::now()), None);
        advance(3 * MINUTE).await;
        let found = stands.judge(Instant::now());
        assert!(matches!(found, Some(Err(_))), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn excuse_stops_the_time_and_is_told_when_it_was_needed() {
        let mut stands = read_now();
        stands.excuse = Some(Tolerance::Suspended);
        advance(LONGEST).await;
        assert_eq!(stands.judge(Instant::now()), None);
        stands.excuse = None;
        advance(MINUTE).await;
        let found = stands.judge(Instant::now());
        assert_eq!(found, Some(Ok(Tolerance::Suspended)));
        advance(LONGEST).await;
        let found = stands.judge(Instant::now());
        assert!(matches!(found, Some(Err(_))), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn object_of_whose_target_the_cloud_is_not_asked_is_judged() {
        let mut stands = Stands::new("m".to_owned());
        advance(LONGEST).await;
        assert_eq!(stands.judge(Instant::now()), None);
        advance(Duration::from_millis(1)).await;
        let found = stands.judge(Instant::now());
        assert!(matches!(found, Some(Err(_))), "{found:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn time_without_a_read_that_counts_is_told() {
        let mut stands = Stands::new("m".to_owned());
        advance(LONGEST + Duration::from_millis(1)).await;
        stands.asked = Instant::now();
        let found = stands.judge(Instant::now());
        assert_eq!(found, Some(Ok(Tolerance::NotRead)));
    }
}
