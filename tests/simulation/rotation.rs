//! The key is replaced while a thousand Joins wait for their turn, and while nothing happens.

use serde_json::{Value, json};
use tokio::time::Instant;

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::scenario::{calls, ready, seconds, world};
use crate::topology::{ACCOUNTS, CLUSTER, KEYS, NAMESPACE, TEAMS};
use crate::world::World;

const MANY: usize = 1_000;

/// Creates instances and a membership for each.
fn many_memberships(world: &World, account: &Value) {
    for number in 0..MANY {
        let id = format!("i-bulk{number}");
        let instance = json!({"id": id, "securityGroupIds": ["sg-base"], "status": "Running"});
        world.cloud(json!({"createInstance": instance}));
        let spec = json!({"region": "cn-hangzhou", "instanceID": id, "securityGroupID": "sg-a", "accountRef": account});
        let object = json!({"metadata": {"name": id}, "spec": spec});
        world.create(MEMBERSHIPS, NAMESPACE, object);
    }
}

/// The reasons of all objects that are not Ready.
fn unready(world: &World) -> Vec<String> {
    let objects = world.objects();
    let conditions = objects
        .iter()
        .filter_map(|object| condition(object, "Ready"));
    let unready = conditions.filter(|ready| ready["status"] != "True");
    unready.map(|ready| text(ready, "/reason")).collect()
}

/// How many calls may begin with a disabled key after its first refusal has arrived.
const AFTER_REFUSAL: u64 = 5;

/// How long a changed Secret may go unseen, in seconds: the operator watches those of its own namespace, and reads others again.
const SEEN_WITHIN: [(usize, f64); 2] = [(CLUSTER, 10.0), (TEAMS, 60.0)];

#[test]
fn key_is_replaced_and_revoked_while_a_thousand_joins_wait() {
    for (account, named) in [
        (CLUSTER, json!({})),
        (TEAMS, json!({"kind": "CloudAccount", "name": "own"})),
    ] {
        in_virtual_time(move || async move {
            let world = world().await;
            world.write_secret(TEAMS, 0);
            world.account(TEAMS, true);
            seconds(1.0).await;
            world.cloud(json!({"set": {"limits": {"JoinSecurityGroup": 600}}}));
            many_memberships(&world, &named);
            seconds(5.0).await;
            let joined = calls(&world, "JoinSecurityGroup");
            assert!(
                (1..MANY as u64).contains(&joined),
                "{joined} Joins before the rotation"
            );
            world.write_secret(account, 1);
            world.cloud(json!({"revokeKey": {"id": KEYS[0].0}}));
            seconds(300.0).await;
            assert_eq!(unready(&world), Vec::<String>::new());
            let keys = world.faults.key_use();
            println!(
                "account {account}: {} calls with the disabled key, {} of them began after its first refusal had arrived",
                keys.refusals, keys.began_after_refusal
            );
            assert!(keys.began_after_refusal <= AFTER_REFUSAL, "{keys:?}");
        });
    }
}

#[test]
fn changed_secret_is_seen_in_time_while_its_old_key_still_works() {
    for (account, limit) in SEEN_WITHIN {
        in_virtual_time(move || async move {
            let world = world().await;
            world.write_secret(TEAMS, 0);
            world.account(TEAMS, true);
            seconds(75.0).await;
            let first = |key: usize| world.faults.key_use().first_calls.get(KEYS[key].0).copied();
            assert_eq!(first(1), None);
            world.write_secret(account, 1);
            let written = Instant::now();
            seconds(75.0).await;
            let seen = first(1).expect("a call with the new key") - written;
            println!("account {account}: the first call with the new key began after {seen:?}");
            assert!(seen.as_secs_f64() <= limit, "{seen:?}");
        });
    }
}

#[test]
fn refused_key_of_a_namespace_is_read_again_at_once() {
    in_virtual_time(|| async {
        let world = world().await;
        world.write_secret(TEAMS, 0);
        world.account(TEAMS, true);
        let own = json!({"accountRef": {"kind": "CloudAccount", "name": "own"}});
        world.membership("m", 0, 0, own.clone());
        seconds(70.0).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        // The operator may not watch this Secret, and has just read it.
        world.write_secret(TEAMS, 1);
        world.cloud(json!({"revokeKey": {"id": KEYS[0].0}}));
        world.membership("b", 1, 0, own);
        seconds(5.0).await;
        assert_eq!(ready(&world, "b"), ("True".to_owned(), "Joined".to_owned()));
        assert_eq!(world.faults.key_use().began_after_refusal, 0);
        assert_eq!(world.faults.key_use().refusals, 1);
    });
}

#[test]
fn secret_that_is_gone_for_less_than_ten_seconds_changes_nothing_and_joins_nothing() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        let account = || {
            let account = &ACCOUNTS[CLUSTER];
            world
                .server
                .object(account.plural, account.namespace, account.name)
                .unwrap()["status"]
                .clone()
        };
        let before = account();
        let namespace = ACCOUNTS[CLUSTER].secret_namespace;
        world.user(Verb::Delete, "secrets", namespace, "key", Value::Null);
        seconds(0.5).await;
        world.membership("b", 1, 0, json!({}));
        seconds(8.0).await;
        assert_eq!(calls(&world, "JoinSecurityGroup"), 1);
        assert_eq!(account(), before);
        assert_eq!(ready(&world, "m").1, "Joined");
        world.write_secret(CLUSTER, 0);
        seconds(2.0).await;
        assert_eq!(ready(&world, "b").1, "Joined");
        assert_eq!(account(), before);

        world.user(Verb::Delete, "secrets", namespace, "key", Value::Null);
        seconds(13.0).await;
        let ready = account()["conditions"][0].clone();
        assert_eq!(ready["reason"], "SecretNotFound", "{ready}");
    });
}
