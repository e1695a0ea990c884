//! The progress line: redrawn on a terminal, elsewhere a new line every ten seconds. Writes to stderr only.

use std::io::{IsTerminal as _, Write as _};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

struct State {
    part: String,
    drawn: Option<Instant>,
}

static STATE: Mutex<State> = Mutex::new(State {
    part: String::new(),
    drawn: None,
});

/// Names the current part, such as "S1 ours".
pub fn part(name: &str) {
    {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        name.clone_into(&mut state.part);
        state.drawn = None;
    }
    at("starts");
}

/// Shows the current progress.
pub fn at(text: &str) {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    let mut stderr = std::io::stderr().lock();
    let terminal = stderr.is_terminal();
    let pause = if terminal { REDRAW } else { LINES };
    if state.drawn.is_some_and(|drawn| drawn.elapsed() < pause) {
        return;
    }
    state.drawn = Some(Instant::now());
    let (start, end) = if terminal {
        ("\r\x1b[K", "")
    } else {
        ("", "\n")
    };
    let _ = write!(stderr, "{start}{}: {text}{end}", state.part);
    let _ = stderr.flush();
}

/// Prints a line that is not redrawn.
pub fn line(text: &str) {
    let start = if std::io::stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    };
    let _ = writeln!(std::io::stderr(), "{start}{text}");
}

const REDRAW: Duration = Duration::from_millis(200);
const LINES: Duration = Duration::from_secs(10);
