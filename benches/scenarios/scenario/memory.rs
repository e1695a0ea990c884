//! S9: resident memory by number of objects, in one growing process.

use std::time::Duration;

use crate::bench_run::{BenchRun, TEXTBOOK_PERIOD};
use crate::load::{self, MembershipRequest};
use crate::measure;
use crate::outcome::Outcome;
use crate::support::error::Result;

/// The sizes in the goals.
const SIZES: [u32; 4] = [0, 1_000, 10_000, 100_000];

/// S9, up to N. Reports the peak since the start per size; the notes have the resident memory ten seconds after all are
/// Ready.
pub async fn by_size(bench: &mut BenchRun) -> Result<Outcome> {
    bench.start_candidate(TEXTBOOK_PERIOD).await?;
    let mut outcome = Outcome::default();
    let n = bench.arguments.n;
    for size in SIZES.into_iter().filter(|size| *size <= n) {
        let requests: Vec<MembershipRequest> = (bench.filled..size)
            .map(MembershipRequest::number)
            .collect();
        load::create(&bench.cluster, &bench.watch, &requests).await?;
        bench.filled = size;
        let limit = bench.patience();
        bench.watch.until_ready(size as usize, limit).await?;
        tokio::time::sleep(Duration::from_secs(10)).await;
        let usage = measure::usage(bench.process()?.pid())?;
        outcome.figure(&format!("mib_at_{size}"), usage.peak_mib);
        outcome.figure(&format!("resident_mib_at_{size}"), usage.resident_mib);
        outcome.notes.push(format!(
            "with {size} objects {:.1} MiB at most, {:.1} MiB ten seconds later",
            usage.peak_mib, usage.resident_mib
        ));
    }
    Ok(outcome)
}
