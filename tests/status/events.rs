//! Which events go with which change of a status.

use security_group_operator::api::membership::SecurityGroupMembershipStatus;
use security_group_operator::membership::status::{EventRecord, event_for};

use crate::{ends, say};

/// The event for one end after another.
fn queued(before: usize, after: usize) -> Option<EventRecord> {
    let nothing = SecurityGroupMembershipStatus::default();
    let first = say(&nothing, &ends()[before], false, 0).unwrap();
    let second = say(&first, &ends()[after], false, 60).unwrap();
    event_for(&first, &second, ends()[after].0)
}

#[test]
fn events_report_only_transitions() {
    let nothing = SecurityGroupMembershipStatus::default();
    for end in ends() {
        let Some(first) = say(&nothing, &end, false, 0) else {
            continue;
        };
        // The same end in other words: no event.
        let mut reworded = first.clone();
        for condition in &mut reworded.conditions {
            condition.message.push('!');
        }
        assert_eq!(event_for(&first, &reworded, end.0), None, "{end:?}");
    }
    let reason = |index: usize| {
        let end = &ends()[index];
        let said = say(&nothing, end, false, 0).unwrap();
        event_for(&nothing, &said, end.0).map(|event| event.reason)
    };
    assert_eq!(reason(0), Some("Joined"));
    assert_eq!(reason(1), Some("Adopted"));
    assert_eq!(reason(4), None, "a pause is the user's own doing");
    assert_eq!(reason(5), Some("Waiting"));
    assert_eq!(reason(8), Some("DriftDetected"));
    assert_eq!(reason(10), Some("Stalled"));
    assert_eq!(reason(17), None, "a retry is no event");
}

#[test]
fn stalled_and_drift_are_warnings_with_the_ready_message() {
    let nothing = SecurityGroupMembershipStatus::default();
    for end in ends() {
        let said = say(&nothing, &end, false, 0).unwrap();
        let Some(event) = event_for(&nothing, &said, end.0) else {
            continue;
        };
        let warning = matches!(event.reason, "Stalled" | "DriftDetected");
        assert_eq!(event.warning, warning, "{event:?}");
        assert_eq!(event.text, said.conditions[0].message);
    }
}

#[test]
fn each_problem_and_its_recovery_are_reported() {
    let reason = |before, after| queued(before, after).map(|event| event.reason);
    assert_eq!(reason(21, 20), Some("Stalled"), "another reason");
    assert_eq!(reason(20, 0), Some("Recovered"));
    assert_eq!(reason(20, 1), Some("Recovered"));
    assert_eq!(reason(5, 0), Some("Joined"), "a wait is no trouble");
    assert_eq!(reason(5, 3), Some("Adopted"), "observed");
    assert_eq!(reason(1, 0), Some("Joined"), "handed over");
    assert_eq!(reason(8, 9), Some("DriftDetected"), "reported, then a loop");
}

#[test]
fn kept_edge_is_not_reported_as_joined_again() {
    let nothing = SecurityGroupMembershipStatus::default();
    let joined = say(&nothing, &ends()[0], false, 0).unwrap();
    for (between, queued) in [(4, None), (5, Some("Recovered"))] {
        let paused = say(&joined, &ends()[between], false, 60).unwrap();
        let again = say(&paused, &ends()[0], false, 120).unwrap();
        let event = event_for(&paused, &again, ends()[0].0);
        assert_eq!(event.map(|event| event.reason), queued);
    }
}
