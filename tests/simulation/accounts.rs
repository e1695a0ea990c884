//! What an account says of its key while key, Secret and API server change: each a small scenario.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::api_server::Verb;
use crate::in_virtual_time;
use crate::monitor::{MEMBERSHIPS, condition, text};
use crate::scenario::{add_fault, calls, claimed, message, object, ready, seconds, world};
use crate::topology::{
    self, ACCOUNTS, CLUSTER, KEYS, NAMESPACE, TEAMS, name_own_account, secret_data,
};
use crate::world::{SimOptions, World};

/// The longest that the operator goes without a look at a Secret that it does not watch, and a little.
const A_LOOK: f64 = 62.0;

/// Status, reason and message of an account's Ready.
fn account(world: &World, account: usize) -> (String, String, String) {
    of_account(world, account, "Ready")
}

/// Status, reason and message of an account's Reachable.
fn reachable(world: &World, account: usize) -> (String, String, String) {
    of_account(world, account, "Reachable")
}

fn of_account(world: &World, account: usize, type_: &str) -> (String, String, String) {
    let account = &ACCOUNTS[account];
    let object = world
        .server
        .object(account.plural, account.namespace, account.name)
        .unwrap();
    let condition = condition(&object, type_).unwrap();
    (
        text(condition, "/status"),
        text(condition, "/reason"),
        text(condition, "/message"),
    )
}

fn own() -> Value {
    json!({"accountRef": {"kind": "CloudAccount", "name": "own"}})
}

#[test]
fn corrected_secret_is_used_within_a_minute() {
    in_virtual_time(|| async {
        let world = world().await;
        let wrong = json!({
            "accessKeyID": STANDARD.encode(KEYS[0].0), "accessKeySecret": STANDARD.encode("mistyped"),
        });
        world.user(
            Verb::Apply,
            "secrets",
            ACCOUNTS[TEAMS].secret_namespace,
            "key",
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "data": wrong}),
        );
        world.account(TEAMS, true);
        world.membership("m", 0, 0, own());
        seconds(1.0).await;
        let (status, reason, message) = account(&world, TEAMS);
        assert_eq!((&*status, &*reason), ("False", "SignatureDoesNotMatch"));
        for part in ["accessKeySecret", "; next try in 5m (backs off to 30m)"] {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
        // Blocked: asked again after 5, 10, 20 and 30 minutes, while the Secret is looked at every minute.
        world.simulator.reset_stats();
        seconds(70.0 * 60.0).await;
        assert_eq!(calls(&world, "GetCallerIdentity"), 4);
        assert_eq!(ready(&world, "m").1, "AccountNotReady");

        world.write_secret(TEAMS, 0);
        seconds(A_LOOK).await;
        assert_eq!(account(&world, TEAMS).1, "CredentialsAccepted");
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn revoked_key_makes_the_account_not_ready() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        assert_eq!(ready(&world, "m").1, "Joined");
        world.cloud(json!({"revokeKey": {"id": KEYS[0].0}}));
        world.membership("late", 1, 0, json!({}));
        seconds(1.0).await;
        let (status, reason, _) = account(&world, CLUSTER);
        assert_eq!(
            (&*status, &*reason),
            ("False", "InvalidAccessKeyIdInactive")
        );
        assert_eq!(ready(&world, "late").1, "AccountNotReady");
        assert_eq!(ready(&world, "m").1, "AccountNotReady");

        world.cloud(json!({"activateKey": {"id": KEYS[0].0}}));
        seconds(30.0 * 60.0).await;
        assert_eq!(account(&world, CLUSTER).1, "CredentialsAccepted");
        for name in ["m", "late"] {
            assert_eq!(
                ready(&world, name),
                ("True".to_owned(), "Joined".to_owned())
            );
        }
    });
}

