//! Which objects may use an account, and for which groups. Pure.

use std::collections::BTreeMap;

use crate::api::account::Grant;
use crate::ecs::SecurityGroupId;

/// Which objects may use an account, and for which groups.
#[derive(Clone, Debug, PartialEq)]
pub enum Grants {
    /// Every object that can name the account: the namespaced kind.
    OwnNamespace,
    /// The grants listed in the spec of the cluster kind.
    Listed(Vec<Grant>),
    /// The account cannot be read: no object may use it, and its state says why.
    Unknown,
}

/// Whether one grant covers this use. `false` for a selector if the labels of the namespace are unknown.
pub(super) fn covers(
    grant: &Grant,
    namespace: &str,
    labels: Option<&BTreeMap<String, String>>,
    group: &SecurityGroupId,
) -> bool {
    let group_granted = grant
        .security_groups
        .ids
        .iter()
        .any(|granted| granted == "*" || granted == group.as_str());
    let named = grant
        .namespaces
        .names
        .as_ref()
        .is_some_and(|names| names.iter().any(|name| name == namespace));
    let selected = grant
        .namespaces
        .selector
        .as_ref()
        .zip(labels)
        .is_some_and(|(selector, labels)| selector.matches(labels));
    group_granted && (named || selected)
}
