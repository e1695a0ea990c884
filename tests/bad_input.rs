//! What can never work is refused by the API server, with a sentence that names the field. The operator has no part in it.

mod support;

use kube::Client;
use serde_json::{Value, json};
use support::error::{Error, Result};
use support::stage::Stage;

const INVENTORY: &str = "
securityGroups: [{id: sg-base}]
instances: [{id: i-web, securityGroupIds: [sg-base]}]
";

/// What nobody writes by mistake, and what somebody may write on purpose.
fn hostile() -> Vec<String> {
    let texts = [
        "",
        " ",
        "\n",
        "ID\n",
        "\nID",
        "ID\u{0}",
        "ID&Action=DeleteInstance",
        "ID%0d%0aHost: evil",
        "ID?x=y",
        "ID#x",
        "ID/../../x",
        "ID.evil.example",
        "ID@evil.example",
        "ID evil",
        "ID\"",
        "ID,ID",
        "[\"ID\"]",
        "ＩＤ",
        "IDé",
        "\u{202e}ID",
        "${ID}",
    ];
    let long = "x".repeat(64 * 1024);
    texts
        .iter()
        .map(ToString::to_string)
        .chain([long])
        .collect()
}

#[tokio::test]
async fn what_is_no_id_is_refused_with_the_name_of_its_field() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let fields = [
        ("region", "cn-hangzhou"),
        ("instanceID", "i-web"),
        ("networkInterfaceID", "eni-web"),
        ("securityGroupID", "sg-web"),
    ];
    for (field, good) in fields {
        let mut spec = json!({"region": "cn-hangzhou", "securityGroupID": "sg-web"});
        if field != "networkInterfaceID" {
            spec["instanceID"] = json!("i-web");
        }
        spec[field] = json!(good);
        accepted(&stage, membership(spec.clone())).await?;
        // `sg-web` has the form of a region, and no region of that name will be found.
        let others = fields.iter().map(|(_, id)| *id);
        let others = others.filter(|id| *id != good && (field, *id) != ("region", "sg-web"));
        let wrong = [
            "web",
            "I-WEB",
            "SG-WEB",
            "i-",
            "sg-",
            "eni-",
            "cn",
            "CN-HANGZHOU",
        ];
        let texts = hostile().into_iter().map(|text| text.replace("ID", good));
        for text in texts.chain(others.chain(wrong).map(str::to_owned)) {
            spec[field] = json!(text);
            refused(
                &stage,
                membership(spec.clone()),
                &[&format!("spec.{field}")],
            )
            .await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_membership_that_says_too_much_or_too_little_is_refused() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let one_target = "set exactly one of instanceID and networkInterfaceID";
    let both = json!({"instanceID": "i-web", "networkInterfaceID": "eni-web"});
    let cases: &[(Value, &[&str])] = &[
        (both, &["spec", one_target]),
        (json!({"instanceID": "-"}), &["spec", one_target]),
        (json!({"region": "-"}), &["spec.region", "Required"]),
        (
            json!({"securityGroupID": "-"}),
            &["spec.securityGroupID", "Required"],
        ),
        // A null is as good as nothing.
        (json!({"instanceID": null}), &["spec", one_target]),
        (json!({"region": null}), &["spec.region", "Required"]),
        (
            json!({"securityGroupID": null}),
            &["spec.securityGroupID", "Required"],
        ),
        (json!({"instanceID": 7}), &["spec.instanceID", "string"]),
        (
            json!({"instanceID": ["i-web"]}),
            &["spec.instanceID", "string"],
        ),
        (
            json!({"managementPolicy": "Watch"}),
            &["spec.managementPolicy", "Manage", "Observe"],
        ),
        (
            json!({"adoptionPolicy": "adopt"}),
            &["spec.adoptionPolicy", "Adopt", "Refuse"],
        ),
        (
            json!({"deletionPolicy": "Delete"}),
            &["spec.deletionPolicy", "LeaveIfJoined", "Leave", "Retain"],
        ),
        (
            json!({"driftPolicy": ""}),
            &["spec.driftPolicy", "Repair", "Report"],
        ),
        (
            json!({"accountRef": {"kind": "Secret"}}),
            &[
                "spec.accountRef.kind",
                "CloudAccount",
                "ClusterCloudAccount",
            ],
        ),
        (
            json!({"accountRef": {"name": ""}}),
            &["spec.accountRef.name"],
        ),
        (
            json!({"accountRef": {"name": "x".repeat(254)}}),
            &["spec.accountRef.name"],
        ),
        // No field anywhere names another namespace.
        (
            json!({"accountRef": {"namespace": "theirs"}}),
            &["unknown field", "spec.accountRef.namespace"],
        ),
        // As the cloud spells it, which is not how Kubernetes does.
        (
            json!({"instanceId": "i-web"}),
            &["unknown field", "spec.instanceId"],
        ),
    ];
    for (change, sentence) in cases {
        let base =
            json!({"region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web"});
        refused(&stage, membership(with(base, change)), sentence).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_null_is_as_good_as_nothing() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let spec = json!({
        "region": "cn-hangzhou", "instanceID": "i-web", "networkInterfaceID": null,
        "securityGroupID": "sg-web", "accountRef": null, "driftPolicy": null,
    });
    let request = creation(&stage, membership(spec))?;
    let made: Value = stage.client.request(request).await?;
    let expected = json!({
        "region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web",
        "accountRef": {"kind": "ClusterCloudAccount", "name": "default"},
        "managementPolicy": "Manage", "adoptionPolicy": "Adopt",
        "deletionPolicy": "LeaveIfJoined", "driftPolicy": "Repair",
    });
    assert_eq!(made["spec"], expected);
    Ok(())
}

#[tokio::test]
async fn what_an_edge_is_made_of_cannot_be_changed() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let path = path(&stage, "SecurityGroupMembership");
    stage.apply("web", "i-web", "sg-base", json!({})).await?;
    let name = &stage.name;
    for (change, sentence) in [
        (json!({"region": "cn-beijing"}), "region is fixed"),
        (json!({"instanceID": "i-other"}), "instanceID is fixed"),
        (
            json!({"securityGroupID": "sg-other"}),
            "securityGroupID is fixed",
        ),
        (
            json!({"accountRef": {"name": "other"}}),
            "accountRef is fixed",
        ),
        (
            json!({"accountRef": {"kind": "CloudAccount", "name": name}}),
            "accountRef is fixed",
        ),
        (
            json!({"instanceID": null, "networkInterfaceID": "eni-web"}),
            "the target is fixed",
        ),
        (
            json!({"instanceID": null}),
            "set exactly one of instanceID and networkInterfaceID",
        ),
        (
            json!({"networkInterfaceID": "eni-web"}),
            "set exactly one of instanceID and networkInterfaceID",
        ),
    ] {
        let uri = format!("{path}/web?dryRun=All&fieldValidation=Strict");
        let request = http::Request::patch(uri)
            .header("content-type", "application/merge-patch+json")
            .body(serde_json::to_vec(&json!({"spec": change}))?)?;
        let message = refusal(&stage.client, request).await?;
        assert!(message.contains("spec"), "{message}");
        assert!(message.contains(sentence), "{change}: {message}");
    }
    Ok(())
}

#[tokio::test]
async fn an_account_that_cannot_work_is_refused() -> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let good = json!({
        "credentials": {"secretRef": {"name": "aliyun"}},
        "endpoints": {"ecs": "https://ecs-vpc.cn-beijing.aliyuncs.com", "sts": "http://127.0.0.1:18080"},
        "grants": [{"namespaces": {"names": ["default"]}, "securityGroupIDs": ["*"]}],
    });
    accepted(&stage, account("ClusterCloudAccount", good.clone())).await?;
    let one_credential = "set exactly one of secretRef and environment";
    let one_scope = "set exactly one of names and selector";
    let grant = |namespaces: Value, groups: Value| json!({"grants": [{"namespaces": namespaces, "securityGroupIDs": groups}]});
    let named = json!({"names": ["default"]});
    let both = json!({"names": ["default"], "selector": {}});
    let long: Vec<&str> = vec!["sg-web"; 1001];
    let cases: &[(Value, &[&str])] = &[
        (
            json!({"credentials": "-"}),
            &["spec.credentials", "Required"],
        ),
        (
            json!({"credentials": {}}),
            &["spec.credentials", one_credential],
        ),
        (
            json!({"credentials": {"secretRef": {"name": "aliyun"}, "environment": {}}}),
            &["spec.credentials", one_credential],
        ),
        (
            json!({"credentials": {"secretRef": null}}),
            &["spec.credentials"],
        ),
        (
            json!({"credentials": {"secretRef": {}}}),
            &["spec.credentials.secretRef.name", "Required"],
        ),
        (
            json!({"credentials": {"secretRef": {"name": ""}}}),
            &["spec.credentials.secretRef.name"],
        ),
        (
            json!({"credentials": {"secretRef": {"name": "../other/secret"}}}),
            &["spec.credentials.secretRef.name"],
        ),
        (
            json!({"credentials": {"secretRef": {"name": "a\nb"}}}),
            &["spec.credentials.secretRef.name"],
        ),
        (
            json!({"credentials": {"secretRef": {"name": "aliyun", "namespace": "kube-system"}}}),
            &["unknown field", "spec.credentials.secretRef.namespace"],
        ),
        (
            json!({"credentials": {"accessKeyID": "LTAI"}}),
            &["unknown field", "spec.credentials.accessKeyID"],
        ),
        (
            grant(json!({}), json!(["*"])),
            &["spec.grants[0].namespaces", one_scope],
        ),
        (
            grant(both, json!(["*"])),
            &["spec.grants[0].namespaces", one_scope],
        ),
        (
            grant(json!({"names": []}), json!(["*"])),
            &["spec.grants[0].namespaces.names"],
        ),
        (
            grant(named.clone(), json!([])),
            &["spec.grants[0].securityGroupIDs"],
        ),
        (
            grant(named.clone(), json!(long)),
            &["spec.grants[0].securityGroupIDs"],
        ),
        (
            grant(named.clone(), json!(["sg-web", "web"])),
            &["spec.grants[0].securityGroupIDs[1]"],
        ),
        (
            grant(named.clone(), json!(["sg-*"])),
            &["spec.grants[0].securityGroupIDs[0]"],
        ),
        (
            grant(named.clone(), json!(["sg-a\nsg-b"])),
            &["spec.grants[0].securityGroupIDs[0]"],
        ),
        (
            json!({"grants": [{"namespaces": named}]}),
            &["spec.grants[0].securityGroupIDs", "Required"],
        ),
        (
            json!({"grants": [{"securityGroupIDs": ["*"]}]}),
            &["spec.grants[0].namespaces", "Required"],
        ),
        (
            json!({"region": "cn-hangzhou"}),
            &["unknown field", "spec.region"],
        ),
    ];
    for (change, sentence) in cases {
        let spec = with(good.clone(), change);
        refused(&stage, account("ClusterCloudAccount", spec), sentence).await?;
    }
    for url in [
        "",
        "ecs.aliyuncs.com",
        "ftp://ecs.aliyuncs.com",
        "https://",
        "https://ecs.aliyuncs.com/",
        "https://ecs.aliyuncs.com/path",
        "https://ecs.aliyuncs.com?x=y",
        "https://ecs.aliyuncs.com#x",
        "https://user:password@ecs.aliyuncs.com",
        "https://ecs.aliyuncs.com:123456",
        "https://ecs.aliyuncs.com\n",
        "https://ecs.aliyuncs.com\r\nHost: evil",
        "https://ecs aliyuncs.com",
        "https://ecs.aliyuncs.com%0d%0a",
        "javascript:alert(1)",
        "file:///etc/passwd",
    ] {
        for field in ["ecs", "sts"] {
            let mut spec = good.clone();
            spec["endpoints"][field] = json!(url);
            let sentence = format!("spec.endpoints.{field}");
            refused(&stage, account("ClusterCloudAccount", spec), &[&sentence]).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn the_accounts_of_namespaces_have_no_say_about_endpoints_grants_and_the_operator()
-> Result<()> {
    let stage = Stage::set(&binaries!(), INVENTORY).await?;
    let good = json!({"credentials": {"secretRef": {"name": "aliyun"}}});
    accepted(&stage, account("CloudAccount", good.clone())).await?;
    for (change, sentence) in [
        (
            json!({"endpoints": {"ecs": "http://evil.example"}}),
            ["unknown field", "spec.endpoints"],
        ),
        (json!({"grants": []}), ["unknown field", "spec.grants"]),
        (
            json!({"credentials": {"environment": {}}}),
            ["unknown field", "spec.credentials.environment"],
        ),
        (
            json!({"credentials": {}}),
            ["spec.credentials", "set secretRef"],
        ),
    ] {
        let spec = with(good.clone(), &change);
        refused(&stage, account("CloudAccount", spec), &sentence).await?;
    }
    Ok(())
}

fn membership(spec: Value) -> Value {
    json!({"kind": "SecurityGroupMembership", "spec": spec})
}

fn account(kind: &str, spec: Value) -> Value {
    json!({"kind": kind, "spec": spec})
}

/// The spec with these fields set; a dash takes one away.
fn with(mut spec: Value, change: &Value) -> Value {
    let fields = spec.as_object_mut().unwrap();
    for (field, value) in change.as_object().unwrap() {
        if value == "-" {
            fields.remove(field);
        } else {
            fields.insert(field.clone(), value.clone());
        }
    }
    spec
}

fn path(stage: &Stage, kind: &str) -> String {
    let (scope, plural) = match kind {
        "ClusterCloudAccount" => (String::new(), "clustercloudaccounts"),
        "CloudAccount" => (format!("/namespaces/{}", stage.name), "cloudaccounts"),
        _ => (
            format!("/namespaces/{}", stage.name),
            "securitygroupmemberships",
        ),
    };
    format!("/apis/security-group-operator.io/v1alpha1{scope}/{plural}")
}

/// As `kubectl create --dry-run=server` asks for it.
fn creation(stage: &Stage, mut object: Value) -> Result<http::Request<Vec<u8>>> {
    object["apiVersion"] = json!("security-group-operator.io/v1alpha1");
    object["metadata"] = json!({"name": "tried"});
    let path = path(stage, object["kind"].as_str().unwrap_or_default());
    let request = http::Request::post(format!("{path}?dryRun=All&fieldValidation=Strict"))
        .header("content-type", "application/json");
    Ok(request.body(serde_json::to_vec(&object)?)?)
}

async fn accepted(stage: &Stage, object: Value) -> Result<()> {
    stage
        .client
        .request::<Value>(creation(stage, object)?)
        .await?;
    Ok(())
}

async fn refused(stage: &Stage, object: Value, sentence: &[&str]) -> Result<()> {
    let mut shown = object["spec"].to_string();
    shown.truncate(300);
    let message = refusal(&stage.client, creation(stage, object)?)
        .await
        .map_err(|error| Error::new(format!("{shown}: {error}")))?;
    for part in sentence {
        assert!(
            message.contains(part),
            "{shown} is refused without {part:?}: {message}"
        );
    }
    Ok(())
}

/// The sentence of a refusal; an error if it is none.
async fn refusal(client: &Client, request: http::Request<Vec<u8>>) -> Result<String> {
    match client.request::<Value>(request).await {
        Ok(_) => Err(Error::new("it was accepted")),
        Err(kube::Error::Api(status)) if matches!(status.code, 400 | 422) => {
            Ok(status.message.clone())
        }
        Err(error) => Err(error.into()),
    }
}
