//! What a set promises, on a real cluster with its garbage collector: one membership for each target, and none that goes without
//! evidence.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::core::v1::Node;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, PropagationPolicy};
use kube::{Api, ResourceExt};
use security_group_operator::api::{
    SET_LABEL, SecurityGroupMembership, SecurityGroupMembershipSet, reason,
};
use security_group_operator::condition::{find, is_true};
use serde_json::{Value, json};

use crate::binaries;
use crate::support::env::{TestEnv, ready};
use crate::support::error::{Context, Result};
use crate::support::eventually::eventually;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
- {id: sg-new}
instances:
- {id: i-a, securityGroupIds: [sg-base]}
- {id: i-b, securityGroupIds: [sg-base]}
- {id: i-c, securityGroupIds: [sg-base]}
networkInterfaces:
- {id: eni-a, instanceId: i-a, securityGroupIds: [sg-base]}
";

fn sets(env: &TestEnv) -> Api<SecurityGroupMembershipSet> {
    Api::namespaced(env.client.clone(), &env.name)
}

/// Applies a set, as a user would with `kubectl apply --server-side`.
pub async fn apply(
    env: &TestEnv,
    name: &str,
    spec: Value,
) -> kube::Result<SecurityGroupMembershipSet> {
    let mut all = json!({
        "region": "cn-hangzhou", "securityGroupID": "sg-web",
        "accountRef": {"kind": "ClusterCloudAccount", "name": env.name},
    });
    if let (Some(all), Some(spec)) = (all.as_object_mut(), spec.as_object()) {
        all.extend(spec.clone());
    }
    let patch = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet",
        "metadata": {"name": name}, "spec": all,
    });
    let params = PatchParams::apply("test").force();
    sets(env).patch(name, &params, &Patch::Apply(&patch)).await
}

/// Returns the set when Ready has this reason for its generation.
pub async fn until(env: &TestEnv, name: &str, reason: &str) -> Result<SecurityGroupMembershipSet> {
    let mut seen = None;
    let found = eventually(&format!("the set {name} says {reason}"), async || {
        let set = sets(env).get(name).await?;
        let conditions = set.status.iter().flat_map(|status| &status.conditions);
        let is_told = conditions
            .filter(|condition| condition.type_ == "Ready")
            .any(|ready| {
                ready.reason == reason && ready.observed_generation == set.metadata.generation
            });
        seen = Some(set);
        Ok(is_told)
    })
    .await;
    found.context(serde_json::to_string_pretty(&seen)?)?;
    let set = seen.context("a set")?;
    let conditions = &set.status.as_ref().context("a status")?.conditions;
    let both = is_true(conditions, reason::STALLED) && is_true(conditions, reason::RECONCILING);
    assert!(!both, "{name} is both");
    Ok(set)
}

fn counts(set: &SecurityGroupMembershipSet) -> [Option<i64>; 3] {
    let status = set.status.clone().unwrap_or_default();
    [status.targets, status.ready_targets, status.objects]
}

fn told(set: &SecurityGroupMembershipSet) -> String {
    let status = set.status.as_ref();
    let ready = status.and_then(|status| find(&status.conditions, "Ready"));
    ready.map(|ready| ready.message.clone()).unwrap_or_default()
}

/// The memberships in the namespace.
async fn members(env: &TestEnv) -> Result<Vec<SecurityGroupMembership>> {
    Ok(env.memberships().list(&ListParams::default()).await?.items)
}

async fn until_members(env: &TestEnv, group: &str, wanted: &[&str]) -> Result<()> {
    let mut within = BTreeSet::new();
    let found = eventually(&format!("{wanted:?} are in {group}"), async || {
        within.clear();
        for target in ["i-a", "i-b", "i-c", "eni-a"] {
            if env.is_member(target, group).await? {
                within.insert(target);
            }
        }
        Ok(within == wanted.iter().copied().collect())
    })
    .await;
    found.context(format!("{within:?} are there"))
}

async fn until_no_memberships(env: &TestEnv) -> Result<()> {
    eventually("no membership is left", async || {
        Ok(members(env).await?.is_empty())
    })
    .await
}

async fn delete(env: &TestEnv, name: &str, how: PropagationPolicy) -> Result<()> {
    let params = DeleteParams {
        propagation_policy: Some(how),
        ..DeleteParams::default()
    };
    sets(env).delete(name, &params).await?;
    eventually(&format!("the set {name} is gone"), async || {
        Ok(sets(env).get_opt(name).await?.is_none())
    })
    .await
}

