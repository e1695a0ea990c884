//! The gauges that tell of memberships and accounts, from the state of the process. Changes nothing.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::account::key::AccountKey;
use crate::account::reach::Reachability;
use crate::api::membership::{AccountKind, ErrorClass};
use crate::ecs::Region;
use crate::telemetry::{Labels, OTHER, Samples};

use super::context::Context;

/// Accounts of the cluster with series of their own. Each has up to 21 series of `memberships` and 4 of other gauges.
const MOST_ACCOUNTS: usize = 29;

/// Series of `last_scan_timestamp_seconds`, without the one of all others.
const MOST_SCANS: usize = 179;

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
    // Many account objects may name one cloud account: its limits are told once.
    let mut limiters = HashMap::new();
    for (account, session) in context.directory.sessions() {
        let reachable = match session.reachability(limit) {
            Some(Reachability::NoAnswer { .. } | Reachability::NotObserved) => 0.0,
            Some(Reachability::Answering) | None => 1.0,
        };
        samples.lowest("account_reachable", names.labels(&account), reachable);
        let limiter = Arc::clone(session.limiter());
        limiters.insert(Arc::as_ptr(&limiter), limiter);
    }
    for limiter in limiters.values() {
        for (region, action, limit) in limiter.limits() {
            let labels = vec![
                ("api", action.name().to_owned()),
                ("region", region_label(&region).to_owned()),
            ];
            samples.lowest("rate_limit_per_minute", labels, limit);
        }
    }
}

