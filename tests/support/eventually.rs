//! Waiting for what the cluster or the cloud comes to by itself. Knows nothing of what is waited for.

use std::time::{Duration, Instant};

use super::error::{Error, Result};

/// Asks until `holds` says yes; an error with `what` if it has not within a minute. An error of `holds` ends it.
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

const LIMIT: Duration = Duration::from_secs(60);