#[tokio::test]
async fn a_list_of_instances_becomes_memberships_and_what_leaves_it_is_removed() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a", "i-b"]})).await?;
    let set = until(&env, "web", "AllMembers").await?;
    assert_eq!(counts(&set), [Some(2), Some(2), Some(2)]);
    assert_eq!(told(&set), "2 of 2 targets are members");
    until_members(&env, "sg-web", &["i-a", "i-b"]).await?;
    for object in members(&env).await? {
        assert_eq!(ready(&object).context("Ready")?.reason, "Joined");
        assert_eq!(
            object.labels().get(SET_LABEL).map(String::as_str),
            Some("web")
        );
        assert_eq!(object.owner_references().len(), 1);
        assert_eq!(Some(&object.owner_references()[0].uid), set.uid().as_ref());
    }
    assert_eq!(env.calls("JoinSecurityGroup").await?, 2);

    // An ID that is taken off the list is evidence.
    apply(&env, "web", json!({"instanceIDs": ["i-b", "i-c"]})).await?;
    let set = until(&env, "web", "AllMembers").await?;
    assert_eq!(counts(&set), [Some(2), Some(2), Some(2)]);
    until_members(&env, "sg-web", &["i-b", "i-c"]).await?;

    // Interfaces instead.
    apply(&env, "web", json!({"networkInterfaceIDs": ["eni-a"]})).await?;
    until(&env, "web", "AllMembers").await?;
    until_members(&env, "sg-web", &["eni-a"]).await?;

    // A membership that somebody deletes is made again.
    let name = members(&env).await?[0].name_any();
    let uid = members(&env).await?[0].uid();
    env.delete(&name).await?;
    eventually("it is made again", async || {
        let again = members(&env).await?;
        Ok(again.first().is_some_and(|object| object.uid() != uid))
    })
    .await?;
    until(&env, "web", "AllMembers").await?;
    delete(&env, "web", PropagationPolicy::Background).await?;
    until_no_memberships(&env).await?;
    until_members(&env, "sg-web", &[]).await
}

#[tokio::test]
async fn a_change_of_group_leaves_no_gap() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let all = json!({"instanceIDs": ["i-a", "i-b", "i-c"]});
    apply(&env, "web", all.clone()).await?;
    until(&env, "web", "AllMembers").await?;
    let mut moved = all;
    moved["securityGroupID"] = json!("sg-new");
    apply(&env, "web", moved).await?;
    let set = until(&env, "web", "AllMembers").await?;
    assert_eq!(counts(&set), [Some(3), Some(3), Some(3)]);
    until_members(&env, "sg-new", &["i-a", "i-b", "i-c"]).await?;
    until_members(&env, "sg-web", &[]).await?;
    // J2, by what the cloud did: between its first Join and now each target was in one of the two groups at every moment.
    let journal = env.simulator.journal().await?;
    for target in ["i-a", "i-b", "i-c"] {
        let changes = journal.as_array().into_iter().flatten();
        let changes: Vec<_> = changes
            .filter(|change| change["target"] == target)
            .collect();
        let mut groups = BTreeSet::new();
        for change in &changes {
            let group = change["securityGroupId"].to_string();
            if change["action"] == "JoinSecurityGroup" {
                groups.insert(group);
            } else {
                groups.remove(&group);
            }
            assert!(
                !groups.is_empty(),
                "{target} was in neither group: {change}"
            );
        }
        assert_eq!(changes.len(), 3, "{target}: a Join, a Join and a Leave");
    }
    Ok(())
}

#[tokio::test]
async fn a_group_that_cannot_be_joined_keeps_the_old_one() -> Result<()> {
    let inventory = format!("{INVENTORY}\n").replace("{id: sg-new}", "{id: sg-new, quota: 0}");
    let env = TestEnv::start(&binaries!(), &inventory).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a"]})).await?;
    until(&env, "web", "AllMembers").await?;
    apply(
        &env,
        "web",
        json!({"instanceIDs": ["i-a"], "securityGroupID": "sg-new"}),
    )
    .await?;
    let set = until(&env, "web", "SecurityGroupInstanceLimitExceeded").await?;
    assert_eq!(counts(&set), [Some(1), Some(0), Some(2)]);
    assert!(
        told(&set).contains("SecurityGroupInstanceLimitExceeded (1)"),
        "{}",
        told(&set)
    );
    assert!(env.is_member("i-a", "sg-web").await?);
    // Back again: the new one goes, the old one was never left.
    apply(&env, "web", json!({"instanceIDs": ["i-a"]})).await?;
    let set = until(&env, "web", "AllMembers").await?;
    assert_eq!(counts(&set), [Some(1), Some(1), Some(1)]);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    Ok(())
}

