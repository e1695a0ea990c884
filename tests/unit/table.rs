//! Which object names which edge: the table keeps what the newest view says, names no object twice, and keeps nothing of a
//! deleted object.

#![expect(clippy::unwrap_used, reason = "a test ends at its first surprise")]
#![expect(
    clippy::redundant_closure_for_method_calls,
    reason = "the type of a history has no name outside of the crate"
)]

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use security_group_operator::account::key::{AccountKey, AccountRegion};
use security_group_operator::api::SecurityGroupMembership;
use security_group_operator::api::membership::{AccountKind, ErrorClass};
use security_group_operator::ecs::{AccountUid, Edge, Target, TargetDescription, TargetState};
use security_group_operator::kubernetes::ObjectUid;
use security_group_operator::membership::ledger::{EdgeCall, Effect};
use security_group_operator::membership::observation::{CLOUD_READ_LAG, Observation};
use security_group_operator::membership::table::{ObjectTable, ObjectView};
use security_group_operator::watched::Unreadable;
use serde_json::{Value, json};

/// An object with this UID and name on this edge, made at `second`, as of `version`.
fn object(uid: &str, instance: &str, second: u32, version: u64) -> SecurityGroupMembership {
    serde_json::from_value(json!({
        "apiVersion": "security-group-operator.io/v1alpha1",
        "kind": "SecurityGroupMembership",
        "metadata": {
            "name": uid, "namespace": "team", "uid": uid, "resourceVersion": version.to_string(),
            "creationTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
        },
        "spec": {
            "region": "cn-hangzhou", "instanceID": instance, "securityGroupID": "sg-1",
            "accountRef": {"name": "default"},
        },
    }))
    .unwrap()
}

/// Gives the object our finalizer and the record that the operator has joined its edge.
fn hold(object: &mut SecurityGroupMembership) {
    object.metadata.finalizers = Some(vec!["security-group-operator.io/membership".to_owned()]);
    let status = json!({
        "origin": "Joined", "objectUID": object.metadata.uid, "accountUID": "1000000000000001",
    });
    object.status = Some(serde_json::from_value(status).unwrap());
}

fn uid(text: &str) -> ObjectUid {
    text.into()
}

fn edge(instance: &str) -> Edge {
    Edge::try_from(&object("x", instance, 0, 1).spec).unwrap()
}

fn target(instance: &str) -> Target {
    Target::Instance(instance.parse().unwrap())
}

fn account() -> AccountKey {
    AccountKey {
        kind: AccountKind::ClusterCloudAccount,
        namespace: String::new(),
        name: "default".to_owned(),
    }
}

fn account_region() -> AccountRegion {
    AccountRegion {
        account: account(),
        region: "cn-hangzhou".parse().unwrap(),
    }
}

fn names(
    objects: impl IntoIterator<Item = kube::runtime::reflector::ObjectRef<SecurityGroupMembership>>,
) -> Vec<String> {
    let mut names: Vec<String> = objects.into_iter().map(|object| object.name).collect();
    names.sort();
    names
}

fn on(table: &ObjectTable, instance: &str) -> Vec<String> {
    table
        .others(&edge(instance), &uid("nobody"))
        .iter()
        .map(|record| record.uid.as_str().to_owned())
        .collect()
}

/// Gives the object our finalizer and the intent to join, as this or another process writes them.
fn intend(object: &mut SecurityGroupMembership) {
    object.metadata.finalizers = Some(vec!["security-group-operator.io/membership".to_owned()]);
    let uid = object.metadata.uid.clone();
    let intent =
        json!({"origin": "Joined", "accountUID": "1000000000000001", "uid": uid}).to_string();
    let intent = ("security-group-operator.io/intent".to_owned(), intent);
    object.metadata.annotations = Some([intent].into());
}

