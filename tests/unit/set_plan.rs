//! Every plan of a set, with nothing sampled: two targets, two groups, every state of each membership, and all that can be known of
//! each target.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test")]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use security_group_operator::api::membership::DeletionPolicy;
use security_group_operator::ecs::{Region, SecurityGroupId, Target};
use security_group_operator::set::plan::{Plan, Wanted, Why, plan};
use security_group_operator::set::select::{PATIENCE, Selection, Standing, Tagged};
use security_group_operator::set::{Member, Policies, State, name_of};

const STANDINGS: [Standing; 6] = [
    Standing::Picked,
    Standing::NotSelected,
    Standing::New,
    Standing::Missing,
    Standing::Gone,
    Standing::Unknown,
];

/// A membership that a set does not control, an orphan too, is none of its memberships: absent.
fn states() -> Vec<Option<(State, bool)>> {
    let mut states = vec![None];
    for deleting in [false, true] {
        for state in [
            State::Pending,
            State::Ready,
            State::Stalled("InstanceLastSecurityGroup".into()),
            State::TargetNotFound,
        ] {
            // What is being deleted is no member any more.
            if !(deleting && state == State::Ready) {
                states.push(Some((state, deleting)));
            }
        }
    }
    states
}

fn target(number: usize) -> Target {
    Target::Instance(format!("i-{number}").parse().unwrap())
}

fn group(number: usize) -> SecurityGroupId {
    format!("sg-{number}").parse().unwrap()
}

fn member(of: usize, in_group: usize, state: State, deleting: bool) -> Arc<Member> {
    let region: Region = "cn-hangzhou".parse().unwrap();
    let (target, group) = (target(of), group(in_group));
    let name = name_of("set", &region, &target, &group);
    Arc::new(Member {
        uid: name.as_str().into(),
        name,
        version: 1,
        region,
        target,
        group,
        policies: Policies::default(),
        state,
        deleting,
        account_uid: None,
    })
}

/// The group of the spec.
const NEW: usize = 1;

struct Case {
    members: Vec<Arc<Member>>,
    standings: [Standing; 2],
    picked: BTreeSet<Target>,
}

impl Case {
    fn standing(&self, of: &Target) -> Standing {
        self.standings[usize::from(*of == target(1))]
    }

    fn plan_with(&self, policies: Policies) -> Plan {
        let wanted = Wanted {
            group: &group(NEW),
            policies,
            picked: &self.picked,
        };
        plan(wanted, &self.members, |of| self.standing(of))
    }

    fn plan(&self) -> Plan {
        self.plan_with(Policies::default())
    }

    fn of(&self, at: &Target) -> impl Iterator<Item = &Arc<Member>> {
        let at = at.clone();
        self.members
            .iter()
            .filter(move |member| member.target == at)
    }
}

fn every_case(mut check: impl FnMut(Case)) -> usize {
    let states = states();
    let mut cases = 0;
    for one in STANDINGS {
        for other in STANDINGS {
            let standings = [one, other];
            let picked = (0..2).filter(|at| standings[*at] == Standing::Picked);
            let picked: BTreeSet<Target> = picked.map(target).collect();
            for number in 0..states.len().pow(4) {
                let mut members = Vec::new();
                for place in 0..4 {
                    let exponent = u32::try_from(place).unwrap();
                    let state = &states[number / states.len().pow(exponent) % states.len()];
                    if let Some((state, deleting)) = state {
                        members.push(member(place / 2, place % 2, state.clone(), *deleting));
                    }
                }
                check(Case {
                    members,
                    standings,
                    picked: picked.clone(),
                });
                cases += 1;
            }
        }
    }
    println!("{cases} cases");
    cases
}

fn is_ready(member: &Member) -> bool {
    member.state == State::Ready && !member.deleting
}

