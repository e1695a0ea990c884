//! The Deployment of deploy/install.yaml runs where Pod Security is `restricted`, within limits, with arguments that the binary knows.

use std::path::{Path, PathBuf};
use std::time::Duration;

use security_group_operator::ecs::Action;
use security_group_operator::shutdown::{TIME_FOR_CALLS, TIME_FOR_EVENTS};
use serde_json::{Value, json};

use crate::support;
use crate::support::control_plane::ControlPlane;
use crate::support::error::{Context, Result};
use crate::support::operator::{self, NAMESPACE, Operator, Options};
use crate::support::tempdir::TempDir;

const BINARY: &str = env!("CARGO_BIN_EXE_security-group-operator");

fn deploy() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy")
}

fn deployment() -> Result<Value> {
    let text = std::fs::read_to_string(deploy().join("install.yaml"))?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&text)?;
    let mut deployments = objects
        .into_iter()
        .filter(|object| object["kind"] == "Deployment");
    deployments.next().context("no Deployment")
}

fn pod_template() -> Result<Value> {
    let deployment = deployment()?;
    let template = deployment.pointer("/spec/template");
    Ok(template.context("no pod template")?.clone())
}

fn container() -> Result<Value> {
    let containers = pod_template()?;
    let containers = containers
        .pointer("/spec/containers")
        .and_then(Value::as_array)
        .context("no containers")?;
    assert_eq!(containers.len(), 1);
    Ok(containers.first().context("no container")?.clone())
}

/// `kubectl create --dry-run=server` of an object: whether it is accepted, and what is said of it.
async fn try_out(object: &Value) -> Result<(bool, String)> {
    let plane = ControlPlane::shared().await?;
    operator::install(plane, &deploy()).await?;
    let files = TempDir::new("deployment")?;
    let file = files.path().join("object.json");
    std::fs::write(&file, object.to_string())?;
    let mut command = tokio::process::Command::from(plane.kubectl());
    let output = command
        .args(["create", "--dry-run=server", "-f"])
        .arg(&file)
        .output()
        .await?;
    let said = [output.stdout, output.stderr].concat();
    Ok((output.status.success(), String::from_utf8(said)?))
}

/// The pod that the Deployment would make.
fn pod(template: Value) -> Result<Value> {
    let mut pod = template;
    let fields = pod.as_object_mut().context("a template is an object")?;
    fields.insert("apiVersion".to_owned(), json!("v1"));
    fields.insert("kind".to_owned(), json!("Pod"));
    let metadata = fields.get_mut("metadata").and_then(Value::as_object_mut);
    let metadata = metadata.context("a template has metadata")?;
    metadata.insert("name".to_owned(), json!("operator"));
    metadata.insert("namespace".to_owned(), json!(NAMESPACE));
    Ok(pod)
}

#[tokio::test]
async fn restricted_pod_security_admits_the_pod() -> Result<()> {
    let (accepted, said) = try_out(&pod(pod_template()?)?).await?;
    assert!(accepted && !said.contains("Warning"), "{said}");
    Ok(())
}

#[tokio::test]
async fn restricted_pod_security_rejects_a_lax_pod() -> Result<()> {
    let mut careless = pod(pod_template()?)?;
    careless["spec"]["securityContext"] = json!({});
    let (accepted, said) = try_out(&careless).await?;
    assert!(!accepted && said.contains("restricted"), "{said}");
    Ok(())
}

#[tokio::test]
async fn kubectl_applies_deploy_to_an_empty_cluster_in_every_way() -> Result<()> {
    let plane = ControlPlane::start().await?;
    // The README names the first two.
    for (options, applied) in [
        (["apply", "-f=deploy/install.yaml"].as_slice(), "created"),
        (
            &["apply", "--server-side", "-k=deploy"],
            "serverside-applied",
        ),
        (
            &["apply", "--server-side", "-f=deploy/install.yaml"],
            "serverside-applied",
        ),
    ] {
        let mut command = tokio::process::Command::from(plane.kubectl());
        command.current_dir(env!("CARGO_MANIFEST_DIR"));
        let output = command.args(options).output().await?;
        let all = String::from_utf8([output.stdout, output.stderr].concat())?;
        assert!(output.status.success() && !all.contains("Warning"), "{all}");
        for object in [
            "customresourcedefinition.apiextensions.k8s.io/securitygroupmemberships.security-group-operator.io",
            "deployment.apps/security-group-operator",
        ] {
            let line = format!("{object} {applied}");
            assert!(all.contains(&line), "{all}");
        }
    }
    Ok(())
}

