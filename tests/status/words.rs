//! What users read, word for word.

use std::time::Duration;

use security_group_operator::api::membership::SecurityGroupMembershipStatus;
use security_group_operator::condition::find;
use security_group_operator::ecs::{Action, Class, Error, TransportError};
use security_group_operator::membership::decide::{Access, ReconcileOutcome};
use security_group_operator::membership::edge::Edge;
use security_group_operator::membership::status::{StatusInput, status};

use crate::{at, edge, ends, observed, refusal, say};

/// Status of Ready, what else is True, reason, message.
fn spoken(status: &SecurityGroupMembershipStatus) -> String {
    let ready = find(&status.conditions, "Ready").unwrap();
    let others: Vec<&str> = status
        .conditions
        .iter()
        .skip(1)
        .map(|condition| {
            assert_eq!(
                (condition.reason.as_str(), condition.status.as_str()),
                (ready.reason.as_str(), "True")
            );
            assert_eq!(condition.message, ready.message);
            condition.type_.as_str()
        })
        .collect();
    format!(
        "{} {} {}: {}",
        ready.status,
        others.join("+"),
        ready.reason,
        ready.message
    )
}

#[test]
fn every_outcome_has_its_message() {
    let problem = "the account has a problem";
    let unknown = "look the code up at https://api.alibabacloud.com/troubleshoot; this version of the operator does not know it and keeps trying";
    let drift = "i-1 was taken out of sg-1 by somebody else, and driftPolicy is Report; join it again, set driftPolicy to Repair, or delete this object";
    let wanted = [
        "True  Joined: i-1 is a member of sg-1; joined by the operator".to_owned(),
        "True  Adopted: i-1 is a member of sg-1; it was one before this object, and stays one when this object goes".to_owned(),
        "True  Shared: i-1 is a member of sg-1; another object joined it and holds it too".to_owned(),
        "True  Adopted: i-1 is a member of sg-1; only observed".to_owned(),
        "Unknown  Paused: nothing is read or written while the annotation security-group-operator.io/paused is there and not \"false\"".to_owned(),
        "False Reconciling WaitingForTarget: i-1 is Running and is joined when it has settled; looked at again after 5s, at most every 1m".to_owned(),
        "False  NotAMember: i-1 is not a member of sg-1; with managementPolicy Manage it would be joined".to_owned(),
        "False Stalled AdoptionRefused: i-1 was a member of sg-1 before this object, and adoptionPolicy is Refuse; set it to Adopt, or take the membership away".to_owned(),
        format!("False Stalled+Drifted DriftReported: {drift}"),
        "False Stalled+Drifted RepairLoop: somebody else keeps taking i-1 out of sg-1: 3 repairs in 30 min were undone; find the other owner (in Terraform: ignore_changes = [security_groups]); repaired again in an hour".to_owned(),
        "False Stalled TargetNotFound: DescribeInstances does not list i-1 in cn-hangzhou; check spec.instanceID, spec.region and the account; looked for again after 1m, at most every 15m".to_owned(),
        format!("False Stalled AccountNotFound: {problem}"),
        format!("False Stalled AccountNotReady: {problem}"),
        format!("False Reconciling AccountNotReady: {problem}"),
        format!("False Stalled AccountChanged: {problem}"),
        format!("False Stalled NotGranted: {problem}"),
        "False Reconciling WaitingForTarget: IncorrectInstanceStatus: so it is; looked at again after 5s, at most every 1m".to_owned(),
        "False Reconciling Retrying: InternalError: so it is; nothing to do: the cloud could not serve the call just now and will be asked again; tried again after 1s, at most every 5m".to_owned(),
        "False Reconciling Throttled: Throttling.User: so it is; nothing to do, or ask the vendor for a higher rate limit of this API: the account's calls of this minute are used up; tried again after 1s, at most every 1m".to_owned(),
        "False Stalled InvalidInstanceIdNotFound: InvalidInstanceId.NotFound: so it is; check the ID and the region, or delete the object: the target does not exist there in this cloud account; tried again after 1m, at most every 15m".to_owned(),
        "False Stalled InstanceSecurityGroupLimitExceeded: InstanceSecurityGroupLimitExceeded: so it is; remove the target from another group, or ask the vendor for more groups an instance; tried again after 5m, at most every 30m".to_owned(),
        "False Stalled InvalidInstanceIdMismatch: InvalidInstanceId.Mismatch: so it is; use a group of the target's own VPC: the two are not in the same network; tried again every 1h".to_owned(),
        format!("False Reconciling Retrying: Never.Heard.Of: so it is; {unknown}; tried again after 1s, at most every 5m"),
        "False Reconciling Retrying: JoinSecurityGroup got no answer: no complete answer within 66 s; check that the operator's pod reaches the cloud's endpoint; tried again after 1s, at most every 5m".to_owned(),
    ];
    let nothing = SecurityGroupMembershipStatus::default();
    let said: Vec<String> = ends()
        .iter()
        .map(|end| spoken(&say(&nothing, end, false, 0).unwrap()))
        .collect();
    assert_eq!(said, wanted);
}

