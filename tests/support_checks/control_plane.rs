//! The cluster that the end-to-end tests run on is a real one: its version, its rights, its tokens, its audit,
//! and its deletion.

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;

use crate::support::control_plane::{ControlPlane, client};
use crate::support::error::{Error, Result};
use crate::support::eventually::eventually;
use crate::support::operator;

#[tokio::test]
async fn api_server_is_ready_and_reports_its_version() -> Result<()> {
    let admin = ControlPlane::shared().await?.admin_client().await?;
    let ready = admin
        .request_text(http::Request::get("/readyz").body(Vec::new())?)
        .await?;
    assert_eq!(ready, "ok");
    let version = admin.apiserver_version().await?.git_version;
    let go_mod = std::fs::read_to_string(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/control-plane/go.mod"
    ))?;
    assert!(
        std::env::var_os("KUBEBUILDER_ASSETS").is_some()
            || go_mod.contains(&format!("k8s.io/kubernetes {version} ")),
        "the server says {version}"
    );
    Ok(())
}

#[tokio::test]
async fn service_account_without_rights_is_forbidden_by_name() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let namespace = new_namespace(&plane.admin_client().await?, "rights").await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.admin_client().await?, &namespace);
    accounts
        .create(&PostParams::default(), &named("nobody"))
        .await?;
    let kubeconfig = plane
        .kubeconfig_for_service_account(&namespace, "nobody")
        .await?;
    let secrets: Api<Secret> = Api::namespaced(client(&kubeconfig).await?, &namespace);
    let Err(kube::Error::Api(refusal)) = secrets.list(&ListParams::default()).await else {
        return Err(Error::new("an account without rights has listed Secrets"));
    };
    assert_eq!(refusal.code, 403);
    // The token is a real one: the server knows whose it is.
    assert!(
        refusal
            .message
            .contains(&format!("system:serviceaccount:{namespace}:nobody")),
        "{}",
        refusal.message
    );
    Ok(())
}

#[tokio::test]
async fn forged_token_is_rejected() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let kubeconfig = std::fs::read_to_string(plane.admin_kubeconfig())?;
    let forged = plane.directory().join("forged.kubeconfig");
    std::fs::write(
        &forged,
        kubeconfig.replace("\"token\":\"", "\"token\":\"not-"),
    )?;
    let secrets: Api<Secret> = Api::default_namespaced(client(&forged).await?);
    let refused = secrets.list(&ListParams::default()).await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 401));
    Ok(())
}

#[tokio::test]
async fn audit_counts_each_request_of_a_user_agent_once() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let mut config = Config::from_custom_kubeconfig(
        kube::config::Kubeconfig::read_from(plane.admin_kubeconfig())?,
        &kube::config::KubeConfigOptions::default(),
    )
    .await?;
    config.headers.push((
        http::header::USER_AGENT,
        http::HeaderValue::from_static("counted-by-a-test"),
    ));
    let maps: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config)?);
    maps.create(&PostParams::default(), &named("audited"))
        .await?;
    assert!(maps.get_opt("absent").await?.is_none());
    let watch = maps.watch(&kube::api::WatchParams::default(), "0").await?; // open, and not finished
    let counted = || -> Result<Vec<_>> {
        let events = plane.audit_events()?.into_iter();
        let ours = events.filter(|event| event.user_agent == "counted-by-a-test");
        Ok(ours
            .map(|event| (event.verb, event.resource, event.name, event.code))
            .collect())
    };
    eventually("three requests in the audit log", async || {
        Ok(counted()?.len() >= 3)
    })
    .await?;
    drop(watch);
    tokio::time::sleep(Duration::from_millis(300)).await; // the watch's end is logged, and is no second request
    let mut seen = counted()?;
    seen.sort();
    let request =
        |verb: &str, name: &str, code| (verb.into(), "configmaps".into(), name.into(), code);
    assert_eq!(
        seen,
        [
            request("create", "audited", 201),
            request("get", "absent", 404),
            request("watch", "", 200)
        ]
    );
    Ok(())
}

#[tokio::test]
async fn deleting_a_namespace_deletes_its_objects() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let admin = plane.admin_client().await?;
    let namespace = new_namespace(&admin, "going").await?;
    let maps: Api<ConfigMap> = Api::namespaced(admin.clone(), &namespace);
    maps.create(&PostParams::default(), &named("inside"))
        .await?;
    let deleted = plane
        .kubectl()
        .args(["delete", "namespace", &namespace, "--timeout=60s"])
        .output()?;
    assert!(
        deleted.status.success(),
        "{}",
        String::from_utf8_lossy(&deleted.stderr)
    );
    assert!(
        Api::<Namespace>::all(admin)
            .get_opt(&namespace)
            .await?
            .is_none()
    );
    assert!(maps.get_opt("inside").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn deleting_an_owner_deletes_its_dependents() -> Result<()> {
    let admin = ControlPlane::shared().await?.admin_client().await?;
    let namespace = new_namespace(&admin, "owners").await?;
    let maps: Api<ConfigMap> = Api::namespaced(admin, &namespace);
    let owner = maps.create(&PostParams::default(), &named("owner")).await?;
    let mut dependent: ConfigMap = named("dependent");
    dependent.metadata.owner_references = Some(vec![serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner.uid(),
    }))?]);
    maps.create(&PostParams::default(), &dependent).await?;
    maps.delete("owner", &DeleteParams::background()).await?;
    eventually("the dependent is gone", async || {
        Ok(maps.get_opt("dependent").await?.is_none())
    })
    .await
}