#[tokio::test(start_paused = true)]
async fn intent_that_neither_this_process_nor_one_before_it_wrote_is_of_another_operator() {
    let table = ObjectTable::default();
    let mut seen = object("a", "i-1", 0, 1);
    table.insert(&seen);
    intend(&mut seen);
    assert!(!table.shows_foreign_intent(&seen), "of the process before");
    tokio::time::advance(Duration::from_secs(61)).await;
    assert!(table.shows_foreign_intent(&seen));
    let mut copy = object("b", "i-1", 0, 1);
    table.insert(&copy);
    copy.metadata
        .annotations
        .clone_from(&seen.metadata.annotations);
    assert!(
        !table.shows_foreign_intent(&copy),
        "it names another object"
    );
    table.begins_to_act(true);
    tokio::time::advance(Duration::from_secs(70 + 59)).await;
    assert!(!table.shows_foreign_intent(&seen), "of the leader before");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert_eq!(
        table.history(&uid("a"), |history| history.intends()),
        Some(true)
    );
    assert!(!table.shows_foreign_intent(&seen), "of this process");
    assert!(
        !table.first_intent_was_late(&uid("a")),
        "the watch shows no other one yet"
    );
    assert!(table.shows_foreign_intent(&seen));
    seen.metadata.resource_version = Some("2".to_owned());
    table.insert(&seen);
    assert_eq!(
        table.history(&uid("a"), |history| history.intends()),
        Some(true)
    );
    assert!(
        table.first_intent_was_late(&uid("a")),
        "the other one came first"
    );
}

#[test]
fn others_on_an_edge_are_sorted_by_age_then_uid() {
    let table = ObjectTable::default();
    for (uid, second) in [("c", 2), ("b", 1), ("a", 2), ("d", 0)] {
        table.insert(&object(uid, "i-1", second, 1));
    }
    table.insert(&object("e", "i-2", 0, 1));
    assert_eq!(on(&table, "i-1"), ["d", "b", "a", "c"]);
    let others = table.others(&edge("i-1"), &uid("b"));
    assert!(others.iter().all(|record| record.uid.as_str() != "b"));
    assert_eq!(others.len(), 3);
}

#[test]
fn only_a_newer_view_moves_an_object() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 5));
    table.insert(&object("a", "i-2", 0, 4));
    assert_eq!((on(&table, "i-1").len(), on(&table, "i-2").len()), (1, 0));
    assert_eq!(table.known_version(&uid("a")), Some(5));
    table.insert(&object("a", "i-2", 0, 6));
    assert_eq!((on(&table, "i-1").len(), on(&table, "i-2").len()), (0, 1));
    assert_eq!(table.known_version(&uid("a")), Some(6));
    assert_eq!(
        table.last_target(&account_region()),
        Some((1, target("i-2")))
    );
}

#[test]
fn newer_view_updates_claim_policy_and_deletion() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 1));
    assert_eq!(names(table.deleting()), [""; 0]);
    let mut going = object("a", "i-1", 0, 2);
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    hold(&mut going);
    going.spec.management_policy = serde_json::from_value(json!("Observe")).unwrap();
    table.insert(&going);
    assert_eq!(names(table.deleting()), ["a"]);
    let record = table.others(&edge("i-1"), &uid("")).remove(0);
    assert!(record.claim.is_some() && !record.managed && record.deleting);
}

#[test]
fn changed_account_ref_moves_the_object() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 1));
    let mut swapped = object("a", "i-1", 0, 2);
    swapped.spec.account_ref.name = "second".to_owned();
    table.insert(&swapped);
    let second = AccountKey {
        name: "second".to_owned(),
        ..account()
    };
    assert_eq!(names(table.of_account(&account())), [""; 0]);
    assert_eq!(names(table.of_account(&second)), ["a"]);
    assert_eq!(on(&table, "i-1"), ["a"]);
}

#[test]
fn each_account_and_region_that_objects_name_is_listed_once() {
    let table = ObjectTable::default();
    assert_eq!(table.account_regions(), []);
    table.insert(&object("a", "i-1", 0, 1));
    table.insert(&object("b", "i-2", 0, 1));
    let mut elsewhere = object("c", "i-3", 0, 1);
    elsewhere.spec.region = "cn-beijing".to_owned();
    table.insert(&elsewhere);
    let beijing = AccountRegion {
        region: "cn-beijing".parse().unwrap(),
        ..account_region()
    };
    let mut listed = table.account_regions();
    listed.sort_by(|a, b| a.region.cmp(&b.region));
    assert_eq!(listed, [beijing, account_region()]);
}

#[test]
fn removed_object_leaves_nothing_in_the_table() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 1));
    table.insert(&object("b", "i-1", 0, 1));
    table.remove(&uid("a"));
    assert_eq!(on(&table, "i-1"), ["b"]);
    assert_eq!(table.account_regions(), [account_region()]);
    let gone = table.all_but(|record| record.uid.as_str() != "b");
    assert_eq!(uids(&gone), [uid("b")]);
    table.remove(&uid("b"));
    assert!(on(&table, "i-1").is_empty() && table.account_regions().is_empty());
    assert_eq!(table.last_target(&account_region()), None);
    assert_eq!(names(table.of_account(&account())), [""; 0]);
    assert_eq!(table.known_version(&uid("b")), None);
}

