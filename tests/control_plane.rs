//! The ground that the other end-to-end tests stand on is firm: a real API server, real rights, real deletion, and
//! nothing left running.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{ConfigMap, Namespace, Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, ObjectMeta, PostParams};
use kube::{Api, Client, Config, ResourceExt};
use serde_json::json;
use support::control_plane::{ControlPlane, client};
use support::error::{Context, Error, Result};
use support::process::Child;
use support::scratch::Scratch;
use support::{kstatus, operator};

#[tokio::test]
async fn the_api_server_is_ready_and_calls_itself_by_its_version() -> Result<()> {
    let admin = ControlPlane::shared().await?.admin_client().await?;
    let ready = admin
        .request_text(http::Request::get("/readyz").body(Vec::new())?)
        .await?;
    assert_eq!(ready, "ok");
    let version = admin.apiserver_version().await?.git_version;
    let go_mod = std::fs::read_to_string(in_repository("tests/control-plane/go.mod"))?;
    assert!(
        std::env::var_os("KUBEBUILDER_ASSETS").is_some()
            || go_mod.contains(&format!("k8s.io/kubernetes {version} ")),
        "the server says {version}"
    );
    Ok(())
}

#[tokio::test]
async fn a_service_account_without_rights_is_refused_and_known_by_name() -> Result<()> {
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
async fn a_token_that_nobody_signed_is_refused() -> Result<()> {
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
    let mut seen = Vec::new();
    eventually("three requests in the audit log", async || {
        seen = plane
            .audit_events()?
            .into_iter()
            .filter(|event| event.user_agent == "counted-by-a-test")
            .collect();
        Ok(seen.len() >= 3)
    })
    .await?;
    drop(watch);
    tokio::time::sleep(Duration::from_millis(300)).await; // the watch's end is logged, and is no second request
    let seen = plane
        .audit_events()?
        .into_iter()
        .filter(|event| event.user_agent == "counted-by-a-test");
    let mut seen: Vec<_> = seen
        .map(|event| (event.verb, event.resource, event.name, event.code))
        .collect();
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
async fn a_deleted_namespace_takes_its_objects_along() -> Result<()> {
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
async fn a_deleted_owner_takes_its_dependents_along() -> Result<()> {
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
async fn a_legacy_token_secret_is_filled() -> Result<()> {
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
async fn what_is_installed_is_all_of_a_kustomization_but_its_deployments() -> Result<()> {
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
async fn the_api_server_comes_back_with_its_objects() -> Result<()> {
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
    let directory = plane.directory().to_owned();
    drop(plane);
    assert!(
        !directory.exists(),
        "the files of a control plane stay behind"
    );
    Ok(())
}

#[tokio::test]
async fn kstatus_judges_as_flux_does() -> Result<()> {
    let object = |status: serde_json::Value| json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": "a", "generation": 2}, "status": status});
    let condition = |kind: &str| {
        object(json!({"conditions": [{"type": kind, "status": "True", "message": "why"}]}))
    };
    let deleted = json!({"apiVersion": "v1", "kind": "A", "metadata": {"name": "a", "deletionTimestamp": "2026-01-01T00:00:00Z"}});
    let objects = [
        object(json!({"observedGeneration": 1})),
        condition("Reconciling"),
        condition("Stalled"),
        condition("Ready"),
        deleted,
    ];
    let verdicts = kstatus::judge(&objects).await?;
    let words: Vec<_> = verdicts
        .iter()
        .map(|verdict| verdict.status.as_str())
        .collect();
    assert_eq!(
        words,
        [
            "InProgress",
            "InProgress",
            "Failed",
            "Current",
            "Terminating"
        ]
    );
    assert_eq!(verdicts[2].message, "why");
    let many = vec![condition("Ready"); 5000]; // more than a pipe holds
    assert_eq!(kstatus::judge(&many).await?.len(), many.len());
    assert!(kstatus::judge(&[json!("no object")]).await.is_err());
    Ok(())
}

#[tokio::test]
async fn a_child_has_its_own_process_id_exit_code_and_log() -> Result<()> {
    let scratch = Scratch::new("test")?;
    let log = scratch.path().join("log");
    let mut child = sh("echo $$; echo at the end >&2; exit 7", &log)?;
    assert_eq!(child.wait(LIMIT).await?, 7);
    assert_eq!(
        std::fs::read_to_string(&log)?,
        format!("{}\nat the end\n", child.pid())
    );
    assert!(
        child.signal("STOP").is_err(),
        "a signal to a process that has ended"
    );
    let mut unready = sh("echo out of order; exit 3", &log)?;
    let error = unready
        .wait_until(LIMIT, async || Err(Error::new("not yet")))
        .await
        .err()
        .context("it was ready")?;
    assert!(
        error.to_string().contains("ended with 3") && error.to_string().contains("out of order"),
        "{error}"
    );
    assert_eq!(
        Child::spawn("none", &Command::new("no-such-program"), &log)?
            .wait(LIMIT)
            .await?,
        127
    );
    Ok(())
}

#[tokio::test]
async fn a_child_can_be_frozen_ended_and_killed() -> Result<()> {
    let scratch = Scratch::new("test")?;
    let beat = scratch.path().join("beat");
    let script = format!(
        "trap 'exit 5' TERM; while :; do echo >>{}; sleep 0.02; done",
        beat.display()
    );
    let log = scratch.path().join("log");
    let mut child = sh(&script, &log)?;
    eventually("a beat", async || Ok(beat.exists())).await?;
    child.signal("STOP")?;
    assert!(is_still(&beat).await?, "a frozen process runs on");
    assert_eq!(
        child.exit_code()?,
        None,
        "a frozen process is taken for an ended one"
    );
    child.signal("CONT")?;
    assert!(!is_still(&beat).await?, "a thawed process stands still");
    assert_eq!(child.terminate(LIMIT).await?, 5);
    let mut child = sh(&script, &log)?;
    child.kill();
    assert_eq!(child.exit_code()?, Some(128 + 9));
    assert!(is_still(&beat).await?);
    Ok(())
}

#[tokio::test]
async fn what_a_child_leaves_behind_goes_with_it() -> Result<()> {
    let scratch = Scratch::new("test")?;
    let beat = scratch.path().join("beat");
    let script = format!(
        "(while :; do echo >>{}; sleep 0.02; done) & sleep 0.2",
        beat.display()
    );
    let mut child = sh(&script, &scratch.path().join("log"))?;
    assert_eq!(child.wait(LIMIT).await?, 0);
    assert!(beat.exists());
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(is_still(&beat).await?, "a descendant outlives the child");
    Ok(())
}

#[tokio::test]
async fn children_and_files_are_gone_after_sigkill_of_their_parent() -> Result<()> {
    let scratch = Scratch::new("test")?;
    let told = scratch.path().join("told");
    let mut parent = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "a_parent_that_waits_for_sigkill",
            "--ignored",
            "--nocapture",
        ])
        .env(PARENT_OF_TEST, scratch.path())
        .stdout(Stdio::null())
        .spawn()?;
    eventually("the parent's word", async || Ok(told.exists())).await?;
    let directory = PathBuf::from(std::fs::read_to_string(&told)?);
    let beats = [
        scratch.path().join("child"),
        scratch.path().join("grandchild"),
    ];
    for beat in &beats {
        eventually("a beat", async || Ok(beat.exists())).await?;
        assert!(!is_still(beat).await?);
    }
    assert!(directory.exists());
    parent.kill()?; // SIGKILL
    parent.wait()?;
    tokio::time::sleep(Duration::from_millis(200)).await;
    for beat in &beats {
        assert!(is_still(beat).await?, "{} lives on", beat.display());
    }
    eventually("its directory is gone", async || Ok(!directory.exists())).await
}

/// The other half of the test above; does nothing when it is run by hand.
#[tokio::test]
#[ignore = "run by children_and_files_are_gone_after_sigkill_of_their_parent"]
async fn a_parent_that_waits_for_sigkill() -> Result<()> {
    let Some(directory) = std::env::var_os(PARENT_OF_TEST).map(PathBuf::from) else {
        return Ok(());
    };
    let own = Scratch::new("test")?;
    let beat = |name: &str| {
        format!(
            "while :; do echo >>{}/{name}; sleep 0.02; done",
            directory.display()
        )
    };
    let _child = sh(
        &format!("({}) & {}", beat("grandchild"), beat("child")),
        &own.path().join("log"),
    )?;
    std::fs::write(directory.join("telling"), own.path().display().to_string())?;
    std::fs::rename(directory.join("telling"), directory.join("told"))?;
    std::future::pending().await
}

#[tokio::test]
async fn two_builds_at_once_both_succeed_and_a_half_written_program_is_never_used() -> Result<()> {
    let cache = Scratch::new("cache")?;
    let build = || {
        tokio::process::Command::new(in_repository("tests/control-plane/build"))
            .arg("kstatus")
            .env("XDG_CACHE_HOME", cache.path())
            .output()
    };
    let (one, two) = tokio::try_join!(build(), build())?;
    let said = |output: &std::process::Output| String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        one.status.success() && two.status.success(),
        "{}\n{}",
        said(&one),
        said(&two)
    );
    assert_eq!(one.stdout, two.stdout);
    let built = [&one, &two]
        .into_iter()
        .filter(|output| said(output).contains("built in"))
        .count();
    assert_eq!(
        built,
        1,
        "the work was done twice:\n{}\n{}",
        said(&one),
        said(&two)
    );
    let line = String::from_utf8(one.stdout)?;
    let program = PathBuf::from(
        line.trim()
            .strip_prefix("KSTATUS=")
            .context("no KSTATUS= line")?,
    );
    // A build that was killed leaves a piece under another name; the program is made again, whole.
    std::fs::remove_file(&program)?;
    let half = program.with_file_name(".building.killed");
    std::fs::create_dir(&half)?;
    std::fs::write(half.join("kstatus"), "half of it")?;
    assert!(build().await?.status.success());
    assert!(
        Command::new(&program)
            .stdin(Stdio::null())
            .status()?
            .success()
    );
    assert!(!half.exists());
    Ok(())
}

#[test]
fn a_machine_without_go_and_a_wrong_directory_are_told_the_way_out() -> Result<()> {
    let empty = Scratch::new("empty")?;
    let refusal = |name: &str, value: &Path| -> Result<String> {
        let output = Command::new("/bin/bash")
            .arg(in_repository("tests/control-plane/build"))
            .env_remove("KUBEBUILDER_ASSETS")
            .env("XDG_CACHE_HOME", empty.path())
            .env(name, value)
            .output()?;
        assert!(!output.status.success() && output.stdout.is_empty());
        Ok(String::from_utf8(output.stderr)?)
    };
    let said = refusal("KUBEBUILDER_ASSETS", empty.path())?;
    assert!(
        said.contains("lacks kube-apiserver etcd kube-controller-manager"),
        "{said}"
    );
    // A PATH with all that the script needs, but no go.
    for tool in [
        "awk",
        "basename",
        "cat",
        "cut",
        "dirname",
        "sha256sum",
        "shasum",
        "uname",
    ] {
        let found = Command::new("sh")
            .args(["-c", "command -v \"$1\"", "sh", tool])
            .output()?
            .stdout;
        if let Some(path) = String::from_utf8(found)?.lines().next() {
            std::os::unix::fs::symlink(path, empty.path().join(tool))?;
        }
    }
    let said = refusal("PATH", empty.path())?;
    assert!(
        said.contains("go is not on the PATH") && said.contains("KUBEBUILDER_ASSETS"),
        "{said}"
    );
    Ok(())
}

fn sh(script: &str, log: &Path) -> Result<Child> {
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    Child::spawn("sh", &command, log)
}

async fn is_still(file: &Path) -> Result<bool> {
    let before = std::fs::metadata(file)?.len();
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(std::fs::metadata(file)?.len() == before)
}

async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !holds().await? {
        if Instant::now() > deadline {
            return Err(Error::new(format!("not within {LIMIT:?}: {what}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

const PARENT_OF_TEST: &str = "SECURITY_GROUP_OPERATOR_TEST_PARENT";
const LIMIT: Duration = Duration::from_secs(60);

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
