//! The admission policies on a real API server: what a tenant may not write is refused at once, with the cause and the fix, and the
//! object beside it is accepted. docs/user/grants.md has the same rows.

use k8s_openapi::api::authorization::v1::SubjectAccessReview;
use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams, TypeMeta};
use kube::core::GroupVersionKind;
use kube::{Api, Client, ResourceExt as _};
use security_group_operator::api::INTENT_ANNOTATION;
use serde_json::{Value, json};

use crate::NAME;
use crate::helm::{Helm, repository};
use crate::support::control_plane::ControlPlane;
use crate::support::error::{Context as _, Error, Result};
use crate::support::eventually::eventually;
use crate::support::tempdir::TempDir;

/// A namespace whose user may write everything of ours in it, each status included, and nothing else.
struct Tenant {
    plane: &'static ControlPlane,
    admin: Client,
    user: Client,
    namespace: String,
}

impl Tenant {
    /// In a cluster with the chart's CRDs and policies. The policies hold.
    async fn new() -> Result<Self> {
        static INSTALLED: tokio::sync::OnceCell<()> = tokio::sync::OnceCell::const_new();
        let plane = ControlPlane::shared().await?;
        INSTALLED
            .get_or_try_init(|| async { install(plane).await })
            .await?;
        let admin = plane.admin_client().await?;
        let namespaces = objects(&admin, "Namespace", None);
        let object = json!({"metadata": {"generateName": "tenant-"}});
        let namespace = namespaces.create(object).await?.name_any();
        let tenant = Self {
            plane,
            user: plane.client_as(&namespace).await?,
            admin,
            namespace,
        };
        let everything = json!({"apiGroups": ["security-group-operator.io"], "resources": ["*"], "verbs": ["*"]});
        tenant.allow(&tenant.namespace, "ours", everything).await?;
        Ok(tenant)
    }

