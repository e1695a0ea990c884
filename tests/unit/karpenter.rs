//! What the two Karpenter providers for Alibaba Cloud call drift of a node's security groups, written again from their sources, and
//! held against everything that `decide` does to such a node.

use std::collections::BTreeSet;

use security_group_operator::api::membership::{
    AdoptionPolicy, DeletionPolicy, DriftPolicy, KarpenterPolicy, ManagementPolicy,
};
use security_group_operator::membership::decide::{
    AccessView, Attempt, ClaimView, Desired, EdgeView, Elsewhere, Holder, Observed, ReadTrust,
    ReconcileOutcome, Step, TargetView, decide,
};

/// Security groups by their letters.
type Groups = BTreeSet<char>;

const ALL: [char; 3] = ['a', 'b', 'c'];

/// cloudpilot-ai/karpenter-provider-alibabacloud at cb536af, `areSecurityGroupsDrifted`: the groups of the instance must be those of
/// the `ECSNodeClass`.
fn differs(node_class: &Groups, instance: &Groups) -> bool {
    node_class != instance
}

/// AliyunContainerService/karpenter-provider-alibabacloud at e6ed7cd, `isSecurityGroupAllowed`: the instance must be in no group that
/// the `ECSNodeClass` does not list.
fn has_more(node_class: &Groups, instance: &Groups) -> bool {
    !instance.is_subset(node_class)
}

/// What happens between two passes.
#[derive(Clone, Copy, Debug)]
enum Event {
    Nothing,
    OtherJoins,
    OtherLeaves,
    Delete,
}

const EVENTS: [Event; 4] = [
    Event::Nothing,
    Event::OtherJoins,
    Event::OtherLeaves,
    Event::Delete,
];

/// One object on one instance of Karpenter.
struct World {
    desired: Desired,
    groups: Groups,
    group: char,
    claim: ClaimView,
    finalizer: bool,
    drifted: bool,
    joins: usize,
}

impl World {
    /// One pass to its end. `changed` gets the groups before and after each change of ours.
    fn pass(&mut self, changed: &mut impl FnMut(&Groups, &Groups)) -> ReconcileOutcome {
        let mut observed = self.begin();
        for _ in 0..10 {
            match decide(&self.desired, &observed) {
                Step::Finish(outcome) => {
                    self.claim = match (outcome, self.claim) {
                        (ReconcileOutcome::Ready { .. }, ClaimView::Intent { .. }) => {
                            ClaimView::Joined { void: false }
                        }
                        (_, claim) => claim,
                    };
                    return outcome;
                }
                step => self.act(step, &mut observed, changed),
            }
        }
        unreachable!("a pass has at most ten steps")
    }

    fn begin(&self) -> Observed {
        Observed {
            account: AccessView::Usable,
            claim: self.claim,
            finalizer: self.finalizer,
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
            drifted: self.drifted,
            repairs: 0,
            synced: true,
        }
    }

    fn act(
        &mut self,
        step: Step,
        observed: &mut Observed,
        changed: &mut impl FnMut(&Groups, &Groups),
    ) {
        let before = self.groups.clone();
        let claims = |world: &mut Self, observed: &mut Observed, claim, finalizer| {
            (world.claim, world.finalizer) = (claim, finalizer);
            (observed.claim, observed.finalizer) = (claim, finalizer);
        };
        match step {
            Step::Read => {
                let member = self.groups.contains(&self.group);
                observed.karpenter = true;
                observed.target = TargetView::Present {
                    member,
                    transitional: false,
                };
                self.drifted = self.claim.record().is_some() && !member;
                observed.drifted = self.drifted;
            }
            Step::AwaitTurn => observed.admitted = true,
            Step::Intend => {
                claims(self, observed, ClaimView::Intent { void: false }, true);
                observed.confirmed = true;
            }
            Step::Confirm => {
                claims(self, observed, self.claim, true);
                observed.confirmed = true;
            }
            Step::Adopt => {
                claims(self, observed, ClaimView::Adopted, true);
                observed.attempt = Attempt::None;
            }
            Step::DropClaim => claims(self, observed, ClaimView::None, false),
            Step::Join => {
                self.joins += 1;
                observed.attempt = if self.groups.insert(self.group) {
                    Attempt::Joined
                } else {
                    Attempt::AlreadyMember
                };
            }
            Step::Leave => {
                self.groups.remove(&self.group);
                observed.attempt = Attempt::Left;
            }
            Step::Release(_) => {
                claims(self, observed, ClaimView::None, false);
                observed.attempt = Attempt::Released;
            }
            Step::Record | Step::HandOver | Step::ListEdge | Step::Finish(_) => {
                unreachable!("{step:?} of one object with a fresh view")
            }
        }
        if before != self.groups {
            changed(&before, &self.groups);
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Nothing => {}
            Event::OtherJoins => {
                self.groups.insert(self.group);
            }
            Event::OtherLeaves => {
                self.groups.remove(&self.group);
            }
            Event::Delete => self.desired.deleting = true,
        }
    }
}