fn tell_scans(context: &Context, names: &Names<'_>, samples: &mut Samples) {
    let period = context.read_periods.scan.as_secs_f64();
    samples.add("scan_period_seconds", Vec::new(), period);
    let mut scans = BTreeMap::<(&str, &str), i64>::new();
    let running: Vec<_> = context
        .scans()
        .iter()
        .filter_map(std::sync::Weak::upgrade)
        .collect();
    for scan in &running {
        let region = region_label(&scan.region);
        for (account, completed) in &*scan.accounts() {
            let oldest = scans
                .entry((names.of(account), region))
                .or_insert(*completed);
            *oldest = (*oldest).min(*completed);
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::runtime::reflector;
    use serde_json::{Value, json};

    use super::*;
    use crate::account::directory::{AccountState, Directory, Grants};
    use crate::account::limiters::CloudLimits;
    use crate::account::session::AccountSession;
    use crate::api::SecurityGroupMembership;
    use crate::ecs::{
        Action, ApiError, Client, Credential, Endpoints, Error, TestTransport, error_table,
    };
    use crate::membership::progress::Progress;
    use crate::shutdown::Shutdown;
    use crate::telemetry::Telemetry;
    use crate::telemetry::catalogue::{METRICS, PREFIX};

    const ACCOUNTS: usize = 10_000;
    const REGIONS: usize = 1_000;
    /// The bound that the documentation names.
    const MOST_SERIES: usize = 2_000;
    /// What a tenant has typed.
    const TYPED: &str = "xx-typed";

    fn cluster_account(number: usize) -> AccountKey {
        AccountKey {
            kind: AccountKind::ClusterCloudAccount,
            namespace: String::new(),
            name: format!("account-{number:05}"),
        }
    }

    fn namespaced_account() -> AccountKey {
        AccountKey {
            kind: AccountKind::CloudAccount,
            namespace: "team".to_owned(),
            name: TYPED.to_owned(),
        }
    }

    /// All that this version knows, and as many others as fit.
    fn regions() -> Vec<Region> {
        let known = crate::ecs::region::KNOWN.iter().map(ToString::to_string);
        let typed = (0..REGIONS).map(|number| format!("{TYPED}-{number}"));
        let all = known.chain(typed).take(REGIONS);
        all.map(|name| name.parse().unwrap()).collect()
    }

    /// Every account is usable, and each API has a limit in each region.
    fn directory(regions: &[Region]) -> Directory {
        let limits = CloudLimits::of_test("123");
        for (region, action) in regions
            .iter()
            .flat_map(|region| Action::ALL.map(|one| (region, one)))
        {
            let throttled = Error::Api(ApiError {
                limit: Some(600),
                ..ApiError::of(action, 400, "Throttling.User")
            });
            limits.limiter.note(region, action, Some(&throttled));
        }
        let directory = Directory::new(reflector::store().0);
        let cluster = (0..ACCOUNTS).map(cluster_account);
        for account in cluster.chain([namespaced_account()]) {
            let credential = Credential::new("LTAI4", "secret-of-the-key", None).unwrap();
            let endpoints = Endpoints::parse(None, None, false).unwrap();
            let client = Client::new(Arc::<TestTransport>::default(), credential, endpoints);
            let session = AccountSession::new(
                client,
                Arc::clone(&limits),
                Arc::default(),
                Arc::default(),
                Shutdown::default(),
            );
            directory.upsert(&account, Grants::OwnNamespace);
            directory.set_state(&account, AccountState::Ready(Arc::new(session)));
        }
        directory
    }

    /// An object of this account; the number decides about its status. `labels` is how many labels it has.
    fn object(account: &AccountKey, number: usize, labels: usize) -> SecurityGroupMembership {
        let kind = match account.kind {
            AccountKind::ClusterCloudAccount => "ClusterCloudAccount",
            AccountKind::CloudAccount => "CloudAccount",
        };
        let uid = format!("{account}-{number}");
        let labels = (0..labels).map(|number| (format!("{TYPED}-{number}"), json!(TYPED)));
        let labels: serde_json::Map<String, Value> = labels.collect();
        let ready = ["True", "False", "Unknown"][number % 3];
        let classes = [
            "None",
            "Transitional",
            "Transient",
            "Throttled",
            "Absent",
            "Blocked",
            "Invalid",
        ];
        let class = classes[number / 3 % 7];
        let error = (class != "None").then(|| {
            let time = "2026-01-01T00:00:00Z";
            json!({"action": TYPED, "class": class, "code": TYPED, "message": TYPED, "time": time})
        });
        let object = json!({
            "metadata": {"name": TYPED, "namespace": "team", "uid": uid, "resourceVersion": "1", "labels": labels},
            "spec": {
                "region": format!("{TYPED}-{}", number % REGIONS), "instanceID": "i-1", "securityGroupID": "sg-1",
                "accountRef": {"kind": kind, "name": account.name},
            },
            "status": {"lastError": error, "conditions": [{
                "type": "Ready", "status": ready, "reason": "Typed", "message": TYPED,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }]},
        });
        serde_json::from_value(object).unwrap()
    }

    /// Each account in each region, with an object of each status.
    fn context(regions: &[Region]) -> (Context, Vec<Arc<Progress>>) {
        let context = Context::of_test(directory(regions));
        for number in 0..ACCOUNTS {
            let _ = context
                .table
                .insert(&object(&cluster_account(number), number, 0));
        }
        let first = (0..=MOST_ACCOUNTS).map(cluster_account);
        let accounts: BTreeSet<AccountKey> = first.chain([namespaced_account()]).collect();
        for (account, number) in accounts
            .iter()
            .flat_map(|one| (0..21).map(move |number| (one, number)))
        {
            let _ = context.table.insert(&object(account, number, 500));
            *context.late_targets().entry(account.clone()).or_default() += 1;
        }
        let now = context.clock.now();
        let scans: Vec<Arc<Progress>> = regions
            .iter()
            .map(|region| Arc::new(Progress::new(region.clone(), accounts.clone(), now)))
            .collect();
        context.scans().extend(scans.iter().map(Arc::downgrade));
        (context, scans)
    }

    /// The values that the documentation names for a label.
    fn documented(metric: &str, label: &str) -> Vec<&'static str> {
        let metric = METRICS
            .iter()
            .find(|one| one.name.strip_prefix(PREFIX) == Some(metric));
        let labels = metric.unwrap().labels.iter();
        let (_, values) = labels.clone().find(|(name, _)| *name == label).unwrap();
        values.split('`').skip(1).step_by(2).collect()
    }

    /// Each answer of the cloud to each API in each region, and one of all else.
    fn count_everything(telemetry: &Telemetry, regions: &[Region]) {
        let took = Duration::from_millis(30);
        for (region, action) in regions
            .iter()
            .flat_map(|region| Action::ALL.map(|one| (region, one)))
        {
            telemetry.count_call(action, region, None, took);
        }
        let (known, typed) = (&regions[0], &regions[REGIONS - 1]);
        let codes = error_table::codes().map(|(code, _)| code);
        for code in codes.chain([TYPED]) {
            for (region, action) in [known, typed]
                .into_iter()
                .flat_map(|region| Action::ALL.map(|one| (region, one)))
            {
                let error = Error::Api(ApiError::of(action, 400, code));
                telemetry.count_call(action, region, Some(&error), took);
            }
        }
        for outcome in documented("reconcile_total", "outcome") {
            telemetry.count_reconcile(outcome, took);
        }
        for result in documented("drifts_total", "result") {
            telemetry.count_drift(result);
        }
        for refused in [None, Some(Some(404)), Some(Some(409)), Some(None)] {
            telemetry.count_status_write(refused);
        }
        telemetry.set_leader(true);
    }

    #[tokio::test]
    async fn fewer_than_2000_series_with_1000_regions_and_10000_accounts() {
        let regions = regions();
        let (context, _scans) = context(&regions);
        let telemetry = Telemetry::default();
        count_everything(&telemetry, &regions);
        let expiries: Vec<(AccountKey, i64)> = (0..ACCOUNTS)
            .map(|number| (cluster_account(number), 1))
            .chain([(namespaced_account(), 1)])
            .collect();
        telemetry.set_source(move || samples(&context, &expiries));
        for openmetrics in [false, true] {
            let text = telemetry.render(openmetrics);
            let series = text.lines().filter(|line| !line.starts_with('#')).count();
            // As many as there can be: what a bound would have cut off is there.
            let bounds = MOST_SERIES - 100..MOST_SERIES;
            assert!(bounds.contains(&series), "{series} series");
            assert!(!text.contains(TYPED), "a label that a tenant has typed");
            let (last, first_without) = (MOST_ACCOUNTS - 1, MOST_ACCOUNTS);
            let of = |number| text.contains(&format!("\"{}\"", cluster_account(number).name));
            assert!(of(last) && !of(first_without));
        }
    }
}
