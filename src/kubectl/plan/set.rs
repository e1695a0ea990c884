//! What becomes of a set: the operator's own plan, carried out on what is known until nothing is left to do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;

use crate::account::key::AccountKey;
use crate::api::{SecurityGroupMembership, SecurityGroupMembershipSet, reason};
use crate::condition;
use crate::ecs::{Region, SecurityGroupId, Target};
use crate::membership::forecast;
use crate::nodes::{Listed, Nodes};
use crate::set::desired::{self, Occupant};
use crate::set::plan::{Plan, Wanted, Why, plan};
use crate::set::select::{Selection, Standing};
use crate::set::{Member, Policies, Refusal, access, name_of, status};

use super::super::cluster::Cluster;
use super::super::failure::{Failure, exit};
use super::super::output::{counted, note};
use super::apply::{Applied, Change};
use super::membership::foresee;
use super::row::Planned;
use super::surroundings::Surroundings;

/// Most passes of a set until nothing is left to do: it creates, then deletes what is replaced, then rests.
const PASSES: usize = 6;

/// A set of the files, and what its selector says.
pub(super) struct Set {
    namespace: String,
    name: String,
    /// Or what `kubectl apply` would do with it, and why no more is known.
    result: Result<Selected, (&'static str, Failure)>,
}

/// A set that the API server would store.
struct Selected {
    change: Change,
    set: SecurityGroupMembershipSet,
    region: Region,
    group: SecurityGroupId,
    selection: Selection,
}

/// Asks the selectors of sets. Nodes are listed if one selects them.
///
/// # Errors
/// None: the row of a set says what keeps it from being asked.
pub(super) async fn select(
    cluster: &Cluster,
    sets: Vec<Applied<SecurityGroupMembershipSet>>,
) -> Result<Vec<Set>, Failure> {
    let is_of_nodes = |applied: &Applied<SecurityGroupMembershipSet>| {
        let stored = applied.result.as_ref().ok();
        stored.is_some_and(|(_, set)| set.spec.node_selector.is_some())
    };
    let nodes = if sets.iter().any(is_of_nodes) {
        cluster.nodes().await
    } else {
        Ok(Nodes::default())
    };
    let selected = sets.into_iter().map(|applied| Set {
        namespace: applied.namespace,
        name: applied.name,
        result: match applied.result {
            Ok((change, set)) => {
                selected(change, set, &nodes).map_err(|failure| (change.name(), failure))
            }
            Err(failure) => Err(("refused", failure)),
        },
    });
    Ok(selected.collect())
}

fn selected(
    change: Change,
    set: SecurityGroupMembershipSet,
    nodes: &Result<Nodes, Failure>,
) -> Result<Selected, Failure> {
    let wrong = |error: crate::ecs::ParseIdError| Failure::with(exit::NO, error.to_string());
    let region: Region = set.spec.region.parse().map_err(wrong)?;
    let group = set.spec.security_group_id.parse().map_err(wrong)?;
    let selection = match Selection::of_list(&set.spec) {
        Some(listed) => listed,
        None if set.spec.node_selector.is_some() => {
            let nodes = nodes.as_ref().map_err(Failure::clone)?;
            nodes.look(|nodes, _| {
                Selection::of_nodes(&set.spec, &region, nodes.values(), &Listed::All)
            })
        }
        None => {
            return Err(Failure::new(
                "plan does not list instances by their tags; write the instances of spec.instanceTags into spec.instanceIDs to plan them",
            ));
        }
    };
    Ok(Selected {
        change,
        set,
        region,
        group,
        selection,
    })
}

impl Set {
    /// The memberships that the set has and wants: what is to be known of their accounts and targets.
    pub(super) fn objects(&self, surroundings: &Surroundings) -> Vec<SecurityGroupMembership> {
        let Ok(selected) = &self.result else {
            return Vec::new();
        };
        let mut objects = surroundings.members(&selected.set);
        let picked = selected.selection.picked.iter();
        objects.extend(picked.map(|target| selected.wanted(target)));
        objects
    }

    /// The account that the set names, and the namespace of the set.
    pub(super) fn account(&self) -> Option<(AccountKey, String)> {
        let set = &self.result.as_ref().ok()?.set;
        let namespace = set.namespace().unwrap_or_default();
        Some((AccountKey::of(&set.spec.account_ref, &namespace), namespace))
    }