#[tokio::test]
async fn orphans_are_taken_over_without_a_call() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    // The garbage collector learns of a new kind within half a minute. Before that it makes no orphans.
    apply(&env, "first", json!({"instanceIDs": ["i-c"]})).await?;
    until(&env, "first", "AllMembers").await?;
    delete(&env, "first", PropagationPolicy::Background).await?;
    until_no_memberships(&env).await?;
    env.simulator.reset_stats().await?;

    let list = json!({"instanceIDs": ["i-a", "i-b"]});
    apply(&env, "web", list.clone()).await?;
    until(&env, "web", "AllMembers").await?;
    let before: BTreeSet<_> = members(&env).await?.iter().map(ResourceExt::uid).collect();
    delete(&env, "web", PropagationPolicy::Orphan).await?;
    assert!(
        members(&env)
            .await?
            .iter()
            .all(|object| object.owner_references().is_empty())
    );
    let set = apply(&env, "web", list.clone()).await?;
    until(&env, "web", "AllMembers").await?;
    let after = members(&env).await?;
    assert_eq!(before, after.iter().map(ResourceExt::uid).collect());
    for object in after {
        assert_eq!(Some(&object.owner_references()[0].uid), set.uid().as_ref());
    }
    assert_eq!(env.calls("JoinSecurityGroup").await?, 2);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    // In the foreground the set goes last.
    delete(&env, "web", PropagationPolicy::Foreground).await?;
    assert!(members(&env).await?.is_empty());
    until_members(&env, "sg-web", &[]).await
}

/// The name that the set `web` gives to the membership of i-a. No object has it.
async fn name_for_the_first(env: &TestEnv) -> Result<String> {
    apply(env, "web", json!({"instanceIDs": ["i-a"]})).await?;
    until(env, "web", "AllMembers").await?;
    let members = members(env).await?;
    let name = members.first().context("a membership")?.name_any();
    delete(env, "web", PropagationPolicy::Background).await?;
    until_no_memberships(env).await?;
    Ok(name)
}

#[tokio::test]
async fn a_name_that_is_taken_is_left_alone() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let name = name_for_the_first(&env).await?;
    // By hand, for another edge, under that name.
    let by_hand = env.apply(&name, "i-b", "sg-web", json!({})).await?;
    env.until_ready(&name).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a"]})).await?;
    let set = until(&env, "web", "NameTaken").await?;
    assert!(told(&set).contains(&name), "{}", told(&set));
    assert!(
        env.memberships()
            .get(&name)
            .await?
            .owner_references()
            .is_empty()
    );
    env.delete(&name).await?;
    eventually("the name is free", async || {
        let object = env.memberships().get_opt(&name).await?;
        Ok(object.is_none_or(|object| object.uid() != by_hand.uid()))
    })
    .await?;
    let asked = json!({"metadata": {"annotations": {"security-group-operator.io/reconcile-requested-at": "1"}}});
    sets(&env)
        .patch("web", &PatchParams::default(), &Patch::Merge(&asked))
        .await?;
    let set = until(&env, "web", "AllMembers").await?;
    let handled = set
        .status
        .and_then(|status| status.last_handled_reconcile_at);
    assert_eq!(handled.as_deref(), Some("1"));
    Ok(())
}

/// The set creates in the order of the names of its targets: the one whose name is taken is the first.
#[tokio::test]
async fn a_name_that_is_taken_keeps_no_other_target_waiting() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let name = name_for_the_first(&env).await?;
    env.apply(&name, "i-c", "sg-new", json!({})).await?;
    env.until_ready(&name).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a", "i-b", "i-c"]})).await?;
    until_members(&env, "sg-web", &["i-b", "i-c"]).await?;
    eventually("the set counts the two", async || {
        let set = until(&env, "web", "NameTaken").await?;
        Ok(counts(&set) == [Some(3), Some(2), Some(2)])
    })
    .await
}