    /// Gives a user a right in the namespace. It holds: the API server reads roles from a watch.
    async fn allow(&self, user: &str, role: &str, allowed: Value) -> Result<()> {
        let namespace = Some(self.namespace.as_str());
        let metadata = json!({"name": role});
        let rights = json!({"metadata": metadata, "rules": [allowed.clone()]});
        objects(&self.admin, "Role", namespace)
            .create(rights)
            .await?;
        let binding = json!({
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": role},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        objects(&self.admin, "RoleBinding", namespace)
            .create(binding)
            .await?;
        let attributes = json!({
            "namespace": namespace, "group": allowed["apiGroups"][0], "resource": allowed["resources"][0],
            "name": allowed["resourceNames"][0], "verb": allowed["verbs"][0],
        });
        let review = serde_json::from_value(
            json!({"spec": {"user": user, "resourceAttributes": attributes}}),
        )?;
        let reviews: Api<SubjectAccessReview> = Api::all(self.admin.clone());
        eventually("the right holds", async || {
            let said = reviews.create(&PostParams::default(), &review).await?;
            Ok(said.status.is_some_and(|status| status.allowed))
        })
        .await
    }

    /// Lets the tenant get a Secret of this name.
    async fn allow_secret(&self, name: &str) -> Result<()> {
        let rule = json!({"apiGroups": [""], "resources": ["secrets"], "resourceNames": [name], "verbs": ["get"]});
        self.allow(&self.namespace, &format!("secret-{name}"), rule)
            .await
    }

    /// The name of an account of this tenant's.
    fn account(&self, name: &str) -> String {
        format!("{}-{name}", self.namespace)
    }

    async fn grant(&self, account: &str, grants: &Value) -> Result<()> {
        let accounts = objects(&self.admin, "ClusterCloudAccount", None);
        let object = json!({
            "metadata": {"name": self.account(account)},
            "spec": {"credentials": {"environment": {}}, "grants": grants},
        });
        accounts.create(object).await?;
        Ok(())
    }

    async fn label(&self, labels: Value) -> Result<()> {
        let namespaces = objects(&self.admin, "Namespace", None);
        let patch = json!({"metadata": {"labels": labels}});
        let said = namespaces.patch(&self.namespace, patch).await?;
        assert_eq!(said, "");
        Ok(())
    }

    fn memberships(&self) -> Objects {
        objects(&self.user, "SecurityGroupMembership", Some(&self.namespace))
    }

    fn accounts(&self) -> Objects {
        objects(&self.user, "CloudAccount", Some(&self.namespace))
    }

    /// What the API server says of a membership, which is not stored.
    async fn try_membership(&self, account: &str, group: &str, more: Value) -> Result<String> {
        let object = merged(
            json!({
                "metadata": {"generateName": "m-"},
                "spec": {
                    "region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": group,
                    "accountRef": {"name": self.account(account)},
                },
            }),
            more,
        );
        self.memberships().attempt(object).await
    }

    async fn try_account(&self, spec: Value) -> Result<String> {
        let object = json!({"metadata": {"generateName": "own-"}, "spec": {"credentials": spec}});
        self.accounts().attempt(object).await
    }

    /// Waits until the policies know of a new account: they read it from a watch.
    async fn until_refused(&self, account: &str) -> Result<()> {
        self.until_refused_for(account, "sg-nobodys").await
    }

    /// Waits until the policies know that no grant of an account lets this tenant use a group.
    async fn until_refused_for(&self, account: &str, group: &str) -> Result<()> {
        eventually("the policies know the grants", async || {
            let said = self.try_membership(account, group, json!({})).await?;
            Ok(said.contains("no grant of ClusterCloudAccount"))
        })
        .await
    }
}

/// Applies what is committed, and waits until it refuses what it must.
async fn install(plane: &ControlPlane) -> Result<()> {
    let file = repository().join("deploy/install.yaml");
    let mut command = tokio::process::Command::from(plane.kubectl());
    let output = command
        .args(["apply", "--server-side", "-f"])
        .arg(file)
        .output();
    let output = output.await?;
    let said = String::from_utf8([output.stdout, output.stderr].concat())?;
    assert!(output.status.success(), "{said}");
    let accounts = objects(&plane.admin_client().await?, "CloudAccount", Some(NAME));
    eventually("the policies hold", async || {
        let object = json!({
            "metadata": {"name": "probe"}, "spec": {"credentials": {"secretRef": {"name": "any"}}},
        });
        let said = accounts.attempt(object).await?;
        Ok(said.contains("operator's namespace"))
    })
    .await
}

/// Objects of a kind.
struct Objects {
    api: Api<DynamicObject>,
    types: TypeMeta,
}

/// Objects of a kind; the cluster's where no namespace is given.
fn objects(client: &Client, kind: &str, namespace: Option<&str>) -> Objects {
    let version = match kind {
        "Role" | "RoleBinding" => "rbac.authorization.k8s.io/v1",
        "Namespace" => "v1",
        _ => "security-group-operator.io/v1alpha1",
    };
    let types = TypeMeta {
        api_version: version.to_owned(),
        kind: kind.to_owned(),
    };
    let plural = format!("{}s", kind.to_lowercase());
    let gvk = GroupVersionKind::try_from(&types).unwrap();
    let resource = ApiResource::from_gvk_with_plural(&gvk, &plural);
    let client = client.clone();
    let api = match namespace {
        Some(namespace) => Api::namespaced_with(client, namespace, &resource),
        None => Api::all_with(client, &resource),
    };
    Objects { api, types }
}

impl Objects {
    async fn create(&self, object: Value) -> Result<DynamicObject> {
        let created = self.post(&PostParams::default(), object.clone()).await?;
        created.context(object)
    }

    /// What the API server says of an object, which it does not store.
    async fn attempt(&self, object: Value) -> Result<String> {
        let dry_run = PostParams {
            dry_run: true,
            ..PostParams::default()
        };
        said(self.post(&dry_run, object).await?)
    }

    async fn post(
        &self,
        parameters: &PostParams,
        object: Value,
    ) -> Result<kube::Result<DynamicObject>> {
        let mut object: DynamicObject = serde_json::from_value(object)?;
        object.types = Some(self.types.clone());
        Ok(self.api.create(parameters, &object).await)
    }

    /// What it says of a change, which it stores.
    async fn patch(&self, name: &str, patch: Value) -> Result<String> {
        let by_us = PatchParams::default();
        said(self.api.patch(name, &by_us, &Patch::Merge(patch)).await)
    }

    async fn patch_status(&self, name: &str, status: Value) -> Result<String> {
        let by_us = PatchParams::default();
        let patch = Patch::Merge(json!({"status": status}));
        said(self.api.patch_status(name, &by_us, &patch).await)
    }
}

/// The words of a refusal; empty where there was none.
fn said<K>(answer: kube::Result<K>) -> Result<String> {
    match answer {
        Ok(_) => Ok(String::new()),
        Err(kube::Error::Api(status)) => Ok(status.message.clone()),
        Err(error) => Err(Error::new(error.to_string())),
    }
}

/// One row: accepted where `parts` is empty, else refused with these parts in the sentence.
fn expect(what: &str, said: &str, parts: &[&str]) {
    if parts.is_empty() {
        assert!(said.is_empty(), "{what} is refused: {said}");
        return;
    }
    assert!(!said.is_empty(), "{what} is accepted");
    for part in parts {
        assert!(said.contains(part), "{what}: no {part:?} in: {said}");
    }
}

fn merged(mut base: Value, more: Value) -> Value {
    match (&mut base, more) {
        (Value::Object(base), Value::Object(more)) => {
            for (key, value) in more {
                let before = base.remove(&key).unwrap_or(Value::Null);
                base.insert(key, merged(before, value));
            }
        }
        (base, more) => *base = more,
    }
    base
}

#[tokio::test]
async fn membership_without_a_grant_is_refused_when_it_is_created() -> Result<()> {
    let tenant = Tenant::new().await?;
    let here = json!([tenant.namespace]);
    let own = json!({"ids": ["sg-own", "sg-second"]});
    tenant
        .grant(
            "names",
            &json!([
                {"name": "others", "namespaces": {"names": ["elsewhere"]}, "securityGroups": {"ids": ["*"]}},
                {"name": "own", "namespaces": {"names": here}, "securityGroups": own},
            ]),
        )
        .await?;
    tenant
        .grant("all", &json!([{"name": "all", "namespaces": {"names": here}, "securityGroups": {"ids": ["*"]}}]))
        .await?;
    tenant.grant("none", &json!([])).await?;
    tenant.until_refused("names").await?;
    tenant.until_refused("none").await?;
    let (names, none) = (tenant.account("names"), tenant.account("none"));
    let fix = "add a grant in spec.grants";
    let refused = |account: &str, group: &str| {
        format!(
            "no grant of ClusterCloudAccount {account} lets namespace {} use {group};",
            tenant.namespace
        )
    };
    for (account, group, parts) in [
        ("names", "sg-own", vec![]),
        ("names", "sg-second", vec![]),
        ("names", "sg-ow", vec![refused(&names, "sg-ow")]),
        (
            "names",
            "sg-others",
            vec![refused(&names, "sg-others"), fix.to_owned()],
        ),
        ("all", "sg-others", vec![]),
        ("none", "sg-own", vec![refused(&none, "sg-own")]),
        // The operator says that there is no such account.
        ("missing", "sg-own", vec![]),
    ] {
        let parts: Vec<_> = parts.iter().map(String::as_str).collect();
        let said = tenant.try_membership(account, group, json!({})).await?;
        expect(&format!("{group} of {account}"), &said, &parts);
    }
    // An account of one's own needs no grant.
    let own = json!({"spec": {"accountRef": {"kind": "CloudAccount"}}});
    expect(
        "a CloudAccount",
        &tenant.try_membership("none", "sg-own", own).await?,
        &[],
    );
    Ok(())
}

/// A policy cannot read the tags of a group: the operator refuses what they do not allow.
#[tokio::test]
async fn membership_is_created_where_a_grant_selects_groups_by_tags() -> Result<()> {
    let tenant = Tenant::new().await?;
    let by_tags = |namespace: &str| json!([{"name": "tags", "namespaces": {"names": [namespace]}, "securityGroups": {"tags": {"team": "a"}}}]);
    tenant.grant("tags", &by_tags(&tenant.namespace)).await?;
    tenant.grant("others", &by_tags("elsewhere")).await?;
    tenant.until_refused("others").await?;
    let said = tenant.try_membership("tags", "sg-any", json!({})).await?;
    expect("a group that the grant may select", &said, &[]);
    let said = tenant.try_membership("others", "sg-any", json!({})).await?;
    expect("a grant of another namespace", &said, &["no grant of"]);
    Ok(())
}

#[tokio::test]
async fn membership_is_created_where_a_grant_selects_the_labels() -> Result<()> {
    let tenant = Tenant::new().await?;
    for (index, (selector, labels, is_granted)) in [
        (json!({"matchLabels": {"team": "a"}}), json!({"team": "a"}), true),
        (json!({"matchLabels": {"team": "a"}}), json!({"team": "b"}), false),
        (json!({"matchLabels": {"team": "a"}}), json!({"team": null}), false),
        (json!({}), json!({}), true),
        (json!({"matchLabels": {"team": "a", "tier": "web"}}), json!({"team": "a"}), false),
        (
            json!({"matchLabels": {"team": "a"}, "matchExpressions": [{"key": "tier", "operator": "Exists"}]}),
            json!({"tier": "web"}),
            true,
        ),
        (json!({"matchExpressions": [{"key": "tier", "operator": "DoesNotExist"}]}), json!({}), false),
        (json!({"matchExpressions": [{"key": "none", "operator": "DoesNotExist"}]}), json!({}), true),
        (json!({"matchExpressions": [{"key": "none", "operator": "Exists"}]}), json!({}), false),
        (json!({"matchExpressions": [{"key": "team", "operator": "In", "values": ["b", "a"]}]}), json!({}), true),
        (json!({"matchExpressions": [{"key": "team", "operator": "In", "values": ["b"]}]}), json!({}), false),
        (json!({"matchExpressions": [{"key": "none", "operator": "In", "values": ["b"]}]}), json!({}), false),
        (json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["b"]}]}), json!({}), true),
        (json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["a"]}]}), json!({}), false),
        (json!({"matchExpressions": [{"key": "none", "operator": "NotIn", "values": ["a"]}]}), json!({}), true),
    ]
    .into_iter()
    .enumerate()
    {
        let account = format!("labels-{index}");
        let grant = json!([{"name": "own", "namespaces": {"selector": selector}, "securityGroups": {"ids": ["sg-own"]}}]);
        tenant.grant(&account, &grant).await?;
        tenant.until_refused(&account).await?;
        tenant.label(labels.clone()).await?;
        let what = format!("{selector} with {labels}");
        // The labels come from a watch.
        eventually(&what, async || {
            let said = tenant.try_membership(&account, "sg-own", json!({})).await?;
            assert!(said.is_empty() || said.contains("no grant of"), "{said}");
            Ok(said.is_empty() == is_granted)
        })
        .await?;
    }
    Ok(())
}