fn subsets() -> Vec<Groups> {
    let member = |bits: u8, at: usize| bits & (1 << at) != 0;
    (1_u8..8)
        .map(|bits| {
            let letters = ALL.iter().enumerate();
            letters
                .filter_map(|(at, letter)| member(bits, at).then_some(*letter))
                .collect()
        })
        .collect()
}

/// Runs every schedule of three events on every node with every policy; `check` gets the policy, the groups of the `ECSNodeClass`,
/// the group of the object, and the groups of the instance before and after each change of ours. Returns how many Joins were called.
fn every_schedule(
    policy: KarpenterPolicy,
    mut check: impl FnMut(&Groups, char, &Groups, &Groups),
) -> usize {
    let mut joins = 0;
    for node_class in subsets() {
        for groups in subsets() {
            for group in ALL {
                for drift in [DriftPolicy::Repair, DriftPolicy::Report] {
                    for adoption in [AdoptionPolicy::Adopt, AdoptionPolicy::Refuse] {
                        for schedule in 0..EVENTS.len().pow(3) {
                            let mut world = World {
                                desired: Desired {
                                    deleting: false,
                                    suspended: false,
                                    management: ManagementPolicy::Manage,
                                    adoption,
                                    deletion: DeletionPolicy::RemoveIfJoined,
                                    drift,
                                    karpenter: policy,
                                },
                                groups: groups.clone(),
                                group,
                                claim: ClaimView::None,
                                finalizer: false,
                                drifted: false,
                                joins: 0,
                            };
                            for place in 0..3 {
                                let mut changed = |before: &Groups, after: &Groups| {
                                    check(&node_class, group, before, after);
                                };
                                world.pass(&mut changed);
                                let event = schedule / EVENTS.len().pow(place) % EVENTS.len();
                                if let Some(event) = EVENTS.get(event) {
                                    world.happens(*event);
                                }
                                world.pass(&mut changed);
                            }
                            joins += world.joins;
                        }
                    }
                }
            }
        }
    }
    joins
}

#[test]
fn no_node_of_karpenter_drifts_by_us_under_refuse() {
    let joins = every_schedule(KarpenterPolicy::Refuse, |node_class, _, before, after| {
        for drifts in [differs, has_more] {
            let is_ours = !drifts(node_class, before) && drifts(node_class, after);
            assert!(!is_ours, "{node_class:?}: {before:?} became {after:?}");
        }
    });
    assert_eq!(joins, 0);
}

#[test]
fn a_listed_group_is_no_drift_to_the_provider_that_allows_fewer() {
    let mut joined_late = 0;
    let joins = every_schedule(KarpenterPolicy::Join, |node_class, group, before, after| {
        if node_class.contains(&group) {
            let is_ours = !has_more(node_class, before) && has_more(node_class, after);
            assert!(!is_ours, "{node_class:?}: {before:?} became {after:?}");
            // To the provider that wants all of them, the Join of the last one ends the drift.
            joined_late += usize::from(differs(node_class, before) && !differs(node_class, after));
        }
    });
    assert!(joins > 1_000, "{joins}");
    assert!(joined_late > 100, "{joined_late}");
}

#[test]
fn a_group_that_is_not_listed_is_drift_to_both() {
    let mut drifted = [0, 0];
    every_schedule(KarpenterPolicy::Join, |node_class, group, before, after| {
        if !node_class.contains(&group) && after.contains(&group) {
            for (count, drifts) in drifted.iter_mut().zip([differs, has_more]) {
                *count += usize::from(!drifts(node_class, before) && drifts(node_class, after));
            }
        }
    });
    assert!(drifted.iter().all(|count| *count > 0), "{drifted:?}");
}