#[tokio::test]
async fn a_refused_change_or_deletion_is_told_and_keeps_no_new_target_waiting() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let list = |instances: Value, policy: &str| json!({"instanceIDs": instances, "deletionPolicy": policy});
    apply(&env, "web", list(json!(["i-a"]), "RemoveIfJoined")).await?;
    until(&env, "web", "AllMembers").await?;
    let name = members(&env).await?[0].name_any();
    let forbidden = "!(oldObject != null && oldObject.spec.instanceID == 'i-a') || \
                     (object != null && object.spec.deletionPolicy == oldObject.spec.deletionPolicy)";
    let probe = async || {
        let retained = Patch::Merge(json!({"spec": {"deletionPolicy": "Retain"}}));
        let dry_run = PatchParams::default().dry_run();
        env.memberships()
            .patch(&name, &dry_run, &retained)
            .await
            .is_err()
    };
    refuse(&env, &["UPDATE", "DELETE"], forbidden).await?;
    eventually("the policy holds", async || Ok(probe().await)).await?;

    // A deletion, while something is created.
    apply(&env, "web", list(json!(["i-b"]), "RemoveIfJoined")).await?;
    let set = until(&env, "web", "WriteRefused").await?;
    assert!(
        told(&set).contains("no more in this namespace"),
        "{}",
        told(&set)
    );
    until_members(&env, "sg-web", &["i-a", "i-b"]).await?;
    // A change of a policy, without which nothing is deleted.
    apply(&env, "web", list(json!(["i-b", "i-c"]), "Retain")).await?;
    until_members(&env, "sg-web", &["i-a", "i-b", "i-c"]).await?;
    until(&env, "web", "WriteRefused").await?;
    let kept = env.memberships().get(&name).await?;
    assert!(kept.metadata.deletion_timestamp.is_none());
    Ok(())
}

#[tokio::test]
async fn policies_are_kept_and_a_suspended_set_rests() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let list = |more: Value| {
        let mut spec = json!({"instanceIDs": ["i-a"]});
        if let (Some(spec), Some(more)) = (spec.as_object_mut(), more.as_object()) {
            spec.extend(more.clone());
        }
        spec
    };
    apply(&env, "web", list(json!({}))).await?;
    until(&env, "web", "AllMembers").await?;
    let name = members(&env).await?[0].name_any();
    let has = async |field: &str, value: &str| {
        eventually(&format!("{field} is {value}"), async || {
            let object = serde_json::to_value(env.memberships().get(&name).await?)?;
            Ok(object["spec"][field] == value)
        })
        .await
    };
    apply(&env, "web", list(json!({"deletionPolicy": "Retain"}))).await?;
    has("deletionPolicy", "Retain").await?;
    let by_hand = json!({"spec": {"driftPolicy": "Report"}});
    env.memberships()
        .patch(&name, &PatchParams::default(), &Patch::Merge(&by_hand))
        .await?;
    has("driftPolicy", "Repair").await?;
    let object = env.memberships().get(&name).await?;
    assert_eq!(object.owner_references().len(), 1);

    apply(
        &env,
        "web",
        list(json!({"suspend": true, "instanceIDs": ["i-b"]})),
    )
    .await?;
    eventually("the set is suspended", async || {
        let status = sets(&env).get("web").await?.status.unwrap_or_default();
        Ok(is_true(&status.conditions, "Suspended"))
    })
    .await?;
    assert_eq!(members(&env).await?.len(), 1);
    assert_eq!(members(&env).await?[0].name_any(), name);
    apply(&env, "web", json!({"instanceIDs": ["i-b"]})).await?;
    until(&env, "web", "AllMembers").await?;
    until_members(&env, "sg-web", &["i-b"]).await
}

#[tokio::test]
async fn a_set_that_was_ready_for_retain_leaves_its_targets_in_the_group() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a", "i-b"]})).await?;
    until(&env, "web", "AllMembers").await?;
    let retain = json!({"instanceIDs": ["i-a", "i-b"], "deletionPolicy": "Retain"});
    apply(&env, "web", retain).await?;
    until(&env, "web", "AllMembers").await?;
    delete(&env, "web", PropagationPolicy::Background).await?;
    until_no_memberships(&env).await?;
    until_members(&env, "sg-web", &["i-a", "i-b"]).await
}