/// As many grants and IDs as the schema allows.
#[tokio::test]
async fn largest_account_is_searched_within_the_budget_of_cel() -> Result<()> {
    let tenant = Tenant::new().await?;
    let id = |grant: usize, id: usize| format!("sg-bp1{grant:02}{id:012}");
    let grants = |ids: usize| {
        let names = [tenant.namespace.as_str()];
        let grant = |grant: usize| {
            let ids: Vec<_> = (0..ids).map(|index| id(grant, index)).collect();
            json!({"name": format!("g{grant}"), "namespaces": {"names": names}, "securityGroups": {"ids": ids}})
        };
        json!((0..64).map(grant).collect::<Vec<_>>())
    };
    tenant.grant("largest", &grants(512)).await?;
    tenant.until_refused("largest").await?;
    let last = id(63, 511);
    let said = tenant.try_membership("largest", &last, json!({}));
    expect("the last ID", &said.await?, &[]);
    let said = tenant.try_membership("largest", "sg-bp1none", json!({}));
    let refused = &["no grant of ClusterCloudAccount"];
    expect("an ID of no grant", &said.await?, refused);
    Ok(())
}

#[tokio::test]
async fn account_names_only_what_its_author_may_use() -> Result<()> {
    let tenant = Tenant::new().await?;
    tenant.allow_secret("mine").await?;
    for (secret, parts) in [
        ("mine", &[][..]),
        (
            "theirs",
            &[
                "you may not get Secret theirs",
                "ask for that right in this namespace",
            ],
        ),
    ] {
        let what = format!("Secret {secret}");
        let said = tenant.try_account(json!({"secretRef": {"name": secret}}));
        expect(&what, &said.await?, parts);
    }
    // Written by somebody who may, it can be labelled by somebody who may not, and names no other Secret.
    let administrators = objects(&tenant.admin, "CloudAccount", Some(&tenant.namespace));
    let object = json!({"metadata": {"name": "own"}, "spec": {"credentials": {"secretRef": {"name": "theirs"}}}});
    administrators.create(object).await?;
    let own = tenant.accounts();
    let patch = async |patch: Value| own.patch("own", patch).await;
    let label = json!({"metadata": {"labels": {"team": "a"}}});
    expect("a label", &patch(label).await?, &[]);
    let other = json!({"spec": {"credentials": {"secretRef": {"name": "other"}}}});
    expect(
        "another Secret",
        &patch(other).await?,
        &["you may not get Secret other"],
    );

    let operators = objects(&tenant.admin, "CloudAccount", Some(NAME));
    let object = json!({"metadata": {"name": "own"}, "spec": {"credentials": {"secretRef": {"name": "any"}}}});
    let said = operators.attempt(object).await?;
    expect(
        "in the operator's namespace",
        &said,
        &[
            "must not be in the operator's namespace",
            "create it in the namespace of the memberships",
        ],
    );
    Ok(())
}