#[test]
fn own_write_updates_but_never_restores_an_object() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 1));
    table.written(&object("a", "i-1", 0, 2));
    assert_eq!(table.known_version(&uid("a")), Some(2));
    table.remove(&uid("a"));
    table.written(&object("a", "i-1", 0, 3));
    assert!(on(&table, "i-1").is_empty() && table.account_regions().is_empty());
}

#[test]
fn objects_are_found_by_account_and_by_namespace() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 1));
    let mut elsewhere = object("b", "i-2", 0, 1);
    elsewhere.metadata.namespace = Some("other".to_owned());
    elsewhere.spec.account_ref.name = "second".to_owned();
    table.insert(&elsewhere);
    assert_eq!(names(table.of_account(&account())), ["a"]);
    assert_eq!(names(table.in_namespace("team")), ["a"]);
    assert_eq!(names(table.in_namespace("other")), ["b"]);
}

#[test]
fn targets_come_in_ordered_batches_each_once() {
    let table = ObjectTable::default();
    for (uid, instance) in [("a", "i-3"), ("b", "i-1"), ("c", "i-2"), ("d", "i-1")] {
        table.insert(&object(uid, instance, 0, 1));
    }
    let (count, last) = table.last_target(&account_region()).unwrap();
    assert_eq!((count, &last), (3, &target("i-3")));
    // A later one is for the next time.
    table.insert(&object("e", "i-4", 0, 1));
    let block = |after: Option<&str>| {
        let after = after.map(target);
        table.targets_between(&account_region(), after.as_ref(), &last, 2)
    };
    assert_eq!(block(None), [target("i-1"), target("i-2")]);
    assert_eq!(block(Some("i-2")), [target("i-3")]);
    assert_eq!(block(Some("i-3")), []);
    assert_eq!(block(Some("i-4")), []);
}

#[test]
fn user_change_triggers_once_and_own_writes_never() {
    let table = ObjectTable::default();
    assert!(
        table.mark_triggered(&uid("a"), 1, 4),
        "names no edge: looked at whenever it changes"
    );
    table.insert(&object("a", "i-1", 0, 1));
    assert!(table.mark_triggered(&uid("a"), 1, 4));
    assert!(!table.mark_triggered(&uid("a"), 1, 4));
    table.insert(&object("a", "i-1", 0, 2));
    assert!(!table.mark_triggered(&uid("a"), 1, 4), "a write of ours");
    table.insert(&object("a", "i-2", 0, 3));
    assert!(table.mark_triggered(&uid("a"), 2, 4));
    table.remove(&uid("a"));
    table.insert(&object("a", "i-2", 0, 4));
    assert!(table.mark_triggered(&uid("a"), 2, 4), "it was away");
}

#[test]
fn awaited_view_triggers_once() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 5));
    assert!(table.mark_triggered(&uid("a"), 1, 5));
    table.history(&uid("a"), |history| history.await_watch());
    assert!(!table.mark_triggered(&uid("a"), 1, 4), "older than known");
    assert!(table.mark_triggered(&uid("a"), 1, 5));
    assert!(!table.mark_triggered(&uid("a"), 1, 6));
}

fn seen(state: TargetState, groups: &[&str]) -> TargetDescription {
    TargetDescription {
        state,
        vpc_id: None,
        lock_reasons: Vec::new(),
        security_group_ids: groups
            .iter()
            .map(|group| group.parse().unwrap())
            .collect::<BTreeSet<_>>(),
        service_managed: false,
        primary: false,
        karpenter: false,
        tags: security_group_operator::ecs::Tags::default(),
    }
}

fn changed(table: &ObjectTable, found: Option<TargetDescription>) -> Vec<String> {
    let found: HashMap<_, _> = found
        .map(|found| (target("i-1"), found))
        .into_iter()
        .collect();
    names(table.changed(&account_region(), &[target("i-1")], &found))
}

