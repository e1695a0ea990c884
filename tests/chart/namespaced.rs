//! A release with `namespaces`: the operator works there with Roles only, and uses no right that it lacks.

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding};
use kube::api::{ListParams, ObjectMeta, PostParams};
use kube::{Api, Client};
use security_group_operator::api::{CloudAccount, ClusterCloudAccount, SecurityGroupMembership};
use serde_json::{Value, json};

use crate::helm::{Helm, chart};
use crate::support::audit::AuditEvent;
use crate::support::control_plane::ControlPlane;
use crate::support::env::{message, ready};
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::port;
use crate::support::process::Child;
use crate::support::sets;
use crate::support::simulator::{SimulatorProcess, probe};
use crate::support::tempdir::TempDir;
use crate::{BINARY, NAME};

const LIMIT: std::time::Duration = std::time::Duration::from_secs(60);
const INVENTORY: &str = "
accessKeys: [{id: testid, secret: testsecret}]
securityGroups:
- {id: sg-base}
- {id: sg-web}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
";

async fn create_namespace(client: &Client, name: &str) -> Result<()> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    namespaces
        .create(&PostParams::default(), &namespace)
        .await?;
    Ok(())
}

#[tokio::test]
async fn operator_with_roles_only_serves_cloud_accounts() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let helm = Helm::on(&plane).await?;
    let client = plane.admin_client().await?;
    for name in ["team-a", "team-b"] {
        create_namespace(&client, name).await?;
    }
    // CRDs, roles of users and admission policies come with another release, which names the operator of this one (docs/sizing.md).
    let operators =
        format!("--set=admissionPolicies.operators={{system:serviceaccount:{NAME}:{NAME}}}");
    helm.run(&[
        "install",
        "platform",
        &chart().display().to_string(),
        "--namespace=platform",
        "--create-namespace",
        "--set=namespaces={platform}",
        &operators,
    ])
    .await?;
    helm.run(&[
        "install",
        NAME,
        &chart().display().to_string(),
        "--namespace",
        NAME,
        "--create-namespace",
        "--set=namespaces={team-a}",
        "--set=crds.install=false,userRoles.create=false,admissionPolicies.create=false",
    ])
    .await?;
    let files = TempDir::new("namespaced")?;
    let inventory = files.path().join("inventory.yaml");
    std::fs::write(&inventory, INVENTORY)?;
    let simulator = SimulatorProcess::start(
        env!("CARGO_BIN_EXE_ecs-simulator").as_ref(),
        &["--inventory", &inventory.display().to_string()],
    )
    .await?;
    let (operator, mut process) = start(&plane, &simulator.endpoint()).await?;
    probe(&operator).await?;

    for namespace in ["team-a", "team-b"] {
        account_and_memberships(&client, namespace).await?;
    }
    let memberships: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), "team-a");
    let until = async |name: &str, reason: &str| -> Result<SecurityGroupMembership> {
        eventually(&format!("{name} says {reason}"), async || {
            let membership = memberships.get(name).await?;
            Ok(ready(&membership).is_some_and(|ready| ready.reason == reason))
        })
        .await?;
        Ok(memberships.get(name).await?)
    };
    until("own", "Joined").await?;
    let refused = until("cluster", "AccountNotReady").await?;
    assert!(
        message(&refused).contains("this operator may not read ClusterCloudAccounts"),
        "{}",
        message(&refused)
    );
    // Another object of the same membership becomes its owner when the first is deleted.
    let successor = json!({
        "metadata": {"name": "successor"},
        "spec": {
            "region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web",
            "accountRef": {"kind": "CloudAccount", "name": "own"},
        },
    });
    memberships
        .create(&PostParams::default(), &serde_json::from_value(successor)?)
        .await?;
    until("successor", "Shared").await?;
    memberships
        .delete("own", &kube::api::DeleteParams::default())
        .await?;
    until("successor", "Joined").await?;
    eventually("it is gone", async || {
        Ok(memberships.get_opt("own").await?.is_none())
    })
    .await?;
    // The other namespace is not the operator's.
    let others: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), "team-b");
    let other = others.get("own").await?;
    assert_eq!(ready(&other).context("a condition")?.reason, "Pending");

    let account = json!({"kind": "CloudAccount", "name": "own"});
    sets::exercise(&client, "team-a", &account).await?;
    every_right_is_used(&plane).await?;
    another_release_works_in_another_namespace(&helm).await?;
    half_of_the_right_ends_nothing(&plane, &client).await?;
    right_to_cluster_accounts_is_noticed(&helm, &mut process).await
}

