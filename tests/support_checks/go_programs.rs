//! The Go programs that tests run are built once, whole or not at all, and say what is missing; kstatus is one of them.

use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;

use crate::support::error::{Context, Error, Result};
use crate::support::eventually::eventually;
use crate::support::kstatus;
use crate::support::tempdir::TempDir;

#[tokio::test]
async fn concurrent_builds_succeed_and_use_no_partial_file() -> Result<()> {
    let cache = TempDir::new("cache")?;
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

#[tokio::test]
async fn stopped_build_leaves_no_files() -> Result<()> {
    let cache = TempDir::new("cache")?;
    let go_cache = Command::new("go").args(["env", "GOCACHE"]).output()?.stdout;
    let mut build = Command::new(in_repository("tests/control-plane/build"))
        .arg("kstatus")
        .env("XDG_CACHE_HOME", cache.path())
        .env("GOCACHE", String::from_utf8(go_cache)?.trim())
        .stderr(Stdio::null())
        .spawn()?;
    // Its own files, and those that go is at work with: for kube-apiserver many hundred MB.
    let at_work = |pattern: &str| {
        let found = Command::new("sh")
            .args(["-c", &format!("ls -d */*/*/{pattern}")])
            .current_dir(cache.path())
            .stderr(Stdio::null())
            .status()?;
        Ok::<_, Error>(found.success())
    };
    eventually("go is at work", async || at_work(".building.*/go-build*")).await?;
    let stop = format!("kill -TERM {}", build.id());
    Command::new("sh").args(["-c", &stop]).status()?;
    assert_eq!(build.wait()?.code(), Some(143));
    assert!(!at_work(".building.*")?);
    Ok(())
}

#[test]
fn missing_go_or_assets_error_names_the_fix() -> Result<()> {
    let bare = Bare::new()?;
    let all = "kube-apiserver etcd kube-controller-manager kubectl";
    let said = bare.refusal("control-plane", &[])?;
    assert!(
        said.contains("go is not on the PATH")
            && said.contains(&format!(
                "KUBEBUILDER_ASSETS to a directory that has all of: {all}"
            )),
        "{said}"
    );
    let assets = TempDir::new("assets")?;
    let lacks = || bare.refusal("control-plane", &[("KUBEBUILDER_ASSETS", assets.path())]);
    let said = lacks()?;
    assert!(said.contains(&format!("lacks {all}\n")), "{said}");
    for name in ["kube-apiserver", "etcd", "kube-controller-manager"] {
        std::fs::copy("/bin/sh", assets.path().join(name))?;
    }
    let said = lacks()?;
    assert!(said.contains("lacks kubectl\n"), "{said}");
    // Neither what a copy that was broken off leaves behind, nor a folder, is a program.
    File::options()
        .write(true)
        .truncate(true)
        .open(assets.path().join("etcd"))?;
    std::fs::create_dir(assets.path().join("kubectl"))?;
    let said = lacks()?;
    assert!(said.contains("lacks etcd kubectl\n"), "{said}");
    // What is there may be of any version: for the oldest one it is not looked at.
    let said = bare.refusal("oldest", &[("KUBEBUILDER_ASSETS", assets.path())])?;
    assert!(
        said.contains("go is not on the PATH") && !said.contains("KUBEBUILDER_ASSETS"),
        "{said}"
    );
    Ok(())
}

#[test]
fn unusable_cache_error_names_the_fix() -> Result<()> {
    let bare = Bare::new()?;
    // Not asked for anything before there is a place for what it builds.
    let go = bare.tools.path().join("go");
    std::fs::write(&go, "#!/bin/sh\necho go1.999\n")?;
    std::fs::set_permissions(&go, Permissions::from_mode(0o755))?;
    for (variables, named) in [
        ([("HOME", ""), ("XDG_CACHE_HOME", "")], "HOME is not set"),
        (
            [("HOME", "/"), ("XDG_CACHE_HOME", "here")],
            "no absolute path",
        ),
        (
            [("HOME", "/dev/null"), ("XDG_CACHE_HOME", "")],
            "cannot be written",
        ),
    ] {
        let variables = variables.map(|(name, value)| (name, Path::new(value)));
        let said = bare.refusal("control-plane", &variables)?;
        assert!(
            said.contains(named) && said.contains("Set XDG_CACHE_HOME to a directory"),
            "{said}"
        );
    }
    Ok(())
}

/// A machine that has what the script needs, but neither go nor kubectl, and an empty cache.
struct Bare {
    tools: TempDir,
    cache: TempDir,
}

impl Bare {
    fn new() -> Result<Self> {
        let tools = TempDir::new("tools")?;
        for tool in [
            "awk",
            "basename",
            "cat",
            "cut",
            "dirname",
            "head",
            "mkdir",
            "sha256sum",
            "shasum",
            "sort",
            "uname",
        ] {
            let found = Command::new("sh")
                .args(["-c", "command -v \"$1\"", "sh", tool])
                .output()?
                .stdout;
            if let Some(path) = String::from_utf8(found)?.lines().next() {
                std::os::unix::fs::symlink(path, tools.path().join(tool))?;
            }
        }
        Ok(Self {
            tools,
            cache: TempDir::new("cache")?,
        })
    }

    /// What the script, asked for something, says there before it gives up.
    fn refusal(&self, asked_for: &str, variables: &[(&str, &Path)]) -> Result<String> {
        let output = Command::new("/bin/bash")
            .args(["tests/control-plane/build", asked_for])
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .env_remove("KUBEBUILDER_ASSETS")
            // Makes `cd` talkative where a shell has it exported.
            .env("CDPATH", ".")
            .env("PATH", self.tools.path())
            .env("XDG_CACHE_HOME", self.cache.path())
            .envs(variables.iter().copied())
            .output()?;
        assert!(!output.status.success() && output.stdout.is_empty());
        Ok(String::from_utf8(output.stderr)?)
    }
}

#[tokio::test]
async fn kstatus_result_matches_the_conditions() -> Result<()> {
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
    let results = kstatus::compute(&objects).await?;
    let words: Vec<_> = results
        .iter()
        .map(|result| result.status.as_str())
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
    assert_eq!(results[2].message, "why");
    let many = vec![condition("Ready"); 5000]; // more than a pipe holds
    assert_eq!(kstatus::compute(&many).await?.len(), many.len());
    assert!(kstatus::compute(&[json!("no object")]).await.is_err());
    Ok(())
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