    /// The row of the set, and one for each membership that would change.
    pub(super) fn plan(self, surroundings: &mut Surroundings, now: Timestamp) -> Vec<Planned> {
        let Self {
            namespace,
            name,
            result,
        } = self;
        let rows = match result {
            Ok(selected) => selected.plan(surroundings, now),
            Err((apply, failure)) => {
                let unknown = Planned::unknown((&namespace, &name), apply, "<none>", failure);
                vec![Planned {
                    is_set: true,
                    ..unknown
                }]
            }
        };
        // Whether the set becomes Ready is what counts: a target that the cloud does not list keeps it from nothing.
        let of_set = |row: Planned| Planned {
            set: Some(name.clone()),
            code: if row.is_set { row.code } else { 0 },
            ..row
        };
        rows.into_iter().map(of_set).collect()
    }
}

impl Selected {
    fn wanted(&self, target: &Target) -> SecurityGroupMembership {
        desired::membership(&self.set, &self.region, &self.group, target)
    }

    fn plan(&self, surroundings: &mut Surroundings, now: Timestamp) -> Vec<Planned> {
        let mut rows = Vec::new();
        let mut refusal = self.refusal(surroundings);
        let is_suspended = self.set.spec.suspend;
        for _ in 0..PASSES {
            let plan = self.look(surroundings, now);
            let may_create = refusal.is_none() && !plan.create.is_empty();
            if is_suspended || plan.change.is_empty() && plan.delete.is_empty() && !may_create {
                break;
            }
            self.change(&plan, surroundings, now, &mut rows);
            self.delete(&plan, surroundings, now, &mut rows);
            if may_create {
                refusal = self.create(&plan, surroundings, now, &mut rows);
            }
        }
        let last = self.look(surroundings, now);
        self.tell_missing(surroundings, now);
        rows.insert(
            0,
            self.row(&last, refusal.as_ref(), surroundings, &rows, now),
        );
        rows
    }

    /// What keeps the set from its account.
    fn refusal(&self, surroundings: &Surroundings) -> Option<Refusal> {
        let namespace = self.set.namespace().unwrap_or_default();
        let account = AccountKey::of(&self.set.spec.account_ref, &namespace);
        let request = access::request(
            &self.set.spec,
            &account,
            &namespace,
            (&self.region, &self.group),
        );
        let labels = surroundings.labels(&namespace);
        let refused = forecast::refused(request, surroundings.account(&account), labels)?;
        access::refusal(&refused, request).ok().flatten()
    }

    /// The operator's plan for the memberships as they are now.
    fn look(&self, surroundings: &Surroundings, now: Timestamp) -> Plan {
        let objects = surroundings.members(&self.set);
        let members = objects.iter().filter_map(|object| {
            let (_, member) = Member::of(object)?;
            Some(Arc::new(member))
        });
        let members: Vec<Arc<Member>> = members.collect();
        let wanted = Wanted {
            group: &self.group,
            policies: Policies::of_set(&self.set.spec),
            picked: &self.selection.picked,
        };
        plan(wanted, &members, |target| self.standing(target, now))
    }

    /// A target without a Node is taken as missing since now: only the operator knows for how long.
    fn standing(&self, target: &Target, now: Timestamp) -> Standing {
        let now = now.as_second();
        self.selection.standing(target, now, || Duration::ZERO)
    }

    fn change(
        &self,
        plan: &Plan,
        surroundings: &mut Surroundings,
        now: Timestamp,
        rows: &mut Vec<Planned>,
    ) {
        for member in &plan.change {
            if let Some(mut object) = self.stored(&member.name, surroundings) {
                Policies::of_set(&self.set.spec).apply_to(&mut object.spec);
                rows.push(foresee("patched", object, surroundings, now));
            }
        }
    }

    fn delete(
        &self,
        plan: &Plan,
        surroundings: &mut Surroundings,
        now: Timestamp,
        rows: &mut Vec<Planned>,
    ) {
        for deletion in &plan.delete {
            let Some(mut object) = self.stored(&deletion.member.name, surroundings) else {
                continue;
            };
            object.metadata.deletion_timestamp = Some(Time(now));
            let row = foresee("deleted", object, surroundings, now);
            let why = match deletion.why {
                Why::NotSelected => "its target is not selected any more",
                Why::Gone => "its target is gone",
                Why::Replaced => "its target is a member of the new group",
            };
            rows.push(Planned {
                message: why.to_owned(),
                ..row
            });
        }
    }

