//! A private directory that is removed with this process, also on SIGKILL and when it is held by a `static`.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::error::{Context, Result};

/// A new directory that only this user can read; removed on drop, or by `sh` after this process has ended.
pub struct TempDir {
    path: PathBuf,
    broom: Child,
}

impl TempDir {
    pub fn new(name: &str) -> Result<Self> {
        let path = std::env::temp_dir().join(format!(
            "security-group-operator-{name}-{}",
            uuid::Uuid::new_v4().simple()
        ));
        DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .context(path.display())?;
        let broom = Command::new("sh")
            .args(["-c", BROOM, "broom"])
            .arg(&path)
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .context("sh, to remove a directory later")?;
        Ok(Self { path, broom })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        drop(self.broom.stdin.take());
        let _ = self.broom.wait();
    }
}

/// Waits for the end of its stdin. After a SIGKILL of this process, the children that write here end at the same moment: a
/// file may be created during the first pass, so one pass may not be enough.
const BROOM: &str = r#"
read -r line
for pass in 1 2 3 4 5; do
  rm -rf "$1" 2>/dev/null && exit
  sleep 1
done
"#;
