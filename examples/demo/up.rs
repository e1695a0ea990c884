//! `make up` and `make down`: the environment without the walkthrough, until a user ends it. A file lock marks it as
//! running, so that neither a leftover file nor a reused process ID can.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::environment::{ADMIN_PORT, DemoEnvironment, repository};
use crate::support::control_plane::Controllers;
use crate::support::error::{Context as _, Error, Result};

/// Starts everything, prints how to reach it, and runs until this future is dropped.
pub async fn up() -> Result<()> {
    let Some(_lock) = RunLock::acquire()? else {
        let pid = running()?.map_or_else(String::new, |pid| format!(" (process {pid})"));
        return Err(Error::new(format!(
            "`make up` runs already{pid}; use it with\n\n  export KUBECONFIG=\"{}\"\n\nor end it with `make down`",
            kubeconfig().display()
        )));
    };
    println!("Starting, some seconds:");
    let mut environment = DemoEnvironment::start(Controllers::Run).await?;
    let _kubeconfig = Kubeconfig::write(&environment.plane.admin_kubeconfig())?;
    explain(&mut environment);
    loop {
        tokio::time::sleep(POLL).await;
        environment
            .check()
            .context("a part has ended, and everything else with it")?;
    }
}

/// Stops everything that [`up`] started, and returns when it has ended.
pub async fn down() -> Result<()> {
    let Some(pid) = running()? else {
        println!("`make up` does not run: nothing to end.");
        return Ok(());
    };
    // The shell's builtin kill: not every machine has the program.
    let sent = Command::new("sh")
        .args(["-c", &format!("kill -TERM {pid}")])
        .status()
        .context("sh")?;
    if !sent.success() {
        return Err(Error::new(format!(
            "process {pid}, which is `make up`, does not take a signal from this user"
        )));
    }
    let deadline = Instant::now() + PATIENCE;
    while running()?.is_some() {
        if Instant::now() > deadline {
            return Err(Error::new(format!(
                "process {pid}, which is `make up`, does not end; end it with `kill -9 {pid}`, and its children go with it"
            )));
        }
        tokio::time::sleep(POLL).await;
    }
    println!("`make up` has ended.");
    Ok(())
}

/// The process that runs [`up`], if any.
pub fn running() -> Result<Option<u32>> {
    let path = folder().join(LOCK_FILE);
    let Ok(mut file) = File::open(&path) else {
        return Ok(None);
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text).context(path.display())?;
            let pid = text.trim().parse().context(format!(
                "{} names no process; is `make up` just starting? Try again",
                path.display()
            ))?;
            Ok(Some(pid))
        }
        Err(TryLockError::Error(error)) => Err(error).context(path.display()),
    }
}

/// Held for as long as [`up`] runs. The file stays: after its removal, two processes could lock two files of the same name.
struct RunLock(File);

impl RunLock {
    /// `None` if another process holds the lock.
    fn acquire() -> Result<Option<Self>> {
        std::fs::create_dir_all(folder()).context(folder().display())?;
        let path = folder().join(LOCK_FILE);
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .context(path.display())?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error).context(path.display()),
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Some(Self(file)))
    }
}

impl Drop for RunLock {
    fn drop(&mut self) {
        // Only for tidiness: the lock counts, and it is released with the file handle.
        let _ = self.0.set_len(0);
    }
}

/// A copy at a fixed path; removed with the environment.
struct Kubeconfig;

impl Kubeconfig {
    fn write(original: &Path) -> Result<Self> {
        let text = std::fs::read(original).context(original.display())?;
        std::fs::write(kubeconfig(), text).context(kubeconfig().display())?;
        Ok(Self)
    }
}

impl Drop for Kubeconfig {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(kubeconfig());
    }
}

fn explain(environment: &mut DemoEnvironment) {
    let kubectl = environment.plane.kubectl();
    let kubectl = Path::new(kubectl.get_program());
    let on_the_path = std::env::var_os("PATH").is_some_and(|path| {
        std::env::split_paths(&path).any(|folder| folder.join("kubectl") == kubectl)
    });
    let line = if on_the_path {
        String::new()
    } else {
        format!(
            "\n  export PATH=\"$PATH:{}\"      # no kubectl was on the PATH; this one was built",
            kubectl.parent().unwrap_or(kubectl).display()
        )
    };
    let log = environment.operator.process().log().to_owned();
    println!(
        r#"
It runs. In a second shell, from here:

  export KUBECONFIG="{kubeconfig}"{line}

  kubectl apply -f examples/simulator/
  kubectl get sgm -o wide
  kubectl describe sgm demo-group-full
  kubectl explain sgm.spec
  kubectl delete sgm demo-running-instance
  curl -s 127.0.0.1:{ADMIN_PORT}/state       # what the cloud holds

The cloud to look at: http://127.0.0.1:{ADMIN_PORT}/
A click on a cell of a membership takes the target out of the group by hand; the operator's next scan puts it back.

i-demostarting starts for 30 seconds; to make it start again, for a minute:

  curl -d '{{"setStatus": {{"id": "i-demostarting", "status": "Starting", "for": "60s"}}}}' 127.0.0.1:{ADMIN_PORT}/change

The operator's log: {log}
Ends with Ctrl-C, or with `make down` in another shell."#,
        kubeconfig = kubeconfig().display(),
        log = log.display(),
    );
}

fn kubeconfig() -> PathBuf {
    folder().join("kubeconfig")
}

fn folder() -> PathBuf {
    repository().join("target/up")
}

const LOCK_FILE: &str = "running";
const POLL: Duration = Duration::from_millis(200);
const PATIENCE: Duration = Duration::from_secs(30);
