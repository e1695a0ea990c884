//! What a status says: one of kstatus's words, the cloud's own words, and nothing twice.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test ends at its first surprise"
)]

mod events;
mod words;

use std::sync::LazyLock;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use security_group_operator::api::membership::{
    DeletionPolicy, ErrorClass, Origin, SecurityGroupMembershipStatus,
};
use security_group_operator::condition::{find, is_true};
use security_group_operator::ecs::{
    Action, ApiError, Class, Edge, Error, TargetDescription, TargetState, TransportError,
};
use security_group_operator::kubernetes::ObjectUid;
use security_group_operator::membership::decide::{
    AccessView, Attempt, ClaimView, EdgeView, Elsewhere, Holder, Observed, ReadTrust,
    ReconcileOutcome, Release, TargetView,
};
use security_group_operator::membership::status::{
    Ending, Held, StatusInput, event_for, parse_lenient, status, waits_since,
};

fn edge() -> Edge {
    Edge {
        region: "cn-hangzhou".parse().expect("a region"),
        target: security_group_operator::ecs::Target::Instance("i-1".parse().expect("an ID")),
        group: "sg-1".parse().expect("an ID"),
    }
}

fn own_uid() -> &'static ObjectUid {
    static UID: LazyLock<ObjectUid> = LazyLock::new(|| "0b1f2c3d".into());
    &UID
}

fn observed(account: AccessView) -> Observed {
    Observed {
        account,
        claim: ClaimView::None,
        finalizer: false,
        confirmed: false,
        target: TargetView::Unread,
        karpenter: false,
        trust: ReadTrust::Settled,
        join_is_open: false,
        holder: Holder::None,
        elsewhere: Elsewhere::default(),
        admitted: false,
        view: EdgeView::Fresh,
        attempt: Attempt::None,
        drifted: false,
        repairs: 0,
        synced: true,
    }
}

fn refusal(code: &str, message: &str) -> Error {
    Error::Api(ApiError {
        action: Action::JoinSecurityGroup,
        status: 403,
        code: code.to_owned(),
        message: message.to_owned(),
        request_id: None,
        access_denied_detail: None,
        retry_after: None,
        limit: None,
    })
}