/// J1: nothing is deleted without evidence; and what there is evidence for is.
#[test]
fn a_membership_goes_only_on_evidence() {
    let cases = every_case(|case| {
        let plan = case.plan();
        for member in &case.members {
            let planned: Vec<_> = plan
                .delete
                .iter()
                .filter(|deletion| deletion.member.uid == member.uid)
                .map(|deletion| deletion.why)
                .collect();
            let is_current = member.group == group(NEW);
            let is_replaced = !is_current
                && case
                    .of(&member.target)
                    .any(|other| other.group == group(NEW) && is_ready(other));
            let evidence = match case.standing(&member.target) {
                Standing::Picked if is_replaced => Some(Why::Replaced),
                Standing::Picked | Standing::New | Standing::Missing | Standing::Unknown => None,
                Standing::NotSelected => Some(Why::NotSelected),
                Standing::Gone => Some(Why::Gone),
            };
            let keeps_all = plan.nothing_selected || member.deleting;
            let expected: Vec<_> = evidence.filter(|_| !keeps_all).into_iter().collect();
            assert_eq!(planned, expected, "{member:?} of {:?}", case.members);
        }
        for deletion in &plan.delete {
            let by = deletion.replaced_by.as_ref();
            assert_eq!(by.is_some(), deletion.why == Why::Replaced);
            let by = by.map(|by| case.members.iter().find(|other| other.uid == *by).unwrap());
            let replaces = |by: &Arc<Member>| {
                by.target == deletion.member.target && by.group == group(NEW) && is_ready(by)
            };
            assert!(by.is_none_or(replaces), "{deletion:?}");
        }
    });
    assert_eq!(cases, 36 * 8_usize.pow(4));
}

/// What the cloud can show of a target of a set that selects by tags.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    Tags,
    OtherTags,
    Absent(Duration),
    Nothing,
}

