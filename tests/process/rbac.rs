//! The rights in deploy/ are those that the operator uses, no more and no less, and it reads no Secret that it was not pointed
//! to.

use std::collections::BTreeSet;
use std::path::Path;

use k8s_openapi::api::core::v1::{Namespace, Secret, ServiceAccount};
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt as _};
use security_group_operator::api::{ACCOUNT_FINALIZER, CloudAccount, ClusterCloudAccount};
use serde_json::{Value, json};

use crate::binaries;
use crate::support::audit::AuditEvent;
use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::{Context, Result};
use crate::support::eventually::eventually;
use crate::support::operator::{self, NAMESPACE, Operator, Options};
use crate::support::sets;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
- {id: sg-cache}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
";
const OPERATOR: &str = "system:serviceaccount:security-group-operator:security-group-operator";
/// The Role that is not bound by `deploy/` itself.
const SECRETS_ROLE: &str = "security-group-operator-secrets";

/// One right: which role grants it, group, resource with subresource, verb.
type Right = (String, String, String, String);

#[tokio::test]
async fn every_right_is_used_and_every_use_has_a_right() -> Result<()> {
    let binaries = binaries!();
    // Of its own: the requests of every operator on it are counted.
    let plane = ControlPlane::start().await?;
    let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
    operator::install(&plane, &deploy).await?;
    // None of them is in the way of what the operator does.
    operator::bind_policies(&plane, &deploy).await?;
    let env = TestEnv::start_on(&plane, &binaries, INVENTORY).await?;
    let endpoint = env.simulator.endpoint();
    let options = Options {
        binary: binaries.operator.clone(),
        // CloudAccounts name no endpoints.
        arguments: vec![
            format!("--ecs-endpoint={endpoint}"),
            format!("--sts-endpoint={endpoint}"),
            "--leader-elect".to_owned(),
        ],
        environment: Vec::new(),
    };
    let _operator = Operator::start(&plane, options).await?;
    tenant_account(&env).await?;
    keyless_account(&env).await?;
    edges_of_all_kinds(&env).await?;

    let granted = granted(&operator::render(&plane, &deploy).await?)?;
    // The audit log is written after the answer.
    let mut used = BTreeSet::new();
    let complete = eventually("all rights are used", async || {
        used = uses(&plane)?.iter().filter_map(right).collect();
        Ok(granted.is_subset(&used))
    })
    .await;
    let unused: Vec<_> = granted.difference(&used).collect();
    assert!(complete.is_ok(), "granted and never used: {unused:?}");
    let ungranted: Vec<_> = used.difference(&granted).collect();
    assert!(ungranted.is_empty(), "used and not granted: {ungranted:?}");
    let refused: Vec<_> = uses(&plane)?
        .into_iter()
        // Before its namespace bound the role: that is expected.
        .filter(|event| event.code == 403 && !is_tenant_secret(event) && !is_token(event))
        .collect();
    assert!(refused.is_empty(), "{refused:?}");
    let verbs_on_tenant_secrets: BTreeSet<_> = uses(&plane)?
        .into_iter()
        .filter(is_tenant_secret)
        .map(|event| (event.verb, event.name))
        .collect();
    assert_eq!(
        verbs_on_tenant_secrets,
        BTreeSet::from([("get".to_owned(), "own".to_owned())]),
        "a Secret of a tenant is read by the name that its CloudAccount gives"
    );
    let tokens: BTreeSet<_> = uses(&plane)?
        .into_iter()
        .filter(is_token)
        .map(|event| (event.verb, event.namespace, event.name))
        .collect();
    assert_eq!(
        tokens,
        BTreeSet::from([(
            "create".to_owned(),
            env.name.clone(),
            "membership".to_owned()
        )]),
        "tokens are requested for the service account that the CloudAccount names, in its own namespace"
    );
    Ok(())
}

