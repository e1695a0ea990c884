//! Paths of the Go programs, from `tests/control-plane/build`, which finds or builds them.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::error::{Context, Error, Result};

/// The directory with kube-apiserver, etcd and kube-controller-manager.
///
/// Builds them on first use, in about 7 minutes on two cores; progress is printed to stderr.
pub async fn control_plane() -> Result<PathBuf> {
    build("control-plane", "KUBEBUILDER_ASSETS=").await
}

/// The same without kube-controller-manager, which need not be there.
pub async fn api_server() -> Result<PathBuf> {
    build("api-server", "KUBEBUILDER_ASSETS=").await
}

/// kstatus, which computes a status from conditions, see `tests/kstatus`.
pub async fn kstatus() -> Result<PathBuf> {
    build("kstatus", "KSTATUS=").await
}

/// Helm, with which users install `deploy/chart`.
pub async fn helm() -> Result<PathBuf> {
    build("helm", "HELM=").await
}

/// The directory with prometheus, which scrapes the operator, and promtool, which judges metrics and alerts.
pub async fn prometheus() -> Result<PathBuf> {
    build("prometheus", "PROMETHEUS=").await
}

/// The operator that the benchmarks compare with, see `benches/textbook`.
pub async fn textbook() -> Result<PathBuf> {
    build("textbook", "TEXTBOOK=").await
}

/// The user's `kubectl`, or else the one beside the control plane.
pub fn kubectl(control_plane: &Path) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let installed = std::env::split_paths(&path)
        .map(|directory| directory.join("kubectl"))
        .find(|file| file.is_file());
    installed.unwrap_or_else(|| control_plane.join("kubectl"))
}

async fn build(what: &str, variable: &str) -> Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/control-plane/build");
    let output = tokio::process::Command::new(&script)
        .arg(what)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context(script.display())?
        .wait_with_output()
        .await?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    match stdout
        .lines()
        .last()
        .and_then(|line| line.strip_prefix(variable))
    {
        Some(path) if output.status.success() => Ok(path.into()),
        Some(_) | None => Err(Error::new(format!(
            "no {what} to test with: {} says why, above ({})",
            script.display(),
            output.status
        ))),
    }
}
