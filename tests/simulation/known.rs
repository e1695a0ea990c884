//! What is known to be wrong today: each fault with the number of its finding. The list may only get shorter.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::schedule::{Act, Schedule};

/// A fault that is known, and not mended yet.
pub struct Known {
    /// Number of the finding.
    pub finding: &'static str,
    /// What the monitor says of it, without names.
    problem: &'static str,
    /// What must be in a schedule for it.
    needs: fn(&Schedule) -> bool,
    /// At most so many of 100,000 plain, and of 100,000 wide, schedules show it.
    most: [u64; 2],
}

const NEVER_OURS: &str =
    "Leave: the operator removed from which others had made before any Join of the operator";
const LEFT: &str = "Left behind: is in the operator joined it, and no object is left";
const READY: &str = "Ready: is Ready, and three scans have shown that is not in";

/// The first that fits counts. The numbers are those of 10,000 seeds, for 100,000, and a tenth more; no plain schedule shows any.
pub const KNOWN: &[Known] = &[
    // A copy of an object with a claim, and calls that take effect late.
    known("C1", NEVER_OURS, has_copy, [0, 30]),
    // A call takes effect after its object has gone.
    known(
        "Q1",
        LEFT,
        |schedule| schedule.options.rates.late > 0.0,
        [0, 60],
    ),
    known(
        "C7",
        LEFT,
        |schedule| !schedule.options.lag.is_zero(),
        [0, 30],
    ),
    // An observed object is Ready beside an edge that the operator's own late Leave has removed, for up to 5 minutes.
    known("C22", READY, |_| true, [0, 30]),
];

const fn known(
    finding: &'static str,
    problem: &'static str,
    needs: fn(&Schedule) -> bool,
    most: [u64; 2],
) -> Known {
    Known {
        finding,
        problem,
        needs,
        most,
    }
}

fn has_copy(schedule: &Schedule) -> bool {
    let is_copy = |(_, act): &(Duration, Act)| matches!(act, Act::Copy { .. });
    schedule.acts.iter().any(is_copy)
}

/// How often each known fault was seen.
#[derive(Default)]
pub struct Counts(Mutex<BTreeMap<&'static str, u64>>);

impl Counts {
    /// Counts a schedule with problems, if all are known.
    pub fn count(&self, problems: &[String], schedule: &Schedule) -> bool {
        let finding = |problem: &String| {
            let kind = kind(problem);
            let known = KNOWN
                .iter()
                .find(|known| kind == known.problem && (known.needs)(schedule));
            known.map(|known| known.finding)
        };
        let Some(findings) = problems.iter().map(finding).collect::<Option<Vec<_>>>() else {
            return false;
        };
        let mut counts = self.0.lock().unwrap();
        if let Some(first) = findings.first() {
            *counts.entry(first).or_default() += 1;
        }
        true
    }

    /// One line for each.
    pub fn lines(&self) -> String {
        let counts = self.0.lock().unwrap();
        let line = |(finding, count)| format!("known {finding}: {count} schedules\n");
        counts.iter().map(line).collect()
    }

    /// The faults that were seen more often than the list says.
    pub fn more_than_listed(&self, kind: &str, schedules: u64) -> Vec<String> {
        let counts = self.0.lock().unwrap();
        let mut more = Vec::new();
        for (finding, count) in counts.iter() {
            let listed = KNOWN.iter().filter(|known| known.finding == *finding);
            let most: u64 = listed
                .map(|known| known.most[usize::from(kind == "wide")])
                .sum();
            // A short run may have a few more than its share.
            if count * 100_000 > (most + 10) * schedules.max(10_000) {
                more.push(format!(
                    "{finding}: {count} of {schedules}, listed {most} of 100,000"
                ));
            }
        }
        more
    }
}

/// What a problem says, without the names of objects, targets and groups.
pub fn kind(problem: &str) -> String {
    let is_name = |word: &&str| {
        word.len() == 1
            || ["i-", "eni-", "sg-"]
                .iter()
                .any(|prefix| word.starts_with(prefix))
    };
    let words = problem.split(' ').filter(|word| !is_name(word));
    words.collect::<Vec<_>>().join(" ")
}