/// Without the namespaces, whose labels grants name, the accounts are of no use. The operator starts as without both.
async fn half_of_the_right_ends_nothing(plane: &ControlPlane, client: &Client) -> Result<()> {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let role = serde_json::from_value(json!({
        "metadata": {"name": "half"},
        "rules": [{
            "apiGroups": ["security-group-operator.io"], "resources": ["clustercloudaccounts"],
            "verbs": ["get", "list", "watch"],
        }],
    }))?;
    roles.create(&PostParams::default(), &role).await?;
    let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
    let binding = serde_json::from_value(json!({
        "metadata": {"name": "half"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "half"},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAME}],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    let user = format!("system:serviceaccount:{NAME}:{NAME}");
    let of_operator = plane.client_as(&user).await?;
    let accounts: Api<ClusterCloudAccount> = Api::all(of_operator);
    eventually("the accounts can be listed", async || {
        Ok(accounts.list(&ListParams::default()).await.is_ok())
    })
    .await?;
    check(&plane.kubeconfig_for_service_account(NAME, NAME).await?).await
}

/// `security-group-operator check` finds nothing that keeps the operator from its work.
async fn check(kubeconfig: &Path) -> Result<()> {
    let check = tokio::process::Command::new(BINARY)
        .args(["--namespace=team-a", "--leader-elect", "check"])
        .env("KUBECONFIG", kubeconfig)
        .output()
        .await?;
    assert!(check.status.success(), "{check:?}");
    Ok(())
}

/// An operator that gets the right later ends, and its next start serves `ClusterCloudAccounts`.
async fn right_to_cluster_accounts_is_noticed(helm: &Helm, process: &mut Child) -> Result<()> {
    let chart = chart().display().to_string();
    helm.run(&[
        "upgrade",
        NAME,
        &chart,
        "--namespace",
        NAME,
        "--reuse-values",
        "--set=rbac.clusterCloudAccounts=true",
    ])
    .await?;
    // It asks once a minute.
    assert_eq!(process.wait(LIMIT * 2).await?, 0);
    let said = std::fs::read_to_string(process.log())?;
    assert!(said.contains("may list ClusterCloudAccounts now"), "{said}");
    Ok(())
}

/// And not in the same one.
async fn another_release_works_in_another_namespace(helm: &Helm) -> Result<()> {
    let chart = chart().display().to_string();
    let beside = async |name: &str, namespaces: &str| {
        let install = [
            "install",
            name,
            &chart,
            "--create-namespace",
            "--namespace",
            name,
        ];
        let values = [
            namespaces,
            "--set=crds.install=false,userRoles.create=false,admissionPolicies.create=false",
        ];
        helm.try_run(&[&install[..], &values].concat()).await
    };
    let (worked, said) = beside("third", "--set=namespaces={team-b,team-a}").await?;
    assert!(
        !worked
            && said.contains(&format!(
                "release {NAME} in namespace {NAME} already has the Role {NAME} of namespace team-a"
            )),
        "{said}"
    );
    let (worked, said) = beside("second", "--set=namespaces={team-b}").await?;
    assert!(worked, "{said}");
    Ok(())
}

/// The operator as its pod would run, ready: its URL of `/readyz` and its process.
async fn start(plane: &ControlPlane, endpoint: &str) -> Result<(String, Child)> {
    let kubeconfig = plane.kubeconfig_for_service_account(NAME, NAME).await?;
    let port = port::free()?;
    let mut command = std::process::Command::new(BINARY);
    command
        .args(["--namespace=team-a", "--log-format=json", "--leader-elect"])
        .arg(format!("--listen=127.0.0.1:{port}"))
        .arg(format!("--ecs-endpoint={endpoint}"))
        .arg(format!("--sts-endpoint={endpoint}"))
        .env("KUBECONFIG", &kubeconfig);
    let log = plane.directory().join("operator.log");
    let mut child = Child::spawn(NAME, &command, &log)?;
    let url = format!("http://127.0.0.1:{port}/readyz");
    child.wait_until(LIMIT, async || probe(&url).await).await?;
    let said = std::fs::read_to_string(&log)?;
    let told = said
        .lines()
        .filter(|line| line.contains("may not list ClusterCloudAccounts"));
    assert_eq!(told.count(), 1, "{said}");
    check(&kubeconfig).await?;
    Ok((url, child))
}

async fn account_and_memberships(client: &Client, namespace: &str) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let secret = serde_json::from_value(json!({
        "metadata": {"name": "aliyun"},
        "stringData": {"accessKeyID": "testid", "accessKeySecret": "testsecret"},
    }))?;
    secrets.create(&PostParams::default(), &secret).await?;
    let accounts: Api<CloudAccount> = Api::namespaced(client.clone(), namespace);
    let account = serde_json::from_value(json!({
        "metadata": {"name": "own"}, "spec": {"credentials": {"secretRef": {"name": "aliyun"}}},
    }))?;
    accounts.create(&PostParams::default(), &account).await?;
    let memberships: Api<SecurityGroupMembership> = Api::namespaced(client.clone(), namespace);
    for (name, account) in [
        ("own", json!({"kind": "CloudAccount", "name": "own"})),
        (
            "cluster",
            json!({"kind": "ClusterCloudAccount", "name": "default"}),
        ),
    ] {
        let membership = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {
                "region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web", "accountRef": account,
            },
        }))?;
        memberships
            .create(&PostParams::default(), &membership)
            .await?;
    }
    Ok(())
}