#[tokio::test]
async fn what_refuses_the_set_is_said_before_anything_is_made() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let list = json!({"instanceIDs": ["i-a", "i-b", "i-c"]});
    env.write_account(json!([])).await?;
    apply(&env, "web", list.clone()).await?;
    let set = until(&env, "web", "NotGranted").await?;
    assert!(told(&set).contains("use sg-web"), "{}", told(&set));
    let mut elsewhere = list.clone();
    elsewhere["accountRef"] =
        json!({"kind": "ClusterCloudAccount", "name": format!("{}-none", env.name)});
    apply(&env, "nowhere", elsewhere).await?;
    until(&env, "nowhere", "AccountNotFound").await?;
    assert!(members(&env).await?.is_empty());

    // What refuses one refuses all: it is asked as often as a batch is large.
    refuse_creation(&env, "object.spec.instanceID == 'i-a'").await?;
    env.write_account(json!([{"name": "all", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": ["*"]}}]))
        .await?;
    let set = until(&env, "web", "CreateRefused").await?;
    assert!(
        told(&set).contains("no more in this namespace"),
        "{}",
        told(&set)
    );
    assert_eq!(members(&env).await?.len(), 1);
    Ok(())
}

/// The API server refuses these writes of memberships in the namespace of the test, except the allowed ones.
async fn refuse(env: &TestEnv, operations: &[&str], allowed: &str) -> Result<()> {
    let create = PostParams::default();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(env.client.clone());
    let policy = json!({
        "metadata": {"name": env.name},
        "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": ["security-group-operator.io"], "apiVersions": ["*"],
                "operations": operations, "resources": ["securitygroupmemberships"],
            }]},
            "matchConditions": [{
                "name": "here", "expression": format!("request.namespace == '{}'", env.name),
            }],
            "validations": [{"expression": allowed, "message": "no more in this namespace"}],
        },
    });
    policies
        .create(&create, &serde_json::from_value(policy)?)
        .await?;
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(env.client.clone());
    let binding = json!({
        "metadata": {"name": env.name},
        "spec": {"policyName": env.name, "validationActions": ["Deny"]},
    });
    bindings
        .create(&create, &serde_json::from_value(binding)?)
        .await?;
    Ok(())
}

/// The same for creations. It returns when the API server refuses them.
async fn refuse_creation(env: &TestEnv, allowed: &str) -> Result<()> {
    refuse(env, &["CREATE"], allowed).await?;
    let probe = serde_json::from_value(json!({
        "metadata": {"name": "probe"},
        "spec": {"region": "cn-hangzhou", "instanceID": "i-b", "securityGroupID": "sg-web"},
    }))?;
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    eventually("the policy holds", async || {
        Ok(env.memberships().create(&dry_run, &probe).await.is_err())
    })
    .await
}

/// A Node of the shared cluster, which goes with the test.
pub async fn node(
    env: &TestEnv,
    name: &str,
    provider_id: Option<&str>,
    labels: Value,
) -> Result<()> {
    let nodes: Api<Node> = Api::all(env.client.clone());
    let object = json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": format!("{}-{name}", env.name), "labels": labels},
        "spec": {"providerID": provider_id},
    });
    let name = format!("{}-{name}", env.name);
    nodes
        .patch(
            &name,
            &PatchParams::apply("test").force(),
            &Patch::Apply(&object),
        )
        .await?;
    Ok(())
}

