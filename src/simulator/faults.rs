//! Injected faults: the calls they match and their effects. Pure; randomness is seeded.

use std::time::Duration;

use bytes::Bytes;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Deserializer};

use super::action::Action;
use super::error::{ALL, BY_FAULT, ErrorResponse, THROTTLING_USER, UNTOLD};
use super::settings::{duration, optional_duration};

/// One fault. An absent condition matches every call.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// Matches only this action.
    #[serde(default, deserialize_with = "action")]
    pub action: Option<String>,
    /// Matches only calls that name this region.
    pub region: Option<String>,
    /// Matches only calls that name this instance or interface.
    pub target: Option<String>,
    /// Matches only calls that name this group, alone or among others.
    pub security_group_id: Option<String>,
    /// Matches only calls whose first filter by a tag has this key.
    pub tag: Option<String>,
    /// Matches only calls of this access key.
    pub access_key: Option<String>,
    /// Number of calls that it hits. Absent: all.
    pub count: Option<u32>,
    /// Number of matching calls that it lets through first.
    #[serde(default)]
    pub skip: u32,
    /// Probability that it hits a matching call, 0 to 1. Absent: 1.
    pub probability: Option<f64>,
    /// Whether the call still takes effect: the change is made, and its answer is lost or replaced.
    #[serde(default)]
    pub effect: bool,
    /// The call takes effect this much later, although its answer is lost or replaced now. `effect` need not be set then.
    #[serde(default, deserialize_with = "optional_duration")]
    pub effect_after: Option<Duration>,
    /// The effect.
    pub fault: Kind,
}

/// Effect of a fault.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Kind {
    /// The call takes this much longer; other faults may still hit it.
    Latency(#[serde(deserialize_with = "duration")] Duration),
    /// 400 `Throttling.User`.
    Throttle(ThrottleFault),
    /// Any code. A code of the vendor's tables has their status and message by default.
    Error(ErrorFault),
    /// The connection is reset without an answer.
    Reset,
    /// No answer: the connection stays open until the client closes it.
    Silence,
    /// The body is not the documented one.
    Malformed(Body),
}

/// An injected throttle.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ThrottleFault {
    /// Value of `x-acs-retry-after`, beside which the limit of the action is named if it has one. Absent: no such headers.
    #[serde(default, deserialize_with = "optional_duration")]
    pub retry_after: Option<Duration>,
}

/// An injected error.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ErrorFault {
    /// The code.
    pub code: String,
    /// HTTP status, 200 to 599. Absent: the vendor's, or 500.
    #[serde(default, deserialize_with = "status")]
    pub status: Option<u16>,
    /// The message. Absent: the vendor's.
    pub message: Option<String>,
}

fn action<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let action = Option::<String>::deserialize(deserializer)?;
    if let Some(name) = &action {
        Action::check(name).map_err(serde::de::Error::custom)?;
    }
    Ok(action)
}

fn status<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u16>, D::Error> {
    let status = Option::<u16>::deserialize(deserializer)?;
    if status.is_some_and(|status| !(200..600).contains(&status)) {
        return Err(serde::de::Error::custom(
            "expected a number from 200 to 599",
        ));
    }
    Ok(status)
}

/// Kinds of invalid bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Body {
    /// 200 and an HTML page.
    Html,
    /// 502 and an HTML page, as from a proxy.
    BadGateway,
    /// The first half of the real answer.
    Truncated,
    /// 200 with an empty body.
    Empty,
    /// JSON with other types than documented.
    WrongTypes,
    /// 64 MiB.
    Huge,
    /// Bytes that are not text.
    Garbage,
    /// The real answer, one byte per second.
    Drip,
}

/// The parts of a call that faults match.
#[derive(Clone, Copy, Debug)]
pub struct Subject<'a> {
    /// Action.
    pub action: &'a str,
    /// `RegionId`.
    pub region: Option<&'a str>,
    /// `InstanceId` or `NetworkInterfaceId`.
    pub target: Option<&'a str>,
    /// `InstanceIds`: a list in JSON.
    pub targets: Option<&'a str>,
    /// `SecurityGroupId`.
    pub group: Option<&'a str>,
    /// `SecurityGroupIds`: a list in JSON.
    pub groups: Option<&'a str>,
    /// `Tag.1.Key`.
    pub tag: Option<&'a str>,
    /// Access key ID.
    pub access_key: &'a str,
}

