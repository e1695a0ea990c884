//! What a user sees with kubectl alone: waiting, columns, explain, short names, selectors.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends at its first surprise"
)]

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde_json::json;

use crate::binaries;
use crate::support::control_plane::ControlPlane;
use crate::support::env::{self, TestEnv};
use crate::support::error::{Context, Error, Result};
use crate::support::eventually::eventually;

const INVENTORY: &str = "
securityGroups:
- {id: sg-base}
- {id: sg-web}
- {id: sg-cache}
instances:
- {id: i-web, securityGroupIds: [sg-base]}
- {id: i-starting, status: Starting, securityGroupIds: [sg-base]}
networkInterfaces:
- {id: eni-web, instanceId: i-web, securityGroupIds: [sg-base]}
";

/// Runs kubectl as admin and gives what it prints.
async fn kubectl(arguments: &[&str]) -> Result<String> {
    let output = ControlPlane::shared()
        .await?
        .kubectl()
        .args(arguments)
        .output()?;
    if !output.status.success() {
        return Err(Error::new(format!(
            "kubectl {arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        )));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The words of each line.
fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

/// The table as kubectl prints these rows: each column but the last is padded to its longest cell and three spaces.
/// `columns_show_readiness_and_reason` compares this with kubectl itself.
fn printed(rows: &[Vec<&str>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
            + 3
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let line = |row: &Vec<&str>| {
        let cells = row.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        format!("{}\n", padded.concat().trim_end())
    };
    rows.iter().map(line).collect()
}

/// Every reason that a membership can have and that is not a code of the cloud: all but those that the documentation
/// comments call reasons of accounts.
fn own_reasons() -> Vec<&'static str> {
    let mut reasons = Vec::new();
    let mut comment = "";
    for line in include_str!("../../src/api/reason.rs").lines() {
        if let Some(text) = line.strip_prefix("/// ") {
            comment = text;
        } else if let Some(constant) = line.strip_prefix("pub const ")
            && !comment.starts_with("Account ")
            && !comment.starts_with("Set, ")
        {
            reasons.extend(constant.split('"').nth(1));
        }
    }
    assert!(reasons.len() > 20 && reasons.contains(&"WaitingForTarget"));
    reasons
}

/// Columns of the table that `kubectl get sgm` prints of these targets, with these values of Ready: each reason in a row,
/// names of 14 letters, and an age of three digits.
fn columns_of_list(targets: &[&str], ready: &[&str]) -> usize {
    let crds = security_group_operator::api::crds();
    let (_, crd) = crds
        .iter()
        .find(|(_, crd)| crd.spec.names.kind == "SecurityGroupMembership")
        .unwrap();
    let shown: Vec<_> = crd.spec.versions[0]
        .additional_printer_columns
        .iter()
        .flatten()
        .filter(|column| column.priority.unwrap_or_default() == 0)
        .collect();
    let reasons = own_reasons();
    let cell = |path: &str, row: usize| match path {
        r#".status.conditions[?(@.type=="Ready")].status"# => ready[row % ready.len()],
        r#".status.conditions[?(@.type=="Ready")].reason"# => reasons[row],
        ".spec['instanceID','networkInterfaceID']" => targets[row % targets.len()],
        ".spec.securityGroupID" => "sg-bp1fg655nh68xyz9abc",
        ".metadata.creationTimestamp" => "365d",
        _ => panic!("a new default column: {path}"),
    };
    let titles: Vec<String> = shown
        .iter()
        .map(|column| column.name.to_uppercase())
        .collect();
    let header = ["NAME"]
        .into_iter()
        .chain(titles.iter().map(String::as_str));
    let mut rows: Vec<Vec<&str>> = vec![header.collect()];
    rows.extend((0..reasons.len()).map(|row| {
        let cells = shown.iter().map(|column| cell(&column.json_path, row));
        ["web-frontend-1"].into_iter().chain(cells).collect()
    }));
    printed(&rows)
        .lines()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or_default()
}

#[test]
fn list_of_memberships_fits_into_100_columns() {
    let (instance, interface) = ("i-bp1abcdefghijklmno12", "eni-bp1abcdefghijklmnop");
    assert_eq!((instance.len(), interface.len()), (22, 23));
    let decided = ["True", "False"];
    assert!(columns_of_list(&[instance], &["True", "False", "Unknown"]) <= 100);
    assert!(columns_of_list(&[instance, interface], &decided) <= 100);
    // One column too many: an interface, a fresh object (Unknown) and one that waits (WaitingForTarget) in one list.
    let all = columns_of_list(&[instance, interface], &["True", "False", "Unknown"]);
    assert!(all <= 101, "{all}");
}

#[tokio::test]
async fn kubectl_wait_ends_when_the_edge_is_joined() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    let said = kubectl(&[
        "wait",
        "--for=condition=Ready",
        "sgm/web",
        "--timeout=60s",
        "-n",
        &env.name,
    ])
    .await?;
    assert_eq!(
        said,
        "securitygroupmembership.security-group-operator.io/web condition met\n"
    );
    assert!(env.is_member("i-web", "sg-web").await?);
    Ok(())
}

#[tokio::test]
async fn kubectl_wait_continues_while_the_target_starts() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("web", "i-starting", "sg-web", json!({})).await?;
    env.until_reason("web", "WaitingForTarget").await?;
    let waited = kubectl(&[
        "wait",
        "--for=condition=Ready",
        "sgm/web",
        "--timeout=2s",
        "-n",
        &env.name,
    ])
    .await;
    let Err(error) = waited else {
        return Err(Error::new("kubectl took a waiting edge for a ready one"));
    };
    assert!(error.to_string().contains("timed out"), "{error}");
    Ok(())
}

#[tokio::test]
async fn columns_show_readiness_and_reason() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("eni", "eni-web", "sg-web", json!({})).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.apply("zero", "i-gone", "sg-web", json!({})).await?;
    env.until_ready("eni").await?;
    env.until_ready("web").await?;
    env.until_reason("zero", "TargetNotFound").await?;

    let plain = kubectl(&["get", "sgm", "-n", &env.name]).await?;
    let mut rows = table(&plain);
    assert_eq!(printed(&rows), plain);
    assert!(
        rows.iter().skip(1).all(|row| row.len() == 6),
        "an empty cell in {rows:?}"
    );
    rows.iter_mut().skip(1).for_each(|row| row.truncate(5)); // the age is what it is
    assert_eq!(
        rows,
        [
            vec!["NAME", "READY", "REASON", "TARGET", "SECURITY-GROUP", "AGE"],
            vec!["eni", "True", "Joined", "eni-web", "sg-web"],
            vec!["web", "True", "Joined", "i-web", "sg-web"],
            vec!["zero", "False", "TargetNotFound", "i-gone", "sg-web"],
        ]
    );

    let wide = kubectl(&["get", "sgm", "web", "-o", "wide", "-n", &env.name]).await?;
    let mut wide = table(&wide);
    for row in wide.iter_mut().skip(1) {
        row.remove(5);
        let message = row.split_off(9);
        assert_eq!(message[..5], ["i-web", "is", "a", "member", "of"]);
    }
    let account: &str = &env.name;
    assert_eq!(
        wide,
        [
            vec![
                "NAME",
                "READY",
                "REASON",
                "TARGET",
                "SECURITY-GROUP",
                "AGE",
                "STATE",
                "ORIGIN",
                "REGION",
                "ACCOUNT",
                "MESSAGE"
            ],
            vec![
                "web",
                "True",
                "Joined",
                "i-web",
                "sg-web",
                "Running",
                "Joined",
                "cn-hangzhou",
                account
            ],
        ]
    );
    Ok(())
}

#[tokio::test]
async fn account_columns_show_the_account_uid() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let resource = format!("clustercloudaccount/{}", env.name);
    let counted = "--for=jsonpath={.status.memberships}=0";
    for until in ["--for=condition=Ready", counted] {
        kubectl(&["wait", until, &resource, "--timeout=60s"]).await?;
    }
    let text = kubectl(&["get", "clustercloudaccounts", &env.name]).await?;
    let mut rows = table(&text);
    for row in rows.iter_mut().skip(1) {
        row.pop();
    }
    let (name, uid): (&str, &str) = (&env.name, &env.account);
    assert_eq!(
        rows,
        [
            vec![
                "NAME",
                "READY",
                "REASON",
                "ACCOUNT-UID",
                "MEMBERSHIPS",
                "AGE"
            ],
            vec![name, "True", "CredentialsAccepted", uid, "0"],
        ]
    );
    Ok(())
}

/// Without `-o wide` the first six; the counts of what needs somebody follow with it.
#[tokio::test]
async fn set_columns_show_readiness_and_counts() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    crate::sets::apply(&env, "web", json!({"instanceIDs": ["i-web", "i-starting"]})).await?;
    let ready = "--for=jsonpath={.status.readyTargets}=1";
    let namespace = format!("--namespace={}", env.name);
    kubectl(&["wait", "sgmset/web", &namespace, ready, "--timeout=60s"]).await?;
    let columns = async |arguments: &[&str]| -> Result<Vec<Vec<String>>> {
        let text = kubectl(&[&["get", "sgmset", &namespace], arguments].concat()).await?;
        let mut rows = table(&text);
        rows[1].remove(6);
        let owned = |row: &Vec<&str>| row.iter().map(ToString::to_string).collect();
        Ok(rows.iter().map(owned).collect())
    };
    let head = [
        "NAME",
        "READY",
        "REASON",
        "TARGETS",
        "MEMBERS",
        "SECURITY-GROUP",
        "AGE",
    ];
    let row = ["web", "False", "Progressing", "2", "1", "sg-web"];
    assert_eq!(columns(&[]).await?, [head.to_vec(), row.to_vec()]);
    let wide_head = [
        "STALLED", "SKIPPED", "OBJECTS", "REGION", "ACCOUNT", "MESSAGE",
    ];
    let wide_row = ["0", "0", "2", "cn-hangzhou", &env.name];
    let message = ["1", "of", "2", "targets", "are", "members"];
    assert_eq!(
        columns(&["-o", "wide"]).await?,
        [
            [&head[..], &wide_head].concat(),
            [&row[..], &wide_row, &message].concat()
        ]
    );
    Ok(())
}