pub async fn delete_node(env: &TestEnv, name: &str) -> Result<()> {
    let nodes: Api<Node> = Api::all(env.client.clone());
    let name = format!("{}-{name}", env.name);
    nodes.delete(&name, &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn nodes_that_match_are_joined_and_stay_until_there_is_evidence() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let pool = json!({"pool": env.name});
    node(&env, "a", Some("cn-hangzhou.i-a"), pool.clone()).await?;
    node(&env, "hybrid", Some("ack-hybrid://x.y"), pool.clone()).await?;
    node(&env, "b", None, pool.clone()).await?;
    node(&env, "c", Some("cn-hangzhou.i-c"), json!({})).await?;
    apply(
        &env,
        "nodes",
        json!({"nodeSelector": {"matchLabels": pool}}),
    )
    .await?;
    let set = until(&env, "nodes", "AllMembers").await?;
    assert_eq!(counts(&set), [Some(1), Some(1), Some(1)]);
    assert_eq!(set.status.and_then(|status| status.skipped_nodes), Some(2));

    // The providerID comes, and a label comes.
    node(&env, "b", Some("alicloud://cn-hangzhou.i-b"), pool.clone()).await?;
    node(&env, "c", Some("cn-hangzhou.i-c"), pool.clone()).await?;
    until_members(&env, "sg-web", &["i-a", "i-b", "i-c"]).await?;
    let told = async |wanted: [i64; 3]| {
        eventually(&format!("the set counts {wanted:?}"), async || {
            let set = sets(&env).get("nodes").await?;
            Ok(counts(&set) == wanted.map(Some))
        })
        .await
    };
    told([3, 3, 3]).await?;
    until(&env, "nodes", "AllMembers").await?;

    // A label that is taken off a new Node counts later, and a Node that is gone may come back.
    node(&env, "c", Some("cn-hangzhou.i-c"), json!({})).await?;
    delete_node(&env, "b").await?;
    told([1, 1, 3]).await?;
    until(&env, "nodes", "AllMembers").await?;
    until_members(&env, "sg-web", &["i-a", "i-b", "i-c"]).await?;

    // A typo removes nothing.
    let typo = json!({"nodeSelector": {"matchLabels": {"pol": env.name}}});
    apply(&env, "nodes", typo).await?;
    let set = until(&env, "nodes", "NothingSelected").await?;
    assert_eq!(counts(&set), [Some(0), Some(0), Some(3)]);
    until_members(&env, "sg-web", &["i-a", "i-b", "i-c"]).await?;
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    for name in ["a", "c", "hybrid"] {
        delete_node(&env, name).await?;
    }
    Ok(())
}

/// `INVENTORY` with these tags on i-a, i-b and i-c.
fn tagged(tags: [&str; 3]) -> String {
    let mut inventory = INVENTORY.to_owned();
    for (id, tags) in ["i-a", "i-b", "i-c"].into_iter().zip(tags) {
        let row = format!("- {{id: {id}, ");
        inventory = inventory.replace(&row, &format!("{row}tags: {tags}, "));
    }
    inventory
}

async fn set_tags(env: &TestEnv, id: &str, tags: Value) -> Result<()> {
    let change = json!({"setTags": {"id": id, "tags": tags}});
    env.simulator.change(&change).await
}

#[tokio::test]
async fn instances_with_the_tags_are_joined_and_other_tags_are_evidence() -> Result<()> {
    let web = "{team: web, env: prod}";
    let inventory = tagged([web, web, "{team: web, env: test}"]);
    let env = TestEnv::start(&binaries!(), &inventory).await?;
    let both = json!({"instanceTags": {"team": "web", "env": "prod"}});
    apply(&env, "web", both.clone()).await?;
    let set = until(&env, "web", "AllMembers").await?;
    assert_eq!(counts(&set), [Some(2), Some(2), Some(2)]);
    until_members(&env, "sg-web", &["i-a", "i-b"]).await?;

    // By the next scan a tag has come, and another has gone.
    set_tags(&env, "i-c", json!({"team": "web", "env": "prod"})).await?;
    set_tags(&env, "i-a", json!({"team": "web"})).await?;
    until_members(&env, "sg-web", &["i-b", "i-c"]).await?;
    until(&env, "web", "AllMembers").await?;
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 1);

    // A typo, and then a value that no instance has: nothing is removed.
    for tags in [json!({"taem": "web"}), json!({"team": "wbe"})] {
        apply(&env, "web", json!({"instanceTags": tags})).await?;
        let set = until(&env, "web", "NothingSelected").await?;
        assert_eq!(counts(&set), [Some(0), Some(0), Some(2)]);
    }
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 1);
    apply(&env, "web", both).await?;
    let set = until(&env, "web", "AllMembers").await?;
    assert_eq!(counts(&set), [Some(2), Some(2), Some(2)]);
    assert_eq!(env.calls("JoinSecurityGroup").await?, 3);
    // Another group, for the instances of the same list.
    let moved =
        json!({"instanceTags": {"team": "web", "env": "prod"}, "securityGroupID": "sg-new"});
    apply(&env, "web", moved).await?;
    until(&env, "web", "AllMembers").await?;
    until_members(&env, "sg-new", &["i-b", "i-c"]).await?;
    until_members(&env, "sg-web", &[]).await
}