/// The injected faults.
#[derive(Debug)]
pub struct Faults {
    list: Vec<Fault>,
    random: StdRng,
}

/// Effect of all faults on one call.
#[derive(Debug, Default)]
pub struct Hit {
    /// Extra latency.
    pub latency: Duration,
    /// The harm, and whether the call still takes effect.
    pub harm: Option<(Harm, Effect)>,
}

/// Whether a call whose answer is lost or replaced still takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Never.
    None,
    /// Before the answer.
    Now,
    /// This much later, if its preconditions hold then.
    After(Duration),
}

/// Harm to an answer.
#[derive(Debug)]
pub enum Harm {
    /// This error replaces the answer.
    Error(ErrorResponse),
    /// The call is throttled for so long.
    Throttle(Duration),
    /// The connection is reset.
    Reset,
    /// No answer.
    Silence,
    /// An invalid body.
    Malformed(Body),
}

impl Faults {
    /// No faults yet.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self {
            list: Vec::new(),
            random: StdRng::seed_from_u64(seed),
        }
    }

    /// Replaces all faults.
    pub fn set(&mut self, list: Vec<Fault>) {
        self.list = list;
    }

    /// Adds one fault.
    pub fn add(&mut self, fault: Fault) {
        self.list.push(fault);
    }

    /// Number of faults that are set and not used up.
    #[must_use]
    pub fn left(&self) -> usize {
        self.list.len()
    }

    /// The faults that are set and not used up.
    #[must_use]
    pub fn list(&self) -> &[Fault] {
        &self.list
    }

    /// The faults that hit this call. Counts them as used.
    pub fn strike(&mut self, subject: Subject<'_>) -> Hit {
        let mut hit = Hit::default();
        let Self { list, random } = self;
        for fault in list.iter_mut() {
            if !fault.matches(subject) || fault.count == Some(0) {
                continue;
            }
            if fault.skip > 0 {
                fault.skip -= 1;
                continue;
            }
            if fault
                .probability
                .is_some_and(|probability| !random.random_bool(probability.clamp(0.0, 1.0)))
            {
                continue;
            }
            fault.count = fault.count.map(|count| count - 1);
            if let Kind::Latency(latency) = fault.fault {
                hit.latency = hit.latency.saturating_add(latency);
                continue;
            }
            hit.harm = fault.fault.harm().map(|harm| (harm, fault.effect()));
            break;
        }
        list.retain(|fault| fault.count != Some(0));
        hit
    }
}

impl Fault {
    fn effect(&self) -> Effect {
        match self.effect_after {
            Some(after) => Effect::After(after),
            None if self.effect => Effect::Now,
            None => Effect::None,
        }
    }

    fn matches(&self, subject: Subject<'_>) -> bool {
        let is = |wanted: &Option<String>, given: Option<&str>| {
            wanted.as_deref().is_none_or(|wanted| given == Some(wanted))
        };
        let is_or_one_of = |wanted: &Option<String>, given, list: Option<&str>| {
            let lists = |list: &str| {
                let wanted = wanted.as_ref().map(|wanted| format!("\"{wanted}\""));
                wanted.is_some_and(|wanted| list.contains(&wanted))
            };
            is(wanted, given) || list.is_some_and(lists)
        };
        is(&self.action, Some(subject.action))
            && is(&self.region, subject.region)
            && is_or_one_of(&self.target, subject.target, subject.targets)
            && is_or_one_of(&self.security_group_id, subject.group, subject.groups)
            && is(&self.tag, subject.tag)
            && is(&self.access_key, Some(subject.access_key))
    }
}