#[tokio::test(start_paused = true)]
async fn scan_requeues_changed_objects_after_the_read_lag() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 1));
    let member = || Some(seen(TargetState::Running, &["sg-1"]));
    assert_eq!(changed(&table, None), [""; 0], "no pass has looked yet");
    table.history(&uid("a"), |history| {
        history.record_observation(Some(Observation::of(member().as_ref(), |_| true)));
    });
    assert_eq!(
        changed(&table, None),
        [""; 0],
        "the answer may lag behind the pass"
    );
    tokio::time::advance(CLOUD_READ_LAG).await;
    assert_eq!(changed(&table, member()), [""; 0]);
    assert_eq!(changed(&table, None), ["a"], "the target is gone");
    assert_eq!(
        changed(&table, Some(seen(TargetState::Running, &[]))),
        ["a"],
        "somebody left"
    );
    assert_eq!(
        changed(&table, Some(seen(TargetState::Stopping, &["sg-1"]))),
        ["a"]
    );
    table.history(&uid("a"), |history| history.record_observation(None));
    assert_eq!(changed(&table, None), [""; 0]);
}

#[tokio::test(start_paused = true)]
async fn observation_is_fresh_only_while_confirmed() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 1));
    let member = || Some(seen(TargetState::Running, &["sg-1"]));
    let observation = Observation::of(member().as_ref(), |_| true);
    let age = Duration::from_secs(60);
    table.history(&uid("a"), |history| {
        history.record_observation(Some(observation));
    });
    tokio::time::advance(age).await;
    assert_eq!(
        table
            .history(&uid("a"), |history| history.fresh_observation(age))
            .flatten(),
        Some(observation)
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(
        table
            .history(&uid("a"), |history| history.fresh_observation(age))
            .flatten(),
        None
    );
    changed(&table, member());
    assert_eq!(
        table
            .history(&uid("a"), |history| history.fresh_observation(age))
            .flatten(),
        Some(observation)
    );
    changed(&table, None);
    assert_eq!(
        table
            .history(&uid("a"), |history| history.fresh_observation(age))
            .flatten(),
        None,
        "stale"
    );
    changed(&table, member());
    assert_eq!(
        table
            .history(&uid("a"), |history| history.fresh_observation(age))
            .flatten(),
        Some(observation)
    );
}

#[tokio::test(start_paused = true)]
async fn foreign_status_is_requeued_once_after_the_lag() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 1));
    table.compare_watched_status(&uid("a"), || 2);
    tokio::time::advance(CLOUD_READ_LAG).await;
    assert_eq!(
        names(table.foreign_statuses()),
        [""; 0],
        "we have said nothing yet"
    );
    table.history(&uid("a"), |history| history.record_written_status(1));
    table.compare_watched_status(&uid("a"), || 2);
    assert_eq!(
        names(table.foreign_statuses()),
        [""; 0],
        "it may be an older one of ours"
    );
    tokio::time::advance(CLOUD_READ_LAG).await;
    assert_eq!(names(table.foreign_statuses()), ["a"]);
    assert_eq!(names(table.foreign_statuses()), [""; 0], "once");
    table.compare_watched_status(&uid("a"), || 2);
    table.compare_watched_status(&uid("a"), || 1);
    tokio::time::advance(CLOUD_READ_LAG).await;
    assert_eq!(
        names(table.foreign_statuses()),
        [""; 0],
        "the watch has caught up"
    );
    table.compare_watched_status(&uid("a"), || 2);
    table.history(&uid("a"), |history| history.record_written_status(2));
    tokio::time::advance(CLOUD_READ_LAG).await;
    assert_eq!(names(table.foreign_statuses()), [""; 0], "said anew");
    table.compare_watched_status(&uid("a"), || 3);
    table.remove(&uid("a"));
    tokio::time::advance(CLOUD_READ_LAG).await;
    assert_eq!(names(table.foreign_statuses()), [""; 0], "gone");
}