/// Of the Roles in team-a and for the Lease; and no request was refused but those that show that there are Roles only.
async fn every_right_is_used(plane: &ControlPlane) -> Result<()> {
    let objects = Helm::alone()
        .await?
        .objects(&["--set=namespaces={team-a}"])
        .await?;
    let roles = objects.iter().filter(|object| object["kind"] == "Role");
    let words = |rule: &Value, field: &str| -> Vec<String> {
        rule[field]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .map(str::to_owned)
            .collect()
    };
    let mut granted = BTreeSet::new();
    for rule in roles.flat_map(|role| role["rules"].as_array().into_iter().flatten()) {
        for resource in words(rule, "resources") {
            // Asked by OwnerReferencesPermissionEnforcement, and by no request.
            if resource.ends_with("/finalizers") {
                continue;
            }
            granted.extend(
                words(rule, "verbs")
                    .into_iter()
                    .map(|verb| (resource.clone(), verb)),
            );
        }
    }
    let user = format!("system:serviceaccount:{NAME}:{NAME}");
    let requests = || -> Result<Vec<_>> {
        let events = plane.audit_events()?.into_iter();
        Ok(events
            .filter(|event| event.user == user && !event.resource.is_empty())
            .collect())
    };
    let mut left = BTreeSet::new();
    let waited = eventually("every right is used", async || {
        let exercised: BTreeSet<_> = requests()?
            .into_iter()
            .filter(|event| event.namespace == "team-a" || is_lease(event))
            .map(|event| {
                let resource = match event.subresource.as_str() {
                    "" => event.resource,
                    subresource => format!("{}/{subresource}", event.resource),
                };
                (resource, event.verb)
            })
            .collect();
        left = granted.difference(&exercised).cloned().collect();
        Ok(left.is_empty())
    })
    .await;
    assert!(waited.is_ok(), "granted and never used: {left:?}");
    for event in requests()? {
        let is_of_cluster = event.namespace.is_empty() && event.verb == "list";
        let asked = ["clustercloudaccounts", "securitygroupmemberships"];
        let is_question = is_of_cluster && asked.contains(&event.resource.as_str());
        assert_eq!(event.code == 403, is_question, "{event:?}");
        let is_own = event.namespace == "team-a" || is_lease(&event);
        assert!(is_own || is_question, "{event:?}");
    }
    Ok(())
}

fn is_lease(event: &AuditEvent) -> bool {
    event.resource == "leases" && event.namespace == NAME
}

/// A user who may write `CloudAccounts` and may not get Secrets.
#[tokio::test]
async fn only_who_may_get_a_secret_may_name_it() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let helm = Helm::on(plane).await?;
    let client = plane.admin_client().await?;
    create_namespace(&client, "team-web").await?;
    helm.run(&[
        "install",
        NAME,
        &chart().display().to_string(),
        "--namespace",
        NAME,
        "--create-namespace",
    ])
    .await?;
    let roles: Api<k8s_openapi::api::rbac::v1::Role> = Api::namespaced(client.clone(), "team-web");
    let role = serde_json::from_value(json!({
        "metadata": {"name": "author"},
        "rules": [{"apiGroups": ["security-group-operator.io"], "resources": ["cloudaccounts"], "verbs": ["create"]}],
    }))?;
    roles.create(&PostParams::default(), &role).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(client.clone(), "team-web");
    for (user, role) in [
        (
            "author",
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "author"}),
        ),
        (
            "editor",
            json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "edit"}),
        ),
    ] {
        let binding = serde_json::from_value(json!({
            "metadata": {"name": user}, "roleRef": role,
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        }))?;
        bindings.create(&PostParams::default(), &binding).await?;
    }
    let files = TempDir::new("account")?;
    let file = files.path().join("account.yaml");
    std::fs::write(
        &file,
        "apiVersion: security-group-operator.io/v1alpha1\nkind: CloudAccount\nmetadata: {name: own}\nspec: {credentials: {secretRef: {name: of-others}}}\n",
    )?;
    let create = async |user: &str| -> Result<(bool, String)> {
        let mut kubectl = tokio::process::Command::from(plane.kubectl());
        let output = kubectl
            .args([
                "--as",
                user,
                "-n",
                "team-web",
                "create",
                "--dry-run=server",
                "-f",
            ])
            .arg(&file)
            .output()
            .await?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(said)?))
    };
    // The API server takes a moment until it applies a new policy, and until `edit` has our rights.
    let mut said = String::new();
    let refused = eventually("the author is refused by the policy", async || {
        said = create("author").await?.1;
        Ok(said.contains("you may not get Secret of-others"))
    });
    refused.await.context(&said)?;
    eventually("the editor is not", async || Ok(create("editor").await?.0)).await
}
