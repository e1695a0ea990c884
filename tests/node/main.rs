//! The operator as pods of a real kubelet: the image, the chart and the Lease where users run them. One cluster of one node, which
//! `tests/node/node` starts, and one test, step by step: a start costs 20 s. Where no node can run, the test says so and is skipped.
//!
//! Each step ends with the same judgement: every membership is Ready and says that the operator joined it, and by the journal of the
//! simulated cloud each was joined once, and none was left. Times are printed, not judged.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    missing_docs,
    reason = "a test"
)]

mod cluster;
mod operator;
#[path = "../support/mod.rs"]
mod support;

use std::time::{Duration, Instant};

use serde_json::json;

use cluster::{Cluster, Process};
use operator::{Operator, TOKEN_FOLDER, restarts};
use support::error::{Error, Result};

/// Memberships that are created at the moment of a fault.
const BURST: usize = 10;

#[tokio::test]
async fn operator_keeps_its_promises_as_a_pod() -> Result<()> {
    let Some(cluster) = Cluster::start("promises").await? else {
        return Ok(());
    };
    let operator = Operator::new(&cluster);
    pod_is_restricted(&operator).await?;
    tokens_of_a_service_account_are_credentials(&operator).await?;
    operator.account("key", &operator.key().await?).await?;
    operator.create("first").await?;
    operator.all_are_joined().await?;
    cluster.helm(&["test"])?;
    set_joins_the_instances_of_its_nodes(&operator).await?;
    rollout_waits_for_a_join(&operator).await?;
    operator.scale(2).await?;
    for fault in [
        Fault::Deleted,
        Fault::OutOfMemory,
        Fault::CutOff,
        Fault::Frozen,
    ] {
        other_takes_over(&operator, fault).await?;
    }
    uninstall_is_refused_while_memberships_exist(&operator).await?;
    what_is_deleted_leaves(&operator).await?;
    uninstall_ends(&operator).await
}

/// The kubelet replaces a token when 80% of its time have passed, and the API server refuses the old one at the end of it.
#[tokio::test]
#[ignore = "the shortest token lasts 10 minutes: make test-node ROTATION=1"]
async fn operator_goes_on_with_the_next_token_of_its_service_account() -> Result<()> {
    let Some(cluster) = Cluster::start("rotation").await? else {
        return Ok(());
    };
    let operator = Operator::new(&cluster);
    operator.account("key", &operator.key().await?).await?;
    operator.shorten_tokens().await?;
    let pod = operator.only_pod().await?;
    let token = format!("root{TOKEN_FOLDER}/token");
    let process = Process::of(&pod)?;
    let first = process.read(&token)?;
    tokio::time::sleep(Duration::from_secs(660)).await;
    assert_ne!(process.read(&token)?, first);
    let said = operator.try_token(&first).await?;
    assert!(said.contains("Unauthorized"), "{said}");
    operator.create("after").await?;
    operator.all_are_joined().await?;
    let now = operator.only_pod().await?;
    assert_eq!(
        (now.metadata.uid.clone(), restarts(&now)),
        (pod.metadata.uid.clone(), 0)
    );
    Ok(())
}

/// What the namespace refuses, and what the kernel says of the process.
async fn pod_is_restricted(operator: &Operator<'_>) -> Result<()> {
    let said = operator.try_privileged_pod().await?;
    assert!(said.contains("PodSecurity \"restricted"), "{said}");
    let process = Process::of(&operator.only_pod().await?)?;
    let status = process.read("status")?;
    for line in [
        "Uid:\t65532\t65532\t65532\t65532",
        "CapBnd:\t0000000000000000",
        "NoNewPrivs:\t1",
        "Seccomp:\t2",
    ] {
        assert!(status.contains(line), "no {line:?} in {status}");
    }
    let mounts = process.read("mounts")?;
    let root = mounts.lines().find(|line| line.starts_with("overlay / "));
    assert!(root.is_some_and(|line| line.contains(" ro,")), "{mounts}");
    Ok(())
}

/// RRSA: the operator's own pod requests the token, with the rights of the manual.
async fn tokens_of_a_service_account_are_credentials(operator: &Operator<'_>) -> Result<()> {
    let credentials = operator.trust_service_account("membership").await?;
    operator.account("rrsa", &credentials).await?;
    operator.create_with("token", "rrsa").await?;
    operator.all_are_joined().await
}

