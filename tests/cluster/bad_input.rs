//! What can never work is refused by the API server, with a sentence that names the field. The operator has no part in it.

use kube::Client;
use serde_json::{Value, json};

use crate::binaries;
use crate::support::env::TestEnv;
use crate::support::error::{Context, Error, Result};

const INVENTORY: &str = "
securityGroups: [{id: sg-base}, {id: sg-web}]
instances: [{id: i-web, securityGroupIds: [sg-base]}]
";

const EDGE: &str = "SecurityGroupMembership";
const CLUSTER: &str = "ClusterCloudAccount";

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
async fn malformed_id_is_rejected_with_its_field() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
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
        accepted(&env, EDGE, spec.clone()).await?;
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
            // In words, and not by the pattern alone.
            let too_long = text.len() > 64;
            let what_to_write = if too_long {
                "may not be more than"
            } else {
                "must be "
            };
            let sentence = [&*format!("spec.{field}"), what_to_write];
            refused(&env, EDGE, spec.clone(), &sentence).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn missing_or_extra_membership_fields_are_rejected() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
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
            &["spec.deletionPolicy", "RemoveIfJoined", "Remove", "Retain"],
        ),
        (
            json!({"driftPolicy": ""}),
            &["spec.driftPolicy", "Repair", "Report"],
        ),
        (
            json!({"karpenterPolicy": "Ignore"}),
            &["spec.karpenterPolicy", "Refuse", "Join"],
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
        // No object can have such a name, and the field cannot be changed.
        (
            json!({"accountRef": {"name": "theirs/default"}}),
            &["spec.accountRef.name", "must be the name of an object"],
        ),
        (
            json!({"accountRef": {"name": "Default"}}),
            &["spec.accountRef.name", "lower-case"],
        ),
        // No field anywhere names another namespace.
        (
            json!({"accountRef": {"namespace": "theirs"}}),
            &["unknown field", "spec.accountRef.namespace"],
        ),
        (json!({"suspend": "yes"}), &["spec.suspend", "boolean"]),
        (
            json!({"region": "cn-hangzhou-b"}),
            &["spec.region", "must be a region, not a zone"],
        ),
        (
            json!({"region": "us-east-1a"}),
            &["spec.region", "must be a region, not a zone"],
        ),
        (
            json!({"instanceID": "i-WEB"}),
            &["spec.instanceID", "in lower case"],
        ),
        (
            json!({"securityGroupID": "sg-WEB"}),
            &["spec.securityGroupID", "in lower case"],
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
        refused(&env, EDGE, with(base, change), sentence).await?;
    }
    Ok(())
}

#[tokio::test]
async fn null_fields_count_as_absent() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let spec = json!({
        "region": "cn-hangzhou", "instanceID": "i-web", "networkInterfaceID": null,
        "securityGroupID": "sg-web", "accountRef": null, "driftPolicy": null, "karpenterPolicy": null,
    });
    let request = creation(&env, EDGE, &spec)?;
    let made: Value = env.client.request(request).await?;
    let expected = json!({
        "region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web",
        "accountRef": {"kind": "ClusterCloudAccount", "name": "default"},
        "managementPolicy": "Manage", "adoptionPolicy": "Adopt",
        "deletionPolicy": "RemoveIfJoined", "driftPolicy": "Repair", "karpenterPolicy": "Refuse",
        "suspend": false,
    });
    assert_eq!(made["spec"], expected);
    Ok(())
}

#[tokio::test]
async fn target_group_region_and_account_are_immutable() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let path = path(&env, EDGE);
    env.apply("web", "i-web", "sg-base", json!({})).await?;
    let name = &env.name;
    for (change, sentence) in [
        (
            json!({"region": "cn-beijing"}),
            "spec.region: Forbidden: is immutable; delete this object and create another one",
        ),
        (
            json!({"instanceID": "i-other"}),
            "spec.instanceID: Forbidden: is immutable; delete this object and create another one",
        ),
        (
            json!({"securityGroupID": "sg-other"}),
            "spec.securityGroupID: Forbidden: is immutable; delete this object and create another one",
        ),
        (
            json!({"accountRef": {"name": "other"}}),
            "spec.accountRef.name: Forbidden: is immutable; delete this object and create another one",
        ),
        (
            json!({"accountRef": {"kind": "CloudAccount", "name": name}}),
            "spec.accountRef.name: Forbidden: is immutable; delete this object and create another one",
        ),
        (
            json!({"instanceID": null, "networkInterfaceID": "eni-web"}),
            "is immutable; delete this object and create another one for the new target",
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
        let message = refusal(&env.client, request).await?;
        assert!(message.contains("spec"), "{message}");
        assert!(message.contains(sentence), "{change}: {message}");
    }
    Ok(())
}