#[tokio::test]
async fn memberships_are_found_by_short_name_and_selectors() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    env.apply("eni", "eni-web", "sg-web", json!({})).await?;
    env.apply("web", "i-web", "sg-web", json!({})).await?;
    env.apply("cache", "i-web", "sg-cache", json!({})).await?;
    let names = async |arguments: &[&str]| {
        let all = [arguments, &["-n", &env.name, "-o", "name"]].concat();
        let text = kubectl(&[&["get"], all.as_slice()].concat()).await?;
        let names = text.lines().filter_map(|line| line.rsplit('/').next());
        Ok::<_, Error>(names.map(str::to_owned).collect::<Vec<_>>())
    };
    let selected = async |selector: &str| names(&["sgm", "--field-selector", selector]).await;
    assert_eq!(names(&["sgm"]).await?, ["cache", "eni", "web"]);
    let category = names(&["alibabacloud"]).await?;
    for name in ["cache", "eni", "web", &env.name] {
        assert!(category.iter().any(|found| found == name), "{category:?}");
    }
    assert_eq!(
        selected("spec.securityGroupID=sg-web").await?,
        ["eni", "web"]
    );
    assert_eq!(selected("spec.instanceID=i-web").await?, ["cache", "web"]);
    assert_eq!(selected("spec.networkInterfaceID=eni-web").await?, ["eni"]);
    Ok(())
}

