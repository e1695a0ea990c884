//! What a test starts never outlives it, and can be frozen, ended and killed on the way.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::support::error::{Context, Error, Result};
use crate::support::eventually::eventually;
use crate::support::process::Child;
use crate::support::tempdir::TempDir;

#[tokio::test]
async fn child_has_its_own_pid_exit_code_and_log() -> Result<()> {
    let tempdir = TempDir::new("test")?;
    let log = tempdir.path().join("log");
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
async fn child_can_be_stopped_terminated_and_killed() -> Result<()> {
    let tempdir = TempDir::new("test")?;
    let beat = tempdir.path().join("beat");
    let script = format!(
        "trap 'exit 5' TERM; while :; do echo >>{}; sleep 0.02; done",
        beat.display()
    );
    let log = tempdir.path().join("log");
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
    eventually("it beats again", async || Ok(!is_still(&beat).await?)).await?;
    assert_eq!(child.terminate(LIMIT).await?, 5);
    let mut child = sh(&script, &log)?;
    child.kill();
    assert_eq!(child.exit_code()?, Some(128 + 9));
    assert!(is_still(&beat).await?);
    Ok(())
}

#[tokio::test]
async fn descendants_end_with_their_child() -> Result<()> {
    let tempdir = TempDir::new("test")?;
    let beat = tempdir.path().join("beat");
    let script = format!(
        "(while :; do echo >>{0}; sleep 0.02; done) & while [ ! -e {0} ]; do sleep 0.02; done",
        beat.display()
    );
    let mut child = sh(&script, &tempdir.path().join("log"))?;
    assert_eq!(child.wait(LIMIT).await?, 0);
    assert!(beat.exists());
    eventually("its descendant is gone", async || is_still(&beat).await).await
}

#[tokio::test]
async fn children_and_files_are_removed_after_sigkill() -> Result<()> {
    let tempdir = TempDir::new("test")?;
    let told = tempdir.path().join("told");
    let mut parent = Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            "child_process::parent_that_waits_for_sigkill",
            "--ignored",
            "--nocapture",
        ])
        .env(PARENT_OF_TEST, tempdir.path())
        .stdout(Stdio::null())
        .spawn()?;
    eventually("the parent's word", async || Ok(told.exists())).await?;
    let directory = PathBuf::from(std::fs::read_to_string(&told)?);
    let beats = [
        tempdir.path().join("child"),
        tempdir.path().join("grandchild"),
    ];
    for beat in &beats {
        eventually("a beat", async || Ok(beat.exists())).await?;
        eventually("it beats", async || Ok(!is_still(beat).await?)).await?;
    }
    assert!(directory.exists());
    parent.kill()?; // SIGKILL
    parent.wait()?;
    for beat in &beats {
        let what = format!("{} beats no more", beat.display());
        eventually(&what, async || is_still(beat).await).await?;
    }
    eventually("its directory is gone", async || Ok(!directory.exists())).await
}

/// The other half of the test above; does nothing when it is run by hand.
#[tokio::test]
#[ignore = "run by children_and_files_are_removed_after_sigkill"]
async fn parent_that_waits_for_sigkill() -> Result<()> {
    let Some(directory) = std::env::var_os(PARENT_OF_TEST).map(PathBuf::from) else {
        return Ok(());
    };
    let own = TempDir::new("test")?;
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

const PARENT_OF_TEST: &str = "SECURITY_GROUP_OPERATOR_TEST_PARENT";
const LIMIT: Duration = Duration::from_secs(60);
