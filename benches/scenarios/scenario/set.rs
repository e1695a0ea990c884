//! S11 to S17: one set instead of an object for each edge. It selects Nodes of the cluster, or instances by their tags.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use security_group_operator::api::SecurityGroupMembershipSet;
use serde_json::{Value, json};

use super::apply::{costs, ready_line};
use crate::arguments::Candidate;
use crate::bench_run::{BenchRun, TEXTBOOK_PERIOD};
use crate::cluster::{KEY, NAMESPACE};
use crate::load::{self, IN_FLIGHT};
use crate::measure;
use crate::outcome::{Outcome, number, quantile};
use crate::support::error::{Context as _, Error, Result};

/// The set, and the label of the Nodes that it selects.
const SET: &str = "bench";
/// The group of the set, and the one that it changes to.
const GROUPS: [&str; 2] = ["sg-sim0000", "sg-sim0001"];
/// New Nodes of S12, one a second.
const NEW_NODES: u32 = 30;
/// How often a kubelet reports when nothing changes: its `nodeStatusReportFrequency`.
const REPORT_PERIOD: u32 = 300;

/// S11. N Nodes are there; the clock runs from the creation of the set until the last membership is Ready.
pub async fn apply_set(bench: &mut BenchRun) -> Result<Outcome> {
    let n = bench.arguments.n;
    let no_limit = json!({"set": {"membersPerGroup": 1_000_000}});
    bench.cluster.simulator.change(&no_limit).await?;
    create_nodes(bench, 0..n).await?;
    bench.with_sets = true;
    bench.start_candidate(TEXTBOOK_PERIOD).await?;
    let before = bench.before().await?;
    let started = Instant::now();
    let work = async {
        write_set(bench, SET, GROUPS[0], by_nodes(SET), false).await?;
        bench.watch.until_ready(n as usize, bench.patience()).await
    };
    let ((), samples) = bench.sampled(work).await?;
    bench.filled = n;
    bench.until_quiet().await?;
    // The last status of the set comes after the last membership.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let since = bench.since(before).await?;
    let mut outcome = Outcome::default();
    let ready = bench.watch.filter(|_| true);
    let last = ready.iter().filter_map(|(_, seen)| seen.ready).max();
    let last = last.context("no membership is Ready")?;
    outcome.figure(
        "all_ready_s",
        last.saturating_duration_since(started).as_secs_f64(),
    );
    costs(&since, n, &mut outcome);
    outcome.count("set_status_writes", since.writes_of_sets());
    ready_line(&samples, &mut outcome);
    Ok(outcome)
}

/// S12. One new Node a second for half a minute.
pub async fn one_node_per_second(bench: &mut BenchRun) -> Result<Outcome> {
    fill(bench).await?;
    let first = bench.filled;
    let before = bench.before().await?;
    let mut created = HashMap::new();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    for index in first..first + NEW_NODES {
        ticks.tick().await;
        crate::progress::at(&format!("new Node {}", index - first + 1));
        created.insert(load::instance(index), Instant::now());
        create_nodes(bench, index..index + 1).await?;
    }
    bench.filled += NEW_NODES;
    bench
        .watch
        .until_ready(bench.filled as usize, bench.patience())
        .await?;
    let since = bench.since(before).await?;
    let mut took: Vec<f64> = bench
        .watch
        .filter(|_| true)
        .into_iter()
        .filter_map(|(_, seen)| {
            let created = created.get(&seen.instance)?;
            Some(
                seen.ready?
                    .saturating_duration_since(*created)
                    .as_secs_f64()
                    * 1_000.0,
            )
        })
        .collect();
    let mut outcome = Outcome::default();
    outcome.figure("ready_p50_ms", quantile(&mut took, 0.5));
    outcome.figure("ready_p99_ms", quantile(&mut took, 0.99));
    outcome.figure(
        "writes_per_node",
        number(since.writes()) / f64::from(NEW_NODES),
    );
    outcome.raw = since.raw();
    Ok(outcome)
}