#[tokio::test]
async fn metadata_has_bounded_size() -> Result<()> {
    let tenant = Tenant::new().await?;
    tenant.allow_secret("any").await?;
    let sets = objects(
        &tenant.user,
        "SecurityGroupMembershipSet",
        Some(&tenant.namespace),
    );
    let annotations = |prefix: &str, count: usize, size: usize| {
        let one = |index| (format!("{prefix}/{index}"), json!("x".repeat(size)));
        let all: serde_json::Map<_, _> = (0..count).map(one).collect();
        json!({"metadata": {"annotations": all}})
    };
    let ours = "security-group-operator.io";
    let labels = |count: usize| {
        let all: serde_json::Map<_, _> = (0..count)
            .map(|index| (format!("l{index}"), json!("")))
            .collect();
        json!({"metadata": {"labels": all}})
    };
    let finalizers = |count: usize| {
        let all: Vec<_> = (0..count)
            .map(|index| format!("example.com/{index}"))
            .collect();
        json!({"metadata": {"finalizers": all}})
    };
    let owners = |count: usize| {
        let owner = |index: usize| json!({"apiVersion": "v1", "kind": "ConfigMap", "name": format!("o{index}"), "uid": format!("u{index}")});
        json!({"metadata": {"ownerReferences": (0..count).map(owner).collect::<Vec<_>>()}})
    };
    let applied = |size: usize| {
        let key = "kubectl.kubernetes.io/last-applied-configuration";
        json!({"metadata": {"annotations": {key: "x".repeat(size)}}})
    };
    for (what, more, parts) in [
        // A set of 1,000 IDs is half as long.
        ("a large manifest", applied(65_536), &[][..]),
        (
            "a manifest that is too large",
            applied(65_537),
            &["at most 65536"],
        ),
        ("annotations of ours", annotations(ours, 2, 256), &[]),
        (
            "long annotation of ours",
            annotations(ours, 2, 257),
            &["at most 256", "shorten or remove"],
        ),
        ("annotations", annotations("example.com", 16, 8192), &[]),
        (
            "long annotation",
            annotations("example.com", 1, 8193),
            &["at most 8192", "shorten or remove"],
        ),
        (
            "many annotations",
            annotations("example.com", 65, 1),
            &["at most 64 entries"],
        ),
        ("64 labels", labels(64), &[]),
        (
            "65 labels",
            labels(65),
            &["metadata.labels must have at most 64"],
        ),
        ("16 finalizers", finalizers(16), &[]),
        (
            "17 finalizers",
            finalizers(17),
            &["metadata.finalizers must have at most 16"],
        ),
        ("16 owners", owners(16), &[]),
        (
            "17 owners",
            owners(17),
            &["metadata.ownerReferences must have at most 16"],
        ),
    ] {
        let said = tenant
            .try_membership("missing", "sg-own", more.clone())
            .await?;
        expect(what, &said, parts);
        let account = merged(
            json!({"metadata": {"generateName": "own-"}, "spec": {"credentials": {"secretRef": {"name": "any"}}}}),
            more.clone(),
        );
        let said = tenant.accounts().attempt(account).await?;
        expect(&format!("{what} of a CloudAccount"), &said, parts);
        let set = merged(
            json!({
                "metadata": {"generateName": "own-"},
                "spec": {
                    "region": "cn-hangzhou", "instanceIDs": ["i-web"], "securityGroupID": "sg-own",
                    "accountRef": {"name": tenant.account("missing")},
                },
            }),
            more,
        );
        let said = sets.attempt(set).await?;
        expect(&format!("{what} of a set"), &said, parts);
    }
    Ok(())
}

