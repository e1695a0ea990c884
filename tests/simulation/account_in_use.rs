//! An account that is deleted while memberships need it, and where an account may be.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api_server::{Call, Verb};
use crate::in_virtual_time;
use crate::monitor::{condition, text};
use crate::scenario::{calls, message, object, ready, seconds, world};
use crate::topology::{ACCOUNTS, CLUSTER, KEYS, OPERATOR_NAMESPACE, TEAMS};
use crate::world::World;

const FINALIZER: &str = "security-group-operator.io/account-in-use";

/// The users of accounts are counted every 5 s.
const A_COUNT: f64 = 7.0;

fn account(world: &World, account: usize) -> Option<Arc<Value>> {
    let account = &ACCOUNTS[account];
    world
        .server
        .object(account.plural, account.namespace, account.name)
}

fn has_finalizer(world: &World, of: usize) -> bool {
    let account = account(world, of).unwrap();
    let finalizers = account["metadata"]["finalizers"].as_array();
    finalizers.is_some_and(|finalizers| finalizers.contains(&json!(FINALIZER)))
}

/// What the account says of who keeps it; empty if it says nothing.
fn in_use(world: &World, of: usize) -> String {
    let account = account(world, of).unwrap();
    condition(&account, "InUse").map_or_else(String::new, |in_use| text(in_use, "/message"))
}

#[test]
fn deleted_account_removes_what_was_joined_and_goes_with_the_last_membership() {
    in_virtual_time(|| async {
        let world = world().await;
        assert!(!has_finalizer(&world, CLUSTER), "nobody uses it");
        world.membership("m", 0, 0, json!({}));
        world.membership("b", 1, 0, json!({}));
        seconds(A_COUNT).await;
        assert!(has_finalizer(&world, CLUSTER));
        assert_eq!(in_use(&world, CLUSTER), "");

        world.account(CLUSTER, false);
        seconds(A_COUNT).await;
        let said = in_use(&world, CLUSTER);
        assert!(
            said.starts_with("memberships that the operator joined with this account: 2;"),
            "{said}"
        );
        assert!(said.contains("spec.deletionPolicy to Retain"), "{said}");
        world.membership("d", 2, 0, json!({}));
        seconds(A_COUNT).await;
        assert_eq!(ready(&world, "d").1, "AccountNotReady");
        assert!(message(&world, "d").contains("it is being deleted"));
        assert_eq!(calls(&world, "JoinSecurityGroup"), 2);

        // More than ten minutes later, too.
        seconds(30.0 * 60.0).await;
        world.delete("m");
        seconds(A_COUNT).await;
        assert!(object(&world, "m").is_none());
        assert_eq!(calls(&world, "LeaveSecurityGroup"), 1);
        assert!(in_use(&world, CLUSTER).contains("this account: 1;"));
        let retains = json!({"spec": {"deletionPolicy": "Retain"}});
        world.user(
            Verb::Merge,
            crate::monitor::MEMBERSHIPS,
            crate::topology::NAMESPACE,
            "b",
            retains,
        );
        seconds(A_COUNT).await;
        assert!(account(&world, CLUSTER).is_none(), "gone");
    });
}

#[test]
fn account_without_a_joined_membership_goes_at_once() {
    in_virtual_time(|| async {
        let world = world().await;
        world.foreign(0, 0, true);
        world.membership("m", 0, 0, json!({}));
        seconds(A_COUNT).await;
        assert_eq!(ready(&world, "m").1, "Adopted");
        assert!(!has_finalizer(&world, CLUSTER));
        world.delete("m");
        seconds(5.0).await;
        world.membership("b", 1, 0, json!({}));
        seconds(A_COUNT).await;
        assert!(has_finalizer(&world, CLUSTER));
        world.delete("b");
        seconds(2.0 * A_COUNT).await;
        assert!(!has_finalizer(&world, CLUSTER), "it is needed no more");
    });
}