#[test]
fn table_returns_the_siblings_to_requeue() {
    let table = ObjectTable::default();
    let claimed = |uid: &str, version| {
        let mut object = object(uid, "i-1", 0, version);
        hold(&mut object);
        object
    };
    let concerned = |object: &SecurityGroupMembership| names(table.insert(object));
    assert_eq!(concerned(&claimed("a", 1)), [""; 0]);
    assert_eq!(concerned(&object("far", "i-2", 0, 1)), [""; 0]);
    // A newcomer is a successor for who goes, and nothing to who stays.
    assert_eq!(concerned(&object("b", "i-1", 0, 1)), [""; 0]);
    let mut going = claimed("a", 2);
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    assert_eq!(concerned(&going), [""; 0], "its own pass tells them");
    assert_eq!(concerned(&object("c", "i-1", 0, 1)), ["a"]);
    // Who does not write to the cloud any more holds nothing.
    let mut watching = claimed("b", 2);
    watching.spec.management_policy = serde_json::from_value(json!("Observe")).unwrap();
    assert_eq!(concerned(&watching), ["a", "c"]);
    assert_eq!(concerned(&watching), [""; 0]);
    // A finalizer that was removed from an owner, and an older view that has none.
    assert_eq!(concerned(&claimed("c", 5)), [""; 0]);
    assert_eq!(concerned(&object("c", "i-1", 0, 4)), [""; 0]);
    let mut replaced = claimed("c", 6);
    replaced.metadata.finalizers = None;
    assert_eq!(concerned(&replaced), ["a", "b", "c"]);
    // An object without a record has let go of the edge before it is deleted.
    assert_eq!(concerned(&object("c", "i-1", 0, 7)), [""; 0]);
    assert_eq!(names(table.remove(&uid("c"))), [""; 0]);
    assert_eq!(names(table.remove(&uid("a"))), ["b"]);
    assert_eq!(names(table.remove(&uid("nobody"))), [""; 0]);
}

#[test]
fn scan_reads_only_targets_described_before() {
    let table = ObjectTable::default();
    table.insert(&object("a", "i-1", 0, 1));
    table.insert(&object("b", "i-2", 0, 1));
    table.history(&uid("b"), |history| {
        history.record_observation(Some(Observation::Absent));
    });
    let block = [target("i-1"), target("i-2"), target("i-3")];
    assert_eq!(table.seen(&account_region(), &block), [target("i-2")]);
    table.history(&uid("b"), |history| history.record_observation(None));
    assert_eq!(table.seen(&account_region(), &block), []);
}

fn uids(views: &[ObjectView]) -> Vec<ObjectUid> {
    views.iter().map(|view| view.uid.clone()).collect()
}

/// Whether the history has not reported drift yet; `None` for an unknown object.
fn report(table: &ObjectTable, uid: &ObjectUid) -> Option<bool> {
    table.history(uid, |history| history.first_report_of_drift())
}

#[tokio::test(start_paused = true)]
async fn history_goes_with_the_object_and_nothing_brings_it_back() {
    let table = ObjectTable::default();
    let readable = object("a", "i-1", 0, 1);
    table.insert(&readable);
    table.insert_unreadable(&illegible(object("b", "i-1", 0, 1)));
    for uid in [uid("a"), uid("b")] {
        assert_eq!(report(&table, &uid), Some(true));
        assert_eq!(report(&table, &uid), Some(false));
        table.remove(&uid);
        assert_eq!(report(&table, &uid), None);
        assert_eq!(table.known_version(&uid), None);
    }
    table.insert(&readable);
    assert_eq!(report(&table, &uid("a")), Some(true));
}

/// An object that this version cannot read, with this spec.
fn unreadable(object: SecurityGroupMembership, spec: Value) -> Unreadable {
    Unreadable {
        error: String::new(),
        spec,
        status: serde_json::to_value(&object.status).unwrap(),
        metadata: object.metadata,
    }
}

/// An object of which this version can read the metadata only.
fn illegible(object: SecurityGroupMembership) -> Unreadable {
    unreadable(object, Value::Null)
}

#[test]
fn unreadable_object_is_on_its_edge_as_far_as_it_can_be_read() {
    let table = ObjectTable::default();
    let spec = |field: &str, value: Value| {
        let mut spec = serde_json::to_value(object("a", "i-1", 0, 1).spec).unwrap();
        spec[field] = value;
        spec
    };
    for (field, value) in [
        ("driftPolicy", json!("Ask")),
        ("managementPolicy", json!(7)),
        ("deletionPolicy", Value::Null),
        ("suspend", json!("yes")),
    ] {
        let object = unreadable(object("a", "i-1", 0, 1), spec(field, value));
        table.insert_unreadable(&object);
        let others = table.others(&edge("i-1"), &uid("b"));
        let views: Vec<_> = others
            .iter()
            .map(|view| (view.readable, view.managed))
            .collect();
        assert_eq!(views, [(false, true)], "{field}");
        table.remove(&uid("a"));
    }
    for (field, value) in [
        ("region", json!("")),
        ("instanceID", json!(7)),
        ("securityGroupID", json!("web")),
        ("accountRef", json!({"kind": "Secret"})),
    ] {
        let object = unreadable(object("a", "i-1", 0, 1), spec(field, value));
        table.insert_unreadable(&object);
        assert!(on(&table, "i-1").is_empty(), "{field}");
        table.remove(&uid("a"));
    }
    table.insert(&object("a", "i-1", 0, 1));
    let mut going = object("a", "i-1", 0, 2);
    going.metadata.deletion_timestamp = going.metadata.creation_timestamp.clone();
    table.insert_unreadable(&illegible(going));
    assert!(table.others(&edge("i-1"), &uid("b"))[0].deleting);
}