/// The Nodes are plain objects beside the real one, which has no instance and is not selected. The memberships of the set take part in
/// every step that follows.
async fn set_joins_the_instances_of_its_nodes(operator: &Operator<'_>) -> Result<()> {
    let since = Instant::now();
    for name in ["blue", "green"] {
        operator.create_node(name).await?;
    }
    operator.create_set("pool").await?;
    operator.until_set_has("pool", 2).await?;
    println!("a set of two Nodes is Ready after {:?}", since.elapsed());
    operator.all_are_joined().await
}

/// The old pod ends when its call has ended; the new one joins before that, and takes the old one's Join for nobody else's.
async fn rollout_waits_for_a_join(operator: &Operator<'_>) -> Result<()> {
    let slow = json!({"action": "JoinSecurityGroup", "target": "i-slow", "count": 1, "fault": {"latency": "20s"}});
    operator.cluster.tell_cloud("/faults", &slow).await?;
    operator.create("slow").await?;
    operator.until_no_fault_is_left().await?;
    let since = Instant::now();
    let old = operator.only_pod().await?;
    operator.restart().await?;
    operator.until_leader_is_not(&old).await?;
    operator.create("beside").await?;
    operator.until_ready("beside").await?;
    println!("rollout: a new object is Ready after {:?}", since.elapsed());
    operator.until_gone(&old).await?;
    println!("rollout: the old pod is gone after {:?}", since.elapsed());
    operator.all_are_joined().await
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    Deleted,
    OutOfMemory,
    CutOff,
    Frozen,
}

/// Two pods, and what happens to the one that leads, in the middle of its work.
async fn other_takes_over(operator: &Operator<'_>, fault: Fault) -> Result<()> {
    let cluster = operator.cluster;
    let leader = operator.leader().await?;
    let process = Process::of(&leader)?;
    let veth = process.veth(cluster)?;
    let name = |n: usize| format!("{fault:?}{n}").to_lowercase();
    for n in 0..BURST / 2 {
        operator.create(&name(n)).await?;
    }
    let since = Instant::now();
    match fault {
        Fault::Deleted => operator.delete(&leader).await?,
        Fault::OutOfMemory => process.run_out_of_memory(cluster),
        Fault::CutOff => cluster
            .run(&["ip", "link", "set", &veth, "down"])
            .map(drop)?,
        Fault::Frozen => process.freeze()?,
    }
    for n in BURST / 2..BURST {
        operator.create(&name(n)).await?;
    }
    operator.until_leader_is_not(&leader).await?;
    println!("{fault:?}: another one leads after {:?}", since.elapsed());
    operator.all_are_joined().await?;
    println!("{fault:?}: all are Ready after {:?}", since.elapsed());
    match fault {
        Fault::Deleted => operator.until_gone(&leader).await?,
        Fault::OutOfMemory => operator.until_restarted(&leader, "OOMKilled").await?,
        // It ends by itself when its calls have ended, and says until then that it is ready.
        Fault::CutOff => {
            cluster.run(&["ip", "link", "set", &veth, "up"])?;
            operator.until_restarted(&leader, "Error").await?;
        }
        // By the liveness probe, with SIGKILL.
        Fault::Frozen => operator.until_restarted(&leader, "Error").await?,
    }
    operator.until_available(2).await?;
    println!(
        "{fault:?}: two pods are available after {:?}",
        since.elapsed()
    );
    operator.all_are_joined().await
}

/// The Job of the hook runs, fails, and its log says why. The operator goes on.
async fn uninstall_is_refused_while_memberships_exist(operator: &Operator<'_>) -> Result<()> {
    let since = Instant::now();
    let refused = operator.cluster.helm(&["uninstall"]);
    let said = refused.map_or_else(|error| error.to_string(), |said| said + " (no error)");
    println!("uninstall is refused after {:?}", since.elapsed());
    for part in ["Error: ", "memberships that need the operator: "] {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    operator.create("still").await?;
    operator.all_are_joined().await
}

/// Nothing is left of the release but the CRDs.
async fn uninstall_ends(operator: &Operator<'_>) -> Result<()> {
    let since = Instant::now();
    operator.cluster.helm(&["uninstall"])?;
    println!("uninstall: {:?}", since.elapsed());
    operator.until_no_pod_is_left().await?;
    operator.has_no_membership().await
}

/// Each membership is left once, and nothing else is.
async fn what_is_deleted_leaves(operator: &Operator<'_>) -> Result<()> {
    let since = Instant::now();
    let joined = operator.journal("JoinSecurityGroup").await?;
    operator.delete_all().await?;
    println!("all are gone after {:?}", since.elapsed());
    let left = operator.journal("LeaveSecurityGroup").await?;
    if left == joined {
        return Ok(());
    }
    Err(Error::new(format!("joined {joined:?}, and left {left:?}")))
}