    /// Creates what is missing. A name that is taken keeps no other target waiting.
    fn create(
        &self,
        plan: &Plan,
        surroundings: &mut Surroundings,
        now: Timestamp,
        rows: &mut Vec<Planned>,
    ) -> Option<Refusal> {
        let mut refusal = None;
        for target in &plan.create {
            let name = name_of(&self.set.name_any(), &self.region, target, &self.group);
            let mut object = self.wanted(target);
            let mut change = "created";
            object.metadata.generation = Some(1);
            object.metadata.uid = Some(format!("planned-{name}"));
            if let Some(stored) = self.stored(&name, surroundings) {
                match desired::occupant(&self.set, &stored, &object) {
                    Occupant::Own | Occupant::Goes => continue,
                    Occupant::Foreign => {
                        refusal.get_or_insert(Refusal::NameTaken { name });
                        continue;
                    }
                    Occupant::Orphan => {
                        change = "taken over";
                        let spec = object.spec;
                        let owners = object.metadata.owner_references;
                        object = stored;
                        object.spec = spec;
                        object.metadata.owner_references = owners;
                    }
                }
            }
            rows.push(foresee(change, object, surroundings, now));
        }
        refusal
    }

    fn stored(&self, name: &str, surroundings: &Surroundings) -> Option<SecurityGroupMembership> {
        let namespace = self.set.namespace().unwrap_or_default();
        surroundings.object(&namespace, name).cloned()
    }

    /// Says which memberships wait for evidence.
    fn tell_missing(&self, surroundings: &Surroundings, now: Timestamp) {
        let members = surroundings.members(&self.set).into_iter();
        let missing = members.filter(|object| {
            Member::of(object)
                .is_some_and(|(_, member)| self.standing(&member.target, now) == Standing::Missing)
        });
        let missing = missing.count();
        if missing > 0 {
            note(&format!(
                "sgmset/{}: {} whose target has no Node: deleted when that has lasted for 5 minutes",
                self.set.name_any(),
                counted(missing, "membership")
            ));
        }
    }

    /// The row of the set: what its status would say when nothing is left to do.
    fn row(
        &self,
        plan: &Plan,
        refusal: Option<&Refusal>,
        surroundings: &Surroundings,
        rows: &[Planned],
        now: Timestamp,
    ) -> Planned {
        let set = &self.set;
        let (namespace, name) = (set.namespace().unwrap_or_default(), set.name_any());
        let found = status::Found {
            set: (&namespace, &name),
            plan,
            targets: self.selection.targets(),
            skipped: self.selection.skipped,
            objects: surroundings.members(set).len(),
            refusal,
            failure: None,
            suspended: set.spec.suspend,
            requested: None,
        };
        let previous = set.status.clone().unwrap_or_default();
        let next = status::status(&previous, set.metadata.generation, found, now);
        let ready = condition::find(&next.conditions, reason::READY);
        let is_ready = ready.is_some_and(|ready| ready.status == "True");
        let reason = ready.map(|ready| ready.reason.clone());
        let reason = if set.spec.suspend {
            reason::SUSPENDED.to_owned()
        } else {
            reason.unwrap_or("<none>".to_owned())
        };
        Planned {
            set: None,
            is_set: true,
            namespace,
            name,
            change: self.change.name(),
            calls: calls(rows),
            ready: ready.map_or("Unknown".to_owned(), |ready| ready.status.clone()),
            reason,
            message: ready.map(|ready| ready.message.clone()).unwrap_or_default(),
            code: if is_ready { 0 } else { exit::NO },
        }
    }
}

/// The calls of all memberships, with their numbers.
fn calls(rows: &[Planned]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows {
        let made = row.calls.split(',').filter(|call| *call != "none");
        for call in made {
            *counts.entry(call).or_default() += 1;
        }
    }
    let parts = counts.iter().map(|(call, count)| format!("{count}x{call}"));
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(",")
    }
}