#[test]
fn missing_interface_names_its_own_field() {
    let edge = Edge {
        target: security_group_operator::ecs::Target::NetworkInterface("eni-1".parse().unwrap()),
        ..edge()
    };
    let input = StatusInput {
        edge: &edge,
        outcome: ReconcileOutcome::Absent,
        observed: &observed(Access::Usable),
        deleting: false,
        description: None,
        failure: None,
        account_problem: "",
        waits_since: None,
        turn_in: None,
    };
    let said = status(
        &SecurityGroupMembershipStatus::default(),
        Some(1),
        &input,
        at(0),
    )
    .unwrap();
    assert_eq!(
        spoken(&said),
        "False Stalled TargetNotFound: DescribeNetworkInterfaces does not list eni-1 in cn-hangzhou; check spec.networkInterfaceID, spec.region and the account; looked for again after 1m, at most every 15m"
    );
    assert_eq!(said.last_error.unwrap().action, "DescribeNetworkInterfaces");
}

#[test]
fn paused_message_keeps_the_last_reason() {
    let pause = (ReconcileOutcome::Paused, Access::Usable, None);
    let before = say(
        &SecurityGroupMembershipStatus::default(),
        &ends()[0],
        false,
        0,
    )
    .unwrap();
    let paused = say(&before, &pause, false, 60).unwrap();
    let words = "Unknown  Paused: nothing is read or written while the annotation security-group-operator.io/paused is there and not \"false\"; before: Joined";
    assert_eq!(spoken(&paused), words);
    let deleted = say(&paused, &pause, true, 120).unwrap();
    assert_eq!(spoken(&deleted), format!("{words}; the deletion waits"));
    assert_eq!(say(&deleted, &pause, true, 180), None);
}

#[test]
fn only_long_rate_limit_waits_are_reported() {
    let rate_limit_wait = |previous: &SecurityGroupMembershipStatus, seconds: u64| {
        let input = StatusInput {
            edge: &edge(),
            outcome: ReconcileOutcome::Failed(Class::Throttled),
            observed: &observed(Access::Usable),
            deleting: false,
            description: None,
            failure: None,
            account_problem: "",
            waits_since: None,
            turn_in: Some(Duration::from_secs(seconds)),
        };
        status(previous, Some(1), &input, at(0))
    };
    let nothing = SecurityGroupMembershipStatus::default();
    assert_eq!(rate_limit_wait(&nothing, 59), None);
    let said = rate_limit_wait(&nothing, 60).unwrap();
    assert_eq!(
        spoken(&said),
        "False Reconciling Throttled: i-1 waits for its turn: the cloud limits the account's calls a minute, and others were first"
    );
    assert_eq!(rate_limit_wait(&said, 120), None);
    let ready = say(&nothing, &ends()[0], false, 0).unwrap();
    assert_eq!(rate_limit_wait(&ready, 120), None);
}

#[test]
fn wait_message_names_state_and_later_the_console() {
    let nothing = SecurityGroupMembershipStatus::default();
    let wait = (ReconcileOutcome::Waiting, Access::Usable, None);
    let retry = "looked at again after 5s, at most every 1m";
    let leaving = say(&nothing, &wait, true, 0).unwrap();
    assert_eq!(
        spoken(&leaving),
        format!(
            "False Reconciling WaitingForTarget: i-1 is Running and is left when it has settled; {retry}"
        )
    );
    let stuck = say(&leaving, &wait, true, 30 * 60).unwrap();
    assert_eq!(
        spoken(&stuck),
        format!(
            "False Stalled WaitingForTarget: i-1 is Running and is left when it has settled; this object has been reconciling for more than 30 min now, look at the target in the ECS console; {retry}"
        )
    );
}

#[test]
fn last_error_carries_the_clouds_message() {
    let nothing = SecurityGroupMembershipStatus::default();
    let refused = refusal("InvalidInstanceId.Mismatch", "so it is.");
    let end = (
        ReconcileOutcome::Failed(refused.class()),
        Access::Usable,
        Some(refused),
    );
    let said = say(&nothing, &end, false, 0).unwrap();
    let error = said.last_error.unwrap();
    assert_eq!(
        (error.message.as_str(), error.retry.as_str()),
        ("so it is.", "every 1h")
    );
    // Its end is not doubled where the sentence goes on.
    assert!(
        !find(&said.conditions, "Ready")
            .unwrap()
            .message
            .contains(".;")
    );

    let silence = Error::Transport {
        action: Action::LeaveSecurityGroup,
        source: TransportError::Interrupted {
            cause: "connection reset".to_owned(),
        },
    };
    let text = silence.to_string();
    let end = (
        ReconcileOutcome::Failed(silence.class()),
        Access::Usable,
        Some(silence),
    );
    let error = say(&nothing, &end, false, 0).unwrap().last_error.unwrap();
    assert_eq!(
        (error.action.as_str(), error.code, error.message),
        ("LeaveSecurityGroup", None, text)
    );
}
