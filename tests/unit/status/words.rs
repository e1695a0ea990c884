//! What users read, word for word.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};
use security_group_operator::api::membership::{
    DeletionPolicy, ErrorClass, Origin, SecurityGroupMembershipStatus,
};
use security_group_operator::condition::find;
use security_group_operator::ecs::{
    Action, Class, DocsUrl, Edge, Error, TargetDescription, TargetState, TransportError,
};
use security_group_operator::membership::decide::{AccessView, ReconcileOutcome};
use security_group_operator::membership::status::{StatusInput, status};

use serde_json::Value;

use super::{at, edge, ends, input, observed, refusal, running, say};

/// Status of Ready, what else is True, reason, message.
fn spoken(status: &SecurityGroupMembershipStatus) -> String {
    let ready = find(&status.conditions, "Ready").unwrap();
    let others: Vec<&str> = status
        .conditions
        .iter()
        .skip(1)
        .filter(|condition| condition.reason != "NoDrift")
        .map(|condition| {
            assert_eq!(condition.status, "True");
            if condition.type_ != "Suspended" {
                assert_eq!(condition.reason, ready.reason);
                assert_eq!(condition.message, ready.message);
            }
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
    let drift = "i-1 was removed from sg-1 by another actor, and driftPolicy is Report; join it again, set driftPolicy to Repair, or delete this object";
    let wanted = [
        "True  Joined: i-1 is a member of sg-1; joined by the operator".to_owned(),
        "True  Adopted: i-1 is a member of sg-1; it was a member before this object was created and stays one when this object is deleted".to_owned(),
        "True  Shared: i-1 is a member of sg-1; another SecurityGroupMembership joined it and still manages it".to_owned(),
        "True  Observed: i-1 is a member of sg-1; managementPolicy is Observe".to_owned(),
        "Unknown Suspended Pending: waiting for the operator".to_owned(),
        "False Reconciling WaitingForTarget: i-1 is Running; the operator joins it when it is Running or Stopped; next try in 5s (backs off to 1m)".to_owned(),
        "False Stalled NotAMember: i-1 is not a member of sg-1; not joined because managementPolicy is Observe; set it to Manage, or join the target".to_owned(),
        "False Stalled AdoptionRefused: i-1 was a member of sg-1 before this object was created, and adoptionPolicy is Refuse; set adoptionPolicy to Adopt, or remove i-1 from sg-1; next try in 1m (backs off to 15m)".to_owned(),
        format!("False Stalled+Drifted DriftReported: {drift}"),
        "False Stalled+Drifted RepairLoop: i-1 was removed from sg-1 again after 3 repairs in 30 minutes; find the other owner (in Terraform: ignore_changes = [security_groups]); next repair in about 1 hour, or when reconcile-requested-at changes".to_owned(),
        "False Stalled TargetNotFound: DescribeInstances does not list i-1 in cn-hangzhou; check spec.instanceID, spec.region and the account; next try in 1m (backs off to 15m)".to_owned(),
        format!("False Stalled AccountNotFound: {problem}"),
        format!("False Stalled AccountNotReady: {problem}"),
        format!("False Reconciling AccountNotReady: {problem}"),
        format!("False Stalled AccountChanged: {problem}"),
        format!("False Stalled NotGranted: {problem}"),
        "False Reconciling WaitingForTarget: IncorrectInstanceStatus: so it is; next try in 5s (backs off to 1m)".to_owned(),
        "False Reconciling Retrying: InternalError: so it is; temporary cloud error; the operator retries; next try in 1s (backs off to 5m)".to_owned(),
        "False Reconciling Throttled: Throttling.User: so it is; the account's calls of this minute are used up; if it lasts, request a higher rate limit of this API; next try in 1s (backs off to 1m)".to_owned(),
        "False Stalled InvalidInstanceIdNotFound: InvalidInstanceId.NotFound: so it is; check the ID, the region and the account, or delete this object; next try in 1m (backs off to 15m)".to_owned(),
        "False Stalled InstanceSecurityGroupLimitExceeded: InstanceSecurityGroupLimitExceeded: so it is; remove the target from another group, or request a higher quota of security groups per instance; next try in 5m (backs off to 30m)".to_owned(),
        "False Stalled InvalidInstanceIdMismatch: InvalidInstanceId.Mismatch: so it is; use a group in the target's VPC; the two are in different networks; next try in 1h".to_owned(),
        "False Reconciling Retrying: Never.Heard.Of: so it is; this version of the operator does not know this code; see https://api.alibabacloud.com/troubleshoot; next try in 1s (backs off to 5m)".to_owned(),
        "False Reconciling Retrying: JoinSecurityGroup got no answer: no complete answer within 66 s; check that the operator's pod reaches the cloud's endpoint; next try in 1s (backs off to 5m)".to_owned(),
        "False Stalled KarpenterNode: i-1 belongs to a Karpenter node pool, which would replace the node for one more group; leave such nodes out (karpenter.sh/nodepool DoesNotExist), or list sg-1 in the ECSNodeClass and set karpenterPolicy to Join; next try in 1h".to_owned(),
    ];
    let nothing = SecurityGroupMembershipStatus::default();
    let said: Vec<String> = ends()
        .iter()
        .map(|end| spoken(&say(&nothing, end, false, 0).unwrap()))
        .collect();
    assert_eq!(said, wanted);
}

#[test]
fn adopted_membership_says_what_its_deletion_does() {
    for (deletion, end) in [
        (
            DeletionPolicy::RemoveIfJoined,
            " and stays one when this object is deleted",
        ),
        (
            DeletionPolicy::Retain,
            " and stays one when this object is deleted",
        ),
        (
            DeletionPolicy::Remove,
            ", and is removed when this object is deleted, because deletionPolicy is Remove",
        ),
    ] {
        let (edge, observed) = (edge(), observed(AccessView::Usable));
        let adopted = ReconcileOutcome::Ready {
            origin: Some(Origin::Adopted),
            shared: false,
            repaired: false,
        };
        let input = StatusInput {
            deletion,
            ..input(&edge, &observed, adopted)
        };
        let nothing = SecurityGroupMembershipStatus::default();
        let said = status(&nothing, Some(1), &input, at(0)).unwrap();
        let wanted = format!(
            "True  Adopted: i-1 is a member of sg-1; it was a member before this object was created{end}"
        );
        assert_eq!(spoken(&said), wanted);
    }
}

#[test]
fn missing_interface_names_its_own_field() {
    let edge = Edge {
        target: security_group_operator::ecs::Target::NetworkInterface("eni-1".parse().unwrap()),
        ..edge()
    };
    let observed = observed(AccessView::Usable);
    let input = input(&edge, &observed, ReconcileOutcome::Absent);
    let said = status(
        &SecurityGroupMembershipStatus::default(),
        Some(1),
        &input,
        at(0),
    )
    .unwrap();
    assert_eq!(
        spoken(&said),
        "False Stalled TargetNotFound: DescribeNetworkInterfaces does not list eni-1 in cn-hangzhou; check spec.networkInterfaceID, spec.region and the account; next try in 1m (backs off to 15m)"
    );
    assert_eq!(said.last_error.unwrap().action, "DescribeNetworkInterfaces");
}

#[test]
fn suspended_object_keeps_its_other_conditions() {
    let suspend = (ReconcileOutcome::Suspended, AccessView::Usable, None);
    let nothing = SecurityGroupMembershipStatus::default();
    for (index, kept) in [
        (0, "True Suspended Joined"),
        (20, "False Stalled+Suspended"),
    ] {
        let before = say(&nothing, &ends()[index], false, 0).unwrap();
        let suspended = say(&before, &suspend, false, 60).unwrap();
        assert!(
            spoken(&suspended).starts_with(kept),
            "{}",
            spoken(&suspended)
        );
        for type_ in ["Ready", "Stalled", "Drifted"] {
            assert_eq!(
                find(&suspended.conditions, type_),
                find(&before.conditions, type_)
            );
        }
        let deleted = say(&suspended, &suspend, true, 120).unwrap();
        let message = &find(&deleted.conditions, "Suspended").unwrap().message;
        assert!(message.contains("the deletion waits"), "{message}");
        assert_eq!(say(&deleted, &suspend, true, 180), None);
    }
    let waiting = say(&nothing, &ends()[5], false, 0).unwrap();
    let suspended = say(&waiting, &suspend, false, 60).unwrap();
    assert_eq!(find(&suspended.conditions, "Reconciling"), None);
}

#[test]
fn advice_during_a_deletion_never_says_delete() {
    for code in [
        "InvalidInstanceId.Malformed",
        "InvalidRegionId.NotFound",
        "InvalidInstanceId.NotFound",
    ] {
        let error = refusal(code, "");
        assert!(error.hint().contains("delete this object"), "{code}");
        let end = (
            ReconcileOutcome::Failed(error.class()),
            AccessView::Usable,
            Some(error),
        );
        let said = say(&SecurityGroupMembershipStatus::default(), &end, true, 0).unwrap();
        let message = &find(&said.conditions, "Ready").unwrap().message;
        assert!(!message.contains("delete"), "{message}");
    }
}

#[test]
fn condition_times_never_stay_at_the_default_of_1970() {
    let mut fresh = SecurityGroupMembershipStatus::default();
    let pending = say(
        &fresh,
        &(ReconcileOutcome::Suspended, AccessView::Usable, None),
        false,
        0,
    )
    .unwrap();
    fresh.conditions = vec![find(&pending.conditions, "Ready").unwrap().clone()];
    fresh.conditions[0].last_transition_time.0 = k8s_openapi::jiff::Timestamp::UNIX_EPOCH;
    for end in ends() {
        let said = say(&fresh, &end, false, 60).unwrap();
        for condition in &said.conditions {
            assert!(condition.last_transition_time.0.as_second() > 0, "{end:?}");
        }
    }
}

#[test]
fn handled_request_is_recorded() {
    let handled = |outcome, requested: Option<&'static str>, previous: &str| {
        let previous = SecurityGroupMembershipStatus {
            last_handled_reconcile_at: Some(previous.to_owned()),
            ..SecurityGroupMembershipStatus::default()
        };
        let edge = edge();
        let observed = observed(AccessView::Usable);
        let input = StatusInput {
            account_uid: Some(&"1234".into()),
            reconcile_requested_at: requested,
            ..input(&edge, &observed, outcome)
        };
        status(&previous, Some(1), &input, at(0))?.last_handled_reconcile_at
    };
    let absent = ReconcileOutcome::Absent;
    assert_eq!(handled(absent, Some("b"), "a").as_deref(), Some("b"));
    assert_eq!(handled(absent, None, "a").as_deref(), Some("a"));
    assert_eq!(handled(ReconcileOutcome::Undecided, Some("b"), "a"), None);
    let throttled = ReconcileOutcome::Failed(Class::Throttled);
    assert_eq!(handled(throttled, Some("b"), "a"), None, "it only waited");
}

#[test]
fn only_long_rate_limit_waits_are_reported() {
    let rate_limit_wait = |previous: &SecurityGroupMembershipStatus, seconds: u64| {
        let edge = edge();
        let observed = observed(AccessView::Usable);
        let input = StatusInput {
            held_for: Duration::from_secs(seconds),
            ..input(&edge, &observed, ReconcileOutcome::Failed(Class::Throttled))
        };
        status(previous, Some(1), &input, at(0))
    };
    let nothing = SecurityGroupMembershipStatus::default();
    assert_eq!(rate_limit_wait(&nothing, 59), None);
    let said = rate_limit_wait(&nothing, 60).unwrap();
    assert_eq!(
        spoken(&said),
        "False Reconciling Throttled: rate limited: the account's calls per minute are used by earlier requests; i-1 follows without any action"
    );
    assert_eq!(rate_limit_wait(&said, 120), None);
    let ready = say(&nothing, &ends()[0], false, 0).unwrap();
    assert_eq!(rate_limit_wait(&ready, 120), None);
    // A Stalled object only checks again; what ends by itself does not stay.
    let after = |outcome| {
        let (edge, observed) = (edge(), observed(AccessView::Usable));
        let said = status(&nothing, Some(1), &input(&edge, &observed, outcome), at(0)).unwrap();
        rate_limit_wait(&said, 120)
    };
    assert_eq!(after(ReconcileOutcome::Absent), None);
    assert!(after(ReconcileOutcome::Waiting).is_some());
}

#[test]
fn deletion_without_a_list_of_its_edge_says_why() {
    let said = |cause: &str| {
        let (edge, observed) = (edge(), observed(AccessView::Usable));
        let input = StatusInput {
            not_listed: Some(cause),
            deleting: true,
            ..input(&edge, &observed, ReconcileOutcome::Unlisted)
        };
        let nothing = SecurityGroupMembershipStatus::default();
        spoken(&status(&nothing, Some(1), &input, at(0)).unwrap())
    };
    assert_eq!(
        said("too many requests"),
        "False Reconciling Retrying: the objects for this membership could not be listed (too many requests), and another one may hold it; next try in 1s (backs off to 5m); to keep the membership, set spec.deletionPolicy to Retain"
    );
    assert!(said(&"x".repeat(500)).len() < 280);
}

#[test]
fn wait_message_names_state_and_later_the_console() {
    let nothing = SecurityGroupMembershipStatus::default();
    let wait = (ReconcileOutcome::Waiting, AccessView::Usable, None);
    let retry = "next try in 5s (backs off to 1m)";
    let leaving = say(&nothing, &wait, true, 0).unwrap();
    assert_eq!(
        spoken(&leaving),
        format!(
            "False Reconciling WaitingForTarget: i-1 is Running; the operator removes it when it is Running or Stopped; {retry}"
        )
    );
    let stuck = say(&leaving, &wait, true, 30 * 60).unwrap();
    assert_eq!(
        spoken(&stuck),
        format!(
            "False Stalled WaitingForTarget: i-1 is Running; the operator removes it when it is Running or Stopped; the target has been between states for more than 30 minutes; check it in the ECS console; {retry}"
        )
    );
}

#[test]
fn last_error_carries_the_clouds_message() {
    let nothing = SecurityGroupMembershipStatus::default();
    let refused = refusal("InvalidInstanceId.Mismatch", "so it is.");
    let end = (
        ReconcileOutcome::Failed(refused.class()),
        AccessView::Usable,
        Some(refused),
    );
    let said = say(&nothing, &end, false, 0).unwrap();
    let error = said.last_error.unwrap();
    assert_eq!(
        (error.message.as_str(), error.class),
        ("so it is.", ErrorClass::Invalid)
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
        AccessView::Usable,
        Some(silence),
    );
    let error = say(&nothing, &end, false, 0).unwrap().last_error.unwrap();
    assert_eq!(
        (error.action.as_str(), error.code, error.message),
        ("LeaveSecurityGroup", None, text)
    );
}

/// The API server refuses a status of which one part is too long, and then nothing of it is shown.
#[test]
fn longest_texts_fit_the_schema_of_the_status() {
    let long = "x".repeat(5_000);
    let failure = Error::Transport {
        action: Action::JoinSecurityGroup,
        source: TransportError::Interrupted {
            cause: long.clone(),
        },
    };
    let description = TargetDescription {
        state: TargetState::Other("y".repeat(128)),
        vpc_id: Some("v".repeat(128)),
        lock_reasons: vec!["l".repeat(128); 40],
        ..running()
    };
    let edge = edge();
    let observed = observed(AccessView::Usable);
    let input = StatusInput {
        description: Some(&description),
        failure: Some(&failure),
        account_uid: Some(&"1234567890123456".into()),
        ..input(&edge, &observed, ReconcileOutcome::Failed(failure.class()))
    };
    let nothing = SecurityGroupMembershipStatus::default();
    let said = status(&nothing, Some(1), &input, at(0)).unwrap();
    assert!(said.last_error.is_some() && said.target.is_some());
    let crds = security_group_operator::api::crds();
    let (_, crd) = crds
        .iter()
        .find(|(name, _)| *name == "securitygroupmemberships")
        .unwrap();
    let schema = crd.spec.versions[0].schema.as_ref().unwrap();
    let schema = schema.open_api_v3_schema.as_ref().unwrap();
    let schema = &schema.properties.as_ref().unwrap()["status"];
    fits("status", schema, &serde_json::to_value(&said).unwrap());
}

fn fits(path: &str, schema: &JSONSchemaProps, value: &Value) {
    let most =
        |limit: Option<i64>| limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
    match value {
        Value::String(text) => {
            let letters = text.chars().count();
            assert!(
                letters <= most(schema.max_length),
                "{path}: {letters} letters"
            );
        }
        Value::Array(values) => {
            assert!(
                values.len() <= most(schema.max_items),
                "{path}: {}",
                values.len()
            );
            let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items else {
                unreachable!("{path} has no items");
            };
            for value in values {
                fits(&format!("{path}[]"), items, value);
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                let schema = &schema.properties.as_ref().unwrap()[name];
                fits(&format!("{path}.{name}"), schema, value);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

#[test]
fn message_about_what_a_human_must_correct_ends_with_a_link() {
    let docs = DocsUrl::parse("https://docs.example.com/sgo").unwrap();
    let said = |outcome, failure: Option<&Error>, deleting| {
        let (edge, observed) = (edge(), observed(AccessView::Usable));
        let input = StatusInput {
            failure,
            deleting,
            docs_url: Some(&docs),
            ..input(&edge, &observed, outcome)
        };
        let nothing = SecurityGroupMembershipStatus::default();
        spoken(&status(&nothing, Some(1), &input, at(0)).unwrap())
    };
    let page = "; see https://docs.example.com/sgo/reference";
    for (code, anchor) in [
        ("InvalidInstanceId.Mismatch", "invalidinstanceidmismatch"),
        (
            "InvalidSecurityGroupId.NotFound",
            "invalidsecuritygroupidnotfound",
        ),
        (
            "InstanceSecurityGroupLimitExceeded",
            "instancesecuritygrouplimitexceeded",
        ),
    ] {
        let error = refusal(code, "no");
        for deleting in [false, true] {
            let said = said(
                ReconcileOutcome::Failed(error.class()),
                Some(&error),
                deleting,
            );
            assert!(
                said.ends_with(&format!("{page}/errors.html#{anchor}")),
                "{said}"
            );
        }
    }
    let absent = said(ReconcileOutcome::Absent, None, false);
    assert!(
        absent.ends_with(&format!("{page}/reasons.html#targetnotfound")),
        "{absent}"
    );
    for code in ["InternalError", "Throttling.User", "Never.Heard.Of"] {
        let error = refusal(code, "no");
        let said = said(ReconcileOutcome::Failed(error.class()), Some(&error), false);
        assert!(!said.contains("docs.example.com"), "{said}");
    }
}
