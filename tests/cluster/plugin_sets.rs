//! `kubectl sgm` and sets, beside a real API server, the operator and the simulated cloud.

use std::collections::BTreeSet;

use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::binaries;
use crate::plugin::{sgm, sgm_with_key};
use crate::plugin_docs::assert_documented;
use crate::sets::{apply, delete_node, node, until};
use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
- {id: sg-new}
instances:
- {id: i-a, securityGroupIds: [sg-base]}
- {id: i-b, securityGroupIds: [sg-base, sg-web]}
- {id: i-k, securityGroupIds: [sg-base], tags: {karpenter.sh/nodepool: np}}
networkInterfaces:
- {id: eni-a, instanceId: i-a, securityGroupIds: [sg-base, sg-web]}
";

#[tokio::test]
async fn why_of_a_set_tells_targets_reasons_and_what_its_deletion_does() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a", "i-b", "i-k"]})).await?;
    eventually("two are members, and one cannot be", async || {
        let status = until(&env, "web", "KarpenterNode").await?.status;
        Ok(status.is_some_and(|status| status.ready_targets == Some(2)))
    })
    .await?;
    let ran = sgm(&["why", "sgmset/web", "-n", &env.name]).await?;
    assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    assert!(ran.out.lines().count() <= 24, "{}", ran.out);
    for told in [
        format!("Set           {}/web", env.name),
        "Selects       3 instances: i-a, i-b, i-k".to_owned(),
        format!("Group         sg-web (cn-hangzhou, ClusterCloudAccount {})", env.name),
        "Targets       3 selected, 2 in the group, 1 for which somebody must act".to_owned(),
        "Ready         False KarpenterNode, for ".to_owned(),
        "Not Ready     1 KarpenterNode, such as web-i-k-".to_owned(),
        "On deletion   the cluster deletes 3 memberships: 1 removed from the group, 1 kept, because the operator did not join it, 1 never joined; with kubectl delete --cascade=orphan they stay".to_owned(),
    ] {
        assert!(ran.out.contains(&told), "{told} is not in:\n{}", ran.out);
    }
    assert_documented("why sgmset/web", &ran, &env)?;
    let ran = sgm(&["why", "sgmset/web", "-n", &env.name, "-o", "json"]).await?;
    let value: serde_json::Value = serde_json::from_str(&ran.out)?;
    assert_eq!(value["notReady"][0]["memberships"], 1);
    assert_eq!(value["onDeletion"]["removed"], 1);

    // Who forgets the kind is told; the membership names its set; the table has both.
    let plain = sgm(&["why", "web", "-n", &env.name]).await?;
    assert_eq!(plain.code, 4);
    assert!(
        plain.line().ends_with("kubectl sgm why sgmset/web"),
        "{}",
        plain.err
    );
    let all = sgm(&["why", "-n", &env.name]).await?;
    let rows = all.table();
    assert_eq!(rows.len(), 3, "{}", all.out);
    assert_eq!(
        (rows[1][1], rows[1][5]),
        ("sgmset/web", "2/3"),
        "{}",
        all.out
    );
    let member = rows[2][1];
    let ran = sgm(&["why", &format!("sgm/{member}"), "-n", &env.name]).await?;
    assert!(
        ran.out.contains("\nSet           sgmset/web\n"),
        "{}",
        ran.out
    );

    let wrong = sgm(&["why", "pod/web", "-n", &env.name]).await?;
    assert_eq!(wrong.code, 2, "{}", wrong.err);
    Ok(())
}

#[tokio::test]
async fn members_and_groups_name_the_set_behind_a_membership() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a"]})).await?;
    until(&env, "web", "AllMembers").await?;
    let ran = sgm(&["members", "sg-web", "-n", &env.name]).await?;
    let rows = ran.table();
    assert_eq!(rows[0][4], "SET", "{}", ran.out);
    assert_eq!((rows[1][0], rows[1][4]), ("i-a", "web"), "{}", ran.out);
    let ran = sgm(&["groups", "--set", "web", "-n", &env.name]).await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let rows = ran.table();
    assert_eq!(rows.len(), 3, "{}", ran.out);
    assert_eq!(&rows[1][..4], ["i-a", "sg-base", "True", "<none>"]);
    assert_eq!((rows[2][1], rows[2][4]), ("sg-web", "web"), "{}", ran.out);
    let missing = sgm_with_key(&env, &["groups", "--set", "nobody", "-n", &env.name]).await?;
    assert_eq!(missing.code, 4);
    let told = format!(
        "there is no SecurityGroupMembershipSet nobody in namespace {}",
        env.name
    );
    assert!(missing.line().contains(&told), "{}", missing.err);
    let words = sgm(&["__complete", "why", "-n", &env.name, "sgms"]).await?;
    assert_eq!(words.out, "sgmset/web\t\n:4\n");
    Ok(())
}

