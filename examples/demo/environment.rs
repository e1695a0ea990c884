//! The environment of the demo: control plane, simulated cloud, operator; each a process that ends with this one. Knows
//! nothing of the walkthrough.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::support::control_plane::{ControlPlane, Controllers};
use crate::support::error::{Context as _, Error, Result};
use crate::support::operator::{Operator, Options, bind_policies};
use crate::support::simulator::SimulatorProcess;
use crate::up;

/// All running processes. Dropped in this order: clients before servers.
pub struct DemoEnvironment {
    pub operator: Operator,
    pub simulator: SimulatorProcess,
    pub plane: ControlPlane,
}

impl DemoEnvironment {
    /// Starts all of it, in some seconds, and says so line by line.
    pub async fn start(controllers: Controllers) -> Result<Self> {
        require_port(PORT)?;
        require_port(ADMIN_PORT)?;
        let plane = ControlPlane::start_with(controllers).await?;
        let version = plane.admin_client().await?.apiserver_version().await?;
        println!(
            "  kube-apiserver {} with etcd, RBAC and audit",
            version.git_version
        );
        let inventory = repository().join("examples/inventory.yaml");
        let arguments = ["--inventory".into(), inventory.into_os_string()];
        let simulator =
            SimulatorProcess::start_on(&binary("ecs-simulator")?, PORT, ADMIN_PORT, &arguments)
                .await?;
        println!("  ecs-simulator on 127.0.0.1:{PORT} with examples/inventory.yaml");
        let options = Options {
            binary: binary("security-group-operator")?,
            arguments: vec![format!("--scan-period={}s", SCAN_PERIOD.as_secs())],
            ..Options::default()
        };
        let operator = Operator::start(&plane, options).await?;
        bind_policies(&plane, &repository().join("deploy")).await?;
        println!(
            "  security-group-operator, installed from deploy/install.yaml, under its own service account; it scans the cloud every {} s, by default every 60 s",
            SCAN_PERIOD.as_secs()
        );
        Ok(Self {
            operator,
            simulator,
            plane,
        })
    }

    /// An error with the name of the process that has ended, if one has.
    pub fn check(&mut self) -> Result<()> {
        self.operator.process().check()?;
        self.simulator.process().check()?;
        self.plane.check()
    }
}

/// Base directory of the samples' paths.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).to_owned()
}

/// A binary of the same `cargo build`, in the directory above this example's own.
pub fn binary(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let path = own
        .parent()
        .and_then(Path::parent)
        .context(format!("{} has no folder above it", own.display()))?
        .join(name);
    if path.is_file() {
        Ok(path)
    } else {
        Err(Error::new(format!(
            "{} is not there; build it first with `cargo build --bins`, or use `make demo`",
            path.display()
        )))
    }
}

/// The samples contain the port, so it cannot be another one.
fn require_port(port: u16) -> Result<()> {
    let Err(error) = TcpListener::bind(("127.0.0.1", port)) else {
        return Ok(());
    };
    // Not this process, if it is `make up` itself.
    let other = up::running()?.filter(|pid| *pid != std::process::id());
    let way_out = match other {
        Some(pid) => {
            format!("`make up` runs (process {pid}) and uses it; end that with `make down`")
        }
        None => format!(
            "the simulated cloud needs it, as examples/simulator/account.yaml and `make up` name its ports; end what listens there (`ss -ltnp sport = :{port}` names it)"
        ),
    };
    Err(Error::new(format!(
        "port {port} of 127.0.0.1 cannot be used ({error}): {way_out}"
    )))
}

/// Short, so that drift can be seen within seconds.
pub const SCAN_PERIOD: Duration = Duration::from_secs(5);
/// As in examples/simulator/account.yaml.
pub const PORT: u16 = 18080;
pub const ADMIN_PORT: u16 = 18081;