#[tokio::test]
async fn explain_has_a_text_for_every_field() -> Result<()> {
    drop(env::operator(&binaries!()).await?);
    for (_, crd) in security_group_operator::api::crds() {
        let plural = &crd.spec.names.plural;
        for version in &crd.spec.versions {
            let schema = version.schema.as_ref().context("a schema")?;
            let schema = schema
                .open_api_v3_schema
                .as_ref()
                .context("an OpenAPI schema")?;
            let mut silent = Vec::new();
            collect_silent(plural, schema, &mut silent);
            assert!(silent.is_empty(), "without a description: {silent:?}");
            for part in ["spec", "status"] {
                let fields = schema.properties.iter().flatten();
                let (_, part_schema) = fields
                    .into_iter()
                    .find(|(name, _)| *name == part)
                    .context(format!("{plural} has no {part}"))?;
                let shown = explain(&format!("{plural}.{part}")).await?;
                for (field, field_schema) in part_schema.properties.iter().flatten() {
                    let first_words = field_schema
                        .description
                        .as_deref()
                        .unwrap_or_default()
                        .split_whitespace()
                        .take(3)
                        .collect::<Vec<_>>()
                        .join(" ");
                    assert!(
                        shown.contains(field.as_str()) && shown.contains(&first_words),
                        "{plural}.{part}.{field} is not in:\n{shown}"
                    );
                }
            }
        }
    }
    let deep = explain("sgm.spec.instanceID").await?;
    assert!(deep.contains("Its primary network interface"), "{deep}");
    Ok(())
}