#[test]
fn unreadable_object_keeps_the_view_and_history_it_had() {
    let table = ObjectTable::default();
    table.insert_unreadable(&illegible(object("a", "i-1", 0, 1)));
    assert!(on(&table, "i-1").is_empty() && table.of_account(&account()).is_empty());
    assert_eq!(report(&table, &uid("a")), Some(true));
    table.insert(&object("a", "i-1", 0, 2));
    table.insert_unreadable(&illegible(object("a", "i-1", 0, 3)));
    assert_eq!(on(&table, "i-1"), ["a"]);
    assert_eq!(report(&table, &uid("a")), Some(false));
    let gone = table.all_but(|_| false);
    assert_eq!(uids(&gone), [uid("a")]);
}

#[test]
fn tally_tells_what_the_statuses_say_and_since_when() {
    let table = ObjectTable::default();
    let told = |uid: &str, second, version, ready: &str, class: Option<&str>| {
        let mut object = object(uid, &format!("i-{uid}"), second, version);
        let mut status = json!({"conditions": [{
            "type": "Ready", "status": ready, "reason": "R", "message": "m",
            "lastTransitionTime": format!("2026-01-01T00:01:{second:02}Z"),
        }]});
        if let Some(class) = class {
            status["lastError"] = json!({"action": "Join", "class": class, "code": "C", "message": "m", "time": "2026-01-01T00:01:00Z"});
        }
        object.status = Some(serde_json::from_value(status).unwrap());
        object
    };
    table.insert(&object("new", "i-new", 7, 1));
    table.insert(&told("ready", 1, 1, "True", None));
    table.insert(&told("absent", 2, 1, "False", Some("Absent")));
    let mut suspended = told("suspended", 0, 1, "False", Some("Absent"));
    suspended.spec.suspend = true;
    table.insert(&suspended);
    let mut deleting = told("deleting", 3, 1, "False", None);
    deleting.metadata.deletion_timestamp =
        Some(serde_json::from_value(json!("2026-01-01T00:02:00Z")).unwrap());
    table.insert(&deleting);
    let start = 1_767_225_600;
    let tally = table.tally();
    assert_eq!(tally.deleting_since, Some(start + 120));
    assert_eq!(tally.unready_since.len(), 2);
    assert_eq!(tally.unready_since.get(&None), Some(&(start + 7)));
    let absent = Some(ErrorClass::Absent);
    assert_eq!(tally.unready_since.get(&absent), Some(&(start + 62)));
    let counts: HashMap<_, _> = tally.counts.into_iter().collect();
    let count = |ready, class| counts.get(&(Some(account()), ready, class)).copied();
    assert_eq!(count(None, None), Some(1));
    assert_eq!(count(Some(true), None), Some(1));
    assert_eq!(count(Some(false), absent), Some(2));
    assert_eq!(count(Some(false), None), Some(1));
    // Another reason not to be Ready does not begin anew; to be Ready ends it.
    table.insert(&told("new", 30, 2, "False", Some("Blocked")));
    let blocked = Some(ErrorClass::Blocked);
    let since = table.tally().unready_since;
    assert_eq!(since.get(&blocked), Some(&(start + 7)));
    table.insert(&told("new", 40, 3, "True", None));
    table.insert(&told("new", 50, 4, "False", Some("Blocked")));
    let since = table.tally().unready_since;
    assert_eq!(since.get(&blocked), Some(&(start + 110)));
}

fn account_uid() -> AccountUid {
    "1000000000000001".into()
}