#[test]
fn one_elected_replica_of_the_current_version_is_deployed() -> Result<()> {
    let deployment = deployment()?;
    assert_eq!(deployment["spec"]["replicas"], json!(1));
    // During a rollout there are two.
    assert_eq!(deployment["spec"]["strategy"]["type"], "RollingUpdate");
    let arguments = container()?["args"].clone();
    assert!(
        arguments
            .as_array()
            .is_some_and(|all| all.contains(&json!("--leader-elect"))),
        "{arguments}"
    );
    let image = concat!("security-group-operator:", env!("CARGO_PKG_VERSION"));
    assert_eq!(container()?["image"], json!(image));
    Ok(())
}

#[tokio::test]
async fn probes_match_the_binarys_paths_and_port() -> Result<()> {
    let container = container()?;
    let plane = ControlPlane::shared().await?;
    let options = Options {
        binary: BINARY.into(),
        ..Options::default()
    };
    let operator = Operator::start(plane, options).await?;
    for probe in ["livenessProbe", "readinessProbe"] {
        let request = &container[probe]["httpGet"];
        let path = request["path"].as_str().context("a path")?;
        support::simulator::probe(&operator.url(path)).await?;
        assert_eq!(request["port"], container["ports"][0]["name"], "{probe}");
    }
    let help = std::process::Command::new(BINARY).arg("--help").output()?;
    let listens = format!("[::]:{},", container["ports"][0]["containerPort"]);
    let help = String::from_utf8(help.stdout)?;
    assert!(help.contains(&listens), "{listens}\n{help}");
    Ok(())
}

#[test]
fn container_is_read_only_with_resource_limits() -> Result<()> {
    let container = container()?;
    assert_eq!(
        container["securityContext"]["readOnlyRootFilesystem"],
        json!(true)
    );
    for field in ["requests/cpu", "requests/memory", "limits/memory"] {
        assert!(
            container.pointer(&format!("/resources/{field}")).is_some(),
            "resources.{field} is not set"
        );
    }
    Ok(())
}

#[test]
fn terminating_pod_has_time_for_a_running_call() -> Result<()> {
    let template = pod_template()?;
    let seconds = template.pointer("/spec/terminationGracePeriodSeconds");
    let grace = Duration::from_secs(seconds.and_then(Value::as_u64).context("a number")?);
    for action in [Action::JoinSecurityGroup, Action::LeaveSecurityGroup] {
        let and_its_record = action.deadline() + Duration::from_secs(1);
        assert!(and_its_record <= TIME_FOR_CALLS, "{action}");
    }
    let end = TIME_FOR_CALLS + TIME_FOR_EVENTS;
    assert_eq!(end, Duration::from_secs(70), "docs/user/operate.md says so");
    // The kubelet counts from before the signal.
    assert!(end + Duration::from_secs(5) <= grace, "{grace:?}");
    Ok(())
}

#[test]
fn binary_accepts_the_deployed_flags_and_variables() -> Result<()> {
    let container = container()?;
    let run = |arguments: &[&str]| {
        std::process::Command::new(BINARY)
            .args(arguments)
            .arg("--help")
            .output()
    };
    let arguments: Vec<&str> = container["args"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    assert!(!arguments.is_empty());
    let help = run(&arguments)?;
    let text = String::from_utf8(help.stdout)?;
    assert!(help.status.success(), "{arguments:?}");
    assert!(!run(&["--no-such-argument"])?.status.success());
    for variable in container["env"].as_array().into_iter().flatten() {
        let name = variable["name"].as_str().context("a name")?;
        assert!(text.contains(name), "{name} is not in --help:\n{text}");
    }
    Ok(())
}