#[test]
fn key_accepted_by_sts_is_checked_once_and_kept() {
    in_virtual_time(|| async {
        let world = world().await;
        let before = account(&world, CLUSTER);
        add_fault(
            &world,
            "DescribeInstances",
            1,
            &json!({"error": {"code": "InvalidAccessKeyId.Inactive"}}),
        );
        world.simulator.reset_stats();
        world.membership("m", 0, 0, json!({}));
        seconds(20.0 * 60.0).await;
        assert_eq!(calls(&world, "GetCallerIdentity"), 1);
        assert_eq!(account(&world, CLUSTER), before);
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn secret_read_error_keeps_account_ready() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        let before = account(&world, CLUSTER);
        world.simulator.reset_stats();
        world.faults.refuse_secrets(3);
        seconds(10.0 * 60.0).await;
        assert_eq!(account(&world, CLUSTER), before);
        assert_eq!(calls(&world, "GetCallerIdentity"), 0);
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn failed_status_writes_cause_no_call_storm() {
    in_virtual_time(|| async {
        let world = world().await;
        world.simulator.reset_stats();
        world.faults.refuse_status_writes(usize::MAX);
        world.account(CLUSTER, false);
        world.account(CLUSTER, true);
        seconds(30.0 * 60.0).await;
        let asked = calls(&world, "GetCallerIdentity");
        assert!((30..=40).contains(&asked), "once a minute: {asked} calls");
    });
}

#[test]
fn account_whose_status_cannot_be_written_wakes_nobody() {
    in_virtual_time(|| async {
        let world = world().await;
        for target in 0..2 {
            // The account may go without them.
            let retain = json!({"deletionPolicy": "Retain"});
            world.membership(&format!("m{target}"), target, 0, retain);
        }
        seconds(100.0).await;
        world.faults.refuse_status_writes(usize::MAX);
        world.account(CLUSTER, false);
        world.account(CLUSTER, true);
        seconds(10.0).await;
        world.simulator.reset_stats();
        seconds(600.0).await;
        assert_eq!(calls(&world, "DescribeInstances"), 10, "ten scans");
        let asked = calls(&world, "GetCallerIdentity");
        assert!((10..=13).contains(&asked), "one a minute: {asked}");
    });
}

#[test]
fn rotated_key_wakes_no_ready_membership() {
    in_virtual_time(|| async {
        let world = world().await;
        for target in 0..2 {
            world.membership(&format!("m{target}"), target, 0, json!({}));
        }
        seconds(100.0).await;
        let minutes = 10;
        let run = |rotated: bool| {
            let world = &world;
            async move {
                world.simulator.reset_stats();
                let before = world.server.state().revision;
                for minute in 0..minutes {
                    if rotated {
                        // Two keys of one cloud account.
                        world.write_secret(CLUSTER, usize::try_from(minute + 1).unwrap() % 2);
                    }
                    seconds(60.0).await;
                }
                (
                    calls(world, "DescribeInstances"),
                    calls(world, "GetCallerIdentity"),
                    world.server.state().revision - before,
                )
            }
        };
        let (reads, identities, _) = run(false).await;
        assert_eq!(identities, 0);
        let (rotated_reads, identities, revisions) = run(true).await;
        assert_eq!(identities, minutes, "one per rotation");
        assert_eq!(rotated_reads, reads);
        assert_eq!(revisions, minutes, "the Secret's own");
        for target in 0..2 {
            let name = format!("m{target}");
            assert_eq!(
                ready(&world, &name),
                ("True".to_owned(), "Joined".to_owned())
            );
        }
    });
}

#[test]
fn new_key_is_tried_at_once_by_what_the_old_one_failed() {
    in_virtual_time(|| async {
        let world = world().await;
        let deny = json!({"action": "ecs:JoinSecurityGroup", "resource": "*"});
        world.cloud(json!({"deny": {"id": KEYS[0].0, "deny": [deny]}}));
        world.membership("m", 0, 0, json!({}));
        seconds(60.0).await;
        assert_eq!(ready(&world, "m").1, "ForbiddenRAM");
        world.write_secret(CLUSTER, 1);
        seconds(5.0).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
    });
}

#[test]
fn learned_limit_outlives_keys_and_edits_of_grants() {
    in_virtual_time(|| async {
        let world = world().await;
        world.cloud(json!({"set": {"limits": {"JoinSecurityGroup": 30}}}));
        for number in 0..90 {
            let id = format!("i-bulk{number}");
            let instance = json!({"id": id, "securityGroupIds": ["sg-base"], "status": "Running"});
            world.cloud(json!({"createInstance": instance}));
            let spec =
                json!({"region": "cn-hangzhou", "instanceID": id, "securityGroupID": "sg-a"});
            let object = json!({"metadata": {"name": id}, "spec": spec});
            world.create(MEMBERSHIPS, NAMESPACE, object);
        }
        seconds(61.0).await;
        let rejected = || {
            let joins = &world.simulator.stats()["calls"]["JoinSecurityGroup"];
            joins
                .as_object()
                .unwrap()
                .iter()
                .filter(|(code, _)| *code != "OK")
                .map(|(_, count)| count.as_u64().unwrap())
                .sum::<u64>()
        };
        let before = rejected();
        for second in 0..12 {
            world.write_secret(CLUSTER, second % 2);
            world.grant(second % 2 == 1);
            seconds(10.0).await;
        }
        let rejected = rejected() - before;
        assert!(rejected <= 2, "{rejected} rejected in two minutes");
    });
}

#[test]
fn conflict_delays_the_account_status_by_seconds_only() {
    in_virtual_time(|| async {
        let world = world().await;
        // Empties one of the two values.
        let write = |id: &str, secret: &str| {
            let data = json!({
                "accessKeyID": STANDARD.encode(id), "accessKeySecret": STANDARD.encode(secret),
            });
            world.user(
                Verb::Apply,
                "secrets",
                ACCOUNTS[CLUSTER].secret_namespace,
                "key",
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "data": data}),
            );
        };
        for attempt in 0..5 {
            for (id, secret, problem) in [
                ("", "a", "accessKeyID is empty"),
                ("a", "", "accessKeySecret is empty"),
            ] {
                // The watch lags behind the operator's own last write: the API server answers the next one with 409.
                world.faults.refuse_status_writes(1);
                write(id, secret);
                seconds(5.0).await;
                let message = account(&world, CLUSTER).2;
                assert!(message.contains(problem), "{attempt}: {message}");
            }
        }
    });
}

#[test]
fn hanging_account_does_not_delay_other_accounts() {
    in_virtual_time(|| async {
        let world = world().await;
        world.write_secret(TEAMS, 2);
        world.account(TEAMS, true);
        seconds(1.0).await;
        let silent =
            json!({"action": "DescribeInstances", "accessKey": KEYS[2].0, "fault": "silence"});
        world
            .simulator
            .add_fault(serde_json::from_value(silent).unwrap());
        for name in ["a", "b", "c"] {
            world.membership(name, 0, 0, own());
        }
        seconds(1.0).await;
        world.membership("m", 0, 0, json!({}));
        seconds(1.0).await;
        assert_eq!(ready(&world, "m"), ("True".to_owned(), "Joined".to_owned()));
        seconds(40.0).await;
        let object = crate::scenario::object(&world, "a").unwrap();
        let message = text(condition(&object, "Ready").unwrap(), "/message");
        assert!(
            message.contains("no complete answer within 10 s"),
            "{message}"
        );
        // Not reachable after three scan periods, and not before; its key is as good as it was, and the other account too.
        assert_eq!(reachable(&world, TEAMS).1, "Answering");
        seconds(10.0 * 60.0).await;
        let (status, reason, message) = reachable(&world, TEAMS);
        assert_eq!((&*status, &*reason), ("False", "NoAnswer"));
        assert!(
            message.starts_with("no usable answer from ecs") && message.contains("within 10 s"),
            "{message}"
        );
        assert_eq!(account(&world, TEAMS).1, "CredentialsAccepted");
        assert_eq!(reachable(&world, CLUSTER).1, "Answering");
    });
}

#[test]
fn unreadable_account_is_not_ready_and_grants_nothing() {
    in_virtual_time(|| async {
        let world = world().await;
        let grants = |ids: Value| {
            let grant = json!({"name": "all", "namespaces": {"names": ["team"]}, "securityGroups": {"ids": ids}});
            let spec = json!({"spec": {"grants": [grant]}});
            world.user(
                Verb::Merge,
                ACCOUNTS[CLUSTER].plural,
                "",
                ACCOUNTS[CLUSTER].name,
                spec,
            );
        };
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        grants(json!("of another version"));
        world.membership("late", 1, 0, json!({}));
        seconds(5.0).await;
        for name in ["m", "late"] {
            let object = crate::scenario::object(&world, name).unwrap();
            let ready = condition(&object, "Ready").unwrap();
            assert_eq!(ready["reason"], "AccountNotReady");
            let message = text(ready, "/message");
            assert!(
                message.contains("cannot read it: spec.grants[0].securityGroups.ids"),
                "{message}"
            );
        }
        assert!(!world.is_member("i-1", "sg-a"));
        grants(json!(["*"]));
        seconds(5.0).await;
        for name in ["m", "late"] {
            assert_eq!(
                ready(&world, name),
                ("True".to_owned(), "Joined".to_owned())
            );
        }
    });
}

#[test]
fn wrong_clock_is_one_problem_of_the_account() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("before", 0, 0, json!({}));
        seconds(5.0).await;
        let expired = json!({"fault": {"error": {"code": "InvalidTimeStamp.Expired"}}});
        let expired = serde_json::from_value(expired).unwrap();
        world.simulator.set_faults(vec![expired]);
        world.membership("while", 1, 0, json!({}));
        seconds(A_LOOK).await;
        for _ in 0..10 {
            let (status, reason, message) = account(&world, CLUSTER);
            assert_eq!((&*status, &*reason), ("False", "InvalidTimeStampExpired"));
            for part in ["clock", "; next try in 1m"] {
                assert!(message.contains(part), "no {part:?} in: {message}");
            }
            // Nothing is known to have changed.
            assert_eq!(
                ready(&world, "before"),
                ("True".to_owned(), "Joined".to_owned())
            );
            assert_eq!(ready(&world, "while").1, "AccountNotReady");
            for name in ["before", "while"] {
                let object = crate::scenario::object(&world, name).unwrap();
                assert!(condition(&object, "Stalled").is_none(), "{object:#}");
            }
            world.simulator.reset_stats();
            seconds(60.0).await;
            let asked = calls(&world, "GetCallerIdentity");
            assert_eq!(asked, 1);
            let used = ["DescribeInstances", "JoinSecurityGroup"].map(|call| calls(&world, call));
            assert_eq!(used, [0, 0]);
        }
        world.simulator.set_faults(Vec::new());
        seconds(A_LOOK).await;
        assert_eq!(account(&world, CLUSTER).1, "CredentialsAccepted");
        assert_eq!(
            ready(&world, "while"),
            ("True".to_owned(), "Joined".to_owned())
        );
    });
}