/// A `CloudAccount` without a key, with the manual's Role: refused, then bound, then usable.
async fn keyless_account(env: &TestEnv) -> Result<()> {
    let request = http::Request::get("/openid/v1/jwks").body(Vec::new())?;
    let keys: Value = env.client.request(request).await?;
    let arn = |what: &str| format!("acs:ram::{}:{what}", env.account);
    let provider = json!({"name": "cluster", "account": env.account, "issuer": "https://kubernetes.default.svc", "keys": keys});
    env.change_cloud(json!({"addOidcProvider": provider}))
        .await?;
    let subject = format!("system:serviceaccount:{}:membership", env.name);
    let trust = json!({"Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole",
        "Principal": {"Federated": [arn("oidc-provider/cluster")]},
        "Condition": {"StringEquals": {"oidc:sub": subject}}}]});
    let role = json!({"name": "web", "account": env.account, "trustPolicy": trust});
    env.change_cloud(json!({"addRole": role})).await?;
    let service_accounts: Api<ServiceAccount> = Api::namespaced(env.client.clone(), &env.name);
    let service_account = serde_json::from_value(json!({"metadata": {"name": "membership"}}))?;
    service_accounts
        .create(&PostParams::default(), &service_account)
        .await?;
    let accounts: Api<CloudAccount> = Api::namespaced(env.client.clone(), &env.name);
    let oidc = json!({"roleARN": arn("role/web"), "oidcProviderARN": arn("oidc-provider/cluster"), "serviceAccountName": "membership"});
    let account = serde_json::from_value(json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "CloudAccount",
        "metadata": {"name": "keyless"}, "spec": {"credentials": {"oidc": oidc}},
    }))?;
    accounts.create(&PostParams::default(), &account).await?;
    until_account(&accounts, "keyless", "TokenForbidden", |message| {
        message.contains("resourceNames: [membership]") && message.contains(&env.name)
    })
    .await?;
    let roles: Api<Role> = Api::namespaced(env.client.clone(), &env.name);
    let role = serde_json::from_value(json!({
        "metadata": {"name": "token"},
        "rules": [{"apiGroups": [""], "resources": ["serviceaccounts/token"], "resourceNames": ["membership"], "verbs": ["create"]}],
    }))?;
    roles.create(&PostParams::default(), &role).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(env.client.clone(), &env.name);
    let binding = serde_json::from_value(json!({
        "metadata": {"name": "token"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "token"},
        "subjects": [{"kind": "ServiceAccount", "name": "security-group-operator", "namespace": NAMESPACE}],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    until_account(&accounts, "keyless", "CredentialsAccepted", |message| {
        message.contains("assumed-role/web/")
    })
    .await
}

/// A `CloudAccount` in the tenant's namespace: refused, then bound, then usable.
async fn tenant_account(env: &TestEnv) -> Result<()> {
    let secrets: Api<Secret> = Api::namespaced(env.client.clone(), &env.name);
    for name in ["own", "of-somebody-else"] {
        let secret = serde_json::from_value(json!({
            "metadata": {"name": name},
            "stringData": {"accessKeyID": "testid", "accessKeySecret": "testsecret"},
        }))?;
        secrets.create(&PostParams::default(), &secret).await?;
    }
    let accounts: Api<CloudAccount> = Api::namespaced(env.client.clone(), &env.name);
    let account = serde_json::from_value(json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": "CloudAccount",
        "metadata": {"name": "own"}, "spec": {"credentials": {"secretRef": {"name": "own"}}},
    }))?;
    accounts.create(&PostParams::default(), &account).await?;
    until_account(&accounts, "own", "SecretForbidden", |message| {
        message.contains("allows to get this Secret")
            && message.contains(SECRETS_ROLE)
            && message.contains(&env.name)
    })
    .await?;
    // The right to this one Secret is enough, as docs/user/accounts.md shows.
    let roles: Api<Role> = Api::namespaced(env.client.clone(), &env.name);
    let role = serde_json::from_value(json!({
        "metadata": {"name": "security-group-operator-secret"},
        "rules": [{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["own"], "verbs": ["get"]}],
    }))?;
    roles.create(&PostParams::default(), &role).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(env.client.clone(), &env.name);
    let binding = serde_json::from_value(json!({
        "metadata": {"name": "security-group-operator-secret"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "security-group-operator-secret"},
        "subjects": [{"kind": "ServiceAccount", "name": "security-group-operator", "namespace": NAMESPACE}],
    }))?;
    bindings.create(&PostParams::default(), &binding).await?;
    until_account(&accounts, "own", "CredentialsAccepted", |_| true).await
}

