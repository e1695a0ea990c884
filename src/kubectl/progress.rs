//! The line of progress of a long read, on standard error.

use std::io::{IsTerminal as _, Write as _};

use super::output::{counted, note};

/// The line of progress of a long read.
#[derive(Default)]
pub(super) struct Progress {
    calls: usize,
    is_shown: bool,
}

/// A read of fewer calls shows no progress.
const LONG: usize = 10;

impl Progress {
    /// Counts a call, after which so many members are known.
    pub(super) fn read(&mut self, members: usize) {
        self.calls += 1;
        if self.calls < LONG {
            return;
        }
        let mut stderr = std::io::stderr();
        if stderr.is_terminal() {
            self.is_shown = true;
            let _ = write!(stderr, "\r{} …", self.read_so_far(members));
            let _ = stderr.flush();
        } else if self.calls.is_multiple_of(LONG) {
            note(&format!("{} …", self.read_so_far(members)));
        }
    }

    /// Says how many there are.
    pub(super) fn end(&self, members: usize) {
        if self.is_shown {
            note("");
        }
        if self.calls >= LONG {
            note(&self.read_so_far(members));
        }
    }

    fn read_so_far(&self, members: usize) -> String {
        let (members, calls) = (counted(members, "member"), counted(self.calls, "call"));
        format!("{members} read in {calls}")
    }
}