/// An administrator deletes the account, and the finalizer of another controller keeps it.
#[test]
fn account_that_is_being_deleted_serves_deletions_and_refuses_joins() {
    for restarted in [false, true] {
        in_virtual_time(|| async move {
            let mut world = world().await;
            for (name, target) in [("m", 0), ("stays", 1)] {
                world.membership(name, target, 0, json!({}));
            }
            seconds(5.0).await;
            let account = &ACCOUNTS[CLUSTER];
            let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
            let of_account = |verb, body| {
                world.user(verb, account.plural, account.namespace, account.name, body);
            };
            of_account(Verb::Merge, hold);
            of_account(Verb::Delete, Value::Null);
            seconds(1.0).await;
            if restarted {
                world.restart_all();
                seconds(5.0).await;
            }
            // It is examined as any other: a deletion needs its key.
            assert_eq!(self::account(&world, CLUSTER).1, "CredentialsAccepted");
            assert_eq!(ready(&world, "stays").1, "AccountNotReady");
            assert!(message(&world, "stays").contains("is being deleted"));
            world.membership("new", 2, 0, json!({}));
            seconds(5.0).await;
            assert_eq!(ready(&world, "new").1, "AccountNotReady");
            assert_eq!(calls(&world, "JoinSecurityGroup"), 2);
            for name in ["m", "stays", "new"] {
                world.delete(name);
            }
            seconds(20.0).await;
            assert!(world.objects().is_empty(), "{:#?}", world.objects());
            assert!(!world.is_member("i-0", "sg-a") && !world.is_member("i-1", "sg-a"));
            assert_eq!(world.monitor.violations(), [""; 0]);
        });
    }
}

