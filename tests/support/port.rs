//! Free TCP ports on the loopback address; returns each port at most once per process.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::sync::{Mutex, PoisonError};

use rand::RngExt;

use super::error::{Context, Result};

/// A port without a listener that this process has not returned before.
///
/// Not a bind to port 0: the kernel may assign that port to any outgoing connection, ours included, between the moment we
/// release it and the moment the child binds it. Below the range of outgoing connections, a conflict needs a listener that
/// chooses the same random number within the same second.
pub fn free() -> Result<u16> {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    (0..1000)
        .map(|_| rand::rng().random_range(BELOW_EPHEMERAL))
        .find(|port| {
            !given.contains(port)
                && TcpListener::bind(("127.0.0.1", *port)).is_ok()
                && given.insert(*port)
        })
        .context("no free port between 20000 and 32000")
}

static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());

const BELOW_EPHEMERAL: std::ops::Range<u16> = 20_000..32_000;
