//! The Go programs that tests run are built once, whole or not at all, and say what is missing; kstatus is one of them.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use support::error::{Context, Result};
use support::kstatus;
use support::scratch::Scratch;

#[tokio::test]
async fn two_builds_at_once_both_succeed_and_a_half_written_program_is_never_used() -> Result<()> {
    let cache = Scratch::new("cache")?;
    let go_cache = Command::new("go").args(["env", "GOCACHE"]).output()?.stdout; // follows XDG_CACHE_HOME, too
    let go_cache = String::from_utf8(go_cache)?;
    let build = || {
        tokio::process::Command::new(in_repository("tests/control-plane/build"))
            .arg("kstatus")
            .env("XDG_CACHE_HOME", cache.path())
            .env("GOCACHE", go_cache.trim())
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
    let worked = [&one, &two]
        .into_iter()
        .filter(|output| said(output).contains("built in"))
        .count();
    assert_eq!(
        worked,
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

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