/// What the plugin prints is applied: the set adopts everything, joins nothing, and leaves nothing when it is deleted.
#[tokio::test]
async fn adopted_sets_change_nothing_in_the_cloud() -> Result<()> {
    // IDs that no Node of another test has: they share the cluster.
    let inventory = INVENTORY
        .replace(" i-a,", " i-adopt1,")
        .replace(" i-b,", " i-adopt2,");
    let env = TestEnv::start(&binaries!(), &inventory).await?;
    let pool = json!({"pool": env.name});
    node(&env, "member", Some("cn-hangzhou.i-adopt2"), pool.clone()).await?;
    node(
        &env,
        "other",
        Some("cn-hangzhou.i-adopt1"),
        json!({"pool": "other"}),
    )
    .await?;
    let arguments = [
        "adopt",
        "--security-group=sg-web",
        "--region=cn-hangzhou",
        "--set=web",
        "--account",
        &env.name,
        "-n",
        &env.name,
    ];
    let ran = sgm(&[&arguments[..], &["--from-nodes"]].concat()).await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    let selector = format!(
        "nodeSelector:\n    matchLabels:\n      pool: {}\n",
        env.name
    );
    assert!(ran.out.contains(&selector), "{}", ran.out);
    assert!(ran.err.contains("1 member left out"), "{}", ran.err);
    let shown =
        "adopt --security-group sg-web --region cn-hangzhou --set web --from-nodes -n team-a";
    assert_documented(shown, &ran, &env)?;
    crate::plugin::apply(&ran.out).await?;
    until(&env, "web", "AllMembers").await?;

    // The interface has no Node: it is left, and goes into a set that lists it.
    let ran = sgm(&[&arguments[..], &["--set=interfaces"]].concat()).await?;
    assert_eq!(ran.code, 2, "the same flag twice: {}", ran.err);
    let mut by_ids = arguments;
    by_ids[3] = "--set=interfaces";
    let ran = sgm(&by_ids).await?;
    assert!(
        ran.out.contains("networkInterfaceIDs:\n  - eni-a") && !ran.out.contains("instanceIDs"),
        "{}",
        ran.out
    );
    crate::plugin::apply(&ran.out).await?;
    until(&env, "interfaces", "AllMembers").await?;
    assert_eq!(sgm(&arguments).await?.out, "", "nothing is left to adopt");

    let ran = sgm(&["drain", "--remove", "--yes", "-n", &env.name]).await?;
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert_eq!(ran.table().len(), 3, "{}", ran.out);
    for name in ["member", "other"] {
        delete_node(&env, name).await?;
    }
    for target in ["i-adopt2", "eni-a"] {
        assert!(env.is_member(target, "sg-web").await?, "{target}");
    }
    for action in ["JoinSecurityGroup", "LeaveSecurityGroup"] {
        assert_eq!(env.calls(action).await?, 0, "{action}");
    }
    Ok(())
}

/// A set would create its memberships again, and put their policies back: `drain` deletes it first.
#[tokio::test]
async fn drain_ends_sets_and_retains_what_they_joined() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    apply(&env, "web", json!({"instanceIDs": ["i-a"]})).await?;
    until(&env, "web", "AllMembers").await?;
    let ran = sgm(&["drain", "--retain", "-n", &env.name]).await?;
    assert_eq!(ran.code, 2, "{}", ran.err);
    assert!(
        ran.err.contains("1 membership and 1 set of namespace"),
        "{}",
        ran.err
    );
    assert_documented("drain --retain -n team-a", &ran, &env)?;
    let ran = sgm(&["drain", "--retain", "--yes", "-n", &env.name]).await?;
    assert_eq!(ran.code, 0, "{}{}", ran.out, ran.err);
    assert_documented("drain --retain --yes -n team-a", &ran, &env)?;
    assert!(env.is_member("i-a", "sg-web").await?);
    let left = sgm(&["why", "-n", &env.name]).await?;
    assert_eq!(
        left.err.trim_end(),
        "0 memberships and 0 sets, all of them Ready"
    );
    assert_eq!(env.calls("LeaveSecurityGroup").await?, 0);
    Ok(())
}