/// `kubectl explain`, which knows a new kind some seconds after the kind can be used.
async fn explain(path: &str) -> Result<String> {
    let mut shown = String::new();
    eventually(&format!("{path} can be explained"), async || {
        let answer = kubectl(&["explain", path]).await;
        shown = answer.unwrap_or_default();
        Ok(!shown.is_empty())
    })
    .await?;
    Ok(shown)
}

/// Every property at every level.
fn collect_silent(path: &str, schema: &JSONSchemaProps, silent: &mut Vec<String>) {
    for (name, property) in schema.properties.iter().flatten() {
        let path = format!("{path}.{name}");
        if property
            .description
            .as_deref()
            .is_none_or(|text| text.trim().is_empty())
        {
            silent.push(path.clone());
        }
        collect_silent(&path, property, silent);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        collect_silent(&format!("{path}[]"), items, silent);
    }
}

/// What the operator writes is no drift to a tool such as Flux: after the objects are Ready, the files that made them change nothing.
#[tokio::test]
async fn what_the_operator_writes_is_no_difference_to_the_files() -> Result<()> {
    let env = TestEnv::start(&binaries!(), INVENTORY).await?;
    let object = |kind: &str, name: &str, spec: serde_json::Value| {
        json!({
            "apiVersion": "security-group-operator.io/v1alpha1", "kind": kind,
            "metadata": {"name": name, "namespace": env.name}, "spec": spec,
        })
    };
    let account = json!({"kind": "ClusterCloudAccount", "name": env.name});
    let membership = json!({
        "region": "cn-hangzhou", "instanceID": "i-web", "securityGroupID": "sg-web", "accountRef": account,
    });
    let set = json!({
        "region": "cn-hangzhou", "networkInterfaceIDs": ["eni-web"], "securityGroupID": "sg-web", "accountRef": account,
    });
    let own = json!({"credentials": {"secretRef": {"name": "own"}}});
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        object("SecurityGroupMembership", "web", membership),
        object("SecurityGroupMembershipSet", "interfaces", set),
        object("CloudAccount", "own", own),
    ]});
    let directory = crate::support::tempdir::TempDir::new("diff")?;
    let file = directory.path().join("objects.json");
    std::fs::write(&file, list.to_string())?;
    let file = file.display().to_string();
    for way in [&[][..], &["--server-side", "--force-conflicts"]] {
        let with = |verb: &'static str| [&[verb, "-f", &file], way].concat();
        kubectl(&with("apply")).await?;
        let namespace = format!("--namespace={}", env.name);
        for (kind, reason) in [("sgm/web", "Joined"), ("sgmset/interfaces", "AllMembers")] {
            let condition = r#"{.status.conditions[?(@.type=="Ready")].reason}"#;
            let wait = format!("--for=jsonpath={condition}={reason}");
            kubectl(&["wait", kind, &namespace, &wait, "--timeout=120s"]).await?;
        }
        // Its Secret is not there: the operator has looked, and said so.
        let wait = ["--for=condition=Ready=False", "--timeout=120s"];
        kubectl(&[&["wait", "cloudaccount/own", &namespace], &wait[..]].concat()).await?;
        // kubectl ends with 1 where there is a difference.
        assert_eq!(kubectl(&with("diff")).await?, "", "{way:?}");
    }
    Ok(())
}
