//! Settings of the simulated cloud as a whole, and the syntax of durations: only types and parsing, pure.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::action::Action;
use super::timeline::MEMORY;

/// The settings. Defaults are those of the vendor's pages.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Duration of every call.
    pub latency: Duration,
    /// Describe reads the state as of this long ago.
    pub lag: Duration,
    /// How long `Pending`, `Starting` and `Stopping` last.
    pub transition: Duration,
    /// Limit of security groups per instance or interface.
    pub groups_per_target: usize,
    /// Limit of instances and interfaces per normal group.
    pub members_per_group: usize,
    /// Limit of interfaces per enterprise group.
    pub members_per_enterprise_group: usize,
    /// Private addresses of each interface, in the rows of interfaces and of instances.
    pub addresses: u32,
    /// Limit of rules over all groups of one target.
    pub rules_per_target: u32,
    /// Answer of Join for a member.
    pub join_member: JoinMember,
    /// Answer of the Describes of instances and interfaces to a key without the right.
    pub denied_reads: DeniedReads,
    /// Edition of the vendor's error tables.
    pub codes: Codes,
    /// Whether a second change of a target within the latency of the first is answered with 409.
    pub conflicts: bool,
    /// Calls per minute by action, for each account and region.
    pub limits: BTreeMap<String, u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            latency: Duration::ZERO,
            lag: Duration::ZERO,
            transition: Duration::from_secs(10),
            groups_per_target: 5,
            members_per_group: 1_000,
            members_per_enterprise_group: 65_536,
            addresses: 1,
            rules_per_target: 1_000,
            join_member: JoinMember::AlreadyExists,
            denied_reads: DeniedReads::Forbidden,
            codes: Codes::Current,
            conflicts: true,
            limits: BTreeMap::new(),
        }
    }
}

/// Answer of Join for a target that is already a member. The vendor's pages document 403; some live answers were 200.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum JoinMember {
    /// 403 `InvalidInstanceId.AlreadyExists`.
    AlreadyExists,
    /// 200.
    Success,
}

/// Answer of a Describe to a key without the right. The vendor says that `DescribeInstances` listed nothing until December 2025. It
/// does not say what `DescribeNetworkInterfaces` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum DeniedReads {
    /// 403 `Forbidden.RAM`.
    Forbidden,
    /// 200 without a row.
    EmptyList,
}

/// Editions of the vendor's error tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Codes {
    /// The current pages.
    Current,
    /// The first edition: `OperationDenied` for a locked instance, `IncorrectInstanceStatus` during creation,
    /// `InstanceNotInSecurityGroup` for a Leave from a group without the target.
    Original,
}

/// Settings to change; absent ones stay. Shared by the inventory and the admin port.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SettingsChange {
    #[serde(default, deserialize_with = "optional_duration")]
    latency: Option<Duration>,
    #[serde(default, deserialize_with = "lag")]
    lag: Option<Duration>,
    #[serde(default, deserialize_with = "optional_duration")]
    transition: Option<Duration>,
    groups_per_target: Option<usize>,
    members_per_group: Option<usize>,
    members_per_enterprise_group: Option<usize>,
    addresses: Option<u32>,
    rules_per_target: Option<u32>,
    join_member: Option<JoinMember>,
    denied_reads: Option<DeniedReads>,
    codes: Option<Codes>,
    conflicts: Option<bool>,
    /// Merged into the current limits; `null` removes one.
    #[serde(default, deserialize_with = "limits")]
    limits: BTreeMap<String, Option<u32>>,
}

impl SettingsChange {
    /// Applies the change.
    pub fn apply(self, settings: &mut Settings) {
        let Self {
            latency,
            lag,
            transition,
            groups_per_target,
            members_per_group,
            members_per_enterprise_group,
            addresses,
            rules_per_target,
            join_member,
            denied_reads,
            codes,
            conflicts,
            limits,
        } = self;
        replace(&mut settings.latency, latency);
        replace(&mut settings.lag, lag);
        replace(&mut settings.transition, transition);
        replace(&mut settings.groups_per_target, groups_per_target);
        replace(&mut settings.members_per_group, members_per_group);
        replace(
            &mut settings.members_per_enterprise_group,
            members_per_enterprise_group,
        );
        replace(&mut settings.addresses, addresses);
        replace(&mut settings.rules_per_target, rules_per_target);
        replace(&mut settings.join_member, join_member);
        replace(&mut settings.denied_reads, denied_reads);
        replace(&mut settings.codes, codes);
        replace(&mut settings.conflicts, conflicts);
        for (action, limit) in limits {
            match limit {
                Some(limit) => settings.limits.insert(action, limit),
                None => settings.limits.remove(&action),
            };
        }
    }
}

/// Rejects a lag above [`MEMORY`]: older state is not stored.
fn lag<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let lag = optional_duration(deserializer)?;
    if lag.is_some_and(|lag| lag > MEMORY) {
        return Err(serde::de::Error::custom("a lag is 10m at most"));
    }
    Ok(lag)
}

fn limits<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, Option<u32>>, D::Error> {
    let limits = BTreeMap::<String, Option<u32>>::deserialize(deserializer)?;
    limits
        .keys()
        .try_for_each(|name| Action::check(name))
        .map_err(serde::de::Error::custom)?;
    Ok(limits)
}

fn replace<T>(slot: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *slot = value;
    }
}

/// Parses `30ms`, `10s`, `5m`, `1h 30m`: never negative.
///
/// # Errors
/// A sentence that names the expected form.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text)
        .map_err(|_| format!("{text:?} is not a duration: write it as 30ms, 10s or 5m"))
}

/// [`parse_duration`] for serde and a field that may be absent.
///
/// # Errors
/// The sentence of [`parse_duration`].
pub fn optional_duration<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<Duration>, D::Error> {
    let text: Option<String> = Option::deserialize(deserializer)?;
    text.map(|text| parse_duration(&text).map_err(serde::de::Error::custom))
        .transpose()
}

/// [`parse_duration`] for serde.
///
/// # Errors
/// The sentence of [`parse_duration`].
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_parse_as_people_write_them() {
        assert_eq!(parse_duration("30ms"), Ok(Duration::from_millis(30)));
        assert_eq!(parse_duration("10s"), Ok(Duration::from_secs(10)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
        for text in ["", "10", "-3s", "soon"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }
}