async fn until_account(
    accounts: &Api<CloudAccount>,
    name: &str,
    reason: &str,
    says: impl Fn(&str) -> bool,
) -> Result<()> {
    eventually(&format!("the CloudAccount says {reason}"), async || {
        let status = accounts.get(name).await?.status;
        Ok(status
            .iter()
            .flat_map(|status| &status.conditions)
            .any(|condition| {
                condition.type_ == "Ready" && condition.reason == reason && says(&condition.message)
            }))
    })
    .await
}

/// Both kinds of account, repairs, a hand-over, deletions, a namespace with a new label.
async fn edges_of_all_kinds(env: &TestEnv) -> Result<()> {
    let own = json!({"accountRef": {"kind": "CloudAccount", "name": "own"}});
    env.apply("own", "i-web", "sg-cache", own).await?;
    env.until_reason("own", "Joined").await?;
    env.apply("a", "i-web", "sg-web", json!({})).await?;
    env.until_reason("a", "Joined").await?;
    // The same transition twice: whether the second event is new or a patch of the first, the right to it is asked for.
    for repair in 1..=2 {
        let joins = env.effects("JoinSecurityGroup").await?;
        env.change_cloud(json!({"leave": {"target": "i-web", "securityGroupId": "sg-web"}}))
            .await?;
        env.request_reconcile("a").await?;
        eventually(&format!("repair {repair}"), async || {
            Ok(env.effects("JoinSecurityGroup").await? > joins)
        })
        .await?;
        env.until_event("a", "DriftRepaired").await?;
    }
    env.apply("b", "i-web", "sg-web", json!({})).await?;
    env.until_reason("b", "Shared").await?;
    let namespaces: Api<Namespace> = Api::all(env.client.clone());
    let label = json!({"metadata": {"labels": {"team": "web"}}});
    namespaces
        .patch(&env.name, &PatchParams::default(), &Patch::Merge(&label))
        .await?;
    accounts_are_kept(env).await?;
    let account = json!({"kind": "ClusterCloudAccount", "name": env.name});
    sets::exercise(&env.client, &env.name, &account).await?;
    sets::select_nodes(&env.client, &env.name, &account).await?;
    for name in ["a", "b", "own"] {
        env.delete(name).await?;
        env.until_deleted(name).await?;
    }
    assert!(!env.is_member("i-web", "sg-web").await?);
    Ok(())
}

/// Both accounts have the finalizer: what was joined needs them.
async fn accounts_are_kept(env: &TestEnv) -> Result<()> {
    let own: Api<CloudAccount> = Api::namespaced(env.client.clone(), &env.name);
    let all: Api<ClusterCloudAccount> = Api::all(env.client.clone());
    let is_kept = |finalizers: &[String]| finalizers.iter().any(|name| name == ACCOUNT_FINALIZER);
    eventually("the accounts have the finalizer", async || {
        let (own, all) = (own.get("own").await?, all.get(&env.name).await?);
        Ok(is_kept(own.finalizers()) && is_kept(all.finalizers()))
    })
    .await
}

/// What the operator has asked the API server so far.
fn uses(plane: &ControlPlane) -> Result<Vec<AuditEvent>> {
    let events = plane.audit_events()?;
    Ok(events
        .into_iter()
        .filter(|event| event.user == OPERATOR)
        .collect())
}

fn is_tenant_secret(event: &AuditEvent) -> bool {
    event.resource == "secrets" && event.namespace != NAMESPACE
}

/// A namespace grants this right by a Role of its own, for service accounts by their names.
fn is_token(event: &AuditEvent) -> bool {
    event.resource == "serviceaccounts" && event.subresource == "token"
}