/// An account that is accepted.
fn good_account() -> Value {
    json!({
        "credentials": {"secretRef": {"name": "aliyun"}},
        "endpoints": {"ecs": "https://ecs-vpc.cn-beijing.aliyuncs.com", "sts": "http://127.0.0.1:18080"},
        "grants": [{"name": "all", "namespaces": {"names": ["default"]}, "securityGroups": {"ids": ["*"]}}],
    })
}

#[tokio::test]
async fn credentials_need_one_secret_name_or_environment() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    accepted(&env, CLUSTER, good_account()).await?;
    let secret = "spec.credentials.secretRef";
    let name = "spec.credentials.secretRef.name";
    let required = "must be set, unless oidc, ecsRAMRole or environment is";
    let cases: &[(Value, &[&str])] = &[
        (json!("-"), &["spec.credentials", "Required"]),
        (
            json!({}),
            &["spec.credentials.secretRef: Required value", required],
        ),
        (
            json!({"secretRef": {"name": "aliyun"}, "environment": {}}),
            &[
                "spec.credentials.environment: Forbidden",
                "must not be set when secretRef, oidc or ecsRAMRole is",
            ],
        ),
        (
            json!({"secretRef": {"name": "aliyun"}, "ecsRAMRole": {"name": "node"}}),
            &[
                "spec.credentials.ecsRAMRole: Forbidden",
                "must not be set when secretRef or oidc is",
            ],
        ),
        (
            json!({"environment": {}, "ecsRAMRole": {"name": "node"}}),
            &[
                "spec.credentials.environment: Forbidden",
                "must not be set when secretRef, oidc or ecsRAMRole is",
            ],
        ),
        (
            json!({"oidc": {"roleARN": "web", "oidcProviderARN": "acs:ram::1:oidc-provider/a", "serviceAccountName": "a"}}),
            &[
                "spec.credentials.oidc.roleARN",
                "must be the ARN of a RAM role",
            ],
        ),
        (
            json!({"oidc": {"roleARN": "acs:ram::1:role/a", "oidcProviderARN": "a", "serviceAccountName": "a"}}),
            &[
                "spec.credentials.oidc.oidcProviderARN",
                "must be the ARN of an OIDC provider",
            ],
        ),
        (
            json!({"secretRef": {"name": "aliyun"}, "assumeRole": {"roleARN": "acs:ram::1:role/a", "durationSeconds": 60}}),
            &["spec.credentials.assumeRole.durationSeconds", "900"],
        ),
        (
            json!({"secretRef": {"name": "aliyun"}, "assumeRole": {"roleARN": "acs:ram::1:role/a", "sessionName": "a b"}}),
            &[
                "spec.credentials.assumeRole.sessionName",
                "must be 2 to 64 letters",
            ],
        ),
        (
            json!({"secretRef": null}),
            &["spec.credentials.secretRef", required],
        ),
        (json!({"secretRef": {}}), &[name, "Required"]),
        (json!({"secretRef": {"name": ""}}), &[name]),
        (
            json!({"secretRef": {"name": "../other/secret"}}),
            &[name, "must be the name of an object"],
        ),
        (json!({"secretRef": {"name": "a\nb"}}), &[name]),
        (
            json!({"secretRef": {"name": "aliyun", "namespace": "kube-system"}}),
            &["unknown field", secret, "namespace"],
        ),
        (
            json!({"accessKeyID": "LTAI"}),
            &["unknown field", "spec.credentials.accessKeyID"],
        ),
    ];
    for (credentials, sentence) in cases {
        let spec = with(good_account(), &json!({"credentials": credentials}));
        refused(&env, CLUSTER, spec, sentence).await?;
    }
    let spec = with(good_account(), &json!({"region": "cn-hangzhou"}));
    refused(&env, CLUSTER, spec, &["unknown field", "spec.region"]).await
}

