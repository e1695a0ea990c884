//! Deletions on a real API server: what many of them cost, and an object that is deleted in the moment in which it is being joined.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::StreamExt as _;
use kube::ResourceExt as _;
use kube::api::{ListParams, WatchEvent, WatchParams};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use security_group_operator::api::FINALIZER;
use serde_json::json;
use tokio::time::MissedTickBehavior;

use crate::OnlyOperator;
use crate::support::bulk::{EDGES, all_ready, apply, inventory};
use crate::support::env::TestEnv;
use crate::support::error::{Error, Result};
use crate::support::eventually::eventually;

/// Requests of the user in flight.
const AT_ONCE: usize = 8;

/// Each deletion is seen at once, or an earlier release proves that the view is fresh: then there is no list. On a machine that is so
/// loaded that the watch lags for 2 s each Leave needs one, and one more if it then waits for its turn as long. In virtual time there is
/// no list at all: `simulation/views::many_deletions_cost_no_list`.
#[tokio::test]
async fn many_deletions_cost_few_lists_on_a_loaded_machine() -> Result<()> {
    let operator = OnlyOperator::start(&["--scan-period=1h"]).await?;
    let env = operator.env(&inventory("{}")).await?;
    apply(&env, 0..EDGES).await?;
    all_ready(&env, 0..EDGES).await?;
    // Earlier tests on the same API server have listed as well.
    let before = edge_lists(&operator)?;
    let deletions = (0..EDGES).map(|n| {
        let name = format!("edge-{n:04}");
        let env = &env;
        async move { env.delete(&name).await }
    });
    // As many at a time as the operator writes: 300 at once take a loaded machine longer than a view may be old.
    let mut deletions = futures::stream::iter(deletions).buffer_unordered(AT_ONCE);
    while let Some(deleted) = deletions.next().await {
        deleted?;
    }
    drop(deletions);
    eventually("all are gone", async || {
        Ok(env
            .memberships()
            .list(&ListParams::default())
            .await?
            .items
            .is_empty())
    })
    .await?;
    assert_eq!(env.calls("LeaveSecurityGroup").await?, EDGES as u64);
    let lists = edge_lists(&operator)? - before;
    println!("{lists} lists for {EDGES} deletions");
    assert!(lists <= 2 * EDGES, "{lists} lists for {EDGES} deletions");
    Ok(())
}

/// Lists of the objects on one edge.
fn edge_lists(operator: &OnlyOperator) -> Result<usize> {
    let selected =
        |uri: &str| uri.contains("securitygroupmemberships?") && uri.contains("fieldSelector");
    let events = operator.plane.audit_events()?;
    Ok(events.iter().filter(|event| selected(&event.uri)).count())
}

/// How often an object is created and deleted, until enough of them went in the moment of their claim.
const TRIES: usize = 2_400;
const ENOUGH: usize = 3;
/// From one try to the next. A read soon after another one waits for more, and the claim would come after the deletion.
const PACE: Duration = Duration::from_millis(300);

/// F6: without a version to compare, the API server removes an object that gets its finalizer just then, as if it had none.
#[tokio::test]
async fn nothing_is_left_of_objects_deleted_in_the_moment_of_their_claim() -> Result<()> {
    let operator = OnlyOperator::start(&["--scan-period=1h"]).await?;
    let env = operator.env(&inventory("{}")).await?;
    let met = Arc::new(AtomicUsize::new(0));
    let watching = tokio::spawn(count_unreleased(env.memberships(), Arc::clone(&met)));
    create_and_delete(&env, &met).await?;
    let count = met.load(Ordering::SeqCst);
    println!("{count} objects were deleted in the moment of their claim");
    if count < ENOUGH {
        return Err(Error::new(format!("only {count} in {TRIES} tries")));
    }
    eventually("nothing is left", async || {
        let objects = env.memberships().list(&ListParams::default()).await?;
        let state = env.simulator.state().await?;
        Ok(objects.items.is_empty() && !state["instances"].to_string().contains("sg-web"))
    })
    .await?;
    watching.abort();
    Ok(())
}

async fn create_and_delete(env: &TestEnv, met: &AtomicUsize) -> Result<()> {
    let mut random = StdRng::seed_from_u64(0);
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for number in 0..TRIES {
        if met.load(Ordering::SeqCst) >= ENOUGH {
            break;
        }
        pace.tick().await;
        let name = format!("race-{number}");
        let target = format!("i-{:04}", number % 100);
        env.apply(&name, &target, "sg-web", json!({})).await?;
        tokio::time::sleep(Duration::from_millis(random.random_range(0..80))).await;
        env.delete(&name).await?;
    }
    Ok(())
}

/// Counts the objects that went with the operator's finalizer on them and without a `deletionTimestamp`.
async fn count_unreleased(
    memberships: kube::Api<security_group_operator::api::SecurityGroupMembership>,
    met: Arc<AtomicUsize>,
) -> Result<()> {
    let mut events = memberships
        .watch(&WatchParams::default(), "0")
        .await?
        .boxed();
    while let Some(event) = events.next().await {
        if let WatchEvent::Deleted(object) = event?
            && object.metadata.deletion_timestamp.is_none()
            && object.finalizers().iter().any(|name| name == FINALIZER)
        {
            met.fetch_add(1, Ordering::SeqCst);
        }
    }
    Ok(())
}