/// The operator starts, and one of two accounts is accepted 8 s later than the other. The deletion of `m`, which has joined, waits
/// for the account of `second`.
async fn start_with_a_slow_check(adopts: bool) -> World {
    let mut world = World::new(SimOptions {
        own_accounts: true,
        ..SimOptions::default()
    });
    world.write_secret(CLUSTER, 1);
    world.start(None);
    seconds(11.0).await;
    let mut own = json!({});
    name_own_account(&mut own);
    world.membership("m", 0, 0, own);
    seconds(11.0).await;
    if adopts {
        world.membership("second", 0, 0, json!({}));
        seconds(11.0).await;
    }
    world.kill(0);
    if !adopts {
        world.membership("second", 0, 0, json!({}));
    }
    world.delete("m");
    let slow = json!({
        "accessKey": KEYS[1].0, "action": "GetCallerIdentity", "fault": {"latency": "8s"},
    });
    world
        .simulator
        .add_fault(serde_json::from_value(slow).unwrap());
    world.start(None);
    seconds(2.0).await;
    assert_eq!(calls(&world, "LeaveSecurityGroup"), 0, "{adopts}");
    world
}

#[test]
fn object_of_an_account_that_is_checked_for_the_first_time_is_waited_for() {
    for adopts in [false, true] {
        in_virtual_time(|| async move {
            let world = start_with_a_slow_check(adopts).await;
            seconds(11.0).await;
            assert_eq!(object(&world, "m"), None, "{adopts}");
            assert_eq!(calls(&world, "LeaveSecurityGroup"), 0, "{adopts}");
            let second = object(&world, "second").unwrap();
            assert_eq!(claimed(&second), "Joined", "{adopts}");
        });
    }
}

