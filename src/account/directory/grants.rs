//! Which objects may use an account, for which groups, and with which targets. Pure.

use std::collections::BTreeMap;

use crate::api::account::{Grant, GrantedAction};
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

/// What the grants say of one use, before the target is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Granted {
    /// No grant allows it.
    No,
    /// It is allowed for every target.
    Yes,
    /// It is allowed for targets with certain tags, which only a read of the target shows.
    Tagged(TargetTags),
}

/// The tags of which a target must have those of at least one grant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetTags(Vec<BTreeMap<String, String>>);

impl TargetTags {
    /// Whether a target with these tags is granted.
    #[must_use]
    pub fn allow(&self, tags: &BTreeMap<String, String>) -> bool {
        let has = |(key, value)| tags.get(key) == Some(value);
        self.0.iter().any(|wanted| wanted.iter().all(has))
    }
}

/// What an object does with its group through the account.
#[derive(Clone, Copy, Debug)]
pub struct Use<'a> {
    /// Namespace of the object.
    pub namespace: &'a str,
    /// Labels of the namespace; `None` while they are unknown: then no selector selects it.
    pub labels: Option<&'a BTreeMap<String, String>>,
    /// The group.
    pub group: &'a SecurityGroupId,
    /// The action.
    pub action: GrantedAction,
}

/// What these grants say of a use.
#[must_use]
pub fn granted(grants: &[Grant], wanted: Use<'_>) -> Granted {
    let mut tags = Vec::new();
    for grant in grants.iter().filter(|grant| covers(grant, wanted)) {
        match grant.targets.as_ref() {
            None => return Granted::Yes,
            Some(targets) => tags.push(targets.tags.clone()),
        }
    }
    if tags.is_empty() {
        Granted::No
    } else {
        Granted::Tagged(TargetTags(tags))
    }
}

