//! Waits for a state that the cluster or the cloud reaches without further action. Knows nothing of the state.

use std::time::{Duration, Instant};

use super::error::{Error, Result};

/// Polls until `holds` returns true; an error with `what` after 150 s: a deletion waits up to 76 s for a call without an answer. An
/// error of `holds` ends the wait.
pub async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let deadline = Instant::now() + LIMIT;
    while !holds().await? {
        if Instant::now() > deadline {
            return Err(Error::new(format!("not within {LIMIT:?}: {what}")));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(())
}

const LIMIT: Duration = Duration::from_secs(150);