#[tokio::test]
async fn only_the_operator_writes_who_owns_a_membership() -> Result<()> {
    let tenant = Tenant::new().await?;
    let object = json!({
        "metadata": {"name": "m"},
        "spec": {
            "region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-own",
            "accountRef": {"name": "missing"},
        },
    });
    let uid = tenant.memberships().create(object).await?.uid();
    let uid = uid.context("a uid")?;
    let operator = format!("system:serviceaccount:{NAME}:{NAME}");
    let operator = tenant.plane.client_as(&operator).await?;
    let operator = objects(
        &operator,
        "SecurityGroupMembership",
        Some(&tenant.namespace),
    );
    let annotation =
        |intent: Value| json!({"metadata": {"annotations": {INTENT_ANNOTATION: intent}}});
    let intent = |of: &str| {
        let intent = json!({"origin": "Joined", "accountUID": "1", "uid": of});
        annotation(json!(intent.to_string()))
    };
    let (first, rest) = uid.split_at(1);
    let escaped = format!("{{\"uid\":\"\\u00{:x}{rest}\"}}", first.as_bytes()[0]);
    let memberships = tenant.memberships();
    let by_user = async |patch: Value| memberships.patch("m", patch).await;
    let by_operator = async |patch: Value| operator.patch("m", patch).await;
    let fix = &[
        "only the operator writes an intent",
        "remove the annotation",
    ];
    let own = intent(&uid);
    expect("an intent of its own", &by_user(own.clone()).await?, fix);
    expect(
        "the same, escaped",
        &by_user(annotation(json!(escaped))).await?,
        fix,
    );
    expect(
        "one of another object",
        &by_user(intent("another")).await?,
        &[],
    );
    expect("the operator's", &by_operator(own).await?, &[]);
    let label = json!({"metadata": {"labels": {"team": "a"}}});
    expect("a label beside it", &by_user(label).await?, &[]);
    expect("its removal", &by_user(annotation(Value::Null)).await?, &[]);

    let by_user = async |status: Value| memberships.patch_status("m", status).await;
    let by_operator = async |status: Value| operator.patch_status("m", status).await;
    let fix = &["only the operator changes origin, accountUID and objectUID"];
    for field in ["origin", "accountUID", "objectUID"] {
        let (value, other) = if field == "origin" {
            ("Joined", "Adopted")
        } else {
            ("1", "2")
        };
        expect(field, &by_user(json!({field: value})).await?, fix);
        expect(
            "the operator's",
            &by_operator(json!({field: value})).await?,
            &[],
        );
        expect(field, &by_user(json!({field: other})).await?, fix);
        expect(field, &by_user(json!({field: null})).await?, fix);
    }
    let rest = json!({"observedGeneration": 7});
    expect("the rest of a status", &by_user(rest).await?, &[]);
    Ok(())
}