#[tokio::test]
async fn legacy_token_secret_is_filled() -> Result<()> {
    let admin = ControlPlane::shared().await?.admin_client().await?;
    let namespace = new_namespace(&admin, "tokens").await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), &namespace);
    accounts
        .create(&PostParams::default(), &named("holder"))
        .await?;
    let mut secret: Secret = named("token");
    secret.type_ = Some("kubernetes.io/service-account-token".into());
    secret.metadata.annotations = Some(BTreeMap::from([(
        "kubernetes.io/service-account.name".into(),
        "holder".into(),
    )]));
    let secrets: Api<Secret> = Api::namespaced(admin, &namespace);
    secrets.create(&PostParams::default(), &secret).await?;
    eventually("a token in the Secret", async || {
        Ok(secrets
            .get("token")
            .await?
            .data
            .is_some_and(|data| data.contains_key("token")))
    })
    .await
}

#[tokio::test]
async fn install_applies_all_but_deployments() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let kustomization = plane.directory().join("kustomization");
    std::fs::create_dir_all(kustomization.join("base"))?;
    let write = |name: &str, text: &str| std::fs::write(kustomization.join(name), text);
    write("kustomization.yaml", "resources: [own.yaml, base]\n")?;
    write("own.yaml", OWN_NAMESPACE)?;
    write(
        "base/kustomization.yaml",
        "namespace: installed\nresources: [all.yaml]\n",
    )?;
    write("base/all.yaml", DEPLOYMENT_AND_ITS_KIND)?;
    operator::install(plane, &kustomization).await?;
    operator::install(plane, &kustomization).await?; // again, as each start does
    let listed = plane
        .kubectl()
        .args([
            "get",
            "widgets,deployments",
            "-n",
            "installed",
            "-o",
            "name",
        ])
        .output()?;
    assert_eq!(
        String::from_utf8_lossy(&listed.stdout).trim(),
        "widget.tests.example.com/one"
    );
    Ok(())
}

#[tokio::test]
async fn restarted_api_server_keeps_its_objects() -> Result<()> {
    let mut plane = ControlPlane::start().await?;
    let maps: Api<ConfigMap> = Api::default_namespaced(plane.admin_client().await?);
    maps.create(&PostParams::default(), &named("kept")).await?;
    plane.stop_api_server();
    assert!(
        maps.get("kept").await.is_err(),
        "a killed server has answered"
    );
    plane.start_api_server().await?;
    maps.get("kept").await?;
    // The controllers have outlived the gap, too: one of them makes an account in each new namespace.
    let namespace = new_namespace(&plane.admin_client().await?, "after").await?;
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.admin_client().await?, &namespace);
    eventually("an account in the new namespace", async || {
        Ok(accounts.get_opt("default").await?.is_some())
    })
    .await?;
    plane.check()?;
    let kill = format!("kill -KILL {}", plane.api_server_pid()?);
    Command::new("sh").args(["-c", &kill]).status()?;
    eventually("its end is noticed", async || {
        let Err(error) = plane.check() else {
            return Ok(false);
        };
        assert!(
            error.to_string().starts_with("kube-apiserver has ended"),
            "{error}"
        );
        Ok(true)
    })
    .await?;
    let directory = plane.directory().to_owned();
    drop(plane);
    assert!(
        !directory.exists(),
        "the files of a control plane stay behind"
    );
    Ok(())
}

async fn new_namespace(admin: &Client, name: &str) -> Result<String> {
    Ok(Api::<Namespace>::all(admin.clone())
        .create(&PostParams::default(), &named(name))
        .await?
        .name_any())
}

fn named<K: kube::Resource<DynamicType = ()> + Default>(name: &str) -> K {
    let mut object = K::default();
    *object.meta_mut() = ObjectMeta {
        name: Some(name.into()),
        ..ObjectMeta::default()
    };
    object
}

const OWN_NAMESPACE: &str = "{apiVersion: v1, kind: Namespace, metadata: {name: installed}}\n";

const DEPLOYMENT_AND_ITS_KIND: &str = "\
apiVersion: apps/v1
kind: Deployment
metadata: {name: one}
spec:
  selector: {matchLabels: {app: one}}
  template: {metadata: {labels: {app: one}}, spec: {containers: [{name: one, image: one}]}}
---
apiVersion: tests.example.com/v1
kind: Widget
metadata: {name: one}
---
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.tests.example.com}
spec:
  group: tests.example.com
  scope: Namespaced
  names: {kind: Widget, plural: widgets}
  versions: [{name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object}}}]
";
