//! Random schedules that have found a fault of the operator. Each failed before its fix. A change of what a seed draws makes them
//! schedules like any other; the story or the unit test of the fault stays.

use crate::schedule::{self, Happens, Schedule};
use crate::{in_threads, in_virtual_time, set_schedule};

type Draw = fn(u64) -> Schedule;

const FOUND: [(Draw, u64, &str); 12] = [
    (
        Schedule::draw,
        28_540,
        "targets that appeared during a scan held it up",
    ),
    (
        Schedule::draw,
        90_086,
        "a pass that outlasted the report of its wait hid the next one of its target for ever",
    ),
    (
        Schedule::draw,
        137_517,
        "who was handed ownership took it for void",
    ),
    (
        Schedule::draw,
        472_212,
        "an object stayed Ready while the repair of another one on its edge had no answer",
    ),
    (
        Schedule::draw,
        972_675,
        "a read that had waited for the key counted from the moment that it was asked for, and what it showed was forgotten",
    ),
    (
        Schedule::draw_known_wide,
        2_156,
        "an account that etcd brought back was never looked at",
    ),
    (
        Schedule::draw_known_wide,
        15_317,
        "an object that was gone for its pass, and not for the watch, was never looked at again",
    ),
    (
        Schedule::draw_known_wide,
        22_188,
        "the check of an account that had gone answered for the one that came back",
    ),
    (
        Schedule::draw_known_wide,
        35_391,
        "the status of an account that etcd had put back was not written again",
    ),
    (
        Schedule::draw_known_wide,
        49_062,
        "a membership that a pass had seen gone was still the object's that had joined it",
    ),
    (
        Schedule::draw_known_wide,
        75_691,
        "a check that ran while etcd was put back kept the status as it was",
    ),
    (
        Schedule::draw_wide,
        17_007,
        "the pass over an object that had gone without a release forgot it when etcd had brought it back",
    ),
];

/// The same with sets.
const FOUND_WITH_SETS: [(u64, &str); 12] = [
    (
        357,
        "a conflict kept the set's policy from a membership, and the set deleted it with another one",
    ),
    (
        435,
        "a conflict that met the deletion of a membership was taken for its absence",
    ),
    (
        481,
        "a late answer to the deletion of a membership brought it back into memory",
    ),
    (
        820,
        "a set whose end a broken watch had missed was read by its tags for ever",
    ),
    (
        1_337,
        "minutes without a Node and minutes without an instance were added up",
    ),
    (8_938, "tags that no set selects by any more were read on"),
    (
        26_077,
        "a conflict that met the change of a membership left another policy on it",
    ),
    (
        43_124,
        "a membership that a user had just released was deleted by the list of IDs",
    ),
    (
        53_076,
        "the same, when the set came to list an interface instead",
    ),
    (56_000, "the same, by a change of group and back"),
    (
        169_551,
        "a late answer to a deletion brought a membership back that a list had not shown any more",
    ),
    (
        222_293,
        "what a key of another cloud account did not list was evidence against other memberships of the target",
    ),
];

#[test]
fn schedules_of_sets_that_have_found_a_fault_find_none() {
    let failed = std::sync::Mutex::new(Vec::new());
    in_threads(FOUND_WITH_SETS.len() as u64, |number| {
        let (seed, fault) = FOUND_WITH_SETS[usize::try_from(number).unwrap()];
        let schedule = set_schedule::draw(seed);
        let problems = in_virtual_time(|| Happens::run(&schedule, false)).problems;
        if !problems.is_empty() {
            failed.lock().unwrap().push((seed, fault, problems));
        }
    });
    assert_eq!(failed.into_inner().unwrap(), []);
}

#[test]
fn schedules_that_have_found_a_fault_find_none() {
    let failed = std::sync::Mutex::new(Vec::new());
    in_threads(FOUND.len() as u64, |number| {
        let (draw, seed, fault) = FOUND[usize::try_from(number).unwrap()];
        let schedule = draw(seed);
        let problems = in_virtual_time(|| schedule::run(&schedule, false)).problems;
        if !problems.is_empty() {
            failed.lock().unwrap().push((seed, fault, problems));
        }
    });
    assert_eq!(failed.into_inner().unwrap(), []);
}