#[tokio::test]
async fn grant_needs_namespaces_and_groups() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let (namespaces, groups) = (
        "spec.grants[0].namespaces",
        "spec.grants[0].securityGroups.ids",
    );
    let (one, not_both) = (
        "must be set, unless selector is",
        "must not be set when names is",
    );
    let grant = |namespaces: Value, groups: Value| json!({"name": "all", "namespaces": namespaces, "securityGroups": {"ids": groups}});
    let named = |groups: Value| grant(json!({"names": ["default"]}), groups);
    let cases: &[(Value, &[&str])] = &[
        (
            grant(json!({}), json!(["*"])),
            &["spec.grants[0].namespaces.names: Required value", one],
        ),
        (
            grant(json!({"names": ["default"], "selector": {}}), json!(["*"])),
            &["spec.grants[0].namespaces.selector: Forbidden", not_both],
        ),
        (
            grant(json!({"names": []}), json!(["*"])),
            &["spec.grants[0].namespaces.names"],
        ),
        (
            grant(json!({"names": ["*"]}), json!(["*"])),
            &[
                "spec.grants[0].namespaces.names[0]",
                "for all namespaces leave names out and write selector: {}",
            ],
        ),
        (
            grant(json!({"names": ["default", ""]}), json!(["*"])),
            &[
                "spec.grants[0].namespaces.names[1]",
                "must be the name of a namespace",
            ],
        ),
        (
            json!({"name": "all", "securityGroups": {"ids": ["*"]}}),
            &[namespaces, "Required"],
        ),
        (
            json!({"name": "all", "namespaces": {"names": ["default"]}}),
            &["spec.grants[0].securityGroups", "Required"],
        ),
        (named(json!([])), &[groups]),
        (named(json!(vec!["sg-web"; 513])), &[groups]),
        (
            named(json!(["sg-web", "web"])),
            &["spec.grants[0].securityGroups.ids[1]"],
        ),
        (
            named(json!(["sg-*"])),
            &["spec.grants[0].securityGroups.ids[0]", "or * for all"],
        ),
        (
            named(json!(["sg-a\nsg-b"])),
            &["spec.grants[0].securityGroups.ids[0]"],
        ),
        (
            named(json!(["sg-BP1"])),
            &["spec.grants[0].securityGroups.ids[0]", "in lower case"],
        ),
        (
            named(json!(["sg-web", "sg-web"])),
            &["spec.grants[0].securityGroups.ids[1]", "Duplicate value"],
        ),
        (
            grant(json!({"names": ["a", "a"]}), json!(["*"])),
            &["spec.grants[0].namespaces.names[1]", "Duplicate value"],
        ),
        (
            json!({"namespaces": {"names": ["a"]}, "securityGroups": {"ids": ["*"]}}),
            &["spec.grants[0].name", "Required value"],
        ),
        (
            with(named(json!(["*"])), &json!({"name": "Team A"})),
            &["spec.grants[0].name", "must be a DNS label"],
        ),
        (
            with(named(json!(["*"])), &json!({"name": "x".repeat(64)})),
            &["spec.grants[0].name", "may not be more than 63"],
        ),
        (
            with(named(json!(["*"])), &json!({"securityGroups": ["*"]})),
            &["spec.grants[0].securityGroups", "object"],
        ),
    ];
    for (grant, sentence) in cases {
        let spec = with(good_account(), &json!({"grants": [grant]}));
        refused(&env, CLUSTER, spec, sentence).await?;
    }
    let twice = [named(json!(["sg-a"])), named(json!(["sg-b"]))];
    let spec = with(good_account(), &json!({"grants": twice}));
    let sentence = ["spec.grants[1]", "Duplicate value", r#"{"name":"all"}"#];
    refused(&env, CLUSTER, spec, &sentence).await
}

