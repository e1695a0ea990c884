//! The gauges that tell of memberships and accounts, from the state of the process. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use crate::account::key::AccountKey;
use crate::account::reach::Reachability;
use crate::api::membership::{AccountKind, ErrorClass};
use crate::ecs::Region;
use crate::telemetry::{Labels, OTHER, Samples};

use super::context::Context;

/// Accounts of the cluster with series of their own.
const MOST_ACCOUNTS: usize = 40;

/// Series of `last_scan_timestamp_seconds`.
const MOST_SCANS: usize = 200;

/// The gauges as of now. `key_ends` tells when temporary keys end, in seconds since 1970.
#[must_use]
pub fn samples(context: &Context, key_ends: &[(AccountKey, i64)]) -> Samples {
    let mut samples = Samples::default();
    let readiness = context.directory.readiness();
    let names = Names::new(readiness.iter().map(|(key, _)| key));
    tell_memberships(context, &names, &mut samples);
    tell_admission(context, &mut samples);
    for (account, ready) in &readiness {
        let labels = names.labels(account);
        samples.lowest("account_ready", labels, f64::from(u8::from(*ready)));
    }
    tell_sessions(context, &names, &mut samples);
    tell_scans(context, &names, &mut samples);
    for (account, ends) in key_ends {
        let name = "credential_expiry_timestamp_seconds";
        samples.lowest(name, names.labels(account), seconds(*ends));
    }
    for (account, late) in &*context.late_targets() {
        samples.add("targets_not_observed", names.labels(account), number(*late));
    }
    samples
}

/// The accounts that have series of their own. A user may name an account that does not exist: it has none.
struct Names<'a>(BTreeSet<&'a str>);

impl<'a> Names<'a> {
    fn new(existing: impl Iterator<Item = &'a AccountKey>) -> Self {
        let cluster = existing.filter(|key| key.kind == AccountKind::ClusterCloudAccount);
        let all: BTreeSet<&str> = cluster.map(|key| &*key.name).collect();
        Self(all.into_iter().take(MOST_ACCOUNTS).collect())
    }

    fn of(&self, account: &AccountKey) -> &'a str {
        match account.kind {
            AccountKind::ClusterCloudAccount => {
                self.0.get(&*account.name).copied().unwrap_or(OTHER)
            }
            AccountKind::CloudAccount => "namespaced",
        }
    }

    fn labels(&self, account: &AccountKey) -> Labels {
        vec![("account", self.of(account).to_owned())]
    }
}

fn tell_memberships(context: &Context, names: &Names<'_>, samples: &mut Samples) {
    let now = context.clock.now().as_second();
    let tally = context.table.tally();
    for ((account, ready, class), count) in tally.counts {
        let account = account.map_or(OTHER, |account| names.of(&account));
        let ready = match ready {
            Some(true) => "True",
            Some(false) => "False",
            None => "Unknown",
        };
        let labels = vec![
            ("account", account.to_owned()),
            ("ready", ready.to_owned()),
            ("class", class_label(class).to_owned()),
        ];
        samples.add("memberships", labels, number(count));
    }
    for (class, since) in tally.unready_since {
        let labels = vec![("class", class_label(class).to_owned())];
        samples.highest("oldest_unready_seconds", labels, seconds(now - since));
    }
    let deleting = tally.deleting_since.map_or(0, |since| now - since);
    samples.highest("oldest_deleting_seconds", Vec::new(), seconds(deleting));
    let loops = number(tally.repair_loops);
    samples.add("repair_loops", Vec::new(), loops);
}

fn tell_admission(context: &Context, samples: &mut Samples) {
    let waiters = context.admission.waiting();
    for (state, count) in [
        ("slot", waiters.for_slot),
        ("call", waiters.for_call),
        ("target", waiters.for_target),
    ] {
        let labels = vec![("state", state.to_owned())];
        samples.add("admission_waiting", labels, number(count));
    }
    let oldest = waiters
        .first
        .map_or(0.0, |first| first.elapsed().as_secs_f64());
    samples.add("admission_oldest_seconds", Vec::new(), oldest);
}

fn tell_sessions(context: &Context, names: &Names<'_>, samples: &mut Samples) {
    let limit = context.read_periods.scan * 3;
    for (account, session) in context.directory.sessions() {
        let reachable = match session.reachability(limit) {
            Some(Reachability::NoAnswer { .. } | Reachability::NotObserved) => 0.0,
            Some(Reachability::Answering) | None => 1.0,
        };
        samples.lowest("account_reachable", names.labels(&account), reachable);
        for (region, action, limit) in session.limiter().limits() {
            let labels = vec![
                ("api", action.name().to_owned()),
                ("region", region_label(&region).to_owned()),
            ];
            samples.lowest("rate_limit_per_minute", labels, limit);
        }
    }
}

fn tell_scans(context: &Context, names: &Names<'_>, samples: &mut Samples) {
    let mut scans = BTreeMap::<(&str, &str), i64>::new();
    let running: Vec<_> = context
        .scans()
        .iter()
        .filter_map(std::sync::Weak::upgrade)
        .collect();
    for scan in &running {
        let region = region_label(&scan.region);
        for account in &*scan.accounts() {
            let completed = scan.completed();
            let oldest = scans
                .entry((names.of(account), region))
                .or_insert(completed);
            *oldest = completed.min(*oldest);
        }
    }
    for (number, ((account, region), completed)) in scans.into_iter().enumerate() {
        let has_series = number < MOST_SCANS;
        let (account, region) = if has_series {
            (account, region)
        } else {
            (OTHER, OTHER)
        };
        let labels = vec![
            ("account", account.to_owned()),
            ("region", region.to_owned()),
        ];
        let name = "last_scan_timestamp_seconds";
        samples.lowest(name, labels, seconds(completed));
    }
}

fn region_label(region: &Region) -> &'static str {
    region.known_name().unwrap_or(OTHER)
}

const fn class_label(class: Option<ErrorClass>) -> &'static str {
    match class {
        None => "none",
        Some(ErrorClass::Transitional) => "transitional",
        Some(ErrorClass::Transient) => "transient",
        Some(ErrorClass::Throttled) => "throttled",
        Some(ErrorClass::Absent) => "absent",
        Some(ErrorClass::Blocked) => "blocked",
        Some(ErrorClass::Invalid) => "invalid",
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn number(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn seconds(seconds: i64) -> f64 {
    seconds as f64
}