/// No operator can see within no time that a set is suspended.
#[tokio::test]
async fn drain_that_gives_up_leaves_sets_as_they_were() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let spec = json!({"instanceIDs": ["i-a"], "deletionPolicy": "Remove"});
    apply(&env, "web", spec).await?;
    until(&env, "web", "AllMembers").await?;
    let drain = [
        "drain",
        "--retain",
        "--yes",
        "--timeout=0s",
        "-n",
        &env.name,
    ];
    let ran = sgm(&drain).await?;
    assert_eq!(ran.code, 3, "{}{}", ran.out, ran.err);
    assert!(ran.err.contains("the sets are as before"), "{}", ran.err);
    let set = until(&env, "web", "AllMembers").await?;
    let spec = serde_json::to_value(&set.spec)?;
    assert_eq!(
        (&spec["suspend"], &spec["deletionPolicy"]),
        (&json!(false), &json!("Remove"))
    );
    assert_eq!(names(&env).await?.len(), 1);
    Ok(())
}

/// What `plan` says of a set, and what the operator then does with it.
async fn plan_then_apply(env: &TestEnv, spec: Value) -> Result<Value> {
    let mut all = json!({
        "region": "cn-hangzhou", "securityGroupID": "sg-web", "accountRef": {"name": env.name},
    });
    if let (Some(all), Value::Object(spec)) = (all.as_object_mut(), spec) {
        all.extend(spec);
    }
    let set = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "SecurityGroupMembershipSet",
        "metadata": {"name": "web", "namespace": env.name}, "spec": all,
    });
    let plane = ControlPlane::shared().await?;
    let file = plane.directory().join(format!("{}-set.json", env.name));
    std::fs::write(&file, set.to_string())?;
    let file = file.to_string_lossy().into_owned();
    let before = names(env).await?;
    let calls = [
        env.effects("JoinSecurityGroup").await?,
        env.effects("LeaveSecurityGroup").await?,
    ];
    if before.is_empty() {
        let ran = sgm(&["plan", "-n", &env.name, "-f", &file]).await?;
        assert_documented("plan -f set.yaml", &ran, env)?;
    }
    let ran = sgm(&["plan", "-o", "json", "-n", &env.name, "-f", &file]).await?;
    let planned: Value = serde_json::from_str(&ran.out).context(ran.err)?;
    let row = planned.pointer("/sets/0").context("a set")?.clone();
    let text = |row: &Value, field: &str| {
        let text = row.get(field).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    assert_eq!(ran.code == 0, text(&row, "ready") == "True", "{planned:#}");
    assert_eq!(names(env).await?, before, "it wrote");

    crate::plugin::apply(&set.to_string()).await?;
    until(env, "web", &text(&row, "reason")).await?;
    let mut expected = before;
    let (mut joins, mut leaves) = (calls[0], calls[1]);
    for row in planned
        .pointer("/memberships")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        match text(row, "change").as_str() {
            "created" => assert!(expected.insert(text(row, "name")), "{planned:#}"),
            "deleted" => assert!(expected.remove(&text(row, "name")), "{planned:#}"),
            _ => {}
        }
        joins += u64::from(text(row, "calls") == "JoinSecurityGroup");
        leaves += u64::from(text(row, "calls") == "LeaveSecurityGroup");
    }
    eventually("the memberships are as planned", async || {
        Ok(names(env).await? == expected)
    })
    .await
    .context(format!("{planned:#}"))?;
    assert_eq!(
        env.effects("JoinSecurityGroup").await?,
        joins,
        "{planned:#}"
    );
    assert_eq!(
        env.effects("LeaveSecurityGroup").await?,
        leaves,
        "{planned:#}"
    );
    Ok(planned)
}

/// The names of all memberships.
async fn names(env: &TestEnv) -> Result<BTreeSet<String>> {
    let objects = env.memberships().list(&ListParams::default()).await?;
    Ok(objects.items.iter().map(ResourceExt::name_any).collect())
}