#[tokio::test]
async fn a_list_of_tags_that_fails_adds_and_removes_nothing() -> Result<()> {
    let env = TestEnv::start(&binaries!(), &tagged(["{team: web}", "{team: web}", "{}"])).await?;
    apply(&env, "web", json!({"instanceTags": {"team": "web"}})).await?;
    until(&env, "web", "AllMembers").await?;
    for (key, fault, words) in [
        ("cut", json!({"malformed": "truncated"}), "got no answer"),
        (
            "busy",
            json!({"error": {"code": "ServiceUnavailable"}}),
            "ServiceUnavailable",
        ),
        (
            "denied",
            json!({"error": {"code": "Forbidden.RAM"}}),
            "Forbidden.RAM",
        ),
    ] {
        let fault = json!([{"action": "DescribeInstances", "tag": key, "fault": fault}]);
        env.simulator.faults(&fault).await?;
        // i-c has the tag, i-a and i-b do not: but for the fault, all would change.
        set_tags(&env, "i-c", json!({key: "1"})).await?;
        apply(&env, "web", json!({"instanceTags": {key: "1"}})).await?;
        let set = until(&env, "web", "SelectionIncomplete").await?;
        assert!(told(&set).contains(words), "{}", told(&set));
        assert_eq!(members(&env).await?.len(), 2);
        assert_eq!(is_stalled(&set), key == "denied");
    }
    until_members(&env, "sg-web", &["i-a", "i-b"]).await?;
    assert_eq!(env.calls("JoinSecurityGroup").await?, 2);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    // A set that may not use the account has nothing read for it.
    env.simulator.faults(&json!([])).await?;
    env.write_account(json!([])).await?;
    apply(&env, "web", json!({"instanceTags": {"denied": "1"}})).await?;
    until(&env, "web", "NotGranted").await?;
    Ok(())
}

fn is_stalled(set: &SecurityGroupMembershipSet) -> bool {
    let status = set.status.as_ref();
    status.is_some_and(|status| is_true(&status.conditions, reason::STALLED))
}

#[tokio::test]
async fn a_selector_that_picks_nothing_yet_is_ready() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    apply(
        &env,
        "none",
        json!({"nodeSelector": {"matchLabels": {"pool": env.name}}}),
    )
    .await?;
    let set = until(&env, "none", "NoTargets").await?;
    assert_eq!(counts(&set), [Some(0), Some(0), Some(0)]);
    Ok(())
}

