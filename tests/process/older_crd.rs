//! The CRDs of the cluster are older than the operator: it writes what they declare, says so once, and believes nothing written
//! that the API server has dropped.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use security_group_operator::api::ClusterCloudAccount;
use security_group_operator::condition;
use serde_json::{Value, json};

use crate::binaries;
use crate::options;
use crate::support::control_plane::ControlPlane;
use crate::support::env::TestEnv;
use crate::support::error::{Context as _, Result};
use crate::support::eventually::eventually;
use crate::support::operator::Operator;

const INVENTORY: &str = "
securityGroups: [{id: sg-base}, {id: sg-web}]
instances: [{id: i-web, securityGroupIds: [sg-base]}, {id: i-late, securityGroupIds: [sg-base]}]
";

const MEMBERSHIPS: &str = "securitygroupmemberships";
const ACCOUNTS: &str = "clustercloudaccounts";

/// Takes fields of the status out of a CRD, as in an older version of it.
async fn undeclare(plane: &ControlPlane, plural: &str, fields: &[&str]) -> Result<()> {
    let crds: Api<CustomResourceDefinition> = Api::all(plane.admin_client().await?);
    let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    let remove = |field: &&str| json!({"op": "remove", "path": format!("{status}/{field}")});
    let removals: Vec<Value> = fields.iter().map(remove).collect();
    let patch: Patch<Value> = Patch::Json(serde_json::from_value(json!(removals))?);
    let name = format!("{plural}.security-group-operator.io");
    crds.patch(&name, &PatchParams::default(), &patch).await?;
    Ok(())
}

/// The lines of the operator's log that speak of older CRDs.
fn said(operator: &Operator) -> Result<Vec<String>> {
    let log = std::fs::read_to_string(operator.log())?;
    let lines = log
        .lines()
        .filter(|line| line.contains("is older than this operator"));
    Ok(lines.map(str::to_owned).collect())
}

/// Writes of a membership's status that the API server has answered, whatever it answered.
fn status_writes(plane: &ControlPlane) -> Result<usize> {
    let events = plane.audit_events()?;
    let of_status = events.iter().filter(|event| {
        event.verb == "patch" && event.resource == MEMBERSHIPS && event.subresource == "status"
    });
    Ok(of_status.count())
}

#[tokio::test]
async fn status_is_written_as_far_as_an_older_crd_declares_it() -> Result<()> {
    let plane = ControlPlane::start().await?;
    let mut operator = Operator::start(&plane, options(&[])).await?;
    let env = TestEnv::start_on(&plane, &binaries!(), INVENTORY).await?;
    undeclare(&plane, MEMBERSHIPS, &["lastError", "target"]).await?;
    undeclare(&plane, ACCOUNTS, &["arn"]).await?;
    // The API server takes an older schema up after a moment.
    let declares = |field: &'static str| {
        let memberships = env.memberships();
        async move {
            let status = json!({"status": {field: {"state": "Running"}}});
            let params = PatchParams::default();
            let patched = memberships
                .patch_status("probe", &params, &Patch::Merge(&status))
                .await?;
            let kept = patched.status.and_then(|status| status.target);
            Ok::<_, crate::support::error::Error>(kept.is_some())
        }
    };
    let probe = json!({"suspend": true});
    env.apply("probe", "i-web", "sg-base", probe).await?;
    eventually("the older schema holds", async || {
        Ok(!declares("target").await?)
    })
    .await?;

    env.apply("web", "i-web", "sg-web", json!({})).await?;
    let object = env.until_reason("web", "Joined").await?;
    let status = object.status.context("a status")?;
    assert_eq!((status.target, status.last_error), (None, None));
    assert!(status.origin.is_some());
    // The account, too.
    env.write_account(json!([])).await?;
    env.until_reason("web", "NotGranted").await?;
    let everything = json!([{"name": "all", "namespaces": {"names": [env.name]}, "securityGroups": {"ids": ["*"]}}]);
    env.write_account(everything).await?;
    env.until_reason("web", "Joined").await?;
    let accounts: Api<ClusterCloudAccount> = Api::all(env.client.clone());
    eventually("the account's status is written", async || {
        let account = accounts.get(&env.name).await?;
        let status = account.status.unwrap_or_default();
        Ok(status.observed_generation == account.metadata.generation
            && condition::is_true(&status.conditions, "Ready"))
    })
    .await?;
    // A failure is told without the field that has its code.
    env.apply("gone", "i-gone", "sg-web", json!({})).await?;
    env.until_reason("gone", "TargetNotFound").await?;
    // What the CRD drops is no foreign write of the status, which would be corrected every 10 s.
    let before = status_writes(&plane)?;
    tokio::time::sleep(std::time::Duration::from_secs(25)).await;
    assert_eq!(status_writes(&plane)?, before);
    let lines = said(&operator)?;
    let of = |plural: &str| lines.iter().filter(|line| line.contains(plural)).count();
    assert_eq!((of(MEMBERSHIPS), of(ACCOUNTS)), (1, 1), "{lines:#?}");
    for line in &lines {
        assert!(
            line.contains("WARN") || line.contains("\"level\":\"WARN\""),
            "{line}"
        );
        assert!(line.contains("security-group-operator crds"), "{line}");
    }
    assert!(
        lines.iter().any(|line| line.contains("status.target")),
        "{lines:#?}"
    );

    // Without a record the intent tells whose it is, also to the next process.
    undeclare(&plane, MEMBERSHIPS, &["origin"]).await?;
    env.apply("late", "i-late", "sg-web", json!({})).await?;
    let late = env.until_reason("late", "Joined").await?;
    assert!(env.is_member("i-late", "sg-web").await?);
    let _ = late;
    operator.restart().await?;
    for (name, target) in [("late", "i-late"), ("web", "i-web")] {
        env.reconcile_and_wait(name).await?;
        env.delete(name).await?;
        env.until_deleted(name).await?;
        assert!(!env.is_member(target, "sg-web").await?, "{name}");
    }
    Ok(())
}