#[test]
fn number_of_memberships_is_written_at_most_once_a_minute() {
    in_virtual_time(|| async {
        let world = world().await;
        let said = || account(&world, CLUSTER).unwrap()["status"]["memberships"].clone();
        world.membership("m", 0, 0, json!({}));
        seconds(130.0).await;
        assert_eq!(said(), 1);
        let before = account(&world, CLUSTER).unwrap()["metadata"]["resourceVersion"].clone();
        world.membership("b", 1, 0, json!({}));
        seconds(130.0).await;
        assert_eq!(said(), 2);
        let after = account(&world, CLUSTER).unwrap()["metadata"]["resourceVersion"].clone();
        assert_ne!(before, after);
        seconds(10.0 * 60.0).await;
        assert_eq!(
            account(&world, CLUSTER).unwrap()["metadata"]["resourceVersion"],
            after
        );
    });
}

#[test]
fn account_of_a_tenant_in_the_namespace_of_the_operator_is_refused() {
    in_virtual_time(|| async {
        let world = world().await;
        world.create(
            ACCOUNTS[TEAMS].plural,
            OPERATOR_NAMESPACE,
            json!({"metadata": {"name": "own"}, "spec": {"credentials": {"secretRef": {"name": "key"}}}}),
        );
        seconds(5.0).await;
        let account = world
            .server
            .object(ACCOUNTS[TEAMS].plural, OPERATOR_NAMESPACE, "own")
            .unwrap();
        let ready = condition(&account, "Ready").unwrap();
        assert_eq!(text(ready, "/reason"), "InvalidSpec");
        assert!(text(ready, "/message").contains("create it in the namespace of the memberships"));
    });
}

/// The watch of accounts does not show the finalizer.
#[test]
fn finalizer_is_written_once_while_the_watch_lags() {
    in_virtual_time(|| async {
        let world = world().await;
        world.faults.lose_events("clustercloudaccounts", 100);
        world.faults.record_requests();
        world.membership("m", 0, 0, json!({}));
        seconds(60.0).await;
        assert!(has_finalizer(&world, CLUSTER));
        let writes = |call: &Call| {
            call.kind.plural == "clustercloudaccounts" && call.verb == Verb::Apply && !call.status
        };
        let writes = world.faults.recorded(writes).len();
        assert!(writes <= 2, "{writes} writes");
        // Another key is taken meanwhile.
        world.write_secret(CLUSTER, 1);
        seconds(10.0).await;
        world.cloud(json!({"revokeKey": {"id": KEYS[0].0}}));
        world.membership("late", 1, 0, json!({}));
        seconds(10.0).await;
        assert_eq!(ready(&world, "late").1, "Joined");
    });
}

/// The watch of accounts is silent while the finalizer is taken off, and the store is put back to the moment before. The account has the
/// version that this process knows.
#[test]
fn account_that_was_let_go_in_silence_and_is_put_back_is_let_go_again() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(A_COUNT).await;
        world.account(CLUSTER, false);
        seconds(A_COUNT).await;
        // Its status tells who keeps it, and changes no more.
        seconds(120.0).await;
        assert!(has_finalizer(&world, CLUSTER));
        let silence = Duration::from_secs(100);
        let began = Instant::now();
        world.silence(ACCOUNTS[CLUSTER].plural, silence, false);
        world.delete("m");
        let mut before_the_end = 0;
        while account(&world, CLUSTER).is_some() {
            before_the_end = world.server.state().revision;
            seconds(0.01).await;
        }
        assert!(began.elapsed() < silence, "{:?}", began.elapsed());
        assert!(object(&world, "m").is_none());
        let newest = world.server.state().revision;
        world.put_back(newest - before_the_end);
        assert!(has_finalizer(&world, CLUSTER), "as it was before");
        seconds(300.0).await;
        assert!(account(&world, CLUSTER).is_none(), "gone");
    });
}