/// Whether one grant covers this use, of a target with the right tags.
fn covers(grant: &Grant, wanted: Use<'_>) -> bool {
    let Use {
        namespace,
        labels,
        group,
        action,
    } = wanted;
    let ids = &grant.security_groups.ids;
    let namespaces = &grant.namespaces;
    let group_granted = ids.iter().any(|id| id == "*" || id == group.as_str());
    let named = namespaces
        .names
        .as_ref()
        .is_some_and(|names| names.iter().any(|name| name == namespace));
    let selected = namespaces
        .selector
        .as_ref()
        .zip(labels)
        .is_some_and(|(selector, labels)| selector.matches(labels));
    group_granted && (named || selected) && grant.allow.contains(&action)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grant(yaml: &str) -> Grant {
        serde_saphyr::from_str(yaml).unwrap()
    }

    fn asked(
        grant: &Grant,
        namespace: &str,
        labels: Option<&BTreeMap<String, String>>,
        group: &str,
    ) -> bool {
        let wanted = Use {
            namespace,
            labels,
            group: &group.parse().unwrap(),
            action: GrantedAction::Join,
        };
        granted(std::slice::from_ref(grant), wanted) == Granted::Yes
    }

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let owned = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        owned.collect()
    }

    #[test]
    fn grant_by_name_covers_only_its_namespaces_and_groups() {
        let grant = grant("{name: web, namespaces: {names: [web]}, securityGroups: {ids: [sg-1]}}");
        assert!(asked(&grant, "web", None, "sg-1"));
        assert!(!asked(&grant, "web", None, "sg-2"));
        assert!(!asked(&grant, "other", None, "sg-1"));
    }

    #[test]
    fn grant_by_label_needs_matching_known_labels() {
        let grant = grant(
            "{name: web, namespaces: {selector: {matchLabels: {team: web}}}, securityGroups: {ids: ['*']}}",
        );
        let team = |team: &str| labels(&[("team", team)]);
        assert!(asked(&grant, "a", Some(&team("web")), "sg-1"));
        assert!(!asked(&grant, "a", Some(&team("db")), "sg-1"));
        assert!(!asked(&grant, "a", None, "sg-1"));
    }

    #[test]
    fn grant_by_expression_matches_like_kubernetes() {
        for (expression, here, elsewhere, unlabelled) in [
            (
                "{key: team, operator: In, values: [web, db]}",
                true,
                false,
                false,
            ),
            (
                "{key: team, operator: NotIn, values: [web]}",
                false,
                true,
                true,
            ),
            ("{key: team, operator: NotIn}", false, false, false),
            ("{key: team, operator: In}", false, false, false),
            ("{key: team, operator: Exists}", true, true, false),
            ("{key: team, operator: DoesNotExist}", false, false, true),
        ] {
            let grant = grant(&format!(
                "{{name: web, namespaces: {{selector: {{matchExpressions: [{expression}]}}}}, securityGroups: {{ids: ['*']}}}}"
            ));
            let covered = |labels| asked(&grant, "a", Some(&labels), "sg-1");
            assert_eq!(covered(labels(&[("team", "web")])), here, "{expression}");
            assert_eq!(
                covered(labels(&[("team", "mail")])),
                elsewhere,
                "{expression}"
            );
            assert_eq!(covered(labels(&[])), unlabelled, "{expression}");
        }
    }

    #[test]
    fn grant_without_namespaces_covers_nothing() {
        let grant = grant("{name: none, namespaces: {}, securityGroups: {ids: ['*']}}");
        assert!(!asked(&grant, "a", Some(&BTreeMap::new()), "sg-1"));
    }

    /// Every set of actions, and every action.
    #[test]
    fn grant_covers_the_actions_that_it_allows_and_by_default_not_removal_of_what_was_adopted() {
        use GrantedAction::{Join, Observe, RemoveAdopted};
        let all = [Join, Observe, RemoveAdopted];
        let mut checked = 0;
        for allowed in 0..8 {
            let allow: Vec<_> = (0..3)
                .filter(|bit| allowed & (1 << bit) != 0)
                .map(|bit| all[bit])
                .collect();
            let mut grant =
                grant("{name: a, namespaces: {names: [a]}, securityGroups: {ids: [sg-1]}}");
            assert_eq!(grant.allow, [Join, Observe], "the default");
            grant.allow.clone_from(&allow);
            for action in all {
                let wanted = Use {
                    namespace: "a",
                    labels: None,
                    group: &"sg-1".parse().unwrap(),
                    action,
                };
                let is_granted = granted(std::slice::from_ref(&grant), wanted) == Granted::Yes;
                assert_eq!(is_granted, allow.contains(&action), "{allow:?}, {action:?}");
                checked += 1;
            }
        }
        assert_eq!(checked, 24);
    }

    #[test]
    fn target_needs_all_tags_of_one_grant() {
        let tagged = |tags: &str| {
            grant(&format!(
                "{{name: a, namespaces: {{names: [a]}}, securityGroups: {{ids: [sg-1]}}, targets: {{tags: {tags}}}}}"
            ))
        };
        let wanted = Use {
            namespace: "a",
            labels: None,
            group: &"sg-1".parse().unwrap(),
            action: GrantedAction::Join,
        };
        let grants = [tagged("{team: a, tier: web}"), tagged("{team: b}")];
        let Granted::Tagged(tags) = granted(&grants, wanted) else {
            panic!("both name tags");
        };
        for (of_target, is_allowed) in [
            (&[][..], false),
            (&[("team", "a")], false),
            (&[("tier", "web")], false),
            (&[("team", "a"), ("tier", "web")], true),
            (&[("team", "a"), ("tier", "web"), ("more", "")], true),
            (&[("team", "b")], true),
            (&[("team", "b"), ("tier", "db")], true),
            (&[("team", "c"), ("tier", "web")], false),
            (&[("Team", "b")], false),
        ] {
            assert_eq!(tags.allow(&labels(of_target)), is_allowed, "{of_target:?}");
        }
        let mut grants = grants.to_vec();
        grants[1].targets = None;
        assert_eq!(granted(&grants, wanted), Granted::Yes);
        assert_eq!(granted(&[], wanted), Granted::No);
    }
}
