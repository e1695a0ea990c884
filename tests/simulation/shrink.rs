//! Makes a failing schedule smaller: tries it without some of its acts and kinds of faults for as long as it still fails. Pure
//! but for the question whether it fails.

use std::time::Duration;

use crate::schedule::{Happens, Schedule};
use crate::world::Scopes;

/// The smallest schedule that is found to fail as well. Replay is exact, so that one run an attempt is enough.
pub fn shrink<A: Happens>(
    failing: &Schedule<A>,
    mut fails: impl FnMut(&Schedule<A>) -> bool,
) -> Schedule<A> {
    let mut smallest = failing.clone();
    loop {
        let before = smallest.size();
        calm(&mut smallest, &mut fails);
        drop_acts(&mut smallest, &mut fails);
        if smallest.size() == before {
            return smallest;
        }
    }
}

/// Turns off each kind of fault that is not needed.
fn calm<A: Happens>(smallest: &mut Schedule<A>, fails: &mut impl FnMut(&Schedule<A>) -> bool) {
    let without: [fn(&mut Schedule<A>); 8] = [
        |schedule| schedule.options.rates.api = 0.0,
        |schedule| schedule.options.rates.cloud = 0.0,
        |schedule| schedule.options.rates.event = 0.0,
        |schedule| schedule.options.rates.old_list = 0.0,
        |schedule| schedule.options.rates.late = 0.0,
        |schedule| schedule.options.lag = Duration::ZERO,
        |schedule| {
            schedule.options.several = false;
            schedule.acts.retain(|(_, act)| !act.is_second());
        },
        |schedule| schedule.options.scopes = Scopes::All,
    ];
    for calm in without {
        let mut attempt = smallest.clone();
        calm(&mut attempt);
        if attempt.size() < smallest.size() && fails(&attempt) {
            *smallest = attempt;
        }
    }
}

/// Leaves out acts: half of them, a quarter, and so on down to each alone.
fn drop_acts<A: Happens>(smallest: &mut Schedule<A>, fails: &mut impl FnMut(&Schedule<A>) -> bool) {
    let mut width = smallest.acts.len().div_ceil(2);
    while width > 0 {
        let mut from = 0;
        while from < smallest.acts.len() {
            let mut attempt = smallest.clone();
            let to = (from + width).min(attempt.acts.len());
            attempt.acts.drain(from..to);
            if fails(&attempt) {
                *smallest = attempt;
            } else {
                from += width;
            }
        }
        width /= 2;
    }
}

#[test]
fn schedule_shrinks_to_its_failing_acts() {
    let seed = (0..10_000)
        .find(|seed| {
            let schedule = Schedule::draw(*seed);
            schedule.acts.len() > 15
                && schedule.options.rates.cloud > 0.0
                && schedule.options.rates.event > 0.0
        })
        .unwrap();
    let failing = Schedule::draw(seed);
    let (first, last) = (failing.acts[2].0, failing.acts[13].0);
    let mut attempts = 0;
    let smallest = shrink(&failing, |schedule| {
        attempts += 1;
        let has = |at| schedule.acts.iter().any(|(when, _)| *when == at);
        has(first) && has(last) && schedule.options.rates.cloud > 0.0
    });
    let times: Vec<Duration> = smallest.acts.iter().map(|(at, _)| *at).collect();
    assert_eq!(times, [first, last]);
    assert!(smallest.options.rates.cloud > 0.0);
    assert!(smallest.options.rates.event == 0.0);
    assert!(attempts < 150, "{attempts} attempts");
}
