//! A child process that never outlives this one: not on drop, not on panic, not on SIGKILL of this process. Its output is
//! written to a file. Knows nothing of the program.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use super::error::{Context, Error, Result};

/// A running program with all its descendants, and its output file.
pub struct Child {
    name: String,
    pid: u32,
    log: PathBuf,
    shell: std::process::Child,
    lifeline: Option<ChildStdin>,
    exit_code: Option<i32>,
}

impl Child {
    /// Starts `command` with an empty stdin; appends its output to `log`.
    ///
    /// A missing program is an exit with code 127, as in a shell.
    pub fn spawn(name: &str, command: &Command, log: &Path) -> Result<Self> {
        Self::spawn_shell(name, in_shell(command), log)
    }

    /// The same as a process of this user and its group. Only root may name another user than its own.
    pub fn spawn_as(user: u32, name: &str, command: &Command, log: &Path) -> Result<Self> {
        let mut shell = in_shell(command);
        shell.uid(user).gid(user);
        Self::spawn_shell(name, shell, log)
    }

    fn spawn_shell(name: &str, mut shell: Command, log: &Path) -> Result<Self> {
        let output = OpenOptions::new()
            .create(true)
            .append(true)
            .open(log)
            .context(log.display())?;
        let mut shell = shell
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(output)
            .process_group(0)
            .spawn()
            .context(format!("sh, to run {name}"))?;
        let lifeline = shell.stdin.take();
        let mut first_line = String::new();
        if let Some(stdout) = shell.stdout.take() {
            BufReader::new(stdout).read_line(&mut first_line)?;
        }
        let pid = first_line
            .trim()
            .parse()
            .context(format!("sh, to run {name}, gave no process id"))?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            log: log.to_owned(),
            shell,
            lifeline,
            exit_code: None,
        })
    }

    /// Process ID of the program itself, not of the shell around it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    pub fn log(&self) -> &Path {
        &self.log
    }

    /// The exit code of an ended program, or 128 + the signal that ended it; `None` while it runs.
    pub fn exit_code(&mut self) -> Result<Option<i32>> {
        if self.exit_code.is_none()
            && let Some(status) = self.shell.try_wait()?
        {
            self.exit_code = status
                .code()
                .or_else(|| status.signal().map(|signal| 128 + signal));
            self.lifeline = None; // what the program left behind goes now
        }
        Ok(self.exit_code)
    }

    /// An error with the end of the log if the program has ended.
    pub fn check(&mut self) -> Result<()> {
        match self.exit_code()? {
            None => Ok(()),
            Some(code) => Err(self.complaint(&format!("has ended with {code}"))),
        }
    }

    /// Waits for the program to end and returns its exit code as [`Child::exit_code`] does.
    pub async fn wait(&mut self, limit: Duration) -> Result<i32> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(code) = self.exit_code()? {
                return Ok(code);
            }
            if Instant::now() >= deadline {
                return Err(self.complaint(&format!("still runs after {limit:?}")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Waits until `ready` returns true; an error with the end of the log if the program ends first or `limit` passes.
    pub async fn wait_until(
        &mut self,
        limit: Duration,
        mut ready: impl AsyncFnMut() -> Result<()>,
    ) -> Result<()> {
        let deadline = Instant::now() + limit;
        loop {
            let Err(not_yet) = ready().await else {
                return Ok(());
            };
            if let Some(code) = self.exit_code()? {
                return Err(self.complaint(&format!("ended with {code} before it was ready")));
            }
            if Instant::now() >= deadline {
                return Err(self.complaint(&format!("is not ready after {limit:?} ({not_yet})")));
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Sends SIGTERM and waits for the end.
    pub async fn terminate(&mut self, limit: Duration) -> Result<i32> {
        self.signal("TERM")?;
        self.wait(limit).await
    }

    /// Sends SIGKILL and waits until the program has ended and sent its last byte.
    pub fn kill(&mut self) {
        // An error means that it has already ended; the shell is ending too then.
        let _ = self.signal("KILL");
        let _ = self.shell.wait();
        let _ = self.exit_code();
    }

    /// Sends a signal, named as in `kill -NAME`: STOP and CONT freeze and thaw the program.
    pub fn signal(&mut self, name: &str) -> Result<()> {
        if self.exit_code()?.is_some() {
            return Err(self.complaint("has ended already"));
        }
        // The shell's builtin kill: not every machine has the program.
        let script = format!("kill -{name} {}", self.pid);
        let status = Command::new("sh")
            .args(["-c", &script])
            .stderr(Stdio::null())
            .status()?;
        if status.success() {
            Ok(())
        } else {
            Err(self.complaint(&format!("did not take the signal {name}")))
        }
    }

    /// An error with the program's name and the end of its output.
    pub fn complaint(&self, what: &str) -> Error {
        Error::new(format!(
            "{} {what}\n--- the end of {}\n{}\n---",
            self.name,
            self.log.display(),
            self.log_tail()
        ))
    }

    fn log_tail(&self) -> String {
        let read = || -> std::io::Result<String> {
            let mut file = File::open(&self.log)?;
            let length = file.metadata()?.len();
            file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            Ok(String::from_utf8_lossy(&bytes).trim_end().to_owned())
        };
        read().unwrap_or_else(|error| format!("(unreadable: {error})"))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The same command as a child of [`GUARD`], without proxies: all connections are on the loopback.
fn in_shell(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", GUARD, "guard"])
        .arg(command.get_program())
        .args(command.get_args());
    shell
        .env("NO_PROXY", "127.0.0.1,localhost")
        .env("no_proxy", "127.0.0.1,localhost");
    for (key, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(key, value),
            None => shell.env_remove(key),
        };
    }
    if let Some(directory) = command.get_current_dir() {
        shell.current_dir(directory);
    }
    shell
}

/// The shell's stdin is a pipe, and only this process holds the other end. When this process ends in any way, the kernel
/// closes the pipe, and the watcher kills the whole process group: program, descendants, shell, itself. (`PR_SET_PDEATHSIG`
/// would be shorter, but needs unsafe code, is Linux only, and follows the spawning *thread*.) When the program ends first,
/// the watcher still waits for our end of the pipe, so that the group's ID cannot belong to another process when it is
/// killed.
const GUARD: &str = r#"
exec 3<&0
"$@" </dev/null >&2 3<&- &
program=$!
{ read -r line <&3; kill -KILL 0; } </dev/null >/dev/null 2>&1 &
echo "$program"
exec >/dev/null 3<&-
wait "$program"
"#;

const POLL: Duration = Duration::from_millis(20);
const TAIL_BYTES: u64 = 4096;