/// Who may not use a group gets there by no set, neither at first nor later. What a set makes was asked of its author.
#[tokio::test]
async fn set_without_a_grant_is_refused_also_when_its_group_changes() -> Result<()> {
    let tenant = Tenant::new().await?;
    let here = json!([tenant.namespace]);
    let own = json!([{"name": "own", "namespaces": {"names": here}, "securityGroups": {"ids": ["sg-own", "sg-second"]}}]);
    tenant.grant("names", &own).await?;
    tenant.until_refused("names").await?;
    let sets = objects(
        &tenant.user,
        "SecurityGroupMembershipSet",
        Some(&tenant.namespace),
    );
    let account = tenant.account("names");
    let set = |group: &str| {
        json!({
            "metadata": {"name": "s"},
            "spec": {
                "region": "cn-hangzhou", "instanceIDs": ["i-web"], "securityGroupID": group,
                "accountRef": {"name": account},
            },
        })
    };
    let refused = format!(
        "no grant of ClusterCloudAccount {account} lets namespace {} use sg-others",
        tenant.namespace
    );
    let refused = &[refused.as_str(), "add a grant in spec.grants"];
    expect("sg-others", &sets.attempt(set("sg-others")).await?, refused);
    expect("sg-own", &sets.attempt(set("sg-own")).await?, &[]);
    sets.create(set("sg-own")).await?;
    let to = async |group: &str| {
        let patch = json!({"spec": {"securityGroupID": group}});
        sets.patch("s", patch).await
    };
    expect("to sg-others", &to("sg-others").await?, refused);
    expect("to sg-second", &to("sg-second").await?, &[]);
    // Without its grant the set may still be changed in all other ways.
    let accounts = objects(&tenant.admin, "ClusterCloudAccount", None);
    let none = json!({"spec": {"grants": []}});
    accounts.patch(&account, none).await?;
    tenant.until_refused_for("names", "sg-own").await?;
    expect("to sg-own", &to("sg-own").await?, &["use sg-own"]);
    let suspend = json!({"spec": {"suspend": true}});
    expect("suspend", &sets.patch("s", suspend).await?, &[]);

    let member = json!({
        "metadata": {"name": "m"},
        "spec": {
            "region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-own",
            "accountRef": {"name": account},
        },
    });
    let service_account = format!("system:serviceaccount:{NAME}:{NAME}");
    let operator = tenant.plane.client_as(&service_account).await?;
    let by_operator = objects(
        &operator,
        "SecurityGroupMembership",
        Some(&tenant.namespace),
    );
    let said = by_operator.attempt(member.clone()).await?;
    expect("a membership by the operator", &said, &[]);
    let said = tenant.memberships().attempt(member).await?;
    expect("the same by the tenant", &said, &["use sg-own"]);
    // The exception is one for memberships only. By itself the operator has no right to create a set.
    let create = json!({"apiGroups": ["security-group-operator.io"], "resources": ["securitygroupmembershipsets"], "verbs": ["create"]});
    tenant.allow(&service_account, "sets", create).await?;
    let sets = objects(
        &operator,
        "SecurityGroupMembershipSet",
        Some(&tenant.namespace),
    );
    let set = merged(set("sg-own"), json!({"metadata": {"name": "by-operator"}}));
    eventually("the policy refuses a set by the operator", async || {
        Ok(sets.attempt(set.clone()).await?.contains("use sg-own"))
    })
    .await
}