/// J1 for tags: a membership of a target goes if a description by ID shows other tags or, for five minutes, nothing, and never
/// because a list does not have it.
#[test]
fn a_list_of_tags_is_no_evidence_against_what_it_leaves_out() {
    let brief = PATIENCE.saturating_sub(Duration::from_secs(1));
    let shown = [
        Shown::Tags,
        Shown::OtherTags,
        Shown::Absent(brief),
        Shown::Absent(PATIENCE),
        Shown::Nothing,
    ];
    let mut cases = 0;
    for (one, other) in shown
        .iter()
        .flat_map(|one| shown.iter().map(|other| (*one, *other)))
    {
        let those = |wanted: fn(Shown) -> bool| {
            let targets = [(0, one), (1, other)].into_iter();
            let targets = targets.filter(move |(_, shown)| wanted(*shown));
            targets.map(|(number, _)| target(number))
        };
        let tagged = Tagged {
            picked: those(|shown| shown == Shown::Tags).collect(),
            other: those(|shown| shown == Shown::OtherTags).collect(),
            absent: those(|shown| matches!(shown, Shown::Absent(_))).collect(),
            absent_twice: those(|shown| matches!(shown, Shown::Absent(_))).collect(),
            trouble: None,
        };
        let selection = Selection::of_tags(tagged.clone().into());
        let shown_of = |of: &Target| if *of == target(0) { one } else { other };
        let standing = |of: &Target| {
            let missing_for = || match shown_of(of) {
                Shown::Absent(missing_for) => missing_for,
                Shown::Tags | Shown::OtherTags | Shown::Nothing => unreachable!("it is shown"),
            };
            selection.standing(of, 0, missing_for)
        };
        for first in states() {
            for second in states() {
                let members =
                    [first.clone(), second]
                        .into_iter()
                        .zip(0..)
                        .filter_map(|(state, of)| {
                            let (state, deleting) = state?;
                            Some(member(of, NEW, state, deleting))
                        });
                let members: Vec<_> = members.collect();
                let wanted = Wanted {
                    group: &group(NEW),
                    policies: Policies::default(),
                    picked: &selection.picked,
                };
                let plan = plan(wanted, &members, standing);
                for deletion in &plan.delete {
                    let evidence = match shown_of(&deletion.member.target) {
                        Shown::OtherTags => Some(Why::NotSelected),
                        Shown::Absent(PATIENCE) => Some(Why::Gone),
                        Shown::Tags | Shown::Absent(_) | Shown::Nothing => None,
                    };
                    assert_eq!(evidence, Some(deletion.why), "{deletion:?}");
                }
                let is_there = |member: &&Arc<Member>| match shown_of(&member.target) {
                    Shown::Tags | Shown::OtherTags | Shown::Nothing => true,
                    Shown::Absent(_) => member.state != State::TargetNotFound,
                };
                let alive = members.iter().filter(|member| !member.deleting);
                let nothing =
                    tagged.picked.is_empty() && alive.clone().any(|member| is_there(&member));
                assert_eq!(plan.nothing_selected, nothing);
                let going = alive.filter(|member| {
                    matches!(
                        shown_of(&member.target),
                        Shown::OtherTags | Shown::Absent(PATIENCE)
                    )
                });
                let expected = if nothing { 0 } else { going.count() };
                assert_eq!(plan.delete.len(), expected);
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 25 * 8 * 8);
}

/// The selector picks nothing: as long as any target may still be there, nothing goes.
#[test]
fn a_selector_that_picks_nothing_removes_nothing() {
    every_case(|case| {
        let plan = case.plan();
        let exists = |member: &&Arc<Member>| match case.standing(&member.target) {
            Standing::Missing | Standing::Gone => member.state != State::TargetNotFound,
            Standing::Picked | Standing::NotSelected | Standing::New | Standing::Unknown => true,
        };
        let mut alive = case.members.iter().filter(|member| !member.deleting);
        let expected = case.picked.is_empty() && alive.any(|member| exists(&member));
        assert_eq!(plan.nothing_selected, expected);
        assert!(!plan.nothing_selected || plan.delete.is_empty() && plan.create.is_empty());
    });
}

/// J2: a picked target that is a member of some group stays a member of one.
#[test]
fn a_picked_target_is_never_left_without_a_group() {
    every_case(|case| {
        let plan = case.plan();
        for target in &case.picked {
            let stays = |member: &&Arc<Member>| {
                let deleted = plan.delete.iter().any(|gone| gone.member.uid == member.uid);
                is_ready(member) && !deleted
            };
            let was_ready = case.of(target).any(|member| is_ready(member));
            assert_eq!(case.of(target).any(|member| stays(&member)), was_ready);
        }
    });
}

/// J3: one membership an edge, also where the old one is still going.
#[test]
fn an_edge_has_one_membership() {
    every_case(|case| {
        let plan = case.plan();
        let created: BTreeSet<_> = plan.create.iter().collect();
        assert_eq!(created.len(), plan.create.len());
        let has = |target: &Target| {
            let mut members = case.of(target);
            members.any(|member| member.group == group(NEW))
        };
        let expected: BTreeSet<_> = case.picked.iter().filter(|target| !has(target)).collect();
        assert_eq!(created, expected);
    });
}

/// Policies of the set are put back on every membership that stays.
#[test]
fn policies_are_put_back() {
    let policies = Policies {
        deletion: DeletionPolicy::Retain,
        ..Policies::default()
    };
    every_case(|case| {
        assert_eq!(case.plan().change, []);
        let changed = case.plan_with(policies).change.len();
        let alive = case.members.iter().filter(|member| !member.deleting);
        assert_eq!(changed, alive.count());
    });
}

/// J6, and the end of it: whoever carries plans out comes to rest, with one membership for each picked target.
#[test]
fn plans_come_to_rest() {
    every_case(|mut case| {
        let mut rounds = 0;
        loop {
            let plan = case.plan();
            for member in &mut case.members {
                let mut next = Member::clone(member);
                if plan.delete.iter().any(|gone| gone.member.uid == member.uid) {
                    next.deleting = true;
                } else if !next.deleting && next.state == State::Pending {
                    next.state = State::Ready;
                }
                *member = Arc::new(next);
            }
            case.members
                .retain(|member| !member.deleting || member.state != State::Pending);
            for target in &plan.create {
                let at = usize::from(*target == self::target(1));
                case.members.push(member(at, NEW, State::Pending, false));
            }
            // A deletion ends, whatever kept it.
            for member in &mut case.members {
                if member.deleting {
                    let state = State::Pending;
                    *member = Arc::new(Member {
                        state,
                        ..Member::clone(member)
                    });
                }
            }
            let is_at_rest = case.members.iter().all(|member| !member.deleting)
                && case.plan() == plan
                && plan.create.is_empty()
                && plan.delete.is_empty();
            if is_at_rest {
                break;
            }
            rounds += 1;
            assert!(rounds < 8, "{:?}", case.members);
        }
        let plan = case.plan();
        for target in &case.picked {
            let current = case.of(target).filter(|member| member.group == group(NEW));
            assert_eq!(current.count(), 1);
        }
        let reached = plan.ready + plan.not_found + plan.stalled_targets;
        assert_eq!(reached, case.picked.len());
    });
}

#[test]
fn names_are_the_same_for_the_same_edge_and_fit() {
    let region: Region = "cn-hangzhou".parse().unwrap();
    let long = Target::Instance(format!("i-{}", "A".repeat(62)).parse().unwrap());
    let name = name_of(&"s".repeat(63), &region, &long, &group(1));
    assert_eq!(name.len(), 137);
    assert_eq!(name, name.to_lowercase());
    assert_eq!(name, name_of(&"s".repeat(63), &region, &long, &group(1)));
    assert_ne!(
        name_of("s", &region, &target(1), &group(1)),
        name_of("s", &region, &target(1), &group(2))
    );
}
