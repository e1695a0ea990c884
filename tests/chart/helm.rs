//! Helm with files of its own, on a cluster or on none.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;

use crate::NAME;
use crate::support::assets;
use crate::support::control_plane::ControlPlane;
use crate::support::error::{Context as _, Error, Result};
use crate::support::tempdir::TempDir;

pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub fn chart() -> PathBuf {
    repository().join("deploy/chart")
}

pub struct Helm {
    program: PathBuf,
    kubeconfig: PathBuf,
    home: TempDir,
}

impl Helm {
    /// Without a cluster, to render.
    pub async fn alone() -> Result<Self> {
        Self::with("/dev/null".into()).await
    }

    pub async fn on(plane: &ControlPlane) -> Result<Self> {
        Self::with(plane.admin_kubeconfig()).await
    }

    async fn with(kubeconfig: PathBuf) -> Result<Self> {
        Ok(Self {
            program: assets::helm().await?,
            kubeconfig,
            home: TempDir::new("helm")?,
        })
    }

    /// Whether it worked, and what it said.
    pub async fn try_run(&self, arguments: &[&str]) -> Result<(bool, String)> {
        let home = self.home.path();
        let output = tokio::process::Command::new(&self.program)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("HELM_CACHE_HOME", home)
            .env("HELM_CONFIG_HOME", home)
            .env("HELM_DATA_HOME", home)
            .env("NO_PROXY", "127.0.0.1,localhost")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .context("helm")?;
        let said = [output.stdout, output.stderr].concat();
        Ok((output.status.success(), String::from_utf8(said)?))
    }

    pub async fn run(&self, arguments: &[&str]) -> Result<String> {
        let (worked, said) = self.try_run(arguments).await?;
        let failed = || Error::new(format!("helm {arguments:?}: {said}"));
        worked.then_some(said.clone()).ok_or_else(failed)
    }

    /// The text that the chart renders as the README's release with these values.
    pub async fn template(&self, options: &[&str]) -> Result<String> {
        let chart = chart().display().to_string();
        let base = ["template", NAME, &chart, "--namespace", NAME];
        self.run(&[&base, options].concat()).await
    }

    /// The objects.
    pub async fn objects(&self, options: &[&str]) -> Result<Vec<Value>> {
        Ok(serde_saphyr::from_multiple(&self.template(options).await?)?)
    }
}

/// The only object of this kind with this name.
pub fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> Option<&'a Value> {
    let is_it = |object: &&Value| object["kind"] == kind && object["metadata"]["name"] == name;
    let mut found = objects.iter().filter(is_it);
    let first = found.next();
    assert!(found.next().is_none(), "two of {kind} {name}");
    first
}