/// S13. The set changes its group. The clock runs until every target is in the new group, and no object of the old one is left.
pub async fn change_of_group(bench: &mut BenchRun) -> Result<Outcome> {
    fill(bench).await?;
    let edges = bench.filled;
    bench.cluster.simulator.reset_stats().await?;
    let before = bench.before().await?;
    let started = Instant::now();
    write_set(bench, SET, GROUPS[1], by_nodes(SET), false).await?;
    let what = format!("moved of {edges}");
    let limit = bench.patience() * 2;
    bench
        .watch
        .until(&what, limit, |watch| {
            let is_new = |group: &str| group == GROUPS[1];
            let moved = watch
                .count(|seen| seen.ready.is_some() && seen.gone.is_none() && is_new(&seen.group));
            let left = watch.count(|seen| seen.gone.is_none() && !is_new(&seen.group));
            (moved, moved >= edges as usize && left == 0)
        })
        .await?;
    let seconds = started.elapsed().as_secs_f64();
    bench.until_quiet().await?;
    let since = bench.since(before).await?;
    let mut outcome = Outcome::default();
    outcome.figure("all_changed_s", seconds);
    let accepted = |api| number(since.effects(api)) / f64::from(edges);
    outcome.figure("joins_per_edge", accepted("JoinSecurityGroup"));
    outcome.figure("leaves_per_edge", accepted("LeaveSecurityGroup"));
    outcome.count("gaps", gaps(&bench.cluster.simulator.journal().await?)?);
    outcome.raw = since.raw();
    Ok(outcome)
}

/// Targets that left the old group before they had joined the new one. The journal begins with the oldest change that it still holds:
/// what it has forgotten came before all of it.
fn gaps(journal: &Value) -> Result<u64> {
    let mut left: HashSet<&str> = HashSet::new();
    let mut gaps = 0;
    for entry in journal.as_array().context("a journal is a list")? {
        let target = entry["target"].as_str().context("a target")?;
        match (entry["action"].as_str(), entry["securityGroupId"].as_str()) {
            (Some("LeaveSecurityGroup"), Some(group)) if group == GROUPS[0] => {
                left.insert(target);
            }
            (Some("JoinSecurityGroup"), Some(group)) if group == GROUPS[1] => {
                gaps += u64::from(left.contains(target));
            }
            _ => {}
        }
    }
    Ok(gaps)
}

/// S14. Nothing changes for a minute, and then for a minute in which each Node reports every five minutes.
pub async fn nodes_report(bench: &mut BenchRun) -> Result<Outcome> {
    fill(bench).await?;
    let minute = Duration::from_secs(60);
    let quiet = bench.before().await?;
    tokio::time::sleep(minute).await;
    let quiet = bench.since(quiet).await?;
    let passes = passes(bench).await?;
    let before = bench.before().await?;
    let reports = bench.filled.div_ceil(REPORT_PERIOD / 60);
    let reporting = async {
        let mut ticks = tokio::time::interval(minute / reports);
        for index in 0..reports {
            ticks.tick().await;
            crate::progress::at(&format!("report {} of {reports}", index + 1));
            report(bench, index).await?;
        }
        Ok::<(), Error>(())
    };
    let waiting = async {
        tokio::time::sleep(minute).await;
        Ok(())
    };
    futures::future::try_join(reporting, waiting).await?;
    let since = bench.since(before).await?;
    let mut outcome = Outcome::default();
    if let (Some(before), Some(after)) = (passes, self::passes(bench).await?) {
        outcome.count("passes", after - before);
    }
    outcome.count("writes", since.writes() + since.writes_of_sets());
    let share = |cpu: f64, seconds: f64| 100.0 * cpu / seconds;
    let cpu_percent = share(since.cpu_seconds, since.seconds);
    outcome.figure("cpu_percent", cpu_percent);
    outcome.figure(
        "cpu_percent_more",
        cpu_percent - share(quiet.cpu_seconds, quiet.seconds),
    );
    outcome.raw = since.raw();
    Ok(outcome)
}

