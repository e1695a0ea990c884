//! Every decision, with nothing sampled: the whole product of what `decide` can be asked is enumerated and held against the
//! promises. The number of cases is printed.

use security_group_operator::api::membership::{
    AdoptionPolicy, DeletionPolicy, DriftPolicy, ManagementPolicy, Origin,
};
use security_group_operator::ecs::Class;
use security_group_operator::membership::decide::{
    AccessView, Attempt, ClaimView, Desired, Observed, REPAIR_LIMIT, ReconcileOutcome, Release,
    Sharing, Step, TargetView, decide,
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
const ACCOUNTS: [AccessView; 7] = [
    AccessView::Checking,
    AccessView::Missing,
    AccessView::NotReady { stalled: true },
    AccessView::NotReady { stalled: false },
    AccessView::Changed,
    AccessView::NotGranted,
    AccessView::Usable,
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

fn wants() -> Vec<Desired> {
    let mut wants = Vec::new();
    for deleting in BOOLS {
        for suspended in BOOLS {
            for management in [ManagementPolicy::Manage, ManagementPolicy::Observe] {
                for adoption in [AdoptionPolicy::Adopt, AdoptionPolicy::Refuse] {
                    for deletion in [
                        DeletionPolicy::RemoveIfJoined,
                        DeletionPolicy::Remove,
                        DeletionPolicy::Retain,
                    ] {
                        for drift in [DriftPolicy::Repair, DriftPolicy::Report] {
                            wants.push(Desired {
                                deleting,
                                suspended,
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

fn claims() -> Vec<Option<ClaimView>> {
    let mut claims = vec![None];
    for origin in [Origin::Joined, Origin::Adopted] {
        claims.extend(BOOLS.map(|untested| Some(ClaimView { origin, untested })));
    }
    claims
}

fn read_targets() -> Vec<TargetView> {
    let mut targets = vec![TargetView::Absent];
    targets.extend(CLASSES.map(TargetView::Unreadable));
    for member in BOOLS {
        targets.extend(BOOLS.map(|transitional| TargetView::Present {
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
        Attempt::OwnershipTransferred,
        Attempt::Released,
    ];
    attempts.extend(failures());
    attempts
}

/// Calls `check` with every case and returns how many there were.
fn every_case(mut check: impl FnMut(&Desired, &Observed, Step)) -> u64 {
    let mut targets = read_targets();
    targets.push(TargetView::Unread);
    let (wants, claims, attempts) = (wants(), claims(), attempts());
    let mut cases = 0;
    for desired in &wants {
        for account in ACCOUNTS {
            for &claim in &claims {
                for &target in &targets {
                    for sharing in SHARINGS {
                        for &attempt in &attempts {
                            for (was_ready, leave_forbidden_past_lag) in PAIRS {
                                for repairs in [0, REPAIR_LIMIT] {
                                    for synced in BOOLS {
                                        let observed = Observed {
                                            account,
                                            claim,
                                            target,
                                            sharing,
                                            attempt,
                                            was_ready,
                                            leave_forbidden_past_lag,
                                            repairs,
                                            synced,
                                        };
                                        check(desired, &observed, decide(desired, &observed));
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
fn every_decision_keeps_the_promises() {
    let cases = every_case(|desired, observed, step| {
        let held = match step {
            Step::Leave => may_leave(desired, observed),
            Step::Join => may_join(desired, observed),
            Step::Claim(origin) => may_claim(desired, observed, origin),
            Step::TransferOwnership => may_hand_over(desired, observed),
            Step::Release(why) => may_release(desired, observed, why),
            Step::Read => {
                observed.target == TargetView::Unread
                    && observed.account == AccessView::Usable
                    && !desired.suspended
            }
            Step::Finish(outcome) => may_rest(desired, observed, outcome),
        };
        assert!(held, "{step:?}\nwanted {desired:?}\nseen {observed:?}");
    });
    assert_eq!(cases, 55_910_400);
}

/// I1 and I2: only for a deleted object that owns the edge, or was told to, and that no other live object names.
fn may_leave(desired: &Desired, observed: &Observed) -> bool {
    let owns = observed.claim.is_some_and(|claim| match claim.origin {
        // Nothing was ever made under it.
        Origin::Joined if claim.untested => false,
        Origin::Joined => desired.deletion != DeletionPolicy::Retain,
        Origin::Adopted => desired.deletion == DeletionPolicy::Remove,
    });
    desired.deleting
        && !desired.suspended
        && desired.management == ManagementPolicy::Manage
        && owns
        && observed.account == AccessView::Usable
        && !observed.sharing.others
        && observed.synced
        && !matches!(
            observed.target,
            TargetView::Present {
                transitional: true,
                ..
            } | TargetView::Unread
                | TargetView::Unreadable(_)
        )
}

/// Claim before the call, no call while the target is between states, no repair where none is desired.
fn may_join(desired: &Desired, observed: &Observed) -> bool {
    let drifted = observed.was_ready;
    !desired.deleting
        && !desired.suspended
        && desired.management == ManagementPolicy::Manage
        && observed.account == AccessView::Usable
        && observed.claim.is_some()
        && observed.target
            == (TargetView::Present {
                member: false,
                transitional: false,
            })
        && !(drifted && (desired.drift == DriftPolicy::Report || observed.repairs >= REPAIR_LIMIT))
}

fn may_claim(desired: &Desired, observed: &Observed, origin: Origin) -> bool {
    let usable = !desired.deleting
        && !desired.suspended
        // A Join was made, so the pass manages; what the claim said before it is corrected in any case.
        && (desired.management == ManagementPolicy::Manage || observed.attempt == Attempt::AlreadyMember)
        && observed.account == AccessView::Usable;
    let foreign_edge = observed.target
        == (TargetView::Present {
            member: true,
            transitional: false,
        })
        || observed.target
            == (TargetView::Present {
                member: true,
                transitional: true,
            })
        || observed.attempt == Attempt::AlreadyMember;
    usable
        && match origin {
            Origin::Joined => {
                observed.claim.is_none()
                    && observed.target
                        == (TargetView::Present {
                            member: false,
                            transitional: false,
                        })
            }
            Origin::Adopted => {
                foreign_edge
                    && (desired.adoption == AdoptionPolicy::Adopt
                        || observed.sharing.claimed_elsewhere)
            }
        }
}

fn may_hand_over(desired: &Desired, observed: &Observed) -> bool {
    desired.deleting
        && !desired.suspended
        && observed
            .claim
            .is_some_and(|claim| claim.origin == Origin::Joined)
        && observed.sharing.others
        && !observed.sharing.joined_elsewhere
}

/// I3: a finalizer goes only after a confirmed Leave, a gone edge, a policy that keeps the edge, or to another holder.
fn may_release(desired: &Desired, observed: &Observed, why: Release) -> bool {
    match why {
        Release::Left => {
            desired.deleting
                && (observed.attempt == Attempt::Left
                    || (matches!(
                        observed.attempt,
                        Attempt::Failed {
                            forbidden: true,
                            ..
                        }
                    ) && matches!(
                        observed.target,
                        TargetView::Absent | TargetView::Present { member: false, .. }
                    ) && observed.leave_forbidden_past_lag))
        }
        Release::Retained => {
            let joined = observed
                .claim
                .is_some_and(|claim| claim.origin == Origin::Joined);
            desired.deleting
                && (desired.deletion == DeletionPolicy::Retain
                    || desired.management == ManagementPolicy::Observe
                    || (desired.deletion == DeletionPolicy::RemoveIfJoined && !joined))
        }
        Release::NeverJoined => {
            desired.deleting && !desired.suspended && is_untested(observed.claim)
        }
        Release::Shared => {
            let joined = observed
                .claim
                .is_some_and(|claim| claim.origin == Origin::Joined);
            desired.deleting
                && observed.sharing.others
                && (!joined
                    || observed.sharing.joined_elsewhere
                    || observed.attempt == Attempt::OwnershipTransferred)
        }
        Release::Refused => {
            !desired.deleting
                && desired.adoption == AdoptionPolicy::Refuse
                && is_untested(observed.claim)
                && (observed.attempt == Attempt::AlreadyMember
                    || matches!(observed.target, TargetView::Present { member: true, .. }))
        }
    }
}

/// Whether the object says that it joined, and every Join since it says so was refused.
fn is_untested(claim: Option<ClaimView>) -> bool {
    claim.is_some_and(|claim| claim.untested && claim.origin == Origin::Joined)
}

/// I4, and: whoever rests waits to be enqueued, is Ready, or has a reason.
fn may_rest(desired: &Desired, observed: &Observed, outcome: ReconcileOutcome) -> bool {
    match outcome {
        ReconcileOutcome::Ready {
            origin,
            shared,
            repaired,
        } => {
            !desired.deleting
                && observed.account == AccessView::Usable
                && (matches!(observed.target, TargetView::Present { member: true, .. })
                    || matches!(observed.attempt, Attempt::Joined | Attempt::AlreadyMember))
                && origin == holder(desired, observed.claim)
                // Only what was taken over, and has another owner.
                && shared == (origin == Some(Origin::Adopted) && observed.sharing.joined_elsewhere)
                // Only what had been there and was put back by this very pass.
                && repaired == (observed.was_ready && observed.attempt == Attempt::Joined)
        }
        ReconcileOutcome::Undecided => {
            observed.account == AccessView::Checking
                || !observed.synced
                || (!desired.deleting && observed.attempt == Attempt::Left)
        }
        ReconcileOutcome::Gone => {
            desired.deleting && (observed.claim.is_none() || observed.attempt == Attempt::Released)
        }
        ReconcileOutcome::Suspended => desired.suspended,
        ReconcileOutcome::Waiting => matches!(
            observed.target,
            TargetView::Present {
                transitional: true,
                ..
            }
        ),
        ReconcileOutcome::WouldJoin => desired.management == ManagementPolicy::Observe,
        ReconcileOutcome::AdoptionRefused => {
            desired.adoption == AdoptionPolicy::Refuse || observed.attempt == Attempt::Released
        }
        ReconcileOutcome::DriftReported => {
            desired.drift == DriftPolicy::Report && observed.was_ready
        }
        ReconcileOutcome::RepairLoop => observed.was_ready && observed.repairs >= REPAIR_LIMIT,
        ReconcileOutcome::Absent => observed.target == TargetView::Absent,
        ReconcileOutcome::AccountUnusable => {
            !matches!(observed.account, AccessView::Usable | AccessView::Checking)
        }
        ReconcileOutcome::Failed(class) => {
            observed.target == TargetView::Unreadable(class)
                || matches!(observed.attempt, Attempt::Failed { class: failed, .. } if failed == class)
                || (class == Class::Transient
                    && !observed.leave_forbidden_past_lag
                    && matches!(
                        observed.attempt,
                        Attempt::Failed {
                            forbidden: true,
                            ..
                        }
                    ))
        }
    }
}

/// Who made the edge, in the words of the status: an object that only observes has made none.
fn holder(desired: &Desired, claim: Option<ClaimView>) -> Option<Origin> {
    claim
        .filter(|_| desired.management == ManagementPolicy::Manage)
        .map(|claim| claim.origin)
}

/// Every way the world can answer a step.
fn answers(step: Step, observed: &Observed) -> Vec<Observed> {
    let with = |change: &dyn Fn(&mut Observed)| {
        let mut next = observed.clone();
        change(&mut next);
        next
    };
    match step {
        Step::Finish(_) => Vec::new(),
        Step::Read => read_targets()
            .into_iter()
            .map(|target| with(&|next| next.target = target))
            .collect(),
        Step::Claim(origin) => vec![with(&|next| {
            next.claim = Some(ClaimView {
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
                        next.target = TargetView::Unread;
                    }
                })
            })
            .collect(),
        Step::TransferOwnership => vec![
            with(&|next| next.attempt = Attempt::OwnershipTransferred),
            with(&|next| next.sharing = Sharing::default()),
        ],
        Step::Release(_) => vec![with(&|next| {
            next.attempt = Attempt::Released;
            next.claim = None;
        })],
    }
}

#[test]
fn every_reconcile_ends_within_ten_steps() {
    fn longest(desired: &Desired, observed: &Observed, depth: usize) -> usize {
        assert!(depth <= 10, "{desired:?} {observed:?}");
        answers(decide(desired, observed), observed)
            .iter()
            .map(|next| 1 + longest(desired, next, depth + 1))
            .max()
            .unwrap_or(0)
    }
    let mut starts = 0;
    let mut most = 0;
    for desired in wants() {
        for account in ACCOUNTS {
            for claim in claims() {
                for sharing in SHARINGS {
                    for (was_ready, leave_forbidden_past_lag) in PAIRS {
                        for repairs in [0, REPAIR_LIMIT] {
                            for synced in BOOLS {
                                let observed = Observed {
                                    account,
                                    claim,
                                    target: TargetView::Unread,
                                    sharing,
                                    attempt: Attempt::None,
                                    was_ready,
                                    leave_forbidden_past_lag,
                                    repairs,
                                    synced,
                                };
                                most = most.max(longest(&desired, &observed, 0));
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

/// Where a pass ends: its outcome, and whether the cloud then has the edge.
type End = (ReconcileOutcome, bool);

#[test]
fn without_failures_every_spec_is_fulfilled() {
    let mut ends = 0;
    for desired in wants() {
        for claim in claims() {
            for sharing in SHARINGS {
                for (was_ready, member) in PAIRS {
                    for repairs in [0, REPAIR_LIMIT - 1, REPAIR_LIMIT, REPAIR_LIMIT + 1] {
                        let observed = Observed {
                            account: AccessView::Usable,
                            claim,
                            target: TargetView::Unread,
                            sharing,
                            attempt: Attempt::None,
                            was_ready,
                            leave_forbidden_past_lag: false,
                            repairs,
                            synced: true,
                        };
                        let asked = if desired.deleting {
                            asked_of_a_deletion(&desired, &observed, member)
                        } else {
                            asked_of_a_life(&desired, &observed, member)
                        };
                        assert_eq!(
                            end(&desired, observed.clone(), member),
                            asked,
                            "member {member}\nwanted {desired:?}\nseen {observed:?}"
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
fn end(desired: &Desired, mut observed: Observed, mut member: bool) -> End {
    let mut steps = 0;
    loop {
        steps += 1;
        assert!(steps <= 10, "no end: {desired:?} {observed:?}");
        match decide(desired, &observed) {
            Step::Finish(outcome) => return (outcome, member),
            Step::Read => {
                observed.target = TargetView::Present {
                    member,
                    transitional: false,
                }
            }
            Step::Claim(origin) => {
                observed.claim = Some(ClaimView {
                    origin,
                    untested: true,
                });
            }
            Step::Join => {
                assert!(!member, "a Join of what is there: {observed:?}");
                member = true;
                observed.attempt = Attempt::Joined;
            }
            Step::Leave => {
                member = false;
                observed.attempt = Attempt::Left;
            }
            Step::TransferOwnership => observed.attempt = Attempt::OwnershipTransferred,
            Step::Release(_) => {
                observed.attempt = Attempt::Released;
                observed.claim = None;
            }
        }
    }
}

fn asked_of_a_life(desired: &Desired, observed: &Observed, member: bool) -> End {
    let ready = |origin, repaired| ReconcileOutcome::Ready {
        origin,
        shared: origin == Some(Origin::Adopted) && observed.sharing.joined_elsewhere,
        repaired,
    };
    let is_observed = desired.management == ManagementPolicy::Observe;
    let refused = desired.adoption == AdoptionPolicy::Refuse && !observed.sharing.claimed_elsewhere;
    match holder(desired, observed.claim) {
        _ if desired.suspended => (ReconcileOutcome::Suspended, member),
        _ if is_observed && member => (ready(None, false), true),
        _ if is_observed => (ReconcileOutcome::WouldJoin, false),
        // Nobody joined under a claim under which nothing was made: somebody else did.
        claimed if member && (claimed.is_none() || is_untested(observed.claim)) => {
            if refused {
                (ReconcileOutcome::AdoptionRefused, true)
            } else {
                (ready(Some(Origin::Adopted), false), true)
            }
        }
        claimed if member => (ready(claimed, false), true),
        _ if observed.was_ready && desired.drift == DriftPolicy::Report => {
            (ReconcileOutcome::DriftReported, false)
        }
        _ if observed.was_ready && observed.repairs >= REPAIR_LIMIT => {
            (ReconcileOutcome::RepairLoop, false)
        }
        claimed => (
            ready(claimed.or(Some(Origin::Joined)), observed.was_ready),
            true,
        ),
    }
}

fn asked_of_a_deletion(desired: &Desired, observed: &Observed, member: bool) -> End {
    let leaves = match (desired.deletion, holder(desired, observed.claim)) {
        (DeletionPolicy::Remove, Some(_))
        | (DeletionPolicy::RemoveIfJoined, Some(Origin::Joined)) => !observed.sharing.others,
        (DeletionPolicy::Remove | DeletionPolicy::RemoveIfJoined | DeletionPolicy::Retain, _) => {
            false
        }
    };
    match observed.claim {
        // Nothing of it is held back by anything, not even by a pause.
        None => (ReconcileOutcome::Gone, member),
        Some(_) if desired.suspended => (ReconcileOutcome::Suspended, member),
        claim if is_untested(claim) => (ReconcileOutcome::Gone, member),
        Some(_) => (ReconcileOutcome::Gone, member && !leaves),
    }
}

#[test]
fn retain_releases_whatever_account_and_cloud_say() {
    every_case(|desired, observed, step| {
        let lets_go =
            desired.deleting && !desired.suspended && desired.deletion == DeletionPolicy::Retain;
        if lets_go
            && observed.claim.is_some()
            && observed.attempt == Attempt::None
            && !observed.sharing.others
        {
            let why = if is_untested(observed.claim) {
                Release::NeverJoined
            } else {
                Release::Retained
            };
            assert_eq!(step, Step::Release(why), "{observed:?}");
        }
    });
}
