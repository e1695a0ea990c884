//! S9: what is resident by number of objects; one process that grows.

use std::time::Duration;

use crate::load::{self, Wish};
use crate::measure;
use crate::outcome::Outcome;
use crate::stand::{Stand, TEXTBOOK_PERIOD};
use crate::support::error::Result;

/// The sizes of the goals.
const SIZES: [u32; 4] = [0, 1_000, 10_000, 100_000];

/// S9, up to N. Each size is the peak since the start, and in the notes what is resident ten seconds after all are Ready.
pub async fn by_size(stand: &mut Stand) -> Result<Outcome> {
    stand.start(TEXTBOOK_PERIOD).await?;
    let mut outcome = Outcome::default();
    let n = stand.arguments.n;
    for size in SIZES.into_iter().filter(|size| *size <= n) {
        let wishes: Vec<Wish> = (stand.filled..size).map(Wish::number).collect();
        load::create(&stand.bed, &stand.watch, &wishes).await?;
        stand.filled = size;
        let limit = stand.patience();
        stand.watch.until_ready(size as usize, limit).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let usage = measure::usage(stand.process()?.pid())?;
        outcome.figure(&format!("mib_at_{size}"), usage.peak_mib);
        outcome.figure(&format!("resident_mib_at_{size}"), usage.resident_mib);
        outcome.notes.push(format!(
            "with {size} objects {:.1} MiB at most, {:.1} MiB ten seconds later",
            usage.peak_mib, usage.resident_mib
        ));
    }
    Ok(outcome)
}