/// Only our operator counts its passes.
async fn passes(bench: &mut BenchRun) -> Result<Option<u64>> {
    match bench.candidate {
        Candidate::Ours => bench.passes().await.map(Some),
        Candidate::Textbook | Candidate::Floor => Ok(None),
    }
}

/// S15. Our operator beside N Nodes, before and after a set that selects none of them.
pub async fn memory_of_nodes(bench: &mut BenchRun) -> Result<Outcome> {
    create_nodes(bench, 0..bench.arguments.n).await?;
    bench.start_candidate(TEXTBOOK_PERIOD).await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let before = measure::usage(bench.process()?.pid())?;
    write_set(bench, SET, GROUPS[0], by_nodes("nobody"), false).await?;
    crate::support::eventually::eventually("the set has counted its Nodes", async || {
        let status = sets(bench).get(SET).await?.status;
        Ok(status.is_some_and(|status| status.targets == Some(0)))
    })
    .await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = measure::usage(bench.process()?.pid())?;
    let mut outcome = Outcome::default();
    outcome.figure("resident_mib_without", before.resident_mib);
    outcome.figure("resident_mib", after.resident_mib);
    outcome.figure("more_mib", after.resident_mib - before.resident_mib);
    outcome.figure("peak_mib", after.peak_mib);
    Ok(outcome)
}

/// S16. Killed and restarted; nothing else has changed.
pub async fn restart(bench: &mut BenchRun) -> Result<Outcome> {
    fill(bench).await?;
    bench.process()?.kill();
    let before = bench.before_start().await?;
    let started = Instant::now();
    bench.process()?.restart().await?;
    let quiet = bench.until_quiet().await?;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let since = bench.since(before).await?;
    let mut outcome = Outcome::default();
    outcome.figure(
        "settled_s",
        quiet.saturating_duration_since(started).as_secs_f64(),
    );
    outcome.count("creates_and_deletes", since.creates_and_deletes());
    outcome.count("writes", since.writes() + since.writes_of_sets());
    outcome.count("describes", since.describes());
    outcome.raw = since.raw();
    Ok(outcome)
}

/// S17. Three sets select the same instances by their tags. The minute after it, in which they are suspended, is the measure.
pub async fn same_tags(bench: &mut BenchRun) -> Result<Outcome> {
    let n = bench.arguments.n;
    let tag = |index| json!({"setTags": {"id": load::instance(index), "tags": {"team": SET}}});
    let tags: Vec<Value> = (0..n).map(tag).collect();
    bench.cluster.simulator.change(&json!(tags)).await?;
    let no_limit = json!({"set": {"membersPerGroup": 1_000_000}});
    bench.cluster.simulator.change(&no_limit).await?;
    bench.start_candidate(TEXTBOOK_PERIOD).await?;
    let groups = ["sg-sim0000", "sg-sim0001", "sg-sim0002"];
    let by_tags = || ("instanceTags", json!({"team": SET}));
    for (index, group) in groups.into_iter().enumerate() {
        write_set(bench, &format!("{SET}-{index}"), group, by_tags(), false).await?;
    }
    bench.filled = n * 3;
    let limit = bench.patience() * 2;
    bench
        .watch
        .until_ready(bench.filled as usize, limit)
        .await?;
    bench.until_quiet().await?;
    let minutes = 2;
    let mut with = Outcome::default();
    let period = Duration::from_secs(60 * minutes);
    super::steady::measure_steady(bench, period, &mut with).await?;
    for (index, group) in groups.into_iter().enumerate() {
        write_set(bench, &format!("{SET}-{index}"), group, by_tags(), true).await?;
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let mut without = Outcome::default();
    super::steady::measure_steady(bench, period, &mut without).await?;
    let describes = |outcome: &Outcome| outcome.figures.get("describes_per_minute").copied();
    let (with, without) = (describes(&with), describes(&without));
    let (with, without) = (with.unwrap_or_default(), without.unwrap_or_default());
    let mut outcome = Outcome::default();
    outcome.figure("describes_per_minute", with);
    outcome.figure("describes_per_minute_more", with - without);
    Ok(outcome)
}

/// The set and its N members, unless they are there already.
async fn fill(bench: &mut BenchRun) -> Result<()> {
    if bench.filled == 0 {
        apply_set(bench).await?;
    }
    bench.until_quiet().await?;
    Ok(())
}

/// The selector of the Nodes of a pool: its field and its value.
fn by_nodes(pool: &str) -> (&'static str, Value) {
    ("nodeSelector", json!({"matchLabels": {"pool": pool}}))
}

fn sets(bench: &BenchRun) -> Api<SecurityGroupMembershipSet> {
    Api::namespaced(bench.cluster.client.clone(), NAMESPACE)
}

async fn write_set(
    bench: &BenchRun,
    name: &str,
    group: &str,
    (selector, selected): (&str, Value),
    suspend: bool,
) -> Result<()> {
    let set = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "region": "cn-hangzhou", "accountRef": {"kind": "ClusterCloudAccount", "name": KEY.account},
            "securityGroupID": group, selector: selected, "suspend": suspend,
        },
    });
    let by_us = PatchParams::apply("bench").force();
    sets(bench).patch(name, &by_us, &Patch::Apply(&set)).await?;
    Ok(())
}