impl Kind {
    /// Its name, as it is set.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::Latency(_) => "latency",
            Self::Throttle(_) => "throttle",
            Self::Error(_) => "error",
            Self::Reset => "reset",
            Self::Silence => "silence",
            Self::Malformed(_) => "malformed",
        }
    }

    fn harm(&self) -> Option<Harm> {
        Some(match self {
            Self::Latency(_) => return None,
            Self::Throttle(ThrottleFault { retry_after }) => match retry_after {
                Some(left) => Harm::Throttle(*left),
                None => Harm::Error(THROTTLING_USER.into()),
            },
            Self::Error(ErrorFault {
                code,
                status,
                message,
            }) => {
                let known = ALL.iter().chain(BY_FAULT).find(|known| known.code == code);
                Harm::Error(ErrorResponse {
                    status: status.or(known.map(|known| known.status)).unwrap_or(500),
                    code: code.clone().into(),
                    message: message.clone().map_or_else(
                        || known.map_or(UNTOLD, |known| known.message).into(),
                        Into::into,
                    ),
                    access_denied: None,
                    headers: Vec::new(),
                })
            }
            Self::Reset => Harm::Reset,
            Self::Silence => Harm::Silence,
            Self::Malformed(body) => Harm::Malformed(*body),
        })
    }
}

impl Body {
    /// Status, content type and bytes; `None` if the body is made from the real answer.
    #[must_use]
    pub fn made_up(self) -> Option<(u16, &'static str, Bytes)> {
        const JSON: &str = "application/json;charset=utf-8";
        const HTML: &str = "text/html";
        Some(match self {
            Self::Html => (200, HTML, Bytes::from_static(b"<html><body><h1>Welcome</h1></body></html>")),
            Self::BadGateway => (502, HTML, Bytes::from_static(b"<html><body><h1>502 Bad Gateway</h1></body></html>")),
            Self::Empty => (200, JSON, Bytes::new()),
            Self::WrongTypes => (
                200,
                JSON,
                Bytes::from_static(br#"{"RequestId":7,"Instances":[],"NetworkInterfaceSets":"none","TotalCount":{}}"#),
            ),
            Self::Huge => (200, JSON, Bytes::from(vec![b' '; 64 << 20])),
            Self::Garbage => (200, JSON, Bytes::from_static(&[0xff, 0xfe, 0x00, 0x80, 0xc3, 0x28])),
            Self::Truncated | Self::Drip => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn join(target: &str) -> Subject<'_> {
        Subject {
            action: "JoinSecurityGroup",
            region: None,
            target: Some(target),
            targets: None,
            group: Some("sg-1"),
            groups: None,
            tag: None,
            access_key: "key",
        }
    }

    fn parse(json: &str) -> Fault {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn fault_hits_only_its_target_and_count() {
        let mut faults = Faults::seeded(1);
        faults.add(parse(r#"{"action": "JoinSecurityGroup", "target": "i-1", "count": 1, "skip": 1, "fault": "reset", "effect": true}"#));
        assert!(faults.strike(join("i-2")).harm.is_none());
        assert!(faults.strike(join("i-1")).harm.is_none(), "skipped");
        assert!(matches!(
            faults.strike(join("i-1")).harm,
            Some((Harm::Reset, Effect::Now))
        ));
        assert!(faults.strike(join("i-1")).harm.is_none(), "used up");
        assert_eq!(faults.left(), 0);
    }

    #[test]
    fn latency_adds_to_another_fault() {
        let mut faults = Faults::seeded(1);
        faults.add(parse(r#"{"fault": {"latency": "2s"}}"#));
        faults.add(parse(
            r#"{"fault": {"error": {"code": "ServiceUnavailable"}}}"#,
        ));
        let hit = faults.strike(join("i-1"));
        assert_eq!(hit.latency, Duration::from_secs(2));
        assert!(
            matches!(hit.harm, Some((Harm::Error(error), Effect::None)) if error.status == 503)
        );
    }

    #[test]
    fn latency_saturates_at_the_maximum() {
        let mut faults = Faults::seeded(1);
        for _ in 0..2 {
            faults.add(Fault {
                fault: Kind::Latency(Duration::MAX),
                ..parse(r#"{"fault": "reset"}"#)
            });
        }
        assert_eq!(faults.strike(join("i-1")).latency, Duration::MAX);
    }

    #[test]
    fn fault_probability_is_met_and_fixed_by_the_seed() {
        let run = |seed| {
            let mut faults = Faults::seeded(seed);
            faults.add(parse(r#"{"probability": 0.25, "fault": "silence"}"#));
            (0..1_000)
                .map(|_| faults.strike(join("i-1")).harm.is_some())
                .collect::<Vec<_>>()
        };
        let hits = run(7).into_iter().filter(|hit| *hit).count();
        assert!((200..300).contains(&hits), "{hits}");
        assert_eq!(run(7), run(7));
    }
}
