//! The report of `why` on a membership. Pure.

use std::fmt::Write as _;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt as _;
use serde_json::{Value, json};

use crate::api::membership::{LastError, Origin};
use crate::api::{SecurityGroupMembership, SecurityGroupMembershipStatus};
use crate::ecs::{AccountUid, Edge};
use crate::membership::forecast::holders;
use crate::membership::object::Claim;

use super::super::cloud::account_of;
use super::super::cluster::full_name;
use super::super::failure::exit;
use super::super::members::target_of;
use super::super::output::{Report, age};
use super::super::sets::{membership_name, set_of};
use super::deletion::Deletion;
use super::parts::{advice, condition_lines, ready, summary};

/// The report on one membership.
pub(super) fn explain(
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
        .map(|edge| Deletion::of(object, edge, others, now).sentence(edge))
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
        names: vec![membership_name(object)],
        value: told.value(),
        code: if is_ready { 0 } else { exit::NO },
        ..Report::default()
    }
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
        let target = Some(target_of(self.object)).filter(|target| !target.is_empty());
        let mut text = String::new();
        let mut line = |title: &str, value: &str| {
            let _ = writeln!(text, "{title:<14}{value}");
        };
        line("Membership", &full_name(self.object));
        if let Some(set) = set_of(self.object) {
            line("Set", &format!("sgmset/{set}"));
        }
        line(
            "Spec",
            &format!(
                "{} in {} ({}, {})",
                target.as_deref().unwrap_or("no target"),
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
        let generation = self.object.metadata.generation;
        condition_lines(&self.status.conditions, generation, now, &mut line);
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
            "set": set_of(self.object),
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
