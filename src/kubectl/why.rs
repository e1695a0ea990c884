//! `kubectl sgm why`: everything that is known of a membership, in one screen; long because it is one report. Reads the cluster only.

use std::fmt::Write as _;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::account::directory::Grants;
use crate::api::membership::{DeletionPolicy, LastError, Origin};
use crate::api::{SecurityGroupMembership, SecurityGroupMembershipStatus, reason};
use crate::condition;
use crate::ecs::error_table::classify;
use crate::ecs::{AccountUid, Action, Edge, Tags, TargetDescription, TargetState};
use crate::membership::decide::{ReconcileOutcome, Release, Step};
use crate::membership::forecast::{Known, KnownAccount, forecast, holders};
use crate::membership::object::Claim;

use super::cloud::account_of;
use super::cluster::{Cluster, full_name};
use super::common::Common;
use super::failure::{Failure, exit};
use super::output::{Report, age, column, note, wide};

pub(super) const EXAMPLES: &str = "\
Examples:
  kubectl sgm why web-1              # one membership of the current namespace
  kubectl sgm why -A                 # every membership that is not Ready
  kubectl sgm why web-1 -o json      # for scripts; exit code 3 if it is not Ready";

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Name of the membership. Without one: a table of those that are not Ready.
    name: Option<String>,
}

pub(super) async fn run(arguments: Arguments, common: &Common) -> Result<Report, Failure> {
    let cluster = Cluster::connect(&common.cluster).await?;
    let Some(name) = arguments.name else {
        return not_ready(&cluster, common.cluster.all_namespaces).await;
    };
    let name = name.rsplit('/').next().unwrap_or_default();
    let object = cluster.membership(name).await?;
    let others = others(&cluster, &object).await?;
    Ok(explain(&object, &others, Timestamp::now()))
}

/// The other objects of the same group; none, with a note, where the person may not list them.
async fn others(
    cluster: &Cluster,
    object: &SecurityGroupMembership,
) -> Result<Vec<SecurityGroupMembership>, Failure> {
    let fields = format!("spec.securityGroupID={}", object.spec.security_group_id);
    let mut listed = cluster.everywhere(&fields).await?;
    listed.retain(|other| other.metadata.uid != object.metadata.uid);
    Ok(listed)
}

/// The memberships that are not Ready.
async fn not_ready(cluster: &Cluster, all: bool) -> Result<Report, Failure> {
    let namespace = if all { "" } else { cluster.namespace.as_str() };
    let mut objects = cluster.list(namespace, "").await?;
    let total = objects.len();
    objects.retain(|object| ready(object).is_none_or(|ready| ready.status != "True"));
    let now = Timestamp::now();
    let row = |object: &SecurityGroupMembership| {
        let ready = ready(object);
        let text = |pick: fn(&Condition) -> &String| ready.map(pick).cloned().unwrap_or_default();
        let since = ready.map(|ready| since(ready, now)).unwrap_or_default();
        let spec = &object.spec;
        let target = spec
            .instance_id
            .as_ref()
            .or(spec.network_interface_id.as_ref());
        vec![
            object.namespace().unwrap_or_default(),
            object.name_any(),
            text(|ready| &ready.status),
            text(|ready| &ready.reason),
            since,
            target.cloned().unwrap_or_default(),
            spec.security_group_id.clone(),
            text(|ready| &ready.message),
        ]
    };
    if objects.is_empty() {
        note(&format!("{total} memberships, all of them Ready"));
    }
    Ok(Report {
        columns: vec![
            column("NAMESPACE"),
            column("NAME"),
            column("READY"),
            column("REASON"),
            column("FOR"),
            column("TARGET"),
            column("SECURITY-GROUP"),
            wide("MESSAGE"),
        ],
        rows: objects.iter().map(row).collect(),
        names: objects.iter().map(resource_name).collect(),
        value: json!({"memberships": total, "notReady": objects.iter().map(summary).collect::<Vec<_>>()}),
        code: if objects.is_empty() { 0 } else { exit::NO },
        text: None,
    })
}

fn summary(object: &SecurityGroupMembership) -> Value {
    json!({"namespace": object.namespace(), "name": object.name_any(), "spec": object.spec, "ready": ready(object)})
}

fn ready(object: &SecurityGroupMembership) -> Option<&Condition> {
    let status = object.status.as_ref()?;
    condition::find(&status.conditions, reason::READY)
}

/// What kubectl calls an object.
pub(super) fn resource_name(object: &SecurityGroupMembership) -> String {
    format!(
        "securitygroupmembership.security-group-operator.io/{}",
        object.name_any()
    )
}

/// How long a condition has been as it is; nothing where the API server's default stands.
fn since(condition: &Condition, now: Timestamp) -> String {
    let then = condition.last_transition_time.0;
    if then.as_second() == 0 {
        return String::new();
    }
    age(then, now)
}