#[tokio::test]
async fn grant_names_groups_by_id_or_by_tags() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let granted = |groups: Value| {
        let grant =
            json!({"name": "all", "namespaces": {"names": ["default"]}, "securityGroups": groups});
        with(good_account(), &json!({"grants": [grant]}))
    };
    let by_tags = json!({"tags": {"team": "a", "tier": ""}});
    accepted(&env, CLUSTER, granted(by_tags)).await?;
    let field = "spec.grants[0].securityGroups";
    for (groups, parts) in [
        (
            json!({}),
            [".ids: Required value", "must be set, unless tags is"],
        ),
        (
            json!({"ids": ["*"], "tags": {"team": "a"}}),
            [".tags: Forbidden", "must not be set when ids is"],
        ),
        (json!({"tags": {}}), [".tags", "at least 1"]),
        (
            json!({"tags": {"": "a"}}),
            [".tags", "must have keys of 1 to 128 characters"],
        ),
        (json!({"tags": {"team": 1}}), [".tags.team", "string"]),
    ] {
        let path = format!("{field}{}", parts[0]);
        refused(&env, CLUSTER, granted(groups), &[&path, parts[1]]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn malformed_namespace_selector_is_rejected() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let (labels, expression) = (
        "spec.grants[0].namespaces.selector.matchLabels",
        "spec.grants[0].namespaces.selector.matchExpressions[0]",
    );
    let granted = |selector: &Value| {
        let grant = json!({"name": "all", "namespaces": {"selector": selector}, "securityGroups": {"ids": ["*"]}});
        with(good_account(), &json!({"grants": [grant]}))
    };
    for good in [
        json!({}),
        json!({"matchLabels": {"example.com/team": "web", "empty": ""}}),
        json!({"matchExpressions": [{"key": "team", "operator": "NotIn", "values": ["web", ""]}]}),
        json!({"matchExpressions": [{"key": "example.com/team", "operator": "Exists"}]}),
        json!({"matchExpressions": [{"key": "team", "operator": "DoesNotExist", "values": []}]}),
    ] {
        accepted(&env, CLUSTER, granted(&good)).await?;
    }
    let expressed = |key: &str, operator: &str, values: Value| {
        let requirement = json!({"key": key, "operator": operator, "values": values});
        json!({"matchExpressions": [requirement]})
    };
    let need = "must not be empty for In and NotIn, and must be empty for Exists and DoesNotExist";
    let cases: &[(Value, &[&str])] = &[
        // Would be all namespaces.
        (expressed("team", "NotIn", json!([])), &[expression, need]),
        (expressed("team", "In", json!([])), &[expression, need]),
        (expressed("team", "In", Value::Null), &[expression, need]),
        (
            expressed("team", "Exists", json!(["web"])),
            &[expression, need],
        ),
        (
            expressed("team", "Equals", json!(["web"])),
            &[expression, "operator", "NotIn", "DoesNotExist"],
        ),
        (
            expressed("Web Team", "Exists", json!([])),
            &[expression, "key", "should match"],
        ),
        (
            expressed("team", "In", json!(["web team"])),
            &[expression, "values[0]", "should match"],
        ),
        (
            json!({"matchLabels": {"team": "web team"}}),
            &[labels, "should match"],
        ),
        (json!({"matchLabels": {"team": true}}), &[labels, "string"]),
        (json!({"team": "web"}), &["unknown field", "selector.team"]),
    ];
    for (selector, sentence) in cases {
        refused(&env, CLUSTER, granted(selector), sentence).await?;
    }
    // What a template makes of a value that is not there: not the selector of no label, which is for all namespaces.
    let request = creation(
        &env,
        CLUSTER,
        &granted(&json!({"matchLabels": {"team": null}})),
    )?;
    let made: Value = env.client.request(request).await?;
    assert_eq!(
        made["spec"]["grants"][0]["namespaces"]["selector"],
        json!({"matchLabels": {"team": ""}})
    );
    Ok(())
}

#[tokio::test]
async fn endpoint_must_be_scheme_host_and_port() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
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
            let spec = with(good_account(), &json!({"endpoints": {field: url}}));
            let sentence = [
                &*format!("spec.endpoints.{field}"),
                "must be https:// or http://, a host and",
                "without a slash at the end",
            ];
            refused(&env, CLUSTER, spec, &sentence).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn endpoint_may_hold_the_region_once_in_its_host() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let spec = |endpoints: Value| with(good_account(), &json!({"endpoints": endpoints}));
    for ecs in [
        "https://ecs.{region}.example.com",
        "https://{region}",
        "https://ecs-{region}:8443",
    ] {
        accepted(&env, CLUSTER, spec(json!({"ecs": ecs}))).await?;
    }
    for ecs in [
        "https://{region}.{region}.example.com",
        "https://{Region}.example.com",
        "https://ecs.example.com:{region}",
        "https://ecs.example.com/{region}",
        "{region}",
    ] {
        let sentence = ["spec.endpoints.ecs", "https://ecs.{region}.example.com"];
        refused(&env, CLUSTER, spec(json!({"ecs": ecs})), &sentence).await?;
    }
    let sts = spec(json!({"sts": "https://sts.{region}.example.com"}));
    refused(&env, CLUSTER, sts, &["spec.endpoints.sts", "a host"]).await
}