/// The right that a request needs, and which role must grant it.
fn right(event: &AuditEvent) -> Option<Right> {
    // The version of the server and the like: open to everybody.
    if event.resource.is_empty() || is_token(event) {
        return None;
    }
    let role = match (event.resource.as_str(), event.namespace.as_str()) {
        ("secrets" | "leases", NAMESPACE) => "Role security-group-operator",
        ("secrets", _) => "ClusterRole security-group-operator-secrets",
        _ => "ClusterRole security-group-operator",
    };
    let resource = match event.subresource.as_str() {
        "" => event.resource.clone(),
        subresource => format!("{}/{subresource}", event.resource),
    };
    Some((
        role.to_owned(),
        event.api_group.clone(),
        resource,
        event.verb.clone(),
    ))
}

/// Every right that `deploy/` gives the operator, and those that it may be given by a namespace.
fn granted(deploy: &[DynamicObject]) -> Result<BTreeSet<Right>> {
    let objects: Vec<Value> = deploy
        .iter()
        .map(serde_json::to_value)
        .collect::<Result<_, _>>()?;
    let mut roles = bound_roles(&objects)?;
    assert!(
        roles.insert(format!("ClusterRole {SECRETS_ROLE}")),
        "{SECRETS_ROLE} is for namespaces to bind"
    );
    let mut rights = BTreeSet::new();
    for object in &objects {
        let kind = text(object, "/kind")?;
        let role = format!("{kind} {}", text(object, "/metadata/name")?);
        if !kind.ends_with("Role") || !roles.remove(&role) {
            continue;
        }
        for rule in list(object, "/rules") {
            for (group, resource) in resources(rule) {
                // Asked by OwnerReferencesPermissionEnforcement, which is on here, and by no request.
                if resource == "securitygroupmembershipsets/finalizers" {
                    continue;
                }
                for verb in words(rule, "verbs") {
                    assert!(
                        ![&group, &resource, &verb]
                            .into_iter()
                            .any(|word| word == "*"),
                        "{role} grants everything of something"
                    );
                    rights.insert((role.clone(), group.clone(), resource.clone(), verb));
                }
            }
        }
    }
    assert!(roles.is_empty(), "not in deploy/: {roles:?}");
    assert!(rights.len() > 10, "{rights:?}");
    Ok(rights)
}

/// The roles that are bound in `deploy/`, all of them to the operator.
fn bound_roles(objects: &[Value]) -> Result<BTreeSet<String>> {
    let mut roles = BTreeSet::new();
    for object in objects {
        if !text(object, "/kind")?.ends_with("RoleBinding") {
            continue;
        }
        let operator = json!({"kind": "ServiceAccount", "name": "security-group-operator", "namespace": NAMESPACE});
        assert_eq!(object["subjects"], json!([operator]), "{object}");
        let (kind, name) = (
            text(object, "/roleRef/kind")?,
            text(object, "/roleRef/name")?,
        );
        roles.insert(format!("{kind} {name}"));
    }
    Ok(roles)
}

/// What a rule is about: group and resource, or no group and a path.
fn resources(rule: &Value) -> Vec<(String, String)> {
    let groups = words(rule, "apiGroups");
    let of_groups = groups.iter().flat_map(|group| {
        let resources = words(rule, "resources").into_iter();
        resources.map(|resource| (group.clone(), resource))
    });
    let paths = words(rule, "nonResourceURLs").into_iter();
    of_groups
        .chain(paths.map(|path| (String::new(), path)))
        .collect()
}

fn words(rule: &Value, field: &str) -> Vec<String> {
    let words = list(rule, &format!("/{field}")).iter();
    words.filter_map(Value::as_str).map(str::to_owned).collect()
}

fn list<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    let list = object.pointer(pointer).and_then(Value::as_array);
    list.map_or(&[], Vec::as_slice)
}

fn text<'a>(object: &'a Value, pointer: &str) -> Result<&'a str> {
    let text = object.pointer(pointer).and_then(Value::as_str);
    text.context(format!("{pointer} is missing in {object}"))
}
