//! The condition of a Node, from the memberships of all sets that select it.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test")]

use security_group_operator::api::{NODE_CONDITION, reason};
use security_group_operator::condition::{NewCondition, Status};
use security_group_operator::ecs::Target;
use security_group_operator::set::node_condition::{Part, Wanted, wanted};
use security_group_operator::set::{Member, NodeSet, Passed, Policies, Refusal, State, name_of};

fn target() -> Target {
    Target::Instance("i-a".parse().unwrap())
}

fn set(name: &str) -> NodeSet {
    NodeSet {
        namespace: "team".to_owned(),
        name: name.to_owned(),
        uid: name.into(),
        region: "cn-hangzhou".parse().unwrap(),
        group: format!("sg-{name}").parse().unwrap(),
        selector: serde_json::from_str("{}").unwrap(),
        suspended: false,
    }
}

fn member(of: &NodeSet, state: State) -> Member {
    Member {
        name: name_of(&of.name, &of.region, &target(), &of.group),
        uid: "uid".into(),
        version: 1,
        region: of.region.clone(),
        target: target(),
        group: of.group.clone(),
        policies: Policies::default(),
        state,
        deleting: false,
        account_uid: None,
    }
}

/// What one set makes of the Node.
fn of_one(set: &NodeSet, member: Option<&Member>, passed: Option<&Passed>) -> Wanted {
    wanted(&[Part {
        set,
        target: &target(),
        member,
        passed,
    }])
}

fn present(wanted: Wanted) -> NewCondition {
    match wanted {
        Wanted::Present(condition) => condition,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_node_that_no_set_selects_has_no_condition() {
    assert_eq!(wanted(&[]), Wanted::Absent);
}

#[test]
fn a_ready_membership_is_true() {
    let set = set("web");
    let member = member(&set, State::Ready);
    let condition = present(of_one(&set, Some(&member), None));
    assert_eq!(
        condition,
        NewCondition {
            type_: NODE_CONDITION,
            status: Status::True,
            reason: reason::JOINED.to_owned(),
            message: "member of sg-web by the set team/web".to_owned(),
        }
    );
}

#[test]
fn any_other_membership_is_false_with_its_reason() {
    let set = set("web");
    let name = member(&set, State::Pending).name;
    let describe = format!("kubectl describe sgm {name} -n team shows cause and fix");
    for (state, deleting, reason, start) in [
        (
            State::Pending,
            false,
            reason::PROGRESSING,
            "i-a is not yet a member of sg-web by the set team/web",
        ),
        (
            State::Ready,
            true,
            reason::PROGRESSING,
            "i-a is not yet a member of sg-web by the set team/web",
        ),
        (
            State::Stalled("KarpenterNode".into()),
            false,
            "KarpenterNode",
            "i-a is no member of sg-web by the set team/web",
        ),
        (
            State::TargetNotFound,
            false,
            reason::TARGET_NOT_FOUND,
            "the cloud does not list i-a, which is to join sg-web by the set team/web",
        ),
    ] {
        let member = Member {
            deleting,
            ..member(&set, state)
        };
        let condition = present(of_one(&set, Some(&member), None));
        assert_eq!(condition.status, Status::False, "{start}");
        assert_eq!(condition.reason, reason);
        assert_eq!(condition.message, format!("{start} ({reason}): {describe}"));
    }
}

#[test]
fn a_node_without_a_membership_is_false_with_what_keeps_the_set_from_making_it() {
    let active = set("web");
    assert_eq!(of_one(&active, None, None), Wanted::Unknown);
    let made = |set: &NodeSet, refusal: Option<Refusal>| {
        let condition = present(of_one(set, None, Some(&Passed { refusal })));
        assert_eq!(condition.status, Status::False, "{}", condition.message);
        (condition.reason, condition.message)
    };
    let (reason, message) = made(&active, None);
    assert_eq!(reason, reason::PROGRESSING);
    // The creation of the membership costs no write.
    let pending = member(&active, State::Pending);
    let created = present(of_one(&active, Some(&pending), None));
    assert_eq!(created.message, message);
    let taken = Refusal::NameTaken {
        name: "a".to_owned(),
    };
    let (reason, message) = made(&active, Some(taken.clone()));
    assert_eq!(reason, reason::NAME_TAKEN);
    let describe = "kubectl describe sgmset web -n team";
    assert!(message.contains(describe), "{message}");
    let suspended = NodeSet {
        suspended: true,
        ..active
    };
    let (reason, message) = made(&suspended, Some(taken));
    assert_eq!(reason, reason::SUSPENDED);
    assert!(message.contains("spec.suspend"), "{message}");
}

#[test]
fn every_set_counts_and_three_are_named() {
    let sets: Vec<NodeSet> = ["a", "b", "c", "d", "e"].map(set).into();
    let condition = |troubled: &[&str]| {
        let members: Vec<Member> = sets
            .iter()
            .map(|set| {
                if troubled.contains(&set.name.as_str()) {
                    member(set, State::Stalled(format!("Reason{}", set.name).into()))
                } else {
                    member(set, State::Ready)
                }
            })
            .collect();
        let target = target();
        let parts = sets.iter().zip(&members).map(|(set, member)| Part {
            set,
            target: &target,
            member: Some(member),
            passed: None,
        });
        present(wanted(&parts.collect::<Vec<_>>()))
    };
    let all = condition(&[]);
    assert_eq!(all.status, Status::True);
    let named = "member of sg-a by the set team/a; sg-b by the set team/b; sg-c by the set team/c; and 2 more";
    assert_eq!(all.message, named);
    let one = condition(&["d"]);
    assert_eq!((one.status, &*one.reason), (Status::False, "Reasond"));
    assert!(one.message.contains("team/d") && !one.message.contains("team/a"));
    let four = condition(&["a", "c", "d", "e"]);
    assert_eq!((four.status, &*four.reason), (Status::False, "Reasona"));
    assert!(four.message.ends_with("; and 1 more"), "{}", four.message);
}

/// One set that is not known yet must not make the others' answer count.
#[test]
fn a_set_without_a_pass_keeps_the_condition_as_it_is() {
    let (joined, new) = (set("a"), set("b"));
    let member = member(&joined, State::Ready);
    let target = target();
    let part = |set, member| Part {
        set,
        target: &target,
        member,
        passed: None,
    };
    let parts = [part(&joined, Some(&member)), part(&new, None)];
    assert_eq!(wanted(&parts), Wanted::Unknown);
}