/// F6: only what is there, or may be, and what its policies do not keep.
#[tokio::test(start_paused = true)]
async fn object_gone_in_the_moment_of_its_claim_is_kept_while_something_of_ours_may_be_there() {
    let table = ObjectTable::default();
    let kept = |change: &dyn Fn(&mut SecurityGroupMembership)| {
        let mut object = object("a", "i-1", 0, 1);
        hold(&mut object);
        change(&mut object);
        table.insert(&object);
        table.keep_unreleased(&object)
    };
    assert!(kept(&|_| {}));
    table.remove(&uid("a"));
    assert!(!kept(&|object| object.spec.suspend = true), "suspended");
    table.remove(&uid("a"));
    // A read that counts does not show the membership.
    tokio::time::advance(CLOUD_READ_LAG).await;
    let mut seen_missing = object("a", "i-1", 0, 1);
    hold(&mut seen_missing);
    table.insert(&seen_missing);
    let now = tokio::time::Instant::now();
    let _trust = table.read_edge(&account_uid(), &edge("i-1"), now, false);
    assert!(!kept(&|_| {}), "void");
    assert!(table.unreleased().is_empty());
}

/// The store was put back to before an object went without a release.
#[test]
fn object_that_is_there_again_is_met_anew() {
    let table = ObjectTable::default();
    let mut object = object("a", "i-1", 0, 1);
    hold(&mut object);
    table.insert(&object);
    assert!(table.keep_unreleased(&object));
    assert_eq!(table.is_unreleased(&uid("a")), Some(true));
    assert!(table.mark_triggered(&uid("a"), 1, 1));
    table.insert(&object);
    assert_eq!(table.is_unreleased(&uid("a")), Some(false));
    assert!(table.unreleased().is_empty());
    assert!(table.mark_triggered(&uid("a"), 1, 1), "a pass follows");
}

#[tokio::test(start_paused = true)]
async fn what_this_process_joins_with_is_known_until_its_join_is_refused() {
    for (effect, is_known) in [
        (Effect::Done, true),
        (Effect::Unknown, true),
        (Effect::None, false),
    ] {
        let table = ObjectTable::default();
        table.insert(&object("a", "i-1", 0, 1));
        let joined_with = || {
            let joined_with = table.history(&uid("a"), |history| history.joined_with());
            joined_with.flatten()
        };
        let (account, edge) = (account_uid(), edge("i-1"));
        let begun = table.call_began(&uid("a"), &account, &edge, EdgeCall::Join);
        assert_eq!(joined_with(), Some(account_uid()), "it may have arrived");
        table.call_ended(&uid("a"), &account, &edge, begun, effect);
        assert_eq!(joined_with().is_some(), is_known, "{effect:?}");
    }
}

#[test]
fn own_newer_write_tells_the_claim_while_the_watch_lags() {
    let table = ObjectTable::default();
    let watched = object("a", "i-1", 0, 1);
    table.insert(&watched);
    let mut written = object("a", "i-1", 0, 2);
    hold(&mut written);
    table.written(&written);
    assert!(table.claim(&watched).is_some());
    let removed = object("a", "i-1", 0, 3);
    assert!(table.claim(&removed).is_none(), "newer than our write");
}

/// A5, R1: the watch shows an intent while calls of the process before may be under way.
#[tokio::test(start_paused = true)]
async fn intent_that_is_shown_late_is_of_the_process_before() {
    for (others_may_call, is_found) in [(true, true), (false, false)] {
        let table = ObjectTable::default();
        table.begins_to_act(others_may_call);
        let mut seen = object("a", "i-1", 0, 1);
        table.insert(&seen);
        tokio::time::advance(Duration::from_secs(30)).await;
        intend(&mut seen);
        seen.metadata.resource_version = Some("2".to_owned());
        table.insert(&seen);
        let found = table.history(&uid("a"), |history| history.found_intent_at());
        assert_eq!(found.flatten().is_some(), is_found);
    }
}

/// Anybody can write an intent.
#[tokio::test(start_paused = true)]
async fn only_an_intent_with_a_grant_counts_as_an_open_join() {
    for is_granted in [false, true] {
        let table = ObjectTable::default();
        let mut forged = object("a", "i-1", 0, 1);
        intend(&mut forged);
        table.insert(&forged);
        let (account, edge) = (account_uid(), edge("i-1"));
        table.count_found_intents(&account, &edge, |_| is_granted);
        assert_eq!(table.join_is_open(&account, &edge), is_granted);
    }
}
