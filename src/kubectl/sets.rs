//! What the verbs know of sets: which object is meant by a name, which memberships a set controls, a selector in words. Pure.

use kube::ResourceExt as _;

use crate::api::grant::{LabelOperator, LabelSelector};
use crate::api::{GROUP, SecurityGroupMembership, SecurityGroupMembershipSet};
use crate::set::controller_of;

use super::failure::Failure;

/// The object that a person names, as kubectl takes it: NAME or KIND/NAME.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Named<'a> {
    /// A membership.
    Membership(&'a str),
    /// A set.
    Set(&'a str),
}

impl<'a> Named<'a> {
    /// # Errors
    /// The kind is none of the two.
    pub(super) fn parse(text: &'a str) -> Result<Self, Failure> {
        let Some((kind, name)) = text.split_once('/') else {
            return Ok(Self::Membership(text));
        };
        let typed = kind.to_lowercase();
        let typed = match typed.split_once('.') {
            Some((typed, group)) if group == GROUP || group == format!("v1alpha1.{GROUP}") => typed,
            _ => typed.as_str(),
        };
        match typed {
            "sgm" | "securitygroupmembership" | "securitygroupmemberships" => {
                Ok(Self::Membership(name))
            }
            "sgmset" | "securitygroupmembershipset" | "securitygroupmembershipsets" => {
                Ok(Self::Set(name))
            }
            _ => Err(Failure::with(
                2,
                format!(
                    "{text}: {kind} is no kind of memberships; write NAME, sgm/NAME or sgmset/NAME"
                ),
            )),
        }
    }
}

/// The name of the set that controls a membership.
pub(super) fn set_of(object: &SecurityGroupMembership) -> Option<&str> {
    let owner = controller_of(object).filter(|owner| owner.kind == "SecurityGroupMembershipSet");
    owner.map(|owner| owner.name.as_str())
}

/// Whether a set controls a membership.
pub(super) fn controls(set: &SecurityGroupMembershipSet, object: &SecurityGroupMembership) -> bool {
    set.namespace() == object.namespace()
        && controller_of(object).is_some_and(|owner| Some(&owner.uid) == set.metadata.uid.as_ref())
}

/// What kubectl calls a membership.
pub(super) fn membership_name(object: &SecurityGroupMembership) -> String {
    format!("securitygroupmembership.{GROUP}/{}", object.name_any())
}

/// What kubectl calls a set.
pub(super) fn set_name(set: &SecurityGroupMembershipSet) -> String {
    format!("securitygroupmembershipset.{GROUP}/{}", set.name_any())
}

/// A node selector, as kubectl writes selectors.
pub(super) fn nodes_with(selector: &LabelSelector) -> String {
    let LabelSelector {
        match_labels,
        match_expressions,
    } = selector;
    let equal = match_labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"));
    let others = match_expressions.iter().map(|of| {
        let (key, values) = (&of.key, of.values.join(", "));
        match of.operator {
            LabelOperator::In => format!("{key} in ({values})"),
            LabelOperator::NotIn => format!("{key} notin ({values})"),
            LabelOperator::Exists => key.clone(),
            LabelOperator::DoesNotExist => format!("!{key}"),
        }
    });
    let all: Vec<String> = equal.chain(others).collect();
    if all.is_empty() {
        return "every Node".to_owned();
    }
    format!("Nodes with {}", all.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_before_the_name_is_one_that_kubectl_takes() {
        for text in [
            "web",
            "sgm/web",
            "securitygroupmemberships.security-group-operator.io/web",
        ] {
            assert_eq!(Named::parse(text), Ok(Named::Membership("web")), "{text}");
        }
        for text in [
            "sgmset/web",
            "SecurityGroupMembershipSet/web",
            "securitygroupmembershipsets.v1alpha1.security-group-operator.io/web",
        ] {
            assert_eq!(Named::parse(text), Ok(Named::Set("web")), "{text}");
        }
        assert_eq!(Named::parse("pod/web").unwrap_err().code, 2);
    }
}