#[test]
fn object_that_goes_while_its_account_is_checked_is_waited_for_no_more() {
    in_virtual_time(|| async {
        let world = start_with_a_slow_check(false).await;
        world.delete("second");
        seconds(4.0).await;
        assert_eq!(object(&world, "m"), None);
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

/// An administrator gives the account other credentials and other grants in one edit. STS is slow.
#[test]
fn what_an_edit_grants_is_used_with_the_credentials_of_that_edit_only() {
    in_virtual_time(|| async {
        let world = world().await;
        world.grant(false);
        world.membership("m", 0, 0, json!({}));
        write_second_secret(&world, 2);
        let slow = json!({"accessKey": KEYS[2].0, "action": "GetCallerIdentity", "fault": {"latency": "8s"}});
        let slow = serde_json::from_value(slow).unwrap();
        world.simulator.add_fault(slow);
        seconds(5.0).await;
        assert_eq!(ready(&world, "m").1, "NotGranted");
        let grants = json!([{
            "name": "all", "namespaces": {"names": [NAMESPACE]}, "securityGroups": {"ids": ["*"]},
        }]);
        edit_account(
            &world,
            json!({"credentials": {"secretRef": {"name": "second"}}, "grants": grants}),
        );
        seconds(60.0).await;
        // The key is one of another cloud account, which has no such target.
        assert_eq!(ready(&world, "m").1, "TargetNotFound");
        assert_eq!(calls(&world, "JoinSecurityGroup"), 0);
        assert!(!world.is_member("i-0", "sg-a"));
    });
}

/// The account gets another key of the same cloud account, in another Secret.
#[test]
fn other_credentials_of_the_same_cloud_account_change_nothing_for_ready_objects() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        write_second_secret(&world, 1);
        seconds(5.0).await;
        let status = || object(&world, "m").unwrap()["status"].clone();
        let before = status();
        world.simulator.reset_stats();
        edit_account(
            &world,
            json!({"credentials": {"secretRef": {"name": "second"}}}),
        );
        seconds(30.0).await;
        world.cloud(json!({"revokeKey": {"id": KEYS[0].0}}));
        world.membership("late", 1, 0, json!({}));
        seconds(120.0).await;
        assert_eq!(status(), before);
        assert_eq!(ready(&world, "late").1, "Joined");
        assert_eq!(calls(&world, "GetCallerIdentity"), 1);
    });
}

/// The watch shows two edits at once: other credentials, and the former ones again.
#[test]
fn credentials_that_are_put_back_before_their_check_are_checked_again() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        write_second_secret(&world, 1);
        seconds(5.0).await;
        world.hold_back_events(0, Duration::from_secs(20));
        for name in ["second", "key"] {
            edit_account(
                &world,
                json!({"credentials": {"secretRef": {"name": name}}}),
            );
        }
        seconds(60.0).await;
        world.membership("late", 1, 0, json!({}));
        seconds(10.0).await;
        assert_eq!(ready(&world, "late").1, "Joined");
        world.foreign(0, 0, false);
        seconds(70.0).await;
        assert!(world.is_member("i-0", "sg-a"));
    });
}