/// A Node for each generated instance of these numbers, with as many images and labels as one of ACK has.
async fn create_nodes(bench: &BenchRun, indices: std::ops::Range<u32>) -> Result<()> {
    let nodes: Api<Node> = Api::all(bench.cluster.client.clone());
    crate::progress::at(&format!("Nodes {indices:?}"));
    stream::iter(indices)
        .map(|index| {
            let nodes = nodes.clone();
            async move {
                let node: Node = serde_json::from_value(node(index))?;
                nodes.create(&PostParams::default(), &node).await?;
                Ok(())
            }
        })
        .buffer_unordered(IN_FLIGHT)
        .try_for_each(|()| std::future::ready(Ok(())))
        .await
}

fn node(index: u32) -> Value {
    let instance = load::instance(index);
    let image = |n: u32| {
        json!({
            "names": [format!("registry.example.com/a-team/an-application-{n}@sha256:{:064x}", n)],
            "sizeBytes": 100_000_000,
        })
    };
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {
            "name": format!("node-{index:06}"),
            "labels": {
                "pool": SET, "kubernetes.io/hostname": format!("node-{index:06}"), "kubernetes.io/os": "linux",
                "kubernetes.io/arch": "amd64", "node.kubernetes.io/instance-type": "ecs.g7.xlarge",
                "topology.kubernetes.io/region": "cn-hangzhou", "topology.kubernetes.io/zone": "cn-hangzhou-h",
                "alibabacloud.com/nodepool-id": "np0123456789abcdef0123456789abcdef", "alibabacloud.com/ecs-instance-id": instance,
            },
        },
        "spec": {"providerID": format!("cn-hangzhou.{instance}")},
        "status": {
            "images": (0..50).map(image).collect::<Vec<_>>(),
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
        },
    })
}

/// What a kubelet writes when nothing has changed.
async fn report(bench: &BenchRun, index: u32) -> Result<()> {
    let nodes: Api<Node> = Api::all(bench.cluster.client.clone());
    let heartbeat = json!({"status": {"conditions": [{
        "type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": Timestamp::now().to_string(),
    }]}});
    let name = format!("node-{index:06}");
    nodes
        .patch_status(
            &name,
            &PatchParams::default(),
            &Patch::Strategic(&heartbeat),
        )
        .await?;
    Ok(())
}