#[tokio::test]
async fn nodes_of_karpenter_are_refused_and_counted() -> Result<()> {
    let tagged = "- {id: i-pool, securityGroupIds: [sg-base], tags: {karpenter.sh/nodepool: default}}\nnetworkInterfaces:";
    let inventory = INVENTORY.replace("networkInterfaces:", tagged);
    let env = TestEnv::start(&binaries!(), &inventory).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a", "i-pool"]})).await?;
    let set = until(&env, "web", "KarpenterNode").await?;
    let status = set.status.clone().unwrap_or_default();
    assert_eq!(
        (status.ready_targets, status.stalled_targets),
        (Some(1), Some(1))
    );
    apply(
        &env,
        "web",
        json!({"instanceIDs": ["i-a", "i-pool"], "karpenterPolicy": "Join"}),
    )
    .await?;
    until(&env, "web", "AllMembers").await?;
    assert!(env.is_member("i-pool", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn wrong_sets_are_refused_with_the_field_and_the_fix() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let many: Vec<String> = (0..1_001).map(|number| format!("i-{number}")).collect();
    let one_of =
        "must set exactly one of nodeSelector, instanceTags, instanceIDs and networkInterfaceIDs";
    let long = "s".repeat(64);
    let all = json!({"instanceIDs": ["i-a"]});
    for (name, spec, words) in [
        ("s", json!({}), &[one_of][..]),
        (
            "s",
            json!({"instanceIDs": ["i-a"], "nodeSelector": {}}),
            &[one_of],
        ),
        (
            "s",
            json!({"instanceIDs": []}),
            &["spec.instanceIDs", "at least 1"],
        ),
        (
            "s",
            json!({"instanceIDs": many}),
            &["spec.instanceIDs", "1000"],
        ),
        (
            "s",
            json!({"instanceIDs": ["i-a", "i-a"]}),
            &["spec.instanceIDs", "i-a"],
        ),
        (
            "s",
            json!({"instanceIDs": ["eni-a"]}),
            &["spec.instanceIDs[0]", "must be the ID of an instance"],
        ),
        (
            "s",
            json!({"networkInterfaceIDs": ["i-a"]}),
            &[
                "spec.networkInterfaceIDs[0]",
                "must be the ID of a network interface",
            ],
        ),
        (
            "s",
            json!({"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}}),
            &[
                "spec.nodeSelector.matchExpressions[0].values",
                "must not be empty for In",
            ],
        ),
        (
            "s",
            json!({"nodeSelector": {"matchExpressions": [{"key": "a", "operator": "Like"}]}}),
            &["operator", "DoesNotExist"],
        ),
        (
            "s",
            json!({"nodeSelector": {"matchLabels": {"a": "b c"}}}),
            &["spec.nodeSelector.matchLabels"],
        ),
        (
            "s",
            json!({"instanceIDs": ["i-a"], "region": "cn-hangzhou-b"}),
            &["spec.region", "must be a region, not a zone"],
        ),
        (
            &long,
            all.clone(),
            &["metadata.name", "at most 63 characters"],
        ),
    ] {
        assert_refused(&env, name, spec, words).await;
    }
    apply(
        &env,
        &"s".repeat(63),
        json!({"nodeSelector": {"matchLabels": {"none": env.name}}}),
    )
    .await?;
    Ok(())
}

/// The API server refuses the set in these words.
async fn assert_refused(env: &TestEnv, name: &str, spec: Value, words: &[&str]) {
    let said = match apply(env, name, spec.clone()).await {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    };
    for word in words {
        assert!(
            said.contains(word),
            "{name} {spec}: no {word:?} in {said:?}"
        );
    }
}

#[tokio::test]
async fn wrong_tags_are_refused_with_the_field_and_the_fix() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let many_tags: BTreeMap<_, _> = (0..21).map(|at| (format!("k{at}"), "v")).collect();
    let one_of =
        "must set exactly one of nodeSelector, instanceTags, instanceIDs and networkInterfaceIDs";
    for (spec, words) in [
        (
            json!({"instanceIDs": ["i-a"], "instanceTags": {"a": "b"}}),
            &[one_of][..],
        ),
        (
            json!({"instanceTags": {}}),
            &["spec.instanceTags", "at least 1"],
        ),
        (
            json!({"instanceTags": many_tags}),
            &["spec.instanceTags", "at most 20"],
        ),
        (
            json!({"instanceTags": {"": "b"}}),
            &["spec.instanceTags", "must have keys of 1 to 128 characters"],
        ),
        (
            json!({"instanceTags": {"a": "b".repeat(129)}}),
            &["spec.instanceTags.a", "128"],
        ),
    ] {
        assert_refused(&env, "s", spec, words).await;
    }
    Ok(())
}

#[tokio::test]
async fn region_and_account_of_a_set_are_immutable() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let all = json!({"instanceIDs": ["i-a"]});
    apply(&env, "fixed", all.clone()).await?;
    for (change, field) in [
        (json!({"region": "cn-beijing"}), "spec.region"),
        (json!({"accountRef": {"name": "other"}}), "spec.accountRef"),
    ] {
        let mut spec = all.clone();
        if let (Some(spec), Some(change)) = (spec.as_object_mut(), change.as_object()) {
            spec.extend(change.clone());
        }
        let said = apply(&env, "fixed", spec)
            .await
            .err()
            .map(|error| error.to_string());
        let said = said.unwrap_or_default();
        assert!(
            said.contains(field) && said.contains("is immutable; delete this set"),
            "{said}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_second_object_on_an_edge_takes_it_over_from_the_set() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("by-hand", "i-a", "sg-web", json!({})).await?;
    env.until_reason("by-hand", "Joined").await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a"]})).await?;
    until(&env, "web", "AllMembers").await?;
    assert_eq!(members(&env).await?.len(), 2);
    // From single objects to a set: no call.
    env.delete("by-hand").await?;
    env.until_deleted("by-hand").await?;
    assert_eq!(env.calls("JoinSecurityGroup").await?, 1);
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    assert!(env.is_member("i-a", "sg-web").await?);
    Ok(())
}