/// Neither grants, limits nor labels are part of the key.
#[test]
fn edit_that_leaves_the_key_as_it_is_needs_no_answer_of_sts() {
    in_virtual_time(|| async {
        let world = world().await;
        world.membership("m", 0, 0, json!({}));
        seconds(5.0).await;
        world.simulator.reset_stats();
        world.faults.silence_hosts(&["sts.test"]);
        let _ = world.faults.take_called_hosts();
        edit_account(&world, json!({"limits": {"JoinSecurityGroup": 500}}));
        let secret = &ACCOUNTS[CLUSTER];
        let label = json!({"metadata": {"labels": {"team": "web"}}});
        world.user(
            Verb::Merge,
            "secrets",
            secret.secret_namespace,
            "key",
            label,
        );
        seconds(60.0).await;
        world.membership("late", 1, 0, json!({}));
        seconds(60.0).await;
        assert_eq!(account(&world, CLUSTER).1, "CredentialsAccepted");
        assert_eq!(ready(&world, "late").1, "Joined");
        assert!(!world.faults.take_called_hosts().contains_key("sts.test"));
        let account = &ACCOUNTS[CLUSTER];
        let object = world
            .server
            .object(account.plural, account.namespace, account.name);
        let object = object.unwrap();
        let generation = &object["metadata"]["generation"];
        assert_eq!(&object["status"]["observedGeneration"], generation);
        let ready = condition(&object, "Ready").unwrap();
        assert_eq!(&ready["observedGeneration"], generation);
    });
}

/// A Secret `second` beside that of the cluster's account, with this key.
fn write_second_secret(world: &World, key: usize) {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "second"}, "data": secret_data(key),
    });
    let namespace = ACCOUNTS[CLUSTER].secret_namespace;
    world.user(Verb::Apply, "secrets", namespace, "second", secret);
}

fn edit_account(world: &World, spec: Value) {
    let account = &ACCOUNTS[CLUSTER];
    world.user(
        Verb::Merge,
        account.plural,
        account.namespace,
        account.name,
        json!({"spec": spec}),
    );
    world.monitor.upheaval();
}

/// A request ten times a second for half a minute, or another Secret each 700 ms. The last change counts.
#[test]
fn user_who_changes_an_account_all_the_time_causes_one_question_to_sts_per_second() {
    let request = |moment: u32| {
        let asked =
            json!({"security-group-operator.io/reconcile-requested-at": moment.to_string()});
        json!({"metadata": {"annotations": asked}})
    };
    let credentials = |moment: u32| {
        let name = ["key", "other"][moment as usize / 7 % 2];
        json!({"spec": {"credentials": {"secretRef": {"name": name}}}})
    };
    for change in [request as fn(u32) -> Value, credentials] {
        in_virtual_time(|| async move {
            let world = world().await;
            world.membership("m", 0, 0, json!({}));
            seconds(5.0).await;
            let topology::AccountObject {
                plural,
                namespace,
                name,
                secret_namespace,
            } = ACCOUNTS[CLUSTER];
            let secret = json!({
                "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "other"}, "data": secret_data(0),
            });
            world.user(Verb::Apply, "secrets", secret_namespace, "other", secret);
            let before = calls(&world, "GetCallerIdentity");
            for moment in 0..=300 {
                world.user(Verb::Merge, plural, namespace, name, change(moment));
                seconds(0.1).await;
            }
            let asked = calls(&world, "GetCallerIdentity") - before;
            assert!((10..=32).contains(&asked), "{asked} questions in 30 s");
            seconds(5.0).await;
            let object = world.server.object(plural, namespace, name).unwrap();
            let handled = &object["status"]["lastHandledReconcileAt"];
            assert!(handled.is_null() || handled == "300", "{handled}");
            assert_eq!(account(&world, CLUSTER).1, "CredentialsAccepted");
            seconds(70.0).await;
            assert_eq!(ready(&world, "m").1, "Joined");
        });
    }
}