/// Off by default: two verbs that are nobody's until a Role gives them.
#[tokio::test]
async fn right_to_join_can_be_asked_for() -> Result<()> {
    let tenant = Tenant::new().await?;
    let rendered = Helm::alone()
        .await?
        .objects(&["--set=admissionPolicies.joinRight=true"])
        .await?;
    let files = TempDir::new("walls")?;
    // For this tenant only: the others on this API server are not asked.
    let here = json!({"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": tenant.namespace}}});
    let mut applied = 0;
    for mut object in rendered {
        if object["metadata"]["name"] != format!("{NAME}-join") {
            continue;
        }
        if object["kind"] == "ValidatingAdmissionPolicyBinding" {
            object["spec"]["matchResources"] = here.clone();
        }
        applied += 1;
        let file = files.path().join(format!("{applied}.json"));
        std::fs::write(&file, object.to_string())?;
        let mut command = tokio::process::Command::from(tenant.plane.kubectl());
        let output = command.args(["apply", "-f", &file.display().to_string()]);
        let output = output.output().await?;
        assert!(output.status.success(), "{output:?}");
    }
    assert_eq!(applied, 2);
    tenant.grant("all", &json!([{"name": "all", "namespaces": {"names": [tenant.namespace]}, "securityGroups": {"ids": ["*"]}}])).await?;
    // The tenant's Role says `*`; of another user nothing is known.
    let stranger = format!("{}-stranger", tenant.namespace);
    let user = Tenant {
        plane: tenant.plane,
        admin: tenant.admin.clone(),
        user: tenant.plane.client_as(&stranger).await?,
        namespace: tenant.namespace.clone(),
    };
    let rule = |resource: &str, names: Value, verb: &str| json!({"apiGroups": ["security-group-operator.io"], "resources": [resource], "resourceNames": names, "verbs": [verb]});
    let create = rule("securitygroupmemberships", json!([]), "create");
    user.allow(&stranger, "create", create).await?;
    let said = async |group: &str| user.try_membership("all", group, json!({})).await;
    let refused = &[
        "you may not join sg-own",
        "the verb join on the resource securitygroups",
    ];
    eventually("the policy holds", async || {
        Ok(!said("sg-own").await?.is_empty())
    })
    .await?;
    expect("without rights", &said("sg-own").await?, refused);
    let join = rule("securitygroups", json!(["sg-own"]), "join");
    user.allow(&stranger, "join", join).await?;
    let account = user.account("all");
    let refused_account = format!("you may not use ClusterCloudAccount {account}");
    eventually("join is allowed", async || {
        Ok(said("sg-own").await?.contains(&refused_account))
    })
    .await?;
    let usage = rule("clustercloudaccounts", json!([account]), "use");
    user.allow(&stranger, "use", usage).await?;
    eventually("both are allowed", async || {
        Ok(said("sg-own").await?.is_empty())
    })
    .await?;
    expect(
        "another group",
        &said("sg-other").await?,
        &["you may not join sg-other"],
    );
    let sets_may = json!({"apiGroups": ["security-group-operator.io"], "resources": ["securitygroupmembershipsets"], "verbs": ["create", "patch"]});
    user.allow(&stranger, "sets", sets_may).await?;
    let sets = objects(
        &user.user,
        "SecurityGroupMembershipSet",
        Some(&user.namespace),
    );
    let set = |group: &str| {
        json!({
            "metadata": {"name": "s"},
            "spec": {
                "region": "cn-hangzhou", "instanceIDs": ["i-web"], "securityGroupID": group,
                "accountRef": {"name": account},
            },
        })
    };
    eventually("a set is allowed", async || {
        Ok(sets.attempt(set("sg-own")).await?.is_empty())
    })
    .await?;
    let refused = &["you may not join sg-other"];
    let said = sets.attempt(set("sg-other")).await?;
    expect("a set of another group", &said, refused);
    sets.create(set("sg-own")).await?;
    let other = json!({"spec": {"securityGroupID": "sg-other"}});
    let said = sets.patch("s", other).await?;
    expect("a set that goes to another group", &said, refused);
    expect(
        "the tenant, who may do everything",
        &tenant.try_membership("all", "sg-own", json!({})).await?,
        &[],
    );
    Ok(())
}
