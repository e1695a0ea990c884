//! Every decision, with nothing sampled: the whole product of what `decide` can be asked is enumerated and held against the
//! promises. The number of cases is printed.

use security_group_operator::api::membership::{
    AdoptionPolicy, DeletionPolicy, DriftPolicy, ManagementPolicy, Origin,
};
use security_group_operator::ecs::Class;
use security_group_operator::membership::decide::{
    Account, Attempt, Claim, REPAIR_LIMIT, Release, Seen, Sharing, Step, Target, Verdict, Wanted,
    decide,
};

const CLASSES: [Class; 7] = [
    Class::Done,
    Class::Transitional,
    Class::Transient,
    Class::Throttled,
    Class::Absent,
    Class::Blocked,
    Class::Invalid,
];
const BOOLS: [bool; 2] = [false, true];
const PAIRS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];
const ACCOUNTS: [Account; 7] = [
    Account::Examining,
    Account::Missing,
    Account::Unready { stalled: true },
    Account::Unready { stalled: false },
    Account::Changed,
    Account::NotGranted,
    Account::Usable,
];
const SHARINGS: [Sharing; 4] = [
    Sharing {
        others: false,
        joined_elsewhere: false,
        claimed_elsewhere: false,
    },
    Sharing {
        others: true,
        joined_elsewhere: false,
        claimed_elsewhere: false,
    },
    Sharing {
        others: true,
        joined_elsewhere: false,
        claimed_elsewhere: true,
    },
    Sharing {
        others: true,
        joined_elsewhere: true,
        claimed_elsewhere: true,
    },
];

fn wants() -> Vec<Wanted> {
    let mut wants = Vec::new();
    for deleting in BOOLS {
        for paused in BOOLS {
            for management in [ManagementPolicy::Manage, ManagementPolicy::Observe] {
                for adoption in [AdoptionPolicy::Adopt, AdoptionPolicy::Refuse] {
                    for deletion in [
                        DeletionPolicy::LeaveIfJoined,
                        DeletionPolicy::Leave,
                        DeletionPolicy::Retain,
                    ] {
                        for drift in [DriftPolicy::Repair, DriftPolicy::Report] {
                            wants.push(Wanted {
                                deleting,
                                paused,
                                management,
                                adoption,
                                deletion,
                                drift,
                            });
                        }
                    }
                }
            }
        }
    }
    wants
}

fn claims() -> Vec<Option<Claim>> {
    let mut claims = vec![None];
    for origin in [Origin::Joined, Origin::Adopted] {
        claims.extend(BOOLS.map(|untested| Some(Claim { origin, untested })));
    }
    claims
}

fn read_targets() -> Vec<Target> {
    let mut targets = vec![Target::Absent];
    targets.extend(CLASSES.map(Target::Unreadable));
    for member in BOOLS {
        targets.extend(BOOLS.map(|transitional| Target::Present {
            member,
            transitional,
        }));
    }
    targets
}

fn failures() -> Vec<Attempt> {
    CLASSES
        .into_iter()
        .flat_map(|class| BOOLS.map(|forbidden| Attempt::Failed { class, forbidden }))
        .collect()
}

fn attempts() -> Vec<Attempt> {
    let mut attempts = vec![
        Attempt::None,
        Attempt::Joined,
        Attempt::AlreadyMember,
        Attempt::Left,
        Attempt::HandedOver,
        Attempt::Released,
    ];
    attempts.extend(failures());
    attempts
}

