//! What a selector says of a target: which Nodes it picks, and what counts as evidence that it does not.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::unchecked_time_subtraction,
    reason = "a test"
)]

use std::time::Duration;

use kube::runtime::watcher::Event;
use security_group_operator::api::SecurityGroupMembershipSet;
use security_group_operator::ecs::{Region, Target};
use security_group_operator::nodes::{Listed, Node, Nodes};
use security_group_operator::set::select::{MissingSince, PATIENCE, Selection, Standing, Tagged};
use serde_json::{Value, json};
use tokio::time::Instant;

/// 2026-01-02T03:04:05Z, when every Node of this test was created.
const CREATED: i64 = 1_767_323_045;

fn set(selector: &Value) -> SecurityGroupMembershipSet {
    let mut spec = json!({"region": "cn-hangzhou", "securityGroupID": "sg-1"});
    spec.as_object_mut()
        .unwrap()
        .extend(selector.as_object().unwrap().clone());
    serde_json::from_value(json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet",
        "metadata": {"name": "s"}, "spec": spec,
    }))
    .unwrap()
}

fn node(name: &str, provider_id: Option<&str>, labels: &Value) -> Node {
    serde_json::from_value(json!({
        "metadata": {"name": name, "creationTimestamp": "2026-01-02T03:04:05Z", "labels": labels},
        "spec": {"providerID": provider_id},
    }))
    .unwrap()
}

fn instance(id: &str) -> Target {
    Target::Instance(id.parse().unwrap())
}

fn nodes() -> Nodes {
    let nodes = Nodes::default();
    nodes.take(Event::Init);
    for (name, provider_id, labels) in [
        ("a", Some("cn-hangzhou.i-a"), json!({"pool": "web"})),
        // Two Nodes of one instance: one that matches is enough.
        ("b1", Some("cn-hangzhou.i-b"), json!({})),
        ("b2", Some("cn-hangzhou.i-b"), json!({"pool": "web"})),
        ("c", Some("cn-hangzhou.i-c"), json!({"pool": "db"})),
        (
            "other-region",
            Some("cn-beijing.i-d"),
            json!({"pool": "web"}),
        ),
        ("hybrid", Some("ack-hybrid://x.y"), json!({"pool": "web"})),
        ("no-id", None, json!({"pool": "web"})),
    ] {
        nodes.take(Event::InitApply(node(name, provider_id, &labels)));
    }
    nodes.take(Event::InitDone);
    nodes
}

fn select(nodes: &Nodes, selector: &Value, listed: &Listed) -> Selection {
    let region: Region = "cn-hangzhou".parse().unwrap();
    let set = set(&json!({"nodeSelector": selector}));
    nodes.look(|nodes, _| Selection::of_nodes(&set.spec, &region, nodes.values(), listed))
}

#[test]
fn nodes_of_the_region_that_match_are_picked() {
    let web = json!({"matchLabels": {"pool": "web"}});
    let selection = select(&nodes(), &web, &Listed::All);
    let picked: Vec<_> = selection.picked.iter().map(ToString::to_string).collect();
    assert_eq!(picked, ["i-a", "i-b"]);
    assert_eq!(selection.skipped, 3);
    let all = select(&nodes(), &json!({}), &Listed::All);
    assert_eq!((all.picked.len(), all.skipped), (3, 3));
    let no_pool = json!({"matchExpressions": [{"key": "pool", "operator": "DoesNotExist"}]});
    let picked = select(&nodes(), &no_pool, &Listed::All).picked;
    assert_eq!(picked, [instance("i-b")].into());
}

#[test]
fn labels_count_when_the_node_is_five_minutes_old() {
    let web = json!({"matchLabels": {"pool": "web"}});
    let selection = select(&nodes(), &web, &Listed::All);
    let never = || unreachable!("its Node is there");
    let patience = i64::try_from(PATIENCE.as_secs()).unwrap();
    for (now, standing) in [
        (CREATED, Standing::New),
        (CREATED + patience - 1, Standing::New),
        (CREATED + patience, Standing::NotSelected),
    ] {
        assert_eq!(selection.standing(&instance("i-c"), now, never), standing);
    }
    assert_eq!(
        selection.standing(&instance("i-a"), CREATED, never),
        Standing::Picked
    );
    assert_eq!(
        selection.counts_at(&instance("i-c")),
        Some(CREATED + patience)
    );
}

#[test]
fn a_target_without_a_node_is_gone_after_five_minutes() {
    let web = json!({"matchLabels": {"pool": "web"}});
    let target = instance("i-nowhere");
    for (listed, missing_for, standing) in [
        (Listed::All, Duration::ZERO, Standing::Missing),
        (
            Listed::All,
            PATIENCE - Duration::from_secs(1),
            Standing::Missing,
        ),
        (Listed::All, PATIENCE, Standing::Gone),
        (Listed::Interrupted(None), PATIENCE, Standing::Unknown),
    ] {
        let selection = select(&nodes(), &web, &listed);
        let found = selection.standing(&target, CREATED, || missing_for);
        assert_eq!(found, standing, "{listed:?} {missing_for:?}");
    }
}

#[test]
fn a_list_says_all() {
    let never = || unreachable!("a list knows all");
    for (selector, target, other) in [
        (
            json!({"instanceIDs": ["i-a"]}),
            instance("i-a"),
            instance("i-b"),
        ),
        (
            json!({"networkInterfaceIDs": ["eni-a"]}),
            Target::NetworkInterface("eni-a".parse().unwrap()),
            instance("i-a"),
        ),
    ] {
        let selection = Selection::of_list(&set(&selector).spec).unwrap();
        assert_eq!(selection.standing(&target, 0, never), Standing::Picked);
        assert_eq!(selection.standing(&other, 0, never), Standing::NotSelected);
    }
    for selector in [
        json!({"nodeSelector": {}}),
        json!({"instanceTags": {"a": "b"}}),
    ] {
        assert!(Selection::of_list(&set(&selector).spec).is_none());
    }
}

#[test]
fn what_no_description_by_id_has_shown_is_not_known() {
    let tagged = Tagged {
        picked: [instance("i-a")].into(),
        other: [instance("i-b")].into(),
        absent: [instance("i-c"), instance("i-e")].into(),
        absent_twice: [instance("i-c")].into(),
        trouble: None,
    };
    let selection = Selection::of_tags(tagged.into());
    let brief = PATIENCE - Duration::from_secs(1);
    for (target, missing_for, standing) in [
        ("i-a", None, Standing::Picked),
        ("i-b", None, Standing::NotSelected),
        ("i-c", Some(brief), Standing::Missing),
        ("i-c", Some(PATIENCE), Standing::Gone),
        ("i-d", None, Standing::Unknown),
        // One answer alone is not enough, however long it takes until the next.
        ("i-e", Some(PATIENCE), Standing::Missing),
    ] {
        let missing_for = || missing_for.expect("it is not missing");
        let found = selection.standing(&instance(target), CREATED, missing_for);
        assert_eq!(found, standing, "{target}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_without_a_node_begins_anew_when_it_was_back() {
    let mut missing = MissingSince::default();
    let target = instance("i-a");
    assert_eq!(missing.missing_for(&target, Instant::now()), Duration::ZERO);
    tokio::time::advance(Duration::from_secs(200)).await;
    assert_eq!(
        missing.missing_for(&target, Instant::now()),
        Duration::from_secs(200)
    );
    assert_eq!(missing.next(Instant::now()), Some(Duration::from_secs(100)));
    missing.keep(|_| false);
    assert_eq!(missing.missing_for(&target, Instant::now()), Duration::ZERO);
}
