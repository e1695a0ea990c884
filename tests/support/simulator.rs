//! The simulated cloud as a process, and its admin port.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::error::{Context, Error, Result};
use super::process::Child;
use super::tempdir::TempDir;
use super::{install_crypto, port};

/// A running `ecs-simulator`. Dropping it kills it.
pub struct SimulatorProcess {
    child: Child,
    port: u16,
    admin: u16,
    _tempdir: TempDir,
}

impl SimulatorProcess {
    /// Starts `binary` (in tests `env!("CARGO_BIN_EXE_ecs-simulator")`) with `arguments` for its inventory: `--inventory
    /// FILE`, or `--instances N --security-groups M`.
    pub async fn start<A: AsRef<std::ffi::OsStr>>(binary: &Path, arguments: &[A]) -> Result<Self> {
        Self::start_on(binary, port::free()?, port::free()?, arguments).await
    }

    /// The same with these ports on the loopback address: the API's and the admin port.
    pub async fn start_on<A: AsRef<std::ffi::OsStr>>(
        binary: &Path,
        port: u16,
        admin: u16,
        arguments: &[A],
    ) -> Result<Self> {
        let tempdir = TempDir::new("simulator")?;
        let mut command = Command::new(binary);
        command
            .arg(format!("--listen=127.0.0.1:{port}"))
            .arg(format!("--admin=127.0.0.1:{admin}"))
            .args(arguments);
        let mut child = Child::spawn(
            "ecs-simulator",
            &command,
            &tempdir.path().join("ecs-simulator.log"),
        )?;
        let url = format!("http://127.0.0.1:{port}/healthz");
        child
            .wait_until(START_LIMIT, async || probe(&url).await)
            .await?;
        Ok(Self {
            child,
            port,
            admin,
            _tempdir: tempdir,
        })
    }

    /// The URL for an account's `endpoints`.
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// The state of the cloud.
    pub async fn state(&self) -> Result<Value> {
        self.get("/state").await
    }

    /// Number of calls of `action` with the result `outcome`: an error code or `OK`.
    pub async fn calls(&self, action: &str, outcome: &str) -> Result<u64> {
        let stats = self.get("/stats").await?;
        let count = stats.pointer(&format!("/calls/{action}/{outcome}"));
        Ok(count.and_then(Value::as_u64).unwrap_or(0))
    }

    /// The whole of `/stats`.
    pub async fn stats(&self) -> Result<Value> {
        self.get("/stats").await
    }

    /// The accepted Joins and Leaves since the last [`Self::reset_stats`], oldest first.
    pub async fn journal(&self) -> Result<Value> {
        self.get("/journal").await
    }

    pub async fn reset_stats(&self) -> Result<()> {
        self.post("/stats/reset", &Value::Null).await
    }

    /// Changes the cloud without the operator.
    pub async fn change(&self, change: &Value) -> Result<()> {
        self.post("/change", change).await
    }

    /// Replaces the faults; an empty list removes all.
    pub async fn faults(&self, faults: &Value) -> Result<()> {
        self.post("/faults", faults).await
    }

    /// The process, to freeze (STOP), thaw (CONT) or kill it.
    pub fn process(&mut self) -> &mut Child {
        &mut self.child
    }

    async fn get(&self, path: &str) -> Result<Value> {
        let answer = http()?.get(self.admin_url(path)).send().await?;
        Ok(serde_json::from_slice(&said(path, answer).await?)?)
    }

    /// Sends any other request to the admin port.
    pub async fn post(&self, path: &str, body: &Value) -> Result<()> {
        let answer = http()?
            .post(self.admin_url(path))
            .body(body.to_string())
            .send()
            .await?;
        said(path, answer).await.map(drop)
    }

    /// The URL of a path of the admin port.
    pub fn admin_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin)
    }
}

/// An error unless the URL answers 2xx.
pub async fn probe(url: &str) -> Result<()> {
    fetch(url).await.map(drop)
}

/// What the URL answers; an error unless that is 2xx.
pub async fn fetch(url: &str) -> Result<Vec<u8>> {
    said(url, http()?.get(url).send().await?).await
}

async fn said(path: &str, answer: reqwest::Response) -> Result<Vec<u8>> {
    let status = answer.status();
    let body = answer.bytes().await?.to_vec();
    if status.is_success() {
        return Ok(body);
    }
    Err(Error::new(format!(
        "{path} answered {status}: {}",
        String::from_utf8_lossy(&body)
    )))
}

fn http() -> Result<reqwest::Client> {
    install_crypto();
    reqwest::Client::builder()
        .no_proxy()
        .timeout(Duration::from_secs(10))
        .build()
        .context("an HTTP client")
}

const START_LIMIT: Duration = Duration::from_secs(60);