#[tokio::test]
async fn plan_of_a_set_is_what_the_operator_then_does() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    // One is joined, one adopted, one is not there.
    let three = json!({"instanceIDs": ["i-a", "i-b", "i-gone"]});
    let planned = plan_then_apply(&env, three.clone()).await?;
    assert_eq!(planned["sets"][0]["calls"], "1xJoinSecurityGroup");
    assert_eq!(planned["sets"][0]["change"], "created");
    assert_eq!(planned["memberships"].as_array().map(Vec::len), Some(3));
    // Nothing is left to do, and the plan says so.
    let planned = plan_then_apply(&env, three).await?;
    assert_eq!(planned["memberships"], json!([]));
    assert_eq!(planned["sets"][0]["change"], "unchanged");
    assert_eq!(planned["sets"][0]["reason"], "AllMembers");
    // Into the new group first, then out of the old one; what was adopted stays in it.
    let two = json!({"instanceIDs": ["i-a", "i-b"], "securityGroupID": "sg-new"});
    let planned = plan_then_apply(&env, two).await?;
    assert_eq!(
        planned["sets"][0]["calls"],
        "2xJoinSecurityGroup,1xLeaveSecurityGroup"
    );
    // Policies are put on the memberships, and one that is not picked any more goes by the new ones.
    let one =
        json!({"instanceIDs": ["i-a"], "securityGroupID": "sg-new", "deletionPolicy": "Retain"});
    let planned = plan_then_apply(&env, one).await?;
    let changes: BTreeSet<&str> = planned["memberships"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|row| row["change"].as_str())
        .collect();
    assert_eq!(changes, ["deleted", "patched"].into(), "{planned:#}");
    assert!(env.is_member("i-b", "sg-new").await?);
    // Karpenter's instance is refused, which keeps the set from Ready.
    let karpenter = json!({"instanceIDs": ["i-a", "i-k"], "securityGroupID": "sg-new"});
    let planned = plan_then_apply(&env, karpenter).await?;
    assert_eq!(planned["sets"][0]["reason"], "KarpenterNode");

    // What is not granted creates nothing.
    env.write_account(json!([
        {"name": "one", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": ["sg-new"]}},
    ]))
    .await?;
    let refused = json!({"instanceIDs": ["i-a", "i-b"], "securityGroupID": "sg-web"});
    let planned = plan_then_apply(&env, refused).await?;
    assert_eq!(planned["sets"][0]["reason"], "NotGranted");
    assert_eq!(
        planned["memberships"].as_array().map(Vec::len),
        Some(1),
        "{planned:#}"
    );
    Ok(())
}

/// The file names another namespace than the context. What the person may not list in the cluster is listed there.
#[tokio::test]
async fn plan_of_a_person_with_rights_in_one_namespace_tells_what_goes() -> Result<()> {
    const GROUP: &str = "security-group-operator.io";
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let three = json!({"instanceIDs": ["i-a", "i-b", "i-gone"]});
    plan_then_apply(&env, three).await?;
    let person = format!("planner-{}", env.name);
    let rbac = "rbac.authorization.k8s.io/v1";
    let subjects =
        json!([{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": person}]);
    let role_of =
        |kind: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": person});
    let metadata = json!({"name": person});
    let own = json!({"name": person, "namespace": env.name});
    let everything = json!([{"apiGroups": [GROUP], "resources": ["*"], "verbs": ["*"]}]);
    let read = json!([
        {"apiGroups": [GROUP], "resources": ["clustercloudaccounts"], "verbs": ["get"]},
        {"apiGroups": [""], "resources": ["secrets", "namespaces"], "verbs": ["get"]},
    ]);
    for object in [
        json!({"apiVersion": rbac, "kind": "Role", "metadata": own, "rules": everything}),
        json!({"apiVersion": rbac, "kind": "RoleBinding", "metadata": own, "roleRef": role_of("Role"), "subjects": subjects}),
        json!({"apiVersion": rbac, "kind": "ClusterRole", "metadata": metadata, "rules": read}),
        json!({"apiVersion": rbac, "kind": "ClusterRoleBinding", "metadata": metadata, "roleRef": role_of("ClusterRole"), "subjects": subjects}),
    ] {
        crate::plugin::apply(&object.to_string()).await?;
    }
    let set = json!({
        "apiVersion": format!("{GROUP}/v1alpha1"), "kind": "SecurityGroupMembershipSet",
        "metadata": {"name": "web", "namespace": env.name},
        "spec": {
            "region": "cn-hangzhou", "securityGroupID": "sg-web", "accountRef": {"name": env.name},
            "instanceIDs": ["i-a", "i-gone"],
        },
    });
    let plane = ControlPlane::shared().await?;
    let file = plane.directory().join(format!("{}-one.json", env.name));
    std::fs::write(&file, set.to_string())?;
    let file = file.to_string_lossy().into_owned();
    let plan = [
        "plan", "-o", "json", "-f", &file, "-n", "default", "--as", &person,
    ];
    eventually("the person has the rights", async || {
        Ok(sgm(&plan).await?.code == 0)
    })
    .await?;
    let ran = sgm(&plan).await?;
    let planned: Value = serde_json::from_str(&ran.out).context(ran.err.clone())?;
    let rows = planned["memberships"].as_array().context("rows")?;
    let changes: Vec<&str> = rows
        .iter()
        .filter_map(|row| row["change"].as_str())
        .collect();
    assert_eq!(changes, ["deleted"], "{planned:#}");
    assert!(
        ran.err.contains(&format!("namespace {}", env.name)),
        "{}",
        ran.err
    );
    Ok(())
}