/// The report on one membership.
fn explain(
    object: &SecurityGroupMembership,
    others: &[SecurityGroupMembership],
    now: Timestamp,
) -> Report {
    let status = object.status.clone().unwrap_or_default();
    let edge = Edge::try_from(&object.spec).ok();
    let uid = status.account_uid.as_deref().and_then(AccountUid::of_claim);
    let beside = edge
        .as_ref()
        .map(|edge| holders(object, edge, others, uid.as_ref()))
        .unwrap_or_default();
    let owned = owned(object);
    let deletion = edge
        .as_ref()
        .map(|edge| on_deletion(object, edge, others, now))
        .unwrap_or_default();
    let error = status.last_error.as_ref();
    let next = error.and_then(advice);
    let told = Told {
        object,
        status: &status,
        owned: &owned,
        next,
        beside: &beside,
        deletion: &deletion,
    };
    let is_ready = ready(object).is_some_and(|ready| ready.status == "True");
    Report {
        text: Some(told.text(now)),
        names: vec![resource_name(object)],
        value: told.value(),
        code: if is_ready { 0 } else { exit::NO },
        ..Report::default()
    }
}

/// The advice of the error table for an error in a status.
fn advice(error: &LastError) -> Option<&'static str> {
    let actions = [
        Action::JoinSecurityGroup,
        Action::LeaveSecurityGroup,
        Action::DescribeInstances,
        Action::DescribeNetworkInterfaces,
    ];
    let action = actions
        .into_iter()
        .find(|action| action.name() == error.action)?;
    let code = error.code.as_deref()?;
    Some(classify(action, 400, code, &error.message).hint)
}

/// What the operator owns of the membership through the object.
fn owned(object: &SecurityGroupMembership) -> String {
    let account = |uid: Option<&AccountUid>| {
        uid.map(|uid| format!(" of cloud account {}", uid.as_str()))
            .unwrap_or_default()
    };
    match Claim::of(object) {
        None => "nothing: the operator has joined nothing for this object".to_owned(),
        Some(Claim::Intent { account_uid }) => format!(
            "an intent: a Join{} may have had an effect that is not recorded yet",
            account(Some(&account_uid))
        ),
        Some(Claim::Record {
            origin: Origin::Joined,
            account_uid,
        }) => format!(
            "Joined: the operator made the membership{}",
            account(account_uid.as_ref())
        ),
        Some(Claim::Record {
            origin: Origin::Adopted,
            account_uid,
        }) => format!(
            "Adopted: the membership{} was there before this object",
            account(account_uid.as_ref())
        ),
    }
}

/// What the deletion of the object would do, as the operator decides it: the target is taken to be as the status says.
fn on_deletion(
    object: &SecurityGroupMembership,
    edge: &Edge,
    others: &[SecurityGroupMembership],
    now: Timestamp,
) -> String {
    let status = object.status.clone().unwrap_or_default();
    let is_member = Claim::of(object).is_some_and(|claim| claim.record().is_some());
    let target = described(&status, edge, is_member);
    let mut deleted = object.clone();
    let deletion = &mut deleted.metadata.deletion_timestamp;
    deletion.get_or_insert(Time(now));
    let account = KnownAccount::There {
        uid: status.account_uid.as_deref().and_then(AccountUid::of_claim),
        trouble: None,
        grants: Grants::OwnNamespace,
    };
    let known = Known {
        account: &account,
        labels: None,
        target: Some(&target),
        others,
    };
    let found = forecast(&deleted, edge, &known, now);
    let Edge { target, group, .. } = edge;
    let own = status.account_uid.as_deref().and_then(AccountUid::of_claim);
    let successor = holders(object, edge, others, own.as_ref())
        .first()
        .map(|successor| full_name(successor));
    let successor = successor.unwrap_or_default();
    if found.does(Step::HandOver) {
        return format!("nothing happens in the cloud: {successor} takes over the membership");
    }
    if found.does(Step::Leave) {
        return format!("the operator removes {target} from {group} (LeaveSecurityGroup)");
    }
    let release = found.release();
    match (release, found.outcome) {
        (Some(Release::Retained), _) => format!(
            "nothing happens in the cloud: {target} stays in {group}, because {}",
            match object.spec.deletion_policy {
                DeletionPolicy::Retain => "deletionPolicy is Retain",
                DeletionPolicy::RemoveIfJoined | DeletionPolicy::Remove => {
                    "the operator did not join it, or may not write to the cloud"
                }
            }
        ),
        (Some(Release::Shared), _) => {
            format!("nothing happens in the cloud: {successor} names the membership too")
        }
        (Some(Release::Left | Release::NeverJoined), _) | (None, ReconcileOutcome::Gone) => {
            "nothing happens in the cloud: the operator has joined nothing for this object"
                .to_owned()
        }
        (None, ReconcileOutcome::Suspended) => {
            "the deletion waits while spec.suspend is true".to_owned()
        }
        (None, _) => "the deletion waits; see the message above".to_owned(),
    }
}