#[tokio::test]
async fn unencrypted_endpoint_must_be_loopback_or_allowed() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    for field in ["ecs", "sts"] {
        for host in ["127.0.0.1", "127.255.0.1", "localhost:80", "[::1]:18080"] {
            let endpoints = json!({field: format!("http://{host}")});
            let spec = with(good_account(), &json!({"endpoints": endpoints}));
            accepted(&env, CLUSTER, spec).await?;
        }
        for host in [
            "simulator",
            "10.0.0.1",
            "127.0.0.1.example.com",
            "localhost.example.com:80",
            "[::2]",
        ] {
            let mut endpoints = json!({field: format!("http://{host}")});
            let sentence = [
                &*format!("spec.endpoints.{field}: Invalid value"),
                "must be https://, or set allowInsecure: true",
            ];
            for allowed in [Value::Null, json!(false)] {
                endpoints["allowInsecure"] = allowed;
                let spec = with(good_account(), &json!({"endpoints": endpoints}));
                refused(&env, CLUSTER, spec, &sentence).await?;
            }
            endpoints["allowInsecure"] = json!(true);
            let spec = with(good_account(), &json!({"endpoints": endpoints}));
            accepted(&env, CLUSTER, spec).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn limit_names_an_api_that_the_operator_calls_and_a_number_of_calls() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let namespaced = json!({"credentials": {"secretRef": {"name": "aliyun"}}});
    for (kind, good) in [(CLUSTER, good_account()), ("CloudAccount", namespaced)] {
        let limited = |limits: Value| with(good.clone(), &json!({"limits": limits}));
        for api in [
            "JoinSecurityGroup",
            "LeaveSecurityGroup",
            "DescribeInstances",
            "DescribeNetworkInterfaces",
            "DescribeSecurityGroups",
        ] {
            for most in [1, 600, 10_000] {
                accepted(&env, kind, limited(json!({api: most}))).await?;
            }
            for (most, sentence) in [
                (json!(0), "greater than or equal to 1"),
                (json!(-1), "greater than or equal to 1"),
                (json!(10_001), "less than or equal to 10000"),
                (json!(1.5), "must be of type integer"),
                (json!("600"), "must be of type integer"),
            ] {
                let path = format!("spec.limits.{api}");
                refused(&env, kind, limited(json!({api: most})), &[&path, sentence]).await?;
            }
        }
        // Nothing that the operator does not call, nor what STS answers, nor another spelling.
        for api in ["RunInstances", "AssumeRole", "joinSecurityGroup", "*", ""] {
            let sentence = [
                "spec.limits",
                "must name APIs that the operator calls: JoinSecurityGroup, LeaveSecurityGroup,",
            ];
            refused(&env, kind, limited(json!({api: 600})), &sentence).await?;
        }
        accepted(&env, kind, limited(json!({}))).await?;
    }
    Ok(())
}

#[tokio::test]
async fn malformed_secret_key_name_is_rejected() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let with_keys = |keys: Value| {
        let credentials = json!({"secretRef": {"name": "aliyun", "keys": keys}});
        with(good_account(), &json!({"credentials": credentials}))
    };
    let request = creation(&env, CLUSTER, &with_keys(json!({"accessKeyID": "id"})))?;
    let made: Value = env.client.request(request).await?;
    let keys = json!({"accessKeyID": "id", "accessKeySecret": "accessKeySecret", "securityToken": "securityToken"});
    assert_eq!(made["spec"]["credentials"]["secretRef"]["keys"], keys);
    for field in ["accessKeyID", "accessKeySecret", "securityToken"] {
        for name in ["", "a b", "a/b", "é"] {
            let path = format!("spec.credentials.secretRef.keys.{field}");
            let sentence = [path.as_str(), "must be a key of a Secret"];
            refused(&env, CLUSTER, with_keys(json!({field: name})), &sentence).await?;
        }
    }
    Ok(())
}

