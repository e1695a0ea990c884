//! Which events go with which change of a status.

use security_group_operator::api::membership::SecurityGroupMembershipStatus;
use security_group_operator::condition::is_true;
use security_group_operator::kubernetes::events::EventRecord;
use security_group_operator::membership::status::event_for;

use super::{ends, say};

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
    assert_eq!(reason(0).as_deref(), Some("Joined"));
    assert_eq!(reason(1).as_deref(), Some("Adopted"));
    assert_eq!(reason(4).as_deref(), None, "the user suspended it");
    assert_eq!(reason(5).as_deref(), Some("WaitingForTarget"));
    assert_eq!(reason(8).as_deref(), Some("DriftDetected"));
    assert_eq!(reason(10).as_deref(), Some("TargetNotFound"));
    assert_eq!(reason(17).as_deref(), None, "a retry is no event");
}

#[test]
fn stalled_and_drift_are_warnings_with_the_ready_message() {
    let nothing = SecurityGroupMembershipStatus::default();
    for end in ends() {
        let said = say(&nothing, &end, false, 0).unwrap();
        let Some(event) = event_for(&nothing, &said, end.0) else {
            continue;
        };
        let warning = is_true(&said.conditions, "Stalled");
        assert_eq!(event.warning, warning, "{event:?}");
        assert_eq!(event.text, said.conditions[0].message);
    }
}

#[test]
fn event_of_a_refusal_has_its_code_and_request_id() {
    let nothing = SecurityGroupMembershipStatus::default();
    let mut refusals = 0;
    for end in ends() {
        let mut said = say(&nothing, &end, false, 0).unwrap_or_default();
        if let Some(error) = &mut said.last_error {
            error.request_id = Some("6A1B".to_owned());
        }
        let Some(event) = event_for(&nothing, &said, end.0) else {
            continue;
        };
        let error = said.last_error.as_ref();
        assert_eq!(event.code, error.and_then(|error| error.code.clone()));
        let request_id = error.and_then(|error| error.request_id.clone());
        assert_eq!(event.request_id, request_id, "{event:?}");
        refusals += usize::from(event.code.is_some());
    }
    assert!(refusals > 0);
}

#[test]
fn each_problem_and_its_recovery_are_reported() {
    let reason = |before, after| queued(before, after).map(|event| event.reason);
    assert_eq!(
        reason(21, 20).as_deref(),
        Some("InstanceSecurityGroupLimitExceeded"),
        "another reason"
    );
    assert_eq!(reason(20, 0).as_deref(), Some("Recovered"));
    assert_eq!(reason(20, 1).as_deref(), Some("Recovered"));
    assert_eq!(
        reason(5, 0).as_deref(),
        Some("Joined"),
        "a wait is no trouble"
    );
    assert_eq!(reason(5, 3).as_deref(), Some("Observed"), "observed");
    assert_eq!(reason(1, 0).as_deref(), Some("Joined"), "handed over");
    assert_eq!(
        reason(8, 9).as_deref(),
        Some("DriftDetected"),
        "reported, then a loop"
    );
}

#[test]
fn kept_edge_is_not_reported_as_joined_again() {
    let nothing = SecurityGroupMembershipStatus::default();
    let joined = say(&nothing, &ends()[0], false, 0).unwrap();
    for (between, queued) in [(4, None), (5, Some("Recovered"))] {
        let paused = say(&joined, &ends()[between], false, 60).unwrap();
        let again = say(&paused, &ends()[0], false, 120).unwrap();
        let event = event_for(&paused, &again, ends()[0].0);
        assert_eq!(event.map(|event| event.reason).as_deref(), queued);
    }
}
