//! The cluster of `tests/node/node` for as long as a test lives, its simulated cloud, and what the kernel can do to a pod.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, Config, ResourceExt as _};
use serde_json::Value;

use crate::support::control_plane;
use crate::support::error::{Context as _, Error, Result};
use crate::support::simulator::fetch;

/// A running cluster. It ends when this is dropped, and when this process ends in any other way.
pub struct Cluster {
    name: &'static str,
    hold: Child,
    pub client: Client,
    pub config: Config,
    admin: String,
}

impl Cluster {
    /// Starts it under this name, in about 20 s. `None` where it cannot run, which is said on stderr, whatever the test runner captures.
    pub async fn start(name: &'static str) -> Result<Option<Self>> {
        let can = script(name).arg("can").output()?;
        if !can.status.success() {
            let why = String::from_utf8_lossy(&can.stderr);
            writeln!(std::io::stderr(), "SKIPPED: no pod is run. {}", why.trim())?;
            return Ok(None);
        }
        let mut hold = script(name)
            .arg("hold")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("tests/node/node")?;
        let mut lines = BufReader::new(hold.stdout.take().context("stdout")?).lines();
        let last = lines.find(|line| {
            let line = line.as_deref();
            line.is_ok_and(|line| line.starts_with("It runs until"))
        });
        if last.is_none() {
            hold.wait()?;
            return Err(Error::new("the node does not start; it says why, above"));
        }
        let state = repository().join("target/node").join(name);
        let ports = std::fs::read_to_string(state.join("ports"))?;
        let (_, admin) = ports.trim().split_once(' ').context("two ports")?;
        let config = control_plane::config(&state.join("kubeconfig")).await?;
        Ok(Some(Self {
            client: Client::try_from(config.clone())?,
            config,
            name,
            admin: format!("http://127.0.0.1:{admin}"),
            hold,
        }))
    }

    /// Runs a command in the namespaces of the node; returns what it says.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        said(script(self.name).arg("exec").args(arguments))
    }

    /// Runs a command of Helm for the release, with its hooks as pods; returns what it says.
    pub fn helm(&self, arguments: &[&str]) -> Result<String> {
        let mut helm = script(self.name);
        helm.arg("helm").args(arguments);
        said(helm.args(["security-group-operator", "-n", "security-group-operator"]))
    }

    /// An answer of the simulated cloud's admin port.
    pub async fn cloud(&self, path: &str) -> Result<Value> {
        let answer = fetch(&format!("{}{path}", self.admin)).await?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Sends a request to the simulated cloud's admin port.
    pub async fn tell_cloud(&self, path: &str, body: &Value) -> Result<()> {
        let client = reqwest::Client::builder().no_proxy().build()?;
        let url = format!("{}{path}", self.admin);
        let answer = client.post(url).body(body.to_string()).send().await?;
        let status = answer.status();
        let text = answer.text().await?;
        let refused = || Error::new(format!("{path}: {status} {text}"));
        status.is_success().then_some(()).ok_or_else(refused)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.hold.stdin.take());
        let _ = self.hold.wait();
    }
}

/// The process of a pod's one container, as this machine sees it.
pub struct Process {
    pid: u32,
    container: String,
}

impl Process {
    /// The process that the container of this pod began with.
    pub fn of(pod: &Pod) -> Result<Self> {
        let status = pod.status.as_ref();
        let containers = status.and_then(|status| status.container_statuses.as_ref());
        let id = containers.and_then(|all| all.first()?.container_id.as_deref());
        let id = id.and_then(|id| id.strip_prefix("containerd://"));
        let id = id.context(format!("{} has no container", pod.name_any()))?;
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let process = Self {
                pid,
                container: id.to_owned(),
            };
            if process.read("cgroup").is_ok_and(|text| text.contains(id)) {
                return Ok(process);
            }
        }
        Err(Error::new(format!(
            "{} has no process in a cgroup {id}",
            pod.name_any()
        )))
    }

    /// A file of its folder in /proc.
    pub fn read(&self, file: &str) -> Result<String> {
        let mut text = String::new();
        File::open(format!("/proc/{}/{file}", self.pid))?.read_to_string(&mut text)?;
        Ok(text)
    }

    /// Freezes it.
    pub fn freeze(&self) -> Result<()> {
        shell(&format!("kill -STOP {}", self.pid)).map(drop)
    }

    /// The node's end of the pod's network interface.
    pub fn veth(&self, cluster: &Cluster) -> Result<String> {
        // "2: eth0@if5: <BROADCAST…" in the pod is "5: veth1234@if2: <BROADCAST…" on the node.
        let own = shell(&format!(
            "nsenter -t {} -n ip -oneline link show eth0",
            self.pid
        ))?;
        let number = own
            .split("@if")
            .nth(1)
            .and_then(|rest| rest.split(':').next());
        let number = format!("{}: ", number.context(own.clone())?);
        let links = cluster.run(&["ip", "-oneline", "link"])?;
        let link = links.lines().find_map(|line| line.strip_prefix(&number));
        let name = link.and_then(|line| line.split('@').next());
        Ok(name.context(format!("{number} in {links}"))?.to_owned())
    }

    /// Fills the memory of its container until the kernel kills it. What fills it is a file in memory, for which the kernel can kill no
    /// process: it kills the largest one.
    pub fn run_out_of_memory(&self, cluster: &Cluster) {
        let script = format!(
            "exec 3>/run/filled; rm /run/filled; echo $$ >$(find /sys/fs/cgroup/memory -name {})/cgroup.procs; \
             exec dd if=/dev/zero bs=1M count=1000 >&3",
            self.container
        );
        // In the end it is killed, too.
        let _ = cluster.run(&["sh", "-c", &script]);
    }
}

fn shell(script: &str) -> Result<String> {
    said(Command::new("sh").args(["-c", script]))
}

fn said(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    let text = String::from_utf8([output.stdout, output.stderr].concat())?;
    let failed = || Error::new(format!("{command:?}: {text}"));
    output
        .status
        .success()
        .then_some(text.clone())
        .ok_or_else(failed)
}

fn script(cluster: &str) -> Command {
    let mut command = Command::new(repository().join("tests/node/node"));
    let binaries = Path::new(env!("CARGO_BIN_EXE_security-group-operator")).parent();
    command
        .env("CLUSTER", cluster)
        .env("BINARIES", binaries.unwrap_or(Path::new(".")));
    command
}

fn repository() -> PathBuf {
    env!("CARGO_MANIFEST_DIR").into()
}