#[tokio::test]
async fn cloud_account_rejects_cluster_only_fields() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let good = json!({"credentials": {"secretRef": {"name": "aliyun"}}});
    accepted(&env, "CloudAccount", good.clone()).await?;
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
            ["spec.credentials.secretRef: Required value", "must be set"],
        ),
    ] {
        let spec = with(good.clone(), &change);
        refused(&env, "CloudAccount", spec, &sentence).await?;
    }
    Ok(())
}

#[tokio::test]
async fn conditions_have_the_limits_of_kubernetes() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let condition = json!({
        "type": "Ready", "status": "True", "reason": "Fine", "message": "x".repeat(32_768),
        "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z",
    });
    let name = format!("{}-conditions", env.name);
    for (kind, spec) in [
        (CLUSTER, good_account()),
        (
            "CloudAccount",
            json!({"credentials": {"secretRef": {"name": "none"}}}),
        ),
        (
            EDGE,
            json!({"region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web",
                "accountRef": {"name": "none"}}),
        ),
    ] {
        let path = path(&env, kind);
        let object = json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": kind,
            "metadata": {"name": name}, "spec": spec,
        });
        let request = http::Request::post(&path)
            .header("content-type", "application/json")
            .body(serde_json::to_vec(&object)?)?;
        let _: Value = env.client.request(request).await?;
        let status_with = |conditions: Value| -> Result<_> {
            let uri = format!("{path}/{name}/status?dryRun=All");
            let body = json!({"status": {"conditions": conditions}});
            Ok(http::Request::patch(uri)
                .header("content-type", "application/merge-patch+json")
                .body(serde_json::to_vec(&body)?)?)
        };
        let _: Value = env.client.request(status_with(json!([condition]))?).await?;
        for (field, value) in [
            ("type", json!("not ready")),
            ("type", json!("x".repeat(317))),
            ("status", json!("Maybe")),
            ("reason", json!("")),
            ("reason", json!("in words")),
            ("reason", json!("x".repeat(1025))),
            ("message", json!("x".repeat(32_769))),
            ("observedGeneration", json!(-1)),
        ] {
            let wrong = with(condition.clone(), &json!({field: value}));
            let message = refusal(&env.client, status_with(json!([wrong]))?).await?;
            let path = format!("status.conditions[0].{field}");
            assert!(message.contains(&path), "{kind}: {message:.300}");
        }
        let request = http::Request::delete(format!("{path}/{name}")).body(Vec::new())?;
        let _: Value = env.client.request(request).await?;
    }
    Ok(())
}

/// The spec with these fields set; a dash takes one away.
fn with(mut spec: Value, change: &Value) -> Value {
    let fields = change.as_object().into_iter().flatten();
    for (field, value) in fields {
        if let Some(spec) = spec.as_object_mut() {
            spec.insert(field.clone(), value.clone());
            spec.retain(|_, value| value != "-");
        }
    }
    spec
}

fn path(env: &TestEnv, kind: &str) -> String {
    let (scope, plural) = match kind {
        "ClusterCloudAccount" => (String::new(), "clustercloudaccounts"),
        "CloudAccount" => (format!("/namespaces/{}", env.name), "cloudaccounts"),
        _ => (
            format!("/namespaces/{}", env.name),
            "securitygroupmemberships",
        ),
    };
    format!("/apis/security-group-operator.io/v1alpha1{scope}/{plural}")
}

/// As `kubectl create --dry-run=server` asks for it.
fn creation(env: &TestEnv, kind: &str, spec: &Value) -> Result<http::Request<Vec<u8>>> {
    let object = json!({
        "apiVersion": "security-group-operator.io/v1alpha1", "kind": kind,
        "metadata": {"name": "tried"}, "spec": spec,
    });
    let path = path(env, kind);
    let request = http::Request::post(format!("{path}?dryRun=All&fieldValidation=Strict"))
        .header("content-type", "application/json");
    Ok(request.body(serde_json::to_vec(&object)?)?)
}

async fn accepted(env: &TestEnv, kind: &str, spec: Value) -> Result<()> {
    let request = creation(env, kind, &spec)?;
    env.client.request::<Value>(request).await?;
    Ok(())
}

async fn refused(env: &TestEnv, kind: &str, spec: Value, sentence: &[&str]) -> Result<()> {
    let shown: String = spec.to_string().chars().take(300).collect();
    let message = refusal(&env.client, creation(env, kind, &spec)?)
        .await
        .context(&shown)?;
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
