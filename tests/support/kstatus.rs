//! The status that kstatus, the library behind Flux and Argo CD, computes for an object. Pure, except for its process.

use std::process::Stdio;

use serde::Deserialize;
use tokio::io::AsyncWriteExt;

use super::assets;
use super::error::{Context, Error, Result};

/// The result of kstatus for an object: `InProgress`, `Failed`, `Current`, `Terminating`, and the reason.
#[derive(Debug, Deserialize)]
pub struct KstatusResult {
    pub status: String,
    pub message: String,
}

/// One result per object, in the same order.
pub async fn compute(objects: &[serde_json::Value]) -> Result<Vec<KstatusResult>> {
    let program = assets::kstatus().await?;
    let mut child = tokio::process::Command::new(&program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context(program.display())?;
    let lines: Vec<_> = objects.iter().map(ToString::to_string).collect();
    let lines = lines.join("\n");
    let mut stdin = child.stdin.take().context("kstatus has no stdin")?;
    // In a separate task: many objects fill both pipes.
    let feeding = tokio::spawn(async move { stdin.write_all(lines.as_bytes()).await });
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        return Err(Error::new(
            String::from_utf8_lossy(&output.stderr).trim_end(),
        ));
    }
    feeding.await??;
    let answers = serde_json::Deserializer::from_slice(&output.stdout).into_iter();
    Ok(answers.collect::<Result<_, _>>()?)
}