/// Calls `check` with every case and returns how many there were.
fn every_case(mut check: impl FnMut(&Wanted, &Seen, Step)) -> u64 {
    let mut targets = read_targets();
    targets.push(Target::Unread);
    let (wants, claims, attempts) = (wants(), claims(), attempts());
    let mut cases = 0;
    for wanted in &wants {
        for account in ACCOUNTS {
            for &claim in &claims {
                for &target in &targets {
                    for sharing in SHARINGS {
                        for &attempt in &attempts {
                            for (was_ready, settled) in PAIRS {
                                for repairs in [0, REPAIR_LIMIT] {
                                    for synced in BOOLS {
                                        let seen = Seen {
                                            account,
                                            claim,
                                            target,
                                            sharing,
                                            attempt,
                                            was_ready,
                                            settled,
                                            repairs,
                                            synced,
                                        };
                                        check(wanted, &seen, decide(wanted, &seen));
                                        cases += 1;
                                    }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{cases} cases");
    cases
}

#[test]
fn in_no_case_is_a_promise_broken() {
    let cases = every_case(|wanted, seen, step| {
        let held = match step {
            Step::Leave => may_leave(wanted, seen),
            Step::Join => may_join(wanted, seen),
            Step::Claim(origin) => may_claim(wanted, seen, origin),
            Step::HandOver => may_hand_over(wanted, seen),
            Step::Release(why) => may_release(wanted, seen, why),
            Step::Read => {
                seen.target == Target::Unread && seen.account == Account::Usable && !wanted.paused
            }
            Step::Rest(verdict) => may_rest(wanted, seen, verdict),
        };
        assert!(held, "{step:?}\nwanted {wanted:?}\nseen {seen:?}");
    });
    assert_eq!(cases, 55_910_400);
}

/// I1 and I2: only for a deleted object that owns the edge, or was told to, and that no other live object names.
fn may_leave(wanted: &Wanted, seen: &Seen) -> bool {
    let owns = seen.claim.is_some_and(|claim| match claim.origin {
        // Nothing was ever made under it.
        Origin::Joined if claim.untested => false,
        Origin::Joined => wanted.deletion != DeletionPolicy::Retain,
        Origin::Adopted => wanted.deletion == DeletionPolicy::Leave,
    });
    wanted.deleting
        && !wanted.paused
        && wanted.management == ManagementPolicy::Manage
        && owns
        && seen.account == Account::Usable
        && !seen.sharing.others
        && seen.synced
        && !matches!(
            seen.target,
            Target::Present {
                transitional: true,
                ..
            } | Target::Unread
                | Target::Unreadable(_)
        )
}

/// Claim before the call, no call while the target is between states, no repair where none is wanted.
fn may_join(wanted: &Wanted, seen: &Seen) -> bool {
    let drifted = seen.was_ready;
    !wanted.deleting
        && !wanted.paused
        && wanted.management == ManagementPolicy::Manage
        && seen.account == Account::Usable
        && seen.claim.is_some()
        && seen.target
            == (Target::Present {
                member: false,
                transitional: false,
            })
        && !(drifted && (wanted.drift == DriftPolicy::Report || seen.repairs >= REPAIR_LIMIT))
}

fn may_claim(wanted: &Wanted, seen: &Seen, origin: Origin) -> bool {
    let usable = !wanted.deleting
        && !wanted.paused
        // A Join was made, so the pass manages; what the claim said before it is corrected in any case.
        && (wanted.management == ManagementPolicy::Manage || seen.attempt == Attempt::AlreadyMember)
        && seen.account == Account::Usable;
    let foreign_edge = seen.target
        == (Target::Present {
            member: true,
            transitional: false,
        })
        || seen.target
            == (Target::Present {
                member: true,
                transitional: true,
            })
        || seen.attempt == Attempt::AlreadyMember;
    usable
        && match origin {
            Origin::Joined => {
                seen.claim.is_none()
                    && seen.target
                        == (Target::Present {
                            member: false,
                            transitional: false,
                        })
            }
            Origin::Adopted => {
                foreign_edge
                    && (wanted.adoption == AdoptionPolicy::Adopt || seen.sharing.claimed_elsewhere)
            }
        }
}

fn may_hand_over(wanted: &Wanted, seen: &Seen) -> bool {
    wanted.deleting
        && !wanted.paused
        && seen
            .claim
            .is_some_and(|claim| claim.origin == Origin::Joined)
        && seen.sharing.others
        && !seen.sharing.joined_elsewhere
}

/// I3: a finalizer goes only after a confirmed Leave, a gone edge, a policy that keeps the edge, or to another holder.
fn may_release(wanted: &Wanted, seen: &Seen, why: Release) -> bool {
    match why {
        Release::Left => {
            wanted.deleting
                && (seen.attempt == Attempt::Left
                    || (matches!(
                        seen.attempt,
                        Attempt::Failed {
                            forbidden: true,
                            ..
                        }
                    ) && matches!(
                        seen.target,
                        Target::Absent | Target::Present { member: false, .. }
                    ) && seen.settled))
        }
        Release::Retained => {
            let joined = seen
                .claim
                .is_some_and(|claim| claim.origin == Origin::Joined);
            wanted.deleting
                && (wanted.deletion == DeletionPolicy::Retain
                    || wanted.management == ManagementPolicy::Observe
                    || (wanted.deletion == DeletionPolicy::LeaveIfJoined && !joined))
        }
        Release::NeverJoined => wanted.deleting && !wanted.paused && is_untested(seen.claim),
        Release::Shared => {
            let joined = seen
                .claim
                .is_some_and(|claim| claim.origin == Origin::Joined);
            wanted.deleting
                && seen.sharing.others
                && (!joined || seen.sharing.joined_elsewhere || seen.attempt == Attempt::HandedOver)
        }
        Release::Refused => {
            !wanted.deleting
                && wanted.adoption == AdoptionPolicy::Refuse
                && is_untested(seen.claim)
                && (seen.attempt == Attempt::AlreadyMember
                    || matches!(seen.target, Target::Present { member: true, .. }))
        }
    }
}

/// Whether the object says that it joined, and every Join since it says so was refused.
fn is_untested(claim: Option<Claim>) -> bool {
    claim.is_some_and(|claim| claim.untested && claim.origin == Origin::Joined)
}

/// I4, and: whoever rests waits to be enqueued, is Ready, or has a reason.
fn may_rest(wanted: &Wanted, seen: &Seen, verdict: Verdict) -> bool {
    match verdict {
        Verdict::Ready {
            origin,
            shared,
            repaired,
        } => {
            !wanted.deleting
                && seen.account == Account::Usable
                && (matches!(seen.target, Target::Present { member: true, .. })
                    || matches!(seen.attempt, Attempt::Joined | Attempt::AlreadyMember))
                && origin == holder(wanted, seen.claim)
                // Only what was taken over, and has another owner.
                && shared == (origin == Some(Origin::Adopted) && seen.sharing.joined_elsewhere)
                // Only what had been there and was put back by this very pass.
                && repaired == (seen.was_ready && seen.attempt == Attempt::Joined)
        }
        Verdict::Undecided => {
            seen.account == Account::Examining
                || !seen.synced
                || (!wanted.deleting && seen.attempt == Attempt::Left)
        }
        Verdict::Gone => {
            wanted.deleting && (seen.claim.is_none() || seen.attempt == Attempt::Released)
        }
        Verdict::Paused => wanted.paused,
        Verdict::Waiting => matches!(
            seen.target,
            Target::Present {
                transitional: true,
                ..
            }
        ),
        Verdict::WouldJoin => wanted.management == ManagementPolicy::Observe,
        Verdict::AdoptionRefused => {
            wanted.adoption == AdoptionPolicy::Refuse || seen.attempt == Attempt::Released
        }
        Verdict::DriftReported => wanted.drift == DriftPolicy::Report && seen.was_ready,
        Verdict::RepairLoop => seen.was_ready && seen.repairs >= REPAIR_LIMIT,
        Verdict::Absent => seen.target == Target::Absent,
        Verdict::AccountUnusable => !matches!(seen.account, Account::Usable | Account::Examining),
        Verdict::Failed(class) => {
            seen.target == Target::Unreadable(class)
                || matches!(seen.attempt, Attempt::Failed { class: failed, .. } if failed == class)
                || (class == Class::Transient
                    && !seen.settled
                    && matches!(
                        seen.attempt,
                        Attempt::Failed {
                            forbidden: true,
                            ..
                        }
                    ))
        }
    }
}

/// Who made the edge, in the words of the status: an object that only observes has made none.
fn holder(wanted: &Wanted, claim: Option<Claim>) -> Option<Origin> {
    claim
        .filter(|_| wanted.management == ManagementPolicy::Manage)
        .map(|claim| claim.origin)
}

/// Every way the world can answer a step.
fn answers(step: Step, seen: &Seen) -> Vec<Seen> {
    let with = |change: &dyn Fn(&mut Seen)| {
        let mut next = seen.clone();
        change(&mut next);
        next
    };
    match step {
        Step::Rest(_) => Vec::new(),
        Step::Read => read_targets()
            .into_iter()
            .map(|target| with(&|next| next.target = target))
            .collect(),
        Step::Claim(origin) => vec![with(&|next| {
            next.claim = Some(Claim {
                origin,
                untested: true,
            });
        })],
        Step::Join => [Attempt::Joined, Attempt::AlreadyMember]
            .into_iter()
            .chain(failures())
            .map(|attempt| with(&|next| next.attempt = attempt))
            .collect(),
        Step::Leave => std::iter::once(Attempt::Left)
            .chain(failures())
            .map(|attempt| {
                with(&|next| {
                    next.attempt = attempt;
                    if matches!(
                        attempt,
                        Attempt::Failed {
                            forbidden: true,
                            ..
                        }
                    ) {
                        next.target = Target::Unread;
                    }
                })
            })
            .collect(),
        Step::HandOver => vec![
            with(&|next| next.attempt = Attempt::HandedOver),
            with(&|next| next.sharing = Sharing::default()),
        ],
        Step::Release(_) => vec![with(&|next| {
            next.attempt = Attempt::Released;
            next.claim = None;
        })],
    }
}

#[test]
fn every_pass_comes_to_rest_in_ten_steps_whatever_the_world_answers() {
    fn longest(wanted: &Wanted, seen: &Seen, depth: usize) -> usize {
        assert!(depth <= 10, "{wanted:?} {seen:?}");
        answers(decide(wanted, seen), seen)
            .iter()
            .map(|next| 1 + longest(wanted, next, depth + 1))
            .max()
            .unwrap_or(0)
    }
    let mut starts = 0;
    let mut most = 0;
    for wanted in wants() {
        for account in ACCOUNTS {
            for claim in claims() {
                for sharing in SHARINGS {
                    for (was_ready, settled) in PAIRS {
                        for repairs in [0, REPAIR_LIMIT] {
                            for synced in BOOLS {
                                let seen = Seen {
                                    account,
                                    claim,
                                    target: Target::Unread,
                                    sharing,
                                    attempt: Attempt::None,
                                    was_ready,
                                    settled,
                                    repairs,
                                    synced,
                                };
                                most = most.max(longest(&wanted, &seen, 0));
                                starts += 1;
                            }
                        }
                    }
                }
            }
        }
    }
    println!("{starts} starts, at most {most} steps");
    assert_eq!(starts, 215_040);
}

/// Where a pass ends: its verdict, and whether the cloud then has the edge.
type End = (Verdict, bool);

#[test]
fn where_nothing_fails_every_object_gets_what_it_asks_for() {
    let mut ends = 0;
    for wanted in wants() {
        for claim in claims() {
            for sharing in SHARINGS {
                for (was_ready, member) in PAIRS {
                    for repairs in [0, REPAIR_LIMIT - 1, REPAIR_LIMIT, REPAIR_LIMIT + 1] {
                        let seen = Seen {
                            account: Account::Usable,
                            claim,
                            target: Target::Unread,
                            sharing,
                            attempt: Attempt::None,
                            was_ready,
                            settled: false,
                            repairs,
                            synced: true,
                        };
                        let asked = if wanted.deleting {
                            asked_of_a_deletion(&wanted, &seen, member)
                        } else {
                            asked_of_a_life(&wanted, &seen, member)
                        };
                        assert_eq!(
                            end(&wanted, seen.clone(), member),
                            asked,
                            "member {member}\nwanted {wanted:?}\nseen {seen:?}"
                        );
                        ends += 1;
                    }
                }
            }
        }
    }
    assert_eq!(ends, 30_720);
}

/// Walks a pass to its end in a world that does all that it is asked for.
fn end(wanted: &Wanted, mut seen: Seen, mut member: bool) -> End {
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps <= 10, "no end: {wanted:?} {seen:?}");
        match decide(wanted, &seen) {
            Step::Rest(verdict) => return (verdict, member),
            Step::Read => {
                seen.target = Target::Present {
                    member,
                    transitional: false,
                }
            }
            Step::Claim(origin) => {
                seen.claim = Some(Claim {
                    origin,
                    untested: true,
                });
            }
            Step::Join => {
                assert!(!member, "a Join of what is there: {seen:?}");
                member = true;
                seen.attempt = Attempt::Joined;
            }
            Step::Leave => {
                member = false;
                seen.attempt = Attempt::Left;
            }
            Step::HandOver => seen.attempt = Attempt::HandedOver,
            Step::Release(_) => {
                seen.attempt = Attempt::Released;
                seen.claim = None;
            }
        }
    }
}

fn asked_of_a_life(wanted: &Wanted, seen: &Seen, member: bool) -> End {
    let ready = |origin, repaired| Verdict::Ready {
        origin,
        shared: origin == Some(Origin::Adopted) && seen.sharing.joined_elsewhere,
        repaired,
    };
    let observed = wanted.management == ManagementPolicy::Observe;
    let refused = wanted.adoption == AdoptionPolicy::Refuse && !seen.sharing.claimed_elsewhere;
    match holder(wanted, seen.claim) {
        _ if wanted.paused => (Verdict::Paused, member),
        _ if observed && member => (ready(None, false), true),
        _ if observed => (Verdict::WouldJoin, false),
        // Nobody joined under a claim under which nothing was made: somebody else did.
        claimed if member && (claimed.is_none() || is_untested(seen.claim)) => {
            if refused {
                (Verdict::AdoptionRefused, true)
            } else {
                (ready(Some(Origin::Adopted), false), true)
            }
        }
        claimed if member => (ready(claimed, false), true),
        _ if seen.was_ready && wanted.drift == DriftPolicy::Report => {
            (Verdict::DriftReported, false)
        }
        _ if seen.was_ready && seen.repairs >= REPAIR_LIMIT => (Verdict::RepairLoop, false),
        claimed => (
            ready(claimed.or(Some(Origin::Joined)), seen.was_ready),
            true,
        ),
    }
}

fn asked_of_a_deletion(wanted: &Wanted, seen: &Seen, member: bool) -> End {
    let leaves = match (wanted.deletion, holder(wanted, seen.claim)) {
        (DeletionPolicy::Leave, Some(_))
        | (DeletionPolicy::LeaveIfJoined, Some(Origin::Joined)) => !seen.sharing.others,
        (DeletionPolicy::Leave | DeletionPolicy::LeaveIfJoined | DeletionPolicy::Retain, _) => {
            false
        }
    };
    match seen.claim {
        // Nothing of it is held back by anything, not even by a pause.
        None => (Verdict::Gone, member),
        Some(_) if wanted.paused => (Verdict::Paused, member),
        claim if is_untested(claim) => (Verdict::Gone, member),
        Some(_) => (Verdict::Gone, member && !leaves),
    }
}

#[test]
fn retain_lets_go_whatever_the_account_and_the_cloud_say() {
    every_case(|wanted, seen, step| {
        let lets_go =
            wanted.deleting && !wanted.paused && wanted.deletion == DeletionPolicy::Retain;
        if lets_go && seen.claim.is_some() && seen.attempt == Attempt::None && !seen.sharing.others
        {
            let why = if is_untested(seen.claim) {
                Release::NeverJoined
            } else {
                Release::Retained
            };
            assert_eq!(step, Step::Release(why), "{seen:?}");
        }
    });
}