/// The target as the status tells it.
fn described(
    status: &SecurityGroupMembershipStatus,
    edge: &Edge,
    is_member: bool,
) -> TargetDescription {
    // One more group, as almost every target has: the last one cannot be left, which only the cloud knows.
    let another = "sg-another".parse().ok();
    let groups = is_member.then(|| edge.group.clone());
    TargetDescription {
        state: TargetState::Running,
        vpc_id: None,
        lock_reasons: status
            .target
            .as_ref()
            .map(|target| target.lock_reasons.clone())
            .unwrap_or_default(),
        security_group_ids: groups.into_iter().chain(another).collect(),
        service_managed: false,
        primary: false,
        tags: Tags::default(),
        karpenter: false,
    }
}

/// All that the report says of one membership.
struct Told<'a> {
    object: &'a SecurityGroupMembership,
    status: &'a SecurityGroupMembershipStatus,
    owned: &'a str,
    next: Option<&'static str>,
    beside: &'a [&'a SecurityGroupMembership],
    deletion: &'a str,
}

impl Told<'_> {
    fn text(&self, now: Timestamp) -> String {
        let spec = &self.object.spec;
        let target = spec
            .instance_id
            .as_ref()
            .or(spec.network_interface_id.as_ref());
        let mut text = String::new();
        let mut line = |title: &str, value: &str| {
            let _ = writeln!(text, "{title:<14}{value}");
        };
        line("Membership", &full_name(self.object));
        line(
            "Edge",
            &format!(
                "{} in {} ({}, {})",
                target.map_or("no target", String::as_str),
                spec.security_group_id,
                spec.region,
                account_of(self.object)
            ),
        );
        if let Some(target) = &self.status.target {
            let locks = match target.lock_reasons.as_slice() {
                [] => String::new(),
                locks => format!(", locked: {}", locks.join(", ")),
            };
            let vpc = target.vpc_id.as_deref().unwrap_or("no VPC");
            line("Target", &format!("{}, {vpc}{locks}", target.state));
        }
        line("Owned", self.owned);
        self.conditions(now, &mut line);
        if let Some(error) = &self.status.last_error {
            self.error(error, now, &mut line);
        }
        match self.beside {
            [] => line("Also held by", "no other object"),
            beside => {
                for other in beside {
                    line("Also held by", &beside_line(other));
                }
            }
        }
        line("On deletion", self.deletion);
        text
    }

    fn conditions(&self, now: Timestamp, line: &mut impl FnMut(&str, &str)) {
        for condition in &self.status.conditions {
            let since = since(condition, now);
            let since = if since.is_empty() {
                since
            } else {
                format!(", for {since}")
            };
            let old = match (
                condition.observed_generation,
                self.object.metadata.generation,
            ) {
                (Some(seen), Some(now)) if seen < now => ", of an older spec",
                _ => "",
            };
            line(
                &condition.type_,
                &format!("{} {}{since}{old}", condition.status, condition.reason),
            );
            let is_told = condition.type_ == reason::READY
                || condition.status == "True" && {
                    let ready = condition::find(&self.status.conditions, reason::READY);
                    ready.is_none_or(|ready| ready.message != condition.message)
                };
            if is_told {
                line("", &condition.message);
            }
        }
    }

    fn error(&self, error: &LastError, now: Timestamp, line: &mut impl FnMut(&str, &str)) {
        let code = error.code.as_deref().unwrap_or("no answer");
        let request = match &error.request_id {
            Some(id) => format!(", request {id}"),
            None => String::new(),
        };
        let first = age(error.time.0, now);
        line(
            "Last error",
            &format!(
                "{} {code} ({:?}), first {first} ago{request}",
                error.action, error.class
            ),
        );
        if !error.message.is_empty() {
            line("", &error.message);
        }
        if let Some(detail) = &error.access_denied_detail {
            line("", detail);
        }
        if let Some(next) = self.next {
            line("Next step", next);
        }
    }

    fn value(&self) -> Value {
        json!({
            "namespace": self.object.namespace(),
            "name": self.object.name_any(),
            "spec": self.object.spec,
            "status": self.status,
            "owned": self.owned,
            "nextStep": self.next,
            "alsoHeldBy": self.beside.iter().map(|other| summary(other)).collect::<Vec<_>>(),
            "onDeletion": self.deletion,
        })
    }
}

fn beside_line(other: &SecurityGroupMembership) -> String {
    let ready = ready(other).map_or(String::new(), |ready| {
        format!("Ready {} {}", ready.status, ready.reason)
    });
    format!("{} ({ready})", full_name(other))
}