fn running() -> TargetDescription {
    TargetDescription {
        state: TargetState::Running,
        vpc_id: Some("vpc-1".to_owned()),
        lock_reasons: vec![],
        security_group_ids: std::collections::BTreeSet::new(),
        service_managed: false,
        primary: false,
        karpenter: false,
        tags: security_group_operator::ecs::Tags::default(),
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::new(1_800_000_000 + second, 123_456_789).expect("a time")
}

/// Every end that a pass can come to, with a failure where one belongs to it.
fn ends() -> Vec<(ReconcileOutcome, AccessView, Option<Error>)> {
    let ready = |origin, shared| ReconcileOutcome::Ready {
        origin,
        shared,
        repaired: false,
    };
    let mut ends: Vec<(ReconcileOutcome, AccessView, Option<Error>)> = [
        ready(Some(Origin::Joined), false),
        ready(Some(Origin::Adopted), false),
        ready(Some(Origin::Adopted), true),
        ready(None, false),
        ReconcileOutcome::Suspended,
        ReconcileOutcome::Waiting,
        ReconcileOutcome::WouldJoin,
        ReconcileOutcome::AdoptionRefused,
        ReconcileOutcome::DriftReported,
        ReconcileOutcome::RepairLoop,
        ReconcileOutcome::Absent,
    ]
    .map(|outcome| (outcome, AccessView::Usable, None))
    .into();
    for account in [
        AccessView::Missing,
        AccessView::NotReady { stalled: true },
        AccessView::NotReady { stalled: false },
        AccessView::Changed,
        AccessView::NotGranted,
    ] {
        ends.push((ReconcileOutcome::AccountUnusable, account, None));
    }
    for code in [
        "IncorrectInstanceStatus",
        "InternalError",
        "Throttling.User",
        "InvalidInstanceId.NotFound",
        "InstanceSecurityGroupLimitExceeded",
        "InvalidInstanceId.Mismatch",
        "Never.Heard.Of",
    ] {
        let error = refusal(code, "so it is");
        ends.push((
            ReconcileOutcome::Failed(error.class()),
            AccessView::Usable,
            Some(error),
        ));
    }
    let silence = Error::Transport {
        action: Action::JoinSecurityGroup,
        source: TransportError::Timeout {
            after: Duration::from_secs(66),
        },
    };
    ends.push((
        ReconcileOutcome::Failed(Class::Transient),
        AccessView::Usable,
        Some(silence),
    ));
    let karpenter = ReconcileOutcome::KarpenterNode;
    ends.push((karpenter, AccessView::Usable, None));
    ends
}

/// What a pass ends with that met nothing else; each test changes the fields that it is about.
fn input<'a>(edge: &'a Edge, observed: &'a Observed, outcome: ReconcileOutcome) -> StatusInput<'a> {
    StatusInput {
        edge,
        outcome,
        observed,
        deleting: false,
        deletion: DeletionPolicy::RemoveIfJoined,
        description: None,
        failure: None,
        account_problem: "",
        not_listed: None,
        waits_since: None,
        not_observed_after: None,
        held_for: Duration::ZERO,
        object_uid: own_uid(),
        account_uid: None,
        reconcile_requested_at: None,
        held: None,
        docs_url: None,
        refusal: None,
    }
}

/// The status after a pass that ended so, at this second.
fn say(
    previous: &SecurityGroupMembershipStatus,
    (outcome, account, failure): &(ReconcileOutcome, AccessView, Option<Error>),
    deleting: bool,
    second: i64,
) -> Option<SecurityGroupMembershipStatus> {
    let description = running();
    let waits = matches!(
        outcome,
        ReconcileOutcome::Waiting | ReconcileOutcome::Failed(Class::Transitional)
    );
    let edge = edge();
    let observed = Observed {
        claim: match previous.origin {
            Some(Origin::Joined) => ClaimView::Joined { void: false },
            Some(Origin::Adopted) => ClaimView::Adopted,
            None => ClaimView::None,
        },
        ..observed(*account)
    };
    let input = StatusInput {
        deleting,
        description: Some(&description),
        failure: failure.as_ref(),
        account_problem: "the account has a problem",
        waits_since: waits
            .then(|| waits_since(previous, failure.as_ref()).unwrap_or_else(|| at(second))),
        ..input(&edge, &observed, *outcome)
    };
    status(previous, Some(1), &input, at(second))
}

#[test]
fn unchanged_outcome_writes_no_status() {
    for before in ends() {
        let Some(first) = say(&SecurityGroupMembershipStatus::default(), &before, false, 0) else {
            continue;
        };
        for end in ends() {
            if let Some(second) = say(&first, &end, false, 60) {
                assert_eq!(
                    say(&second, &end, false, 120),
                    None,
                    "{before:?} then {end:?} twice"
                );
            }
        }
    }
}

#[test]
fn held_object_says_what_became_of_the_membership() {
    let joined = SecurityGroupMembershipStatus {
        origin: Some(Origin::Joined),
        ..SecurityGroupMembershipStatus::default()
    };
    let (edge, observed) = (edge(), observed(AccessView::Usable));
    let gone = |held| {
        let input = StatusInput {
            deleting: true,
            held,
            ..input(&edge, &observed, ReconcileOutcome::Gone)
        };
        status(&joined, Some(2), &input, at(0))
    };
    assert_eq!(gone(None), None, "nothing keeps it");
    let finalizers = ["example.com/hold".to_owned()];
    for (why, removed, reason, event, message) in [
        (
            Release::Left,
            true,
            "Removed",
            true,
            "i-1 was removed from sg-1",
        ),
        (
            Release::Left,
            false,
            "Removed",
            false,
            "i-1 is not a member of sg-1",
        ),
        (
            Release::NeverJoined,
            false,
            "Removed",
            false,
            "the operator has not joined i-1 to sg-1",
        ),
        (
            Release::Retained,
            false,
            "Retained",
            true,
            "i-1 stays a member of sg-1",
        ),
        (
            Release::Shared,
            false,
            "Retained",
            true,
            "i-1 stays a member of sg-1: another SecurityGroupMembership manages it",
        ),
    ] {
        let ending = Ending { why, removed };
        let held = Held {
            ending,
            finalizers: &finalizers,
        };
        let said = gone(Some(held)).unwrap();
        let ready = find(&said.conditions, "Ready").unwrap();
        assert_eq!(
            (ready.status.as_str(), ready.reason.as_str()),
            ("False", reason)
        );
        let until = "the object stays until finalizer example.com/hold is removed";
        assert_eq!(ready.message, format!("{message}; {until}"));
        assert!(!is_true(&said.conditions, "Stalled") && !is_true(&said.conditions, "Reconciling"));
        assert_eq!((said.origin, said.observed_generation), (None, Some(2)));
        let reported = ending.event(&edge).map(|event| (event.reason, event.text));
        let expected = (reason.to_owned(), message.to_owned());
        assert_eq!(reported, event.then_some(expected));
        assert_eq!(
            event_for(&joined, &said, ReconcileOutcome::Gone),
            None,
            "one event"
        );
    }
}

#[test]
fn at_most_one_of_ready_reconciling_stalled_is_true() {
    for deleting in [false, true] {
        for end in ends() {
            let Some(said) = say(&SecurityGroupMembershipStatus::default(), &end, deleting, 0)
            else {
                panic!("{end:?} says nothing at all");
            };
            let [ready, reconciling, stalled] =
                ["Ready", "Reconciling", "Stalled"].map(|type_| is_true(&said.conditions, type_));
            assert!(
                u8::from(ready) + u8::from(reconciling) + u8::from(stalled) <= 1,
                "{end:?}: {:?}",
                said.conditions
            );
            assert_eq!(
                ready,
                matches!(end.0, ReconcileOutcome::Ready { .. }),
                "{end:?}"
            );
            assert!(
                said.conditions
                    .iter()
                    .all(|condition| condition.observed_generation == Some(1)
                        && !condition.reason.is_empty()
                        && !condition.reason.contains('.')
                        && !condition.message.is_empty()),
                "{:?}",
                said.conditions
            );
        }
    }
}

#[test]
fn cloud_code_is_in_message_and_last_error() {
    let error = refusal(
        "InstanceSecurityGroupLimitExceeded",
        "Exceeding the allowed amount",
    );
    let end = (
        ReconcileOutcome::Failed(error.class()),
        AccessView::Usable,
        Some(error),
    );
    let said = say(&SecurityGroupMembershipStatus::default(), &end, false, 0).unwrap();
    let ready = find(&said.conditions, "Ready").unwrap();
    assert!(
        ready
            .message
            .starts_with("InstanceSecurityGroupLimitExceeded: "),
        "{}",
        ready.message
    );
    let last_error = said.last_error.unwrap();
    assert_eq!(
        last_error.code.as_deref(),
        Some("InstanceSecurityGroupLimitExceeded")
    );
    assert_eq!(last_error.action, "JoinSecurityGroup");
    assert_eq!(last_error.class, ErrorClass::Blocked);
    assert_eq!(last_error.time.0.as_second(), at(0).as_second());
}

#[test]
fn new_request_id_or_time_writes_no_status() {
    let with_request = |id: &str| {
        let mut said = say(
            &SecurityGroupMembershipStatus::default(),
            &ends()[19],
            false,
            0,
        )
        .unwrap();
        said.last_error.as_mut().unwrap().request_id = Some(id.to_owned());
        said
    };
    assert_eq!(say(&with_request("A"), &ends()[19], false, 500), None);
}

#[test]
fn foreign_condition_writes_no_status() {
    let mut said = say(
        &SecurityGroupMembershipStatus::default(),
        &ends()[0],
        false,
        0,
    )
    .unwrap();
    let mut foreign = said.conditions[0].clone();
    foreign.type_ = "Audited".to_owned();
    said.conditions.push(foreign);
    assert_eq!(say(&said, &ends()[0], false, 500), None);
}

#[test]
fn transient_failure_keeps_ready_of_this_generation() {
    let ready = say(
        &SecurityGroupMembershipStatus::default(),
        &ends()[0],
        false,
        0,
    )
    .unwrap();
    let error = refusal("InternalError", "");
    let end = (
        ReconcileOutcome::Failed(error.class()),
        AccessView::Usable,
        Some(error),
    );
    assert_eq!(say(&ready, &end, false, 60), None);
    let another_generation = SecurityGroupMembershipStatus {
        observed_generation: Some(0),
        ..ready
    };
    let said = say(&another_generation, &end, false, 60).unwrap();
    assert!(!is_true(&said.conditions, "Ready"));
}

#[test]
fn missing_edge_clears_ready() {
    let nothing = SecurityGroupMembershipStatus::default();
    let ready = say(&nothing, &ends()[0], false, 0).unwrap();
    let edge = edge();
    let after = |member, failure: Option<&Error>, held_for| {
        let class = failure.map_or(Class::Throttled, Error::class);
        let observed = Observed {
            target: TargetView::Present {
                member,
                transitional: false,
            },
            ..observed(AccessView::Usable)
        };
        let input = StatusInput {
            failure,
            held_for,
            ..input(&edge, &observed, ReconcileOutcome::Failed(class))
        };
        let said = status(&ready, Some(1), &input, at(60))?;
        let ready = find(&said.conditions, "Ready")?;
        Some((ready.status.clone(), ready.reason.clone()))
    };
    let queued = |reason: &str| Some(("False".to_owned(), reason.to_owned()));
    let broken = refusal("InternalError", "");
    let throttled = refusal("Throttling.User", "");
    assert_eq!(
        after(false, Some(&broken), Duration::ZERO),
        queued("Retrying")
    );
    assert_eq!(
        after(false, Some(&throttled), Duration::ZERO),
        queued("Throttled")
    );
    let minute = Duration::from_secs(60);
    assert_eq!(after(false, None, minute), queued("Throttled"));
    assert_eq!(after(false, None, Duration::from_secs(59)), None);
    assert_eq!(after(true, Some(&broken), Duration::ZERO), None);
    assert_eq!(after(true, None, minute), None);
}

#[test]
fn partly_unreadable_status_keeps_the_readable_parts() {
    let nothing = SecurityGroupMembershipStatus::default();
    let said = say(&nothing, &ends()[0], false, 0).unwrap();
    let mut stored = serde_json::to_value(&said).unwrap();
    assert_eq!(parse_lenient(&stored), said);
    stored["target"]["state"] = serde_json::json!(7);
    stored["conditions"]
        .as_array_mut()
        .unwrap()
        .push(serde_json::json!({"type": 7}));
    let read = parse_lenient(&stored);
    assert_eq!((&read.conditions, read.target), (&said.conditions, None));
    assert_eq!(read.observed_generation, Some(1));
    assert_eq!(parse_lenient(&serde_json::Value::Null), nothing);
}

#[test]
fn wait_of_30_minutes_is_stalled_until_it_ends() {
    let waiting = (ReconcileOutcome::Waiting, AccessView::Usable, None);
    let first = say(
        &SecurityGroupMembershipStatus::default(),
        &waiting,
        false,
        0,
    )
    .unwrap();
    assert!(is_true(&first.conditions, "Reconciling"));
    assert_eq!(say(&first, &waiting, false, 29 * 60), None);
    let stuck = say(&first, &waiting, false, 30 * 60).unwrap();
    assert!(is_true(&stuck.conditions, "Stalled"));
    assert_eq!(say(&stuck, &waiting, false, 31 * 60), None);
    let joined = say(&stuck, &ends()[0], false, 32 * 60).unwrap();
    assert!(is_true(&joined.conditions, "Ready"));
    assert_eq!(
        event_for(&stuck, &joined, ends()[0].0).unwrap().reason,
        "Recovered"
    );
}

#[test]
fn stuck_deletion_suggests_retain() {
    for end in ends() {
        let blocked = matches!(
            end.0,
            ReconcileOutcome::AccountUnusable
                | ReconcileOutcome::Failed(Class::Blocked | Class::Invalid | Class::Transient)
        );
        let said = say(&SecurityGroupMembershipStatus::default(), &end, true, 0).unwrap();
        let ready = find(&said.conditions, "Ready").unwrap();
        assert_eq!(
            ready.message.contains("set spec.deletionPolicy to Retain"),
            blocked
                || matches!(
                    end.0,
                    ReconcileOutcome::Failed(Class::Throttled | Class::Absent)
                ),
            "{end:?}: {}",
            ready.message
        );
    }
}

#[test]
fn account_failure_clears_ready_only_when_stalled() {
    let nothing = SecurityGroupMembershipStatus::default();
    let ready = say(&nothing, &ends()[0], false, 0).unwrap();
    let passing = (
        ReconcileOutcome::AccountUnusable,
        AccessView::NotReady { stalled: false },
        None,
    );
    assert_eq!(say(&ready, &passing, false, 60), None);
    let stalled = (
        ReconcileOutcome::AccountUnusable,
        AccessView::NotReady { stalled: true },
        None,
    );
    for end in [
        stalled,
        (ReconcileOutcome::AccountUnusable, AccessView::Missing, None),
    ] {
        let said = say(&ready, &end, false, 60).unwrap();
        assert!(!is_true(&said.conditions, "Ready"), "{end:?}");
    }
    let another_generation = SecurityGroupMembershipStatus {
        observed_generation: Some(0),
        ..ready
    };
    assert!(say(&another_generation, &passing, false, 60).is_some());
    let waiting = say(&nothing, &ends()[5], false, 0).unwrap();
    assert!(say(&waiting, &passing, false, 60).is_some());
}

#[test]
fn failed_deletion_always_clears_ready() {
    let ready = say(
        &SecurityGroupMembershipStatus::default(),
        &ends()[0],
        false,
        0,
    )
    .unwrap();
    for index in [13, 17, 18] {
        let said = say(&ready, &ends()[index], true, 60).unwrap();
        assert!(!is_true(&said.conditions, "Ready"), "{:?}", ends()[index]);
    }
}

#[test]
fn undecided_outcome_writes_no_status() {
    let ready = say(
        &SecurityGroupMembershipStatus::default(),
        &ends()[0],
        false,
        0,
    )
    .unwrap();
    for outcome in [
        ReconcileOutcome::Undecided,
        ReconcileOutcome::Gone,
        // Held back without a call of its own.
        ReconcileOutcome::Failed(Class::Throttled),
    ] {
        assert_eq!(
            say(&ready, &(outcome, AccessView::Usable, None), true, 60),
            None
        );
    }
}

#[test]
fn new_generation_is_always_reported() {
    let ready = say(
        &SecurityGroupMembershipStatus::default(),
        &ends()[0],
        false,
        0,
    )
    .unwrap();
    let earlier = SecurityGroupMembershipStatus {
        observed_generation: Some(0),
        ..ready
    };
    let said = say(&earlier, &ends()[0], false, 60).unwrap();
    assert_eq!(said.observed_generation, Some(1));
}

#[test]
fn target_is_shown_as_last_described_or_omitted() {
    let (edge, description) = (edge(), running());
    let show = |previous: &SecurityGroupMembershipStatus, target, description| {
        let observed = Observed {
            target,
            ..observed(AccessView::Usable)
        };
        let input = StatusInput {
            description,
            ..input(&edge, &observed, ReconcileOutcome::Absent)
        };
        status(previous, Some(1), &input, at(0)).unwrap()
    };
    let nothing = SecurityGroupMembershipStatus::default();
    let shown = show(&nothing, TargetView::Unread, Some(&description));
    let target = shown.target.clone().unwrap();
    assert_eq!(
        (target.state.as_str(), target.vpc_id.as_deref()),
        ("Running", Some("vpc-1"))
    );
    let changed = SecurityGroupMembershipStatus {
        conditions: Vec::new(),
        ..shown
    };
    let unread = show(&changed, TargetView::Unread, None);
    assert_eq!(unread.target, changed.target, "nothing new is known of it");
    let absent = show(&changed, TargetView::Absent, Some(&description));
    assert_eq!(absent.target, None);
}

#[test]
fn record_follows_the_claim() {
    let edge = edge();
    let nothing = SecurityGroupMembershipStatus::default();
    let status_of = |previous: &_, claim, outcome| {
        let observed = Observed {
            claim,
            ..observed(AccessView::Usable)
        };
        status(previous, Some(1), &input(&edge, &observed, outcome), at(0)).unwrap()
    };
    for (claim, origin) in [
        (ClaimView::Joined { void: false }, Some(Origin::Joined)),
        (ClaimView::Joined { void: true }, Some(Origin::Joined)),
        (ClaimView::Adopted, Some(Origin::Adopted)),
        (ClaimView::Intent { void: false }, None),
        (ClaimView::None, None),
    ] {
        let absent = status_of(&nothing, claim, ReconcileOutcome::Absent);
        assert_eq!(absent.origin, origin, "{claim:?}");
        assert_eq!(absent.object_uid.as_deref(), Some(own_uid().as_str()));
        // A claim that was removed goes from the status too.
        let drifted = status_of(&absent, ClaimView::None, ReconcileOutcome::DriftReported);
        assert_eq!(drifted.origin, None, "{claim:?}");
    }
    let found = ReconcileOutcome::Ready {
        origin: Some(Origin::Joined),
        shared: false,
        repaired: false,
    };
    let ready = status_of(&nothing, ClaimView::Intent { void: false }, found);
    assert_eq!(ready.origin, Some(Origin::Joined));
}

#[test]
fn account_of_another_objects_status_is_not_taken_over() {
    let edge = edge();
    let observed = observed(AccessView::Usable);
    let copied = SecurityGroupMembershipStatus {
        origin: Some(Origin::Joined),
        object_uid: Some("another".to_owned()),
        account_uid: Some("1".to_owned()),
        ..SecurityGroupMembershipStatus::default()
    };
    let input = input(&edge, &observed, ReconcileOutcome::Absent);
    let next = status(&copied, Some(1), &input, at(0)).unwrap();
    assert_eq!((next.origin, next.account_uid), (None, None));
}
